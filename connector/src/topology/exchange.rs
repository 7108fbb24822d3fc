//! What neighbours are told: news at once, and what they lack when they ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use edri_events::{Incarnation, NodeName};

use super::known::{Held, Node};
use super::record::NODE_SLOT;
use super::{LinkId, Message, NodeSummary, Output, Topology};

/// A neighbour's connection.
pub(super) struct Link {
    pub(super) peer: NodeName,
    pub(super) incarnation: Incarnation,
    pub(super) cost: u32,
    /// Whether the neighbour has told all that it knew when the link came up.
    pub(super) synced: bool,
    /// Whether the neighbour has been told what it lacked when the link came up, or lacked nothing. Before that it is told no news, which would
    /// come without what they build on, and are part of what it will be told.
    told: bool,
    /// When to compare what both have; nothing before the first summary was sent.
    pub(super) next_digest: Option<Duration>,
    /// What came since the last poll. Of each kind only the last counts.
    pub(super) came: Came,
    /// Records by this link were refused since the last summary was sent.
    pub(super) refused: bool,
    /// How often in a row that was so, and until when no summary is sent for it.
    strikes: u32,
    quiet_until: Duration,
    /// Nodes that the neighbour knows an older life of.
    answers: BTreeSet<NodeName>,
    /// Nodes that the neighbour did not know and was not told of, because there was no path to them.
    pub(super) untold: BTreeSet<NodeName>,
}

/// What a neighbour sent beside records.
#[derive(Default)]
pub(super) struct Came {
    pub(super) digest: Option<u64>,
    pub(super) summary: Option<Vec<NodeSummary>>,
    pub(super) synced: bool,
}

/// A record's place in the order of telling: those of nodes after those of all groups. Whoever learns by them that there is
/// a path to a node has heard of its groups before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    is_node: bool,
    node: NodeName,
    slot: u32,
}

impl Place {
    pub(super) fn new(node: NodeName, slot: u32) -> Self {
        Self { is_node: slot == NODE_SLOT, node, slot }
    }
}

/// How many times the pause between summaries that only lead to refusals is doubled.
const STRIKES_MAX: u32 = 5;

impl Link {
    pub(super) fn new(peer: NodeName, incarnation: Incarnation, cost: u32) -> Self {
        Self {
            peer,
            incarnation,
            cost,
            synced: false,
            told: false,
            next_digest: None,
            came: Came::default(),
            refused: false,
            strikes: 0,
            quiet_until: Duration::ZERO,
            answers: BTreeSet::new(),
            untold: BTreeSet::new(),
        }
    }

    /// Whether to ask for what is missing here. What was refused would only be refused again, so after that it is asked for
    /// more and more rarely.
    fn may_ask(&mut self, now: Duration, every: Duration) -> bool {
        if std::mem::take(&mut self.refused) {
            self.strikes = (self.strikes + 1).min(STRIKES_MAX);
            self.quiet_until = now + every * (1 << self.strikes);
        }
        now >= self.quiet_until
    }

    /// Both have the same.
    fn agree(&mut self) {
        self.told = true;
        self.strikes = 0;
        self.quiet_until = Duration::ZERO;
        self.refused = false;
    }
}

impl Topology {
    /// The neighbour knows an older life of `node`: it is told of the later one.
    pub(super) fn answer_later(&mut self, link: LinkId, node: NodeName) {
        if let Some(link) = self.links.get_mut(&link) {
            link.answers.insert(node);
        }
    }

    /// Tells all links the news that did not come by them.
    pub(super) fn tell_news(&mut self, out: &mut Vec<Output>) {
        let mut by_origin: BTreeMap<Option<LinkId>, Vec<Bytes>> = BTreeMap::new();
        for (place, from) in std::mem::take(&mut self.news) {
            // Whatever has gone since was put together with others, or its node has a later life: that is news of its own.
            let held = self.known.get(&place.node).and_then(|node| node.records.get(&place.slot));
            by_origin.entry(from).or_default().extend(held.map(|held| held.bytes.clone()));
        }
        for (from, records) in by_origin {
            let links = self.links.iter().filter(|(id, link)| link.told && Some(**id) != from);
            let links: Vec<LinkId> = links.map(|(id, _)| *id).collect();
            if !links.is_empty() {
                let messages = Message::of(records).into_iter();
                out.extend(messages.map(|message| Output::Send { links: links.clone(), message }));
            }
        }
    }

