//! What the child's threads share: the connection's output, and the calls that wait for the worker.
//!
//! ```text
//!   connection thread                               worker's thread
//!   reads, decodes ──▶ waiting ─────── 1 to 32 ───▶ tape ──▶ handlers
//!        │                                            │
//!        └─ writes what is announced    writes its own outcomes with each `begun`, when it has
//!           or was left unwritten       nothing to do, and before it sleeps
//! ```
//!
//! The worker's thread writes by itself, so an event crosses threads once. What it has not written because a handler
//! keeps it is written by the connection's thread a moment later.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use edri_events::{CodecError, Encoding, Failure, Kind, Value};
use edri_protocol::{Ack, Frame, Payload, Response};
use edri_router::{Delivery, Offer, Outcome, Outcomes, ReplyTo, RequestError, Router, Source};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::runtime::Handle;

use crate::process::fault::{self, Refused};
use crate::process::peer::Peer;

/// The most events that are begun at once.
const BATCH_MAX: usize = 32;
/// A batch that took less lets the next be larger.
const BATCH_SHORT: Duration = Duration::from_micros(200);
/// After a batch that took more, events are begun one at a time.
const BATCH_LONG: Duration = Duration::from_millis(1);

thread_local! {
    /// Whether this is a worker's thread, which writes what it has said by itself.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// A number of a call of the node together with its kind, as it goes through the pending table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallKey(u64);

const KIND_BITS: u32 = 2;
const KINDS: [Kind; 3] = [Kind::Notification, Kind::Request, Kind::Tunnel];

impl CallKey {
    pub(super) fn new(id: u64, kind: Kind) -> Self {
        Self(id << KIND_BITS | kind as u64)
    }

    pub(super) fn id(self) -> u64 {
        self.0 >> KIND_BITS
    }

    fn kind(self) -> Kind {
        KINDS[(self.0 & 3) as usize]
    }
}

const _: () = assert!(Kind::Notification as u64 == 0 && Kind::Request as u64 == 1 && Kind::Tunnel as u64 == 2);

/// A call that the worker has not begun.
pub(super) struct Call {
    pub(super) key: CallKey,
    pub(super) delivery: Delivery,
    pub(super) offer: Option<Box<dyn Offer>>,
}

/// What came of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    All,
    /// The socket takes no more for now.
    Blocked,
    /// The node is gone.
    Broken,
}

#[derive(Default)]
struct Writing {
    bytes: Vec<u8>,
    at: usize,
}

pub(super) struct Line {
    pub(super) peer: Arc<Peer>,
    pub(super) stream: UnixStream,
    runtime: Handle,
    // Held to write.
    writing: Mutex<Writing>,
    // Held to add a number, or to swap.
    acks: Mutex<Vec<u64>>,
    // Held to add calls, or to take some.
    waiting: Mutex<VecDeque<Call>>,
    worker: AtomicWaker,
    /// Calls of the node that were not answered.
    open: AtomicUsize,
    /// No new calls come.
    closing: AtomicBool,
    /// The worker has said something that was not written yet.
    quiet: AtomicBool,
    /// The worker has events in hand.
    busy: AtomicBool,
    /// How often something was written.
    writes: AtomicU64,
}

