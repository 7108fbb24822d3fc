//! The verbs of the bus for those who have no Rust type: names and encoded bodies.

use edri_events::{Body, Encoding, Envelope, Kind, Pattern, REQUEST_TIMEOUT_DEFAULT, Value};
use std::time::Instant;

use crate::answers::Answers;
use crate::bus::{Bus, Options, Refusal};
use crate::request::To;
use crate::subscribe::{Subscribe, UntypedSubscription};
use crate::tunnel::Opened;
use crate::{DeclareError, PublishError, Receipt, RequestError, TryPublishError};

/// The untyped twins of the verbs of [`Bus`]. The event must be declared, by its Rust type or by
/// [`Bus::declare`].
///
/// ```no_run
/// # async fn f(bus: edri_router::Bus) -> Result<(), Box<dyn std::error::Error>> {
/// use edri_events::{Body, Descriptor, Kind};
///
/// bus.declare(Descriptor::declare("sensor.read", Kind::Notification)?.key("sensor").build()).await?;
/// let body = Body::new(edri_events::Encoding::Json, r#"{"sensor": "s1", "value": 3}"#);
/// bus.untyped().publish("sensor.read", body).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Untyped<'a> {
    pub(crate) bus: &'a Bus,
}

impl Bus {
    /// The same verbs for events without a Rust type.
    #[must_use]
    pub fn untyped(&self) -> Untyped<'_> {
        Untyped { bus: self }
    }
}

