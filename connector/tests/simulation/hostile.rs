//! Whatever well-formed nonsense a node of the cluster sends, nobody panics and nobody remembers more and more of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edri_connector::engine::{Engine, Options, Output, Source, Target};
use edri_connector::topology::{Content, GroupState, LinkId, LinkState, Message, NodeState, Record, Window};
use edri_events::{Incarnation, NodeName};
use edri_protocol::packet::{Destination, GroupCredit, Header, Lane, LaneAck, Packet, Signal, SignalKind};

use crate::dice::Dice;

const LINK: LinkId = LinkId(1);
/// The most that may follow from one thing that came in.
const OUTPUTS_MAX: usize = 10_000;

struct Hostile {
    dice: Dice,
    engine: Engine<()>,
    now: Duration,
    /// This life, the neighbour's, another node's, and one that nobody knows.
    lives: [Incarnation; 4],
    version: u64,
    keys: Vec<(u32, Incarnation)>,
    /// How often something was delivered, confirmed, lost: it is not all refused at the door.
    seen: [u32; 3],
}

impl Hostile {
    fn new(seed: u64) -> Self {
        let lives = [1, 2, 3, 4].map(|number| Incarnation::from_number(number).expect("not zero"));
        let mut engine = Engine::new(name(0), lives[0], Options::default());
        engine.set_group(1, group("mine", 8, 100)).expect("one group");
        engine.set_settled(true);
        engine.link_up(Duration::ZERO, LINK, name(1), lives[1], 1).expect("a link");
        let mut hostile = Self {
            dice: Dice::new(seed),
            engine,
            now: Duration::ZERO,
            lives,
            version: 1,
            keys: Vec::new(),
            seen: [0; 3],
        };
        hostile.introduce();
        hostile
    }

    /// The neighbour and a node behind it tell of themselves and of a group each, as they should.
    fn introduce(&mut self) {
        let to = |node: usize, lives: &[Incarnation]| LinkState { node: name(node), incarnation: lives[node], cost: 1 };
        let links = [vec![to(0, &self.lives), to(2, &self.lives)], vec![to(1, &self.lives)]];
        let mut records = Vec::new();
        for (node, links) in (1..).zip(links) {
            self.version += 2;
            let node_state = NodeState { links, settled: true, ..NodeState::default() };
            let group = Content::Group(Arc::new(group("theirs", 4, 1000)));
            records.push(self.record(node, 1, self.version, group));
            records.push(self.record(node, 0, self.version + 1, Content::Node(node_state)));
        }
        self.engine.receive_control(self.now, LINK, Message::Records(records));
    }

    fn record(&self, node: usize, slot: u32, version: u64, content: Content) -> Bytes {
        Record { node: name(node), epoch: 0, incarnation: self.lives[node], slot, version, content }.encode()
    }

    fn absurd(&mut self) -> u64 {
        let small = self.dice.below(6);
        [0, 1, small, small, 4095 + small, u64::from(u32::MAX), u64::MAX - small, u64::MAX][self.dice.below(8) as usize]
    }

    fn life(&mut self) -> Incarnation {
        self.lives[self.dice.below(4) as usize]
    }

    fn lane(&mut self) -> Lane {
        let tunnel = self.absurd();
        [Lane::High, Lane::Normal, Lane::Up(tunnel), Lane::Down(tunnel)][self.dice.below(4) as usize]
    }

    /// Mostly the session that there is with that life: others say little.
    fn session(&mut self, life: Incarnation) -> u32 {
        let known = self.engine.figures(life).map_or(1, |figures| figures.session);
        match self.dice.below(100) {
            0 => self.absurd() as u32,
            1..4 => known.saturating_add(1),
            4..8 => known - 1,
            _ => known,
        }
    }

    fn packet(&mut self) -> Packet {
        let origin = self.life();
        let count = if self.dice.chance(5) { 4096 } else { self.dice.below(4) };
        let destinations = (0..count).map(|_| {
            let sequence = self.absurd();
            let base = self.absurd().min(sequence);
            let groups = (0..self.dice.below(3)).map(|_| self.absurd() as u32).collect();
            Destination { node: self.life(), session: self.session(origin), sequence, base, groups }
        });
        let destinations = destinations.collect();
        let header = Header {
            origin,
            lane: self.lane(),
            hops: self.absurd() as u8,
            age_ms: self.absurd() as u32,
            redelivered: self.dice.chance(500),
            destinations,
        };
        let length = self.dice.below(64) as usize;
        Packet::Data { header, body: Bytes::from(vec![0; length]) }
    }

