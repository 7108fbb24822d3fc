//! Requests over HTTP.

mod call;
mod fields;
mod negotiate;
mod tunnel;

pub(crate) use tunnel::Form;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use axum::{Extension, Router};
use edri_events::Kind;
use edri_protocol::EventDeclaration;
use edri_router::{ManagerState, Phase};
use tokio::sync::watch;
use tower::ServiceExt;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;

use crate::exposed::{Found, Reachable};
use crate::gateway::Shared;
use crate::metrics;
use crate::problem::Problem;
use crate::{Verb, openapi, sse};

/// The address of a connection's other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(pub(crate) SocketAddr);

/// The address of whoever sends a request.
pub(crate) fn remote(head: &Parts) -> IpAddr {
    head.extensions.get::<Remote>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |remote| remote.0.ip())
}

/// Everything that the gateway answers.
pub(crate) fn router(shared: Arc<Shared>, stopping: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(docs))
        .route("/metrics", get(node_metrics))
        .route("/subscribe", get(sse::subscribe).layer(Extension(stopping)))
        .route("/events", get(events))
        .route("/events/{name}", any(by_name))
        .route("/ws", get(crate::websocket::upgrade))
        .fallback(by_path)
        .with_state(shared)
        .layer(CompressionLayer::new().compress_when(Compressible))
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let not_yet = |code, detail: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).into_response();
    match shared.router.phase() {
        Phase::Running if shared.ready.load(Ordering::Acquire) => match failed_managers(&shared) {
            failed if failed.is_empty() => "ready\n".into_response(),
            failed => not_yet("failed", &format!("these managers have failed: {}", failed.join(", "))),
        },
        Phase::Running => not_yet("starting", "the node is starting"),
        _ => not_yet("stopping", "the node is stopping"),
    }
}

fn failed_managers(shared: &Shared) -> Vec<String> {
    let managers = shared.router.bus().topology().managers;
    let failed = managers.iter().filter(|manager| manager.state == ManagerState::Failed);
    failed.map(|manager| manager.name.to_string()).collect()
}

async fn node_metrics(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let caller = match shared.access.caller(&head) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let from = remote(&head);
    if !shared.access.may_read_metrics(&caller, from) {
        let detail = "the metrics are for tokens with this permission (`Permissions::metrics`)";
        return match caller.name() {
            None if shared.access.is_open() => {
                let detail = "the metrics are for callers on the same machine: `Api::access` lets others read them";
                Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response()
            }
            Some(_) => Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response(),
            None => Problem::unauthorized(detail).into_response(),
        };
    }
    let text = metrics::write(&shared.metrics, &shared.router.bus().topology());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// What the caller may reach, for programs.
async fn openapi(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let caller = match shared.access.caller(&head) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let table = shared.exposed.table();
    let may = |event: &&Reachable| {
        let verb = if event.descriptor.kind() == Kind::Notification { Verb::Publish } else { Verb::Request };
        event.permits(&caller, verb)
    };
    let document =
        openapi::document(shared.router.node().as_str(), table.events().filter(may), !shared.access.is_open());
    ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

/// The declarations of what the caller may reach or hear of, by name: what the types of an SDK are made from.
async fn events(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let caller = match shared.access.caller(&head) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let table = shared.exposed.table();
    let verbs = |kind| match kind {
        Kind::Notification => &[Verb::Publish, Verb::Subscribe][..],
        _ => &[Verb::Request],
    };
    let mut events: Vec<_> = table.events().map(|event| &event.descriptor).collect();
    events.retain(|event| verbs(event.kind()).iter().any(|verb| caller.may(*verb, event.name())));
    events.sort_by(|a, b| a.name().cmp(b.name()));
    let events: Vec<_> = events.into_iter().map(|event| EventDeclaration::of(event)).collect();
    match serde_json::to_vec(&events) {
        Ok(written) => ([(header::CONTENT_TYPE, "application/json")], written).into_response(),
        // A schema is JSON: it can be written.
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string()).into_response(),
    }
}

/// What the caller may reach, for people: a page that reads the document.
async fn docs() -> Response<Body> {
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)];
    (headers, include_str!("../docs.html")).into_response()
}

async fn by_name(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Response<Body> {
    if request.method() != Method::POST {
        return call::other_methods(request.method(), vec!["POST"]);
    }
    let table = shared.exposed.table();
    match table.event(&name) {
        Some(event) => call::answer(&shared, event, Vec::new(), request).await,
        None => Problem::unreachable(&name).into_response(),
    }
}

async fn by_path(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let table = shared.exposed.table();
    let (event, places) = match table.find(request.method().as_str(), request.uri().path()) {
        Found::Event(event, params) => {
            let places = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            (event, places)
        }
        Found::OtherMethods(methods) => return call::other_methods(request.method(), methods),
        Found::Nothing if shared.files.is_some() => return file(&shared, request).await,
        Found::Nothing => {
            return Problem::not_found(format!("nothing is at `{}`", request.uri().path())).into_response();
        }
    };
    call::answer(&shared, event, places, request).await
}

/// A file, where no event has a route.
async fn file(shared: &Shared, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let nothing = || Problem::not_found(format!("nothing is at `{path}`")).into_response();
    let Some(files) = &shared.files else { return nothing() };
    match files.clone().oneshot(request).await {
        Ok(response) if response.status() == StatusCode::NOT_FOUND => nothing(),
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

/// Which answers are worth compressing: texts, of which no part was asked for.
#[derive(Debug, Clone, Copy)]
struct Compressible;

impl Predicate for Compressible {
    fn should_compress<B: hyper::body::Body>(&self, response: &Response<B>) -> bool {
        let headers = response.headers();
        let media = headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
        let is_text = media.starts_with("text/") && !media.starts_with("text/event-stream")
            || ["json", "javascript", "xml"].iter().any(|kind| media.contains(kind)) && !media.contains("ndjson");
        // What is shorter than a packet does not arrive earlier.
        let is_long = response.body().size_hint().upper().is_none_or(|bytes| bytes > 1024);
        is_text && is_long && !headers.contains_key(header::CONTENT_RANGE)
    }
}
