//! The life of one process instance, seen from the node: hello, events in its hands, its calls, its end.
//!
//! One task does it all: it takes deliveries out of the inbox as far as the process's window goes, writes and reads frames,
//! watches the clock, and says how each delivery ended.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use edri_events::{Failure, Kind, Value};
use edri_protocol::{
    Ack, Bye, Cancel, Declare, Frame, FrameError, PREFIX_BYTES, Ping, Pong, Response, VERSION, Welcome, Window, first,
    limits,
};
use edri_router::{Bus, Delivery, InboxConsumer, Reason, ReplyTo, WorkerState};
use futures_util::task::AtomicWaker;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::calls::Calls;
use super::carried::{self, Outgoing};
use super::fault::{self, Refused, START_REFUSED};
use super::flights::Flights;
use super::introduce::Introduced;
use super::launch::Running;
use super::options::ProcessPlan;
use super::peer::Peer;
use crate::host::{Called, Exit, Next, Seat, Timer, begin, may_try_again, set, settle, succeed};
use crate::instance::HandlerError;

mod end;

/// How many of the worker's own calls may be open at once.
const CALLS_MAX: u32 = 1024;
/// The most bytes that wait for a process to read them, beyond what its window allows.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// How long what a process wrote before its end may take to be read.
const LAST_FRAMES: Duration = Duration::from_millis(100);
/// The most bytes read before other things have their turn.
const READ_TURN_BYTES: usize = 256 << 10;
/// The payload of a frame of at most so many bytes is copied out of what was read, which can then be read into again. That
/// of a longer one stays where it is.
const COPIED_BYTES_MAX: usize = 1024;

/// An event in the process's hands.
struct Flight {
    delivery: Delivery,
    timer: Timer,
    cancelled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its own `started` is running.
    Starting,
    /// It has started and may not take events yet.
    Waiting,
    /// It takes events.
    Serving,
    /// Its inbox has ended, or it was idle for long: what it has in hand is finished.
    Finishing,
    /// It was told that nothing more comes.
    Leaving,
}

/// Why the loop ended.
enum Over {
    /// It has ended, or has closed its socket, or is no use any more; why, when it is not its exit that tells.
    Gone(Option<String>),
    /// It said bye; and why, when it should not have.
    Bye(Option<String>),
    /// It said bye because it cannot start, now or ever.
    Refused(String),
    /// A handler took too long.
    TimeLimit(u64, Duration),
    /// It is to end at once.
    Killed,
}

struct ProcessHost {
    seat: Seat,
    plan: Arc<ProcessPlan>,
    running: Running,
    socket: UnixStream,
    read: BytesMut,
    out: Vec<u8>,
    written: usize,
    peer: Arc<Peer>,
    calls: Calls,
    outgoing: Outgoing,
    consumer: Option<InboxConsumer>,
    phase: Phase,
    flights: Flights<Flight>,
    window: Window,
    sequential: bool,
    says_begun: bool,
    /// Offered again before anything else. What is marked as redelivered may have ended a process, and goes alone.
    resume: VecDeque<Delivery>,
    alone: bool,
    /// Whether what is tried again comes before all that follows it.
    keeps_order: bool,
    /// Failed, to be tried again at that time.
    resting: Vec<(Instant, Delivery)>,
    /// Lost to a panic that the process told of; its end follows.
    panicked: Vec<Delivery>,
    unwanted: Arc<Unwanted>,
    unwanted_waker: Waker,
    pinged: Option<Instant>,
    busy: Instant,
    /// When this turn of the loop began, or what it waited for came.
    now: Instant,
}

