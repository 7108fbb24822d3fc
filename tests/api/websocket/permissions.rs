//! What a client may do, by its token.

use edri::{Access, Client, ClientError, Permissions, Token};
use serde_json::{Value, json};

use super::super::client::address;
use super::super::gateway;
use super::socket::{Ended, Socket};
use super::{Tick, node, tick};
use crate::support::within;

/// The code of the error in the response.
async fn refused(socket: &mut Socket, id: u64, frame: Value) -> String {
    socket.send(frame).await;
    let response = socket.response(id).await;
    response["error"]["code"].as_str().unwrap_or_else(|| panic!("{response}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_says_what_a_client_may_and_nothing_else_comes_to_it() {
    let token = Token::random().expect("random");
    let may = Permissions::new().request("api.risk").subscribe("api.feed.>");
    let node = node(gateway().access(Access::new().token(&token.hash(), "dashboard", may))).await;
    let hello = json!({"version": 1, "role": "client", "token": token.secret()});
    let (mut socket, _) = Socket::greet(address(&node), hello).await;
    assert!(socket.ask(1, "api.risk", json!({"region": "x"})).await["value"].is_object());
    let publish = json!({"publish": {"id": 3, "event": "api.feed.tick", "payload": {"topic": "a", "number": 1}}});
    assert_eq!(refused(&mut socket, 3, publish).await, "forbidden");
    let open = json!({"open": {"id": 5, "event": "api.upper", "payload": {}}});
    assert_eq!(refused(&mut socket, 5, open).await, "forbidden");
    socket.subscribe(json!({"id": 7, "select": ">"})).await;
    node.bus().publish(tick(1)).await.expect("published");
    assert_eq!(socket.next().await["publish"]["payload"]["number"], 1);

    // Who says nothing may do nothing; the socket stays open.
    let mut nobody = Socket::to(&node).await;
    let request = json!({"request": {"id": 1, "event": "api.risk", "payload": {"region": "x"}}});
    assert_eq!(refused(&mut nobody, 1, request).await, "forbidden");
    assert_eq!(refused(&mut nobody, 3, json!({"subscribe": {"id": 3, "select": "api.feed.tick"}})).await, "forbidden");
    nobody.subscribe(json!({"id": 5, "select": ">"})).await;
    node.bus().publish(tick(2)).await.expect("published");
    nobody.send(json!({"ping": {"id": 1}})).await;
    assert!(nobody.next().await["pong"].is_object(), "no event came before it");

    // A wrong token is no token.
    let mut forger = Socket::open(address(&node), None).await.expect("connects");
    forger.send(json!({"hello": {"version": 1, "role": "client", "token": "guessed"}})).await;
    assert_eq!(forger.next().await["error"]["code"], "unauthorized");
    assert!(forger.next().await["bye"].is_object());
    let ended = forger.try_next().await;
    assert!(matches!(&ended, Err(Ended::Closed(Some(close))) if u16::from(close.code) == 1008), "{ended:?}");

    let url = format!("ws://{}/ws", address(&node));
    let client = within("a client", Client::connect(&url).token(token.secret())).await.expect("connects");
    let mut ticks = client.subscribe::<Tick>().await.expect("subscribed");
    node.bus().publish(tick(3)).await.expect("published");
    assert_eq!(within("an event", ticks.next()).await.expect("comes").number, 3);
    assert_eq!(client.publish(tick(4)).await.expect_err("it may not").code(), "forbidden");
    let forged = within("a forger", Client::connect(&url).token("guessed")).await;
    assert!(matches!(&forged, Err(ClientError::Refused { code, .. }) if code == "unauthorized"), "{forged:?}");
    client.close().await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_session_is_gone_on_with_only_by_who_began_it() {
    let (ours, theirs) = (Token::random().expect("random"), Token::random().expect("random"));
    let access = Access::new().token(&ours.hash(), "us", Permissions::all());
    let node = node(gateway().access(access.token(&theirs.hash(), "them", Permissions::all()))).await;
    let hello = |token: &Token, session: Value| json!({"version": 1, "role": "client", "token": token.secret(), "session": session});
    let (_socket, welcome) = Socket::greet(address(&node), hello(&ours, json!({}))).await;
    let session = json!({"id": welcome["session"]["id"], "received": 0});
    let (_thief, stolen) = Socket::greet(address(&node), hello(&theirs, session.clone())).await;
    assert!(stolen["session"]["resumed"].is_null(), "{stolen}");
    let (_again, kept) = Socket::greet(address(&node), hello(&ours, session)).await;
    assert_eq!(kept["session"]["resumed"], true, "{kept}");
    node.shutdown().await;
}
