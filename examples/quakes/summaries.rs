//! A summary every six hours of the replay, sent by a scheduler.
//!
//! The scheduler goes by the real clock and the replay by one that runs `--speed` times faster, so six of its hours are an interval
//! of the real one. As fast as possible is no speed: then there are no six hours, and no summaries.

use std::error::Error;
use std::time::{Duration, Instant};

use edri::Subscription;
use edri::prelude::*;
use edri::scheduler::event::{Add, Cancel};
use edri::scheduler::limits::INTERVAL_MIN;
use serde::Serialize;

use crate::events::{AlertsSummarised, ListAlerts};
use crate::say;

const SIX_HOURS: Duration = Duration::from_secs(6 * 3600);
const ENTRY: &str = "summary";

/// What a summary said.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// How many hours of the replay were over.
    pub(crate) hours: u64,
    /// How many alerts there had been.
    pub(crate) alerts: u64,
}

/// Summaries on their way.
pub(crate) struct Summaries {
    began: Instant,
    speed: f64,
    published: Subscription<AlertsSummarised>,
}

impl Summaries {
    /// Puts a scheduler on the node that asks for the alerts every six hours of a replay at this speed, and publishes the answer.
    pub(crate) async fn begin(node: &Node, speed: Option<f64>) -> Result<Option<Self>, Box<dyn Error>> {
        let Some(speed) = speed else { return Ok(None) };
        let interval = SIX_HOURS.div_f64(speed);
        if interval < INTERVAL_MIN {
            say("no summaries: six hours of the replay are over in less than a millisecond");
            return Ok(None);
        }
        node.add(Scheduler::new()).await?;
        let published = node.bus().subscribe::<AlertsSummarised>().await?;
        let entry = Entry::every(interval, ListAlerts {}).id(ENTRY).publish_response("alerts.summarised");
        node.bus().request(Add(entry)).await?;
        Ok(Some(Self { began: Instant::now(), speed, published }))
    }

    /// Listens until `replay` has ended; what came of it, and the summaries.
    pub(crate) async fn during<T>(mut self, bus: &Bus, replay: impl Future<Output = T>) -> (T, Vec<Summary>) {
        let mut heard = Vec::new();
        let mut replay = std::pin::pin!(replay);
        loop {
            tokio::select! {
                biased;
                Some(summary) = self.published.next() => {
                    let passed = self.began.elapsed().mul_f64(self.speed);
                    let summary = Summary { hours: passed.as_secs() / 3600, alerts: summary.count };
                    tracing::info!(hours = summary.hours, alerts = summary.alerts, "a summary");
                    heard.push(summary);
                }
                replayed = &mut replay => {
                    if let Err(error) = bus.request(Cancel { id: ENTRY.to_owned() }).await {
                        say(&format!("the summaries go on: {error}"));
                    }
                    return (replayed, heard);
                }
            }
        }
    }
}
