use std::fmt;

use serde::Serialize;

use crate::{Incarnation, ManagerName, NodeName};

/// Who sent an event: a node, one of its lives, and the manager when a worker sent it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Address {
    /// The node.
    pub node: NodeName,
    /// The life of the node's process.
    pub incarnation: Incarnation,
    /// The manager whose worker sent the event; `None` for the program around the node.
    pub manager: Option<ManagerName>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.manager {
            Some(manager) => write!(f, "{}/{manager}@{}", self.node, self.incarnation),
            None => write!(f, "{}@{}", self.node, self.incarnation),
        }
    }
}
