//! The life of one instance: started, events one by one, stopping; and how it ended.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use edri_events::{Kind, ManagerName, Value};
use edri_router::{
    Delivery, Ended, GroupRef, InboxConsumer, Reason, ReplyTo, RequestError, Router, WorkerState, WorkerStatus,
};
use futures_util::FutureExt;
use tokio::sync::{oneshot, watch};

use crate::instance::Instance;
use crate::thread::Watched;
use crate::{Context, Factory, HandlerError, Outcome, Placement, Policy, shared, thread};

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
    /// An event that the last instance was lost over, to be tried again first.
    pub resume: Option<Delivery>,
}

/// How an instance ended.
#[derive(Debug)]
pub enum Exit {
    /// In good order: its inbox is closed and empty, and `stopping` has run.
    Finished,
    /// It was told to end at once.
    Killed,
    /// `started` failed or panicked. The event to be resumed, if there was one, comes back.
    StartFailed(String, Option<Delivery>),
    /// It panicked, or a handler took too long. An event that may be tried again comes back; another has been settled.
    Lost {
        /// Why.
        reason: Reason,
        /// Why, in words.
        detail: String,
        /// The event to be tried again first by the next instance.
        resume: Option<Delivery>,
    },
}

/// Runs one instance.
#[derive(Debug)]
pub struct Host;

impl Host {
    /// Runs an instance at `seat` until it ends. `ready` is told once `started` has succeeded.
    ///
    /// The future that comes back only waits; dropping it does not end the instance, [`Signals::kill`] does.
    #[must_use]
    pub fn spawn(
        placement: Placement,
        seat: Seat,
        factory: Factory,
        ready: oneshot::Sender<()>,
    ) -> Pin<Box<dyn Future<Output = Exit> + Send>> {
        match placement {
            Placement::Task => {
                let runtime = seat.router.runtime().clone();
                let task = runtime.spawn(run(seat, factory, ready, None));
                Box::pin(async move {
                    task.await.unwrap_or_else(|error| Exit::Lost {
                        reason: Reason::WorkerLost,
                        detail: format!("its task ended: {error}"),
                        resume: None,
                    })
                })
            }
            Placement::Thread => Box::pin(thread::spawn(seat, factory, ready)),
            Placement::Process => {
                Box::pin(
                    async move { Exit::StartFailed("workers in processes are not built yet".to_owned(), seat.resume) },
                )
            }
        }
    }
}

/// Ready once the signal is set, or nobody can set it any more.
pub(crate) async fn set(mut signal: watch::Receiver<bool>) {
    // An error says that the sender is gone.
    let _ = signal.wait_for(|set| *set).await;
}

