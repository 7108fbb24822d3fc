//! What a node tells of itself.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use edri::prelude::*;
use edri::{Node, Restart, Token};
use parking_lot::Mutex;
use serde_json::Value;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::SubscriberInitExt;

use super::access::as_bearer;
use super::client::{ask, get};
use super::{gateway, node};
use crate::python::environment;
use crate::support::{does, started, within};

/// It is lost.
#[event(request, name = "metrics.lost", response = u64, expose)]
struct Lost {}

/// Reads the metrics as Prometheus does: name and labels of each sample, and its value.
async fn read(node: &Node) -> Value {
    let answer = get(node, "/metrics").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let script = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
samples, kinds = {}, {}
for family in families(sys.stdin.read()):
    assert family.documentation and family.type in ('counter', 'gauge', 'histogram'), family
    for name, labels, value, *_ in family.samples:
        key = name + json.dumps(labels, sort_keys=True)
        assert key not in samples, key
        samples[key] = value
json.dump(samples, sys.stdout)
";
    let mut parser = Command::new(environment("python-gateway", "gateway"))
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    parser.stdin.take().expect("a pipe").write_all(&answer.body).expect("is read");
    let output = parser.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn the_metrics_are_read_by_others_and_say_what_was_done() {
    let node = node(gateway()).await;
    for path in ["/risk/north", "/risk/south", "/risk/atlantis", "/nowhere"] {
        get(&node, path).await;
    }
    ask(&node, "POST /events/api.risk", &[("origin", "https://evil.example")], "{}").await;
    let figures = read(&node).await;
    let expect = |sample: &str, value: f64| assert_eq!(figures[sample], value, "{sample} in {figures:#}");
    expect(r#"edri_http_requests_total{"event": "api.risk", "status": "2xx"}"#, 2.0);
    expect(r#"edri_http_requests_total{"event": "api.risk", "status": "4xx"}"#, 1.0);
    expect(r#"edri_http_requests_total{"event": "", "status": "4xx"}"#, 2.0);
    expect(r#"edri_http_request_duration_seconds_count{"event": "api.risk"}"#, 3.0);
    expect(r#"edri_http_request_duration_seconds_bucket{"event": "api.risk", "le": "+Inf"}"#, 3.0);
    expect(r#"edri_http_refused_total{"reason": "origin"}"#, 1.0);
    expect("edri_http_requests_in_flight{}", 1.0);
    expect(r#"edri_manager_deliveries_total{"manager": "model", "outcome": "handled"}"#, 2.0);
    expect(r#"edri_manager_deliveries_total{"manager": "model", "outcome": "failed"}"#, 1.0);
    expect(r#"edri_manager_workers_running{"manager": "model"}"#, 1.0);
    expect(r#"edri_node_info{"node": "gate"}"#, 1.0);
    expect("edri_node_dead_letters_total{}", 0.0);
    assert!(figures["edri_http_sent_bytes_total{}"].as_f64().is_some_and(|bytes| bytes > 100.0));
    node.shutdown().await;
}

#[tokio::test]
async fn the_metrics_are_for_whoever_may_read_them() {
    let (reader, other) = (Token::random().expect("random"), Token::random().expect("random"));
    let access = Access::new().token(&reader.hash(), "prometheus", Permissions::new().metrics()).token(
        &other.hash(),
        "other",
        Permissions::new().request(">"),
    );
    let node = node(gateway().access(access.clone())).await;
    assert_eq!(as_bearer(&node, "GET /metrics", reader.secret()).await.status, 200);
    assert_eq!(as_bearer(&node, "GET /metrics", other.secret()).await.status, 403);
    assert_eq!(get(&node, "/metrics").await.status, 401);
    node.shutdown().await;
    let node = super::node(gateway().access(access.metrics_for_all())).await;
    assert_eq!(get(&node, "/metrics").await.status, 200);
    node.shutdown().await;
}

/// A log in memory.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// What this thread writes down until the guards are dropped. The whole node of a test runs on it.
    pub(super) fn of_this_thread() -> (Self, impl Sized) {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_max_level(LevelFilter::DEBUG);
        // With one subscriber alone, `tracing` asks the thread that meets a record first whether it is wanted, which may be a test that
        // has none, and remembers the answer. With two it asks both.
        let second = tracing_subscriber::fmt().with_writer(std::io::sink).set_default();
        (log, [lines.with_writer(move || writer.clone()).set_default(), second])
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_answer_and_nothing_that_is_secret() {
    let (log, _logs) = Log::of_this_thread();
    let token = Token::random().expect("random");
    let node = node(gateway().access(Access::new().token(&token.hash(), "anna", Permissions::all()))).await;
    as_bearer(&node, "GET /risk/north?depth=3", token.secret()).await;
    get(&node, "/risk/south").await;
    let text = || log.text();
    let line = |path: &str| {
        text().lines().find(|line| line.contains("edri::access") && line.contains(path)).map(str::to_owned)
    };
    within("both lines", async {
        while line("/risk/south").is_none() || line("/risk/north").is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (good, refused) = (line("/risk/north").expect("a line"), line("/risk/south").expect("a line"));
    for part in [
        "DEBUG",
        "method=GET",
        "status=200",
        "event=\"api.risk\"",
        "caller=\"anna\"",
        "remote=127.0.0.1:",
        "duration_ms=",
    ] {
        assert!(good.contains(part), "{part} in {good}");
    }
    assert!(refused.contains("status=401") && !refused.contains("caller="), "{refused}");
    assert!(!text().contains("depth=3") && !text().contains(token.secret()), "{}", text());
    node.shutdown().await;
}

#[tokio::test]
async fn a_node_with_a_manager_that_has_failed_is_not_ready_and_lives() {
    let lost = does::<Lost, _>(|_, _| panic!("on purpose"));
    let lost = Manager::new("lost").worker(lost).handles::<Lost>();
    let lost = lost.restart(Restart::at_most(0, std::time::Duration::from_secs(60)));
    let node = started(App::new("gate").manager(lost).api(gateway())).await;
    assert_eq!(get(&node, "/readyz").await.status, 200);
    ask(&node, "POST /events/metrics.lost", &[], "{}").await;
    within("it to be told", async { while get(&node, "/readyz").await.status != 503 {} }).await;
    let answer = get(&node, "/readyz").await;
    assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("lost")), "{answer:?}");
    assert_eq!(answer.json()["code"], "failed");
    assert_eq!(get(&node, "/healthz").await.status, 200);
    node.shutdown().await;
}
