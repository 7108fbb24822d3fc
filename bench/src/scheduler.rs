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

/// A time, so the ratio is reference ÷ ours.
pub(crate) const CASES: &[Case] =
    &[Case::new("scheduler.million", "ms late (p99)", 0.7, |plan| Box::pin(measure(plan)))];

const ENTRIES: u32 = 1_000_000;
/// One entry fires in each of these.
const APART: Duration = Duration::from_millis(1);
/// How long both sides are given to get ready.
const READY: Duration = Duration::from_secs(8);
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
    let (mut ours, mut theirs, mut ratios, mut added, mut bytes) = (vec![], vec![], vec![], vec![], vec![]);
    for pair in 0..plan.pairs {
        if pair % 2 == 1 {
            theirs.push(sleepers(count).await);
        }
        let run = entries(count).await?;
        ours.push(run.late);
        added.push(run.added.as_secs_f64());
        bytes.push(run.bytes / f64::from(ENTRIES));
        if pair % 2 == 0 {
            theirs.push(sleepers(count).await);
        }
        ratios.push(theirs[pair] / ours[pair]);
    }
    let note = format!(
        "{} pairs, ratio {:.2} to {:.2}; a million added in {:.1} s, {:.0} B each",
        plan.pairs,
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
        median(added.into_iter()),
        // The first run is the one that took memory from the system.
        bytes.first().copied().unwrap_or_default(),
    );
    Ok(Figures {
        ours: median(ours.into_iter()),
        reference: "tokio sleep_until".to_owned(),
        reference_value: median(theirs.into_iter()),
        ratio: median(ratios.into_iter()),
        note,
    })
}

struct Ran {
    late: f64,
    added: Duration,
    bytes: f64,
}

async fn entries(count: u32) -> Result<Ran> {
    let before = resident_bytes()?;
    let began = Instant::now();
    let first = SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970().as_secs()) + READY;
    let round = APART * ENTRIES;
    let scheduler = Scheduler::new().declares::<Fired>().entries(
        (0..ENTRIES).map(|number| Entry::new(When::every(round), Fired { number }).start(first + APART * number)),
    );
    let late: Late = Arc::default();
    let heard = Arc::clone(&late);
    let ear = Manager::new("ear").worker(move || Ear { first, late: Arc::clone(&heard) }).handles::<Fired>();
    let node = node([scheduler.into(), ear.into()]).await?;
    let added = began.elapsed();
    let bytes = resident_bytes()? - before;
    if SystemTime::now() > first {
        return Err(format!("a million entries took {added:?}, and the first was due before that").into());
    }
    let late = until_heard(&late, count).await;
    stop(node).await?;
    Ok(Ran { late, added, bytes })
}

/// As many tasks that sleep until the same times.
async fn sleepers(count: u32) -> f64 {
    let first = tokio::time::Instant::now() + READY;
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
    let heard = until_heard(&late, count).await;
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        // Cancelled, all of those that slept.
        let _ = task.await;
    }
    heard
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
