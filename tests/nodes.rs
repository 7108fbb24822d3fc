//! Several nodes, joined by real links over loopback.

use std::time::Duration;

use edri::keys::{Authority, Identity};
use edri::prelude::*;
use edri::{Connector, Node};

use crate::support::until;

/// An event for groups of other nodes.
#[event(notification, name = "nodes.ping")]
#[derive(Debug)]
struct Ping {
    number: u64,
}

#[event(request, name = "nodes.double", response = u64, timeout = "5s")]
struct Double {
    number: u64,
}

#[derive(Clone, Default)]
struct Counter {
    seen: std::sync::Arc<parking_lot::Mutex<Vec<u64>>>,
}

impl Worker for Counter {}

impl Handle<Ping> for Counter {
    async fn handle(&mut self, ping: &Ping, _: &mut Context) -> Result<(), Failure> {
        self.seen.lock().push(ping.number);
        Ok(())
    }
}

impl Handle<Double> for Counter {
    async fn handle(&mut self, double: &Double, _: &mut Context) -> Result<u64, Failure> {
        Ok(double.number * 2)
    }
}

fn identity(authority: &Authority, node: &str) -> Identity {
    let name = edri::NodeName::new(node).expect("a name");
    authority.issue(&name, Duration::from_secs(3600)).expect("an identity")
}

async fn listening(authority: &Authority, name: &str, app: App) -> (Node, String) {
    let connector = Connector::listen("127.0.0.1:0").with_identity(identity(authority, name));
    let node = app.connector(connector).start().await.expect("starts");
    let address = node.link_address().expect("listens").to_string();
    (node, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_and_a_request_reach_another_node() {
    let authority = Authority::generate().expect("an authority");
    let counter = Counter::default();
    let seen = counter.seen.clone();
    let manager = Manager::new("counter").worker(move || counter.clone()).handles::<Ping>().handles::<Double>();
    let (centre, address) = listening(&authority, "centre", App::new("centre").manager(manager)).await;
    let connector = Connector::dial().connect(&address).with_identity(identity(&authority, "sensor"));
    let sensor = App::new("sensor").connector(connector).expects("centre").start().await.expect("starts");
    sensor.bus().wait_for::<Ping>().await.expect("somebody");
    for number in 0..1000 {
        let receipt = sensor.bus().publish(Ping { number }).await.expect("published");
        assert_eq!(receipt.deliveries, 1);
    }
    until("all have come", || seen.lock().len() == 1000).await;
    assert_eq!(*seen.lock(), (0..1000).collect::<Vec<_>>());
    assert_eq!(sensor.bus().request(Double { number: 21 }).await.expect("answered"), 42);
    let report = sensor.shutdown().await;
    assert!(report.account.is_balanced(), "{:?}", report.account);
    assert_eq!(report.account.forwarded, 1001, "{:?}", report.account);
    let report = centre.shutdown().await;
    assert!(report.account.is_balanced());
    assert_eq!(report.account.handled, 1001, "{:?}", report.account);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_manager_is_one_group_on_all_nodes() {
    let authority = Authority::generate().expect("an authority");
    let (first, second) = (Counter::default(), Counter::default());
    let seen = [first.seen.clone(), second.seen.clone()];
    let shared =
        |counter: Counter| Manager::new("counter").inbox(16).shared().worker(move || counter.clone()).handles::<Ping>();
    let (north, address) = listening(&authority, "north", App::new("north").manager(shared(first))).await;
    let connector = Connector::dial().connect(&address).with_identity(identity(&authority, "south"));
    let south = App::new("south").manager(shared(second)).connector(connector).expects("north");
    let south = south.start().await.expect("starts");
    let connector = Connector::dial().connect(&address).with_identity(identity(&authority, "sensor"));
    let sensor = App::new("sensor").connector(connector).expects("north").expects("south");
    let sensor = sensor.start().await.expect("starts");
    until("both groups to be known", || sensor.topology().remote.len() == 2).await;
    for number in 0..500 {
        let receipt = sensor.bus().publish(Ping { number }).await.expect("published");
        assert_eq!(receipt.deliveries, 1, "one of them");
    }
    until("all have come", || seen.iter().map(|seen| seen.lock().len()).sum::<usize>() == 500).await;
    let mut all: Vec<u64> = seen.iter().flat_map(|seen| seen.lock().clone()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..500).collect::<Vec<_>>(), "each went to one");
    assert!(seen.iter().all(|seen| !seen.lock().is_empty()), "both took some");
    for node in [sensor, south, north] {
        assert!(node.shutdown().await.account.is_balanced());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_goes_on_when_credit_comes_however_its_end_met_the_outbox() {
    // Whether the outbox was just empty when the last credit was used is up to chance: about every other time.
    for _ in 0..8 {
        let authority = Authority::generate().expect("an authority");
        let counter = Counter::default();
        let seen = counter.seen.clone();
        let manager = Manager::new("counter").worker(move || counter.clone()).handles::<Ping>();
        let (centre, address) = listening(&authority, "centre", App::new("centre").manager(manager)).await;
        let connector = Connector::dial().connect(&address).with_identity(identity(&authority, "sensor"));
        let sensor = App::new("sensor").connector(connector).expects("centre").start().await.expect("starts");
        sensor.bus().wait_for::<Ping>().await.expect("somebody");
        // More than a window and an outbox.
        for number in 0..3000 {
            sensor.bus().publish(Ping { number }).await.expect("published");
        }
        until("all have come", || seen.lock().len() == 3000).await;
        assert_eq!(*seen.lock(), (0..3000).collect::<Vec<_>>());
        sensor.shutdown().await;
        centre.shutdown().await;
    }
}
