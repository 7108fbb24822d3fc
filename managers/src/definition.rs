//! What a manager is made with.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use edri_events::{
    Body, DescriptorRef, Encoding, Envelope, Event, EventName, Failure, ManagerName, Pattern, Request, Value,
};
use edri_router::{INBOX_CAPACITY_DEFAULT, INBOX_CAPACITY_MAX, INSTANCES_MAX, Overflow, Selection};
use edri_workers::{
    Backoff, Blueprint, Demand, Factory, Handle, HandleAny, HandleConcurrent, Hosted, Placement, Policy, Process,
    Retry, TakeArguments, Worker,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::responds::Responds;

/// When a lost worker is restarted, and when its manager gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// The pauses before restarts of one instance that follow one another.
    pub backoff: Backoff,
    /// So many restarts of all instances together...
    pub most: u32,
    /// ...within so long are borne; one more, and the manager has failed.
    pub within: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self { backoff: Backoff::default(), most: 8, within: Duration::from_secs(60) }
    }
}

impl Restart {
    /// A manager whose first lost worker is its end.
    #[must_use]
    pub fn never() -> Self {
        Self { most: 0, ..Self::default() }
    }

    /// So many restarts within so long.
    #[must_use]
    pub fn at_most(most: u32, within: Duration) -> Self {
        Self { most, within, ..Self::default() }
    }

    /// With these pauses.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Backoff { first, longest };
        self
    }
}

/// A manager to be: a name, a worker type, the events it handles, and how it is run.
///
/// ```
/// # use edri_events::{event, Failure};
/// # use edri_workers::{Context, Handle, Worker};
/// # use edri_managers::Manager;
/// # #[event(notification, name = "quake.recorded", key = region, crate = edri_events)]
/// # struct QuakeRecorded { region: String }
/// #[derive(Default)]
/// struct Counter(u64);
/// impl Worker for Counter {}
/// impl Handle<QuakeRecorded> for Counter {
///     async fn handle(&mut self, _: &QuakeRecorded, _: &mut Context) -> Result<(), Failure> {
///         self.0 += 1;
///         Ok(())
///     }
/// }
///
/// let manager = Manager::new("counter").workers(4, Counter::default).keyed().handles::<QuakeRecorded>();
/// ```
#[derive(Debug)]
#[must_use = "a manager does nothing until it is given to an App or a Node"]
pub struct Manager<W = ()> {
    settings: Settings,
    worker: W,
}

/// A worker type with what makes it: the type of a manager whose workers are known is `Manager<Typed<W>>`.
pub struct Typed<W> {
    blueprint: Blueprint<W>,
    make: Box<dyn Fn() -> W + Send + Sync>,
    /// Where arguments go that came from elsewhere.
    take_arguments: Option<TakeArguments>,
}

impl<W> std::fmt::Debug for Typed<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.blueprint, f)
    }
}

/// A worker that is a program of its own.
#[derive(Debug)]
pub struct Program(());

/// A worker that comes over a network.
#[derive(Debug)]
pub struct Remote(());

/// All of a manager but its worker type.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) instances: usize,
    pub(crate) keyed: bool,
    pub(crate) shared: bool,
    pub(crate) capacity: usize,
    pub(crate) overflow: Overflow,
    pub(crate) placement: Placement,
    pub(crate) policy: Policy,
    pub(crate) restart: Restart,
    pub(crate) process: Process,
    /// What workers in other processes are made with, as MessagePack.
    pub(crate) arguments: Option<Bytes>,
    /// Whether workers come by themselves, over a network.
    pub(crate) remote: Option<Comes>,
    /// What they may handle; anything when it is empty.
    pub(crate) serves: Vec<Pattern>,
    /// What answers in the stead of workers that are in this process.
    pub(crate) responds: Responds,
    /// The first thing that was wrong, told when the manager is started.
    pub(crate) wrong: Option<String>,
}

/// Which workers that come over a network a manager has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comes {
    /// All of them are expected.
    Expected,
    /// As many as there are.
    AsTheyLike,
}

impl Manager {
    /// A manager of this name, unique on its node. A name that breaks the rules of [`ManagerName`] is refused when the
    /// manager is started.
    pub fn new(name: &str) -> Self {
        Self {
            settings: Settings {
                name: name.to_owned(),
                instances: 1,
                keyed: false,
                shared: false,
                capacity: INBOX_CAPACITY_DEFAULT,
                overflow: Overflow::Wait,
                placement: Placement::Task,
                policy: Policy::default(),
                restart: Restart::default(),
                process: Process::default(),
                arguments: None,
                remote: None,
                serves: Vec::new(),
                responds: Responds::default(),
                wrong: None,
            },
            worker: (),
        }
    }

