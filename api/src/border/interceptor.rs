//! Code that sees every event on its way in and out of the gateway.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use edri_events::{
    Body, DescriptorRef, Encoding, Envelope, Event, EventName, Failure, Headers, HeadersError, Kind, Value,
};
use edri_router::{Left, Relayed, RequestError, Told, TunnelError};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Caller;

/// Sees every event that passes the gateway, and who sends it or is to have it, whatever the way: it lets it pass, refuses it,
/// rewrites it, or just looks. Given to [`Api::intercept`](crate::Api::intercept).
///
/// `before` of several runs in the order in which they were given, `after` in the reverse one. What the gateway answers itself (a
/// caller without permission, a malformed body) no interceptor sees; neither does one see what workers send one another.
///
/// ```
/// use edri_api::{Incoming, Interceptor, Outgoing};
/// use edri_events::Failure;
///
/// /// Nobody orders at night; and what is asked is logged.
/// struct House;
///
/// impl Interceptor for House {
///     async fn before(&self, event: &mut Incoming) -> Result<(), Failure> {
///         let closed = *event.name() == "order.place" && event.header("x-hour") == Some("3");
///         if closed { Err(Failure::new("unavailable", "we are closed until seven")) } else { Ok(()) }
///     }
///
///     async fn after(&self, event: &Incoming, outcome: &mut Outgoing<'_>) {
///         println!("{:?} {} {:?} {:?}", event.caller().name(), event.name(), outcome.code(), event.elapsed());
///     }
/// }
/// ```
pub trait Interceptor: Send + Sync + 'static {
    /// Before the event is checked and sent. What it was changed to is checked by its schema afterwards. With an error it goes no
    /// further, and the caller is answered with the failure.
    fn before(&self, event: &mut Incoming) -> impl Future<Output = Result<(), Failure>> + Send {
        let _ = event;
        async { Ok(()) }
    }

    /// When it is known what came of an event that was let through: its response, how many groups have the notification, how the tunnel
    /// has ended, or why not. When all managers were asked, once for each answer. Not when the caller has gone before that.
    fn after(&self, event: &Incoming, outcome: &mut Outgoing<'_>) -> impl Future<Output = ()> + Send {
        let _ = (event, outcome);
        async {}
    }

    /// An event on its way to a subscriber over WebSocket or as a server-sent event. With an error this subscriber does not get it, and is
    /// not told. It runs where events are written, so it must be quick.
    ///
    /// # Errors
    ///
    /// Why the subscriber is not to have it, for the log.
    fn deliver(&self, event: &mut Delivered<'_>) -> Result<(), Failure> {
        let _ = event;
        Ok(())
    }
}

/// The way that an event comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Way {
    /// A request over HTTP.
    Http,
    /// A frame over WebSocket.
    WebSocket,
    /// Server-sent events.
    ServerSentEvents,
}

/// An event from outside.
pub struct Incoming {
    descriptor: DescriptorRef,
    caller: Caller,
    way: Way,
    body: Body,
    key: Option<Box<str>>,
    headers: Headers,
    began: Instant,
}

impl Incoming {
    pub(super) fn new(descriptor: DescriptorRef, caller: Caller, way: Way, event: &Relayed) -> Self {
        Self {
            descriptor,
            caller,
            way,
            body: event.body.clone(),
            key: event.key.clone(),
            headers: event.headers.clone(),
            began: Instant::now(),
        }
    }

    /// Puts what may have been changed where it is sent from.
    pub(super) fn write_to(&self, event: &mut Relayed) {
        event.body = self.body.clone();
        event.key.clone_from(&self.key);
        event.headers = self.headers.clone();
    }

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &EventName {
        self.descriptor.name()
    }

