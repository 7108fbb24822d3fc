//! Every bound of a node, in one place.

use std::time::Duration;

/// The most distinct event names a node knows.
pub const EVENT_NAMES_MAX: usize = 1 << 20;
/// The most subscriptions a node holds.
pub const SUBSCRIPTIONS_MAX: usize = 1 << 21;
/// The most places an inbox may have.
pub const INBOX_CAPACITY_MAX: usize = 1 << 20;
/// The places of an inbox when nothing is said.
pub const INBOX_CAPACITY_DEFAULT: usize = 1024;
/// Into how many slots the keys of a keyed shared manager fall.
pub const KEY_SLOTS: usize = 64;
/// How many nodes are remembered that run keyed shared managers, or ran them; more only while more do.
pub(crate) const FRONT_NODES_MAX: usize = 1024;
/// The places for the events of one slot, until they are sent to the node that has it.
pub(crate) const SLOT_CAPACITY: usize = 256;
/// The most worker instances of one manager.
pub const INSTANCES_MAX: usize = 4096;
/// The most figures one worker may report.
pub const FIGURES_MAX: usize = 64;
/// The most conditions on fields that one subscription may have.
pub const CONDITIONS_MAX: usize = 64;
/// The most values that the conditions of one subscription may compare with.
pub const CONDITION_VALUES_MAX: usize = 1024;
/// The most names on the way to a field that conditions ask for.
pub const CONDITION_DEPTH_MAX: usize = 16;
/// The longest that names and texts in the conditions of one subscription may be together, in bytes.
pub const CONDITION_BYTES_MAX: usize = 1 << 16;
/// The most histories of a node.
pub const HISTORIES_MAX: usize = 1024;
/// The most events that one history may keep.
pub const HISTORY_EVENTS_MAX: usize = 1 << 20;
/// The events that a history keeps when nothing is said.
pub const HISTORY_EVENTS_DEFAULT: usize = 1024;
/// The bytes that a history keeps when nothing is said.
pub const HISTORY_BYTES_DEFAULT: usize = 4 << 20;
/// The most subscribers that one history has at a time.
pub const HISTORY_READERS_MAX: usize = 1 << 16;
/// What an event in a history weighs beside its payload, key and headers, in bytes: about what an envelope takes.
pub(crate) const HISTORY_EVENT_BYTES: usize = 512;
/// The most names of events from other nodes that are remembered without being declared here; further ones still come.
pub(crate) const ARRIVING_NAMES_MAX: usize = 1 << 16;
/// One event in so many has its way timed.
pub(crate) const TIMED_ONE_IN: u64 = 128;

const _: () = assert!(INBOX_CAPACITY_DEFAULT <= INBOX_CAPACITY_MAX);
const _: () = assert!(SLOT_CAPACITY <= INBOX_CAPACITY_MAX);
const _: () = assert!(HISTORY_EVENTS_DEFAULT <= HISTORY_EVENTS_MAX);
const _: () = assert!(ARRIVING_NAMES_MAX <= EVENT_NAMES_MAX);
const _: () = assert!(TIMED_ONE_IN.is_power_of_two());

/// Whether the event of this id is one whose way is timed.
#[inline]
#[must_use]
pub fn is_timed(id: edri_events::EventId) -> bool {
    is_timed_sequence(id.sequence())
}

/// One of [`TIMED_ONE_IN`], also of those whose numbers have a period, as where a publisher goes through its keys: by multiplicative
/// hashing (Knuth, The Art of Computer Programming 3, 6.4), whose factor is 2⁶⁴ divided by the golden ratio.
fn is_timed_sequence(sequence: u64) -> bool {
    sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - TIMED_ONE_IN.trailing_zeros()) == 0
}

/// The bounds of a node that its owner may choose.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// How long a publisher waits for room when nothing else ends its wait. Default 30 s.
    pub publish_wait: Duration,
    /// The most requests and tunnels open at once; one more is refused with `overloaded`. Default 65,536.
    pub pending_max: usize,
    /// How many dead letters are kept to be looked at and resent; the oldest make room. Default 1,024.
    pub dead_letters_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { publish_wait: Duration::from_secs(30), pending_max: 65_536, dead_letters_max: 1024 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_in_so_many_is_timed_whatever_period_its_numbers_have() {
        const EACH: u64 = 10_000;
        for period in [1, 2, 3, 4, 5, 64, 96, TIMED_ONE_IN, 1000, 4096, 1 << 20] {
            for first in (0..period).step_by((period as usize / 64).max(1)) {
                let timed = (0..EACH).filter(|round| is_timed_sequence(first + round * period)).count() as u64;
                let expected = EACH / TIMED_ONE_IN;
                assert!((expected / 2..=expected * 2).contains(&timed), "{timed} of those {first} + n * {period}");
            }
        }
    }
}
