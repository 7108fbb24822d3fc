//! Calls of a client.

use std::collections::BTreeSet;

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::super::client::address;
use super::super::{Quake, gateway};
use super::node;
use super::socket::Socket;
use crate::support::within;

#[tokio::test]
async fn many_requests_are_in_flight_and_each_has_its_answer() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    let ids: BTreeSet<u64> = (0..200).map(|number| number * 2 + 1).collect();
    for id in &ids {
        let payload = json!({"region": format!("r{id}")});
        socket.send(json!({"request": {"id": id, "event": "api.risk", "payload": payload}})).await;
    }
    let mut answered = BTreeSet::new();
    for _ in &ids {
        let frame = socket.next().await;
        let response = &frame["response"];
        let id = response["id"].as_u64().unwrap_or_else(|| panic!("{frame}"));
        assert_eq!(response["value"]["said"], format!("r{id} 0 [] None None None"));
        assert!(answered.insert(id), "{id} is answered twice");
    }
    assert_eq!(answered, ids);
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_may_write_messagepack() {
    let node = node(gateway()).await;
    let mut socket = Socket::open(address(&node), Some("other, edri.msgpack")).await.expect("connects");
    let send = async |socket: &mut Socket, frame: Value| {
        let bytes = rmp_serde::to_vec_named(&frame).expect("encodes");
        within("sending", socket.socket.send(Message::binary(bytes))).await.expect("sent");
    };
    send(&mut socket, json!({"hello": {"version": 1, "role": "client"}})).await;
    assert_eq!(socket.next().await["welcome"]["node"], "gate");
    // A byte string that holds the payload's MessagePack; a null is none.
    send(&mut socket, json!({"request": {"id": 1, "event": "api.risk", "payload": null}})).await;
    assert_eq!(socket.response(1).await["error"]["code"], "invalid_payload");
    let mut frame = Vec::new();
    let payload = edri_events::Encoding::MessagePack.encode(&json!({"region": "x"})).expect("encodes");
    let call = edri_protocol::Call {
        id: 3,
        event: "api.risk".into(),
        payload: Some(edri_protocol::Payload::new(edri_events::Encoding::MessagePack, &payload)),
        ..Default::default()
    };
    edri_protocol::Frame::Request(call)
        .encode(edri_events::Encoding::MessagePack, 1 << 20, &mut frame)
        .expect("encodes");
    within("sending", socket.socket.send(Message::binary(frame))).await.expect("sent");
    let bytes = loop {
        let message = within("an answer", futures_util::StreamExt::next(&mut socket.socket)).await;
        if let Message::Binary(bytes) = message.expect("one").expect("whole") {
            break bytes;
        }
    };
    let Ok(edri_protocol::Frame::Response(response)) = edri_protocol::Frame::decode(&bytes) else {
        panic!("{bytes:?}")
    };
    let value: Value = rmp_serde::from_slice(response.value.expect("a value").bytes()).expect("MessagePack");
    assert_eq!(value["said"], "x 0 [] None None None");
    node.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_request_frees_its_worker() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    let never = json!({"region": "never"});
    socket.send(json!({"request": {"id": 1, "event": "api.risk", "payload": never}})).await;
    socket.send(json!({"cancel": {"id": 1}})).await;
    assert_eq!(socket.response(1).await["error"]["code"], "cancelled");
    // The one worker is free again, long before the request's time-out.
    assert_eq!(socket.ask(3, "api.risk", json!({"region": "x"})).await["value"]["said"], "x 0 [] None None None");
    // So it is when the client is gone.
    socket.send(json!({"request": {"id": 5, "event": "api.risk", "payload": never}})).await;
    drop(socket);
    let mut socket = Socket::to(&node).await;
    assert!(socket.ask(1, "api.risk", json!({"region": "x"})).await["value"].is_object());
    node.shutdown().await;
}

#[tokio::test]
async fn a_call_says_who_is_asked_and_how_long() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    let call = |id: u64, more: Value| {
        let mut call = json!({"id": id, "event": "api.risk", "payload": {"region": "x"}});
        call.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        json!({ "request": call })
    };
    socket.send(call(1, json!({"to": "model"}))).await;
    assert!(socket.response(1).await["value"].is_object());
    socket.send(call(3, json!({"to": "nobody"}))).await;
    assert_eq!(socket.response(3).await["error"]["code"], "no_handler");
    socket.send(call(5, json!({"all": true}))).await;
    let first = socket.response(5).await;
    assert_eq!((&first["from"], &first["more"]), (&json!("model"), &json!(true)), "{first}");
    let last = socket.response(5).await;
    assert_eq!(last, json!({"id": 5}));
    socket.send(call(7, json!({"payload": {"region": "never"}, "timeout_ms": 50}))).await;
    assert_eq!(socket.response(7).await["error"]["code"], "timed_out");
    node.shutdown().await;
}

