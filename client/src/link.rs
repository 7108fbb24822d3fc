//! What the client's bus sends through: the calls of the session of now.

use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use edri_events::{DescriptorRef, Envelope, Kind};
use edri_router::{
    AnswersAbove, DeclareError, NotNow, Offer, Outcome, OutcomeAbove, Outcomes, Past, PublishError, Receipt,
    RequestError, Source, Uplink, Wanted, WantedPast,
};
use edri_workers::wire::Up;
use futures_util::future::BoxFuture;

use crate::feeds::Feeds;

pub(crate) struct Link {
    this: Weak<Link>,
    up: ArcSwap<Up>,
    feeds: Arc<Feeds>,
}

impl Link {
    pub(crate) fn new(up: Arc<Up>, feeds: Feeds) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { this: this.clone(), up: ArcSwap::new(up), feeds: Arc::new(feeds) })
    }

    /// The calls of the session of now.
    pub(crate) fn up(&self) -> Arc<Up> {
        self.up.load_full()
    }

    pub(crate) fn feeds(&self) -> &Arc<Feeds> {
        &self.feeds
    }

    /// A new session: the calls of the one before have ended, its subscriptions begin again.
    pub(crate) fn begin_again(&self, up: Arc<Up>) {
        let before = self.up.swap(Arc::clone(&up));
        before.lost();
        before.peer().close();
        self.feeds.begin_again(&up);
    }

    /// Nothing comes or goes any more.
    pub(crate) fn end(&self) {
        let up = self.up();
        up.lost();
        up.peer().close();
        self.feeds.end();
    }
}

impl Uplink for Link {
    fn declare(&self, event: &DescriptorRef) -> Result<(), DeclareError> {
        self.up.load().declare(event)
    }

    fn descriptor(&self, name: &str, kind: Kind) -> Result<DescriptorRef, DeclareError> {
        self.up.load().descriptor(name, kind)
    }

    fn publish(&self, envelopes: Vec<Envelope>, limit: Instant) -> BoxFuture<'static, Result<Receipt, PublishError>> {
        self.up.load().publish(envelopes, limit)
    }

    fn try_publish(&self, envelope: Envelope) -> Result<Receipt, NotNow> {
        self.up.load().try_publish(envelope)
    }

    fn request(&self, envelope: Envelope, to: Option<&str>) -> BoxFuture<'static, Outcome> {
        self.up.load().request(envelope, to)
    }

    fn request_all(&self, envelope: Envelope) -> BoxFuture<'static, Result<AnswersAbove, RequestError>> {
        self.up.load().request_all(envelope)
    }

    fn open(
        &self,
        envelope: Envelope,
        offer: Box<dyn Offer>,
        to: Option<&str>,
    ) -> BoxFuture<'static, Result<OutcomeAbove, RequestError>> {
        self.up.load().open(envelope, offer, to)
    }

    fn subscribe(&self, wanted: Wanted) -> BoxFuture<'static, Result<Box<dyn Source>, DeclareError>> {
        match self.this.upgrade() {
            Some(link) => self.feeds.subscribe(&link, wanted),
            None => Box::pin(std::future::ready(Err(DeclareError::Stopping))),
        }
    }

    fn replay(&self, wanted: WantedPast) -> BoxFuture<'static, Result<Box<dyn Past>, DeclareError>> {
        match self.this.upgrade() {
            Some(link) => self.feeds.replay(&link, wanted),
            None => Box::pin(std::future::ready(Err(DeclareError::Stopping))),
        }
    }
}

/// No call comes to a client.
pub(crate) struct NoCalls;

impl Outcomes for NoCalls {
    fn outcome(&self, _: u64, _: Outcome) {}
}
