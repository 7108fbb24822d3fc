//! A full inbox makes its publisher wait; a wait ends in room, or in an error that says for whom; nothing is lost
//! silently.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{GroupName, PublishError, Reason, RequestError, TryPublishError, WaitEnded, event};
use futures_util::FutureExt;
use tokio::task::JoinHandle;

use crate::support::{
    Asked, Followed, Gate, Noted, Seen, asked, at_rest, dead_numbers, does, ends_well, keeps, keeps_behind, letters,
    noted, publishers_wait, started, until, view, within,
};

/// A node with a manager `slow` whose worker stops at a gate, and one `fast` that does not. Both want the same events.
struct SlowAndFast {
    node: Node,
    gate: Gate,
    slow: Seen<u64>,
    fast: Seen<u64>,
}

impl SlowAndFast {
    /// `slow` has one event in hand, number 0, and one in its inbox, number 1: the whole of its inbox.
    async fn with_slow_full(wait: Duration) -> Self {
        let (gate, slow, fast) = (Gate::closed(), Seen::default(), Seen::default());
        let app = App::new("test")
            .limits(publishers_wait(wait))
            .manager(Manager::new("slow").worker(keeps_behind(&gate, &slow)).inbox(1).handles::<Noted>())
            .manager(Manager::new("fast").worker(keeps(&fast)).handles::<Noted>());
        let node = started(app).await;
        node.bus().publish(noted(0)).await.expect("there is room");
        gate.arrived(1).await;
        node.bus().publish(noted(1)).await.expect("there is room");
        fast.wait_for(2).await;
        Self { node, gate, slow, fast }
    }

