//! What stands around an engine in a simulated node: publishers, outboxes, groups with inboxes, requests, tunnels. It does
//! what the driver does, on integers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use edri_connector::engine::{Engine, GroupKey, Output, Target, Why};
use edri_connector::merge::merge;
use edri_connector::topology::{GroupState, Window};
use edri_events::Incarnation;
use edri_protocol::packet::Lane;

use crate::dice::Dice;
use crate::ledger::{EventNumber, Ledger, Place};
use crate::tunnels::Tunnels;

pub type SimEngine = Engine<Keep>;
/// The events of a packet; nothing for what is no event.
pub type Keep = std::sync::Arc<Vec<u64>>;

pub const OUTBOX_MAX: usize = 64;
pub const INBOX_MAX: usize = 16;
pub const WINDOW_EVENTS: u32 = 32;
pub const WINDOW_BYTES: u64 = 4096;
/// How long a requester waits.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(8);

/// The groups that a node may have.
pub const GROUPS: [&str; 4] = ["fast", "slow", "stuck", "risk"];

/// What one life of a node does beside carrying packets.
#[derive(Debug)]
pub struct Host {
    pub life: u32,
    pub node: usize,
    next_event: u32,
    next_call: u64,
    outboxes: BTreeMap<GroupKey, Outbox>,
    pub inboxes: BTreeMap<u32, Inbox>,
    pub calls: BTreeMap<u64, Call>,
    pub tunnels: Tunnels,
    /// Calls of other lives that are answered after a while.
    answers: VecDeque<(Duration, Incarnation, u64)>,
    pub ended: BTreeMap<&'static str, u32>,
}

#[derive(Debug)]
struct Outbox {
    place: Place,
    node: Option<Incarnation>,
    reachable: bool,
    events: VecDeque<u64>,
    withdrawn: bool,
}

#[derive(Debug)]
pub struct Inbox {
    pub name: &'static str,
    queue: VecDeque<u64>,
    /// What has come and has no place yet: whose, events, the bytes of the packet.
    intake: VecDeque<(Incarnation, VecDeque<u64>, u64, bool)>,
    pub handled: u64,
}

/// An open request.
#[derive(Debug)]
pub struct Call {
    to: Incarnation,
    until: Duration,
}

