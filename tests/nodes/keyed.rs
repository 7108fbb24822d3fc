//! Keyed shared managers: each key is with one node at a time, whoever joins, leaves and dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{Connector, Reason};
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::{Cluster, address};
use crate::support::{Noted, at_rest, does, ends_well, keyed, letters, started, until, within};

/// How many keys there are.
const KEYS: u64 = 24;
/// The numbers of one publisher begin at this multiple.
const PUBLISHER: u64 = 1_000_000;

/// Which node has which key in its hands, and what was handled where, in that order.
#[derive(Clone, Default)]
struct Floor(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    at_work: BTreeMap<String, BTreeMap<&'static str, usize>>,
    handled: Vec<Handled>,
    /// Keys that two nodes had in their hands at a time.
    shared: Vec<String>,
}

#[derive(Debug, Clone)]
struct Handled {
    node: &'static str,
    key: String,
    number: u64,
    redelivered: bool,
}

/// A key in the hands of a node.
struct AtWork {
    floor: Floor,
    key: String,
    node: &'static str,
}

impl Floor {
    fn enter(&self, node: &'static str, key: &str) -> AtWork {
        let mut seen = self.0.lock();
        let at_work = seen.at_work.entry(key.to_owned()).or_default();
        *at_work.entry(node).or_default() += 1;
        if at_work.len() > 1 {
            seen.shared.push(key.to_owned());
        }
        AtWork { floor: self.clone(), key: key.to_owned(), node }
    }

    fn manager(&self, node: &'static str) -> edri::Definition {
        let clerk = Clerk { floor: self.clone(), node };
        let manager = Manager::new("clerk").workers(3, move || clerk.clone()).keyed().shared().inbox(32);
        manager.handles::<Noted>().handles::<AskWhere>().handles::<AskAnybody>().into()
    }

    fn len(&self) -> usize {
        self.0.lock().handled.len()
    }

    fn at(&self, node: &str) -> usize {
        self.0.lock().handled.iter().filter(|handled| handled.node == node).count()
    }

    /// Checks the order of each publisher and key, and that no two nodes had a key at a time. What was handled, by publisher.
    fn check(&self) -> BTreeMap<u64, BTreeSet<u64>> {
        let seen = self.0.lock();
        assert_eq!(seen.shared, Vec::<String>::new(), "keys that were in two places at a time");
        let mut last: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        let mut all: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for Handled { node, key, number, redelivered } in &seen.handled {
            let publisher = number / PUBLISHER;
            let last = last.entry((key, publisher)).or_default();
            assert!(number > last || *redelivered, "{number} of key {key} came to {node} behind {last}, unmarked");
            *last = *number.max(last);
            let new = all.entry(publisher).or_default().insert(*number);
            assert!(new || *redelivered, "{number} of key {key} came twice, unmarked");
        }
        all
    }
}

/// Which node has this key.
#[event(request, name = "keyed.where", response = String, key = key)]
struct AskWhere {
    key: String,
}

/// Who answers; of no key.
#[event(request, name = "keyed.anybody", response = String)]
struct AskAnybody {}

#[derive(Clone)]
struct Clerk {
    floor: Floor,
    node: &'static str,
}

impl Worker for Clerk {}

impl Handle<Noted> for Clerk {
    async fn handle(&mut self, event: &Noted, cx: &mut Context) -> Result<(), Failure> {
        let _at_work = self.floor.enter(self.node, &event.key);
        let handled =
            Handled { node: self.node, key: event.key.clone(), number: event.number, redelivered: cx.is_redelivered() };
        self.floor.0.lock().handled.push(handled);
        tokio::time::sleep(Duration::from_micros(event.number % 5 * 200)).await;
        Ok(())
    }
}

impl Handle<AskWhere> for Clerk {
    async fn handle(&mut self, event: &AskWhere, _: &mut Context) -> Result<String, Failure> {
        let _at_work = self.floor.enter(self.node, &event.key);
        tokio::time::sleep(Duration::from_micros(300)).await;
        Ok(self.node.to_owned())
    }
}