    /// The event's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.descriptor.kind()
    }

    /// All that the node knows of the event.
    #[must_use]
    pub fn descriptor(&self) -> &DescriptorRef {
        &self.descriptor
    }

    /// Who sends it.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// How it comes.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// How long ago it came.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The payload as it came, or was changed to.
    #[must_use]
    pub fn payload(&self) -> &Body {
        &self.body
    }

    /// Reads the payload, as the event's type or as any other, such as `serde_json::Value`.
    ///
    /// # Errors
    ///
    /// `invalid_payload` when it is none; that fits to be returned.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        read(&self.body)
    }

    /// Puts another payload in its place, in the encoding that it had.
    ///
    /// # Errors
    ///
    /// `failed` when it cannot be written.
    pub fn write<T: Serialize + ?Sized>(&mut self, payload: &T) -> Result<(), Failure> {
        self.body = Body::encode(self.body.encoding, payload)?;
        Ok(())
    }

    /// The key that the sender chose instead of the event's own.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The value of a header of the event, which its handler sees.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// Adds a header to the event, or replaces it.
    ///
    /// # Errors
    ///
    /// When there are too many of them, or it is too long.
    pub fn set_header(&mut self, name: impl Into<String>, value: impl Into<String>) -> Result<(), HeadersError> {
        self.headers.insert(name, value)
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptor, caller, way, .. } = self;
        f.debug_struct("Incoming")
            .field("name", descriptor.name())
            .field("caller", &caller.name())
            .field("way", way)
            .finish_non_exhaustive()
    }
}

/// What came of an event from outside.
#[derive(Debug)]
pub struct Outgoing<'o> {
    left: &'o mut Left,
}

impl<'o> Outgoing<'o> {
    pub(super) fn new(left: &'o mut Left) -> Self {
        Self { left }
    }

    /// The stable code of what went wrong; `None` when all went well.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match &*self.left {
            Left::Published(outcome) => outcome.as_ref().err().map(edri_router::PublishError::code),
            Left::Answered(outcome) => outcome.as_ref().err().map(RequestError::code),
            Left::Ended(outcome) => outcome.as_ref().err().map(TunnelError::code),
        }
    }

    /// What went wrong, for people.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let told = match &*self.left {
            Left::Published(outcome) => outcome.as_ref().err().map(Told::from),
            Left::Answered(outcome) => outcome.as_ref().err().map(Told::from),
            Left::Ended(outcome) => outcome.as_ref().err().map(TunnelError::told_as_result),
        };
        told.map(|told| told.message)
    }

    /// How many subscriber groups have the notification.
    #[must_use]
    pub fn groups(&self) -> Option<u32> {
        match &*self.left {
            Left::Published(Ok(receipt)) => Some(receipt.deliveries),
            _ => None,
        }
    }

    /// The response, or the final result of a tunnel, if there is one. It is encoded for that unless it is already.
    ///
    /// # Errors
    ///
    /// `invalid_payload` when it cannot be written; that is its sender's answer then.
    pub fn response(&mut self) -> Result<Option<Body>, Failure> {
        let value = match &mut *self.left {
            Left::Published(_) => return Ok(None),
            Left::Answered(outcome) => outcome.as_mut().ok(),
            Left::Ended(outcome) => outcome.as_mut().ok(),
        };
        let Some(value) = value else { return Ok(None) };
        let nothing = Value::from(Body::new(Encoding::MessagePack, bytes::Bytes::new()));
        match std::mem::replace(value, nothing).into_body(Encoding::MessagePack) {
            Ok(body) => {
                *value = body.clone().into();
                Ok(Some(body))
            }
            Err(error) => {
                let failure = Failure::new("invalid_payload", error.to_string());
                self.refuse(failure.clone());
                Err(failure)
            }
        }
    }

    /// Reads the response, or the final result of a tunnel.
    ///
    /// # Errors
    ///
    /// `invalid_payload` when there is none, or it is no `T`.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        match self.response()? {
            Some(body) => read(&body),
            None => Err(Failure::new("invalid_payload", "there is no response to be read")),
        }
    }

    /// Answers with this instead. Of a notification only failures are told.
    ///
    /// # Errors
    ///
    /// `failed` when it cannot be written, or the event is a notification.
    pub fn respond<T: Serialize + ?Sized>(&mut self, response: &T) -> Result<(), Failure> {
        let value = Value::from(Body::encode(Encoding::MessagePack, response)?);
        match &mut *self.left {
            Left::Published(_) => return Err(Failure::message("a notification has no response")),
            Left::Answered(outcome) => *outcome = Ok(value),
            Left::Ended(outcome) => *outcome = Ok(value),
        }
        Ok(())
    }

    /// Answers with this failure instead. What a handler has done stays done, and who has a notification keeps it.
    pub fn refuse(&mut self, failure: Failure) {
        match &mut *self.left {
            Left::Published(outcome) => *outcome = Err(edri_router::PublishError::Refused(failure)),
            Left::Answered(outcome) => *outcome = Err(RequestError::Failed(failure)),
            Left::Ended(outcome) => *outcome = Err(TunnelError::Aborted(failure)),
        }
    }
}

