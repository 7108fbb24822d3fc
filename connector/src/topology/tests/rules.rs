//! Of records, names and paths.

use std::time::Duration;

use bytes::Bytes;

use super::super::{Content, LinkId, LinkState, Loss, Message, NODE_SLOT, Options, Output, Refusal, Topology};
use super::net::Net;
use super::{
    LINK, START, add_group, chain, group, hear, join, life, lists, name, of_group, others, pass, record, take_log,
    told, topology, with_neighbour,
};
use crate::limits::{STATE_PAUSE_MAX, TWIN_CLAIMS};

// Records.

#[test]
fn of_two_records_the_higher_version_is_kept_whichever_comes_first() {
    let mut a = with_neighbour();
    let (old, new) = (record("b", 1, 20, 3, 5, of_group("old")), record("b", 1, 20, 3, 6, of_group("new")));
    hear(&mut a, [new.clone(), old.clone()]);
    let state = |outputs: Vec<Output>| match &others(outputs)[..] {
        [Output::GroupChanged { number: 3, state, .. }] => state.as_ref().expect("it is there").name.clone(),
        outputs => panic!("{outputs:?}"),
    };
    assert_eq!(state(a.poll(START)), "new");
    hear(&mut a, [old, new]);
    assert_eq!(a.poll(START), [], "neither an older one nor the same is news, and both go unanswered");
}

#[test]
fn news_goes_to_all_links_but_the_one_it_came_by() {
    let mut a = with_neighbour();
    for (link, peer) in [(LinkId(8), "c"), (LinkId(9), "d")] {
        join(&mut a, link, peer, 30);
    }
    a.poll(START + Duration::from_secs(1));
    let news = record("b", 1, 20, 1, 5, of_group("g"));
    hear(&mut a, [news.clone()]);
    assert_eq!(told(&a.poll(START + Duration::from_secs(1))), [(vec![LinkId(8), LinkId(9)], news)]);
}

#[test]
fn a_new_neighbour_is_told_news_after_what_it_lacked_or_if_it_lacked_nothing() {
    for agrees in [false, true] {
        let mut a = with_neighbour();
        a.link_up(LinkId(8), name("c"), life(30), 1).expect("taken");
        let digest = a.digest();
        a.receive(LinkId(8), if agrees { Message::Digest(digest) } else { Message::Synced });
        a.poll(START);
        let news = record("b", 1, 20, 1, 5, of_group("g"));
        hear(&mut a, [news.clone()]);
        assert_eq!(told(&a.poll(START)), if agrees { vec![(vec![LinkId(8)], news)] } else { vec![] });
    }
}

#[test]
fn what_a_later_version_of_edri_says_is_forwarded_as_it_came() {
    let mut a = with_neighbour();
    join(&mut a, LinkId(8), "c", 30);
    a.poll(START);
    let known = record("b", 1, 20, 1, 5, of_group("g"));
    let mut with_a_field = known.encode().to_vec();
    assert_eq!(with_a_field[0], 0x86, "a map of six");
    with_a_field[0] = 0x87;
    with_a_field.extend(rmp_serde::to_vec(&("later", [1, 2, 3])).expect("encodes").split_off(1));
    // The content is the last of the six.
    let mut of_a_kind = record("b", 1, 20, 2, 6, Content::Gone).encode().to_vec();
    let content = of_a_kind.len() - 5;
    assert_eq!(&of_a_kind[content..], b"\xa4gone");
    of_a_kind.splice(content.., rmp_serde::to_vec(&std::collections::BTreeMap::from([("later", 1)])).expect("encodes"));
    for bytes in [with_a_field, of_a_kind].map(Bytes::from) {
        a.receive(LINK, Message::Records(vec![bytes.clone()]));
        let outputs = a.poll(START);
        let message = Message::Records(vec![bytes]);
        assert!(outputs.contains(&Output::Send { links: vec![LinkId(8)], message }), "{outputs:?}");
    }
    assert_eq!(a.refused(), 0);
}

#[test]
fn the_groups_of_a_node_are_told_before_the_node() {
    let mut a = topology("a", 10);
    join(&mut a, LINK, "b", 20);
    a.set_group(1, group("g")).expect("taken");
    a.set_group(2, group("h")).expect("taken");
    let slots: Vec<u32> = told(&a.poll(START)).iter().map(|(_, record)| record.slot).collect();
    assert_eq!(slots, [1, 2, 0]);
}

