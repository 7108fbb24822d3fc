//! The scheduler as a manager: what it is made with, and its worker.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use edri_events::{DescriptorRef, Event, EventId, Failure};
use edri_managers::{Definition, IntoDefinition, Manager};
use edri_router::system::NodeChanged;
use edri_workers::{Context, Handle, Worker};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::event::{Add, Added, Cancel, Cancelled, Get, List, Page, Pause, Resume, RunNow, RunningNow, Status};
use crate::keep::{Keeper, Record};
use crate::limits::{ENTRIES_DEFAULT, ENTRIES_MAX, PAGE_MAX, QUEUE};
use crate::plan::{Now, Plan};
use crate::schedule::{Before, Schedule};
use crate::send::send_all;
use crate::timer::{Clocks, Command, Kept, Reply, Timer, before, refusal};
use crate::{Entry, When};

/// What is said of a page when nothing is.
const PAGE_DEFAULT: u32 = 100;
/// How long a scheduler that stops may take to hand over what it has.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A scheduler to be: a manager that sends notifications and requests at times.
///
/// ```
/// # use std::time::Duration;
/// # use edri_events::event;
/// # #[event(notification, name = "tide.turned", crate = edri_events)]
/// # struct TideTurned {}
/// # #[event(request, name = "quake.summarise", response = u64, crate = edri_events)]
/// # struct Summarise {}
/// use edri_scheduler::{Entry, Scheduler};
///
/// let scheduler = Scheduler::new()
///     .every(Duration::from_secs(60), TideTurned {})
///     .cron("*/5 * * * *", Summarise {})
///     .entry(Entry::cron("0 6 * * *", Summarise {}).zone("Europe/Berlin").publish_response("quake.summary"));
/// ```
///
/// Given to an `App` or a `Node` it answers `schedule.add` and its siblings ([`event`](crate::event)).
#[derive(Debug)]
#[must_use = "a scheduler does nothing until it is given to an App or a Node"]
pub struct Scheduler {
    name: String,
    entries: Vec<Entry>,
    declares: Vec<DescriptorRef>,
    namespace: Option<String>,
    entries_max: usize,
}

impl Scheduler {
    /// A scheduler, the manager `scheduler`.
    pub fn new() -> Self {
        Self::named("scheduler")
    }

    /// A scheduler that is a manager of this name: of several on one node each has its own.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            entries: Vec::new(),
            declares: Vec::new(),
            namespace: None,
            entries_max: ENTRIES_DEFAULT,
        }
    }

    /// Adds an entry.
    ///
    /// One without an id is called after its event; a second one of the event has `-2` after that, and so on. So it is the same
    /// entry whenever the program runs.
    pub fn entry(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// Adds entries.
    pub fn entries(mut self, entries: impl IntoIterator<Item = Entry>) -> Self {
        self.entries.extend(entries);
        self
    }

    /// Sends an event by a cron expression, in UTC.
    pub fn cron<E: Event>(self, expression: &str, event: E) -> Self {
        self.typed(When::cron(expression), event)
    }

    /// Sends an event every so often, counted from the start of the node.
    pub fn every<E: Event>(self, interval: Duration, event: E) -> Self {
        self.typed(When::every(interval), event)
    }

    /// Sends an event every so often, counted from 1970 in UTC.
    pub fn aligned<E: Event>(self, interval: Duration, event: E) -> Self {
        self.typed(When::aligned(interval), event)
    }

    /// Sends an event once, at this time.
    pub fn at<E: Event>(self, time: SystemTime, event: E) -> Self {
        self.typed(When::at(time), event)
    }

    /// Sends an event once, so long after the start of the node.
    pub fn after<E: Event>(self, delay: Duration, event: E) -> Self {
        self.typed(When::after(delay), event)
    }

    fn typed<E: Event>(self, when: When, event: E) -> Self {
        self.declares::<E>().entry(Entry::new(when, event))
    }

    /// Declares the event of an entry, where nothing else on the node does: what is sent by its name has to be known.
    pub fn declares<E: Event>(mut self) -> Self {
        self.declares.push(DescriptorRef::of::<E>());
        self
    }

    /// Keeps the entries in this namespace of a store, each node's and each scheduler's apart. With a durable store they survive a
    /// restart, with their counts, whether they are paused, and when they were due.
    pub fn store(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// The most entries; one more is refused. 2,000,000 by default.
    pub fn entries_max(mut self, most: usize) -> Self {
        self.entries_max = most;
        self
    }

    /// What is wrong with it, or its entries with their ids.
    fn check(&self) -> Result<Vec<Known>, String> {
        if self.entries_max == 0 || self.entries_max > ENTRIES_MAX {
            return Err(format!("{} entries: a scheduler has 1 to {ENTRIES_MAX}", self.entries_max));
        }
        if self.entries.len() > self.entries_max {
            return Err(format!("it is made with {} entries, and may have {}", self.entries.len(), self.entries_max));
        }
        if let Some(namespace) = &self.namespace {
            edri_store::event::check_namespace(namespace).map_err(|error| error.to_string())?;
        }
        let mut names: HashMap<&str, u64> = HashMap::new();
        let mut ids = HashSet::new();
        let mut known = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let event = entry.send.event();
            let id: Arc<str> = match &entry.id {
                Some(id) => id.as_str().into(),
                None => {
                    let count = names.entry(event).or_default();
                    *count += 1;
                    if *count == 1 { event.into() } else { format!("{event}-{count}").into() }
                }
            };
            let plan = Plan::of(entry).map_err(|error| format!("entry `{id}`: {error}"))?;
            if !ids.insert(Arc::clone(&id)) {
                return Err(format!("two entries have the id `{id}`"));
            }
            known.push(Known { id, entry: Arc::new(entry.clone()), plan });
        }
        Ok(known)
    }
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new()
    }
}

