//! What the file of a durable store looks like, and what is done with a file as a whole.
//!
//! ```text
//! table meta            "format" ─▶ 3    "version:<ns>" ─▶ the last version    "sum:<ns>" ─▶ number of entries 8, sum 8
//!                       "journal:<ns>" ─▶ number of its first record 8, whether it has any 1
//! table entries:<ns>    key ─▶ version 8, expires at 8 (0: never), checksum 8, value
//! table answers:<ns>    see `answers.rs`
//! table journal:<ns>    see `journal.rs`: what has changed since the other two were written
//! ```
//!
//! Numbers are little-endian; checksums are XXH3 of the key and everything else in the record. The sum is that of the
//! entries' checksums, so that an entry is missed that is lost with its page: the engine checks its own only after a crash.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{
    Builder, Database, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError, TableHandle,
};
use xxhash_rust::xxh3::Xxh3;

use crate::journal::{self, Journal, Noted};
use crate::model::{Entry, Remembered};
use crate::{answers, upgrade};

/// The format that is written here. Older ones are read.
pub(crate) const FORMAT: u64 = 3;

pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Why a store's file could not be opened, written or copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refuses.
    #[error("could not {what} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Another store has the file open.
    #[error("{} is open already: a file has one store; stop the other, or give this one a file of its own", .0.display())]
    InUse(PathBuf),
    /// The file is damaged. It is left as it is.
    #[error(
        "{} is damaged ({what}) and was left as it is: put a backup in its place, or save what can be read with \
         `edri_store::salvage`", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The file was written by a newer version.
    #[error(
        "{} has format {found} and this version knows formats up to {FORMAT}: use the version that wrote it, or a newer one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Something is there where a new file is to be made.
    #[error("{} is there already and is not written over: choose another name, or move it away", .0.display())]
    Exists(PathBuf),
    /// The store is not open: it has not started, it has stopped, or its file cannot be written.
    #[error("the store is not open: it has not started, it has stopped, or its file cannot be written")]
    Closed,
}

impl StoreError {
    /// Whether the file stays as it is until somebody does something about it.
    pub(crate) fn is_for_good(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Newer { .. })
    }
}

pub(crate) fn io_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, what, source }
}

pub(crate) fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

/// An error of the engine, boxed because it is large.
#[derive(Debug)]
pub(crate) struct EngineError(Box<redb::Error>);

macro_rules! engine_errors {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for EngineError {
            fn from(error: redb::$error) -> Self {
                Self(Box::new(error.into()))
            }
        }
    )*};
}

engine_errors!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

/// What an error of the engine means.
pub(crate) fn failed(path: &Path, error: EngineError) -> StoreError {
    match *error.0 {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => damaged(path, &source.to_string()),
        redb::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            damaged(path, &format!("it is shorter than it says: {source}"))
        }
        redb::Error::Io(source) => StoreError::Io { path: path.to_owned(), what: "read or write", source },
        redb::Error::PreviousIo => StoreError::Io {
            path: path.to_owned(),
            what: "write",
            source: io::Error::other("an earlier error of the disk"),
        },
        other => damaged(path, &other.to_string()),
    }
}

/// Runs what reads a file that may be damaged: the engine panics over some damages.
pub(crate) fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(damaged(path, &text(&*panic))))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the engine panicked").to_owned()
}

// ---- records -----------------------------------------------------------------------------------------------------------

pub(crate) fn entries_table(namespace: &str) -> String {
    format!("entries:{namespace}")
}

pub(crate) fn answers_table(namespace: &str) -> String {
    format!("answers:{namespace}")
}

pub(crate) fn journal_table(namespace: &str) -> String {
    format!("journal:{namespace}")
}

/// The row that says where the journal begins.
pub(crate) fn journal_row(namespace: &str) -> String {
    format!("journal:{namespace}")
}

/// That the journal begins with this number, and whether it has anything.
pub(crate) fn write_begun(first: u64, any: bool) -> [u8; 9] {
    let mut begun = [u8::from(any); 9];
    begun[..8].copy_from_slice(&first.to_le_bytes());
    begun
}

