//! The worker of a store, and its keeper: the task that expires, publishes and looks after who has a namespace.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edri_events::{Encoding, Envelope, Failure, Value, key_hash};
use edri_router::system::{ManagerChanged, NodeChanged};
use edri_router::{Bus, Health, ManagerState};
use edri_workers::{Context, HandleAny, Worker};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::ask::{self, Fields};
use crate::claim::{self, Held};
use crate::disk::{Disk, Work};
use crate::event::{VERBS, Verb};
use crate::file::StoreError;
use crate::model::Command;
use crate::namespace::{DeferredReply, Namespace, Replying, Way, body, now, to_value};
use crate::typed::Question;

/// How often it is looked for what has expired: well below the second that is promised.
const SWEEP_EVERY: Duration = Duration::from_millis(200);
/// How often it is said that changes were not published.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);

/// What all parts of a store share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) path: Option<PathBuf>,
    pub(crate) namespaces: Vec<Arc<Namespace>>,
    pub(crate) events: Arc<Events>,
    // Held to set, to take or to copy the queue.
    pub(crate) disk: Mutex<Option<Disk>>,
}

impl Shared {
    pub(crate) fn queue(&self) -> Option<tokio::sync::mpsc::Sender<Work>> {
        self.disk.lock().as_ref().map(|disk| disk.queue.clone())
    }
}

/// The worker. What it has is shared with whoever comes after it, should it be lost.
pub(crate) struct StoreWorker {
    shared: Arc<Shared>,
    queue: Option<tokio::sync::mpsc::Sender<Work>>,
    held: Option<Held>,
    keeper: Option<JoinHandle<()>>,
}

impl StoreWorker {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, queue: None, held: None, keeper: None }
    }

    fn open(&self) -> impl Future<Output = Result<(), Failure>> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            let Some(path) = shared.path.clone().filter(|_| shared.disk.lock().is_none()) else { return Ok(()) };
            let opening = tokio::task::spawn_blocking(move || {
                let disk = Disk::open(&path, shared.namespaces.clone())?;
                *shared.disk.lock() = Some(disk);
                Ok::<_, StoreError>(())
            });
            opening.await?.map_err(|error| {
                let failure = Failure::new("storage_failed", error.to_string());
                // Who has the file open may be about to close it, and a full disk about to have room.
                if error.is_for_good() { failure.for_good() } else { failure }
            })
        }
    }
}

impl Drop for StoreWorker {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl Worker for StoreWorker {
    async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
        let names = self.shared.namespaces.iter().map(|namespace| &*namespace.name);
        self.held = Some(claim::hold(cx.address(), names).map_err(Failure::for_good)?);
        self.open().await?;
        self.queue = self.shared.queue();
        claim::ask_before(cx.bus(), &self.shared.namespaces).await.map_err(Failure::for_good)?;
        let since = now();
        for namespace in &self.shared.namespaces {
            // After a worker that was lost it goes on as before.
            let _ = namespace.since.compare_exchange(0, since, Ordering::Relaxed, Ordering::Relaxed);
        }
        let keeper = Keeper {
            bus: cx.bus().clone(),
            namespaces: self.shared.namespaces.clone(),
            queue: self.queue.as_ref().map(tokio::sync::mpsc::Sender::downgrade),
        };
        self.keeper = Some(tokio::spawn(keeper.run()));
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
            // Its subscriptions end with it, and what they have not read is accounted for before the node is.
            if let Err(error) = keeper.await
                && error.is_panic()
            {
                tracing::error!(%error, "the keeper of a store panicked");
            }
        }
        let because = Failure::new("stopping", "the store is stopping");
        self.shared.namespaces.iter().for_each(|namespace| namespace.end_watches(&because));
        self.queue = None;
        let disk = self.shared.disk.lock().take();
        if let Some(disk) = disk
            && let Err(error) = tokio::task::spawn_blocking(move || disk.close()).await
        {
            tracing::error!(%error, "closing the store's file");
        }
    }
}

impl HandleAny for StoreWorker {
    async fn handle(&mut self, event: &Envelope, cx: &mut Context) -> Result<Option<Value>, Failure> {
        match self.ask(event, cx)? {
            Asked::Answered(value) => Ok(Some(value)),
            // Boxed, it does not weigh on every request's future.
            Asked::Durable(write) => Box::pin(self.write_through(write, cx)).await,
        }
    }
}

/// What came of a request.
enum Asked {
    Answered(Value),
    /// It goes to disk.
    Durable(Box<Write>),
}

