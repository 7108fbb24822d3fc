//! Writes events into a log where they are published, and wakes who waits for them.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use edri_events::{Encoding, Envelope, EventId, Incarnation, Pattern};
use parking_lot::Mutex;

use super::log::{Entry, Found, Log, Search};
use super::{History, Mark, Missed, Position, Since};
use crate::DeclareError;
use crate::limits::{HISTORY_EVENT_BYTES, HISTORY_READERS_MAX};
use crate::tap::Tap;

/// How many entries are given to a reader under one hold of the lock: publishers wait for it.
const AT_ONCE: usize = 64;
/// How many are compared with an id.
const SEARCHED_AT_ONCE: usize = 512;

/// The history of the events that a pattern selects.
pub(crate) struct Recorder {
    pattern: Pattern,
    /// Distinguishes this history from all others, also from one of the same name before or after it.
    life: Incarnation,
    bounds: History,
    // Held to number an event, to give a reader what there is, or to have it wait. No payload is encoded, looked at or
    // dropped meanwhile.
    kept: Mutex<Kept>,
}

struct Kept {
    log: Log<Envelope>,
    closed: bool,
    readers: usize,
    next_reader: u64,
    waiting: Waiting,
}

/// Readers that have had everything.
#[derive(Default)]
struct Waiting {
    any: HashMap<u64, Waker>,
    /// Those that want one key.
    by_key: HashMap<Arc<str>, HashMap<u64, Waker>>,
    /// The number of the event that one of them was woken for: none before it was for it.
    called: HashMap<u64, u64>,
}

/// What a reader finds, and the events go where it said.
#[derive(Debug)]
pub(super) enum Read {
    Events,
    Missed(Missed),
    /// It has had everything and will be woken.
    Nothing,
    /// It has had everything, and nothing more will come.
    Ended,
}

/// The figures of a history at one moment.
pub(crate) struct Figures {
    pub(crate) pattern: Pattern,
    pub(crate) bounds: History,
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) oldest: Option<Instant>,
    pub(crate) recorded: u64,
    pub(crate) readers: usize,
}

impl Tap for Recorder {
    /// Numbers an event and keeps it, unless it is too large. Never waits for anybody.
    fn take(&self, envelope: &Envelope) {
        let kept_alone = envelope.detached();
        let weight = weigh(&kept_alone);
        let mut gone = Vec::new();
        let wake = {
            let mut kept = self.kept.lock();
            if kept.closed {
                return;
            }
            let number = kept.log.push(Instant::now(), weight, kept_alone, &mut gone);
            kept.waiting.call(envelope, number)
        };
        drop(gone);
        wake.into_iter().for_each(Waker::wake);
    }

    /// Nothing comes any more: readers end once they have had everything.
    fn close(&self) {
        let wake = {
            let mut kept = self.kept.lock();
            kept.closed = true;
            let next = kept.log.next();
            kept.waiting.call_all(next)
        };
        wake.into_iter().for_each(Waker::wake);
    }
}

impl Recorder {
    pub(super) fn new(pattern: Pattern, bounds: History) -> Arc<Self> {
        let kept = Kept {
            log: Log::new(bounds.clone()),
            closed: false,
            readers: 0,
            next_reader: 0,
            waiting: Waiting::default(),
        };
        Arc::new(Self { pattern, life: Incarnation::random(), bounds, kept: Mutex::new(kept) })
    }

    pub(super) fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    pub(super) fn position(&self, number: u64) -> Position {
        Position { history: self.life, number }
    }

    pub(crate) fn figures(&self) -> Figures {
        let mut gone = Vec::new();
        let mut kept = self.kept.lock();
        kept.log.expire(Instant::now(), &mut gone);
        let Kept { log, readers, .. } = &*kept;
        Figures {
            pattern: self.pattern.clone(),
            bounds: self.bounds.clone(),
            events: log.len(),
            bytes: log.bytes(),
            oldest: log.oldest(),
            recorded: log.next() - 1,
            readers: *readers,
        }
    }

    /// A reader whose place is behind everything that there is.
    pub(super) fn join(self: &Arc<Self>, key: Option<Arc<str>>) -> Result<Reader, DeclareError> {
        let mut kept = self.kept.lock();
        if kept.readers >= HISTORY_READERS_MAX {
            return Err(DeclareError::Limit { what: "subscribers of one history", limit: HISTORY_READERS_MAX });
        }
        kept.readers += 1;
        kept.next_reader += 1;
        Ok(Reader { recorder: Arc::clone(self), id: kept.next_reader, key, place: kept.log.next() })
    }
}

/// What an event weighs; `None` when it cannot be encoded.
fn weigh(envelope: &Envelope) -> Option<usize> {
    // The publisher's own code runs here, but its failure to encode must not become a failure to publish.
    let body = catch_unwind(AssertUnwindSafe(|| envelope.body(Encoding::MessagePack)));
    let bytes = match body {
        Ok(Ok(body)) => body.bytes.len(),
        Ok(Err(error)) => {
            tracing::warn!(event = %envelope.name(), id = %envelope.id(), %error, "left out of a history");
            return None;
        }
        Err(_) => {
            tracing::error!(event = %envelope.name(), id = %envelope.id(), "encoding panicked; left out of a history");
            return None;
        }
    };
    let head = envelope.head();
    let headers =
        head.headers().map_or(0, |headers| headers.iter().map(|(name, value)| name.len() + value.len()).sum());
    Some(bytes + head.key().map_or(0, str::len) + headers + HISTORY_EVENT_BYTES)
}

