//! Every subscription of the node is in the table before the first `started`; a start succeeds within its limit or names
//! who is late, and leaves nothing running then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{Definition, ManagerError, StartError};
use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::support::{Gate, Holds, LIMIT, Noted, Seen, at_rest, ends_well, keeps, keeps_behind, noted, started, until};

/// Publishes so many events when it starts, and counts those that come to it.
struct Herald {
    publishes: u64,
    heard: Arc<AtomicU64>,
}

impl Herald {
    fn makes(publishes: u64, heard: &Arc<AtomicU64>) -> impl Fn() -> Self + Send + Sync + 'static {
        let heard = Arc::clone(heard);
        move || Self { publishes, heard: Arc::clone(&heard) }
    }
}

impl Worker for Herald {
    async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
        for number in 0..self.publishes {
            cx.publish(noted(number)).await?;
        }
        Ok(())
    }
}

impl Handle<Noted> for Herald {
    async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
        self.heard.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_publishes_when_it_starts_reaches_every_subscriber_in_1000_starts() {
    async fn start_once() {
        let heard: [Arc<AtomicU64>; 4] = Default::default();
        let [first, own, last, thread] = &heard;
        let app = App::new("test")
            .manager(Manager::new("first").workers(2, Herald::makes(0, first)).handles::<Noted>())
            .manager(Manager::new("herald").worker(Herald::makes(1, own)).handles::<Noted>())
            .manager(Manager::new("last").worker(Herald::makes(0, last)).keyed().handles::<Noted>())
            .manager(
                Manager::new("thread").placement(Placement::Thread).worker(Herald::makes(0, thread)).handles::<Noted>(),
            );
        let node = started(app).await;
        let report = ends_well(&node).await;
        assert_eq!(heard.map(|heard| heard.load(Ordering::SeqCst)), [1, 1, 1, 1]);
        assert_eq!((report.account.deliveries, report.account.handled), (4, 4));
    }
    let rows = (0..4).map(|_| {
        tokio::spawn(async {
            for _ in 0..250 {
                start_once().await;
            }
        })
    });
    for row in join_all(rows).await {
        row.expect("every start ends well");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_publish_more_than_an_inbox_holds_when_it_starts() {
    let (own, seen) = (Arc::default(), Seen::default());
    let app = App::new("test")
        .manager(Manager::new("herald").worker(Herald::makes(500, &own)).inbox(1000).handles::<Noted>())
        .manager(Manager::new("small").worker(keeps(&seen)).inbox(4).handles::<Noted>());
    let node = started(app).await;
    at_rest(node.bus()).await;
    assert_eq!(seen.list(), (0..500).collect::<Vec<_>>());
    assert_eq!(own.load(Ordering::SeqCst), 500);
    ends_well(&node).await;
}

/// How a worker does not start.
#[derive(Clone, Copy)]
enum Trouble {
    Fails,
    Panics,
    Hangs,
}

/// Has trouble starting as its second instance.
struct Troubled(Trouble);

impl Worker for Troubled {
    async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
        match self.0 {
            _ if cx.instance() != 1 => Ok(()),
            Trouble::Fails => Err(Failure::new("no_disk", "the disk is gone")),
            Trouble::Panics => panic!("the disk is on fire"),
            Trouble::Hangs => std::future::pending().await,
        }
    }
}

impl Handle<Noted> for Troubled {
    async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
        Ok(())
    }
}

/// Starts a node whose manager `weak` has this trouble, beside others that start, and returns what `start` says.
async fn troubled_start(trouble: Trouble, placement: Placement) -> StartError {
    let alive = Arc::new(());
    let holds = || {
        let alive = Arc::clone(&alive);
        move || Holds(Arc::clone(&alive))
    };
    let limit = if matches!(trouble, Trouble::Hangs) { Duration::from_millis(500) } else { LIMIT };
    let app = App::new("test")
        .start_timeout(limit)
        .manager(Manager::new("strong").workers(3, holds()).handles::<Noted>())
        .manager(
            Manager::new("weak")
                .placement(placement)
                .restart(Restart::at_most(1, Duration::from_secs(60)))
                .workers(2, move || Troubled(trouble))
                .handles::<Noted>(),
        )
        .manager(Manager::new("thread").placement(Placement::Thread).worker(holds()).handles::<Noted>());
    let began = Instant::now();
    let error = app.start().await.expect_err("one worker does not start");
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
    assert_eq!(Arc::strong_count(&alive), 1, "all that was started has been stopped");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_fails_to_start_ends_the_start_with_its_manager_named() {
    for placement in [Placement::Task, Placement::Thread] {
        match troubled_start(Trouble::Fails, placement).await {
            StartError::Manager(ManagerError::Failed { manager, reason }) => {
                assert_eq!(manager, "weak");
                assert!(reason.contains("no_disk: the disk is gone"), "{reason}");
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_panics_in_started_ends_the_start_with_its_manager_named() {
    for placement in [Placement::Task, Placement::Thread] {
        match troubled_start(Trouble::Panics, placement).await {
            StartError::Manager(ManagerError::Failed { manager, reason }) => {
                assert_eq!(manager, "weak");
                assert!(reason.contains("the disk is on fire"), "{reason}");
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_in_started_ends_the_start_at_its_limit_with_the_instance_named() {
    for placement in [Placement::Task, Placement::Thread] {
        match troubled_start(Trouble::Hangs, placement).await {
            StartError::Manager(ManagerError::Late { manager, waiting, .. }) => {
                assert_eq!((manager.as_str(), waiting), ("weak", vec![1]));
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_fails_to_start_now_and_then_is_started_again() {
    /// Starts at the third try.
    struct Slow(Arc<AtomicU64>);
    impl Worker for Slow {
        async fn started(&mut self, _: &mut Context) -> Result<(), Failure> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => Err(Failure::message("not yet")),
                1 => panic!("still not"),
                _ => Ok(()),
            }
        }
    }
    impl Handle<Noted> for Slow {
        async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
            Ok(())
        }
    }
    let tries = Arc::default();
    let slow = Arc::clone(&tries);
    let node = started(
        App::new("test").manager(Manager::new("slow").worker(move || Slow(Arc::clone(&slow))).handles::<Noted>()),
    )
    .await;
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    assert_eq!(node.bus().publish(noted(1)).await.expect("published").deliveries, 1);
    assert_eq!(ends_well(&node).await.account.handled, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_dropped_leaves_nothing_running() {
    let (alive, gate) = (Arc::new(()), Gate::closed());
    /// Waits at a gate to start.
    struct Waits(Gate, #[expect(dead_code, reason = "held to see whether it is")] Arc<()>);
    impl Worker for Waits {
        async fn started(&mut self, _: &mut Context) -> Result<(), Failure> {
            self.0.pass().await;
            Ok(())
        }
    }
    impl Handle<Noted> for Waits {
        async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
            Ok(())
        }
    }
    let make = {
        let (gate, alive) = (gate.clone(), Arc::clone(&alive));
        move || Waits(gate.clone(), Arc::clone(&alive))
    };
    let make_thread = make.clone();
    let app = App::new("test")
        .manager(Manager::new("task").workers(2, make).handles::<Noted>())
        .manager(Manager::new("thread").placement(Placement::Thread).worker(make_thread).handles::<Noted>());
    tokio::select! {
        _ = app.start() => panic!("nobody opened the gate"),
        () = gate.arrived(3) => {}
    }
    until("all instances to end", || Arc::strong_count(&alive) == 1).await;
}

/// Two types of one name.
mod other {
    use edri::event;

    #[event(notification, name = "test.noted", key = key)]
    #[derive(Debug)]
    pub(super) struct Noted {
        pub(super) key: String,
    }
}

struct Confused;

impl Worker for Confused {}

impl Handle<other::Noted> for Confused {
    async fn handle(&mut self, _: &other::Noted, _: &mut Context) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_types_of_one_name_are_refused_where_the_second_is_registered() {
    let first = || Manager::new("first").worker(keeps(&Seen::default())).handles::<Noted>();
    let second = || Manager::new("second").worker(|| Confused).handles::<other::Noted>();
    let names_both = |error: &dyn std::error::Error| {
        let text = error.to_string();
        assert!(
            text.contains("`test.noted`") && text.contains("support::Noted") && text.contains("other::Noted"),
            "{text}"
        );
    };

    let error = App::new("test").manager(first()).manager(second()).start().await.expect_err("refused by start");
    assert!(matches!(error, StartError::Declare(_)), "{error}");
    names_both(&error);

    let node = started(App::new("test").manager(first())).await;
    names_both(&node.add(second()).await.expect_err("refused by add"));
    assert_eq!(node.managers(), ["first"]);
    let event = || other::Noted { key: "a".to_owned() };
    names_both(&node.bus().publish(event()).await.expect_err("refused by publish"));
    assert_eq!(node.bus().try_publish(event()).expect_err("refused by try_publish").into_event().key, "a");
    names_both(&node.bus().publish_batch([event()]).await.expect_err("refused by publish_batch"));
    names_both(&node.bus().subscribe::<other::Noted>().await.expect_err("refused by subscribe"));
    names_both(&node.bus().declare(<other::Noted as edri::Event>::descriptor()).await.expect_err("refused by declare"));

    node.bus().publish(noted(1)).await.expect("the first goes on");
    assert_eq!(ends_well(&node).await.account.handled, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_managers_of_one_name_are_refused() {
    let manager = || Manager::new("twin").worker(keeps(&Seen::default())).handles::<Noted>();
    let error = App::new("test").manager(manager()).manager(manager()).start().await.expect_err("refused by start");
    assert!(matches!(&error, StartError::Manager(ManagerError::NameTaken(name)) if *name == "twin"), "{error}");
    let node = started(App::new("test").manager(manager())).await;
    let error = node.add(manager()).await.expect_err("refused by add");
    assert!(matches!(&error, ManagerError::NameTaken(name) if *name == "twin"), "{error}");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_in_a_definition_is_said_by_start_in_words() {
    async fn check(app: App, says: &str) {
        let text = app.start().await.expect_err(says).to_string();
        assert!(text.contains(says), "{text:?} does not say {says:?}");
    }
    fn with(change: impl FnOnce(Manager) -> Definition) -> App {
        App::new("test").manager(change(Manager::new("m")))
    }
    let seen = Seen::default();
    check(App::new("two words"), "node name \"two words\" contains ' '").await;
    check(App::new(""), "empty").await;
    let named = |name: &str| App::new("test").manager(Manager::new(name).worker(keeps(&seen)).handles::<Noted>());
    check(named("a/b"), "manager name \"a/b\" contains '/'").await;
    check(named(&"x".repeat(201)), "201 bytes").await;
    check(with(|m| m.workers(0, keeps(&seen)).handles::<Noted>().into()), "0 instances").await;
    check(with(|m| m.worker(keeps(&seen)).inbox(0).handles::<Noted>().into()), "an inbox of 0 places").await;
    check(with(|m| m.worker(keeps(&seen)).concurrency(0).handles::<Noted>().into()), "a concurrency of 0").await;
    check(with(|m| m.worker(keeps(&seen)).into()), "it handles no event").await;
    check(with(|m| m.worker(|| Blind).handles_any("a.>.b").into()), "`>` before its end").await;
}

struct Blind;

impl Worker for Blind {}

impl HandleAny for Blind {
    async fn handle(&mut self, _: &Envelope, _: &mut Context) -> Result<Option<Value>, Failure> {
        Ok(None)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_nodes_live_in_one_process_and_know_nothing_of_each_other() {
    let seen: Vec<Seen<u64>> = (0..3).map(|_| Seen::default()).collect();
    let mut nodes = Vec::new();
    for (number, seen) in seen.iter().enumerate() {
        let manager = Manager::new("keeper").worker(keeps(seen)).handles::<Noted>();
        nodes.push(started(App::new(&format!("node-{number}")).manager(manager)).await);
    }
    for (number, node) in nodes.iter().enumerate() {
        node.bus().publish(noted(number as u64)).await.expect("published");
    }
    ends_well(&nodes[0]).await;
    nodes[1].bus().publish(noted(10)).await.expect("the second goes on without the first");
    for node in &nodes[1..] {
        ends_well(node).await;
    }
    assert_eq!(seen.iter().map(Seen::list).collect::<Vec<_>>(), [vec![0], vec![1, 10], vec![2]]);
    let incarnations: Vec<_> = nodes.iter().map(|node| node.topology().incarnation).collect();
    assert!(incarnations[0] != incarnations[1] && incarnations[1] != incarnations[2]);
}

#[tokio::test]
async fn a_node_lives_in_a_current_thread_runtime() {
    let (seen, gate) = (Seen::default(), Gate::closed());
    let app = App::new("test").manager(Manager::new("task").worker(keeps(&seen)).handles::<Noted>()).manager(
        Manager::new("thread")
            .placement(Placement::Thread)
            .worker(keeps_behind(&gate, &seen))
            .handles::<crate::support::Asked>(),
    );
    let node = started(app).await;
    node.bus().publish(noted(1)).await.expect("published");
    gate.let_through(1);
    assert_eq!(node.bus().request(crate::support::asked(2)).await.expect("answered"), 2);
    assert_eq!(ends_well(&node).await.account.handled, 2);
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_start_without_a_runtime_is_an_error_and_no_panic() {
    let manager = Manager::new("m").worker(keeps(&Seen::default())).handles::<Noted>();
    let refused = App::new("test").manager(manager).start().now_or_never().expect("refused at once");
    assert!(matches!(refused, Err(StartError::NoRuntime)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_send_a_request_to_another_manager_when_it_starts() {
    struct Curious(Seen<u64>);
    impl Worker for Curious {
        async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
            self.0.add(cx.request(crate::support::asked(7)).await?);
            Ok(())
        }
    }
    impl Handle<Noted> for Curious {
        async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
            Ok(())
        }
    }
    let (answers, seen) = (Seen::default(), Seen::default());
    let curious = answers.clone();
    let app = App::new("test")
        .manager(Manager::new("curious").worker(move || Curious(curious.clone())).handles::<Noted>())
        .manager(Manager::new("wise").worker(keeps(&seen)).handles::<crate::support::Asked>());
    let node = started(app).await;
    assert_eq!(answers.list(), [7]);
    ends_well(&node).await;
}
