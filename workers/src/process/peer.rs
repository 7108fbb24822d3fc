//! One side of a connection: what is to be written, and the tunnels that run through it.
//!
//! ```text
//!   local halves                 Flow                               the other side
//!   Receiver ─▶ outward pump ─── credit it gave ────── data, end ─▶
//!   Sender  ◀── inward pump ◀─── queue within ours ─── data, end ◀─
//!                      └──────── credit, by halves of the window ─▶
//! ```
//!
//! Nobody waits to write: what is written is bounded by the windows of calls and by the credit of tunnels, so the output
//! is bounded too, however slowly the other side reads.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use edri_events::{Body, Encoding, Failure};
use edri_protocol::{Abort, Credit, Data, End, Frame, FrameError, Grant, Notice, Payload};
use edri_router::{Receiver, Sender, TunnelError};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::fault;

/// What is granted for each direction of a tunnel that comes here. The opener grants it in its `open`.
pub(crate) const TUNNEL_WINDOW: Grant = Grant { items: 128, bytes: 4 << 20 };

/// Output that has grown beyond this is not kept for reuse.
const OUTPUT_KEPT_BYTES: usize = 1 << 20;

/// On which side a tunnel was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opener {
    /// Here: the local halves are those of a worker, who is on the other side.
    Here,
    /// There: the local halves are those of an opener, and a worker is here.
    There,
}

/// One side of a connection. Shared by all who write to it.
pub(crate) struct Peer {
    encoding: Encoding,
    frame_bytes_max: usize,
    runtime: Handle,
    // Held to append a frame or to swap the buffer.
    output: Mutex<Output>,
    writer: AtomicWaker,
    // Held to find, add or remove a tunnel.
    tunnels: Mutex<Tunnels>,
}

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    /// Whether the writer was told that there is something.
    announced: bool,
}

#[derive(Default)]
struct Tunnels {
    running: HashMap<u64, Arc<Flow>>,
    /// The latest tunnels there have been, of odd and of even numbers: what still comes for them crossed their end.
    latest: [u64; 2],
    closed: bool,
}

