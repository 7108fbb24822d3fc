//! What the queue promises, one by one, and under many threads at once.

use std::future::poll_fn;
use std::sync::atomic::AtomicU64;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn fill(queue: &Queue<u64>, item: u64) -> Result<(), Refused> {
    queue.try_claim().map(|place| place.fill(item))
}

#[test]
fn a_queue_holds_its_capacity_and_not_one_more() {
    for capacity in [1, 2, 3, 4, 64] {
        let queue = Queue::new(capacity);
        let mut accepted = 0;
        while fill(&queue, accepted).is_ok() {
            accepted += 1;
        }
        assert_eq!(accepted, capacity as u64);
        assert_eq!(queue.len(), capacity);
    }
}

#[test]
fn a_place_given_back_unfilled_is_free_again_and_was_never_accepted() {
    let queue = Queue::new(1);
    let place = queue.try_claim().expect("empty");
    assert_eq!(fill(&queue, 1), Err(Refused::Full));
    drop(place);
    assert_eq!(queue.accepted(), 0);
    assert_eq!(fill(&queue, 1), Ok(()));
    assert_eq!(queue.accepted(), 1);
}

#[test]
fn a_queue_is_at_rest_while_all_who_consume_sleep_and_are_done_with_what_they_took() {
    for capacity in [1, 4, 64] {
        let queue = Queue::new(capacity);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(!queue.is_at_rest(), "nobody consumes");
        let mut consumer = Consumer::new(&queue);
        assert!(!queue.is_at_rest(), "it has not looked yet");
        assert!(consumer.poll_next(&mut cx).is_pending());
        assert!(queue.is_at_rest());
        let place = queue.try_claim().expect("room");
        assert!(!queue.is_at_rest(), "something is about to come");
        drop(place);
        assert!(queue.is_at_rest());
        fill(&queue, 1).expect("room");
        assert!(!queue.is_at_rest(), "something waits");
        assert_eq!(consumer.poll_next(&mut cx), Poll::Ready(Some(1)));
        assert!(!queue.is_at_rest(), "it has something in its hands");
        consumer.give_back();
        assert!(!queue.is_at_rest(), "it has it still");
        assert!(consumer.poll_next(&mut cx).is_pending());
        assert!(queue.is_at_rest());
        let mut another = Consumer::new(&queue);
        assert!(!queue.is_at_rest(), "one of two may have something in its hands");
        assert!(another.poll_next(&mut cx).is_pending());
        assert!(queue.is_at_rest());
        drop(another);
        assert!(queue.is_at_rest());
        queue.close();
        assert!(!queue.is_at_rest(), "it takes nothing any more");
    }
}

#[test]
fn those_who_wait_are_served_in_the_order_they_came_and_nobody_overtakes() {
    let queue = Queue::new(1);
    fill(&queue, 0).expect("empty");
    let mut waker = Context::from_waker(std::task::Waker::noop());
    let mut first = Box::pin(queue.claim());
    let mut second = Box::pin(queue.claim());
    assert!(first.as_mut().poll(&mut waker).is_pending());
    assert!(second.as_mut().poll(&mut waker).is_pending());
    assert_eq!(queue.evict(), Some(0));
    assert_eq!(fill(&queue, 9), Err(Refused::Full), "the free place belongs to the first in line");
    assert!(second.as_mut().poll(&mut waker).is_pending());
    match first.as_mut().poll(&mut waker) {
        Poll::Ready(Ok(place)) => place.fill(1),
        _ => panic!("the first in line has its place"),
    }
    assert_eq!(queue.evict(), Some(1));
    drop(second);
    assert_eq!(fill(&queue, 2), Ok(()), "a place granted to one who left goes on");
}

#[test]
fn a_quick_consumer_keeps_more_places_back_than_a_slow_one_and_never_more_than_a_quarter() {
    // How many it takes until the first place is free again.
    let kept = |capacity: usize, took: Duration| {
        let queue = Queue::new(capacity);
        while fill(&queue, 0).is_ok() {}
        let mut consumer = Consumer::new(&queue);
        consumer.pace(took);
        (1..=capacity).find(|_| consumer.try_next().is_some() && queue.room() > 0).expect("given back at some time")
    };
    let (quick, slow) = (Duration::from_micros(1), Duration::from_millis(1));
    assert_eq!((kept(4096, quick), kept(4096, slow)), (256, 32));
    assert_eq!((kept(64, quick), kept(64, slow)), (16, 16));
    assert_eq!((kept(1, quick), kept(1, slow)), (1, 1));
}

