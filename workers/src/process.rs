//! Workers in processes of their own: a connection between a node and a child that hosts one instance.
//!
//! Both sides speak the frames of `edri-protocol` over a Unix stream socket and share what does not depend on the side:
//! `peer` is what runs over a connection, `fault` how errors cross it. On the node's side `launch` starts a process,
//! `introduce` hears its hello (`remote` is told it, of a worker over a network), `host` gives it events and hears what came of them, and `calls` does what it asks for.

mod calls;
mod carried;
pub(crate) mod child;
pub mod fault;
mod flights;
mod guardian;
mod host;
mod introduce;
mod launch;
mod options;
mod output;
pub(crate) mod peer;
mod remote;

pub use calls::{Admit, Calls, respond_error};
pub use carried::{Outgoing, describe, left_ms, nothing};
pub use child::{Hosted, NODE_VARIABLE, TakeArguments, WORKER_VARIABLE, complain, marked_for};
pub(crate) use host::run;
pub use introduce::Introduced;
pub use options::{Demand, Process, ProcessPlan};
pub use remote::{Bounds, Leftovers, LeftoversRef, MayDeclare};
