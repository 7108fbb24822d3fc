//! The bare parent: writes calls, reads answers, knows which call each of them is for; nothing else.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child as Process, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edri::{Encoding, EventId, Kind};
use edri_protocol::{Bye, Call, Frame, Payload, VERSION, Welcome, Window, limits};
use parking_lot::Mutex;

use super::link::Link;
use super::{Child, Work, bare, python};
use crate::Result;
use crate::event::{Blob, BlobAsk};

/// What ours gives a requester that says nothing.
const TIMEOUT_MS: u64 = 30_000;

/// A bare child and this end of its connection.
#[derive(Clone)]
pub(super) struct Bare(Arc<Mutex<Parent>>);

struct Parent {
    process: Process,
    link: Link,
    /// The number of the oldest open call.
    first: u64,
    /// From the oldest open call on, whether each is open.
    open: VecDeque<bool>,
    /// How many are open.
    count: usize,
    payload: Vec<u8>,
}

impl Bare {
    pub(super) async fn start(child: Child) -> Result<Self> {
        let parent = tokio::task::spawn_blocking(move || Parent::start(child)).await??;
        Ok(Self(Arc::new(Mutex::new(parent))))
    }

    /// Does so many rounds of the work.
    pub(super) async fn run(self, work: Work, rounds: u64) -> Duration {
        let run = move || {
            let mut parent = self.0.lock();
            let began = Instant::now();
            parent.run(work, rounds).expect("the bare child answers");
            began.elapsed()
        };
        tokio::task::spawn_blocking(run).await.expect("no panic")
    }

    pub(super) async fn stop(&self) -> Result<()> {
        let parent = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || parent.lock().stop()).await?
    }
}

/// So many children one after another, from nothing to the first answer of each.
pub(super) async fn spawn(child: Child, rounds: u64) -> Duration {
    let run = move || -> Result<Duration> {
        let mut took = Duration::ZERO;
        for _ in 0..rounds {
            let began = Instant::now();
            let mut parent = Parent::start(child)?;
            parent.run(Work::Ask1, 1)?;
            took += began.elapsed();
            parent.stop()?;
        }
        Ok(took)
    };
    tokio::task::spawn_blocking(run).await.expect("no panic").expect("the bare child starts")
}

impl Parent {
    fn start(child: Child) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = match child {
            Child::Python => {
                let mut command = Command::new(python::interpreter()?);
                command.arg(python::script("bare.py"));
                command
            }
            Child::Rust | Child::Bare => {
                let mut command = Command::new(std::env::current_exe()?);
                command.env(bare::MARK, "1");
                command
            }
        };
        let process = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        // Their end is closed here with the command that had it.
        drop(command);
        let link = Link::new(ours);
        let mut parent = Self { process, link, first: 2, open: VecDeque::new(), count: 0, payload: Vec::new() };
        parent.greet()?;
        Ok(parent)
    }

    fn greet(&mut self) -> Result<()> {
        match Frame::decode(&self.wait()?)? {
            Frame::Hello(_) => {}
            other => return Err(format!("`hello` was expected, not `{}`", other.name()).into()),
        }
        self.link.push(&Frame::Welcome(Welcome {
            version: VERSION,
            node: "bench".into(),
            incarnation: "0123456789abcdef".into(),
            manager: Some("blobs".into()),
            instance: 0,
            silence_ms: 10_000,
            frame_bytes_max: limits::FRAME_BYTES_MAX as u64,
            window: Window::default(),
            arguments: None,
            session: None,
        }))?;
        self.link.flush()?;
        match Frame::decode(&self.wait()?)? {
            Frame::Ready(_) => Ok(()),
            other => Err(format!("`ready` was expected, not `{}`", other.name()).into()),
        }
    }

    /// The next frame, a copy: only where time does not matter.
    fn wait(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(frame) = self.link.next() {
                return Ok(self.link.bytes(frame).to_vec());
            }
            if !self.link.fill()? {
                return Err("the bare child is gone".into());
            }
        }
    }

    fn run(&mut self, work: Work, rounds: u64) -> Result<()> {
        let data = bytes::Bytes::from(vec![7; work.filling()]);
        let mut sent = 0;
        // Notifications are handled when the request behind them is answered.
        let rounds = rounds + u64::from(work == Work::Notify);
        while sent < rounds || self.count > 0 {
            while sent < rounds && self.count < work.in_flight() {
                sent += 1;
                let (number, data) = (sent, data.clone());
                if work == Work::Notify && sent < rounds {
                    self.send(&Blob { number, data }, "bench.blob", Kind::Notification)?;
                } else {
                    self.send(&BlobAsk { number, data }, "bench.blob.ask", Kind::Request)?;
                }
            }
            self.link.flush()?;
            if !self.link.fill()? {
                return Err("the bare child is gone".into());
            }
            while let Some(frame) = self.link.next() {
                match Frame::decode(self.link.bytes(frame))? {
                    Frame::Response(response) => {
                        let value = response.value.as_ref().ok_or("a response without a value")?;
                        let value: u64 = rmp_serde::from_slice(value.bytes())?;
                        std::hint::black_box(value);
                        let id = response.id;
                        self.close(id)?;
                    }
                    Frame::Ack(ack) => ack.done.iter().try_for_each(|id| self.close(*id))?,
                    other => return Err(format!("the bare child sent `{}`", other.name()).into()),
                }
            }
        }
        Ok(())
    }

    fn send<E: serde::Serialize>(&mut self, event: &E, name: &str, kind: Kind) -> Result<()> {
        self.payload.clear();
        rmp_serde::encode::write_named(&mut self.payload, event)?;
        // The fields that a node has for such an event.
        let is_request = kind == Kind::Request;
        let call = Call {
            id: self.first + 2 * self.open.len() as u64,
            event: name.into(),
            payload: Some(Payload::new(Encoding::MessagePack, &self.payload)),
            handler: u32::from(!is_request),
            event_id: Some(EventId::next()),
            origin: Some("bench".into()),
            timeout_ms: is_request.then_some(TIMEOUT_MS),
            ..Call::default()
        };
        self.link.push(&if is_request { Frame::Request(call) } else { Frame::Publish(call) })?;
        self.open.push_back(true);
        self.count += 1;
        Ok(())
    }

    fn close(&mut self, id: u64) -> Result<()> {
        let index = id.checked_sub(self.first).map(|offset| (offset / 2) as usize);
        let open = index.and_then(|index| self.open.get_mut(index)).filter(|open| **open);
        *open.ok_or("an answer to no call")? = false;
        self.count -= 1;
        while self.open.front() == Some(&false) {
            self.open.pop_front();
            self.first += 2;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.link.push(&Frame::Bye(Bye::default()))?;
        self.link.flush()?;
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the bare child ended with {status}").into()) }
    }
}
