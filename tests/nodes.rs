//! Several nodes, joined by real links over loopback: everything works across nodes as within one.

mod calls;
mod cuts;
mod hostile;
mod keyed;
mod lives;
mod overload;
mod schedules;
mod tunnels;
mod verbs;
mod versions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edri::keys::{Authority, Identity};
use edri::prelude::*;
use edri::{Connector, NodeView, ShutdownReport};
use edri_tests::proxy::{Proxy, Weather};

use crate::support::{Noted, Seen, ends_well, keeps, noted, started, until, within};

/// The authority of a cluster, which lets nodes in.
pub(crate) struct Cluster {
    authority: Authority,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::generate().expect("an authority") }
    }

    fn identity(&self, node: &str) -> Identity {
        let name = edri::NodeName::new(node).expect("a name");
        self.authority.issue(&name, Duration::from_secs(3600)).expect("an identity")
    }

    pub(crate) fn listening(&self, node: &str) -> Connector {
        Connector::listen("127.0.0.1:0").with_identity(self.identity(node))
    }

    fn dialling(&self, node: &str, address: SocketAddr) -> Connector {
        Connector::dial().connect(&address.to_string()).with_identity(self.identity(node))
    }

    /// Starts a node that listens.
    pub(crate) async fn listens(&self, name: &str, more: impl FnOnce(App) -> App) -> Node {
        started(more(App::new(name)).connector(self.listening(name))).await
    }

    /// Starts a node that dials, and returns once it has met all of these.
    pub(crate) async fn dials(
        &self,
        name: &str,
        address: SocketAddr,
        meets: &[&str],
        more: impl FnOnce(App) -> App,
    ) -> Node {
        let app = more(App::new(name)).connector(self.dialling(name, address));
        started(meets.iter().fold(app, |app, node| app.expects(node))).await
    }

    /// Starts a centre and a sensor that has met it, joined in this way.
    async fn pair(&self, way: Way, centre: impl FnOnce(App) -> App, sensor: impl FnOnce(App) -> App) -> Pair {
        match way {
            Way::Direct => {
                let centre = self.listens("centre", centre).await;
                let sensor = self.dials("sensor", address(&centre), &["centre"], sensor).await;
                Pair { centre, sensor, switch: None }
            }
            Way::Switch => {
                let switch = started(App::new("switch").connector(self.listening("switch").switch())).await;
                let centre = self.dials("centre", address(&switch), &[], centre).await;
                let sensor = self.dials("sensor", address(&switch), &["centre"], sensor).await;
                Pair { centre, sensor, switch: Some(switch) }
            }
        }
    }

    /// Starts a centre and a sensor that has met it, with a proxy between them.
    pub(crate) async fn apart(
        &self,
        seed: u64,
        centre: impl FnOnce(App, Connector) -> App,
        sensor: impl FnOnce(App, Connector) -> App,
    ) -> (Pair, Proxy) {
        let centre = started(centre(App::new("centre"), self.listening("centre"))).await;
        let proxy = Proxy::start(address(&centre), Weather::default(), seed).await.expect("a proxy");
        let dialling = self.dialling("sensor", proxy.address());
        let sensor = started(sensor(App::new("sensor"), dialling).expects("centre")).await;
        (Pair { centre, sensor, switch: None }, proxy)
    }
}

/// How two nodes are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By a link between them.
    Direct,
    /// By a third node that only forwards.
    Switch,
}

const WAYS: [Way; 2] = [Way::Direct, Way::Switch];

/// A sensor and a centre.
pub(crate) struct Pair {
    pub(crate) centre: Node,
    pub(crate) sensor: Node,
    switch: Option<Node>,
}

impl Pair {
    /// Stops all, the sensor first; none leaves anything behind. What the sensor and the centre report.
    pub(crate) async fn end(&self) -> (Arc<ShutdownReport>, Arc<ShutdownReport>) {
        let sensor = ends_well(&self.sensor).await;
        let centre = ends_well(&self.centre).await;
        if let Some(switch) = &self.switch {
            let account = ends_well(switch).await.account;
            assert_eq!(account.deliveries, 0, "a switch takes nothing for itself");
        }
        (sensor, centre)
    }
}

