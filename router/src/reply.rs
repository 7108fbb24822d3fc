//! Replies that workers take along.

use std::sync::Arc;

use edri_events::{Data, Value};

use crate::RequestError;
use crate::core::Core;
use crate::group::GroupRef;
use crate::pending::{Outcome, Ticket};
use crate::status::Ended;

/// What a worker took with it to answer later; dropping it tells the requester `worker_lost`.
#[must_use = "dropping a reply tells the requester that the worker was lost"]
pub struct Reply<T: Data> {
    deferred: Deferred,
    value: std::marker::PhantomData<fn(T)>,
}

/// A reply below the types.
#[doc(hidden)]
pub struct Deferred {
    core: Arc<Core>,
    group: GroupRef,
    ticket: Option<Ticket>,
}

impl Deferred {
    pub(crate) fn new(core: Arc<Core>, group: GroupRef, ticket: Ticket) -> Self {
        group.hold(1);
        Self { core, group, ticket: Some(ticket) }
    }

    /// Gives the requester its outcome; whether it still waited.
    pub fn send(mut self, outcome: Outcome) -> bool {
        self.settle(outcome)
    }

    fn settle(&mut self, outcome: Outcome) -> bool {
        let Some(ticket) = self.ticket.take() else { return false };
        let ended = if outcome.is_ok() { Ended::Handled } else { Ended::Failed };
        // A call from elsewhere is told its outcome also when nobody wants it any more.
        let wanted = self.core.pending.is_wanted(ticket);
        let completed = self.core.complete(ticket, outcome);
        self.group.settle(1, ended);
        wanted && completed
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.settle(Err(RequestError::WorkerLost("the reply was dropped without an answer".to_owned())));
    }
}

impl<T: Data> Reply<T> {
    #[doc(hidden)]
    pub fn new(deferred: Deferred) -> Self {
        Self { deferred, value: std::marker::PhantomData }
    }

    /// Answers the requester; whether it still waited.
    pub fn send(self, result: Result<T, edri_events::Failure>) -> bool {
        self.deferred.send(result.map(Value::typed).map_err(RequestError::Failed))
    }

    /// Whether the requester still waits.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.deferred.ticket.is_some_and(|ticket| self.deferred.core.pending.is_wanted(ticket))
    }
}

impl<T: Data> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("group", self.deferred.group.name()).finish_non_exhaustive()
    }
}
