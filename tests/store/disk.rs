//! Durable stores: what was acknowledged is there again, whatever happens to the process.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use edri::prelude::*;
use edri::store::event::{Incremented, What};
use edri::store::{StoreError, restore};
use edri_tests::keeper::{self, WRITERS};

use super::{code, next, text};
use crate::support::{ends_well, started, within};

/// A folder of its own, gone in the end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("edri-{name}-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("is text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Of a test that failed it is of use.
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

pub(super) async fn opened(path: &str) -> (Node, Namespace<String>) {
    let node = started(App::new("keeper").manager(Store::open(path).namespace("things"))).await;
    let things = Namespace::new(node.bus(), "things");
    (node, things)
}

#[tokio::test]
async fn what_a_durable_store_has_acknowledged_is_there_after_a_restart() {
    let folder = Folder::new("restart");
    let path = folder.file("deep/store");
    let (node, things) = opened(&path).await;
    things.set("a", &text("one")).await.expect("is set");
    things.set("b", &text("two")).expires_in(Duration::from_secs(1000)).await.expect("is set");
    things.set("c", &text("three")).expires_in(Duration::from_millis(1)).await.expect("is set");
    things.set("d", &text("four")).await.expect("is set");
    things.delete("d").await.expect("is deleted");
    let version = things.get_item("a").await.expect("answers").expect("is there").version;
    let last = things.set("e", &text("five")).await.expect("is set");
    things.delete("e").await.expect("is deleted");
    ends_well(&node).await;

    let (node, things) = opened(&path).await;
    let page = things.list("", None, 10).await.expect("answers");
    let found: Vec<_> = page.items.iter().map(|item| (item.key.as_str(), item.value.as_str())).collect();
    assert_eq!(found, [("a", "one"), ("b", "two")], "what expired meanwhile is gone");
    assert_eq!(page.items[0].version, version);
    assert!(page.items[1].expires_in_ms.is_some_and(|time| time <= 1_000_000));
    assert!(things.set("f", &text("six")).await.expect("is set") > last + 1, "versions go on, also after a deletion");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_write_that_is_sent_again_after_a_restart_is_not_done_again() {
    let folder = Folder::new("again");
    let path = folder.file("store");
    let ask = |request: &str| Body::from(serde_json::json!({"key": "n", "by": 1, "request": request}));
    for (request, expect) in [("r1", 1), ("r1", 1), ("r2", 2), ("r1", 1)] {
        let (node, _) = opened(&path).await;
        let answer = node.bus().untyped().request("store.things.increment", ask(request)).await.expect("answers");
        assert_eq!(answer.decode::<Incremented>().expect("decodes").value, expect, "{request}");
        ends_well(&node).await;
    }
}

#[tokio::test]
async fn a_durable_store_tells_watchers_what_is_on_disk_and_what_expires() {
    let folder = Folder::new("watch");
    let (node, things) = opened(&folder.file("store")).await;
    things.set("a", &text("one")).await.expect("is set");
    let mut watching = things.watch("").await.expect("watches");
    assert_eq!((next(&mut watching).await.what, next(&mut watching).await.what), (What::Is, What::Ready));
    things.set("b", &text("two")).expires_in(Duration::from_millis(300)).await.expect("is set");
    assert_eq!((next(&mut watching).await.what, next(&mut watching).await.what), (What::Set, What::Expired));
    drop(watching);
    ends_well(&node).await;
}

#[tokio::test]
async fn a_store_is_copied_while_it_is_written_to_and_the_copy_is_restored() {
    let folder = Folder::new("backup");
    let (path, copy, back) = (folder.file("store"), folder.file("copy"), folder.file("back"));
    let store = Store::open(&path).namespace("things");
    let handle = store.handle();
    assert!(matches!(handle.backup(&copy).await, Err(StoreError::Closed)));
    let node = started(App::new("keeper").manager(store)).await;
    let things = Namespace::<i64>::new(node.bus(), "things");
    let writing = async {
        for number in 0..300 {
            things.transaction().set("left", &number).set("right", &number).await.expect("is kept");
        }
    };
    let copying = async {
        while things.get("left").await.expect("answers").is_none() {
            tokio::task::yield_now().await;
        }
        handle.backup(&copy).await
    };
    let ((), copied) = tokio::join!(writing, copying);
    copied.expect("is copied");
    assert!(matches!(handle.backup(&copy).await, Err(StoreError::Exists(_))));
    ends_well(&node).await;
    restore(&copy, &back).expect("is restored");
    assert!(matches!(restore(&copy, &path), Err(StoreError::Exists(_))));

    let (node, _) = opened(&back).await;
    let things = Namespace::<i64>::new(node.bus(), "things");
    let (left, right) = (things.get("left").await.expect("answers"), things.get("right").await.expect("answers"));
    assert!(left.is_some() && left == right, "{left:?} {right:?}");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_file_that_is_in_use_or_damaged_keeps_the_store_from_starting_and_says_what_to_do() {
    let folder = Folder::new("refused");
    let path = folder.file("store");
    let (node, _) = opened(&path).await;
    let second = App::new("other").manager(Store::open(&path).namespace("things")).start().await;
    let error = second.expect_err("is refused").to_string();
    assert!(error.contains("storage_failed") && error.contains("open already"), "{error}");
    ends_well(&node).await;
    let whole = std::fs::read(&path).expect("is there");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("is cut");
    let error = App::new("other").manager(Store::open(&path).namespace("things")).start().await;
    let error = error.expect_err("is refused").to_string();
    assert!(error.contains("storage_failed") && error.contains("store"), "{error}");
    assert_eq!(std::fs::metadata(&path).expect("is there").len() as usize, whole.len() / 2);
}

/// Starts a program that says a line whenever something of its was acknowledged, kills it soon after so many, and returns what
/// it has said.
pub(crate) async fn killed_after(wanted: usize, arguments: &[&str]) -> Vec<String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_edri-tests-program"))
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
    let (heard, enough) = std::sync::mpsc::sync_channel(1);
    let reading = std::thread::spawn(move || {
        let mut said = Vec::new();
        while let Some(Ok(line)) = lines.next() {
            said.push(line);
            if said.len() == wanted {
                heard.send(()).expect("is awaited");
            }
        }
        said
    });
    let enough = tokio::task::spawn_blocking(move || enough.recv_timeout(Duration::from_secs(60)));
    enough.await.expect("joins").expect("it is acknowledged");
    std::thread::sleep(Duration::from_micros(fastrand::u64(..5000)));
    child.kill().expect("is killed");
    child.wait().expect("is dead");
    reading.join().expect("joins")
}

/// Kills a node in the middle of writing, several times, and looks each time at what is there.
async fn survives(rounds: usize) {
    let folder = Folder::new("kill");
    let path = folder.file("store");
    let mut acknowledged = vec![0_i64; WRITERS];
    for round in 0..rounds {
        for line in killed_after(200 + fastrand::usize(..400), &["keeper", "write", &path]).await {
            let (writer, number) = line.split_once(' ').expect("two numbers");
            let (writer, number) = (writer.parse::<usize>().expect("a number"), number.parse().expect("a number"));
            assert!(number > acknowledged[writer], "round {round}: nothing is acknowledged twice");
            acknowledged[writer] = number;
        }
        let node = started(keeper::keeper(&path)).await;
        let kept = Namespace::<i64>::new(node.bus(), "kept");
        for (writer, acknowledged) in acknowledged.iter_mut().enumerate() {
            let found = kept.get_many(keeper::keys(writer)).await.expect("answers");
            let [left, right, count] = [0, 1, 2].map(|at| found[at].as_ref().map_or(0, |item| item.value));
            assert_eq!((left, right), (count, count), "round {round}: no transaction is half there");
            assert!(count == *acknowledged || count == *acknowledged + 1, "round {round}: {count}, not {acknowledged}");
            *acknowledged = count;
        }
        ends_well(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_kill_is_there_and_nothing_is_half_there() {
    survives(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a hundred kills take minutes"]
async fn what_was_acknowledged_before_a_hundred_kills_is_there() {
    survives(100).await;
}

#[tokio::test]
async fn a_disk_without_room_is_told_and_what_was_acknowledged_stays_readable() {
    let folder = Folder::new("full");
    let path = folder.file("store");
    // A limit on the size of files is a disk that is full; the signal that comes with it is ignored.
    let program = env!("CARGO_BIN_EXE_edri-tests-program");
    let script = format!("trap '' XFSZ; ulimit -f 8192; exec '{program}' keeper fill '{path}'");
    let output = tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &script]).output());
    let output = within("the end", output).await.expect("joins").expect("runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (told, count) = said.trim().split_once(" after ").unwrap_or_else(|| panic!("{output:?}"));
    assert_eq!(told, "storage_failed", "{output:?}");
    let count: usize = count.parse().expect("a number");
    assert!(count > 5, "{said}");

    let node = started(keeper::keeper(&path)).await;
    let kept = Namespace::<String>::new(node.bus(), "kept");
    let found = kept.count("").await.expect("answers") as usize;
    assert!(found == count || found == count + 1, "{found}, not {count}");
    assert!(kept.get(&format!("k{:05}", count - 1)).await.expect("answers").is_some());
    kept.set("more", &text("room")).await.expect("there is room again");
    assert_eq!(code(kept.set("more", &text("room")).if_absent().await), "exists");
    ends_well(&node).await;
}
