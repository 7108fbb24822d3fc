//! Server-sent events: notifications as a stream that any browser reads (`EventSource`).
//!
//! Where the node keeps a history of what is asked for, each event has its place there as its id: a browser that comes back
//! says which it had last, and goes on from there. Without one the stream begins with what comes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use edri_events::{Encoding, Envelope, Pattern};
use edri_router::{Conditions, DeclareError, Missed, Recorded, Replay, Since, Start, Tap, Tapped};
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::Caller;
use crate::border::{Interceptors, Way};
use crate::ending::Ending;
use crate::gateway::Shared;
use crate::problem::{FieldError, Problem};
use crate::selection::{replay, selection};

/// How often something is sent, so that both sides and what is between them see that the other is there.
const ALIVE: Duration = Duration::from_secs(15);
/// How many events wait for a client without a history.
const CAPACITY: usize = 1024;
/// The name of the message that says that events are missing.
const MISSED: &str = "edri.missed";

/// What a client asks for.
#[derive(Default)]
struct Wanted {
    event: Option<String>,
    key: Option<String>,
    conditions: Option<Conditions>,
    last: Option<usize>,
    since: Option<Since>,
    /// Pages cannot set headers here, so the token may come so.
    token: Option<String>,
}

/// `GET /subscribe?event=..&key=..&where=..&last=..`
pub(crate) async fn subscribe(
    State(shared): State<Arc<Shared>>,
    stopping: axum::Extension<watch::Receiver<bool>>,
    request: Request,
) -> Response<Body> {
    let (head, _) = request.into_parts();
    let opened = async {
        let wanted = Wanted::read(head.uri.query().unwrap_or_default(), &head.headers)?;
        let caller = match &wanted.token {
            Some(token) => shared.access.caller_by_token(token)?,
            None => shared.access.caller(&head)?,
        };
        Feed::open(&shared, caller, wanted).await
    };
    match opened.await {
        Ok(feed) => feed.respond(stopping.0),
        Err(problem) => problem.into_response(),
    }
}

impl Wanted {
    fn read(query: &str, headers: &HeaderMap) -> Result<Self, Problem> {
        let mut wanted = Self::default();
        let mut errors = Vec::new();
        let mut wrong = |field: &str, message: String| errors.push(FieldError { field: field.to_owned(), message });
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "event" if wanted.event.is_some() => {
                    wrong("event", "it is given twice: open a stream for each, or take a pattern".to_owned());
                }
                "event" => wanted.event = Some(value.into_owned()),
                "key" => wanted.key = Some(value.into_owned()),
                "where" => match value.parse() {
                    Ok(conditions) => wanted.conditions = Some(conditions),
                    Err(error) => wrong("where", error.to_string()),
                },
                "last" => match value.parse() {
                    Ok(count) => wanted.last = Some(count),
                    Err(_) => wrong("last", "it is a number of events".to_owned()),
                },
                "since" => wanted.since = Some(Since::from_text(&value)),
                "access_token" => wanted.token = Some(value.into_owned()),
                other => wrong(other, "it is none of event, key, where, last, since and access_token".to_owned()),
            }
        }
        if wanted.event.is_none() {
            wrong("event", "say which: `event=quake.recorded`, or a pattern such as `quake.*`".to_owned());
        }
        if !errors.is_empty() {
            return Err(Problem::invalid(errors));
        }
        // What a browser says that comes back is later than what its address says.
        let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
        if let Some(id) = last_id {
            wanted.since = Some(Since::from_text(id));
        }
        Ok(wanted)
    }
}

/// Events for one client.
struct Feed {
    source: Source,
    /// What is to be sent first.
    first: Option<Bytes>,
    /// The end of its browser's session.
    ending: Option<Ending>,
    caller: Caller,
    /// Who sees each event before the client does.
    interceptors: Interceptors,
}

enum Source {
    /// From a history.
    Replay(Replay<Envelope>),
    /// What comes from now on.
    Live { waiting: Arc<Waiting>, _tapped: Tapped },
}

/// Events that a client has not taken yet. The oldest make room, and are counted; a publisher never waits.
#[derive(Debug, Default)]
struct Waiting {
    // Held to add an event or to take one.
    state: Mutex<WaitingState>,
    came: Notify,
}

#[derive(Debug, Default)]
struct WaitingState {
    events: VecDeque<Envelope>,
    /// How many were left out before the first of them.
    missed: u64,
    closed: bool,
}

impl Tap for Waiting {
    fn take(&self, envelope: &Envelope) {
        let mut state = self.state.lock();
        if state.events.len() == CAPACITY {
            state.events.pop_front();
            state.missed += 1;
        }
        state.events.push_back(envelope.clone());
        drop(state);
        self.came.notify_one();
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.came.notify_one();
    }
}

impl Waiting {
    /// The next event, or how many are missing before it; `None` once the node has stopped. Cancel safe.
    async fn next(&self) -> Option<Result<Envelope, u64>> {
        loop {
            {
                let mut state = self.state.lock();
                if state.missed > 0 {
                    return Some(Err(std::mem::take(&mut state.missed)));
                }
                if let Some(event) = state.events.pop_front() {
                    return Some(Ok(event));
                }
                if state.closed {
                    return None;
                }
            }
            self.came.notified().await;
        }
    }
}

