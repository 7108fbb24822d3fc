//! `events`, `nodes`, `links`, `managers` and `workers`: what a node tells of itself.

use edri::operations::{EventList, EventView};
use edri::{GroupView, Health, LinkState, ManagerState, Phase, Topology, WorkerState};
use serde_json::{Value, json};

use super::connection::Session;
use super::output::{Cell, Table, Tone, bytes, clean, micros, or_dash, short, span};
use super::run::Work;
use crate::exit::Failed;

/// Which nodes are asked.
#[derive(clap::Args)]
pub(crate) struct Where {
    /// Asks this node of the cluster instead of the one that the command is connected to.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Asks all nodes of the cluster.
    #[arg(long, conflicts_with = "to")]
    all: bool,
}

impl Where {
    async fn ask(&self, session: &Session) -> Result<Vec<Topology>, Failed> {
        session.describe_some(self.to.as_deref(), self.all).await
    }
}

#[derive(clap::Args)]
pub(crate) struct Events {
    /// A name, to show all of that event with its schemas; or a pattern, to list those that it selects.
    pattern: Option<String>,
    /// Lists JSON Schemas too (with --json).
    #[arg(long, requires = "json")]
    schemas: bool,
    /// Asks this node of the cluster instead of the one that the command is connected to.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
}

impl Work for Events {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let one = self.pattern.as_ref().is_some_and(|pattern| !pattern.contains(['*', '>']));
        let mut ask = EventList {
            pattern: self.pattern.clone(),
            schemas: self.schemas || one,
            limit: Some(200),
            ..EventList::default()
        };
        let mut events = Vec::new();
        loop {
            let page = session.ask(self.to.as_deref(), ask.clone()).await?;
            events.extend(page.events);
            let Some(next) = page.next else { break };
            ask.after = Some(next);
        }
        if session.out.json {
            return events.iter().try_for_each(|event| session.out.value(event));
        }
        if one {
            let name = self.pattern.unwrap_or_default();
            let missing =
                || Failed::missing(format!("the node knows no event `{name}`: `edri events` lists those it knows"));
            return show_event(&session, events.first().ok_or_else(missing)?);
        }
        let mut table = Table::new(&["EVENT", "KIND", "KEY", ">LIMIT", "OUTSIDE", "DESCRIPTION"]);
        for event in &events {
            table.row([
                (&event.name).into(),
                event.kind.into(),
                or_dash(event.key.as_deref()).into(),
                or_dash(event.time_limit_ms.map(|ms| span(ms as f64 / 1_000.0))).into(),
                if event.exposed { "exposed" } else { "-" }.into(),
                short(event.description.lines().next().unwrap_or_default(), 60).into(),
            ]);
        }
        session.out.table(&table)
    }
}

fn show_event(session: &Session, event: &EventView) -> Result<(), Failed> {
    let mut lines = vec![format!("{}  {}", session.out.paint(Tone::Head, &event.name), event.kind)];
    lines.extend(event.description.lines().map(|line| format!("  {}", clean(line))));
    let mut fact = |name: &str, value: String| lines.push(format!("  {name:<12}{}", clean(&value)));
    if let Some(key) = &event.key {
        fact("key", key.clone());
    }
    if let Some(limit) = event.time_limit_ms {
        fact("time limit", span(limit as f64 / 1_000.0));
    }
    fact("outside", if event.exposed { "exposed".to_owned() } else { "not exposed by itself".to_owned() });
    for route in &event.http {
        fact("http", route.clone());
    }
    for (what, schema) in event.schemas.as_ref().and_then(Value::as_object).into_iter().flatten() {
        lines.push(format!("  schema of {what}:"));
        let pretty = serde_json::to_string_pretty(schema).unwrap_or_default();
        lines.extend(pretty.lines().map(|line| format!("    {line}")));
    }
    session.out.line(&lines.join("\n"))
}

#[derive(clap::Args)]
pub(crate) struct Nodes {
    #[command(flatten)]
    at: Where,
}

