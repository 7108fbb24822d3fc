//! The groups of other nodes in this node's route table, and the lives of other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use edri_events::{DescriptorRef, Incarnation, NodeName};
use edri_router::system::NodeChanged;
use edri_router::{
    Delivery, Ended, Group, GroupName, GroupOptions, GroupRef, Joining, Overflow, Reason, ReplyTo, Router, Selection,
    Spread,
};

use super::outbox::Outbox;
use super::unpack::Origins;
use super::{Driver, Keep, Life};
use crate::engine::{GroupKey, Output, Why};
use crate::topology::{GroupState, NodeStatus};
use edri_protocol::items::Writer;
use edri_protocol::packet::Lane;

/// How many events that differ are remembered of a life of a node.
const DIFFERENCES_MAX: usize = 1024;

/// Why something is a dead letter that came too late.
const LEFT: &str = "its group has left its node";

/// A change of the route table.
pub(super) struct TableChange {
    join: Vec<Joining>,
    leave: Vec<GroupRef>,
    /// A group that is there no more after it, and why.
    ends: Option<(GroupRef, String)>,
}

impl TableChange {
    fn leaves(group: &GroupRef) -> Self {
        Self { join: Vec::new(), leave: vec![Arc::clone(group)], ends: None }
    }
}

impl Driver {
    // ---- lives -----------------------------------------------------------------------------------------------------

    pub(super) fn met(&mut self, node: NodeName, incarnation: Incarnation) {
        let origins = Origins::new(node.clone(), incarnation);
        let (differs, differs_there) = (BTreeMap::new(), BTreeMap::new());
        self.lives.insert(
            incarnation,
            Life { node: node.clone(), reachable: false, settled: false, origins, differs, differs_there },
        );
        self.divisions.met(incarnation, &node);
    }

    pub(super) fn reach(&mut self, incarnation: Incarnation, status: NodeStatus) {
        let Some(life) = self.lives.get_mut(&incarnation) else { return };
        let changed = std::mem::replace(&mut life.reachable, status.reachable) != status.reachable;
        life.settled = status.settled;
        self.divisions.reach(incarnation, status.reachable);
        let node = life.node.clone();
        for outbox in self.outboxes.of_life(incarnation) {
            outbox.group.set_distance(status.distance.max(1));
            outbox.group.set_reachable(status.reachable && !status.leaving);
        }
        if changed {
            if !status.reachable {
                self.pass_on_backlog(incarnation);
                self.locals.forget_life(incarnation);
            }
            self.announce(&node, incarnation, if status.reachable { "reachable" } else { "unreachable" });
        }
    }

    /// What waits for shared groups of a node that cannot be reached goes to others that share with them.
    fn pass_on_backlog(&mut self, life: Incarnation) {
        for outbox in self.outboxes.of_life(life).filter(|outbox| outbox.group.is_shared()) {
            pass_on(&self.router, outbox, "its node cannot be reached");
        }
    }

    fn announce(&self, node: &NodeName, incarnation: Incarnation, state: &str) {
        tracing::info!(%node, %incarnation, "node is {state}");
        self.router.announce(NodeChanged {
            node: node.to_string(),
            incarnation: incarnation.to_string(),
            state: state.to_owned(),
        });
    }

    pub(super) fn ended(&mut self, node: &NodeName, incarnation: Incarnation, why: Why) {
        self.lives.remove(&incarnation);
        self.divisions.ended(incarnation);
        for outbox in self.outboxes.of_life(incarnation) {
            outbox.life = None;
            outbox.group.set_reachable(false);
        }
        let detail = why.of(node.as_str());
        self.lose_calls(incarnation, &detail);
        self.lose_tunnels(incarnation, &detail);
        self.locals.forget_life(incarnation);
        self.announce(node, incarnation, "gone");
    }

