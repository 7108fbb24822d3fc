//! The file of a durable store, and the one thread that writes it.
//!
//! ```text
//! worker ── Work ──▶ queue ──▶ writer: all that waits ─▶ one transaction, one fsync ─▶ shown, answered
//! ```
//!
//! The file is a redb database. Every record carries a checksum of its own, because everything is read when the store is
//! opened and redb checks its pages only after a crash.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edri_events::Failure;
use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use crate::answers::{self, Ledger};
use crate::file::{self, EngineError, StoreError};
use crate::journal::{self, Journal};
use crate::limits::WRITES_WAITING_MAX;
use crate::model::{Answer, Bounds, Effects, Model, Remembered};
use crate::namespace::{Namespace, Replying};

/// How often a file that failed is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// How often the writer of a file that failed looks whether it is still wanted.
const REOPEN_POLL: Duration = Duration::from_millis(50);
/// Which part of the time that a transaction takes those who are likely to come are waited for, and how long at most.
const GATHERING_PART: u32 = 4;
const GATHERING_MAX: Duration = Duration::from_millis(1);
const GATHERING_STEP: Duration = Duration::from_micros(50);
/// The most bytes of one transaction; what is over waits for the next.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// Something for the writer to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// Keeps these effects, which the namespace holds, then answers.
    Write { namespace: Arc<Namespace>, effects: Effects, reply: Option<(Replying, Result<Answer, Failure>)> },
    /// Copies what is kept into another file.
    Backup { to: PathBuf, done: oneshot::Sender<Result<(), StoreError>> },
}

/// Its file, and its writer at work.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) queue: mpsc::Sender<Work>,
    writer: std::thread::JoinHandle<()>,
}

impl Disk {
    /// Opens the file, puts what it has into the namespaces, and starts the writer. Takes as long as reading the file does.
    pub(crate) fn open(path: &Path, namespaces: Vec<Arc<Namespace>>) -> Result<Self, StoreError> {
        let database = file::open(path)?;
        let loaded = load(&database, path, &namespaces)?;
        let books = show_loaded(&namespaces, loaded);
        let (queue, work) = mpsc::channel(WRITES_WAITING_MAX);
        let mut writer = Writer { path: path.to_owned(), database: Some(database), namespaces, books, work };
        let writer = std::thread::Builder::new()
            .name("edri-store".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| StoreError::Io { path: path.to_owned(), what: "start the writer of", source })?;
        Ok(Self { queue, writer })
    }

    /// Ends the writer once it has done what waits, and closes the file.
    pub(crate) fn close(self) {
        drop(self.queue);
        if self.writer.join().is_err() {
            tracing::error!("the writer of a store panicked");
        }
    }
}

/// What is known of a namespace's tables.
#[derive(Debug, Default)]
pub(crate) struct Books {
    journal: Journal,
    ledger: Ledger,
}

/// A namespace as it is in the file.
type Loaded = (Model, Books);

/// Reads every record.
fn load(database: &Database, path: &Path, namespaces: &[Arc<Namespace>]) -> Result<Vec<Loaded>, StoreError> {
    let read =
        || namespaces.iter().map(|namespace| load_one(database, path, &namespace.name, namespace.bounds)).collect();
    file::guarded(path, read)
}

/// Puts what was read into the namespaces; what their tables have.
fn show_loaded(namespaces: &[Arc<Namespace>], loaded: Vec<Loaded>) -> Vec<Books> {
    let show = |(namespace, (model, books)): (&Arc<Namespace>, Loaded)| {
        namespace.kept.lock().load(model);
        books
    };
    namespaces.iter().zip(loaded).map(show).collect()
}