    fn signal(&mut self) -> Packet {
        let origin = self.life();
        let session = self.session(origin);
        let number = self.absurd();
        let kind = match self.dice.below(6) {
            0 => SignalKind::Query { session },
            2 => SignalKind::Probe { number },
            3 => SignalKind::Alive { number },
            _ => {
                let lanes = (0..self.dice.below(4)).map(|_| {
                    let next = self.absurd();
                    let from = next.saturating_add(1 + self.dice.below(4));
                    let held = (from < u64::MAX).then_some((from, from.saturating_add(1 + self.absurd() / 2)));
                    LaneAck {
                        lane: self.lane(),
                        next,
                        held: held.filter(|(from, to)| from < to && next < *from).into_iter().collect(),
                    }
                });
                let lanes = lanes.collect();
                let credits = (0..self.dice.below(4)).map(|_| GroupCredit {
                    group: self.absurd() as u32,
                    events: self.absurd(),
                    bytes: self.absurd(),
                });
                let credits = credits.collect();
                SignalKind::Ack { session, lanes, credits }
            }
        };
        Packet::Signal(Signal { origin, to: self.life(), hops: self.absurd() as u8, kind })
    }

    fn control(&mut self) -> Message {
        let records = (0..self.dice.below(4)).map(|_| {
            let node = self.dice.below(4) as usize;
            let slot = self.absurd() as u32;
            self.version += 1;
            let version = if self.dice.chance(50) { self.absurd() } else { self.version };
            let (events, bytes) = (self.absurd() as u32, self.absurd());
            let name = ["theirs", "others", "more"][self.dice.below(3) as usize];
            let content = match self.dice.below(8) {
                0 => Content::Gone,
                1 => Content::Node(NodeState { leaving: self.dice.chance(100), ..NodeState::default() }),
                _ => Content::Group(Arc::new(group(name, events, bytes))),
            };
            self.record(node, slot, version, content)
        });
        Message::Records(records.collect())
    }

    fn use_engine(&mut self) {
        let (life, lane) = (self.life(), self.lane());
        match self.dice.below(6) {
            0 => {
                // A group of this node changes how much it grants.
                let (events, bytes) = (self.absurd() as u32, self.absurd());
                let _ = self.engine.set_group(1, group("mine", events, bytes));
            }
            1 => {
                let (events, bytes) = (self.dice.below(50), self.dice.below(5000));
                let session = self.dice.below(4) as u32;
                self.engine.placed(self.now, Source { node: life, session }, 1, events, bytes);
            }
            2 => self.engine.end_lane(life, lane),
            3 => self.engine.lane_ended(self.now, life, lane),
            _ => {
                let Some((key, node)) = self.keys.last().copied() else { return };
                if self.engine.has_room(node, lane) {
                    let body = Bytes::from_static(b"an event");
                    let targets = [Target { node, groups: vec![key] }];
                    self.engine.send(self.now, lane, &targets, body.into(), 1, &());
                }
                self.engine.starve(self.now, key);
            }
        }
    }

    fn drain(&mut self) {
        self.engine.tick(self.now);
        let mut count = 0;
        while let Some(output) = self.engine.next_output() {
            count += 1;
            match output {
                Output::Group { key, incarnation, .. } => {
                    self.keys.retain(|(other, _)| *other != key);
                    self.keys.push((key, incarnation));
                }
                Output::Gone { key, .. } => self.keys.retain(|(other, _)| *other != key),
                Output::Withdrawn { key, .. } => {
                    self.keys.retain(|(other, _)| *other != key);
                    self.engine.forget_group(key);
                }
                Output::Deliver { .. } => self.seen[0] += 1,
                Output::Confirmed { .. } => self.seen[1] += 1,
                Output::Lost { .. } => self.seen[2] += 1,
                Output::Packet { .. } => self.engine.queued(LINK, 0),
                _ => {}
            }
        }
        assert!(count <= OUTPUTS_MAX, "{count} things follow from one");
        assert!(self.keys.len() <= 64, "{} groups of 16 numbers are remembered", self.keys.len());
        assert!(self.engine.deadline().is_none_or(|at| at > Duration::ZERO));
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.dice.below(10) {
                0..4 => {
                    let packet = if self.dice.chance(500) { self.packet() } else { self.signal() };
                    let mut bytes = Vec::new();
                    packet.encode(&mut bytes);
                    let _ = self.engine.receive(self.now, LINK, bytes.into());
                }
                4 => {
                    let message = self.control();
                    self.engine.receive_control(self.now, LINK, message);
                }
                5..9 => self.use_engine(),
                _ => {
                    self.now += self.dice.ms(0, 500);
                    if self.dice.chance(20) {
                        self.engine.link_down(self.now, LINK);
                        let _ = self.engine.link_up(self.now, LINK, name(1), self.lives[1], 1);
                        self.introduce();
                    }
                }
            }
            self.drain();
        }
    }
}

fn name(number: usize) -> NodeName {
    NodeName::new(&format!("n{number}")).expect("a name")
}

fn group(name: &str, events: u32, bytes: u64) -> GroupState {
    GroupState { name: name.to_owned(), window: Window { events, bytes }, ..GroupState::default() }
}

#[test]
fn no_well_formed_nonsense_panics_or_grows() {
    let mut seen = [0; 3];
    for seed in 0..300 {
        let mut hostile = Hostile::new(seed);
        hostile.run(600);
        seen = std::array::from_fn(|index| seen[index] + hostile.seen[index]);
    }
    assert!(seen.iter().all(|count| *count > 20), "delivered, confirmed, lost: {seen:?}");
}
