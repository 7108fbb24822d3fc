//! The life of one instance: started, events one by one, stopping; and how it ended.

mod desk;

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use edri_events::{Kind, ManagerName, Value};
use edri_router::traced::{self, Traced};
use edri_router::{Delivery, Ended, GroupRef, Reason, ReplyTo, RequestError, Router, WorkerState, WorkerStatus};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) use self::desk::{Desk, TURNS, attend};
use crate::process::{self, Introduced, ProcessPlan};
use crate::thread::Watched;
use crate::{Context, Factory, HandlerError, Outcome, Policy, shared, thread, turn};

/// How often an idempotent request is given to a worker when workers are lost over it.
const IDEMPOTENT_ATTEMPTS_MAX: u32 = 3;

/// What a manager tells its instances.
#[derive(Debug, Clone)]
pub struct Signals {
    /// Set once events may be taken.
    pub open: watch::Receiver<bool>,
    /// Set when the instance must end now, whatever it has in hand. Dropping the sender sets it too.
    pub kill: watch::Receiver<bool>,
}

/// One place for an instance: what it works on and for whom. It outlives the instances that sit there one after another.
#[derive(Debug)]
pub struct Seat {
    /// The node's router.
    pub router: Router,
    /// The group it works for.
    pub group: GroupRef,
    /// The group's manager.
    pub manager: ManagerName,
    /// The inbox it takes from.
    pub inbox: usize,
    /// What is known of it.
    pub status: Arc<WorkerStatus>,
    /// How it treats events.
    pub policy: Policy,
    /// What the manager tells it.
    pub signals: Signals,
    /// Events that the last instance had when it was lost, to be tried again first. A task or a thread has one at most.
    pub resume: Vec<Delivery>,
    /// Whether the order of its events is promised: it is alone, or has a partition of its own.
    pub ordered: bool,
    /// After so long without an event it ends, when it is one of those that come and go.
    pub idle: Option<Duration>,
}

/// How an instance ended.
#[derive(Debug)]
pub enum Exit {
    /// In good order: its inbox is closed and empty, and `stopping` has run.
    Finished,
    /// It was told to end at once.
    Killed,
    /// It had handled everything and was in `stopping`, which was cut because it did not return in time.
    StoppingCut,
    /// `started` failed or panicked. The events to be resumed come back.
    StartFailed(String, Vec<Delivery>),
    /// `started` failed for good: another instance would too. The events to be resumed come back.
    StartRefused(String, Vec<Delivery>),
    /// It panicked, or a handler took too long. Events that may be tried again come back; others have been settled.
    Lost {
        /// Why.
        reason: Reason,
        /// Why, in words.
        detail: String,
        /// The events to be tried again first by the next instance.
        resume: Vec<Delivery>,
    },
    /// It left by itself, in good order. The events that it had not begun come back.
    Left(Vec<Delivery>),
}

/// Runs one instance.
#[derive(Debug)]
pub struct Host;

impl Host {
    /// Runs an instance at `seat` until it ends. `ready` is told once `started` has succeeded.
    ///
    /// The future that comes back only waits; dropping it does not end the instance, [`Signals::kill`] does.
    #[must_use]
    pub fn spawn(work: Work, seat: Seat, ready: oneshot::Sender<()>) -> Pin<Box<dyn Future<Output = Exit> + Send>> {
        let runtime = seat.router.runtime().clone();
        match work {
            Work::Task(factory) => {
                let task = turn::Task::new(seat, |seat, turn| run(seat, factory, ready, Reach::Turn(turn)));
                Box::pin(joined(runtime.spawn(task)))
            }
            Work::Thread(factory) => Box::pin(thread::spawn(seat, factory, ready)),
            Work::Process(plan, introduced) => {
                Box::pin(joined(runtime.spawn(process::run(seat, plan, introduced, ready))))
            }
        }
    }
}

async fn joined(task: JoinHandle<Exit>) -> Exit {
    task.await.unwrap_or_else(|error| Exit::Lost {
        reason: Reason::WorkerLost,
        detail: format!("its task ended: {error}"),
        resume: Vec::new(),
    })
}

