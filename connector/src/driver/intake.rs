//! What has come for groups of this node that have no room yet.
//!
//! A group's node has granted every origin a window of credit, so as much of each may wait here and no more. What is here
//! counts as received: it is in the memory of the process, as an inbox is.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};

use edri_router::Arrival;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::engine::Source;

/// Arrivals without a place, a line for each group. Only the first of each line is waited for.
#[derive(Default)]
pub(super) struct Intake {
    lines: BTreeMap<u32, Line>,
    first: FuturesUnordered<BoxFuture<'static, First>>,
    /// Something has been added to `first`.
    began: bool,
}

#[derive(Default)]
struct Line {
    /// Whose the one is that is waited for, and the bytes that are placed with it and those that came with it.
    current: Option<(Source, u64)>,
    behind: VecDeque<(Arrival, Source, u64)>,
}

/// The first delivery of a group's line has its place. With those that came with it.
pub(super) struct First {
    pub(super) group: u32,
    rest: Arrival,
}

/// Arrivals of one origin that have their places.
pub(super) struct Placed {
    pub(super) from: Source,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

impl Intake {
    /// Whether something waits for this group.
    pub(super) fn is_waiting(&self, group: u32) -> bool {
        self.lines.contains_key(&group)
    }

    /// Puts an arrival at the end of the group's line.
    pub(super) fn push(&mut self, group: u32, arrival: Arrival, from: Source) {
        let line = self.lines.entry(group).or_default();
        if line.current.is_none() {
            line.current = Some((from, 0));
            self.first.push(Box::pin(wait(arrival, group)));
            self.began = true;
        } else {
            line.behind.push_back((arrival, from, 0));
        }
    }

    /// Says that so many bytes are placed together with the last in the group's line.
    pub(super) fn weigh_last(&mut self, group: u32, bytes: u64) {
        let Some(line) = self.lines.get_mut(&group) else { return };
        let last = line.behind.back_mut().map(|(_, _, last)| last);
        if let Some(last) = last.or(line.current.as_mut().map(|(_, last)| last)) {
            *last += bytes;
        }
    }

    /// The next group whose first has its place; `None` when nothing waits.
    pub(super) fn poll_placed(&mut self, cx: &mut Context<'_>) -> Poll<Option<First>> {
        self.began = false;
        self.first.poll_next_unpin(cx)
    }

    /// Whether something waits for its place that was not polled yet, so that nobody would hear of it.
    pub(super) fn is_to_be_polled(&self) -> bool {
        self.began
    }

    /// The first of the group's line has its place, and so have those behind it for which there is room now: whose they
    /// were, how many, and the bytes placed with them. The first of the rest is waited for.
    pub(super) fn advance(&mut self, First { group, rest }: First) -> Vec<Placed> {
        let mut all: Vec<Placed> = Vec::new();
        let Some(line) = self.lines.get_mut(&group) else { return all };
        let mut next = line.current.take().map(|(from, bytes)| (rest, from, bytes));
        let mut events = 1;
        while let Some((mut arrival, from, bytes)) = next {
            events += arrival.place_now() as u64;
            let waits = !arrival.is_empty();
            let bytes_placed = if waits { 0 } else { bytes };
            match all.last_mut().filter(|last| last.from == from) {
                Some(last) => {
                    last.events += events;
                    last.bytes += bytes_placed;
                }
                None if events > 0 => all.push(Placed { from, events, bytes: bytes_placed }),
                None => {}
            }
            if waits {
                line.current = Some((from, bytes));
                self.first.push(Box::pin(wait(arrival, group)));
                self.began = true;
                return all;
            }
            (events, next) = (0, line.behind.pop_front());
        }
        self.lines.remove(&group);
        all
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

async fn wait(mut arrival: Arrival, group: u32) -> First {
    // Whether it has a place or its group has ended: it is accounted for either way.
    arrival.placed().await;
    First { group, rest: arrival }
}