#[test]
fn a_later_life_takes_the_place_of_an_earlier_one_once_there_is_a_path_to_it() {
    let mut a = with_neighbour();
    hear(&mut a, [record("b", 1, 20, 1, 2, of_group("g"))]);
    a.poll(START);
    // The new life knows nothing of a link to here, so the old one is unreachable and has not ended yet.
    hear(&mut a, [record("b", 2, 3, NODE_SLOT, 1, lists(&[]))]);
    let outputs = others(a.poll(START));
    let [Output::NodeChanged { incarnation, status, .. }, Output::PathsChanged { destinations }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!((*incarnation, status.reachable, &destinations[..]), (life(20), false, &[life(20)][..]));

    a.link_down(LINK);
    a.link_up(LINK, name("b"), life(3), 1).expect("taken");
    hear(&mut a, [record("b", 2, 3, NODE_SLOT, 2, lists(&[("a", 10)]))]);
    let outputs = others(a.poll(START));
    let [Output::NodeGone { incarnation: old, why: Loss::Replaced, .. }, Output::NodeUp { incarnation: new, .. }, ..] =
        &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!((*old, *new), (life(20), life(3)));
    assert_eq!(a.incarnation_of(&name("b")), Some(life(3)));
    assert_eq!(a.name_of(life(20)), None);
}

#[test]
fn of_two_lives_of_one_epoch_the_higher_number_wins_whichever_comes_first() {
    let lives = [record("c", 1, 5, NODE_SLOT, 9, lists(&[])), record("c", 1, 6, NODE_SLOT, 1, lists(&[]))];
    for order in [[0, 1], [1, 0]] {
        let mut a = with_neighbour();
        hear(&mut a, order.map(|at| lives[at].clone()));
        assert_eq!(a.known.get(&name("c")).expect("known").incarnation, life(6));
    }
}

#[test]
fn who_tells_of_an_older_life_is_told_of_the_later_one() {
    let mut a = with_neighbour();
    let later = record("c", 2, 5, NODE_SLOT, 1, lists(&[]));
    hear(&mut a, [later.clone(), record("c", 2, 5, 1, 2, of_group("g"))]);
    a.poll(START);
    hear(&mut a, [record("c", 1, 6, NODE_SLOT, 9, lists(&[]))]);
    // By one record: there is no path to it.
    assert_eq!(told(&a.poll(START)), [(vec![LINK], later)]);
}

// A node's name.

#[test]
fn a_node_that_meets_what_is_left_of_its_earlier_life_claims_its_name() {
    for number in [1, u64::MAX] {
        let mut net = chain(&["a", "b", "c"]);
        add_group(&mut net, "c", 1, "old");
        net.kill(&name("c"));
        net.run(Duration::from_secs(5));
        net.start_as("c", number);
        add_group(&mut net, "c", 1, "new");
        net.connect("b", "c", [1, 1]);
        net.run(Duration::from_millis(100));
        net.check_agreement();
        let log = take_log(&mut net, "a").join(", ");
        assert!(log.ends_with("c unreachable 2, c Replaced, c up, c/1 new"), "{log}");
    }
}

/// Two processes with one name on both sides of a node, for `time`, and what they say of it.
fn twins(numbers: [u64; 2], time: Duration) -> [Topology; 3] {
    let [mut one, mut other, mut middle] =
        [topology("twin", numbers[0]), topology("twin", numbers[1]), topology("m", 50)];
    middle.link_up(LinkId(1), name("twin"), life(numbers[0]), 1).expect("taken");
    middle.link_up(LinkId(2), name("twin"), life(numbers[1]), 1).expect("taken");
    one.link_up(LinkId(1), name("m"), life(50), 1).expect("taken");
    other.link_up(LinkId(1), name("m"), life(50), 1).expect("taken");
    let wires = [[(0, LinkId(1)), (2, LinkId(1))], [(1, LinkId(1)), (2, LinkId(2))]];
    let mut reported = Vec::new();
    for ms in 0..time.as_millis() {
        let outputs = pass(&mut [&mut one, &mut other, &mut middle], &wires, START + Duration::from_millis(ms as u64));
        reported.extend(outputs.into_iter().filter(|(_, output)| matches!(output, Output::Twin { .. })));
    }
    let [(at, Output::Twin { node, other: winner, .. })] = &reported[..] else { panic!("{reported:?}") };
    let lower = usize::from(numbers[1] < numbers[0]);
    assert_eq!((*at, &**node, *winner), (lower, "twin", life(numbers[1 - lower])));
    [one, other, middle]
}

#[test]
fn of_living_twins_the_lower_number_gives_up() {
    for numbers in [[5, 9], [9, 5]] {
        let [_, _, mut middle] = twins(numbers, Duration::from_secs(1));
        assert_eq!(middle.incarnation_of(&name("twin")), Some(life(9)));
        assert!(middle.next_hop(life(9)).is_some());
        assert_eq!(middle.next_hop(life(5)), None);
        assert_eq!(others(middle.poll(START + Duration::from_secs(2))), []);
    }
}

#[test]
fn what_many_earlier_lives_have_left_is_no_twin() {
    let mut a = with_neighbour();
    for number in 100..100 + 10 * TWIN_CLAIMS as u64 {
        hear(&mut a, [record("a", number, number, NODE_SLOT, 1, lists(&[]))]);
        let outputs = a.poll(START);
        assert_eq!(told(&outputs).iter().map(|(_, record)| record.epoch).collect::<Vec<_>>(), [number + 1]);
        assert_eq!(others(outputs), []);
    }
}

#[test]
fn a_name_is_claimed_with_everything_a_node_has_to_say() {
    let mut a = with_neighbour();
    a.set_group(1, group("g")).expect("taken");
    a.set_group(2, group("h")).expect("taken");
    a.withdraw_group(2);
    a.poll(START);
    hear(&mut a, [record("a", 4, 99, 1, 7, of_group("not mine"))]);
    let outputs = a.poll(START);
    let mut slots: Vec<(u64, u32, u64)> = Vec::new();
    for (_, record) in told(&outputs) {
        assert_eq!(record.incarnation, life(10));
        slots.push((record.epoch, record.slot, record.version));
    }
    assert_eq!(slots.iter().map(|(epoch, slot, _)| (*epoch, *slot)).collect::<Vec<_>>(), [(5, 1), (5, 2), (5, 0)]);
    assert!(slots.iter().all(|(.., version)| *version > 4), "versions go on rising: {slots:?}");
}

#[test]
fn words_put_in_a_node_s_mouth_are_overruled() {
    let mut a = with_neighbour();
    a.set_group(1, group("mine")).expect("taken");
    a.poll(START);
    hear(
        &mut a,
        [
            record("a", 1, 10, 1, 700, of_group("not mine")),
            record("a", 1, 10, 8, 600, of_group("not mine")),
            record("a", 1, 10, NODE_SLOT, 500, lists(&[])),
        ],
    );
    let told = told(&a.poll(START));
    let [(_, one), (_, eight), (_, node)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((one.slot, &one.content), (1, &of_group("mine")));
    assert_eq!((eight.slot, &eight.content), (8, &Content::Gone));
    assert!(matches!(&node.content, Content::Node(state) if state.links.len() == 1));
    assert!(told.iter().all(|(_, record)| record.version > 700));
    a.set_group(8, group("now mine")).expect("the number was never used here");
}

#[test]
fn a_neighbour_with_this_node_s_name_is_refused() {
    let mut a = topology("a", 10);
    assert_eq!(a.link_up(LINK, name("a"), life(20), 1), Err(Refusal::OwnName));
    assert_eq!(others(a.poll(START)), []);
}

// Paths.

#[test]
fn a_link_counts_when_both_ends_list_each_other_s_present_life() {
    let mut a = topology("a", 10);
    a.link_up(LINK, name("b"), life(20), 1).expect("taken");
    for (version, said, counts) in
        [(1, lists(&[]), false), (2, lists(&[("a", 9)]), false), (3, lists(&[("a", 10)]), true), (4, lists(&[]), false)]
    {
        hear(&mut a, [record("b", 1, 20, NODE_SLOT, version, said)]);
        a.poll(START);
        assert_eq!(a.next_hop(life(20)), counts.then_some(LINK));
    }
}

#[test]
fn the_shortest_path_is_taken_and_of_equal_ones_the_smallest_first_name() {
    let mut net = chain(&["a", "c", "z"]);
    for node in ["b", "d"] {
        net.start(node);
    }
    let hop = |net: &mut Net| {
        net.run(Duration::from_secs(1));
        net.check_agreement();
        let z = net.host("z").incarnation;
        let a = net.host("a");
        let link = a.topology.next_hop(z).expect("a path");
        (a.links[&link].0.to_string(), a.topology.distance(z).expect("a path"))
    };
    assert_eq!(hop(&mut net), ("c".to_owned(), 2));
    net.connect("a", "b", [1, 1]);
    net.connect("b", "z", [1, 1]);
    net.connect("a", "d", [1, 1]);
    net.connect("d", "z", [1, 1]);
    assert_eq!(hop(&mut net), ("b".to_owned(), 2));
    // The larger of what both ends say counts.
    net.cut(net.wires_of(&name("b"))[1], 0);
    net.connect("b", "z", [1, 2]);
    assert_eq!(hop(&mut net), ("c".to_owned(), 2));
}

#[test]
fn of_several_links_to_a_neighbour_the_cheapest_is_taken_and_then_the_newest() {
    let mut a = with_neighbour();
    let mut moved = |link: u32, cost: Option<u32>| {
        match cost {
            Some(cost) => a.link_up(LinkId(link), name("b"), life(20), cost).expect("taken"),
            None => a.link_down(LinkId(link)),
        }
        let outputs = others(a.poll(START + Duration::from_secs(1)));
        let moved = outputs.contains(&Output::PathsChanged { destinations: vec![life(20)] });
        (moved, a.next_hop(life(20)).map(|link| link.0))
    };
    assert_eq!(moved(6, Some(3)), (false, Some(7)));
    assert_eq!(moved(8, Some(2)), (false, Some(7)));
    assert_eq!(moved(9, Some(1)), (true, Some(9)));
    assert_eq!(moved(7, None), (false, Some(9)));
    assert_eq!(moved(9, None), (true, Some(8)));
    assert_eq!(moved(8, None), (true, Some(6)));
    // Others see one link, at the least cost, whatever there is.
    assert_eq!(moved(5, Some(2)), (true, Some(5)));
    a.poll(START + Duration::from_secs(9));
    let Content::Node(state) = &a.known.get(&name("a")).expect("it knows itself").records[&NODE_SLOT].content else {
        panic!("it says what it is")
    };
    assert_eq!(state.links, [LinkState { node: name("b"), incarnation: life(20), cost: 2 }]);
}

#[test]
fn nodes_behind_more_links_than_a_packet_may_cross_are_not_reachable_and_not_forgotten() {
    let names: Vec<String> = (0..35).map(|node| format!("n{node:02}")).collect();
    let mut net = Net::new(1, Options { expiry: Duration::from_secs(5), ..Options::default() });
    for node in &names {
        net.start(node);
    }
    for pair in names.windows(2) {
        net.connect(&pair[0], &pair[1], [1, 1]);
    }
    net.run(Duration::from_secs(20));
    let up: Vec<String> = net.host("n00").mirror.nodes.keys().map(ToString::to_string).collect();
    assert_eq!(up, names[1..=32]);
    let before = net.sent;
    net.run(Duration::from_secs(20));
    assert_eq!(net.sent.messages - before.messages, net.sent.digests - before.digests, "neighbours agree all the same");
}

#[test]
fn many_links_that_come_up_together_make_few_records() {
    let mut a = topology("a", 10);
    join(&mut a, LinkId(1000), "b", 20);
    a.poll(START - Duration::from_secs(5));
    let mut records = 0;
    let mut now = START;
    for link in 0..100 {
        a.link_up(LinkId(link), name(&format!("n{link}")), life(100), 1).expect("taken");
        while now < START + Duration::from_millis(10 * u64::from(link)) {
            now += Duration::from_millis(1);
            let outputs = a.poll(now);
            records +=
                outputs.iter().filter(|o| matches!(o, Output::Send { message: Message::Records(_), .. })).count();
        }
    }
    assert!((2..=9).contains(&records), "{records}");
    let due = a.next_deadline().expect("it is still to say the last");
    assert!(due <= now + STATE_PAUSE_MAX);
    let last = told(&a.poll(due)).pop().expect("it says it").1;
    assert!(matches!(last.content, Content::Node(state) if state.links.len() == 101));
    // After a while it says at once what is new, and that it leaves it says at once at any time.
    a.link_down(LinkId(5));
    assert_eq!(told(&a.poll(due + Duration::from_secs(2))).len(), 1);
    a.set_leaving();
    assert_eq!(told(&a.poll(due + Duration::from_secs(2))).len(), 1);
}
