//! A subscription that begins in the past.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use edri_events::{Envelope, Notification};
use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt};

use super::log::Entry;
use super::recorder::{Read, Reader, Recorder};
use super::{Missed, Position, Since};
use crate::DeclareError;
use crate::subscribe::{Beginning, Received, Selection, Subscribe, Subscription, UntypedSubscription};
use crate::table::Predicate;
use crate::uplink::Past;

/// How many events are looked at before others get a turn on the thread.
const LOOKED_AT_ONCE: usize = 256;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// Behind the last event that the subscriber has had.
    Since(Since),
    /// With so many past events that it wants.
    Last(usize),
}

/// An event and its place in the history that it came from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Recorded<T> {
    /// Its place, to go on from later.
    pub position: Position,
    /// The event: a [`Received`], or an [`Envelope`].
    pub event: T,
}

impl<T> Recorded<T> {
    /// An event at its place.
    #[must_use]
    pub fn new(position: Position, event: T) -> Self {
        Self { position, event }
    }
}

/// Past events and then live ones, in the order of a history, each once; a stream of [`Recorded`], or of [`Missed`] where there is a
/// gap. Dropping it ends the subscription.
///
/// It has no inbox, and no publisher waits for it. Who reads so slowly that the history has lost events before they were read is told so, and
/// gets those that are left. Keys, filters and conditions are looked at when it is read. An event whose own time to live has ended is
/// left out, as everywhere.
#[must_use = "dropping a subscription ends it"]
pub struct Replay<T> {
    from: Origin,
    left_out: u64,
    event: PhantomData<fn() -> T>,
}

/// Where the events come from.
enum Origin {
    Here(Box<Reading>),
    Above {
        past: Box<dyn Past>,
        /// What is wanted of what comes from there, where functions cannot go.
        wants: Option<Predicate>,
    },
}

/// How far a history of this node is read.
struct Reading {
    reader: Reader,
    selection: Selection,
    /// What was read and not looked at.
    ahead: VecDeque<Entry<Envelope>>,
    /// What is to be told before the next event.
    gap: Option<Missed>,
    /// The number of the last event that was given, left out or missed.
    behind: u64,
}

impl Reading {
    /// Begins at the end of the history: what follows is live.
    fn join(recorder: &Arc<Recorder>, selection: Selection) -> Result<Self, DeclareError> {
        let reader = recorder.join(selection.key.clone())?;
        let behind = reader.place() - 1;
        let ahead = VecDeque::new();
        Ok(Self { reader, selection, ahead, gap: None, behind })
    }

    /// Goes back to where it is to begin.
    async fn start(mut self, start: Start) -> Self {
        match start {
            Start::Since(since) => self.gap = self.reader.go_to(since).await,
            Start::Last(count) if self.selection.selects_all_of(self.reader.recorder().pattern()) => {
                self.reader.go_back(count);
            }
            Start::Last(count) => self.go_back_wanted(count).await,
        }
        self.behind = self.reader.place() - 1;
        self
    }

