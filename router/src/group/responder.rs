//! Requests that are answered where they are placed, without a worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use edri_events::Envelope;

use super::{Group, GroupOptions, GroupRef};
use crate::status::{Ended, ManagerState};
use crate::{Outcome, traced};

/// Answers requests to a group in the stead of its worker, where whoever asks would otherwise wait for the worker's turn: what is
/// read and changes nothing.
///
/// It is asked only while the group's workers take events and have none in hand, so a requester finds what its own requests before
/// have done, also those that it has not waited for. The node takes what it has answered for handled.
pub trait Responder: Send + Sync + std::fmt::Debug + 'static {
    /// The outcome of a request; `None` leaves it to a worker. Called by whoever asks, several at a time: it must be quick
    /// and must not wait. When it panics, a worker has the request.
    fn respond(&self, request: &Envelope) -> Option<Outcome>;
}

impl Group {
    /// As [`Group::new`], with somebody who is asked first.
    ///
    /// # Panics
    ///
    /// As [`Group::new`].
    #[must_use]
    pub fn responding(options: GroupOptions, responder: Arc<dyn Responder>) -> GroupRef {
        Arc::new(Self { responder: Some(responder), ..Self::make(options, None) })
    }

    /// What becomes of a request without a worker; it is accounted for then.
    #[inline]
    pub(crate) fn respond(&self, request: &Envelope) -> Option<Outcome> {
        self.respond_by(&**self.responder.as_ref()?, request)
    }

    fn respond_by(&self, responder: &dyn Responder, request: &Envelope) -> Option<Outcome> {
        if self.state() != ManagerState::Running || !self.inboxes[self.inbox_for(request)].is_at_rest() {
            return None;
        }
        let times = request.head().stamped.map(|sent| (sent, Instant::now()));
        // It runs in the task of whoever asks, which may be the one that has the links.
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| responder.respond(request))) else {
            tracing::error!(group = %self.name, event = %request.name(), "a responder panicked: a worker has the request");
            return None;
        };
        let outcome = outcome?;
        if let (Some((sent, begun)), Some(worker)) = (times, self.workers.read().first()) {
            worker.timed(begun.saturating_duration_since(sent), begun.elapsed());
        }
        // Only now is it known that no worker has a span of it.
        drop(traced::handle(request));
        // It never had a place, and is done with.
        self.reject();
        self.count(if outcome.is_ok() { Ended::Handled } else { Ended::Failed });
        Some(outcome)
    }
}
