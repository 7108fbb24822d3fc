//! What a durable namespace did lately, as its file has it.
//!
//! ```text
//! table journal:<ns>   number, 16 hexadecimal digits ─▶ checksum 8, length 4, answers as in `answers.rs`, changes
//! change               length 4, key, length 4, record of its entry; or length 4, key, `REMOVED` 4, version 8
//! ```
//!
//! A transaction is one record, because what it costs are the pages that it touches: among the entries that are about as many as there
//! are changes. Once the journal is long its records are folded: each key's last is put among the entries, all answers become one
//! record, and the journal begins anew. Numbers go on, so that no record of an older journal can be taken for one of this.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::answers;
use crate::file::{checksum, read_count, read_entry, write_entry};
use crate::limits::{JOURNAL_BYTES_MAX, JOURNAL_CHANGES_MAX};
use crate::model::{Effects, Entry, Remembered};
use crate::raw::Writer;

/// In place of the length of a record: the key has no item any more.
const REMOVED: u32 = u32::MAX;

/// A change of a key: what it has since this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) key: Arc<str>,
    pub(crate) version: u64,
    pub(crate) entry: Option<Entry>,
}

/// The record of what a transaction does, in the order in which it was done.
pub(crate) fn write<'a>(row: &str, effects: impl Iterator<Item = &'a Effects> + Clone) -> Vec<u8> {
    let mut out = Writer(vec![0; 12]);
    answers::write_list(&mut out, effects.clone().filter_map(|effects| effects.remembered.as_ref()));
    let Writer(mut record) = out;
    let answers = length(record.len() - 12);
    record[8..12].copy_from_slice(&answers.to_le_bytes());
    for change in effects.flat_map(|effects| &effects.changes) {
        record.extend(length(change.key.len()).to_le_bytes());
        record.extend(change.key.as_bytes());
        match &change.after {
            Some(entry) => {
                let entry = write_entry(&change.key, entry);
                record.extend(length(entry.len()).to_le_bytes());
                record.extend(entry);
            }
            None => {
                record.extend(REMOVED.to_le_bytes());
                record.extend(change.version.to_le_bytes());
            }
        }
    }
    let sum = checksum(&[row.as_bytes(), &record[8..]]);
    record[..8].copy_from_slice(&sum.to_le_bytes());
    record
}

/// Of what is far below 4 GiB: a transaction, a key, a value.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(REMOVED)
}

/// Reads what [`write`] wrote; `None` when it did not.
pub(crate) fn read(row: &str, record: &[u8]) -> Option<(Vec<Remembered>, Vec<Noted>)> {
    answers::number(row)?;
    let (sum, rest) = record.split_at_checked(8)?;
    if read_count(sum)? != checksum(&[row.as_bytes(), rest]) {
        return None;
    }
    let (answers, mut rest) = split(rest)?;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        changes.push(take_change(&mut rest)?.ok()?);
    }
    Some((answers::read_list(answers)?, changes))
}

/// The changes of a record that are whole although it is not.
pub(crate) fn salvage(record: &[u8]) -> Vec<Noted> {
    let Some((_, mut rest)) = record.get(8..).and_then(split) else { return Vec::new() };
    // Without a checksum of its own nobody knows whether something was removed.
    std::iter::from_fn(|| take_change(&mut rest)).flatten().filter(|change| change.entry.is_some()).collect()
}

/// The answers and the changes.
fn split(mut rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let answers = take_length(&mut rest)?;
    rest.split_at_checked(answers as usize)
}

fn take_length(bytes: &mut &[u8]) -> Option<u32> {
    let (length, rest) = bytes.split_at_checked(4)?;
    *bytes = rest;
    Some(u32::from_le_bytes(length.try_into().ok()?))
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// A change that is not what it should be, though it is known where it ends.
struct Wrong;

/// Takes a change off the front; `None` where none can be found.
fn take_change(bytes: &mut &[u8]) -> Option<Result<Noted, Wrong>> {
    let key = take_length(bytes)?;
    let key = take(bytes, key as usize)?;
    let entry = match take_length(bytes)? {
        REMOVED => Err(read_count(take(bytes, 8)?)?),
        length => Ok(take(bytes, length as usize)?),
    };
    let read = || {
        let key = std::str::from_utf8(key).ok()?;
        let (version, entry) = match entry {
            Ok(record) => read_entry(key, record).map(|entry| (entry.version, Some(entry)))?,
            Err(version) => (version, None),
        };
        Some(Noted { key: key.into(), version, entry })
    };
    Some(read().ok_or(Wrong))
}

/// What the journal of a namespace has.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// The number of the first record.
    first: u64,
    /// How many records there are.
    records: u64,
    /// What to fold.
    unfolded: Unfolded,
    changes: usize,
    bytes: usize,
}

/// What is in the journal and not yet among the entries and answers.
#[derive(Debug, Default)]
pub(crate) struct Unfolded {
    /// What each key has in the end, in the order of keys, because so neighbours are written together.
    pub(crate) entries: BTreeMap<Arc<str>, Option<Entry>>,
    pub(crate) answers: Vec<Remembered>,
    /// The last version, if there is anything.
    pub(crate) version: Option<u64>,
}

impl Journal {
    /// One that begins at this number.
    pub(crate) fn from(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// The number of the next record.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.records
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Takes note of what a transaction does.
    pub(crate) fn note(&mut self, effects: &Effects) {
        for change in &effects.changes {
            self.note_change(&change.key, change.version, change.after.as_ref());
        }
        self.unfolded.answers.extend(effects.remembered.clone());
    }

    /// Takes note of a change.
    pub(crate) fn note_change(&mut self, key: &Arc<str>, version: u64, entry: Option<&Entry>) {
        self.changes += 1;
        self.bytes += key.len() + entry.map_or(0, |entry| entry.value.len());
        self.unfolded.entries.insert(Arc::clone(key), entry.cloned());
        self.unfolded.version = Some(version);
    }

    /// Takes note of answers.
    pub(crate) fn note_answers(&mut self, answers: &[Remembered]) {
        self.unfolded.answers.extend_from_slice(answers);
    }

    /// Takes note that there is a record more.
    pub(crate) fn recorded(&mut self) {
        self.records += 1;
    }

    /// Whether it is to be folded.
    pub(crate) fn is_full(&self) -> bool {
        self.changes >= JOURNAL_CHANGES_MAX || self.bytes >= JOURNAL_BYTES_MAX
    }

    /// Begins anew; what is to be folded.
    pub(crate) fn fold(&mut self) -> Unfolded {
        let next = Self::from(self.next());
        std::mem::replace(self, next).unfolded
    }
}

#[cfg(test)]
mod tests;