#[test]
fn a_consumer_waits_once_it_was_polled_in_vain_and_until_it_has_something() {
    let queue = Queue::new(2);
    let mut consumer = Consumer::new(&queue);
    assert!(!consumer.is_waiting());
    let poll = |consumer: &mut Consumer<_, _>| consumer.poll_next(&mut Context::from_waker(std::task::Waker::noop()));
    fill(&queue, 1).expect("empty");
    assert_eq!(poll(&mut consumer), Poll::Ready(Some(1)));
    assert!(!consumer.is_waiting(), "nobody would wake it");
    assert_eq!(poll(&mut consumer), Poll::Pending);
    assert!(consumer.is_waiting());
    fill(&queue, 2).expect("empty");
    assert!(consumer.is_waiting());
    assert_eq!(consumer.try_next(), Some(2));
    assert!(!consumer.is_waiting());
}

#[test]
fn closing_refuses_producers_and_leaves_what_is_queued() {
    let queue = Queue::new(1);
    fill(&queue, 7).expect("empty");
    let mut waker = Context::from_waker(std::task::Waker::noop());
    let mut waiting = Box::pin(queue.claim());
    assert!(waiting.as_mut().poll(&mut waker).is_pending());
    queue.close();
    assert!(matches!(waiting.as_mut().poll(&mut waker), Poll::Ready(Err(Refused::Closed))));
    let mut consumer = Consumer::new(&queue);
    assert_eq!(poll_fn(|cx| consumer.poll_next(cx)).now_or_never(), Some(Some(7)));
    assert_eq!(poll_fn(|cx| consumer.poll_next(cx)).now_or_never(), Some(None));
}

#[test]
fn where_nobody_may_wait_those_who_do_are_turned_away_and_room_is_given_all_the_same() {
    let queue = Queue::new(1);
    fill(&queue, 1).expect("empty");
    let mut waker = Context::from_waker(std::task::Waker::noop());
    let mut waiting = Box::pin(queue.claim());
    assert!(waiting.as_mut().poll(&mut waker).is_pending());
    queue.bar_waiting(true);
    assert!(matches!(waiting.as_mut().poll(&mut waker), Poll::Ready(Err(Refused::Full))));
    assert!(matches!(queue.claim().now_or_never(), Some(Err(Refused::Full))));
    assert_eq!(queue.evict(), Some(1));
    assert_eq!(fill(&queue, 2), Ok(()));
    queue.bar_waiting(false);
    let mut waiting = Box::pin(queue.claim());
    assert!(waiting.as_mut().poll(&mut waker).is_pending());
    assert_eq!(queue.evict(), Some(2));
    assert!(matches!(waiting.as_mut().poll(&mut waker), Poll::Ready(Ok(_))));
}

#[test]
fn a_closed_queue_is_not_finished_while_a_place_is_being_filled() {
    let queue = Queue::new(2);
    let place = queue.try_claim().expect("empty");
    queue.close();
    let mut consumer = Consumer::new(&queue);
    assert_eq!(poll_fn(|cx| consumer.poll_next(cx)).now_or_never(), None);
    place.fill(3);
    assert_eq!(poll_fn(|cx| consumer.poll_next(cx)).now_or_never(), Some(Some(3)));
    assert_eq!(poll_fn(|cx| consumer.poll_next(cx)).now_or_never(), Some(None));
}

