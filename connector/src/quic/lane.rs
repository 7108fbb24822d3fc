use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// A lane of a connection. Those above go before those below when there is not room for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamLane {
    /// Between the two neighbours: hello, link state.
    Control,
    /// Requests, responses, cancels.
    High,
    /// Notifications, and tunnels beyond [`TUNNEL_STREAMS_MAX`](crate::limits::TUNNEL_STREAMS_MAX).
    Normal,
    /// One tunnel in one direction, by a key that means nothing here.
    Tunnel(u64),
}

pub(super) const TUNNEL: u8 = 3;
/// The bytes of a tunnel's key at the head of its stream.
pub(super) const TUNNEL_KEY_BYTES: usize = 8;

impl StreamLane {
    /// Those that every connection has from its beginning.
    pub(super) const FIXED: [Self; 3] = [Self::Control, Self::High, Self::Normal];

    /// The place among [`FIXED`](Self::FIXED); `None` of a tunnel.
    pub(super) fn fixed(self) -> Option<usize> {
        match self {
            Self::Control => Some(0),
            Self::High => Some(1),
            Self::Normal => Some(2),
            Self::Tunnel(_) => None,
        }
    }

    /// The first bytes of its stream.
    pub(super) fn head(self) -> Bytes {
        match self {
            Self::Control => Bytes::from_static(&[0]),
            Self::High => Bytes::from_static(&[1]),
            Self::Normal => Bytes::from_static(&[2]),
            Self::Tunnel(key) => {
                let mut head = BytesMut::with_capacity(1 + TUNNEL_KEY_BYTES);
                head.put_u8(TUNNEL);
                head.put_u64(key);
                head.freeze()
            }
        }
    }

    /// More goes first.
    pub(super) fn priority(self) -> i32 {
        match self {
            Self::Control => 3,
            Self::High => 2,
            Self::Normal => 1,
            Self::Tunnel(_) => 0,
        }
    }
}

impl fmt::Display for StreamLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::High => f.write_str("high"),
            Self::Normal => f.write_str("normal"),
            Self::Tunnel(key) => write!(f, "tunnel {key:016x}"),
        }
    }
}
