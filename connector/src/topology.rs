//! Who is where, and who wants what: every node tells all others its links and its groups, and finds shortest paths.
//!
//! Pure: no clock, no socket, no randomness. What happens is told by the methods that change something; what follows
//! from it comes out of [`Topology::poll`], which alone is told the time. Nothing depends on the order of a hash map.
//!
//! ```text
//! link_up, link_down, receive ─▶ known: records, by node      ─▶ paths ─▶ shown: what poll has said of nodes and groups
//! set_group, set_settled …    ─▶ own: this node's own records     │
//!                                                                 └─▶ exchange: what neighbours are told
//! ```
//!
//! # Records
//!
//! A node describes itself in [`Record`]s: one of itself with its links (slot 0), one of each group. Nobody else makes or
//! changes them. Of one incarnation, the record with the higher version replaces the other of its slot; of two
//! incarnations of a node, the one with the higher epoch replaces the other whole, and at the same epoch the one with the
//! higher number. That is a maximum, so all nodes that have heard the same keep the same,
//! whatever came first.
//!
//! A node that hears of its own name in a life beyond its own (what is left of an earlier process, or a second process of
//! that name) raises its epoch above it and tells everything anew. What is left of the dead cannot raise; a living twin can, so
//! after [`TWIN_CLAIMS`](crate::limits::TWIN_CLAIMS) claims against one incarnation the lower number gives up:
//! [`Output::Twin`].
//!
//! # Telling
//!
//! What is news is told at once to all links but the one it came by. Beside that, neighbours compare a fingerprint of what
//! they have, every [`Options::digest_every`]; who finds another sends a summary, and is told what it lacks. A link that
//! comes up begins with that summary, so one that was away for a moment costs no group's record; it carries no news before.
//! Records of groups go before those of nodes, and a path to a node takes the node's record, so a node is not seen without
//! its groups while nothing is lost. An older record of the same
//! life is not answered: whoever has a newer one has told it to that link when it came, or it came by that link, or before
//! the link, and then the summaries told it; what was lost, the fingerprint finds. An older *life* is answered, because its
//! node must hear of the other to raise its epoch.
//!
//! # Why the dead do not come back
//!
//! Each node forgets a node that it has had no path to for [`Options::expiry`], by its own clock, so for a while some have
//! what others have forgotten. What they have cannot spread:
//!
//! 1. A summary is answered, and a fingerprint made, with the records of nodes that the teller *has a path to*. Others are told
//!    only to who names the node itself: no new place comes to have them. A path takes links that both ends list, so its first
//!    dead node is listed by a living one, which takes it off its list when the link ends, and tells all it is joined
//!    to. Hence for nobody who has heard the living lead paths to the dead.
//! 2. What is under way at that moment may still be kept by one who has forgotten, and flooded on. It ends at everyone who
//!    has it, and whoever keeps it has it for another [`Options::expiry`], so it ends when it has been everywhere once, if
//!    crossing all links takes less than that.
//! 3. What is kept without a path is never shown: [`Output::NodeUp`] takes a path. So a stray copy is a matter of memory,
//!    which is bounded, and never one of behaviour.
//!
//! Nothing has to be remembered of the forgotten. Nor is anything lost when a partition heals, before or after it was
//! forgotten: each side has a path to its own, and tells it. A neighbour that was told nothing of a node, because there was no
//! path to it, is told when there is one. That neighbours who agree on their fingerprints agree on paths follows along
//! each path: a node is part of its own fingerprint, so of its neighbour's, and so on.
//!
//! The price: while a restarted node claims its name against what is left of an earlier life, those who hear of both may find
//! it unreachable for as long as the claim takes to cross the cluster.
//!
//! # Withdrawn groups
//!
//! A withdrawn group leaves a small record that says so, or a stale copy of the group would come back. Because
//! subscriptions come and go for ever, such records are put together into one when there are many: "all below this number
//! but these". That is exact, whatever order it comes in, because numbers only rise and are never used again in one life.

mod exchange;
mod known;
mod message;
mod output;
mod own;
mod paths;
mod record;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use edri_events::{Incarnation, NodeName};

use self::exchange::Link;
use self::known::{Known, Taken};
pub use self::message::{Message, NodeSummary};
pub use self::output::{Loss, NodeStatus, NodeView, Output, Refusal};
use self::own::Own;
use self::paths::Path;
pub use self::record::{
    Content, GroupState, LinkState, NODE_SLOT, NodeState, Record, Selection, WITHDRAWN_SLOT, Window, Withdrawn,
};
use self::show::Shown;
use crate::limits::{COST_MAX, HOPS_MAX, LINKS_MAX};

/// One link of this node. Each new connection has a higher number than those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether it only forwards.
    pub switch: bool,
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// How long a node without a path is remembered. Much longer than a record takes to cross the cluster.
    pub expiry: Duration,
    /// How often neighbours compare what they have.
    pub digest_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            switch: false,
            protocol: edri_protocol::VERSION,
            expiry: Duration::from_secs(60),
            digest_every: Duration::from_secs(2),
        }
    }
}

