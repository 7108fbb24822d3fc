//! What a running node can be asked about itself, by events as everything else: from any node of its cluster, and from outside
//! through a gateway.
//!
//! ```
//! use edri::prelude::*;
//! use edri::operations::Describe;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = App::new("north").api(Api::bind("127.0.0.1:0")).start().await?;
//! let north = node.bus().request_at("north", Describe::default()).await?;
//! assert_eq!(north.node, "north");
//! # node.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! A manager called `edri` answers, on every node that has a gateway or a connector. Which node is asked is said by
//! [`Bus::request_at`](crate::Bus::request_at); all are asked by [`Bus::request_all`](crate::Bus::request_all). Through a gateway these
//! events, and the state events of [`system`](crate::system), are only for callers whose permissions name them: a pattern that begins with
//! `edri.`, as [`Permissions::operator`](crate::Permissions::operator) has it. Within the cluster every worker may ask.

mod event;
mod letters;
mod operator;

pub use event::{
    DeadLetterList, DeadLetterPage, DeadLetterView, Describe, DrainManager, DrainNode, Draining, DropDeadLetters,
    Dropped, EventList, EventPage, EventView, ManagerDrained, ResendDeadLetters, Resent, ShowDeadLetter,
    ShownDeadLetter,
};
pub(crate) use operator::{definition, is_reserved};

/// The most events, or dead letters, in one page, and the most dead letters named in one request.
pub const PAGE_MAX: usize = 1_000;
/// How many are in a page when nothing is said.
pub const PAGE_DEFAULT: usize = 100;
/// A page ends earlier when what is in it has so many bytes.
pub(crate) const PAGE_BYTES: usize = 1 << 20;
/// The most groups of subscriptions, or of other nodes, that a description lists.
pub(crate) const GROUPS_MAX: usize = 1_000;
