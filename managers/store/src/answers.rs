//! The answers that a durable store remembers, as its file has them.
//!
//! ```text
//! table answers:<ns>   number, 16 hexadecimal digits ─▶ checksum 8, list of: id of a request, answered at, answer
//! ```
//!
//! They come here from the journal (`journal.rs`), all that it has as one record, because a record for each costs the engine as much as
//! the items do. Numbers grow. A record is forgotten as a whole, once none of its answers is to be remembered any more.

use std::collections::VecDeque;

use crate::ask;
use crate::event::milliseconds;
use crate::file::{checksum, read_count};
use crate::limits::{REMEMBERED_FOR, REMEMBERED_MAX};
use crate::model::Remembered;
use crate::raw::{self, Writer};

/// The key of a record.
pub(crate) fn row(number: u64) -> String {
    format!("{number:016x}")
}

/// The number of a record, if `row` is the key of one.
pub(crate) fn number(row: &str) -> Option<u64> {
    u64::from_str_radix(row, 16).ok().filter(|number| self::row(*number) == row)
}

/// The record of these answers, which are in the order in which they were given.
pub(crate) fn write(row: &str, answers: &[Remembered]) -> Vec<u8> {
    let mut out = Writer(vec![0; 8]);
    write_list(&mut out, answers.iter());
    let Writer(mut record) = out;
    let sum = checksum(&[row.as_bytes(), &record[8..]]);
    record[..8].copy_from_slice(&sum.to_le_bytes());
    record
}

/// Writes answers as a list.
pub(crate) fn write_list<'a>(out: &mut Writer, answers: impl Iterator<Item = &'a Remembered> + Clone) {
    out.list(3 * answers.clone().count());
    for answer in answers {
        out.text(&answer.id);
        out.count(answer.at);
        ask::write_answer(out, &answer.answer);
    }
}

/// Reads what [`write`] wrote; `None` when it did not.
pub(crate) fn read(row: &str, record: &[u8]) -> Option<Vec<Remembered>> {
    number(row)?;
    let (sum, list) = record.split_at_checked(8)?;
    if read_count(sum)? != checksum(&[row.as_bytes(), list]) {
        return None;
    }
    read_list(list)
}

/// Reads what [`write_list`] wrote; `None` when it did not.
pub(crate) fn read_list(list: &[u8]) -> Option<Vec<Remembered>> {
    let parts = raw::elements(list).ok()?;
    let read = |answer: &[&[u8]]| match answer {
        [id, at, answer] => {
            let (id, at) = (raw::text(id)?.into(), raw::read_count(at).ok()?);
            Some(Remembered { id, at, answer: ask::read_answer(answer)? })
        }
        _ => None,
    };
    parts.chunks(3).map(read).collect()
}

/// What the table of a namespace has.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: VecDeque<Record>,
    /// How many answers all records have together.
    answers: usize,
    /// The number of the next record.
    next: u64,
}

#[derive(Debug)]
struct Record {
    number: u64,
    answers: usize,
    /// When the last of them was given.
    latest: u64,
}

impl Ledger {
    /// The number of the next record.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes note of a record. They are added in the order of their numbers.
    pub(crate) fn add(&mut self, number: u64, given_at: impl Iterator<Item = u64>) {
        let (answers, latest) = given_at.fold((0, 0), |(count, latest), at| (count + 1, latest.max(at)));
        self.records.push_back(Record { number, answers, latest });
        self.answers += answers;
        self.next = number + 1;
    }

    /// Takes out the first record if none of its answers is to be remembered any more; its number.
    pub(crate) fn forget(&mut self, now: u64) -> Option<u64> {
        let first = self.records.front()?;
        let is_old = first.latest.saturating_add(milliseconds(REMEMBERED_FOR)) <= now;
        let enough_follow = self.answers - first.answers >= REMEMBERED_MAX;
        if !is_old && !enough_follow {
            return None;
        }
        self.answers -= first.answers;
        self.records.pop_front().map(|first| first.number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Answer;

    #[test]
    fn a_record_is_what_was_written_under_its_number_and_nothing_else() {
        let kinds = [
            Answer::Written { version: 300 },
            Answer::Deleted { existed: true },
            Answer::Incremented { value: -5, version: 1 },
            Answer::Appended { length: 2, version: 9 },
            Answer::Transacted(vec![Answer::Written { version: 7 }, Answer::Deleted { existed: false }]),
        ];
        let answers: Vec<_> = (0..70_u64)
            .map(|n| Remembered { id: format!("r{n}").into(), at: n * n * 1000, answer: kinds[n as usize % 5].clone() })
            .collect();
        for count in [0, 1, 5, 6, 70] {
            let record = write(&row(77), &answers[..count]);
            assert_eq!(read(&row(77), &record).as_deref(), Some(&answers[..count]));
            assert_eq!(read(&row(78), &record), None);
            assert_eq!(read("r77", &record), None);
            for at in 0..record.len() {
                let mut other = record.clone();
                other[at] ^= 1;
                assert_eq!(read(&row(77), &other), None, "byte {at}");
                assert_eq!(read(&row(77), &record[..at]), None, "to byte {at}");
            }
        }
        assert_eq!((number(&row(u64::MAX)), number("1"), number("+00000000000000f")), (Some(u64::MAX), None, None));
    }

    proptest! {
        #[test]
        fn what_is_to_be_remembered_is_kept_and_not_much_more(
            records in proptest::collection::vec((1..4000_usize, 0..60_000_u64), 1..80),
        ) {
            let (mut ledger, mut all, mut now) = (Ledger::default(), Vec::new(), 0);
            for (count, time) in records {
                now += time;
                let number = ledger.next();
                ledger.add(number, std::iter::repeat_n(now, count));
                all.push((number, now, count));
                while ledger.forget(now).is_some() {}
                let (mut newer, mut kept) = (0, Vec::new());
                for (number, at, count) in all.iter().rev() {
                    if newer < REMEMBERED_MAX && at + milliseconds(REMEMBERED_FOR) > now {
                        kept.push(*number);
                    }
                    newer += count;
                }
                kept.reverse();
                let ours: Vec<_> = ledger.records.iter().map(|record| record.number).collect();
                prop_assert_eq!(ours, kept);
                prop_assert!(ledger.answers < REMEMBERED_MAX + 4000);
            }
        }
    }
}