impl Handle<AskAnybody> for Clerk {
    async fn handle(&mut self, _: &AskAnybody, _: &mut Context) -> Result<String, Failure> {
        Ok(self.node.to_owned())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut seen = self.floor.0.lock();
        if let Some(at_work) = seen.at_work.get_mut(&self.key)
            && let Some(count) = at_work.get_mut(self.node)
        {
            *count -= 1;
            if *count == 0 {
                at_work.remove(self.node);
            }
        }
    }
}

/// Publishes numbers until it is told to stop; how many.
fn publishing(node: &Node, publisher: u64, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (bus, stop) = (node.bus().clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut count = 0;
        while !stop.load(Ordering::SeqCst) {
            let event = keyed(&format!("k{}", count % KEYS), publisher * PUBLISHER + count + 1);
            let receipt = within("room", bus.publish(event)).await.expect("published");
            assert_eq!(receipt.deliveries, 1, "one of them");
            count += 1;
            if count % 16 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        count
    })
}

/// Asks where keys are until it is told to stop; how often.
fn asking(node: &Node, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (bus, stop) = (node.bus().clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut count = 0;
        while !stop.load(Ordering::SeqCst) {
            let ask = AskWhere { key: format!("k{}", count % KEYS) };
            within("an answer", bus.request(ask)).await.expect("an answer");
            count += 1;
        }
        count
    })
}

fn numbers(publisher: u64, count: u64) -> BTreeSet<u64> {
    (1..=count).map(|number| publisher * PUBLISHER + number).collect()
}

async fn grows(what: &str, floor: &Floor, node: &str) {
    let before = floor.at(node);
    until(what, || floor.at(node) > before + 100).await;
}

