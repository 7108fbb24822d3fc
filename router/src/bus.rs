//! The handle through which events are sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use edri_events::{
    Address, DescriptorRef, Envelope, Event, EventId, Head, Headers, HeadersError, ManagerName, Notification, Origin,
    Parts, TraceContext,
};

use crate::core::{Core, Phase, Pushed, Stalled, is_known};
use crate::delivery::{Delivery, ReplyTo};
use crate::group::{GroupRef, Offered};
use crate::letters::DeadLetter;
use crate::queue::Refused;
use crate::status::WorkerStatus;
use crate::table::Route;
use crate::uplink::NotNow;
use crate::{Account, DeclareError, GroupName, PublishError, Topology, TryPublishError, traced};

/// The handle to a node's router. Cheap to clone, usable from any thread and any runtime.
///
/// Every verb works from the event's descriptor; the typed ones here take the descriptor of the event's type, those of
/// [`Bus::untyped`] take a name. Which verb fits is checked by the compiler: only notifications are published, only
/// requests are requested, only tunnels are opened.
#[derive(Clone)]
pub struct Bus {
    pub(crate) core: Arc<Core>,
    pub(crate) origin: Origin,
    pub(crate) worker: Option<Arc<WorkerStatus>>,
    pub(crate) cause: Option<Cause>,
}

/// The event in whose handling others are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause {
    pub(crate) id: EventId,
    trace: Option<TraceContext>,
    deadline: Option<Instant>,
}

/// What a publisher learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The event's id; of a batch, the first one's.
    pub id: EventId,
    /// How many subscriber groups have the event in an inbox. Zero is no error: nobody was interested.
    pub deliveries: u32,
}

impl Receipt {
    /// The receipt of an event that so many groups have.
    #[must_use]
    pub fn new(id: EventId, deliveries: u32) -> Self {
        Self { id, deliveries }
    }
}

/// What may be said of an event beside its payload.
///
/// ```
/// use std::time::Duration;
/// # use edri_router::Options;
/// let options = Options::new().time_limit(Duration::from_secs(5)).header("tenant", "north");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Options {
    time_limit: Option<Duration>,
    /// Boxed because most events have none of it: an empty one is made and dropped for every event.
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Clone, Default)]
struct Rare {
    headers: Headers,
    key: Option<Box<str>>,
    trace: Option<TraceContext>,
    wrong: Option<HeadersError>,
}

impl Cause {
    /// The trace of the event `id`, which follows from this one.
    pub(crate) fn trace(&self, id: EventId) -> TraceContext {
        self.trace.unwrap_or_else(|| TraceContext::root(self.id)).child(id, 0)
    }
}

impl Rare {
    fn add_to(&self, mut head: Head) -> Result<Head, PublishError> {
        if let Some(error) = &self.wrong {
            return Err(DeclareError::from(error.clone()).into());
        }
        if let Some(parent) = self.trace {
            head.trace = Some(parent.child(head.id, 0));
        }
        if self.headers != Headers::default() {
            head.set_headers(self.headers.clone());
        }
        if let Some(key) = &self.key {
            head.set_key(key.clone());
        }
        Ok(head)
    }
}

/// What is said of most events.
pub(crate) static NOTHING: Options = Options { time_limit: None, rare: None };

