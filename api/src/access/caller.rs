use std::sync::Arc;
use std::time::SystemTime;

use edri_events::{EventName, Headers, HeadersError, Pattern};
use tokio::sync::watch;

use super::permissions::{Granted, Verb, is_own};
use crate::problem::Problem;
use crate::sessions::InSession;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    name: Option<Arc<str>>,
    /// `None`: everything but what has to be allowed by name.
    permissions: Option<Arc<Granted>>,
    expires: Option<SystemTime>,
    /// When it has logged in with a browser.
    session: Option<Arc<InSession>>,
    /// When its token stands in a file: closed once it does not.
    stands: Option<watch::Receiver<()>>,
}

impl Caller {
    /// Somebody who did not say who it is, and may do this; when it is `None`, everything but what has to be allowed by name.
    pub(super) fn anonymous(permissions: Option<Arc<Granted>>) -> Self {
        Self { name: None, permissions, expires: None, session: None, stands: None }
    }

    pub(super) fn named(name: Arc<str>, permissions: Arc<Granted>, expires: Option<SystemTime>) -> Self {
        Self { name: Some(name), permissions: Some(permissions), expires, session: None, stands: None }
    }

    pub(super) fn in_session(
        name: Arc<str>,
        permissions: Option<Arc<Granted>>,
        ends: SystemTime,
        session: InSession,
    ) -> Self {
        Self { name: Some(name), permissions, expires: Some(ends), session: Some(Arc::new(session)), stands: None }
    }

    /// The same, as long as its token stands in a file.
    pub(super) fn while_it_stands(self, stands: watch::Receiver<()>) -> Self {
        Self { stands: Some(stands), ..self }
    }

    /// Closed once the caller's token stands in its file no more; `None` when it stands in none.
    pub(crate) fn stands(&self) -> Option<&watch::Receiver<()>> {
        self.stands.as_ref()
    }

    /// The session that it is in.
    pub(crate) fn session(&self) -> Option<&InSession> {
        self.session.as_deref()
    }

    /// The role in which it has logged in with a browser.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.session().map(InSession::role)
    }

    /// Says in an event's headers who sends it.
    pub(crate) fn mark(&self, headers: &mut Headers) -> Result<(), HeadersError> {
        if let Some(name) = self.name() {
            headers.insert(Headers::CALLER, name)?;
        }
        match self.session() {
            Some(session) => headers.insert(Headers::SESSION, &**session.name()),
            None => Ok(()),
        }
    }

    /// The name in the caller's token, or of who has logged in; `None` when there is neither.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn shared_name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }

    /// When the caller's token or session ends; `None` when it does not. A connection that outlives it is somebody's who is not known.
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
            Some(_) => {
                let whose = match (&self.session, &self.name) {
                    (Some(session), _) => Some(format!("the role `{}`", session.role())),
                    (None, Some(_)) => Some("your token".to_owned()),
                    (None, None) => None,
                };
                Problem::forbidden(verb, event, whose.as_deref())
            }
        }
    }

    pub(super) fn may_read_metrics(&self) -> bool {
        self.permissions.as_ref().is_none_or(|permissions| permissions.metrics)
    }
}
