//! A subscriber group: inboxes, policy, accounts, and the state of those who work for it.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use edri_events::{Envelope, Kind, ManagerName, Pattern, key_hash};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::delivery::Delivery;
use crate::limits::FIGURES_MAX;
use crate::queue::{Consumer, Queue, Refused};
use crate::table::Target;
use crate::timing::Timing;
use crate::uplink::{Listener, Source};
use crate::{Account, GroupName};

/// What happens to a notification whose group has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Its publisher waits.
    #[default]
    Wait,
    /// It is dead-lettered.
    DropNewest,
    /// The oldest in the inbox is dead-lettered and makes room.
    DropOldest,
}

/// The state of a manager.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, edri_events::__private::schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "edri_events::__private::schemars")]
#[repr(u8)]
pub enum ManagerState {
    /// Its workers are being started for the first time.
    Starting,
    /// Its workers take events.
    Running,
    /// It takes no new events and finishes those it has.
    Draining,
    /// It has ended.
    Stopped,
    /// Its workers were restarted too often; its subscriptions are withdrawn.
    Failed,
}

/// The state of one worker instance.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, edri_events::__private::schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "edri_events::__private::schemars")]
#[repr(u8)]
pub enum WorkerState {
    /// `started` has not returned yet.
    Starting,
    /// It takes events.
    Running,
    /// It was lost and waits for its restart.
    Restarting,
    /// It has ended.
    Stopped,
}

/// An enum of one byte that many read and one writes.
#[derive(Debug)]
pub(crate) struct AtomicState(AtomicU8);

macro_rules! atomic_state {
    ($state:ident, $get:ident, $set:ident, [$($variant:ident),*]) => {
        impl AtomicState {
            pub(crate) fn $get(&self) -> $state {
                let byte = self.0.load(Ordering::Acquire);
                let states = [$($state::$variant),*];
                states[usize::from(byte)]
            }
            pub(crate) fn $set(&self, state: $state) {
                self.0.store(state as u8, Ordering::Release);
            }
        }
    };
}

atomic_state!(ManagerState, manager, set_manager, [Starting, Running, Draining, Stopped, Failed]);
atomic_state!(WorkerState, worker, set_worker, [Starting, Running, Restarting, Stopped]);

/// What became of deliveries. Each field counts deliveries, and no delivery is in two fields but `late` and `retried`.
#[derive(Debug, Default)]
pub struct Tally {
    handled: AtomicU64,
    failed: AtomicU64,
    dead_lettered: AtomicU64,
    cancelled: AtomicU64,
    retried: AtomicU64,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its handler succeeded.
    Handled,
    /// Its requester has the handler's failure, or another error.
    Failed,
    /// It is a dead letter.
    DeadLettered,
    /// Its requester gave up before a handler had it, or its subscription ended.
    Cancelled,
}

impl Tally {
    fn counter(&self, ended: Ended) -> &AtomicU64 {
        match ended {
            Ended::Handled => &self.handled,
            Ended::Failed => &self.failed,
            Ended::DeadLettered => &self.dead_lettered,
            Ended::Cancelled => &self.cancelled,
        }
    }

