//! Errors as they are told to another process or node: a stable code, texts, and what was waited for. What has no structure
//! there comes back as a text with its code: the variants called `Elsewhere`.

use std::time::Duration;

use edri_events::{CodecError, EventId, EventName, Failure, FieldError, Invalid, ManagerName, NodeName};

use crate::{DeclareError, PublishError, Receipt, RequestError, TunnelError, WaitEnded};

/// An error on its way to another process or node. Whoever reads it makes the same error of it, as far as it can be known
/// there: code and texts are always kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// It is the handler's own failure, whose codes are the handler's too.
    pub failure: bool,
    /// The stable code.
    pub code: String,
    /// For people.
    pub message: String,
    /// What else a failure says.
    pub detail: Option<String>,
    /// What was waited for.
    pub wait: Option<ToldWait>,
    /// What is wrong with a payload, field by field.
    pub errors: Vec<FieldError>,
}

/// A wait that ended without what it waited for, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToldWait {
    /// How long it lasted, in milliseconds.
    pub waited_ms: u64,
    /// The groups waited for, as [`GroupName::to_text`](crate::GroupName::to_text) writes them.
    pub groups: Vec<String>,
    /// Managers that wait for one another in a circle.
    pub cycle: Vec<String>,
}

/// The codes of [`DeclareError`] that come back as a text. `stopping` is everybody's.
const DECLARE_CODES: [&str; 6] =
    ["name_taken", "unknown_event", "wrong_kind", "invalid_name", "invalid_headers", "overloaded"];

impl Told {
    /// An error of this code, without anything else.
    #[must_use]
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), ..Self::default() }
    }

    /// As it was told by the node `node`: groups that it calls its own are named with it.
    #[must_use]
    pub fn by_node(mut self, node: &NodeName) -> Self {
        let groups = self.wait.iter_mut().flat_map(|wait| &mut wait.groups);
        groups.filter(|group| !group.contains('/')).for_each(|group| group.insert_str(0, &format!("{node}/")));
        self
    }

    fn waited(code: &str, message: impl Into<String>, wait: ToldWait) -> Self {
        Self { wait: Some(wait), ..Self::error(code, message) }
    }

    fn of_payload(code: &str, source: &CodecError) -> Self {
        let errors = match source {
            CodecError::Invalid(invalid) => invalid.errors().to_vec(),
            _ => Vec::new(),
        };
        Self { errors, ..Self::error(code, source.to_string()) }
    }

    /// What is wrong with a payload.
    fn into_payload(self) -> CodecError {
        match Invalid::new(self.errors) {
            Some(invalid) => CodecError::Invalid(invalid),
            None => CodecError::Elsewhere(self.message),
        }
    }

    fn of_failure(failure: &Failure) -> Self {
        Self { detail: failure.detail().map(str::to_owned), ..Self::error(failure.code(), failure.text()) }
    }

    fn into_failure(self) -> Failure {
        let failure = Failure::new(self.code, self.message);
        match self.detail {
            Some(detail) => failure.with_detail(detail),
            None => failure,
        }
    }

    fn to_declare(&self) -> Option<DeclareError> {
        let code = DECLARE_CODES.iter().find(|code| **code == self.code)?;
        Some(DeclareError::Elsewhere { code, message: self.message.clone() })
    }
}

/// In words.
impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl From<&Failure> for Told {
    /// As the handler's own.
    fn from(failure: &Failure) -> Self {
        Self { failure: true, ..Self::of_failure(failure) }
    }
}

impl From<&RequestError> for Told {
    fn from(error: &RequestError) -> Self {
        let code = error.code();
        match error {
            RequestError::Failed(failure) => Self::from(failure),
            RequestError::Elsewhere(failure) => Self::of_failure(failure),
            RequestError::Overloaded(wait) | RequestError::TimedOut(wait) => {
                Self::waited(code, error.to_string(), ToldWait::from(&**wait))
            }
            RequestError::WorkerLost(detail) | RequestError::PeerLost(detail) => Self::error(code, detail),
            RequestError::Payload(source) => Self::of_payload(code, source),
            // Their texts are for people; the event's name is known to whoever asked.
            other => Self::error(code, other.to_string()),
        }
    }
}

