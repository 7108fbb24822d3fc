//! The subscriptions of a client. What it is too slow for is counted where it is left out; a publisher never waits.
//!
//! ```text
//!   publisher ─▶ Ring (bounded; the oldest make room, and are counted) ─▶ ready list ─▶ Feeds, in the session's task
//!             └▶ history ◀─ Replay, read from the session's task ─ rings ──▶ ready list
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use edri_events::Envelope;
use edri_protocol::{Frame, Missed, Payload, Response, Slow};
use edri_router::{Bus, DeclareError, Position, Recorded, Replay, Selection, Start, Tap, Tapped};
use edri_workers::wire::{Outgoing, Peer, respond_error};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::Caller;
use crate::border::{Interceptors, Way};
use crate::metrics::{CountedSubscription, WebSockets};
use crate::selection::replay;

/// How many events of one subscription are written before another has its turn.
const TURN_EVENTS: usize = 32;

/// What a client says of a subscription.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) selection: Selection,
    pub(super) capacity: usize,
    pub(super) slow: Slow,
    /// How many events may be sent before more are granted; `None` for any number.
    pub(super) credit: Option<u64>,
    /// Where in a history it begins, if it does not begin with what comes.
    pub(super) start: Option<Start>,
}

/// Why a session ends because of a subscription.
#[derive(Debug)]
pub(super) struct TooSlow {
    /// Of the subscription.
    pub(super) id: u64,
    pub(super) missed: u64,
}

pub(super) struct Feeds {
    figures: Arc<WebSockets>,
    viewer: Viewer,
    feeds: HashMap<u64, Feed>,
    beginning: FuturesUnordered<BoxFuture<'static, (u64, Result<Begun, DeclareError>)>>,
    ready: Arc<Ready>,
    /// Those that have something for a client that takes it.
    turns: VecDeque<u64>,
    outgoing: Outgoing,
    taken: VecDeque<Envelope>,
    /// One that reads a history has missed something that may not be missed.
    too_slow: Option<TooSlow>,
}

/// Who gets the events, and who sees them before.
pub(super) struct Viewer {
    pub(super) caller: Caller,
    pub(super) interceptors: Interceptors,
}

struct Feed {
    id: u64,
    source: Source,
    slow: Slow,
    credit: Option<u64>,
    /// Whether it is among the turns.
    listed: bool,
    _counted: CountedSubscription,
}

enum Source {
    /// What comes from now on. Until it is tapped nothing of it is sent.
    Live { ring: Arc<Ring>, tapped: Option<Tapped> },
    /// A history, once the place is found where it begins.
    Past { replay: Option<Box<Replay<Envelope>>>, bell: Arc<Bell>, waker: Waker, began: bool },
}

/// What a subscription that begins is given.
enum Begun {
    Tapped(Tapped),
    Replay(Box<Replay<Envelope>>),
}

/// Tells that a history has more for a subscription.
struct Bell {
    id: u64,
    ready: std::sync::Weak<Ready>,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(ready) = self.ready.upgrade()
        {
            ready.announce(self.id);
        }
    }
}

/// Rings that have got something since they were looked at.
#[derive(Default)]
struct Ready {
    rings: Mutex<Vec<u64>>,
    waker: AtomicWaker,
}

/// Events on their way to a client.
#[derive(Debug)]
struct Ring {
    id: u64,
    capacity: usize,
    ready: std::sync::Weak<Ready>,
    // Held to add an event, or to take some.
    state: Mutex<RingState>,
}

#[derive(Debug, Default)]
struct RingState {
    events: VecDeque<Envelope>,
    /// How many were left out before the first of them.
    missed: u64,
    announced: bool,
}

impl Tap for Ring {
    fn take(&self, envelope: &Envelope) {
        let mut state = self.state.lock();
        let mut news = false;
        if state.events.len() >= self.capacity {
            state.events.pop_front();
            state.missed += 1;
            news = state.missed == 1;
        }
        state.events.push_back(envelope.clone());
        news |= !std::mem::replace(&mut state.announced, true);
        drop(state);
        if news && let Some(ready) = self.ready.upgrade() {
            ready.announce(self.id);
        }
    }
}

