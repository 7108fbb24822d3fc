//! Clients and workers over WebSocket: `GET /ws`, one frame of the protocol in each message.
//!
//! ```text
//!   upgrade ─▶ hello ─┬─▶ Session: a task with its socket, calls, subscriptions and frames to be sent
//!                     ├─▶ the task of the session that is resumed, which takes the socket over
//!                     └─▶ a worker: the line of its manager
//! ```
//!
//! A session is one task, so nothing of it is shared, and nothing waits for the socket: what is to be written is bounded by the
//! windows of calls and tunnels, and by the places of subscriptions.

mod feeds;
mod session;
mod sessions;
mod socket;
mod worker;

use std::sync::Arc;

use axum::RequestPartsExt;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use edri_events::Encoding;
use edri_protocol::limits::FRAME_BYTES_MAX;
use edri_protocol::{Bye, Fault, Frame, Hello, Notice, Role, VERSION, Welcome, Window};

use crate::Caller;
use crate::ending::Ending;
use crate::gateway::Shared;
use crate::http::remote;
use crate::problem::Problem;
use session::Session;
pub(crate) use sessions::Sessions;
use sessions::{Asked, Place};
use socket::{Broken, Came, Socket};
pub(crate) use worker::Workers;

/// The subprotocols, and how their frames are written.
const PROTOCOLS: [(&str, Encoding); 2] = [("edri.json", Encoding::Json), ("edri.msgpack", Encoding::MessagePack)];
/// How much of a socket is read at once: ten thousand that are idle have this too.
const READ_BYTES: usize = 4 << 10;
/// How much is written at once.
const WRITE_BYTES: usize = 32 << 10;
/// The close code of who breaks the rules.
const CLOSE_POLICY: u16 = 1008;
const CLOSE_TOO_LONG: u16 = 1009;
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_NORMAL: u16 = 1000;

/// Answers `GET /ws`.
pub(crate) async fn upgrade(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    match try_upgrade(&shared, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn try_upgrade(shared: &Arc<Shared>, request: Request) -> Result<Response<Body>, Problem> {
    let (mut head, body) = request.into_parts();
    drop(body);
    let upgrade = head.extract::<WebSocketUpgrade>().await.map_err(|_| {
        Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "here is a WebSocket: connect to it as `ws://`")
            .with_header(header::UPGRADE, header::HeaderValue::from_static("websocket"))
    })?;
    let encoding = encoding(&head.headers)?;
    // Who has a token in no header has it in its hello.
    let caller = shared.access.caller(&head)?;
    let place = shared.sessions.place().ok_or_else(|| {
        let most = shared.limits.websockets;
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", format!("{most} WebSockets are open already"))
            .with_header(header::RETRY_AFTER, header::HeaderValue::from_static("1"))
    })?;
    let serving = Arc::clone(shared);
    let remote = remote(&head);
    let limits = &shared.limits;
    Ok(upgrade
        .protocols(PROTOCOLS.map(|(name, _)| name))
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(WRITE_BYTES)
        .max_message_size(limits.frame_bytes)
        .max_frame_size(limits.frame_bytes)
        .on_upgrade(async move |socket| serve(serving, Socket::new(socket, encoding, remote), caller, place).await))
}

/// How the client wants its frames; JSON when it does not say.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut names =
        offered.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).peekable();
    if names.peek().is_none() {
        return Ok(Encoding::Json);
    }
    let known = |name: &str| PROTOCOLS.iter().find(|(known, _)| *known == name.trim()).map(|(_, encoding)| *encoding);
    names.find_map(known).ok_or_else(|| {
        let detail = "no subprotocol that is offered is spoken here: offer `edri.json` or `edri.msgpack`";
        Problem::new(StatusCode::BAD_REQUEST, "unsupported_protocol", detail)
    })
}

/// Hears the hello, then serves the client in a session of its own or hands it to the one that it goes on with.
///
/// What is rare, or soon over, is in a box: a client that only listens takes no more than its session does.
async fn serve(shared: Arc<Shared>, mut socket: Socket, caller: Caller, place: Place) {
    let limit = shared.limits.hello_time;
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(limit, hello(&shared, &mut socket, caller)) => greeted.unwrap_or_else(|_| Err(refused("timed_out", "no `hello` came in time"))),
        () = shared.sessions.stopping() => Err(refused("stopping", "the node stops")),
    };
    let (caller, asked) = match greeted {
        Ok(Greeted::Client(caller, asked)) => (caller, asked),
        Ok(Greeted::Worker(welcomed)) => {
            drop(place);
            return Box::pin(worker::run(shared, socket, welcomed)).await;
        }
        Err(Some(notice)) => return Box::pin(refuse(socket, notice)).await,
        Err(None) => return,
    };
    let ending = Ending::of(&shared, &caller).await;
    let session = match asked {
        Some(asked) => match Box::pin(shared.sessions.resume(&caller, ending, asked, socket)).await {
            Ok(()) => return,
            Err((back, ending)) => Session::kept(&shared, back, caller, ending, place),
        },
        None => Ok(Session::single(&shared, socket, caller, ending, place)),
    };
    match session {
        Ok(session) => session.run().await,
        Err(error) => tracing::error!(%error, "no session can be named"),
    }
}