fn load_one(database: &Database, path: &Path, namespace: &str, bounds: Bounds) -> Result<Loaded, StoreError> {
    let fail = |source: EngineError| file::failed(path, source);
    let (mut model, mut ledger) = (Model::new(bounds), Ledger::default());
    let read = database.begin_read().map_err(|error| fail(error.into()))?;
    let meta = read.open_table(file::META).map_err(|error| fail(error.into()))?;
    if let Some(version) = meta.get(&*file::version_row(namespace)).map_err(|error| fail(error.into()))? {
        model.restore_version(file::read_count(version.value()).ok_or_else(|| file::damaged(path, "its version"))?);
    }
    let (name, mut sum) = (file::entries_table(namespace), file::Sum::default());
    if let Some(table) = file::existing(read.open_table(TableDefinition::<&str, &[u8]>::new(&name))).map_err(fail)? {
        for row in table.iter().map_err(|error| fail(error.into()))? {
            let (key, record) = row.map_err(|error| fail(error.into()))?;
            let what = || format!("the item `{}` of namespace `{namespace}`", key.value());
            let entry = file::read_entry(key.value(), record.value()).ok_or_else(|| file::damaged(path, &what()))?;
            model.restore(key.value().into(), entry);
            sum.add(record.value());
        }
    }
    file::check_sum(&meta, path, namespace, sum)?;
    let name = file::answers_table(namespace);
    if let Some(table) = file::existing(read.open_table(TableDefinition::<&str, &[u8]>::new(&name))).map_err(fail)? {
        for row in table.iter().map_err(|error| fail(error.into()))? {
            let (row, record) = row.map_err(|error| fail(error.into()))?;
            let what = || format!("the answers `{}` of namespace `{namespace}`", row.value());
            let read = answers::number(row.value()).zip(answers::read(row.value(), record.value()));
            let (number, answers) = read.ok_or_else(|| file::damaged(path, &what()))?;
            ledger.add(number, answers.iter().map(|answer| answer.at));
            answers.into_iter().for_each(|answer| model.restore_answer(answer));
        }
    }
    let mut books = Books { journal: Journal::default(), ledger };
    books.journal = file::read_journal(&read, &meta, path, namespace, |answers, changes| {
        for change in changes {
            match &change.entry {
                Some(entry) => model.restore(Arc::clone(&change.key), entry.clone()),
                None => model.restore_removed(&change.key, change.version),
            }
        }
        answers.iter().for_each(|answer| model.restore_answer(answer.clone()));
    })?;
    Ok((model, books))
}

/// The thread that writes.
struct Writer {
    path: PathBuf,
    /// None after an error, until it could be opened again.
    database: Option<Database>,
    namespaces: Vec<Arc<Namespace>>,
    /// What is known of their tables, in the same order.
    books: Vec<Books>,
    work: mpsc::Receiver<Work>,
}

/// A write of a batch.
struct Write {
    namespace: Arc<Namespace>,
    effects: Effects,
    reply: Option<(Replying, Result<Answer, Failure>)>,
}

/// How long the writer waits for more when it has something. Those whom it has just answered are likely to write again at
/// once: together they cost one transaction, and a transaction costs about the same for one as for a few dozen.
#[derive(Debug, Default)]
struct Gathering {
    /// How many are likely to come: those who were answered, and those who had come meanwhile.
    expected: usize,
    /// How long they are worth waiting for.
    pause: Duration,
}

impl Gathering {
    /// After a transaction that took so long.
    fn after(answered: usize, waiting: usize, took: Duration) -> Self {
        Self { expected: answered + waiting, pause: (took / GATHERING_PART).min(GATHERING_MAX) }
    }

    /// Whether to wait on, with so many there and after so long.
    fn goes_on(&self, here: usize, waited: Duration) -> bool {
        here < self.expected && waited < self.pause
    }
}

