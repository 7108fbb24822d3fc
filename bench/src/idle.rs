//! A node at rest: how long it takes to start and how much memory it occupies. Each figure is of a fresh process.

use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use edri::{App, Manager};

use crate::Result;
use crate::case::{Case, Figures};
use crate::event::{Ask, Done, Oracle, Sink, Tick, node};
use crate::harness::{Plan, median};

/// Budgets that are no comparison: the limit is the reference, and to stay within it is a ratio of at least 1.
pub(crate) const CASES: &[Case] = &[
    Case::new("idle.start", "ms", 1.0, |plan| Box::pin(measure(plan, Probe::Start, START_MS_MAX))),
    Case::new("idle.memory", "MB", 1.0, |plan| Box::pin(measure(plan, Probe::Memory, MEMORY_MB_MAX))),
];

const START_MS_MAX: f64 = 50.0;
const MEMORY_MB_MAX: f64 = 20.0;

/// How long a node is left alone before its memory is looked at.
const SETTLES: Duration = Duration::from_millis(100);

/// What a fresh process is to say.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Probe {
    /// How many milliseconds an empty node takes to start.
    Start,
    /// How many megabytes the process of a node with two managers occupies.
    Memory,
    /// How many megabytes the process of a node occupies without clients over WebSocket, and with many.
    Sockets,
}

async fn measure(plan: Plan, what: Probe, limit: f64) -> Result<Figures> {
    let runs: Vec<f64> = (0..plan.pairs).map(|_| ask(what)).collect::<Result<_>>()?;
    let ours = median(runs.iter().copied());
    Ok(Figures {
        ours,
        reference: "absolute limit".to_owned(),
        reference_value: limit,
        ratio: limit / ours,
        note: format!("{} fresh processes", runs.len()),
    })
}

fn ask(what: Probe) -> Result<f64> {
    let name = what.to_possible_value().expect("no probe is skipped");
    let output = Command::new(std::env::current_exe()?).args(["probe", name.get_name()]).output()?;
    if !output.status.success() {
        return Err(format!("the probe failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// Measures this process and prints what was asked for.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
pub(crate) async fn probe(what: Probe) -> Result<()> {
    match what {
        Probe::Start => {
            let began = Instant::now();
            let node = App::new("bench").start().await?;
            println!("{}", began.elapsed().as_secs_f64() * 1e3);
            node.shutdown().await;
        }
        Probe::Memory => {
            let done = Done::new();
            let sink = Manager::new("sink").worker(move || Sink::new(&done)).handles::<Tick>();
            let oracle = Manager::new("oracle").worker(Oracle::default).handles::<Ask>();
            let node = node([sink.into(), oracle.into()]).await?;
            tokio::time::sleep(SETTLES).await;
            println!("{}", resident_bytes()? / 1e6);
            node.shutdown().await;
        }
        Probe::Sockets => crate::idle_sockets::serve().await?,
    }
    Ok(())
}

/// What of this process is in memory.
pub(crate) fn resident_bytes() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("the kernel does not say")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024.0)
}
