//! How long answers take while a server has half the work that it can do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::gateway::Asks;

/// How long it is measured.
const TIME: Duration = Duration::from_secs(3);

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// Asks so many times a second over all connections together, each at its own moments. Who is late, because the answer before came late, counts
/// from when it should have asked.
pub(crate) async fn paced<C: Asks>(connections: &Arc<Vec<Mutex<C>>>, rate: f64) -> Latency {
    let count = connections.len();
    let pause = Duration::from_secs_f64(count as f64 / rate.max(1.0));
    let began = Instant::now();
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let connections = Arc::clone(connections);
            tokio::spawn(async move {
                let mut connection = connections[number].lock().await;
                let mut due = began + pause.mul_f64(number as f64 / count as f64);
                let mut took = Vec::new();
                while due.duration_since(began) < TIME {
                    let from = if due > Instant::now() {
                        sleep_until(due).await;
                        // A timer is late by up to a millisecond, which is nobody's fault.
                        Instant::now()
                    } else {
                        due
                    };
                    connection.ask().await;
                    took.push(from.elapsed());
                    due += pause;
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("no panic"));
    }
    percentiles(took)
}

fn percentiles(mut took: Vec<Duration>) -> Latency {
    took.sort_unstable();
    let at = |share: f64| {
        let place = ((took.len() as f64 * share).ceil() as usize).clamp(1, took.len().max(1)) - 1;
        took.get(place).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    };
    Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_latency_that_so_many_did_not_exceed() {
        let latency = percentiles((1..=1000).rev().map(Duration::from_micros).collect());
        for (found, wanted) in [(latency.p50, 500.0), (latency.p99, 990.0), (latency.p999, 999.0)] {
            assert!((found - wanted).abs() < 1e-6, "{latency:?}");
        }
        assert!(percentiles(Vec::new()).p50.is_nan());
    }
}
