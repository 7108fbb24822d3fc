use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use edri_events::NodeName;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use super::close::cut;
use super::{CloseCode, Closed, Receiver, Sender};
use crate::keys::node_name;

/// A connection to a neighbour that has shown who it is. Clones are of the same connection; it is closed with
/// [`CloseCode::Bye`] when the last of them, the [`Sender`] or the [`Receiver`] is dropped.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    quinn: quinn::Connection,
    peer: NodeName,
    dialled: bool,
    /// Taken by `lanes`.
    begun: Mutex<Option<Begun>>,
    closed_here: Mutex<Option<(CloseCode, String)>>,
    /// How its endpoint was closed, and all connections with it.
    endpoint_closed: Arc<OnceLock<(CloseCode, String)>>,
}

/// What was opened before the lanes were asked for.
#[derive(Default)]
pub(super) struct Begun {
    /// Our lane of control, with its head written.
    pub(super) control: Option<quinn::SendStream>,
    /// The neighbour's first stream.
    pub(super) first: Option<quinn::RecvStream>,
}

/// What a connection has measured and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The time to the neighbour and back, smoothed.
    pub rtt: Duration,
    /// Bytes of datagrams sent.
    pub sent_bytes: u64,
    /// Datagrams sent.
    pub sent_datagrams: u64,
    /// Bytes of datagrams received.
    pub received_bytes: u64,
    /// Datagrams received.
    pub received_datagrams: u64,
    /// QUIC packets that were lost, and whose content was sent again.
    pub lost_packets: u64,
    /// The bytes that congestion control lets be under way.
    pub congestion_window_bytes: u64,
    /// The longest datagram that the path is known to carry.
    pub datagram_bytes_max: u16,
}

impl Connection {
    /// A connection whose handshake is over. The error is why there is no name in the neighbour's certificate, which the
    /// handshake has ruled out.
    pub(super) fn new(
        quinn: quinn::Connection,
        dialled: bool,
        begun: Begun,
        endpoint_closed: Arc<OnceLock<(CloseCode, String)>>,
    ) -> Result<Self, Closed> {
        let chain = quinn.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let certificate = chain.as_ref().and_then(|chain| chain.first());
        let certificate = certificate.ok_or_else(|| Closed::Distrust("the neighbour has no certificate".to_owned()))?;
        let peer = node_name(certificate).map_err(|error| Closed::Distrust(error.to_string()))?;
        let (begun, closed_here) = (Mutex::new(Some(begun)), Mutex::new(None));
        Ok(Self(Arc::new(Shared { quinn, peer, dialled, begun, closed_here, endpoint_closed })))
    }

    pub(super) fn quinn(&self) -> &quinn::Connection {
        &self.0.quinn
    }

    /// The neighbour's name, from its certificate.
    #[must_use]
    pub fn peer(&self) -> &NodeName {
        &self.0.peer
    }

    /// Whether this node dialled, rather than accepted.
    #[must_use]
    pub fn dialled(&self) -> bool {
        self.0.dialled
    }

    /// Where the neighbour is now; it may move.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.0.quinn.remote_address())
    }

    /// The time to the neighbour and back, smoothed.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.0.quinn.rtt()
    }

    /// What was measured and counted until now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let stats = self.0.quinn.stats();
        Stats {
            rtt: stats.path.rtt,
            sent_bytes: stats.udp_tx.bytes,
            sent_datagrams: stats.udp_tx.datagrams,
            received_bytes: stats.udp_rx.bytes,
            received_datagrams: stats.udp_rx.datagrams,
            lost_packets: stats.path.lost_packets,
            congestion_window_bytes: stats.path.cwnd,
            datagram_bytes_max: stats.path.current_mtu,
        }
    }

    /// Both ends of the lanes, for those who send and who receive. Must be called within a tokio runtime.
    ///
    /// # Panics
    ///
    /// When it is called a second time: the lanes have one owner.
    #[must_use]
    pub fn lanes(&self) -> (Sender, Receiver) {
        let Begun { control, first } = self.0.begun.lock().take().expect("the lanes of a connection are taken once");
        (Sender::new(self.clone(), control), Receiver::new(self.clone(), first))
    }

    /// Closes the connection at once: the neighbour is told `code` and the first
    /// [`CLOSE_REASON_BYTES_MAX`](crate::limits::CLOSE_REASON_BYTES_MAX) bytes of `reason`, and what is under way may not
    /// arrive. Nothing happens if it was closed before.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let mut closed_here = self.0.closed_here.lock();
        if closed_here.is_none() && self.0.quinn.close_reason().is_none() {
            let reason = cut(reason);
            *closed_here = Some((code, reason.to_owned()));
            self.0.quinn.close(code.varint(), reason.as_bytes());
        }
    }

    /// How the connection ended; `None` while it lives.
    #[must_use]
    pub fn closed_because(&self) -> Option<Closed> {
        self.0.quinn.close_reason().map(|error| self.because(&error))
    }

    /// Waits until the connection has ended. May be dropped at any time.
    pub async fn closed(&self) -> Closed {
        let error = self.0.quinn.closed().await;
        self.because(&error)
    }

    fn because(&self, error: &quinn::ConnectionError) -> Closed {
        if let quinn::ConnectionError::LocallyClosed = error {
            let closed = self.0.closed_here.lock().clone();
            if let Some((code, reason)) = closed.or_else(|| self.0.endpoint_closed.get().cloned()) {
                return Closed::Here { code, reason };
            }
        }
        Closed::from_error(error)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peer, dialled, remote) = (self.peer(), self.dialled(), self.remote_address());
        f.debug_struct("Connection").field("peer", peer).field("dialled", &dialled).field("remote", &remote).finish()
    }
}

/// An address of IPv4 as such, also where a socket of both families has written it as one of IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
