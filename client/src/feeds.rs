//! The subscriptions of a client: they outlive sessions.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use edri_events::{Address, Descriptor, Envelope, Head, Kind, ManagerName, NodeName};
use edri_protocol::{Call, Credit, Frame, Response, Subscribe, Unsubscribe};
use edri_router::{DeclareError, Delivery, ReplyTo, Source, Wanted};
use edri_workers::wire::{Peer, Refused, Up, describe, nothing};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::link::Link;

/// All subscriptions of a client.
pub(crate) struct Feeds {
    node: Address,
    // Held to find, add or remove one, and to number them.
    feeds: Mutex<HashMap<u64, Arc<Feed>>>,
}

/// One subscription.
pub(crate) struct Feed {
    wanted: Wanted,
    // Held to add an event, or to take one.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Its number in the session of now.
    number: u64,
    /// Where that session writes.
    peer: Option<Arc<Peer>>,
    events: VecDeque<Delivery>,
    /// How many were taken that no credit has been given for.
    taken: u64,
    ended: bool,
    waker: Option<Waker>,
    begun: Option<oneshot::Sender<Result<(), DeclareError>>>,
}

impl Feeds {
    pub(crate) fn new(node: Address) -> Self {
        Self { node, feeds: Mutex::default() }
    }

    /// Subscribes; ready once the subscription is in place.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        link: &Arc<Link>,
        wanted: Wanted,
    ) -> BoxFuture<'static, Result<Box<dyn Source>, DeclareError>> {
        let (tell, told) = oneshot::channel();
        let feed = Arc::new(Feed { wanted, state: Mutex::new(State { begun: Some(tell), ..State::default() }) });
        // Dropped, it ends the subscription, also before it is in place.
        let source = Box::new(FromFeed { feed: Arc::clone(&feed), link: Arc::downgrade(link) });
        let placed = self.place(|| link.up(), &feed);
        Box::pin(async move {
            placed?;
            match told.await {
                Ok(begun) => begun.map(|()| source as Box<dyn Source>),
                Err(_) => Err(DeclareError::Stopping),
            }
        })
    }

    /// Asks the node for a subscription, in the session that `up` says: it is looked at while no other can begin.
    fn place(&self, up: impl FnOnce() -> Arc<Up>, feed: &Arc<Feed>) -> Result<(), DeclareError> {
        let Wanted { pattern, key, capacity, .. } = &feed.wanted;
        let mut feeds = self.feeds.lock();
        let up = up();
        up.with_number(|id| {
            let credit = {
                let mut state = feed.state.lock();
                state.number = id;
                state.peer = Some(Arc::clone(up.peer()));
                state.taken = 0;
                capacity.saturating_sub(state.events.len()) as u64
            };
            let frame = Frame::Subscribe(Subscribe {
                id,
                select: pattern.as_str().into(),
                key: key.as_deref().map(Into::into),
                conditions: None,
                capacity: u32::try_from(*capacity).unwrap_or(u32::MAX),
                slow: edri_protocol::Slow::Missed,
                credit: Some(credit),
            });
            up.peer()
                .send(&frame)
                .map_err(|error| DeclareError::Elsewhere { code: error.code(), message: error.to_string() })?;
            feeds.insert(id, Arc::clone(feed));
            Ok(())
        })
    }

    /// A new session: everything is subscribed to again.
    pub(crate) fn begin_again(&self, up: &Arc<Up>) {
        let feeds = std::mem::take(&mut *self.feeds.lock());
        for feed in feeds.into_values() {
            if let Err(error) = self.place(|| Arc::clone(up), &feed) {
                tracing::error!(%error, "a subscription has ended");
                feed.end();
            }
        }
    }

    /// The client is gone: nothing comes any more.
    pub(crate) fn end(&self) {
        std::mem::take(&mut *self.feeds.lock()).values().for_each(|feed| feed.end());
    }

    fn find(&self, number: u64) -> Option<Arc<Feed>> {
        self.feeds.lock().get(&number).cloned()
    }

    /// Takes a response that is about a subscription; false when it is not.
    pub(crate) fn response(&self, response: &Response<'_>) -> bool {
        let Some(feed) = self.find(response.id) else { return false };
        let begun = feed.state.lock().begun.take();
        let result = match Refused::of(response.clone()) {
            None => Ok(()),
            Some(Refused::Failure(fault) | Refused::Error(fault)) => {
                self.feeds.lock().remove(&response.id);
                feed.end();
                Err((fault.code.into_owned(), fault.message.into_owned()))
            }
        };
        match (begun, result) {
            (Some(tell), result) => {
                let elsewhere =
                    |(code, message): (String, String)| DeclareError::Elsewhere { code: known_code(&code), message };
                // Whoever subscribed may have stopped waiting.
                let _ = tell.send(result.map_err(elsewhere));
            }
            (None, Err((code, message))) => tracing::error!(code, message, "a subscription has ended"),
            (None, Ok(())) => {}
        }
        true
    }

    /// So many events did not come.
    pub(crate) fn missed(&self, number: u64, count: u64) {
        if let Some(feed) = self.find(number) {
            feed.wanted.group.miss_some(count);
        }
    }

    /// An event came.
    pub(crate) fn event(&self, number: u64, call: Call<'_>, frame: &Bytes) {
        // It may have been unsubscribed from meanwhile.
        let Some(feed) = self.find(number) else { return };
        match self.envelope(call, frame) {
            Ok(envelope) => {
                feed.push(Delivery { envelope, reply: ReplyTo::None, handler: 0, attempts: 1, redelivered: false })
            }
            Err(error) => {
                tracing::warn!(error, "an event was left out");
                feed.wanted.group.miss_some(1);
            }
        }
    }

    fn envelope(&self, mut call: Call<'_>, frame: &Bytes) -> Result<Envelope, String> {
        let descriptor =
            Descriptor::declare(&call.event, Kind::Notification).map_err(|error| error.to_string())?.build();
        let (node, manager) =
            call.origin.as_deref().map_or(("", ""), |origin| origin.split_once('/').unwrap_or((origin, "")));
        let node = NodeName::new(node).unwrap_or_else(|_| self.node.node.clone());
        let origin = Address { node, manager: ManagerName::new(manager).ok(), incarnation: self.node.incarnation };
        let mut head = Head::new(descriptor, Arc::new(origin));
        describe(&mut head, &mut call, Instant::now());
        let encoding = edri_events::Encoding::MessagePack;
        let body = call.payload.map_or_else(|| nothing(encoding), |payload| payload.to_body(frame));
        Envelope::untyped(head, body).map_err(|error| error.to_string())
    }
}

