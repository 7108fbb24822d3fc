//! Tunnels within one process: two bounded pipes and an outcome.
//!
//! ```text
//! opener  ── Up ──▶  pipe (credit in items and bytes)  ──▶ worker
//!         ◀─ Down ── pipe                              ◀──
//!         ◀───────── outcome: a slot of the pending table
//! ```
//!
//! Items stay the typed values; bytes are not copied. [`Tunnels`] carries them beyond the process.

mod flow;
mod half;
mod idle;
mod pipe;
mod tie;
mod tunnels;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use edri_events::{Body, CodecError, DescriptorRef, Encoding, Envelope, Event, Failure, Head, Item, Tunnel, Value};

use crate::RequestError;
use crate::border::{Left, Passage};
use crate::bus::{Bus, Options};
use crate::core::Core;
use crate::delivery::{Offer, ReplyTo};
use crate::request::{Sought, To};
use crate::traced::{self, Traced};
use crate::turn::Turn;

pub use half::{Receiver, Sender};
use half::{Sending, halves};
use idle::Idle;
use pipe::{End, Side, Weigh};
pub use pipe::{TunnelError, Window};
use tie::Tie;
pub use tunnels::{Grant, Opener, OtherSide, Tunnels};

/// The worker's end before it is accepted, of items `U` up and `D` down.
struct Ends<U, D> {
    receiver: Receiver<U>,
    sender: Sender<D>,
    tie: Arc<Tie>,
}

impl<U, D> std::fmt::Debug for Ends<U, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tunnel")
    }
}

impl<U: Item, D: Item> Offer for Ends<U, D> {
    fn into_untyped(self: Box<Self>) -> (Receiver<Body>, Sender<Body>) {
        let receiver = self.receiver.map(|item: U| Body::encode(Encoding::MessagePack, &item));
        (receiver, self.sender.map(Body::take::<D>))
    }

    fn accept(&self, turn: &Arc<dyn Turn>) {
        self.tie.accept(turn);
    }
}

/// The worker's end of a tunnel whose opener has no Rust types.
#[derive(Debug)]
struct UntypedEnds(Ends<Body, Body>);

impl Offer for UntypedEnds {
    fn into_untyped(self: Box<Self>) -> (Receiver<Body>, Sender<Body>) {
        (self.0.receiver, self.0.sender)
    }

    fn accept(&self, turn: &Arc<dyn Turn>) {
        self.0.tie.accept(turn);
    }
}

/// A tunnel whose opener is elsewhere: the worker's end, and the halves of whoever stands in for the opener.
#[doc(hidden)]
#[must_use]
pub fn from_elsewhere(window: Window) -> (Box<dyn Offer>, Sender<Body>, Receiver<Body>) {
    let weigh: Weigh<Body> = |body| body.bytes.len();
    let tie = Arc::default();
    let (sender, worker_receiver) = halves(window, weigh, None, &tie, Side::Opener);
    let (worker_sender, receiver) = halves(window, weigh, None, &tie, Side::Worker);
    let ends = Ends { receiver: worker_receiver, sender: worker_sender, tie };
    (Box::new(UntypedEnds(ends)), sender, receiver)
}

/// The opener's end of a tunnel. Dropping it tells the worker, whose handler sees its context cancelled.
pub struct Opened<U, D, R> {
    sender: Sender<U>,
    receiver: Receiver<D>,
    outcome: TunnelOutcome<R>,
}

/// What comes of a tunnel in the end.
pub struct TunnelOutcome<R> {
    bus: Bus,
    waiting: Option<Sought<Arc<Core>>>,
    ended: Option<Result<Value, TunnelError>>,
    traced: Traced,
    take: fn(Value) -> Result<R, CodecError>,
    /// Who is shown how it ended.
    passage: Option<Box<dyn Passage>>,
}

