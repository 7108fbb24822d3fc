//! What all handles of a node share: the snapshot, the pending table, the dead letters and the accounts.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use actix::Addr;
use arc_swap::ArcSwap;
use edri_events::{Address, DescriptorRef, Envelope, Event, EventId, Head, Kind, Notification, Origin};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::actor::{Change, Changes, RouterActor};
use crate::arrive::Arriving;
use crate::beyond::Beyond;
use crate::bus::{Cause, check_kind};
use crate::circle::Waits;
use crate::delivery::{Delivery, ReplyTo};
use crate::divide::Fronts;
use crate::group::{Displaced, Group, GroupRef, Offered};
use crate::groups::Groups;
use crate::history::Histories;
use crate::interest::Follow;
use crate::known::Known;
use crate::letters::{DeadLetter, Letters, Reason};
use crate::limits::{Limits, is_timed};
use crate::pending::{Outcome, Pending, Ticket};
use crate::queue::Refused;
use crate::signal::Signal;
use crate::status::{Ended, WorkerStatus};
use crate::system::DeadLettered;
use crate::table::{Entry, Route, Snapshot};
use crate::uplink::Uplink;
use crate::{Account, DeclareError, PublishError, Receipt, WaitEnded, traced};

/// What part of its life a node is in.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    edri_events::__private::schemars::JsonSchema,
)]
#[schemars(crate = "edri_events::__private::schemars")]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Phase {
    /// Takes and carries events.
    Running,
    /// Finishes what it has and takes no new work from outside its workers.
    Stopping,
    /// Carries nothing any more.
    Stopped,
}

pub(crate) struct Core {
    pub(crate) address: Origin,
    pub(crate) limits: Limits,
    pub(crate) pending: Pending,
    pub(crate) letters: Letters,
    pub(crate) runtime: Handle,
    pub(crate) born: Instant,
    table: ArcSwap<Snapshot<GroupRef>>,
    router: OnceLock<Addr<RouterActor>>,
    /// Where everything that is sent goes, in a process that has no table of its own.
    uplink: OnceLock<Arc<dyn Uplink>>,
    /// There are to be other nodes.
    pub(crate) divides_keys: AtomicBool,
    // Held when a keyed shared manager joins or leaves, and to look who gets a request to one.
    pub(crate) fronts: Mutex<Fronts>,
    /// Knows other nodes, where there is a connector.
    beyond: OnceLock<Arc<dyn Beyond>>,
    phase: AtomicU8,
    settled: watch::Sender<bool>,
    /// Raised when the table, or the way to a group in it, has changed.
    pub(crate) changed: Signal,
    /// Grows whenever an event has become known or another has taken its place.
    events_version: AtomicU64,
    pub(crate) unrouted: AtomicU64,
    announced: AtomicU64,
    pub(crate) arriving: Arriving,
    pub(crate) known: Known,
    pub(crate) histories: Histories,
    // Held to add, remove or list groups: when they come, go, or somebody asks for the topology.
    groups: Mutex<Groups>,
}

/// How far an event came at once.
pub(crate) enum Pushed {
    /// Everybody has it.
    Done(Receipt),
    /// Some have no room; the wait for them is the publisher's.
    Waits(Receipt, Vec<Stalled>),
    /// Its name is not in the table, or another descriptor of it is.
    Undeclared(Envelope),
}