impl Ready {
    fn announce(&self, id: u64) {
        self.rings.lock().push(id);
        self.waker.wake();
    }
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

impl Feeds {
    pub(super) fn new(figures: &Arc<WebSockets>, viewer: Viewer) -> Self {
        Self {
            figures: Arc::clone(figures),
            viewer,
            feeds: HashMap::new(),
            beginning: FuturesUnordered::new(),
            ready: Arc::default(),
            turns: VecDeque::new(),
            outgoing: Outgoing::default(),
            taken: VecDeque::new(),
            too_slow: None,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.feeds.len()
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.feeds.contains_key(&id)
    }

    /// Begins a subscription; that it is in place, or why not, is told by [`Feeds::poll_begun`].
    pub(super) fn begin(&mut self, bus: &Bus, id: u64, wanted: Wanted) {
        let Wanted { selection, capacity, slow, credit, start } = wanted;
        let (bus, ready) = (bus.clone(), Arc::downgrade(&self.ready));
        let source = match start {
            None => {
                let ring = Arc::new(Ring { id, capacity: capacity.max(1), ready, state: Mutex::default() });
                let tap = Arc::clone(&ring) as Arc<dyn Tap>;
                self.beginning.push(Box::pin(async move { (id, bus.tap(selection, tap).await.map(Begun::Tapped)) }));
                Source::Live { ring, tapped: None }
            }
            Some(start) => {
                self.beginning.push(Box::pin(async move {
                    (id, replay(&bus, selection, start).await.map(|replay| Begun::Replay(Box::new(replay))))
                }));
                let bell = Arc::new(Bell { id, ready, rung: AtomicBool::new(false) });
                Source::Past { replay: None, waker: Waker::from(Arc::clone(&bell)), bell, began: false }
            }
        };
        let counted = CountedSubscription::new(&self.figures);
        self.feeds.insert(id, Feed { id, source, slow, credit, listed: false, _counted: counted });
    }

    /// Ends a subscription; false when there is none.
    pub(super) fn end(&mut self, id: u64) -> bool {
        self.feeds.remove(&id).is_some()
    }

    /// More events may be sent. False when there is no such subscription.
    pub(super) fn grant(&mut self, id: u64, events: u64) -> bool {
        let Some(feed) = self.feeds.get_mut(&id) else { return false };
        if let Some(credit) = &mut feed.credit {
            *credit = credit.saturating_add(events);
            feed.list(&mut self.turns);
        }
        true
    }

    /// The next subscription that is in place, with where it stands if it reads a history, or cannot be.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<(u64, Result<Option<Position>, DeclareError>)> {
        while let Poll::Ready(Some((id, begun))) = self.beginning.poll_next_unpin(cx) {
            // It may have been ended meanwhile.
            let Some(feed) = self.feeds.get_mut(&id) else { continue };
            let position = match (begun, &mut feed.source) {
                (Ok(Begun::Tapped(tap)), Source::Live { tapped, .. }) => {
                    *tapped = Some(tap);
                    None
                }
                (Ok(Begun::Replay(begun)), Source::Past { replay, .. }) => {
                    let position = begun.position();
                    *replay = Some(begun);
                    Some(position)
                }
                // The number is another subscription's by now, which is told of itself.
                (Ok(_), _) => continue,
                (Err(error), _) => {
                    self.feeds.remove(&id);
                    return Poll::Ready((id, Err(error)));
                }
            };
            feed.list(&mut self.turns);
            return Poll::Ready((id, Ok(position)));
        }
        Poll::Pending
    }

    /// Sees which subscriptions have something.
    ///
    /// # Errors
    ///
    /// When one has missed something that may not.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Result<(), TooSlow> {
        self.ready.waker.register(cx.waker());
        if let Some(too_slow) = self.too_slow.take() {
            return Err(too_slow);
        }
        let rings = std::mem::take(&mut *self.ready.rings.lock());
        for id in rings {
            let Some(feed) = self.feeds.get_mut(&id) else { continue };
            let missed = match &feed.source {
                Source::Live { ring, .. } if feed.slow == Slow::Bye => ring.state.lock().missed,
                _ => 0,
            };
            if missed > 0 {
                return Err(TooSlow { id, missed });
            }
            feed.list(&mut self.turns);
        }
        Ok(())
    }

    /// Whether some may have events that could be written.
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Writes events to the peer as long as `room` says that it takes them; what is written is not announced.
    pub(super) fn write(&mut self, peer: &Peer, room: impl Fn() -> bool) {
        while room() {
            let Some(id) = self.turns.pop_front() else { break };
            let Some(feed) = self.feeds.get_mut(&id) else { continue };
            feed.listed = false;
            if feed.credit == Some(0) {
                // It is listed again when that changes.
                continue;
            }
            let (viewer, outgoing) = (&self.viewer, &mut self.outgoing);
            let mut sink = Sink { peer, id, viewer, outgoing, sent: 0, missed: 0 };
            let turn = match feed.source {
                Source::Live { .. } => feed.write_live(&mut sink, &mut self.taken),
                Source::Past { .. } => feed.write_past(&mut sink),
            };
            self.figures.sent(sink.sent, sink.missed);
            match turn {
                Turn::Done => {}
                Turn::More => feed.list(&mut self.turns),
                Turn::TooSlow(missed) => {
                    self.too_slow = Some(TooSlow { id, missed });
                    self.ready.waker.wake();
                }
                Turn::Ended => {
                    self.feeds.remove(&id);
                    respond_error(peer, id, "no_history", "the history has ended, and the subscription with it");
                }
            }
        }
    }
}

/// How a subscription's turn ended.
enum Turn {
    /// There is nothing more for now.
    Done,
    More,
    /// So many were missed that may not be.
    TooSlow(u64),
    /// Nothing more comes.
    Ended,
}

