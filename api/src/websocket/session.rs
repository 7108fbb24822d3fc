//! One client: what it has open, what it is to be sent, and the socket of the moment.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use edri_events::{Headers, Kind, Pattern};
use edri_protocol::limits::{CALL_MAX, FRAME_BYTES_MAX};
use edri_protocol::resume::{Received, Sent};
use edri_protocol::{
    Ack, Bye, Call, Cancel, Fault, Frame, FrameError, PREFIX_BYTES, Ping, Pong, Subscribe, Unsubscribe,
};
use edri_router::{Bus, Conditions, Since, Start};
use edri_workers::wire::{Admit, Calls, Peer, Refused, fault, respond_error};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::feeds::{Feeds, TooSlow, Viewer, Wanted, tell_begun};
use super::sessions::{Place, Registered, Resumed};
use super::socket::{Broken, Came, Socket};
use super::{CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_POLICY, CLOSE_TOO_LONG, WRONG_TYPE, close, encoded, welcome};
use crate::access::check_headers;
use crate::border::{Guard, Way};
use crate::cache::ForClient;
use crate::clients::Client;
use crate::ending::Ending;
use crate::gateway::Shared;
use crate::metrics::{CountedSession, FrameKind, Taken};
use crate::problem::Problem;
use crate::selection::selection;
use crate::{Caller, Verb};

/// How many messages are read before other things have their turn.
const TURN_MESSAGES: usize = 64;
/// How many turns there are before other tasks have theirs.
const TURNS: usize = 4;
/// Nothing is read while so much waits to be written.
const UNREAD_BYTES: usize = 4 << 20;
/// Events wait in their subscription while so much waits to be written.
const UNSENT_BYTES: usize = 256 << 10;
/// The client is told what has come after so many frames,
const ACK_FRAMES: u64 = 64;
/// or after this time.
const ACK_TIME: Duration = Duration::from_millis(200);
/// How long the end may take.
pub(super) const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Why a session ends.
#[derive(Debug)]
enum Over {
    /// The client has said `bye`.
    Bye,
    /// The connection is gone, and the session is not kept or was kept long enough.
    Gone,
    /// The client breaks the rules, or is too slow: a code and a text.
    Refused(&'static str, String),
    /// A message was too long to be read.
    TooLong,
    /// The node stops, and what was open is finished.
    Left,
    /// All ends at once.
    Cut,
}

pub(super) struct Session {
    shared: Arc<Shared>,
    caller: Caller,
    /// Whose rate its calls count in.
    client: Client,
    place: Place,
    counted: CountedSession,
    /// What becomes of the frame in hand.
    taken: Taken,
    bus: Bus,
    peer: Arc<Peer>,
    calls: Calls,
    feeds: Feeds,
    sent: Sent,
    received: Received,
    socket: Option<Socket>,
    /// There when the session outlives a connection.
    kept: Option<Kept>,
    /// When something came last; when the connection broke, if there is none.
    heard: Instant,
    pinged: bool,
    /// When the client is to be told what has come.
    ack_due: Option<Instant>,
    bad: BadFrames,
    /// When the token ends that the client was let in with.
    expires: Option<Instant>,
    /// The end of the session of its browser.
    logged_out: Option<BoxFuture<'static, &'static str>>,
    clock: Pin<Box<Sleep>>,
    leave: BoxFuture<'static, ()>,
    leaving: bool,
    cut: BoxFuture<'static, ()>,
}

struct Kept {
    name: Registered,
    resumed: mpsc::Receiver<Resumed>,
}

/// How many bad frames have come in this minute.
struct BadFrames {
    since: Instant,
    count: u32,
}

impl Session {
    /// A session that ends with its connection.
    pub(super) fn single(
        shared: &Arc<Shared>,
        socket: Socket,
        caller: Caller,
        ending: Option<Ending>,
        place: Place,
    ) -> Box<Self> {
        Self::new(shared, socket, (caller, ending), place, None)
    }

    /// A session that can be gone on with over another connection.
    pub(super) fn kept(
        shared: &Arc<Shared>,
        socket: Socket,
        caller: Caller,
        ending: Option<Ending>,
        place: Place,
    ) -> Result<Box<Self>, getrandom::Error> {
        let (name, resumed) = shared.sessions.keep(&caller, socket.encoding())?;
        Ok(Self::new(shared, socket, (caller, ending), place, Some(Kept { name, resumed })))
    }