    pub(super) fn forgotten(&mut self, incarnation: Incarnation) {
        let Some(node) = self.lives.get(&incarnation).map(|life| life.node.clone()) else { return };
        self.divisions.renew(incarnation);
        let detail = Why::Forgotten.of(node.as_str());
        self.lose_calls(incarnation, &detail);
        self.lose_tunnels(incarnation, &detail);
    }

    /// Ends everything that was sent and not confirmed or answered, because this node stops.
    pub(super) fn give_back(&mut self) {
        for life in self.lives.keys().copied().collect::<Vec<_>>() {
            self.lose_calls(life, "this node has stopped");
            self.lose_tunnels(life, "this node has stopped");
        }
        self.engine.give_back(self.now());
        while let Some(output) = self.engine.next_output() {
            if let Output::Lost { groups, keep, sent, why } = output {
                self.lost(&groups, &keep, sent, why);
            }
        }
    }

    // ---- groups ----------------------------------------------------------------------------------------------------

    pub(super) fn group(&mut self, key: GroupKey, node: NodeName, life: Incarnation, state: Arc<GroupState>) {
        let Ok(name) = state.name.parse::<GroupName>() else {
            tracing::warn!(%node, group = state.name, "left out: this is no name of a group");
            return;
        };
        // One that was closed because the group had left makes room for the group that has come under the same name.
        let keyed = state.shared && state.keyed;
        let another = |outbox: &Outbox| outbox.is_closed() || outbox.group.divided().is_some() != keyed;
        if self.outboxes.all.get(&key).is_some_and(another)
            && let Some(closed) = self.outboxes.all.remove(&key)
        {
            if let (Some(life), Some(number)) = (closed.life, closed.withdrawn) {
                self.say_left(life, number);
            }
            let group = Arc::clone(&closed.group);
            if closed.in_table {
                self.changes.push(TableChange::leaves(&group));
            }
            group.close(None);
            self.router.remove(&group, Reason::Undelivered, LEFT);
        }
        if !self.outboxes.all.contains_key(&key) {
            let options = GroupOptions {
                name,
                // Events wait for such a group in its front, by key.
                spread: if keyed { Spread::ByKey(1) } else { Spread::Compete },
                capacity: if keyed { 1 } else { self.outbox_events },
                overflow: Overflow::Wait,
                handlers: Vec::new(),
                shared: state.shared,
            };
            let group = Group::remote(options, node.clone());
            let outbox = Outbox::new(key, node.clone(), group, &self.outboxes.ready);
            self.outboxes.all.insert(key, outbox);
        }
        if let Some(name) = self.outboxes.all.get(&key).and_then(|outbox| outbox.group.divided().cloned()) {
            self.front_of(&name);
        }
        let reachable = self.lives.get(&life).is_some_and(|life| life.reachable);
        let distance = self.engine.topology().distance(life).unwrap_or(1).max(1);
        let selections = self.acceptable(&node, life, &state);
        let Some(outbox) = self.outboxes.all.get_mut(&key) else { return };
        outbox.life = Some(life);
        let before = outbox.withdrawn.take();
        outbox.state = Some(Arc::clone(&state));
        outbox.group.set_distance(distance);
        outbox.group.set_reachable(reachable);
        let group = Arc::clone(&outbox.group);
        let leave = if outbox.in_table { vec![Arc::clone(&group)] } else { Vec::new() };
        outbox.in_table = true;
        if let Some(number) = before {
            // What there is goes to the group that has come.
            self.say_left(life, number);
        }
        let join = vec![Joining { group, events: Vec::new(), selections }];
        self.changes.push(TableChange { join, leave, ends: None });
        let learn = state.events.iter().filter_map(|event| event.clone().into_descriptor().ok()).collect();
        self.router.know(learn, &[]);
        self.outboxes.ring(key);
    }

