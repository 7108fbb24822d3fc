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
    first: FuturesUnordered<BoxFuture<'static, u32>>,
    /// Something has been added to `first`.
    began: bool,
}

#[derive(Default)]
struct Line {
    /// Whose the one is that is waited for, and the bytes that are placed with it.
    current: Option<(Source, u64)>,
    behind: VecDeque<(Arrival, Source, u64)>,
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
    pub(super) fn poll_placed(&mut self, cx: &mut Context<'_>) -> Poll<Option<u32>> {
        self.began = false;
        self.first.poll_next_unpin(cx)
    }

    /// Whether something waits for its place that was not polled yet, so that nobody would hear of it.
    pub(super) fn is_to_be_polled(&self) -> bool {
        self.began
    }

    /// The first of the group's line has its place, and so have those behind it for which there is room now: whose they
    /// were, how many, and the bytes placed with them. The first of the rest is waited for.
    pub(super) fn advance(&mut self, group: u32) -> Vec<Placed> {
        let mut all: Vec<Placed> = Vec::new();
        let Some(line) = self.lines.get_mut(&group) else { return all };
        if let Some((from, bytes)) = line.current.take() {
            all.push(Placed { from, events: 1, bytes });
        }
        while let Some((arrival, from, bytes)) = line.behind.pop_front() {
            if let Err(arrival) = arrival.place_now() {
                line.current = Some((from, bytes));
                self.first.push(Box::pin(wait(arrival, group)));
                self.began = true;
                return all;
            }
            match all.last_mut().filter(|last| last.from == from) {
                Some(last) => {
                    last.events += 1;
                    last.bytes += bytes;
                }
                None => all.push(Placed { from, events: 1, bytes }),
            }
        }
        self.lines.remove(&group);
        all
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lines.values().map(|line| line.behind.len() + usize::from(line.current.is_some())).sum()
    }
}

async fn wait(arrival: Arrival, group: u32) -> u32 {
    // Whether it has a place or its group has ended: it is accounted for either way.
    arrival.placed().await;
    group
}
