//! Uploads and downloads: the body of a request goes up a tunnel, what comes down is the body of the answer.
//!
//! A direction whose items are bytes is the raw body; one of other items is lines of JSON (`application/x-ndjson`). Nothing is
//! collected: a worker that takes no more makes the client wait, and a client that takes no more makes the worker wait.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use edri_events::{Body as EventBody, Encoding, Failure, HttpPart};
use edri_router::{Receiver, Relay, Relayed, Sender, Told, TunnelError, TunnelOutcome};
use futures_util::stream;
use http_body_util::BodyExt;
use schemars::Schema;
use serde_json::value::RawValue;
use tokio::task::AbortHandle;

use crate::body::body_problem;
use crate::exposed::Reachable;
use crate::gateway::Shared;
use crate::problem::Problem;

const NDJSON: &str = "application/x-ndjson";

/// How the items of one direction travel in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Each is bytes.
    Raw,
    /// [`HttpPart`]s.
    Parts,
    /// A line of JSON each.
    Lines,
    /// None come.
    Nothing,
}

impl Form {
    pub(crate) fn of(schema: Option<&Schema>) -> Self {
        let Some(schema) = schema else { return Self::Lines };
        let is = |name: &str, value: &str| schema.get(name).and_then(|found| found.as_str()) == Some(value);
        let items = schema.get("items");
        if schema.get("x-edri-http-part").is_some_and(|marked| marked == true) {
            Self::Parts
        } else if items.and_then(|items| items.get("format")).is_some_and(|format| format == "uint8") {
            Self::Raw
        } else if is("type", "null") {
            Self::Nothing
        } else {
            Self::Lines
        }
    }
}

/// Opens the tunnel and answers with what comes of it: the items that come down, or the final result.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    event: &Reachable,
    relay: &Relay,
    relayed: Relayed,
    head: &Parts,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let schemas = event.descriptor.schemas();
    let (up, down) = (Form::of(schemas.up.as_ref()), Form::of(schemas.down.as_ref()));
    let (sender, receiver, outcome) = relay.open(relayed).await?.split();
    let upload = upload(body, sender, up, shared.limits.body_bytes);
    let wants_lines = head
        .headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.to_ascii_lowercase().contains(NDJSON)));
    match down {
        Form::Raw | Form::Parts => download(receiver, outcome, down, Uploading::start(shared, upload)).await,
        Form::Lines if wants_lines => Ok(lines(receiver, outcome, Uploading::start(shared, upload))),
        Form::Lines | Form::Nothing => {
            let result = result(upload, receiver, outcome).await?;
            super::call::respond(StatusCode::OK, Encoding::Json, result)
        }
    }
}

/// Sends a body up, and waits for the final result.
pub(crate) async fn send_up(
    shared: &Shared,
    event: &Reachable,
    relay: &Relay,
    relayed: Relayed,
    body: Body,
) -> Result<EventBody, Problem> {
    let (sender, receiver, outcome) = relay.open(relayed).await?.split();
    let up = Form::of(event.descriptor.schemas().up.as_ref());
    result(upload(body, sender, up, shared.limits.body_bytes), receiver, outcome).await
}

async fn result(
    upload: impl Future<Output = Result<(), Problem>>,
    receiver: Receiver<EventBody>,
    outcome: TunnelOutcome<EventBody>,
) -> Result<EventBody, Problem> {
    let (uploaded, drained) = tokio::join!(upload, drain(receiver));
    if let Err(error @ TunnelError::Idle(_)) = drained {
        // The worker may not know; that nobody waits any more tells it.
        return Err(Problem::of(Told::from(&error)));
    }
    let result = outcome.result().await;
    result.map_err(|error| uploaded.err().unwrap_or_else(|| problem(error)))
}

/// The task that sends the body up. It ends when nobody wants the answer any more.
struct Uploading {
    task: AbortHandle,
    /// What was wrong with the body.
    wrong: Arc<OnceLock<Problem>>,
}

