//! What the body of a packet holds: items, one after another, to its end.
//!
//! [`Writer`] appends them, [`Reader`] takes them out. A body can be read alone, since it may be sent again later or by
//! another path: what its items have in common is written in full by the first of them and by a small number from then on.
//!
//! ```text
//! event of 64 bytes, not the first of its name and process:
//! ┌──────┬──────────────────┬─────────┬───────┬──────┬─────────┬──────────┐
//! │ kind │ payload's length │ payload │ flags │ name │ process │ sequence │
//! │  1   │        4         │   64    │   1   │  1   │    1    │    1     │
//! └──────┴──────────────────┴─────────┴───────┴──────┴─────────┴──────────┘
//! ```
//!
//! The payload comes first because writing it is all that can fail, and then nothing else needs to be taken back.
//! `docs/PROTOCOL.md` specifies every byte.

mod reader;
mod writer;

use edri_events::{Encoding, EventId, Headers, TraceContext};

pub use self::reader::Reader;
pub use self::writer::{TooLong, Unwritten, Writer, data_head};
use crate::{Fault, Grant, Payload};

/// One item of a body. The lanes that it belongs in are in parentheses.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "the large ones are the frequent ones; a box would cost each of them")]
pub enum Item<'a> {
    /// A notification (`Normal`).
    Event(Event<'a>),
    /// A request (`High`).
    Request {
        /// The number of the call, chosen by the origin.
        call: u64,
        /// The event.
        event: Event<'a>,
    },
    /// Opens the tunnel of this lane (first of `Up`).
    Open {
        /// The event.
        event: Event<'a>,
        /// What the opener takes before it grants more.
        credit: Grant,
    },
    /// What came of a request of the destination (`High`).
    Response {
        /// The number of the call.
        call: u64,
        /// What came of it.
        outcome: Outcome<'a>,
    },
    /// The origin no longer waits for this request (`High`).
    Cancel {
        /// The number of the call.
        call: u64,
    },
    /// Something sent in this tunnel (`Up`, `Down`).
    Data(Payload<'a>),
    /// What the origin takes in the other direction of this tunnel: how much in all since it opened (`Up`, `Down`).
    Grant(Grant),
    /// Nothing more comes in this direction of the tunnel (`Up`, `Down`).
    End,
    /// The tunnel breaks, in both directions (`Up`, `Down`).
    Abort(Fault<'a>),
    /// The tunnel's final result (last of `Down`).
    Outcome(Outcome<'a>),
    /// The origin sends nothing more to this group (`Normal`).
    Left {
        /// The group's number at the destination.
        group: u32,
    },
    /// The origin knows an event otherwise than the destination and sends it none of these; or no longer, when it does not say
    /// why (`Normal`).
    Differs {
        /// The event's name.
        event: &'a str,
        /// What differs, for people.
        why: &'a str,
    },
    /// What the origin says of itself and the keys of a keyed shared manager (`Normal`).
    Keys(Keys<'a>),
    /// The origin has noted what the destination says of such a manager: whatever it sent according to an earlier saying stands before this
    /// (`Normal`, `High`).
    Noted {
        /// The manager.
        manager: &'a str,
        /// The version of the saying.
        version: u64,
        /// Which of the slots that the destination claims it may have, as far as the origin knows: bit *n* is slot *n*.
        agreed: u64,
    },
    /// An item that this version does not know. Its bytes were skipped.
    Unknown {
        /// What it is.
        kind: u8,
    },
}

/// What a life of a node says of itself and the keys of a keyed shared manager. Slots are sets: bit *n* is slot *n*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys<'a> {
    /// The manager.
    pub manager: &'a str,
    /// Grows with each saying of this life.
    pub version: u64,
    /// Whether it runs the manager, and takes slots.
    pub member: bool,
    /// The slots that it has.
    pub owned: u64,
    /// Those that it still has, and is about to give up.
    pub releasing: u64,
    /// Those that it wants.
    pub claiming: u64,
}

/// What came of a request or a tunnel.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<'a> {
    /// The value.
    Value(Payload<'a>),
    /// The handler's own failure.
    Failure(Fault<'a>),
    /// An error of edri.
    Error(Fault<'a>),
}

/// A text that many items of a body have, and which of them it is: in the order in which they first appear they have the
/// indices 0, 1, 2 and so on, names and managers each for themselves. So who reads a body looks each of them up once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interned<'a> {
    /// Its index among those of this body.
    pub index: usize,
    /// The text.
    pub text: &'a str,
}

/// An event as it was read. The texts are as they came: whether they are names is for the reader to see.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// Its name.
    pub name: Interned<'a>,
    /// Its id.
    pub id: EventId,
    /// The manager of the origin whose worker sent it.
    pub manager: Option<Interned<'a>>,
    /// Its key.
    pub key: Option<&'a str>,
    /// The event that made it.
    pub cause: Option<EventId>,
    /// Where it stands in a trace; absent when one begins with it.
    pub trace: Option<TraceContext>,
    /// How much time it had left when it was written, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// What its sender added.
    pub headers: Headers,
    /// How often it has been tried before.
    pub tried: u32,
    /// Whether a worker that was lost may have handled it already, wholly or in part.
    pub redelivered: bool,
    /// Its payload.
    pub payload: Payload<'a>,
}

/// An event to be written, but for its payload. The fields are those of [`Event`].
#[derive(Debug, Clone, Copy)]
pub struct EventHead<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its id.
    pub id: EventId,
    /// The manager whose worker sends it.
    pub manager: Option<&'a str>,
    /// Its key.
    pub key: Option<&'a str>,
    /// The event that made it.
    pub cause: Option<EventId>,
    /// Where it stands in a trace; absent when one begins with it.
    pub trace: Option<TraceContext>,
    /// How much time it has left, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// What its sender adds.
    pub headers: Option<&'a Headers>,
    /// How often it has been tried before.
    pub tried: u32,
    /// Whether a worker that was lost may have handled it already, wholly or in part.
    pub redelivered: bool,
    /// How its payload is encoded.
    pub encoding: Encoding,
}

impl<'a> EventHead<'a> {
    /// The head of an event that has only what it must have.
    #[must_use]
    pub fn new(name: &'a str, id: EventId, encoding: Encoding) -> Self {
        Self {
            name,
            id,
            manager: None,
            key: None,
            cause: None,
            trace: None,
            timeout_ms: None,
            headers: None,
            tried: 0,
            redelivered: false,
            encoding,
        }
    }
}

/// The first byte of an item. From [`kind::SIZED`] on a length follows, so that who does not know the kind can skip it.
mod kind {
    pub(super) const EVENT: u8 = 1;
    pub(super) const REQUEST: u8 = 2;
    pub(super) const OPEN: u8 = 3;
    pub(super) const RESPONSE: u8 = 4;
    pub(super) const CANCEL: u8 = 5;
    pub(super) const DATA: u8 = 6;
    pub(super) const GRANT: u8 = 7;
    pub(super) const END: u8 = 8;
    pub(super) const ABORT: u8 = 9;
    pub(super) const OUTCOME: u8 = 10;
    pub(super) const LEFT: u8 = 11;
    pub(super) const DIFFERS: u8 = 12;
    pub(super) const SIZED: u8 = 128;
    pub(super) const KEYS: u8 = 128;
    pub(super) const NOTED: u8 = 129;
}

/// What an event has beside what every event has.
mod flag {
    pub(super) const MANAGER: u8 = 1;
    pub(super) const KEY: u8 = 2;
    pub(super) const CAUSE: u8 = 4;
    pub(super) const TRACE: u8 = 8;
    pub(super) const TIMEOUT: u8 = 16;
    pub(super) const HEADERS: u8 = 32;
    pub(super) const TRIED: u8 = 64;
    /// No flag has this one.
    pub(super) const UNKNOWN: u8 = 128;
}

/// The first byte of an outcome.
mod outcome {
    pub(super) const VALUE: u8 = 0;
    pub(super) const FAILURE: u8 = 1;
    pub(super) const ERROR: u8 = 2;
}

/// The bit of a payload's length that says that it is JSON.
const JSON: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;

    use super::*;

    fn id(process: u64, sequence: u64) -> EventId {
        EventId::from_parts(process, sequence).expect("not zero")
    }

    fn event(writer: &mut Writer, head: &EventHead<'_>, payload: &[u8]) {
        let put = |out: &mut Vec<u8>| {
            out.extend_from_slice(payload);
            Ok::<_, Infallible>(())
        };
        assert_eq!(writer.event(head, put), Ok(payload.len()));
    }

    fn read(body: &Bytes) -> Vec<Item<'_>> {
        Reader::new(body).collect::<Result<_, _>>().expect("it can be read")
    }

    #[test]
    fn what_events_have_in_common_is_written_once() {
        let mut writer = Writer::new();
        let head = |name, sequence| EventHead::new(name, id(7, sequence), Encoding::MessagePack);
        event(&mut writer, &head("quake.recorded", 100), &[1; 64]);
        let first = writer.len();
        event(&mut writer, &head("quake.recorded", 101), &[2; 64]);
        assert_eq!(writer.len() - first, 64 + 9);
        event(&mut writer, &head("risk.changed", 102), &[]);
        event(&mut writer, &head("quake.recorded", 103), &[]);
        let indices: Vec<_> = read(&writer.take())
            .iter()
            .map(|item| match item {
                Item::Event(event) => (event.name.index, event.name.text.to_owned(), event.id.sequence()),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [
            (0, "quake.recorded", 100),
            (0, "quake.recorded", 101),
            (1, "risk.changed", 102),
            (0, "quake.recorded", 103),
        ];
        assert_eq!(indices, expected.map(|(index, name, sequence)| (index, name.to_owned(), sequence)));
    }

    #[test]
    fn the_next_body_can_be_read_alone() {
        let mut writer = Writer::new();
        let headers = {
            let mut headers = Headers::default();
            headers.insert("a", "b").expect("fits");
            headers
        };
        let head = EventHead {
            manager: Some("risk"),
            cause: Some(id(8, 1)),
            headers: Some(&headers),
            ..EventHead::new("quake.recorded", id(7, 100), Encoding::Json)
        };
        event(&mut writer, &head, b"1");
        let first = writer.take();
        assert!(writer.is_empty());
        event(&mut writer, &head, b"1");
        assert_eq!(writer.take(), first);
    }

    #[test]
    fn a_payload_that_cannot_be_written_leaves_nothing_behind() {
        let mut writer = Writer::new();
        let head = EventHead::new("quake.recorded", id(7, 100), Encoding::Json);
        let fail = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"half");
            Err("cannot")
        };
        event(&mut writer, &head, b"1");
        let length = writer.len();
        let other = EventHead::new("other", id(9, 9), Encoding::Json);
        assert_eq!(writer.event(&other, fail), Err(Unwritten::Payload("cannot")));
        assert_eq!(writer.request(1, &other, fail), Err(Unwritten::Payload("cannot")));
        assert_eq!(writer.open(&other, Grant::default(), fail), Err(Unwritten::Payload("cannot")));
        let panic = std::panic::AssertUnwindSafe(|| {
            writer.event(&other, |out| -> Result<(), Infallible> {
                out.extend_from_slice(b"half");
                std::panic::resume_unwind(Box::new("a payload that panics"))
            })
        });
        assert!(std::panic::catch_unwind(panic).is_err());
        assert_eq!(writer.len(), length);
        // What the refused event would have been the first to name is still written in full.
        event(&mut writer, &other, b"2");
        let body = writer.take();
        let Item::Event(last) = &read(&body)[1] else { panic!("not the event") };
        assert_eq!((last.name.text, last.name.index, last.id), ("other", 1, other.id));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let mut writer = Writer::new();
        let head = EventHead::new("quake.recorded", id(7, 100), Encoding::Json);
        let max = crate::limits::PAYLOAD_BYTES_MAX;
        let put = |bytes| {
            move |out: &mut Vec<u8>| {
                out.resize(out.len() + bytes, 0);
                Ok::<_, Infallible>(())
            }
        };
        let refused = TooLong { bytes: max + 1, max };
        assert_eq!(writer.event(&head, put(max + 1)), Err(Unwritten::TooLong(refused)));
        assert_eq!(writer.data(Encoding::Json, &vec![0; max + 1]), Err(refused));
        let long = "x".repeat(max + 1);
        let fault = Fault { code: "long".into(), message: long.as_str().into(), ..Fault::default() };
        assert!(writer.abort(&fault).is_err());
        assert!(writer.response(1, &Outcome::Error(fault)).is_err());
        let value = Payload::new(Encoding::Json, long.as_bytes());
        assert_eq!(writer.outcome(&Outcome::Value(value)), Err(refused));
        let max = crate::limits::EVENT_TEXTS_BYTES_MAX;
        let wide = EventHead { key: Some(&long[..max]), ..head };
        assert_eq!(writer.event(&wide, put(1)), Err(Unwritten::TooLong(TooLong { bytes: max + 14, max })));
        assert!(writer.is_empty());
        assert_eq!(writer.event(&head, put(crate::limits::PAYLOAD_BYTES_MAX)), Ok(crate::limits::PAYLOAD_BYTES_MAX));
    }

    #[test]
    fn a_payload_shares_the_memory_of_its_body() {
        let mut writer = Writer::new();
        event(&mut writer, &EventHead::new("a", id(1, 1), Encoding::MessagePack), b"payload");
        let body = writer.take();
        let Item::Event(event) = &read(&body)[0] else { panic!("not the event") };
        let payload = event.payload.to_body(&body);
        assert_eq!(payload.bytes, "payload");
        assert!(body.as_ptr_range().contains(&payload.bytes.as_ptr()));
    }
}