    /// A manager whose worker is a program in any language that speaks the protocol, as those do that use an SDK. The
    /// program itself says which events it handles. `command` is split into words as a shell does, quotes included;
    /// nothing else in it means anything special, and no shell runs.
    ///
    /// ```
    /// # use edri_managers::Manager;
    /// let manager = Manager::program("report", "python3 'my reports/report.py' --quiet").instances(2);
    /// ```
    pub fn program(name: &str, command: &str) -> Manager<Program> {
        let mut settings = Self::new(name).settings;
        let words = shlex::split(command).filter(|words| !words.is_empty());
        let words = words.unwrap_or_else(|| {
            settings.refuse(format!("`{command}` is no command: it is empty, or a quote in it is not closed"));
            Vec::new()
        });
        settings.placement = Placement::Process;
        settings.process = Process::foreign(words.into_iter().map(Into::into).collect());
        Manager { settings, worker: Program(()) }
    }

    /// A manager whose workers connect to the node's gateway, from wherever they are: programs in any language that name
    /// this manager in their `hello`, have a token that lets them serve what they handle, and say themselves what that is. The
    /// node waits for them with its start, up to its start time-out, and each that is missing later leaves its events waiting
    /// in the inbox until it comes again, or another in its place.
    ///
    /// Workers that have gone are not started from here, so [`Manager::restart`] bounds nothing unless it is set.
    ///
    /// ```
    /// # use edri_managers::Manager;
    /// let manager = Manager::remote("model").instances(2).serves("risk.*");
    /// ```
    pub fn remote(name: &str) -> Manager<Remote> {
        let mut settings = Self::new(name).settings;
        settings.placement = Placement::Process;
        settings.remote = Some(Comes::Expected);
        settings.restart = Restart { most: u32::MAX, ..Restart::default() };
        Manager { settings, worker: Remote(()) }
    }

    /// So many worker instances, each made by `make`; a lost one is made anew.
    pub fn workers<W: Worker>(
        mut self,
        instances: usize,
        make: impl Fn() -> W + Send + Sync + 'static,
    ) -> Manager<Typed<W>> {
        self.settings.set_instances(instances);
        let worker = Typed { blueprint: Blueprint::default(), make: Box::new(make), take_arguments: None };
        Manager { settings: self.settings, worker }
    }

    /// So many worker instances, each made by `make` with these arguments. A worker in a process of its own gets the
    /// arguments that its node has, even where this process would come to others.
    ///
    /// ```
    /// # use edri_events::{event, Failure};
    /// # use edri_workers::{Context, Handle, Placement, Worker};
    /// # use edri_managers::Manager;
    /// # #[event(notification, name = "quake.recorded", crate = edri_events)]
    /// # struct QuakeRecorded {}
    /// struct Alarm { least: f64 }
    /// impl Worker for Alarm {}
    /// # impl Handle<QuakeRecorded> for Alarm {
    /// #     async fn handle(&mut self, _: &QuakeRecorded, _: &mut Context) -> Result<(), Failure> { Ok(()) }
    /// # }
    ///
    /// let least: f64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5.0);
    /// let manager = Manager::new("alarm")
    ///     .workers_with(2, &least, |least| Alarm { least })
    ///     .placement(Placement::Process)
    ///     .handles::<QuakeRecorded>();
    /// ```
    pub fn workers_with<A, W: Worker>(
        mut self,
        instances: usize,
        arguments: &A,
        make: impl Fn(A) -> W + Send + Sync + 'static,
    ) -> Manager<Typed<W>>
    where
        A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        match Encoding::MessagePack.encode(arguments) {
            Ok(encoded) => self.settings.arguments = Some(encoded),
            Err(error) => self.settings.refuse(format!("its workers' arguments: {error}")),
        }
        let (own, given) = (arguments.clone(), Arc::new(OnceLock::<A>::new()));
        let taken = Arc::clone(&given);
        let mut manager = self.workers(instances, move || make(given.get().unwrap_or(&own).clone()));
        manager.worker.take_arguments = Some(Arc::new(move |body: &Body| {
            // They come once, before the first worker is made.
            let _ = taken.set(body.decode()?);
            Ok(())
        }));
        manager
    }

    /// One worker instance.
    pub fn worker<W: Worker>(self, make: impl Fn() -> W + Send + Sync + 'static) -> Manager<Typed<W>> {
        self.workers(1, make)
    }
}

