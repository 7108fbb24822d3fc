//! A tunnel carries items both ways in order, holds up a sender who is too fast, and ends on both sides with a result or
//! with the reason why not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edri::prelude::*;
use edri::{OpenedTunnel, TunnelError, Window};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::sleep;

use crate::support::{Gate, Handling, Seen, at_rest, does, ends_well, started, until, view, within};

/// Numbers both ways.
#[event(tunnel, name = "tunnels.counted", up = u64, down = u64, result = u64)]
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) factor: u64,
}

/// Bytes both ways.
#[event(tunnel, name = "tunnels.copied", up = Bytes, down = Bytes)]
#[derive(Debug)]
struct Copied {}

/// Does not bear being idle.
#[event(tunnel, name = "tunnels.lively", up = u64, down = u64, idle_timeout = "150ms")]
#[derive(Debug)]
struct Lively {}

/// A manager whose worker serves tunnels with this function.
fn serves<E, F>(placement: Placement, serve: F) -> edri::Definition
where
    E: edri::Event,
    F: for<'a> Fn(&'a E, &'a mut Context) -> Handling<'a, E> + Send + Sync + 'static,
{
    Manager::new("server").placement(placement).worker(does(serve)).handles::<E>().into()
}

/// A node whose worker serves [`Counted`] with this function.
pub(crate) async fn counting<F>(serve: F) -> Node
where
    F: for<'a> Fn(&'a Counted, &'a mut Context) -> Handling<'a, Counted> + Send + Sync + 'static,
{
    started(App::new("test").manager(serves(Placement::Task, serve))).await
}

/// Sends each item back multiplied, and in the end returns their sum.
pub(crate) fn multiply<'a>(event: &'a Counted, cx: &'a mut Context) -> Handling<'a, Counted> {
    async move {
        let mut tunnel = cx.accept::<Counted>()?;
        let mut sum = 0;
        while let Some(number) = tunnel.recv().await? {
            sum += number;
            tunnel.send(number * event.factor).await?;
        }
        Ok(sum)
    }
    .boxed()
}

pub(crate) async fn open(node: &Node) -> OpenedTunnel<Counted> {
    within("the tunnel to open", node.bus().open(Counted { factor: 2 })).await.expect("opened")
}

fn window(items: usize, bytes: usize) -> Window {
    Window { items, bytes }
}

