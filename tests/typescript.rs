//! The TypeScript SDK: its clients against a real node, in Node and in a browser, and a worker of it on one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edri::prelude::*;
use edri::{ApiLimits, Process, Program};

use crate::python::{Slow, Swallow, Upper, follower, oracle};
use crate::support::{Seen, asked, at_rest, ends_well, keyed, noted, started, until, view, within};

/// The exit code of `environment.py` when it needs the user.
const MISSING: i32 = 77;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository")
}

/// The folder in which the SDK is built. `None`, said plainly, where Node or Chromium are missing and cannot be installed;
/// CI does not go on without them.
pub(crate) fn sdk() -> Option<&'static Path> {
    static SDK: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = SDK.get_or_init(|| {
        let program = std::env::current_exe().expect("a test has a path");
        let target = program.ancestors().nth(3).expect("it is in target/debug/deps");
        let script = repository().join("sdk/typescript/environment.py");
        let made = Command::new("python3").arg(script).arg(target.join("typescript")).arg("--browser").output();
        let made = made.expect("these tests need Python 3.9 or later: install python3");
        let said = String::from_utf8_lossy(&made.stderr);
        if made.status.code() == Some(MISSING) && std::env::var_os("CI").is_none() {
            // Not by `print`, whose output of a test that passes nobody sees.
            drop(writeln!(std::io::stderr(), "not tested: {said}"));
            return None;
        }
        assert!(made.status.success(), "{said}");
        Some(PathBuf::from(String::from_utf8(made.stdout).expect("a path").trim()))
    });
    made.as_deref()
}

// ---- a node for its clients --------------------------------------------------------------------------------------------

/// Twice a number.
#[event(request, name = "web.double", response = u64, expose)]
struct Double {
    number: u64,
}

#[event(notification, name = "web.tick", key = lane, expose)]
struct Tick {
    lane: String,
    number: u64,
}

/// Starts a feed of numbered ticks.
#[event(request, name = "web.feed", response = (), expose)]
struct Feed {
    lane: String,
    count: u64,
    pause_ms: u64,
}

#[event(request, name = "web.later", response = u64, expose)]
struct Later {
    pause_ms: u64,
    number: u64,
}

#[event(request, name = "web.slow", response = (), timeout = "30s", expose)]
struct WebSlow {}

#[event(request, name = "web.begun", response = usize, expose)]
struct Begun {}

#[event(request, name = "web.cancelled", response = usize, expose)]
struct Cancelled {}

#[event(request, name = "web.subscriptions", response = usize, expose)]
struct Subscriptions {}

#[event(tunnel, name = "web.upper", up = String, down = String, result = u64, expose)]
struct WebUpper {}

#[event(tunnel, name = "web.endless", up = (), down = u64, result = (), expose)]
struct Endless {}

#[event(request, name = "web.sent", response = u64, expose)]
struct Sent {}

#[event(request, name = "web.endless_open", response = usize, expose)]
struct EndlessOpen {}

#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
    cancelled: AtomicUsize,
    sent: AtomicUsize,
    open: AtomicUsize,
}

struct Service(Arc<Counts>);

impl Worker for Service {}

impl HandleConcurrent<Double> for Service {
    async fn handle(&self, ask: &Double, _: &mut Context) -> Result<u64, Failure> {
        if ask.number == 13 {
            return Err(Failure::new("unlucky", "thirteen"));
        }
        Ok(2 * ask.number)
    }
}

impl HandleConcurrent<Feed> for Service {
    async fn handle(&self, feed: &Feed, cx: &mut Context) -> Result<(), Failure> {
        let (bus, lane, count) = (cx.bus().clone(), feed.lane.clone(), feed.count);
        let mut pause = tokio::time::interval(Duration::from_millis(feed.pause_ms.max(1)));
        tokio::spawn(async move {
            for number in 0..count {
                pause.tick().await;
                bus.publish(Tick { lane: lane.clone(), number }).await.expect("published");
            }
        });
        Ok(())
    }
}

