//! What a namespace holds and what a command does to it. Pure: the time comes in, the changes go out.
//!
//! ```text
//! entries   key ─▶ value, version, when it expires
//! expiring  (when, key)                soonest first
//! used      (tick, key)                longest unused first; kept only where that decides who makes room
//! answered  id of a request ─▶ answer  so that a request that is sent again is not done again
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::event::{What, milliseconds};
use crate::limits::{BYTES_MAX_DEFAULT, KEYS_MAX_DEFAULT, REMEMBERED_FOR, REMEMBERED_MAX, VALUE_BYTES_MAX};
use crate::raw;

/// Who makes room when a namespace is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eviction {
    /// Nobody: what would not fit is refused with `full`.
    #[default]
    Reject,
    /// The item that was not read or written for longest.
    LeastRecentlyUsed,
    /// The item that expires first; what never expires stays.
    SoonestToExpire,
}

/// The bounds of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) keys_max: usize,
    /// Of keys and values together.
    pub(crate) bytes_max: u64,
    pub(crate) eviction: Eviction,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { keys_max: KEYS_MAX_DEFAULT, bytes_max: BYTES_MAX_DEFAULT, eviction: Eviction::Reject }
    }
}

/// A value in its place. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: Bytes,
    pub(crate) version: u64,
    pub(crate) expires_at: Option<u64>,
    /// When it was used, in ticks of the model.
    used: u64,
}

impl Entry {
    pub(crate) fn new(value: Bytes, version: u64, expires_at: Option<u64>) -> Self {
        Self { value, version, expires_at, used: 0 }
    }

    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// What has to be true of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum If {
    Always,
    Absent,
    Version(u64),
    Value(Bytes),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Set { key: Arc<str>, value: Bytes, expires_in: Option<u64>, only: If },
    Delete { key: Arc<str>, only: If },
    Increment { key: Arc<str>, by: i64, expires_in: Option<u64> },
    Append { key: Arc<str>, value: Bytes, expires_in: Option<u64> },
    Transact { conditions: Vec<(Arc<str>, If)>, operations: Vec<Command> },
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Written { version: u64 },
    Deleted { existed: bool },
    Incremented { value: i64, version: u64 },
    Appended { length: u64, version: u64 },
    Transacted(Vec<Answer>),
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("`{key}` is there already, with version {version}")]
    Exists { key: Arc<str>, version: u64 },
    #[error("`{key}` {}, not version {wanted}", at_version(*found))]
    Version { key: Arc<str>, wanted: u64, found: Option<u64> },
    #[error("`{key}` {}, and not the value expected", at_version(*found))]
    Value { key: Arc<str>, found: Option<u64> },
    #[error("condition {number}: {because}")]
    Condition { number: usize, because: Box<Refusal> },
    #[error("operation {number}: {because}")]
    Operation { number: usize, because: Box<Refusal> },
    #[error("`{key}` holds {found}, not {wanted}")]
    Type { key: Arc<str>, wanted: &'static str, found: &'static str },
    #[error("`{key}` plus {by} is beyond 64 bits")]
    Overflow { key: Arc<str>, by: i64 },
    #[error("the value of `{key}` would have {bytes} bytes: it has {VALUE_BYTES_MAX} at most")]
    Long { key: Arc<str>, bytes: usize },
    #[error(
        "the namespace is full ({keys} keys, {bytes} bytes) and nothing may make room: delete something, or raise its \
         limits or choose an eviction where the store is made"
    )]
    Full { keys: usize, bytes: u64 },
}

fn at_version(found: Option<u64>) -> String {
    found.map_or_else(|| "is not there".to_owned(), |version| format!("has version {version}"))
}

impl Refusal {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "exists",
            Self::Version { .. } => "version_mismatch",
            Self::Value { .. } => "value_mismatch",
            Self::Condition { .. } => "condition_failed",
            Self::Operation { because, .. } => because.code(),
            Self::Type { .. } => "wrong_type",
            Self::Overflow { .. } => "overflow",
            Self::Long { .. } => "value_too_long",
            Self::Full { .. } => "full",
        }
    }
}

/// One change of one key, with what was before, so that it can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: Arc<str>,
    pub(crate) what: What,
    pub(crate) version: u64,
    pub(crate) before: Option<Entry>,
    pub(crate) after: Option<Entry>,
}

