//! Who does the work. Each worker is a struct of its own state, which nobody else touches.
//!
//! ```text
//!  catalogue.upload ─▶ Reader ─▶ quake.recorded ─┬─▶ Counter × 4, each with networks of its own
//!                                                ├─▶ Alarm ─▶ quake.alert ─▶ Bulletin
//!                                                ├─▶ Latest ─▶ the store, by region
//!                                                ├─▶ Analyst, in a process
//!                                                └─▶ report.py, in Python
//! ```

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use edri::prelude::*;
use tokio::time::sleep;

use crate::catalogue;
use crate::events::{
    Alerts, ListAlerts, NetworkSummary, Progress, QuakeAlert, QuakeRecorded, Replayed, StudyMagnitudes,
    SummariseNetwork, UploadCatalogue,
};
use crate::statistics::{Histogram, Study};

/// From this magnitude on a quake is worth an alert.
pub(crate) const ALERT_MAGNITUDE: f64 = 4.5;
/// How many of the strongest quakes are listed.
const STRONGEST_MAX: usize = 5;
/// The largest catalogue that is taken.
const CATALOGUE_BYTES_MAX: usize = 256 << 20;
/// How often the uploader hears how far its catalogue is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// So that every run draws the same random numbers.
const SEED: u64 = 2018;

/// Reads an uploaded catalogue and publishes its quakes.
pub(crate) struct Reader;

impl Worker for Reader {}

impl Handle<UploadCatalogue> for Reader {
    async fn handle(&mut self, upload: &UploadCatalogue, cx: &mut Context) -> Result<Replayed, Failure> {
        let mut tunnel = cx.accept::<UploadCatalogue>()?;
        let quakes = upload.part.of(catalogue::parse(&receive(&mut tunnel).await?)?);
        tracing::info!(quakes = quakes.len(), "read a catalogue");

        let began = Instant::now();
        let mut told = began;
        let mut replayed = Replayed::default();
        for quake in catalogue::replay(&quakes, upload.repeat) {
            let first_ms = *replayed.first_ms.get_or_insert(quake.time_ms);
            let since_first = Duration::from_millis(quake.time_ms.abs_diff(first_ms));
            let due = upload.speed.map(|speed| began + since_first.div_f64(speed));
            loop {
                let now = Instant::now();
                if now >= told + PROGRESS_INTERVAL {
                    // Fails once the uploader is gone, which ends the replay.
                    tunnel.send(Progress { recorded: replayed.quakes }).await?;
                    told = now;
                }
                match due {
                    Some(due) if due > now => sleep((due - now).min(PROGRESS_INTERVAL)).await,
                    _ => break,
                }
            }
            replayed.quakes += 1;
            replayed.last_ms = Some(quake.time_ms);
            if !replayed.networks.contains(&quake.network) {
                replayed.networks.insert(quake.network.clone());
            }
            // Waits while an inbox is full: the slowest worker sets the pace, and memory does not grow.
            cx.publish(quake).await?;
        }
        Ok(replayed)
    }
}

