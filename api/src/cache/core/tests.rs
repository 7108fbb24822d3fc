//! The core beside a model that remembers everything and looks everything up.

use std::collections::BTreeSet;

use edri_events::{EventName, key_hash};
use proptest::prelude::*;

use super::super::staleness::{SETTLE, UNDER_WAY};
use super::*;
use crate::clients::Client;

/// An answer: what the world was like when it was made, and how long it is.
type Answer = (u64, u64);

impl Weigh for Answer {
    fn weight(&self) -> u64 {
        self.1
    }
}

fn name(number: usize) -> EventName {
    EventName::new(&format!("n{number}.changed")).expect("a name")
}

/// What a request is: by its number it has a key, and notifications that end it.
#[derive(Debug)]
struct Question {
    of: Identity,
    key: Option<&'static str>,
    stale_on: Vec<EventName>,
}

const LIFETIME: Duration = Duration::from_secs(10);
const KEYS: [Option<&str>; 3] = [None, Some("x"), Some("y")];

fn questions() -> Vec<Question> {
    let ends = [vec![], vec![name(0)], vec![name(1)], vec![name(0), name(1)]];
    let mut questions = Vec::new();
    for stale_on in ends {
        for key in KEYS {
            let of = Identity::number(u32::try_from(questions.len()).expect("few"));
            questions.push(Question { of, key, stale_on: stale_on.clone() });
        }
    }
    questions
}

impl Question {
    fn rule<'r>(&'r self, client: &'r Client) -> Rule<'r> {
        Rule { stale_on: &self.stale_on, key: self.key.map(key_hash), client: Some(client) }
    }