impl Options {
    /// Nothing beside the payload.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The time to live of a notification or the time-out of a request, instead of the event's own.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Adds a header. One that exceeds the limits of [`Headers`] makes the sending fail.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let rare = self.rare();
        if let Err(error) = rare.headers.insert(name, value) {
            rare.wrong.get_or_insert(error);
        }
        self
    }

    /// A key instead of the event's own.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.rare().key = Some(key.into());
        self
    }

    /// Continues this trace, instead of that of the event being handled.
    #[must_use]
    pub fn trace(mut self, parent: TraceContext) -> Self {
        self.rare().trace = Some(parent);
        self
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

impl Bus {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let origin = core.address.clone();
        Self { core, origin, worker: None, cause: None }
    }

    /// The bus of a worker: events sent by it come from its manager, and its waits are known to others.
    #[doc(hidden)]
    #[must_use]
    pub fn within(&self, manager: &ManagerName, worker: Arc<WorkerStatus>) -> Self {
        let origin = Address { manager: Some(manager.clone()), ..(*self.core.address).clone() };
        Self { core: Arc::clone(&self.core), origin: Origin::here(origin), worker: Some(worker), cause: None }
    }

    /// Makes what is sent from now on follow from `event`.
    #[doc(hidden)]
    #[inline]
    pub fn set_cause(&mut self, event: &Envelope) {
        let head = event.head();
        // The deadline of a notification says when to forget it, not when its handler must be done.
        let deadline = head.deadline.filter(|_| head.descriptor.kind() != edri_events::Kind::Notification);
        self.cause = Some(Cause { id: head.id, trace: head.trace, deadline });
    }

    /// Who sends through this bus.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.origin
    }

    /// What the node is doing right now: managers, workers, inboxes, accounts. In a process worker it is empty: what a
    /// worker's own process knows of is none of the node's.
    #[must_use]
    pub fn topology(&self) -> Topology {
        Topology::of(&self.core)
    }

    /// What became of all deliveries of the node. Balances at any moment of rest.
    #[must_use]
    pub fn account(&self) -> Account {
        self.core.account()
    }

    /// The events the node knows, ordered by name: those that are declared on it, and those that other nodes have told of.
    #[must_use]
    pub fn events(&self) -> Vec<DescriptorRef> {
        let snapshot = self.core.snapshot();
        let mut events = self.core.known.list();
        events.retain(|event| snapshot.entry(event).is_none_or(|entry| entry.descriptor().is_none()));
        events.extend(snapshot.descriptors().cloned());
        events.sort_by(|a, b| a.name().cmp(b.name()));
        events
    }

    /// Declares an event, so that the untyped verbs know it and it is listed. Typed events declare themselves when they
    /// are first used; declaring one again is no error.
    ///
    /// # Errors
    ///
    /// [`DeclareError::NameTaken`] when the name is known with another kind, key or Rust type.
    pub async fn declare(&self, event: impl Into<DescriptorRef>) -> Result<(), DeclareError> {
        self.core.declare(event.into()).await
    }

    // ---- notifications ---------------------------------------------------------------------------------------------

    /// Publishes a notification: once this returns, every interested subscriber group has it in its inbox, and what
    /// becomes of it there is accounted for.
    ///
    /// Groups that have room get it at once; for the others this waits, inside a handler until the deadline of the event
    /// being handled, otherwise at most [`Limits::publish_wait`](crate::Limits::publish_wait).
    ///
    /// # Errors
    ///
    /// [`PublishError::Overloaded`] when that wait ends; the event is a dead letter for those who had no room, and
    /// delivered to the others.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while it waits dead-letters the event for those who have no room yet.
    pub async fn publish<E: Notification>(&self, event: E) -> Result<Receipt, PublishError> {
        match self.push_typed(event, &NOTHING)? {
            Pushed::Done(receipt) => Ok(receipt),
            // What follows is rare; boxed, it does not weigh on every publisher's future.
            slow => Box::pin(self.send_slowly(slow)).await,
        }
    }

    /// As [`Bus::publish`], with something to say beside the payload.
    ///
    /// # Errors
    ///
    /// As [`Bus::publish`].
    pub async fn publish_with<E: Notification>(&self, event: E, options: &Options) -> Result<Receipt, PublishError> {
        match self.push_typed(event, options)? {
            Pushed::Done(receipt) => Ok(receipt),
            slow => Box::pin(self.send_slowly(slow)).await,
        }
    }

    /// Gives an event to every group that wants it, as far as that goes without waiting.
    #[inline(always)]
    fn push_typed<E: Notification>(&self, event: E, options: &Options) -> Result<Pushed, PublishError> {
        let descriptor = DescriptorRef::of::<E>();
        let snapshot = self.core.snapshot();
        let entry = snapshot.entry(&descriptor).filter(|entry| is_known(entry, &descriptor));
        if entry.is_some_and(|entry| entry.is_unwanted()) {
            // Nobody to make an envelope for.
            self.check_open()?;
            self.core.unrouted.fetch_add(1, Ordering::Relaxed);
            return Ok(Pushed::Done(Receipt { id: EventId::next(), deliveries: 0 }));
        }
        let deadline = deadline(&descriptor, options, Instant::now);
        // Known here, it need not be read where it has just been written.
        let id = EventId::next();
        let envelope = self.seal(id, descriptor, options, deadline, event)?.into();
        let Some(entry) = entry else { return Ok(Pushed::Undeclared(envelope)) };
        Ok(match self.core.push_alone(entry, envelope) {
            None => Pushed::Done(Receipt { id, deliveries: 1 }),
            Some(envelope) => self.core.push_to_all(entry, envelope),
        })
    }

    /// Publishes a notification only if every interested group has room for it, without waiting.
    ///
    /// Groups that drop on overflow never refuse: their policy is applied as always.
    ///
    /// # Errors
    ///
    /// [`TryPublishError`] gives the event back, delivered to nobody.
    pub fn try_publish<E: Notification>(&self, event: E) -> Result<Receipt, TryPublishError<E>> {
        let head = match self.head(DescriptorRef::of::<E>(), &Options::default()) {
            Ok(head) => head,
            Err(source) => return Err(TryPublishError::Refused { event, source }),
        };
        let parts = Envelope::typed(head, event);
        match self.push_all_or_none(Envelope::from(Arc::clone(&parts))) {
            Ok(receipt) => Ok(receipt),
            Err(refusal) => {
                let event = Arc::into_inner(parts).map(Parts::into_payload).expect("delivered to nobody");
                Err(match refusal {
                    Refusal::Full(group) => TryPublishError::Full { event, group },
                    Refusal::Refused(source) => TryPublishError::Refused { event, source },
                })
            }
        }
    }

    /// Publishes several notifications of one type in their order, for less than one by one. Where there is no room, the
    /// whole batch has as long as one event that is published by itself.
    ///
    /// # Errors
    ///
    /// As [`Bus::publish`]; the error speaks for the whole batch.
    ///
    /// # Cancel safety
    ///
    /// As [`Bus::publish`]: what has no place yet is dead-lettered.
    pub async fn publish_batch<E: Notification>(
        &self,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Receipt, PublishError> {
        let descriptor = DescriptorRef::of::<E>();
        let options = Options::default();
        let envelopes = events
            .into_iter()
            .map(|event| Ok(Envelope::typed(self.head(descriptor.clone(), &options)?, event).into()))
            .collect::<Result<Vec<_>, PublishError>>()?;
        self.send_batch(descriptor, envelopes).await
    }

    /// Takes a dead letter from the list for good; whether it was kept.
    pub fn drop_dead_letter(&self, number: u64) -> bool {
        self.core.letters.take(number).is_some()
    }

    /// The dead letters that are kept, oldest first. To hear of them as they come, subscribe to
    /// [`DeadLettered`](crate::system::DeadLettered). In a process worker there are none: the node keeps them.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<Arc<DeadLetter>> {
        self.core.letters.list()
    }

    /// Delivers a dead letter again to the group it was for, or the one that replaced it, as a new delivery, and takes it
    /// from the list.
    ///
    /// # Errors
    ///
    /// [`ResendError::Unknown`] when no letter of that number is kept; [`ResendError::GroupGone`] when the group has
    /// ended, or has been replaced by one that does not want the event: the letter is kept then;
    /// [`ResendError::Publish`] when it had no room in time, [`ResendError::Unreachable`] when it is of a node that cannot be
    /// reached and its backlog is full: the event is a new dead letter then.
    pub async fn resend(&self, number: u64) -> Result<Receipt, ResendError> {
        let letter = self.core.letters.take(number).ok_or(ResendError::Unknown(number))?;
        let gone = || {
            self.core.letters.keep(Arc::clone(&letter));
            ResendError::GroupGone(letter.group.clone())
        };
        let groups = self.core.groups();
        let living = groups.iter().find(|group| *group.name() == letter.group && !group.is_closed());
        let group = living.ok_or_else(gone)?;
        // A manager that was replaced meanwhile has handlers of its own.
        let same = group.id() == letter.group_id;
        let handler = if same { Some(letter.handler) } else { group.handler_for(&letter.envelope) };
        let mut delivery = Delivery::new(letter.envelope.clone(), handler.ok_or_else(gone)?, ReplyTo::None);
        delivery.redelivered = letter.attempts > 0;
        let inbox = group.inbox_for(&letter.envelope);
        let stalled = Stalled::new(&self.core, Arc::clone(group), inbox, delivery);
        let receipt = Receipt { id: letter.envelope.id(), deliveries: 0 };
        let lines = vec![vec![stalled]];
        match self.core.wait_for_room(receipt, lines, self.wait_limit(), self.worker.as_ref()).await? {
            Receipt { deliveries: 0, .. } if !group.is_closed() => Err(ResendError::Unreachable(letter.group.clone())),
            // The group ended while this waited.
            Receipt { deliveries: 0, .. } => Err(gone()),
            receipt => Ok(receipt),
        }
    }

    // ---- below the types -------------------------------------------------------------------------------------------

    #[inline]
    pub(crate) fn check_open(&self) -> Result<(), PublishError> {
        match self.core.phase() {
            Phase::Running => Ok(()),
            // A node that stops lets its workers finish what they have, and what follows from it.
            Phase::Stopping if self.worker.is_some() => Ok(()),
            _ => Err(PublishError::Stopping),
        }
    }

    /// The head of a new event sent through this bus.
    pub(crate) fn head(&self, descriptor: DescriptorRef, options: &Options) -> Result<Head, PublishError> {
        self.head_at(descriptor, options, Instant::now)
    }

    pub(crate) fn head_at(
        &self,
        descriptor: DescriptorRef,
        options: &Options,
        now: impl FnOnce() -> Instant,
    ) -> Result<Head, PublishError> {
        let deadline = deadline(&descriptor, options, now);
        self.head_until(descriptor, options, deadline)
    }

    /// The head of a new event that loses its meaning then.
    #[inline(always)]
    pub(crate) fn head_until(
        &self,
        descriptor: DescriptorRef,
        options: &Options,
        deadline: Option<Instant>,
    ) -> Result<Head, PublishError> {
        self.check_open()?;
        let head = self.core.head(EventId::next(), descriptor, &self.origin, self.cause.as_ref(), deadline);
        match &options.rare {
            None => Ok(head),
            Some(rare) => rare.add_to(head),
        }
    }

    /// A new event with its head, sent through this bus. They are made in one piece: a head is large, and copying it once more
    /// is seen in the time of an event.
    #[inline(always)]
    pub(crate) fn seal<E: Event>(
        &self,
        id: EventId,
        descriptor: DescriptorRef,
        options: &Options,
        deadline: Option<Instant>,
        event: E,
    ) -> Result<Arc<Parts<E>>, PublishError> {
        self.check_open()?;
        let cause = self.cause.as_ref();
        match &options.rare {
            None => Ok(Envelope::typed(self.core.head(id, descriptor, &self.origin, cause, deadline), event)),
            Some(rare) => {
                let head = rare.add_to(self.core.head(id, descriptor, &self.origin, cause, deadline))?;
                Ok(Envelope::typed(head, event))
            }
        }
    }

    /// When a wait for room ends.
    pub(crate) fn wait_limit(&self) -> Instant {
        let limit = Instant::now() + self.core.limits.publish_wait;
        self.cause.and_then(|cause| cause.deadline).map_or(limit, |deadline| deadline.min(limit))
    }

    /// The earlier of `deadline` and that of the event being handled.
    pub(crate) fn within_deadline(&self, deadline: Instant) -> Instant {
        self.cause.and_then(|cause| cause.deadline).map_or(deadline, |own| own.min(deadline))
    }

    /// Publishes an envelope without a Rust type.
    pub(crate) async fn send(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        match self.core.push(envelope) {
            Pushed::Done(receipt) => Ok(receipt),
            slow => Box::pin(self.send_slowly(slow)).await,
        }
    }

    async fn send_slowly(&self, pushed: Pushed) -> Result<Receipt, PublishError> {
        let pushed = match pushed {
            Pushed::Undeclared(envelope) => {
                if let Some(uplink) = self.core.uplink() {
                    return uplink.publish(vec![envelope], self.wait_limit()).await;
                }
                self.core.declare(envelope.head().descriptor.clone()).await?;
                let snapshot = self.core.snapshot();
                match snapshot.entry(&envelope.head().descriptor) {
                    Some(entry) => self.core.push_to(entry, envelope),
                    None => return Err(PublishError::Stopping),
                }
            }
            pushed => pushed,
        };
        match pushed {
            Pushed::Done(receipt) => Ok(receipt),
            Pushed::Waits(receipt, stalled) => {
                let lines = stalled.into_iter().map(|stalled| vec![stalled]).collect();
                self.core.wait_for_room(receipt, lines, self.wait_limit(), self.worker.as_ref()).await
            }
            Pushed::Undeclared(_) => Err(PublishError::Stopping),
        }
    }

    /// Publishes envelopes of one event in their order.
    pub(crate) async fn send_batch(
        &self,
        descriptor: DescriptorRef,
        envelopes: Vec<Envelope>,
    ) -> Result<Receipt, PublishError> {
        let id = envelopes.first().map_or_else(EventId::next, |envelope| envelope.id());
        let known = self.core.snapshot().entry(&descriptor).is_some_and(|entry| is_known(entry, &descriptor));
        if !known {
            if let Some(uplink) = self.core.uplink() {
                return uplink.publish(envelopes, self.wait_limit()).await;
            }
            self.core.declare(descriptor.clone()).await?;
        }
        let (receipt, lines) = self.push_batch(Receipt { id, deliveries: 0 }, &descriptor, envelopes);
        if lines.is_empty() {
            return Ok(receipt);
        }
        Box::pin(self.core.wait_for_room(receipt, lines, self.wait_limit(), self.worker.as_ref())).await
    }

    /// Sorts envelopes by the inboxes they go to, fills what has room, and leaves the others in lines.
    fn push_batch(
        &self,
        mut receipt: Receipt,
        descriptor: &DescriptorRef,
        envelopes: Vec<Envelope>,
    ) -> (Receipt, Vec<Vec<Stalled>>) {
        let snapshot = self.core.snapshot();
        let Some(entry) = snapshot.entry(descriptor) else { return (receipt, Vec::new()) };
        let mut plan: Vec<(&GroupRef, usize, Vec<Delivery>)> = Vec::new();
        for envelope in envelopes {
            entry.for_each(&envelope, |route| {
                let inbox = route.target.inbox_for(&envelope);
                let delivery = Delivery::new(envelope.clone(), route.handler, ReplyTo::None);
                match plan.iter_mut().find(|(group, at, _)| group.id() == route.target.id() && *at == inbox) {
                    Some((_, _, deliveries)) => deliveries.push(delivery),
                    None => plan.push((&route.target, inbox, vec![delivery])),
                }
            });
        }
        let mut lines = Vec::new();
        let mut displaced = Vec::new();
        for (group, inbox, deliveries) in plan {
            let mut deliveries = deliveries.into_iter();
            while deliveries.len() > 0 {
                let before = deliveries.len();
                match group.inbox(inbox).try_fill(&mut deliveries) {
                    Ok(()) => receipt.deliveries += (before - deliveries.len()) as u32,
                    Err(Refused::Full) if group.makes_wait() => break,
                    Err(_) => {
                        // Policies and successors are the group's affair, one by one.
                        let Some(delivery) = deliveries.next() else { break };
                        match group.offer(delivery, &mut displaced) {
                            Offered::Taken => receipt.deliveries += 1,
                            Offered::Dropped(delivery) => self.core.drop_newest(group, delivery),
                            Offered::Gone(_) => {}
                            Offered::Full(group, inbox, delivery) => {
                                let rest = std::iter::once(delivery).chain(deliveries.by_ref());
                                let line = rest.map(|d| Stalled::new(&self.core, Arc::clone(&group), inbox, d));
                                lines.push(line.collect());
                            }
                        }
                    }
                }
            }
            if deliveries.len() > 0 {
                lines.push(deliveries.map(|d| Stalled::new(&self.core, Arc::clone(group), inbox, d)).collect());
            }
        }
        self.core.bury_displaced(displaced);
        (receipt, lines)
    }

    /// Gives an envelope to everybody who wants it if all who can be waited for have room, otherwise to nobody.
    pub(crate) fn push_all_or_none(&self, envelope: Envelope) -> Result<Receipt, Refusal> {
        let _traced = traced::publish(&envelope);
        let snapshot = self.core.snapshot();
        let descriptor = &envelope.head().descriptor;
        let by_pattern;
        let entry = match snapshot.entry(descriptor) {
            Some(entry) => {
                if let Some(known) = entry.descriptor() {
                    descriptor.compatible(known).map_err(DeclareError::from)?;
                }
                &**entry
            }
            None => {
                if let Some(uplink) = self.core.uplink() {
                    return uplink.try_publish(envelope).map_err(Refusal::from);
                }
                by_pattern = snapshot.undeclared_entry(descriptor.name());
                &by_pattern
            }
        };
        let mut routes: Vec<(&Route<GroupRef>, &GroupRef)> = Vec::new();
        entry.for_each(&envelope, |route| routes.push((route, &route.target)));
        let mut places = Vec::with_capacity(routes.len());
        let mut lossy = Vec::new();
        for (route, mut group) in routes {
            if !group.makes_wait() {
                lossy.push(route);
                continue;
            }
            let mut handler = Some(route.handler);
            while let Some(number) = handler {
                let inbox = group.inbox_for(&envelope);
                match group.inbox(inbox).try_claim() {
                    Ok(place) => {
                        places.push((group, inbox, place, number));
                        break;
                    }
                    Err(Refused::Full) => return Err(Refusal::Full(group.name().clone())),
                    Err(Refused::Closed) => match group.successor() {
                        Some(successor) => {
                            group = successor;
                            handler = successor.handler_for(&envelope);
                        }
                        None => break,
                    },
                }
            }
        }
        let mut receipt = Receipt { id: envelope.id(), deliveries: places.len() as u32 };
        if places.is_empty() && lossy.is_empty() {
            self.core.unrouted.fetch_add(1, Ordering::Relaxed);
        }
        for (group, inbox, place, handler) in places {
            group.fill(inbox, place, Delivery::new(envelope.clone(), handler, ReplyTo::None));
        }
        let mut displaced = Vec::new();
        for route in lossy {
            let delivery = Delivery::new(envelope.clone(), route.handler, ReplyTo::None);
            match route.target.offer(delivery, &mut displaced) {
                Offered::Taken => receipt.deliveries += 1,
                Offered::Dropped(delivery) => self.core.drop_newest(&route.target, delivery),
                Offered::Gone(_) => {}
                Offered::Full(group, inbox, delivery) => {
                    // Its successor waits where it did not: dropped here, the delivery is a dead letter.
                    drop(Stalled::new(&self.core, group, inbox, delivery));
                }
            }
        }
        self.core.bury_displaced(displaced);
        Ok(receipt)
    }
}

