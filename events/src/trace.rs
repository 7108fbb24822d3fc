//! W3C trace context, level 1: <https://www.w3.org/TR/trace-context/>.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::EventId;
use crate::id::mix;

/// Where an event stands in a distributed trace: `traceparent` of the W3C recommendation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    // As two halves, so that the envelope's head needs no alignment of 16.
    trace: (u64, u64),
    span: NonZeroU64,
    flags: u8,
}

/// Traces that begin here are recorded whose lower half is no greater.
static ROOTS_RECORDED: AtomicU64 = AtomicU64::new(u64::MAX);

/// A text that is not a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: expected `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`, ids not zero")]
pub struct TraceParseError;

impl TraceContext {
    /// The trace that begins with this event: its ids follow from the event's id, so nothing needs to be stored.
    #[must_use]
    pub fn root(id: EventId) -> Self {
        Self::root_within(id, ROOTS_RECORDED.load(Ordering::Relaxed))
    }

    /// Has this share of the traces that begin in this process recorded: 1, as long as nothing is said, is all of them, 0 none. Which ones
    /// follows from their ids, so all nodes with the same share choose the same. A trace that began elsewhere says itself
    /// whether it is recorded.
    pub fn record_roots(share: f64) {
        ROOTS_RECORDED.store(bound(share), Ordering::Relaxed);
    }

    /// `most` bounds the lower half of the ids of traces that are recorded; 0 is below all of them.
    fn root_within(id: EventId, most: u64) -> Self {
        let seed = id.process() ^ mix(id.sequence());
        let lower = nonzero(mix(seed.wrapping_add(1))).get();
        Self {
            trace: (nonzero(mix(seed)).get(), lower),
            span: nonzero(mix(seed.wrapping_add(2))),
            flags: u8::from(lower <= most),
        }
    }

    /// The context made of these numbers, as they came over a boundary; `None` when an id is zero.
    #[must_use]
    pub fn from_parts(trace_id: u128, span_id: u64, flags: u8) -> Option<Self> {
        let span = NonZeroU64::new(span_id)?;
        (trace_id != 0).then_some(Self { trace: ((trace_id >> 64) as u64, trace_id as u64), span, flags })
    }

    /// The next hop of this trace: the same trace id, a span id of its own that follows from `id` and `hop`.
    #[must_use]
    pub fn child(self, id: EventId, hop: u32) -> Self {
        let seed = id.process() ^ mix(id.sequence()) ^ self.span.get();
        Self { span: nonzero(mix(seed.wrapping_add(u64::from(hop)))), ..self }
    }

    /// The trace id, shared by every event that follows from one cause.
    #[must_use]
    pub fn trace_id(self) -> u128 {
        u128::from(self.trace.0) << 64 | u128::from(self.trace.1)
    }

    /// The span id of this hop.
    #[must_use]
    pub fn span_id(self) -> u64 {
        self.span.get()
    }

    /// The flags of the recommendation, of which level 1 knows the lowest bit.
    #[must_use]
    pub fn flags(self) -> u8 {
        self.flags
    }

    /// Whether the caller asked for this trace to be recorded.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }
}

/// Of a share of all numbers, the largest.
fn bound(share: f64) -> u64 {
    // What is beyond either end, or no number, is that end.
    (share * u64::MAX as f64) as u64
}

fn nonzero(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id(), self.span, self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for TraceContext {
    type Err = TraceParseError;

    /// Reads a `traceparent`. A version after 00 may carry more behind its flags, which is skipped as the
    /// recommendation asks.
    fn from_str(text: &str) -> Result<Self, TraceParseError> {
        let mut fields = text.split('-');
        let mut hex = |digits: usize| match fields.next() {
            Some(field)
                if field.len() == digits && field.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) =>
            {
                u128::from_str_radix(field, 16).map_err(|_| TraceParseError)
            }
            _ => Err(TraceParseError),
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        if version == 0xff || (version == 0 && fields.next().is_some()) {
            return Err(TraceParseError);
        }
        Self::from_parts(trace, span as u64, flags as u8).ok_or(TraceParseError)
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = *b"00-................................-................-..";
        crate::text::write_hex(self.trace.0, &mut text[3..19]);
        crate::text::write_hex(self.trace.1, &mut text[19..35]);
        crate::text::write_hex(self.span.get(), &mut text[36..52]);
        crate::text::write_hex(self.flags.into(), &mut text[53..]);
        crate::text::serialize(&text, serializer)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer, "a traceparent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_recommendation_reads_and_writes_back() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace: TraceContext = text.parse().expect("valid");
        assert_eq!(trace.to_string(), text);
        assert_eq!(serde_json::to_value(trace).expect("a text"), text);
        assert!(trace.is_sampled());
    }

    #[test]
    fn what_is_not_a_traceparent_is_refused() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(TraceParseError), "{bad}");
        }
        assert!("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more".parse::<TraceContext>().is_ok());
    }

    #[test]
    fn the_parts_of_a_context_make_it_again() {
        let root = TraceContext::root(EventId::next());
        assert_eq!(TraceContext::from_parts(root.trace_id(), root.span_id(), root.flags()), Some(root));
        assert_eq!(TraceContext::from_parts(0, 1, 1), None);
        assert_eq!(TraceContext::from_parts(1, 0, 1), None);
    }

    #[test]
    fn of_traces_that_begin_here_about_the_share_is_recorded_and_what_follows_from_one_is_as_it_is() {
        for share in [0.0, 0.25, 1.0] {
            let roots: Vec<_> = (0..20_000).map(|_| TraceContext::root_within(EventId::next(), bound(share))).collect();
            let recorded = roots.iter().filter(|root| root.is_sampled()).count() as f64 / roots.len() as f64;
            assert!((recorded - share).abs() <= share * (1.0 - share) / 5.0, "{recorded} of {share}");
            assert!(roots.iter().all(|root| root.child(EventId::next(), 0).is_sampled() == root.is_sampled()));
        }
        assert!(TraceContext::root(EventId::next()).is_sampled(), "all are, as long as nothing is said");
    }

    #[test]
    fn a_child_keeps_the_trace_and_has_a_span_of_its_own() {
        let root = TraceContext::root(EventId::next());
        let child = root.child(EventId::next(), 0);
        assert_eq!(root.trace_id(), child.trace_id());
        assert_ne!(root.span_id(), child.span_id());
    }
}
