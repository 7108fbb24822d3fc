//! The latest quake of each region, kept in a store.
//!
//! A region's latest changes with nearly every quake, and only the newest counts. So the worker does not wait for the store: it
//! hands quakes to a task that has one transaction open at a time, and what comes meanwhile is gathered for the next. The faster
//! quakes come, the more of them are one write; a full queue makes the worker wait, and so those who publish.

use std::collections::{BTreeMap, HashMap};

use edri::prelude::*;
use edri::store::limits::{KEY_BYTES_MAX, TRANSACTION_MAX};
use tokio::sync::{mpsc, oneshot};

use crate::events::{LatestQuake, LatestSaved, QuakeRecorded, SaveLatest};

/// The namespace of the store; its keys are the regions.
pub(crate) const NAMESPACE: &str = "latest";
/// How many quakes may wait for the task that writes.
const QUEUE: usize = 1024;
/// How many regions are read at a time.
const PAGE: usize = 1000;

/// Hands every quake to the task that keeps the latest.
#[derive(Default)]
pub(crate) struct Latest {
    writer: Option<mpsc::Sender<Told>>,
}

/// What the task is told.
enum Told {
    Quake(String, LatestQuake),
    /// Answered once the store has everything that was told before.
    Save(oneshot::Sender<Result<LatestSaved, Failure>>),
}

impl Worker for Latest {
    async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
        let (writer, told) = mpsc::channel(QUEUE);
        // Ends with this worker, which has the only sender.
        tokio::spawn(Keeper::new(cx.bus()).run(told));
        self.writer = Some(writer);
        Ok(())
    }
}

impl Latest {
    async fn tell(&self, told: Told) -> Result<(), Failure> {
        let gone = || Failure::message("the task that writes has ended");
        self.writer.as_ref().ok_or_else(gone)?.send(told).await.map_err(|_| gone())
    }
}

impl Handle<QuakeRecorded> for Latest {
    async fn handle(&mut self, quake: &QuakeRecorded, _: &mut Context) -> Result<(), Failure> {
        let QuakeRecorded { id, magnitude, place, time_ms, .. } = quake.clone();
        self.tell(Told::Quake(region(&place), LatestQuake { id, magnitude, place, time_ms })).await
    }
}

impl Handle<SaveLatest> for Latest {
    async fn handle(&mut self, _: &SaveLatest, _: &mut Context) -> Result<LatestSaved, Failure> {
        let (save, saved) = oneshot::channel();
        self.tell(Told::Save(save)).await?;
        saved.await?
    }
}

/// The task that writes.
struct Keeper {
    store: Namespace<LatestQuake>,
    newest: HashMap<String, LatestQuake>,
    /// What the store has not got yet.
    changed: BTreeMap<String, LatestQuake>,
    transactions: u64,
}

impl Keeper {
    fn new(bus: &Bus) -> Self {
        let store = Namespace::new(bus, NAMESPACE);
        Self { store, newest: HashMap::new(), changed: BTreeMap::new(), transactions: 0 }
    }

    async fn run(mut self, mut told: mpsc::Receiver<Told>) {
        let mut waiting = Vec::new();
        while told.recv_many(&mut waiting, QUEUE).await > 0 {
            let mut asked = Vec::new();
            for told in waiting.drain(..) {
                match told {
                    Told::Quake(region, quake) => self.note(region, quake),
                    Told::Save(save) => asked.push(save),
                }
            }
            // What was noted after somebody asked is saved with the rest: he learns of a little more.
            let saved = self.write().await;
            if let Err(error) = &saved {
                tracing::warn!(%error, "the latest quakes are not in the store yet");
            }
            for save in asked {
                // Whoever asked may have stopped waiting.
                let _ = save.send(saved.clone());
            }
        }
    }

    /// Of several sensors an older quake may come after a newer one.
    fn note(&mut self, region: String, quake: LatestQuake) {
        let is_newer = |known: &LatestQuake| (known.time_ms, &known.id) < (quake.time_ms, &quake.id);
        if self.newest.get(&region).is_none_or(is_newer) {
            self.newest.insert(region.clone(), quake.clone());
            self.changed.insert(region, quake);
        }
    }

    /// Writes what has changed; what could not be written stays.
    async fn write(&mut self) -> Result<LatestSaved, Failure> {
        while !self.changed.is_empty() {
            let batch: Vec<_> = self.changed.iter().take(TRANSACTION_MAX).collect();
            let write = batch.iter().fold(self.store.transaction(), |write, (region, quake)| write.set(region, quake));
            write.await?;
            self.transactions += 1;
            let written: Vec<_> = batch.into_iter().map(|(region, _)| region.clone()).collect();
            written.iter().for_each(|region| drop(self.changed.remove(region)));
        }
        Ok(LatestSaved { transactions: self.transactions })
    }
}

/// What the store has: the latest quake of every region.
pub(crate) async fn read(bus: &Bus) -> Result<BTreeMap<String, LatestQuake>, edri::store::Error> {
    let store = Namespace::<LatestQuake>::new(bus, NAMESPACE);
    let (mut latest, mut after) = (BTreeMap::new(), None);
    loop {
        let page = store.list("", after.as_deref(), PAGE).await?;
        latest.extend(page.items.into_iter().map(|item| (item.key, item.value)));
        after = page.next;
        if after.is_none() {
            return Ok(latest);
        }
    }
}

/// `California` for `8km NW of The Geysers, CA`; a place without a comma is its own region. As in `report.py`.
fn region(place: &str) -> String {
    let name = place.rsplit(',').next().unwrap_or(place).trim();
    match name {
        "" => "unknown place".to_owned(),
        "CA" => "California".to_owned(),
        "MX" => "Mexico".to_owned(),
        "NV" => "Nevada".to_owned(),
        name => {
            let fits = (0..=name.len().min(KEY_BYTES_MAX)).rev().find(|end| name.is_char_boundary(*end));
            name[..fits.unwrap_or(0)].to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_what_comes_after_the_last_comma_and_may_be_a_key() {
        let check = |place: &str, expect: &str| assert_eq!(region(place), expect);
        check("8km NW of The Geysers, CA", "California");
        check("64km SE of X, Y, Alaska", "Alaska");
        check("South of the Fiji Islands", "South of the Fiji Islands");
        check("nowhere, ", "unknown place");
        check(&"ü".repeat(KEY_BYTES_MAX), &"ü".repeat(KEY_BYTES_MAX / 2));
    }
}
