//! What a packet from one node to many costs, without sockets: engines that hand each other what they say.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use edri_connector::engine::{Engine, GroupKey, Options, Output, Target};
use edri_connector::topology::{self, GroupState, LinkId, Selection, Window};
use edri_events::{Incarnation, NodeName};
use edri_protocol::packet::Lane;

use crate::Result;
use crate::case::Figures;
use crate::harness::{Plan, Side, compare};

const NODES: usize = 64;
/// A packet is full with about so many bytes.
const BODY_BYTES: usize = 60 << 10;
/// What a round adds to the time that the engines are told, so that acknowledgements fall due as on a busy link.
const ROUND: Duration = Duration::from_micros(100);

/// The origin reaches all by one switch.
pub(super) async fn star(plan: Plan) -> Result<Figures> {
    compared(plan, Net::star).await
}

/// The origin has a link to each.
pub(super) async fn mesh(plan: Plan) -> Result<Figures> {
    compared(plan, Net::mesh).await
}

async fn compared(plan: Plan, make: fn(usize) -> Net) -> Result<Figures> {
    let side = |name, nodes| {
        let mut net = make(nodes);
        Side::new(name, move |rounds| {
            let began = Instant::now();
            (0..rounds).for_each(|_| net.round());
            std::future::ready(began.elapsed())
        })
    };
    let figures = compare(&plan, side("64 nodes", NODES), vec![side("1 node", 1)]).await;
    let mut net = make(NODES);
    Ok(Figures { note: net.explain(), ..figures })
}

enum Message {
    Control(topology::Message),
    Packet(Bytes),
}

/// The first is the origin, and then the switch if there is one.
struct Net {
    nodes: Vec<Node>,
    links: BTreeMap<LinkId, (usize, usize)>,
    under_way: VecDeque<(usize, LinkId, Message)>,
    targets: Vec<Target>,
    body: Bytes,
    now: Duration,
}

struct Node {
    engine: Engine<()>,
    name: NodeName,
    /// How long it has worked.
    worked: Duration,
    /// How many packets it has sent, and how many have ended here.
    sent: u64,
    taken: u64,
}

impl Net {
    fn star(nodes: usize) -> Self {
        Self::new(nodes + 2, 2, (2..nodes + 2).map(|node| (1, node)).chain([(0, 1)]))
    }

    fn mesh(nodes: usize) -> Self {
        Self::new(nodes + 1, 1, (1..=nodes).map(|node| (0, node)))
    }

    fn new(nodes: usize, first: usize, links: impl Iterator<Item = (usize, usize)>) -> Self {
        let nodes = (0..nodes).map(|number| {
            let name = NodeName::new(&format!("n{number}")).expect("a name");
            let incarnation = Incarnation::from_number(number as u64 + 1).expect("not zero");
            let mut engine = Engine::new(name.clone(), incarnation, Options::default());
            if number >= first {
                engine.set_group(1, group()).expect("few");
            }
            engine.set_settled(true);
            Node { engine, name, worked: Duration::ZERO, sent: 0, taken: 0 }
        });
        let mut net = Self {
            nodes: nodes.collect(),
            links: BTreeMap::new(),
            under_way: VecDeque::new(),
            targets: Vec::new(),
            body: Bytes::from(vec![7; BODY_BYTES]),
            now: Duration::ZERO,
        };
        for ((from, to), number) in links.zip(1..) {
            let link = LinkId(number);
            net.links.insert(link, (from, to));
            for (here, there) in [(from, to), (to, from)] {
                let (name, life) = (net.nodes[there].name.clone(), net.nodes[there].engine.incarnation());
                net.nodes[here].engine.link_up(net.now, link, name, life, 1).expect("a link");
            }
        }
        let hosts = net.nodes.len() - first;
        while net.targets.len() < hosts {
            net.settle();
            net.now += Duration::from_millis(10);
            assert!(net.now < Duration::from_secs(60), "only {} of {hosts} are known", net.targets.len());
        }
        // Until everybody knows the origin too.
        net.rest();
        (0..100).for_each(|_| net.round());
        net.rest();
        net
    }

