//! From spans of `tracing` to those of OpenTelemetry.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::SpanKind, status::StatusCode};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::Queue;

/// The spans that are exported, by what the library says of them.
const TARGET: &str = "edri::span";
/// Of how many events it is remembered which span they are, for the spans of what follows from them.
const EVENTS_REMEMBERED: usize = 16_384;

/// Puts each span that ends into the queue.
pub(crate) struct Exported {
    queue: Queue,
    // Held to look up or to remember an event.
    events: Mutex<Events>,
}

/// The span of each of the latest events.
#[derive(Default)]
struct Events {
    spans: HashMap<String, u64>,
    order: VecDeque<String>,
}

impl Events {
    fn remember(&mut self, event: &str, span: u64) {
        if self.spans.insert(event.to_owned(), span).is_none() {
            self.order.push_back(event.to_owned());
        }
        if self.order.len() > EVENTS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.spans.remove(&oldest);
        }
    }
}

/// What a span says of itself.
#[derive(Default)]
struct Fields {
    event: String,
    id: String,
    trace: String,
    cause: String,
    error: Option<String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let value = value.to_owned();
        match field.name() {
            "event" => self.event = value,
            "id" => self.id = value,
            "trace" => self.trace = value,
            "cause" => self.cause = value,
            "error" => self.error = Some(value),
            _ => {}
        }
    }
}

/// A span that has begun.
struct Begun {
    fields: Fields,
    at: SystemTime,
}

impl Exported {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, events: Mutex::default() }
    }

    /// The spans that this is for.
    pub(crate) fn filter() -> Targets {
        Targets::new().with_target(TARGET, Level::DEBUG)
    }

    fn finished(&self, name: &'static str, begun: Begun) -> Option<Span> {
        let Begun { fields, at } = begun;
        let (trace_id, event_span) = parse(&fields.trace)?;
        let sends = matches!(name, "publish" | "request" | "tunnel");
        let parent = if sends {
            self.events.lock().unwrap_or_else(PoisonError::into_inner).spans.get(&fields.cause).copied()
        } else {
            Some(event_span)
        };
        let own = if sends { event_span } else { fastrand::u64(1..) };
        let kind = match name {
            "publish" => SpanKind::Producer,
            "request" | "tunnel" => SpanKind::Client,
            "handle" => SpanKind::Consumer,
            _ => SpanKind::Internal,
        };
        let status = fields.error.map(|code| Status { message: code, code: StatusCode::Error.into() });
        Some(Span {
            trace_id: trace_id.to_be_bytes().to_vec(),
            span_id: own.to_be_bytes().to_vec(),
            parent_span_id: parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
            name: format!("{name} {}", fields.event),
            kind: kind.into(),
            start_time_unix_nano: nanoseconds(at),
            end_time_unix_nano: nanoseconds(SystemTime::now()),
            attributes: vec![
                attribute("messaging.system", "edri"),
                attribute("messaging.destination.name", &fields.event),
                attribute("messaging.operation.name", name),
                attribute("messaging.message.id", &fields.id),
            ],
            status,
            ..Span::default()
        })
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Exported {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some((_, event_span)) = parse(&fields.trace) {
            // What follows from the event may be sent before this span has ended.
            self.events.lock().unwrap_or_else(PoisonError::into_inner).remember(&fields.id, event_span);
        }
        span.extensions_mut().insert(Begun { fields, at: SystemTime::now() });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(begun) = span.extensions_mut().get_mut::<Begun>() {
            values.record(&mut begun.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let begun = span.extensions_mut().remove::<Begun>();
        if let Some(finished) = begun.and_then(|begun| self.finished(span.name(), begun)) {
            self.queue.put(finished);
        }
    }
}

/// The trace and the span of a `traceparent`.
fn parse(text: &str) -> Option<(u128, u64)> {
    let mut parts = text.split('-').skip(1);
    let (trace, span) = (parts.next()?, parts.next()?);
    Some((u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?))
}

pub(super) fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
