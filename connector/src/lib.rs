//! Routers together: links between nodes, who is where, and what one node's life has sent another's.
//!
//! ```text
//! driver    packs events into packets, unpacks packets, keeps open calls and tunnels
//! engine    pure: topology (who is where, who wants what) and sessions (nothing lost, nothing twice)
//! quic      one QUIC connection a neighbour, mutually authenticated
//! ```

#![forbid(unsafe_code)]

pub mod limits;
pub mod topology;
