//! The frames. Each is a map of one entry: the frame's name and its fields.

use std::collections::BTreeMap;
use std::fmt;

use edri_events::{EventId, TraceContext};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::declaration::EventDeclaration;
use crate::{Payload, Text, reading};

macro_rules! frames {
    ($( $(#[$doc:meta])* $variant:ident($content:ty) = $name:literal, )*) => {
        /// One frame. Written as `{"name": {fields}}`, in MessagePack or JSON.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[non_exhaustive]
        #[allow(clippy::large_enum_variant, reason = "the large ones are the frequent ones; a box would cost each of them")]
        pub enum Frame<'a> {
            $( $(#[$doc])* #[serde(rename = $name)] $variant($content), )*
            /// A frame of this name, which this version does not know.
            #[serde(skip)]
            Unknown(Text<'a>),
        }

        impl Frame<'_> {
            /// The names of all frames that this version knows.
            pub const NAMES: &'static [&'static str] = &[$( $name ),*];

            /// The frame's name.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $( Self::$variant(_) => $name, )*
                    Self::Unknown(name) => name,
                }
            }
        }

        impl<'de> Visitor<'de> for FrameVisitor {
            type Value = Frame<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of one entry: the frame's name and its fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Frame<'de>, A::Error> {
                let Some(name) = map.next_key::<Text<'de>>()? else {
                    return Err(serde::de::Error::custom("the frame has no name"));
                };
                let frame = match &*name {
                    $( $name => Frame::$variant(map.next_value_seed(reading::Fields::new())?), )*
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                        Frame::Unknown(name)
                    }
                };
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(frame),
                    Some(_) => Err(serde::de::Error::custom("a frame has one name")),
                }
            }
        }
    };
}

struct FrameVisitor;

impl<'de: 'a, 'a> Deserialize<'de> for Frame<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FrameVisitor)
    }
}

