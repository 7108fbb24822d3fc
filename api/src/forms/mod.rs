//! HTML forms: their fields are an event, and what a browser sees then is a page.
//!
//! ```text
//!   url-encoded ─┐
//!   multipart ───┴▶ entries ─▶ token ─▶ once ─▶ fields, by the event's schema ─▶ the event ─▶ 303 to where `then` says
//!        └─ a file, where the event is a tunnel ─▶ up            └─ what is wrong ─▶ the form again
//! ```

mod again;
mod fields;
mod once;
mod parts;
mod read;
mod then;
mod upload;

pub(crate) use again::{Hidden, is_in};
pub(crate) use once::Once;
pub(crate) use upload::Wrong;

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use edri_events::{Body as EventBody, Kind};
use serde_json::Value;

use crate::border::{Guard, Way};
use crate::exposed::Reachable;
use crate::gateway::Shared;
use crate::http::Sender;
use crate::http::call::{self, Given, HttpAnswer, Outcome, as_json, read_body, sent, worker_head, wrong_answer};
use crate::http::fields::fields_beside;
use crate::http::tunnel::send_up;
use crate::http::{Form, wanted};
use crate::problem::{FieldError, Problem};
use crate::sessions::FIELD;
use again::Typed;
use fields::{Entry, Fields};

/// How a form is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FormKind {
    UrlEncoded,
    /// Its parts stand between lines of this.
    Multipart(String),
}

/// How the form of this request is written; `None` when it has none.
pub(crate) fn kind(head: &Parts) -> Option<FormKind> {
    let given = head.headers.get(header::CONTENT_TYPE).filter(|media| *media != "application/json")?.to_str().ok()?;
    let media = given.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Some(FormKind::UrlEncoded);
    }
    let is_multipart = media.eq_ignore_ascii_case("multipart/form-data");
    is_multipart.then(|| FormKind::Multipart(multer::parse_boundary(given).unwrap_or_default()))
}

/// Answers a request whose body is a form.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    event: &Arc<Reachable>,
    places: Vec<(String, String)>,
    head: Parts,
    sender: Sender,
    body: Body,
    kind: FormKind,
) -> Result<Response<Body>, Problem> {
    let post = Post { shared: Arc::clone(shared), event: Arc::clone(event), places, head, sender };
    // Who may not send it is told so at once, unless what was typed can be shown again.
    if !post.has_form() {
        post.check()?;
    }
    let is_tunnel = event.descriptor.kind() == Kind::Tunnel;
    match kind {
        FormKind::UrlEncoded if is_tunnel => {
            call::try_answer(shared, event, &post.places, &post.head, &post.sender, body).await
        }
        FormKind::UrlEncoded => {
            let bytes = read_body(shared, body).await?;
            if read::is_data(&bytes) {
                return call::try_answer(shared, event, &post.places, &post.head, &post.sender, Body::from(bytes))
                    .await;
            }
            let entries = read::url_encoded(&bytes)?;
            drop(bytes);
            Arc::new(post).answer(entries).await
        }
        FormKind::Multipart(boundary) if boundary.is_empty() => {
            let detail = "the form does not say where its parts end: `multipart/form-data; boundary=...`";
            Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_payload", detail))
        }
        FormKind::Multipart(boundary) if is_tunnel => {
            let (typed, answered) = match upload::begin(shared, body, &boundary).await {
                Ok(begun) => (Typed::of(&begun.entries), post.send_up(begun).await),
                Err((entries, problem)) => (Typed::of(&entries), Err(problem)),
            };
            answered.or_else(|problem| post.again(&typed, problem))
        }
        FormKind::Multipart(boundary) => match read::multipart(shared, body, &boundary).await {
            Ok(entries) => Arc::new(post).answer(entries).await,
            Err((entries, problem)) => post.again(&Typed::of(&entries), problem),
        },
    }
}

/// A form that is to become an event.
struct Post {
    shared: Arc<Shared>,
    event: Arc<Reachable>,
    places: Vec<(String, String)>,
    head: Parts,
    sender: Sender,
}

impl Post {
    /// Takes the form, or shows it again with what is wrong.
    async fn answer(self: Arc<Self>, entries: Vec<Entry>) -> Result<Response<Body>, Problem> {
        let typed = Typed::of(&entries);
        let taken = Arc::clone(&self).take(entries).await;
        taken.or_else(|problem| self.again(&typed, problem))
    }

    async fn take(self: Arc<Self>, entries: Vec<Entry>) -> Result<Response<Body>, Problem> {
        self.check()?;
        self.check_token(&entries)?;
        let Some(number) = read::text(&entries, once::FIELD) else { return self.send(entries).await };
        let key = self.key(number, &entries);
        let this = Arc::clone(&self);
        self.shared.once.take(key, self.shared.router.runtime(), async move { this.send(entries).await }).await
    }

    fn check(&self) -> Result<(), Problem> {
        self.event.check(&self.sender.caller, call::verb(&self.event))
    }

