//! The figures in the text format of Prometheus (version 0.0.4).

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edri_router::{GroupName, GroupView, LinkState, LinkView, ManagerState, Topology, WorkerState};

use crate::cache::Cache;

use super::{BUCKETS, CLASSES, Figures, Metrics, Refusal, WebSockets};

/// How a figure is read from what it is of.
type Read<T> = fn(&T) -> u64;

/// The gateway's figures, and what the node says of itself.
pub(crate) fn write(metrics: &Metrics, cache: &Cache, topology: &Topology) -> String {
    let mut text = Text(String::with_capacity(16 << 10));
    gateway(&mut text, metrics);
    websockets(&mut text, &metrics.websockets);
    kept(&mut text, cache);
    node(&mut text, topology);
    managers(&mut text, topology);
    divided(&mut text, topology);
    links(&mut text, topology);
    text.0
}

fn gateway(text: &mut Text, metrics: &Metrics) {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let mut events: Vec<(String, Arc<Figures>)> = vec![(String::new(), Arc::clone(&metrics.others))];
    events.extend(metrics.events.read().iter().map(|(name, figures)| (name.to_string(), Arc::clone(figures))));
    events.sort_by(|one, other| one.0.cmp(&other.0));
    text.family("edri_http_requests_total", "counter", "Requests that were answered, by event and class of status.");
    for (event, figures) in &events {
        for (class, count) in CLASSES.iter().zip(&figures.classes).filter(|(_, count)| load(count) > 0) {
            text.sample("edri_http_requests_total", &[("event", event), ("status", class)], load(count));
        }
    }
    text.family("edri_http_request_duration_seconds", "histogram", "How long requests took until their answer began.");
    for (event, figures) in &events {
        let counts: Vec<u64> = figures.buckets.iter().map(load).collect();
        if counts.iter().all(|count| *count == 0) {
            continue;
        }
        let mut total = 0;
        for (place, count) in counts.iter().enumerate() {
            total += count;
            let end = BUCKETS.get(place).map_or("+Inf".to_owned(), ToString::to_string);
            text.sample("edri_http_request_duration_seconds_bucket", &[("event", event), ("le", &end)], total);
        }
        let seconds = std::time::Duration::from_nanos(load(&figures.nanoseconds)).as_secs_f64();
        text.sample("edri_http_request_duration_seconds_sum", &[("event", event)], seconds);
        text.sample("edri_http_request_duration_seconds_count", &[("event", event)], total);
    }
    text.family("edri_http_refused_total", "counter", "What was refused before it was an event, by reason.");
    for refusal in Refusal::ALL {
        text.sample("edri_http_refused_total", &[("reason", refusal.name())], load(&metrics.refused[refusal as usize]));
    }
    let gauge = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed);
    text.one(
        "edri_http_requests_in_flight",
        "gauge",
        "Requests that wait for their answer.",
        gauge(&metrics.in_flight),
    );
    text.one("edri_http_connections", "gauge", "Connections that are open.", gauge(&metrics.connections));
    text.one("edri_http_connections_total", "counter", "Connections that were taken.", load(&metrics.accepted));
    text.one("edri_http_sent_bytes_total", "counter", "Bytes of the bodies of answers.", load(&metrics.sent_bytes));
}

fn websockets(text: &mut Text, figures: &WebSockets) {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (connected, away) = figures.sessions();
    text.family("edri_websocket_sessions", "gauge", "Clients over WebSocket, by whether they are connected.");
    text.sample("edri_websocket_sessions", &[("state", "connected")], connected);
    text.sample("edri_websocket_sessions", &[("state", "away")], away);
    text.one("edri_websocket_sessions_total", "counter", "Sessions that were begun.", load(&figures.begun));
    text.one("edri_websocket_resumes_total", "counter", "How often a client came back.", load(&figures.resumed));
    let subscriptions = figures.subscriptions.load(Ordering::Relaxed);
    text.one("edri_websocket_subscriptions", "gauge", "Subscriptions of clients over WebSocket.", subscriptions);
    text.one("edri_websocket_events_sent_total", "counter", "Events written for subscribers.", load(&figures.events));
    let missed = load(&figures.missed);
    text.one("edri_websocket_events_missed_total", "counter", "Events that subscribers were too slow for.", missed);
    let name = "edri_websocket_frames_received_total";
    text.family(name, "counter", "Frames that came from clients, by kind and what became of them.");
    for (kind, outcome, count) in figures.frames().filter(|(.., count)| *count > 0) {
        text.sample(name, &[("frame", kind), ("outcome", outcome)], count);
    }
}

fn kept(text: &mut Text, cache: &Cache) {
    let name = "edri_cache_requests_total";
    text.family(name, "counter", "Requests whose answer may be given again, by how they were answered.");
    for (outcome, count) in cache.figures.requests() {
        text.sample(name, &[("outcome", outcome)], count);
    }
    let figures = &cache.figures;
    text.one(
        "edri_cache_not_modified_total",
        "counter",
        "Clients that were told that what they have is as it was.",
        figures.not_modified(),
    );
    text.one(
        "edri_cache_notifications_total",
        "counter",
        "Notifications that end what is kept.",
        figures.notifications(),
    );
    let (entries, bytes) = cache.size();
    text.one("edri_cache_entries", "gauge", "Answers that are kept, also stale ones.", entries);
    text.one("edri_cache_bytes", "gauge", "What they take up.", bytes);
    text.one(
        "edri_cache_cut_off",
        "gauge",
        "1 while nothing is kept that notifications end, because a node cannot be reached.",
        u64::from(cache.is_cut_off()),
    );
}

