//! What makes answers stale before their time: notifications, and not having heard of some.
//!
//! Everything that happens has a number, and who was asked has the number of what had happened by then. An answer is stale when
//! something that ends it has a higher number. So it does not matter whether the answer is there already when that happens, or
//! comes later: nothing is looked for, and nothing is missed.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use edri_events::{EventName, key_hash};

use crate::clients::Client;

/// The most keys of notifications that are remembered apart; beyond it all of them are taken for having come just now.
pub(super) const KEYS_MAX: usize = 65_536;
/// How long after another node was met it may not know yet what is wanted here, so that what it publishes does not come.
pub(super) const SETTLE: Duration = Duration::from_secs(2);
/// For how long the notifications that follow from what a client did may be under way, when another node sends them.
pub(super) const UNDER_WAY: Duration = Duration::from_secs(5);
/// The most clients of which it is known that they did something; beyond it everything is taken for changed.
pub(super) const WRITERS_MAX: usize = 10_000;

/// What ends the answer to a request.
#[derive(Debug, Clone)]
pub(super) struct Rule<'r> {
    /// The notifications.
    pub(super) stale_on: &'r [EventName],
    /// The hash of the request's key, if it has one.
    pub(super) key: Option<u64>,
    /// Who wants it.
    pub(super) client: Option<&'r Client>,
}

/// When somebody was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    number: u64,
    at: Instant,
}

/// When notifications of one name came last.
#[derive(Debug, Default)]
struct Mark {
    /// Of any key.
    any: u64,
    /// Without a key, or not remembered with it.
    whole: u64,
    /// Of this key, by its hash: two keys with one hash end each other's answers, which is no harm.
    keys: HashMap<u64, u64>,
}

/// What has happened that makes answers stale.
#[derive(Debug, Default)]
pub(super) struct Staleness {
    /// How much has happened.
    number: u64,
    marks: HashMap<EventName, Mark>,
    /// How many keys there are in all of them.
    keys: usize,
    /// When notifications of other nodes may have been missed last.
    missed: u64,
    /// From when on other nodes know what is wanted here.
    settled: Option<Instant>,
    /// The lives of other nodes that cannot be reached: what they publish does not come.
    unreachable: BTreeSet<String>,
    /// Those that can, of which it is known.
    reachable: BTreeSet<String>,
    /// When clients did something last: what comes of it on another node may be answered before it is notified.
    wrote: HashMap<Client, (u64, Instant)>,
}

impl Staleness {
    /// Somebody is asked now.
    pub(super) fn asked(&self, now: Instant) -> Asked {
        Asked { number: self.number, at: now }
    }

    /// Whether an answer holds, or would hold if it came now, of somebody who was asked then.
    pub(super) fn holds(&self, rule: &Rule<'_>, asked: Asked, now: Instant) -> bool {
        if rule.stale_on.is_empty() {
            return true;
        }
        self.unreachable.is_empty()
            && self.missed <= asked.number
            && self.settled.is_none_or(|settled| settled <= asked.at)
            && rule.client.is_none_or(|client| self.last_write(client, now) <= asked.number)
            && rule.stale_on.iter().all(|name| self.last(name, rule.key).is_some_and(|last| last <= asked.number))
    }

    /// When this client did something last, if notifications of it may be under way.
    fn last_write(&self, client: &Client, now: Instant) -> u64 {
        let recent = |(_, at): &&(u64, Instant)| now.saturating_duration_since(*at) < UNDER_WAY;
        self.wrote.get(client).filter(recent).map_or(0, |(number, _)| *number)
    }

    /// Whether it matters what clients do: within one node a notification is here before its sender goes on.
    pub(super) fn needs_writes(&self) -> bool {
        let is_alone = self.reachable.is_empty() && self.unreachable.is_empty();
        !self.marks.is_empty() && !is_alone
    }

    /// A client may have changed something, and has been told so.
    pub(super) fn wrote(&mut self, client: Client, now: Instant) {
        if self.wrote.len() >= WRITERS_MAX && !self.wrote.contains_key(&client) {
            self.wrote.retain(|_, (_, at)| now.saturating_duration_since(*at) < UNDER_WAY);
        }
        let number = self.next();
        match self.wrote.len() < WRITERS_MAX || self.wrote.contains_key(&client) {
            true => drop(self.wrote.insert(client, (number, now))),
            false => self.missed = number,
        }
    }

