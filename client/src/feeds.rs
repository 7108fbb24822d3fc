//! The subscriptions of a client: they outlive sessions.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use edri_events::{Address, Descriptor, Encoding, Envelope, Head, Kind, ManagerName, NodeName};
use edri_protocol::{Call, Credit, Frame, Payload, Response, Subscribe, Unsubscribe};
use edri_router::{
    DeclareError, Delivery, Missed, Past, Position, Recorded, ReplyTo, Source, Start, Wanted, WantedPast,
};
use edri_workers::wire::{Peer, Refused, Up, describe, nothing};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::oneshot;

use crate::link::Link;

/// How many events of a history may be on their way, or wait to be read.
const PAST_EVENTS: usize = 1024;

/// All subscriptions of a client.
pub(crate) struct Feeds {
    node: Address,
    // Held to find, add or remove one, and to number them.
    feeds: Mutex<HashMap<u64, Arc<Feed>>>,
}

/// One subscription.
pub(crate) struct Feed {
    want: Want,
    // Held to add an event, or to take one.
    state: Mutex<State>,
}

enum Want {
    /// What comes from now on.
    Live(Wanted),
    /// A history.
    Past(WantedPast),
}

/// What comes in a subscription.
enum Item {
    Event(Envelope),
    Recorded(Recorded<Envelope>),
    /// In a history, in its place among the events; otherwise it is counted at once.
    Missed(Missed),
}

#[derive(Default)]
struct State {
    /// Its number in the session of now.
    number: u64,
    /// Where that session writes.
    peer: Option<Arc<Peer>>,
    items: VecDeque<Item>,
    /// How many were taken that no credit has been given for.
    taken: u64,
    /// Of a history, the place of the last event that has come, or where it begins: the next session goes on from there.
    position: Option<Position>,
    ended: bool,
    waker: Option<Waker>,
    begun: Option<oneshot::Sender<Result<Option<Position>, DeclareError>>>,
}

