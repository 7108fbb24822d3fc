//! The groups of other nodes: where each is now, what it may be sent, and what waits for it to come back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use edri_events::{Incarnation, NodeName};

use super::Kept;
use crate::topology::GroupState;

/// Distinguishes the groups of other nodes. A group of the same name on the same node has the same key in every life.
pub type GroupKey = u32;

#[derive(Debug)]
pub(super) struct RemoteGroups<K> {
    groups: BTreeMap<GroupKey, RemoteGroup<K>>,
    keys: BTreeMap<(NodeName, String), GroupKey>,
    next: GroupKey,
    /// Those that have something left over or are to come back, and perhaps some that had: what a tick looks at.
    owing: BTreeSet<GroupKey>,
}

#[derive(Debug)]
struct RemoteGroup<K> {
    node: NodeName,
    name: String,
    current: Option<Current>,
    /// What an earlier life of its node did not acknowledge.
    unacknowledged: VecDeque<Kept<K>>,
    /// When it is given up, unless it comes back.
    give_up: Option<Duration>,
    /// Another node's group of the same name does as well.
    shared: bool,
}

/// Where a group is now, and its credit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current {
    pub(super) node: Incarnation,
    number: u32,
    /// What each session begins with.
    initial: (u64, u64),
    granted: (u64, u64),
    used: (u64, u64),
}

impl Current {
    pub(super) fn credit(&self) -> (u64, u64) {
        (self.granted.0.saturating_sub(self.used.0), self.granted.1.saturating_sub(self.used.1))
    }

    fn has_credit(&self) -> bool {
        let (events, bytes) = self.credit();
        events > 0 && bytes > 0
    }
}

impl<K> Default for RemoteGroups<K> {
    fn default() -> Self {
        Self { groups: BTreeMap::new(), keys: BTreeMap::new(), next: 0, owing: BTreeSet::new() }
    }
}

impl<K: Clone> RemoteGroups<K> {
    /// A group is there under this number.
    pub(super) fn set(
        &mut self,
        node: &NodeName,
        incarnation: Incarnation,
        number: u32,
        state: &GroupState,
    ) -> GroupKey {
        let key = *self.keys.entry((node.clone(), state.name.clone())).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let group = self.groups.entry(key).or_insert_with(|| RemoteGroup {
            node: node.clone(),
            name: state.name.clone(),
            current: None,
            unacknowledged: VecDeque::new(),
            give_up: None,
            shared: state.shared,
        });
        group.shared = state.shared;
        // Of two groups of one name in one life, the one with the higher number is the later one.
        let initial = super::initial_credit(state);
        match group.current.as_mut().filter(|current| current.node == incarnation && current.number >= number) {
            // What this session was granted stays.
            Some(current) if current.number == number => current.initial = initial,
            Some(_) => {}
            None => {
                group.current = Some(Current { node: incarnation, number, initial, granted: initial, used: (0, 0) });
            }
        }
        group.give_up = None;
        key
    }

    /// Where a group is, if new events may be sent to it: not before what an earlier life left over.
    pub(super) fn sendable(&self, key: GroupKey) -> Option<Current> {
        self.groups.get(&key).filter(|group| group.unacknowledged.is_empty())?.current
    }

    pub(super) fn number(&self, key: GroupKey) -> Option<u32> {
        Some(self.groups.get(&key)?.current?.number)
    }

    /// What is sent to a group in this life of its node counts against the credit that this life has granted.
    pub(super) fn spend(&mut self, key: GroupKey, node: Incarnation, events: u64, bytes: u64) {
        let current = self.groups.get_mut(&key).and_then(|group| group.current.as_mut());
        if let Some(current) = current.filter(|current| current.node == node) {
            current.used.0 += events;
            current.used.1 += bytes;
        }
    }

    /// What the group has granted under this number; nothing if it goes by another one now, which counts anew.
    pub(super) fn grant(&mut self, key: GroupKey, number: u32, events: u64, bytes: u64) {
        let current = self.groups.get_mut(&key).and_then(|group| group.current.as_mut());
        if let Some(current) = current.filter(|current| current.number == number) {
            current.granted.0 = current.granted.0.max(events);
            current.granted.1 = current.granted.1.max(bytes);
        }
    }