/// A delivery whose group has no room. Dropped before it has a place, it is a dead letter.
pub(crate) struct Stalled {
    core: Arc<Core>,
    group: GroupRef,
    inbox: usize,
    delivery: Option<Delivery>,
    /// Why it ends when it is dropped.
    gives_up: (Reason, &'static str),
    overdue: Arc<AtomicBool>,
}

impl Core {
    pub(crate) fn new(address: Address, limits: Limits, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            address: Origin::here(address),
            pending: Pending::new(limits.pending_max),
            letters: Letters::new(limits.dead_letters_max),
            limits,
            runtime,
            born: Instant::now(),
            table: ArcSwap::from_pointee(Snapshot::default()),
            router: OnceLock::new(),
            uplink: OnceLock::new(),
            divides_keys: AtomicBool::new(false),
            fronts: Mutex::default(),
            beyond: OnceLock::new(),
            phase: AtomicU8::new(Phase::Running as u8),
            settled: watch::Sender::new(false),
            changed: Signal::new(),
            events_version: AtomicU64::new(0),
            unrouted: AtomicU64::new(0),
            announced: AtomicU64::new(0),
            arriving: Arriving::default(),
            known: Known::default(),
            histories: Histories::default(),
            groups: Mutex::default(),
        })
    }

    // ---- the table -------------------------------------------------------------------------------------------------

    pub(crate) fn set_router(&self, router: Addr<RouterActor>) {
        assert!(self.router.set(router).is_ok(), "a node has one router");
    }

    pub(crate) fn set_uplink(&self, uplink: Arc<dyn Uplink>) {
        assert!(self.uplink.set(uplink).is_ok(), "a router has one uplink");
    }

    pub(crate) fn set_beyond(&self, beyond: Arc<dyn Beyond>) {
        assert!(self.beyond.set(beyond).is_ok(), "a node has one connector");
    }

    pub(crate) fn beyond(&self) -> Option<&Arc<dyn Beyond>> {
        self.beyond.get()
    }

    /// Where everything goes that found no entry in the table; only slow paths ask.
    pub(crate) fn uplink(&self) -> Option<&Arc<dyn Uplink>> {
        self.uplink.get()
    }

    /// Makes `snapshot` what publishers read.
    pub(crate) fn show(&self, snapshot: Snapshot<GroupRef>) {
        self.table.store(Arc::new(snapshot));
        self.changed.raise();
    }

    /// Says that the events that are known have changed: after they can be seen.
    pub(crate) fn raise_events_version(&self) {
        self.events_version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn events_version(&self) -> u64 {
        self.events_version.load(Ordering::Acquire)
    }

    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot<GroupRef>>> {
        self.table.load()
    }

    pub(crate) async fn change(&self, change: Change) -> Result<(), DeclareError> {
        let router = self.router.get().ok_or(DeclareError::Stopping)?;
        router.send(change).await.map_err(|_| DeclareError::Stopping)?
    }

    /// Makes each of these changes, and shows them at once.
    pub(crate) async fn change_each(&self, changes: Vec<Change>) -> Vec<Result<(), DeclareError>> {
        let count = changes.len();
        let sent = match self.router.get() {
            Some(router) => router.send(Changes(changes)).await.ok(),
            None => None,
        };
        sent.unwrap_or_else(|| (0..count).map(|_| Err(DeclareError::Stopping)).collect())
    }

    pub(crate) async fn follow(&self, follow: Follow) -> Result<(), DeclareError> {
        let router = self.router.get().ok_or(DeclareError::Stopping)?;
        router.send(follow).await.map_err(|_| DeclareError::Stopping)
    }

    /// Withdraws a group without waiting for it: for `Drop`.
    #[expect(clippy::disallowed_methods, reason = "one message a dropped subscription, which carries no load")]
    pub(crate) fn withdraw_soon(&self, group: u64) {
        if let Some(router) = self.router.get() {
            router.do_send(Change { withdraw: vec![group], ..Change::default() });
        }
    }

    pub(crate) async fn declare(&self, descriptor: DescriptorRef) -> Result<(), DeclareError> {
        if let Some(uplink) = self.uplink() {
            return uplink.declare(&descriptor);
        }
        self.change(Change { declare: vec![descriptor], ..Change::default() }).await
    }

    /// The descriptor of an event that is declared here.
    pub(crate) fn declared(&self, name: &str) -> Option<DescriptorRef> {
        self.snapshot().entry_by_name(name).and_then(|entry| entry.descriptor()).cloned()
    }

    /// The descriptor of a declared event that a verb for this kind names.
    pub(crate) fn descriptor(&self, name: &str, verb: Kind) -> Result<DescriptorRef, DeclareError> {
        let descriptor = match self.declared(name).or_else(|| self.known.get(name)) {
            Some(descriptor) => descriptor,
            None => match self.uplink() {
                Some(uplink) => uplink.descriptor(name, verb)?,
                None => return Err(DeclareError::UnknownEvent(name.to_owned())),
            },
        };
        check_kind(&descriptor, verb)?;
        Ok(descriptor)
    }

    // ---- life ------------------------------------------------------------------------------------------------------

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Running,
            1 => Phase::Stopping,
            _ => Phase::Stopped,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
        self.changed.raise();
    }

    /// Says that everybody who answers events on this node is in the table: from now on, nobody there means nobody.
    pub(crate) fn settle(&self) {
        self.settled.send_replace(true);
        self.changed.raise();
    }

    pub(crate) fn is_settled(&self) -> bool {
        *self.settled.borrow()
    }

    pub(crate) async fn settled(&self) {
        // The sender lives as long as `self`.
        let _ = self.settled.subscribe().wait_for(|settled| *settled).await;
    }

    // ---- groups ----------------------------------------------------------------------------------------------------

    pub(crate) fn add_group(&self, group: &GroupRef) {
        group.signal_reach(&self.changed);
        self.groups.lock().add(group);
    }

    /// Ends a closed group: whatever still waits in it ends with `reason`.
    pub(crate) fn remove_group(self: &Arc<Self>, group: &GroupRef, reason: Reason, detail: &str) -> usize {
        let discarded = self.empty_group(group, reason, detail);
        self.forget_group(group);
        discarded
    }

    /// Takes a group whose deliveries have ended, or soon will have, off the list.
    pub(crate) fn forget_group(&self, group: &GroupRef) {
        self.groups.lock().end(group);
    }

    pub(crate) fn empty_group(self: &Arc<Self>, group: &GroupRef, reason: Reason, detail: &str) -> usize {
        let (core, of, detail) = (Arc::clone(self), Arc::clone(group), detail.to_owned());
        self.clear(group, move |delivery| core.discard(&of, delivery, reason, &detail))
    }

    /// Ends what waits in a closed group and returns how many those were. Who had a place when the group closed, and is
    /// still to fill it, is awaited by a task.
    pub(crate) fn clear(&self, group: &GroupRef, end: impl Fn(Delivery) + Clone + Send + 'static) -> usize {
        let mut ended = 0;
        for inbox in 0..group.inboxes() {
            let mut rest = group.consume(inbox);
            loop {
                match rest.next().now_or_never() {
                    Some(Some(delivery)) => {
                        end(delivery);
                        ended += 1;
                    }
                    Some(None) => break,
                    None => {
                        let end = end.clone();
                        self.runtime.spawn(async move {
                            while let Some(delivery) = rest.next().await {
                                end(delivery);
                            }
                        });
                        break;
                    }
                }
            }
        }
        ended
    }

    pub(crate) fn groups(&self) -> Vec<GroupRef> {
        self.groups.lock().living()
    }

    pub(crate) fn account(&self) -> Account {
        self.groups.lock().account()
    }

    pub(crate) fn unrouted(&self) -> u64 {
        self.unrouted.load(Ordering::Relaxed)
    }

    // ---- notifications ---------------------------------------------------------------------------------------------

    /// The head of a new event.
    #[inline(always)]
    pub(crate) fn head(
        &self,
        id: EventId,
        descriptor: DescriptorRef,
        origin: &Origin,
        cause: Option<&Cause>,
        deadline: Option<Instant>,
    ) -> Head {
        let stamped = is_timed(id).then(Instant::now);
        let trace = cause.map(|cause| cause.trace(id));
        Head::in_one_piece(id, descriptor, origin.clone(), cause.map(|cause| cause.id), deadline, trace, stamped)
    }

    /// Gives a notification to every group that wants it, as far as that goes without waiting.
    pub(crate) fn push(self: &Arc<Self>, envelope: Envelope) -> Pushed {
        let snapshot = self.snapshot();
        let Some(entry) = snapshot.entry(&envelope.head().descriptor) else { return Pushed::Undeclared(envelope) };
        if !is_known(entry, &envelope.head().descriptor) {
            return Pushed::Undeclared(envelope);
        }
        self.push_to(entry, envelope)
    }

    pub(crate) fn push_to(self: &Arc<Self>, entry: &Entry<GroupRef>, envelope: Envelope) -> Pushed {
        let id = envelope.id();
        match self.push_alone(entry, envelope) {
            None => Pushed::Done(Receipt { id, deliveries: 1 }),
            Some(envelope) => self.push_to_all(entry, envelope),
        }
    }

    /// Gives a notification to its reader, if it has one reader, who has room, as most have; otherwise it comes back.
    #[inline]
    pub(crate) fn push_alone(&self, entry: &Entry<GroupRef>, envelope: Envelope) -> Option<Envelope> {
        // The delivery is made where it is to be.
        let route = entry.only();
        let Some((route, (inbox, place))) = route.and_then(|route| Some((route, route.target.try_claim(&envelope)?)))
        else {
            return Some(envelope);
        };
        let _traced = traced::publish(&envelope);
        route.target.fill(inbox, place, Delivery::new(envelope, route.handler, ReplyTo::None));
        None
    }

    pub(crate) fn push_to_all(self: &Arc<Self>, entry: &Entry<GroupRef>, envelope: Envelope) -> Pushed {
        let _traced = traced::publish(&envelope);
        let mut receipt = Receipt { id: envelope.id(), deliveries: 0 };
        let mut push = Push { core: self, stalled: Vec::new(), displaced: Vec::new(), receipt: &mut receipt };
        // One behind, so that the last group takes the envelope itself and not another count of it.
        let mut last: Option<&Route<GroupRef>> = None;
        entry.for_each(&envelope, |route| {
            if let Some(route) = last.replace(route) {
                push.offer(route, envelope.clone());
            }
        });
        match last {
            Some(route) => push.offer(route, envelope),
            None => {
                self.unrouted.fetch_add(1, Ordering::Relaxed);
            }
        }
        let Push { stalled, displaced, .. } = push;
        self.bury_displaced(displaced);
        if stalled.is_empty() { Pushed::Done(receipt) } else { Pushed::Waits(receipt, stalled) }
    }

    /// Ends a delivery that found no room in a group where nobody waits for it.
    pub(crate) fn drop_newest(self: &Arc<Self>, group: &Group, delivery: Delivery) {
        match group.node() {
            Some(node) => {
                let detail = format!("node `{node}` is unreachable and its backlog is full");
                self.discard(group, delivery, Reason::Undelivered, &detail);
            }
            None => self.discard(group, delivery, Reason::DroppedNewest, "the inbox was full"),
        }
    }

    #[inline]
    pub(crate) fn bury_displaced(self: &Arc<Self>, displaced: Displaced) {
        if !displaced.is_empty() {
            self.bury(displaced);
        }
    }

    #[cold]
    fn bury(self: &Arc<Self>, displaced: Displaced) {
        for (group, delivery) in displaced {
            self.discard(&group, delivery, Reason::DroppedOldest, "a newer event took its place");
        }
    }

    /// Waits for room in all these inboxes at once, at most until `limit`. A line is of one inbox and keeps its order.
    pub(crate) async fn wait_for_room(
        self: &Arc<Self>,
        mut receipt: Receipt,
        lines: Vec<Vec<Stalled>>,
        limit: Instant,
        worker: Option<&Arc<WorkerStatus>>,
    ) -> Result<Receipt, PublishError> {
        let began = Instant::now();
        // In one expression: a borrow of `lines` that outlived it would make the future of every publisher `!Send`.
        let first = lines.iter().find_map(|line| line.first()?.delivery.as_ref());
        let event = first.map(|delivery| delivery.envelope.name().clone());
        let groups: Vec<_> = lines.iter().filter_map(|line| Some(Arc::clone(&line.first()?.group))).collect();
        let waits = Waits::register(self, worker, groups.iter().map(|group| &**group));
        let mut names: Vec<_> = groups.iter().map(|group| Some(group.name().clone())).collect();
        let overdue = Arc::new(AtomicBool::new(false));
        let placed = AtomicU32::new(0);
        let mut waiting: FuturesUnordered<_> = lines
            .into_iter()
            .filter(|line| !line.is_empty())
            .enumerate()
            .map(|(number, mut line)| {
                line.iter_mut().for_each(|stalled| stalled.overdue = Arc::clone(&overdue));
                let placed = &placed;
                async move {
                    for mut stalled in line {
                        placed.fetch_add(u32::from(stalled.wait().await), Ordering::Relaxed);
                    }
                    number
                }
            })
            .collect();
        let mut timer = std::pin::pin!(self.sleep_until(limit));
        loop {
            tokio::select! {
                biased;
                done = waiting.next() => match done {
                    Some(number) => names[number] = None,
                    None => break,
                },
                () = &mut timer => break,
            }
        }
        receipt.deliveries += placed.load(Ordering::Relaxed);
        if waiting.is_empty() {
            return Ok(receipt);
        }
        overdue.store(true, Ordering::Relaxed);
        drop(waiting);
        let wait =
            WaitEnded { waited: began.elapsed(), groups: names.into_iter().flatten().collect(), cycle: waits.cycle() };
        match event {
            Some(event) => Err(PublishError::Overloaded { event, wait: Box::new(wait), receipt }),
            None => Ok(receipt),
        }
    }

    /// A timer of the node's runtime, so that a bus works outside a tokio runtime too.
    pub(crate) fn sleep_until(&self, instant: Instant) -> tokio::time::Sleep {
        let _runtime = self.runtime.enter();
        tokio::time::sleep_until(instant.into())
    }

    /// Publishes an event of edri itself. It never waits: a group without room misses it.
    pub(crate) fn announce<E: Notification>(self: &Arc<Self>, event: E) {
        let snapshot = self.snapshot();
        let descriptor = DescriptorRef::of::<E>();
        let pattern_entry;
        let entry = match snapshot.entry(&descriptor) {
            Some(entry) => &**entry,
            None => {
                pattern_entry = snapshot.undeclared_entry(descriptor.name());
                &pattern_entry
            }
        };
        if entry.is_unwanted() {
            return;
        }
        self.announced.fetch_add(1, Ordering::Relaxed);
        let head = Head::new(descriptor, self.address.clone());
        let envelope = Envelope::from(Envelope::typed(head, event));
        let mut displaced = Vec::new();
        entry.for_each(&envelope, |route| {
            let delivery = Delivery::new(envelope.clone(), route.handler, ReplyTo::None);
            match route.target.offer(delivery, &mut displaced) {
                Offered::Taken | Offered::Gone(_) => {}
                Offered::Full(group, ..) => group.miss(),
                Offered::Dropped(delivery) => self.drop_newest(&route.target, delivery),
            }
        });
        self.bury_displaced(displaced);
    }

    // ---- ends ------------------------------------------------------------------------------------------------------

    /// Ends a delivery that will not be handled: a notification becomes a dead letter, a requester gets an error. The
    /// group counts it.
    pub(crate) fn discard(self: &Arc<Self>, group: &Group, delivery: Delivery, reason: Reason, detail: &str) {
        if let Some(ticket) = delivery.ticket() {
            let error = reason.request_error(&delivery.envelope, detail);
            let ended =
                if self.pending.complete(ticket, Err(error)).is_ok() { Ended::Failed } else { Ended::Cancelled };
            group.count(ended);
            return;
        }
        group.count(Ended::DeadLettered);
        if delivery.envelope.name() == DeadLettered::descriptor().name() {
            // No dead letter begets another.
            return;
        }
        let letter = self.letters.add(|number| DeadLetter {
            number,
            at: SystemTime::now(),
            group: group.name().clone(),
            reason,
            detail: detail.to_owned(),
            attempts: delivery.attempts,
            handler: delivery.handler,
            group_id: group.id(),
            envelope: delivery.envelope,
        });
        tracing::debug!(event = %letter.envelope.name(), id = %letter.envelope.id(), trace = %letter.envelope.trace(), group = %letter.group,
            reason = ?letter.reason, detail, "dead letter {}", letter.number);
        self.announce(DeadLettered {
            number: letter.number,
            node: self.address.node.to_string(),
            event: letter.envelope.name().to_string(),
            event_id: letter.envelope.id().to_string(),
            group: letter.group.to_string(),
            reason,
            detail: letter.detail.clone(),
            attempts: letter.attempts,
        });
    }

    pub(crate) fn complete(&self, ticket: Ticket, outcome: Outcome) -> bool {
        self.pending.complete(ticket, outcome).is_ok()
    }
}

