//! The bounded queue of an inbox: many producers, many consumers, places that are claimed before they are filled.
//!
//! ```text
//!   claimed ── places ever taken by producers ──┐
//!                                               ├─ claimed − released ≤ capacity, always
//!   released ─ places ever given back ──────────┘
//!
//!   producer: claim a place → fill it            consumer: take an item → give the place back
//!             (waits in line when there is none)            (in batches, at the latest when it would wait)
//! ```
//!
//! Claiming apart from filling is what lets one event take its places in several inboxes or in none. Since a claim
//! precedes every push, the lock-free ring below never refuses one. Producers that wait are served in the order they
//! came, and nobody overtakes them. The two short locks guard the lists of those who sleep; nobody takes one while
//! there is room and work.

mod sleepers;

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::turn::{Helping, Turn};
use sleepers::{Sleeper, Sleepers};

/// The most places a consumer keeps back before it returns them together.
const KEPT_BACK_MAX: u64 = 32;
/// The same of one that is quick. A producer that waits then finds room for so many at once: it neither waits again after
/// every few items, nor takes turns with the consumer on one thread where the two could work side by side.
const KEPT_BACK_QUICK_MAX: u64 = 256;
/// A consumer is quick when an item takes it so long at most: the places it keeps back then come 5 ms late at most.
const QUICK: Duration = Duration::from_micros(20);
/// A consumer is slight when an item takes it so long at most: less than it costs to bring the item to another core. What is built
/// without optimisation takes longer, and is to go the same ways.
const SLIGHT: Duration = Duration::from_micros(if cfg!(debug_assertions) { 20 } else { 1 });
/// All consumers together keep back at most one place in so many, so that a busy one cannot starve the producers.
const KEPT_BACK: usize = 4;

/// So many turns a producer that found no room takes at most.
const TURNS_MAX: usize = 16;

/// Lowest bit of `claimed`: the queue is closed. The count is above it.
const CLOSED: u64 = 1;
const ONE: u64 = 2;

/// Why no place could be claimed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Every place is taken, or others wait already.
    Full,
    /// The queue takes nothing any more.
    Closed,
}

pub(crate) struct Queue<T> {
    items: ArrayQueue<T>,
    consumers: AtomicIsize,
    /// How many places each consumer may keep back.
    release_batch: AtomicU64,
    claimed: CachePadded<AtomicU64>,
    released: CachePadded<AtomicU64>,
    sleepers: Sleepers,
    waiters: Waiters,
    /// Of a consumer whose turn others may take, where it is the only one.
    turn: ArcSwapOption<Offered>,
    helping: Helping,
    /// Its consumer was slight lately, and is a task whose turn others may take.
    slight: AtomicBool,
}

/// A turn that others may take.
pub(crate) struct Offered(Arc<dyn Turn>);

/// Producers that found no room, in the order they came.
#[derive(Default)]
struct Waiters {
    count: AtomicUsize,
    /// Nobody may wait. Written with the lock held.
    barred: AtomicBool,
    line: Mutex<VecDeque<Arc<Waiter>>>,
}

#[derive(Default)]
struct Waiter {
    state: AtomicU8,
    waker: AtomicWaker,
}

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
const REFUSED: u8 = 2;
const TURNED_AWAY: u8 = 3;