async fn receive(tunnel: &mut Accepted<Bytes, Progress>) -> Result<BytesMut, Failure> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = tunnel.recv().await? {
        if bytes.len() + chunk.len() > CATALOGUE_BYTES_MAX {
            return Err(Failure::new("too_large", format!("a catalogue has at most {CATALOGUE_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Counts the quakes of those networks whose key leads to this instance. Of the largest the earliest is told, in whatever
/// order they come: that of several sensors differs from run to run.
#[derive(Default)]
pub(crate) struct Counter {
    networks: HashMap<String, Recorded>,
}

#[derive(Default)]
struct Recorded {
    summary: NetworkSummary,
    /// When the largest was.
    largest_ms: i64,
}

impl Worker for Counter {}

impl Handle<QuakeRecorded> for Counter {
    async fn handle(&mut self, quake: &QuakeRecorded, _: &mut Context) -> Result<(), Failure> {
        let network = self.networks.entry(quake.network.clone()).or_default();
        let NetworkSummary { count, largest, place } = &mut network.summary;
        *count += 1;
        let is_as_large = quake.magnitude.is_some() && quake.magnitude == *largest;
        if quake.magnitude > *largest || (is_as_large && quake.time_ms < network.largest_ms) {
            network.largest_ms = quake.time_ms;
            *largest = quake.magnitude;
            *place = Some(quake.place.clone());
        }
        Ok(())
    }
}

impl Handle<SummariseNetwork> for Counter {
    async fn handle(&mut self, asked: &SummariseNetwork, _: &mut Context) -> Result<NetworkSummary, Failure> {
        let summary = self.networks.get(&asked.network).map(|network| network.summary.clone());
        summary.ok_or_else(|| Failure::new("unknown_network", format!("`{}` has recorded nothing", asked.network)))
    }
}

/// Raises an alert for every strong quake.
pub(crate) struct Alarm;

impl Worker for Alarm {}

impl Handle<QuakeRecorded> for Alarm {
    async fn handle(&mut self, quake: &QuakeRecorded, cx: &mut Context) -> Result<(), Failure> {
        if let Some(magnitude) = quake.magnitude.filter(|magnitude| *magnitude >= ALERT_MAGNITUDE) {
            let QuakeRecorded { id, place, time_ms, .. } = quake.clone();
            // Published through the context, the alert names the quake as its cause and continues its trace.
            cx.publish(QuakeAlert { id, magnitude, place, time_ms }).await?;
        }
        Ok(())
    }
}

/// Counts the alerts and keeps the strongest; of those that are as strong, the earliest.
#[derive(Default)]
pub(crate) struct Bulletin {
    alerts: Alerts,
}

impl Worker for Bulletin {}

impl Handle<QuakeAlert> for Bulletin {
    async fn handle(&mut self, alert: &QuakeAlert, _: &mut Context) -> Result<(), Failure> {
        let Alerts { count, strongest } = &mut self.alerts;
        *count += 1;
        let is_before = |other: &QuakeAlert| {
            let by_magnitude = alert.magnitude.total_cmp(&other.magnitude);
            by_magnitude.then_with(|| (other.time_ms, &other.id).cmp(&(alert.time_ms, &alert.id))).is_lt()
        };
        let rank = strongest.partition_point(is_before);
        strongest.insert(rank, alert.clone());
        strongest.truncate(STRONGEST_MAX);
        Ok(())
    }
}

impl Handle<ListAlerts> for Bulletin {
    async fn handle(&mut self, _: &ListAlerts, _: &mut Context) -> Result<Alerts, Failure> {
        Ok(self.alerts.clone())
    }
}

/// Studies the magnitudes. The arithmetic takes a while, so it runs in a process of its own, where that holds up nobody.
#[derive(Default)]
pub(crate) struct Analyst {
    all: Histogram,
    natural: Histogram,
    natural_by_network: BTreeMap<String, Histogram>,
}

impl Worker for Analyst {}

impl Handle<QuakeRecorded> for Analyst {
    async fn handle(&mut self, quake: &QuakeRecorded, _: &mut Context) -> Result<(), Failure> {
        let Some(magnitude) = quake.magnitude else { return Ok(()) };
        self.all.add(magnitude);
        if quake.natural {
            self.natural.add(magnitude);
            self.natural_by_network.entry(quake.network.clone()).or_default().add(magnitude);
        }
        Ok(())
    }
}

impl Handle<StudyMagnitudes> for Analyst {
    async fn handle(&mut self, _: &StudyMagnitudes, _: &mut Context) -> Result<Study, Failure> {
        let networks = self.natural_by_network.iter();
        let laws = networks.filter_map(|(network, histogram)| Some((network.clone(), histogram.fit(SEED)?)));
        let by_network = laws.collect();
        Ok(Study { histogram: self.all.bins(), gutenberg_richter: self.natural.fit(SEED), by_network })
    }
}
