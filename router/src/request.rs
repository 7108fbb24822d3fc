//! Requests: one worker answers.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edri_events::{DescriptorRef, Envelope, Event, EventId, ManagerName, REQUEST_TIMEOUT_DEFAULT, Request};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::bus::{Bus, NOTHING, Options, deadline};
use crate::circle::Waits;
use crate::core::{Core, Phase, is_known};
use crate::delivery::{Delivery, ReplyTo};
use crate::group::{Group, GroupRef, Offered};
use crate::pending::{Outcome, Ticket, Waiting};
use crate::queue::Refused;
use crate::status::ManagerState;
use crate::table::{Route, Snapshot};
use crate::traced::{self, Traced};
use crate::uplink::{OutcomeAbove, Uplink};
use crate::{GroupName, PublishError, RequestError, WaitEnded};

/// How often an idempotent request is sent when nodes are lost over it.
const IDEMPOTENT_ATTEMPTS_MAX: u32 = 3;

/// Who is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To<'a> {
    /// Whoever answers, the nearest first.
    Any,
    /// A manager of this name, the nearest first.
    Manager(&'a str),
    /// On this node the manager of this name, or whoever answers.
    Node(&'a str, Option<&'a str>),
    /// This group.
    Group(&'a GroupName),
}

impl Bus {
    /// Sends a request and waits for its response.
    ///
    /// One worker gets it: of the managers that answer this event and have room in their inbox, one of this node before one
    /// of another, the nearest node first, and the least loaded where several are as near. While a manager that answers is starting or restarting the request waits for it. It ends at its deadline: the
    /// event's time-out (30 s unless declared), or the deadline of the event being handled if that is earlier.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; its [`code`](RequestError::code) is stable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request: queued, it never runs; a running handler sees it in its context.
    pub fn request<E: Request>(&self, event: E) -> impl Future<Output = Result<E::Output, RequestError>> + Send {
        self.request_with(event, &NOTHING)
    }

    /// As [`Bus::request`], with something to say beside the payload.
    ///
    /// # Errors
    ///
    /// As [`Bus::request`].
    // A block and no `async fn`: its arguments would be moved once more, which is seen in the time of a request.
    #[expect(clippy::manual_async_fn)]
    pub fn request_with<E: Request>(
        &self,
        event: E,
        options: &Options,
    ) -> impl Future<Output = Result<E::Output, RequestError>> + Send {
        async move {
            give_others_their_turn().await;
            let began = Instant::now();
            let envelope = self.request_envelope(event, options, began)?;
            let traced = traced::request(&envelope);
            let outcome = match self.ask_at_once(envelope, began, To::Any) {
                Sent::Over(outcome) => outcome,
                open => self.outcome_of(open, began, To::Any).await,
            };
            Ok(seen(outcome, &traced)?.take()?)
        }
    }

    /// Sends a request to the manager of this name: to that of this node if there is one, otherwise of the nearest. Written
    /// `node/manager`, it is the manager of that node and no other.
    ///
    /// # Errors
    ///
    /// As [`Bus::request`]; [`RequestError::NoHandler`] also when that manager is not there or does not answer this event, or is
    /// a keyed shared one, named with its node, and another node has the event's key.
    pub async fn request_to<E: Request>(&self, manager: &str, event: E) -> Result<E::Output, RequestError> {
        let began = Instant::now();
        let envelope = self.request_envelope(event, &NOTHING, began)?;
        Ok(self.ask(envelope, began, To::named(manager)).await?.take()?)
    }

    /// Sends a request to whoever answers it on the node of this name, which may be this one.
    ///
    /// # Errors
    ///
    /// As [`Bus::request`]; [`RequestError::NoHandler`] also when there is no such node or nobody answers this event there, or
    /// only a keyed shared manager does and another node has the event's key.
    pub async fn request_at<E: Request>(&self, node: &str, event: E) -> Result<E::Output, RequestError> {
        let began = Instant::now();
        let envelope = self.request_envelope(event, &NOTHING, began)?;
        Ok(self.ask(envelope, began, To::Node(node, None)).await?.take()?)
    }

    pub(crate) fn request_envelope<E: Event>(
        &self,
        event: E,
        options: &Options,
        now: Instant,
    ) -> Result<Envelope, RequestError> {
        let descriptor = DescriptorRef::of::<E>();
        let deadline = deadline(&descriptor, options, || now).unwrap_or_else(|| now + REQUEST_TIMEOUT_DEFAULT);
        let deadline = Some(self.within_deadline(deadline));
        Ok(self.seal(EventId::next(), descriptor, options, deadline, event).map_err(not_sent)?.into())
    }

    /// Asks one worker. What is sent was begun at `began`: the clock is read once a request.
    pub(crate) async fn ask(&self, envelope: Envelope, began: Instant, to: To<'_>) -> Outcome {
        give_others_their_turn().await;
        let traced = traced::request(&envelope);
        let outcome = self.ask_one(envelope, began, to).await;
        seen(outcome, &traced)
    }

    pub(crate) async fn ask_one(&self, envelope: Envelope, began: Instant, to: To<'_>) -> Outcome {
        match self.ask_at_once(envelope, began, to) {
            Sent::Over(outcome) => outcome,
            open => self.outcome_of(open, began, to).await,
        }
    }

    /// Asks one worker, as far as that goes without waiting.
    fn ask_at_once(&self, envelope: Envelope, began: Instant, to: To<'_>) -> Sent<'_> {
        let deadline = envelope.head().deadline;
        let snapshot = self.core.snapshot();
        let route = self.only_route(&snapshot, &envelope, to);
        if let Some(route) = route
            && deadline.is_none_or(|deadline| deadline > began)
            && let Some(outcome) = route.target.respond(&envelope)
        {
            return Sent::Over(outcome);
        }
        let again = envelope.head().descriptor.is_idempotent().then(|| envelope.clone());
        match self.try_place(&*self.core, envelope, route, to, deadline, 0, ReplyTo::Response) {
            Ok(Tried::Answered(outcome)) if again.is_none() || outcome.is_ok() => Sent::Over(outcome),
            Ok(tried) => Sent::Open(tried, again),
            Err(error) => Sent::Over(Err(error)),
        }
    }

    /// The one route of an event to whoever is meant, where there is one.
    #[inline(always)]
    fn only_route<'a>(
        &self,
        snapshot: &'a Snapshot<GroupRef>,
        envelope: &Envelope,
        to: To<'_>,
    ) -> Option<&'a Route<GroupRef>> {
        let descriptor = &envelope.head().descriptor;
        let entry = snapshot.entry(descriptor).filter(|entry| is_known(entry, descriptor))?;
        entry.only().filter(|route| to.takes(route, &self.core, envelope))
    }

    /// Waits for what was sent to end.
    async fn outcome_of(&self, sent: Sent<'_>, began: Instant, to: To<'_>) -> Outcome {
        match sent {
            Sent::Over(outcome) => outcome,
            Sent::Open(tried, None) => self.finish(tried, began, to).await,
            Sent::Open(tried, Some(envelope)) => self.ask_again_if_lost(tried, envelope, began, to).await,
        }
    }

    /// Waits for the outcome of what was sent, and asks another worker when the node of the first is lost.
    async fn ask_again_if_lost<'a>(
        &'a self,
        mut tried: Tried<&'a Core>,
        envelope: Envelope,
        began: Instant,
        to: To<'_>,
    ) -> Outcome {
        let (deadline, mut attempts, mut lost) = (envelope.head().deadline, 1, None);
        loop {
            match (self.finish(tried, began, to).await, lost) {
                // Nobody else can do it again, so how it was lost is what there is to say.
                (Err(RequestError::NoHandler(_)), Some(lost)) => return Err(lost),
                // The node that had it is gone; it may be done again, elsewhere if there is somebody.
                (Err(error @ RequestError::PeerLost(_)), _) if attempts < IDEMPOTENT_ATTEMPTS_MAX => lost = Some(error),
                (outcome, _) => return outcome,
            }
            tried = self.try_place_anew(&*self.core, envelope.clone(), to, deadline, attempts, ReplyTo::Response)?;
            attempts += 1;
        }
    }

    /// Waits for the outcome of what was placed, or is to be.
    async fn finish(&self, tried: Tried<&Core>, began: Instant, to: To<'_>) -> Outcome {
        let (waiting, group) = match tried {
            Tried::Answered(outcome) => return outcome,
            Tried::Placed(waiting, group) => (waiting, group),
            Tried::Waits(waiting, delivery) => match self.place_slowly(waiting, delivery, to).await? {
                Sought::Here(waiting, group) => (waiting, group),
                Sought::Above(outcome) => return outcome.await,
            },
        };
        let Some(worker) = &self.worker else {
            let outcome = waiting.await;
            return outcome.map_err(|error| explain(error, began.elapsed(), &group, Vec::new));
        };
        let waits = Waits::register(&self.core, Some(worker), std::iter::once(&*group));
        let outcome = waiting.await;
        outcome.map_err(|error| explain(error, began.elapsed(), &group, || waits.cycle()))
    }

    /// Opens a slot for the outcome of a tunnel, which may last for ever, and gives the event to one group, waiting for room.
    pub(crate) async fn place(
        &self,
        envelope: Envelope,
        to: To<'_>,
        reply: impl FnOnce(Ticket) -> ReplyTo,
    ) -> Result<Sought<Arc<Core>>, RequestError> {
        match self.try_place_anew(Arc::clone(&self.core), envelope, to, None, 0, reply)? {
            Tried::Answered(outcome) => Ok(Sought::Above(Box::pin(std::future::ready(outcome)))),
            Tried::Placed(waiting, group) => Ok(Sought::Here(waiting, group)),
            Tried::Waits(waiting, delivery) => self.place_slowly(waiting, delivery, to).await,
        }
    }

    /// As [`Bus::try_place`], for an event whose route was not looked up.
    fn try_place_anew<C: Deref<Target = Core> + Unpin>(
        &self,
        core: C,
        envelope: Envelope,
        to: To<'_>,
        deadline: Option<Instant>,
        lost: u32,
        reply: impl FnOnce(Ticket) -> ReplyTo,
    ) -> Result<Tried<C>, RequestError> {
        let snapshot = self.core.snapshot();
        let route = self.only_route(&snapshot, &envelope, to);
        self.try_place(core, envelope, route, to, deadline, lost, reply)
    }

    /// Opens a slot for an outcome that is wanted until `deadline`, and gives the event to one group, as far as that goes without
    /// waiting; `route` is the one it has, if it has one. Nodes that had the event were `lost` so many times.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "a request is moved as seldom as can be")]
    fn try_place<C: Deref<Target = Core> + Unpin>(
        &self,
        core: C,
        envelope: Envelope,
        route: Option<&Route<GroupRef>>,
        to: To<'_>,
        deadline: Option<Instant>,
        lost: u32,
        reply: impl FnOnce(Ticket) -> ReplyTo,
    ) -> Result<Tried<C>, RequestError> {
        let Some(ticket) = core.pending.insert(deadline) else {
            return Err(RequestError::Overloaded(Box::default()));
        };
        let mut waiting = Waiting::new(core, ticket);
        let (reply, redelivered) = (reply(ticket), lost > 0);
        // Most requests have one who answers, and has room: the delivery is made where it is to be.
        if let Some(route) = route
            && let Some((_, place)) = route.target.try_claim(&envelope)
        {
            let handler = to.handler(route, &self.core);
            let delivery = Delivery { redelivered, ..Delivery::new(envelope, handler, reply) };
            if place.fill_and_serve(delivery)
                && let Some(outcome) = waiting.take()
            {
                return Ok(Tried::Answered(outcome));
            }
            return Ok(Tried::Placed(waiting, Arc::clone(&route.target)));
        }
        let delivery = Delivery { redelivered, ..Delivery::new(envelope, 0, reply) };
        Ok(match self.offer_one(delivery, to) {
            Placed::Taken(group) => match waiting.take() {
                Some(outcome) => Tried::Answered(outcome),
                None => Tried::Placed(waiting, group),
            },
            Placed::No(delivery) => Tried::Waits(waiting, delivery),
        })
    }

    /// Waits until the event has a place, or leaves it to the uplink where there is one. Rare; boxed, it does not weigh on every
    /// requester's future.
    fn place_slowly<'a, C: Deref<Target = Core> + Send + Unpin + 'a>(
        &'a self,
        waiting: Waiting<C>,
        delivery: Delivery,
        to: To<'a>,
    ) -> BoxFuture<'a, Result<Sought<C>, RequestError>> {
        Box::pin(async move {
            match self.core.uplink() {
                None => Ok(Sought::Here(waiting, self.wait_for_place(delivery, to).await?)),
                Some(uplink) => self.ask_above(uplink, delivery, to).await,
            }
        })
    }

    /// Leaves a request or the opening of a tunnel to the uplink.
    async fn ask_above<C: Deref<Target = Core> + Unpin>(
        &self,
        uplink: &Arc<dyn Uplink>,
        delivery: Delivery,
        to: To<'_>,
    ) -> Result<Sought<C>, RequestError> {
        Ok(Sought::Above(match delivery.reply {
            ReplyTo::Tunnel(_, Some(offer)) => uplink.open(delivery.envelope, *offer, to.to_text().as_deref()).await?,
            _ => uplink.request(delivery.envelope, to.to_text().as_deref()),
        }))
    }

    /// Gives the delivery to the best group that has room.
    fn offer_one(&self, mut delivery: Delivery, to: To<'_>) -> Placed {
        let snapshot = self.core.snapshot();
        let descriptor = &delivery.envelope.head().descriptor;
        let Some(entry) = snapshot.entry(descriptor).filter(|entry| is_known(entry, descriptor)) else {
            return Placed::No(delivery);
        };
        let mut only = None;
        let mut others = Vec::new();
        entry.for_all(&delivery.envelope, |route| {
            if to.takes(route, &self.core, &delivery.envelope) {
                others.extend(only.replace(route));
            }
        });
        let Some(mut best) = only else { return Placed::No(delivery) };
        if !others.is_empty() {
            others.push(best);
            let cost = |route: &&Route<GroupRef>| cost(&route.target, &delivery.envelope);
            best = others.into_iter().min_by_key(cost).unwrap_or(best);
        }
        delivery.handler = to.handler(best, &self.core);
        if let Some((_, place)) = best.target.try_claim(&delivery.envelope) {
            place.fill_and_serve(delivery);
            return Placed::Taken(Arc::clone(&best.target));
        }
        let mut displaced = Vec::new();
        let placed = match best.target.offer(delivery, &mut displaced) {
            Offered::Taken => Placed::Taken(Arc::clone(&best.target)),
            Offered::Gone(delivery) | Offered::Full(_, _, delivery) => Placed::No(delivery),
            Offered::Dropped(delivery) => {
                // Answers the requester, who is about to look.
                self.core.drop_newest(&best.target, delivery);
                Placed::Taken(Arc::clone(&best.target))
            }
        };
        self.core.bury_displaced(displaced);
        placed
    }

    /// Waits for whatever was missing: the declaration, somebody who answers, or room.
    async fn wait_for_place(&self, delivery: Delivery, to: To<'_>) -> Result<GroupRef, RequestError> {
        let began = Instant::now();
        let name = delivery.envelope.name().clone();
        let limit = delivery.envelope.head().deadline.unwrap_or_else(|| began + REQUEST_TIMEOUT_DEFAULT);
        let descriptor = delivery.envelope.head().descriptor.clone();
        if !self.core.snapshot().entry(&descriptor).is_some_and(|entry| is_known(entry, &descriptor)) {
            self.core.declare(descriptor).await?;
        }
        let mut full = Vec::new();
        let place = self.place_by(delivery, to, &mut full);
        match with_limit(&self.core, limit, place).await {
            Some(placed) => placed,
            None if full.is_empty() => Err(RequestError::NoHandler(name)),
            None => {
                let waits = Waits::register(&self.core, self.worker.as_ref(), full.iter().map(|group| &**group));
                Err(RequestError::Overloaded(Box::new(WaitEnded {
                    waited: began.elapsed(),
                    groups: full.iter().map(|group| group.name().clone()).collect(),
                    cycle: waits.cycle(),
                })))
            }
        }
    }

    /// Places the delivery however long it takes. `full` names the groups waited for.
    async fn place_by(
        &self,
        mut delivery: Delivery,
        to: To<'_>,
        full: &mut Vec<GroupRef>,
    ) -> Result<GroupRef, RequestError> {
        loop {
            full.clear();
            // Before all is known of who answers, somebody may come any moment.
            let look = || {
                let over = self.core.is_settled() || self.core.phase() == Phase::Stopped;
                Some(self.who_answers(&delivery.envelope, to)).filter(|found| over || !found.is_empty())
            };
            let mut candidates = self.core.changed.wait_until(look).await;
            if self.core.phase() == Phase::Stopped {
                return Err(RequestError::Stopping);
            }
            if candidates.is_empty() {
                return Err(RequestError::NoHandler(delivery.envelope.name().clone()));
            }
            // Whatever was missing has come, or there is no room; only then any of them will do.
            delivery = match self.offer_one(delivery, to) {
                Placed::Taken(group) => return Ok(group),
                Placed::No(delivery) => delivery,
            };
            if candidates.iter().any(|(group, _)| group.is_reachable()) {
                candidates.retain(|(group, _)| group.is_reachable());
            }
            full.extend(candidates.iter().map(|(group, _)| Arc::clone(group)));
            let waits = Waits::register(&self.core, self.worker.as_ref(), candidates.iter().map(|(group, _)| &**group));
            let mut claims: FuturesUnordered<_> = candidates
                .iter()
                .map(|(group, handler)| {
                    let inbox = group.inbox_for(&delivery.envelope);
                    async move { (group, handler, group.inbox(inbox).claim().await) }
                })
                .collect();
            let (mut placed, mut cut_off) = (None, None);
            while let Some((group, handler, claimed)) = claims.next().await {
                match claimed {
                    Ok(place) => {
                        placed = Some((group, handler, place));
                        break;
                    }
                    Err(Refused::Full) => cut_off = group.node(),
                    Err(Refused::Closed) => {}
                }
            }
            if let Some((group, handler, place)) = placed {
                delivery.handler = *handler;
                place.fill(delivery);
                return Ok(Arc::clone(group));
            }
            drop(claims);
            if let Some(node) = cut_off
                && !candidates.iter().any(|(group, _)| group.is_reachable() && !group.is_closed())
            {
                return Err(RequestError::PeerLost(format!("node `{node}` is unreachable and its backlog is full")));
            }
            // Every candidate has closed, or its node was lost; the table will say who takes their place.
            drop(waits);
            tokio::task::yield_now().await;
        }
    }

    /// The groups that answer this event, and by which of their handlers.
    pub(crate) fn who_answers(&self, envelope: &Envelope, to: To<'_>) -> Vec<(GroupRef, u32)> {
        let mut found = Vec::new();
        if let Some(entry) = self.core.snapshot().entry(&envelope.head().descriptor) {
            entry.for_all(envelope, |route| {
                if to.takes(route, &self.core, envelope) {
                    found.push((Arc::clone(&route.target), to.handler(route, &self.core)));
                }
            });
        }
        found
    }
}

