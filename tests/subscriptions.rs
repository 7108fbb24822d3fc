//! Subscriptions of the program around the node: which events they get, and what becomes of those that are not read.

use std::time::Duration;

use edri::prelude::*;
use edri::system::{DeadLettered, ManagerChanged, NodeChanged};
use edri::{Conditions, DeclareError, Encoding, ManagerState, Reason, ResendError};
use futures_util::{FutureExt, StreamExt};

use crate::support::{
    Asked, Followed, Gate, Noted, Seen, at_rest, does, ends_well, keeps, keyed, letters, noted, publishers_wait,
    started, until, view, within,
};

/// A node with nothing on it.
async fn bare() -> Node {
    started(App::new("test")).await
}

/// What is there already.
fn numbers<E: edri::Notification>(stream: &mut edri::Subscription<E>, number: impl Fn(&E) -> u64) -> Vec<u64> {
    std::iter::from_fn(|| stream.next().now_or_never().flatten()).map(|event| number(&event)).collect()
}

/// The names of what is there already.
fn names(stream: &mut edri::UntypedSubscription) -> Vec<String> {
    std::iter::from_fn(|| stream.next().now_or_never().flatten()).map(|event| event.name().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whether_a_notification_is_wanted_is_known_by_name_and_by_pattern() {
    let node = bare().await;
    let wanted = |name: &str| node.bus().untyped().is_wanted(name);
    assert!(!wanted("test.noted") && !wanted("test.noted.twice"));
    let by_name = node.bus().subscribe::<Noted>().await.expect("subscribed");
    assert!(wanted("test.noted") && !wanted("test.noted.twice"));
    drop(by_name);
    until("it to be gone", || !wanted("test.noted")).await;
    let by_pattern = node.bus().untyped().subscribe("test.>").await.expect("subscribed");
    assert!(wanted("test.noted") && wanted("test.noted.twice"), "declared or not");
    drop(by_pattern);
    let by_key = node.bus().subscribe::<Noted>().filter(|noted| noted.number == 7).await.expect("subscribed");
    assert!(wanted("test.noted"), "by some");
    drop(by_key);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_gets_the_events_of_its_type_from_the_moment_it_is_there() {
    let node = bare().await;
    assert_eq!(node.bus().publish(noted(1)).await.expect("published").deliveries, 0);
    assert_eq!(node.topology().unrouted, 1);
    let mut stream = node.bus().subscribe::<Noted>().await.expect("subscribed");
    assert_eq!(node.bus().publish(noted(2)).await.expect("published").deliveries, 1);
    node.bus().publish(Followed { number: 3 }).await.expect("published");
    node.bus().publish(noted(4)).await.expect("published");
    let event = within("an event", stream.next()).await.expect("the node runs");
    assert_eq!((*event).clone(), noted(2));
    assert_eq!(event.envelope().name(), &"test.noted");
    assert_eq!(numbers(&mut stream, |event| event.number), [4]);
    assert!(stream.next().now_or_never().is_none(), "the stream waits for more");
    drop(stream);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_by_key_gets_the_events_of_that_key() {
    let node = bare().await;
    let bus = node.bus();
    let mut north = bus.subscribe::<Noted>().key("north").await.expect("subscribed");
    let mut south = bus.subscribe::<Noted>().key("south").await.expect("subscribed");
    let mut untyped = bus.untyped().subscribe("test.noted").key("north").await.expect("subscribed");
    for (number, key) in ["north", "south", "east", "north"].into_iter().enumerate() {
        let receipt = bus.publish(keyed(key, number as u64)).await.expect("published");
        assert_eq!(
            receipt.deliveries,
            match key {
                "north" => 2,
                "south" => 1,
                _ => 0,
            }
        );
    }
    let options = Options::new().key("south");
    bus.publish_with(keyed("north", 4), &options).await.expect("published");
    bus.publish_batch([keyed("south", 5), keyed("north", 6)]).await.expect("published");
    bus.untyped().publish("test.noted", serde_json::json!({"number": 7, "key": "north"})).await.expect("published");
    assert_eq!(numbers(&mut north, |event| event.number), [0, 3, 6, 7]);
    assert_eq!(numbers(&mut south, |event| event.number), [1, 4, 5]);
    assert_eq!(names(&mut untyped).len(), 4);
    drop((north, south, untyped));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_by_predicate_gets_what_it_wants_and_its_panic_harms_nobody() {
    let node = bare().await;
    let bus = node.bus();
    let mut large = bus.subscribe::<Noted>().filter(|event| event.number > 2).await.expect("subscribed");
    let mut odd = bus
        .subscribe::<Noted>()
        .filter(|event| {
            assert_ne!(event.number, 2, "the number of the beast");
            event.number % 2 == 1
        })
        .await
        .expect("subscribed");
    let mut from_outside = bus
        .untyped()
        .subscribe("test.>")
        .filter(|event| event.head().origin.manager.is_none() && event.header("skip").is_none())
        .await
        .expect("subscribed");
    for number in 0..5 {
        bus.publish(noted(number)).await.expect("published, whatever a filter does");
    }
    bus.publish_with(noted(5), &Options::new().header("skip", "yes")).await.expect("published");
    assert_eq!(numbers(&mut large, |event| event.number), [3, 4, 5]);
    assert_eq!(numbers(&mut odd, |event| event.number), [1, 3, 5]);
    assert_eq!(names(&mut from_outside).len(), 5);
    drop((large, odd, from_outside));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_by_conditions_gets_what_they_hold_for_whatever_it_came_as() {
    let node = bare().await;
    let bus = node.bus();
    let conditions = |text: &str| text.parse::<Conditions>().expect(text);
    let large = conditions(r#"{"number": {"gt": 2, "lte": 8}}"#);
    let mut typed = bus.subscribe::<Noted>().conditions(large.clone()).await.expect("subscribed");
    let mut untyped = bus.untyped().subscribe("test.*").conditions(large.clone()).await.expect("subscribed");
    let mut all_of_it = bus
        .subscribe::<Noted>()
        .key("north")
        .filter(|event| event.number % 2 == 0)
        .conditions(large)
        .conditions(conditions(r#"{"number": {"ne": 6}}"#))
        .await
        .expect("subscribed");
    for number in 0..10 {
        let body =
            Body::encode(if number % 3 == 0 { Encoding::Json } else { Encoding::MessagePack }, &keyed("north", number));
        match number % 2 {
            0 => bus.publish(keyed("north", number)).await.expect("published"),
            _ => bus.untyped().publish("test.noted", body.expect("encodes")).await.expect("published"),
        };
    }
    bus.publish(keyed("south", 4)).await.expect("published");
    // What cannot be read is left out, and its publisher hears nothing of it.
    let broken = Body::new(Encoding::Json, r#"{"key": "north", "number": 4} and more"#);
    assert_eq!(bus.untyped().publish("test.noted", broken).await.expect("published").deliveries, 0);
    assert_eq!(numbers(&mut typed, |event| event.number), [3, 4, 5, 6, 7, 8, 4]);
    assert_eq!(names(&mut untyped).len(), 7);
    assert_eq!(numbers(&mut all_of_it, |event| event.number), [4, 8]);
    drop((typed, untyped, all_of_it));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_by_pattern_gets_one_segment_for_a_star_and_the_rest_for_an_angle() {
    let node = bare().await;
    let bus = node.bus();
    // Also for names that come to be known after it.
    let mut star = bus.untyped().subscribe("sensor.*.read").await.expect("subscribed");
    let mut rest = bus.untyped().subscribe("sensor.>").await.expect("subscribed");
    let mut exact = bus.untyped().subscribe("sensor.one.read").await.expect("subscribed");
    for name in ["sensor.one.read", "sensor.two.read", "sensor.one", "sensor", "sensor.one.read.late"] {
        let descriptor = edri::Descriptor::declare(name, edri::Kind::Notification).expect("a name").build();
        bus.declare(descriptor).await.expect("declared");
        bus.untyped().publish(name, serde_json::json!(null)).await.expect("published");
    }
    assert_eq!(names(&mut star), ["sensor.one.read", "sensor.two.read"]);
    assert_eq!(names(&mut rest), ["sensor.one.read", "sensor.two.read", "sensor.one", "sensor.one.read.late"]);
    assert_eq!(names(&mut exact), ["sensor.one.read"]);
    assert!(matches!(bus.untyped().subscribe("sensor..x").await, Err(DeclareError::Name(_))));
    drop((star, rest, exact));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_wants_an_event_by_name_and_by_pattern_gets_it_once() {
    struct Wide(Seen<&'static str>);
    impl Worker for Wide {}
    impl Handle<Noted> for Wide {
        async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
            self.0.add("typed");
            Ok(())
        }
    }
    impl HandleAny for Wide {
        async fn handle(&mut self, _: &Envelope, _: &mut Context) -> Result<Option<Value>, Failure> {
            self.0.add("untyped");
            Ok(None)
        }
    }
    let seen = Seen::default();
    let wide = seen.clone();
    let manager = Manager::new("wide")
        .worker(move || Wide(wide.clone()))
        .handles::<Noted>()
        .handles_any("test.>")
        .handles_any("test.*");
    let node = started(App::new("test").manager(manager)).await;
    assert_eq!(node.bus().publish(noted(1)).await.expect("published").deliveries, 1);
    assert_eq!(node.bus().publish(Followed { number: 2 }).await.expect("published").deliveries, 1);
    at_rest(node.bus()).await;
    assert_eq!(seen.list(), ["typed", "untyped"]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_dropped_releases_those_who_wait_and_counts_what_was_not_read() {
    let node = bare().await;
    let mut stream = node.bus().subscribe::<Noted>().capacity(3).await.expect("subscribed");
    for number in 0..3 {
        node.bus().publish(noted(number)).await.expect("there is room");
    }
    let waiting: Vec<_> = (3..6)
        .map(|number| {
            let bus = node.bus().clone();
            tokio::spawn(async move { bus.publish(noted(number)).await })
        })
        .collect();
    assert_eq!(within("the first", stream.next()).await.expect("is there").number, 0);
    until("one to get the free place", || waiting.iter().filter(|waiting| waiting.is_finished()).count() == 1).await;
    drop(stream);
    for waiting in waiting {
        within("a publisher", waiting).await.expect("no panic").expect("published");
    }
    let account = at_rest(node.bus()).await;
    assert_eq!((account.deliveries, account.handled, account.cancelled, account.dead_lettered), (4, 1, 3, 0));
    assert_eq!(node.topology().subscriptions.len(), 0);
    assert_eq!(node.bus().publish(noted(9)).await.expect("published").deliveries, 0);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_dropped_before_it_is_there_leaves_nothing_behind() {
    let node = bare().await;
    for _ in 0..50 {
        drop(node.bus().subscribe::<Noted>().into_future().now_or_never());
    }
    // The router does one thing after the other.
    drop(node.bus().subscribe::<Followed>().await.expect("subscribed"));
    until("the last to be withdrawn", || {
        node.bus().try_publish(Followed { number: 1 }).is_ok_and(|r| r.deliveries == 0)
    })
    .await;
    assert_eq!(node.bus().publish(noted(1)).await.expect("published").deliveries, 0);
    assert_eq!(node.topology().subscriptions.len(), 0);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_come_and_go_under_load_leave_a_balanced_account() {
    let seen = Seen::default();
    let node = started(App::new("test").manager(Manager::new("m").worker(keeps(&seen)).handles::<Noted>())).await;
    let publishing: Vec<_> = (0..3)
        .map(|_| {
            let bus = node.bus().clone();
            tokio::spawn(async move {
                for number in 0..2000 {
                    within("room", bus.publish(noted(number))).await.expect("published");
                }
            })
        })
        .collect();
    let mut received = 0;
    while !publishing.iter().all(|publishing| publishing.is_finished()) {
        let mut stream = node.bus().subscribe::<Noted>().capacity(4).await.expect("subscribed");
        for _ in 0..5 {
            if tokio::time::timeout(Duration::from_millis(20), stream.next()).await.is_ok_and(|event| event.is_some()) {
                received += 1;
            }
        }
    }
    let account = at_rest(node.bus()).await;
    assert_eq!(account.handled, received + 6000);
    assert_eq!(account.deliveries, account.handled + account.cancelled);
    assert_eq!(seen.len(), 6000);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_may_drop_what_it_has_no_room_for() {
    let node = bare().await;
    let bus = node.bus();
    let mut newest = bus.subscribe::<Noted>().capacity(2).overflow(Overflow::DropNewest).await.expect("subscribed");
    let mut oldest = bus.subscribe::<Noted>().capacity(2).overflow(Overflow::DropOldest).await.expect("subscribed");
    for number in 0..5 {
        within("nobody to wait for", bus.publish(noted(number))).await.expect("published");
    }
    assert_eq!(numbers(&mut newest, |event| event.number), [0, 1]);
    assert_eq!(numbers(&mut oldest, |event| event.number), [3, 4]);
    let account = at_rest(bus).await;
    assert_eq!((account.handled, account.dead_lettered), (4, 6));
    drop((newest, oldest));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_of_the_subscribers_type_is_left_out_and_counted() {
    let node = bare().await;
    let mut stream = node.bus().subscribe::<Noted>().await.expect("subscribed");
    let untyped = node.bus().untyped();
    untyped
        .publish("test.noted", Body::new(Encoding::Json, r#"{"key": "k", "number": "many"}"#))
        .await
        .expect("published");
    untyped.publish("test.noted", serde_json::json!({"key": "k", "number": 1})).await.expect("published");
    assert_eq!(within("the one that is right", stream.next()).await.expect("is there").number, 1);
    assert_eq!(stream.missed(), 1);
    drop(stream);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_time_to_live_ends_before_it_is_read_is_a_dead_letter() {
    let node = bare().await;
    let mut stream = node.bus().subscribe::<Noted>().await.expect("subscribed");
    node.bus().publish_with(noted(1), &Options::new().time_limit(Duration::from_millis(1))).await.expect("published");
    node.bus().publish(noted(2)).await.expect("published");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(numbers(&mut stream, |event| event.number), [2]);
    assert_eq!(letters(node.bus()).iter().map(|(reason, ..)| *reason).collect::<Vec<_>>(), [Reason::Expired]);
    drop(stream);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_works_outside_the_runtime_of_its_node() {
    let node = bare().await;
    let bus = node.bus().clone();
    let elsewhere = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without timers");
        runtime.block_on(async move {
            let mut stream = bus.subscribe::<Noted>().capacity(1).await.expect("subscribed");
            bus.publish(noted(1)).await.expect("published");
            let receipt = tokio::join!(bus.publish(noted(2)), stream.next()).0.expect("published after a wait");
            (receipt.deliveries, stream.next().await.expect("is there").number)
        })
    });
    let joined = tokio::task::spawn_blocking(move || elsewhere.join());
    assert_eq!(within("the other runtime", joined).await.expect("no panic").expect("no panic"), (1, 2));
    ends_well(&node).await;
}

// ---- dead letters ------------------------------------------------------------------------------------------------------

/// Fails as long as the gate is closed.
fn moody(gate: &Gate, seen: &Seen<(u64, bool)>) -> impl Fn() -> Moody + Send + Sync + use<> {
    let moody = Moody { gate: gate.clone(), seen: seen.clone() };
    move || moody.clone()
}

#[derive(Clone)]
struct Moody {
    gate: Gate,
    seen: Seen<(u64, bool)>,
}

impl Worker for Moody {}

impl Handle<Followed> for Moody {
    async fn handle(&mut self, _: &Followed, _: &mut Context) -> Result<(), Failure> {
        panic!("nobody sends these");
    }
}

impl Handle<Noted> for Moody {
    async fn handle(&mut self, event: &Noted, cx: &mut Context) -> Result<(), Failure> {
        self.gate.pass().now_or_never().ok_or_else(|| Failure::new("moody", "not in the mood"))?;
        self.seen.add((event.number, cx.is_redelivered()));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_told_to_who_subscribes_and_can_be_sent_again() {
    let (gate, seen, other) = (Gate::closed(), Seen::default(), Seen::default());
    let app = App::new("test")
        .manager(Manager::new("moody").worker(moody(&gate, &seen)).handles::<Noted>())
        .manager(Manager::new("other").worker(keeps(&other)).handles::<Noted>());
    let node = started(app).await;
    let mut dead = node.bus().subscribe::<DeadLettered>().key("test.noted").await.expect("subscribed");
    let receipt = node.bus().publish(keyed("k", 7)).await.expect("published");
    let letter = within("the dead letter", dead.next()).await.expect("the node runs");
    assert_eq!(
        (letter.event.as_str(), letter.node.as_str(), letter.group.as_str()),
        ("test.noted", "test", "manager `moody`")
    );
    assert_eq!((letter.reason, letter.detail.as_str(), letter.attempts), (Reason::Failed, "moody: not in the mood", 1));
    assert_eq!(letter.event_id, receipt.id.to_string());

    gate.open();
    let again = node.bus().resend(letter.number).await.expect("sent again");
    assert_eq!((again.id, again.deliveries), (receipt.id, 1));
    assert_eq!(seen.wait_for(1).await, [(7, true)]);
    at_rest(node.bus()).await;
    assert_eq!(other.list(), [7], "only the group it was for gets it again");
    assert!(node.bus().dead_letters().is_empty());
    assert!(matches!(node.bus().resend(letter.number).await, Err(ResendError::Unknown(_))));
    drop(dead);
    let account = ends_well(&node).await.account;
    assert_eq!((account.handled, account.dead_lettered, node.topology().dead_letters), (3, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_sent_again_to_the_handler_of_the_manager_that_replaced_its_own() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let node =
        started(App::new("test").manager(Manager::new("m").worker(moody(&gate, &seen)).handles::<Noted>())).await;
    node.bus().publish(noted(1)).await.expect("published");
    until("the dead letter", || node.topology().dead_letters == 1).await;
    let number = node.bus().dead_letters()[0].number;

    let deaf = does(|_: &Followed, _| async { Ok(()) }.boxed());
    node.replace(Manager::new("m").worker(deaf).handles::<Followed>()).await.expect("replaced");
    assert!(matches!(node.bus().resend(number).await, Err(ResendError::GroupGone(_))), "this one does not want it");

    let wider = Manager::new("m").worker(moody(&gate, &seen)).handles::<Followed>().handles::<Noted>();
    node.replace(wider).await.expect("replaced");
    gate.open();
    assert_eq!(node.bus().resend(number).await.expect("sent again").deliveries, 1);
    assert_eq!(seen.wait_for(1).await, [(1, true)]);

    node.drain("m").await.expect("drained");
    assert!(matches!(node.bus().resend(number).await, Err(ResendError::Unknown(_))));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_of_a_manager_that_failed_or_is_gone_is_kept() {
    let broken = does(|_: &Noted, _| async { panic!("once is enough") }.boxed());
    let manager = Manager::new("m").worker(broken).restart(Restart::never()).handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    node.bus().publish(noted(1)).await.expect("published");
    until("the manager to fail", || view(&node, "m").state == ManagerState::Failed).await;
    let number = node.bus().dead_letters()[0].number;
    until("its inbox to close", || node.bus().try_publish(noted(2)).is_ok_and(|receipt| receipt.deliveries == 0)).await;
    assert!(matches!(node.bus().resend(number).await, Err(ResendError::GroupGone(_))), "it has failed");
    node.drain("m").await.expect("drained");
    assert!(matches!(node.bus().resend(number).await, Err(ResendError::GroupGone(_))), "it is gone");
    assert_eq!(node.bus().dead_letters()[0].number, number);
    let seen = Seen::default();
    node.add(Manager::new("m").worker(keeps(&seen)).handles::<Noted>()).await.expect("added");
    assert_eq!(node.bus().resend(number).await.expect("sent again").deliveries, 1);
    assert_eq!(seen.wait_for(1).await, [1]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_sent_again_to_a_group_without_room_is_a_dead_letter_again() {
    let gate = Gate::closed();
    let manager = Manager::new("m").worker(crate::support::keeps_behind(&gate, &Seen::default())).inbox(1);
    let app = App::new("test").limits(publishers_wait(Duration::from_millis(30))).manager(manager.handles::<Noted>());
    let node = started(app).await;
    node.bus().publish(noted(0)).await.expect("published");
    gate.arrived(1).await;
    node.bus().publish(noted(1)).await.expect("published");
    node.bus().publish(noted(2)).await.expect_err("there is no room");
    let number = node.bus().dead_letters()[0].number;
    assert!(matches!(node.bus().resend(number).await, Err(ResendError::Publish(_))));
    let kept = node.bus().dead_letters();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].number > number && kept[0].reason == Reason::Overloaded);
    gate.open();
    assert_eq!(node.bus().resend(kept[0].number).await.expect("sent again").deliveries, 1);
    assert_eq!(ends_well(&node).await.account.handled, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_dead_letter_begets_another() {
    let failing = does(|_: &Noted, _| async { Err(Failure::message("always")) }.boxed());
    let undertaker = does(|_: &DeadLettered, _| async { Err(Failure::message("always")) }.boxed());
    let app = App::new("test")
        .manager(Manager::new("failing").worker(failing).handles::<Noted>())
        .manager(Manager::new("undertaker").worker(undertaker).handles::<DeadLettered>());
    let node = started(app).await;
    let narrow = node.bus().subscribe::<DeadLettered>().capacity(1).overflow(Overflow::DropNewest);
    let narrow = narrow.await.expect("subscribed");
    let rolling = node.bus().untyped().subscribe("edri.>").capacity(1).overflow(Overflow::DropOldest);
    let rolling = rolling.await.expect("subscribed");
    for number in 0..10 {
        node.bus().publish(noted(number)).await.expect("published");
    }
    until("the dead letters", || node.topology().dead_letters >= 10).await;
    until("the undertaker to fail", || view(&node, "undertaker").account.dead_lettered == 10).await;
    assert_eq!(node.topology().dead_letters, 10);
    assert!(node.bus().dead_letters().iter().all(|letter| *letter.envelope.name() == "test.noted"));
    drop((narrow, rolling));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_dead_letters_are_kept_than_the_node_may_and_the_oldest_make_room() {
    let mut limits = edri::Limits::default();
    limits.dead_letters_max = 3;
    let failing = does(|_: &Noted, _| async { Err(Failure::message("always")) }.boxed());
    let manager = Manager::new("failing").worker(failing).handles::<Noted>();
    let node = started(App::new("test").limits(limits).manager(manager)).await;
    node.bus().publish_batch((0..10).map(noted)).await.expect("published");
    at_rest(node.bus()).await;
    assert_eq!(crate::support::dead_numbers(node.bus()), [7, 8, 9]);
    assert_eq!(node.topology().dead_letters, 10);
    ends_well(&node).await;
}

// ---- presence ----------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_and_the_node_are_heard_to_come_change_and_go() {
    let node = bare().await;
    let managers = node.bus().subscribe::<ManagerChanged>().await.expect("subscribed");
    let nodes = node.bus().subscribe::<NodeChanged>().await.expect("subscribed");
    let manager = || Manager::new("passing").worker(keeps(&Seen::default())).handles::<Asked>();
    node.add(manager()).await.expect("added");
    node.replace(manager()).await.expect("replaced");
    node.drain("passing").await.expect("drained");
    let incarnation = node.topology().incarnation.to_string();
    within("the node to stop", node.shutdown()).await;
    let managers: Vec<_> = within("the stream to end", managers.collect::<Vec<_>>()).await;
    assert!(managers.iter().all(|change| change.manager == "passing" && change.node == "test"));
    let states: Vec<_> = managers.iter().map(|change| change.state).collect();
    use ManagerState::{Draining, Running, Stopped};
    assert_eq!(states, [Running, Running, Draining, Stopped, Draining, Stopped]);
    let nodes: Vec<_> = within("the stream to end", nodes.collect::<Vec<_>>()).await;
    assert!(nodes.iter().all(|change| change.node == "test" && change.incarnation == incarnation));
    assert_eq!(nodes.iter().map(|change| change.state.as_str()).collect::<Vec<_>>(), ["stopping", "stopped"]);
}
