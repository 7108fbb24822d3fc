//! The same answers over WebSocket.

use serde_json::Value;

use super::super::websocket::socket::Socket;
use super::*;
use crate::support::within;

async fn shown(socket: &mut Socket, id: u64, payload: Value) -> u64 {
    let response = socket.ask(id, "kept.ticket", payload).await;
    response["value"]["times"].as_u64().unwrap_or_else(|| panic!("{response}"))
}

#[tokio::test]
async fn what_is_kept_is_given_over_websocket_too_and_ended_for_it() {
    let desk = Desk::default();
    let node = desk.node(gateway()).await;
    let (mut one, mut other) = (Socket::to(&node).await, Socket::to(&node).await);
    assert_eq!(shown(&mut one, 1, json!({"id": 1})).await, 1);
    assert_eq!(shown(&mut one, 3, json!({"tags": [], "id": 1})).await, 2, "another payload");
    assert_eq!(shown(&mut other, 1, json!({"id": 1})).await, 1);
    assert_eq!(times(&get(&node, "/tickets/1").await), 1, "one answer, whichever way it is asked for");
    one.send(json!({"request": {"id": 5, "event": "kept.ticket", "to": "ticket", "payload": {"id": 1}}})).await;
    assert_eq!(one.response(5).await["value"]["times"], 3, "who is asked by name is asked");
    one.send(json!({"publish": {"id": 7, "event": "kept.changed", "payload": {"id": 1}}})).await;
    let published = one.response(7).await;
    assert!(published["error"].is_null(), "{published}");
    assert_eq!(shown(&mut other, 3, json!({"id": 1})).await, 4);
    assert_eq!(times(&get(&node, "/tickets/1").await), 4);
    let wrong = other.ask(5, "kept.rate", json!({"to": "wrong"})).await;
    assert_eq!(wrong["failure"]["code"], "not_found", "{wrong}");
    ends_well(&node).await;
}

#[tokio::test]
async fn the_time_that_one_client_has_is_not_that_of_others_who_wait_with_it() {
    let gate = Gate::closed();
    let desk = Desk { gate: Some(gate.clone()), ..Desk::default() };
    let node = desk.node(gateway()).await;
    let (mut hasty, mut patient) = (Socket::to(&node).await, Socket::to(&node).await);
    let call = |id, timeout: Option<u64>| json!({"request": {"id": id, "event": "kept.ticket", "timeout_ms": timeout, "payload": {"id": 1}}});
    hasty.send(call(1, Some(300))).await;
    gate.arrived(1).await;
    patient.send(call(1, None)).await;
    let error = within("the time", hasty.response(1)).await;
    assert_eq!(error["error"]["code"], "timed_out", "{error}");
    gate.open();
    assert_eq!(patient.response(1).await["value"]["times"], 1);
    assert_eq!(desk.times(), 1);
    ends_well(&node).await;
}
