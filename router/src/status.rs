//! The state of managers and workers, and what became of their deliveries.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use edri_events::ManagerName;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Account;
use crate::limits::FIGURES_MAX;
use crate::timing::Timing;
use crate::uplink::Listener;

/// The state of a manager.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, edri_events::__private::schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "edri_events::__private::schemars")]
#[repr(u8)]
pub enum ManagerState {
    /// Its workers are being started for the first time.
    Starting,
    /// Its workers take events.
    Running,
    /// It takes no new events and finishes those it has.
    Draining,
    /// It has ended.
    Stopped,
    /// Its workers were restarted too often; its subscriptions are withdrawn.
    Failed,
}

/// The state of one worker instance.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, edri_events::__private::schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "edri_events::__private::schemars")]
#[repr(u8)]
pub enum WorkerState {
    /// `started` has not returned yet.
    Starting,
    /// It takes events.
    Running,
    /// It was lost and waits for its restart.
    Restarting,
    /// It has ended.
    Stopped,
}

/// An enum of one byte that many read and one writes.
#[derive(Debug)]
pub(crate) struct AtomicState(AtomicU8);

impl AtomicState {
    /// The first state of a manager, and of a worker.
    pub(crate) fn starting() -> Self {
        Self(AtomicU8::new(0))
    }
}

const _: () = assert!(ManagerState::Starting as u8 == 0 && WorkerState::Starting as u8 == 0);

macro_rules! atomic_state {
    ($state:ident, $get:ident, $set:ident, [$($variant:ident),*]) => {
        impl AtomicState {
            pub(crate) fn $get(&self) -> $state {
                let byte = self.0.load(Ordering::Acquire);
                let states = [$($state::$variant),*];
                states[usize::from(byte)]
            }
            pub(crate) fn $set(&self, state: $state) {
                self.0.store(state as u8, Ordering::Release);
            }
        }
    };
}

atomic_state!(ManagerState, manager, set_manager, [Starting, Running, Draining, Stopped, Failed]);
atomic_state!(WorkerState, worker, set_worker, [Starting, Running, Restarting, Stopped]);

/// What became of deliveries. Each field counts deliveries, and no delivery is in two fields but `late` and `retried`.
#[derive(Debug, Default)]
pub struct Tally {
    handled: AtomicU64,
    failed: AtomicU64,
    dead_lettered: AtomicU64,
    cancelled: AtomicU64,
    forwarded: AtomicU64,
    retried: AtomicU64,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its handler succeeded.
    Handled,
    /// Its requester has the handler's failure, or another error.
    Failed,
    /// It is a dead letter.
    DeadLettered,
    /// Its requester gave up before a handler had it, or its subscription ended.
    Cancelled,
    /// Another node has it and accounts for it there.
    Forwarded,
}

impl Tally {
    fn counter(&self, ended: Ended) -> &AtomicU64 {
        match ended {
            Ended::Handled => &self.handled,
            Ended::Failed => &self.failed,
            Ended::DeadLettered => &self.dead_lettered,
            Ended::Cancelled => &self.cancelled,
            Ended::Forwarded => &self.forwarded,
        }
    }

    /// Counts deliveries; several threads may.
    pub(crate) fn count(&self, ended: Ended, deliveries: u64) {
        self.counter(ended).fetch_add(deliveries, Ordering::Relaxed);
    }

    /// Counts a delivery where this thread is the tally's only writer: a plain store is several times cheaper.
    fn count_alone(&self, ended: Ended) {
        let counter = self.counter(ended);
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn add_to(&self, account: &mut Account) {
        account.handled += self.handled.load(Ordering::Relaxed);
        account.failed += self.failed.load(Ordering::Relaxed);
        account.dead_lettered += self.dead_lettered.load(Ordering::Relaxed);
        account.cancelled += self.cancelled.load(Ordering::Relaxed);
        account.forwarded += self.forwarded.load(Ordering::Relaxed);
        account.retried += self.retried.load(Ordering::Relaxed);
    }
}

/// How a worker says it is.
#[derive(
    Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, edri_events::__private::schemars::JsonSchema,
)]
#[schemars(crate = "edri_events::__private::schemars")]
#[serde(rename_all = "snake_case", tag = "is", content = "because")]
pub enum Health {
    /// All is well.
    #[default]
    Good,
    /// It works, but not as it should.
    Degraded(String),
    /// It does not work.
    Bad(String),
}

