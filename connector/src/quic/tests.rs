//! Over real sockets on loopback. Every wait ends with a failure after [`LIMIT`].

mod lanes;
mod relay;
mod trust;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use edri_events::NodeName;
use futures_util::StreamExt;

use super::*;
use crate::keys::{Authority, Identity, NODE_VALIDITY, Reloading};

const LIMIT: Duration = Duration::from_secs(20);
const ANYWHERE: &str = "127.0.0.1:0";

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it takes too long")
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn issue(authority: &Authority, name: &str) -> Identity {
    authority.issue(&node(name), NODE_VALIDITY).unwrap()
}

fn bind(identity: impl Into<Reloading>) -> Endpoint {
    Endpoint::bind(ANYWHERE.parse().unwrap(), identity, Options::default()).unwrap()
}

/// Two nodes of one cluster, `a` that dials and `b` that accepts.
struct Nodes {
    a: Endpoint,
    b: Endpoint,
}

impl Nodes {
    fn new() -> Self {
        let authority = Authority::generate().unwrap();
        Self { a: bind(issue(&authority, "a")), b: bind(issue(&authority, "b")) }
    }

    async fn connect(&self) -> (Connection, Connection) {
        self.connect_by(self.b.local_addr()).await
    }

    async fn connect_by(&self, address: SocketAddr) -> (Connection, Connection) {
        let (dialled, accepted) = within(async { tokio::join!(self.a.dial(address), self.b.accept()) }).await;
        (dialled.unwrap(), accepted.unwrap().unwrap())
    }
}

/// The next frames in some lanes until there are `count`.
async fn take(receiver: &mut Receiver, count: usize) -> Vec<(StreamLane, Bytes)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let Received { lane, frames } = within(receiver.next()).await.expect("the connection lives");
        assert!(!frames.is_empty());
        taken.extend(frames.into_iter().map(|frame| (lane, frame)));
    }
    assert_eq!(taken.len(), count, "no more than was sent");
    taken
}