/// Whether the table knows the event by this descriptor, or by one that it may travel with.
pub(crate) fn is_known(entry: &Entry<GroupRef>, descriptor: &DescriptorRef) -> bool {
    entry.descriptor().is_some_and(|known| known.same(descriptor))
}

/// One event being given to its groups.
struct Push<'a> {
    core: &'a Arc<Core>,
    stalled: Vec<Stalled>,
    displaced: Displaced,
    receipt: &'a mut Receipt,
}

impl Push<'_> {
    #[inline]
    fn offer(&mut self, route: &Route<GroupRef>, envelope: Envelope) {
        let delivery = Delivery::new(envelope, route.handler, ReplyTo::None);
        match route.target.offer(delivery, &mut self.displaced) {
            Offered::Taken => self.receipt.deliveries += 1,
            Offered::Gone(_) => {}
            Offered::Full(group, inbox, delivery) => {
                self.stalled.push(Stalled::new(self.core, group, inbox, delivery));
            }
            Offered::Dropped(delivery) => {
                self.core.drop_newest(&route.target, delivery);
            }
        }
    }
}

impl Stalled {
    pub(crate) fn new(core: &Arc<Core>, group: GroupRef, inbox: usize, delivery: Delivery) -> Self {
        let gives_up = (Reason::Abandoned, "its publisher stopped waiting for room");
        Self { core: Arc::clone(core), group, inbox, delivery: Some(delivery), gives_up, overdue: Arc::default() }
    }

