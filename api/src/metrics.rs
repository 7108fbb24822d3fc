//! What a gateway counts of itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use edri_events::EventName;
use parking_lot::RwLock;

mod text;
mod websocket;

pub(crate) use text::write;
pub(crate) use websocket::{CountedSession, CountedSubscription, FrameKind, Taken, WebSockets};

/// The most events that are counted apart. Those beyond it are counted as no event.
const EVENTS_MAX: usize = 10_000;
/// The upper ends of the histogram's buckets, in seconds.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How answers are counted: by the first digit of their status, and those that nobody waited for.
const CLASSES: [&str; 6] = ["cancelled", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Why something was refused before it was an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Connections,
    ConnectionsPerAddress,
    Handshake,
    SlowHead,
    SlowReader,
    HeadTooLarge,
    Host,
    Origin,
    Token,
    Rate,
    InFlight,
    InFlightPerClient,
}

impl Refusal {
    const ALL: [Self; 12] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Handshake,
        Self::SlowHead,
        Self::SlowReader,
        Self::HeadTooLarge,
        Self::Host,
        Self::Origin,
        Self::Token,
        Self::Rate,
        Self::InFlight,
        Self::InFlightPerClient,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::Handshake => "handshake",
            Self::SlowHead => "slow_head",
            Self::SlowReader => "slow_reader",
            Self::HeadTooLarge => "head_too_large",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Token => "token",
            Self::Rate => "rate",
            Self::InFlight => "in_flight",
            Self::InFlightPerClient => "in_flight_per_client",
        }
    }
}

/// Of one event, or of everything that is none.
#[derive(Debug, Default)]
struct Figures {
    classes: [AtomicU64; CLASSES.len()],
    /// The last is of those beyond all buckets.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
}

/// What a gateway counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    // Held to look an event up; written once for each event.
    events: RwLock<HashMap<EventName, Arc<Figures>>>,
    others: Arc<Figures>,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    accepted: AtomicU64,
    sent_bytes: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    pub(crate) websockets: Arc<WebSockets>,
}

impl Metrics {
    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered with this status, or with none because its client had left.
    pub(crate) fn answered(&self, event: Option<&EventName>, status: Option<u16>, took: Duration) {
        let figures = self.figures(event);
        let class = status.map_or(0, |status| usize::from(status / 100)).min(CLASSES.len() - 1);
        figures.classes[class].fetch_add(1, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.partition_point(|end| *end < seconds);
        figures.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        figures.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn figures(&self, event: Option<&EventName>) -> Arc<Figures> {
        let Some(event) = event else { return Arc::clone(&self.others) };
        if let Some(known) = self.events.read().get(event) {
            return Arc::clone(known);
        }
        let mut events = self.events.write();
        if events.len() >= EVENTS_MAX && !events.contains_key(event) {
            return Arc::clone(&self.others);
        }
        Arc::clone(events.entry(event.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_each_in_its_place() {
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(place, refusal as usize, "{refusal:?}");
        }
    }

    #[test]
    fn an_answer_is_counted_in_the_bucket_that_it_took_no_longer_than() {
        let metrics = Metrics::default();
        let event = EventName::new("a.b").expect("a name");
        metrics.answered(Some(&event), Some(204), Duration::from_micros(500));
        metrics.answered(Some(&event), Some(503), Duration::from_secs(11));
        metrics.answered(Some(&event), None, Duration::from_secs(1));
        let figures = metrics.figures(Some(&event));
        let counts =
            |counters: &[AtomicU64]| counters.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!(counts(&figures.classes), [1, 0, 1, 0, 0, 1]);
        assert_eq!(counts(&figures.buckets), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
    }
}
