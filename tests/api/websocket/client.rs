//! edri's own client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edri::{ApiLimits, Client, ClientError};
use edri_tests::tcp::TcpProxy;
use serde_json::json;

use super::super::client::address;
use super::super::{AssessRisk, Secret, gateway};
use super::{Counted, Numbered, Tick, Upper, node, tick};
use crate::support::{until, within};

async fn client(address: std::net::SocketAddr) -> Client {
    within("a client", Client::connect(format!("ws://{address}/ws"))).await.expect("connects")
}

fn assess(region: &str) -> AssessRisk {
    serde_json::from_value(json!({"region": region})).expect("an event")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_the_verbs_of_the_bus() {
    let node = node(gateway()).await;
    let client = client(address(&node)).await;
    let said = |risk: super::super::Risk| risk.said;
    assert_eq!(said(client.request(assess("x")).await.expect("answered")), "x 0 [] None None None");
    assert_eq!(said(client.request_to("model", assess("y")).await.expect("answered")), "y 0 [] None None None");
    let mut answers = client.request_all(assess("z")).await.expect("asked");
    let answer = within("an answer", answers.next()).await.expect("one");
    assert_eq!((answer.manager.as_str(), answer.node.as_str()), ("model", "gate"));
    assert!(answers.next().await.is_none());
    assert_eq!(client.request(assess("odd")).await.err().expect("odd").code(), "too_odd");
    assert_eq!(client.request(Secret {}).await.expect_err("a secret").code(), "unknown_event");

    let mut typed = client.subscribe::<Tick>().key("west").await.expect("subscribed");
    let mut by_pattern = client.untyped().subscribe("api.feed.*").await.expect("subscribed");
    let mut even = client.subscribe::<Tick>().filter(|tick| tick.number % 2 == 0).await.expect("subscribed");
    for (topic, number) in [("east", 1), ("west", 2)] {
        let receipt = client.publish(Tick { topic: topic.to_owned(), number }).await.expect("published");
        assert_eq!(receipt.deliveries, if topic == "west" { 3 } else { 2 });
    }
    assert_eq!(within("an event", typed.next()).await.expect("comes").number, 2);
    assert_eq!(within("an event", even.next()).await.expect("comes").number, 2);
    for number in [1, 2] {
        let event = within("an event", by_pattern.next()).await.expect("comes");
        assert_eq!(event.payload::<Tick>().expect("a tick").number, number);
    }
    let refused = client.untyped().subscribe("api.secret").await.expect_err("a secret");
    assert_eq!(refused.code(), "unknown_event");
    drop((typed, by_pattern, even));
    until("the subscriptions to end", || node.topology().subscriptions.is_empty()).await;

    let mut tunnel = client.open(Upper {}).await.expect("opened");
    for text in ["a", "ß"] {
        tunnel.send(text.to_owned()).await.expect("open");
        assert_eq!(within("an item", tunnel.recv()).await.expect("open"), Some(text.to_uppercase()));
    }
    tunnel.finish();
    assert_eq!(within("the result", tunnel.result()).await.expect("succeeded"), 2);
    let mut tunnel = client.open(Counted { until: 3_000 }).await.expect("opened");
    for number in 0..3_000 {
        assert_eq!(within("an item", tunnel.recv()).await.expect("open"), Some(number));
    }

    let bus = client.bus().clone();
    within("the goodbye", client.close()).await;
    assert_eq!(bus.request(assess("x")).await.err().expect("closed").code(), "peer_lost");
    node.shutdown().await;
}

/// Numbered events, so many every ten milliseconds: a feed does not stop for somebody who is away.
async fn feed(bus: edri::Bus, events: u64, at_once: u64, published: Arc<AtomicU64>) {
    for number in 0..events {
        bus.publish(tick(number)).await.expect("published");
        published.store(number + 1, Ordering::Relaxed);
        if number % at_once == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_away_for_ten_seconds_misses_nothing_of_a_feed() {
    const EVENTS: u64 = 1_200;
    let node = node(gateway()).await;
    let proxy = TcpProxy::to(address(&node)).await.expect("listens");
    let client = client(proxy.address()).await;
    let mut ticks = client.subscribe::<Tick>().capacity(EVENTS as usize).await.expect("subscribed");
    let publishing = tokio::spawn(feed(node.bus().clone(), EVENTS, 1, Arc::default()));
    let breaking = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.cut();
        tokio::time::sleep(Duration::from_secs(10)).await;
        proxy.mend();
    };
    let reading = async {
        for number in 0..EVENTS {
            let tick = within("an event", ticks.next()).await.expect("comes");
            assert_eq!((tick.number, ticks.missed()), (number, 0));
        }
    };
    tokio::join!(breaking, reading);
    within("the publisher", publishing).await.expect("no panic");
    node.shutdown().await;
}

/// For some seconds the network comes and goes while numbered events come in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_loses_its_network_finds_every_event_once_and_in_order() {
    const EVENTS: u64 = 4_000;
    let node = node(gateway()).await;
    let proxy = TcpProxy::to(address(&node)).await.expect("listens");
    let client = client(proxy.address()).await;
    let mut ticks = client.subscribe::<Tick>().capacity(EVENTS as usize).await.expect("subscribed");
    let (read, published) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let publishing = tokio::spawn(feed(node.bus().clone(), EVENTS, 10, Arc::clone(&published)));
    let breaking = async {
        for round in 0..6 {
            let goes_on = || read.load(Ordering::Relaxed) >= 100 + round * 600;
            until("the feed to go on", goes_on).await;
            if round % 2 == 0 {
                proxy.stall();
                let stalled = published.load(Ordering::Relaxed);
                until("events that wait", || published.load(Ordering::Relaxed) >= stalled + 100).await;
            }
            proxy.cut();
            until("the client to notice", || !client.is_connected()).await;
            let cut = published.load(Ordering::Relaxed);
            until("events that come meanwhile", || published.load(Ordering::Relaxed) >= cut + 200).await;
            proxy.mend();
        }
    };
    let reading = async {
        let mut answers = Vec::new();
        for number in 0..EVENTS {
            let tick = within("an event", ticks.next()).await.expect("comes");
            assert_eq!((tick.number, ticks.missed()), (number, 0));
            read.store(number + 1, Ordering::Relaxed);
            if number % 400 == 0 {
                // Asked while the network may be away, answered all the same, once.
                let client = client.clone();
                answers.push((number, tokio::spawn(async move { client.request(Numbered { number }).await })));
            }
        }
        answers
    };
    let ((), answers) = tokio::join!(breaking, reading);
    for (number, answer) in answers {
        let answer = within("an answer", answer).await.expect("no panic");
        assert_eq!(answer.unwrap_or_else(|error| panic!("request {number}: {error:?}")), number);
    }
    within("the publisher", publishing).await.expect("no panic");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_session_cannot_be_kept_calls_end_and_subscriptions_begin_again() {
    let mut limits = ApiLimits::default();
    limits.session_keep = Duration::from_millis(100);
    let node = node(gateway().limits(limits)).await;
    let proxy = TcpProxy::to(address(&node)).await.expect("listens");
    let client = client(proxy.address()).await;
    let mut ticks = client.subscribe::<Tick>().await.expect("subscribed");
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.request(assess("never")).await }
    });
    assert!(client.is_connected());
    proxy.cut();
    let ended = within("the request to end", asking).await.expect("no panic").err().expect("its session is gone");
    assert_eq!(ended.code(), "peer_lost");
    assert!(!client.is_connected());
    proxy.mend();
    until("the client to connect again", || client.is_connected()).await;
    assert!(within("an answer", client.request(assess("x"))).await.is_ok());
    node.bus().publish(tick(7)).await.expect("published");
    assert_eq!(within("an event", ticks.next()).await.expect("comes").number, 7);
    drop(client);
    assert!(within("the end", ticks.next()).await.is_none(), "with the client its subscriptions end");
    node.shutdown().await;
}

#[tokio::test]
async fn an_address_without_a_node_is_told() {
    for (url, expected) in [("http://127.0.0.1/ws", "ws://"), ("wss://a b/ws", "host"), ("ws://127.0.0.1:x/ws", "port")]
    {
        match Client::connect(url).await {
            Err(ClientError::Url(why)) => assert!(why.contains(expected), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    assert!(matches!(Client::connect(format!("ws://{address}/ws")).await, Err(ClientError::Unreachable(_))));
}
