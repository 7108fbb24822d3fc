//! Subscriptions over WebSocket that begin in the past.

use std::time::Duration;

use edri::prelude::*;
use edri::{ApiLimits, Client, Conditions, Node};
use edri_tests::tcp::TcpProxy;
use serde_json::{Value, json};

use super::super::client::address;
use super::super::gateway;
use super::socket::{Ended, Socket};
use super::{Tick, tick};
use crate::support::within;

async fn remembering(api: Api, events: usize) -> Node {
    let history = History::new().events(events);
    let node = App::new("gate").history("api.feed.tick", history).api(api).start().await.expect("starts");
    node.bus().declare(edri::DescriptorRef::of::<Tick>()).await.expect("declared");
    node
}

async fn publish(node: &Node, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        node.bus().publish(tick(number)).await.expect("published");
    }
}

/// The number of an event and its place.
fn recorded(frame: &Value) -> (u64, String) {
    let (number, position) = (&frame["publish"]["payload"]["number"], &frame["publish"]["position"]);
    (number.as_u64().unwrap_or_else(|| panic!("{frame}")), position.as_str().expect("a place").to_owned())
}

async fn numbers(socket: &mut Socket, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(recorded(&socket.next().await).0);
    }
    numbers
}

/// Ends a subscription, and takes what was on its way.
async fn unsubscribe(socket: &mut Socket, id: u64) {
    socket.send(json!({"unsubscribe": {"id": id}})).await;
    socket.send(json!({"ping": {"id": id}})).await;
    while !socket.next().await["pong"].is_object() {}
}

