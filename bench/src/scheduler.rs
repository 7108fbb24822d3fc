//! A million entries, of which a thousand fire a second: how late they are, beside as many sleeping tasks.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use edri::scheduler::When;
use edri::{Context, Entry, Failure, Handle, Manager, Scheduler, Worker, event};
use parking_lot::Mutex;

use crate::Result;
use crate::case::{Case, Figures};
use crate::event::{node, stop};
use crate::harness::{Plan, median};
use crate::idle::resident_bytes;
use crate::report::progress;

/// A time, so the ratio is reference ÷ ours.
pub(crate) const CASES: &[Case] =
    &[Case::new("scheduler.million", "ms late (p99)", 0.7, |plan| Box::pin(measure(plan)))];

const ENTRIES: u32 = 1_000_000;
/// One entry fires in each of these.
const APART: Duration = Duration::from_millis(1);
/// How long a side is given to get ready at first. Afterwards it is twice what it took before.
const READY: Duration = Duration::from_secs(12);
const READY_LEAST: Duration = Duration::from_secs(2);
/// How often a side that was not ready in time is given twice as long.
const TRIES: usize = 3;
/// A pair takes a quarter of a minute, so there are no more than these.
const PAIRS: usize = 7;
/// How many of the first to fire are looked at.
const LOOKED_AT: u32 = 4000;
const LOOKED_AT_QUICK: u32 = 1000;

/// An entry fires.
#[event(notification, name = "bench.fired")]
struct Fired {
    number: u32,
}

/// How late those were that fired.
type Late = Arc<Mutex<Vec<f64>>>;

struct Ear {
    first: SystemTime,
    late: Late,
}

impl Worker for Ear {}

impl Handle<Fired> for Ear {
    async fn handle(&mut self, fired: &Fired, _: &mut Context) -> std::result::Result<(), Failure> {
        let due = self.first + APART * fired.number;
        let late = SystemTime::now().duration_since(due).unwrap_or_default();
        self.late.lock().push(late.as_secs_f64() * 1e3);
        Ok(())
    }
}

async fn measure(plan: Plan) -> Result<Figures> {
    let count = if plan.quick { LOOKED_AT_QUICK } else { LOOKED_AT };
    let (mut ours, mut theirs, mut ratios, mut bytes) = (vec![], vec![], vec![], None);
    let (mut ready, mut their_ready) = (READY, READY);
    let mut added = vec![];
    for pair in 0..PAIRS {
        if pair % 2 == 1 {
            theirs.push(in_time(&mut their_ready, |ready| sleepers(count, ready)).await?);
        }
        let run = in_time(&mut ready, |ready| entries(count, ready)).await?;
        // The first run is the one that took memory from the system.
        bytes.get_or_insert(run.bytes / f64::from(ENTRIES));
        added.push(run.took.as_secs_f64());
        ours.push(run);
        if pair % 2 == 0 {
            theirs.push(in_time(&mut their_ready, |ready| sleepers(count, ready)).await?);
        }
        ratios.push(theirs[pair].late / ours[pair].late);
        progress(&format!(
            "scheduler.million: pair {} of {PAIRS}, {:.2} ms late, tokio {:.2} ms",
            pair + 1,
            ours[pair].late,
            theirs[pair].late
        ));
    }
    let note = format!(
        "{PAIRS} pairs, ratio {:.2} to {:.2}; a million added in {:.1} s, {:.0} B each",
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
        median(added.into_iter()),
        bytes.unwrap_or_default(),
    );
    Ok(Figures {
        ours: median(ours.iter().map(|run| run.late)),
        reference: "tokio sleep_until".to_owned(),
        reference_value: median(theirs.iter().map(|run| run.late)),
        ratio: median(ratios.into_iter()),
        note,
    })
}

/// One run of one side.
struct Run {
    /// The 99th percentile of how late the first were, in milliseconds.
    late: f64,
    /// How long it took until all was in place.
    took: Duration,
    /// By how much the process grew, in bytes.
    bytes: f64,
}

/// Has a side run, with as long to get ready as it takes.
async fn in_time<F>(ready: &mut Duration, side: impl Fn(Duration) -> F) -> Result<Run>
where
    F: Future<Output = Result<Option<Run>>>,
{
    for _ in 0..TRIES {
        if let Some(run) = side(*ready).await? {
            *ready = (run.took * 2).max(READY_LEAST);
            return Ok(run);
        }
        *ready *= 2;
    }
    Err(format!("a million were not in place after {:?}", *ready / 2).into())
}

/// Nothing when the first was due before all was in place.
async fn entries(count: u32, ready: Duration) -> Result<Option<Run>> {
    let before = resident_bytes()?;
    let began = Instant::now();
    let first = SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970().as_secs()) + ready;
    let round = APART * ENTRIES;
    let scheduler = Scheduler::new().declares::<Fired>().entries(
        (0..ENTRIES).map(|number| Entry::new(When::every(round), Fired { number }).start(first + APART * number)),
    );
    let late: Late = Arc::default();
    let heard = Arc::clone(&late);
    let ear = Manager::new("ear").worker(move || Ear { first, late: Arc::clone(&heard) }).handles::<Fired>();
    let node = node([scheduler.into(), ear.into()]).await?;
    let took = began.elapsed();
    let bytes = resident_bytes()? - before;
    let is_late = SystemTime::now() > first;
    let late = if is_late { 0.0 } else { until_heard(&late, count).await };
    stop(node).await?;
    Ok(Some(Run { late, took, bytes }).filter(|_| !is_late))
}

/// As many tasks that sleep until the same times.
async fn sleepers(count: u32, ready: Duration) -> Result<Option<Run>> {
    let before = resident_bytes()?;
    let began = tokio::time::Instant::now();
    let first = began + ready;
    let late: Late = Arc::default();
    let tasks: Vec<_> = (0..ENTRIES)
        .map(|number| {
            let late = Arc::clone(&late);
            let due = first + APART * number;
            tokio::spawn(async move {
                tokio::time::sleep_until(due).await;
                late.lock().push(due.elapsed().as_secs_f64() * 1e3);
            })
        })
        .collect();
    let took = began.elapsed();
    let bytes = resident_bytes()? - before;
    let is_late = tokio::time::Instant::now() > first;
    let heard = if is_late { 0.0 } else { until_heard(&late, count).await };
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        // Cancelled, all of those that slept.
        let _ = task.await;
    }
    Ok(Some(Run { late: heard, took, bytes }).filter(|_| !is_late))
}

/// The 99th percentile of the lateness of the first so many.
async fn until_heard(late: &Late, count: u32) -> f64 {
    while late.lock().len() < count as usize {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut late = late.lock()[..count as usize].to_vec();
    late.sort_by(f64::total_cmp);
    late[late.len() * 99 / 100]
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
