//! Keeping links: dialling, accepting, saying hello.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edri_events::Incarnation;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::driver::{Admission, FromLink, Views};
use crate::quic::{CloseCode, Closed, Connection, Endpoint, Received, Receiver, StreamLane};

/// How long a neighbour may take to say hello, and this node to let it in.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// What may come in other lanes before the hello.
const EARLY_MAX: usize = 1024;

/// The first thing in the control lane, from either side.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    /// The version of the protocol.
    version: u32,
    /// The life of the node, as a number.
    incarnation: u64,
    /// The program and its version, for people.
    #[serde(default)]
    agent: String,
}

/// What every link of a node needs.
pub(crate) struct Here {
    pub(crate) incarnation: Incarnation,
    pub(crate) to_driver: mpsc::Sender<FromLink>,
    pub(crate) views: Arc<Views>,
    pub(crate) pauses: Pauses,
}

/// Between one failure to reach a neighbour and the next: the first pause, doubled after each, and the longest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

/// Takes whoever comes.
pub(crate) async fn accept(endpoint: Endpoint, here: Arc<Here>) {
    // Ends with this task: a node that was dropped must not look alive to its neighbours.
    let mut links = JoinSet::new();
    while let Some(accepted) = endpoint.accept().await {
        while links.try_join_next().is_some() {}
        match accepted {
            Ok(connection) => {
                let here = Arc::clone(&here);
                links.spawn(async move {
                    let peer = connection.peer().clone();
                    let over = run(&connection, &here, || {}).await;
                    tracing::debug!(%peer, why = over.text, "an accepted link has ended");
                });
            }
            Err(error) => tracing::warn!(%error, "a neighbour was turned away"),
        }
    }
}

/// Keeps a link to whoever is at `address`, for ever. `tried` is told once it was tried: the neighbour has come, or is
/// absent.
pub(crate) async fn keep(endpoint: Endpoint, address: String, here: Arc<Here>, tried: mpsc::Sender<Tried>) {
    let mut pause = here.pauses.first;
    while here.views.presence.borrow().expelled.is_none() {
        let outcome = match dial(&endpoint, &address).await {
            Err(error) => Err(error),
            Ok(connection) => {
                let peer = connection.peer().clone();
                let _ = tried.send(Tried::Reached(address.clone(), peer.clone())).await;
                let why = run(&connection, &here, || here.views.dialled(&address, None)).await;
                // If both have dialled, one connection stays; as long as it does this one is not needed.
                let mut presence = here.views.presence.subscribe();
                let _ = presence.wait_for(|presence| !presence.neighbours.contains_key(&peer)).await;
                Ok(why)
            }
        };
        match outcome {
            Ok(why) if why.lasted => pause = here.pauses.first,
            Ok(why) => {
                here.views.dialled(&address, Some(&why.text));
                tracing::warn!(address, why = why.text, "no link");
            }
            Err(error) => {
                here.views.dialled(&address, Some(&error));
                if pause == here.pauses.first {
                    tracing::warn!(address, error, "the neighbour is not reached; it is tried again and again");
                }
                let _ = tried.send(Tried::Absent(address.clone())).await;
            }
        }
        // Jittered, so that nodes that lost the same neighbour do not come back all at once.
        let jitter = 0.5 + f64::from(fastrand::u32(0..1000)) / 2000.0;
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(here.pauses.longest);
    }
}

/// What came of the first try at an address.
#[derive(Debug)]
pub(crate) enum Tried {
    /// Somebody is there.
    Reached(String, edri_events::NodeName),
    /// Nobody is.
    Absent(String),
}