/// When an event loses its meaning, if it ever does.
#[inline(always)]
pub(crate) fn deadline(
    descriptor: &DescriptorRef,
    options: &Options,
    now: impl FnOnce() -> Instant,
) -> Option<Instant> {
    options.time_limit.or(descriptor.time_limit()).map(|limit| now() + limit)
}

/// Why an event was given to nobody.
pub(crate) enum Refusal {
    Full(GroupName),
    Refused(PublishError),
}

impl From<DeclareError> for Refusal {
    fn from(error: DeclareError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<NotNow> for Refusal {
    fn from(not_now: NotNow) -> Self {
        match not_now {
            NotNow::Full(group) => Self::Full(group),
            NotNow::Refused(error) => Self::Refused(error),
        }
    }
}

/// Why a dead letter was not sent again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResendError {
    /// No dead letter of this number is kept.
    #[error("no dead letter {0} is kept: it was resent, or newer ones took its place")]
    Unknown(u64),
    /// The group it was for has ended.
    #[error("{0} has ended, so there is nobody to resend to")]
    GroupGone(GroupName),
    /// The group's node cannot be reached and its backlog is full; the event is a new dead letter.
    #[error("{0} cannot be reached and its backlog is full")]
    Unreachable(GroupName),
    /// The group had no room in time; the event is a new dead letter.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("address", &self.origin.to_string()).finish_non_exhaustive()
    }
}

/// Checks that `descriptor` is of a kind that the verb sends.
pub(crate) fn check_kind(descriptor: &DescriptorRef, verb: edri_events::Kind) -> Result<(), DeclareError> {
    use edri_events::Kind;
    if descriptor.kind() == verb {
        return Ok(());
    }
    Err(DeclareError::WrongKind {
        event: descriptor.name().clone(),
        kind: descriptor.kind(),
        advice: match descriptor.kind() {
            Kind::Notification => "publish it",
            Kind::Request => "request it",
            Kind::Tunnel => "open it",
        },
    })
}
