//! Two nodes, joined by a link.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use edri::{Account, App, Connector, Context, Failure, Handle, Manager, Node, Worker, event};
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::Work;
use super::other::Other;
use crate::Result;
use crate::event::{Blob, BlobAsk, KeyedBlob};

pub(super) const SENDER: &str = "sender";
pub(super) const RECEIVER: &str = "receiver";

/// How much less than the payload of an event of this size its filling is.
const ENVELOPING: usize = 20;

/// Answered once so many notifications have been handled in all.
#[event(request, name = "bench.handled", response = u64, timeout = "10m")]
struct Handled {
    in_all: u64,
}

#[event(tunnel, name = "bench.link.upload", up = Bytes, down = u64, result = u64)]
struct Upload {}

/// The keys of keyed notifications, and the workers that share them.
const KEYS: u64 = 1024;
const KEYED_WORKERS: usize = 2;

/// How many notifications were handled.
#[derive(Debug, Default)]
struct Tally {
    handled: AtomicU64,
    awaited: AtomicU64,
    reached: Notify,
}

/// Handles what comes.
struct Sink(Arc<Tally>);

impl Worker for Sink {}

impl Sink {
    fn count(&self, data: &Bytes) {
        std::hint::black_box(data.len());
        let handled = self.0.handled.fetch_add(1, Ordering::SeqCst) + 1;
        if handled == self.0.awaited.load(Ordering::SeqCst) {
            self.0.reached.notify_one();
        }
    }
}

impl Handle<Blob> for Sink {
    async fn handle(&mut self, blob: &Blob, _: &mut Context) -> std::result::Result<(), Failure> {
        self.count(&blob.data);
        Ok(())
    }
}

impl Handle<KeyedBlob> for Sink {
    async fn handle(&mut self, blob: &KeyedBlob, _: &mut Context) -> std::result::Result<(), Failure> {
        self.count(&blob.data);
        Ok(())
    }
}

impl Handle<BlobAsk> for Sink {
    async fn handle(&mut self, ask: &BlobAsk, _: &mut Context) -> std::result::Result<u64, Failure> {
        Ok(ask.number.wrapping_add(ask.data.len() as u64))
    }
}

impl Handle<Upload> for Sink {
    async fn handle(&mut self, _: &Upload, cx: &mut Context) -> std::result::Result<u64, Failure> {
        let mut tunnel = cx.accept::<Upload>()?;
        let mut bytes = 0;
        while let Some(item) = tunnel.recv().await? {
            bytes += item.len() as u64;
        }
        Ok(bytes)
    }
}

/// Says when all has been handled; apart from the sink, which it would wait behind.
struct Teller(Arc<Tally>);

impl Worker for Teller {}

impl Handle<Handled> for Teller {
    async fn handle(&mut self, handled: &Handled, _: &mut Context) -> std::result::Result<u64, Failure> {
        self.0.awaited.store(handled.in_all, Ordering::SeqCst);
        while self.0.handled.load(Ordering::SeqCst) < handled.in_all {
            self.0.reached.notified().await;
        }
        Ok(handled.in_all)
    }
}

/// The node that receives.
pub(super) async fn receive(keys: &Path) -> Result<Node> {
    let tally = Arc::new(Tally::default());
    let (told, counted) = (Arc::clone(&tally), Arc::clone(&tally));
    let keyed = Manager::new("keyed").workers(KEYED_WORKERS, move || Sink(Arc::clone(&counted)));
    let keyed = keyed.keyed().shared().handles::<KeyedBlob>();
    let sink = Manager::new("sink").worker(move || Sink(Arc::clone(&tally)));
    let sink = sink.handles::<Blob>().handles::<BlobAsk>().handles::<Upload>();
    let teller = Manager::new("teller").worker(move || Teller(Arc::clone(&told))).handles::<Handled>();
    let connector = Connector::listen("127.0.0.1:0").identity(keys.join(RECEIVER));
    Ok(App::new(RECEIVER).manager(sink).manager(keyed).manager(teller).connector(connector).start().await?)
}

/// The node that sends.
#[derive(Clone)]
pub(super) struct Sending {
    node: Node,
    sent: Arc<AtomicU64>,
}

impl Sending {
    pub(super) async fn start(other: &Other) -> Result<Self> {
        let connector = Connector::dial().connect(&other.node.to_string()).identity(other.keys().join(SENDER));
        let node = App::new(SENDER).connector(connector).expects(RECEIVER).start().await?;
        node.bus().wait_for::<Blob>().await?;
        node.bus().wait_for::<KeyedBlob>().await?;
        node.bus().wait_for::<Handled>().await?;
        Ok(Self { node, sent: Arc::default() })
    }

    /// Does so many rounds of the work.
    pub(super) async fn run(self, work: Work, rounds: u64) -> Duration {
        let data = Bytes::from(vec![7; work.bytes() - ENVELOPING]);
        let bus = self.node.bus().clone();
        let began = Instant::now();
        match work {
            Work::Notify64 | Work::Notify1k | Work::Keyed64 => {
                let in_all = self.sent.fetch_add(rounds, Ordering::Relaxed) + rounds;
                let asking = bus.clone();
                let handled = tokio::spawn(async move { asking.request(Handled { in_all }).await });
                if work == Work::Keyed64 {
                    for number in (0..KEYS).cycle().take(rounds as usize) {
                        bus.publish(KeyedBlob { number, data: data.clone() }).await.expect("the node runs");
                    }
                } else {
                    for number in 0..rounds {
                        bus.publish(Blob { number, data: data.clone() }).await.expect("the node runs");
                    }
                }
                handled.await.expect("no panic").expect("the receiver runs");
            }
            Work::Tunnel => {
                let data = Bytes::from(vec![7; work.bytes()]);
                let mut tunnel = bus.open(Upload {}).await.expect("the receiver runs");
                for _ in 0..rounds {
                    tunnel.send(data.clone()).await.expect("the receiver runs");
                }
                let received = tunnel.result().await.expect("the worker succeeds");
                assert_eq!(received, rounds * data.len() as u64, "every byte arrives");
            }
            Work::Ask64 | Work::Ask1 => {
                let each = rounds.div_ceil(work.in_flight());
                let requesters = (0..work.in_flight()).map(|_| {
                    let (bus, data) = (bus.clone(), data.clone());
                    tokio::spawn(async move {
                        for number in 0..each {
                            let ask = BlobAsk { number, data: data.clone() };
                            std::hint::black_box(bus.request(ask).await.expect("the receiver runs"));
                        }
                    })
                });
                join_all(requesters).await.into_iter().for_each(|ended| ended.expect("no panic"));
            }
        }
        began.elapsed()
    }

    pub(super) async fn stop(self) -> Result<()> {
        stop(&self.node, |account| account.forwarded).await
    }
}

/// Stops a node and makes sure that all it was given has ended as it should.
pub(super) async fn stop(node: &Node, ended: impl Fn(&Account) -> u64 + Send) -> Result<()> {
    let account = node.shutdown().await.account;
    if account.is_balanced() && ended(&account) == account.deliveries {
        return Ok(());
    }
    Err(format!("events were lost: {account:?}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_of_an_event_is_as_long_as_the_frame_of_the_reference() {
        for work in [Work::Notify64, Work::Notify1k, Work::Ask64] {
            let blob = Blob { number: 100_000, data: Bytes::from(vec![7; work.bytes() - ENVELOPING]) };
            let payload = rmp_serde::to_vec_named(&blob).expect("plain data");
            assert!(payload.len().abs_diff(work.bytes()) <= 4, "{work:?}: {} bytes", payload.len());
        }
    }
}
