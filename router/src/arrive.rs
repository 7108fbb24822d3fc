//! Events that came from another node for one group of this one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use edri_events::{Descriptor, DescriptorRef, Envelope, EventName, Kind};
use parking_lot::Mutex;

use crate::bus::check_kind;
use crate::core::{Core, Stalled};
use crate::delivery::{Delivery, ReplyTo};
use crate::group::{GroupRef, Offered};
use crate::letters::Reason;
use crate::limits::ARRIVING_NAMES_MAX;
use crate::{DeclareError, RequestError, Router, traced};

/// What became of an event that came from another node for a group.
#[derive(Debug)]
pub enum Arrived {
    /// It is the group's: in its inbox, or ended as the group's overflow policy says. The group accounts for it.
    Taken,
    /// The group has no room, and by its policy that is waited for.
    Waits(Arrival),
    /// The group has ended, or does not want this event. Whoever waits for an answer has been told `no_handler`.
    Nobody,
}

/// Deliveries that came from another node and wait for room in their group, in their order: one, or several that came together.
/// Dropped before it has a place, each is a dead letter, or its requester is told.
#[must_use = "dropping an arrival makes a dead letter of it"]
pub struct Arrival {
    core: Arc<Core>,
    group: GroupRef,
    deliveries: VecDeque<Delivery>,
}

const GIVES_UP: (Reason, &str) = (Reason::Stopped, "the node stopped before its group had room");

impl Arrival {
    fn new(core: &Arc<Core>, group: GroupRef, deliveries: VecDeque<Delivery>) -> Self {
        Self { core: Arc::clone(core), group, deliveries }
    }

    fn of(core: &Arc<Core>, group: GroupRef, delivery: Delivery) -> Self {
        Self::new(core, group, VecDeque::from([delivery]))
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Whether all have their places.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Waits until the first delivery has its place; false when its group ended meanwhile and nobody took over: whoever waits for
    /// an answer has been told `no_handler`.
    ///
    /// It stands in line only once this is polled. So several arrivals for one group may be kept in a queue and only the first be
    /// awaited; what comes meanwhile has to be put behind them by [`Router::arrive_behind`], or it might overtake.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the delivery.
    pub async fn placed(&mut self) -> bool {
        let Some(delivery) = self.deliveries.pop_front() else { return true };
        let call = delivery.ticket().map(|ticket| (ticket, delivery.envelope.name().clone()));
        let placed = self.stall(delivery).wait().await;
        if let (false, Some((ticket, event))) = (placed, call) {
            self.core.complete(ticket, Err(RequestError::NoHandler(event)));
        }
        placed
    }

    /// Gives as many their places, from the first on, as there are now while nobody stands in line; how many. The first of the others has to be
    /// awaited: there is no room for it, or its group has ended.
    pub fn place_now(&mut self) -> usize {
        let before = self.len();
        if !self.group.fill_with(&mut self.deliveries) {
            while let Some((inbox, place)) = self.deliveries.front().and_then(|it| self.group.try_claim(&it.envelope))
                && let Some(delivery) = self.deliveries.pop_front()
            {
                self.group.fill(inbox, place, delivery);
            }
        }
        before - self.len()
    }

    /// Gives them to the group as a publisher here would, until one has to wait; it, with those behind it, comes back.
    fn offer(mut self) -> Option<Self> {
        let mut displaced = Vec::new();
        loop {
            self.group.fill_with(&mut self.deliveries);
            let Some(delivery) = self.deliveries.pop_front() else { break };
            match self.group.offer(delivery, &mut displaced) {
                Offered::Taken => {}
                Offered::Dropped(delivery) => self.core.drop_newest(&self.group, delivery),
                // If its group has been replaced it is found again by whoever waits.
                Offered::Full(_, _, delivery) => {
                    self.deliveries.push_front(delivery);
                    break;
                }
                Offered::Gone(delivery) => self.core.nobody(&self.group, delivery),
            }
        }
        self.core.bury_displaced(displaced);
        (!self.is_empty()).then_some(self)
    }

    fn stall(&self, delivery: Delivery) -> Stalled {
        let inbox = self.group.inbox_for(&delivery.envelope);
        Stalled::new(&self.core, Arc::clone(&self.group), inbox, delivery).gives_up(GIVES_UP)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        while let Some(delivery) = self.deliveries.pop_front() {
            drop(self.stall(delivery));
        }
    }
}

/// Notifications that came from another node together, for one group of this one: they are given to it at once, and where one
/// goes is looked up once for each name. See [`Router::arrivals`].
#[must_use = "what is in it has not arrived yet"]
pub struct Arrivals {
    core: Arc<Core>,
    group: GroupRef,
    /// Those that follow one another and go to the same group.
    runs: Vec<Arrival>,
    /// The event of the last, if all of its name go to the same handler of the group of the last run.
    known: Option<(DescriptorRef, u32)>,
}

impl Arrivals {
    /// The group they are for.
    #[must_use]
    pub fn group(&self) -> &GroupRef {
        &self.group
    }