impl<R> TunnelOutcome<R> {
    async fn wait(&mut self) -> Result<(), TunnelError> {
        poll_fn(|cx| self.poll_wait(cx)).await
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        if let Some(waiting) = &mut self.waiting {
            let outcome = ready!(match waiting {
                Sought::Here(waiting, _) => Pin::new(waiting).poll(cx),
                Sought::Above(outcome) => outcome.as_mut().poll(cx),
            });
            if let Err(error) = &outcome {
                self.traced.failed(error.code());
            }
            self.traced = Traced::default();
            self.ended = Some(outcome.map_err(|error| TunnelError::Ended(Arc::new(error))));
            self.waiting = None;
        }
        Poll::Ready(match &self.ended {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(()),
        })
    }

    /// The result that the worker's handler returned.
    ///
    /// # Errors
    ///
    /// [`TunnelError::Ended`] with the worker's failure, or why it was lost.
    pub async fn result(mut self) -> Result<R, TunnelError> {
        // Why there is none is among what is taken.
        let _ = self.wait().await;
        let mut left = Left::Ended(self.ended.take().unwrap_or(Err(TunnelError::Finished)));
        if let Some(passage) = &mut self.passage {
            passage.leave(&mut left).await;
        }
        match left {
            Left::Ended(ended) => Ok((self.take)(ended?)?),
            other => unreachable!("a tunnel left a border as {other:?}"),
        }
    }
}

impl<D, R> Opened<Body, D, R> {
    /// The same, shown to whoever has let it pass.
    pub(crate) fn watched(mut self, passage: Box<dyn Passage>) -> Self {
        if let Some(check) = passage.items() {
            self.sender.check_with(check);
        }
        self.outcome.passage = Some(passage);
        self
    }
}

impl<U, D, R> Opened<U, D, R> {
    /// Sends an item to the worker, waiting for credit.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] once the tunnel has ended: the worker's failure if that is why.
    #[inline]
    pub fn send(&mut self, item: U) -> impl Future<Output = Result<(), TunnelError>> {
        let (mut sending, mut dropped) = (Sending::new(item), false);
        poll_fn(move |cx| {
            if !dropped {
                let sent = ready!(self.sender.poll_send(cx, &mut sending));
                dropped = matches!(sent, Err(TunnelError::PeerDropped));
                if !dropped {
                    return Poll::Ready(sent);
                }
            }
            // The worker's outcome says why.
            ready!(self.outcome.poll_wait(cx))?;
            Poll::Ready(Err(TunnelError::PeerDropped))
        })
    }

    /// Says that nothing more comes from here. The worker's direction goes on.
    pub fn finish(&mut self) {
        self.sender.finish();
    }

    /// The next item of the worker; `None` once it has finished, or has succeeded. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] when the tunnel was aborted, or the worker failed or was lost.
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<D>, TunnelError>> {
        let mut left = false;
        poll_fn(move |cx| {
            if !left {
                let received = ready!(self.receiver.poll_recv(cx));
                left = matches!(received, Ok(None)) && !self.receiver.is_finished();
                if !left {
                    return Poll::Ready(received);
                }
            }
            // The worker's half ended with its handler: the outcome says whether that was the end or a break.
            ready!(self.outcome.poll_wait(cx))?;
            Poll::Ready(Ok(None))
        })
    }

    /// The result that the worker's handler returned. Finishes this direction; items of the worker that were not received
    /// are dropped.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] when the tunnel was aborted, or the worker failed or was lost.
    pub async fn result(mut self) -> Result<R, TunnelError> {
        self.finish();
        loop {
            tokio::select! {
                biased;
                received = self.receiver.recv() => match received {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return Err(error),
                },
                ended = self.outcome.wait() => {
                    ended?;
                    break;
                }
            }
        }
        let Self { outcome, .. } = self;
        outcome.result().await
    }

    /// Breaks both directions at once; the worker gets `reason`, and its context is cancelled.
    pub fn abort(mut self, reason: Failure) {
        self.receiver.end(End::Broken(TunnelError::Aborted(reason.clone())));
        self.sender.abort(reason);
    }