fn read_begun(bytes: &[u8]) -> Option<(u64, bool)> {
    let (first, any) = bytes.split_at_checked(8)?;
    let any = match any {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    Some((read_count(first)?, any))
}

pub(crate) fn version_row(namespace: &str) -> String {
    format!("version:{namespace}")
}

pub(crate) fn sum_row(namespace: &str) -> String {
    format!("sum:{namespace}")
}

/// How many entries there are, and the sum of their checksums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    items: u64,
    sum: u64,
}

impl Sum {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (items, sum) = bytes.split_at_checked(8)?;
        Some(Self { items: read_count(items)?, sum: read_count(sum)? })
    }

    pub(crate) fn write(self) -> Vec<u8> {
        [self.items.to_le_bytes(), self.sum.to_le_bytes()].concat()
    }

    pub(crate) fn add(&mut self, record: &[u8]) {
        self.items = self.items.wrapping_add(1);
        self.sum = self.sum.wrapping_add(record_checksum(record));
    }

    pub(crate) fn take(&mut self, record: &[u8]) {
        self.items = self.items.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(record_checksum(record));
    }
}

/// The checksum in an entry's record.
fn record_checksum(record: &[u8]) -> u64 {
    record.get(16..24).and_then(read_count).unwrap_or(0)
}

pub(crate) fn read_count(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

pub(crate) fn checksum(parts: &[&[u8]]) -> u64 {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.digest()
}

pub(crate) fn write_entry(key: &str, entry: &Entry) -> Vec<u8> {
    let mut record = Vec::with_capacity(24 + entry.value.len());
    record.extend(entry.version.to_le_bytes());
    record.extend(entry.expires_at.unwrap_or(0).to_le_bytes());
    record.extend(checksum(&[key.as_bytes(), &record, &entry.value]).to_le_bytes());
    record.extend(&entry.value);
    record
}

pub(crate) fn read_entry(key: &str, record: &[u8]) -> Option<Entry> {
    let (head, rest) = record.split_at_checked(16)?;
    let (sum, value) = rest.split_at_checked(8)?;
    if read_count(sum)? != checksum(&[key.as_bytes(), head, value]) {
        return None;
    }
    let expires_at = Some(read_count(&head[8..])?).filter(|at| *at != 0);
    Some(Entry::new(Bytes::copy_from_slice(value), read_count(&head[..8])?, expires_at))
}

// ---- files -------------------------------------------------------------------------------------------------------------

/// How much of a file the engine keeps in memory. All items are there anyway, so this is for its own pages.
const ENGINE_CACHE_BYTES: usize = 32 << 20;

/// The engine as it is used here.
fn engine() -> Builder {
    let mut engine = Database::builder();
    engine.create_with_file_format_v3(true).set_cache_size(ENGINE_CACHE_BYTES);
    engine
}

/// Opens a file, or makes one where there is none. One of an older format is brought to that of today.
pub(crate) fn open(path: &Path) -> Result<Database, StoreError> {
    match std::fs::metadata(path) {
        Ok(found) if found.len() == 0 => return Err(damaged(path, "it is empty, and no store's file ever is")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
        Err(source) => return Err(io_error(path, "look at")(source)),
    }
    let (database, format) = open_as_it_is(path)?;
    if format < FORMAT {
        guarded(path, || upgrade::from_format(format, &database, path))?;
    }
    Ok(database)
}

/// Opens a file; with its format.
fn open_as_it_is(path: &Path) -> Result<(Database, u64), StoreError> {
    guarded(path, || {
        let database = engine().open(path).map_err(|error| failed(path, error.into()))?;
        let format = read_format(&database, path)?;
        Ok((database, format))
    })
}

fn read_format(database: &Database, path: &Path) -> Result<u64, StoreError> {
    let fail = |error: EngineError| failed(path, error);
    let read = database.begin_read().map_err(|error| fail(error.into()))?;
    let meta = read.open_table(META).map_err(|_| damaged(path, "it is no store's file"))?;
    let format = meta.get("format").map_err(|error| fail(error.into()))?;
    match format.and_then(|format| read_count(format.value())) {
        Some(found @ 1..=FORMAT) => Ok(found),
        Some(found) if found > FORMAT => Err(StoreError::Newer { path: path.to_owned(), found }),
        _ => Err(damaged(path, "it does not say its format")),
    }
}

/// Makes a file without items: under another name first, so that what has the name is whole.
fn make(path: &Path) -> Result<(), StoreError> {
    fill(path, |database| {
        let fail = |error: EngineError| failed(path, error);
        let transaction = database.begin_write().map_err(|error| fail(error.into()))?;
        transaction
            .open_table(META)
            .map_err(|error| fail(error.into()))?
            .insert("format", &FORMAT.to_le_bytes()[..])
            .map_err(|error| fail(error.into()))?;
        transaction.commit().map_err(|error| fail(error.into()))
    })
}

/// Makes a file with what `fill` puts into it, whole or not at all.
fn fill<T>(path: &Path, fill: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io_error(folder, "make the folder"))?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}-{:x}.partial", std::process::id(), fastrand::u64(..)));
    let partial = PathBuf::from(partial);
    let filled = (|| {
        let database = engine().create(&partial).map_err(|error| failed(&partial, error.into()))?;
        let filled = fill(&database)?;
        drop(database);
        File::open(&partial).and_then(|file| file.sync_all()).map_err(io_error(&partial, "sync"))?;
        // A link, unlike a renaming, never takes the place of something.
        std::fs::hard_link(&partial, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Exists(path.to_owned()),
            _ => io_error(path, "make")(source),
        })?;
        Ok(filled)
    })();
    let removed = std::fs::remove_file(&partial);
    let filled = filled?;
    removed.map_err(io_error(&partial, "remove"))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error(folder, "sync"))?;
    Ok(filled)
}

