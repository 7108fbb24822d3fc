//! The Manager actor: starts instances, restarts those that are lost, gives up, drains.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, Addr, ArbiterHandle, AsyncContext, Context, Handler, Message};
use edri_events::ManagerName;
use edri_router::system::{ManagerChanged, WorkerChanged};
use edri_router::{Delivery, GroupRef, ManagerState, Reason, Router, WorkerState, WorkerStatus};
use edri_workers::{
    Demand, Exit, Factory, Host, Introduced, LeftoversRef, Placement, ProcessPlan, Seat, Signals, Work,
};
use tokio::sync::{oneshot, watch};

use crate::arrivals::OwnLine;
use crate::definition::Comes;
use crate::{Definition, Drained, ManagerError};

/// How long workers may take to end once they are told to end at once.
const KILL_GRACE: Duration = Duration::from_secs(1);

pub(crate) struct ManagerActor {
    name: ManagerName,
    definition: Definition,
    /// How instances come and go, when not all run all the time.
    demand: Option<Demand>,
    group: GroupRef,
    router: Router,
    work: Made,
    /// Where workers come from that come by themselves.
    line: Option<OwnLine>,
    /// Whether somebody waits for the next of them.
    receives: bool,
    /// What those have left who are gone.
    leftovers: Option<LeftoversRef>,
    seats: Vec<Chair>,
    /// When instances were restarted, as far back as the policy looks.
    restarts: VecDeque<Instant>,
    open: watch::Sender<bool>,
    kill: watch::Sender<bool>,
    failure: Option<String>,
    when_started: Vec<oneshot::Sender<Result<(), ManagerError>>>,
    when_drained: Option<oneshot::Sender<Drained>>,
    /// How many events were in hand when the limit of the drain was reached.
    interrupted: usize,
    /// How many workers were cut in their `stopping`.
    cut: usize,
    drain_over: bool,
}

/// What instances are made of.
enum Made {
    By(Factory),
    /// The one that has said hello already goes to the first chair.
    Process(Arc<ProcessPlan>, Option<Box<Introduced>>),
}

/// How often a manager whose workers come and go looks whether there is work for another.
const DEMAND_POLL: Duration = Duration::from_millis(20);

/// A place for instances, one after another.
struct Chair {
    status: Arc<WorkerStatus>,
    occupied: Occupied,
    /// Restarts in a row, for the pause before the next.
    row: u32,
}

/// Why an event is given up that no worker can have any more.
const NOBODY: &str = "its worker was lost, and none came in its place";

impl Chair {
    /// Whether somebody may sit down.
    fn is_vacant(&self) -> bool {
        matches!(self.occupied, Occupied::Soon { .. } | Occupied::OnDemand)
    }
}

enum Occupied {
    /// An instance is starting or running.
    By { since: Instant },
    /// The last one was lost; the next comes after a pause.
    Soon { resume: Vec<Delivery> },
    /// Nobody, until there is more to do.
    OnDemand,
    /// Nobody comes any more.
    Never,
}

/// Tells when all workers have started, or that they will not.
pub(crate) struct WhenStarted {
    pub(crate) tell: oneshot::Sender<Result<(), ManagerError>>,
}

/// Lets the workers take events.
pub(crate) struct Open;

/// Ends the manager.
pub(crate) struct Drain {
    pub(crate) limit: Duration,
    pub(crate) successor: Option<GroupRef>,
    pub(crate) tell: oneshot::Sender<Drained>,
}

impl Message for WhenStarted {
    type Result = ();
}

impl Message for Open {
    type Result = ();
}

impl Message for Drain {
    type Result = ();
}

