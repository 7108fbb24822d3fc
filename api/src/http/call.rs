//! One HTTP request as one event.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use edri_events::{Body as EventBody, Encoding, Headers, Kind, TraceContext, Value};
use edri_router::{Relayed, RequestError};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::event_body;
use super::negotiate::{answer_encoding, body_encoding, media_type};
use super::tunnel;
use crate::body::body_problem;
use crate::exposed::Reachable;
use crate::front::ForEvent;
use crate::gateway::Shared;
use crate::problem::Problem;
use crate::{Caller, Verb};

/// Answers a request that is for this event. `places` are the fields in the path, percent-encoded.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    event: &Arc<Reachable>,
    places: Vec<(String, String)>,
    request: Request,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let answered = try_answer(shared, event, &places, &head, body).await;
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    response.extensions_mut().insert(ForEvent(event.descriptor.name().clone()));
    response
}

async fn try_answer(
    shared: &Arc<Shared>,
    event: &Arc<Reachable>,
    places: &[(String, String)],
    head: &Parts,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let caller = shared.access.caller(head)?;
    match event.descriptor.kind() {
        Kind::Notification => {
            event.check(&caller, Verb::Publish)?;
            let answer = answer_encoding(&head.headers)?;
            let relayed = relayed(shared, event, places, head, body, &caller).await?;
            let receipt = shared.relay.publish(relayed).await?;
            let told = serde_json::json!({"id": receipt.id.to_string(), "groups": receipt.deliveries});
            respond(StatusCode::ACCEPTED, answer, EventBody::from(told))
        }
        Kind::Request => {
            event.check(&caller, Verb::Request)?;
            let answer = answer_encoding(&head.headers)?;
            let relayed = relayed(shared, event, places, head, body, &caller).await?;
            let value = shared.relay.request(relayed, None).await?;
            let value = if event.answers_http { Answered::Http(value) } else { Answered::Plain(value) };
            value.respond(answer)
        }
        Kind::Tunnel => {
            event.check(&caller, Verb::Request)?;
            // The body is what goes up, so the event's own fields come from elsewhere.
            let fields = EventBody::new(Encoding::MessagePack, bytes::Bytes::new());
            let relayed = with_fields(event, places, head, fields, &caller)?;
            tunnel::answer(shared, event, relayed, head, body).await
        }
    }
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
    let trace = head.headers.get("traceparent").and_then(|value| value.to_str().ok()?.parse::<TraceContext>().ok());
    let mut headers = Headers::default();
    if let Some(name) = caller.name() {
        headers.insert(Headers::CALLER, name).map_err(|error| Problem::unauthorized(error.to_string()))?;
    }
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

async fn read_body(shared: &Shared, body: Body) -> Result<bytes::Bytes, Problem> {
    let limit = shared.limits.body_bytes;
    let read = tokio::time::timeout(shared.limits.body_time, Limited::new(body, limit).collect());
    match read.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("a body has at most {limit} bytes: send more through a tunnel"),
        )),
        Ok(Err(error)) => Err(body_problem(&*error)),
        Err(_) => {
            let detail = format!("the body did not come within {:?}", shared.limits.body_time);
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timed_out", detail))
        }
    }
}

/// The name of what is wrong with an answer that HTTP has no form for.
const WRONG_ANSWER: &str = "invalid_answer";

/// A response that came from a worker.
enum Answered {
    /// The value is the body.
    Plain(Value),
    /// It is an [`edri_events::Http`].
    Http(Value),
}

/// An [`edri_events::Http`] as it came.
#[derive(Deserialize)]
struct HttpAnswer<'a> {
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(borrow)]
    body: &'a RawValue,
}

fn ok() -> u16 {
    200
}

impl Answered {
    fn respond(self, encoding: Encoding) -> Result<Response<Body>, Problem> {
        match self {
            Self::Plain(value) => {
                let body = value.into_body(encoding).map_err(RequestError::from)?;
                respond(StatusCode::OK, encoding, body)
            }
            Self::Http(value) => {
                let json = value.into_body(Encoding::Json).and_then(|body| body.transcode(Encoding::Json));
                let json = json.map_err(RequestError::from)?;
                let wrong = |why: String| Problem::new(StatusCode::BAD_GATEWAY, WRONG_ANSWER, why);
                let answer: HttpAnswer<'_> =
                    serde_json::from_slice(&json.bytes).map_err(|error| wrong(error.to_string()))?;
                http_response(&answer, encoding).map_err(wrong)
            }
        }
    }
}

fn http_response(answer: &HttpAnswer<'_>, encoding: Encoding) -> Result<Response<Body>, String> {
    let (status, mut headers) = worker_head(answer.status, &answer.headers)?;
    let json = answer.body.get();
    let is_empty = matches!(status.as_u16(), 204 | 304) || (status.is_redirection() && json == "null");
    let body = if is_empty {
        Body::empty()
    } else if headers.contains_key(header::CONTENT_TYPE)
        && let Some(bytes) = raw(json)
    {
        Body::from(bytes)
    } else {
        let body = EventBody::new(Encoding::Json, json.as_bytes().to_vec());
        let body = body.transcode(encoding).map_err(|error| error.to_string())?;
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(media_type(encoding)));
        Body::from(body.bytes)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Status and headers that a worker chose.
pub(super) fn worker_head(status: u16, given: &[(String, String)]) -> Result<(StatusCode, HeaderMap), String> {
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

pub(super) fn respond(status: StatusCode, encoding: Encoding, body: EventBody) -> Result<Response<Body>, Problem> {
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
