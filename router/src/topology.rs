//! What a node is doing, to be looked at.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use edri_events::__private::schemars::JsonSchema;
use edri_events::{Incarnation, NodeName, Pattern};
use serde::{Deserialize, Serialize};

use crate::core::{Core, Phase};
use crate::group::{Group, Overflow};
use crate::history::{Figures, Recorder};
use crate::status::{Health, ManagerState, WorkerState, WorkerStatus};
use crate::timing::{Quantiles, Timing};
use crate::{Account, GroupName, LinkView, NodeView, system};

/// What a node is doing at one moment. Numbers are read one after another while events go on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "edri_events::__private::schemars")]
#[non_exhaustive]
pub struct Topology {
    /// The node.
    pub node: NodeName,
    /// This life of its process.
    pub incarnation: Incarnation,
    /// The version of edri that it runs.
    #[serde(default)]
    pub version: String,
    /// What part of its life it is in.
    pub phase: Phase,
    /// How long it has lived, in seconds.
    pub uptime_s: f64,
    /// What became of all deliveries, of groups that have ended too.
    pub account: Account,
    /// Events that nobody was interested in.
    pub unrouted: u64,
    /// Requests and tunnels that are open.
    pub pending: usize,
    /// Answers that came when nobody waited any more.
    pub late_answers: u64,
    /// Dead letters there ever were.
    pub dead_letters: u64,
    /// Event names known.
    pub events: usize,
    /// The managers, oldest first.
    pub managers: Vec<GroupView>,
    /// The subscriptions, oldest first.
    pub subscriptions: Vec<GroupView>,
    /// The histories, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histories: Vec<HistoryView>,
    /// The groups of other nodes, oldest first. What waits in their inboxes waits for their node. Without the managers that answer
    /// for those nodes themselves, as long as nothing waits for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remote: Vec<GroupView>,
    /// What waits here to go to whichever node has its key: for each keyed shared manager, an inbox for each of the slots that its keys fall into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub divided: Vec<GroupView>,
    /// The other nodes that are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeView>,
    /// The links to neighbours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkView>,
}

/// A manager or subscription at one moment, of this node or of another.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "edri_events::__private::schemars")]
#[non_exhaustive]
pub struct GroupView {
    /// Its name.
    pub name: GroupName,
    /// Its state.
    pub state: ManagerState,
    /// How many links away it is: zero on this node.
    pub distance: u32,
    /// Whether there is a way to it: on this node there always is.
    pub reachable: bool,
    /// The places of each inbox.
    pub capacity: usize,
    /// How many events wait in each inbox.
    pub depths: Vec<usize>,
    /// What happens when an inbox is full.
    pub overflow: Overflow,
    /// What became of its deliveries.
    pub account: Account,
    /// State events it missed because it had no room.
    pub missed: u64,
    /// How long timed events waited in the inbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Quantiles>,
    /// How long handlers of timed events took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handling: Option<Quantiles>,
    /// Its worker instances.
    pub workers: Vec<WorkerView>,
}

/// A history at one moment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "edri_events::__private::schemars")]
#[non_exhaustive]
pub struct HistoryView {
    /// The name, or the pattern of the names, of its events.
    pub pattern: Pattern,
    /// How many events it keeps.
    pub events: usize,
    /// At most how many.
    pub events_max: usize,
    /// What they weigh, in bytes.
    pub bytes: usize,
    /// At most how much.
    pub bytes_max: usize,
    /// How long ago the oldest of them came, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_s: Option<f64>,
    /// How long it keeps an event at most, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_max_s: Option<f64>,
    /// How many events it has ever had.
    pub recorded: u64,
    /// How many subscriptions read it.
    pub readers: usize,
}

