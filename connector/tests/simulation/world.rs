//! A network of engines in virtual time: nodes, edges between them that fail, and what is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use edri_connector::engine::{Engine, Options, Output};
use edri_connector::limits::{FORWARD_QUEUE_BYTES_MAX, HOPS_MAX};
use edri_connector::topology::{self, LinkId, Window};
use edri_events::{Incarnation, NodeName};
use edri_protocol::session::Timing;
use xxhash_rust::xxh3::xxh3_64;

use crate::dice::Dice;
use crate::host::{GROUPS, Host, RETURN_GRACE, SimEngine};
use crate::keyed::Keyed;
use crate::ledger::Ledger;
use crate::plan::{Farewell, Plan};
use crate::watch::Watch;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) life: Option<Life>,
    lives: u32,
    /// It does not begin another life.
    pub(crate) gone: bool,
}

#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) engine: SimEngine,
    pub(crate) host: Host,
    links: BTreeSet<LinkId>,
    /// When the engine is called next, and the number of that call: those before it mean nothing.
    wake: Option<(Duration, u64)>,
    pub(crate) leaving: bool,
}

impl Life {
    /// Whether another life has a slot that this one takes, and the two know each other. While one of them has given the other
    /// up, or has and it is not known there yet, that may be so.
    fn disputes(&self, slot: usize, other: &Self) -> bool {
        let (here, there) = (self.engine.incarnation(), other.engine.incarnation());
        let session = |of: &Self, with| Some(of.engine.figures(with)?.session);
        let at_one = here != there && session(self, there).is_some_and(|number| session(other, here) == Some(number));
        at_one && other.host.keyed.as_ref().is_some_and(|keyed| keyed.holds(slot))
    }
}

#[derive(Debug)]
struct Edge {
    ends: (usize, usize),
    cut: bool,
    connection: Option<u32>,
}

/// The connection over an edge, as long as it is the same.
#[derive(Debug)]
struct Connection {
    edge: usize,
    /// Nothing arrives any more.
    broken: bool,
    /// How far each end is: it does not know of the connection, does, or has given it up.
    ends: [End; 2],
    /// When the last message in each direction arrives, where order is kept.
    last: [Duration; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Coming,
    Up,
    Down,
}

#[derive(Debug)]
enum Happening {
    Moment,
    Dial(usize),
    Up {
        connection: u32,
        end: usize,
    },
    Down {
        connection: u32,
        end: usize,
    },
    Arrive {
        connection: u32,
        end: usize,
        message: Message,
    },
    Wake {
        node: usize,
        wake: u64,
    },
    /// A node is gone, having said so.
    Exit {
        node: usize,
    },
}

#[derive(Debug, Clone)]
enum Message {
    Control(topology::Message),
    Packet(Bytes),
}

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) events: usize,
    pub(crate) confirmed: usize,
    pub(crate) lost: usize,
    pub(crate) packets: u64,
    pub(crate) kills: u32,
    pub(crate) cuts: u32,
    pub(crate) controls: u64,
    pub(crate) lives: u32,
    pub(crate) changes: u64,
    pub(crate) replacements: u32,
    pub(crate) ended: BTreeMap<&'static str, u32>,
    pub(crate) tunnels: u32,
    pub(crate) tunnels_broken: u32,
    pub(crate) redelivered: usize,
    pub(crate) slowest: Duration,
    /// The longest way of a packet, in links.
    pub(crate) hops: u8,
    /// The node that left had given and taken everything before.
    pub(crate) left_in_time: bool,
    /// How long it took after the last fault until everything was at rest.
    pub(crate) rest: Duration,
    /// Of the keyed manager: events that were handled, more than once, slots that were taken, events that were discarded.
    pub(crate) keyed: [usize; 4],
    /// A fingerprint of everything that happened.
    pub(crate) trace: u64,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    dice: Dice,
    pub(crate) now: Duration,
    serial: u64,
    due: BTreeMap<(Duration, u64), Happening>,
    pub(crate) nodes: Vec<Node>,
    edges: Vec<Edge>,
    connections: BTreeMap<u32, Connection>,
    next_connection: u32,
    lives: u32,
    pub(crate) ledger: Ledger,
    watch: Watch,
    /// When everything has come to rest, and how much had been said a while after that.
    resting: Option<(Duration, Option<u64>)>,
    /// The link by which a packet has come that a node is at.
    came_by: Option<LinkId>,
    /// The lives that saw the last node leave.
    pub(crate) heirs: BTreeSet<Incarnation>,
    pub(crate) summary: Summary,
}

