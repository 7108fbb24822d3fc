//! Two engines and one link, for what is told more clearly by itself than found by a seed.

use std::time::Duration;

use bytes::Bytes;
use edri_connector::engine::{Engine, GroupKey, Options, Output, Source, Target, Why};
use edri_connector::limits::GROUP_AHEAD_EVENTS_MAX;
use edri_connector::topology::{Content, GroupState, LinkId, LinkState, Message, NODE_SLOT, NodeState, Record, Window};
use edri_events::{Incarnation, NodeName};
use edri_protocol::packet::Lane;

type Numbers = Vec<u64>;

/// Node 0 sends to node 1; what both say that is not for the link.
struct Pair {
    now: Duration,
    engines: [Engine<Numbers>; 2],
    said: [Vec<Output<Numbers>>; 2],
    link: u32,
    is_up: bool,
    /// Packets to node 0 are lost.
    is_deaf: bool,
}

fn name(node: usize) -> NodeName {
    NodeName::new(&format!("n{node}")).expect("a name")
}

fn life(number: u64) -> Incarnation {
    Incarnation::from_number(number).expect("not zero")
}

impl Pair {
    /// Two nodes that know each other; node 1 has a group.
    fn new(shared: bool) -> Self {
        Self::with(shared, [Duration::from_secs(60); 2])
    }

    /// The same, with as much patience as each has with the other.
    fn with(shared: bool, expiry: [Duration; 2]) -> Self {
        let engines = [0, 1].map(|node| {
            let mut options = Options::default();
            options.topology.expiry = expiry[node];
            Engine::new(name(node), life(node as u64 + 1), options)
        });
        let mut pair = Self {
            now: Duration::ZERO,
            engines,
            said: [Vec::new(), Vec::new()],
            link: 0,
            is_up: false,
            is_deaf: false,
        };
        pair.announce(shared);
        pair.connect();
        pair
    }

    fn announce(&mut self, shared: bool) {
        let window = Window { events: 8, bytes: 4096 };
        let group = GroupState { name: "clerk".to_owned(), shared, window, ..GroupState::default() };
        self.engines[1].set_group(1, group).expect("one group");
        self.engines.iter_mut().for_each(|engine| engine.set_settled(true));
    }

    fn connect(&mut self) {
        self.link += 1;
        self.is_up = true;
        let lives = [0, 1].map(|node| self.engines[node].incarnation());
        for node in 0..2 {
            let other = 1 - node;
            self.engines[node].link_up(self.now, LinkId(self.link), name(other), lives[other], 1).expect("a link");
        }
        self.run(Duration::from_secs(1));
    }

    fn cut(&mut self) {
        self.is_up = false;
        self.engines.iter_mut().for_each(|engine| engine.link_down(self.now, LinkId(self.link)));
        self.exchange();
    }

    /// Node 1 begins another life.
    fn restart(&mut self, shared: bool) {
        let next = life(self.engines[1].incarnation().get() + 1);
        self.engines[1] = Engine::new(name(1), next, Options::default());
        self.announce(shared);
        self.connect();
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.exchange();
            self.now += Duration::from_millis(5);
        }
    }

    fn exchange(&mut self) {
        let mut any = true;
        while std::mem::take(&mut any) {
            for node in 0..2 {
                self.engines[node].tick(self.now);
                while let Some(output) = self.engines[node].next_output() {
                    any = true;
                    let (now, other, link) = (self.now, &mut self.engines[1 - node], LinkId(self.link));
                    match output {
                        Output::Control { links, message } if self.is_up && links.contains(&link) => {
                            other.receive_control(now, link, message);
                        }
                        Output::Packet { link: over, header, body, .. } => {
                            if self.is_up && over == link && !(node == 1 && self.is_deaf) {
                                other.receive(now, link, [header, body].concat().into()).expect("a packet");
                            }
                            self.engines[node].queued(link, 0);
                        }
                        Output::Control { .. } => {}
                        other => self.said[node].push(other),
                    }
                }
            }
        }
    }

    fn key(&self) -> GroupKey {
        let keys = self.said[0].iter().filter_map(|output| match output {
            Output::Group { key, .. } => Some(*key),
            _ => None,
        });
        keys.last().expect("its group is known")
    }

    /// Node 0 sends a packet with one number.
    fn send(&mut self, lane: Lane, number: u64) {
        let groups = if lane == Lane::Normal { vec![self.key()] } else { Vec::new() };
        let targets = [Target { node: self.engines[1].incarnation(), groups }];
        let body = Bytes::copy_from_slice(&number.to_be_bytes());
        self.engines[0].send(self.now, lane, &targets, body.into(), 1, &vec![number]);
    }

    /// The group of node 1 places so many events of what it was sent in the session of the last of them that came.
    fn place(&mut self, events: u64) {
        let source = self.source();
        self.place_of(source, events);
    }

    fn place_of(&mut self, source: Source, events: u64) {
        for _ in 0..events {
            self.engines[1].placed(self.now, source, 1, 1, 8);
        }
        self.run(Duration::from_millis(100));
    }

    /// Where the last packet that came to node 1 is from.
    fn source(&self) -> Source {
        let sources = self.said[1].iter().filter_map(|output| match output {
            Output::Deliver { from, .. } => Some(*from),
            _ => None,
        });
        sources.last().expect("something came")
    }

    /// How many events may be sent to the group.
    fn credit(&self) -> u64 {
        self.engines[0].credit(self.key()).0
    }

    /// So many events go to the group and arrive.
    fn send_events(&mut self, events: u64) {
        (0..events).for_each(|number| self.send(Lane::Normal, number));
        self.run(Duration::from_millis(100));
    }

    /// There is no link for as long as the less patient of the two bears it.
    fn part(&mut self) {
        self.cut();
        self.run(Duration::from_secs(5));
        self.connect();
    }

    fn lost(&self) -> Vec<(u64, bool, Why)> {
        let lost = self.said[0].iter().filter_map(|output| match output {
            Output::Lost { keep, sent, why, .. } => Some((keep[0], *sent, *why)),
            _ => None,
        });
        lost.collect()
    }
}

