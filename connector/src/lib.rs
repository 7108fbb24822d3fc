//! Routers together: links between nodes, who is where, and what one node's life has sent another's.
//!
//! ```text
//! driver    packs events into packets, unpacks packets, keeps open calls and tunnels
//! engine    pure: topology (who is where, who wants what) and sessions (nothing lost, nothing twice)
//! quic      one QUIC connection a neighbour, mutually authenticated
//! ```
//!
//! This crate promises that an event that was accepted for a group of another node arrives there once and in order, whatever
//! becomes of the links and nodes between, or becomes a dead letter that says whether it may have arrived. It knows nothing
//! of managers and workers.

#![forbid(unsafe_code)]

mod compatible;
mod connector;
pub mod division;
mod driver;
pub mod engine;
mod fault;
pub mod keys;
pub mod limits;
mod link;
pub mod merge;
pub mod quic;
mod strand;
pub mod topology;

pub use connector::{Connector, ConnectorError, Links};
