//! Keyed shared managers: one group on all nodes, whose keys are divided among them.
//!
//! ```text
//!   publishers ─▶ front: an inbox a slot of keys ─▶ whoever knows which node has the slot ─▶ the group there, or of this node
//! ```
//!
//! The groups themselves stand in the table, because what comes for them is looked up there, but no publisher sees them. Without other
//! nodes there is no front: the group of this node takes everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use edri_events::{Envelope, EventId, EventName, NodeName, Pattern, key_hash};

use crate::core::Core;
use crate::delivery::Delivery;
use crate::group::{Group, GroupRef};
use crate::limits::{FRONT_NODES_MAX, KEY_SLOTS, SLOT_CAPACITY};
use crate::subscribe::Selection;
use crate::{GroupName, Router};

/// Which of the slots a key falls into. By other bits than those that choose among partitions, so that all partitions of a node have some.
pub(crate) fn slot_of_hash(hash: u64) -> usize {
    (hash >> 32) as usize % KEY_SLOTS
}

/// Which of the [`KEY_SLOTS`] slots an event falls into; `None` without a key.
#[must_use]
pub fn slot_of(envelope: &Envelope) -> Option<usize> {
    envelope.with_key(|key| key.map(|key| slot_of_hash(key_hash(key))))
}

/// Counts the deliveries of a slot that are somewhere on this node.
#[derive(Debug, Clone)]
pub struct Holding(Arc<Held>);

/// One of them; it is over when this is dropped.
#[derive(Debug)]
pub struct Hold(Arc<Held>);

#[derive(Debug)]
struct Held {
    deliveries: AtomicUsize,
    watched: AtomicBool,
    waker: Waker,
}

impl Holding {
    /// Wakes `waker` when there is none any more, if somebody has asked.
    #[must_use]
    pub fn new(waker: Waker) -> Self {
        Self(Arc::new(Held { deliveries: AtomicUsize::new(0), watched: AtomicBool::new(false), waker }))
    }

    /// One more.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.0.deliveries.fetch_add(1, Ordering::SeqCst);
        Hold(Arc::clone(&self.0))
    }

    /// Whether there is none. If there are some, the waker is told when that has changed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        // In this order: whoever drops the last one sees that it is watched, or is seen.
        self.0.watched.store(true, Ordering::SeqCst);
        let over = self.0.deliveries.load(Ordering::SeqCst) == 0;
        if over {
            self.0.watched.store(false, Ordering::SeqCst);
        }
        over
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.0.deliveries.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.deliveries.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.watched.load(Ordering::SeqCst) {
            self.0.waker.wake_by_ref();
        }
    }
}

/// The fronts of a node, by the names of their managers.
#[derive(Debug, Default)]
pub(crate) struct Fronts {
    all: HashMap<Arc<str>, GroupRef>,
    /// Who stands behind each, by the front's id.
    members: HashMap<u64, Vec<Member>>,
    /// The nodes that do or did, by numbers from 1 that are never used again. A request in a front that is for one of them names it by its
    /// number, as the handler.
    nodes: BTreeMap<u32, NodeName>,
    last_number: u32,
    /// Requests in fronts of which it is wanted to be known who gets them, and who has.
    followed: HashMap<(EventId, u64), Option<NodeName>>,
}

/// A node that runs a keyed shared manager, and what that answers there.
#[derive(Debug)]
struct Member {
    node: NodeName,
    selects: Vec<Pattern>,
}

impl Fronts {
    /// The front of this name, and whether it was made for that.
    pub(crate) fn get(&mut self, name: &Arc<str>) -> Option<(GroupRef, bool)> {
        if let Some(front) = self.all.get(name) {
            return Some((Arc::clone(front), false));
        }
        let front = Group::front(name.parse::<GroupName>().ok()?, SLOT_CAPACITY);
        self.all.insert(Arc::clone(name), Arc::clone(&front));
        Some((front, true))
    }

    fn set_members(&mut self, front: u64, members: Vec<Member>) {
        for member in &members {
            if !self.nodes.values().any(|node| *node == member.node) {
                self.last_number = self.last_number.saturating_add(1);
                self.nodes.insert(self.last_number, member.node.clone());
            }
        }
        self.members.insert(front, members);
        let stands = |node: &NodeName| self.members.values().flatten().any(|member| member.node == *node);
        // What was for one that is gone may still wait, so the last of them are remembered.
        let excess = self.nodes.len().saturating_sub(FRONT_NODES_MAX);
        let gone = self.nodes.iter().filter(|(_, node)| !stands(node)).map(|(number, _)| *number);
        for number in gone.take(excess).collect::<Vec<_>>() {
            self.nodes.remove(&number);
        }
    }
}

/// What those want that stand behind a front, and their nodes, by their ids.
pub(crate) type Behind = BTreeMap<u64, (NodeName, Vec<Selection>)>;

/// Says who gets a request that is given to a front.
pub(crate) struct Following {
    core: Arc<Core>,
    request: (EventId, u64),
}

