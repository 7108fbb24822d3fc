//! Workers over WebSocket: from their hello to the line of their manager, and the pump between their socket and their host.
//!
//! ```text
//!   WebSocket ◀─ messages ─▶ Pump ◀─ frames behind their lengths, a local socket ─▶ host (of the crate `workers`)
//! ```
//!
//! The host is that of a process: everything that a worker says is taken there, and held to the `Bounds` that are made here. The
//! pump knows no frames. It reads nothing while what it has read is not taken, so a worker that says too much waits.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use edri_events::{Descriptor, ManagerName, Pattern};
use edri_managers::{Arrivals, Undeclared};
use edri_protocol::limits::FRAME_BYTES_MAX;
use edri_protocol::{Frame, Hello, Notice, PREFIX_BYTES, first, split};
use edri_workers::Introduced;
use edri_workers::wire::{Bounds, MayDeclare};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::session::{CLOSE_TIME, admit, expires_at};
use super::socket::{Broken, Came, Socket};
use super::{CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_POLICY, CLOSE_TOO_LONG, WRONG_TYPE, encoded};
use crate::ending::Ending;
use crate::gateway::Shared;
use crate::remote::RemoteWorkers;
use crate::{ApiLimits, Caller, Verb};

/// The host's frames are read ahead as far as this.
const AHEAD_BYTES: usize = 256 << 10;
/// The most names that are counted of all callers together.
const NAMES_MAX: usize = 1 << 18;
/// How many turns there are before other tasks have theirs.
const TURNS: usize = 32;

/// What the workers over WebSocket share.
pub(crate) struct Workers {
    arrivals: Arrivals,
    undeclared: Option<RemoteWorkers>,
    places: Arc<Semaphore>,
    // Held to look for a name, or to add it.
    names: Mutex<Names>,
}

/// Names that have become known by workers alone, of each caller: one that declares too many takes nothing from others.
#[derive(Default)]
struct Names {
    of: HashMap<Option<Arc<str>>, HashSet<Box<str>>>,
    count: usize,
}

impl Workers {
    pub(crate) fn new(arrivals: &Arrivals, undeclared: Option<RemoteWorkers>, limits: &ApiLimits) -> Self {
        Self {
            arrivals: arrivals.clone(),
            undeclared,
            places: Arc::new(Semaphore::new(limits.workers.min(Semaphore::MAX_PERMITS))),
            names: Mutex::default(),
        }
    }

    /// No more come; those that are there go on as long as their managers do.
    pub(crate) fn close(&self) {
        self.places.close();
        self.arrivals.close();
    }

    /// Counts a name that nobody else has made known; whether there was room for it.
    fn admits(&self, caller: &Caller, name: &str, most: usize) -> bool {
        let mut names = self.names.lock();
        let Names { of, count } = &mut *names;
        if *count >= NAMES_MAX {
            return false;
        }
        let theirs = of.entry(caller.shared_name()).or_default();
        if theirs.contains(name) {
            return true;
        }
        let admitted = theirs.len() < most && theirs.insert(name.into());
        *count += usize::from(admitted);
        admitted
    }
}

/// Why a worker is refused: a code and a text.
type Refusal = (Cow<'static, str>, String);

/// A worker that has been let in.
pub(super) struct Welcomed {
    ours: UnixStream,
    expires: Option<Instant>,
    ending: Option<Ending>,
    place: OwnedSemaphorePermit,
}

/// Lets a worker in by its hello: its manager has it from now on.
pub(super) fn enter(
    shared: &Arc<Shared>,
    socket: &Socket,
    caller: &Caller,
    hello: Hello<'_>,
) -> Result<Welcomed, Notice<'static>> {
    try_enter(shared, socket, caller, hello).map_err(|(code, message)| Notice {
        code: code.into_owned().into(),
        message: message.into(),
        frame: Some("hello".into()),
        id: None,
    })
}

fn try_enter(shared: &Arc<Shared>, socket: &Socket, caller: &Caller, hello: Hello<'_>) -> Result<Welcomed, Refusal> {
    let workers = &shared.workers;
    let name = manager(hello.manager.as_deref())?;
    for handler in &hello.handlers {
        let pattern = Pattern::new(&handler.select).map_err(|error| ("invalid_name".into(), error.to_string()))?;
        may_serve(caller, &pattern)?;
    }
    let place = Arc::clone(&workers.places).try_acquire_owned().map_err(|_| {
        if workers.places.is_closed() {
            ("stopping".into(), "the node stops".to_owned())
        } else {
            ("overloaded".into(), format!("{} workers are connected already", shared.limits.workers))
        }
    })?;
    let pair = UnixStream::pair().map_err(|error| ("overloaded".into(), format!("no socket for it: {error}")))?;
    let (ours, theirs) = pair;
    let bounds = Bounds {
        admit: admit(shared, caller),
        may_declare: may_declare(shared, caller),
        calls: shared.limits.calls,
        frame_bytes: shared.limits.frame_bytes,
        bad_frames: shared.limits.bad_frames,
    };
    let worker = Introduced::connected(theirs, socket.encoding(), hello, bounds)?;
    let undeclared = workers.undeclared.as_ref().map(|undeclared| Undeclared {
        definition: undeclared.definition(name.as_str()),
        grace: undeclared.grace,
        most: undeclared.managers,
    });
    tracing::debug!(manager = %name, caller = caller.name(), "a worker has come");
    workers.arrivals.arrive(&name, worker, undeclared);
    let ending = caller.stands().cloned().map(Ending::Token);
    Ok(Welcomed { ours, expires: expires_at(caller), ending, place })
}

