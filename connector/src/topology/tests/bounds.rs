//! Of what there may be at most.

use std::time::Duration;

use bytes::Bytes;

use super::super::known::{Known, Taken};
use super::super::{Content, LinkId, Message, NODE_SLOT, Options, Output, Refusal, Topology};
use super::{
    LINK, START, group, hear, life, lists, name, of_group, others, pass, record, told, topology, with_neighbour,
};
use crate::limits::{
    GONE_KEPT, GROUPS_MAX, LINKS_MAX, MESSAGE_BYTES, MESSAGE_RECORDS_MAX, NODE_BYTES_MAX, NODE_RECORDS_MAX, NODES_MAX,
    OWN_BYTES_MAX, RECORD_BYTES_MAX, TOPOLOGY_BYTES_MAX,
};

#[test]
fn nodes_beyond_the_limit_are_refused_until_there_is_room() {
    let mut a = with_neighbour();
    let nodes = |from: usize, to| (from..to).map(|n| record(&format!("n{n}"), 1, 1, NODE_SLOT, 1, lists(&[])));
    hear(&mut a, nodes(2, NODES_MAX + 3));
    let refused = others(a.poll(START));
    assert_eq!(refused, [Output::Refused { link: LINK, why: Refusal::Nodes, count: 3 }]);
    assert_eq!(a.refused(), 3);

    // Whoever differs for that reason is asked more and more rarely.
    let mut asked = Vec::new();
    for second in 0..360 {
        // All nodes but the neighbour would be forgotten meanwhile, and there would be room.
        a.options.expiry = Duration::from_secs(1000);
        let same = a.digest();
        // Where they agree for once, it is as at the beginning.
        if second == 300 {
            hear(&mut a, nodes(NODES_MAX, NODES_MAX + 3));
        }
        a.receive(LINK, Message::Digest(if second == 300 { same } else { 1 }));
        let outputs = a.poll(START + Duration::from_secs(second));
        let asks = |output: &Output| matches!(output, Output::Send { message: Message::Summary(_), .. });
        if outputs.iter().any(asks) {
            asked.push(second);
            hear(&mut a, nodes(NODES_MAX, NODES_MAX + 3));
        }
    }
    assert_eq!(asked, [4, 13, 30, 63, 128, 193, 258, 301, 306, 315, 332]);

    a.options = Options::default();
    let later = START + Duration::from_secs(400);
    a.poll(later);
    hear(&mut a, nodes(NODES_MAX, NODES_MAX + 3));
    assert_eq!(others(a.poll(later)), []);
    assert!(a.known.get(&name(&format!("n{}", NODES_MAX + 2))).is_some());
}

#[test]
fn links_groups_and_bytes_beyond_the_limits_are_refused() {
    let mut a = topology("a", 10);
    for link in 0..LINKS_MAX as u32 {
        a.link_up(LinkId(link), name("b"), life(u64::from(link) + 1), 1).expect("taken");
    }
    assert_eq!(a.link_up(LinkId(u32::MAX), name("b"), life(1), 1), Err(Refusal::Links));
    a.receive(LinkId(1), Message::Summary(Vec::new()));
    let said = a.poll(START);
    assert!(matches!(&told(&said)[0].1.content, Content::Node(state) if state.links.len() == LINKS_MAX));

    let mut a = topology("a", 10);
    let mut large = group("g");
    large.selections[0].key = Some("x".repeat(RECORD_BYTES_MAX));
    assert_eq!(a.set_group(1, large.clone()), Err(Refusal::RecordBytes));
    large.selections[0].key = Some("x".repeat(RECORD_BYTES_MAX - 1000));
    for number in 1..=8 {
        a.set_group(number, large.clone()).expect("taken");
    }
    assert_eq!(a.set_group(9, large.clone()), Err(Refusal::NodeBytes));
    large.shared = true;
    a.set_group(8, large.clone()).expect("in place of another");
    let own = |a: &Topology| a.known.get(&name("a")).expect("it knows itself").bytes;
    for number in 1..=8 {
        let mut less = large.clone();
        less.selections[0].key = Some("x".repeat(RECORD_BYTES_MAX / 8 * 7));
        a.set_group(number, less).expect("in place of another");
    }
    let before = own(&a);
    large.selections[0].key = Some("x".repeat(100_000));
    a.set_group(9, large.clone()).expect("there is room");
    let head = own(&a) - before - 100_000;
    large.selections[0].key = Some("x".repeat(OWN_BYTES_MAX - before - head + 1));
    assert_eq!(a.set_group(9, large.clone()), Err(Refusal::NodeBytes));
    large.selections[0].key.as_mut().expect("it has one").pop();
    a.set_group(9, large.clone()).expect("just so many");
    assert_eq!(own(&a), OWN_BYTES_MAX);
    large.selections[0].key = Some("x".repeat(RECORD_BYTES_MAX - 1000));

    let mut a = with_neighbour();
    hear(&mut a, (1..=20).map(|number| record("b", 1, 20, number, 2, Content::Group(large.clone().into()))));
    assert!(others(a.poll(START)).contains(&Output::Refused { link: LINK, why: Refusal::NodeBytes, count: 4 }));
    // It is not stuck: the neighbour may say less.
    hear(
        &mut a,
        [1, 20].map(|number| record("b", 1, 20, number, 3, if number == 1 { Content::Gone } else { of_group("g") })),
    );
    assert!(!others(a.poll(START)).iter().any(|output| matches!(output, Output::Refused { .. })));
}

