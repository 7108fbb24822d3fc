//! Publishers on several threads, and subscribers that come, leave and come back meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// What one reader had: positions without a hole but for those it was told of, and each publisher's events in their order.
#[derive(Default)]
struct Had {
    last: Option<u64>,
    gap: u64,
    of_each: HashMap<String, u64>,
    count: usize,
    missed: u64,
}

impl Had {
    fn add(&mut self, next: Result<Recorded<Received<Told>>, Missed>) {
        match next {
            Err(missed) => {
                self.gap += missed.events.expect("the history was never another");
                self.missed += missed.events.unwrap_or_default();
            }
            Ok(Recorded { position, event, .. }) => {
                let number = position.number();
                if let Some(last) = self.last {
                    assert_eq!(number, last + 1 + self.gap, "after {last}, with {} missed", self.gap);
                }
                let latest = self.of_each.insert(event.key.clone(), event.number);
                let expect = latest.map_or(event.number, |latest| latest + 1);
                if self.missed == 0 {
                    assert_eq!(event.number, expect, "the next of {}", event.key);
                } else {
                    assert!(event.number >= expect, "the next of {}", event.key);
                }
                (self.last, self.gap) = (Some(number), 0);
                self.count += 1;
            }
        }
    }
}

/// Publishes from several threads while others join at any moment, some to read on where they left off.
fn publish_and_join(history: History, may_miss: bool) {
    const PUBLISHERS: usize = 4;
    const EACH: u64 = 4000;
    let node = Node::keeping(history);
    let publishing = AtomicUsize::new(PUBLISHERS);
    let all = PUBLISHERS as u64 * EACH;
    std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (bus, publishing, runtime) = (node.bus(), &publishing, node.runtime.handle());
            scope.spawn(move || {
                for number in 0..EACH {
                    runtime.block_on(bus.publish(told(&publisher.to_string(), number))).expect("published");
                }
                publishing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for joiner in 0..3_usize {
            let (bus, publishing, node) = (node.bus(), &publishing, &node);
            scope.spawn(move || {
                let (mut had, mut round) = (Had::default(), joiner);
                let mut left_at: Option<(Position, EventId)> = None;
                while publishing.load(Ordering::SeqCst) > 0 {
                    round += 1;
                    let subscribe = bus.subscribe::<Told>();
                    let replay = match left_at {
                        // On from where it was: as if it had never left.
                        Some((position, _)) if round % 4 == 0 => subscribe.since(position),
                        Some((_, id)) if round % 4 == 1 && !may_miss => subscribe.since(id),
                        _ => {
                            had = Had::default();
                            subscribe.last(round * 7 % 50)
                        }
                    };
                    let mut replay = node.wait(replay).expect("subscribed");
                    let most = 1 + round * 13 % 300;
                    for _ in 0..most {
                        match node
                            .runtime
                            .block_on(async { tokio::time::timeout(Duration::from_millis(20), replay.next()).await })
                        {
                            Ok(Some(next)) => {
                                left_at =
                                    next.as_ref().ok().map(|it| (it.position, it.event.envelope().id())).or(left_at);
                                had.add(next);
                            }
                            Ok(None) => panic!("the history has not ended"),
                            Err(_) => break,
                        }
                    }
                    assert!(may_miss || had.missed == 0, "{} were missed", had.missed);
                    if had.gap > 0 {
                        // It ended in a gap; what comes after it is not looked at in this round.
                        had = Had::default();
                        left_at = None;
                    }
                }
            });
        }
        // One that waits for the events of one publisher.
        let (bus, node_of_key) = (node.bus(), &node);
        scope.spawn(move || {
            let mut keyed = node_of_key.wait(bus.subscribe::<Told>().key("2").last(usize::MAX)).expect("subscribed");
            let mut last = None;
            while last != Some(EACH - 1) && keyed.position().number() < all {
                // When its last event was missed nothing wakes it any more, so it looks again by itself.
                let next = async { tokio::time::timeout(Duration::from_millis(20), keyed.next()).await };
                match node_of_key.runtime.block_on(next) {
                    Ok(Some(Ok(Recorded { event, .. }))) => {
                        assert_eq!(event.key, "2");
                        let follows = |last| if may_miss { event.number > last } else { event.number == last + 1 };
                        assert!(last.is_none_or(follows), "{} after {last:?}", event.number);
                        last = Some(event.number);
                    }
                    Ok(Some(Err(missed))) => assert!(may_miss, "{missed}"),
                    Ok(None) => panic!("the history has not ended"),
                    Err(_) => {}
                }
            }
            assert!(may_miss || last == Some(EACH - 1));
        });
        // One that is there from the beginning, and reads to the end.
        let mut whole = node.wait(node.bus().subscribe::<Told>().last(usize::MAX)).expect("subscribed");
        let (mut had, first) = (Had::default(), whole.position().number());
        while whole.position().number() < all {
            had.add(node.wait(whole.next()).expect("not the end"));
        }
        if !may_miss {
            assert_eq!((had.missed, had.count as u64), (0, all - first));
        }
        assert_eq!(had.count as u64 + had.missed, all - first);
    });
    let mut whole = node.wait(node.bus().subscribe::<Told>().last(usize::MAX)).expect("subscribed");
    let mut had = Had::default();
    while let Some(Some(next)) = whole.next().now_or_never() {
        had.add(next);
    }
    assert_eq!((had.last, had.missed), (Some(all), 0));
    let account = node.bus().account();
    assert_eq!((account.deliveries, account.handled), (all, all));
}

#[test]
fn who_joins_at_whatever_moment_among_many_publishers_has_no_gap_and_no_repetition() {
    publish_and_join(History::new().events(1 << 15).bytes(64 << 20), false);
}

#[test]
fn who_is_slower_than_a_small_history_is_told_of_exactly_what_it_missed() {
    publish_and_join(History::new().events(100), true);
}
