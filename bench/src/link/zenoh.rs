//! zenoh over QUIC: two sessions as peers, without a router. Nothing is dropped: publications are reliable, and a publisher
//! waits while the link is congested.
//!
//! Two settings differ from zenoh's own, because with them it was faster here: [`RUNTIME`], by a third and more, and
//! [`BATCHES`], by a few percent. Larger receive buffers and one stream for all priorities made no difference, what it
//! calls express and its transport of low latency made it slower.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::oneshot;
use zenoh::bytes::ZBytes;
use zenoh::pubsub::Publisher;
use zenoh::qos::CongestionControl;
use zenoh::query::{ConsolidationMode, Querier};
use zenoh::{Config, Session, Wait};

use super::other::{self, Other};
use super::tally::Tally;
use super::{Reference, Work, raw};
use crate::Result;

const SINK: &str = "bench/sink";
const ASK: &str = "bench/ask";
/// Answered with how many publications were handled. It follows them on the same link, with the same priority.
const HANDLED: &str = "bench/handled";

/// One runtime of zenoh's with as many threads as ours, where it has five with six.
const RUNTIME: &str =
    "(rx: (handover: app), acc: (handover: app), tx: (handover: app), net: (handover: app), app: (worker_threads: 2))";
/// Where zenoh looks for it, and that before anything else of it runs.
const RUNTIME_VARIABLE: &str = "ZENOH_RUNTIME";
/// How many batches may wait for the link: the most that zenoh allows.
const BATCHES: usize = 16;

/// How long sessions may take to hear of each other.
const START_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Becomes this program again, with zenoh's runtime as it is to be, unless somebody has said how.
pub(super) fn prepare() -> Result<()> {
    if std::env::var_os(RUNTIME_VARIABLE).is_some() {
        return Ok(());
    }
    let mut again = Command::new(std::env::current_exe()?);
    Err(again.args(std::env::args_os().skip(1)).env(RUNTIME_VARIABLE, RUNTIME).exec().into())
}

/// A session that has one link and looks for no others.
async fn open(keys: &Path, listen: &str, connect: &str) -> Result<Session> {
    // Already there when this is not the first session of the process. zenoh takes its ciphers from here.
    let _ = rustls::crypto::CryptoProvider::install_default(raw::provider().as_ref().clone());
    let (certificate, key) = (other::certificate(keys), other::key(keys));
    let config = serde_json::json!({
        "mode": "peer",
        "listen": { "endpoints": endpoints(listen) },
        "connect": { "endpoints": endpoints(connect) },
        "scouting": { "multicast": { "enabled": false }, "gossip": { "enabled": false } },
        "transport": { "link": {
            "tx": { "queue": { "size": { "data": BATCHES } } },
            "tls": {
                "root_ca_certificate": certificate, "listen_certificate": certificate, "listen_private_key": key,
            },
        } },
    });
    zenoh::open(Config::from_json5(&config.to_string())?).await
}

fn endpoints(address: &str) -> Vec<String> {
    if address.is_empty() { Vec::new() } else { vec![format!("quic/{address}")] }
}

// ---- the side that sends -------------------------------------------------------------------------------------------------

#[derive(Clone)]
pub(super) struct Sending {
    session: Session,
    publisher: Arc<Publisher<'static>>,
    querier: Arc<Querier<'static>>,
    handled: Arc<Querier<'static>>,
    tally: Tally,
}

impl Reference for Sending {
    const NAME: &'static str = "zenoh";
    type Receiving = Session;

    async fn receive(keys: &Path) -> Result<(SocketAddr, Session)> {
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let session = open(keys, &address.to_string(), "").await?;
        let tally = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&tally);
        let sink = session.declare_subscriber(SINK).callback(move |sample| {
            std::hint::black_box(sample.payload().len());
            tally.fetch_add(1, Ordering::Relaxed);
        });
        sink.background().await?;
        let answering = session.declare_queryable(ASK).complete(true).callback(|query| {
            let bytes = query.payload().map_or(0, ZBytes::len) as u64;
            query.reply(query.key_expr().clone(), bytes.to_be_bytes()).wait().expect("the sender runs");
        });
        answering.background().await?;
        let telling = session.declare_queryable(HANDLED).complete(true).callback(move |query| {
            let handled = told.load(Ordering::Relaxed);
            query.reply(query.key_expr().clone(), handled.to_be_bytes()).wait().expect("the sender runs");
        });
        telling.background().await?;
        Ok((address, session))
    }

    async fn start(other: &Other) -> Result<Self> {
        let session = open(other.keys(), "", &other.reference.to_string()).await?;
        let publisher = session.declare_publisher(SINK).congestion_control(CongestionControl::Block).await?;
        let querier = |key: &'static str| {
            let querier = session.declare_querier(key).congestion_control(CongestionControl::Block);
            querier.consolidation(ConsolidationMode::None).timeout(PATIENCE)
        };
        let (querier, handled) = (querier(ASK).await?, querier(HANDLED).await?);
        let matching = async {
            while !(publisher.matching_status().await?.matching()
                && querier.matching_status().await?.matching()
                && handled.matching_status().await?.matching())
            {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Result::Ok(())
        };
        tokio::time::timeout(START_LIMIT, matching).await.map_err(|_| "the other session is not seen")??;
        let (publisher, querier, handled) = (Arc::new(publisher), Arc::new(querier), Arc::new(handled));
        Ok(Self { session, publisher, querier, handled, tally: Tally::default() })
    }

    async fn run(self, work: Work, rounds: u64) -> Duration {
        let data = ZBytes::from(vec![7; work.bytes()]);
        let began = Instant::now();
        if matches!(work, Work::Ask64 | Work::Ask1) {
            let each = rounds.div_ceil(work.in_flight());
            let requesters = (0..work.in_flight()).map(|_| {
                let (querier, data) = (Arc::clone(&self.querier), data.clone());
                tokio::spawn(async move {
                    for _ in 0..each {
                        let answer = ask(&querier, data.clone()).await.expect("the receiver answers");
                        assert_eq!(answer, data.len() as u64, "every byte arrives");
                    }
                })
            });
            join_all(requesters).await.into_iter().for_each(|ended| ended.expect("no panic"));
            return began.elapsed();
        }
        let publisher = self.publisher;
        // A thread of its own: to publish is to wait while the link is congested.
        let publishing =
            tokio::task::spawn_blocking(move || (0..rounds).try_for_each(|_| publisher.put(data.clone()).wait()));
        publishing.await.expect("no panic").expect("the receiver runs");
        let in_all = ask(&self.handled, ZBytes::new()).await.expect("the receiver answers");
        self.tally.settle(rounds, in_all, began.elapsed())
    }

    async fn stop(self) -> Result<u64> {
        self.session.close().await?;
        Ok(self.tally.lost())
    }
}

async fn ask(querier: &Querier<'static>, data: ZBytes) -> Result<u64> {
    let (answered, answer) = oneshot::channel();
    let mut answered = Some(answered);
    // By a callback, which is faster than zenoh's channels. There is one queryable, so there is one reply.
    let asked = querier.get().payload(data).callback_mut(move |reply| {
        if let Some(answered) = answered.take() {
            // Nobody waits any more when it is too late.
            let _ = answered.send(reply);
        }
    });
    asked.await?;
    let answer = answer.await?.into_result()?.payload().to_bytes().as_ref().try_into()?;
    Ok(u64::from_be_bytes(answer))
}
