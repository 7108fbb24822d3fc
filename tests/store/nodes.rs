//! A namespace is the same from every node, through cut links and new lives; and has one owner among all of them.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::store::event::{What, descriptors};
use edri_router::Deferred;
use edri_tests::proxy::{Proxy, Weather};

use super::disk::Folder;
use super::{code, next, text};
use crate::nodes::{Cluster, address, reaches};
use crate::support::{LIMIT, ends_well, view, within};

fn keeping() -> Store {
    Store::memory().namespace("things")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_the_same_from_every_node() {
    let cluster = Cluster::new();
    let centre = cluster.listens("centre", |app| app.manager(keeping())).await;
    let sensor = cluster.dials("sensor", address(&centre), &["centre"], |app| app).await;
    let (here, there) = (Namespace::new(centre.bus(), "things"), Namespace::new(sensor.bus(), "things"));
    let version = there.set("a", &text("one")).await.expect("is set");
    assert_eq!(here.get("a").await.expect("answers").as_deref(), Some("one"));
    here.set("a", &text("two")).if_version(version).await.expect("is set");
    assert_eq!(code(there.set("a", &text("three")).if_version(version).await), "version_mismatch");
    assert_eq!(there.get("a").await.expect("answers").as_deref(), Some("two"));
    let mut watching = there.watch("").await.expect("watches");
    assert_eq!((next(&mut watching).await.what, next(&mut watching).await.what), (What::Is, What::Ready));
    here.delete("a").await.expect("is deleted");
    assert_eq!(next(&mut watching).await.what, What::Deleted);
    drop(watching);
    ends_well(&sensor).await;
    ends_well(&centre).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_cut_links_every_write_is_done_once_and_a_watch_misses_nothing() {
    let (pair, proxy) = Cluster::new()
        .apart(
            61,
            |app, connector| app.connector(connector).manager(keeping()),
            |app, connector| app.connector(connector),
        )
        .await;
    let there = Namespace::<i64>::new(pair.sensor.bus(), "things");
    let mut watching = there.watch("").await.expect("watches");
    assert_eq!(next(&mut watching).await.what, What::Ready);
    let writers = (0..8).map(|writer| {
        let there = there.clone();
        tokio::spawn(async move {
            for number in 1..=100 {
                let sum = there.increment(&format!("n{writer}"), 1).await.expect("is done");
                assert_eq!(sum, number, "once");
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let cutting = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            proxy.cut();
            // Long enough for both sides to see it.
            reaches(&pair.sensor, "centre", false).await;
            proxy.mend();
            reaches(&pair.sensor, "centre", true).await;
        }
    };
    let watched = async {
        let (mut model, mut last) = (BTreeMap::new(), 0);
        while model.values().sum::<i64>() < 800 {
            let change = next(&mut watching).await;
            assert!(change.what == What::Set && change.version > last);
            last = change.version;
            let value = change.value.expect("a value");
            assert_eq!(value, model.insert(change.key, value).unwrap_or(0) + 1, "no change is missing");
        }
    };
    tokio::time::timeout(3 * LIMIT, async { tokio::join!(cutting, watched) }).await.expect("in time");
    for writer in writers {
        within("a writer", writer).await.expect("is done");
    }
    drop(watching);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_claim_of_a_namespace_is_refused_by_name() {
    let cluster = Cluster::new();
    let centre = cluster.listens("centre", |app| app.manager(keeping())).await;
    let there = cluster.dials("sensor", address(&centre), &["centre"], |app| app).await;
    let second = there.add(Store::memory().named("second").namespace("things")).await;
    let error = second.expect_err("is refused").to_string();
    assert!(error.contains("namespace_taken") && error.contains("manager `store` of node `centre`"), "{error}");
    let namespace = Namespace::new(there.bus(), "things");
    within("an answer", namespace.set("a", &text("x")).into_future()).await.expect("the first goes on");
    ends_well(&there).await;
    ends_well(&centre).await;
}

/// Is asked who has a namespace, and does not say.
#[derive(Default)]
struct Mute(Vec<Deferred>);

impl Worker for Mute {}

impl HandleAny for Mute {
    async fn handle(&mut self, _: &Envelope, cx: &mut Context) -> Result<Option<Value>, Failure> {
        self.0.push(cx.defer_untyped()?);
        Err(Failure::deferred())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_say_what_it_has_holds_up_no_expiry() {
    let cluster = Cluster::new();
    let centre = cluster.listens("centre", |app| app.manager(keeping())).await;
    let [claim] = <[_; 1]>::try_from(
        descriptors("things")
            .expect("a name")
            .into_iter()
            .filter(|it| it.name().as_str().ends_with(".claim"))
            .collect::<Vec<_>>(),
    )
    .expect("one");
    let mute = Manager::new("mute").worker(Mute::default).handles_any("store.things.claim").declares(claim);
    let sensor = cluster.dials("sensor", address(&centre), &["centre"], |app| app.manager(mute)).await;
    reaches(&centre, "sensor", true).await;
    let things = Namespace::new(centre.bus(), "things");
    let mut watching = things.watch("").await.expect("watches");
    assert_eq!(next(&mut watching).await.what, What::Ready);
    // Some expire while it is asked, which it is soon after the nodes have met.
    for number in 0..10 {
        let (key, began) = (number.to_string(), Instant::now());
        things.set(&key, &text("x")).expires_in(Duration::from_millis(100)).await.expect("is set");
        assert_eq!(next(&mut watching).await.what, What::Set);
        assert_eq!(next(&mut watching).await.what, What::Expired);
        assert!(began.elapsed() < Duration::from_millis(1100), "{:?}", began.elapsed());
    }
    assert!(view(&sensor, "mute").account.deliveries > 0, "it was asked");
    // Asked to stop, it would wait for its worker to answer.
    drop((watching, sensor));
    within("the end", centre.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_claims_that_meet_later_the_later_one_stops_answering_and_says_so() {
    let cluster = Cluster::new();
    let centre = cluster.listens("centre", |app| app.manager(keeping())).await;
    let proxy = Proxy::start(address(&centre), Weather::default(), 62).await.expect("a proxy");
    proxy.cut();
    let sensor = cluster.dials("sensor", proxy.address(), &[], |app| app.manager(keeping())).await;
    let (here, there) = (Namespace::new(centre.bus(), "things"), Namespace::new(sensor.bus(), "things"));
    here.set("a", &text("first")).await.expect("is set");
    there.set("a", &text("second")).await.expect("is set");
    proxy.mend();
    reaches(&sensor, "centre", true).await;
    let refused = async {
        loop {
            match there.get("a").await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return error,
            }
        }
    };
    let error = within("the later to give up", refused).await;
    assert_eq!(error.code(), "namespace_taken");
    assert!(error.to_string().contains("node `centre`"), "{error}");
    assert_eq!(here.get("a").await.expect("answers").as_deref(), Some("first"), "the earlier goes on");
    ends_well(&sensor).await;
    ends_well(&centre).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_whose_store_dies_and_comes_back_goes_on_and_does_nothing_twice() {
    let folder = Folder::new("back");
    let path = folder.file("store");
    let keeping = || Store::open(&path).namespace("things");
    let cluster = Cluster::new();
    let first = cluster.listens("centre", |app| app.manager(keeping())).await;
    let proxy = Proxy::start(address(&first), Weather::default(), 63).await.expect("a proxy");
    let sensor = cluster.dials("sensor", proxy.address(), &["centre"], |app| app).await;
    let things = Namespace::<i64>::new(sensor.bus(), "things").time_limit(2 * LIMIT);
    let writers = (0..8).map(|writer| {
        let things = things.clone();
        tokio::spawn(async move {
            for number in 1..=200 {
                assert_eq!(things.increment(&format!("n{writer}"), 1).await.expect("is done"), number, "once");
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let there = Namespace::<i64>::new(first.bus(), "things");
    within("some writes", async {
        while there.get("n0").await.expect("answers").is_none_or(|count| count < 20) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // What it had not answered by now is asked of its next life.
    drop((first, there));
    let second = within("the file to be closed", async {
        loop {
            let app = App::new("centre").manager(keeping()).connector(cluster.listening("centre"));
            match app.start().await {
                Ok(node) => return node,
                Err(error) => assert!(error.to_string().contains("open already"), "{error}"),
            }
        }
    })
    .await;
    proxy.turn_to(address(&second));
    for writer in writers {
        tokio::time::timeout(2 * LIMIT, writer).await.expect("in time").expect("is done");
    }
    ends_well(&sensor).await;
    ends_well(&second).await;
}