impl ManagerActor {
    pub(crate) fn start(
        name: ManagerName,
        definition: Definition,
        group: GroupRef,
        introduced: Option<Box<Introduced>>,
        line: Option<OwnLine>,
        router: Router,
        arbiter: &ArbiterHandle,
    ) -> Addr<Self> {
        let settings = &definition.settings;
        let demand = definition.demand();
        let leftovers = (line.is_some() && !settings.keyed).then(LeftoversRef::default);
        let work = match (&definition.factory, settings.placement) {
            (Some(factory), Placement::Task | Placement::Thread) => Made::By(Arc::clone(factory)),
            _ => {
                let selects = definition.selections.iter().map(|wants| wants.pattern.as_str().to_owned()).collect();
                let (process, arguments) = (settings.process.clone(), settings.arguments.clone());
                let leftovers = leftovers.clone();
                Made::Process(Arc::new(ProcessPlan { process, selects, arguments, leftovers }), introduced)
            }
        };
        // A program has been started already, to hear what it handles.
        let least = match (demand, settings.remote) {
            (Some(demand), _) => demand.least.max(1),
            (None, Some(Comes::AsTheyLike)) => 0,
            (None, _) => usize::MAX,
        };
        let seats: Vec<_> = (0..definition.settings.instances)
            .map(|index| Chair {
                status: Arc::new(WorkerStatus::new(index)),
                occupied: if index < least { Occupied::Soon { resume: Vec::new() } } else { Occupied::OnDemand },
                row: 0,
            })
            .collect();
        group.set_workers(seats.iter().map(|chair| Arc::clone(&chair.status)).collect());
        Self::start_in_arbiter(arbiter, move |_| Self {
            name,
            definition,
            demand,
            group,
            router,
            work,
            line,
            receives: false,
            leftovers,
            seats,
            restarts: VecDeque::new(),
            open: watch::Sender::new(false),
            kill: watch::Sender::new(false),
            failure: None,
            when_started: Vec::new(),
            when_drained: None,
            interrupted: 0,
            cut: 0,
            drain_over: false,
        })
    }

    // ---- instances -------------------------------------------------------------------------------------------------

    fn seat(&mut self, index: usize, arrived: Option<Box<Introduced>>, ctx: &mut Context<Self>) {
        let chair = &mut self.seats[index];
        let resume = match std::mem::replace(&mut chair.occupied, Occupied::By { since: Instant::now() }) {
            Occupied::Soon { resume } => resume,
            other => {
                chair.occupied = other;
                return;
            }
        };
        chair.status.set_state(WorkerState::Starting);
        let seat = Seat {
            router: self.router.clone(),
            group: Arc::clone(&self.group),
            manager: self.name.clone(),
            inbox: if self.definition.settings.keyed { index } else { 0 },
            status: Arc::clone(&chair.status),
            policy: self.definition.settings.policy,
            signals: Signals { open: self.open.subscribe(), kill: self.kill.subscribe() },
            resume,
            ordered: self.definition.settings.keyed || self.definition.settings.instances == 1,
            idle: self.demand.filter(|demand| index >= demand.least).map(|demand| demand.idle),
        };
        let (ready, is_ready) = oneshot::channel();
        let work = match &mut self.work {
            Made::By(factory) if self.definition.settings.placement == Placement::Thread => {
                Work::Thread(Arc::clone(factory))
            }
            Made::By(factory) => Work::Task(Arc::clone(factory)),
            Made::Process(plan, introduced) => Work::Process(Arc::clone(plan), arrived.or_else(|| introduced.take())),
        };
        self.count_seated();
        let ended = Host::spawn(work, seat, ready);
        ctx.spawn(actix::fut::wrap_future::<_, Self>(is_ready).map(move |ready, manager, _| {
            // An error says that it ended before, which is told below.
            if ready.is_ok() {
                manager.ready(index);
            }
        }));
        ctx.spawn(actix::fut::wrap_future::<_, Self>(ended).map(move |exit, manager, ctx| {
            manager.ended(index, exit, ctx);
        }));
    }

