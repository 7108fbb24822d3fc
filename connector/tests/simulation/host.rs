//! What stands around an engine in a simulated node: publishers, outboxes, groups with inboxes, requests, tunnels. It does
//! what the driver does, on integers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use edri_connector::engine::{Engine, GroupKey, Output, Source, Target, Why};
use edri_connector::limits::{GROUP_AHEAD, GROUP_AHEAD_EVENTS_MAX};
use edri_connector::merge::merge;
use edri_connector::topology::{GroupState, Window};
use edri_events::{Incarnation, NodeName};
use edri_protocol::packet::Lane;

use crate::dice::Dice;
use crate::keyed::{BUSY, CLERK, Keyed};
use crate::ledger::{EventNumber, Ledger, Place};
use crate::tunnels::Tunnels;

pub(crate) type SimEngine = Engine<Keep>;
/// The events of a packet; nothing for what is no event.
pub(crate) type Keep = std::sync::Arc<Vec<u64>>;

pub(crate) const OUTBOX_MAX: usize = 64;
pub(crate) const INBOX_MAX: usize = 16;
/// The most events of one packet.
pub(crate) const PACKET_EVENTS: usize = 8;
/// How long a requester waits.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(8);

/// How long a group of a node that has begun another life is waited for.
pub(crate) const RETURN_GRACE: Duration = Duration::from_secs(5);

/// The groups that a node may have.
pub(crate) const GROUPS: [&str; 4] = ["fast", "slow", "stuck", "risk"];

/// What one life of a node does beside carrying packets.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) life: u32,
    pub(crate) node: usize,
    next_event: u32,
    next_call: u64,
    outboxes: BTreeMap<GroupKey, Outbox>,
    pub(crate) inboxes: BTreeMap<u32, Inbox>,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) tunnels: Tunnels,
    /// Nothing where there is no keyed shared manager.
    pub(crate) keyed: Option<Keyed>,
    /// Calls of other lives that are answered after a while.
    answers: VecDeque<(Duration, Incarnation, u64)>,
    pub(crate) ended: BTreeMap<&'static str, u32>,
    /// What each group grants.
    window: Window,
    next_group: u32,
    /// Takes no new work: the node is about to go.
    pub(crate) going: bool,
    /// Since when lives cannot be reached, and how long that may last.
    unreachable: BTreeMap<Incarnation, Duration>,
    expiry: Duration,
    /// Nodes that have said that they go.
    pub(crate) left: BTreeSet<NodeName>,
    /// Groups in whose place others are, and that are to be withdrawn.
    replaced: Vec<u32>,
    /// How often the engine was told that something was placed.
    pub(crate) placed: u64,
}

#[derive(Debug)]
struct Outbox {
    place: Place,
    node: Option<Incarnation>,
    reachable: bool,
    events: VecDeque<u64>,
    /// Sent and neither confirmed nor lost.
    in_flight: usize,
    withdrawn: bool,
    /// When its node's life ended, until it is back.
    left: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) name: &'static str,
    queue: VecDeque<u64>,
    /// What has come and has no place yet: whose, events, the bytes of the packet.
    intake: VecDeque<(Source, VecDeque<u64>, u64, bool)>,
    paces: Vec<Pace>,
    /// It takes only what is still under way to it.
    withdrawn: bool,
}

/// What was placed of one source within [`GROUP_AHEAD`], and the most that ever was.
#[derive(Debug)]
struct Pace {
    of: Source,
    lately: VecDeque<(Duration, u64)>,
    most: u64,
}

/// An open request.
#[derive(Debug)]
pub(crate) struct Call {
    to: Incarnation,
    until: Duration,
}

