//! What an event costs beside time: allocations, and the metrics that are always on.

use std::time::Duration;

use edri_router::{Ended, WorkerStatus};

use super::notify::sink;
use super::reference::{self, Take, timed};
use super::request;
use crate::Result;
use crate::allocator::allocations_of;
use crate::case::Figures;
use crate::event::{Done, Sealer, node, publish, stop};
use crate::harness::{Plan, Side, compare};

/// Enough for what is allocated once not to show in the second decimal.
const COUNTED: u64 = 200_000;

/// Allocations of a notification, from `publish` to the end of its handler.
pub(crate) async fn allocations_notify(_: Plan) -> Result<Figures> {
    let done = Done::new();
    let node = node([sink("sink", 1, false, &done)]).await?;
    let ours = per_event(|count| publish(node.bus().clone(), count, vec![0], 1, done.clone())).await;
    let mut reference = reference::channels(1, reference::Spread::All, &[0]).swap_remove(0);
    let reference_value = per_event(|count| reference.run(count)).await;
    stop(node).await?;
    Ok(fewer_is_better(ours, "mpsc of the same envelopes", reference_value))
}

/// Allocations of a request, from `request` to its answer.
pub(crate) async fn allocations_request(_: Plan) -> Result<Figures> {
    let node = node([request::oracle()]).await?;
    let ours = per_event(|count| timed(request::ask(node.bus().clone(), count))).await;
    let (sealer, sender) = (Sealer::new(), reference::oracle(Take::OneByOne));
    let asked = |count| timed(reference::ask(sender.clone(), sealer.clone(), count));
    let reference_value = per_event(asked).await;
    stop(node).await?;
    Ok(fewer_is_better(ours, "mpsc + oneshot", reference_value))
}

async fn per_event<Fut: Future<Output = Duration>>(mut run: impl FnMut(u64) -> Fut) -> f64 {
    // What is allocated at the first events stays: queues, slots, the descriptor.
    run(COUNTED / 10).await;
    allocations_of(run(COUNTED)).await as f64 / COUNTED as f64
}

fn fewer_is_better(ours: f64, reference: &str, reference_value: f64) -> Figures {
    Figures {
        ours,
        reference: reference.to_owned(),
        reference_value,
        ratio: reference_value / ours,
        note: format!("counted over {COUNTED} events"),
    }
}

/// The metrics' share of an event's time. They cannot be switched off, so they are done once more by themselves: what the
/// host of a worker counts for each event, and what it times for one in [`TIMED_ONE_IN`]. The ratio says how many times an
/// event takes as long as its metrics. By themselves the stores overlap better than between other work, so this is what
/// they cost at least.
pub(crate) async fn metrics(plan: Plan) -> Result<Figures> {
    let counting = Side::new("metrics alone", move |rounds| async move { timed(async { count(rounds) }).await });
    let done = Done::new();
    let node = node([sink("sink", 1, false, &done)]).await?;
    let bus = node.bus().clone();
    let whole =
        Side::new("the whole way of an event", move |rounds| publish(bus.clone(), rounds, vec![0], 1, done.clone()));
    let mut figures = compare(&plan, counting, vec![whole]).await;
    stop(node).await?;
    let (alone, whole) = (1e9 / figures.ours, 1e9 / figures.reference_value);
    figures.note = format!("{alone:.1} of {whole:.0} ns an event, {:.1} %; {}", 100.0 / figures.ratio, figures.note);
    Ok(figures)
}

/// One event in so many has its way timed.
const TIMED_ONE_IN: u64 = 128;

fn count(events: u64) {
    use std::time::Instant;
    let status = WorkerStatus::new(0);
    for event in 0..events {
        let timed = event % TIMED_ONE_IN == 0;
        let sent = timed.then(Instant::now);
        status.set_in_hand(1);
        let begun = timed.then(Instant::now);
        if let (Some(sent), Some(begun)) = (sent, begun) {
            status.timed(begun.saturating_duration_since(sent), begun.elapsed());
        }
        status.count(Ended::Handled);
        status.set_in_hand(0);
    }
    std::hint::black_box(&status);
}
