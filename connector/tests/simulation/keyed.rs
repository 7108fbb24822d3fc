//! A keyed shared manager around an engine: what the driver does with a [`Division`], on integers; and what is true of it,
//! written down by nobody who has keys.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use edri_connector::division::{Division, Returned, Saying, Tell, Way, slots};
use edri_connector::engine::{GroupKey, Target};
use edri_connector::topology::{GroupState, Window};
use edri_events::{Incarnation, NodeName};
use edri_protocol::packet::Lane;

use crate::dice::Dice;
use crate::host::{Keep, OUTBOX_MAX, PACKET_EVENTS, SimEngine};
use crate::ledger::EventNumber;

/// The manager, and its group on each node that runs it.
pub(crate) const CLERK: &str = "clerk";
/// The slots that events are published in; all are divided.
pub(crate) const BUSY: usize = 5;
/// How long a node that meets nobody waits before it takes keys.
const ALONE_AFTER: Duration = Duration::from_secs(2);
/// On an event that a life which has ended may have handled.
const MARK: u64 = 1 << 63;

const SAY: u8 = 16;
const NOTE: u8 = 17;
const CALL: u8 = 18;

/// What one life of a node has to do with the manager; a switch only says what it knows.
#[derive(Debug)]
pub(crate) struct Keyed {
    division: Division,
    begun: Duration,
    is_settled: bool,
    knows: BTreeSet<Incarnation>,
    /// What was published here and not sent, by slot.
    published: Vec<VecDeque<u64>>,
    /// What was sent and came back: it goes before everything that came later.
    returned: Vec<Returned<u64>>,
    /// What this node is to handle; a request is nothing but work.
    in_hand: Vec<VecDeque<Option<u64>>>,
    outboxes: BTreeMap<GroupKey, Outbox>,
    /// The group of this node, and all that it had in this life.
    local: Option<u32>,
    numbers: BTreeSet<u32>,
    /// The group was withdrawn and is given what is left for it here.
    closing: bool,
    ways: [Way; BUSY],
    /// Something has happened that conclusions are to be drawn from.
    changed: bool,
    /// Slots that this life has taken and nobody has looked at.
    pub(crate) taken: Vec<usize>,
}

/// A group of another node that has some of the keys, perhaps.
#[derive(Debug, Default)]
struct Outbox {
    life: Option<Incarnation>,
    in_flight: usize,
    withdrawn: bool,
}

/// What became of the events of the manager.
#[derive(Debug, Default)]
pub(crate) struct Book {
    ways: BTreeMap<u64, EventWay>,
    /// The last event of each publisher and slot that was handled for the first time.
    last: BTreeMap<(u32, usize), u64>,
    /// Pairs of lives of which one has given up the other although it lived.
    parted: BTreeSet<(Incarnation, Incarnation)>,
    dead: BTreeSet<Incarnation>,
    pub(crate) handled: usize,
    pub(crate) twice: usize,
    pub(crate) moves: usize,
    pub(crate) discarded: usize,
}

#[derive(Debug, Default)]
struct EventWay {
    handled: Vec<Incarnation>,
    /// A life had it in its hands and has died, or nobody runs the manager any more.
    excused: bool,
}

fn slot_of(event: u64) -> usize {
    (event & !MARK) as usize % BUSY
}

fn pair(one: Incarnation, other: Incarnation) -> (Incarnation, Incarnation) {
    if one.get() < other.get() { (one, other) } else { (other, one) }
}

impl Keyed {
    pub(crate) fn new(now: Duration, node: &NodeName, life: Incarnation) -> Self {
        let lines = || (0..BUSY).map(|_| VecDeque::new()).collect();
        Self {
            division: Division::new(CLERK, node, life),
            begun: now,
            is_settled: false,
            knows: BTreeSet::new(),
            published: lines(),
            returned: (0..BUSY).map(|_| Returned::default()).collect(),
            in_hand: (0..BUSY).map(|_| VecDeque::new()).collect(),
            outboxes: BTreeMap::new(),
            local: None,
            numbers: BTreeSet::new(),
            closing: false,
            ways: [Way::Nowhere; BUSY],
            changed: true,
            taken: Vec::new(),
        }
    }

    // ---- this node -------------------------------------------------------------------------------------------------

    /// Runs the manager from now on.
    pub(crate) fn join(&mut self, engine: &mut SimEngine, number: u32, window: Window) {
        let state = GroupState { name: CLERK.to_owned(), shared: true, keyed: true, window, ..GroupState::default() };
        engine.set_group(number, state).expect("few");
        self.numbers.insert(number);
        self.local = Some(number);
        self.closing = false;
        self.division.set_member(true);
        self.changed = true;
    }