/// Codes are few and live as long as the program.
fn known_code(code: &str) -> &'static str {
    const CODES: [&str; 8] = [
        "unknown_event",
        "forbidden",
        "wrong_kind",
        "overloaded",
        "invalid_name",
        "invalid_call",
        "unsupported",
        "stopping",
    ];
    CODES.into_iter().find(|known| *known == code).unwrap_or("refused")
}

impl Feed {
    fn push(&self, delivery: Delivery) {
        let waker = {
            let mut state = self.state.lock();
            if state.events.len() >= self.wanted.capacity {
                tracing::warn!("an event came without credit");
                self.wanted.group.miss_some(1);
                return;
            }
            state.events.push_back(delivery);
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn end(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.ended = true;
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Where a subscription's events come from.
struct FromFeed {
    feed: Arc<Feed>,
    link: Weak<Link>,
}

impl FromFeed {
    fn take(&self, state: &mut State) -> Option<Delivery> {
        let delivery = state.events.pop_front()?;
        state.taken += 1;
        if state.taken >= (self.feed.wanted.capacity as u64 / 2).max(1)
            && let Some(peer) = &state.peer
        {
            let credit = Credit { id: state.number, items: std::mem::take(&mut state.taken), bytes: 0 };
            peer.send_short(&Frame::Credit(credit));
        }
        Some(delivery)
    }
}

impl Source for FromFeed {
    fn try_next(&mut self) -> Option<Delivery> {
        self.take(&mut self.feed.state.lock())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let mut state = self.feed.state.lock();
        if let Some(delivery) = self.take(&mut state) {
            return Poll::Ready(Some(delivery));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for FromFeed {
    fn drop(&mut self) {
        let Some(link) = self.link.upgrade() else { return };
        // With the lock, so that no new session gives it another number meanwhile.
        let mut feeds = link.feeds().feeds.lock();
        let (number, peer) = {
            let mut state = self.feed.state.lock();
            (state.number, state.peer.take())
        };
        if feeds.get(&number).is_some_and(|feed| Arc::ptr_eq(feed, &self.feed)) {
            feeds.remove(&number);
            if let Some(peer) = peer {
                peer.send_short(&Frame::Unsubscribe(Unsubscribe { id: number }));
            }
        }
    }
}

impl std::fmt::Debug for FromFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FromFeed").field("wanted", &self.feed.wanted).finish_non_exhaustive()
    }
}
