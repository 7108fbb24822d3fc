//! Errors as clients see them: problem details (RFC 9457) with edri's stable codes.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use edri_events::EventName;
pub(crate) use edri_events::FieldError;
use edri_router::{PublishError, Refusal, RequestError, Told};
use serde::Serialize;

use crate::Verb;

/// What went wrong, for the client.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: String,
    /// What is wrong in the input, field by field.
    errors: Vec<FieldError>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

// It is half of many results.
const _: () = assert!(size_of::<Problem>() < 128);

/// How a problem is written.
#[derive(Serialize)]
struct Written<'p> {
    #[serde(rename = "type")]
    kind: String,
    title: &'p str,
    status: u16,
    code: &'p str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'p str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'p [FieldError],
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { status, code: code.into(), detail: detail.into(), errors: Vec::new(), headers: Vec::new() }
    }

    /// The input is wrong in these fields.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match &*errors {
            [FieldError { field, message }] if field.is_empty() => message.clone(),
            [FieldError { field, message }] => format!("`{field}`: {message}"),
            _ => format!("{} fields are wrong", errors.len()),
        };
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, "invalid_payload", detail) }
    }

    /// Nobody knows an event or a path of this name.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// An event of this name cannot be reached.
    pub(crate) fn unreachable(event: &str) -> Self {
        let detail = format!("no event `{event}` can be reached here: it is not known, or it does not say `expose`");
        Self::new(StatusCode::NOT_FOUND, "unknown_event", detail)
    }

    /// The caller may not do this. `whose` is what does not let it, when it has said who it is.
    pub(crate) fn forbidden(verb: Verb, event: &EventName, whose: Option<&str>) -> Self {
        let verb = match verb {
            Verb::Publish => "publish",
            Verb::Request => "request",
            Verb::Subscribe => "subscribe to",
            Verb::Serve => "serve",
        };
        if let Some(whose) = whose {
            return Self::new(StatusCode::FORBIDDEN, "forbidden", format!("{whose} does not let you {verb} `{event}`"));
        }
        Self::unauthorized(format!("a token is needed to {verb} `{event}`: send it as `Authorization: Bearer ...`"))
    }

    /// The event operates the node, and the gateway tells no callers apart.
    pub(crate) fn needs_access(event: &EventName) -> Self {
        let detail = format!(
            "`{event}` is for callers whose token allows it by name, and this gateway knows no tokens: give it `Api::access`"
        );
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// The caller has to say who it is.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// Adds a header to the answer, or puts it in the place of one of its name.
    pub(crate) fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value));
        self
    }

    pub(crate) fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or("Error")
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let Self { status, code, detail, errors, .. } = self;
        let kind = format!("urn:edri:{code}");
        let written = Written { kind, title: self.title(), status: status.as_u16(), code, detail, errors };
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// The whole answer as HTTP/1.1 has it, for a connection that is closed with it.
    pub(crate) fn to_http1(&self) -> Vec<u8> {
        let body = self.to_json();
        let mut head =
            format!("HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\n", self.status.as_u16(), self.title());
        for (name, value) in &self.headers {
            head += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
        }
        head += &format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        [head.into_bytes(), body].concat()
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// What was told of an error, by its code. A failure's code is the handler's own: those that HTTP has a status for
    /// get it, `failed` is the server's fault, and with any other the handler says that it will not do what was asked.
    pub(crate) fn of(told: Told) -> Self {
        let status = if told.failure { status_of_failure(&told.code) } else { status_of_error(&told.code) };
        let mut problem = Self::new(status, told.code, told.message);
        if !told.errors.is_empty() {
            return Self::invalid(told.errors);
        }
        if problem.code == "invalid_payload" {
            problem.errors.extend(field_of(&problem.detail));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            problem = problem.with_header(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        problem
    }
}

/// The field that is wrong, from a codec's words: "in `lines[2].amount`: ...".
fn field_of(detail: &str) -> Option<FieldError> {
    let (_, rest) = detail.split_once("in `")?;
    let (field, message) = rest.split_once("`: ")?;
    Some(FieldError { field: field.to_owned(), message: message.to_owned() })
}

fn status_of_error(code: &str) -> StatusCode {
    match code {
        "no_handler" | "overloaded" | "stopping" => StatusCode::SERVICE_UNAVAILABLE,
        "timed_out" => StatusCode::GATEWAY_TIMEOUT,
        "worker_lost" | "peer_lost" => StatusCode::BAD_GATEWAY,
        "unknown_event" => StatusCode::NOT_FOUND,
        "invalid_payload" | "invalid_headers" | "invalid_name" | "wrong_kind" => StatusCode::BAD_REQUEST,
        "frame_too_long" => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn status_of_failure(code: &str) -> StatusCode {
    match code {
        "invalid" | "invalid_payload" => StatusCode::BAD_REQUEST,
        "unauthorized" => StatusCode::UNAUTHORIZED,
        "forbidden" => StatusCode::FORBIDDEN,
        "not_found" => StatusCode::NOT_FOUND,
        "conflict" => StatusCode::CONFLICT,
        "gone" => StatusCode::GONE,
        "precondition_failed" => StatusCode::PRECONDITION_FAILED,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "too_many_requests" => StatusCode::TOO_MANY_REQUESTS,
        "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "not_implemented" => StatusCode::NOT_IMPLEMENTED,
        "failed" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        Self::of(Told::from(&error))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        RequestError::from(refusal).into()
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        Self::of(Told::from(&error))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.headers.iter().cloned());
        // For whoever makes a page of it.
        response.extensions_mut().insert(self);
        response
    }
}
