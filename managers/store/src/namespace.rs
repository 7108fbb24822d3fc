//! A namespace at work: reads, writes, watches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edri_events::{Body, Encoding, Failure, Value};
use edri_router::{Accepted, Bus, Deferred, RequestError};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::ask::{Fields, check_key, write_answer, write_change, write_changed, write_found, write_item};
use crate::disk::Work;
use crate::event::{Deleted, Incremented, Verb, What, Written};
use crate::kept::Kept;
use crate::limits::{ANSWER_BYTES_MAX, WATCH_CHANGES_MAX};
use crate::model::{Answer, Bounds, Change, Command, Refusal};
use crate::raw::Writer;
use crate::typed::Found;

/// Whoever reads without the worker waits so long for others who look or change, most of whom take less than a microsecond.
const AT_ONCE: Duration = Duration::from_micros(20);

/// The time of day, in milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, crate::event::milliseconds)
}

/// A change that is to be published.
type Announced = (What, Arc<str>, u64);

/// A namespace and everybody's way to it.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: Box<str>,
    pub(crate) bounds: Bounds,
    // Held to look or to change, never across an await or a wait for the disk: the worker, the writer and the watches are
    // on different threads, and each has to see all of a change or nothing.
    pub(crate) kept: Mutex<Kept>,
    /// Since when this store has the namespace; 0 before.
    pub(crate) since: AtomicU64,
    /// Who has the namespace instead.
    pub(crate) given_up: OnceLock<Failure>,
    /// What is to be published; one task does so.
    news: mpsc::Sender<Announced>,
    // Taken once, by that task.
    publishing: Mutex<Option<mpsc::Receiver<Announced>>>,
    /// How many changes were not published because their subscribers were too slow, since somebody said so.
    pub(crate) unpublished: AtomicU64,
}

impl Namespace {
    pub(crate) fn new(name: &str, bounds: Bounds) -> Self {
        let (news, publishing) = mpsc::channel(WATCH_CHANGES_MAX);
        Self {
            name: name.into(),
            bounds,
            kept: Mutex::new(Kept::new(bounds)),
            since: AtomicU64::new(0),
            given_up: OnceLock::new(),
            news,
            publishing: Mutex::new(Some(publishing)),
            unpublished: AtomicU64::new(0),
        }
    }

    /// Fails when another store has the namespace.
    pub(crate) fn check_owned(&self) -> Result<(), Failure> {
        self.given_up.get().cloned().map_or(Ok(()), Err)
    }

    pub(crate) fn end_watches(&self, because: &Failure) {
        self.kept.lock().end_watches(because);
    }

    // ---- reading ---------------------------------------------------------------------------------------------------

    /// What a key has.
    pub(crate) fn find(&self, key: &str) -> Result<Found, Failure> {
        check_key(key)?;
        Ok(self.kept.lock().find(now, key))
    }

    /// As [`Namespace::find`] where that can be told at once: nobody else looks or changes for longer than a moment, and the key is one.
    pub(crate) fn find_at_once(&self, key: &str) -> Option<Found> {
        check_key(key).ok()?;
        Some(self.kept.try_lock_for(AT_ONCE)?.find(now, key))
    }

    /// Answers a request that changes nothing.
    pub(crate) fn read(&self, verb: Verb, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        let fields = Fields::read(payload)?;
        if verb == Verb::Get {
            return Ok(write_found(&self.find(fields.key()?)?));
        }
        let (mut out, now) = (Writer::default(), now());
        match verb {
            Verb::GetMany => {
                let keys = fields.keys()?;
                let mut kept = self.kept.lock();
                out.list(keys.len());
                for key in keys {
                    write_item(&mut out, now, kept.get(now, key).map(|entry| (key, entry)));
                    if out.0.len() > ANSWER_BYTES_MAX {
                        let text =
                            format!("the items have more than {ANSWER_BYTES_MAX} bytes: ask for fewer at a time");
                        return Err(Failure::new("answer_too_long", text));
                    }
                }
            }
            Verb::List => {
                let (prefix, after, limit) = (fields.prefix()?, fields.after()?, fields.page()?);
                let page = self.kept.lock().page(now, prefix, after, limit);
                out.map(1 + usize::from(page.more));
                out.text("items");
                out.list(page.items.len());
                for (key, entry) in &page.items {
                    write_item(&mut out, now, Some((key, entry)));
                }
                if let Some((last, _)) = page.items.last().filter(|_| page.more) {
                    out.text("next");
                    out.text(last);
                }
            }
            Verb::Count => {
                let prefix = fields.prefix()?;
                out.count(self.kept.lock().count(now, prefix));
            }
            _ => return Err(Failure::new("unknown_verb", format!("`{}` reads nothing", verb.as_str()))),
        }
        Ok(out.0)
    }

