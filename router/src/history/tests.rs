use std::time::{Duration, Instant};

use edri_events::{Body, Encoding, EventId, NodeName, event};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::*;
use crate::{Bus, Conditions, Control, DeclareError, Limits, Options, Overflow, Received, Router};

mod many;
mod model;

/// How long anything may take before a test calls it hung.
const LIMIT: Duration = Duration::from_secs(20);

#[event(notification, name = "test.told", key = key, crate = edri_events)]
#[derive(Debug, Clone)]
struct Told {
    key: String,
    number: u64,
}

fn told(key: &str, number: u64) -> Told {
    Told { key: key.to_owned(), number }
}

struct Node {
    runtime: Runtime,
    router: Router,
    _control: Control,
}

impl Node {
    fn new() -> Self {
        let name = NodeName::new("test").expect("a name");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let control = Control::start(&name).expect("a thread");
        let router = Router::start(name, Limits::default(), &control, runtime.handle());
        Self { runtime, router, _control: control }
    }

    fn keeping(history: History) -> Self {
        let node = Self::new();
        node.wait(node.router.add_history("test.told", history)).expect("added");
        node
    }

    fn bus(&self) -> Bus {
        self.router.bus()
    }

    fn wait<F: IntoFuture>(&self, future: F) -> F::Output {
        self.runtime.block_on(async { tokio::time::timeout(LIMIT, future).await }).expect("within the limit")
    }

    fn publish(&self, event: Told) {
        self.wait(self.bus().publish(event)).expect("published");
    }

    fn kept(&self) -> usize {
        self.bus().topology().histories[0].events
    }
}

/// What there is to read: the number of an event, or a gap.
fn numbers(replay: &mut Replay<Received<Told>>) -> Vec<Result<u64, Option<u64>>> {
    std::iter::from_fn(|| replay.next().now_or_never().flatten())
        .map(|next| next.map(|recorded| recorded.event.number).map_err(|missed| missed.events))
        .collect()
}

fn untyped_names(replay: &mut Replay<edri_events::Envelope>) -> Vec<Result<String, Option<u64>>> {
    std::iter::from_fn(|| replay.next().now_or_never().flatten())
        .map(|next| next.map(|recorded| recorded.event.name().to_string()).map_err(|missed| missed.events))
        .collect()
}

#[test]
fn a_subscriber_that_comes_late_gets_what_it_missed_and_then_what_comes() {
    let node = Node::keeping(History::new());
    let bus = node.bus();
    (0..5).for_each(|number| node.publish(told("k", number)));
    let mut all = node.wait(bus.subscribe::<Told>().last(usize::MAX)).expect("subscribed");
    let mut two = node.wait(bus.subscribe::<Told>().last(2)).expect("subscribed");
    let mut none = node.wait(bus.subscribe::<Told>().last(0)).expect("subscribed");
    let third = std::iter::from_fn(|| all.next().now_or_never().flatten()).nth(2).expect("is there").expect("no gap");
    assert_eq!((third.event.number, third.position.number()), (2, 3));
    let mut since = node.wait(bus.subscribe::<Told>().since(third.position)).expect("subscribed");
    let mut since_id = node.wait(bus.subscribe::<Told>().since(third.event.envelope().id())).expect("subscribed");
    let text = Since::from_text(&third.position.to_string());
    let mut since_text = node.wait(bus.untyped().subscribe("test.told").since(text)).expect("subscribed");
    let mut stood = node.wait(bus.subscribe::<Told>().since(none.position())).expect("subscribed");
    (5..7).for_each(|number| node.publish(told("k", number)));
    let ok = |numbers: std::ops::Range<u64>| numbers.map(Ok).collect::<Vec<_>>();
    assert_eq!(numbers(&mut all), ok(3..7));
    assert_eq!(numbers(&mut two), ok(3..7));
    assert_eq!(numbers(&mut none), ok(5..7));
    assert_eq!(numbers(&mut since), ok(3..7));
    assert_eq!(numbers(&mut since_id), ok(3..7));
    assert_eq!(numbers(&mut stood), ok(5..7));
    assert_eq!(untyped_names(&mut since_text).len(), 4);
    assert_eq!(two.position().number(), 7);
    assert_eq!(bus.topology().histories[0].readers, 7);
    assert!(bus.account().is_balanced());
}