/// Something to write.
struct Write {
    namespace: Arc<Namespace>,
    id: String,
    command: Command,
    way: Way,
}

impl StoreWorker {
    fn ask(&self, event: &Envelope, cx: &mut Context) -> Result<Asked, Failure> {
        let (namespace, verb) = self.shared.events.find(event)?;
        if verb == Verb::Claim {
            let encoding = event.body(Encoding::MessagePack)?.encoding;
            return Ok(Asked::Answered(claim::answer(namespace, cx.address())?.transcode(encoding)?.into()));
        }
        if let Err(failure) = namespace.check_owned() {
            cx.report_health(Health::Bad(failure.text().to_owned()));
            return Err(failure);
        }
        match (verb, event.typed::<Question>()) {
            (Verb::Get, Some(Question::Get(get))) => Ok(Asked::Answered(Value::typed(namespace.find(&get.key)?))),
            (Verb::Set, Some(Question::Set(set))) => {
                self.write(namespace, event, ask::set(set)?, set.request.as_deref(), Way::Typed)
            }
            (Verb::Delete, Some(Question::Delete(delete))) => {
                self.write(namespace, event, ask::delete(delete)?, delete.request.as_deref(), Way::Typed)
            }
            (Verb::Increment, Some(Question::Increment(increment))) => {
                self.write(namespace, event, ask::increment(increment)?, increment.request.as_deref(), Way::Typed)
            }
            _ => self.ask_encoded(namespace, verb, event, cx),
        }
    }

    fn ask_encoded(
        &self,
        namespace: &Arc<Namespace>,
        verb: Verb,
        event: &Envelope,
        cx: &mut Context,
    ) -> Result<Asked, Failure> {
        let asked = event.body(Encoding::MessagePack)?;
        let encoding = asked.encoding;
        let asked = asked.transcode(Encoding::MessagePack);
        let asked = asked.map_err(|error| Failure::new("invalid_payload", error.to_string()))?;
        match verb {
            Verb::Get | Verb::GetMany | Verb::List | Verb::Count => {
                Ok(Asked::Answered(body(namespace.read(verb, &asked.bytes)?, encoding)?.into()))
            }
            Verb::Watch => {
                let prefix = Fields::read(&asked.bytes)?.prefix()?.into();
                let (tunnel, outcome) = (cx.accept_untyped()?, cx.defer_untyped()?);
                tokio::spawn(Arc::clone(namespace).watch(prefix, tunnel, outcome));
                Err(Failure::deferred())
            }
            _ => {
                let fields = Fields::read(&asked.bytes)?;
                self.write(namespace, event, command(verb, &fields)?, fields.request()?, Way::Encoded(encoding))
            }
        }
    }

    /// Writes in memory, or says what is to be written to disk. Without an id of its own the request has that of its event.
    fn write(
        &self,
        namespace: &Arc<Namespace>,
        event: &Envelope,
        command: Command,
        id: Option<&str>,
        way: Way,
    ) -> Result<Asked, Failure> {
        ask::check_request(id)?;
        let id = id.map_or_else(|| Cow::Owned(event.id().to_string()), Cow::Borrowed);
        if self.queue.is_none() {
            return Ok(Asked::Answered(to_value(namespace.write(&id, &command)?, way)?));
        }
        let write = Write { namespace: Arc::clone(namespace), id: id.into_owned(), command, way };
        Ok(Asked::Durable(Box::new(write)))
    }

    async fn write_through(&self, write: Box<Write>, cx: &mut Context) -> Result<Option<Value>, Failure> {
        let closed = || Failure::from(StoreError::Closed);
        let Some(queue) = &self.queue else { return Err(closed()) };
        // The writer lives as long as this queue.
        let place = queue.reserve().await.map_err(|_| closed())?;
        let reply = Replying { reply: DeferredReply(cx.defer_untyped()?), way: write.way };
        write.namespace.write_through(&write.id, &write.command, place, reply);
        Err(Failure::deferred())
    }
}

/// What a request asks to be done.
pub(crate) fn command(verb: Verb, fields: &Fields<'_>) -> Result<Command, Failure> {
    match verb {
        Verb::Set => fields.set(),
        Verb::Delete => fields.delete(),
        Verb::Increment => fields.increment(),
        Verb::Append => fields.append(),
        Verb::Swap => fields.swap(),
        _ => fields.transact(),
    }
}

/// The events of the namespaces, by the hashes of their names, which descriptors have: each request looks for one.
#[derive(Debug)]
pub(crate) struct Events(Vec<(u64, KnownEvent)>);

