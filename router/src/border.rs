//! What comes from outside is looked at before it is sent, and what comes of it before it goes back.

use std::fmt;

use edri_events::{CodecError, Descriptor, Failure, Value};
use futures_util::future::BoxFuture;

use crate::relay::Relayed;
use crate::{PublishError, Receipt, RequestError, TunnelError};

/// Watches over the events of one sender outside. A [`Relay`](crate::Relay) asks it: see [`Relay::guarded`](crate::Relay::guarded).
pub trait Border: Send + Sync + fmt::Debug {
    /// Whether it is concerned with such events at all: those that it is not cost nothing more.
    fn concerns(&self, descriptor: &Descriptor) -> bool;

    /// Looks at an event before it is sent: it may pass as it is or changed, or is refused.
    fn enter<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        event: &'a mut Relayed,
    ) -> BoxFuture<'a, Result<Box<dyn Passage>, Refusal>>;

    /// Says what is wrong with a payload that could not be read, better than the codec can.
    fn explain(&self, descriptor: &Descriptor, payload: &edri_events::Body, error: CodecError) -> CodecError;
}

/// An event that has passed a [`Border`], until what comes of it goes back.
pub trait Passage: Send + fmt::Debug {
    /// What comes of the event, which may be changed. Called once, for each answer when all were asked, and not at all when the sender
    /// waits no more.
    fn leave<'a>(&'a mut self, outcome: &'a mut Left) -> BoxFuture<'a, ()>;

    /// What looks at each item that the opener of a tunnel sends, if anything does.
    fn items(&self) -> Option<CheckItem>;
}

/// Looks at an item before it is sent.
pub type CheckItem = std::sync::Arc<dyn Fn(&edri_events::Body) -> Result<(), CodecError> + Send + Sync>;

/// What came of an event.
#[derive(Debug)]
pub enum Left {
    /// Of a notification.
    Published(Result<Receipt, PublishError>),
    /// Of a request.
    Answered(Result<Value, RequestError>),
    /// Of a tunnel that has ended, or could not be opened.
    Ended(Result<Value, TunnelError>),
}

/// Why an event may not pass.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// Somebody refuses it.
    Failed(Failure),
    /// Its payload is not what it should be.
    Payload(CodecError),
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Failed(failure) => Self::Failed(failure),
            Refusal::Payload(error) => Self::Payload(error),
        }
    }
}
