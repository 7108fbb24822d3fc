//! The child's side: a process that hosts one instance for a node.
//!
//! It has no table and no manager. Calls come over the connection and are given to the same host that runs workers as tasks
//! and threads; what the worker itself sends goes back over the connection. Retries, time limits and restarts are the
//! node's: an event is tried once here, and a panic ends the process.

mod entry;
mod line;
mod log;
pub(crate) mod up;

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use edri_events::{
    Address, Body, CodecError, Descriptor, DescriptorRef, Encoding, Envelope, Failure, Head, Incarnation, Kind,
    ManagerName, NodeName, Pattern,
};
use edri_protocol::limits::FRAME_BYTES_MAX;
use edri_protocol::{
    Bye, Call as CallFrame, EventDeclaration, Fault, Frame, Grant, Handler, Health as HealthFrame, Hello, Ping, Pong,
    Ready, Report, Role, Text, VERSION, Welcome, Window,
};
use edri_router::{
    Delivery, Group, GroupName, GroupOptions, Health, Listener, Overflow, ReplyTo, RequestError, Router, Selection,
    Spread, WorkerStatus,
};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::host::{Exit, Reach, run};
use crate::{Factory, Policy, Retry, Seat, Signals};

pub use self::entry::{NODE_VARIABLE, WORKER_VARIABLE, complain, marked_for};
use self::line::{Answering, Call, CallKey, Line, Tape, Written};
use self::up::Up;
use super::carried;
use super::fault::{self, START_REFUSED};
use super::peer::{Opener, Peer};

/// How long the node may take until every worker of it has said hello.
const WELCOME_LIMIT: Duration = Duration::from_secs(120);
/// How soon the connection's thread writes what the worker's thread has left because a handler keeps it.
const WATCH: Duration = Duration::from_millis(2);
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// Takes a worker's arguments as they came from the node.
pub type TakeArguments = Arc<dyn Fn(&Body) -> Result<(), CodecError> + Send + Sync>;

/// A manager's worker, to be hosted in this process for a node in another.
pub struct Hosted {
    /// The manager.
    pub manager: ManagerName,
    /// The events that its workers handle, or that were declared with it.
    pub events: Vec<DescriptorRef>,
    /// What its handlers take.
    pub selections: Vec<Selection>,
    /// What makes an instance.
    pub factory: Factory,
    /// How many events one instance handles at once.
    pub concurrency: usize,
    /// How events are treated; but for concurrency that is the node's affair.
    pub policy: Policy,
    /// Where the arguments go that the node has for the worker.
    pub arguments: Option<TakeArguments>,
}

impl std::fmt::Debug for Hosted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosted").field("manager", &self.manager).finish_non_exhaustive()
    }
}

/// How the child's part ends.
enum End {
    /// In good order, or as the node was told.
    Told(i32),
    /// The node is gone.
    Gone,
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Hosted {
    /// Hosts the worker over this connection until the end; what comes back is the process's exit code. A handler that does
    /// not return may still be running then.
    #[must_use]
    pub fn serve(self, stream: StdStream) -> i32 {
        self.serve_until(stream, std::future::pending::<()>)
    }

    /// As [`Hosted::serve`]; what `leave` returns makes it end in good order, as the node's `bye` does.
    fn serve_until<L: Future<Output = ()>>(self, stream: StdStream, leave: impl FnOnce() -> L) -> i32 {
        let manager = self.manager.clone();
        let served = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(End::Io)
            .and_then(|runtime| runtime.block_on(self.live(stream, leave)));
        match served {
            Ok(code) | Err(End::Told(code)) => code,
            // Nobody is left to be told.
            Err(End::Gone) => 0,
            Err(End::Io(error)) => {
                tracing::error!(%manager, %error, "the connection to the node broke");
                1
            }
        }
    }

    fn hello(&self) -> Hello<'_> {
        let calls = u32::try_from(self.policy.concurrency).unwrap_or(u32::MAX).max(Window::default().calls);
        Hello {
            version: VERSION,
            role: Role::Worker,
            agent: concat!("edri ", env!("CARGO_PKG_VERSION")).into(),
            events: self.events.iter().map(|event| EventDeclaration::of(event)).collect(),
            handlers: self.selections.iter().map(|wants| Handler { select: wants.pattern.as_str().into() }).collect(),
            window: Window { calls, ..Window::default() },
            concurrency: u32::try_from(self.concurrency).unwrap_or(u32::MAX),
            manager: None,
            token: None,
            session: None,
        }
    }

