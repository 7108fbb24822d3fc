//! Turns: a worker that is quick is run where its requester is, and nobody can tell but by the time it takes.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{OpenedTunnel, Options, RequestError, TunnelError, Window, Worker, key_hash};
use futures_util::FutureExt;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::runtime;
use tokio::task::Id;

use crate::support::{Gate, LIMIT, at_rest, ends_well, started, until, within};

/// Asks in which task of the runtime it is handled.
#[event(request, name = "turns.where", response = Answer)]
struct Where {
    what: What,
}

#[data]
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Nothing,
    Block,
    Wait,
    Yield,
    Panic,
}

/// In which task, and in which one at the end, as texts; and in which runtime.
type Answer = (String, String, String);

fn here() -> String {
    tokio::task::try_id().as_ref().map(Id::to_string).unwrap_or_default()
}

struct Somewhere(Gate);

impl Worker for Somewhere {}

impl Handle<Where> for Somewhere {
    async fn handle(&mut self, ask: &Where, _: &mut Context) -> Result<Answer, Failure> {
        let before = here();
        match ask.what {
            What::Nothing => {}
            What::Block => std::thread::sleep(Duration::from_millis(1)),
            What::Wait => {
                // Whoever opens the gate may do so just as this arrives, and then it would not have waited.
                tokio::task::yield_now().await;
                self.0.pass().await;
            }
            What::Yield => tokio::task::yield_now().await,
            What::Panic => panic!("as it was asked to"),
        }
        Ok((before, here(), runtime::Handle::current().id().to_string()))
    }
}

/// The same, of another handler of the same worker.
#[event(request, name = "turns.also", response = Answer)]
struct Also {
    what: What,
}

impl Handle<Also> for Somewhere {
    async fn handle(&mut self, ask: &Also, cx: &mut Context) -> Result<Answer, Failure> {
        Handle::<Where>::handle(self, &Where { what: ask.what }, cx).await
    }
}

/// Asks of each item where it was received.
#[event(tunnel, name = "turns.follow", up = What, down = String, result = u64)]
struct Follow {}

impl Handle<Follow> for Somewhere {
    async fn handle(&mut self, _: &Follow, cx: &mut Context) -> Result<u64, Failure> {
        let mut tunnel = cx.accept::<Follow>()?;
        let mut count = 0;
        while let Some(what) = tunnel.recv().await? {
            count += 1;
            match what {
                What::Nothing => tunnel.send(here()).await?,
                What::Block => {
                    std::thread::sleep(Duration::from_millis(1));
                    tunnel.send(here()).await?;
                }
                What::Panic => panic!("as it was asked to"),
                // Says nothing.
                What::Wait | What::Yield => {}
            }
        }
        Ok(count)
    }
}

async fn node() -> (Node, Gate) {
    node_of(1).await
}

/// With so many workers.
async fn node_of(workers: usize) -> (Node, Gate) {
    let gate = Gate::closed();
    let gates = gate.clone();
    let manager = Manager::new("somewhere")
        .workers(workers, move || Somewhere(gates.clone()))
        .handles::<Where>()
        .handles::<Also>()
        .handles::<Follow>();
    (started(App::new("test").manager(manager)).await, gate)
}

async fn ask(bus: &Bus, what: What) -> Result<Answer, RequestError> {
    bus.request(Where { what }).await
}