/// Where an outcome is to come from.
pub(crate) enum Sought<C: Deref<Target = Core> + Unpin> {
    /// A worker of this group.
    Here(Waiting<C>, GroupRef),
    /// The node of a process worker; or it is there.
    Above(OutcomeAbove),
}

enum Placed {
    Taken(GroupRef),
    No(Delivery),
}

/// What came of asking at once.
enum Sent<'a> {
    Over(Outcome),
    /// It was sent; once more if its node is lost, where it is idempotent.
    Open(Tried<&'a Core>, Option<Envelope>),
}

/// Who is answered at once would never let go of the thread, so a request counts as one of tokio's own operations does.
async fn give_others_their_turn() {
    tokio::task::coop::consume_budget().await;
}

/// The outcome, which its span has been told.
fn seen(outcome: Outcome, traced: &Traced) -> Outcome {
    if let Err(error) = &outcome {
        traced.failed(error.code());
    }
    outcome
}

/// What came of placing a request at once.
enum Tried<C: Deref<Target = Core> + Unpin> {
    /// The worker has had its turn, and has answered.
    Answered(Outcome),
    /// It is in an inbox.
    Placed(Waiting<C>, GroupRef),
    /// There is none that has room.
    Waits(Waiting<C>, Delivery),
}

/// What speaks against a group, the weightiest first: that it cannot be reached, has no room, is far, has much to do.
fn cost(group: &Group, envelope: &Envelope) -> (bool, bool, u32, usize) {
    (!group.is_reachable(), group.room_for(envelope) == 0, group.distance(), group.load())
}