impl HandleConcurrent<Later> for Service {
    async fn handle(&self, ask: &Later, _: &mut Context) -> Result<u64, Failure> {
        tokio::time::sleep(Duration::from_millis(ask.pause_ms)).await;
        Ok(ask.number)
    }
}

impl HandleConcurrent<WebSlow> for Service {
    async fn handle(&self, _: &WebSlow, cx: &mut Context) -> Result<(), Failure> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        cx.cancelled().await;
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl HandleConcurrent<Begun> for Service {
    async fn handle(&self, _: &Begun, _: &mut Context) -> Result<usize, Failure> {
        Ok(self.0.begun.load(Ordering::SeqCst))
    }
}

impl HandleConcurrent<Cancelled> for Service {
    async fn handle(&self, _: &Cancelled, _: &mut Context) -> Result<usize, Failure> {
        Ok(self.0.cancelled.load(Ordering::SeqCst))
    }
}

impl HandleConcurrent<Subscriptions> for Service {
    async fn handle(&self, _: &Subscriptions, cx: &mut Context) -> Result<usize, Failure> {
        Ok(cx.bus().topology().subscriptions.len())
    }
}

impl HandleConcurrent<WebUpper> for Service {
    async fn handle(&self, _: &WebUpper, cx: &mut Context) -> Result<u64, Failure> {
        let mut tunnel = cx.accept::<WebUpper>()?;
        let mut count = 0;
        while let Some(word) = tunnel.recv().await? {
            tunnel.send(word.to_uppercase()).await?;
            count += 1;
        }
        Ok(count)
    }
}

impl HandleConcurrent<Endless> for Service {
    async fn handle(&self, _: &Endless, cx: &mut Context) -> Result<(), Failure> {
        let mut tunnel = cx.accept::<Endless>()?;
        self.0.open.fetch_add(1, Ordering::SeqCst);
        for number in 0.. {
            if tunnel.send(number).await.is_err() {
                break;
            }
            self.0.sent.fetch_add(1, Ordering::SeqCst);
        }
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

impl HandleConcurrent<Sent> for Service {
    async fn handle(&self, _: &Sent, _: &mut Context) -> Result<u64, Failure> {
        Ok(self.0.sent.load(Ordering::SeqCst) as u64)
    }
}

impl HandleConcurrent<EndlessOpen> for Service {
    async fn handle(&self, _: &EndlessOpen, _: &mut Context) -> Result<usize, Failure> {
        Ok(self.0.open.load(Ordering::SeqCst))
    }
}

fn service() -> edri::Definition {
    let counts = Arc::new(Counts::default());
    Manager::new("service")
        .worker(move || Service(Arc::clone(&counts)))
        .handles_concurrently::<Double>()
        .handles_concurrently::<Feed>()
        .handles_concurrently::<Later>()
        .handles_concurrently::<WebSlow>()
        .handles_concurrently::<Begun>()
        .handles_concurrently::<Cancelled>()
        .handles_concurrently::<Subscriptions>()
        .handles_concurrently::<WebUpper>()
        .handles_concurrently::<Endless>()
        .handles_concurrently::<Sent>()
        .handles_concurrently::<EndlessOpen>()
        .into()
}

/// A node whose clients notice a silent network soon.
async fn serving(files: Option<&Path>) -> Node {
    let mut limits = ApiLimits::default();
    limits.silence = Duration::from_millis(1500);
    let api = Api::bind("127.0.0.1:0").limits(limits);
    let api = match files {
        Some(folder) => api.files(folder),
        None => api,
    };
    let app = App::new("test").manager(service()).history("web.tick", History::new().events(100));
    let node = started(app.api(api)).await;
    // What is published only from outside is declared by nobody else.
    node.bus().declare(edri::DescriptorRef::of::<Tick>()).await.expect("declared");
    node
}

/// Runs a test file of the SDK against the gateway at this URL.
pub(crate) fn passes_at(sdk: &Path, file: &str, url: &str) {
    let mut test = Command::new("node");
    test.args(["--expose-gc", "--test", "--test-timeout=300000", "--test-reporter=spec", &format!("tests/{file}")])
        .current_dir(sdk)
        .env("EDRI_URL", url)
        .env("EDRI_VECTORS", repository().join("protocol/vectors/frames.json"))
        .env("EDRI_QUAKES", repository().join("examples/quakes"));
    let output = test.output().expect("node runs");
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{file}\n{out}{errors}");
}

/// The same, of this node.
async fn passes(sdk: &'static Path, file: &'static str, node: &Node) {
    let url = format!("http://{}", node.api_address().expect("it has a gateway"));
    tokio::task::spawn_blocking(move || passes_at(sdk, file, &url)).await.expect("it passes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typescript_client_reads_and_writes_the_golden_vectors() {
    let Some(sdk) = sdk() else { return };
    let node = serving(None).await;
    passes(sdk, "vectors.test.mjs", &node).await;
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typescript_client_has_all_verbs_and_survives_its_network() {
    let Some(sdk) = sdk() else { return };
    let node = serving(None).await;
    passes(sdk, "client.test.mjs", &node).await;
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_are_written_from_what_a_node_declares_and_refuse_a_wrong_payload() {
    let Some(sdk) = sdk() else { return };
    let node = serving(None).await;
    passes(sdk, "types.test.mjs", &node).await;
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_without_its_network_for_ten_seconds_has_every_event_once_in_order() {
    let Some(sdk) = sdk() else { return };
    let node = serving(Some(&sdk.join("tests/pages"))).await;
    passes(sdk, "browser.test.mjs", &node).await;
    ends_well(&node).await;
}

// ---- a worker ----------------------------------------------------------------------------------------------------------

fn worker(sdk: &Path) -> Manager<Program> {
    let restart =
        Restart::at_most(100, Duration::from_secs(60)).backoff(Duration::from_millis(1), Duration::from_millis(2));
    let script = sdk.join("tests/worker.mjs");
    Manager::program("typescript", &format!("node '{}'", script.display())).restart(restart)
}

async fn does_what_a_rust_worker_does(sdk: &Path, encoding: &'static str) {
    let followed = Seen::default();
    let encoded = move |process: Process| process.env("ENCODING", encoding);
    let app = App::new("test")
        .manager(worker(sdk).process(encoded))
        .manager(follower(&followed))
        .manager(oracle())
        .api(Api::bind("127.0.0.1:0"));
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
    let failed = bus.request(asked(13)).await.expect_err("it throws");
    let RequestError::Failed(failure) = &failed else { panic!("{failed:?}") };
    assert_eq!((failure.code(), failure.text()), ("failed", "RangeError: thirteen is no number"));
    assert!(failure.detail().is_some_and(|detail| detail.contains("worker.mjs")), "{failure:?}");
    assert_eq!(bus.request(asked(14)).await.expect_err("it throws").code(), "unlucky");
    assert_eq!(bus.request(asked(16)).await.expect_err("it exits").code(), "worker_lost");

    let answer = crate::api::client::get(&node, "/from-typescript/7").await;
    assert_eq!((answer.status.as_u16(), answer.json()["number"].as_u64()), (200, Some(7)), "{answer:?}");

    let (mut sender, mut receiver, result) = bus.open(Upper {}).await.expect("opened").split();
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

    let mut tunnel = bus.open(Swallow {}).await.expect("opened");
    let chunk = Bytes::from(vec![7; 16 << 10]);
    for _ in 0..100 {
        within("credit", tunnel.send(chunk.clone())).await.expect("sent");
    }
    assert_eq!(within("the result", tunnel.result()).await.expect("a result"), 100 * (16 << 10));
    assert!(ends_well(&node).await.unfinished.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typescript_worker_does_what_a_rust_worker_does() {
    let Some(sdk) = sdk() else { return };
    does_what_a_rust_worker_does(sdk, "json").await;
    does_what_a_rust_worker_does(sdk, "msgpack").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typescript_worker_that_is_killed_is_replaced_and_its_event_comes_again_marked() {
    let Some(sdk) = sdk() else { return };
    let followed = Seen::default();
    let app = App::new("test").manager(worker(sdk).retry(Retry::attempts(2))).manager(follower(&followed));
    let node = started(app).await;
    for number in 0..50 {
        node.bus().publish(keyed("k", number)).await.expect("published");
    }
    let account = at_rest(node.bus()).await;
    assert_eq!((account.dead_lettered, view(&node, "typescript").workers[0].restarts), (0, 1));
    let mut numbers = followed.list();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typescript_handler_sees_that_nobody_waits_any_more() {
    let Some(sdk) = sdk() else { return };
    let followed = Seen::default();
    let concurrent = |process: Process| process.env("CONCURRENCY", "4");
    let node = started(App::new("test").manager(worker(sdk).process(concurrent)).manager(follower(&followed))).await;
    let asking = tokio::spawn({
        let bus = node.bus().clone();
        async move { bus.request(Slow {}).await }
    });
    until("the handler to run", || view(&node, "typescript").workers[0].in_hand == 1).await;
    // It runs as soon as it has been sent; another request behind it shows that it has.
    assert_eq!(node.bus().request(asked(1)).await.expect("answered"), 2);
    asking.abort();
    assert_eq!(followed.wait_for(1).await, [4711]);
    ends_well(&node).await;
}

#[test]
fn a_typescript_worker_started_by_hand_says_what_to_do() {
    let Some(sdk) = sdk() else { return };
    let output = Command::new("node").arg("tests/worker.mjs").current_dir(sdk).env_remove("EDRI_WORKER").output();
    let output = output.expect("node runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Manager::program"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typescript_worker_serves_over_websocket_and_comes_again_after_it_was_cut_off() {
    let Some(sdk) = sdk() else { return };
    let api = Api::bind("127.0.0.1:0").expose("test.>").remote_workers(edri::RemoteWorkers::new());
    let followed = Seen::default();
    let node = started(App::new("test").manager(follower(&followed)).api(api)).await;
    let url = format!("ws://{}", node.api_address().expect("it has a gateway"));
    let mut worker = Command::new("node");
    worker.arg("tests/worker.mjs").current_dir(sdk).env_remove("EDRI_WORKER").env("SERVE", url);
    let mut worker = worker.spawn().expect("node runs");
    let bus = node.bus();
    within("the worker", bus.wait_for::<crate::support::Asked>()).await.expect("it came");
    assert_eq!(bus.request(asked(4)).await.expect("answered"), 8);
    assert_eq!(bus.request(asked(14)).await.expect_err("it throws").code(), "unlucky");
    let answer = crate::api::client::get(&node, "/from-typescript/7").await;
    assert_eq!((answer.status.as_u16(), answer.json()["number"].as_u64()), (200, Some(7)), "{answer:?}");
    for number in 100..200 {
        bus.publish(noted(number)).await.expect("published");
    }
    assert_eq!(followed.wait_for(100).await, (100..200).collect::<Vec<_>>());
    // It ends in the middle of this one; whoever waits is told.
    assert_eq!(bus.request(asked(17)).await.expect_err("its connection breaks").code(), "worker_lost");
    assert_eq!(within("an answer", bus.request(asked(5))).await.expect("it came again"), 10);
    terminate(worker.id());
    assert!(worker.wait().expect("it ends").success());
    assert!(ends_well(&node).await.unfinished.is_empty());
}

fn terminate(process: u32) {
    assert!(Command::new("kill").args(["-TERM", &process.to_string()]).status().expect("kill runs").success());
}
