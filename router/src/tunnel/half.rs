//! The two halves of a direction of a tunnel.
//!
//! A half whose other end speaks of other types converts on the way ([`Mapped`]).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use edri_events::{CodecError, Failure};

use super::TunnelError;
use super::idle::Idle;
use super::pipe::{Batch, End, Pipe, Side, Weigh, Window};
use super::tie::Tie;

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
    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<TunnelError> {
        let _ = cx;
        Poll::Pending
    }
    fn end(&self, end: End);
    fn is_finished(&self) -> bool;
    fn broken(&self) -> Option<TunnelError>;
}

/// Converts on the way into a pipe of `P`.
struct Inward<T, P> {
    pipe: Arc<Pipe<P>>,
    side: Side,
    convert: fn(T) -> Result<P, CodecError>,
    held: Option<P>,
}

impl<T, P: Send> Mapped<T> for Inward<T, P> {
    fn poll_send(&mut self, cx: &mut Context<'_>, item: &mut Option<T>) -> Poll<Result<(), TunnelError>> {
        if let Some(item) = item.take() {
            self.held = Some((self.convert)(item)?);
        }
        self.pipe.poll_send(cx, self.side, &mut self.held)
    }
    fn end(&self, end: End) {
        self.pipe.end(self.side, end);
    }
    fn is_finished(&self) -> bool {
        self.pipe.is_finished()
    }
    fn broken(&self) -> Option<TunnelError> {
        self.pipe.broken()
    }
}

/// Converts on the way out of a pipe of `P`.
struct Outward<P, T> {
    pipe: Arc<Pipe<P>>,
    side: Side,
    convert: fn(P) -> Result<T, CodecError>,
    batch: Batch<P>,
}

impl<T, P: Send> Mapped<T> for Outward<P, T> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, TunnelError>> {
        match ready!(self.pipe.poll_recv(cx, self.side, &mut self.batch))? {
            Some(item) => Poll::Ready(Ok(Some((self.convert)(item)?))),
            None => Poll::Ready(Ok(None)),
        }
    }
    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<TunnelError> {
        self.pipe.poll_broken(cx)
    }
    fn end(&self, end: End) {
        self.pipe.end(self.side, end);
    }
    fn is_finished(&self) -> bool {
        self.pipe.is_finished()
    }
    fn broken(&self) -> Option<TunnelError> {
        self.pipe.broken()
    }
}

/// The sending half of one direction.
pub struct Sender<T> {
    pipe: SendTo<T>,
    /// Dropping it without a word is an end for a worker, whose outcome follows, and a break for an opener.
    breaks_when_dropped: bool,
    idle: Option<Idle>,
    /// Looks at each item before it is sent.
    check: Option<Check<T>>,
}

type Check<T> = Arc<dyn Fn(&T) -> Result<(), CodecError> + Send + Sync>;

enum SendTo<T> {
    Pipe(Arc<Pipe<T>>, Side),
    Mapped(Box<dyn Mapped<T>>),
}

/// The receiving half of one direction.
pub struct Receiver<T> {
    pipe: RecvFrom<T>,
    idle: Option<Idle>,
}

enum RecvFrom<T> {
    Pipe(Arc<Pipe<T>>, Side, Batch<T>),
    Mapped(Box<dyn Mapped<T>>),
}

/// An item on its way into a pipe. Polled where it is: an item may be large, and is moved as seldom as can be.
pub(super) struct Sending<T> {
    item: Option<T>,
    checked: bool,
}

impl<T> Sending<T> {
    pub(super) fn new(item: T) -> Self {
        Self { item: Some(item), checked: false }
    }
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
    #[inline]
    pub fn send(&mut self, item: T) -> impl Future<Output = Result<(), TunnelError>> {
        let mut sending = Sending::new(item);
        poll_fn(move |cx| self.poll_send(cx, &mut sending))
    }

