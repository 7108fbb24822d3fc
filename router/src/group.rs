//! A subscriber group: inboxes, policy and accounts.

mod chain;
mod remote;
mod responder;

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use edri_events::{Envelope, Kind, Pattern, key_hash};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::delivery::Delivery;
use crate::divide::slot_of_hash;
use crate::limits::{INBOX_CAPACITY_DEFAULT, KEY_SLOTS};
use crate::queue::{Consumer, Place, Queue, Refused};
use crate::status::{AtomicState, Ended, ManagerState, Tally, WorkerStatus};
use crate::table::Target;
use crate::tap::Tap;
use crate::turn::Turn;
use crate::uplink::Source;
use crate::{Account, GroupName};
use chain::Chain;
use remote::Remote;
pub use responder::Responder;

/// What happens to a notification whose group has no room.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, edri_events::__private::schemars::JsonSchema,
)]
#[schemars(crate = "edri_events::__private::schemars")]
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
    /// It is one group with those of its name on other nodes: each event goes to one of them.
    pub shared: bool,
}

/// The workers of one manager on one node, or one subscription, as the router sees them; of this node, or of another.
#[derive(Debug)]
pub struct Group {
    id: u64,
    name: GroupName,
    overflow: Overflow,
    inboxes: Box<[Queue<Delivery>]>,
    /// Where there are several.
    chain: Option<Chain>,
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
    /// Deliveries in the hands of somebody who is no worker of the group.
    held: AtomicUsize,
    // Held to put it in or take it out, once.
    source: Mutex<Option<Box<dyn Source>>>,
    // Held to copy the list; written when the manager starts.
    workers: RwLock<Vec<Arc<WorkerStatus>>>,
    /// The name that it shares its events under.
    shared: Option<Arc<str>>,
    /// The name of the manager whose keys it has some of.
    divided: Option<Arc<str>>,
    /// It has a front: publishers give it nothing themselves.
    behind: AtomicBool,
    /// It is a front: see `divide.rs`.
    front: bool,
    remote: Option<Box<Remote>>,
    /// Takes what comes, where it is published: the inboxes are closed from the beginning then.
    tap: Option<Arc<dyn Tap>>,
    tap_closed: AtomicBool,
    /// Is asked before its workers are.
    responder: Option<Arc<dyn Responder>>,
}

/// A counted reference to a group.
pub type GroupRef = Arc<Group>;

impl Target for GroupRef {
    fn id(&self) -> u64 {
        self.id
    }

    fn shared(&self) -> Option<&Arc<str>> {
        self.shared.as_ref()
    }

    fn is_hidden(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    fn may_be_hidden(&self) -> bool {
        self.divided.is_some()
    }

    /// This node while there is room, then whoever has most, and last who cannot be reached.
    fn cost(&self, envelope: &Envelope) -> u64 {
        let room = self.room_for(envelope) as u64;
        let far = u64::from(self.remote.is_some());
        let (full, lost) = (u64::from(room == 0), u64::from(!self.is_reachable()));
        let crowded = u64::from(u32::MAX) - room.min(u64::from(u32::MAX));
        lost << 34 | full << 33 | far << 32 | if far == 1 { crowded } else { 0 }
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
    /// There was no room and nobody may wait for it: it is to be dead-lettered.
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
        Arc::new(Self::make(options, None))
    }

    /// A group that gives what comes to `tap`, where it is published. Nobody waits for it.
    pub(crate) fn tapped(options: GroupOptions, tap: Arc<dyn Tap>) -> GroupRef {
        let group = Self { tap: Some(tap), ..Self::make(options, None) };
        group.inboxes.iter().for_each(Queue::close);
        Arc::new(group)
    }

    fn make(options: GroupOptions, remote: Option<Box<Remote>>) -> Self {
        let inboxes = match options.spread {
            Spread::Compete => 1,
            Spread::ByKey(partitions) => partitions,
        };
        assert!(inboxes > 0, "a group has an inbox");
        let shared: Option<Arc<str>> =
            options.name.manager_anywhere().filter(|_| options.shared).map(|name| Arc::from(name.as_str()));
        let keyed = matches!(options.spread, Spread::ByKey(_));
        let (shared, divided) = if keyed { (None, shared) } else { (shared, None) };
        Self {
            id: NEXT_GROUP.fetch_add(1, Ordering::Relaxed),
            name: options.name,
            overflow: options.overflow,
            inboxes: (0..inboxes).map(|_| Queue::new(options.capacity)).collect(),
            chain: (inboxes > 1).then(Chain::default),
            next: AtomicUsize::new(0),
            state: AtomicState::starting(),
            handlers: options.handlers,
            successor: OnceLock::new(),
            rejected: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            tally: Tally::default(),
            held: AtomicUsize::new(0),
            shared,
            divided,
            behind: AtomicBool::new(false),
            front: false,
            source: Mutex::new(None),
            workers: RwLock::default(),
            remote,
            tap: None,
            tap_closed: AtomicBool::new(false),
            responder: None,
        }
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
        // Nothing waits in it, so that is what may be on its way from elsewhere.
        if self.tap.is_some() { INBOX_CAPACITY_DEFAULT } else { self.inboxes[0].capacity() }
    }

    /// Whether the two are one group on several nodes.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> bool {
        self.shared.is_some() && self.shared == other.shared
    }

