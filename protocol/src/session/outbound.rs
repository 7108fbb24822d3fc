//! The side that sends: keeps what is not acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{LANES_MAX, RESEND_BYTES_FIRST, Timing, WINDOW_BYTES, WINDOW_PACKETS};
use crate::packet::{Lane, LaneAck};

/// What one life of a node sends another in one session.
#[derive(Debug)]
pub struct Outbound<P> {
    lanes: BTreeMap<Lane, SendLane<P>>,
    timing: Timing,
    smoothed: Option<RoundTrip>,
    /// How often the timer has run out since something was last acknowledged.
    expiries: u32,
    /// When the timer runs out; `None` while nothing is unacknowledged or the destination is out of reach.
    timer: Option<Duration>,
    reachable: bool,
    /// How much may be sent again until the next acknowledgement.
    allowance: usize,
    resend_allowance: usize,
    packets: usize,
    bytes: usize,
    /// How many packets are marked to be sent again.
    doubtful: usize,
}

#[derive(Debug, Clone, Copy)]
struct RoundTrip {
    mean: Duration,
    variation: Duration,
}

#[derive(Debug)]
struct SendLane<P> {
    next: u64,
    unacknowledged: VecDeque<Sent<P>>,
    bytes: usize,
    /// Everything from here on that has `again` set is to be sent again; nothing before has.
    cursor: u64,
    ended: bool,
}

#[derive(Debug)]
struct Sent<P> {
    packet: P,
    bytes: usize,
    at: Duration,
    times: u32,
    /// The receiver has it, though not everything before it.
    held: bool,
    again: bool,
}

/// A packet that is to be sent again.
#[derive(Debug)]
pub struct Again<'a, P> {
    /// Its lane.
    pub lane: Lane,
    /// Its number.
    pub sequence: u64,
    /// The lowest number that is not acknowledged.
    pub base: u64,
    /// The packet.
    pub packet: &'a mut P,
}

/// An acknowledgement names something that was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{next} of {lane:?} is acknowledged, but only {sent} were sent")]
pub struct UnknownSequence {
    lane: Lane,
    next: u64,
    sent: u64,
}

impl<P> SendLane<P> {
    fn base(&self) -> u64 {
        self.next - self.unacknowledged.len() as u64
    }

    /// Marks what is not known to be with the receiver to be sent again, as far as `wants` it.
    /// Returns how many it marked.
    fn mark(&mut self, mut wants: impl FnMut(u64, &Sent<P>) -> bool) -> usize {
        let base = self.base();
        let mut marked = 0;
        for (sequence, sent) in (base..).zip(&mut self.unacknowledged) {
            if !sent.held && !sent.again && wants(sequence, sent) {
                sent.again = true;
                self.cursor = self.cursor.min(sequence);
                marked += 1;
            }
        }
        marked
    }
}

