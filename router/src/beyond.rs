//! What a node knows of others, as far as it has a connector.

use std::collections::BTreeMap;
use std::sync::Arc;

use edri_events::__private::schemars::JsonSchema;
use edri_events::{Incarnation, NodeName};
use serde::{Deserialize, Serialize};

use crate::Router;

/// Knows the other nodes and the links to neighbours: the connector. Asked when somebody looks at the topology.
pub trait Beyond: Send + Sync {
    /// The other nodes that are known, by name.
    fn nodes(&self) -> Vec<NodeView>;
    /// The links of this node, by peer.
    fn links(&self) -> Vec<LinkView>;
}

/// Another node at one moment, as this one sees it. Made by [`NodeView::new`] and filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "edri_events::__private::schemars")]
#[non_exhaustive]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// The life of its process.
    pub incarnation: Incarnation,
    /// Whether there is a way to it.
    pub reachable: bool,
    /// How many links away it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<u32>,
    /// The neighbour that leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<NodeName>,
    /// Whether it is a switch, which only forwards.
    pub switch: bool,
    /// Whether it says that it knows who answers there.
    pub settled: bool,
    /// How many groups it has.
    pub groups: usize,
    /// Packets sent to it that it has not acknowledged.
    pub unacknowledged_packets: u64,
    /// The bytes of these packets.
    pub unacknowledged_bytes: u64,
    /// The events in these packets.
    pub unacknowledged_events: u64,
    /// How often what was sent to it went on after an interruption.
    pub resumed: u64,
    /// How long a packet takes to it and back, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// Events that the two nodes know differently, and what differs: they are not sent from one to the other.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub differs: BTreeMap<String, String>,
}

impl NodeView {
    /// A node of which nothing more is known; there is no way to it.
    #[must_use]
    pub fn new(name: NodeName, incarnation: Incarnation) -> Self {
        Self {
            name,
            incarnation,
            reachable: false,
            distance: None,
            via: None,
            switch: false,
            settled: false,
            groups: 0,
            unacknowledged_packets: 0,
            unacknowledged_bytes: 0,
            unacknowledged_events: 0,
            resumed: 0,
            round_trip_ms: None,
            differs: BTreeMap::new(),
        }
    }
}

/// What part of its life a link is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "edri_events::__private::schemars")]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Packets pass.
    Up,
    /// It is down, and will be tried again.
    Down,
    /// It is being tried.
    Connecting,
}

/// A link of this node at one moment. Made by [`LinkView::new`] and filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "edri_events::__private::schemars")]
#[non_exhaustive]
pub struct LinkView {
    /// The neighbour; not known before the first time it was up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<NodeName>,
    /// Where the neighbour is.
    pub address: String,
    /// Whether this node has dialled.
    pub dialled: bool,
    /// Its state.
    pub state: LinkState,
    /// How long it has been in this state, in seconds.
    pub since_s: f64,
    /// How long a packet takes to the neighbour and back, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Bytes sent since the node began.
    pub sent_bytes: u64,
    /// Packets sent since the node began.
    pub sent_packets: u64,
    /// Bytes received since the node began.
    pub received_bytes: u64,
    /// Packets received since the node began.
    pub received_packets: u64,
    /// How often it has come back.
    pub resumes: u64,
    /// Why it went down, or did not come up, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl LinkView {
    /// A link over which nothing has passed.
    #[must_use]
    pub fn new(address: String, state: LinkState) -> Self {
        Self {
            peer: None,
            address,
            dialled: false,
            state,
            since_s: 0.0,
            round_trip_ms: None,
            queued_bytes: 0,
            sent_bytes: 0,
            sent_packets: 0,
            received_bytes: 0,
            received_packets: 0,
            resumes: 0,
            last_error: None,
        }
    }
}

impl Router {
    /// Lets the topology show what `beyond` knows.
    ///
    /// # Panics
    ///
    /// When it was set before.
    pub fn set_beyond(&self, beyond: Arc<dyn Beyond>) {
        self.core.set_beyond(beyond);
    }

    /// Whether there may be other nodes: whether [`Router::set_beyond`] was called.
    #[must_use]
    pub fn has_beyond(&self) -> bool {
        self.core.beyond().is_some()
    }
}
