//! What is true of every run: each event's way, written down by nobody who carries it.

use std::collections::{BTreeMap, BTreeSet};

use edri_events::Incarnation;

/// An event: the life that published it, and its number there. Grows with each event of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventNumber {
    pub origin: u32,
    pub number: u32,
}

impl EventNumber {
    pub fn pack(self) -> u64 {
        u64::from(self.origin) << 32 | u64::from(self.number)
    }

    pub fn unpack(number: u64) -> Self {
        Self { origin: (number >> 32) as u32, number: number as u32 }
    }
}

/// A group of a node, by the names that stay through its lives.
pub type Place = (usize, &'static str);

/// Whether an event arrived at a group, how often, and what its origin was told.
#[derive(Debug, Default)]
pub struct Way {
    /// The lives of the destination that have it, and whether it was marked as redelivered there.
    pub arrived: Vec<(Incarnation, bool)>,
    pub confirmed: u32,
    /// Given back as lost; whether it may have arrived.
    pub lost: Option<bool>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub ways: BTreeMap<(EventNumber, Place), Way>,
    /// The last event of a life that arrived at a group of a life.
    last: BTreeMap<(u32, &'static str, Incarnation), u32>,
    /// Nodes that have had more than one life.
    pub reborn: BTreeSet<usize>,
    pub wrong: Vec<String>,
}

impl Ledger {
    pub fn published(&mut self, event: EventNumber, place: Place) {
        self.ways.insert((event, place), Way::default());
    }

    pub fn arrived(&mut self, event: EventNumber, place: Place, life: Incarnation, redelivered: bool) {
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
        way.arrived.push((life, redelivered));
        let last = self.last.entry((event.origin, place.1, life)).or_default();
        if event.number <= *last {
            self.wrong.push(format!("{event:?} arrived at {place:?} of {life} after number {last}"));
        }
        *last = event.number;
    }

    pub fn confirmed(&mut self, event: EventNumber, place: Place) {
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

    pub fn lost(&mut self, event: EventNumber, place: Place, sent: bool) {
        let Some(way) = self.ways.get_mut(&(event, place)) else { return };
        if way.confirmed > 0 || way.lost.is_some() {
            self.wrong
                .push(format!("{event:?} for {place:?} ended twice: confirmed {} lost {:?}", way.confirmed, way.lost));
        }
        if !sent && !way.arrived.is_empty() {
            self.wrong.push(format!("{event:?} is said not to have arrived at {place:?}, but did"));
        }
        way.lost = Some(sent);
    }
}
