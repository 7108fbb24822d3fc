//! Requests that all managers are sent, and their answers as they come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use edri_events::{Envelope, ManagerName, NodeName, Request, Value};
use futures_util::future::BoxFuture;
use futures_util::stream::{Fuse, FuturesUnordered};
use futures_util::{Stream, StreamExt};

use crate::bus::{Bus, NOTHING};
use crate::core::is_known;
use crate::group::GroupRef;
use crate::pending::Outcome;
use crate::request::{To, with_limit};
use crate::traced::{self, Traced};
use crate::uplink::AnswersAbove;
use crate::{GroupName, RequestError};

impl Bus {
    /// Sends a request to every manager that answers it, on this node and on others, one worker of each (of a keyed manager that of the partition of
    /// the event's key), and streams the answers as they come: until
    /// all have answered, the deadline has passed, or the stream is dropped, which cancels what is still open.
    ///
    /// # Errors
    ///
    /// [`RequestError::NoHandler`] when nobody answers this event; otherwise each answer has its own.
    pub async fn request_all<E: Request>(&self, event: E) -> Result<Answers<E::Output>, RequestError> {
        let envelope = self.request_envelope(event, &NOTHING, Instant::now())?;
        let answers = self.ask_all(envelope).await?;
        Ok(Answers { open: answers, here: self.node(), take: |value| value.take().map_err(RequestError::from) })
    }

    pub(crate) async fn ask_all(&self, envelope: Envelope) -> Result<OpenAnswers, RequestError> {
        // One span for all: they are asked by the same event.
        let traced = traced::request(&envelope);
        let asked = match self.core.uplink() {
            Some(uplink) => uplink.request_all(envelope).await.map(|answers| Asked::Above(answers.fuse())),
            None => self.ask_all_here(envelope).await.map(Asked::Here),
        };
        let asked = asked.inspect_err(|error| traced.failed(error.code()))?;
        Ok(OpenAnswers { asked, traced })
    }

    async fn ask_all_here(&self, envelope: Envelope) -> Result<FuturesUnordered<OpenAnswer>, RequestError> {
        let descriptor = envelope.head().descriptor.clone();
        if !self.core.snapshot().entry(&descriptor).is_some_and(|entry| is_known(entry, &descriptor)) {
            self.core.declare(descriptor.clone()).await?;
        }
        let limit = envelope.head().deadline.unwrap_or_else(Instant::now);
        if !self.core.is_settled() {
            // Ends at the deadline, with whoever is there by then.
            with_limit(&self.core, limit, self.core.settled()).await;
        }
        let asked = self.who_answers(&envelope, To::Any);
        if asked.is_empty() {
            return Err(RequestError::NoHandler(descriptor.name().clone()));
        }
        let ask_one = |(group, _): (GroupRef, u32)| {
            let following = group.is_front().then(|| self.core.follow_request(envelope.id(), group.id()));
            let (bus, envelope, mut group) = (self.clone(), envelope.clone(), group.name().clone());
            let answer: OpenAnswer = Box::pin(async move {
                let outcome = bus.ask_one(envelope, Instant::now(), To::Group(&group)).await;
                let node = following.and_then(|following| following.node());
                if let Some(node) = node.filter(|node| *node != bus.core.address.node) {
                    group = GroupName::Remote { node, group: Box::new(group) };
                }
                (group, outcome)
            });
            answer
        };
        Ok(asked.into_iter().map(ask_one).collect())
    }

    pub(crate) fn node(&self) -> NodeName {
        self.core.address.node.clone()
    }
}

type OpenAnswer = BoxFuture<'static, (GroupName, Outcome)>;

/// Answers to come.
pub(crate) struct OpenAnswers {
    asked: Asked,
    traced: Traced,
}

enum Asked {
    Here(FuturesUnordered<OpenAnswer>),
    Above(Fuse<AnswersAbove>),
}

/// One manager's answer to a request that all were sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer<T> {
    /// The node of who answered.
    pub node: NodeName,
    /// Who answered.
    pub manager: ManagerName,
    /// What.
    pub result: Result<T, RequestError>,
}

/// The answers to a request that every manager was sent, as they come. Dropping it cancels what is still open.
#[must_use = "dropping the answers cancels the request"]
pub struct Answers<T> {
    pub(crate) open: OpenAnswers,
    /// The node of those who are not said to be of another.
    pub(crate) here: NodeName,
    pub(crate) take: fn(Value) -> Result<T, RequestError>,
}

impl<T> Answers<T> {
    /// How many have not answered yet. In a process worker that is not known: 1 as long as there may be more.
    #[must_use]
    pub fn open(&self) -> usize {
        match &self.open.asked {
            Asked::Here(open) => open.len(),
            Asked::Above(answers) => usize::from(!answers.is_done()),
        }
    }

    /// The next answer; `None` once all have answered or failed. Cancel safe.
    pub async fn next(&mut self) -> Option<Answer<T>> {
        StreamExt::next(self).await
    }

    /// The first `count` that succeeded, or as many as there were. What is still open then is cancelled.
    pub async fn wanted(mut self, count: usize) -> Vec<T> {
        let mut wanted = Vec::new();
        while wanted.len() < count {
            match self.next().await {
                Some(answer) => wanted.extend(answer.result),
                None => break,
            }
        }
        wanted
    }
}

impl<T> Stream for Answers<T> {
    type Item = Answer<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer<T>>> {
        let take = self.take;
        loop {
            let answer = match &mut self.open.asked {
                Asked::Here(open) => open.poll_next_unpin(cx),
                Asked::Above(answers) => answers.poll_next_unpin(cx),
            };
            let Some((group, outcome)) = ready!(answer) else {
                self.open.traced = Traced::default();
                return Poll::Ready(None);
            };
            // Only managers are asked.
            let Some(manager) = group.manager_anywhere().cloned() else { continue };
            let node = group.node().unwrap_or(&self.here).clone();
            return Poll::Ready(Some(Answer { node, manager, result: outcome.and_then(take) }));
        }
    }
}

impl<T> std::fmt::Debug for Answers<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").field("open", &self.open()).finish_non_exhaustive()
    }
}
