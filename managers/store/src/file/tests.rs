use std::path::PathBuf;
use std::sync::Arc;

use edri_events::Encoding;

use super::*;
use crate::answers::Ledger;
use crate::disk::{Disk, commit_for_tests, load_for_tests};
use crate::event::milliseconds;
use crate::limits::REMEMBERED_FOR;
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

/// Writes so many items into a file, a few at a time.
fn filled(path: &Path, items: usize) {
    filled_by(path, items, 7);
}

/// Writes so many items into a file, so many at a time.
fn filled_by(path: &Path, items: usize, at_once: usize) {
    let (database, namespace, mut ledger) = (open(path).expect("opens"), namespace(), Ledger::default());
    for chunk in (0..items).collect::<Vec<_>>().chunks(at_once) {
        let effects = chunk.iter().map(|number| {
            let key: Arc<str> = format!("key/{number}").into();
            let value = Encoding::MessagePack.encode(&"x".repeat(number % 300)).expect("encodes");
            let set = Command::Set { key, value, expires_in: None, only: If::Always };
            namespace.kept.lock().apply(1, Some(&format!("r{number}")), &set).1
        });
        commit_for_tests(&database, &namespace, &mut ledger, effects.collect()).expect("is written");
    }
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
        [(0, 3), (window / 2, 6), (window / 2 - 1, 9), (1, 9), (window, 3)].into_iter().enumerate()
    {
        now += pause;
        let (database, namespace) = (open(&path).expect("opens"), namespace());
        let mut ledger = load_for_tests(&database, &path, &namespace).expect("is whole");
        for batch in 0..3 {
            let effects: Vec<_> = (0..5)
                .map(|number| {
                    let id = format!("r{round}-{batch}-{number}");
                    let (answer, effects) = namespace.kept.lock().apply(now, Some(&id), &set(number));
                    given.push((id, now, answer));
                    effects
                })
                .collect();
            commit_for_tests(&database, &namespace, &mut ledger, effects).expect("is written");
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
    filled_by(&path, 50, 50);
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
    let folder = Folder::new("flip");
    let path = folder.0.join("store");
    // At once, so that most of what is in the file is in use.
    filled_by(&path, 300, 300);
    let (expect, whole) = (read(&path).expect("opens"), std::fs::read(&path).expect("is there"));
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
    assert!(matches!(error, StoreError::Newer { found: 3, .. }) && error.to_string().contains("newer one"), "{error}");
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
