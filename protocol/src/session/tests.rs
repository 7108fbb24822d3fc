use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::packet::{Lane, LaneAck};

const LANES: [Lane; 3] = [Lane::High, Lane::Normal, Lane::Up(7)];

/// Random numbers that are the same for the same seed (SplitMix64, Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// What a network does to what is sent.
#[derive(Debug, Clone, Copy)]
struct Faults {
    loss: u64,
    repeat: u64,
    delay_ms: u64,
}

enum Message {
    Packet { lane: Lane, sequence: u64, base: u64, value: u64 },
    Ack(Vec<LaneAck>),
}

/// Sends `count` packets a lane through a network that is at fault for `faulty_ms`, cut in between, and well afterwards.
fn run(seed: u64, count: u64, faults: Faults, cuts: &[(u64, u64)]) -> Result<(), TestCaseError> {
    let mut dice = Dice(seed);
    let timing = Timing::default();
    let (mut outbound, mut inbound) = (Outbound::<u64>::new(timing), Inbound::<u64>::new(timing));
    let mut network: BTreeMap<(Duration, u64), Message> = BTreeMap::new();
    let mut serial = 0;
    let mut sent: BTreeMap<Lane, u64> = BTreeMap::new();
    let mut received: BTreeMap<Lane, Vec<u64>> = BTreeMap::new();
    let mut settled = Vec::new();
    let faulty_until = Duration::from_secs(20);
    let is_cut = |at: Duration| cuts.iter().any(|&(from, to)| (from..to).contains(&(at.as_millis() as u64)));
    let mut was_cut = false;
    let mut now = Duration::ZERO;
    while now < Duration::from_secs(60) {
        let cut = is_cut(now);
        if cut != was_cut {
            outbound.path(!cut);
            was_cut = cut;
        }
        let mut put = |message: Message, dice: &mut Dice| {
            let faulty = now < faulty_until;
            if cut || faulty && dice.chance(faults.loss) {
                return;
            }
            let delay = if faulty { 1 + dice.next() % (faults.delay_ms + 1) } else { 1 };
            serial += 1;
            network.insert((now + Duration::from_millis(delay), serial), message);
        };
        for lane in LANES {
            let number = sent.entry(lane).or_default();
            if *number < count && outbound.has_room(lane) && dice.chance(30) {
                let (sequence, base) = outbound.send(now, lane, 100, *number);
                prop_assert_eq!(sequence, *number);
                if !cut {
                    put(Message::Packet { lane, sequence, base, value: *number }, &mut dice);
                }
                if now < faulty_until && dice.chance(faults.repeat) {
                    put(Message::Packet { lane, sequence, base, value: *number }, &mut dice);
                }
                *number += 1;
            }
        }
        while let Some(again) = outbound.next_again(now) {
            let message =
                Message::Packet { lane: again.lane, sequence: again.sequence, base: again.base, value: *again.packet };
            prop_assert!(!cut, "nothing is sent without a path");
            put(message, &mut dice);
        }
        if inbound.deadline().is_some_and(|due| due <= now) {
            put(Message::Ack(inbound.acknowledge(now, false)), &mut dice);
        }
        outbound.tick(now);
        let due: Vec<_> = network.range(..=(now, u64::MAX)).map(|(key, _)| *key).collect();
        for key in due {
            match network.remove(&key) {
                Some(Message::Packet { lane, sequence, base, value }) => {
                    inbound.receive(now, lane, sequence, base, 100, value);
                    while let Some((lane, value)) = inbound.take() {
                        received.entry(lane).or_default().push(value);
                    }
                }
                Some(Message::Ack(acks)) => {
                    prop_assert!(outbound.acknowledged(now, &acks, &mut settled).is_ok());
                }
                None => unreachable!("looked at above"),
            }
        }
        if sent.values().all(|number| *number == count) && outbound.packets() == 0 {
            break;
        }
        now += Duration::from_millis(1);
    }
    for lane in LANES {
        let expected: Vec<_> = (0..count).collect();
        prop_assert_eq!(received.get(&lane), Some(&expected), "{:?} is received once and in order", lane);
        let of_lane: Vec<_> = settled.iter().filter(|(of, _)| *of == lane).map(|(_, value)| *value).collect();
        prop_assert_eq!(of_lane, expected, "{:?} is settled once and in order", lane);
    }
    prop_assert_eq!((outbound.packets(), outbound.bytes(), outbound.doubtful_for_test()), (0, 0, 0));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn everything_arrives_once_and_in_order_through_any_faults(
        seed: u64,
        loss in 0_u64..60,
        repeat in 0_u64..50,
        delay_ms in 0_u64..300,
        cuts in proptest::collection::vec((0_u64..15_000, 1_u64..3000), 0..4),
    ) {
        let cuts: Vec<_> = cuts.into_iter().map(|(from, length)| (from, from + length)).collect();
        run(seed, 150, Faults { loss, repeat, delay_ms }, &cuts)?;
    }

    /// Whatever a peer acknowledges, nothing panics, and what was settled is settled once.
    #[test]
    fn rubbish_in_an_acknowledgement_is_refused_or_harmless(
        acks in proptest::collection::vec(
            (0_u64..40, proptest::collection::vec((0_u64..60, 0_u64..60), 0..4)), 0..20),
    ) {
        let mut outbound = Outbound::new(Timing::default());
        for number in 0..20_u64 {
            outbound.send(Duration::ZERO, Lane::Normal, 10, number);
        }
        let mut seen = BTreeSet::new();
        for (next, held) in acks {
            let mut settled = Vec::new();
            let _ = outbound.acknowledged(Duration::from_secs(1), &[LaneAck { lane: Lane::Normal, next, held }], &mut settled);
            for (_, number) in settled {
                prop_assert!(seen.insert(number));
            }
            while outbound.next_again(Duration::from_secs(1)).is_some() {}
        }
        prop_assert_eq!(outbound.packets() + seen.len(), 20);
        prop_assert_eq!(outbound.bytes(), 10 * outbound.packets());
    }
}

