//! A network of topologies in virtual time, and what it should come to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use edri_events::{Incarnation, NodeName};

use super::super::{GroupState, LinkId, Message, NodeStatus, Options, Output, Record, Topology};
use super::name;

/// Numbers that look random and are the same for the same seed (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

type Groups = BTreeMap<u32, Arc<GroupState>>;

/// What a user of a topology knows from its outputs alone.
#[derive(Default)]
pub(super) struct Mirror {
    pub(super) nodes: BTreeMap<NodeName, (Incarnation, NodeStatus, Groups)>,
    hops: BTreeMap<u64, LinkId>,
    pub(super) synced: BTreeSet<LinkId>,
    pub(super) twin: Option<Incarnation>,
    pub(super) refused: u64,
    pub(super) log: Vec<String>,
}

pub(super) struct Host {
    pub(super) topology: Topology,
    pub(super) incarnation: Incarnation,
    pub(super) mirror: Mirror,
    pub(super) links: BTreeMap<LinkId, (NodeName, Incarnation, u32)>,
    pub(super) groups: BTreeMap<u32, GroupState>,
    pub(super) settled: bool,
    next_link: u32,
    pub(super) next_group: u32,
}

/// A connection as it is, whatever its ends know.
pub(super) struct Wire {
    pub(super) ends: [(NodeName, LinkId); 2],
}

/// What the network does to messages.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    /// One message in so many is lost; 0: none.
    pub(super) loss: u64,
    /// The longest way of a message, in milliseconds.
    pub(super) delay_ms: u64,
    pub(super) reorders: bool,
}

pub(super) const CALM: Weather = Weather { loss: 0, delay_ms: 5, reorders: false };

enum Happening {
    Arrives { wire: u64, to: usize, bytes: bytes::Bytes },
    Noticed { host: NodeName, incarnation: Incarnation, link: LinkId },
}

/// How many messages and records were sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) messages: usize,
    pub(super) digests: usize,
    pub(super) node_records: usize,
    pub(super) group_records: usize,
}

pub(super) struct Net {
    pub(super) hosts: BTreeMap<NodeName, Host>,
    pub(super) wires: BTreeMap<u64, Wire>,
    /// Which wire a link is, and its other end.
    ends: HashMap<(NodeName, Incarnation, LinkId), (u64, usize)>,
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) weather: Weather,
    /// Whether what comes at the same moment is received together.
    pub(super) batches: bool,
    /// Whether a node has to come up with all its groups at once.
    pub(super) complete: bool,
    pub(super) sent: Sent,
    pub(super) options: Options,
    next_wire: u64,
    happenings: BTreeMap<(Duration, u64), Happening>,
    next_happening: u64,
    /// When the last message of each wire and direction arrives.
    last_arrival: BTreeMap<(u64, usize), Duration>,
}

impl Net {
    pub(super) fn new(seed: u64, options: Options) -> Self {
        Self {
            hosts: BTreeMap::new(),
            wires: BTreeMap::new(),
            ends: HashMap::new(),
            now: Duration::from_secs(1000),
            random: Random(seed),
            weather: CALM,
            batches: true,
            complete: false,
            sent: Sent::default(),
            options,
            next_wire: 1,
            happenings: BTreeMap::new(),
            next_happening: 0,
            last_arrival: BTreeMap::new(),
        }
    }

    /// Starts a node in a new life.
    pub(super) fn start(&mut self, node: &str) {
        let number = self.random.next() | 1;
        self.start_as(node, number);
    }

    pub(super) fn start_as(&mut self, node: &str, number: u64) {
        let incarnation = Incarnation::from_number(number).expect("not 0");
        let host = Host {
            topology: Topology::new(name(node), incarnation, self.options.clone()),
            incarnation,
            mirror: Mirror::default(),
            links: BTreeMap::new(),
            groups: BTreeMap::new(),
            settled: false,
            next_link: 1,
            next_group: 1,
        };
        assert!(self.hosts.insert(name(node), host).is_none(), "{node} runs already");
        self.poll(&name(node));
    }

    /// Ends a node without a word; its neighbours notice later.
    pub(super) fn kill(&mut self, node: &NodeName) {
        let wires: Vec<u64> = self.wires_of(node);
        self.hosts.remove(node);
        for wire in wires {
            self.cut(wire, 3000);
        }
    }

    pub(super) fn wires_of(&self, node: &NodeName) -> Vec<u64> {
        let mine = self.wires.iter().filter(|(_, wire)| wire.ends.iter().any(|(end, _)| end == node));
        mine.map(|(wire, _)| *wire).collect()
    }