    /// Answers what came by the links, and compares from time to time.
    pub(super) fn attend_links(&mut self, now: Duration, out: &mut Vec<Output>) {
        let mut links = std::mem::take(&mut self.links);
        let mut digest = None;
        for (id, link) in &mut links {
            let mut send = |message| out.push(Output::Send { links: vec![*id], message });
            let came = std::mem::take(&mut link.came);
            let is_new = link.next_digest.is_none();
            let mut asks = is_new;

            let mut records = self.overdue(link);
            if let Some(summary) = &came.summary {
                records.extend(self.lacking(link, summary));
                link.told = true;
            }
            records.sort_by(|(one, _), (other, _)| one.cmp(other));
            Message::of(records.into_iter().map(|(_, bytes)| bytes)).into_iter().for_each(&mut send);
            if came.summary.is_some() {
                send(Message::Synced);
            }

            let mut agreed = false;
            if let Some(theirs) = came.digest {
                agreed = *digest.get_or_insert_with(|| self.digest()) == theirs;
                if agreed {
                    link.agree();
                } else {
                    asks |= link.may_ask(now, self.options.digest_every);
                }
            }
            if asks {
                send(Message::Summary(self.known.iter().map(|(name, node)| node.summary(name)).collect()));
            }
            if is_new || link.next_digest.is_some_and(|due| now >= due) {
                if !is_new {
                    send(Message::Digest(*digest.get_or_insert_with(|| self.digest())));
                }
                link.next_digest = Some(now + self.options.digest_every);
            }
            if (came.synced || agreed) && !std::mem::replace(&mut link.synced, true) {
                out.push(Output::Synced { link: *id });
            }
        }
        self.links = links;
    }

    /// The fingerprint of what this node tells: the records of all nodes that it has a path to.
    pub(super) fn digest(&self) -> u64 {
        let nodes = self.paths.keys().filter_map(|name| self.known.get(name));
        nodes.fold(0, |sum, node| sum.wrapping_add(node.digest()))
    }

    /// What the neighbour is told without having asked: of nodes that it knows an older life of, or that there was no path
    /// to when it asked.
    fn overdue(&self, link: &mut Link) -> Vec<(Place, Bytes)> {
        let mut names = std::mem::take(&mut link.answers);
        link.untold.retain(|name| {
            let due = self.paths.contains_key(name);
            if due {
                names.insert(name.clone());
            }
            !due && self.known.get(name).is_some()
        });
        let nodes = names.iter().filter_map(|name| Some((name, self.known.get(name)?)));
        nodes.flat_map(|(name, node)| self.life_of(name, node)).collect()
    }

    /// What the neighbour lacks, whose summary this is.
    fn lacking(&self, link: &mut Link, summary: &[NodeSummary]) -> Vec<(Place, Bytes)> {
        let listed: BTreeMap<&NodeName, &NodeSummary> = summary.iter().map(|entry| (&entry.node, entry)).collect();
        let mut lacking = Vec::new();
        for (name, node) in self.known.iter() {
            match listed.get(name) {
                Some(theirs) if theirs.incarnation == node.incarnation => {
                    lacking.extend(node.beyond(theirs).map(|(slot, held)| told(name, slot, held)));
                }
                Some(theirs) if node.life() > theirs.life() => lacking.extend(self.life_of(name, node)),
                Some(_) => {}
                None if self.paths.contains_key(name) => lacking.extend(self.life_of(name, node)),
                None => drop(link.untold.insert(name.clone())),
            }
        }
        lacking
    }

    /// What to tell of a node to who does not know this life of it: everything if there is a path to it, otherwise one record,
    /// by which the node hears that it has to claim its name.
    fn life_of<'a>(&self, name: &'a NodeName, node: &'a Node) -> impl Iterator<Item = (Place, Bytes)> + use<'a> {
        let count = if self.paths.contains_key(name) { node.records.len() } else { 1 };
        node.records.iter().take(count).map(|(slot, held)| told(name, *slot, held))
    }
}

fn told(node: &NodeName, slot: u32, held: &Held) -> (Place, Bytes) {
    (Place::new(node.clone(), slot), held.bytes.clone())
}
