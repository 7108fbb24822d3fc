//! The rules, one by one; all of them at once in [`world`].

mod world;

use super::*;

fn life(number: u64) -> Incarnation {
    Incarnation::from_number(number).expect("not zero")
}

#[test]
fn a_node_more_takes_its_share_and_moves_nothing_else() {
    let names: Vec<NodeName> = (0..4).map(|n| NodeName::new(&format!("n{n}")).expect("a name")).collect();
    let of = |slot: usize, nodes: usize| (0..nodes).max_by_key(|n| Ranks::of("orders", &names[*n]).0[slot]);
    let moved: Vec<_> = (0..SLOTS).filter(|slot| of(*slot, 3) != of(*slot, 4)).collect();
    assert!(moved.iter().all(|slot| of(*slot, 4) == Some(3)), "only to the one that came");
    assert!((8..28).contains(&moved.len()), "about a quarter of {SLOTS}: {}", moved.len());
}

#[test]
fn a_life_agrees_to_no_claim_of_a_slot_that_it_knows_another_to_have() {
    let names: Vec<NodeName> = (0..3).map(|n| NodeName::new(&format!("n{n}")).expect("a name")).collect();
    let mut division = Division::new("orders", &names[0], life(1));
    division.met(life(2), &names[1]);
    division.said(life(2), Saying { version: 1, member: true, owned: 6, ..Saying::default() });
    // This one has not met the other.
    division.met(life(3), &names[2]);
    division.said(life(3), Saying { version: 1, member: true, claiming: 3, ..Saying::default() });
    let note = Tell::Note { to: life(3), version: 1, agreed: 1 };
    assert!(division.turn().contains(&note), "slot 0 is free, slot 1 is not");
}

/// What one of two lives tells the other, at once.
fn hear(division: &mut Division, from: Incarnation, tell: &[Tell]) {
    for tell in tell {
        match *tell {
            Tell::Saying { saying, .. } => division.said(from, saying),
            Tell::Note { version, agreed, .. } => {
                division.noted(from, version, agreed);
                division.noted_among_requests(from, version);
            }
        }
    }
}

#[test]
fn an_agreement_to_a_claim_that_was_given_up_is_none_to_the_next_one() {
    let names: Vec<NodeName> = (0..2).map(|n| NodeName::new(&format!("n{n}")).expect("a name")).collect();
    let [mut one, mut other] = [0, 1].map(|n: usize| Division::new("orders", &names[n], life(n as u64 + 1)));
    one.met(life(2), &names[1]);
    other.met(life(1), &names[0]);
    one.settle();
    other.settle();
    one.set_member(true);
    let claim = one.turn();
    hear(&mut other, life(1), &claim);
    let agreement = other.turn();
    assert!(matches!(agreement[..], [Tell::Note { agreed: Slots::MAX, .. }]), "{agreement:?}");
    // Before it hears of that it runs the manager no more.
    one.set_member(false);
    one.left();
    let given_up = one.turn();
    hear(&mut one, life(2), &agreement);
    other.set_member(true);
    hear(&mut other, life(1), &given_up);
    let [claim, note] = other.turn()[..] else { panic!("it claims them, and has noted that they are free") };
    // Its claim comes, and is agreed to; its note is late.
    hear(&mut one, life(2), &[claim]);
    let agreement = one.turn();
    one.set_member(true);
    let again = one.turn();
    hear(&mut other, life(1), &agreement);
    let owned = other.turn();
    assert_eq!(other.saying().owned, Slots::MAX);
    assert_ne!(one.saying().claiming, 0, "it does not know yet");
    assert_eq!(one.saying().owned, 0, "nobody has agreed to that");
    hear(&mut one, life(2), &[note]);
    one.turn();
    hear(&mut other, life(1), &again);
    let no = other.turn();
    hear(&mut one, life(2), &owned);
    hear(&mut one, life(2), &no);
    one.turn();
    assert_eq!((one.saying().owned, one.saying().claiming), (0, 0));
}

