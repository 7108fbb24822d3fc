//! A week of earthquakes, replayed through a node and studied on the way.
//!
//! Start with `events.rs`, what is said, and `workers.rs`, who does what. Here they become a program.

mod catalogue;
mod events;
mod progress;
mod report;
mod statistics;
mod workers;

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use clap::Parser;
use edri::prelude::*;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tracing_subscriber::filter::LevelFilter;

use crate::events::{
    CountMagnitudes, FitMagnitudes, ListAlerts, QuakeAlert, QuakeRecorded, Replayed, SummariseNetwork, UploadCatalogue,
};
use crate::progress::ProgressLine;
use crate::report::{Findings, Network, Page};
use crate::workers::{Alarm, Bulletin, Counter, Reader, Seismologist};

const CHUNK_BYTES: usize = 64 * 1024;

/// Replays a week of earthquakes and says what is to be learnt from them.
#[derive(Parser)]
struct Arguments {
    /// How many times faster than it happened, 86400 being a day a second [default: as fast as possible]
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    speed: Option<f64>,
    /// Replay the catalogue so often, each time a week later
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    /// Print one JSON object instead of a page
    #[arg(long)]
    json: bool,
    /// The catalogue: a GeoJSON feed of the USGS
    #[arg(long, value_name = "PATH", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/quakes/data/earthquakes.geojson"), hide_default_value = true)]
    file: PathBuf,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| (0.01..=1e9).contains(speed));
    speed.ok_or_else(|| "a number from 0.01 to 1e9 is needed, 1 being as it happened".to_owned())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = std::env::var("RUST_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(level.unwrap_or(LevelFilter::WARN)).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Who reads no stderr has the exit code.
            let _ = writeln!(io::stderr(), "quakes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let app = App::new("observatory")
        .manager(
            Manager::new("reader").worker(Reader::default).handles::<UploadCatalogue>().placement(Placement::Thread),
        )
        .manager(
            Manager::new("counter")
                .workers(4, Counter::default)
                .keyed()
                .handles::<QuakeRecorded>()
                .handles::<SummariseNetwork>(),
        )
        .manager(Manager::new("alarm").worker(Alarm::default).handles::<QuakeRecorded>())
        .manager(Manager::new("bulletin").worker(Bulletin::default).handles::<QuakeAlert>().handles::<ListAlerts>())
        .manager(
            Manager::new("seismologist")
                .worker(Seismologist::default)
                .handles::<QuakeRecorded>()
                .handles::<CountMagnitudes>()
                .handles::<FitMagnitudes>()
                .placement(Placement::Thread),
        );

    // Stays empty when a signal ends the program first.
    let mut outcome = None;
    let slot = &mut outcome;
    app.run_with(move |node| async move {
        *slot = Some(observe(&node, arguments).await);
        node.shutdown().await;
        Ok(())
    })?;
    match outcome {
        Some(findings) => print(&findings?, arguments.json),
        None => Ok(writeln!(io::stderr(), "quakes: stopped before the end of the catalogue")?),
    }
}

/// Has the catalogue replayed, and asks the workers what they found.
async fn observe(node: &Node, arguments: &Arguments) -> Result<Findings, Box<dyn Error>> {
    let bus = node.bus();
    let began = Instant::now();
    let replayed = upload(node, arguments).await.map_err(|error| format!("{}: {error}", arguments.file.display()))?;
    at_rest(bus).await;
    let elapsed = began.elapsed().as_secs_f64();

    // A keyed request goes where the quakes of the network went: to the one counter that knows it.
    let mut networks = std::collections::BTreeMap::new();
    for network in replayed.networks {
        let summary = bus.request(SummariseNetwork { network: network.clone() }).await?;
        let gutenberg_richter = bus.request(FitMagnitudes { network: Some(network.clone()) }).await?;
        networks.insert(network, Network { summary, gutenberg_richter });
    }
    let alerts = bus.request(ListAlerts {}).await?;
    let histogram = bus.request(CountMagnitudes {}).await?;
    let gutenberg_richter = bus.request(FitMagnitudes { network: None }).await?;
    at_rest(bus).await;
    let topology = node.topology();
    Ok(Findings {
        events: replayed.quakes,
        first_ms: replayed.first_ms,
        last_ms: replayed.last_ms,
        networks,
        alerts: alerts.count,
        strongest: alerts.strongest,
        histogram,
        gutenberg_richter,
        account: topology.account.into(),
        managers: topology.managers,
        elapsed,
        rate: replayed.quakes as f64 / elapsed,
    })
}

/// Sends the file through a tunnel and shows how far its replay is.
async fn upload(node: &Node, arguments: &Arguments) -> Result<Replayed, Box<dyn Error>> {
    let Arguments { repeat, speed, .. } = *arguments;
    let mut file = File::open(&arguments.file).await?;
    let mut tunnel = node.bus().open(UploadCatalogue { repeat, speed }).await?;
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

/// Waits until every delivery has come to its end. The account is read while events go on, so only two that are alike say
/// that nothing happened between them.
async fn at_rest(bus: &Bus) {
    let mut before = None;
    loop {
        let account = bus.account();
        if account.queued + account.in_hand == 0 && account.is_balanced() && before.replace(account) == Some(account) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn print(findings: &Findings, json: bool) -> Result<(), Box<dyn Error>> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        serde_json::to_writer(&mut out, findings)?;
        writeln!(out)?;
        out.flush()?;
    } else {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Page { out, colour }.write(findings)?;
    }
    if !findings.account.balanced {
        return Err("the account of deliveries does not balance: something was lost".into());
    }
    Ok(())
}
