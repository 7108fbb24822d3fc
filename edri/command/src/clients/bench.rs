//! `bench`: load on a running node.
//!
//! With a rate, call number k is to be sent at k / rate, whatever became of those before, and its latency counts from then: a node that
//! stands still for a second makes a second of calls late, and not one. Without, each of those in flight is followed by the next as
//! soon as it has ended, and latencies count from the sending.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edri::{Body, Client, Options};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::Session;
use super::failed::{self, Asked};
use super::output::{micros, span};
use super::payload;
use super::run::Work;
use crate::exit::Failed;

/// The longest latency that is told apart, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;
const CONNECTIONS_MAX: u32 = 1_000;
const IN_FLIGHT_MAX: u32 = 10_000;
const SIZE_MAX: u32 = 16 << 20;
/// What in a payload is replaced by as many bytes as are asked for.
const PAD: &str = "@pad";
/// A timer of this process may be so late; beyond, it is not the timer that is late.
const TIMER: Duration = Duration::from_millis(2);

#[derive(clap::Args)]
pub(crate) struct Bench {
    /// The event's name: a notification is published. It is handled as any other, so take one that may be.
    event: String,
    /// JSON; `@FILE` for what is in a file. `{}` when there is none.
    payload: Option<String>,
    /// The event is a request, whose response is waited for.
    #[arg(long)]
    request: bool,
    /// Calls a second, over all connections; latencies count from when a call was to be sent. Without it, as many as there can be.
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// For how long: `10s`, `1m`.
    #[arg(long, value_parser = payload::span, default_value = "10s")]
    duration: Duration,
    /// Over so many connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: u32,
    /// So many calls at once on each connection.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    in_flight: u32,
    /// Replaces the text "@pad" in the payload by one of so many bytes.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=i64::from(SIZE_MAX)))]
    size: Option<u32>,
    /// How long a call may take.
    #[arg(long, value_parser = payload::span, default_value = "10s")]
    timeout: Duration,
}

/// What is sent, and what came of it so far.
struct Load {
    event: String,
    body: Body,
    request: bool,
    options: Options,
    begin: Instant,
    end: Instant,
    rate: Option<u32>,
    /// The number of the next call.
    next: AtomicU64,
    // Held to add one, or to look.
    seen: Mutex<Seen>,
}

struct Seen {
    latencies_us: Histogram<u64>,
    /// How many calls failed, by code.
    failed: BTreeMap<String, u64>,
}

impl Load {
    async fn call(&self, client: &Client) -> Result<(), (String, Failed)> {
        let body = self.body.clone();
        if self.request {
            let answer = client.untyped().request_with(&self.event, body, &self.options).await;
            return answer
                .map(drop)
                .map_err(|error| (error.code().to_owned(), failed::request(&error, &Asked::of(&self.event))));
        }
        let receipt = client.untyped().publish_with(&self.event, body, &self.options).await;
        receipt.map(drop).map_err(|error| (error.code().to_owned(), failed::publish(&error, &self.event)))
    }

    /// Waits for the turn of the next call; from when its latency counts, or nothing once it is over.
    async fn turn(&self) -> Option<Instant> {
        let Some(rate) = self.rate else { return Some(Instant::now()).filter(|now| *now < self.end) };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.begin + Duration::from_secs_f64(number as f64 / f64::from(rate));
        if due >= self.end {
            return None;
        }
        let now = Instant::now();
        if now >= due {
            return Some(due);
        }
        tokio::time::sleep_until(due).await;
        let woken = Instant::now();
        Some(if woken - due <= TIMER { woken } else { due })
    }

