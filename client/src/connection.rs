//! One connection: hello and welcome, and the frames of a session as long as it lasts.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use edri_events::Encoding;
use edri_protocol::limits::FRAME_BYTES_MAX;
use edri_protocol::resume::{Received, Sent};
use edri_protocol::{Ack, Bye, Frame, Hello, Missed, PREFIX_BYTES, Ping, Pong, Resume, Role, VERSION, Window};
use edri_workers::wire::{Peer, Up};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::ClientError;
use crate::link::Link;
use crate::stream::Stream;
use crate::target::Target;

/// How long the node may take for a connection, the handshake and its welcome.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// How often it is looked whether there is something to acknowledge or the node is silent.
const LOOK: Duration = Duration::from_millis(200);
/// The node is told what has come after so many frames, or with the next look.
const ACK_FRAMES: u64 = 64;

pub(crate) type Socket = WebSocketStream<Stream>;

/// What the node said of itself.
pub(crate) struct Greeted {
    pub(crate) socket: Socket,
    pub(crate) node: String,
    pub(crate) incarnation: String,
    pub(crate) silence: Duration,
    pub(crate) window: Window,
    pub(crate) frame_bytes_max: usize,
    pub(crate) session: String,
    pub(crate) keep: Duration,
    pub(crate) resumed: bool,
    /// How many frames the node has received.
    pub(crate) received: u64,
}

/// A session as the client has it.
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) keep: Duration,
    pub(crate) sent: Sent,
    pub(crate) received: Received,
    pub(crate) up: Arc<Up>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It broke: the session may go on.
    Broken,
    /// The node has ended the session.
    Over,
    /// The client is done.
    Closed,
}

/// Connects and says hello; goes on with a session if one is named.
pub(crate) async fn greet(target: &Target, resume: Option<(&str, u64)>) -> Result<Greeted, ClientError> {
    match tokio::time::timeout(WELCOME_TIME, try_greet(target, resume)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(ClientError::Unreachable(format!("`{}` does not answer in time", target.url))),
    }
}

async fn try_greet(target: &Target, resume: Option<(&str, u64)>) -> Result<Greeted, ClientError> {
    let unreachable = |error: &dyn std::fmt::Display| ClientError::Unreachable(format!("`{}`: {error}", target.url));
    let mut request = target.url.as_str().into_client_request().map_err(|error| ClientError::Url(error.to_string()))?;
    let headers = request.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("edri.msgpack"));
    if let Some(token) = &target.token {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        headers.insert(
            header::AUTHORIZATION,
            value.map_err(|_| ClientError::Refused {
                code: "unauthorized".to_owned(),
                message: "the token cannot stand in a header".to_owned(),
            })?,
        );
    }
    let stream = target.connect().await?;
    let (mut socket, _) = match tokio_tungstenite::client_async(request, stream).await {
        Ok(connected) => connected,
        Err(Error::Http(response)) => {
            let status = response.status();
            let body = response.into_body().unwrap_or_default();
            let message = format!("{status}: {}", String::from_utf8_lossy(&body));
            let code = if status == 401 { "unauthorized" } else { "refused" };
            return Err(ClientError::Refused { code: code.to_owned(), message });
        }
        Err(error) => return Err(unreachable(&error)),
    };
    let session = resume.map_or_else(Resume::default, |(id, received)| Resume { id: Some(id.into()), received });
    let hello = Frame::Hello(Hello {
        version: VERSION,
        role: Role::Client,
        agent: concat!("edri-client ", env!("CARGO_PKG_VERSION")).into(),
        events: Vec::new(),
        handlers: Vec::new(),
        window: Window::default(),
        concurrency: 0,
        manager: None,
        token: None,
        session: Some(session),
    });
    let mut bytes = Vec::new();
    hello.encode(Encoding::MessagePack, FRAME_BYTES_MAX, &mut bytes).map_err(|error| unreachable(&error))?;
    socket.send(Message::binary(bytes)).await.map_err(|error| unreachable(&error))?;
    let frame = loop {
        match socket.next().await {
            Some(Ok(Message::Binary(frame))) => break frame,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Err(error)) => return Err(unreachable(&error)),
            _ => return Err(unreachable(&"it closed the connection")),
        }
    };
    let welcome = match Frame::decode(&frame) {
        Ok(Frame::Welcome(welcome)) => welcome,
        Ok(Frame::Error(error)) => {
            let (code, message) = (error.code.into_owned(), error.message.into_owned());
            return Err(ClientError::Refused { code, message });
        }
        Ok(other) => return Err(unreachable(&format!("`{}` came instead of `welcome`", other.name()))),
        Err(error) => return Err(unreachable(&error)),
    };
    let Some(session) = welcome.session else { return Err(unreachable(&"it gives no sessions")) };
    Ok(Greeted {
        node: welcome.node.into_owned(),
        incarnation: welcome.incarnation.into_owned(),
        silence: Duration::from_millis(welcome.silence_ms.max(100)),
        window: welcome.window,
        frame_bytes_max: usize::try_from(welcome.frame_bytes_max).unwrap_or(usize::MAX),
        session: session.id.into_owned(),
        keep: Duration::from_millis(session.keep_ms),
        resumed: session.resumed,
        received: session.received,
        socket,
    })
}

