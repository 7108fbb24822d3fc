//! Keyed shared managers: from their fronts to whichever node has the key. Which one that is, [`Division`] decides.
//!
//! All that concerns a manager passes through the driver's one task. So what was sent to a node stands before whatever is said to it
//! afterwards, and no publisher can still be about to send to a node that has given a key up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use edri_events::{Incarnation, NodeName};
use edri_protocol::items::{Keys, Writer};
use edri_protocol::packet::Lane;
use edri_router::{
    Delivery, Ended, GroupRef, Holding, InboxConsumer, KEY_SLOTS, Reason, ReplyTo, Router, Ticket, slot_of,
};

use super::Driver;
use super::outbox::Ready;
use super::pack::Taken;
use crate::division::{Division, Returned, SLOTS, Saying, Slots, Tell, Way, slots};
use crate::engine::{GroupKey, Source};
use crate::limits::{DIVISIONS_MAX, OWN_WAITING_MAX};

const _: () = assert!(SLOTS == KEY_SLOTS, "a front has an inbox for each slot");

/// The most events of a manager that are taken out of its front at a time.
const TAKEN_MAX: usize = 512;
/// How often a front is looked into for this node before others have their turn.
const TURNS: usize = 4;

/// The keyed shared managers that this node has heard of.
#[derive(Debug, Default)]
pub(super) struct Divisions {
    all: BTreeMap<Arc<str>, Divided>,
    settled: bool,
    /// Something has happened that conclusions are to be drawn from.
    changed: bool,
}

/// One of them.
#[derive(Debug)]
struct Divided {
    division: Division,
    /// Where the events of each slot go, as of the last conclusions.
    ways: [Way; SLOTS],
    /// Nothing where nobody publishes to it: on a switch.
    front: Option<Front>,
    holdings: Vec<Holding>,
    /// The number of the group of this node.
    local: Option<u32>,
    /// How many events of this node wait for room in that group.
    own_waiting: u64,
}

/// What publishers of this node have put down.
#[derive(Debug)]
struct Front {
    group: GroupRef,
    queues: Vec<Queue>,
    /// What was on its way to a node that did not confirm it: it goes before everything that came later.
    returned: Vec<Returned<Delivery>>,
    /// The slots that have something, perhaps.
    pending: Slots,
    /// Where the next turn begins, so that a busy slot holds up no other.
    turn: usize,
}

/// What waits of one slot.
#[derive(Debug)]
struct Queue {
    consumer: InboxConsumer,
    bell: Arc<Bell>,
    waker: Waker,
}

/// What becomes of something that has come for a key.
pub(super) enum Admitted {
    /// This node has the key.
    Here(Delivery),
    /// Another has it, and gets this.
    SentOn,
    /// Another has it, and the requester is to ask again.
    NotHere(Ticket),
}

/// Puts a slot on the list of those that have something.
#[derive(Debug)]
struct Bell {
    name: Arc<str>,
    slot: usize,
    rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.ready.slots.push((Arc::clone(&self.name), self.slot));
            self.ready.wake.ring();
        }
    }
}

/// Lets the driver look whether a slot is drained.
#[derive(Debug)]
struct Drained(Arc<Ready>);

impl Wake for Drained {
    fn wake(self: Arc<Self>) {
        self.0.wake.ring();
    }
}