async fn dial(endpoint: &Endpoint, address: &str) -> Result<Connection, String> {
    let addresses = tokio::net::lookup_host(address).await.map_err(|error| format!("`{address}`: {error}"))?;
    let mut last = format!("`{address}` is no address of anybody");
    for address in addresses {
        match endpoint.dial(address).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// How a link ended.
#[derive(Debug)]
struct Over {
    text: String,
    /// It had been up, and neither side refused the other.
    lasted: bool,
}

/// Has a neighbour let in, and waits for the end of its link.
async fn run(connection: &Connection, here: &Here, welcomed: impl FnOnce()) -> Over {
    if let Err(text) = welcome(connection, here).await {
        return Over { text, lasted: false };
    }
    welcomed();
    let closed = connection.closed().await;
    Over { text: closed.to_string(), lasted: !is_refusal(&closed) }
}

/// Whether one of the two did not want the other. The neighbour may say so only after this node has let it in, and it will
/// say so again: it is to be asked less and less often.
fn is_refusal(closed: &Closed) -> bool {
    use CloseCode::{DuplicateNode, Overloaded, ProtocolError, Refused};
    match closed {
        Closed::Here { code, .. } | Closed::Neighbour { code, .. } => {
            matches!(code, DuplicateNode | Overloaded | ProtocolError | Refused)
        }
        _ => false,
    }
}

/// Says hello and hears it, and asks the driver to let the neighbour in.
async fn welcome(connection: &Connection, here: &Here) -> Result<(), String> {
    let (mut sender, mut receiver) = connection.lanes();
    let hello = Hello {
        version: edri_protocol::VERSION,
        incarnation: here.incarnation.get(),
        agent: concat!("edri ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let hello = rmp_serde::to_vec_named(&hello).map_err(|error| error.to_string())?;
    sender.send(StreamLane::Control, hello.into());
    let heard = tokio::time::timeout(HELLO_TIMEOUT, hear(&mut receiver)).await;
    let (hello, early) = match heard {
        Ok(Ok(heard)) => heard,
        Ok(Err(why)) => {
            let ended = connection.closed_because().map(|closed| closed.to_string());
            connection.close(CloseCode::ProtocolError, &why);
            return Err(ended.unwrap_or(why));
        }
        Err(_) => {
            connection.close(CloseCode::ProtocolError, "no hello in time");
            return Err("the neighbour said no hello in time".to_owned());
        }
    };
    let Some(incarnation) =
        Incarnation::from_number(hello.incarnation).filter(|_| hello.version == edri_protocol::VERSION)
    else {
        let why =
            format!("version {} of the protocol is not spoken here, only {}", hello.version, edri_protocol::VERSION);
        connection.close(CloseCode::Refused, &why);
        return Err(why);
    };
    let (answer, answered) = oneshot::channel();
    let peer = connection.peer().clone();
    let admission = Admission { peer, incarnation, dialled: connection.dialled(), answer };
    let gone = || "the node is ending".to_owned();
    here.to_driver.send(FromLink::Admit(admission)).await.map_err(|_| gone())?;
    match answered.await.map_err(|_| gone())? {
        Ok(link) => {
            let up = FromLink::Up { link, connection: connection.clone(), sender, receiver, early, incarnation };
            here.to_driver.send(up).await.map_err(|_| gone())
        }
        Err((code, why)) => {
            connection.close(code, &why);
            Err(why)
        }
    }
}

/// The neighbour's hello, and what came before it in other lanes or right behind it.
async fn hear(receiver: &mut Receiver) -> Result<(Hello, Vec<Received>), String> {
    let mut early = Vec::new();
    loop {
        let Some(mut received) = receiver.next().await else {
            return Err("the neighbour has gone without a hello".to_owned());
        };
        if received.lane != StreamLane::Control {
            early.push(received);
            if early.len() > EARLY_MAX {
                return Err("too much came before a hello".to_owned());
            }
            continue;
        }
        let first: Bytes = received.frames.remove(0);
        let hello = rmp_serde::from_slice(&first).map_err(|error| format!("this is no hello: {error}"))?;
        if !received.frames.is_empty() {
            early.insert(0, received);
        }
        return Ok((hello, early));
    }
}