fn refused(code: &'static str, message: &str) -> Option<Notice<'static>> {
    let message = message.to_owned().into();
    Some(Notice { code: code.into(), message, frame: Some("hello".into()), id: None })
}

/// Who has come.
enum Greeted {
    /// A client, and the session that it wants.
    Client(Caller, Option<Asked>),
    Worker(worker::Welcomed),
}

/// Who it is, and as what it comes. `None` when there is nobody to be told what is wrong.
async fn hello(shared: &Arc<Shared>, socket: &mut Socket, caller: Caller) -> Result<Greeted, Option<Notice<'static>>> {
    let frame = loop {
        match socket.next().await {
            Ok(Came::Frame(frame)) => break frame,
            Ok(Came::Sign) => {}
            Ok(Came::WrongType) => return Err(refused("malformed_frame", WRONG_TYPE)),
            Err(Broken::TooLong) => return Err(refused("frame_too_long", "the frame is too long")),
            Err(Broken::Gone) => return Err(None),
        }
    };
    let hello = match Frame::decode(&frame) {
        Ok(Frame::Hello(hello)) => hello,
        Ok(other) => return Err(refused("out_of_order", &format!("`hello` comes first, not `{}`", other.name()))),
        Err(error) => return Err(refused(error.code(), &error.to_string())),
    };
    let Hello { version, role, token, session, .. } = &hello;
    if *version != VERSION {
        return Err(refused("unsupported_version", &format!("version {VERSION} is spoken here")));
    }
    let caller = match token {
        Some(token) => shared.access.caller_by_token(token).map_err(|problem| {
            let (code, message) = (problem.code().to_owned(), problem.detail().to_owned());
            Some(Notice { code: code.into(), message: message.into(), frame: Some("hello".into()), id: None })
        })?,
        None => caller,
    };
    if *role == Role::Worker {
        return worker::enter(shared, socket, &caller, hello).map(Greeted::Worker).map_err(Some);
    }
    let asked = session.as_ref();
    let asked = asked.map(|asked| Asked { id: asked.id.as_deref().map(str::to_owned), received: asked.received });
    Ok(Greeted::Client(caller, asked))
}

const WRONG_TYPE: &str = "`edri.json` has text messages, `edri.msgpack` binary ones";

/// Tells a client that has no session what is wrong, and that this is the end.
async fn refuse(mut socket: Socket, notice: Notice<'static>) {
    let fault = Fault { code: notice.code.clone(), message: notice.message.clone(), ..Fault::default() };
    let encoding = socket.encoding();
    for frame in [Frame::Error(notice), Frame::Bye(Bye { error: Some(fault) })] {
        socket.send_aside(encoded(&frame, encoding));
    }
    close(socket, CLOSE_POLICY).await;
}

/// Closes a socket, which may take a moment and no longer.
async fn close(socket: Socket, code: u16) {
    let _ = tokio::time::timeout(session::CLOSE_TIME, socket.close(code, "")).await;
}

/// A frame that is short and can be written.
fn encoded(frame: &Frame<'_>, encoding: Encoding) -> Bytes {
    let mut bytes = Vec::new();
    if let Err(error) = frame.encode(encoding, FRAME_BYTES_MAX, &mut bytes) {
        tracing::error!(frame = frame.name(), %error, "a frame was not sent");
    }
    bytes.into()
}

/// The answer to a client's hello.
fn welcome(shared: &Shared, session: Option<edri_protocol::Session<'_>>, encoding: Encoding) -> Bytes {
    let bus = shared.router.bus();
    let address = bus.address();
    let incarnation = address.incarnation.to_string();
    let limits = &shared.limits;
    let frame = Frame::Welcome(Welcome {
        version: VERSION,
        node: address.node.as_str().into(),
        incarnation: incarnation.as_str().into(),
        manager: None,
        instance: 0,
        silence_ms: limits.silence.as_millis() as u64,
        frame_bytes_max: limits.frame_bytes as u64,
        window: Window { calls: limits.calls, ..Window::default() },
        arguments: None,
        session,
    });
    encoded(&frame, encoding)
}
