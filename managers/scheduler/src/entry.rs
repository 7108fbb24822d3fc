//! What is scheduled: when, what is sent, and under which conditions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};
use edri_events::{Event, Kind, data};
use serde::Serialize;

use crate::plan::Plan;
use crate::{EntryError, Payload};

/// An entry of a scheduler. Made by [`Entry::cron`] and its siblings in Rust, or sent as the payload of `schedule.add`.
///
/// ```
/// # use std::time::Duration;
/// # use edri_events::event;
/// # #[event(request, name = "quake.summarise", response = u64, crate = edri_events)]
/// # struct Summarise {}
/// use edri_scheduler::{Entry, Missed};
///
/// let entry = Entry::cron("0 6 * * MON-FRI", Summarise {})
///     .id("morning")
///     .zone("Europe/Berlin")
///     .missed(Missed::Once)
///     .jitter(Duration::from_secs(30))
///     .publish_response("quake.summary");
/// ```
///
/// As JSON: `{"id": "morning", "when": {"cron": "0 6 * * MON-FRI"}, "zone": "Europe/Berlin", "missed": "once",
/// "jitter_ms": 30000, "send": {"request": {"event": "quake.summarise", "payload": {}, "response": {"publish":
/// "quake.summary"}}}}`.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What the entry is called, 256 bytes at most. An entry of the same id is replaced. Without one, an id is made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it is sent.
    pub when: When,
    /// What is sent.
    pub send: Action,
    /// The time zone of a cron expression and of times without an offset, by its IANA name as `Europe/Berlin`. UTC by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The first run of what repeats is not before this time. An `every_ms` has its first run at this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The last run of what repeats is not after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// How often what repeats is sent at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Each run is later than due by a random time up to so many milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jitter_ms: u64,
    /// What is done about runs that were missed.
    #[serde(default)]
    pub missed: Missed,
    /// With it, of all schedulers that have the entry only one sends each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// What was wrong with it where it was made in Rust; told when it is added.
    #[serde(skip)]
    pub(crate) wrong: Option<String>,
}

/// When an entry is sent.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Once, at this time: as RFC 3339 writes it (`2026-03-29T01:30:00Z`), or without an offset, as the clocks of the
    /// entry's zone show it.
    At(String),
    /// Once, so many milliseconds after it was added, whatever the system's clock does.
    AfterMs(u64),
    /// Every so many milliseconds, counted from when it was added, whatever the system's clock does.
    EveryMs(u64),
    /// Every so many milliseconds, counted from 1970 in UTC: with 900,000, at each full quarter of an hour.
    AlignedMs(u64),
    /// By a cron expression: [`Cron`](crate::Cron).
    Cron(String),
}

/// What is sent.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A notification is published.
    Publish(Publish),
    /// A request is sent.
    Request(Ask),
}

/// A notification to publish.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Its event.
    pub event: String,
    /// Its payload.
    #[serde(default, skip_serializing_if = "Payload::is_empty")]
    pub payload: Payload,
}

/// A request to send.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Its event.
    pub event: String,
    /// Its payload.
    #[serde(default, skip_serializing_if = "Payload::is_empty")]
    pub payload: Payload,
    /// How many milliseconds it may take, instead of the event's own time-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What becomes of its response.
    #[serde(default)]
    pub response: Response,
    /// What is done when it is due while one before it is still running.
    #[serde(default)]
    pub overlap: Overlap,
}

/// What becomes of a response.
#[data(crate = edri_events)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is kept as the entry's last result, if it has no more than 64 KiB.
    #[default]
    Keep,
    /// It is published as the notification of this name.
    Publish(String),
    /// It is of no interest.
    Drop,
}

/// What is done when a request is due while one before it is still running. Of a notification that still waits for room
/// the next is skipped.
#[data(crate = edri_events)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is left out, and counted as skipped.
    #[default]
    Skip,
    /// One waits until the one before it has ended; further ones are skipped.
    Queue,
    /// So many run beside one another; further ones are skipped.
    Beside(u32),
}

