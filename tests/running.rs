//! Managers come, are replaced and go while the node runs under load: nothing is lost, nothing is handled twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edri::prelude::*;
use edri::{ManagerError, ManagerState, Reason, RequestError};
use futures_util::FutureExt;
use tokio::task::JoinHandle;

use crate::support::{
    Asked, Followed, Gate, Noted, Seen, asked, at_rest, dead_numbers, does, ends_well, keeps, keeps_behind, keyed,
    letters, noted, started, until, view, within,
};

/// Publishes events of some keys, numbered within each, and requests beside them, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    publishing: Vec<JoinHandle<u64>>,
    requesting: JoinHandle<u64>,
}

impl Load {
    fn on(node: &Node) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let publishing = (0..4)
            .map(|key| {
                let (bus, stop) = (node.bus().clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut number = 0;
                    while !stop.load(Ordering::SeqCst) {
                        within("room", bus.publish(keyed(&format!("key-{key}"), number))).await.expect("published");
                        number += 1;
                    }
                    number
                })
            })
            .collect();
        let (bus, asking) = (node.bus().clone(), Arc::clone(&stop));
        let requesting = tokio::spawn(async move {
            let mut number = 0;
            while !asking.load(Ordering::SeqCst) {
                match within("an answer", bus.request(asked(number))).await {
                    Ok(answer) => assert_eq!(answer, number),
                    Err(error) => panic!("request {number}: {error}"),
                }
                number += 1;
            }
            number
        });
        Self { stop, publishing, requesting }
    }

    /// How many events of each key were published, and how many requests answered.
    async fn end(self) -> (Vec<u64>, u64) {
        self.stop.store(true, Ordering::SeqCst);
        let mut published = Vec::new();
        for publishing in self.publishing {
            published.push(within("the publishers to end", publishing).await.expect("no panic"));
        }
        (published, within("the requester to end", self.requesting).await.expect("no panic"))
    }
}

/// Writes down the key and number of each event, with the worker's generation, and answers requests.
#[derive(Clone)]
struct Records {
    generation: u64,
    seen: Seen<(String, u64, u64)>,
}

impl Worker for Records {}

impl Handle<Noted> for Records {
    async fn handle(&mut self, event: &Noted, _: &mut Context) -> Result<(), Failure> {
        if event.number.is_multiple_of(7) {
            tokio::task::yield_now().await;
        }
        self.seen.add((event.key.clone(), event.number, self.generation));
        Ok(())
    }
}

