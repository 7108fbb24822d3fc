//! Subscriptions of the program around the node: events as streams.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use edri_events::{DescriptorRef, Envelope, Notification, Pattern};
use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt};

use crate::actor::Change;
use crate::bus::Bus;
use crate::core::Core;
use crate::group::{Group, GroupOptions, GroupRef, InboxConsumer, Overflow, Spread};
use crate::history::{Recorder, Start};
use crate::letters::Reason;
use crate::limits::{INBOX_CAPACITY_DEFAULT, INBOX_CAPACITY_MAX};
use crate::status::Ended;
use crate::table::Predicate;
use crate::uplink::{Past, Wanted, WantedPast};
use crate::{Conditions, DeclareError, GroupName};

/// Which events somebody wants.
#[derive(Clone)]
pub struct Selection {
    /// By name.
    pub pattern: Pattern,
    /// Only those with this key.
    pub key: Option<Arc<str>>,
    /// Only those that this function wants. It runs where the event is published.
    pub predicate: Option<Predicate>,
    /// Which of the group's handlers gets them.
    pub handler: u32,
}

impl Selection {
    /// Every event whose name `pattern` selects, for the group's first handler.
    #[must_use]
    pub fn new(pattern: Pattern) -> Self {
        Self { pattern, key: None, predicate: None, handler: 0 }
    }

    /// Whether it selects this event.
    pub(crate) fn selects(&self, envelope: &Envelope) -> bool {
        self.pattern.matches(envelope.name())
            && self.key.as_ref().is_none_or(|wanted| envelope.with_key(|key| key == Some(&**wanted)))
            && self.predicate.as_ref().is_none_or(|predicate| predicate(envelope))
    }

    /// Whether it selects every event that the pattern does, whatever its key and payload.
    pub(crate) fn selects_all_of(&self, pattern: &Pattern) -> bool {
        self.key.is_none() && self.predicate.is_none() && self.pattern.covers(pattern)
    }
}

impl std::fmt::Debug for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selection")
            .field("pattern", &self.pattern)
            .field("key", &self.key)
            .field("filtered", &self.predicate.is_some())
            .field("handler", &self.handler)
            .finish()
    }
}

static NEXT_SUBSCRIPTION: AtomicU64 = AtomicU64::new(1);

/// What the next subscription is called.
pub(crate) fn next_subscription() -> GroupName {
    GroupName::Subscription(NEXT_SUBSCRIPTION.fetch_add(1, Ordering::Relaxed))
}

/// What a subscription reads that begins in the past.
pub(crate) enum Beginning {
    /// A history of this node.
    Here(Arc<Recorder>, Selection, Start),
    /// One beyond the uplink, and what is wanted of what comes from there.
    Above(Box<dyn Past>, Option<Predicate>),
}

/// A subscription to be; `.await` makes it one.
#[must_use = "a subscription begins when it is awaited"]
pub struct Subscribe<S> {
    bus: Bus,
    declare: Option<DescriptorRef>,
    selection: Result<Selection, DeclareError>,
    /// All must hold. Kept apart from the selection's predicate because they can be sent to where the events are.
    conditions: Vec<Conditions>,
    capacity: Option<usize>,
    overflow: Option<Overflow>,
    /// Where it begins, when that is in the past.
    begin: Option<Start>,
    stream: PhantomData<fn() -> S>,
}

impl<S> Subscribe<S> {
    pub(crate) fn new(bus: Bus, declare: Option<DescriptorRef>, pattern: Result<Pattern, DeclareError>) -> Self {
        Self {
            bus,
            declare,
            selection: pattern.map(Selection::new),
            conditions: Vec::new(),
            capacity: None,
            overflow: None,
            begin: None,
            stream: PhantomData,
        }
    }

    pub(crate) fn beginning<T>(self, start: Start) -> Subscribe<T> {
        let Self { bus, declare, selection, conditions, capacity, overflow, .. } = self;
        Subscribe { bus, declare, selection, conditions, capacity, overflow, begin: Some(start), stream: PhantomData }
    }

    /// The past that a subscription reads which begins there.
    pub(crate) async fn past(mut self) -> Result<Beginning, DeclareError> {
        let core = Arc::clone(&self.bus.core);
        if self.capacity.is_some() || self.overflow.is_some() {
            return Err(DeclareError::NoInbox);
        }
        let start = self.begin.unwrap_or(Start::Last(0));
        if let Some(uplink) = core.uplink() {
            if let Some(event) = &self.declare {
                uplink.declare(event)?;
            }
            let conditions = self.conditions_to_send();
            let Selection { pattern, key, predicate, .. } = self.selection?;
            let past = uplink.replay(WantedPast { pattern, key, conditions, start }).await?;
            return Ok(Beginning::Above(past, predicate));
        }
        self.apply_conditions();
        let selection = self.selection?;
        let history = core.histories.covering(&selection.pattern);
        let history = history.ok_or_else(|| DeclareError::NoHistory(selection.pattern.clone()))?;
        if let Some(descriptor) = self.declare {
            core.declare(descriptor).await?;
        }
        Ok(Beginning::Here(history, selection, start))
    }

