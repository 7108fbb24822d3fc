//! Whatever happens, once it stops everybody agrees, with what is so and about nobody else.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{GroupState, NodeStatus, Options};
use super::net::{CALM, Net, Weather};
use super::{group, name};

const EXPIRY: Duration = Duration::from_secs(20);

/// One network, with faults and then without.
fn simulate(seed: u64) {
    let mut net = Net::new(seed, Options { expiry: EXPIRY, ..Options::default() });
    let nodes = 2 + net.random.below(7);
    let names: Vec<String> = (0..nodes).map(|node| format!("n{node}")).collect();
    net.weather = Weather {
        loss: [0, 3, 10][net.random.below(3) as usize],
        delay_ms: [5, 100, 2000][net.random.below(3) as usize],
        reorders: net.random.one_in(2),
    };
    net.batches = net.random.one_in(2);
    for node in &names {
        net.start(node);
    }
    let steps = 20 + net.random.below(150);
    for _ in 0..steps {
        act(&mut net, &names);
        let pause = [0, 50, 500, 5000][net.random.below(4) as usize];
        let pause = net.random.below(pause + 1);
        net.run(Duration::from_millis(pause));
    }

    net.weather = CALM;
    net.run(Duration::from_secs(12));
    net.check_agreement();
    net.run(EXPIRY + Duration::from_secs(5));
    net.check_agreement();
    net.check_no_remains();
    let before = net.sent;
    net.run(Duration::from_secs(20));
    let after = net.sent;
    assert_eq!(after.messages - before.messages, after.digests - before.digests, "nothing is left to say");
}

fn act(net: &mut Net, names: &[String]) {
    let one = &names[net.random.below(names.len() as u64) as usize];
    let other = &names[net.random.below(names.len() as u64) as usize];
    let runs = |net: &Net, node: &str| net.hosts.contains_key(node);
    match net.random.below(20) {
        0 if runs(net, one) => net.kill(&name(one)),
        0..=2 if !runs(net, one) => net.start(one),
        3..=8 if one != other && runs(net, one) && runs(net, other) => {
            let cost = 1 + net.random.below(3) as u32;
            let uneven = cost + u32::from(net.random.one_in(4));
            net.connect(one, other, [cost, uneven]);
        }
        9..=12 if !net.wires.is_empty() => {
            let at = net.random.below(net.wires.len() as u64) as usize;
            let wire = *net.wires.keys().nth(at).expect("below their number");
            net.cut(wire, 3000);
        }
        13..=17 if runs(net, one) => {
            let (change, which) = (net.random.below(3), net.random.next());
            let host = net.host(one);
            let at = which as usize % host.groups.len().max(1);
            let number = host.groups.keys().nth(at).copied();
            match (change, number) {
                (0, Some(number)) => {
                    host.groups.remove(&number);
                    host.topology.withdraw_group(number);
                }
                (1, Some(number)) => set(net, one, number, group(&format!("again.{which}"))),
                _ => {
                    let number = host.next_group;
                    host.next_group += 1;
                    set(net, one, number, group(&format!("group.{which}")));
                }
            }
            net.poll(&name(one));
        }
        18 if runs(net, one) => {
            let host = net.host(one);
            host.settled = !host.settled;
            host.topology.set_settled(host.settled);
            net.poll(&name(one));
        }
        19 if runs(net, one) => {
            net.host(one).topology.set_leaving();
            net.poll(&name(one));
            net.run(Duration::from_millis(200));
            net.kill(&name(one));
        }
        _ => {}
    }
}

fn set(net: &mut Net, node: &str, number: u32, state: GroupState) {
    let host = net.host(node);
    host.groups.insert(number, state.clone());
    host.topology.set_group(number, state).expect("taken");
}

