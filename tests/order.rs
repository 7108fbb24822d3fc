//! What stays in order: each publisher's events for a group with one worker, each key's events for a keyed group.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use edri::prelude::*;
use edri::{Bus, Reason};
use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::support::{Noted, Seen, at_rest, does, ends_well, keyed, letters, started, within};

/// Publishes `count` events of one key, some one by one and some in batches.
async fn publish_in_turns(bus: Bus, key: String, count: u64) {
    let mut number = 0;
    while number < count {
        let batch = (number % 7) * (number % 3);
        if batch == 0 {
            within("room", bus.publish(keyed(&key, number))).await.expect("published");
            number += 1;
        } else {
            let end = count.min(number + batch);
            let events = (number..end).map(|number| keyed(&key, number));
            within("room", bus.publish_batch(events)).await.expect("published");
            number = end;
        }
    }
}

/// The numbers of each key, in the order they were seen.
fn by_key(seen: &[(String, u64)]) -> HashMap<&str, Vec<u64>> {
    let mut numbers: HashMap<&str, Vec<u64>> = HashMap::new();
    for (key, number) in seen {
        numbers.entry(key).or_default().push(*number);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_with_one_worker_sees_each_publisher_in_order() {
    const PUBLISHERS: usize = 4;
    const EACH: u64 = 1000;
    for placement in [Placement::Task, Placement::Thread] {
        let seen: Seen<(String, u64)> = Seen::default();
        let by_worker = seen.clone();
        let worker = does(move |event: &Noted, _| {
            let seen = by_worker.clone();
            async move {
                seen.add((event.key.clone(), event.number));
                if event.number.is_multiple_of(5) {
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
            .boxed()
        });
        let manager = Manager::new("one").placement(placement).worker(worker).inbox(8).handles::<Noted>();
        let node = started(App::new("test").manager(manager)).await;
        let publishers =
            (0..PUBLISHERS).map(|name| tokio::spawn(publish_in_turns(node.bus().clone(), name.to_string(), EACH)));
        for publisher in join_all(publishers).await {
            publisher.expect("published all");
        }
        at_rest(node.bus()).await;
        let seen = seen.list();
        let numbers = by_key(&seen);
        assert_eq!(numbers.len(), PUBLISHERS);
        for (key, numbers) in numbers {
            assert_eq!(numbers, (0..EACH).collect::<Vec<_>>(), "of publisher {key}");
        }
        ends_well(&node).await;
    }
}

/// How many notifications of this key there have been.
#[event(request, name = "order.count", response = u64, key = key)]
struct CountOfKey {
    key: String,
}

#[derive(Default)]
struct CountsByKey(HashMap<String, u64>);

impl Worker for CountsByKey {}

impl Handle<Noted> for CountsByKey {
    async fn handle(&mut self, event: &Noted, _: &mut Context) -> Result<(), Failure> {
        tokio::task::yield_now().await;
        *self.0.entry(event.key.clone()).or_default() += 1;
        Ok(())
    }
}

impl Handle<CountOfKey> for CountsByKey {
    async fn handle(&mut self, event: &CountOfKey, _: &mut Context) -> Result<u64, Failure> {
        Ok(self.0.get(&event.key).copied().unwrap_or(0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_behind_the_notifications_that_were_in_its_inbox_before_it() {
    let managers = || {
        let counts = || Manager::new("counts").inbox(64);
        [
            counts().worker(CountsByKey::default),
            counts().placement(Placement::Thread).worker(CountsByKey::default),
            counts().worker(CountsByKey::default).keyed(),
            counts().workers(3, CountsByKey::default).keyed(),
        ]
    };
    for manager in managers() {
        let manager = manager.handles::<Noted>().handles::<CountOfKey>();
        let node = started(App::new("test").manager(manager)).await;
        for round in 1..=20 {
            for key in ["a", "b", "c", "d"] {
                node.bus().publish_batch((0..40).map(|number| keyed(key, number))).await.expect("published");
                let counted = within("an answer", node.bus().request(CountOfKey { key: key.to_owned() })).await;
                assert_eq!(counted.expect("answered"), round * 40);
            }
        }
        ends_well(&node).await;
    }
}

/// How often the handling of this event fails: every fifth once, every tenth twice, every hundredth for good.
fn failures(number: u64) -> u32 {
    [5, 10, 100].map(|each| u32::from(number.is_multiple_of(each))).iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyed_group_keeps_each_key_in_order_while_events_are_tried_again() {
    const EACH: u64 = 200;
    let tries: Seen<(String, u64)> = Seen::default();
    let by_worker = tries.clone();
    let worker = does(move |event: &Noted, cx| {
        let tries = by_worker.clone();
        async move {
            tries.add((event.key.clone(), event.number));
            tokio::task::yield_now().await;
            if cx.attempt() <= failures(event.number) { Err(Failure::message("not yet")) } else { Ok(()) }
        }
        .boxed()
    });
    let retry = Retry::attempts(3).backoff(Duration::from_micros(100), Duration::from_millis(1));
    let manager = Manager::new("keyed").workers(4, worker).keyed().inbox(8).retry(retry).handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    let publishers = (0..8).map(|key| tokio::spawn(publish_in_turns(node.bus().clone(), format!("key-{key}"), EACH)));
    for publisher in join_all(publishers).await {
        publisher.expect("published all");
    }
    let account = at_rest(node.bus()).await;
    assert_eq!((account.deliveries, account.handled, account.dead_lettered), (8 * EACH, 8 * (EACH - 2), 16));
    assert!(letters(node.bus()).iter().all(|(reason, _, attempts)| (*reason, *attempts) == (Reason::Failed, 3)));
    let tries = tries.list();
    let tries_of = |number| (failures(number) + 1).min(3) as usize;
    let expect: Vec<_> = (0..EACH).flat_map(|number| vec![number; tries_of(number)]).collect();
    let numbers = by_key(&tries);
    assert_eq!(numbers.len(), 8);
    for (key, numbers) in numbers {
        assert_eq!(numbers, expect, "of {key}: nothing else of the key between the tries of an event");
    }
    assert_eq!(account.retried as usize, tries.len() - 8 * EACH as usize);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyed_group_keeps_each_key_in_order_while_workers_are_lost() {
    const EACH: u64 = 60;
    for placement in [Placement::Task, Placement::Thread] {
        let tries: Seen<(String, u64)> = Seen::default();
        let by_worker = tries.clone();
        let worker = does(move |event: &Noted, cx| {
            let tries = by_worker.clone();
            async move {
                assert_eq!(cx.attempt() > 1, cx.is_redelivered());
                assert!(cx.is_redelivered() || event.number % 20 != 7, "this one breaks its worker at first");
                tries.add((event.key.clone(), event.number));
                Ok(())
            }
            .boxed()
        });
        let restart =
            Restart::at_most(1000, Duration::from_secs(60)).backoff(Duration::from_millis(1), Duration::from_millis(2));
        let manager = Manager::new("keyed")
            .placement(placement)
            .workers(3, worker)
            .keyed()
            .inbox(8)
            .retry(Retry::attempts(2))
            .restart(restart)
            .handles::<Noted>();
        let node = started(App::new("test").manager(manager)).await;
        let publishers =
            (0..6).map(|key| tokio::spawn(publish_in_turns(node.bus().clone(), format!("key-{key}"), EACH)));
        for publisher in join_all(publishers).await {
            publisher.expect("published all");
        }
        let account = at_rest(node.bus()).await;
        assert_eq!((account.handled, account.retried), (6 * EACH, 6 * EACH / 20));
        let seen = tries.list();
        for (key, numbers) in by_key(&seen) {
            assert_eq!(numbers, (0..EACH).collect::<Vec<_>>(), "of {key}");
        }
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_one_key_go_to_one_worker_and_the_keys_are_spread_over_all() {
    let seen: Seen<(String, usize)> = Seen::default();
    let by_worker = seen.clone();
    let worker = does(move |event: &Noted, cx| {
        by_worker.add((event.key.clone(), cx.instance()));
        async { Ok(()) }.boxed()
    });
    let manager = Manager::new("keyed").workers(4, worker).keyed().handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    for number in 0..20 {
        node.bus().publish_batch((0..50).map(|key| keyed(&format!("key-{key}"), number))).await.expect("published");
    }
    ends_well(&node).await;
    let mut instance_of = HashMap::new();
    for (key, instance) in seen.list() {
        assert_eq!(*instance_of.entry(key).or_insert(instance), instance);
    }
    assert_eq!(instance_of.len(), 50);
    assert_eq!(instance_of.values().collect::<HashSet<_>>().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_compete_handle_every_event_once() {
    let seen: Seen<u64> = Seen::default();
    let by_worker = seen.clone();
    let worker = does(move |event: &Noted, _| {
        let seen = by_worker.clone();
        async move {
            if event.number.is_multiple_of(3) {
                tokio::task::yield_now().await;
            }
            seen.add(event.number);
            Ok(())
        }
        .boxed()
    });
    let manager = Manager::new("many").workers(5, worker).inbox(4).handles::<Noted>();
    let node = started(App::new("test").manager(manager)).await;
    let publishers = (0..4_u64).map(|publisher| {
        let bus = node.bus().clone();
        tokio::spawn(async move {
            for number in 0..500 {
                within("room", bus.publish(keyed("any", publisher * 500 + number))).await.expect("published");
            }
        })
    });
    for publisher in join_all(publishers).await {
        publisher.expect("published all");
    }
    ends_well(&node).await;
    let mut numbers = seen.list();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..2000).collect::<Vec<_>>());
}
