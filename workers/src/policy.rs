//! How workers are run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// As a task of the node's runtime. Its code must not block.
    #[default]
    Task,
    /// On an operating system thread of its own, where blocking code is fine.
    Thread,
    /// In a process of its own: a crash, a leak or a handler that never returns is its own affair. The same program is
    /// started again for it, and `edri::hosted` tells the two apart.
    Process,
}

/// A pause that grows: doubled each time up to a longest, each shortened at random by up to half so that many do not come
/// back at once ("equal jitter": Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Backoff {
    /// The pause before try number `retry`, from 0.
    #[must_use]
    pub fn pause(&self, retry: u32) -> Duration {
        let whole = self.first.saturating_mul(2_u32.saturating_pow(retry)).min(self.longest);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(10), longest: Duration::from_secs(10) }
    }
}

/// How often an event is tried whose handler fails.
///
/// A retry holds its worker, and in a keyed manager its partition, until it succeeds or is given up; so a key's events
/// stay in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often in all; 1 is never again.
    pub attempts: u32,
    /// The pauses between.
    pub backoff: Backoff,
}

impl Retry {
    /// Every event is tried once.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts: 1, backoff: Backoff::default() }
    }

    /// A failing event is tried `attempts` times in all, at least once.
    #[must_use]
    pub fn attempts(attempts: u32) -> Self {
        Self { attempts: attempts.max(1), ..Self::never() }
    }

    /// With these pauses.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Backoff { first, longest };
        self
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::never()
    }
}

/// What a host does with the events of its worker.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// What happens when a handler fails.
    pub retry: Retry,
    /// How long a handler may take.
    pub time_limit: Option<Duration>,
    /// How many events one instance may handle at once in `&self` handlers.
    pub concurrency: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { retry: Retry::never(), time_limit: None, concurrency: 64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_keep_at_least_half() {
        let backoff = Backoff { first: Duration::from_millis(10), longest: Duration::from_millis(65) };
        for (retry, whole) in [(0, 10), (1, 20), (2, 40), (3, 65), (40, 65), (u32::MAX, 65)] {
            let whole = Duration::from_millis(whole);
            for _ in 0..50 {
                let pause = backoff.pause(retry);
                assert!(pause >= whole / 2 && pause <= whole, "{pause:?} for {whole:?}");
            }
        }
    }
}
