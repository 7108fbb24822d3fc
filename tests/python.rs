//! The Python SDK: its own tests, and a worker of it on a real node.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use edri::prelude::*;
use edri::{Process, Program, WorkerState};

use crate::support::{
    Asked, Followed, Seen, asked, at_rest, does, ends_well, keyed, noted, started, until, view, within,
};

#[event(request, name = "test.oracle", response = u64)]
struct Oracle {
    number: u64,
}

#[event(tunnel, name = "test.upper", up = String, down = String, result = u64)]
pub(crate) struct Upper {}

#[event(tunnel, name = "test.bytes", up = Bytes, down = Bytes, result = u64)]
pub(crate) struct Swallow {}

#[event(request, name = "test.slow", response = bool)]
pub(crate) struct Slow {}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository")
}

/// The interpreter of a virtual environment beside the build, which is made when it is missing.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| environment("python", "test"))
}

/// The same, of an environment of this name with what `pyproject.toml` lists as `extra`.
pub(crate) fn environment(name: &str, extra: &str) -> PathBuf {
    let program = std::env::current_exe().expect("a test has a path");
    let target = program.ancestors().nth(3).expect("it is in target/debug/deps");
    let script = repository().join("sdk/python/environment.py");
    let made = Command::new("python3").arg(script).arg(target.join(name)).arg(extra).output();
    let made = made.expect("these tests need Python 3.9 or later: install python3");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    PathBuf::from(String::from_utf8(made.stdout).expect("a path").trim())
}

/// A manager of the worker in `foreign/sdk_worker.py`.
fn worker() -> Manager<Program> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/sdk_worker.py");
    let restart =
        Restart::at_most(100, Duration::from_secs(60)).backoff(Duration::from_millis(1), Duration::from_millis(2));
    Manager::program("python", &format!("'{}' '{script}'", python().display())).restart(restart)
}

pub(crate) fn follower(seen: &Seen<u64>) -> edri::Definition {
    let seen = seen.clone();
    let notes = does::<Followed, _>(move |event, _| {
        seen.add(event.number);
        Box::pin(async { Ok(()) })
    });
    Manager::new("follower").worker(notes).handles::<Followed>().into()
}

/// Answers a hundred times the number.
pub(crate) fn oracle() -> edri::Definition {
    let oracle = does::<Oracle, _>(|asked, _| Box::pin(async { Ok(asked.number * 100) }));
    Manager::new("oracle").worker(oracle).handles::<Oracle>().into()
}

fn run(arguments: &[&str]) {
    let output = Command::new(python()).args(arguments).current_dir(repository()).output().expect("python runs");
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}\n{out}{errors}");
}

#[test]
fn the_sdk_passes_its_own_tests() {
    run(&["-m", "pytest", "-q", "-p", "no:cacheprovider", "sdk/python"]);
}

#[test]
fn the_golden_vectors_are_what_another_messagepack_reader_says() {
    run(&["protocol/vectors/check.py"]);
}