/// What is done about runs whose time passed while the node was down or asleep, or that the system's clock jumped over. A run
/// that is no more than ten seconds late is not missed.
#[data(crate = edri_events)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// They are left out, and counted.
    Skip,
    /// The newest of them is sent.
    #[default]
    Once,
    /// All of them are sent, in order, but no more than the newest so many; 1,000 at most.
    All(u32),
}

/// How the schedulers of a cluster agree on who sends a run: whoever is first to write (entry, due time) into a store.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The namespace of the store.
    pub namespace: String,
    /// Whether a run is sent when the store cannot be reached. Then it may be sent twice; otherwise it is not sent.
    #[serde(default)]
    pub at_least_once: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Entry {
    /// Sends this event, a notification or a request, at these times.
    #[must_use]
    pub fn new<E: Event>(when: When, event: E) -> Self {
        let descriptor = E::descriptor();
        let name = descriptor.name().to_string();
        let mut wrong = None;
        let payload = Payload::encode(&event).unwrap_or_else(|error| {
            wrong = Some(error.to_string());
            Payload::default()
        });
        let send = match descriptor.kind() {
            Kind::Notification => Action::Publish(Publish { event: name, payload }),
            Kind::Request => Action::request(name, payload),
            Kind::Tunnel => {
                wrong = Some(format!("`{name}` is a tunnel: schedule a notification or a request"));
                Action::request(name, payload)
            }
        };
        Self { wrong, ..Self::sends(when, send) }
    }

    /// Publishes the notification of this name at these times.
    #[must_use]
    pub fn publish<T: Serialize + ?Sized>(when: When, event: &str, payload: &T) -> Self {
        Self::untyped(when, payload, |payload| Action::Publish(Publish { event: event.to_owned(), payload }))
    }

    /// Sends the request of this name at these times.
    #[must_use]
    pub fn request<T: Serialize + ?Sized>(when: When, event: &str, payload: &T) -> Self {
        Self::untyped(when, payload, |payload| Action::request(event.to_owned(), payload))
    }

    fn untyped<T: Serialize + ?Sized>(when: When, payload: &T, action: impl FnOnce(Payload) -> Action) -> Self {
        let encoded = Payload::encode(payload);
        let wrong = encoded.as_ref().err().map(ToString::to_string);
        Self { wrong, ..Self::sends(when, action(encoded.unwrap_or_default())) }
    }

    fn sends(when: When, send: Action) -> Self {
        Self {
            id: None,
            when,
            send,
            zone: None,
            start: None,
            end: None,
            count: None,
            jitter_ms: 0,
            missed: Missed::default(),
            claim: None,
            wrong: None,
        }
    }

    /// Sends this event by a cron expression.
    #[must_use]
    pub fn cron<E: Event>(expression: &str, event: E) -> Self {
        Self::new(When::cron(expression), event)
    }

    /// Sends this event every so often, counted from when it is added.
    #[must_use]
    pub fn every<E: Event>(interval: Duration, event: E) -> Self {
        Self::new(When::every(interval), event)
    }

    /// Sends this event every so often, counted from 1970 in UTC: each quarter of an hour, each full second.
    #[must_use]
    pub fn aligned<E: Event>(interval: Duration, event: E) -> Self {
        Self::new(When::aligned(interval), event)
    }

    /// Sends this event once, at this time.
    #[must_use]
    pub fn at<E: Event>(time: SystemTime, event: E) -> Self {
        Self::new(When::at(time), event)
    }

    /// Sends this event once, so long after it is added.
    #[must_use]
    pub fn after<E: Event>(delay: Duration, event: E) -> Self {
        Self::new(When::after(delay), event)
    }

    /// Whether a scheduler would take it.
    ///
    /// # Errors
    ///
    /// [`EntryError`] says which part is wrong and what may stand there.
    pub fn check(&self) -> Result<(), EntryError> {
        Plan::of(self).map(|_| ())
    }

    /// What the entry is called; one of the same id is replaced.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// The time zone, by its IANA name as `Europe/Berlin`.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.to_owned());
        self
    }

    /// The first run of what repeats is not before this time.
    #[must_use]
    pub fn start(mut self, time: SystemTime) -> Self {
        self.start = Some(time_text(time));
        self
    }

    /// The last run of what repeats is not after this time.
    #[must_use]
    pub fn end(mut self, time: SystemTime) -> Self {
        self.end = Some(time_text(time));
        self
    }

    /// How often what repeats is sent at most.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Each run is later than due by a random time up to this.
    #[must_use]
    pub fn jitter(mut self, most: Duration) -> Self {
        self.jitter_ms = milliseconds(most);
        self
    }

    /// What is done about missed runs.
    #[must_use]
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// Of all schedulers that have this entry only one sends each run: the first to claim it in this namespace of a store. When the
    /// store cannot be reached, none does.
    #[must_use]
    pub fn at_most_once(mut self, namespace: &str) -> Self {
        self.claim = Some(Claim { namespace: namespace.to_owned(), at_least_once: false });
        self
    }

    /// As [`Entry::at_most_once`], but when the store cannot be reached, every scheduler sends the run.
    #[must_use]
    pub fn at_least_once(mut self, namespace: &str) -> Self {
        self.claim = Some(Claim { namespace: namespace.to_owned(), at_least_once: true });
        self
    }

    /// The response is published as the notification of this name.
    #[must_use]
    pub fn publish_response(self, event: &str) -> Self {
        let event = event.to_owned();
        self.change_request("publish_response", |ask| ask.response = Response::Publish(event))
    }

    /// The response is of no interest. By default it is kept as the entry's last result.
    #[must_use]
    pub fn drop_response(self) -> Self {
        self.change_request("drop_response", |ask| ask.response = Response::Drop)
    }

    /// What is done when the request is due while one before it is still running.
    #[must_use]
    pub fn overlap(self, overlap: Overlap) -> Self {
        self.change_request("overlap", |ask| ask.overlap = overlap)
    }

    /// How long the request may take, instead of the event's own time-out.
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.change_request("timeout", |ask| ask.timeout_ms = Some(milliseconds(limit)))
    }

    fn change_request(mut self, what: &str, change: impl FnOnce(&mut Ask)) -> Self {
        match &mut self.send {
            Action::Request(ask) => change(ask),
            Action::Publish(Publish { event, .. }) => {
                let wrong = format!("`{what}` is for requests, and `{event}` is a notification");
                self.wrong.get_or_insert(wrong);
            }
        }
        self
    }
}