    async fn live<L: Future<Output = ()>>(self, stream: StdStream, leave: impl FnOnce() -> L) -> Result<i32, End> {
        let leave = leave();
        stream.set_nonblocking(true)?;
        let mut stream = UnixStream::from_std(stream)?;
        let mut hello = Vec::new();
        if let Err(error) =
            Frame::Hello(self.hello()).encode_to_stream(Encoding::MessagePack, FRAME_BYTES_MAX, &mut hello)
        {
            return Err(io::Error::other(format!("its events cannot be declared: {error}")).into());
        }
        stream.write_all(&hello).await?;
        let mut reader = Reader { read: BytesMut::new() };
        let frame = reader.first(&stream).await?;
        let welcome = match Frame::decode(&frame) {
            Ok(Frame::Welcome(welcome)) => welcome,
            Ok(Frame::Bye(_)) => return Ok(0),
            Ok(Frame::Error(error)) => {
                return Err(io::Error::other(format!("{}: {}", error.code, error.message)).into());
            }
            Ok(other) => return Err(io::Error::other(format!("`{}` came instead of `welcome`", other.name())).into()),
            Err(error) => return Err(io::Error::other(error).into()),
        };
        let most = usize::try_from(welcome.frame_bytes_max).unwrap_or(usize::MAX);
        let peer = Peer::new(Encoding::MessagePack, most, Handle::current());
        log::ToNode::install(Arc::downgrade(&peer));
        let line = Line::new(Arc::clone(&peer), stream, Handle::current());
        let Some(address) = address(&welcome) else {
            return Err(say_bye(&line, Some(wrong_start("the node's name or incarnation is none"))).await);
        };
        if let (Some(take), Some(arguments)) = (&self.arguments, &welcome.arguments)
            && let Err(error) = take(&arguments.to_body(&frame))
        {
            return Err(say_bye(&line, Some(wrong_start(&format!("its arguments: {error}")))).await);
        }
        let up = Up::new(Arc::clone(&peer), self.manager.clone(), welcome.window, Handle::current(), &self.events);
        let outcomes = Arc::new(Answering(Arc::clone(&line)));
        let router = Router::beneath(address.clone(), &Handle::current(), Arc::clone(&up) as _, outcomes);
        let mut connection = Connection {
            calls: Calls::new(&self, Arc::new(address)),
            line,
            router,
            up,
            reader,
            silence: Duration::from_millis(welcome.silence_ms.max(6)),
        };
        let ended = connection.run(self, welcome.instance as usize, leave).await;
        connection.up.lost();
        peer.close();
        ended
    }
}

fn wrong_start(message: &str) -> Fault<'static> {
    Fault { code: "start_failed".into(), message: message.to_owned().into(), ..Fault::default() }
}

/// The address of the worker's node.
fn address(welcome: &Welcome<'_>) -> Option<Address> {
    let number = u64::from_str_radix(&welcome.incarnation, 16).ok()?;
    let incarnation = Incarnation::from_number(number)?;
    Some(Address { node: NodeName::new(&welcome.node).ok()?, incarnation, manager: None })
}

/// Says `bye` and writes all that there is. How the process ends then.
async fn say_bye(line: &Line, error: Option<Fault<'_>>) -> End {
    let code = i32::from(error.is_some());
    line.peer.send_short(&Frame::Bye(Bye { error }));
    loop {
        match line.write() {
            Written::All => return End::Told(code),
            Written::Broken => return End::Gone,
            Written::Blocked => {
                if let Err(error) = line.stream.writable().await {
                    return End::Io(error);
                }
            }
        }
    }
}