impl Handle<Asked> for Records {
    async fn handle(&mut self, event: &Asked, _: &mut Context) -> Result<u64, Failure> {
        Ok(event.number)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_replaced_under_load_loses_nothing_handles_nothing_twice_and_keeps_each_key_in_order() {
    const REPLACEMENTS: u64 = 20;
    let seen = Seen::default();
    let manager = |generation: u64| {
        let worker = Records { generation, seen: seen.clone() };
        // Threads and tasks take over from one another, with one more or one less partition.
        let placement = if generation.is_multiple_of(2) { Placement::Task } else { Placement::Thread };
        Manager::new("m")
            .placement(placement)
            .workers(2 + generation as usize % 2, move || worker.clone())
            .keyed()
            .inbox(4)
            .handles::<Noted>()
            .handles::<Asked>()
    };
    let node = started(App::new("test").manager(manager(0))).await;
    let load = Load::on(&node);
    for generation in 1..=REPLACEMENTS {
        let before = seen.len();
        until("events to flow", || seen.len() >= before + 20).await;
        let drained = within("a replacement", node.replace(manager(generation))).await.expect("replaced");
        assert_eq!((drained.undelivered, drained.stuck), (0, 0));
    }
    let (published, _) = load.end().await;
    let account = at_rest(node.bus()).await;
    assert_eq!((account.failed, account.dead_lettered, account.cancelled), (0, 0, 0));
    let mut numbers: HashMap<String, Vec<u64>> = HashMap::new();
    let mut generations: HashMap<String, u64> = HashMap::new();
    for (key, number, generation) in seen.list() {
        let last = generations.entry(key.clone()).or_default();
        assert!(*last <= generation, "an old worker handled {key} {number} after a new one had begun");
        *last = generation;
        numbers.entry(key).or_default().push(number);
    }
    for (key, count) in published.into_iter().enumerate() {
        assert_eq!(numbers[&format!("key-{key}")], (0..count).collect::<Vec<_>>(), "of key {key}");
    }
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_added_and_drained_under_load_gets_every_event_of_its_time() {
    let (seen, passing) = (Seen::default(), Seen::default());
    let worker = Records { generation: 0, seen: seen.clone() };
    let stays = Manager::new("stays").worker(move || worker.clone()).inbox(16).handles::<Noted>().handles::<Asked>();
    let node = started(App::new("test").manager(stays)).await;
    let load = Load::on(&node);
    for generation in 0..10 {
        let worker = Records { generation, seen: passing.clone() };
        let manager = Manager::new("passing").worker(move || worker.clone()).inbox(4).handles::<Noted>();
        within("a manager to be added", node.add(manager)).await.expect("added");
        let before = passing.len();
        until("events to flow", || passing.len() >= before + 20).await;
        let drained = within("it to be drained", node.drain("passing")).await.expect("drained");
        assert_eq!((drained.undelivered, drained.stuck), (0, 0));
        assert_eq!(node.managers(), ["stays"]);
    }
    let (published, _) = load.end().await;
    let account = at_rest(node.bus()).await;
    assert_eq!((account.failed, account.dead_lettered, account.cancelled), (0, 0, 0));
    assert_eq!(seen.len() as u64, published.iter().sum::<u64>());
    // Between its coming and its going a manager missed none.
    let mut spans: HashMap<(String, u64), Vec<u64>> = HashMap::new();
    for (key, number, generation) in passing.list() {
        spans.entry((key, generation)).or_default().push(number);
    }
    for ((key, generation), numbers) in spans {
        let expect: Vec<_> = (numbers[0]..numbers[0] + numbers.len() as u64).collect();
        assert_eq!(numbers, expect, "of {key} in generation {generation}");
    }
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_that_does_not_start_leaves_the_old_manager_working() {
    struct Dud;
    impl Worker for Dud {
        async fn started(&mut self, _: &mut Context) -> Result<(), Failure> {
            Err(Failure::message("a dud"))
        }
    }
    impl Handle<Noted> for Dud {
        async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
            Ok(())
        }
    }
    let seen = Seen::default();
    let node = started(App::new("test").manager(Manager::new("m").worker(keeps(&seen)).handles::<Noted>())).await;
    let dud = || Manager::new("m").restart(Restart::never()).worker(|| Dud).handles::<Noted>();
    let error = within("a failed replacement", node.replace(dud())).await.expect_err("it does not start");
    assert!(matches!(&error, ManagerError::Failed { reason, .. } if reason.contains("a dud")), "{error}");
    let error = within(
        "a failed addition",
        node.add(Manager::new("n").restart(Restart::never()).worker(|| Dud).handles::<Noted>()),
    )
    .await;
    assert!(matches!(error, Err(ManagerError::Failed { .. })), "{error:?}");
    assert_eq!(node.managers(), ["m"]);
    assert_eq!(node.topology().managers.len(), 1);
    assert_eq!(node.bus().publish(noted(1)).await.expect("published").deliveries, 1);
    assert_eq!(seen.wait_for(1).await, [1]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_on_the_node_cannot_be_replaced_or_drained() {
    let node =
        started(App::new("test").manager(Manager::new("m").worker(keeps(&Seen::default())).handles::<Noted>())).await;
    let other = Manager::new("other").worker(keeps(&Seen::default())).handles::<Noted>();
    assert!(matches!(node.replace(other).await, Err(ManagerError::Unknown(name)) if name == "other"));
    assert!(matches!(node.drain("other").await, Err(ManagerError::Unknown(name)) if name == "other"));
    ends_well(&node).await;
    let late = Manager::new("late").worker(keeps(&Seen::default())).handles::<Noted>();
    assert!(matches!(node.add(late).await, Err(ManagerError::Stopped(_))), "a stopped node takes nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_the_manager_has_before_it_ends() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("m").worker(keeps_behind(&gate, &seen)).handles::<Noted>().handles::<Asked>();
    let node = started(App::new("test").manager(manager)).await;
    node.bus().publish_batch((0..5).map(noted)).await.expect("published");
    gate.arrived(1).await;
    let draining = {
        let node = node.clone();
        tokio::spawn(async move { node.drain("m").await })
    };
    until("the manager to drain", || view(&node, "m").state == ManagerState::Draining).await;
    assert_eq!(node.bus().publish(noted(5)).await.expect("published").deliveries, 0);
    assert_eq!(node.bus().request(asked(6)).await.expect_err("it answers no more").code(), "no_handler");
    gate.open();
    let drained = within("the drain", draining).await.expect("no panic").expect("drained");
    assert_eq!((drained.undelivered, drained.stuck), (0, 0));
    assert_eq!(seen.list(), [0, 1, 2, 3, 4]);
    assert!(node.managers().is_empty());
    assert_eq!(ends_well(&node).await.account.handled, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_reaches_its_limit_says_how_many_events_are_left_and_dead_letters_them() {
    for placement in [Placement::Task, Placement::Thread] {
        let (gate, seen) = (Gate::closed(), Seen::default());
        let manager = Manager::new("m")
            .placement(placement)
            .worker(keeps_behind(&gate, &seen))
            .handles::<Noted>()
            .handles::<Asked>();
        let app = App::new("test").drain_limit(Duration::from_millis(50)).manager(manager);
        let node = started(app).await;
        node.bus().publish_batch((0..4).map(noted)).await.expect("published");
        gate.arrived(1).await;
        let bus = node.bus().clone();
        let asking = tokio::spawn(async move { bus.request(asked(9)).await });
        until("the request to be queued", || view(&node, "m").depths == [4]).await;
        let drained = within("the drain", node.drain("m")).await.expect("drained");
        assert_eq!((drained.undelivered, drained.stuck), (4, 0));
        let answer = within("an end", asking).await.expect("no panic");
        assert!(matches!(answer, Err(RequestError::WorkerLost(_))), "{answer:?}");
        let mut dead = dead_numbers(node.bus());
        dead.sort_unstable();
        assert_eq!(dead, [0, 1, 2, 3], "the one in hand too");
        assert!(letters(node.bus()).iter().all(|(reason, ..)| *reason == Reason::Stopped));
        let account = at_rest(node.bus()).await;
        assert_eq!((account.dead_lettered, account.failed), (4, 1));
        assert_eq!(seen.len(), 0);
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_waits_for_a_manager_being_replaced_gets_its_event_to_the_right_handler_of_the_new_one() {
    let (gate, seen, followed, watched) = (Gate::closed(), Seen::default(), Seen::default(), Seen::default());
    let old = Manager::new("m").worker(keeps_behind(&gate, &seen)).inbox(1).handles::<Noted>();
    // Comes after the other, so what it sees the other has been offered.
    let watch = Manager::new("watch").worker(keeps(&watched)).handles::<Noted>();
    let node = started(App::new("test").manager(old).manager(watch)).await;
    node.bus().publish(noted(0)).await.expect("published");
    gate.arrived(1).await;
    node.bus().publish(noted(1)).await.expect("published");
    let bus = node.bus().clone();
    let waiting = tokio::spawn(async move { bus.publish(noted(2)).await });
    watched.wait_for(3).await;
    /// Handles the same events as the old one, and others before them.
    #[derive(Clone)]
    struct Wider(Seen<u64>, Seen<u64>);
    impl Worker for Wider {}
    impl Handle<Followed> for Wider {
        async fn handle(&mut self, event: &Followed, _: &mut Context) -> Result<(), Failure> {
            self.1.add(event.number);
            Ok(())
        }
    }
    impl Handle<Noted> for Wider {
        async fn handle(&mut self, event: &Noted, _: &mut Context) -> Result<(), Failure> {
            self.0.add(100 + event.number);
            Ok(())
        }
    }
    let wider = Wider(seen.clone(), followed.clone());
    let replacing = {
        let node = node.clone();
        let new = Manager::new("m").worker(move || wider.clone()).handles::<Followed>().handles::<Noted>();
        tokio::spawn(async move { node.replace(new).await })
    };
    assert_eq!(within("the publisher", waiting).await.expect("no panic").expect("published").deliveries, 2);
    gate.open();
    within("the replacement", replacing).await.expect("no panic").expect("replaced");
    node.bus().publish(Followed { number: 3 }).await.expect("published");
    let account = at_rest(node.bus()).await;
    assert_eq!((account.handled, letters(node.bus())), (7, vec![]));
    assert_eq!((seen.list(), followed.list()), (vec![0, 1, 102], vec![3]));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_waits_for_a_manager_whose_replacement_does_not_want_the_event_goes_on() {
    let (gate, seen, watched) = (Gate::closed(), Seen::default(), Seen::default());
    let old = Manager::new("m").worker(keeps_behind(&gate, &seen)).inbox(1).handles::<Noted>().handles::<Followed>();
    let watch = Manager::new("watch").worker(keeps(&watched)).handles::<Followed>();
    let node = started(App::new("test").manager(old).manager(watch)).await;
    node.bus().publish(Followed { number: 0 }).await.expect("published");
    gate.arrived(1).await;
    node.bus().publish(Followed { number: 1 }).await.expect("published");
    let bus = node.bus().clone();
    let waiting = tokio::spawn(async move { bus.publish(Followed { number: 2 }).await });
    watched.wait_for(3).await;
    let replacing = {
        let node = node.clone();
        let new = Manager::new("m").worker(keeps(&seen)).handles::<Noted>();
        tokio::spawn(async move { node.replace(new).await })
    };
    let receipt = within("the publisher", waiting).await.expect("no panic").expect("published");
    assert_eq!(receipt.deliveries, 1, "as if it had been published a moment later");
    gate.open();
    within("the replacement", replacing).await.expect("no panic").expect("replaced");
    node.bus().publish(noted(3)).await.expect("published");
    let account = at_rest(node.bus()).await;
    assert_eq!((account.deliveries, account.handled), (6, 6));
    assert_eq!(seen.list(), [0, 1, 3]);
    assert_eq!(view(&node, "m").workers[0].restarts, 0);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_not_at_rest_while_a_manager_that_is_about_to_replace_another_has_events() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let node =
        started(App::new("test").manager(Manager::new("m").worker(keeps_behind(&gate, &seen)).handles::<Noted>()))
            .await;
    node.bus().publish(noted(1)).await.expect("published");
    gate.arrived(1).await;
    let replacing = {
        let (node, new) = (node.clone(), Manager::new("m").worker(keeps(&seen)).handles::<Noted>());
        tokio::spawn(async move { node.replace(new).await })
    };
    until("the old one to drain", || node.topology().managers.iter().any(|m| m.state == ManagerState::Draining)).await;
    node.bus().publish(noted(2)).await.expect("published");
    let resting = {
        let node = node.clone();
        tokio::spawn(async move { node.at_rest().await })
    };
    gate.open();
    let account = within("rest", resting).await.expect("no panic");
    assert_eq!((account.handled, seen.list()), (2, vec![1, 2]));
    replacing.await.expect("no panic").expect("replaced");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_nobody_waits_for_any_more_goes_on_to_its_end() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let keeper = || Manager::new("m").worker(keeps(&seen)).handles::<Noted>();
    let node = started(App::new("test")).await;
    drop(node.add(keeper()).now_or_never());
    until("the manager to be there", || !node.managers().is_empty()).await;
    node.bus().publish(noted(1)).await.expect("published");
    assert_eq!(seen.wait_for(1).await, [1]);

    let slow = Manager::new("m").worker(keeps_behind(&gate, &seen)).handles::<Noted>();
    drop(node.replace(slow).now_or_never());
    let slow_is_there = || matches!(&node.topology().managers[..], [slow] if slow.account.deliveries == 0);
    until("the slow one to be there alone", slow_is_there).await;
    node.bus().publish(noted(2)).await.expect("published");
    gate.arrived(1).await;
    let replacing = {
        let (node, keeper) = (node.clone(), keeper());
        tokio::spawn(async move { node.replace(keeper).await })
    };
    until("the slow one to drain", || node.topology().managers.iter().any(|m| m.state == ManagerState::Draining)).await;
    replacing.abort();
    node.bus().publish(noted(3)).await.expect("published");
    gate.open();
    assert_eq!(seen.wait_for(3).await, [1, 2, 3]);
    until("the slow one to be gone", || node.topology().managers.len() == 1).await;

    drop(node.drain("m").now_or_never());
    until("the manager to be gone", || node.managers().is_empty() && node.topology().managers.is_empty()).await;
    assert_eq!(node.bus().publish(noted(4)).await.expect("published").deliveries, 0);
    let account = ends_well(&node).await.account;
    assert_eq!((account.deliveries, account.handled), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_added_to_a_running_node_hears_what_its_workers_publish_when_they_start() {
    struct Born(Seen<u64>);
    impl Worker for Born {
        async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
            cx.publish(noted(1)).await?;
            Ok(())
        }
    }
    impl Handle<Noted> for Born {
        async fn handle(&mut self, event: &Noted, _: &mut Context) -> Result<(), Failure> {
            self.0.add(event.number);
            Ok(())
        }
    }
    let seen = Seen::default();
    let born = seen.clone();
    let other = does(|_: &Followed, _| async { Ok(()) }.boxed());
    let node = started(App::new("test").manager(Manager::new("other").worker(other).handles::<Followed>())).await;
    for number in 1..=100 {
        let born = born.clone();
        node.add(Manager::new("born").worker(move || Born(born.clone())).handles::<Noted>()).await.expect("added");
        node.drain("born").await.expect("drained");
        assert_eq!(seen.len(), number);
    }
    ends_well(&node).await;
}