impl Host {
    pub fn new(node: usize, life: u32, groups: &[&'static str]) -> Self {
        let inbox = |name| Inbox { name, queue: VecDeque::new(), intake: VecDeque::new(), handled: 0 };
        Self {
            life,
            node,
            next_event: 0,
            next_call: 0,
            outboxes: BTreeMap::new(),
            inboxes: (1..).zip(groups.iter().map(|name| inbox(*name))).collect(),
            calls: BTreeMap::new(),
            tunnels: Tunnels::default(),
            answers: VecDeque::new(),
            ended: BTreeMap::new(),
        }
    }

    pub fn announce(&self, engine: &mut SimEngine) {
        for (number, inbox) in &self.inboxes {
            engine.set_group(*number, group_state(inbox.name)).expect("few");
        }
        engine.set_settled(true);
    }

    // ---- what users do ---------------------------------------------------------------------------------------------

    /// Publishes an event to every group that is known; where there is no room it is not published.
    pub fn publish(&mut self, ledger: &mut Ledger) {
        self.next_event += 1;
        let event = EventNumber { origin: self.life, number: self.next_event };
        for outbox in self.outboxes.values_mut().filter(|outbox| !outbox.withdrawn && outbox.place.1 != "risk") {
            if outbox.events.len() < OUTBOX_MAX {
                outbox.events.push_back(event.pack());
                ledger.published(event, outbox.place);
            }
        }
    }

    pub fn request(&mut self, now: Duration, engine: &mut SimEngine, dice: &mut Dice) {
        let able: Vec<_> = self
            .outboxes
            .iter()
            .filter(|(_, outbox)| outbox.place.1 == "risk" && outbox.reachable)
            .filter_map(|(key, outbox)| Some((*key, outbox.node?)))
            .filter(|(key, node)| engine.credit(*key).0 > 0 && engine.has_room(*node, Lane::High))
            .collect();
        if able.is_empty() {
            return;
        }
        let (key, node) = able[dice.below(able.len() as u64) as usize];
        self.next_call += 1;
        let body = item(REQUEST, self.next_call);
        self.calls.insert(self.next_call, Call { to: node, until: now + REQUEST_LIMIT });
        engine.send(now, Lane::High, &[Target { node, groups: vec![key] }], &body, 1, &Keep::default());
    }

    pub fn open_tunnel(&mut self, now: Duration, engine: &mut SimEngine, dice: &mut Dice) {
        let able: Vec<_> = self.outboxes.values().filter(|outbox| outbox.reachable).filter_map(|o| o.node).collect();
        if !able.is_empty() {
            self.tunnels.open(now, engine, able[dice.below(able.len() as u64) as usize], dice.between(5, 60));
        }
    }

    /// Handles what waits; how quickly depends on the group.
    pub fn work(&mut self, now: Duration, engine: &mut SimEngine, dice: &mut Dice, healthy: bool) {
        for (number, inbox) in &mut self.inboxes {
            let pace = match inbox.name {
                "fast" | "risk" => 64,
                "slow" => dice.below(3),
                _ if healthy => 64,
                _ => 0,
            };
            for _ in 0..pace {
                inbox.handled += u64::from(inbox.queue.pop_front().is_some());
            }
            inbox.place(now, *number, engine);
        }
        while self.answers.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, to, call)) = self.answers.pop_front() else { break };
            engine.send(
                now,
                Lane::High,
                &[Target { node: to, groups: Vec::new() }],
                &item(RESPONSE, call),
                0,
                &Keep::default(),
            );
        }
        let ended = &mut self.ended;
        self.calls.retain(|_, call| {
            let open = call.until > now;
            if !open {
                *ended.entry("timed out").or_default() += 1;
            }
            open
        });
        self.tunnels.work(now, engine, dice);
    }

    /// Sends what waits in the outboxes, as far as credit and room go.
    pub fn pump(&mut self, now: Duration, engine: &mut SimEngine) {
        loop {
            let mut waiting = Vec::new();
            for (key, outbox) in &mut self.outboxes {
                let Some(node) = outbox.node.filter(|node| engine.has_room(*node, Lane::Normal)) else { continue };
                if outbox.events.is_empty() {
                    if outbox.withdrawn {
                        waiting.push((*key, node, Vec::new()));
                    }
                    continue;
                }
                let (events, bytes) = engine.credit(*key);
                if events == 0 || bytes == 0 {
                    engine.starve(now, *key);
                    continue;
                }
                let batch = outbox.events.len().min(events as usize).min(8);
                waiting.push((*key, node, outbox.events.drain(..batch).collect()));
            }
            if waiting.iter().all(|(_, _, events)| events.is_empty()) {
                return;
            }
            let nodes: BTreeMap<_, _> = waiting.iter().map(|(key, node, _)| (*key, *node)).collect();
            for run in
                merge(waiting.into_iter().map(|(key, _, events)| (key, events)).collect(), |event| *event as usize)
            {
                let mut targets: Vec<Target> = Vec::new();
                for key in &run.groups {
                    match targets.iter_mut().find(|target| target.node == nodes[key]) {
                        Some(target) => target.groups.push(*key),
                        None => targets.push(Target { node: nodes[key], groups: vec![*key] }),
                    }
                }
                let body: Vec<u8> = run.items.iter().flat_map(|event| event.to_be_bytes()).collect();
                let events = run.items.len() as u32;
                engine.send(now, Lane::Normal, &targets, &Bytes::from(body), events, &Keep::new(run.items));
            }
        }
    }

    // ---- what the engine says --------------------------------------------------------------------------------------

    /// Takes what is not for a link.
    pub fn take(
        &mut self,
        now: Duration,
        engine: &mut SimEngine,
        output: Output<Keep>,
        ledger: &mut Ledger,
        dice: &mut Dice,
    ) {
        match output {
            Output::Deliver { from, lane, groups, body, redelivered, .. } => {
                self.deliver(now, engine, (from, lane, groups, body, redelivered), ledger, dice);
            }
            Output::Confirmed { groups, keep, .. } => {
                for place in groups.iter().filter_map(|key| self.outboxes.get(key)).map(|outbox| outbox.place) {
                    keep.iter().for_each(|event| ledger.confirmed(EventNumber::unpack(*event), place));
                }
            }
            Output::Lost { groups, keep, sent, .. } => {
                for place in groups.iter().filter_map(|key| self.outboxes.get(key)).map(|outbox| outbox.place) {
                    keep.iter().for_each(|event| ledger.lost(EventNumber::unpack(*event), place, sent));
                }
            }
            Output::Group { key, node, incarnation, state } => {
                let place = place_of(node.as_str(), &state.name);
                let outbox = self.outboxes.entry(key).or_insert_with(|| Outbox {
                    place,
                    node: None,
                    reachable: false,
                    events: VecDeque::new(),
                    withdrawn: false,
                });
                outbox.node = Some(incarnation);
                outbox.reachable = engine.topology().next_hop(incarnation).is_some();
                outbox.withdrawn = false;
            }
            Output::Reach { node, status } => {
                for outbox in self.outboxes.values_mut().filter(|outbox| outbox.node == Some(node)) {
                    outbox.reachable = status.reachable;
                }
            }
            Output::Withdrawn { key } => {
                if let Some(outbox) = self.outboxes.get_mut(&key) {
                    outbox.withdrawn = true;
                }
            }
            Output::Gone { key, .. } => {
                if let Some(outbox) = self.outboxes.remove(&key) {
                    for event in outbox.events {
                        ledger.lost(EventNumber::unpack(event), outbox.place, false);
                    }
                }
            }
            Output::Ended { incarnation, why, .. } => {
                for outbox in self.outboxes.values_mut().filter(|outbox| outbox.node == Some(incarnation)) {
                    outbox.node = None;
                    outbox.reachable = false;
                }
                self.lose_calls(incarnation);
                self.tunnels.peer_lost(engine, incarnation);
                let _: Why = why;
            }
            Output::Forgotten { node } => {
                self.lose_calls(node);
                self.tunnels.peer_lost(engine, node);
            }
            Output::Refused { why, .. } => ledger.wrong.push(format!("refused: {why}")),
            Output::Twin { other } => ledger.wrong.push(format!("a twin {other} where there is none")),
            Output::Met { .. } | Output::Synced { .. } | Output::Alive { .. } => {}
            Output::Control { .. } | Output::Packet { .. } => unreachable!("these are for links"),
        }
    }

    fn lose_calls(&mut self, incarnation: Incarnation) {
        let ended = &mut self.ended;
        self.calls.retain(|_, call| {
            let open = call.to != incarnation;
            if !open {
                *ended.entry("peer lost").or_default() += 1;
            }
            open
        });
    }

    fn deliver(
        &mut self,
        now: Duration,
        engine: &mut SimEngine,
        (from, lane, groups, body, redelivered): (Incarnation, Lane, Vec<u32>, Bytes, bool),
        ledger: &mut Ledger,
        dice: &mut Dice,
    ) {
        match lane {
            Lane::Normal => {
                let events: VecDeque<u64> =
                    body.chunks(8).map(|bytes| u64::from_be_bytes(bytes.try_into().expect("eight"))).collect();
                for number in groups {
                    let Some(inbox) = self.inboxes.get_mut(&number) else {
                        ledger.wrong.push(format!("there is no group {number}"));
                        continue;
                    };
                    for event in &events {
                        let life = engine_life(engine);
                        ledger.arrived(EventNumber::unpack(*event), (self.node, inbox.name), life, redelivered);
                    }
                    inbox.intake.push_back((from, events.clone(), body.len() as u64, redelivered));
                    let waiting: usize =
                        inbox.intake.iter().filter(|(of, ..)| *of == from).map(|(_, e, ..)| e.len()).sum();
                    if waiting > WINDOW_EVENTS as usize + 8 {
                        ledger.wrong.push(format!("{waiting} events of {from} wait at {}", inbox.name));
                    }
                    inbox.place(now, number, engine);
                }
            }
            Lane::High => {
                let call = u64::from_be_bytes(body[1..9].try_into().expect("eight"));
                match body[0] {
                    REQUEST => {
                        for number in groups {
                            engine.placed(now, from, number, 1, body.len() as u64);
                        }
                        self.answers.push_back((now + dice.ms(0, 50), from, call));
                    }
                    _ => {
                        if self.calls.remove(&call).is_some() {
                            *self.ended.entry("answered").or_default() += 1;
                        }
                    }
                }
            }
            Lane::Up(_) | Lane::Down(_) => self.tunnels.receive(now, engine, from, lane, &body, ledger),
        }
    }

    /// Whether nothing waits, in no outbox that can be sent.
    pub fn backlog(&self) -> Vec<(Place, usize)> {
        self.outboxes.values().filter(|o| !o.events.is_empty()).map(|o| (o.place, o.events.len())).collect()
    }

    /// The groups that are known of lives that can be reached.
    pub fn known(&self) -> Vec<Place> {
        self.outboxes.values().filter(|outbox| outbox.reachable).map(|outbox| outbox.place).collect()
    }

    pub fn intake(&self) -> usize {
        self.inboxes.values().map(|inbox| inbox.intake.len()).sum()
    }

    pub fn outbox_of(&self, place: Place) -> bool {
        self.outboxes.values().any(|outbox| outbox.place == place)
    }
}

