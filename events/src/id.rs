//! Ids: of events and of a process's lives.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One life of a node's process: random, so never the same again after a restart. Its order says nothing of time; it is
/// there so that lives can be keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(NonZeroU64);

impl Incarnation {
    /// A fresh incarnation from the operating system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        Self(random_nonzero())
    }

    /// The incarnation of this number, as it came over a boundary; `None` for zero.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The incarnation as a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Incarnation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer, "an incarnation")
    }
}

impl std::str::FromStr for Incarnation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "an incarnation is 16 hexadecimal digits, not all zero";
        let number = u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
        number.and_then(Self::from_number).ok_or(WRONG)
    }
}

impl schemars::JsonSchema for Incarnation {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Incarnation".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{16}$" })
    }
}

/// Identifies one event wherever it goes: a random number of the process that made it, and a sequence number.
///
/// Written as 32 hexadecimal digits. Two ids of one process are ordered only within the thread that made them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    process: NonZeroU64,
    sequence: u64,
}

/// How many sequence numbers a thread takes at once, so that threads do not contend for the next one.
const BLOCK: u64 = 1 << 16;

static PROCESS: LazyLock<NonZeroU64> = LazyLock::new(random_nonzero);
static NEXT_BLOCK: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

impl EventId {
    /// The next id of this process.
    #[must_use]
    pub fn next() -> Self {
        let sequence = NEXT.with(|next| {
            let mut sequence = next.get();
            if sequence.is_multiple_of(BLOCK) {
                sequence = NEXT_BLOCK.fetch_add(BLOCK, Ordering::Relaxed) + 1;
            }
            next.set(sequence + 1);
            sequence
        });
        Self { process: *PROCESS, sequence }
    }

    /// The id made of these two numbers, as it came over a boundary; `None` when `process` is zero.
    #[must_use]
    pub fn from_parts(process: u64, sequence: u64) -> Option<Self> {
        NonZeroU64::new(process).map(|process| Self { process, sequence })
    }

    /// The random number of the process that made the event.
    #[must_use]
    pub fn process(self) -> u64 {
        self.process.get()
    }

    /// The number of the event within that process.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.sequence
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.process, self.sequence)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for EventId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "an event id is 32 hexadecimal digits, not all of the first 16 zero";
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        let (process, sequence) = text.split_at(16);
        let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| WRONG);
        Self::from_parts(number(process)?, number(sequence)?).ok_or(WRONG)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 32];
        crate::text::write_hex(self.process.get(), &mut text[..16]);
        crate::text::write_hex(self.sequence, &mut text[16..]);
        crate::text::serialize(&text, serializer)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer, "an event id")
    }
}

impl schemars::JsonSchema for EventId {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EventId".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{32}$" })
    }
}

/// A random number that is not zero, from the operating system.
fn random_nonzero() -> NonZeroU64 {
    loop {
        // Without random numbers from the system, ids of two nodes could meet and the cluster's accounts with them:
        // there is nothing safe to do but stop before the first event.
        let random = getrandom::u64().expect("the operating system must provide random numbers");
        if let Some(random) = NonZeroU64::new(random) {
            return random;
        }
    }
}

/// Spreads `seed` over 64 bits; the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_many_threads_are_distinct() {
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(|| (0..100_000).map(|_| EventId::next()).collect::<Vec<_>>())).collect();
        let ids: Vec<_> = threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }

    #[test]
    fn an_id_reads_back_what_it_writes() {
        let id = EventId::next();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::to_value(id).expect("a text"), id.to_string());
        assert!("xyz".parse::<EventId>().is_err());
        assert!("0".repeat(32).parse::<EventId>().is_err());
        assert!("+".repeat(32).parse::<EventId>().is_err());
    }
}
