//! Who runs the workers: a [`Manager`] names a worker type, the events it handles and how it is to be run; an actor starts
//! the instances, restarts those that are lost, and ends them.
//!
//! The actor owns the lifecycle and nothing else: events go from the router's inboxes to the workers' hosts without it,
//! and user code never runs on its thread. Supervision is done here and not by actix, whose supervisor restarts without a
//! pause and does not see panics of the code it runs.

mod actor;
mod arrivals;
mod definition;
mod handle;
mod responds;

pub use arrivals::{Arrivals, Newcomer, Undeclared, WAITING_MAX};
pub use definition::{Definition, IntoDefinition, Manager, Program, Remote, Restart, Typed};
pub use handle::{Drained, Expected, ManagerError, ManagerHandle, Prepared};