impl Uploading {
    fn start(shared: &Shared, upload: impl Future<Output = Result<(), Problem>> + Send + 'static) -> Self {
        let wrong = Arc::<OnceLock<Problem>>::default();
        let tell = Arc::clone(&wrong);
        let task = shared.router.runtime().spawn(async move {
            if let Err(problem) = upload.await {
                tell.get_or_init(|| problem);
            }
        });
        Self { task: task.abort_handle(), wrong }
    }

    /// Why the tunnel broke: a wrong body comes before what followed from it.
    fn problem(&self, error: TunnelError) -> Problem {
        self.wrong.get().cloned().unwrap_or_else(|| problem(error))
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn problem(error: TunnelError) -> Problem {
    Problem::of(error.told_as_result())
}

/// Sends the body up, lines of at most `line_max` bytes. The error says what is wrong with the body; the tunnel is broken off then.
async fn upload(body: Body, mut sender: Sender<EventBody>, form: Form, line_max: usize) -> Result<(), Problem> {
    match try_upload(body, &mut sender, form, line_max).await {
        Ok(()) => sender.finish(),
        Err(Stopped::Wrong(problem)) => {
            sender.abort(Failure::new(problem.code().to_owned(), problem.detail()));
            return Err(problem);
        }
        Err(Stopped::Ended) => {}
    }
    Ok(())
}

/// Why no more of a body goes up.
enum Stopped {
    /// Something is wrong with it.
    Wrong(Problem),
    /// The tunnel has ended; its result says how.
    Ended,
}

impl Stopped {
    /// Why an item was not taken.
    fn of(error: TunnelError) -> Self {
        match error {
            TunnelError::Payload(_) => Self::Wrong(Problem::of(Told::from(&error))),
            _ => Self::Ended,
        }
    }
}

async fn try_upload(
    mut body: Body,
    sender: &mut Sender<EventBody>,
    form: Form,
    line_max: usize,
) -> Result<(), Stopped> {
    let mut line = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Stopped::Wrong(body_problem(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        match form {
            Form::Nothing => {}
            Form::Raw | Form::Parts => send_bytes(sender, &data).await?,
            Form::Lines => {
                line.extend_from_slice(&data);
                send_lines(sender, &mut line, line_max).await?;
            }
        }
    }
    if line.iter().all(u8::is_ascii_whitespace) { Ok(()) } else { send_line(sender, line.freeze()).await }
}

async fn send_bytes(sender: &mut Sender<EventBody>, data: &Bytes) -> Result<(), Stopped> {
    if data.is_empty() {
        return Ok(());
    }
    let item = EventBody::encode(Encoding::MessagePack, data).map_err(|error| wrong(error.to_string()))?;
    sender.send(item).await.map_err(Stopped::of)
}

/// Sends the lines that are whole.
async fn send_lines(sender: &mut Sender<EventBody>, text: &mut BytesMut, line_max: usize) -> Result<(), Stopped> {
    while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
        let line = text.split_to(end + 1).freeze();
        if !line.iter().all(u8::is_ascii_whitespace) {
            send_line(sender, line).await?;
        }
    }
    if text.len() > line_max {
        let detail = format!("a line has at most {line_max} bytes");
        return Err(Stopped::Wrong(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)));
    }
    Ok(())
}

async fn send_line(sender: &mut Sender<EventBody>, line: Bytes) -> Result<(), Stopped> {
    let trimmed = line.trim_ascii();
    if let Err(error) = serde_json::from_slice::<&RawValue>(trimmed) {
        return Err(wrong(format!("a line is no JSON: {error}")));
    }
    let item = EventBody::new(Encoding::Json, line.slice_ref(trimmed));
    sender.send(item).await.map_err(Stopped::of)
}

fn wrong(detail: String) -> Stopped {
    Stopped::Wrong(Problem::new(StatusCode::BAD_REQUEST, "invalid_payload", detail))
}

/// Takes what comes down, for nobody.
async fn drain(mut receiver: Receiver<EventBody>) -> Result<(), TunnelError> {
    while receiver.recv().await?.is_some() {}
    Ok(())
}

/// A download: status and headers when the first item is there, so that a worker that fails before is the answer's problem.
async fn download(
    mut receiver: Receiver<EventBody>,
    outcome: TunnelOutcome<EventBody>,
    form: Form,
    uploading: Uploading,
) -> Result<Response<Body>, Problem> {
    let mut response = Response::new(());
    let media = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    let wrong = |why: String| Problem::new(StatusCode::BAD_GATEWAY, "invalid_answer", why);
    let first = match receiver.recv().await {
        Ok(Some(item)) => match part(&item, form).map_err(wrong)? {
            HttpPart::Head { status, headers, length } => {
                set_head(&mut response, status, &headers, length).map_err(wrong)?;
                None
            }
            HttpPart::Bytes(bytes) => Some(bytes),
        },
        Ok(None) => {
            outcome.result().await.map_err(|error| uploading.problem(error))?;
            return Ok(response.map(|()| Body::empty()));
        }
        Err(error) => {
            let error = outcome.result().await.err().unwrap_or(error);
            return Err(uploading.problem(error));
        }
    };
    let rest = stream::unfold(Some((first, receiver, outcome, uploading)), move |state| async move {
        let (first, mut receiver, outcome, uploading) = state?;
        if let Some(bytes) = first {
            return Some((Ok(bytes), Some((None, receiver, outcome, uploading))));
        }
        // An error breaks the answer off: the client sees that it is not whole.
        let broken = |error: String| Some((Err(std::io::Error::other(error)), None));
        match receiver.recv().await {
            Ok(Some(item)) => match part(&item, form) {
                Ok(HttpPart::Bytes(bytes)) => Some((Ok(bytes), Some((None, receiver, outcome, uploading)))),
                Ok(HttpPart::Head { .. }) => broken("a head came after the beginning".to_owned()),
                Err(error) => broken(error),
            },
            Ok(None) => match outcome.result().await {
                Ok(_) => None,
                Err(error) => broken(error.to_string()),
            },
            Err(error) => broken(error.to_string()),
        }
    });
    Ok(response.map(|()| Body::from_stream(rest)))
}

fn part(item: &EventBody, form: Form) -> Result<HttpPart, String> {
    match form {
        Form::Parts => item.decode(),
        _ => item.decode().map(HttpPart::Bytes),
    }
    .map_err(|error| error.to_string())
}

fn set_head(
    response: &mut Response<()>,
    status: u16,
    headers: &[(String, String)],
    length: Option<u64>,
) -> Result<(), String> {
    let (status, headers) = super::call::worker_head(status, headers)?;
    *response.status_mut() = status;
    let into: &mut HeaderMap = response.headers_mut();
    for name in headers.keys() {
        into.remove(name);
    }
    into.extend(headers.iter().map(|(name, value): (&HeaderName, &HeaderValue)| (name.clone(), value.clone())));
    if let Some(length) = length {
        into.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(())
}

/// Each item as a line `{"item": ..}`, then `{"result": ..}` or `{"problem": ..}`.
fn lines(receiver: Receiver<EventBody>, outcome: TunnelOutcome<EventBody>, uploading: Uploading) -> Response<Body> {
    let lines = stream::unfold(Some((receiver, outcome, uploading)), move |state| async move {
        let (mut receiver, outcome, uploading) = state?;
        if let Ok(Some(item)) = receiver.recv().await
            && let Ok(line) = line("item", item)
        {
            return Some((Ok::<_, Infallible>(line), Some((receiver, outcome, uploading))));
        }
        let last =
            match outcome.result().await.map_err(|error| uploading.problem(error)).map(|result| line("result", result))
            {
                Ok(Ok(line)) => line,
                Ok(Err(error)) => {
                    problem_line(&Problem::new(StatusCode::BAD_GATEWAY, "invalid_answer", error.to_string()))
                }
                Err(problem) => problem_line(&problem),
            };
        Some((Ok(last), None))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response
}

fn line(name: &str, value: EventBody) -> Result<Bytes, edri_events::CodecError> {
    let json = value.transcode(Encoding::Json)?;
    Ok([b"{\"", name.as_bytes(), b"\":", &json.bytes, b"}\n"].concat().into())
}

fn problem_line(problem: &Problem) -> Bytes {
    [b"{\"problem\":", &*problem.to_json(), b"}\n"].concat().into()
}