#[tokio::test]
async fn a_client_that_comes_late_gets_what_it_missed_and_then_what_comes() {
    let node = remembering(gateway(), 4).await;
    publish(&node, 0..3).await;
    let mut socket = Socket::to(&node).await;
    socket.send(json!({"subscribe": {"id": 1, "select": "api.feed.tick", "last": 2}})).await;
    let begins = socket.response(1).await["value"]["position"].as_str().expect("a place").to_owned();
    let (first, place) = recorded(&socket.next().await);
    assert_eq!(first, 1);
    publish(&node, [3]).await;
    assert_eq!(numbers(&mut socket, 2).await, [2, 3]);
    // From where it began, and from the place of an event, also with conditions.
    socket.subscribe(json!({"id": 3, "select": "api.feed.tick", "since": begins})).await;
    assert_eq!(numbers(&mut socket, 3).await, [1, 2, 3]);
    let even = json!({"number": {"in": [0, 2, 4]}});
    socket.subscribe(json!({"id": 5, "select": "api.feed.tick", "since": place, "conditions": even})).await;
    assert_eq!(numbers(&mut socket, 1).await, [2]);
    for id in [1, 3, 5] {
        unsubscribe(&mut socket, id).await;
    }
    // Four are kept: what is gone is told, and so is a place that nobody knows.
    publish(&node, 4..9).await;
    socket.subscribe(json!({"id": 7, "select": "api.feed.tick", "since": place, "slow": "bye"})).await;
    assert_eq!(socket.next().await["missed"], json!({"id": 7, "count": 3}));
    assert_eq!(numbers(&mut socket, 4).await, [5, 6, 7, 8]);
    socket.subscribe(json!({"id": 9, "select": "api.feed.tick", "since": "of another life", "credit": 1})).await;
    assert_eq!(socket.next().await["missed"], json!({"id": 9}));
    assert_eq!(numbers(&mut socket, 1).await, [5], "and one at a time");
    socket.send(json!({"credit": {"id": 9, "items": 1}})).await;
    assert_eq!(numbers(&mut socket, 1).await, [6]);
    node.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_read_from_the_past_is_said() {
    let node = remembering(gateway(), 4).await;
    let mut socket = Socket::to(&node).await;
    let mut refused = async |id: u64, mut subscribe: Value| {
        subscribe["id"] = id.into();
        socket.send(json!({"subscribe": subscribe})).await;
        socket.response(id).await["error"]["code"].as_str().expect("a code").to_owned()
    };
    assert_eq!(refused(1, json!({"select": "api.secret", "last": 1})).await, "unknown_event");
    assert_eq!(refused(3, json!({"select": "api.feed.*", "last": 1})).await, "no_history");
    assert_eq!(refused(5, json!({"select": "api.feed.tick", "last": 1, "since": "x"})).await, "unsupported");
    assert_eq!(refused(7, json!({"select": "api.feed.tick", "last": 1, "capacity": 9})).await, "unsupported");
    node.shutdown().await;
}

#[tokio::test]
async fn who_is_too_slow_for_a_history_is_told_or_disconnected() {
    let node = remembering(gateway(), 4).await;
    let mut socket = Socket::to(&node).await;
    socket.subscribe(json!({"id": 1, "select": "api.feed.tick", "last": 0, "credit": 1})).await;
    publish(&node, 0..9).await;
    // Whether the first was sent before it was gone is open; what is kept is not.
    socket.send(json!({"credit": {"id": 1, "items": 9}})).await;
    let (mut next, mut missed) = (0, 0);
    while next < 9 {
        let frame = socket.next().await;
        match frame["missed"]["count"].as_u64() {
            Some(count) => (next, missed) = (next + count, missed + count),
            None => {
                assert_eq!(recorded(&frame).0, next);
                next += 1;
            }
        }
    }
    assert!(missed >= 4, "{missed}");
    socket.subscribe(json!({"id": 3, "select": "api.feed.tick", "last": 1, "slow": "bye", "credit": 1})).await;
    assert_eq!(numbers(&mut socket, 1).await, [8]);
    unsubscribe(&mut socket, 1).await;
    publish(&node, 9..19).await;
    socket.send(json!({"credit": {"id": 3, "items": 1}})).await;
    loop {
        let frame = socket.next().await;
        if frame["bye"].is_object() {
            assert_eq!(frame["bye"]["error"]["code"], "too_slow");
            break;
        }
    }
    assert!(matches!(socket.try_next().await, Err(Ended::Closed(Some(_)))));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_while_many_are_published_has_no_gap_and_no_repetition() {
    const EVENTS: u64 = 2_000;
    let node = remembering(gateway(), EVENTS as usize).await;
    let bus = node.bus().clone();
    let publishing = tokio::spawn(async move {
        for number in 0..EVENTS {
            bus.publish(tick(number)).await.expect("published");
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let mut socket = Socket::to(&node).await;
    for round in 0..6 {
        let id = 2 * round + 1;
        socket.subscribe(json!({"id": id, "select": "api.feed.tick", "last": EVENTS})).await;
        for number in 0..100 {
            assert_eq!(recorded(&socket.next().await).0, number, "in round {round}");
        }
        unsubscribe(&mut socket, id).await;
    }
    socket.subscribe(json!({"id": 99, "select": "api.feed.tick", "last": EVENTS})).await;
    for number in 0..EVENTS {
        assert_eq!(recorded(&socket.next().await).0, number);
    }
    within("the publisher", publishing).await.expect("no panic");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rust_client_reads_a_history_and_goes_on_where_it_was_when_its_session_is_lost() {
    let mut limits = ApiLimits::default();
    limits.session_keep = Duration::from_millis(100);
    let node = remembering(gateway().limits(limits), 1_000).await;
    let proxy = TcpProxy::to(address(&node)).await.expect("listens");
    let client = within("a client", Client::connect(format!("ws://{}/ws", proxy.address()))).await.expect("connects");
    publish(&node, 0..10).await;
    let mut ticks = client.subscribe::<Tick>().last(3).await.expect("subscribed");
    let even = client
        .untyped()
        .subscribe("api.feed.tick")
        .filter(|event| event.payload::<Tick>().is_ok_and(|tick| tick.number % 2 == 0));
    let mut even = even.last(1).await.expect("subscribed");
    let next = async |ticks: &mut edri::Replay<edri::Received<Tick>>| {
        let recorded = within("an event", ticks.next()).await.expect("comes").expect("no gap");
        assert_eq!(ticks.position(), recorded.position);
        recorded.event.number
    };
    for number in 7..10 {
        assert_eq!(next(&mut ticks).await, number);
    }
    let place = ticks.position();
    proxy.cut();
    // Longer than the node keeps its session.
    crate::support::until("the session to be gone", || node.topology().subscriptions.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    publish(&node, 10..600).await;
    proxy.mend();
    publish(&node, 600..700).await;
    for number in 10..700 {
        assert_eq!(next(&mut ticks).await, number, "each once, in order");
    }
    let mut since = client.subscribe::<Tick>().since(place).await.expect("subscribed");
    assert_eq!(next(&mut since).await, 10);
    for number in (10..700).step_by(2) {
        let recorded = within("an event", even.next()).await.expect("comes").expect("no gap");
        assert_eq!(recorded.event.payload::<Tick>().expect("a tick").number, number);
    }
    let refused = client.untyped().subscribe("api.feed.*").last(1).await.expect_err("no history");
    assert_eq!(refused.code(), "no_history");
    drop((ticks, even, since, client));
    node.shutdown().await;
}

#[tokio::test]
async fn conditions_of_a_rust_client_are_looked_at_by_the_node() {
    let node = remembering(gateway(), 10).await;
    let client = Client::connect(format!("ws://{}/ws", address(&node))).await.expect("connects");
    let conditions = |text: &str| text.parse::<Conditions>().expect("conditions");
    let before = node.bus().publish(tick(100)).await.expect("published").deliveries;
    let big = client.subscribe::<Tick>().conditions(conditions(r#"{"number": {"gte": 5}}"#));
    // The second set is looked at here.
    let mut big = big.conditions(conditions(r#"{"number": {"ne": 7}}"#)).await.expect("subscribed");
    let past = client.subscribe::<Tick>().conditions(conditions(r#"{"number": {"lt": 3}}"#));
    let mut past = past.last(9).await.expect("subscribed");
    for number in 1..9 {
        let receipt = node.bus().publish(tick(number)).await.expect("published");
        assert_eq!(receipt.deliveries - before, u32::from(number >= 5), "{number}");
    }
    for number in [5, 6, 8] {
        assert_eq!(within("an event", big.next()).await.expect("comes").number, number);
    }
    for number in [1, 2] {
        assert_eq!(within("an event", past.next()).await.expect("comes").expect("no gap").event.number, number);
    }
    node.shutdown().await;
}
