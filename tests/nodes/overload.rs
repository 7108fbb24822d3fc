//! A group of another node that is slow holds up who publishes to it, and nobody else.

use std::time::Duration;

use edri::prelude::*;
use futures_util::FutureExt;

use super::{Cluster, address};
use crate::support::{
    Asked, Followed, Gate, Noted, Seen, asked, ends_well, keeps, keeps_behind, noted, publishers_wait, started, until,
    within,
};

/// Publishes until there is no room at once; the number that waits, and its publishing.
async fn fill(node: &Node) -> (u64, tokio::task::JoinHandle<Result<u32, PublishError>>) {
    let mut number = 0;
    loop {
        let bus = node.bus().clone();
        let mut publishing = tokio::spawn(async move { Ok(bus.publish(noted(number)).await?.deliveries) });
        // Longer than credit takes to come.
        match tokio::time::timeout(Duration::from_millis(500), &mut publishing).await {
            Ok(done) => assert!(done.expect("no panic").is_ok()),
            Err(_) => return (number, publishing),
        }
        number += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_manager_on_another_node_holds_up_its_publisher_and_no_other_group() {
    let (gate, slow, quick, other) = (Gate::closed(), Seen::default(), Seen::default(), Seen::default());
    let slow_one = Manager::new("slow").inbox(4).worker(keeps_behind(&gate, &slow)).handles::<Noted>();
    let quick_one = Manager::new("quick").worker(keeps(&quick)).handles::<Followed>().handles::<Asked>();
    let elsewhere = Manager::new("elsewhere").worker(keeps(&other)).handles::<Followed>();
    let cluster = Cluster::new();
    let switch = started(App::new("switch").connector(cluster.listening("switch").switch())).await;
    let centre = cluster.dials("centre", address(&switch), &[], |app| app.manager(slow_one).manager(quick_one)).await;
    let far = cluster.dials("far", address(&switch), &[], |app| app.manager(elsewhere)).await;
    let connector = cluster.dialling("sensor", address(&switch)).outbox(8);
    let sensor = started(App::new("sensor").connector(connector).expects("centre").expects("far")).await;
    super::knows(&sensor, 3).await;
    // This one's subscription is slow, too.
    let mut subscription = far.bus().subscribe::<Noted>().capacity(4).await.expect("subscribed");
    super::knows(&sensor, 4).await;

    let (waits, publishing) = fill(&sensor).await;
    for number in 0..300 {
        let published = within("room", sensor.bus().publish(Followed { number })).await.expect("published");
        assert_eq!(published.deliveries, 2);
    }
    assert_eq!(within("an answer", sensor.bus().request(asked(1000))).await.expect("answered"), 1000);
    assert_eq!(other.wait_for(300).await, (0..300).collect::<Vec<_>>());
    assert_eq!(quick.wait_for(301).await.len(), 301);
    assert!(!publishing.is_finished());

    gate.open();
    for number in 0..waits {
        assert_eq!(within("an event", subscription.next()).await.expect("one more").number, number);
    }
    assert_eq!(within("the publisher", publishing).await.expect("no panic").expect("published"), 2);
    assert_eq!(slow.wait_for(waits as usize + 1).await, (0..=waits).collect::<Vec<_>>());
    assert_eq!(within("the last", subscription.next()).await.expect("one more").number, waits);
    drop(subscription);
    for node in [&sensor, &centre, &far, &switch] {
        ends_well(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_waits_for_another_node_as_long_as_it_may_and_is_told_for_whom() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager = Manager::new("slow").inbox(1).worker(keeps_behind(&gate, &seen)).handles::<Noted>();
    let cluster = Cluster::new();
    let centre = cluster.listens("centre", |app| app.manager(manager)).await;
    let connector = cluster.dialling("sensor", address(&centre)).outbox(1);
    let app = App::new("sensor").connector(connector).limits(publishers_wait(Duration::from_secs(1)));
    let sensor = started(app.expects("centre")).await;
    super::knows(&sensor, 1).await;
    let (waits, publishing) = fill(&sensor).await;
    match within("the wait", publishing).await.expect("no panic").expect_err("no room") {
        PublishError::Overloaded { wait, .. } => {
            let name = wait.groups[0].to_string();
            assert!(name.contains("centre") && name.contains("slow"), "{name}");
        }
        other => panic!("{other}"),
    }
    gate.open();
    assert_eq!(seen.wait_for(waits as usize).await, (0..waits).collect::<Vec<_>>());
    // There is room again.
    until("room", || sensor.bus().publish(noted(waits)).now_or_never().is_some_and(|published| published.is_ok()))
        .await;
    ends_well(&sensor).await;
    ends_well(&centre).await;
}

/// With room for one, the last that may be sent is sent again and again, now and then just when it is published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_never_waits_for_room_on_another_node_that_is_there() {
    const COUNT: u64 = 6000;
    let seen = Seen::default();
    let sink = Manager::new("sink").inbox(1).worker(keeps(&seen)).handles::<Followed>();
    let cluster = Cluster::new();
    let centre = cluster.listens("centre", |app| app.manager(sink)).await;
    let connector = cluster.dialling("sensor", address(&centre)).outbox(4);
    let sensor = started(App::new("sensor").connector(connector).expects("centre")).await;
    super::knows(&sensor, 1).await;
    let (bus, runtime) = (sensor.bus().clone(), tokio::runtime::Handle::current());
    let publishing = tokio::task::spawn_blocking(move || {
        for number in 0..COUNT {
            runtime.block_on(within("room", bus.publish(Followed { number }))).expect("published");
            // From much faster than what is sent is acknowledged to somewhat slower.
            let until = std::time::Instant::now() + Duration::from_micros(number % 40 * 10);
            while std::time::Instant::now() < until {
                std::hint::spin_loop();
            }
        }
    });
    publishing.await.expect("no panic");
    assert_eq!(seen.wait_for(COUNT as usize).await, (0..COUNT).collect::<Vec<_>>());
    ends_well(&sensor).await;
    ends_well(&centre).await;
}