impl Writer {
    fn run(&mut self) {
        let mut gathering = Gathering::default();
        while let Some(first) = self.work.blocking_recv() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            self.take(first, &mut batch, &mut bytes);
            let began = Instant::now();
            while batch.len() < WRITES_WAITING_MAX && bytes < BATCH_BYTES_MAX {
                match self.work.try_recv() {
                    Ok(work) => self.take(work, &mut batch, &mut bytes),
                    Err(TryRecvError::Empty) if gathering.goes_on(batch.len(), began.elapsed()) => {
                        std::thread::sleep(GATHERING_STEP);
                    }
                    Err(_) => break,
                }
            }
            let (answered, began) = (batch.len(), Instant::now());
            self.write(batch);
            gathering = Gathering::after(answered, self.work.len(), began.elapsed());
        }
    }

    fn take(&self, work: Work, batch: &mut Vec<Write>, bytes: &mut usize) {
        match work {
            Work::Write { namespace, effects, reply } => {
                *bytes += effects.changes.iter().map(change_bytes).sum::<usize>();
                batch.push(Write { namespace, effects, reply });
            }
            Work::Backup { to, done } => self.back_up(to, done),
        }
    }

    fn write(&mut self, batch: Vec<Write>) {
        if batch.is_empty() {
            return;
        }
        let Some(database) = &self.database else { return self.fail(batch, "its file is closed".to_owned()) };
        let written = file::guarded(&self.path, || {
            let written = commit(database, &self.namespaces, &mut self.books, &batch);
            written.map_err(|error| file::failed(&self.path, error))
        });
        match written {
            Ok(()) => self.show(batch),
            Err(error) => {
                self.fail(batch, error.to_string());
                self.reopen();
            }
        }
    }

    /// Shows what is on disk, in one step for each namespace, then answers.
    fn show(&self, batch: Vec<Write>) {
        for namespace in &self.namespaces {
            let mut writes = batch.iter().filter(|write| Arc::ptr_eq(&write.namespace, namespace)).peekable();
            if writes.peek().is_none() {
                continue;
            }
            let mut kept = namespace.kept.lock();
            for write in writes {
                kept.release(&write.effects.changes);
                namespace.announce(&write.effects.changes);
            }
        }
        for write in batch {
            if let Some((replying, answer)) = write.reply {
                replying.send(answer);
            }
        }
    }

    /// Takes back what could not be written and all that was built on it, and takes no more.
    fn fail(&mut self, mut batch: Vec<Write>, because: String) {
        tracing::error!(path = %self.path.display(), because, "the store's file cannot be written");
        let failure = Failure::new(
            "storage_failed",
            format!(
                "{because}; whether this write was kept is not certain: read again, or send it again under the same \
                 request id, once the store writes again; it tries to every second"
            ),
        );
        // First, so that nothing is added to what is taken back.
        let mut locked: Vec<_> = self.namespaces.iter().map(|namespace| namespace.kept.lock()).collect();
        while let Ok(work) = self.work.try_recv() {
            match work {
                Work::Write { namespace, effects, reply } => batch.push(Write { namespace, effects, reply }),
                Work::Backup { done, .. } => {
                    let _ = done.send(Err(StoreError::Closed));
                }
            }
        }
        let mut replies = Vec::new();
        let mut effects: Vec<Vec<Effects>> = self.namespaces.iter().map(|_| Vec::new()).collect();
        for write in batch {
            let index = self.namespaces.iter().position(|namespace| Arc::ptr_eq(namespace, &write.namespace));
            if let Some(index) = index {
                effects[index].push(write.effects);
            }
            replies.extend(write.reply.map(|(replying, _)| replying));
        }
        for (kept, effects) in locked.iter_mut().zip(effects) {
            kept.take_back(effects);
            kept.halted = Some(failure.clone());
        }
        drop(locked);
        for replying in replies {
            replying.send(Err(failure.clone()));
        }
    }

    /// Opens the file again, as often as it takes: after an error it decides what was kept.
    fn reopen(&mut self) {
        self.database = None;
        loop {
            let opened = file::open(&self.path).and_then(|database| {
                let loaded = load(&database, &self.path, &self.namespaces)?;
                // So that a disk that is still full is known before anybody is promised anything.
                let commit = || commit(&database, &[], &mut [], &[]).map_err(|error| file::failed(&self.path, error));
                file::guarded(&self.path, commit)?;
                Ok((database, loaded))
            });
            match opened {
                Ok((database, loaded)) => {
                    self.books = show_loaded(&self.namespaces, loaded);
                    tracing::warn!(path = %self.path.display(), "the store's file can be written again");
                    self.database = Some(database);
                    return;
                }
                Err(error) => tracing::error!(path = %self.path.display(), %error, "opening the store's file again"),
            }
            let mut waited = Duration::ZERO;
            while waited < REOPEN_PAUSE {
                std::thread::sleep(REOPEN_POLL);
                waited += REOPEN_POLL;
                match self.work.try_recv() {
                    Ok(Work::Backup { done, .. }) => {
                        let _ = done.send(Err(StoreError::Closed));
                    }
                    Ok(Work::Write { namespace, effects, reply }) => {
                        let because = "its file cannot be written".to_owned();
                        self.fail(vec![Write { namespace, effects, reply }], because);
                    }
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
    }

    /// Copies what is on disk at this moment, on a thread of its own: writers do not wait for it.
    fn back_up(&self, to: PathBuf, done: oneshot::Sender<Result<(), StoreError>>) {
        let Some(database) = &self.database else {
            let _ = done.send(Err(StoreError::Closed));
            return;
        };
        let read = match database.begin_read() {
            Ok(read) => read,
            Err(error) => {
                let _ = done.send(Err(file::failed(&self.path, error.into())));
                return;
            }
        };
        let path = self.path.clone();
        let copying = move || {
            let copied = file::guarded(&path, || file::copy(&read, &path, &to));
            // Whoever asked may have stopped waiting; the copy is there all the same.
            let _ = done.send(copied);
        };
        if let Err(error) = std::thread::Builder::new().name("edri-store-backup".to_owned()).spawn(copying) {
            tracing::error!(%error, "starting a backup");
        }
    }
}

fn change_bytes(change: &crate::model::Change) -> usize {
    change.key.len() + change.after.as_ref().map_or(0, |entry| entry.value.len())
}

/// Writes a batch in one transaction. When this returns, it is on disk. After an error the books are to be read again.
fn commit(
    database: &Database,
    namespaces: &[Arc<Namespace>],
    books: &mut [Books],
    batch: &[Write],
) -> Result<(), EngineError> {
    let transaction = database.begin_write()?;
    for (namespace, books) in namespaces.iter().zip(books) {
        let of_it = batch.iter().filter(|write| Arc::ptr_eq(&write.namespace, namespace) && !write.effects.is_empty());
        let effects = of_it.map(|write| &write.effects);
        if effects.clone().next().is_none() {
            continue;
        }
        effects.clone().for_each(|effects| books.journal.note(effects));
        if books.journal.is_full() {
            fold(&transaction, &namespace.name, books)?;
        } else {
            record(&transaction, &namespace.name, &mut books.journal, effects)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Writes into the journal what a transaction does.
fn record<'a>(
    transaction: &WriteTransaction,
    namespace: &str,
    journal: &mut Journal,
    effects: impl Iterator<Item = &'a Effects> + Clone,
) -> Result<(), EngineError> {
    if journal.records() == 0 {
        let begun = file::write_begun(journal.next(), true);
        transaction.open_table(file::META)?.insert(&*file::journal_row(namespace), &begun[..])?;
    }
    let name = file::journal_table(namespace);
    let mut table = transaction.open_table(TableDefinition::<&str, &[u8]>::new(&name))?;
    let row = answers::row(journal.next());
    table.insert(&*row, &*journal::write(&row, effects))?;
    journal.recorded();
    Ok(())
}

/// Puts what is in the journal, and what was only noted, among the entries and the answers; the journal begins anew.
fn fold(transaction: &WriteTransaction, namespace: &str, books: &mut Books) -> Result<(), EngineError> {
    let unfolded = books.journal.fold();
    let mut meta = transaction.open_table(file::META)?;
    let name = file::entries_table(namespace);
    let mut entries = transaction.open_table(TableDefinition::<&str, &[u8]>::new(&name))?;
    let sum_row = file::sum_row(namespace);
    let kept = meta.get(&*sum_row)?.map(|sum| file::Sum::read(sum.value()));
    let damaged = || redb::StorageError::Corrupted(format!("the sum of namespace `{namespace}`"));
    let mut sum = kept.map_or(Ok(file::Sum::default()), |kept| kept.ok_or_else(damaged))?;
    for (key, entry) in &unfolded.entries {
        let old = match entry {
            Some(entry) => {
                let record = file::write_entry(key, entry);
                sum.add(&record);
                entries.insert(&**key, &*record)?
            }
            None => entries.remove(&**key)?,
        };
        old.iter().for_each(|old| sum.take(old.value()));
    }
    meta.insert(&*sum_row, &*sum.write())?;
    if let Some(version) = unfolded.version {
        meta.insert(&*file::version_row(namespace), &version.to_le_bytes()[..])?;
    }
    remember(transaction, namespace, &mut books.ledger, &unfolded.answers)?;
    let name = file::journal_table(namespace);
    transaction.delete_table(TableDefinition::<&str, &[u8]>::new(&name))?;
    meta.insert(&*file::journal_row(namespace), &file::write_begun(books.journal.next(), false)[..])?;
    Ok(())
}

/// Writes answers, and takes out those that need not be remembered any more.
fn remember(
    transaction: &WriteTransaction,
    namespace: &str,
    ledger: &mut Ledger,
    answers: &[Remembered],
) -> Result<(), EngineError> {
    let Some(now) = answers.iter().map(|answer| answer.at).max() else { return Ok(()) };
    let name = file::answers_table(namespace);
    let mut table = transaction.open_table(TableDefinition::<&str, &[u8]>::new(&name))?;
    let number = ledger.next();
    let row = answers::row(number);
    table.insert(&*row, &*answers::write(&row, answers))?;
    ledger.add(number, answers.iter().map(|answer| answer.at));
    while let Some(old) = ledger.forget(now) {
        table.remove(&*answers::row(old))?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) fn load_for_tests(
    database: &Database,
    path: &Path,
    namespace: &Arc<Namespace>,
) -> Result<Books, StoreError> {
    let namespaces = std::slice::from_ref(namespace);
    Ok(show_loaded(namespaces, load(database, path, namespaces)?).pop().expect("one for each"))
}

#[cfg(test)]
pub(crate) fn commit_for_tests(
    database: &Database,
    namespace: &Arc<Namespace>,
    books: &mut Books,
    effects: Vec<Effects>,
) -> Result<(), EngineError> {
    let write = |effects| Write { namespace: Arc::clone(namespace), effects, reply: None };
    let batch: Vec<_> = effects.into_iter().map(write).collect();
    commit(database, std::slice::from_ref(namespace), std::slice::from_mut(books), &batch)
}

/// Folds the journal of a namespace however long it is.
#[cfg(test)]
pub(crate) fn fold_for_tests(database: &Database, namespace: &str, books: &mut Books) -> Result<(), EngineError> {
    let transaction = database.begin_write()?;
    fold(&transaction, namespace, books)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_writes_alone_waits_for_nobody_and_others_not_long() {
        let fresh = Gathering::default();
        assert!(!fresh.goes_on(1, Duration::ZERO));
        let alone = Gathering::after(1, 0, Duration::from_millis(2));
        assert!(!alone.goes_on(1, Duration::ZERO));
        let many = Gathering::after(30, 34, Duration::from_millis(2));
        assert!(many.goes_on(63, Duration::from_micros(499)));
        assert!(!many.goes_on(63, Duration::from_micros(500)));
        assert!(!many.goes_on(64, Duration::ZERO));
        let slow = Gathering::after(30, 34, Duration::from_secs(1));
        assert!(!slow.goes_on(1, GATHERING_MAX));
    }
}
