//! Requests over HTTP.

pub(crate) mod call;
pub(crate) mod fields;
pub(crate) mod negotiate;
pub(crate) mod tunnel;

pub(crate) use negotiate::{Wanted, wanted};
pub(crate) use tunnel::Form;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use axum::{Extension, Router};
use edri_events::{EventName, Kind};
use edri_protocol::EventDeclaration;
use edri_router::{ManagerState, Phase};
use tokio::sync::watch;
use tower::{ServiceExt, service_fn};
use tower_http::compression::Compression;
use tower_http::compression::predicate::Predicate;

use crate::border::Layers;
use crate::clients::Client;
use crate::exposed::{Places, Reachable, is_own_path};
use crate::gateway::Shared;
use crate::metrics;
use crate::problem::Problem;
use crate::{Caller, Verb, openapi, pages, sse};

/// Who sends a request, as it was found out at the door.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) caller: Caller,
    /// The client's, also where a proxy stands between.
    pub(crate) address: IpAddr,
}

impl Sender {
    /// Who sent a request that has passed a router: its extensions say so, which a layer may have changed.
    fn of(shared: &Shared, head: &Parts) -> Result<Self, Problem> {
        Ok(Self { caller: shared.access.caller(head)?, address: remote(head) })
    }

    /// Who is bound by limits.
    pub(crate) fn client(&self) -> Client {
        Client::of(&self.caller, self.address)
    }
}

/// The address of a connection's other end.
#[derive(Debug, Clone, Copy)]
struct Remote(IpAddr);

/// The address of whoever sends a request.
pub(crate) fn remote(head: &Parts) -> IpAddr {
    head.extensions.get::<Remote>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |remote| remote.0)
}

/// The event that an answer is of which has come through a router.
#[derive(Debug, Clone)]
struct ForEvent(EventName);

/// An answer, and the event that it is of.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) event: Option<EventName>,
}

/// Everything that the gateway answers, and what its owner has put around that.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    router: Router,
    has_layers: bool,
}

/// Everything that the gateway answers.
pub(crate) fn routes(shared: Arc<Shared>, layers: Layers, stopping: watch::Receiver<bool>) -> Routes {
    let mut router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(docs))
        .route("/metrics", get(node_metrics))
        .route("/subscribe", get(sse::subscribe).layer(Extension(stopping)))
        .route("/events", get(events))
        .route("/events/{name}", any(by_name))
        .route("/csrf", get(crate::sessions::tell_token))
        .route("/ws", get(crate::websocket::upgrade))
        .fallback(by_path);
    if shared.pages.as_ref().is_some_and(pages::Templates::has_assets) {
        router = router.route("/assets/{*path}", get(pages::asset));
    }
    let has_layers = !layers.is_empty();
    Routes { router: layers.around(router.with_state(shared)), has_layers }
}

/// Answers a request. What is for an event takes the short way, past the router of everything else, unless there is something around that:
/// it is nearly all there is, and each layer of a router costs as much as the event itself.
pub(crate) async fn answer(routes: Routes, shared: &Arc<Shared>, mut request: Request, sender: Sender) -> Answer {
    let accepted = request.headers().get(header::ACCEPT_ENCODING).cloned();
    let asked = pages::asked(shared, &mut request, &sender.caller);
    let event = if routes.has_layers { None } else { event_of(shared, &request) };
    let (mut response, event) = match event {
        Some((event, places)) => {
            let response = call::answer(shared, &event, places, request, sender).await;
            (response, Some(event.descriptor.name().clone()))
        }
        None => {
            request.extensions_mut().insert(Remote(sender.address));
            request.extensions_mut().insert(sender.caller);
            // In a box, as it is large and most requests go the short way.
            let Ok(mut response) = Box::pin(routes.router.oneshot(request)).await;
            let event = response.extensions_mut().remove::<ForEvent>().map(|event| event.0);
            (response, event)
        }
    };
    if let Some(asked) = asked {
        response = pages::dressed(shared, &asked, response);
    }
    if Compressible.should_compress(&response) {
        response = Box::pin(compress(accepted, response)).await;
    }
    Answer { response, event }
}

