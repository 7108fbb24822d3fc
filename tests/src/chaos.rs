//! Many events through process workers while somebody kills and stops them at random.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edri::prelude::*;
use edri::{Process, Reason, Typed, WorkerState};
use parking_lot::Mutex;

/// For a Rust worker.
#[event(notification, name = "chaos.rust")]
pub struct RustStruck {
    /// Which.
    pub number: u64,
}

/// For a Python worker.
#[event(notification, name = "chaos.python")]
pub struct PythonStruck {
    /// Which.
    pub number: u64,
}

/// What a worker says of every event it has handled.
#[event(notification, name = "chaos.survived")]
pub struct Survived {
    /// Whether it is a Python worker.
    pub by_python: bool,
    /// Which event.
    pub number: u64,
    /// Whether the event may have been handled before.
    pub redelivered: bool,
}

/// Says of every event that it was handled.
pub struct Survivor;

impl Worker for Survivor {}

impl Handle<RustStruck> for Survivor {
    async fn handle(&mut self, struck: &RustStruck, cx: &mut Context) -> Result<(), Failure> {
        cx.publish(Survived { by_python: false, number: struck.number, redelivered: cx.is_redelivered() }).await?;
        Ok(())
    }
}

fn harden(process: Process) -> Process {
    // A stopped one is found soon; a busy machine may keep a healthy one waiting nearly as long, which does no harm here.
    process.silence_limit(Duration::from_millis(500)).handshake_limit(Duration::from_secs(30))
}

fn patient() -> Restart {
    Restart::at_most(1_000_000, Duration::from_secs(60)).backoff(Duration::from_millis(1), Duration::from_millis(5))
}

/// The manager of the Rust workers. An event that is found in the hands of a dead one is not tried again.
pub fn survivors() -> Manager<Typed<Survivor>> {
    Manager::new("rust").workers(2, || Survivor).process(harden).restart(patient()).handles::<RustStruck>()
}

/// Who has handled what. Every event must be in one of the sets.
#[derive(Default)]
struct Ledger {
    handled: [HashSet<u64>; 2],
    /// Handled again, and said so.
    repeated: u64,
    /// Handled again without a word.
    unmarked: u64,
}

struct Clerk(Arc<Mutex<Ledger>>);

impl Worker for Clerk {}

impl Handle<Survived> for Clerk {
    async fn handle(&mut self, survived: &Survived, _: &mut Context) -> Result<(), Failure> {
        let mut ledger = self.0.lock();
        let first = ledger.handled[usize::from(survived.by_python)].insert(survived.number);
        ledger.repeated += u64::from(!first && survived.redelivered);
        ledger.unmarked += u64::from(!first && !survived.redelivered);
        Ok(())
    }
}

/// Sends `events` through two Rust workers and as many through two Python workers, which `python` and the script at `script`
/// are, while the killer whose choices `seed` makes is at work. Tells what came of it.
///
/// # Errors
///
/// When the node does not start, or an event cannot be published.
pub fn run(seed: u64, events: u64, python: &str, script: &str, token: &str) -> edri::Result<serde_json::Value> {
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let clerk = Arc::clone(&ledger);
    let pythons = Manager::program("python", &format!("'{python}' '{script}' {token}"))
        .instances(2)
        .process(harden)
        .retry(Retry::attempts(3))
        .restart(patient());
    let mut limits = edri::Limits::default();
    limits.dead_letters_max = 2 * events as usize;
    let app = App::new("chaos")
        .limits(limits)
        .manager(survivors())
        .manager(pythons)
        .manager(Manager::new("clerk").worker(move || Clerk(Arc::clone(&clerk))).handles::<Survived>());
    let told = app.run_with(|node| async move {
        let over = Arc::new(AtomicBool::new(false));
        let killer = tokio::spawn(kill(node.clone(), seed, Arc::clone(&over)));
        let rust = async {
            for number in 0..events {
                node.bus().publish(RustStruck { number }).await?;
            }
            Ok::<_, edri::Error>(())
        };
        let python = async {
            for number in 0..events {
                node.bus().publish(PythonStruck { number }).await?;
            }
            Ok::<_, edri::Error>(())
        };
        let (rust, python) = tokio::join!(rust, python);
        rust?;
        python?;
        // The killer goes on until all is done.
        let account = node.at_rest().await;
        over.store(true, Ordering::Relaxed);
        let struck = killer.await.map_err(std::io::Error::other)?;
        let restarts: u32 =
            node.topology().managers.iter().flat_map(|view| &view.workers).map(|worker| worker.restarts).sum();
        let dead = node.bus().dead_letters();
        let other = dead.iter().filter(|letter| letter.reason != Reason::WorkerLost).count();
        let mut missing = 0;
        {
            let ledger = ledger.lock();
            for (kind, name) in ["chaos.rust", "chaos.python"].into_iter().enumerate() {
                let lost = dead.iter().filter(|letter| *letter.envelope.name() == name);
                let lost: HashSet<u64> = lost.filter_map(|letter| number_of(&letter.envelope)).collect();
                missing += (0..events).filter(|n| !ledger.handled[kind].contains(n) && !lost.contains(n)).count();
            }
        }
        let report = node.shutdown().await;
        let ledger = ledger.lock();
        Ok::<_, edri::Error>(serde_json::json!({
            "seed": seed,
            "struck": struck,
            "restarts": restarts,
            "handled": [ledger.handled[0].len(), ledger.handled[1].len()],
            "repeated": ledger.repeated,
            "unmarked": ledger.unmarked,
            "dead_lettered": dead.len(),
            "dead_for_other_reasons": other,
            "missing": missing,
            "balanced": account.is_balanced() && report.account.is_balanced(),
            "unfinished": report.unfinished.len(),
            "peak_memory_kb": peak_memory_kb(),
        }))
    })?;
    Ok(told.unwrap_or(serde_json::Value::Null))
}

fn number_of(envelope: &Envelope) -> Option<u64> {
    let body = envelope.body(edri::Encoding::Json).ok()?;
    body.decode::<serde_json::Value>().ok()?.get("number")?.as_u64()
}

/// Kills and stops workers at random until it is over; returns how many.
async fn kill(node: Node, seed: u64, over: Arc<AtomicBool>) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut struck = 0;
    while !over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(random.u64(50..500))).await;
        let topology = node.topology();
        let workers = topology.managers.iter().flat_map(|view| &view.workers);
        let running = workers.filter(|worker| worker.state == WorkerState::Running).filter_map(|worker| worker.pid);
        let Some(pid) = random.choice(running.collect::<Vec<_>>()) else { continue };
        let signal = if random.u8(0..4) == 0 { "STOP" } else { "KILL" };
        // It may have ended just now.
        let _ = Command::new("sh").args(["-c", &format!("kill -s {signal} {pid}")]).output();
        struck += 1;
    }
    struck
}

/// The most memory that this process has held, where the system tells.
fn peak_memory_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