#[test]
fn every_way_of_publishing_is_recorded_once() {
    let node = Node::keeping(History::new());
    let bus = node.bus();
    let body = |number| Body::encode(Encoding::Json, &told("k", number)).expect("encodes");
    assert_eq!(node.wait(bus.publish(told("k", 0))).expect("published").deliveries, 1);
    assert_eq!(bus.try_publish(told("k", 1)).expect("published").deliveries, 1);
    assert_eq!(node.wait(bus.publish_batch((2..4).map(|number| told("k", number)))).expect("published").deliveries, 2);
    assert_eq!(node.wait(bus.untyped().publish("test.told", body(4))).expect("published").deliveries, 1);
    assert_eq!(bus.untyped().try_publish("test.told", body(5)).expect("published").deliveries, 1);
    node.wait(bus.untyped().publish_batch("test.told", (6..8).map(body))).expect("published");
    let mut replay = node.wait(bus.subscribe::<Told>().last(usize::MAX)).expect("subscribed");
    assert_eq!(numbers(&mut replay), (0..8).map(Ok).collect::<Vec<_>>());
    let account = bus.account();
    assert_eq!((account.deliveries, account.handled, account.is_balanced()), (8, 8, true));
    assert_eq!(bus.topology().unrouted, 0);
    // What nobody gets, because one of those who want it has no room, is not recorded either.
    let full = node.wait(bus.subscribe::<Told>().capacity(1)).expect("subscribed");
    bus.try_publish(told("k", 8)).expect("room for one");
    bus.try_publish(told("k", 9)).expect_err("no room");
    assert_eq!(numbers(&mut replay), [Ok(8)]);
    drop(full);
}

#[test]
fn key_filter_and_conditions_select_from_the_past_as_from_what_comes() {
    let node = Node::keeping(History::new());
    let bus = node.bus();
    let publish = |numbers: std::ops::Range<u64>| {
        numbers.for_each(|number| node.publish(told(if number % 2 == 0 { "even" } else { "odd" }, number)));
    };
    publish(0..10);
    let conditions: Conditions = r#"{"number": {"gte": 4}, "key": {"eq": "odd"}}"#.parse().expect("conditions");
    let mut by_key = node.wait(bus.subscribe::<Told>().key("even").last(2)).expect("subscribed");
    let mut by_filter =
        node.wait(bus.subscribe::<Told>().last(9).filter(|told| told.number % 5 == 0)).expect("subscribed");
    let mut by_conditions =
        node.wait(bus.subscribe::<Told>().last(2).conditions(conditions.clone())).expect("subscribed");
    let untyped = bus.untyped().subscribe("test.told").conditions(conditions).key("even").last(5);
    let mut nothing = node.wait(untyped).expect("subscribed");
    publish(10..14);
    let ok = |numbers: &[u64]| numbers.iter().map(|number| Ok(*number)).collect::<Vec<_>>();
    assert_eq!(numbers(&mut by_key), ok(&[6, 8, 10, 12]));
    assert_eq!(numbers(&mut by_filter), ok(&[0, 5, 10]));
    assert_eq!(numbers(&mut by_conditions), ok(&[7, 9, 11, 13]));
    assert_eq!(untyped_names(&mut nothing), []);
}

#[test]
fn a_subscriber_is_told_of_every_gap() {
    let node = Node::keeping(History::new().events(3));
    let bus = node.bus();
    let mut slow = node.wait(bus.subscribe::<Told>().last(0)).expect("subscribed");
    node.publish(told("k", 0));
    let first = node.wait(bus.subscribe::<Told>().last(1)).expect("subscribed").next().now_or_never();
    let first = first.flatten().expect("is there").expect("no gap");
    (1..6).for_each(|number| node.publish(told("k", number)));
    // 3, 4 and 5 are left; 0 was number 1.
    let left = [Ok(3), Ok(4), Ok(5)];
    assert_eq!(numbers(&mut slow), [&[Err(Some(3))], &left[..]].concat());
    let mut since = node.wait(bus.subscribe::<Told>().since(first.position)).expect("subscribed");
    assert_eq!(numbers(&mut since), [&[Err(Some(2))], &left[..]].concat());
    // Nothing is known of these: who was here before another life, an event that is gone, a number from the future.
    let other = Position { history: Incarnation::random(), ..first.position };
    let future = Position { number: 7, ..first.position };
    let unknown = [other.into(), future.into(), Since::from(first.event.envelope().id()), Since::from_text("x")];
    for unknown in unknown {
        let mut since = node.wait(bus.subscribe::<Told>().since(unknown)).expect("subscribed");
        assert_eq!(numbers(&mut since), [&[Err(None)], &left[..]].concat(), "{unknown:?}");
    }
    let latest = Position { number: 6, ..first.position };
    let mut since = node.wait(bus.subscribe::<Told>().since(latest)).expect("subscribed");
    assert_eq!(numbers(&mut since), []);
}