frames! {
    /// First of all, from the side that connects: who it is and what it handles.
    Hello(Hello<'a>) = "hello",
    /// The answer to `hello`: from now on calls may be made.
    Welcome(Welcome<'a>) = "welcome",
    /// The worker has started and takes events.
    Ready(Ready) = "ready",
    /// Events that the sender is about to use.
    Declare(Declare) = "declare",
    /// The sender wants notifications.
    Subscribe(Subscribe<'a>) = "subscribe",
    /// It wants them no more.
    Unsubscribe(Unsubscribe) = "unsubscribe",
    /// Events that a subscription did not get.
    Missed(Missed) = "missed",
    /// A notification.
    Publish(Call<'a>) = "publish",
    /// A request.
    Request(Call<'a>) = "request",
    /// Opens a tunnel.
    Open(Call<'a>) = "open",
    /// What came of a call.
    Response(Response<'a>) = "response",
    /// Calls without a value that have succeeded, and how far the receiver is.
    Ack(Ack) = "ack",
    /// The caller waits no more.
    Cancel(Cancel) = "cancel",
    /// An item in a tunnel.
    Data(Data<'a>) = "data",
    /// More may be sent in a tunnel.
    Credit(Credit) = "credit",
    /// Nothing more comes in this direction of a tunnel.
    End(End) = "end",
    /// A tunnel breaks, in both directions.
    Abort(Abort<'a>) = "abort",
    /// How many calls may be open; replaces what `hello` or `welcome` said.
    Window(Window) = "window",
    /// Are you there?
    Ping(Ping) = "ping",
    /// Yes.
    Pong(Pong) = "pong",
    /// A line for the node's log.
    Log(Log<'a>) = "log",
    /// How a worker says it is.
    Report(Report<'a>) = "report",
    /// Something the sender was sent is wrong.
    Error(Notice<'a>) = "error",
    /// Nothing new comes from the sender.
    Bye(Bye<'a>) = "bye",
}

/// As what a peer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// It handles events.
    Worker,
    /// It only sends and subscribes.
    Client,
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// The version of the protocol.
    pub version: u32,
    /// As what it comes.
    pub role: Role,
    /// The program and its version, for people: `edri-sdk-python 0.1.0`.
    #[serde(borrow, default, deserialize_with = "reading::or_default")]
    pub agent: Text<'a>,
    /// The events that it handles or sends.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "reading::events")]
    pub events: Vec<EventDeclaration>,
    /// What it handles. A call names the handler by its place in this list, from 0.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "reading::handlers")]
    pub handlers: Vec<Handler<'a>>,
    /// How many calls it takes before it has answered earlier ones.
    #[serde(default, deserialize_with = "reading::or_default")]
    pub window: Window,
    /// How many of them it handles at once; zero is one.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub concurrency: u32,
    /// The manager that a worker over a network works for. A process need not say it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<Text<'a>>,
    /// What a client is let in with, if it could not send it before: a browser sets no headers.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Text<'a>>,
    /// The client wants a session that outlives its connection.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Resume<'a>>,
}

/// A session that a client asks for: a new one, or that of an earlier connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resume<'a> {
    /// The session to go on with; a new one when there is none.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Text<'a>>,
    /// How many frames of it the client has received.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub received: u64,
}

/// The session that a client has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session<'a> {
    /// What names it: whoever knows it may go on with it.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// How long it is kept without a connection, in milliseconds.
    pub keep_ms: u64,
    /// Whether it is the one that was asked for: nothing of it was lost.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub resumed: bool,
    /// How many frames of the client the node has received in it.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub received: u64,
}

/// What one handler takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handler<'a> {
    /// The name of an event, or a pattern: `quake.*` for one more segment, `quake.>` for the rest of the name.
    #[serde(borrow)]
    pub select: Text<'a>,
}

/// How many calls the sender takes before it has answered earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// So many calls.
    #[serde(default = "Window::default_calls", deserialize_with = "Window::read_calls")]
    pub calls: u32,
    /// So many bytes of payload; a call larger than all of it is made alone.
    #[serde(default = "Window::default_bytes", deserialize_with = "Window::read_bytes")]
    pub bytes: u64,
}

impl Window {
    const fn default_calls() -> u32 {
        64
    }

    const fn default_bytes() -> u64 {
        8 << 20
    }

    fn read_calls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or_else(Self::default_calls))
    }

    fn read_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or_else(Self::default_bytes))
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { calls: Self::default_calls(), bytes: Self::default_bytes() }
    }
}

/// Who was reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome<'a> {
    /// The version of the protocol that is spoken from now on.
    pub version: u32,
    /// The node.
    #[serde(borrow)]
    pub node: Text<'a>,
    /// This life of the node.
    #[serde(borrow)]
    pub incarnation: Text<'a>,
    /// The manager that the worker works for.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<Text<'a>>,
    /// Which of the manager's instances it is, from 0.
    #[serde(default, deserialize_with = "reading::or_default")]
    pub instance: u32,
    /// The sender is lost when nothing came from it for so long, in milliseconds; it sends something at least three times
    /// as often, and expects the same.
    pub silence_ms: u64,
    /// The longest frame it takes.
    pub frame_bytes_max: u64,
    /// How many calls it takes at once.
    #[serde(default, deserialize_with = "reading::or_default")]
    pub window: Window,
    /// What the worker is made with.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Payload<'a>>,
    /// The session of a client that has asked for one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session<'a>>,
}

/// The worker has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ready {}

/// Events that the sender is about to use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declare {
    /// The events.
    #[serde(deserialize_with = "reading::events")]
    pub events: Vec<EventDeclaration>,
}

/// The sender wants notifications. They come as `publish` with this number as their `subscription`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscribe<'a> {
    /// The number of the subscription, from those of calls.
    pub id: u64,
    /// The name of an event, or a pattern.
    #[serde(borrow)]
    pub select: Text<'a>,
    /// Only events of this key.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Text<'a>>,
    /// Only events for whose payload these hold.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Payload<'a>>,
    /// How many events are kept for a subscriber that is slow; as many as the receiver likes when zero.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub capacity: u32,
    /// What happens when more of them come.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub slow: Slow,
    /// How many events may be sent before more are granted; as many as the connection takes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<u64>,
    /// First so many past events that it wants, of a history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// First what came after this place in a history, or after the event of this id: the last that the sender has had.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Text<'a>>,
}

/// What becomes of a subscriber that is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Slow {
    /// The oldest events make room, and it is told how many: [`Missed`].
    #[default]
    Missed,
    /// It is disconnected.
    Bye,
}

/// The end of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// The number of the subscription.
    pub id: u64,
}

/// Events that a subscription did not get, between those before this frame and those behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The number of the subscription.
    pub id: u64,
    /// How many; absent when nobody knows whether and how many, because the place to go on from is none of the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// An event on its way to whoever handles it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Call<'a> {
    /// The number of the call: odd from the side that said `hello`, even from the other, growing. Zero in a `publish` that
    /// wants no answer.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub id: u64,
    /// The event's name.
    #[serde(borrow)]
    pub event: Text<'a>,
    /// The event's fields.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload<'a>>,
    /// Which of the receiver's handlers it is for.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub handler: u32,
    /// The event's id; a fresh one when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// Who sent it: `node/manager`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Text<'a>>,
    /// From a node the event's key, from a worker one chosen instead of the event's own.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Text<'a>>,
    /// The event that made this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
    /// How much time is left, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Where the event stands in a trace, as W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// What the sender adds.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "reading::headers")]
    pub headers: BTreeMap<Text<'a>, Text<'a>>,
    /// How often the event has been tried before.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub tried: u32,
    /// Whether a worker that was lost may have handled the event already, wholly or in part.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub redelivered: bool,
    /// The manager that is asked; of a request.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Text<'a>>,
    /// Whether every manager that answers is asked; of a request. Each answers with a `response` of its own.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub all: bool,
    /// What the opener of a tunnel is ready to take before it gives credit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<Grant>,
    /// The subscription that a `publish` is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<u64>,
    /// Its place in the history that the subscription reads.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Text<'a>>,
}