    // ---- writing ---------------------------------------------------------------------------------------------------

    /// Writes in memory.
    pub(crate) fn write(&self, id: &str, command: &Command) -> Result<Answer, Failure> {
        let mut kept = self.kept.lock();
        let (answer, effects) = kept.apply(now(), Some(id), command);
        kept.tell(&effects.changes);
        self.announce(&effects.changes);
        drop(kept);
        answered(answer)
    }

    /// Writes what goes to disk; whoever asked is answered once it is there.
    pub(crate) fn write_through(
        self: &Arc<Self>,
        id: &str,
        command: &Command,
        place: mpsc::Permit<'_, Work>,
        reply: Replying,
    ) {
        let mut kept = self.kept.lock();
        if let Some(halted) = &kept.halted {
            let halted = halted.clone();
            drop(kept);
            return reply.send(Err(halted));
        }
        let (answer, effects) = kept.apply(now(), Some(id), command);
        // An answer that rests on what is not on disk waits for that.
        if effects.is_empty() && kept.is_settled() {
            drop(kept);
            return reply.send(answered(answer));
        }
        kept.hold(&effects.changes);
        // Still locked: in the order in which it was done.
        place.send(Work::Write { namespace: Arc::clone(self), effects, reply: Some((reply, answered(answer))) });
    }

    /// Takes out what has expired.
    pub(crate) fn sweep(self: &Arc<Self>, place: Option<mpsc::Permit<'_, Work>>) {
        let mut kept = self.kept.lock();
        if kept.halted.is_some() {
            return;
        }
        let effects = kept.sweep(now());
        if effects.is_empty() {
            return;
        }
        match place {
            Some(place) => {
                kept.hold(&effects.changes);
                place.send(Work::Write { namespace: Arc::clone(self), effects, reply: None });
            }
            None => {
                kept.tell(&effects.changes);
                self.announce(&effects.changes);
            }
        }
    }

    /// Whether something has expired and was not taken out yet.
    pub(crate) fn is_due(&self) -> bool {
        self.kept.lock().model().next_expiry().is_some_and(|at| at <= now())
    }

    // ---- telling ---------------------------------------------------------------------------------------------------