/// A worker instance at one moment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "edri_events::__private::schemars")]
#[non_exhaustive]
pub struct WorkerView {
    /// Which instance, from 0.
    pub instance: usize,
    /// Its state.
    pub state: WorkerState,
    /// How often it was restarted.
    pub restarts: u32,
    /// Threads of this instance that did not return from their handler and were replaced.
    pub stuck: u32,
    /// How many events it has in its hands.
    pub in_hand: usize,
    /// What it says of its health.
    pub health: Health,
    /// Figures of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// The id of its process, when it runs in one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Why it was lost the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Topology {
    pub(crate) fn of(core: &Core) -> Self {
        let (mut managers, mut subscriptions) = (Vec::new(), Vec::new());
        let (mut remote, mut divided) = (Vec::new(), Vec::new());
        for group in core.groups().into_iter().filter(|group| group.has_joined() && !core.histories.is_one(group)) {
            // Every other node has one, of which there is nothing to tell until something waits for it.
            if is_operator_elsewhere(&group) && group.depths().iter().all(|depth| *depth == 0) {
                continue;
            }
            match group.name() {
                GroupName::Manager(_) if group.is_front() => &mut divided,
                GroupName::Manager(_) => &mut managers,
                GroupName::Subscription(_) => &mut subscriptions,
                GroupName::Remote { .. } => &mut remote,
            }
            .push(GroupView::of(&group));
        }
        Self {
            node: core.address.node.clone(),
            incarnation: core.address.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: core.phase(),
            uptime_s: core.born.elapsed().as_secs_f64(),
            account: core.account(),
            unrouted: core.unrouted(),
            pending: core.pending.open(),
            late_answers: core.pending.late(),
            dead_letters: core.letters.total(),
            events: core.snapshot().descriptors().count(),
            managers,
            subscriptions,
            histories: core.histories.list().iter().map(|history| HistoryView::of(history)).collect(),
            remote,
            divided,
            nodes: core.beyond().map(|beyond| beyond.nodes()).unwrap_or_default(),
            links: core.beyond().map(|beyond| beyond.links()).unwrap_or_default(),
        }
    }

    /// The manager of this name on this node.
    #[must_use]
    pub fn manager(&self, name: &str) -> Option<&GroupView> {
        self.managers.iter().find(|view| view.name.manager().is_some_and(|manager| *manager == *name))
    }
}

fn is_operator_elsewhere(group: &Group) -> bool {
    let name = group.name();
    name.node().is_some() && name.manager_anywhere().is_some_and(|manager| *manager == *system::OPERATOR)
}

impl GroupView {
    fn of(group: &Group) -> Self {
        let workers = group.workers();
        Self {
            name: group.name().clone(),
            state: group.state(),
            distance: group.distance(),
            reachable: group.is_reachable(),
            capacity: group.capacity(),
            depths: group.depths(),
            overflow: group.overflow(),
            account: group.account(),
            missed: group.missed(),
            queued: Timing::quantiles(workers.iter().map(|worker| &worker.queued)),
            handling: Timing::quantiles(workers.iter().map(|worker| &worker.handling)),
            workers: workers.iter().map(|worker| WorkerView::of(worker)).collect(),
        }
    }
}

impl HistoryView {
    fn of(recorder: &Recorder) -> Self {
        let Figures { pattern, bounds, events, bytes, oldest, recorded, readers } = recorder.figures();
        let (events_max, bytes_max, age_max) = bounds.bounds();
        Self {
            pattern,
            events,
            events_max,
            bytes,
            bytes_max,
            oldest_s: oldest.map(|at| at.elapsed().as_secs_f64()),
            age_max_s: age_max.map(|age| age.as_secs_f64()),
            recorded,
            readers,
        }
    }
}

impl WorkerView {
    fn of(worker: &WorkerStatus) -> Self {
        let report = worker.report.lock().clone();
        Self {
            instance: worker.index,
            state: worker.state(),
            restarts: worker.restarts.load(Ordering::Relaxed),
            stuck: worker.stuck.load(Ordering::Relaxed),
            in_hand: worker.in_hand.load(Ordering::Relaxed),
            health: report.health,
            figures: report.figures,
            pid: Some(worker.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0),
            last_error: report.last_error,
        }
    }
}
