//! The store: a manager that keeps keys and values, in memory or on disk, for users on any node.
//!
//! Each namespace has requests of its own (`store.<namespace>.get`, `.set`, ..), so the router leads to its owner as to any
//! other manager, and nothing in the router knows of the store.

mod answers;
mod ask;
mod claim;
mod client;
mod disk;
pub mod event;
mod file;
mod journal;
mod kept;
pub mod limits;
mod model;
mod namespace;
mod raw;
mod reader;
mod store;
mod typed;
mod upgrade;
mod worker;

pub use client::{Error, Namespace, Watching};
pub use file::{Salvaged, StoreError, restore, salvage};
pub use model::Eviction;
pub use store::{NamespaceOptions, Store, StoreHandle};