/// What an instance is made of, and where it runs.
pub enum Work {
    /// Made by the factory, as a task.
    Task(Factory),
    /// Made by the factory, on a thread of its own.
    Thread(Factory),
    /// A process; the one that has said hello already, or a new one.
    Process(Arc<ProcessPlan>, Option<Box<Introduced>>),
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Task(_) => "Task",
            Self::Thread(_) => "Thread",
            Self::Process(..) => "Process",
        })
    }
}

/// How an instance is reached from outside.
pub(crate) enum Reach {
    /// Not at all: its inbox is all it has.
    Alone,
    /// By those who take the turn of its task.
    Turn(Arc<turn::Shared>),
    /// By the one who watches its thread.
    Watched(Watched),
}

/// Ready once the signal is set, or nobody can set it any more.
pub(crate) async fn set(mut signal: watch::Receiver<bool>) {
    // An error says that the sender is gone.
    let _ = signal.wait_for(|set| *set).await;
}

/// As [`set`], for one who looks often: as long as nothing has changed and the same task asks, a look is one at a number.
struct Signalled {
    signal: watch::Receiver<bool>,
    set: BoxFuture<'static, ()>,
    /// Whom `set` wakes.
    waker: Option<Waker>,
}

impl Signalled {
    fn new(signal: &watch::Receiver<bool>) -> Self {
        Self { signal: signal.clone(), set: Box::pin(set(signal.clone())), waker: None }
    }
}

impl Future for Signalled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let same = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if same && self.signal.has_changed().is_ok_and(|changed| !changed) {
            return Poll::Pending;
        }
        let set = self.set.as_mut().poll(cx);
        self.waker = set.is_pending().then(|| cx.waker().clone());
        set
    }
}

/// The whole life of an instance.
pub(crate) async fn run(mut seat: Seat, factory: Factory, ready: oneshot::Sender<()>, reach: Reach) -> Exit {
    let mut cx = Context::new(&seat.router, &seat.group, &seat.manager, &seat.status);
    let mut kill = pin!(Signalled::new(&seat.signals.kill));
    let starting = async {
        let mut instance = factory();
        instance.started(&mut cx).await.map(|()| instance)
    };
    let started = tokio::select! {
        biased;
        () = &mut kill => {
            let resume = std::mem::take(&mut seat.resume);
            return killed(&seat, resume, "its worker was stopped while starting");
        }
        started = AssertUnwindSafe(starting).catch_unwind() => started,
    };
    let instance = match started {
        Ok(Ok(instance)) => instance,
        Ok(Err(failure)) if failure.is_for_good() => {
            return Exit::StartRefused(failure.to_string(), std::mem::take(&mut seat.resume));
        }
        Ok(Err(failure)) => return Exit::StartFailed(failure.to_string(), std::mem::take(&mut seat.resume)),
        Err(panic) => {
            return Exit::StartFailed(format!("panicked: {}", panic_text(&*panic)), std::mem::take(&mut seat.resume));
        }
    };
    seat.status.set_state(WorkerState::Running);
    // The manager may have stopped waiting; the kill signal says so.
    let _ = ready.send(());
    tokio::select! {
        biased;
        () = &mut kill => {
            let resume = std::mem::take(&mut seat.resume);
            return killed(&seat, resume, "its worker was stopped before its first event");
        }
        () = set(seat.signals.open.clone()) => {}
    }
    let mut desk = Desk::new(seat, cx, reach);
    let mut instance = instance;
    let ended = match shared::serve(&mut desk, &mut instance, kill.as_mut()).await {
        Some(exit) => desk.leave_rest(exit),
        None => Exit::Finished,
    };
    let ended = match ended {
        Exit::Finished => {
            let Desk { cx, .. } = &mut desk;
            let stopping = AssertUnwindSafe(instance.stopping(cx)).catch_unwind();
            tokio::select! {
                biased;
                stopped = stopping => {
                    if let Err(panic) = stopped {
                        let detail = panic_text(&*panic);
                        tracing::error!(manager = %desk.seat.manager, detail, "a worker panicked in `stopping`");
                    }
                    Exit::Finished
                }
                () = &mut kill => Exit::StoppingCut,
            }
        }
        lost => lost,
    };
    // How the instance ended may carry an event, which a panic here must not take with it.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(instance))) {
        let detail = panic_text(&*panic);
        tracing::error!(manager = %desk.seat.manager, detail, "a worker panicked when it was dropped");
    }
    ended
}

