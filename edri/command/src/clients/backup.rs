//! `store backup` and `store restore`.
//!
//! ```text
//! {"edri_backup": 1, "namespace": "sessions", "at_ms": 1774747200000}     the first line
//! {"key": "s1", "value": {"name": "anna"}, "expires_at_ms": 1774750800000}
//! {"key": "s2", "msgpack": "xAIA/w=="}                                    what JSON has no place for, as MessagePack in base64
//! {"end": 2}                                                              the last line, so that a file that was cut off is known
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use edri::store::event::{Item, Operation, Set, Transact, Verb, Written};
use edri::{Body, Encoding};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::any::Any;
use super::store::Asking;
use crate::exit::Failed;

/// The version of the file's form.
const FORM: u64 = 1;
/// The longest line of a backup, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// How many items are asked for at once.
const PAGE: u64 = 200;
/// How many items are written in one transaction, and of how many bytes if they are several: a store takes 256 at once, and the gateway
/// frames of 2 MiB unless it says otherwise.
const BATCH: usize = 200;
const BATCH_BYTES: usize = 512 << 10;

#[derive(clap::Args)]
pub(crate) struct Backup {
    /// The namespace.
    pub(super) namespace: String,
    /// The file; it must not be there yet.
    file: PathBuf,
    /// Puts it in the place of a file that is there.
    #[arg(long)]
    overwrite: bool,
}

#[derive(clap::Args)]
pub(crate) struct Restore {
    /// The namespace.
    pub(super) namespace: String,
    /// The file.
    file: PathBuf,
    /// Leaves keys as they are that are there; otherwise they are given the values of the backup. Keys that are not in it stay in either
    /// case.
    #[arg(long)]
    if_absent: bool,
}

#[derive(Serialize, Deserialize)]
struct First {
    edri_backup: u64,
    namespace: String,
    at_ms: u64,
}

/// An item on its line.
#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "given")]
    value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    msgpack: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
}

