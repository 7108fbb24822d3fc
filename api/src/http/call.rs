//! One HTTP request as one event.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::{Bytes, BytesMut};
use edri_events::{Body as EventBody, Encoding, Headers, Kind, TraceContext, Value};
use edri_router::{Receipt, Relayed, RequestError};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::event_body;
use super::negotiate::{Wanted, body_encoding, media_type, wanted};
use super::{Sender, tunnel};
use crate::body::body_problem;
use crate::border::{self, Guard, Way};
use crate::cache::{self, Asking};
use crate::exposed::Reachable;
use crate::forms;
use crate::gateway::Shared;
use crate::pages::{Page, Shown, vary_by_accept};
use crate::problem::Problem;
use crate::sessions::settle;
use crate::{Caller, Verb};

/// Answers a request that is for this event. `places` are the fields in the path, percent-encoded.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    event: &Arc<Reachable>,
    places: Vec<(String, String)>,
    request: Request,
    sender: Sender,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let may_write = !head.method.is_safe();
    let answered = match forms::kind(&head) {
        // In a box, as it is large and most requests are none.
        Some(kind) => Box::pin(forms::answer(shared, event, places, head, sender.clone(), body, kind)).await,
        None => try_answer(shared, event, &places, &head, &sender, body).await,
    };
    let settled = match answered {
        Ok(response) => settle(shared.log_ins.as_ref(), &shared.access, sender.caller.session(), response).await,
        Err(problem) => Err(problem),
    };
    let mut response = settled.unwrap_or_else(IntoResponse::into_response);
    if may_write {
        shared.cache.wrote(|| sender.client());
    }
    if event.page.page.is_some() {
        vary_by_accept(response.headers_mut());
    }
    response
}

/// Answers a request whose body is data.
pub(crate) async fn try_answer(
    shared: &Arc<Shared>,
    event: &Arc<Reachable>,
    places: &[(String, String)],
    head: &Parts,
    sender: &Sender,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let caller = &sender.caller;
    event.check(caller, verb(event))?;
    shared.check_token(caller, head, None)?;
    if event.descriptor.kind() == Kind::Tunnel {
        // The body is what goes up, so the event's own fields come from elsewhere.
        let fields = EventBody::new(Encoding::MessagePack, Bytes::new());
        let relayed = with_fields(event, places, head, fields, caller)?;
        let relay = shared.relay.guarded(Guard::new(shared, caller, Way::Http));
        // In a box, as it is large and others are not.
        let response = Box::pin(tunnel::answer(shared, event, &relay, relayed, head, body)).await?;
        return Ok(cache::finish(shared, event, head, caller, None, response).await);
    }
    let wanted = wanted(&head.headers, event.page.page.is_some())?;
    let relayed = relayed(shared, event, places, head, body, caller).await?;
    let given = Given::of(wanted, shared, head, caller, event, &relayed)?;
    let (outcome, left) = Outcome::of(shared, event, sender, relayed, given.encoding()).await?;
    Ok(cache::finish(shared, event, head, caller, left, outcome.respond(&given)?).await)
}

/// What a caller has to be allowed who sends the event.
pub(crate) fn verb(event: &Reachable) -> Verb {
    if event.descriptor.kind() == Kind::Notification { Verb::Publish } else { Verb::Request }
}

/// The event that the request is.
async fn relayed(
    shared: &Shared,
    event: &Reachable,
    places: &[(String, String)],
    head: &Parts,
    body: Body,
    caller: &Caller,
) -> Result<Relayed, Problem> {
    let encoding = body_encoding(&head.headers)?;
    let bytes = read_body(shared, body).await?;
    with_fields(event, places, head, EventBody::new(encoding, bytes), caller)
}

fn with_fields(
    event: &Reachable,
    places: &[(String, String)],
    head: &Parts,
    body: EventBody,
    caller: &Caller,
) -> Result<Relayed, Problem> {
    let body = event_body(event, places, head.uri.query(), &head.headers, body)?;
    sent(event, head, body, caller)
}

