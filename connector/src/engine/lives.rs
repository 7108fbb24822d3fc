//! What follows for sessions and groups from who is where: lives that are met, out of reach, and over.

use std::sync::Arc;
use std::time::Duration;

use edri_events::{Incarnation, NodeName};
use edri_protocol::packet::Lane;

use super::{Engine, Output, Peer, Why, lost};
use crate::limits::PAST_LIVES_MAX;
use crate::topology::{self, GroupState, Loss, NodeStatus};

impl<K: Clone> Engine<K> {
    pub(super) fn settle_topology(&mut self, now: Duration) {
        for output in self.topology.poll(now) {
            match output {
                topology::Output::Send { links, message } => {
                    self.outputs.push_back(Output::Control { links, message });
                }
                topology::Output::NodeUp { node, incarnation, status } => self.meet(node, incarnation, status),
                topology::Output::NodeChanged { incarnation, status, .. } => self.reach(incarnation, status),
                topology::Output::NodeGone { node, incarnation, why } => {
                    let why = match why {
                        Loss::Replaced => Why::Restarted,
                        Loss::Left => Why::Left,
                        _ => Why::Expired,
                    };
                    self.end_life(now, node, incarnation, why);
                }
                topology::Output::GroupChanged { node, incarnation, number, state } => {
                    self.group_changed(node, incarnation, number, state);
                }
                topology::Output::PathsChanged { destinations } => {
                    for incarnation in destinations {
                        self.path_changed(now, incarnation);
                    }
                }
                topology::Output::Synced { link } => self.outputs.push_back(Output::Synced { link }),
                topology::Output::Twin { other, .. } => self.outputs.push_back(Output::Twin { other }),
                topology::Output::Refused { link, why, .. } => self.outputs.push_back(Output::Refused { link, why }),
            }
        }
    }

    fn meet(&mut self, node: NodeName, incarnation: Incarnation, status: NodeStatus) {
        let past = self.past.remove(&incarnation);
        self.past_order.retain(|other| *other != incarnation);
        let peer = Peer::new(node.clone(), past, self.options.timing);
        self.peers.insert(incarnation, peer);
        self.outputs.push_back(Output::Met { node, incarnation });
        self.reach(incarnation, status);
    }

    fn reach(&mut self, node: Incarnation, status: NodeStatus) {
        self.outputs.push_back(Output::Reach { node, status });
    }

    fn path_changed(&mut self, now: Duration, incarnation: Incarnation) {
        let reachable = self.topology.next_hop(incarnation).is_some();
        if let Some(peer) = self.peers.get_mut(incarnation) {
            peer.path(now, reachable);
        }
    }

    fn group_changed(&mut self, node: NodeName, incarnation: Incarnation, number: u32, state: Option<Arc<GroupState>>) {
        let Some(peer) = self.peers.get_mut(incarnation) else { return };
        match state {
            Some(state) => {
                let key = self.groups.set(&node, incarnation, number, &state);
                let renamed = peer.groups.insert(number, key).filter(|other| *other != key);
                self.outputs.push_back(Output::Group { key, node, incarnation, state });
                if let Some(other) = renamed.filter(|other| self.groups.number(*other) == Some(number)) {
                    let rest = self.groups.remove(other);
                    self.outputs.extend(rest.into_iter().map(|kept| lost(kept, Why::NoGroup)));
                    self.outputs.push_back(Output::Gone { key: other, why: Why::NoGroup });
                }
            }
            None => {
                // A group of the same name may have come meanwhile under another number: that one stays.
                let Some(key) = peer.groups.get(&number).copied() else { return };
                if self.groups.number(key) == Some(number) {
                    self.outputs.push_back(Output::Withdrawn { key, number });
                } else {
                    peer.groups.remove(&number);
                    self.outputs.push_back(Output::Superseded { node: incarnation, number });
                }
            }
        }
    }

    fn end_life(&mut self, now: Duration, node: NodeName, incarnation: Incarnation, why: Why) {
        let Some(peer) = self.peers.remove(incarnation) else { return };
        self.remember(incarnation, peer.session());
        let give_up = now + self.options.return_grace;
        let mut left_over = Vec::new();
        for (lane, mut kept, sent) in peer.outbound.into_unacknowledged() {
            kept.redelivered |= sent;
            kept.had.extend(sent.then_some(incarnation));
            match why {
                Why::Restarted if lane == Lane::Normal => left_over.push(kept),
                _ if kept.groups.is_empty() => {}
                _ => self.outputs.push_back(lost(kept, why)),
            }
        }
        // The newest first, each before what an even earlier life left over.
        let nowhere = left_over.into_iter().rev().filter_map(|kept| self.groups.keep_for_next_life(kept));
        let nowhere: Vec<_> = nowhere.collect();
        // What others may have instead comes back in the order in which it was sent.
        self.outputs.extend(nowhere.into_iter().rev().map(|kept| lost(kept, why)));
        // Before its groups are gone, whose calls end with it.
        self.outputs.push_back(Output::Ended { node: node.clone(), incarnation, why });
        if why == Why::Restarted {
            self.groups.leave(incarnation, give_up);
        } else {
            for (key, rest) in self.groups.remove_node(&node) {
                self.outputs.extend(rest.into_iter().map(|kept| lost(kept, why)));
                self.outputs.push_back(Output::Gone { key, why });
            }
        }
    }

    fn remember(&mut self, incarnation: Incarnation, session: u32) {
        if self.past.insert(incarnation, session).is_none() {
            self.past_order.push_back(incarnation);
        }
        if self.past_order.len() > PAST_LIVES_MAX
            && let Some(oldest) = self.past_order.pop_front()
        {
            self.past.remove(&oldest);
        }
    }
}
