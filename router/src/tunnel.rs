//! Tunnels within one process: two bounded pipes and an outcome.
//!
//! ```text
//! opener  ── Up ──▶  pipe (credit in items and bytes)  ──▶ worker
//!         ◀─ Down ── pipe                              ◀──
//!         ◀───────── outcome: a slot of the pending table
//! ```
//!
//! Items stay the typed values; bytes are not copied. A pipe is a queue behind a short lock: the sender adds one item at
//! a time, the receiver takes half a window at once, so the lock is rarely contended.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use edri_events::{Body, CodecError, DescriptorRef, Encoding, Envelope, Event, Failure, Head, Item, Tunnel, Value};
use parking_lot::Mutex;

use crate::bus::{Bus, Options};
use crate::core::Core;
use crate::delivery::{Offer, ReplyTo};
use crate::pending::Waiting;
use crate::request::To;
use crate::{GroupRef, RequestError};

/// How much may be on its way in one direction of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// So many items.
    pub items: usize,
    /// So many bytes, by [`Item::weight`]; an item larger than all of it travels alone.
    pub bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { items: 128, bytes: 4 * 1024 * 1024 }
    }
}

/// Why a tunnel ended before its end.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// One end aborted it, with this reason.
    #[error("tunnel aborted: {0}")]
    Aborted(Failure),
    /// The other end was dropped.
    #[error("the other end of the tunnel was dropped")]
    PeerDropped,
    /// Nothing was sent in either direction for as long as the event's idle time-out allows.
    #[error("the tunnel was idle for {0:?}")]
    Idle(Duration),
    /// Something was sent after the end.
    #[error("this direction of the tunnel is finished")]
    Finished,
    /// An item is not what the other end understands.
    #[error("tunnel item: {0}")]
    Payload(Arc<CodecError>),
    /// The worker failed, was lost, or was never reached.
    #[error("{0}")]
    Ended(Arc<RequestError>),
}

impl TunnelError {
    /// The stable code: `peer_lost`, `timed_out`, `finished`, `invalid_payload`, or that of the abort or the worker's
    /// failure.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Aborted(failure) => failure.code(),
            Self::PeerDropped => "peer_lost",
            Self::Idle(_) => "timed_out",
            Self::Finished => "finished",
            Self::Payload(_) => "invalid_payload",
            Self::Ended(error) => error.code(),
        }
    }
}

impl From<CodecError> for TunnelError {
    fn from(error: CodecError) -> Self {
        Self::Payload(Arc::new(error))
    }
}

// ---- one direction -----------------------------------------------------------------------------------------------------

struct Pipe<T> {
    // Held to add an item or to take half a window of them.
    state: Mutex<PipeState<T>>,
    window: Window,
    weigh: fn(&T) -> usize,
}