/// What is known of one worker instance, through all its restarts. Written by its host, read by `topology()`.
#[derive(Debug)]
pub struct WorkerStatus {
    pub(crate) index: usize,
    pub(crate) state: AtomicState,
    pub(crate) restarts: AtomicU32,
    pub(crate) stuck: AtomicU32,
    pub(crate) in_hand: AtomicUsize,
    /// Zero for one that has no process of its own.
    pub(crate) pid: AtomicU32,
    pub(crate) tally: Tally,
    pub(crate) queued: Timing,
    pub(crate) handling: Timing,
    // Held for a copy. Written now and then by the worker, read by whoever asks for the topology.
    pub(crate) report: Mutex<Report>,
    // Held for a copy. What this worker's handlers wait for, to find cycles when a wait ends.
    pub(crate) waits_for: Mutex<Vec<ManagerName>>,
    /// Hears what the worker says of itself, where somebody else keeps its status.
    listener: OnceLock<Box<dyn Listener>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) health: Health,
    pub(crate) figures: BTreeMap<String, f64>,
    pub(crate) last_error: Option<String>,
}

impl WorkerStatus {
    /// The status of the instance `index`, which is starting.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self {
            index,
            state: AtomicState::starting(),
            restarts: AtomicU32::new(0),
            stuck: AtomicU32::new(0),
            in_hand: AtomicUsize::new(0),
            pid: AtomicU32::new(0),
            tally: Tally::default(),
            queued: Timing::default(),
            handling: Timing::default(),
            report: Mutex::default(),
            waits_for: Mutex::default(),
            listener: OnceLock::new(),
        }
    }

    /// Which of its manager's instances it is, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The instance's state.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.state.worker()
    }

    /// Sets the instance's state.
    pub fn set_state(&self, state: WorkerState) {
        self.state.set_worker(state);
    }

    /// Counts a restart and keeps its reason.
    pub fn restarted(&self, reason: &str) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.failed_with(reason);
    }

    /// Keeps the latest reason for which the instance was lost.
    pub fn failed_with(&self, reason: &str) {
        self.report.lock().last_error = Some(reason.to_owned());
    }

    /// Why the instance was lost the last time.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.report.lock().last_error.clone()
    }

    /// Counts a thread that does not return from its handler, or takes it back when it has.
    pub fn stuck(&self, is: bool) {
        if is {
            self.stuck.fetch_add(1, Ordering::Relaxed);
        } else {
            self.stuck.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many threads there are that have not returned from their handler.
    #[must_use]
    pub fn stuck_threads(&self) -> usize {
        self.stuck.load(Ordering::Relaxed) as usize
    }

    /// Sets how many deliveries are in the instance's hands.
    pub fn set_in_hand(&self, count: usize) {
        self.in_hand.store(count, Ordering::Release);
    }

    /// Sets the id of the process that the instance runs in; `None` once it has ended.
    pub fn set_pid(&self, pid: Option<u32>) {
        self.pid.store(pid.unwrap_or(0), Ordering::Relaxed);
    }

    /// Counts how a delivery ended. Only the instance's own host may call this: see [`Group::count`](crate::Group::count) for others.
    pub fn count(&self, ended: Ended) {
        self.tally.count_alone(ended);
    }

    /// Counts another attempt at a delivery.
    pub fn retried(&self) {
        self.tally.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// Records how long a timed event waited in the inbox and how long its handler took.
    pub fn timed(&self, queued: Duration, handling: Duration) {
        self.queued.record(queued);
        self.handling.record(handling);
    }

    /// Tells `listener` from now on what the worker says of itself. There is one.
    #[doc(hidden)]
    pub fn listen(&self, listener: Box<dyn Listener>) {
        assert!(self.listener.set(listener).is_ok(), "one listens");
    }

    /// What the worker says of its health.
    pub fn report_health(&self, health: Health) {
        if let Some(listener) = self.listener.get() {
            listener.health(&health);
        }
        self.report.lock().health = health;
    }

    /// A figure of the worker's own, replacing the one of that name. Beyond [`FIGURES_MAX`] names new ones are left out.
    pub fn report_figure(&self, name: &str, value: f64) {
        if let Some(listener) = self.listener.get() {
            listener.figure(name, value);
        }
        let figures = &mut self.report.lock().figures;
        if figures.len() < FIGURES_MAX || figures.contains_key(name) {
            figures.insert(name.to_owned(), value);
        }
    }
}