fn quick(connector: Connector) -> Connector {
    connector.expiry(Duration::from_secs(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_of_a_keyed_shared_manager_is_with_one_node_while_nodes_come_and_leave() {
    let (cluster, floor, stop) = (Cluster::new(), Floor::default(), Arc::new(AtomicBool::new(false)));
    let north = cluster.listens("north", |app| app.manager(floor.manager("north"))).await;
    let sensor = cluster.dials("sensor", address(&north), &["north"], |app| app).await;
    within("somebody", sensor.bus().wait_for::<Noted>()).await.expect("somebody");
    let publishers = [publishing(&sensor, 1, &stop), publishing(&north, 2, &stop)];
    let asking = asking(&sensor, &stop);
    grows("north to have all", &floor, "north").await;

    let south = cluster.dials("south", address(&north), &["north"], |app| app.manager(floor.manager("south"))).await;
    grows("south to have some", &floor, "south").await;
    grows("north to have the others", &floor, "north").await;
    let west = cluster.dials("west", address(&north), &["north"], |app| app.manager(floor.manager("west"))).await;
    grows("west to have some", &floor, "west").await;

    // One manager leaves its node, then a node stops.
    assert!(within("the drain", south.drain("clerk")).await.expect("drained").is_all());
    let rest = floor.at("south");
    grows("north to have some of them", &floor, "north").await;
    assert_eq!(floor.at("south"), rest, "nothing comes where the manager has left");
    south.add(floor.manager("south")).await.expect("added again");
    grows("south to have some again", &floor, "south").await;
    ends_well(&west).await;
    let rest = floor.at("west");
    grows("north to have more", &floor, "north").await;
    grows("south to have more", &floor, "south").await;
    assert_eq!(floor.at("west"), rest);

    stop.store(true, Ordering::SeqCst);
    let mut published = Vec::new();
    for publisher in publishers {
        published.push(within("the publisher", publisher).await.expect("no panic"));
    }
    assert!(within("the requests", asking).await.expect("no panic") > 0, "each was answered");
    let total = published.iter().sum::<u64>() as usize;
    until("all to be handled", || floor.len() >= total).await;
    for node in [&sensor, &south, &north] {
        assert_eq!(letters(node.bus()), []);
        ends_well(node).await;
    }
    let all = floor.check();
    assert_eq!(all[&1], numbers(1, published[0]));
    assert_eq!(all[&2], numbers(2, published[1]));
    assert_eq!(floor.len(), total, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_node_that_dies_are_taken_over_and_what_it_may_have_handled_is_marked() {
    let (cluster, floor, stop) = (Cluster::new(), Floor::default(), Arc::new(AtomicBool::new(false)));
    let north = App::new("north").connector(quick(cluster.listening("north")));
    let north = started(north.manager(floor.manager("north"))).await;
    let dial = |name: &str| App::new(name).connector(quick(cluster.dialling(name, address(&north)))).expects("north");
    let south = started(dial("south").manager(floor.manager("south"))).await;
    let sensor = started(dial("sensor").expects("south")).await;
    within("somebody", sensor.bus().wait_for::<Noted>()).await.expect("somebody");
    let publisher = publishing(&sensor, 1, &stop);
    grows("south to have some", &floor, "south").await;
    grows("north to have some", &floor, "north").await;

    let had: BTreeSet<String> =
        floor.0.lock().handled.iter().filter(|handled| handled.node == "south").map(|h| h.key.clone()).collect();
    drop(south);
    let from = floor.len();
    let later = || {
        let seen = floor.0.lock();
        seen.handled[from..].iter().filter(|h| h.node == "north").map(|h| h.key.clone()).collect::<BTreeSet<_>>()
    };
    until("north to have the keys of south", || later().is_superset(&had)).await;
    // It comes back as another life, and takes keys again.
    let south = started(dial("south").manager(floor.manager("south again"))).await;
    grows("south to have some again", &floor, "south again").await;

    stop.store(true, Ordering::SeqCst);
    let published = within("the publisher", publisher).await.expect("no panic");
    let last: BTreeSet<u64> = numbers(1, published).into_iter().rev().take(KEYS as usize).collect();
    until("the last of each key to be handled", || {
        let seen = floor.0.lock();
        let handled: BTreeSet<u64> = seen.handled.iter().map(|handled| handled.number).collect();
        handled.is_superset(&last)
    })
    .await;
    assert_eq!(letters(sensor.bus()), []);
    for node in [&sensor, &south, &north] {
        ends_well(node).await;
    }
    let all = floor.check();
    // What the dead node had in its inboxes has died with it: three partitions of 32, and what had come and waited.
    let missing = numbers(1, published).difference(&all[&1]).count();
    assert!(missing <= 3 * 32 + 64, "{missing} are missing of {published}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_where_the_events_of_its_key_are_handled() {
    let (cluster, floor) = (Cluster::new(), Floor::default());
    let north = cluster.listens("north", |app| app.manager(floor.manager("north"))).await;
    let south = cluster.dials("south", address(&north), &["north"], |app| app.manager(floor.manager("south"))).await;
    let sensor = cluster.dials("sensor", address(&north), &["north", "south"], |app| app).await;
    within("somebody", sensor.bus().wait_for::<Noted>()).await.expect("somebody");
    let bus = |n: usize| [&north, &south, &sensor][n % 3].bus();
    let keys: Vec<String> = (0..60).map(|number| format!("key {number}")).collect();
    // Keys still move at first: until each stays where it is.
    let mut before = BTreeMap::new();
    loop {
        let mut now = BTreeMap::new();
        for (number, key) in keys.iter().enumerate() {
            let asked = bus(number).request(AskWhere { key: key.clone() });
            now.insert(key.clone(), within("an answer", asked).await.expect("an answer"));
        }
        let both = now.values().collect::<BTreeSet<_>>().len() == 2;
        if std::mem::replace(&mut before, now.clone()) == now && both {
            break;
        }
    }
    for (number, key) in keys.into_iter().enumerate() {
        let event = keyed(&key, PUBLISHER + number as u64);
        within("room", bus(number).publish(event)).await.expect("published");
        until("it to be handled", || floor.len() > number).await;
        let answers = within("answers", bus(number + 1).request_all(AskWhere { key: key.clone() })).await;
        let mut answers = answers.expect("somebody");
        let first = within("an answer", answers.next()).await.expect("one");
        assert!(within("no other", answers.next()).await.is_none(), "one for all nodes");
        let handled = floor.0.lock().handled.last().cloned().expect("handled");
        let asked =
            within("an answer", bus(number + 2).request_to("clerk", AskWhere { key })).await.expect("an answer");
        assert_eq!((handled.node, first.result.expect("an answer").as_str()), (asked.as_str(), handled.node));
        assert_eq!(first.node.as_str(), handled.node, "who answered, whoever asked");
    }
    floor.check();
    for node in [&sensor, &south, &north] {
        ends_well(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_names_a_node_is_answered_there_if_it_has_the_key_and_by_nobody_otherwise() {
    let (cluster, floor) = (Cluster::new(), Floor::default());
    let north = cluster.listens("north", |app| app.manager(floor.manager("north"))).await;
    let south = cluster.dials("south", address(&north), &["north"], |app| app.manager(floor.manager("south"))).await;
    let sensor = cluster.dials("sensor", address(&north), &["north", "south"], |app| app).await;
    within("somebody", sensor.bus().wait_for::<AskWhere>()).await.expect("somebody");
    let asks = async |node: &Node, key: &str| {
        let asked = node.bus().request(AskWhere { key: key.to_owned() });
        within("an answer", asked).await.expect("an answer")
    };
    let keys: Vec<String> = (0..16).map(|number| format!("key {number}")).collect();
    // Each stays where it is once they are divided.
    let mut places = BTreeMap::new();
    loop {
        let mut now = BTreeMap::new();
        for key in &keys {
            now.insert(key.clone(), asks(&sensor, key).await);
        }
        let both = now.values().collect::<BTreeSet<_>>().len() == 2;
        if std::mem::replace(&mut places, now.clone()) == now && both {
            break;
        }
    }
    let failed = |node: &Node| node.topology().divided.iter().map(|view| view.account.failed).sum::<u64>();
    assert_eq!([&north, &south, &sensor].map(failed), [0, 0, 0], "nobody was sent where the key is not");
    for (key, place) in &places {
        for bus in [&north, &south, &sensor].map(|node| node.bus()) {
            for node in ["north", "south"] {
                let by_manager =
                    within("an answer", bus.request_to(&format!("{node}/clerk"), AskWhere { key: key.clone() })).await;
                let by_node = within("an answer", bus.request_at(node, AskWhere { key: key.clone() })).await;
                for answer in [by_manager, by_node] {
                    match answer {
                        Ok(answer) => assert_eq!((answer.as_str(), node), (place.as_str(), place.as_str())),
                        Err(error) => {
                            assert!(error.code() == "no_handler" && node != place, "{error} at {node}, of {place}")
                        }
                    }
                }
            }
            let nowhere = within("an answer", bus.request_to("sensor/clerk", AskWhere { key: key.clone() })).await;
            assert_eq!(nowhere.expect_err("it does not run there").code(), "no_handler");
        }
    }
    // Of each key, the other node by both names.
    let refused = 2 * keys.len() as u64;
    assert_eq!([&north, &south, &sensor].map(failed), [refused; 3]);
    // Without a key it goes wherever it is sent.
    for _ in 0..20 {
        for bus in [&north, &south, &sensor].map(|node| node.bus()) {
            for node in ["north", "south"] {
                let clerk = format!("{node}/clerk");
                let answer = within("an answer", bus.request_to(&clerk, AskAnybody {})).await;
                assert_eq!(answer.expect("an answer"), node);
            }
        }
    }
    assert_eq!([&north, &south, &sensor].map(failed), [refused; 3], "none of these was refused");
    floor.check();
    for node in [&sensor, &south, &north] {
        ends_well(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_had_given_each_other_up_divide_the_keys_again_when_they_meet() {
    let (cluster, floor, stop) = (Cluster::new(), Floor::default(), Arc::new(AtomicBool::new(false)));
    let with = |app: App, connector, node| app.connector(quick(connector)).manager(floor.manager(node));
    let centre = |app: App, connector| with(app, connector, "centre");
    let (pair, proxy) = cluster.apart(31, centre, |app, connector| with(app, connector, "sensor")).await;
    let publishers = [publishing(&pair.sensor, 1, &stop), publishing(&pair.centre, 2, &stop)];
    grows("the centre to have some", &floor, "centre").await;
    grows("the sensor to have some", &floor, "sensor").await;
    floor.check();
    // For longer than they wait for each other: each takes all keys.
    proxy.cut();
    let alone = |node: &Node, other: &str| !node.topology().nodes.iter().any(|view| view.name.as_str() == other);
    until("both to be alone", || alone(&pair.sensor, "centre") && alone(&pair.centre, "sensor")).await;
    let from = floor.len();
    let keys_at = |node: &str| {
        let seen = floor.0.lock();
        seen.handled[from..].iter().filter(|h| h.node == node).map(|h| h.key.clone()).collect::<BTreeSet<_>>()
    };
    let all = || keys_at("centre").len() as u64 == KEYS && keys_at("sensor").len() as u64 == KEYS;
    until("each to have all keys", all).await;
    proxy.mend();
    super::reaches(&pair.sensor, "centre", true).await;
    // Once they have agreed, each key is with one of them again.
    let mut round = (floor.len(), Instant::now());
    until("one node for each key", || {
        if round.1.elapsed() < Duration::from_millis(300) {
            return false;
        }
        let mut nodes: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        let seen = floor.0.lock();
        for handled in &seen.handled[round.0..] {
            nodes.entry(handled.key.clone()).or_default().insert(handled.node);
        }
        round = (seen.handled.len(), Instant::now());
        nodes.len() as u64 == KEYS && nodes.values().all(|nodes| nodes.len() == 1)
    })
    .await;
    // What two nodes did at a time was done while they did not know each other.
    floor.0.lock().shared.clear();
    grows("the centre to go on", &floor, "centre").await;
    grows("the sensor to go on", &floor, "sensor").await;
    stop.store(true, Ordering::SeqCst);
    let mut published = Vec::new();
    for publisher in publishers {
        published.push(within("the publisher", publisher).await.expect("no panic"));
    }
    for node in [&pair.sensor, &pair.centre] {
        at_rest(node.bus()).await;
        assert_eq!(letters(node.bus()), []);
    }
    let all = floor.check();
    assert_eq!(all[&1], numbers(1, published[0]));
    assert_eq!(all[&2], numbers(2, published[1]));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_for_a_moment_moves_no_key() {
    let (cluster, floor, stop) = (Cluster::new(), Floor::default(), Arc::new(AtomicBool::new(false)));
    let with = |app: App, connector, node| app.connector(connector).manager(floor.manager(node));
    let centre = |app: App, connector| with(app, connector, "centre");
    let (pair, proxy) = cluster.apart(32, centre, |app, connector| with(app, connector, "sensor")).await;
    let publishers = [publishing(&pair.sensor, 1, &stop), publishing(&pair.centre, 2, &stop)];
    grows("the centre to have some", &floor, "centre").await;
    grows("the sensor to have some", &floor, "sensor").await;
    proxy.cut();
    super::reaches(&pair.sensor, "centre", false).await;
    let waits = || pair.sensor.topology().divided.iter().any(|view| view.account.queued > 0);
    until("what waits for the centre to be seen", waits).await;
    proxy.mend();
    super::reaches(&pair.sensor, "centre", true).await;
    grows("the centre to go on", &floor, "centre").await;
    grows("the sensor to go on", &floor, "sensor").await;
    stop.store(true, Ordering::SeqCst);
    let mut published = Vec::new();
    for publisher in publishers {
        published.push(within("the publisher", publisher).await.expect("no panic"));
    }
    let total = published.iter().sum::<u64>() as usize;
    until("all to be handled", || floor.len() >= total).await;
    let all = floor.check();
    assert_eq!((&all[&1], &all[&2]), (&numbers(1, published[0]), &numbers(2, published[1])));
    assert_eq!(floor.len(), total, "each once");
    assert!(floor.0.lock().handled.iter().all(|handled| !handled.redelivered));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_others_finishes_its_keyed_shared_events_before_it_stops() {
    let (cluster, floor) = (Cluster::new(), Floor::default());
    let north = cluster.listens("north", |app| app.manager(floor.manager("north"))).await;
    let publish = async |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let event = keyed(&format!("k{}", number % KEYS), PUBLISHER + number);
            within("room", north.bus().publish(event)).await.expect("published");
        }
    };
    publish(1..501).await;
    // One takes the place of the other while events wait.
    assert!(within("the change", north.replace(floor.manager("north"))).await.expect("replaced").is_all());
    publish(501..1001).await;
    ends_well(&north).await;
    assert_eq!(floor.check()[&1], numbers(1, 1000));
    assert_eq!(letters(north.bus()), []);
}

/// A notification that only a later version of the manager handles.
#[event(notification, name = "keyed.later", key = key)]
struct Later {
    key: String,
}

impl Handle<Later> for Clerk {
    async fn handle(&mut self, event: &Later, _: &mut Context) -> Result<(), Failure> {
        let handled = Handled { node: self.node, key: event.key.clone(), number: 0, redelivered: false };
        self.floor.0.lock().handled.push(handled);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_node_with_the_key_does_not_handle_is_a_dead_letter_there() {
    let (cluster, floor) = (Cluster::new(), Floor::default());
    let north = cluster.listens("north", |app| app.manager(floor.manager("north"))).await;
    let clerk = Clerk { floor: floor.clone(), node: "south" };
    let later = Manager::new("clerk").workers(3, move || clerk.clone()).keyed().shared();
    let later = later.handles::<Noted>().handles::<Later>();
    let south = cluster.dials("south", address(&north), &["north"], |app| app.manager(later)).await;
    let sensor = cluster.dials("sensor", address(&north), &["north", "south"], |app| app).await;
    within("somebody", sensor.bus().wait_for::<Later>()).await.expect("somebody");
    for number in 0..200 {
        let event = Later { key: format!("key {number}") };
        assert_eq!(within("room", sensor.bus().publish(event)).await.expect("published").deliveries, 1);
    }
    until("all to have ended", || floor.len() + letters(north.bus()).len() == 200).await;
    let dead = letters(north.bus());
    assert!(!dead.is_empty() && floor.at("south") > 0, "each has some keys");
    assert!(dead.iter().all(|(reason, ..)| *reason == Reason::Undelivered), "{dead:?}");
    for node in [&sensor, &south, &north] {
        ends_well(node).await;
    }
}

/// Numbers, each of which comes back.
#[event(tunnel, name = "keyed.echo", key = key, up = u64, down = u64)]
struct Echo {
    key: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_opens_where_its_key_is_and_stays_there_when_the_key_moves() {
    let cluster = Cluster::new();
    let manager = || {
        let echoes = does(|_: &Echo, cx| {
            async move {
                let mut tunnel = cx.accept::<Echo>()?;
                while let Some(number) = tunnel.recv().await? {
                    tunnel.send(number).await?;
                }
                Ok(())
            }
            .boxed()
        });
        Manager::new("echoes").workers(4, echoes).keyed().shared().handles_concurrently::<Echo>()
    };
    let north = cluster.listens("north", |app| app.manager(manager())).await;
    let sensor = cluster.dials("sensor", address(&north), &["north"], |app| app).await;
    within("somebody", sensor.bus().wait_for::<Echo>()).await.expect("somebody");
    let mut tunnels = Vec::new();
    for (number, node) in [&north, &sensor, &north, &sensor].into_iter().enumerate() {
        let opened = within("the tunnel", node.bus().open(Echo { key: format!("key {number}") })).await;
        tunnels.push(opened.expect("opened").split());
    }
    let south = cluster.dials("south", address(&north), &["north"], |app| app.manager(manager())).await;
    // Keys move, although tunnels are open.
    let mut open_there = 0;
    let there = || south.topology().manager("echoes").is_some_and(|view| view.account.deliveries > 0);
    while !there() {
        let opened = within("the tunnel", sensor.bus().open(Echo { key: format!("new {open_there}") })).await;
        let (mut sender, _receiver, outcome) = opened.expect("opened").split();
        sender.finish();
        within("its end", outcome.result()).await.expect("it ends well");
        open_there += 1;
    }
    for (mut sender, mut receiver, outcome) in tunnels {
        for number in 0..10 {
            within("room", sender.send(number)).await.expect("open");
            assert_eq!(within("an item", receiver.recv()).await.expect("open"), Some(number));
        }
        sender.finish();
        within("its end", outcome.result()).await.expect("it ends well");
    }
    for node in [&sensor, &south, &north] {
        ends_well(node).await;
    }
}
