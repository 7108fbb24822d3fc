//! Packets and items in a form that stands in JSON, for the vectors, and that is made at random, for property tests.

use std::collections::BTreeMap;

use bytes::Bytes;
use edri_events::{Encoding, EventId, Headers, Incarnation, TraceContext};
use edri_protocol::items::{Event, Interned, Item, Keys, Outcome, Reader, Writer};
use edri_protocol::packet::{Destination, GroupCredit, Header, Lane, LaneAck, Packet, Signal, SignalKind};
use edri_protocol::{Fault, Grant, Payload};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fuzz_packet::{Texts, write};

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2) && digits.is_ascii(), "{digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

// ---- packets -------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum PacketForm {
    Data {
        origin: String,
        lane: LaneForm,
        hops: u8,
        age_ms: u32,
        redelivered: bool,
        destinations: Vec<DestinationForm>,
        body: String,
    },
    Ack {
        origin: String,
        to: String,
        hops: u8,
        session: u32,
        lanes: Vec<LaneAckForm>,
        credits: Vec<CreditForm>,
    },
    Query {
        origin: String,
        to: String,
        hops: u8,
        session: u32,
    },
    Probe {
        origin: String,
        to: String,
        hops: u8,
        number: u64,
    },
    Alive {
        origin: String,
        to: String,
        hops: u8,
        number: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LaneForm {
    High,
    Normal,
    Up(u64),
    Down(u64),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DestinationForm {
    node: String,
    session: u32,
    sequence: u64,
    base: u64,
    groups: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LaneAckForm {
    lane: LaneForm,
    next: u64,
    held: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreditForm {
    group: u32,
    events: u64,
    bytes: u64,
}

fn life(text: &str) -> Incarnation {
    let number = u64::from_str_radix(text, 16).expect("hexadecimal digits");
    Incarnation::from_number(number).expect("not zero")
}

impl From<LaneForm> for Lane {
    fn from(lane: LaneForm) -> Self {
        match lane {
            LaneForm::High => Self::High,
            LaneForm::Normal => Self::Normal,
            LaneForm::Up(tunnel) => Self::Up(tunnel),
            LaneForm::Down(tunnel) => Self::Down(tunnel),
        }
    }
}

impl From<Lane> for LaneForm {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::High => Self::High,
            Lane::Normal => Self::Normal,
            Lane::Up(tunnel) => Self::Up(tunnel),
            Lane::Down(tunnel) => Self::Down(tunnel),
        }
    }
}

impl PacketForm {
    pub(crate) fn to_packet(&self) -> Packet {
        let signal = |origin: &str, to: &str, hops: &u8, kind| {
            Packet::Signal(Signal { origin: life(origin), to: life(to), hops: *hops, kind })
        };
        match self.clone() {
            Self::Data { origin, lane, hops, age_ms, redelivered, destinations, body } => {
                let destination = |DestinationForm { node, session, sequence, base, groups }| {
                    let node = life(&node);
                    Destination { node, session, sequence, base, groups }
                };
                let destinations = destinations.into_iter().map(destination).collect();
                let (origin, lane) = (life(&origin), lane.into());
                let header = Header { origin, lane, hops, age_ms, redelivered, destinations };
                Packet::Data { header, body: Bytes::from(unhex(&body)) }
            }
            Self::Ack { origin, to, hops, session, lanes, credits } => {
                let lane = |LaneAckForm { lane, next, held }| LaneAck { lane: lane.into(), next, held };
                let credit = |CreditForm { group, events, bytes }| GroupCredit { group, events, bytes };
                let lanes = lanes.into_iter().map(lane).collect();
                let credits = credits.into_iter().map(credit).collect();
                signal(&origin, &to, &hops, SignalKind::Ack { session, lanes, credits })
            }
            Self::Query { origin, to, hops, session } => signal(&origin, &to, &hops, SignalKind::Query { session }),
            Self::Probe { origin, to, hops, number } => signal(&origin, &to, &hops, SignalKind::Probe { number }),
            Self::Alive { origin, to, hops, number } => signal(&origin, &to, &hops, SignalKind::Alive { number }),
        }
    }

    pub(crate) fn of(packet: Packet) -> Self {
        let Signal { origin, to, hops, kind } = match packet {
            Packet::Data { header, body } => {
                let Header { origin, lane, hops, age_ms, redelivered, destinations } = header;
                let destination = |Destination { node, session, sequence, base, groups }| {
                    let node = node.to_string();
                    DestinationForm { node, session, sequence, base, groups }
                };
                let destinations = destinations.into_iter().map(destination).collect();
                let (origin, lane, body) = (origin.to_string(), lane.into(), hex(&body));
                return Self::Data { origin, lane, hops, age_ms, redelivered, destinations, body };
            }
            Packet::Signal(signal) => signal,
        };
        let (origin, to) = (origin.to_string(), to.to_string());
        match kind {
            SignalKind::Ack { session, lanes, credits } => {
                let lane = |LaneAck { lane, next, held }| LaneAckForm { lane: lane.into(), next, held };
                let credit = |GroupCredit { group, events, bytes }| CreditForm { group, events, bytes };
                let lanes = lanes.into_iter().map(lane).collect();
                let credits = credits.into_iter().map(credit).collect();
                Self::Ack { origin, to, hops, session, lanes, credits }
            }
            SignalKind::Query { session } => Self::Query { origin, to, hops, session },
            SignalKind::Probe { number } => Self::Probe { origin, to, hops, number },
            SignalKind::Alive { number } => Self::Alive { origin, to, hops, number },
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.to_packet().encode(&mut bytes);
        bytes
    }
}

// ---- items ---------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ItemForm {
    Event(EventForm),
    Request { call: u64, event: EventForm },
    Open { event: EventForm, credit: Grant },
    Response { call: u64, outcome: OutcomeForm },
    Cancel { call: u64 },
    Data(PayloadForm),
    Grant(Grant),
    End,
    Abort(Value),
    Outcome(OutcomeForm),
    Left { group: u32 },
    Differs { event: String, why: String },
    Keys { manager: String, version: u64, member: bool, owned: u64, releasing: u64, claiming: u64 },
    Noted { manager: String, version: u64, agreed: u64 },
    Unknown { kind: u8 },
}

/// A fault is the JSON of its frame form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeForm {
    Value(PayloadForm),
    Failure(Value),
    Error(Value),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PayloadForm {
    encoding: Encoding,
    bytes: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventForm {
    name: String,
    id: EventId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manager: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<TraceContext>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    tried: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    redelivered: bool,
    payload: PayloadForm,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The body of these items.
pub(crate) fn body_of(items: &[ItemForm]) -> Bytes {
    let mut writer = Writer::new();
    for item in items {
        item.with(|item| write(&mut writer, &item));
    }
    writer.take()
}

/// The items of a body.
pub(crate) fn items_of(body: &[u8]) -> Vec<ItemForm> {
    let mut texts = Texts::default();
    let items = Reader::new(body).map(|item| item.unwrap_or_else(|error| panic!("{error}: {}", hex(body))));
    items.inspect(|item| texts.see(item)).map(ItemForm::of).collect()
}

impl ItemForm {
    fn of(item: Item<'_>) -> Self {
        match item {
            Item::Event(event) => Self::Event(EventForm::of(&event)),
            Item::Request { call, event } => Self::Request { call, event: EventForm::of(&event) },
            Item::Open { event, credit } => Self::Open { event: EventForm::of(&event), credit },
            Item::Response { call, outcome } => Self::Response { call, outcome: OutcomeForm::of(&outcome) },
            Item::Cancel { call } => Self::Cancel { call },
            Item::Data(payload) => Self::Data(PayloadForm::of(&payload)),
            Item::Grant(grant) => Self::Grant(grant),
            Item::End => Self::End,
            Item::Abort(fault) => Self::Abort(serde_json::to_value(fault).expect("JSON")),
            Item::Outcome(outcome) => Self::Outcome(OutcomeForm::of(&outcome)),
            Item::Left { group } => Self::Left { group },
            Item::Differs { event, why } => Self::Differs { event: event.to_owned(), why: why.to_owned() },
            Item::Keys(Keys { manager, version, member, owned, releasing, claiming }) => {
                Self::Keys { manager: manager.to_owned(), version, member, owned, releasing, claiming }
            }
            Item::Noted { manager, version, agreed } => Self::Noted { manager: manager.to_owned(), version, agreed },
            Item::Unknown { kind } => Self::Unknown { kind },
        }
    }

    /// Calls `with` with the item. An unknown one is not written by anybody here.
    fn with<T>(&self, with: impl FnOnce(Item<'_>) -> T) -> T {
        match self {
            Self::Event(event) => event.with(|event| with(Item::Event(event))),
            Self::Request { call, event } => event.with(|event| with(Item::Request { call: *call, event })),
            Self::Open { event, credit } => event.with(|event| with(Item::Open { event, credit: *credit })),
            Self::Response { call, outcome } => outcome.with(|outcome| with(Item::Response { call: *call, outcome })),
            Self::Cancel { call } => with(Item::Cancel { call: *call }),
            Self::Data(payload) => payload.with(|payload| with(Item::Data(payload))),
            Self::Grant(grant) => with(Item::Grant(*grant)),
            Self::End => with(Item::End),
            Self::Abort(fault) => with_fault(fault, |fault| with(Item::Abort(fault))),
            Self::Outcome(outcome) => outcome.with(|outcome| with(Item::Outcome(outcome))),
            Self::Left { group } => with(Item::Left { group: *group }),
            Self::Differs { event, why } => with(Item::Differs { event, why }),
            Self::Keys { manager, version, member, owned, releasing, claiming } => with(Item::Keys(Keys {
                manager,
                version: *version,
                member: *member,
                owned: *owned,
                releasing: *releasing,
                claiming: *claiming,
            })),
            Self::Noted { manager, version, agreed } => {
                with(Item::Noted { manager, version: *version, agreed: *agreed })
            }
            Self::Unknown { kind } => with(Item::Unknown { kind: *kind }),
        }
    }
}

fn with_fault<T>(fault: &Value, with: impl FnOnce(Fault<'_>) -> T) -> T {
    with(serde_json::from_str(&fault.to_string()).expect("a fault"))
}

impl OutcomeForm {
    fn of(outcome: &Outcome<'_>) -> Self {
        match outcome {
            Outcome::Value(value) => Self::Value(PayloadForm::of(value)),
            Outcome::Failure(fault) => Self::Failure(serde_json::to_value(fault).expect("JSON")),
            Outcome::Error(fault) => Self::Error(serde_json::to_value(fault).expect("JSON")),
        }
    }

    fn with<T>(&self, with: impl FnOnce(Outcome<'_>) -> T) -> T {
        match self {
            Self::Value(value) => value.with(|value| with(Outcome::Value(value))),
            Self::Failure(fault) => with_fault(fault, |fault| with(Outcome::Failure(fault))),
            Self::Error(fault) => with_fault(fault, |fault| with(Outcome::Error(fault))),
        }
    }
}

impl PayloadForm {
    fn of(payload: &Payload<'_>) -> Self {
        Self { encoding: payload.encoding(), bytes: hex(payload.bytes()) }
    }

    fn with<T>(&self, with: impl FnOnce(Payload<'_>) -> T) -> T {
        with(Payload::new(self.encoding, &unhex(&self.bytes)))
    }
}

impl EventForm {
    fn of(event: &Event<'_>) -> Self {
        Self {
            name: event.name.text.to_owned(),
            id: event.id,
            manager: event.manager.map(|manager| manager.text.to_owned()),
            key: event.key.map(str::to_owned),
            cause: event.cause,
            trace: event.trace,
            timeout_ms: event.timeout_ms,
            headers: event.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            tried: event.tried,
            redelivered: event.redelivered,
            payload: PayloadForm::of(&event.payload),
        }
    }

    fn with<T>(&self, with: impl FnOnce(Event<'_>) -> T) -> T {
        let mut headers = Headers::default();
        for (name, value) in &self.headers {
            headers.insert(name, value).expect("within the limits");
        }
        let interned = |text| Interned { index: 0, text };
        self.payload.with(|payload| {
            with(Event {
                name: interned(&self.name),
                id: self.id,
                manager: self.manager.as_deref().map(interned),
                key: self.key.as_deref(),
                cause: self.cause,
                trace: self.trace,
                timeout_ms: self.timeout_ms,
                headers,
                tried: self.tried,
                redelivered: self.redelivered,
                payload,
            })
        })
    }
}

// ---- at random -----------------------------------------------------------------------------------------------------

/// Numbers of every length.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(number, shift)| number >> shift)
}

fn number32() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0_u32..32).prop_map(|(number, shift)| number >> shift)
}

fn a_life() -> impl Strategy<Value = String> {
    (1..u64::MAX).prop_map(|number| format!("{number:016x}"))
}

fn lane() -> impl Strategy<Value = LaneForm> {
    prop_oneof![
        Just(LaneForm::High),
        Just(LaneForm::Normal),
        number().prop_map(LaneForm::Up),
        number().prop_map(LaneForm::Down),
    ]
}

fn lane_ack() -> impl Strategy<Value = LaneAckForm> {
    (lane(), number(), vec((1_u64..1000, 1_u64..1000), 0..5)).prop_map(|(lane, next, gaps)| {
        let next = next / 2;
        let mut end = next;
        let range = |(gap, length)| {
            let from = end + gap;
            end = from + length;
            (from, end)
        };
        LaneAckForm { lane, next, held: gaps.into_iter().map(range).collect() }
    })
}

pub(crate) fn packet() -> BoxedStrategy<PacketForm> {
    let destination = (a_life(), number32(), number(), number(), vec(number32(), 0..4)).prop_map(
        |(node, session, sequence, kept, groups)| {
            let base = sequence.saturating_sub(kept);
            DestinationForm { node, session, sequence, base, groups }
        },
    );
    let header = (a_life(), lane(), any::<u8>(), number32(), any::<bool>(), vec(destination, 0..4));
    let data = (header, vec(item(), 0..6)).prop_map(|(header, items)| {
        let (origin, lane, hops, age_ms, redelivered, destinations) = header;
        let body = hex(&body_of(&items));
        PacketForm::Data { origin, lane, hops, age_ms, redelivered, destinations, body }
    });
    let ends = || (a_life(), a_life(), any::<u8>());
    let credit =
        (number32(), number(), number()).prop_map(|(group, events, bytes)| CreditForm { group, events, bytes });
    let ack = (ends(), number32(), vec(lane_ack(), 0..4), vec(credit, 0..4)).prop_map(
        |((origin, to, hops), session, lanes, credits)| PacketForm::Ack { origin, to, hops, session, lanes, credits },
    );
    let signal =
        (ends(), number32(), number(), 0..3).prop_map(|((origin, to, hops), session, number, kind)| match kind {
            0 => PacketForm::Query { origin, to, hops, session },
            1 => PacketForm::Probe { origin, to, hops, number },
            _ => PacketForm::Alive { origin, to, hops, number },
        });
    prop_oneof![3 => data, 2 => ack, 1 => signal].boxed()
}

fn payload() -> impl Strategy<Value = PayloadForm> {
    let bytes = prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 200..400)];
    (prop_oneof![Just(Encoding::MessagePack), Just(Encoding::Json)], bytes)
        .prop_map(|(encoding, bytes)| PayloadForm { encoding, bytes: hex(&bytes) })
}

/// Few, so that they meet again within a body.
fn a_name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "(quake|risk)\\.[ab]", 1 => "\\PC{0,12}"]
}

fn id() -> impl Strategy<Value = EventId> {
    let process = prop_oneof![6 => 1_u64..4, 2 => 1_u64..20, 1 => 1..u64::MAX];
    let sequence = prop_oneof![4 => 0_u64..300, 1 => any::<u64>()];
    (process, sequence).prop_map(|(process, sequence)| EventId::from_parts(process, sequence).expect("not zero"))
}

fn event() -> BoxedStrategy<EventForm> {
    let trace = (1..u128::MAX, 1..u64::MAX, any::<u8>())
        .prop_map(|(trace, span, flags)| TraceContext::from_parts(trace, span, flags).expect("not zero"));
    let headers = prop_oneof![3 => Just(BTreeMap::new()), 1 => btree_map("[a-z]{0,4}", "\\PC{0,8}", 0..6)];
    let tried = prop_oneof![3 => Just(0), 1 => number32()];
    let what = (a_name(), id(), of(a_name()), of("\\PC{0,8}"), of(id()));
    let how = (of(trace), of(number()), headers, tried, any::<bool>(), payload());
    let form = |(name, id, manager, key, cause), (trace, timeout_ms, headers, tried, redelivered, payload)| EventForm {
        name,
        id,
        manager,
        key,
        cause,
        trace,
        timeout_ms,
        headers,
        tried,
        redelivered,
        payload,
    };
    (what, how).prop_map(move |(what, how)| form(what, how)).boxed()
}

fn fault() -> impl Strategy<Value = Value> {
    let wait = (number(), vec("[a-z]{1,8}", 1..4))
        .prop_map(|(waited_ms, groups)| json!({ "waited_ms": waited_ms, "groups": groups }));
    ("[a-z_]{1,12}", "\\PC{0,20}", of("\\PC{0,40}"), of(wait)).prop_map(|(code, message, detail, wait)| {
        let mut fault = json!({ "code": code, "message": message });
        for (field, value) in [("detail", detail.map(Value::from)), ("wait", wait)] {
            if let Some(value) = value {
                fault[field] = value;
            }
        }
        fault
    })
}

pub(crate) fn item() -> BoxedStrategy<ItemForm> {
    let outcome = || {
        prop_oneof![
            payload().prop_map(OutcomeForm::Value),
            fault().prop_map(OutcomeForm::Failure),
            fault().prop_map(OutcomeForm::Error),
        ]
    };
    let grant = || (number(), number()).prop_map(|(items, bytes)| Grant { items, bytes });
    prop_oneof![
        6 => event().prop_map(ItemForm::Event),
        2 => (number(), event()).prop_map(|(call, event)| ItemForm::Request { call, event }),
        1 => (event(), grant()).prop_map(|(event, credit)| ItemForm::Open { event, credit }),
        1 => (number(), outcome()).prop_map(|(call, outcome)| ItemForm::Response { call, outcome }),
        1 => number().prop_map(|call| ItemForm::Cancel { call }),
        1 => payload().prop_map(ItemForm::Data),
        1 => grant().prop_map(ItemForm::Grant),
        1 => Just(ItemForm::End),
        1 => fault().prop_map(ItemForm::Abort),
        1 => outcome().prop_map(ItemForm::Outcome),
        1 => number32().prop_map(|group| ItemForm::Left { group }),
        1 => (a_name(), "\\PC{0,40}").prop_map(|(event, why)| ItemForm::Differs { event, why }),
        1 => (a_name(), number(), any::<(bool, u64, u64, u64)>()).prop_map(
            |(manager, version, (member, owned, releasing, claiming))| ItemForm::Keys {
                manager, version, member, owned, releasing, claiming,
            }
        ),
        1 => (a_name(), number(), any::<u64>())
            .prop_map(|(manager, version, agreed)| ItemForm::Noted { manager, version, agreed }),
    ]
    .boxed()
}
