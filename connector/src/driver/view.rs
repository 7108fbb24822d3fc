//! What others may know of the driver: nodes and links for the topology, and whether everybody is there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edri_events::NodeName;
use edri_router::{Beyond, LinkState, LinkView, NodeView};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Driver;

/// How old what is shown may be while things change.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// Who is there, as seen from outside the driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// The neighbours whose links are up, and whether they have told everything they know.
    pub(crate) neighbours: BTreeMap<NodeName, bool>,
    /// The other nodes that can be reached, and whether they have told all that they want.
    pub(crate) reachable: BTreeMap<NodeName, bool>,
    /// Whether everybody who might answer has told so.
    pub(crate) settled: bool,
    /// Why this node may not take part any more.
    pub(crate) expelled: Option<String>,
}

impl Presence {
    /// Whether a node can be reached and has told all that it wants.
    pub(crate) fn knows(&self, node: &NodeName) -> bool {
        self.reachable.get(node).is_some_and(|told| *told)
    }
}

/// Shared between the driver and whoever looks.
pub(crate) struct Views {
    shown: Mutex<Shown>,
    /// What is shown is to be brought up to date at once.
    stale: AtomicBool,
    pub(crate) presence: watch::Sender<Presence>,
}

#[derive(Default)]
struct Shown {
    nodes: Vec<NodeView>,
    links: Vec<LinkView>,
    /// How often each neighbour's link has come up, and why it went down last.
    history: BTreeMap<NodeName, History>,
    /// Why there is no link to an address that is dialled.
    unreached: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
struct History {
    ups: u64,
    last_error: Option<String>,
}

impl Views {
    pub(crate) fn new() -> Self {
        Self {
            shown: Mutex::default(),
            stale: AtomicBool::new(true),
            presence: watch::Sender::new(Presence::default()),
        }
    }

    /// A neighbour's link is up and its neighbour has told everything (`Some(true)`), or it is down.
    pub(super) fn linked(&self, peer: &NodeName, synced: Option<bool>, why: Option<&str>) {
        let mut shown = self.shown.lock();
        let history = shown.history.entry(peer.clone()).or_default();
        history.ups += u64::from(synced == Some(true));
        if let Some(why) = why {
            history.last_error = Some(why.to_owned());
        }
        drop(shown);
        self.dirty();
        self.presence.send_modify(|presence| {
            match synced {
                Some(synced) => presence.neighbours.insert(peer.clone(), synced),
                None => presence.neighbours.remove(peer),
            };
        });
    }

    /// Whoever is at an address that is dialled has let this node in, or why not.
    pub(crate) fn dialled(&self, address: &str, why_not: Option<&str>) {
        let mut shown = self.shown.lock();
        match why_not {
            Some(why) => shown.unreached.insert(address.to_owned(), why.to_owned()),
            None => shown.unreached.remove(address),
        };
        drop(shown);
        self.dirty();
    }

    /// Shows the next change at once.
    pub(super) fn dirty(&self) {
        self.stale.store(true, Ordering::Release);
    }

    pub(crate) fn expelled(&self, why: String) {
        self.presence.send_modify(|presence| presence.expelled = Some(why));
    }

    /// Shows what there is now, unless that was done a moment ago, at `shown`. When it is to be done again, if it was put off.
    pub(super) fn update(&self, driver: &Driver, shown: Duration) -> Option<Duration> {
        let again = shown + SHOW_EVERY;
        let is_stale = self.stale.load(Ordering::Relaxed) && self.stale.swap(false, Ordering::AcqRel);
        if !is_stale && driver.now() < again {
            return Some(again);
        }
        let mut shown = self.shown.lock();
        shown.nodes = driver.node_views();
        shown.links = driver.link_views(&shown.history);
        for (address, why) in shown.unreached.clone() {
            let mut view = LinkView::new(address, LinkState::Down);
            view.dialled = true;
            view.last_error = Some(why);
            shown.links.push(view);
        }
        drop(shown);
        let settled = driver.engine.topology().is_settled();
        let reachable = driver.present();
        self.presence.send_if_modified(|presence| {
            let changed = presence.settled != settled || presence.reachable != reachable;
            presence.settled = settled;
            presence.reachable = reachable;
            changed
        });
        None
    }
}

impl Beyond for Views {
    fn nodes(&self) -> Vec<NodeView> {
        self.shown.lock().nodes.clone()
    }

