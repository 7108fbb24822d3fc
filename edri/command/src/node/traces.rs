//! Spans for a collector of OpenTelemetry: OTLP over HTTP, as protobuf.
//!
//! ```text
//! span ends ─▶ Exported (a layer) ─▶ bounded queue ─▶ thread: batches ─▶ POST /v1/traces
//! ```
//!
//! Nobody waits for the collector: what finds no place in the queue, and what the collector does not take, is counted and told in the log.

mod layer;
mod send;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc;

pub(crate) use layer::Exported;
pub(crate) use send::check;

/// The most spans that wait to be sent; further ones are left out.
const SPANS_WAITING_MAX: usize = 8192;
/// The most spans of one request to the collector.
const BATCH_SPANS: usize = 512;
/// So long a batch waits for more.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// So long a collector may take for a batch.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// How often it is told how many spans were lost.
const LOST_TOLD_EVERY: Duration = Duration::from_secs(10);

const _: () = assert!(BATCH_SPANS <= SPANS_WAITING_MAX);

/// What the collector is told of who sends.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) node: String,
}

/// The exporter of this process. Dropped, it sends what it has, within [`SEND_LIMIT`].
#[derive(Debug)]
pub(crate) struct Exporter {
    queue: Queue,
    thread: Option<JoinHandle<()>>,
}

/// Where spans wait.
#[derive(Debug, Clone)]
struct Queue {
    spans: mpsc::Sender<Option<Span>>,
    lost: Arc<AtomicU64>,
}

impl Queue {
    fn put(&self, span: Span) {
        if self.spans.try_send(Some(span)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Begins to export to this collector; the layer goes into the subscriber.
pub(crate) fn begin(url: &str, service: Service) -> Result<(Exporter, Exported), String> {
    let target = check(url)?;
    let (sender, spans) = mpsc::channel(SPANS_WAITING_MAX);
    let queue = Queue { spans: sender, lost: Arc::default() };
    let lost = Arc::clone(&queue.lost);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("spans cannot be exported: {error}"))?;
    let thread = std::thread::Builder::new()
        .name("spans".to_owned())
        .spawn(move || runtime.block_on(send::run(spans, target, service, lost)))
        .map_err(|error| format!("spans cannot be exported: {error}"))?;
    Ok((Exporter { queue: queue.clone(), thread: Some(thread) }, Exported::new(queue)))
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // Nothing comes behind it. A queue that is full has somebody who empties it, unless the thread has ended.
        let mut end = None;
        while let Err(mpsc::error::TrySendError::Full(back)) = self.queue.spans.try_send(end.take()) {
            end = back;
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that exports spans has panicked");
        }
    }
}
