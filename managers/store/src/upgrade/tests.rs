use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::disk::Disk;
use crate::file::tests::Folder;
use crate::file::{Sum, answers_table, entries_table, restore, salvage, sum_row, version_row, write_entry};
use crate::model::{Answer, Bounds, Command, Entry, If};
use crate::namespace::Namespace;
use crate::raw::Writer;

/// As format 1 had it.
fn write_answer(remembered: &Remembered) -> Vec<u8> {
    let mut answer = Writer::default();
    ask::write_answer(&mut answer, &remembered.answer);
    let mut record = Vec::with_capacity(16 + answer.0.len());
    record.extend(remembered.at.to_le_bytes());
    record.extend(checksum(&[remembered.id.as_bytes(), &record, &answer.0]).to_le_bytes());
    record.extend(answer.0);
    record
}

const NAMESPACES: [&str; 2] = ["things", "others"];

fn id(number: usize) -> String {
    // Not in the order in which they were given.
    format!("{:03}-r{number}", number * 7 % 1000)
}

/// A file of format 1 with so many items in each namespace, and as many answers.
fn write_format_1(path: &Path, items: usize) {
    write_old(path, 1, items);
}

/// A file of format 1 or 2.
fn write_old(path: &Path, format: u64, items: usize) {
    let database = Database::builder().create_with_file_format_v3(true).create(path).expect("is made");
    let transaction = database.begin_write().expect("begins");
    {
        let mut meta = transaction.open_table(META).expect("opens");
        meta.insert("format", &format.to_le_bytes()[..]).expect("is written");
        for namespace in NAMESPACES {
            let (mut sum, names) = (Sum::default(), (entries_table(namespace), answers_table(namespace)));
            let mut entries = transaction.open_table(TableDefinition::<&str, &[u8]>::new(&names.0)).expect("opens");
            let mut table = transaction.open_table(TableDefinition::<&str, &[u8]>::new(&names.1)).expect("opens");
            let mut given = Vec::new();
            for number in 0..items {
                let version = number as u64 + 1;
                let key = format!("key/{number}");
                let record = write_entry(&key, &Entry::new(Bytes::from_static(&[7]), version, None));
                sum.add(&record);
                entries.insert(&*key, &*record).expect("is written");
                let answer = Answer::Written { version };
                let remembered = Remembered { id: id(number).into(), at: version, answer };
                if format == 1 {
                    table.insert(&*remembered.id, &*write_answer(&remembered)).expect("is written");
                }
                given.push(remembered);
            }
            if format == 2 {
                // Each transaction had a record.
                for (number, given) in (3..).zip(given.chunks(7)) {
                    let row = answers::row(number);
                    table.insert(&*row, &*answers::write(&row, given)).expect("is written");
                }
            }
            meta.insert(&*version_row(namespace), &(items as u64).to_le_bytes()[..]).expect("is written");
            meta.insert(&*sum_row(namespace), &*sum.write()).expect("is written");
        }
    }
    transaction.commit().expect("is written");
}

fn format(path: &Path) -> u64 {
    let database = Database::open(path).expect("opens");
    let read = database.begin_read().expect("begins");
    let meta = read.open_table(META).expect("is there");
    let format = meta.get("format").expect("is read").expect("is there");
    read_count(format.value()).expect("is a number")
}

/// Opens a store of both namespaces and closes it again.
fn opened(path: &Path) -> Result<Vec<Arc<Namespace>>, StoreError> {
    let namespaces = NAMESPACES.map(|name| Arc::new(Namespace::new(name, Bounds::default()))).to_vec();
    Disk::open(path, namespaces.clone())?.close();
    Ok(namespaces)
}

fn set(key: &str) -> Command {
    Command::Set { key: key.into(), value: Bytes::from_static(&[8]), expires_in: None, only: If::Always }
}

/// Looks whether all items are there, and what was done is not done again.
fn check(namespaces: &[Arc<Namespace>], items: usize) {
    for namespace in namespaces {
        let mut kept = namespace.kept.lock();
        assert_eq!(kept.count(1, ""), items as u64);
        for number in 0..items {
            let (answer, effects) = kept.apply(items as u64 + 1, Some(&id(number)), &set("key/0"));
            assert_eq!(answer, Ok(Answer::Written { version: number as u64 + 1 }), "{number}");
            assert!(effects.is_empty());
        }
        let (answer, _) = kept.apply(items as u64 + 1, Some("new"), &set("key/0"));
        assert_eq!(answer, Ok(Answer::Written { version: items as u64 + 1 }));
    }
}

