//! A worker that panics, fails or takes too long harms nobody but its event, which is tried again or accounted for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::system::{ManagerChanged, WorkerChanged};
use edri::{Encoding, Health, ManagerState, Reason, WorkerState};
use futures_util::FutureExt;
use tokio::time::sleep;

use crate::support::{
    Asked, Followed, Gate, Noted, Seen, asked, at_rest, dead_numbers, does, ends_well, keeps, keyed, letters, noted,
    started, until, view, within,
};

const PLACEMENTS: [Placement; 2] = [Placement::Task, Placement::Thread];

/// A number that the workers here stumble over.
const STONE: u64 = 13;

fn quickly() -> Restart {
    Restart::at_most(100, Duration::from_secs(60)).backoff(Duration::from_millis(1), Duration::from_millis(2))
}

/// Panics over the stone as long as it was not tried before; writes down the others with their attempt.
fn stumbles(seen: &Seen<(u64, u32, bool)>) -> impl Fn() -> Stumbles + Send + Sync + use<> {
    let seen = seen.clone();
    move || Stumbles(seen.clone())
}

struct Stumbles(Seen<(u64, u32, bool)>);

impl Worker for Stumbles {}

impl Handle<Noted> for Stumbles {
    async fn handle(&mut self, event: &Noted, cx: &mut Context) -> Result<(), Failure> {
        assert!(event.number != STONE || cx.is_redelivered(), "there is a stone");
        self.0.add((event.number, cx.attempt(), cx.is_redelivered()));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_panics_is_restarted_and_its_event_dead_lettered() {
    for placement in PLACEMENTS {
        let seen = Seen::default();
        let manager = Manager::new("m").placement(placement).worker(stumbles(&seen)).handles::<Noted>();
        let node = started(App::new("test").manager(manager)).await;
        for number in [1, STONE, 2] {
            node.bus().publish(noted(number)).await.expect("published");
        }
        assert_eq!(seen.wait_for(2).await, [(1, 1, false), (2, 1, false)]);
        at_rest(node.bus()).await;
        assert_eq!(letters(node.bus()), [(Reason::WorkerLost, "manager `m`".to_owned(), 1)]);
        assert!(node.bus().dead_letters()[0].detail.contains("there is a stone"));
        let worker = &view(&node, "m").workers[0];
        assert_eq!((worker.restarts, worker.state), (1, WorkerState::Running));
        assert!(worker.last_error.as_ref().is_some_and(|text| text.contains("there is a stone")));
        let account = ends_well(&node).await.account;
        assert_eq!((account.deliveries, account.handled, account.dead_lettered), (3, 2, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_worker_panicked_is_tried_again_first_and_marked_when_the_policy_says_so() {
    for placement in PLACEMENTS {
        let seen = Seen::default();
        let manager =
            Manager::new("m").placement(placement).retry(Retry::attempts(2)).worker(stumbles(&seen)).handles::<Noted>();
        let node = started(App::new("test").manager(manager)).await;
        node.bus().publish_batch([1, STONE, 2].map(noted)).await.expect("published");
        assert_eq!(seen.wait_for(3).await, [(1, 1, false), (STONE, 2, true), (2, 1, false)]);
        let account = ends_well(&node).await.account;
        assert_eq!((account.handled, account.retried, account.dead_lettered), (3, 1, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_that_says_nothing_is_borne_too() {
    let worker = does(|event: &Noted, _| {
        if event.number == STONE {
            std::panic::panic_any(STONE);
        }
        async { Ok(()) }.boxed()
    });
    let node = started(App::new("test").manager(Manager::new("m").worker(worker).handles::<Noted>())).await;
    node.bus().publish_batch([STONE, 1].map(noted)).await.expect("published");
    let account = at_rest(node.bus()).await;
    assert_eq!((account.handled, account.dead_lettered), (1, 1));
    assert!(node.bus().dead_letters()[0].detail.contains("a panic without a text"));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_panics_again_when_it_is_dropped_takes_no_event_with_it() {
    /// Panics over its first event, and when it is dropped because of that.
    struct Bitter {
        angry: bool,
        seen: Seen<u64>,
    }
    impl Worker for Bitter {}
    impl Drop for Bitter {
        fn drop(&mut self) {
            assert!(!self.angry, "and another thing");
        }
    }
    impl Handle<Noted> for Bitter {
        async fn handle(&mut self, event: &Noted, cx: &mut Context) -> Result<(), Failure> {
            self.angry = !cx.is_redelivered();
            assert!(!self.angry, "there is a stone");
            self.seen.add(event.number);
            Ok(())
        }
    }
    for placement in PLACEMENTS {
        let seen = Seen::default();
        let bitter = seen.clone();
        let manager = Manager::new("m")
            .placement(placement)
            .retry(Retry::attempts(2))
            .restart(quickly())
            .worker(move || Bitter { angry: false, seen: bitter.clone() })
            .handles::<Noted>();
        let node = started(App::new("test").manager(manager)).await;
        node.bus().publish(noted(1)).await.expect("published");
        assert_eq!(seen.wait_for(1).await, [1]);
        assert_eq!(ends_well(&node).await.account.handled, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pauses_before_restarts_grow() {
    let starts: Seen<Instant> = Seen::default();
    struct Dies(Seen<Instant>);
    impl Worker for Dies {
        async fn started(&mut self, _: &mut Context) -> Result<(), Failure> {
            self.0.add(Instant::now());
            if self.0.len() > 4 { Ok(()) } else { Err(Failure::message("not today")) }
        }
    }
    impl Handle<Noted> for Dies {
        async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
            Ok(())
        }
    }
    let by_worker = starts.clone();
    let restart = Restart::default().backoff(Duration::from_millis(20), Duration::from_millis(80));
    let manager = Manager::new("m").restart(restart).worker(move || Dies(by_worker.clone())).handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    let starts = starts.list();
    // Each pause is shortened by up to a half.
    for (pair, at_least) in starts.windows(2).zip([10, 20, 40, 40]) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(at_least), "{:?}", pair[1] - pair[0]);
    }
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_whose_workers_are_lost_too_often_fails_and_everybody_is_told() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let worker = {
        let gate = gate.clone();
        does(move |event: &Noted, _| {
            let (gate, number) = (gate.clone(), event.number);
            async move {
                gate.pass().await;
                assert!(number < STONE, "a stone too many");
                Ok(())
            }
            .boxed()
        })
    };
    let frail = Manager::new("frail").worker(worker).restart(Restart::at_most(2, Duration::from_secs(60)));
    let app = App::new("test")
        .manager(frail.handles::<Noted>())
        .manager(Manager::new("sound").worker(keeps(&seen)).handles::<Noted>());
    let node = started(app).await;
    let mut changes = node.bus().subscribe::<ManagerChanged>().key("frail").await.expect("subscribed");
    for number in [1, STONE, STONE, 2, STONE, 3, 4] {
        node.bus().publish(noted(number)).await.expect("published");
    }
    gate.open();
    let change = within("the state event", changes.next()).await.expect("the node runs");
    assert_eq!(change.state, ManagerState::Failed);
    let reason = change.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("more than 2 restarts") && reason.contains("a stone too many"), "{reason}");
    at_rest(node.bus()).await;
    let dead: Vec<_> = letters(node.bus()).into_iter().map(|(reason, _, attempts)| (reason, attempts)).collect();
    let lost = (Reason::WorkerLost, 1);
    assert_eq!(dead, [lost, lost, lost, (Reason::ManagerFailed, 0), (Reason::ManagerFailed, 0)]);
    assert_eq!(dead_numbers(node.bus()), [STONE, STONE, STONE, 3, 4]);
    let frail = view(&node, "frail");
    assert_eq!((frail.state, frail.workers[0].state), (ManagerState::Failed, WorkerState::Stopped));
    assert_eq!(node.bus().publish(noted(5)).await.expect("published").deliveries, 1, "to the sound one");
    assert_eq!(seen.wait_for(8).await, [1, STONE, STONE, 2, STONE, 3, 4, 5]);
    drop(changes);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_failed_can_be_replaced() {
    let seen = Seen::default();
    let worker = does(|_: &Noted, _| async { panic!("once is enough") }.boxed());
    let manager = Manager::new("m").worker(worker).restart(Restart::never()).handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    node.bus().publish(noted(1)).await.expect("published");
    until("the manager to fail", || view(&node, "m").state == ManagerState::Failed).await;
    node.replace(Manager::new("m").worker(keeps(&seen)).handles::<Noted>()).await.expect("replaced");
    assert_eq!(node.bus().publish(noted(2)).await.expect("published").deliveries, 1);
    assert_eq!(seen.wait_for(1).await, [2]);
    ends_well(&node).await;
}

// ---- time limits -------------------------------------------------------------------------------------------------------

/// Never ends the handling of the stone, and counts what else one instance has handled.
struct Dreams {
    handled: u64,
    seen: Seen<(u64, u64)>,
}

impl Worker for Dreams {}

impl Handle<Noted> for Dreams {
    async fn handle(&mut self, event: &Noted, _: &mut Context) -> Result<(), Failure> {
        if event.number == STONE {
            return std::future::pending().await;
        }
        self.handled += 1;
        self.seen.add((event.number, self.handled));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_awaits_too_long_is_dropped_and_its_instance_replaced() {
    for placement in PLACEMENTS {
        let seen = Seen::default();
        let by_worker = seen.clone();
        let manager = Manager::new("m")
            .placement(placement)
            .time_limit(Duration::from_millis(50))
            .restart(quickly())
            .worker(move || Dreams { handled: 0, seen: by_worker.clone() })
            .handles::<Noted>();
        let node = started(App::new("test").manager(manager)).await;
        node.bus().publish_batch([1, 2, STONE, 3].map(noted)).await.expect("published");
        assert_eq!(seen.wait_for(3).await, [(1, 1), (2, 2), (3, 1)], "the third by a fresh instance");
        at_rest(node.bus()).await;
        assert_eq!(letters(node.bus()), [(Reason::TimeLimit, "manager `m`".to_owned(), 1)]);
        let worker = &view(&node, "m").workers[0];
        assert_eq!((worker.restarts, worker.stuck), (1, 0));
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_limit_counts_from_when_the_event_was_taken_however_long_the_worker_slept_before() {
    const TIME: Duration = Duration::from_millis(500);
    for placement in PLACEMENTS {
        let seen = Seen::default();
        let by_worker = seen.clone();
        let manager = Manager::new("m")
            .placement(placement)
            .time_limit(TIME)
            .restart(quickly())
            .worker(move || Dreams { handled: 0, seen: by_worker.clone() })
            .handles::<Noted>();
        let node = started(App::new("test").manager(manager)).await;
        node.bus().publish(noted(1)).await.expect("published");
        seen.wait_for(1).await;
        // However much longer that is on a busy machine: the event has its time all the same.
        sleep(TIME / 2).await;
        let published = Instant::now();
        node.bus().publish(noted(STONE)).await.expect("published");
        until("the end of its time", || !letters(node.bus()).is_empty()).await;
        assert!(published.elapsed() >= TIME, "{:?}", published.elapsed());
        assert_eq!(letters(node.bus()), [(Reason::TimeLimit, "manager `m`".to_owned(), 1)]);
        ends_well(&node).await;
    }
}

/// Holds its thread at a gate with the stone.
fn blocks(gate: &Gate, seen: &Seen<u64>) -> impl Fn() -> Blocks + Send + Sync + use<> {
    let (gate, seen) = (gate.clone(), seen.clone());
    move || Blocks(gate.clone(), seen.clone())
}

struct Blocks(Gate, Seen<u64>);

impl Worker for Blocks {}

impl Handle<Noted> for Blocks {
    async fn handle(&mut self, event: &Noted, _: &mut Context) -> Result<(), Failure> {
        if event.number == STONE {
            self.0.pass_blocking();
        }
        self.1.add(event.number);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_blocks_too_long_is_replaced_and_counted_as_stuck_until_it_returns() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("m")
        .placement(Placement::Thread)
        .time_limit(Duration::from_millis(100))
        .restart(quickly())
        .worker(blocks(&gate, &seen))
        .handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    node.bus().publish_batch([1, STONE, 2, 3].map(noted)).await.expect("published");
    assert_eq!(seen.wait_for(3).await, [1, 2, 3], "the next events are handled by another thread");
    let account = at_rest(node.bus()).await;
    assert_eq!((account.handled, account.dead_lettered), (3, 1));
    assert_eq!(letters(node.bus()), [(Reason::TimeLimit, "manager `m`".to_owned(), 1)]);
    assert_eq!(view(&node, "m").workers[0].stuck, 1);
    gate.open();
    until("the thread to come back", || view(&node, "m").workers[0].stuck == 0).await;
    assert_eq!(seen.list(), [1, 2, 3, STONE]);
    assert_eq!(node.bus().account(), account, "what it did after it was given up counts for nothing");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_does_not_end_when_told_to_is_stuck_until_it_returns_wherever_it_was() {
    let gate = Gate::closed();
    /// Starts at once the first time, and holds its thread at a gate the second.
    struct Reluctant(Gate, Arc<AtomicUsize>);
    impl Worker for Reluctant {
        async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
            if cx.instance() == 0 && self.1.fetch_add(1, Ordering::SeqCst) == 1 {
                self.0.pass_blocking();
            }
            Ok(())
        }
    }
    impl Handle<Noted> for Reluctant {
        async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
            panic!("at every event")
        }
    }
    let starts = Arc::default();
    let by_worker = gate.clone();
    let manager = Manager::new("m")
        .placement(Placement::Thread)
        .keyed()
        .restart(Restart::at_most(1, Duration::from_secs(60)).backoff(Duration::ZERO, Duration::ZERO))
        .workers(2, move || Reluctant(by_worker.clone(), Arc::clone(&starts)))
        .handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    // One key of each partition.
    let mut keys = (0..).map(|number: u64| number.to_string());
    let mut key_of = |partition| keys.find(|key| edri::key_hash(key) % 2 == partition).expect("there is one");
    node.bus().publish(keyed(&key_of(0), 1)).await.expect("published");
    gate.arrived(1).await;
    node.bus().publish(keyed(&key_of(1), 2)).await.expect("published");
    until("the manager to fail", || view(&node, "m").state == ManagerState::Failed).await;
    until("the first instance to be given up", || view(&node, "m").workers[0].state == WorkerState::Stopped).await;
    assert_eq!(view(&node, "m").workers[0].stuck, 1);
    gate.open();
    until("the thread to come back", || view(&node, "m").workers[0].stuck == 0).await;
    ends_well(&node).await;
}

// ---- several at a time -------------------------------------------------------------------------------------------------

/// Makes workers that count how many of their handlers run at once, with the most there ever were.
fn overlaps(
    gate: &Gate,
    now: &Arc<AtomicUsize>,
    most: &Arc<AtomicUsize>,
) -> impl Fn() -> Overlaps + Send + Sync + use<> {
    let make = Overlaps { gate: gate.clone(), now: Arc::clone(now), most: Arc::clone(most), alone: Arc::default() };
    move || make.clone()
}

#[derive(Clone)]
struct Overlaps {
    gate: Gate,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    alone: Arc<AtomicBool>,
}

impl Worker for Overlaps {}

impl HandleConcurrent<Noted> for Overlaps {
    async fn handle(&self, event: &Noted, _: &mut Context) -> Result<(), Failure> {
        assert!(!self.alone.load(Ordering::SeqCst), "another has the instance for itself");
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.gate.pass().await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        assert_ne!(event.number, STONE, "there is a stone");
        Ok(())
    }
}

impl Handle<Followed> for Overlaps {
    async fn handle(&mut self, _: &Followed, _: &mut Context) -> Result<(), Failure> {
        assert_eq!(self.now.load(Ordering::SeqCst), 0, "others are running");
        self.alone.store(true, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.alone.store(false, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_share_an_instance_overlap_up_to_the_limit() {
    for placement in PLACEMENTS {
        let (gate, now, most) = (Gate::closed(), Arc::default(), Arc::default());
        let manager = Manager::new("m")
            .placement(placement)
            .worker(overlaps(&gate, &now, &most))
            .concurrency(3)
            .handles_concurrently::<Noted>();
        let node = started(App::new("test").manager(manager)).await;
        node.bus().publish_batch((0..10).map(|number| noted(100 + number))).await.expect("published");
        gate.arrived(3).await;
        assert_eq!((view(&node, "m").workers[0].in_hand, view(&node, "m").depths[0]), (3, 7));
        gate.let_through(1);
        gate.arrived(4).await;
        gate.open();
        assert_eq!(at_rest(node.bus()).await.handled, 10);
        assert_eq!(most.load(Ordering::SeqCst), 3);
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_wants_the_instance_for_itself_waits_for_those_that_share_it() {
    let (gate, now, most) = (Gate::closed(), Arc::default(), Arc::default());
    gate.open();
    let manager = Manager::new("m")
        .worker(overlaps(&gate, &now, &most))
        .inbox(8)
        .handles_concurrently::<Noted>()
        .handles::<Followed>();
    let node = started(App::new("test").manager(manager)).await;
    for number in 0..300 {
        within("room", node.bus().publish(noted(100 + number))).await.expect("published");
        if number.is_multiple_of(3) {
            within("room", node.bus().publish(Followed { number })).await.expect("published");
        }
    }
    let account = ends_well(&node).await.account;
    assert_eq!((account.handled, account.dead_lettered), (400, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_one_handler_lets_those_that_share_the_instance_finish() {
    let (gate, now, most) = (Gate::closed(), Arc::default(), Arc::default());
    let manager = Manager::new("m").worker(overlaps(&gate, &now, &most)).handles_concurrently::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    node.bus().publish_batch([STONE, 1, 2].map(noted)).await.expect("published");
    gate.arrived(3).await;
    gate.let_through(1);
    until("the stone to be a dead letter", || node.topology().dead_letters == 1).await;
    node.bus().publish(noted(3)).await.expect("published");
    assert_eq!(gate.arrivals(), 3, "the instance takes nothing new any more");
    gate.let_through(2);
    until("the others to be handled", || node.bus().account().handled == 2).await;
    gate.open();
    assert_eq!(at_rest(node.bus()).await.handled, 3);
    assert_eq!(dead_numbers(node.bus()), [STONE]);
    assert_eq!(view(&node, "m").workers[0].restarts, 1);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_shares_its_instance_and_takes_too_long_is_dropped_alone() {
    let gate = Gate::closed();
    let worker = {
        let gate = gate.clone();
        does(move |event: &Noted, _| {
            let (gate, number) = (gate.clone(), event.number);
            async move {
                match number {
                    STONE => std::future::pending().await,
                    _ => gate.pass().await,
                }
                Ok(())
            }
            .boxed()
        })
    };
    // The others take their time too, but less than the limit since the stone was first.
    let manager = Manager::new("m").worker(worker).time_limit(Duration::from_secs(1)).handles_concurrently::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    node.bus().publish(noted(STONE)).await.expect("published");
    until("the stone to be in hand", || view(&node, "m").workers[0].in_hand == 1).await;
    sleep(Duration::from_millis(600)).await;
    node.bus().publish_batch([1, 2].map(noted)).await.expect("published");
    until("the stone to be a dead letter", || node.topology().dead_letters == 1).await;
    gate.open();
    let account = at_rest(node.bus()).await;
    assert_eq!((account.handled, account.dead_lettered), (2, 1));
    assert_eq!(view(&node, "m").workers[0].restarts, 0, "the instance goes on");
    ends_well(&node).await;
}

// ---- failures ----------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_handler_fails_is_tried_as_often_as_the_policy_says_and_then_a_dead_letter() {
    let tries: Seen<(u64, u32, bool)> = Seen::default();
    let worker = {
        let tries = tries.clone();
        does(move |event: &Noted, cx| {
            tries.add((event.number, cx.attempt(), cx.is_redelivered()));
            let succeeds = event.number == 1 && cx.attempt() == 3;
            async move { if succeeds { Ok(()) } else { Err(Failure::new("sour", "not ripe")) } }.boxed()
        })
    };
    let retry = Retry::attempts(4).backoff(Duration::from_millis(1), Duration::from_millis(2));
    let manager = Manager::new("m").worker(worker).retry(retry).handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    node.bus().publish_batch([1, 2].map(noted)).await.expect("published");
    let account = at_rest(node.bus()).await;
    assert_eq!((account.handled, account.dead_lettered, account.retried), (1, 1, 5));
    let expect =
        [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (2, 4)].map(|(number, attempt)| (number, attempt, false));
    assert_eq!(tries.list(), expect);
    assert_eq!(letters(node.bus()), [(Reason::Failed, "manager `m`".to_owned(), 4)]);
    assert_eq!(node.bus().dead_letters()[0].detail, "sour: not ripe");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_time_to_live_ends_in_the_inbox_is_a_dead_letter() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("m").worker(crate::support::keeps_behind(&gate, &seen)).handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    node.bus().publish(noted(1)).await.expect("published");
    gate.arrived(1).await;
    let options = Options::new().time_limit(Duration::from_millis(1));
    node.bus().publish_with(noted(2), &options).await.expect("published");
    let options = Options::new().time_limit(Duration::from_secs(60));
    node.bus().publish_with(noted(3), &options).await.expect("published");
    sleep(Duration::from_millis(5)).await;
    gate.open();
    at_rest(node.bus()).await;
    assert_eq!(seen.list(), [1, 3]);
    assert_eq!(letters(node.bus()), [(Reason::Expired, "manager `m`".to_owned(), 0)]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_what_the_worker_handles_is_refused_and_the_worker_goes_on() {
    let seen = Seen::default();
    let manager =
        Manager::new("m").worker(keeps(&seen)).retry(Retry::attempts(3)).handles::<Noted>().handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    let untyped = node.bus().untyped();
    let poison = [r#"{"key": "k"}"#, r#"{"key": "k", "number": "many"}"#, r#"{"key": "k", "number": 1} and more"#];
    for text in poison {
        untyped.publish("test.noted", Body::new(Encoding::Json, text)).await.expect("its key can be read");
    }
    untyped.publish("test.noted", serde_json::json!({"key": "k", "number": 7})).await.expect("published");
    assert_eq!(seen.wait_for(1).await, [7]);
    at_rest(node.bus()).await;
    assert_eq!(letters(node.bus()), vec![(Reason::InvalidPayload, "manager `m`".to_owned(), 1); 3]);
    let error = untyped.request("test.asked", serde_json::json!({"count": 1})).await.expect_err("not an ask");
    assert_eq!(error.code(), "invalid_payload");
    assert_eq!(node.bus().request(asked(8)).await.expect("answered"), 8);
    assert_eq!(view(&node, "m").workers[0].restarts, 0);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_the_events_key_is_not_published() {
    let node =
        started(App::new("test").manager(Manager::new("m").worker(keeps(&Seen::default())).handles::<Noted>())).await;
    for text in [r#"{"number": 7}"#, "{", "[]", ""] {
        let error = node.bus().untyped().publish("test.noted", Body::new(Encoding::Json, text)).await;
        assert!(matches!(error, Err(edri::PublishError::Payload { .. })), "{text}: {error:?}");
    }
    assert_eq!(ends_well(&node).await.account.deliveries, 0);
}

// ---- what is seen of it ------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_says_of_its_health_and_its_figures_are_in_the_topology() {
    let worker = does(|event: &Noted, cx| {
        match event.number {
            1 => cx.report_health(Health::Degraded("the disk is slow".to_owned())),
            2 => cx.report_health(Health::Bad("the disk is gone".to_owned())),
            _ => cx.report_health(Health::Good),
        }
        cx.report_figure("depth_km", event.number as f64);
        cx.report_figure("constant", 0.5);
        async { Ok(()) }.boxed()
    });
    let node = started(App::new("test").manager(Manager::new("m").worker(worker).handles::<Noted>())).await;
    let expect = [
        (1, Health::Degraded("the disk is slow".to_owned())),
        (2, Health::Bad("the disk is gone".to_owned())),
        (3, Health::Good),
    ];
    for (number, health) in expect {
        node.bus().publish(noted(number)).await.expect("published");
        at_rest(node.bus()).await;
        let worker = view(&node, "m").workers[0].clone();
        assert_eq!(worker.health, health);
        assert_eq!(worker.figures, [("constant".to_owned(), 0.5), ("depth_km".to_owned(), number as f64)].into());
    }
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_states_of_a_worker_that_is_lost_are_told_as_they_change() {
    let seen = Seen::default();
    let manager = Manager::new("m").worker(stumbles(&seen)).restart(quickly()).handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    let mut changes = node.bus().subscribe::<WorkerChanged>().key("m").await.expect("subscribed");
    node.bus().publish(noted(STONE)).await.expect("published");
    let mut states = Vec::new();
    for _ in 0..2 {
        let change = within("a change", changes.next()).await.expect("the node runs");
        assert_eq!((change.node.as_str(), change.manager.as_str(), change.instance), ("test", "m", 0));
        states.push((change.state, change.reason.is_some()));
    }
    assert_eq!(states, [(WorkerState::Restarting, true), (WorkerState::Running, false)]);
    drop(changes);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_is_slow_or_broken_stops_no_other() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let broken = does(|_: &Noted, _| async { panic!("always") }.boxed());
    let failing = does(|_: &Noted, _| async { Err(Failure::message("always")) }.boxed());
    let app = App::new("test")
        .manager(Manager::new("broken").worker(broken).restart(quickly()).handles::<Noted>())
        .manager(Manager::new("failing").worker(failing).handles::<Noted>())
        .manager(Manager::new("slow").worker(crate::support::keeps_behind(&gate, &Seen::default())).handles::<Noted>())
        .manager(Manager::new("sound").worker(keeps(&seen)).handles::<Noted>());
    let node = started(app).await;
    for number in 0..50 {
        assert_eq!(node.bus().publish(noted(number)).await.expect("published").deliveries, 4);
    }
    assert_eq!(seen.wait_for(50).await, (0..50).collect::<Vec<_>>());
    gate.open();
    let account = ends_well(&node).await.account;
    assert_eq!((account.deliveries, account.handled, account.dead_lettered), (200, 100, 100));
}
