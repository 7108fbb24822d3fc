//! Tunnels of a client.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::super::gateway;
use super::socket::Socket;
use super::{COUNTED, node};
use crate::support::until;

#[tokio::test]
async fn items_go_both_ways_and_the_result_comes_last() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    let credit = json!({"items": 100, "bytes": 1_000_000});
    socket.send(json!({"open": {"id": 1, "event": "api.upper", "payload": {}, "credit": credit}})).await;
    let granted = socket.next().await;
    assert!(granted["credit"]["items"].as_u64() >= Some(1), "{granted}");
    for text in ["a", "b"] {
        socket.send(json!({"data": {"id": 1, "payload": text}})).await;
    }
    for text in ["A", "B"] {
        assert_eq!(socket.next().await["data"], json!({"id": 1, "payload": text}));
    }
    socket.send(json!({"end": {"id": 1}})).await;
    let mut frame = socket.next().await;
    if frame["end"].is_object() {
        frame = socket.next().await;
    }
    assert_eq!(frame["response"], json!({"id": 1, "value": 2}));
    node.shutdown().await;
}

#[tokio::test]
async fn a_worker_sends_no_more_than_the_client_takes() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    let credit = json!({"items": 10, "bytes": 1_000_000});
    let payload = json!({"until": 5_000});
    socket.send(json!({"open": {"id": 1, "event": "api.counted", "payload": payload, "credit": credit}})).await;
    assert!(socket.next().await["credit"].is_object());
    for number in 0..10 {
        assert_eq!(socket.next().await["data"]["payload"], number);
    }
    // The worker fills what is between it and the client, and then waits.
    until("the worker to be held", || COUNTED.load(Ordering::Relaxed) > 10).await;
    socket.send(json!({"ping": {"id": 1}})).await;
    assert!(socket.next().await["pong"].is_object(), "nothing came without credit");
    assert!(COUNTED.load(Ordering::Relaxed) < 2_000);
    socket.send(json!({"credit": {"id": 1, "items": 10_000, "bytes": 1_000_000}})).await;
    for number in 10..5_000 {
        assert_eq!(socket.next().await["data"]["payload"], number);
    }
    assert_eq!(socket.response(1).await["value"], 5_000);
    node.shutdown().await;
}

#[tokio::test]
async fn a_broken_tunnel_is_told_to_the_worker() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    let open = |id: u64| json!({"open": {"id": id, "event": "api.upper", "payload": {}, "credit": {"items": 9, "bytes": 9_000}}});
    socket.send(open(1)).await;
    assert!(socket.next().await["credit"].is_object());
    socket.send(json!({"abort": {"id": 1, "failure": {"code": "enough", "message": "no more"}}})).await;
    let response = socket.response(1).await;
    assert!(response["value"].is_null(), "{response}");
    // Its worker takes the next.
    socket.send(open(3)).await;
    assert!(socket.next().await["credit"].is_object());
    socket.send(json!({"data": {"id": 3, "payload": "x"}})).await;
    assert_eq!(socket.next().await["data"]["payload"], "X");
    // A node that stops waits for open tunnels.
    drop(socket);
    node.shutdown().await;
}
