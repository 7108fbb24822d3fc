//! How long things take: a histogram that many threads may add to.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use edri_events::__private::schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Buckets an octave: the error of a quantile is at most one part in eight.
const STEPS: usize = 4;
/// Octaves of nanoseconds: up to 2^40 ns, 18 minutes; what takes longer falls into the last bucket.
const OCTAVES: usize = 40;

/// A histogram of durations: four buckets for each power of two of nanoseconds.
pub(crate) struct Timing {
    buckets: [AtomicU32; OCTAVES * STEPS],
}

/// Durations that the given share of events did not exceed, from the events that were timed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "edri_events::__private::schemars")]
pub struct Quantiles {
    /// How many events were timed.
    pub count: u64,
    /// Half of them took at most so long, in microseconds.
    pub p50_us: f64,
    /// 99 in 100 took at most so long, in microseconds.
    pub p99_us: f64,
    /// All took at most so long, in microseconds.
    pub max_us: f64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { buckets: [const { AtomicU32::new(0) }; OCTAVES * STEPS] }
    }
}

impl Timing {
    pub(crate) fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(STEPS as u64);
        let octave = nanos.ilog2() as usize;
        let step = (nanos >> (octave - 2)) as usize & (STEPS - 1);
        let bucket = (octave * STEPS + step).min(OCTAVES * STEPS - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds up several histograms and reads their quantiles; `None` when nothing was timed.
    pub(crate) fn quantiles<'a>(timings: impl Iterator<Item = &'a Self>) -> Option<Quantiles> {
        let mut sum = [0_u64; OCTAVES * STEPS];
        for timing in timings {
            for (total, bucket) in sum.iter_mut().zip(&timing.buckets) {
                *total += u64::from(bucket.load(Ordering::Relaxed));
            }
        }
        let count: u64 = sum.iter().sum();
        if count == 0 {
            return None;
        }
        let at = |share: f64| {
            let wanted = (count as f64 * share).ceil() as u64;
            let mut seen = 0;
            let bucket = sum.iter().position(|bucket| {
                seen += bucket;
                seen >= wanted
            });
            upper_bound_us(bucket.unwrap_or(OCTAVES * STEPS - 1))
        };
        Some(Quantiles { count, p50_us: at(0.5), p99_us: at(0.99), max_us: at(1.0) })
    }
}

fn upper_bound_us(bucket: usize) -> f64 {
    let (octave, step) = (bucket / STEPS, bucket % STEPS);
    2_f64.powi(octave as i32) * (1.0 + (step + 1) as f64 / STEPS as f64) / 1000.0
}

impl fmt::Debug for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Self::quantiles([self].into_iter()), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_quarter() {
        let timing = Timing::default();
        for micros in 1..=1000 {
            timing.record(Duration::from_micros(micros));
        }
        let q = Timing::quantiles([&timing].into_iter()).expect("timed");
        assert_eq!(q.count, 1000);
        let near = |value: f64, expect: f64| assert!((expect..=expect * 1.26).contains(&value), "{value} for {expect}");
        near(q.p50_us, 500.0);
        near(q.p99_us, 990.0);
        near(q.max_us, 1000.0);
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_bucket() {
        let timing = Timing::default();
        timing.record(Duration::ZERO);
        timing.record(Duration::MAX);
        assert_eq!(Timing::quantiles([&timing].into_iter()).map(|q| q.count), Some(2));
    }
}
