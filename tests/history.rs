//! Histories of a node: who comes late, or comes back, gets what was missed.

use edri::prelude::*;
use edri::{Missed, Received, Recorded, Replay, Since, StartError};
use edri_tests::proxy::Weather;
use futures_util::FutureExt;

use crate::nodes::{Cluster, knows, reaches};
use crate::support::{Noted, Seen, ends_well, keeps, keyed, noted, started, until, within};

type Next = Result<Recorded<Received<Noted>>, Missed>;

/// The numbers of what is there already, or how many were missed.
fn numbers(replay: &mut Replay<Received<Noted>>) -> Vec<Result<u64, Option<u64>>> {
    std::iter::from_fn(|| replay.next().now_or_never().flatten())
        .map(|next: Next| next.map(|recorded| recorded.event.number).map_err(|missed| missed.events))
        .collect()
}

/// The next `count` events, none of which may be missed.
async fn events(replay: &mut Replay<Received<Noted>>, count: usize) -> Vec<Noted> {
    let mut events = Vec::new();
    for _ in 0..count {
        let next = within("an event", replay.next()).await.expect("the node lives");
        events.push((*next.expect("no gap").event).clone());
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_late_gets_what_managers_had_before_and_goes_on_to_the_end_of_the_node() {
    let seen = Seen::default();
    let manager = Manager::new("keep").worker(keeps(&seen)).handles::<Noted>();
    let node = started(App::new("test").manager(manager).history("test.noted", History::new().events(100))).await;
    let bus = node.bus();
    for number in 0..5 {
        assert_eq!(bus.publish(noted(number)).await.expect("published").deliveries, 2);
    }
    let mut late = bus.subscribe::<Noted>().last(3).await.expect("subscribed");
    bus.publish(noted(5)).await.expect("published");
    assert_eq!(numbers(&mut late), [Ok(2), Ok(3), Ok(4), Ok(5)]);
    assert_eq!(seen.wait_for(6).await, (0..6).collect::<Vec<_>>());
    assert!(matches!(bus.untyped().subscribe("test.>").last(1).await, Err(edri::DeclareError::NoHistory(_))));
    // At run time, too.
    node.add_history("test.>", History::new()).await.expect("added");
    bus.publish(noted(6)).await.expect("published");
    let mut wide = bus.untyped().subscribe("test.>").last(9).await.expect("subscribed");
    assert_eq!(wide.next().now_or_never().flatten().expect("is there").expect("no gap").position.number(), 1);
    assert!(node.remove_history("test.>").await.expect("the node lives"));
    assert!(within("the end", wide.next()).await.is_none());
    let account = ends_well(&node).await.account;
    assert_eq!((account.deliveries, account.handled), (15, 15));
    // What it has not read it can still read.
    assert_eq!(within("the last", late.next()).await.expect("is there").expect("no gap").event.number, 6);
    assert!(within("the end", late.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_in_the_history_of_an_earlier_life_is_told_as_a_gap() {
    let start = || started(App::new("test").history("test.noted", History::new()));
    let node = start().await;
    node.bus().publish(noted(0)).await.expect("published");
    let mut first = node.bus().subscribe::<Noted>().last(1).await.expect("subscribed");
    assert_eq!(numbers(&mut first), [Ok(0)]);
    let last = first.position().to_string();
    ends_well(&node).await;
    let node = start().await;
    node.bus().publish(noted(1)).await.expect("published");
    let mut again = node.bus().subscribe::<Noted>().since(Since::from_text(&last)).await.expect("subscribed");
    assert_eq!(numbers(&mut again), [Err(None), Ok(1)]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_cannot_be_keeps_the_node_from_starting() {
    let of = |pattern: &str| App::new("test").history("test.noted", History::new()).history(pattern, History::new());
    assert!(matches!(of("test..").start().await, Err(StartError::Declare(edri::DeclareError::Name(_)))));
    let twice = of("test.noted").start().await;
    assert!(matches!(twice, Err(StartError::Declare(edri::DeclareError::HistoryExists(_)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_has_the_events_of_other_nodes_once_and_in_the_order_of_each_through_a_cut_link() {
    let (pair, proxy) = Cluster::new()
        .apart(
            51,
            |app, connector| app.connector(connector).history("test.noted", History::new().events(5000)),
            |app, connector| app.connector(connector).history("test.noted", History::new().events(5000)),
        )
        .await;
    knows(&pair.sensor, 1).await;
    knows(&pair.centre, 1).await;
    proxy.set_weather(Weather::bad());
    // Both publish, and between two thirds of it they cannot reach each other.
    let publish = |node: &Node, name: &'static str| {
        let bus = node.bus().clone();
        move |numbers: std::ops::Range<u64>| async move {
            for number in numbers {
                let receipt = within("room", bus.publish(keyed(name, number))).await.expect("published");
                assert_eq!(receipt.deliveries, 2, "both histories");
            }
        }
    };
    let (centre, sensor) = (publish(&pair.centre, "centre"), publish(&pair.sensor, "sensor"));
    let mut early = pair.centre.bus().subscribe::<Noted>().key("sensor").last(0).await.expect("subscribed");
    tokio::join!(centre.clone()(0..500), sensor.clone()(0..500));
    proxy.cut();
    reaches(&pair.sensor, "centre", false).await;
    tokio::join!(centre.clone()(500..1000), sensor.clone()(500..1000));
    proxy.mend();
    tokio::join!(centre(1000..1500), sensor(1000..1500));
    for node in [&pair.centre, &pair.sensor] {
        until("the history to have everything", || node.topology().histories[0].recorded == 3000).await;
        let mut late = node.bus().subscribe::<Noted>().last(usize::MAX).await.expect("subscribed");
        let all = events(&mut late, 3000).await;
        for name in ["centre", "sensor"] {
            let of_one: Vec<_> = all.iter().filter(|event| event.key == name).map(|event| event.number).collect();
            assert_eq!(of_one, (0..1500).collect::<Vec<_>>(), "of {name}");
        }
    }
    let early: Vec<_> = events(&mut early, 1500).await.iter().map(|event| event.number).collect();
    assert_eq!(early, (0..1500).collect::<Vec<_>>());
    pair.end().await;
}