fn killed(seat: &Seat, resume: impl IntoIterator<Item = Delivery>, detail: &str) -> Exit {
    for delivery in resume {
        seat.router.discard(&seat.group, delivery, Reason::Stopped, detail);
        seat.status.set_in_hand(0);
    }
    Exit::Killed
}

/// What came of calling a handler.
pub(crate) enum Called {
    Done(Outcome),
    Panicked(String),
    TimeLimit(Duration),
    Killed,
    /// Whoever watches this thread gave it up and settled the event.
    GivenUp,
}

/// What is to be done about a delivery after a call.
pub(crate) enum Next {
    /// Nothing: it is settled.
    Settled,
    /// To be tried again after a pause.
    Again(Delivery, Duration),
    /// The instance is to end so.
    End(Exit),
}

/// Waits for a call that was not ready at once. Its time is limited as long as it does not rest.
pub(crate) async fn finish<R>(
    handling: impl Future<Output = R>,
    limit: Option<Duration>,
    resting: &AtomicBool,
    kill: impl Future<Output = ()>,
) -> Result<R, Called> {
    let (mut handling, mut kill) = (pin!(handling), pin!(kill));
    let mut timer = pin!(None);
    poll_fn(|cx| {
        if let Poll::Ready(done) = handling.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if kill.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Called::Killed));
        }
        let Some(limit) = limit.filter(|_| !resting.load(Ordering::Relaxed)) else { return Poll::Pending };
        if timer.is_none() {
            timer.set(Some(tokio::time::sleep(limit)));
        }
        let over = timer.as_mut().as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready());
        if over { Poll::Ready(Err(Called::TimeLimit(limit))) } else { Poll::Pending }
    })
    .await
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text").to_owned()
}

/// Whether the delivery is still worth handling; settles it when not.
#[inline]
pub(crate) fn begin(seat: &Seat, delivery: &mut Delivery) -> bool {
    delivery.attempts += 1;
    match delivery.ticket() {
        // A requester that gave up, or whose deadline passed, has freed its slot.
        Some(ticket) if !seat.router.is_wanted(ticket) => {
            seat.router.let_go(ticket);
            seat.status.count(Ended::Cancelled);
            seat.status.set_in_hand(0);
            false
        }
        Some(_) => true,
        None => match delivery.envelope.head().deadline {
            Some(deadline) if deadline <= Instant::now() => {
                let expired = Delivery { attempts: delivery.attempts - 1, ..shadow(delivery) };
                let detail = "its time to live ended before a worker took it";
                seat.router.discard(&seat.group, expired, Reason::Expired, detail);
                seat.status.set_in_hand(0);
                false
            }
            _ => true,
        },
    }
}

/// The same delivery, to be settled by somebody else; without the tunnel's end, which only one can have.
pub(crate) fn shadow(delivery: &Delivery) -> Delivery {
    Delivery {
        envelope: delivery.envelope.clone(),
        reply: match &delivery.reply {
            ReplyTo::None => ReplyTo::None,
            ReplyTo::Response(ticket) => ReplyTo::Response(*ticket),
            ReplyTo::Tunnel(ticket, _) => ReplyTo::Tunnel(*ticket, None),
        },
        hold: delivery.hold.clone(),
        ..*delivery
    }
}

/// Settles a delivery after a call, or says what else is to be done.
#[inline]
pub(crate) fn settle(seat: &Seat, delivery: Delivery, called: Called, deferred: &AtomicBool) -> Next {
    match called {
        Called::Done(Ok(value)) if !deferred.load(Ordering::Relaxed) => {
            succeed(seat, &delivery, value);
            Next::Settled
        }
        called => settle_rest(seat, delivery, called, deferred),
    }
}

