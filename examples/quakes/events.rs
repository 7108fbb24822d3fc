//! What is said in this program: a tunnel, two notifications and four requests, with what they carry.

use std::collections::BTreeSet;

use bytes::Bytes;
use edri::prelude::*;

use crate::statistics::{GutenbergRichter, Histogram};

/// Asks for a catalogue to be read and replayed. The opener sends the bytes of a GeoJSON file.
#[event(tunnel, name = "catalogue.upload", up = Bytes, down = Progress, result = Replayed)]
pub(crate) struct UploadCatalogue {
    /// How often the catalogue is replayed.
    pub(crate) repeat: u32,
    /// How many times faster than it happened; as fast as possible when nothing is said.
    pub(crate) speed: Option<f64>,
}

/// How far a replay is.
#[data]
pub(crate) struct Progress {
    pub(crate) recorded: u64,
    pub(crate) of: u64,
}

/// What a replay has published.
#[data]
pub(crate) struct Replayed {
    pub(crate) quakes: u64,
    pub(crate) networks: BTreeSet<String>,
    pub(crate) first_ms: Option<i64>,
    pub(crate) last_ms: Option<i64>,
}

/// The earth shook, and a seismic network took note.
#[event(notification, name = "quake.recorded", key = network)]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QuakeRecorded {
    /// The network's code: `ci` is Southern California, `us` the whole world.
    pub(crate) network: String,
    pub(crate) id: String,
    /// Not every quake has one, and the smallest are below zero.
    pub(crate) magnitude: Option<f64>,
    pub(crate) place: String,
    /// Milliseconds since 1970, UTC.
    pub(crate) time_ms: i64,
    /// Not an explosion or a quarry blast.
    pub(crate) natural: bool,
}

/// A quake was strong enough to be felt widely.
#[event(notification, name = "quake.alert")]
#[derive(Debug, Clone)]
pub(crate) struct QuakeAlert {
    pub(crate) id: String,
    pub(crate) magnitude: f64,
    pub(crate) place: String,
    pub(crate) time_ms: i64,
}

/// What one network has recorded.
#[event(request, name = "network.summarise", key = network, response = NetworkSummary)]
pub(crate) struct SummariseNetwork {
    pub(crate) network: String,
}

#[data]
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkSummary {
    pub(crate) count: u64,
    /// The largest magnitude, and where it was.
    pub(crate) largest: Option<f64>,
    pub(crate) place: Option<String>,
}

/// How many alerts there were, and the strongest of them.
#[event(request, name = "alerts.list", response = Alerts)]
pub(crate) struct ListAlerts {}

#[data]
#[derive(Debug, Clone, Default)]
pub(crate) struct Alerts {
    pub(crate) count: u64,
    pub(crate) strongest: Vec<QuakeAlert>,
}

/// How many quakes there were of each magnitude.
#[event(request, name = "magnitudes.count", response = Histogram)]
pub(crate) struct CountMagnitudes {}

/// The law of Gutenberg and Richter, fitted to the natural quakes of one network or of all. No answer when there are too
/// few.
#[event(request, name = "magnitudes.fit", response = Option<GutenbergRichter>, timeout = "1m")]
pub(crate) struct FitMagnitudes {
    pub(crate) network: Option<String>,
}
