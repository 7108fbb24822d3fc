//! Files of older formats, as far as they differ from those of today.
//!
//! ```text
//! format 2              no journals
//! format 1              nor these:  table answers:<ns>    id of a request ─▶ answered at 8, checksum 8, answer
//! ```

use std::path::Path;

use redb::{Database, ReadableTable, TableDefinition, TableHandle, WriteTransaction};

use crate::file::{EngineError, FORMAT, META, StoreError, checksum, damaged, failed, read_count};
use crate::model::Remembered;
use crate::{answers, ask};

/// How many answers become one record.
const ANSWERS_AT_ONCE: usize = 1024;

/// Makes a file of an older format one of today's, in one transaction: wholly or not at all.
pub(crate) fn from_format(format: u64, database: &Database, path: &Path) -> Result<(), StoreError> {
    let fail = |error: EngineError| failed(path, error);
    let transaction = database.begin_write().map_err(|error| fail(error.into()))?;
    prepare(&transaction, format, path)?;
    transaction.commit().map_err(|error| fail(error.into()))?;
    tracing::info!(path = %path.display(), from = format, to = FORMAT, "a store's file was brought to the format of this version");
    Ok(())
}

/// Does all of it, but for the commit.
fn prepare(transaction: &WriteTransaction, format: u64, path: &Path) -> Result<(), StoreError> {
    let fail = |error: EngineError| failed(path, error);
    if format == 1 {
        gather_answers(transaction, path)?;
    }
    // A file without journals is one whose journals have nothing, and older versions would not look for them.
    let mut meta = transaction.open_table(META).map_err(|error| fail(error.into()))?;
    meta.insert("format", &FORMAT.to_le_bytes()[..]).map_err(|error| fail(error.into()))?;
    Ok(())
}

/// Makes the answers of format 1 those of today.
fn gather_answers(transaction: &WriteTransaction, path: &Path) -> Result<(), StoreError> {
    let fail = |error: EngineError| failed(path, error);
    let tables = transaction.list_tables().map_err(|error| fail(error.into()))?;
    let names: Vec<_> =
        tables.map(|table| table.name().to_owned()).filter(|name| name.starts_with("answers:")).collect();
    for name in &names {
        let definition = TableDefinition::<&str, &[u8]>::new(name);
        let mut read = Vec::new();
        {
            let table = transaction.open_table(definition).map_err(|error| fail(error.into()))?;
            for row in table.iter().map_err(|error| fail(error.into()))? {
                let (id, record) = row.map_err(|error| fail(error.into()))?;
                let what = || format!("`{}` of table `{name}`", id.value());
                read.push(read_answer(id.value(), record.value()).ok_or_else(|| damaged(path, &what()))?);
            }
        }
        read.sort_by_key(|answer| answer.at);
        transaction.delete_table(definition).map_err(|error| fail(error.into()))?;
        let mut table = transaction.open_table(definition).map_err(|error| fail(error.into()))?;
        for (number, answers) in (0..).zip(read.chunks(ANSWERS_AT_ONCE)) {
            let row = answers::row(number);
            table.insert(&*row, &*answers::write(&row, answers)).map_err(|error| fail(error.into()))?;
        }
    }
    Ok(())
}

pub(crate) fn read_answer(id: &str, record: &[u8]) -> Option<Remembered> {
    let (head, rest) = record.split_at_checked(8)?;
    let (sum, answer) = rest.split_at_checked(8)?;
    if read_count(sum)? != checksum(&[id.as_bytes(), head, answer]) {
        return None;
    }
    Some(Remembered { id: id.into(), at: read_count(head)?, answer: ask::read_answer(answer)? })
}

#[cfg(test)]
mod tests;