/// An event on its way to a subscriber.
pub struct Delivered<'d> {
    caller: &'d Caller,
    way: Way,
    event: Envelope,
}

impl<'d> Delivered<'d> {
    pub(super) fn new(caller: &'d Caller, way: Way, event: Envelope) -> Self {
        Self { caller, way, event }
    }

    pub(super) fn into_envelope(self) -> Envelope {
        self.event
    }

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &EventName {
        self.event.name()
    }

    /// Who subscribes.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        self.caller
    }

    /// How it goes.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// The event's key.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        self.event.key()
    }

    /// The value of a header of the event.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.event.header(name)
    }

    /// The event as its type, without a copy.
    ///
    /// # Errors
    ///
    /// `invalid_payload` when it is none.
    pub fn event<E: Event>(&self) -> Result<&E, Failure> {
        self.event.payload().map_err(|error| Failure::new("invalid_payload", error.to_string()))
    }

    /// Reads the payload as any type, such as `serde_json::Value`.
    ///
    /// # Errors
    ///
    /// `invalid_payload` when it is none.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let bytes = self.event.encoded(Encoding::MessagePack).map_err(invalid)?;
        Encoding::MessagePack.decode(bytes).map_err(invalid)
    }

    /// Puts another payload in its place, for this subscriber. The event keeps its id and its key.
    ///
    /// # Errors
    ///
    /// `failed` when it cannot be written.
    pub fn write<T: Serialize + ?Sized>(&mut self, payload: &T) -> Result<(), Failure> {
        let body = Body::encode(Encoding::MessagePack, payload)?;
        let mut head = self.event.head().clone();
        if head.key().is_none()
            && let Some(key) = self.event.key()
        {
            head.set_key(key);
        }
        self.event = Envelope::untyped(head, body)?;
        Ok(())
    }
}

impl fmt::Debug for Delivered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, way, event } = self;
        f.debug_struct("Delivered")
            .field("name", event.name())
            .field("caller", &caller.name())
            .field("way", way)
            .finish_non_exhaustive()
    }
}

fn read<T: DeserializeOwned>(body: &Body) -> Result<T, Failure> {
    // As a call without a payload has it.
    let bytes: Cow<'_, [u8]> = match (body.bytes.is_empty(), body.encoding) {
        (false, _) => Cow::Borrowed(&body.bytes),
        (true, Encoding::Json) => Cow::Borrowed(b"{}"),
        (true, Encoding::MessagePack) => Cow::Borrowed(b"\x80"),
    };
    body.encoding.decode(&bytes).map_err(invalid)
}

fn invalid(error: edri_events::CodecError) -> Failure {
    Failure::new("invalid_payload", error.to_string())
}

/// An [`Interceptor`] of any type.
pub(crate) trait Erased: Send + Sync {
    fn before<'a>(&'a self, event: &'a mut Incoming) -> BoxFuture<'a, Result<(), Failure>>;
    fn after<'a>(&'a self, event: &'a Incoming, outcome: &'a mut Outgoing<'_>) -> BoxFuture<'a, ()>;
    fn deliver(&self, event: &mut Delivered<'_>) -> Result<(), Failure>;
}

impl<I: Interceptor> Erased for I {
    fn before<'a>(&'a self, event: &'a mut Incoming) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(Interceptor::before(self, event))
    }

    fn after<'a>(&'a self, event: &'a Incoming, outcome: &'a mut Outgoing<'_>) -> BoxFuture<'a, ()> {
        Box::pin(Interceptor::after(self, event, outcome))
    }

    fn deliver(&self, event: &mut Delivered<'_>) -> Result<(), Failure> {
        Interceptor::deliver(self, event)
    }
}
