//! What is kept, for whom and until when; who is being asked. It knows no clock and sends nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use quick_cache::sync::{Cache as Bounded, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::identity::Identity;
use super::staleness::{Asked, Rule, Staleness};

/// What an answer costs beside its own bytes.
const ENTRY_BYTES: u64 = 256;
/// Which part of the memory one answer may take at most; it is also how many parts have locks of their own, so that it fits into
/// one of them.
const LARGEST_PART: u64 = 16;
const SHARDS: usize = 4;

/// Something that is kept.
pub(super) trait Weigh: Clone {
    /// Its length in bytes.
    fn weight(&self) -> u64;
}

/// What is done with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<A, J> {
    /// This is its answer, which holds for so much longer.
    Kept(A, Duration),
    /// Somebody asks already.
    Joined(J),
    /// Nobody does; it is asked now.
    Begun(J),
}

/// An answer, and since when.
#[derive(Debug, Clone)]
struct Kept<A> {
    answer: A,
    came: Instant,
    asked: Asked,
}

/// Somebody who is asked.
#[derive(Debug)]
struct Open<F> {
    number: u64,
    asked: Asked,
    flight: F,
}

/// What somebody who asks holds, to say later what came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    of: Identity,
    number: u64,
    asked: Asked,
}

/// Everything that is kept, and everybody who is asked.
pub(super) struct Core<A: Weigh, F> {
    kept: Bounded<Identity, Arc<Kept<A>>, Weights>,
    // Held to look up or begin one request.
    open: Mutex<Opened<F>>,
    // Held to compare numbers, or to note one notification.
    staleness: RwLock<Staleness>,
    largest: u64,
}

struct Opened<F> {
    flights: HashMap<Identity, Open<F>>,
    next: u64,
}

/// What entries count: so much that there cannot be more of them than there may be.
#[derive(Debug, Clone, Copy)]
struct Weights {
    least: u64,
}

impl<A: Weigh> Weighter<Identity, Arc<Kept<A>>> for Weights {
    fn weight(&self, _: &Identity, kept: &Arc<Kept<A>>) -> u64 {
        (kept.answer.weight() + ENTRY_BYTES).max(self.least)
    }
}

impl<A: Weigh, F> Core<A, F> {
    /// One that keeps at most so many bytes and entries; with either of them zero it keeps nothing.
    pub(super) fn new(bytes: usize, entries: usize) -> Self {
        let bytes = if entries == 0 { 0 } else { bytes as u64 };
        let least = bytes.div_ceil(entries.max(1) as u64).max(ENTRY_BYTES);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(bytes / least).unwrap_or(entries).min(entries))
            .weight_capacity(bytes)
            .shards(SHARDS)
            .build();
        let options = options.expect("both capacities are given");
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self {
            kept: Bounded::with_options(options, Weights { least }, hasher, lifecycle),
            open: Mutex::new(Opened { flights: HashMap::new(), next: 0 }),
            staleness: RwLock::default(),
            largest: bytes / LARGEST_PART,
        }
    }

    /// The answer to this request, if one is kept that is not older than `lifetime` and not stale; otherwise whoever is asked for it
    /// and would have an answer that is not; otherwise `begin` begins to ask. `join` is what joins, unless nobody waits there any
    /// more.
    pub(super) fn find<J>(
        &self,
        of: Identity,
        rule: &Rule<'_>,
        lifetime: Duration,
        now: Instant,
        join: impl Fn(&F) -> Option<J>,
        begin: impl FnOnce(Ticket) -> (F, J),
    ) -> Found<A, J> {
        if let Some((answer, left)) = self.kept(of, rule, lifetime, now) {
            return Found::Kept(answer, left);
        }
        let mut open = self.open.lock();
        if let Some(there) = open.flights.get(&of)
            && self.holds(rule, there.asked, now)
            && let Some(joined) = join(&there.flight)
        {
            return Found::Joined(joined);
        }
        // An answer is kept before whoever asked is forgotten, so one that came just now is there.
        if let Some((answer, left)) = self.kept(of, rule, lifetime, now) {
            return Found::Kept(answer, left);
        }
        open.next += 1;
        let (number, asked) = (open.next, self.staleness.read().asked(now));
        let (flight, joined) = begin(Ticket { of, number, asked });
        open.flights.insert(of, Open { number, asked, flight });
        Found::Begun(joined)
    }

    fn kept(&self, of: Identity, rule: &Rule<'_>, lifetime: Duration, now: Instant) -> Option<(A, Duration)> {
        let kept = self.kept.get(&of)?;
        let left = lifetime.checked_sub(now.saturating_duration_since(kept.came)).filter(|left| !left.is_zero());
        if let Some(left) = left.filter(|_| self.holds(rule, kept.asked, now)) {
            return Some((kept.answer.clone(), left));
        }
        // It stays for others if it is only this client that has changed something.
        if left.is_none() || !self.holds(&Rule { client: None, ..*rule }, kept.asked, now) {
            // Another may have come meanwhile: only this one goes.
            self.kept.remove_if(&of, |there| Arc::ptr_eq(there, &kept));
        }
        None
    }

    /// Apart, so that the lock is given back at once.
    fn holds(&self, rule: &Rule<'_>, asked: Asked, now: Instant) -> bool {
        self.staleness.read().holds(rule, asked, now)
    }

    /// This came of asking; `None` when it is for nobody else. It is not kept when somebody else was asked later.
    pub(super) fn end(&self, ticket: Ticket, answer: Option<A>, now: Instant) {
        let mut open = self.open.lock();
        if open.flights.get(&ticket.of).is_none_or(|there| there.number != ticket.number) {
            return;
        }
        if let Some(answer) = answer.filter(|answer| answer.weight() <= self.largest) {
            // Whether it is stale by now is seen when somebody wants it.
            self.kept.insert(ticket.of, Arc::new(Kept { answer, came: now, asked: ticket.asked }));
        }
        open.flights.remove(&ticket.of);
    }

    /// What makes answers stale.
    pub(super) fn staleness(&self) -> &RwLock<Staleness> {
        &self.staleness
    }

    /// How many answers are kept, and what they weigh, with those that are stale and whose place nobody has needed.
    pub(super) fn size(&self) -> (usize, u64) {
        (self.kept.len(), self.kept.weight())
    }

    /// How many are being asked.
    #[cfg(test)]
    fn open(&self) -> usize {
        self.open.lock().flights.len()
    }
}

#[cfg(test)]
mod tests;
