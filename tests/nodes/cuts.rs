//! Links that are cut, lossy or move: nothing is lost, doubled or out of order, and local groups never wait.

use std::time::{Duration, Instant};

use bytes::Bytes;
use edri::prelude::*;
use edri::{Limits, Reason};
use edri_tests::proxy::Weather;
use futures_util::FutureExt;

use super::{Cluster, Pair, publish, reaches};
use crate::support::{
    Asked, Gate, Noted, Seen, asked, at_rest, dead_numbers, does, keeps, keeps_behind, letters, noted, until, within,
};
use crate::tunnels::{Counted, multiply};

async fn known(pair: &Pair) {
    super::knows(&pair.sensor, 1).await;
}

/// What the letters and the worker have together, each once: all numbers up to `count`, in order at the worker.
fn all_once(seen: &[u64], dead: Vec<u64>, count: u64) {
    assert!(seen.is_sorted_by(|a, b| a < b), "in order, each once");
    let mut all: Vec<u64> = seen.iter().copied().chain(dead).collect();
    all.sort_unstable();
    assert_eq!(all, (0..count).collect::<Vec<_>>(), "every number is somewhere, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_out_of_order_in_bad_weather_and_after_a_move() {
    let seen = Seen::default();
    let manager = Manager::new("keep").worker(keeps(&seen)).handles::<Noted>().handles::<Asked>();
    let (pair, proxy) = Cluster::new()
        .apart(
            11,
            |app, connector| app.connector(connector).manager(manager),
            |app, connector| app.connector(connector),
        )
        .await;
    known(&pair).await;
    proxy.set_weather(Weather::bad());
    publish(&pair.sensor, 0..2000).await;
    // Another source port: the connection goes on.
    proxy.rebind();
    publish(&pair.sensor, 2000..4000).await;
    assert_eq!(seen.wait_for(4000).await, (0..4000).collect::<Vec<_>>());
    assert_eq!(within("an answer", pair.sensor.bus().request(asked(7))).await.expect("answered"), 7);
    proxy.set_weather(Weather::default());
    let fates = proxy.fates();
    assert!(fates.dropped > 0 && fates.doubled > 0 && fates.late > 0, "{fates:?}");
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_under_load_and_mended_loses_and_doubles_nothing() {
    const PAUSE: Duration = Duration::from_secs(5);
    let (seen, here) = (Seen::default(), Seen::default());
    let manager = Manager::new("keep").worker(keeps(&seen)).handles::<Noted>();
    let local = Manager::new("local").worker(keeps(&here)).handles::<Noted>();
    let mut limits = Limits::default();
    limits.dead_letters_max = 1 << 20;
    let (pair, proxy) = Cluster::new()
        .apart(
            12,
            |app, connector| app.connector(connector).manager(manager),
            |app, connector| app.connector(connector.outbox(256)).manager(local).limits(limits),
        )
        .await;
    known(&pair).await;
    let bus = pair.sensor.bus().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let publishing = tokio::spawn(async move {
        let (mut number, mut longest, mut stopped) = (0, Duration::ZERO, stopped);
        while stopped.try_recv().is_err() {
            let began = Instant::now();
            bus.publish(noted(number)).await.expect("published");
            longest = longest.max(began.elapsed());
            number += 1;
            if number % 16 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        (number, longest)
    });
    until("the load", || seen.len() > 500).await;
    proxy.cut();
    reaches(&pair.sensor, "centre", false).await;
    let before = here.len();
    tokio::time::sleep(PAUSE).await;
    assert!(here.len() > before + 500, "local groups go on meanwhile");
    assert!(!letters(pair.sensor.bus()).is_empty(), "the backlog is full and spills");
    proxy.mend();
    reaches(&pair.sensor, "centre", true).await;
    let came = seen.len();
    until("the load after the cut", || seen.len() > came + 500).await;
    stop.send(()).expect("it publishes");
    let (count, longest) = within("the publisher", publishing).await.expect("no panic");
    assert!(longest < Duration::from_secs(15), "{longest:?}");
    let account = at_rest(pair.sensor.bus()).await;
    until("all to be handled", || account.forwarded as usize == seen.len()).await;
    assert_eq!(here.list(), (0..count).collect::<Vec<_>>());
    assert!(letters(pair.sensor.bus()).iter().all(|letter| letter.0 == Reason::Undelivered));
    all_once(&seen.list(), dead_numbers(pair.sensor.bus()), count);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_that_stays_away_has_not_confirmed_becomes_dead_letters_and_requests_are_lost() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let manager =
        Manager::new("slow").inbox(4).worker(keeps_behind(&gate, &seen)).handles::<Noted>().handles::<Asked>();
    let expiry = Duration::from_secs(2);
    let (pair, proxy) = Cluster::new()
        .apart(
            13,
            |app, connector| app.connector(connector.expiry(expiry)).manager(manager),
            |app, connector| app.connector(connector.expiry(expiry)),
        )
        .await;
    known(&pair).await;
    let bus = pair.sensor.bus().clone();
    let asking = tokio::spawn(async move { bus.request(asked(77)).await });
    gate.arrived(1).await;
    publish(&pair.sensor, 0..4).await;
    until("they are there", || at_centre(&pair) == 4).await;
    proxy.cut();
    publish(&pair.sensor, 4..20).await;
    let error = within("the loss", asking).await.expect("no panic").expect_err("its node is lost");
    assert_eq!(error.code(), "peer_lost");
    assert!(error.to_string().contains("centre"), "{error}");
    until("the letters", || letters(pair.sensor.bus()).len() >= 16).await;
    let reasons = letters(pair.sensor.bus());
    assert!(reasons.iter().all(|letter| matches!(letter.0, Reason::Unconfirmed | Reason::Undelivered)), "{reasons:?}");
    let account = at_rest(pair.sensor.bus()).await;
    assert_eq!(account.deliveries, account.forwarded + account.dead_lettered + account.failed, "{account:?}");
    assert!(pair.sensor.topology().remote.is_empty());
    gate.open();
    at_rest(pair.centre.bus()).await;
    let before = seen.len();
    // Both have given the other up; they meet again as if for the first time.
    proxy.mend();
    known(&pair).await;
    publish(&pair.sensor, 100..110).await;
    assert_eq!(seen.wait_for(before + 10).await[before..], (100..110).collect::<Vec<_>>());
    pair.end().await;
}

fn at_centre(pair: &Pair) -> usize {
    pair.centre.topology().managers[0].depths.iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_goes_on_at_the_exact_item_after_a_cut() {
    const ITEMS: u64 = 3000;
    let manager = Manager::new("server").worker(does(multiply)).handles::<Counted>();
    let (pair, proxy) = Cluster::new()
        .apart(
            14,
            |app, connector| app.connector(connector).manager(manager),
            |app, connector| app.connector(connector),
        )
        .await;
    known(&pair).await;
    let opened = within("the tunnel", pair.sensor.bus().open(Counted { factor: 2 })).await.expect("opened");
    let (mut sender, mut receiver, outcome) = opened.split();
    let sending = tokio::spawn(async move {
        for number in 0..ITEMS {
            sender.send(number).await.expect("open");
        }
        sender.finish();
    });
    let mut received = Vec::new();
    while let Some(number) = within("an item", receiver.recv()).await.expect("open") {
        received.push(number);
        if received.len() == 1000 {
            proxy.cut();
            reaches(&pair.sensor, "centre", false).await;
            proxy.mend();
        }
    }
    within("the sender", sending).await.expect("no panic");
    assert_eq!(received, (0..ITEMS).map(|number| number * 2).collect::<Vec<_>>());
    assert_eq!(within("the result", outcome.result()).await.expect("succeeded"), ITEMS * (ITEMS - 1) / 2);
    pair.end().await;
}

/// What goes up comes down.
#[event(tunnel, name = "nodes.echoed", up = Bytes, down = Bytes, result = u64)]
struct Echoed {}

/// Bytes that say which item they are, of a length that is a packet's, or less, or more.
fn item(number: usize) -> Bytes {
    const LENGTHS: [usize; 6] = [0, 200_000, 5, 64 << 10, 20_000, 60 << 10];
    Bytes::from(vec![(number % 251) as u8; LENGTHS[number % LENGTHS.len()]])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_items_and_short_ones_keep_their_order_and_every_byte_through_a_cut() {
    const ITEMS: usize = 600;
    let echo = does(|_: &Echoed, cx| {
        let accepted = cx.accept::<Echoed>();
        async move {
            let (mut tunnel, mut count) = (accepted?, 0);
            while let Some(item) = tunnel.recv().await? {
                tunnel.send(item).await?;
                count += 1;
            }
            Ok(count)
        }
        .boxed()
    });
    let manager = Manager::new("server").worker(echo).handles::<Echoed>();
    let (pair, proxy) = Cluster::new()
        .apart(
            17,
            |app, connector| app.connector(connector).manager(manager),
            |app, connector| app.connector(connector),
        )
        .await;
    known(&pair).await;
    let opened = within("the tunnel", pair.sensor.bus().open(Echoed {})).await.expect("opened");
    let (mut sender, mut receiver, outcome) = opened.split();
    let sending = tokio::spawn(async move {
        for number in 0..ITEMS {
            sender.send(item(number)).await.expect("open");
        }
        sender.finish();
    });
    let mut count = 0;
    while let Some(received) = within("an item", receiver.recv()).await.expect("open") {
        assert!(received == item(count), "item {count}, of {} bytes", received.len());
        count += 1;
        if count == ITEMS / 3 {
            proxy.cut();
            reaches(&pair.sensor, "centre", false).await;
            proxy.mend();
        }
    }
    within("the sender", sending).await.expect("no panic");
    assert_eq!((count, within("the result", outcome.result()).await.expect("succeeded")), (ITEMS, ITEMS as u64));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_when_the_link_is_cut_is_answered_after_it() {
    let gate = Gate::closed();
    let worker = {
        let gate = gate.clone();
        does(move |event: &Asked, _| {
            let (gate, number) = (gate.clone(), event.number);
            async move {
                gate.pass().await;
                Ok(number + 1)
            }
            .boxed()
        })
    };
    let manager = Manager::new("waits").worker(worker).handles::<Asked>();
    let (pair, proxy) = Cluster::new()
        .apart(
            15,
            |app, connector| app.connector(connector).manager(manager),
            |app, connector| app.connector(connector),
        )
        .await;
    known(&pair).await;
    let bus = pair.sensor.bus().clone();
    let asking = tokio::spawn(async move { bus.request(asked(1)).await });
    gate.arrived(1).await;
    proxy.cut();
    reaches(&pair.centre, "sensor", false).await;
    gate.open();
    reaches(&pair.sensor, "centre", false).await;
    proxy.mend();
    assert_eq!(within("an answer", asking).await.expect("no panic").expect("answered"), 2);
    let (sensor, centre) = pair.end().await;
    assert_eq!((sensor.account.forwarded, centre.account.handled), (1, 1));
}
