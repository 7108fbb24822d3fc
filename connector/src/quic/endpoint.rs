use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use edri_events::NodeName;
use parking_lot::Mutex;
use quinn::{ConnectionError, EndpointConfig, Incoming};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::close::cut;
use super::connection::{Begun, canonical};
use super::tls::{NO_NAME, Tls};
use super::{CloseCode, Closed, Connection, Options, StreamLane};
use crate::keys::{KeysError, Reloading};
use crate::limits::{HANDSHAKES_MAX, HANDSHAKES_UNPROVEN_MAX};
use crate::strand::Strands;

/// What QUIC asks of every path, and the most that UDP can do.
const DATAGRAM_BYTES: RangeInclusive<u16> = 1200..=65_527;

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// There is no socket at the address.
    #[error("no links at {address}: {source}")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The identity is of no use.
    #[error(transparent)]
    Identity(#[from] KeysError),
    /// It was called outside a tokio runtime.
    #[error("links need a tokio runtime, and there is none here")]
    NoRuntime,
}

/// Why dialling ended without a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address cannot be dialled at all.
    #[error("{address} cannot be dialled: {reason}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answered in time, or not to the end.
    #[error("no answer from {address}")]
    NoAnswer {
        /// The address.
        address: SocketAddr,
    },
    /// The handshake failed, or the neighbour closed at once.
    #[error("no connection to {address}: {closed}")]
    Closed {
        /// The address.
        address: SocketAddr,
        /// How it ended.
        closed: Closed,
    },
    /// The identity that was reloaded is of no use.
    #[error(transparent)]
    Identity(#[from] KeysError),
}

/// Why somebody who dialled this node has no connection to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("no connection from {address}: {closed}")]
pub struct AcceptError {
    /// Where it came from.
    pub address: SocketAddr,
    /// How it ended.
    pub closed: Closed,
}

/// A UDP socket with an identity, which dials neighbours and accepts them. Clones share it; its connections outlive it.
#[derive(Debug, Clone)]
pub struct Endpoint(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    quinn: quinn::Endpoint,
    local: SocketAddr,
    current: Arc<Current>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Result<Connection, AcceptError>>>,
    tasks: [AbortHandle; 2],
}

impl Endpoint {
    /// Binds a socket and begins to accept. An [`Identity`](crate::keys::Identity) stays as it is, a [`Reloading`] is
    /// watched for changes.
    ///
    /// # Errors
    ///
    /// [`BindError`]: the address is taken or not ours, the identity is of no use, or there is no tokio runtime here.
    pub fn bind(address: SocketAddr, identity: impl Into<Reloading>, options: Options) -> Result<Self, BindError> {
        let runtime = Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        let current = Arc::new(Current::new(identity.into(), options)?);
        let failed = |source| BindError::Socket { address, source };
        let socket = socket(address, current.options.socket_bytes).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        let mut config = EndpointConfig::default();
        let datagram_bytes_max =
            current.options.datagram_bytes_max.clamp(*DATAGRAM_BYTES.start(), *DATAGRAM_BYTES.end());
        config.max_udp_payload_size(datagram_bytes_max).expect("it is within the bounds of QUIC");
        // Each handshake is given its own; this one says what comes before.
        let accepting = (*current.tls()?.accepting).clone();
        let _inside = runtime.enter();
        let strands = Arc::new(Strands(runtime.clone()));
        let quinn = quinn::Endpoint::new(config, Some(accepting), socket, strands).map_err(failed)?;
        let (accepts, accepted) = mpsc::channel(HANDSHAKES_MAX);
        let accepting = runtime.spawn(accept_all(quinn.clone(), Arc::clone(&current), accepts)).abort_handle();
        let watched = Arc::clone(&current);
        let watching = runtime.spawn(async move { watched.identity.watch(watched.options.reload_every).await });
        let (accepted, tasks) = (tokio::sync::Mutex::new(accepted), [accepting, watching.abort_handle()]);
        Ok(Self(Arc::new(Shared { quinn, local, current, accepted, tasks })))
    }

    /// Where the socket is bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// The name of this node, from its identity.
    #[must_use]
    pub fn node(&self) -> NodeName {
        self.identity().current().node().clone()
    }

    /// The identity that handshakes begin with.
    #[must_use]
    pub fn identity(&self) -> &Reloading {
        &self.0.current.identity
    }