/// One of life 1 that runs the manager, is settled, and has met so many other lives, from 2.
fn with_others(others: u64) -> Division {
    let name = |number: u64| NodeName::new(&format!("n{}", number - 1)).expect("a name");
    let mut division = Division::new("orders", &name(1), life(1));
    (2..2 + others).for_each(|other| division.met(life(other), &name(other)));
    division.settle();
    division.set_member(true);
    division
}

/// One of life 1 that has every slot, to which lives 2 and 3 have agreed.
fn with_all_slots() -> Division {
    let mut division = with_others(2);
    division.turn();
    let version = division.saying().version;
    [2, 3].into_iter().for_each(|other| division.noted(life(other), version, Slots::MAX));
    division.turn();
    assert_eq!(division.saying().owned, Slots::MAX);
    division
}

#[test]
fn what_was_agreed_to_before_a_session_began_anew_does_not_count() {
    let mut division = with_others(2);
    division.turn();
    let version = division.saying().version;
    division.noted(life(2), version, Slots::MAX);
    // That one has given this life up, and may have taken them since.
    division.renew(life(2));
    division.noted(life(3), version, Slots::MAX);
    division.turn();
    assert_eq!(division.saying().owned, 0);
    division.noted(life(2), version, Slots::MAX);
    division.turn();
    assert_eq!(division.saying().owned, Slots::MAX);
}

#[test]
fn what_is_about_to_move_stays_while_somebody_is_out_of_reach_and_when_nobody_is_to_have_it_instead() {
    let mut division = with_all_slots();

    let mut other = Saying { version: 1, member: true, ..Saying::default() };
    division.reach(life(3), false);
    division.said(life(2), other);
    division.turn();
    assert_eq!(division.saying().releasing, 0, "one that may be at work has not agreed");
    division.reach(life(3), true);
    division.turn();
    let moving = division.saying().releasing;
    assert_ne!(moving, 0);
    let (from, to) = (division.saying().owned, (0..SLOTS).filter(|slot| moving & 1 << slot != 0));
    assert!(to.into_iter().all(|slot| division.way(slot) == Way::Nowhere));
    division.reach(life(3), false);
    division.turn();
    assert_eq!((division.saying().owned, from | moving), (Slots::MAX, Slots::MAX), "it goes on with them");
    division.reach(life(3), true);
    division.turn();
    assert_eq!(division.saying().releasing, moving);

    (other.version, other.member) = (2, false);
    division.said(life(2), other);
    division.turn();
    assert_eq!(division.saying().owned, Slots::MAX, "they are to be its own again");
    (other.version, other.member) = (3, true);
    division.said(life(2), other);
    division.turn();
    assert_eq!(division.saying().releasing, moving);
    (other.version, other.member) = (4, false);
    division.said(life(2), other);
    division.set_member(false);
    division.turn();
    assert_eq!(division.saying().owned, Slots::MAX, "for its own publishers, until somebody comes");
}

#[test]
fn of_two_that_claim_a_slot_only_the_one_with_the_higher_rank_is_agreed_to() {
    let mut division = with_others(1);
    let told = division.turn();
    assert!(matches!(told[..], [Tell::Saying { .. }]), "what was never said is not noted: {told:?}");
    assert_eq!(division.saying().claiming, Slots::MAX);
    division.said(life(2), Saying { version: 1, member: true, claiming: Slots::MAX, ..Saying::default() });
    let [_, Tell::Note { agreed, .. }] = division.turn()[..] else {
        panic!("what it claims now, and what the other may")
    };
    assert!(agreed != 0 && agreed != Slots::MAX, "each outranks the other in some");
    assert_eq!(division.saying().claiming, !agreed);
}