    /// What a group of another node may be given: not what it understands otherwise than this node.
    fn acceptable(&mut self, node: &NodeName, life: Incarnation, state: &GroupState) -> Vec<Selection> {
        let mut selections = Vec::new();
        for selection in &state.selections {
            let event = state.events.iter().find(|event| event.name == selection.select.as_str());
            if let Some(event) = event {
                let why = self.incompatible(event);
                let differs = why.is_some();
                self.compared(node, life, &event.name, why.unwrap_or_default());
                if differs {
                    continue;
                }
            }
            let mut wanted = Selection::new(selection.select.clone());
            wanted.key = selection.key.as_deref().map(Into::into);
            selections.push(wanted);
        }
        selections
    }

    /// Takes note of whether an event differs, and says so there if that is new.
    fn compared(&mut self, node: &NodeName, life: Incarnation, event: &str, why: String) {
        let Some(known) = self.lives.get_mut(&life).map(|life| &mut life.differs) else { return };
        if known.get(event).map_or("", String::as_str) == why {
            return;
        }
        let mut writer = Writer::new();
        writer.differs(event, &why);
        if why.is_empty() {
            known.remove(event);
            tracing::info!(%node, event, "the two nodes know this event alike now");
        } else {
            tracing::error!(%node, event, why, "the two nodes know this event differently, so it is not sent there");
            if known.len() < DIFFERENCES_MAX {
                known.insert(event.to_owned(), why);
            }
        }
        self.send_to_node(life, Lane::Normal, Vec::new(), writer.take().into(), 0);
        self.views.dirty();
    }

    /// Another node says that it knows an event otherwise than this one, and does not send it; or does again.
    pub(super) fn differs(&mut self, from: Incarnation, event: &str, why: &str) {
        let Some(Life { node, differs_there: differs, .. }) = self.lives.get_mut(&from) else { return };
        if why.is_empty() {
            differs.remove(event);
        } else if differs.len() < DIFFERENCES_MAX {
            tracing::error!(%node, event, why, "the two nodes know this event differently, so it is not sent here");
            differs.insert(event.to_owned(), why.to_owned());
        }
        self.views.dirty();
    }

    /// Why an event that another node declares cannot be exchanged with this one, if it cannot.
    fn incompatible(&self, event: &edri_protocol::EventDeclaration) -> Option<String> {
        let ours = self.router.declared(&event.name)?;
        crate::compatible::check(&ours, event).err()
    }

    /// An event was declared here: those who want it may understand it otherwise.
    pub(super) fn recheck(&mut self, descriptor: &DescriptorRef) {
        let name = descriptor.name().as_str();
        let wanting = self.outboxes.all.values().filter(|outbox| outbox.in_table);
        let concerned = wanting.filter_map(|outbox| {
            let state = outbox.state.as_ref()?;
            let known = self.lives.get(&outbox.life?)?.differs.contains_key(name);
            let mut same_name = state.events.iter().filter(|event| event.name == name);
            let changed = same_name.any(|event| self.incompatible(event).is_some() != known);
            Some((outbox.key, outbox.node.clone(), outbox.life?, Arc::clone(state))).filter(|_| changed)
        });
        let concerned: Vec<_> = concerned.collect();
        for (key, node, life, state) in concerned {
            self.group(key, node, life, state);
        }
    }

    pub(super) fn withdrawn(&mut self, key: GroupKey, number: u32) {
        let Some(outbox) = self.outboxes.all.get_mut(&key) else { return };
        outbox.withdrawn = Some(number);
        if std::mem::take(&mut outbox.in_table) {
            self.changes.push(TableChange::leaves(&outbox.group));
        }
        // What is in it is still sent, and whoever waits for room in it is still served.
        self.outboxes.ring(key);
    }

