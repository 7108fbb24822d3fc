//! One side of a connection: what is to be written, and the tunnels that run through it.
//!
//! Nobody waits to write: what is written is bounded by the windows of calls and by the credit of tunnels, so the output
//! is bounded too, however slowly the other side reads. Tunnels are run by [`Tunnels`]; here they become frames.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use edri_events::{Body, Encoding, Failure};
use edri_protocol::{Abort, Credit, Data, End, Frame, FrameError, Grant, Notice, Payload};
pub use edri_router::Opener;
use edri_router::{OtherSide, Receiver, Sender, TunnelError, Tunnels};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::fault;

/// What is granted for each direction of a tunnel that comes here. The opener grants it in its `open`.
pub const TUNNEL_WINDOW: Grant = Grant { items: 128, bytes: 4 << 20 };

/// Output that has grown beyond this is not kept for reuse.
const OUTPUT_KEPT_BYTES: usize = 1 << 20;

/// One side of a connection. Shared by all who write to it.
pub struct Peer {
    encoding: Encoding,
    frame_bytes_max: usize,
    runtime: Handle,
    // Held to append a frame or to swap the buffer.
    output: Mutex<Output>,
    writer: AtomicWaker,
    tunnels: Tunnels<Framed>,
    /// The latest tunnels there have been, of even and of odd numbers: what still comes for them crossed their end.
    latest: [AtomicU64; 2],
}

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    /// Whether the writer was told that there is something.
    announced: bool,
}

impl Peer {
    /// A side that writes frames of at most so many bytes.
    pub fn new(encoding: Encoding, frame_bytes_max: usize, runtime: Handle) -> Arc<Self> {
        Arc::new_cyclic(|peer| Self {
            encoding,
            frame_bytes_max,
            tunnels: Tunnels::new(Arc::new(Framed(peer.clone())), granted(TUNNEL_WINDOW), runtime.clone()),
            runtime,
            output: Mutex::default(),
            writer: AtomicWaker::new(),
            latest: Default::default(),
        })
    }

    /// The runtime that tunnels are pumped on.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// How much waits to be written.
    pub fn output_bytes(&self) -> usize {
        self.output.lock().bytes.len()
    }

