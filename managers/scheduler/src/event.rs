//! The events of a scheduler: what it answers, from any node and any client.

use edri_events::{data, event};

use crate::{Entry, Payload};

/// Adds an entry, or puts it in the place of the one with its id. Refused with `invalid_entry`, `never_due` or `too_many`;
/// with `not_kept` it is in place, but the store has not got it.
#[event(request, name = "schedule.add", response = Added, timeout = "10s", crate = edri_events)]
#[derive(Debug, Clone)]
pub struct Add(pub Entry);

/// An entry is in its place.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Its id.
    pub id: String,
    /// Whether there was one of this id before.
    pub replaced: bool,
    /// When it is due first, as RFC 3339 writes it in UTC.
    pub next: Option<String>,
}

/// Takes an entry out. What it has sent goes on.
#[event(request, name = "schedule.cancel", response = Cancelled, timeout = "10s", crate = edri_events)]
#[derive(Debug, Clone)]
pub struct Cancel {
    /// Its id.
    pub id: String,
}

/// An entry is not there any more.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled {
    /// Whether it was there.
    pub existed: bool,
}

/// Stops sending an entry when it is due, until it is resumed. Refused with `unknown_entry`.
#[event(request, name = "schedule.pause", response = Status, timeout = "10s", crate = edri_events)]
#[derive(Debug, Clone)]
pub struct Pause {
    /// Its id.
    pub id: String,
}

/// Goes on with an entry that was paused. What was due meanwhile is left out; what is sent only once, and was due meanwhile,
/// counts as missed. Refused with `unknown_entry`.
#[event(request, name = "schedule.resume", response = Status, timeout = "10s", crate = edri_events)]
#[derive(Debug, Clone)]
pub struct Resume {
    /// Its id.
    pub id: String,
}

/// Sends an entry now, whether it is due, paused, or neither; its times stay as they are. Refused with `unknown_entry`, and with
/// `still_running` where its overlap policy leaves it out.
#[event(request, name = "schedule.run_now", response = RunningNow, timeout = "10s", crate = edri_events)]
#[derive(Debug, Clone)]
pub struct RunNow {
    /// Its id.
    pub id: String,
}

/// What came of asking for a run.
#[data(crate = edri_events)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningNow {
    /// Whether it waits for the run before it; otherwise it is being sent.
    pub queued: bool,
}

/// Asks how an entry is doing. Refused with `unknown_entry`.
#[event(request, name = "schedule.get", response = Status, timeout = "10s", crate = edri_events)]
#[derive(Debug, Clone)]
pub struct Get {
    /// Its id.
    pub id: String,
}

/// Asks for a page of entries, in the order of their ids.
#[event(request, name = "schedule.list", response = Page, timeout = "10s", crate = edri_events)]
#[derive(Debug, Clone, Default)]
pub struct List {
    /// What their ids begin with.
    #[serde(default)]
    pub prefix: String,
    /// Only those after this id: [`Page::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most: 1 to 1,000, 100 by default. A page ends earlier when it has 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of entries.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Status>,
    /// What to ask for the next page with as [`List::after`]; without it, this is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How many entries the scheduler has in all.
    pub total: u64,
}

/// An entry and how it is doing. Times are as RFC 3339 writes them in UTC.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Its id.
    pub id: String,
    /// What it is.
    pub entry: Entry,
    /// When it is due next. Of one that goes by the steady clock, as far as the system's clock is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether it is paused.
    pub paused: bool,
    /// Whether it had its last run, and is only kept for its result.
    pub finished: bool,
    /// How many of its runs have not ended.
    pub running: u32,
    /// How many runs were begun when they were due.
    pub runs: u64,
    /// How many were missed and left out.
    pub missed: u64,
    /// How many were left out because one before was still running.
    pub skipped: u64,
    /// How many failed.
    pub failed: u64,
    /// How many another scheduler had claimed.
    pub elsewhere: u64,
    /// How the last one ended whose end was worth keeping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Ended>,
}

/// How a run ended.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// When it was due.
    pub due: String,
    /// When it ended.
    pub ended: String,
    /// The response, if it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Payload>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// Why a run failed.
#[data(crate = edri_events)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable code, as of a request that fails.
    pub code: String,
    /// In words.
    pub message: String,
}