/// What one node knows of all nodes: their links, their groups, and the paths to them.
pub struct Topology {
    options: Options,
    own: Own,
    known: Known,
    links: BTreeMap<LinkId, Link>,
    /// Every node that links lead to, however far, and this one.
    paths: BTreeMap<NodeName, Path>,
    routes: BTreeMap<Incarnation, Route>,
    /// Since when there is no path to a node.
    lost: BTreeMap<NodeName, Duration>,
    shown: BTreeMap<NodeName, Shown>,
    names: HashMap<Incarnation, NodeName>,
    /// Slots of records that came, changed or went since the last poll.
    touched: BTreeMap<NodeName, BTreeSet<u32>>,
    /// What is to be told to all links but one.
    news: BTreeMap<exchange::Place, Option<LinkId>>,
    stale_paths: bool,
    refused: BTreeMap<(LinkId, Refusal), u64>,
    refused_total: u64,
    /// Until when a poll finds nothing to do, unless something happens before; zero once something has.
    rests_until: Duration,
}

/// Where packets for a node go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    link: LinkId,
    distance: u32,
}

impl Topology {
    /// The topology of a node that has no links yet.
    #[must_use]
    pub fn new(node: NodeName, incarnation: Incarnation, options: Options) -> Self {
        let names = HashMap::from([(incarnation, node.clone())]);
        let mut topology = Self {
            options,
            own: Own::new(node, incarnation),
            known: Known::default(),
            links: BTreeMap::new(),
            paths: BTreeMap::new(),
            routes: BTreeMap::new(),
            lost: BTreeMap::new(),
            shown: BTreeMap::new(),
            names,
            touched: BTreeMap::new(),
            news: BTreeMap::new(),
            stale_paths: true,
            refused: BTreeMap::new(),
            refused_total: 0,
            rests_until: Duration::ZERO,
        };
        topology.restate();
        topology
    }

    /// A neighbour's connection is up and has said who it is. `cost` is brought into 1 to
    /// [`COST_MAX`]. Several links to one neighbour are one to others; here the cheapest is used, and
    /// of those the one with the highest number.
    ///
    /// # Errors
    ///
    /// [`Refusal::OwnName`] when the neighbour has this node's name, [`Refusal::Links`] when there are too many.
    pub fn link_up(
        &mut self,
        link: LinkId,
        peer: NodeName,
        incarnation: Incarnation,
        cost: u32,
    ) -> Result<(), Refusal> {
        if peer == self.own.name {
            return Err(Refusal::OwnName);
        }
        if self.links.len() >= LINKS_MAX {
            return Err(Refusal::Links);
        }
        self.links.insert(link, Link::new(peer, incarnation, cost.clamp(1, COST_MAX)));
        self.rests_until = Duration::ZERO;
        self.own.stale = true;
        self.stale_paths = true;
        Ok(())
    }

    /// A connection has ended. One that is not known is none of this node's business any more.
    pub fn link_down(&mut self, link: LinkId) {
        if self.links.remove(&link).is_some() {
            self.rests_until = Duration::ZERO;
            self.own.stale = true;
            self.stale_paths = true;
        }
    }

    /// A message came by a link. Call [`poll`](Self::poll) once all that came together has been received.
    pub fn receive(&mut self, link: LinkId, message: Message) {
        let Some(at) = self.links.get_mut(&link) else { return };
        self.rests_until = Duration::ZERO;
        match message {
            Message::Records(records) => {
                for bytes in records {
                    self.hear(link, bytes);
                }
            }
            Message::Digest(digest) => at.came.digest = Some(digest),
            Message::Synced => at.came.synced = true,
            Message::Summary(summary) => at.came.summary = Some(summary),
            Message::Unknown => {}
        }
    }

    fn hear(&mut self, link: LinkId, bytes: Bytes) {
        let record = match Record::decode(&bytes) {
            Ok(record) => record,
            Err(why) => return self.refuse(link, why),
        };
        if record.node == self.own.name {
            return self.hear_of_self(link, &record);
        }
        let (node, slot) = (record.node.clone(), record.slot);
        match self.known.take(record, bytes) {
            Taken::Kept(change) => {
                self.stale_paths |= change.links;
                self.touched.entry(node.clone()).or_default().extend(change.slots);
                self.news.insert(exchange::Place::new(node, slot), Some(link));
            }
            Taken::Had => {}
            Taken::OlderLife => self.answer_later(link, node),
            Taken::Refused(why) => self.refuse(link, why),
        }
    }

    fn refuse(&mut self, link: LinkId, why: Refusal) {
        *self.refused.entry((link, why)).or_default() += 1;
        self.refused_total += 1;
        if let Some(link) = self.links.get_mut(&link) {
            link.refused = true;
        }
    }