    /// A new session with this life began: what was granted and used belongs to the old one.
    pub(super) fn renew(&mut self, node: Incarnation) {
        let of_node = self.groups.values_mut().filter_map(|group| group.current.as_mut());
        for current in of_node.filter(|current| current.node == node) {
            current.granted = current.initial;
            current.used = (0, 0);
        }
    }

    /// The numbers that these groups have in this life of their node.
    pub(super) fn numbers(&self, keys: &[GroupKey], node: Incarnation) -> Vec<u32> {
        let current = keys.iter().filter_map(|key| self.groups.get(key)?.current);
        current.filter(|current| current.node == node).map(|current| current.number).collect()
    }

    /// Keeps what a life that has ended did not acknowledge, before everything that is left over already. What is for groups
    /// that are not known any more, or that others can stand in for, comes back.
    pub(super) fn keep_for_next_life(&mut self, kept: Kept<K>) -> Option<Kept<K>> {
        let (known, unknown): (Vec<_>, Vec<_>) =
            kept.groups.iter().copied().partition(|key| self.groups.get(key).is_some_and(|group| !group.shared));
        for key in known {
            if let Some(group) = self.groups.get_mut(&key) {
                group.unacknowledged.push_front(Kept { groups: vec![key], ..kept.clone() });
                self.owing.insert(key);
            }
        }
        (!unknown.is_empty()).then(|| Kept { groups: unknown, ..kept })
    }

    /// The groups of a life that has ended are nowhere now.
    pub(super) fn leave(&mut self, node: Incarnation, give_up: Duration) {
        for (key, group) in &mut self.groups {
            if group.current.is_some_and(|current| current.node == node) {
                group.current = None;
                group.give_up.get_or_insert(give_up);
                self.owing.insert(*key);
            }
        }
    }

    /// The groups that are back and have something left over.
    pub(super) fn returned(&self) -> Vec<GroupKey> {
        self.owing.iter().copied().filter(|key| self.left_over(*key).is_some()).collect()
    }

    /// Where the next thing that is left over for a group can be sent.
    pub(super) fn next_life(&self, key: GroupKey) -> Option<Incarnation> {
        self.left_over(key).filter(Current::has_credit).map(|current| current.node)
    }

    /// Where what is left over for a group waits for credit.
    pub(super) fn starved(&self, key: GroupKey) -> Option<Incarnation> {
        self.left_over(key).filter(|current| !current.has_credit()).map(|current| current.node)
    }

    fn left_over(&self, key: GroupKey) -> Option<Current> {
        self.groups.get(&key).filter(|group| !group.unacknowledged.is_empty())?.current
    }

    pub(super) fn take_for_next_life(&mut self, key: GroupKey) -> Option<Kept<K>> {
        self.groups.get_mut(&key)?.unacknowledged.pop_front()
    }

    /// Forgets a group; what was left over for it comes back.
    pub(super) fn remove(&mut self, key: GroupKey) -> VecDeque<Kept<K>> {
        let Some(group) = self.groups.remove(&key) else { return VecDeque::new() };
        self.keys.remove(&(group.node, group.name));
        group.unacknowledged
    }

    pub(super) fn remove_node(&mut self, node: &NodeName) -> Vec<(GroupKey, VecDeque<Kept<K>>)> {
        let keys: Vec<_> = self.groups.iter().filter(|(_, group)| group.node == *node).map(|(key, _)| *key).collect();
        keys.into_iter().map(|key| (key, self.remove(key))).collect()
    }

    /// Takes what is left over for groups that are to come back.
    pub(super) fn take_left_over(&mut self) -> Vec<Kept<K>> {
        self.groups.values_mut().flat_map(|group| std::mem::take(&mut group.unacknowledged)).collect()
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.owing.iter().filter_map(|key| self.groups.get(key)?.give_up).min()
    }

    /// Forgets the groups that did not come back in time.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<(GroupKey, VecDeque<Kept<K>>)> {
        if self.owing.is_empty() {
            return Vec::new();
        }
        let groups = &self.groups;
        let owes = |group: &RemoteGroup<K>| group.give_up.is_some() || !group.unacknowledged.is_empty();
        self.owing.retain(|key| groups.get(key).is_some_and(owes));
        let due = |group: &RemoteGroup<K>| group.give_up.is_some_and(|at| at <= now);
        let keys: Vec<_> = self.owing.iter().copied().filter(|key| groups.get(key).is_some_and(due)).collect();
        keys.into_iter().map(|key| (key, self.remove(key))).collect()
    }
}
