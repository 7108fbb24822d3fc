//! What every request passes before it is looked at, and every answer on its way out.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version, header};
use bytes::Bytes;
use edri_events::EventName;
use futures_util::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tracing::Level;

use crate::activity::Activity;
use crate::body::Paced;
use crate::clients::{Begun, Client, TooMany, bound_address};
use crate::cors::Visitor;
use crate::gateway::Shared;
use crate::http::{self, Answer, Routes, Sender};
use crate::metrics::Refusal;
use crate::problem::Problem;
use crate::sessions::{Cookie, identify};
use crate::{Caller, cache, pages};

/// The target of the access log.
const ACCESS_LOG: &str = "edri::access";
/// What whoever asks for the node's health is always told.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

/// The way in for the requests of one connection.
#[derive(Clone)]
pub(crate) struct Front {
    routes: Routes,
    shared: Arc<Shared>,
    remote: SocketAddr,
    activity: Arc<Mutex<Activity>>,
}

impl Front {
    pub(crate) fn new(routes: Routes, shared: Arc<Shared>, remote: SocketAddr, activity: Arc<Mutex<Activity>>) -> Self {
        Self { routes, shared, remote, activity }
    }

    /// Answers a request.
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let Self { routes, shared, remote, activity } = self;
        activity.lock().begin(request.version() == Version::HTTP_2);
        let mut record = Record::begin(&request, shared, remote, activity);
        let (head, body) = request.into_parts();
        let mut visitor = Visitor::NoPage;
        let mut response = match record.admit(&head, &mut visitor) {
            Ok(Admitted::Passes(caller, begun)) => {
                // Given back also when the client leaves.
                let under_way = UnderWay { shared: Arc::clone(&record.shared), begun };
                let (log_ins, access) = (record.shared.log_ins.as_ref(), &record.shared.access);
                let identified = identify(log_ins, access, &head).await;
                let body = Body::new(Paced::new(body, record.shared.limits.body_idle, &record.activity));
                let response = match identified {
                    Ok(cookie) => {
                        let is_stale = matches!(cookie, Cookie::Stale);
                        let caller = if let Cookie::Of(caller) = cookie { caller } else { caller };
                        if record.logged.is_some() {
                            record.caller = caller.name().map(str::to_owned);
                        }
                        let (request, address) = (Request::from_parts(head, body), record.remote.ip());
                        let sender = Sender { caller, address };
                        let Answer { mut response, event } =
                            http::answer(routes, &record.shared, request, sender).await;
                        record.event = event;
                        if let (true, Some(log_ins)) = (is_stale, &record.shared.log_ins) {
                            log_ins.forget(response.headers_mut());
                        }
                        response
                    }
                    Err(problem) => {
                        record.caller = caller.name().map(str::to_owned);
                        pages::refusal(&record.shared, &head, problem)
                    }
                };
                drop(under_way);
                response
            }
            Ok(Admitted::Answered(response)) => response,
            Err(problem) => pages::refusal(&record.shared, &head, problem),
        };
        record.shared.cors.tell(&visitor, response.headers_mut());
        secure(response.headers_mut());
        cache::coded(&mut response);
        record.answered(&response);
        Ok(response.map(|body| Body::new(Watched { body, record })))
    }
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

/// What becomes of a request at the door.
enum Admitted {
    /// With who sends it as far as its token tells, and its place among the requests of its client.
    Passes(Caller, Option<Begun>),
    Answered(Response<Body>),
}

/// A request that waits for its answer, and counts as one of its client's.
struct UnderWay {
    shared: Arc<Shared>,
    begun: Option<Begun>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.shared.clients.lock().end(begun);
        }
    }
}

/// What is known of a request, until the last byte of its answer.
struct Record {
    shared: Arc<Shared>,
    activity: Arc<Mutex<Activity>>,
    /// The client, also where a proxy stands between.
    remote: SocketAddr,
    began: Instant,
    caller: Option<String>,
    /// What the log wants of the request, if there is one.
    logged: Option<(Method, String)>,
    event: Option<EventName>,
    status: Option<u16>,
    bytes: u64,
}

impl Record {
    fn begin(
        request: &Request<Incoming>,
        shared: Arc<Shared>,
        remote: SocketAddr,
        activity: Arc<Mutex<Activity>>,
    ) -> Self {
        let is_logged = tracing::enabled!(target: ACCESS_LOG, Level::DEBUG);
        let logged = is_logged.then(|| (request.method().clone(), request.uri().path().to_owned()));
        shared.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
        let remote = shared.proxies.as_ref().map_or(remote, |proxies| proxies.client(remote, request.headers()));
        Self {
            shared,
            activity,
            remote,
            began: Instant::now(),
            caller: None,
            logged,
            event: None,
            status: None,
            bytes: 0,
        }
    }

