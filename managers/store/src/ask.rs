//! What is asked, from the bytes that came, and what is answered, as the bytes that go.

use std::sync::Arc;

use bytes::Bytes;
use edri_events::Failure;

use crate::event::{Delete, Increment, Set, What, milliseconds};
use crate::limits::{
    EXPIRES_IN_MAX, GET_MANY_MAX, KEY_BYTES_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, REQUEST_ID_BYTES_MAX,
    TRANSACTION_MAX, VALUE_BYTES_MAX,
};
use crate::model::{Answer, Command, Entry, If};
use crate::raw::{self, Malformed, Writer};
use crate::typed::{Found, FoundItem, Raw};

/// A failure that says what is wrong with a request and what would be right.
fn wrong(text: impl Into<String>) -> Failure {
    Failure::new("invalid_payload", text)
}

fn malformed(error: Malformed) -> Failure {
    wrong(format!("the payload cannot be read: {error}"))
}

/// The fields of a request. What is `null` is as what is not there, but for values.
pub(crate) struct Fields<'a>(Vec<(&'a str, &'a [u8])>);

impl<'a> Fields<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Failure> {
        Ok(Self(raw::fields(bytes).map_err(malformed)?))
    }

    /// The field as it is. Where one is there twice the last counts, as everywhere.
    fn raw(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().rev().find(|(field, _)| *field == name).map(|(_, value)| *value)
    }

    fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.raw(name).filter(|value| !raw::is_null(value))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, Failure> {
        let read = |value| raw::text(value).ok_or_else(|| wrong(format!("`{name}` is to be a text")));
        self.field(name).map(read).transpose()
    }

    fn count(&self, name: &str) -> Result<Option<u64>, Failure> {
        let read = |value| {
            raw::read_count(value)
                .map_err(|found| wrong(format!("`{name}` is to be an integer from 0, and is {found} or below 0")))
        };
        self.field(name).map(read).transpose()
    }

    fn truth(&self, name: &str) -> Result<bool, Failure> {
        let read = |value| raw::truth(value).ok_or_else(|| wrong(format!("`{name}` is to be true or false")));
        self.field(name).map_or(Ok(false), read)
    }

    pub(crate) fn key(&self) -> Result<&'a str, Failure> {
        let key = self.text("key")?.ok_or_else(|| wrong("the payload has no `key`: give it one"))?;
        check_key(key)?;
        Ok(key)
    }

    pub(crate) fn keys(&self) -> Result<Vec<&'a str>, Failure> {
        let list = self.field("keys").ok_or_else(|| wrong("the payload has no `keys`: give it a list of them"))?;
        let keys = raw::elements(list).map_err(|_| wrong("`keys` is to be a list of texts"))?;
        if keys.len() > GET_MANY_MAX {
            return Err(wrong(format!("`keys` has {} elements: ask for {GET_MANY_MAX} at a time", keys.len())));
        }
        let read = |key| {
            let key = raw::text(key).ok_or_else(|| wrong("`keys` is to be a list of texts"))?;
            check_key(key).map(|()| key)
        };
        keys.into_iter().map(read).collect()
    }

    /// What keys begin with; everything when nothing is said.
    pub(crate) fn prefix(&self) -> Result<&'a str, Failure> {
        Ok(self.text("prefix")?.unwrap_or_default())
    }

    pub(crate) fn after(&self) -> Result<Option<&'a str>, Failure> {
        self.text("after")
    }

    pub(crate) fn page(&self) -> Result<usize, Failure> {
        match self.count("limit")? {
            None => Ok(PAGE_ITEMS_DEFAULT),
            Some(limit) => match usize::try_from(limit) {
                Ok(limit @ 1..=PAGE_ITEMS_MAX) => Ok(limit),
                _ => Err(wrong(format!("`limit` is {limit}: a page has 1 to {PAGE_ITEMS_MAX} items"))),
            },
        }
    }

    /// The id that whoever asks has given the request.
    pub(crate) fn request(&self) -> Result<Option<&'a str>, Failure> {
        let id = self.text("request")?;
        check_request(id)?;
        Ok(id)
    }

    fn shared_key(&self) -> Result<Arc<str>, Failure> {
        self.key().map(Into::into)
    }

    /// Copied, or a small value would hold on to all the bytes that it came in.
    fn value(&self, name: &str) -> Result<Bytes, Failure> {
        let value = self.raw(name).ok_or_else(|| wrong(format!("the payload has no `{name}`: give it one")))?;
        check_length(name, value)?;
        Ok(Bytes::copy_from_slice(value))
    }

    fn expires_in(&self) -> Result<Option<u64>, Failure> {
        let time = self.count("expires_in_ms")?;
        check_time(time)?;
        Ok(time)
    }

    fn only(&self) -> Result<If, Failure> {
        only(self.truth("if_absent")?, self.count("if_version")?)
    }

    pub(crate) fn set(&self) -> Result<Command, Failure> {
        let (key, value) = (self.shared_key()?, self.value("value")?);
        Ok(Command::Set { key, value, expires_in: self.expires_in()?, only: self.only()? })
    }

    pub(crate) fn delete(&self) -> Result<Command, Failure> {
        Ok(Command::Delete { key: self.shared_key()?, only: self.only()? })
    }

    pub(crate) fn increment(&self) -> Result<Command, Failure> {
        let by = match self.field("by") {
            None => 1,
            Some(by) => raw::read_integer(by)
                .map_err(|found| wrong(format!("`by` is to be an integer of 64 bits, and is {found}")))?,
        };
        Ok(Command::Increment { key: self.shared_key()?, by, expires_in: self.expires_in()? })
    }

    pub(crate) fn append(&self) -> Result<Command, Failure> {
        Ok(Command::Append { key: self.shared_key()?, value: self.value("value")?, expires_in: self.expires_in()? })
    }

    pub(crate) fn swap(&self) -> Result<Command, Failure> {
        let only = match self.field("expected") {
            None => If::Absent,
            Some(_) => If::Value(self.value("expected")?),
        };
        let (key, value) = (self.shared_key()?, self.value("value")?);
        Ok(Command::Set { key, value, expires_in: self.expires_in()?, only })
    }

    pub(crate) fn transact(&self) -> Result<Command, Failure> {
        let conditions = self.list("conditions")?.into_iter().map(|condition| {
            let fields = Fields::read(condition)?;
            let only = fields.count("version")?.map_or(If::Absent, If::Version);
            Ok((fields.shared_key()?, only))
        });
        let operations = self.list("operations")?.into_iter().map(|operation| {
            let fields = Fields::read(operation)?;
            match fields.text("do")? {
                Some("set") => fields.set(),
                Some("delete") => fields.delete(),
                Some("increment") => fields.increment(),
                Some("append") => fields.append(),
                other => Err(wrong(format!(
                    "an operation is to `do` one of set, delete, increment and append, not {}",
                    other.unwrap_or("nothing")
                ))),
            }
        });
        Ok(Command::Transact {
            conditions: conditions.collect::<Result<_, Failure>>()?,
            operations: operations.collect::<Result<_, Failure>>()?,
        })
    }

    fn list(&self, name: &str) -> Result<Vec<&'a [u8]>, Failure> {
        let Some(list) = self.field(name) else { return Ok(Vec::new()) };
        let list = raw::elements(list).map_err(|_| wrong(format!("`{name}` is to be a list of maps")))?;
        if list.len() > TRANSACTION_MAX {
            return Err(wrong(format!("`{name}` has {} elements: it has {TRANSACTION_MAX} at most", list.len())));
        }
        Ok(list)
    }
}