/// Asks until it is handled in the task that asks. Workers are known to be quick only after some of their events.
async fn until_served(bus: &Bus) {
    let limit = Instant::now() + LIMIT;
    while ask(bus, What::Nothing).await.expect("answered").0 != here() {
        assert!(Instant::now() < limit, "never handled where it was asked");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quick_worker_is_run_where_its_requester_is_and_a_slow_one_in_its_own_task() {
    let (node, _) = node().await;
    let bus = node.bus().clone();
    let asking = tokio::spawn(async move {
        until_served(&bus).await;
        // Whether it is quick is seen on few of its events.
        let mut slow = 0;
        for _ in 0..500 {
            slow += u32::from(ask(&bus, What::Block).await.expect("answered").0 != here());
        }
        assert!(slow > 100, "{slow} of 500 in its own task");
        assert_ne!(ask(&bus, What::Block).await.expect("answered").0, here());
    });
    within("the answers", asking).await.expect("no panic");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_goes_on_in_its_own_task_and_others_are_served_meanwhile() {
    let (node, gate) = node().await;
    let bus = node.bus().clone();
    let asking = tokio::spawn(async move {
        loop {
            until_served(&bus).await;
            let (before, after, _) = ask(&bus, What::Wait).await.expect("answered");
            assert_ne!(after, here());
            // A worker may just have been slow for once.
            if before == here() {
                return;
            }
        }
    });
    let bus = node.bus().clone();
    let letting_through = async {
        for waits in 1.. {
            gate.arrived(waits).await;
            // It is one instance, and has something in hand.
            let behind = ask(&bus, What::Nothing);
            gate.let_through(1);
            behind.await.expect("answered");
        }
    };
    tokio::select! {
        ended = within("the answer", asking) => ended.expect("no panic"),
        () = letting_through => {}
    }
    ends_well(&node).await;
}

#[test]
fn a_handler_is_of_its_node_s_runtime_wherever_the_requester_is() {
    let make = || runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let (own, other) = (make(), make());
    let (node, _) = own.block_on(node());
    let bus = node.bus().clone();
    own.block_on(async { within("to be served", own.spawn(async move { until_served(&bus).await })).await })
        .expect("no panic");
    let bus = node.bus().clone();
    let asking = async move {
        for _ in 0..100 {
            let (task, _, runtime) = ask(&bus, What::Nothing).await.expect("answered");
            assert_ne!(task, here());
            assert_ne!(runtime, runtime::Handle::current().id().to_string());
        }
    };
    other.block_on(async { within("the answers", other.spawn(asking)).await }).expect("no panic");
    // Nor is there any runtime here.
    let bus = node.bus().clone();
    let (_, _, runtime) = ask_from_no_runtime(&bus);
    assert_eq!(runtime, own.handle().id().to_string());
    own.block_on(ends_well(&node));
}

/// Asks from a thread that belongs to no runtime.
fn ask_from_no_runtime(bus: &Bus) -> Answer {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut asking = std::pin::pin!(ask(bus, What::Nothing));
    loop {
        match asking.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer.expect("answered"),
            Poll::Pending => std::thread::park_timeout(LIMIT),
        }
    }
}

#[tokio::test]
async fn who_asks_without_end_lets_others_have_their_turn() {
    let (node, _) = node().await;
    let (bus, done) = (node.bus().clone(), Arc::new(AtomicBool::new(false)));
    let heard = Arc::clone(&done);
    let asking = tokio::spawn(async move {
        let limit = Instant::now() + LIMIT;
        // Of the same thread: the others get on only when this one lets them.
        while !heard.load(Ordering::Relaxed) {
            ask(&bus, What::Nothing).await.expect("answered");
            assert!(Instant::now() < limit, "nobody else had a turn");
        }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Relaxed);
    asking.await.expect("no panic");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_panics_where_its_requester_is_is_lost_and_comes_again() {
    let (node, _) = node().await;
    let bus = node.bus().clone();
    let asking = tokio::spawn(async move {
        for _ in 0..3 {
            until_served(&bus).await;
            let error = ask(&bus, What::Panic).await.expect_err("a panic");
            assert_eq!(error.code(), "worker_lost");
            ask(&bus, What::Nothing).await.expect("another worker");
        }
    });
    within("the answers", asking).await.expect("no panic");
    ends_well(&node).await;
}

/// Asked of a chain of workers, each of which asks the next.
#[event(request, name = "turns.chain", response = Vec<String>)]
struct Chain {
    left: u32,
}

struct Link;

impl Worker for Link {}

impl Handle<Chain> for Link {
    async fn handle(&mut self, chain: &Chain, cx: &mut Context) -> Result<Vec<String>, Failure> {
        let own = here();
        let mut tasks = match chain.left {
            0 => Vec::new(),
            left => {
                let name = format!("link{}", left - 1);
                let next = cx.bus().request_to(&name, Chain { left: left - 1 }).await;
                next.map_err(|error| Failure::new("next", error.to_string()))?
            }
        };
        tasks.push(own);
        Ok(tasks)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_ask_workers_are_run_in_one_turn_to_a_depth_only() {
    const LENGTH: u32 = 10;
    let app = (0..LENGTH).fold(App::new("test"), |app, number| {
        app.manager(Manager::new(&format!("link{number}")).worker(|| Link).handles::<Chain>())
    });
    let node = started(app).await;
    let bus = node.bus().clone();
    let asking = tokio::spawn(async move {
        let limit = Instant::now() + LIMIT;
        loop {
            // Each is quick for itself, and was timed as such; the whole chain may not be.
            for number in (0..LENGTH).cycle().take(100 * LENGTH as usize) {
                let tasks = bus.request_to(&format!("link{number}"), Chain { left: 0 }).await.expect("answered");
                assert_eq!(tasks.len(), 1);
            }
            let last = format!("link{}", LENGTH - 1);
            let tasks = bus.request_to(&last, Chain { left: LENGTH - 1 }).await.expect("answered");
            assert_eq!(tasks.len(), LENGTH as usize);
            let mine = tasks.iter().filter(|task| **task == here()).count();
            assert!(mine <= 4, "{mine} deep");
            if mine == 4 {
                return;
            }
            assert!(Instant::now() < limit, "never as deep as may be");
        }
    });
    within("the chain", asking).await.expect("no panic");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_request_of_many_at_once_ends_whoever_runs_the_worker() {
    for workers in [1, 2] {
        many_at_once(workers).await;
    }
}

async fn many_at_once(workers: usize) {
    const REQUESTERS: u64 = 16;
    const EACH: u64 = 3000;
    let (node, _) = node_of(workers).await;
    let lost = Arc::new(AtomicU64::new(0));
    let requesters = (0..REQUESTERS).map(|who| {
        let (bus, lost) = (node.bus().clone(), Arc::clone(&lost));
        tokio::spawn(async move {
            for round in 0..EACH {
                let what = match (who, round % 1000) {
                    (0, 777) => What::Panic,
                    (_, 100..110) => What::Yield,
                    _ => What::Nothing,
                };
                // Now all ask one handler, now each another than the one before.
                let answered = match round % 500 < 250 || (round + who) % 2 == 0 {
                    true => ask(&bus, what).await,
                    false => bus.request(Also { what }).await,
                };
                match answered {
                    Ok(_) => {}
                    Err(error) if error.code() == "worker_lost" => {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => panic!("{error}"),
                }
                if round % 64 == who {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    for ended in within("all of them", join_all(requesters)).await {
        ended.expect("no panic");
    }
    // Those that panicked, and no others.
    assert_eq!(lost.load(Ordering::Relaxed), EACH / 1000);
    let account = at_rest(node.bus()).await;
    assert_eq!(account.deliveries, REQUESTERS * EACH);
    until("all slots to be free", || node.bus().topology().pending == 0).await;
    ends_well(&node).await;
}

type Followed = OpenedTunnel<Follow>;

async fn sent(tunnel: &mut Followed, what: What) -> Result<Option<String>, TunnelError> {
    tunnel.send(what).await?;
    tunnel.recv().await
}

/// Sends until it is received in the task that sends: whoever is interrupted while the worker runs takes it for a slow one for a while.
async fn until_followed(tunnel: &mut Followed) {
    let limit = Instant::now() + LIMIT;
    while sent(tunnel, What::Nothing).await.expect("open") != Some(here()) {
        assert!(Instant::now() < limit, "never received where it was sent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opener_that_would_wait_runs_a_quick_worker_and_leaves_a_slow_one_to_its_own_task() {
    let (node, _) = node().await;
    let bus = node.bus().clone();
    let following = tokio::spawn(async move {
        let mut tunnel = bus.open(Follow {}).await.expect("opened");
        until_followed(&mut tunnel).await;
        let mut here_too = 0;
        for _ in 0..200 {
            here_too += u32::from(sent(&mut tunnel, What::Block).await.expect("open") == Some(here()));
        }
        assert!(here_too <= 10, "{here_too} of 200 slow ones where they were sent");
        until_followed(&mut tunnel).await;
        drop(tunnel);
        // Who only sends runs it when the window is full.
        let mut tunnel = bus.open(Follow {}).await.expect("opened");
        for _ in 0..10_000 {
            tunnel.send(What::Yield).await.expect("open");
        }
        assert_eq!(tunnel.result().await.expect("counted"), 10_000);
    });
    within("the tunnel", following).await.expect("no panic");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_panics_where_its_opener_is_is_lost_and_comes_again() {
    let (node, _) = node().await;
    let bus = node.bus().clone();
    let following = tokio::spawn(async move {
        for _ in 0..3 {
            let mut tunnel = bus.open(Follow {}).await.expect("opened");
            until_followed(&mut tunnel).await;
            let error = sent(&mut tunnel, What::Panic).await.expect_err("a panic");
            assert_eq!(error.code(), "worker_lost");
        }
    });
    within("the tunnels", following).await.expect("no panic");
    ends_well(&node).await;
}

#[tokio::test]
async fn who_sends_without_end_lets_others_have_their_turn() {
    const WINDOW: u64 = 4;
    let (node, _) = node().await;
    let (bus, sent) = (node.bus().clone(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&sent);
    let following = tokio::spawn(async move {
        // Small enough for the worker to be quick with it.
        let window = Window { items: WINDOW as usize, ..Window::default() };
        let mut tunnel = bus.open_with(Follow {}, window, &Options::default()).await.expect("opened");
        loop {
            tunnel.send(What::Yield).await.expect("open");
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let observing = tokio::spawn(async move {
        let (mut before, mut most) = (0, 0);
        for _ in 0..300 {
            // Of the same thread, and next in line: it gets on whenever the other lets it.
            let mut waited = false;
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let now = sent.load(Ordering::Relaxed);
            most = most.max(now - before);
            before = now;
        }
        most
    });
    let most = within("the turns", observing).await.expect("no panic");
    // A turn of the worker counts as one of 128 operations.
    assert!(most <= 3 * 128 * WINDOW, "{most} at once");
    assert!(most > WINDOW, "never without waiting");
    following.abort();
    ends_well(&node).await;
}

/// Tells in which task it is handled.
#[event(notification, name = "turns.told")]
struct Told {
    what: What,
}

#[derive(Clone, Default)]
struct Listener {
    handled: Arc<AtomicU64>,
    tasks: Arc<Mutex<HashMap<String, u64>>>,
}

impl Worker for Listener {}

impl Handle<Told> for Listener {
    async fn handle(&mut self, told: &Told, _: &mut Context) -> Result<(), Failure> {
        if told.what == What::Block {
            std::thread::sleep(Duration::from_millis(1));
        }
        *self.tasks.lock().entry(here()).or_default() += 1;
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_without_room_runs_a_quick_worker_and_leaves_a_slow_one_to_its_own_task() {
    let listener = Listener::default();
    let workers = listener.clone();
    let manager = Manager::new("listener").inbox(16).worker(move || workers.clone()).handles::<Told>();
    let node = started(App::new("test").manager(manager)).await;
    let bus = node.bus().clone();
    let publishing = tokio::spawn(async move {
        let mut published = 0;
        let publish = async |what, count| {
            for _ in 0..count {
                bus.publish(Told { what }).await.expect("room in the end");
            }
            count
        };
        let mine = || listener.tasks.lock().get(&here()).copied().unwrap_or_default();
        let limit = Instant::now() + LIMIT;
        while mine() == 0 {
            assert!(Instant::now() < limit, "never handled where it was published");
            published += publish(What::Nothing, 1000).await;
        }
        let before = mine();
        published += publish(What::Block, 1000).await;
        let slow = mine() - before;
        assert!(slow < 500, "{slow} of 1000 slow ones where they were published");
        published
    });
    let published = within("the events", publishing).await.expect("no panic");
    let account = at_rest(node.bus()).await;
    assert_eq!((account.handled, account.deliveries), (published, published));
    ends_well(&node).await;
}

/// For one of the partitions.
#[event(notification, name = "turns.spread", key = key)]
struct Spread {
    key: u64,
    what: What,
}

#[derive(Clone)]
struct Partition(Arc<AtomicU64>, Gate);

impl Worker for Partition {}

impl Handle<Spread> for Partition {
    async fn handle(&mut self, spread: &Spread, _: &mut Context) -> Result<(), Failure> {
        match spread.what {
            What::Wait => self.1.pass().await,
            What::Panic => panic!("as it was asked to"),
            _ => {}
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_partition_is_served_whoever_of_their_workers_was_woken_and_whatever_it_does() {
    // Not a number that divides how many events one is timed of: else it would always be one of the same partition.
    const KEYS: u64 = 17;
    let partition = Partition(Arc::default(), Gate::closed());
    let workers = partition.clone();
    let manager = Manager::new("partitions").workers(4, move || workers.clone()).handles::<Spread>().keyed();
    let node = started(App::new("test").manager(manager)).await;
    let Partition(handled, gate) = partition;
    let mut expected = 0;
    for round in 0..400_u64 {
        // The first of all, or another, has something else to do than the others.
        let special = match round {
            100 | 101 | 300 => Some((round % KEYS, What::Panic)),
            200..210 => Some((round % KEYS, What::Wait)),
            _ => None,
        };
        let bus = node.bus().clone();
        let what = move |key| special.filter(|(chosen, _)| *chosen == key).map_or(What::Nothing, |(_, what)| what);
        let publish = async move || {
            for key in 0..KEYS {
                bus.publish(Spread { key, what: what(key) }).await.expect("room");
            }
        };
        // In a task of the node's runtime, and in a thread that is none of it.
        match round % 2 {
            0 => tokio::spawn(async move { publish().await }).await.expect("no panic"),
            _ => {
                let publish = move || publish().now_or_never().expect("room");
                std::thread::spawn(publish).join().expect("no panic");
            }
        }
        // Those behind the special one in its partition wait for it.
        let behind = |key: u64| key_hash(&key.to_string()) % 4;
        let not_held_up = |(chosen, what): (u64, What)| match what {
            What::Wait => (0..KEYS).filter(|key| behind(*key) != behind(chosen) || *key < chosen).count() as u64,
            _ => KEYS - 1,
        };
        let others = special.map_or(KEYS, not_held_up);
        until("the others", || handled.load(Ordering::Relaxed) == expected + others).await;
        if special.is_some_and(|(_, what)| what == What::Wait) {
            gate.let_through(1);
            until("the one that waited", || handled.load(Ordering::Relaxed) == expected + KEYS).await;
        }
        expected = handled.load(Ordering::Relaxed);
    }
    let account = at_rest(node.bus()).await;
    assert_eq!((account.handled, account.dead_lettered), (400 * KEYS - 3, 3));
    ends_well(&node).await;
}