#[test]
fn a_worker_started_by_hand_says_what_to_do() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/sdk_worker.py");
    let output = Command::new(python()).arg(script).env_remove("EDRI_WORKER").output().expect("python runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Manager::program"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_worker_does_what_a_rust_worker_does() {
    let followed = Seen::default();
    let app = App::new("test").manager(worker()).manager(follower(&followed)).manager(oracle());
    let node = started(app).await;
    let bus = node.bus();

    let numbers: Vec<u64> = (100..600).collect();
    for number in &numbers {
        bus.publish(noted(*number)).await.expect("published");
    }
    at_rest(bus).await;
    assert_eq!(followed.list(), numbers);

    assert_eq!(bus.request(asked(4)).await.expect("answered"), 8);
    assert_eq!(bus.request(asked(15)).await.expect("answered"), 1500, "the worker asked a Rust worker");
    let failed = bus.request(asked(13)).await.expect_err("it raises");
    let RequestError::Failed(failure) = &failed else { panic!("{failed:?}") };
    assert_eq!((failure.code(), failure.text()), ("failed", "ValueError: thirteen is no number"));
    assert!(failure.detail().is_some_and(|detail| detail.contains("Traceback") && detail.contains("sdk_worker.py")));
    let chosen = bus.request(asked(14)).await.expect_err("it raises");
    assert_eq!(chosen.code(), "unlucky");
    let wrong = bus.untyped().request("test.asked", edri::Body::from(serde_json::json!({"number": "x"}))).await;
    let wrong = wrong.expect_err("it is no number");
    assert_eq!(wrong.code(), "invalid_payload", "{wrong}");
    assert!(wrong.to_string().contains("number"), "{wrong}");

    assert!(ends_well(&node).await.unfinished.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_to_a_python_worker_carry_items_in_order_and_many_bytes() {
    let node = started(App::new("test").manager(worker())).await;
    let (mut sender, mut receiver, result) = node.bus().open(Upper {}).await.expect("opened").split();
    let sending = tokio::spawn(async move {
        for number in 0..1000 {
            sender.send(format!("word {number}")).await.expect("sent");
        }
        sender.finish();
    });
    for number in 0..1000 {
        let item = within("an item", receiver.recv()).await.expect("received");
        assert_eq!(item, Some(format!("WORD {number}")));
    }
    sending.await.expect("all were sent");
    assert_eq!(within("the result", result.result()).await.expect("a result"), 1000);

    let mut tunnel = node.bus().open(Swallow {}).await.expect("opened");
    let chunk = Bytes::from(vec![7; 64 << 10]);
    for _ in 0..200 {
        within("credit", tunnel.send(chunk.clone())).await.expect("sent");
    }
    assert_eq!(within("the result", tunnel.result()).await.expect("a result"), 200 * (64 << 10));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_worker_that_is_killed_is_replaced_and_its_event_comes_again_marked() {
    let followed = Seen::default();
    let app = App::new("test").manager(worker().retry(Retry::attempts(2))).manager(follower(&followed));
    let node = started(app).await;
    for number in 0..50 {
        node.bus().publish(keyed("k", number)).await.expect("published");
    }
    let account = at_rest(node.bus()).await;
    assert_eq!((account.dead_lettered, view(&node, "python").workers[0].restarts), (0, 1));
    let mut numbers = followed.list();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_handler_sees_that_nobody_waits_any_more() {
    let followed = Seen::default();
    let concurrent = |process: Process| process.env("CONCURRENCY", "4");
    let app = App::new("test").manager(worker().process(concurrent)).manager(follower(&followed));
    let node = started(app).await;
    let asking = tokio::spawn({
        let bus = node.bus().clone();
        async move { bus.request(Slow {}).await }
    });
    until("the handler to run", || view(&node, "python").workers[0].in_hand == 1).await;
    // It runs as soon as it has been sent; another request behind it shows that it has.
    assert_eq!(node.bus().request(asked(1)).await.expect("answered"), 2);
    asking.abort();
    assert_eq!(followed.wait_for(1).await, [4711]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_handler_that_blocks_answers_pings_and_is_killed_at_its_limit() {
    let patient = |process: Process| process.silence_limit(Duration::from_millis(500));
    let manager = worker().process(patient).time_limit(Duration::from_secs(2));
    let node = started(App::new("test").manager(manager)).await;
    let began = std::time::Instant::now();
    let lost = within("an answer", node.bus().request(asked(16))).await.expect_err("it takes too long");
    assert_eq!(lost.code(), "worker_lost", "{lost}");
    assert!(lost.to_string().contains("limit"), "it was not taken for hung, which is four times as quick: {lost}");
    assert!(began.elapsed() >= Duration::from_secs(2));
    until("another to run", || view(&node, "python").workers[0].state == WorkerState::Running).await;
    assert_eq!(node.bus().request(Asked { number: 1 }).await.expect("answered"), 2);
    ends_well(&node).await;
}
