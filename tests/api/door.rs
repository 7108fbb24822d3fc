//! Who comes in at the gateway's door: by which name, through whom, with what token; and who has left it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edri::prelude::*;
use edri::{Access, ApiLimits, Node, Proxies, Token};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::access::Folder;
use super::client::{address, ask, get};
use super::metrics::Log;
use super::websocket::socket::Socket;
use super::{gateway, node};
use crate::support::{until, within};

/// The answer to a request with this `Host`.
async fn asked_as(node: &Node, host: &str) -> String {
    let mut stream = TcpStream::connect(address(node)).await.expect("connects");
    let request = format!("GET /risk/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("is sent");
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.expect("is answered");
    answer
}

#[tokio::test]
async fn a_page_whose_name_leads_to_this_machine_gets_nothing_from_an_open_gateway() {
    let open = node(gateway()).await;
    let refused = asked_as(&open, "evil.example").await;
    assert!(refused.starts_with("HTTP/1.1 421"), "{refused}");
    assert!(refused.contains("wrong_host") && refused.contains("Api::hosts"), "{refused}");
    for host in ["localhost", "127.0.0.1", "[::1]:8080"] {
        assert!(asked_as(&open, host).await.starts_with("HTTP/1.1 200"), "{host}");
    }
    // A WebSocket is a request too.
    let mut stream = TcpStream::connect(address(&open)).await.expect("connects");
    let upgrade = "GET /ws HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.expect("is sent");
    let mut answer = [0; 12];
    within("an answer", stream.read_exact(&mut answer)).await.expect("is answered");
    assert_eq!(&answer, b"HTTP/1.1 421");
    let named = node(gateway().hosts(["risks.example"])).await;
    assert!(asked_as(&named, "Risks.Example:443").await.starts_with("HTTP/1.1 200"));
    assert!(asked_as(&named, "evil.example").await.starts_with("HTTP/1.1 421"));
    open.shutdown().await;
    named.shutdown().await;
}

#[tokio::test]
async fn the_word_of_a_trusted_proxy_is_taken_for_who_the_client_is_and_nobody_elses() {
    let mut limits = ApiLimits::default();
    (limits.requests_per_second, limits.request_burst) = (Some(1), 1);
    let behind = node(gateway().limits(limits.clone()).proxies(Proxies::x_forwarded_for(["127.0.0.0/8"]))).await;
    let from = async |node: &Node, client: &str| {
        ask(node, "GET /risk/x", &[("x-forwarded-for", client)], "").await.status.as_u16()
    };
    for (client, status) in
        [("198.51.100.7", 200), ("198.51.100.8", 200), ("198.51.100.7", 429), ("1.1.1.1, 198.51.100.8", 429)]
    {
        assert_eq!(from(&behind, client).await, status, "{client}");
    }
    // Who is not on this machine may not read its metrics.
    let metrics =
        async |client: &str| ask(&behind, "GET /metrics", &[("x-forwarded-for", client)], "").await.status.as_u16();
    assert_eq!((metrics("198.51.100.9").await, metrics("127.0.0.9").await), (403, 200));
    let direct = node(gateway().limits(limits)).await;
    assert_eq!((from(&direct, "198.51.100.7").await, from(&direct, "198.51.100.8").await), (200, 429));
    let wrong = App::new("gate").api(gateway().proxies(Proxies::forwarded(["10.0.0.0/40"]))).start().await;
    assert!(wrong.expect_err("no network").to_string().contains("10.0.0.0/40"));
    behind.shutdown().await;
    direct.shutdown().await;
}

#[tokio::test]
async fn tokens_in_a_file_are_let_in_as_long_as_they_stand_there() {
    let (folder, anna, bert) =
        (Folder::new("tokens"), Token::random().expect("random"), Token::random().expect("random"));
    let line = |token: &Token, name: &str, may: &str| format!("# of {name}\n{} {name} {may}\n", token.hash());
    let path = folder.write("tokens", &line(&anna, "anna", "request=api.risk"));
    let (log, _logs) = Log::of_this_thread();
    let gate = node(gateway().access(Access::new().tokens_file(&path))).await;
    let status = async |token: &Token| {
        let bearer = format!("Bearer {}", token.secret());
        ask(&gate, "GET /risk/x", &[("authorization", &*bearer)], "").await.status.as_u16()
    };
    assert_eq!((status(&anna).await, status(&bert).await), (200, 401));
    let hello = |token: &Token| json!({"version": 1, "role": "client", "token": token.secret()});
    let (mut annas, _) = Socket::greet(address(&gate), hello(&anna)).await;
    folder.write("tokens", &line(&bert, "bert", "subscribe=api.* request=api.risk"));
    within("the new tokens", async { while status(&bert).await != 200 {} }).await;
    assert_eq!(status(&anna).await, 401, "it is taken out");
    assert_eq!(annas.next().await["bye"]["error"]["code"], "unauthorized", "and so is what it had open");
    let (mut berts, _) = Socket::greet(address(&gate), hello(&bert)).await;
    // A line beside it makes no difference to him.
    folder.write(
        "tokens",
        &format!(
            "{}{}",
            line(&bert, "bert", "subscribe=api.* request=api.risk"),
            line(&anna, "anna", "request=api.risk")
        ),
    );
    within("anna again", async { while status(&anna).await != 200 {} }).await;
    assert!(berts.ask(1, "api.risk", json!({"region": "x"})).await["error"].is_null());
    folder.write("tokens", &line(&bert, "bert", "subscribe=api.* request=api.risk"));
    within("anna is out", async { while status(&anna).await != 401 {} }).await;
    // Something is wrong in it: all stays as it was.
    folder.write("tokens", &format!("{}sha256:12 anna\n", line(&anna, "anna", "request=api.risk")));
    within("it to be looked at", async {
        while !log.text().contains("tokens have changed and cannot be used") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((status(&anna).await, status(&bert).await), (401, 200));
    folder.write("tokens", &line(&anna, "anna", "publish=api.*"));
    within("the next tokens", async { while status(&bert).await != 401 {} }).await;
    assert_eq!(status(&anna).await, 403, "as it says now");
    let wrong = App::new("gate").api(gateway().access(Access::new().tokens_file(folder.write("bad", "x"))));
    let said = wrong.start().await.expect_err("no tokens").to_string();
    assert!(said.contains("bad") && said.contains("line 1"), "{said}");
    gate.shutdown().await;
}

/// The metrics of a node, once its limits let them be read.
async fn metrics(node: &Node) -> String {
    loop {
        let answer = get(node, "/metrics").await;
        if answer.status == 200 {
            return String::from_utf8(answer.body.to_vec()).expect("text");
        }
    }
}

#[tokio::test]
async fn frames_count_in_a_clients_rate_and_in_the_metrics() {
    let mut limits = ApiLimits::default();
    // The upgrade is a request of it.
    (limits.requests_per_second, limits.request_burst) = (Some(1), 4);
    let node = super::websocket::node(gateway().limits(limits)).await;
    let mut socket = Socket::to(&node).await;
    socket.subscribe(json!({"id": 1, "select": "api.feed.tick"})).await;
    assert!(socket.ask(3, "api.risk", json!({"region": "x"})).await["error"].is_null());
    socket.send(json!({"ping": {"id": 1}})).await;
    assert!(socket.next().await["pong"].is_object(), "this costs nothing");
    assert!(socket.ask(5, "api.risk", json!({"region": "x"})).await["error"].is_null());
    let refused = socket.ask(7, "api.risk", json!({"region": "x"})).await;
    assert_eq!(refused["error"]["code"], "too_many_requests");
    assert!(refused["error"]["message"].as_str().is_some_and(|text| text.contains("ms")), "{refused}");
    socket.send(json!({"publish": {"event": "api.feed.tick", "payload": {"topic": "x", "number": 1}}})).await;
    assert_eq!(socket.next().await["error"]["code"], "too_many_requests");
    socket.send(json!({"dance": {}})).await;
    assert_eq!(socket.next().await["error"]["code"], "unknown_frame");
    node.bus().publish(super::websocket::tick(1)).await.expect("published");
    assert!(socket.next().await["publish"].is_object());
    let samples = [
        r#"edri_websocket_frames_received_total{frame="request",outcome="accepted"} 2"#,
        r#"edri_websocket_frames_received_total{frame="request",outcome="limited"} 1"#,
        r#"edri_websocket_frames_received_total{frame="publish",outcome="limited"} 1"#,
        r#"edri_websocket_frames_received_total{frame="subscribe",outcome="accepted"} 1"#,
        r#"edri_websocket_frames_received_total{frame="unknown",outcome="bad"} 1"#,
        r#"edri_websocket_sessions{state="connected"} 1"#,
        r#"edri_websocket_sessions{state="away"} 0"#,
        "edri_websocket_subscriptions 1",
        "edri_websocket_events_sent_total 1",
        "edri_websocket_events_missed_total 0",
    ];
    let has = |text: &str, sample: &str| text.lines().any(|line| line == sample);
    within("all to be counted", async {
        loop {
            let text = metrics(&node).await;
            if samples.iter().all(|sample| has(&text, sample)) {
                break;
            }
        }
    })
    .await;
    drop(socket);
    let subscribed = async || has(&metrics(&node).await, "edri_websocket_subscriptions 1");
    within("it to be gone with its client", async { while subscribed().await {} }).await;
    node.shutdown().await;
}

/// Nobody takes what is sent.
#[event(tunnel, name = "door.hold", up = Bytes, down = (), idle_timeout = "1h", http = "PUT /hold")]
struct Hold {}

#[derive(Clone, Default)]
struct Holding(Arc<AtomicU64>);

impl Worker for Holding {}

impl HandleConcurrent<Hold> for Holding {
    async fn handle(&self, _: &Hold, cx: &mut Context) -> Result<(), Failure> {
        let _tunnel = cx.accept::<Hold>()?;
        cx.cancelled().await;
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_client_is_gone_is_noticed_also_while_nobody_takes_what_it_sends() {
    let holding = Holding::default();
    let ended = Arc::clone(&holding.0);
    let manager = Manager::new("holding").worker(move || holding.clone()).handles_concurrently::<Hold>();
    let mut limits = ApiLimits::default();
    // With this it is looked at connections.
    limits.head_time = Duration::from_millis(500);
    let node = App::new("gate").manager(manager).api(gateway().limits(limits)).start().await.expect("starts");
    let begin = async || {
        let mut stream = TcpStream::connect(address(&node)).await.expect("connects");
        let head = b"PUT /hold HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000000\r\n\r\n";
        stream.write_all(head).await.expect("is sent");
        stream
    };
    let chunk = vec![7; 64 << 10];
    // All that fits on the way, and then nothing goes on; it leaves with a reset.
    let mut stream = begin().await;
    while tokio::time::timeout(Duration::from_millis(500), stream.write_all(&chunk)).await.is_ok() {}
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    stream.set_zero_linger().expect("is set");
    drop(stream);
    until("the first handler to be cancelled", || ended.load(Ordering::SeqCst) == 1).await;
    // All that it sends is taken, and its end is read.
    let mut stream = begin().await;
    within("room", stream.write_all(&chunk)).await.expect("is sent");
    drop(stream);
    until("the second handler to be cancelled", || ended.load(Ordering::SeqCst) == 2).await;
    node.shutdown().await;
}
