//! One HTTP request as one event.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use edri_events::{Body as EventBody, Encoding, Headers, Kind, TraceContext};
use edri_router::Relayed;
use http_body_util::{BodyExt, Limited};

use super::fields::event_body;
use super::negotiate::{answer_encoding, body_encoding, media_type};
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
    let name = event.descriptor.name();
    match event.descriptor.kind() {
        Kind::Notification => {
            caller.check(Verb::Publish, name)?;
            let answer = answer_encoding(&head.headers)?;
            let relayed = relayed(shared, event, places, head, body, &caller).await?;
            let receipt = shared.relay.publish(relayed).await?;
            let told = serde_json::json!({"id": receipt.id.to_string(), "groups": receipt.deliveries});
            respond(StatusCode::ACCEPTED, answer, EventBody::from(told))
        }
        Kind::Request => {
            caller.check(Verb::Request, name)?;
            let answer = answer_encoding(&head.headers)?;
            let relayed = relayed(shared, event, places, head, body, &caller).await?;
            let value = shared.relay.request(relayed, None).await?;
            let body = value.into_body(answer).and_then(|body| body.transcode(answer));
            respond(StatusCode::OK, answer, body.map_err(edri_router::RequestError::from)?)
        }
        Kind::Tunnel => Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "unsupported", "tunnels come later")),
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
    let body = event_body(event, places, head.uri.query(), &head.headers, EventBody::new(encoding, bytes))?;
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

fn respond(status: StatusCode, encoding: Encoding, body: EventBody) -> Result<Response<Body>, Problem> {
    let body = body.transcode(encoding).map_err(edri_router::RequestError::from)?;
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