#[test]
fn a_node_has_as_many_groups_as_the_limit_says_and_others_take_them() {
    let mut a = topology("a", 10);
    for number in 1..=GROUPS_MAX as u32 {
        a.set_group(number, group("g")).expect("taken");
    }
    assert_eq!(a.set_group(GROUPS_MAX as u32 + 1, group("g")), Err(Refusal::Groups));
    a.set_group(1, group("h")).expect("one of them may want something else");
    a.withdraw_group(2);
    a.set_group(GROUPS_MAX as u32 + 1, group("g")).expect("there is room again");
    let mut b = topology("b", 20);
    a.link_up(LinkId(1), name("b"), life(20), 1).expect("taken");
    b.link_up(LinkId(1), name("a"), life(10), 1).expect("taken");
    let wires = [[(0, LinkId(1)), (1, LinkId(1))]];
    let outputs = pass(&mut [&mut a, &mut b], &wires, START);
    let groups = outputs.iter().filter(|(_, output)| matches!(output, Output::GroupChanged { .. })).count();
    assert_eq!(groups, GROUPS_MAX);
    for number in 1..=GROUPS_MAX as u32 + 1 {
        a.withdraw_group(number);
    }
    let outputs = pass(&mut [&mut a, &mut b], &wires, START + Duration::from_secs(1));
    assert!(outputs.iter().all(|(_, output)| matches!(output, Output::GroupChanged { state: None, .. })));
    assert_eq!(outputs.len(), GROUPS_MAX);
    assert!(b.known.get(&name("a")).expect("known").records.len() <= GONE_KEPT + 2);
}

#[test]
fn many_records_are_told_in_several_messages() {
    let mut a = topology("a", 10);
    let mut large = group("g");
    large.selections[0].key = Some("x".repeat(100_000));
    for number in 1..=5000 {
        let wants = if number % 500 == 0 { large.clone() } else { group("g") };
        a.set_group(number, wants).expect("taken");
    }
    a.link_up(LINK, name("b"), life(20), 1).expect("taken");
    a.poll(START);
    a.receive(LINK, Message::Summary(Vec::new()));
    let outputs = a.poll(START);
    let (mut records, mut messages) = (0, 0);
    for output in &outputs {
        if let Output::Send { message: Message::Records(batch), .. } = output {
            messages += 1;
            records += batch.len();
            assert!(batch.len() <= MESSAGE_RECORDS_MAX);
            assert!(batch.iter().map(Bytes::len).sum::<usize>() <= MESSAGE_BYTES);
        }
    }
    assert_eq!(records, 5001);
    assert!(messages <= 12, "{messages}");
    let synced = Output::Send { links: vec![LINK], message: Message::Synced };
    assert_eq!(outputs.last(), Some(&synced));
}

#[test]
fn what_comes_by_a_link_that_is_down_is_nobody_s() {
    let mut a = with_neighbour();
    a.link_down(LINK);
    a.poll(START);
    hear(&mut a, [record("b", 1, 20, 1, 9, of_group("g"))]);
    a.receive(LINK, Message::Synced);
    a.receive(LINK, Message::Digest(0));
    assert_eq!(a.poll(START), []);
}

/// Keeps a record of so many bytes, or says why not.
fn keep(known: &mut Known, node: &str, life: (u64, u64), slot: u32, version: u64, bytes: usize) -> Option<Refusal> {
    let record = record(node, life.0, life.1, slot, version, Content::Unknown);
    match known.take(record, Bytes::from_static(&[0; RECORD_BYTES_MAX]).slice(..bytes)) {
        Taken::Kept(_) => None,
        Taken::Refused(why) => Some(why),
        Taken::Had | Taken::OlderLife => panic!("it is news"),
    }
}

