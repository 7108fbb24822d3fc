//! Of nodes that come and go, and of their groups.

use std::time::Duration;

use edri_events::{Incarnation, NodeName};

use super::super::{
    Content, LinkId, Loss, Message, NODE_SLOT, NodeState, NodeView, Options, Output, Refusal, Topology, WITHDRAWN_SLOT,
    Withdrawn,
};
use super::net::{CALM, Net, Weather};
use super::{
    START, add_group, chain, group, hear, life, lists, name, of_group, others, record, take_log, topology,
    with_neighbour,
};
use crate::limits::GONE_KEPT;

#[test]
fn a_node_that_leaves_is_gone_with_its_last_path_and_one_that_is_silent_after_a_while() {
    for leaves in [true, false] {
        let mut net = chain(&["a", "b", "c"]);
        if leaves {
            net.host("c").topology.set_leaving();
            net.poll(&name("c"));
            net.run(Duration::from_millis(50));
            assert!(net.host("a").mirror.nodes[&name("c")].1.leaving);
        }
        take_log(&mut net, "a");
        net.kill(&name("c"));
        net.run(Duration::from_secs(4));
        let expected = if leaves { "c Left" } else { "c unreachable 2" };
        assert_eq!(take_log(&mut net, "a"), [expected]);
        net.run(Duration::from_secs(55));
        assert_eq!(take_log(&mut net, "a").len(), 0);
        net.run(Duration::from_secs(5));
        assert_eq!(take_log(&mut net, "a"), if leaves { vec![] } else { vec!["c Expired"] });
        net.check_no_remains();
    }
}

#[test]
fn a_partition_that_heals_loses_nothing() {
    let mut net = chain(&["a", "b", "c", "d"]);
    for node in ["a", "b", "c", "d"] {
        add_group(&mut net, node, 1, "before");
    }
    net.run(Duration::from_secs(1));
    let wire = net.wires_of(&name("b"))[1];
    net.cut(wire, 0);
    net.run(Duration::from_secs(1));
    take_log(&mut net, "a");
    add_group(&mut net, "d", 2, "meanwhile");
    net.run(Duration::from_secs(10));
    assert_eq!(take_log(&mut net, "a").len(), 0);
    let before = net.sent;
    net.connect("b", "c", [1, 1]);
    net.run(Duration::from_millis(100));
    net.check_agreement();
    assert_eq!(
        net.sent.node_records - before.node_records,
        6,
        "two nodes say that they have a link, to the three others"
    );
    let mut log = take_log(&mut net, "a");
    log.sort();
    assert_eq!(log, ["c reachable 2", "d reachable 3", "d/2 meanwhile"]);
    assert_eq!(net.sent.group_records - before.group_records, 2, "only what is new crosses two links");
}

#[test]
fn who_joined_during_a_partition_hears_of_the_other_side_as_soon_as_it_heals() {
    let mut net = chain(&["a", "b", "c"]);
    add_group(&mut net, "c", 1, "wants");
    net.run(Duration::from_millis(100));
    let wire = net.wires_of(&name("c"))[0];
    net.cut(wire, 0);
    net.run(Duration::from_secs(1));
    net.start("x");
    net.connect("a", "x", [1, 1]);
    net.run(Duration::from_secs(1));
    assert!(!net.host("x").mirror.nodes.contains_key(&name("c")), "nobody tells of who cannot be reached");
    net.connect("b", "c", [1, 1]);
    net.run(Duration::from_millis(200));
    net.check_agreement();
    let log = take_log(&mut net, "x");
    assert_eq!(log[log.len() - 2..], ["c up", "c/1 wants"]);
}