/// An answer that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) id: Arc<str>,
    pub(crate) at: u64,
    pub(crate) answer: Answer,
}

/// What came of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// In the order of their versions.
    pub(crate) changes: Vec<Change>,
    pub(crate) remembered: Option<Remembered>,
}

impl Effects {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.remembered.is_none()
    }
}

/// The most keys that one sweep takes out.
const SWEEP_MAX: usize = 1024;

/// A namespace's content.
#[derive(Debug, Default)]
pub(crate) struct Model {
    bounds: Bounds,
    entries: BTreeMap<Arc<str>, Entry>,
    bytes: u64,
    version: u64,
    expiring: BTreeSet<(u64, Arc<str>)>,
    used: BTreeMap<u64, Arc<str>>,
    tick: u64,
    answered: HashMap<Arc<str>, Answer>,
    answered_at: VecDeque<(u64, Arc<str>)>,
}

impl Model {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    // ---- what was kept ---------------------------------------------------------------------------------------------

    /// Puts back what was kept.
    pub(crate) fn restore(&mut self, key: Arc<str>, entry: Entry) {
        self.version = self.version.max(entry.version);
        self.put(&key, Some(entry));
    }

    /// Puts back that a key was removed.
    pub(crate) fn restore_removed(&mut self, key: &Arc<str>, version: u64) {
        self.version = self.version.max(version);
        self.put(key, None);
    }

    /// Puts back what was answered, the oldest first.
    pub(crate) fn restore_answer(&mut self, remembered: Remembered) {
        self.answered_at.push_back((remembered.at, Arc::clone(&remembered.id)));
        self.answered.insert(remembered.id, remembered.answer);
    }

    /// Versions go on from here at least.
    pub(crate) fn restore_version(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    // ---- looking ---------------------------------------------------------------------------------------------------

    pub(crate) fn item(&self, key: &str) -> Option<(&Arc<str>, &Entry)> {
        self.entries.get_key_value(key)
    }

    /// Says that the item is of use to somebody.
    pub(crate) fn touch(&mut self, key: &str) {
        if self.bounds.eviction != Eviction::LeastRecentlyUsed {
            return;
        }
        if let Some((key, entry)) = self.entries.get_key_value(key) {
            let (key, old) = (Arc::clone(key), entry.used);
            self.tick += 1;
            self.used.remove(&old);
            self.used.insert(self.tick, Arc::clone(&key));
            let tick = self.tick;
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.used = tick;
            }
        }
    }

