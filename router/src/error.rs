//! What can go wrong on the way, one type an operation. Every error has a stable code; `docs/OPERATIONS.md` has a
//! paragraph for each.

use std::fmt;
use std::time::Duration;

use edri_events::{CodecError, EventName, Failure, HeadersError, Incompatible, Kind, ManagerName, NameError, Pattern};

use crate::{GroupName, Receipt};

/// Why a notification was not, or not wholly, delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Some groups had no room until the wait ended. To the others the event was delivered; to these it is
    /// dead-lettered.
    #[error("no room for `{event}` in time: {wait}")]
    Overloaded {
        /// The event.
        event: EventName,
        /// Who had no room.
        wait: Box<WaitEnded>,
        /// What was delivered all the same.
        receipt: Receipt,
    },
    /// The event cannot be sent under this name.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// The payload or its key cannot be read.
    #[error("payload of `{event}`: {source}")]
    Payload {
        /// The event.
        event: EventName,
        /// What the codec says.
        source: CodecError,
    },
    /// The node is stopping and takes no new work.
    #[error("the node is stopping")]
    Stopping,
    /// Whoever watches over what comes from outside refuses it. The code is its own.
    #[error("{0}")]
    Refused(Failure),
    /// What another process says, which is none of the above.
    #[error("{0}")]
    Elsewhere(Failure),
}

impl PublishError {
    /// The stable code: `overloaded`, `invalid_payload`, `stopping`, or that of the [`DeclareError`].
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Overloaded { .. } => "overloaded",
            Self::Declare(error) => error.code(),
            Self::Payload { .. } => "invalid_payload",
            Self::Stopping => "stopping",
            Self::Refused(failure) | Self::Elsewhere(failure) => failure.code(),
        }
    }
}

/// Why a notification could not be delivered at once; the event comes back.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TryPublishError<E> {
    /// A group has no room.
    #[error("{group} has no room")]
    Full {
        /// The event, delivered to nobody.
        event: E,
        /// The first group without room.
        group: GroupName,
    },
    /// The event cannot be sent at all.
    #[error("{source}")]
    Refused {
        /// The event, delivered to nobody.
        event: E,
        /// Why.
        source: PublishError,
    },
}

impl<E> fmt::Debug for TryPublishError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E> TryPublishError<E> {
    /// The event that was not sent.
    pub fn into_event(self) -> E {
        match self {
            Self::Full { event, .. } | Self::Refused { event, .. } => event,
        }
    }
}

/// Why a request has no response, or a tunnel no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Nobody answers this event, and the view is settled: nobody who might is still on his way.
    #[error("nobody handles `{0}`")]
    NoHandler(EventName),
    /// Those who answer had no room before the deadline, or too many requests are open.
    #[error("overloaded: {0}")]
    Overloaded(Box<WaitEnded>),
    /// No response before the deadline.
    #[error("timed out: {0}")]
    TimedOut(Box<WaitEnded>),
    /// The worker that had the event panicked, was stopped, or let go of it without a response.
    #[error("worker lost: {0}")]
    WorkerLost(String),
    /// The node that had the event is gone, or could not be reached.
    #[error("peer lost: {0}")]
    PeerLost(String),
    /// The handler failed. The code is the handler's own.
    #[error("{0}")]
    Failed(Failure),
    /// The event or its response is not what the other side understands.
    #[error("payload: {0}")]
    Payload(#[from] CodecError),
    /// The event cannot be sent under this name.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// What another process says, which is none of the above.
    #[error("{0}")]
    Elsewhere(Failure),
}

impl RequestError {
    /// The stable code: `no_handler`, `overloaded`, `timed_out`, `worker_lost`, `peer_lost`, `invalid_payload`,
    /// `name_taken`, `unknown_event`, `wrong_kind`, `stopping`, or the handler's own.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::NoHandler(_) => "no_handler",
            Self::Overloaded(_) => "overloaded",
            Self::TimedOut(_) => "timed_out",
            Self::WorkerLost(_) => "worker_lost",
            Self::PeerLost(_) => "peer_lost",
            Self::Failed(failure) => failure.code(),
            Self::Payload(_) => "invalid_payload",
            Self::Declare(error) => error.code(),
            Self::Stopping => "stopping",
            Self::Elsewhere(failure) => failure.code(),
        }
    }
}

