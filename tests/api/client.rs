//! A plain HTTP client.

use std::net::SocketAddr;

use bytes::Bytes;
use edri::Node;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::within;

/// An answer, all of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

pub(crate) fn address(node: &Node) -> SocketAddr {
    node.api_address().expect("the node has a gateway")
}

/// Sends one request over a connection of its own: `method path`, headers, body.
pub(crate) async fn ask(node: &Node, line: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let address = address(node);
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let mut request = Request::builder().method(method).uri(path).header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("a request");
    within(line, async {
        let stream = TcpStream::connect(address).await.expect("connects");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("shakes hands");
        // Ends with the client, as a process would.
        let mut driving = tokio::task::JoinSet::new();
        driving.spawn(connection);
        let response: Response<_> = sender.send_request(request).await.expect("is answered");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("comes whole").to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    })
    .await
}

/// As [`ask`] with GET and nothing else.
pub(crate) async fn get(node: &Node, path: &str) -> Answer {
    ask(node, &format!("GET {path}"), &[], "").await
}
