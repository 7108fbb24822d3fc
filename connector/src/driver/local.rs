//! The groups of this node, as others are told of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use edri_events::{DescriptorRef, Incarnation};
use edri_protocol::EventDeclaration;
use edri_router::{GroupRef, Interest, Selection};

use super::Driver;
use crate::limits::{GROUP_WINDOW_BYTES, GROUP_WINDOW_EVENTS, LEFT_GROUPS_MAX};
use crate::topology::{self, GroupState, Window};

/// The groups of this node by the numbers that other nodes know them by.
#[derive(Default)]
pub(super) struct Locals {
    groups: BTreeMap<u32, Local>,
    by_id: HashMap<u64, u32>,
    by_name: HashMap<String, u32>,
    next: u32,
    /// Those that were withdrawn, oldest first: what still comes for them is accounted for.
    left: VecDeque<u32>,
}

struct Local {
    group: GroupRef,
    name: String,
    selections: Vec<Selection>,
    events: BTreeMap<String, DescriptorRef>,
    /// Withdrawn: the lives that are still to say that nothing more comes.
    leaving: Option<BTreeSet<Incarnation>>,
}

impl Locals {
    pub(super) fn group(&self, number: u32) -> Option<&GroupRef> {
        self.groups.get(&number).map(|local| &local.group)
    }

    /// A life says that it sends nothing more to this group.
    pub(super) fn has_left(&mut self, number: u32, from: Incarnation) {
        if let Some(waited) = self.groups.get_mut(&number).and_then(|local| local.leaving.as_mut()) {
            waited.remove(&from);
        }
    }

    /// A life is there no more: nothing comes from it.
    pub(super) fn forget_life(&mut self, life: Incarnation) {
        for local in self.groups.values_mut() {
            if let Some(waited) = &mut local.leaving {
                waited.remove(&life);
            }
        }
    }

    /// Whether a group, by its id, was withdrawn and nothing more comes for it; or is not known at all.
    pub(super) fn is_over(&self, id: u64) -> bool {
        let found = self.groups.values().find(|local| local.group.id() == id);
        found.is_none_or(|local| local.leaving.as_ref().is_some_and(BTreeSet::is_empty))
    }

    /// The number of a group, by its id.
    pub(super) fn number(&self, id: u64) -> Option<u32> {
        self.groups.iter().find(|(_, local)| local.group.id() == id).map(|(number, _)| *number)
    }

    /// Whether some of those who were told that a group is withdrawn have not said yet that nothing more comes.
    pub(super) fn is_awaited(&self) -> bool {
        self.groups.values().any(|local| local.leaving.as_ref().is_some_and(|waited| !waited.is_empty()))
    }
}

impl Driver {
    /// Takes note of what has changed on this node.
    pub(super) fn interest(&mut self, change: Interest) {
        match change {
            Interest::Joined { group, selections, events } => self.joined(group, selections, events),
            Interest::Left { group } => self.left(group),
            Interest::Declared(descriptor) => self.declared(&descriptor),
            _ => {}
        }
    }

    fn joined(&mut self, group: GroupRef, selections: Vec<Selection>, events: Vec<DescriptorRef>) {
        let name = group.name().to_text();
        let reused = self.locals.by_name.get(&name).copied();
        let reused =
            reused.filter(|number| self.locals.groups.get(number).is_some_and(|local| local.leaving.is_none()));
        let number = reused.unwrap_or_else(|| {
            self.locals.next += 1;
            self.locals.next
        });
        self.locals.by_id.insert(group.id(), number);
        self.locals.by_name.insert(name.clone(), number);
        let events = events.into_iter().map(|event| (event.name().to_string(), event)).collect();
        let divided = group.divided().cloned();
        self.locals.groups.insert(number, Local { group, name, selections, events, leaving: None });
        self.tell(number);
        self.divides(number, divided);
    }

    fn left(&mut self, id: u64) {
        let Some(number) = self.locals.by_id.remove(&id) else { return };
        let Some(local) = self.locals.groups.get_mut(&number).filter(|local| local.group.id() == id) else { return };
        local.leaving = Some(self.lives.iter().filter(|(_, life)| life.reachable).map(|(life, _)| *life).collect());
        if self.locals.by_name.get(&local.name) == Some(&number) {
            self.locals.by_name.remove(&local.name);
        }
        self.locals.left.push_back(number);
        if self.locals.left.len() > LEFT_GROUPS_MAX
            && let Some(oldest) = self.locals.left.pop_front()
        {
            self.locals.groups.remove(&oldest);
            self.engine.forget_own_group(oldest);
        }
        self.engine.withdraw_group(number);
        self.divisions.leave(number);
    }

    /// Tells others that nothing is taken here any more. What they have sent by then still comes.
    pub(super) fn withdraw_all(&mut self) {
        let groups: Vec<u64> = self.locals.by_id.keys().copied().collect();
        groups.into_iter().for_each(|group| self.left(group));
        self.views.dirty();
    }

    /// An event is known, or better known than before: groups that select it by name say what it is.
    fn declared(&mut self, descriptor: &DescriptorRef) {
        let name = descriptor.name().to_string();
        let wanting = self.locals.groups.iter_mut().filter(|(_, local)| local.leaving.is_none());
        let wanting = wanting.filter(|(_, local)| local.selections.iter().any(|s| s.pattern.as_str() == name));
        let mut numbers = Vec::new();
        for (number, local) in wanting {
            local.events.insert(name.clone(), descriptor.clone());
            numbers.push(*number);
        }
        for number in numbers {
            self.tell(number);
        }
        self.declared.push(descriptor.clone());
    }

    /// Tells others of a group.
    fn tell(&mut self, number: u32) {
        let Some(local) = self.locals.groups.get(&number) else { return };
        let selections = local.selections.iter().map(|selection| topology::Selection {
            select: selection.pattern.clone(),
            key: selection.key.as_ref().map(ToString::to_string),
        });
        let state = GroupState {
            name: local.name.clone(),
            shared: local.group.is_shared() || local.group.divided().is_some(),
            keyed: local.group.divided().is_some(),
            answers: local.group.name().manager().is_some(),
            selections: selections.collect(),
            events: local.events.values().map(|descriptor| EventDeclaration::of(descriptor)).collect(),
            window: Window {
                events: GROUP_WINDOW_EVENTS.min(u32::try_from(local.group.capacity()).unwrap_or(u32::MAX)).max(1),
                bytes: GROUP_WINDOW_BYTES,
            },
        };
        if let Err(error) = self.engine.set_group(number, state) {
            tracing::error!(%error, "other nodes do not hear of a group of this one");
        }
    }
}
