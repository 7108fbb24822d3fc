//! The model against a naive one: a map, gone through from end to end for everything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A namespace as one would describe it.
#[derive(Debug, Clone, Default)]
struct Naive {
    items: BTreeMap<String, (Bytes, u64, Option<u64>)>,
    answers: BTreeMap<String, Answer>,
}

impl Naive {
    fn living(&self, now: u64, key: &str) -> Option<&(Bytes, u64, Option<u64>)> {
        self.items.get(key).filter(|item| item.2.is_none_or(|at| at > now))
    }

    fn holds(&self, now: u64, key: &str, only: &If) -> bool {
        let item = self.living(now, key);
        match only {
            If::Always => true,
            If::Absent => item.is_none(),
            If::Version(version) => item.is_some_and(|item| item.1 == *version),
            If::Value(value) => item.is_some_and(|item| item.0 == *value),
        }
    }

    /// What of a key is visible, without the version.
    fn put(&mut self, now: u64, key: &str, value: Bytes, expires_at: Option<u64>) {
        let _ = now;
        self.items.insert(key.to_owned(), (value, 0, expires_at));
    }

    fn apply(&mut self, now: u64, command: &Command) -> Option<()> {
        match command {
            Command::Set { key, value, expires_in, only } => {
                if !self.holds(now, key, only) {
                    return None;
                }
                self.put(now, key, value.clone(), expires_in.map(|time| now + time));
            }
            Command::Delete { key, only } => {
                if !self.holds(now, key, only) {
                    return None;
                }
                self.items.remove(&**key);
            }
            Command::Increment { key, by, expires_in } => {
                let (old, expires_at) = match self.living(now, key) {
                    Some(item) => (raw::read_integer(&item.0).ok()?, item.2),
                    None => (0, expires_in.map(|time| now + time)),
                };
                self.put(now, key, raw::integer(old.checked_add(*by)?), expires_at);
            }
            Command::Append { key, value, expires_in } => {
                let (old, expires_at) = match self.living(now, key) {
                    Some(item) => (item.0.clone(), item.2),
                    None => (raw::empty_list(), expires_in.map(|time| now + time)),
                };
                self.put(now, key, raw::append(&old, value).ok()?.0, expires_at);
            }
            Command::Transact { conditions, operations } => {
                let before = self.clone();
                let hold = conditions.iter().all(|(key, only)| self.holds(now, key, only));
                let done = hold && operations.iter().all(|operation| self.apply(now, operation).is_some());
                if !done {
                    *self = before;
                    return None;
                }
            }
        }
        Some(())
    }
}

fn key() -> impl Strategy<Value = Arc<str>> {
    (0..6_u8).prop_map(|number| format!("k{number}").into())
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (0..4_i64).prop_map(raw::integer),
        Just(raw::integer(i64::MAX)),
        Just(raw::empty_list()),
        Just(Bytes::from_static(b"\xa1x")),
    ]
}

fn only() -> impl Strategy<Value = If> {
    prop_oneof![
        4 => Just(If::Always),
        1 => Just(If::Absent),
        1 => (0..30_u64).prop_map(If::Version),
        1 => value().prop_map(If::Value),
    ]
}

fn expires_in() -> impl Strategy<Value = Option<u64>> {
    proptest::option::of(1..40_u64)
}

fn simple(only: impl Strategy<Value = If> + Clone) -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (key(), value(), expires_in(), only.clone())
            .prop_map(|(key, value, expires_in, only)| Command::Set { key, value, expires_in, only }),
        1 => (key(), only).prop_map(|(key, only)| Command::Delete { key, only }),
        1 => (key(), -3..3_i64, expires_in()).prop_map(|(key, by, expires_in)| Command::Increment { key, by, expires_in }),
        1 => (key(), value(), expires_in()).prop_map(|(key, value, expires_in)| Command::Append { key, value, expires_in }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let conditions = proptest::collection::vec((key(), only()), 0..2);
    // The naive one does not know the versions that a transaction itself gives.
    let known = || prop_oneof![4 => Just(If::Always), 1 => Just(If::Absent), 1 => value().prop_map(If::Value)];
    prop_oneof![
        5 => simple(prop_oneof![2 => only(), 1 => known()].boxed()),
        1 => (conditions, proptest::collection::vec(simple(known().boxed()), 0..5))
            .prop_map(|(conditions, operations)| Command::Transact { conditions, operations }),
    ]
}

/// What all indexes say has to be what the entries say.
fn consistent(model: &Model) {
    let bytes: u64 = model.entries.iter().map(|(key, entry)| size(key, entry.value.len())).sum();
    assert_eq!(model.bytes(), bytes);
    let expiring: BTreeSet<_> =
        model.entries.iter().filter_map(|(key, entry)| Some((entry.expires_at?, Arc::clone(key)))).collect();
    assert_eq!(model.expiring, expiring);
    if model.bounds.eviction == Eviction::LeastRecentlyUsed {
        let used: BTreeMap<_, _> = model.entries.iter().map(|(key, entry)| (entry.used, Arc::clone(key))).collect();
        assert_eq!(model.used, used);
    }
    assert_eq!(model.answered.len(), model.answered_at.len());
}

fn contents(model: &Model) -> BTreeMap<Arc<str>, (Bytes, u64, Option<u64>)> {
    let plain = |entry: &Entry| (entry.value.clone(), entry.version, entry.expires_at);
    model.entries.iter().map(|(key, entry)| (Arc::clone(key), plain(entry))).collect()
}

