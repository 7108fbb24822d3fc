//! The same Rust worker as a task and in a process of its own: what it can do here, it can do there.

use std::time::Duration;

use edri::prelude::*;
use edri::{Definition, Process, WorkerState};
use edri_tests::workers::{
    Ask, Beside, Echo, Followed, Know, Lower, Lowers, Misdo, Noted, Tell, Told, Upper, versatile,
};
use futures_util::future::join_all;

use crate::support::{Seen, at_rest, does, ends_well, started, until, view, within};

/// The worker as a process. Its program is named: the image of a test is that of the test runner.
fn process(change: impl FnOnce(Process) -> Process) -> Definition {
    let quickly =
        Restart::at_most(100, Duration::from_secs(60)).backoff(Duration::from_millis(1), Duration::from_millis(2));
    let program = env!("CARGO_BIN_EXE_edri-tests-program");
    versatile("hello ").restart(quickly).process(|process| change(process.program(program))).into()
}

fn both() -> [(&'static str, Definition); 2] {
    [("task", versatile("hello ").into()), ("process", process(|process| process))]
}

/// A node with the worker, two who know, one who lowers, and one who keeps what follows.
async fn node(worker: Definition, followed: &Seen<(u64, bool)>) -> Node {
    let followed = followed.clone();
    let keeper = does::<Followed, _>(move |event, cx| {
        followed.add((event.number, cx.envelope().is_some_and(|envelope| envelope.head().cause.is_some())));
        Box::pin(async { Ok(()) })
    });
    let ten = does::<Know, _>(|know, _| Box::pin(async { Ok(know.number * 10) }));
    let hundred = does::<Know, _>(|know, _| Box::pin(async { Ok(know.number * 100) }));
    let app = App::new("test")
        .manager(worker)
        .manager(Manager::new("keeper").worker(keeper).handles::<Followed>())
        .manager(Manager::new("ten").worker(ten).handles::<Know>())
        .manager(Manager::new("hundred").worker(hundred).handles::<Know>())
        .manager(Manager::new("lowers").worker(|| Lowers).handles::<Lower>());
    started(app).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_refuses_to_start_for_good_is_tried_once_wherever_it_runs() {
    let program = env!("CARGO_BIN_EXE_edri-tests-program");
    let in_process = versatile("").process(|process| process.program(program));
    for (place, worker) in [("task", versatile("")), ("process", in_process)] {
        let node = started(App::new("test")).await;
        let error = within("a refusal", node.add(worker)).await.expect_err("it does not start");
        let said = "a worker does not start: no_greeting: there is nothing to greet with";
        assert!(error.to_string().ends_with(said), "{place}: {error}");
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_publishes_and_is_stopped_in_good_order_wherever_it_runs() {
    for (place, worker) in both() {
        let followed = Seen::default();
        let node = node(worker, &followed).await;
        let numbers: Vec<u64> = (0..500).collect();
        for number in &numbers {
            node.bus().publish(Noted { number: *number }).await.expect("published");
        }
        at_rest(node.bus()).await;
        assert_eq!(followed.list(), numbers.iter().map(|number| (*number, true)).collect::<Vec<_>>(), "{place}");
        until("the worker's figures", || {
            let figures = &view(&node, "versatile").workers[0].figures;
            figures.get("seen") == Some(&500.0) && figures.get("started") == Some(&1.0)
        })
        .await;
        assert!(ends_well(&node).await.unfinished.is_empty(), "{place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_requests_and_defers_wherever_it_runs() {
    for (place, worker) in both() {
        let followed = Seen::default();
        let node = node(worker, &followed).await;
        let bus = node.bus();
        let ask = |ask| async { within("an answer", bus.request(ask)).await };
        assert_eq!(bus.request(Echo { text: "there".into() }).await.expect("answered"), "hello there", "{place}");
        let one = ask(Ask::One(7)).await.expect("answered");
        assert!(one == 70 || one == 700, "{place}: {one}");
        assert_eq!(ask(Ask::All(7)).await.expect("answered"), 770, "{place}");
        assert_eq!(ask(Ask::Named("hundred".into(), 3)).await.expect("answered"), 300, "{place}");
        assert_eq!(ask(Ask::Named("nobody".into(), 3)).await.expect_err("not there").code(), "failed", "{place}");
        assert_eq!(ask(Ask::Nobody).await.expect_err("nobody").code(), "no_handler", "{place}");
        assert_eq!(ask(Ask::Later(5)).await.expect("answered"), 5, "{place}");
        assert_eq!(ask(Ask::Batch(2500)).await.expect("answered"), 2500, "{place}");
        assert_eq!(followed.wait_for(2500).await.len(), 2500, "{place}");
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_accepts_and_opens_tunnels_wherever_it_runs() {
    for (place, worker) in both() {
        let node = node(worker, &Seen::default()).await;
        let bus = node.bus();
        assert_eq!(within("an answer", bus.request(Ask::Pour(1000))).await.expect("answered"), 1000, "{place}");
        assert_eq!(bus.request(Ask::PourInVain).await.expect_err("it fails").code(), "stone", "{place}");

        let (mut sender, mut receiver, outcome) = bus.open(Upper {}).await.expect("opened").split();
        let sending = tokio::spawn(async move {
            for number in 0..1000 {
                sender.send(format!("word {number}")).await.expect("sent");
            }
            sender.finish();
        });
        for number in 0..1000 {
            let word = within("a word", receiver.recv()).await.expect("received");
            assert_eq!(word, Some(format!("WORD {number}")), "{place}");
        }
        sending.await.expect("all were sent");
        assert_eq!(within("the result", outcome.result()).await.expect("a result"), 1000, "{place}");

        let mut tunnel = bus.open(Upper {}).await.expect("opened");
        tunnel.send("stone".into()).await.expect("sent");
        let failed = within("the result", tunnel.result()).await.expect_err("it fails");
        assert_eq!(failed.code(), "stone", "{place}");
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_knows_of_the_event_in_its_hands_wherever_it_runs() {
    for (place, worker) in both() {
        let node = node(worker, &Seen::default()).await;
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().expect("a trace");
        // A node that has been idle for a while does not take the time of then for that of now.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let options = Options::new().header("tenant", "north").trace(trace);
        let told: Told = node.bus().request_with(Tell {}, &options).await.expect("answered");
        let address = node.bus().address().to_string();
        let (name, incarnation) = address.split_once('@').expect("an incarnation");
        assert_eq!(told.address, format!("{name}/versatile@{incarnation}"), "{place}");
        assert_eq!((told.origin.as_str(), told.instance), ("test", 0), "{place}");
        assert_eq!(told.pid != std::process::id(), place == "process", "{place}");
        assert_eq!(told.tenant.as_deref(), Some("north"), "{place}");
        assert!(told.trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{place}: {}", told.trace);
        assert!((4000..=5000).contains(&told.remaining_ms), "{place}: {}", told.remaining_ms);
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_handlers_run_beside_one_another_wherever_they_run() {
    for (place, worker) in both() {
        let node = node(worker, &Seen::default()).await;
        let began = std::time::Instant::now();
        let asks = (0..50).map(|number| node.bus().request(Beside { number, pause_ms: 200 }));
        let answers = within("the answers", join_all(asks)).await;
        assert!(
            answers.iter().zip(0..).all(|(answer, number)| matches!(answer, Ok(told) if *told == number)),
            "{place}"
        );
        assert!(began.elapsed() < Duration::from_secs(5), "{place}: one after another they take 10 s");
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_sees_that_it_is_cancelled_wherever_it_runs() {
    for (place, worker) in both() {
        let followed = Seen::default();
        let node = node(worker, &followed).await;
        let bus = node.bus().clone();
        let asking = tokio::spawn(async move { bus.request(Ask::Wait(42)).await });
        // In hand it is before: a request that is cancelled before its handler begins never runs.
        until("the handler to run", || view(&node, "versatile").workers[0].figures.contains_key("waits")).await;
        asking.abort();
        assert_eq!(followed.wait_for(1).await, [(42, true)], "{place}");
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_fails_panics_or_is_tried_again_is_told_the_same_wherever_it_runs() {
    for (place, worker) in both() {
        let node = node(worker, &Seen::default()).await;
        let misdo = |misdo| async { within("an answer", node.bus().request(misdo)).await };
        let failed = misdo(Misdo::Fail).await.expect_err("it fails");
        let RequestError::Failed(failure) = &failed else { panic!("{place}: {failed:?}") };
        let said = (failure.code(), failure.text(), failure.detail());
        assert_eq!(said, ("told_to", "it was told to fail", Some("in detail")), "{place}");
        misdo(Misdo::Once).await.expect("the second try succeeds");
        let lost = misdo(Misdo::Panic).await.expect_err("it panics");
        assert!(matches!(&lost, RequestError::WorkerLost(why) if why.contains("told to panic")), "{place}: {lost:?}");
        until("another to run", || view(&node, "versatile").workers[0].state == WorkerState::Running).await;
        let told = node.bus().request(Echo { text: "again".into() }).await.expect("answered");
        assert_eq!(told, "hello again", "{place}");
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_exits_in_a_handler_is_replaced() {
    let node = node(process(|process| process), &Seen::default()).await;
    let lost = within("an answer", node.bus().request(Misdo::Exit)).await.expect_err("it exits");
    assert!(lost.to_string().contains("exit code 0 without having said bye"), "{lost}");
    assert_eq!(node.bus().request(Echo { text: "again".into() }).await.expect("answered"), "hello again");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_for_longer_than_the_silence_limit_is_not_taken_for_hung() {
    let node = node(process(|process| process.silence_limit(Duration::from_millis(300))), &Seen::default()).await;
    assert_eq!(within("an answer", node.bus().request(Ask::Block(1500))).await.expect("answered"), 1500);
    assert_eq!(view(&node, "versatile").workers[0].restarts, 0);
    ends_well(&node).await;
}