#[test]
fn a_slot_is_drained_once_both_lanes_have_ended() {
    for events_last in [true, false] {
        let mut division = with_others(1);
        division.turn();
        division.noted(life(2), division.saying().version, Slots::MAX);
        division.turn();
        division.said(life(2), Saying { version: 1, member: true, ..Saying::default() });
        division.turn();
        let (releasing, version) = (division.saying().releasing, division.saying().version);
        assert_ne!(releasing, 0);
        let note = |division: &mut Division, of_events: bool, version| match of_events {
            true => division.noted(life(2), version, 0),
            false => division.noted_among_requests(life(2), version),
        };
        note(&mut division, !events_last, version);
        assert_eq!(division.draining(), 0, "what comes in the other lane may be under way");
        note(&mut division, events_last, version + 1);
        assert_eq!(division.draining(), 0, "that was never said");
        note(&mut division, events_last, version);
        assert_eq!(division.draining(), releasing);
        let slot = slots(releasing).next().expect("one of them");
        division.drained(slot);
        assert!(!division.holds(slot));
        let told = division.turn();
        let [Tell::Saying { saying, .. }] = told[..] else { panic!("{told:?}") };
        assert_eq!(saying, division.saying());
        assert!(saying.version > version, "it is another saying");
    }
}

#[test]
fn all_is_told_again_when_a_session_begins_anew_and_nothing_otherwise() {
    let mut division = with_others(1);
    division.said(life(2), Saying { version: 1, ..Saying::default() });
    let told = division.turn();
    assert!(matches!(told[..], [Tell::Saying { .. }, Tell::Note { version: 1, .. }]), "{told:?}");
    division.set_member(true);
    division.said(life(2), Saying { version: 1, ..Saying::default() });
    assert_eq!(division.turn(), []);
    division.renew(life(2));
    assert_eq!(division.turn(), told);
}

#[test]
fn who_is_alone_has_every_slot_at_once() {
    let mut division = with_others(0);
    assert_eq!(division.turn(), []);
    assert_eq!(division.saying().owned, Slots::MAX);
}

#[test]
fn who_leaves_before_it_has_had_a_slot_takes_those_that_are_nobody_s_until_it_is_done() {
    let mut alone = with_others(0);
    alone.set_member(false);
    alone.turn();
    assert_eq!(alone.saying().owned, Slots::MAX);
    let mut leaving = with_others(1);
    leaving.set_member(false);
    leaving.turn();
    assert!(leaving.awaits(0) && leaving.saying().claiming == Slots::MAX, "the other is asked first");
    leaving.said(life(2), Saying { version: 1, member: true, ..Saying::default() });
    leaving.turn();
    assert!(!leaving.awaits(0), "the other takes them");
    let mut done = with_others(1);
    done.set_member(false);
    done.left();
    done.turn();
    assert!(!done.awaits(0), "nothing waits here");
}

#[test]
fn of_two_that_leave_before_they_have_had_a_slot_one_gets_it() {
    let names = [0, 1].map(|n| NodeName::new(&format!("n{n}")).expect("a name"));
    let [mut one, mut other] = [0, 1].map(|n: usize| Division::new("orders", &names[n], life(n as u64 + 1)));
    one.met(life(2), &names[1]);
    other.met(life(1), &names[0]);
    for division in [&mut one, &mut other] {
        division.settle();
        division.set_member(true);
        division.set_member(false);
    }
    let (mut to_other, mut to_one) = (one.turn(), Vec::new());
    while !(to_one.is_empty() && to_other.is_empty()) {
        hear(&mut other, life(1), &std::mem::take(&mut to_other));
        to_one.extend(other.turn());
        hear(&mut one, life(2), &std::mem::take(&mut to_one));
        to_other.extend(one.turn());
        assert_eq!(one.saying().owned & other.saying().owned, 0);
    }
    assert_eq!(one.saying().owned | other.saying().owned, Slots::MAX);
}

#[test]
fn a_life_that_claims_a_slot_agrees_to_nobody_else_who_does() {
    for rank in 1..3 {
        let mut one = Division::new("orders", &NodeName::new(&format!("n{}", rank - 1)).expect("a name"), life(rank));
        let other = life(3 - rank);
        one.met(other, &NodeName::new(&format!("n{}", 2 - rank)).expect("a name"));
        one.settle();
        one.set_member(true);
        one.turn();
        one.said(other, Saying { version: 2, claiming: Slots::MAX, ..Saying::default() });
        let told = one.turn();
        assert_eq!(one.saying().claiming, Slots::MAX, "the other is no member");
        assert!(told.iter().all(|tell| !matches!(tell, Tell::Note { agreed: 1.., .. })), "{told:?}");
    }
}