impl IntoDefinition for Scheduler {
    fn into_definition(self) -> Definition {
        self.into()
    }
}

impl From<Scheduler> for Definition {
    fn from(scheduler: Scheduler) -> Self {
        let (known, wrong) = match scheduler.check() {
            Ok(known) => (known, None),
            Err(wrong) => (Vec::new(), Some(wrong)),
        };
        let made = Arc::new(Made { known, namespace: scheduler.namespace, entries_max: scheduler.entries_max });
        let mut manager = Manager::new(&scheduler.name)
            .worker(move || Timekeeper { made: Arc::clone(&made), running: None })
            .handles::<Add>()
            .handles::<Cancel>()
            .handles::<Pause>()
            .handles::<Resume>()
            .handles::<RunNow>()
            .handles::<Get>()
            .handles::<List>()
            .handles::<NodeChanged>();
        for event in scheduler.declares {
            manager = manager.declares(event);
        }
        if let Some(wrong) = wrong {
            manager = manager.invalid(wrong);
        }
        manager.into()
    }
}

/// An entry of the program.
#[derive(Debug)]
struct Known {
    id: Arc<str>,
    entry: Arc<Entry>,
    plan: Plan,
}

#[derive(Debug)]
struct Made {
    known: Vec<Known>,
    namespace: Option<String>,
    entries_max: usize,
}

/// The worker: checks what it is asked, and has the timer do it.
struct Timekeeper {
    made: Arc<Made>,
    running: Option<Running>,
}

