//! The store: a manager that keeps keys and values, in memory or on disk, for users on any node.
//!
//! Each namespace has requests of its own (`store.<namespace>.get`, `.set`, ..), so the router leads to its owner as to any
//! other manager, and nothing in the router knows of the store.

pub mod event;
pub mod limits;