/// Runs one process instance until it ends.
pub(crate) async fn run(
    mut seat: Seat,
    plan: Arc<ProcessPlan>,
    introduced: Option<Box<Introduced>>,
    ready: oneshot::Sender<()>,
) -> Exit {
    let mut kill = pin!(set(seat.signals.kill.clone()));
    let runtime = seat.router.runtime().clone();
    let introduced = match introduced {
        Some(introduced) => *introduced,
        None => {
            let launch = Introduced::launch(&plan.process, &seat.manager, seat.status.index(), &runtime);
            let launched = tokio::select! {
                biased;
                () = &mut kill => return killed_before(&mut seat),
                launched = launch => launched,
            };
            match launched {
                Ok(introduced) => introduced,
                Err(wrong) => return Exit::StartFailed(wrong, std::mem::take(&mut seat.resume)),
            }
        }
    };
    if let Err(wrong) = introduced.check(&plan.selects) {
        return Exit::StartFailed(wrong, std::mem::take(&mut seat.resume));
    }
    let Introduced { running, socket, read, encoding, window, sequential, .. } = introduced;
    let peer = Peer::new(encoding, limits::FRAME_BYTES_MAX, runtime);
    let relay = seat.router.relay(&seat.manager, Arc::clone(&seat.status));
    let (unwanted, now) = (Arc::new(Unwanted::default()), Instant::now());
    let keeps_order = seat.ordered && seat.policy.retry.attempts > 1;
    let mut host = ProcessHost {
        keeps_order,
        calls: Calls::new(relay, Arc::clone(&peer), CALLS_MAX),
        window: plan.window(window, keeps_order),
        resume: std::mem::take(&mut seat.resume).into(),
        unwanted_waker: Waker::from(Arc::clone(&unwanted)),
        seat,
        plan,
        running,
        socket,
        read,
        out: Vec::new(),
        written: 0,
        peer,
        outgoing: Outgoing::default(),
        consumer: None,
        phase: Phase::Starting,
        flights: Flights::new(2, now),
        sequential,
        says_begun: false,
        alone: false,
        resting: Vec::new(),
        panicked: Vec::new(),
        unwanted,
        pinged: None,
        busy: now,
        now,
    };
    if let Err(wrong) = host.welcome() {
        return Exit::StartFailed(wrong, host.resume.into());
    }
    host.seat.status.set_pid(Some(host.running.pid));
    let status = Arc::clone(&host.seat.status);
    let mut ready = Some(ready);
    let over = host.serve(&mut ready, kill.as_mut()).await;
    let exit = host.end(over, ready.is_some(), kill).await;
    status.set_pid(None);
    exit
}

fn killed_before(seat: &mut Seat) -> Exit {
    for delivery in std::mem::take(&mut seat.resume) {
        seat.router.discard(&seat.group, delivery, Reason::Stopped, "its worker was stopped while starting");
    }
    seat.status.set_in_hand(0);
    Exit::Killed
}

impl ProcessHost {
    fn welcome(&mut self) -> Result<(), String> {
        let address = self.seat.router.bus().address().clone();
        let incarnation = address.incarnation.to_string();
        let arguments = carried::arguments(self.plan.arguments.as_ref(), self.peer.encoding());
        let arguments = arguments.map_err(|error| format!("its arguments: {error}"))?;
        let welcome = Welcome {
            version: VERSION,
            node: address.node.as_str().into(),
            incarnation: incarnation.as_str().into(),
            manager: Some(self.seat.manager.as_str().into()),
            instance: u32::try_from(self.seat.status.index()).unwrap_or(u32::MAX),
            silence_ms: self.plan.process.silence.as_millis() as u64,
            frame_bytes_max: limits::FRAME_BYTES_MAX as u64,
            window: Window { calls: CALLS_MAX, ..Window::default() },
            arguments: arguments.as_ref().map(edri_protocol::Payload::of),
            session: None,
        };
        self.peer.send(&Frame::Welcome(welcome)).map_err(|error| format!("its welcome: {error}"))
    }

    // ---- the loop --------------------------------------------------------------------------------------------------