#[test]
fn a_life_that_claims_its_name_back_has_only_the_groups_that_it_tells_then() {
    for at_once in [false, true] {
        let mut a = with_neighbour();
        hear(&mut a, [1, 2].map(|number| record("b", 1, 20, number, 2, of_group("g"))));
        assert_eq!(others(a.poll(START)).len(), 2);
        hear(&mut a, [record("b", 2, 3, NODE_SLOT, 1, lists(&[]))]);
        if !at_once {
            assert!(matches!(others(a.poll(START))[..], [Output::NodeChanged { .. }, Output::PathsChanged { .. }]));
        }
        hear(&mut a, [record("b", 3, 20, 2, 8, of_group("g")), record("b", 3, 20, NODE_SLOT, 9, lists(&[("a", 10)]))]);
        let outputs = others(a.poll(START));
        let groups: Vec<_> = outputs.iter().filter(|output| matches!(output, Output::GroupChanged { .. })).collect();
        assert!(matches!(groups[..], [Output::GroupChanged { number: 1, state: None, .. }]), "{outputs:?}");
    }
}

#[test]
fn nothing_is_said_of_the_groups_of_a_life_that_comes_back_before_there_is_a_path_to_it() {
    let mut a = with_neighbour();
    hear(&mut a, [1, 2].map(|number| record("b", 1, 20, number, 2, of_group("g"))));
    a.poll(START);
    hear(&mut a, [record("b", 2, 3, NODE_SLOT, 1, lists(&[]))]);
    a.poll(START);
    hear(&mut a, [2, 3].map(|number| record("b", 3, 20, number, 8, of_group("g"))));
    assert_eq!(others(a.poll(START)), []);
    hear(&mut a, [record("b", 3, 20, 1, 7, of_group("g")), record("b", 3, 20, NODE_SLOT, 9, lists(&[("a", 10)]))]);
    let outputs = others(a.poll(START));
    let [
        Output::NodeChanged { .. },
        Output::GroupChanged { number: 3, state: Some(_), .. },
        Output::PathsChanged { .. },
    ] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
}

#[test]
fn who_was_about_to_go_has_left_when_another_life_takes_its_name() {
    let mut a = with_neighbour();
    let Content::Node(state) = lists(&[("a", 10)]) else { panic!("it is one of a node") };
    hear(&mut a, [record("b", 1, 20, NODE_SLOT, 2, Content::Node(NodeState { leaving: true, ..state }))]);
    a.poll(START);
    hear(&mut a, [record("b", 2, 3, NODE_SLOT, 1, lists(&[]))]);
    let outputs = others(a.poll(START));
    assert!(
        matches!(outputs[..], [Output::NodeGone { why: Loss::Left, .. }, Output::PathsChanged { .. }]),
        "{outputs:?}"
    );
}

#[test]
fn a_node_is_never_seen_without_its_groups() {
    for seed in 0..30 {
        let mut net = Net::new(seed, Options::default());
        net.complete = true;
        net.weather = Weather { delay_ms: 100, ..CALM };
        net.batches = seed % 2 == 0;
        let names = ["n0", "n1", "n2", "n3", "n4", "n5"];
        for node in names {
            net.start(node);
            add_group(&mut net, node, 1, "g");
        }
        // Two halves that join, and a node that does so in between.
        for (a, b) in [("n0", "n1"), ("n1", "n2"), ("n3", "n4"), ("n4", "n5"), ("n2", "n3")] {
            net.connect(a, b, [1, 1]);
            let pause = net.random.below(400);
            net.run(Duration::from_millis(pause));
        }
        net.run(Duration::from_secs(3));
        net.check_agreement();
    }
}

