//! Clients that break the rules.

use edri::ApiLimits;
use serde_json::json;

use super::super::client::address;
use super::super::gateway;
use super::node;
use super::socket::{Ended, Socket};
use crate::support::until;

#[tokio::test]
async fn a_bad_frame_is_answered_and_the_socket_stays_open() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    let codes = [
        ("{", "malformed_frame"),
        ("7", "malformed_frame"),
        (r#"{"request": {"id": 1}}"#, "malformed_frame"),
        (r#"{"dance": {}}"#, "unknown_frame"),
        (r#"{"hello": {"version": 1, "role": "client"}}"#, "out_of_order"),
        (r#"{"ready": {}}"#, "out_of_order"),
        (r#"{"data": {"id": 9, "payload": 1}}"#, "unknown_call"),
        (r#"{"unsubscribe": {"id": 9}}"#, "unknown_call"),
        (r#"{"ack": {"received": 900}}"#, "out_of_order"),
    ];
    for (frame, code) in codes {
        socket.text(frame.to_owned()).await;
        assert_eq!(socket.next().await["error"]["code"], code, "{frame}");
    }
    assert!(socket.ask(1, "api.risk", json!({"region": "x"})).await["value"].is_object());
    node.shutdown().await;
}

#[tokio::test]
async fn who_sends_many_bad_frames_is_disconnected_and_leaves_nothing_behind() {
    let node = node(gateway()).await;
    let address = address(&node);
    let descriptors = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let mut before = None;
    for round in 0..100 {
        let mut socket = Socket::open(address, Some("edri.json")).await.expect("connects");
        socket.send(json!({"hello": {"version": 1, "role": "client", "session": {}}})).await;
        for _ in 0..101 {
            socket.text("{\"no".to_owned()).await;
        }
        let ended = loop {
            match socket.try_next().await {
                Ok(frame) if frame["bye"].is_object() => assert_eq!(frame["bye"]["error"]["code"], "bad_frames"),
                Ok(_) => {}
                Err(ended) => break ended,
            }
        };
        assert!(matches!(&ended, Ended::Closed(Some(close)) if u16::from(close.code) == 1008), "{ended:?}");
        if round == 0 {
            before = Some(descriptors());
        }
    }
    // Other scenarios run beside this one and have descriptors of their own; a leak would be a hundred.
    until("its descriptors to be closed", || descriptors() < before.unwrap_or_default() + 60).await;
    node.shutdown().await;
}

#[tokio::test]
async fn limits_are_kept_and_named() {
    let mut limits = ApiLimits::default();
    limits.websockets = 2;
    limits.subscriptions = 1;
    limits.calls = 1;
    limits.frame_bytes = 10_000;
    let node = node(gateway().limits(limits)).await;
    let mut socket = Socket::to(&node).await;
    socket.subscribe(json!({"id": 1, "select": "api.feed.tick"})).await;
    socket.send(json!({"subscribe": {"id": 3, "select": "api.feed.tick"}})).await;
    assert_eq!(socket.response(3).await["error"]["code"], "overloaded");
    socket.send(json!({"request": {"id": 5, "event": "api.risk", "payload": {"region": "never"}}})).await;
    assert_eq!(socket.ask(7, "api.risk", json!({"region": "x"})).await["error"]["code"], "overloaded");
    let _second = Socket::to(&node).await;
    assert!(Socket::open(address(&node), None).await.is_err(), "there are two already");
    socket.text(format!("{{\"ping\": {{\"id\": 1}}{}}}", " ".repeat(20_000))).await;
    assert_eq!(socket.next().await["bye"]["error"]["code"], "frame_too_long");
    assert!(matches!(socket.try_next().await, Err(Ended::Closed(Some(close))) if u16::from(close.code) == 1009));
    node.shutdown().await;
}
