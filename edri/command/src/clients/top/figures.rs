//! What two snapshots say together: rates, and what is the case now. Pure.

use edri::{GroupView, LinkState, ManagerState, Phase, Topology};
use serde::Serialize;

use super::Snapshot;
use crate::clients::output::{bytes, micros, or_dash, span};
use crate::clients::show;

/// What is shown of all nodes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) nodes: Vec<NodeFigures>,
    pub(super) managers: Vec<ManagerFigures>,
    pub(super) links: Vec<LinkFigures>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct NodeFigures {
    pub(super) node: String,
    pub(super) phase: Phase,
    pub(super) uptime_s: f64,
    /// Deliveries that ended well, a second.
    pub(super) handled_per_s: f64,
    /// Deliveries that other nodes have taken, a second.
    pub(super) forwarded_per_s: f64,
    pub(super) failed_per_s: f64,
    pub(super) dead_letters_per_s: f64,
    pub(super) dead_letters: u64,
    pub(super) pending: usize,
    pub(super) queued: u64,
    /// Other nodes that there is a way to, and all that are known.
    pub(super) reachable: usize,
    pub(super) known: usize,
}

/// A manager.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ManagerFigures {
    pub(super) node: String,
    pub(super) manager: String,
    pub(super) state: ManagerState,
    pub(super) workers: usize,
    pub(super) handled_per_s: f64,
    pub(super) failed_per_s: f64,
    pub(super) queued: usize,
    pub(super) places: usize,
    pub(super) in_hand: u64,
    pub(super) wait_p99_us: Option<f64>,
    pub(super) handle_p50_us: Option<f64>,
    pub(super) handle_p99_us: Option<f64>,
    pub(super) restarts: u64,
    /// Of those, how many came since the snapshot before.
    pub(super) restarts_new: u64,
    pub(super) dead_letters: u64,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct LinkFigures {
    pub(super) node: String,
    pub(super) peer: String,
    pub(super) state: LinkState,
    pub(super) since_s: f64,
    pub(super) round_trip_ms: Option<f64>,
    pub(super) queued_bytes: u64,
    pub(super) sent_bytes_per_s: f64,
    pub(super) received_bytes_per_s: f64,
    pub(super) resumes: u64,
}

impl Figures {
    /// What is the case at `now`, and what has happened since `before`. A node that began another life meanwhile has no rates.
    pub(super) fn between(before: &Snapshot, now: &Snapshot) -> Self {
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
        let mut figures = Self { nodes: Vec::new(), managers: Vec::new(), links: Vec::new() };
        for node in &now.nodes {
            let earlier = before.nodes.iter().find(|one| one.node == node.node && one.incarnation == node.incarnation);
            let since = Since { seconds, earlier };
            figures.nodes.push(NodeFigures::of(node, &since));
            figures.managers.extend(node.managers.iter().map(|group| ManagerFigures::of(node, group, &since)));
            figures.links.extend(link_figures(node, &since));
        }
        figures
    }

    /// For files and pipes.
    pub(super) fn lines(&self) -> Vec<String> {
        let node = |node: &NodeFigures| {
            format!(
                "{} {} up {}  {:.0}/s handled  {:.0}/s forwarded  {:.0}/s failed  queued {}  open {}  dead letters {}  nodes {}/{}",
                node.node,
                phase(node.phase),
                span(node.uptime_s),
                node.handled_per_s,
                node.forwarded_per_s,
                node.failed_per_s,
                node.queued,
                node.pending,
                node.dead_letters,
                node.reachable,
                node.known,
            )
        };
        let manager = |group: &ManagerFigures| {
            format!(
                "  {}/{} {}  {:.0}/s  queued {}/{}  in hand {}  wait p99 {}  handle p99 {}  restarts {}",
                group.node,
                group.manager,
                show::state(group.state).1,
                group.handled_per_s,
                group.queued,
                group.places,
                group.in_hand,
                or_dash(group.wait_p99_us.map(micros)),
                or_dash(group.handle_p99_us.map(micros)),
                group.restarts,
            )
        };
        let link = |link: &LinkFigures| {
            format!(
                "  {} -> {} {}  sent {}/s  received {}/s  rtt {}",
                link.node,
                link.peer,
                link_state(link.state),
                bytes(link.sent_bytes_per_s as u64),
                bytes(link.received_bytes_per_s as u64),
                or_dash(link.round_trip_ms.map(|ms| micros(ms * 1_000.0))),
            )
        };
        let nodes = self.nodes.iter().map(node);
        nodes.chain(self.managers.iter().map(manager)).chain(self.links.iter().map(link)).collect()
    }
}