    /// All from this key on, in order.
    pub(crate) fn from(&self, bound: Bound<&str>) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.entries.range::<str, _>((bound, Bound::Unbounded))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// When the next item expires.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.expiring.first().map(|(at, _)| *at)
    }

    // ---- doing -----------------------------------------------------------------------------------------------------

    /// Does what is asked, wholly or not at all. With an id that was answered before it does nothing and answers the same.
    pub(crate) fn apply(
        &mut self,
        now: u64,
        id: Option<&str>,
        command: &Command,
    ) -> (Result<Answer, Refusal>, Effects) {
        let mut effects = Effects::default();
        self.forget(now);
        if let Some(answer) = id.and_then(|id| self.answered.get(id)) {
            return (Ok(answer.clone()), effects);
        }
        let began = self.version;
        let answer = self.perform(now, began, command, &mut effects.changes);
        match &answer {
            Ok(answer) => {
                if let Some(id) = id.filter(|_| !effects.changes.is_empty()) {
                    let remembered = Remembered { id: id.into(), at: now, answer: answer.clone() };
                    self.restore_answer(remembered.clone());
                    effects.remembered = Some(remembered);
                }
            }
            Err(_) => self.take_back(std::mem::take(&mut effects.changes)),
        }
        (answer, effects)
    }

    /// Takes out what has expired, as much as one sweep does.
    pub(crate) fn sweep(&mut self, now: u64) -> Effects {
        let mut effects = Effects::default();
        self.forget(now);
        while effects.changes.len() < SWEEP_MAX && self.expire_first(now, &mut effects.changes) {}
        effects
    }

    /// Takes changes back, the latest first. Their versions are not used again.
    pub(crate) fn take_back(&mut self, changes: Vec<Change>) {
        for change in changes.into_iter().rev() {
            self.put(&change.key, change.before);
        }
    }

    /// Takes back that an answer was given.
    pub(crate) fn take_back_answer(&mut self, id: &str) {
        self.answered.remove(id);
        self.answered_at.retain(|(_, other)| **other != *id);
    }

    fn perform(
        &mut self,
        now: u64,
        began: u64,
        command: &Command,
        changes: &mut Vec<Change>,
    ) -> Result<Answer, Refusal> {
        match command {
            Command::Set { key, value, expires_in, only } => {
                self.check(now, key, only)?;
                let expires_at = expires_in.map(|time| now.saturating_add(time));
                let version = self.write(now, began, key, value.clone(), expires_at, changes)?;
                Ok(Answer::Written { version })
            }
            Command::Delete { key, only } => {
                self.check(now, key, only)?;
                let existed = self.living(now, key).is_some();
                if existed {
                    self.change(key, What::Deleted, None, changes);
                }
                Ok(Answer::Deleted { existed })
            }
            Command::Increment { key, by, expires_in } => {
                let (old, expires_at) = match self.living(now, key) {
                    Some(entry) => (read_integer(key, &entry.value)?, entry.expires_at),
                    None => (0, expires_in.map(|time| now.saturating_add(time))),
                };
                let overflow = || Refusal::Overflow { key: Arc::clone(key), by: *by };
                let value = old.checked_add(*by).ok_or_else(overflow)?;
                let version = self.write(now, began, key, raw::integer(value), expires_at, changes)?;
                Ok(Answer::Incremented { value, version })
            }
            Command::Append { key, value, expires_in } => {
                let (old, expires_at) = match self.living(now, key) {
                    Some(entry) => (entry.value.clone(), entry.expires_at),
                    None => (raw::empty_list(), expires_in.map(|time| now.saturating_add(time))),
                };
                let (longer, length) = raw::append(&old, value).map_err(|found| Refusal::Type {
                    key: Arc::clone(key),
                    wanted: "a list",
                    found,
                })?;
                let version = self.write(now, began, key, longer, expires_at, changes)?;
                Ok(Answer::Appended { length, version })
            }
            Command::Transact { conditions, operations } => {
                for (index, (key, only)) in conditions.iter().enumerate() {
                    let failed = |because| Refusal::Condition { number: index + 1, because: Box::new(because) };
                    self.check(now, key, only).map_err(failed)?;
                }
                let mut answers = Vec::with_capacity(operations.len());
                for (index, operation) in operations.iter().enumerate() {
                    let failed = |because| Refusal::Operation { number: index + 1, because: Box::new(because) };
                    answers.push(self.perform(now, began, operation, changes).map_err(failed)?);
                }
                Ok(Answer::Transacted(answers))
            }
        }
    }

    fn living(&self, now: u64, key: &str) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| !entry.is_over(now))
    }

    fn check(&self, now: u64, key: &Arc<str>, only: &If) -> Result<(), Refusal> {
        if *only == If::Always {
            return Ok(());
        }
        let entry = self.living(now, key);
        let found = entry.map(|entry| entry.version);
        match only {
            If::Always => Ok(()),
            If::Absent => found.map_or(Ok(()), |version| Err(Refusal::Exists { key: Arc::clone(key), version })),
            If::Version(wanted) if found == Some(*wanted) => Ok(()),
            If::Version(wanted) => Err(Refusal::Version { key: Arc::clone(key), wanted: *wanted, found }),
            If::Value(value) if entry.is_some_and(|entry| entry.value == *value) => Ok(()),
            If::Value(_) => Err(Refusal::Value { key: Arc::clone(key), found }),
        }
    }

    /// Gives a key a value, making room for it. What was changed after the version `began` does not make room.
    fn write(
        &mut self,
        now: u64,
        began: u64,
        key: &Arc<str>,
        value: Bytes,
        expires_at: Option<u64>,
        changes: &mut Vec<Change>,
    ) -> Result<u64, Refusal> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(Refusal::Long { key: Arc::clone(key), bytes: value.len() });
        }
        let mut old_bytes = None;
        if let Some(old) = self.entries.get(key) {
            if old.is_over(now) {
                // Whoever watches learns that the old one was over before the new one came.
                self.change(key, What::Expired, None, changes);
            } else {
                old_bytes = Some(size(key, old.value.len()));
            }
        }
        self.make_room(now, began, (key, old_bytes), value.len(), changes)?;
        Ok(self.change(key, What::Set, Some((value, expires_at)), changes))
    }

    /// Makes room for a value of a key, which has so many bytes already if it is there. Its own item is spared, so they stay so many.
    fn make_room(
        &mut self,
        now: u64,
        began: u64,
        (key, old_bytes): (&Arc<str>, Option<u64>),
        value_bytes: usize,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        loop {
            let keys = self.entries.len() + usize::from(old_bytes.is_none());
            let bytes = self.bytes - old_bytes.unwrap_or(0) + size(key, value_bytes);
            // What takes no more than it did may stay, also when the bounds have become tighter.
            let grows = old_bytes.is_none() || bytes > self.bytes;
            if !grows || (keys <= self.bounds.keys_max && bytes <= self.bounds.bytes_max) {
                return Ok(());
            }
            if self.expire_first(now, changes) {
                continue;
            }
            let spared =
                |other: &Arc<str>| other == key || self.entries.get(other).is_none_or(|entry| entry.version > began);
            let victim = match self.bounds.eviction {
                Eviction::Reject => None,
                Eviction::LeastRecentlyUsed => self.used.values().find(|other| !spared(other)).cloned(),
                Eviction::SoonestToExpire => {
                    self.expiring.iter().map(|(_, other)| other).find(|other| !spared(other)).cloned()
                }
            };
            let Some(victim) = victim else {
                return Err(Refusal::Full { keys: self.entries.len(), bytes: self.bytes });
            };
            self.change(&victim, What::Evicted, None, changes);
        }
    }

    /// Takes out the first item that has expired, if there is one.
    fn expire_first(&mut self, now: u64, changes: &mut Vec<Change>) -> bool {
        let Some((_, key)) = self.expiring.first().filter(|(at, _)| *at <= now).cloned() else { return false };
        self.change(&key, What::Expired, None, changes);
        true
    }

    fn change(
        &mut self,
        key: &Arc<str>,
        what: What,
        after: Option<(Bytes, Option<u64>)>,
        changes: &mut Vec<Change>,
    ) -> u64 {
        self.version += 1;
        let version = self.version;
        let after = after.map(|(value, expires_at)| Entry::new(value, version, expires_at));
        let before = self.put(key, after.clone());
        changes.push(Change { key: Arc::clone(key), what, version, before, after });
        version
    }

    /// Puts an entry in place of another, and keeps the indexes.
    fn put(&mut self, key: &Arc<str>, entry: Option<Entry>) -> Option<Entry> {
        let ordered = self.bounds.eviction == Eviction::LeastRecentlyUsed;
        let old = match entry {
            Some(mut entry) => {
                self.bytes += size(key, entry.value.len());
                if let Some(at) = entry.expires_at {
                    self.expiring.insert((at, Arc::clone(key)));
                }
                if ordered {
                    self.tick += 1;
                    entry.used = self.tick;
                    self.used.insert(self.tick, Arc::clone(key));
                }
                let expires_at = entry.expires_at;
                let old = self.entries.insert(Arc::clone(key), entry);
                if let Some(at) = old.as_ref().and_then(|old| old.expires_at).filter(|at| Some(*at) != expires_at) {
                    self.expiring.remove(&(at, Arc::clone(key)));
                }
                old
            }
            None => {
                let old = self.entries.remove(key);
                if let Some(at) = old.as_ref().and_then(|old| old.expires_at) {
                    self.expiring.remove(&(at, Arc::clone(key)));
                }
                old
            }
        };
        if let Some(old) = &old {
            self.bytes -= size(key, old.value.len());
            if ordered {
                self.used.remove(&old.used);
            }
        }
        old
    }

    fn forget(&mut self, now: u64) {
        let kept_for = milliseconds(REMEMBERED_FOR);
        while let Some((at, _)) = self.answered_at.front() {
            if self.answered_at.len() < REMEMBERED_MAX && at.saturating_add(kept_for) > now {
                break;
            }
            if let Some((_, id)) = self.answered_at.pop_front() {
                self.answered.remove(&id);
            }
        }
    }
}

fn size(key: &str, value_bytes: usize) -> u64 {
    (key.len() + value_bytes) as u64
}

fn read_integer(key: &Arc<str>, value: &Bytes) -> Result<i64, Refusal> {
    raw::read_integer(value).map_err(|found| Refusal::Type {
        key: Arc::clone(key),
        wanted: "an integer of 64 bits",
        found,
    })
}

#[cfg(test)]
mod tests;