impl Peer {
    pub(crate) fn new(encoding: Encoding, frame_bytes_max: usize, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            encoding,
            frame_bytes_max,
            runtime,
            output: Mutex::default(),
            writer: AtomicWaker::new(),
            tunnels: Mutex::default(),
        })
    }

    /// The runtime that tunnels are pumped on.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// How much waits to be written.
    pub(crate) fn output_bytes(&self) -> usize {
        self.output.lock().bytes.len()
    }

    /// How frames, and the payloads in them, are written.
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Adds a frame to what is to be written; never waits.
    ///
    /// # Errors
    ///
    /// When the frame is too long, or a payload in it is of another encoding; nothing is added then.
    pub(crate) fn send(&self, frame: &Frame<'_>) -> Result<(), FrameError> {
        let mut output = self.output.lock();
        frame.encode_to_stream(self.encoding, self.frame_bytes_max, &mut output.bytes)?;
        let wake = !std::mem::replace(&mut output.announced, true);
        drop(output);
        if wake {
            self.writer.wake();
        }
        Ok(())
    }

    /// As [`Peer::send`], for one who sees to the writing himself: the writer is not told.
    ///
    /// # Errors
    ///
    /// As [`Peer::send`].
    pub(crate) fn send_quietly(&self, frame: &Frame<'_>) -> Result<(), FrameError> {
        frame.encode_to_stream(self.encoding, self.frame_bytes_max, &mut self.output.lock().bytes)
    }

    /// Tells the writer that there is something to be written.
    pub(crate) fn announce(&self) {
        if !std::mem::replace(&mut self.output.lock().announced, true) {
            self.writer.wake();
        }
    }

    /// Sends a frame that is short and has no payload; should it not be writable all the same, that is logged.
    pub(crate) fn send_short(&self, frame: &Frame<'_>) {
        if let Err(error) = self.send(frame) {
            tracing::error!(frame = frame.name(), %error, "a frame was not sent");
        }
    }

    /// Tells the other side that a frame of its is wrong.
    pub(crate) fn object(&self, code: &str, message: &str, frame: &str, id: Option<u64>) {
        let notice = Notice { code: code.into(), message: message.into(), frame: Some(frame.into()), id };
        self.send_short(&Frame::Error(notice));
    }

    /// Swaps what is to be written into `into`, which is empty. Whether there was any.
    pub(crate) fn take_output(&self, into: &mut Vec<u8>) -> bool {
        debug_assert!(into.is_empty(), "what was taken before has been written");
        if into.capacity() > OUTPUT_KEPT_BYTES {
            *into = Vec::new();
        }
        let mut output = self.output.lock();
        output.announced = false;
        std::mem::swap(&mut output.bytes, into);
        !into.is_empty()
    }

    /// Ready once there is something to be written. For one task at a time. Cancel safe.
    pub(crate) async fn output(&self) {
        poll_fn(|cx| {
            self.writer.register(cx.waker());
            if self.output.lock().announced { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    // ---- tunnels ---------------------------------------------------------------------------------------------------

    /// Runs a tunnel between the local halves and the other side until [`Peer::tunnel_over`].
    ///
    /// `credit` is what the other side takes at first: what its `open` said, or nothing when it was opened here. What this
    /// side takes is [`TUNNEL_WINDOW`]; who opens here says so in the `open`.
    pub(crate) fn run_tunnel(
        self: &Arc<Self>,
        id: u64,
        opener: Opener,
        receiver: Receiver<Body>,
        sender: Sender<Body>,
        credit: Grant,
    ) {
        let flow = Arc::new(Flow::new(id, opener, credit));
        let (replaced, closed) = {
            let mut tunnels = self.tunnels.lock();
            let latest = &mut tunnels.latest[(id % 2) as usize];
            *latest = id.max(*latest);
            (tunnels.running.insert(id, Arc::clone(&flow)), tunnels.closed)
        };
        // A number names one call; whoever uses it again ends the one before.
        if let Some(replaced) = replaced {
            replaced.over();
        }
        if opener == Opener::There {
            let Grant { items, bytes } = TUNNEL_WINDOW;
            self.send_short(&Frame::Credit(Credit { id, items, bytes }));
        }
        self.runtime.spawn(Arc::clone(self).pump_out(Arc::clone(&flow), receiver));
        self.runtime.spawn(Arc::clone(self).pump_in(flow, sender));
        if closed {
            self.tunnel_over(id);
        }
    }

    /// An item came.
    pub(crate) fn data(&self, data: &Data<'_>, frame: &Bytes) {
        let Some(flow) = self.flow(data.id, "data") else { return };
        if flow.push(data.payload.to_body(frame)) {
            return;
        }
        let message = "an item came without credit for it: wait for `credit`";
        self.object("no_credit", message, "data", Some(data.id));
        self.break_off(&flow, TunnelError::Aborted(Failure::new("no_credit", message)));
    }

    /// More may be sent.
    pub(crate) fn credit(&self, credit: &Credit) {
        if let Some(flow) = self.flow(credit.id, "credit") {
            flow.add_credit(Grant { items: credit.items, bytes: credit.bytes });
        }
    }

    /// Nothing more comes.
    pub(crate) fn end(&self, end: &End) {
        if let Some(flow) = self.flow(end.id, "end") {
            flow.state.lock().finished = true;
            flow.inward.wake();
        }
    }

    /// The other side breaks a tunnel.
    pub(crate) fn abort(&self, abort: &Abort<'_>) {
        if let Some(flow) = self.flow(abort.id, "abort") {
            flow.end(Over::Broken(fault::to_tunnel(abort.failure.clone())));
        }
    }

    /// The tunnel's response came or was sent, its opener waits no more, or the connection is gone. Items of a worker that
    /// are here already still go to its opener.
    pub(crate) fn tunnel_over(&self, id: u64) {
        if let Some(flow) = self.tunnels.lock().running.remove(&id) {
            flow.over();
        }
    }

    /// The connection is gone, and so are its tunnels, as [`Peer::tunnel_over`] says it; also those to come.
    pub(crate) fn close(&self) {
        let running = {
            let mut tunnels = self.tunnels.lock();
            tunnels.closed = true;
            std::mem::take(&mut tunnels.running)
        };
        running.values().for_each(|flow| flow.over());
    }

    /// Waits until all that the local side sent through the tunnel, and its end, is in the output: what a worker sent comes
    /// before its response. Ready at once when there is no such tunnel. Cancel safe.
    pub(crate) async fn tunnel_sent(&self, id: u64) {
        let flow = self.tunnels.lock().running.get(&id).cloned();
        if let Some(flow) = flow {
            poll_fn(|cx| {
                flow.sent.register(cx.waker());
                let state = flow.state.lock();
                if state.sent || state.over.is_some() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    /// Waits until the other side has given credit for the tunnel, which says that it has taken it, or until it is over.
    /// Cancel safe.
    pub(crate) async fn tunnel_taken(&self, id: u64) {
        let flow = self.tunnels.lock().running.get(&id).cloned();
        if let Some(flow) = flow {
            poll_fn(|cx| {
                flow.taken.register(cx.waker());
                let state = flow.state.lock();
                if state.granted || state.over.is_some() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    fn flow(&self, id: u64, frame: &'static str) -> Option<Arc<Flow>> {
        let known = {
            let tunnels = self.tunnels.lock();
            if let Some(flow) = tunnels.running.get(&id) {
                return Some(Arc::clone(flow));
            }
            id <= tunnels.latest[(id % 2) as usize]
        };
        if !known {
            self.object("unknown_call", "no tunnel of this number has been opened", frame, Some(id));
        }
        None
    }

    /// Breaks a tunnel from here, and tells the other side unless it is broken already.
    fn break_off(&self, flow: &Flow, error: TunnelError) {
        let failure = fault::from_tunnel(&error);
        if flow.end(Over::Broken(error.clone())) {
            self.send_short(&Frame::Abort(Abort { id: flow.id, failure }));
        }
    }

    /// Sends what comes out of the local half, within the credit that the other side gave.
    async fn pump_out(self: Arc<Self>, flow: Arc<Flow>, mut receiver: Receiver<Body>) {
        let broken = loop {
            let received = tokio::select! {
                biased;
                over = flow.outward_over() => return leave(&receiver, over),
                received = receiver.recv() => received,
            };
            let body = match received {
                Ok(Some(body)) => body,
                Ok(None) => {
                    // A worker's handler that returned has ended its direction by that, and a response says so.
                    if receiver.is_finished() {
                        self.send_short(&Frame::End(End { id: flow.id }));
                    }
                    flow.all_sent();
                    if flow.is_deaf() {
                        self.break_off(&flow, TunnelError::PeerDropped);
                    }
                    tokio::select! {
                        biased;
                        over = flow.outward_over() => return leave(&receiver, over),
                        error = receiver.broken_off() => break error,
                    }
                }
                Err(error) => break error,
            };
            tokio::select! {
                biased;
                over = flow.credit_for_one() => if let Some(over) = over {
                    return leave(&receiver, over);
                },
                error = receiver.broken_off() => break error,
            }
            if let Err(error) = self.send_item(&flow, body) {
                break error;
            }
        };
        self.break_off(&flow, broken.clone());
        receiver.break_off(broken);
        flow.all_sent();
    }

    fn send_item(&self, flow: &Flow, body: Body) -> Result<(), TunnelError> {
        let body = body.transcode(self.encoding)?;
        let data = Data { id: flow.id, payload: Payload::of(&body) };
        self.send(&Frame::Data(data))
            .map_err(|error| TunnelError::Aborted(Failure::new(error.code(), format!("a tunnel's item: {error}"))))?;
        flow.took_credit(body.bytes.len());
        Ok(())
    }

    /// Gives what came to the local half, and gives credit back for what that has taken.
    async fn pump_in(self: Arc<Self>, flow: Arc<Flow>, mut sender: Sender<Body>) {
        let mut used = Grant::default();
        let broken = loop {
            let body = match poll_fn(|cx| flow.poll_inward(cx)).await {
                Inward::Item(body) => body,
                Inward::Finished => {
                    sender.finish();
                    continue;
                }
                Inward::Over(Over::Done) => return,
                Inward::Over(Over::Broken(error)) => return sender.break_off(error),
            };
            let bytes = body.bytes.len() as u64;
            if !flow.is_deaf() {
                let sent = tokio::select! {
                    biased;
                    error = flow.inward_broken() => return sender.break_off(error),
                    sent = sender.send(body) => sent,
                };
                match sent {
                    Ok(()) => {}
                    // The local end reads no more but may go on sending.
                    Err(TunnelError::PeerDropped | TunnelError::Finished) => flow.state.lock().deaf = true,
                    Err(error) => break error,
                }
            }
            if flow.is_deaf() {
                match flow.opener {
                    // An opener that neither reads nor sends is of no use to the worker.
                    Opener::Here if flow.state.lock().sent => break TunnelError::PeerDropped,
                    Opener::Here => {}
                    // The opener of a worker that reads no more learns from the response what to do.
                    Opener::There => continue,
                }
            }
            used = Grant { items: used.items + 1, bytes: used.bytes + bytes };
            if (used.items >= TUNNEL_WINDOW.items / 2 || used.bytes >= TUNNEL_WINDOW.bytes / 2) && flow.give(used) {
                self.send_short(&Frame::Credit(Credit { id: flow.id, items: used.items, bytes: used.bytes }));
                used = Grant::default();
            }
        };
        self.break_off(&flow, broken.clone());
        sender.break_off(broken);
    }
}

/// Leaves the local half in the way that its other end is to see.
fn leave(receiver: &Receiver<Body>, over: Over) {
    if let Over::Broken(error) = over {
        receiver.break_off(error);
    }
}

/// A tunnel as it runs over the connection.
struct Flow {
    id: u64,
    opener: Opener,
    // Held to look at or change the counts and the queue.
    state: Mutex<FlowState>,
    outward: AtomicWaker,
    inward: AtomicWaker,
    sent: AtomicWaker,
    taken: AtomicWaker,
}

struct FlowState {
    /// What may still be sent. The last item may take more bytes than were left.
    credit: Balance,
    /// What may still come.
    window: Balance,
    queue: VecDeque<Body>,
    /// Whether the other side has given any since.
    granted: bool,
    /// Nothing more comes.
    finished: bool,
    /// The local end was told so.
    told: bool,
    /// All that is to be sent has been.
    sent: bool,
    /// The local end does not read any more.
    deaf: bool,
    over: Option<Over>,
}

#[derive(Debug, Clone, Copy)]
struct Balance {
    items: i64,
    bytes: i64,
}

impl Balance {
    fn add(&mut self, grant: Grant) {
        let most = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.items = self.items.saturating_add(most(grant.items));
        self.bytes = self.bytes.saturating_add(most(grant.bytes));
    }

    /// Takes one item's share; false when there is nothing left to take from.
    fn take(&mut self, bytes: usize) -> bool {
        let may = self.may();
        if may {
            self.items -= 1;
            self.bytes -= bytes as i64;
        }
        may
    }

    fn may(self) -> bool {
        self.items > 0 && self.bytes > 0
    }
}

/// How a tunnel is over on this connection.
#[derive(Debug, Clone)]
enum Over {
    /// Its worker is done, or lost: its response says which.
    Done,
    /// It broke.
    Broken(TunnelError),
}

enum Inward {
    Item(Body),
    Finished,
    Over(Over),
}

impl Flow {
    fn new(id: u64, opener: Opener, credit: Grant) -> Self {
        let mut state = FlowState {
            credit: Balance { items: 0, bytes: 0 },
            window: Balance { items: 0, bytes: 0 },
            queue: VecDeque::new(),
            granted: false,
            finished: false,
            told: false,
            sent: false,
            deaf: false,
            over: None,
        };
        state.credit.add(credit);
        state.window.add(TUNNEL_WINDOW);
        Self {
            id,
            opener,
            state: Mutex::new(state),
            outward: AtomicWaker::new(),
            inward: AtomicWaker::new(),
            sent: AtomicWaker::new(),
            taken: AtomicWaker::new(),
        }
    }

    /// Queues an item that came; false when it came without credit.
    fn push(&self, body: Body) -> bool {
        let mut state = self.state.lock();
        if state.over.is_some() || state.finished {
            return true;
        }
        if !state.window.take(body.bytes.len()) {
            return false;
        }
        state.queue.push_back(body);
        drop(state);
        self.inward.wake();
        true
    }

    fn add_credit(&self, grant: Grant) {
        let first = {
            let mut state = self.state.lock();
            state.credit.add(grant);
            !std::mem::replace(&mut state.granted, true)
        };
        self.outward.wake();
        if first {
            self.taken.wake();
        }
    }

    fn took_credit(&self, bytes: usize) {
        self.state.lock().credit.take(bytes);
    }

    /// Takes note of credit that is given back; false when nobody is there to use it.
    fn give(&self, grant: Grant) -> bool {
        let mut state = self.state.lock();
        state.window.add(grant);
        state.over.is_none() && !state.finished
    }

    fn all_sent(&self) {
        self.state.lock().sent = true;
        self.sent.wake();
    }

    fn is_deaf(&self) -> bool {
        self.state.lock().deaf
    }

    fn over(&self) {
        self.end(match self.opener {
            Opener::Here => Over::Done,
            // The worker that may still be there sees its opener gone.
            Opener::There => Over::Broken(TunnelError::PeerDropped),
        });
    }

    /// Ends both pumps; whether they were running. What is over is not over again, but it may break.
    fn end(&self, over: Over) -> bool {
        let dropped = {
            let mut state = self.state.lock();
            if matches!((&state.over, &over), (Some(Over::Broken(_)), _) | (Some(_), Over::Done)) {
                return false;
            }
            let dropped = match over {
                Over::Broken(_) => std::mem::take(&mut state.queue),
                Over::Done => VecDeque::new(),
            };
            state.over = Some(over);
            dropped
        };
        drop(dropped);
        self.outward.wake();
        self.inward.wake();
        self.sent.wake();
        self.taken.wake();
        true
    }

    async fn outward_over(&self) -> Over {
        poll_fn(|cx| {
            self.outward.register(cx.waker());
            self.state.lock().over.clone().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Ready once an item may be sent, or with how the tunnel is over.
    async fn credit_for_one(&self) -> Option<Over> {
        poll_fn(|cx| {
            self.outward.register(cx.waker());
            let state = self.state.lock();
            match &state.over {
                Some(over) => Poll::Ready(Some(over.clone())),
                None if state.credit.may() => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn poll_inward(&self, cx: &mut Context<'_>) -> Poll<Inward> {
        self.inward.register(cx.waker());
        let mut state = self.state.lock();
        if let Some(over @ Over::Broken(_)) = &state.over {
            return Poll::Ready(Inward::Over(over.clone()));
        }
        if let Some(body) = state.queue.pop_front() {
            return Poll::Ready(Inward::Item(body));
        }
        if state.finished && !state.told {
            state.told = true;
            return Poll::Ready(Inward::Finished);
        }
        match &state.over {
            Some(over) => Poll::Ready(Inward::Over(over.clone())),
            None => Poll::Pending,
        }
    }

    /// Ready once the tunnel broke; what is merely over still gives what came to the local end.
    async fn inward_broken(&self) -> TunnelError {
        poll_fn(|cx| {
            self.inward.register(cx.waker());
            match &self.state.lock().over {
                Some(Over::Broken(error)) => Poll::Ready(error.clone()),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