    /// How frames, and the payloads in them, are written.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Adds a frame to what is to be written; never waits.
    ///
    /// # Errors
    ///
    /// When the frame is too long, or a payload in it is of another encoding; nothing is added then.
    pub fn send(&self, frame: &Frame<'_>) -> Result<(), FrameError> {
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
    pub fn send_quietly(&self, frame: &Frame<'_>) -> Result<(), FrameError> {
        frame.encode_to_stream(self.encoding, self.frame_bytes_max, &mut self.output.lock().bytes)
    }

    /// Tells the writer that there is something to be written.
    pub fn announce(&self) {
        if !std::mem::replace(&mut self.output.lock().announced, true) {
            self.writer.wake();
        }
    }

    /// Sends a frame that is short and has no payload; should it not be writable all the same, that is logged.
    pub fn send_short(&self, frame: &Frame<'_>) {
        if let Err(error) = self.send(frame) {
            tracing::error!(frame = frame.name(), %error, "a frame was not sent");
        }
    }

    /// Tells the other side that a frame of its is wrong.
    pub fn object(&self, code: &str, message: &str, frame: &str, id: Option<u64>) {
        let notice = Notice { code: code.into(), message: message.into(), frame: Some(frame.into()), id };
        self.send_short(&Frame::Error(notice));
    }

    /// Swaps what is to be written into `into`, which is empty. Whether there was any.
    pub fn take_output(&self, into: &mut Vec<u8>) -> bool {
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
    pub async fn output(&self) {
        poll_fn(|cx| self.poll_output(cx)).await;
    }

    /// As [`Peer::output`].
    pub fn poll_output(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.writer.register(cx.waker());
        if self.output.lock().announced { Poll::Ready(()) } else { Poll::Pending }
    }

    // ---- tunnels ---------------------------------------------------------------------------------------------------

    /// Runs a tunnel between the local halves and the other side until [`Peer::tunnel_over`].
    ///
    /// `credit` is what the other side takes at first: what its `open` said, or nothing when it was opened here. What this
    /// side takes is [`TUNNEL_WINDOW`]; who opens here says so in the `open`.
    pub fn run_tunnel(&self, id: u64, opener: Opener, receiver: Receiver<Body>, sender: Sender<Body>, credit: Grant) {
        // First, so that nobody finds the tunnel neither running nor known.
        self.latest[(id % 2) as usize].fetch_max(id, Ordering::AcqRel);
        self.tunnels.run(id, opener, receiver, sender, granted(credit));
    }

    /// An item came.
    pub fn data(&self, data: &Data<'_>, frame: &Bytes) {
        let runs = self.tunnels.item(data.id, data.payload.to_body(frame));
        self.check(runs, data.id, "data");
    }

    /// More may be sent.
    pub fn credit(&self, credit: &Credit) {
        let more = Grant { items: credit.items, bytes: credit.bytes };
        let runs = self.tunnels.credit(credit.id, granted(more));
        self.check(runs, credit.id, "credit");
    }

    /// Nothing more comes.
    pub fn end(&self, end: &End) {
        let runs = self.tunnels.end(end.id);
        self.check(runs, end.id, "end");
    }

    /// The other side breaks a tunnel.
    pub fn abort(&self, abort: &Abort<'_>) {
        let runs = self.tunnels.abort(abort.id, fault::to_tunnel(abort.failure.clone()));
        self.check(runs, abort.id, "abort");
    }

    /// Objects to a frame for a tunnel that does not run and never did.
    fn check(&self, runs: bool, id: u64, frame: &'static str) {
        if !runs && id > self.latest[(id % 2) as usize].load(Ordering::Acquire) {
            self.object("unknown_call", "no tunnel of this number has been opened", frame, Some(id));
        }
    }

    /// The tunnel's response came or was sent, its opener waits no more, or the connection is gone. Items of a worker that
    /// are here already still go to its opener.
    pub fn tunnel_over(&self, id: u64) {
        self.tunnels.over(id);
    }

    /// The connection is gone, and so are its tunnels, as [`Peer::tunnel_over`] says it; also those to come.
    pub fn close(&self) {
        self.tunnels.close();
    }

    /// Waits until all that the local side sent through the tunnel, and its end, is in the output: what a worker sent comes
    /// before its response. Ready at once when there is no such tunnel. Cancel safe.
    pub async fn tunnel_sent(&self, id: u64) {
        self.tunnels.sent(id).await;
    }

    /// Waits until the other side has given credit for the tunnel, which says that it has taken it, or until it is over.
    /// Cancel safe.
    pub async fn tunnel_taken(&self, id: u64) {
        self.tunnels.taken(id).await;
    }
}

/// What tunnels say, as frames. The peer holds its tunnels, so they do not hold the peer.
struct Framed(Weak<Peer>);

impl Framed {
    fn send_short(&self, frame: &Frame<'_>) {
        if let Some(peer) = self.0.upgrade() {
            peer.send_short(frame);
        }
    }
}

impl OtherSide for Framed {
    type Key = u64;

    fn item(&self, id: u64, item: Body) -> Result<u64, TunnelError> {
        let peer = self.0.upgrade().ok_or(TunnelError::PeerDropped)?;
        let item = item.transcode(peer.encoding)?;
        let data = Data { id, payload: Payload::of(&item) };
        peer.send(&Frame::Data(data))
            .map_err(|error| TunnelError::Aborted(Failure::new(error.code(), format!("a tunnel's item: {error}"))))?;
        Ok(item.bytes.len() as u64)
    }

    fn credit(&self, id: u64, more: edri_router::Grant) {
        let edri_router::Grant { items, bytes } = more;
        self.send_short(&Frame::Credit(Credit { id, items, bytes }));
    }

    fn end(&self, id: u64) {
        self.send_short(&Frame::End(End { id }));
    }

    fn abort(&self, id: u64, error: &TunnelError) {
        self.send_short(&Frame::Abort(Abort { id, failure: fault::from_tunnel(error) }));
    }

    fn no_credit(&self, id: u64, failure: &Failure) {
        if let Some(peer) = self.0.upgrade() {
            peer.object(failure.code(), failure.text(), "data", Some(id));
        }
    }
}

fn granted(Grant { items, bytes }: Grant) -> edri_router::Grant {
    edri_router::Grant { items, bytes }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
