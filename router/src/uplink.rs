//! A router without a table of its own: that of a process worker, where all that is sent leaves the process.
//!
//! Nothing ever subscribes in such a process, so every verb of the [`Bus`](crate::Bus) finds no entry in the table and comes
//! to its slow path; only there it looks for the uplink. The hot path of a node knows nothing of it.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use edri_events::{DescriptorRef, Envelope, Kind, Pattern};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::delivery::{Delivery, Offer};
use crate::group::GroupRef;
use crate::pending::Outcome;
use crate::{
    Conditions, DeclareError, GroupName, Health, Missed, Position, PublishError, Receipt, Recorded, RequestError, Start,
};

/// What carries a process worker's own calls to its node. Dropping a future takes the call back.
pub trait Uplink: Send + Sync {
    /// Tells the node of an event that is about to be used.
    ///
    /// # Errors
    ///
    /// [`DeclareError`] when the event is known here as something else.
    fn declare(&self, event: &DescriptorRef) -> Result<(), DeclareError>;

    /// What an untyped verb sends under this name. The node knows whether there is such an event.
    ///
    /// # Errors
    ///
    /// [`DeclareError`] when the text is no name, or names an event of another kind.
    fn descriptor(&self, name: &str, kind: Kind) -> Result<DescriptorRef, DeclareError>;

    /// Publishes events in their order, waiting until `limit` at most.
    fn publish(&self, envelopes: Vec<Envelope>, limit: Instant) -> BoxFuture<'static, Result<Receipt, PublishError>>;

    /// Publishes an event if that needs no waiting here; what becomes of it at the node is not told.
    ///
    /// # Errors
    ///
    /// [`NotNow`]; the event has gone nowhere.
    fn try_publish(&self, envelope: Envelope) -> Result<Receipt, NotNow>;

    /// Asks one worker, of this manager if one is named: `manager`, `node/manager`, or `node/` for whoever answers there.
    fn request(&self, envelope: Envelope, to: Option<&str>) -> BoxFuture<'static, Outcome>;

    /// Asks one worker of every manager that answers. Ready with the first answer.
    fn request_all(&self, envelope: Envelope) -> BoxFuture<'static, Result<AnswersAbove, RequestError>>;

    /// Opens a tunnel, to this manager if one is named, as [`Uplink::request`]. Ready once a worker's inbox has it, with what comes of it
    /// in the end.
    fn open(
        &self,
        envelope: Envelope,
        offer: Box<dyn Offer>,
        to: Option<&str>,
    ) -> BoxFuture<'static, Result<OutcomeAbove, RequestError>>;

    /// Subscribes. Ready once the subscription is in place, with where its events come from; dropping that ends it. By default
    /// there are no subscriptions: a worker handles events.
    fn subscribe(&self, wanted: Wanted) -> BoxFuture<'static, Result<Box<dyn Source>, DeclareError>> {
        drop(wanted);
        Box::pin(std::future::ready(Err(DeclareError::NoSubscriptions)))
    }

    /// Subscribes from a place in the past on. Ready once it is known where that is; dropping what it gives ends it. By default
    /// there is none, as there are no subscriptions.
    fn replay(&self, wanted: WantedPast) -> BoxFuture<'static, Result<Box<dyn Past>, DeclareError>> {
        drop(wanted);
        Box::pin(std::future::ready(Err(DeclareError::NoSubscriptions)))
    }
}

/// A subscription beyond the uplink.
#[derive(Debug)]
pub struct Wanted {
    /// By name.
    pub pattern: Pattern,
    /// Only those with this key.
    pub key: Option<Arc<str>>,
    /// Only those for whose payload these hold.
    pub conditions: Option<Conditions>,
    /// How many events may be on their way.
    pub capacity: usize,
    /// The group that stands for it here, which counts what it misses.
    pub group: GroupRef,
}

/// A subscription beyond the uplink that begins in the past.
#[derive(Debug, Clone)]
pub struct WantedPast {
    /// By name.
    pub pattern: Pattern,
    /// Only those with this key.
    pub key: Option<Arc<str>>,
    /// Only those for whose payload these hold.
    pub conditions: Option<Conditions>,
    /// Where it begins.
    pub start: Start,
}

/// Answers from beyond the uplink, by the group of who answered as its node calls it.
pub type AnswersAbove = BoxStream<'static, (GroupName, Outcome)>;

/// An outcome from beyond the uplink.
pub type OutcomeAbove = BoxFuture<'static, Outcome>;

/// Why an event was not sent at once.
#[derive(Debug)]
pub enum NotNow {
    /// As many calls are open as may be.
    Full(GroupName),
    /// It cannot be sent at all.
    Refused(PublishError),
}

/// Takes the outcomes of calls that came from elsewhere: from the node of a process worker, or from another node.
pub trait Outcomes: Send + Sync {
    /// The outcome of this call, once. Called where the worker answers, so it must be quick and must not panic.
    fn outcome(&self, call: u64, outcome: Outcome);
}

/// Where a consumer finds deliveries when its inbox has none.
pub trait Source: Send + std::fmt::Debug {
    /// The next delivery if there is one.
    fn try_next(&mut self) -> Option<Delivery>;
    /// The next delivery; `None` once there will be none. Cancel safe.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>>;
}

/// A history that is read from elsewhere.
pub trait Past: Send {
    /// The next event, or what was missed before it; `None` once there will be none. Cancel safe.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Recorded<Envelope>, Missed>>>;
    /// Where it stands: the place of the last event that was given, or where it begins.
    fn position(&self) -> Position;
}

/// Hears what a worker says of itself.
pub trait Listener: Send + Sync + std::fmt::Debug {
    /// How it is.
    fn health(&self, health: &Health);
    /// A figure of its own.
    fn figure(&self, name: &str, value: f64);
}