    /// Counts a delivery; several threads may.
    pub(crate) fn count(&self, ended: Ended) {
        self.counter(ended).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a delivery where this thread is the tally's only writer: a plain store is several times cheaper.
    fn count_alone(&self, ended: Ended) {
        let counter = self.counter(ended);
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn add_to(&self, account: &mut Account) {
        account.handled += self.handled.load(Ordering::Relaxed);
        account.failed += self.failed.load(Ordering::Relaxed);
        account.dead_lettered += self.dead_lettered.load(Ordering::Relaxed);
        account.cancelled += self.cancelled.load(Ordering::Relaxed);
        account.retried += self.retried.load(Ordering::Relaxed);
    }
}

/// How a worker says it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "because")]
pub enum Health {
    /// All is well.
    #[default]
    Good,
    /// It works, but not as it should.
    Degraded(String),
    /// It does not work.
    Bad(String),
}

/// What is known of one worker instance, through all its restarts. Written by its host, read by `topology()`.
#[derive(Debug)]
pub struct WorkerStatus {
    pub(crate) index: usize,
    pub(crate) state: AtomicState,
    pub(crate) restarts: AtomicU32,
    pub(crate) stuck: AtomicU32,
    pub(crate) in_hand: AtomicUsize,
    /// Zero for one that has no process of its own.
    pub(crate) pid: AtomicU32,
    pub(crate) tally: Tally,
    pub(crate) queued: Timing,
    pub(crate) handling: Timing,
    // Held for a copy. Written now and then by the worker, read by whoever asks for the topology.
    pub(crate) report: Mutex<Report>,
    // Held for a copy. What this worker's handlers wait for, to find cycles when a wait ends.
    pub(crate) waits_for: Mutex<Vec<ManagerName>>,
    /// Hears what the worker says of itself, where somebody else keeps its status.
    listener: OnceLock<Box<dyn Listener>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) health: Health,
    pub(crate) figures: BTreeMap<String, f64>,
    pub(crate) last_error: Option<String>,
}

impl WorkerStatus {
    /// The status of the instance `index`, which is starting.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self {
            index,
            state: AtomicState(AtomicU8::new(WorkerState::Starting as u8)),
            restarts: AtomicU32::new(0),
            stuck: AtomicU32::new(0),
            in_hand: AtomicUsize::new(0),
            pid: AtomicU32::new(0),
            tally: Tally::default(),
            queued: Timing::default(),
            handling: Timing::default(),
            report: Mutex::default(),
            waits_for: Mutex::default(),
            listener: OnceLock::new(),
        }
    }

    /// Which of its manager's instances it is, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The instance's state.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.state.worker()
    }

    /// Sets the instance's state.
    pub fn set_state(&self, state: WorkerState) {
        self.state.set_worker(state);
    }

    /// Counts a restart and keeps its reason.
    pub fn restarted(&self, reason: &str) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.failed_with(reason);
    }

    /// Keeps the latest reason for which the instance was lost.
    pub fn failed_with(&self, reason: &str) {
        self.report.lock().last_error = Some(reason.to_owned());
    }

    /// Why the instance was lost the last time.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.report.lock().last_error.clone()
    }

    /// Counts a thread that does not return from its handler, or takes it back when it has.
    pub fn stuck(&self, is: bool) {
        if is {
            self.stuck.fetch_add(1, Ordering::Relaxed);
        } else {
            self.stuck.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many threads there are that have not returned from their handler.
    #[must_use]
    pub fn stuck_threads(&self) -> usize {
        self.stuck.load(Ordering::Relaxed) as usize
    }

    /// Sets how many deliveries are in the instance's hands.
    pub fn set_in_hand(&self, count: usize) {
        self.in_hand.store(count, Ordering::Release);
    }

    /// Sets the id of the process that the instance runs in; `None` once it has ended.
    pub fn set_pid(&self, pid: Option<u32>) {
        self.pid.store(pid.unwrap_or(0), Ordering::Relaxed);
    }

    /// Counts how a delivery ended. Only the instance's own host may call this: see [`Group::count`] for others.
    pub fn count(&self, ended: Ended) {
        self.tally.count_alone(ended);
    }

    /// Counts another attempt at a delivery.
    pub fn retried(&self) {
        self.tally.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// Records how long a timed event waited in the inbox and how long its handler took.
    pub fn timed(&self, queued: Duration, handling: Duration) {
        self.queued.record(queued);
        self.handling.record(handling);
    }

    /// Tells `listener` from now on what the worker says of itself. There is one.
    #[doc(hidden)]
    pub fn listen(&self, listener: Box<dyn Listener>) {
        assert!(self.listener.set(listener).is_ok(), "one listens");
    }

    /// What the worker says of its health.
    pub fn report_health(&self, health: Health) {
        if let Some(listener) = self.listener.get() {
            listener.health(&health);
        }
        self.report.lock().health = health;
    }

    /// A figure of the worker's own, replacing the one of that name. Beyond [`FIGURES_MAX`] names new ones are left out.
    pub fn report_figure(&self, name: &str, value: f64) {
        if let Some(listener) = self.listener.get() {
            listener.figure(name, value);
        }
        let figures = &mut self.report.lock().figures;
        if figures.len() < FIGURES_MAX || figures.contains_key(name) {
            figures.insert(name.to_owned(), value);
        }
    }
}

/// How a group spreads its events over its inboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// One inbox; its workers compete.
    Compete,
    /// So many partitions, each with an inbox of its own; the event's key chooses.
    ByKey(usize),
}

/// What a group is made with.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// What it is called.
    pub name: GroupName,
    /// How events are spread over inboxes.
    pub spread: Spread,
    /// The places of each inbox.
    pub capacity: usize,
    /// What happens when there is no room.
    pub overflow: Overflow,
    /// Which of its handlers takes which events, when it has several.
    pub handlers: Vec<(Pattern, u32)>,
}