impl<T> Queue<T> {
    /// A queue of `capacity` places.
    ///
    /// # Panics
    ///
    /// When `capacity` is zero: the builders of managers and subscriptions refuse it before.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            items: ArrayQueue::new(capacity),
            consumers: AtomicIsize::new(0),
            release_batch: AtomicU64::new(1),
            claimed: CachePadded::default(),
            released: CachePadded::default(),
            sleepers: Sleepers::default(),
            waiters: Waiters::default(),
            turn: ArcSwapOption::empty(),
            helping: Helping::default(),
            slight: AtomicBool::new(false),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.items.capacity()
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// How many places were ever claimed and not given back unfilled: the items that were ever accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.claimed.load(Ordering::Relaxed) / ONE
    }

    /// How many places could be claimed at once. What consumers keep back is not among them.
    pub(crate) fn room(&self) -> usize {
        let taken = self.accepted().saturating_sub(self.released.load(Ordering::Acquire));
        self.capacity().saturating_sub(taken as usize)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.claimed.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether it takes items and is done with all that it took: nothing waits, and all who consume sleep. One who has filled a place
    /// finds this true only once a consumer that is alone has come back for more.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        // In this order: a consumer is no sleeper any more when it gives back the place of what it took.
        let claimed = self.claimed.load(Ordering::Acquire);
        if claimed & CLOSED != 0 || claimed / ONE != self.released.load(Ordering::Acquire) {
            return false;
        }
        self.sleepers.is_all(self.consumers.load(Ordering::Relaxed))
    }

    /// Claims a place at once, unless others wait for one.
    #[inline]
    pub(crate) fn try_claim(&self) -> Result<Place<'_, T>, Refused> {
        if self.waiters.count.load(Ordering::Relaxed) != 0 && !self.is_closed() {
            return Err(Refused::Full);
        }
        self.claim_past_waiters(1).map(|_| Place { queue: self })
    }

    /// Claims between one and `most` places at once and fills them with what `items` gives.
    pub(crate) fn try_fill(&self, items: &mut impl ExactSizeIterator<Item = T>) -> Result<(), Refused> {
        if self.waiters.count.load(Ordering::Relaxed) != 0 && !self.is_closed() {
            return Err(Refused::Full);
        }
        let count = self.claim_past_waiters(items.len() as u64)?;
        for item in items.take(count as usize) {
            self.push(item);
        }
        self.wake_consumer();
        Ok(())
    }

    #[inline]
    fn claim_past_waiters(&self, most: u64) -> Result<u64, Refused> {
        let mut claimed = self.claimed.load(Ordering::Relaxed);
        loop {
            if claimed & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            // Acquire: the consumer has left the place before we may fill it again.
            let taken = (claimed / ONE).saturating_sub(self.released.load(Ordering::Acquire));
            let count = most.min((self.items.capacity() as u64).saturating_sub(taken));
            if count == 0 {
                return Err(Refused::Full);
            }
            match self.claimed.compare_exchange_weak(
                claimed,
                claimed + count * ONE,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(count),
                Err(now) => claimed = now,
            }
        }
    }

    /// Claims a place, waiting in line for it; it is refused as full only where nobody may wait. Dropping the future leaves
    /// the line; a place granted to it goes to the next.
    pub(crate) fn claim(&self) -> Claim<'_, T> {
        Claim { queue: self, waiter: None }
    }

    #[inline]
    fn push(&self, item: T) {
        assert!(self.items.push(item).is_ok(), "a claimed place is free");
    }

    #[inline]
    fn wake_consumer(&self) {
        if self.has_sleeper() {
            self.wake_one();
        }
    }

    /// Whether a consumer sleeps, to one who has filled a place.
    #[inline]
    pub(crate) fn has_sleeper(&self) -> bool {
        // Orders the push before the look at the sleepers; the consumer does the reverse.
        fence(Ordering::SeqCst);
        self.sleepers.is_any()
    }

    /// Wakes a consumer, if one sleeps; whether one did.
    pub(crate) fn wake_one(&self) -> bool {
        self.sleepers.wake_one()
    }

    /// Whether its consumer was slight lately: whether bringing it an item is more work than the item.
    #[inline]
    pub(crate) fn is_slight(&self) -> bool {
        self.slight.load(Ordering::Relaxed)
    }

    /// As [`Queue::wake_consumer`], but takes the turn of the one that would be woken, if that may be; whether it was so.
    #[inline]
    fn serve_consumer(&self) -> bool {
        if let Some(served) = self.visit_consumer() {
            return served;
        }
        if !self.has_sleeper() {
            return false;
        }
        let Some(Sleeper { waker, turn, .. }) = self.sleepers.pop() else { return false };
        if turn.is_some_and(|turn| turn.0.is_quick() && turn.0.take()) {
            return true;
        }
        waker.wake();
        false
    }

    /// Takes the turn of the only consumer, if it sleeps and is quick; whether it could be taken.
    #[inline]
    fn visit_consumer(&self) -> Option<bool> {
        let turn = self.turn.load();
        let turn = &turn.as_ref()?.0;
        let is_alone = || self.consumers.load(Ordering::Relaxed) == 1;
        if !(is_alone() && turn.is_quick() && self.sleepers.visit()) {
            return None;
        }
        // Looked at again: who offered the turn, and who sleeps, had been counted before they did. If they are two, one has ended, and
        // its turn cannot be taken.
        let taken = is_alone() && turn.take();
        if !taken {
            // The one that was visited, unless somebody has woken it; or another, if it was awake.
            self.sleepers.wake_one();
        }
        Some(taken)
    }

    /// For a producer that found no room: takes the turn of the consumer, if it is quick and nobody stands in line already. True when
    /// there may be room now.
    fn make_room(&self, cx: &mut Context<'_>) -> bool {
        if self.waiters.count.load(Ordering::Relaxed) != 0 || self.consumers.load(Ordering::Relaxed) != 1 {
            return false;
        }
        let turn = self.turn.load();
        let Some(turn) = turn.as_ref().map(|turn| &*turn.0).filter(|turn| turn.is_quick()) else { return false };
        let mut taken = false;
        // Until nothing is left: the task of a worker that has more to do is another thread's to take as soon as this one waits.
        for _ in 0..TURNS_MAX {
            if self.items.is_empty() || !self.helping.help(turn, cx) {
                break;
            }
            if self.room() == 0 {
                self.helping.in_vain();
                break;
            }
            taken = true;
        }
        taken
    }

    fn release(&self, places: u64) {
        if places == 0 {
            return;
        }
        self.released.fetch_add(places, Ordering::SeqCst);
        self.after_release();
    }

    fn unclaim(&self) {
        self.claimed.fetch_sub(ONE, Ordering::SeqCst);
        self.after_release();
    }

    /// What is due once a place was given back, which has to be a sequentially consistent change: so are the looks here, and
    /// whoever begins to wait, or closes the queue, has a fence before looking at the counts.
    fn after_release(&self) {
        if self.waiters.count.load(Ordering::SeqCst) != 0 {
            self.grant();
        }
        if self.claimed.load(Ordering::SeqCst) & CLOSED != 0 {
            // The last place given back is what the consumers of a closed queue wait for.
            self.sleepers.wake_all();
        }
    }

    /// Gives free places to those first in line.
    fn grant(&self) {
        let mut line = self.waiters.line.lock();
        while let Some(waiter) = line.front() {
            let state = match self.claim_past_waiters(1) {
                Ok(_) => GRANTED,
                Err(Refused::Closed) => REFUSED,
                Err(Refused::Full) => break,
            };
            waiter.state.store(state, Ordering::Release);
            waiter.waker.wake();
            line.pop_front();
        }
        self.waiters.count.store(line.len(), Ordering::Relaxed);
    }

    /// Says whether producers may wait for a place. Those who wait when they no longer may are refused.
    pub(crate) fn bar_waiting(&self, barred: bool) {
        let mut line = self.waiters.line.lock();
        self.waiters.barred.store(barred, Ordering::Relaxed);
        if barred {
            for waiter in line.drain(..) {
                waiter.state.store(TURNED_AWAY, Ordering::Release);
                waiter.waker.wake();
            }
            self.waiters.count.store(0, Ordering::Relaxed);
        }
    }

    /// Takes no more items. Those who wait for a place are refused, what is queued can still be taken.
    pub(crate) fn close(&self) {
        self.claimed.fetch_or(CLOSED, Ordering::AcqRel);
        self.grant();
        self.sleepers.wake_all();
    }

    /// Takes the oldest item out of order of the consumers: for a policy that makes room.
    pub(crate) fn evict(&self) -> Option<T> {
        let item = self.items.pop()?;
        self.release(1);
        Some(item)
    }

    fn count_consumers(&self, more: isize) {
        let consumers = self.consumers.fetch_add(more, Ordering::Relaxed) + more;
        let share = self.items.capacity() / KEPT_BACK / consumers.max(1).unsigned_abs();
        self.release_batch.store(share.max(1) as u64, Ordering::Relaxed);
    }

    pub(crate) fn is_finished(&self) -> bool {
        let claimed = self.claimed.load(Ordering::Acquire);
        claimed & CLOSED != 0 && claimed / ONE == self.released.load(Ordering::Acquire)
    }
}