    fn ready(&mut self, index: usize) {
        self.announce_worker(index, WorkerState::Running, None);
        if self.all_started() {
            if self.group.state() == ManagerState::Starting {
                self.set_state(ManagerState::Running, None);
            }
            for tell in self.when_started.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = tell.send(Ok(()));
            }
        }
    }

    fn all_started(&self) -> bool {
        let mut expected = self.seats.iter().filter(|chair| !matches!(chair.occupied, Occupied::OnDemand));
        expected.all(|chair| chair.status.state() == WorkerState::Running)
    }

    fn ended(&mut self, index: usize, exit: Exit, ctx: &mut Context<Self>) {
        let chair = &mut self.seats[index];
        let lived = match chair.occupied {
            Occupied::By { since } => since.elapsed(),
            _ => Duration::ZERO,
        };
        chair.occupied = Occupied::Never;
        self.count_seated();
        let chair = &mut self.seats[index];
        let (detail, resume) = match exit {
            // It was idle, or its inbox has ended; more may have come in the meantime.
            Exit::Finished if self.demand.is_some() => {
                chair.occupied = Occupied::OnDemand;
                chair.row = 0;
                chair.status.set_state(WorkerState::Stopped);
                self.announce_worker(index, WorkerState::Stopped, None);
                self.check_drained(ctx);
                return;
            }
            Exit::Finished | Exit::Killed | Exit::StoppingCut => {
                if matches!(exit, Exit::StoppingCut) {
                    self.cut += 1;
                    tracing::warn!(manager = %self.name, instance = index, "a worker was cut in its `stopping`");
                }
                chair.status.set_state(WorkerState::Stopped);
                self.announce_worker(index, WorkerState::Stopped, None);
                self.check_drained(ctx);
                return;
            }
            Exit::Left(resume) => {
                tracing::info!(manager = %self.name, instance = index, "a worker has left");
                self.gone(index, resume, None, ctx);
                return;
            }
            Exit::StartFailed(detail, resume) => (format!("it did not start: {detail}"), resume),
            // Another that comes may do better.
            Exit::StartRefused(detail, resume) if self.line.is_some() => {
                (format!("it did not start: {detail}"), resume)
            }
            Exit::StartRefused(detail, resume) => {
                tracing::error!(manager = %self.name, instance = index, detail, "worker does not start, for good");
                chair.status.failed_with(&detail);
                chair.status.set_state(WorkerState::Stopped);
                self.discard_resume(index, resume);
                if self.failure.is_some() || *self.kill.borrow() {
                    self.check_drained(ctx);
                } else {
                    self.fail(format!("a worker does not start: {detail}"), ctx);
                }
                return;
            }
            Exit::Lost { detail, resume, .. } => (detail, resume),
        };
        tracing::error!(manager = %self.name, instance = index, detail, "worker lost");
        if self.failure.is_some() || *self.kill.borrow() {
            chair.status.failed_with(&detail);
            chair.status.set_state(WorkerState::Stopped);
            self.discard_resume(index, resume);
            self.check_drained(ctx);
            return;
        }
        let restart = self.definition.settings.restart;
        let now = Instant::now();
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > restart.within) {
            self.restarts.pop_front();
        }
        let chair = &mut self.seats[index];
        if self.restarts.len() >= restart.most as usize {
            chair.status.failed_with(&detail);
            chair.status.set_state(WorkerState::Stopped);
            self.discard_resume(index, resume);
            let reason = format!(
                "more than {} restarts within {:?}; the last worker was lost because {detail}",
                restart.most, restart.within
            );
            self.fail(reason, ctx);
            return;
        }
        if restart.most < u32::MAX {
            self.restarts.push_back(now);
        }
        if self.line.is_some() {
            chair.status.restarted(&detail);
            self.gone(index, resume, Some(detail), ctx);
            return;
        }
        chair.row = if lived > restart.within { 0 } else { chair.row + 1 };
        chair.status.restarted(&detail);
        chair.status.set_state(WorkerState::Restarting);
        chair.occupied = Occupied::Soon { resume };
        let pause = restart.backoff.pause(chair.row.saturating_sub(1));
        self.announce_worker(index, WorkerState::Restarting, Some(detail));
        ctx.run_later(pause, move |manager, ctx| manager.seat(index, None, ctx));
    }

    // ---- workers that come by themselves ---------------------------------------------------------------------------

    /// Tells how many sit.
    fn count_seated(&self) {
        if let Some(line) = &self.line {
            line.seated.send_replace(self.seated());
        }
    }

    fn seated(&self) -> usize {
        self.seats.iter().filter(|chair| matches!(chair.occupied, Occupied::By { .. })).count()
    }

    /// A worker that came by itself has gone: its chair is for the next that comes.
    fn gone(&mut self, index: usize, resume: Vec<Delivery>, why: Option<String>, ctx: &mut Context<Self>) {
        let expected = self.definition.settings.remote == Some(Comes::Expected);
        let chair = &mut self.seats[index];
        let state = if expected { WorkerState::Restarting } else { WorkerState::Stopped };
        let mut resume = resume;
        if let Some(leftovers) = &self.leftovers {
            leftovers.keep(&self.group, std::mem::take(&mut resume));
            chair.status.set_in_hand(0);
        }
        chair.occupied = if expected { Occupied::Soon { resume } } else { Occupied::OnDemand };
        chair.status.set_state(state);
        self.announce_worker(index, state, why);
        self.receive(ctx);
        self.check_forsaken(ctx);
        self.check_drained(ctx);
    }

    /// Waits for the next worker that comes, if there is a chair for it.
    fn receive(&mut self, ctx: &mut Context<Self>) {
        let vacant = self.seats.iter().any(Chair::is_vacant);
        if self.receives || !vacant || self.failure.is_some() || *self.kill.borrow() {
            return;
        }
        let Some(line) = self.line.as_ref().map(|line| Arc::clone(line)) else { return };
        self.receives = true;
        let next = async move { line.next().await };
        ctx.spawn(actix::fut::wrap_future::<_, Self>(next).map(|next, manager, ctx| {
            manager.receives = false;
            match next {
                Some(worker) => {
                    manager.take_in(Box::new(worker), ctx);
                    manager.receive(ctx);
                }
                None => manager.check_forsaken(ctx),
            }
        }));
    }

    /// Gives a worker a chair: first one that is expected, in which something may have been left.
    fn take_in(&mut self, worker: Box<Introduced>, ctx: &mut Context<Self>) {
        let left = |chair: &Chair| matches!(&chair.occupied, Occupied::Soon { resume } if !resume.is_empty());
        let index = self.seats.iter().position(left).or_else(|| self.seats.iter().position(Chair::is_vacant));
        let Some(index) = index.filter(|_| self.when_drained.is_none()) else {
            return worker.refuse("stopping", "its manager ends");
        };
        if matches!(self.seats[index].occupied, Occupied::OnDemand) {
            self.seats[index].occupied = Occupied::Soon { resume: Vec::new() };
        }
        self.seat(index, Some(worker), ctx);
    }

    /// Gives up what waits when nobody is there and nobody comes any more.
    fn check_forsaken(&mut self, ctx: &mut Context<Self>) {
        let closed = self.line.as_ref().is_some_and(|line| line.is_closed());
        if closed && self.seated() == 0 && self.failure.is_none() && self.when_drained.is_none() {
            self.vacate(Reason::Stopped);
            self.withdraw(Reason::Stopped, NOBODY.to_owned(), ctx);
        }
    }

    /// Out of the table first, so that nobody is sent to a closed inbox; then what is in the inbox is given up.
    fn withdraw(&self, reason: Reason, detail: String, ctx: &mut Context<Self>) {
        let (router, group) = (self.router.clone(), Arc::clone(&self.group));
        ctx.spawn(actix::fut::wrap_future::<_, Self>(async move {
            if let Err(error) = router.change(Vec::new(), std::slice::from_ref(&group)).await {
                tracing::error!(%error, "withdrawing a manager");
            }
            group.close(None);
            router.empty(&group, reason, &detail);
        }));
    }

    /// Seats another instance when there is more to do than those who sit take up.
    fn look_for_work(&mut self, ctx: &mut Context<Self>) {
        if self.demand.is_none() {
            return;
        }
        let waiting = self.group.depths().iter().sum::<usize>();
        let starting = self.seats.iter().any(|chair| match chair.occupied {
            Occupied::By { .. } => chair.status.state() == WorkerState::Starting,
            Occupied::Soon { .. } => true,
            Occupied::OnDemand | Occupied::Never => false,
        });
        if waiting == 0 || starting || self.failure.is_some() || *self.kill.borrow() {
            return;
        }
        if let Some(index) = self.seats.iter().position(|chair| matches!(chair.occupied, Occupied::OnDemand)) {
            self.seats[index].occupied = Occupied::Soon { resume: Vec::new() };
            self.seat(index, None, ctx);
        }
    }

    // ---- ends ------------------------------------------------------------------------------------------------------

    /// Gives up: nobody is given events any more, and those who wait are told.
    fn fail(&mut self, reason: String, ctx: &mut Context<Self>) {
        tracing::error!(manager = %self.name, reason, "manager failed");
        self.failure = Some(reason.clone());
        self.set_state(ManagerState::Failed, Some(reason.clone()));
        for tell in self.when_started.drain(..) {
            let _ = tell.send(Err(ManagerError::Failed { manager: self.name.clone(), reason: reason.clone() }));
        }
        self.vacate(Reason::ManagerFailed);
        self.kill.send_replace(true);
        self.withdraw(Reason::ManagerFailed, format!("its manager failed: {reason}"), ctx);
        if let Some(line) = &self.line {
            line.close("stopping", "its manager has failed");
        }
        self.check_drained(ctx);
    }

    /// Nobody comes to the empty chairs any more.
    fn vacate(&mut self, reason: Reason) {
        if let Some(leftovers) = &self.leftovers {
            leftovers.discard(&self.router, &self.group, reason, NOBODY);
        }
        for index in 0..self.seats.len() {
            let chair = &mut self.seats[index];
            match std::mem::replace(&mut chair.occupied, Occupied::Never) {
                Occupied::Soon { resume } => {
                    chair.status.set_state(WorkerState::Stopped);
                    self.discard(index, resume, reason);
                }
                Occupied::OnDemand => chair.status.set_state(WorkerState::Stopped),
                other => chair.occupied = other,
            }
        }
    }

    fn discard_resume(&self, index: usize, resume: Vec<Delivery>) {
        let reason = if self.failure.is_some() { Reason::ManagerFailed } else { Reason::WorkerLost };
        self.discard(index, resume, reason);
    }

    fn discard(&self, index: usize, resume: Vec<Delivery>, reason: Reason) {
        for delivery in resume {
            self.router.discard(&self.group, delivery, reason, "its worker was lost and is not restarted");
            self.seats[index].status.set_in_hand(0);
        }
    }

    /// Ends the actor once nobody is left and somebody waits for that.
    fn check_drained(&mut self, ctx: &mut Context<Self>) {
        self.look_for_work(ctx);
        if self.line.is_some() && self.when_drained.is_some() && self.seated() == 0 {
            // Nobody is waited for.
            self.vacate(Reason::Stopped);
        }
        let nobody = |chair: &&Chair| matches!(chair.occupied, Occupied::Never | Occupied::OnDemand);
        let occupied = self.seats.len() - self.seats.iter().filter(nobody).count();
        if self.when_drained.is_none() || (occupied > 0 && !self.drain_over) {
            return;
        }
        for chair in self.seats.iter().filter(|chair| !nobody(chair)) {
            tracing::warn!(manager = %self.name, instance = chair.status.index(), "a worker did not end");
        }
        let stuck = occupied + self.cut + self.seats.iter().map(|chair| chair.status.stuck_threads()).sum::<usize>();
        let undelivered =
            self.router.remove(&self.group, Reason::Stopped, "its manager stopped before a worker took it");
        if self.failure.is_none() {
            self.set_state(ManagerState::Stopped, None);
        }
        if let Some(tell) = self.when_drained.take() {
            let interrupted = self.interrupted;
            let _ = tell.send(Drained { manager: self.name.clone(), undelivered, interrupted, stuck });
        }
        ctx.stop();
    }

    fn set_state(&self, state: ManagerState, reason: Option<String>) {
        self.group.set_state(state);
        self.router.announce(ManagerChanged {
            node: self.router.node().to_string(),
            manager: self.name.to_string(),
            state,
            reason,
        });
    }

    fn announce_worker(&self, instance: usize, state: WorkerState, reason: Option<String>) {
        self.router.announce(WorkerChanged {
            node: self.router.node().to_string(),
            manager: self.name.to_string(),
            instance,
            state,
            reason,
        });
    }
}

