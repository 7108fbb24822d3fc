//! Workers that know only the protocol.

use std::time::Duration;

use edri::prelude::*;
use edri::{Permissions, Reason, RemoteWorkers, StartError, Token, WorkerState};
use serde_json::{Value, json};

use super::super::websocket::socket::{Ended, Socket};
use super::super::{gateway, node as node_with_model};
use super::{RemoteNoted, bare, hello, next, open_gateway, refused};
use crate::support::{at_rest, ends_well, until, view, within};

const NOTED: [&str; 1] = ["remote.noted"];

async fn open_node() -> edri::Node {
    App::new("gate").api(open_gateway().event::<RemoteNoted>()).start().await.expect("starts")
}

async fn publish(node: &edri::Node, numbers: std::ops::Range<u64>) {
    for number in numbers {
        node.bus().publish(RemoteNoted { number }).await.expect("published");
    }
}

/// The next event; its number, and the number of the call.
async fn event(socket: &mut Socket) -> (u64, u64) {
    let frame = next(socket).await;
    let call = &frame["publish"];
    let number = call["payload"]["number"].as_u64().unwrap_or_else(|| panic!("{frame}"));
    (number, call["id"].as_u64().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_worker_of_a_name_makes_its_manager_and_later_ones_are_further_instances() {
    let node = open_node().await;
    let mut first = bare(&node, hello("remote", &NOTED)).await;
    let mut second = bare(&node, hello("remote", &NOTED)).await;
    until("both to run", || {
        view(&node, "remote").workers.iter().filter(|worker| worker.state == WorkerState::Running).count() == 2
    })
    .await;
    publish(&node, 0..2).await;
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let ((number, call), socket) = tokio::select! {
            came = event(&mut first) => (came, &mut first),
            came = event(&mut second) => (came, &mut second),
        };
        numbers.push(number);
        socket.send(json!({"ack": {"done": [call]}})).await;
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1]);
    let (code, message) = refused(&node, hello("remote", &["remote.other"])).await;
    assert_eq!(code, "wrong_handlers", "{message}");
    assert!(message.contains("remote.other") && message.contains("remote.noted"), "{message}");
    at_rest(node.bus()).await;
    // A node that stops says bye; what answers so has ended well.
    let stopping = tokio::spawn({
        let node = node.clone();
        async move { ends_well(&node).await }
    });
    for socket in [&mut first, &mut second] {
        assert!(next(socket).await["bye"].is_object());
        socket.send(json!({"bye": {}})).await;
        let Err(Ended::Closed(Some(close))) = socket.try_next().await else { panic!("it is closed") };
        assert_eq!(u16::from(close.code), 1001);
    }
    within("the node to stop", stopping).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_may_not_be_is_told_why() {
    let node = node_with_model(open_gateway()).await;
    let code = async |hello: Value| refused(&node, hello).await.0;
    let without = json!({"version": 1, "role": "worker", "handlers": [{"select": "remote.noted"}]});
    assert_eq!(code(without).await, "invalid_name");
    for manager in ["edri", "edri.store", "no name"] {
        assert_eq!(code(hello(manager, &NOTED)).await, "invalid_name", "{manager}");
    }
    assert_eq!(code(hello("remote", &[])).await, "wrong_handlers");
    assert_eq!(code(hello("remote", &["edri.dead_letter"])).await, "forbidden");
    assert_eq!(code(hello("model", &NOTED)).await, "name_taken");
    // Another kind than the event has.
    assert_eq!(code(hello("remote", &["api.risk"])).await, "name_taken");
    node.shutdown().await;

    let node = node_with_model(gateway()).await;
    let (code, message) = refused(&node, hello("remote", &NOTED)).await;
    assert_eq!(code, "unknown_manager");
    assert!(message.contains("Manager::remote(\"remote\")"), "{message}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_does_what_its_token_says_and_nothing_else() {
    let token = Token::random().expect("random");
    let may = Permissions::new().serve("remote.*").request("api.risk");
    let access = Access::new().token(&token.hash(), "machine", may);
    let node = node_with_model(open_gateway().access(access)).await;
    let with_token = |handles: &[&str]| {
        let mut hello = hello("remote", handles);
        hello["token"] = json!(token.secret());
        hello
    };
    assert_eq!(refused(&node, hello("remote", &NOTED)).await.0, "forbidden");
    for pattern in ["other.noted", "remote.>", ">"] {
        assert_eq!(refused(&node, with_token(&[pattern])).await.0, "forbidden", "{pattern}");
    }
    let mut worker = bare(&node, with_token(&NOTED)).await;
    assert!(worker.ask(1, "api.risk", json!({"region": "x"})).await["value"].is_object());
    worker.send(json!({"publish": {"id": 3, "event": "api.quake", "payload": {}}})).await;
    let frame = next(&mut worker).await;
    assert_eq!(frame["response"]["error"]["code"], "forbidden", "{frame}");
    worker.send(json!({"request": {"id": 5, "event": "api.secret", "payload": {}}})).await;
    let frame = next(&mut worker).await;
    assert_eq!(frame["response"]["error"]["code"], "unknown_event", "{frame}");
    // It may not take names that it has nothing to do with, nor show them to others.
    for event in [
        json!({"name": "stranger.event", "kind": "request"}),
        json!({"name": "edri.event", "kind": "notification"}),
        json!({"name": "api.risk", "kind": "request", "expose": {"routes": ["GET /risk/other"]}}),
    ] {
        worker.send(json!({"declare": {"events": [event]}})).await;
        let frame = next(&mut worker).await;
        assert!(matches!(frame["error"]["code"].as_str(), Some("forbidden" | "invalid_name")), "{frame}");
    }
    worker.send(json!({"declare": {"events": [{"name": "remote.noted", "kind": "request"}]}})).await;
    assert_eq!(next(&mut worker).await["error"]["code"], "name_taken");
    drop(worker);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_talks_rubbish_is_disconnected_and_others_work_on() {
    let mut limits = edri::ApiLimits::default();
    limits.bad_frames = 10;
    limits.worker_events = 20;
    let api = open_gateway().event::<RemoteNoted>().limits(limits);
    let node = App::new("gate").api(api).start().await.expect("starts");
    let mut good = bare(&node, hello("good", &NOTED)).await;
    let ends = async |socket: &mut Socket| {
        within("the end", async { while socket.try_next().await.is_ok() {} }).await;
    };

    let mut worker = bare(&node, hello("bad", &NOTED)).await;
    worker.text("what is this?".to_owned()).await;
    assert_eq!(next(&mut worker).await["error"]["code"], "malformed_frame");
    ends(&mut worker).await;

    let mut worker = bare(&node, hello("bad", &NOTED)).await;
    for _ in 0..11 {
        worker.send(json!({"welcome_again": {}})).await;
    }
    for _ in 0..11 {
        assert_eq!(next(&mut worker).await["error"]["code"], "unknown_frame");
    }
    ends(&mut worker).await;

    // A flood of declarations meets the limit; the names of before stay good.
    let mut worker = bare(&node, hello("bad", &NOTED)).await;
    let events: Vec<_> = (0..30).map(|n| json!({"name": format!("flood.e{n}"), "kind": "notification"})).collect();
    worker.send(json!({"declare": {"events": events}})).await;
    for _ in 0..10 {
        assert_eq!(next(&mut worker).await["error"]["code"], "overloaded");
    }
    // One that says a thousand times that it has done what it never had.
    let done: Vec<_> = (1..=1000).map(|n| n * 2 + 1_000_000).collect();
    worker.send(json!({"ack": {"done": done}})).await;
    for _ in 0..1000 {
        assert_eq!(next(&mut worker).await["error"]["code"], "unknown_call");
    }
    drop(worker);

    publish(&node, 7..8).await;
    let (number, call) = event(&mut good).await;
    good.send(json!({"ack": {"done": [call]}})).await;
    assert_eq!(number, 7);
    until("the good one to be done", || view(&node, "good").account.handled == 1).await;
    drop(good);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_beyond_the_places_waits_and_takes_over_what_one_that_is_lost_had() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let manager = Manager::remote("remote").serves("remote.*").retry(Retry::attempts(2));
    let api = Api::bind(port.to_string()).event::<RemoteNoted>();
    let starting = tokio::spawn(App::new("gate").manager(manager).api(api).start());
    let connect = async || loop {
        if let Ok(socket) = Socket::open(port, Some("edri.json")).await {
            break socket;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut stranger = connect().await;
    stranger.send(json!({"hello": hello("remote", &["other.event"])})).await;
    assert_eq!(stranger.next().await["error"]["code"], "wrong_handlers");
    let (mut first, mut spare) = (connect().await, connect().await);
    // Not ready while it is waited for.
    first.send(json!({"hello": hello("remote", &NOTED)})).await;
    assert!(first.next().await["welcome"].is_object());
    spare.send(json!({"hello": hello("remote", &NOTED)})).await;
    assert!(!starting.is_finished(), "its start has not ended");
    first.send(json!({"ready": {}})).await;
    let node = within("the start", starting).await.expect("no panic").expect("starts");
    publish(&node, 0..3).await;
    let (number, call) = event(&mut first).await;
    first.send(json!({"ack": {"begun": call}})).await;
    assert_eq!(number, 0);
    // One at a time, so that none overtakes one that fails.
    assert_eq!(view(&node, "remote").workers[0].in_hand, 1);
    drop(first);
    assert!(next(&mut spare).await["welcome"].is_object());
    spare.send(json!({"ready": {}})).await;
    let mut redelivered = Vec::new();
    for expected in 0..3 {
        let frame = next(&mut spare).await;
        assert_eq!(frame["publish"]["payload"]["number"], expected, "{frame}");
        redelivered.push(frame["publish"]["tried"] == 1 || frame["publish"]["redelivered"] == true);
        spare.send(json!({"ack": {"done": [frame["publish"]["id"]]}})).await;
    }
    assert_eq!(redelivered, [true, false, false]);
    let account = at_rest(node.bus()).await;
    assert_eq!((account.handled, account.dead_lettered), (3, 0));
    drop(spare);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_worker_does_not_come_does_not_start_and_says_so() {
    let app = App::new("gate").manager(Manager::remote("remote")).api(gateway());
    let error = app.start_timeout(Duration::from_millis(200)).start().await.expect_err("nobody comes");
    assert!(matches!(&error, StartError::Manager(edri::ManagerError::Late { .. })), "{error:?}");
    assert!(error.to_string().contains("`remote`") && error.to_string().contains("gateway"), "{error}");
    let error = App::new("gate").manager(Manager::remote("remote")).start().await.expect_err("no gateway");
    assert!(error.to_string().contains("App::api"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_nobody_has_declared_ends_when_its_workers_stay_away() {
    let workers = RemoteWorkers::new().grace(Duration::from_millis(300));
    let api = gateway().event::<RemoteNoted>().remote_workers(workers);
    let node = App::new("gate").api(api).start().await.expect("starts");
    let worker = bare(&node, hello("remote", &NOTED)).await;
    until("it to run", || view(&node, "remote").workers[0].state == WorkerState::Running).await;
    drop(worker);
    until("it to be missed", || view(&node, "remote").workers[0].state == WorkerState::Stopped).await;
    publish(&node, 0..3).await;
    until("the manager to end", || node.managers().is_empty()).await;
    let letters = node.bus().dead_letters();
    assert_eq!(letters.iter().map(|letter| letter.reason).collect::<Vec<_>>(), [Reason::Stopped; 3]);
    // The name is free again.
    let mut worker = bare(&node, hello("remote", &["remote.other"])).await;
    worker.send(json!({"bye": {}})).await;
    assert!(next(&mut worker).await["bye"].is_object());
    assert!(node.shutdown().await.account.is_balanced());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_gives_up_what_waits_for_a_worker_that_is_away() {
    let node = open_node().await;
    let worker = bare(&node, hello("remote", &NOTED)).await;
    until("it to run", || view(&node, "remote").workers[0].state == WorkerState::Running).await;
    drop(worker);
    until("it to be missed", || view(&node, "remote").workers[0].state == WorkerState::Stopped).await;
    publish(&node, 0..3).await;
    let began = std::time::Instant::now();
    let report = within("the node to stop", node.shutdown()).await;
    assert!(began.elapsed() < Duration::from_secs(5), "nobody is waited for");
    assert_eq!((report.account.dead_lettered, report.account.is_balanced()), (3, true));
}
