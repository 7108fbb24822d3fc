//! How it is written: the frames that cross a boundary, and how they become bytes.
//!
//! The same [`Frame`]s travel over an inherited Unix socket (process workers), over WebSocket (clients, remote workers) and
//! over QUIC (links). `docs/PROTOCOL.md` specifies them for those who write an SDK in another language.
//!
//! Nodes send one another [`packet`]s besides, whose bodies hold [`items`]: events by the million, which have a compact form
//! of their own.
//!
//! This crate promises that arbitrary bytes never panic and never make it allocate more than its [`limits`] say, that a
//! reader skips the fields it does not know, and that a frame it does not know is told apart from one that is malformed.
//! It has no clock, no socket and no runtime.

#![forbid(unsafe_code)]

mod codec;
mod compact;
mod declaration;
mod frame;
pub mod items;
pub mod limits;
pub mod packet;
mod payload;
mod reading;
pub mod resume;
pub mod session;
mod stream;
mod text;

pub use codec::FrameError;
pub use declaration::{DeclaredCaching, DeclaredExposure, DeclaredSchemas, EventDeclaration};
pub use frame::{
    Abort, Ack, Bye, Call, Cancel, Credit, Data, Declare, End, Fault, FieldFault, Frame, Grant, Handler, Health, Hello,
    Level, Log, Missed, Notice, Ping, Pong, Ready, Report, Response, Resume, Role, Session, Slow, Subscribe,
    Unsubscribe, Wait, Welcome, Window,
};
pub use payload::Payload;
pub use reading::events as read_declarations;
pub use stream::{PREFIX_BYTES, first, split};
pub use text::Text;

/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;