    /// An outbox is empty: if nothing more is to come into it, its node is told so.
    pub(super) fn drained(&mut self, key: GroupKey) {
        let Some(outbox) = self.outboxes.all.get(&key) else { return };
        let (Some(number), Some(life)) = (outbox.withdrawn, outbox.life) else { return };
        // From here on whoever comes is told that nobody is there. Somebody may have come just before, or have a place still to fill.
        outbox.group.close(None);
        if !outbox.group.is_finished() {
            return self.outboxes.ring(key);
        }
        // Requests that were written for it have to be sent while it has a number.
        self.flush_high();
        let Some(outbox) = self.outboxes.all.remove(&key) else { return };
        self.say_left(life, number);
        // Another of its name may have come meanwhile.
        if self.engine.number_of(key) == Some(number) {
            self.engine.forget_group(key);
        }
        // What is under way is accounted for by the group, which is kept with it.
        self.router.remove(&outbox.group, Reason::Undelivered, LEFT);
    }

    /// Tells a life of a node that nothing more is sent to the group that had this number there.
    pub(super) fn say_left(&mut self, life: Incarnation, number: u32) {
        let mut writer = Writer::new();
        writer.left(number);
        self.send_to_node(life, Lane::Normal, Vec::new(), writer.take().into(), 0);
    }

    pub(super) fn gone(&mut self, key: GroupKey, why: Why) {
        let Some(mut outbox) = self.outboxes.all.remove(&key) else { return };
        let why = why.of(outbox.node.as_str());
        if outbox.group.is_shared() {
            // Somebody may have come since it could not be reached.
            pass_on(&self.router, &mut outbox, &why);
        }
        let leave = if outbox.in_table { vec![Arc::clone(&outbox.group)] } else { Vec::new() };
        self.changes.push(TableChange { join: Vec::new(), leave, ends: Some((outbox.group, why)) });
    }

    /// Makes the changes of the route table that have come together.
    pub(super) async fn change_table(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let (mut changes, mut ends) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut self.changes) {
            changes.push((change.join, change.leave));
            ends.extend(change.ends);
        }
        for changed in self.router.change_each(changes).await {
            if let Err(error) = changed {
                tracing::error!(%error, "a group of another node cannot be routed to");
            }
        }
        for (group, why) in ends {
            group.close(None);
            self.router.remove(&group, Reason::Undelivered, &why);
        }
    }

    /// Events for groups of other nodes are lost, or nobody knows whether they have arrived.
    pub(super) fn lost(&mut self, groups: &[GroupKey], keep: &Keep, sent: bool, why: Why) {
        let Some(batch) = keep else { return };
        for group in groups.iter().filter_map(|key| batch.group(*key)) {
            let node = group.node().map(ToString::to_string).unwrap_or_default();
            let why_lost = why.of(&node);
            let (reason, detail) = match sent {
                true => (Reason::Unconfirmed, format!("it may have arrived, and was not confirmed: {why_lost}")),
                false => (Reason::Undelivered, format!("it did not arrive: {why_lost}")),
            };
            for envelope in &batch.events {
                let mut delivery = Delivery::arriving(envelope.clone(), ReplyTo::None);
                delivery.redelivered = sent || batch.redelivered;
                if let Some(name) = group.divided().filter(|_| why != Why::Stopped) {
                    group.settle(1, Ended::Forwarded);
                    self.divisions.give_back(name, delivery);
                    continue;
                }
                if group.is_shared() && why != Why::Stopped {
                    match self.router.pass_on(group, delivery) {
                        Ok(()) => {
                            group.settle(1, Ended::Forwarded);
                            continue;
                        }
                        Err(back) => delivery = back,
                    }
                }
                self.router.discard(group, delivery, reason, &detail);
                group.release(1);
            }
        }
    }
}

/// Gives what waits for a shared group to others that share with it and can be reached, if there are any.
fn pass_on(router: &Router, outbox: &mut Outbox, why_not: &str) {
    let others = router.groups();
    let others = others.iter().any(|other| other.shares_with(&outbox.group) && other.is_reachable());
    while others && let Some(delivery) = outbox.take() {
        match router.pass_on(&outbox.group, delivery) {
            Ok(()) => outbox.group.count(Ended::Forwarded),
            Err(delivery) => router.discard(&outbox.group, delivery, Reason::Undelivered, why_not),
        }
    }
    outbox.give_back();
}