    /// Only events with this key.
    pub fn key(mut self, key: &str) -> Self {
        if let Ok(selection) = &mut self.selection {
            selection.key = Some(key.into());
        }
        self
    }

    /// The places of the subscription's inbox, at least one.
    pub fn capacity(mut self, places: usize) -> Self {
        self.capacity = Some(places.clamp(1, INBOX_CAPACITY_MAX));
        self
    }

    /// What happens when the inbox is full. By default publishers wait, so a subscription that is not read holds them
    /// up. One that reads a history has no inbox: with this or with places for it, it is refused.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = Some(overflow);
        self
    }

    /// Only events for whose payload all these conditions hold. They are looked at where the event is published, or where a
    /// history is read, of a client at its node; a payload that cannot be read is left out. Of several, all must hold; a client
    /// sends the first to its node and looks at the others itself.
    pub fn conditions(mut self, conditions: Conditions) -> Self {
        if !conditions.is_empty() {
            self.conditions.push(conditions);
        }
        self
    }

    /// Makes the conditions part of the predicate.
    fn apply_conditions(&mut self) {
        for conditions in std::mem::take(&mut self.conditions) {
            self.want(move |envelope| {
                conditions.hold(envelope).unwrap_or_else(|error| {
                    tracing::warn!(event = %envelope.name(), id = %envelope.id(), %error, "left out of a subscription");
                    false
                })
            });
        }
    }

    /// The conditions that go to the node; others become part of the predicate, because a frame has one set.
    fn conditions_to_send(&mut self) -> Option<Conditions> {
        let sent = (!self.conditions.is_empty()).then(|| self.conditions.remove(0));
        self.apply_conditions();
        sent
    }

    /// Only events that `wants` wants too.
    pub(crate) fn predicate(mut self, wants: impl Fn(&Envelope) -> bool + Send + Sync + 'static) -> Self {
        self.want(wants);
        self
    }

    fn want(&mut self, wants: impl Fn(&Envelope) -> bool + Send + Sync + 'static) {
        if let Ok(selection) = &mut self.selection {
            let earlier = selection.predicate.take();
            // It runs in the publisher: its panic must not become the publisher's.
            selection.predicate = Some(Arc::new(move |envelope: &Envelope| {
                earlier.as_ref().is_none_or(|earlier| earlier(envelope))
                    && catch_unwind(AssertUnwindSafe(|| wants(envelope))).unwrap_or_else(|_| {
                        tracing::error!(event = %envelope.name(), "a subscription's filter panicked; the event is left out");
                        false
                    })
            }));
        }
    }

    async fn start(mut self) -> Result<RawSubscription, DeclareError> {
        let conditions = match self.bus.core.uplink() {
            Some(_) => self.conditions_to_send(),
            None => {
                self.apply_conditions();
                None
            }
        };
        let selection = self.selection?;
        let group = Group::new(GroupOptions {
            shared: false,
            name: next_subscription(),
            spread: Spread::Compete,
            capacity: self.capacity.unwrap_or(INBOX_CAPACITY_DEFAULT),
            overflow: self.overflow.unwrap_or_default(),
            handlers: Vec::new(),
        });
        let core = self.bus.core;
        if let Some(uplink) = core.uplink() {
            if let Some(event) = &self.declare {
                uplink.declare(event)?;
            }
            let Selection { pattern, key, predicate, .. } = selection;
            let wanted = Wanted { pattern, key, conditions, capacity: group.capacity(), group: Arc::clone(&group) };
            group.set_source(uplink.subscribe(wanted).await?);
            return Ok(RawSubscription { consumer: group.consume(0), core, group, wants: predicate });
        }
        // From here on, dropping ends it, also while the router is being told.
        let subscription = RawSubscription { consumer: group.consume(0), core: Arc::clone(&core), group, wants: None };
        core.add_group(&subscription.group);
        core.change(Change {
            declare: self.declare.into_iter().collect(),
            subscribe: vec![(Arc::clone(&subscription.group), vec![selection])],
            withdraw: Vec::new(),
        })
        .await?;
        Ok(subscription)
    }
}

impl<E: Notification> Subscribe<Subscription<E>> {
    /// Only events that `wants` wants. It runs where the event is published, so it must be quick. Of several, all must want
    /// an event.
    pub fn filter(self, wants: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        self.predicate(move |envelope| envelope.payload::<E>().is_ok_and(&wants))
    }
}

impl Subscribe<UntypedSubscription> {
    /// Only events that `wants` wants. It runs where the event is published, so it must be quick. Of several, all must want
    /// an event.
    pub fn filter(self, wants: impl Fn(&Envelope) -> bool + Send + Sync + 'static) -> Self {
        self.predicate(wants)
    }
}

impl<E: Notification> IntoFuture for Subscribe<Subscription<E>> {
    type Output = Result<Subscription<E>, DeclareError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(Subscription { raw: self.start().await?, event: PhantomData }) })
    }
}

