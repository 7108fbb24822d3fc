//! What is counted of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// How requests whose answers may be given again were answered, and how often notifications came that end answers.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    kept: AtomicU64,
    joined: AtomicU64,
    asked: AtomicU64,
    unchanged: AtomicU64,
    notified: AtomicU64,
}

impl Figures {
    pub(super) fn kept(&self) {
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn joined(&self) {
        self.joined.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn asked(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unchanged(&self) {
        self.unchanged.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn notified(&self) {
        self.notified.fetch_add(1, Ordering::Relaxed);
    }

    /// How requests were answered: by what was kept, with somebody who had asked already, by asking.
    pub(crate) fn requests(&self) -> [(&'static str, u64); 3] {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("kept", load(&self.kept)), ("joined", load(&self.joined)), ("asked", load(&self.asked))]
    }

    /// How many clients were told that what they have is as it was (304).
    pub(crate) fn not_modified(&self) -> u64 {
        self.unchanged.load(Ordering::Relaxed)
    }

    /// How many notifications came that end answers.
    pub(crate) fn notifications(&self) -> u64 {
        self.notified.load(Ordering::Relaxed)
    }
}