impl<W: Worker> Manager<Typed<W>> {
    /// The workers handle events of type `E`, one at a time each.
    pub fn handles<E: Event>(mut self) -> Self
    where
        W: Handle<E>,
    {
        self.worker.blueprint.handles::<E>();
        self
    }

    /// The workers handle events of type `E`, several at a time each: [`Manager::concurrency`].
    pub fn handles_concurrently<E: Event>(mut self) -> Self
    where
        W: HandleConcurrent<E>,
    {
        self.worker.blueprint.handles_concurrently::<E>();
        self
    }

    /// The workers handle events whose names `pattern` selects, without their Rust types. A pattern with wildcards gets
    /// notifications only; a plain name is also answered when it is a request or a tunnel.
    pub fn handles_any(mut self, pattern: &str) -> Self
    where
        W: HandleAny,
    {
        match Pattern::new(pattern) {
            Ok(pattern) => self.worker.blueprint.handles_any(pattern),
            Err(error) => self.settings.refuse(error.to_string()),
        }
        self
    }

    /// Requests of type `E` are put to `respond` where they are asked, before the workers: what it knows at once is the answer, or the failure,
    /// and `None` leaves the request to a worker. It is for what is only read, out of what it shares with the workers; they handle `E` too,
    /// and answer it the same.
    ///
    /// It is asked only while the manager runs and its workers have nothing in hand or waiting. So a requester finds what it has sent to
    /// the manager before, awaited or not, where there is one worker that takes one event at a time. It runs in the task of whoever asks,
    /// several at a time, also in the one that has the links to other nodes: it has to be quick and must not wait. When it panics, a worker has the
    /// request. Workers in processes share nothing with it, so a manager that has them is refused.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use edri_events::{Failure, event};
    /// use edri_managers::Manager;
    /// use edri_workers::{Context, Handle, Worker};
    ///
    /// #[event(request, name = "visits.count", response = u64, crate = edri_events)]
    /// struct Count {}
    ///
    /// #[event(request, name = "visits.add", response = u64, crate = edri_events)]
    /// struct Add {}
    ///
    /// struct Visits(Arc<AtomicU64>);
    ///
    /// impl Worker for Visits {}
    ///
    /// impl Handle<Add> for Visits {
    ///     async fn handle(&mut self, _: &Add, _: &mut Context) -> Result<u64, Failure> {
    ///         Ok(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    ///     }
    /// }
    ///
    /// // Asked while there is something to add.
    /// impl Handle<Count> for Visits {
    ///     async fn handle(&mut self, _: &Count, _: &mut Context) -> Result<u64, Failure> {
    ///         Ok(self.0.load(Ordering::Relaxed))
    ///     }
    /// }
    ///
    /// let visits = Arc::new(AtomicU64::new(0));
    /// let read = Arc::clone(&visits);
    /// let manager = Manager::new("visits")
    ///     .worker(move || Visits(Arc::clone(&visits)))
    ///     .handles::<Add>()
    ///     .handles::<Count>()
    ///     .responds::<Count>(move |_| Some(Ok(read.load(Ordering::Relaxed))));
    /// ```
    pub fn responds<E: Request>(
        mut self,
        respond: impl Fn(&E) -> Option<Result<E::Output, Failure>> + Send + Sync + 'static,
    ) -> Self {
        let added = self.settings.responds.add(respond);
        self.settings.refuse_if(added);
        self
    }

    /// As [`Manager::responds`], for requests of this name, without their Rust type.
    pub fn responds_any(
        mut self,
        name: &str,
        respond: impl Fn(&Envelope) -> Option<Result<Value, Failure>> + Send + Sync + 'static,
    ) -> Self {
        let name = EventName::new(name).map_err(|error| error.to_string());
        let added = name.and_then(|name| self.settings.responds.add_any(name, respond));
        self.settings.refuse_if(added);
        self
    }

    /// Declares an event that has no Rust type here, together with the manager.
    pub fn declares(mut self, event: impl Into<DescriptorRef>) -> Self {
        self.worker.blueprint.declares(event.into());
        self
    }
}