    /// Has changes published that are kept for certain.
    pub(crate) fn announce(&self, changes: &[Change]) {
        for change in changes {
            if self.news.try_send((change.what, Arc::clone(&change.key), change.version)).is_err() {
                self.unpublished.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Publishes changes, one after another. Whoever is slow makes this wait, and not the writers.
    pub(crate) async fn publish(self: Arc<Self>, bus: Bus) {
        let Some(receiver) = self.publishing.lock().take() else { return };
        let mut publishing = Publishing { namespace: &self, receiver: Some(receiver) };
        let event = Verb::Changed.event(&self.name);
        while let Some((what, key, version)) = publishing.next().await {
            if !bus.untyped().is_wanted(&event) {
                continue;
            }
            let body = Body::new(Encoding::MessagePack, write_changed(what, &key, version));
            if let Err(error) = bus.untyped().publish(&event, body).await {
                tracing::warn!(namespace = %self.name, %key, %error, "a change was not published to all");
            }
        }
    }

    /// Tells a watcher what there is and every change, until one of the two ends it.
    pub(crate) async fn watch(self: Arc<Self>, prefix: Box<str>, tunnel: Accepted<Body, Body>, outcome: Deferred) {
        let Some((number, bell)) = self.kept.lock().watch(&prefix) else {
            let text = "the namespace has as many watchers as it may: end some, or watch it once and pass it on";
            outcome.send(Err(RequestError::Failed(Failure::new("overloaded", text))));
            return;
        };
        let _watching = Watching { namespace: &self, number };
        let (mut receiver, mut sender) = tunnel.split();
        let telling = async {
            loop {
                let rung = bell.notified();
                let news = self.kept.lock().news(now(), number)?;
                if news.is_empty() {
                    rung.await;
                    continue;
                }
                for news in news {
                    let mut out = Writer::default();
                    write_change(&mut out, now(), news.what, &news.key, news.version, news.entry.as_ref());
                    let told = sender.send(Body::new(Encoding::MessagePack, out.0));
                    // A watcher that takes nothing is told why all the same, once its watch is over.
                    let over = self.over(number, &bell);
                    tokio::select! {
                        told = told => told.map_err(|error| Failure::new(error.code().to_owned(), error.to_string()))?,
                        because = over => return Err::<(), _>(because),
                    }
                }
            }
        };
        let ended = async {
            // It says nothing; that it has finished means that it reads on.
            while let Ok(Some(_)) = receiver.recv().await {}
            receiver.broken_off().await
        };
        let because = tokio::select! {
            told = telling => told.err(),
            _ = ended => None,
        };
        let result = match because {
            Some(failure) => Err(RequestError::Failed(failure)),
            None => Ok(Value::from(Body::new(Encoding::MessagePack, vec![0xc0]))),
        };
        outcome.send(result);
    }

    /// Ready once a watch is over.
    async fn over(&self, number: u64, bell: &tokio::sync::Notify) -> Failure {
        loop {
            if let Some(over) = self.kept.lock().over(number) {
                return over;
            }
            bell.notified().await;
        }
    }
}

/// What is to be published; given back when the task that does so ends.
struct Publishing<'a> {
    namespace: &'a Namespace,
    receiver: Option<mpsc::Receiver<Announced>>,
}

impl Publishing<'_> {
    async fn next(&mut self) -> Option<Announced> {
        self.receiver.as_mut()?.recv().await
    }
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        *self.namespace.publishing.lock() = self.receiver.take();
    }
}

/// A watch; it ends with whoever drops this.
struct Watching<'a> {
    namespace: &'a Namespace,
    number: u64,
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.namespace.kept.lock().unwatch(self.number);
    }
}

/// How whoever asked is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// With a value: he is on this node.
    Typed,
    /// With bytes as he writes them.
    Encoded(Encoding),
}

/// Whoever asked.
#[derive(Debug)]
pub(crate) struct Replying {
    pub(crate) reply: DeferredReply,
    pub(crate) way: Way,
}

/// A reply that was taken along.
pub(crate) struct DeferredReply(pub(crate) Deferred);

impl std::fmt::Debug for DeferredReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reply")
    }
}

impl Replying {
    pub(crate) fn send(self, answer: Result<Answer, Failure>) {
        let value = answer.and_then(|answer| to_value(answer, self.way));
        // Whether anybody still waits does not matter: it is done.
        self.reply.0.send(value.map_err(RequestError::Failed));
    }
}

/// An answer as whoever asked writes.
pub(crate) fn body(bytes: Vec<u8>, encoding: Encoding) -> Result<Body, Failure> {
    let body = Body::new(Encoding::MessagePack, bytes).transcode(encoding);
    body.map_err(|error| Failure::new("invalid_payload", format!("the answer cannot be written: {error}")))
}

/// The answer to a write.
pub(crate) fn to_value(answer: Answer, way: Way) -> Result<Value, Failure> {
    Ok(match (way, answer) {
        (Way::Typed, Answer::Written { version }) => Value::typed(Written { version }),
        (Way::Typed, Answer::Deleted { existed }) => Value::typed(Deleted { existed }),
        (Way::Typed, Answer::Incremented { value, version }) => Value::typed(Incremented { value, version }),
        (way, answer) => {
            let mut out = Writer::default();
            write_answer(&mut out, &answer);
            let encoding = match way {
                Way::Encoded(encoding) => encoding,
                Way::Typed => Encoding::MessagePack,
            };
            body(out.0, encoding)?.into()
        }
    })
}

fn answered(answer: Result<Answer, Refusal>) -> Result<Answer, Failure> {
    answer.map_err(|refusal| Failure::new(refusal.code(), refusal.to_string()))
}
