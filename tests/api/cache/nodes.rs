//! Notifications from other nodes, and those that could not come.

use tokio::time::{Instant, sleep};

use super::*;
use crate::nodes::{Cluster, reaches};
use crate::support::LIMIT;

/// Asks until two answers after one another are one, and are not the one of this number.
async fn kept(node: &Node, path: &str, not: u64) -> u64 {
    let limit = Instant::now() + LIMIT;
    loop {
        let (one, other) = (times(&get(node, path).await), times(&get(node, path).await));
        if one == other && one != not {
            return one;
        }
        assert!(Instant::now() < limit, "{path} is not kept, or not asked again: {one}, {other}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_of_another_node_ends_what_it_makes_stale() {
    let desk = Desk::default();
    let (staff, cluster) = (desk.staff(), Cluster::new());
    let (pair, _proxy) = cluster
        .apart(
            71,
            |app, connector| staff.into_iter().fold(app.connector(connector), App::manager),
            |app, connector| app.connector(connector).api(gateway()),
        )
        .await;
    until("the events of the other node", || {
        pair.sensor.bus().events().iter().any(|event| *event.name() == "kept.tickets")
    })
    .await;
    // The other node may not know yet what is wanted here.
    let early = [times(&get(&pair.sensor, "/tickets/1").await), times(&get(&pair.sensor, "/tickets/1").await)];
    assert_ne!(early[0], early[1]);
    let one = kept(&pair.sensor, "/tickets/1", 0).await;
    let other = kept(&pair.sensor, "/tickets/2", 0).await;
    for _ in 0..3 {
        pair.centre.bus().publish(Changed { id: 1 }).await.expect("published");
        let again = kept(&pair.sensor, "/tickets/1", one).await;
        assert!(again > one);
    }
    assert_eq!(times(&get(&pair.sensor, "/tickets/2").await), other, "it has another key");
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_sees_what_it_has_changed_on_another_node() {
    let desk = Desk::default();
    let (staff, cluster) = (desk.staff(), Cluster::new());
    let (pair, _proxy) = cluster
        .apart(
            73,
            |app, connector| staff.into_iter().fold(app.connector(connector), App::manager),
            |app, connector| app.connector(connector).api(gateway()),
        )
        .await;
    let node = &pair.sensor;
    until("the events of the other node", || node.bus().events().iter().any(|event| *event.name() == "kept.tickets"))
        .await;
    kept(node, "/tickets/1", 0).await;
    for _ in 0..100 {
        let changed = ask(node, "POST /tickets/1/change", &[], "").await;
        let shown = get(node, "/tickets/1").await;
        assert_eq!(shown.json()["changes"], changed.json(), "the notification may come later than the answer");
    }
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_cannot_be_reached_nothing_is_kept_that_it_might_have_ended() {
    let desk = Desk::default();
    let (staff, cluster) = (desk.staff(), Cluster::new());
    let (pair, proxy) = cluster
        .apart(
            72,
            |app, connector| app.connector(connector).api(gateway().event::<Changed>()),
            |app, connector| staff.into_iter().fold(app.connector(connector).api(gateway()), App::manager),
        )
        .await;
    let node = &pair.sensor;
    let before = kept(node, "/tickets/1", 0).await;
    let rate = kept(node, "/rates/eur", 0).await;
    proxy.cut();
    pair.centre.bus().publish(Changed { id: 1 }).await.expect("published");
    reaches(node, "centre", false).await;
    let limit = Instant::now() + LIMIT;
    while times(&get(node, "/tickets/1").await) == before {
        assert!(Instant::now() < limit, "it is stale, and given again");
    }
    let asked = times(&get(node, "/tickets/1").await);
    assert!(times(&get(node, "/tickets/1").await) > asked, "what ends it might be under way");
    assert_eq!(times(&get(node, "/rates/eur").await), rate, "nothing but time ends it");
    proxy.mend();
    reaches(node, "centre", true).await;
    let after = kept(node, "/tickets/1", before).await;
    pair.centre.bus().publish(Changed { id: 1 }).await.expect("published");
    kept(node, "/tickets/1", after).await;
    pair.end().await;
}