/// The tasks of a scheduler. Dropped, they end.
struct Running {
    commands: mpsc::Sender<Command>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Worker for Timekeeper {
    async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
        let clocks = Clocks::start();
        let bus = cx.bus().clone();
        let keeper = self.made.namespace.as_deref().map(|namespace| Keeper::new(&bus, namespace));
        let kept = match &keeper {
            Some(keeper) => keeper.load().await?,
            None => Vec::new(),
        };
        let mut schedule = Schedule::new(self.made.entries_max, fastrand::u64(..));
        let changed = self.fill(&mut schedule, kept, clocks.now());
        let (commands, commands_in) = mpsc::channel(QUEUE);
        let (runs, runs_in) = mpsc::channel(QUEUE);
        let (ended, ended_in) = mpsc::channel(QUEUE);
        let mut tasks = vec![tokio::spawn(send_all(bus, runs_in, ended))];
        let changes = keeper.map(|keeper| {
            let (changes, changes_in) = mpsc::channel(QUEUE);
            tasks.push(tokio::spawn(keeper.write_all(changes_in)));
            changes
        });
        let timer = Timer {
            clocks,
            schedule,
            commands: commands_in,
            ended: ended_in,
            runs,
            changed: if changes.is_some() {
                changed.into_iter().map(|id| (id, Vec::new())).collect()
            } else {
                HashMap::new()
            },
            changes,
            outgoing: VecDeque::new(),
            stopped: false,
        };
        tasks.push(tokio::spawn(timer.run()));
        self.running = Some(Running { commands, tasks });
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context) {
        let Some(mut running) = self.running.take() else { return };
        let (nobody, _) = mpsc::channel(1);
        // Without anybody to ask it anything the timer ends, then those who send and keep.
        running.commands = nobody;
        let tasks = std::mem::take(&mut running.tasks);
        let handles: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(ENDS_WITHIN, futures_util::future::join_all(tasks)).await.is_err() {
            tracing::warn!("the scheduler was cut while it sent what was due");
            handles.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}

impl Timekeeper {
    /// Puts the program's entries and those that were kept into their places; which of them the store has not got as they are.
    fn fill(&self, schedule: &mut Schedule, kept: Vec<(String, Record)>, now: Now) -> Vec<Arc<str>> {
        let mut kept: HashMap<String, Record> = kept.into_iter().collect();
        let mut changed = Vec::new();
        for Known { id, entry, plan } in &self.made.known {
            let same = kept.remove(&**id).filter(|record| record.entry == **entry);
            let fresh = Before { due: plan.first(now).map(|due| now.wall_at(plan.clock(), due)), ..Before::default() };
            let mut before = same.as_ref().map_or(fresh, before);
            before.tally.built_in = true;
            // What is over for good is no mistake of a program that still has it.
            before.tally.finished |= before.due.is_none();
            if let Err(refused) = schedule.add(id, Arc::clone(entry), plan.clone(), Some(before), now) {
                tracing::warn!("{}", refusal(id, refused));
            }
            if same.is_none() {
                changed.push(Arc::clone(id));
            }
        }
        for (id, record) in kept {
            let id: Arc<str> = id.into();
            if record.tally.built_in {
                // The program does not have it any more.
                changed.push(id);
                continue;
            }
            match Plan::of(&record.entry) {
                Ok(plan) => {
                    let before = before(&record);
                    if let Err(refused) = schedule.add(&id, Arc::new(record.entry), plan, Some(before), now) {
                        tracing::error!("{}; it stays in the store", refusal(&id, refused));
                    }
                }
                Err(error) => tracing::error!(entry = %id, %error, "a kept entry is left out; it stays in the store"),
            }
        }
        changed
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Failure> {
        let gone = || Failure::new("stopping", "the scheduler is stopping");
        let running = self.running.as_ref().ok_or_else(gone)?;
        let (reply, answer) = oneshot::channel();
        running.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// As [`Timekeeper::ask`], and waits until the change is kept.
    async fn change<T>(&self, command: impl FnOnce(Reply<(T, Kept)>) -> Command) -> Result<T, Failure> {
        let (answer, kept) = self.ask(command).await?;
        let Some(kept) = kept else { return Ok(answer) };
        match kept.await {
            Ok(Ok(())) => Ok(answer),
            Ok(Err(error)) => Err(Failure::new("not_kept", format!("it is so now, but not after a restart: {error}"))),
            Err(_) => Err(Failure::new("not_kept", "the scheduler ended before the change was kept")),
        }
    }
}

impl Handle<Add> for Timekeeper {
    async fn handle(&mut self, Add(entry): &Add, _: &mut Context) -> Result<Added, Failure> {
        let plan = Plan::of(entry).map_err(|error| Failure::new("invalid_entry", error.to_string()))?;
        let id = entry.id.clone().unwrap_or_else(|| EventId::next().to_string());
        let (entry, plan) = (Box::new(entry.clone()), Box::new(plan));
        self.change(|reply| Command::Add { id, entry, plan, reply }).await
    }
}

impl Handle<Cancel> for Timekeeper {
    async fn handle(&mut self, asked: &Cancel, _: &mut Context) -> Result<Cancelled, Failure> {
        self.change(|reply| Command::Cancel { id: asked.id.clone(), reply }).await
    }
}

impl Handle<Pause> for Timekeeper {
    async fn handle(&mut self, asked: &Pause, _: &mut Context) -> Result<Status, Failure> {
        self.change(|reply| Command::Pause { id: asked.id.clone(), reply }).await
    }
}

impl Handle<Resume> for Timekeeper {
    async fn handle(&mut self, asked: &Resume, _: &mut Context) -> Result<Status, Failure> {
        self.change(|reply| Command::Resume { id: asked.id.clone(), reply }).await
    }
}

impl Handle<RunNow> for Timekeeper {
    async fn handle(&mut self, asked: &RunNow, _: &mut Context) -> Result<RunningNow, Failure> {
        self.ask(|reply| Command::RunNow { id: asked.id.clone(), reply }).await
    }
}

impl Handle<Get> for Timekeeper {
    async fn handle(&mut self, asked: &Get, _: &mut Context) -> Result<Status, Failure> {
        self.ask(|reply| Command::Get { id: asked.id.clone(), reply }).await
    }
}

impl Handle<List> for Timekeeper {
    async fn handle(&mut self, asked: &List, _: &mut Context) -> Result<Page, Failure> {
        let limit = asked.limit.unwrap_or(PAGE_DEFAULT);
        if limit == 0 || limit > PAGE_MAX {
            return Err(Failure::new("invalid_page", format!("a page of {limit} entries: it has 1 to {PAGE_MAX}")));
        }
        let List { prefix, after, .. } = asked.clone();
        self.ask(|reply| Command::List { prefix, after, limit: limit as usize, reply }).await
    }
}

/// A node that stops sends nothing more by itself, or it would never be at rest.
impl Handle<NodeChanged> for Timekeeper {
    async fn handle(&mut self, changed: &NodeChanged, cx: &mut Context) -> Result<(), Failure> {
        let me = cx.address();
        let is_here = me.node == *changed.node && changed.incarnation == me.incarnation.to_string();
        if let Some(running) = self.running.as_ref().filter(|_| is_here && changed.state != "running") {
            // It ends without being told, too.
            let _ = running.commands.send(Command::Stop).await;
        }
        Ok(())
    }
}
