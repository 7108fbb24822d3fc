use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::limits::STREAMS_MAX;

/// How an [`Endpoint`](super::Endpoint) and its links behave. The defaults suit loopback, a LAN and a good WAN.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// After so long without a word from a neighbour it is asked for one. Default 500 ms.
    pub keep_alive: Duration,
    /// A neighbour that is silent for so long has its connection ended. The time begins again with the first word that is
    /// sent to it since it last spoke; so a dead one is noticed after `keep_alive` and `idle_timeout` together. The smaller
    /// `idle_timeout` of the two neighbours counts. Default 2.5 s.
    pub idle_timeout: Duration,
    /// How long a handshake may take, dialled or accepted. Default 3 s.
    pub connect_timeout: Duration,
    /// The most bytes that a neighbour may send beyond those that were read here, in all lanes. Default 16 MiB.
    pub window_bytes: u32,
    /// The same for one lane. Default 8 MiB.
    pub lane_window_bytes: u32,
    /// The most bytes that were given to the transport and that the neighbour's transport has not acknowledged; what is
    /// beyond waits in the [`Backlog`](super::Backlog). Default 8 MiB.
    pub send_window_bytes: u32,
    /// The longest datagram that is tried on a path and taken from a neighbour, in bytes, at least 1,200. Default 1,452,
    /// which all but few paths carry. More suits a LAN of long frames; on loopback it does harm: the system's buffers lose
    /// whole runs of long datagrams under load, and what was found out about the path is doubted for a minute.
    pub datagram_bytes_max: u16,
    /// What the system is asked to buffer for the socket in each direction; it may give less. Default 4 MiB.
    pub socket_bytes: usize,
    /// The pause after a first failure to reach a neighbour that is dialled; doubled after each further one, and jittered. Default 100 ms.
    pub first_pause: Duration,
    /// The longest such pause. Default 5 s.
    pub longest_pause: Duration,
    /// How often the files of an identity are looked at. Default 5 s.
    pub reload_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_millis(500),
            idle_timeout: Duration::from_millis(2500),
            connect_timeout: Duration::from_secs(3),
            window_bytes: 16 << 20,
            lane_window_bytes: 8 << 20,
            send_window_bytes: 8 << 20,
            datagram_bytes_max: 1452,
            socket_bytes: 4 << 20,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            reload_every: Duration::from_secs(5),
        }
    }
}

impl Options {
    pub(super) fn transport(&self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        let idle =
            VarInt::try_from(u64::try_from(self.idle_timeout.as_millis()).unwrap_or(u64::MAX)).unwrap_or(VarInt::MAX);
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.datagram_bytes_max);
        transport
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(IdleTimeout::from(idle)))
            .max_concurrent_uni_streams(STREAMS_MAX.into())
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .receive_window(self.window_bytes.into())
            .stream_receive_window(self.lane_window_bytes.into())
            .send_window(self.send_window_bytes.into())
            // Lanes of one priority are many tunnels; whole frames one after the other serve them better than slices.
            .send_fairness(false)
            .mtu_discovery_config(Some(discovery));
        Arc::new(transport)
    }
}
