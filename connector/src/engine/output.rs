//! What an engine has to say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edri_events::{Incarnation, NodeName};
use edri_protocol::packet::Lane;

#[cfg(doc)]
use super::Engine;
use super::{GroupKey, Source};
use crate::topology::{self, GroupState, LinkId, NodeStatus, Refusal};

/// Something to be done or known.
#[derive(Debug)]
pub enum Output<K> {
    /// To be sent to neighbours, in their control lanes.
    Control {
        /// The links.
        links: Vec<LinkId>,
        /// What.
        message: topology::Message,
    },
    /// To be sent to a neighbour: a packet, or a signal that has no body. Say [`Engine::queued`] as they go.
    Packet {
        /// The link.
        link: LinkId,
        /// The life of the node that it comes from.
        origin: Incarnation,
        /// The packet's lane; `None` for a signal.
        lane: Option<Lane>,
        /// The encoded header.
        header: Bytes,
        /// What follows it.
        body: Bytes,
    },
    /// A packet for this node, in its turn.
    Deliver {
        /// Whose, and in which session.
        from: Source,
        /// In which lane.
        lane: Lane,
        /// The numbers of the groups it is for.
        groups: Vec<u32>,
        /// Its items.
        body: Bytes,
        /// How old it was when it was sent: what remaining times are to be shortened by.
        age: Duration,
        /// Whether an earlier life of this node may have had it.
        redelivered: bool,
    },
    /// A destination has a packet.
    Confirmed {
        /// The groups it was for.
        groups: Vec<GroupKey>,
        /// How many events it holds.
        events: u32,
        /// What the driver gave along.
        keep: K,
    },
    /// A packet for groups will not arrive, or nobody knows whether it has.
    Lost {
        /// The groups it was for.
        groups: Vec<GroupKey>,
        /// What the driver gave along.
        keep: K,
        /// Whether it may have arrived.
        sent: bool,
        /// Why.
        why: Why,
    },
    /// A node was met, in this life.
    Met {
        /// The node.
        node: NodeName,
        /// This life of it.
        incarnation: Incarnation,
    },
    /// Whether a node can be reached, and how, is otherwise than before.
    Reach {
        /// The life of the node.
        node: Incarnation,
        /// How it is.
        status: NodeStatus,
    },
    /// That life of a node has ended or been given up: what it was asked will not be answered by it.
    Ended {
        /// The node.
        node: NodeName,
        /// That life of it.
        incarnation: Incarnation,
        /// Why.
        why: Why,
    },
    /// A session was lost by the other side although its node lives: what it was asked may have been heard or not.
    Forgotten {
        /// The life of the node.
        node: Incarnation,
    },
    /// A group of another node is there, or wants other events than before.
    Group {
        /// Its key, the same for the same name in every life of its node.
        key: GroupKey,
        /// Its node.
        node: NodeName,
        /// This life of it.
        incarnation: Incarnation,
        /// What it wants.
        state: Arc<GroupState>,
    },
    /// A group takes nothing new; what is under way to it still arrives.
    Withdrawn {
        /// Its key.
        key: GroupKey,
        /// The number that nothing more is to be sent to once what there is has been.
        number: u32,
    },
    /// A group was withdrawn in whose place another of the same name had come: nothing more is sent to its number.
    Superseded {
        /// The life of its node.
        node: Incarnation,
        /// The number it had there.
        number: u32,
    },
    /// A group is there no more.
    Gone {
        /// Its key.
        key: GroupKey,
        /// Why.
        why: Why,
    },
    /// A neighbour has told everything it knows.
    Synced {
        /// The link to it.
        link: LinkId,
    },
    /// An answer to [`Engine::probe`].
    Alive {
        /// Who answers.
        node: Incarnation,
        /// The number of the probe.
        number: u64,
    },
    /// Another living node has this node's name, and is to keep it.
    Twin {
        /// That node's life.
        other: Incarnation,
    },
    /// What a neighbour said goes beyond a limit and was left out.
    Refused {
        /// The link to it.
        link: LinkId,
        /// What is too much.
        why: Refusal,
    },
}

/// Why something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The node said that it stops.
    Left,
    /// The node has begun another life.
    Restarted,
    /// The node was out of reach for too long.
    Expired,
    /// The node has no such group any more.
    NoGroup,
    /// The other side does not know the session any more.
    Forgotten,
    /// This node stops.
    Stopped,
}

impl Why {
    /// In words, of the node that it is about.
    #[must_use]
    pub fn of(self, node: &str) -> String {
        match self {
            Self::Left => format!("node `{node}` has stopped"),
            Self::Restarted => format!("node `{node}` was restarted"),
            Self::Expired => format!("node `{node}` was out of reach for too long"),
            Self::NoGroup => format!("node `{node}` came back without this group"),
            Self::Forgotten => format!("node `{node}` had given this node up"),
            Self::Stopped => "this node has stopped".to_owned(),
        }
    }
}
