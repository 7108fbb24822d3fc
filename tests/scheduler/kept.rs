//! Entries that are kept in a store.

use std::path::PathBuf;
use std::time::SystemTime;

use super::*;

/// A place for a store's file that nothing is at.
fn place(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("scheduler-{name}"));
    if path.is_dir() {
        std::fs::remove_dir_all(&path).expect("what an earlier run left is taken away");
    } else if path.exists() {
        std::fs::remove_file(&path).expect("what an earlier run left is taken away");
    }
    path
}

/// A node whose scheduler keeps its entries in a durable store.
async fn keeping(path: &PathBuf, scheduler: Scheduler, seen: &Seen<u64>) -> Node {
    let store = Store::open(path).namespace("schedule");
    let keeps = Manager::new("keeps").worker(keeps(seen)).handles::<Noted>();
    started(App::new("node").manager(scheduler.store("schedule")).manager(store).manager(keeps)).await
}

#[tokio::test]
async fn entries_survive_a_restart_with_their_counts_and_whether_they_are_paused() {
    let (path, seen) = (place("restart"), Seen::default());
    let node = keeping(&path, Scheduler::new(), &seen).await;
    add(node.bus(), Entry::every(SOON, noted(1)).id("runs")).await;
    add(node.bus(), Entry::every(LATER, noted(2)).id("paused")).await;
    add(node.bus(), Entry::every(LATER, noted(3)).id("cancelled")).await;
    node.bus().request(Pause { id: "paused".into() }).await.expect("pauses");
    assert!(node.bus().request(Cancel { id: "cancelled".into() }).await.expect("cancels").existed);
    seen.wait_for(3).await;
    let before = status(node.bus(), "runs").await.runs;
    ends_well(&node).await;

    let seen = Seen::default();
    let node = keeping(&path, Scheduler::new(), &seen).await;
    seen.wait_for(3).await;
    let runs = status(node.bus(), "runs").await.runs;
    assert!(runs >= before + 3, "{runs} runs, and {before} before");
    let paused = status(node.bus(), "paused").await;
    assert!(paused.paused && paused.entry == Entry::every(LATER, noted(2)).id("paused"));
    assert_eq!(code(node.bus().request(Get { id: "cancelled".into() }).await), "unknown_entry");
    ends_well(&node).await;
}

#[tokio::test]
async fn what_was_due_while_the_node_was_down_is_missed_and_made_up_for_as_its_entry_says() {
    let (path, seen) = (place("missed"), Seen::default());
    let node = keeping(&path, Scheduler::new(), &seen).await;
    let due = SystemTime::now() + Duration::from_millis(500);
    add(node.bus(), Entry::at(due, noted(1)).id("once")).await;
    add(node.bus(), Entry::aligned(Duration::from_millis(100), noted(2)).id("all").start(due).missed(Missed::All(4)))
        .await;
    // Killed, as far as its entries are concerned: nothing is drained.
    drop(node);
    until("the due time to pass", || SystemTime::now() > due + Duration::from_secs(1)).await;
    assert_eq!(seen.len(), 0);

    let seen = Seen::default();
    let node = keeping(&path, Scheduler::new(), &seen).await;
    until("what was missed to be made up for", || {
        let list = seen.list();
        list.contains(&1) && list.iter().filter(|number| **number == 2).count() >= 4
    })
    .await;
    let all = status(node.bus(), "all").await;
    assert!(all.missed >= 5, "{} are missed for good", all.missed);
    assert_eq!(seen.list().iter().filter(|number| **number == 1).count(), 1);
    ends_well(&node).await;
}

#[tokio::test]
async fn an_entry_of_the_program_goes_on_where_it_was_and_is_gone_when_the_program_has_it_no_more() {
    let (path, seen) = (place("program"), Seen::default());
    let counted = || Entry::every(SOON, noted(1)).id("counted").count(2);
    let scheduler = || Scheduler::new().entry(counted()).entry(Entry::every(LATER, noted(2)).id("gone"));
    let node = keeping(&path, scheduler(), &seen).await;
    seen.wait_for(2).await;
    ends_well(&node).await;

    let node = keeping(&path, Scheduler::new().entry(counted()), &seen).await;
    let status = status(node.bus(), "counted").await;
    assert_eq!((status.finished, status.runs), (true, 2), "its count is not begun anew");
    assert_eq!(code(node.bus().request(Get { id: "gone".into() }).await), "unknown_entry");
    ends_well(&node).await;
    assert_eq!(seen.list(), [1, 1]);
}

#[tokio::test]
async fn a_change_that_the_store_has_not_got_is_said_to_be_none_after_a_restart() {
    let seen: Seen<u64> = Seen::default();
    let store = Store::memory().namespace_with("schedule", |namespace| namespace.keys_max(1));
    let keeps = Manager::new("keeps").worker(keeps(&seen)).handles::<Noted>();
    let scheduler = Scheduler::new().store("schedule");
    let node = started(App::new("node").manager(store).manager(scheduler).manager(keeps)).await;
    add(node.bus(), Entry::every(LATER, noted(1)).id("a")).await;
    let refused = node.bus().request(Add(Entry::every(LATER, noted(1)).id("b"))).await;
    assert_eq!(code(refused), "not_kept");
    assert_eq!(status(node.bus(), "b").await.id, "b", "it is in place all the same");
    within("the node to stop", node.shutdown()).await;
}