/// The event as it is sent.
pub(crate) fn sent(event: &Reachable, head: &Parts, body: EventBody, caller: &Caller) -> Result<Relayed, Problem> {
    static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
    let trace = head.headers.get(&TRACE_PARENT).and_then(|value| value.to_str().ok()?.parse::<TraceContext>().ok());
    let mut headers = Headers::default();
    caller.mark(&mut headers).map_err(|error| Problem::unauthorized(error.to_string()))?;
    Ok(Relayed {
        name: event.descriptor.name().to_string(),
        body,
        id: None,
        key: None,
        cause: None,
        trace,
        headers,
        timeout: None,
    })
}

pub(crate) async fn read_body(shared: &Shared, body: Body) -> Result<Bytes, Problem> {
    let limit = shared.limits.body_bytes;
    let mut reading = pin!(collect(body, limit));
    // Most bodies come with their heads: nothing has to be waited for.
    let read = match poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
        Poll::Ready(read) => Ok(read),
        Poll::Pending => tokio::time::timeout(shared.limits.body_time, reading).await,
    };
    read.unwrap_or_else(|_| {
        let detail = format!("the body did not come within {:?}", shared.limits.body_time);
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timed_out", detail))
    })
}

/// All bytes of a body, which are not copied when they come in one piece.
async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|error| body_problem(&error))?.into_data() else { continue };
        if whole.len() + pieces.len() + piece.len() > limit {
            let detail = format!("a body has at most {limit} bytes: send more through a tunnel");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
        }
        if whole.is_empty() && pieces.is_empty() {
            whole = piece;
        } else {
            pieces.extend_from_slice(&std::mem::take(&mut whole));
            pieces.extend_from_slice(&piece);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
}

/// How an answer is given.
pub(crate) enum Given<'s> {
    Data(Encoding),
    Page(Page<'s>),
}

impl<'s> Given<'s> {
    pub(crate) fn of(
        wanted: Wanted,
        shared: &'s Shared,
        head: &'s Parts,
        caller: &'s Caller,
        event: &'s Reachable,
        relayed: &Relayed,
    ) -> Result<Self, Problem> {
        match wanted {
            Wanted::Data(encoding) => Ok(Self::Data(encoding)),
            Wanted::Page => {
                let shown = Shown { head, caller, event, fields: relayed.body.clone() };
                Page::of(shared, shown).map(Self::Page)
            }
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        match self {
            Self::Data(encoding) => *encoding,
            Self::Page(_) => Encoding::Json,
        }
    }

    fn value(&self, status: StatusCode, value: EventBody) -> Result<Response<Body>, Problem> {
        match self {
            Self::Data(encoding) => respond(status, *encoding, value),
            Self::Page(page) => page.respond(status, value.decode().map_err(RequestError::from)?),
        }
    }
}

/// The name of what is wrong with an answer that HTTP has no form for.
const WRONG_ANSWER: &str = "invalid_answer";

/// What became of an event that is no tunnel.
pub(crate) enum Outcome {
    /// It was published.
    Receipt(Receipt),
    /// The value is the body.
    Plain(Value),
    /// It is an [`edri_events::Http`].
    Http(Value),
}

/// An [`edri_events::Http`] as it came.
#[derive(Deserialize)]
pub(crate) struct HttpAnswer<'a> {
    #[serde(default = "ok")]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
    #[serde(borrow)]
    pub(crate) body: &'a RawValue,
}

fn ok() -> u16 {
    200
}

impl Outcome {
    /// Sends the event, unless its answer is kept, and waits for what becomes of it; and for how much longer that holds.
    pub(crate) async fn of(
        shared: &Arc<Shared>,
        event: &Arc<Reachable>,
        sender: &Sender,
        mut relayed: Relayed,
        answer: Encoding,
    ) -> Result<(Self, Option<Duration>), Problem> {
        let caller = &sender.caller;
        if event.descriptor.kind() == Kind::Notification {
            let relay = shared.relay.guarded(Guard::new(shared, caller, Way::Http));
            return Ok((Self::Receipt(relay.publish(relayed).await?), None));
        }
        let passed = border::enter(&shared.interceptors, event, caller, Way::Http, &mut relayed).await?;
        let asking = Asking { relay: &shared.relay, event, relayed, answer, client: &sender.client() };
        let given = shared.cache.request(&shared.router, asking).await;
        let value = passed.answered(given.outcome).await?;
        Ok((if event.answers_http { Self::Http(value) } else { Self::Plain(value) }, given.left))
    }