    /// Lets a request in that is within all bounds, and whose sender is who it says.
    fn admit(&mut self, head: &Parts, visitor: &mut Visitor) -> Result<Admitted, Problem> {
        let shared = Arc::clone(&self.shared);
        let refuse = |why, problem| shared_refused(&shared, why, problem);
        let length = head_length(&head.uri, &head.headers);
        if length > shared.limits.head_bytes {
            return Err(refuse(Refusal::HeadTooLarge, head_too_large(length, shared.limits.head_bytes)));
        }
        shared.hosts.check(head).map_err(|problem| refuse(Refusal::Host, problem))?;
        *visitor = shared.cors.visitor(head).map_err(|problem| refuse(Refusal::Origin, problem))?;
        if let Some(response) = shared.cors.preflight(head, visitor) {
            return Ok(Admitted::Answered(response));
        }
        let caller = shared.access.caller(head);
        let begun = if HEALTH.contains(&head.uri.path()) { None } else { Some(self.count(caller.as_ref().ok())?) };
        // Given back should the token be refused.
        let mut under_way = UnderWay { shared: Arc::clone(&shared), begun };
        let caller = caller.map_err(|problem| refuse(Refusal::Token, problem))?;
        Ok(Admitted::Passes(caller, under_way.begun.take()))
    }

    /// Counts a request as one of its client's: of the caller, or of the address when it is not known who it is.
    fn count(&self, caller: Option<&Caller>) -> Result<Begun, Problem> {
        let shared = &self.shared;
        let most = shared.limits.in_flight;
        if shared.metrics.in_flight.load(Ordering::Relaxed) > most {
            let detail = format!("{most} requests are under way, which is all that can be: try again");
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail);
            return Err(shared_refused(shared, Refusal::InFlight, retry_after(problem, Duration::from_secs(1))));
        }
        let address = self.remote.ip();
        let client =
            caller.map_or_else(|| Client::Address(bound_address(address)), |caller| Client::of(caller, address));
        shared.clients.lock().begin(client, Instant::now()).map_err(|too_many| {
            let limits = &shared.limits;
            let (why, detail, wait) = match too_many {
                TooMany::Requests(wait) => {
                    let rate = limits.requests_per_second.unwrap_or_default();
                    (Refusal::Rate, format!("you may send {rate} requests a second: wait"), wait)
                }
                TooMany::InFlight => {
                    let most = limits.in_flight_per_client;
                    let detail = format!("you have {most} requests under way, which is all you may: wait for some");
                    (Refusal::InFlightPerClient, detail, Duration::from_secs(1))
                }
            };
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail);
            shared_refused(shared, why, retry_after(problem, wait))
        })
    }

    /// The answer begins.
    fn answered(&mut self, response: &Response<Body>) {
        self.status = Some(response.status().as_u16());
        self.count_answer();
    }

    fn count_answer(&self) {
        self.shared.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.answered(self.event.as_ref(), self.status, self.began.elapsed());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.count_answer();
        }
        self.activity.lock().end(Instant::now());
        self.shared.metrics.sent(self.bytes);
        let Some((method, path)) = &self.logged else { return };
        tracing::debug!(
            target: ACCESS_LOG,
            %method,
            path,
            // As nginx says it, when the client did not wait.
            status = self.status.unwrap_or(499),
            bytes = self.bytes,
            duration_ms = self.began.elapsed().as_secs_f64() * 1000.0,
            event = self.event.as_ref().map(EventName::as_str),
            caller = self.caller.as_deref(),
            remote = %self.remote,
            "request",
        );
    }
}

/// The body of an answer, which is counted.
struct Watched {
    body: Body,
    record: Record,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.record.bytes += data.len() as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn shared_refused(shared: &Shared, why: Refusal, problem: Problem) -> Problem {
    shared.metrics.refused(why);
    problem
}

fn head_length(uri: &Uri, headers: &HeaderMap) -> usize {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    headers.iter().fold(path, |length, (name, value)| length + name.as_str().len() + value.len() + 4)
}

fn head_too_large(length: usize, most: usize) -> Problem {
    let detail = format!("the head of the request has {length} bytes, and at most {most} are taken: send less in it");
    Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large", detail)
}

pub(crate) fn retry_after(problem: Problem, wait: Duration) -> Problem {
    // Whole seconds, and never so few that it is too early.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    problem.with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
}

/// Headers that keep browsers from what nobody wants. What an answer says itself stays.
fn secure(headers: &mut HeaderMap) {
    const SECURE: [(HeaderName, &str); 2] =
        [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::X_FRAME_OPTIONS, "SAMEORIGIN")];
    for (name, value) in SECURE {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