#[test]
fn who_waits_for_a_key_is_not_told_of_what_was_never_for_it() {
    let node = Node::keeping(History::new().events(2));
    let bus = node.bus();
    let mut mine = node.wait(bus.subscribe::<Told>().key("mine").last(0)).expect("subscribed");
    assert_eq!(numbers(&mut mine), []);
    (0..10).for_each(|number| node.publish(told("other", number)));
    assert_eq!(numbers(&mut mine), []);
    (0..10).for_each(|number| node.publish(told("other", number)));
    node.publish(told("mine", 10));
    node.publish(told("other", 11));
    assert_eq!(numbers(&mut mine), [Ok(10)]);
    // One that was for it and is gone is told.
    node.publish(told("mine", 12));
    (0..5).for_each(|number| node.publish(told("other", number)));
    assert!(matches!(numbers(&mut mine)[..], [Err(Some(1..))]));
    // Nobody is kept who has left.
    drop(mine);
    assert_eq!(bus.topology().histories[0].readers, 0);
}

#[test]
fn who_waits_is_woken_by_what_comes_and_by_the_end() {
    let node = Node::keeping(History::new());
    let bus = node.bus();
    let waiting: Vec<_> = [None, Some("k"), Some("other")]
        .into_iter()
        .map(|key| {
            let subscribe = bus.subscribe::<Told>();
            let subscribe = if let Some(key) = key { subscribe.key(key) } else { subscribe };
            let mut replay = node.wait(subscribe.last(0)).expect("subscribed");
            node.runtime.spawn(async move {
                let mut had = 0;
                while replay.next().await.is_some() {
                    had += 1;
                }
                had
            })
        })
        .collect();
    let limit = Instant::now() + LIMIT;
    (0..100).for_each(|number| node.publish(told("k", number)));
    // Which of them wait when the end comes is not known; sooner or later all are told.
    assert!(node.wait(node.router.remove_history("test.told")).expect("removed"));
    let had: Vec<_> = waiting.into_iter().map(|waiting| node.wait(waiting).expect("no panic")).collect();
    assert_eq!(had, [100, 100, 0]);
    assert!(Instant::now() < limit);
    assert_eq!(node.wait(bus.publish(told("k", 0))).expect("published").deliveries, 0);
    assert!(bus.topology().histories.is_empty());
    assert!(!node.wait(node.router.remove_history("test.told")).expect("none"));
}

#[test]
fn what_is_too_old_is_not_served() {
    let node = Node::keeping(History::new().age(Duration::from_millis(50)));
    let bus = node.bus();
    let mut reading = node.wait(bus.subscribe::<Told>().last(0)).expect("subscribed");
    node.publish(told("k", 0));
    node.publish(told("k", 1));
    // With the first, the second was read ahead.
    let first = reading.next().now_or_never().flatten();
    let limit = Instant::now() + LIMIT;
    while node.kept() > 0 {
        assert!(Instant::now() < limit);
        std::thread::sleep(Duration::from_millis(1));
    }
    if first.is_some_and(|first| first.is_ok()) {
        assert_eq!(numbers(&mut reading), [Err(Some(1))]);
    }
    let mut late = node.wait(bus.subscribe::<Told>().last(5)).expect("subscribed");
    assert_eq!(numbers(&mut late), []);
}

#[test]
fn what_has_outlived_its_own_time_to_live_is_left_out() {
    let node = Node::keeping(History::new());
    let bus = node.bus();
    let short = Options::new().time_limit(Duration::ZERO);
    node.wait(bus.publish_with(told("k", 0), &short)).expect("published");
    node.publish(told("k", 1));
    let mut replay = node.wait(bus.subscribe::<Told>().last(2)).expect("subscribed");
    node.wait(bus.publish_with(told("k", 2), &short)).expect("published");
    node.publish(told("k", 3));
    assert_eq!(numbers(&mut replay), [Ok(1), Ok(3)]);
}

