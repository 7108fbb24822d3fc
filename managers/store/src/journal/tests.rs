use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::answers::row;
use crate::model::{Bounds, Command, If, Model};

fn set(key: &str, value: &'static [u8]) -> Command {
    Command::Set { key: key.into(), value: Bytes::from_static(value), expires_in: None, only: If::Always }
}

/// What a model did, one after the other.
fn effects(commands: &[Command]) -> Vec<Effects> {
    let mut model = Model::new(Bounds::default());
    (1..).zip(commands).map(|(number, command)| model.apply(number, Some(&format!("r{number}")), command).1).collect()
}

/// Two keys written, one of them removed and written twice, and something done at once.
fn some() -> Vec<Effects> {
    effects(&[
        set("a", &[1]),
        set("b", &[2]),
        Command::Delete { key: "a".into(), only: If::Always },
        Command::Transact { conditions: vec![], operations: vec![set("c", &[3]), set("b", &[4])] },
    ])
}

#[test]
fn a_record_is_what_was_written_under_its_number_and_nothing_else() {
    let effects = some();
    let record = write(&row(5), effects.iter());
    let (answers, changes) = read(&row(5), &record).expect("is whole");
    assert_eq!(answers.iter().collect::<Vec<_>>(), effects.iter().flat_map(|e| &e.remembered).collect::<Vec<_>>());
    let expect: Vec<_> = effects.iter().flat_map(|effects| &effects.changes).collect();
    assert_eq!(changes.len(), 5);
    for (change, expect) in changes.iter().zip(expect) {
        assert_eq!((&change.key, change.version, &change.entry), (&expect.key, expect.version, &expect.after));
    }
    assert_eq!(read(&row(6), &record), None);
    assert_eq!(read("r5", &record), None);
    for at in 0..record.len() {
        let mut other = record.clone();
        other[at] ^= 1;
        assert_eq!(read(&row(5), &other), None, "byte {at}");
        assert_eq!(read(&row(5), &record[..at]), None, "to byte {at}");
    }
}

#[test]
fn of_a_record_that_is_not_whole_every_item_that_is_can_be_saved() {
    let effects = some();
    let record = write(&row(5), effects.iter());
    let all = salvage(&record);
    assert_eq!(all.iter().map(|change| &*change.key).collect::<Vec<_>>(), ["a", "b", "c", "b"]);
    for at in 0..record.len() {
        let mut other = record.clone();
        other[at] ^= 1;
        assert!(salvage(&other).iter().all(|change| all.contains(change)), "byte {at}");
    }
    let mut other = record.clone();
    *other.last_mut().expect("is long") ^= 1;
    assert_eq!(salvage(&other), all[..3]);
}

#[test]
fn what_is_folded_is_the_last_of_each_key_and_numbers_go_on() {
    let mut journal = Journal::from(7);
    for effects in some() {
        journal.note(&effects);
        journal.recorded();
    }
    assert_eq!((journal.next(), journal.records(), journal.is_full()), (11, 4, false));
    let Unfolded { entries, answers, version } = journal.fold();
    let entries: Vec<_> =
        entries.iter().map(|(key, entry)| (&**key, entry.as_ref().map(|entry| entry.version))).collect();
    assert_eq!(entries, [("a", None), ("b", Some(5)), ("c", Some(4))]);
    assert_eq!((answers.len(), version), (4, Some(5)));
    assert_eq!((journal.next(), journal.records()), (11, 0));
    assert!(journal.fold().entries.is_empty());
}

#[test]
fn it_is_full_by_changes_or_by_bytes() {
    let mut journal = Journal::default();
    let key: Arc<str> = "key".into();
    for version in 1..JOURNAL_CHANGES_MAX as u64 {
        journal.note_change(&key, version, None);
        assert!(!journal.is_full());
    }
    journal.note_change(&key, JOURNAL_CHANGES_MAX as u64, None);
    assert!(journal.is_full());
    let mut journal = Journal::default();
    journal.note_change(&key, 1, Some(&Entry::new(vec![0; JOURNAL_BYTES_MAX].into(), 1, None)));
    assert!(journal.is_full());
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(read(&row(0), &bytes), None);
        let _ = salvage(&bytes);
    }
}