    /// Goes before the last `count` events that the subscription wants, or before all of those when there are fewer.
    async fn go_back_wanted(&mut self, count: usize) {
        let (mut below, mut place, mut wanted) = (self.reader.place(), self.reader.place(), 0);
        while wanted < count {
            let entries = self.reader.before(below);
            let Some(oldest) = entries.last() else { break };
            below = oldest.number;
            let now = Instant::now();
            for entry in entries.iter().filter(|entry| self.serves(entry, now)) {
                wanted += 1;
                place = entry.number;
                if wanted == count {
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
        self.reader.set_place(place);
    }

    /// Whether an entry is for this subscription.
    fn serves(&self, entry: &Entry<Envelope>, now: Instant) -> bool {
        let in_time = entry.item.head().deadline.is_none_or(|deadline| deadline > now);
        in_time && self.selection.selects(&entry.item)
    }

    fn miss(&mut self, missed: Missed) {
        self.gap = Some(self.gap.map_or(missed, |gap| gap.and(missed)));
    }

    fn position(&self) -> Position {
        self.reader.recorder().position(self.behind)
    }

    fn poll_entry(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Recorded<Envelope>, Missed>>> {
        let mut looked = 0;
        loop {
            while let Some(entry) = self.ahead.pop_front() {
                let now = Instant::now();
                let number = entry.number;
                looked += 1;
                if self.reader.is_too_old(&entry, now) {
                    self.miss(Missed { events: Some(1) });
                } else if self.serves(&entry, now) {
                    if let Some(gap) = self.gap.take() {
                        self.ahead.push_front(entry);
                        return Poll::Ready(Some(Err(gap)));
                    }
                    self.behind = number;
                    let position = self.reader.recorder().position(number);
                    return Poll::Ready(Some(Ok(Recorded { position, event: entry.item })));
                }
                self.behind = number;
            }
            if looked >= LOOKED_AT_ONCE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.reader.read(cx.waker(), &mut self.ahead) {
                Read::Events => {}
                Read::Missed(missed) => {
                    self.miss(missed);
                    self.behind = self.reader.place() - 1;
                }
                read @ (Read::Nothing | Read::Ended) => {
                    self.behind = self.reader.place() - 1;
                    return match (self.gap.take(), read) {
                        (Some(gap), _) => Poll::Ready(Some(Err(gap))),
                        (None, Read::Ended) => Poll::Ready(None),
                        (None, _) => Poll::Pending,
                    };
                }
            }
        }
    }
}

impl<T> Replay<T> {
    /// Where it stands: to go on from here later, with [`Subscribe::since`], misses nothing and repeats nothing.
    #[must_use]
    pub fn position(&self) -> Position {
        match &self.from {
            Origin::Here(reading) => reading.position(),
            Origin::Above { past, .. } => past.position(),
        }
    }

    /// How many events were left out because their payload is not what the event's Rust type says.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn poll_entry(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Recorded<Envelope>, Missed>>> {
        let (past, wants) = match &mut self.from {
            Origin::Here(reading) => return reading.poll_entry(cx),
            Origin::Above { past, wants } => (past, wants),
        };
        loop {
            let next = std::task::ready!(past.poll_next(cx));
            if let Some(Ok(Recorded { event, .. })) = &next {
                let over = event.head().deadline.is_some_and(|deadline| deadline <= Instant::now());
                if over || wants.as_ref().is_some_and(|wants| !wants(event)) {
                    continue;
                }
            }
            return Poll::Ready(next);
        }
    }
}

impl<E: Notification> Replay<Received<E>> {
    /// The next event, or what was missed before it; `None` once the history has ended, with its node or before, and
    /// everything was read. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Recorded<Received<E>>, Missed>> {
        StreamExt::next(self).await
    }
}

impl Replay<Envelope> {
    /// The next event, or what was missed before it; `None` once the history has ended, with its node or before, and
    /// everything was read. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Recorded<Envelope>, Missed>> {
        StreamExt::next(self).await
    }
}

impl<E: Notification> Stream for Replay<Received<E>> {
    type Item = Result<Recorded<Received<E>>, Missed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Recorded { position, event } = match std::task::ready!(self.poll_entry(cx)) {
                Some(Ok(recorded)) => recorded,
                Some(Err(missed)) => return Poll::Ready(Some(Err(missed))),
                None => return Poll::Ready(None),
            };
            match Received::new(event) {
                Ok(event) => return Poll::Ready(Some(Ok(Recorded { position, event }))),
                Err(()) => self.left_out += 1,
            }
        }
    }
}

impl Stream for Replay<Envelope> {
    type Item = Result<Recorded<Envelope>, Missed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_entry(cx)
    }
}

impl<E: Notification> Subscribe<Subscription<E>> {
    /// First what came after the event that the subscriber has had last, a [`Position`] or the
    /// [`EventId`](edri_events::EventId) of an event that the history still has, then what comes; in the order of the
    /// history. Fails with [`DeclareError::NoHistory`] when no history of this node covers the event.
    pub fn since(self, last: impl Into<Since>) -> Subscribe<Replay<Received<E>>> {
        self.beginning(Start::Since(last.into()))
    }

    /// First the last `count` events that it wants, or as many as the history has, then what comes; in the order of the
    /// history. Fails with [`DeclareError::NoHistory`] when no history of this node covers the event.
    pub fn last(self, count: usize) -> Subscribe<Replay<Received<E>>> {
        self.beginning(Start::Last(count))
    }
}

impl Subscribe<UntypedSubscription> {
    /// First what came after the event that the subscriber has had last, a [`Position`] or the
    /// [`EventId`](edri_events::EventId) of an event that the history still has, then what comes; in the order of the
    /// history. It is the history of exactly this pattern, otherwise the first that was added and has all of its events; fails
    /// with [`DeclareError::NoHistory`] when there is none on this node.
    pub fn since(self, last: impl Into<Since>) -> Subscribe<Replay<Envelope>> {
        self.beginning(Start::Since(last.into()))
    }

    /// First the last `count` events that it wants, or as many as the history has, then what comes; of the history that
    /// [`Subscribe::since`] would use.
    pub fn last(self, count: usize) -> Subscribe<Replay<Envelope>> {
        self.beginning(Start::Last(count))
    }
}

impl<E: Notification> Subscribe<Replay<Received<E>>> {
    /// Only events that `wants` wants. Of several, all must want an event.
    pub fn filter(self, wants: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        self.predicate(move |envelope| envelope.payload::<E>().is_ok_and(&wants))
    }
}

impl Subscribe<Replay<Envelope>> {
    /// Only events that `wants` wants. Of several, all must want an event.
    pub fn filter(self, wants: impl Fn(&Envelope) -> bool + Send + Sync + 'static) -> Self {
        self.predicate(wants)
    }
}

impl<T: 'static> IntoFuture for Subscribe<Replay<T>> {
    type Output = Result<Replay<T>, DeclareError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let from = match self.past().await? {
                Beginning::Here(recorder, selection, start) => {
                    Origin::Here(Box::new(Reading::join(&recorder, selection)?.start(start).await))
                }
                Beginning::Above(past, wants) => Origin::Above { past, wants },
            };
            Ok(Replay { from, left_out: 0, event: PhantomData })
        })
    }
}

impl<T> std::fmt::Debug for Replay<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("position", &self.position()).finish_non_exhaustive()
    }
}