    /// Adds a notification; false if its group does not want it, and it has ended as [`Router::arrive`] says.
    pub fn push(&mut self, mut delivery: Delivery) -> bool {
        let _traced = traced::hop(&delivery.envelope);
        let descriptor = &delivery.envelope.head().descriptor;
        if let (Some((known, handler)), Some(run)) = (&self.known, self.runs.last_mut())
            && known.same(descriptor)
        {
            delivery.handler = *handler;
            run.deliveries.push_back(delivery);
            return true;
        }
        self.known = None;
        let Some(Routed { group, handler, always }) = self.core.route(&self.group, &delivery.envelope) else {
            self.core.nobody(&self.group, delivery);
            return false;
        };
        delivery.handler = handler;
        self.known = always.then(|| (delivery.envelope.head().descriptor.clone(), handler));
        match self.runs.last_mut().filter(|run| Arc::ptr_eq(&run.group, &group)) {
            Some(run) => run.deliveries.push_back(delivery),
            None => self.runs.push(Arrival::of(&self.core, group, delivery)),
        }
        true
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.iter().map(Arrival::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Gives them to the group, as [`Router::arrive`] would one after the other; what has to wait comes back, in order.
    pub fn arrive(&mut self) -> Vec<Arrival> {
        let mut waiting = Vec::new();
        for run in self.take() {
            match waiting.is_empty() {
                true => waiting.extend(run.offer()),
                false => waiting.push(run),
            }
        }
        waiting
    }

    /// Takes them out, to wait behind others as [`Router::arrive_behind`] says.
    pub fn take(&mut self) -> Vec<Arrival> {
        self.known = None;
        std::mem::take(&mut self.runs)
    }
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").field("group", self.group.name()).field("runs", &self.runs).finish()
    }
}

impl std::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrival").field("group", self.group.name()).field("deliveries", &self.deliveries).finish()
    }
}

impl Router {
    /// Gives an event that came from another node to one group of this one: to the handler that a publisher here would have
    /// reached, if the event's key and the group's filter select it; a request or the opening of a tunnel only to one that
    /// answers this event. A group whose manager was replaced is stood in for by its successor. Which handler it is for need
    /// not be said in the delivery.
    ///
    /// Deliveries of one origin come in order as long as nothing waits for the group: see [`Arrival::placed`].
    pub fn arrive(&self, group: &GroupRef, mut delivery: Delivery) -> Arrived {
        let _traced = traced::hop(&delivery.envelope);
        let Some(Routed { group: to, handler, .. }) = self.core.route(group, &delivery.envelope) else {
            self.core.nobody(group, delivery);
            return Arrived::Nobody;
        };
        delivery.handler = handler;
        if let ReplyTo::Response(ticket) = delivery.reply
            && let Some(outcome) = to.respond(&delivery.envelope)
        {
            self.core.complete(ticket, outcome);
            return Arrived::Taken;
        }
        let mut displaced = Vec::new();
        let arrived = match to.offer(delivery, &mut displaced) {
            Offered::Taken => Arrived::Taken,
            Offered::Dropped(delivery) => {
                self.core.drop_newest(&to, delivery);
                Arrived::Taken
            }
            Offered::Full(to, _, delivery) => Arrived::Waits(Arrival::of(&self.core, to, delivery)),
            Offered::Gone(delivery) => {
                self.core.nobody(&to, delivery);
                Arrived::Nobody
            }
        };
        self.core.bury_displaced(displaced);
        arrived
    }

    /// What notifications that came together for one group are put into.
    pub fn arrivals(&self, group: &GroupRef) -> Arrivals {
        Arrivals { core: Arc::clone(&self.core), group: GroupRef::clone(group), runs: Vec::new(), known: None }
    }

    /// Gives a delivery that was for a shared group of another node to another group that shares with it and can be reached;
    /// it comes back if there is none. It waits for room there if it must, as long as publishers do.
    ///
    /// # Errors
    ///
    /// The delivery, when nobody else takes it.
    pub fn pass_on(&self, group: &GroupRef, mut delivery: Delivery) -> Result<(), Delivery> {
        let snapshot = self.core.snapshot();
        let descriptor = &delivery.envelope.head().descriptor;
        let answers = descriptor.kind() != Kind::Notification;
        let mut other = None;
        if let Some(entry) = snapshot.entry(descriptor) {
            entry.for_each(&delivery.envelope, |route| {
                let target = &route.target;
                let able = target.is_reachable() && (route.exact || !answers);
                if able && group.shares_with(target) && target.id() != group.id() {
                    other = Some(route);
                }
            });
        }
        let Some(route) = other else { return Err(delivery) };
        delivery.handler = route.handler;
        let mut displaced = Vec::new();
        match route.target.offer(delivery, &mut displaced) {
            Offered::Taken => {}
            Offered::Gone(delivery) => return Err(delivery),
            Offered::Dropped(delivery) => self.core.drop_newest(&route.target, delivery),
            Offered::Full(group, inbox, delivery) => {
                let mut stalled = Stalled::new(&self.core, group, inbox, delivery);
                let limit = self.core.limits.publish_wait;
                self.core.runtime.spawn(async move {
                    // Out of time, it is a dead letter.
                    let _ = tokio::time::timeout(limit, stalled.wait()).await;
                });
            }
        }
        self.core.bury_displaced(displaced);
        Ok(())
    }