/// The event that a request is for, and the fields that have a place in its path; `None` when it is for none, or not so.
fn event_of(shared: &Shared, request: &Request) -> Option<(Arc<Reachable>, Places)> {
    let (method, path) = (request.method(), request.uri().path());
    let table = shared.exposed.table();
    match path.strip_prefix("/events/") {
        Some(name) if method == Method::POST => table.event(name).map(|event| (Arc::clone(event), Places::new())),
        _ if is_own_path(path) || has_asset(shared, path) => None,
        _ => table.find(method.as_str(), path),
    }
}

/// Whether this is the path of an asset of pages.
fn has_asset(shared: &Shared, path: &str) -> bool {
    shared.pages.as_ref().is_some_and(pages::Templates::has_assets) && path.starts_with("/assets/")
}

/// Compresses an answer, if whoever asked accepts it so.
async fn compress(accepted: Option<HeaderValue>, response: Response<Body>) -> Response<Body> {
    let mut ready = Some(response);
    let answer = service_fn(move |_: Request| {
        let response = ready.take().unwrap_or_default();
        async move { Ok::<_, Infallible>(response) }
    });
    let mut request = Request::new(Body::empty());
    if let Some(accepted) = accepted {
        request.headers_mut().insert(header::ACCEPT_ENCODING, accepted);
    }
    let Ok(response) = Compression::new(answer).compress_when(Compressible).oneshot(request).await;
    response.map(Body::new)
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
    let text = metrics::write(&shared.metrics, &shared.cache, &shared.router.bus().topology());
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
        Some(event) => answer_event(&shared, event, Places::new(), request).await,
        None => Problem::unreachable(&name).into_response(),
    }
}

/// Answers a request that is for this event, and has passed a router.
async fn answer_event(
    shared: &Arc<Shared>,
    event: &Arc<Reachable>,
    places: Places,
    mut request: Request,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let sender = match Sender::of(shared, &head) {
        Ok(sender) => sender,
        Err(problem) => return problem.into_response(),
    };
    request = Request::from_parts(head, body);
    let mut response = call::answer(shared, event, places, request, sender).await;
    response.extensions_mut().insert(ForEvent(event.descriptor.name().clone()));
    response
}

/// Where no event has this method and path.
async fn by_path(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    if let Some((event, places)) = event_of(&shared, &request) {
        return answer_event(&shared, &event, places, request).await;
    }
    let methods = shared.exposed.table().methods(request.uri().path());
    let has_page = shared.pages.as_ref().is_some_and(|pages| pages.has_plain(request.uri().path()));
    if !methods.is_empty() || has_page {
        let (head, _) = request.into_parts();
        let methods = if methods.is_empty() { vec!["GET"] } else { methods };
        return page(&shared, &head).unwrap_or_else(|| call::other_methods(&head.method, methods));
    }
    if shared.files.is_some() {
        return file(&shared, request).await;
    }
    Problem::not_found(format!("nothing is at `{}`", request.uri().path())).into_response()
}

/// A page that is no event's, where no event has a route.
fn page(shared: &Shared, head: &Parts) -> Option<Response<Body>> {
    shared.pages.as_ref()?.plain(shared, head)
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
        // What is shorter than a packet does not arrive earlier.
        if response.body().size_hint().upper().is_some_and(|bytes| bytes <= 1024) {
            return false;
        }
        let headers = response.headers();
        let media = headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
        let is_text = media.starts_with("text/") && !media.starts_with("text/event-stream")
            || ["json", "javascript", "xml"].iter().any(|kind| media.contains(kind)) && !media.contains("ndjson");
        is_text && !headers.contains_key(header::CONTENT_RANGE)
    }
}