    /// When such a notification came last; `None` when nobody listens for it.
    fn last(&self, name: &EventName, key: Option<u64>) -> Option<u64> {
        let mark = self.marks.get(name)?;
        Some(key.map_or(mark.any, |key| mark.whole.max(mark.keys.get(&key).copied().unwrap_or_default())))
    }

    /// Whether notifications of this name are listened for.
    pub(super) fn listens(&self, name: &EventName) -> bool {
        self.marks.contains_key(name)
    }

    /// Notifications of this name come from now on. Other nodes, if there are some, have to learn of it first.
    pub(super) fn listen(&mut self, name: EventName, now: Instant) {
        let number = self.next();
        self.marks.entry(name).or_insert(Mark { any: number, whole: number, keys: HashMap::new() });
        if !self.reachable.is_empty() || self.settled.is_some_and(|settled| settled > now) {
            self.settle(now);
        }
    }

    /// A notification came. Whether anybody listens for it.
    pub(super) fn came(&mut self, name: &EventName, key: Option<&str>) -> bool {
        let number = self.next();
        let Some(mark) = self.marks.get_mut(name) else { return false };
        mark.any = number;
        match key {
            None => mark.whole = number,
            Some(key) => {
                if mark.keys.insert(key_hash(key), number).is_none() {
                    self.keys += 1;
                }
            }
        }
        if self.keys > KEYS_MAX {
            self.forget_keys();
        }
        true
    }

    /// Forgets all keys, as if each had come just now.
    fn forget_keys(&mut self) {
        for mark in self.marks.values_mut().filter(|mark| !mark.keys.is_empty()) {
            (mark.whole, mark.keys) = (mark.any, HashMap::new());
        }
        self.keys = 0;
    }

    /// There may be other nodes, which have to learn what is wanted.
    pub(super) fn begin(&mut self, now: Instant) {
        self.settle(now);
    }

    /// This life of another node can be reached, as it could before.
    pub(super) fn met(&mut self, life: String) {
        self.reachable.insert(life);
    }

    /// Another life of a node can be reached: it may have published what did not come here, and may do so until it knows what
    /// is wanted.
    pub(super) fn reachable(&mut self, life: String, now: Instant) {
        self.unreachable.remove(&life);
        self.reachable.insert(life);
        self.missed = self.next();
        self.settle(now);
    }

    /// There is no way to it now.
    pub(super) fn unreachable(&mut self, life: String) {
        self.reachable.remove(&life);
        self.unreachable.insert(life);
        self.missed = self.next();
    }

    /// It is there no more.
    pub(super) fn gone(&mut self, life: &str) {
        self.reachable.remove(life);
        self.unreachable.remove(life);
        self.missed = self.next();
    }

    /// Whether something may be missed now, so that nothing is kept that notifications end.
    pub(super) fn is_cut_off(&self) -> bool {
        !self.unreachable.is_empty()
    }