    /// As [`Router::arrive`], for a delivery that comes behind others that wait for the group: it waits like them, also if
    /// there is room. Never [`Arrived::Taken`].
    pub fn arrive_behind(&self, group: &GroupRef, mut delivery: Delivery) -> Arrived {
        match self.core.route(group, &delivery.envelope) {
            Some(Routed { group, handler, .. }) => {
                delivery.handler = handler;
                Arrived::Waits(Arrival::of(&self.core, group, delivery))
            }
            None => {
                self.core.nobody(group, delivery);
                Arrived::Nobody
            }
        }
    }

    /// What an event of this name that comes from another node is: as it is declared here, or as other nodes have told, or no
    /// more than its name and kind.
    ///
    /// # Errors
    ///
    /// [`DeclareError::WrongKind`] when the name is declared here as another kind, [`DeclareError::Name`] when the text is no
    /// name.
    pub fn arriving_descriptor(&self, name: &str, kind: Kind) -> Result<DescriptorRef, DeclareError> {
        if let Some(declared) = self.core.declared(name) {
            check_kind(&declared, kind)?;
            return Ok(declared);
        }
        match self.core.known.get(name) {
            Some(told) if told.kind() == kind => Ok(told),
            _ => self.core.arriving.descriptor(name, kind),
        }
    }
}

/// Where an event goes that came for a group.
struct Routed {
    group: GroupRef,
    handler: u32,
    /// All events of its name do.
    always: bool,
}

impl Core {
    /// Where an event for this group goes: to it, or to the one that took its place; `None` if neither wants it.
    fn route(&self, group: &GroupRef, envelope: &Envelope) -> Option<Routed> {
        let snapshot = self.snapshot();
        let descriptor = &envelope.head().descriptor;
        let by_pattern;
        let entry = match snapshot.entry(descriptor) {
            Some(entry) => &**entry,
            None => {
                by_pattern = snapshot.undeclared_entry(descriptor.name());
                &by_pattern
            }
        };
        let answers = descriptor.kind() != Kind::Notification;
        let mut group = group;
        let handler = loop {
            if let Some(route) = entry.route_to(group.id(), envelope).filter(|route| route.exact || !answers) {
                break route.handler;
            }
            match group.successor() {
                Some(successor) => group = successor,
                // One that has left the table and is not closed yet, because it is about to be replaced, takes it still.
                None => break group.handler_for(envelope).filter(|_| !entry.leads_to(group.id()))?,
            }
        };
        Some(Routed { group: GroupRef::clone(group), handler, always: entry.is_same_for_all() })
    }

    /// Ends a delivery that its group does not want any more. Whoever waits for an answer is told `no_handler`.
    fn nobody(self: &Arc<Self>, group: &GroupRef, delivery: Delivery) {
        if let Some(ticket) = delivery.ticket() {
            self.complete(ticket, Err(RequestError::NoHandler(delivery.envelope.name().clone())));
        } else if group.name().manager().is_some() && (group.is_closed() || group.divided().is_some()) {
            // Its publisher was told that it is accepted, so it does not vanish.
            group.reject();
            let (reason, detail) = match group.is_closed() {
                true => (Reason::Stopped, "its manager had left the node when it came"),
                false => (Reason::Undelivered, "the manager on the node that has its key does not handle this event"),
            };
            self.discard(group, delivery, reason, detail);
        }
    }
}

/// What was made up for events that came from other nodes under names that nobody has declared here.
#[derive(Default)]
pub(crate) struct Arriving {
    // Held to find or add one, when names are first met on a link.
    made: Mutex<HashMap<EventName, [Option<DescriptorRef>; 3]>>,
}

impl Arriving {
    fn descriptor(&self, name: &str, kind: Kind) -> Result<DescriptorRef, DeclareError> {
        let mut made = self.made.lock();
        if let Some(found) = made.get(name).and_then(|kinds| kinds[kind as usize].clone()) {
            return Ok(found);
        }
        let descriptor = Descriptor::declare(name, kind)?.build();
        // Beyond the limit it is made each time, which is slower and nothing else.
        if made.len() < ARRIVING_NAMES_MAX {
            made.entry(descriptor.name().clone()).or_default()[kind as usize] = Some(descriptor.clone());
        }
        Ok(descriptor)
    }
}
