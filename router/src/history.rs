//! What a node remembers of past events, for subscribers that come late.
//!
//! ```text
//!                          ┌ the other groups' inboxes
//! publisher ─▶ snapshot ─▶ ┤
//!                          └ Recorder ─▶ Log   │ 41 │ 42 │ 44 │ 45 │ ▷ 46 is next
//!                             (a lock)          oldest kept          ▲
//!                                                    Replay ─────────┘ reads on from its own place
//! ```
//!
//! A history is a subscriber group whose place for an event is always there: its publisher writes the event into the log
//! itself, under a lock, and the moment of the lock is the order that the history gives it. A subscriber of a history has no
//! inbox; it reads the log from a place on, past events and live ones alike. So there is no moment at which it changes from
//! one to the other, and nothing that could be missed or come twice there.

mod list;
mod log;
mod recorder;
mod replay;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use edri_events::{EventId, Incarnation};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{HISTORY_BYTES_DEFAULT, HISTORY_EVENTS_DEFAULT, HISTORY_EVENTS_MAX};

pub(crate) use list::Histories;
pub(crate) use recorder::{Figures, Recorder};
pub use replay::{Recorded, Replay, Start};

/// How much a history keeps: the latest events that are within all of its bounds.
///
/// ```
/// # use std::time::Duration;
/// # use edri_router::History;
/// let history = History::new().events(1000).bytes(4 << 20).age(Duration::from_secs(3600));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct History {
    events: usize,
    bytes: usize,
    age: Option<Duration>,
}

impl History {
    /// 1,024 events, 4 MiB, of any age.
    pub fn new() -> Self {
        Self { events: HISTORY_EVENTS_DEFAULT, bytes: HISTORY_BYTES_DEFAULT, age: None }
    }

    /// At most so many events: at least one, at most [`HISTORY_EVENTS_MAX`].
    pub fn events(mut self, events: usize) -> Self {
        self.events = events.clamp(1, HISTORY_EVENTS_MAX);
        self
    }

    /// At most so many bytes: of encoded payloads, keys and headers, and 512 for each event. An event that is larger than
    /// this alone is not kept. The Rust value of a payload that has one, and its JSON when somebody asks for it, are not
    /// counted.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Only events that came no longer ago than this.
    pub fn age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Events, bytes and age at most.
    pub(crate) fn bounds(&self) -> (usize, usize, Option<Duration>) {
        (self.events, self.bytes, self.age)
    }

    /// Whether what came at this time is not to be served any more.
    fn is_too_old(&self, at: Instant, now: Instant) -> bool {
        self.age.is_some_and(|age| now.saturating_duration_since(at) > age)
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

/// The place of an event in a history, for [`Subscribe::since`](crate::Subscribe::since). Written as a text without spaces: 16 hexadecimal digits that are
/// another history's no more, after a restart of the node either; a dash; the event's number in the history, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    history: Incarnation,
    number: u64,
}

impl Position {
    /// The event's number in its history: 1 for the first, and one more for each that came after it.
    #[must_use]
    pub fn number(self) -> u64 {
        self.number
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.history, self.number)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Position {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a position in a history is 16 hexadecimal digits, a dash and a number";
        let (history, number) = text.split_once('-').ok_or(WRONG)?;
        let digits = |text: &str, is: fn(&u8) -> bool| text.as_bytes().iter().all(is);
        if history.len() != 16 || !digits(history, u8::is_ascii_hexdigit) || !digits(number, u8::is_ascii_digit) {
            return Err(WRONG);
        }
        let history = u64::from_str_radix(history, 16).ok().and_then(Incarnation::from_number).ok_or(WRONG)?;
        Ok(Self { history, number: number.parse().map_err(|_| WRONG)? })
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The last event that a subscriber has had.
#[derive(Debug, Clone, Copy)]
pub struct Since(Mark);

#[derive(Debug, Clone, Copy)]
enum Mark {
    Position(Position),
    Event(EventId),
    /// Nothing that any history knows.
    Unknown,
}

impl Since {
    /// What a text from outside says, as SSE's `Last-Event-ID`: a position, or an event's id. One that is neither is taken as
    /// a place that no history knows any more, so whoever sends it is told that it may have missed events.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let event = || text.parse().map(Mark::Event);
        Self(text.parse().map(Mark::Position).or_else(|_| event()).unwrap_or(Mark::Unknown))
    }
}

/// As [`Since::from_text`] reads it.
impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Mark::Position(position) => position.fmt(f),
            Mark::Event(event) => event.fmt(f),
            Mark::Unknown => f.write_str("unknown"),
        }
    }
}

impl From<Position> for Since {
    fn from(position: Position) -> Self {
        Self(Mark::Position(position))
    }
}

impl From<EventId> for Since {
    fn from(event: EventId) -> Self {
        Self(Mark::Event(event))
    }
}

/// A subscriber of a history has missed events: the history has them no more, or does not know the place that it was to go
/// on from. What comes next comes after the gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
#[non_exhaustive]
pub struct Missed {
    /// How many events the history had and has no more, whether or not the subscription would have wanted them; `None` when
    /// that is not known, because the place was one of another history, or of an earlier life of the node.
    pub events: Option<u64>,
}

impl Missed {
    /// So many events; `None` when that is not known.
    #[must_use]
    pub fn new(events: Option<u64>) -> Self {
        Self { events }
    }

    fn words(&self) -> String {
        match self.events {
            Some(events) => format!("missed up to {events} events that the history keeps no more"),
            None => "may have missed events: the history does not know the place to go on from".to_owned(),
        }
    }

    fn and(self, other: Self) -> Self {
        Self { events: self.events.zip(other.events).map(|(a, b)| a.saturating_add(b)) }
    }
}

#[cfg(test)]
mod tests;
