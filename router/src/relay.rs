//! Sending for somebody who is not in this process: events that came as frames.

use std::time::{Duration, Instant};

use edri_events::{
    Body, CodecError, Descriptor, DescriptorRef, Envelope, EventId, Failure, Head, Headers, Kind, ManagerName,
    NodeName, REQUEST_TIMEOUT_DEFAULT, TraceContext, Value,
};
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::answers::{Answer, Answers};
use crate::bus::{Bus, Options};
use crate::pending::Outcome;
use crate::request::To;
use crate::status::WorkerStatus;
use crate::tunnel::Opened;
use crate::{Border, Left, Passage, PublishError, Receipt, Refusal, RequestError, Router, TunnelError};

/// Sends what a worker outside this process wants sent, as if it were inside: events come from its manager, and what it
/// waits for is known when waits form a circle. Or for somebody who is no worker: then events come from the node.
#[derive(Debug, Clone)]
pub struct Relay {
    bus: Bus,
    /// Whether what comes is looked at before it is sent.
    checks: bool,
    /// Who looks at it.
    border: Option<Arc<dyn Border>>,
    /// Who has answers that were given before.
    keeper: Option<Arc<dyn Keeper>>,
}

/// Has answers that were given before, for a [`Relay`]: see [`Relay::kept_by`].
pub trait Keeper: Send + Sync + std::fmt::Debug {
    /// Whether answers to such requests are given again.
    fn concerns(&self, descriptor: &Descriptor) -> bool;

    /// Answers a request with what was given before, or by sending it through `relay`.
    fn request(&self, relay: Relay, event: Relayed) -> BoxFuture<'_, Outcome>;

    /// Something else was sent, and what came of it is told now: it may have changed what is kept.
    fn sent(&self);
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
        Relay { bus: self.bus().within(manager, worker), checks: false, border: None, keeper: None }
    }
}

impl Bus {
    /// Sends for somebody outside who is no worker: a client of a gateway. An event that has a Rust type here and is none is
    /// refused before anybody has it.
    #[must_use]
    pub fn relay(&self) -> Relay {
        Relay { bus: self.clone(), checks: true, border: None, keeper: None }
    }
}

impl Relay {
    /// The same, with somebody who looks at what is sent and at what comes of it.
    #[must_use]
    pub fn guarded(&self, border: Arc<dyn Border>) -> Self {
        Self { border: Some(border), ..self.clone() }
    }

    /// The same, with somebody who has answers that were given before. What a border refuses it is not asked for, and what it
    /// answers passes the border like any answer.
    #[must_use]
    pub fn kept_by(&self, keeper: Arc<dyn Keeper>) -> Self {
        Self { keeper: Some(keeper), ..self.clone() }
    }

