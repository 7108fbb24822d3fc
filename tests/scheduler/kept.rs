//! Entries that are kept in a store.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use edri_tests::keeper::{self, WRITERS};

use super::*;
use crate::store::disk::killed_after;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_durable_scheduler_has_acknowledged_before_a_kill_is_so_after_it() {
    let path = place("killed");
    let path = path.to_str().expect("is text");
    // What is there for certain; and by writer what it does next, which may be there or not.
    let mut there = BTreeSet::new();
    let mut first = 0;
    for round in 0..3 {
        let mut next: Vec<_> = (0..WRITERS).map(|writer| (writer, first)).collect();
        let said = killed_after(300, &["keeper", "schedule", path, &first.to_string()]).await;
        for line in said {
            let words: Vec<_> = line.split(' ').collect();
            let number = |word: &str| word.parse::<u64>().expect("a number");
            let (writer, number) = (number(words[1]), number(words[2]));
            if words[0] == "add" {
                there.insert((writer, number));
                next[writer as usize].1 = if number % 2 == 1 { number - 1 } else { number + 1 };
            } else {
                assert!(there.remove(&(writer, number)), "round {round}");
                next[writer as usize].1 = number + 2;
            }
        }
        let node = started(keeper::timekeeper(path)).await;
        let (mut found, mut after) = (BTreeSet::new(), None);
        loop {
            let list = List { after, limit: Some(1000), ..List::default() };
            let page = within("a page", node.bus().request(list)).await.expect("answers");
            for status in page.entries {
                let (writer, number) = status.id.split_once('/').expect("two numbers");
                let (writer, number) = (writer.parse().expect("a number"), number.parse().expect("a number"));
                assert_eq!(status.entry, keeper::entry(writer, number), "round {round}: nothing is half there");
                found.insert((writer as u64, number));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        for differs in there.symmetric_difference(&found) {
            let began = next.iter().any(|(writer, number)| (*writer as u64, *number) == *differs);
            assert!(began, "round {round}: {differs:?} was acknowledged otherwise");
        }
        ends_well(&node).await;
        // An even number that nobody has used.
        first = found.iter().map(|(_, number)| number + 2 - number % 2).max().unwrap_or(0);
        there = found;
    }
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
