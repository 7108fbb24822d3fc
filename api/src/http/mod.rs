//! Requests over HTTP.

mod call;
mod fields;
mod negotiate;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use edri_router::{ManagerState, Phase};
use tokio::sync::watch;

use crate::exposed::Found;
use crate::gateway::Shared;
use crate::metrics;
use crate::problem::Problem;

/// The address of a connection's other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(pub(crate) SocketAddr);

/// Everything that the gateway answers.
pub(crate) fn router(shared: Arc<Shared>, _stopping: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(node_metrics))
        .route("/events/{name}", post(by_name))
        .fallback(by_path)
        .with_state(shared)
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
    let from = head.extensions.get::<Remote>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |remote| remote.0.ip());
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

async fn by_name(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Response<Body> {
    let table = shared.exposed.table();
    match table.event(&name) {
        Some(event) => call::answer(&shared, event, Vec::new(), request).await,
        None => {
            let detail = format!("no event `{name}` can be reached here: it is not known, or it does not say `expose`");
            Problem::not_found(detail).into_response()
        }
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
        Found::Nothing => {
            return Problem::not_found(format!("nothing is at `{}`", request.uri().path())).into_response();
        }
    };
    call::answer(&shared, event, places, request).await
}
