//! Schedulers on several nodes.

use edri::scheduler::event::{Add, Get, Status};

use super::*;
use crate::support::{does, keyed};

const OFTEN: Duration = Duration::from_millis(100);

async fn status(bus: &Bus, node: &str) -> Status {
    let asked = bus.request_at(node, Get { id: "it".to_owned() });
    within("a scheduler to answer", asked).await.expect("it has the entry")
}

/// A manager that writes down which due times it hears of, and whose scheduler's they were.
fn hears(seen: &Seen<(String, String)>) -> impl edri::IntoDefinition + use<> {
    let seen = seen.clone();
    let hears = does(move |_: &Noted, cx| {
        let event = cx.envelope().expect("one is in hand");
        let due = event.header("schedule-due").expect("it was scheduled").to_owned();
        seen.add((due, event.head().origin.node.to_string()));
        Box::pin(async { Ok(()) })
    });
    Manager::new("hears").worker(hears).handles::<Noted>()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_added_from_another_node_and_sent_where_its_scheduler_is() {
    let cluster = Cluster::new();
    let seen = Seen::default();
    let pair = cluster.pair(Way::Direct, |app| app.manager(Scheduler::new()), |app| app.manager(hears(&seen))).await;
    let added = pair.sensor.bus().request(Add(Entry::every(OFTEN, noted(1)).id("it"))).await.expect("it is added");
    assert_eq!(added.id, "it");
    let seen = seen.wait_for(3).await;
    assert!(seen.iter().all(|(_, node)| node == "centre"), "{seen:?}");
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_schedulers_that_claim_a_run_one_sends_it() {
    let cluster = Cluster::new();
    let seen = Seen::default();
    let entry = || Entry::aligned(OFTEN, noted(1)).id("it").at_most_once("claims");
    let store = || Store::memory().namespace("claims");
    let pair = cluster
        .pair(
            Way::Direct,
            |app| app.manager(store()).manager(hears(&seen)).manager(Scheduler::new().entry(entry())),
            |app| app.manager(Scheduler::new().entry(entry())),
        )
        .await;
    // However much later one of them has begun: both have come for these runs, and one each came in vain.
    let (centre, sensor) = within("runs that both come for", async {
        loop {
            let centre = status(pair.sensor.bus(), "centre").await;
            let sensor = status(pair.centre.bus(), "sensor").await;
            if centre.elsewhere + sensor.elsewhere >= 25 {
                return (centre, sensor);
            }
            seen.wait_for(seen.len() + 1).await;
        }
    })
    .await;
    let mut dues: Vec<_> = seen.wait_for(25).await.into_iter().map(|(due, _)| due).collect();
    let count = dues.len();
    dues.sort();
    dues.dedup();
    assert_eq!(dues.len(), count, "a due time was sent twice");
    assert_eq!((centre.failed, sensor.failed), (0, 0));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_store_a_run_is_not_sent_unless_it_is_to_be_sent_at_least_once() {
    let seen = Seen::default();
    let careful = Entry::aligned(OFTEN, noted(1)).id("it").at_most_once("claims");
    let eager = Entry::aligned(OFTEN, keyed("eager", 2)).id("eager").at_least_once("claims");
    let hears = {
        let seen = seen.clone();
        does(move |noted: &Noted, _| {
            seen.add(noted.number);
            Box::pin(async { Ok(()) })
        })
    };
    let scheduler = Scheduler::new().entry(careful).entry(eager);
    let hears = Manager::new("hears").worker(hears).handles::<Noted>();
    let node = started(App::new("alone").manager(scheduler).manager(hears)).await;
    let numbers = seen.wait_for(5).await;
    let status = status(node.bus(), "alone").await;
    assert!(numbers.iter().all(|number| *number == 2), "{numbers:?}");
    assert_eq!(status.last.and_then(|last| last.error).expect("it says so").code, "not_claimed");
    assert_eq!(status.elsewhere, 0);
    ends_well(&node).await;
}
