//! Whatever a neighbour says: it reads back as it was written, and nothing of it does harm.

use std::time::Duration;

use bytes::Bytes;
use edri_events::NAME_BYTES_MAX;
use edri_protocol::limits::NESTING_MAX;
use proptest::collection::{btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::super::{
    Content, GroupState, LinkId, LinkState, Message, NodeState, NodeSummary, Options, Output, Record, Refusal,
    Topology, WITHDRAWN_SLOT, Window, Withdrawn,
};
use super::{group, life, name};
use crate::limits::{
    GROUPS_MAX, LINKS_MAX, MESSAGE_RECORDS_MAX, NODES_MAX, RECORD_BYTES_MAX, SELECTIONS_MAX, STAMP_MAX,
};

fn node() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d"])
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![0..5_u64, Just(STAMP_MAX - 1), Just(STAMP_MAX)]
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..6_u32, Just(WITHDRAWN_SLOT - 1), Just(WITHDRAWN_SLOT)]
}

fn content() -> impl Strategy<Value = (u32, Content)> {
    let link = (node(), 1..4_u64, any::<u32>()).prop_map(|(node, incarnation, cost)| LinkState {
        node: name(node),
        incarnation: life(incarnation),
        cost,
    });
    let state = (vec(link, 0..6), any::<(bool, bool, bool, u32)>()).prop_map(
        |(links, (switch, settled, leaving, protocol))| NodeState { links, switch, settled, leaving, protocol },
    );
    let wants =
        (0..3_u32, any::<(bool, bool, u32, u64)>(), of(".*")).prop_map(|(n, (shared, answers, events, bytes), key)| {
            let mut wants = GroupState { shared, answers, window: Window { events, bytes }, ..group(&format!("g{n}")) };
            wants.selections[0].key = key;
            wants
        });
    let withdrawn = (number(), btree_set(number(), 0..4)).prop_map(|(below, except)| Withdrawn { below, except });
    prop_oneof![
        4 => state.prop_map(|state| (0, Content::Node(state))),
        3 => (1..6_u32, wants).prop_map(|(slot, wants)| (slot, Content::Group(wants.into()))),
        1 => (1..6_u32).prop_map(|slot| (slot, Content::Gone)),
        1 => withdrawn.prop_map(|withdrawn| (WITHDRAWN_SLOT, Content::Withdrawn(withdrawn))),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (node(), count(), 1..4_u64, count(), content()).prop_map(|(node, epoch, incarnation, version, (slot, content))| {
        Record { node: name(node), epoch, incarnation: life(incarnation), slot, version, content }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let entry = (node(), 1..4_u64, [count(), count(), count()], any::<u64>()).prop_map(
        |(node, incarnation, [epoch, state, groups], digest)| NodeSummary {
            node: name(node),
            incarnation: life(incarnation),
            epoch,
            state,
            groups,
            digest,
        },
    );
    prop_oneof![
        6 => vec(record(), 0..6).prop_map(|records| Message::Records(records.iter().map(Record::encode).collect())),
        1 => vec(vec(any::<u8>(), 0..20), 1..3)
            .prop_map(|records| Message::Records(records.into_iter().map(Bytes::from).collect())),
        1 => any::<u64>().prop_map(Message::Digest),
        1 => vec(entry, 0..6).prop_map(Message::Summary),
        1 => Just(Message::Synced),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back(record in record(), message in message()) {
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn whatever_bytes_come_nothing_panics(
        record in record(),
        message in message(),
        bytes in vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        for mut valid in [record.encode().to_vec(), message.encode().to_vec(), bytes] {
            if !valid.is_empty() {
                let at = at.index(valid.len());
                valid[at] = with;
            }
            drop((Record::decode(&valid), Message::decode(&valid)));
        }
    }

    #[test]
    fn whatever_a_neighbour_says_a_node_goes_on(said in vec((1..3_u32, message(), 0..3000_u64), 1..40)) {
        let mut topology = Topology::new(name("a"), life(2), Options::default());
        let mut now = Duration::from_secs(1);
        for (link, peer) in [(1, "b"), (2, "c")] {
            topology.link_up(LinkId(link), name(peer), life(1), 1).expect("taken");
        }
        topology.set_group(1, group("mine")).expect("taken");
        for (link, message, pause) in said {
            topology.receive(LinkId(link), message);
            now += Duration::from_millis(pause);
            let outputs = topology.poll(now);
            prop_assert!(outputs.len() < 100);
            for output in &outputs {
                if let Output::Send { message, .. } = output {
                    prop_assert_eq!(&Message::decode(&message.encode()).expect("others can read it"), message);
                }
            }
            let again: Vec<Output> = topology.poll(now);
            prop_assert_eq!(again, vec![], "there is no more to say to nothing");
        }
        let own = topology.known.get(&name("a")).expect("it knows itself");
        prop_assert_eq!(own.incarnation, life(2));
        prop_assert_eq!(own.group(1).map(|wants| wants.name.as_str()), Some("mine"));
    }
}

#[test]
fn what_breaks_a_limit_or_contradicts_itself_is_no_record() {
    let good = Record {
        node: name("a"),
        epoch: 1,
        incarnation: life(1),
        slot: 0,
        version: 1,
        content: Content::Node(NodeState::default()),
    };
    assert!(Record::decode(&good.encode()).is_ok());
    let link = LinkState { node: name("b"), incarnation: life(1), cost: 1 };
    let links = |count| Content::Node(NodeState { links: vec![link.clone(); count], ..NodeState::default() });
    assert!(Record::decode(&Record { content: links(LINKS_MAX), ..good.clone() }.encode()).is_ok());
    let bad = [
        Record { content: links(LINKS_MAX + 1), ..good.clone() },
        Record { slot: 1, ..good.clone() },
        Record { content: Content::Gone, ..good.clone() },
        Record { content: Content::Gone, slot: WITHDRAWN_SLOT, ..good.clone() },
        Record { content: Content::Group(group(&"x".repeat(300)).into()), slot: 1, ..good.clone() },
        Record { content: Content::Group(group("g").into()), ..good.clone() },
        Record { content: Content::Group(group("g").into()), slot: WITHDRAWN_SLOT, ..good.clone() },
        Record { content: Content::Withdrawn(Withdrawn::default()), slot: 1, ..good.clone() },
        Record { epoch: STAMP_MAX + 1, ..good.clone() },
        Record { version: STAMP_MAX + 1, ..good.clone() },
    ];
    for record in bad {
        assert!(Record::decode(&record.encode()).is_err(), "{record:?}");
    }
    let most = Record { epoch: STAMP_MAX, version: STAMP_MAX, ..good.clone() };
    assert_eq!(Record::decode(&most.encode()), Ok(most));
    let longest = Content::Group(group(&"x".repeat(NAME_BYTES_MAX)).into());
    assert!(Record::decode(&Record { content: longest, slot: 1, ..good.clone() }.encode()).is_ok());

    let of_bytes = |count: usize| {
        let mut wants = group("g");
        wants.selections[0].key = Some("x".repeat(count));
        Record { content: Content::Group(wants.into()), slot: 1, ..good.clone() }.encode()
    };
    let head = of_bytes(100_000).len() - 100_000;
    assert!(Record::decode(&of_bytes(RECORD_BYTES_MAX - head)).is_ok());
    assert_eq!(Record::decode(&of_bytes(RECORD_BYTES_MAX - head + 1)), Err(Refusal::RecordBytes));

    let gone = Record { content: Content::Gone, slot: 1, ..good.clone() }.encode();
    let content = gone.len() - b"\xa4gone".len();
    let saying = |what: &[u8]| Record::decode(&[&gone[..content], what].concat()).map(|record| record.content);
    assert_eq!(saying(b"\xa4gone"), Ok(Content::Gone));
    assert_eq!(saying(b"\xa5later"), Ok(Content::Unknown));
    assert_eq!(saying(b"\x82\xa5later\x01\xa4more\x01"), Err(Refusal::Malformed));
    // As deep as a frame.
    let deep = |depth: usize| saying(&[&b"\x81\xa5later"[..], &b"\x91".repeat(depth), &b"\x01"[..]].concat());
    assert_eq!(deep(NESTING_MAX - 2), Ok(Content::Unknown));
    assert_eq!(deep(NESTING_MAX - 1), Err(Refusal::Malformed));

    for two in [&b"\x82\xa6digest\x01\xa5later\x01"[..], b"\x82\xa5later\x01\xa6digest\x01"] {
        assert_eq!(Message::decode(two), Err(Refusal::Malformed));
    }
}

#[test]
fn no_list_is_longer_than_its_limit() {
    let reads = |slot, content| {
        let record = Record { node: name("a"), epoch: 1, incarnation: life(1), slot, version: 1, content };
        Record::decode(&record.encode()).is_ok()
    };
    let of_selections = |count| {
        let selection = group("g").selections.remove(0);
        reads(1, Content::Group(GroupState { selections: vec![selection; count], ..group("g") }.into()))
    };
    let withdrawn = |count| {
        let except = (1..=count as u32).collect();
        reads(WITHDRAWN_SLOT, Content::Withdrawn(Withdrawn { below: WITHDRAWN_SLOT, except }))
    };
    let records = |count| Message::decode(&Message::Records(vec![Bytes::new(); count]).encode()).is_ok();
    let entry = NodeSummary { node: name("a"), incarnation: life(1), epoch: 1, state: 1, groups: 1, digest: 1 };
    let summary = |count| Message::decode(&Message::Summary(vec![entry.clone(); count]).encode()).is_ok();
    assert_eq!([SELECTIONS_MAX, SELECTIONS_MAX + 1].map(of_selections), [true, false]);
    assert_eq!([GROUPS_MAX, GROUPS_MAX + 1].map(withdrawn), [true, false]);
    assert_eq!([MESSAGE_RECORDS_MAX, MESSAGE_RECORDS_MAX + 1].map(records), [true, false]);
    assert_eq!([NODES_MAX, NODES_MAX + 1].map(summary), [true, false]);
}

#[test]
fn a_message_of_a_later_version_is_skipped() {
    for bytes in [&b"\xa5later"[..], b"\x81\xa5later\x93\x01\x02\x03"] {
        assert_eq!(Message::decode(bytes), Ok(Message::Unknown));
    }
}
