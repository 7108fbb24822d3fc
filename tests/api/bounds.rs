//! What is too much or too slow.

use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{ApiLimits, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{address, ask, get};
use super::{gateway, node};
use crate::support::{does, started, within};

/// A long answer.
#[event(request, name = "bounds.long", response = String, expose)]
struct Long {}

fn limits(change: impl FnOnce(&mut ApiLimits)) -> ApiLimits {
    let mut limits = ApiLimits::default();
    change(&mut limits);
    limits
}

async fn limited(change: impl FnOnce(&mut ApiLimits)) -> Node {
    node(gateway().limits(limits(change))).await
}

async fn connect(node: &Node) -> TcpStream {
    TcpStream::connect(address(node)).await.expect("connects")
}

/// Connects and sends this.
async fn say(node: &Node, text: &str) -> TcpStream {
    let mut stream = connect(node).await;
    stream.write_all(text.as_bytes()).await.expect("is taken");
    stream
}

/// What comes until the connection is closed.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A connection that is cut has said what it had to say.
    let _ = within("the end of a connection", stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn expect(answer: &str, status: &str, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
}

const MILLIS_200: Duration = Duration::from_millis(200);

#[tokio::test]
async fn whoever_sends_the_head_of_a_request_slowly_is_closed_and_others_are_answered() {
    let node = limited(|limits| limits.head_time = MILLIS_200).await;
    let mut slow = vec![connect(&node).await, say(&node, "GET /risk/x HTTP/1.1\r\nHost: localhost\r\nX-").await];
    slow.push(say(&node, "PRI * HTTP/2").await);
    slow.push(say(&node, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await);
    // Also on a connection that has been good.
    let mut second = say(&node, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    second.read_exact(&mut [0; 16]).await.expect("is answered");
    second.write_all(b"GET /healthz HT").await.expect("is taken");
    slow.push(second);
    // A byte now and then does not help.
    let mut dripping = connect(&node).await;
    slow.push(say(&node, "G").await);
    let drips = tokio::spawn(async move {
        while dripping.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(get(&node, "/risk/x").await.status, 200);
    for stream in slow {
        rest(stream).await;
    }
    within("the dripping one to be closed", drips).await.expect("ends");
    assert_eq!(get(&node, "/risk/x").await.status, 200);
    node.shutdown().await;
}

#[tokio::test]
async fn a_body_that_stands_still_or_comes_too_slowly_is_refused() {
    let node = limited(|limits| (limits.body_idle, limits.body_time) = (MILLIS_200, 4 * MILLIS_200)).await;
    let head = "POST /risk HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{";
    expect(&rest(say(&node, head).await).await, "408", "timed_out");
    let mut trickle = say(&node, head).await;
    let (mut reads, mut writes) = trickle.split();
    let began = Instant::now();
    let mut answer = Vec::new();
    let drips = async {
        while writes.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = within("the end", reads.read_to_end(&mut answer)) => {}
        () = drips => {}
    }
    expect(&String::from_utf8_lossy(&answer), "408", "timed_out");
    assert!(began.elapsed() >= 4 * MILLIS_200, "it had its time");
    node.shutdown().await;
}

#[tokio::test]
async fn heads_and_bodies_that_are_too_long_are_refused() {
    let node = limited(|limits| (limits.head_bytes, limits.body_bytes) = (4_096, 1_000)).await;
    let long = "x".repeat(4_096);
    let answer = ask(&node, "GET /risk/x", &[("x-long", &long)], "").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (431, &"too_large".into()));
    let answer = get(&node, &format!("/risk/{long}")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (431, &"too_large".into()));
    let endless = "x-a: b\r\n".repeat(100_000);
    let stream = say(&node, &format!("GET /risk/x HTTP/1.1\r\n{}", &endless[..15_000])).await;
    let (mut reads, mut writes) = stream.into_split();
    let floods = tokio::spawn(async move { writes.write_all(endless.as_bytes()).await });
    let mut answer = Vec::new();
    let _ = within("the end", reads.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    drop(reads);
    let _ = within("the flood to end", floods).await;
    let answer = ask(&node, "POST /risk", &[], " ".repeat(1_001)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (413, &"too_large".into()));
    assert_eq!(get(&node, "/risk/x").await.status, 200);
    node.shutdown().await;
}

#[tokio::test]
async fn ten_thousand_connections_too_many_are_each_told_so() {
    let node = limited(|limits| limits.connections = 8).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = say(&node, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        stream.read_exact(&mut [0; 12]).await.expect("is answered");
        held.push(stream);
    }
    for _ in 0..(10_000 / 50) {
        let fifty =
            (0..50).map(async |_| rest(say(&node, "GET /risk/x HTTP/1.1\r\nHost: localhost\r\n\r\n").await).await);
        for answer in futures_util::future::join_all(fifty).await {
            expect(&answer, "503", "overloaded");
            assert!(answer.contains("retry-after: 5"), "{answer}");
        }
    }
    drop(held);
    within("a place", async {
        while rest(say(&node, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await)
            .await
            .contains("503")
        {}
    })
    .await;
    node.shutdown().await;
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let node = limited(|limits| limits.connections_per_address = 2).await;
    let held = [connect(&node).await, connect(&node).await];
    expect(&rest(connect(&node).await).await, "429", "too_many_requests");
    drop(held);
    within("a place", async { while rest(say(&node, "GET /healthz HTTP/1.0\r\n\r\n").await).await.contains("429") {} })
        .await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_that_sends_too_many_requests_is_told_when_to_come_again() {
    let node = limited(|limits| (limits.requests_per_second, limits.request_burst) = (Some(5), 3)).await;
    for _ in 0..3 {
        assert_eq!(get(&node, "/risk/x").await.status, 200);
    }
    let answer = get(&node, "/risk/x").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "1"));
    assert_eq!(answer.json()["code"], "too_many_requests");
    assert_eq!(get(&node, "/healthz").await.status, 200, "whoever looks after the node is told");
    within("room for another", async { while get(&node, "/risk/x").await.status != 200 {} }).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_has_so_many_requests_under_way_and_leaving_makes_room() {
    let node = limited(|limits| limits.in_flight_per_client = 1).await;
    let never = say(&node, "GET /risk/never HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    within("the one that is under way", async { while get(&node, "/risk/x").await.status != 429 {} }).await;
    drop(never);
    within("room", async { while get(&node, "/risk/x").await.status != 200 {} }).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_closed() {
    let long = does::<Long, _>(|_, _| Box::pin(async { Ok("x".repeat(15 << 20)) }));
    let long = Manager::new("long").worker(long).handles::<Long>();
    let api = gateway().limits(limits(|limits| limits.send_idle = MILLIS_200));
    let node = started(App::new("gate").manager(long).api(api)).await;
    let stream =
        say(&node, "POST /events/bounds.long HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}").await;
    within("it to be counted", async {
        while !String::from_utf8_lossy(&get(&node, "/metrics").await.body)
            .contains("edri_http_refused_total{reason=\"slow_reader\"} 1")
        {}
    })
    .await;
    drop(stream);
    node.shutdown().await;
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_and_one_with_a_request_is_not() {
    let node = limited(|limits| limits.idle_time = MILLIS_200).await;
    let idle = say(&node, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut busy = say(&node, "GET /risk/never HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(rest(idle).await.starts_with("HTTP/1.1 200"));
    let waits = tokio::time::timeout(2 * MILLIS_200, busy.read_u8()).await;
    assert!(waits.is_err(), "{waits:?}");
    drop(busy);
    node.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_closes_idle_connections_at_once_and_lets_running_requests_end() {
    let slow = does::<Long, _>(|_, _| {
        Box::pin(async {
            tokio::time::sleep(2 * MILLIS_200).await;
            Ok("done".to_owned())
        })
    });
    let node =
        started(App::new("gate").manager(Manager::new("slow").worker(slow).handles::<Long>()).api(gateway())).await;
    let mut idle = say(&node, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    idle.read_exact(&mut [0; 12]).await.expect("is answered");
    let silent = connect(&node).await;
    let post = "POST /events/bounds.long HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    let running = say(&node, post).await;
    within("the request to run", async {
        while node.bus().account().in_hand == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let began = Instant::now();
    let (_, answer, _, _) = tokio::join!(node.shutdown(), rest(running), rest(idle), rest(silent));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\"done\""), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waited for idle connections: {:?}", began.elapsed());
}

#[tokio::test]
async fn requests_that_are_taken_back_by_the_thousand_do_no_harm() {
    let node = limited(|_| ()).await;
    for _ in 0..20 {
        let stream = hyper_util::rt::TokioIo::new(connect(&node).await);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), stream).await.expect("HTTP/2");
        let driving = tokio::spawn(connection);
        for _ in 0..200 {
            let mut sender = sender.clone();
            let request = hyper::Request::get(format!("http://{}/risk/never", address(&node)));
            let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).expect("a request");
            if sender.ready().await.is_err() {
                break;
            }
            let asking = tokio::time::timeout(Duration::from_micros(200), sender.send_request(request));
            let _ = asking.await;
        }
        driving.abort();
    }
    within("an answer", async { while get(&node, "/risk/x").await.status != 200 {} }).await;
    within("nothing to be under way", async {
        while !String::from_utf8_lossy(&get(&node, "/metrics").await.body).contains("edri_http_requests_in_flight 1\n")
        {
        }
    })
    .await;
    node.shutdown().await;
}
