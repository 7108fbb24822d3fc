//! The pending table: requests and tunnels that wait for their outcome.
//!
//! A [`Ticket`] names a slot and its generation. Whoever answers needs nothing else, and an answer that comes after the
//! requester is gone meets another generation: it finds nobody. Deadlines need no timer a request: every slot keeps its
//! own, and one sweeper a node sleeps until the earliest that was ever set (see `Core::sweep`).

use std::cell::Cell;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use edri_events::Value;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::RequestError;
use crate::uplink::Outcomes;

/// What a requester gets.
pub type Outcome = Result<Value, RequestError>;

/// Where an outcome is to go; a number that only its node can read.
///
/// Aligned as a number: a delivery is moved in whole words then, its other fields being as wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(align(8))]
pub struct Ticket {
    slot: u32,
    generation: u32,
}

impl Ticket {
    /// The ticket as a number, for those who send it along.
    #[must_use]
    pub fn to_number(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    /// The ticket of this number. One that was never given out names nobody who waits.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self { slot: (number >> 32) as u32, generation: number as u32 }
    }
}

/// Hears of requesters that give up, where somebody asked to know it: see [`Router::watch`](crate::Router::watch).
pub trait Forgone: Send + Sync {
    /// Whoever held this ticket waits no more, and nobody has answered. Called where the requester gives up, so it must be
    /// quick and must not panic.
    fn forgone(&self, ticket: Ticket);
}

const SHARDS: usize = 8;
const CHUNK: usize = 256;
const CHUNKS: usize = 4096;

/// No deadline is set.
const NEVER: u64 = u64::MAX;

pub(crate) struct Pending {
    shards: [Shard; SHARDS],
    open_max: usize,
    late: AtomicU64,
    born: Instant,
    /// When the sweeper wakes next, in milliseconds since `born`.
    sweep_at: AtomicU64,
    sweeper: Notify,
    outcomes: OnceLock<Arc<dyn Outcomes>>,
    forgone: OnceLock<Arc<dyn Forgone>>,
}

/// A part of the slots, so that requesters on several threads do not contend for the free list.
struct Shard {
    // Held for a push or a pop. The latest freed is used first: it is still in a cache.
    free: Mutex<Free>,
    /// How many are in use. Written with the lock held.
    open: AtomicUsize,
    chunks: [OnceLock<Box<[Slot; CHUNK]>>; CHUNKS / SHARDS],
}

#[derive(Default)]
struct Free {
    slots: Vec<u32>,
    used: u32,
}

#[derive(Default)]
struct Slot {
    /// The generation of its ticket, above, and its [`Stage`]. Written with the lock held, but when it is taken into use: whoever takes
    /// it from the free list is the only one with a right to it.
    word: AtomicU64,
    /// When the requester's time is over, in milliseconds since the table was made.
    deadline: AtomicU64,
    // Held to look at or move the outcome; requester, worker and sweeper meet here.
    state: Mutex<State>,
}

/// All of it is empty while the slot is free.
#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    /// Under which number [`Outcomes`] is to have the outcome.
    call: u64,
    /// Somebody wants to know when the requester gives up.
    watched: bool,
    requester: Option<Waker>,
    worker: Option<Waker>,
}

/// What a slot is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Stage {
    Free,
    /// A requester waits.
    Waiting,
    /// The outcome is there, and the requester has not taken it yet.
    Done,
    /// The outcome goes to [`Outcomes`].
    Awaited,
    /// The same, and nobody wants it any more.
    Forgone,
}

impl Stage {
    fn is_wanted(self) -> bool {
        matches!(self, Self::Waiting | Self::Awaited)
    }

    fn is_call(self) -> bool {
        matches!(self, Self::Awaited | Self::Forgone)
    }
}

impl Slot {
    /// The generation of the ticket that it is used for, or will be next, and what for.
    #[inline]
    fn stage(&self) -> (u32, Stage) {
        read(self.word.load(Ordering::Acquire))
    }