/// A table, if there is one.
pub(crate) fn existing<T>(opened: Result<T, TableError>) -> Result<Option<T>, EngineError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads the journal of a namespace, record by record; what it has.
pub(crate) fn read_journal(
    read: &ReadTransaction,
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    path: &Path,
    namespace: &str,
    mut each: impl FnMut(&[Remembered], &[Noted]),
) -> Result<Journal, StoreError> {
    let fail = |error: EngineError| failed(path, error);
    let not_whole = |what: &str| damaged(path, &format!("the journal of namespace `{namespace}` {what}"));
    let begun = meta.get(&*journal_row(namespace)).map_err(|error| fail(error.into()))?;
    let begun = begun.map_or(Some((0, false)), |begun| read_begun(begun.value()));
    let (first, any) = begun.ok_or_else(|| not_whole("does not say where it begins"))?;
    let (name, mut journal) = (journal_table(namespace), Journal::from(first));
    let table = existing(read.open_table(TableDefinition::<&str, &[u8]>::new(&name))).map_err(fail)?;
    if any != table.is_some() {
        return Err(not_whole("is not there, or should not be"));
    }
    let Some(table) = table else { return Ok(journal) };
    for row in table.iter().map_err(|error| fail(error.into()))? {
        let (row, record) = row.map_err(|error| fail(error.into()))?;
        let what = || format!("the record `{}` of the journal of namespace `{namespace}`", row.value());
        if answers::number(row.value()) != Some(journal.next()) {
            return Err(not_whole("lacks a record"));
        }
        let (answers, changes) = journal::read(row.value(), record.value()).ok_or_else(|| damaged(path, &what()))?;
        each(&answers, &changes);
        changes.iter().for_each(|change| journal.note_change(&change.key, change.version, change.entry.as_ref()));
        journal.note_answers(&answers);
        journal.recorded();
    }
    // The engine counts them elsewhere, so the last are missed too when they are lost with a page.
    let records = table.len().map_err(|error| fail(error.into()))?;
    if journal.records() == 0 || journal.records() != records {
        return Err(not_whole("lacks its last records"));
    }
    Ok(journal)
}