impl Manager<Program> {
    /// So many processes. One by default.
    pub fn instances(mut self, instances: usize) -> Self {
        self.settings.set_instances(instances);
        self
    }
}

impl Manager<Remote> {
    /// So many workers. One by default. Those that come beyond wait until one of them goes.
    pub fn instances(mut self, instances: usize) -> Self {
        self.settings.set_instances(instances);
        self
    }

    /// The workers handle nothing but events that this pattern, or another that is given so, selects. Without it the first that comes
    /// says what all of them handle, so whoever may serve anything at all could come first with something else.
    pub fn serves(mut self, pattern: &str) -> Self {
        match Pattern::new(pattern) {
            Ok(pattern) => self.settings.serves.push(pattern),
            Err(error) => self.settings.refuse(error.to_string()),
        }
        self
    }

    /// A worker that has not answered for so long is taken for gone. 10 s by default, at least 100 ms.
    pub fn silence_limit(mut self, limit: Duration) -> Self {
        self.settings.process = self.settings.process.silence_limit(limit);
        self
    }

    /// How many events each worker may have in its hands at once. 64 by default, and never more than the worker itself wants.
    pub fn window(mut self, events: u32) -> Self {
        self.settings.process = self.settings.process.window(events);
        self
    }

    /// None is expected, and there are up to `most` of them: for those whom nobody has declared.
    #[doc(hidden)]
    pub fn as_they_like(mut self, most: usize) -> Self {
        self.settings.remote = Some(Comes::AsTheyLike);
        self.instances(most)
    }
}

impl<W> Manager<W> {
    /// The workers run as processes, started and kept as `change` says; [`Placement::Process`] alone is as by default.
    ///
    /// ```
    /// # use edri_managers::Manager;
    /// Manager::program("report", "python3 report.py").process(|process| process.env("PYTHONUNBUFFERED", "1"));
    /// ```
    pub fn process(mut self, change: impl FnOnce(Process) -> Process) -> Self {
        self.settings.placement = Placement::Process;
        self.settings.process = change(self.settings.process);
        self
    }

    /// Where the workers run. By default as tasks.
    pub fn placement(mut self, placement: Placement) -> Self {
        self.settings.placement = placement;
        self
    }

    /// Each instance has a partition of its own: events of one key go to the same instance, in order. Otherwise the
    /// instances compete for events from one inbox.
    pub fn keyed(mut self) -> Self {
        self.settings.keyed = true;
        self
    }

    /// Makes the managers of this name on all nodes one group: each notification goes to one of them, to that of the
    /// publisher's own node while it has room, then to the node with most room. When a node dies, what it had not taken goes
    /// to another, marked as redelivered.
    ///
    /// With [`Manager::keyed`] the keys are divided among the nodes: the events and requests of one key go to one node at a time, in the order
    /// of their publisher. When nodes come and leave, keys move, each only once the node that had it has handled what it has of it; those of
    /// a node that died are taken over when its links have been away for the connector's `expiry`, or when it comes back.
    pub fn shared(mut self) -> Self {
        self.settings.shared = true;
        self
    }

    /// The places of the inbox, or of each partition's. 1,024 by default.
    pub fn inbox(mut self, places: usize) -> Self {
        if places == 0 || places > INBOX_CAPACITY_MAX {
            self.settings.refuse(format!("an inbox of {places} places: it has 1 to {INBOX_CAPACITY_MAX}"));
        }
        self.settings.capacity = places.clamp(1, INBOX_CAPACITY_MAX);
        self
    }

    /// What happens to a notification when the inbox is full. By default its publisher waits.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.settings.overflow = overflow;
        self
    }

    /// How often a notification is tried whose handler fails. By default once.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.policy.retry = retry;
        self
    }

    /// How lost workers are restarted.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.settings.restart = restart;
        self
    }

    /// How long a handler may take. After that a task is dropped and its instance replaced, a thread is replaced and
    /// counted as stuck, and of concurrent handlers the one is dropped. By default as long as it likes.
    ///
    /// A task and a concurrent handler are dropped where they await; one that blocks its thread goes on.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.settings.policy.time_limit = Some(limit);
        self
    }

    /// A manager that cannot be, as what it was to be made with is wrong: it is refused with these words when it is started. For
    /// those who make managers for others.
    pub fn invalid(mut self, wrong: impl Into<String>) -> Self {
        self.settings.refuse(wrong.into());
        self
    }

    /// How many events one instance may have in its concurrent handlers at once. 64 by default.
    pub fn concurrency(mut self, most: usize) -> Self {
        if most == 0 {
            self.settings.refuse("a concurrency of 0: at least one event at a time".to_owned());
        }
        self.settings.policy.concurrency = most.max(1);
        self
    }
}