/// What cannot be encoded, in one way or another.
#[derive(Debug, Clone, Deserialize, edri_events::__private::schemars::JsonSchema)]
#[schemars(crate = "edri_events::__private::schemars")]
struct Stubborn(u8);

impl Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0 => serializer.serialize_u8(0),
            1 => Err(serde::ser::Error::custom("does not want to")),
            _ => panic!("cannot"),
        }
    }
}

#[event(notification, name = "test.odd", crate = edri_events)]
#[derive(Debug, Clone)]
struct Odd {
    stubborn: Stubborn,
}

#[test]
fn what_a_history_cannot_keep_is_published_all_the_same_and_told_as_missed() {
    let node = Node::keeping(History::new().bytes(4096));
    let bus = node.bus();
    let mut reading = node.wait(bus.subscribe::<Told>().last(0)).expect("subscribed");
    node.publish(told("k", 0));
    node.publish(told(&"x".repeat(5000), 1));
    node.publish(told("k", 2));
    assert_eq!(numbers(&mut reading), [Ok(0), Err(Some(1)), Ok(2)]);
    node.publish(told(&"x".repeat(5000), 3));
    assert_eq!(numbers(&mut reading), [Err(Some(1))]);
    let view = &bus.topology().histories[0];
    assert_eq!((view.events, view.recorded, view.bytes_max), (2, 4, 4096));
    assert!((1024..=4096).contains(&view.bytes), "{}", view.bytes);

    node.wait(node.router.add_history("test.odd", History::new())).expect("added");
    let mut plain = node.wait(bus.subscribe::<Odd>()).expect("subscribed");
    let mut reading = node.wait(bus.subscribe::<Odd>().last(0)).expect("subscribed");
    for stubborn in [0, 1, 2, 0] {
        node.wait(bus.publish(Odd { stubborn: Stubborn(stubborn) })).expect("published");
    }
    assert_eq!(std::iter::from_fn(|| plain.next().now_or_never().flatten()).count(), 4);
    let had: Vec<_> = std::iter::from_fn(|| reading.next().now_or_never().flatten())
        .map(|next| next.map(|recorded| recorded.event.stubborn.0).map_err(|missed| missed.events))
        .collect();
    assert_eq!(had, [Ok(0), Err(Some(2)), Ok(0)]);
    assert!(bus.account().is_balanced());
}

#[test]
fn a_history_keeps_of_a_payload_its_own_bytes_and_no_buffer_that_it_came_in() {
    let node = Node::keeping(History::new());
    let packet = Body::encode(Encoding::Json, &told("k", 1)).expect("encodes").bytes;
    let buffer = bytes::Bytes::from([&vec![b' '; 1 << 16][..], &packet].concat());
    let range = buffer.slice(1 << 16..);
    let mut replay = node.wait(node.bus().untyped().subscribe("test.told").last(0)).expect("subscribed");
    node.wait(node.bus().declare(edri_events::DescriptorRef::of::<Told>())).expect("declared");
    node.wait(node.bus().untyped().publish("test.told", Body::new(Encoding::Json, range.clone()))).expect("published");
    drop(range);
    assert!(buffer.is_unique(), "nobody holds the buffer");
    let event = replay.next().now_or_never().flatten().expect("is there").expect("no gap").event;
    assert_eq!(event.payload::<Told>().expect("decodes").number, 1);
    assert_eq!(event.key().as_deref(), Some("k"));
}

