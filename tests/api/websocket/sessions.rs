//! Sessions that outlive their connections.

use std::time::Duration;

use edri::ApiLimits;
use serde_json::{Value, json};

use super::super::client::address;
use super::super::gateway;
use super::socket::Socket;
use super::{node, tick};
use crate::support::within;

fn hello(session: Value) -> Value {
    json!({"version": 1, "role": "client", "session": session})
}

fn id_of(welcome: &Value) -> String {
    welcome["session"]["id"].as_str().unwrap_or_else(|| panic!("{welcome}")).to_owned()
}

#[tokio::test]
async fn a_client_goes_on_where_its_connection_broke_without_loss_or_repetition() {
    let node = node(gateway()).await;
    let (mut socket, welcome) = Socket::greet(address(&node), hello(json!({}))).await;
    let id = id_of(&welcome);
    assert_eq!((id.len(), &welcome["session"]["keep_ms"]), (32, &json!(60_000)));
    socket.subscribe(json!({"id": 1, "select": "api.feed.tick"})).await;
    let (mut seen, mut sent, mut received) = (Vec::new(), 1, socket.received);
    let mut numbers = 0..;
    for round in 0..20 {
        for number in numbers.by_ref().take(25) {
            node.bus().publish(tick(number)).await.expect("published");
        }
        // Some of what has come is read; the rest is lost with the connection.
        for _ in 0..(round * 7 % 25) {
            let frame = socket.next().await;
            seen.push(frame["publish"]["payload"]["number"].as_u64().unwrap_or_else(|| panic!("{frame}")));
            received += 1;
        }
        drop(socket);
        node.bus().publish(tick(numbers.next().expect("one"))).await.expect("published");
        let (again, welcome) = Socket::greet(address(&node), hello(json!({"id": id, "received": received}))).await;
        socket = again;
        assert_eq!(welcome["session"]["resumed"], true, "{welcome}");
        assert_eq!(welcome["session"]["received"], sent, "what the client sent has come");
        socket.send(json!({"ping": {"id": 0}})).await;
        sent += 1;
        // The answer comes behind all that was there before.
        loop {
            let frame = socket.next().await;
            received += 1;
            match frame["publish"]["payload"]["number"].as_u64() {
                Some(number) => seen.push(number),
                None => break assert!(frame["pong"].is_object(), "{frame}"),
            }
        }
    }
    assert_eq!(seen, (0..20 * 26).collect::<Vec<_>>());
    node.shutdown().await;
}

#[tokio::test]
async fn calls_stay_open_while_there_is_no_connection() {
    let node = node(gateway()).await;
    let (mut socket, welcome) = Socket::greet(address(&node), hello(json!({}))).await;
    socket
        .send(json!({"request": {"id": 1, "event": "api.risk", "payload": {"region": "never"}, "timeout_ms": 300}}))
        .await;
    socket.send(json!({"ping": {"id": 0}})).await;
    assert!(socket.next().await["pong"].is_object());
    drop(socket);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let session = json!({"id": id_of(&welcome), "received": 1});
    let (mut socket, welcome) = Socket::greet(address(&node), hello(session)).await;
    assert_eq!((&welcome["session"]["resumed"], &welcome["session"]["received"]), (&json!(true), &json!(2)));
    assert_eq!(socket.response(1).await["error"]["code"], "timed_out");
    node.shutdown().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_not_sent_again_and_a_wrong_count_begins_anew() {
    let node = node(gateway()).await;
    let (mut socket, welcome) = Socket::greet(address(&node), hello(json!({}))).await;
    let id = id_of(&welcome);
    for number in [1, 3, 5] {
        socket.send(json!({"ping": {"id": number}})).await;
        assert_eq!(socket.next().await["pong"]["id"], number);
    }
    socket.send(json!({"ack": {"received": 2}})).await;
    socket.send(json!({"ping": {"id": 7}})).await;
    assert_eq!(socket.next().await["pong"]["id"], 7);
    drop(socket);
    // One was acknowledged that it now says it has not received.
    let (_socket, welcome) = Socket::greet(address(&node), hello(json!({"id": id, "received": 1}))).await;
    assert!(welcome["session"]["resumed"].is_null());
    assert_ne!(id_of(&welcome), id);
    let (mut socket, welcome) = Socket::greet(address(&node), hello(json!({"id": id, "received": 2}))).await;
    assert_eq!(welcome["session"]["resumed"], true);
    for number in [5, 7] {
        assert_eq!(socket.next().await["pong"]["id"], number);
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_second_connection_takes_a_session_over() {
    let node = node(gateway()).await;
    let (mut first, welcome) = Socket::greet(address(&node), hello(json!({}))).await;
    let session = json!({"id": id_of(&welcome), "received": 0});
    let (mut second, welcome) = Socket::greet(address(&node), hello(session)).await;
    assert_eq!(welcome["session"]["resumed"], true);
    assert!(first.try_next().await.is_err(), "it ends");
    assert!(second.ask(1, "api.risk", json!({"region": "x"})).await["value"].is_object());
    node.shutdown().await;
}

#[tokio::test]
async fn a_session_is_kept_for_a_while_and_no_longer() {
    let mut limits = ApiLimits::default();
    limits.session_keep = Duration::from_millis(50);
    limits.websockets = 1;
    let node = node(gateway().limits(limits)).await;
    let (socket, welcome) = Socket::greet(address(&node), hello(json!({}))).await;
    assert_eq!(welcome["session"]["keep_ms"], 50);
    drop(socket);
    // The one place is free again.
    let again = async {
        loop {
            if let Ok(socket) = Socket::open(address(&node), Some("edri.json")).await {
                break socket;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut socket = within("a place", again).await;
    socket.send(json!({"hello": hello(json!({"id": id_of(&welcome), "received": 0}))})).await;
    let anew = socket.next().await;
    assert!(anew["welcome"]["session"]["resumed"].is_null(), "{anew}");
    assert_ne!(id_of(&anew["welcome"]), id_of(&welcome));
    drop(socket);
    node.shutdown().await;
}