#[test]
fn of_two_that_have_a_slot_the_one_of_the_lower_rank_gives_it_up_whoever_is_out_of_reach() {
    let mut division = with_all_slots();
    division.reach(life(3), false);
    division.said(life(2), Saying { version: 1, member: true, owned: Slots::MAX, ..Saying::default() });
    division.turn();
    let Saying { owned, releasing, .. } = division.saying();
    assert!(owned != 0 && releasing != 0, "each outranks the other in some");
    assert_eq!(owned | releasing, Slots::MAX);
    let outranks = |slot: usize| division.rightful(slot) == Some(life(2));
    assert!(slots(releasing).all(outranks) && !slots(owned).any(outranks));
}

#[test]
fn who_has_heard_of_a_claim_and_does_not_agree_is_waited_for() {
    let mut division = with_others(1);
    division.turn();
    let version = division.saying().version;
    for agreed in [0, 5] {
        division.noted(life(2), version, agreed);
        division.turn();
        assert_eq!(division.saying().owned, agreed, "it may know somebody who has the others");
    }
}

#[test]
fn a_life_agrees_to_no_claim_of_a_slot_that_it_has() {
    let mut division = with_others(1);
    division.turn();
    division.noted(life(2), division.saying().version, 5);
    division.turn();
    assert_eq!(division.saying().owned, 5);
    // As from one that has not heard of it.
    division.said(life(2), Saying { version: 1, member: true, claiming: Slots::MAX, ..Saying::default() });
    let told = division.turn();
    let [.., Tell::Note { agreed, .. }] = told[..] else { panic!("{told:?}") };
    assert_eq!(agreed & 5, 0, "whether it keeps them or is about to give them up");
    assert_ne!(agreed, 0);
}

#[test]
fn a_slot_s_events_go_to_the_one_life_that_has_it_and_nowhere_while_two_have_it() {
    let mut division = with_others(2);
    let has = |version, owned, releasing| Saying { version, member: true, owned, releasing, ..Saying::default() };
    division.said(life(2), has(1, 1, 0));
    for (version, (owned, releasing)) in (1..).zip([(1, 0), (0, 1)]) {
        division.said(life(3), has(version, owned, releasing));
        assert_eq!(division.way(0), Way::Nowhere);
    }
    division.said(life(3), has(3, 0, 0));
    assert_eq!(division.way(0), Way::There(life(2)));
    division.said(life(2), has(2, 0, 1));
    assert_eq!(division.way(0), Way::Nowhere, "it is about to give it up");
}

#[test]
fn somebody_takes_slots_while_this_life_or_another_does() {
    let mut division = with_others(1);
    assert!(division.has_member());
    division.set_member(false);
    assert!(!division.has_member());
    division.said(life(2), Saying { version: 1, member: true, ..Saying::default() });
    assert!(division.has_member());
}

#[test]
fn of_two_lives_of_one_node_the_later_has_its_slots() {
    let node = NodeName::new("n0").expect("a name");
    let mut division = Division::new("orders", &node, life(1));
    division.met(life(2), &node);
    division.settle();
    division.set_member(true);
    division.turn();
    division.said(life(2), Saying { version: 1, member: true, claiming: Slots::MAX, ..Saying::default() });
    let told = division.turn();
    assert!(told.contains(&Tell::Note { to: life(2), version: 1, agreed: Slots::MAX }), "{told:?}");
    assert_eq!(division.saying().claiming, 0);

    // Where both have them, whoever is out of reach.
    let mut division = Division::new("orders", &node, life(1));
    division.met(life(2), &node);
    division.met(life(3), &NodeName::new("n1").expect("a name"));
    division.settle();
    division.set_member(true);
    division.turn();
    let version = division.saying().version;
    [2, 3].into_iter().for_each(|other| division.noted(life(other), version, Slots::MAX));
    division.turn();
    assert_eq!(division.saying().owned, Slots::MAX);
    division.reach(life(3), false);
    division.said(life(2), Saying { version: 1, member: true, owned: Slots::MAX, ..Saying::default() });
    division.turn();
    assert_eq!(division.saying().releasing, Slots::MAX);
}