/// The workers of one manager on one node, or one subscription, as the router sees them.
#[derive(Debug)]
pub struct Group {
    id: u64,
    name: GroupName,
    overflow: Overflow,
    inboxes: Box<[Queue<Delivery>]>,
    next: AtomicUsize,
    state: AtomicState,
    handlers: Vec<(Pattern, u32)>,
    /// Takes over what comes after this group closed, when its manager was replaced.
    successor: OnceLock<GroupRef>,
    /// Deliveries that never had a place.
    rejected: AtomicU64,
    /// Events that subscribers from outside, or state events, missed.
    missed: AtomicU64,
    tally: Tally,
    deferred: AtomicUsize,
    // Held to put it in or take it out, once.
    source: Mutex<Option<Box<dyn Source>>>,
    // Held to copy the list; written when the manager starts.
    workers: RwLock<Vec<Arc<WorkerStatus>>>,
}

/// A counted reference to a group.
pub type GroupRef = Arc<Group>;

impl Target for GroupRef {
    fn id(&self) -> u64 {
        self.id
    }
}

/// Deliveries that were taken out of the inbox of their group to make room.
pub(crate) type Displaced = Vec<(GroupRef, Delivery)>;

/// What came of offering a delivery to a group.
pub(crate) enum Offered {
    /// It has a place.
    Taken,
    /// It waits for a place in this inbox, which the policy allows.
    Full(GroupRef, usize, Delivery),
    /// There was no room and the policy does not wait: it is to be dead-lettered.
    Dropped(Delivery),
    /// The group has ended.
    Gone(Delivery),
}

static NEXT_GROUP: AtomicU64 = AtomicU64::new(1);

impl Group {
    /// A group that takes events once it is in the route table.
    ///
    /// # Panics
    ///
    /// When the capacity or the number of partitions is zero: the builders check both.
    #[must_use]
    pub fn new(options: GroupOptions) -> GroupRef {
        let inboxes = match options.spread {
            Spread::Compete => 1,
            Spread::ByKey(partitions) => partitions,
        };
        assert!(inboxes > 0, "a group has an inbox");
        Arc::new(Self {
            id: NEXT_GROUP.fetch_add(1, Ordering::Relaxed),
            name: options.name,
            overflow: options.overflow,
            inboxes: (0..inboxes).map(|_| Queue::new(options.capacity)).collect(),
            next: AtomicUsize::new(0),
            state: AtomicState(AtomicU8::new(ManagerState::Starting as u8)),
            handlers: options.handlers,
            successor: OnceLock::new(),
            rejected: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            tally: Tally::default(),
            deferred: AtomicUsize::new(0),
            source: Mutex::new(None),
            workers: RwLock::default(),
        })
    }

    /// Distinguishes the group from all others of the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the group is called.
    #[must_use]
    pub fn name(&self) -> &GroupName {
        &self.name
    }

    /// The state of the group's manager.
    #[must_use]
    pub fn state(&self) -> ManagerState {
        self.state.manager()
    }

    /// Sets the state of the group's manager.
    pub fn set_state(&self, state: ManagerState) {
        self.state.set_manager(state);
    }

    /// Says who works for the group.
    pub fn set_workers(&self, workers: Vec<Arc<WorkerStatus>>) {
        *self.workers.write() = workers;
    }

    /// Who works for the group.
    #[must_use]
    pub fn workers(&self) -> Vec<Arc<WorkerStatus>> {
        self.workers.read().clone()
    }