#[test]
fn a_file_of_format_1_is_brought_to_the_format_of_today_and_forgets_nothing() {
    let folder = Folder::new("format-1");
    let path = folder.0.join("store");
    for items in [0, 1, 2500] {
        write_format_1(&path, items);
        assert_eq!(format(&path), 1);
        for _ in 0..2 {
            check(&opened(&path).expect("opens"), items);
            assert_eq!(format(&path), FORMAT);
        }
        let database = Database::open(&path).expect("opens");
        let read = database.begin_read().expect("begins");
        let name = answers_table(NAMESPACES[0]);
        let table = read.open_table(TableDefinition::<&str, &[u8]>::new(&name)).expect("is there");
        let rows: Vec<_> =
            table.iter().expect("is read").map(|row| row.expect("is read").0.value().to_owned()).collect();
        let expect: Vec<_> = (0..items.div_ceil(ANSWERS_AT_ONCE) as u64).map(answers::row).collect();
        assert_eq!(rows, expect);
        drop((table, read, database));
        std::fs::remove_file(&path).expect("is there");
    }
}

#[test]
fn one_whose_answers_are_damaged_is_refused_and_stays_as_it_was() {
    let folder = Folder::new("format-1-damaged");
    let path = folder.0.join("store");
    write_format_1(&path, 50);
    {
        let database = Database::open(&path).expect("opens");
        let transaction = database.begin_write().expect("begins");
        // The one that is read last.
        let name = answers_table(NAMESPACES[0]);
        let mut table = transaction.open_table(TableDefinition::<&str, &[u8]>::new(&name)).expect("is there");
        table.insert("zzz", &[0; 20][..]).expect("is written");
        drop(table);
        transaction.commit().expect("is written");
    }
    let error = opened(&path).expect_err("is refused");
    assert!(matches!(&error, StoreError::Damaged { what, .. } if what.contains("`zzz`")), "{error}");
    assert_eq!(format(&path), 1);
    let saved = folder.0.join("saved");
    let salvaged = salvage(&path, &saved).expect("is saved");
    assert_eq!((salvaged.items, salvaged.damaged.len()), (100, 1), "{salvaged:?}");
    check(&opened(&saved).expect("opens"), 50);
}

#[test]
fn a_backup_of_format_1_is_restored_and_stays_as_it_was() {
    let folder = Folder::new("format-1-backup");
    let (backup, path) = (folder.0.join("backup"), folder.0.join("store"));
    write_format_1(&backup, 50);
    restore(&backup, &path).expect("is restored");
    assert_eq!(format(&backup), 1);
    check(&opened(&path).expect("opens"), 50);
    assert_eq!((format(&backup), format(&path)), (1, FORMAT));
}

#[test]
fn a_file_of_format_2_is_brought_to_the_format_of_today_and_forgets_nothing() {
    let folder = Folder::new("format-2");
    let (path, backup) = (folder.0.join("store"), folder.0.join("backup"));
    for items in [0, 1, 2500] {
        write_old(&path, 2, items);
        std::fs::copy(&path, &backup).expect("is copied");
        for _ in 0..2 {
            check(&opened(&path).expect("opens"), items);
            assert_eq!(format(&path), FORMAT);
        }
        std::fs::remove_file(&path).expect("is there");
        restore(&backup, &path).expect("is restored");
        check(&opened(&path).expect("opens"), items);
        assert_eq!((format(&backup), format(&path)), (2, FORMAT));
        std::fs::remove_file(&path).expect("is there");
    }
}

#[test]
fn one_whose_node_is_killed_on_the_way_is_brought_to_it_by_the_next() {
    let folder = Folder::new("format-killed");
    let (path, killed) = (folder.0.join("store"), folder.0.join("killed"));
    for old in [1, 2] {
        write_old(&path, old, 2500);
        let database = Database::open(&path).expect("opens");
        let transaction = database.begin_write().expect("begins");
        prepare(&transaction, old, &path).expect("is whole");
        // What a kill at this moment leaves.
        std::fs::copy(&path, &killed).expect("is copied");
        transaction.commit().expect("is written");
        std::mem::forget(database);
        for path in [&killed, &path] {
            // The engine keeps what it has open locked, so the second is looked at as a copy too.
            let again = folder.0.join("again");
            std::fs::copy(path, &again).expect("is copied");
            check(&opened(&again).expect("opens"), 2500);
            assert_eq!(format(&again), FORMAT);
            std::fs::remove_file(&again).expect("is there");
        }
        for path in [&killed, &path] {
            std::fs::remove_file(path).expect("is there");
        }
    }
}