fn node(text: &mut Text, topology: &Topology) {
    text.family("edri_node_info", "gauge", "The node, always 1.");
    text.sample("edri_node_info", &[("node", &topology.node)], 1);
    text.one("edri_node_uptime_seconds", "gauge", "How long the node has lived.", topology.uptime_s);
    text.one("edri_node_events", "gauge", "Events that are known.", topology.events);
    text.one("edri_node_pending", "gauge", "Requests and tunnels that are open.", topology.pending);
    text.one("edri_node_unrouted_total", "counter", "Notifications that nobody wanted.", topology.unrouted);
    text.one("edri_node_late_answers_total", "counter", "Answers that nobody waited for.", topology.late_answers);
    text.one("edri_node_dead_letters_total", "counter", "Dead letters.", topology.dead_letters);
}

fn managers(text: &mut Text, topology: &Topology) {
    let managers: Vec<(String, &GroupView)> = topology.managers.iter().filter_map(named).collect();
    let outcomes: [(&str, Read<GroupView>); 5] = [
        ("handled", |view| view.account.handled),
        ("failed", |view| view.account.failed),
        ("dead_lettered", |view| view.account.dead_lettered),
        ("cancelled", |view| view.account.cancelled),
        ("forwarded", |view| view.account.forwarded),
    ];
    text.family("edri_manager_deliveries_total", "counter", "Deliveries that have ended, by how.");
    for (manager, view) in &managers {
        for (outcome, count) in outcomes {
            text.sample("edri_manager_deliveries_total", &[("manager", manager), ("outcome", outcome)], count(view));
        }
    }
    let figures: [(&str, &str, &str, Read<GroupView>); 8] = [
        ("edri_manager_retries_total", "counter", "Further attempts at deliveries.", |view| view.account.retried),
        ("edri_manager_missed_total", "counter", "State events that found no room.", |view| view.missed),
        ("edri_manager_worker_restarts_total", "counter", "Workers that were lost and replaced.", restarts),
        ("edri_manager_queued", "gauge", "Deliveries that wait in the inbox.", |view| view.account.queued),
        ("edri_manager_in_hand", "gauge", "Deliveries that workers have.", |view| view.account.in_hand),
        ("edri_manager_workers_running", "gauge", "Workers that take events.", running),
        ("edri_manager_workers_stuck", "gauge", "Threads that did not return in time.", stuck),
        ("edri_manager_failed", "gauge", "1 when its workers were restarted too often.", |view| {
            u64::from(view.state == ManagerState::Failed)
        }),
    ];
    for (name, kind, help, read) in figures {
        text.family(name, kind, help);
        for (manager, view) in &managers {
            text.sample(name, &[("manager", manager)], read(view));
        }
    }
}

/// Keyed shared managers, whose events wait where they are published until they can go to the node with their key.
fn divided(text: &mut Text, topology: &Topology) {
    if topology.divided.is_empty() {
        return;
    }
    text.family("edri_keys_queued", "gauge", "Deliveries that wait for the node with their key.");
    for (manager, view) in topology.divided.iter().filter_map(named) {
        text.sample("edri_keys_queued", &[("manager", &manager)], view.account.queued);
    }
}

fn restarts(view: &GroupView) -> u64 {
    view.workers.iter().map(|worker| u64::from(worker.restarts)).sum()
}

fn stuck(view: &GroupView) -> u64 {
    view.workers.iter().map(|worker| u64::from(worker.stuck)).sum()
}

fn running(view: &GroupView) -> u64 {
    view.workers.iter().map(|worker| u64::from(worker.state == WorkerState::Running)).sum()
}

fn named(view: &GroupView) -> Option<(String, &GroupView)> {
    match &view.name {
        GroupName::Manager(name) => Some((name.to_string(), view)),
        _ => None,
    }
}

fn links(text: &mut Text, topology: &Topology) {
    if topology.links.is_empty() {
        return;
    }
    let figures: [(&str, &str, &str, Read<LinkView>); 7] = [
        ("edri_link_up", "gauge", "1 when the link is up.", |link| u64::from(link.state == LinkState::Up)),
        ("edri_link_queued_bytes", "gauge", "Bytes that wait to be written.", |link| link.queued_bytes),
        ("edri_link_sent_bytes_total", "counter", "Bytes sent.", |link| link.sent_bytes),
        ("edri_link_sent_packets_total", "counter", "Packets sent.", |link| link.sent_packets),
        ("edri_link_received_bytes_total", "counter", "Bytes received.", |link| link.received_bytes),
        ("edri_link_received_packets_total", "counter", "Packets received.", |link| link.received_packets),
        ("edri_link_resumes_total", "counter", "How often the link came back.", |link| link.resumes),
    ];
    for (name, kind, help, read) in figures {
        text.family(name, kind, help);
        // The place tells links apart whose neighbour is not known yet.
        for (place, link) in topology.links.iter().enumerate() {
            let peer = link.peer.as_ref().map(ToString::to_string).unwrap_or_default();
            let labels = [("link", &*place.to_string()), ("peer", &peer), ("address", &link.address)];
            text.sample(name, &labels, read(link));
        }
    }
}

/// A text in the making.
struct Text(String);

impl Text {
    /// A figure with all its samples.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, content)) in labels.iter().enumerate() {
            self.0.push(if place == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for character in content.chars() {
                match character {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        self.line(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a text does not fail.
        let _ = self.0.write_fmt(text);
    }
}