impl Waiting {
    /// Whom the event of this number may concern.
    fn call(&mut self, envelope: &Envelope, number: u64) -> Vec<Waker> {
        let mut wake: Vec<_> = std::mem::take(&mut self.any).into_values().collect();
        if !self.by_key.is_empty() {
            let wanting = envelope.with_key(|key| key.and_then(|key| self.by_key.remove(key)));
            for (reader, waker) in wanting.into_iter().flatten() {
                self.called.insert(reader, number);
                wake.push(waker);
            }
        }
        wake
    }

    /// Everybody; none of the events before this number was for one that waited for a key.
    fn call_all(&mut self, next: u64) -> Vec<Waker> {
        let mut wake: Vec<_> = std::mem::take(&mut self.any).into_values().collect();
        for (reader, waker) in std::mem::take(&mut self.by_key).into_values().flatten() {
            self.called.insert(reader, next);
            wake.push(waker);
        }
        wake
    }

    /// Where a reader that waited for a key goes on, if it did: what came meanwhile and did not wake it was not for it.
    fn resume(&mut self, reader: u64, key: &str, next: u64) -> Option<u64> {
        if let Some(number) = self.called.remove(&reader) {
            return Some(number);
        }
        self.by_key.get(key).is_some_and(|waiting| waiting.contains_key(&reader)).then_some(next)
    }

    fn add(&mut self, reader: u64, key: Option<&Arc<str>>, waker: Waker) {
        match key {
            None => self.any.insert(reader, waker),
            Some(key) => self.by_key.entry(Arc::clone(key)).or_default().insert(reader, waker),
        };
    }

    fn remove(&mut self, reader: u64, key: Option<&Arc<str>>) {
        self.any.remove(&reader);
        self.called.remove(&reader);
        let Some(key) = key else { return };
        if let Some(waiting) = self.by_key.get_mut(key) {
            waiting.remove(&reader);
            if waiting.is_empty() {
                self.by_key.remove(key);
            }
        }
    }
}

/// One who reads a history: its place in it, and its place among those who wait.
pub(super) struct Reader {
    recorder: Arc<Recorder>,
    id: u64,
    key: Option<Arc<str>>,
    /// The number of the event that it gets next.
    place: u64,
}

impl Reader {
    pub(super) fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// Whether an entry that was read is not to be served any more.
    pub(super) fn is_too_old(&self, entry: &Entry<Envelope>, now: Instant) -> bool {
        self.recorder.bounds.is_too_old(entry.at, now)
    }

    /// Goes behind the last event that the subscriber has had. When that is not known, it goes before all that is kept and the
    /// subscriber is to be told.
    pub(super) async fn go_to(&mut self, since: Since) -> Option<Missed> {
        let number = match since.0 {
            Mark::Position(position) => {
                // One from the future is none that this history has given.
                (position.history == self.recorder.life && position.number < self.place).then_some(position.number)
            }
            Mark::Event(id) => self.find(id).await,
            Mark::Unknown => None,
        };
        match number {
            Some(number) => {
                self.place = number + 1;
                None
            }
            None => {
                self.go_back(usize::MAX);
                Some(Missed { events: None })
            }
        }
    }

    /// Goes back before the last `count` events.
    pub(super) fn go_back(&mut self, count: usize) {
        let mut gone = Vec::new();
        let mut kept = self.recorder.kept.lock();
        kept.log.expire(Instant::now(), &mut gone);
        self.place = kept.log.back(self.place, count);
    }

    /// The first event of this id: if it came twice, nobody knows which of them the subscriber has had.
    async fn find(&self, id: EventId) -> Option<u64> {
        let mut from = 0;
        loop {
            let search = self.recorder.kept.lock().log.find(from, SEARCHED_AT_ONCE, |envelope| envelope.id() == id);
            match search {
                Search::At(number) => return Some(number),
                Search::GoOn(on) => from = on,
                Search::Nowhere => return None,
            }
            tokio::task::yield_now().await;
        }
    }

    /// The entries below its place, newest first, not all at once; none when there are none.
    pub(super) fn before(&self, place: u64) -> Vec<Entry<Envelope>> {
        let mut gone = Vec::new();
        let mut kept = self.recorder.kept.lock();
        kept.log.expire(Instant::now(), &mut gone);
        let below = kept.log.below(place, AT_ONCE);
        drop(kept);
        below
    }

    pub(super) fn set_place(&mut self, place: u64) {
        self.place = place;
    }

    /// Reads on from its place; `waker` is woken when there is more.
    pub(super) fn read(&mut self, waker: &Waker, into: &mut VecDeque<Entry<Envelope>>) -> Read {
        let mut gone = Vec::new();
        let mut kept = self.recorder.kept.lock();
        let Kept { log, closed, waiting, .. } = &mut *kept;
        log.expire(Instant::now(), &mut gone);
        if let Some(key) = &self.key {
            let resumed = waiting.resume(self.id, key, log.next());
            self.place = resumed.map_or(self.place, |place| place.max(self.place));
        }
        let found = match log.read(&mut self.place, AT_ONCE, into) {
            Found::Entries => Read::Events,
            Found::Missed(events) => Read::Missed(Missed { events: Some(events) }),
            Found::Nothing if *closed => Read::Ended,
            Found::Nothing => {
                waiting.add(self.id, self.key.as_ref(), waker.clone());
                Read::Nothing
            }
        };
        drop(kept);
        found
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut kept = self.recorder.kept.lock();
        kept.readers -= 1;
        kept.waiting.remove(self.id, self.key.as_ref());
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}