/// Reads frames.
struct Reader {
    read: BytesMut,
}

impl Reader {
    /// Reads what there is; false when nothing more comes right now.
    fn fill(&mut self, stream: &UnixStream) -> Result<bool, End> {
        if self.read.capacity() - self.read.len() < READ_BYTES / 8 {
            self.read.reserve(READ_BYTES);
        }
        match stream.try_read_buf(&mut self.read) {
            Ok(0) => Err(End::Gone),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(End::Gone),
            Err(error) => Err(error.into()),
        }
    }

    async fn first(&mut self, stream: &UnixStream) -> Result<Bytes, End> {
        let welcome = async {
            loop {
                if let Some(frame) = edri_protocol::split(&mut self.read, FRAME_BYTES_MAX).map_err(io::Error::other)? {
                    return Ok(frame);
                }
                stream.readable().await?;
                self.fill(stream)?;
            }
        };
        match tokio::time::timeout(WELCOME_LIMIT, welcome).await {
            Ok(frame) => frame,
            Err(_) => Err(io::Error::other("the node did not say `welcome`").into()),
        }
    }
}

/// The connection as its thread has it.
struct Connection {
    line: Arc<Line>,
    router: Router,
    up: Arc<Up>,
    reader: Reader,
    calls: Calls,
    silence: Duration,
}

impl Connection {
    async fn run(&mut self, hosted: Hosted, instance: usize, leave: impl Future<Output = ()>) -> Result<i32, End> {
        let (ready, mut is_ready) = oneshot::channel();
        let mut ended = self.start(hosted, instance, ready)?;
        let mut leave = std::pin::pin!(leave);
        let (mut starting, mut blocked, mut leaving) = (true, false, false);
        let mut watch = std::pin::pin!(tokio::time::sleep(WATCH));
        let mut watching = false;
        let look = self.silence / 6;
        let mut silence = tokio::time::interval_at(tokio::time::Instant::now() + look, look);
        silence.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut writes = self.line.writes();
        loop {
            tokio::select! {
                biased;
                () = self.line.peer.output(), if !blocked => blocked = self.write()?,
                writable = self.line.stream.writable(), if blocked => {
                    writable?;
                    blocked = self.write()?;
                }
                () = &mut watch, if watching => {
                    watching = false;
                    if !blocked {
                        self.line.write_quiet();
                    }
                }
                started = &mut is_ready, if starting => {
                    starting = false;
                    // An error says that it has ended, which comes below.
                    if started.is_ok() {
                        self.line.peer.send_short(&Frame::Ready(Ready {}));
                    }
                }
                exit = &mut ended => return Err(self.ended(exit.ok()).await),
                _ = silence.tick() => {
                    let now = self.line.writes();
                    if std::mem::replace(&mut writes, now) == now {
                        self.line.peer.send_short(&Frame::Ping(Ping { id: 0 }));
                    }
                }
                () = &mut leave, if !leaving => {
                    leaving = true;
                    self.line.close();
                }
                // The last, for it may always be ready.
                readable = self.line.stream.readable() => {
                    readable?;
                    self.read().await?;
                }
            }
            if !watching && self.line.needs_watching() {
                watching = true;
                watch.as_mut().reset(tokio::time::Instant::now() + WATCH);
            }
        }
    }

