//! edri side by side with raw primitives, on one machine, in one run.
//!
//! `cargo run --profile bench -p edri-bench -- local` prints a table of ratios: ours ÷ reference in throughput, so more is
//! better and 1 is as good as the reference. What is compared with what, and how, is in `docs/BENCHMARKS.md`.
//!
//! It promises pairs, not absolute figures: the machine is shared, so every figure of ours stands next to one of the
//! reference taken within the same second. None of it is a test with a time limit; `--enforce` makes a missed budget the
//! exit code for those who want it.

mod allocator;
mod case;
mod event;
mod gateway;
mod harness;
mod idle;
mod idle_sockets;
mod link;
mod local;
mod paced;
mod pinned;
mod process;
mod redis;
mod report;
mod scheduler;
mod store;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::case::{Case, Figures, Outcome};
use crate::harness::Plan;
use crate::report::Report;

/// What may go wrong: something outside, said in words.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Worker threads of the tokio runtime that both sides run on.
const RUNTIME_WORKERS: usize = 2;

#[derive(Debug, Parser)]
#[command(about = "edri side by side with raw primitives")]
struct Cli {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// Within one process: routing, requests, tunnels, subscriptions, and a node at rest.
    Local(Options),
    /// Between two processes: a node and a worker in a process of its own, in Rust and in Python.
    Process(Options),
    /// Between two nodes in two processes, and from one node to many.
    Link(Options),
    /// The store, in memory and on disk.
    Store(Options),
    /// What is sent at times: a million entries beside a million sleeping tasks.
    Scheduler(Options),
    /// The gateway over HTTP, beside an axum handler.
    Http(Options),
    /// The gateway over WebSocket, beside an echo.
    Websocket(Options),
    /// One side of a case of `link`, for a profiler.
    #[command(hide = true)]
    LinkOnce(link::Once),
    /// One side of a case of `store`, for a profiler.
    #[command(hide = true)]
    StoreOnce(store::Once),
    /// One side of a case of `process`, for a profiler.
    #[command(hide = true)]
    Once(process::Once),
    /// A node in a process of its own, to be looked at from outside.
    #[command(hide = true)]
    Probe { what: idle::Probe },
}

#[derive(Debug, Args)]
struct Options {
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Only the case of this name; when there is none, all whose names begin so.
    #[arg(long)]
    case: Option<String>,
    /// How many pairs to keep, at least 7.
    #[arg(long, default_value_t = harness::PAIRS_DEFAULT)]
    pairs: usize,
    /// Shorter slices: a first look in half a minute.
    #[arg(long)]
    quick: bool,
    /// Everything on one core, where waking a thread costs nearly nothing.
    #[arg(long)]
    pinned: bool,
    /// Exit with an error when a budget is missed.
    #[arg(long)]
    enforce: bool,
}

fn main() -> Result<ExitCode> {
    // A bare child may be a node's worker too.
    if process::bare::is_wanted() {
        return process::bare::run().map(|()| ExitCode::SUCCESS);
    }
    process::hosted();
    link::prepare()?;
    if let Some(keys) = link::other::is_wanted() {
        return runtime()?.block_on(async { tokio::spawn(link::other::run(keys)).await })?.map(|()| ExitCode::SUCCESS);
    }
    match Cli::parse().suite {
        Suite::Local(options) => suite("local", &options, local::CASES.iter().chain(idle::CASES)),
        Suite::Process(options) => suite("process", &options, process::CASES.iter()),
        Suite::Link(options) => suite("link", &options, link::CASES.iter().chain(link::PEERS)),
        Suite::Store(options) => suite("store", &options, store::CASES.iter()),
        Suite::Scheduler(options) => suite("scheduler", &options, scheduler::CASES.iter()),
        Suite::Http(options) => suite("http", &options, gateway::HTTP.iter()),
        Suite::Websocket(options) => suite("websocket", &options, gateway::WEBSOCKET.iter()),
        Suite::LinkOnce(once) => {
            let took = runtime()?.block_on(async { tokio::spawn(link::once(once)).await })??;
            report::took(took);
            Ok(ExitCode::SUCCESS)
        }
        Suite::StoreOnce(once) => {
            let took = runtime()?.block_on(async { tokio::spawn(store::once(once)).await })??;
            report::took(took);
            Ok(ExitCode::SUCCESS)
        }
        Suite::Once(once) => {
            let took = runtime()?.block_on(async { tokio::spawn(process::once(once)).await })??;
            report::took(took);
            Ok(ExitCode::SUCCESS)
        }
        Suite::Probe { what } => runtime()?.block_on(idle::probe(what)).map(|()| ExitCode::SUCCESS),
    }
}

/// The runtime that everything runs on, ours and the references.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_WORKERS).enable_all().build()?)
}

fn suite(name: &str, options: &Options, all: impl Iterator<Item = &'static Case> + Clone) -> Result<ExitCode> {
    if options.pinned && !pinned::is_pinned() {
        return pinned::execute_again();
    }
    let plan = Plan::new(options.pairs, options.quick);
    let cases = case::select(all.clone(), options.case.as_deref());
    if cases.is_empty() {
        let names: Vec<_> = all.map(|case| case.name).collect();
        return Err(format!("there is no such case; there are {}", names.join(", ")).into());
    }
    let mut report = Report::begin(options.json);
    for case in cases {
        if let Some(why) = (case.missing)() {
            report.leave_out(case.name, &why);
            continue;
        }
        report.add(&measure(case, &plan)?);
        if case.one_in_flight && !pinned::is_pinned() {
            report.add(&pinned::measure(name, case, &plan)?);
        }
    }
    let missed = report.end();
    Ok(if options.enforce && missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs a case in a runtime of its own, so that no case inherits the tasks or threads of another.
fn measure(case: &Case, plan: &Plan) -> Result<Outcome> {
    let runtime = runtime()?;
    // Spawned, so that the one who sends sits on a worker of the runtime like everybody else.
    let measured: Figures = runtime.block_on(async { tokio::spawn((case.run)(plan.clone())).await })??;
    let name = if pinned::is_pinned() { format!("{}.pinned", case.name) } else { case.name.to_owned() };
    Ok(Outcome::new(name, case, measured))
}
