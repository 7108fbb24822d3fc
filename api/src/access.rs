//! Who asks, and what they may do.

use std::sync::Arc;

use axum::http::request::Parts;
use edri_events::{EventName, Pattern};

use crate::problem::Problem;

/// What a caller wants to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Publish a notification.
    Publish,
    /// Send a request, or open a tunnel.
    Request,
    /// Be given notifications.
    Subscribe,
    /// Handle events.
    Serve,
}

/// What somebody may do: patterns of event names for each verb.
#[derive(Debug, Clone, Default)]
pub struct Permissions {
    grants: Vec<(Verb, Pattern)>,
}

impl Permissions {
    /// Nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn allows(&self, verb: Verb, event: &EventName) -> bool {
        self.grants.iter().any(|(granted, pattern)| *granted == verb && pattern.matches(event))
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    name: Option<Arc<str>>,
    permissions: Option<Arc<Permissions>>,
}

impl Caller {
    /// Somebody who did not say who it is.
    pub(crate) fn anonymous() -> Self {
        Self { name: None, permissions: None }
    }

    /// The name in the caller's token.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether the caller may do this with the event.
    #[must_use]
    pub fn may(&self, verb: Verb, event: &EventName) -> bool {
        self.permissions.as_ref().is_none_or(|permissions| permissions.allows(verb, event))
    }

    /// Refuses what the caller may not do.
    pub(crate) fn check(&self, verb: Verb, event: &EventName) -> Result<(), Problem> {
        if self.may(verb, event) {
            return Ok(());
        }
        Err(Problem::forbidden(verb, event, self.name.is_some()))
    }
}

/// Who is let in.
#[derive(Debug, Default)]
pub(crate) struct Access {}

impl Access {
    /// Whom this token names, as a client says it that cannot set headers.
    pub(crate) fn caller_by_token(&self, _token: &str) -> Result<Caller, Problem> {
        Ok(Caller::anonymous())
    }

    /// Who sends this request.
    pub(crate) fn caller(&self, _head: &Parts) -> Result<Caller, Problem> {
        Ok(Caller::anonymous())
    }
}