/// Why an event cannot travel under its name.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DeclareError {
    /// The name is known with another kind, key or Rust type.
    #[error(transparent)]
    NameTaken(#[from] Incompatible),
    /// An untyped verb named an event that nobody has declared.
    #[error("event `{0}` is not declared: declare it with `bus.declare(..)`, or start what declares it")]
    UnknownEvent(String),
    /// The verb does not fit the event's kind.
    #[error("`{event}` is a {kind}: {advice}")]
    WrongKind {
        /// The event.
        event: EventName,
        /// What it is.
        kind: Kind,
        /// Which verb fits.
        advice: &'static str,
    },
    /// The text is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A header is too many or too long.
    #[error(transparent)]
    Headers(#[from] HeadersError),
    /// The node knows as many names, or holds as many subscriptions, as it may.
    #[error("the node holds its limit of {limit} {what}")]
    Limit {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The node has stopped.
    #[error("the node is stopping")]
    Stopping,
    /// A process worker cannot subscribe.
    #[error(
        "a process worker does not subscribe on its bus: handle the event in its manager, or subscribe in the node's program"
    )]
    NoSubscriptions,
    /// A process worker does not see who handles an event.
    #[error("a process worker does not see who handles an event: wait for that in the node's program")]
    NoView,
    /// No history of this node has all the events that a subscriber asks to have from the past on.
    #[error(
        "no history of this node covers `{0}`: give it one with `App::history` or `Node::add_history`, or subscribe without \
         `since` and `last`"
    )]
    NoHistory(Pattern),
    /// The node has a history of this name or pattern already.
    #[error("`{0}` has a history already: remove that one first, or leave it as it is")]
    HistoryExists(Pattern),
    /// A subscriber of a history has been given places or a policy for an inbox.
    #[error(
        "a subscription with `since` or `last` reads the history and has no inbox: leave out `capacity` and `overflow`"
    )]
    NoInbox,
    /// What another process says of the event.
    #[error("{message}")]
    Elsewhere {
        /// The stable code.
        code: &'static str,
        /// The text for people.
        message: String,
    },
}

impl DeclareError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NameTaken(_) => "name_taken",
            Self::UnknownEvent(_) => "unknown_event",
            Self::WrongKind { .. } => "wrong_kind",
            Self::Name(_) => "invalid_name",
            Self::Headers(_) => "invalid_headers",
            Self::Limit { .. } => "overloaded",
            Self::Stopping => "stopping",
            Self::NoSubscriptions | Self::NoView | Self::NoInbox => "unsupported",
            Self::NoHistory(_) => "no_history",
            Self::HistoryExists(_) => "history_exists",
            Self::Elsewhere { code, .. } => code,
        }
    }
}

/// A wait that ended without what it waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitEnded {
    /// How long it lasted.
    pub waited: Duration,
    /// What was waited for.
    pub groups: Vec<GroupName>,
    /// Managers that wait for one another in a circle, when that is why: each for the next, the last for the first.
    pub cycle: Vec<ManagerName>,
}

impl WaitEnded {
    /// A wait of this length for these groups.
    #[must_use]
    pub fn new(waited: Duration, groups: Vec<GroupName>, cycle: Vec<ManagerName>) -> Self {
        Self { waited, groups, cycle }
    }
}

impl fmt::Display for WaitEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {:?}", self.waited)?;
        for (number, group) in self.groups.iter().enumerate() {
            write!(f, "{} {group}", if number == 0 { " for" } else { "," })?;
        }
        if let Some(first) = self.cycle.first() {
            f.write_str("; these wait for one another: ")?;
            for manager in &self.cycle {
                write!(f, "{manager} → ")?;
            }
            write!(f, "{first}")?;
        }
        Ok(())
    }
}
