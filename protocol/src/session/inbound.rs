//! The side that receives: everything once, in order in each lane.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{ENDED_KEPT, ENDED_MAX, LANES_MAX, RANGES_MAX, Timing, WINDOW_BYTES, WINDOW_PACKETS};
use crate::packet::{Lane, LaneAck};

/// What one life of a node has received of another in one session.
#[derive(Debug)]
pub struct Inbound<T> {
    lanes: BTreeMap<Lane, ReceiveLane<T>>,
    /// Lanes that have ended, oldest first.
    ended: VecDeque<(Duration, Lane)>,
    ready: VecDeque<(Lane, T)>,
    timing: Timing,
    /// Packets since the last acknowledgement.
    owed: u32,
    due: Option<Duration>,
}

#[derive(Debug)]
struct ReceiveLane<T> {
    next: u64,
    held: BTreeMap<u64, (usize, T)>,
    bytes: usize,
    /// Something came since the last acknowledgement.
    owed: bool,
    ended: bool,
}

impl<T> Default for ReceiveLane<T> {
    fn default() -> Self {
        Self { next: 0, held: BTreeMap::new(), bytes: 0, owed: true, ended: false }
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It and perhaps others are [ready](Inbound::take).
    Ready,
    /// It waits for others before it.
    Held,
    /// It has come before.
    Duplicate,
    /// There is no room to hold it; it will be sent again.
    Refused,
}

impl<T> Inbound<T> {
    /// A session in which nothing has been received.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self { lanes: BTreeMap::new(), ended: VecDeque::new(), ready: VecDeque::new(), timing, owed: 0, due: None }
    }

    /// Takes a packet of so many bytes. `base` is the lowest number that its sender has not seen acknowledged.
    pub fn receive(
        &mut self,
        now: Duration,
        lane: Lane,
        sequence: u64,
        base: u64,
        bytes: usize,
        packet: T,
    ) -> Received {
        if !self.lanes.contains_key(&lane) {
            if base > 0 {
                // All of it was received, acknowledged and forgotten long ago; or it never was ours, which the caller
                // tells apart by the session.
                return Received::Duplicate;
            }
            self.forget_ended(now);
            if self.lanes.len() - self.ended.len() >= LANES_MAX {
                return Received::Refused;
            }
        }
        let state = self.lanes.entry(lane).or_default();
        let received = if sequence < state.next || state.held.contains_key(&sequence) {
            Received::Duplicate
        } else if sequence == state.next {
            state.next += 1;
            self.ready.push_back((lane, packet));
            while let Some((bytes, packet)) = state.held.remove(&state.next) {
                state.bytes -= bytes;
                state.next += 1;
                self.ready.push_back((lane, packet));
            }
            Received::Ready
        } else if sequence - state.next >= WINDOW_PACKETS as u64 || state.bytes >= WINDOW_BYTES {
            Received::Refused
        } else {
            state.held.insert(sequence, (bytes, packet));
            state.bytes += bytes;
            Received::Held
        };
        state.owed = true;
        self.owed += 1;
        // What is out of order, or has come before, says that the sender knows too little.
        let at_once = received != Received::Ready || !state.held.is_empty() || self.owed >= self.timing.ack_packets;
        let due = if at_once { now } else { now + self.timing.ack_delay };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        received
    }

    /// The next packet that is in order.
    pub fn take(&mut self) -> Option<(Lane, T)> {
        self.ready.pop_front()
    }

    /// Says that nothing more comes in this lane. It is remembered for a while, because packets of it may still be under way.
    pub fn end_lane(&mut self, now: Duration, lane: Lane) {
        let Some(state) = self.lanes.get_mut(&lane).filter(|state| !state.ended) else { return };
        state.ended = true;
        if self.ended.len() >= ENDED_MAX
            && let Some((_, oldest)) = self.ended.pop_front()
        {
            self.lanes.remove(&oldest);
        }
        self.ended.push_back((now + ENDED_KEPT, lane));
    }

    /// Says that nothing came for a while and that the sender may not have heard of what had come: lanes that have ended are
    /// remembered from now on as long as if they had ended now.
    pub fn resumed(&mut self, now: Duration) {
        for (until, _) in &mut self.ended {
            *until = now + ENDED_KEPT;
        }
        self.acknowledge_at(now);
    }

    fn forget_ended(&mut self, now: Duration) {
        while self.ended.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, lane)) = self.ended.pop_front() {
                self.lanes.remove(&lane);
            }
        }
    }

    /// Makes an acknowledgement due at once.
    pub fn acknowledge_at(&mut self, at: Duration) {
        self.due = Some(self.due.map_or(at, |earlier| earlier.min(at)));
    }

    /// When an acknowledgement is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.due
    }

    /// The acknowledgement: of the lanes in which something came since the last one, or of all lanes that have not ended.
    pub fn acknowledge(&mut self, now: Duration, all: bool) -> Vec<LaneAck> {
        self.due = None;
        self.owed = 0;
        let lanes = self.lanes.iter_mut().filter(|(_, state)| state.owed || (all && !state.ended));
        let acks = lanes.map(|(lane, state)| {
            state.owed = false;
            LaneAck { lane: *lane, next: state.next, held: ranges(state.held.keys().copied()) }
        });
        let acks: Vec<_> = acks.take(crate::limits::ACK_LANES_MAX).collect();
        if acks.len() == crate::limits::ACK_LANES_MAX {
            self.due = Some(now).filter(|_| self.lanes.values().any(|state| state.owed));
        }
        self.forget_ended(now);
        acks
    }
}

/// The first ranges of these ascending numbers, each as `[from, to)`.
fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        if let Some((_, to)) = ranges.last_mut().filter(|(_, to)| *to == number) {
            *to += 1;
        } else if ranges.len() == RANGES_MAX {
            break;
        } else {
            ranges.push((number, number + 1));
        }
    }
    ranges
}
