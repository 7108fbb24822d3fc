//! Events that come from another node for a group of this one, with the test in the place of the connector.

use std::sync::Arc;
use std::time::Duration;

use edri::prelude::*;
use edri::{Address, DescriptorRef, Incarnation, Kind, NodeName, Pattern, Reason};
use edri_router::{
    Arrival, Arrivals, Arrived, Delivery, Group, GroupOptions, GroupRef, Joining, Outcome, Outcomes, ReplyTo, Router,
    Selection, Spread, Ticket,
};
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::support::{
    Asked, Gate, Noted, Seen, at_rest, dead_numbers, does, ends_well, keeps, keeps_behind, letters, noted, started,
    until, within,
};

/// The group of a manager.
fn group(node: &Node, manager: &str) -> GroupRef {
    let groups = node.router().groups();
    groups.into_iter().rfind(|group| group.name().to_text() == manager).expect("it is there")
}

/// An event of another node, as it comes from there.
fn envelope(router: &Router, name: &str, kind: Kind, payload: serde_json::Value, key: Option<&str>) -> Envelope {
    let descriptor = router.arriving_descriptor(name, kind).expect("nothing speaks against it");
    let node = NodeName::new("north").expect("a name");
    let mut head = edri_events::Head::new(
        descriptor,
        Arc::new(Address { node, incarnation: Incarnation::random(), manager: None }),
    );
    if let Some(key) = key {
        head.set_key(key);
    }
    Envelope::untyped(head, Body::from(payload)).expect("it has its key")
}

fn notes(router: &Router, number: u64) -> Delivery {
    notes_of(router, "none", number)
}

fn notes_of(router: &Router, key: &str, number: u64) -> Delivery {
    let payload = serde_json::json!({"key": key, "number": number});
    Delivery::arriving(envelope(router, "test.noted", Kind::Notification, payload, Some(key)), ReplyTo::None)
}

