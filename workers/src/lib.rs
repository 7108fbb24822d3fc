//! Who does it: the traits that users implement, the [`Context`] their handlers get, and the hosts that run them.
//!
//! A worker instance has one owner, its host, and handles one event at a time unless its handlers say `&self`. The host
//! takes deliveries out of its group's inbox, calls the handler and says how each delivery ended; a panic, a time limit
//! and a stop end the instance, never the delivery's account. What to do about a lost instance is the manager's decision:
//! the host only says how it ended ([`Exit`]).

mod context;
mod host;
mod instance;
mod policy;
mod process;
mod shared;
mod thread;
mod turn;
mod worker;

pub use context::Context;
pub use host::{Exit, Host, Seat, Signals, Work};
pub use instance::{Blueprint, Factory, HandlerError, Outcome};
pub use policy::{Backoff, Placement, Policy, Retry};
pub use process::{Demand, Introduced, Leftovers, LeftoversRef, Process, ProcessPlan};
#[doc(hidden)]
pub use process::{Hosted, NODE_VARIABLE, TakeArguments, WORKER_VARIABLE, complain, marked_for};
/// What a connection is made of that carries calls, for those who have one with something else than a process.
#[doc(hidden)]
pub mod wire {
    pub use crate::process::child::up::Up;
    pub use crate::process::fault::{self, Refused};
    pub use crate::process::peer::{Opener, Peer, TUNNEL_WINDOW};
    pub use crate::process::{Admit, Bounds, Calls, MayDeclare, Outgoing, describe, left_ms, nothing, respond_error};
}
pub use worker::{Handle, HandleAny, HandleConcurrent, Worker};