/// Copies all tables as they are at one moment.
pub(crate) fn copy(read: &ReadTransaction, from: &Path, to: &Path) -> Result<(), StoreError> {
    fill(to, |database| {
        let fail = |error: EngineError| failed(from, error);
        let transaction = database.begin_write().map_err(|error| failed(to, error.into()))?;
        for table in read.list_tables().map_err(|error| fail(error.into()))? {
            let name = table.name().to_owned();
            let definition = TableDefinition::<&str, &[u8]>::new(&name);
            let source = read.open_table(definition).map_err(|error| fail(error.into()))?;
            let mut target = transaction.open_table(definition).map_err(|error| failed(to, error.into()))?;
            for row in source.iter().map_err(|error| fail(error.into()))? {
                let (key, record) = row.map_err(|error| fail(error.into()))?;
                target.insert(key.value(), record.value()).map_err(|error| failed(to, error.into()))?;
            }
        }
        transaction.commit().map_err(|error| failed(to, error.into()))
    })
}

/// What [`salvage`] has saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvaged {
    /// Items that are whole and were copied.
    pub items: u64,
    /// What could not be read, for people.
    pub damaged: Vec<String>,
}

/// The most damages that are told one by one.
const DAMAGED_TOLD_MAX: usize = 1000;

/// Copies what can still be read of a damaged store's file into a new one. `from` is left as it is; it must not be in use.
/// Blocks.
///
/// # Errors
///
/// [`StoreError`] when nothing can be read of `from`, or `to` is there already or cannot be written.
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Salvaged, StoreError> {
    let (from, to) = (from.as_ref(), to.as_ref());
    // Opening may repair, so that is done with a copy.
    let mut scratch = to.as_os_str().to_owned();
    scratch.push(format!(".{}-{:x}.salvage", std::process::id(), fastrand::u64(..)));
    let scratch = PathBuf::from(scratch);
    std::fs::copy(from, &scratch).map_err(io_error(from, "copy"))?;
    let salvaged = guarded(from, || {
        let database = engine().open(&scratch).map_err(|error| failed(from, error.into()))?;
        salvage_from(&database, from, to)
    });
    if let Err(error) = std::fs::remove_file(&scratch) {
        tracing::warn!(%error, path = %scratch.display(), "a copy was left behind");
    }
    salvaged
}

fn salvage_from(database: &Database, from: &Path, to: &Path) -> Result<Salvaged, StoreError> {
    // Where that cannot be read, today's is as likely as any.
    let format = guarded(from, || read_format(database, from)).unwrap_or(FORMAT);
    let read = database.begin_read().map_err(|error| failed(from, error.into()))?;
    fill(to, |target| {
        let (mut salvaged, mut sums) = (Salvaged::default(), BTreeMap::<String, Sum>::new());
        let transaction = target.begin_write().map_err(|error| failed(to, error.into()))?;
        let tables = read.list_tables().map_err(|error| failed(from, error.into()))?;
        let mut names: Vec<_> = tables.map(|table| table.name().to_owned()).collect();
        // What is in a journal comes after what it changes.
        names.sort_by_key(|name| name.starts_with("journal:"));
        for name in names {
            let mut rows = 0;
            let copied = guarded(from, || match name.split_once(':') {
                Some(("journal", namespace)) => {
                    let sum = sums.entry(namespace.to_owned()).or_default();
                    salvage_journal(&read, &transaction, (from, to), namespace, (&mut salvaged, &mut rows, sum))
                }
                prefixed => {
                    let namespace = prefixed.filter(|(table, _)| *table == "entries").map_or("", |(_, name)| name);
                    let sum = sums.entry(namespace.to_owned()).or_default();
                    salvage_table(&read, &transaction, (from, to), (&name, format), (&mut salvaged, &mut rows, sum))
                }
            });
            match copied {
                Err(error @ StoreError::Damaged { .. }) => {
                    salvaged.damaged.push(format!("what comes after the first {rows} of table `{name}`: {error}"));
                }
                other => other?,
            }
        }
        for (name, sum) in sums.iter().filter(|(name, _)| !name.is_empty()) {
            let mut meta = transaction.open_table(META).map_err(|error| failed(to, error.into()))?;
            meta.insert(&*sum_row(name), &*sum.write()).map_err(|error| failed(to, error.into()))?;
        }
        transaction.commit().map_err(|error| failed(to, error.into()))?;
        Ok(salvaged)
    })
}

