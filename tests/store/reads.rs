//! What is read is answered where it is asked, as the store's worker would answer it.

use std::future::IntoFuture;
use std::pin::pin;
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::store::Eviction;
use edri::{Health, ManagerState};
use futures_util::FutureExt;

use super::disk::{Folder, opened};
use super::{code, keeping, text};
use crate::support::{LIMIT, at_rest, begun, ends_well, started, until, view, within};

/// Reads where there is no runtime, in which nobody could take the worker's turn; nothing unless it is answered at once.
fn read_at_once(things: &Namespace<String>, key: &'static str) -> Option<Option<String>> {
    let things = things.clone();
    let reading = std::thread::spawn(move || things.get(key).now_or_never());
    reading.join().expect("no panic").map(|read| read.expect("answers"))
}

/// Reads once the worker has nothing to do.
fn read(things: &Namespace<String>, key: &'static str) -> Option<String> {
    let limit = Instant::now() + LIMIT;
    loop {
        if let Some(read) = read_at_once(things, key) {
            return read;
        }
        assert!(Instant::now() < limit, "never answered at once");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_answered_where_it_is_asked_with_what_is_there_now() {
    let (node, things) = keeping().await;
    let first = things.set("a", &text("one")).await.expect("is set");
    assert_eq!(read(&things, "a").as_deref(), Some("one"));
    assert_eq!(read(&things, "b"), None);
    let version = things.set("a", &text("two")).expires_in(Duration::from_secs(60)).await.expect("is set");
    assert!(version > first);
    assert_eq!(read(&things, "a").as_deref(), Some("two"));
    let item = things.get_item("a").await.expect("answers").expect("is there");
    assert_eq!((item.value.as_str(), item.version), ("two", version));
    assert!(item.expires_in_ms.is_some_and(|time| time > 50_000 && time <= 60_000));
    things.set("a", &text("three")).expires_in(Duration::from_millis(20)).await.expect("is set");
    until("it to expire", || read(&things, "a").is_none()).await;
    things.set("a", &text("four")).await.expect("is set");
    things.delete("a").await.expect("is deleted");
    assert_eq!(read(&things, "a"), None);
    assert_eq!(code(things.get("").await), "invalid_payload");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_written_reads_it_at_once_also_without_having_waited() {
    let (node, things) = keeping().await;
    let writers = (0..4).map(|writer| {
        let things = things.clone();
        tokio::spawn(async move {
            let key = format!("k{writer}");
            for number in 0..3000 {
                let value = number.to_string();
                if number % 2 == 0 {
                    things.set(&key, &value).await.expect("is set");
                    assert_eq!(things.get(&key).await.expect("answers"), Some(value));
                    continue;
                }
                let mut setting = pin!(things.set(&key, &value).into_future());
                let over = begun(setting.as_mut()).await;
                assert_eq!(things.get(&key).await.expect("answers").as_ref(), Some(&value));
                if over.is_none() {
                    setting.await.expect("is set");
                }
            }
        })
    });
    for ended in within("all of them", futures_util::future::join_all(writers)).await {
        ended.expect("no panic");
    }
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_in_the_store_s_account_each_once() {
    let (node, things) = keeping().await;
    things.set("a", &text("one")).await.expect("is set");
    assert_eq!(read(&things, "a").as_deref(), Some("one"));
    at_rest(node.bus()).await;
    let before = view(&node, "store").account;
    for _ in 0..1000 {
        assert!(things.get("a").await.expect("answers").is_some());
        let body = Body::from(serde_json::json!({"key": "a"}));
        node.bus().untyped().request("store.things.get", body).await.expect("answers");
    }
    at_rest(node.bus()).await;
    let account = view(&node, "store").account;
    let reads = (account.deliveries - before.deliveries, account.handled - before.handled);
    assert_eq!(reads, (2000, 2000));
    assert_eq!(node.topology().pending, 0);
    ends_well(&node).await;
}

#[tokio::test]
async fn a_durable_store_is_read_at_once_while_a_write_is_on_its_way_and_shows_what_is_on_disk() {
    let folder = Folder::new("reads");
    let (node, things) = opened(&folder.file("store")).await;
    let mut last = text("first");
    things.set("a", &last).await.expect("is kept");
    let (mut at_once, limit) = (0, Instant::now() + LIMIT);
    while at_once < 10 {
        assert!(Instant::now() < limit, "never answered at once");
        let value = format!("{last}x");
        let mut setting = pin!(things.set("a", &value).into_future());
        let over = begun(setting.as_mut()).await;
        // The worker gives it to the writer, which has a thread of its own.
        tokio::task::yield_now().await;
        let found = read_at_once(&things, "a");
        if over.is_none() && begun(setting.as_mut()).await.is_none() {
            if let Some(found) = found {
                at_once += 1;
                assert!(found.as_ref() == Some(&last) || found.as_ref() == Some(&value), "{found:?}");
            }
            setting.await.expect("is kept");
        }
        assert_eq!(things.get("a").await.expect("answers").as_ref(), Some(&value), "what is acknowledged is shown");
        last.clone_from(&value);
    }
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_read_for_longest_makes_room_whoever_answered() {
    let store =
        Store::memory().namespace_with("things", |things| things.keys_max(2).evict(Eviction::LeastRecentlyUsed));
    let node = started(App::new("keeper").manager(store)).await;
    let things = Namespace::<String>::new(node.bus(), "things");
    things.set("a", &text("one")).await.expect("is set");
    things.set("b", &text("two")).await.expect("is set");
    assert!(read(&things, "a").is_some());
    things.set("c", &text("three")).await.expect("is set");
    assert_eq!((read(&things, "a").is_some(), read(&things, "b").is_some()), (true, false));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_has_gone_answers_nothing_any_more() {
    let (node, things) = keeping().await;
    things.set("a", &text("one")).await.expect("is set");
    assert!(read(&things, "a").is_some());
    assert!(node.drain("store").await.expect("is drained").is_all());
    assert_eq!(code(things.get("a").await), "no_handler");
    node.add(Store::memory().namespace("things")).await.expect("starts");
    assert_eq!(things.get("a").await.expect("answers"), None, "it is another");
    assert_eq!(read(&things, "a"), None);
    let state = view(&node, "store");
    assert_eq!((state.state, &state.workers[0].health), (ManagerState::Running, &Health::Good));
    ends_well(&node).await;
    assert_eq!(code(things.get("a").await), "stopping");
}
