use std::path::PathBuf;
use std::sync::Arc;

use edri_events::Encoding;

use super::*;
use crate::disk::{Books, Disk, commit_for_tests, fold_for_tests, load_for_tests};
use crate::event::milliseconds;
use crate::limits::{JOURNAL_CHANGES_MAX, REMEMBERED_FOR};
use crate::model::{Bounds, Command, If};
use crate::namespace::Namespace;

/// A folder of its own, gone in the end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("edri-store-{name}-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn namespace() -> Arc<Namespace> {
    Arc::new(Namespace::new("things", Bounds::default()))
}

/// Writes so many items into a file, a few at a time; none stay in the journal.
fn filled(path: &Path, items: usize) {
    let (database, mut books) = filled_by(path, items, 7);
    fold_for_tests(&database, "things", &mut books).expect("is folded");
}

/// Writes so many items into a file, so many at a time.
fn filled_by(path: &Path, items: usize, at_once: usize) -> (Database, Books) {
    let (database, namespace, mut books) = (open(path).expect("opens"), namespace(), Books::default());
    for chunk in (0..items).collect::<Vec<_>>().chunks(at_once) {
        let effects = chunk.iter().map(|number| {
            let key: Arc<str> = format!("key/{number}").into();
            let value = Encoding::MessagePack.encode(&"x".repeat(number % 300)).expect("encodes");
            let set = Command::Set { key, value, expires_in: None, only: If::Always };
            namespace.kept.lock().apply(1, Some(&format!("r{number}")), &set).1
        });
        commit_for_tests(&database, &namespace, &mut books, effects.collect()).expect("is written");
    }
    (database, books)
}

/// A namespace as a file has it.
fn namespace_of(database: &Database, path: &Path) -> Arc<Namespace> {
    let namespace = namespace();
    load_for_tests(database, path, &namespace).expect("is whole");
    namespace
}

/// What a file has, as a store that starts reads it.
fn read(path: &Path) -> Result<Vec<(String, Bytes, u64)>, StoreError> {
    let namespace = namespace();
    Disk::open(path, vec![Arc::clone(&namespace)])?.close();
    let page = namespace.kept.lock().page(1, "", None, usize::MAX);
    Ok(page.items.into_iter().map(|(key, entry)| (key.to_string(), entry.value, entry.version)).collect())
}

#[test]
fn what_was_written_is_read_again() {
    let folder = Folder::new("again");
    let path = folder.0.join("deep/store");
    filled(&path, 100);
    let items = read(&path).expect("opens");
    assert_eq!(items.len(), 100);
    assert_eq!(read(&path).expect("opens again"), items);
    let names: Vec<_> = std::fs::read_dir(folder.0.join("deep")).expect("a folder").collect();
    assert_eq!(names.len(), 1, "nothing else is left behind");
}

#[test]
fn what_was_answered_is_remembered_as_long_as_it_is_to_be_and_forgotten_by_whole_records() {
    let folder = Folder::new("answers");
    let path = folder.0.join("store");
    let set = |number: usize| {
        let key: Arc<str> = format!("key/{}", number % 10).into();
        Command::Set { key, value: Bytes::from_static(&[7]), expires_in: None, only: If::Always }
    };
    let window = milliseconds(REMEMBERED_FOR);
    let (mut now, mut given) = (1, Vec::new());
    // Through restarts: what is remembered of all that was given, and how many records there are.
    for (round, (pause, expect)) in
        [(0, 2), (window / 2, 4), (window / 2 - 1, 6), (1, 6), (window, 2)].into_iter().enumerate()
    {
        now += pause;
        let (database, namespace) = (open(&path).expect("opens"), namespace());
        let mut books = load_for_tests(&database, &path, &namespace).expect("is whole");
        for batch in 0..3 {
            let effects: Vec<_> = (0..5)
                .map(|number| {
                    let id = format!("r{round}-{batch}-{number}");
                    let (answer, effects) = namespace.kept.lock().apply(now, Some(&id), &set(number));
                    given.push((id, now, answer));
                    effects
                })
                .collect();
            commit_for_tests(&database, &namespace, &mut books, effects).expect("is written");
            // The last of them stay in the journal until the next round.
            if batch != 2 {
                fold_for_tests(&database, "things", &mut books).expect("is folded");
            }
        }
        drop(database);
        let database = open(&path).expect("opens");
        let read = database.begin_read().expect("begins");
        let name = answers_table("things");
        let table = read.open_table(TableDefinition::<&str, &[u8]>::new(&name)).expect("is there");
        assert_eq!(table.iter().expect("is read").count(), expect, "round {round}");
        drop((table, read));
        let again = namespace_of(&database, &path);
        for (id, at, answer) in &given {
            let (repeated, effects) = again.kept.lock().apply(now, Some(id), &set(0));
            assert_eq!(&repeated == answer && effects.is_empty(), at + window > now, "round {round}: {id}");
        }
    }
}