fn salvage_table(
    read: &ReadTransaction,
    transaction: &redb::WriteTransaction,
    (from, to): (&Path, &Path),
    (name, format): (&str, u64),
    (salvaged, rows, sum): (&mut Salvaged, &mut u64, &mut Sum),
) -> Result<(), StoreError> {
    let definition = TableDefinition::<&str, &[u8]>::new(name);
    let source = read.open_table(definition).map_err(|error| failed(from, error.into()))?;
    let mut target = transaction.open_table(definition).map_err(|error| failed(to, error.into()))?;
    for row in source.iter().map_err(|error| failed(from, error.into()))? {
        let (key, record) = row.map_err(|error| failed(from, error.into()))?;
        let (key, record) = (key.value(), record.value());
        let is_whole = match name.split_once(':') {
            Some(("entries", _)) => {
                let whole = read_entry(key, record).is_some();
                if whole {
                    salvaged.items += 1;
                    sum.add(record);
                }
                whole
            }
            Some(("answers", _)) => are_answers(format, key, record),
            // Sums are made anew, and journals are folded.
            _ => read_count(record).is_some(),
        };
        *rows += 1;
        if is_whole {
            target.insert(key, record).map_err(|error| failed(to, error.into()))?;
        } else if !key.starts_with("sum:") && !key.starts_with("journal:") && salvaged.damaged.len() < DAMAGED_TOLD_MAX
        {
            salvaged.damaged.push(format!("`{key}` of table `{name}`"));
        }
    }
    Ok(())
}

/// Puts what can be read of a journal where folding it would have.
fn salvage_journal(
    read: &ReadTransaction,
    transaction: &redb::WriteTransaction,
    (from, to): (&Path, &Path),
    namespace: &str,
    (salvaged, rows, sum): (&mut Salvaged, &mut u64, &mut Sum),
) -> Result<(), StoreError> {
    let fail = |error: EngineError| failed(to, error);
    let names = (journal_table(namespace), entries_table(namespace), answers_table(namespace));
    let source = read.open_table(TableDefinition::<&str, &[u8]>::new(&names.0));
    let source = source.map_err(|error| failed(from, error.into()))?;
    let open =
        |name| transaction.open_table(TableDefinition::<&str, &[u8]>::new(name)).map_err(|error| fail(error.into()));
    let (mut entries, mut answers, mut meta) =
        (open(&names.1)?, open(&names.2)?, transaction.open_table(META).map_err(|error| fail(error.into()))?);
    let last = answers.last().map_err(|error| fail(error.into()))?;
    let mut number = last.and_then(|(row, _)| answers::number(row.value())).map_or(0, |last| last + 1);
    let kept = meta.get(&*version_row(namespace)).map_err(|error| fail(error.into()))?;
    let mut version = kept.and_then(|version| read_count(version.value())).unwrap_or(0);
    for row in source.iter().map_err(|error| failed(from, error.into()))? {
        let (row, record) = row.map_err(|error| failed(from, error.into()))?;
        let whole = journal::read(row.value(), record.value());
        *rows += 1;
        if whole.is_none() && salvaged.damaged.len() < DAMAGED_TOLD_MAX {
            salvaged.damaged.push(format!("`{}` of table `{}`, in part", row.value(), names.0));
        }
        let (remembered, changes) = whole.unwrap_or_else(|| (Vec::new(), journal::salvage(record.value())));
        for Noted { key, version: changed, entry } in changes {
            version = version.max(changed);
            let old = match entry {
                Some(entry) => {
                    let record = write_entry(&key, &entry);
                    salvaged.items += 1;
                    sum.add(&record);
                    entries.insert(&*key, &*record)
                }
                None => entries.remove(&*key),
            };
            if let Some(old) = old.map_err(|error| fail(error.into()))? {
                salvaged.items -= 1;
                sum.take(old.value());
            }
        }
        if !remembered.is_empty() {
            let row = answers::row(number);
            number += 1;
            answers.insert(&*row, &*answers::write(&row, &remembered)).map_err(|error| fail(error.into()))?;
        }
    }
    meta.insert(&*version_row(namespace), &version.to_le_bytes()[..]).map_err(|error| fail(error.into()))?;
    Ok(())
}