#[test]
fn what_a_node_may_say_is_bounded_and_what_takes_the_place_of_another_needs_no_more_room() {
    const EACH: usize = RECORD_BYTES_MAX;
    let mut known = Known::default();
    let each = (NODE_BYTES_MAX / EACH) as u32;
    for slot in 1..=each {
        assert_eq!(keep(&mut known, "n0", (1, 1), slot, 1, EACH), None);
    }
    assert_eq!(keep(&mut known, "n0", (1, 1), each + 1, 1, 1), Some(Refusal::NodeBytes), "one byte more");
    assert_eq!(keep(&mut known, "n0", (1, 1), 1, 2, EACH), None, "in place of another");
    assert_eq!(keep(&mut known, "n0", (2, 2), each + 1, 1, EACH), None, "a life has room of its own");
    for slot in 1..each {
        assert_eq!(keep(&mut known, "n0", (2, 2), slot, 1, EACH), None);
    }
    for node in 1..TOPOLOGY_BYTES_MAX / NODE_BYTES_MAX {
        for slot in 1..=each {
            assert_eq!(keep(&mut known, &format!("n{node}"), (1, 1), slot, 1, EACH), None);
        }
    }
    assert_eq!(known.bytes(), TOPOLOGY_BYTES_MAX);
    assert_eq!(keep(&mut known, "more", (1, 1), 1, 1, 1), Some(Refusal::TopologyBytes), "one byte more");
    assert_eq!(keep(&mut known, "n1", (1, 1), 1, 2, EACH), None, "in place of another");
    assert_eq!(keep(&mut known, "n1", (2, 2), 1, 1, EACH), None, "in place of a whole life");
    assert_eq!(known.bytes(), TOPOLOGY_BYTES_MAX - NODE_BYTES_MAX + EACH);
    let counted: usize = known.iter().map(|(_, node)| node.bytes).sum();
    assert_eq!(known.bytes(), counted);

    let mut known = Known::default();
    for slot in 0..NODE_RECORDS_MAX as u32 {
        assert_eq!(keep(&mut known, "n", (1, 1), slot, 1, 1), None);
    }
    let next = NODE_RECORDS_MAX as u32;
    assert_eq!(keep(&mut known, "n", (1, 1), next, 1, 1), Some(Refusal::Groups));
    assert_eq!(keep(&mut known, "n", (1, 1), 1, 2, 1), None, "in place of another");
    assert_eq!(keep(&mut known, "n", (2, 2), 1, 1, 1), None, "in place of a whole life");
}

#[test]
fn of_too_many_records_the_same_are_kept_whatever_came_first() {
    let count = NODE_RECORDS_MAX as u32 + 50;
    let forwards: Vec<u32> = (0..count).chain([u32::MAX]).collect();
    let backwards: Vec<u32> = forwards.iter().rev().copied().collect();
    let [one, other] = [forwards, backwards].map(|slots| {
        let mut known = Known::default();
        let refused = slots.iter().filter(|slot| keep(&mut known, "n", (1, 1), **slot, 1, 1).is_some()).count();
        let node = known.get(&name("n")).expect("known");
        assert_eq!(
            (node.records.len(), node.bytes, known.bytes()),
            (NODE_RECORDS_MAX, NODE_RECORDS_MAX, NODE_RECORDS_MAX)
        );
        assert!(node.records.contains_key(&u32::MAX) && !node.records.contains_key(&(count - 1)));
        (node.digest(), refused)
    });
    assert_eq!(one.0, other.0);
    assert_eq!((one.1, other.1), (50, 0), "those of the lowest numbers take the place of others");
}

#[test]
fn a_message_is_as_full_as_it_may_be_and_a_longer_record_has_one_of_its_own() {
    let messages = |lengths: &[usize]| {
        let records = lengths.iter().map(|length| Bytes::from(vec![0; *length]));
        let counted = Message::of(records).into_iter().map(|message| match message {
            Message::Records(records) => records.len(),
            message => panic!("{message:?}"),
        });
        counted.collect::<Vec<_>>()
    };
    assert_eq!(messages(&[MESSAGE_BYTES / 2; 4]), [2, 2]);
    assert_eq!(messages(&[MESSAGE_BYTES / 2, MESSAGE_BYTES / 2 + 1]), [1, 1]);
    assert_eq!(messages(&[MESSAGE_BYTES + 1, 1]), [1, 1]);
    assert_eq!(messages(&[1; MESSAGE_RECORDS_MAX + 1]), [MESSAGE_RECORDS_MAX, 1]);
}
