//! Tunnels across nodes.

use std::time::Duration;

use bytes::Bytes;
use edri::prelude::*;
use edri::{Body, Definition, Encoding, OpenedTunnel};
use futures_util::FutureExt;
use tokio::time::timeout;

use super::{Cluster, Pair, WAYS, Way, address};
use crate::support::{Gate, Handling, Seen, at_rest, does, ends_well, until, within};
use crate::tunnels::{Counted, multiply};

/// Bytes both ways.
#[event(tunnel, name = "nodes.copied", up = Bytes, down = Bytes, result = u64)]
struct Copied {
    /// Whether the worker only sends.
    down: bool,
}

fn serves<E, F>(serve: F) -> Definition
where
    E: edri::Event,
    F: for<'a> Fn(&'a E, &'a mut Context) -> Handling<'a, E> + Send + Sync + 'static,
{
    Manager::new("server").worker(does(serve)).handles::<E>().into()
}

async fn pair(way: Way, manager: Definition) -> Pair {
    let pair = Cluster::new().pair(way, |app| app.manager(manager), |app| app).await;
    super::knows(&pair.sensor, 1).await;
    pair
}

async fn open(pair: &Pair, factor: u64) -> OpenedTunnel<Counted> {
    within("the tunnel", pair.sensor.bus().open(Counted { factor })).await.expect("opened")
}