    /// Starts the worker on a thread of its own.
    fn start(
        &self,
        hosted: Hosted,
        instance: usize,
        ready: oneshot::Sender<()>,
    ) -> Result<oneshot::Receiver<Exit>, End> {
        let group = Group::new(GroupOptions {
            shared: false,
            name: GroupName::Manager(hosted.manager.clone()),
            spread: Spread::Compete,
            capacity: 1,
            overflow: Overflow::Wait,
            handlers: Vec::new(),
        });
        group.set_source(Box::new(Tape::new(Arc::clone(&self.line), self.router.clone())));
        let status = Arc::new(WorkerStatus::new(instance));
        status.listen(Box::new(Reports(Arc::clone(&self.line.peer))));
        let (open, kill) = (watch::channel(true), watch::channel(false));
        let seat = Seat {
            router: self.router.clone(),
            group,
            manager: hosted.manager.clone(),
            inbox: 0,
            status,
            policy: Policy { retry: Retry::never(), time_limit: None, ..hosted.policy },
            signals: Signals { open: open.1, kill: kill.1 },
            resume: Vec::new(),
            ordered: true,
            idle: None,
        };
        let (tell, ended) = oneshot::channel();
        let line = Arc::clone(&self.line);
        std::thread::Builder::new().name(format!("{}-{instance}", hosted.manager)).spawn(move || {
            Line::write_here();
            // A waker of this runtime may stay in the line, so the line must not be kept by the runtime.
            let parked = Arc::downgrade(&line);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .on_thread_park(move || parked.upgrade().iter().for_each(|line| line.write_quiet()))
                .build();
            let exit = match runtime {
                Ok(runtime) => runtime.block_on(run(seat, hosted.factory, ready, Reach::Alone)),
                Err(error) => Exit::StartFailed(format!("its thread has no runtime: {error}"), Vec::new()),
            };
            // Without these the worker would be told to end.
            drop((open.0, kill.0));
            let _ = tell.send(exit);
        })?;
        Ok(ended)
    }

    /// Writes what was announced; whether the socket takes no more for now.
    fn write(&self) -> Result<bool, End> {
        match self.line.write() {
            Written::All => Ok(false),
            Written::Blocked => Ok(true),
            Written::Broken => Err(End::Gone),
        }
    }

    /// The worker has ended: tells the node how.
    async fn ended(&self, exit: Option<Exit>) -> End {
        let error = match exit {
            Some(Exit::Finished) => None,
            Some(Exit::StartFailed(detail, _)) => Some(wrong_start(&detail)),
            Some(Exit::StartRefused(detail, _)) => {
                Some(Fault { code: START_REFUSED.into(), message: detail.into(), ..Fault::default() })
            }
            Some(Exit::Lost { detail, resume, .. }) => {
                // Whether it may be tried again is the node's to say.
                for ticket in resume.iter().filter_map(Delivery::ticket) {
                    self.router.complete(ticket, Err(RequestError::WorkerLost(detail.clone())));
                }
                Some(Fault { code: "worker_lost".into(), message: detail.into(), ..Fault::default() })
            }
            Some(Exit::Killed | Exit::StoppingCut | Exit::Left(_)) | None => {
                Some(Fault { code: "worker_lost".into(), message: "its thread ended".into(), ..Fault::default() })
            }
        };
        say_bye(&self.line, error).await
    }

    async fn read(&mut self) -> Result<(), End> {
        let mut calls = Vec::new();
        while self.reader.fill(&self.line.stream)? {
            let now = Instant::now();
            loop {
                match edri_protocol::split(&mut self.reader.read, FRAME_BYTES_MAX) {
                    Ok(Some(frame)) => match Frame::decode(&frame) {
                        Ok(decoded) => self.take(decoded, &frame, now, &mut calls),
                        Err(error) => return Err(self.rubbish(&error).await),
                    },
                    Ok(None) => break,
                    Err(error) => return Err(self.rubbish(&error).await),
                }
            }
            self.line.add(&mut calls);
        }
        Ok(())
    }

    /// What came is no frame: the node is told, and that is the end.
    async fn rubbish(&self, error: &edri_protocol::FrameError) -> End {
        self.line.peer.object(error.code(), &error.to_string(), "", None);
        match say_bye(&self.line, Some(Fault { code: error.code().into(), ..Fault::default() })).await {
            End::Told(_) => End::Io(io::Error::other(error.clone())),
            end => end,
        }
    }