impl Actor for ManagerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.line.is_some() {
            if let Made::Process(_, introduced) = &mut self.work
                && let Some(first) = introduced.take()
            {
                self.take_in(first, ctx);
            }
            self.receive(ctx);
            return;
        }
        for index in 0..self.seats.len() {
            self.seat(index, None, ctx);
        }
        if self.demand.is_some() {
            ctx.run_interval(DEMAND_POLL, Self::look_for_work);
        }
    }
}

impl Handler<WhenStarted> for ManagerActor {
    type Result = ();

    fn handle(&mut self, message: WhenStarted, _: &mut Context<Self>) {
        match &self.failure {
            Some(reason) => {
                let failed = ManagerError::Failed { manager: self.name.clone(), reason: reason.clone() };
                let _ = message.tell.send(Err(failed));
            }
            None if self.all_started() => {
                let _ = message.tell.send(Ok(()));
            }
            None => self.when_started.push(message.tell),
        }
    }
}

impl Handler<Open> for ManagerActor {
    type Result = ();

    fn handle(&mut self, _: Open, _: &mut Context<Self>) {
        self.open.send_replace(true);
    }
}

impl Handler<Drain> for ManagerActor {
    type Result = ();

    fn handle(&mut self, message: Drain, ctx: &mut Context<Self>) {
        if self.failure.is_none() {
            self.set_state(ManagerState::Draining, None);
        }
        self.open.send_replace(true);
        self.group.close(message.successor);
        self.when_drained = Some(message.tell);
        ctx.run_later(message.limit, |manager, ctx| {
            manager.interrupted = manager.group.account().in_hand as usize;
            manager.kill.send_replace(true);
            manager.vacate(Reason::Stopped);
            manager.check_drained(ctx);
            ctx.run_later(KILL_GRACE, |manager, ctx| {
                manager.drain_over = true;
                manager.check_drained(ctx);
            });
        });
        self.check_drained(ctx);
    }
}
