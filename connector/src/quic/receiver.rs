use std::collections::HashSet;
use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::stream::{BoxStream, SelectAll, Stream, StreamExt, unfold};
use quinn::{ReadError, RecvStream};

use super::deframer::{Deframer, TooLong};
use super::lane::{TUNNEL, TUNNEL_KEY_BYTES};
use super::{CloseCode, Closed, Connection, StreamLane};
use crate::limits::LANE_FRAME_BYTES_MAX;

/// The most pieces of a stream that are read at once.
const PIECES_MAX: usize = 32;

/// Frames of one lane, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The lane they came in.
    pub lane: StreamLane,
    /// At least one frame.
    pub frames: Vec<Bytes>,
}

/// Receives frames from the lanes of a connection. What is not taken holds back the neighbour, at last in all lanes; so it
/// is always read. Dropping it closes the connection.
pub struct Receiver {
    connection: Connection,
    /// All that the neighbour may be heard of by. They are polled by whoever waits in `next`, and those only that have
    /// something: no task stands between the connection and its reader.
    sources: SelectAll<Source>,
    lanes: HashSet<StreamLane>,
}

impl Receiver {
    pub(super) fn new(connection: Connection, first: Option<RecvStream>) -> Self {
        let mut sources = SelectAll::new();
        let opened = unfold(connection.quinn().clone(), |quinn| async move {
            let stream = quinn.accept_uni().await.ok()?;
            Some((stream, quinn))
        });
        sources.push(Source::Opened(opened.boxed()));
        if let Some(stream) = first {
            sources.push(Source::Lane(Reader::new(stream)));
        }
        Self { connection, sources, lanes: HashSet::new() }
    }

    /// How the connection ended; `None` while it lives.
    #[must_use]
    pub fn closed_because(&self) -> Option<Closed> {
        self.connection.closed_because()
    }

    fn refuse(&mut self, what: &str) {
        self.connection.close(CloseCode::ProtocolError, what);
        // Nothing that such a neighbour says counts any more.
        self.sources.clear();
    }
}

/// The frames that come, whatever lane they come in. It ends when the connection has ended and all that had come before is
/// taken; [`closed_because`](Receiver::closed_because) says why.
impl Stream for Receiver {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        loop {
            let Some(event) = ready!(self.sources.poll_next_unpin(cx)) else { return Poll::Ready(None) };
            match event {
                Event::Opened(stream) => self.sources.push(Source::Lane(Reader::new(stream))),
                Event::Lane(lane) => {
                    if !self.lanes.insert(lane) {
                        self.refuse(&format!("there are two streams of the lane {lane}"));
                    }
                }
                Event::Frames(received) => return Poll::Ready(Some(received)),
                Event::Finished(lane) if lane.is_none_or(|lane| lane.fixed().is_none()) => {
                    lane.map(|lane| self.lanes.remove(&lane));
                }
                Event::Finished(_) => self.refuse("the stream of a fixed lane has ended"),
                Event::Rubbish(what) => self.refuse(&what),
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Bye, "");
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("peer", self.connection.peer()).field("lanes", &self.lanes.len()).finish()
    }
}

enum Event {
    Opened(RecvStream),
    Lane(StreamLane),
    Frames(Received),
    Finished(Option<StreamLane>),
    Rubbish(String),
}

enum Source {
    /// Streams that the neighbour opens.
    Opened(BoxStream<'static, RecvStream>),
    Lane(Reader),
}

impl Stream for Source {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match self.get_mut() {
            Self::Opened(opened) => opened.poll_next_unpin(cx).map(|stream| stream.map(Event::Opened)),
            Self::Lane(reader) => reader.poll(cx),
        }
    }
}

/// Reads one stream.
struct Reader {
    stream: RecvStream,
    head: Vec<u8>,
    lane: Option<StreamLane>,
    deframer: Deframer,
    /// Empty but while they are read.
    pieces: Box<[Bytes; PIECES_MAX]>,
    ended: bool,
}

impl Reader {
    fn new(stream: RecvStream) -> Self {
        let (head, deframer) = (Vec::new(), Deframer::new(LANE_FRAME_BYTES_MAX));
        Self { stream, head, lane: None, deframer, pieces: Box::default(), ended: false }
    }

    /// The next event; after `Finished` and `Rubbish` there is none.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        while !self.ended {
            let Some(lane) = self.lane else {
                if let Some(event) = ready!(self.poll_head(cx)) {
                    return Poll::Ready(Some(event));
                }
                continue;
            };
            // The future has no state of its own, so dropping it loses nothing.
            let read = ready!(pin!(self.stream.read_chunks(&mut *self.pieces)).poll(cx));
            match read {
                Ok(Some(count)) => {
                    let mut frames = Vec::new();
                    for piece in self.pieces.iter_mut().take(count) {
                        if let Err(TooLong { bytes }) = self.deframer.read(std::mem::take(piece), &mut frames) {
                            return self.rubbish(format!("a frame of {bytes} bytes is too long"));
                        }
                    }
                    if !frames.is_empty() {
                        return Poll::Ready(Some(Event::Frames(Received { lane, frames })));
                    }
                }
                Ok(None) if self.deframer.is_between_frames() => {
                    self.ended = true;
                    return Poll::Ready(Some(Event::Finished(self.lane)));
                }
                Ok(None) => return self.rubbish(format!("the lane {lane} ends within a frame")),
                Err(error) => return self.failed(&error),
            }
        }
        Poll::Ready(None)
    }

    /// Reads what the stream is. `None` when there is more to read.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let wanted = if self.head.first() == Some(&TUNNEL) { 1 + TUNNEL_KEY_BYTES } else { 1 } - self.head.len();
        let read = ready!(pin!(self.stream.read_chunk(wanted, true)).poll(cx));
        match read {
            Ok(Some(chunk)) => self.head.extend_from_slice(&chunk.bytes),
            // A stream that ends before it says what it is. Nothing was missed.
            Ok(None) if self.head.is_empty() => {
                self.ended = true;
                return Poll::Ready(Some(Event::Finished(None)));
            }
            Ok(None) => return self.rubbish("a stream ends within its head".to_owned()),
            Err(error) => return self.failed(&error),
        }
        let lane = match self.head[..] {
            [0] => StreamLane::Control,
            [1] => StreamLane::High,
            [2] => StreamLane::Normal,
            [TUNNEL, ref key @ ..] if key.len() == TUNNEL_KEY_BYTES => StreamLane::Tunnel({ key }.get_u64()),
            [TUNNEL, ..] => return Poll::Ready(None),
            _ => return self.rubbish(format!("no lane has the number {}", self.head[0])),
        };
        self.lane = Some(lane);
        Poll::Ready(Some(Event::Lane(lane)))
    }

    fn failed(&mut self, error: &ReadError) -> Poll<Option<Event>> {
        self.ended = true;
        match error {
            ReadError::ConnectionLost(_) => Poll::Ready(None),
            other => self.rubbish(format!("a lane fails: {other}")),
        }
    }

    fn rubbish(&mut self, what: String) -> Poll<Option<Event>> {
        self.ended = true;
        Poll::Ready(Some(Event::Rubbish(what)))
    }
}
