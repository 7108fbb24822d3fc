//! Tunnels: small items, and large ones that must not be copied.

use bytes::Bytes;
use edri::prelude::*;
use edri::{Item, Window};
use tokio::sync::mpsc;

use super::reference::timed;
use crate::Result;
use crate::case::Figures;
use crate::event::{node, stop};
use crate::harness::{Plan, Side, compare};

const LARGE: usize = 64 * 1024;

/// A small item.
#[data]
#[derive(Clone, Copy)]
struct Words([u64; 8]);

const _: () = assert!(size_of::<Words>() == 64);

#[event(tunnel, name = "bench.words", up = Words, down = u64, result = u64)]
struct UploadWords {}

#[event(tunnel, name = "bench.bytes", up = Bytes, down = u64, result = u64)]
struct UploadBytes {
    /// Where the bytes of every item are: whoever receives one elsewhere has a copy.
    address: usize,
}

#[derive(Default)]
struct Receiver;

impl Worker for Receiver {}

impl Handle<UploadWords> for Receiver {
    async fn handle(&mut self, _: &UploadWords, cx: &mut Context) -> std::result::Result<u64, Failure> {
        let mut tunnel = cx.accept::<UploadWords>()?;
        let mut sum = 0_u64;
        while let Some(words) = tunnel.recv().await? {
            sum = sum.wrapping_add(words.0[7]);
        }
        Ok(sum)
    }
}

impl Handle<UploadBytes> for Receiver {
    async fn handle(&mut self, upload: &UploadBytes, cx: &mut Context) -> std::result::Result<u64, Failure> {
        let mut tunnel = cx.accept::<UploadBytes>()?;
        let mut received = 0;
        while let Some(bytes) = tunnel.recv().await? {
            assert_eq!(bytes.as_ptr() as usize, upload.address, "the bytes were copied on the way");
            received += bytes.len() as u64;
        }
        Ok(received)
    }
}

/// 64 bytes an item.
pub(crate) async fn tunnel64(plan: Plan) -> Result<Figures> {
    let node = receiver().await?;
    let bus = node.bus().clone();
    let ours = Side::new("edri", move |rounds| {
        let bus = bus.clone();
        timed(async move {
            let mut tunnel = bus.open(UploadWords {}).await.expect("the node runs");
            for number in 0..rounds {
                tunnel.send(Words([number; 8])).await.expect("the worker receives");
            }
            std::hint::black_box(tunnel.result().await.expect("the worker succeeds"));
        })
    });
    let places = Window::default().items;
    let sum = |sum: &mut u64, words: &Words| *sum = sum.wrapping_add(words.0[7]);
    let reference = channel("mpsc recv", places, false, |number| Words([number; 8]), sum);
    let reference_many = channel("mpsc recv_many", places, true, |number| Words([number; 8]), sum);
    let figures = compare(&plan, ours, vec![reference, reference_many]).await;
    stop(node).await?;
    Ok(figures)
}

/// 64 KiB an item.
pub(crate) async fn tunnel64k(plan: Plan) -> Result<Figures> {
    let node = receiver().await?;
    let bus = node.bus().clone();
    let bytes = Bytes::from(vec![7_u8; LARGE]);
    let sent = bytes.clone();
    let ours = Side::new("edri", move |rounds| {
        let (bus, bytes) = (bus.clone(), sent.clone());
        timed(async move {
            let mut tunnel = bus.open(UploadBytes { address: bytes.as_ptr() as usize }).await.expect("the node runs");
            for _ in 0..rounds {
                tunnel.send(bytes.clone()).await.expect("the worker receives");
            }
            let received = tunnel.result().await.expect("the worker succeeds");
            assert_eq!(received, rounds * LARGE as u64, "every byte arrives");
        })
    });
    let places = Window::default().bytes / LARGE;
    let address = bytes.as_ptr() as usize;
    let count = move |sum: &mut u64, bytes: &Bytes| {
        assert_eq!(bytes.as_ptr() as usize, address, "the bytes were copied on the way");
        *sum += bytes.len() as u64;
    };
    let again = bytes.clone();
    let reference = channel("mpsc recv", places, false, move |_| bytes.clone(), count);
    let reference_many = channel("mpsc recv_many", places, true, move |_| again.clone(), count);
    let figures = compare(&plan, ours, vec![reference, reference_many]).await;
    stop(node).await?;
    Ok(figures)
}

async fn receiver() -> Result<Node> {
    let manager = Manager::new("receiver").worker(Receiver::default).handles::<UploadWords>().handles::<UploadBytes>();
    node([manager.into()]).await
}

/// A channel with as many places as the tunnel's window, and a task at its end for each run.
fn channel<T: Item>(
    name: &'static str,
    places: usize,
    many: bool,
    make: impl Fn(u64) -> T + Clone + Send + Sync + 'static,
    take: impl Fn(&mut u64, &T) + Clone + Send + 'static,
) -> Side {
    Side::new(name, move |rounds| {
        let (make, take) = (make.clone(), take.clone());
        timed(async move {
            let (sender, receiver) = mpsc::channel(places);
            let receiving = tokio::spawn(receive(receiver, places, many, take));
            for number in 0..rounds {
                sender.send(make(number)).await.expect("the receiver runs");
            }
            drop(sender);
            std::hint::black_box(receiving.await.expect("no panic"));
        })
    })
}

async fn receive<T>(mut receiver: mpsc::Receiver<T>, places: usize, many: bool, take: impl Fn(&mut u64, &T)) -> u64 {
    let mut sum = 0;
    if many {
        let mut batch = Vec::with_capacity(places);
        while receiver.recv_many(&mut batch, places).await > 0 {
            batch.drain(..).for_each(|item| take(&mut sum, &item));
        }
    } else {
        while let Some(item) = receiver.recv().await {
            take(&mut sum, &item);
        }
    }
    sum
}