    fn check_token(&self, entries: &[Entry]) -> Result<(), Problem> {
        self.shared.check_token(&self.sender.caller, &self.head, read::text(entries, FIELD))
    }

    /// Sends the event.
    async fn send(&self, entries: Vec<Entry>) -> Result<Response<Body>, Problem> {
        let Self { shared, event, head, sender, .. } = self;
        let caller = &sender.caller;
        let fields = self.fields(entries)?;
        let relayed = sent(event, head, encoded(&fields)?, caller)?;
        if let Some(path) = self.then() {
            let (outcome, _) = Outcome::of(shared, event, sender, relayed, edri_events::Encoding::Json).await?;
            return go_on(path, outcome, &fields);
        }
        let wanted = wanted(&head.headers, event.page.page.is_some())?;
        let given = Given::of(wanted, shared, head, caller, event, &relayed)?;
        let (outcome, _) = Outcome::of(shared, event, sender, relayed, given.encoding()).await?;
        outcome.respond(&given)
    }

    /// Opens the tunnel with the fields before the file, and sends the file up.
    async fn send_up(&self, begun: upload::Begun) -> Result<Response<Body>, Problem> {
        let Self { shared, event, head, sender, .. } = self;
        let caller = &sender.caller;
        self.check()?;
        self.check_token(&begun.entries)?;
        let (entries, file) = begun.file(self)?;
        let fields = self.fields(entries)?;
        let relayed = sent(event, head, encoded(&fields)?, caller)?;
        let relay = shared.relay.guarded(Guard::new(shared, caller, Way::Http));
        let down = Form::of(event.descriptor.schemas().down.as_ref());
        match self.then() {
            Some(path) if matches!(down, Form::Lines | Form::Nothing) => {
                let result = send_up(shared, event, &relay, relayed, file).await?;
                let result = result.transcode(edri_events::Encoding::Json).map_err(wrong_answer)?;
                go_on_with(path, serde_json::from_slice(&result.bytes).unwrap_or_default(), HeaderMap::new(), &fields)
            }
            _ => crate::http::tunnel::answer(shared, event, &relay, relayed, head, file).await,
        }
    }

    /// The event's fields: the form's, and what stands beside it.
    fn fields(&self, entries: Vec<Entry>) -> Result<Fields, Problem> {
        let Self { event, places, head, .. } = self;
        let mut fields = Fields::of(&event.descriptor.schemas().event, entries).map_err(Problem::invalid)?;
        for source in &event.sources {
            fields.remove(&source.field);
        }
        fields.extend(fields_beside(event, places, head.uri.query(), &head.headers)?);
        Ok(fields)
    }

    /// Where a browser goes next. A program that wants data is given data.
    fn then(&self) -> Option<&str> {
        self.event.page.then.as_deref().filter(|_| takes_pages(&self.head.headers))
    }
}

fn encoded(fields: &Fields) -> Result<EventBody, Problem> {
    let wrong = |error: edri_events::CodecError| FieldError { field: String::new(), message: error.to_string() };
    fields.encode().map_err(|error| Problem::invalid(vec![wrong(error)]))
}

/// Whether whoever asks takes something else than data.
fn takes_pages(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT);
    let mut ranges = accepts.iter().filter_map(|accept| accept.to_str().ok()).flat_map(|accept| accept.split(','));
    let is_page = |range: &str| {
        let media = range.split(';').next().unwrap_or_default().trim();
        ["text/html", "text/*", "*/*"].iter().any(|page| media.eq_ignore_ascii_case(page))
    };
    !headers.contains_key(header::ACCEPT) || ranges.any(is_page)
}

/// Sends the browser on. A worker that chose itself where it goes has its way.
fn go_on(path: &str, outcome: Outcome, fields: &Fields) -> Result<Response<Body>, Problem> {
    let json = match outcome {
        Outcome::Receipt(_) => return go_on_with(path, Value::Null, HeaderMap::new(), fields),
        Outcome::Plain(value) => {
            let json = as_json(value)?;
            return go_on_with(path, serde_json::from_slice(&json).unwrap_or_default(), HeaderMap::new(), fields);
        }
        Outcome::Http(value) => as_json(value)?,
    };
    let answer = HttpAnswer::read(&json)?;
    let (status, mut headers) = worker_head(answer.status, &answer.headers).map_err(wrong_answer)?;
    if !status.is_success() {
        return call::http_response(&answer, &Given::Data(edri_events::Encoding::Json));
    }
    headers.remove(header::CONTENT_TYPE);
    go_on_with(path, serde_json::from_str(answer.body.get()).unwrap_or_default(), headers, fields)
}

fn go_on_with(path: &str, answer: Value, headers: HeaderMap, fields: &Fields) -> Result<Response<Body>, Problem> {
    let given = |name: &str| answer.get(name).filter(|value| !value.is_null()).or_else(|| fields.get(name));
    let location = then::fill(path, given).map_err(wrong_answer)?;
    let location = HeaderValue::from_str(&location).map_err(wrong_answer)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}