    pub(super) fn host(&mut self, node: &str) -> &mut Host {
        self.hosts.get_mut(node).expect("it runs")
    }

    pub(super) fn connect(&mut self, a: &str, b: &str, costs: [u32; 2]) -> u64 {
        let names = [name(a), name(b)];
        let lives = [self.host(a).incarnation, self.host(b).incarnation];
        let mut link = |at: usize| {
            let host = self.hosts.get_mut(&names[at]).expect("it runs");
            let link = LinkId(host.next_link);
            host.next_link += 1;
            let peer = (names[1 - at].clone(), lives[1 - at], costs[at]);
            host.topology.link_up(link, peer.0.clone(), peer.1, peer.2).expect("taken");
            host.links.insert(link, peer);
            (names[at].clone(), link)
        };
        let wire = Wire { ends: [link(0), link(1)] };
        let id = self.next_wire;
        self.next_wire += 1;
        for (at, (end, link)) in wire.ends.iter().enumerate() {
            self.ends.insert((end.clone(), lives[at], *link), (id, 1 - at));
        }
        self.wires.insert(id, wire);
        for name in &names {
            self.poll(name);
        }
        id
    }

    /// Cuts a connection; what is on it is lost, and each end notices within `notice_ms`.
    pub(super) fn cut(&mut self, wire: u64, notice_ms: u64) {
        let Some(wire) = self.wires.remove(&wire) else { return };
        for (host, link) in wire.ends {
            let Some(incarnation) = self.hosts.get(&host).map(|host| host.incarnation) else { continue };
            let after = Duration::from_millis(self.random.below(notice_ms + 1));
            self.schedule(self.now + after, Happening::Noticed { host, incarnation, link });
        }
    }

