//! Workers of the Python SDK across a socket.

use std::time::Duration;

use edri::prelude::*;
use edri::{Permissions, Token, WorkerState};
use edri_tests::tcp::TcpProxy;
use serde_json::json;

use super::super::access::Folder;
use super::super::client::{ask, get};
use super::super::tls::{issue, tls};
use super::super::{Model, gateway};
use super::{Program, RemoteFollowed, RemoteNoted, open_gateway};
use crate::support::{Seen, at_rest, does, until, view};

/// Number, whether it came again, and whose it was.
type Came = (u64, bool, u32);

fn follower(seen: &Seen<Came>) -> edri::Definition {
    let seen = seen.clone();
    let notes = does::<RemoteFollowed, _>(move |event, _| {
        seen.add((event.number, event.redelivered, event.pid));
        Box::pin(async { Ok(()) })
    });
    Manager::new("follower").worker(notes).handles::<RemoteFollowed>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_worker_across_a_network_serves_http_and_the_node_waits_for_it() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let token = Token::random().expect("random");
    let may = Permissions::new().serve("remote.>").publish("remote.followed").request("api.risk");
    let access = Access::new().token(&token.hash(), "machine", may).anonymous(Permissions::new().request(">"));
    let api = Api::bind(format!("127.0.0.1:{port}")).access(access);
    let model = Manager::new("model").worker(|| Model).handles::<super::super::AssessRisk>();
    // It is there before its node is.
    let worker = Program::start_at(&format!("ws://127.0.0.1:{port}"), "remote", Some(token.secret()), &[]);
    let app = App::new("gate").manager(model).manager(Manager::remote("remote")).api(api);
    let node = app.start().await.expect("starts with its worker");
    assert_eq!(get(&node, "/readyz").await.status, 200);
    assert_eq!(view(&node, "remote").workers[0].state, WorkerState::Running);

    let answer = ask(&node, "GET /remote/north?depth=3", &[("x-tenant", "acme")], "").await;
    assert_eq!((answer.status.as_u16(), answer.json()["said"].clone()), (200, json!("north 3 acme")));
    assert_eq!(answer.json()["pid"], worker.pid());
    let answer = ask(&node, "POST /remote", &[("content-type", "application/json")], r#"{"region":"atlantis"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (404, json!("not_found")));
    let answer = ask(&node, "POST /remote", &[("content-type", "application/json")], r#"{"region":7}"#).await;
    assert_eq!(answer.json()["code"], "invalid_payload", "{answer:?}");
    let answer = ask(&node, "POST /events/remote.plain", &[], "{}").await;
    assert_eq!(answer.json()["asked"], r#"here 0 [] None None None"#, "{answer:?}");
    assert!(get(&node, "/openapi.json").await.json()["paths"]["/remote/{region}"].is_object());

    // It has many at a time in hand and each has its answer.
    let asks = (0..100).map(|number| {
        let node = &node;
        async move { get(node, &format!("/remote/r{number}")).await.json()["said"] == format!("r{number} 0 ") }
    });
    assert!(futures_util::future::join_all(asks).await.into_iter().all(|right| right));

    // A node that stops finishes what is under way there, says bye, and the worker waits for it to come again.
    let slow = tokio::spawn({
        let node = node.clone();
        async move { get(&node, "/remote/slow").await }
    });
    until("the worker to have it", || view(&node, "remote").workers[0].in_hand == 1).await;
    let report = node.shutdown().await;
    assert_eq!(slow.await.expect("no panic").status, 200);
    assert!(report.unfinished.is_empty() && report.account.is_balanced(), "{report:?}");
    worker.terminate();
    assert_eq!(worker.ended().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_had_in_hand_when_it_was_killed_comes_to_another_marked() {
    let followed = Seen::default();
    let retry = |manager: Manager<edri::Remote>| manager.retry(Retry::attempts(3));
    let api = gateway().event::<RemoteNoted>().remote_workers(edri::RemoteWorkers::new().each(retry));
    let app = App::new("gate").manager(follower(&followed)).api(api);
    let node = app.start().await.expect("starts");
    let mut first = Program::start(&node, "remote", None, &[("HOLD_AT", "5")]);
    until("it to be there", || node.managers().iter().any(|name| **name == *"remote")).await;
    until("it to run", || view(&node, "remote").workers[0].state == WorkerState::Running).await;
    for number in 0..50 {
        node.bus().publish(RemoteNoted { number }).await.expect("published");
    }
    assert_eq!(followed.wait_for(5).await.len(), 5);
    until("the node to know", || view(&node, "remote").account.handled == 5).await;
    until("it to hold many", || view(&node, "remote").workers[0].in_hand > 40).await;
    // Nobody is there: what it had waits, and so does what comes.
    first.0.kill().expect("it runs");
    first.0.wait().expect("it ends");
    until("it to be missed", || view(&node, "remote").workers[0].state == WorkerState::Stopped).await;
    node.bus().publish(RemoteNoted { number: 50 }).await.expect("published");
    assert_eq!(followed.len(), 5);
    let second = Program::start(&node, "remote", None, &[]);
    let account = at_rest(node.bus()).await;
    let mut came = followed.wait_for(51).await;
    came.sort_unstable();
    assert_eq!(came.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), (0..=50).collect::<Vec<_>>());
    assert!(came[5].1, "the one that it had begun is marked: {:?}", came[5]);
    assert!(came[5..].iter().all(|(_, _, pid)| *pid == second.pid()));
    assert_eq!(account.dead_lettered, 0);

    // One that is asked to end finishes what it has, and its events wait for the next.
    second.terminate();
    assert_eq!(second.ended().await.0, Some(0));
    let third = Program::start(&node, "remote", None, &[]);
    node.bus().publish(RemoteNoted { number: 51 }).await.expect("published");
    assert_eq!(followed.wait_for(52).await[51], (51, false, third.pid()));
    assert!(node.shutdown().await.account.is_balanced());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_worker_talks_tls_to_a_node_that_it_trusts_and_to_no_other() {
    let folder = Folder::new("worker-tls");
    issue(&folder);
    let certificate = folder.0.join("certificate.pem");
    let trusting = [("SSL_CERT_FILE", certificate.to_str().expect("text"))];
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let url = format!("wss://localhost:{port}");
    let worker = Program::start_at(&url, "remote", None, &trusting);
    let api = Api::bind(format!("127.0.0.1:{port}")).tls(tls(&folder));
    let node = App::new("gate").manager(Manager::remote("remote")).api(api).start().await.expect("starts with it");
    let answer = node.bus().untyped().request("remote.risk", json!({"region": "north"})).await.expect("answered");
    assert_eq!(answer.decode::<serde_json::Value>().expect("JSON")["said"], "north 0 ");
    worker.terminate();
    assert_eq!(worker.ended().await.0, Some(0));

    // A node whose certificate nobody vouches for might be anybody's: nothing is served, and it is said what to do.
    let (status, said) = Program::start_at(&url, "remote", None, &[]).ended().await;
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("refused: untrusted") && said.contains("ssl"), "{said}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_worker_that_is_refused_says_why_and_ends() {
    let token = Token::random().expect("random");
    let access = Access::new().token(&token.hash(), "reader", Permissions::new().subscribe(">").serve("other.>"));
    let node = App::new("gate").api(open_gateway().access(access)).start().await.expect("starts");
    for (secret, code) in [(None, "forbidden"), (Some(token.secret()), "forbidden"), (Some("guessed"), "unauthorized")]
    {
        let (status, said) = Program::start(&node, "remote", secret, &[]).ended().await;
        assert_eq!(status, Some(3), "{said}");
        assert!(said.contains(&format!("refused: {code}")), "{said}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_worker_comes_again_when_its_node_does() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let worker = Program::start_at(&format!("ws://127.0.0.1:{port}"), "remote", None, &[]);
    for _ in 0..2 {
        let app = App::new("gate").manager(Manager::remote("remote")).api(Api::bind(format!("127.0.0.1:{port}")));
        let node = app.start_timeout(Duration::from_secs(15)).start().await.expect("starts");
        assert_eq!(get(&node, "/remote/x").await.json()["pid"], worker.pid());
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_network_stalls_without_a_word_is_missed_and_comes_again() {
    let followed = Seen::default();
    let node_port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let proxy = TcpProxy::to(node_port).await.expect("listens");
    let worker = Program::start_at(&format!("ws://{}", proxy.address()), "remote", None, &[]);
    let manager = Manager::remote("remote").silence_limit(Duration::from_millis(500)).retry(Retry::attempts(3));
    let api = Api::bind(node_port.to_string()).event::<RemoteNoted>();
    let node = App::new("gate").manager(follower(&followed)).manager(manager).api(api).start().await.expect("starts");
    node.bus().publish(RemoteNoted { number: 0 }).await.expect("published");
    followed.wait_for(1).await;
    proxy.stall();
    for number in 1..20 {
        node.bus().publish(RemoteNoted { number }).await.expect("published");
    }
    until("it to be missed", || view(&node, "remote").workers[0].state == WorkerState::Restarting).await;
    assert!(view(&node, "remote").workers[0].last_error.as_deref().is_some_and(|why| why.contains("500ms")));
    proxy.mend();
    let account = at_rest(node.bus()).await;
    let mut numbers: Vec<_> = followed.list().into_iter().map(|(number, ..)| number).collect();
    numbers.dedup();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert_eq!(account.dead_lettered, 0);
    drop(worker);
    node.shutdown().await;
}