    fn take(&mut self, decoded: Frame<'_>, frame: &Bytes, now: Instant, calls: &mut Vec<Call>) {
        let peer = &self.line.peer;
        match decoded {
            Frame::Publish(call) => self.call(Kind::Notification, call, frame, now, calls),
            Frame::Request(call) => self.call(Kind::Request, call, frame, now, calls),
            Frame::Open(call) => self.call(Kind::Tunnel, call, frame, now, calls),
            Frame::Response(response) => self.up.response(response, frame),
            Frame::Ack(ack) => ack.done.iter().for_each(|id| self.up.acked(*id, frame)),
            Frame::Cancel(cancel) => {
                // It may be about one that came with it.
                self.line.add(calls);
                self.line.cancel(cancel.id, &self.router);
            }
            Frame::Data(data) => peer.data(&data, frame),
            Frame::Credit(credit) => peer.credit(&credit),
            Frame::End(end) => peer.end(&end),
            Frame::Abort(abort) => peer.abort(&abort),
            Frame::Window(window) => self.up.set_window(window),
            Frame::Ping(Ping { id }) => peer.send_short(&Frame::Pong(Pong { id })),
            Frame::Pong(_) => {}
            Frame::Declare(declare) => self.calls.declare(declare.events),
            Frame::Error(error) => {
                tracing::warn!(code = %error.code, message = %error.message, frame = ?error.frame, "the node objects");
                if let Some(id) = error.id {
                    self.up.refused(id, &error.code, &error.message);
                }
            }
            Frame::Bye(_) => self.line.close(),
            Frame::Unknown(name) => peer.object("unknown_frame", "this version does not know it", &name, None),
            other @ (Frame::Subscribe(_) | Frame::Unsubscribe(_) | Frame::Missed(_)) => {
                peer.object("unsupported", "a worker takes no subscriptions", other.name(), None);
            }
            other => peer.object("out_of_order", "a worker does not expect this from its node", other.name(), None),
        }
    }

    fn call(&mut self, kind: Kind, call: CallFrame<'_>, frame: &Bytes, now: Instant, calls: &mut Vec<Call>) {
        let id = call.id;
        if let Err(wrong) = self.calls.check_number(id, kind) {
            return self.line.peer.object("out_of_order", wrong, "call", Some(id));
        }
        let refused = if self.line.is_closing() {
            RequestError::Stopping
        } else {
            let credit = call.credit.unwrap_or_default();
            match self.calls.delivery(kind, call, frame, now) {
                Ok(delivery) => {
                    let offer = (kind == Kind::Tunnel).then(|| self.tunnel(id, credit));
                    calls.push(Call { key: CallKey::new(id, kind), delivery, offer });
                    return;
                }
                Err(refused) => refused,
            }
        };
        if id != 0 {
            self.line.refuse(id, fault::from_request(&refused));
        }
    }

    fn tunnel(&self, id: u64, credit: Grant) -> Box<dyn edri_router::Offer> {
        let (offer, sender, receiver) = edri_router::from_elsewhere(edri_router::Window::default());
        self.line.peer.run_tunnel(id, Opener::There, receiver, sender, credit);
        offer
    }
}

/// Makes deliveries of calls.
struct Calls {
    handlers: Vec<(Pattern, Option<DescriptorRef>)>,
    /// Events that no handler names: those of patterns.
    others: HashMap<String, DescriptorRef>,
    node: Arc<Address>,
    /// The latest sender: the next event's is often the same.
    origin: (String, Arc<Address>),
    latest: u64,
}

impl Calls {
    fn new(hosted: &Hosted, node: Arc<Address>) -> Self {
        let known = |pattern: &Pattern| hosted.events.iter().find(|event| **event.name() == *pattern.as_str());
        let handlers = hosted.selections.iter().map(|wants| (wants.pattern.clone(), known(&wants.pattern).cloned()));
        let others = hosted.events.iter().map(|event| (event.name().to_string(), event.clone())).collect();
        Self { handlers: handlers.collect(), others, origin: (String::new(), Arc::clone(&node)), node, latest: 0 }
    }

