//! The subscriptions of a client. What it is too slow for is counted where it is left out; a publisher never waits.
//!
//! ```text
//!   publisher ─▶ Ring (bounded; the oldest make room, and are counted) ─▶ ready list ─▶ Feeds, in the session's task
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use edri_events::Envelope;
use edri_protocol::{Frame, Missed, Slow};
use edri_router::{Bus, DeclareError, Selection, Tap, Tapped};
use edri_workers::wire::{Outgoing, Peer};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

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
}

/// Why a session ends because of a subscription.
#[derive(Debug)]
pub(super) struct TooSlow {
    /// Of the subscription.
    pub(super) id: u64,
    pub(super) missed: u64,
}

#[derive(Default)]
pub(super) struct Feeds {
    feeds: HashMap<u64, Feed>,
    beginning: FuturesUnordered<BoxFuture<'static, (u64, Result<Tapped, DeclareError>)>>,
    ready: Arc<Ready>,
    /// Those that have something for a client that takes it.
    turns: VecDeque<u64>,
    outgoing: Outgoing,
    taken: VecDeque<Envelope>,
}

struct Feed {
    ring: Arc<Ring>,
    slow: Slow,
    credit: Option<u64>,
    /// Whether it is among the turns.
    listed: bool,
    /// In place; until then nothing of it is sent.
    tapped: Option<Tapped>,
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
            ready.rings.lock().push(self.id);
            ready.waker.wake();
        }
    }
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

impl Feeds {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.feeds.len()
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.feeds.contains_key(&id)
    }

    /// Begins a subscription; that it is in place, or why not, is told by [`Feeds::poll`].
    pub(super) fn begin(&mut self, bus: &Bus, id: u64, wanted: Wanted) {
        let Wanted { selection, capacity, slow, credit } = wanted;
        let ready = Arc::downgrade(&self.ready);
        let ring = Arc::new(Ring { id, capacity: capacity.max(1), ready, state: Mutex::default() });
        let (bus, tap) = (bus.clone(), Arc::clone(&ring) as Arc<dyn Tap>);
        self.feeds.insert(id, Feed { ring, slow, credit, listed: false, tapped: None });
        self.beginning.push(Box::pin(async move { (id, bus.tap(selection, tap).await) }));
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

    /// The next subscription that is in place, or cannot be.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<(u64, Result<(), DeclareError>)> {
        while let Poll::Ready(Some((id, begun))) = self.beginning.poll_next_unpin(cx) {
            // It may have been ended meanwhile.
            let Some(feed) = self.feeds.get_mut(&id) else { continue };
            match begun {
                Ok(tapped) => {
                    feed.tapped = Some(tapped);
                    feed.list(&mut self.turns);
                    return Poll::Ready((id, Ok(())));
                }
                Err(error) => {
                    self.feeds.remove(&id);
                    return Poll::Ready((id, Err(error)));
                }
            }
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
        let rings = std::mem::take(&mut *self.ready.rings.lock());
        for id in rings {
            let Some(feed) = self.feeds.get_mut(&id) else { continue };
            let missed = if feed.slow == Slow::Bye { feed.ring.state.lock().missed } else { 0 };
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
            if feed.tapped.is_none() || feed.credit == Some(0) {
                // It is listed again when that changes.
                continue;
            }
            let most = feed
                .credit
                .map_or(TURN_EVENTS, |credit| TURN_EVENTS.min(usize::try_from(credit).unwrap_or(TURN_EVENTS)));
            let missed = feed.ring.take_some(most, &mut self.taken);
            if missed > 0 {
                tell_missed(peer, id, missed);
            }
            let now = Instant::now();
            let mut left_out = 0;
            let full = self.taken.len() == most;
            for envelope in self.taken.drain(..) {
                if envelope.head().deadline.is_some_and(|deadline| deadline <= now) {
                    continue;
                }
                match self.outgoing.event(peer, id, &envelope, now) {
                    Ok(_) => {
                        if let Some(credit) = &mut feed.credit {
                            *credit -= 1;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(event = %envelope.name(), id = %envelope.id(), %error, "left out of a subscription");
                        left_out += 1;
                    }
                }
            }
            if left_out > 0 {
                tell_missed(peer, id, left_out);
            }
            if full {
                feed.list(&mut self.turns);
            }
        }
    }
}

fn tell_missed(peer: &Peer, id: u64, count: u64) {
    if let Err(error) = peer.send_quietly(&Frame::Missed(Missed { id, count })) {
        tracing::error!(%error, "`missed` was not sent");
    }
}

impl Feed {
    fn list(&mut self, turns: &mut VecDeque<u64>) {
        if !std::mem::replace(&mut self.listed, true) {
            turns.push_back(self.ring.id);
        }
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