    /// Connects to the neighbour at `address`, and returns when it has accepted this node's identity and this node its.
    /// Dropped before, it leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`DialError`], within [`Options::connect_timeout`].
    pub async fn dial(&self, address: SocketAddr) -> Result<Connection, DialError> {
        let tls = self.0.current.tls()?;
        let unfit = |reason: quinn::ConnectError| DialError::Address { address, reason: reason.to_string() };
        let connecting = self.0.quinn.connect_with(tls.dialling.clone(), address, NO_NAME).map_err(unfit)?;
        let dialled = timeout(self.0.current.options.connect_timeout, async {
            let quinn = connecting.await?;
            // The handshake is over for us, and not for the neighbour, who may still refuse our certificate. Its first
            // stream says that it has not.
            let first = Some(quinn.accept_uni().await?);
            Ok((quinn, Begun { first, control: None }))
        });
        match dialled.await {
            Err(_) | Ok(Err(ConnectionError::TimedOut)) => Err(DialError::NoAnswer { address }),
            Ok(Err(error)) => Err(DialError::Closed { address, closed: Closed::from_error(&error) }),
            Ok(Ok((quinn, begun))) => {
                let closed = Arc::clone(&self.0.current.closed);
                Connection::new(quinn, true, begun, closed).map_err(|closed| DialError::Closed { address, closed })
            }
        }
    }

    /// The next neighbour that has dialled this node, or why one that tried has failed. `None` when the endpoint is
    /// closed. Handshakes go on whether this is called or not, [`HANDSHAKES_MAX`] at most. May be dropped at any time.
    pub async fn accept(&self) -> Option<Result<Connection, AcceptError>> {
        self.0.accepted.lock().await.recv().await
    }

    /// Closes all connections, as [`Connection::close`] does, and accepts and dials no more.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let reason = cut(reason);
        let (code, reason) = self.0.current.closed.get_or_init(|| (code, reason.to_owned()));
        self.0.quinn.close(code.varint(), reason.as_bytes());
    }

    /// Waits until every closed connection has told its neighbour. May be dropped at any time.
    pub async fn wait_idle(&self) {
        self.0.quinn.wait_idle().await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The identity, and what handshakes need of it.
#[derive(Debug)]
struct Current {
    identity: Reloading,
    options: Options,
    // Held to look at it, and to make it anew when the identity is another one.
    tls: Mutex<Arc<Tls>>,
    /// Set when the endpoint is closed.
    closed: Arc<OnceLock<(CloseCode, String)>>,
}

impl Current {
    fn new(identity: Reloading, options: Options) -> Result<Self, KeysError> {
        let tls = Mutex::new(Arc::new(Tls::new(identity.current(), &options)?));
        Ok(Self { identity, options, tls, closed: Arc::default() })
    }

    fn tls(&self) -> Result<Arc<Tls>, KeysError> {
        let identity = self.identity.current();
        let mut tls = self.tls.lock();
        if !Arc::ptr_eq(&tls.identity, &identity) {
            *tls = Arc::new(Tls::new(identity, &self.options)?);
        }
        Ok(Arc::clone(&tls))
    }
}

fn socket(address: SocketAddr, bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One socket for both families, where the system can do that.
        let _ = socket.set_only_v6(false);
    }
    // The system gives what it allows.
    let _ = socket.set_recv_buffer_size(bytes);
    let _ = socket.set_send_buffer_size(bytes);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Lets everybody who comes through the handshake, each in a task of its own, so that nobody waits for the slowest.
async fn accept_all(
    quinn: quinn::Endpoint,
    current: Arc<Current>,
    accepts: mpsc::Sender<Result<Connection, AcceptError>>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = quinn.accept().await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let under_way = HANDSHAKES_MAX - places.available_permits();
        if under_way > HANDSHAKES_UNPROVEN_MAX && !incoming.remote_address_validated() && incoming.may_retry() {
            incoming.retry().expect("it was asked whether it may");
            continue;
        }
        let (current, accepts) = (Arc::clone(&current), accepts.clone());
        tokio::spawn(async move {
            let accepted = accept(incoming, &current).await;
            // Whoever accepts is gone when the endpoint is.
            let _ = accepts.send(accepted).await;
            drop(place);
        });
    }
}

async fn accept(incoming: Incoming, current: &Current) -> Result<Connection, AcceptError> {
    let address = canonical(incoming.remote_address());
    let failed = |closed| AcceptError { address, closed };
    let tls = current.tls().map_err(|error| failed(Closed::Distrust(error.to_string())))?;
    let handshake = async {
        let quinn = incoming.accept_with(Arc::clone(&tls.accepting))?.await?;
        let mut control = quinn.open_uni().await?;
        // Fails only if the connection ends, of which its user hears.
        let _ = control.write_chunk(StreamLane::Control.head()).await;
        Ok((quinn, Begun { control: Some(control), first: None }))
    };
    match timeout(current.options.connect_timeout, handshake).await {
        Err(_) => Err(failed(Closed::Silent)),
        Ok(Err(error)) => Err(failed(Closed::from_error(&error))),
        Ok(Ok((quinn, begun))) => Connection::new(quinn, false, begun, Arc::clone(&current.closed)).map_err(failed),
    }
}