    /// Lets a second pass in which nothing new happens.
    fn rest(&mut self) {
        for _ in 0..100 {
            self.now += Duration::from_millis(10);
            self.settle();
        }
    }

    /// A packet from the origin to all, and what follows from it.
    fn round(&mut self) {
        self.now += ROUND;
        let began = Instant::now();
        self.nodes[0].engine.send(self.now, Lane::Normal, &self.targets, self.body.clone().into(), 1, &());
        self.nodes[0].worked += began.elapsed();
        self.settle();
    }

    /// Lets all nodes work until nobody has anything to say.
    fn settle(&mut self) {
        for node in 0..self.nodes.len() {
            self.work(node);
        }
        while let Some((node, link, message)) = self.under_way.pop_front() {
            let began = Instant::now();
            let engine = &mut self.nodes[node].engine;
            match message {
                Message::Control(message) => engine.receive_control(self.now, link, message),
                Message::Packet(frame) => engine.receive(self.now, link, frame).expect("a packet"),
            }
            self.nodes[node].worked += began.elapsed();
            self.work(node);
        }
    }

    fn work(&mut self, number: usize) {
        let began = Instant::now();
        let node = &mut self.nodes[number];
        node.engine.tick(self.now);
        while let Some(output) = node.engine.next_output() {
            match output {
                Output::Control { links, message } => {
                    for link in links {
                        let to = far_side(&self.links, link, number);
                        self.under_way.push_back((to, link, Message::Control(message.clone())));
                    }
                }
                Output::Packet { link, lane, header, body, .. } => {
                    node.sent += u64::from(lane.is_some());
                    node.engine.queued(link, 0);
                    let to = far_side(&self.links, link, number);
                    self.under_way.push_back((to, link, Message::Packet([header, body].concat().into())));
                }
                Output::Deliver { from, groups, body, .. } => {
                    node.taken += 1;
                    groups.iter().for_each(|group| node.engine.placed(self.now, from, *group, 1, body.len() as u64));
                }
                Output::Group { key, incarnation, .. } if number == 0 => {
                    let groups: Vec<GroupKey> = vec![key];
                    // A group may be told of again.
                    if self.targets.iter().all(|target| target.node != incarnation) {
                        self.targets.push(Target { node: incarnation, groups });
                    }
                }
                _ => {}
            }
        }
        node.worked += began.elapsed();
    }

    /// Where the time of a packet goes.
    fn explain(&mut self) -> String {
        const ROUNDS: u32 = 200;
        for node in &mut self.nodes {
            (node.worked, node.sent, node.taken) = (Duration::ZERO, 0, 0);
        }
        (0..ROUNDS).for_each(|_| self.round());
        let of = |node: &Node| node.worked / ROUNDS;
        let (origin, last) = (&self.nodes[0], &self.nodes[self.nodes.len() - 1]);
        assert_eq!(last.taken, u64::from(ROUNDS), "every packet arrives once");
        let mut text = format!("origin {:.1?} and {} packets", of(origin), origin.sent / u64::from(ROUNDS));
        if self.nodes.len() > self.targets.len() + 1 {
            let switch = &self.nodes[1];
            text += &format!(", switch {:.1?} and {}", of(switch), switch.sent / u64::from(ROUNDS));
        }
        text + &format!(", each destination {:.1?}", of(last))
    }
}

fn far_side(links: &BTreeMap<LinkId, (usize, usize)>, link: LinkId, here: usize) -> usize {
    let (from, to) = links[&link];
    if from == here { to } else { from }
}

fn group() -> GroupState {
    let select = "bench.tick".parse().expect("a pattern");
    GroupState {
        name: "bench".to_owned(),
        answers: true,
        selections: vec![Selection { select, key: None }],
        window: Window { events: 4096, bytes: 4 << 20 },
        ..GroupState::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_crosses_each_link_once() {
        for (mut net, packets) in [(Net::star(3), 1), (Net::mesh(3), 3)] {
            let text = net.explain();
            assert!(text.contains(&format!(" and {packets} packets")), "{text}");
        }
    }
}