#[test]
fn what_a_restarted_node_leaves_to_others_comes_back_in_order() {
    let mut pair = Pair::new(true);
    pair.is_deaf = true;
    for number in 1..=4 {
        pair.send(Lane::Normal, number);
        pair.exchange();
    }
    pair.cut();
    pair.send(Lane::Normal, 5);
    pair.is_deaf = false;
    pair.restart(true);
    let expected = [(1, true), (2, true), (3, true), (4, true), (5, false)];
    assert_eq!(pair.lost(), expected.map(|(number, sent)| (number, sent, Why::Restarted)));
}

#[test]
fn a_tunnel_that_was_out_of_reach_for_long_after_its_end_does_not_begin_again() {
    let mut pair = Pair::with(false, [Duration::from_secs(600); 2]);
    pair.is_deaf = true;
    pair.send(Lane::Up(1), 1);
    pair.exchange();
    let (here, there) = (pair.engines[0].incarnation(), pair.now);
    pair.engines[1].lane_ended(there, here, Lane::Up(1));
    pair.cut();
    pair.run(Duration::from_secs(90));
    pair.connect();
    // It is sent more than once before its sender hears that it has come.
    pair.run(Duration::from_secs(3));
    pair.is_deaf = false;
    pair.run(Duration::from_secs(6));
    let came = pair.said[1].iter().filter(|output| matches!(output, Output::Deliver { lane: Lane::Up(_), .. }));
    assert_eq!(came.count(), 1);
    assert!(pair.engines[0].is_acknowledged());
}

/// Node 0 gives up node 1 and not the other way round, or the other way round.
const ONE_GIVES_UP: [[Duration; 2]; 2] =
    [[Duration::from_secs(2), Duration::from_secs(600)], [Duration::from_secs(600), Duration::from_secs(2)]];

#[test]
fn a_session_that_begins_anew_grants_what_the_first_one_did_whoever_has_given_up() {
    for expiry in ONE_GIVES_UP {
        let mut pair = Pair::with(false, expiry);
        for round in 0..3 {
            assert_eq!(pair.credit(), 8, "{expiry:?}, round {round}: what the group lets be under way");
            pair.send_events(8);
            assert_eq!(pair.credit(), 0, "{expiry:?}, round {round}");
            pair.place(8);
            assert_eq!(pair.credit(), 8, "{expiry:?}, round {round}: all has its place");
            pair.send_events(5);
            pair.place(5);
            pair.part();
        }
        assert!(pair.engines[0].figures(pair.engines[1].incarnation()).is_some_and(|figures| figures.session == 4));
    }
}

#[test]
fn what_came_before_a_session_began_anew_grants_nothing_more_in_it() {
    for expiry in ONE_GIVES_UP {
        let mut pair = Pair::with(false, expiry);
        pair.send_events(8);
        let first = pair.source();
        pair.part();
        pair.send_events(1);
        assert_eq!(pair.credit(), 7, "{expiry:?}");
        // Those of the first session are still waiting for room: it is not the new session's credit that they have used.
        pair.place_of(first, 8);
        assert_eq!(pair.credit(), 7, "{expiry:?}: one of what may be under way is");
        pair.place(1);
        assert_eq!(pair.credit(), 8, "{expiry:?}");
    }
}

