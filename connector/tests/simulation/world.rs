//! A network of engines in virtual time: nodes, edges between them that fail, and what is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use edri_connector::engine::{Engine, Options, Output};
use edri_connector::topology::{self, LinkId};
use edri_events::{Incarnation, NodeName};
use edri_protocol::session::Timing;

use crate::dice::Dice;
use crate::host::{GROUPS, Host, Keep, SimEngine};
use crate::ledger::{Ledger, Place};

/// What goes wrong in a run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    pub edges: Vec<(usize, usize)>,
    /// Nodes without groups.
    pub switches: BTreeSet<usize>,
    /// Of a thousand packets on a link, so many are lost, repeated; and how long one may take.
    pub loss: u64,
    pub repeat: u64,
    pub delay_ms: u64,
    /// Whether messages of one link may overtake one another; otherwise it is as a QUIC stream.
    pub reorder: bool,
    /// Of a thousand moments (10 ms), how many see an edge cut or mended, a node killed or started.
    pub cuts: u64,
    pub kills: u64,
    /// Whether nodes with groups are killed too, not only switches.
    pub kill_hosts: bool,
    pub faulty: Duration,
    pub expiry: Duration,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let nodes = dice.between(2, 7) as usize;
        let mut edges = BTreeSet::new();
        match dice.below(4) {
            // A star, a ring, a chain, and anything.
            0 => edges.extend((1..nodes).map(|node| (0, node))),
            1 => edges.extend((0..nodes).map(|node| (node.min((node + 1) % nodes), node.max((node + 1) % nodes)))),
            2 => edges.extend((1..nodes).map(|node| (node - 1, node))),
            _ => {
                for node in 1..nodes {
                    edges.insert((dice.below(node as u64) as usize, node));
                }
                for _ in 0..dice.below(nodes as u64) {
                    let (a, b) = (dice.below(nodes as u64) as usize, dice.below(nodes as u64) as usize);
                    if a != b {
                        edges.insert((a.min(b), a.max(b)));
                    }
                }
            }
        }
        let edges: Vec<_> = edges.into_iter().filter(|(a, b)| a != b).collect();
        let switches = if nodes > 2 && dice.chance(700) { BTreeSet::from([0]) } else { BTreeSet::new() };
        let kind = dice.below(4);
        Self {
            seed,
            nodes,
            edges,
            switches,
            loss: if kind == 0 { dice.below(300) } else { 0 },
            repeat: if kind == 0 { dice.below(300) } else { 0 },
            delay_ms: dice.between(1, if kind == 0 { 400 } else { 80 }),
            reorder: kind == 0,
            cuts: if kind != 3 { dice.below(30) } else { 0 },
            kills: if kind >= 2 { dice.below(6) } else { 0 },
            kill_hosts: dice.chance(500),
            faulty: dice.ms(4_000, 15_000),
            expiry: Duration::from_secs(20),
        }
    }
}

#[derive(Debug)]
struct Node {
    name: NodeName,
    life: Option<Life>,
    lives: u32,
}

#[derive(Debug)]
struct Life {
    engine: SimEngine,
    host: Host,
    links: BTreeSet<LinkId>,
    wake: u64,
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
    Up { connection: u32, end: usize },
    Down { connection: u32, end: usize },
    Arrive { connection: u32, end: usize, message: Message },
    Wake { node: usize, wake: u64 },
}

#[derive(Debug, Clone)]
enum Message {
    Control(topology::Message),
    Packet(Bytes),
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Summary {
    pub events: usize,
    pub confirmed: usize,
    pub lost: usize,
    pub packets: u64,
    pub kills: u32,
    pub cuts: u32,
    pub answered: u32,
    pub tunnels: u32,
}

pub struct World {
    plan: Plan,
    dice: Dice,
    now: Duration,
    serial: u64,
    due: BTreeMap<(Duration, u64), Happening>,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    connections: BTreeMap<u32, Connection>,
    next_connection: u32,
    lives: u32,
    pub ledger: Ledger,
    pub summary: Summary,
}

const MOMENT: Duration = Duration::from_millis(10);
/// How long it takes at most until an end notices that its link is dead.
const NOTICE_MS: u64 = 3000;

impl World {
    pub fn new(plan: Plan) -> Self {
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
            summary: Summary::default(),
            plan,
        };
        for node in 0..world.plan.nodes {
            let name = NodeName::new(&format!("n{node}")).expect("a name");
            world.nodes.push(Node { name, life: None, lives: 0 });
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
                expiry: self.plan.expiry,
                ..topology::Options::default()
            },
            timing: Timing::default(),
            return_grace: Duration::from_secs(5),
        };
        let mut engine = Engine::new(self.nodes[node].name.clone(), incarnation, options);
        let groups: &[&'static str] = if self.plan.switches.contains(&node) { &[] } else { &GROUPS };
        let host = Host::new(node, self.lives, groups);
        host.announce(&mut engine);
        self.nodes[node].lives += 1;
        if self.nodes[node].lives > 1 {
            self.ledger.reborn.insert(node);
        }
        self.nodes[node].life = Some(Life { engine, host, links: BTreeSet::new(), wake: 0 });
        self.settle(node);
    }