    async fn serve(
        &mut self,
        ready: &mut Option<oneshot::Sender<()>>,
        mut kill: Pin<&mut impl Future<Output = ()>>,
    ) -> Over {
        let tick = self.tick();
        let mut clock = pin!(tokio::time::sleep(tick));
        let mut open = Box::pin(set(self.seat.signals.open.clone()));
        loop {
            self.now = Instant::now();
            self.fill();
            if let Err(over) = self.write() {
                return over;
            }
            tokio::select! {
                biased;
                () = &mut kill => return Over::Killed,
                // What it wrote before its end is read first.
                readable = self.socket.readable() => {
                    let read = match readable {
                        Ok(()) => self.read(ready).await,
                        Err(error) => Err(broken(&error)),
                    };
                    if let Err(over) = read {
                        return over;
                    }
                }
                _ = self.running.ended() => return self.last_frames(ready).await,
                _ = self.socket.ready(Interest::WRITABLE), if !self.out.is_empty() => {}
                // What waits while the socket takes no more is looked at when it does.
                () = self.peer.output(), if self.out.is_empty() => {}
                () = self.unwanted.any() => self.cancel_unwanted(),
                () = self.calls.settled(), if !self.calls.is_empty() => {}
                taken = next(&mut self.consumer), if self.phase == Phase::Serving && self.may_take() => match taken {
                    Some(delivery) => {
                        // It may have been long in coming.
                        self.now = Instant::now();
                        self.send(delivery);
                    }
                    None => self.phase = Phase::Finishing,
                },
                () = &mut open, if self.phase == Phase::Waiting => {
                    self.phase = Phase::Serving;
                    self.busy = Instant::now();
                    self.consumer = Some(self.seat.group.consume(self.seat.inbox));
                }
                () = &mut clock => {
                    if let Err(over) = self.look_at_the_clock() {
                        return over;
                    }
                    clock.as_mut().reset(tokio::time::Instant::now() + tick);
                }
            }
            // One that is due already waits for room, which an answer makes.
            let next = self.resting.iter().map(|(due, _)| *due).filter(|due| *due > self.now).min();
            if let Some(due) = next.map(tokio::time::Instant::from_std).filter(|due| *due < clock.deadline()) {
                clock.as_mut().reset(due);
            }
        }
    }

    /// How often the clock is looked at: limits are kept to a tenth.
    fn tick(&self) -> Duration {
        let mut tick = self.plan.process.silence / 10;
        if let Some(limit) = self.seat.policy.time_limit {
            tick = tick.min(limit / 10);
        }
        if let Some(idle) = self.seat.idle {
            tick = tick.min(idle / 10);
        }
        tick.max(Duration::from_millis(5))
    }

    fn may_take(&self) -> bool {
        self.resume.is_empty() && !self.holds() && self.flights.has_room(self.window)
    }

    /// Whether nothing new may go to the process: what may have ended another has to be alone, and what failed holds up
    /// those behind it where their order is promised.
    fn holds(&self) -> bool {
        self.alone || (self.keeps_order && !self.resting.is_empty())
    }

    /// Gives the process what it may have.
    fn fill(&mut self) {
        if self.phase == Phase::Serving || self.phase == Phase::Finishing {
            while let Some(front) = self.resume.front() {
                let may = if front.redelivered { self.flights.is_empty() } else { self.flights.has_room(self.window) };
                if self.holds() || !may {
                    break;
                }
                if let Some(delivery) = self.resume.pop_front() {
                    let suspect = delivery.redelivered;
                    self.send(delivery);
                    self.alone = suspect && !self.flights.is_empty();
                }
            }
        }
        self.send_rested();
        if self.phase == Phase::Serving && self.may_take() {
            while self.flights.has_room(self.window) {
                match self.consumer.as_mut().and_then(InboxConsumer::try_next) {
                    Some(delivery) => self.send(delivery),
                    None => break,
                }
            }
            if let Some(consumer) = &mut self.consumer {
                consumer.give_back();
            }
        }
        self.count_in_hand();
        if self.phase == Phase::Finishing && self.in_hand() == 0 {
            self.phase = Phase::Leaving;
            self.peer.send_short(&Frame::Bye(Bye::default()));
        }
    }

    /// Tries again what has rested, as far as there is room.
    fn send_rested(&mut self) {
        while self.flights.has_room(self.window)
            && !self.alone
            && let Some(index) = self.resting.iter().position(|(due, _)| *due <= self.now)
        {
            let (_, delivery) = self.resting.swap_remove(index);
            self.send(delivery);
        }
    }

    fn in_hand(&self) -> usize {
        self.flights.len() + self.resume.len() + self.resting.len() + self.panicked.len()
    }

    fn count_in_hand(&self) {
        self.seat.status.set_in_hand(self.in_hand());
    }