    /// Takes no more keys.
    pub(crate) fn leave(&mut self, engine: &mut SimEngine) {
        if let Some(number) = self.local.filter(|_| !self.closing) {
            engine.withdraw_group(number);
            self.closing = true;
            self.division.set_member(false);
            self.changed = true;
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.local.is_some() && !self.closing
    }

    pub(crate) fn has_group(&self, number: u32) -> bool {
        self.numbers.contains(&number)
    }

    pub(crate) fn publish(&mut self, event: EventNumber, book: &mut Book) {
        let event = event.pack();
        let queue = &mut self.published[slot_of(event)];
        if queue.len() < OUTBOX_MAX {
            queue.push_back(event);
            book.ways.insert(event, EventWay::default());
        }
    }

    /// Asks the node that has a slot for something: that is work there, and nothing else.
    pub(crate) fn request(&mut self, now: Duration, engine: &mut SimEngine, slot: usize) {
        let Way::There(node) = self.ways[slot] else { return };
        let mut here = self.outboxes.iter().filter(|(_, outbox)| outbox.life == Some(node) && !outbox.withdrawn);
        let Some((key, _)) = here.next() else { return };
        if engine.credit(*key).0 > 0 && engine.has_room(node, Lane::High) {
            let targets = [Target { node, groups: vec![*key] }];
            engine.send(now, Lane::High, &targets, message(CALL, &[slot as u64]).into(), 1, &Keep::default());
        }
    }

    /// Handles some of what it has in hand.
    pub(crate) fn work(
        &mut self,
        life: Incarnation,
        most: usize,
        dice: &mut Dice,
        book: &mut Book,
        wrong: &mut Vec<String>,
    ) {
        for slot in 0..BUSY {
            let count = if most == usize::MAX { most } else { dice.below(most as u64) as usize };
            let count = count.min(self.in_hand[slot].len());
            for event in self.in_hand[slot].drain(..count).collect::<Vec<_>>() {
                if !self.division.holds(slot) {
                    wrong.push(format!("{life} handles an event of slot {slot}, which it has not got"));
                }
                if let Some(event) = event {
                    book.handled(life, event, wrong);
                }
            }
        }
    }

    /// Gives up what is drained, draws conclusions and tells others of them; then sends what may be sent.
    pub(crate) fn pump(&mut self, now: Duration, engine: &mut SimEngine, book: &mut Book) {
        let alone = now >= self.begun + ALONE_AFTER;
        if !self.is_settled && (alone || !self.knows.is_empty() && engine.topology().is_settled()) {
            self.is_settled = true;
            self.division.settle();
            self.changed = true;
        }
        let before = self.division.saying();
        let draining = if before.releasing == 0 { 0 } else { self.division.draining() };
        for slot in slots(draining) {
            if self.in_hand.get(slot).is_none_or(VecDeque::is_empty) {
                self.division.drained(slot);
            }
        }
        let tell =
            if std::mem::take(&mut self.changed) || before.releasing != 0 { self.conclude() } else { Vec::new() };
        self.taken.extend(slots(self.division.saying().owned & !(before.owned | before.releasing)));
        for tell in tell {
            let (to, body) = match tell {
                Tell::Saying { to, saying: Saying { version, member, owned, releasing, claiming } } => {
                    (to, message(SAY, &[version, u64::from(member), owned, releasing, claiming]))
                }
                Tell::Note { to, version, agreed } => {
                    let body = message(NOTE, &[version, agreed]);
                    engine.send(now, Lane::High, &[to_node(to)], body.clone().into(), 0, &Keep::default());
                    (to, body)
                }
            };
            engine.send(now, Lane::Normal, &[to_node(to)], body.into(), 0, &Keep::default());
        }
        self.give_up_forsaken(book);
        self.feed();
        for key in self.outboxes.keys().copied().collect::<Vec<_>>() {
            self.send(now, engine, key);
        }
    }

    fn conclude(&mut self) -> Vec<Tell> {
        let tell = self.division.turn();
        self.ways = std::array::from_fn(|slot| self.division.way(slot));
        tell
    }

    /// What waits for a manager that nobody runs any more will not be handled.
    fn give_up_forsaken(&mut self, book: &mut Book) {
        if self.local.is_some() || self.division.has_member() || !self.outboxes.is_empty() {
            return;
        }
        for (returned, published) in self.returned.iter_mut().zip(&mut self.published) {
            for event in std::iter::from_fn(|| returned.take()).chain(published.drain(..)) {
                book.discarded += 1;
                book.excuse(event);
            }
        }
    }

    /// Gives what is for this node to its group.
    fn feed(&mut self) {
        let here: Vec<usize> = (0..BUSY).filter(|slot| self.ways[*slot] == Way::Here).collect();
        if self.local.is_some() {
            for slot in &here {
                let returned = &mut self.returned[*slot];
                let events = std::iter::from_fn(|| returned.take()).chain(self.published[*slot].drain(..));
                self.in_hand[*slot].extend(events.map(Some));
            }
        }
        if self.closing && here.iter().all(|slot| self.waiting(*slot) == 0) {
            (self.local, self.closing) = (None, false);
        }
    }

    fn waiting(&self, slot: usize) -> usize {
        self.returned[slot].len() + self.published[slot].len()
    }

    fn send(&mut self, now: Duration, engine: &mut SimEngine, key: GroupKey) {
        let others = self.outboxes.values().any(|other| !other.withdrawn);
        let Some(outbox) = self.outboxes.get(&key) else { return };
        let (withdrawn, in_flight, Some(life)) = (outbox.withdrawn, outbox.in_flight, outbox.life) else { return };
        let there: Vec<usize> =
            (0..BUSY).filter(|slot| self.ways[*slot] == Way::There(life) && self.waiting(*slot) > 0).collect();
        // One that leaves is sent no more if somebody else can take it.
        let closing = withdrawn && (others || self.runs());
        if there.is_empty() || closing {
            if withdrawn && in_flight == 0 {
                engine.forget_group(key);
                self.outboxes.remove(&key);
            }
            return;
        }
        for slot in there {
            while self.waiting(slot) > 0 && engine.has_room(life, Lane::Normal) {
                let (events, bytes) = engine.credit(key);
                if events == 0 || bytes == 0 {
                    engine.starve(now, key);
                    break;
                }
                let most = (events as usize).min(PACKET_EVENTS).min(self.waiting(slot));
                let next = |_| self.returned[slot].take().or_else(|| self.published[slot].pop_front());
                let events: Vec<u64> = (0..most).filter_map(next).collect();
                let body: Vec<u8> = events.iter().flat_map(|event| event.to_be_bytes()).collect();
                let targets = [Target { node: life, groups: vec![key] }];
                self.outboxes.get_mut(&key).expect("it is there").in_flight += most;
                engine.send(now, Lane::Normal, &targets, Bytes::from(body).into(), most as u32, &Keep::new(events));
            }
        }
    }

    // ---- what the engine says --------------------------------------------------------------------------------------

    pub(crate) fn met(&mut self, node: &NodeName, life: Incarnation) {
        self.knows.insert(life);
        self.division.met(life, node);
        self.changed = true;
    }

    pub(crate) fn reach(&mut self, life: Incarnation, reachable: bool) {
        self.division.reach(life, reachable);
        self.changed = true;
    }

    pub(crate) fn ended(&mut self, here: Incarnation, life: Incarnation, book: &mut Book) {
        self.knows.remove(&life);
        self.division.ended(life);
        self.changed = true;
        if !book.dead.contains(&life) {
            book.parted.insert(pair(here, life));
        }
        for outbox in self.outboxes.values_mut().filter(|outbox| outbox.life == Some(life)) {
            outbox.life = None;
        }
    }

    pub(crate) fn renewed(&mut self, here: Incarnation, life: Incarnation, book: &mut Book) {
        self.division.renew(life);
        self.changed = true;
        book.parted.insert(pair(here, life));
    }

    pub(crate) fn group(&mut self, key: GroupKey, life: Incarnation) {
        let outbox = self.outboxes.entry(key).or_default();
        (outbox.life, outbox.withdrawn) = (Some(life), false);
    }

    /// Whether that is a group of this manager on another node.
    pub(crate) fn has_key(&self, key: GroupKey) -> bool {
        self.outboxes.contains_key(&key)
    }

    pub(crate) fn withdrawn(&mut self, key: GroupKey) {
        self.outboxes.get_mut(&key).expect("it is there").withdrawn = true;
    }

    pub(crate) fn gone(&mut self, key: GroupKey, wrong: &mut Vec<String>) {
        if self.outboxes.remove(&key).is_some_and(|outbox| outbox.in_flight > 0) {
            wrong.push("a group of a keyed manager is gone, but not what was sent there".to_owned());
        }
    }

    /// What was sent to a group was taken, or was not; then it may have been all the same.
    pub(crate) fn settled(&mut self, key: GroupKey, events: &[u64], lost: Option<bool>) {
        self.outboxes.get_mut(&key).expect("it is there").in_flight -= events.len();
        let Some(sent) = lost else { return };
        for event in events {
            self.returned[slot_of(*event)].come_back(if sent { event | MARK } else { *event });
        }
    }

    /// Events came for this node's group.
    pub(crate) fn arrived(&mut self, body: &[u8], redelivered: bool) {
        for bytes in body.chunks(8) {
            let event = u64::from_be_bytes(bytes.try_into().expect("eight"));
            let event = if redelivered { event | MARK } else { event };
            let slot = slot_of(event);
            match self.division.holds(slot) {
                true => self.in_hand[slot].push_back(Some(event)),
                // Another has the key, and gets it.
                false => self.returned[slot].stray(event),
            }
        }
    }

    /// Something came that is about keys and no event. Whether it was that.
    pub(crate) fn heard(
        &mut self,
        (here, from, lane): (Incarnation, Incarnation, Lane),
        body: &[u8],
        book: &Book,
        wrong: &mut Vec<String>,
    ) -> bool {
        let numbers: Vec<u64> =
            body[1..].chunks(8).map(|bytes| u64::from_be_bytes(bytes.try_into().expect("eight"))).collect();
        self.changed = true;
        match (body[0], &numbers[..]) {
            (SAY, &[version, member, owned, releasing, claiming]) => {
                self.division.said(from, Saying { version, member: member == 1, owned, releasing, claiming });
            }
            (NOTE, &[version, agreed]) if lane == Lane::Normal => self.division.noted(from, version, agreed),
            (NOTE, &[version, _]) => self.division.noted_among_requests(from, version),
            (CALL, &[slot]) => {
                let slot = slot as usize;
                if self.division.holds(slot) {
                    self.in_hand[slot].push_back(None);
                } else if !book.parted.contains(&pair(here, from)) {
                    wrong.push(format!("{from} asks {here} for something of slot {slot}, which it has not got"));
                }
            }
            _ => return false,
        }
        true
    }

    // ---- what is so ------------------------------------------------------------------------------------------------

    /// Whether nothing waits here, is under way or in hand.
    pub(crate) fn is_idle(&self) -> bool {
        (0..BUSY).all(|slot| self.waiting(slot) == 0 && self.in_hand[slot].is_empty())
            && self.outboxes.values().all(|outbox| outbox.in_flight == 0)
    }

    /// The slots that this life owns.
    pub(crate) fn owned(&self) -> u64 {
        self.division.saying().owned
    }

    /// Whether this life has a slot, or still has it.
    pub(crate) fn holds(&self, slot: usize) -> bool {
        self.division.holds(slot)
    }
}

impl Book {
    fn handled(&mut self, life: Incarnation, event: u64, wrong: &mut Vec<String>) {
        let (marked, event) = (event & MARK != 0, event & !MARK);
        let number = EventNumber::unpack(event);
        let Some(way) = self.ways.get_mut(&event) else {
            return wrong.push(format!("{number:?} is handled by key and was never published"));
        };
        self.handled += 1;
        if way.handled.is_empty() {
            let last = self.last.entry((number.origin, slot_of(event))).or_default();
            if event < *last && self.parted.is_empty() {
                wrong.push(format!("{number:?} is handled by key after {:?}", EventNumber::unpack(*last)));
            }
            *last = event.max(*last);
        } else {
            self.twice += 1;
            if !marked {
                wrong.push(format!("{number:?} is handled by {life} after {:?} without being marked", way.handled));
            }
        }
        way.handled.push(life);
    }

