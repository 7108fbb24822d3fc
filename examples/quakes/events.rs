//! What is said in this program: a tunnel, four notifications and five requests, with what they carry.

use std::collections::BTreeSet;

use bytes::Bytes;
use edri::prelude::*;

use crate::arguments::Part;
use crate::statistics::Study;

/// Asks for a catalogue to be read and replayed. The opener sends the bytes of a GeoJSON file.
#[event(tunnel, name = "catalogue.upload", up = Bytes, down = Progress, result = Replayed)]
pub(crate) struct UploadCatalogue {
    /// How often the catalogue is replayed.
    pub(crate) repeat: u32,
    /// How many times faster than it happened; as fast as possible when nothing is said.
    pub(crate) speed: Option<f64>,
    /// Which of its quakes are published.
    pub(crate) part: Part,
}

/// How far a replay is.
#[data]
pub(crate) struct Progress {
    /// The quakes published so far.
    pub(crate) recorded: u64,
}

/// What a replay has published.
#[data]
#[derive(Debug, Clone, Default)]
pub(crate) struct Replayed {
    pub(crate) quakes: u64,
    pub(crate) networks: BTreeSet<String>,
    pub(crate) first_ms: Option<i64>,
    pub(crate) last_ms: Option<i64>,
}

impl Replayed {
    /// Adds what another replay has published.
    pub(crate) fn add(&mut self, other: Self) {
        self.quakes += other.quakes;
        self.networks.extend(other.networks);
        self.first_ms = self.first_ms.into_iter().chain(other.first_ms).min();
        self.last_ms = self.last_ms.into_iter().chain(other.last_ms).max();
    }
}

/// On several nodes: a sensor has published all it has, and all of it has arrived.
#[event(notification, name = "feed.ended")]
#[derive(Debug, Clone)]
pub(crate) struct FeedEnded {
    pub(crate) sensor: String,
    pub(crate) replayed: Replayed,
    /// From the first until all had arrived.
    pub(crate) seconds: f64,
}

/// The earth shook, and a seismic network took note.
#[event(notification, name = "quake.recorded", key = network, expose)]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QuakeRecorded {
    /// The network's code: `ci` is Southern California, `us` the whole world.
    pub(crate) network: String,
    pub(crate) id: String,
    /// Not every quake has one, and those of the smallest are below zero.
    pub(crate) magnitude: Option<f64>,
    pub(crate) place: String,
    /// Milliseconds since 1970, UTC.
    pub(crate) time_ms: i64,
    /// Not an explosion or a quarry blast.
    pub(crate) natural: bool,
    /// In degrees east of Greenwich, and north of the equator.
    pub(crate) longitude: Option<f64>,
    pub(crate) latitude: Option<f64>,
}

/// A quake was so strong that people should know.
#[event(notification, name = "quake.alert", expose)]
#[derive(Debug, Clone)]
pub(crate) struct QuakeAlert {
    pub(crate) id: String,
    pub(crate) magnitude: f64,
    pub(crate) place: String,
    pub(crate) time_ms: i64,
}

/// What has this network recorded?
#[event(request, name = "network.summarise", key = network, response = NetworkSummary, http = "GET /networks/{network}")]
pub(crate) struct SummariseNetwork {
    pub(crate) network: String,
}

#[data]
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkSummary {
    pub(crate) count: u64,
    /// The largest magnitude.
    pub(crate) largest: Option<f64>,
    /// Where that was.
    pub(crate) place: Option<String>,
}

/// How many alerts were there, and which quakes were the strongest?
#[event(request, name = "alerts.list", response = Alerts, http = "GET /alerts")]
pub(crate) struct ListAlerts {}

#[data]
#[derive(Debug, Clone, Default)]
pub(crate) struct Alerts {
    pub(crate) count: u64,
    pub(crate) strongest: Vec<QuakeAlert>,
}

/// How many alerts there were by now: what [`ListAlerts`] was answered, published by a scheduler.
#[event(notification, name = "alerts.summarised")]
#[derive(Debug, Clone)]
pub(crate) struct AlertsSummarised {
    pub(crate) count: u64,
}

/// How are the magnitudes distributed?
#[event(request, name = "magnitudes.study", response = Study, timeout = "1m", idempotent, http = "GET /magnitudes")]
pub(crate) struct StudyMagnitudes {}

/// What are the managers doing?
#[event(request, name = "managers.list", response = Vec<ManagerShown>, http = "GET /managers")]
pub(crate) struct ListManagers {}

#[data]
#[derive(Debug, Clone)]
pub(crate) struct ManagerShown {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) workers: usize,
    /// Events in its inboxes, and the places there.
    pub(crate) waiting: usize,
    pub(crate) capacity: usize,
    pub(crate) handled: u64,
    pub(crate) failed: u64,
    /// Of its workers.
    pub(crate) restarts: u64,
}

/// Has the store got the latest quakes? Answered once it has.
#[event(request, name = "latest.save", response = LatestSaved, idempotent)]
pub(crate) struct SaveLatest {}

#[data]
#[derive(Debug, Clone)]
pub(crate) struct LatestSaved {
    /// How often something was written.
    pub(crate) transactions: u64,
}

/// The latest quake of a region, as it is in the store.
#[data]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LatestQuake {
    pub(crate) id: String,
    pub(crate) magnitude: Option<f64>,
    pub(crate) place: String,
    pub(crate) time_ms: i64,
}

/// What was there, by region? Answered in Python, by `report.py`.
#[event(request, name = "regions.report", response = Vec<Region>, timeout = "10s", idempotent, http = "GET /regions")]
pub(crate) struct ReportRegions {}

#[data]
#[derive(Debug, Clone)]
pub(crate) struct Region {
    pub(crate) region: String,
    pub(crate) count: u64,
    /// The largest magnitude.
    pub(crate) strongest: Option<f64>,
    /// Where that was.
    pub(crate) place: String,
}
