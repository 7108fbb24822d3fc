//! Subscriptions of a client: what comes, and what becomes of one that is slow.

use serde_json::{Value, json};

use super::super::gateway;
use super::socket::{Ended, Socket};
use super::{Tick, Whisper, node, tick};
use crate::support::within;

/// The numbers of the next ticks of a subscription.
async fn numbers(socket: &mut Socket, id: u64, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(number(&socket.next().await, id));
    }
    numbers
}

fn number(frame: &Value, id: u64) -> u64 {
    assert_eq!(frame["publish"]["subscription"], id, "{frame}");
    frame["publish"]["payload"]["number"].as_u64().unwrap_or_else(|| panic!("{frame}"))
}

#[tokio::test]
async fn events_come_by_name_pattern_and_key() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    socket.subscribe(json!({"id": 1, "select": "api.feed.tick"})).await;
    let receipt = node.bus().publish(tick(7)).await.expect("published");
    assert_eq!(receipt.deliveries, 1);
    let frame = socket.next().await;
    assert_eq!(number(&frame, 1), 7);
    assert_eq!(frame["publish"]["event"], "api.feed.tick");
    assert_eq!(frame["publish"]["event_id"], receipt.id.to_string());
    assert_eq!((&frame["publish"]["key"], &frame["publish"]["origin"]), (&json!("all"), &json!("gate")));
    socket.send(json!({"unsubscribe": {"id": 1}})).await;
    socket.subscribe(json!({"id": 3, "select": "api.feed.*", "key": "west"})).await;
    for (topic, number) in [("east", 1), ("west", 2), ("east", 3), ("west", 4)] {
        node.bus().publish(Tick { topic: topic.to_owned(), number }).await.expect("published");
    }
    assert_eq!(numbers(&mut socket, 3, 2).await, [2, 4]);
    node.shutdown().await;
}

#[tokio::test]
async fn conditions_select_by_fields_of_the_payload() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    let conditions = json!({"number": {"gte": 3, "lt": 5}});
    socket.subscribe(json!({"id": 1, "select": "api.feed.*", "conditions": conditions})).await;
    for number in 0..9 {
        node.bus().publish(tick(number)).await.expect("published");
    }
    assert_eq!(numbers(&mut socket, 1, 2).await, [3, 4]);
    let wrong = json!({"number": {"about": 3}});
    socket.send(json!({"subscribe": {"id": 3, "select": "api.feed.*", "conditions": wrong}})).await;
    assert_eq!(socket.response(3).await["error"]["code"], "invalid_conditions");
    node.shutdown().await;
}

#[tokio::test]
async fn a_pattern_selects_nothing_that_is_not_exposed() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    socket.subscribe(json!({"id": 1, "select": ">"})).await;
    node.bus().publish(Whisper {}).await.expect("published");
    node.bus().publish(tick(1)).await.expect("published");
    assert_eq!(numbers(&mut socket, 1, 1).await, [1], "the whisper would have come before");
    node.shutdown().await;
}

#[tokio::test]
async fn a_slow_reader_is_told_in_order_how_much_it_missed_and_nobody_waits_for_it() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    socket.subscribe(json!({"id": 1, "select": "api.feed.tick", "capacity": 4, "credit": 2})).await;
    for number in 0..10 {
        within("a publisher", node.bus().publish(tick(number))).await.expect("published");
        if number == 1 {
            assert_eq!(numbers(&mut socket, 1, 2).await, [0, 1]);
        }
    }
    socket.send(json!({"credit": {"id": 1, "items": 3}})).await;
    assert_eq!(socket.next().await["missed"], json!({"id": 1, "count": 4}));
    assert_eq!(numbers(&mut socket, 1, 3).await, [6, 7, 8]);
    socket.send(json!({"credit": {"id": 1, "items": 100}})).await;
    assert_eq!(numbers(&mut socket, 1, 1).await, [9]);
    assert_eq!(node.bus().dead_letters().len(), 0, "what a client is too slow for is its own affair");
    node.shutdown().await;
}

#[tokio::test]
async fn a_slow_reader_is_disconnected_if_it_wants_that() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    socket.subscribe(json!({"id": 1, "select": "api.feed.tick", "capacity": 2, "credit": 0, "slow": "bye"})).await;
    for number in 0..3 {
        within("a publisher", node.bus().publish(tick(number))).await.expect("published");
    }
    assert_eq!(socket.next().await["bye"]["error"]["code"], "too_slow");
    let Err(Ended::Closed(Some(close))) = socket.try_next().await else { panic!("it is closed") };
    assert_eq!(u16::from(close.code), 1008);
    node.shutdown().await;
}

/// A client that reads nothing: what does not fit on the way is left out and told, and what comes is in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_up_nobody() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    socket.subscribe(json!({"id": 1, "select": "api.feed.tick"})).await;
    let topic = "x".repeat(10_000);
    let count = 5_000;
    for number in 0..count {
        let tick = Tick { topic: topic.clone(), number };
        within("a publisher", node.bus().publish(tick)).await.expect("published");
    }
    let (mut next, mut missed) = (0, 0);
    while next < count {
        let frame = socket.next().await;
        if let Some(more) = frame["missed"]["count"].as_u64() {
            missed += more;
            next += more;
        } else {
            assert_eq!(number(&frame, 1), next, "after {missed} that were missed");
            next += 1;
        }
    }
    assert!(missed > 0, "50 MB fit nowhere on the way");
    node.shutdown().await;
}