    fn is_ended_by(&self, notification: &EventName, key: Option<&str>) -> bool {
        self.stale_on.contains(notification) && (self.key.is_none() || key.is_none() || self.key == key)
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// By a client.
    Ask(usize, usize),
    /// A client does something.
    Write(usize),
    /// Of those who are asked the one of this number answers; whether others may have what it says.
    Answer(usize, bool),
    /// Nobody waits for it any more.
    GiveUp(usize),
    Notify(usize, usize),
    Listen(usize),
    Reachable(usize),
    Unreachable(usize),
    Gone(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..12_usize, 0..2_usize).prop_map(|(question, client)| Step::Ask(question, client)),
        1 => (0..2_usize).prop_map(Step::Write),
        6 => (any::<prop::sample::Index>(), prop::bool::weighted(0.9)).prop_map(|(which, keep)| Step::Answer(which.index(64), keep)),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::GiveUp(which.index(64))),
        3 => (0..2_usize, 0..3_usize).prop_map(|(name, key)| Step::Notify(name, key)),
        2 => (0..2_usize).prop_map(Step::Listen),
        1 => (0..2_usize).prop_map(Step::Reachable),
        1 => (0..2_usize).prop_map(Step::Unreachable),
        1 => (0..2_usize).prop_map(Step::Gone),
        3 => (1..6_000_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

/// Somebody who was asked, or an answer.
#[derive(Debug, Clone)]
struct Remembered {
    question: usize,
    /// Everything that has happened by then, by its place in the list of all that has.
    since: usize,
    asked: Instant,
    /// What was answered, and when.
    answer: Option<(Answer, Instant)>,
    /// Nobody waits any more.
    left: bool,
    ticket: Ticket,
}

/// Something that has happened.
#[derive(Debug)]
enum Happened {
    Notified(EventName, Option<&'static str>),
    Listened(EventName),
    /// Another node came, went or came again.
    Changed,
    /// This client did something then.
    Wrote(usize, Instant),
}

/// Whether an answer to this question holds that was asked for then, by everything that has happened.
fn holds(question: &Question, one: &Remembered, world: &World, client: usize, now: Instant) -> bool {
    let after = &world.happened[one.since..];
    let heard = |name: &EventName| {
        let before = &world.happened[..one.since];
        before.iter().any(|happened| matches!(happened, Happened::Listened(heard) if heard == name))
    };
    question.stale_on.is_empty()
        || world.cut.is_empty()
            && world.settled.is_none_or(|settled| settled <= one.asked)
            && question.stale_on.iter().all(heard)
            && !after.iter().any(|happened| match happened {
                Happened::Notified(name, key) => question.is_ended_by(name, *key),
                Happened::Listened(_) => false,
                Happened::Changed => true,
                Happened::Wrote(writer, at) => *writer == client && now - *at < UNDER_WAY,
            })
}

#[derive(Debug, Default)]
struct World {
    happened: Vec<Happened>,
    cut: BTreeSet<usize>,
    known: BTreeSet<usize>,
    settled: Option<Instant>,
}

fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let questions = questions();
    let core: Core<Answer, u64> = Core::new(1 << 20, 1_000);
    let mut now = Instant::now();
    let clients = [1, 2].map(|number: u32| Client::Address(std::net::Ipv4Addr::from(number).into()));
    let mut world = World::default();
    let mut all: Vec<Remembered> = Vec::new();
    for step in steps {
        match step {
            Step::Ask(question, client) => {
                let asked = &questions[question];
                let is_left = |ticket: &u64| all.iter().any(|one| one.ticket.number == *ticket && one.left);
                let mut begun = None;
                let found = core.find(
                    asked.of,
                    &asked.rule(&clients[client]),
                    LIFETIME,
                    now,
                    |flight| (!is_left(flight)).then_some(*flight),
                    |ticket| {
                        begun = Some(ticket);
                        (ticket.number, ticket.number)
                    },
                );
                let same = || all.iter().rev().filter(|one| one.question == question);
                let valid = |one: &&Remembered| holds(asked, one, &world, client, now);
                // The latest answer, which took the place of those before it, if it holds.
                let kept =
                    same().filter(|one| one.answer.is_some()).max_by_key(|one| one.answer.map(|(answer, _)| answer.0));
                let kept = kept.filter(valid).and_then(|one| one.answer);
                let left = kept.and_then(|(_, came)| LIFETIME.checked_sub(now - came)).filter(|left| !left.is_zero());
                // Whoever was asked last and has not answered.
                let open = same().max_by_key(|one| one.ticket.number);
                let open = open.filter(|one| one.answer.is_none() && !one.left).filter(valid);
                let expect = match (kept.zip(left), open) {
                    (Some(((answer, _), left)), _) => Found::Kept(answer, left),
                    (None, Some(open)) => Found::Joined(open.ticket.number),
                    (None, None) => Found::Begun(begun.map(|ticket| ticket.number).unwrap_or_default()),
                };
                prop_assert_eq!(&found, &expect, "{} at {:?}", question, world);
                if let Some(ticket) = begun {
                    let since = world.happened.len();
                    all.push(Remembered { question, since, asked: now, answer: None, left: false, ticket });
                }
            }
            Step::Write(client) => {
                core.staleness().write().wrote(clients[client].clone(), now);
                world.happened.push(Happened::Wrote(client, now));
            }
            Step::Answer(which, keep) => {
                let waiting = all.iter().filter(|one| one.answer.is_none() && !one.left).count();
                let number = all.iter().filter_map(|one| one.answer).count() as u64;
                let mut open = all.iter_mut().filter(|one| one.answer.is_none() && !one.left);
                let Some(one) = open.nth(which % waiting.max(1)) else { continue };
                let answer = (number, 10);
                core.end(one.ticket, keep.then_some(answer), now);
                let (question, begun) = (one.question, one.ticket.number);
                let is_last = |all: &[Remembered]| {
                    all.iter().all(|other| other.question != question || other.ticket.number <= begun)
                };
                let keep = keep && is_last(&all);
                let one = all.iter_mut().find(|one| one.ticket.number == begun).expect("it was there");
                if keep { one.answer = Some((answer, now)) } else { one.left = true }
            }
            Step::GiveUp(which) => {
                let waiting = all.iter().filter(|one| one.answer.is_none() && !one.left).count();
                let mut open = all.iter_mut().filter(|one| one.answer.is_none() && !one.left);
                if let Some(one) = open.nth(which % waiting.max(1)) {
                    one.left = true;
                }
            }
            Step::Notify(number, key) => {
                core.staleness().write().came(&name(number), KEYS[key]);
                world.happened.push(Happened::Notified(name(number), KEYS[key]));
            }
            Step::Listen(number) => {
                if core.staleness().read().listens(&name(number)) {
                    continue;
                }
                core.staleness().write().listen(name(number), now);
                world.happened.push(Happened::Listened(name(number)));
                if !world.known.is_empty() || world.settled.is_some_and(|settled| settled > now) {
                    world.settled = Some(now + SETTLE);
                }
            }
            Step::Reachable(node) => {
                core.staleness().write().reachable(node.to_string(), now);
                world.cut.remove(&node);
                world.known.insert(node);
                world.settled = Some(now + SETTLE);
                world.happened.push(Happened::Changed);
            }
            Step::Unreachable(node) => {
                core.staleness().write().unreachable(node.to_string());
                world.known.remove(&node);
                world.cut.insert(node);
                world.happened.push(Happened::Changed);
            }
            Step::Gone(node) => {
                core.staleness().write().gone(&node.to_string());
                world.known.remove(&node);
                world.cut.remove(&node);
                world.happened.push(Happened::Changed);
            }
            Step::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes, answers, ends, is lost and passes: what is kept and who is joined is what a model says.
    #[test]
    fn what_is_kept_and_who_is_joined_is_what_a_model_says(steps in steps()) {
        check(steps)?;
    }

    /// However much is kept, it is no more than it may be.
    #[test]
    fn bounds_in_bytes_and_entries_are_kept(answers in prop::collection::vec(0..8_000_u64, 1..600)) {
        let core: Core<Answer, ()> = Core::new(64 << 10, 100);
        let now = Instant::now();
        let rule = Rule { stale_on: &[], key: None, client: None };
        for (number, weight) in answers.into_iter().enumerate() {
            let of = Identity::number(u32::try_from(number).expect("few"));
            let mut ticket = None;
            core.find(of, &rule, LIFETIME, now, |()| Some(()), |begun| {
                ticket = Some(begun);
                ((), ())
            });
            core.end(ticket.expect("nobody has asked before"), Some((0, weight)), now);
            let (entries, bytes) = core.size();
            prop_assert!(entries <= 100 && bytes <= 64 << 10, "{} entries, {} bytes", entries, bytes);
            let found = core.find(of, &rule, LIFETIME, now, |()| Some(()), |_| ((), ()));
            prop_assert!(weight <= 4 << 10 || matches!(found, Found::Begun(())), "it is longer than one may be");
            prop_assert!(core.open() <= number + 1);
        }
    }
}

#[test]
fn who_has_changed_something_takes_no_answer_from_others() {
    let core: Core<Answer, u64> = Core::new(1 << 20, 100);
    let (now, of, stale_on) = (Instant::now(), Identity::number(1), [name(0)]);
    let [writer, reader] = [1, 2].map(|number: u32| Client::Address(std::net::Ipv4Addr::from(number).into()));
    let ask = |client| {
        let (mut begun, rule) = (None, Rule { stale_on: &stale_on, key: None, client: Some(client) });
        let found = core.find(
            of,
            &rule,
            LIFETIME,
            now,
            |flight| Some(*flight),
            |ticket| {
                begun = Some(ticket);
                (ticket.number, ticket.number)
            },
        );
        (found, begun)
    };
    core.staleness().write().listen(name(0), now);
    let (_, first) = ask(&reader);
    core.end(first.expect("nobody was asked before"), Some((1, 10)), now);
    core.staleness().write().wrote(writer.clone(), now);
    assert!(matches!(ask(&writer).0, Found::Begun(_)), "it may not have what it has changed");
    assert_eq!(ask(&reader).0, Found::Kept((1, 10), LIFETIME));
}

#[test]
fn without_room_nothing_is_kept_and_a_burst_is_still_one() {
    for (bytes, entries) in [(0, 100), (1 << 20, 0), (0, 0)] {
        let core: Core<Answer, u8> = Core::new(bytes, entries);
        let (now, of, rule) = (Instant::now(), Identity::number(1), Rule { stale_on: &[], key: None, client: None });
        let mut ticket = None;
        let begin = |begun| {
            ticket = Some(begun);
            (7, 7)
        };
        assert_eq!(core.find(of, &rule, LIFETIME, now, |flight| Some(*flight), begin), Found::Begun(7));
        assert_eq!(core.find(of, &rule, LIFETIME, now, |flight| Some(*flight), |_| (8, 8)), Found::Joined(7));
        core.end(ticket.expect("begun"), Some((1, 1)), now);
        assert_eq!(core.find(of, &rule, LIFETIME, now, |flight| Some(*flight), |_| (9, 9)), Found::Begun(9));
    }
}