    fn publish(&self, number: u64) -> JoinHandle<Result<edri::Receipt, PublishError>> {
        let bus = self.node.bus().clone();
        tokio::spawn(async move { bus.publish(noted(number)).await })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_faster_than_its_worker_is_held_up_and_every_delivery_is_accounted_for() {
    const EVENTS: u64 = 300;
    const PLACES: usize = 16;
    for placement in [Placement::Task, Placement::Thread] {
        let handled = Arc::new(AtomicU64::new(0));
        let worker = {
            let handled = Arc::clone(&handled);
            does(move |_: &Noted, _| {
                let handled = Arc::clone(&handled);
                async move {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                    handled.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }
                .boxed()
            })
        };
        let manager = Manager::new("slow").placement(placement).worker(worker).inbox(PLACES).handles::<Noted>();
        let node = started(App::new("test").manager(manager)).await;
        let watched = node.clone();
        let done = Arc::new(AtomicBool::new(false));
        let still = Arc::clone(&done);
        let deepest = tokio::spawn(async move {
            let mut deepest = 0;
            while !still.load(Ordering::SeqCst) {
                deepest = deepest.max(view(&watched, "slow").depths[0]);
                tokio::task::yield_now().await;
            }
            deepest
        });
        for number in 0..EVENTS {
            within("room", node.bus().publish(noted(number))).await.expect("published");
            // What is neither in the inbox nor in the worker's hand has been handled.
            let published = number as usize + 1;
            assert!(published <= handled.load(Ordering::SeqCst) as usize + PLACES + 1, "published {published}");
        }
        done.store(true, Ordering::SeqCst);
        assert!(deepest.await.expect("no panic") <= PLACES);
        let account = at_rest(node.bus()).await;
        assert_eq!((account.deliveries, account.handled), (EVENTS, EVENTS));
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_fills_those_who_have_room_while_it_waits_for_the_others() {
    let nodes = SlowAndFast::with_slow_full(Duration::from_secs(30)).await;
    let publishing = nodes.publish(2);
    assert_eq!(nodes.fast.wait_for(3).await, [0, 1, 2]);
    assert!(!publishing.is_finished(), "the slow one has no room yet");
    nodes.gate.open();
    let receipt = within("the publisher", publishing).await.expect("no panic").expect("published");
    assert_eq!(receipt.deliveries, 2);
    nodes.slow.wait_for(3).await;
    assert_eq!(ends_well(&nodes.node).await.account.handled, 6);
    assert_eq!(nodes.slow.list(), [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_that_is_dropped_is_dead_lettered_for_those_who_had_no_room_and_delivered_to_the_others() {
    let nodes = SlowAndFast::with_slow_full(Duration::from_secs(30)).await;
    let publishing = nodes.publish(2);
    assert_eq!(nodes.fast.wait_for(3).await, [0, 1, 2]);
    publishing.abort();
    assert!(publishing.await.expect_err("dropped").is_cancelled());
    assert_eq!(letters(nodes.node.bus()), [(Reason::Abandoned, "manager `slow`".to_owned(), 0)]);
    assert_eq!(dead_numbers(nodes.node.bus()), [2]);
    nodes.gate.open();
    let account = ends_well(&nodes.node).await.account;
    assert_eq!((account.deliveries, account.handled, account.dead_lettered), (6, 5, 1));
    assert_eq!(nodes.slow.list(), [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_waits_no_longer_than_it_may_and_learns_for_whom() {
    let nodes = SlowAndFast::with_slow_full(Duration::from_millis(50)).await;
    match nodes.publish(2).await.expect("no panic") {
        Err(PublishError::Overloaded { event, wait, receipt }) => {
            assert_eq!(event, "test.noted");
            assert_eq!(wait.groups.iter().map(GroupName::to_string).collect::<Vec<_>>(), ["manager `slow`"]);
            assert!(wait.waited >= Duration::from_millis(50) && wait.waited < Duration::from_secs(5), "{wait}");
            assert!(wait.cycle.is_empty());
            assert_eq!(receipt.deliveries, 1, "the fast one has it");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(letters(nodes.node.bus()), [(Reason::Overloaded, "manager `slow`".to_owned(), 0)]);
    nodes.gate.open();
    let account = ends_well(&nodes.node).await.account;
    assert_eq!((account.deliveries, account.handled, account.dead_lettered), (6, 5, 1));
    assert_eq!(nodes.fast.list(), [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_larger_than_the_inbox_waits_and_what_has_no_room_in_time_is_dead_lettered() {
    let nodes = SlowAndFast::with_slow_full(Duration::from_millis(50)).await;
    match nodes.node.bus().publish_batch((2..10).map(noted)).await {
        Err(PublishError::Overloaded { receipt, .. }) => assert_eq!(receipt.deliveries, 8, "the fast one has all"),
        other => panic!("{other:?}"),
    }
    assert_eq!(dead_numbers(nodes.node.bus()), (2..10).collect::<Vec<_>>());
    nodes.gate.open();
    let account = at_rest(nodes.node.bus()).await;
    assert_eq!((account.deliveries, account.handled, account.dead_lettered), (20, 12, 8));
    assert_eq!(nodes.slow.list(), [0, 1]);
    ends_well(&nodes.node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_larger_than_the_inbox_is_delivered_in_its_order_as_room_comes() {
    let nodes = SlowAndFast::with_slow_full(Duration::from_secs(30)).await;
    nodes.gate.open();
    let receipt = within("room", nodes.node.bus().publish_batch((2..100).map(noted))).await.expect("published");
    assert_eq!(receipt.deliveries, 196);
    assert_eq!(ends_well(&nodes.node).await.account.handled, 200);
    assert_eq!(nodes.slow.list(), (0..100).collect::<Vec<_>>());
    assert_eq!(nodes.fast.list(), (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_inside_a_handler_waits_no_longer_than_the_deadline_of_the_event_in_hand() {
    let gate = Gate::closed();
    let waits: Seen<(Duration, Duration)> = Seen::default();
    let errors = waits.clone();
    let helper = does(move |_: &Asked, cx| {
        let errors = errors.clone();
        async move {
            let remaining = cx.remaining().expect("a request has a deadline");
            match cx.publish(noted(9)).await {
                Err(PublishError::Overloaded { wait, .. }) => errors.add((remaining, wait.waited)),
                other => panic!("{other:?}"),
            }
            Ok(0)
        }
        .boxed()
    });
    let app = App::new("test")
        .manager(Manager::new("full").worker(keeps_behind(&gate, &Seen::default())).inbox(1).handles::<Noted>())
        .manager(Manager::new("helper").worker(helper).handles::<Asked>());
    let node = started(app).await;
    node.bus().publish(noted(0)).await.expect("there is room");
    gate.arrived(1).await;
    node.bus().publish(noted(1)).await.expect("there is room");
    let options = Options::new().time_limit(Duration::from_millis(300));
    // Its own deadline comes at the same moment.
    if let Err(error) = node.bus().request_with(asked(1), &options).await {
        assert_eq!(error.code(), "timed_out");
    }
    let (remaining, waited) = waits.wait_for(1).await[0];
    assert!(remaining <= Duration::from_millis(300));
    assert!(waited < Duration::from_secs(5), "waited {waited:?}, far beyond the deadline");
    gate.open();
    ends_well(&node).await;
}

fn names(wait: &WaitEnded) -> BTreeSet<String> {
    wait.cycle.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_managers_that_fill_each_others_inboxes_end_in_errors_that_name_the_cycle() {
    let errors: Seen<WaitEnded> = Seen::default();
    /// Publishes until one of the publishers was refused.
    async fn publish_until_refused<E: edri::Notification>(
        errors: &Seen<WaitEnded>,
        cx: &mut Context,
        event: impl Fn() -> E,
    ) -> Result<(), Failure> {
        for _ in 0..3 {
            if errors.len() > 0 {
                break;
            }
            if let Err(PublishError::Overloaded { wait, .. }) = cx.publish(event()).await {
                errors.add(*wait);
            }
        }
        Ok(())
    }
    let (by_ping, by_pong) = (errors.clone(), errors.clone());
    let ping = does(move |_: &Noted, cx| {
        let errors = by_ping.clone();
        async move { publish_until_refused(&errors, cx, || Followed { number: 0 }).await }.boxed()
    });
    let pong = does(move |_: &Followed, cx| {
        let errors = by_pong.clone();
        async move { publish_until_refused(&errors, cx, || noted(0)).await }.boxed()
    });
    let app = App::new("test")
        .limits(publishers_wait(Duration::from_millis(300)))
        .manager(Manager::new("ping").worker(ping).inbox(1).handles::<Noted>())
        .manager(Manager::new("pong").worker(pong).inbox(1).handles::<Followed>());
    let node = started(app).await;
    node.bus().publish(noted(0)).await.expect("there is room");
    let waits = errors.wait_for(1).await;
    let expect = BTreeSet::from(["ping".to_owned(), "pong".to_owned()]);
    assert!(waits.iter().any(|wait| names(wait) == expect), "{waits:?}");
    let text = waits.iter().find(|wait| !wait.cycle.is_empty()).map(ToString::to_string).unwrap_or_default();
    assert!(text.contains("→ pong →") || text.contains("→ ping →"), "{text}");
    let account = at_rest(node.bus()).await;
    assert!(account.dead_lettered > 0);
    assert!(letters(node.bus()).iter().all(|(reason, ..)| *reason == Reason::Overloaded));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_fills_its_own_inbox_learns_that_it_waits_for_itself() {
    let errors: Seen<WaitEnded> = Seen::default();
    let by_worker = errors.clone();
    let worker = does(move |event: &Noted, cx| {
        let (errors, first) = (by_worker.clone(), event.number == 0);
        async move {
            for number in 1..=3 {
                if first && let Err(PublishError::Overloaded { wait, .. }) = cx.publish(noted(number)).await {
                    errors.add(*wait);
                }
            }
            Ok(())
        }
        .boxed()
    });
    let app = App::new("test")
        .limits(publishers_wait(Duration::from_millis(30)))
        .manager(Manager::new("narcissus").worker(worker).inbox(2).handles::<Noted>());
    let node = started(app).await;
    node.bus().publish(noted(0)).await.expect("there is room");
    let waits = errors.wait_for(1).await;
    assert_eq!(names(&waits[0]), BTreeSet::from(["narcissus".to_owned()]));
    let account = ends_well(&node).await.account;
    assert_eq!((account.handled, account.dead_lettered), (3, 1));
}

#[event(request, name = "waiting.there", response = u64)]
struct There {}

#[event(request, name = "waiting.back", response = u64)]
struct Back {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_single_workers_that_request_each_other_time_out_and_one_is_told_of_the_cycle() {
    struct Caller(Seen<(String, WaitEnded)>);
    impl Caller {
        fn note<T>(&self, answer: Result<T, RequestError>) -> Result<u64, Failure> {
            match answer {
                Err(RequestError::TimedOut(wait)) => {
                    self.0.add(("timed_out".to_owned(), *wait));
                    Err(Failure::message("no answer"))
                }
                Err(other) => {
                    self.0.add((other.code().to_owned(), WaitEnded::default()));
                    Err(Failure::message("no answer"))
                }
                Ok(_) => panic!("nobody can answer"),
            }
        }
    }
    impl Worker for Caller {}
    impl Handle<There> for Caller {
        async fn handle(&mut self, _: &There, cx: &mut Context) -> Result<u64, Failure> {
            self.note(cx.request(Back {}).await)
        }
    }
    impl Handle<Back> for Caller {
        async fn handle(&mut self, _: &Back, cx: &mut Context) -> Result<u64, Failure> {
            self.note(cx.request(There {}).await)
        }
    }
    let errors = Seen::default();
    let make = || {
        let errors = errors.clone();
        move || Caller(errors.clone())
    };
    let app = App::new("test")
        .manager(Manager::new("this").worker(make()).handles::<There>())
        .manager(Manager::new("that").worker(make()).handles::<Back>());
    let node = started(app).await;
    let began = Instant::now();
    let options = Options::new().time_limit(Duration::from_millis(300));
    let error = node.bus().request_with(There {}, &options).await.expect_err("nobody can answer");
    // All deadlines are one, so the first worker may be told a moment before who asked it.
    assert!(matches!(error.code(), "timed_out" | "failed"), "{error}");
    let seen = errors.wait_for(2).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(seen.iter().all(|(code, _)| code == "timed_out"), "{seen:?}");
    let expect = BTreeSet::from(["this".to_owned(), "that".to_owned()]);
    assert!(seen.iter().any(|(_, wait)| names(wait) == expect), "{seen:?}");
    let account = ends_well(&node).await.account;
    assert_eq!((account.deliveries, account.cancelled), (3, 1), "the third request never ran");
}

/// Publishes 0 to 5 to a group with one event in hand and an inbox of 2, and returns what was handled and what is dead.
async fn overflow(policy: Overflow) -> (Vec<u64>, Vec<u64>, Vec<Reason>) {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("lossy").worker(keeps_behind(&gate, &seen)).inbox(2).overflow(policy);
    let node = started(App::new("test").manager(manager.handles::<Noted>())).await;
    node.bus().publish(noted(0)).await.expect("there is room");
    gate.arrived(1).await;
    for number in 1..=5 {
        within("a publisher that never waits", node.bus().publish(noted(number))).await.expect("published");
    }
    gate.open();
    let account = at_rest(node.bus()).await;
    assert_eq!((account.deliveries, account.handled, account.dead_lettered), (6, 3, 3));
    let reasons = letters(node.bus()).into_iter().map(|(reason, ..)| reason).collect();
    let dead = dead_numbers(node.bus());
    ends_well(&node).await;
    (seen.list(), dead, reasons)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_drops_the_newest_dead_letters_what_it_has_no_room_for() {
    let (handled, dead, reasons) = overflow(Overflow::DropNewest).await;
    assert_eq!((handled, dead), (vec![0, 1, 2], vec![3, 4, 5]));
    assert_eq!(reasons, [Reason::DroppedNewest; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_drops_the_oldest_dead_letters_what_makes_room_for_the_newer() {
    let (handled, dead, reasons) = overflow(Overflow::DropOldest).await;
    assert_eq!((handled, dead), (vec![0, 4, 5], vec![1, 2, 3]));
    assert_eq!(reasons, [Reason::DroppedOldest; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn try_publish_takes_a_place_in_every_inbox_or_gives_the_event_back_untouched() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let app = App::new("test")
        .manager(Manager::new("first").worker(keeps(&seen)).handles::<Noted>())
        .manager(Manager::new("second").worker(keeps(&seen)).handles::<Noted>())
        .manager(Manager::new("third").worker(keeps_behind(&gate, &seen)).inbox(1).handles::<Noted>());
    let node = started(app).await;
    for number in 0..2 {
        assert_eq!(node.bus().try_publish(noted(number)).expect("all have room").deliveries, 3);
        gate.arrived(1).await;
    }
    seen.wait_for(4).await;
    let event = noted(2);
    let text = event.key.as_ptr();
    match node.bus().try_publish(event) {
        Err(TryPublishError::Full { event, group }) => {
            assert_eq!(group.to_string(), "manager `third`");
            assert_eq!(event, noted(2));
            assert_eq!(event.key.as_ptr(), text, "the very same event");
        }
        other => panic!("{other:?}"),
    }
    let account = node.bus().account();
    assert_eq!((account.deliveries, account.queued, account.in_hand), (6, 1, 1));
    gate.open();
    at_rest(node.bus()).await;
    assert_eq!(node.bus().try_publish(noted(2)).expect("all have room again").deliveries, 3);
    let account = ends_well(&node).await.account;
    assert_eq!((account.deliveries, account.handled, account.dead_lettered), (9, 9, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn try_publish_does_not_overtake_a_publisher_that_waits() {
    let nodes = SlowAndFast::with_slow_full(Duration::from_secs(30)).await;
    let publishing = nodes.publish(2);
    nodes.fast.wait_for(3).await;
    assert!(nodes.node.bus().try_publish(noted(3)).is_err());
    nodes.gate.open();
    within("the publisher", publishing).await.expect("no panic").expect("published");
    assert_eq!(ends_well(&nodes.node).await.account.handled, 6);
    assert_eq!(nodes.fast.list(), [0, 1, 2], "what was refused went nowhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_events_do_not_wait_for_a_reader_that_does_not_read_and_tell_how_many_it_missed() {
    let seen = Seen::default();
    let node = started(App::new("test").manager(Manager::new("keeper").worker(keeps(&seen)).handles::<Noted>())).await;
    let mut reader = node.bus().untyped().subscribe("edri.>").capacity(1).await.expect("subscribed");
    for _ in 0..20 {
        let manager = Manager::new("passing").worker(keeps(&Seen::default())).handles::<Noted>();
        within("a manager to be added", node.add(manager)).await.expect("added");
        within("a manager to be drained", node.drain("passing")).await.expect("drained");
    }
    // Starting and running, draining and stopped; and as much of its worker.
    assert!(reader.missed() >= 20 * 4 - 1, "missed {}", reader.missed());
    within("an event that nobody holds up", node.bus().publish(noted(1))).await.expect("published");
    assert_eq!(seen.wait_for(1).await, [1]);
    assert!(reader.next().await.is_some(), "what it had room for is there");
    let missed = node.topology().subscriptions[0].missed;
    assert_eq!(missed, reader.missed());
    drop(reader);
    ends_well(&node).await;
}

#[tokio::test]
async fn publishers_that_wait_are_served_in_the_order_they_came() {
    // In a runtime of one thread a publisher stands in line before the others see its event.
    let nodes = SlowAndFast::with_slow_full(Duration::from_secs(30)).await;
    let mut publishers = Vec::new();
    for number in 2..50 {
        publishers.push(nodes.publish(number));
        nodes.fast.wait_for(number as usize + 1).await;
    }
    nodes.gate.open();
    for publisher in publishers {
        within("a publisher", publisher).await.expect("no panic").expect("published");
    }
    nodes.slow.wait_for(50).await;
    assert_eq!(nodes.slow.list(), (0..50).collect::<Vec<_>>());
    ends_well(&nodes.node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_publishers_that_wait_at_one_inbox_all_get_their_turn() {
    let nodes = SlowAndFast::with_slow_full(Duration::from_secs(30)).await;
    let publishers: Vec<_> = (2..1002).map(|number| nodes.publish(number)).collect();
    nodes.fast.wait_for(1002).await;
    nodes.gate.open();
    for publisher in publishers {
        assert_eq!(within("a publisher", publisher).await.expect("no panic").expect("published").deliveries, 2);
    }
    until("everything to be handled", || nodes.slow.len() == 1002).await;
    assert_eq!(ends_well(&nodes.node).await.account.handled, 2004);
}