fn manager(name: Option<&str>) -> Result<ManagerName, Refusal> {
    let name = name.ok_or_else(|| {
        let message = "a worker over a network says in its hello which `manager` it works for";
        (Cow::Borrowed("invalid_name"), message.to_owned())
    })?;
    let name = ManagerName::new(name).map_err(|error| ("invalid_name".into(), error.to_string()))?;
    match is_edris(&name) {
        true => Err(("invalid_name".into(), "managers whose names begin with `edri` are edri's own".to_owned())),
        false => Ok(name),
    }
}

/// Whether the name, or pattern, begins with the segment that is edri's own.
fn is_edris(name: &str) -> bool {
    name.split('.').next() == Some("edri")
}

fn may_serve(caller: &Caller, pattern: &Pattern) -> Result<(), Refusal> {
    if is_edris(pattern.as_str()) {
        return Err(("forbidden".into(), format!("`{pattern}`: events whose names begin with `edri.` are edri's own")));
    }
    if caller.may_serve(pattern) {
        return Ok(());
    }
    let advice = if caller.name().is_some() { "its token does not let it" } else { "it says nothing of who it is" };
    Err(("forbidden".into(), format!("it may not serve `{pattern}`: {advice}")))
}

/// A worker declares what it may do something with; and it makes reachable from outside only what it may serve.
fn may_declare(shared: &Arc<Shared>, caller: &Caller) -> MayDeclare {
    let (shared, caller) = (Arc::clone(shared), caller.clone());
    Box::new(move |event: &Descriptor| {
        let name = event.name();
        if is_edris(name) {
            return Err(("invalid_name".into(), format!("`{name}`: names that begin with `edri.` are edri's own")));
        }
        let serves = caller.may(Verb::Serve, name);
        if !serves
            && (event.exposure().is_some() || !(caller.may(Verb::Publish, name) || caller.may(Verb::Request, name)))
        {
            let what = if event.exposure().is_some() { "expose" } else { "declare" };
            return Err(("forbidden".into(), format!("it may not {what} `{name}`: its token names no verb for it")));
        }
        let most = shared.limits.worker_events;
        if shared.router.declared(name).is_none() && !shared.workers.admits(&caller, name, most) {
            return Err(("overloaded".into(), format!("it has declared {most} events already that nobody else knew")));
        }
        Ok(())
    })
}

/// Carries frames between a worker and its host until one of them has gone.
pub(super) async fn run(shared: Arc<Shared>, socket: Socket, welcomed: Welcomed) {
    let Welcomed { ours, expires, mut ending, place } = welcomed;
    let silence = shared.limits.silence;
    let now = Instant::now();
    let mut pump = Pump {
        socket,
        host: ours,
        inward: Bytes::new(),
        prefix: Bytes::new(),
        outward: BytesMut::new(),
        heard: now,
        clock: Box::pin(tokio::time::sleep_until(now + silence / 3)),
        expires,
        silence,
    };
    let taken_back = async {
        match &mut ending {
            Some(ending) => ending.over().await,
            None => pending().await,
        }
    };
    let over = tokio::select! {
        over = poll_fn(|cx| pump.poll(cx)) => over,
        why = taken_back => Over::Refused("unauthorized", why, CLOSE_POLICY),
    };
    pump.end(over, &shared).await;
    drop(place);
}

/// Why there is nothing more to carry.
#[derive(Debug)]
enum Over {
    /// The host is done with it.
    HostLeft,
    /// The worker's connection is gone.
    Gone,
    /// It is told this, and the close code.
    Refused(&'static str, &'static str, u16),
}

struct Pump {
    socket: Socket,
    host: UnixStream,
    /// A frame of the worker, and its length before it, as far as the host has not taken them.
    prefix: Bytes,
    inward: Bytes,
    /// Frames of the host, behind their lengths.
    outward: BytesMut,
    /// When something came last of the worker.
    heard: Instant,
    clock: Pin<Box<Sleep>>,
    expires: Option<Instant>,
    silence: std::time::Duration,
}

impl Pump {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
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