#[test]
fn a_damaged_record_of_answers_is_told() {
    let folder = Folder::new("damaged-answers");
    let path = folder.0.join("store");
    let (database, mut books) = filled_by(&path, 50, 50);
    fold_for_tests(&database, "things", &mut books).expect("is folded");
    drop(database);
    let whole = std::fs::read(&path).expect("is there");
    let at = (0..whole.len() - 3).rev().find(|at| whole[*at..].starts_with(b"r33")).expect("is in it");
    let mut bytes = whole.clone();
    bytes[at + 2] ^= 1;
    std::fs::write(&path, &bytes).expect("is written");
    let error = read(&path).expect_err("is damaged");
    assert!(error.to_string().contains("the answers `0000000000000000` of namespace `things`"), "{error}");
    let (saved, restored) = (folder.0.join("saved"), folder.0.join("restored"));
    assert!(matches!(restore(&path, &restored), Err(StoreError::Damaged { .. })));
    let salvaged = salvage(&path, &saved).expect("is saved");
    assert_eq!((salvaged.items, salvaged.damaged.len()), (50, 1), "{salvaged:?}");
    assert_eq!(read(&saved).expect("opens").len(), 50);
}

#[test]
fn a_flipped_bit_is_told_and_never_read_as_something_else() {
    let path = |folder: &Folder| folder.0.join("store");
    let folder = Folder::new("flip");
    // At once, so that most of what is in the file is in use.
    let (database, mut books) = filled_by(&path(&folder), 300, 300);
    fold_for_tests(&database, "things", &mut books).expect("is folded");
    drop(database);
    flip_bits(&folder, &path(&folder));
    let folder = Folder::new("flip-journal");
    drop(filled_by(&path(&folder), 300, 60));
    flip_bits(&folder, &path(&folder));
}

fn flip_bits(folder: &Folder, path: &Path) {
    let (expect, whole) = (read(path).expect("opens"), std::fs::read(path).expect("is there"));
    let flipped = folder.0.join("flipped");
    let (mut told, mut unseen, mut older) = (0, 0, 0);
    std::panic::set_hook(Box::new(|_| {}));
    // The header, and a sample of all bytes that are something. Each costs several syncs.
    let something: Vec<_> = (320..whole.len()).filter(|at| whole[*at] != 0).collect();
    let step = something.len() / 60;
    let used = (0..320).step_by(8).chain([9]).chain(something.into_iter().step_by(step.max(1)));
    for at in used {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&flipped, &bytes).expect("is written");
        match read(&flipped) {
            Ok(items) if items == expect => unseen += 1,
            // The header's bit that says which of the two last states is the newer.
            Ok(items) if at < 320 && items.iter().all(|item| expect.contains(item)) => older += 1,
            Ok(items) => panic!("byte {at}: {} items that are not those", items.len()),
            Err(StoreError::Damaged { .. } | StoreError::Io { .. } | StoreError::Newer { .. }) => told += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
        assert!(flipped.exists(), "a store is never deleted");
    }
    let _ = std::panic::take_hook();
    assert!(told > 5, "{told} told, {unseen} without effect, {older} older");
    assert!(older <= 4, "{told} told, {unseen} without effect, {older} older");
}

