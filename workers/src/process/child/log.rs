//! What the worker's process logs goes to the node's log, unless the program has a subscriber of its own.

use std::fmt::{Debug, Write};
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use edri_events::EventId;
use edri_protocol::{Frame, Level, Log};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::process::peer::Peer;

/// A longer line is cut.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Sends what is logged, from `info` on, to the node.
pub(super) struct ToNode {
    peer: Weak<Peer>,
    spans: AtomicU64,
}

impl ToNode {
    /// Makes the node's log that of the process, unless it has one.
    pub(super) fn install(peer: Weak<Peer>) {
        if !tracing::dispatcher::has_been_set() {
            // Should somebody else be faster, that is the process's choice.
            let _ = tracing::subscriber::set_global_default(Self { peer, spans: AtomicU64::new(1) });
        }
    }
}

impl Subscriber for ToNode {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(peer) = self.peer.upgrade() else { return };
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        let log = Log {
            level: match *metadata.level() {
                tracing::Level::ERROR => Level::Error,
                tracing::Level::WARN => Level::Warn,
                tracing::Level::INFO => Level::Info,
                tracing::Level::DEBUG => Level::Debug,
                tracing::Level::TRACE => Level::Trace,
            },
            message: line.finish().into(),
            target: Some(metadata.target().into()),
            event_id: line.id,
        };
        // A failure to log has nowhere to be logged.
        let _ = peer.send(&Frame::Log(log));
    }
}

/// An event's message and its other fields as one line.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
    id: Option<EventId>,
}

impl Line {
    fn finish(&mut self) -> String {
        let mut line = std::mem::take(&mut self.message);
        line.push_str(&self.fields);
        if line.len() > LINE_BYTES_MAX {
            let end = (0..=LINE_BYTES_MAX).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
            line.truncate(end);
        }
        line
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let (text, name) = match field.name() {
            "message" => (&mut self.message, None),
            name => (&mut self.fields, Some(name)),
        };
        // Writing to a text does not fail.
        let _ = match name {
            Some(name) => write!(text, " {name}={value:?}"),
            None => write!(text, "{value:?}"),
        };
        if name == Some("id") {
            self.id = format!("{value:?}").parse().ok();
        }
    }
}