impl IntoFuture for Subscribe<UntypedSubscription> {
    type Output = Result<UntypedSubscription, DeclareError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(UntypedSubscription { raw: self.start().await? }) })
    }
}

/// A group with one inbox and no worker: whoever holds it is the worker.
struct RawSubscription {
    core: Arc<Core>,
    group: GroupRef,
    consumer: InboxConsumer,
    /// What is wanted of what comes from beyond an uplink, where functions cannot go.
    wants: Option<Predicate>,
}

impl RawSubscription {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Envelope>> {
        loop {
            let Some(delivery) = std::task::ready!(self.consumer.poll_next(cx)) else { return Poll::Ready(None) };
            self.consumer.give_back();
            if self.wants.as_ref().is_some_and(|wants| !wants(&delivery.envelope)) {
                continue;
            }
            if delivery.envelope.head().deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.core.discard(&self.group, delivery, Reason::Expired, "its time to live ended in the inbox");
                continue;
            }
            self.group.count(Ended::Handled);
            return Poll::Ready(Some(delivery.envelope));
        }
    }
}

impl Drop for RawSubscription {
    /// What was not read is cancelled, and publishers that wait for room go on without this subscription.
    fn drop(&mut self) {
        self.group.close(None);
        self.core.withdraw_soon(self.group.id());
        let group = Arc::clone(&self.group);
        self.core.clear(&self.group, move |_| group.count(Ended::Cancelled));
        self.core.forget_group(&self.group);
    }
}

/// The events of type `E` as a stream. Dropping it ends the subscription.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription<E> {
    raw: RawSubscription,
    event: PhantomData<fn() -> E>,
}

impl<E: Notification> Subscription<E> {
    /// The next event; `None` once the node has stopped and everything was read. Cancel safe.
    pub async fn next(&mut self) -> Option<Received<E>> {
        StreamExt::next(self).await
    }

    /// How many events were left out because there was no room and the sender could not wait.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.raw.group.missed()
    }
}

impl<E: Notification> Stream for Subscription<E> {
    type Item = Received<E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received<E>>> {
        loop {
            let Some(envelope) = std::task::ready!(self.raw.poll_next(cx)) else { return Poll::Ready(None) };
            match Received::new(envelope) {
                Ok(received) => return Poll::Ready(Some(received)),
                Err(()) => self.raw.group.miss(),
            }
        }
    }
}

/// An event that came through a subscription; it can be used as the event itself.
#[derive(Clone)]
pub struct Received<E> {
    envelope: Envelope,
    event: PhantomData<fn() -> E>,
}

impl<E: Notification> Received<E> {
    /// The event of this envelope, if its payload is one; otherwise the log has a line of it.
    pub(crate) fn new(envelope: Envelope) -> Result<Self, ()> {
        match envelope.payload::<E>() {
            Ok(_) => Ok(Self { envelope, event: PhantomData }),
            Err(error) => {
                tracing::warn!(event = %envelope.name(), id = %envelope.id(), %error, "left out of a subscription");
                Err(())
            }
        }
    }

    /// The event with its id, origin, headers and trace.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

impl<E: Notification> Deref for Received<E> {
    type Target = E;

    fn deref(&self) -> &E {
        self.envelope.payload().expect("looked at when it was received")
    }
}

impl<E: Notification + std::fmt::Debug> std::fmt::Debug for Received<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&**self, f)
    }
}

/// Events selected by name as a stream. Dropping it ends the subscription.
#[must_use = "dropping a subscription ends it"]
pub struct UntypedSubscription {
    raw: RawSubscription,
}

impl UntypedSubscription {
    /// The next event; `None` once the node has stopped and everything was read. Cancel safe.
    pub async fn next(&mut self) -> Option<Envelope> {
        StreamExt::next(self).await
    }

    /// How many events were left out because there was no room and the sender could not wait.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.raw.group.missed()
    }
}

impl Stream for UntypedSubscription {
    type Item = Envelope;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Envelope>> {
        self.raw.poll_next(cx)
    }
}

impl<E> std::fmt::Debug for Subscription<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("group", &self.raw.group.name().to_string()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for UntypedSubscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UntypedSubscription").field("group", &self.raw.group.name().to_string()).finish_non_exhaustive()
    }
}

impl<S> std::fmt::Debug for Subscribe<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscribe").field("selection", &self.selection).finish_non_exhaustive()
    }
}

impl Bus {
    /// Subscribes to the events of type `E`.
    ///
    /// ```no_run
    /// # async fn f<E: edri_events::Notification>(bus: edri_router::Bus) -> Result<(), edri_router::DeclareError> {
    /// let mut events = bus.subscribe::<E>().key("north").capacity(256).await?;
    /// while let Some(event) = events.next().await {}
    /// # Ok(()) }
    /// ```
    pub fn subscribe<E: Notification>(&self) -> Subscribe<Subscription<E>> {
        let descriptor = DescriptorRef::of::<E>();
        let pattern = descriptor.name().clone().into();
        Subscribe::new(self.clone(), Some(descriptor), Ok(pattern))
    }
}
