//! A group of another node, as this one sees it: an inbox like any other, whose consumer sends what it takes out of it.
//!
//! The inbox is the backlog that waits until the node takes more. While the node cannot be reached nobody waits for room
//! in it, for that might last: what finds none is a dead letter.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use edri_events::NodeName;

use super::{Group, GroupOptions, GroupRef, Spread};
use crate::GroupName;
use crate::signal::Signal;
use crate::status::{Ended, ManagerState};

/// What only a group of another node has.
#[derive(Debug)]
pub(super) struct Remote {
    node: NodeName,
    distance: AtomicU32,
    reachable: AtomicBool,
    /// Whether publishers have been able to find it: nobody is told of it before.
    joined: AtomicBool,
    /// Requests and tunnels that the node has taken and not answered.
    unanswered: AtomicUsize,
    /// Who hears that the node can be reached, or no longer, once the group has joined a router.
    changed: OnceLock<Signal>,
}

impl Group {
    /// A group of the node `node`, which can be reached and is one link away until something else is said. `options.name`
    /// is what the group is called there; it has one inbox, whatever the spread there, and waits when it is full.
    ///
    /// # Panics
    ///
    /// When the capacity is zero.
    #[must_use]
    pub fn remote(options: GroupOptions, node: NodeName) -> GroupRef {
        let name = GroupName::Remote { node: node.clone(), group: Box::new(options.name) };
        let remote = Remote {
            node,
            distance: AtomicU32::new(1),
            reachable: AtomicBool::new(true),
            joined: AtomicBool::new(false),
            unanswered: AtomicUsize::new(0),
            changed: OnceLock::new(),
        };
        // What is divided among nodes has no backlog of its own: its events wait in their front.
        let spread = if matches!(options.spread, Spread::ByKey(_)) { Spread::ByKey(1) } else { Spread::Compete };
        let options = GroupOptions { name, spread, overflow: super::Overflow::Wait, ..options };
        let group = Arc::new(Self::make(options, Some(Box::new(remote))));
        group.set_state(ManagerState::Running);
        group
    }

    /// Says that the group is in the route table that publishers see.
    pub(crate) fn set_joined(&self) {
        if let Some(remote) = &self.remote {
            remote.joined.store(true, Ordering::Release);
        }
    }

    /// Whether the group is one of this node, or of another node and has been in the route table.
    pub(crate) fn has_joined(&self) -> bool {
        self.remote.as_ref().is_none_or(|remote| remote.joined.load(Ordering::Acquire))
    }

    /// The node that the group is on; `None` for a group of this node.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        self.remote.as_ref().map(|remote| &remote.node)
    }

    /// How many links away the group is: zero for one of this node.
    #[must_use]
    pub fn distance(&self) -> u32 {
        self.remote.as_ref().map_or(0, |remote| remote.distance.load(Ordering::Relaxed))
    }

    /// Sets how many links away the group's node is. A group of this node stays where it is.
    pub fn set_distance(&self, links: u32) {
        if let Some(remote) = &self.remote {
            remote.distance.store(links.max(1), Ordering::Relaxed);
        }
    }

    /// Whether there is a way to the group now. To one of this node there always is.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.remote.as_ref().is_none_or(|remote| remote.reachable.load(Ordering::Acquire))
    }

    /// Says whether there is a way to the group's node. When there is none any more, whoever waits for room is let go: its
    /// event is a dead letter for this group. A group of this node can always be reached.
    pub fn set_reachable(&self, reachable: bool) {
        let Some(remote) = &self.remote else { return };
        remote.reachable.store(reachable, Ordering::Release);
        self.inboxes.iter().for_each(|inbox| inbox.bar_waiting(!reachable));
        if let Some(changed) = remote.changed.get() {
            changed.raise();
        }
    }

    /// Tells `signal` when the group can be reached, or no longer.
    pub(crate) fn signal_reach(&self, signal: &Signal) {
        if let Some(remote) = &self.remote {
            // A group joins one router.
            let _ = remote.changed.set(signal.clone());
        }
    }

    /// How many requests and tunnels the group's node has and has not answered: it counts as load when somebody is chosen
    /// to answer the next one. For a group of this node it is nothing.
    pub fn set_unanswered(&self, calls: usize) {
        if let Some(remote) = &self.remote {
            remote.unanswered.store(calls, Ordering::Relaxed);
        }
    }

    pub(super) fn unanswered(&self) -> usize {
        self.remote.as_ref().map_or(0, |remote| remote.unanswered.load(Ordering::Relaxed))
    }

    /// Counts deliveries that come from the inbox of another group, where they are accounted for as forwarded.
    pub fn take_over(&self, deliveries: usize) {
        self.rejected.fetch_add(deliveries as u64, Ordering::Relaxed);
    }

    /// Counts deliveries that somebody other than a worker has taken out of the inbox and is still to settle.
    pub fn hold(&self, deliveries: usize) {
        self.held.fetch_add(deliveries, Ordering::AcqRel);
    }

    /// Counts how deliveries ended that were held: see [`Group::hold`].
    pub fn settle(&self, deliveries: usize, ended: Ended) {
        self.tally.count(ended, deliveries as u64);
        self.held.fetch_sub(deliveries, Ordering::AcqRel);
    }

    /// Takes back that so many deliveries are held: they are settled otherwise, or were put into an inbox again.
    pub fn release(&self, deliveries: usize) {
        self.held.fetch_sub(deliveries, Ordering::AcqRel);
    }
}