#[test]
fn once_faults_stop_all_agree_and_nobody_is_left_over() {
    match std::env::var("EDRI_SEED") {
        Ok(seed) => simulate(seed.parse().expect("a number")),
        Err(_) => (0..150).for_each(|seed| {
            if std::panic::catch_unwind(|| simulate(seed)).is_err() {
                panic!("EDRI_SEED={seed} fails");
            }
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn they_agree_whatever_the_seed(seed in any::<u64>()) {
        simulate(seed);
    }
}

/// A cluster at rest, all settled, each node with `groups` groups.
fn cluster(nodes: usize, groups: u32, edges: impl Fn(usize, usize) -> bool) -> (Net, Vec<String>, usize) {
    let mut net = Net::new(1, Options::default());
    let names: Vec<String> = (0..nodes).map(|node| format!("n{node:02}")).collect();
    for node in &names {
        net.start(node);
        for number in 1..=groups {
            set(&mut net, node, number, group(&format!("group.{number}")));
        }
        let host = net.host(node);
        host.next_group = groups + 1;
        host.settled = true;
        host.topology.set_settled(true);
    }
    let mut links = 0;
    for a in 0..nodes {
        for b in a + 1..nodes {
            if edges(a, b) {
                net.connect(&names[a], &names[b], [1, 1]);
                links += 1;
            }
        }
    }
    net.run(Duration::from_secs(5));
    net.check_agreement();
    (net, names, links)
}

#[test]
fn a_link_that_flaps_costs_no_record_of_a_group() {
    let (mut net, names, links) = cluster(64, 3, |a, b| b - a == 1 || b - a == 63 || (b - a) % 16 == 7);
    let before = net.sent;
    let wire = net.wires_of(&name(&names[10]))[0];
    let ends = net.wires[&wire].ends.clone();
    net.cut(wire, 0);
    net.run(Duration::from_millis(500));
    net.connect(&ends[0].0, &ends[1].0, [1, 1]);
    net.run(Duration::from_secs(5));
    net.check_agreement();
    assert_eq!(net.sent.group_records, before.group_records);
    // Two nodes say twice that their links have changed, and each of these crosses each link at most once in each direction.
    assert!(net.sent.node_records - before.node_records <= 4 * 2 * (links + 1), "{before:?} {:?}", net.sent);
}

#[test]
fn a_group_that_changes_crosses_each_link_once_in_each_direction() {
    for mesh in [false, true] {
        let (mut net, names, links) = cluster(20, 2, |a, b| mesh || b - a == 1 || b - a == 19);
        let before = net.sent;
        set(&mut net, &names[5], 2, group("another"));
        net.poll(&name(&names[5]));
        net.run(Duration::from_secs(5));
        net.check_agreement();
        let records = net.sent.group_records - before.group_records;
        assert!((19..=2 * links).contains(&records), "{records} for {links} links");
        assert_eq!(net.sent.node_records, before.node_records);
        let digests = net.sent.digests - before.digests;
        assert_eq!(net.sent.messages - before.messages, records + digests, "one record a message, and nothing else");
    }
}

#[test]
fn a_node_that_restarts_costs_what_it_has_to_say() {
    let (mut net, names, links) = cluster(32, 4, |a, b| b - a == 1 || b - a == 31);
    net.kill(&name(&names[7]));
    net.run(Duration::from_secs(4));
    let before = net.sent;
    // Its number is below that of the life before, so it has to claim its name.
    net.start_as(&names[7], 1);
    for number in 1..=2 {
        set(&mut net, &names[7], number, group("new"));
    }
    net.host(&names[7]).settled = true;
    net.host(&names[7]).topology.set_settled(true);
    net.connect(&names[6], &names[7], [1, 1]);
    net.connect(&names[7], &names[8], [1, 1]);
    net.run(Duration::from_secs(5));
    net.check_agreement();
    // It is told all 31 others twice, and its own two groups are told twice at most, over all links.
    let groups = net.sent.group_records - before.group_records;
    assert!(groups <= 2 * 31 * 4 + 2 * 2 * 2 * links, "{groups}");
    let status = net.host(&names[20]).mirror.nodes[&name(&names[7])].1;
    assert!(matches!(status, NodeStatus { reachable: true, settled: true, leaving: false, .. }));
}