impl Line {
    pub(super) fn new(peer: Arc<Peer>, stream: UnixStream, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            peer,
            stream,
            runtime,
            writing: Mutex::default(),
            acks: Mutex::default(),
            waiting: Mutex::default(),
            worker: AtomicWaker::new(),
            open: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            writes: AtomicU64::new(0),
        })
    }

    // ---- writing ---------------------------------------------------------------------------------------------------

    /// Makes this thread one that writes by itself.
    pub(super) fn write_here() {
        WRITES.set(true);
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Writes all there is, as far as the socket takes it.
    pub(super) fn write(&self) -> Written {
        let mut writing = self.writing.lock();
        self.quiet.store(false, Ordering::Relaxed);
        self.write_acks(None);
        loop {
            let Writing { bytes, at } = &mut *writing;
            if *at == bytes.len() {
                bytes.clear();
                *at = 0;
                if !self.peer.take_output(bytes) {
                    return Written::All;
                }
            }
            match self.stream.try_write(&bytes[*at..]) {
                Ok(count) => *at += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::Blocked,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Written::Broken,
            }
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes from a thread other than the connection's, which is told about what is left.
    fn write_aside(&self) {
        if self.write() != Written::All {
            self.peer.announce();
        }
    }

    /// Writes what the worker has said since it was written last.
    pub(super) fn write_quiet(&self) {
        if self.quiet.load(Ordering::Relaxed) {
            self.write_aside();
        }
    }

    /// Whether the worker may say something that the connection's thread has to write for it.
    pub(super) fn needs_watching(&self) -> bool {
        self.busy.load(Ordering::Relaxed) || self.quiet.load(Ordering::Relaxed)
    }

    fn send(&self, frame: &Frame<'_>) -> Result<(), edri_protocol::FrameError> {
        if WRITES.get() {
            self.peer.send_quietly(frame)?;
            self.quiet.store(true, Ordering::Relaxed);
            return Ok(());
        }
        self.peer.send(frame)
    }

    fn write_acks(&self, begun: Option<u64>) {
        let mut acks = self.acks.lock();
        if acks.is_empty() && begun.is_none() {
            return;
        }
        let mut frame = Frame::Ack(Ack { done: std::mem::take(&mut *acks), begun, received: None });
        if let Err(error) = self.peer.send_quietly(&frame) {
            tracing::error!(%error, "an ack was not sent");
        }
        if let Frame::Ack(ack) = &mut frame {
            *acks = std::mem::take(&mut ack.done);
            acks.clear();
        }
    }

    // ---- calls of the node -----------------------------------------------------------------------------------------

    /// Gives calls to the worker.
    pub(super) fn add(&self, calls: &mut Vec<Call>) {
        if calls.is_empty() {
            return;
        }
        self.open.fetch_add(calls.len(), Ordering::AcqRel);
        self.waiting.lock().extend(calls.drain(..));
        self.worker.wake();
    }

    /// No new calls come: the worker ends once all are answered.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.worker.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The node does not wait for this call any more.
    pub(super) fn cancel(&self, id: u64, router: &Router) {
        let call = {
            let mut waiting = self.waiting.lock();
            let at = waiting.iter().position(|call| call.key.id() == id);
            match at.and_then(|at| waiting.remove(at)) {
                Some(call) => call,
                None => {
                    let _ = KINDS.iter().any(|kind| router.forgo_call(CallKey::new(id, *kind).0));
                    drop(waiting);
                    self.peer.tunnel_over(id);
                    return;
                }
            }
        };
        self.peer.tunnel_over(id);
        let cancelled = Failure::new("cancelled", "the caller waits no more");
        self.answer(call.key, Err(RequestError::Elsewhere(cancelled)));
    }

    /// Answers a call.
    pub(super) fn answer(&self, key: CallKey, outcome: Outcome) {
        let (id, kind) = (key.id(), key.kind());
        match (&outcome, kind) {
            _ if id == 0 => {}
            (Ok(_), Kind::Notification) => {
                self.acks.lock().push(id);
                if WRITES.get() {
                    self.quiet.store(true, Ordering::Relaxed);
                } else {
                    self.peer.announce();
                }
            }
            _ => self.respond(id, outcome),
        }
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 && self.is_closing() {
            self.worker.wake();
        }
    }

    fn respond(&self, id: u64, outcome: Outcome) {
        let encoding = self.peer.encoding();
        let sent = match outcome {
            Ok(value) => encode(value, encoding).and_then(|body| {
                let value = Some(Payload::of(&body));
                let response = Frame::Response(Response { id, value, ..Response::default() });
                self.send(&response).map_err(|error| CodecError::Elsewhere(format!("the response: {error}")))
            }),
            Err(error) => {
                self.refuse(id, fault::from_request(&error));
                return;
            }
        };
        if let Err(error) = sent {
            self.refuse(id, fault::from_request(&RequestError::Payload(error)));
        }
    }

    pub(super) fn refuse(&self, id: u64, refused: Refused<'_>) {
        if let Err(error) = self.send(&Frame::Response(refused.response(id))) {
            // Its texts are too long, so they are left out.
            tracing::error!(%error, id, "an error was not sent as it is");
            let short = RequestError::WorkerLost(error.to_string());
            self.peer.send_short(&Frame::Response(fault::from_request(&short).response(id)));
        }
    }
}

fn encode(value: Value, encoding: Encoding) -> Result<edri_events::Body, CodecError> {
    value.into_body(encoding)?.transcode(encoding)
}

/// Sends the outcomes of the worker's handlers to the node.
pub(super) struct Answering(pub(super) Arc<Line>);

impl Outcomes for Answering {
    fn outcome(&self, call: u64, outcome: Outcome) {
        let (line, key) = (&self.0, CallKey(call));
        if key.kind() != Kind::Tunnel {
            return line.answer(key, outcome);
        }
        if let Err(RequestError::WorkerLost(_)) = outcome {
            line.answer(key, outcome);
            return line.peer.tunnel_over(key.id());
        }
        // What the handler has sent through the tunnel comes before what it returned.
        let line = Arc::clone(line);
        line.runtime.clone().spawn(async move {
            line.peer.tunnel_sent(key.id()).await;
            line.answer(key, outcome);
            line.peer.tunnel_over(key.id());
        });
    }
}

/// Where the worker's host takes its events from.
pub(super) struct Tape {
    line: Arc<Line>,
    router: Router,
    batch: VecDeque<(u64, Delivery)>,
    size: usize,
    since: Option<Instant>,
    begun: u64,
}

impl Tape {
    pub(super) fn new(line: Arc<Line>, router: Router) -> Self {
        Self { line, router, batch: VecDeque::new(), size: 1, since: None, begun: 0 }
    }

    /// Begins the next events, if there are any.
    fn refill(&mut self) -> Option<Delivery> {
        let now = Instant::now();
        if let Some(since) = self.since.take() {
            let took = now - since;
            if took < BATCH_SHORT {
                self.size = (self.size * 2).min(BATCH_MAX);
            } else if took > BATCH_LONG {
                self.size = 1;
            }
        }
        let mut begun = None;
        while self.batch.is_empty() {
            let mut over = Vec::new();
            {
                // Held until their slots are open, so that a cancel finds each call in one place or the other.
                let mut waiting = self.line.waiting.lock();
                if waiting.is_empty() {
                    break;
                }
                let count = self.size.min(waiting.len());
                for Call { key, mut delivery, offer } in waiting.drain(..count) {
                    begun = Some(key.id().max(begun.unwrap_or_default()));
                    let ticket = self.router.await_call(key.0).filter(|_| !is_expired(&delivery, key.kind(), now));
                    match ticket {
                        Some(ticket) => {
                            delivery.reply = match offer {
                                Some(offer) => ReplyTo::Tunnel(ticket, Some(Box::new(offer))),
                                None => ReplyTo::Response(ticket),
                            };
                            self.batch.push_back((key.id(), delivery));
                        }
                        None => over.push(key),
                    }
                }
            }
            for key in over {
                self.line.answer(key, Err(RequestError::TimedOut(Box::default())));
            }
        }
        self.line.busy.store(!self.batch.is_empty(), Ordering::Relaxed);
        match begun {
            Some(begun) => {
                // Before the first of them begins: the worker may not live to say so.
                self.line.write_acks(Some(begun));
                self.line.write_aside();
                self.since = Some(now);
            }
            None => self.line.write_quiet(),
        }
        self.take()
    }

    fn take(&mut self) -> Option<Delivery> {
        let (id, delivery) = self.batch.pop_front()?;
        self.begun = id.max(self.begun);
        Some(delivery)
    }
}

/// Whether a notification has lost its meaning. A request's or tunnel's caller says so himself.
fn is_expired(delivery: &Delivery, kind: Kind, now: Instant) -> bool {
    kind == Kind::Notification && delivery.envelope.head().deadline.is_some_and(|deadline| deadline <= now)
}

impl Source for Tape {
    fn try_next(&mut self) -> Option<Delivery> {
        self.take().or_else(|| self.refill())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        if let Some(delivery) = self.try_next() {
            return Poll::Ready(Some(delivery));
        }
        self.line.worker.register(cx.waker());
        if let Some(delivery) = self.refill() {
            return Poll::Ready(Some(delivery));
        }
        if self.line.is_closing() && self.line.open.load(Ordering::Acquire) == 0 {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl Drop for Tape {
    /// A worker that was lost takes back what it had not come to.
    fn drop(&mut self) {
        if !self.batch.is_empty() {
            self.line.write_acks(Some(self.begun));
        }
    }
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").field("in_batch", &self.batch.len()).finish_non_exhaustive()
    }
}