    /// In a box: a task's future has room for all that it ever holds, several times over if that is moved about in it.
    fn new(
        shared: &Arc<Shared>,
        mut socket: Socket,
        (caller, ending): (Caller, Option<Ending>),
        place: Place,
        kept: Option<Kept>,
    ) -> Box<Self> {
        let encoding = socket.encoding();
        let session = kept.as_ref().map(|kept| edri_protocol::Session {
            id: kept.name.id.as_str().into(),
            keep_ms: shared.limits.session_keep.as_millis() as u64,
            resumed: false,
            received: 0,
        });
        socket.send_aside(welcome(shared, session, encoding));
        let peer = Peer::new(encoding, FRAME_BYTES_MAX, shared.router.runtime().clone());
        let admit = admit(shared, &caller);
        let relay = shared.relay.guarded(Guard::new(shared, &caller, Way::WebSocket));
        let relay = relay.kept_by(ForClient::new(shared, Client::of(&caller, socket.remote())));
        let calls = Calls::polled(relay, Arc::clone(&peer), shared.limits.calls, admit);
        let now = Instant::now();
        let (expires, first) = (expires_at(&caller), now + shared.limits.silence / 3);
        let (leaving, cutting) = (Arc::clone(&shared.sessions), Arc::clone(&shared.sessions));
        let figures = &shared.metrics.websockets;
        Box::new(Self {
            client: Client::of(&caller, socket.remote()),
            feeds: Feeds::new(figures, Viewer { caller: caller.clone(), interceptors: shared.interceptors.clone() }),
            caller,
            place,
            counted: CountedSession::new(figures),
            taken: Taken::Accepted,
            bus: shared.router.bus(),
            peer,
            calls,
            sent: if kept.is_some() { Sent::kept() } else { Sent::unkept() },
            received: Received::default(),
            socket: Some(socket),
            kept,
            heard: now,
            pinged: false,
            ack_due: None,
            bad: BadFrames { since: now, count: 0 },
            expires,
            logged_out: ending.map(logged_out),
            clock: Box::pin(tokio::time::sleep_until(expires.map_or(first, |expires| first.min(expires)))),
            leave: Box::pin(async move { leaving.stopping().await }),
            leaving: false,
            cut: Box::pin(async move { cutting.over().await }),
            shared: Arc::clone(shared),
        })
    }

    /// Serves the client until the session ends.
    pub(super) async fn run(mut self: Box<Self>) {
        let over = poll_fn(|cx| self.poll(cx)).await;
        Box::pin(self.end(over)).await;
    }

    async fn end(mut self: Box<Self>, over: Over) {
        tracing::debug!(caller = self.caller.name(), ?over, "a WebSocket session ended");
        self.calls.abort();
        self.peer.close();
        let Self { socket, feeds, kept, place, .. } = *self;
        drop((feeds, kept));
        let Some(mut socket) = socket else { return };
        let (code, fault) = match &over {
            Over::Gone | Over::Cut => return,
            Over::Bye => (CLOSE_NORMAL, None),
            Over::Left => (CLOSE_GOING_AWAY, None),
            Over::TooLong => (CLOSE_TOO_LONG, Some(("frame_too_long", "a message is longer than `frame_bytes_max`"))),
            Over::Refused(code, message) => (CLOSE_POLICY, Some((*code, message.as_str()))),
        };
        if !matches!(over, Over::Left) {
            let error = fault.map(|(code, message)| Fault {
                code: code.into(),
                message: message.to_owned().into(),
                ..Fault::default()
            });
            let encoding = socket.encoding();
            socket.send_aside(encoded(&Frame::Bye(Bye { error }), encoding));
        }
        close(socket, code).await;
        drop(place);
    }

