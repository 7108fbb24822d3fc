//! Publishing and subscribing across nodes.

use std::time::Duration;

use edri::prelude::*;
use edri::system::NodeChanged;
use edri::{LinkState, Reason, TraceContext, TryPublishError};
use futures_util::FutureExt;

use super::{Cluster, WAYS, Way, publish, reaches, seen_by};
use crate::support::{
    Followed, Gate, Noted, Seen, does, ends_well, keeps, keeps_behind, keyed, letters, noted, started, until, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_publishing_reaches_another_node() {
    for way in WAYS {
        let seen = Seen::default();
        let manager = Manager::new("keep").worker(keeps(&seen)).handles::<Noted>();
        let pair = Cluster::new().pair(way, |app| app.manager(manager), |app| app).await;
        let bus = pair.sensor.bus();
        // Known here by what the other node says of it.
        within("somebody", bus.untyped().wait_for("test.noted")).await.expect("somebody");
        let body = |number: u64| Body::encode(edri::Encoding::Json, &noted(number)).expect("encoded");
        let mut deliveries = 0;
        deliveries += bus.publish(noted(0)).await.expect("published").deliveries;
        deliveries += bus.try_publish(noted(1)).expect("room").deliveries;
        let batch = within("room", bus.publish_batch((2..5).map(noted))).await.expect("published");
        deliveries += batch.deliveries;
        deliveries += bus.untyped().publish("test.noted", body(5)).await.expect("published").deliveries;
        deliveries += bus.untyped().try_publish("test.noted", body(6)).expect("room").deliveries;
        assert_eq!(deliveries, 7);
        assert_eq!(seen.wait_for(7).await, (0..7).collect::<Vec<_>>(), "{way:?}");
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_another_node_are_timed_from_their_coming() {
    let seen = Seen::default();
    let manager = Manager::new("keep").worker(keeps(&seen)).handles::<Noted>();
    let pair = Cluster::new().pair(Way::Direct, |app| app.manager(manager), |app| app).await;
    super::knows(&pair.sensor, 1).await;
    // One in 128 is timed, by its number, which others count on too.
    publish(&pair.sensor, 0..2000).await;
    seen.wait_for(2000).await;
    let (handled, waited) = {
        let keep = pair.centre.topology().manager("keep").cloned().expect("it runs");
        (keep.handling.expect("some were timed"), keep.queued.expect("some were timed"))
    };
    assert!(handled.count > 0 && waited.count > 0, "{handled:?} {waited:?}");
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_only_another_node_has_declared_is_published_without_its_type() {
    let seen = Seen::default();
    let manager = Manager::new("keep").worker(keeps(&seen)).handles::<Noted>();
    let pair = Cluster::new().pair(Way::Switch, |app| app.manager(manager), |app| app).await;
    let bus = pair.sensor.bus().untyped();
    within("somebody", bus.wait_for("test.noted")).await.expect("somebody");
    let body = Body::encode(edri::Encoding::Json, &serde_json::json!({ "key": "k", "number": 7 })).expect("encoded");
    assert_eq!(bus.publish("test.noted", body).await.expect("published").deliveries, 1);
    assert_eq!(seen.wait_for(1).await, [7]);
    // What it is not is said by the worker's node, as a dead letter.
    let wrong = Body::encode(edri::Encoding::Json, &serde_json::json!({ "key": "k", "number": "x" })).expect("encoded");
    assert_eq!(bus.publish("test.noted", wrong).await.expect("published").deliveries, 1);
    until("the dead letter", || !letters(pair.centre.bus()).is_empty()).await;
    assert_eq!(letters(pair.centre.bus())[0].0, Reason::InvalidPayload);
    assert_eq!(letters(pair.sensor.bus()), []);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_select_by_name_pattern_key_and_filter_across_nodes() {
    for way in WAYS {
        let pair = Cluster::new().pair(way, |app| app, |app| app).await;
        let (centre, sensor) = (pair.centre.bus(), pair.sensor.bus());
        let mut all = centre.subscribe::<Noted>().await.expect("subscribed");
        let mut north = centre.subscribe::<Noted>().key("north").await.expect("subscribed");
        let mut even = centre.subscribe::<Noted>().filter(|event| event.number % 2 == 0).await.expect("subscribed");
        let mut pattern = centre.untyped().subscribe("test.*").await.expect("subscribed");
        super::knows(&pair.sensor, 4).await;
        for number in 0..6 {
            let key = if number < 3 { "north" } else { "south" };
            let receipt = sensor.publish(keyed(key, number)).await.expect("published");
            assert_eq!(receipt.deliveries, if number < 3 { 4 } else { 3 }, "{way:?}: filters run at the subscriber");
        }
        sensor.publish(Followed { number: 6 }).await.expect("published");
        for number in 0..6 {
            assert_eq!(within("an event", all.next()).await.expect("one more").number, number);
        }
        for number in 0..3 {
            assert_eq!(within("an event", north.next()).await.expect("one more").number, number);
        }
        for number in [0, 2, 4] {
            assert_eq!(within("an event", even.next()).await.expect("one more").number, number);
        }
        for number in 0..7 {
            let envelope = within("an event", pattern.next()).await.expect("one more");
            let name = if number < 6 { "test.noted" } else { "test.followed" };
            assert_eq!((envelope.name().as_str(), envelope.head().origin.node.as_str()), (name, "sensor"));
        }
        drop((all, north, even, pattern));
        until("the subscriptions to be gone", || pair.sensor.topology().remote.is_empty()).await;
        assert_eq!(sensor.publish(keyed("north", 7)).await.expect("published").deliveries, 0);
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn try_publish_takes_places_on_all_nodes_or_hands_the_event_back() {
    let (gate, seen, here) = (Gate::closed(), Seen::default(), Seen::default());
    let slow = Manager::new("slow").inbox(1).worker(keeps_behind(&gate, &seen)).handles::<Noted>();
    let local = Manager::new("local").worker(keeps(&here)).handles::<Noted>();
    let cluster = Cluster::new();
    let centre = cluster.listens("centre", |app| app.manager(slow)).await;
    let connector = cluster.dialling("sensor", super::address(&centre)).outbox(2);
    let sensor = started(App::new("sensor").manager(local).connector(connector).expects("centre")).await;
    super::knows(&sensor, 1).await;
    let mut accepted = 0;
    let full = async {
        loop {
            match sensor.bus().try_publish(noted(accepted)) {
                Ok(receipt) => {
                    assert_eq!(receipt.deliveries, 2);
                    accepted += 1;
                    tokio::task::yield_now().await;
                }
                Err(TryPublishError::Full { event, group }) => {
                    if group.node().is_none() {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    assert_eq!((event.number, group.to_string().contains("slow")), (accepted, true), "{group}");
                    // It may be that the other node is only about to take more.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    if sensor.topology().remote[0].depths == [2] {
                        return;
                    }
                }
                Err(other) => panic!("{other}"),
            }
        }
    };
    within("all to be full", full).await;
    // One in hand, one in the inbox, as many as its credit is on the way, two in the outbox.
    assert!(accepted <= 8, "{accepted}");
    until("the local ones", || here.len() as u64 == accepted).await;
    gate.open();
    assert_eq!(seen.wait_for(accepted as usize).await, (0..accepted).collect::<Vec<_>>());
    ends_well(&sensor).await;
    ends_well(&centre).await;
    assert_eq!(here.len() as u64, accepted, "nowhere more than elsewhere");
}

/// What a handler on another node saw of an event.
#[derive(Clone)]
struct Sight {
    envelope: Envelope,
    remaining: Option<Duration>,
    redelivered: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envelope_arrives_as_it_was_sent() {
    for way in WAYS {
        let sights = Seen::default();
        let watching = sights.clone();
        let watch = does(move |_: &Followed, cx| {
            let envelope = cx.envelope().expect("in hand").clone();
            watching.add(Sight { envelope, remaining: cx.remaining(), redelivered: cx.is_redelivered() });
            async { Ok(()) }.boxed()
        });
        let relay = does(|event: &Noted, cx| {
            async move {
                cx.publish(Followed { number: event.number }).await?;
                Ok(())
            }
            .boxed()
        });
        let watch = Manager::new("watch").worker(watch).handles::<Followed>();
        let relay = Manager::new("relay").worker(relay).handles::<Noted>();
        let pair = Cluster::new().pair(way, |app| app.manager(watch), |app| app.manager(relay)).await;
        let bus = pair.sensor.bus();
        within("somebody", bus.wait_for::<Followed>()).await.expect("somebody");
        let parent: TraceContext =
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().expect("a trace context");
        let options =
            Options::new().header("colour", "blue").trace(parent).key("its own").time_limit(Duration::from_secs(60));
        let direct = bus.publish_with(Followed { number: 1 }, &options).await.expect("published");
        let first = bus.publish(noted(2)).await.expect("published");
        let sights = sights.wait_for(2).await;
        let [direct_sight, caused] = [&sights[0], &sights[1]];
        let head = direct_sight.envelope.head();
        assert_eq!((head.id, head.cause), (direct.id, None));
        assert_eq!(head.headers().and_then(|headers| headers.get("colour")), Some("blue"));
        assert_eq!(direct_sight.envelope.trace().trace_id(), parent.trace_id());
        direct_sight.envelope.with_key(|key| assert_eq!(key, Some("its own")));
        let remaining = direct_sight.remaining.expect("it has a time to live");
        assert!(remaining > Duration::from_secs(30) && remaining <= Duration::from_secs(60), "{remaining:?}");
        assert!(!direct_sight.redelivered);
        let origin = |sight: &Sight| sight.envelope.head().origin.clone();
        assert_eq!(*origin(direct_sight), *bus.address());
        let head = caused.envelope.head();
        assert_eq!((head.cause, origin(caused).manager.as_ref().map(|m| m.as_str())), (Some(first.id), Some("relay")));
        assert_eq!(origin(caused).incarnation, bus.address().incarnation);
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_on_the_node_whose_worker_failed() {
    let fails = does(|_: &Noted, _| async { Err(Failure::new("broken", "it is broken")) }.boxed());
    let manager = Manager::new("fails").worker(fails).handles::<Noted>();
    let pair = Cluster::new().pair(Way::Switch, |app| app.manager(manager), |app| app).await;
    within("somebody", pair.sensor.bus().wait_for::<Noted>()).await.expect("somebody");
    publish(&pair.sensor, 0..3).await;
    until("the letters", || letters(pair.centre.bus()).len() == 3).await;
    assert!(letters(pair.centre.bus()).iter().all(|letter| letter.0 == Reason::Failed && letter.2 == 1));
    assert_eq!(letters(pair.sensor.bus()), []);
    let (sensor, centre) = pair.end().await;
    assert_eq!((sensor.account.forwarded, centre.account.dead_lettered), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_come_and_go_are_told_of_and_shown() {
    let cluster = Cluster::new();
    let switch = started(App::new("switch").connector(cluster.listening("switch").switch())).await;
    let mut changes = switch.bus().subscribe::<NodeChanged>().await.expect("subscribed");
    let mut change = async |node: &str, state: &str| loop {
        let change = within("a change", changes.next()).await.expect("one more");
        if change.node == node {
            assert_eq!((change.node.as_str(), change.state.as_str()), (node, state));
            return change.incarnation.clone();
        }
    };
    let centre = cluster.dials("centre", super::address(&switch), &["switch"], |app| app).await;
    let first = change("centre", "reachable").await;
    let sensor = cluster.dials("sensor", super::address(&switch), &["centre", "switch"], |app| app).await;
    let view = seen_by(&sensor, "centre").expect("known");
    assert_eq!((view.incarnation.to_string(), view.distance), (first.clone(), Some(2)));
    assert_eq!((view.via.as_ref().map(|via| via.as_str()), view.switch), (Some("switch"), false));
    assert!(seen_by(&sensor, "switch").expect("known").switch);
    until("the link to be shown", || !sensor.topology().links.is_empty()).await;
    let links = sensor.topology().links;
    assert_eq!((links.len(), links[0].state, links[0].dialled), (1, LinkState::Up, true), "{links:?}");
    assert_eq!(links[0].peer.as_ref().map(|peer| peer.as_str()), Some("switch"));
    let _ = change("sensor", "reachable").await;

    ends_well(&centre).await;
    // It goes in good order: it is not lost first.
    let mut states = Vec::new();
    while states.last().map(String::as_str) != Some("gone") {
        let change = within("a change", changes.next()).await.expect("one more");
        if change.node == "centre" {
            states.push(change.state.clone());
        }
    }
    reaches(&sensor, "centre", false).await;
    ends_well(&sensor).await;
    drop(changes);
    ends_well(&switch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_subscriptions_of_a_node_are_known_at_another_and_forgotten_there() {
    const SUBSCRIPTIONS: usize = 2000;
    let pair = Cluster::new().pair(Way::Direct, |app| app, |app| app).await;
    let (centre, sensor) = (pair.centre.bus(), pair.sensor.bus());
    let mut all = Vec::new();
    for number in 0..SUBSCRIPTIONS {
        let subscribing = centre.subscribe::<Noted>().key(&number.to_string()).capacity(2);
        all.push(within("a subscription", subscribing).await.expect("subscribed"));
    }
    until("all to be known", || pair.sensor.topology().remote.len() == SUBSCRIPTIONS).await;
    let noted = Noted { key: "1999".to_owned(), number: 7 };
    assert_eq!(within("room", sensor.publish(noted)).await.expect("published").deliveries, 1);
    let last = all.last_mut().expect("there are some");
    assert_eq!(within("the event", last.next()).await.expect("it comes").number, 7);
    drop(all);
    until("all to be forgotten", || pair.sensor.topology().remote.is_empty()).await;
    pair.end().await;
}