#[test]
fn what_one_has_forgotten_and_another_not_does_not_come_back() {
    let mut net = chain(&["a", "b", "dead"]);
    net.kill(&name("dead"));
    net.run(Duration::from_secs(4));
    // `a` forgets early, as if its clock ran ahead.
    let topology = &mut net.host("a").topology;
    topology.options.expiry = Duration::from_secs(1);
    topology.rests_until = Duration::ZERO;
    net.run(Duration::from_secs(2));
    net.host("a").topology.options.expiry = Duration::from_secs(60);
    assert!(net.host("a").topology.known.get(&name("dead")).is_none());
    assert!(net.host("b").topology.known.get(&name("dead")).is_some());
    // Neither their fingerprints, nor a new link, nor a newcomer brings it back.
    net.run(Duration::from_secs(5));
    let wire = net.wires_of(&name("a"))[0];
    net.cut(wire, 0);
    net.run(Duration::from_secs(1));
    net.connect("a", "b", [1, 1]);
    net.start("x");
    net.connect("x", "b", [1, 1]);
    net.run(Duration::from_secs(5));
    let before = net.sent;
    net.run(Duration::from_secs(10));
    assert_eq!(net.sent.messages - before.messages, net.sent.digests - before.digests, "it is not even spoken of");
    for node in ["a", "x"] {
        assert!(net.host(node).topology.known.get(&name("dead")).is_none(), "{node}");
    }
}

#[test]
fn what_is_lost_on_the_way_is_found_by_the_fingerprint() {
    let mut net = chain(&["a", "b", "c"]);
    net.weather = Weather { loss: 1, ..CALM };
    add_group(&mut net, "a", 1, "lost");
    add_group(&mut net, "a", 2, "lost too");
    net.run(Duration::from_millis(20));
    net.weather = CALM;
    // `c` gets the last of three, which looks as if it had got so far.
    add_group(&mut net, "a", 3, "not lost");
    net.run(Duration::from_millis(100));
    assert_eq!(take_log(&mut net, "c").pop().as_deref(), Some("a/3 not lost"));
    net.run(Duration::from_secs(9));
    net.check_agreement();
}

#[test]
fn everything_is_settled_when_all_who_can_be_reached_are() {
    let mut net = chain(&["a", "b", "c"]);
    for (at, node) in ["c", "a", "b"].into_iter().enumerate() {
        let settled = at == 2;
        let host = net.host(node);
        host.settled = true;
        host.topology.set_settled(true);
        net.poll(&name(node));
        net.run(Duration::from_secs(1));
        assert!(["a", "b", "c"].iter().all(|node| net.host(node).topology.is_settled() == settled));
    }
    // A link that is up and has not told yet what it knows.
    let a = &mut net.host("a").topology;
    a.link_up(LinkId(99), name("x"), life(1), 1).expect("taken");
    a.poll(START + Duration::from_secs(2000));
    assert!(!a.is_settled());
    a.receive(LinkId(99), Message::Synced);
    assert!(a.poll(START + Duration::from_secs(2000)).contains(&Output::Synced { link: LinkId(99) }));
    assert!(a.is_settled());
}

#[test]
fn subscriptions_may_come_and_go_for_ever() {
    let mut net = chain(&["a", "b", "c"]);
    add_group(&mut net, "a", 1, "stays");
    net.run(Duration::from_millis(100));
    // `c` sees only some of what follows.
    net.weather = Weather { loss: 2, delay_ms: 50, reorders: true };
    take_log(&mut net, "c");
    let rounds = 3 * GONE_KEPT as u32;
    for number in 2..rounds {
        add_group(&mut net, "a", number, "comes");
        if number % 100 != 0 {
            let host = net.host("a");
            host.groups.remove(&number);
            host.topology.withdraw_group(number);
            net.poll(&name("a"));
        }
        if number % 10 == 0 {
            net.run(Duration::from_millis(5));
        }
    }
    net.weather = CALM;
    net.run(Duration::from_secs(10));
    net.check_agreement();
    assert!(!take_log(&mut net, "c").iter().any(|line| line.starts_with("a/1 ")), "what stays is not touched");
    for node in ["a", "c"] {
        let records = net.host(node).topology.known.get(&name("a")).expect("known").records.len();
        assert!(records < GONE_KEPT + 50, "{records} records at {node}");
    }
    net.check_no_remains();
}

