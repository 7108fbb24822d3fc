//! The verbs of the bus for events that were declared at run time and whose payloads have Rust types all the same.

use std::time::Instant;

use edri_events::{Data, DescriptorRef, Envelope, Kind, REQUEST_TIMEOUT_DEFAULT, Value};

use crate::bus::{Bus, NOTHING, Options, check_kind, deadline};
use crate::request::{To, not_sent};
use crate::{DeclareError, PublishError, Receipt, RequestError, Untyped};

/// The verbs of [`Bus`] for one event that was declared at run time, with values of Rust types for payloads and answers: for
/// names that are made at run time, as one of each device or each tenant. Nothing is encoded while it stays in the process;
/// elsewhere it is what [`Untyped`] would have sent.
///
/// ```no_run
/// # async fn f(bus: edri_router::Bus) -> Result<(), Box<dyn std::error::Error>> {
/// use edri_events::{Descriptor, Kind};
///
/// bus.declare(Descriptor::declare("plant.north.level", Kind::Request)?.build()).await?;
/// let level = bus.untyped().event("plant.north.level", Kind::Request)?;
/// let liters: f64 = bus.described(&level).request("tank 4".to_owned()).await?;
/// # Ok(()) }
/// ```
///
/// A worker has them by [`Parts::read`](edri_events::Parts::read), and answers with
/// [`Value::typed`](edri_events::Value::typed).
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    bus: &'a Bus,
    event: &'a DescriptorRef,
}

impl Untyped<'_> {
    /// The event of this name, for [`Bus::described`]: looked up once, where the other verbs look it up each time.
    ///
    /// # Errors
    ///
    /// [`DeclareError`] when nobody has declared it, or it is of another kind.
    pub fn event(&self, name: &str, kind: Kind) -> Result<DescriptorRef, DeclareError> {
        self.bus.core.descriptor(name, kind)
    }
}

impl Bus {
    /// The verbs for an event that was declared at run time and whose payload has a Rust type. One that nobody has declared here
    /// is declared by its first use, as events with Rust types are.
    #[must_use]
    #[inline]
    pub fn described<'a>(&'a self, event: &'a DescriptorRef) -> Described<'a> {
        Described { bus: self, event }
    }
}

impl Described<'_> {
    /// As [`Bus::publish`].
    ///
    /// # Errors
    ///
    /// As [`Bus::publish`]; also when the event is no notification, or the value lacks its key.
    pub async fn publish<T: Data>(self, value: T) -> Result<Receipt, PublishError> {
        self.publish_with(value, &NOTHING).await
    }

    /// As [`Bus::publish_with`].
    ///
    /// # Errors
    ///
    /// As [`Described::publish`].
    pub async fn publish_with<T: Data>(self, value: T, options: &Options) -> Result<Receipt, PublishError> {
        check_kind(self.event, Kind::Notification)?;
        let head = self.bus.head(self.event.clone(), options)?;
        let envelope = Envelope::described(head, value)
            .map_err(|source| PublishError::Payload { event: self.event.name().clone(), source })?;
        self.bus.send(envelope).await
    }

    /// As [`Bus::request`]. The answer may be of any type that is written as `R` is.
    ///
    /// # Errors
    ///
    /// As [`Bus::request`]; also when the event is no request, or the value lacks its key.
    pub async fn request<T: Data, R: Data>(self, value: T) -> Result<R, RequestError> {
        self.request_with(value, &NOTHING).await
    }

    /// As [`Bus::request_with`].
    ///
    /// # Errors
    ///
    /// As [`Described::request`].
    pub async fn request_with<T: Data, R: Data>(self, value: T, options: &Options) -> Result<R, RequestError> {
        Ok(self.ask_with(value, options).await?.read()?)
    }

    /// As [`Described::request_with`], with the answer as it came.
    ///
    /// # Errors
    ///
    /// As [`Described::request`].
    pub async fn ask_with<T: Data>(self, value: T, options: &Options) -> Result<Value, RequestError> {
        let began = Instant::now();
        self.bus.ask(self.request_envelope(value, options, began)?, began, To::Any).await
    }

    #[inline(always)]
    fn request_envelope<T: Data>(self, value: T, options: &Options, began: Instant) -> Result<Envelope, RequestError> {
        check_kind(self.event, Kind::Request)?;
        let limit = deadline(self.event, options, || began).unwrap_or_else(|| began + REQUEST_TIMEOUT_DEFAULT);
        let limit = Some(self.bus.within_deadline(limit));
        let head = self.bus.head_until(self.event.clone(), options, limit).map_err(not_sent)?;
        Ok(Envelope::described(head, value)?)
    }
}
