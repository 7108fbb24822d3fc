//! The consumers of a queue that sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use super::Offered;

/// Consumers that found nothing, the latest last: it is woken first, its caches are warm.
///
/// One that is alone can be visited instead of woken: it stays in the list while its turn is taken, and nobody else takes it for
/// asleep. That spares taking it out and adding it again, which a requester and its worker would do for every request.
#[derive(Default)]
pub(super) struct Sleepers {
    /// Who is to be woken: see [`Asleep`]. Written with the lock held, but by visitors and the visited.
    asleep: AtomicU64,
    // Held to add one or to take one out.
    list: Mutex<Sleeping>,
}

/// Who is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asleep {
    Nobody,
    /// The one of this number, who is alone in the list. Numbers are not used again, so who was seen here is here all the time.
    One(u64),
    /// Nobody: the only one in the list, which is that of this number, is visited.
    Visited(u64),
    /// So many, all that are in the list.
    Several(u64),
}

impl Asleep {
    /// The lowest bit says whether anybody is to be woken.
    #[inline]
    fn to_word(self) -> u64 {
        match self {
            Self::Nobody => 0,
            Self::One(number) => number << 2 | 1,
            Self::Visited(number) => number << 2 | 2,
            Self::Several(count) => count << 2 | 3,
        }
    }

    #[inline]
    fn of_word(word: u64) -> Self {
        match word & 3 {
            0 => Self::Nobody,
            1 => Self::One(word >> 2),
            2 => Self::Visited(word >> 2),
            _ => Self::Several(word >> 2),
        }
    }
}

/// They stand in the order of their numbers.
#[derive(Default)]
struct Sleeping {
    last: u64,
    sleepers: Vec<Sleeper>,
}

pub(super) struct Sleeper {
    /// Given to it when it was added.
    number: u64,
    pub(super) waker: Waker,
    /// Where others may take its turn.
    pub(super) turn: Option<Arc<Offered>>,
}

impl Sleepers {
    /// Whether there are any to be woken.
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        self.asleep.load(Ordering::Relaxed) & 1 != 0
    }

    /// Whether there is one, and at least so many as there are consumers.
    #[inline]
    pub(super) fn is_all(&self, consumers: isize) -> bool {
        match Asleep::of_word(self.asleep.load(Ordering::Acquire)) {
            Asleep::Nobody | Asleep::Visited(_) => false,
            Asleep::One(_) => consumers <= 1,
            Asleep::Several(count) => consumers <= count as isize,
        }
    }

    pub(super) fn wake_one(&self) -> bool {
        let sleeper = self.pop();
        let slept = sleeper.is_some();
        if let Some(sleeper) = sleeper {
            sleeper.waker.wake();
        }
        slept
    }

    pub(super) fn pop(&self) -> Option<Sleeper> {
        let mut list = self.list.lock();
        let popped = list.sleepers.pop();
        self.count(&list);
        popped
    }

    pub(super) fn wake_all(&self) {
        let woken = {
            let mut list = self.list.lock();
            let woken = std::mem::take(&mut list.sleepers);
            self.count(&list);
            woken
        };
        for sleeper in woken {
            sleeper.waker.wake();
        }
    }

    /// Adds a sleeper, or has the one of this number woken by another waker. Returns its number.
    pub(super) fn enlist(&self, number: Option<u64>, waker: &Waker, turn: Option<&Arc<Offered>>) -> u64 {
        let (mut waker, turn) = (waker.clone(), turn.cloned());
        let mut list = self.list.lock();
        if let Some((number, at)) = number.and_then(|number| Some((number, list.find(number)?))) {
            std::mem::swap(&mut list.sleepers[at].waker, &mut waker);
            self.count(&list);
            // What a waker does when it is dropped is the runtime's affair, so not with the lock.
            drop(list);
            drop(waker);
            return number;
        }
        // One that is visited is not to be counted, and is alone in the list.
        let is_visited = matches!(Asleep::of_word(self.asleep.load(Ordering::Relaxed)), Asleep::Visited(_));
        let visited = if is_visited { list.sleepers.pop() } else { None };
        list.last += 1;
        let number = list.last;
        list.sleepers.push(Sleeper { number, waker, turn });
        self.count(&list);
        drop(list);
        if let Some(visited) = visited {
            visited.waker.wake();
        }
        number
    }

    pub(super) fn delist(&self, number: u64) {
        // Somebody was there when the sleeper of this number was added: nobody is left, so it was taken out.
        if self.asleep.load(Ordering::Relaxed) == Asleep::Nobody.to_word() {
            return;
        }
        let mut list = self.list.lock();
        let left = list.find(number).map(|at| list.sleepers.remove(at));
        if left.is_some() {
            self.count(&list);
        }
        drop(list);
        drop(left);
    }

    /// Visits the only sleeper, to take its turn: until it sleeps again nobody else takes it for asleep. Whether there was one; where its
    /// turn cannot be taken, one is to be woken.
    #[inline]
    pub(super) fn visit(&self) -> bool {
        let word = self.asleep.load(Ordering::Relaxed);
        let Asleep::One(number) = Asleep::of_word(word) else { return false };
        self.exchange(word, Asleep::Visited(number))
    }

    /// Whether the one of this number is visited.
    #[inline]
    pub(super) fn is_visited(&self, number: u64) -> bool {
        self.asleep.load(Ordering::Relaxed) == Asleep::Visited(number).to_word()
    }

    /// For the one of this number, if it is visited: sleeps again, as it did before. False when it is to be enlisted.
    #[inline]
    pub(super) fn sleep_on(&self, number: u64) -> bool {
        self.is_visited(number) && self.exchange(Asleep::Visited(number).to_word(), Asleep::One(number))
    }

    // Sequentially consistent, so that who visits needs no fence after what it has brought, nor who sleeps on one before its last look.
    fn exchange(&self, word: u64, asleep: Asleep) -> bool {
        self.asleep.compare_exchange(word, asleep.to_word(), Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Counts them, after a change of the list that is locked: all that are in it are to be woken.
    fn count(&self, list: &Sleeping) {
        let asleep = match &list.sleepers[..] {
            [] => Asleep::Nobody,
            [one] => Asleep::One(one.number),
            several => Asleep::Several(several.len() as u64),
        };
        // Release: who sees one asleep sees what it has done.
        self.asleep.store(asleep.to_word(), Ordering::Release);
    }
}

impl Sleeping {
    fn find(&self, number: u64) -> Option<usize> {
        self.sleepers.binary_search_by_key(&number, |sleeper| sleeper.number).ok()
    }
}

#[cfg(test)]
mod tests;