    /// What follows from all that happened since the last call, and from the time: `now` since any fixed moment. Later calls
    /// never have an earlier time. Paths are computed here, once, when links changed.
    pub fn poll(&mut self, now: Duration) -> Vec<Output> {
        let mut out = Vec::new();
        if now < self.rests_until {
            return out;
        }
        self.claim_name(now, &mut out);
        self.restate_when_due(now);
        let stale = std::mem::take(&mut self.stale_paths);
        let moved = if stale { self.find_paths(now) } else { Vec::new() };
        self.show(now, stale, &mut out);
        if !moved.is_empty() {
            out.push(Output::PathsChanged { destinations: moved });
        }
        self.tell_news(&mut out);
        self.attend_links(now, &mut out);
        for ((link, why), count) in std::mem::take(&mut self.refused) {
            out.push(Output::Refused { link, why, count });
        }
        self.rests_until = Duration::ZERO;
        self.rests_until = self.next_deadline().unwrap_or(Duration::MAX);
        out
    }

    /// When to call [`poll`](Self::poll) although nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if !self.rests_until.is_zero() {
            // As of the last poll, and nothing has happened since.
            return Some(self.rests_until).filter(|at| *at != Duration::MAX);
        }
        let digests = self.links.values().filter_map(|link| link.next_digest);
        let expiries = self.lost.values().map(|since| *since + self.options.expiry);
        let own = Some(self.own.may_restate).filter(|_| self.own.stale);
        digests.chain(expiries).chain(own).min()
    }

    /// Finds all paths, and says which destinations have another next link than before, a new one or none any more.
    fn find_paths(&mut self, now: Duration) -> Vec<Incarnation> {
        self.paths = paths::shortest(&self.known, &self.own.name, &self.own_links());
        let mut routes = BTreeMap::new();
        for (name, path) in &self.paths {
            let (Some(node), Some(first)) = (self.known.get(name), self.known.get(&path.first)) else { continue };
            let to_first = |link: &Link| link.peer == path.first && link.incarnation == first.incarnation;
            let links = self.links.iter().filter(|(_, link)| to_first(link));
            let best = links.min_by_key(|(id, link)| (link.cost, std::cmp::Reverse(**id)));
            if let Some((link, _)) = best.filter(|_| path.hops <= u32::from(HOPS_MAX)) {
                routes.insert(node.incarnation, Route { link: *link, distance: path.distance });
            }
        }
        for (name, _) in self.known.iter() {
            if self.paths.contains_key(name) {
                self.lost.remove(name);
            } else {
                self.lost.entry(name.clone()).or_insert(now);
            }
        }
        let before = std::mem::replace(&mut self.routes, routes);
        let link = |routes: &BTreeMap<_, Route>, to| routes.get(to).map(|route| route.link);
        let either = before.keys().chain(self.routes.keys());
        let moved: BTreeSet<u64> = either
            .filter(|to| link(&before, to) != link(&self.routes, to))
            .map(|incarnation| incarnation.get())
            .collect();
        moved.into_iter().filter_map(Incarnation::from_number).collect()
    }

    /// The link that leads to this life of a node, or `None` while there is no path to it.
    #[must_use]
    pub fn next_hop(&self, destination: Incarnation) -> Option<LinkId> {
        self.routes.get(&destination).map(|route| route.link)
    }

    /// What the path to this life of a node costs, or `None` while there is none; 0 for this node.
    #[must_use]
    pub fn distance(&self, destination: Incarnation) -> Option<u32> {
        if destination == self.own.incarnation {
            return Some(0);
        }
        self.routes.get(&destination).map(|route| route.distance)
    }

    /// The life of this node that [`Output::NodeUp`] has told of last, or of this one.
    #[must_use]
    pub fn incarnation_of(&self, node: &NodeName) -> Option<Incarnation> {
        if *node == self.own.name {
            return Some(self.own.incarnation);
        }
        self.shown.get(node).map(|shown| shown.incarnation)
    }

    /// The name of the node that lives or lived this life, while [`incarnation_of`](Self::incarnation_of) knows it.
    #[must_use]
    pub fn name_of(&self, incarnation: Incarnation) -> Option<&NodeName> {
        self.names.get(&incarnation)
    }

    /// Whether what this node knows is all there is to know: it is settled itself, every neighbour has told all it knew, and
    /// every node that can be reached says that it is settled. As of the last [`poll`](Self::poll).
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.own.settled
            && self.links.values().all(|link| link.synced)
            && self.shown.values().all(|shown| !shown.status.reachable || shown.status.settled)
    }

    /// How many records were refused, ever.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused_total
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topology")
            .field("node", &self.own.name)
            .field("incarnation", &self.own.incarnation)
            .field("nodes", &self.nodes())
            .finish_non_exhaustive()
    }
}