    /// One of those in flight.
    async fn run(self: Arc<Self>, client: Client) {
        while let Some(from) = self.turn().await {
            let done = self.call(&client).await;
            let latency = u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX);
            let lost = done.as_ref().is_err_and(|(code, _)| code == "peer_lost");
            self.seen(|seen| match done {
                Ok(()) => seen.latencies_us.saturating_record(latency.clamp(1, LATENCY_MAX_US)),
                Err((code, _)) => *seen.failed.entry(code).or_default() += 1,
            });
            if lost {
                // Until the connection is back, calls fail at once.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    fn seen<T>(&self, with: impl FnOnce(&mut Seen) -> T) -> T {
        // Nothing in there panics.
        with(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The payload with its padding.
fn padded(body: &Body, size: u32) -> Result<Body, Failed> {
    fn pad(value: &mut Value, with: &str) -> bool {
        match value {
            Value::String(text) if text == PAD => {
                *text = with.to_owned();
                true
            }
            Value::Array(items) => items.iter_mut().filter_map(|item| pad(item, with).then_some(())).count() > 0,
            Value::Object(fields) => fields.values_mut().filter_map(|item| pad(item, with).then_some(())).count() > 0,
            _ => false,
        }
    }
    let mut value = payload::value(body);
    if pad(&mut value, &"x".repeat(size as usize)) {
        return Ok(Body::from(value));
    }
    Err(Failed::usage(format!("--size needs a text \"{PAD}\" in the payload to replace: '{{\"text\": \"{PAD}\"}}'")))
}

impl Work for Bench {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let mut body = payload::read(self.payload.as_deref())?;
        if let Some(size) = self.size {
            body = padded(&body, size)?;
        }
        let mut clients = vec![session.client.clone()];
        for _ in 1..self.connections {
            clients.push(session.another().await?);
        }
        let histogram = Histogram::new_with_max(LATENCY_MAX_US, 3).map_err(|error| Failed::new(error.to_string()))?;
        let begin = Instant::now();
        let mut load = Load {
            event: self.event,
            body,
            request: self.request,
            options: Options::new().time_limit(self.timeout),
            begin,
            end: begin,
            rate: self.rate,
            next: AtomicU64::new(0),
            seen: Mutex::new(Seen { latencies_us: histogram, failed: BTreeMap::new() }),
        };
        // What cannot be is told at once, and not counted for ten seconds.
        load.call(&session.client).await.map_err(|(_, failed)| failed)?;
        load.begin = Instant::now();
        load.end = load.begin + self.duration;
        let load = Arc::new(load);
        let mut running = JoinSet::new();
        for client in &clients {
            for _ in 0..self.in_flight {
                running.spawn(Arc::clone(&load).run(client.clone()));
            }
        }
        let progress = Progress::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                ended = running.join_next() => if ended.is_none() { break },
                _ = ticks.tick() => progress.show(&load),
            }
        }
        progress.end();
        report(&session, &load, clients.len())
    }
}

fn report(session: &Session, load: &Load, connections: usize) -> Result<(), Failed> {
    let took = load.begin.elapsed().as_secs_f64();
    load.seen(|seen| {
        let latencies = &seen.latencies_us;
        let (good, bad) = (latencies.len(), seen.failed.values().sum::<u64>());
        let at = |quantile: f64| latencies.value_at_quantile(quantile);
        let rate = good as f64 / took.max(f64::EPSILON);
        let out = &session.out;
        if out.json {
            out.value(&json!({
                "calls": good, "failed": seen.failed, "seconds": took, "calls_per_s": rate, "rate": load.rate,
                "connections": connections, "latency_us": {
                    "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": latencies.max(),
                    "mean": latencies.mean(),
                },
            }))?;
        } else {
            let what = if load.request { "requests" } else { "notifications" };
            out.line(&format!("{good} {what} in {}: {rate:.0}/s over {connections} connections", span(took)))?;
            let told = |value: u64| micros(value as f64);
            out.line(&format!(
                "latency  p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
                told(at(0.5)),
                told(at(0.9)),
                told(at(0.99)),
                told(at(0.999)),
                told(latencies.max())
            ))?;
            match load.rate {
                Some(wanted) => {
                    out.line(&format!("latencies count from when each call was to be sent, at {wanted}/s"))?
                }
                None => out.line("latencies count from the sending; with --rate they tell of stalls too")?,
            }
            for (code, count) in &seen.failed {
                out.line(&format!("failed   {count} {code}"))?;
            }
        }
        if bad == 0 { Ok(()) } else { Err(Failed::new(format!("{bad} of {} calls failed", good + bad))) }
    })
}

/// A line that says how far it is, on a terminal.
struct Progress {
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal() }
    }

    fn show(&self, load: &Load) {
        if !self.shown {
            return;
        }
        const WIDTH: usize = 24;
        let (passed, whole) = (load.begin.elapsed().as_secs_f64(), (load.end - load.begin).as_secs_f64());
        let share = if whole > 0.0 { (passed / whole).min(1.0) } else { 1.0 };
        let (count, p99) = load.seen(|seen| (seen.latencies_us.len(), seen.latencies_us.value_at_quantile(0.99)));
        let done = (share * WIDTH as f64) as usize;
        let bar = "█".repeat(done) + &"·".repeat(WIDTH - done);
        let rate = count as f64 / passed.max(0.001);
        let text = format!("\r{bar} {passed:.1}/{whole:.0}s  {rate:.0}/s  p99 {}\x1b[K", micros(p99 as f64));
        // Nobody is left to be told that the standard error is closed.
        drop(std::io::stderr().write_all(text.as_bytes()));
    }

    fn end(&self) {
        if self.shown {
            drop(std::io::stderr().write_all(b"\r\x1b[K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(rate: Option<u32>) -> Load {
        let begin = Instant::now();
        Load {
            event: String::new(),
            body: Body::from(Value::Null),
            request: false,
            options: Options::new(),
            begin,
            end: begin + Duration::from_secs(2),
            rate,
            next: AtomicU64::new(0),
            seen: Mutex::new(Seen {
                latencies_us: Histogram::new_with_max(LATENCY_MAX_US, 3).expect("a histogram"),
                failed: BTreeMap::new(),
            }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_latency_of_a_call_that_comes_late_counts_from_when_it_was_to_be_sent() {
        let load = load(Some(10));
        let begin = load.begin;
        assert_eq!(load.turn().await, Some(begin));
        assert_eq!(load.turn().await.map(|from| from - begin), Some(Duration::from_millis(100)));
        // The call before took a second: the next are late, each since its own time.
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(load.turn().await.map(|from| from - begin), Some(Duration::from_millis(200)));
        assert_eq!(load.turn().await.map(|from| from - begin), Some(Duration::from_millis(300)));
        load.next.store(20, Ordering::Relaxed);
        assert_eq!(load.turn().await, None, "it is over");
    }

    #[test]
    fn a_payload_is_padded_where_it_says_so() {
        let body = Body::from(json!({"a": [PAD, 1], "b": PAD}));
        assert_eq!(payload::value(&padded(&body, 3).expect("padded")), json!({"a": ["xxx", 1], "b": "xxx"}));
        assert_eq!(padded(&Body::from(json!({"a": "b"})), 3).expect_err("nothing to pad").code, 2);
    }
}