    /// What it is used for as the slot of this ticket.
    #[inline]
    fn stage_of(&self, ticket: Ticket) -> Stage {
        let (generation, stage) = self.stage();
        if generation == ticket.generation { stage } else { Stage::Free }
    }

    fn set_stage(&self, generation: u32, stage: Stage) {
        self.word.store(word(generation, stage), Ordering::Release);
    }
}

fn word(generation: u32, stage: Stage) -> u64 {
    u64::from(generation) << 32 | stage as u64
}

/// What [`word`] wrote.
fn read(word: u64) -> (u32, Stage) {
    let stage = match word as u32 {
        0 => Stage::Free,
        1 => Stage::Waiting,
        2 => Stage::Done,
        3 => Stage::Awaited,
        _ => Stage::Forgone,
    };
    ((word >> 32) as u32, stage)
}

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

fn shard_of_thread() -> usize {
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

impl Pending {
    pub(crate) fn new(open_max: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard {
                free: Mutex::default(),
                open: AtomicUsize::new(0),
                chunks: [const { OnceLock::new() }; CHUNKS / SHARDS],
            }),
            // Each shard must be able to hold them all: threads are not spread evenly.
            open_max: open_max.min(CHUNK * CHUNKS / SHARDS),
            late: AtomicU64::new(0),
            born: Instant::now(),
            sweep_at: AtomicU64::new(NEVER),
            sweeper: Notify::new(),
            outcomes: OnceLock::new(),
            forgone: OnceLock::new(),
        }
    }

    /// How many requests and tunnels wait.
    pub(crate) fn open(&self) -> usize {
        self.shards.iter().map(|shard| shard.open.load(Ordering::Relaxed)).sum()
    }

    /// How many outcomes came when nobody waited for them any more.
    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Opens a slot; `None` when as many are open as may be.
    pub(crate) fn insert(&self, deadline: Option<Instant>) -> Option<Ticket> {
        let (ticket, slot) = self.reserve()?;
        let due = deadline.map_or(NEVER, |deadline| self.millis_until(deadline));
        slot.deadline.store(due, Ordering::Relaxed);
        // Sequentially consistent, as the sweeper's word that it looks for the earliest: it sees this one, or is told below.
        slot.word.swap(word(ticket.generation, Stage::Waiting), Ordering::SeqCst);
        if due < self.sweep_at.load(Ordering::SeqCst) {
            self.sweep_at.fetch_min(due, Ordering::SeqCst);
            self.sweeper.notify_one();
        }
        Some(ticket)
    }

    /// Takes a slot from the free list.
    #[inline]
    fn reserve(&self) -> Option<(Ticket, &Slot)> {
        let shard_index = shard_of_thread();
        let shard = &self.shards[shard_index];
        let index = {
            let mut free = shard.free.lock();
            let open = shard.open.load(Ordering::Relaxed);
            // As long as each shard has less than its share, so have all together.
            if open >= self.open_max / SHARDS && self.open() >= self.open_max {
                return None;
            }
            shard.open.store(open + 1, Ordering::Relaxed);
            free.slots.pop().unwrap_or_else(|| {
                free.used += 1;
                free.used - 1
            })
        };
        let chunk =
            shard.chunks[index as usize / CHUNK].get_or_init(|| Box::new(std::array::from_fn(|_| Slot::default())));
        let slot = &chunk[index as usize % CHUNK];
        let (generation, _) = slot.stage();
        Some((Ticket { slot: index * SHARDS as u32 + shard_index as u32, generation }, slot))
    }

    /// Gives the requester its outcome. When nobody waits for it any more it is counted as late and given back.
    pub(crate) fn complete(&self, ticket: Ticket, outcome: Outcome) -> Result<(), Outcome> {
        let Some(slot) = self.slot(ticket) else { return self.too_late(outcome) };
        let mut state = slot.state.lock();
        if slot.stage_of(ticket) != Stage::Waiting {
            return self.complete_otherwise(ticket, slot, state, outcome);
        }
        state.watched = false;
        state.outcome = Some(outcome);
        slot.set_stage(ticket.generation, Stage::Done);
        let requester = state.requester.take();
        drop(state);
        if let Some(requester) = requester {
            requester.wake();
        }
        Ok(())
    }

    fn complete_otherwise(
        &self,
        ticket: Ticket,
        slot: &Slot,
        state: MutexGuard<'_, State>,
        outcome: Outcome,
    ) -> Result<(), Outcome> {
        match self.outcomes.get() {
            Some(outcomes) if slot.stage_of(ticket).is_call() => {
                let call = state.call;
                self.free(ticket, slot, state);
                outcomes.outcome(call, outcome);
                Ok(())
            }
            _ => {
                drop(state);
                self.too_late(outcome)
            }
        }
    }

    fn too_late(&self, outcome: Outcome) -> Result<(), Outcome> {
        self.late.fetch_add(1, Ordering::Relaxed);
        Err(outcome)
    }

    /// Tells `forgone` when requesters give up whose slots are watched.
    pub(crate) fn set_forgone(&self, forgone: Arc<dyn Forgone>) {
        assert!(self.forgone.set(forgone).is_ok(), "one hears who gives up");
    }

    /// Watches the slot, unless its requester waits no more already.
    pub(crate) fn watch(&self, ticket: Ticket) -> bool {
        let Some(slot) = self.slot(ticket) else { return false };
        let mut state = slot.state.lock();
        let waits = slot.stage_of(ticket) == Stage::Waiting;
        state.watched |= waits;
        waits
    }

    /// Says that the requester gave up, if somebody wanted to know.
    fn tell_forgone(&self, ticket: Ticket, watched: bool) {
        if let (true, Some(forgone)) = (watched, self.forgone.get()) {
            forgone.forgone(ticket);
        }
    }

    /// Gives outcomes of [`Pending::await_call`] to `outcomes`.
    pub(crate) fn set_outcomes(&self, outcomes: Arc<dyn Outcomes>) {
        assert!(self.outcomes.set(outcomes).is_ok(), "outcomes go to one place");
    }

    /// Opens a slot whose outcome goes to [`Outcomes`]; `None` when as many are open as may be.
    pub(crate) fn await_call(&self, call: u64) -> Option<Ticket> {
        let (ticket, slot) = self.reserve()?;
        slot.deadline.store(NEVER, Ordering::Relaxed);
        let mut state = slot.state.lock();
        state.call = call;
        slot.set_stage(ticket.generation, Stage::Awaited);
        Some(ticket)
    }

    /// Nobody wants the outcome of this call any more; it is told all the same. Whether there is such a call.
    pub(crate) fn forgo_call(&self, number: u64) -> bool {
        for (_, slot) in self.slots().filter(|(_, slot)| slot.stage().1.is_call()) {
            let state = slot.state.lock();
            let (generation, stage) = slot.stage();
            if stage.is_call() && state.call == number {
                slot.set_stage(generation, Stage::Forgone);
                wake_worker(state);
                return true;
            }
        }
        false
    }

    /// As [`Pending::forgo_call`], by the call's ticket.
    pub(crate) fn forgo(&self, ticket: Ticket) -> bool {
        let Some(slot) = self.slot(ticket) else { return false };
        let state = slot.state.lock();
        if !slot.stage_of(ticket).is_call() {
            return false;
        }
        slot.set_stage(ticket.generation, Stage::Forgone);
        wake_worker(state);
        true
    }

    /// Ends a call that was taken but not begun because nobody wants its outcome any more.
    pub(crate) fn drop_call(&self, ticket: Ticket) {
        let Some(slot) = self.slot(ticket) else { return };
        let state = slot.state.lock();
        if slot.stage_of(ticket).is_call() {
            let cancelled = edri_events::Failure::new("cancelled", "the caller waits no more");
            // It is awaited, so it is taken.
            let _ = self.complete_otherwise(ticket, slot, state, Err(RequestError::Elsewhere(cancelled)));
        }
    }

    /// Whether somebody still waits for this outcome.
    #[inline]
    pub(crate) fn is_wanted(&self, ticket: Ticket) -> bool {
        self.slot(ticket).is_some_and(|slot| slot.stage_of(ticket).is_wanted())
    }

    /// Ready once nobody waits for this outcome any more.
    pub(crate) fn poll_unwanted(&self, ticket: Ticket, cx: &mut Context<'_>) -> Poll<()> {
        let Some(slot) = self.slot(ticket) else { return Poll::Ready(()) };
        let mut state = slot.state.lock();
        if !slot.stage_of(ticket).is_wanted() {
            return Poll::Ready(());
        }
        register(&mut state.worker, cx);
        Poll::Pending
    }

    /// The outcome if it is there, once. The slot is free afterwards.
    pub(crate) fn take_outcome(&self, ticket: Ticket) -> Option<Outcome> {
        let slot = self.slot(ticket).expect("the requester's own slot");
        if slot.stage_of(ticket) != Stage::Done {
            return None;
        }
        let mut state = slot.state.lock();
        let outcome = state.outcome.take();
        self.free(ticket, slot, state);
        outcome
    }

    /// Ready with the outcome, once. The slot is free afterwards.
    pub(crate) fn poll_outcome(&self, ticket: Ticket, cx: &mut Context<'_>) -> Poll<Outcome> {
        let slot = self.slot(ticket).expect("the requester's own slot");
        let mut state = slot.state.lock();
        debug_assert_eq!(slot.stage().0, ticket.generation, "an outcome is taken once");
        if let Some(outcome) = state.outcome.take() {
            self.free(ticket, slot, state);
            return Poll::Ready(outcome);
        }
        register(&mut state.requester, cx);
        Poll::Pending
    }

    /// The requester waits no more.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let Some(slot) = self.slot(ticket) else { return };
        let mut state = slot.state.lock();
        if slot.stage_of(ticket) != Stage::Free {
            let (watched, outcome) = (std::mem::take(&mut state.watched), state.outcome.take());
            self.free(ticket, slot, state);
            self.tell_forgone(ticket, watched);
            // What it has in it may do anything when it is dropped, so not with the lock.
            drop(outcome);
        }
    }

    /// Ends everything that still waits, because nobody is left to answer.
    pub(crate) fn end(&self, error: impl Fn() -> RequestError) {
        for (number, slot) in self.slots() {
            let state = slot.state.lock();
            let (generation, stage) = slot.stage();
            let ticket = Ticket { slot: number, generation };
            match stage {
                Stage::Waiting => self.end_waiting(ticket, slot, state, error()),
                Stage::Awaited | Stage::Forgone => {
                    // It is awaited, so it is taken.
                    let _ = self.complete_otherwise(ticket, slot, state, Err(error()));
                }
                Stage::Free | Stage::Done => {}
            }
        }
    }

    /// Gives the requester this error, which came from nobody it asked.
    fn end_waiting(&self, ticket: Ticket, slot: &Slot, mut state: MutexGuard<'_, State>, error: RequestError) {
        state.outcome = Some(Err(error));
        slot.set_stage(ticket.generation, Stage::Done);
        let wakers = [state.requester.take(), state.worker.take()];
        let watched = std::mem::take(&mut state.watched);
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
        self.tell_forgone(ticket, watched);
    }

    /// All slots there are, by number.
    fn slots(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.shards.iter().enumerate().flat_map(|(shard, contents)| {
            let slots = contents.chunks.iter().map_while(OnceLock::get).flat_map(|chunk| chunk.iter());
            (0_u32..).zip(slots).map(move |(index, slot)| (index * SHARDS as u32 + shard as u32, slot))
        })
    }

    /// Frees the slot: whoever still holds its ticket meets another generation from now on.
    fn free(&self, ticket: Ticket, slot: &Slot, mut state: MutexGuard<'_, State>) {
        slot.set_stage(ticket.generation.wrapping_add(1), Stage::Free);
        state.requester = None;
        wake_worker(state);
        let (index, shard) = (ticket.slot / SHARDS as u32, &self.shards[ticket.slot as usize % SHARDS]);
        let mut free = shard.free.lock();
        free.slots.push(index);
        shard.open.store(shard.open.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// The slot of a ticket; `None` for a number that was never one.
    #[inline]
    fn slot(&self, ticket: Ticket) -> Option<&Slot> {
        let (index, shard) = (ticket.slot as usize / SHARDS, ticket.slot as usize % SHARDS);
        let chunk = self.shards[shard].chunks.get(index / CHUNK)?.get()?;
        Some(&chunk[index % CHUNK])
    }

    /// How long after the table was made that is, in whole milliseconds, rounded up.
    fn millis_until(&self, instant: Instant) -> u64 {
        millis(instant.saturating_duration_since(self.born))
    }

    /// Ends the requests whose deadline has passed, for ever. Runs as one task of the node.
    pub(crate) async fn run_sweeper(&self) {
        loop {
            let due = self.sweep_at.load(Ordering::SeqCst);
            let earlier = self.sweeper.notified();
            if due == NEVER {
                earlier.await;
                continue;
            }
            let due = self.born + Duration::from_millis(due);
            if tokio::time::timeout_at(due.into(), earlier).await.is_err() {
                self.sweep_at.store(NEVER, Ordering::SeqCst);
                if let Some(next) = self.sweep(Instant::now()) {
                    self.sweep_at.fetch_min(next, Ordering::SeqCst);
                }
            }
        }
    }

    /// Ends the requests whose deadline has passed and returns the earliest of the others, in milliseconds since `born`.
    fn sweep(&self, now: Instant) -> Option<u64> {
        let over = u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(NEVER - 1);
        let mut next: Option<u64> = None;
        for (number, slot) in self.slots() {
            // Sequentially consistent, as what makes it wait.
            let seen = slot.word.load(Ordering::SeqCst);
            let (generation, stage) = read(seen);
            let due = slot.deadline.load(Ordering::Relaxed);
            if stage != Stage::Waiting || due == NEVER {
                continue;
            }
            if due > over {
                next = Some(next.map_or(due, |next| next.min(due)));
                continue;
            }
            let state = slot.state.lock();
            // Who waits here since it was looked at is told of by who made it so.
            if slot.word.load(Ordering::Relaxed) == seen {
                self.end_waiting(
                    Ticket { slot: number, generation },
                    slot,
                    state,
                    RequestError::TimedOut(Box::default()),
                );
            }
        }
        next
    }
}

/// Whole milliseconds, rounded up: a deadline is never early.
fn millis(duration: Duration) -> u64 {
    let part = u64::from(duration.subsec_nanos().div_ceil(1_000_000));
    duration.as_secs().saturating_mul(1000).saturating_add(part).min(NEVER - 1)
}

/// Wakes whoever works for the slot's requester, without the lock.
fn wake_worker(mut state: MutexGuard<'_, State>) {
    let worker = state.worker.take();
    drop(state);
    if let Some(worker) = worker {
        worker.wake();
    }
}

fn register(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}

/// An outcome to wait for. Dropping it cancels the request.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Waiting<P: Deref<Target: AsRef<Pending>> + Unpin> {
    pending: P,
    ticket: Option<Ticket>,
}

impl<P: Deref<Target: AsRef<Pending>> + Unpin> Waiting<P> {
    pub(crate) fn new(pending: P, ticket: Ticket) -> Self {
        Self { pending, ticket: Some(ticket) }
    }

    /// The outcome if it is there already; it is not to be polled afterwards.
    pub(crate) fn take(&mut self) -> Option<Outcome> {
        let outcome = (*self.pending).as_ref().take_outcome(self.ticket?)?;
        self.ticket = None;
        Some(outcome)
    }
}

impl<P: Deref<Target: AsRef<Pending>> + Unpin> Future for Waiting<P> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let ticket = self.ticket.expect("polled after its outcome was taken");
        let outcome = (*self.pending).as_ref().poll_outcome(ticket, cx);
        if outcome.is_ready() {
            self.ticket = None;
        }
        outcome
    }
}

impl<P: Deref<Target: AsRef<Pending>> + Unpin> Drop for Waiting<P> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            (*self.pending).as_ref().cancel(ticket);
        }
    }
}

#[cfg(test)]
mod tests;
