//! Requests across nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{ManagerState, Reply};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{Cluster, Pair, WAYS, Way, address, reaches};
use crate::support::{
    Asked, Gate, Noted, Seen, asked, at_rest, does, ends_well, keeps, keeps_behind, noted, started, until, within,
};

/// Waits for requests much longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(60);

/// Sends a request that may take long, in a task of its own.
fn ask(node: &Node, number: u64) -> JoinHandle<Result<u64, RequestError>> {
    let bus = node.bus().clone();
    tokio::spawn(async move { bus.request_with(asked(number), &Options::new().time_limit(LONG)).await })
}

async fn outcome(asking: JoinHandle<Result<u64, RequestError>>) -> Result<u64, RequestError> {
    within("an outcome", asking).await.expect("no panic")
}

/// A manager that adds so much.
fn adds(name: &str, more: u64) -> edri::Definition {
    let worker = does(move |event: &Asked, _| {
        let sum = event.number + more;
        async move { Ok(sum) }.boxed()
    });
    Manager::new(name).worker(worker).handles::<Asked>().into()
}

async fn met(pair: &Pair) {
    within("somebody", pair.sensor.bus().wait_for::<Asked>()).await.expect("somebody");
}

// ---- outcomes ----------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_a_request_is_told_as_within_one_node() {
    for way in WAYS {
        let worker = does(|event: &Asked, _| {
            let number = event.number;
            async move {
                match number {
                    1 => Err(Failure::new("too_low", "one is too low")),
                    2 => panic!("an unlucky number"),
                    _ => Ok(number * 2),
                }
            }
            .boxed()
        });
        let manager = Manager::new("mixed").worker(worker).handles::<Asked>();
        let pair = Cluster::new().pair(way, |app| app.manager(manager), |app| app).await;
        met(&pair).await;
        let bus = pair.sensor.bus();
        assert_eq!(within("an answer", bus.request(asked(21))).await.expect("answered"), 42);
        let error = within("an answer", bus.request(asked(1))).await.expect_err("it fails");
        assert!(
            matches!(&error, RequestError::Failed(failure)
                if failure.code() == "too_low" && failure.to_string().contains("one is too low")),
            "{error:?}"
        );
        let error = within("an answer", bus.request(asked(2))).await.expect_err("its worker panics");
        assert!(matches!(&error, RequestError::WorkerLost(_)), "{error:?}");
        let wrong = Body::encode(edri::Encoding::Json, &serde_json::json!({ "number": "x" })).expect("encoded");
        let untyped = within("an answer", bus.untyped().request("test.asked", wrong)).await;
        assert_eq!(untyped.expect_err("no number").code(), "invalid_payload");
        let all: Vec<_> = (100..200).map(|number| ask(&pair.sensor, number)).collect();
        for (number, asking) in (100..200).zip(all) {
            assert_eq!(outcome(asking).await.expect("answered"), number * 2);
        }
        let (sensor, centre) = pair.end().await;
        assert_eq!((sensor.account.deliveries, centre.account.deliveries), (104, 104), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_manager_of_another_node_answers_no_handler_as_one_here() {
    struct Never;
    impl Worker for Never {}
    impl Handle<Asked> for Never {
        async fn handle(&mut self, _: &Asked, _: &mut Context) -> Result<u64, Failure> {
            panic!("always")
        }
    }
    let manager = Manager::new("never").restart(Restart::never()).worker(|| Never).handles::<Asked>();
    let pair = Cluster::new().pair(Way::Direct, |app| app.manager(manager), |app| app).await;
    met(&pair).await;
    assert_eq!(outcome(ask(&pair.sensor, 1)).await.expect_err("lost").code(), "worker_lost");
    until("the manager to fail", || {
        pair.centre.topology().manager("never").is_some_and(|view| view.state == ManagerState::Failed)
    })
    .await;
    assert_eq!(outcome(ask(&pair.sensor, 2)).await.expect_err("failed").code(), "no_handler");
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_meet_the_end_of_a_manager_of_another_node_are_all_told() {
    for _ in 0..5 {
        let worker = does(|_: &Asked, _| async { panic!("always") }.boxed());
        let manager = Manager::new("never").restart(Restart::never()).worker(worker).handles::<Asked>();
        let pair = Cluster::new().pair(Way::Direct, |app| app.manager(manager), |app| app).await;
        met(&pair).await;
        let over = Arc::new(AtomicBool::new(false));
        let mut asking = Vec::new();
        // So that they come before, while and after it fails.
        while !over.load(Ordering::Relaxed) && asking.len() < 20_000 {
            let (asked, over) = (ask(&pair.sensor, asking.len() as u64), Arc::clone(&over));
            asking.push(tokio::spawn(async move {
                let outcome = asked.await.expect("no panic");
                over.fetch_or(outcome.as_ref().is_err_and(|error| error.code() == "no_handler"), Ordering::Relaxed);
                outcome
            }));
            tokio::task::yield_now().await;
        }
        for one in asking {
            let error = outcome(one).await.expect_err("nobody answers");
            assert!(["worker_lost", "no_handler"].contains(&error.code()), "{error}");
        }
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_given_up_is_cancelled_on_the_other_node() {
    for way in WAYS {
        let (begun, cancelled) = (Seen::default(), Seen::default());
        let (began, was_cancelled) = (begun.clone(), cancelled.clone());
        let worker = does(move |event: &Asked, cx| {
            let (begun, cancelled, number) = (began.clone(), was_cancelled.clone(), event.number);
            async move {
                begun.add(number);
                cx.cancelled().await;
                cancelled.add(number);
                Ok(0)
            }
            .boxed()
        });
        let manager = Manager::new("waits").worker(worker).handles::<Asked>();
        let pair = Cluster::new().pair(way, |app| app.manager(manager), |app| app).await;
        met(&pair).await;
        let first = ask(&pair.sensor, 1);
        begun.wait_for(1).await;
        let queued = ask(&pair.sensor, 2);
        until("the second to be there", || pair.centre.topology().managers[0].depths == [1]).await;
        queued.abort();
        // Cancels go in the order in which they were given up.
        until("the second to be given up", || pair.sensor.bus().account().cancelled == 1).await;
        first.abort();
        assert_eq!(cancelled.wait_for(1).await, [1]);
        let account = at_rest(pair.centre.bus()).await;
        assert_eq!((account.deliveries, account.cancelled), (2, 1), "{account:?}");
        assert_eq!(begun.len(), 1, "one that was queued never runs");
        let account = at_rest(pair.sensor.bus()).await;
        assert_eq!((account.deliveries, account.cancelled), (2, 2), "{account:?}");
        assert_eq!((pair.sensor.topology().pending, pair.centre.topology().pending), (0, 0));
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_remains_of_a_deadline_travels_with_a_request() {
    let (gate, remains) = (Gate::closed(), Seen::default());
    let (pass, seen) = (gate.clone(), remains.clone());
    let worker = does(move |event: &Asked, cx| {
        let (gate, seen, number) = (pass.clone(), seen.clone(), event.number);
        async move {
            seen.add(cx.remaining().expect("every request has a deadline"));
            if number == 1 {
                gate.pass().await;
            }
            Ok(number)
        }
        .boxed()
    });
    let manager = Manager::new("waits").worker(worker).handles::<Asked>();
    let pair = Cluster::new().pair(Way::Switch, |app| app.manager(manager), |app| app).await;
    met(&pair).await;
    assert_eq!(outcome(ask(&pair.sensor, 2)).await.expect("answered"), 2);
    let remaining = remains.wait_for(1).await[0];
    assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
    let began = Instant::now();
    let options = Options::new().time_limit(Duration::from_millis(300));
    let error = within("the deadline", pair.sensor.bus().request_with(asked(1), &options)).await;
    assert!(matches!(error.expect_err("it waits at the gate"), RequestError::TimedOut(_)));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(remains.wait_for(2).await[1] <= Duration::from_millis(300));
    gate.open();
    assert_eq!(outcome(ask(&pair.sensor, 3)).await.expect("the worker goes on"), 3);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_was_taken_along_answers_a_requester_on_another_node() {
    struct Later(Seen<Arc<Mutex<Option<Reply<u64>>>>>);
    impl Worker for Later {}
    impl Handle<Asked> for Later {
        async fn handle(&mut self, _: &Asked, cx: &mut Context) -> Result<u64, Failure> {
            let reply = cx.defer::<Asked>()?;
            self.0.add(Arc::new(Mutex::new(Some(reply))));
            Err(Failure::deferred())
        }
    }
    let replies = Seen::default();
    let later = replies.clone();
    let manager = Manager::new("later").worker(move || Later(later.clone())).handles::<Asked>();
    let pair = Cluster::new().pair(Way::Direct, |app| app.manager(manager), |app| app).await;
    met(&pair).await;
    let answered = ask(&pair.sensor, 1);
    let take = async |count: usize| replies.wait_for(count).await[count - 1].lock().take().expect("there");
    let first = take(1).await;
    let dropped = ask(&pair.sensor, 2);
    drop(take(2).await);
    assert_eq!(outcome(dropped).await.expect_err("nobody answers").code(), "worker_lost");
    assert!(first.is_wanted());
    assert!(first.send(Ok(77)));
    assert_eq!(outcome(answered).await.expect("answered"), 77);
    let given_up = ask(&pair.sensor, 3);
    let third = take(3).await;
    given_up.abort();
    until("the requester to be gone", || !third.is_wanted()).await;
    assert!(!third.send(Ok(1)));
    pair.end().await;
}

// ---- who is asked ------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_and_nodes_are_asked_by_name_and_all_at_once() {
    let cluster = Cluster::new();
    let switch = started(App::new("switch").connector(cluster.listening("switch").switch())).await;
    let at = address(&switch);
    let north = cluster.dials("north", at, &[], |app| app.manager(adds("sum", 10)).manager(adds("more", 11))).await;
    let south = cluster.dials("south", at, &[], |app| app.manager(adds("sum", 20))).await;
    let sensor = cluster.dials("sensor", at, &["north", "south"], |app| app.manager(adds("own", 1))).await;
    super::knows(&sensor, 3).await;
    let bus = sensor.bus();
    let code = |error: RequestError| error.code().to_owned();
    let to = async |manager: &str| within("an answer", bus.request_to(manager, asked(0))).await.map_err(code);
    assert_eq!(within("an answer", bus.request(asked(0))).await.expect("answered"), 1, "its own node first");
    assert_eq!(to("own").await, Ok(1));
    assert_eq!(to("more").await, Ok(11));
    assert_eq!(to("south/sum").await, Ok(20));
    assert_eq!(to("north/sum").await, Ok(10));
    assert!(matches!(to("sum").await, Ok(10 | 20)));
    assert_eq!(to("south/more").await, Err("no_handler".to_owned()));
    let at = async |node: &str| within("an answer", bus.request_at(node, asked(0))).await.map_err(code);
    assert_eq!(at("south").await, Ok(20));
    assert_eq!(at("sensor").await, Ok(1));
    assert!(matches!(at("north").await, Ok(10 | 11)));
    assert!(at("west").await.is_err(), "there is no such node");

    let mut open = within("answers", bus.request_all(asked(0))).await.expect("four answer");
    let mut answers = BTreeMap::new();
    while let Some(answer) = within("the next answer", open.next()).await {
        let from = format!("{}/{}", answer.node, answer.manager);
        assert!(answers.insert(from, answer.result.expect("answered")).is_none());
    }
    let expect = [("north/more", 11), ("north/sum", 10), ("sensor/own", 1), ("south/sum", 20)];
    assert_eq!(answers, expect.map(|(from, sum)| (from.to_owned(), sum)).into());
    for node in [&sensor, &north, &south, &switch] {
        ends_well(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_to_another_node_while_its_own_has_no_room_and_then_waits_for_whoever_has() {
    let (here, there) = (Gate::closed(), Gate::closed());
    let own = Manager::new("same").inbox(1).worker(keeps_behind(&here, &Seen::default())).handles::<Asked>();
    let other = Manager::new("same").worker(keeps_behind(&there, &Seen::default())).handles::<Asked>();
    let pair = Cluster::new().pair(Way::Direct, |app| app.manager(other), |app| app.manager(own)).await;
    super::knows(&pair.sensor, 1).await;
    let first = ask(&pair.sensor, 1);
    here.arrived(1).await;
    let second = ask(&pair.sensor, 2);
    until("the inbox to be full", || pair.sensor.topology().managers[0].depths == [1]).await;
    let third = ask(&pair.sensor, 3);
    there.arrived(1).await;
    there.open();
    assert_eq!(outcome(third).await.expect("answered there"), 3);
    here.open();
    assert_eq!((outcome(first).await.expect("here"), outcome(second).await.expect("here")), (1, 2));
    let (sensor, centre) = pair.end().await;
    assert_eq!((sensor.account.handled, sensor.account.forwarded, centre.account.handled), (2, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_room_on_another_node_within_its_deadline_and_is_then_overloaded() {
    let gate = Gate::closed();
    let manager = Manager::new("slow").inbox(1).worker(keeps_behind(&gate, &Seen::default())).handles::<Asked>();
    let cluster = Cluster::new();
    let centre = cluster.listens("centre", |app| app.manager(manager)).await;
    let connector = cluster.dialling("sensor", address(&centre)).outbox(1);
    let sensor = started(App::new("sensor").connector(connector).expects("centre")).await;
    within("somebody", sensor.bus().wait_for::<Asked>()).await.expect("somebody");
    // One in hand, one in the inbox, one on the way, one in the outbox, at least.
    let mut open: Vec<_> = (0..4).map(|number| ask(&sensor, number)).collect();
    gate.arrived(1).await;
    let options = Options::new().time_limit(Duration::from_millis(200));
    let overloaded = async {
        loop {
            match sensor.bus().request_with(asked(99), &options).await.expect_err("the gate is closed") {
                RequestError::Overloaded(_) => return,
                // This one still found a place.
                RequestError::TimedOut(_) => open.push(ask(&sensor, 4)),
                other => panic!("{other:?}"),
            }
        }
    };
    within("no room", overloaded).await;
    gate.open();
    for asking in open {
        outcome(asking).await.expect("answered");
    }
    ends_well(&sensor).await;
    ends_well(&centre).await;
}

// ---- nobody there ------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_no_node_answers_fails_at_once_when_the_view_is_settled() {
    let manager = Manager::new("keep").worker(keeps(&Seen::default())).handles::<Noted>();
    let pair = Cluster::new().pair(Way::Switch, |app| app.manager(manager), |app| app).await;
    within("somebody", pair.sensor.bus().wait_for::<Noted>()).await.expect("somebody");
    for node in [&pair.sensor, &pair.centre] {
        let began = Instant::now();
        // The first may find the view not settled yet, and wait until it is.
        let error = within("an answer", node.bus().request(asked(1))).await.expect_err("nobody answers");
        assert!(matches!(&error, RequestError::NoHandler(name) if *name == "test.asked"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(15));
        let began = Instant::now();
        let to = within("an answer", node.bus().request_to("keep", asked(1))).await.expect_err("it answers another");
        let all = within("an answer", node.bus().request_all(asked(1))).await.expect_err("nobody answers");
        assert_eq!((to.code(), all.code()), ("no_handler", "no_handler"));
        assert!(began.elapsed() < Duration::from_secs(1), "at once");
    }
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_that_is_not_there_counts_as_absent_after_the_first_try() {
    let cluster = Cluster::new();
    // A port that nobody listens at.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket").local_addr().expect("bound");
    let sensor = cluster.dials("sensor", nobody, &[], |app| app).await;
    let error = within("an answer", sensor.bus().request(asked(1))).await.expect_err("nobody answers");
    assert_eq!(error.code(), "no_handler");
    ends_well(&sensor).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_a_node_that_is_expected() {
    let cluster = Cluster::new();
    let switch = started(App::new("switch").connector(cluster.listening("switch").switch())).await;
    let connector = cluster.dialling("sensor", address(&switch)).expects("centre");
    let sensor = started(App::new("sensor").connector(connector)).await;
    reaches(&sensor, "switch", true).await;
    let (asking, began) = (ask(&sensor, 1), Instant::now());
    let short = Options::new().time_limit(Duration::from_millis(300));
    let error = within("the deadline", sensor.bus().request_with(asked(2), &short)).await.expect_err("not there yet");
    assert_eq!(error.code(), "no_handler", "at its deadline, and not before");
    assert!(began.elapsed() >= Duration::from_millis(300) && !asking.is_finished(), "it waits for who is expected");
    let centre = cluster.dials("centre", address(&switch), &[], |app| app.manager(adds("sum", 10))).await;
    assert_eq!(outcome(asking).await.expect("answered"), 11);
    for node in [&sensor, &centre, &switch] {
        ends_well(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_expects_another_in_vain_does_not_start_and_names_it() {
    let cluster = Cluster::new();
    let centre = cluster.listens("centre", |app| app).await;
    let app = App::new("sensor").connector(cluster.dialling("sensor", address(&centre)));
    let app = app.expects("centre").expects("west").start_timeout(Duration::from_secs(3));
    let error = within("the node not to start", app.start()).await.expect_err("nobody is called west");
    let text = error.to_string();
    assert!(text.contains("west") && !text.contains("centre"), "{text}");
    centre.bus().publish(noted(1)).await.expect("it goes on");
    ends_well(&centre).await;
}