    fn links(&self) -> Vec<LinkView> {
        self.shown.lock().links.clone()
    }
}

impl Driver {
    /// The nodes that can be reached. One has told all that it wants once its link has synced, if it is a neighbour, or once it
    /// says that it is settled, because that comes after its groups.
    fn present(&self) -> BTreeMap<NodeName, bool> {
        let synced = |node: &NodeName| self.links.values().any(|link| link.peer == *node && link.synced);
        let reachable = self.lives.values().filter(|life| life.reachable);
        reachable.map(|life| (life.node.clone(), life.settled || synced(&life.node))).collect()
    }

    fn node_views(&self) -> Vec<NodeView> {
        let topology = self.engine.topology();
        let known = topology.nodes().into_iter().filter(|known| known.node != *self.router.node());
        known
            .map(|known| {
                let mut view = NodeView::new(known.node, known.incarnation);
                let figures = self.engine.figures(known.incarnation).unwrap_or_default();
                view.reachable = known.status.reachable;
                view.distance = known.status.reachable.then_some(known.status.distance);
                view.via = known.by;
                view.switch = known.status.switch;
                view.settled = known.status.settled;
                view.groups = known.groups;
                view.unacknowledged_packets = figures.unacknowledged_packets as u64;
                view.unacknowledged_bytes = figures.unacknowledged_bytes as u64;
                view.unacknowledged_events = self
                    .outboxes
                    .all
                    .values()
                    .filter(|outbox| outbox.life == Some(known.incarnation))
                    .map(|outbox| outbox.group.held() as u64)
                    .sum();
                view.resumed = figures.resumes;
                if let Some(life) = self.lives.get(&known.incarnation) {
                    view.differs.clone_from(&life.differs_there);
                    view.differs.extend(life.differs.clone());
                }
                view.round_trip_ms = figures.round_trip.map(|time| time.as_secs_f64() * 1e3);
                view
            })
            .collect()
    }

    fn link_views(&self, history: &BTreeMap<NodeName, History>) -> Vec<LinkView> {
        let now = self.now();
        let up = self.links.values().map(|neighbour| {
            let mut view = LinkView::new(neighbour.connection.remote_address().to_string(), LinkState::Up);
            let stats = neighbour.connection.stats();
            view.peer = Some(neighbour.peer.clone());
            view.dialled = neighbour.connection.dialled();
            view.since_s = now.saturating_sub(neighbour.since).as_secs_f64();
            view.round_trip_ms = Some(stats.rtt.as_secs_f64() * 1e3);
            view.queued_bytes = neighbour.queued() as u64;
            view.sent_bytes = stats.sent_bytes;
            view.sent_packets = stats.sent_datagrams;
            view.received_bytes = stats.received_bytes;
            view.received_packets = stats.received_datagrams;
            if let Some(history) = history.get(&neighbour.peer) {
                view.resumes = history.ups.saturating_sub(1);
                view.last_error.clone_from(&history.last_error);
            }
            view
        });
        let up: Vec<_> = up.collect();
        let down = history.iter().filter(|(peer, _)| !up.iter().any(|view| view.peer.as_ref() == Some(peer)));
        let down: Vec<_> = down
            .map(|(peer, history)| {
                let mut view = LinkView::new(String::new(), LinkState::Down);
                view.peer = Some(peer.clone());
                view.resumes = history.ups.saturating_sub(1);
                view.last_error.clone_from(&history.last_error);
                view
            })
            .collect();
        up.into_iter().chain(down).collect()
    }
}