impl Host {
    pub(crate) fn new(node: usize, life: u32, groups: &[&'static str], window: Window, expiry: Duration) -> Self {
        Self {
            life,
            node,
            next_event: 0,
            next_call: 0,
            outboxes: BTreeMap::new(),
            inboxes: (1..).zip(groups.iter().map(|name| Inbox::new(name))).collect(),
            calls: BTreeMap::new(),
            tunnels: Tunnels::default(),
            keyed: None,
            answers: VecDeque::new(),
            ended: BTreeMap::new(),
            window,
            next_group: groups.len() as u32,
            going: false,
            unreachable: BTreeMap::new(),
            expiry,
            left: BTreeSet::new(),
            replaced: Vec::new(),
            placed: 0,
        }
    }

    pub(crate) fn announce(&self, engine: &mut SimEngine) {
        for (number, inbox) in &self.inboxes {
            engine.set_group(*number, self.group_state(inbox.name)).expect("few");
        }
        engine.set_settled(true);
    }

    fn group_state(&self, name: &str) -> GroupState {
        GroupState { name: name.to_owned(), window: self.window, ..GroupState::default() }
    }

    /// The names of the groups that take new events.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &'static str> {
        self.inboxes.values().filter(|inbox| !inbox.withdrawn).map(|inbox| inbox.name)
    }

    /// Another group of the same name takes the place of one; which of the two is told of first differs.
    pub(crate) fn replace_group(&mut self, engine: &mut SimEngine, dice: &mut Dice) {
        let living: Vec<u32> = self.inboxes.iter().filter(|(_, i)| !i.withdrawn).map(|(number, _)| *number).collect();
        if living.is_empty() || self.going {
            return;
        }
        let old = living[dice.below(living.len() as u64) as usize];
        let name = self.inboxes[&old].name;
        self.next_group += 1;
        let early = dice.chance(500);
        if early {
            engine.withdraw_group(old);
        }
        engine.set_group(self.next_group, self.group_state(name)).expect("few");
        self.inboxes.get_mut(&old).expect("it is there").withdrawn = true;
        self.inboxes.insert(self.next_group, Inbox::new(name));
        if !early && dice.chance(500) {
            // Both are there for a while, and the old one says something once more.
            let state = GroupState { answers: true, ..self.group_state(name) };
            engine.set_group(old, state).expect("few");
            self.replaced.push(old);
        } else if !early {
            engine.withdraw_group(old);
        }
    }

    /// Takes no new work and withdraws its groups.
    pub(crate) fn wind_up(&mut self, engine: &mut SimEngine) {
        self.going = true;
        if let Some(keyed) = &mut self.keyed {
            keyed.leave(engine);
        }
        for (number, inbox) in &mut self.inboxes {
            inbox.withdrawn = true;
            engine.withdraw_group(*number);
        }
    }

    /// Whether nothing is between this host and a place, or all others if none is named.
    pub(crate) fn has_flushed(&self, node: Option<usize>) -> bool {
        let concerned = |outbox: &&Outbox| node.is_none_or(|node| outbox.place.0 == node);
        self.outboxes.values().filter(concerned).all(|outbox| outbox.events.is_empty() && outbox.in_flight == 0)
    }

    // ---- what users do ---------------------------------------------------------------------------------------------

    /// Publishes an event to every group that is known; where there is no room it is not published.
    pub(crate) fn publish(&mut self, now: Duration, ledger: &mut Ledger) {
        self.next_event += 1;
        let event = EventNumber { origin: self.life, number: self.next_event };
        for outbox in self.outboxes.values_mut().filter(|outbox| !outbox.withdrawn && outbox.place.1 != "risk") {
            if outbox.events.len() < OUTBOX_MAX {
                outbox.events.push_back(event.pack());
                ledger.published(now, event, outbox.place);
            }
        }
    }

    pub(crate) fn request(&mut self, now: Duration, engine: &mut SimEngine, dice: &mut Dice) {
        let able: Vec<_> = self
            .outboxes
            .iter()
            .filter(|(_, outbox)| outbox.place.1 == "risk" && outbox.reachable && !outbox.withdrawn)
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
        engine.send(now, Lane::High, &[Target { node, groups: vec![key] }], body.into(), 1, &Keep::default());
    }

