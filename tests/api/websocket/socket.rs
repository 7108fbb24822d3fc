//! A bare client: a WebSocket, and frames as JSON values.

use std::net::SocketAddr;

use edri::Node;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::super::client::address;
use crate::support::within;

pub(crate) struct Socket {
    pub(crate) socket: WebSocketStream<TcpStream>,
    /// The frames of a session that have come: all but acks of it.
    pub(crate) received: u64,
}

/// What came instead of a frame.
#[derive(Debug)]
pub(crate) enum Ended {
    Closed(Option<CloseFrame>),
    Broken(#[expect(dead_code, reason = "shown when a test fails")] Error),
}

impl Socket {
    /// Connects with a subprotocol, or none, and says nothing.
    pub(crate) async fn open(address: SocketAddr, protocol: Option<&str>) -> Result<Self, Error> {
        let mut request = format!("ws://{address}/ws").into_client_request()?;
        if let Some(protocol) = protocol {
            request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a header"));
        }
        let stream = within("a connection", TcpStream::connect(address)).await.map_err(Error::Io)?;
        let (socket, _) = within("the handshake", tokio_tungstenite::client_async(request, stream)).await?;
        Ok(Self { socket, received: 0 })
    }

    /// Connects and says hello; the welcome comes back with it.
    pub(crate) async fn greet(address: SocketAddr, hello: Value) -> (Self, Value) {
        let mut socket = Self::open(address, Some("edri.json")).await.expect("connects");
        socket.send(json!({"hello": hello})).await;
        let welcome = socket.next().await;
        assert!(welcome["welcome"].is_object(), "{welcome}");
        socket.received = 0;
        (socket, welcome["welcome"].clone())
    }

    pub(crate) async fn to(node: &Node) -> Self {
        Self::greet(address(node), json!({"version": 1, "role": "client"})).await.0
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.text(frame.to_string()).await;
    }

    pub(crate) async fn text(&mut self, text: String) {
        within("a frame to be sent", self.socket.send(Message::text(text))).await.expect("sent");
    }

    /// The next frame but acks of the session.
    pub(crate) async fn next(&mut self) -> Value {
        match self.try_next().await {
            Ok(frame) => frame,
            Err(ended) => panic!("{ended:?}"),
        }
    }

    pub(crate) async fn try_next(&mut self) -> Result<Value, Ended> {
        loop {
            let message = match within("a frame", self.socket.next()).await {
                None => return Err(Ended::Closed(None)),
                Some(Err(error)) => return Err(Ended::Broken(error)),
                Some(Ok(Message::Close(close))) => return Err(Ended::Closed(close)),
                Some(Ok(message)) => message,
            };
            let frame: Value = match message {
                Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
                Message::Binary(bytes) => rmp_serde::from_slice(&bytes).expect("MessagePack"),
                _ => continue,
            };
            if frame["ack"]["received"].is_null() {
                self.received += 1;
                return Ok(frame);
            }
        }
    }

    /// The `response` of this number; nothing else may come before it.
    pub(crate) async fn response(&mut self, id: u64) -> Value {
        let frame = self.next().await;
        assert_eq!(frame["response"]["id"], id, "{frame}");
        frame["response"].clone()
    }

    /// Sends a call and takes its response.
    pub(crate) async fn ask(&mut self, id: u64, event: &str, payload: Value) -> Value {
        self.send(json!({"request": {"id": id, "event": event, "payload": payload}})).await;
        self.response(id).await
    }

    /// Subscribes.
    pub(crate) async fn subscribe(&mut self, frame: Value) {
        let id = frame["id"].as_u64().expect("a number");
        self.send(json!({"subscribe": frame})).await;
        let response = self.response(id).await;
        assert!(response["error"].is_null(), "{response}");
    }
}