    /// Whether the tunnel has broken, and why.
    #[must_use]
    pub fn broken(&self) -> Option<TunnelError> {
        self.receiver.broken()
    }

    /// Both directions and the result, to be used by different tasks.
    #[must_use]
    pub fn split(self) -> (Sender<U>, Receiver<D>, TunnelOutcome<R>) {
        (self.sender, self.receiver, self.outcome)
    }
}

/// The worker's end of a tunnel. When the handler returns, its direction is finished and the opener gets the result, or
/// the failure.
#[derive(Debug)]
pub struct Accepted<U, D> {
    receiver: Receiver<U>,
    sender: Sender<D>,
}

impl<U, D> Accepted<U, D> {
    pub(crate) fn new(receiver: Receiver<U>, sender: Sender<D>) -> Self {
        Self { receiver, sender }
    }

    /// Sends an item to the opener, waiting for credit.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] once the tunnel has ended.
    #[inline]
    pub fn send(&mut self, item: D) -> impl Future<Output = Result<(), TunnelError>> {
        self.sender.send(item)
    }

    /// The next item of the opener; `None` once it has finished. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] when the opener aborted the tunnel or was dropped.
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<U>, TunnelError>> {
        self.receiver.recv()
    }

    /// Says that nothing more comes from here. The opener's direction goes on.
    pub fn finish(&mut self) {
        self.sender.finish();
    }

    /// Breaks both directions at once; the opener gets `reason`.
    pub fn abort(&mut self, reason: Failure) {
        self.receiver.end(End::Broken(TunnelError::Aborted(reason.clone())));
        self.sender.abort(reason);
    }

    /// Both directions, to be used by different tasks.
    #[must_use]
    pub fn split(self) -> (Receiver<U>, Sender<D>) {
        (self.receiver, self.sender)
    }
}

impl<U: Item, D: Item> Accepted<U, D> {
    /// Accepts what an opener offers, whether it has the Rust types or not.
    #[doc(hidden)]
    #[must_use]
    pub fn of(offer: Box<dyn Offer>) -> Self {
        let offer: Box<dyn std::any::Any> = match (offer as Box<dyn std::any::Any>).downcast::<Ends<U, D>>() {
            Ok(ends) => return Self::new(ends.receiver, ends.sender),
            Err(offer) => offer,
        };
        match offer.downcast::<UntypedEnds>() {
            Ok(ends) => {
                let Ends { receiver, sender, .. } = ends.0;
                let sender = sender.map(|item: D| Body::encode(Encoding::MessagePack, &item));
                Self::new(receiver.map(Body::take::<U>), sender)
            }
            // One name has one Rust type, so another type's ends cannot be offered under it.
            Err(_) => {
                let (receiver, sender) = half::nothing();
                Self::new(receiver, sender)
            }
        }
    }
}

impl Accepted<Body, Body> {
    /// Accepts what an opener offers as encoded items.
    #[doc(hidden)]
    #[must_use]
    pub fn untyped(offer: Box<dyn Offer>) -> Self {
        let (receiver, sender) = offer.into_untyped();
        Self::new(receiver, sender)
    }
}

impl<U, D, R> std::fmt::Debug for Opened<U, D, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("broken", &self.broken()).finish_non_exhaustive()
    }
}

impl<R> std::fmt::Debug for TunnelOutcome<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelOutcome").field("bus", &self.bus).finish_non_exhaustive()
    }
}

/// The opener's end of the tunnel event `E`.
pub type OpenedTunnel<E> = Opened<<E as Tunnel>::Up, <E as Tunnel>::Down, <E as Event>::Output>;

