//! Requests over HTTP.

mod call;
mod fields;
mod negotiate;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use edri_router::Phase;
use tokio::sync::watch;
use tower::Service;

use crate::exposed::Found;
use crate::gateway::Shared;
use crate::problem::Problem;

/// The address of a connection's other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(pub(crate) SocketAddr);

/// Everything that the gateway answers.
pub(crate) fn router(shared: Arc<Shared>, _stopping: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/events/{name}", post(by_name))
        .route("/ws", get(crate::websocket::upgrade))
        .fallback(by_path)
        .with_state(shared)
}

/// The router for one connection: its requests know where they come from.
#[derive(Clone)]
pub(crate) struct Connected {
    router: Router,
    remote: Remote,
}

impl Connected {
    pub(crate) fn new(router: Router, remote: SocketAddr) -> Self {
        Self { router, remote: Remote(remote) }
    }
}

impl Service<Request<hyper::body::Incoming>> for Connected {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = <Router as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        <Router as Service<Request<Body>>>::poll_ready(&mut self.router, cx)
    }

    fn call(&mut self, request: Request<hyper::body::Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.remote);
        self.router.call(request)
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let not_yet = |code, detail: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).into_response();
    match shared.router.phase() {
        Phase::Running if shared.ready.load(Ordering::Acquire) => "ready\n".into_response(),
        Phase::Running => not_yet("starting", "the node is starting"),
        _ => not_yet("stopping", "the node is stopping"),
    }
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
