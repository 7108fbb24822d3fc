//! An event that has passed, until what comes of it goes back.

use std::sync::Arc;

use edri_events::{Body, Value};
use edri_router::{CheckItem, Left, Outcome, Passage, RequestError};
use futures_util::future::BoxFuture;

use super::interceptor::{Incoming, Outgoing};
use super::{Interceptors, Rules};

/// An event that has passed the border.
#[derive(Debug)]
pub(crate) struct Passed {
    watched: Option<Watched>,
    rules: Arc<Rules>,
    payload: Body,
}

/// An event that interceptors want to see the end of.
#[derive(Debug)]
pub(super) struct Watched {
    interceptors: Interceptors,
    event: Incoming,
}

impl Watched {
    pub(super) fn new(interceptors: Interceptors, event: Incoming) -> Self {
        Self { interceptors, event }
    }

    /// The innermost comes first: in the reverse order of [`enter`](super::enter).
    async fn leave(&self, left: &mut Left) {
        for interceptor in self.interceptors.0.iter().rev() {
            interceptor.after(&self.event, &mut Outgoing::new(left)).await;
        }
    }
}

impl Passed {
    pub(super) fn new(watched: Option<Watched>, rules: Arc<Rules>, payload: Body) -> Self {
        Self { watched, rules, payload }
    }

    /// What goes back of a request, wherever its answer comes from.
    pub(crate) async fn answered(&self, outcome: Outcome) -> Result<Value, RequestError> {
        let outcome = outcome.map_err(|error| match error {
            RequestError::Payload(error) => RequestError::Payload(self.rules.explain(&self.payload, error)),
            other => other,
        });
        let Some(watched) = &self.watched else { return outcome };
        let mut left = Left::Answered(outcome);
        watched.leave(&mut left).await;
        match left {
            Left::Answered(outcome) => outcome,
            other => unreachable!("an answer became {other:?}"),
        }
    }
}

impl Passage for Passed {
    fn leave<'a>(&'a mut self, outcome: &'a mut Left) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(watched) = &self.watched {
                watched.leave(outcome).await;
            }
        })
    }

    fn items(&self) -> Option<CheckItem> {
        let rules = Arc::clone(&self.rules);
        rules.are_for_items().then(|| Arc::new(move |item: &Body| rules.check_item(item)) as CheckItem)
    }
}