#[tokio::test]
async fn what_may_not_be_is_answered_and_the_socket_stays_open() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    let code = async |socket: &mut Socket, frame: Value, id: u64| {
        socket.send(frame).await;
        let response = socket.response(id).await;
        let fault = if response["failure"].is_null() { &response["error"] } else { &response["failure"] };
        fault["code"].as_str().map(str::to_owned).unwrap_or_else(|| panic!("{response}"))
    };
    let request =
        |id: u64, event: &str, payload: Value| json!({"request": {"id": id, "event": event, "payload": payload}});
    assert_eq!(code(&mut socket, request(1, "api.secret", json!({})), 1).await, "unknown_event");
    assert_eq!(code(&mut socket, request(3, "edri.node.changed", json!({})), 3).await, "forbidden");
    assert_eq!(code(&mut socket, request(5, "api.feed.tick", json!({})), 5).await, "wrong_kind");
    assert_eq!(code(&mut socket, request(7, "api.risk", json!({"region": 1})), 7).await, "invalid_payload");
    assert_eq!(code(&mut socket, request(9, "api.risk", json!({"region": "odd"})), 9).await, "too_odd");
    assert_eq!(code(&mut socket, request(11, "api.risk", json!({"region": "panic"})), 11).await, "worker_lost");
    assert_eq!(code(&mut socket, request(12, "api.risk", json!({"region": "x"})), 12).await, "invalid_call");
    let forged = json!({"request": {"id": 13, "event": "api.risk", "payload": {"region": "x"}, "headers": {"edri-caller": "root"}}});
    assert_eq!(code(&mut socket, forged, 13).await, "invalid_headers");
    let mut ids = BTreeSet::new();
    for id in [15, 17] {
        socket.send(json!({"subscribe": {"id": id, "select": "api.secret"}})).await;
        ids.insert(socket.response(id).await["error"]["code"].as_str().expect("an error").to_owned());
    }
    assert_eq!(ids, BTreeSet::from(["unknown_event".to_owned()]));
    assert!(socket.ask(19, "api.risk", json!({"region": "x"})).await["value"].is_object());
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_publishes() {
    let node = node(gateway()).await;
    let mut quakes = node.bus().subscribe::<Quake>().await.expect("subscribes");
    let mut socket = Socket::to(&node).await;
    let event = json!({"region": "north", "magnitude": 4.5});
    socket.send(json!({"publish": {"id": 1, "event": "api.quake", "payload": event}})).await;
    let response = socket.response(1).await;
    assert_eq!(response["value"]["groups"], 1, "{response}");
    let quake = within("the quake", quakes.next()).await.expect("comes");
    assert_eq!(response["value"]["id"], quake.envelope().id().to_string());
    // Without a number it is not answered.
    socket.send(json!({"publish": {"event": "api.quake", "payload": event}})).await;
    within("the other quake", quakes.next()).await.expect("comes");
    node.shutdown().await;
}

#[tokio::test]
async fn who_speaks_otherwise_is_told_how() {
    let node = node(gateway()).await;
    let Err(Error::Http(response)) = Socket::open(address(&node), Some("chat, soap")).await else {
        panic!("such a protocol is not spoken")
    };
    assert_eq!(response.status(), 400);
    let plain = super::super::client::get(&node, "/ws").await;
    assert_eq!((plain.status.as_u16(), &plain.json()["code"]), (426, &json!("upgrade_required")));
    // Without a subprotocol it is JSON.
    let mut socket = Socket::open(address(&node), None).await.expect("connects");
    socket.send(json!({"hello": {"version": 7, "role": "client"}})).await;
    assert_eq!(socket.next().await["error"]["code"], "unsupported_version");
    assert_eq!(socket.next().await["bye"]["error"]["code"], "unsupported_version");
    node.shutdown().await;
}

#[tokio::test]
async fn a_stopping_node_finishes_what_its_clients_wait_for() {
    let node = node(gateway()).await;
    let mut socket = Socket::to(&node).await;
    let mut idle = Socket::to(&node).await;
    socket
        .send(json!({"request": {"id": 1, "event": "api.risk", "payload": {"region": "never"}, "timeout_ms": 300}}))
        .await;
    socket.send(json!({"ping": {"id": 9}})).await;
    assert_eq!(socket.next().await["pong"]["id"], 9);
    let stopping = tokio::spawn(async move { node.shutdown().await });
    assert!(idle.next().await["bye"].is_object());
    assert!(
        matches!(idle.try_next().await, Err(super::socket::Ended::Closed(Some(close))) if u16::from(close.code) == 1001)
    );
    assert!(socket.next().await["bye"].is_object());
    assert_eq!(socket.response(1).await["error"]["code"], "timed_out");
    drop(socket);
    within("the node to stop", stopping).await.expect("stops");
}
