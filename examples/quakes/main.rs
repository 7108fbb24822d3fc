//! A week of earthquakes, replayed through a node and studied on the way.
//!
//! Start with `events.rs`, what is said, and `workers.rs`, who does what. Here they become a program.

mod arguments;
mod catalogue;
mod cluster;
mod events;
mod keys;
mod latest;
mod nodes;
mod overseer;
mod progress;
mod python;
mod report;
mod statistics;
mod summaries;
mod workers;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use bytes::BytesMut;
use clap::Parser;
use edri::prelude::*;
use edri::{GroupView, IntoDefinition, system};
use tokio::io::AsyncReadExt;
use tracing_subscriber::filter::LevelFilter;

use crate::arguments::{Arguments, Part};
use crate::events::*;
use crate::latest::Latest;
use crate::progress::ProgressLine;
use crate::report::{Findings, Page};
use crate::summaries::Summaries;
use crate::workers::{Alarm, Analyst, Bulletin, Counter, Reader};

const CHUNK_BYTES: usize = 64 << 10;

fn main() -> ExitCode {
    // The analyst's process is this program again, and goes no further.
    edri::hosted(observatory);
    let arguments = Arguments::parse();
    let level = std::env::var("RUST_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(level.unwrap_or(LevelFilter::WARN)).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // Nothing depends on somebody reading it: the exit code says how it went.
    let _ = writeln!(io::stderr(), "quakes: {text}");
}

fn stopped() -> Result<(), Box<dyn Error>> {
    say("stopped before the end of the catalogue");
    Ok(())
}

/// The workers and what they handle. The reader computes for a while, so it is on a thread, where that holds up nobody; the
/// analyst does too, and in a process of its own its memory and its mishaps are its own as well.
fn observatory() -> App {
    studying(App::new("observatory").manager(reader()))
}

fn reader() -> impl IntoDefinition {
    Manager::new("reader").worker(|| Reader).placement(Placement::Thread).handles::<UploadCatalogue>()
}

/// Adds all managers but the reader, which is elsewhere when there are several nodes.
fn studying(app: App) -> App {
    let counter = Manager::new("counter")
        .workers(4, Counter::default)
        .keyed()
        .handles::<QuakeRecorded>()
        .handles::<SummariseNetwork>();
    let alarm = Manager::new("alarm").worker(|| Alarm).handles::<QuakeRecorded>();
    let bulletin = Manager::new("bulletin").worker(Bulletin::default).handles::<QuakeAlert>().handles::<ListAlerts>();
    let analyst = Manager::new("analyst")
        .worker(Analyst::default)
        .placement(Placement::Process)
        .handles::<QuakeRecorded>()
        .handles::<StudyMagnitudes>();
    let latest = Manager::new("latest").worker(Latest::default).handles::<QuakeRecorded>().handles::<SaveLatest>();
    let store = Store::memory().namespace(latest::NAMESPACE);
    app.manager(counter).manager(alarm).manager(bulletin).manager(latest).manager(store).manager(analyst)
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if let [folder, names @ ..] = &*arguments.make_keys
        && !names.is_empty()
    {
        return Ok(names.iter().try_for_each(|name| keys::make(Path::new(folder), name, say).map(drop))?);
    }
    match arguments.role {
        Some(role) => nodes::run(role, arguments),
        None if arguments.cluster => cluster::run(arguments),
        None => run_alone(arguments),
    }
}

/// Everything in one process, or nearly so.
fn run_alone(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let (app, speed) = match &arguments.serve {
        Some(address) => (serving(observatory(), address), arguments.speed.or(Some(SERVED_SPEED))),
        None => (observatory(), arguments.speed),
    };
    let findings = app.run_with(async move |node: Node| {
        if let Some(address) = node.api_address() {
            say(&format!("http://{address}/ shows quakes as they come; http://{address}/docs what can be asked"));
        }
        let findings = observe(&node, arguments, speed).await?;
        if arguments.serve.is_some() {
            print(&findings, arguments.json)?;
            say("all of them have come; what they say can be asked until this is stopped");
            node.stopped().await;
        }
        node.shutdown().await;
        Ok::<_, Box<dyn Error>>(findings)
    })?;
    match findings {
        // Served, they have been printed when all had come.
        _ if arguments.serve.is_some() => Ok(()),
        Some(findings) => print(&findings, arguments.json),
        None => stopped(),
    }
}

/// How many times faster than it happened a catalogue is replayed for people who look on.
const SERVED_SPEED: f64 = 3600.0;

/// Opens the node to browsers and services. They may look and ask; only this program says that the earth shook.
fn serving(app: App, address: &str) -> App {
    let looking_on = Permissions::new().subscribe("quake.*").request(">");
    let api = Api::bind(address)
        .access(Access::new().anonymous(looking_on))
        .files(concat!(env!("CARGO_MANIFEST_DIR"), "/quakes/page"));
    app.manager(overseer::overseer()).history("quake.recorded", History::new().events(500)).api(api)
}

/// Has the catalogue replayed, then asks the workers what they found.
async fn observe(node: &Node, arguments: &Arguments, speed: Option<f64>) -> Result<Findings, Box<dyn Error>> {
    let has_report = !arguments.no_python && start_report(node).await;
    let summaries = Summaries::begin(node, speed).await?;
    let began = Instant::now();
    let upload = upload(node, arguments, Part::WHOLE, speed);
    let (replayed, summaries) = match summaries {
        Some(summaries) => summaries.during(node.bus(), upload).await,
        None => (upload.await, Vec::new()),
    };
    let replayed = replayed?;
    // Every quake counted, every alert that followed from one too.
    node.at_rest().await;
    let findings = gather(node, replayed, has_report, began.elapsed().as_secs_f64()).await?;
    Ok(Findings { summaries, ..findings })
}

/// Asks the workers what they found in what was replayed, which took so many seconds.
async fn gather(node: &Node, replayed: Replayed, has_report: bool, elapsed: f64) -> Result<Findings, Box<dyn Error>> {
    let bus = node.bus();
    // Keyed as the quakes are, each request goes to the one counter that has those of its network.
    let mut networks = BTreeMap::new();
    for network in replayed.networks {
        networks.insert(network.clone(), bus.request(SummariseNetwork { network }).await?);
    }
    let Alerts { count: alerts, strongest } = bus.request(ListAlerts {}).await?;
    let LatestSaved { transactions: latest_transactions } = bus.request(SaveLatest {}).await?;
    let latest = latest::read(bus).await?;
    let study = bus.request(StudyMagnitudes {}).await?;
    let regions = if has_report { report_regions(bus).await } else { None };
    node.at_rest().await;
    let mut topology = node.topology();
    // The one that answers questions about a node has no part in the work.
    topology.managers.retain(|manager| manager.name.manager().is_none_or(|name| **name != *system::OPERATOR));
    let Replayed { quakes: events, first_ms, last_ms, .. } = replayed;
    let (account, managers, rate) = (topology.account.into(), topology.managers, events as f64 / elapsed);
    let lost_workers = lost_workers(&managers);
    Ok(Findings {
        events,
        first_ms,
        last_ms,
        networks,
        alerts,
        strongest,
        summaries: Vec::new(),
        latest,
        latest_transactions,
        regions,
        study,
        account,
        managers,
        lost_workers,
        elapsed,
        rate,
    })
}

/// Adds the manager whose worker is written in Python. Without Python everything else goes on; whether there is one.
async fn start_report(node: &Node) -> bool {
    let added = match python::report_command(say).await {
        Ok(command) => node.add(Manager::program("report", &command)).await.map_err(|error| error.to_string()),
        Err(missing) => Err(missing),
    };
    if let Err(why) = &added {
        say(&format!("no report by region: {why} (`--no-python` leaves it out)"));
    }
    added.is_ok()
}

async fn report_regions(bus: &Bus) -> Option<Vec<Region>> {
    let regions = bus.request(ReportRegions {}).await;
    regions.inspect_err(|error| say(&format!("no report by region: {error}"))).ok()
}

/// How often each manager lost a worker, and with it what that had learned.
fn lost_workers(managers: &[GroupView]) -> BTreeMap<String, u32> {
    let lost = managers.iter().filter_map(|manager| {
        let restarts = manager.workers.iter().map(|worker| worker.restarts).sum();
        Some((manager.name.manager()?.to_string(), restarts))
    });
    lost.filter(|(_, restarts)| *restarts > 0).collect()
}

/// Has a part of the file replayed.
async fn upload(
    node: &Node,
    arguments: &Arguments,
    part: Part,
    speed: Option<f64>,
) -> Result<Replayed, Box<dyn Error>> {
    let replayed = replay(node, arguments, part, speed).await;
    replayed.map_err(|error| format!("{}: {error}", arguments.file.display()).into())
}

/// Sends the file through a tunnel and shows how far its replay is.
async fn replay(
    node: &Node,
    arguments: &Arguments,
    part: Part,
    speed: Option<f64>,
) -> Result<Replayed, Box<dyn Error>> {
    let repeat = arguments.repeat;
    let mut file = tokio::fs::File::open(&arguments.file).await?;
    let mut tunnel = node.bus().open(UploadCatalogue { repeat, speed, part }).await?;
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        if file.read_buf(&mut chunk).await? == 0 {
            break;
        }
        tunnel.send(chunk.freeze()).await?;
    }
    tunnel.finish();

    let mut line = ProgressLine::new();
    while let Some(progress) = tunnel.recv().await? {
        line.draw(&progress, &node.topology());
    }
    Ok(tunnel.result().await?)
}

fn print(findings: &Findings, json: bool) -> Result<(), Box<dyn Error>> {
    let out = io::BufWriter::new(io::stdout().lock());
    let written = if json {
        write_json(out, findings)
    } else {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Page { out, colour }.write(findings)
    };
    match written {
        // The reader has seen enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    if !findings.account.balanced {
        return Err("the account of deliveries does not balance: some are unaccounted for".into());
    }
    Ok(())
}

fn write_json(mut out: impl Write, findings: &Findings) -> io::Result<()> {
    serde_json::to_writer(&mut out, findings)?;
    writeln!(out)?;
    out.flush()
}
