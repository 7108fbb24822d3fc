//! Of records, names and paths.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::super::{
    Content, LinkId, LinkState, Loss, Message, NODE_SLOT, NodeState, Options, Output, Refusal, Topology,
    WITHDRAWN_SLOT, Withdrawn,
};
use super::net::Net;
use super::{
    LINK, START, add_group, chain, group, hear, join, life, lists, name, of_group, others, pass, record, take_log,
    told, topology, with_neighbour,
};
use crate::limits::{
    COST_MAX, FOREIGN_VERSION_MAX, NODE_RECORDS_MAX, STAMP_MAX, STATE_PAUSE_MAX, TWIN_CLAIMS, TWIN_WINDOW,
};

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
fn what_is_kept_of_a_life_does_not_depend_on_the_order_in_which_it_came() {
    // Of one life, in whatever epoch: the older record of another slot is not what the later one replaced.
    let records = [record("c", 1, 20, 2, 3, of_group("g")), record("c", 2, 20, 1, 5, of_group("h"))];
    let summaries = [[0, 1], [1, 0]].map(|order| {
        let mut a = with_neighbour();
        hear(&mut a, order.map(|at| records[at].clone()));
        assert_eq!(told(&a.poll(START)), [], "nothing of it is answered");
        let c = a.known.get(&name("c")).expect("known");
        assert_eq!(c.records.len(), 2);
        c.summary(&name("c"))
    });
    assert_eq!(summaries[0], summaries[1]);
    assert_eq!(summaries[0].epoch, 2);
}

#[test]
fn a_fingerprint_tells_every_record_from_every_other() {
    let said =
        [("c", 20, 1, 3), ("d", 20, 1, 3), ("c", 21, 1, 3), ("c", 20, 2, 3), ("c", 20, 1, 4), ("c", 20, NODE_SLOT, 3)];
    let digests: BTreeSet<u64> = said
        .iter()
        .map(|(node, life, slot, version)| {
            let mut a = with_neighbour();
            let content = if *slot == NODE_SLOT { lists(&[]) } else { of_group("g") };
            hear(&mut a, [record(node, 1, *life, *slot, *version, content)]);
            a.known.get(&name(node)).expect("known").digest()
        })
        .collect();
    assert_eq!(digests.len(), said.len());
}

#[test]
fn a_node_without_a_path_is_forgotten_in_time_whatever_happens_to_others() {
    let mut a = with_neighbour();
    hear(&mut a, [record("c", 1, 30, NODE_SLOT, 1, lists(&[]))]);
    a.poll(START);
    let expiry = Options::default().expiry;
    a.link_up(LinkId(8), name("d"), life(40), 1).expect("taken");
    a.poll(START + expiry / 2);
    a.poll(START + expiry - Duration::from_millis(1));
    assert!(a.known.get(&name("c")).is_some());
    a.poll(START + expiry);
    assert!(a.known.get(&name("c")).is_none());
}

#[test]
fn a_node_that_only_its_groups_are_known_of_is_forgotten_as_well() {
    let mut a = with_neighbour();
    hear(&mut a, [record("c", 1, 30, 1, 2, of_group("g"))]);
    a.poll(START);
    assert!(a.known.get(&name("c")).is_some());
    a.poll(START + Options::default().expiry);
    assert!(a.known.get(&name("c")).is_none());
}

#[test]
fn no_path_leads_to_a_life_that_is_known_to_be_an_earlier_one() {
    let mut a = with_neighbour();
    hear(&mut a, [record("b", 2, 3, 1, 2, of_group("g"))]);
    let outputs = a.poll(START);
    assert!(outputs.contains(&Output::PathsChanged { destinations: vec![life(20)] }), "{outputs:?}");
    assert_eq!(a.next_hop(life(20)), None);
}