    pub(crate) fn open_tunnel(&mut self, now: Duration, engine: &mut SimEngine, dice: &mut Dice) {
        let able: Vec<_> = self.outboxes.values().filter(|outbox| outbox.reachable).filter_map(|o| o.node).collect();
        if !able.is_empty() {
            self.tunnels.open(now, engine, able[dice.below(able.len() as u64) as usize], dice.between(5, 60));
        }
    }

    /// Begins to run the keyed manager, or ends to.
    pub(crate) fn join_or_leave(&mut self, engine: &mut SimEngine) {
        let window = self.window;
        let Some(keyed) = self.keyed.as_mut().filter(|_| !self.going) else { return };
        if keyed.runs() {
            keyed.leave(engine);
        } else {
            self.next_group += 1;
            keyed.join(engine, self.next_group, window);
        }
    }

    /// Publishes an event with a key, or asks for something with one.
    pub(crate) fn use_key(&mut self, now: Duration, engine: &mut SimEngine, ledger: &mut Ledger, dice: &mut Dice) {
        let Some(keyed) = &mut self.keyed else { return };
        if dice.chance(200) {
            return keyed.request(now, engine, dice.below(BUSY as u64) as usize);
        }
        self.next_event += 1;
        keyed.publish(EventNumber { origin: self.life, number: self.next_event }, &mut ledger.keyed);
    }