pub(crate) fn check_key(key: &str) -> Result<(), Failure> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(wrong(format!("a key of {} bytes: it has 1 to {KEY_BYTES_MAX}", key.len())));
    }
    Ok(())
}

/// Checks the id that whoever asks has given a request.
pub(crate) fn check_request(id: Option<&str>) -> Result<(), Failure> {
    if id.is_some_and(|id| id.is_empty() || id.len() > REQUEST_ID_BYTES_MAX) {
        return Err(wrong(format!("`request` is to be an id of 1 to {REQUEST_ID_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn check_length(name: &str, value: &[u8]) -> Result<(), Failure> {
    if value.len() > VALUE_BYTES_MAX {
        let text = format!("`{name}` has {} bytes: a value has {VALUE_BYTES_MAX} at most", value.len());
        return Err(Failure::new("value_too_long", text));
    }
    Ok(())
}

fn check_time(expires_in_ms: Option<u64>) -> Result<(), Failure> {
    let most = milliseconds(EXPIRES_IN_MAX);
    match expires_in_ms {
        Some(time) if time == 0 || time > most => {
            Err(wrong(format!("`expires_in_ms` is {time}: it is 1 to {most} (100 years), or left out for never")))
        }
        _ => Ok(()),
    }
}

fn only(if_absent: bool, if_version: Option<u64>) -> Result<If, Failure> {
    match (if_absent, if_version) {
        (false, None) => Ok(If::Always),
        (true, None) => Ok(If::Absent),
        (false, Some(version)) => Ok(If::Version(version)),
        (true, Some(_)) => Err(wrong("`if_absent` and `if_version` exclude each other: leave one out")),
    }
}

// ---- asked as values, held to the same ---------------------------------------------------------------------------------

pub(crate) fn set(set: &Set<Raw>) -> Result<Command, Failure> {
    let Set { key, value: Raw(value), expires_in_ms, if_absent, if_version, request: _ } = set;
    check_key(key)?;
    // It is one value, but it may nest too deep.
    raw::value(&mut &**value).map_err(malformed)?;
    check_length("value", value)?;
    check_time(*expires_in_ms)?;
    let only = only(*if_absent, *if_version)?;
    Ok(Command::Set { key: (&**key).into(), value: value.clone(), expires_in: *expires_in_ms, only })
}

pub(crate) fn delete(Delete { key, if_version, request: _ }: &Delete) -> Result<Command, Failure> {
    check_key(key)?;
    Ok(Command::Delete { key: (&**key).into(), only: only(false, *if_version)? })
}

pub(crate) fn increment(increment: &Increment) -> Result<Command, Failure> {
    let Increment { key, by, expires_in_ms, request: _ } = increment;
    check_key(key)?;
    check_time(*expires_in_ms)?;
    Ok(Command::Increment { key: (&**key).into(), by: *by, expires_in: *expires_in_ms })
}

/// The bytes of a [`Set`] whose value is bytes already.
pub(crate) fn write_set(out: &mut Writer, set: &Set<Raw>) {
    let there = [set.expires_in_ms.is_some(), set.if_absent, set.if_version.is_some(), set.request.is_some()];
    out.map(2 + there.into_iter().filter(|is| *is).count());
    out.text("key");
    out.text(&set.key);
    out.text("value");
    out.raw(&set.value.0);
    if let Some(time) = set.expires_in_ms {
        out.text("expires_in_ms");
        out.count(time);
    }
    if set.if_absent {
        out.text("if_absent");
        out.truth(true);
    }
    if let Some(version) = set.if_version {
        out.text("if_version");
        out.count(version);
    }
    if let Some(request) = &set.request {
        out.text("request");
        out.text(request);
    }
}

// ---- what is answered --------------------------------------------------------------------------------------------------

/// The most bytes that an item takes beside its key and its value: the names of its fields, and numbers of 9 bytes.
const ITEM_FRAME_BYTES: usize = 64;

/// The bytes of what was found.
pub(crate) fn write_found(found: &Found) -> Vec<u8> {
    let Some(FoundItem { key, value, version, expires_in_ms }) = &found.0 else { return vec![0xc0] };
    let mut out = Writer::with_room(ITEM_FRAME_BYTES + key.len() + value.len());
    out.map(3 + usize::from(expires_in_ms.is_some()));
    out.text("key");
    out.text(key);
    write_value(&mut out, value, *version, *expires_in_ms);
    out.0
}

/// Reads what [`write_found`] wrote. The value is a part of `bytes`.
pub(crate) fn read_found(bytes: &Bytes) -> Result<Found, Failure> {
    if raw::is_null(bytes) && bytes.len() == 1 {
        return Ok(Found(None));
    }
    let fields = Fields::read(bytes)?;
    let missing = |name| wrong(format!("the payload has no `{name}`"));
    Ok(Found(Some(FoundItem {
        key: fields.text("key")?.ok_or_else(|| missing("key"))?.into(),
        value: bytes.slice_ref(fields.raw("value").ok_or_else(|| missing("value"))?),
        version: fields.count("version")?.ok_or_else(|| missing("version"))?,
        expires_in_ms: fields.count("expires_in_ms")?,
    })))
}

/// An item, or nothing.
pub(crate) fn write_item(out: &mut Writer, now: u64, item: Option<(&str, &Entry)>) {
    let Some((key, entry)) = item else { return out.null() };
    out.map(3 + usize::from(entry.expires_at.is_some()));
    out.text("key");
    out.text(key);
    write_entry(out, now, entry);
}

fn write_entry(out: &mut Writer, now: u64, entry: &Entry) {
    write_value(out, &entry.value, entry.version, entry.expires_at.map(|at| at.saturating_sub(now)));
}

fn write_value(out: &mut Writer, value: &[u8], version: u64, expires_in_ms: Option<u64>) {
    out.text("value");
    out.raw(value);
    out.text("version");
    out.count(version);
    if let Some(time) = expires_in_ms {
        out.text("expires_in_ms");
        out.count(time);
    }
}

/// The bytes of an answer.
pub(crate) fn write_answer(out: &mut Writer, answer: &Answer) {
    match answer {
        Answer::Written { version } => {
            out.map(1);
            out.text("version");
            out.count(*version);
        }
        Answer::Deleted { existed } => {
            out.map(1);
            out.text("existed");
            out.truth(*existed);
        }
        Answer::Incremented { value, version } => {
            out.map(2);
            out.text("value");
            out.integer(*value);
            out.text("version");
            out.count(*version);
        }
        Answer::Appended { length, version } => {
            out.map(2);
            out.text("length");
            out.count(*length);
            out.text("version");
            out.count(*version);
        }
        Answer::Transacted(answers) => {
            out.map(1);
            out.text("results");
            out.list(answers.len());
            for answer in answers {
                write_answer(out, answer);
            }
        }
    }
}

/// Reads what [`write_answer`] wrote; `None` when it did not.
pub(crate) fn read_answer(bytes: &[u8]) -> Option<Answer> {
    let fields = Fields::read(bytes).ok()?;
    if let Some(results) = fields.field("results") {
        let results = raw::elements(results).ok()?;
        return results.into_iter().map(read_answer).collect::<Option<_>>().map(Answer::Transacted);
    }
    if let Some(existed) = fields.field("existed") {
        return Some(Answer::Deleted { existed: raw::truth(existed)? });
    }
    let version = fields.count("version").ok()??;
    if let Some(value) = fields.field("value") {
        return Some(Answer::Incremented { value: raw::read_integer(value).ok()?, version });
    }
    Some(match fields.count("length").ok()? {
        Some(length) => Answer::Appended { length, version },
        None => Answer::Written { version },
    })
}

/// The bytes of a change as a watch tells it.
pub(crate) fn write_change(out: &mut Writer, now: u64, what: What, key: &str, version: u64, entry: Option<&Entry>) {
    let fields = entry.map_or(1, |entry| 2 + usize::from(entry.expires_at.is_some()));
    out.map(2 + fields);
    out.text("what");
    out.text(what.as_str());
    out.text("key");
    out.text(key);
    match entry {
        Some(entry) => write_entry(out, now, entry),
        None => {
            out.text("version");
            out.count(version);
        }
    }
}

/// The bytes of the notification of a change.
pub(crate) fn write_changed(what: What, key: &str, version: u64) -> Bytes {
    let mut out = Writer::default();
    write_change(&mut out, 0, what, key, version, None);
    out.0.into()
}