    fn kill(&mut self, node: usize) {
        self.summary.kills += 1;
        self.nodes[node].life = None;
        for index in 0..self.edges.len() {
            let (a, b) = self.edges[index].ends;
            if a == node || b == node {
                self.break_connection(index);
            }
        }
    }

    fn break_connection(&mut self, edge: usize) {
        let Some(number) = self.edges[edge].connection else { return };
        let Some(connection) = self.connections.get_mut(&number).filter(|connection| !connection.broken) else {
            return;
        };
        connection.broken = true;
        for end in 0..2 {
            let notice = self.dice.ms(0, NOTICE_MS);
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
    pub fn run(&mut self) -> Result<(), String> {
        let quiet_limit = self.plan.faulty + self.plan.expiry + Duration::from_secs(60);
        while let Some(((at, _), happening)) = self.due.pop_first() {
            self.now = at;
            self.happen(happening);
            if let Some(wrong) = self.ledger.wrong.first() {
                return Err(format!("at {:?}: {wrong}", self.now));
            }
            if self.now > self.plan.faulty + Duration::from_secs(5) && matches!(self.serial % 64, 0) {
                if self.unfinished().is_empty() {
                    return self.conclude();
                }
            }
            if self.now > quiet_limit {
                return Err(format!(
                    "not at rest {:?} after the last fault: {:?}",
                    self.now - self.plan.faulty,
                    self.unfinished()
                ));
            }
        }
        Err("nothing is due".to_owned())
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Moment => self.moment(),
            Happening::Dial(edge) => self.dial(edge),
            Happening::Up { connection, end } => self.up(connection, end),
            Happening::Down { connection, end } => self.down(connection, end),
            Happening::Arrive { connection, end, message } => self.arrive(connection, end, message),
            Happening::Wake { node, wake } => {
                if self.nodes[node].life.as_ref().is_some_and(|life| life.wake == wake) {
                    self.settle(node);
                }
            }
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
                let node = self.dice.below(self.nodes.len() as u64) as usize;
                let may = self.plan.kill_hosts || self.plan.switches.contains(&node);
                match self.nodes[node].life.is_some() {
                    true if may => self.kill(node),
                    true => {}
                    false => self.start(node),
                }
            }
        } else {
            for edge in &mut self.edges {
                edge.cut = false;
            }
            for node in 0..self.nodes.len() {
                if self.nodes[node].life.is_none() {
                    self.start(node);
                }
            }
        }
        let (faulty, now) = (self.is_faulty(), self.now);
        for node in 0..self.nodes.len() {
            let is_switch = self.plan.switches.contains(&node);
            let Some(life) = self.nodes[node].life.as_mut() else { continue };
            if faulty && !is_switch {
                if self.dice.chance(300) {
                    for _ in 0..self.dice.between(1, 4) {
                        life.host.publish(&mut self.ledger);
                    }
                }
                if self.dice.chance(30) {
                    life.host.request(now, &mut life.engine, &mut self.dice);
                }
                if self.dice.chance(3) {
                    life.host.open_tunnel(now, &mut life.engine, &mut self.dice);
                }
            }
            life.host.work(now, &mut life.engine, &mut self.dice, !faulty);
            self.settle(node);
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
        let (node, other) = (self.node_at(edge, end), self.node_at(edge, 1 - end));
        let Some(incarnation) = self.nodes[other].life.as_ref().map(|life| life.engine.incarnation()) else { return };
        let name = self.nodes[other].name.clone();
        let Some(life) = self.nodes[node].life.as_mut() else { return };
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
            Message::Control(message) => life.engine.receive_control(self.now, LinkId(number), message),
            Message::Packet(frame) => {
                if let Err(error) = life.engine.receive(self.now, LinkId(number), frame) {
                    self.ledger.wrong.push(format!("a packet that is none: {error}"));
                }
            }
        }
        self.settle(node);
    }

