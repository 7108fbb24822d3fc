//! What a node carries to a process and from it: deliveries as calls, arguments, records, reports; and the values that both
//! sides write alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edri_events::{Address, Body, CodecError, Encoding, Envelope, Head, Headers, Kind, Origin, TraceContext};
use edri_protocol::{Call, Frame, Grant, Level, Log, Payload, Report, Text};
use edri_router::{Delivery, Health, ReplyTo, WorkerStatus};

use super::peer::{Opener, Peer, TUNNEL_WINDOW};
use crate::host::Seat;

/// What has grown beyond this is not kept for the next payload.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;

/// Writes deliveries as calls, and events for subscriptions.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// The last origin and how it is written: most events of a while come from the same.
    origin: Option<(Origin, String)>,
    /// Where payloads are written that nobody else asks for.
    payload: Vec<u8>,
}

impl Outgoing {
    /// Writes an event for the subscription of this number, with its place in the history that it comes from, if it does;
    /// returns how many bytes its payload has. Its writer is not told.
    ///
    /// # Errors
    ///
    /// Why it cannot be written; nothing is.
    pub fn event(
        &mut self,
        peer: &Peer,
        subscription: u64,
        envelope: &Envelope,
        position: Option<&str>,
        now: Instant,
    ) -> Result<usize, String> {
        let (head, encoding) = (envelope.head(), peer.encoding());
        // Other subscriptions have it too.
        let payload = envelope.encoded(encoding).map_err(|error| error.to_string())?;
        let key = envelope.key();
        let headers = head.headers().into_iter().flat_map(|headers| headers.iter());
        let call = Call {
            event: envelope.name().as_str().into(),
            payload: Some(Payload::new(encoding, payload)),
            event_id: Some(head.id),
            origin: Some(written(&mut self.origin, &head.origin).into()),
            key: key.as_deref().map(Text::from),
            cause: head.cause,
            timeout_ms: head.deadline.map(|deadline| left_ms(deadline, now)),
            trace: head.trace,
            headers: headers.map(|(name, value)| (name.into(), value.into())).collect(),
            subscription: Some(subscription),
            position: position.map(Text::from),
            ..Call::default()
        };
        peer.send_quietly(&Frame::Publish(call)).map_err(|error| error.to_string())?;
        Ok(payload.len())
    }

    /// Gives a delivery to a peer as the call `number`; returns how many bytes its payload has. Its writer is not told.
    pub(super) fn send(
        &mut self,
        peer: &Arc<Peer>,
        number: u64,
        delivery: &mut Delivery,
        now: Instant,
    ) -> Result<u64, String> {
        let Self { origin, payload: scratch } = self;
        let Delivery { envelope, reply, handler, attempts, redelivered, .. } = delivery;
        let (head, encoding) = (envelope.head(), peer.encoding());
        let kind = head.descriptor.kind();
        scratch.clear();
        if scratch.capacity() > SCRATCH_KEPT_BYTES {
            *scratch = Vec::new();
        }
        let payload = match kind {
            // Other groups may have it too.
            Kind::Notification => envelope.encoded(encoding).map(|bytes| &**bytes),
            Kind::Request | Kind::Tunnel => envelope.encoded_once(encoding, scratch),
        };
        let payload = payload.map_err(|error| error.to_string())?;
        let key = envelope.key();
        let headers = head.headers().into_iter().flat_map(|headers| headers.iter());
        let call = Call {
            id: number,
            event: envelope.name().as_str().into(),
            payload: Some(Payload::new(encoding, payload)),
            handler: *handler,
            event_id: Some(head.id),
            origin: Some(written(origin, &head.origin).into()),
            key: key.as_deref().map(Text::from),
            cause: head.cause,
            timeout_ms: head.deadline.map(|deadline| left_ms(deadline, now)),
            trace: head.trace,
            headers: headers.map(|(name, value)| (name.into(), value.into())).collect(),
            tried: attempts.saturating_sub(1),
            redelivered: *redelivered,
            ..Call::default()
        };
        let wrong = |error: edri_protocol::FrameError| error.to_string();
        match kind {
            Kind::Notification => peer.send_quietly(&Frame::Publish(call)).map_err(wrong)?,
            Kind::Request => peer.send_quietly(&Frame::Request(call)).map_err(wrong)?,
            Kind::Tunnel => {
                let offer = match reply {
                    ReplyTo::Tunnel(_, offer) => offer.take().map(|offer| *offer),
                    _ => None,
                };
                let (receiver, sender) = offer.ok_or("its tunnel was accepted before")?.into_untyped();
                let call = Call { credit: Some(TUNNEL_WINDOW), ..call };
                peer.send_quietly(&Frame::Open(call)).map_err(wrong)?;
                peer.run_tunnel(number, Opener::Here, receiver, sender, Grant::default());
            }
        }
        Ok(payload.len() as u64)
    }
}