/// Puts a backup where a store's file is to be, after having read all of it. Blocks. (A backup is a store's file itself:
/// this only checks it and never writes over another.)
///
/// # Errors
///
/// [`StoreError`] when the backup is damaged, or something is at `store` already.
pub fn restore(backup: impl AsRef<Path>, store: impl AsRef<Path>) -> Result<(), StoreError> {
    let (backup, store) = (backup.as_ref(), store.as_ref());
    let (database, format) = match std::fs::metadata(backup) {
        Ok(_) => open_as_it_is(backup)?,
        Err(source) => return Err(io_error(backup, "look at")(source)),
    };
    guarded(backup, || {
        let read = database.begin_read().map_err(|error| failed(backup, error.into()))?;
        check_records(&read, backup, format)?;
        copy(&read, backup, store)
    })
}

/// Whether a row of a table of answers is whole.
fn are_answers(format: u64, key: &str, record: &[u8]) -> bool {
    match format {
        1 => upgrade::read_answer(key, record).is_some(),
        _ => answers::read(key, record).is_some(),
    }
}

fn check_records(read: &ReadTransaction, path: &Path, format: u64) -> Result<(), StoreError> {
    let fail = |error: EngineError| failed(path, error);
    let meta = read.open_table(META).map_err(|error| fail(error.into()))?;
    let mut journals = BTreeSet::new();
    for table in read.list_tables().map_err(|error| fail(error.into()))? {
        let name = table.name().to_owned();
        let rows = read.open_table(TableDefinition::<&str, &[u8]>::new(&name)).map_err(|error| fail(error.into()))?;
        let mut sum = Sum::default();
        for row in rows.iter().map_err(|error| fail(error.into()))? {
            let (key, record) = row.map_err(|error| fail(error.into()))?;
            let is_whole = match name.split_once(':') {
                Some(("entries", _)) => {
                    sum.add(record.value());
                    read_entry(key.value(), record.value()).is_some()
                }
                Some(("answers", _)) => are_answers(format, key.value(), record.value()),
                _ => true,
            };
            if !is_whole {
                return Err(damaged(path, &format!("`{}` of table `{name}`", key.value())));
            }
        }
        match name.split_once(':') {
            Some(("entries", namespace)) => check_sum(&meta, path, namespace, sum)?,
            Some(("journal", namespace)) => drop(journals.insert(namespace.to_owned())),
            _ => {}
        }
    }
    // One may also say that it has a journal and have none.
    for row in meta.range("journal:"..).map_err(|error| fail(error.into()))? {
        let (row, _) = row.map_err(|error| fail(error.into()))?;
        let Some(namespace) = row.value().strip_prefix("journal:") else { break };
        journals.insert(namespace.to_owned());
    }
    for namespace in journals {
        read_journal(read, &meta, path, &namespace, |_, _| {})?;
    }
    Ok(())
}

/// Checks that as many entries are there as should be.
pub(crate) fn check_sum(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    path: &Path,
    namespace: &str,
    found: Sum,
) -> Result<(), StoreError> {
    let kept = meta.get(&*sum_row(namespace)).map_err(|error| failed(path, error.into()))?;
    let kept = kept.map_or(Some(Sum::default()), |kept| Sum::read(kept.value()));
    if kept == Some(found) {
        return Ok(());
    }
    let what = format!(
        "namespace `{namespace}` has {} items, and not those {} that it should have",
        found.items,
        kept.map_or(0, |kept| kept.items)
    );
    Err(damaged(path, &what))
}

#[cfg(test)]
pub(crate) mod tests;
