//! The commands that use a node, as a shell runs them: the binary against nodes of this process.

#[path = "clients/calls.rs"]
mod calls;
#[path = "clients/kept.rs"]
mod kept;
#[path = "clients/load.rs"]
mod load;
#[path = "clients/node.rs"]
mod node;
#[path = "clients/operations.rs"]
mod operations;
