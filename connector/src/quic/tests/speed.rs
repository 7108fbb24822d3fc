//! How fast lanes are, beside a bare stream of the same connection. Not a test: run it by name, optimised, to see figures.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use super::super::*;
use crate::keys::{Authority, NODE_VALIDITY};
use edri_events::NodeName;

const FRAME: usize = 64 << 10;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

struct Pair {
    here: Runtime,
    there: Runtime,
    near: Connection,
    far: Connection,
    _ends: (Endpoint, Endpoint),
}

fn pair() -> Pair {
    let authority = Authority::generate().unwrap();
    let (here, there) = (runtime(), runtime());
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let bind = |name: &str| {
        Endpoint::bind(
            address,
            authority.issue(&NodeName::new(name).unwrap(), NODE_VALIDITY).unwrap(),
            Options::default(),
        )
        .unwrap()
    };
    let a = here.block_on(async { bind("a") });
    let b = there.block_on(async { bind("b") });
    let to = b.local_addr();
    let far = there.spawn({
        let b = b.clone();
        async move { b.accept().await.unwrap().unwrap() }
    });
    let near = here.block_on(a.dial(to)).unwrap();
    let far = here.block_on(far).unwrap();
    // Until the path's MTU is known.
    std::thread::sleep(Duration::from_millis(300));
    Pair { here, there, near, far, _ends: (a, b) }
}

fn raw_stream(frames: usize) -> (f64, Stats, Duration) {
    let pair = pair();
    let far = pair.far.quinn().clone();
    let read = pair.there.spawn(async move {
        let mut stream = far.accept_uni().await.unwrap();
        let mut bytes = 0;
        let mut bufs: [Bytes; 32] = Default::default();
        while bytes < frames * FRAME {
            let n = stream.read_chunks(&mut bufs).await.unwrap().unwrap();
            bytes += bufs[..n].iter().map(Bytes::len).sum::<usize>();
        }
    });
    let near = pair.near.quinn().clone();
    let begun = Instant::now();
    pair.here.spawn(async move {
        let mut stream = near.open_uni().await.unwrap();
        let frame = Bytes::from(vec![7; FRAME]);
        for _ in 0..frames {
            stream.write_chunk(frame.clone()).await.unwrap();
        }
        stream.stopped().await
    });
    pair.here.block_on(read).unwrap();
    (frames as f64 / begun.elapsed().as_secs_f64(), pair.near.stats(), begun.elapsed())
}

fn lanes_stream(frames: usize, frame: usize, lane: StreamLane) -> (f64, Stats, Duration) {
    let pair = pair();
    let (_s, mut receiver) = pair.there.block_on(async { pair.far.lanes() });
    let read = pair.there.spawn(async move {
        let mut got = 0;
        while got < frames {
            got += receiver.next().await.unwrap().frames.len();
        }
    });
    let (mut sender, _r) = pair.here.block_on(async { pair.near.lanes() });
    let begun = Instant::now();
    let sent = pair.here.spawn(async move {
        let frame = Bytes::from(vec![7; frame]);
        let backlog = sender.backlog();
        for _ in 0..frames {
            backlog.below(1 << 20).await;
            sender.send(lane, frame.clone());
        }
        sender
    });
    pair.here.block_on(read).unwrap();
    let took = begun.elapsed();
    let _s = pair.here.block_on(sent).unwrap();
    (frames as f64 / took.as_secs_f64(), pair.near.stats(), took)
}

fn raw_ping(rounds: usize) -> f64 {
    let pair = pair();
    let far = pair.far.quinn().clone();
    pair.there.spawn(async move {
        let mut recv = far.accept_uni().await.unwrap();
        let mut send = far.open_uni().await.unwrap();
        loop {
            let Some(chunk) = recv.read_chunk(1 << 20, true).await.unwrap() else { return };
            send.write_chunk(chunk.bytes).await.unwrap();
        }
    });
    let near = pair.near.quinn().clone();
    let took = pair.here.spawn(async move {
        let mut send = near.open_uni().await.unwrap();
        send.write_all(&[1; 68]).await.unwrap();
        let mut recv = near.accept_uni().await.unwrap();
        recv.read_chunk(100, true).await.unwrap();
        let begun = Instant::now();
        for _ in 0..rounds {
            send.write_all(&[1; 68]).await.unwrap();
            recv.read_chunk(100, true).await.unwrap();
        }
        begun.elapsed()
    });
    let took = pair.here.block_on(took).unwrap();
    took.as_secs_f64() * 1e6 / rounds as f64
}

fn lanes_ping(rounds: usize) -> f64 {
    let pair = pair();
    let (mut sender, mut receiver) = pair.there.block_on(async { pair.far.lanes() });
    pair.there.spawn(async move {
        while let Some(received) = receiver.next().await {
            for frame in received.frames {
                sender.send(StreamLane::High, frame);
            }
        }
    });
    let (mut sender, mut receiver) = pair.here.block_on(async { pair.near.lanes() });
    let took = pair.here.spawn(async move {
        let frame = Bytes::from(vec![1; 64]);
        sender.send(StreamLane::High, frame.clone());
        receiver.next().await.unwrap();
        let begun = Instant::now();
        for _ in 0..rounds {
            sender.send(StreamLane::High, frame.clone());
            receiver.next().await.unwrap();
        }
        begun.elapsed()
    });
    let took = pair.here.block_on(took).unwrap();
    took.as_secs_f64() * 1e6 / rounds as f64
}

/// Seconds of processor that this process has used.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn throughput() {
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let c0 = cpu_s();
        let r = raw_stream(8_000);
        let c1 = cpu_s();
        let o = lanes_stream(8_000, FRAME, StreamLane::Normal);
        let c2 = cpu_s();
        println!("raw {:6.0} MB/s cpu {:.2}s {:?}", r.0 * FRAME as f64 / 1e6, c1 - c0, r.1);
        println!("our {:6.0} MB/s cpu {:.2}s {:?}", o.0 * FRAME as f64 / 1e6, c2 - c1, o.1);
        raw.push(r.0);
        ours.push(o.0);
    }
    let (raw, ours) = (median(raw), median(ours));
    println!(
        "64 KiB frames: raw {raw:.0}/s {:.0} MB/s, lanes {ours:.0}/s {:.0} MB/s, ratio {:.2}",
        raw * FRAME as f64 / 1e6,
        ours * FRAME as f64 / 1e6,
        ours / raw
    );
}

#[test]
#[ignore = "a measurement"]
fn small_frames() {
    let o = lanes_stream(4_000_000, 64, StreamLane::Normal);
    println!("64 B frames {:.0}/s {:?}", o.0, o.1);
}

#[test]
#[ignore = "a measurement"]
fn round_trip() {
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let c0 = cpu_s();
        raw.push(raw_ping(10_000));
        let c1 = cpu_s();
        ours.push(lanes_ping(10_000));
        println!("cpu us a round {:.1} {:.1}", (c1 - c0) * 100.0, (cpu_s() - c1) * 100.0);
    }
    println!("{raw:.1?} {ours:.1?}");
    let (raw, ours) = (median(raw), median(ours));
    println!("round trip: raw {raw:.1} us, lanes {ours:.1} us, ratio {:.2}", raw / ours);
}
