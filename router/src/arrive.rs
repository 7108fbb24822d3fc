//! Events that came from another node for one group of this one.

use std::collections::HashMap;

use edri_events::{Descriptor, DescriptorRef, EventName, Kind};
use parking_lot::Mutex;

use crate::bus::check_kind;
use crate::core::Stalled;
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

/// A delivery that came from another node and waits for room in its group. Dropped before it has a place, it is a dead
/// letter, or its requester is told.
#[must_use = "dropping an arrival makes a dead letter of it"]
pub struct Arrival {
    stalled: Stalled,
}

impl Arrival {
    /// Waits until the delivery has its place; false when its group ended meanwhile and nobody took over: whoever waits for
    /// an answer has been told `no_handler`.
    ///
    /// It stands in line only once this is polled. So several for one group may be kept in a queue and only the first be
    /// awaited; what comes meanwhile has to be put behind them by [`Router::arrive_behind`], or it might overtake.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the arrival.
    pub async fn placed(mut self) -> bool {
        let call = self.stalled.delivery().and_then(|it| Some((it.ticket()?, it.envelope.name().clone())));
        let placed = self.stalled.wait().await;
        if let (false, Some((ticket, event))) = (placed, call) {
            self.stalled.core().complete(ticket, Err(RequestError::NoHandler(event)));
        }
        placed
    }

    /// Gives the delivery its place if there is one now and nobody stands in line; otherwise the arrival comes back.
    ///
    /// # Errors
    ///
    /// The arrival, which has to be awaited: there is no room, or its group has ended.
    pub fn place_now(mut self) -> Result<(), Self> {
        if self.stalled.place_now() { Ok(()) } else { Err(self) }
    }

    /// The group it is for; the one that took over, if another did while it waited.
    #[must_use]
    pub fn group(&self) -> &GroupRef {
        self.stalled.group()
    }
}

impl std::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrival")
            .field("group", self.group().name())
            .field("delivery", &self.stalled.delivery())
            .finish()
    }
}

impl Router {
    /// Gives an event that came from another node to one group of this one: to the handler that a publisher here would have
    /// reached, if the event's key and the group's filter select it; a request or the opening of a tunnel only to one that
    /// answers this event. A group whose manager was replaced is stood in for by its successor. Which handler it is for need
    /// not be said in the delivery.
    ///
    /// Deliveries of one origin come in order as long as nothing waits for the group: see [`Arrival::placed`].
    pub fn arrive(&self, group: &GroupRef, delivery: Delivery) -> Arrived {
        let _traced = traced::hop(&delivery.envelope);
        let (group, delivery) = match self.route(group, delivery) {
            Ok(routed) => routed,
            Err(refused) => return self.nobody(group, refused),
        };
        if let ReplyTo::Response(ticket) = delivery.reply
            && let Some(outcome) = group.respond(&delivery.envelope)
        {
            self.core.complete(ticket, outcome);
            return Arrived::Taken;
        }
        let mut displaced = Vec::new();
        let arrived = match group.offer(delivery, &mut displaced) {
            Offered::Taken => Arrived::Taken,
            Offered::Dropped(delivery) => {
                self.core.drop_newest(&group, delivery);
                Arrived::Taken
            }
            Offered::Full(group, inbox, delivery) => Arrived::Waits(self.wait(group, inbox, delivery)),
            Offered::Gone(delivery) => self.nobody(&group, delivery),
        };
        self.core.bury_displaced(displaced);
        arrived
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
    pub fn arrive_behind(&self, group: &GroupRef, delivery: Delivery) -> Arrived {
        match self.route(group, delivery) {
            Ok((group, delivery)) => {
                let inbox = group.inbox_for(&delivery.envelope);
                Arrived::Waits(self.wait(group, inbox, delivery))
            }
            Err(refused) => self.nobody(group, refused),
        }
    }

    fn wait(&self, group: GroupRef, inbox: usize, delivery: Delivery) -> Arrival {
        let gives_up = (Reason::Stopped, "the node stopped before its group had room");
        Arrival { stalled: Stalled::new(&self.core, group, inbox, delivery).gives_up(gives_up) }
    }

    fn nobody(&self, group: &GroupRef, delivery: Delivery) -> Arrived {
        if let Some(ticket) = delivery.ticket() {
            self.core.complete(ticket, Err(RequestError::NoHandler(delivery.envelope.name().clone())));
        } else if group.name().manager().is_some() && (group.is_closed() || group.divided().is_some()) {
            // Its publisher was told that it is accepted, so it does not vanish.
            group.reject();
            let (reason, detail) = match group.is_closed() {
                true => (Reason::Stopped, "its manager had left the node when it came"),
                false => (Reason::Undelivered, "the manager on the node that has its key does not handle this event"),
            };
            self.core.discard(group, delivery, reason, detail);
        }
        Arrived::Nobody
    }

    /// Addresses a delivery to this group, or the one that took its place; what neither wants comes back.
    fn route(&self, group: &GroupRef, mut delivery: Delivery) -> Result<(GroupRef, Delivery), Delivery> {
        let snapshot = self.core.snapshot();
        let envelope = &delivery.envelope;
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
                break Some(route.handler);
            }
            match group.successor() {
                Some(successor) => group = successor,
                // One that has left the table and is not closed yet, because it is about to be replaced, takes it still.
                None => break group.handler_for(envelope).filter(|_| !entry.leads_to(group.id())),
            }
        };
        match handler {
            Some(handler) => {
                delivery.handler = handler;
                Ok((GroupRef::clone(group), delivery))
            }
            None => Err(delivery),
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
