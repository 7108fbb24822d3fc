//! Sending for somebody who is not in this process: events that came as frames.

use std::time::{Duration, Instant};

use edri_events::{
    Body, Envelope, EventId, Head, Headers, Kind, ManagerName, NodeName, REQUEST_TIMEOUT_DEFAULT, TraceContext, Value,
};
use std::sync::Arc;

use crate::bus::{Bus, Options};
use crate::pending::Outcome;
use crate::request::{Answers, To};
use crate::status::WorkerStatus;
use crate::tunnel::Opened;
use crate::{PublishError, Receipt, RequestError, Router};

/// Sends what a worker outside this process wants sent, as if it were inside: events come from its manager, and what it
/// waits for is known when waits form a circle. Or for somebody who is no worker: then events come from the node.
#[derive(Debug, Clone)]
pub struct Relay {
    bus: Bus,
    /// Whether what comes is looked at before it is sent.
    checks: bool,
}

/// An event as its sender outside described it.
#[derive(Debug, Clone)]
pub struct Relayed {
    /// The event's name.
    pub name: String,
    /// The encoded payload.
    pub body: Body,
    /// Its id; a fresh one when it has none.
    pub id: Option<EventId>,
    /// A key instead of the event's own.
    pub key: Option<Box<str>>,
    /// The event that made this one.
    pub cause: Option<EventId>,
    /// Where it stands in a trace; without an id of its own, where the event stands that made it.
    pub trace: Option<TraceContext>,
    /// What the sender adds.
    pub headers: Headers,
    /// How much time is left.
    pub timeout: Option<Duration>,
}

impl Router {
    /// Sends for the worker of `manager` that `worker` is the status of.
    #[must_use]
    pub fn relay(&self, manager: &ManagerName, worker: Arc<WorkerStatus>) -> Relay {
        Relay { bus: self.bus().within(manager, worker), checks: false }
    }
}

impl Bus {
    /// Sends for somebody outside who is no worker: a client of a gateway. An event that has a Rust type here and is none is
    /// refused before anybody has it.
    #[must_use]
    pub fn relay(&self) -> Relay {
        Relay { bus: self.clone(), checks: true }
    }
}

impl Relay {
    /// As [`Bus::publish`].
    ///
    /// # Errors
    ///
    /// As [`Untyped::publish`](crate::Untyped::publish).
    pub async fn publish(&self, event: Relayed) -> Result<Receipt, PublishError> {
        let descriptor = self.bus.core.descriptor(&event.name, Kind::Notification)?;
        let name = descriptor.name().clone();
        let (timeout, mut head) = (event.timeout, self.bus.head(descriptor, &Options::default())?);
        head.deadline = timeout.map(|timeout| Instant::now() + timeout).or(head.deadline);
        let envelope =
            event.into_envelope(head, self.checks).map_err(|source| PublishError::Payload { event: name, source })?;
        self.bus.send(envelope).await
    }

    /// The node that sends.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.bus.address().node
    }

    /// As [`Bus::request`]; as [`Bus::request_to`] when a manager is named; as [`Bus::request_at`] when `to` is a node's name
    /// with a slash behind it.
    ///
    /// # Errors
    ///
    /// As [`Untyped::request`](crate::Untyped::request).
    pub async fn request(&self, event: Relayed, to: Option<&str>) -> Outcome {
        let began = Instant::now();
        self.bus.ask(self.request_envelope(event)?, began, to.map_or(To::Any, To::named)).await
    }

    /// As [`Bus::request_all`].
    ///
    /// # Errors
    ///
    /// As [`Bus::request_all`].
    pub async fn request_all(&self, event: Relayed) -> Result<Answers<Value>, RequestError> {
        let open = self.bus.ask_all(self.request_envelope(event)?).await?;
        Ok(Answers { open, here: self.bus.node(), take: Ok })
    }

    /// As [`Bus::open`], with encoded items and result.
    ///
    /// # Errors
    ///
    /// As [`Bus::open`].
    pub async fn open(&self, event: Relayed) -> Result<Opened<Body, Body, Body>, RequestError> {
        let descriptor = self.bus.core.descriptor(&event.name, Kind::Tunnel)?;
        let head = self.bus.tunnel_head(descriptor, &Options::default())?;
        let take: fn(Value) -> _ = match event.body.encoding {
            edri_events::Encoding::MessagePack => |value| value.into_body(edri_events::Encoding::MessagePack),
            edri_events::Encoding::Json => |value| value.into_body(edri_events::Encoding::Json),
        };
        self.bus.open_untyped(event.into_envelope(head, self.checks)?, take).await
    }

    fn request_envelope(&self, event: Relayed) -> Result<Envelope, RequestError> {
        let descriptor = self.bus.core.descriptor(&event.name, Kind::Request)?;
        let mut head = self.bus.head(descriptor, &Options::default()).map_err(crate::request::not_sent)?;
        let given = event.timeout.map(|timeout| Instant::now() + timeout);
        head.deadline = given.or(head.deadline).or_else(|| Some(Instant::now() + REQUEST_TIMEOUT_DEFAULT));
        Ok(event.into_envelope(head, self.checks)?)
    }
}

impl Relayed {
    fn into_envelope(self, mut head: Head, check: bool) -> Result<Envelope, edri_events::CodecError> {
        head.cause = self.cause;
        let parent = self.trace.or(self.cause.map(TraceContext::root));
        (head.id, head.trace) = match self.id {
            Some(id) => (id, self.trace),
            None => (head.id, parent.map(|parent| parent.child(head.id, 0))),
        };
        if let Some(key) = self.key {
            head.set_key(key);
        }
        if self.headers != Headers::default() {
            head.set_headers(self.headers);
        }
        if check { Envelope::checked(head, self.body) } else { Envelope::untyped(head, self.body) }
    }
}