impl Inbox {
    fn place(&mut self, now: Duration, number: u32, engine: &mut SimEngine) {
        while let Some((from, events, bytes, _)) = self.intake.front_mut() {
            let mut placed = 0;
            while self.queue.len() < INBOX_MAX
                && let Some(event) = events.pop_front()
            {
                self.queue.push_back(event);
                placed += 1;
            }
            let done = events.is_empty();
            engine.placed(now, *from, number, placed, if done { *bytes } else { 0 });
            if !done {
                return;
            }
            self.intake.pop_front();
        }
    }
}

const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;

fn item(kind: u8, number: u64) -> Bytes {
    let mut body = vec![kind];
    body.extend(number.to_be_bytes());
    body.into()
}

pub fn engine_life(engine: &SimEngine) -> Incarnation {
    engine.incarnation()
}

pub fn group_state(name: &str) -> GroupState {
    let window = Window { events: WINDOW_EVENTS, bytes: WINDOW_BYTES };
    GroupState { name: name.to_owned(), window, ..GroupState::default() }
}

pub fn place_of(node: &str, group: &str) -> Place {
    let node = node.trim_start_matches('n').parse().expect("a simulated node's name");
    (node, GROUPS.into_iter().find(|name| *name == group).expect("a group of the simulation"))
}
