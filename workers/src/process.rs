//! Workers in processes of their own: a connection between a node and a child that hosts one instance.
//!
//! Both sides speak the frames of `edri-protocol` over a Unix stream socket and share what does not depend on the side:
//! [`peer`] is what runs over a connection, [`fault`] how errors cross it.

#![allow(dead_code, reason = "the two sides of the connection that use it follow")]

mod child;
mod fault;
mod peer;

pub use child::{Hosted, NODE_VARIABLE, TakeArguments, WORKER_VARIABLE, complain, marked_for};
