//! What holds for every packet, for every body of one, and for any bytes.

use std::convert::Infallible;

use bytes::Bytes;
use edri_events::{Encoding, EventId, Incarnation};
use edri_protocol::items::{EventHead, Item, Reader, Writer};
use edri_protocol::limits;
use edri_protocol::packet::{Destination, GroupCredit, Header, Lane, LaneAck, Packet, PacketError, Signal, SignalKind};
use proptest::collection::vec;
use proptest::prelude::*;

use self::allocator::allocated;
use self::damage::damage;
use self::fuzz_packet::fuzz_packet;
use self::packet::{PacketForm, body_of, item, items_of, packet};

mod allocator;
mod damage;
mod fuzz_packet;
mod packet;

/// What reading a packet allocates for each of its bytes: an empty lane of an ack has three.
const MULTIPLE: usize = 16;
/// What reading a body allocates beside that: the names of a fault's wait, the headers of one event.
const CONSTANT: usize = 1 << 19;

#[track_caller]
fn reads_within_bounds(bytes: &[u8]) {
    let whole = Bytes::copy_from_slice(bytes);
    let (_, packet) = allocated(|| Packet::decode(whole.clone()));
    assert!(packet.peak <= 64 + MULTIPLE * bytes.len(), "{packet:?} of {} bytes", bytes.len());
    let (_, body) = allocated(|| Reader::new(&whole).map(drop).count());
    assert!(body.peak <= CONSTANT + MULTIPLE * bytes.len(), "{body:?} of {} bytes", bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_packet_reads_back_as_it_was(packet in packet()) {
        let bytes = Bytes::from(packet.encode());
        prop_assert_eq!(PacketForm::of(Packet::decode(bytes.clone()).expect("a packet")), packet);
        fuzz_packet(&bytes);
    }

    #[test]
    fn a_body_reads_back_as_it_was(items in vec(item(), 0..40)) {
        let body = body_of(&items);
        prop_assert_eq!(items_of(&body), items);
        fuzz_packet(&body);
    }

    #[test]
    fn damaged_packets_do_no_harm(packet in packet(), damages in vec(damage(), 1..4)) {
        let mut bytes = packet.encode();
        for damage in damages {
            damage.strike(&mut bytes);
        }
        reads_within_bounds(&bytes);
        fuzz_packet(&bytes);
    }

    #[test]
    fn damaged_bodies_do_no_harm(items in vec(item(), 1..12), damages in vec(damage(), 1..4)) {
        let mut bytes = body_of(&items).to_vec();
        for damage in damages {
            damage.strike(&mut bytes);
        }
        reads_within_bounds(&bytes);
        fuzz_packet(&bytes);
    }

    #[test]
    fn any_bytes_do_no_harm(mut bytes in vec(any::<u8>(), 0..300), begins in 0_u8..14) {
        bytes.insert(0, begins);
        reads_within_bounds(&bytes);
        fuzz_packet(&bytes);
    }
}

fn life() -> Incarnation {
    Incarnation::from_number(u64::MAX).expect("not zero")
}

fn data(destinations: Vec<Destination>) -> Bytes {
    let origin = life();
    let header = Header { origin, lane: Lane::Normal, hops: 1, age_ms: 0, redelivered: false, destinations };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes.into()
}

fn destination(groups: usize) -> Destination {
    Destination { node: life(), session: 1, sequence: u64::MAX, base: 0, groups: vec![u32::MAX; groups] }
}

fn ack(lanes: Vec<LaneAck>, credits: usize) -> Bytes {
    let credits = vec![GroupCredit { group: 1, events: 2, bytes: 3 }; credits];
    let kind = SignalKind::Ack { session: 1, lanes, credits };
    let mut bytes = Vec::new();
    Signal { origin: life(), to: life(), hops: 1, kind }.encode(&mut bytes);
    bytes.into()
}

fn lane(held: usize) -> LaneAck {
    let held = (0..held as u64).map(|at| (at * 2 + 1, at * 2 + 2)).collect();
    LaneAck { lane: Lane::High, next: 0, held }
}

/// `bytes` with the count at `at`, a single byte, replaced by `count`, and `more` bytes behind all.
fn counting(bytes: &[u8], at: usize, count: usize, more: usize) -> Bytes {
    let mut number = Vec::new();
    let mut left = count;
    while left >= 0x80 {
        number.push(left as u8 | 0x80);
        left >>= 7;
    }
    number.push(left as u8);
    [&bytes[..at], &number, &bytes[at + 1..], &vec![0; more]].concat().into()
}

#[test]
fn a_packet_holds_as_much_as_the_limits_say_and_no_more() {
    for bytes in [
        data(vec![destination(0); limits::DESTINATIONS_MAX]),
        data(vec![destination(limits::DESTINATIONS_GROUPS_MAX - 1), destination(1)]),
        ack(vec![lane(limits::ACK_HELD_MAX); limits::ACK_LANES_MAX], limits::ACK_CREDITS_MAX),
    ] {
        assert!(Packet::decode(bytes.clone()).is_ok());
        reads_within_bounds(&bytes);
    }

    const ENOUGH: usize = 1 << 20;
    let too_many = |bytes: Bytes, what, max| {
        reads_within_bounds(&bytes);
        assert_eq!(Packet::decode(bytes), Err(PacketError::TooMany { what, max }));
    };
    // Where the counts are: behind kind, flags, hops, origin, lane and age; behind node, session, sequence and base;
    // behind kind, hops, origin, to and session; behind lane and next.
    let (destinations, groups, lanes, held) = (3 + 8 + 1 + 1, 8 + 1 + 10 + 10, 2 + 8 + 8 + 1, 2);
    let bytes = data(vec![destination(0)]);
    let max = limits::DESTINATIONS_MAX;
    too_many(counting(&bytes, destinations, max + 1, ENOUGH), "destinations", max);
    let max = limits::DESTINATIONS_GROUPS_MAX;
    too_many(counting(&bytes, destinations + 1 + groups, max + 1, ENOUGH), "groups", max);
    let bytes = data(vec![destination(1), destination(0)]);
    too_many(counting(&bytes, destinations + 1 + groups + 1 + 5 + groups, max, ENOUGH), "groups", max);
    let bytes = ack(vec![lane(0)], 0);
    too_many(counting(&bytes, lanes, limits::ACK_LANES_MAX + 1, ENOUGH), "lanes", limits::ACK_LANES_MAX);
    too_many(counting(&bytes, lanes + 1 + held, limits::ACK_HELD_MAX + 1, ENOUGH), "held ranges", limits::ACK_HELD_MAX);
    too_many(
        counting(&bytes, lanes + 1 + held + 1, limits::ACK_CREDITS_MAX + 1, ENOUGH),
        "credits",
        limits::ACK_CREDITS_MAX,
    );
}

#[test]
fn a_packet_that_is_too_long_is_refused() {
    let header = data(vec![destination(1)]);
    let long = |bytes| Packet::decode([&header[..], &vec![0; bytes - header.len()]].concat().into());
    let max = limits::PACKET_BYTES_MAX;
    assert!(long(max).is_ok());
    assert_eq!(long(max + 1), Err(PacketError::TooLong { bytes: max + 1, max }));
}

#[test]
fn a_count_that_is_not_there_allocates_nothing() {
    let (header, signal) = (data(vec![destination(0)]), ack(Vec::new(), 0));
    // All of a packet but its last count, which is as great as it may be.
    for (before, count) in [
        (&header[..13], limits::DESTINATIONS_MAX),
        (&header[..header.len() - 1], limits::DESTINATIONS_GROUPS_MAX),
        (&signal[..signal.len() - 2], limits::ACK_LANES_MAX),
        (&signal[..signal.len() - 1], limits::ACK_CREDITS_MAX),
    ] {
        let bytes = counting(&[before, &[0]].concat(), before.len(), count, 2);
        let (read, allocated) = allocated(|| Packet::decode(bytes));
        assert_eq!(read, Err(PacketError::Malformed("it ends early")));
        assert!(allocated.peak < 256, "{allocated:?} for {count}");
    }
}

#[test]
fn a_length_that_is_not_there_allocates_nothing() {
    let text = |length: &[u8]| [&[1][..], &[0; 4], &[0, 0], length, b"a"].concat();
    for length in [&[0x80, 0x80, 0x40][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]] {
        for body in [
            text(length),
            [&[9][..], length, b"\x81"].concat(),
            [&[200][..], length].concat(),
            [&[6][..], &[0xff; 4], b"payload"].concat(),
            [&[6, 0, 0xff, 0xff, 0xff][..], b"payload"].concat(),
        ] {
            let (read, allocated) = allocated(|| Reader::new(&body).next().map(|item| item.map(drop)));
            assert!(matches!(read, Some(Err(_))), "{read:?} {body:?}");
            assert!(allocated.peak < 256, "{allocated:?} {body:?}");
        }
    }
}

#[test]
fn events_are_written_and_read_without_an_allocation_each() {
    const EVENTS: usize = 1000;
    let mut writer = Writer::new();
    let head = |at| EventHead {
        manager: Some("sensors"),
        key: Some("north"),
        cause: EventId::from_parts(7, 1),
        timeout_ms: Some(1500),
        ..EventHead::new("quake.recorded", EventId::from_parts(7, at).expect("not zero"), Encoding::MessagePack)
    };
    let mut fill = || {
        for at in 0..EVENTS as u64 {
            let put = |out: &mut Vec<u8>| {
                out.extend_from_slice(&[7; 64]);
                Ok::<_, Infallible>(())
            };
            writer.event(&head(at), put).expect("it fits");
        }
        writer.take()
    };
    let (body, written) = allocated(&mut fill);
    // The body grows, the tables of texts and processes get their first entries.
    assert!(written.count < 32, "{written:?}");
    let (read, allocated) = allocated(|| Reader::new(&body).filter(|item| matches!(item, Ok(Item::Event(_)))).count());
    assert_eq!((read, allocated.count), (EVENTS, 3), "{allocated:?}");
}