    fn schedule(&mut self, at: Duration, happening: Happening) {
        self.next_happening += 1;
        self.happenings.insert((at, self.next_happening), happening);
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let happenings = self.happenings.keys().next().map(|(at, _)| *at);
            let deadlines = self.hosts.values().filter_map(|host| host.topology.next_deadline());
            let Some(at) = deadlines.chain(happenings).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            let due = |host: &Host| host.topology.next_deadline().is_some_and(|due| due <= self.now);
            let due = self.hosts.iter().filter(|(_, host)| due(host));
            let mut busy: BTreeSet<NodeName> = due.map(|(name, _)| name.clone()).collect();
            while let Some(first) = self.happenings.first_entry().filter(|first| first.key().0 <= self.now) {
                let happening = first.remove();
                let Some(name) = self.happen(happening) else { continue };
                if self.batches {
                    busy.insert(name);
                } else {
                    self.poll(&name);
                }
            }
            for name in &busy {
                self.poll(name);
            }
        }
        self.now = end;
    }

    /// Whom it happens to.
    fn happen(&mut self, happening: Happening) -> Option<NodeName> {
        match happening {
            Happening::Noticed { host: name, incarnation, link } => {
                let host = self.hosts.get_mut(&name).filter(|host| host.incarnation == incarnation)?;
                host.topology.link_down(link);
                host.links.remove(&link);
                Some(name)
            }
            Happening::Arrives { wire, to, bytes } => {
                let (name, link) = self.wires.get(&wire)?.ends[to].clone();
                let message = Message::decode(&bytes).expect("what was sent can be read");
                self.host(&name).topology.receive(link, message);
                Some(name)
            }
        }
    }

    pub(super) fn poll(&mut self, name: &NodeName) {
        let host = self.hosts.get_mut(name).expect("it runs");
        let outputs = host.topology.poll(self.now);
        let due = host.topology.next_deadline();
        assert!(due.is_none_or(|due| due > self.now), "{name} has something to do that it has not done");
        host.mirror.apply(&outputs);
        host.mirror.check(name, &host.topology);
        let up = outputs.iter().filter_map(|output| match output {
            Output::NodeUp { node, .. } => Some(node),
            _ => None,
        });
        for node in up.filter(|_| self.complete) {
            let groups = self.hosts[name].mirror.nodes[node].2.len();
            assert_eq!(groups, self.hosts[node].groups.len(), "{node} comes up at {name}");
        }
        for output in outputs {
            if let Output::Send { links, message } = output {
                self.send(name, &links, &message);
            }
        }
    }

    fn send(&mut self, from: &NodeName, links: &[LinkId], message: &Message) {
        assert!(!links.is_empty());
        let bytes = message.encode();
        let (mut of_nodes, mut of_groups) = (0, 0);
        if let Message::Records(records) = message {
            for record in records {
                match Record::decode(record).expect("a record").slot {
                    0 => of_nodes += 1,
                    _ => of_groups += 1,
                }
            }
        }
        let incarnation = self.hosts[from].incarnation;
        for link in links {
            let Some((wire, to)) = self.ends.get(&(from.clone(), incarnation, *link)).copied() else { continue };
            if !self.wires.contains_key(&wire) {
                continue;
            }
            self.sent.messages += 1;
            self.sent.digests += usize::from(matches!(message, Message::Digest(_)));
            self.sent.node_records += of_nodes;
            self.sent.group_records += of_groups;
            if self.weather.loss > 0 && self.random.one_in(self.weather.loss) {
                continue;
            }
            let mut at = self.now + Duration::from_millis(1 + self.random.below(self.weather.delay_ms));
            if !self.weather.reorders {
                let last = self.last_arrival.entry((wire, to)).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.schedule(at, Happening::Arrives { wire, to, bytes: bytes.clone() });
        }
    }

    /// Distances between all pairs of nodes that are joined, by trying all nodes on the way (Floyd, Warshall).
    fn distances(&self) -> Distances {
        let names: Vec<NodeName> = self.hosts.keys().cloned().collect();
        let count = names.len();
        let edges: Vec<Vec<Option<u32>>> =
            names.iter().map(|a| names.iter().map(|b| self.edge(a, b)).collect()).collect();
        let mut all = edges.clone();
        for (at, row) in all.iter_mut().enumerate() {
            row[at] = Some(0);
        }
        for by in 0..count {
            for a in 0..count {
                for b in 0..count {
                    let there = all[a][by].zip(all[by][b]).map(|(one, other)| one + other);
                    all[a][b] = [all[a][b], there].into_iter().flatten().min();
                }
            }
        }
        Distances { names, edges, all }
    }

    fn edge(&self, a: &NodeName, b: &NodeName) -> Option<u32> {
        let says = |from: &NodeName, to: &NodeName| {
            self.hosts[from].links.values().filter(|(peer, ..)| peer == to).map(|(.., cost)| *cost).min()
        };
        Some(says(a, b)?.max(says(b, a)?))
    }

    /// Every node knows exactly what is so: whom it can reach, how, what groups there are, and whether all are settled.
    pub(super) fn check_agreement(&self) {
        let distances = self.distances();
        for (at, (name, host)) in self.hosts.iter().enumerate() {
            let reachable = host.mirror.nodes.iter().filter(|(_, (_, status, _))| status.reachable);
            let reached: BTreeSet<&NodeName> = reachable.map(|(node, _)| node).collect();
            let joined = distances.joined(at);
            assert_eq!(reached, joined.iter().copied().filter(|other| *other != name).collect(), "whom {name} reaches");
            for (to, (other, there)) in self.hosts.iter().enumerate() {
                let Some(distance) = distances.all[at][to].filter(|_| at != to) else { continue };
                let (incarnation, status, groups) = &host.mirror.nodes[other];
                assert_eq!(*incarnation, there.incarnation, "{name} knows the life of {other}");
                assert_eq!(status.distance, distance, "how far it is from {name} to {other}");
                assert_eq!(status.settled, there.settled, "whether {other} is settled, at {name}");
                let groups: BTreeMap<u32, GroupState> = groups.iter().map(|(n, g)| (*n, (**g).clone())).collect();
                assert_eq!(groups, there.groups, "the groups of {other}, at {name}");
                let first = distances.first(at, to);
                let links = host.links.iter().filter(|(_, (peer, ..))| peer == first);
                let link = links.min_by_key(|(id, (.., cost))| (*cost, std::cmp::Reverse(**id))).map(|(id, _)| *id);
                assert_eq!(host.topology.next_hop(there.incarnation), link, "from {name} to {other}");
            }
            let settled = joined.iter().all(|other| self.hosts[*other].settled);
            assert_eq!(host.topology.is_settled(), settled, "whether {name} finds everything settled");
            let synced = host.links.keys().filter(|link| host.mirror.synced.contains(link)).count();
            assert_eq!(synced, host.links.len(), "{name} has been told all by all neighbours");
        }
    }

    /// Nobody has anything left of those who cannot be reached.
    pub(super) fn check_no_remains(&self) {
        let distances = self.distances();
        for (at, (name, host)) in self.hosts.iter().enumerate() {
            let known: BTreeSet<&NodeName> = host.topology.known.iter().map(|(node, _)| node).collect();
            assert_eq!(known, distances.joined(at), "whom {name} has records of");
            assert!(host.topology.lost.is_empty());
            assert!(
                host.topology.links.values().all(|link| link.untold.is_empty()),
                "whom {name} has to tell of later"
            );
            assert_eq!(host.mirror.nodes.len() + 1, known.len());
            let bytes: usize = host.topology.known.iter().map(|(_, node)| node.bytes).sum();
            assert_eq!(bytes, host.topology.known.bytes());
        }
    }
}

