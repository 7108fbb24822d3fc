use std::time::{Duration, Instant};

use edri::Topology;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::super::Snapshot;
use super::*;

fn manager(name: &str, handled: u64, queued: u64, restarts: u64) -> Value {
    let account = json!({
        "deliveries": handled + queued, "handled": handled, "failed": 0, "dead_lettered": 0, "cancelled": 0,
        "forwarded": 0, "queued": queued, "in_hand": 0, "retried": 0,
    });
    json!({
        "name": name, "state": "running", "distance": 0, "reachable": true, "capacity": 100, "depths": [queued],
        "overflow": "wait", "account": account, "missed": 0,
        "handling": {"count": 5, "p50_us": 12.0, "p99_us": 1_500.0, "max_us": 2_000.0},
        "workers": [{
            "instance": 0, "state": "running", "restarts": restarts, "stuck": 0, "in_hand": 0, "health": {"is": "good"},
        }],
    })
}

/// A node as it tells of itself, so that what is sent is read too.
fn node(incarnation: &str, managers: &[Value], sent_bytes: u64) -> Topology {
    let handled: u64 = managers.iter().filter_map(|manager| manager["account"]["handled"].as_u64()).sum();
    let account = json!({
        "deliveries": handled, "handled": handled, "failed": 0, "dead_lettered": 0, "cancelled": 0, "forwarded": 0,
        "queued": 0, "in_hand": 0, "retried": 0,
    });
    let link = json!({
        "peer": "south", "address": "10.0.0.2:7440", "dialled": true, "state": "up", "since_s": 90.0, "round_trip_ms": 0.5,
        "queued_bytes": 0, "sent_bytes": sent_bytes, "sent_packets": 1, "received_bytes": 0, "received_packets": 0,
        "resumes": 2,
    });
    let told = json!({
        "node": "north", "incarnation": incarnation, "phase": "running", "uptime_s": 190.0, "account": account, "unrouted": 0,
        "pending": 3, "late_answers": 0, "dead_letters": 1, "events": 2, "managers": managers, "subscriptions": [],
        "links": [link],
    });
    serde_json::from_value(told).expect("a topology")
}

const LIFE: &str = "00000000000000a1";

fn between(before: &Topology, now: &Topology) -> Figures {
    let at = Instant::now();
    let snapshot = |at, node: &Topology| Snapshot { at, nodes: vec![node.clone()] };
    Figures::between(&snapshot(at, before), &snapshot(at + Duration::from_secs(2), now))
}

fn two() -> Figures {
    let before = node(LIFE, &[manager("model", 100, 5, 1), manager("alarm", 10, 0, 0)], 10_000);
    let now = node(LIFE, &[manager("model", 300, 90, 3), manager("alarm", 1_010, 0, 0)], 50_000);
    between(&before, &now)
}

/// The screen's lines without what is empty at their ends.
fn screen(view: &mut View, figures: &Figures) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(140, 14)).expect("a terminal");
    terminal.draw(|frame| view.draw(frame, figures)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let line =
        |row: u16| (0..140).map(|column| buffer[(column, row)].symbol()).collect::<String>().trim_end().to_owned();
    (0..14).map(line).collect()
}

#[test]
fn rates_are_what_was_counted_between_two_snapshots() {
    let figures = two();
    assert_eq!(figures.managers[0].handled_per_s, 100.0);
    assert_eq!(figures.managers[1].handled_per_s, 500.0);
    assert_eq!((figures.managers[0].restarts, figures.managers[0].restarts_new), (3, 2));
    assert_eq!(figures.links[0].sent_bytes_per_s, 20_000.0);
}

#[test]
fn a_node_in_another_life_has_no_rates_from_the_one_before() {
    let before = node(LIFE, &[manager("model", 100, 0, 0)], 0);
    let now = node("00000000000000b2", &[manager("model", 300, 0, 0)], 0);
    assert_eq!(between(&before, &now).managers[0].handled_per_s, 0.0);
    assert_eq!(between(&now, &now).managers[0].handled_per_s, 0.0);
}

#[test]
fn the_screen_shows_nodes_managers_links_and_keys() {
    let lines = screen(&mut View::new(true), &two());
    assert!(
        lines[0].starts_with("north running  600/s handled  dead letters 1  nodes 0/0  queued 0  open 3  up 3m10s"),
        "{lines:#?}"
    );
    assert!(lines[2].contains("MANAGER") && lines[2].contains("HANDLED/S▾"), "{lines:#?}");
    assert!(lines[3].contains("alarm") && lines[3].contains("500"), "the busiest first: {lines:#?}");
    assert!(lines[4].contains("model") && lines[4].contains("90%") && lines[4].contains("+2 3"), "{lines:#?}");
    assert!(lines[4].contains("1.5ms"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("north → south") && line.contains("19KiB/s")), "{lines:#?}");
    assert!(lines[13].starts_with("q quits"), "{lines:#?}");
}

#[test]
fn keys_sort_pause_and_quit() {
    let figures = two();
    let mut view = View::new(true);
    assert!(!view.press(KeyCode::Left) && !view.press(KeyCode::Left) && !view.press(KeyCode::Left));
    assert!(screen(&mut view, &figures)[3].contains("alarm"), "by name");
    view.press(KeyCode::Char('r'));
    assert!(screen(&mut view, &figures)[3].contains("model"), "by name, reversed");
    view.press(KeyCode::Char('p'));
    assert!(screen(&mut view, &figures)[13].starts_with("PAUSED"));
    view.lost = Some("the node is gone".to_owned());
    assert!(screen(&mut view, &figures)[13].contains("the node is gone"));
    assert!(view.press(KeyCode::Char('q')));
}

#[test]
fn a_narrow_screen_shows_what_matters_most_whole() {
    let mut terminal = Terminal::new(TestBackend::new(80, 14)).expect("a terminal");
    let mut view = View::new(true);
    terminal.draw(|frame| view.draw(frame, &two())).expect("drawn");
    let buffer = terminal.backend().buffer();
    let head: String = (0..80).map(|column| buffer[(column, 2)].symbol()).collect();
    let columns: Vec<_> = head.split_whitespace().collect();
    let expect = ["MANAGER", "STATE", "HANDLED/S▾", "QUEUED", "FULL", "IN", "HAND", "HANDLE", "P99", "RESTARTS"];
    assert_eq!(columns, expect);
    let line = |row: u16| (0..80).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    let link = (0..14).map(line).find(|line| line.starts_with("north → south")).expect("with the whole name");
    assert!(link.trim_end().ends_with('2'), "to the last column: {link:?}");
}

#[test]
fn the_line_of_a_node_has_whole_figures_the_first_of_them_where_it_is_narrow() {
    let mut figures = two();
    figures.nodes[0].forwarded_per_s = 150.0;
    let line = |width| View::new(true).node(&figures.nodes[0], width).to_string();
    assert_eq!(line(80), "north running  600/s handled  150/s forwarded  dead letters 1  nodes 0/0");
    assert_eq!(line(40), "north running  600/s handled");
}

#[test]
fn a_small_or_an_empty_screen_panics_nobody() {
    let figures = two();
    let nothing = Figures { nodes: Vec::new(), managers: Vec::new(), links: Vec::new() };
    for (width, height) in [(1, 1), (20, 3), (200, 2), (3, 60)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let mut view = View::new(false);
        view.press(KeyCode::PageDown);
        for figures in [&figures, &nothing] {
            terminal.draw(|frame| view.draw(frame, figures)).expect("drawn");
        }
    }
}