impl Work for Nodes {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let asked = self.at.ask(&session).await?;
        if session.out.json {
            return asked.iter().try_for_each(|node| nodes_json(&session, node));
        }
        let mut table = Table::new(&[
            "SEEN BY",
            "NODE",
            "STATE",
            "INCARNATION",
            ">LINKS",
            "VIA",
            ">RTT",
            ">UNACKED",
            ">RESUMED",
            "NOTES",
        ]);
        for topology in &asked {
            let phase = match topology.phase {
                Phase::Running => Cell::toned(Tone::Good, "running"),
                Phase::Stopping => Cell::toned(Tone::Warn, "stopping"),
                Phase::Stopped => Cell::toned(Tone::Bad, "stopped"),
            };
            let notes = format!(
                "edri {}, up {}, {} dead letters",
                topology.version,
                span(topology.uptime_s),
                topology.dead_letters
            );
            let here = &topology.node;
            table.row([
                here.into(),
                here.into(),
                phase,
                topology.incarnation.into(),
                0.into(),
                "-".into(),
                "-".into(),
                "-".into(),
                "-".into(),
                notes.into(),
            ]);
            for node in &topology.nodes {
                let state = match (node.reachable, node.settled) {
                    (true, true) => Cell::toned(Tone::Good, "reachable"),
                    (true, false) => Cell::toned(Tone::Warn, "unsettled"),
                    (false, _) => Cell::toned(Tone::Bad, "unreachable"),
                };
                let mut notes: Vec<_> = node.switch.then(|| "switch".to_owned()).into_iter().collect();
                notes.extend(node.differs.iter().map(|(event, what)| format!("`{event}` differs: {what}")));
                table.row([
                    here.into(),
                    (&node.name).into(),
                    state,
                    node.incarnation.into(),
                    or_dash(node.distance).into(),
                    or_dash(node.via.as_ref()).into(),
                    or_dash(node.round_trip_ms.map(|ms| micros(ms * 1_000.0))).into(),
                    node.unacknowledged_events.into(),
                    node.resumed.into(),
                    notes.join("; ").into(),
                ]);
            }
        }
        session.out.table(&table)
    }
}

fn nodes_json(session: &Session, topology: &Topology) -> Result<(), Failed> {
    session.out.value(&json!({
        "seen_by": topology.node,
        "name": topology.node,
        "incarnation": topology.incarnation,
        "version": topology.version,
        "phase": topology.phase,
        "uptime_s": topology.uptime_s,
        "account": topology.account,
        "unrouted": topology.unrouted,
        "pending": topology.pending,
        "late_answers": topology.late_answers,
        "dead_letters": topology.dead_letters,
        "events": topology.events,
    }))?;
    topology.nodes.iter().try_for_each(|node| session.out.value(&seen_by(&topology.node, node)))
}

/// A view with the node whose it is.
fn seen_by(node: &impl serde::Serialize, view: &impl serde::Serialize) -> Value {
    let mut line = json!({ "seen_by": node });
    if let (Ok(Value::Object(view)), Some(line)) = (serde_json::to_value(view), line.as_object_mut()) {
        line.extend(view);
    }
    line
}

#[derive(clap::Args)]
pub(crate) struct Links {
    #[command(flatten)]
    at: Where,
}

impl Work for Links {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let asked = self.at.ask(&session).await?;
        let mut table = Table::new(&[
            "NODE",
            "PEER",
            "STATE",
            ">SINCE",
            "ADDRESS",
            ">RTT",
            ">QUEUED",
            ">SENT",
            ">RECEIVED",
            ">RESUMES",
            "LAST ERROR",
        ]);
        for (node, link) in asked.iter().flat_map(|node| node.links.iter().map(|link| (&node.node, link))) {
            if session.out.json {
                session.out.value(&seen_by(node, link))?;
                continue;
            }
            let state = match link.state {
                LinkState::Up => Cell::toned(Tone::Good, "up"),
                LinkState::Down => Cell::toned(Tone::Bad, "down"),
                LinkState::Connecting => Cell::toned(Tone::Warn, "connecting"),
            };
            table.row([
                node.into(),
                or_dash(link.peer.as_ref()).into(),
                state,
                span(link.since_s).into(),
                (&link.address).into(),
                or_dash(link.round_trip_ms.map(|ms| micros(ms * 1_000.0))).into(),
                bytes(link.queued_bytes).into(),
                bytes(link.sent_bytes).into(),
                bytes(link.received_bytes).into(),
                link.resumes.into(),
                short(link.last_error.as_deref().unwrap_or("-"), 60).into(),
            ]);
        }
        if !session.out.json && asked.iter().all(|node| node.links.is_empty()) {
            session.out.note("no links: the node stands alone");
        }
        session.out.table(&table)
    }
}

#[derive(clap::Args)]
pub(crate) struct Managers {
    #[command(flatten)]
    at: Where,
}