fn arrives(node: &Node, group: &GroupRef, number: u64) -> Arrived {
    node.router().arrive(group, notes(node.router(), number))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_arrives_reaches_one_group_and_is_handled_as_one_published_here() {
    let (one, two) = (Seen::default(), Seen::default());
    let app = App::new("here")
        .manager(Manager::new("one").worker(keeps(&one)).handles::<Noted>())
        .manager(Manager::new("two").worker(keeps(&two)).handles::<Noted>());
    let node = started(app).await;
    assert!(matches!(arrives(&node, &group(&node, "one"), 7), Arrived::Taken));
    assert_eq!(one.wait_for(1).await, [7]);
    let mut again = notes(node.router(), 8);
    again.redelivered = true;
    assert!(matches!(node.router().arrive(&group(&node, "two"), again), Arrived::Taken));
    assert_eq!(two.wait_for(1).await, [8]);
    let account = at_rest(node.bus()).await;
    assert_eq!((account.deliveries, account.handled), (2, 2));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_filter_and_pattern_select_as_they_do_here_also_for_names_nobody_has_declared() {
    let node = started(App::new("here")).await;
    let (bus, router) = (node.bus(), node.router());
    let mut by_key = bus.subscribe::<Noted>().key("a").await.expect("subscribed");
    let mut by_filter = bus.subscribe::<Noted>().filter(|noted| noted.number > 5).await.expect("subscribed");
    let mut by_pattern = bus.untyped().subscribe("other.>").await.expect("subscribed");
    let [key, filter, pattern] = [0, 1, 2].map(|at| Arc::clone(&router.groups()[at]));
    let arrive = |group: &GroupRef, delivery| match router.arrive(group, delivery) {
        Arrived::Taken => true,
        Arrived::Nobody => false,
        Arrived::Waits(_) => panic!("there is room"),
    };
    assert!(arrive(&key, notes_of(router, "a", 1)));
    assert!(!arrive(&key, notes_of(router, "b", 2)));
    assert!(!arrive(&filter, notes_of(router, "a", 5)));
    assert!(arrive(&filter, notes_of(router, "a", 6)));
    let other = |name: &str| {
        let envelope = envelope(router, name, Kind::Notification, serde_json::json!({"x": 1}), None);
        Delivery::arriving(envelope, ReplyTo::None)
    };
    assert!(arrive(&pattern, other("other.thing")));
    assert!(!arrive(&pattern, other("unasked.thing")));
    assert_eq!(within("it", by_key.next()).await.expect("open").number, 1);
    assert_eq!(within("it", by_filter.next()).await.expect("open").number, 6);
    assert_eq!(within("it", by_pattern.next()).await.expect("open").name(), &"other.thing");
    assert!(by_key.next().now_or_never().is_none());
    let account = at_rest(bus).await;
    assert_eq!((account.deliveries, account.handled), (3, 3), "what nobody wanted is no delivery");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_contradicts_what_is_declared_here_is_refused() {
    let node =
        started(App::new("here").manager(Manager::new("m").worker(keeps(&Seen::default())).handles::<Noted>())).await;
    let router = node.router();
    let error = router.arriving_descriptor("test.noted", Kind::Request).expect_err("a notification here");
    assert_eq!(error.code(), "wrong_kind");
    assert!(
        router
            .arriving_descriptor("test.noted", Kind::Notification)
            .expect("it is")
            .same(&DescriptorRef::of::<Noted>())
    );
    assert_eq!(router.arriving_descriptor("no name", Kind::Request).expect_err("no name").code(), "invalid_name");
    // Of names that nobody has declared, the same is made up for all who say the same.
    let first = router.arriving_descriptor("other.thing", Kind::Request).expect("made up");
    assert!(router.arriving_descriptor("other.thing", Kind::Request).expect("made up").same(&first));
    assert_eq!(router.arriving_descriptor("other.thing", Kind::Tunnel).expect("made up").kind(), Kind::Tunnel);
    assert!(node.bus().events().iter().all(|event| *event.name() != "other.thing"), "it is not declared by that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_alone_asks_for_is_decoded_for_it_and_for_others_once() {
    let node = started(App::new("here")).await;
    let event = notes(node.router(), 7).envelope;
    let mut place = None;
    assert_eq!(event.payload_once::<Noted>(&mut place).expect("a noted").number, 7);
    assert_eq!(place.map(|noted: Noted| noted.number), Some(7));
    let kept = event.payload::<Noted>().expect("a noted");
    let mut place = None;
    assert!(std::ptr::eq(event.payload_once::<Noted>(&mut place).expect("a noted"), kept));
    assert!(place.is_none(), "somebody has asked before");
    assert!(event.payload_once::<Asked>(&mut None).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_for_a_manager_that_was_replaced_goes_to_the_one_in_its_place() {
    let (old, new) = (Seen::default(), Seen::default());
    let gate = Gate::closed();
    let manager = Manager::new("m").worker(keeps_behind(&gate, &old)).handles::<Noted>();
    let node = started(App::new("here").manager(manager)).await;
    let first = group(&node, "m");
    arrives(&node, &first, 1);
    gate.arrived(1).await;
    let replacing = {
        let (node, manager) = (node.clone(), Manager::new("m").worker(keeps(&new)).handles::<Noted>());
        tokio::spawn(async move { node.replace(manager).await })
    };
    // From before the table changes until long after, none is lost: the old group takes it, or the new one.
    let mut number = 1;
    while !replacing.is_finished() {
        number += 1;
        assert!(matches!(arrives(&node, &first, number), Arrived::Taken));
        if number == 20 {
            gate.open();
        }
        tokio::task::yield_now().await;
        if number > 900 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    within("the change", replacing).await.expect("no panic").expect("replaced");
    assert!(matches!(arrives(&node, &first, 10_000), Arrived::Taken));
    until("all to be handled", || old.len() + new.len() == number as usize + 1).await;
    assert!(new.list().contains(&10_000));
    node.drain("m").await.expect("drained");
    assert!(matches!(arrives(&node, &first, 10_001), Arrived::Nobody));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_has_left_the_table_to_be_replaced_takes_what_arrives_until_it_is_closed() {
    let node = started(App::new("here")).await;
    let router = node.router();
    let pattern = Pattern::new("test.noted").expect("a pattern");
    let make = |handler| {
        let mut selection = Selection::new(pattern.clone());
        selection.handler = handler;
        let group = Group::new(GroupOptions {
            shared: false,
            name: "m".parse().expect("a name"),
            spread: Spread::Compete,
            capacity: 4,
            overflow: Overflow::Wait,
            handlers: vec![(pattern.clone(), handler)],
        });
        (Arc::clone(&group), Joining { group, events: Vec::new(), selections: vec![selection] })
    };
    let ((old, joins_first), (new, joins_later)) = (make(3), make(5));
    router.change(vec![joins_first], &[]).await.expect("joins");
    router.change(vec![joins_later], &[Arc::clone(&old)]).await.expect("replaces");
    assert!(matches!(arrives(&node, &old, 1), Arrived::Taken));
    assert_eq!(old.consume(0).try_next().expect("queued").handler, 3);
    old.close(Some(Arc::clone(&new)));
    assert!(matches!(arrives(&node, &old, 2), Arrived::Taken));
    let delivery = new.consume(0).try_next().expect("queued");
    assert_eq!((delivery.handler, delivery.envelope.payload::<Noted>().expect("a noted").number), (5, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrivals_without_room_wait_in_their_order_and_nothing_overtakes_them() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("m").inbox(1).worker(keeps_behind(&gate, &seen)).handles::<Noted>();
    let node = started(App::new("here").manager(manager)).await;
    let group = group(&node, "m");
    assert!(matches!(arrives(&node, &group, 1), Arrived::Taken));
    gate.arrived(1).await;
    assert!(matches!(arrives(&node, &group, 2), Arrived::Taken));
    let mut waiting = std::collections::VecDeque::new();
    match arrives(&node, &group, 3) {
        Arrived::Waits(arrival) => waiting.push_back(arrival),
        other => panic!("{other:?}"),
    }
    for number in 4..=6 {
        match node.router().arrive_behind(&group, notes(node.router(), number)) {
            Arrived::Waits(arrival) => waiting.push_back(arrival),
            other => panic!("{other:?}"),
        }
    }
    let mut arrival = waiting.pop_front().expect("it waits");
    let mut first = Box::pin(arrival.placed());
    assert!((&mut first).now_or_never().is_none());
    // A publisher here stands in line behind it.
    let publishing = {
        let bus = node.bus().clone();
        tokio::spawn(async move { bus.publish(noted(100)).await })
    };
    gate.open();
    assert!(within("room", first).await);
    while let Some(mut arrival) = waiting.pop_front() {
        assert!(within("room", arrival.placed()).await);
    }
    within("room", publishing).await.expect("no panic").expect("published");
    let mut came = seen.wait_for(7).await;
    came.retain(|number| *number != 100);
    assert_eq!(came, [1, 2, 3, 4, 5, 6]);
    assert_eq!(at_rest(node.bus()).await.handled, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arrival_that_is_dropped_is_a_dead_letter_and_one_whose_group_ends_is_nobody_s() {
    let gate = Gate::closed();
    let manager = Manager::new("m").inbox(1).worker(keeps_behind(&gate, &Seen::default())).handles::<Noted>();
    let node = started(App::new("here").manager(manager)).await;
    let group = group(&node, "m");
    arrives(&node, &group, 1);
    gate.arrived(1).await;
    arrives(&node, &group, 2);
    let Arrived::Waits(arrival) = arrives(&node, &group, 3) else { panic!("there is no room") };
    drop(arrival);
    assert_eq!(letters(node.bus()), [(Reason::Stopped, "manager `m`".to_owned(), 0)]);
    assert_eq!(dead_numbers(node.bus()), [3]);
    let Arrived::Waits(mut arrival) = arrives(&node, &group, 4) else { panic!("there is no room") };
    let placed = tokio::spawn(async move { arrival.placed().await });
    gate.open();
    node.drain("m").await.expect("drained");
    // It had its place, or nobody was left to take it; the account knows.
    let placed = within("its fate", placed).await.expect("no panic");
    let account = at_rest(node.bus()).await;
    assert_eq!(account.deliveries, 3 + u64::from(placed));
    assert_eq!((account.handled, account.dead_lettered), (2 + u64::from(placed), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_drops_on_overflow_does_so_with_what_arrives() {
    for (overflow, dead, reason) in
        [(Overflow::DropNewest, 3, Reason::DroppedNewest), (Overflow::DropOldest, 2, Reason::DroppedOldest)]
    {
        let gate = Gate::closed();
        let worker = keeps_behind(&gate, &Seen::default());
        let manager = Manager::new("m").inbox(1).overflow(overflow).worker(worker).handles::<Noted>();
        let node = started(App::new("here").manager(manager)).await;
        let group = group(&node, "m");
        arrives(&node, &group, 1);
        gate.arrived(1).await;
        for number in 2..=3 {
            assert!(matches!(arrives(&node, &group, number), Arrived::Taken));
        }
        assert_eq!(dead_numbers(node.bus()), [dead]);
        assert_eq!(letters(node.bus())[0].0, reason);
        gate.open();
        assert_eq!(at_rest(node.bus()).await.handled, 2);
    }
}

// ---- together ----------------------------------------------------------------------------------------------------------

/// These numbers, put together for a group.
fn together(router: &Router, group: &GroupRef, numbers: impl IntoIterator<Item = u64>) -> Arrivals {
    let mut arrivals = router.arrivals(group);
    for number in numbers {
        assert!(arrivals.push(notes(router, number)), "it is wanted");
    }
    arrivals
}

/// Sees to it that all that waits has its place, in order.
async fn places(waiting: Vec<Arrival>) {
    for mut arrival in waiting {
        while !arrival.is_empty() {
            assert!(within("room", arrival.placed()).await);
            arrival.place_now();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_together_comes_in_order_and_each_is_selected_as_if_it_came_alone() {
    let node = started(App::new("here")).await;
    let (bus, router) = (node.bus(), node.router());
    let mut all = bus.untyped().subscribe("other.>").await.expect("subscribed");
    let mut by_filter = bus.subscribe::<Noted>().filter(|noted| noted.number % 2 == 0).await.expect("subscribed");
    let mut by_key = bus.subscribe::<Noted>().key("a").await.expect("subscribed");
    let [pattern, filter, key] = [0, 1, 2].map(|at| Arc::clone(&router.groups()[at]));
    let other = |name: &str, number: u64| {
        let payload = serde_json::json!({"number": number});
        Delivery::arriving(envelope(router, name, Kind::Notification, payload, None), ReplyTo::None)
    };
    let mut arrivals = router.arrivals(&pattern);
    for number in 0..6 {
        let name = ["other.thing", "other.one", "unasked.thing"][number as usize % 3];
        assert_eq!(arrivals.push(other(name, number)), name != "unasked.thing");
    }
    assert_eq!(arrivals.len(), 4);
    assert!(arrivals.arrive().is_empty() && arrivals.is_empty());
    let mut arrivals = router.arrivals(&filter);
    for number in 1..=5 {
        assert_eq!(arrivals.push(notes(router, number)), number % 2 == 0);
    }
    assert!(arrivals.arrive().is_empty());
    let mut arrivals = router.arrivals(&key);
    for (key, number) in [("a", 1), ("b", 2), ("a", 3)] {
        assert_eq!(arrivals.push(notes_of(router, key, number)), key == "a");
    }
    assert!(arrivals.arrive().is_empty());
    for expected in ["other.thing", "other.one", "other.thing", "other.one"] {
        assert_eq!(within("it", all.next()).await.expect("open").name(), &expected);
    }
    for expected in [2, 4] {
        assert_eq!(within("it", by_filter.next()).await.expect("open").number, expected);
    }
    for expected in [1, 3] {
        assert_eq!(within("it", by_key.next()).await.expect("open").number, expected);
    }
    let account = at_rest(bus).await;
    assert_eq!((account.deliveries, account.handled), (8, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_arrives_together_the_rest_waits_for_room_in_order_and_dropped_is_dead_letters() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("m").inbox(4).worker(keeps_behind(&gate, &seen)).handles::<Noted>();
    let node = started(App::new("here").manager(manager)).await;
    let (router, group) = (node.router(), group(&node, "m"));
    assert!(together(router, &group, [1]).arrive().is_empty());
    gate.arrived(1).await;
    let mut waiting = together(router, &group, 2..=9).arrive();
    assert_eq!(waiting.iter().map(Arrival::len).collect::<Vec<_>>(), [4]);
    waiting.extend(together(router, &group, 10..=30).take());
    // Nobody waits for these.
    drop(together(router, &group, [101, 102]).take());
    assert_eq!(dead_numbers(node.bus()), [101, 102]);
    gate.open();
    places(waiting).await;
    assert_eq!(seen.wait_for(30).await, (1..=30).collect::<Vec<_>>());
    let account = at_rest(node.bus()).await;
    assert_eq!((account.deliveries, account.handled, account.dead_lettered), (32, 30, 2));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_together_and_waits_goes_to_the_manager_that_takes_over() {
    let (gate, old, new) = (Gate::closed(), Seen::default(), Seen::default());
    let manager = Manager::new("m").inbox(1).worker(keeps_behind(&gate, &old)).handles::<Noted>();
    let node = started(App::new("here").manager(manager)).await;
    let (router, first) = (node.router(), group(&node, "m"));
    assert!(together(router, &first, [1]).arrive().is_empty());
    gate.arrived(1).await;
    let waiting = together(router, &first, 2..=20).arrive();
    let replacing = {
        let (node, manager) = (node.clone(), Manager::new("m").worker(keeps(&new)).handles::<Noted>());
        tokio::spawn(async move { node.replace(manager).await })
    };
    until("the old group to be closed", || first.is_closed()).await;
    let placing = tokio::spawn(places(waiting));
    gate.open();
    within("the change", replacing).await.expect("no panic").expect("replaced");
    within("places", placing).await.expect("no panic");
    // What is addressed to the old one still is for the new one, also together.
    assert!(together(router, &first, 21..=30).arrive().is_empty());
    until("all to be handled", || old.len() + new.len() == 30).await;
    assert_eq!([old.list(), new.list()].concat(), (1..=30).collect::<Vec<_>>());
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_together_keeps_the_order_of_each_key_and_overflows_by_the_policy() {
    let seen = Seen::default();
    let manager = Manager::new("m").inbox(2).workers(4, keeps(&seen)).keyed().handles::<Noted>();
    let node = started(App::new("here").manager(manager)).await;
    let (router, m) = (node.router(), group(&node, "m"));
    let mut arrivals = router.arrivals(&m);
    for number in 0..100 {
        assert!(arrivals.push(notes_of(router, &format!("k{}", number % 7), number)));
    }
    let waiting = arrivals.arrive();
    places(waiting).await;
    let came = seen.wait_for(100).await;
    for key in 0..7 {
        let of: Vec<_> = came.iter().filter(|number| *number % 7 == key).collect();
        assert!(of.is_sorted() && of.len() == if key < 2 { 15 } else { 14 }, "{of:?}");
    }
    ends_well(&node).await;
    for (overflow, dead) in [(Overflow::DropNewest, [4, 5]), (Overflow::DropOldest, [2, 3])] {
        let gate = Gate::closed();
        let worker = keeps_behind(&gate, &Seen::default());
        let manager = Manager::new("m").inbox(2).overflow(overflow).worker(worker).handles::<Noted>();
        let node = started(App::new("here").manager(manager)).await;
        let (router, m) = (node.router(), group(&node, "m"));
        assert!(together(router, &m, [1]).arrive().is_empty());
        gate.arrived(1).await;
        assert!(together(router, &m, 2..=5).arrive().is_empty());
        assert_eq!(dead_numbers(node.bus()), dead);
        gate.open();
        assert_eq!(at_rest(node.bus()).await.handled, 3);
    }
}

// ---- calls -------------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Told(Mutex<Vec<(u64, Result<serde_json::Value, String>)>>);

impl Outcomes for Told {
    fn outcome(&self, call: u64, outcome: Outcome) {
        let outcome = match outcome {
            Ok(value) => Ok(value.into_body(edri::Encoding::Json).and_then(|body| body.decode()).expect("a number")),
            Err(error) => Err(error.code().to_owned()),
        };
        self.0.lock().push((call, outcome));
    }
}

impl Told {
    async fn next(&self) -> (u64, Result<serde_json::Value, String>) {
        until("an outcome", || !self.0.lock().is_empty()).await;
        self.0.lock().remove(0)
    }
}

fn asks(router: &Router, call: u64) -> (Ticket, Delivery) {
    let ticket = router.await_call(call).expect("room");
    let payload = serde_json::json!({"number": call});
    let envelope = envelope(router, "test.asked", Kind::Request, payload, None);
    (ticket, Delivery::arriving(envelope, ReplyTo::Response(ticket)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_from_another_node_is_answered_through_the_sink_whatever_becomes_of_it() {
    let gate = Gate::closed();
    let begun = Seen::default();
    let sees = {
        let (gate, begun) = (gate.clone(), begun.clone());
        does(move |asked: &Asked, cx: &mut Context| {
            let (gate, number) = (gate.clone(), asked.number);
            begun.add(number);
            async move {
                if number == 3 {
                    cx.cancelled().await;
                }
                gate.pass().await;
                if number == 2 { Err(Failure::new("no_model", "none")) } else { Ok(number) }
            }
            .boxed()
        })
    };
    let manager = Manager::new("m").inbox(1).worker(sees).handles::<Asked>();
    let node = started(App::new("here").manager(manager)).await;
    let (router, told) = (node.router(), Arc::new(Told::default()));
    router.set_outcomes(Arc::clone(&told) as Arc<dyn Outcomes>);
    let m = group(&node, "m");
    gate.let_through(3);
    for call in [1, 2] {
        assert!(matches!(router.arrive(&m, asks(router, call).1), Arrived::Taken));
        let expect = if call == 2 { Err("no_model".to_owned()) } else { Ok(1.into()) };
        assert_eq!(told.next().await, (call, expect));
    }
    // Its node does not want the answer any more: the handler sees that, and is answered for all the same.
    let (ticket, delivery) = asks(router, 3);
    router.arrive(&m, delivery);
    begun.wait_for(3).await;
    assert!(router.forgo(ticket));
    assert_eq!(told.next().await, (3, Ok(3.into())));
    assert!(!router.forgo(ticket), "it is over");
    // Held up at the gate, queued, and without room.
    router.arrive(&m, asks(router, 4).1);
    gate.arrived(4).await;
    router.arrive(&m, asks(router, 5).1);
    let Arrived::Waits(arrival) = router.arrive(&m, asks(router, 6).1) else { panic!("there is no room") };
    drop(arrival);
    assert_eq!(told.next().await, (6, Err("worker_lost".to_owned())));
    gate.open();
    assert_eq!(told.next().await, (4, Ok(4.into())));
    assert_eq!(told.next().await, (5, Ok(5.into())));
    // A group that does not answer this event: by pattern nobody answers.
    let subscription = node.bus().untyped().subscribe("test.>").await.expect("subscribed");
    let groups = router.groups();
    let by_pattern = groups.last().expect("the subscription");
    assert!(matches!(router.arrive(by_pattern, asks(router, 7).1), Arrived::Nobody));
    assert_eq!(told.next().await, (7, Err("no_handler".to_owned())));
    drop(subscription);
    let m = group(&node, "m");
    node.drain("m").await.expect("drained");
    assert!(matches!(router.arrive(&m, asks(router, 8).1), Arrived::Nobody));
    assert_eq!(told.next().await, (8, Err("no_handler".to_owned())));
    // One that is left open when the node stops.
    let (_ticket, _delivery) = asks(router, 9);
    ends_well(&node).await;
    assert_eq!(told.next().await, (9, Err("worker_lost".to_owned())));
    assert_eq!(node.topology().pending, 0);
}