#[test]
fn a_window_that_has_changed_is_what_the_next_session_begins_with() {
    for expiry in ONE_GIVES_UP {
        let mut pair = Pair::with(false, expiry);
        let window = Window { events: 3, bytes: 4096 };
        let group = GroupState { name: "clerk".to_owned(), window, ..GroupState::default() };
        pair.engines[1].set_group(1, group).expect("the same group");
        pair.part();
        assert_eq!(pair.credit(), 3, "{expiry:?}");
        pair.send_events(3);
        pair.place(3);
        assert_eq!(pair.credit(), 3, "{expiry:?}");
    }
}

#[test]
fn a_quick_group_is_sent_ahead_what_it_places_in_a_quarter_of_a_second_and_a_slow_one_what_its_window_says() {
    let mut pair = Pair::new(false);
    pair.send_events(8);
    pair.place(8);
    assert_eq!(pair.credit(), 8);
    pair.send_events(8);
    pair.place(8);
    assert_eq!(pair.credit(), 16, "so many were placed lately");
    pair.send_events(16);
    for _ in 0..16 {
        pair.place(1);
        pair.run(Duration::from_millis(900));
    }
    assert_eq!(pair.credit(), 8, "it was one a second");
}

#[test]
fn no_group_is_sent_more_ahead_than_the_limit_however_quick_it_is() {
    let mut pair = Pair::new(false);
    pair.send_events(8);
    let source = pair.source();
    for _ in 0..2 {
        pair.engines[1].placed(pair.now, source, 1, 100_000, 8);
        pair.run(Duration::from_millis(50));
    }
    let placed = 200_000 - 8;
    assert_eq!(pair.credit(), placed + GROUP_AHEAD_EVENTS_MAX);
}

#[test]
fn of_two_groups_of_one_name_the_later_one_is_sent_to_whatever_the_other_says() {
    let mut pair = Pair::new(false);
    let key = pair.key();
    let window = Window { events: 8, bytes: 4096 };
    let group = GroupState { name: "clerk".to_owned(), window, ..GroupState::default() };
    pair.engines[1].set_group(2, group.clone()).expect("another");
    pair.run(Duration::from_millis(50));
    pair.engines[1].set_group(1, GroupState { answers: true, ..group }).expect("the first one");
    pair.run(Duration::from_millis(50));
    assert_eq!(pair.engines[0].number_of(key), Some(2));
    pair.engines[1].withdraw_group(1);
    pair.run(Duration::from_millis(50));
    assert_eq!(pair.engines[0].number_of(key), Some(2));
    assert!(!pair.said[0].iter().any(|output| matches!(output, Output::Withdrawn { .. })));
}

#[test]
fn a_life_that_was_hidden_by_what_is_left_of_an_earlier_one_gets_nothing_twice() {
    let mut pair = Pair::new(false);
    pair.is_deaf = true;
    pair.send(Lane::Normal, 1);
    pair.exchange();
    // A neighbour still has that one, in an epoch that it had claimed, and a link to it; then the living one claims its name.
    let (neighbour, left) = ((name(2), life(7)), (name(1), life(9)));
    pair.engines[0].link_up(pair.now, LinkId(50), name(2), life(7), 1).expect("a link");
    let says = |(node, incarnation), epoch, to: &[(NodeName, Incarnation)]| {
        let links =
            to.iter().map(|(node, life)| LinkState { node: node.clone(), incarnation: *life, cost: 1 }).collect();
        let content = Content::Node(NodeState { links, ..NodeState::default() });
        Record { node, epoch, incarnation, slot: NODE_SLOT, version: 9, content }.encode()
    };
    let ways = vec![says(neighbour.clone(), 1, &[(name(0), life(1)), left.clone()]), says(left, 2, &[neighbour])];
    pair.engines[0].receive_control(pair.now, LinkId(50), Message::Records(ways));
    pair.is_deaf = false;
    pair.run(Duration::from_secs(1));
    let ended = |output: &&Output<Numbers>| matches!(output, Output::Ended { why: Why::Restarted, .. });
    assert_eq!(pair.said[0].iter().filter(ended).count(), 2, "it was hidden for a moment by the other");
    assert_eq!(pair.lost(), [(1, true, Why::Forgotten)], "it may have it, and would not know it again");
    pair.send_events(1);
    let came = pair.said[1].iter().filter_map(|output| match output {
        Output::Deliver { lane: Lane::Normal, body, .. } => Some(body[7]),
        _ => None,
    });
    assert_eq!(came.collect::<Vec<_>>(), [1, 0], "once, and what comes later");
}