impl<'a> To<'a> {
    /// Who is meant by a text: `manager`, `node/manager`, or `node/` for whoever answers there.
    pub(crate) fn named(text: &'a str) -> Self {
        match text.split_once('/') {
            None => Self::Manager(text),
            Some((node, manager)) => Self::Node(node, Some(manager).filter(|manager| !manager.is_empty())),
        }
    }

    /// What [`To::named`] reads; `None` for whoever answers.
    fn to_text(self) -> Option<String> {
        match self {
            Self::Any => None,
            Self::Manager(manager) => Some(manager.to_owned()),
            Self::Node(node, manager) => Some(format!("{node}/{}", manager.unwrap_or_default())),
            Self::Group(group) => Some(group.to_text()),
        }
    }

    fn takes(&self, route: &Route<GroupRef>, core: &Core, envelope: &Envelope) -> bool {
        let name = route.target.name();
        let Some(manager) = name.manager_anywhere() else { return false };
        route.exact
            && route.target.state() != ManagerState::Failed
            && match self {
                Self::Any => true,
                Self::Manager(wanted) => *manager == **wanted,
                Self::Node(node, wanted) => {
                    wanted.is_none_or(|wanted| *manager == *wanted)
                        && match route.target.is_front() {
                            true => core.stands_behind(&route.target, node, envelope.name()),
                            false => *name.node().unwrap_or(&core.address.node) == **node,
                        }
                }
                Self::Group(group) => name == *group,
            }
    }

