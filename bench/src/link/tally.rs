//! What a peer's receiver has handled, by its own word, beside what it was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    handled: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Tally {
    /// Takes the receiver's word for how many it has handled since it began. How long `sent` rounds would have taken at the
    /// rate at which those were handled that were: what was lost is no work done.
    pub(super) fn settle(&self, sent: u64, in_all: u64, took: Duration) -> Duration {
        let handled = in_all - self.handled.swap(in_all, Ordering::Relaxed);
        self.lost.fetch_add(sent.saturating_sub(handled), Ordering::Relaxed);
        took.mul_f64(sent as f64 / handled.clamp(1, sent) as f64)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_said_and_not_counted_as_done() {
        let tally = Tally::default();
        let second = Duration::from_secs(1);
        assert_eq!(tally.settle(100, 100, second), second);
        assert_eq!(tally.lost(), 0);
        assert_eq!(tally.settle(100, 150, second), 2 * second);
        assert_eq!(tally.lost(), 50);
    }
}
