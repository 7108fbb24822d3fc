//! A request ends in one response or one error, by its deadline at the latest: no answer is not an answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{Definition, Limits, ManagerState, RequestError, Worker};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::support::{
    Asked, AskedAgain, Gate, Handling, Noted, Seen, asked, at_rest, does, ends_well, keeps, keeps_behind, started,
    until, view, within,
};

/// Waits for requests much longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(60);

fn answers(name: &str) -> Definition {
    Manager::new(name).worker(keeps(&Seen::default())).handles::<Asked>().into()
}

/// Sends a request that may take long, in a task of its own.
fn ask(node: &Node, number: u64) -> JoinHandle<Result<u64, RequestError>> {
    let bus = node.bus().clone();
    tokio::spawn(async move { bus.request_with(asked(number), &Options::new().time_limit(LONG)).await })
}

async fn outcome(asking: JoinHandle<Result<u64, RequestError>>) -> Result<u64, RequestError> {
    within("an outcome", asking).await.expect("no panic")
}

// ---- nobody there ------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_nobody_answers_fails_at_once_when_the_view_is_settled() {
    let node =
        started(App::new("test").manager(Manager::new("m").worker(keeps(&Seen::default())).handles::<Noted>())).await;
    let began = Instant::now();
    let error = node.bus().request(asked(1)).await.expect_err("nobody answers");
    assert!(matches!(&error, RequestError::NoHandler(name) if *name == "test.asked"), "{error}");
    assert_eq!(error.code(), "no_handler");
    let all = node.bus().request_all(asked(1)).await.expect_err("nobody answers");
    assert_eq!(all.code(), "no_handler");
    let to = node.bus().request_to("m", asked(1)).await.expect_err("this one does not answer");
    assert_eq!(to.code(), "no_handler");
    assert!(began.elapsed() < Duration::from_secs(5));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_with_wildcards_answers_no_request() {
    struct Listens(Seen<String>);
    impl Worker for Listens {}
    impl HandleAny for Listens {
        async fn handle(&mut self, event: &Envelope, _: &mut Context) -> Result<Option<Value>, Failure> {
            self.0.add(event.name().to_string());
            Ok(None)
        }
    }
    let seen = Seen::default();
    let listens = seen.clone();
    let manager = Manager::new("m").worker(move || Listens(listens.clone())).handles_any("test.>");
    let node = started(App::new("test").manager(manager)).await;
    let error = node.bus().request(asked(1)).await.expect_err("nobody answers");
    assert_eq!(error.code(), "no_handler");
    node.bus().publish(crate::support::noted(1)).await.expect("published");
    ends_well(&node).await;
    assert_eq!(seen.list(), ["test.noted"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_while_the_manager_that_answers_is_starting_and_while_it_restarts() {
    let gate = Gate::closed();
    /// Stops at a gate to start, and panics over the number 13.
    struct Slow(Gate);
    impl Worker for Slow {
        async fn started(&mut self, _: &mut Context) -> Result<(), Failure> {
            self.0.pass().await;
            Ok(())
        }
    }
    impl Handle<Asked> for Slow {
        async fn handle(&mut self, event: &Asked, _: &mut Context) -> Result<u64, Failure> {
            assert_ne!(event.number, 13, "an unlucky number");
            Ok(event.number)
        }
    }
    let node = started(App::new("test").manager(answers_other())).await;
    let slow = gate.clone();
    let adding = {
        let node = node.clone();
        let manager = Manager::new("slow").worker(move || Slow(slow.clone())).handles::<Asked>();
        tokio::spawn(async move { node.add(manager).await })
    };
    gate.arrived(1).await;
    let early = ask(&node, 1);
    until("the request to wait", || view(&node, "slow").depths == [1]).await;
    gate.let_through(1);
    assert_eq!(outcome(early).await.expect("answered once started"), 1);
    adding.await.expect("no panic").expect("added");

    let unlucky = outcome(ask(&node, 13)).await.expect_err("its worker panics");
    assert_eq!(unlucky.code(), "worker_lost");
    gate.arrived(2).await;
    let meanwhile = ask(&node, 2);
    until("the request to wait", || view(&node, "slow").depths == [1]).await;
    assert!(!meanwhile.is_finished());
    gate.let_through(1);
    assert_eq!(outcome(meanwhile).await.expect("answered after the restart"), 2);
    ends_well(&node).await;
}

fn answers_other() -> Definition {
    Manager::new("other").worker(keeps(&Seen::default())).handles::<Noted>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_to_a_manager_that_fails_end_in_no_handler_also_those_that_wait_in_its_inbox() {
    let gate = Gate::closed();
    let worker = {
        let gate = gate.clone();
        does(move |_: &Asked, _| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                panic!("no more");
            }
            .boxed()
        })
    };
    let manager = Manager::new("frail").worker(worker).inbox(2).restart(Restart::never()).handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    let in_hand = ask(&node, 1);
    gate.arrived(1).await;
    let queued = [ask(&node, 2), ask(&node, 3)];
    until("the inbox to be full", || view(&node, "frail").depths == [2]).await;
    let without_room = ask(&node, 4);
    until("the last to be sent", || node.topology().pending == 4).await;
    gate.let_through(1);
    assert_eq!(outcome(in_hand).await.expect_err("its worker panics").code(), "worker_lost");
    for asking in queued.into_iter().chain([without_room]) {
        assert_eq!(outcome(asking).await.expect_err("the manager has failed").code(), "no_handler");
    }
    until("the manager to have failed", || view(&node, "frail").state == ManagerState::Failed).await;
    let began = Instant::now();
    assert_eq!(outcome(ask(&node, 5)).await.expect_err("the manager has failed").code(), "no_handler");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(node.topology().pending, 0);
    let account = ends_well(&node).await.account;
    assert_eq!((account.deliveries, account.failed), (3, 3));
}

// ---- ends --------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_cancelled_in_the_inbox_never_runs_and_is_counted() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("slow").worker(keeps_behind(&gate, &seen)).handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    let first = ask(&node, 1);
    gate.arrived(1).await;
    let [second, third] = [ask(&node, 2), ask(&node, 3)];
    until("both to be queued", || view(&node, "slow").depths == [2]).await;
    second.abort();
    assert!(second.await.expect_err("dropped").is_cancelled());
    gate.open();
    assert_eq!(outcome(first).await.expect("answered"), 1);
    assert_eq!(outcome(third).await.expect("answered"), 3);
    let account = ends_well(&node).await.account;
    assert_eq!((account.deliveries, account.handled, account.cancelled), (3, 2, 1));
    assert_eq!(seen.list(), [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_cancelled_while_it_waits_for_room_never_arrives() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("slow").worker(keeps_behind(&gate, &seen)).inbox(1).handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    let first = ask(&node, 1);
    gate.arrived(1).await;
    let second = ask(&node, 2);
    until("the inbox to be full", || view(&node, "slow").depths == [1]).await;
    let third = ask(&node, 3);
    until("the third to be sent", || node.topology().pending == 3).await;
    third.abort();
    assert!(third.await.expect_err("dropped").is_cancelled());
    gate.open();
    assert_eq!(outcome(first).await.expect("answered"), 1);
    assert_eq!(outcome(second).await.expect("answered"), 2);
    let account = ends_well(&node).await.account;
    assert_eq!((account.deliveries, account.handled), (2, 2));
    assert_eq!(seen.list(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_handler_sees_that_its_request_was_cancelled() {
    for placement in [Placement::Task, Placement::Thread] {
        let (seen, gate) = (Seen::default(), Gate::closed());
        let worker = {
            let (seen, gate) = (seen.clone(), gate.clone());
            does(move |_: &Asked, cx| {
                let (seen, gate) = (seen.clone(), gate.clone());
                async move {
                    assert!(!cx.is_cancelled());
                    gate.let_through(1);
                    cx.cancelled().await;
                    seen.add(cx.is_cancelled());
                    Ok(0)
                }
                .boxed()
            })
        };
        let manager = Manager::new("patient").placement(placement).worker(worker).handles::<Asked>();
        let node = started(App::new("test").manager(manager)).await;
        let asking = ask(&node, 1);
        within("the handler to begin", gate.pass()).await;
        asking.abort();
        assert_eq!(seen.wait_for(1).await, [true]);
        ends_well(&node).await;
        assert_eq!(node.topology().late_answers, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_ends_at_its_deadline_and_the_answer_that_comes_later_is_counted() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("slow").worker(keeps_behind(&gate, &seen)).handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    let began = Instant::now();
    let options = Options::new().time_limit(Duration::from_millis(200));
    let (handled, queued) =
        tokio::join!(node.bus().request_with(asked(1), &options), node.bus().request_with(asked(2), &options),);
    assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < Duration::from_secs(5));
    for error in [handled.expect_err("too slow"), queued.expect_err("too slow")] {
        match error {
            RequestError::TimedOut(wait) => assert_eq!(wait.groups[0].to_string(), "manager `slow`"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(node.topology().late_answers, 0);
    gate.open();
    let account = ends_well(&node).await.account;
    assert_eq!((account.deliveries, account.handled, account.cancelled), (2, 1, 1));
    assert_eq!(node.topology().late_answers, 1);
    assert_eq!(seen.len(), 1, "the one that was queued never ran");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_remains_of_the_deadline_travels_to_the_requests_that_a_handler_sends() {
    let deadlines: Seen<Instant> = Seen::default();
    let relay = {
        let deadlines = deadlines.clone();
        does(move |event: &Asked, cx| {
            let deadlines = deadlines.clone();
            async move {
                deadlines.add(cx.deadline().expect("a request has one"));
                // Its own would be 30 s; asking for more does not help.
                let options = Options::new().time_limit(LONG);
                Ok(cx.bus().request_with(AskedAgain { number: event.number }, &options).await?)
            }
            .boxed()
        })
    };
    let last = {
        let deadlines = deadlines.clone();
        does(move |event: &AskedAgain, cx| {
            deadlines.add(cx.deadline().expect("a request has one"));
            assert!(cx.remaining().expect("a request has one") <= Duration::from_secs(10));
            async { Ok(event.number) }.boxed()
        })
    };
    let app = App::new("test")
        .manager(Manager::new("relay").worker(relay).handles::<Asked>())
        .manager(Manager::new("last").worker(last).handles::<AskedAgain>());
    let node = started(app).await;
    let options = Options::new().time_limit(Duration::from_secs(10));
    assert_eq!(node.bus().request_with(asked(5), &options).await.expect("answered"), 5);
    let deadlines = deadlines.list();
    assert_eq!(deadlines[0], deadlines[1]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_room_ends_at_its_deadline_in_overloaded() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("slow").worker(keeps_behind(&gate, &seen)).inbox(1).handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    let first = ask(&node, 1);
    gate.arrived(1).await;
    let second = ask(&node, 2);
    until("the inbox to be full", || view(&node, "slow").depths == [1]).await;
    let began = Instant::now();
    let options = Options::new().time_limit(Duration::from_millis(50));
    match node.bus().request_with(asked(3), &options).await {
        Err(RequestError::Overloaded(wait)) => assert_eq!(wait.groups[0].to_string(), "manager `slow`"),
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() >= Duration::from_millis(50) && began.elapsed() < Duration::from_secs(5));
    gate.open();
    assert_eq!(outcome(first).await.expect("answered"), 1);
    assert_eq!(outcome(second).await.expect("answered"), 2);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_requests_are_open_than_the_node_may_have() {
    let gate = Gate::closed();
    let mut limits = Limits::default();
    limits.pending_max = 2;
    let manager = Manager::new("slow").worker(keeps_behind(&gate, &Seen::default())).handles::<Asked>();
    let node = started(App::new("test").limits(limits).manager(manager)).await;
    let open = [ask(&node, 1), ask(&node, 2)];
    until("both to be open", || node.topology().pending == 2).await;
    assert_eq!(node.bus().request(asked(3)).await.expect_err("too many").code(), "overloaded");
    gate.open();
    for asking in open {
        outcome(asking).await.expect("answered");
    }
    assert_eq!(node.bus().request(asked(4)).await.expect("there is room again"), 4);
    ends_well(&node).await;
}

// ---- errors ------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_code_and_text_of_a_handlers_failure_reach_the_requester() {
    let worker = does(|event: &Asked, _| {
        let number = event.number;
        async move {
            match number {
                1 => Err(Failure::new("too_small", "one is too small")),
                _ => Err("x".parse::<u8>().expect_err("not a number").into()),
            }
        }
        .boxed()
    });
    let manager = Manager::new("strict").worker(worker).retry(Retry::attempts(5)).handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    let error = node.bus().request(asked(1)).await.expect_err("fails");
    assert_eq!((error.code(), error.to_string().as_str()), ("too_small", "too_small: one is too small"));
    let error = node.bus().request(asked(2)).await.expect_err("fails");
    assert_eq!(error.code(), "failed");
    assert!(error.to_string().contains("invalid digit"), "{error}");
    let account = ends_well(&node).await.account;
    assert_eq!((account.failed, account.retried), (2, 0), "the requester decides whether to try again");
    assert_eq!(node.topology().dead_letters, 0);
}

/// Panics at the first try, then answers with how often it was tried; 0 when the context does not say so.
fn breaks_once<E: edri::Event<Output = u64>>() -> impl Fn() -> crate::support::Does<E, Breaks<E>> + Send + Sync {
    let breaks: Breaks<E> = |_, cx| {
        async move {
            assert!(cx.attempt() > 1, "the first try breaks");
            Ok(if cx.is_redelivered() { u64::from(cx.attempt()) } else { 0 })
        }
        .boxed()
    };
    does(breaks)
}

type Breaks<E> = for<'a> fn(&'a E, &'a mut Context) -> Handling<'a, E>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_request_is_tried_again_when_its_worker_is_lost_and_another_is_not() {
    for placement in [Placement::Task, Placement::Thread] {
        let app = App::new("test")
            .manager(Manager::new("again").placement(placement).worker(breaks_once()).handles::<AskedAgain>())
            .manager(Manager::new("once").placement(placement).worker(breaks_once()).handles::<Asked>());
        let node = started(app).await;
        assert_eq!(node.bus().request(AskedAgain { number: 1 }).await.expect("the second try succeeds"), 2);
        match node.bus().request(asked(1)).await {
            Err(RequestError::WorkerLost(detail)) => assert!(detail.contains("the first try breaks"), "{detail}"),
            other => panic!("{other:?}"),
        }
        let account = ends_well(&node).await.account;
        assert_eq!((account.handled, account.failed, account.retried), (1, 1, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_request_that_always_breaks_its_worker_ends_in_worker_lost() {
    let worker = does(|_: &AskedAgain, _| async { panic!("always") }.boxed());
    let restart = Restart::default().backoff(Duration::from_millis(1), Duration::from_millis(1));
    let manager = Manager::new("frail").worker(worker).restart(restart).handles::<AskedAgain>();
    let node = started(App::new("test").manager(manager)).await;
    let error = within("an end", node.bus().request(AskedAgain { number: 1 })).await.expect_err("always breaks");
    assert_eq!(error.code(), "worker_lost");
    until("the last restart", || view(&node, "frail").workers[0].restarts == 3).await;
    ends_well(&node).await;
}

// ---- who is asked ------------------------------------------------------------------------------------------------------

/// Which of the managers answered how often.
async fn answered_by(node: &Node, managers: &[&str]) -> Vec<u64> {
    at_rest(node.bus()).await;
    managers.iter().map(|name| view(node, name).account.handled).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_managers_the_least_loaded_is_asked() {
    let gate = Gate::closed();
    let app = App::new("test")
        .manager(Manager::new("busy").worker(keeps_behind(&gate, &Seen::default())).handles::<Asked>())
        .manager(Manager::new("free").worker(keeps(&Seen::default())).handles::<Asked>());
    let node = started(app).await;
    let busy: Vec<_> = (0..2)
        .map(|number| {
            let bus = node.bus().clone();
            tokio::spawn(async move { bus.request_to("busy", asked(number)).await })
        })
        .collect();
    until("two to be there", || view(&node, "busy").account.deliveries == 2).await;
    for number in 0..20 {
        assert_eq!(within("an answer", node.bus().request(asked(number))).await.expect("answered"), number);
    }
    gate.open();
    for asking in busy {
        outcome(asking).await.expect("answered");
    }
    assert_eq!(answered_by(&node, &["busy", "free"]).await, [2, 20]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_comes_before_load_when_a_manager_is_chosen() {
    let gate = Gate::closed();
    let behind = || keeps_behind(&gate, &Seen::default());
    let app = App::new("test")
        .manager(Manager::new("small").worker(behind()).inbox(1).handles::<Asked>())
        .manager(Manager::new("large").worker(behind()).inbox(100).handles::<Asked>());
    let node = started(app).await;
    let to = |manager: &'static str, number| {
        let bus = node.bus().clone();
        tokio::spawn(async move { bus.request_to(manager, asked(number)).await })
    };
    let mut open = vec![to("small", 0)];
    until("the small one to have one in hand", || view(&node, "small").workers[0].in_hand == 1).await;
    open.push(to("small", 1));
    open.extend((2..22).map(|number| to("large", number)));
    until("the large one to be loaded", || view(&node, "large").account.deliveries == 20).await;
    until("the small one to be full", || view(&node, "small").depths == [1]).await;
    open.extend((22..32).map(|number| ask(&node, number)));
    until("all to be queued", || view(&node, "large").account.deliveries == 30).await;
    gate.open();
    for asking in open {
        outcome(asking).await.expect("answered");
    }
    assert_eq!(answered_by(&node, &["small", "large"]).await, [2, 30]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_finds_no_room_takes_the_first_that_comes_free() {
    let gates = [Gate::closed(), Gate::closed()];
    let manager =
        |name, gate: &Gate| Manager::new(name).worker(keeps_behind(gate, &Seen::default())).inbox(1).handles::<Asked>();
    let app = App::new("test").manager(manager("left", &gates[0])).manager(manager("right", &gates[1]));
    let node = started(app).await;
    let mut open = Vec::new();
    for (name, gate) in [("left", &gates[0]), ("right", &gates[1])] {
        for depth in 0..2 {
            let bus = node.bus().clone();
            open.push(tokio::spawn(async move { bus.request_to(name, asked(0)).await }));
            gate.arrived(1).await;
            until("it to be queued", || view(&node, name).depths == [depth]).await;
        }
    }
    let waiting = ask(&node, 7);
    until("the last to be sent", || node.topology().pending == 5).await;
    gates[1].open();
    assert_eq!(outcome(waiting).await.expect("answered by the right one"), 7);
    gates[0].open();
    for asking in open {
        outcome(asking).await.expect("answered");
    }
    assert_eq!(answered_by(&node, &["left", "right"]).await, [2, 3]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_to_the_manager_it_names_and_to_no_other() {
    let node = started(App::new("test").manager(answers("one")).manager(answers("two"))).await;
    for number in 0..10 {
        assert_eq!(node.bus().request_to("two", asked(number)).await.expect("answered"), number);
    }
    assert_eq!(node.bus().request_to("three", asked(1)).await.expect_err("not there").code(), "no_handler");
    assert_eq!(answered_by(&node, &["one", "two"]).await, [0, 10]);
    ends_well(&node).await;
}

/// Adds its own number to what it is asked.
fn adds(name: &str, own: u64) -> Definition {
    let worker = does(move |event: &Asked, _| {
        let sum = event.number + own;
        async move { Ok(sum) }.boxed()
    });
    Manager::new(name).workers(2, worker).handles::<Asked>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_all_is_answered_by_one_worker_of_each_manager() {
    let broken = does(|_: &Asked, _| async { Err(Failure::new("broken", "it is broken")) }.boxed());
    let app = App::new("test")
        .manager(adds("ten", 10))
        .manager(adds("twenty", 20))
        .manager(Manager::new("broken").worker(broken).handles::<Asked>())
        .manager(answers_other());
    let node = started(app).await;
    let mut open = node.bus().request_all(asked(1)).await.expect("three answer");
    assert_eq!(open.open(), 3);
    let mut answers = HashMap::new();
    while let Some(answer) = within("the next answer", open.next()).await {
        let result = answer.result.map_err(|error| error.code().to_owned());
        assert!(answers.insert(answer.manager.to_string(), result).is_none());
    }
    let expect = [("ten", Ok(11)), ("twenty", Ok(21)), ("broken", Err("broken".to_owned()))]
        .map(|(name, result)| (name.to_owned(), result));
    assert_eq!(answers, expect.into());
    let account = ends_well(&node).await.account;
    assert_eq!((account.deliveries, account.handled, account.failed), (3, 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_all_ends_at_its_deadline_with_the_answers_it_has() {
    let gate = Gate::closed();
    let app = App::new("test")
        .manager(adds("quick", 1))
        .manager(Manager::new("slow").worker(keeps_behind(&gate, &Seen::default())).handles::<Asked>())
        .manager(adds("swift", 2));
    let node = started(app).await;
    // The event's own time-out would be 30 s: sent from a handler, the deadline of the event in hand is the earlier.
    let sums = Seen::default();
    let asker = {
        let sums = sums.clone();
        does(move |_: &AskedAgain, cx| {
            let sums = sums.clone();
            async move {
                let mut open = cx.bus().request_all(asked(0)).await?;
                let mut sum = 0;
                while let Some(answer) = open.next().await {
                    match answer.result {
                        Ok(number) => sum += number,
                        Err(error) => assert_eq!((answer.manager.as_str(), error.code()), ("slow", "timed_out")),
                    }
                }
                sums.add(sum);
                Ok(sum)
            }
            .boxed()
        })
    };
    node.add(Manager::new("asker").worker(asker).handles::<AskedAgain>()).await.expect("added");
    let options = Options::new().time_limit(Duration::from_millis(300));
    node.bus().request_with(AskedAgain { number: 0 }, &options).await.expect_err("too late by then");
    assert_eq!(sums.wait_for(1).await, [3]);
    gate.open();
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_request_to_all_as_many_answers_are_taken_as_are_wanted_and_the_others_cancelled() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let app = App::new("test")
        .manager(adds("quick", 1))
        .manager(Manager::new("slow").worker(keeps_behind(&gate, &seen)).handles::<Asked>())
        .manager(adds("swift", 2));
    let node = started(app).await;
    let open = node.bus().request_all(asked(0)).await.expect("three answer");
    let mut wanted = within("two answers", open.wanted(2)).await;
    wanted.sort_unstable();
    assert_eq!(wanted, [1, 2]);
    assert_eq!(node.topology().pending, 0, "the third is not waited for any more");
    gate.open();
    ends_well(&node).await;
    assert_eq!(node.topology().late_answers as usize, seen.len());
}

// ---- later -------------------------------------------------------------------------------------------------------------

/// Takes every reply along.
struct Later(Seen<Arc<parking_lot::Mutex<Option<edri::Reply<u64>>>>>);

impl Worker for Later {}

impl Handle<Asked> for Later {
    async fn handle(&mut self, _: &Asked, cx: &mut Context) -> Result<u64, Failure> {
        let reply = cx.defer::<Asked>()?;
        assert!(cx.defer::<Asked>().is_err(), "there is one reply only");
        self.0.add(Arc::new(parking_lot::Mutex::new(Some(reply))));
        Err(Failure::deferred())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_answers_later_is_free_for_the_next_event_meanwhile() {
    let replies = Seen::default();
    let later = replies.clone();
    let manager = Manager::new("later").worker(move || Later(later.clone())).handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    let asking: Vec<_> = (0..3).map(|number| ask(&node, number)).collect();
    let replies = replies.wait_for(3).await;
    until("the worker to be free", || view(&node, "later").workers[0].in_hand == 0).await;
    let account = node.bus().account();
    assert_eq!((account.in_hand, account.is_balanced()), (3, true), "{account:?}");
    // In the other order than they were asked.
    let wanted: Vec<_> = replies.iter().rev().map(|reply| reply.lock().take().expect("is there")).collect();
    for (number, reply) in wanted.into_iter().enumerate() {
        assert!(reply.is_wanted());
        assert!(reply.send(Ok(100 + number as u64)));
    }
    let mut answers = Vec::new();
    for asking in asking {
        answers.push(outcome(asking).await.expect("answered"));
    }
    answers.sort_unstable();
    assert_eq!(answers, [100, 101, 102]);
    assert_eq!(ends_well(&node).await.account.handled, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_taken_along_and_dropped_tells_the_requester_worker_lost() {
    let replies = Seen::default();
    let later = replies.clone();
    let manager = Manager::new("later").worker(move || Later(later.clone())).handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    let asking = ask(&node, 1);
    let reply = replies.wait_for(1).await[0].lock().take().expect("is there");
    drop(reply);
    assert_eq!(outcome(asking).await.expect_err("nobody will answer").code(), "worker_lost");

    let given_up = ask(&node, 2);
    let reply = replies.wait_for(2).await[1].lock().take().expect("is there");
    given_up.abort();
    until("the requester to be gone", || !reply.is_wanted()).await;
    assert!(!reply.send(Ok(1)), "nobody wants it any more");
    assert_eq!(node.topology().late_answers, 1);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_at_once_are_all_answered() {
    for placement in [Placement::Task, Placement::Thread] {
        let count = Arc::new(AtomicU64::new(0));
        let worker = {
            let count = Arc::clone(&count);
            does(move |event: &Asked, _| {
                let (count, number) = (Arc::clone(&count), event.number);
                async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    if number.is_multiple_of(16) {
                        tokio::task::yield_now().await;
                    }
                    Ok(number * 2)
                }
                .boxed()
            })
        };
        let manager = Manager::new("many").placement(placement).workers(3, worker).inbox(64).handles::<Asked>();
        let node = started(App::new("test").manager(manager)).await;
        let requests = (0..10_000).map(|number| {
            let bus = node.bus().clone();
            tokio::spawn(async move { (number, bus.request(asked(number)).await) })
        });
        for answer in within("all answers", join_all(requests)).await {
            let (number, answer) = answer.expect("no panic");
            assert_eq!(answer.expect("answered"), number * 2);
        }
        assert_eq!(count.load(Ordering::Relaxed), 10_000);
        assert_eq!(ends_well(&node).await.account.handled, 10_000);
    }
}