#[test]
fn a_consumer_that_stands_down_passes_its_wake_up_on() {
    let queue = Queue::new(4);
    let (mut busy, mut idle) = (Consumer::new(&queue), Consumer::new(&queue));
    let woken = Arc::new(Count::default());
    let waker = std::task::Waker::from(Arc::clone(&woken));
    assert!(idle.poll_next(&mut Context::from_waker(&waker)).is_pending());
    assert!(busy.poll_next(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
    fill(&queue, 1).expect("empty");
    assert_eq!(woken.0.load(Ordering::Relaxed), 0, "the latest sleeper is woken first");
    busy.stand_down();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(idle.try_next(), Some(1));
}

#[test]
fn a_consumer_that_looks_again_while_it_sleeps_is_woken_once_and_by_its_latest_waker() {
    let queue = Queue::new(4);
    let mut consumer = Consumer::new(&queue);
    let [first, second] = [Arc::new(Count::default()), Arc::new(Count::default())];
    for woken in [&first, &second, &second] {
        let waker = Waker::from(Arc::clone(woken));
        assert!(consumer.poll_next(&mut Context::from_waker(&waker)).is_pending());
    }
    fill(&queue, 1).expect("empty");
    fill(&queue, 2).expect("room");
    assert_eq!([&first, &second].map(|woken| woken.0.load(Ordering::Relaxed)), [0, 1]);
    assert_eq!(consumer.try_next(), Some(1));
}

#[derive(Default)]
struct Count(AtomicU64);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

async fn all_end(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        timeout(LIMIT, task).await.expect("it ends").expect("no panic");
    }
}

/// Everything that is sent arrives once, whoever sleeps, waits or gives up; a lost wake-up would hang here.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_producers_and_consumers_lose_nothing_and_nobody_sleeps_through_an_item() {
    const PRODUCERS: u64 = 4;
    const EACH: u64 = 30_000;
    for capacity in [1, 3, 64] {
        let queue = Arc::new(Queue::new(capacity));
        let sum = Arc::new(AtomicU64::new(0));
        let count = Arc::new(AtomicU64::new(0));
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let (queue, sum, count) = (Arc::clone(&queue), Arc::clone(&sum), Arc::clone(&count));
                tokio::spawn(async move {
                    let mut consumer = Consumer::new(queue);
                    while let Some(item) = poll_fn(|cx| consumer.poll_next(cx)).await {
                        sum.fetch_add(item, Ordering::Relaxed);
                        count.fetch_add(1, Ordering::Relaxed);
                        if item.is_multiple_of(7) {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move {
                    for number in 0..EACH {
                        let item = producer * EACH + number;
                        if item.is_multiple_of(11) {
                            // Gives up at its first wait, then waits properly.
                            if let Some(Ok(place)) = queue.claim().now_or_never() {
                                place.fill(item);
                                continue;
                            }
                        }
                        queue.claim().await.expect("open").fill(item);
                        if item.is_multiple_of(97) {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        all_end(producers).await;
        queue.close();
        all_end(consumers).await;
        let total = PRODUCERS * EACH;
        assert_eq!(count.load(Ordering::Relaxed), total);
        assert_eq!(sum.load(Ordering::Relaxed), total * (total - 1) / 2);
        assert_eq!(queue.accepted(), total);
    }
}

/// Takes everything there is when its turn is taken, if that may be.
struct Taker {
    may: bool,
    taken: AtomicU64,
}

impl Turn for Taker {
    fn is_quick(&self) -> bool {
        true
    }

    fn take(&self) -> bool {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.may
    }
}

#[test]
fn who_would_only_wait_takes_the_turn_of_a_sleeper_and_wakes_it_where_that_may_not_be() {
    for may in [true, false] {
        let queue = Queue::new(4);
        let (mut consumer, count) = (Consumer::new(&queue), Arc::new(Count::default()));
        let turn = Arc::new(Taker { may, taken: AtomicU64::new(0) });
        consumer.set_turn(Arc::clone(&turn) as Arc<dyn Turn>);
        let fill = |item| queue.try_claim().expect("room").fill_and_serve(item);
        let seen = || (turn.taken.load(Ordering::Relaxed), count.0.load(Ordering::Relaxed));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);

        assert!(!fill(1), "nobody sleeps");
        assert_eq!(seen(), (0, 0));
        assert_eq!(consumer.poll_next(&mut cx), Poll::Ready(Some(1)));
        assert!(consumer.poll_next(&mut cx).is_pending());
        assert_eq!(fill(2), may);
        assert_eq!(seen(), (1, u64::from(!may)));
        assert!(!fill(3), "the one who slept was woken, or has had its turn");
        assert_eq!(seen(), (1, u64::from(!may)));
        assert_eq!(consumer.poll_next(&mut cx), Poll::Ready(Some(2)));
        assert_eq!(consumer.poll_next(&mut cx), Poll::Ready(Some(3)));

        // Who only fills wakes, as ever.
        assert!(consumer.poll_next(&mut cx).is_pending());
        queue.try_claim().expect("room").fill(4);
        assert_eq!(seen(), (1, u64::from(!may) + 1));
    }
}

#[test]
fn who_is_visited_is_hidden_until_it_sleeps_on_and_looks_again_before_it_does() {
    // Places are given back at once.
    let queue = Queue::new(4);
    let (mut consumer, count) = (Consumer::new(&queue), Arc::new(Count::default()));
    consumer.set_turn(Arc::new(Taker { may: true, taken: AtomicU64::new(0) }));
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    let place = || queue.try_claim().expect("room");
    let woken = || count.0.load(Ordering::Relaxed);

    assert!(consumer.poll_next(&mut cx).is_pending());
    assert!(queue.is_at_rest());
    assert!(place().fill_and_serve(1));
    assert_eq!(consumer.poll_next(&mut cx), Poll::Ready(Some(1)));
    assert!(!queue.is_at_rest() && !consumer.is_waiting(), "it has that one in hand");
    assert_eq!(consumer.try_next(), None);
    assert!(!consumer.try_next_into(&mut None));
    assert!(!place().fill_and_serve(2), "it is not asleep");
    assert_eq!(woken(), 0);
    assert_eq!(consumer.poll_next(&mut cx), Poll::Ready(Some(2)), "nobody would tell it");

    assert!(consumer.poll_next(&mut cx).is_pending());
    assert!(queue.is_at_rest() && consumer.is_waiting());
    place().fill(3);
    assert_eq!(woken(), 1);
    assert_eq!(consumer.poll_next(&mut cx), Poll::Ready(Some(3)));

    // Who found something before it was woken for it sleeps no more.
    assert!(consumer.poll_next(&mut cx).is_pending());
    place().put(4);
    assert_eq!(consumer.try_next(), Some(4));
    assert!(!queue.is_at_rest());
    place().fill(5);
    assert_eq!(woken(), 1);
}

/// Takes one item when its turn is taken, if there is to be any use in it.
struct Drainer {
    queue: Arc<Queue<u64>>,
    drains: AtomicBool,
    taken: AtomicU64,
}

impl Turn for Drainer {
    fn is_quick(&self) -> bool {
        true
    }

    fn take(&self) -> bool {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if self.drains.load(Ordering::Relaxed) {
            self.queue.evict();
        }
        true
    }
}

#[test]
fn who_finds_no_room_takes_the_turn_of_the_only_consumer_and_stands_in_line_where_that_is_in_vain() {
    let queue = Arc::new(Queue::new(1));
    let turn = Arc::new(Drainer { queue: Arc::clone(&queue), drains: AtomicBool::new(true), taken: AtomicU64::new(0) });
    let taken = || turn.taken.swap(0, Ordering::Relaxed);
    let claim_and_fill = || queue.claim().now_or_never().map(|place| place.expect("open").fill(0)).is_some();
    let mut consumer = Consumer::new(Arc::clone(&queue));
    consumer.set_turn(Arc::clone(&turn) as Arc<dyn Turn>);

    assert!(claim_and_fill());
    assert_eq!(taken(), 0, "there was room");
    assert!(claim_and_fill());
    assert_eq!(taken(), 1);

    // One in vain, and then none for a while.
    turn.drains.store(false, Ordering::Relaxed);
    assert!(!claim_and_fill());
    assert_eq!(taken(), 1);
    turn.drains.store(true, Ordering::Relaxed);
    let waits = (0..1000).take_while(|_| !claim_and_fill()).count();
    assert_eq!((waits, taken()), (64, 1));

    // Nobody overtakes who stands in line.
    turn.drains.store(false, Ordering::Relaxed);
    let mut first = Box::pin(queue.claim());
    assert!((&mut first).now_or_never().is_none());
    turn.drains.store(true, Ordering::Relaxed);
    taken();
    assert!((0..100).all(|_| !claim_and_fill()));
    assert_eq!(taken(), 0);
    drop(first);
    while !claim_and_fill() {}

    // Two can work side by side, and one that is gone cannot.
    let another = Consumer::new(Arc::clone(&queue));
    taken();
    assert!((0..100).all(|_| !claim_and_fill()));
    drop((another, consumer));
    assert!((0..100).all(|_| !claim_and_fill()));
    assert_eq!(taken(), 0);
}

/// A consumer that is a task whose turn others may take, as a worker is.
#[derive(Default)]
struct Worked {
    life: Mutex<(Option<BoxFuture<'static, ()>>, Option<Waker>)>,
    woken: AtomicBool,
}

impl Worked {
    /// Runs it in a task of its own, until it ends.
    async fn run(self: Arc<Self>, life: BoxFuture<'static, ()>) {
        self.life.lock().0 = Some(life);
        poll_fn(|cx| {
            self.woken.store(true, Ordering::SeqCst);
            let Some(mut life) = self.life.try_lock() else { return Poll::Pending };
            self.woken.store(false, Ordering::SeqCst);
            life.1 = Some(cx.waker().clone());
            let Some(future) = &mut life.0 else { return Poll::Ready(()) };
            let polled = future.as_mut().poll(cx);
            if polled.is_ready() {
                life.0 = None;
            }
            polled
        })
        .await;
    }
}

impl Turn for Worked {
    fn is_quick(&self) -> bool {
        true
    }

    fn take(&self) -> bool {
        let Some(mut life) = self.life.try_lock() else { return false };
        let (Some(future), Some(waker)) = &mut *life else { return false };
        if future.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
            life.0 = None;
            self.woken.store(true, Ordering::SeqCst);
        }
        drop(life);
        while self.woken.load(Ordering::SeqCst) {
            let Some(life) = self.life.try_lock() else { break };
            self.woken.store(false, Ordering::SeqCst);
            life.1.as_ref().expect("it was polled").wake_by_ref();
        }
        true
    }
}

/// Everything arrives once whoever runs the consumers, also while they come and go; a lost wake-up would hang here.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nobody_sleeps_through_an_item_whoever_has_the_turn_of_the_consumers_and_however_often_they_change() {
    const PRODUCERS: u64 = 4;
    const EACH: u64 = 10_000;
    // How many items each consumer takes before another comes in its place.
    for (consumers, takes) in [(1, u64::MAX), (1, 100), (2, u64::MAX), (2, 7)] {
        let queue = Arc::new(Queue::new(64));
        let sum = Arc::new(AtomicU64::new(0));
        let consumers: Vec<_> = (0..consumers)
            .map(|_| {
                let (queue, sum) = (Arc::clone(&queue), Arc::clone(&sum));
                tokio::spawn(async move {
                    loop {
                        let (worked, ended) = (Arc::new(Worked::default()), Arc::new(AtomicBool::new(false)));
                        let mut consumer = Consumer::new(Arc::clone(&queue));
                        consumer.set_turn(Arc::clone(&worked) as Arc<dyn Turn>);
                        let (sum, over) = (Arc::clone(&sum), Arc::clone(&ended));
                        let life = Box::pin(async move {
                            for taken in 0..takes {
                                let Some(item) = poll_fn(|cx| consumer.poll_next(cx)).await else {
                                    over.store(true, Ordering::Relaxed);
                                    return;
                                };
                                sum.fetch_add(item, Ordering::Relaxed);
                                if taken % 16 == 0 {
                                    tokio::task::yield_now().await;
                                }
                            }
                        });
                        worked.run(life).await;
                        if ended.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                })
            })
            .collect();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|who| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move {
                    for number in 1..=EACH {
                        let place = queue.claim().await.expect("open");
                        match (number + who) % 8 {
                            0 => place.fill(number),
                            _ => drop(place.fill_and_serve(number)),
                        }
                        // Now and then all wait for each other, and nobody wakes whom another forgot.
                        if number % 32 == 0 {
                            while queue.len() > 0 {
                                tokio::task::yield_now().await;
                            }
                        }
                    }
                })
            })
            .collect();
        all_end(producers).await;
        queue.close();
        all_end(consumers).await;
        assert_eq!(sum.load(Ordering::Relaxed), PRODUCERS * EACH * (EACH + 1) / 2);
    }
}
