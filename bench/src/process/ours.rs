//! A node with a worker in a process of its own.

use std::time::{Duration, Instant};

use bytes::Bytes;
use edri::{App, Bus, Context, Definition, Failure, Handle, Manager, Node, Placement, Worker};
use futures_util::future::join_all;

use super::{Child, Work, bare, python};
use crate::Result;
use crate::event::{Blob, BlobAsk, node, stop};

const NAME: &str = "blobs";

/// Answers questions and takes notifications.
#[derive(Debug, Default)]
struct Blobs;

impl Worker for Blobs {}

impl Handle<BlobAsk> for Blobs {
    async fn handle(&mut self, ask: &BlobAsk, _: &mut Context) -> std::result::Result<u64, Failure> {
        Ok(ask.number.wrapping_add(ask.data.len() as u64))
    }
}

impl Handle<Blob> for Blobs {
    async fn handle(&mut self, blob: &Blob, _: &mut Context) -> std::result::Result<(), Failure> {
        std::hint::black_box(blob.number.wrapping_add(blob.data.len() as u64));
        Ok(())
    }
}

/// Becomes the worker if this process is to be one.
pub(crate) fn hosted() {
    edri::hosted(|| App::new("bench").manager(blobs()));
}

fn blobs() -> Definition {
    let blobs = Manager::new(NAME).worker(Blobs::default).handles::<BlobAsk>().handles::<Blob>();
    blobs.placement(Placement::Process).into()
}

fn manager(child: Child) -> Result<Definition> {
    let quoted = |path: &std::path::Path| format!("'{}'", path.display());
    Ok(match child {
        Child::Rust => blobs(),
        Child::Python => {
            let words = [quoted(python::interpreter()?), quoted(&python::script("worker.py"))];
            Manager::program(NAME, &words.join(" ")).into()
        }
        Child::Bare => {
            let program = Manager::program(NAME, &quoted(&std::env::current_exe()?));
            program.process(|process| process.env(bare::MARK, "1")).into()
        }
    })
}

/// A node that runs.
pub(super) struct Served(Node);

impl Served {
    pub(super) async fn start(child: Child) -> Result<Self> {
        Ok(Self(node([manager(child)?]).await?))
    }

    pub(super) fn bus(&self) -> Bus {
        self.0.bus().clone()
    }

    pub(super) async fn stop(self) -> Result<()> {
        stop(self.0).await
    }
}

/// So many nodes one after another, from nothing to the first answer of each.
pub(super) async fn spawn(child: Child, rounds: u64) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..rounds {
        let began = Instant::now();
        let served = Served::start(child).await.expect("the node starts");
        ask(served.bus(), Bytes::from_static(&[7; 44]), 1).await;
        took += began.elapsed();
        served.stop().await.expect("the node stops");
    }
    took
}

/// Does so many rounds of the work.
pub(super) async fn run(bus: Bus, work: Work, rounds: u64) -> Duration {
    let data = Bytes::from(vec![7; work.filling()]);
    let began = Instant::now();
    match work {
        Work::Ask1 => ask(bus, data, rounds).await,
        Work::Ask64 | Work::Ask64Large => {
            let each = rounds.div_ceil(work.in_flight() as u64);
            let requesters = (0..work.in_flight()).map(|_| tokio::spawn(ask(bus.clone(), data.clone(), each)));
            join_all(requesters).await.into_iter().for_each(|ended| ended.expect("no panic"));
        }
        Work::Notify => {
            for number in 0..rounds {
                bus.publish(Blob { number, data: data.clone() }).await.expect("the node runs");
            }
            // Handled behind all of them.
            ask(bus, data, 1).await;
        }
    }
    began.elapsed()
}

/// Asks so many questions one after another.
async fn ask(bus: Bus, data: Bytes, rounds: u64) {
    for number in 0..rounds {
        let ask = BlobAsk { number, data: data.clone() };
        std::hint::black_box(bus.request(ask).await.expect("the node runs"));
    }
}