    /// How many inboxes there are.
    #[must_use]
    pub fn inboxes(&self) -> usize {
        self.inboxes.len()
    }

    /// The places of each inbox.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.inboxes[0].capacity()
    }

    /// What happens when there is no room.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// How many deliveries wait in each inbox.
    #[must_use]
    pub fn depths(&self) -> Vec<usize> {
        self.inboxes.iter().map(Queue::len).collect()
    }

    /// How many events it was not given because it had no room and could not be waited for.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    pub(crate) fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how a delivery ended that no worker's host counts.
    pub fn count(&self, ended: Ended) {
        self.tally.count(ended);
    }

    /// Counts a reply that a worker took with it, or takes it back once it is given.
    pub fn deferred(&self, is: bool) {
        if is {
            self.deferred.fetch_add(1, Ordering::AcqRel);
        } else {
            self.deferred.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Counts a delivery that never had a place; how it ended is counted apart.
    pub(crate) fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// The account of this group's deliveries.
    #[must_use]
    pub fn account(&self) -> Account {
        let mut account = Account::default();
        self.tally.add_to(&mut account);
        let mut in_hand = self.deferred.load(Ordering::Acquire);
        for worker in self.workers.read().iter() {
            worker.tally.add_to(&mut account);
            in_hand += worker.in_hand.load(Ordering::Acquire);
        }
        account.queued = self.depths().iter().sum::<usize>() as u64;
        account.in_hand = in_hand as u64;
        account.deliveries = self.inboxes.iter().map(Queue::accepted).sum::<u64>();
        account.deliveries += self.rejected.load(Ordering::Relaxed);
        account
    }

    /// How many deliveries there have been, if nothing waits and nothing is in anybody's hands.
    #[must_use]
    pub fn deliveries_if_idle(&self) -> Option<u64> {
        // The account is read without a lock, so its parts may be wrong for a moment while an event passes from the inbox
        // into a hand; the sum cannot: it balances only once everything that came has ended.
        let account = self.account();
        (account.queued == 0 && account.in_hand == 0 && account.is_balanced()).then_some(account.deliveries)
    }

    /// Whether the group takes no more deliveries.
    pub(crate) fn is_closed(&self) -> bool {
        self.inboxes[0].is_closed()
    }

    /// Offers a delivery. Those that had to make room for it are added to `displaced`, to be dead-lettered.
    #[inline]
    pub(crate) fn offer(self: &Arc<Self>, mut delivery: Delivery, displaced: &mut Displaced) -> Offered {
        let inbox = self.inbox_for(&delivery.envelope);
        let queue = &self.inboxes[inbox];
        loop {
            match queue.try_claim() {
                Ok(place) => {
                    place.fill(delivery);
                    return Offered::Taken;
                }
                Err(Refused::Full) => {}
                Err(Refused::Closed) => {
                    return match self.hand_over(&mut delivery) {
                        Some(successor) => successor.offer(delivery, displaced),
                        None => Offered::Gone(delivery),
                    };
                }
            }
            match self.overflow {
                Overflow::Wait => return Offered::Full(Arc::clone(self), inbox, delivery),
                Overflow::DropNewest => {
                    self.reject();
                    return Offered::Dropped(delivery);
                }
                Overflow::DropOldest => displaced.extend(queue.evict().map(|oldest| (Arc::clone(self), oldest))),
            }
        }
    }

    /// How much room there is for this event: none when the answer is zero.
    pub(crate) fn room_for(&self, envelope: &Envelope) -> usize {
        self.inboxes[self.inbox_for(envelope)].room()
    }

    /// How many deliveries wait or are being handled, a worker.
    pub(crate) fn load(&self) -> usize {
        let workers = self.workers.read();
        let in_hand: usize = workers.iter().map(|worker| worker.in_hand.load(Ordering::Relaxed)).sum();
        let queued: usize = self.inboxes.iter().map(Queue::len).sum();
        (queued + in_hand) * 64 / workers.len().max(1)
    }

    pub(crate) fn inbox(&self, inbox: usize) -> &Queue<Delivery> {
        &self.inboxes[inbox]
    }

    /// Which handler takes this event: one that asked for it by name before one that did by pattern.
    pub(crate) fn handler_for(&self, envelope: &Envelope) -> Option<u32> {
        let name = envelope.name();
        let by_name = self.handlers.iter().find(|(pattern, _)| pattern.is_exact() && pattern.matches(name));
        let by_pattern = || self.handlers.iter().find(|(pattern, _)| pattern.matches(name));
        let handler = match envelope.head().descriptor.kind() {
            Kind::Notification => by_name.or_else(by_pattern),
            Kind::Request | Kind::Tunnel => by_name,
        };
        handler.map(|(_, handler)| *handler)
    }

    /// The group that took this one's place.
    pub(crate) fn successor(&self) -> Option<&GroupRef> {
        self.successor.get()
    }

    /// Addresses a delivery to the group that took this one's place, if there is one that wants the event.
    pub(crate) fn hand_over(&self, delivery: &mut Delivery) -> Option<&GroupRef> {
        let successor = self.successor.get()?;
        delivery.handler = successor.handler_for(&delivery.envelope)?;
        Some(successor)
    }

    /// Which inbox an event goes to. Without a key the partitions take turns.
    pub(crate) fn inbox_for(&self, envelope: &Envelope) -> usize {
        if self.inboxes.len() == 1 {
            return 0;
        }
        let hash = envelope.with_key(|key| key.map(key_hash));
        let turn = hash.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed) as u64);
        (turn % self.inboxes.len() as u64) as usize
    }

    /// Takes no more deliveries; what is queued can still be taken. Whoever waits for room goes to `successor`, or
    /// learns that the group has ended.
    pub fn close(&self, successor: Option<GroupRef>) {
        if let Some(successor) = successor {
            // A group is replaced once; a second successor could only be a mistake of ours and changes nothing.
            let _ = self.successor.set(successor);
        }
        self.inboxes.iter().for_each(Queue::close);
    }

    /// Takes deliveries out of an inbox; several may share one.
    #[must_use]
    pub fn consume(self: &Arc<Self>, inbox: usize) -> InboxConsumer {
        assert!(inbox < self.inboxes.len(), "the group has that inbox");
        let source = self.source.lock().take();
        InboxConsumer { consumer: Consumer::new(Inbox { group: Arc::clone(self), inbox }), source }
    }

    /// Lets the next consumer take deliveries from `source`, where the inbox has none: in a process worker they come over
    /// a connection, and no publisher fills the inbox.
    #[doc(hidden)]
    pub fn set_source(&self, source: Box<dyn Source>) {
        *self.source.lock() = Some(source);
    }
}

