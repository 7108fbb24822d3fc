//! How fast a process worker answers, beside a bare child that decodes, matches ids and encodes the same frames.
//!
//! `cargo run --release -p edri-workers --example process_rate [seconds] [pairs]`

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use edri_events::{Encoding, EventId, Failure, ManagerName, event};
use edri_protocol::{Call, Frame, Payload, Response, VERSION, Welcome, Window, split};
use edri_workers::{Blueprint, Context, Handle, Hosted, Policy, Worker};

const MAX: usize = 16 << 20;
const IN_FLIGHT: u64 = 64;

#[event(request, name = "rate.echo", response = u64, crate = edri_events)]
struct Echo {
    number: u64,
    text: String,
}

struct Echoer;

impl Worker for Echoer {}

impl Handle<Echo> for Echoer {
    async fn handle(&mut self, echo: &Echo, _: &mut Context) -> Result<u64, Failure> {
        Ok(echo.number + echo.text.len() as u64)
    }
}

fn hosted() -> Hosted {
    let mut blueprint = Blueprint::<Echoer>::default();
    blueprint.handles::<Echo>();
    Hosted {
        manager: ManagerName::new("echo").expect("valid"),
        events: blueprint.events().to_vec(),
        selections: blueprint.selections().to_vec(),
        factory: blueprint.factory(|| Echoer),
        concurrency: 1,
        policy: Policy::default(),
        arguments: None,
    }
}

/// Reads calls and answers them, and nothing else.
fn bare(mut stream: UnixStream) -> std::io::Result<()> {
    let (mut read, mut out, mut chunk) = (BytesMut::new(), Vec::new(), vec![0; 64 * 1024]);
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        read.extend_from_slice(&chunk[..count]);
        while let Some(frame) = split(&mut read, MAX).map_err(std::io::Error::other)? {
            if let Ok(Frame::Request(call)) = Frame::decode(&frame) {
                let payload = call.payload.expect("sent");
                let echo: Echo = Encoding::MessagePack.decode(payload.bytes()).expect("an echo");
                let value = Encoding::MessagePack.encode(&(echo.number + echo.text.len() as u64)).expect("encodes");
                let value = Some(Payload::new(Encoding::MessagePack, &value));
                let response = Frame::Response(Response { id: call.id, value, ..Response::default() });
                response.encode_to_stream(Encoding::MessagePack, MAX, &mut out).expect("encodes");
            }
        }
        stream.write_all(&out)?;
        out.clear();
    }
}

struct Parent {
    stream: UnixStream,
    read: BytesMut,
    out: Vec<u8>,
    next: u64,
}

impl Parent {
    fn start(mode: &str) -> (Self, std::process::Child) {
        let (stream, its) = UnixStream::pair().expect("a pair");
        let program = std::env::current_exe().expect("a program");
        let child = Command::new(program).arg(mode).stdin(Stdio::from(OwnedFd::from(its))).spawn().expect("starts");
        (Self { stream, read: BytesMut::new(), out: Vec::new(), next: 2 }, child)
    }

    fn send(&mut self, frame: &Frame<'_>) {
        frame.encode_to_stream(Encoding::MessagePack, MAX, &mut self.out).expect("encodes");
    }

    fn call(&mut self) {
        let id = self.next;
        self.next += 2;
        let echo = Echo { number: id, text: "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv".to_owned() };
        let payload = Encoding::MessagePack.encode(&echo).expect("encodes");
        self.send(&Frame::Request(Call {
            id,
            event: "rate.echo".into(),
            payload: Some(Payload::new(Encoding::MessagePack, &payload)),
            event_id: Some(EventId::next()),
            origin: Some("rate/asker".into()),
            timeout_ms: Some(30_000),
            ..Call::default()
        }));
    }

    fn flush(&mut self) {
        self.stream.write_all(&self.out).expect("reads");
        self.out.clear();
    }

    /// Reads once; how many responses came.
    fn receive(&mut self, chunk: &mut [u8]) -> u64 {
        let count = self.stream.read(chunk).expect("writes");
        assert!(count > 0, "the child is there");
        self.read.extend_from_slice(&chunk[..count]);
        let mut responses = 0;
        while let Some(frame) = split(&mut self.read, MAX).expect("frames") {
            match Frame::decode(&frame).expect("a frame") {
                Frame::Hello(_) => {
                    self.send(&Frame::Welcome(Welcome {
                        version: VERSION,
                        node: "rate".into(),
                        incarnation: "00000000000000ab".into(),
                        manager: Some("echo".into()),
                        instance: 0,
                        silence_ms: 60_000,
                        frame_bytes_max: MAX as u64,
                        window: Window::default(),
                        arguments: None,
                    }));
                    self.flush();
                }
                Frame::Ready(_) => responses += 1,
                Frame::Response(response) => {
                    assert!(response.value.is_some() && response.id < self.next);
                    responses += 1;
                }
                _ => {}
            }
        }
        responses
    }

    fn rate(mode: &str, time: Duration) -> f64 {
        let (mut parent, mut child) = Self::start(mode);
        let mut chunk = vec![0; 64 * 1024];
        if mode == "edri" {
            while parent.receive(&mut chunk) == 0 {}
        }
        (0..IN_FLIGHT).for_each(|_| parent.call());
        parent.flush();
        let (mut count, begun) = (0, Instant::now());
        while begun.elapsed() < time {
            let responses = parent.receive(&mut chunk);
            count += responses;
            (0..responses).for_each(|_| parent.call());
            parent.flush();
        }
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        drop(parent);
        child.wait().expect("ends");
        rate
    }
}

#[allow(clippy::print_stdout)]
fn main() {
    let mode = std::env::args().nth(1).unwrap_or_default();
    if mode == "edri" || mode == "bare" {
        let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().expect("a socket"));
        if mode == "edri" {
            std::process::exit(hosted().serve(stream));
        }
        bare(stream).expect("serves");
        return;
    }
    let time = Duration::from_secs_f64(mode.parse().unwrap_or(1.0));
    let pairs = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(5);
    let mut ratios = Vec::new();
    for _ in 0..pairs {
        let (bare, edri) = (Parent::rate("bare", time), Parent::rate("edri", time));
        println!("bare {bare:>9.0}/s  edri {edri:>9.0}/s  ratio {:.2}", edri / bare);
        ratios.push(edri / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
}
