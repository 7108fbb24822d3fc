//! Nodes that die, come back, stop, and change what they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edri::prelude::*;
use edri_tests::proxy::{Proxy, Weather};
use futures_util::FutureExt;

use super::{Cluster, WAYS, address, publish, reaches, seen_by};
use crate::support::{
    AskedAgain, Gate, Noted, Seen, at_rest, does, ends_well, keeps, letters, noted, started, until, within,
};

/// A manager that writes down the numbers it is given, and whether they may have been handled before.
fn witness(seen: &Seen<(u64, bool)>) -> edri::Definition {
    witnesses(seen, false)
}

/// The same; `shared` if it is one group on all nodes that run it.
fn witnesses(seen: &Seen<(u64, bool)>, shared: bool) -> edri::Definition {
    let seen = seen.clone();
    let worker = does(move |event: &Noted, cx| {
        seen.add((event.number, cx.is_redelivered()));
        async { Ok(()) }.boxed()
    });
    let manager = Manager::new("keep").worker(worker).handles::<Noted>();
    if shared { manager.shared().into() } else { manager.into() }
}

/// A manager that answers requests which may be tried again, once the gate lets it; with one more if they are.
fn answers(gate: &Gate, answer: u64) -> edri::Definition {
    let gate = gate.clone();
    let worker = does(move |_: &AskedAgain, cx| {
        let (gate, again) = (gate.clone(), u64::from(cx.is_redelivered()));
        async move {
            gate.pass().await;
            Ok(answer + again)
        }
        .boxed()
    });
    Manager::new("answers").worker(worker).handles::<AskedAgain>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_that_died_had_not_confirmed_comes_to_its_next_life_marked() {
    let cluster = Cluster::new();
    let (before, after) = (Seen::default(), Seen::default());
    let first = cluster.listens("centre", |app| app.manager(witness(&before))).await;
    let proxy = Proxy::start(address(&first), Weather::default(), 21).await.expect("a proxy");
    let sensor = cluster.dials("sensor", proxy.address(), &["centre"], |app| app).await;
    super::knows(&sensor, 1).await;
    publish(&sensor, 0..100).await;
    before.wait_for(100).await;
    until("all to be confirmed", || sensor.bus().account().forwarded == 100).await;

    // These are sent, and nobody is there; then those who wait for a way.
    proxy.cut();
    publish(&sensor, 100..150).await;
    drop(first);
    reaches(&sensor, "centre", false).await;
    publish(&sensor, 150..200).await;
    let second = cluster.listens("centre", |app| app.manager(witness(&after))).await;
    proxy.turn_to(address(&second));
    proxy.mend();
    let came = after.wait_for(100).await;
    assert_eq!(came.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (100..200).collect::<Vec<_>>());
    assert!(came[0].1, "the first was sent to the life that died");
    assert!(!came[99].1, "the last was not sent to it");
    assert_eq!(before.len(), 100);
    assert!(before.list().iter().all(|(_, redelivered)| !redelivered));
    // Goes on as before.
    publish(&sensor, 200..300).await;
    assert_eq!(after.wait_for(200).await[199], (299, false));
    assert_eq!(letters(sensor.bus()), []);
    ends_well(&sensor).await;
    ends_well(&second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_to_another_node_of_a_shared_manager_when_one_dies_is_marked_there() {
    let cluster = Cluster::new();
    let (before, after) = (Seen::default(), Seen::default());
    let north = cluster.listens("north", |app| app.manager(witnesses(&before, true))).await;
    let south = cluster.listens("south", |app| app).await;
    let proxy = Proxy::start(address(&north), Weather::default(), 24).await.expect("a proxy");
    let connector = cluster.dialling("sensor", proxy.address()).connect(&address(&south).to_string());
    let connector = connector.expiry(Duration::from_secs(1));
    let sensor = started(App::new("sensor").connector(connector).expects("north").expects("south")).await;
    super::knows(&sensor, 1).await;
    publish(&sensor, 0..10).await;
    before.wait_for(10).await;
    until("all to be confirmed", || sensor.bus().account().forwarded == 10).await;

    // These are sent, and nobody says that they have come; then those who wait for a way.
    proxy.cut();
    publish(&sensor, 10..20).await;
    reaches(&sensor, "north", false).await;
    publish(&sensor, 20..30).await;
    south.add(witnesses(&after, true)).await.expect("added");
    drop(north);
    let mut came = after.wait_for(20).await;
    came.sort_unstable();
    let expected: Vec<_> = (10..30).map(|number| (number, number < 20)).collect();
    assert_eq!(came, expected, "those that the dead node may have handled are marked, and no others");
    assert_eq!(letters(sensor.bus()), []);
    ends_well(&sensor).await;
    ends_well(&south).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_may_be_tried_again_is_answered_by_another_node_when_the_first_dies() {
    let cluster = Cluster::new();
    let (never, open) = (Gate::closed(), Gate::closed());
    open.open();
    let north = cluster.listens("north", |app| app.manager(answers(&never, 1))).await;
    let south = cluster.listens("south", |app| app).await;
    let connector = cluster.dialling("sensor", address(&north)).connect(&address(&south).to_string());
    let connector = connector.expiry(Duration::from_secs(1));
    let sensor = started(App::new("sensor").connector(connector).expects("north").expects("south")).await;
    within("somebody", sensor.bus().wait_for::<AskedAgain>()).await.expect("somebody");
    let bus = sensor.bus().clone();
    let asking = tokio::spawn(async move { bus.request(AskedAgain { number: 1 }).await });
    never.arrived(1).await;
    south.add(answers(&open, 2)).await.expect("added");
    super::knows(&sensor, 2).await;
    drop(north);
    assert_eq!(within("an answer", asking).await.expect("no panic").expect("answered by the other"), 3);
    let account = at_rest(sensor.bus()).await;
    assert_eq!((account.deliveries, account.failed, account.forwarded), (2, 1, 1));
    ends_well(&sensor).await;
    ends_well(&south).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_with_a_living_nodes_name_is_refused_and_told_why() {
    let cluster = Cluster::new();
    let seen = Seen::default();
    let manager = Manager::new("keep").worker(keeps(&seen)).handles::<Noted>();
    let centre = cluster.listens("centre", |app| app.manager(manager)).await;
    let sensor = cluster.dials("sensor", address(&centre), &["centre"], |app| app).await;
    super::knows(&sensor, 1).await;
    let lives = sensor.topology().incarnation;
    let second = cluster.dials("sensor", address(&centre), &[], |app| app).await;
    let why = || second.topology().links.iter().find_map(|link| link.last_error.clone());
    until("the refusal", || why().is_some()).await;
    let text = why().expect("there");
    assert!(text.contains("`sensor`") && text.contains("name"), "{text}");
    assert!(seen_by(&second, "centre").is_none_or(|view| !view.reachable));
    publish(&sensor, 0..50).await;
    assert_eq!(seen.wait_for(50).await, (0..50).collect::<Vec<_>>());
    assert_eq!(seen_by(&centre, "sensor").expect("known").incarnation, lives);
    for node in [&second, &sensor, &centre] {
        ends_well(node).await;
    }
}

/// Publishes numbers until it is told to stop; how many deliveries there were.
fn keeps_publishing(node: &Node) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let (stop, bus) = (Arc::new(AtomicBool::new(false)), node.bus().clone());
    let stopped = Arc::clone(&stop);
    let publishing = tokio::spawn(async move {
        let (mut number, mut deliveries) = (0, 0);
        while !stopped.load(Ordering::SeqCst) {
            deliveries += u64::from(bus.publish(noted(number)).await.expect("published").deliveries);
            number += 1;
            if number % 32 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        deliveries
    });
    (stop, publishing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_in_good_order_loses_nothing_while_others_publish_to_it() {
    for way in WAYS {
        let seen = Seen::default();
        let manager = Manager::new("keep").worker(keeps(&seen)).handles::<Noted>();
        let pair = Cluster::new().pair(way, |app| app.manager(manager), |app| app).await;
        super::knows(&pair.sensor, 1).await;
        let (stop, publishing) = keeps_publishing(&pair.sensor);
        until("the load", || seen.len() > 300).await;
        let report = ends_well(&pair.centre).await;
        until("the sensor to know", || pair.sensor.topology().remote.is_empty()).await;
        stop.store(true, Ordering::SeqCst);
        let deliveries = within("the publisher", publishing).await.expect("no panic");
        let account = at_rest(pair.sensor.bus()).await;
        assert_eq!(letters(pair.sensor.bus()), [], "{way:?} {account:?}");
        assert_eq!((account.forwarded, report.account.handled), (deliveries, deliveries), "{way:?}");
        assert_eq!(seen.list(), (0..deliveries).collect::<Vec<_>>());
        ends_well(&pair.sensor).await;
        if let Some(switch) = &pair.switch {
            ends_well(switch).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_are_added_replaced_and_drained_while_other_nodes_publish_to_them() {
    let pair = Cluster::new().pair(super::Way::Switch, |app| app, |app| app).await;
    let (stop, publishing) = keeps_publishing(&pair.sensor);
    let mut lists = Vec::new();
    let seen = Seen::default();
    let manager = |inbox: usize| Manager::new("keep").inbox(inbox).worker(keeps(&seen)).handles::<Noted>();
    for _ in 0..2 {
        let before = seen.len();
        pair.centre.add(manager(1024)).await.expect("added");
        for inbox in [4, 256] {
            let so_far = seen.len();
            until("the load", || seen.len() > so_far + 200).await;
            let drained = within("the change", pair.centre.replace(manager(inbox))).await.expect("replaced");
            assert!(drained.is_all());
        }
        let so_far = seen.len();
        until("the load", || seen.len() > so_far + 200).await;
        let drained = within("the change", pair.centre.drain("keep")).await.expect("drained");
        assert!(drained.is_all());
        until("the sensor to know", || pair.sensor.topology().remote.is_empty()).await;
        lists.push(seen.list().split_off(before));
    }
    stop.store(true, Ordering::SeqCst);
    let deliveries = within("the publisher", publishing).await.expect("no panic");
    for list in &lists {
        let first = list[0];
        let expect: Vec<u64> = (first..first + list.len() as u64).collect();
        assert_eq!(*list, expect, "without a gap and in order");
    }
    let (sensor, centre) = pair.end().await;
    assert_eq!(letters(pair.sensor.bus()), [], "what was handled is confirmed before its publisher's node is gone");
    assert_eq!((sensor.account.forwarded, centre.account.handled), (deliveries, deliveries));
    assert_eq!(seen.len() as u64, deliveries);
}
