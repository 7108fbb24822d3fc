//! Nodes as processes of their own around a switch: killed, cut off, moved. Each writes down what it sends and handles, and
//! the test counts for itself.

mod harness;
mod hosts;
mod journal;
mod soak;

use std::time::{Duration, Instant};

use harness::{Cluster, SWITCH, is_anybody_left, wait};
use hosts::Hosts;

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Hosts of their own, or `None` after saying why there are none here.
#[expect(clippy::print_stderr, reason = "who runs the tests is to see what was not run")]
fn hosts(count: usize) -> Option<Hosts> {
    match Hosts::around_a_switch(count) {
        Ok(hosts) => Some(hosts),
        Err(why) => {
            eprintln!("NOT RUN: this needs root and iproute2, to make hosts of network namespaces: {why}");
            None
        }
    }
}

#[test]
fn each_of_five_nodes_and_the_switch_is_killed_and_comes_back_and_nothing_is_lost_between_the_living() {
    let mut cluster = Cluster::star(&FIVE, None, 10);
    let folder = cluster.folder.clone();
    cluster.start_all();
    cluster.wait_exchanged(20);
    for (index, name) in FIVE.into_iter().enumerate() {
        cluster.kill(name);
        if index % 2 == 1 {
            // The others have noticed; otherwise it is back before they could.
            let other = FIVE[(index + 1) % FIVE.len()];
            cluster.wait_reach(other, name, false);
        }
        cluster.start(name);
        cluster.wait_exchanged(20);
    }
    cluster.kill(SWITCH);
    cluster.wait_reach("b", "c", false);
    cluster.start(SWITCH);
    cluster.wait_exchanged(20);
    let counts = cluster.finish();
    eprintln!("{counts:?}");
    assert!(counts.redelivered <= counts.handled / 10 && counts.requests["ok"] > 100, "{counts:?}");
    assert!(!is_anybody_left(&folder), "all have ended");
}

#[test]
fn hosts_lose_their_cable_for_long_and_for_moments_and_change_their_address_and_nothing_is_lost() {
    let Some(hosts) = hosts(3) else { return };
    let mut cluster = Cluster::star(&FIVE[..3], Some(&hosts), 10);
    let folder = cluster.folder.clone();
    cluster.start_all();
    cluster.wait_exchanged(20);
    // For moments: the connection outlives each of them.
    for round in 0..6 {
        hosts.cable(round % 3, false).expect("a cable is pulled");
        std::thread::sleep(Duration::from_millis(300));
        hosts.cable(round % 3, true).expect("a cable is plugged in");
        cluster.wait_exchanged(5);
    }
    // For longer than a connection lives.
    let pulled = Instant::now();
    hosts.cable(0, false).expect("a cable is pulled");
    cluster.wait_reach("b", "a", false);
    cluster.wait_reach("a", "b", false);
    std::thread::sleep(Duration::from_secs(10).saturating_sub(pulled.elapsed()));
    hosts.cable(0, true).expect("a cable is plugged in");
    cluster.wait_exchanged(20);
    // Another address: the connection moves, or is made anew.
    hosts.address(1, Some(2), 3).expect("another address");
    cluster.wait_exchanged(20);
    let counts = cluster.finish();
    eprintln!("{counts:?}");
    assert_eq!((counts.redelivered, counts.lost_with_killed), (0, 0), "nobody has died: {counts:?}");
    assert!(!is_anybody_left(&folder), "all have ended");
}

#[test]
fn a_node_that_stays_away_slows_nobody_and_fills_no_memory() {
    const KEPT: usize = 1024;
    let mut cluster = Cluster::star(&FIVE[..3], None, 2).keeping(KEPT);
    cluster.start_all();
    cluster.wait_exchanged(200);
    let fastest_local = |cluster: &mut Cluster| {
        let took = (0..4).map(|_| {
            let told = cluster.ask("a", "local 10000");
            assert_eq!(told["handled"], 10_000, "{told}");
            told["took_ms"].as_u64().expect("a number").max(1)
        });
        took.min().expect("four")
    };
    let before = fastest_local(&mut cluster);
    cluster.signal("c", "STOP");
    cluster.wait_reach("a", "c", false);
    let dead = |cluster: &mut Cluster| cluster.ask("a", "look")["topology"]["dead_letters"].as_u64().expect("a number");
    // What is kept for the one that is away is full, and so is the list of what was not.
    wait("all to be full", || dead(&mut cluster) > KEPT as u64);
    let memory = cluster.memory_kb("a");
    let full = dead(&mut cluster);
    let during = fastest_local(&mut cluster);
    wait("much more to be sent", || dead(&mut cluster) > full + 2 * KEPT as u64);
    let grown = cluster.memory_kb("a").saturating_sub(memory);
    eprintln!("before {before} ms, during {during} ms, {grown} KiB more than {memory} KiB");
    // Others use the machine too, so only a stall is told apart from noise.
    assert!(during < before * 4, "{during} ms for what took {before} ms before");
    assert!(grown < 10_000, "{grown} KiB more than {memory} KiB");
    cluster.signal("c", "CONT");
    cluster.wait_exchanged(10);
    for (name, report) in cluster.stop_all() {
        assert_eq!(report["balanced"], true, "`{name}`: {report}");
    }
}
