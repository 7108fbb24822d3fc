//! The store, through real nodes.

pub(crate) mod disk;
mod nodes;
mod reads;

use std::time::Duration;

use edri::prelude::*;
use edri::store::event::{Change, Done, Incremented, What, Written};
use edri::store::{Eviction, Watching};
use edri::{Encoding, ManagerError, StartError};

use crate::support::{LIMIT, ends_well, started, within};

/// A node with a store in memory that has the namespace `things`.
async fn keeping() -> (Node, Namespace<String>) {
    let node = started(App::new("keeper").manager(Store::memory().namespace("things"))).await;
    let things = Namespace::new(node.bus(), "things");
    (node, things)
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn code<T: std::fmt::Debug>(result: Result<T, edri::store::Error>) -> String {
    result.expect_err("is refused").code().to_owned()
}

async fn next<T: serde::de::DeserializeOwned>(watching: &mut Watching<T>) -> Change<T> {
    within("a change", watching.next()).await.expect("goes on")
}

#[tokio::test]
async fn what_is_set_is_there_until_it_is_deleted() {
    let (node, things) = keeping().await;
    assert_eq!(things.get("a").await.expect("answers"), None);
    let first = things.set("a", &text("one")).await.expect("is set");
    let second = things.set("a", &text("two")).await.expect("is set");
    assert!(second > first);
    let item = things.get_item("a").await.expect("answers").expect("is there");
    assert_eq!((item.key.as_str(), item.value.as_str(), item.version), ("a", "two", second));
    assert!(things.delete("a").await.expect("answers"));
    assert!(!things.delete("a").await.expect("answers"));
    assert_eq!(things.get("a").await.expect("answers"), None);
    ends_well(&node).await;
}

#[tokio::test]
async fn a_condition_that_does_not_hold_changes_nothing_and_says_so() {
    let (node, things) = keeping().await;
    let version = things.set("a", &text("one")).if_absent().await.expect("is set");
    assert_eq!(code(things.set("a", &text("two")).if_absent().await), "exists");
    assert_eq!(code(things.set("a", &text("two")).if_version(version + 7).await), "version_mismatch");
    assert_eq!(code(things.set("b", &text("two")).if_version(version).await), "version_mismatch");
    assert_eq!(code(things.swap("a", Some(&text("three")), &text("two")).await), "value_mismatch");
    assert_eq!(code(things.swap("a", None, &text("two")).await), "exists");
    assert_eq!(code(things.delete_version("a", version + 7).await), "version_mismatch");
    assert_eq!(things.get("a").await.expect("answers").as_deref(), Some("one"));
    let version = things.swap("a", Some(&text("one")), &text("two")).await.expect("is swapped");
    things.set("a", &text("three")).if_version(version).await.expect("is set");
    assert_eq!(things.get("a").await.expect("answers").as_deref(), Some("three"));
    ends_well(&node).await;
}

#[tokio::test]
async fn integers_add_up_and_lists_grow() {
    let (node, things) = keeping().await;
    let numbers = Namespace::<i64>::new(node.bus(), "things");
    assert_eq!(numbers.increment("n", 5).await.expect("adds"), 5);
    assert_eq!(numbers.increment("n", -7).await.expect("adds"), -2);
    assert_eq!(numbers.get("n").await.expect("answers"), Some(-2));
    numbers.set("n", &i64::MAX).await.expect("is set");
    assert_eq!(code(numbers.increment("n", 1).await), "overflow");
    things.set("t", &text("text")).await.expect("is set");
    assert_eq!(code(numbers.increment("t", 1).await), "wrong_type");
    assert_eq!(code(things.append("t", &1).await), "wrong_type");
    assert_eq!(things.append("l", &1).await.expect("appends"), 1);
    assert_eq!(things.append("l", &2).await.expect("appends"), 2);
    let lists = Namespace::<Vec<u8>>::new(node.bus(), "things");
    assert_eq!(lists.get("l").await.expect("answers"), Some(vec![1, 2]));
    assert_eq!(code(numbers.get("t").await), "invalid_payload");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_list_comes_page_by_page_in_the_order_of_its_keys() {
    let (node, things) = keeping().await;
    for number in 0..25 {
        things.set(&format!("in/{number:02}"), &number.to_string()).await.expect("is set");
    }
    things.set("im", &text("before")).await.expect("is set");
    things.set("io", &text("after")).await.expect("is set");
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = things.list("in/", after.as_deref(), 10).await.expect("answers");
        found.extend(page.items.into_iter().map(|item| item.value));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, (0..25).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(things.count("in/").await.expect("answers"), 25);
    assert_eq!(things.count("").await.expect("answers"), 27);
    let many = things.get_many(["io", "nowhere", "im"]).await.expect("answers");
    let many: Vec<_> = many.into_iter().map(|item| item.map(|item| item.value)).collect();
    assert_eq!(many, [Some(text("after")), None, Some(text("before"))]);
    assert_eq!(code(things.list("", None, 0).await), "invalid_payload");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_transaction_does_all_or_nothing() {
    let (node, _) = keeping().await;
    let accounts = Namespace::<i64>::new(node.bus(), "things");
    let version = accounts.set("anna", &10).await.expect("is set");
    let moved = accounts.transaction().if_version("anna", version).if_absent("otto");
    let done =
        moved.increment("anna", -4).increment("otto", 4).delete("nobody").set("last", &1).await.expect("is done");
    let [Done::Incremented(anna), Done::Incremented(otto), Done::Deleted(nobody), Done::Written(Written { .. })] =
        done[..]
    else {
        panic!("{done:?}");
    };
    assert!(matches!((anna, otto), (Incremented { value: 6, .. }, Incremented { value: 4, .. })));
    assert!(!nobody.existed);
    assert_eq!(
        code(accounts.transaction().if_version("anna", version).increment("anna", -4).await),
        "condition_failed"
    );
    accounts.set("most", &i64::MAX).await.expect("is set");
    assert_eq!(code(accounts.transaction().increment("anna", 1).increment("most", 1).await), "overflow");
    assert_eq!(accounts.get("anna").await.expect("answers"), Some(6));
    ends_well(&node).await;
}

#[tokio::test]
async fn what_expires_is_gone_within_a_second_also_when_nobody_reads_it() {
    let (node, things) = keeping().await;
    let mut changes = node.bus().untyped().subscribe("store.things.changed").await.expect("subscribes");
    let mut watching = things.watch("").await.expect("watches");
    assert_eq!(next(&mut watching).await.what, What::Ready);
    things.set("short", &text("x")).expires_in(Duration::from_millis(400)).await.expect("is set");
    let began = tokio::time::Instant::now();
    assert_eq!(next(&mut watching).await.what, What::Set);
    let change = next(&mut watching).await;
    let took = began.elapsed();
    assert_eq!((change.what, change.key.as_str()), (What::Expired, "short"));
    assert!(took > Duration::from_millis(390) && took < Duration::from_millis(1400), "{took:?}");
    for what in ["set", "expired"] {
        let change = within("a notification", changes.next()).await.expect("goes on");
        assert_eq!(change.key().as_deref(), Some("short"));
        let body: serde_json::Value = change.body(Encoding::Json).expect("a body").decode().expect("decodes");
        assert_eq!(body["what"], what);
    }
    drop((watching, changes));
    ends_well(&node).await;
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_then_every_change_in_order() {
    let (node, things) = keeping().await;
    for number in 0..3000 {
        things.set(&format!("old/{number:04}"), &text("x")).await.expect("is set");
    }
    things.set("other", &text("x")).await.expect("is set");
    let mut watching = things.watch("old/").await.expect("watches");
    let writing = async {
        for number in 0..3000 {
            things.set(&format!("old/{:04}", number % 3000), &number.to_string()).await.expect("is set");
            things.set("other", &text("y")).await.expect("is set");
        }
        things.delete("old/0000").await.expect("is deleted");
    };
    let reading = async {
        let (mut model, mut last, mut ready) = (std::collections::BTreeMap::new(), 0, false);
        loop {
            let change = next(&mut watching).await;
            match change.what {
                What::Is => assert!(model.insert(change.key, change.value.expect("a value")).is_none(), "told once"),
                What::Ready => ready = true,
                What::Set => {
                    assert!(change.version > last, "in order");
                    last = change.version;
                    model.insert(change.key, change.value.expect("a value"));
                }
                _ => {
                    assert!(change.version > last && model.remove(&change.key).is_some());
                    return (model, ready);
                }
            }
        }
    };
    let ((), (model, ready)) = within("all", async { tokio::join!(writing, reading) }).await;
    assert!(ready);
    assert_eq!(model.len(), 2999);
    assert!(model.iter().all(|(key, value)| key.ends_with(&format!("{value:0>4}"))), "the last of each");
    drop(watching);
    ends_well(&node).await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_nobody_up_and_is_told_that_it_missed_some() {
    let (node, things) = keeping().await;
    let mut watching = things.watch("").await.expect("watches");
    assert_eq!(next(&mut watching).await.what, What::Ready);
    for number in 0..6000 {
        within("a write", things.set("a", &number.to_string())).await.expect("is set");
    }
    let ended = within("the end", async {
        loop {
            if let Err(error) = watching.next().await {
                return error;
            }
        }
    });
    assert_eq!(ended.await.code(), "watch_lagged");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_full_namespace_refuses_or_makes_room_as_it_was_told() {
    let store = Store::memory()
        .namespace_with("strict", |strict| strict.keys_max(3))
        .namespace_with("recent", |recent| recent.keys_max(3).evict(Eviction::LeastRecentlyUsed))
        .namespace_with("brief", |brief| brief.keys_max(3).evict(Eviction::SoonestToExpire));
    let node = started(App::new("keeper").manager(store)).await;
    let [strict, recent, brief] = ["strict", "recent", "brief"].map(|name| Namespace::<u8>::new(node.bus(), name));
    for key in ["a", "b", "c"] {
        strict.set(key, &1).await.expect("is set");
        recent.set(key, &1).await.expect("is set");
    }
    assert_eq!(code(strict.set("d", &1).await), "full");
    strict.set("a", &2).await.expect("a key that is there has its place");
    recent.get("a").await.expect("answers");
    recent.set("d", &1).await.expect("is set");
    assert_eq!(recent.get("b").await.expect("answers"), None);
    assert_eq!(recent.count("").await.expect("answers"), 3);
    brief.set("a", &1).await.expect("is set");
    brief.set("b", &1).expires_in(Duration::from_secs(200)).await.expect("is set");
    brief.set("c", &1).expires_in(Duration::from_secs(100)).await.expect("is set");
    brief.set("d", &1).await.expect("is set");
    assert_eq!(brief.get("c").await.expect("answers"), None);
    brief.set("e", &1).await.expect("is set");
    assert_eq!(code(brief.set("f", &1).await), "full");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_write_that_is_sent_again_is_not_done_again() {
    let (node, _) = keeping().await;
    let ask = |request: &str| Body::from(serde_json::json!({"key": "n", "by": 1, "request": request}));
    let bus = node.bus().untyped();
    for (request, expect) in [("r1", 1), ("r1", 1), ("r2", 2), ("r1", 1), ("r2", 2), ("r3", 3)] {
        let answer = bus.request("store.things.increment", ask(request)).await.expect("answers");
        let answer: Incremented = answer.decode().expect("decodes");
        assert_eq!(answer.value, expect, "{request}");
    }
    ends_well(&node).await;
}

#[tokio::test]
async fn without_types_it_is_asked_in_json_and_bad_requests_say_what_is_wrong() {
    let (node, _) = keeping().await;
    let ask = async |verb: &str, body: serde_json::Value| {
        let answer = node.bus().untyped().request(&format!("store.things.{verb}"), Body::from(body)).await;
        answer.map(|body| body.decode::<serde_json::Value>().expect("JSON")).map_err(|error| error.to_string())
    };
    use serde_json::json;
    let value = json!({"list": [1, null, {"x": 1.5}], "text": "ä"});
    ask("set", json!({"key": "k", "value": value, "expires_in_ms": 60_000})).await.expect("is set");
    let item = ask("get", json!({"key": "k"})).await.expect("answers");
    assert_eq!(item["value"], value);
    assert!(item["expires_in_ms"].as_u64().is_some_and(|time| time > 50_000 && time <= 60_000));
    assert_eq!(ask("get", json!({"key": "no"})).await.expect("answers"), json!(null));
    for (verb, body, says) in [
        ("set", json!({"key": "k"}), "no `value`"),
        ("set", json!({"value": 1}), "no `key`"),
        ("set", json!({"key": "", "value": 1}), "1 to 512"),
        ("set", json!({"key": "x".repeat(513), "value": 1}), "1 to 512"),
        ("set", json!({"key": "k", "value": 1, "expires_in_ms": -1}), "`expires_in_ms`"),
        ("set", json!({"key": "k", "value": 1, "expires_in_ms": 0}), "left out for never"),
        ("set", json!({"key": "k", "value": 1, "if_absent": true, "if_version": 1}), "exclude"),
        ("set", json!({"key": "k", "value": "x".repeat(5 << 20)}), "value_too_long"),
        ("get", json!([1]), "no map"),
        ("list", json!({"limit": 5000}), "1 to 1024"),
        ("transact", json!({"operations": [{"do": "dance", "key": "k"}]}), "dance"),
        ("increment", json!({"key": "k", "by": 1.5}), "floating"),
    ] {
        let error = ask(verb, body).await.expect_err("is refused");
        assert!(error.contains(says), "{verb}: {error}");
    }
    ends_well(&node).await;
}

#[tokio::test]
async fn with_types_it_is_held_to_the_same_and_both_ways_see_the_same() {
    let (node, things) = keeping().await;
    let long = "x".repeat(5 << 20);
    assert_eq!(code(things.set("k", &long).await), "value_too_long");
    assert_eq!(code(things.set("", &text("x")).await), "invalid_payload");
    assert_eq!(code(things.get("").await), "invalid_payload");
    assert_eq!(code(things.get(&"x".repeat(513)).await), "invalid_payload");
    assert_eq!(code(things.delete("").await), "invalid_payload");
    assert_eq!(code(things.increment("", 1).await), "invalid_payload");
    assert_eq!(code(things.set("k", &text("x")).expires_in(Duration::ZERO).await), "invalid_payload");
    assert_eq!(code(things.set("k", &text("x")).if_absent().if_version(1).await), "invalid_payload");
    let deep = (0..100).fold(serde_json::Value::Null, |inner, _| serde_json::json!([inner]));
    let trees = Namespace::<serde_json::Value>::new(node.bus(), "things");
    assert_eq!(code(trees.set("k", &deep).await), "invalid_payload");
    assert_eq!(things.get("k").await.expect("answers"), None, "nothing was set");

    let version = things.set("k", &text("ä")).expires_in(Duration::from_secs(60)).await.expect("is set");
    let body = Body::from(serde_json::json!({"key": "k"}));
    let item = node.bus().untyped().request("store.things.get", body).await.expect("answers");
    let item: serde_json::Value = item.decode().expect("JSON");
    assert_eq!((&item["key"], &item["value"], &item["version"]), (&"k".into(), &"ä".into(), &version.into()));
    let item = things.get_item("k").await.expect("answers").expect("is there");
    assert_eq!((item.key.as_str(), item.value.as_str(), item.version), ("k", "ä", version));
    assert!(item.expires_in_ms.is_some_and(|time| time > 50_000 && time <= 60_000));
    let numbers = Namespace::<u64>::new(node.bus(), "things");
    assert_eq!(code(numbers.get("k").await), "invalid_payload", "it is a text");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_namespace_has_one_owner_on_a_node() {
    let (node, things) = keeping().await;
    things.set("a", &text("x")).await.expect("is set");
    let second = node.add(Store::memory().named("second").namespace("other").namespace("things")).await;
    let Err(ManagerError::Failed { reason, .. }) = second else { panic!("{second:?}") };
    assert!(reason.contains("namespace_taken") && reason.contains("manager `store` of this node"), "{reason}");
    assert!(!reason.contains("restarts"), "it is not tried again: {reason}");
    assert_eq!(things.get("a").await.expect("answers").as_deref(), Some("x"));
    // What it had claimed beside is free again.
    node.add(Store::memory().named("third").namespace("other")).await.expect("starts");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_store_that_cannot_be_says_why_when_it_starts() {
    for (store, says) in [
        (Store::memory(), "no namespace"),
        (Store::memory().namespace("Sessions"), "lower-case"),
        (Store::memory().namespace("a").namespace("a"), "twice"),
        (Store::memory().namespace_with("a", |a| a.keys_max(0)), "room for nothing"),
    ] {
        let error = App::new("keeper").manager(store).start().await.expect_err("is refused");
        assert!(matches!(error, StartError::Manager(_)) && error.to_string().contains(says), "{error}");
    }
    let (node, _) = keeping().await;
    assert_eq!(code(Namespace::<u8>::new(node.bus(), "No").get("a").await), "invalid_name");
    ends_well(&node).await;
}

#[tokio::test]
async fn an_open_watch_does_not_keep_a_node_from_stopping() {
    let (node, things) = keeping().await;
    let mut watching = things.watch("").await.expect("watches");
    assert_eq!(next(&mut watching).await.what, What::Ready);
    let (report, ended) = tokio::join!(tokio::time::timeout(LIMIT, node.shutdown()), watching.next());
    assert!(report.expect("in time").took < Duration::from_secs(5));
    assert_eq!(ended.expect_err("has ended").code(), "stopping");
}