impl Untyped<'_> {
    /// As [`Bus::publish`].
    ///
    /// # Errors
    ///
    /// As [`Bus::publish`]; also when nobody has declared the event, it is no notification, or the body lacks its key.
    pub async fn publish(&self, name: &str, body: impl Into<Body>) -> Result<Receipt, PublishError> {
        self.publish_with(name, body, &Options::default()).await
    }

    /// As [`Bus::publish_with`].
    ///
    /// # Errors
    ///
    /// As [`Untyped::publish`].
    pub async fn publish_with(
        &self,
        name: &str,
        body: impl Into<Body>,
        options: &Options,
    ) -> Result<Receipt, PublishError> {
        self.bus.send(self.envelope(name, Kind::Notification, body.into(), options)?).await
    }

    /// As [`Bus::try_publish`].
    ///
    /// # Errors
    ///
    /// As [`Bus::try_publish`]; the body comes back.
    pub fn try_publish(&self, name: &str, body: Body) -> Result<Receipt, TryPublishError<Body>> {
        let envelope = self.envelope(name, Kind::Notification, body.clone(), &Options::default());
        let envelope = match envelope {
            Ok(envelope) => envelope,
            Err(source) => return Err(TryPublishError::Refused { event: body, source }),
        };
        self.bus.push_all_or_none(envelope).map_err(|refusal| match refusal {
            Refusal::Full(group) => TryPublishError::Full { event: body, group },
            Refusal::Refused(source) => TryPublishError::Refused { event: body, source },
        })
    }

    /// As [`Bus::publish_batch`].
    ///
    /// # Errors
    ///
    /// As [`Untyped::publish`]; when a body is refused nothing is published.
    pub async fn publish_batch(
        &self,
        name: &str,
        bodies: impl IntoIterator<Item = Body>,
    ) -> Result<Receipt, PublishError> {
        let options = Options::default();
        let envelopes = bodies
            .into_iter()
            .map(|body| self.envelope(name, Kind::Notification, body, &options))
            .collect::<Result<Vec<_>, _>>()?;
        self.bus.send_batch(self.bus.core.descriptor(name, Kind::Notification)?, envelopes).await
    }

    /// As [`Bus::request`].
    ///
    /// # Errors
    ///
    /// As [`Bus::request`]; also when nobody has declared the event, it is no request, or the body lacks its key.
    pub async fn request(&self, name: &str, body: impl Into<Body>) -> Result<Body, RequestError> {
        self.request_with(name, body, &Options::default()).await
    }

    /// As [`Bus::request_with`].
    ///
    /// # Errors
    ///
    /// As [`Untyped::request`].
    pub async fn request_with(
        &self,
        name: &str,
        body: impl Into<Body>,
        options: &Options,
    ) -> Result<Body, RequestError> {
        let body = body.into();
        let encoding = body.encoding;
        let began = Instant::now();
        let envelope = self.request_envelope(name, body, options, began)?;
        Ok(self.bus.ask(envelope, began, To::Any).await?.into_body(encoding)?)
    }

    /// As [`Bus::request_to`].
    ///
    /// # Errors
    ///
    /// As [`Bus::request_to`] and [`Untyped::request`].
    pub async fn request_to(&self, manager: &str, name: &str, body: impl Into<Body>) -> Result<Body, RequestError> {
        self.request_to_with(manager, name, body, &Options::default()).await
    }

    /// As [`Untyped::request_to`], with something to say beside the payload. `node/` is whoever answers on that node.
    ///
    /// # Errors
    ///
    /// As [`Untyped::request_to`].
    pub async fn request_to_with(
        &self,
        manager: &str,
        name: &str,
        body: impl Into<Body>,
        options: &Options,
    ) -> Result<Body, RequestError> {
        let body = body.into();
        let encoding = body.encoding;
        let began = Instant::now();
        let envelope = self.request_envelope(name, body, options, began)?;
        Ok(self.bus.ask(envelope, began, To::named(manager)).await?.into_body(encoding)?)
    }

    /// As [`Bus::request_at`].
    ///
    /// # Errors
    ///
    /// As [`Bus::request_at`] and [`Untyped::request`].
    pub async fn request_at(&self, node: &str, name: &str, body: impl Into<Body>) -> Result<Body, RequestError> {
        let body = body.into();
        let encoding = body.encoding;
        let began = Instant::now();
        let envelope = self.request_envelope(name, body, &Options::default(), began)?;
        Ok(self.bus.ask(envelope, began, To::Node(node, None)).await?.into_body(encoding)?)
    }

    /// As [`Bus::request_all`].
    ///
    /// # Errors
    ///
    /// As [`Bus::request_all`] and [`Untyped::request`].
    pub async fn request_all(&self, name: &str, body: impl Into<Body>) -> Result<Answers<Body>, RequestError> {
        self.request_all_with(name, body, &Options::default()).await
    }

    /// As [`Untyped::request_all`], with something to say beside the payload.
    ///
    /// # Errors
    ///
    /// As [`Untyped::request_all`].
    pub async fn request_all_with(
        &self,
        name: &str,
        body: impl Into<Body>,
        options: &Options,
    ) -> Result<Answers<Body>, RequestError> {
        let body = body.into();
        let take: fn(Value) -> Result<Body, RequestError> = match body.encoding {
            Encoding::MessagePack => |value| Ok(value.into_body(Encoding::MessagePack)?),
            Encoding::Json => |value| Ok(value.into_body(Encoding::Json)?),
        };
        let envelope = self.request_envelope(name, body, options, Instant::now())?;
        Ok(Answers { open: self.bus.ask_all(envelope).await?, here: self.bus.node(), take })
    }

    /// As [`Bus::open`], with encoded items.
    ///
    /// # Errors
    ///
    /// As [`Bus::open`] and [`Untyped::request`].
    pub async fn open(&self, name: &str, body: impl Into<Body>) -> Result<Opened<Body, Body, Body>, RequestError> {
        self.open_somewhere(To::Any, name, body.into()).await
    }

    /// As [`Bus::open_to`], with encoded items. `node/` is whoever takes it on that node.
    ///
    /// # Errors
    ///
    /// As [`Bus::open_to`] and [`Untyped::request`].
    pub async fn open_to(
        &self,
        manager: &str,
        name: &str,
        body: impl Into<Body>,
    ) -> Result<Opened<Body, Body, Body>, RequestError> {
        self.open_somewhere(To::named(manager), name, body.into()).await
    }

    async fn open_somewhere(
        &self,
        to: To<'_>,
        name: &str,
        body: Body,
    ) -> Result<Opened<Body, Body, Body>, RequestError> {
        let options = Options::default();
        let descriptor = self.bus.core.descriptor(name, Kind::Tunnel)?;
        let take: fn(Value) -> _ = match body.encoding {
            Encoding::MessagePack => |value| value.into_body(Encoding::MessagePack),
            Encoding::Json => |value| value.into_body(Encoding::Json),
        };
        let envelope = Envelope::untyped(self.bus.tunnel_head(descriptor, &options)?, body)?;
        self.bus.open_untyped(envelope, to, take).await
    }

    /// Subscribes to every notification whose name the pattern selects: `quake.*` takes one more segment, `quake.>` the
    /// rest of the name.
    pub fn subscribe(&self, pattern: &str) -> Subscribe<UntypedSubscription> {
        Subscribe::new(self.bus.clone(), None, Pattern::new(pattern).map_err(DeclareError::from))
    }

    fn envelope(&self, name: &str, kind: Kind, body: Body, options: &Options) -> Result<Envelope, PublishError> {
        let descriptor = self.bus.core.descriptor(name, kind)?;
        let event = descriptor.name().clone();
        let head = self.bus.head(descriptor, options)?;
        Envelope::untyped(head, body).map_err(|source| PublishError::Payload { event, source })
    }

    fn request_envelope(
        &self,
        name: &str,
        body: Body,
        options: &Options,
        now: Instant,
    ) -> Result<Envelope, RequestError> {
        let descriptor = self.bus.core.descriptor(name, Kind::Request)?;
        let mut head = self.bus.head_at(descriptor, options, || now).map_err(crate::request::not_sent)?;
        let deadline = head.deadline.unwrap_or_else(|| now + REQUEST_TIMEOUT_DEFAULT);
        head.deadline = Some(self.bus.within_deadline(deadline));
        Ok(Envelope::untyped(head, body)?)
    }
}
