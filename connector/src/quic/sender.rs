use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use quinn::{SendStream, WriteError};
use tokio::sync::Notify;

use super::outgoing::{COPIED_BYTES_MAX, Outgoing};
use super::{CloseCode, Connection, StreamLane};
use crate::limits::{LANE_FRAME_BYTES_MAX, TUNNEL_STREAMS_MAX};

/// Sends frames in the lanes of a connection: at once when one comes alone, together when many wait.
/// Dropping it closes the connection.
pub struct Sender {
    connection: Connection,
    fixed: [Option<Arc<Lane>>; StreamLane::FIXED.len()],
    tunnels: HashMap<u64, Arc<Lane>>,
    backlog: Backlog,
}

impl Sender {
    /// `control` is the lane of that name, if it was opened and its head is written.
    pub(super) fn new(connection: Connection, mut control: Option<SendStream>) -> Self {
        let backlog = Backlog::default();
        let fixed = StreamLane::FIXED.map(|lane| {
            if lane == StreamLane::Control
                && let Some(stream) = control.take()
            {
                return Some(Lane::start(lane, stream, None, &connection, &backlog));
            }
            let stream = open(&connection);
            if stream.is_none() {
                // Also the end of a connection that has ended already, where closing changes nothing.
                connection.close(CloseCode::ProtocolError, "the lanes of a link are streams, and no stream is allowed");
            }
            stream.map(|stream| Lane::start(lane, stream, Some(lane.head()), &connection, &backlog))
        });
        Self { connection, fixed, tunnels: HashMap::new(), backlog }
    }

    /// Sends a frame after those sent before in this lane. Never waits: what the connection does not take yet is kept,
    /// and counted in the [`backlog`](Self::backlog), which whoever sends keeps bounded. On a connection that has ended
    /// the frame is dropped.
    ///
    /// The first frame of a tunnel opens a stream for it. Beyond [`TUNNEL_STREAMS_MAX`] tunnels, or as many as the
    /// neighbour allows, further ones travel in [`StreamLane::Normal`]. Must be called within a tokio runtime.
    ///
    /// # Panics
    ///
    /// When the frame is longer than [`LANE_FRAME_BYTES_MAX`].
    pub fn send(&mut self, lane: StreamLane, frame: Bytes) {
        self.send_parts(lane, frame, Bytes::new());
    }

    /// As [`Sender::send`], for a frame that comes in two parts; a long one is not copied.
    ///
    /// # Panics
    ///
    /// When the two together are longer than [`LANE_FRAME_BYTES_MAX`].
    pub fn send_parts(&mut self, lane: StreamLane, head: Bytes, body: Bytes) {
        let bytes = head.len() + body.len();
        assert!(bytes <= LANE_FRAME_BYTES_MAX, "a frame of {bytes} bytes is too long for a lane");
        let place = lane.fixed().or_else(|| match lane {
            StreamLane::Tunnel(key) if self.tunnel(key) => None,
            _ => StreamLane::Normal.fixed(),
        });
        let lane = match (place, lane) {
            (Some(place), _) => self.fixed[place].as_ref(),
            (None, StreamLane::Tunnel(key)) => self.tunnels.get(&key),
            (None, _) => None,
        };
        if let Some(lane) = lane {
            lane.push(head, body);
        }
    }

    /// Whether a tunnel has a stream of its own, opened now if there is room.
    fn tunnel(&mut self, key: u64) -> bool {
        let open_streams = self.tunnels.len();
        match self.tunnels.entry(key) {
            Entry::Occupied(_) => true,
            Entry::Vacant(_) if open_streams >= TUNNEL_STREAMS_MAX as usize => false,
            Entry::Vacant(entry) => {
                let Some(stream) = open(&self.connection) else { return false };
                let lane = StreamLane::Tunnel(key);
                entry.insert(Lane::start(lane, stream, Some(lane.head()), &self.connection, &self.backlog));
                true
            }
        }
    }

    /// A tunnel has no more frames: its stream ends after those it has. Other lanes, and tunnels without a stream, are
    /// left as they are.
    pub fn finish(&mut self, lane: StreamLane) {
        if let StreamLane::Tunnel(key) = lane
            && let Some(lane) = self.tunnels.remove(&key)
        {
            lane.finish();
        }
    }

    /// What waits to be written.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Bye, "");
        self.fixed.iter().flatten().chain(self.tunnels.values()).for_each(|lane| lane.finish());
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sender = f.debug_struct("Sender");
        sender.field("peer", self.connection.peer()).field("tunnels", &self.tunnels.len());
        sender.field("backlog", &self.backlog).finish()
    }
}

/// A stream, if one may be opened now.
fn open(connection: &Connection) -> Option<SendStream> {
    connection.quinn().open_uni().now_or_never()?.ok()
}

