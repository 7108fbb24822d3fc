//! One direction of a tunnel: a bounded queue of items with credit.
//!
//! A pipe is a queue behind a short lock: the sender adds one item at a time, the receiver takes all there are at once and
//! gives credit back by halves of the window, so the lock is rarely contended.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use edri_events::{CodecError, Failure};
use parking_lot::Mutex;

use super::tie::Tie;
use crate::RequestError;

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

/// A queue between two halves, one of which is the opener's.
pub(super) struct Pipe<T> {
    // Held to add an item, to take all, or to give credit back.
    state: Mutex<PipeState<T>>,
    window: Window,
    weigh: Weigh<T>,
    tie: Arc<Tie>,
}

struct PipeState<T> {
    items: VecDeque<T>,
    bytes: usize,
    /// What the receiver took and has not given back yet; it still occupies the window.
    taken: Window,
    end: Option<End>,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

/// Whose half it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Opener,
    Worker,
}

/// What a receiver took out of a pipe.
pub(super) struct Batch<T> {
    items: VecDeque<T>,
    /// What was used of it and not given back as credit yet.
    used: Window,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), used: Window { items: 0, bytes: 0 } }
    }
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
    pub(super) fn new(window: Window, weigh: Weigh<T>, tie: Arc<Tie>) -> Arc<Self> {
        let window = Window { items: window.items.max(1), ..window };
        Arc::new(Self {
            state: Mutex::new(PipeState {
                items: VecDeque::new(),
                bytes: 0,
                taken: Window { items: 0, bytes: 0 },
                end: None,
                receiver: None,
                sender: None,
            }),
            window,
            weigh,
            tie,
        })
    }

    /// Sends the item, waiting for credit.
    #[inline]
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        side: Side,
        item: &mut Option<T>,
    ) -> Poll<Result<(), TunnelError>> {
        let Some(weight) = item.as_ref().map(self.weigh) else { return Poll::Ready(Ok(())) };
        self.poll_with(cx, side, |wait| self.try_send(side, item, weight, wait))
    }

    /// Tries, and waits; an opener runs the worker before it waits, where it may.
    #[inline]
    fn poll_with<R>(
        &self,
        cx: &mut Context<'_>,
        side: Side,
        mut attempt: impl FnMut(Option<&mut Context<'_>>) -> Option<R>,
    ) -> Poll<R> {
        if side == Side::Opener {
            if let Some(done) = attempt(None) {
                return Poll::Ready(done);
            }
            self.tie.run(cx);
        }
        attempt(Some(cx)).map_or(Poll::Pending, Poll::Ready)
    }

    /// Sends the item if there is credit for it; otherwise whoever asks is woken when there is.
    #[inline]
    fn try_send(
        &self,
        side: Side,
        item: &mut Option<T>,
        weight: usize,
        wait: Option<&mut Context<'_>>,
    ) -> Option<Result<(), TunnelError>> {
        let mut state = self.state.lock();
        match &state.end {
            None => {}
            Some(End::Broken(error)) => return Some(Err(error.clone())),
            Some(End::Finished | End::Left) => return Some(Err(TunnelError::Finished)),
        }
        let (items, bytes) = (state.items.len() + state.taken.items, state.bytes + state.taken.bytes);
        let fits = items < self.window.items && (bytes == 0 || bytes + weight <= self.window.bytes);
        if !fits {
            if let Some(cx) = wait {
                state.sender = Some(cx.waker().clone());
            }
            return None;
        }
        state.items.extend(item.take());
        state.bytes += weight;
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            self.wake(side, receiver);
        }
        Some(Ok(()))
    }

    /// The next item; `None` once the sender has finished.
    #[inline]
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        side: Side,
        batch: &mut Batch<T>,
    ) -> Poll<Result<Option<T>, TunnelError>> {
        loop {
            if let Some(item) = batch.items.pop_front() {
                self.used(side, batch, (self.weigh)(&item));
                return Poll::Ready(Ok(Some(item)));
            }
            let Poll::Ready(more) = self.poll_take(cx, side, batch) else { return Poll::Pending };
            if !more? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Takes note of an item that was used. After half a window of them gives credit back, and drops the rest of the batch if the
    /// pipe has broken.
    #[inline]
    fn used(&self, side: Side, batch: &mut Batch<T>, weight: usize) {
        batch.used.items += 1;
        batch.used.bytes += weight;
        let half = batch.used.items * 2 >= self.window.items || batch.used.bytes * 2 >= self.window.bytes;
        // What is used when nothing is left is given back by whoever takes the next.
        if half && !batch.items.is_empty() {
            self.give_back(side, batch);
        }
    }

    fn give_back(&self, side: Side, batch: &mut Batch<T>) {
        let mut state = self.state.lock();
        let sender = state.give_back(mem::replace(&mut batch.used, Window { items: 0, bytes: 0 }));
        let broken = matches!(state.end, Some(End::Broken(_)));
        drop(state);
        if let Some(sender) = sender {
            self.wake(side, sender);
        }
        if broken {
            batch.items.clear();
        }
    }

    /// Takes all there is into the batch, which is empty, and gives back what was taken before. False once nothing more comes.
    fn poll_take(&self, cx: &mut Context<'_>, side: Side, batch: &mut Batch<T>) -> Poll<Result<bool, TunnelError>> {
        self.poll_with(cx, side, |wait| self.try_take(side, batch, wait))
    }

    fn try_take(
        &self,
        side: Side,
        batch: &mut Batch<T>,
        wait: Option<&mut Context<'_>>,
    ) -> Option<Result<bool, TunnelError>> {
        let mut state = self.state.lock();
        let used = mem::replace(&mut batch.used, Window { items: 0, bytes: 0 });
        let sender = if used.items > 0 { state.give_back(used) } else { None };
        let taken = match &state.end {
            Some(End::Broken(error)) => Some(Err(error.clone())),
            _ if !state.items.is_empty() => {
                mem::swap(&mut state.items, &mut batch.items);
                let bytes = mem::take(&mut state.bytes);
                state.taken.items += batch.items.len();
                state.taken.bytes += bytes;
                Some(Ok(true))
            }
            Some(End::Finished | End::Left) => Some(Ok(false)),
            None => {
                if let Some(cx) = wait {
                    state.receiver = Some(cx.waker().clone());
                }
                None
            }
        };
        drop(state);
        if let Some(sender) = sender {
            self.wake(side, sender);
        }
        taken
    }

    /// Wakes who waits at the other half.
    fn wake(&self, side: Side, waiting: Waker) {
        waiting.wake();
        if side == Side::Opener {
            self.tie.wake();
        }
    }

    /// Ready once the pipe is broken.
    pub(super) fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<TunnelError> {
        let mut state = self.state.lock();
        if let Some(End::Broken(error)) = &state.end {
            return Poll::Ready(error.clone());
        }
        state.receiver = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn end(&self, side: Side, end: End) {
        let mut state = self.state.lock();
        match (&state.end, &end) {
            (None, _) | (Some(End::Finished | End::Left), End::Broken(_)) => {}
            _ => return,
        }
        let dropped = if matches!(end, End::Broken(_)) { mem::take(&mut state.items) } else { VecDeque::new() };
        state.end = Some(end);
        let wakers = [state.receiver.take(), state.sender.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(|waiting| self.wake(side, waiting));
        // User types, dropped without the lock.
        drop(dropped);
    }

    /// Whether the sender said that it has finished.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.state.lock().end, Some(End::Finished))
    }

    pub(super) fn broken(&self) -> Option<TunnelError> {
        match &self.state.lock().end {
            Some(End::Broken(error)) => Some(error.clone()),
            _ => None,
        }
    }
}

impl<T> PipeState<T> {
    /// Takes credit back; returns who waited for it.
    fn give_back(&mut self, used: Window) -> Option<Waker> {
        self.taken.items -= used.items;
        self.taken.bytes -= used.bytes;
        self.sender.take()
    }
}
