//! A peer with a valid certificate that does not keep to the protocol: it loses its link, and nothing else happens.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use edri::prelude::*;
use edri::{Encoding, Incarnation};
use edri_connector::quic::{Connection, Endpoint, Options as QuicOptions, Receiver, Sender, StreamLane};
use edri_connector::topology::{
    Content, GroupState, LinkState, Message, NODE_SLOT, NodeState, Record, Selection, Window,
};
use edri_protocol::items::Writer;
use edri_protocol::packet::{Destination, GroupCredit, Header, Lane, LaneAck, Signal, SignalKind};
use edri_protocol::{Grant, Payload, items};
use futures_util::StreamExt;

use super::{Cluster, Pair, Way, address, publish};
use crate::support::{Asked, Followed, Noted, Seen, asked, keeps, until, within};
use crate::tunnels::{Counted, multiply};

/// Somebody who dials the centre as a node would and then says what it likes.
struct Rogue {
    _endpoint: Endpoint,
    connection: Connection,
    sender: Sender,
    receiver: Receiver,
    incarnation: Incarnation,
    /// Later for each of its lives.
    epoch: u64,
}

static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

fn encoded(value: &serde_json::Value) -> Bytes {
    Body::encode(Encoding::MessagePack, value).expect("encoded").bytes
}

impl Rogue {
    async fn dials(cluster: &Cluster, centre: &Node) -> Self {
        let identity = cluster.identity("rogue");
        let endpoint = Endpoint::bind("127.0.0.1:0".parse().expect("an address"), identity, QuicOptions::default());
        let endpoint = endpoint.expect("bound");
        let connection = within("the handshake", endpoint.dial(address(centre))).await.expect("dialled");
        let (sender, receiver) = connection.lanes();
        let incarnation = Incarnation::from_number(fastrand::u64(1..)).expect("not 0");
        let epoch = NEXT_EPOCH.fetch_add(1, Ordering::SeqCst);
        Self { _endpoint: endpoint, connection, sender, receiver, incarnation, epoch }
    }

    /// Says hello, and that there is a link to the centre, so that the centre can reach it.
    async fn greets(&mut self, centre: &Node) {
        let hello = serde_json::json!({ "version": edri_protocol::VERSION, "incarnation": self.incarnation.get() });
        self.sender.send(StreamLane::Control, encoded(&hello));
        self.says(NODE_SLOT, 1, Content::Node(self.state(centre)));
        until("the rogue to be let in", || super::seen_by(centre, "rogue").is_some_and(|view| view.reachable)).await;
    }

    fn state(&self, centre: &Node) -> NodeState {
        let there = centre.topology();
        let link = LinkState { node: there.node, incarnation: there.incarnation, cost: 1 };
        NodeState { links: vec![link], protocol: edri_protocol::VERSION, ..NodeState::default() }
    }

    fn says(&mut self, slot: u32, version: u64, content: Content) {
        let node = edri::NodeName::new("rogue").expect("a name");
        let record = Record { node, epoch: self.epoch, incarnation: self.incarnation, slot, version, content };
        self.sender.send(StreamLane::Control, Message::Records(vec![record.encode()]).encode());
    }

    /// A packet for some groups of the centre.
    fn packet(&self, centre: &Node, origin: Incarnation, lane: Lane, sequence: u64, groups: Vec<u32>) -> Vec<u8> {
        let node = centre.topology().incarnation;
        let destination = Destination { node, session: 1, sequence, base: 0, groups };
        let header = Header { origin, lane, hops: 8, age_ms: 0, redelivered: false, destinations: vec![destination] };
        let mut frame = Vec::new();
        header.encode(&mut frame);
        frame
    }

    async fn is_cut(&mut self, what: &str) -> String {
        let closed = within(what, async {
            while self.receiver.next().await.is_some() {}
            self.connection.closed().await
        });
        closed.await.to_string()
    }
}

/// A centre that handles everything, and a sensor.
async fn pair(cluster: &Cluster, seen: &Seen<u64>) -> Pair {
    let keep = Manager::new("keep").worker(keeps(seen)).handles::<Noted>().handles::<Asked>();
    let serve = Manager::new("serve").worker(crate::support::does(multiply)).handles::<Counted>();
    let pair = cluster.pair(Way::Direct, |app| app.manager(keep).manager(serve), |app| app).await;
    super::knows(&pair.sensor, 2).await;
    pair
}