#[test]
fn who_has_a_later_life_is_told_nothing_of_an_earlier_one() {
    let mut a = with_neighbour();
    hear(
        &mut a,
        [
            record("b", 1, 20, NODE_SLOT, 2, lists(&[("a", 10), ("c", 30)])),
            record("c", 1, 30, NODE_SLOT, 1, lists(&[("b", 20)])),
        ],
    );
    a.poll(START);
    for (epoch, told_of) in [(0, true), (2, false)] {
        let mut summary: Vec<_> = a.known.iter().map(|(name, node)| node.summary(name)).collect();
        let c = summary.iter_mut().find(|entry| entry.node == name("c")).expect("it is known");
        (c.epoch, c.incarnation) = (epoch, life(31));
        a.receive(LINK, Message::Summary(summary));
        assert_eq!(!told(&a.poll(START)).is_empty(), told_of);
    }
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
    hear(&mut a, [record("b", 2, 3, NODE_SLOT, 1, lists(&[("z", 9)]))]);
    let outputs = others(a.poll(START));
    let [Output::NodeChanged { incarnation, status, .. }, Output::PathsChanged { destinations }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert!(a.nodes().iter().all(|view| view.links.iter().all(|link| *link != name("z"))), "that is not the old one's");
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
        // Longer than until they compare what they have.
        let [_, _, mut middle] = twins(numbers, Duration::from_secs(5));
        assert_eq!(middle.incarnation_of(&name("twin")), Some(life(9)));
        assert!(middle.next_hop(life(9)).is_some());
        assert_eq!(middle.next_hop(life(5)), None);
        assert_eq!(others(middle.poll(START + Duration::from_secs(6))), []);
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

/// Whether node `a`, of life 10, gives up when it hears of these lives of its name, each at so many milliseconds.
fn gives_up(lives: impl IntoIterator<Item = (u64, u64)>) -> bool {
    let mut a = with_neighbour();
    let mut given_up = false;
    for (epoch, (ms, number)) in (100..).step_by(2).zip(lives) {
        assert!(!given_up, "only the last is too much");
        hear(&mut a, [record("a", epoch, number, NODE_SLOT, 1, lists(&[]))]);
        let outputs = others(a.poll(START + Duration::from_millis(ms)));
        given_up = outputs.contains(&Output::Twin { link: LINK, node: name("a"), other: life(number) });
    }
    given_up
}

#[test]
fn a_node_gives_its_name_up_to_one_life_with_a_higher_number_that_has_claimed_it_back_often_and_lately() {
    let most = TWIN_CLAIMS;
    let window = TWIN_WINDOW.as_millis() as u64;
    assert!(!gives_up(vec![(0, 99); most]));
    assert!(gives_up(vec![(0, 99); most + 1]));
    assert!(!gives_up(vec![(0, 9); 5 * most]), "that one is to give up");
    let late = |ms| std::iter::repeat_n((0, 99), most).chain([(ms, 99)]);
    assert!(gives_up(late(window - 1)));
    assert!(!gives_up(late(window)));
    // No more are remembered than these.
    let among =
        |others: u64| std::iter::repeat_n((0, 99), most).chain((200..200 + others).map(|n| (0, n))).chain([(0, 99)]);
    assert!(gives_up(among(15 * most as u64)));
    assert!(!gives_up(among(15 * most as u64 + 1)));
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
fn a_name_is_claimed_above_the_latest_of_all_lives_and_not_beyond_what_others_read() {
    let mut a = with_neighbour();
    let mut epochs = |lives: &[(u64, u64)]| {
        hear(
            &mut a,
            lives
                .iter()
                .map(|(epoch, number)| record("a", *epoch, *number, NODE_SLOT, 1, lists(&[])))
                .collect::<Vec<_>>(),
        );
        let said = told(&a.poll(START));
        said.iter().map(|(_, record)| record.epoch).collect::<Vec<_>>()
    };
    assert_eq!(epochs(&[(9, 99), (5, 98)]), [10]);
    assert_eq!(epochs(&[(STAMP_MAX - 1, 97)]), [STAMP_MAX]);
    assert_eq!(epochs(&[(STAMP_MAX, 5)]), [STAMP_MAX], "an earlier one is answered");
    assert_eq!(epochs(&[(STAMP_MAX, 96)]), [0; 0], "and not one that cannot be outdone");
    a.set_group(1, group("g")).expect("others can read it");
}

#[test]
fn what_is_said_again_is_no_news() {
    let mut a = with_neighbour();
    a.set_group(1, group("g")).expect("taken");
    a.poll(START);
    a.set_group(1, group("g")).expect("taken");
    a.set_settled(false);
    assert_eq!(a.poll(START + Duration::from_secs(1)), []);
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
    a.poll(START);
}

#[test]
fn a_version_that_cannot_be_overruled_takes_one_record_and_no_other() {
    let wires = [[(0, LINK), (1, LINK)]];
    let (mut a, mut b) = (topology("a", 10), topology("b", 20));
    a.set_group(1, group("mine")).expect("taken");
    a.link_up(LINK, name("b"), life(20), 1).expect("taken");
    b.link_up(LINK, name("a"), life(10), 1).expect("taken");
    pass(&mut [&mut a, &mut b], &wires, START);
    for (slot, version) in [(1, STAMP_MAX), (2, STAMP_MAX - 1), (3, FOREIGN_VERSION_MAX + 2), (4, FOREIGN_VERSION_MAX)]
    {
        let forged = [record("a", 1, 10, slot, version, of_group("not mine"))];
        hear(&mut a, forged.clone());
        hear(&mut b, forged);
    }
    let outputs = pass(&mut [&mut a, &mut b], &wires, START);
    let refused = |(_, output): &(usize, Output)| match output {
        Output::Refused { why: Refusal::Version, count, .. } => *count,
        _ => 0,
    };
    assert_eq!(outputs.iter().map(refused).sum::<u64>(), 3, "{outputs:?}");
    for number in [5, 6] {
        a.set_group(number, group("mine")).expect("others can read it");
    }
    a.set_settled(true);
    let later = START + STATE_PAUSE_MAX;
    pass(&mut [&mut a, &mut b], &wires, later);
    let seen = b.known.get(&name("a")).expect("known");
    let says = |number| seen.group(number).map(|group| group.name.clone());
    assert_eq!([1, 2, 3].map(says), [(); 3].map(|()| Some("not mine".into())));
    assert_eq!([4, 5, 6].map(says), [None, Some("mine".into()), Some("mine".into())]);
    assert!(seen.state().is_some_and(|state| state.settled), "nor is the node itself");
}

#[test]
fn of_a_life_that_cannot_be_outdone_two_nodes_do_not_tell_each_other_for_ever() {
    let (mut a, mut b) = (topology("a", 10), topology("b", 20));
    a.link_up(LINK, name("b"), life(20), 1).expect("taken");
    b.link_up(LINK, name("a"), life(10), 1).expect("taken");
    let wires = [[(0, LINK), (1, LINK)]];
    pass(&mut [&mut a, &mut b], &wires, START);
    hear(&mut b, [record("a", STAMP_MAX, 99, NODE_SLOT, 1, lists(&[]))]);
    let mut outputs = Vec::new();
    for second in 1..8 {
        outputs.extend(pass(&mut [&mut a, &mut b], &wires, START + Duration::from_secs(second)));
    }
    let refused = Output::Refused { link: LINK, why: Refusal::Version, count: 1 };
    assert!(outputs.contains(&(0, refused)), "{outputs:?}");
}

#[test]
fn a_neighbour_with_this_node_s_name_is_refused() {
    let mut a = topology("a", 10);
    assert_eq!(a.link_up(LINK, name("a"), life(20), 1), Err(Refusal::OwnName));
    assert_eq!(others(a.poll(START)), []);
}

#[test]
fn groups_that_somebody_else_says_are_withdrawn_are_told_again() {
    let (mut a, mut b) = (topology("a", 10), topology("b", 20));
    a.set_group(1, group("g")).expect("taken");
    a.link_up(LINK, name("b"), life(20), 1).expect("taken");
    b.link_up(LINK, name("a"), life(10), 1).expect("taken");
    let wires = [[(0, LINK), (1, LINK)]];
    pass(&mut [&mut a, &mut b], &wires, START);
    let withdrawn = Withdrawn { below: 100, ..Withdrawn::default() };
    hear(&mut b, [record("a", 1, 10, WITHDRAWN_SLOT, 700, Content::Withdrawn(withdrawn))]);
    let number = |state| Output::GroupChanged { node: name("a"), incarnation: life(10), number: 1, state };
    assert_eq!(pass(&mut [&mut a, &mut b], &wires, START), [(1, number(None))]);
    let mut outputs = Vec::new();
    for second in 1..8 {
        outputs.extend(pass(&mut [&mut a, &mut b], &wires, START + Duration::from_secs(second)));
    }
    assert_eq!(outputs, [(1, number(Some(group("g").into())))]);
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn what_is_put_in_a_node_s_mouth_is_overruled_as_far_as_there_is_room_for_it() {
    let mut a = with_neighbour();
    let forged = (100..=100 + NODE_RECORDS_MAX as u32).map(|number| record("a", 1, 10, number, 9, Content::Gone));
    hear(&mut a, forged);
    a.set_group(7, group("mine")).expect("there is room for what it says itself");
    a.poll(START);
    let known = a.known.get(&name("a")).expect("it knows itself");
    assert_eq!((known.records.len(), known.group(7).is_some()), (NODE_RECORDS_MAX, true));
}

#[test]
fn who_tells_a_node_of_its_own_earlier_life_is_told_of_this_one() {
    let mut a = with_neighbour();
    let own = a.known.get(&name("a")).expect("it knows itself").records[&NODE_SLOT].version;
    hear(&mut a, [record("a", 1, 5, NODE_SLOT, 9, lists(&[]))]);
    let told = told(&a.poll(START + Duration::from_secs(1)));
    let [(links, record)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&links[..], record.incarnation, record.version), (&[LINK][..], life(10), own));
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
fn what_a_node_lists_counts_in_any_order_however_often_and_at_a_cost_of_one_at_least() {
    let mut a = with_neighbour();
    let link = |node: &str, incarnation, cost| LinkState { node: name(node), incarnation: life(incarnation), cost };
    let lists = |links: &[LinkState]| Content::Node(NodeState { links: links.to_vec(), ..NodeState::default() });
    let distances = |a: &mut Topology| {
        a.poll(START);
        [20, 30, 40].map(|incarnation| a.distance(life(incarnation)))
    };
    hear(
        &mut a,
        [
            record(
                "b",
                1,
                20,
                NODE_SLOT,
                2,
                lists(&[link("d", 40, 0), link("c", 30, 9), link("a", 10, 5), link("a", 10, 1), link("a", 10, 3)]),
            ),
            record("c", 1, 30, NODE_SLOT, 1, lists(&[link("b", 20, 4)])),
            record("d", 1, 40, NODE_SLOT, 1, lists(&[link("b", 20, 0)])),
        ],
    );
    assert_eq!(distances(&mut a), [Some(1), Some(10), Some(2)]);
    hear(&mut a, [record("c", 1, 30, NODE_SLOT, 2, lists(&[link("b", 20, u32::MAX)]))]);
    assert_eq!(distances(&mut a), [Some(1), Some(1 + COST_MAX), Some(2)]);
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
fn of_links_to_several_lives_of_a_neighbour_that_to_its_present_one_is_taken() {
    let mut a = with_neighbour();
    a.link_up(LinkId(8), name("b"), life(21), 1).expect("taken");
    a.poll(START);
    assert_eq!(a.next_hop(life(20)), Some(LINK));
    hear(&mut a, [record("b", 2, 21, NODE_SLOT, 1, lists(&[("a", 10)]))]);
    a.poll(START);
    assert_eq!((a.next_hop(life(20)), a.next_hop(life(21))), (None, Some(LinkId(8))));
}

#[test]
fn what_a_link_costs_is_brought_into_the_limits() {
    for (cost, brought) in [(0, 1), (u32::MAX, COST_MAX)] {
        let mut a = topology("a", 10);
        a.link_up(LINK, name("b"), life(20), cost).expect("taken");
        a.poll(START);
        let state = a.known.get(&name("a")).and_then(|own| own.state()).expect("it says what it is");
        assert_eq!(state.links[0].cost, brought);
    }
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
    // Of paths that cost the same, a packet may take the one with more links.
    net.start("x");
    net.connect("x", "n31", [2, 2]);
    net.run(Duration::from_secs(1));
    let reaches =
        |net: &mut Net| net.host("n00").mirror.nodes.get(&name("x")).is_some_and(|(_, status, _)| status.reachable);
    assert!(reaches(&mut net));
    net.start("y");
    net.connect("y", "n31", [1, 1]);
    net.connect("y", "x", [1, 1]);
    net.run(Duration::from_secs(1));
    assert!(!reaches(&mut net));
    let views = net.host("n00").topology.nodes();
    assert!(views.iter().all(|view| view.by.is_none() != view.status.reachable || view.node == name("n00")));
}

#[test]
fn a_node_waits_longer_each_time_before_it_speaks_of_itself_until_it_was_quiet_for_a_while() {
    let mut a = topology("a", 10);
    join(&mut a, LINK, "b", 20);
    let (mut said, mut settled) = (Vec::new(), false);
    let mut speaks = |a: &mut Topology, ms: u64, goes_on: bool| {
        let speaks = !told(&a.poll(Duration::from_millis(ms))).is_empty();
        if speaks && goes_on {
            settled = !settled;
            a.set_settled(settled);
        }
        speaks
    };
    for ms in 0..1600 {
        if speaks(&mut a, ms, ms < 1500) {
            said.push(ms);
        }
    }
    assert_eq!(said, [0, 10, 30, 70, 150, 310, 630, 950, 1270, 1590]);
    a.set_leaving();
    assert!(speaks(&mut a, 2589, false), "whatever it waits for");
    a.link_up(LinkId(8), name("c"), life(30), 1).expect("taken");
    assert!(speaks(&mut a, 3589, true), "it was quiet for a second");
    assert!(!speaks(&mut a, 3598, true));
    assert!(speaks(&mut a, 3599, true));
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