/// A value that is there may be null, which is not the same as one that is not there.
mod given {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(value: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().unwrap_or(&Value::Null).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(deserializer).map(Some)
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Line {
    fn of(item: Item<Any>, now_ms: u64) -> Result<Self, Failed> {
        let value = item.value.to_json();
        let msgpack = match value {
            Some(_) => None,
            None => {
                let body = Body::encode(Encoding::MessagePack, &item.value);
                Some(BASE64_STANDARD.encode(&body.map_err(|error| Failed::new(error.to_string()))?.bytes))
            }
        };
        let expires_at_ms = item.expires_in_ms.map(|left| now_ms.saturating_add(left));
        Ok(Self { key: item.key, value, msgpack, expires_at_ms })
    }

    /// What is to be written; nothing when its time is over.
    fn into_set(self, if_absent: bool, now_ms: u64) -> Result<Option<Set<Any>>, String> {
        let expires_in_ms = match self.expires_at_ms {
            Some(at) if at <= now_ms => return Ok(None),
            at => at.map(|at| at - now_ms),
        };
        let value = match (self.value, self.msgpack) {
            (Some(value), None) => serde_json::from_value(value).map_err(|error| error.to_string())?,
            (None, Some(text)) => {
                let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
                Body::new(Encoding::MessagePack, bytes).decode().map_err(|error| error.to_string())?
            }
            _ => return Err("it needs `value` or `msgpack`".to_owned()),
        };
        Ok(Some(Set { key: self.key, value, expires_in_ms, if_absent, if_version: None, request: None }))
    }
}

/// A file that is not there until it is whole.
struct Partial {
    path: PathBuf,
    whole: bool,
}

impl Partial {
    fn create(path: &Path) -> std::io::Result<(Self, BufWriter<File>)> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let path = PathBuf::from(name);
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok((Self { path, whole: false }, BufWriter::new(file)))
    }

    fn finish(mut self, file: BufWriter<File>, as_file: &Path) -> std::io::Result<()> {
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&self.path, as_file)?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.whole {
            // Whoever reads the folder sees by its name what is left of it.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

pub(super) async fn backup(asking: &Asking<'_>, asked: &Backup) -> Result<(), Failed> {
    let path = &asked.file;
    let failed = |error: std::io::Error| Failed::new(format!("the backup `{}`: {error}", path.display()));
    if !asked.overwrite && path.exists() {
        return Err(Failed::usage(format!("`{}` is there already: take another name, or --overwrite", path.display())));
    }
    let (partial, mut file) = Partial::create(path).map_err(failed)?;
    let mut write = |line: &dyn erased::Line| -> Result<(), Failed> {
        let mut text = line.text()?;
        text.push('\n');
        file.write_all(text.as_bytes()).map_err(failed)
    };
    write(&First { edri_backup: FORM, namespace: asking.namespace.to_owned(), at_ms: now_ms() })?;
    let (mut after, mut count) = (None, 0_u64);
    loop {
        let page = asking.page("", after, PAGE).await?;
        let now_ms = now_ms();
        for item in page.items {
            write(&Line::of(item, now_ms)?)?;
            count += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    write(&json!({ "end": count }))?;
    partial.finish(file, path).map_err(failed)?;
    let out = &asking.session.out;
    if out.json {
        return out.value(&json!({"items": count, "file": path}));
    }
    out.line(&format!("{count} items of `{}` are in `{}`", asking.namespace, path.display()))
}

/// What can stand on a line.
mod erased {
    use crate::exit::Failed;

    pub(super) trait Line {
        fn text(&self) -> Result<String, Failed>;
    }

    impl<T: serde::Serialize> Line for T {
        fn text(&self) -> Result<String, Failed> {
            serde_json::to_string(self).map_err(|error| Failed::new(error.to_string()))
        }
    }
}

/// Reads a backup, line by line; an item comes with the number of its line.
fn read(path: &Path, mut take: impl FnMut(u64, Line) -> Result<(), String>) -> Result<u64, String> {
    let mut file = BufReader::new(File::open(path).map_err(|error| error.to_string())?);
    let (mut line, mut number, mut count) = (String::new(), 0, 0);
    let mut first = true;
    loop {
        line.clear();
        number += 1;
        let read = (&mut file).take(LINE_BYTES_MAX).read_line(&mut line).map_err(|error| error.to_string())?;
        let wrong = |why: &dyn std::fmt::Display| format!("line {number}: {why}");
        if read == 0 {
            return Err("it has no end: it was cut off".to_owned());
        }
        if std::mem::take(&mut first) {
            let first: First = serde_json::from_str(&line).map_err(|_| "it is no backup of a namespace".to_owned())?;
            if first.edri_backup != FORM {
                return Err(format!(
                    "its form is {}, and this command knows {FORM}: use a newer one",
                    first.edri_backup
                ));
            }
            continue;
        }
        if let Ok(end) = serde_json::from_str::<End>(&line) {
            return if end.end == count {
                Ok(count)
            } else {
                Err(wrong(&format_args!("{} items, not {count}", end.end)))
            };
        }
        take(number, serde_json::from_str(&line).map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
        count += 1;
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    end: u64,
}

pub(super) async fn restore(asking: &Asking<'_>, asked: &Restore) -> Result<(), Failed> {
    let path = &asked.file;
    let failed = |why: String| Failed::usage(format!("the backup `{}`: {why}", path.display()));
    // All of it is looked at before anything is written.
    read(path, |_, line| line.into_set(asked.if_absent, 0).map(|_| ())).map_err(failed)?;
    let (lines, mut sets) = tokio::sync::mpsc::channel::<Set<Any>>(PAGE as usize);
    let (file, if_absent) = (path.clone(), asked.if_absent);
    let reading = tokio::task::spawn_blocking(move || {
        let mut expired = 0_u64;
        read(&file, |_, line| {
            match line.into_set(if_absent, now_ms())? {
                Some(set) => lines.blocking_send(set).map_err(|_| "nobody writes any more".to_owned())?,
                None => expired += 1,
            }
            Ok(())
        })
        .map(|_| expired)
    });
    let (mut written, mut kept) = (0_u64, 0_u64);
    let mut next = sets.recv().await;
    while let Some(first) = next {
        let mut bytes = weight(&first);
        let mut batch = vec![first];
        // What there is already, as far as it fits; what does not begins the next.
        next = loop {
            let Ok(set) = sets.try_recv() else { break None };
            bytes += weight(&set);
            if batch.len() >= BATCH || bytes > BATCH_BYTES {
                break Some(set);
            }
            batch.push(set);
        };
        let stopped = |failed, written| {
            asking.session.out.note(&format!("{written} items were written before; restore again to go on"));
            Err(failed)
        };
        match write_all(asking, batch.clone()).await {
            Ok(()) => written += batch.len() as u64,
            // Which of them are there is seen one by one.
            Err(failed) if asked.if_absent && is_there(&failed) => {
                for set in batch {
                    match asking.ask::<Written>(Verb::Set, &set).await {
                        Ok(_) => written += 1,
                        Err(failed) if is_there(&failed) => kept += 1,
                        Err(failed) => return stopped(failed, written),
                    }
                }
            }
            Err(failed) => return stopped(failed, written),
        }
        if next.is_none() {
            next = sets.recv().await;
        }
    }
    let expired = reading.await.map_err(|error| Failed::new(error.to_string()))?.map_err(failed)?;
    let out = &asking.session.out;
    if out.json {
        return out.value(&json!({"written": written, "kept": kept, "expired": expired}));
    }
    let mut text = format!("{written} items were written into `{}`", asking.namespace);
    if kept > 0 {
        text += &format!("; {kept} were there and are kept");
    }
    if expired > 0 {
        text += &format!("; the time of {expired} was over");
    }
    out.line(&text)
}

/// Writes all of these or none.
async fn write_all(asking: &Asking<'_>, batch: Vec<Set<Any>>) -> Result<(), Failed> {
    let operations = batch.into_iter().map(Operation::Set).collect();
    let transact = Transact { conditions: Vec::new(), operations, request: None };
    asking.ask::<IgnoredAny>(Verb::Transact, &transact).await.map(drop)
}

fn is_there(failed: &Failed) -> bool {
    failed.message.contains("exists")
}

/// About how many bytes of a frame an item takes, rather too many.
fn weight(set: &Set<Any>) -> usize {
    struct Counted(usize);
    impl Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    // What cannot be written is told of when it is sent.
    let _ = serde_json::to_writer(&mut counted, set);
    counted.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(value: Any) -> Item<Any> {
        Item { key: "k".to_owned(), value, version: 7, expires_in_ms: None }
    }

    #[test]
    fn every_value_comes_back_as_it_was() {
        for value in [Any::Null, Any::Unsigned(5), Any::Bytes(vec![0, 255]), Any::Float(f64::INFINITY)] {
            let text = serde_json::to_string(&Line::of(item(value.clone()), 0).expect("a line")).expect("JSON");
            let line: Line = serde_json::from_str(&text).expect("a line");
            let set = line.into_set(false, 0).expect("a value").expect("not expired");
            assert_eq!(set.value, value, "{text}");
        }
    }

    #[test]
    fn time_goes_on_between_backup_and_restore() {
        let expires = |item_left: u64, at: u64, now: u64| {
            let line = Line::of(Item { expires_in_ms: Some(item_left), ..item(Any::Null) }, at).expect("a line");
            line.into_set(false, now).expect("a value").map(|set| set.expires_in_ms)
        };
        assert_eq!(expires(500, 1_000, 1_200), Some(Some(300)));
        assert_eq!(expires(500, 1_000, 1_500), None);
    }
}