impl Settings {
    fn set_instances(&mut self, instances: usize) {
        if instances == 0 || instances > INSTANCES_MAX {
            self.refuse(format!("{instances} instances: a manager has 1 to {INSTANCES_MAX}"));
        }
        self.instances = instances.clamp(1, INSTANCES_MAX);
    }

    fn refuse_if(&mut self, result: Result<(), String>) {
        if let Err(wrong) = result {
            self.refuse(wrong);
        }
    }

    fn refuse(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }
}

/// A manager with the worker type taken off.
pub struct Definition {
    pub(crate) settings: Settings,
    pub(crate) events: Vec<DescriptorRef>,
    pub(crate) selections: Vec<Selection>,
    /// What makes instances; none of a program, which says itself what it handles.
    pub(crate) factory: Option<Factory>,
    take_arguments: Option<TakeArguments>,
    /// Whether an instance may handle several events at once.
    concurrent: bool,
}

impl Definition {
    /// The manager's worker, to be hosted in this process for a node in another; `None` when the manager has no name, or its worker is
    /// a program of its own.
    #[doc(hidden)]
    #[must_use]
    pub fn into_hosted(self) -> Option<Hosted> {
        Some(Hosted {
            manager: self.name()?,
            events: self.events,
            selections: self.selections,
            factory: self.factory?,
            concurrency: if self.concurrent { self.settings.policy.concurrency } else { 1 },
            policy: self.settings.policy,
            arguments: self.take_arguments,
        })
    }

    /// One whose workers say themselves what they handle.
    fn without_factory(settings: Settings) -> Self {
        Self {
            settings,
            events: Vec::new(),
            selections: Vec::new(),
            factory: None,
            take_arguments: None,
            concurrent: false,
        }
    }

    /// How its processes come and go, when not all run all the time.
    pub(crate) fn demand(&self) -> Option<Demand> {
        self.settings.process.demand().filter(|_| self.settings.placement == Placement::Process)
    }

    /// Whether its workers come by themselves, over a network.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.settings.remote.is_some()
    }

    /// The manager's name, if it is one.
    #[must_use]
    pub fn name(&self) -> Option<ManagerName> {
        ManagerName::new(&self.settings.name).ok()
    }
}

/// What can be put on a node: a [`Manager`] with workers, a [`Manager::program`], or a [`Definition`].
// A trait of our own, because of `Into` the compiler can only say that it is not implemented.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no workers: add `.worker(..)` or `.workers(..)`",
    label = "has no workers",
    note = "what is put on a node is a `Manager` with workers, a `Manager::program(..)`, a `Manager::remote(..)`, or a `Definition`"
)]
pub trait IntoDefinition {
    /// The manager with the worker type taken off.
    fn into_definition(self) -> Definition;
}

#[diagnostic::do_not_recommend]
impl IntoDefinition for Definition {
    fn into_definition(self) -> Definition {
        self
    }
}

impl<W: Worker> IntoDefinition for Manager<Typed<W>> {
    fn into_definition(self) -> Definition {
        self.into()
    }
}

#[diagnostic::do_not_recommend]
impl IntoDefinition for Manager<Program> {
    fn into_definition(self) -> Definition {
        self.into()
    }
}

impl<W: Worker> From<Manager<Typed<W>>> for Definition {
    fn from(manager: Manager<Typed<W>>) -> Self {
        let Typed { blueprint, make, take_arguments } = manager.worker;
        Self {
            settings: manager.settings,
            events: blueprint.events().to_vec(),
            selections: blueprint.selections().to_vec(),
            concurrent: blueprint.is_concurrent(),
            factory: Some(blueprint.factory(make)),
            take_arguments,
        }
    }
}

impl From<Manager<Program>> for Definition {
    fn from(manager: Manager<Program>) -> Self {
        Self::without_factory(manager.settings)
    }
}

#[diagnostic::do_not_recommend]
impl IntoDefinition for Manager<Remote> {
    fn into_definition(self) -> Definition {
        Definition::without_factory(self.settings)
    }
}

impl std::fmt::Debug for Definition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Definition")
            .field("settings", &self.settings)
            .field("selections", &self.selections)
            .finish_non_exhaustive()
    }
}
