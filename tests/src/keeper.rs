//! A node with a durable store that many write to and that somebody kills, or whose disk is full; and one whose scheduler keeps
//! its entries in such a store.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use edri::prelude::*;
use edri::scheduler::When;
use edri::scheduler::event::{Add, Cancel};
use edri::store::event::Done;

/// How many write at once.
pub const WRITERS: usize = 64;

/// A store in this file.
pub fn keeper(path: &str) -> App {
    App::new("keeper").manager(Store::open(path).namespace("kept"))
}

fn say(line: std::fmt::Arguments<'_>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Writes from all sides, and says what was acknowledged, `writer number`, until it is killed.
///
/// Each write is a transaction that gives two keys the number and adds one to a third.
///
/// # Errors
///
/// When the node does not start.
pub fn write_until_killed(path: &str) -> edri::Result<()> {
    keeper(path).run_with(async |node: Node| {
        let kept = Namespace::<i64>::new(node.bus(), "kept");
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let kept = kept.clone();
            writers.spawn(async move {
                let [left, right, count] = keys(writer);
                let mut number = kept.get(&count).await.expect("answers").unwrap_or(0);
                loop {
                    number += 1;
                    let write = kept.transaction().set(&left, &number).set(&right, &number).increment(&count, 1);
                    let done = write.await.expect("is kept");
                    assert!(matches!(done[2], Done::Incremented(now) if now.value == number));
                    say(format_args!("{writer} {number}")).expect("is heard");
                }
            });
        }
        let ended: Option<Result<(), _>> = writers.join_next().await;
        panic!("a writer has ended: {ended:?}");
        #[expect(unreachable_code, reason = "it says what this block gives")]
        Ok::<_, edri::Error>(())
    })?;
    Ok(())
}

/// The keys of a writer.
#[must_use]
pub fn keys(writer: usize) -> [String; 3] {
    ["left", "right", "count"].map(|what| format!("{what}/{writer}"))
}

/// A scheduler that keeps its entries in a store in this file.
pub fn timekeeper(path: &str) -> App {
    let store = Store::open(path).namespace("schedule");
    App::new("timekeeper").manager(store).manager(Scheduler::new().store("schedule"))
}

/// The entry that a writer adds so: it is not due while anybody looks.
#[must_use]
pub fn entry(writer: usize, number: u64) -> Entry {
    Entry::publish(When::every(Duration::from_secs(3600)), "test.noted", &number).id(&format!("{writer}/{number}"))
}

/// Adds entries from all sides, and cancels every other one of them later; says what was acknowledged, `add writer number` and
/// `cancel writer number`, until it is killed. Each has begun one of the two beyond that at most.
///
/// # Errors
///
/// When the node does not start.
pub fn schedule_until_killed(path: &str, first: u64) -> edri::Result<()> {
    timekeeper(path).run_with(async |node: Node| {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let bus = node.bus().clone();
            writers.spawn(async move {
                for number in first.. {
                    bus.request(Add(entry(writer, number))).await.expect("is kept");
                    say(format_args!("add {writer} {number}")).expect("is heard");
                    if number % 2 == 1 {
                        let id = format!("{writer}/{}", number - 1);
                        bus.request(Cancel { id }).await.expect("is kept");
                        say(format_args!("cancel {writer} {}", number - 1)).expect("is heard");
                    }
                }
            });
        }
        let ended: Option<Result<(), _>> = writers.join_next().await;
        panic!("a writer has ended: {ended:?}");
        #[expect(unreachable_code, reason = "it says what this block gives")]
        Ok::<_, edri::Error>(())
    })?;
    Ok(())
}

/// Writes until there is no room, reads everything back, and says what happened.
///
/// # Errors
///
/// When the node does not start.
pub fn fill(path: &str) -> edri::Result<()> {
    keeper(path).run_with(async |node: Node| {
        let kept = Arc::new(Namespace::<String>::new(node.bus(), "kept"));
        let value = "x".repeat(100_000);
        let (mut count, mut code) = (0, String::new());
        while code.is_empty() && count < 10_000 {
            match kept.set(&format!("k{count:05}"), &value).await {
                Ok(_) => count += 1,
                Err(error) => code = error.code().to_owned(),
            }
        }
        for number in 0..count {
            let found = kept.get(&format!("k{number:05}")).await.map_err(std::io::Error::other)?;
            assert_eq!(found.as_deref(), Some(&*value), "what was acknowledged is still readable");
        }
        say(format_args!("{code} after {count}"))?;
        node.shutdown().await;
        Ok::<_, edri::Error>(())
    })?;
    Ok(())
}