/// One lane: who sends writes while the stream takes it, and leaves the rest to the lane's task.
struct Lane {
    lane: StreamLane,
    connection: Connection,
    backlog: Backlog,
    // Held to write one small frame, to put frames in, or to take all of them out.
    queue: Mutex<Queue>,
    filled: Notify,
}

struct Queue {
    outgoing: Outgoing,
    /// `None` while the task writes.
    stream: Option<SendStream>,
    /// Nothing comes after what waits.
    finished: bool,
    /// Nobody writes any more.
    ended: bool,
}

impl Lane {
    fn start(
        lane: StreamLane,
        stream: SendStream,
        head: Option<Bytes>,
        connection: &Connection,
        backlog: &Backlog,
    ) -> Arc<Self> {
        // It can only be that the connection has ended.
        let _ = stream.set_priority(lane.priority());
        let mut queue = Queue { outgoing: Outgoing::default(), stream: Some(stream), finished: false, ended: false };
        if let Some(head) = head {
            backlog.rose(head.len());
            queue.outgoing.push_bytes(head);
        }
        let (queue, filled) = (Mutex::new(queue), Notify::new());
        let this = Arc::new(Self { lane, connection: connection.clone(), backlog: backlog.clone(), queue, filled });
        let writer = Arc::clone(&this);
        tokio::spawn(async move {
            if let Err(error) = writer.write().await {
                writer.end(&error);
            }
        });
        this
    }

    fn push(&self, head: Bytes, body: Bytes) {
        let mut queue = self.queue.lock();
        if queue.ended || queue.finished {
            return;
        }
        let was_empty = queue.outgoing.is_empty();
        // A small frame alone is written here and now: waking the task would cost more than that.
        if was_empty
            && head.len() + body.len() <= COPIED_BYTES_MAX
            && let Some(stream) = &mut queue.stream
        {
            let mut piece = [Outgoing::alone(&head, &body)];
            match stream.write_chunks(&mut piece).now_or_never() {
                Some(Ok(written)) if written.chunks == 1 => return,
                // The task meets the same error, and sees to it.
                _ => {
                    let [rest] = piece;
                    self.backlog.rose(rest.len());
                    queue.outgoing.push_bytes(rest);
                }
            }
        } else {
            self.backlog.rose(queue.outgoing.push(head, body));
        }
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn finish(&self) {
        self.queue.lock().finished = true;
        self.filled.notify_one();
    }

    /// Nothing will be written any more: what waits is dropped.
    fn end(&self, error: &WriteError) {
        let mut queue = self.queue.lock();
        queue.ended = true;
        let (_, bytes) = queue.outgoing.take();
        drop(queue);
        self.backlog.fell(bytes);
        if let WriteError::Stopped(_) = error {
            self.connection
                .close(CloseCode::ProtocolError, &format!("the lane {} was stopped by its reader", self.lane));
        }
    }

    /// What waits, and the stream to write it to. `None` when there is nothing to do; nothing waits when the lane is
    /// finished.
    fn take(&self) -> Option<(Vec<Bytes>, usize, SendStream)> {
        let mut queue = self.queue.lock();
        if queue.outgoing.is_empty() && !queue.finished {
            return None;
        }
        let stream = queue.stream.take()?;
        let (pieces, bytes) = queue.outgoing.take();
        Some((pieces, bytes, stream))
    }

    /// Writes what waits until the lane is finished.
    async fn write(&self) -> Result<(), WriteError> {
        loop {
            let Some((mut pieces, mut bytes, mut stream)) = self.take() else {
                self.filled.notified().await;
                continue;
            };
            if pieces.is_empty() {
                // It can only be that the connection has ended.
                let _ = stream.finish();
                return Ok(());
            }
            let mut left = &mut pieces[..];
            while !left.is_empty() {
                match stream.write_chunks(left).await {
                    Ok(written) => {
                        bytes -= written.bytes;
                        self.backlog.fell(written.bytes);
                        left = &mut left[written.chunks..];
                    }
                    Err(error) => {
                        self.backlog.fell(bytes);
                        return Err(error);
                    }
                }
            }
            self.queue.lock().stream = Some(stream);
        }
    }
}

/// The bytes of one [`Sender`] that the connection has not taken yet. Clones are of the same.
#[derive(Clone, Default)]
pub struct Backlog(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    fell: Notify,
}

impl Backlog {
    /// How many bytes wait, in all lanes. Zero on a connection that has ended.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Waits until fewer than `bytes` wait. Must be more than zero. May be dropped at any time.
    pub async fn below(&self, bytes: usize) {
        let mut fell = pin!(self.0.fell.notified());
        loop {
            // Before looking, so that no fall between the two is missed.
            fell.as_mut().enable();
            if self.bytes() < bytes.max(1) {
                return;
            }
            fell.as_mut().await;
            fell.set(self.0.fell.notified());
        }
    }

    fn rose(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn fell(&self, bytes: usize) {
        if bytes > 0 {
            self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.0.fell.notify_waiters();
        }
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backlog").field(&self.bytes()).finish()
    }
}