impl Feed {
    async fn open(shared: &Arc<Shared>, caller: Caller, wanted: Wanted) -> Result<Self, Problem> {
        let text = wanted.event.unwrap_or_default();
        let pattern = Pattern::new(&text).map_err(|error| {
            Problem::invalid(vec![FieldError { field: "event".to_owned(), message: error.to_string() }])
        })?;
        let selection = selection(shared, &caller, pattern, wanted.key.as_deref(), wanted.conditions)?;
        let bus = shared.router.bus();
        let start = wanted.since.map_or(Start::Last(wanted.last.unwrap_or(0)), Start::Since);
        let replayed = replay(&bus, selection.clone(), start).await;
        let ending = Ending::of(shared, &caller).await;
        let interceptors = shared.interceptors.clone();
        let feed = |source, first| Self { source, first, ending, caller, interceptors };
        match replayed {
            Ok(replay) => Ok(feed(Source::Replay(replay), None)),
            Err(DeclareError::NoHistory(_)) if wanted.last.is_some() => {
                let message = format!("the node keeps no history of `{text}`: leave `last` away");
                Err(Problem::invalid(vec![FieldError { field: "last".to_owned(), message }]))
            }
            Err(DeclareError::NoHistory(_)) => {
                let waiting = Arc::<Waiting>::default();
                let tapped = bus.tap(selection, Arc::clone(&waiting) as Arc<dyn Tap>).await.map_err(refused)?;
                // Whoever comes back may have missed something, and there is nothing to look it up in.
                let first = wanted.since.map(|_| missed(None));
                Ok(feed(Source::Live { waiting, _tapped: tapped }, first))
            }
            Err(error) => Err(refused(error)),
        }
    }

    fn respond(self, stopping: watch::Receiver<bool>) -> Response<Body> {
        let left = self.caller.expires().map(|expires| expires.duration_since(SystemTime::now()).unwrap_or_default());
        let ends = left.and_then(|left| Instant::now().checked_add(left));
        let messages = stream::unfold((self, stopping), move |(mut feed, mut stopping)| async move {
            let expired = async {
                match ends {
                    Some(ends) => sleep_until(ends).await,
                    None => std::future::pending().await,
                }
            };
            let mut ending = feed.ending.take();
            let logged_out = async {
                match &mut ending {
                    Some(ending) => {
                        ending.over().await;
                    }
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                // Also while there is always another event.
                biased;
                () = expired => return None,
                () = logged_out => return None,
                _ = stopping.wait_for(|stopping| *stopping) => return None,
                message = feed.next() => message?,
                () = sleep(ALIVE) => Bytes::from_static(b":\n\n"),
            };
            feed.ending = ending;
            Some((Ok::<_, Infallible>(message), (feed, stopping)))
        });
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache"),
            // What is between must not hold messages back.
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        // The head goes out at once, so that the client knows that it is subscribed.
        let begin = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b":\n\n"))]);
        (headers, Body::from_stream(futures_util::StreamExt::chain(begin, messages))).into_response()
    }

    /// The next message; `None` once the node has stopped. Cancel safe.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let (id, envelope) = match &mut self.source {
                Source::Replay(replay) => match replay.next().await? {
                    Ok(Recorded { position, event, .. }) => (position.to_string(), event),
                    Err(Missed { events, .. }) => return Some(missed(events)),
                },
                Source::Live { waiting, .. } => match waiting.next().await? {
                    Ok(event) => (event.id().to_string(), event),
                    Err(events) => return Some(missed(Some(events))),
                },
            };
            let envelope = self.interceptors.deliver(&self.caller, Way::ServerSentEvents, envelope);
            if let Some(message) = envelope.and_then(|envelope| message(&id, &envelope)) {
                return Some(message);
            }
        }
    }
}

/// The event as a message, unless it has no place in JSON.
fn message(id: &str, envelope: &Envelope) -> Option<Bytes> {
    let name = envelope.name();
    let json = match envelope.encoded(Encoding::Json) {
        Ok(json) => json,
        Err(error) => {
            tracing::warn!(event = %name, %error, "left out of a stream of server-sent events");
            return None;
        }
    };
    let mut message = format!("id: {id}\nevent: {name}\n").into_bytes();
    // JSON that came from elsewhere may have line breaks.
    for line in json.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
        message.extend_from_slice(b"data: ");
        message.extend_from_slice(line);
        message.push(b'\n');
    }
    message.push(b'\n');
    Some(message.into())
}

fn refused(error: DeclareError) -> Problem {
    let status = match error {
        DeclareError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        DeclareError::Limit { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    Problem::new(status, error.code().to_owned(), error.to_string())
}

/// The message that events are missing, and how many if that is known.
fn missed(events: Option<u64>) -> Bytes {
    let mut message = format!("event: {MISSED}\ndata: ");
    let written = match events {
        Some(events) => write!(message, "{{\"events\":{events}}}"),
        None => write!(message, "{{\"events\":null}}"),
    };
    debug_assert!(written.is_ok(), "a String takes all");
    message.push_str("\n\n");
    message.into()
}
