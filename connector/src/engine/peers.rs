//! The lives of other nodes that were met, and which of them are to be looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use edri_events::Incarnation;

use super::peer::Peer;

/// Whoever changes one by [`Peers::get_mut`] has it looked at by the next tick, so a tick asks nothing of those to whom
/// nothing has happened and for whom nothing is due.
#[derive(Debug)]
pub(super) struct Peers<K> {
    all: BTreeMap<Incarnation, Peer<K>>,
    /// Those that something may have happened to since the last tick, and those that have something to send again.
    touched: Vec<Incarnation>,
    /// Until when nothing is due for the others. What was due may have been put off since.
    rests_until: Duration,
}

impl<K> Default for Peers<K> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), touched: Vec::new(), rests_until: Duration::MAX }
    }
}

impl<K> Peers<K> {
    pub(super) fn get(&self, life: Incarnation) -> Option<&Peer<K>> {
        self.all.get(&life)
    }

    pub(super) fn get_mut(&mut self, life: Incarnation) -> Option<&mut Peer<K>> {
        let peer = self.all.get_mut(&life)?;
        // Most of what happens in a turn happens to one.
        if self.touched.last() != Some(&life) {
            self.touched.push(life);
        }
        Some(peer)
    }

    pub(super) fn insert(&mut self, life: Incarnation, peer: Peer<K>) {
        self.all.insert(life, peer);
        self.touched.push(life);
    }

    pub(super) fn remove(&mut self, life: Incarnation) -> Option<Peer<K>> {
        self.all.remove(&life)
    }

    pub(super) fn lives(&self) -> Vec<Incarnation> {
        self.all.keys().copied().collect()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Peer<K>> {
        self.all.values()
    }

    /// All of them are looked at by the next tick.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Peer<K>> {
        self.touch_all();
        self.all.values_mut()
    }

    fn touch_all(&mut self) {
        self.touched.clear();
        self.touched.extend(self.all.keys());
    }

    /// When a tick is due at the latest.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let touched = self.touched.iter().filter_map(|life| self.all.get(life)?.deadline()).min();
        let others = Some(self.rests_until).filter(|at| *at != Duration::MAX);
        [touched, others].into_iter().flatten().min()
    }

    /// Those for whom something is due, or that have something to send again. [`Peers::rest`] comes after what is done about it.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Incarnation> {
        if self.rests_until <= now {
            self.touch_all();
            self.rests_until = Duration::MAX;
        } else {
            // In an order that depends on nothing but who they are.
            self.touched.sort_unstable();
            self.touched.dedup();
        }
        self.touched.iter().copied().filter(|life| self.all.get(life).is_some_and(|peer| peer.is_due(now))).collect()
    }

    /// Takes note of when those that were looked at are due next. What cannot be sent again yet, for want of room, is tried by
    /// every tick.
    pub(super) fn rest(&mut self) {
        let Self { all, touched, rests_until } = self;
        touched.retain(|life| {
            let Some(peer) = all.get(life) else { return false };
            *rests_until = peer.deadline().map_or(*rests_until, |due| due.min(*rests_until));
            peer.outbound.has_again()
        });
    }
}