impl Following {
    /// The node that has got it, if it was given to one.
    pub(crate) fn node(&self) -> Option<NodeName> {
        self.core.fronts.lock().followed.get(&self.request).cloned().flatten()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.core.fronts.lock().followed.remove(&self.request);
    }
}

impl Core {
    pub(crate) fn divide_keys(&self) {
        self.divides_keys.store(true, Ordering::Relaxed);
    }

    /// What stands before the groups of a keyed shared manager; nothing where there are no other nodes.
    pub(crate) fn front(&self, name: &Arc<str>) -> Option<GroupRef> {
        if !self.divides_keys.load(Ordering::Relaxed) {
            return None;
        }
        let (front, is_new) = self.fronts.lock().get(name)?;
        if is_new {
            self.add_group(&front);
        }
        Some(front)
    }

    /// Says who stands behind a front.
    pub(crate) fn set_behind(&self, front: &GroupRef, behind: Option<&Behind>) {
        let members = behind.into_iter().flat_map(BTreeMap::values).map(|(node, selections)| Member {
            node: node.clone(),
            selects: selections.iter().map(|selection| selection.pattern.clone()).collect(),
        });
        self.fronts.lock().set_members(front.id(), members.collect());
    }

    /// Whether this node is one of those behind a front, and answers events of this name there.
    pub(crate) fn stands_behind(&self, front: &GroupRef, node: &str, event: &EventName) -> bool {
        let fronts = self.fronts.lock();
        let mut members = fronts.members.get(&front.id()).into_iter().flatten();
        members.any(|member| {
            *member.node == *node && member.selects.iter().any(|select| select.as_str() == event.as_str())
        })
    }

    /// What stands for a node in a delivery to a front.
    pub(crate) fn number_of(&self, node: &str) -> u32 {
        let fronts = self.fronts.lock();
        fronts.nodes.iter().find(|(_, known)| ***known == *node).map_or(0, |(number, _)| *number)
    }

    /// Takes note of who gets this request, which is about to be given to a front.
    pub(crate) fn follow_request(self: &Arc<Self>, event: EventId, front: u64) -> Following {
        let request = (event, front);
        self.fronts.lock().followed.insert(request, None);
        Following { core: Arc::clone(self), request }
    }
}

impl Router {
    /// Says that there will be other nodes: from now on, keyed shared managers have a front.
    pub fn divide_keys(&self) {
        self.core.divide_keys();
    }

    /// What publishers give the events of the keyed shared manager `name` to: an inbox for each slot.
    #[must_use]
    pub fn front(&self, name: &Arc<str>) -> Option<GroupRef> {
        self.core.front(name)
    }

    /// Whether a delivery in a front is for this node: its requester has named this one, or none.
    #[must_use]
    pub fn is_for(&self, delivery: &Delivery, node: &NodeName) -> bool {
        delivery.handler == 0 || self.core.fronts.lock().nodes.get(&delivery.handler) == Some(node)
    }

    /// The node that a delivery in a front is for, if its requester has named one that is not long gone.
    #[must_use]
    pub fn directed(&self, delivery: &Delivery) -> Option<NodeName> {
        self.core.fronts.lock().nodes.get(&delivery.handler).cloned()
    }

    /// Says that a request that was in this front goes to this node, in case its requester wants to know.
    pub fn goes_to(&self, front: &GroupRef, request: &Envelope, node: &NodeName) {
        if let Some(gets_it) = self.core.fronts.lock().followed.get_mut(&(request.id(), front.id())) {
            *gets_it = Some(node.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: usize) -> Member {
        Member { node: NodeName::new(&format!("n{node}")).expect("a name"), selects: Vec::new() }
    }

    #[test]
    fn of_nodes_that_are_gone_only_the_last_are_remembered_and_no_number_names_another() {
        let mut fronts = Fronts::default();
        fronts.set_members(7, vec![member(0)]);
        for node in 1..3 * FRONT_NODES_MAX {
            fronts.set_members(8, vec![member(node), member(node + 1)]);
            assert!(fronts.nodes.len() <= FRONT_NODES_MAX, "{} are remembered", fronts.nodes.len());
        }
        let named = |number: usize| fronts.nodes.get(&u32::try_from(number).expect("small")).map(NodeName::as_str);
        assert_eq!(named(1), Some("n0"), "it runs one still");
        let last = 3 * FRONT_NODES_MAX;
        for node in 1..=last {
            let expected = format!("n{node}");
            let remembered = node + FRONT_NODES_MAX - 1 > last;
            assert_eq!(named(node + 1), remembered.then_some(expected.as_str()), "{node}");
        }
        fronts.set_members(8, (0..2 * FRONT_NODES_MAX).map(member).collect());
        assert_eq!(
            fronts.nodes.values().filter(|node| fronts.members[&8].iter().any(|it| it.node == **node)).count(),
            2 * FRONT_NODES_MAX
        );
    }
}