const MOMENT: Duration = Duration::from_millis(25);
/// After the last fault, how long a packet may still take a way that was found during it.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// After how long at rest nothing more is to be said, and how long that is listened to. A question that was decided on before may
/// wait for five seconds.
const LISTEN_FROM: Duration = Duration::from_secs(6);
const LISTEN_UNTIL: Duration = Duration::from_secs(10);
/// How long a node that leaves waits for others at most.
const FLUSH_MAX: Duration = Duration::from_secs(20);

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut world = Self {
            dice: Dice::new(plan.seed ^ 0x00c0_ffee),
            now: Duration::ZERO,
            serial: 0,
            due: BTreeMap::new(),
            nodes: Vec::new(),
            edges: plan.edges.iter().map(|&ends| Edge { ends, cut: false, connection: None }).collect(),
            connections: BTreeMap::new(),
            next_connection: 0,
            lives: 0,
            ledger: Ledger::default(),
            watch: Watch::default(),
            resting: None,
            came_by: None,
            heirs: BTreeSet::new(),
            summary: Summary::default(),
            plan,
        };
        for node in 0..world.plan.nodes {
            let name = NodeName::new(&format!("n{node}")).expect("a name");
            world.nodes.push(Node { name, life: None, lives: 0, gone: false });
            world.start(node);
        }
        for edge in 0..world.edges.len() {
            let at = world.dice.ms(0, 300);
            world.after(at, Happening::Dial(edge));
        }
        world.after(MOMENT, Happening::Moment);
        world
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.serial += 1;
        self.due.insert((self.now + delay, self.serial), happening);
    }

    fn start(&mut self, node: usize) {
        self.lives += 1;
        let number = self.dice.next() | 1;
        let incarnation = Incarnation::from_number(number).expect("not zero");
        let options = Options {
            topology: topology::Options {
                switch: self.plan.switches.contains(&node),
                expiry: self.plan.expiry[node],
                ..topology::Options::default()
            },
            timing: Timing::default(),
            return_grace: RETURN_GRACE,
        };
        let mut engine = Engine::new(self.nodes[node].name.clone(), incarnation, options);
        let mut groups = if self.plan.switches.contains(&node) { Vec::new() } else { GROUPS.to_vec() };
        if self.nodes[node].lives > 0 && self.dice.chance(self.plan.fewer) {
            groups.retain(|_| self.dice.chance(500));
        }
        let fewer = if self.plan.uneven { self.dice.below(u64::from(self.plan.window_events)) as u32 } else { 0 };
        let window = Window { events: self.plan.window_events - fewer, bytes: self.plan.window_bytes };
        let mut host = Host::new(node, self.lives, &groups, window, self.plan.expiry[node]);
        host.announce(&mut engine);
        if let Some(clerks) = &self.plan.clerks {
            host.keyed = Some(Keyed::new(self.now, &self.nodes[node].name, incarnation));
            if clerks.contains(&node) {
                host.join_or_leave(&mut engine);
            }
        }
        self.nodes[node].lives += 1;
        if self.nodes[node].lives > 1 {
            self.ledger.reborn.insert(node);
        }
        self.watch.began(self.now, incarnation);
        host.inboxes.iter().for_each(|(number, inbox)| self.watch.group(incarnation, *number, (node, inbox.name)));
        self.nodes[node].life = Some(Life { engine, host, links: BTreeSet::new(), wake: None, leaving: false });
        self.summary.lives += 1;
        self.summary.changes += 1 + groups.len() as u64;
        self.settle(node);
    }

    fn kill(&mut self, node: usize) {
        self.summary.kills += 1;
        self.end_life(node);
    }

    fn break_connection(&mut self, edge: usize) {
        let Some(number) = self.edges[edge].connection else { return };
        let Some(connection) = self.connections.get_mut(&number).filter(|connection| !connection.broken) else {
            return;
        };
        connection.broken = true;
        for end in 0..2 {
            let notice = self.dice.ms(0, self.plan.notice_ms);
            self.after(notice, Happening::Down { connection: number, end });
        }
    }

    fn node_at(&self, edge: usize, end: usize) -> usize {
        let (a, b) = self.edges[edge].ends;
        [a, b][end]
    }

    fn is_faulty(&self) -> bool {
        self.now < self.plan.faulty
    }

    /// Runs until everything that was accepted has ended, or fails to within the time that it may take.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let patience = self.plan.expiry.iter().max().copied().unwrap_or_default();
        let rest_until = self.plan.faulty + patience + Duration::from_secs(60);
        let mut look_at = self.plan.faulty + Duration::from_millis(self.plan.notice_ms);
        while let Some(((at, serial), happening)) = self.due.pop_first() {
            self.now = at;
            self.note(&[at.as_micros() as u64, serial]);
            self.happen(happening);
            if let Some(wrong) = self.ledger.wrong.first() {
                return Err(format!("at {:?}: {wrong}", self.now));
            }
            if self.now < look_at {
                continue;
            }
            look_at = self.now + Duration::from_millis(200);
            let rest = self.unfinished();
            if rest.is_empty() {
                let (since, _) = *self.resting.get_or_insert((self.now, None));
                self.summary.rest = since.saturating_sub(self.plan.faulty);
                if !self.plan.listens || self.has_listened(since)? {
                    return self.conclude();
                }
                continue;
            }
            // A link may have come back meanwhile.
            self.resting = None;
            if self.now > rest_until {
                return Err(format!("not at rest {:?} after the last fault: {rest:#?}", self.now - self.plan.faulty));
            }
        }
        Err("nothing is due".to_owned())
    }

    /// At rest, nodes compare fingerprints and say nothing else. Whether that was listened to for long enough.
    fn has_listened(&mut self, since: Duration) -> Result<bool, String> {
        let said = self.watch.said;
        let before = self.resting.and_then(|(_, before)| before);
        if self.now < since + LISTEN_FROM {
            return Ok(false);
        }
        self.resting = Some((since, before.or(Some(said))));
        if before.is_some_and(|before| before != said) {
            return Err(format!("something is said at {:?}, although all is at rest since {since:?}", self.now));
        }
        Ok(self.now >= since + LISTEN_UNTIL)
    }

    /// Adds to the fingerprint of what happened (FNV-1a, of whole numbers).
    fn note(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.summary.trace = (self.summary.trace ^ number).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Moment => self.moment(),
            Happening::Dial(edge) => self.dial(edge),
            Happening::Up { connection, end } => self.up(connection, end),
            Happening::Down { connection, end } => self.down(connection, end),
            Happening::Arrive { connection, end, message } => self.arrive(connection, end, message),
            Happening::Wake { node, wake } => {
                let Some(life) = self.nodes[node].life.as_mut() else { return };
                if life.wake.is_some_and(|(_, number)| number == wake) {
                    life.wake = None;
                    self.settle(node);
                }
            }
            Happening::Exit { node } => self.end_life(node),
        }
    }

    /// Faults and users.
    fn moment(&mut self) {
        self.after(MOMENT, Happening::Moment);
        if self.is_faulty() {
            if self.dice.chance(self.plan.cuts) {
                let edge = self.dice.below(self.edges.len() as u64) as usize;
                self.edges[edge].cut = !self.edges[edge].cut;
                if self.edges[edge].cut {
                    self.summary.cuts += 1;
                    self.break_connection(edge);
                }
            }
            if self.dice.chance(self.plan.kills) {
                // Now and then several at once.
                for _ in 0..[1, 1, 1, 2, 4][self.dice.below(5) as usize] {
                    let node = self.dice.below(self.nodes.len() as u64) as usize;
                    self.kill_or_start(node);
                }
            }
            if self.dice.chance(self.plan.replacements) {
                let node = self.dice.below(self.nodes.len() as u64) as usize;
                if let Some(life) = self.nodes[node].life.as_mut() {
                    life.host.replace_group(&mut life.engine, &mut self.dice);
                    let here = life.engine.incarnation();
                    let groups = life.host.inboxes.iter();
                    groups.for_each(|(number, inbox)| self.watch.group(here, *number, (node, inbox.name)));
                    self.summary.replacements += 1;
                    self.summary.changes += 2;
                }
            }
        } else {
            for edge in &mut self.edges {
                edge.cut = false;
            }
            for node in 0..self.nodes.len() {
                if self.nodes[node].life.is_none() && !self.nodes[node].gone {
                    self.start(node);
                }
            }
        }
        self.say_farewell();
        let (faulty, now) = (self.is_faulty(), self.now);
        for node in 0..self.nodes.len() {
            let is_mute = self.plan.switches.contains(&node) || self.plan.mute.contains(&node);
            let Some(life) = self.nodes[node].life.as_mut() else { continue };
            if faulty && !is_mute && !life.host.going {
                if self.dice.chance(400) {
                    for _ in 0..self.dice.between(1, 5) {
                        life.host.publish(now, &mut self.ledger);
                    }
                }
                if self.dice.chance(60) {
                    life.host.request(now, &mut life.engine, &mut self.dice);
                }
                if self.dice.chance(8) {
                    life.host.open_tunnel(now, &mut life.engine, &mut self.dice);
                }
            }
            if faulty && !is_mute && !life.host.going && self.plan.clerks.is_some() {
                if self.dice.chance(300) {
                    for _ in 0..self.dice.between(1, 4) {
                        life.host.use_key(now, &mut life.engine, &mut self.ledger, &mut self.dice);
                    }
                }
                if self.dice.chance(self.plan.clerk_changes) {
                    life.host.join_or_leave(&mut life.engine);
                    self.summary.changes += 1;
                }
            }
            life.host.work(now, &mut life.engine, &mut self.dice, !faulty, &mut self.ledger);
            self.settle(node);
        }
    }

    fn kill_or_start(&mut self, node: usize) {
        let may = self.plan.kill_hosts || self.plan.switches.contains(&node);
        let last = node + 1 == self.nodes.len() && self.plan.farewell.is_some();
        match &self.nodes[node].life {
            Some(_) if may && !last => self.kill(node),
            None if !self.nodes[node].gone => self.start(node),
            _ => {}
        }
    }

    /// Half way through, the last node goes for good.
    fn say_farewell(&mut self) {
        let node = self.nodes.len() - 1;
        let Some(how) = self.plan.farewell.filter(|_| self.now >= self.plan.faulty / 2) else { return };
        let Some(life) = self.nodes[node].life.as_mut().filter(|life| !life.leaving) else { return };
        if how == Farewell::Dies {
            self.nodes[node].gone = true;
            return self.kill(node);
        }
        if !life.host.going {
            life.host.wind_up(&mut life.engine);
            self.summary.changes += 4;
            return;
        }
        let lives = self.nodes.iter().enumerate().filter_map(|(number, node)| Some((number, node.life.as_ref()?)));
        let others = lives.clone().filter(|(number, _)| *number != node);
        let mut flushed = others.clone().all(|(_, life)| life.host.has_flushed(Some(node)) && !life.host.knows(node));
        // A node that has not met it yet may still hear first of the groups that it had.
        let name = &self.nodes[node].name;
        let has_heard = |life: &Life| life.engine.topology().nodes().iter().any(|n| n.node == *name && n.groups == 0);
        flushed &= others.clone().all(|(_, life)| has_heard(life));
        let here = self.nodes[node].life.as_ref().expect("looked at above");
        flushed &= here.host.has_flushed(None) && here.host.intake() == 0;
        flushed &= here.host.keyed.as_ref().is_none_or(|keyed| keyed.is_idle());
        flushed &= lives.clone().all(|(_, life)| life.host.calls.is_empty() && life.host.tunnels.open_count() == 0)
            || self.now > self.plan.faulty + Duration::from_secs(12);
        let late = self.now > self.plan.faulty + FLUSH_MAX;
        if flushed || late {
            self.summary.left_in_time = flushed;
            self.nodes[node].gone = true;
            let others = self.nodes.iter().filter_map(|other| Some(other.life.as_ref()?.engine.incarnation()));
            self.heirs = others.collect();
            let life = self.nodes[node].life.as_mut().expect("looked at above");
            life.leaving = true;
            life.engine.set_leaving();
            self.settle(node);
            self.after(Duration::from_millis(500), Happening::Exit { node });
        }
    }

    fn end_life(&mut self, node: usize) {
        if let Some(life) = self.nodes[node].life.take()
            && let Some(keyed) = &life.host.keyed
        {
            self.ledger.keyed.died(life.engine.incarnation(), keyed);
        }
        for index in 0..self.edges.len() {
            let (a, b) = self.edges[index].ends;
            if a == node || b == node {
                self.break_connection(index);
            }
        }
    }

    fn dial(&mut self, edge: usize) {
        let again = self.dice.ms(100, 800);
        self.after(again, Happening::Dial(edge));
        let (a, b) = self.edges[edge].ends;
        let able = !self.edges[edge].cut && self.nodes[a].life.is_some() && self.nodes[b].life.is_some();
        if !able || self.edges[edge].connection.is_some() {
            return;
        }
        self.next_connection += 1;
        let number = self.next_connection;
        self.edges[edge].connection = Some(number);
        let last = [self.now; 2];
        self.connections.insert(number, Connection { edge, broken: false, ends: [End::Coming; 2], last });
        for end in 0..2 {
            let delay = self.dice.ms(1, 50);
            self.after(delay, Happening::Up { connection: number, end });
        }
    }

    fn up(&mut self, number: u32, end: usize) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.broken {
            return;
        }
        let edge = connection.edge;
        connection.ends[end] = End::Up;
        self.summary.changes += 2;
        let (node, other) = (self.node_at(edge, end), self.node_at(edge, 1 - end));
        let Some(incarnation) = self.nodes[other].life.as_ref().map(|life| life.engine.incarnation()) else { return };
        let name = self.nodes[other].name.clone();
        let Some(life) = self.nodes[node].life.as_mut() else { return };
        self.watch.link_up(self.now, number, node, life.engine.incarnation());
        life.links.insert(LinkId(number));
        life.engine.link_up(self.now, LinkId(number), name, incarnation, 1).expect("a link");
        self.settle(node);
    }

    fn down(&mut self, number: u32, end: usize) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let was_up = connection.ends[end] == End::Up;
        connection.ends[end] = End::Down;
        let (edge, over) = (connection.edge, connection.ends == [End::Down; 2]);
        if over {
            self.connections.remove(&number);
            self.edges[edge].connection = None;
        }
        let node = self.node_at(edge, end);
        let Some(life) = self.nodes[node].life.as_mut() else { return };
        if was_up && life.links.remove(&LinkId(number)) {
            self.watch.link_down(life.engine.incarnation());
            life.engine.link_down(self.now, LinkId(number));
            self.settle(node);
        }
    }

    fn arrive(&mut self, number: u32, end: usize, message: Message) {
        let Some(connection) = self.connections.get(&number).filter(|connection| !connection.broken) else { return };
        match connection.ends[end] {
            End::Up => {}
            // It waits in the stream until this end has noticed the connection.
            End::Coming => return self.after(MOMENT, Happening::Arrive { connection: number, end, message }),
            End::Down => return,
        }
        let node = self.node_at(connection.edge, end);
        let Some(life) = self.nodes[node].life.as_mut() else { return };
        match message {
            Message::Control(message) => {
                self.watch.control_heard(number, node, life.engine.incarnation(), &message);
                life.engine.receive_control(self.now, LinkId(number), message);
            }
            Message::Packet(frame) => {
                self.watch.packet_heard(life.engine.incarnation(), &frame);
                self.came_by = Some(LinkId(number));
                if let Err(error) = life.engine.receive(self.now, LinkId(number), frame) {
                    self.ledger.wrong.push(format!("a packet that is none: {error}"));
                }
            }
        }
        self.settle(node);
        self.came_by = None;
    }

    /// Lets a node do whatever follows from what has happened to it.
    fn settle(&mut self, node: usize) {
        let now = self.now;
        loop {
            // A moment that has no end is told of, too.
            let Some(life) = self.nodes[node].life.as_mut().filter(|_| self.ledger.wrong.is_empty()) else { return };
            life.host.pump(now, &mut life.engine, &mut self.ledger);
            self.look_at_keys(node);
            let Some(life) = self.nodes[node].life.as_mut() else { return };
            life.engine.tick(now);
            let mut any = false;
            loop {
                let Some(life) = self.nodes[node].life.as_mut() else { return };
                let Some(output) = life.engine.next_output() else { break };
                any = true;
                match output {
                    Output::Control { links, message } => {
                        self.summary.controls += links.len() as u64;
                        let here = life.engine.incarnation();
                        for link in &links {
                            self.watch.control(now, (link.0, node), here, &message, &mut self.ledger.wrong);
                        }
                        links.into_iter().for_each(|link| self.transmit(link, node, Message::Control(message.clone())));
                    }
                    Output::Packet { link, origin, header, body, .. } => {
                        self.summary.packets += 1;
                        if origin != life.engine.incarnation() && self.came_by == Some(link) {
                            self.ledger
                                .wrong
                                .push(format!("n{node} sends a packet of {origin} back where it came from"));
                        }
                        let (queued, _) = life.engine.link_queue(link);
                        if queued > FORWARD_QUEUE_BYTES_MAX + (64 << 10) {
                            self.ledger.wrong.push(format!("{queued} bytes wait at a link"));
                        }
                        life.engine.queued(link, 0);
                        let links = HOPS_MAX - header[if header[0] == 1 { 2 } else { 1 }] + 1;
                        self.summary.hops = self.summary.hops.max(links);
                        if now > self.plan.faulty + SETTLED_AFTER && usize::from(links) >= self.plan.nodes {
                            self.ledger.wrong.push(format!("a packet crosses link {links} of its way"));
                        }
                        let frame = Bytes::from([header, body].concat());
                        self.watch.placed(life.engine.incarnation(), life.host.placed);
                        self.watch.packet(now, life.engine.incarnation(), &frame, &mut self.ledger);
                        self.transmit(link, node, Message::Packet(frame));
                    }
                    other => {
                        let here = life.engine.incarnation();
                        match &other {
                            Output::Met { .. } => self.watch.met(here),
                            Output::Ended { .. } => self.watch.ended(here),
                            Output::Forgotten { .. } => self.watch.renewed(here),
                            _ => {}
                        }
                        life.host.take(now, &mut life.engine, other, &mut self.ledger, &mut self.dice);
                    }
                }
            }
            if !any {
                break;
            }
        }
        let Some(life) = self.nodes[node].life.as_mut() else { return };
        let Some(deadline) = life.engine.deadline() else { return life.wake = None };
        let at = deadline.max(now + Duration::from_micros(100));
        if life.wake.is_none_or(|(known, _)| known != at) {
            self.serial += 1;
            life.wake = Some((at, self.serial));
            self.due.insert((at, self.serial), Happening::Wake { node, wake: self.serial });
        }
    }

    /// A slot that a life has taken is with nobody else that it knows and that knows it.
    fn look_at_keys(&mut self, node: usize) {
        let Some(life) = self.nodes[node].life.as_mut() else { return };
        let taken = life.host.keyed.as_mut().map(|keyed| std::mem::take(&mut keyed.taken)).unwrap_or_default();
        let Some(mine) = self.nodes[node].life.as_ref().filter(|life| life.host.keyed.is_some()) else { return };
        self.ledger.keyed.moves += taken.len();
        for slot in taken {
            for other in self.nodes.iter().filter_map(|other| other.life.as_ref()) {
                if mine.disputes(slot, other) {
                    let (here, there) = (mine.engine.incarnation(), other.engine.incarnation());
                    self.ledger.wrong.push(format!("{here} takes slot {slot}, which {there} has"));
                }
            }
        }
    }

    fn transmit(&mut self, link: LinkId, node: usize, message: Message) {
        let content = match &message {
            Message::Control(message) => xxh3_64(&message.encode()),
            Message::Packet(frame) => xxh3_64(frame),
        };
        self.note(&[u64::from(link.0), node as u64, content]);
        let faulty = self.is_faulty();
        let Some(connection) = self.connections.get_mut(&link.0).filter(|connection| !connection.broken) else {
            return;
        };
        let (a, _) = self.edges[connection.edge].ends;
        let to = usize::from(a == node);
        let dice = &mut self.dice;
        let copies = match &message {
            _ if !faulty || !self.plan.reorder => 1,
            _ if dice.chance(self.plan.loss) => 0,
            Message::Packet(_) if dice.chance(self.plan.repeat) => 2,
            _ => 1,
        };
        let delay = if faulty { self.plan.delay_ms } else { 20 };
        for _ in 0..copies {
            let mut at = self.now + dice.ms(1, delay.max(2));
            if !self.plan.reorder || !faulty {
                at = at.max(connection.last[to]);
                connection.last[to] = at;
            }
            self.serial += 1;
            let arrive = Happening::Arrive { connection: link.0, end: to, message: message.clone() };
            self.due.insert((at, self.serial), arrive);
        }
    }
}