/// How an origin is written, which `last` remembers.
fn written<'a>(last: &'a mut Option<(Origin, String)>, origin: &Origin) -> &'a str {
    if !last.as_ref().is_some_and(|(known, _)| std::ptr::eq::<Address>(&**known, &**origin)) {
        let text = match &origin.manager {
            Some(manager) => format!("{}/{manager}", origin.node),
            None => origin.node.to_string(),
        };
        *last = Some((origin.clone(), text));
    }
    last.as_ref().map_or("", |(_, text)| text)
}

/// How many milliseconds are left, rounded up: what is left of one is not nothing.
#[must_use]
pub fn left_ms(deadline: Instant, now: Instant) -> u64 {
    let left = deadline.saturating_duration_since(now) + Duration::from_nanos(999_999);
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

/// Puts what a node's call says of an event into its head. Key and headers are taken out of the call.
pub fn describe(head: &mut Head, call: &mut Call<'_>, now: Instant) {
    if let Some(id) = call.event_id {
        head.id = id;
    }
    head.cause = call.cause;
    head.deadline = call.timeout_ms.and_then(|left| now.checked_add(Duration::from_millis(left)));
    head.trace = call.trace;
    if let Some(key) = call.key.take() {
        head.set_key(key.into_owned());
    }
    if !call.headers.is_empty() {
        let mut headers = Headers::default();
        for (name, value) in std::mem::take(&mut call.headers) {
            // The node has kept to the same limits.
            let _ = headers.insert(name.into_owned(), value.into_owned());
        }
        head.set_headers(headers);
    }
}

/// A payload that is absent.
#[must_use]
pub fn nothing(encoding: Encoding) -> Body {
    let bytes: &'static [u8] = match encoding {
        Encoding::MessagePack => b"\xc0",
        Encoding::Json => b"null",
    };
    Body::new(encoding, bytes)
}

/// What a worker is made with, in the encoding of its connection.
pub(super) fn arguments(bytes: Option<&Bytes>, encoding: Encoding) -> Result<Option<Body>, CodecError> {
    let body = bytes.map(|bytes| Body::new(Encoding::MessagePack, bytes.clone()));
    body.map(|body| body.transcode(encoding)).transpose()
}

/// Puts a line of a process into the node's log, with the trace of the event that it is about.
pub(super) fn log(seat: &Seat, log: &Log<'_>, trace: Option<TraceContext>) {
    let (manager, instance, message) = (&seat.manager, seat.status.index(), &log.message);
    let source = log.target.as_deref().unwrap_or_default();
    let event = log.event_id.map(tracing::field::display);
    let trace = trace.map(tracing::field::display);
    // The level of a record is fixed where it is written.
    match log.level {
        Level::Trace => tracing::trace!(target: "edri::worker", %manager, instance, source, event, trace, "{message}"),
        Level::Debug => tracing::debug!(target: "edri::worker", %manager, instance, source, event, trace, "{message}"),
        Level::Info => tracing::info!(target: "edri::worker", %manager, instance, source, event, trace, "{message}"),
        Level::Warn => tracing::warn!(target: "edri::worker", %manager, instance, source, event, trace, "{message}"),
        Level::Error => tracing::error!(target: "edri::worker", %manager, instance, source, event, trace, "{message}"),
    }
}

/// Takes note of what a worker says of itself.
pub(super) fn report(status: &WorkerStatus, report: Report<'_>) {
    match report.health {
        Some(edri_protocol::Health::Good) => status.report_health(Health::Good),
        Some(edri_protocol::Health::Degraded(why)) => status.report_health(Health::Degraded(why.into_owned())),
        Some(edri_protocol::Health::Bad(why)) => status.report_health(Health::Bad(why.into_owned())),
        None => {}
    }
    for (name, value) in report.figures {
        status.report_figure(&name, value);
    }
}