impl When {
    /// At this time.
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        Self::At(time_text(time))
    }

    /// At this local time, as `2026-12-24T18:00`, in the entry's zone.
    #[must_use]
    pub fn at_local(time: &str) -> Self {
        Self::At(time.to_owned())
    }

    /// So long after the entry is added.
    #[must_use]
    pub fn after(delay: Duration) -> Self {
        Self::AfterMs(milliseconds(delay))
    }

    /// Every so often, counted from when the entry is added. Whole milliseconds count.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self::EveryMs(milliseconds(interval))
    }

    /// Every so often, counted from 1970 in UTC. Whole milliseconds count.
    #[must_use]
    pub fn aligned(interval: Duration) -> Self {
        Self::AlignedMs(milliseconds(interval))
    }

    /// By a cron expression.
    #[must_use]
    pub fn cron(expression: &str) -> Self {
        Self::Cron(expression.to_owned())
    }
}

impl Action {
    fn request(event: String, payload: Payload) -> Self {
        let (response, overlap) = (Response::default(), Overlap::default());
        Self::Request(Ask { event, payload, timeout_ms: None, response, overlap })
    }

    /// The name of the event that is sent.
    #[must_use]
    pub fn event(&self) -> &str {
        match self {
            Self::Publish(Publish { event, .. }) | Self::Request(Ask { event, .. }) => event,
        }
    }

    pub(crate) fn payload(&self) -> &Payload {
        match self {
            Self::Publish(Publish { payload, .. }) | Self::Request(Ask { payload, .. }) => payload,
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Of a time that no calendar here reaches, a text that is refused as one.
fn time_text(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_micros()).ok());
    let time = since.and_then(DateTime::<Utc>::from_timestamp_micros);
    time.map_or_else(
        || "a time before 1970 or too far ahead".to_owned(),
        |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
    )
}