async fn busy(pair: &Pair) {
    until("the worker to serve it", || pair.centre.topology().managers[0].workers[0].in_hand == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_go_both_ways_between_nodes_and_the_result_comes_last() {
    const ITEMS: u64 = 2000;
    for way in WAYS {
        let pair = pair(way, serves(multiply)).await;
        for _ in 0..2 {
            let (mut sender, mut receiver, outcome) = open(&pair, 3).await.split();
            let sending = tokio::spawn(async move {
                for number in 0..ITEMS {
                    sender.send(number).await.expect("open");
                }
                sender.finish();
            });
            let mut received = Vec::new();
            while let Some(number) = within("an item", receiver.recv()).await.expect("open") {
                received.push(number);
            }
            assert_eq!(received, (0..ITEMS).map(|number| number * 3).collect::<Vec<_>>());
            within("the sender", sending).await.expect("no panic");
            assert_eq!(within("the result", outcome.result()).await.expect("succeeded"), ITEMS * (ITEMS - 1) / 2);
        }
        let (sensor, centre) = pair.end().await;
        assert_eq!((sensor.account.forwarded, centre.account.handled), (2, 2), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_goes_to_the_manager_and_the_node_that_are_named() {
    let serves = |name: &str, number: u64| {
        let worker = does(move |_: &Copied, cx| async move { cx.accept::<Copied>().map(|_| number) }.boxed());
        Manager::new(name).worker(worker).handles::<Copied>()
    };
    let cluster = Cluster::new();
    let north = cluster.listens("north", |app| app.manager(serves("server", 10)).manager(serves("more", 11))).await;
    let at = address(&north);
    let south = cluster.dials("south", at, &["north"], |app| app.manager(serves("server", 20))).await;
    let sensor = cluster.dials("sensor", at, &["north", "south"], |app| app.manager(serves("own", 1))).await;
    super::knows(&sensor, 3).await;
    let bus = sensor.bus();
    let to = async |manager: &str| {
        let opened = within("the tunnel", bus.open_to(manager, Copied { down: false })).await;
        match opened {
            Ok(tunnel) => within("the result", tunnel.result()).await.map_err(|error| error.code().to_owned()),
            Err(error) => Err(error.code().to_owned()),
        }
    };
    assert_eq!(to("own").await, Ok(1));
    assert_eq!(to("more").await, Ok(11));
    assert_eq!(to("north/server").await, Ok(10));
    assert_eq!(to("south/server").await, Ok(20));
    assert!(matches!(to("server").await, Ok(10 | 20)));
    assert_eq!(to("sensor/own").await, Ok(1));
    for nobody in ["south/more", "sensor/server", "west/server", "other"] {
        assert_eq!(to(nobody).await, Err("no_handler".to_owned()), "{nobody}");
    }
    let body = || Body::encode(Encoding::MessagePack, &Copied { down: false }).expect("encodes");
    for (node, results) in [("south/", 20..=20), ("north/", 10..=11), ("sensor/", 1..=1)] {
        let opened = within("the tunnel", bus.untyped().open_to(node, "nodes.copied", body())).await.expect("opened");
        let result = within("the result", opened.result()).await.expect("a result");
        let number: u64 = result.decode().expect("a number");
        assert!(results.contains(&number), "{number} of {node}");
    }
    for node in [&sensor, &south, &north] {
        ends_well(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_holds_up_who_sends_and_what_is_on_the_way_is_bounded() {
    const SIZE: usize = 64 << 10;
    const ITEMS: usize = 400;
    let gate = Gate::closed();
    let copies = {
        let gate = gate.clone();
        move |event: &Copied, cx: &mut Context| -> Result<_, Failure> {
            Ok((gate.clone(), event.down, cx.accept::<Copied>()?))
        }
    };
    let manager = serves(move |event: &Copied, cx| {
        let begun = copies(event, cx);
        async move {
            let (gate, down, mut tunnel) = begun?;
            let mut bytes = 0;
            if down {
                for _ in 0..ITEMS {
                    tunnel.send(Bytes::from(vec![7; SIZE])).await?;
                    bytes += SIZE as u64;
                }
            } else {
                gate.pass().await;
                while let Some(item) = tunnel.recv().await? {
                    bytes += item.len() as u64;
                }
            }
            Ok(bytes)
        }
        .boxed()
    });
    let pair = pair(Way::Switch, manager).await;
    let all = (ITEMS * SIZE) as u64;

    let mut up = within("the tunnel", pair.sensor.bus().open(Copied { down: false })).await.expect("opened");
    let mut sent = 0;
    // Longer than a packet takes: what was not taken by then waits for the worker.
    while timeout(Duration::from_millis(500), up.send(Bytes::from(vec![7; SIZE]))).await.is_ok_and(|sent| sent.is_ok())
    {
        sent += 1;
        assert!(sent * SIZE <= 16 << 20, "{sent} items are on their way and none was read");
    }
    assert!(sent > 0);
    gate.open();
    for _ in sent..ITEMS {
        within("credit", up.send(Bytes::from(vec![7; SIZE]))).await.expect("open");
    }
    assert_eq!(within("the result", up.result()).await.expect("succeeded"), all);

    let mut down = within("the tunnel", pair.sensor.bus().open(Copied { down: true })).await.expect("opened");
    busy(&pair).await;
    let unacknowledged = || super::seen_by(&pair.centre, "sensor").map_or(0, |view| view.unacknowledged_bytes);
    assert!(unacknowledged() <= 16 << 20);
    let mut bytes = 0;
    while let Some(item) = within("an item", down.recv()).await.expect("open") {
        bytes += item.len() as u64;
    }
    assert_eq!((bytes, within("the result", down.result()).await.expect("succeeded")), (all, all));
    pair.end().await;
}

/// A worker that receives until the tunnel breaks, and what it was told then.
fn receiving() -> (Definition, Seen<String>) {
    let seen: Seen<String> = Seen::default();
    let by_worker = seen.clone();
    let manager = serves(move |_: &Counted, cx| {
        let seen = by_worker.clone();
        async move {
            let mut tunnel = cx.accept::<Counted>()?;
            let error = loop {
                match tunnel.recv().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Err(Failure::new("no_break", "the tunnel ended well")),
                    Err(error) => break error,
                }
            };
            cx.cancelled().await;
            seen.add(error.to_string());
            Err(error.into())
        }
        .boxed()
    });
    (manager, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_told_of_an_opener_on_another_node_that_aborts_or_is_dropped() {
    for way in WAYS {
        let (manager, seen) = receiving();
        let pair = pair(way, manager).await;
        let mut tunnel = open(&pair, 1).await;
        tunnel.send(1).await.expect("open");
        busy(&pair).await;
        tunnel.abort(Failure::new("changed_my_mind", "no need any more"));
        let told = seen.wait_for(1).await;
        assert!(told[0].contains("changed_my_mind") && told[0].contains("no need any more"), "{told:?}");
        let mut tunnel = open(&pair, 1).await;
        tunnel.send(1).await.expect("open");
        until("the worker to serve it", || pair.centre.topology().managers[0].account.deliveries == 2).await;
        busy(&pair).await;
        drop(tunnel);
        let told = seen.wait_for(2).await;
        assert!(told[1].contains("dropped"), "{told:?}");
        at_rest(pair.sensor.bus()).await;
        assert_eq!(pair.sensor.topology().pending, 0);
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opener_is_told_of_an_abort_a_failure_and_a_panic_on_another_node() {
    for way in WAYS {
        let manager = serves(|event: &Counted, cx| {
            async move {
                let mut tunnel = cx.accept::<Counted>()?;
                tunnel.send(1).await?;
                tunnel.recv().await?;
                match event.factor {
                    0 => Err(Failure::new("odd", "that is odd")),
                    1 => panic!("a stone"),
                    _ => {
                        tunnel.abort(Failure::new("full", "the disk is full"));
                        cx.cancelled().await;
                        Ok(0)
                    }
                }
            }
            .boxed()
        });
        let pair = pair(way, manager).await;
        for (factor, code, text) in
            [(0, "odd", "that is odd"), (1, "worker_lost", "a stone"), (2, "full", "the disk is full")]
        {
            let mut tunnel = open(&pair, factor).await;
            assert_eq!(within("an item", tunnel.recv()).await.expect("open"), Some(1));
            tunnel.send(1).await.expect("open");
            let error = within("the end", tunnel.recv()).await.expect_err("no end");
            assert_eq!(error.code(), code, "{way:?}: {error}");
            assert!(error.to_string().contains(text), "{error}");
        }
        let (_, centre) = pair.end().await;
        assert_eq!(centre.account.deliveries, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_is_dropped_while_it_waits_in_the_inbox_of_another_node_holds_nobody_up() {
    let gate = Gate::closed();
    let manager = {
        let gate = gate.clone();
        serves(move |event: &Counted, cx| {
            let (gate, factor) = (gate.clone(), event.factor);
            async move {
                // When its turn comes before the word that it was dropped, it hears of that now.
                tokio::select! {
                    () = cx.cancelled() => Err(Failure::new("dropped", "nobody waits")),
                    () = gate.pass() => Ok(factor),
                }
            }
            .boxed()
        })
    };
    let pair = pair(Way::Direct, manager).await;
    let first = open(&pair, 1).await;
    gate.arrived(1).await;
    let second = open(&pair, 2).await;
    until("the second to be there", || pair.centre.topology().managers[0].depths == [1]).await;
    drop(second);
    gate.let_through(1);
    assert_eq!(within("the result", first.result()).await.expect("succeeded"), 1);
    let third = open(&pair, 3).await;
    // Or it would go through the gate in the place of the third.
    let second_is_over = || {
        let account = pair.centre.topology().managers[0].account;
        account.cancelled + account.failed == 1
    };
    until("the second to be over", second_is_over).await;
    gate.let_through(1);
    assert_eq!(within("the result", third.result()).await.expect("succeeded"), 3);
    let (_, centre) = pair.end().await;
    assert_eq!((centre.account.handled, centre.account.cancelled + centre.account.failed), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_no_node_serves_is_refused() {
    let pair = Cluster::new().pair(Way::Direct, |app| app, |app| app).await;
    let error = within("an answer", pair.sensor.bus().open(Counted { factor: 1 })).await.expect_err("nobody there");
    assert_eq!(error.code(), "no_handler");
    pair.end().await;
}