    /// Gives one event to the process.
    fn send(&mut self, mut delivery: Delivery) {
        if !begin(&self.seat, &mut delivery) {
            return;
        }
        let number = self.flights.next_number();
        match self.outgoing.send(&self.peer, number, &mut delivery, self.now) {
            Ok(bytes) => {
                if let Some(ticket) = delivery.ticket() {
                    let mut cx = Context::from_waker(&self.unwanted_waker);
                    if self.seat.router.poll_unwanted(ticket, &mut cx).is_ready() {
                        self.unwanted.flag.store(true, Ordering::Release);
                    }
                }
                let timer = Timer::start(&delivery);
                self.flights.add(Flight { delivery, timer, cancelled: false }, bytes);
            }
            Err(wrong) => {
                self.seat.router.discard(&self.seat.group, delivery, Reason::InvalidPayload, &wrong);
            }
        }
    }

    // ---- frames ----------------------------------------------------------------------------------------------------

    fn write(&mut self) -> Result<(), Over> {
        loop {
            if self.out.is_empty() && !self.peer.take_output(&mut self.out) {
                return Ok(());
            }
            match self.socket.try_write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                // It may have ended in good order; what it wrote before tells.
                Err(_) => {
                    self.out.clear();
                    self.written = 0;
                    return Ok(());
                }
            }
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
            }
        }
    }

    /// The process has ended; that can be known before it is known that its last frames are there to be read.
    async fn last_frames(&mut self, ready: &mut Option<oneshot::Sender<()>>) -> Over {
        let read = async {
            loop {
                self.socket.readable().await.map_err(|error| broken(&error))?;
                self.read(ready).await?;
            }
        };
        // A process of its own may keep the socket open.
        match tokio::time::timeout(LAST_FRAMES, read).await {
            Ok(Err::<Infallible, _>(over)) => over,
            Err(_) => Over::Gone(None),
        }
    }

    async fn read(&mut self, ready: &mut Option<oneshot::Sender<()>>) -> Result<(), Over> {
        let mut turn = 0;
        while turn < READ_TURN_BYTES {
            self.read.reserve(64 << 10);
            match self.socket.try_read_buf(&mut self.read) {
                Ok(0) => return Err(Over::Gone(None)),
                Ok(count) => turn += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(broken(&error)),
            }
            self.now = Instant::now();
            self.frames(ready).await?;
            if self.peer.output_bytes() + self.out.len() > OUTPUT_BYTES_MAX {
                return Err(Over::Gone(Some("it does not read what it is sent".to_owned())));
            }
        }
        Ok(())
    }

    /// Takes the whole frames that have been read.
    async fn frames(&mut self, ready: &mut Option<oneshot::Sender<()>>) -> Result<(), Over> {
        // Apart, so that a frame can be taken where it is.
        let mut read = std::mem::take(&mut self.read);
        let none = Bytes::new();
        let taken = loop {
            let taken = match first(&read, limits::FRAME_BYTES_MAX) {
                Ok(None) => break Ok(()),
                Ok(Some(bytes)) if bytes.len() <= COPIED_BYTES_MAX => {
                    let next = PREFIX_BYTES + bytes.len();
                    let taken = self.frame(bytes, &none, ready).await;
                    read.advance(next);
                    taken
                }
                Ok(Some(bytes)) => {
                    let next = bytes.len();
                    read.advance(PREFIX_BYTES);
                    let bytes = read.split_to(next).freeze();
                    self.frame(&bytes, &bytes, ready).await
                }
                Err(error) => Err(self.refuse(&error)),
            };
            if taken.is_err() {
                break taken;
            }
        };
        self.read = read;
        taken
    }

    fn refuse(&self, error: &FrameError) -> Over {
        self.peer.object(error.code(), &error.to_string(), "", None);
        Over::Gone(Some(format!("it sent what is no frame: {error}")))
    }

    /// Takes a frame. Payloads share the memory of `whole` if that is where the frame is.
    async fn frame(
        &mut self,
        frame: &[u8],
        whole: &Bytes,
        ready: &mut Option<oneshot::Sender<()>>,
    ) -> Result<(), Over> {
        let frame = Frame::decode(frame).map_err(|error| self.refuse(&error))?;
        match frame {
            Frame::Ack(ack) => self.ack(&ack),
            Frame::Response(response) => self.response(response, whole),
            Frame::Publish(call) => self.calls.publish(&call, whole),
            Frame::Request(call) => self.calls.request(&call, whole),
            Frame::Open(call) => self.calls.open(&call, whole),
            Frame::Cancel(cancel) => self.calls.cancel(cancel.id),
            Frame::Data(data) => self.peer.data(&data, whole),
            Frame::Credit(credit) => self.peer.credit(&credit),
            Frame::End(end) => self.peer.end(&end),
            Frame::Abort(abort) => self.peer.abort(&abort),
            Frame::Pong(_) => self.pinged = None,
            Frame::Ping(ping) => {
                self.peer.send_short(&Frame::Pong(Pong { id: ping.id }));
            }
            Frame::Window(window) => self.window = self.plan.window(window, self.keeps_order),
            Frame::Declare(events) => declare(self.seat.router.bus(), Arc::clone(&self.peer), events).await,
            Frame::Log(log) => self.log(&log),
            Frame::Report(report) => carried::report(&self.seat.status, report),
            Frame::Error(notice) => {
                let (manager, instance) = (&self.seat.manager, self.seat.status.index());
                tracing::warn!(%manager, instance, code = %notice.code, message = %notice.message, "a process worker objects");
            }
            Frame::Ready(_) => match ready.take() {
                Some(tell) => {
                    self.seat.status.set_state(WorkerState::Running);
                    self.phase = Phase::Waiting;
                    // The manager may have stopped waiting; the kill signal says so.
                    let _ = tell.send(());
                }
                None => self.peer.object("out_of_order", "`ready` is said once", "ready", None),
            },
            Frame::Bye(Bye { error: Some(error) })
                if &*error.code == START_REFUSED && self.phase == Phase::Starting =>
            {
                return Err(Over::Refused(error.message.into_owned()));
            }
            Frame::Bye(bye) => return Err(Over::Bye(bye.error.map(|error| fault::text(&error)))),
            Frame::Unknown(name) => {
                self.peer.object("unknown_frame", &format!("no frame `{name}` in version {VERSION}"), &name, None);
            }
            Frame::Subscribe(_) | Frame::Unsubscribe(_) | Frame::Missed(_) => {
                let advice = "a process worker does not subscribe: it handles events";
                self.peer.object("unsupported", advice, frame.name(), None);
            }
            other => self.peer.object("out_of_order", "this frame has no place here", other.name(), None),
        }
        Ok(())
    }

    fn ack(&mut self, ack: &Ack) {
        for number in &ack.done {
            if let Some(flight) = self.land(*number) {
                self.settle(flight, Ok(Value::typed(())));
            }
        }
        if let Some(begun) = ack.begun {
            self.says_begun = true;
            self.flights.begin(begun, Instant::now());
        }
    }

    fn response(&mut self, response: Response<'_>, bytes: &Bytes) {
        let Some(flight) = self.land(response.id) else { return };
        let value = response.value.as_ref().map(|value| Value::from(value.to_body(bytes)));
        match Refused::of(response) {
            None => self.settle(flight, Ok(value.unwrap_or_else(|| Value::typed(())))),
            Some(Refused::Failure(fault)) => self.settle(flight, Err(fault::to_failure(fault))),
            // The process was lost over it and is about to say so with its end.
            Some(Refused::Error(fault)) if fault.code == "worker_lost".into() => {
                self.lose(flight.delivery, Reason::WorkerLost, &fault.message);
            }
            Some(Refused::Error(fault)) if fault.code == "timed_out".into() && flight.delivery.ticket().is_none() => {
                let detail = "its time to live ended before its process handled it";
                self.seat.router.discard(&self.seat.group, flight.delivery, Reason::Expired, detail);
            }
            Some(Refused::Error(fault)) => self.settle(flight, Err(fault::to_failure(fault))),
        }
    }

    /// Takes an answered event out of the process's hands.
    fn land(&mut self, number: u64) -> Option<Flight> {
        let Some(flight) = self.flights.take(number, self.now) else {
            self.peer.object("unknown_call", "no call of this number is open", "response", Some(number));
            return None;
        };
        self.busy = self.now;
        if self.flights.is_empty() {
            self.alone = false;
        }
        if let ReplyTo::Tunnel(..) = flight.delivery.reply {
            self.peer.tunnel_over(number);
        }
        Some(flight)
    }

    fn settle(&mut self, flight: Flight, result: Result<Value, Failure>) {
        let Flight { delivery, mut timer, .. } = flight;
        timer.stop(&self.seat.status);
        let failure = match result {
            Ok(value) => return succeed(&self.seat, &delivery, value),
            Err(failure) => failure,
        };
        let is_notification = delivery.envelope.head().descriptor.kind() == Kind::Notification;
        if is_notification && failure.code() == "invalid_payload" {
            self.seat.router.discard(&self.seat.group, delivery, Reason::InvalidPayload, failure.text());
            return;
        }
        let called = Called::Done(Err(HandlerError::Failed(failure)));
        match settle(&self.seat, delivery, called, &AtomicBool::new(false)) {
            Next::Again(delivery, pause) => self.resting.push((Instant::now() + pause, delivery)),
            Next::Settled | Next::End(_) => {}
        }
    }

    /// An event that a worker was lost over has used up an attempt.
    fn lose(&mut self, delivery: Delivery, reason: Reason, detail: &str) {
        if let Some(delivery) = may_try_again(&self.seat, delivery, reason, detail) {
            self.panicked.push(delivery);
        }
    }

    fn cancel_unwanted(&mut self) {
        let Self { flights, seat, peer, .. } = self;
        for (number, flight) in flights.iter_mut() {
            let ticket = flight.delivery.ticket();
            if !flight.cancelled && ticket.is_some_and(|ticket| !seat.router.is_wanted(ticket)) {
                flight.cancelled = true;
                peer.tunnel_over(number);
                peer.send_short(&Frame::Cancel(Cancel { id: number }));
            }
        }
    }

    // ---- the clock -------------------------------------------------------------------------------------------------

    fn look_at_the_clock(&mut self) -> Result<(), Over> {
        let now = Instant::now();
        let silence = self.plan.process.silence;
        match self.pinged {
            Some(pinged) if now - pinged > silence => {
                return Err(Over::Gone(Some(format!("it has not answered for {silence:?}: it hangs, or was stopped"))));
            }
            Some(_) => {}
            None => {
                self.pinged = Some(now);
                self.peer.send_short(&Frame::Ping(Ping::default()));
            }
        }
        if let Some(limit) = self.seat.policy.time_limit
            && let Some((number, lasted)) = self.flights.oldest(self.sequential, self.says_begun, now)
            && lasted > limit
        {
            return Err(Over::TimeLimit(number, limit));
        }
        let is_idle = self.phase == Phase::Serving && self.in_hand() == 0 && self.calls.is_empty();
        if let (true, Some(idle)) = (is_idle, self.seat.idle)
            && now - self.busy > idle
        {
            self.consumer = None;
            self.phase = Phase::Finishing;
        }
        Ok(())
    }
}

fn broken(error: &std::io::Error) -> Over {
    match error.kind() {
        // It ended without having read everything; how it ended says more.
        std::io::ErrorKind::ConnectionReset => Over::Gone(None),
        _ => Over::Gone(Some(format!("its socket broke: {error}"))),
    }
}

/// Makes events known that a process is about to use, before it does.
async fn declare(bus: Bus, peer: Arc<Peer>, declare: Declare) {
    for event in declare.events {
        let name = event.name.clone();
        let declared = match event.into_descriptor() {
            Ok(descriptor) => bus.declare(descriptor).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = declared {
            peer.object(error.code(), &format!("`{name}`: {error}"), "declare", None);
        }
    }
}

async fn next(consumer: &mut Option<InboxConsumer>) -> Option<Delivery> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

/// Tells the host that some requester waits no more, without saying which: that is rare and looked up then.
#[derive(Default)]
struct Unwanted {
    flag: AtomicBool,
    host: AtomicWaker,
}

impl Unwanted {
    async fn any(&self) {
        std::future::poll_fn(|cx| {
            self.host.register(cx.waker());
            if self.flag.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Wake for Unwanted {
    fn wake(self: Arc<Self>) {
        self.flag.store(true, Ordering::Release);
        self.host.wake();
    }
}
