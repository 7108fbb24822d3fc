//! What is asked, and what is answered.

use std::collections::BTreeMap;

use edri_events::{EventId, EventName, Kind, ManagerName, data, event};
use edri_router::{GroupName, Reason, Topology};
use serde_json::Value;

/// Asks what the node is doing.
#[event(request, name = "edri.node.describe", response = Topology, timeout = "10s", idempotent, crate = edri_events)]
#[derive(Debug, Clone, Default)]
pub struct Describe {
    /// With its subscriptions, at most 1,000.
    #[serde(default)]
    pub subscriptions: bool,
    /// With the groups of other nodes and what waits for them, at most 1,000.
    #[serde(default)]
    pub remote: bool,
}

/// Asks for a page of the events that the node knows, in the order of their names.
#[event(request, name = "edri.event.list", response = EventPage, timeout = "10s", idempotent, crate = edri_events)]
#[derive(Debug, Clone, Default)]
pub struct EventList {
    /// Only those that this pattern selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// With their JSON Schemas.
    #[serde(default)]
    pub schemas: bool,
    /// Only those behind this name: [`EventPage::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most: 1 to 1,000, 100 by default. A page ends earlier when it has 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of events.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// The events.
    pub events: Vec<EventView>,
    /// What to ask for the next page with as [`EventList::after`]; without it, this is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An event that a node knows.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
pub struct EventView {
    /// Its name.
    pub name: EventName,
    /// Its kind: `notification`, `request` or `tunnel`.
    pub kind: Kind,
    /// The field whose value is its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The time to live of a notification, the time-out of a request, the idle time-out of a tunnel, in milliseconds, when the event
    /// declares one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// Whether a request may be tried again elsewhere.
    pub idempotent: bool,
    /// What its author says of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether it says itself that it may be reached from outside.
    pub exposed: bool,
    /// Its own HTTP routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<String>,
    /// Its JSON Schemas by what they are of: `event`, `output`, `up`, `down`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schemas: Option<Value>,
}

/// Asks for a page of the dead letters that the node keeps, the newest first.
#[event(request, name = "edri.dead_letter.list", response = DeadLetterPage, timeout = "10s", idempotent, crate = edri_events)]
#[derive(Debug, Clone, Default)]
pub struct DeadLetterList {
    /// Only of events that this pattern selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Only those for this group: `risk`, `subscription.7`, `north/risk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Only those for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Only those older than this number: [`DeadLetterPage::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// How many at most: 1 to 1,000, 100 by default. A page ends earlier when it has 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of dead letters.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterPage {
    /// The dead letters, the newest first.
    pub letters: Vec<DeadLetterView>,
    /// What to ask for the next page with as [`DeadLetterList::before`]; without it, this is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// How many the node keeps, whatever was asked for.
    pub kept: u64,
}

/// A dead letter.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterView {
    /// Its number on its node.
    pub number: u64,
    /// When it became one, in milliseconds since 1970.
    pub at_ms: u64,
    /// The event's name.
    pub event: EventName,
    /// The event's id.
    pub event_id: EventId,
    /// The event's kind.
    pub kind: Kind,
    /// The event's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The group it was for.
    pub group: GroupName,
    /// Why it ended.
    pub reason: Reason,
    /// The reason in words.
    pub detail: String,
    /// How often a worker had it.
    pub attempts: u32,
}

/// Asks for one dead letter with its payload. Refused with `unknown_letter`.
#[event(request, name = "edri.dead_letter.show", response = ShownDeadLetter, timeout = "10s", idempotent, crate = edri_events)]
#[derive(Debug, Clone)]
pub struct ShowDeadLetter {
    /// Its number.
    pub number: u64,
}

/// A dead letter with all that is known of its event.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
pub struct ShownDeadLetter {
    /// The dead letter.
    pub letter: DeadLetterView,
    /// Who sent the event: `node` or `node/manager`.
    pub origin: String,
    /// The event in whose handling it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
    /// Its headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The payload; nothing when it cannot be written as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
    /// Why there is no payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// Delivers dead letters again, each to the group it was for, in this order.
#[event(request, name = "edri.dead_letter.resend", response = Vec<Resent>, timeout = "60s", crate = edri_events)]
#[derive(Debug, Clone)]
pub struct ResendDeadLetters {
    /// Their numbers: 1,000 at most.
    pub numbers: Vec<u64>,
}

/// What came of resending a dead letter. What is not in the answer was not tried, because the time was over.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resent {
    /// Its number.
    pub number: u64,
    /// Why it was not delivered again; nothing when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Takes dead letters from the list for good.
#[event(request, name = "edri.dead_letter.drop", response = Dropped, timeout = "10s", idempotent, crate = edri_events)]
#[derive(Debug, Clone)]
pub struct DropDeadLetters {
    /// Their numbers: 1,000 at most.
    pub numbers: Vec<u64>,
}

/// What was dropped.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// How many of them were kept.
    pub dropped: u64,
}

/// Stops the node in good order: it takes no new events, tells the other nodes, finishes what it has within its drain limit, and
/// ends. Answered before that begins.
#[event(request, name = "edri.node.drain", response = Draining, timeout = "10s", crate = edri_events)]
#[derive(Debug, Clone, Default)]
pub struct DrainNode {}

/// A node is stopping.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draining {
    /// The node.
    pub node: String,
    /// How long it may go on at most, in milliseconds.
    pub limit_ms: u64,
}

/// Takes a manager off the node: no new events, those it has are finished within the node's drain limit. Refused with
/// `unknown_manager`, and with `reserved` for the manager that answers this. Dropped or timed out, it goes on all the same.
#[event(request, name = "edri.manager.drain", response = ManagerDrained, timeout = "10m", crate = edri_events)]
#[derive(Debug, Clone)]
pub struct DrainManager {
    /// Its name.
    pub manager: String,
}

/// A manager is off its node.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerDrained {
    /// Its name.
    pub manager: ManagerName,
    /// Events that no worker had; dead letters now.
    pub undelivered: u64,
    /// Events that were in a worker's hands when it was ended.
    pub interrupted: u64,
    /// Worker threads that did not return from their handler.
    pub stuck: u64,
}