/// Carries a session over a connection until that ends, or `close` says so.
pub(crate) async fn carry(
    socket: Socket,
    silence: Duration,
    session: &mut Session,
    link: &Link,
    mut close: tokio::sync::watch::Receiver<bool>,
) -> End {
    let now = Instant::now();
    let peer = Arc::clone(session.up.peer());
    let look = Box::pin(tokio::time::sleep_until(now + LOOK));
    let mut carrier =
        Carrier { socket, silence, session, link, peer, heard: now, pinged: false, unflushed: false, look };
    let end = tokio::select! {
        end = poll_fn(|cx| carrier.poll(cx)) => return end,
        _ = close.wait_for(|close| *close) => End::Closed,
    };
    carrier.peer.send_short(&Frame::Bye(Bye::default()));
    // What was sent before goes out, and the node answers with its own end.
    let _ = tokio::time::timeout(Duration::from_secs(2), poll_fn(|cx| carrier.poll(cx))).await;
    end
}

struct Carrier<'a> {
    socket: Socket,
    silence: Duration,
    session: &'a mut Session,
    link: &'a Link,
    peer: Arc<Peer>,
    heard: Instant,
    pinged: bool,
    unflushed: bool,
    look: std::pin::Pin<Box<Sleep>>,
}

impl Carrier<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            match self.socket.poll_next_unpin(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => {
                    self.heard = Instant::now();
                    self.pinged = false;
                    if let Message::Binary(frame) = message
                        && let Err(end) = self.frame(&frame)
                    {
                        return Poll::Ready(end);
                    }
                }
                Poll::Ready(_) => return Poll::Ready(End::Broken),
            }
        }
        while self.look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.look.as_mut().reset(now + LOOK);
            if now.duration_since(self.heard) >= self.silence {
                return Poll::Ready(End::Broken);
            }
            if now.duration_since(self.heard) >= self.silence / 3 && !std::mem::replace(&mut self.pinged, true) {
                // Without `poll_ready` it may wait in the socket, which is bounded: there is one.
                self.unflushed = true;
                if self.socket.start_send_unpin(Message::Ping(Bytes::new())).is_err() {
                    return Poll::Ready(End::Broken);
                }
            }
            if self.session.received.untold() > 0 && self.ack().is_err() {
                return Poll::Ready(End::Broken);
            }
        }
        match self.write(cx) {
            Poll::Ready(Err(())) => Poll::Ready(End::Broken),
            _ => Poll::Pending,
        }
    }

    fn ack(&mut self) -> Result<(), ()> {
        let ack = Frame::Ack(Ack { received: Some(self.session.received.tell()), ..Ack::default() });
        let mut bytes = Vec::new();
        ack.encode(Encoding::MessagePack, FRAME_BYTES_MAX, &mut bytes).map_err(|_| ())?;
        self.unflushed = true;
        self.socket.start_send_unpin(Message::binary(bytes)).map_err(|_| ())
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let _ = self.peer.poll_output(cx);
        let mut bytes = Vec::new();
        if self.peer.take_output(&mut bytes) {
            let mut bytes = Bytes::from(bytes);
            while let Some((length, _)) = bytes.split_first_chunk::<PREFIX_BYTES>() {
                let end = PREFIX_BYTES + u32::from_be_bytes(*length) as usize;
                let frame = bytes.split_to(end.min(bytes.len()));
                self.session.sent.push(frame.slice(PREFIX_BYTES..));
            }
        }
        if self.session.received.untold() >= ACK_FRAMES {
            self.ack()?;
        }
        loop {
            if std::task::ready!(self.socket.poll_ready_unpin(cx)).is_err() {
                return Poll::Ready(Err(()));
            }
            let Some(frame) = self.session.sent.next_unsent() else { break };
            self.unflushed = true;
            self.socket.start_send_unpin(Message::Binary(frame)).map_err(|_| ())?;
        }
        if self.unflushed {
            std::task::ready!(self.socket.poll_flush_unpin(cx)).map_err(|_| ())?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn frame(&mut self, bytes: &Bytes) -> Result<(), End> {
        let frame = Frame::decode(bytes);
        if let Ok(Frame::Ack(Ack { received: Some(received), .. })) = frame {
            return self.session.sent.acknowledge(received).map_err(|error| {
                tracing::warn!(%error, "the node cannot count");
                End::Over
            });
        }
        self.session.received.frame();
        let up = &self.session.up;
        match frame {
            Ok(Frame::Response(response)) => {
                if !self.link.feeds().response(&response) {
                    up.response(response, bytes);
                }
            }
            Ok(Frame::Publish(mut call)) => {
                if let Some(subscription) = call.subscription.take() {
                    self.link.feeds().event(subscription, call, bytes);
                }
            }
            Ok(Frame::Missed(Missed { id, count })) => self.link.feeds().missed(id, count),
            Ok(Frame::Data(data)) => self.peer.data(&data, bytes),
            Ok(Frame::Credit(credit)) => self.peer.credit(&credit),
            Ok(Frame::End(end)) => self.peer.end(&end),
            Ok(Frame::Abort(abort)) => self.peer.abort(&abort),
            Ok(Frame::Window(window)) => up.set_window(window),
            Ok(Frame::Ping(Ping { id })) => self.peer.send_short(&Frame::Pong(Pong { id })),
            Ok(Frame::Pong(_)) => {}
            Ok(Frame::Error(error)) => {
                tracing::warn!(code = %error.code, message = %error.message, frame = ?error.frame, "the node objects");
                if let Some(id) = error.id {
                    up.refused(id, &error.code, &error.message);
                }
            }
            Ok(Frame::Bye(Bye { error: Some(error) })) => {
                tracing::warn!(code = %error.code, message = %error.message, "the node ends the session");
                return Err(End::Over);
            }
            // It finishes what is open, and then closes.
            Ok(Frame::Bye(_)) => {}
            Ok(other) => tracing::debug!(frame = other.name(), "a frame that a client has no use for"),
            Err(error) => tracing::warn!(%error, "the node sent no frame"),
        }
        Ok(())
    }
}
