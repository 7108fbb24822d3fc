//! One WebSocket: frames in its messages.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use edri_events::Encoding;
use futures_util::{SinkExt, StreamExt};

/// What came.
#[derive(Debug)]
pub(super) enum Came {
    /// A frame, as its encoding says.
    Frame(Bytes),
    /// A message of the other type.
    WrongType,
    /// A sign of life.
    Sign,
}

/// Why nothing more comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// A message was too long to be read.
    TooLong,
    /// It is closed, or the network is gone.
    Gone,
}

pub(super) struct Socket {
    socket: WebSocket,
    encoding: Encoding,
    /// Where its client is.
    remote: IpAddr,
    /// What goes before all others and is not counted.
    aside: VecDeque<Message>,
    unflushed: bool,
}

impl Socket {
    pub(super) fn new(socket: WebSocket, encoding: Encoding, remote: IpAddr) -> Self {
        Self { socket, encoding, remote, aside: VecDeque::new(), unflushed: false }
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub(super) fn remote(&self) -> IpAddr {
        self.remote
    }

    /// Sends a frame before all others that are not written yet.
    pub(super) fn send_aside(&mut self, frame: Bytes) {
        let message = message(self.encoding, frame);
        self.aside.push_back(message);
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&mut self) {
        self.aside.push_back(Message::Ping(Bytes::new()));
    }

    /// The next message. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Came, Broken> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Came, Broken>> {
        Poll::Ready(match ready!(self.socket.poll_next_unpin(cx)) {
            Some(Ok(Message::Text(text))) if self.encoding == Encoding::Json => Ok(Came::Frame(text.into())),
            Some(Ok(Message::Binary(bytes))) if self.encoding == Encoding::MessagePack => Ok(Came::Frame(bytes)),
            Some(Ok(Message::Text(_) | Message::Binary(_))) => Ok(Came::WrongType),
            Some(Ok(Message::Ping(_))) => {
                // The answer is in the socket already.
                self.unflushed = true;
                Ok(Came::Sign)
            }
            Some(Ok(Message::Pong(_))) => Ok(Came::Sign),
            Some(Ok(Message::Close(_))) | None => Err(Broken::Gone),
            Some(Err(error)) => {
                tracing::debug!(%error, "a WebSocket broke");
                // axum does not tell kinds of errors apart in its type.
                Err(if is_too_long(&error) { Broken::TooLong } else { Broken::Gone })
            }
        })
    }

    /// Writes what goes aside and what `next` gives; ready once all of that is flushed.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<Bytes>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if ready!(self.socket.poll_ready_unpin(cx)).is_err() {
                return Poll::Ready(Err(Broken::Gone));
            }
            let encoding = self.encoding;
            let message = self.aside.pop_front().or_else(|| next().map(|frame| message(encoding, frame)));
            let Some(message) = message else { break };
            self.unflushed = true;
            if self.socket.start_send_unpin(message).is_err() {
                return Poll::Ready(Err(Broken::Gone));
            }
        }
        if self.unflushed {
            if ready!(self.socket.poll_flush_unpin(cx)).is_err() {
                return Poll::Ready(Err(Broken::Gone));
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what goes aside, then says that this is the end, and why.
    pub(super) async fn close(mut self, code: u16, reason: &'static str) {
        let reason = Utf8Bytes::from_static(reason);
        self.aside.push_back(Message::Close(Some(CloseFrame { code, reason })));
        let written = std::future::poll_fn(|cx| self.poll_write(cx, || None)).await;
        if written.is_ok() {
            // The other side answers, so that it does not take the end for a fault of the network.
            while self.next().await.is_ok() {}
        }
    }
}

fn message(encoding: Encoding, frame: Bytes) -> Message {
    match encoding {
        // What we have written is text.
        Encoding::Json => Utf8Bytes::try_from(frame).map_or_else(|_| Message::Text("{}".into()), Message::Text),
        Encoding::MessagePack => Message::Binary(frame),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.to_string().starts_with("Space limit exceeded") {
            return true;
        }
        source = error.source();
    }
    false
}