    /// Handles what waits; how quickly depends on the group.
    pub(crate) fn work(
        &mut self,
        now: Duration,
        engine: &mut SimEngine,
        dice: &mut Dice,
        healthy: bool,
        ledger: &mut Ledger,
    ) {
        self.forget_withdrawn(engine);
        if self.going || healthy || dice.chance(100) {
            self.replaced.drain(..).for_each(|number| engine.withdraw_group(number));
        }
        if let Some(keyed) = &mut self.keyed {
            let most = if healthy || self.going { usize::MAX } else { 4 };
            keyed.work(engine_life(engine), most, dice, &mut ledger.keyed, &mut ledger.wrong);
        }
        for (number, inbox) in &mut self.inboxes {
            let pace = match inbox.name {
                "fast" | "risk" => usize::MAX,
                _ if healthy || self.going => usize::MAX,
                "slow" => dice.below(6) as usize,
                _ => 0,
            };
            inbox.queue.drain(..pace.min(inbox.queue.len()));
            self.placed += inbox.place(now, *number, engine);
        }
        while self.answers.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, to, call)) = self.answers.pop_front() else { break };
            engine.send(
                now,
                Lane::High,
                &[Target { node: to, groups: Vec::new() }],
                item(RESPONSE, call).into(),
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
    pub(crate) fn pump(&mut self, now: Duration, engine: &mut SimEngine, ledger: &mut Ledger) {
        if let Some(keyed) = &mut self.keyed {
            keyed.pump(now, engine, &mut ledger.keyed);
        }
        loop {
            let mut waiting = Vec::new();
            for (key, outbox) in &mut self.outboxes {
                let Some(node) = outbox.node.filter(|node| engine.has_room(*node, Lane::Normal)) else { continue };
                if outbox.events.is_empty() {
                    continue;
                }
                let (events, bytes) = engine.credit(*key);
                if events == 0 || bytes == 0 {
                    engine.starve(now, *key);
                    continue;
                }
                let batch = outbox.events.len().min(events as usize).min(PACKET_EVENTS);
                outbox.in_flight += batch;
                for event in outbox.events.range(..batch) {
                    ledger.written(now, EventNumber::unpack(*event), outbox.place);
                }
                waiting.push((*key, node, outbox.events.drain(..batch).collect()));
            }
            if waiting.is_empty() {
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
                engine.send(now, Lane::Normal, &targets, Bytes::from(body).into(), events, &Keep::new(run.items));
            }
        }
    }

    // ---- what the engine says --------------------------------------------------------------------------------------

    /// Takes what is not for a link.
    pub(crate) fn take(
        &mut self,
        now: Duration,
        engine: &mut SimEngine,
        output: Output<Keep>,
        ledger: &mut Ledger,
        dice: &mut Dice,
    ) {
        let Some(output) = self.take_keyed(engine_life(engine), output, ledger) else { return };
        match output {
            Output::Deliver { from, lane, groups, body, redelivered, .. } => {
                self.deliver(now, engine, (from, lane, groups, body, redelivered), ledger, dice);
            }
            Output::Confirmed { groups, keep, .. } => {
                for place in self.settled(&groups, keep.len(), ledger) {
                    keep.iter().for_each(|event| ledger.confirmed(EventNumber::unpack(*event), place));
                }
            }
            Output::Lost { groups, keep, sent, .. } => {
                for place in self.settled(&groups, keep.len(), ledger) {
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
                    in_flight: 0,
                    withdrawn: false,
                    left: None,
                });
                outbox.node = Some(incarnation);
                outbox.left = None;
                outbox.reachable = engine.topology().next_hop(incarnation).is_some();
                outbox.withdrawn = false;
            }
            Output::Reach { node, status } => {
                match status.reachable {
                    true => drop(self.unreachable.remove(&node)),
                    false => drop(self.unreachable.entry(node).or_insert(now)),
                }
                for outbox in self.outboxes.values_mut().filter(|outbox| outbox.node == Some(node)) {
                    outbox.reachable = status.reachable;
                }
            }
            Output::Withdrawn { key, .. } => {
                if let Some(outbox) = self.outboxes.get_mut(&key) {
                    outbox.withdrawn = true;
                }
            }
            Output::Gone { key, why } => {
                if let Some(outbox) = self.outboxes.remove(&key) {
                    if outbox.in_flight > 0 {
                        ledger.wrong.push(format!("{:?} is gone, but not what was sent there", outbox.place));
                    }
                    // A group of a node that has begun another life is waited for.
                    let waited = outbox.left.map(|left| now - left);
                    if why == Why::NoGroup && waited.is_some_and(|waited| waited < RETURN_GRACE) {
                        ledger.wrong.push(format!("{:?} is given up after {waited:?}", outbox.place));
                    }
                    for event in outbox.events {
                        ledger.lost(EventNumber::unpack(event), outbox.place, false);
                    }
                }
            }
            Output::Ended { node, incarnation, why } => {
                ledger.gave_up(engine_life(engine), incarnation);
                let since = self.unreachable.remove(&incarnation);
                if why == Why::Expired && since.is_none_or(|since| now - since < self.expiry) {
                    ledger.wrong.push(format!("{node} is given up at {now:?}, out of reach since {since:?}"));
                }
                if why == Why::Left {
                    self.left.insert(node);
                }
                for outbox in self.outboxes.values_mut().filter(|outbox| outbox.node == Some(incarnation)) {
                    outbox.left = Some(now).filter(|_| why == Why::Restarted);
                    outbox.node = None;
                    outbox.reachable = false;
                }
                self.lose_calls(incarnation);
                self.tunnels.peer_lost(now, engine, incarnation);
                self.answers.retain(|(_, to, _)| *to != incarnation);
                *self.ended.entry(if why == Why::Left { "left" } else { "ended" }).or_default() += 1;
            }
            Output::Forgotten { node } => {
                self.lose_calls(node);
                self.tunnels.peer_lost(now, engine, node);
                ledger.renewed(engine_life(engine), node);
            }
            Output::Refused { why, .. } => ledger.wrong.push(format!("refused: {why}")),
            Output::Twin { other } => ledger.wrong.push(format!("a twin {other} where there is none")),
            Output::Met { .. } | Output::Synced { .. } | Output::Alive { .. } | Output::Superseded { .. } => {}
            Output::Control { .. } | Output::Packet { .. } => unreachable!("these are for links"),
        }
    }

    /// Takes what concerns the keyed manager alone, and looks at what concerns it too.
    fn take_keyed(&mut self, here: Incarnation, output: Output<Keep>, ledger: &mut Ledger) -> Option<Output<Keep>> {
        let Some(keyed) = &mut self.keyed else {
            return Some(output).filter(|output| !matches!(output, Output::Group { state, .. } if state.name == CLERK));
        };
        let mine = |groups: &[GroupKey]| groups.first().copied().filter(|key| keyed.has_key(*key));
        match &output {
            Output::Confirmed { groups, keep, .. } if mine(groups).is_some() => keyed.settled(groups[0], keep, None),
            Output::Lost { groups, keep, sent, .. } if mine(groups).is_some() => {
                keyed.settled(groups[0], keep, Some(*sent));
            }
            Output::Group { key, incarnation, state, .. } if state.name == CLERK => keyed.group(*key, *incarnation),
            Output::Withdrawn { key, .. } if keyed.has_key(*key) => keyed.withdrawn(*key),
            Output::Gone { key, .. } if keyed.has_key(*key) => keyed.gone(*key, &mut ledger.wrong),
            Output::Met { node, incarnation } => {
                keyed.met(node, *incarnation);
                return Some(output);
            }
            Output::Reach { node, status } => {
                keyed.reach(*node, status.reachable);
                return Some(output);
            }
            Output::Ended { incarnation, .. } => {
                keyed.ended(here, *incarnation, &mut ledger.keyed);
                return Some(output);
            }
            Output::Forgotten { node } => {
                keyed.renewed(here, *node, &mut ledger.keyed);
                return Some(output);
            }
            _ => return Some(output),
        }
        None
    }

    /// Something that was sent has ended for these groups: where they are.
    fn settled(&mut self, groups: &[GroupKey], events: usize, ledger: &mut Ledger) -> Vec<Place> {
        let mut places = Vec::new();
        for key in groups {
            match self.outboxes.get_mut(key) {
                Some(outbox) if outbox.in_flight >= events => {
                    outbox.in_flight -= events;
                    places.push(outbox.place);
                }
                Some(outbox) => ledger.wrong.push(format!("more ended for {:?} than was sent", outbox.place)),
                None if events == 0 => {}
                None => ledger.wrong.push(format!("{events} events ended for a group that is gone")),
            }
        }
        places
    }

    /// Forgets groups that were withdrawn and for which nothing is under way.
    fn forget_withdrawn(&mut self, engine: &mut SimEngine) {
        self.outboxes.retain(|key, outbox| {
            let done = outbox.withdrawn && outbox.events.is_empty() && outbox.in_flight == 0;
            if done {
                engine.forget_group(*key);
            }
            !done
        });
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
        (source, lane, groups, body, redelivered): (Source, Lane, Vec<u32>, Bytes, bool),
        ledger: &mut Ledger,
        dice: &mut Dice,
    ) {
        let from = source.node;
        if let Some(keyed) = &mut self.keyed
            && matches!(lane, Lane::Normal | Lane::High)
        {
            let is_mine = groups.first().is_some_and(|number| keyed.has_group(*number));
            if lane == Lane::Normal && is_mine {
                keyed.arrived(&body, redelivered);
                self.placed += 1;
                return engine.placed(now, source, groups[0], body.len() as u64 / 8, body.len() as u64);
            }
            let here = engine_life(engine);
            if (is_mine || groups.is_empty())
                && keyed.heard((here, from, lane), &body, &ledger.keyed, &mut ledger.wrong)
            {
                return if is_mine {
                    self.placed += 1;
                    engine.placed(now, source, groups[0], 1, body.len() as u64)
                };
            }
        }
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
                        ledger.arrived(now, EventNumber::unpack(*event), (self.node, inbox.name), life, redelivered);
                    }
                    inbox.intake.push_back((source, events.clone(), body.len() as u64, redelivered));
                    let waiting: usize =
                        inbox.intake.iter().filter(|(of, ..)| *of == source).map(|(_, e, ..)| e.len()).sum();
                    // What came before the session began anew may wait beside that.
                    let ahead = u64::from(self.window.events).max(inbox.most_at_once(source));
                    if waiting > ahead as usize + PACKET_EVENTS {
                        ledger.wrong.push(format!("{waiting} events of {from} wait at {}", inbox.name));
                    }
                    self.placed += inbox.place(now, number, engine);
                }
            }
            Lane::High => {
                let call = u64::from_be_bytes(body[1..9].try_into().expect("eight"));
                match body[0] {
                    REQUEST => {
                        for number in groups {
                            self.placed += 1;
                            if let Some(inbox) = self.inboxes.get_mut(&number) {
                                inbox.note(now, source, 1);
                            }
                            engine.placed(now, source, number, 1, body.len() as u64);
                        }
                        ledger.executed(engine_life(engine), from, call);
                        self.answers.push_back((now + dice.ms(0, 50), from, call));
                    }
                    _ => {
                        if !ledger.was_executed(from, engine_life(engine), call) {
                            ledger.wrong.push(format!("{from} answers request {call}, which it never had"));
                        }
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
    pub(crate) fn backlog(&self) -> Vec<(Place, usize)> {
        self.outboxes.values().filter(|o| !o.events.is_empty()).map(|o| (o.place, o.events.len())).collect()
    }

    /// The groups that are known of lives that can be reached, in order.
    pub(crate) fn known(&self) -> Vec<Place> {
        let living = self.outboxes.values().filter(|outbox| outbox.reachable && !outbox.withdrawn);
        let mut known: Vec<Place> = living.map(|outbox| outbox.place).collect();
        known.sort_unstable();
        known
    }

    /// Whether a group of that node is known.
    pub(crate) fn knows(&self, node: usize) -> bool {
        self.outboxes.values().any(|outbox| outbox.place.0 == node)
    }

    /// How many groups of others are remembered.
    pub(crate) fn remembered(&self) -> usize {
        self.outboxes.len()
    }

    pub(crate) fn intake(&self) -> usize {
        self.inboxes.values().map(|inbox| inbox.intake.len()).sum()
    }
}

impl Inbox {
    fn new(name: &'static str) -> Self {
        Self { name, queue: VecDeque::new(), intake: VecDeque::new(), paces: Vec::new(), withdrawn: false }
    }

    fn note(&mut self, now: Duration, of: Source, events: u64) {
        let known = self.paces.iter().position(|pace| pace.of == of);
        let at = known.unwrap_or_else(|| {
            self.paces.push(Pace { of, lately: VecDeque::new(), most: 0 });
            self.paces.len() - 1
        });
        let Pace { lately, most, .. } = &mut self.paces[at];
        lately.push_back((now, events));
        lately.retain(|(then, _)| now - *then < GROUP_AHEAD);
        *most = (*most).max(lately.iter().map(|(_, events)| events).sum());
    }

    /// How many events of this source were ever placed within the time that a group may be sent ahead for.
    fn most_at_once(&self, of: Source) -> u64 {
        let most = self.paces.iter().find(|pace| pace.of == of).map_or(0, |pace| pace.most);
        most.min(GROUP_AHEAD_EVENTS_MAX)
    }

    /// Returns how often the engine was told.
    fn place(&mut self, now: Duration, number: u32, engine: &mut SimEngine) -> u64 {
        let mut times = 0;
        while let Some((from, events, bytes, _)) = self.intake.front_mut() {
            let mut placed = 0;
            while self.queue.len() < INBOX_MAX
                && let Some(event) = events.pop_front()
            {
                self.queue.push_back(event);
                placed += 1;
            }
            let done = events.is_empty();
            times += 1;
            let (from, bytes) = (*from, *bytes);
            self.note(now, from, placed);
            engine.placed(now, from, number, placed, if done { bytes } else { 0 });
            if !done {
                break;
            }
            self.intake.pop_front();
        }
        times
    }
}

const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;

fn item(kind: u8, number: u64) -> Bytes {
    let mut body = vec![kind];
    body.extend(number.to_be_bytes());
    body.into()
}

pub(crate) fn engine_life(engine: &SimEngine) -> Incarnation {
    engine.incarnation()
}

pub(crate) fn place_of(node: &str, group: &str) -> Place {
    let node = node.trim_start_matches('n').parse().expect("a simulated node's name");
    (node, GROUPS.into_iter().find(|name| *name == group).expect("a group of the simulation"))
}