/// How much may be sent in one direction of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Grant {
    /// So many items.
    #[serde(default, deserialize_with = "reading::or_default")]
    pub items: u64,
    /// So many bytes of payload. An item may be sent while any are left, so it may take more than there were.
    #[serde(default, deserialize_with = "reading::or_default")]
    pub bytes: u64,
}

/// What came of a call: a value, the handler's failure, or an error of edri.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Response<'a> {
    /// The number of the call.
    pub id: u64,
    /// The value; also the value of a call that has none.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Payload<'a>>,
    /// The handler could not do what the event asked. The code is its own.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Fault<'a>>,
    /// There is no value because of edri, or of a worker that was lost.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault<'a>>,
    /// The manager that answers, when all were asked.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Text<'a>>,
    /// Whether more responses follow. The last one, when all were asked, has no `from` and no value.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "reading::or_default")]
    pub more: bool,
}

/// Why something did not come about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fault<'a> {
    /// A stable code, which programs compare.
    #[serde(borrow)]
    pub code: Text<'a>,
    /// A text for people.
    #[serde(borrow, default, deserialize_with = "reading::or_default")]
    pub message: Text<'a>,
    /// More of it for people, as the traceback of an exception.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Text<'a>>,
    /// What was waited for, when that is why.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait<'a>>,
    /// What is wrong with a payload, field by field.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "reading::field_faults")]
    pub errors: Vec<FieldFault<'a>>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FieldFault<'a> {
    /// The way to it: `lines[2].amount`; empty for the whole payload.
    #[serde(borrow, default, deserialize_with = "reading::or_default")]
    pub field: Text<'a>,
    /// A text for people.
    #[serde(borrow, default, deserialize_with = "reading::or_default")]
    pub message: Text<'a>,
}

/// A wait that ended without what it waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wait<'a> {
    /// How long it lasted.
    pub waited_ms: u64,
    /// What was waited for: names of managers, `subscription.7` for a subscription.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "reading::texts")]
    pub groups: Vec<Text<'a>>,
    /// Managers that wait for one another in a circle.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "reading::texts")]
    pub cycle: Vec<Text<'a>>,
}

/// Calls without a value that have succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ack {
    /// Their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "reading::acks")]
    pub done: Vec<u64>,
    /// All calls up to this number have been begun; those behind it have not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
    /// How many frames of a session the sender has received. A frame with this says nothing else and is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
}

/// The caller waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The number of the call.
    pub id: u64,
}

/// An item in a tunnel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data<'a> {
    /// The number of the `open`.
    pub id: u64,
    /// The item.
    #[serde(borrow)]
    pub payload: Payload<'a>,
}

/// More may be sent in a tunnel or to a subscription; it adds to what was granted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// The number of the `open` or `subscribe`.
    pub id: u64,
    /// So many items more.
    #[serde(default, deserialize_with = "reading::or_default")]
    pub items: u64,
    /// So many bytes of payload more.
    #[serde(default, deserialize_with = "reading::or_default")]
    pub bytes: u64,
}

/// Nothing more comes in this direction of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The number of the `open`.
    pub id: u64,
}

/// A tunnel breaks in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort<'a> {
    /// The number of the `open`.
    pub id: u64,
    /// Why.
    #[serde(borrow)]
    pub failure: Fault<'a>,
}

/// Are you there?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in the `pong`.
    #[serde(default, deserialize_with = "reading::or_default")]
    pub id: u64,
}

/// Yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pong {
    /// That of the `ping`.
    #[serde(default, deserialize_with = "reading::or_default")]
    pub id: u64,
}

/// How much a line in the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The finest detail.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// Worth knowing.
    Info,
    /// Something may be wrong.
    Warn,
    /// Something is wrong.
    Error,
}

/// A line for the node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log<'a> {
    /// How much it matters.
    pub level: Level,
    /// The line.
    #[serde(borrow)]
    pub message: Text<'a>,
    /// The part of the program that says so.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Text<'a>>,
    /// The event that was being handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
}

/// How a worker says it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report<'a> {
    /// Its health.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health<'a>>,
    /// Figures of its own; each replaces the one of its name.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "reading::figures")]
    pub figures: BTreeMap<Text<'a>, f64>,
}

/// A worker's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "because")]
pub enum Health<'a> {
    /// All is well.
    Good,
    /// It works, but not as it should.
    #[serde(borrow)]
    Degraded(Text<'a>),
    /// It does not work.
    #[serde(borrow)]
    Bad(Text<'a>),
}

/// Something the sender was sent is wrong. Nothing else happens because of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice<'a> {
    /// A stable code.
    #[serde(borrow)]
    pub code: Text<'a>,
    /// A text for people that says what to do.
    #[serde(borrow, default, deserialize_with = "reading::or_default")]
    pub message: Text<'a>,
    /// The name of the frame that is wrong.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<Text<'a>>,
    /// The number of the call that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
}

/// Nothing new comes from the sender. From a node: finish what is open, say `bye` too, and end. From a worker: it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bye<'a> {
    /// Why the worker ends, when it should not: it could not start, for one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault<'a>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
