//! What is said of other nodes and their groups: the difference between what was said last and what is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use edri_events::{Incarnation, NodeName};

use super::known::Node;
use super::{GroupState, Loss, NodeStatus, NodeView, Output, Topology};

/// What was said last of another node.
pub(super) struct Shown {
    pub(super) incarnation: Incarnation,
    pub(super) status: NodeStatus,
    groups: BTreeMap<u32, Arc<GroupState>>,
    /// Another life took the place of this one's records, so all groups have to be looked at when they are back.
    recheck: bool,
}

impl Topology {
    /// Says what is new of nodes and groups, and forgets who was without a path for too long. After paths were found, all
    /// nodes are looked at.
    pub(super) fn show(&mut self, now: Duration, all: bool, out: &mut Vec<Output>) {
        let touched = std::mem::take(&mut self.touched);
        let names: Vec<NodeName> = if all {
            self.known.iter().map(|(name, _)| name.clone()).collect()
        } else {
            touched.keys().cloned().collect()
        };
        for name in &names {
            self.show_node(name, touched.get(name), out);
        }
        let expired = self.lost.iter().filter(|(_, since)| now >= **since + self.options.expiry);
        for name in expired.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.forget(&name, Loss::Expired, out);
        }
    }

    fn show_node(&mut self, name: &NodeName, touched: Option<&BTreeSet<u32>>, out: &mut Vec<Output>) {
        let Some(node) = self.known.get(name) else { return };
        let route = self.routes.get(&node.incarnation);
        let Some(shown) = self.shown.get_mut(name) else {
            if route.is_some() {
                self.show_new(name, out);
            }
            return;
        };
        if shown.incarnation != node.incarnation {
            if route.is_some() {
                self.hide(name, Loss::Replaced, out);
                self.show_new(name, out);
            } else if shown.status.leaving {
                self.hide(name, Loss::Left, out);
            } else {
                shown.recheck = true;
                let status = NodeStatus { reachable: false, ..shown.status };
                shown.say(name, status, out);
            }
            return;
        }
        let status = status(node, route.map(|route| route.distance), shown.status.distance);
        if status.leaving && !self.paths.contains_key(name) {
            return self.forget(name, Loss::Left, out);
        }
        shown.say(name, status, out);
        if !shown.recheck {
            shown.show_groups(name, node, touched.into_iter().flatten().copied(), out);
        } else if status.reachable {
            shown.recheck = false;
            let slots: BTreeSet<u32> = shown.groups.keys().chain(node.records.keys()).copied().collect();
            shown.show_groups(name, node, slots, out);
        }
    }

    /// Says that there is a path to a life that was not shown.
    fn show_new(&mut self, name: &NodeName, out: &mut Vec<Output>) {
        let Some(node) = self.known.get(name) else { return };
        let distance = self.routes.get(&node.incarnation).map(|route| route.distance);
        let status = status(node, distance, 0);
        let incarnation = node.incarnation;
        let mut shown = Shown { incarnation, status, groups: BTreeMap::new(), recheck: false };
        out.push(Output::NodeUp { node: name.clone(), incarnation, status });
        shown.show_groups(name, node, node.records.keys().copied(), out);
        self.names.insert(incarnation, name.clone());
        self.shown.insert(name.clone(), shown);
    }

    /// Says that the life that was shown of a node has ended.
    fn hide(&mut self, name: &NodeName, why: Loss, out: &mut Vec<Output>) {
        let Some(Shown { incarnation, .. }) = self.shown.remove(name) else { return };
        self.names.remove(&incarnation);
        out.push(Output::NodeGone { node: name.clone(), incarnation, why });
    }

    fn forget(&mut self, name: &NodeName, why: Loss, out: &mut Vec<Output>) {
        self.hide(name, why, out);
        self.known.forget(name);
        self.lost.remove(name);
    }

    /// All nodes that are shown and this one, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let view = |name: &NodeName, incarnation, status: NodeStatus, groups| {
            let node = self.known.get(name).filter(|node| node.incarnation == incarnation);
            let links = node.and_then(Node::state).map_or(&[][..], |state| &state.links);
            let by = self.paths.get(name).filter(|_| status.reachable).map(|path| path.first.clone());
            let links = links.iter().map(|link| link.node.clone()).collect();
            NodeView {
                node: name.clone(),
                incarnation,
                status,
                by: by.filter(|by| *by != self.own.name),
                links,
                groups,
            }
        };
        let mut views: Vec<NodeView> = self
            .shown
            .iter()
            .map(|(name, shown)| view(name, shown.incarnation, shown.status, shown.groups.len()))
            .collect();
        if let Some(own) = self.known.get(&self.own.name) {
            let groups = own.records.keys().filter(|slot| own.group(**slot).is_some()).count();
            views.push(view(&self.own.name, self.own.incarnation, status(own, Some(0), 0), groups));
        }
        views.sort_by(|a, b| a.node.cmp(&b.node));
        views
    }
}

impl Shown {
    fn say(&mut self, name: &NodeName, status: NodeStatus, out: &mut Vec<Output>) {
        if self.status != status {
            self.status = status;
            out.push(Output::NodeChanged { node: name.clone(), incarnation: self.incarnation, status });
        }
    }

    fn show_groups(
        &mut self,
        name: &NodeName,
        node: &Node,
        slots: impl IntoIterator<Item = u32>,
        out: &mut Vec<Output>,
    ) {
        for number in slots {
            let state = node.group(number);
            if self.groups.get(&number) == state {
                continue;
            }
            match state {
                Some(state) => drop(self.groups.insert(number, Arc::clone(state))),
                None => drop(self.groups.remove(&number)),
            }
            let (node, incarnation) = (name.clone(), self.incarnation);
            out.push(Output::GroupChanged { node, incarnation, number, state: state.cloned() });
        }
    }
}

/// How a node is: with a path of this distance, or without one and the distance that it had.
fn status(node: &Node, distance: Option<u32>, last: u32) -> NodeStatus {
    let (reachable, distance) = (distance.is_some(), distance.unwrap_or(last));
    let Some(state) = node.state() else { return NodeStatus { reachable, distance, ..NodeStatus::default() } };
    NodeStatus {
        reachable,
        distance,
        switch: state.switch,
        settled: state.settled,
        leaving: state.leaving,
        protocol: state.protocol,
    }
}