/// The state of a manager, in its colour.
pub(super) fn state(state: ManagerState) -> (Tone, &'static str) {
    match state {
        ManagerState::Starting => (Tone::Warn, "starting"),
        ManagerState::Running => (Tone::Good, "running"),
        ManagerState::Draining => (Tone::Warn, "draining"),
        ManagerState::Stopped => (Tone::Bad, "stopped"),
        ManagerState::Failed => (Tone::Bad, "failed"),
    }
}

pub(super) fn restarts(group: &GroupView) -> u64 {
    group.workers.iter().map(|worker| u64::from(worker.restarts)).sum()
}

impl Work for Managers {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let asked = self.at.ask(&session).await?;
        let mut table = Table::new(&[
            "NODE",
            "MANAGER",
            "STATE",
            ">WORKERS",
            ">QUEUED",
            ">OF",
            ">IN HAND",
            ">HANDLED",
            ">FAILED",
            ">DEAD",
            ">RESTARTS",
            ">WAIT P99",
            ">HANDLE P99",
        ]);
        for (node, group) in asked.iter().flat_map(|node| node.managers.iter().map(|group| (&node.node, group))) {
            if session.out.json {
                session.out.value(&seen_by(node, group))?;
                continue;
            }
            let (tone, text) = state(group.state);
            let places = group.capacity * group.depths.len().max(1);
            let queued: usize = group.depths.iter().sum();
            let bad = |count: u64| Cell::toned(if count > 0 { Tone::Warn } else { Tone::Plain }, count.to_string());
            let p99 = |quantiles: &Option<edri::Quantiles>| or_dash(quantiles.map(|q| micros(q.p99_us)));
            table.row([
                node.into(),
                group.name.to_text().into(),
                Cell::toned(tone, text),
                group.workers.len().into(),
                Cell::toned(if queued * 2 > places { Tone::Warn } else { Tone::Plain }, queued.to_string()),
                places.into(),
                group.account.in_hand.into(),
                group.account.handled.into(),
                bad(group.account.failed),
                bad(group.account.dead_lettered),
                bad(restarts(group)),
                p99(&group.queued).into(),
                p99(&group.handling).into(),
            ]);
        }
        session.out.table(&table)
    }
}

#[derive(clap::Args)]
pub(crate) struct Workers {
    /// Only those of this manager.
    manager: Option<String>,
    #[command(flatten)]
    at: Where,
}

impl Work for Workers {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let asked = self.at.ask(&session).await?;
        let mut table = Table::new(&[
            "NODE",
            "MANAGER",
            ">INSTANCE",
            "STATE",
            ">PID",
            ">RESTARTS",
            ">STUCK",
            ">IN HAND",
            "HEALTH",
            "FIGURES",
            "LAST ERROR",
        ]);
        let mut found = false;
        for (node, group) in asked.iter().flat_map(|node| node.managers.iter().map(|group| (&node.node, group))) {
            if self.manager.as_ref().is_some_and(|manager| group.name.to_text() != *manager) {
                continue;
            }
            found = true;
            for worker in &group.workers {
                if session.out.json {
                    let mut line = seen_by(node, worker);
                    line["manager"] = group.name.to_text().into();
                    session.out.value(&line)?;
                    continue;
                }
                let (tone, text) = match worker.state {
                    WorkerState::Starting => (Tone::Warn, "starting"),
                    WorkerState::Running => (Tone::Good, "running"),
                    WorkerState::Restarting => (Tone::Bad, "restarting"),
                    WorkerState::Stopped => (Tone::Dim, "stopped"),
                };
                let health = match &worker.health {
                    Health::Good => Cell::from("good"),
                    Health::Degraded(why) => Cell::toned(Tone::Warn, format!("degraded: {}", short(why, 40))),
                    Health::Bad(why) => Cell::toned(Tone::Bad, format!("bad: {}", short(why, 40))),
                };
                let figures: Vec<_> = worker.figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
                table.row([
                    node.into(),
                    group.name.to_text().into(),
                    worker.instance.into(),
                    Cell::toned(tone, text),
                    or_dash(worker.pid).into(),
                    worker.restarts.into(),
                    worker.stuck.into(),
                    worker.in_hand.into(),
                    health,
                    short(&or_dash(Some(figures.join(" ")).filter(|text| !text.is_empty())), 60).into(),
                    short(worker.last_error.as_deref().unwrap_or("-"), 80).into(),
                ]);
            }
        }
        match self.manager {
            Some(manager) if !found => {
                Err(Failed::missing(format!("no manager `{manager}` is there: `edri managers` lists those that are")))
            }
            _ => session.out.table(&table),
        }
    }
}