pub(crate) fn address(node: &Node) -> SocketAddr {
    node.link_address().expect("it has a connector")
}

/// What a node says of another.
fn seen_by(node: &Node, other: &str) -> Option<NodeView> {
    node.topology().nodes.into_iter().find(|view| view.name.as_str() == other)
}

/// Waits until a node says that it can, or cannot, reach another.
pub(crate) async fn reaches(node: &Node, other: &str, reachable: bool) {
    let what = format!("{} to {} {other}", node.topology().node, if reachable { "reach" } else { "lose" });
    until(&what, || seen_by(node, other).is_some_and(|view| view.reachable) == reachable).await;
}

/// Waits until a node can send to so many groups of others.
pub(crate) async fn knows(node: &Node, groups: usize) {
    until("the groups of other nodes", || node.topology().remote.len() == groups).await;
    // Behind the changes that brought them.
    within("the table", node.router().change(Vec::new(), &[])).await.expect("nothing to refuse");
}

/// Publishes [`noted`] numbers one after another; each goes to one group.
async fn publish(node: &Node, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let receipt = within("room", node.bus().publish(noted(number))).await.expect("published");
        assert_eq!(receipt.deliveries, 1, "number {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_reaches_another_node_once_and_in_order_and_both_say_so() {
    for way in WAYS {
        let seen = Seen::default();
        let manager = Manager::new("keep").worker(keeps(&seen)).handles::<Noted>();
        let pair = Cluster::new().pair(way, |app| app.manager(manager), |app| app).await;
        within("somebody", pair.sensor.bus().wait_for::<Noted>()).await.expect("somebody");
        publish(&pair.sensor, 0..1000).await;
        assert_eq!(seen.wait_for(1000).await, (0..1000).collect::<Vec<_>>());
        let (sensor, centre) = pair.end().await;
        assert_eq!((sensor.account.deliveries, sensor.account.forwarded), (1000, 1000), "{way:?}");
        assert_eq!((centre.account.deliveries, centre.account.handled), (1000, 1000), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_manager_is_one_group_on_all_nodes() {
    let cluster = Cluster::new();
    let seen = [Seen::default(), Seen::default()];
    let shared = |seen: &Seen<u64>| Manager::new("counter").inbox(16).shared().worker(keeps(seen)).handles::<Noted>();
    let north = cluster.listens("north", |app| app.manager(shared(&seen[0]))).await;
    let address = north.link_address().expect("it listens");
    let south = cluster.dials("south", address, &["north"], |app| app.manager(shared(&seen[1]))).await;
    let sensor = cluster.dials("sensor", address, &["north", "south"], |app| app).await;
    until("both groups to be known", || sensor.topology().remote.len() == 2).await;
    for number in 0..500 {
        let receipt = sensor.bus().publish(noted(number)).await.expect("published");
        assert_eq!(receipt.deliveries, 1, "one of them");
    }
    until("all to have come", || seen.iter().map(Seen::len).sum::<usize>() == 500).await;
    let mut all: Vec<u64> = seen.iter().flat_map(Seen::list).collect();
    all.sort_unstable();
    assert_eq!(all, (0..500).collect::<Vec<_>>(), "each went to one");
    assert!(seen.iter().all(|seen| seen.len() > 0), "both took some");
    for node in [sensor, south, north] {
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_credit_was_just_enough_is_sent_what_comes_next() {
    let (cluster, seen) = (Cluster::new(), Seen::default());
    // One place is one event of credit, so each event uses up all there is and leaves nothing waiting for more.
    let manager = Manager::new("counter").worker(keeps(&seen)).inbox(1).handles::<Noted>();
    let centre = cluster.listens("centre", |app| app.manager(manager)).await;
    let sensor = cluster.dials("sensor", address(&centre), &["centre"], |app| app).await;
    within("somebody to handle it", sensor.bus().wait_for::<Noted>()).await.expect("somebody");
    for number in 0..10 {
        sensor.bus().publish(noted(number)).await.expect("published");
        until("it to have come", || seen.len() as u64 == number + 1).await;
    }
    ends_well(&sensor).await;
    ends_well(&centre).await;
}