impl<P> Outbound<P> {
    /// A session in which nothing has been sent.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self {
            lanes: BTreeMap::new(),
            timing,
            smoothed: None,
            expiries: 0,
            timer: None,
            reachable: true,
            allowance: RESEND_BYTES_FIRST,
            resend_allowance: 0,
            packets: 0,
            bytes: 0,
            doubtful: 0,
        }
    }

    /// Whether another packet may be sent in this lane now.
    #[must_use]
    pub fn has_room(&self, lane: Lane) -> bool {
        match self.lanes.get(&lane) {
            Some(lane) => lane.bytes < WINDOW_BYTES && lane.unacknowledged.len() < WINDOW_PACKETS,
            None => self.lanes.len() < LANES_MAX,
        }
    }

    /// How many packets are not acknowledged.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// How many bytes are not acknowledged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The smoothed time between sending and acknowledgement.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.smoothed.map(|round_trip| round_trip.mean)
    }

    /// Numbers a packet of so many bytes and keeps it. Returns its number and the lowest that is not acknowledged; the
    /// caller sends it. Whether there is [room](Outbound::has_room) is the caller's affair.
    pub fn send(&mut self, now: Duration, lane: Lane, bytes: usize, packet: P) -> (u64, u64) {
        let state = self.lanes.entry(lane).or_insert_with(|| SendLane {
            next: 0,
            unacknowledged: VecDeque::new(),
            bytes: 0,
            cursor: u64::MAX,
            ended: false,
        });
        let sequence = state.next;
        state.next += 1;
        state.bytes += bytes;
        // Out of reach, nothing is sent: it goes out with everything else once there is a path.
        let unsent = !self.reachable;
        if unsent {
            state.cursor = state.cursor.min(sequence);
            self.doubtful += 1;
        }
        let times = u32::from(!unsent);
        state.unacknowledged.push_back(Sent { packet, bytes, at: now, times, held: false, again: unsent });
        let base = state.base();
        self.packets += 1;
        self.bytes += bytes;
        if self.timer.is_none() && self.reachable {
            self.timer = Some(now + self.time_out());
        }
        (sequence, base)
    }

    /// Says that nothing more is sent in this lane; it is forgotten once everything is acknowledged.
    pub fn end_lane(&mut self, lane: Lane) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.ended = true;
            if state.unacknowledged.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    /// Takes an acknowledgement; what it settles is added to `settled`, oldest first in each lane. What the receiver must be
    /// missing is marked to be sent again.
    ///
    /// # Errors
    ///
    /// [`UnknownSequence`] when it speaks of what was never sent; nothing of that lane is changed.
    pub fn acknowledged(
        &mut self,
        now: Duration,
        acks: &[LaneAck],
        settled: &mut Vec<(Lane, P)>,
    ) -> Result<(), UnknownSequence> {
        let mut progress = false;
        let patience = self.smoothed.map_or(self.timing.resend_min, |round_trip| round_trip.mean);
        for ack in acks {
            let Some(lane) = self.lanes.get_mut(&ack.lane) else { continue };
            let furthest = ack.held.iter().map(|&(_, to)| to).fold(ack.next, u64::max);
            if furthest > lane.next {
                return Err(UnknownSequence { lane: ack.lane, next: furthest, sent: lane.next });
            }
            while lane.base() < ack.next {
                let Some(sent) = lane.unacknowledged.pop_front() else { break };
                lane.bytes -= sent.bytes;
                self.packets -= 1;
                self.bytes -= sent.bytes;
                self.doubtful -= usize::from(sent.again);
                progress = true;
                if sent.times == 1 && !sent.held {
                    let sample = now.saturating_sub(sent.at);
                    self.smoothed = Some(match self.smoothed {
                        None => RoundTrip { mean: sample, variation: sample / 2 },
                        Some(RoundTrip { mean, variation }) => RoundTrip {
                            mean: (mean * 7 + sample) / 8,
                            variation: (variation * 3 + mean.abs_diff(sample)) / 4,
                        },
                    });
                }
                settled.push((ack.lane, sent.packet));
            }
            let base = lane.base();
            for &(from, to) in &ack.held {
                for sequence in from.max(base)..to {
                    let sent = &mut lane.unacknowledged[(sequence - base) as usize];
                    progress |= !sent.held;
                    self.doubtful -= usize::from(sent.again);
                    sent.held = true;
                    sent.again = false;
                }
            }
            if let Some(&(highest, _)) = ack.held.last() {
                // What was sent before something that has arrived, and long enough ago, was lost.
                self.doubtful += lane.mark(|sequence, sent| sequence < highest && sent.at + patience <= now);
            }
            if lane.ended && lane.unacknowledged.is_empty() {
                self.lanes.remove(&ack.lane);
            }
        }
        if progress {
            self.expiries = 0;
            self.allowance = (self.allowance * 2).min(WINDOW_BYTES);
            self.resend_allowance = self.allowance;
            self.timer = (self.packets > 0 && self.reachable).then(|| now + self.time_out());
        } else if self.resend_allowance == 0 {
            // A gap that was found without progress is worth one packet.
            self.resend_allowance = 1;
        }
        Ok(())
    }

    /// Says whether there is a path to the destination. While there is none nothing is sent; with a new one, everything that
    /// is not acknowledged is in doubt and is sent again: call it for a changed path too.
    pub fn path(&mut self, reachable: bool) {
        self.reachable = reachable;
        self.expiries = 0;
        self.timer = None;
        if reachable {
            self.doubt();
        }
    }

    /// Marks everything that is not known to have arrived.
    fn doubt(&mut self) {
        for lane in self.lanes.values_mut() {
            self.doubtful += lane.mark(|_, _| true);
        }
        self.allowance = RESEND_BYTES_FIRST;
        self.resend_allowance = RESEND_BYTES_FIRST;
    }

    /// When [`Outbound::tick`] is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.timer
    }

    /// Looks at the timer; afterwards [`Outbound::next_again`] may have something.
    pub fn tick(&mut self, now: Duration) {
        if self.timer.is_some_and(|timer| timer <= now) {
            self.expiries += 1;
            self.timer = Some(now + self.time_out());
            self.doubt();
        }
    }

    /// Whether [`Outbound::next_again`] has something.
    #[must_use]
    pub fn has_again(&self) -> bool {
        self.reachable && self.doubtful > 0 && self.resend_allowance > 0
    }

    /// The next packet that is to be sent again, if one is and the allowance is not used up: urgent lanes first, each lane
    /// in order.
    pub fn next_again(&mut self, now: Duration) -> Option<Again<'_, P>> {
        if !self.has_again() {
            return None;
        }
        let (lane, index) = self.lanes.iter_mut().find_map(|(lane, state)| {
            let base = state.base();
            let from = state.cursor.max(base).saturating_sub(base) as usize;
            let found = (from..state.unacknowledged.len()).find(|&index| state.unacknowledged[index].again);
            state.cursor = found.map_or(u64::MAX, |index| base + index as u64 + 1);
            found.map(|index| (*lane, index))
        })?;
        let time_out = self.time_out();
        self.timer.get_or_insert(now + time_out);
        let state = self.lanes.get_mut(&lane)?;
        let base = state.base();
        let sent = state.unacknowledged.get_mut(index)?;
        sent.again = false;
        self.doubtful -= 1;
        sent.at = now;
        sent.times += 1;
        self.resend_allowance = self.resend_allowance.saturating_sub(sent.bytes.max(1));
        Some(Again { lane, sequence: base + index as u64, base, packet: &mut sent.packet })
    }

    /// Everything that is not acknowledged, in order in each lane, with whether it was ever sent.
    pub fn into_unacknowledged(self) -> impl Iterator<Item = (Lane, P, bool)> {
        self.lanes.into_iter().flat_map(|(lane, state)| {
            state.unacknowledged.into_iter().map(move |sent| (lane, sent.packet, sent.times > 0))
        })
    }

    fn time_out(&self) -> Duration {
        let base = match self.smoothed {
            None => self.timing.resend_min * 2,
            Some(RoundTrip { mean, variation }) => mean + variation * 4 + self.timing.ack_delay * 2,
        };
        let base = base.clamp(self.timing.resend_min, self.timing.resend_max);
        (base * 2_u32.pow(self.expiries.min(8))).min(self.timing.resend_max)
    }
}

#[cfg(test)]
impl<P> Outbound<P> {
    pub(super) fn doubtful_for_test(&self) -> usize {
        self.doubtful
    }
}
