//! What whoever tells other nodes hears of what this one wants.

use edri::prelude::*;
use edri::{Descriptor, Event, Kind};
use edri_router::{Interest, InterestFeed};
use futures_util::FutureExt;

use super::remote::joins;
use super::support::{Asked, Followed, Noted, Seen, does, ends_well, keeps, noted, started, within};

/// The next change, in short.
async fn next(feed: &mut InterestFeed) -> String {
    match within("a change", feed.next()).await.expect("the node lives") {
        Interest::Joined { group, selections, events } => {
            let wants: Vec<_> = selections.iter().map(|wants| wants.pattern.to_string()).collect();
            let events: Vec<_> = events.iter().map(|event| event.name().to_string()).collect();
            format!("{} joined: {} ({})", group.name().to_text(), wants.join(", "), events.join(", "))
        }
        Interest::Left { .. } => "left".to_owned(),
        Interest::Declared(event) => format!("declared {}", event.name()),
        other => format!("{other:?}"),
    }
}

async fn all(feed: &mut InterestFeed, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(next(feed).await);
    }
    assert!(feed.next().now_or_never().is_none(), "and nothing else");
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_begins_with_what_there_is_and_goes_on_with_every_change_in_its_order() {
    let keeps = || keeps(&Seen::default());
    let one = Manager::new("one").worker(keeps()).handles::<Noted>().handles::<Asked>();
    let node = started(App::new("here").manager(one)).await;
    let _there = joins(&node, "north", "far", 8, &["test.noted"]).await;
    let mut feed = node.router().interest().await.expect("the node lives");
    let begins =
        ["declared test.asked", "declared test.noted", "one joined: test.noted, test.asked (test.noted, test.asked)"];
    assert_eq!(all(&mut feed, 3).await, begins);
    // Groups of other nodes are not told of.
    let there = joins(&node, "south", "far", 8, &["test.asked"]).await;
    node.router().change(Vec::new(), &[there.group]).await.expect("withdrawn");
    node.add(Manager::new("two").worker(keeps()).handles::<Followed>()).await.expect("added");
    assert_eq!(all(&mut feed, 2).await, ["declared test.followed", "two joined: test.followed (test.followed)"]);
    let pattern = node.bus().untyped().subscribe("test.*").await.expect("subscribed");
    let joined = next(&mut feed).await;
    assert!(joined.ends_with(" joined: test.* ()") && joined.starts_with("subscription."), "{joined}");
    drop(pattern);
    assert_eq!(next(&mut feed).await, "left");
    node.bus()
        .declare(Descriptor::declare("test.other", Kind::Request).expect("a name").build())
        .await
        .expect("declared");
    // Again is nothing new.
    node.bus().declare(Noted::descriptor()).await.expect("declared");
    assert_eq!(all(&mut feed, 1).await, ["declared test.other"]);
    // Whoever replaces another is there before the other leaves.
    node.replace(Manager::new("two").worker(keeps()).handles::<Noted>()).await.expect("replaced");
    assert_eq!(all(&mut feed, 2).await, ["two joined: test.noted (test.noted)", "left"]);
    node.drain("one").await.expect("drained");
    assert_eq!(all(&mut feed, 1).await, ["left"]);
    let mut second = node.router().interest().await.expect("the node lives");
    assert_eq!(next(&mut second).await, "declared test.asked");
    ends_well(&node).await;
    assert_eq!(next(&mut feed).await, "left");
    assert!(within("the end", feed.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_has_failed_wants_nothing_any_more() {
    let falls = does(|_: &Noted, _| panic!("as it should"));
    let manager = Manager::new("fails").worker(falls).restart(edri::Restart::never()).handles::<Noted>();
    let node = started(App::new("here").manager(manager)).await;
    let mut feed = node.router().interest().await.expect("the node lives");
    assert_eq!(all(&mut feed, 2).await, ["declared test.noted", "fails joined: test.noted (test.noted)"]);
    node.bus().publish(noted(1)).await.expect("published");
    assert_eq!(next(&mut feed).await, "left");
}
