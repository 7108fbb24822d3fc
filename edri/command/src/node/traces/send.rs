//! From the queue to the collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::layer::attribute;
use super::{BATCH_SPANS, BATCH_WAIT, LOST_TOLD_EVERY, SEND_LIMIT, Service};

/// What a collector says beyond this is of no interest, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Where collectors listen.
const PORT: u16 = 4318;

/// Where spans are sent.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    host: String,
    port: u16,
    path: String,
}

/// Whether spans can be sent there.
pub(crate) fn check(url: &str) -> Result<Target, String> {
    let wrong = |why: &str| format!("`{url}` is no collector ({why}): write it like `http://127.0.0.1:4318/v1/traces`");
    let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(wrong("TLS is not spoken here: put a collector beside the node, which does")),
        _ => return Err(wrong("it does not begin with `http://`")),
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
    let path = if uri.path() == "/" { "/v1/traces" } else { uri.path() };
    Ok(Target { host: host.to_owned(), port: uri.port_u16().unwrap_or(PORT), path: path.to_owned() })
}

/// Sends batches until the queue says that it has ended.
pub(super) async fn run(
    mut spans: mpsc::Receiver<Option<Span>>,
    target: Target,
    service: Service,
    lost: Arc<AtomicU64>,
) {
    let mut told = None;
    let mut goes_on = true;
    while goes_on {
        let Some(Some(first)) = spans.recv().await else { break };
        let mut batch = vec![first];
        let until = Instant::now() + BATCH_WAIT;
        while goes_on && batch.len() < BATCH_SPANS {
            match timeout_at(until, spans.recv()).await {
                Ok(Some(Some(span))) => batch.push(span),
                Ok(_) => goes_on = false,
                Err(_) => break,
            }
        }
        let count = batch.len() as u64;
        let sent = timeout(SEND_LIMIT, send(&target, request(&service, batch))).await;
        let why = match sent {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("it took longer than {SEND_LIMIT:?}")),
        };
        if why.is_some() {
            lost.fetch_add(count, Ordering::Relaxed);
        }
        let is_time = told.is_none_or(|told: Instant| told.elapsed() >= LOST_TOLD_EVERY);
        if is_time && lost.load(Ordering::Relaxed) > 0 {
            told = Some(Instant::now());
            let lost = lost.swap(0, Ordering::Relaxed);
            let why = why.unwrap_or_else(|| "they come faster than they are sent".to_owned());
            tracing::warn!(lost, why, "spans did not reach the collector: look at `[traces]`");
        }
    }
}

fn request(service: &Service, spans: Vec<Span>) -> Bytes {
    let resource = Resource {
        attributes: vec![
            attribute("service.name", &service.name),
            attribute("service.instance.id", &service.node),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope { name: "edri".to_owned(), ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// One connection a batch: a collector is near, and batches are seconds apart.
async fn send(target: &Target, body: Bytes) -> Result<(), String> {
    let Target { host, port, path } = target;
    let name = host.trim_matches(['[', ']']);
    let stream = TcpStream::connect((name, *port)).await;
    let stream = stream.map_err(|error| format!("{host}:{port} cannot be reached: {error}"))?;
    let told = |error: hyper::Error| format!("{host}:{port}: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let connection = tokio::spawn(connection);
    let request = Request::post(path)
        .header(HOST, format!("{host}:{port}"))
        .header(CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(told)?;
    let status = response.status();
    // Read, so that the collector sees no broken connection; what it says in a success is of no interest.
    let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    if status.is_success() {
        return Ok(());
    }
    let answer = answer.map(|answer| answer.to_bytes()).unwrap_or_default();
    let text: String = String::from_utf8_lossy(&answer).chars().take(200).collect();
    Err(format!("{host}:{port} answered {status}: {text}"))
}