impl Queue {
    fn new(name: &Arc<str>, slot: usize, group: &GroupRef, ready: &Arc<Ready>) -> Self {
        let bell = Bell { name: Arc::clone(name), slot, rung: AtomicBool::new(true), ready: Arc::clone(ready) };
        let bell = Arc::new(bell);
        Self { consumer: group.consume(slot), waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// Takes the next delivery. When there is none the bell rings once there is.
    fn take(&mut self) -> Option<Delivery> {
        if let Some(delivery) = self.consumer.try_next() {
            return Some(delivery);
        }
        // In this order: what comes after this rings again.
        self.bell.rung.store(false, Ordering::Release);
        match self.consumer.poll_next(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(delivery) => delivery,
            Poll::Pending => None,
        }
    }
}

impl Front {
    fn new(name: &Arc<str>, group: GroupRef, ready: &Arc<Ready>) -> Self {
        let queues = (0..SLOTS).map(|slot| Queue::new(name, slot, &group, ready)).collect();
        let returned = (0..SLOTS).map(|_| Returned::default()).collect();
        // Nothing rings before it was looked into once.
        Self { group, queues, returned, pending: Slots::MAX, turn: 0 }
    }

    /// Takes what waits of these slots, oldest first in each, and accounts for it as gone from here; apart what is for another
    /// node than the one that has its slot.
    fn take(
        &mut self,
        among: Slots,
        most: usize,
        is_for: impl Fn(&Delivery) -> bool,
    ) -> (Vec<Delivery>, Vec<Delivery>) {
        let (mut taken, mut astray) = (Vec::new(), Vec::new());
        self.turn = (self.turn + 1) % SLOTS;
        let first = Slots::MAX << self.turn;
        for slot in slots(among & first).chain(slots(among & !first)) {
            while taken.len() + astray.len() < most {
                let (delivery, held) = match self.returned[slot].take() {
                    Some(delivery) => (delivery, true),
                    None => match self.queues[slot].take() {
                        Some(delivery) => (delivery, false),
                        None => {
                            self.pending &= !(1 << slot);
                            break;
                        }
                    },
                };
                let ours = is_for(&delivery);
                let ended =
                    if ours || slot_of(&delivery.envelope).is_none() { Ended::Forwarded } else { Ended::Failed };
                match held {
                    true => self.group.settle(1, ended),
                    false => self.group.count(ended),
                }
                if ours { taken.push(delivery) } else { astray.push(delivery) }
            }
            self.queues[slot].consumer.give_back();
        }
        (taken, astray)
    }

    /// Whether nothing waits of a slot.
    fn is_empty(&self, slot: usize) -> bool {
        self.returned[slot].is_empty() && self.group.depth(slot) == 0
    }
}

impl Divided {
    /// The slots that have something, perhaps, and go this way.
    fn pending(&self, way: Way) -> Slots {
        let pending = self.front.as_ref().map_or(0, |front| front.pending);
        slots(pending).filter(|slot| self.ways[*slot] == way).fold(0, |all, slot| all | 1 << slot)
    }

    /// Gives something back to the front, by `put`.
    fn give_back(&mut self, delivery: Delivery, put: fn(&mut Returned<Delivery>, Delivery)) -> Result<(), Delivery> {
        // Without a key there is no order to keep.
        let slot = slot_of(&delivery.envelope).unwrap_or(0);
        self.give_back_to(slot, delivery, put)
    }

    fn give_back_to(
        &mut self,
        slot: usize,
        delivery: Delivery,
        put: fn(&mut Returned<Delivery>, Delivery),
    ) -> Result<(), Delivery> {
        let Some(front) = &mut self.front else { return Err(delivery) };
        front.group.take_over(1);
        front.group.hold(1);
        put(&mut front.returned[slot], delivery);
        front.pending |= 1 << slot;
        Ok(())
    }
}

impl Divisions {
    pub(super) fn settle(&mut self) {
        (self.settled, self.changed) = (true, true);
        self.all.values_mut().for_each(|divided| divided.division.settle());
    }

    fn each(&mut self, mut happened: impl FnMut(&mut Division)) {
        self.changed = true;
        self.all.values_mut().for_each(|divided| happened(&mut divided.division));
    }

    pub(super) fn met(&mut self, life: Incarnation, node: &NodeName) {
        self.each(|division| division.met(life, node));
    }

    pub(super) fn reach(&mut self, life: Incarnation, reachable: bool) {
        self.each(|division| division.reach(life, reachable));
    }

    pub(super) fn renew(&mut self, life: Incarnation) {
        self.each(|division| division.renew(life));
    }

    pub(super) fn ended(&mut self, life: Incarnation) {
        self.each(|division| division.ended(life));
    }

    pub(super) fn noted(&mut self, from: Incarnation, manager: &str, version: u64, agreed: Slots) {
        self.changed = true;
        if let Some(divided) = self.all.get_mut(manager) {
            divided.division.noted(from, version, agreed);
        }
    }

    pub(super) fn noted_among_requests(&mut self, from: Incarnation, manager: &str, version: u64) {
        self.changed = true;
        if let Some(divided) = self.all.get_mut(manager) {
            divided.division.noted_among_requests(from, version);
        }
    }

    /// The group of this number was withdrawn: it takes no keys any more.
    pub(super) fn leave(&mut self, number: u32) {
        for divided in self.all.values_mut().filter(|divided| divided.local == Some(number)) {
            divided.division.set_member(false);
            self.changed = true;
        }
    }

    /// Whether nothing of this node comes any more for a group that was withdrawn; it is given nothing from then on.
    pub(super) fn is_over(&mut self, number: Option<u32>) -> bool {
        for divided in self.all.values_mut().filter(|divided| number.is_some() && divided.local == number) {
            let Some(front) = &divided.front else { continue };
            if (0..SLOTS).any(|slot| divided.division.awaits(slot) && !front.is_empty(slot)) {
                return false;
            }
            divided.local = None;
            divided.division.left();
        }
        true
    }

    /// So many events of this node that had waited for room in the group have their place.
    pub(super) fn placed(&mut self, number: u32, events: u64) {
        for divided in self.all.values_mut().filter(|divided| divided.local == Some(number)) {
            divided.own_waiting = divided.own_waiting.saturating_sub(events);
        }
    }

    /// Lets in what has come for a group of this node. What this node has not got the key of is sent on, but for requests, which come back.
    pub(super) fn admit(&mut self, group: &GroupRef, mut delivery: Delivery) -> Admitted {
        let slot = group.divided().and_then(|_| slot_of(&delivery.envelope));
        // A tunnel stays with the worker that has it, wherever its key goes.
        let slot = slot.filter(|_| !matches!(delivery.reply, ReplyTo::Tunnel(..)));
        let (Some(slot), Some(name)) = (slot, group.divided()) else { return Admitted::Here(delivery) };
        let Some(divided) = self.all.get_mut(name) else { return Admitted::Here(delivery) };
        if divided.division.holds(slot) {
            delivery.hold = Some(divided.holdings[slot].hold());
            return Admitted::Here(delivery);
        }
        tracing::debug!(manager = %name, slot, "an event came whose key is not here; it is sent on");
        if let ReplyTo::Response(ticket) = delivery.reply {
            return Admitted::NotHere(ticket);
        }
        divided.give_back(delivery, Returned::stray).map_or_else(Admitted::Here, |()| Admitted::SentOn)
    }

    /// Takes back what was not confirmed.
    pub(super) fn give_back(&mut self, name: &Arc<str>, delivery: Delivery) {
        // There is a front wherever there is a group behind it.
        let given = self.all.get_mut(name).map(|divided| divided.give_back(delivery, Returned::come_back));
        debug_assert!(matches!(given, Some(Ok(()))), "what was sent came from a front");
    }
}

impl Driver {
    // ---- who is there ----------------------------------------------------------------------------------------------

    /// What is known of the keys of a manager, from now on.
    fn division(&mut self, name: &Arc<str>) -> &mut Divided {
        let Divisions { all, settled, .. } = &mut self.divisions;
        all.entry(Arc::clone(name)).or_insert_with(|| {
            let mut division = Division::new(name, self.router.node(), self.engine.incarnation());
            for (life, known) in &self.lives {
                division.met(*life, &known.node);
                division.reach(*life, known.reachable);
            }
            if *settled {
                division.settle();
            }
            let waker = Waker::from(Arc::new(Drained(Arc::clone(&self.outboxes.ready))));
            let holdings = (0..SLOTS).map(|_| Holding::new(waker.clone())).collect();
            let ways = [Way::Nowhere; SLOTS];
            Divided { division, ways, front: None, holdings, local: None, own_waiting: 0 }
        })
    }

    /// Looks into the front of a manager from now on.
    pub(super) fn front_of(&mut self, name: &Arc<str>) {
        let (router, ready): (Router, _) = (self.router.clone(), Arc::clone(&self.outboxes.ready));
        let divided = self.division(name);
        if divided.front.is_none() {
            divided.front = router.front(name).map(|group| Front::new(name, group, &ready));
            self.divisions.changed = true;
        }
    }

    /// A group of this node is there, and shares keys with others or does not.
    pub(super) fn divides(&mut self, number: u32, name: Option<Arc<str>>) {
        self.divisions.leave(number);
        let Some(name) = name else { return };
        self.front_of(&name);
        let divided = self.division(&name);
        divided.local = Some(number);
        divided.division.set_member(true);
        self.divisions.changed = true;
    }

    /// Another node says which keys it has.
    pub(super) fn keys(&mut self, from: Incarnation, keys: &Keys<'_>) {
        let &Keys { manager, version, member, owned, releasing, claiming } = keys;
        if edri_events::ManagerName::new(manager).is_err() {
            tracing::warn!(manager, "left out: this is no name of a manager");
            return;
        }
        if self.divisions.all.len() >= DIVISIONS_MAX && !self.divisions.all.contains_key(manager) {
            tracing::error!(manager, "left out: there are too many keyed shared managers");
            return;
        }
        let saying = Saying { version, member, owned, releasing, claiming };
        self.division(&Arc::from(manager)).division.said(from, saying);
        self.divisions.changed = true;
    }

    // ---- whose turn it is ------------------------------------------------------------------------------------------

    /// Gives up what is drained, draws conclusions, and tells others of them.
    pub(super) fn divide(&mut self) {
        let mut tell: Vec<(Arc<str>, Tell)> = Vec::new();
        let changed = std::mem::take(&mut self.divisions.changed);
        for (name, divided) in &mut self.divisions.all {
            let Divided { division, ways, holdings, .. } = divided;
            let releasing = division.saying().releasing != 0;
            if releasing {
                for slot in slots(division.draining()).filter(|slot| holdings[*slot].is_over()) {
                    division.drained(slot);
                }
            }
            if changed || releasing {
                tell.extend(division.turn().into_iter().map(|tell| (Arc::clone(name), tell)));
                // Before anything is noted, so that nothing is sent behind a note that should not be.
                *ways = std::array::from_fn(|slot| division.way(slot));
            }
        }
        for (name, tell) in tell {
            let mut writer = Writer::new();
            let to = match tell {
                Tell::Saying { to, saying } => {
                    let Saying { version, member, owned, releasing, claiming } = saying;
                    writer.keys(&Keys { manager: &name, version, member, owned, releasing, claiming });
                    to
                }
                Tell::Note { to, version, agreed } => {
                    writer.noted(&name, version, agreed);
                    self.note_among_requests(to, &name, version, agreed);
                    to
                }
            };
            self.send_to_node(to, Lane::Normal, Vec::new(), writer.take().into(), 0);
        }
        self.give_up_forsaken();
    }

    /// What waits for a manager that nobody runs any more will not be handled.
    fn give_up_forsaken(&mut self) {
        for (name, divided) in &mut self.divisions.all {
            let runs = divided.local.is_some() || divided.division.has_member();
            let Some(front) = divided.front.as_mut().filter(|front| !runs && front.pending != 0) else { continue };
            if self.outboxes.all.values().any(|outbox| outbox.group.divided() == Some(name)) {
                continue;
            }
            let detail = "its manager runs on no node any more";
            for slot in slots(front.pending) {
                while let Some(delivery) = front.returned[slot].take() {
                    self.router.discard(&front.group, delivery, Reason::Undelivered, detail);
                    front.group.release(1);
                }
                while let Some(delivery) = front.queues[slot].take() {
                    self.router.discard(&front.group, delivery, Reason::Undelivered, detail);
                }
                front.queues[slot].consumer.give_back();
                front.pending &= !(1 << slot);
            }
        }
    }

    // ---- events ----------------------------------------------------------------------------------------------------

    /// Looks for what waits in fronts: gives what is for this node to its group, and has what is for others looked into.
    pub(super) fn collect_slots(&mut self) {
        while let Some((name, slot)) = self.outboxes.ready.slots.pop() {
            if let Some(front) = self.divisions.all.get_mut(&name).and_then(|divided| divided.front.as_mut()) {
                front.pending |= 1 << slot;
            }
        }
        let has_something = |divided: &Divided| divided.front.as_ref().is_some_and(|front| front.pending != 0);
        let busy = self.divisions.all.iter().filter(|(_, divided)| has_something(divided));
        let names: Vec<_> = busy.map(|(name, _)| Arc::clone(name)).collect();
        for name in names {
            self.feed(&name);
            let Some(divided) = self.divisions.all.get(&name).filter(|divided| has_something(divided)) else {
                continue;
            };
            for (key, outbox) in &self.outboxes.all {
                let there = outbox.group.divided() == Some(&name) && !self.outboxes.waiting.contains(key);
                if there && outbox.life.is_some_and(|life| divided.pending(Way::There(life)) != 0) {
                    self.outboxes.waiting.push(*key);
                }
            }
        }
    }

    /// Gives what is for this node to its group, as far as that has room for it.
    fn feed(&mut self, name: &Arc<str>) {
        let here = Source { node: self.engine.incarnation(), session: 0 };
        for turn in 0..=TURNS {
            let Some(divided) = self.divisions.all.get_mut(name) else { return };
            let (Some(number), pending) = (divided.local, divided.pending(Way::Here)) else { return };
            let Some(front) = divided.front.as_mut().filter(|_| pending != 0) else { return };
            let room = OWN_WAITING_MAX.saturating_sub(divided.own_waiting);
            let most = usize::try_from(room).unwrap_or(usize::MAX).min(TAKEN_MAX);
            if most == 0 {
                return;
            }
            if turn == TURNS {
                return self.outboxes.ready.wake.ring();
            }
            let router = &self.router;
            let is_for = |delivery: &Delivery| router.is_for(delivery, router.node());
            let (taken, astray) = front.take(pending, most, is_for);
            let front = GroupRef::clone(&front.group);
            self.redirect(name, astray);
            for delivery in taken {
                if !matches!(delivery.reply, ReplyTo::None) {
                    self.router.goes_to(&front, &delivery.envelope, self.router.node());
                }
                if !self.arrive(number, delivery, here)
                    && let Some(divided) = self.divisions.all.get_mut(name)
                {
                    divided.own_waiting += 1;
                }
            }
        }
    }

    /// Sees to requests that are for another node than the one that has their slot. Without a key they may go to any that it has; for one
    /// with a key nobody is there.
    fn redirect(&mut self, name: &Arc<str>, astray: Vec<Delivery>) {
        for delivery in astray {
            let Some(divided) = self.divisions.all.get_mut(name) else { continue };
            let way = match self.router.directed(&delivery) {
                Some(node) if node == *self.router.node() => Some(Way::Here),
                Some(node) => self.lives.iter().find(|(_, life)| life.node == node).map(|(life, _)| Way::There(*life)),
                None => None,
            };
            let any = slot_of(&delivery.envelope).is_none();
            let delivery = match (0..SLOTS).find(|slot| any && Some(divided.ways[*slot]) == way) {
                Some(slot) => divided.give_back_to(slot, delivery, Returned::stray),
                None => Err(delivery),
            };
            match delivery {
                Ok(()) => self.outboxes.ready.wake.ring(),
                Err(delivery) => self.nobody(delivery),
            }
        }
    }

    /// Takes what may be sent now to a group of another node that has some of the keys.
    pub(super) fn take_divided(&mut self, key: GroupKey, name: &Arc<str>) -> Taken {
        let now = self.now();
        let Some(outbox) = self.outboxes.all.get(&key) else { return Taken::Nothing };
        let (withdrawn, group) = (outbox.withdrawn.is_some(), GroupRef::clone(&outbox.group));
        let others = self.outboxes.all.values().any(|other| other.in_table && other.group.divided() == Some(name));
        let Some((life, divided)) = outbox.life.zip(self.divisions.all.get_mut(name)) else { return Taken::Nothing };
        let pending = divided.pending(Way::There(life));
        // One that leaves is sent no more if somebody else can take it: it may leave before it can hand its keys over.
        let closing = withdrawn && (others || divided.local.is_some() && divided.division.saying().member);
        if pending == 0 || closing {
            return if withdrawn { Taken::Last(Vec::new()) } else { Taken::Nothing };
        }
        if !self.engine.has_room(life, Lane::Normal) {
            return Taken::Blocked;
        }
        let (events, bytes) = self.engine.credit(key);
        if events == 0 || bytes == 0 {
            self.engine.starve(now, key);
            return Taken::Blocked;
        }
        let Some(front) = &mut divided.front else { return Taken::Nothing };
        let most = self.packer.most(key, events, bytes).min(TAKEN_MAX);
        let (router, node) = (&self.router, &outbox.node);
        let is_for = |delivery: &Delivery| router.is_for(delivery, node);
        let (mut taken, astray) = front.take(pending, most, is_for);
        let (front, node) = (GroupRef::clone(&front.group), node.clone());
        group.take_over(taken.len());
        self.redirect(name, astray);
        taken = self.understood(life, &group, taken);
        let (taken, calls): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|delivery| matches!(delivery.reply, ReplyTo::None));
        for delivery in calls {
            self.router.goes_to(&front, &delivery.envelope, &node);
            self.call(key, life, delivery);
        }
        Taken::Some(self.sendable(key, &group, taken))
    }

    /// Those that the node of a group knows as this one does; nobody else may have the others, so they are dead letters.
    fn understood(&self, life: Incarnation, group: &GroupRef, taken: Vec<Delivery>) -> Vec<Delivery> {
        let Some(differs) = self.lives.get(&life).map(|life| &life.differs).filter(|differs| !differs.is_empty())
        else {
            return taken;
        };
        let (other, same): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|delivery| differs.contains_key(delivery.envelope.name().as_str()));
        for delivery in other {
            let detail = "the node that has its key knows this event differently";
            self.router.discard(group, delivery, Reason::Undelivered, detail);
        }
        same
    }
}