/// One inbox of a group, kept alive with it.
struct Inbox {
    group: GroupRef,
    inbox: usize,
}

impl Deref for Inbox {
    type Target = Queue<Delivery>;

    fn deref(&self) -> &Queue<Delivery> {
        &self.group.inboxes[self.inbox]
    }
}

/// Takes deliveries out of an inbox, oldest first.
pub struct InboxConsumer {
    consumer: Consumer<Delivery, Inbox>,
    source: Option<Box<dyn Source>>,
}

impl InboxConsumer {
    /// The next delivery; `None` once the inbox is closed and empty. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Polls for the next delivery, as [`InboxConsumer::next`].
    pub fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Delivery>> {
        match &mut self.source {
            None => self.consumer.poll_next(cx),
            Some(source) => source.poll_next(cx),
        }
    }

    /// The next delivery if there is one.
    #[inline]
    pub fn try_next(&mut self) -> Option<Delivery> {
        match self.consumer.try_next() {
            None => self.source.as_mut()?.try_next(),
            delivery => delivery,
        }
    }

    /// Takes nothing for a while although it was polled: gives places back, and a wake-up that was meant for it to another.
    pub fn stand_down(&mut self) {
        self.consumer.stand_down();
    }

    /// Says how long a delivery took to handle lately: who is quick gives places back in larger numbers.
    pub fn pace(&mut self, handling: Duration) {
        self.consumer.pace(handling);
    }

    /// Lets publishers have the places of what was taken. Taken places are given back together for speed, at the latest
    /// when the inbox is found empty; call this before anything that may last.
    pub fn give_back(&mut self) {
        self.consumer.give_back();
    }
}

impl std::fmt::Debug for InboxConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboxConsumer").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