    /// Whether it is one group with those of its name on other nodes.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The name of the keyed shared manager whose keys are divided among this group and those of its name on other nodes.
    #[must_use]
    pub fn divided(&self) -> Option<&Arc<str>> {
        self.divided.as_ref()
    }

    /// Whether it is no manager's, but what publishers give the events of a keyed shared manager to.
    #[must_use]
    pub fn is_front(&self) -> bool {
        self.front
    }

    pub(crate) fn front(name: GroupName, capacity: usize) -> GroupRef {
        let spread = Spread::ByKey(KEY_SLOTS);
        let options =
            GroupOptions { name, spread, capacity, overflow: Overflow::Wait, handlers: Vec::new(), shared: false };
        let group = Self { front: true, ..Self::make(options, None) };
        group.set_state(ManagerState::Running);
        Arc::new(group)
    }

    pub(crate) fn hide(&self) {
        self.behind.store(true, Ordering::Relaxed);
    }

    /// How many deliveries wait in one inbox.
    #[must_use]
    pub fn depth(&self, inbox: usize) -> usize {
        self.inboxes[inbox].len()
    }

    /// How many deliveries are in the hands of somebody who is no worker of the group: see [`Group::hold`].
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
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

    /// Counts events that never came to it from beyond an uplink.
    #[doc(hidden)]
    pub fn miss_some(&self, count: u64) {
        self.missed.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how a delivery ended that no worker's host counts.
    pub fn count(&self, ended: Ended) {
        self.tally.count(ended, 1);
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
        let mut in_hand = self.held.load(Ordering::Acquire);
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
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.tap {
            Some(_) => self.tap_closed.load(Ordering::Acquire),
            None => self.inboxes[0].is_closed(),
        }
    }

    /// Whether the group takes no more deliveries, all that were in its inboxes have been taken out, and nobody has a place still to
    /// fill. What a consumer has taken counts once it has given the places back.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.inboxes.iter().all(Queue::is_finished)
    }

    /// Offers a delivery. Those that had to make room for it are added to `displaced`, to be dead-lettered.
    #[inline]
    pub(crate) fn offer(self: &Arc<Self>, mut delivery: Delivery, displaced: &mut Displaced) -> Offered {
        let inbox = self.inbox_for(&delivery.envelope);
        let queue = &self.inboxes[inbox];
        loop {
            match queue.try_claim() {
                Ok(place) => {
                    self.fill(inbox, place, delivery);
                    return Offered::Taken;
                }
                Err(Refused::Full) => {}
                Err(Refused::Closed) => {
                    if let Some(tap) = self.tap.as_ref().filter(|_| !self.tap_closed.load(Ordering::Acquire)) {
                        tap.take(&delivery.envelope);
                        // It never had a place, and is done with.
                        self.reject();
                        self.count(Ended::Handled);
                        return Offered::Taken;
                    }
                    return match self.hand_over(&mut delivery) {
                        Some(successor) => successor.offer(delivery, displaced),
                        None => Offered::Gone(delivery),
                    };
                }
            }
            match self.overflow {
                Overflow::Wait if self.is_reachable() => return Offered::Full(Arc::clone(self), inbox, delivery),
                Overflow::Wait | Overflow::DropNewest => {
                    self.reject();
                    return Offered::Dropped(delivery);
                }
                Overflow::DropOldest => displaced.extend(queue.evict().map(|oldest| (Arc::clone(self), oldest))),
            }
        }
    }

    /// Fills a place of one of its inboxes. A worker there is woken, or will be by another.
    #[inline]
    pub(crate) fn fill(&self, inbox: usize, place: Place<'_, Delivery>, delivery: Delivery) {
        match &self.chain {
            None => place.fill(delivery),
            Some(chain) => {
                place.put(delivery);
                chain.wake(inbox, &self.inboxes);
            }
        }
    }

