//! A node that stops takes no new work, finishes what it has and what follows from it, and says what it could not finish.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{Definition, Phase, PublishError, Reason, RequestError, TryPublishError};
use futures_util::FutureExt;
use futures_util::future::join_all;
use parking_lot::Mutex;

use crate::support::{
    Asked, Followed, Gate, Holds, LIMIT, Noted, Seen, asked, does, ends_well, keeps, keeps_behind, letters, noted,
    started, until, view, within,
};

/// Publishes and requests until the node stops; returns how many deliveries it was told of, and how many answers it got.
async fn send_until_stopping(bus: Bus) -> (u64, u64) {
    let (mut deliveries, mut answers) = (0, 0);
    for number in 0.. {
        match within("room", bus.publish(noted(number))).await {
            Ok(receipt) => deliveries += u64::from(receipt.deliveries),
            Err(PublishError::Stopping) => break,
            Err(other) => panic!("{other}"),
        }
        match within("an answer", bus.request(asked(number))).await {
            Ok(_) => answers += 1,
            Err(RequestError::Stopping) => break,
            Err(other) => panic!("{other}"),
        }
    }
    (deliveries, answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_under_load_finishes_everything_that_was_accepted() {
    let seen = Seen::default();
    let app = App::new("test")
        .manager(Manager::new("one").worker(keeps(&seen)).inbox(8).handles::<Noted>().handles::<Asked>())
        .manager(Manager::new("keyed").workers(3, keeps(&seen)).keyed().inbox(2).handles::<Noted>())
        .manager(Manager::new("thread").placement(Placement::Thread).worker(keeps(&seen)).inbox(8).handles::<Noted>());
    let node = started(app).await;
    let senders: Vec<_> = (0..4).map(|_| tokio::spawn(send_until_stopping(node.bus().clone()))).collect();
    until("events to flow", || seen.len() > 1000).await;
    let account = ends_well(&node).await.account;
    let (mut deliveries, mut answers) = (0, 0);
    for sender in senders {
        let sent = within("the senders to end", sender).await.expect("no panic");
        deliveries += sent.0;
        answers += sent.1;
    }
    assert_eq!((account.deliveries, account.handled), (deliveries + answers, deliveries + answers));
    assert_eq!(seen.len() as u64, account.handled);
}

/// A node on which one event goes to and fro so many times, with who notes the end of it.
async fn there_and_back(hops: u64) -> (Node, Seen<u64>) {
    let ends = Seen::default();
    let there = does(|event: &Noted, cx| {
        async move {
            cx.publish(Followed { number: event.number + 1 }).await?;
            Ok(())
        }
        .boxed()
    });
    let back = {
        let ends = ends.clone();
        does(move |event: &Followed, cx| {
            let ends = ends.clone();
            async move {
                if event.number < hops {
                    cx.publish(noted(event.number + 1)).await?;
                } else {
                    ends.add(event.number);
                }
                Ok(())
            }
            .boxed()
        })
    };
    // Others between the two, so that an event has time to go from one to the other while they are looked at.
    let mut app = App::new("test").manager(Manager::new("there").worker(there).handles::<Noted>());
    for number in 0..60 {
        app = app.manager(Manager::new(&format!("m{number}")).worker(keeps(&ends)).handles::<Asked>());
    }
    (started(app.manager(Manager::new("back").worker(back).handles::<Followed>())).await, ends)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_handlers_publish_while_the_node_stops_is_handled_however_long_the_chain() {
    for _ in 0..20 {
        let (node, ends) = there_and_back(2000).await;
        node.bus().publish(noted(0)).await.expect("published");
        let report = ends_well(&node).await;
        assert_eq!(ends.len(), 1, "the chain broke after {} hops", report.account.handled);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_at_rest_when_all_that_followed_has_ended() {
    let (node, ends) = there_and_back(2000).await;
    for number in 1..=20 {
        node.bus().publish(noted(0)).await.expect("published");
        let account = within("rest", node.at_rest()).await;
        assert_eq!(ends.len(), number, "after {} hops", account.handled);
        assert!(account.is_balanced());
    }
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_was_taken_along_is_waited_for() {
    let replies = Seen::default();
    let later = {
        let replies = replies.clone();
        does(move |_: &Asked, cx| {
            let taken = cx.defer::<Asked>().map(|reply| replies.add(Arc::new(Mutex::new(Some(reply)))));
            async { Err(taken.err().unwrap_or_else(Failure::deferred)) }.boxed()
        })
    };
    let node = started(App::new("test").manager(Manager::new("later").worker(later).handles::<Asked>())).await;
    let bus = node.bus().clone();
    let asking = tokio::spawn(async move { bus.request(asked(1)).await });
    let reply = replies.wait_for(1).await[0].lock().take().expect("is there");
    let stopping = {
        let node = node.clone();
        tokio::spawn(async move { node.shutdown().await })
    };
    until("the node to be stopping", || node.topology().phase == Phase::Stopping).await;
    assert!(reply.send(Ok(7)));
    assert_eq!(within("the answer", asking).await.expect("no panic").expect("answered"), 7);
    let report = within("the node to stop", stopping).await.expect("no panic");
    assert_eq!((report.account.handled, report.unfinished.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_kept_beyond_the_end_of_its_node_holds_no_requester() {
    for is_dropped in [false, true] {
        let replies = Seen::default();
        let later = {
            let replies = replies.clone();
            does(move |_: &Asked, cx| {
                let taken = cx.defer::<Asked>().map(|reply| replies.add(Arc::new(Mutex::new(Some(reply)))));
                async { Err(taken.err().unwrap_or_else(Failure::deferred)) }.boxed()
            })
        };
        let manager = Manager::new("later").worker(later).handles::<Asked>();
        let node = started(App::new("test").drain_limit(Duration::from_millis(50)).manager(manager)).await;
        let bus = node.bus().clone();
        // Its deadline is further away than this test waits.
        let asking = tokio::spawn({
            let bus = bus.clone();
            async move { bus.request(asked(1)).await }
        });
        let reply = replies.wait_for(1).await[0].lock().take().expect("is there");
        if is_dropped {
            drop(node);
        } else {
            let report = within("the node to stop", node.shutdown()).await;
            assert!(report.account.is_balanced(), "{report:?}");
            let unfinished: Vec<_> = report.unfinished.iter().map(|left| (&*left.manager, left.interrupted)).collect();
            assert_eq!(unfinished, [("later", 1)]);
        }
        let answer = within("an end", asking).await.expect("no panic");
        assert!(matches!(answer, Err(RequestError::WorkerLost(_))), "{answer:?}");
        assert!(!reply.send(Ok(7)), "nobody waits any more");
        assert!(bus.account().is_balanced() && bus.account().in_hand == 0, "{:?}", bus.account());
    }
}

/// A worker whose `stopping` does not return.
struct NeverStops;

impl Worker for NeverStops {
    async fn stopping(&mut self, _: &mut Context) {
        std::future::pending().await
    }
}

impl Handle<Noted> for NeverStops {
    async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_stopping_hangs_is_cut_and_named() {
    for placement in [Placement::Task, Placement::Thread] {
        let endless = Manager::new("endless").placement(placement).worker(|| NeverStops).handles::<Noted>();
        let other = Manager::new("other").worker(keeps(&Seen::default())).handles::<Noted>();
        let app = App::new("test").drain_limit(Duration::from_millis(50)).manager(endless).manager(other);
        let node = started(app).await;
        node.bus().publish(noted(1)).await.expect("published");
        let report = within("the node to stop", node.shutdown()).await;
        assert_eq!((report.account.handled, report.account.is_balanced()), (2, true));
        let unfinished: Vec<_> = report.unfinished.iter().map(|left| (&*left.manager, left.stuck)).collect();
        assert_eq!(unfinished, [("endless", 1)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_report_has_the_account_of_each_manager() {
    let failing = does(|_: &Noted, _| async { Err(Failure::message("always")) }.boxed());
    let app = App::new("test")
        .manager(Manager::new("failing").worker(failing).handles::<Noted>())
        .manager(Manager::new("keeping").worker(keeps(&Seen::default())).handles::<Noted>());
    let node = started(app).await;
    node.bus().publish_batch((0..3).map(noted)).await.expect("published");
    let report = ends_well(&node).await;
    let accounts: Vec<_> = report
        .managers
        .iter()
        .map(|(manager, account)| (manager.as_str(), account.deliveries, account.handled, account.dead_lettered))
        .collect();
    assert_eq!(accounts, [("failing", 3, 0, 3), ("keeping", 3, 3, 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_from_outside_is_told_that_the_node_is_stopping() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("slow").worker(keeps_behind(&gate, &seen)).handles::<Noted>().handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    node.bus().publish(noted(1)).await.expect("published");
    gate.arrived(1).await;
    let stopping = {
        let node = node.clone();
        tokio::spawn(async move { node.shutdown().await })
    };
    until("the node to be stopping", || node.topology().phase == Phase::Stopping).await;
    let check = async || {
        let bus = node.bus();
        assert!(matches!(bus.publish(noted(2)).await, Err(PublishError::Stopping)));
        assert!(matches!(bus.publish_batch([noted(2)]).await, Err(PublishError::Stopping)));
        assert!(matches!(
            bus.try_publish(noted(2)),
            Err(TryPublishError::Refused { source: PublishError::Stopping, .. })
        ));
        assert!(matches!(bus.request(asked(2)).await, Err(RequestError::Stopping)));
        assert!(matches!(bus.request_all(asked(2)).await, Err(RequestError::Stopping)));
        let body = serde_json::json!({"key": "k", "number": 2});
        assert!(matches!(bus.untyped().publish("test.noted", body).await, Err(PublishError::Stopping)));
    };
    check().await;
    gate.open();
    let report = within("the node to stop", stopping).await.expect("no panic");
    assert_eq!((report.account.deliveries, report.account.handled), (1, 1));
    check().await;
    assert!(node.bus().subscribe::<Noted>().await.is_err(), "a stopped node has no streams");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_runs_once_in_every_worker_after_its_last_event() {
    #[derive(Clone)]
    struct Tidy {
        handled: u64,
        seen: Seen<(u64, bool)>,
    }
    impl Worker for Tidy {
        async fn stopping(&mut self, cx: &mut Context) {
            tokio::task::yield_now().await;
            self.seen.add((self.handled, cx.envelope().is_none()));
        }
    }
    impl Handle<Noted> for Tidy {
        async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
            tokio::task::yield_now().await;
            self.handled += 1;
            Ok(())
        }
    }
    for placement in [Placement::Task, Placement::Thread] {
        let seen = Seen::default();
        let tidy = Tidy { handled: 0, seen: seen.clone() };
        let manager = Manager::new("m").placement(placement).workers(3, move || tidy.clone()).handles::<Noted>();
        let node = started(App::new("test").manager(manager)).await;
        node.bus().publish_batch((0..100).map(noted)).await.expect("published");
        ends_well(&node).await;
        let seen = seen.list();
        assert_eq!(seen.len(), 3);
        assert_eq!(seen.iter().map(|(handled, _)| handled).sum::<u64>(), 100);
        assert!(seen.iter().all(|(_, empty_handed)| *empty_handed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_or_panics_in_stopping_holds_nobody_up_beyond_the_limit() {
    struct Clings(bool);
    impl Worker for Clings {
        async fn stopping(&mut self, _: &mut Context) {
            assert!(self.0, "not now");
            std::future::pending().await
        }
    }
    impl Handle<Noted> for Clings {
        async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
            Ok(())
        }
    }
    for placement in [Placement::Task, Placement::Thread] {
        let manager =
            |name, hangs| Manager::new(name).placement(placement).worker(move || Clings(hangs)).handles::<Noted>();
        let app = App::new("test").drain_limit(Duration::from_millis(50));
        let node = started(app.manager(manager("panics", false)).manager(manager("hangs", true))).await;
        node.bus().publish(noted(1)).await.expect("published");
        let report = within("the node to stop", node.shutdown()).await;
        assert!(report.took < Duration::from_secs(5), "{report:?}");
        assert_eq!((report.account.handled, report.account.is_balanced()), (2, true));
    }
}

// ---- what does not end -------------------------------------------------------------------------------------------------

/// Stops a node whose worker does not end by itself, and checks that this takes little longer than the limit, that the
/// worker's manager is named, and that the account tells of its event.
async fn stops_all_the_same(manager: Definition, gate: &Gate) {
    let (sound, limit) = (Seen::default(), Duration::from_millis(50));
    let app = App::new("test")
        .drain_limit(limit)
        .manager(manager)
        .manager(Manager::new("sound").worker(keeps(&sound)).handles::<Noted>());
    let node = started(app).await;
    node.bus().publish(noted(1)).await.expect("published");
    gate.arrived(1).await;
    sound.wait_for(1).await;
    let began = Instant::now();
    let report = within("the node to stop", node.shutdown()).await;
    assert!(began.elapsed() >= limit && began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
    assert!(report.account.is_balanced(), "{:?}", report.account);
    assert_eq!(report.account.handled, 1, "by the sound one");
    assert_eq!(report.account.dead_lettered + report.account.in_hand, 1);
    let named: Vec<_> = report.unfinished.iter().map(|drained| drained.manager.as_str()).collect();
    assert_eq!(named, ["endless"], "{report:?}");
    gate.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_awaits_for_ever_is_dropped_at_the_limit_and_named() {
    let gate = Gate::closed();
    let manager = Manager::new("endless").worker(keeps_behind(&gate, &Seen::default())).handles::<Noted>();
    stops_all_the_same(manager.into(), &gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_awaits_for_ever_is_ended_at_the_limit_and_named() {
    let gate = Gate::closed();
    let worker = keeps_behind(&gate, &Seen::default());
    let manager = Manager::new("endless").placement(Placement::Thread).worker(worker).handles::<Noted>();
    stops_all_the_same(manager.into(), &gate).await;
}

/// Makes workers that hold their thread at the gate.
fn blocks(gate: &Gate) -> impl Fn() -> crate::support::Does<Noted, Blocks> + Send + Sync + use<> {
    let gate = gate.clone();
    let blocks: Blocks = Box::new(move |_, _| {
        gate.pass_blocking();
        async { Ok(()) }.boxed()
    });
    does(blocks)
}

type Blocks =
    Box<dyn for<'a> Fn(&'a Noted, &'a mut Context) -> crate::support::Handling<'a, Noted> + Send + Sync + 'static>;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_task_that_blocks_for_ever_is_left_behind_and_named() {
    let gate = Gate::closed();
    let manager = Manager::new("endless").worker(blocks(&gate)).handles::<Noted>();
    stops_all_the_same(manager.into(), &gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_blocks_for_ever_is_left_behind_and_named() {
    let gate = Gate::closed();
    let manager = Manager::new("endless").placement(Placement::Thread).worker(blocks(&gate)).handles::<Noted>();
    stops_all_the_same(manager.into(), &gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_inboxes_at_the_limit_is_counted_and_dead_lettered() {
    let gate = Gate::closed();
    let manager = Manager::new("slow")
        .worker(keeps_behind(&gate, &Seen::default()))
        .inbox(4)
        .handles::<Noted>()
        .handles::<Asked>();
    let node = started(App::new("test").drain_limit(Duration::from_millis(50)).manager(manager)).await;
    node.bus().publish(noted(0)).await.expect("published");
    gate.arrived(1).await;
    node.bus().publish_batch((1..4).map(noted)).await.expect("published");
    let bus = node.bus().clone();
    let asking = tokio::spawn(async move { bus.request(asked(4)).await });
    until("the inbox to be full", || view(&node, "slow").depths == [4]).await;
    // These two wait for room until the end.
    let bus = node.bus().clone();
    let publishing = tokio::spawn(async move { bus.publish(noted(5)).await });
    let bus = node.bus().clone();
    let waiting = tokio::spawn(async move { bus.request(asked(6)).await });
    until("both requests to be sent", || node.topology().pending == 2).await;
    let report = within("the node to stop", node.shutdown()).await;
    assert_eq!(report.unfinished.len(), 1);
    assert_eq!(report.unfinished[0].manager, "slow");
    assert_eq!(report.unfinished[0].undelivered, 4);
    let account = report.account;
    assert!(account.is_balanced(), "{account:?}");
    assert_eq!((account.dead_lettered, account.failed), (4, 1));
    assert!(letters(node.bus()).iter().all(|(reason, ..)| *reason == Reason::Stopped));
    let asked = within("an end", asking).await.expect("no panic");
    assert!(matches!(asked, Err(RequestError::WorkerLost(_))), "{asked:?}");
    let published = within("an end", publishing).await.expect("no panic");
    assert!(matches!(&published, Ok(receipt) if receipt.deliveries == 0), "nobody is there any more: {published:?}");
    let waited = within("an end", waiting).await.expect("no panic");
    assert!(waited.is_err(), "{waited:?}");
    assert_eq!(node.topology().pending, 0);
}

// ---- streams, and several who stop -------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_gives_what_it_had_and_then_ends() {
    let node =
        started(App::new("test").manager(Manager::new("m").worker(keeps(&Seen::default())).handles::<Asked>())).await;
    let mut stream = node.bus().subscribe::<Noted>().await.expect("subscribed");
    for number in 0..5 {
        node.bus().publish(noted(number)).await.expect("published");
    }
    let report = within("the node to stop", node.shutdown()).await;
    assert_eq!((report.account.queued, report.account.is_balanced()), (5, true));
    for number in 0..5 {
        assert_eq!(within("what it had", stream.next()).await.expect("it had five").number, number);
    }
    assert!(within("the end", stream.next()).await.is_none());
    assert!(within("the end again", stream.next()).await.is_none());
    let account = node.bus().account();
    assert_eq!((account.handled, account.queued), (5, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_stop_a_node_or_wait_for_its_end_get_the_same_report() {
    let seen = Seen::default();
    let node = started(App::new("test").manager(Manager::new("m").worker(keeps(&seen)).handles::<Noted>())).await;
    node.bus().publish_batch((0..100).map(noted)).await.expect("published");
    let stopping = (0..4_u32).map(|number| {
        let node = node.clone();
        tokio::spawn(async move { if number.is_multiple_of(2) { node.shutdown().await } else { node.stopped().await } })
    });
    let reports: Vec<_> =
        within("all to end", join_all(stopping)).await.into_iter().map(|report| report.expect("no panic")).collect();
    assert!(reports.iter().all(|report| Arc::ptr_eq(report, &reports[0])));
    assert_eq!(reports[0].account.handled, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_is_dropped_can_be_gone_on_with() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let node =
        started(App::new("test").manager(Manager::new("m").worker(keeps_behind(&gate, &seen)).handles::<Noted>()))
            .await;
    node.bus().publish_batch((0..3).map(noted)).await.expect("published");
    gate.arrived(1).await;
    let first = {
        let node = node.clone();
        tokio::spawn(async move { node.shutdown().await })
    };
    until("the node to be stopping", || node.topology().phase == Phase::Stopping).await;
    first.abort();
    assert!(first.await.expect_err("dropped").is_cancelled());
    assert!(matches!(node.bus().publish(noted(9)).await, Err(PublishError::Stopping)), "it goes on stopping");
    gate.open();
    assert_eq!(ends_well(&node).await.account.handled, 3);
}

// ---- dropped -----------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_dropped_ends_its_workers() {
    let alive = Arc::new(());
    let holds = || {
        let alive = Arc::clone(&alive);
        move || Holds(Arc::clone(&alive))
    };
    let app = App::new("test")
        .manager(Manager::new("task").workers(3, holds()).handles::<Noted>())
        .manager(Manager::new("thread").placement(Placement::Thread).workers(2, holds()).handles::<Noted>());
    let node = started(app).await;
    let (bus, mut stream) = (node.bus().clone(), node.bus().subscribe::<Noted>().await.expect("subscribed"));
    bus.publish(noted(1)).await.expect("published");
    assert!(Arc::strong_count(&alive) > 5);
    drop(node);
    until("all workers to end", || Arc::strong_count(&alive) == 1).await;
    assert!(matches!(bus.publish(noted(2)).await, Err(PublishError::Stopping)));
    assert!(within("what the stream had", stream.next()).await.is_some());
    assert!(within("the stream to end", stream.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_open_when_their_node_is_dropped_end_in_an_error() {
    let gate = Gate::closed();
    let manager = Manager::new("slow").worker(keeps_behind(&gate, &Seen::default())).inbox(2).handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    let asking: Vec<_> = (0..5)
        .map(|number| {
            let bus = node.bus().clone();
            tokio::spawn(async move { bus.request(asked(number)).await })
        })
        .collect();
    // One in hand, two in the inbox, two that wait for room.
    until("all to be sent", || node.topology().pending == 5 && view(&node, "slow").depths == [2]).await;
    gate.arrived(1).await;
    drop(node);
    for asking in asking {
        let answer = within("an end", asking).await.expect("no panic");
        assert!(
            matches!(answer, Err(RequestError::WorkerLost(_) | RequestError::Stopping | RequestError::NoHandler(_))),
            "{answer:?}"
        );
    }
}

// ---- signals -----------------------------------------------------------------------------------------------------------

/// Says to this program that it is the child of one of these tests, and which.
const CHILD: &str = "EDRI_SCENARIO_CHILD";

static NODE: OnceLock<Node> = OnceLock::new();
static SENT: AtomicU64 = AtomicU64::new(0);

/// Runs a node as a whole program, when this is the child of another test; otherwise there is nothing to do.
#[test]
fn the_program_that_other_tests_start_as_a_child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let gate = Gate::closed();
    let slow = what == "endless";
    if !slow {
        gate.open();
    }
    let worker = does(move |_: &Noted, _| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            tokio::task::yield_now().await;
            Ok(())
        }
        .boxed()
    });
    let app = App::new("child").manager(Manager::new("m").workers(2, worker).inbox(16).handles::<Noted>());
    let ran = app.run_with(|node| async move {
        let _ = NODE.set(node.clone());
        match what.as_str() {
            "ends" => {
                node.shutdown().await;
                return Ok(7);
            }
            "fails" => return Err(edri::Error::Io(std::io::Error::other("main has failed"))),
            _ => {}
        }
        for _ in 0..2 {
            let bus = node.bus().clone();
            tokio::spawn(async move {
                while let Ok(receipt) = bus.publish(noted(1)).await {
                    SENT.fetch_add(u64::from(receipt.deliveries), Ordering::SeqCst);
                }
            });
        }
        tokio::spawn(async move {
            until("events to flow", || SENT.load(Ordering::SeqCst) > if slow { 10 } else { 1000 }).await;
            println!("\nchild: running");
            let node = NODE.get().expect("set above");
            until("a signal", || node.topology().phase != Phase::Running).await;
            println!("\nchild: stopping");
        });
        Ok(0)
    });
    let node = NODE.get().expect("the node has started");
    let account = node.bus().account();
    let sent = SENT.load(Ordering::SeqCst);
    println!("\nchild: {:?}, sent {sent}, account {account:?}", ran.map_err(|error| error.to_string()));
    assert!(account.is_balanced());
    assert_eq!(account.handled, sent);
    println!("\nchild: balanced");
}

/// Another process of this program; ended when dropped.
struct Process {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Process {
    fn start(what: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--exact", "stop::the_program_that_other_tests_start_as_a_child", "--nocapture"])
            .env(CHILD, what)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = std::sync::mpsc::sync_channel(1000);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        Self { child, lines }
    }

    /// Waits until the child says this.
    fn says(&self, text: &str) -> String {
        let limit = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(limit.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(_) => panic!("the child does not say {text:?}"),
            }
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("a command").success());
    }

    fn ends(&mut self) -> ExitStatus {
        let limit = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(Instant::now() < limit, "the child does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_program_told_to_end_under_load_finishes_its_events_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let mut child = Process::start("load");
        child.says("child: running");
        child.signal(signal);
        child.says("child: Ok(None)");
        child.says("child: balanced");
        assert_eq!(child.ends().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_a_program_at_once() {
    let mut child = Process::start("endless");
    child.says("child: running");
    child.signal("TERM");
    child.says("child: stopping");
    let began = Instant::now();
    child.signal("TERM");
    assert_eq!(child.ends().code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(10), "the drain limit would be 30 s");
}

#[test]
fn a_program_whose_main_fails_is_stopped_and_returns_the_error() {
    let mut child = Process::start("fails");
    let line = child.says("child: Err");
    assert!(line.contains("main has failed"), "{line}");
    assert_eq!(child.ends().code(), Some(0));
}

#[test]
fn a_program_whose_main_shuts_its_node_down_ends_with_what_main_returned() {
    let mut child = Process::start("ends");
    child.says("child: Ok(Some(7))");
    assert_eq!(child.ends().code(), Some(0));
}