    fn declare(&mut self, events: Vec<EventDeclaration>) {
        for event in events {
            match event.into_descriptor() {
                Ok(event) => drop(self.others.entry(event.name().to_string()).or_insert(event)),
                Err(error) => tracing::warn!(%error, "the node declares an event without a name"),
            }
        }
    }

    fn check_number(&mut self, id: u64, kind: Kind) -> Result<(), &'static str> {
        match id {
            0 if kind == Kind::Notification => Ok(()),
            0 => Err("only a `publish` may do without a number"),
            id if id % 2 == 1 => Err("a node numbers its calls 2, 4, 6"),
            id if id <= self.latest => Err("numbers of calls grow"),
            id => {
                self.latest = id;
                Ok(())
            }
        }
    }

    fn origin(&mut self, text: Option<Text<'_>>) -> Arc<Address> {
        let Some(text) = text else { return Arc::clone(&self.node) };
        if self.origin.0 != *text {
            let (node, manager) = text.split_once('/').unwrap_or((&text, ""));
            let node = NodeName::new(node).unwrap_or_else(|_| self.node.node.clone());
            let address = Address { node, manager: ManagerName::new(manager).ok(), incarnation: self.node.incarnation };
            self.origin = (text.to_string(), Arc::new(address));
        }
        Arc::clone(&self.origin.1)
    }

    /// What the event is, and whether its handler takes it.
    fn descriptor(&mut self, kind: Kind, name: &str, handler: u32) -> Result<DescriptorRef, RequestError> {
        let refused = |code: &'static str, message: String| RequestError::Elsewhere(Failure::new(code, message));
        let descriptor = match self.handlers.get(handler as usize) {
            Some((_, Some(descriptor))) if **descriptor.name() == *name => descriptor,
            Some((pattern, _)) if pattern.matches(name) => {
                if !self.others.contains_key(name) {
                    let wrong = |error: edri_events::NameError| refused("invalid_name", error.to_string());
                    let made = Descriptor::declare(name, kind).map_err(wrong)?.build();
                    self.others.insert(name.to_owned(), made);
                }
                &self.others[name]
            }
            _ => return Err(refused("no_handler", format!("no handler {handler} for `{name}` is here"))),
        };
        if descriptor.kind() != kind {
            let kind = descriptor.kind();
            return Err(refused("wrong_kind", format!("`{name}` is a {kind} in the worker's process")));
        }
        Ok(descriptor.clone())
    }

    fn delivery(
        &mut self,
        kind: Kind,
        mut call: CallFrame<'_>,
        frame: &Bytes,
        now: Instant,
    ) -> Result<Delivery, RequestError> {
        let mut head = Head::new(self.descriptor(kind, &call.event, call.handler)?, self.origin(call.origin.take()));
        carried::describe(&mut head, &mut call, now);
        let body =
            call.payload.map_or_else(|| carried::nothing(Encoding::MessagePack), |payload| payload.to_body(frame));
        let envelope = Envelope::untyped(head, body)?;
        let (attempts, redelivered) = (call.tried, call.redelivered);
        Ok(Delivery { envelope, reply: ReplyTo::None, handler: call.handler, attempts, redelivered, hold: None })
    }
}

/// Passes on what the worker says of itself.
#[derive(Debug)]
struct Reports(Arc<Peer>);

impl Listener for Reports {
    fn health(&self, health: &Health) {
        let health = match health {
            Health::Good => HealthFrame::Good,
            Health::Degraded(because) => HealthFrame::Degraded(because.as_str().into()),
            Health::Bad(because) => HealthFrame::Bad(because.as_str().into()),
        };
        self.0.send_short(&Frame::Report(Report { health: Some(health), ..Report::default() }));
    }

    fn figure(&self, name: &str, value: f64) {
        let figures = std::iter::once((Text::from(name), value)).collect();
        self.0.send_short(&Frame::Report(Report { figures, ..Report::default() }));
    }
}

#[cfg(test)]
mod tests;
