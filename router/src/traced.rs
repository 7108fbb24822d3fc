//! Spans of what becomes of events, for whoever subscribes to them: of the target [`TARGET`] at the level debug.
//!
//! ```text
//! publish, request, tunnel ─▶ hop (at the node it comes to) ─▶ handle ─▶ publish, request, tunnel (with `cause`)
//! ```
//!
//! Each has the event's name (`event`), its id (`id`), where it stands in a trace (`trace`, a `traceparent`) and the event that it follows
//! from (`cause`). Without a subscriber a span costs one look at a number. A trace that is not to be recorded, as its `traceparent` says, has none.

use edri_events::Envelope;
use tracing::{Span, debug_span, field};

/// The target of all spans.
pub const TARGET: &str = "edri::span";

/// A span until it is dropped; nothing when nobody wants it.
#[derive(Debug, Default)]
pub struct Traced(Option<Box<Span>>);

impl Traced {
    fn of(span: Span) -> Self {
        Self((!span.is_disabled()).then(|| Box::new(span)))
    }

    /// Says how it went wrong.
    #[inline]
    pub fn failed(&self, code: &str) {
        if let Some(span) = &self.0 {
            span.record("error", code);
        }
    }
}

macro_rules! traced {
    ($(#[$doc:meta])* $name:ident, $span:literal) => {
        $(#[$doc])*
        #[inline]
        #[must_use]
        pub fn $name(envelope: &Envelope) -> Traced {
            if !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
                return Traced(None);
            }
            let trace = envelope.trace();
            if !trace.is_sampled() {
                return Traced(None);
            }
            Traced::of(debug_span!(
                target: TARGET,
                $span,
                event = %envelope.name(),
                id = %envelope.id(),
                trace = %trace,
                cause = envelope.head().cause.map(field::display),
                error = field::Empty,
            ))
        }
    };
}

traced!(
    /// A notification is given to the groups that want it.
    publish,
    "publish"
);
traced!(
    /// A request, until it has its response; one that all are asked, until all have answered.
    request,
    "request"
);
traced!(
    /// A tunnel, from its opening until its opener has its result, or is gone.
    tunnel,
    "tunnel"
);
traced!(
    /// An event that came over a link is given to its group.
    hop,
    "hop"
);
traced!(
    /// A worker has an event in its hands.
    handle,
    "handle"
);
