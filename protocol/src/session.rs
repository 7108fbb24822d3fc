//! What one node's life has sent another's, and what it has received: numbers, acknowledgements, sending again. Pure.
//!
//! ```text
//! origin: Outbound                                   destination: Inbound
//!   lane: numbered, kept until acknowledged   ──▶      lane: in order, once; what came early is held
//!         sent again when in doubt            ◀──      Ack: everything below `next`, and the ranges held beyond
//! ```
//!
//! A session lies between a pair of lives of nodes, whatever carries it: frames may be lost, repeated, delayed and come
//! in any order. What is numbered is up to the caller (`P`, `T`): packets between nodes. Each lane is in order by itself
//! and waits for no other. Time comes in as the [`Duration`] since any fixed beginning.
//!
//! The timer that sends again follows RFC 6298 (smoothed round trip and its variation, doubled at each expiry), with the
//! ranges of an acknowledgement as in RFC 2018; only the bounds differ, which are [`Timing`]'s.

mod inbound;
mod outbound;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use inbound::{Inbound, Received};
pub use outbound::{Again, Outbound, UnknownSequence};

/// The times of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long an acknowledgement may be held back for others to join it.
    pub ack_delay: Duration,
    /// After so many packets it is sent at once.
    pub ack_packets: u32,
    /// The shortest time after which something unacknowledged is sent again.
    pub resend_min: Duration,
    /// The longest.
    pub resend_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ack_delay: Duration::from_millis(10),
            ack_packets: 16,
            resend_min: Duration::from_millis(300),
            resend_max: Duration::from_secs(5),
        }
    }
}

/// How many bytes of a lane may be unacknowledged, and so how many may be held by the receiver.
pub const WINDOW_BYTES: usize = 8 << 20;
/// How many packets of a lane may be unacknowledged.
pub const WINDOW_PACKETS: usize = 4096;
/// The most lanes a session has at once.
pub const LANES_MAX: usize = 4096;
/// The most ranges of one lane that an acknowledgement lists.
pub const RANGES_MAX: usize = crate::limits::ACK_HELD_MAX;
/// How many bytes are sent again before the first acknowledgement after trouble; doubled by each that helps.
const RESEND_BYTES_FIRST: usize = 64 << 10;
/// How long a lane that has ended is remembered, so that what is still under way finds it ended.
const ENDED_KEPT: Duration = Duration::from_secs(60);
/// How many lanes that have ended are remembered; the oldest are forgotten earlier.
const ENDED_MAX: usize = 65_536;