    fn excuse(&mut self, event: u64) {
        if let Some(way) = self.ways.get_mut(&(event & !MARK)) {
            way.excused = true;
        }
    }

    /// What a life that dies has in its hands is lost with it.
    pub(crate) fn died(&mut self, life: Incarnation, keyed: &Keyed) {
        self.dead.insert(life);
        let waiting = keyed.returned.iter().flat_map(Returned::iter).chain(keyed.published.iter().flatten()).copied();
        let in_hand = keyed.in_hand.iter().flatten().filter_map(|event| *event);
        waiting.chain(in_hand).for_each(|event| self.excuse(event));
    }

    /// Whether each event of a life that goes on was handled: once, where nothing may be lost.
    pub(crate) fn conclude(&self, living: &[u32], may_lose: bool) -> Result<(), String> {
        for (event, way) in &self.ways {
            let number = EventNumber::unpack(*event);
            let ended = !way.handled.is_empty() || way.excused;
            if !ended && living.binary_search(&number.origin).is_ok() {
                return Err(format!("{number:?} was never handled by key: {way:?}"));
            }
            if way.handled.len() > 1 && !may_lose {
                return Err(format!("{number:?} was handled {} times although no node died", way.handled.len()));
            }
        }
        Ok(())
    }
}

fn to_node(node: Incarnation) -> Target {
    Target { node, groups: Vec::new() }
}

fn message(kind: u8, numbers: &[u64]) -> Bytes {
    let mut body = vec![kind];
    body.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    body.into()
}