#[test]
fn a_gap_is_filled_before_the_timer_runs_out() {
    let mut outbound = Outbound::new(Timing::default());
    let mut inbound = Inbound::new(Timing::default());
    let ms = Duration::from_millis;
    let mut settled = Vec::new();
    // A first round trip of 10 ms, so that the sender knows how long to be patient.
    let (sequence, base) = outbound.send(ms(0), Lane::Normal, 10, 0);
    inbound.receive(ms(5), Lane::Normal, sequence, base, 10, 0);
    outbound.acknowledged(ms(10), &inbound.acknowledge(ms(5), false), &mut settled).expect("known");
    let lost = outbound.send(ms(10), Lane::Normal, 10, 1).0;
    let (second, base) = outbound.send(ms(20), Lane::Normal, 10, 2);
    assert_eq!(inbound.receive(ms(25), Lane::Normal, second, base, 10, 2), Received::Held);
    assert_eq!(inbound.deadline(), Some(ms(25)), "a gap is told at once");
    outbound.acknowledged(ms(30), &inbound.acknowledge(ms(25), false), &mut settled).expect("known");
    let again = outbound.next_again(ms(30)).expect("the gap is sent again");
    assert_eq!((again.sequence, *again.packet), (lost, 1));
    assert!(outbound.next_again(ms(30)).is_none(), "and nothing else");
}

#[test]
fn a_lane_that_has_ended_does_not_begin_again_with_a_late_copy() {
    let mut inbound = Inbound::new(Timing::default());
    assert_eq!(inbound.receive(Duration::ZERO, Lane::Up(1), 0, 0, 10, "open"), Received::Ready);
    inbound.end_lane(Duration::ZERO, Lane::Up(1));
    inbound.acknowledge(Duration::from_secs(30), false);
    assert_eq!(inbound.receive(Duration::from_secs(30), Lane::Up(1), 0, 0, 10, "open"), Received::Duplicate);
}

#[test]
fn what_nobody_acknowledges_comes_back_with_whether_it_was_sent() {
    let mut outbound = Outbound::new(Timing::default());
    outbound.send(Duration::ZERO, Lane::Normal, 10, "sent");
    outbound.path(false);
    outbound.send(Duration::ZERO, Lane::Normal, 10, "kept");
    let rest: Vec<_> = outbound.into_unacknowledged().collect();
    assert_eq!(rest, [(Lane::Normal, "sent", true), (Lane::Normal, "kept", false)]);
}

/// What ended long ago is not opened again by a sender that was out of reach meanwhile and has not heard that it arrived.
#[test]
fn a_lane_that_has_ended_is_remembered_until_its_sender_was_in_reach_for_a_while() {
    let mut inbound = Inbound::new(Timing::default());
    let at = Duration::from_secs;
    inbound.receive(at(0), Lane::Up(1), 0, 0, 10, "open");
    inbound.end_lane(at(0), Lane::Up(1));
    inbound.resumed(at(100));
    inbound.acknowledge(at(100), true);
    assert_eq!(inbound.receive(at(101), Lane::Up(1), 0, 0, 10, "open"), Received::Duplicate);
}