/// A claimed place: fill it, or drop it to give it back.
#[must_use]
pub(crate) struct Place<'a, T> {
    queue: &'a Queue<T>,
}

impl<'a, T> Place<'a, T> {
    #[inline]
    pub(crate) fn fill(self, item: T) {
        self.put(item).wake_consumer();
    }

    /// As [`Place::fill`], but wakes nobody: that is the caller's to do, whose queue comes back.
    #[inline]
    pub(crate) fn put(self, item: T) -> &'a Queue<T> {
        let queue = self.queue;
        queue.push(item);
        // Filled, whatever becomes of it.
        std::mem::forget(self);
        queue
    }

    /// As [`Place::fill`], for one who would only wait for what comes of it: takes the turn of the consumer that would be woken,
    /// if that may be; whether it was so.
    #[inline]
    pub(crate) fn fill_and_serve(self, item: T) -> bool {
        self.put(item).serve_consumer()
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.queue.unclaim();
    }
}

/// Waits for a place; see [`Queue::claim`].
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Claim<'a, T> {
    queue: &'a Queue<T>,
    waiter: Option<Arc<Waiter>>,
}

impl<'a, T> Future for Claim<'a, T> {
    type Output = Result<Place<'a, T>, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let queue = self.queue;
        let waiter = match &self.waiter {
            Some(waiter) => {
                waiter.waker.register(cx.waker());
                Arc::clone(waiter)
            }
            None => {
                match queue.try_claim() {
                    Ok(place) => return Poll::Ready(Ok(place)),
                    Err(Refused::Closed) => return Poll::Ready(Err(Refused::Closed)),
                    Err(Refused::Full) => {}
                }
                if queue.make_room(cx)
                    && let Ok(place) = queue.try_claim()
                {
                    return Poll::Ready(Ok(place));
                }
                let waiter = Arc::new(Waiter::default());
                waiter.waker.register(cx.waker());
                {
                    let mut line = queue.waiters.line.lock();
                    if queue.waiters.barred.load(Ordering::Relaxed) {
                        return Poll::Ready(Err(Refused::Full));
                    }
                    line.push_back(Arc::clone(&waiter));
                    queue.waiters.count.store(line.len(), Ordering::Relaxed);
                }
                self.waiter = Some(Arc::clone(&waiter));
                // A place may have been given back, or the queue closed, before we stood in line.
                fence(Ordering::SeqCst);
                queue.grant();
                waiter
            }
        };
        let state = waiter.state.load(Ordering::Acquire);
        if state == WAITING {
            return Poll::Pending;
        }
        self.waiter = None;
        Poll::Ready(match state {
            GRANTED => Ok(Place { queue }),
            TURNED_AWAY => Err(Refused::Full),
            _ => Err(Refused::Closed),
        })
    }
}