    /// Lets a node do whatever follows from what has happened to it.
    fn settle(&mut self, node: usize) {
        let now = self.now;
        loop {
            let Some(life) = self.nodes[node].life.as_mut() else { return };
            life.host.pump(now, &mut life.engine);
            life.engine.tick(now);
            let mut any = false;
            loop {
                let Some(life) = self.nodes[node].life.as_mut() else { return };
                let Some(output) = life.engine.next_output() else { break };
                any = true;
                match output {
                    Output::Control { links, message } => {
                        links.into_iter().for_each(|link| self.transmit(link, node, Message::Control(message.clone())));
                    }
                    Output::Packet { link, header, body, .. } => {
                        self.summary.packets += 1;
                        let (queued, _) = life.engine.link_queue(link);
                        if queued > edri_connector::limits::FORWARD_QUEUE_BYTES_MAX + (64 << 10) {
                            self.ledger.wrong.push(format!("{queued} bytes wait at a link"));
                        }
                        life.engine.queued(link, 0);
                        let frame = [header, body].concat();
                        self.transmit(link, node, Message::Packet(frame.into()));
                    }
                    other => life.host.take(now, &mut life.engine, other, &mut self.ledger, &mut self.dice),
                }
            }
            if !any {
                break;
            }
        }
        let Some(life) = self.nodes[node].life.as_mut() else { return };
        if let Some(deadline) = life.engine.deadline() {
            self.serial += 1;
            life.wake = self.serial;
            let at = deadline.max(now + Duration::from_micros(100));
            self.due.insert((at, self.serial), Happening::Wake { node, wake: self.serial });
        }
    }

    fn transmit(&mut self, link: LinkId, node: usize, message: Message) {
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

    // ---- the end ---------------------------------------------------------------------------------------------------

    /// What has not come to rest.
    fn unfinished(&self) -> Vec<String> {
        let mut rest = Vec::new();
        let hosts: Vec<usize> = (0..self.nodes.len()).filter(|node| !self.plan.switches.contains(node)).collect();
        for node in &self.nodes {
            let Some(life) = &node.life else {
                rest.push(format!("{} is down", node.name));
                continue;
            };
            let backlog = life.host.backlog();
            if !backlog.is_empty() {
                rest.push(format!("{} has a backlog for {backlog:?}", node.name));
            }
            if life.host.intake() > 0 {
                rest.push(format!("{} has {} packets without a place", node.name, life.host.intake()));
            }
            if !life.host.calls.is_empty() || life.host.tunnels.open_count() > 0 {
                rest.push(format!(
                    "{} has open calls {:?} or tunnels {:?}",
                    node.name, life.host.calls, life.host.tunnels
                ));
            }
            if !life.engine.topology().is_settled() {
                rest.push(format!("{} is not settled", node.name));
            }
            let known = life.host.known();
            let wanted: Vec<Place> = hosts
                .iter()
                .filter(|other| self.nodes[**other].name != node.name)
                .flat_map(|other| GROUPS.map(|group| (*other, group)))
                .filter(|place| !known.contains(place))
                .collect();
            if !wanted.is_empty() {
                rest.push(format!("{} does not know {wanted:?}", node.name));
            }
            for other in &self.nodes {
                let Some(figures) =
                    other.life.as_ref().and_then(|other| life.engine.figures(other.engine.incarnation()))
                else {
                    if other.name != node.name {
                        rest.push(format!("{} does not know {}", node.name, other.name));
                    }
                    continue;
                };
                if figures.unacknowledged_packets > 0 {
                    rest.push(format!("{} has unacknowledged packets for {}: {figures:?}", node.name, other.name));
                }
            }
        }
        rest
    }

    /// Looks at the ledger once everything is at rest.
    fn conclude(&mut self) -> Result<(), String> {
        let living: BTreeMap<u32, usize> =
            (0..).zip(&self.nodes).filter_map(|(n, node)| Some((node.life.as_ref()?.host.life, n))).collect();
        let may_lose = self.plan.kills > 0;
        for ((event, place), way) in &self.ledger.ways {
            self.summary.events += 1;
            self.summary.confirmed += usize::from(way.confirmed > 0);
            self.summary.lost += usize::from(way.lost.is_some());
            if !living.contains_key(&event.origin) {
                continue;
            }
            if way.confirmed == 0 && way.lost.is_none() {
                return Err(format!("{event:?} for {place:?} has not ended: {way:?}"));
            }
            if way.lost.is_some() && !may_lose {
                return Err(format!("{event:?} for {place:?} is lost although no node died: {way:?}"));
            }
        }
        for node in &self.nodes {
            let Some(life) = &node.life else { continue };
            self.summary.answered += life.host.ended.get("answered").copied().unwrap_or_default();
            self.summary.tunnels += life.host.tunnels.completed;
            if !may_lose && life.host.ended.contains_key("peer lost") {
                return Err(format!("{} lost a call although no node died", node.name));
            }
            if !may_lose && life.host.tunnels.broken > 0 {
                return Err(format!("{} lost a tunnel although no node died", node.name));
            }
        }
        Ok(())
    }
}

const _: fn() -> Keep = Keep::default;
