//! A session over connections that break at any moment: every frame arrives once and in order, and what is kept is what has
//! not been acknowledged.

use std::collections::VecDeque;

use bytes::Bytes;
use edri_protocol::resume::{Received, Sent};
use proptest::collection::vec;
use proptest::prelude::*;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The session has a frame to send.
    Push,
    /// The connection takes so many.
    Send(u8),
    /// So many of those on their way arrive.
    Arrive(u8),
    /// The receiver tells how many it has.
    Ack,
    /// The oldest `ack` on its way arrives.
    AckArrives,
    /// The connection breaks with all that is on its way, and there is another.
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Push),
        4 => (1..5_u8).prop_map(Step::Send),
        4 => (1..5_u8).prop_map(Step::Arrive),
        2 => Just(Step::Ack),
        2 => Just(Step::AckArrives),
        1 => Just(Step::Break),
    ]
}

/// One direction of a session, beside a model that keeps everything.
struct Direction {
    sent: Sent,
    received: Received,
    pushed: u64,
    way: VecDeque<Bytes>,
    acks: VecDeque<u64>,
    arrived: Vec<u64>,
    acknowledged: u64,
    /// The next frame for this connection.
    on_connection: u64,
}

fn frame(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

impl Direction {
    fn new() -> Self {
        let (sent, received) = (Sent::kept(), Received::default());
        let (way, acks, arrived) = (VecDeque::new(), VecDeque::new(), Vec::new());
        Self { sent, received, pushed: 0, way, acks, arrived, acknowledged: 0, on_connection: 0 }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Push => {
                self.sent.push(frame(self.pushed));
                self.pushed += 1;
            }
            Step::Send(count) => {
                for _ in 0..count {
                    let next = self.sent.next_unsent();
                    self.on_connection += u64::from(next.is_some());
                    self.way.extend(next);
                }
            }
            Step::Arrive(count) => {
                for frame in self.way.drain(..usize::from(count).min(self.way.len())) {
                    self.received.frame();
                    self.arrived.push(std::str::from_utf8(&frame).expect("text").parse().expect("a number"));
                }
            }
            Step::Ack => self.acks.push_back(self.received.tell()),
            Step::AckArrives => {
                if let Some(count) = self.acks.pop_front() {
                    self.sent.acknowledge(count).expect("a true count");
                    self.acknowledged = count;
                }
            }
            Step::Break => {
                self.way.clear();
                self.acks.clear();
                self.acknowledged = self.received.tell();
                self.sent.reconnect(self.acknowledged).expect("a true count");
                self.on_connection = self.acknowledged;
            }
        }
    }

    fn check(&self) {
        let kept: usize = (self.acknowledged..self.pushed).map(|number| frame(number).len()).sum();
        assert_eq!(self.sent.bytes(), kept, "what is not acknowledged is kept, and nothing else");
        let unsent: usize = (self.on_connection..self.pushed).map(|number| frame(number).len()).sum();
        assert_eq!(self.sent.unsent_bytes(), unsent);
        assert!(self.arrived.iter().copied().eq(0..self.arrived.len() as u64), "{:?}", self.arrived);
        assert_eq!(self.received.count(), self.arrived.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_comes_twice(steps in vec(step(), 0..200)) {
        let mut direction = Direction::new();
        for step in steps {
            direction.take(step);
            direction.check();
        }
        direction.take(Step::Break);
        while direction.sent.has_unsent() {
            direction.take(Step::Send(4));
            direction.take(Step::Arrive(4));
        }
        direction.check();
        prop_assert_eq!(direction.arrived.len() as u64, direction.pushed);
    }

    #[test]
    fn a_count_that_cannot_be_changes_nothing(pushed in 0..20_u64, sent in 0..20_u64, acked in 0..20_u64, said in any::<u64>()) {
        let mut direction = Direction::new();
        (0..pushed).for_each(|_| direction.take(Step::Push));
        (0..sent).for_each(|_| direction.take(Step::Send(1)));
        let most = pushed.min(sent);
        let least = acked.min(most);
        direction.sent.acknowledge(least).expect("a true count");
        let before = direction.sent.bytes();
        for said in [said, said % 25] {
            let right = (least..=most).contains(&said);
            let mut again = Direction::new();
            (0..pushed).for_each(|_| again.take(Step::Push));
            (0..sent).for_each(|_| again.take(Step::Send(1)));
            again.sent.acknowledge(least).expect("a true count");
            prop_assert_eq!(again.sent.acknowledge(said).is_ok(), right, "{} of {} to {}", said, least, most);
            if !right {
                prop_assert_eq!(again.sent.bytes(), before);
            }
        }
    }

    #[test]
    fn what_is_not_kept_is_forgotten_once_it_is_sent(count in 0..50_u64) {
        let mut sent = Sent::unkept();
        (0..count).for_each(|number| sent.push(frame(number)));
        let all: Vec<_> = std::iter::from_fn(|| sent.next_unsent()).collect();
        prop_assert!(all.into_iter().eq((0..count).map(frame)));
        prop_assert_eq!(sent.bytes(), 0);
    }
}