impl<T> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        {
            let mut line = self.queue.waiters.line.lock();
            line.retain(|other| !Arc::ptr_eq(other, &waiter));
            self.queue.waiters.count.store(line.len(), Ordering::Relaxed);
        }
        // Only read once out of line: before, a place could still be granted.
        if waiter.state.load(Ordering::Acquire) == GRANTED {
            self.queue.unclaim();
        }
    }
}

/// Takes items out of a queue.
pub(crate) struct Consumer<T, Q: Deref<Target = Queue<T>>> {
    queue: Q,
    /// Its number among the sleepers, once it found nothing and until it finds something.
    asleep: Option<u64>,
    /// It has found something in a turn that another took, and is still among the sleepers, who are not woken for it.
    visited: bool,
    /// Who was to be woken when it fell asleep the last time, where it can be visited.
    waker: Waker,
    /// Nothing was there when it looked last, and it was not polled since.
    dry: bool,
    turn: Option<Arc<Offered>>,
    unreleased: u64,
    unreleased_max: u64,
}

impl<T, Q: Deref<Target = Queue<T>>> Consumer<T, Q> {
    pub(crate) fn new(queue: Q) -> Self {
        queue.count_consumers(1);
        Self {
            queue,
            asleep: None,
            visited: false,
            waker: Waker::noop().clone(),
            dry: false,
            turn: None,
            unreleased: 0,
            unreleased_max: KEPT_BACK_MAX,
        }
    }

    /// Lets others take its turn when it sleeps, and when they would wait for it.
    pub(crate) fn set_turn(&mut self, turn: Arc<dyn Turn>) {
        let turn = Arc::new(Offered(turn));
        self.queue.turn.store(Some(Arc::clone(&turn)));
        self.turn = Some(turn);
    }

    /// Takes the next item if there is one.
    #[inline]
    pub(crate) fn try_next(&mut self) -> Option<T> {
        let item = self.queue.items.pop()?;
        self.took_one();
        Some(item)
    }