struct Distances {
    names: Vec<NodeName>,
    edges: Vec<Vec<Option<u32>>>,
    all: Vec<Vec<Option<u32>>>,
}

impl Distances {
    /// Whoever is joined to a node, and itself.
    fn joined(&self, at: usize) -> BTreeSet<&NodeName> {
        self.names.iter().zip(&self.all[at]).filter_map(|(name, distance)| distance.map(|_| name)).collect()
    }

    /// The neighbour with the smallest name that a shortest path begins with.
    fn first(&self, at: usize, to: usize) -> &NodeName {
        let begins = |by: &usize| {
            let length = self.edges[at][*by].zip(self.all[*by][to]).map(|(first, rest)| first + rest);
            length.is_some() && length == self.all[at][to]
        };
        let first = (0..self.names.len()).find(begins).expect("a shortest path begins somewhere");
        &self.names[first]
    }
}

impl Mirror {
    pub(super) fn apply(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::NodeUp { node, incarnation, status } => {
                    self.log.push(format!("{node} up"));
                    let old = self.nodes.insert(node.clone(), (*incarnation, *status, BTreeMap::new()));
                    assert_eq!(old, None, "{node} comes up when it was not there");
                    assert!(status.reachable);
                }
                Output::NodeChanged { node, incarnation, status } => {
                    let reachable = if status.reachable { "reachable" } else { "unreachable" };
                    self.log.push(format!("{node} {reachable} {}", status.distance));
                    let entry = self.nodes.get_mut(node).expect("a node changes that is up");
                    assert_eq!(entry.0, *incarnation);
                    assert_ne!(entry.1, *status, "a change changes something");
                    entry.1 = *status;
                }
                Output::NodeGone { node, incarnation, why } => {
                    self.log.push(format!("{node} {why:?}"));
                    let old = self.nodes.remove(node).expect("a node goes that is up");
                    assert_eq!(old.0, *incarnation);
                }
                Output::GroupChanged { node, incarnation, number, state } => {
                    let entry = self.nodes.get_mut(node).expect("a group changes of a node that is up");
                    assert_eq!(entry.0, *incarnation);
                    let what = state.as_ref().map_or("-", |state| &state.name);
                    self.log.push(format!("{node}/{number} {what}"));
                    let old = match state {
                        Some(state) => entry.2.insert(*number, Arc::clone(state)),
                        None => entry.2.remove(number),
                    };
                    assert_ne!(old, *state, "a change changes something");
                }
                Output::Synced { link } => assert!(self.synced.insert(*link), "once a link"),
                Output::PathsChanged { destinations } => {
                    assert!(!destinations.is_empty());
                    // `check` finds those that changed without being named, or were named without having changed.
                    for destination in destinations {
                        self.hops.entry(destination.get()).or_insert(LinkId(0)).0 |= 1 << 31;
                    }
                }
                Output::Twin { other, .. } => {
                    assert_eq!(self.twin.replace(*other), None, "once");
                }
                Output::Refused { count, .. } => self.refused += count,
                Output::Send { .. } => {}
            }
        }
    }

    fn check(&mut self, name: &NodeName, topology: &Topology) {
        let hops = topology.routes.iter().map(|(to, route)| (to.get(), route.link)).collect::<BTreeMap<_, _>>();
        let all: BTreeSet<u64> = self.hops.keys().chain(hops.keys()).copied().collect();
        for to in all {
            let (before, after) = (self.hops.get(&to), hops.get(&to));
            let named = before.is_some_and(|link| link.0 >> 31 == 1);
            let before = before.map(|link| LinkId(link.0 & !(1 << 31))).filter(|link| link.0 != 0);
            assert_eq!(named, before != after.copied(), "{name} names the paths that changed");
        }
        self.hops = hops;
        for (node, (incarnation, status, _)) in &self.nodes {
            assert_eq!(topology.incarnation_of(node), Some(*incarnation));
            assert_eq!(topology.name_of(*incarnation), Some(node));
            assert_eq!(topology.next_hop(*incarnation).is_some(), status.reachable);
        }
        assert_eq!(topology.names.len(), self.nodes.len() + 1);
    }
}