/// What the response to `subscribe` says, if it reads a history.
#[derive(Deserialize)]
struct Begun {
    position: Position,
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
        let (source, begun) = self.begin(link, Want::Live(wanted));
        Box::pin(async move { begun.await.map(|_| Box::new(source) as Box<dyn Source>) })
    }

    /// Subscribes to a history; ready once it is known where it begins.
    pub(crate) fn replay(
        self: &Arc<Self>,
        link: &Arc<Link>,
        wanted: WantedPast,
    ) -> BoxFuture<'static, Result<Box<dyn Past>, DeclareError>> {
        let (source, begun) = self.begin(link, Want::Past(wanted));
        Box::pin(async move {
            let at = begun.await?.ok_or_else(|| DeclareError::Elsewhere {
                code: "unsupported",
                message: "the node does not say where in its history the subscription begins".to_owned(),
            })?;
            Ok(Box::new(FromPast { source, at }) as Box<dyn Past>)
        })
    }

    /// Dropping the first part ends the subscription, also before it is in place.
    fn begin(
        self: &Arc<Self>,
        link: &Arc<Link>,
        want: Want,
    ) -> (FromFeed, impl Future<Output = Result<Option<Position>, DeclareError>> + use<>) {
        let (tell, told) = oneshot::channel();
        let feed = Arc::new(Feed { want, state: Mutex::new(State { begun: Some(tell), ..State::default() }) });
        let source = FromFeed { feed: Arc::clone(&feed), link: Arc::downgrade(link) };
        let placed = self.place(|| link.up(), &feed);
        (source, async move {
            placed?;
            told.await.unwrap_or(Err(DeclareError::Stopping))
        })
    }

    /// Asks the node for a subscription, in the session that `up` says: it is looked at while no other can begin.
    fn place(&self, up: impl FnOnce() -> Arc<Up>, feed: &Arc<Feed>) -> Result<(), DeclareError> {
        let elsewhere = |code, message: &dyn Display| DeclareError::Elsewhere { code, message: message.to_string() };
        let (pattern, key, conditions) = match &feed.want {
            Want::Live(Wanted { pattern, key, conditions, .. }) => (pattern, key, conditions),
            Want::Past(WantedPast { pattern, key, conditions, .. }) => (pattern, key, conditions),
        };
        let encoding = Encoding::MessagePack;
        let conditions = conditions.as_ref().map(|conditions| encoding.encode(conditions)).transpose();
        let conditions = conditions.map_err(|error| elsewhere("invalid_conditions", &error))?;
        let mut feeds = self.feeds.lock();
        let up = up();
        up.with_number(|id| {
            let (credit, start) = {
                let mut state = feed.state.lock();
                state.number = id;
                state.peer = Some(Arc::clone(up.peer()));
                state.taken = 0;
                (feed.capacity().saturating_sub(state.items.len()) as u64, feed.start(&state))
            };
            let (last, since) = match start {
                None => (None, None),
                Some(Start::Last(count)) => (Some(count as u64), None),
                Some(Start::Since(since)) => (None, Some(since.to_string().into())),
            };
            let frame = Frame::Subscribe(Subscribe {
                id,
                select: pattern.as_str().into(),
                key: key.as_deref().map(Into::into),
                conditions: conditions.as_ref().map(|bytes| Payload::new(encoding, bytes)),
                capacity: if start.is_some() { 0 } else { u32::try_from(feed.capacity()).unwrap_or(u32::MAX) },
                slow: edri_protocol::Slow::Missed,
                credit: Some(credit),
                last,
                since,
            });
            up.peer().send(&frame).map_err(|error| elsewhere(error.code(), &error))?;
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
            None => Ok(feed.begins(response.value.as_ref())),
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
            (None, Ok(_)) => {}
        }
        true
    }

    /// So many events did not come; `None` when it is not known how many.
    pub(crate) fn missed(&self, number: u64, count: Option<u64>) {
        if let Some(feed) = self.find(number) {
            feed.miss(Missed::new(count));
        }
    }

    /// An event came.
    pub(crate) fn event(&self, number: u64, mut call: Call<'_>, frame: &Bytes) {
        // It may have been unsubscribed from meanwhile.
        let Some(feed) = self.find(number) else { return };
        let position = call.position.take().and_then(|position| position.parse::<Position>().ok());
        match self.envelope(call, frame) {
            Ok(envelope) => feed.push(position, envelope),
            Err(error) => {
                tracing::warn!(error, "an event was left out");
                feed.miss(Missed::new(Some(1)));
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
        let encoding = Encoding::MessagePack;
        let body = call.payload.map_or_else(|| nothing(encoding), |payload| payload.to_body(frame));
        Envelope::untyped(head, body).map_err(|error| error.to_string())
    }
}

/// Codes are few and live as long as the program.
fn known_code(code: &str) -> &'static str {
    const CODES: [&str; 10] = [
        "unknown_event",
        "no_history",
        "invalid_conditions",
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
    /// How many events may be on their way, or wait here.
    fn capacity(&self) -> usize {
        match &self.want {
            Want::Live(wanted) => wanted.capacity,
            Want::Past(_) => PAST_EVENTS,
        }
    }

    /// Where it begins, or goes on, if it reads a history.
    fn start(&self, state: &State) -> Option<Start> {
        match &self.want {
            Want::Live(_) => None,
            Want::Past(wanted) => Some(state.position.map_or(wanted.start, |position| Start::Since(position.into()))),
        }
    }

    /// The node says where it begins, which is known already when it goes on.
    fn begins(&self, said: Option<&Payload<'_>>) -> Option<Position> {
        let begun = said.and_then(|said| said.encoding().decode::<Begun>(said.bytes()).ok())?;
        let mut state = self.state.lock();
        Some(*state.position.get_or_insert(begun.position))
    }

    fn push(&self, position: Option<Position>, envelope: Envelope) {
        let mut state = self.state.lock();
        if state.items.len() >= self.capacity() {
            drop(state);
            tracing::warn!("an event came without credit");
            return self.miss(Missed::new(Some(1)));
        }
        let item = match position {
            None => Item::Event(envelope),
            Some(position) => {
                state.position = Some(position);
                Item::Recorded(Recorded::new(position, envelope))
            }
        };
        state.items.push_back(item);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    fn miss(&self, missed: Missed) {
        if let Want::Live(wanted) = &self.want {
            return wanted.group.miss_some(missed.events.unwrap_or(1));
        }
        let mut state = self.state.lock();
        match state.items.back_mut() {
            Some(Item::Missed(before)) => {
                let both = before.events.zip(missed.events);
                *before = Missed::new(both.map(|(before, more)| before.saturating_add(more)));
            }
            _ => state.items.push_back(Item::Missed(missed)),
        }
        let waker = state.waker.take();
        drop(state);
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

/// Where a subscription's events come from. Dropping it ends the subscription.
struct FromFeed {
    feed: Arc<Feed>,
    link: Weak<Link>,
}

impl FromFeed {
    fn take(&self, state: &mut State) -> Option<Item> {
        let item = state.items.pop_front()?;
        if matches!(item, Item::Missed(_)) {
            return Some(item);
        }
        state.taken += 1;
        if state.taken >= (self.feed.capacity() as u64 / 2).max(1)
            && let Some(peer) = &state.peer
        {
            let credit = Credit { id: state.number, items: std::mem::take(&mut state.taken), bytes: 0 };
            peer.send_short(&Frame::Credit(credit));
        }
        Some(item)
    }

    fn poll_item(&self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut state = self.feed.state.lock();
        if let Some(item) = self.take(&mut state) {
            return Poll::Ready(Some(item));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn delivery(item: Item) -> Option<Delivery> {
    let envelope = match item {
        Item::Event(envelope) | Item::Recorded(Recorded { event: envelope, .. }) => envelope,
        Item::Missed(_) => return None,
    };
    Some(Delivery { envelope, reply: ReplyTo::None, handler: 0, attempts: 1, redelivered: false, hold: None })
}

impl Source for FromFeed {
    fn try_next(&mut self) -> Option<Delivery> {
        self.take(&mut self.feed.state.lock()).and_then(delivery)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            match std::task::ready!(self.poll_item(cx)).map(delivery) {
                None => return Poll::Ready(None),
                Some(Some(delivery)) => return Poll::Ready(Some(delivery)),
                Some(None) => {}
            }
        }
    }
}

/// A history that is read at the node.
struct FromPast {
    source: FromFeed,
    /// Where whoever reads it stands.
    at: Position,
}

impl Past for FromPast {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Recorded<Envelope>, Missed>>> {
        loop {
            return Poll::Ready(match std::task::ready!(self.source.poll_item(cx)) {
                None => None,
                Some(Item::Missed(missed)) => Some(Err(missed)),
                Some(Item::Recorded(recorded)) => {
                    self.at = recorded.position;
                    Some(Ok(recorded))
                }
                Some(Item::Event(event)) => {
                    tracing::warn!(event = %event.name(), "an event of a history came without its place: it is left out");
                    continue;
                }
            });
        }
    }

    fn position(&self) -> Position {
        self.at
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
        let mut shown = f.debug_struct("FromFeed");
        match &self.feed.want {
            Want::Live(wanted) => shown.field("wanted", wanted),
            Want::Past(wanted) => shown.field("wanted", wanted),
        };
        shown.finish_non_exhaustive()
    }
}
