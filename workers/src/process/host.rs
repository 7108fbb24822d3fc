//! The life of one process instance, seen from the node: hello, events in its hands, its calls, its end.
//!
//! One task does it all: it takes deliveries out of the inbox as far as the process's window goes, writes and reads frames,
//! watches the clock, and says how each delivery ended.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use edri_protocol::{Bye, Frame, Ping, VERSION, Welcome, Window, limits};
use edri_router::{Delivery, InboxConsumer, Reason};
use futures_util::task::AtomicWaker;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::calls::Calls;
use super::carried::{self, Outgoing};
use super::flights::Flights;
use super::introduce::Introduced;
use super::launch::Running;
use super::options::ProcessPlan;
use super::output::Flood;
use super::peer::Peer;
use super::remote::Bounds;
use crate::host::{Exit, Seat, Timer, begin, set};

mod end;
mod frames;

use frames::broken;

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
    /// None of one that was not started from here.
    running: Option<Running>,
    /// Of one that is not trusted.
    bounds: Option<Box<Bounds>>,
    /// What it says in the node's log, and what the node says of it.
    flood: Flood,
    /// How many of its frames were wrong since then.
    bad: (Instant, u32),
    declared: usize,
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
    let Introduced { running, mut bounds, socket, read, encoding, window, sequential, .. } = introduced;
    let peer = Peer::new(encoding, limits::FRAME_BYTES_MAX, runtime);
    let relay = seat.router.relay(&seat.manager, Arc::clone(&seat.status));
    let (most, admit) = match &mut bounds {
        Some(bounds) => (bounds.calls, Some(std::mem::replace(&mut bounds.admit, Box::new(|_, _, _| Ok(()))))),
        None => (CALLS_MAX, None),
    };
    let (unwanted, now) = (Arc::new(Unwanted::default()), Instant::now());
    let keeps_order = seat.ordered && seat.policy.retry.attempts > 1;
    let mut host = ProcessHost {
        keeps_order,
        calls: Calls::new(relay, Arc::clone(&peer), most, admit),
        window: plan.window(window, keeps_order),
        resume: std::mem::take(&mut seat.resume).into(),
        unwanted_waker: Waker::from(Arc::clone(&unwanted)),
        seat,
        plan,
        running,
        bounds,
        flood: Flood::new(now),
        bad: (now, 0),
        declared: 0,
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
    host.seat.status.set_pid(host.running.as_ref().map(|running| running.pid));
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
        let bounds = self.bounds.as_ref().map(|bounds| (bounds.calls, bounds.frame_bytes));
        let (calls, frame_bytes) = bounds.unwrap_or((CALLS_MAX, limits::FRAME_BYTES_MAX));
        let welcome = Welcome {
            version: VERSION,
            node: address.node.as_str().into(),
            incarnation: incarnation.as_str().into(),
            manager: Some(self.seat.manager.as_str().into()),
            instance: u32::try_from(self.seat.status.index()).unwrap_or(u32::MAX),
            silence_ms: self.plan.process.silence.as_millis() as u64,
            frame_bytes_max: frame_bytes as u64,
            window: Window { calls, ..Window::default() },
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
                _ = ended(&mut self.running) => return self.last_frames(ready).await,
                _ = self.socket.ready(Interest::WRITABLE), if !self.out.is_empty() => {}
                // What waits while the socket takes no more is looked at when it does.
                () = self.peer.output(), if self.out.is_empty() => {}
                () = self.unwanted.any() => self.cancel_unwanted(),
                () = left_over(&self.plan), if self.phase == Phase::Serving && self.may_take() => {}
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
            while let Some(front) = self.next_of_others() {
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

    /// What is to be tried again before anything new, of this worker's place or of others.
    fn next_of_others(&mut self) -> Option<&Delivery> {
        if self.resume.is_empty()
            && !self.holds()
            && self.flights.has_room(self.window)
            && let Some(leftovers) = &self.plan.leftovers
        {
            self.resume.extend(leftovers.take(&self.seat.group));
        }
        self.resume.front()
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

/// Waits for the end of a process; for ever when there is none.
async fn ended(running: &mut Option<Running>) -> ExitStatus {
    match running {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}

/// Ready once others have left something.
async fn left_over(plan: &ProcessPlan) {
    match &plan.leftovers {
        Some(leftovers) => leftovers.any().await,
        None => std::future::pending().await,
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