#[test]
fn a_group_that_was_put_together_with_others_does_not_come_back() {
    let mut a = with_neighbour();
    let withdrawn = Withdrawn { below: 10, except: [4].into() };
    hear(&mut a, [3, 4].map(|number| record("b", 1, 20, number, 2, of_group("g"))));
    a.poll(START);
    hear(&mut a, [record("b", 1, 20, WITHDRAWN_SLOT, 3, Content::Withdrawn(withdrawn))]);
    let outputs = others(a.poll(START));
    assert!(matches!(&outputs[..], [Output::GroupChanged { number: 3, state: None, .. }]), "{outputs:?}");
    hear(&mut a, [3, 4, 5].map(|number| record("b", 1, 20, number, 2, of_group("g"))));
    assert_eq!(a.poll(START), []);
    hear(&mut a, [record("b", 1, 20, 10, 1, of_group("g"))]);
    assert_eq!(others(a.poll(START)).len(), 1);
    let says = |content: Content| match content {
        Content::Node(state) => Content::Node(NodeState { settled: true, ..state }),
        content => content,
    };
    hear(&mut a, [record("b", 1, 20, NODE_SLOT, 4, says(lists(&[("a", 10)])))]);
    assert!(matches!(others(a.poll(START))[..], [Output::NodeChanged { .. }]), "the node itself is no group");
}

#[test]
fn withdrawn_groups_are_put_together_when_they_are_many_and_more_than_those_that_live() {
    for living in [0, 2 * GONE_KEPT as u32] {
        let mut a = topology("a", 10);
        let most = living.max(GONE_KEPT as u32);
        let own = |a: &Topology| a.known.get(&name("a")).expect("it knows itself").records.len() as u32;
        (1..=living + most + 1).for_each(|number| a.set_group(number, group("g")).expect("taken"));
        for number in living + 1..=living + most {
            a.withdraw_group(number);
            assert_eq!(own(&a), 1 + living + most + 1);
        }
        a.withdraw_group(living + most + 1);
        assert_eq!(own(&a), 1 + living + 1, "itself, those that live, and one for all others");
    }
}

#[test]
fn a_number_is_never_used_again() {
    let mut a = topology("a", 10);
    assert_eq!(a.set_group(0, group("g")), Err(Refusal::Number));
    assert_eq!(a.set_group(u32::MAX, group("g")), Err(Refusal::Number));
    a.set_group(2, group("g")).expect("taken");
    a.set_group(2, group("h")).expect("it wants something else");
    a.set_group(5, group("g")).expect("taken");
    a.set_group(2, group("i")).expect("it wants something else again");
    a.withdraw_group(5);
    assert_eq!(a.set_group(5, group("g")), Err(Refusal::Number));
    a.withdraw_group(2);
    a.withdraw_group(2);
    assert_eq!(a.set_group(2, group("g")), Err(Refusal::Number));
    assert_eq!(a.set_group(1, group("g")), Err(Refusal::Number));
    a.set_group(u32::MAX - 1, group("g")).expect("taken");
}

#[test]
fn people_see_every_node_and_the_way_to_it() {
    let mut net = chain(&["a", "b", "c"]);
    add_group(&mut net, "c", 1, "g");
    net.run(Duration::from_millis(100));
    let by = |view: &NodeView| view.by.as_ref().map(ToString::to_string);
    let views = net.host("a").topology.nodes();
    let seen: Vec<_> = views.iter().map(|v| (v.node.to_string(), by(v), v.links.len(), v.groups)).collect();
    let b = || Some("b".to_owned());
    assert_eq!(seen, [("a".into(), None, 1, 0), ("b".into(), b(), 2, 0), ("c".into(), b(), 1, 1)]);
    let known: Vec<(NodeName, Incarnation)> = views.into_iter().map(|v| (v.node, v.incarnation)).collect();
    for (node, incarnation) in known {
        let topology = &net.host("a").topology;
        assert_eq!(topology.incarnation_of(&node), Some(incarnation));
        assert_eq!(topology.name_of(incarnation), Some(&node));
        assert!(topology.distance(incarnation).is_some());
    }
}