    pub(crate) fn respond(self, given: &Given<'_>) -> Result<Response<Body>, Problem> {
        match self {
            Self::Receipt(receipt) => {
                let told = serde_json::json!({"id": receipt.id.to_string(), "groups": receipt.deliveries});
                given.value(StatusCode::ACCEPTED, EventBody::from(told))
            }
            Self::Plain(value) => {
                let body = value.into_body(given.encoding()).map_err(RequestError::from)?;
                given.value(StatusCode::OK, body)
            }
            Self::Http(value) => {
                let json = as_json(value)?;
                http_response(&HttpAnswer::read(&json)?, given)
            }
        }
    }
}

impl<'a> HttpAnswer<'a> {
    pub(crate) fn read(json: &'a [u8]) -> Result<Self, Problem> {
        serde_json::from_slice(json).map_err(wrong_answer)
    }
}

/// A response as JSON.
pub(crate) fn as_json(value: Value) -> Result<Bytes, Problem> {
    let json = value.into_body(Encoding::Json).and_then(|body| body.transcode(Encoding::Json));
    Ok(json.map_err(RequestError::from)?.bytes)
}

pub(crate) fn http_response(answer: &HttpAnswer<'_>, given: &Given<'_>) -> Result<Response<Body>, Problem> {
    let (status, headers) = worker_head(answer.status, &answer.headers).map_err(wrong_answer)?;
    let json = answer.body.get();
    let is_empty = matches!(status.as_u16(), 204 | 304) || (status.is_redirection() && json == "null");
    let mut response = if is_empty {
        Response::new(Body::empty())
    } else if headers.contains_key(header::CONTENT_TYPE)
        && let Some(bytes) = raw(json)
    {
        Response::new(Body::from(bytes))
    } else {
        given.value(status, EventBody::new(Encoding::Json, json.as_bytes().to_vec()))?
    };
    *response.status_mut() = status;
    // What the worker chose goes before what is usual.
    for name in headers.keys() {
        response.headers_mut().remove(name);
    }
    response.headers_mut().extend(headers);
    Ok(response)
}

/// A worker's answer that HTTP has no form for.
pub(crate) fn wrong_answer(why: impl ToString) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, WRONG_ANSWER, why.to_string())
}

/// Status and headers that a worker chose.
pub(crate) fn worker_head(status: u16, given: &[(String, String)]) -> Result<(StatusCode, HeaderMap), String> {
    let wrong = || format!("the worker answered with the status {status}");
    let status = StatusCode::from_u16(status).ok().filter(|status| (200..600).contains(&status.as_u16()));
    let status = status.ok_or_else(wrong)?;
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let wrong = || format!("the worker answered with a header `{name}` that is none");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        // How it is sent is the gateway's affair.
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE].contains(&name) {
            return Err(format!("the worker set `{name}`, which the gateway does"));
        }
        headers.append(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok((status, headers))
}

/// A text, or a list of bytes, as what it holds.
fn raw(json: &str) -> Option<Vec<u8>> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(json).ok().map(String::into_bytes),
        b'[' => serde_json::from_str(json).ok(),
        _ => None,
    }
}

pub(crate) fn respond(status: StatusCode, encoding: Encoding, body: EventBody) -> Result<Response<Body>, Problem> {
    let body = body.transcode(encoding).map_err(RequestError::from)?;
    let mut response = Response::new(Body::from(body.bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(encoding)));
    Ok(response)
}

/// The path is there, but not for this method.
pub(super) fn other_methods(method: &Method, mut methods: Vec<&'static str>) -> Response<Body> {
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.push("OPTIONS");
    methods.sort_unstable();
    let allow = HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"));
    if method == Method::OPTIONS {
        return (StatusCode::NO_CONTENT, [(header::ALLOW, allow)]).into_response();
    }
    let detail = format!("this path takes {}", methods.join(", "));
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        .with_header(header::ALLOW, allow)
        .into_response()
}