/// As [`settle`], for all that is not a success.
fn settle_rest(seat: &Seat, delivery: Delivery, called: Called, deferred: &AtomicBool) -> Next {
    if deferred.load(Ordering::Relaxed) {
        // Whoever has the reply settles the delivery; an instance that was lost is lost all the same.
        return match called {
            Called::Panicked(text) => lost(seat, None, Reason::WorkerLost, format!("panicked: {text}")),
            Called::TimeLimit(limit) => lost(seat, None, Reason::TimeLimit, time_limit_text(limit)),
            Called::Killed => Next::End(Exit::Killed),
            Called::Done(Ok(_)) => {
                tracing::warn!(manager = %seat.manager, event = %delivery.envelope.name(),
                    "a handler took its reply along and returned a value too, which is ignored");
                Next::Settled
            }
            Called::Done(Err(_)) | Called::GivenUp => Next::Settled,
        };
    }
    match called {
        Called::Done(Ok(_)) | Called::GivenUp => Next::Settled,
        Called::Done(Err(HandlerError::Failed(failure))) => match delivery.ticket() {
            Some(ticket) => {
                seat.router.complete(ticket, Err(RequestError::Failed(failure)));
                seat.status.count(Ended::Failed);
                Next::Settled
            }
            None if delivery.attempts < seat.policy.retry.attempts => {
                seat.status.retried();
                let pause = seat.policy.retry.backoff.pause(delivery.attempts - 1);
                Next::Again(delivery, pause)
            }
            None => {
                seat.router.discard(&seat.group, delivery, Reason::Failed, &failure.to_string());
                Next::Settled
            }
        },
        Called::Done(Err(HandlerError::Invalid(error))) => {
            seat.router.discard(&seat.group, delivery, Reason::InvalidPayload, &error.to_string());
            Next::Settled
        }
        Called::Panicked(text) => lost(seat, Some(delivery), Reason::WorkerLost, format!("panicked: {text}")),
        Called::TimeLimit(limit) => lost(seat, Some(delivery), Reason::TimeLimit, time_limit_text(limit)),
        Called::Killed => Next::End(killed(seat, Some(delivery), "its worker was stopped while handling it")),
    }
}

pub(crate) fn time_limit_text(limit: Duration) -> String {
    format!("the handler took longer than its limit of {limit:?}")
}

/// Settles a delivery that was handled well.
#[inline]
pub(crate) fn succeed(seat: &Seat, delivery: &Delivery, value: Value) {
    if let Some(ticket) = delivery.ticket() {
        // A requester that is gone by now is counted by the router.
        seat.router.complete(ticket, Ok(value));
    }
    seat.status.count(Ended::Handled);
}

/// The instance is lost; so is the delivery in its hands, unless it may be tried again.
pub(crate) fn lost(seat: &Seat, delivery: Option<Delivery>, reason: Reason, detail: String) -> Next {
    let resume: Vec<_> =
        delivery.and_then(|delivery| may_try_again(seat, delivery, reason, &detail)).into_iter().collect();
    if resume.is_empty() {
        seat.status.set_in_hand(0);
    }
    Next::End(Exit::Lost { reason, detail, resume })
}

/// The delivery marked as redelivered, if its kind and the policy allow another try; otherwise it is settled.
pub(crate) fn may_try_again(seat: &Seat, mut delivery: Delivery, reason: Reason, detail: &str) -> Option<Delivery> {
    let descriptor = &delivery.envelope.head().descriptor;
    let attempts = seat.policy.retry.attempts;
    let most = match descriptor.kind() {
        Kind::Notification => attempts,
        Kind::Request if descriptor.is_idempotent() => attempts.max(IDEMPOTENT_ATTEMPTS_MAX),
        Kind::Request | Kind::Tunnel => 1,
    };
    if delivery.attempts < most {
        seat.status.retried();
        delivery.redelivered = true;
        return Some(delivery);
    }
    seat.router.discard(&seat.group, delivery, reason, detail);
    None
}

/// Times the events that were stamped when they were sent, and has the span of the handling.
#[derive(Default)]
pub(crate) struct Timer {
    times: Option<(Instant, Instant)>,
    traced: Traced,
}

impl Timer {
    #[inline]
    pub(crate) fn start(delivery: &Delivery) -> Self {
        let times = delivery.envelope.head().stamped.map(|sent| (sent, Instant::now()));
        Self { times, traced: traced::handle(&delivery.envelope) }
    }

    #[inline]
    pub(crate) fn stop(&mut self, status: &WorkerStatus) -> Option<Duration> {
        self.traced = Traced::default();
        let (sent, begun) = self.times.take()?;
        let handling = begun.elapsed();
        status.timed(begun.saturating_duration_since(sent), handling);
        Some(handling)
    }
}