    #[inline]
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Sending<T>,
    ) -> Poll<Result<(), TunnelError>> {
        if self.check.is_some() && !sending.checked {
            self.check(sending)?;
        }
        let sent = match &mut self.pipe {
            SendTo::Pipe(pipe, side) => pipe.poll_send(cx, *side, &mut sending.item),
            SendTo::Mapped(pipe) => pipe.poll_send(cx, &mut sending.item),
        };
        let Some(idle) = &mut self.idle else { return sent };
        let sent = idle.watch(cx, sent);
        if let Poll::Ready(Err(error @ TunnelError::Idle(_))) = &sent {
            self.end(End::Broken(error.clone()));
        }
        sent
    }

    /// Has the item looked at; one that is refused breaks this direction.
    fn check(&self, sending: &mut Sending<T>) -> Result<(), TunnelError> {
        sending.checked = true;
        let (Some(check), Some(item)) = (&self.check, &sending.item) else { return Ok(()) };
        check(item).map_err(|error| {
            let error = TunnelError::from(error);
            self.end(End::Broken(error.clone()));
            error
        })
    }

    /// Says that nothing more comes in this direction. The other direction goes on.
    pub fn finish(&mut self) {
        self.end(End::Finished);
        // What was finished is not broken any more by dropping this.
        self.breaks_when_dropped = false;
    }

    /// Breaks this direction at once: what is queued is dropped and the receiver gets `reason`.
    pub fn abort(&mut self, reason: Failure) {
        self.end(End::Broken(TunnelError::Aborted(reason)));
    }

    /// Breaks this direction with an error that came from elsewhere.
    #[doc(hidden)]
    pub fn break_off(&self, error: TunnelError) {
        self.end(End::Broken(error));
    }

    /// Has each item looked at before it is sent: one that is refused breaks this direction.
    pub(super) fn check_with(&mut self, check: Check<T>) {
        self.check = Some(check);
    }

    pub(super) fn end(&self, end: End) {
        match &self.pipe {
            SendTo::Pipe(pipe, side) => pipe.end(*side, end),
            SendTo::Mapped(pipe) => pipe.end(end),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.end(if self.breaks_when_dropped { End::Broken(TunnelError::PeerDropped) } else { End::Left });
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` once the sender has finished. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`TunnelError`] when the tunnel broke; items queued before are lost.
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<T>, TunnelError>> {
        poll_fn(move |cx| self.poll_recv(cx))
    }

    #[inline]
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, TunnelError>> {
        let received = match &mut self.pipe {
            RecvFrom::Pipe(pipe, side, batch) => pipe.poll_recv(cx, *side, batch),
            RecvFrom::Mapped(pipe) => pipe.poll_recv(cx),
        };
        let Some(idle) = &mut self.idle else { return received };
        let received = idle.watch(cx, received);
        if let Poll::Ready(Err(error @ TunnelError::Idle(_))) = &received {
            self.end(End::Broken(error.clone()));
        }
        received
    }

    /// Breaks this direction with an error that came from elsewhere.
    #[doc(hidden)]
    pub fn break_off(&self, error: TunnelError) {
        self.end(End::Broken(error));
    }

    /// Ready once this direction is broken, whatever waits in it. Cancel safe.
    #[doc(hidden)]
    pub async fn broken_off(&mut self) -> TunnelError {
        let pipe = &mut self.pipe;
        poll_fn(|cx| match pipe {
            RecvFrom::Pipe(pipe, ..) => pipe.poll_broken(cx),
            RecvFrom::Mapped(pipe) => pipe.poll_broken(cx),
        })
        .await
    }

    pub(super) fn end(&self, end: End) {
        match &self.pipe {
            RecvFrom::Pipe(pipe, side, _) => pipe.end(*side, end),
            RecvFrom::Mapped(pipe) => pipe.end(end),
        }
    }

    /// Whether the sender said that it has finished; it may just have been dropped.
    #[doc(hidden)]
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.pipe {
            RecvFrom::Pipe(pipe, ..) => pipe.is_finished(),
            RecvFrom::Mapped(pipe) => pipe.is_finished(),
        }
    }

    pub(super) fn broken(&self) -> Option<TunnelError> {
        match &self.pipe {
            RecvFrom::Pipe(pipe, ..) => pipe.broken(),
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

/// The halves of a new pipe in which `sender` sends.
pub(super) fn halves<T>(
    window: Window,
    weigh: Weigh<T>,
    idle: Option<&Idle>,
    tie: &Arc<Tie>,
    sender: Side,
) -> (Sender<T>, Receiver<T>) {
    let pipe = Pipe::new(window, weigh, Arc::clone(tie));
    let (breaks_when_dropped, receiver) = match sender {
        Side::Opener => (true, Side::Worker),
        Side::Worker => (false, Side::Opener),
    };
    let idle = || idle.map(Idle::another);
    let send_to = SendTo::Pipe(Arc::clone(&pipe), sender);
    let recv_from = RecvFrom::Pipe(pipe, receiver, Batch::default());
    (
        Sender { pipe: send_to, breaks_when_dropped, idle: idle(), check: None },
        Receiver { pipe: recv_from, idle: idle() },
    )
}

impl<T: Send + 'static> Receiver<T> {
    /// The same half with its items converted on the way out.
    pub(super) fn map<U: 'static>(mut self, convert: fn(T) -> Result<U, CodecError>) -> Receiver<U> {
        // Taken apart by hand, because dropping the half would break the pipe.
        let idle = self.idle.take();
        let pipe: Box<dyn Mapped<U>> = match std::mem::replace(&mut self.pipe, RecvFrom::Mapped(Box::new(Gone))) {
            RecvFrom::Pipe(pipe, side, batch) => Box::new(Outward { pipe, side, batch, convert }),
            RecvFrom::Mapped(_) => Box::new(Gone),
        };
        Receiver { pipe: RecvFrom::Mapped(pipe), idle }
    }
}

impl<T: Send + 'static> Sender<T> {
    /// The same half with its items converted on the way in.
    pub(super) fn map<U: 'static>(mut self, convert: fn(U) -> Result<T, CodecError>) -> Sender<U> {
        let (idle, breaks_when_dropped) = (self.idle.take(), self.breaks_when_dropped);
        let pipe: Box<dyn Mapped<U>> = match std::mem::replace(&mut self.pipe, SendTo::Mapped(Box::new(Gone))) {
            SendTo::Pipe(pipe, side) => Box::new(Inward { pipe, side, convert, held: None }),
            SendTo::Mapped(_) => Box::new(Gone),
        };
        Sender { pipe: SendTo::Mapped(pipe), idle, breaks_when_dropped, check: None }
    }
}

/// Both halves of nothing.
pub(super) fn nothing<U, D>() -> (Receiver<U>, Sender<D>) {
    let receiver = Receiver { pipe: RecvFrom::Mapped(Box::new(Gone)), idle: None };
    let sender = Sender { pipe: SendTo::Mapped(Box::new(Gone)), idle: None, breaks_when_dropped: false, check: None };
    (receiver, sender)
}

/// What is left of a half that was taken apart.
struct Gone;

impl<T> Mapped<T> for Gone {
    fn end(&self, _: End) {}
    fn is_finished(&self) -> bool {
        true
    }
    fn broken(&self) -> Option<TunnelError> {
        None
    }
}
