//! Many lives under one seed: what they say to each other is late, and events travel between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;

use super::super::*;
use super::life;

/// The slots that events are published in; all are divided.
const BUSY: usize = 6;
const NODES: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    publisher: u64,
    number: u64,
    slot: usize,
    /// It has a lane of its own, and no order.
    request: bool,
}

#[derive(Debug)]
enum Message {
    Event(Event),
    Tell(Tell),
}

/// One life of a node.
#[derive(Debug)]
struct Host {
    division: Division,
    node: NodeName,
    knows: BTreeSet<u64>,
    /// What its publishers have published and was not sent.
    backlog: Vec<VecDeque<Event>>,
    in_hand: Vec<VecDeque<Event>>,
    published: u64,
}

/// What a world does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// Lives come, leave, die and cannot be reached for a while.
    Honest,
    /// Three lives begin and end to run the manager all the time.
    Restless,
    /// Lives also give each other up that are well, and meet again.
    GivenUp,
}

struct World {
    rng: Rng,
    faults: Faults,
    hosts: BTreeMap<u64, Host>,
    /// Between two lives: the lane of events, and that of requests.
    lanes: BTreeMap<(u64, u64), [VecDeque<Message>; 2]>,
    /// Those that are dead, and who has not seen it.
    unseen: BTreeMap<u64, BTreeSet<u64>>,
    cut: BTreeSet<(u64, u64)>,
    lives: u64,
    handled: BTreeMap<(u64, usize), Vec<u64>>,
    published: BTreeMap<(u64, usize), u64>,
    /// Publishers that died: what they had not sent is lost.
    dead: BTreeSet<u64>,
    /// Some life that had events in its hands has died, or lives gave each other up.
    may_repeat: bool,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut world = Self {
            rng: Rng::with_seed(seed),
            faults,
            hosts: BTreeMap::new(),
            lanes: BTreeMap::new(),
            unseen: BTreeMap::new(),
            cut: BTreeSet::new(),
            lives: 0,
            handled: BTreeMap::new(),
            published: BTreeMap::new(),
            dead: BTreeSet::new(),
            may_repeat: false,
        };
        (0..3).for_each(|node| world.come(node));
        world
    }

    /// A new life of a node, which knows nobody yet.
    fn come(&mut self, node: usize) {
        let name = NodeName::new(&format!("n{node}")).expect("a name");
        if self.hosts.values().any(|host| host.node == name) {
            return;
        }
        self.lives += 1;
        let mut division = Division::new("orders", &name, life(self.lives));
        division.set_member(self.rng.u8(..4) > 0);
        let lines = || (0..BUSY).map(|_| VecDeque::new()).collect();
        let host =
            Host { division, node: name, knows: BTreeSet::new(), backlog: lines(), in_hand: lines(), published: 0 };
        self.hosts.insert(self.lives, host);
    }

    fn any(&mut self) -> Option<u64> {
        let lives: Vec<_> = self.hosts.keys().copied().collect();
        self.rng.choice(lives)
    }

    /// One life gets to know another, or finds out that it is dead.
    fn learn(&mut self, who: u64, of: u64) {
        if who == of || !self.hosts.contains_key(&who) {
            return;
        }
        if self.unseen.get_mut(&of).is_some_and(|unseen| unseen.remove(&who)) {
            return self.give_up(who, of);
        }
        let Some(other) = self.hosts.get(&of).map(|host| host.node.clone()) else { return };
        let living: BTreeSet<u64> = self.hosts.keys().copied().filter(|number| *number != who).collect();
        let Some(host) = self.hosts.get_mut(&who) else { return };
        if host.knows.insert(of) {
            host.division.met(life(of), &other);
            host.division.reach(life(of), !self.cut.contains(&(who.min(of), who.max(of))));
        }
        // It claims nothing before it knows those that were there.
        if host.knows.is_superset(&living) {
            host.division.settle();
        }
    }

    /// What one had sent to another and was not taken goes back before everything else.
    fn give_up(&mut self, who: u64, of: u64) {
        let Some(host) = self.hosts.get_mut(&who) else { return };
        if !host.knows.remove(&of) {
            return;
        }
        host.division.ended(life(of));
        let lanes = self.lanes.remove(&(who, of)).unwrap_or_default();
        let [events, _] = lanes;
        for message in events.into_iter().rev() {
            if let Message::Event(event) = message {
                host.backlog[event.slot].push_front(event);
            }
        }
    }

    fn die(&mut self, who: u64) {
        let Some(host) = self.hosts.remove(&who) else { return };
        self.may_repeat |= host.in_hand.iter().any(|line| !line.is_empty());
        // Taken over and not handled: lost with it.
        for event in host.in_hand.iter().flatten().filter(|event| !event.request) {
            self.handled.entry((event.publisher, event.slot)).or_default().push(event.number);
        }
        self.dead.insert(who);
        self.unseen.insert(who, host.knows.clone());
        for (_, other) in self.hosts.iter_mut().filter(|(_, other)| !other.knows.contains(&who)) {
            other.division.ended(life(who));
        }
        let knowing = self.hosts.iter().filter(|(_, other)| other.knows.contains(&who)).map(|(number, _)| *number);
        self.unseen.insert(who, knowing.collect());
    }

    fn step(&mut self) {
        let Some(who) = self.any() else { return };
        let what = match (self.faults, self.rng.u8(..100)) {
            (Faults::Restless, 0..5) => 2,
            (_, what) => what,
        };
        match what {
            0 => {
                let node = self.rng.usize(..NODES);
                self.come(node);
            }
            1 if self.rng.u8(..4) == 0 => self.die(who),
            2 => {
                let member = self.rng.bool();
                self.hosts.get_mut(&who).expect("it lives").division.set_member(member);
            }
            3 => {
                let other = self.any().unwrap_or(who);
                let pair = (who.min(other), who.max(other));
                if other != who && !self.cut.remove(&pair) {
                    self.cut.insert(pair);
                }
                self.show_cuts();
            }
            4 if self.faults == Faults::GivenUp => {
                let other = self.any().unwrap_or(who);
                if other != who {
                    self.may_repeat = true;
                    self.give_up(who, other);
                    self.give_up(other, who);
                }
            }
            5..12 => {
                let of = 1 + self.rng.u64(..self.lives);
                self.learn(who, of);
            }
            12..30 => self.publish(who),
            30..45 => self.pump(who),
            45..55 => self.handle(who),
            _ => self.carry(),
        }
        self.turn_all();
        self.check();
    }

    fn show_cuts(&mut self) {
        let cut = &self.cut;
        for (number, host) in &mut self.hosts {
            for other in &host.knows {
                host.division.reach(life(*other), !cut.contains(&((*number).min(*other), (*number).max(*other))));
            }
        }
    }

    fn publish(&mut self, who: u64) {
        let slot = self.rng.usize(..BUSY);
        let request = self.rng.u8(..4) == 0;
        let number = self.published.entry((who, slot)).or_default();
        *number += u64::from(!request);
        let event = Event { publisher: who, number: *number, slot, request };
        let host = self.hosts.get_mut(&who).expect("it lives");
        host.published += 1;
        host.backlog[slot].push_back(event);
    }

    /// Sends what may be sent.
    fn pump(&mut self, who: u64) {
        let host = self.hosts.get_mut(&who).expect("it lives");
        for slot in 0..BUSY {
            match host.division.way(slot) {
                Way::Nowhere => {}
                Way::Here => {
                    assert!(host.division.holds(slot));
                    host.in_hand[slot].append(&mut host.backlog[slot]);
                }
                Way::There(to) => {
                    let lanes = self.lanes.entry((who, to.get())).or_default();
                    for event in host.backlog[slot].drain(..) {
                        lanes[usize::from(event.request)].push_back(Message::Event(event));
                    }
                }
            }
        }
    }

    fn handle(&mut self, who: u64) {
        let slot = self.rng.usize(..BUSY);
        let host = self.hosts.get_mut(&who).expect("it lives");
        if let Some(event) = host.in_hand[slot].pop_front().filter(|event| !event.request) {
            self.handled.entry((event.publisher, slot)).or_default().push(event.number);
        }
    }

    /// Takes one message over one lane.
    fn carry(&mut self) {
        let pairs: Vec<_> = self.lanes.iter().filter(|(_, lanes)| lanes.iter().any(|lane| !lane.is_empty())).collect();
        let pairs: Vec<_> = pairs.into_iter().map(|(pair, _)| *pair).collect();
        let Some((from, to)) = self.rng.choice(pairs) else { return };
        self.carry_one(from, to);
    }

    fn carry_one(&mut self, from: u64, to: u64) {
        let cut = self.cut.contains(&(from.min(to), from.max(to)));
        let Some(host) = self.hosts.get_mut(&to).filter(|host| host.knows.contains(&from) && !cut) else { return };
        let lanes = self.lanes.get_mut(&(from, to)).expect("it was found");
        // Requests are late, so that notes would overtake them.
        let lane = usize::from(self.rng.u8(..8) == 0);
        let Some(message) = lanes[lane].pop_front() else { return };
        match message {
            Message::Event(event) => {
                // This is what the notes are for.
                assert!(host.division.holds(event.slot), "{event:?} came to {to}, which has not got its slot");
                host.in_hand[event.slot].push_back(event);
            }
            Message::Tell(Tell::Saying { saying, .. }) => host.division.said(life(from), saying),
            Message::Tell(Tell::Note { version, agreed, .. }) if lane == 0 => {
                host.division.noted(life(from), version, agreed);
            }
            Message::Tell(Tell::Note { version, .. }) => host.division.noted_among_requests(life(from), version),
        }
    }

    fn turn_all(&mut self) {
        for (number, host) in &mut self.hosts {
            for slot in slots(host.division.draining()) {
                if host.in_hand.get(slot).is_none_or(VecDeque::is_empty) {
                    host.division.drained(slot);
                }
            }
            for tell in host.division.turn() {
                let (Tell::Saying { to, .. } | Tell::Note { to, .. }) = tell;
                let lanes = self.lanes.entry((*number, to.get())).or_default();
                lanes[0].push_back(Message::Tell(tell));
                if matches!(tell, Tell::Note { .. }) {
                    lanes[1].push_back(Message::Tell(tell));
                }
            }
        }
    }

    fn check(&self) {
        if self.faults != Faults::GivenUp {
            for slot in 0..SLOTS {
                let holders: Vec<_> =
                    self.hosts.iter().filter(|(_, host)| host.division.holds(slot)).map(|(life, _)| *life).collect();
                assert!(holders.len() <= 1, "slot {slot} is with {holders:?} at a time");
                let busy = |host: &Host| host.in_hand.get(slot).is_some_and(|line| !line.is_empty());
                let at_work = self.hosts.values().filter(|host| busy(host)).count();
                assert!(at_work <= 1, "slot {slot} is handled in two places at a time");
            }
        }
    }

    /// No more faults: everything comes to rest, each slot is with whom it is to be, and everything is handled.
    fn settle(&mut self) {
        self.cut.clear();
        let all: Vec<u64> = self.hosts.keys().copied().collect();
        let Some(first) = all.first() else { return };
        self.hosts.get_mut(first).expect("it lives").division.set_member(true);
        for who in &all {
            (1..=self.lives).for_each(|of| self.learn(*who, of));
            self.hosts.get_mut(who).expect("it lives").division.settle();
        }
        self.show_cuts();
        for _ in 0..2000 {
            all.iter().for_each(|who| {
                self.pump(*who);
                (0..BUSY).for_each(|_| self.handle(*who));
            });
            self.turn_all();
            for pair in self.lanes.keys().copied().collect::<Vec<_>>() {
                (0..4).for_each(|_| self.carry_one(pair.0, pair.1));
            }
            self.turn_all();
            self.check();
        }
        for slot in 0..SLOTS {
            let owners = self.hosts.values().filter(|host| host.division.saying().owned & 1 << slot != 0);
            let owners: Vec<_> = owners.map(|host| host.division.life).collect();
            assert_eq!(owners.len(), 1, "slot {slot} is owned by {owners:?}");
            assert_eq!(self.hosts[first].division.rightful(slot), Some(owners[0]), "slot {slot}");
        }
        for ((publisher, slot), published) in &self.published {
            let handled = self.handled.get(&(*publisher, *slot)).cloned().unwrap_or_default();
            let mut seen = 0;
            for number in &handled {
                if !self.may_repeat {
                    assert_eq!(*number, seen + 1, "publisher {publisher}, slot {slot}: {handled:?}");
                }
                seen = seen.max(*number);
            }
            if !self.dead.contains(publisher) {
                let all: BTreeSet<u64> = handled.iter().copied().collect();
                assert_eq!(all, (1..=*published).collect(), "publisher {publisher}, slot {slot}");
            }
        }
    }
}

/// `EDRI_SEEDS=N` runs so many.
fn run(faults: Faults) {
    let seeds = std::env::var("EDRI_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60_u64);
    for seed in 0..seeds {
        let ran = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, faults);
            (0..3000).for_each(|_| world.step());
            world.settle();
        });
        assert!(ran.is_ok(), "seed {seed}");
    }
}

#[test]
fn no_two_lives_have_a_slot_at_a_time_and_all_is_handled_in_order_whoever_comes_leaves_and_dies() {
    run(Faults::Honest);
    run(Faults::Restless);
}

#[test]
fn lives_that_had_given_each_other_up_agree_when_they_meet_again_and_nothing_is_lost() {
    run(Faults::GivenUp);
}
