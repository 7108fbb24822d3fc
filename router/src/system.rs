//! Events of edri itself. They never wait: a group without room misses them, and `topology()` counts how many.

use edri_events::event;

use crate::letters::Reason;
use crate::status::{ManagerState, WorkerState};

/// The name of the manager that answers for a node itself: no other may have it.
pub const OPERATOR: &str = "edri";

/// A node's state changed: of this node, what part of its life it is in; of another one, whether this node can reach it.
#[event(notification, name = "edri.node.changed", crate = edri_events)]
#[derive(Debug, Clone)]
pub struct NodeChanged {
    /// The node.
    pub node: String,
    /// The life of its process.
    pub incarnation: String,
    /// Of this node `running`, `stopping` or `stopped`. Of another `reachable`, `unreachable` (there is no way to it now), or
    /// `gone` (it has left, was not heard of for too long, or has begun another life).
    pub state: String,
}

/// A manager's state changed.
#[event(notification, name = "edri.manager.changed", key = manager, crate = edri_events)]
#[derive(Debug, Clone)]
pub struct ManagerChanged {
    /// The manager's node.
    pub node: String,
    /// The manager.
    pub manager: String,
    /// Its state now.
    pub state: ManagerState,
    /// Why, when there is something to say.
    pub reason: Option<String>,
}

/// A worker instance's state changed.
#[event(notification, name = "edri.worker.changed", key = manager, crate = edri_events)]
#[derive(Debug, Clone)]
pub struct WorkerChanged {
    /// The worker's node.
    pub node: String,
    /// The worker's manager.
    pub manager: String,
    /// Which instance, from 0.
    pub instance: usize,
    /// Its state now.
    pub state: WorkerState,
    /// Why, when there is something to say.
    pub reason: Option<String>,
}

/// An event became a dead letter.
#[event(notification, name = "edri.dead_letter", key = event, crate = edri_events)]
#[derive(Debug, Clone)]
pub struct DeadLettered {
    /// The letter's number on its node: `resend` takes it.
    pub number: u64,
    /// The node.
    pub node: String,
    /// The name of the event.
    pub event: String,
    /// The id of the event.
    pub event_id: String,
    /// The group it was for.
    pub group: String,
    /// Why it ended.
    pub reason: Reason,
    /// The reason in words.
    pub detail: String,
    /// How often a worker had it.
    pub attempts: u32,
}