    // ---- the loop --------------------------------------------------------------------------------------------------

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Over::Cut);
        }
        if let Some(Poll::Ready(why)) = self.logged_out.as_mut().map(|over| over.as_mut().poll(cx)) {
            return Poll::Ready(Over::Refused("unauthorized", why.to_owned()));
        }
        if !self.leaving && self.leave.as_mut().poll(cx).is_ready() {
            self.leaving = true;
            self.peer.send_short(&Frame::Bye(Bye::default()));
        }
        for _ in 0..TURNS {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(over) => return Poll::Ready(over),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does what there is to do; whether there may be more.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Over> {
        self.take_over(cx);
        let more = self.read(cx)?;
        while let Poll::Ready(Some(())) = self.calls.poll_settled(cx) {}
        while let Poll::Ready((id, begun)) = self.feeds.poll_begun(cx) {
            match begun {
                Ok(position) => tell_begun(&self.peer, id, position),
                Err(error) => self.refuse(id, fault::from_publish(&error.into())),
            }
        }
        self.feeds.poll_ready(cx).map_err(|TooSlow { id, missed }| {
            Over::Refused("too_slow", format!("subscription {id} has missed {missed} events"))
        })?;
        let drained = self.write(cx);
        if self.sent.bytes() > self.shared.limits.session_bytes.saturating_mul(4).max(FRAME_BYTES_MAX) {
            let message = format!("{} bytes wait to be acknowledged", self.sent.bytes());
            return Err(Over::Refused("too_slow", message));
        }
        // Who is away is not waited for, once its calls are done.
        if self.leaving && self.calls.is_empty() && (drained || self.socket.is_none()) {
            return Err(Over::Left);
        }
        self.look_at_the_clock(cx)?;
        // What was not read for want of room is read once there is some.
        Ok(more && self.may_read())
    }

    // ---- writing ---------------------------------------------------------------------------------------------------

    /// Writes what there is; whether all of it is on its way.
    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let before = self.peer.output_bytes();
            if self.feeds.has_turns() {
                let (peer, sent) = (&self.peer, &self.sent);
                let most = if self.kept.is_some() { self.shared.limits.session_bytes } else { UNSENT_BYTES };
                self.feeds.write(peer, || {
                    let waiting = peer.output_bytes();
                    sent.unsent_bytes() + waiting < UNSENT_BYTES && sent.bytes() + waiting < most
                });
            }
            let more = self.peer.output_bytes() > before;
            self.collect(cx);
            if self.received.untold() >= ACK_FRAMES {
                self.ack();
            }
            let Some(socket) = &mut self.socket else { return false };
            match socket.poll_write(cx, || self.sent.next_unsent()) {
                Poll::Ready(Ok(())) if more && self.feeds.has_turns() => {}
                Poll::Ready(Ok(())) => return true,
                Poll::Ready(Err(_)) => {
                    self.lost();
                    return false;
                }
                Poll::Pending => return false,
            }
        }
    }

    /// Takes what the peer has for the client.
    fn collect(&mut self, cx: &mut Context<'_>) {
        // Registered first, so that nothing is overlooked.
        let _ = self.peer.poll_output(cx);
        let mut bytes = Vec::new();
        if !self.peer.take_output(&mut bytes) {
            return;
        }
        let mut bytes = Bytes::from(bytes);
        while let Some((length, _)) = bytes.split_first_chunk::<PREFIX_BYTES>() {
            let end = PREFIX_BYTES + u32::from_be_bytes(*length) as usize;
            let frame = bytes.split_to(end.min(bytes.len()));
            self.sent.push(frame.slice(PREFIX_BYTES..));
        }
    }

    /// Tells the client what has come.
    fn ack(&mut self) {
        self.ack_due = None;
        let Some(socket) = &mut self.socket else { return };
        if self.kept.is_some() && self.received.untold() > 0 {
            let ack = Frame::Ack(Ack { received: Some(self.received.tell()), ..Ack::default() });
            let encoding = socket.encoding();
            socket.send_aside(encoded(&ack, encoding));
        }
    }

    // ---- connections -----------------------------------------------------------------------------------------------

    /// The connection is gone.
    fn lost(&mut self) {
        self.counted.set_away(true);
        self.socket = None;
        self.heard = Instant::now();
        self.set_clock();
    }

    /// Takes a new connection, if one came.
    fn take_over(&mut self, cx: &mut Context<'_>) {
        let Some(kept) = &mut self.kept else { return };
        let Poll::Ready(Some(resumed)) = kept.resumed.poll_recv(cx) else { return };
        let Resumed { mut socket, received, caller, ending, answer } = resumed;
        if let Err(error) = self.sent.reconnect(received) {
            tracing::debug!(%error, "a session cannot be gone on with");
            let _ = answer.send(Err((socket, ending)));
            return;
        }
        let session = edri_protocol::Session {
            id: kept.name.id.as_str().into(),
            keep_ms: self.shared.limits.session_keep.as_millis() as u64,
            resumed: true,
            received: self.received.tell(),
        };
        let encoding = socket.encoding();
        socket.send_aside(welcome(&self.shared, Some(session), encoding));
        if answer.send(Ok(())).is_ok() {
            // One that is there still has nobody at its other end, or somebody who should not be.
            self.counted.resumed();
            self.client = Client::of(&caller, socket.remote());
            self.socket = Some(socket);
            self.heard = Instant::now();
            self.pinged = false;
            self.ack_due = None;
            self.expires = expires_at(&caller);
            self.logged_out = ending.map(logged_out);
            self.set_clock();
        }
    }

    // ---- the clock -------------------------------------------------------------------------------------------------

    fn due(&self) -> Instant {
        let limits = &self.shared.limits;
        let (limit, ack) = match &self.socket {
            None => (limits.session_keep, None),
            Some(_) if self.pinged => (limits.silence, self.ack_due),
            Some(_) => (limits.silence / 3, self.ack_due),
        };
        ack.into_iter().chain(self.expires).fold(self.heard + limit, Instant::min)
    }

    fn set_clock(&mut self) {
        let due = self.due();
        // A later time is looked at when the earlier comes.
        if due < self.clock.deadline() || self.clock.is_elapsed() {
            self.clock.as_mut().reset(due);
        }
    }

    fn look_at_the_clock(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        if self.socket.is_none() && self.kept.is_none() {
            return Err(Over::Gone);
        }
        while self.clock.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.expires.is_some_and(|expires| expires <= now) {
                return Err(Over::Refused("unauthorized", "the token has expired: connect with another".to_owned()));
            }
            let silent = now.saturating_duration_since(self.heard);
            let limits = &self.shared.limits;
            match &mut self.socket {
                None if silent >= limits.session_keep => return Err(Over::Gone),
                None => {}
                Some(_) if silent >= limits.silence => {
                    tracing::debug!("nothing comes from a WebSocket any more");
                    self.lost();
                    if self.kept.is_none() {
                        return Err(Over::Gone);
                    }
                }
                Some(socket) => {
                    if silent >= limits.silence / 3 && !self.pinged {
                        socket.ping();
                        self.pinged = true;
                        cx.waker().wake_by_ref();
                    }
                    if self.ack_due.is_some_and(|due| due <= now) {
                        self.ack();
                        cx.waker().wake_by_ref();
                    }
                }
            }
            let due = self.due();
            self.clock.as_mut().reset(due);
        }
        Ok(())
    }

    // ---- reading ---------------------------------------------------------------------------------------------------

    fn may_read(&self) -> bool {
        self.socket.is_some() && self.sent.unsent_bytes() + self.peer.output_bytes() < UNREAD_BYTES
    }

    /// Takes the messages that have come; whether there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Over> {
        let mut heard = false;
        for _ in 0..TURN_MESSAGES {
            if !self.may_read() {
                return Ok(true);
            }
            let Some(socket) = &mut self.socket else { return Ok(false) };
            let came = match socket.poll_next(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(came) => came,
            };
            if !std::mem::replace(&mut heard, true) {
                self.heard = Instant::now();
                self.pinged = false;
            }
            match came {
                Ok(Came::Frame(frame)) => self.frame(&frame)?,
                Ok(Came::Sign) => {}
                Ok(Came::WrongType) => {
                    self.count();
                    self.shared.metrics.websockets.received(FrameKind::UNKNOWN, Taken::Bad);
                    self.bad("malformed_frame", WRONG_TYPE, "", None)?;
                }
                Err(Broken::TooLong) => return Err(Over::TooLong),
                Err(Broken::Gone) => {
                    self.lost();
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// A frame of the session has come.
    fn count(&mut self) {
        self.received.frame();
        if self.kept.is_some() && self.ack_due.is_none() {
            self.ack_due = Some(Instant::now() + ACK_TIME);
            self.set_clock();
        }
    }

    fn frame(&mut self, bytes: &Bytes) -> Result<(), Over> {
        let frame = Frame::decode(bytes);
        let kind = frame.as_ref().map_or(FrameKind::UNKNOWN, FrameKind::of);
        self.taken = Taken::Accepted;
        let taken = self.take(frame, bytes);
        self.shared.metrics.websockets.received(kind, self.taken);
        taken
    }

    fn take(&mut self, frame: Result<Frame<'_>, FrameError>, bytes: &Bytes) -> Result<(), Over> {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                self.count();
                return self.bad(error.code(), &error.to_string(), "", None);
            }
        };
        if let Frame::Ack(Ack { received: Some(received), .. }) = frame {
            return match self.sent.acknowledge(received) {
                Ok(()) => Ok(()),
                Err(error) => self.bad("out_of_order", &error.to_string(), "ack", None),
            };
        }
        self.count();
        if !self.may_ask(&frame) {
            return Ok(());
        }
        match frame {
            Frame::Request(call) => self.call(Kind::Request, &call, bytes),
            Frame::Publish(call) => self.call(Kind::Notification, &call, bytes),
            Frame::Open(call) => self.call(Kind::Tunnel, &call, bytes),
            Frame::Cancel(Cancel { id }) => self.calls.cancel(id),
            Frame::Subscribe(subscribe) => self.subscribe(subscribe),
            Frame::Unsubscribe(Unsubscribe { id }) => {
                if !self.feeds.end(id) {
                    return self.bad("unknown_call", "no subscription has this number", "unsubscribe", Some(id));
                }
            }
            Frame::Credit(credit) => {
                if !self.feeds.grant(credit.id, credit.items) {
                    self.peer.credit(&credit);
                }
            }
            Frame::Data(data) => self.peer.data(&data, bytes),
            Frame::End(end) => self.peer.end(&end),
            Frame::Abort(abort) => self.peer.abort(&abort),
            Frame::Ping(Ping { id }) => self.peer.send_short(&Frame::Pong(Pong { id })),
            // Nothing is asked of a client but to read.
            Frame::Pong(_) | Frame::Window(_) => {}
            Frame::Error(error) => tracing::debug!(code = %error.code, message = %error.message, "a client objects"),
            Frame::Bye(_) => return Err(Over::Bye),
            Frame::Unknown(name) => {
                let name = name.into_owned();
                return self.bad("unknown_frame", "this version does not know it", &name, None);
            }
            other => return self.bad("out_of_order", "a client does not send this frame", other.name(), None),
        }
        Ok(())
    }

    /// Whether the client may ask for something in this second; otherwise it is told.
    fn may_ask(&mut self, frame: &Frame<'_>) -> bool {
        let (id, limits) = match frame {
            Frame::Request(call) | Frame::Publish(call) | Frame::Open(call) => (call.id, &self.shared.limits),
            Frame::Subscribe(subscribe) => (subscribe.id, &self.shared.limits),
            _ => return true,
        };
        let Some(rate) = limits.requests_per_second else { return true };
        let charged = self.shared.clients.lock().charge(&self.client, std::time::Instant::now());
        let Err(wait) = charged else { return true };
        self.taken = Taken::Limited;
        let wait = wait.as_millis() + 1;
        let message = format!("you may send {rate} requests a second: wait for {wait} ms");
        match id {
            // Nobody waits for its answer.
            0 => self.peer.object("too_many_requests", &message, frame.name(), None),
            id => respond_error(&self.peer, id, "too_many_requests", &message),
        }
        false
    }

    /// Answers a frame that is wrong. Who sends many of them is not listened to any more.
    fn bad(&mut self, code: &str, message: &str, frame: &str, id: Option<u64>) -> Result<(), Over> {
        self.taken = Taken::Bad;
        self.peer.object(code, message, frame, id);
        let now = Instant::now();
        if now.duration_since(self.bad.since) >= Duration::from_secs(60) {
            self.bad = BadFrames { since: now, count: 0 };
        }
        self.bad.count += 1;
        if self.bad.count > self.shared.limits.bad_frames {
            let most = self.shared.limits.bad_frames;
            return Err(Over::Refused("bad_frames", format!("more than {most} bad frames came in a minute")));
        }
        Ok(())
    }

    fn call(&mut self, kind: Kind, call: &Call<'_>, frame: &Bytes) {
        if self.leaving {
            return respond_error(&self.peer, call.id, "stopping", "the node is stopping");
        }
        if call.id > CALL_MAX || self.feeds.has(call.id) {
            return respond_error(&self.peer, call.id, "invalid_call", "each number is used once");
        }
        match kind {
            Kind::Notification => self.calls.publish(call, frame),
            Kind::Request => self.calls.request(call, frame),
            Kind::Tunnel => self.calls.open(call, frame),
        }
    }

    fn refuse(&self, id: u64, refused: Refused<'_>) {
        self.peer.send_short(&Frame::Response(refused.response(id)));
    }

    // ---- subscriptions ---------------------------------------------------------------------------------------------

    fn subscribe(&mut self, subscribe: Subscribe<'_>) {
        let id = subscribe.id;
        match self.wanted(subscribe) {
            Ok(wanted) => self.feeds.begin(&self.bus, id, wanted),
            Err((code, message)) => respond_error(&self.peer, id, &code, &message),
        }
    }

    fn wanted(&self, subscribe: Subscribe<'_>) -> Result<Wanted, Refusal> {
        let Subscribe { id, select, key, conditions, capacity, slow, credit, last, since } = subscribe;
        let limits = &self.shared.limits;
        if id == 0 || id > CALL_MAX || id.is_multiple_of(2) || self.calls.is_open(id) || self.feeds.has(id) {
            return Err(("invalid_call".into(), "who says hello numbers its calls 1, 3, 5 …, each once".to_owned()));
        }
        if self.feeds.len() >= limits.subscriptions {
            return Err(("overloaded".into(), format!("a client has at most {} subscriptions", limits.subscriptions)));
        }
        let start = match (last, since) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                return Err(("unsupported".into(), "say `last`, or `since`, and not both".to_owned()));
            }
            (Some(count), None) => Some(Start::Last(usize::try_from(count).unwrap_or(usize::MAX))),
            (None, Some(since)) => Some(Start::Since(Since::from_text(&since))),
        };
        if start.is_some() && capacity != 0 {
            return Err(("unsupported".into(), "a history keeps what it keeps: leave `capacity` out".to_owned()));
        }
        let conditions = match conditions {
            None => None,
            Some(conditions) => {
                let read = conditions.encoding().decode::<Conditions>(conditions.bytes());
                Some(read.map_err(|error| ("invalid_conditions".into(), error.to_string()))?)
            }
        };
        let pattern = Pattern::new(&select).map_err(|error| ("invalid_name".into(), error.to_string()))?;
        let selection = selection(&self.shared, &self.caller, pattern, key.as_deref(), conditions).map_err(refused)?;
        let most = limits.subscription_events;
        let capacity = if capacity == 0 { most.min(1024) } else { most.min(capacity as usize) };
        Ok(Wanted { selection, capacity, slow, credit, start })
    }
}