proptest! {
    #[test]
    fn a_namespace_is_what_a_naive_one_would_be(
        steps in proptest::collection::vec((command(), 0..20_u64, any::<bool>(), 0..12_u8), 1..60),
    ) {
        let (mut model, mut naive, mut now) = (Model::default(), Naive::default(), 1000);
        let mut replayed: BTreeMap<Arc<str>, (Bytes, u64, Option<u64>)> = BTreeMap::new();
        for (command, time, sweeps, id) in steps {
            now += time;
            let (before, version) = (contents(&model), model.version());
            let id = format!("r{id}");
            let repeated = naive.answers.get(&id).cloned();
            let (answer, effects) = model.apply(now, Some(&id), &command);
            if let Some(first) = repeated {
                prop_assert_eq!(&answer, &Ok(first), "answered as the first time");
                prop_assert!(effects.changes.is_empty());
            } else {
                prop_assert_eq!(naive.apply(now, &command).is_some(), answer.is_ok(), "{:?}", &answer);
                if answer.is_err() {
                    prop_assert_eq!(contents(&model), before);
                } else if effects.remembered.is_some() {
                    naive.answers.insert(id, answer.clone().expect("is one"));
                }
            }
            let mut changes = effects.changes.clone();
            if sweeps {
                changes.extend(model.sweep(now).changes);
                prop_assert!(model.next_expiry().is_none_or(|at| at > now), "nothing expired stays");
            }
            let mut last = version;
            for change in &changes {
                prop_assert!(change.version > last, "versions grow");
                last = change.version;
                prop_assert_eq!(change.what == What::Set, change.after.is_some());
                let plain = |entry: &Entry| (entry.value.clone(), entry.version, entry.expires_at);
                prop_assert_eq!(replayed.get(&change.key).cloned(), change.before.as_ref().map(plain));
                match &change.after {
                    Some(entry) => replayed.insert(Arc::clone(&change.key), plain(entry)),
                    None => replayed.remove(&change.key),
                };
            }
            prop_assert_eq!(&replayed, &contents(&model), "the changes are all there is");
            for number in 0..6 {
                let key = format!("k{number}");
                let ours = model.living(now, &key).map(|entry| (entry.value.clone(), entry.expires_at));
                let theirs = naive.living(now, &key).map(|item| (item.0.clone(), item.2));
                prop_assert_eq!(ours, theirs, "{}", key);
                // The naive one takes the versions over, for later conditions.
                if let Some((_, entry)) = model.item(&key) && let Some(item) = naive.items.get_mut(&key) {
                    item.1 = entry.version;
                }
            }
            consistent(&model);
        }
    }

    #[test]
    fn what_is_taken_back_was_never_there(
        before in proptest::collection::vec(command(), 0..20),
        after in proptest::collection::vec((command(), 0..20_u64), 0..20),
    ) {
        let bounds = Bounds { keys_max: 4, bytes_max: 40, eviction: Eviction::LeastRecentlyUsed };
        let (mut model, mut now) = (Model::new(bounds), 1000);
        for command in &before {
            let _ = model.apply(now, None, command);
        }
        let (expect, version) = (contents(&model), model.version());
        let mut changes = Vec::new();
        for (command, time) in &after {
            now += time;
            changes.extend(model.apply(now, None, command).1.changes);
        }
        model.take_back(changes);
        prop_assert_eq!(contents(&model), expect);
        prop_assert!(model.version() >= version);
        consistent(&model);
    }

    #[test]
    fn bounds_hold_and_only_what_may_makes_room(
        steps in proptest::collection::vec((command(), 0..20_u64), 1..60),
        eviction in prop_oneof![
            Just(Eviction::Reject), Just(Eviction::LeastRecentlyUsed), Just(Eviction::SoonestToExpire)
        ],
        keys_max in 1..5_usize,
        bytes_max in 4..30_u64,
    ) {
        let (mut model, mut now) = (Model::new(Bounds { keys_max, bytes_max, eviction }), 1000);
        for (command, time) in steps {
            now += time;
            let before = contents(&model);
            let (answer, effects) = model.apply(now, None, &command);
            prop_assert!(model.len() <= keys_max && model.bytes() <= bytes_max);
            for change in effects.changes.iter().filter(|change| change.what == What::Evicted) {
                let evicted = change.before.as_ref().expect("was there");
                prop_assert!(eviction != Eviction::Reject);
                prop_assert!(eviction != Eviction::SoonestToExpire || evicted.expires_at.is_some());
                prop_assert!(!evicted.is_over(now), "what has expired goes first, and as expired");
            }
            if answer.is_err() {
                prop_assert_eq!(contents(&model), before);
            }
            consistent(&model);
        }
    }
}

#[test]
fn an_answer_is_remembered_for_its_time_and_not_longer() {
    let mut model = Model::default();
    let increment = Command::Increment { key: "n".into(), by: 1, expires_in: None };
    let mut sum = |now, id: &str| match model.apply(now, Some(id), &increment).0 {
        Ok(Answer::Incremented { value, .. }) => value,
        other => panic!("{other:?}"),
    };
    let window = milliseconds(REMEMBERED_FOR);
    assert_eq!((sum(0, "a"), sum(1, "a"), sum(window - 1, "a")), (1, 1, 1));
    assert_eq!(sum(window, "a"), 2);
    for number in 0..REMEMBERED_MAX {
        sum(window, &number.to_string());
    }
    assert_eq!(model.answered.len(), REMEMBERED_MAX);
}
