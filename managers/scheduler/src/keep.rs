//! Keeps entries in a store, so that they survive a restart.
//!
//! An entry is an item of a namespace under `entry/<node>/<manager>/<id>`. The timer hands over what has changed; of one entry only
//! the newest is written, and what could not be written is tried again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use edri_router::Bus;
use edri_store::{Error, Namespace};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::Entry;
use crate::schedule::Tally;

/// How many entries are written at a time.
const TOGETHER: usize = 64;
/// The pause before what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How many entries a page has when they are read.
const PAGE: usize = 500;
/// How long it is tried to write one.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// An entry as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) entry: Entry,
    /// When it is due next, by the system's clock.
    pub(crate) due: Option<i64>,
    pub(crate) tally: Tally,
}

/// An entry that has changed, or is gone.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) id: Arc<str>,
    pub(crate) record: Option<Box<Record>>,
    /// Who wants to know that it is kept.
    pub(crate) waiting: Vec<oneshot::Sender<Result<(), String>>>,
}

/// Where the entries of a scheduler are kept.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    entries: Namespace<Record>,
    prefix: Arc<str>,
}

impl Keeper {
    pub(crate) fn new(bus: &Bus, namespace: &str) -> Self {
        let me = bus.address();
        let manager = me.manager.as_ref().map(ToString::to_string).unwrap_or_default();
        let prefix = format!("entry/{}/{manager}/", me.node).into();
        Self { entries: Namespace::new(bus, namespace).time_limit(WRITE_LIMIT), prefix }
    }

    /// All entries that are kept, by their ids.
    pub(crate) async fn load(&self) -> Result<Vec<(String, Record)>, Error> {
        let mut loaded = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.entries.list(&self.prefix, after.as_deref(), PAGE).await?;
            let entries = page.items.into_iter().filter_map(|item| {
                let id = item.key.strip_prefix(&*self.prefix)?.to_owned();
                Some((id, item.value))
            });
            loaded.extend(entries);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(loaded),
            }
        }
    }

    /// Writes what has changed until there is nothing more.
    pub(crate) async fn write_all(self, mut changes: mpsc::Receiver<Change>) {
        let mut batch: HashMap<Arc<str>, Change> = HashMap::new();
        loop {
            if batch.is_empty() {
                match changes.recv().await {
                    Some(change) => add(&mut batch, change),
                    None => return,
                }
            }
            while batch.len() < TOGETHER {
                match changes.try_recv() {
                    Ok(change) => add(&mut batch, change),
                    Err(_) => break,
                }
            }
            let written = join_all(batch.drain().map(|(_, change)| self.write(change))).await;
            for change in written.into_iter().flatten() {
                add(&mut batch, change);
            }
            if !batch.is_empty() {
                if changes.is_closed() && changes.is_empty() {
                    tracing::error!(
                        entries = batch.len(),
                        "the scheduler ends, and the store has not got what changed last"
                    );
                    return;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Writes a change, or gives it back.
    async fn write(&self, mut change: Change) -> Option<Change> {
        let key = format!("{}{}", self.prefix, change.id);
        let written = match &change.record {
            Some(record) => self.entries.set(&key, &**record).await.map(drop),
            None => self.entries.delete(&key).await.map(drop),
        };
        let told = written.as_ref().copied().map_err(ToString::to_string);
        for waiting in change.waiting.drain(..) {
            // Who does not wait any more need not know.
            let _ = waiting.send(told.clone());
        }
        let error = written.err()?;
        tracing::warn!(entry = %change.id, %error, "an entry is not kept yet, and is tried again");
        Some(change)
    }
}

/// Of one entry the newest counts.
fn add(batch: &mut HashMap<Arc<str>, Change>, mut change: Change) {
    if let Some(older) = batch.remove(&change.id) {
        change.waiting.extend(older.waiting);
    }
    batch.insert(Arc::clone(&change.id), change);
}