#[test]
fn a_subscription_reads_the_history_of_its_pattern_or_the_first_that_covers_it() {
    let node = Node::keeping(History::new());
    let bus = node.bus();
    let add = |pattern: &str| node.wait(node.router.add_history(pattern, History::new()));
    add("test.>").expect("added");
    add("test.*").expect("added");
    assert!(matches!(add("test.*"), Err(DeclareError::HistoryExists(_))));
    assert!(matches!(add("test..x"), Err(DeclareError::Name(_))));
    node.publish(told("k", 0));
    node.wait(bus.publish(Odd { stubborn: Stubborn(0) })).expect("published");
    node.wait(node.router.remove_history("test.told")).expect("removed");
    node.publish(told("k", 1));
    let names = |pattern: &str| {
        untyped_names(&mut node.wait(bus.untyped().subscribe(pattern).last(9)).expect("subscribed"))
            .into_iter()
            .map(|name| name.expect("no gap"))
            .collect::<Vec<_>>()
    };
    assert_eq!(names("test.told"), ["test.told", "test.told"]);
    assert_eq!(names("test.*"), ["test.told", "test.odd", "test.told"]);
    assert_eq!(names("test.>"), ["test.told", "test.odd", "test.told"]);
    assert_eq!(names("test.odd"), ["test.odd"]);
    let history = |pattern: &str| {
        let replay = node.wait(bus.untyped().subscribe(pattern).last(0)).expect("subscribed");
        replay.position().history
    };
    assert_eq!(history("test.odd"), history("test.>"), "the first of two that cover it");
    assert_ne!(history("test.*"), history("test.>"), "its own");
    for uncovered in [">", "other", "*.told"] {
        let subscribed = node.wait(bus.untyped().subscribe(uncovered).last(9));
        assert!(matches!(subscribed, Err(DeclareError::NoHistory(_))), "{uncovered}");
    }
    let with_inbox = node.wait(bus.subscribe::<Told>().overflow(Overflow::DropOldest).last(1));
    assert!(matches!(with_inbox, Err(DeclareError::NoInbox)));
    let patterns: Vec<_> = bus.topology().histories.iter().map(|view| view.pattern.to_string()).collect();
    assert_eq!(patterns, ["test.>", "test.*"]);
    assert!(bus.topology().subscriptions.is_empty());
}

#[test]
fn an_event_of_another_form_is_left_out_of_a_typed_replay_and_counted() {
    let node = Node::keeping(History::new());
    let bus = node.bus();
    node.publish(told("k", 0));
    let wrong = Body::from(serde_json::json!({"key": "k", "number": "one"}));
    node.wait(bus.untyped().publish("test.told", wrong)).expect("published");
    node.publish(told("k", 2));
    let mut replay = node.wait(bus.subscribe::<Told>().last(9)).expect("subscribed");
    assert_eq!(numbers(&mut replay), [Ok(0), Ok(2)]);
    assert_eq!(replay.left_out(), 1);
    // A filter that panics leaves out, too.
    let filter = |told: &Told| {
        assert_ne!(told.number, 0, "the number of the beast");
        true
    };
    let mut replay = node.wait(bus.subscribe::<Told>().filter(filter).last(9)).expect("subscribed");
    assert_eq!(numbers(&mut replay), [Ok(2)]);
}

#[test]
fn a_position_reads_back_what_it_writes_and_nothing_else() {
    let position = Position { history: Incarnation::random(), number: 7 };
    assert_eq!(position.to_string().parse(), Ok(position));
    let json = serde_json::to_string(&position).expect("a text");
    assert_eq!(serde_json::from_str::<Position>(&json).expect("a position"), position);
    let wrong = ["", "-", "7", "0000000000000000-1", "00000000000000a1-", "00000000000000a1--1", "+0000000000000a1-1"];
    for wrong in
        wrong.into_iter().chain(["00000000000000a1-+1", "00000000000000a1-99999999999999999999", "00000000000000é1-1"])
    {
        assert!(wrong.parse::<Position>().is_err(), "{wrong}");
    }
}

#[test]
fn a_text_from_outside_is_a_position_or_an_event_or_unknown() {
    let position = Position { history: Incarnation::random(), number: 7 };
    assert!(matches!(Since::from_text(&position.to_string()).0, Mark::Position(it) if it == position));
    let event = EventId::next();
    assert!(matches!(Since::from_text(&event.to_string()).0, Mark::Event(it) if it == event));
    assert!(matches!(Since::from_text("<script>").0, Mark::Unknown));
}

#[test]
fn a_node_has_no_more_histories_than_it_may() {
    let node = Node::new();
    for number in 0..crate::HISTORIES_MAX {
        node.wait(node.router.add_history(&format!("test.n{number}"), History::new())).expect("added");
    }
    let one_more = node.wait(node.router.add_history("test.more", History::new()));
    assert!(matches!(one_more, Err(DeclareError::Limit { limit: crate::HISTORIES_MAX, .. })));
}
