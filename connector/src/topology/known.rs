//! The records that a node has: which of two it keeps, and how much. What is kept depends only on the records that came,
//! never on their order.

use std::collections::BTreeMap;

use bytes::Bytes;
use edri_events::{Incarnation, NodeName};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::record::{Content, GroupState, Life, NODE_SLOT, NodeState, Record, WITHDRAWN_SLOT, Withdrawn, is_of_group};
use super::{NodeSummary, Refusal};
use crate::limits::{NODE_BYTES_MAX, NODE_RECORDS_MAX, NODES_MAX, TOPOLOGY_BYTES_MAX};

/// All records, by node.
#[derive(Default)]
pub(super) struct Known {
    nodes: BTreeMap<NodeName, Node>,
    bytes: usize,
}

/// The records of one node's latest life.
pub(super) struct Node {
    pub(super) incarnation: Incarnation,
    /// The highest epoch of its records.
    epoch: u64,
    /// The highest version that a record of its groups ever had.
    groups: u64,
    /// The fingerprint of the records of its groups: a sum, so that their order does not count.
    digest: u64,
    /// The fingerprint of its own record.
    state_digest: u64,
    pub(super) records: BTreeMap<u32, Held>,
    pub(super) bytes: usize,
}

/// A record that is kept.
pub(super) struct Held {
    pub(super) version: u64,
    pub(super) content: Content,
    /// As its node wrote it.
    pub(super) bytes: Bytes,
}

/// What became of a record.
pub(super) enum Taken {
    /// It is kept.
    Kept(Change),
    /// The same or a later one was there.
    Had,
    /// Its node has a later life.
    OlderLife,
    Refused(Refusal),
}

/// What a record that is kept has changed.
pub(super) struct Change {
    /// Slots whose record has come, changed or gone.
    pub(super) slots: Vec<u32>,
    /// Whether paths may have changed.
    pub(super) links: bool,
}

impl Known {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeName, &Node)> {
        self.nodes.iter()
    }

    pub(super) fn get(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// How many bytes all records have.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a record of another node if it is news and there is room.
    pub(super) fn take(&mut self, record: Record, bytes: Bytes) -> Taken {
        if let Some(node) = self.nodes.get(&record.node) {
            let same_life = node.incarnation == record.incarnation;
            if !same_life && record.life() < node.life() {
                return Taken::OlderLife;
            }
            let had = node.records.get(&record.slot).is_some_and(|held| held.version >= record.version);
            if same_life && (had || node.is_withdrawn(record.slot)) {
                return Taken::Had;
            }
        } else if self.nodes.len() >= NODES_MAX {
            return Taken::Refused(Refusal::Nodes);
        }
        match self.room_for(&record, bytes.len()) {
            Ok(()) => Taken::Kept(self.keep(record, bytes)),
            Err(why) => Taken::Refused(why),
        }
    }

    fn room_for(&self, record: &Record, bytes: usize) -> Result<(), Refusal> {
        let old = self.nodes.get(&record.node);
        let same_life = old.filter(|node| node.incarnation == record.incarnation);
        let replaced = same_life.and_then(|node| node.records.get(&record.slot));
        let kept = same_life.map_or(0, |node| node.bytes);
        let freed = match same_life {
            Some(_) => replaced.map_or(0, |held| held.bytes.len()),
            None => old.map_or(0, |node| node.bytes),
        };
        if same_life.is_some_and(|node| !node.has_room_for(record.slot)) {
            return Err(Refusal::Groups);
        }
        if kept + bytes > NODE_BYTES_MAX + replaced.map_or(0, |held| held.bytes.len()) {
            return Err(Refusal::NodeBytes);
        }
        if self.bytes + bytes > TOPOLOGY_BYTES_MAX + freed {
            return Err(Refusal::TopologyBytes);
        }
        Ok(())
    }

    /// Keeps a record that is news.
    pub(super) fn keep(&mut self, record: Record, bytes: Bytes) -> Change {
        let mut change = Change { slots: vec![record.slot], links: false };
        let node = self.nodes.entry(record.node.clone()).or_insert_with(|| {
            change.links = true;
            Node::new(record.incarnation)
        });
        if node.incarnation != record.incarnation {
            self.bytes -= node.bytes;
            change.slots.extend(node.records.keys());
            change.links = true;
            *node = Node::new(record.incarnation);
        }
        if let Content::Node(state) = &record.content {
            change.links |= node.state().is_none_or(|old| old.links != state.links);
        }
        if let Content::Withdrawn(withdrawn) = &record.content {
            let covered = node.records.range(1..withdrawn.below.max(1)).map(|(slot, _)| *slot);
            let covered: Vec<u32> = covered.filter(|slot| withdrawn.covers(*slot)).collect();
            for slot in covered {
                self.bytes -= node.remove(&record.node, slot);
                change.slots.push(slot);
            }
        }
        self.bytes -= node.remove(&record.node, record.slot);
        self.bytes += bytes.len();
        let name = record.node.clone();
        node.insert(record, bytes);
        if node.records.len() > NODE_RECORDS_MAX {
            let highest = node.highest_group().expect("two records are of no group");
            self.bytes -= node.remove(&name, highest);
            change.slots.push(highest);
        }
        change
    }

    /// Forgets a node.
    pub(super) fn forget(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.remove(name) {
            self.bytes -= node.bytes;
        }
    }
}

