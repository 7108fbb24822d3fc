//! What comes out of a topology.

use std::sync::Arc;

use edri_events::{Incarnation, NodeName};
use serde::Serialize;

use super::{GroupState, LinkId, Message};

/// Something to do, or to know. Nodes and groups come in one order: a group changes only between its node's `NodeUp` and
/// `NodeGone`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Send this to each of these neighbours. It may be lost.
    Send {
        /// To whom.
        links: Vec<LinkId>,
        /// What.
        message: Message,
    },
    /// There is a path to a node that was not known, or to a new life of one that was: `NodeGone` of the old one comes first.
    NodeUp {
        /// The node.
        node: NodeName,
        /// Its life.
        incarnation: Incarnation,
        /// How it is.
        status: NodeStatus,
    },
    /// A node's status is another one, or the way to it.
    NodeChanged {
        /// The node.
        node: NodeName,
        /// Its life.
        incarnation: Incarnation,
        /// How it is now.
        status: NodeStatus,
    },
    /// A life of a node has ended as far as this node is concerned, and its groups with it. The same incarnation comes up
    /// again if a partition outlasts the expiry.
    NodeGone {
        /// The node.
        node: NodeName,
        /// The life.
        incarnation: Incarnation,
        /// How it ended.
        why: Loss,
    },
    /// A group of another node has come, wants something else, or was withdrawn.
    GroupChanged {
        /// The node.
        node: NodeName,
        /// Its life.
        incarnation: Incarnation,
        /// The group's number there.
        number: u32,
        /// What it wants; `None` when it is withdrawn.
        state: Option<Arc<GroupState>>,
    },
    /// A neighbour has told all that it knew when the link came up. Once a link.
    Synced {
        /// The link.
        link: LinkId,
    },
    /// The next link to these lives is another one, a new one, or there is none any more.
    PathsChanged {
        /// By number.
        destinations: Vec<Incarnation>,
    },
    /// Another living process has this node's name, and keeps it: this one has to leave. Once.
    Twin {
        /// By which link it was last heard of.
        link: LinkId,
        /// The name of both.
        node: NodeName,
        /// The other.
        other: Incarnation,
    },
    /// Records that came by this link were not kept.
    Refused {
        /// The link.
        link: LinkId,
        /// Why not.
        why: Refusal,
        /// How many since the last poll.
        count: u64,
    },
}

/// How another node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Whether there is a path to it.
    pub reachable: bool,
    /// What the path costs; the last one while there is none.
    pub distance: u32,
    /// Whether it only forwards.
    pub switch: bool,
    /// Whether it knows what its configured peers want.
    pub settled: bool,
    /// Whether it is about to go.
    pub leaving: bool,
    /// The version of the protocol that it speaks.
    pub protocol: u32,
}

/// How a life of a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Loss {
    /// There was no path to it for too long.
    Expired,
    /// It said that it would go, and there is no path to it any more.
    Left,
    /// The node lives another life.
    Replaced,
}

/// A node, to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NodeView {
    /// The node.
    pub node: NodeName,
    /// Its life.
    pub incarnation: Incarnation,
    /// How it is.
    pub status: NodeStatus,
    /// The neighbour that the path to it begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<NodeName>,
    /// The neighbours that it lists.
    pub links: Vec<NodeName>,
    /// How many groups it has.
    pub groups: usize,
}

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are no record or message, or break a limit within.
    #[error("not a record or message of the topology")]
    Malformed,
    /// The record is longer than [`RECORD_BYTES_MAX`](crate::limits::RECORD_BYTES_MAX).
    #[error("a record longer than {} bytes", crate::limits::RECORD_BYTES_MAX)]
    RecordBytes,
    /// There are [`NODES_MAX`](crate::limits::NODES_MAX) nodes already.
    #[error("more than {} nodes", crate::limits::NODES_MAX)]
    Nodes,
    /// The node has [`GROUPS_MAX`](crate::limits::GROUPS_MAX) groups already.
    #[error("more than {} groups of one node", crate::limits::GROUPS_MAX)]
    Groups,
    /// There is no room for more records of this node.
    #[error("more than {} bytes of records of one node", crate::limits::NODE_BYTES_MAX)]
    NodeBytes,
    /// There is no room for more records of any node.
    #[error("more than {} bytes of records", crate::limits::TOPOLOGY_BYTES_MAX)]
    TopologyBytes,
    /// Somebody tells of this node what it never said, in an epoch or a version so high that it cannot say otherwise: a neighbour,
    /// or a node behind it, forges records.
    #[error("a record that this node never said of itself and cannot overrule: some node forges them")]
    Version,
    /// There are [`LINKS_MAX`](crate::limits::LINKS_MAX) links already.
    #[error("more than {} links", crate::limits::LINKS_MAX)]
    Links,
    /// The neighbour has this node's name.
    #[error("a neighbour with this node's own name")]
    OwnName,
    /// The number of a group is 0, `u32::MAX`, or not above all that this life has used.
    #[error("a number that a group cannot have or had before")]
    Number,
}