// ---- both ways ---------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_go_both_ways_and_the_result_comes_last() {
    for placement in [Placement::Task, Placement::Thread] {
        let node = started(App::new("test").manager(serves(placement, multiply))).await;
        let mut tunnel = open(&node).await;
        for number in 1..=3 {
            tunnel.send(number).await.expect("open");
            assert_eq!(within("an item", tunnel.recv()).await.expect("open"), Some(number * 2));
        }
        tunnel.finish();
        assert_eq!(within("the end", tunnel.recv()).await.expect("no break"), None);
        assert_eq!(within("the end again", tunnel.recv()).await.expect("no break"), None);
        assert_eq!(within("the result", tunnel.result()).await.expect("succeeded"), 6);
        let account = ends_well(&node).await.account;
        assert_eq!((account.deliveries, account.handled), (1, 1));
        assert_eq!(node.topology().pending, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_direction_keeps_its_order_whatever_the_window() {
    const ITEMS: u64 = 3000;
    for items in [0, 1, 2, 3, 128] {
        let node = started(App::new("test").manager(serves(Placement::Thread, multiply))).await;
        let opened = node.bus().open_with(Counted { factor: 3 }, window(items, 1 << 20), &Options::new()).await;
        let (mut sender, mut receiver, outcome) = opened.expect("opened").split();
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
        sending.await.expect("no panic");
        assert_eq!(within("the result", outcome.result()).await.expect("succeeded"), ITEMS * (ITEMS - 1) / 2);
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opener_that_has_finished_still_receives() {
    let node = counting(|_, cx| {
        async move {
            let mut tunnel = cx.accept::<Counted>()?;
            let mut sum = 0;
            while let Some(number) = tunnel.recv().await? {
                sum += number;
            }
            for number in 0..200 {
                tunnel.send(number).await?;
            }
            Ok(sum)
        }
        .boxed()
    })
    .await;
    let mut tunnel = open(&node).await;
    for number in 1..=3 {
        tunnel.send(number).await.expect("open");
    }
    tunnel.finish();
    assert!(matches!(tunnel.send(4).await, Err(TunnelError::Finished)));
    for number in 0..200 {
        assert_eq!(within("an item", tunnel.recv()).await.expect("open"), Some(number));
    }
    assert_eq!(within("the result", tunnel.result()).await.expect("succeeded"), 6);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_has_finished_still_receives() {
    let node = counting(|_, cx| {
        async move {
            let mut tunnel = cx.accept::<Counted>()?;
            tunnel.send(1).await?;
            tunnel.finish();
            assert!(matches!(tunnel.send(2).await, Err(TunnelError::Finished)));
            let mut sum = 0;
            while let Some(number) = tunnel.recv().await? {
                sum += number;
            }
            Ok(sum)
        }
        .boxed()
    })
    .await;
    let mut tunnel = open(&node).await;
    assert_eq!(within("an item", tunnel.recv()).await.expect("open"), Some(1));
    assert_eq!(within("the end of the worker's direction", tunnel.recv()).await.expect("no break"), None);
    for number in 1..=300 {
        within("credit", tunnel.send(number)).await.expect("the opener's direction goes on");
    }
    assert_eq!(within("the result", tunnel.result()).await.expect("succeeded"), 300 * 301 / 2);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_before_the_worker_accepts_waits_for_it() {
    let gate = Gate::closed();
    let node = {
        let gate = gate.clone();
        counting(move |event, cx| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                multiply(event, cx).await
            }
            .boxed()
        })
        .await
    };
    let mut tunnel = open(&node).await;
    for number in 0..100 {
        within("room in the window", tunnel.send(number)).await.expect("open");
    }
    tunnel.finish();
    gate.open();
    for number in 0..100 {
        assert_eq!(within("an item", tunnel.recv()).await.expect("open"), Some(number * 2));
    }
    assert_eq!(within("the result", tunnel.result()).await.expect("succeeded"), 4950);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tunnels_at_once_through_one_worker_do_not_disturb_each_other() {
    let manager = Manager::new("server")
        .worker(does(multiply as for<'a> fn(&'a Counted, &'a mut Context) -> Handling<'a, Counted>))
        .concurrency(1000)
        .handles_concurrently::<Counted>();
    let node = started(App::new("test").manager(manager)).await;
    let tunnels = (0..1000_u64).map(|own| {
        let bus = node.bus().clone();
        tokio::spawn(async move {
            let mut tunnel = bus.open(Counted { factor: own }).await.expect("opened");
            for number in 0..5 {
                tunnel.send(own + number).await.expect("open");
                assert_eq!(tunnel.recv().await.expect("open"), Some((own + number) * own));
            }
            assert_eq!(tunnel.result().await.expect("succeeded"), 5 * own + 10);
        })
    });
    for tunnel in within("all tunnels", join_all(tunnels)).await {
        tunnel.expect("as it should be");
    }
    assert_eq!(ends_well(&node).await.account.handled, 1000);
}

// ---- breaks ------------------------------------------------------------------------------------------------------------

/// A worker that receives until the tunnel breaks, and what it was told then; whether its context was cancelled too.
async fn receiving(node_of: impl FnOnce(edri::Definition) -> App) -> (Node, Seen<(String, bool)>) {
    let seen: Seen<(String, bool)> = Seen::default();
    let by_worker = seen.clone();
    let manager = serves(Placement::Task, move |_: &Counted, cx| {
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
            let sent = tunnel.send(1).await.expect_err("broken both ways");
            assert_eq!(sent.code(), error.code());
            seen.add((error.to_string(), cx.is_cancelled()));
            Err(error.into())
        }
        .boxed()
    });
    (started(node_of(manager)).await, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_told_the_reason_of_an_openers_abort() {
    let (node, seen) = receiving(|manager| App::new("test").manager(manager)).await;
    let mut tunnel = open(&node).await;
    tunnel.send(1).await.expect("open");
    until("the worker to serve it", || view(&node, "server").workers[0].in_hand == 1).await;
    tunnel.abort(Failure::new("changed_my_mind", "no need any more"));
    assert_eq!(seen.wait_for(1).await, [("tunnel aborted: changed_my_mind: no need any more".to_owned(), true)]);
    at_rest(node.bus()).await;
    assert_eq!(node.topology().late_answers, 1);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_sees_at_once_that_the_opener_was_dropped() {
    let (node, seen) = receiving(|manager| App::new("test").manager(manager)).await;
    for number in 1..=3 {
        let mut tunnel = open(&node).await;
        tunnel.send(1).await.expect("open");
        until("the worker to serve it", || view(&node, "server").workers[0].in_hand == 1).await;
        drop(tunnel);
        seen.wait_for(number).await;
        // Otherwise the next one might be dropped before it is served.
        until("the worker to be done with it", || view(&node, "server").workers[0].in_hand == 0).await;
    }
    assert_eq!(seen.list(), vec![("the other end of the tunnel was dropped".to_owned(), true); 3]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opener_is_told_the_reason_of_a_workers_abort_however_it_uses_the_tunnel() {
    let node = counting(|_, cx| {
        async move {
            let mut tunnel = cx.accept::<Counted>()?;
            tunnel.recv().await?;
            tunnel.send(1).await?;
            tunnel.abort(Failure::new("full", "the disk is full"));
            assert_eq!(tunnel.recv().await.expect_err("broken").code(), "full");
            assert_eq!(tunnel.send(2).await.expect_err("broken").code(), "full");
            // The outcome comes later than the abort, and does not hold it up.
            cx.cancelled().await;
            Ok(0)
        }
        .boxed()
    })
    .await;
    for how in ["recv", "send", "result"] {
        let mut tunnel = open(&node).await;
        tunnel.send(1).await.expect("open");
        until("the abort", || tunnel.broken().is_some()).await;
        let error = match how {
            "recv" => within("the break", tunnel.recv()).await.expect_err("broken"),
            "send" => within("the break", tunnel.send(2)).await.expect_err("broken"),
            _ => within("the break", tunnel.result()).await.expect_err("broken"),
        };
        match error {
            TunnelError::Aborted(reason) => assert_eq!((reason.code(), reason.text()), ("full", "the disk is full")),
            other => panic!("{how}: {other}"),
        }
    }
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opener_is_told_of_a_workers_failure_and_of_its_panic() {
    for placement in [Placement::Task, Placement::Thread] {
        let manager = serves(placement, |event: &Counted, cx| {
            async move {
                let mut tunnel = cx.accept::<Counted>()?;
                tunnel.send(1).await?;
                tunnel.recv().await?;
                match event.factor {
                    0 => Err(Failure::new("odd", "that is odd")),
                    1 => panic!("a stone"),
                    // It never comes to that: the sender is dropped before.
                    _ => Ok(0),
                }
            }
            .boxed()
        });
        let node = started(App::new("test").manager(manager)).await;
        for (factor, code, text) in [(0, "odd", "that is odd"), (1, "worker_lost", "a stone")] {
            let tunnel = async || {
                let mut tunnel = within("the tunnel", node.bus().open(Counted { factor })).await.expect("opened");
                assert_eq!(within("an item", tunnel.recv()).await.expect("open"), Some(1));
                tunnel.send(1).await.expect("open");
                tunnel
            };
            let check = |how: &str, error: TunnelError| {
                assert_eq!(error.code(), code, "{how}");
                assert!(error.to_string().contains(text), "{how}: {error}");
            };
            let mut receives = tunnel().await;
            check("recv", within("the end", receives.recv()).await.expect_err("no end"));
            check("recv again", within("the end", receives.recv()).await.expect_err("no end"));
            check("result", within("the end", tunnel().await.result()).await.expect_err("no result"));
            let mut sends = tunnel().await;
            let error = loop {
                if let Err(error) = within("the end", sends.send(2)).await {
                    break error;
                }
                tokio::task::yield_now().await;
            };
            check("send", error);
            let (_sender, mut receiver, outcome) = tunnel().await.split();
            assert_eq!(within("the end", receiver.recv()).await.expect("its outcome says the rest"), None);
            check("outcome", within("the end", outcome.result()).await.expect_err("no result"));
        }
        let account = ends_well(&node).await.account;
        assert_eq!((account.deliveries, account.failed), (8, 8));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opener_that_waits_for_credit_is_told_when_the_worker_is_gone() {
    let gate = Gate::closed();
    let node = {
        let gate = gate.clone();
        counting(move |_, cx| {
            let gate = gate.clone();
            async move {
                let _tunnel = cx.accept::<Counted>()?;
                gate.pass().await;
                Err(Failure::new("tired", "it has had enough"))
            }
            .boxed()
        })
        .await
    };
    let mut tunnel =
        node.bus().open_with(Counted { factor: 1 }, window(2, 1 << 20), &Options::new()).await.expect("opened");
    for number in 0..2 {
        tunnel.send(number).await.expect("there is credit");
    }
    let waiting = tokio::spawn(async move { tunnel.send(2).await });
    gate.arrived(1).await;
    assert!(!waiting.is_finished());
    gate.open();
    let error = within("the end", waiting).await.expect("no panic").expect_err("nobody takes it");
    assert_eq!(error.code(), "tired");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_never_accepts_ends_the_tunnel_with_its_outcome() {
    let node = counting(|event, _| {
        let fails = event.factor == 0;
        async move { if fails { Err(Failure::new("shut", "we are closed")) } else { Ok(7) } }.boxed()
    })
    .await;
    let mut refused = node.bus().open(Counted { factor: 0 }).await.expect("opened");
    assert_eq!(within("the end", refused.recv()).await.expect_err("refused").code(), "shut");
    let mut ignored = node.bus().open(Counted { factor: 1 }).await.expect("opened");
    assert_eq!(within("the end", ignored.recv()).await.expect("no break"), None);
    assert!(matches!(within("the end", ignored.send(1)).await, Err(TunnelError::PeerDropped)));
    assert_eq!(within("the result", ignored.result()).await.expect("there is one"), 7);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_is_dropped_in_the_inbox_never_runs() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let node = {
        let (gate, seen) = (gate.clone(), seen.clone());
        counting(move |event, _| {
            let (gate, seen, factor) = (gate.clone(), seen.clone(), event.factor);
            async move {
                seen.add(factor);
                gate.pass().await;
                Ok(0)
            }
            .boxed()
        })
        .await
    };
    let first = node.bus().open(Counted { factor: 1 }).await.expect("opened");
    gate.arrived(1).await;
    let second = node.bus().open(Counted { factor: 2 }).await.expect("opened");
    drop(second);
    gate.open();
    assert_eq!(within("the result", first.result()).await.expect("succeeded"), 0);
    let account = ends_well(&node).await.account;
    assert_eq!((account.handled, account.cancelled, seen.list()), (1, 1, vec![1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_nobody_serves_is_refused_at_once() {
    let node = started(App::new("test")).await;
    let began = Instant::now();
    assert_eq!(node.bus().open(Counted { factor: 1 }).await.expect_err("nobody there").code(), "no_handler");
    assert!(began.elapsed() < Duration::from_secs(5));
    ends_well(&node).await;
    assert_eq!(node.bus().open(Counted { factor: 1 }).await.expect_err("stopped").code(), "stopping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_is_open_when_the_node_stops_ends_at_the_limit_on_both_sides() {
    let (node, seen) =
        receiving(|manager| App::new("test").drain_limit(Duration::from_millis(50)).manager(manager)).await;
    let mut tunnel = open(&node).await;
    tunnel.send(1).await.expect("open");
    until("the worker to serve it", || view(&node, "server").workers[0].in_hand == 1).await;
    let stopping = {
        let node = node.clone();
        tokio::spawn(async move { node.shutdown().await })
    };
    assert_eq!(within("the end", tunnel.recv()).await.expect_err("no end").code(), "worker_lost");
    let report = within("the node to stop", stopping).await.expect("no panic");
    assert!(report.account.is_balanced());
    assert_eq!((report.account.failed, report.unfinished.len(), seen.len()), (1, 1, 0));
}

// ---- credit ------------------------------------------------------------------------------------------------------------

/// How many items of this size are on their way when an opener sends as many as it can to a worker that receives none,
/// and each time the worker has received so many and the opener has sent as many as it can again.
async fn credit(window: Window, size: usize, receives: &[usize]) -> Vec<usize> {
    let gate = Gate::closed();
    let manager = {
        let gate = gate.clone();
        serves(Placement::Task, move |_: &Copied, cx| {
            let gate = gate.clone();
            async move {
                let mut tunnel = cx.accept::<Copied>()?;
                loop {
                    gate.pass().await;
                    if tunnel.recv().await?.is_none() {
                        return Ok(());
                    }
                }
            }
            .boxed()
        })
    };
    let node = started(App::new("test").manager(manager)).await;
    let mut tunnel = node.bus().open_with(Copied {}, window, &Options::new()).await.expect("opened");
    let item = Bytes::from(vec![7; size]);
    let (mut received, mut on_their_way) = (0, vec![]);
    let mut now: usize = 0;
    for receive in std::iter::once(&0).chain(receives) {
        assert!(*receive <= now, "the worker would wait for more than there is");
        gate.let_through(*receive);
        (received, now) = (received + receive, now - receive);
        gate.arrived(received + 1).await;
        while let Some(sent) = tunnel.send(item.clone()).now_or_never() {
            sent.expect("open");
            now += 1;
        }
        on_their_way.push(now);
    }
    gate.open();
    within("the result", tunnel.result()).await.expect("succeeded");
    ends_well(&node).await;
    on_their_way
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_is_held_up_by_the_window_in_items() {
    let on_their_way = credit(window(8, 1 << 20), 10, &[1, 3, 1, 3, 4, 4, 4]).await;
    assert_eq!(on_their_way[0], 8);
    // What the receiver has taken in advance occupies the window until it is used up, at most half of it.
    assert!(on_their_way.iter().all(|now| (4..=8).contains(now)), "{on_their_way:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_is_held_up_by_the_window_in_bytes() {
    let on_their_way = credit(window(1000, 100), 30, &[1, 1, 1, 1, 1, 1]).await;
    assert_eq!(on_their_way[0], 3);
    assert!(on_their_way.iter().all(|now| (1..=3).contains(now)), "{on_their_way:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_larger_than_the_window_travels_alone() {
    assert_eq!(credit(window(1000, 100), 5000, &[]).await, [1]);
    let node = started(App::new("test").manager(serves(Placement::Task, echo))).await;
    let opened = node.bus().open_with(Copied {}, window(4, 100), &Options::new()).await.expect("opened");
    let (mut sender, mut receiver, outcome) = opened.split();
    let sending = tokio::spawn(async move {
        for size in [10, 5000, 50, 101, 100, 0, 7000] {
            sender.send(Bytes::from(vec![1; size])).await.expect("open");
        }
        sender.finish();
    });
    let mut sizes = Vec::new();
    while let Some(item) = within("an item", receiver.recv()).await.expect("open") {
        sizes.push(item.len());
    }
    assert_eq!(sizes, [10, 5000, 50, 101, 100, 0, 7000]);
    sending.await.expect("no panic");
    within("the result", outcome.result()).await.expect("succeeded");
    ends_well(&node).await;
}

fn echo<'a>(_: &'a Copied, cx: &'a mut Context) -> Handling<'a, Copied> {
    async move {
        let mut tunnel = cx.accept::<Copied>()?;
        while let Some(item) = tunnel.recv().await? {
            tunnel.send(item).await?;
        }
        Ok(())
    }
    .boxed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_without_a_copy() {
    let node = started(App::new("test").manager(serves(Placement::Thread, echo))).await;
    let mut tunnel = node.bus().open(Copied {}).await.expect("opened");
    for size in [1, 64, 65_536, 1 << 20] {
        let item = Bytes::from(vec![3; size]);
        tunnel.send(item.clone()).await.expect("open");
        let back = within("the item", tunnel.recv()).await.expect("open").expect("an item");
        assert_eq!((back.as_ptr(), back.len()), (item.as_ptr(), size));
    }
    within("the result", tunnel.result()).await.expect("succeeded");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_received_is_dropped_with_the_tunnel() {
    #[edri::data]
    struct Held {
        #[serde(skip)]
        token: Arc<()>,
    }
    #[event(tunnel, name = "tunnels.held", up = Held, down = Held)]
    struct Holds {}
    let token = Arc::new(());
    let gate = Gate::closed();
    let manager = {
        let (token, gate) = (Arc::clone(&token), gate.clone());
        serves(Placement::Task, move |_: &Holds, cx| {
            let (token, gate) = (Arc::clone(&token), gate.clone());
            async move {
                let mut tunnel = cx.accept::<Holds>()?;
                for _ in 0..5 {
                    tunnel.send(Held { token: Arc::clone(&token) }).await?;
                }
                gate.pass().await;
                tunnel.abort(Failure::message("enough"));
                Ok(())
            }
            .boxed()
        })
    };
    let node = started(App::new("test").manager(manager)).await;
    let mut tunnel = node.bus().open(Holds {}).await.expect("opened");
    for _ in 0..5 {
        tunnel.send(Held { token: Arc::clone(&token) }).await.expect("open");
    }
    gate.arrived(1).await;
    assert!(Arc::strong_count(&token) > 10);
    gate.open();
    until("the tunnel to break", || tunnel.broken().is_some()).await;
    at_rest(node.bus()).await;
    // The manager's function holds one, this test the other.
    until("the items to be dropped", || Arc::strong_count(&token) == 2).await;
    drop(tunnel);
    ends_well(&node).await;
}

// ---- idle --------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_is_idle_for_too_long_breaks_on_both_sides() {
    let seen: Seen<String> = Seen::default();
    let by_worker = seen.clone();
    let manager = serves(Placement::Task, move |_: &Lively, cx| {
        let seen = by_worker.clone();
        async move {
            let mut tunnel = cx.accept::<Lively>()?;
            loop {
                match tunnel.recv().await {
                    Ok(Some(number)) => tunnel.send(number).await?,
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        seen.add(error.code().to_owned());
                        return Err(Failure::new("gave_up", "nobody says anything"));
                    }
                }
            }
        }
        .boxed()
    });
    let node = started(App::new("test").manager(manager)).await;
    let mut tunnel = node.bus().open(Lively {}).await.expect("opened");
    // Kept alive for longer than it may be idle; a break would mean that the machine itself was busy for so long.
    let (began, mut last) = (Instant::now(), Instant::now());
    for number in 0.. {
        let (sent, received) = (tunnel.send(number).await, within("the echo", tunnel.recv()).await);
        if sent.is_err() || received.is_err() {
            assert!(last.elapsed() >= Duration::from_millis(150), "{sent:?} {received:?} after {:?}", last.elapsed());
            break;
        }
        last = Instant::now();
        if began.elapsed() > Duration::from_millis(400) {
            break;
        }
        sleep(Duration::from_millis(2)).await;
    }
    let idle = Instant::now();
    let error = within("the end", tunnel.recv()).await.expect_err("nobody says anything");
    assert!(matches!(error.code(), "timed_out" | "gave_up"), "{error}");
    assert!(idle.elapsed() < Duration::from_secs(5));
    assert_eq!(seen.wait_for(1).await, ["timed_out"]);
    assert!(tunnel.send(1).await.is_err());
    ends_well(&node).await;
}