    /// Wakes another worker that has something to do and that nobody has woken; for the task of the worker of an inbox, whenever the
    /// runtime runs it and when it ends.
    pub fn pass_on(&self, inbox: usize) {
        if let Some(chain) = &self.chain {
            chain.pass_on(inbox, &self.inboxes);
        }
    }

    /// Where there is one inbox: fills as many places as there are at once, with the first of these deliveries. Whether there is one.
    pub(crate) fn fill_with(&self, deliveries: &mut VecDeque<Delivery>) -> bool {
        let [inbox] = &self.inboxes[..] else { return false };
        while !deliveries.is_empty() && inbox.try_fill(&mut Popped(deliveries)).is_ok() {}
        true
    }

    /// Claims a place for this event, if there is one at once, in the inbox that comes with it.
    #[inline]
    pub(crate) fn try_claim(&self, envelope: &Envelope) -> Option<(usize, Place<'_, Delivery>)> {
        let inbox = self.inbox_for(envelope);
        Some((inbox, self.inboxes[inbox].try_claim().ok()?))
    }

    /// How much room there is for this event: none when the answer is zero.
    pub(crate) fn room_for(&self, envelope: &Envelope) -> usize {
        self.inboxes[self.inbox_for(envelope)].room()
    }

    /// Whether a publisher waits when there is no room.
    pub(crate) fn makes_wait(&self) -> bool {
        self.overflow == Overflow::Wait && self.is_reachable()
    }

    /// How many deliveries wait or are being handled, a worker.
    pub(crate) fn load(&self) -> usize {
        let workers = self.workers.read();
        let in_hand: usize = workers.iter().map(|worker| worker.in_hand.load(Ordering::Relaxed)).sum();
        // What is on its way to another node may be counted in both.
        let in_hand = in_hand + self.held.load(Ordering::Relaxed).max(self.unanswered());
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
    #[inline]
    pub(crate) fn inbox_for(&self, envelope: &Envelope) -> usize {
        if self.inboxes.len() == 1 {
            return 0;
        }
        let hash = envelope.with_key(|key| key.map(key_hash));
        if let (true, Some(hash)) = (self.front, hash) {
            return slot_of_hash(hash);
        }
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
        self.tap_closed.store(true, Ordering::Release);
        if let Some(tap) = &self.tap {
            tap.close();
        }
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

/// Those at the front, as they are taken out.
struct Popped<'a>(&'a mut VecDeque<Delivery>);

impl Iterator for Popped<'_> {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        self.0.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl ExactSizeIterator for Popped<'_> {}

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
        let mut delivery = None;
        self.poll_next_into(cx, &mut delivery).map(|_| delivery)
    }

    /// As [`InboxConsumer::poll_next`], but puts the delivery where it is to be, which is empty afterwards if there is none; whether
    /// there was one.
    pub fn poll_next_into(
        &mut self,
        cx: &mut std::task::Context<'_>,
        hand: &mut Option<Delivery>,
    ) -> std::task::Poll<bool> {
        match &mut self.source {
            None => self.consumer.poll_next_into(cx, hand),
            Some(source) => source.poll_next(cx).map(|delivery| {
                *hand = delivery;
                hand.is_some()
            }),
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

    /// As [`InboxConsumer::try_next`], but puts the delivery where it is to be, which saves moving it; whether there was one.
    #[inline]
    pub fn try_next_into(&mut self, hand: &mut Option<Delivery>) -> bool {
        if self.consumer.try_next_into(hand) {
            return true;
        }
        if let Some(source) = &mut self.source {
            *hand = source.try_next();
        }
        hand.is_some()
    }

    /// Whether to look for a delivery now would be in vain, most likely: it found none when it looked last, and was not polled since.
    #[must_use]
    pub fn is_dry(&self) -> bool {
        self.consumer.is_dry()
    }

    /// Takes nothing for a while although it was polled: gives places back, and a wake-up that was meant for it to another.
    pub fn stand_down(&mut self) {
        self.consumer.stand_down();
    }

    /// Whether it was polled and found nothing, and has taken nothing since: the waker that it was polled with was woken, or
    /// will be by what comes next.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.consumer.is_waiting()
    }

    /// Lets whoever brings something and would only wait take the turn of the one who consumes.
    pub fn set_turn(&mut self, turn: Arc<dyn Turn>) {
        self.consumer.set_turn(turn);
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