struct PipeState<T> {
    items: VecDeque<T>,
    bytes: usize,
    /// What the receiver took and has not used up yet; it still occupies the window.
    taken_items: usize,
    taken_bytes: usize,
    end: Option<End>,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

#[derive(Clone)]
enum End {
    /// What is queued is the rest.
    Finished,
    /// What is queued is worth nothing any more.
    Broken(TunnelError),
}

impl<T> Pipe<T> {
    fn new(window: Window, weigh: fn(&T) -> usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(PipeState {
                items: VecDeque::new(),
                bytes: 0,
                taken_items: 0,
                taken_bytes: 0,
                end: None,
                receiver: None,
                sender: None,
            }),
            window,
            weigh,
        })
    }

    fn poll_send(&self, cx: &mut Context<'_>, item: &mut Option<T>) -> Poll<Result<(), TunnelError>> {
        let mut state = self.state.lock();
        match &state.end {
            Some(End::Broken(error)) => return Poll::Ready(Err(error.clone())),
            Some(End::Finished) => return Poll::Ready(Err(TunnelError::Finished)),
            None => {}
        }
        let Some(weight) = item.as_ref().map(self.weigh) else { return Poll::Ready(Ok(())) };
        let (items, bytes) = (state.items.len() + state.taken_items, state.bytes + state.taken_bytes);
        let fits = items < self.window.items && (bytes == 0 || bytes + weight <= self.window.bytes);
        if !fits {
            state.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.items.extend(item.take());
        state.bytes += weight;
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes up to half a window into `batch`, which is empty; that credits what was taken before.
    fn poll_take(&self, cx: &mut Context<'_>, batch: &mut VecDeque<T>) -> Poll<Result<bool, TunnelError>> {
        let mut state = self.state.lock();
        let had = state.taken_items > 0;
        (state.taken_items, state.taken_bytes) = (0, 0);
        if let Some(End::Broken(error)) = &state.end {
            return Poll::Ready(Err(error.clone()));
        }
        let most = (self.window.items / 2).max(1);
        while let Some(item) = state.items.pop_front() {
            let weight = (self.weigh)(&item);
            state.bytes -= weight;
            state.taken_bytes += weight;
            state.taken_items += 1;
            batch.push_back(item);
            if state.taken_items >= most || state.taken_bytes >= self.window.bytes / 2 {
                break;
            }
        }
        let outcome = match (&state.end, batch.is_empty()) {
            (_, false) => Poll::Ready(Ok(true)),
            (Some(_), true) => Poll::Ready(Ok(false)),
            (None, true) => {
                state.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        };
        let sender = if had { state.sender.take() } else { None };
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
        outcome
    }

    fn end(&self, end: End) {
        let mut state = self.state.lock();
        match (&state.end, &end) {
            (None, _) | (Some(End::Finished), End::Broken(_)) => {}
            _ => return,
        }
        let dropped = if matches!(end, End::Broken(_)) { std::mem::take(&mut state.items) } else { VecDeque::new() };
        state.end = Some(end);
        let wakers = [state.receiver.take(), state.sender.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
        // User types, dropped without the lock.
        drop(dropped);
    }

    fn broken(&self) -> Option<TunnelError> {
        match &self.state.lock().end {
            Some(End::Broken(error)) => Some(error.clone()),
            _ => None,
        }
    }
}

/// A pipe of other items than the one it serves, made to look as if it were of `T`.
trait Mapped<T>: Send {
    fn poll_send(&mut self, cx: &mut Context<'_>, item: &mut Option<T>) -> Poll<Result<(), TunnelError>> {
        let _ = (cx, item);
        Poll::Ready(Err(TunnelError::Finished))
    }
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, TunnelError>> {
        let _ = cx;
        Poll::Ready(Ok(None))
    }
    fn end(&self, end: End);
    fn broken(&self) -> Option<TunnelError>;
}

/// Converts on the way into a pipe of `P`.
struct Inward<P, F> {
    pipe: Arc<Pipe<P>>,
    convert: F,
    held: Option<P>,
}

impl<T, P: Send, F: Fn(T) -> Result<P, CodecError> + Send> Mapped<T> for Inward<P, F> {
    fn poll_send(&mut self, cx: &mut Context<'_>, item: &mut Option<T>) -> Poll<Result<(), TunnelError>> {
        if let Some(item) = item.take() {
            self.held = Some((self.convert)(item)?);
        }
        self.pipe.poll_send(cx, &mut self.held)
    }
    fn end(&self, end: End) {
        self.pipe.end(end);
    }
    fn broken(&self) -> Option<TunnelError> {
        self.pipe.broken()
    }
}

/// Converts on the way out of a pipe of `P`.
struct Outward<P, F> {
    pipe: Arc<Pipe<P>>,
    convert: F,
    batch: VecDeque<P>,
}

impl<T, P: Send, F: Fn(P) -> Result<T, CodecError> + Send> Mapped<T> for Outward<P, F> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, TunnelError>> {
        loop {
            if let Some(item) = self.batch.pop_front() {
                return Poll::Ready(Ok(Some((self.convert)(item)?)));
            }
            match self.pipe.poll_take(cx, &mut self.batch) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
    fn end(&self, end: End) {
        self.pipe.end(end);
    }
    fn broken(&self) -> Option<TunnelError> {
        self.pipe.broken()
    }
}

/// Ends both directions when neither has carried anything for too long.
#[derive(Clone)]
struct Idle {
    limit: Duration,
    born: Instant,
    last_ms: Arc<AtomicU64>,
    core: Arc<Core>,
}

impl Idle {
    fn touch(&self) {
        self.last_ms.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn over(&self) -> Instant {
        self.born + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + self.limit
    }

    /// Runs `future` unless the tunnel becomes idle first.
    async fn watch<R>(&self, future: impl Future<Output = R>) -> Result<R, TunnelError> {
        let mut future = std::pin::pin!(future);
        loop {
            let over = self.over();
            tokio::select! {
                biased;
                result = &mut future => {
                    self.touch();
                    return Ok(result);
                }
                () = self.core.sleep_until(over) => {
                    if self.over() <= Instant::now() {
                        return Err(TunnelError::Idle(self.limit));
                    }
                }
            }
        }
    }
}

/// The sending half of one direction.
pub struct Sender<T> {
    pipe: SendTo<T>,
    /// Dropping it without a word is an end for a worker, whose outcome follows, and a break for an opener.
    breaks_when_dropped: bool,
    idle: Option<Idle>,
}

enum SendTo<T> {
    Pipe(Arc<Pipe<T>>),
    Mapped(Box<dyn Mapped<T>>),
}

/// The receiving half of one direction.
pub struct Receiver<T> {
    pipe: RecvFrom<T>,
    idle: Option<Idle>,
}

enum RecvFrom<T> {
    Pipe(Arc<Pipe<T>>, VecDeque<T>),
    Mapped(Box<dyn Mapped<T>>),
}

impl<T> Sender<T> {
    /// Sends an item, waiting for credit.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] once the tunnel has ended; the item is dropped then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while it waits drops the item unsent.
    pub async fn send(&mut self, item: T) -> Result<(), TunnelError> {
        let Self { pipe, idle, .. } = self;
        let mut item = Some(item);
        let send = poll_fn(|cx| match pipe {
            SendTo::Pipe(pipe) => pipe.poll_send(cx, &mut item),
            SendTo::Mapped(pipe) => pipe.poll_send(cx, &mut item),
        });
        let sent = match idle {
            None => return send.await,
            Some(idle) => idle.watch(send).await,
        };
        sent.unwrap_or_else(|error| {
            self.end(End::Broken(error.clone()));
            Err(error)
        })
    }

    /// Says that nothing more comes in this direction. The other direction goes on.
    pub fn finish(&mut self) {
        self.end(End::Finished);
    }

    /// Breaks this direction at once: what is queued is dropped and the receiver gets `reason`.
    pub fn abort(&mut self, reason: Failure) {
        self.end(End::Broken(TunnelError::Aborted(reason)));
    }

    fn end(&self, end: End) {
        match &self.pipe {
            SendTo::Pipe(pipe) => pipe.end(end),
            SendTo::Mapped(pipe) => pipe.end(end),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.end(if self.breaks_when_dropped { End::Broken(TunnelError::PeerDropped) } else { End::Finished });
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` once the sender has finished. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] when the tunnel broke; items queued before are lost.
    pub async fn recv(&mut self) -> Result<Option<T>, TunnelError> {
        let Self { pipe, idle } = self;
        let receive = poll_fn(|cx| match pipe {
            RecvFrom::Mapped(pipe) => pipe.poll_recv(cx),
            RecvFrom::Pipe(pipe, batch) => loop {
                if let Some(item) = batch.pop_front() {
                    return Poll::Ready(Ok(Some(item)));
                }
                match pipe.poll_take(cx, batch) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false)) => return Poll::Ready(Ok(None)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            },
        });
        let received = match idle {
            None => return receive.await,
            Some(idle) => idle.watch(receive).await,
        };
        received.unwrap_or_else(|error| {
            self.end(End::Broken(error.clone()));
            Err(error)
        })
    }

    fn end(&self, end: End) {
        match &self.pipe {
            RecvFrom::Pipe(pipe, _) => pipe.end(end),
            RecvFrom::Mapped(pipe) => pipe.end(end),
        }
    }

    fn broken(&self) -> Option<TunnelError> {
        match &self.pipe {
            RecvFrom::Pipe(pipe, _) => pipe.broken(),
            RecvFrom::Mapped(pipe) => pipe.broken(),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.end(End::Broken(TunnelError::PeerDropped));
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

// ---- both directions ---------------------------------------------------------------------------------------------------

/// The worker's end before it is accepted, of items `U` up and `D` down.
struct Ends<U, D> {
    receiver: Receiver<U>,
    sender: Sender<D>,
}

impl<U, D> std::fmt::Debug for Ends<U, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tunnel")
    }
}

impl<U: Item, D: Item> Offer for Ends<U, D> {
    fn into_untyped(self: Box<Self>) -> (Receiver<Body>, Sender<Body>) {
        (untyped_receiver(self.receiver), untyped_sender(self.sender))
    }
}

/// The worker's end of a tunnel whose opener has no Rust types.
#[derive(Debug)]
struct UntypedEnds(Ends<Body, Body>);

impl Offer for UntypedEnds {
    fn into_untyped(self: Box<Self>) -> (Receiver<Body>, Sender<Body>) {
        (self.0.receiver, self.0.sender)
    }
}

fn shared<T>(pipe: &Arc<Pipe<T>>, idle: &Option<Idle>, opener: bool) -> (Sender<T>, Receiver<T>) {
    let sender = Sender { pipe: SendTo::Pipe(Arc::clone(pipe)), breaks_when_dropped: opener, idle: idle.clone() };
    let receiver = Receiver { pipe: RecvFrom::Pipe(Arc::clone(pipe), VecDeque::new()), idle: idle.clone() };
    (sender, receiver)
}

// The halves are taken apart by hand because both have a `Drop`, which would end the pipe.

fn untyped_receiver<T: Item>(mut half: Receiver<T>) -> Receiver<Body> {
    let idle = half.idle.take();
    let gone = RecvFrom::Mapped(Box::new(Gone));
    let mapped: Box<dyn Mapped<Body>> = match std::mem::replace(&mut half.pipe, gone) {
        RecvFrom::Pipe(pipe, batch) => {
            Box::new(Outward { pipe, batch, convert: |item: T| Body::encode(Encoding::MessagePack, &item) })
        }
        RecvFrom::Mapped(_) => Box::new(Gone),
    };
    Receiver { pipe: RecvFrom::Mapped(mapped), idle }
}

fn untyped_sender<T: Item>(mut half: Sender<T>) -> Sender<Body> {
    let (idle, breaks_when_dropped) = (half.idle.take(), half.breaks_when_dropped);
    let mapped: Box<dyn Mapped<Body>> = match std::mem::replace(&mut half.pipe, SendTo::Mapped(Box::new(Gone))) {
        SendTo::Pipe(pipe) => Box::new(Inward { pipe, convert: |body: Body| body.decode::<T>(), held: None }),
        SendTo::Mapped(_) => Box::new(Gone),
    };
    Sender { pipe: SendTo::Mapped(mapped), idle, breaks_when_dropped }
}

fn typed_receiver<T: Item>(mut half: Receiver<Body>) -> Receiver<T> {
    let idle = half.idle.take();
    let gone = RecvFrom::Mapped(Box::new(Gone));
    let mapped: Box<dyn Mapped<T>> = match std::mem::replace(&mut half.pipe, gone) {
        RecvFrom::Pipe(pipe, batch) => Box::new(Outward { pipe, batch, convert: |body: Body| body.decode::<T>() }),
        RecvFrom::Mapped(_) => Box::new(Gone),
    };
    Receiver { pipe: RecvFrom::Mapped(mapped), idle }
}

fn typed_sender<T: Item>(mut half: Sender<Body>) -> Sender<T> {
    let (idle, breaks_when_dropped) = (half.idle.take(), half.breaks_when_dropped);
    let mapped: Box<dyn Mapped<T>> = match std::mem::replace(&mut half.pipe, SendTo::Mapped(Box::new(Gone))) {
        SendTo::Pipe(pipe) => {
            Box::new(Inward { pipe, convert: |item: T| Body::encode(Encoding::MessagePack, &item), held: None })
        }
        SendTo::Mapped(_) => Box::new(Gone),
    };
    Sender { pipe: SendTo::Mapped(mapped), idle, breaks_when_dropped }
}

/// What is left of a half that was taken apart.
struct Gone;

impl<T> Mapped<T> for Gone {
    fn end(&self, _: End) {}
    fn broken(&self) -> Option<TunnelError> {
        None
    }
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
    waiting: Option<(Waiting<Arc<Core>>, GroupRef)>,
    ended: Option<Result<Value, TunnelError>>,
    take: fn(Value) -> Result<R, CodecError>,
}

impl<R> TunnelOutcome<R> {
    async fn wait(&mut self) -> Result<(), TunnelError> {
        if let Some((waiting, _)) = &mut self.waiting {
            let outcome = waiting.await;
            self.ended = Some(outcome.map_err(|error| TunnelError::Ended(Arc::new(error))));
            self.waiting = None;
        }
        match &self.ended {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// The result that the worker's handler returned.
    ///
    /// # Errors
    ///
    /// [`TunnelError::Ended`] with the worker's failure, or why it was lost.
    pub async fn result(mut self) -> Result<R, TunnelError> {
        self.wait().await?;
        match self.ended.take() {
            Some(Ok(value)) => Ok((self.take)(value)?),
            Some(Err(error)) => Err(error),
            None => Err(TunnelError::Finished),
        }
    }
}

impl<U, D, R> Opened<U, D, R> {
    /// Sends an item to the worker, waiting for credit.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] once the tunnel has ended: the worker's failure if that is why.
    pub async fn send(&mut self, item: U) -> Result<(), TunnelError> {
        match self.sender.send(item).await {
            Err(TunnelError::PeerDropped) => {
                self.outcome.wait().await?;
                Err(TunnelError::PeerDropped)
            }
            sent => sent,
        }
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
    pub async fn recv(&mut self) -> Result<Option<D>, TunnelError> {
        match self.receiver.recv().await {
            Ok(Some(item)) => Ok(Some(item)),
            // The worker's half ends when its handler does: its outcome says whether that was the end or a break.
            Ok(None) if self.outcome.waiting.is_some() => {
                self.outcome.wait().await?;
                Ok(None)
            }
            other => other,
        }
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
    pub async fn send(&mut self, item: D) -> Result<(), TunnelError> {
        self.sender.send(item).await
    }

    /// The next item of the opener; `None` once it has finished. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] when the opener aborted the tunnel or was dropped.
    pub async fn recv(&mut self) -> Result<Option<U>, TunnelError> {
        self.receiver.recv().await
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
            Ok(ends) => Self::new(typed_receiver(ends.0.receiver), typed_sender(ends.0.sender)),
            // One name has one Rust type, so another type's ends cannot be offered under it.
            Err(_) => {
                let (sender, receiver) = (SendTo::Mapped(Box::new(Gone)), RecvFrom::Mapped(Box::new(Gone)));
                Self::new(
                    Receiver { pipe: receiver, idle: None },
                    Sender { pipe: sender, breaks_when_dropped: false, idle: None },
                )
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
        let head = self.tunnel_head(DescriptorRef::of::<E>(), options)?;
        let envelope = Envelope::typed(head, event).into();
        self.open_ends(envelope, window, (Item::weight, Item::weight), |ends| Box::new(ends), Value::take).await
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
        take: fn(Value) -> Result<Body, CodecError>,
    ) -> Result<Opened<Body, Body, Body>, RequestError> {
        let weigh: fn(&Body) -> usize = |body| body.bytes.len();
        self.open_ends(envelope, Window::default(), (weigh, weigh), |ends| Box::new(UntypedEnds(ends)), take).await
    }

    async fn open_ends<U: Send, D: Send, R>(
        &self,
        envelope: Envelope,
        window: Window,
        (weigh_up, weigh_down): (fn(&U) -> usize, fn(&D) -> usize),
        offer: fn(Ends<U, D>) -> Box<dyn Offer>,
        take: fn(Value) -> Result<R, CodecError>,
    ) -> Result<Opened<U, D, R>, RequestError> {
        let idle = envelope.head().descriptor.time_limit().map(|limit| Idle {
            limit,
            born: Instant::now(),
            last_ms: Arc::default(),
            core: Arc::clone(&self.core),
        });
        let (up, down) = (Pipe::new(window, weigh_up), Pipe::new(window, weigh_down));
        let (sender, worker_receiver) = shared(&up, &idle, true);
        let (worker_sender, receiver) = shared(&down, &idle, false);
        let offer = offer(Ends { receiver: worker_receiver, sender: worker_sender });
        let (waiting, group) =
            self.place(envelope, To::Any, None, |ticket| ReplyTo::Tunnel(ticket, Some(offer))).await?;
        let outcome = TunnelOutcome { bus: self.clone(), waiting: Some((waiting, group)), ended: None, take };
        Ok(Opened { sender, receiver, outcome })
    }
}