    fn tell_keeper(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.sent();
        }
    }

    /// As [`Bus::publish`].
    ///
    /// # Errors
    ///
    /// As [`Untyped::publish`](crate::Untyped::publish).
    pub async fn publish(&self, mut event: Relayed) -> Result<Receipt, PublishError> {
        let descriptor = self.bus.core.descriptor(&event.name, Kind::Notification)?;
        let passage = match self.enter(&descriptor, &mut event).await {
            Ok(passage) => passage,
            Err(Refusal::Failed(failure)) => return Err(PublishError::Refused(failure)),
            Err(Refusal::Payload(source)) => {
                return Err(PublishError::Payload { event: descriptor.name().clone(), source });
            }
        };
        let sent = self.send(descriptor, event).await;
        self.tell_keeper();
        let Some(mut passage) = passage else { return sent };
        let mut left = Left::Published(sent);
        passage.leave(&mut left).await;
        match left {
            Left::Published(sent) => sent,
            other => unreachable!("a notification left a border as {other:?}"),
        }
    }

    async fn send(&self, descriptor: DescriptorRef, event: Relayed) -> Result<Receipt, PublishError> {
        let name = descriptor.name().clone();
        let (timeout, mut head) = (event.timeout, self.bus.head(descriptor, &Options::default())?);
        head.deadline = timeout.map(|timeout| Instant::now() + timeout).or(head.deadline);
        let envelope = self.envelope(event, head).map_err(|source| PublishError::Payload { event: name, source })?;
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
    pub async fn request(&self, mut event: Relayed, to: Option<&str>) -> Outcome {
        let began = Instant::now();
        let descriptor = self.bus.core.descriptor(&event.name, Kind::Request)?;
        let passage = self.enter(&descriptor, &mut event).await?;
        let keeper = self.keeper.as_ref().filter(|keeper| to.is_none() && keeper.concerns(&descriptor));
        let outcome = match keeper {
            Some(keeper) => keeper.request(Self { border: None, keeper: None, ..self.clone() }, event).await,
            None => {
                let asked = async {
                    self.bus.ask(self.request_envelope(descriptor, event)?, began, to.map_or(To::Any, To::named)).await
                };
                let outcome = asked.await;
                self.tell_keeper();
                outcome
            }
        };
        match passage {
            None => outcome,
            Some(mut passage) => leave(&mut *passage, outcome).await,
        }
    }

    /// As [`Bus::request_all`].
    ///
    /// # Errors
    ///
    /// As [`Bus::request_all`].
    pub async fn request_all(&self, mut event: Relayed) -> Result<RelayedAnswers, RequestError> {
        let descriptor = self.bus.core.descriptor(&event.name, Kind::Request)?;
        let passage = self.enter(&descriptor, &mut event).await?;
        let open = self.bus.ask_all(self.request_envelope(descriptor, event)?).await?;
        Ok(RelayedAnswers { answers: Answers { open, here: self.bus.node(), take: Ok }, passage })
    }

    /// As [`Bus::open`], with encoded items and result.
    ///
    /// # Errors
    ///
    /// As [`Bus::open`].
    pub async fn open(&self, event: Relayed) -> Result<Opened<Body, Body, Body>, RequestError> {
        self.open_to(event, None).await
    }

    /// As [`Relay::open`]; `to` is as in [`Relay::request`].
    ///
    /// # Errors
    ///
    /// As [`Bus::open_to`].
    pub async fn open_to(
        &self,
        mut event: Relayed,
        to: Option<&str>,
    ) -> Result<Opened<Body, Body, Body>, RequestError> {
        let descriptor = self.bus.core.descriptor(&event.name, Kind::Tunnel)?;
        let passage = self.enter(&descriptor, &mut event).await?;
        let opened = self.open_for(descriptor, event, to).await;
        let Some(mut passage) = passage else { return opened };
        match opened {
            Ok(opened) => Ok(opened.watched(passage)),
            Err(error) => {
                let mut left = Left::Ended(Err(TunnelError::Ended(Arc::new(error))));
                passage.leave(&mut left).await;
                Err(why_not_opened(left))
            }
        }
    }

    async fn open_for(
        &self,
        descriptor: DescriptorRef,
        event: Relayed,
        to: Option<&str>,
    ) -> Result<Opened<Body, Body, Body>, RequestError> {
        let head = self.bus.tunnel_head(descriptor, &Options::default())?;
        let take: fn(Value) -> _ = match event.body.encoding {
            edri_events::Encoding::MessagePack => |value| value.into_body(edri_events::Encoding::MessagePack),
            edri_events::Encoding::Json => |value| value.into_body(edri_events::Encoding::Json),
        };
        self.bus.open_untyped(self.envelope(event, head)?, to.map_or(To::Any, To::named), take).await
    }

    fn request_envelope(&self, descriptor: DescriptorRef, event: Relayed) -> Result<Envelope, RequestError> {
        let mut head = self.bus.head(descriptor, &Options::default()).map_err(crate::request::not_sent)?;
        let given = event.timeout.map(|timeout| Instant::now() + timeout);
        head.deadline = given.or(head.deadline).or_else(|| Some(Instant::now() + REQUEST_TIMEOUT_DEFAULT));
        Ok(self.envelope(event, head)?)
    }

    /// Has the event looked at, if somebody wants to.
    async fn enter(
        &self,
        descriptor: &DescriptorRef,
        event: &mut Relayed,
    ) -> Result<Option<Box<dyn Passage>>, Refusal> {
        match &self.border {
            Some(border) if border.concerns(descriptor) => border.enter(descriptor, event).await.map(Some),
            _ => Ok(None),
        }
    }

    fn envelope(&self, event: Relayed, head: Head) -> Result<Envelope, CodecError> {
        let Some(border) = &self.border else { return event.into_envelope(head, self.checks) };
        let (descriptor, body) = (head.descriptor.clone(), event.body.clone());
        event.into_envelope(head, self.checks).map_err(|error| border.explain(&descriptor, &body, error))
    }
}

/// Shows what came of a request to whoever has let it pass.
async fn leave(passage: &mut dyn Passage, outcome: Outcome) -> Outcome {
    let mut left = Left::Answered(outcome);
    passage.leave(&mut left).await;
    match left {
        Left::Answered(outcome) => outcome,
        other => unreachable!("a request left a border as {other:?}"),
    }
}

/// Why a tunnel was not opened, as it left a border.
fn why_not_opened(left: Left) -> RequestError {
    match left {
        Left::Ended(Err(TunnelError::Ended(error))) => {
            Arc::try_unwrap(error).unwrap_or_else(|error| RequestError::Elsewhere(Failure::message(error.to_string())))
        }
        Left::Ended(Err(TunnelError::Aborted(failure))) => RequestError::Failed(failure),
        other => unreachable!("a tunnel that was not opened left a border as {other:?}"),
    }
}

/// The answers to one request of all who could give one.
#[derive(Debug)]
pub struct RelayedAnswers {
    answers: Answers<Value>,
    passage: Option<Box<dyn Passage>>,
}

impl RelayedAnswers {
    /// The next answer, in the order in which they come; `None` after the last. Cancel safe but for what a [`Border`] does with it.
    pub async fn next(&mut self) -> Option<Answer<Value>> {
        let mut answer = self.answers.next().await?;
        if let Some(passage) = &mut self.passage {
            answer.result = leave(&mut **passage, answer.result).await;
        }
        Some(answer)
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