/// The other two go on as if nothing had happened.
async fn goes_on(pair: &Pair, seen: &Seen<u64>) {
    let before = seen.len();
    publish(&pair.sensor, 0..20).await;
    let numbers = seen.wait_for(before + 20).await;
    assert_eq!(numbers[before..before + 20], (0..20).collect::<Vec<_>>());
    assert_eq!(within("an answer", pair.sensor.bus().request(asked(5))).await.expect("answered"), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_in_any_lane_costs_a_peer_its_link_and_nothing_else() {
    let (cluster, seen) = (Cluster::new(), Seen::default());
    let pair = pair(&cluster, &seen).await;
    let mut rng = fastrand::Rng::with_seed(31);
    let mut rubbish = move |length: usize| Bytes::from((0..length).map(|_| rng.u8(..)).collect::<Vec<_>>());
    // Instead of a hello.
    let mut rogue = Rogue::dials(&cluster, &pair.centre).await;
    rogue.sender.send(StreamLane::Control, rubbish(100));
    rogue.is_cut("rubbish instead of a hello").await;
    let lanes = [StreamLane::Control, StreamLane::High, StreamLane::Normal, StreamLane::Tunnel(7)];
    for lane in lanes {
        let mut rogue = Rogue::dials(&cluster, &pair.centre).await;
        rogue.greets(&pair.centre).await;
        for length in [0, 1, 5, 100, 10_000] {
            rogue.sender.send(lane, rubbish(length));
        }
        let why = rogue.is_cut("rubbish in a lane").await;
        assert!(!why.is_empty(), "{lane:?}");
        goes_on(&pair, &seen).await;
        until("the rogue to be gone", || !super::seen_by(&pair.centre, "rogue").is_some_and(|view| view.reachable))
            .await;
    }
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_are_well_formed_and_wrong_harm_nobody() {
    let (cluster, seen) = (Cluster::new(), Seen::default());
    let pair = pair(&cluster, &seen).await;
    let mut rogue = Rogue::dials(&cluster, &pair.centre).await;
    rogue.greets(&pair.centre).await;
    let mut rng = fastrand::Rng::with_seed(32);
    let me = rogue.incarnation;
    let stranger = Incarnation::from_number(77).expect("not 0");
    let nothing = edri::Body::new(Encoding::MessagePack, vec![0xc0]);
    let value = Payload::of(&nothing);

    // What answers, ends or grants what was never begun, in each lane.
    let mut writer = Writer::new();
    writer.response(5, &items::Outcome::Value(value.clone())).expect("short");
    writer.cancel(9);
    writer.left(1);
    writer.left(99);
    writer.grant(Grant { items: u64::MAX, bytes: u64::MAX });
    writer.grant(Grant { items: 0, bytes: 0 });
    writer.end();
    writer.outcome(&items::Outcome::Value(value)).expect("short");
    let wrong = writer.take();
    let mut sequences = std::collections::BTreeMap::new();
    for lane in [Lane::High, Lane::Normal, Lane::Up(1), Lane::Down(1), Lane::Up(u64::MAX), Lane::Down(u64::MAX)] {
        let stream = match lane {
            Lane::High => StreamLane::High,
            Lane::Normal => StreamLane::Normal,
            Lane::Up(_) | Lane::Down(_) => StreamLane::Tunnel(3),
        };
        for origin in [me, stranger, pair.centre.topology().incarnation] {
            for groups in [vec![], vec![1], vec![1, 1, 2, 99], vec![u32::MAX]] {
                for round in 0..3 {
                    let sequence: &mut u64 = sequences.entry((origin, lane)).or_default();
                    let mut frame = rogue.packet(&pair.centre, origin, lane, *sequence, groups.clone());
                    *sequence += 1;
                    match round {
                        0 => frame.extend_from_slice(&wrong),
                        1 => frame.extend((0..rng.usize(0..200)).map(|_| rng.u8(..))),
                        _ => {
                            // Right, but for a few bytes.
                            let mut body = wrong.to_vec();
                            for _ in 0..4 {
                                let at = rng.usize(0..body.len());
                                body[at] = rng.u8(..);
                            }
                            frame.extend_from_slice(&body);
                        }
                    }
                    rogue.sender.send(stream, frame.into());
                }
            }
        }
    }
    let to = pair.centre.topology().incarnation;
    let lanes = vec![LaneAck { lane: Lane::Normal, next: u64::MAX, held: vec![] }];
    let credits = vec![GroupCredit { group: 1, events: u64::MAX, bytes: u64::MAX }];
    for kind in [
        SignalKind::Ack { session: 1, lanes, credits },
        SignalKind::Query { session: u32::MAX },
        SignalKind::Query { session: 7 },
        SignalKind::Probe { number: 3 },
        SignalKind::Alive { number: 3 },
    ] {
        for origin in [me, stranger] {
            let mut frame = Vec::new();
            Signal { origin, to, hops: 8, kind: kind.clone() }.encode(&mut frame);
            rogue.sender.send(StreamLane::High, frame.into());
        }
    }
    goes_on(&pair, &seen).await;
    assert_eq!(rogue.connection.closed_because().map(|closed| closed.to_string()), None, "it kept to the frames");
    drop(rogue);
    goes_on(&pair, &seen).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_groups_is_bounded_and_what_is_sent_to_them_is_accounted_for() {
    const GROUPS: u32 = 300;
    let (cluster, seen) = (Cluster::new(), Seen::default());
    let pair = pair(&cluster, &seen).await;
    let mut rogue = Rogue::dials(&cluster, &pair.centre).await;
    rogue.greets(&pair.centre).await;
    for number in 1..=GROUPS {
        let state = GroupState {
            name: format!("flood-{number}"),
            selections: vec![Selection { select: "test.followed".parse().expect("a pattern"), key: None }],
            // Asks for more than anybody has.
            window: Window { events: u32::MAX, bytes: u64::MAX },
            ..GroupState::default()
        };
        rogue.says(number, u64::from(number) + 1, Content::Group(state.into()));
    }
    until("the flood", || pair.centre.topology().remote.len() == GROUPS as usize).await;
    // They take part in nothing but what they asked for; the sensor's link is as it was.
    goes_on(&pair, &seen).await;
    let followed = |number| pair.centre.bus().publish(Followed { number });
    assert_eq!(within("room", followed(1)).await.expect("published").deliveries, GROUPS);
    drop(rogue);
    until("the flood to be over", || !super::seen_by(&pair.centre, "rogue").is_some_and(|view| view.reachable)).await;
    within("nobody to be waited for", followed(2)).await.expect("published");
    let (_, centre) = pair.end().await;
    assert_eq!(centre.account.dead_lettered, 2 * u64::from(GROUPS), "{:?}", centre.account);
}
