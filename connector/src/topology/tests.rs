//! What each rule promises, then networks with faults.

mod bounds;
mod lives;
mod net;
mod rules;
mod simulation;
mod wire;

use std::time::Duration;

use edri_events::{Incarnation, NodeName, Pattern};

use self::net::Net;
use super::{
    Content, GroupState, LinkId, LinkState, Message, NODE_SLOT, NodeState, Options, Output, Record, Selection, Topology,
};

/// The link to the neighbour whose messages a test makes up.
const LINK: LinkId = LinkId(7);
const START: Duration = Duration::from_secs(100);

fn name(node: &str) -> NodeName {
    NodeName::new(node).expect("a name")
}

fn life(number: u64) -> Incarnation {
    Incarnation::from_number(number).expect("not 0")
}

fn group(name: &str) -> GroupState {
    let select = Pattern::new("quake.*").expect("a pattern");
    GroupState { name: name.to_owned(), selections: vec![Selection { select, key: None }], ..GroupState::default() }
}

fn topology(node: &str, incarnation: u64) -> Topology {
    Topology::new(name(node), life(incarnation), Options::default())
}

/// Node `a` with a neighbour `b`, whose messages a test makes up.
fn with_neighbour() -> Topology {
    let mut a = topology("a", 10);
    join(&mut a, LINK, "b", 20);
    a.poll(START);
    hear(&mut a, [record("b", 1, 20, NODE_SLOT, 1, lists(&[("a", 10)]))]);
    a.poll(START);
    a
}

/// A neighbour with nothing to tell, that has been told everything.
fn join(topology: &mut Topology, link: LinkId, peer: &str, incarnation: u64) {
    topology.link_up(link, name(peer), life(incarnation), 1).expect("taken");
    topology.receive(link, Message::Summary(Vec::new()));
}

fn record(node: &str, epoch: u64, incarnation: u64, slot: u32, version: u64, content: Content) -> Record {
    Record { node: name(node), epoch, incarnation: life(incarnation), slot, version, content }
}

fn lists(links: &[(&str, u64)]) -> Content {
    let link =
        |(node, incarnation): &(&str, u64)| LinkState { node: name(node), incarnation: life(*incarnation), cost: 1 };
    Content::Node(NodeState { links: links.iter().map(link).collect(), ..NodeState::default() })
}

fn of_group(name: &str) -> Content {
    Content::Group(group(name).into())
}

fn hear(topology: &mut Topology, records: impl IntoIterator<Item = Record>) {
    let records = records.into_iter().map(|record| record.encode()).collect();
    topology.receive(LINK, Message::Records(records));
}

fn told(outputs: &[Output]) -> Vec<(Vec<LinkId>, Record)> {
    let mut told = Vec::new();
    for output in outputs {
        if let Output::Send { links, message: Message::Records(records) } = output {
            told.extend(records.iter().map(|bytes| (links.clone(), Record::decode(bytes).expect("a record"))));
        }
    }
    told
}

fn others(outputs: Vec<Output>) -> Vec<Output> {
    outputs.into_iter().filter(|output| !matches!(output, Output::Send { .. })).collect()
}

/// Passes messages between topologies that are joined by `wires`, at one moment, until there are none, and says what else
/// came out of whom.
fn pass(nodes: &mut [&mut Topology], wires: &[[(usize, LinkId); 2]], now: Duration) -> Vec<(usize, Output)> {
    let mut all = Vec::new();
    for round in 0.. {
        assert!(round < 1000, "they never stop talking");
        let mut messages = Vec::new();
        for (at, node) in nodes.iter_mut().enumerate() {
            for output in node.poll(now) {
                let Output::Send { links, message } = output else {
                    all.push((at, output));
                    continue;
                };
                let ends = wires.iter().flat_map(|[one, other]| [(one, other), (other, one)]);
                let to = ends.filter(|((from, link), _)| *from == at && links.contains(link));
                messages.extend(to.map(|(_, to)| (*to, message.clone())));
            }
        }
        if messages.is_empty() {
            break;
        }
        for ((to, link), message) in messages {
            nodes[to].receive(link, message);
        }
    }
    all
}

fn chain(nodes: &[&str]) -> Net {
    let mut net = Net::new(3, Options::default());
    for node in nodes {
        net.start(node);
    }
    for pair in nodes.windows(2) {
        net.connect(pair[0], pair[1], [1, 1]);
    }
    net.run(Duration::from_secs(1));
    net.check_agreement();
    net
}

fn add_group(net: &mut Net, node: &str, number: u32, wants: &str) {
    let host = net.host(node);
    host.groups.insert(number, group(wants));
    host.topology.set_group(number, group(wants)).expect("taken");
    net.poll(&name(node));
}

fn take_log(net: &mut Net, node: &str) -> Vec<String> {
    std::mem::take(&mut net.host(node).mirror.log)
}