impl Bus {
    /// Opens a tunnel to one worker, chosen as for a request. What is sent before the worker accepts waits for it, as far
    /// as the window goes.
    ///
    /// # Errors
    ///
    /// As [`Bus::request`] until a worker's inbox has it; what happens then is told by the tunnel.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the opening.
    pub async fn open<E: Tunnel>(&self, event: E) -> Result<OpenedTunnel<E>, RequestError> {
        self.open_with(event, Window::default(), &Options::default()).await
    }

    /// As [`Bus::open`], with a window of one's own and something to say beside the event.
    ///
    /// # Errors
    ///
    /// As [`Bus::open`].
    pub async fn open_with<E: Tunnel>(
        &self,
        event: E,
        window: Window,
        options: &Options,
    ) -> Result<OpenedTunnel<E>, RequestError> {
        self.open_somewhere(event, To::Any, window, options).await
    }

    /// Opens a tunnel to the manager of this name, as [`Bus::request_to`] asks one: to that of this node if there is one, otherwise of the
    /// nearest; written `node/manager`, to that of that node and no other.
    ///
    /// # Errors
    ///
    /// As [`Bus::open`]; [`RequestError::NoHandler`] also when that manager is not there or does not take this event.
    pub async fn open_to<E: Tunnel>(&self, manager: &str, event: E) -> Result<OpenedTunnel<E>, RequestError> {
        self.open_somewhere(event, To::named(manager), Window::default(), &Options::default()).await
    }

    async fn open_somewhere<E: Tunnel>(
        &self,
        event: E,
        to: To<'_>,
        window: Window,
        options: &Options,
    ) -> Result<OpenedTunnel<E>, RequestError> {
        let head = self.tunnel_head(DescriptorRef::of::<E>(), options)?;
        let envelope = Envelope::typed(head, event).into();
        self.open_ends(envelope, to, window, (Item::weight, Item::weight), |ends| Box::new(ends), Value::take).await
    }

    pub(crate) fn tunnel_head(&self, descriptor: DescriptorRef, options: &Options) -> Result<Head, RequestError> {
        let mut head = self.head(descriptor, options).map_err(crate::request::not_sent)?;
        // A tunnel may last; its time limit is for being idle, not for being open.
        head.deadline = None;
        Ok(head)
    }

    pub(crate) async fn open_untyped(
        &self,
        envelope: Envelope,
        to: To<'_>,
        take: fn(Value) -> Result<Body, CodecError>,
    ) -> Result<Opened<Body, Body, Body>, RequestError> {
        let weigh: fn(&Body) -> usize = |body| body.bytes.len();
        self.open_ends(envelope, to, Window::default(), (weigh, weigh), |ends| Box::new(UntypedEnds(ends)), take).await
    }

    async fn open_ends<U: Send, D: Send, R>(
        &self,
        envelope: Envelope,
        to: To<'_>,
        window: Window,
        (weigh_up, weigh_down): (Weigh<U>, Weigh<D>),
        offer: fn(Ends<U, D>) -> Box<dyn Offer>,
        take: fn(Value) -> Result<R, CodecError>,
    ) -> Result<Opened<U, D, R>, RequestError> {
        let idle = envelope.head().descriptor.time_limit().map(|limit| Idle::new(limit, &self.core));
        let tie = Arc::default();
        let (sender, worker_receiver) = halves(window, weigh_up, idle.as_ref(), &tie, Side::Opener);
        let (worker_sender, receiver) = halves(window, weigh_down, idle.as_ref(), &tie, Side::Worker);
        let offer = offer(Ends { receiver: worker_receiver, sender: worker_sender, tie });
        let traced = traced::tunnel(&envelope);
        let placed = self.place(envelope, to, |ticket| ReplyTo::Tunnel(ticket, Some(Box::new(offer)))).await;
        let waiting = placed.inspect_err(|error| traced.failed(error.code()))?;
        let outcome =
            TunnelOutcome { bus: self.clone(), waiting: Some(waiting), ended: None, traced, take, passage: None };
        Ok(Opened { sender, receiver, outcome })
    }
}