#[test]
fn a_file_that_is_cut_short_is_refused_and_left_as_it_is() {
    let folder = Folder::new("short");
    let path = folder.0.join("store");
    filled(&path, 60);
    let whole = std::fs::read(&path).expect("is there");
    std::panic::set_hook(Box::new(|_| {}));
    for length in [0, 1, 100, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).expect("is written");
        let error = read(&path).expect_err("is refused");
        assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Io { .. }), "{length}: {error}");
        assert_eq!(std::fs::metadata(&path).expect("is there").len(), length as u64, "{error}");
    }
    let _ = std::panic::take_hook();
    std::fs::write(&path, "something else entirely, that is no database").expect("is written");
    assert!(matches!(read(&path), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_newer_format_is_refused_with_advice() {
    let folder = Folder::new("newer");
    let path = folder.0.join("store");
    filled(&path, 1);
    {
        let database = Database::open(&path).expect("opens");
        let transaction = database.begin_write().expect("begins");
        transaction
            .open_table(META)
            .expect("is there")
            .insert("format", &(FORMAT + 1).to_le_bytes()[..])
            .expect("is written");
        transaction.commit().expect("is written");
    }
    let error = read(&path).expect_err("is refused");
    assert!(matches!(error, StoreError::Newer { found: 4, .. }) && error.to_string().contains("newer one"), "{error}");
}

#[test]
fn a_file_has_one_store() {
    let folder = Folder::new("one");
    let path = folder.0.join("store");
    let first = Disk::open(&path, vec![namespace()]).expect("opens");
    assert!(matches!(Disk::open(&path, vec![namespace()]), Err(StoreError::InUse(_))));
    first.close();
    Disk::open(&path, vec![namespace()]).expect("is free again").close();
}

#[test]
fn what_can_be_read_of_a_damaged_file_is_saved() {
    let folder = Folder::new("salvage");
    let (path, saved) = (folder.0.join("store"), folder.0.join("saved"));
    filled(&path, 100);
    let mut bytes = std::fs::read(&path).expect("is there");
    let value = "x".repeat(99);
    let at = (0..bytes.len() - 99).rev().find(|at| bytes[*at..].starts_with(value.as_bytes())).expect("is in it");
    bytes[at + 50] ^= 1;
    std::fs::write(&path, &bytes).expect("is written");
    let error = read(&path).expect_err("is damaged").to_string();
    assert!(error.contains("salvage") && error.contains("key/"), "{error}");
    let salvaged = salvage(&path, &saved).expect("is saved");
    assert_eq!((salvaged.items, salvaged.damaged.len()), (99, 1), "{salvaged:?}");
    assert_eq!(std::fs::read(&path).expect("is there"), bytes, "left as it is");
    assert_eq!(read(&saved).expect("opens").len(), 99);
    assert!(matches!(salvage(&path, &saved), Err(StoreError::Exists(_))));
}

#[test]
fn a_backup_is_restored_where_nothing_is() {
    let folder = Folder::new("restore");
    let (path, back) = (folder.0.join("store"), folder.0.join("back"));
    filled(&path, 50);
    restore(&path, &back).expect("is restored");
    assert_eq!(read(&back).expect("opens"), read(&path).expect("opens"));
    assert!(matches!(restore(&path, &back), Err(StoreError::Exists(_))));
    assert!(matches!(restore(folder.0.join("nowhere"), folder.0.join("new")), Err(StoreError::Io { .. })));
    assert!(!folder.0.join("new").exists() && !folder.0.join("nowhere").exists());
}

// ---- the journal -------------------------------------------------------------------------------------------------------

/// How many rows a table has, and the first.
fn rows(path: &Path, table: &str) -> (usize, Option<String>) {
    let database = Database::open(path).expect("opens");
    let read = database.begin_read().expect("begins");
    let table = existing(read.open_table(TableDefinition::<&str, &[u8]>::new(table))).expect("is read");
    let Some(table) = table else { return (0, None) };
    let rows: Vec<_> = table.iter().expect("is read").map(|row| row.expect("is read").0.value().to_owned()).collect();
    (rows.len(), rows.into_iter().next())
}

#[test]
fn what_is_in_the_journal_is_read_again_and_folded_once_it_is_long() {
    let folder = Folder::new("journal");
    let path = folder.0.join("store");
    let (database, namespace) = (open(&path).expect("opens"), namespace());
    drop(database);
    let set = |key: usize| {
        let value = Encoding::MessagePack.encode(&key).expect("encodes");
        Command::Set { key: format!("key/{key}").into(), value, expires_in: None, only: If::Always }
    };
    let (mut changes, mut folded) = (0, 0);
    // A restart after each: so what is read is what was written, folded or not.
    for round in 0..45_usize {
        let database = open(&path).expect("opens");
        let fresh = Arc::new(Namespace::new("things", Bounds::default()));
        let mut books = load_for_tests(&database, &path, &fresh).expect("is whole");
        let all = |of: &Namespace| of.kept.lock().page(1, "", None, usize::MAX).items;
        assert_eq!(all(&fresh), all(&namespace), "round {round}");
        assert_eq!(fresh.kept.lock().model().version(), namespace.kept.lock().model().version(), "round {round}");
        let effects: Vec<_> = (0..100)
            .map(|number| {
                let (id, key) = (format!("r{round}-{number}"), round * 10 + number);
                let command = match number % 3 {
                    // Of what was written before, also in records that are folded.
                    0 => Command::Delete { key: format!("key/{}", key.saturating_sub(7)).into(), only: If::Always },
                    _ => set(key),
                };
                namespace.kept.lock().apply(1, Some(&id), &command).1
            })
            .collect();
        changes += effects.iter().map(|effects| effects.changes.len()).sum::<usize>();
        commit_for_tests(&database, &namespace, &mut books, effects).expect("is written");
        drop(database);
        let (records, first) = rows(&path, "journal:things");
        if records == 0 {
            assert!(changes >= JOURNAL_CHANGES_MAX, "round {round}");
            (changes, folded) = (0, folded + 1);
        } else {
            assert!(changes < JOURNAL_CHANGES_MAX, "round {round}");
            // Of the rounds before, one had no record each time that it was folded.
            assert_eq!(first, Some(answers::row((round + 1 - records - folded) as u64)), "round {round}");
        }
    }
    assert!(folded > 0 && changes > 0, "{folded} times, and {changes} changes since");
    assert_eq!(rows(&path, "answers:things").0, folded);
    // What was answered is remembered, wherever it is.
    for id in ["r0-1", "r44-1"] {
        let (database, fresh) = (open(&path).expect("opens"), Arc::new(Namespace::new("things", Bounds::default())));
        load_for_tests(&database, &path, &fresh).expect("is whole");
        assert!(fresh.kept.lock().apply(1, Some(id), &set(1)).1.is_empty(), "{id}");
    }
    let back = folder.0.join("back");
    restore(&path, &back).expect("is restored");
    assert_eq!(read(&back).expect("opens"), read(&path).expect("opens"));
}

#[test]
fn a_journal_that_lacks_something_is_told_and_the_rest_is_saved() {
    let folder = Folder::new("journal-lacks");
    let whole = folder.0.join("store");
    drop(filled_by(&whole, 70, 7));
    let name = journal_table("things");
    let definition = TableDefinition::<&str, &[u8]>::new(&name);
    let cases: [(&str, usize, usize); 5] =
        [("first", 63, 0), ("middle", 63, 0), ("damaged", 69, 1), ("all", 0, 0), ("row", 70, 0)];
    for (case, items, told) in cases {
        let path = folder.0.join(case);
        std::fs::copy(&whole, &path).expect("is copied");
        let database = Database::open(&path).expect("opens");
        let transaction = database.begin_write().expect("begins");
        match case {
            "first" => drop(transaction.open_table(definition).expect("opens").remove(&*answers::row(0))),
            "middle" => drop(transaction.open_table(definition).expect("opens").remove(&*answers::row(5))),
            "damaged" => {
                let mut table = transaction.open_table(definition).expect("opens");
                let mut record = table.get(&*answers::row(5)).expect("is read").expect("is there").value().to_vec();
                *record.last_mut().expect("is long") ^= 1;
                table.insert(&*answers::row(5), &*record).expect("is written");
            }
            "all" => drop(transaction.delete_table(definition).expect("is there")),
            _ => drop(transaction.open_table(META).expect("opens").remove("journal:things")),
        }
        transaction.commit().expect("is written");
        drop(database);
        let error = read(&path).expect_err("is told");
        assert!(matches!(&error, StoreError::Damaged { what, .. } if what.contains("journal")), "{case}: {error}");
        let error = restore(&path, folder.0.join("no")).expect_err("is told");
        assert!(matches!(&error, StoreError::Damaged { what, .. } if what.contains("journal")), "{case}: {error}");
        let saved = folder.0.join(format!("{case}-saved"));
        let salvaged = salvage(&path, &saved).expect("is saved");
        assert_eq!((salvaged.items as usize, salvaged.damaged.len()), (items, told), "{case}: {salvaged:?}");
        assert_eq!(read(&saved).expect("opens").len(), items, "{case}");
    }
    assert_eq!(read(&whole).expect("opens").len(), 70);
}
