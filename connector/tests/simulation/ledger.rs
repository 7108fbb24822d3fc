//! What is true of every run: each event's way, written down by nobody who carries it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use edri_events::Incarnation;

use crate::keyed::Book;

/// An event: the life that published it, and its number there. Grows with each event of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EventNumber {
    pub(crate) origin: u32,
    pub(crate) number: u32,
}

impl EventNumber {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.origin) << 32 | u64::from(self.number)
    }

    pub(crate) fn unpack(number: u64) -> Self {
        Self { origin: (number >> 32) as u32, number: number as u32 }
    }
}

/// A group of a node, by the names that stay through its lives.
pub(crate) type Place = (usize, &'static str);

/// Whether an event arrived at a group, how often, and what its origin was told.
#[derive(Debug, Default)]
pub(crate) struct Way {
    published: Duration,
    /// When it was given to the engine.
    pub(crate) written: Option<Duration>,
    /// The lives of the destination that it was sent to.
    pub(crate) sent_to: Vec<Incarnation>,
    /// The lives of the destination that have it, and whether it was marked as redelivered there.
    pub(crate) arrived: Vec<(Incarnation, bool)>,
    pub(crate) confirmed: u32,
    /// Given back as lost; whether it may have arrived.
    pub(crate) lost: Option<bool>,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) ways: BTreeMap<(EventNumber, Place), Way>,
    /// The last event of a life that arrived at a group of a life.
    last: BTreeMap<(u32, &'static str, Incarnation), u32>,
    /// Pairs of lives of which one has given up the other or seen its end.
    gave_up: BTreeSet<(Incarnation, Incarnation)>,
    /// Nodes that have had more than one life.
    pub(crate) reborn: BTreeSet<usize>,
    /// The requests that a life of a node has executed: whose, and which.
    executed: BTreeSet<(Incarnation, Incarnation, u64)>,
    /// How long an event took at most until it was at a group that takes at once.
    pub(crate) slowest: Duration,
    pub(crate) keyed: Book,
    pub(crate) wrong: Vec<String>,
}

impl Ledger {
    pub(crate) fn published(&mut self, now: Duration, event: EventNumber, place: Place) {
        self.ways.insert((event, place), Way { published: now, ..Way::default() });
    }

    /// An event is given to the engine for a group.
    pub(crate) fn written(&mut self, now: Duration, event: EventNumber, place: Place) {
        if let Some(way) = self.ways.get_mut(&(event, place)) {
            way.written.get_or_insert(now);
        }
    }

    /// A life has given up another, or seen its end.
    pub(crate) fn gave_up(&mut self, here: Incarnation, other: Incarnation) {
        self.gave_up.insert((here, other));
    }

    /// A session began anew: only because one of the two had given the other up.
    pub(crate) fn renewed(&mut self, here: Incarnation, other: Incarnation) {
        if !self.gave_up.contains(&(here, other)) && !self.gave_up.contains(&(other, here)) {
            self.wrong.push(format!("{here} and {other} begin anew although neither had given up the other"));
        }
    }

    pub(crate) fn executed(&mut self, by: Incarnation, from: Incarnation, call: u64) {
        if !self.executed.insert((by, from, call)) {
            self.wrong.push(format!("{by} executes request {call} of {from} a second time"));
        }
    }

    pub(crate) fn was_executed(&self, by: Incarnation, from: Incarnation, call: u64) -> bool {
        self.executed.contains(&(by, from, call))
    }

    pub(crate) fn arrived(
        &mut self,
        now: Duration,
        event: EventNumber,
        place: Place,
        life: Incarnation,
        redelivered: bool,
    ) {
        let Some(way) = self.ways.get_mut(&(event, place)) else {
            self.wrong.push(format!("{event:?} arrived at {place:?}, which it was not published to"));
            return;
        };
        if way.arrived.iter().any(|(other, _)| *other == life) {
            self.wrong.push(format!("{event:?} arrived twice at {place:?} of {life}"));
        }
        if !way.arrived.is_empty() && !redelivered {
            self.wrong.push(format!("{event:?} arrived at a second life of {place:?} without being marked"));
        }
        if redelivered && !self.reborn.contains(&place.0) {
            self.wrong.push(format!("{event:?} is marked as redelivered at {place:?}, which has had one life"));
        }
        if way.lost == Some(false) {
            self.wrong.push(format!("{event:?} arrived at {place:?} after it was said not to"));
        }
        if way.confirmed > 0 {
            self.wrong.push(format!("{event:?} arrived at {place:?} after it was confirmed"));
        }
        if place.1 == "fast" {
            self.slowest = self.slowest.max(now - way.published);
        }
        way.arrived.push((life, redelivered));
        let last = self.last.entry((event.origin, place.1, life)).or_default();
        if event.number <= *last {
            self.wrong.push(format!("{event:?} arrived at {place:?} of {life} after number {last}"));
        }
        *last = event.number;
    }

    pub(crate) fn confirmed(&mut self, event: EventNumber, place: Place) {
        let Some(way) = self.ways.get_mut(&(event, place)) else { return };
        way.confirmed += 1;
        if way.confirmed > 1 || way.lost.is_some() {
            self.wrong
                .push(format!("{event:?} for {place:?} ended twice: confirmed {} lost {:?}", way.confirmed, way.lost));
        }
        if way.arrived.is_empty() {
            self.wrong.push(format!("{event:?} is confirmed, but never arrived at {place:?}"));
        }
    }

    pub(crate) fn lost(&mut self, event: EventNumber, place: Place, sent: bool) {
        let Some(way) = self.ways.get_mut(&(event, place)) else { return };
        if way.confirmed > 0 || way.lost.is_some() {
            self.wrong
                .push(format!("{event:?} for {place:?} ended twice: confirmed {} lost {:?}", way.confirmed, way.lost));
        }
        if sent == way.sent_to.is_empty() {
            self.wrong.push(format!("{event:?} is said to have been sent to {place:?} or not ({sent}): {way:?}"));
        }
        if !sent && !way.arrived.is_empty() {
            self.wrong.push(format!("{event:?} is said not to have arrived at {place:?}, but did"));
        }
        way.lost = Some(sent);
    }
}