/// Ready once the session of its browser has ended.
fn logged_out(mut ending: Ending) -> BoxFuture<'static, &'static str> {
    Box::pin(async move { ending.over().await })
}

/// When the client's token ends, by the clock that the session has.
pub(super) fn expires_at(caller: &Caller) -> Option<Instant> {
    let left = caller.expires()?.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left)
}

/// Why a call is refused: a code and a text.
type Refusal = (Cow<'static, str>, String);

/// A problem as a call's error. Who a client is was settled with its hello, so what it may not do is forbidden.
fn refused(problem: Problem) -> Refusal {
    let code = if problem.code() == "unauthorized" { "forbidden" } else { problem.code() };
    (code.to_owned().into(), problem.detail().to_owned())
}

/// What of a client's calls is let through.
pub(super) fn admit(shared: &Arc<Shared>, caller: &Caller) -> Admit {
    let (shared, caller) = (Arc::clone(shared), caller.clone());
    Box::new(move |kind: Kind, name: &str, headers: &mut Headers| {
        let table = shared.exposed.table();
        let event = table.event(name).ok_or_else(|| refused(Problem::unreachable(name)))?;
        let verb = if kind == Kind::Notification { Verb::Publish } else { Verb::Request };
        event.check(&caller, verb).map_err(refused)?;
        check_headers(headers.iter().map(|(name, _)| name)).map_err(refused)?;
        caller.mark(headers).map_err(|error| ("invalid_headers".into(), error.to_string()))
    })
}