#[test]
fn lanes_that_have_ended_leave_room_for_others() {
    let mut inbound = Inbound::new(Timing::default());
    for tunnel in 0..2 * LANES_MAX as u64 {
        assert_eq!(inbound.receive(Duration::ZERO, Lane::Up(tunnel), 0, 0, 1, ()), Received::Ready);
        inbound.end_lane(Duration::ZERO, Lane::Up(tunnel));
    }
}

#[test]
fn a_copy_of_what_is_held_takes_no_room() {
    let mut inbound = Inbound::new(Timing::default());
    let (at, half) = (Duration::ZERO, super::WINDOW_BYTES / 2);
    assert_eq!(inbound.receive(at, Lane::Normal, 1, 0, half, 1), Received::Held);
    assert_eq!(inbound.receive(at, Lane::Normal, 1, 0, half, 1), Received::Duplicate);
    assert_eq!(inbound.receive(at, Lane::Normal, 2, 0, half, 2), Received::Held);
}

#[test]
fn a_late_copy_of_a_lane_that_was_forgotten_is_a_copy() {
    let mut inbound = Inbound::new(Timing::default());
    assert_eq!(inbound.receive(Duration::ZERO, Lane::Up(1), 5, 3, 10, ()), Received::Duplicate);
    assert!(inbound.acknowledge(Duration::ZERO, true).is_empty(), "nothing is remembered of it");
}

#[test]
fn a_tunnels_lane_that_has_ended_makes_room_for_the_next() {
    let mut outbound = Outbound::new(Timing::default());
    for tunnel in 0..2 * LANES_MAX as u64 {
        let lane = Lane::Up(tunnel);
        assert!(outbound.has_room(lane), "{tunnel}");
        outbound.send(Duration::ZERO, lane, 1, ());
        let ack = LaneAck { lane, next: 1, held: Vec::new() };
        // Its end is known before its last packet has arrived, or after.
        if tunnel % 2 == 0 {
            outbound.end_lane(lane);
        }
        outbound.acknowledged(Duration::ZERO, &[ack], &mut Vec::new()).expect("it was sent");
        outbound.end_lane(lane);
    }
}

#[test]
fn after_trouble_more_is_sent_again_with_each_answer_and_the_timer_is_what_it_was() {
    let mut outbound = Outbound::new(Timing::default());
    let at = Duration::from_secs;
    for number in 0..64 {
        outbound.send(at(0), Lane::Normal, 16 << 10, number);
    }
    // Nobody answers for a while.
    let mut waits = Vec::new();
    for _ in 0..5 {
        let now = outbound.deadline().expect("something is not acknowledged");
        waits.push(now);
        outbound.tick(now);
    }
    let waited = |from: Duration, outbound: &Outbound<i32>| outbound.deadline().expect("still so") - from;
    assert!(waited(waits[4], &outbound) > at(4));
    let again = |outbound: &mut Outbound<i32>, now| std::iter::from_fn(|| outbound.next_again(now).map(|_| ())).count();
    assert_eq!(again(&mut outbound, at(20)), 4, "64 KiB");
    let ack = |next| [LaneAck { lane: Lane::Normal, next, held: Vec::new() }];
    outbound.acknowledged(at(20), &ack(4), &mut Vec::new()).expect("they were sent");
    assert_eq!(again(&mut outbound, at(20)), 8, "twice as much");
    assert!(waited(at(20), &outbound) < at(1));
}

#[test]
fn what_the_receiver_holds_is_not_sent_again() {
    let mut outbound = Outbound::new(Timing::default());
    for number in 0..4 {
        outbound.send(Duration::ZERO, Lane::Normal, 10, number);
    }
    let ack = LaneAck { lane: Lane::Normal, next: 0, held: vec![(1, 3)] };
    outbound.acknowledged(Duration::ZERO, &[ack], &mut Vec::new()).expect("they were sent");
    outbound.path(true);
    let again = std::iter::from_fn(|| outbound.next_again(Duration::ZERO).map(|again| again.sequence));
    assert_eq!(again.collect::<Vec<_>>(), [0, 3]);
    assert_eq!(outbound.doubtful_for_test(), 0);
}