    /// Takes the next item into `hand`, which is empty afterwards if there is none.
    #[inline]
    pub(crate) fn try_next_into(&mut self, hand: &mut Option<T>) -> bool {
        // What is there is seen, or it is told: who was visited is alone, and looks again before it sleeps.
        *hand = if self.visited && self.queue.items.is_empty() { None } else { self.queue.items.pop() };
        self.dry = hand.is_none();
        if !self.dry {
            self.took_one();
        }
        !self.dry
    }

    /// Whether to look before it is polled would be in vain, most likely.
    pub(crate) fn is_dry(&self) -> bool {
        self.dry
    }

    #[inline]
    fn took_one(&mut self) {
        // No sleeper any more before the place is given back: see `Queue::is_at_rest`.
        if let (Some(number), false) = (self.asleep, self.visited) {
            self.visited = self.queue.sleepers.is_visited(number);
            if !self.visited {
                self.wake_up();
            }
        }
        self.unreleased += 1;
        if self.unreleased >= self.queue.release_batch.load(Ordering::Relaxed).min(self.unreleased_max) {
            self.give_back();
        }
    }

    /// Takes the next item, waiting for it; `None` once the queue is closed and empty. Cancel safe.
    #[cfg(test)]
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut item = None;
        self.poll_next_into(cx, &mut item).map(|_| item)
    }

    /// Takes the next item into `hand`, waiting for it; false, and `hand` empty, once the queue is closed and empty. Cancel safe.
    pub(crate) fn poll_next_into(&mut self, cx: &mut Context<'_>, hand: &mut Option<T>) -> Poll<bool> {
        if !self.dry && self.try_next_into(hand) {
            return Poll::Ready(true);
        }
        self.give_back();
        if self.fall_asleep(cx.waker()) && self.try_next_into(hand) {
            return Poll::Ready(true);
        }
        self.dry = false;
        if self.queue.is_finished() {
            self.wake_up();
            return Poll::Ready(false);
        }
        Poll::Pending
    }

    /// Becomes a sleeper, and looks once more: false when there is nothing.
    fn fall_asleep(&mut self, waker: &Waker) -> bool {
        self.visited = false;
        if let Some(number) = self.asleep
            && self.waker.will_wake(waker)
            && self.queue.sleepers.sleep_on(number)
        {
            return !self.queue.items.is_empty();
        }
        if self.turn.is_some() {
            self.waker.clone_from(waker);
        }
        self.asleep = Some(self.queue.sleepers.enlist(self.asleep, waker, self.turn.as_ref()));
        // Orders the enlisting before the second look; a producer does the reverse.
        fence(Ordering::SeqCst);
        true
    }

    /// Whether it was polled and found nothing, and has taken nothing since.
    pub(crate) fn is_waiting(&self) -> bool {
        self.asleep.is_some() && !self.visited
    }

    /// Says how long an item took lately.
    pub(crate) fn pace(&mut self, took: Duration) {
        self.unreleased_max = if took <= QUICK { KEPT_BACK_QUICK_MAX } else { KEPT_BACK_MAX };
        self.queue.slight.store(took <= SLIGHT && self.turn.is_some(), Ordering::Relaxed);
    }

    /// Gives the places of the taken items back to the producers. Called before anything that may last.
    pub(crate) fn give_back(&mut self) {
        self.queue.release(std::mem::take(&mut self.unreleased));
    }

    /// Leaves the sleepers without having taken anything: for a consumer that was polled and will not be again soon. A
    /// wake-up that was meant for it goes to another.
    pub(crate) fn stand_down(&mut self) {
        self.give_back();
        if self.asleep.is_some() {
            self.wake_up();
        }
    }

    /// Leaves the sleepers. The wake-up may have been meant for an item other than the one taken, so it is passed on.
    fn wake_up(&mut self) {
        self.visited = false;
        if let Some(number) = self.asleep.take() {
            self.queue.sleepers.delist(number);
        }
        if !self.queue.items.is_empty() {
            self.queue.sleepers.wake_one();
        }
    }
}

impl<T, Q: Deref<Target = Queue<T>>> Drop for Consumer<T, Q> {
    fn drop(&mut self) {
        self.stand_down();
        if let Some(turn) = self.turn.take() {
            self.queue.turn.compare_and_swap(&turn, None);
        }
        self.queue.count_consumers(-1);
    }
}

#[cfg(test)]
mod tests;