/// The whole life of an instance.
pub(crate) async fn run(
    mut seat: Seat,
    factory: Factory,
    ready: oneshot::Sender<()>,
    watched: Option<Watched>,
) -> Exit {
    let mut cx = Context::new(&seat.router, &seat.group, &seat.manager, &seat.status);
    let mut kill = pin!(set(seat.signals.kill.clone()));
    let starting = async {
        let mut instance = factory();
        instance.started(&mut cx).await.map(|()| instance)
    };
    let started = tokio::select! {
        biased;
        () = &mut kill => {
            let resume = seat.resume.take();
            return killed(&seat, resume, "its worker was stopped while starting");
        }
        started = AssertUnwindSafe(starting).catch_unwind() => started,
    };
    let instance = match started {
        Ok(Ok(instance)) => instance,
        Ok(Err(failure)) => return Exit::StartFailed(failure.to_string(), seat.resume.take()),
        Err(panic) => return Exit::StartFailed(format!("panicked: {}", panic_text(&*panic)), seat.resume.take()),
    };
    seat.status.set_state(WorkerState::Running);
    // The manager may have stopped waiting; the kill signal says so.
    let _ = ready.send(());
    tokio::select! {
        biased;
        () = &mut kill => {
            let resume = seat.resume.take();
            return killed(&seat, resume, "its worker was stopped before its first event");
        }
        () = set(seat.signals.open.clone()) => {}
    }
    let resume = seat.resume.take();
    let consumer = seat.group.consume(seat.inbox);
    let mut desk = Desk { seat, cx, consumer, watched };
    let mut instance = instance;
    let ended = match shared::serve(&mut desk, &mut instance, resume, kill.as_mut()).await {
        Some(exit) => exit,
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
                () = &mut kill => Exit::Killed,
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

fn killed(seat: &Seat, resume: Option<Delivery>, detail: &str) -> Exit {
    if let Some(delivery) = resume {
        seat.router.discard(&seat.group, delivery, Reason::Stopped, detail);
        seat.status.set_in_hand(0);
    }
    Exit::Killed
}

/// What an instance works with: its seat, its context and its inbox.
pub(crate) struct Desk {
    pub(crate) seat: Seat,
    pub(crate) cx: Context,
    pub(crate) consumer: InboxConsumer,
    watched: Option<Watched>,
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

impl Desk {
    /// Handles one delivery from its first try to its end. Returns how the instance ended, if it did.
    pub(crate) async fn handle(
        &mut self,
        instance: &mut Box<dyn Instance>,
        mut delivery: Delivery,
        mut kill: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Exit> {
        if !begin(&self.seat, &mut delivery) {
            return None;
        }
        self.seat.status.set_in_hand(1);
        loop {
            let timer = Timer::start(&delivery);
            let called = self.call(instance, &mut delivery, kill.as_mut()).await;
            self.cx.end();
            if matches!(called, Called::GivenUp) {
                return Some(Exit::Killed);
            }
            timer.stop(&self.seat.status);
            match settle(&self.seat, delivery, called, self.cx.deferral()) {
                Next::Settled => break,
                Next::End(exit) => return Some(exit),
                Next::Again(again, pause) => {
                    delivery = again;
                    tokio::select! {
                        biased;
                        () = &mut kill => return Some(killed(&self.seat, Some(delivery), "it was stopped between retries")),
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
            delivery.attempts += 1;
        }
        self.seat.status.set_in_hand(0);
        None
    }

    async fn call(
        &mut self,
        instance: &mut Box<dyn Instance>,
        delivery: &mut Delivery,
        kill: Pin<&mut impl Future<Output = ()>>,
    ) -> Called {
        self.cx.begin(delivery);
        let Self { cx, consumer, watched, seat } = self;
        if let Some(watched) = watched {
            consumer.give_back();
            watched.begin(delivery);
        }
        let handling = AssertUnwindSafe(instance.handle(delivery.handler, &delivery.envelope, cx)).catch_unwind();
        let mut handling = pin!(handling);
        // Most handlers are ready at once; only the others need timers and signals.
        let called = match poll_fn(|cx| Poll::Ready(handling.as_mut().poll(cx))).await {
            Poll::Ready(done) => called(done),
            Poll::Pending => {
                consumer.give_back();
                finish(handling, seat.policy.time_limit, kill).await
            }
        };
        match watched {
            Some(watched) if !watched.end() => Called::GivenUp,
            _ => called,
        }
    }
}

/// Waits for a handler that was not ready at once.
pub(crate) async fn finish(
    handling: impl Future<Output = Result<Outcome, Box<dyn Any + Send>>>,
    limit: Option<Duration>,
    kill: impl Future<Output = ()>,
) -> Called {
    let too_long = async {
        match limit {
            Some(limit) => {
                tokio::time::sleep(limit).await;
                limit
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        done = handling => called(done),
        () = kill => Called::Killed,
        limit = too_long => Called::TimeLimit(limit),
    }
}

#[inline]
pub(crate) fn called(done: Result<Outcome, Box<dyn Any + Send>>) -> Called {
    match done {
        Ok(outcome) => Called::Done(outcome),
        Err(panic) => Called::Panicked(panic_text(&*panic)),
    }
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

#[inline]
fn succeed(seat: &Seat, delivery: &Delivery, value: Value) {
    if let Some(ticket) = delivery.ticket() {
        // A requester that is gone by now is counted by the router.
        seat.router.complete(ticket, Ok(value));
    }
    seat.status.count(Ended::Handled);
}

/// The instance is lost; so is the delivery in its hands, unless it may be tried again.
pub(crate) fn lost(seat: &Seat, delivery: Option<Delivery>, reason: Reason, detail: String) -> Next {
    let resume = delivery.and_then(|delivery| may_try_again(seat, delivery, reason, &detail));
    if resume.is_none() {
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

/// Times the events that were stamped when they were sent.
pub(crate) struct Timer {
    times: Option<(Instant, Instant)>,
}

impl Timer {
    #[inline]
    pub(crate) fn start(delivery: &Delivery) -> Self {
        Self { times: delivery.envelope.head().stamped.map(|sent| (sent, Instant::now())) }
    }

    #[inline]
    pub(crate) fn stop(self, status: &WorkerStatus) {
        if let Some((sent, begun)) = self.times {
            status.timed(begun.saturating_duration_since(sent), begun.elapsed());
        }
    }
}
