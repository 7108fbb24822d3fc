//! One direction of a tunnel: a bounded queue of items with credit, and its two halves.
//!
//! A pipe is a queue behind a short lock: the sender adds one item at a time, the receiver takes half a window at once, so
//! the lock is rarely contended. A half whose other end speaks of other types converts on the way ([`Mapped`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use edri_events::{CodecError, Failure};
use parking_lot::Mutex;

use crate::RequestError;
use crate::core::Core;

/// How much may be on its way in one direction of a tunnel: always at least one item, whatever is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// So many items; 0 is as 1, because a window of none would let nothing through.
    pub items: usize,
    /// So many bytes, by [`Item::weight`](edri_events::Item::weight); an item larger than all of it travels alone.
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

impl TunnelError {
    /// The failure of the worker's handler, or the reason of an abort, when that is why.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Aborted(failure) => Some(failure),
            Self::Ended(error) => match &**error {
                RequestError::Failed(failure) => Some(failure),
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<CodecError> for TunnelError {
    fn from(error: CodecError) -> Self {
        Self::Payload(Arc::new(error))
    }
}

/// How many bytes of credit an item takes.
pub(super) type Weigh<T> = fn(&T) -> usize;

struct Pipe<T> {
    // Held to add an item or to take half a window of them.
    state: Mutex<PipeState<T>>,
    window: Window,
    weigh: Weigh<T>,
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
pub(super) enum End {
    /// The sender said so: what is queued is the rest.
    Finished,
    /// The sender was dropped without a word: what is queued is the rest, and the outcome says why.
    Left,
    /// What is queued is worth nothing any more.
    Broken(TunnelError),
}

impl<T> Pipe<T> {
    fn new(window: Window, weigh: Weigh<T>) -> Arc<Self> {
        let window = Window { items: window.items.max(1), ..window };
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
            Some(End::Finished | End::Left) => return Poll::Ready(Err(TunnelError::Finished)),
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

    /// Ready once the pipe is broken.
    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<TunnelError> {
        let mut state = self.state.lock();
        if let Some(End::Broken(error)) = &state.end {
            return Poll::Ready(error.clone());
        }
        state.receiver = Some(cx.waker().clone());
        Poll::Pending
    }

    fn end(&self, end: End) {
        let mut state = self.state.lock();
        match (&state.end, &end) {
            (None, _) | (Some(End::Finished | End::Left), End::Broken(_)) => {}
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

    /// Whether the sender said that it has finished.
    fn is_finished(&self) -> bool {
        matches!(self.state.lock().end, Some(End::Finished))
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
    convert: fn(T) -> Result<P, CodecError>,
    held: Option<P>,
}

impl<T, P: Send> Mapped<T> for Inward<T, P> {
    fn poll_send(&mut self, cx: &mut Context<'_>, item: &mut Option<T>) -> Poll<Result<(), TunnelError>> {
        if let Some(item) = item.take() {
            self.held = Some((self.convert)(item)?);
        }
        self.pipe.poll_send(cx, &mut self.held)
    }
    fn end(&self, end: End) {
        self.pipe.end(end);
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
    convert: fn(P) -> Result<T, CodecError>,
    batch: VecDeque<P>,
}

impl<T, P: Send> Mapped<T> for Outward<P, T> {
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
    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<TunnelError> {
        self.pipe.poll_broken(cx)
    }
    fn end(&self, end: End) {
        self.pipe.end(end);
    }
    fn is_finished(&self) -> bool {
        self.pipe.is_finished()
    }
    fn broken(&self) -> Option<TunnelError> {
        self.pipe.broken()
    }
}

/// Ends both directions when neither has carried anything for too long.
#[derive(Clone)]
pub(super) struct Idle {
    limit: Duration,
    born: Instant,
    last_ms: Arc<AtomicU64>,
    core: Arc<Core>,
}

impl Idle {
    pub(super) fn new(limit: Duration, core: &Arc<Core>) -> Self {
        Self { limit, born: Instant::now(), last_ms: Arc::default(), core: Arc::clone(core) }
    }

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
    /// Looks at each item before it is sent.
    check: Option<Check<T>>,
}

type Check<T> = Arc<dyn Fn(&T) -> Result<(), CodecError> + Send + Sync>;

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
        if let Some(Err(error)) = self.check.as_ref().map(|check| check(&item)) {
            let error = TunnelError::from(error);
            self.end(End::Broken(error.clone()));
            return Err(error);
        }
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
            SendTo::Pipe(pipe) => pipe.end(end),
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
            RecvFrom::Pipe(pipe, _) => pipe.poll_broken(cx),
            RecvFrom::Mapped(pipe) => pipe.poll_broken(cx),
        })
        .await
    }

    pub(super) fn end(&self, end: End) {
        match &self.pipe {
            RecvFrom::Pipe(pipe, _) => pipe.end(end),
            RecvFrom::Mapped(pipe) => pipe.end(end),
        }
    }

    /// Whether the sender said that it has finished; it may just have been dropped.
    #[doc(hidden)]
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.pipe {
            RecvFrom::Pipe(pipe, _) => pipe.is_finished(),
            RecvFrom::Mapped(pipe) => pipe.is_finished(),
        }
    }

    pub(super) fn broken(&self) -> Option<TunnelError> {
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

/// A new pipe. A sender that breaks it when dropped is an opener's: a worker's outcome says how its direction ended.
pub(super) fn halves<T>(
    window: Window,
    weigh: Weigh<T>,
    idle: &Option<Idle>,
    breaks_when_dropped: bool,
) -> (Sender<T>, Receiver<T>) {
    let pipe = Pipe::new(window, weigh);
    let sender = Sender { pipe: SendTo::Pipe(Arc::clone(&pipe)), breaks_when_dropped, idle: idle.clone(), check: None };
    let receiver = Receiver { pipe: RecvFrom::Pipe(pipe, VecDeque::new()), idle: idle.clone() };
    (sender, receiver)
}

impl<T: Send + 'static> Receiver<T> {
    /// The same half with its items converted on the way out.
    pub(super) fn map<U: 'static>(mut self, convert: fn(T) -> Result<U, CodecError>) -> Receiver<U> {
        // Taken apart by hand, because dropping the half would break the pipe.
        let idle = self.idle.take();
        let pipe: Box<dyn Mapped<U>> = match std::mem::replace(&mut self.pipe, RecvFrom::Mapped(Box::new(Gone))) {
            RecvFrom::Pipe(pipe, batch) => Box::new(Outward { pipe, batch, convert }),
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
            SendTo::Pipe(pipe) => Box::new(Inward { pipe, convert, held: None }),
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