/// The time before.
struct Since<'a> {
    seconds: f64,
    earlier: Option<&'a Topology>,
}

impl Since<'_> {
    /// How often a second a counter grew; nothing when it is not known.
    fn rate(&self, now: u64, before: Option<u64>) -> f64 {
        match before {
            Some(before) if self.seconds > 0.0 => now.saturating_sub(before) as f64 / self.seconds,
            _ => 0.0,
        }
    }
}

impl NodeFigures {
    fn of(node: &Topology, since: &Since<'_>) -> Self {
        let before = since.earlier;
        Self {
            node: node.node.to_string(),
            phase: node.phase,
            uptime_s: node.uptime_s,
            handled_per_s: since.rate(node.account.handled, before.map(|node| node.account.handled)),
            forwarded_per_s: since.rate(node.account.forwarded, before.map(|node| node.account.forwarded)),
            failed_per_s: since.rate(node.account.failed, before.map(|node| node.account.failed)),
            dead_letters_per_s: since.rate(node.dead_letters, before.map(|node| node.dead_letters)),
            dead_letters: node.dead_letters,
            pending: node.pending,
            queued: node.account.queued,
            reachable: node.nodes.iter().filter(|node| node.reachable).count(),
            known: node.nodes.len(),
        }
    }
}

impl ManagerFigures {
    fn of(node: &Topology, group: &GroupView, since: &Since<'_>) -> Self {
        let before = since.earlier.and_then(|node| node.managers.iter().find(|other| other.name == group.name));
        let restarts = show::restarts(group);
        Self {
            node: node.node.to_string(),
            manager: group.name.to_text(),
            state: group.state,
            workers: group.workers.len(),
            handled_per_s: since.rate(group.account.handled, before.map(|group| group.account.handled)),
            failed_per_s: since.rate(group.account.failed, before.map(|group| group.account.failed)),
            queued: group.depths.iter().sum(),
            places: group.capacity * group.depths.len().max(1),
            in_hand: group.account.in_hand,
            wait_p99_us: group.queued.map(|quantiles| quantiles.p99_us),
            handle_p50_us: group.handling.map(|quantiles| quantiles.p50_us),
            handle_p99_us: group.handling.map(|quantiles| quantiles.p99_us),
            restarts,
            restarts_new: before.map_or(0, |before| restarts.saturating_sub(show::restarts(before))),
            dead_letters: group.account.dead_lettered,
        }
    }
}

fn link_figures(node: &Topology, since: &Since<'_>) -> impl Iterator<Item = LinkFigures> {
    node.links.iter().map(|link| {
        let same = |other: &&edri::LinkView| other.peer == link.peer && other.address == link.address;
        let before = since.earlier.and_then(|node| node.links.iter().find(same));
        LinkFigures {
            node: node.node.to_string(),
            peer: link.peer.as_ref().map_or_else(|| link.address.clone(), ToString::to_string),
            state: link.state,
            since_s: link.since_s,
            round_trip_ms: link.round_trip_ms,
            queued_bytes: link.queued_bytes,
            sent_bytes_per_s: since.rate(link.sent_bytes, before.map(|link| link.sent_bytes)),
            received_bytes_per_s: since.rate(link.received_bytes, before.map(|link| link.received_bytes)),
            resumes: link.resumes,
        }
    })
}

pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
    }
}

pub(super) fn link_state(state: LinkState) -> &'static str {
    match state {
        LinkState::Up => "up",
        LinkState::Down => "down",
        LinkState::Connecting => "connecting",
    }
}