    /// Which handler it is for; in a front, which node.
    fn handler(&self, route: &Route<GroupRef>, core: &Core) -> u32 {
        match self {
            Self::Node(node, _) if route.target.is_front() => core.number_of(node),
            _ => route.handler,
        }
    }
}

/// Runs `future` until `limit`.
pub(crate) async fn with_limit<F: Future>(core: &Core, limit: Instant, future: F) -> Option<F::Output> {
    let mut timer = std::pin::pin!(core.sleep_until(limit));
    tokio::select! {
        biased;
        output = future => Some(output),
        () = &mut timer => None,
    }
}

/// Says what was waited for where the one who ended the wait could not know.
fn explain(
    error: RequestError,
    waited: Duration,
    group: &GroupRef,
    cycle: impl FnOnce() -> Vec<ManagerName>,
) -> RequestError {
    let fill = |mut wait: Box<WaitEnded>, cycle| {
        *wait = WaitEnded { waited, groups: vec![group.name().clone()], cycle };
        wait
    };
    match error {
        RequestError::TimedOut(wait) if wait.groups.is_empty() => RequestError::TimedOut(fill(wait, cycle())),
        RequestError::Overloaded(wait) if wait.groups.is_empty() => RequestError::Overloaded(fill(wait, Vec::new())),
        other => other,
    }
}

pub(crate) fn not_sent(error: PublishError) -> RequestError {
    match error {
        PublishError::Declare(error) => RequestError::Declare(error),
        PublishError::Payload { source, .. } => RequestError::Payload(source),
        PublishError::Overloaded { wait, .. } => RequestError::Overloaded(wait),
        PublishError::Stopping => RequestError::Stopping,
        PublishError::Refused(failure) => RequestError::Failed(failure),
        PublishError::Elsewhere(failure) => RequestError::Elsewhere(failure),
    }
}