/// Where the events of one subscription are written in its turn.
struct Sink<'a> {
    peer: &'a Peer,
    id: u64,
    viewer: &'a Viewer,
    outgoing: &'a mut Outgoing,
    sent: u64,
    missed: u64,
}

impl Sink<'_> {
    /// Writes an event, which costs credit, unless the client is not to have it; false when it cannot be written.
    fn send(&mut self, credit: &mut Option<u64>, envelope: Envelope, position: Option<Position>, now: Instant) -> bool {
        let Viewer { caller, interceptors } = self.viewer;
        let Some(envelope) = interceptors.deliver(caller, Way::WebSocket, envelope) else { return true };
        let position = position.map(|position| position.to_string());
        match self.outgoing.event(self.peer, self.id, &envelope, position.as_deref(), now) {
            Ok(_) => {
                self.sent += 1;
                if let Some(credit) = credit {
                    *credit -= 1;
                }
                true
            }
            Err(error) => {
                tracing::warn!(event = %envelope.name(), id = %envelope.id(), %error, "left out of a subscription");
                false
            }
        }
    }

    fn tell_missed(&mut self, count: Option<u64>) {
        self.missed += count.unwrap_or(0);
        if let Err(error) = self.peer.send_quietly(&Frame::Missed(Missed { id: self.id, count })) {
            tracing::error!(%error, "`missed` was not sent");
        }
    }
}

/// Tells that a subscription is in place, and where in its history it begins.
pub(super) fn tell_begun(peer: &Peer, id: u64, position: Option<Position>) {
    let Some(position) = position else {
        return peer.send_short(&Frame::Response(Response { id, ..Response::default() }));
    };
    let value = BTreeMap::from([("position", position)]);
    match peer.encoding().encode(&value) {
        Ok(bytes) => {
            let value = Some(Payload::new(peer.encoding(), &bytes));
            peer.send_short(&Frame::Response(Response { id, value, ..Response::default() }));
        }
        Err(error) => tracing::error!(%error, "a position was not sent"),
    }
}

impl Feed {
    fn list(&mut self, turns: &mut VecDeque<u64>) {
        if !std::mem::replace(&mut self.listed, true) {
            turns.push_back(self.id);
        }
    }

    /// How many events it may be sent in one turn.
    fn most(&self) -> usize {
        self.credit.map_or(TURN_EVENTS, |credit| TURN_EVENTS.min(usize::try_from(credit).unwrap_or(TURN_EVENTS)))
    }

    fn write_live(&mut self, sink: &mut Sink<'_>, taken: &mut VecDeque<Envelope>) -> Turn {
        let most = self.most();
        let Source::Live { ring, tapped: Some(_) } = &self.source else { return Turn::Done };
        let missed = ring.take_some(most, taken);
        if missed > 0 {
            sink.tell_missed(Some(missed));
        }
        let full = taken.len() == most;
        let now = Instant::now();
        let mut left_out = 0;
        for envelope in taken.drain(..) {
            if envelope.head().deadline.is_some_and(|deadline| deadline <= now) {
                continue;
            }
            left_out += u64::from(!sink.send(&mut self.credit, envelope, None, now));
        }
        if left_out > 0 {
            sink.tell_missed(Some(left_out));
        }
        if full { Turn::More } else { Turn::Done }
    }

    fn write_past(&mut self, sink: &mut Sink<'_>) -> Turn {
        let most = self.most();
        let Source::Past { replay: Some(replay), bell, waker, began } = &mut self.source else { return Turn::Done };
        bell.rung.store(false, Ordering::Release);
        let (mut cx, now) = (Context::from_waker(waker), Instant::now());
        for _ in 0..most {
            match replay.poll_next_unpin(&mut cx) {
                Poll::Pending => {
                    *began = true;
                    return Turn::Done;
                }
                Poll::Ready(None) => return Turn::Ended,
                Poll::Ready(Some(Ok(Recorded { position, event, .. }))) => {
                    *began = true;
                    if !sink.send(&mut self.credit, event, Some(position), now) {
                        sink.tell_missed(Some(1));
                    }
                }
                // What is gone before the beginning nobody was too slow for.
                Poll::Ready(Some(Err(missed))) if *began && self.slow == Slow::Bye => {
                    return Turn::TooSlow(missed.events.unwrap_or(0));
                }
                Poll::Ready(Some(Err(missed))) => sink.tell_missed(missed.events),
            }
        }
        Turn::More
    }
}

impl Ring {
    /// Takes up to `most` events; how many were left out before them. When fewer came, the next one is announced.
    fn take_some(&self, most: usize, into: &mut VecDeque<Envelope>) -> u64 {
        let mut state = self.state.lock();
        let count = most.min(state.events.len());
        into.extend(state.events.drain(..count));
        if count < most {
            state.announced = false;
        }
        std::mem::take(&mut state.missed)
    }
}

impl std::fmt::Debug for Feeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feeds").field("count", &self.feeds.len()).finish_non_exhaustive()
    }
}