impl RequestError {
    /// Why the request of `event` has no response, as it was told.
    #[must_use]
    pub fn from_told(told: Told, event: &EventName) -> Self {
        if told.failure {
            return Self::Failed(told.into_failure());
        }
        match (&*told.code, &told.wait) {
            ("no_handler", _) => Self::NoHandler(event.clone()),
            ("overloaded", Some(wait)) => Self::Overloaded(Box::new(wait.into())),
            ("timed_out", wait) => Self::TimedOut(Box::new(wait.as_ref().map(WaitEnded::from).unwrap_or_default())),
            ("worker_lost", _) => Self::WorkerLost(told.message),
            ("peer_lost", _) => Self::PeerLost(told.message),
            ("invalid_payload", _) => Self::Payload(told.into_payload()),
            ("stopping", _) => Self::Stopping,
            _ => match told.to_declare() {
                Some(error) => Self::Declare(error),
                None => Self::Elsewhere(told.into_failure()),
            },
        }
    }
}

impl From<&PublishError> for Told {
    fn from(error: &PublishError) -> Self {
        let code = error.code();
        match error {
            PublishError::Overloaded { wait, .. } => Self::waited(code, error.to_string(), ToldWait::from(&**wait)),
            PublishError::Payload { source, .. } => Self::of_payload(code, source),
            PublishError::Refused(failure) => Self::from(failure),
            PublishError::Elsewhere(failure) => Self::of_failure(failure),
            other => Self::error(code, other.to_string()),
        }
    }
}

impl PublishError {
    /// Why the notification `event` was not delivered, as it was told. Who has it all the same is not told.
    #[must_use]
    pub fn from_told(told: Told, event: &EventName, id: EventId) -> Self {
        if told.failure {
            return Self::Refused(told.into_failure());
        }
        match (&*told.code, &told.wait) {
            ("overloaded", Some(wait)) => {
                let (wait, receipt) = (Box::new(wait.into()), Receipt::new(id, 0));
                Self::Overloaded { event: event.clone(), wait, receipt }
            }
            ("invalid_payload", _) => Self::Payload { event: event.clone(), source: told.into_payload() },
            ("stopping", _) => Self::Stopping,
            _ => match told.to_declare() {
                Some(error) => Self::Declare(error),
                None => Self::Elsewhere(told.into_failure()),
            },
        }
    }
}

/// Why a tunnel broke. That it was aborted is the same as any other break there, so nothing is said to be a failure.
impl From<&TunnelError> for Told {
    fn from(error: &TunnelError) -> Self {
        let code = error.code();
        match error {
            TunnelError::Aborted(failure) => Self::of_failure(failure),
            TunnelError::Idle(limit) => {
                Self::waited(code, error.to_string(), ToldWait { waited_ms: millis(*limit), ..ToldWait::default() })
            }
            TunnelError::Payload(source) => Self::of_payload(code, source),
            TunnelError::Ended(ended) => Self { failure: false, ..Self::from(&**ended) },
            other => Self::error(code, other.to_string()),
        }
    }
}

impl TunnelError {
    /// Why a tunnel broke, as it was told.
    #[must_use]
    pub fn from_told(told: Told) -> Self {
        match (&*told.code, &told.wait) {
            ("peer_lost", _) => Self::PeerDropped,
            ("timed_out", Some(wait)) => Self::Idle(Duration::from_millis(wait.waited_ms)),
            ("invalid_payload", _) => told.into_payload().into(),
            _ => Self::Aborted(told.into_failure()),
        }
    }

    /// Why a tunnel has no result, as an answer to its opener.
    #[must_use]
    pub fn told_as_result(&self) -> Told {
        match self {
            Self::Ended(ended) => Told::from(&**ended),
            Self::Aborted(failure) => Told::from(failure),
            other => Told::from(other),
        }
    }
}

impl From<&WaitEnded> for ToldWait {
    fn from(wait: &WaitEnded) -> Self {
        Self {
            waited_ms: millis(wait.waited),
            groups: wait.groups.iter().map(crate::GroupName::to_text).collect(),
            cycle: wait.cycle.iter().map(ManagerName::to_string).collect(),
        }
    }
}

impl From<&ToldWait> for WaitEnded {
    fn from(wait: &ToldWait) -> Self {
        Self::new(
            Duration::from_millis(wait.waited_ms),
            wait.groups.iter().filter_map(|text| text.parse().ok()).collect(),
            wait.cycle.iter().filter_map(|text| ManagerName::new(text).ok()).collect(),
        )
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