impl Node {
    fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, epoch: 0, groups: 0, digest: 0, state_digest: 0, records: BTreeMap::new(), bytes: 0 }
    }

    pub(super) fn life(&self) -> Life {
        Life::new(self.epoch, self.incarnation)
    }

    /// What it says of itself, once that has come.
    pub(super) fn state(&self) -> Option<&NodeState> {
        match &self.records.get(&NODE_SLOT)?.content {
            Content::Node(state) => Some(state),
            _ => None,
        }
    }

    /// What the group of this number wants, unless it is withdrawn or unknown.
    pub(super) fn group(&self, number: u32) -> Option<&std::sync::Arc<GroupState>> {
        match &self.records.get(&number)?.content {
            Content::Group(group) => Some(group),
            _ => None,
        }
    }

    pub(super) fn withdrawn(&self) -> Option<&Withdrawn> {
        match &self.records.get(&WITHDRAWN_SLOT)?.content {
            Content::Withdrawn(withdrawn) => Some(withdrawn),
            _ => None,
        }
    }

    pub(super) fn is_withdrawn(&self, slot: u32) -> bool {
        self.withdrawn().is_some_and(|withdrawn| withdrawn.covers(slot))
    }

    /// Whether a record of `slot` is kept beside the others. Of too many those of the highest numbers are left out, so that all nodes
    /// keep the same; a node's own numbers count up from 1, so forged ones do not displace them.
    pub(super) fn has_room_for(&self, slot: u32) -> bool {
        let below_highest = || self.highest_group().is_some_and(|highest| slot < highest);
        self.records.len() < NODE_RECORDS_MAX
            || !is_of_group(slot)
            || self.records.contains_key(&slot)
            || below_highest()
    }

    fn highest_group(&self) -> Option<u32> {
        self.records.range(NODE_SLOT + 1..WITHDRAWN_SLOT).next_back().map(|(slot, _)| *slot)
    }

    /// What somebody lacks who has `theirs` of the same life. Who has got as far as this and has not the same misses some in
    /// between, which only all of them mend; that takes a loss without the end of the link.
    pub(super) fn beyond(&self, theirs: &NodeSummary) -> impl Iterator<Item = (u32, &Held)> {
        let (state, groups) = (theirs.state, theirs.groups);
        let (differ, all) = (theirs.digest != self.digest, self.groups == theirs.groups);
        let lacks = move |slot: u32, held: &Held| match slot {
            NODE_SLOT => held.version > state,
            _ => differ && (all || held.version > groups),
        };
        self.records.iter().map(|(slot, held)| (*slot, held)).filter(move |(slot, held)| lacks(*slot, held))
    }

    pub(super) fn summary(&self, name: &NodeName) -> NodeSummary {
        NodeSummary {
            node: name.clone(),
            incarnation: self.incarnation,
            epoch: self.epoch,
            state: self.records.get(&NODE_SLOT).map_or(0, |held| held.version),
            groups: self.groups,
            digest: self.digest,
        }
    }

    /// The fingerprint of all its records.
    pub(super) fn digest(&self) -> u64 {
        self.digest.wrapping_add(self.state_digest)
    }

    fn insert(&mut self, record: Record, bytes: Bytes) {
        let fingerprint = fingerprint(&record.node, self.incarnation, record.slot, record.version);
        if record.slot == NODE_SLOT {
            self.state_digest = fingerprint;
        } else {
            self.digest = self.digest.wrapping_add(fingerprint);
            self.groups = self.groups.max(record.version);
        }
        self.epoch = self.epoch.max(record.epoch);
        self.bytes += bytes.len();
        self.records.insert(record.slot, Held { version: record.version, content: record.content, bytes });
    }

    /// Forgets the record of `slot` and says how many bytes it had.
    fn remove(&mut self, name: &NodeName, slot: u32) -> usize {
        let Some(held) = self.records.remove(&slot) else { return 0 };
        // That of the node itself is never taken away but for another.
        if slot != NODE_SLOT {
            self.digest = self.digest.wrapping_sub(fingerprint(name, self.incarnation, slot, held.version));
        }
        self.bytes -= held.bytes.len();
        held.bytes.len()
    }
}

/// The same number on every machine. Its epoch is not in it: a version tells which record of its incarnation it is.
fn fingerprint(node: &NodeName, incarnation: Incarnation, slot: u32, version: u64) -> u64 {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&incarnation.get().to_be_bytes());
    bytes[8..12].copy_from_slice(&slot.to_be_bytes());
    bytes[12..].copy_from_slice(&version.to_be_bytes());
    xxh3_64_with_seed(&bytes, xxh3_64(node.as_bytes()))
}