    /// Why the delivery ends when nobody waits for its place any more.
    pub(crate) fn gives_up(mut self, why: (Reason, &'static str)) -> Self {
        self.gives_up = why;
        self
    }

    /// Waits until the delivery has its place; false when the group ended without a successor: nobody is there to
    /// deliver to, as if the event had been sent a moment later. False also when nobody may wait for the group any more;
    /// the delivery is a dead letter then.
    pub(crate) async fn wait(&mut self) -> bool {
        loop {
            let group = Arc::clone(&self.group);
            let claimed = group.inbox(self.inbox).claim().await;
            let Some(mut delivery) = self.delivery.take() else { return true };
            match claimed {
                Ok(place) => {
                    group.fill(self.inbox, place, delivery);
                    return true;
                }
                Err(Refused::Full) => {
                    group.reject();
                    self.core.drop_newest(&group, delivery);
                    return false;
                }
                Err(Refused::Closed) => match group.hand_over(&mut delivery) {
                    Some(successor) => {
                        self.inbox = successor.inbox_for(&delivery.envelope);
                        self.group = Arc::clone(successor);
                        self.delivery = Some(delivery);
                    }
                    None => return false,
                },
            }
        }
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let Some(delivery) = self.delivery.take() else { return };
        self.group.reject();
        let (reason, detail) = if self.overdue.load(Ordering::Relaxed) {
            (Reason::Overloaded, "the inbox stayed full until its publisher's wait ended")
        } else {
            self.gives_up
        };
        self.core.discard(&self.group, delivery, reason, detail);
    }
}

impl AsRef<Pending> for Core {
    fn as_ref(&self) -> &Pending {
        &self.pending
    }
}