    fn settle(&mut self, now: Instant) {
        // So far ahead that there is no such time is never.
        self.settled = now.checked_add(SETTLE).or(self.settled);
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> EventName {
        EventName::new(name).expect("a name")
    }

    fn hash(key: &str) -> Option<u64> {
        Some(key_hash(key))
    }

    /// One that listens for `a.changed` and `b.changed`.
    fn listening(now: Instant) -> Staleness {
        let mut staleness = Staleness::default();
        staleness.listen(name("a.changed"), now);
        staleness.listen(name("b.changed"), now);
        staleness
    }

    #[test]
    fn a_notification_ends_what_was_asked_before_it_and_nothing_else() {
        let now = Instant::now();
        let mut staleness = listening(now);
        let (a, b) = (&[name("a.changed")][..], &[name("b.changed")][..]);
        let rule = |stale_on, key| Rule { stale_on, key, client: None };
        let before = staleness.asked(now);
        assert!(staleness.came(&a[0], Some("1")));
        let after = staleness.asked(now);
        assert!(!staleness.holds(&rule(a, hash("1")), before, now), "the same key");
        assert!(!staleness.holds(&rule(a, None), before, now), "a list has no key");
        assert!(staleness.holds(&rule(a, hash("2")), before, now), "another key");
        assert!(staleness.holds(&rule(b, hash("1")), before, now), "another event");
        assert!(staleness.holds(&rule(&[], None), before, now), "nothing ends it");
        assert!(staleness.holds(&rule(a, hash("1")), after, now) && staleness.holds(&rule(a, None), after, now));
        assert!(staleness.came(&a[0], None));
        assert!(!staleness.holds(&rule(a, hash("2")), after, now), "without a key it ends all");
        assert!(!staleness.came(&name("c.changed"), None), "nobody listens for it");
    }

    #[test]
    fn what_nobody_listened_for_may_have_been() {
        let now = Instant::now();
        let mut staleness = listening(now);
        let (c, asked) = ([name("c.changed")], staleness.asked(now));
        let rule = Rule { stale_on: &c, key: None, client: None };
        assert!(!staleness.holds(&rule, asked, now));
        staleness.listen(c[0].clone(), now);
        assert!(!staleness.holds(&rule, asked, now), "asked before");
        assert!(staleness.holds(&rule, staleness.asked(now), now), "no other node has to learn of it");
    }

    #[test]
    fn while_a_node_is_out_of_reach_and_until_all_know_what_is_wanted_nothing_holds() {
        let start = Instant::now();
        let (now, mut staleness) = (start, listening(start));
        let a = [name("a.changed")];
        let rule = Rule { stale_on: &a, key: None, client: None };
        let holds = |staleness: &Staleness, at| staleness.holds(&rule, staleness.asked(at), at);
        staleness.reachable("n1".to_owned(), start);
        assert!(!holds(&staleness, start));
        let settled = start + SETTLE;
        assert!(holds(&staleness, settled));
        let asked = staleness.asked(settled);
        staleness.unreachable("n1".to_owned());
        assert!(!staleness.holds(&rule, asked, now) && !holds(&staleness, settled) && staleness.is_cut_off());
        assert!(staleness.holds(&Rule { stale_on: &[], key: None, client: None }, asked, now), "it ends by time only");
        staleness.reachable("n1".to_owned(), settled);
        assert!(!staleness.holds(&rule, asked, now) && !holds(&staleness, settled));
        assert!(holds(&staleness, settled + SETTLE));
        staleness.unreachable("n1".to_owned());
        let cut = staleness.asked(settled + SETTLE);
        staleness.gone("n1");
        assert!(!staleness.holds(&rule, cut, now), "asked while it was out of reach");
        assert!(holds(&staleness, settled + SETTLE));
    }

    #[test]
    fn keys_beyond_the_limit_are_forgotten_and_then_end_everything() {
        let now = Instant::now();
        let mut staleness = listening(now);
        let a = [name("a.changed")];
        let asked = staleness.asked(now);
        for key in 0..KEYS_MAX {
            staleness.came(&a[0], Some(&key.to_string()));
        }
        let rule = Rule { stale_on: &a, key: hash("x"), client: None };
        assert!(staleness.holds(&rule, asked, now));
        staleness.came(&a[0], Some("one more"));
        assert!(!staleness.holds(&rule, asked, now) && staleness.holds(&rule, staleness.asked(now), now));
        assert_eq!((staleness.keys, staleness.marks[&a[0]].keys.len()), (0, 0));
    }

    #[test]
    fn a_client_sees_what_it_has_changed_itself_before_that_is_notified() {
        let now = Instant::now();
        let mut staleness = listening(now);
        let a = [name("a.changed")];
        let client = |number: u32| Client::Address(std::net::Ipv4Addr::from(number).into());
        let (zero, one, other) = (client(0), client(1), client(2));
        let by = |client| Rule { stale_on: &a, key: None, client: Some(client) };
        assert!(!staleness.needs_writes(), "there is no other node");
        staleness.met("n1".to_owned());
        assert!(staleness.needs_writes());
        let asked = staleness.asked(now);
        staleness.wrote(one.clone(), now);
        assert!(!staleness.holds(&by(&one), asked, now) && staleness.holds(&by(&other), asked, now));
        assert!(staleness.holds(&by(&one), staleness.asked(now), now), "asked since");
        assert!(staleness.holds(&by(&one), asked, now + UNDER_WAY));
        for number in 0..u32::try_from(WRITERS_MAX).expect("few") {
            staleness.wrote(client(number + 1), now);
        }
        assert!(staleness.holds(&by(&zero), asked, now));
        staleness.wrote(zero.clone(), now);
        assert!(!staleness.holds(&by(&other), asked, now), "it is not known who has done something");
        assert_eq!(staleness.wrote.len(), WRITERS_MAX);
        staleness.wrote(zero.clone(), now + UNDER_WAY);
        assert_eq!(staleness.wrote.len(), 1, "the others have done so long ago");
    }
}