#[derive(Debug)]
struct KnownEvent {
    name: String,
    namespace: Arc<Namespace>,
    verb: Verb,
}

impl Events {
    pub(crate) fn of(namespaces: &[Arc<Namespace>]) -> Self {
        let of_namespace = |namespace: &Arc<Namespace>| {
            VERBS.map(|verb| KnownEvent { name: verb.event(&namespace.name), namespace: Arc::clone(namespace), verb })
        };
        let events = namespaces.iter().flat_map(of_namespace);
        let mut events: Vec<_> = events.map(|event| (key_hash(&event.name), event)).collect();
        events.sort_by_key(|(hash, _)| *hash);
        Self(events)
    }

    pub(crate) fn find(&self, event: &Envelope) -> Result<(&Arc<Namespace>, Verb), Failure> {
        let hash = event.head().descriptor.name_hash();
        let first = self.0.partition_point(|(other, _)| *other < hash);
        let same = self.0[first..].iter().take_while(|(other, _)| *other == hash).map(|(_, known)| known);
        let found = same.into_iter().find(|known| *known.name == **event.name());
        found
            .map(|known| (&known.namespace, known.verb))
            .ok_or_else(|| Failure::new("unknown_verb", format!("`{}` is none of mine", event.name())))
    }
}

/// What goes on beside the worker.
struct Keeper {
    bus: Bus,
    namespaces: Vec<Arc<Namespace>>,
    /// Weak, because the writer ends with its queue.
    queue: Option<tokio::sync::mpsc::WeakSender<Work>>,
}

impl Keeper {
    async fn run(self) {
        // Aborted with this task.
        let mut beside = JoinSet::new();
        for namespace in &self.namespaces {
            beside.spawn(Arc::clone(namespace).publish(self.bus.clone()));
        }
        // A node that does not answer holds up no expiry.
        let met = Arc::new(Notify::new());
        beside.spawn(claim::compare_always(self.bus.clone(), self.namespaces.clone(), Arc::clone(&met)));
        let (nodes, managers) =
            (self.bus.subscribe::<NodeChanged>().await, self.bus.subscribe::<ManagerChanged>().await);
        let (mut nodes, mut managers) = match (nodes, managers) {
            (Ok(nodes), Ok(managers)) => (nodes, managers),
            (Err(error), _) | (_, Err(error)) => {
                // The node is stopping.
                tracing::debug!(%error, "the keeper of a store does not hear of nodes");
                return;
            }
        };
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complaints = tokio::time::interval(COMPLAIN_EVERY);
        complaints.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = sweep.tick() => self.sweep().await,
                _ = complaints.tick() => self.complain(),
                Some(change) = nodes.next() => match change.state.as_str() {
                    "stopping" if *change.node == *self.bus.address().node => self.end_watches(),
                    "reachable" => met.notify_one(),
                    _ => {}
                },
                Some(change) = managers.next() => {
                    let own = self.bus.address();
                    let is_own = *change.node == *own.node
                        && own.manager.as_ref().is_some_and(|manager| **manager == *change.manager);
                    if is_own && change.state == ManagerState::Draining {
                        self.end_watches();
                    }
                }
                else => return,
            }
        }
    }

    /// A watch would go on for ever, and the node wait for it.
    fn end_watches(&self) {
        let because = Failure::new("stopping", "the store is stopping: open the watch again once it is back");
        self.namespaces.iter().for_each(|namespace| namespace.end_watches(&because));
    }

    /// Says how many changes were not published, as far as it was not said.
    fn complain(&self) {
        for namespace in &self.namespaces {
            let missed = namespace.unpublished.swap(0, Ordering::Relaxed);
            if missed > 0 {
                tracing::warn!(
                    namespace = %namespace.name, missed,
                    "changes were not published: subscribers of its `changed` are too slow; watch it instead"
                );
            }
        }
    }

    async fn sweep(&self) {
        for namespace in &self.namespaces {
            while namespace.is_due() && namespace.check_owned().is_ok() {
                match &self.queue {
                    None => {
                        namespace.sweep(None);
                        // Many may expire at once, and others want this thread.
                        tokio::task::yield_now().await;
                    }
                    Some(queue) => {
                        let Some(queue) = queue.upgrade() else { return };
                        let Ok(place) = queue.reserve().await else { return };
                        namespace.sweep(Some(place));
                        if namespace.kept.lock().halted.is_some() {
                            break;
                        }
                    }
                }
            }
        }
    }
}