    /// Carries what there is; whether something was carried.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Over> {
        let inward = self.read_worker(cx)? | self.write_host(cx)?;
        let outward = self.read_host(cx)?;
        let waiting = self.outward.len();
        if let Poll::Ready(Err(_)) = self.write_worker(cx) {
            return Err(Over::Gone);
        }
        self.look_at_the_clock(cx)?;
        // What has made room has to be followed by a look at what waited for it.
        Ok(inward | outward | (self.outward.len() < waiting))
    }

    fn is_taken(&self) -> bool {
        self.prefix.is_empty() && self.inward.is_empty()
    }

    fn read_worker(&mut self, cx: &mut Context<'_>) -> Result<bool, Over> {
        if !self.is_taken() {
            return Ok(false);
        }
        let Poll::Ready(came) = self.socket.poll_next(cx) else { return Ok(false) };
        self.heard = Instant::now();
        match came {
            Ok(Came::Frame(frame)) => {
                let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
                // No message is longer than a frame.
                prefix.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
                (self.prefix, self.inward) = (prefix.freeze(), frame);
                Ok(true)
            }
            Ok(Came::Sign) => Ok(true),
            Ok(Came::WrongType) => Err(Over::Refused("malformed_frame", WRONG_TYPE, CLOSE_POLICY)),
            Err(Broken::TooLong) => {
                let message = "a message is longer than `frame_bytes_max`";
                Err(Over::Refused("frame_too_long", message, CLOSE_TOO_LONG))
            }
            Err(Broken::Gone) => Err(Over::Gone),
        }
    }

    fn write_host(&mut self, cx: &mut Context<'_>) -> Result<bool, Over> {
        let mut written = false;
        while !self.is_taken() {
            let part = if self.prefix.is_empty() { &mut self.inward } else { &mut self.prefix };
            match self.host.try_write(part) {
                Ok(count) => {
                    part.advance(count);
                    written = true;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if self.host.poll_write_ready(cx).is_pending() {
                        break;
                    }
                }
                // What it said before its end is read still.
                Err(_) => (self.prefix, self.inward) = (Bytes::new(), Bytes::new()),
            }
        }
        Ok(written)
    }

    fn read_host(&mut self, cx: &mut Context<'_>) -> Result<bool, Over> {
        let mut read = false;
        // One frame may be longer than what is read ahead.
        while self.outward.len() < AHEAD_BYTES || matches!(first(&self.outward, FRAME_BYTES_MAX), Ok(None)) {
            if self.host.poll_read_ready(cx).is_pending() {
                break;
            }
            self.outward.reserve(16 << 10);
            match self.host.try_read_buf(&mut self.outward) {
                Ok(0) => return Err(Over::HostLeft),
                Ok(_) => read = true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Over::HostLeft),
            }
        }
        Ok(read)
    }

    /// Ready once all of the host's frames are on their way.
    fn write_worker(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Self { socket, outward, .. } = self;
        // The host writes frames, each shorter than the longest.
        socket.poll_write(cx, || split(outward, FRAME_BYTES_MAX).ok().flatten())
    }

    fn look_at_the_clock(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        while self.clock.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.expires.is_some_and(|expires| expires <= now) {
                return Err(Over::Refused("unauthorized", "the token has expired: connect with another", CLOSE_POLICY));
            }
            if now.saturating_duration_since(self.heard) >= self.silence {
                return Err(Over::Gone);
            }
            self.socket.ping();
            cx.waker().wake_by_ref();
            let next = now + self.silence / 3;
            self.clock.as_mut().reset(self.expires.map_or(next, |expires| next.min(expires)));
        }
        Ok(())
    }

    async fn end(mut self, over: Over, shared: &Shared) {
        tracing::debug!(?over, "the connection of a worker ends");
        let code = match over {
            Over::Gone => {
                // What it said last counts: that it leaves, for one.
                let _ = tokio::time::timeout(CLOSE_TIME, self.finish_inward()).await;
                return;
            }
            Over::HostLeft if shared.workers.places.is_closed() => CLOSE_GOING_AWAY,
            Over::HostLeft => CLOSE_NORMAL,
            Over::Refused(code, message, close) => {
                let notice = Notice { code: code.into(), message: message.into(), frame: None, id: None };
                let frame = encoded(&Frame::Error(notice), self.socket.encoding());
                self.socket.send_aside(frame);
                close
            }
        };
        let Self { mut socket, host, mut outward, .. } = self;
        // The host waits until this end is closed.
        drop(host);
        let closed = async {
            let written =
                poll_fn(|cx| socket.poll_write(cx, || split(&mut outward, FRAME_BYTES_MAX).ok().flatten())).await;
            if written.is_ok() {
                super::close(socket, code).await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIME, closed).await;
    }

    async fn finish_inward(&mut self) {
        poll_fn(|cx| {
            let _ = self.write_host(cx);
            if self.is_taken() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
