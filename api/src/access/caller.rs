use std::sync::Arc;
use std::time::SystemTime;

use edri_events::{EventName, Pattern};

use super::permissions::{Granted, Verb, is_own};
use crate::problem::Problem;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    name: Option<Arc<str>>,
    /// `None`: everything but what has to be allowed by name.
    permissions: Option<Arc<Granted>>,
    expires: Option<SystemTime>,
}

impl Caller {
    /// Somebody who did not say who it is, and may do this; when it is `None`, everything but what has to be allowed by name.
    pub(super) fn anonymous(permissions: Option<Arc<Granted>>) -> Self {
        Self { name: None, permissions, expires: None }
    }

    pub(super) fn named(name: Arc<str>, permissions: Arc<Granted>, expires: Option<SystemTime>) -> Self {
        Self { name: Some(name), permissions: Some(permissions), expires }
    }

    /// The name in the caller's token; `None` when it has none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn shared_name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }

    /// When the caller's token ends; `None` when it does not. A connection that outlives it is somebody's who is not known.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// Whether the caller may do this with the event.
    #[must_use]
    pub fn may(&self, verb: Verb, event: &EventName) -> bool {
        self.permissions.as_ref().map_or_else(|| !is_own(event), |permissions| permissions.allows(verb, event))
    }

    /// Whether the caller may handle every event that this pattern selects.
    pub(crate) fn may_serve(&self, pattern: &Pattern) -> bool {
        self.permissions.as_ref().is_none_or(|permissions| permissions.covers(Verb::Serve, pattern))
    }

    /// Whether the caller may do this by a permission that names the event, or the first part of its name.
    pub(crate) fn may_by_name(&self, verb: Verb, event: &EventName) -> bool {
        self.permissions.as_ref().is_some_and(|permissions| permissions.names(verb, event))
    }

    /// What a caller is told that may not do this.
    pub(crate) fn refusal(&self, verb: Verb, event: &EventName) -> Problem {
        match self.permissions {
            // A token would change nothing, as none is known.
            None => Problem::needs_access(event),
            Some(_) => Problem::forbidden(verb, event, self.name.is_some()),
        }
    }

    pub(super) fn may_read_metrics(&self) -> bool {
        self.permissions.as_ref().is_none_or(|permissions| permissions.metrics)
    }
}
