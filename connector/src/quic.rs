//! Links: mutually authenticated QUIC connections between neighbours, and their lanes.
//!
//! An [`Endpoint`] is one UDP socket that dials and accepts. Who has no identity of the cluster never gets past the
//! handshake, in either direction. What a [`Connection`] carries are frames, opaque bytes, in lanes; each lane keeps the
//! order of its frames, and none waits for another.
//!
//! ```text
//! a lane is a stream in one direction:
//!
//!   lane     1 byte     0 control, 1 high, 2 normal, 3 tunnel
//!   tunnel   8 bytes    the tunnel's key, only after 3
//!   frame    4 bytes    its length, most significant byte first, at most LANE_FRAME_BYTES_MAX
//!            …          its bytes
//!   frame    …
//! ```
//!
//! Control, high and normal are open once and as long as the connection. A neighbour that breaks these rules loses its
//! connection, with [`CloseCode::ProtocolError`] and a text that says why; nothing else is touched.
//!
//! What arrives is not acknowledged to the sender here: when a connection ends, frames may be lost, and sessions mend it.

mod close;
mod connection;
mod deframer;
mod endpoint;
mod lane;
mod options;
mod outgoing;
mod receiver;
mod sender;
mod tls;

#[cfg(test)]
mod tests;

pub use close::{CloseCode, Closed};
pub use connection::{Connection, Stats};
pub use endpoint::{AcceptError, BindError, DialError, Endpoint};
pub use lane::StreamLane;
pub use options::Options;
pub use receiver::{Received, Receiver};
pub use sender::{Backlog, Sender};

/// What the handshake calls the protocol, with its version.
pub const ALPN: &[u8] = b"edri/1";
