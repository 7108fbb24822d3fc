use std::sync::Arc;
use std::time::SystemTime;

use edri_events::{EventName, Pattern};

use super::permissions::{Granted, Verb};
use crate::problem::Problem;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    name: Option<Arc<str>>,
    /// `None`: everything.
    permissions: Option<Arc<Granted>>,
    expires: Option<SystemTime>,
}

impl Caller {
    /// Somebody who did not say who it is, and may do this; everything when it is `None`.
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
        self.permissions.as_ref().is_none_or(|permissions| permissions.allows(verb, event))
    }

    /// Whether the caller may handle every event that this pattern selects.
    pub(crate) fn may_serve(&self, pattern: &Pattern) -> bool {
        self.permissions.as_ref().is_none_or(|permissions| permissions.covers(Verb::Serve, pattern))
    }

    /// Refuses what the caller may not do.
    pub(crate) fn check(&self, verb: Verb, event: &EventName) -> Result<(), Problem> {
        if self.may(verb, event) {
            return Ok(());
        }
        Err(Problem::forbidden(verb, event, self.name.is_some()))
    }

    pub(super) fn may_read_metrics(&self) -> bool {
        self.permissions.as_ref().is_none_or(|permissions| permissions.metrics)
    }
}
