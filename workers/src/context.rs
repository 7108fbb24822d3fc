//! What a handler knows of the event it has, and what it can do.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use edri_events::{
    Address, Body, Envelope, Event, Failure, Headers, ManagerName, Notification, Request, TraceContext, Tunnel,
};
use edri_router::{
    Accepted, Bus, Deferred, Delivery, GroupRef, Health, Offer, OpenedTunnel, PublishError, Receipt, Reply, ReplyTo,
    RequestError, Router, Ticket, TryPublishError, Turn, WorkerStatus,
};
use parking_lot::Mutex;

/// The surroundings of a handler: the bus, the event in hand, and the worker itself.
///
/// What is sent through [`Context::bus`] follows from the event in hand: it carries its id as `cause`, a child span of its
/// trace, and requests end with its deadline at the latest.
pub struct Context {
    bus: Bus,
    router: Router,
    group: GroupRef,
    status: Arc<WorkerStatus>,
    manager: ManagerName,
    hand: Option<Hand>,
    /// Whether the reply of the event in hand was taken along; the host looks at it even after a panic.
    deferred: Arc<AtomicBool>,
    /// Where openers of tunnels may take the turn of the worker's task.
    turn: Option<Arc<dyn Turn>>,
}

/// The event in hand.
struct Hand {
    envelope: Envelope,
    ticket: Option<Ticket>,
    /// Never locked: the lock only makes the context `Sync`, so that handlers can hold on to it across an `await`.
    offer: Mutex<Option<Box<dyn Offer>>>,
    attempt: u32,
    redelivered: bool,
}

impl Context {
    pub(crate) fn new(router: &Router, group: &GroupRef, manager: &ManagerName, status: &Arc<WorkerStatus>) -> Self {
        Self {
            bus: router.bus().within(manager, Arc::clone(status)),
            router: router.clone(),
            group: Arc::clone(group),
            status: Arc::clone(status),
            manager: manager.clone(),
            hand: None,
            deferred: Arc::default(),
            turn: None,
        }
    }

    /// A context of the same worker for another event at the same time.
    pub(crate) fn another(&self) -> Self {
        Self {
            bus: self.bus.clone(),
            router: self.router.clone(),
            group: Arc::clone(&self.group),
            status: Arc::clone(&self.status),
            manager: self.manager.clone(),
            hand: None,
            deferred: Arc::default(),
            turn: None,
        }
    }

    /// Lets openers of tunnels take the turn of the worker's task.
    pub(crate) fn set_turn(&mut self, turn: Arc<dyn Turn>) {
        self.turn = Some(turn);
    }

    /// Takes an event in hand.
    #[inline]
    pub(crate) fn begin(&mut self, delivery: &mut Delivery) {
        self.bus.set_cause(&delivery.envelope);
        self.hand = Some(Hand {
            envelope: delivery.envelope.clone(),
            ticket: delivery.ticket(),
            offer: Mutex::new(match &mut delivery.reply {
                ReplyTo::Tunnel(_, offer) => offer.take().map(|offer| *offer),
                _ => None,
            }),
            attempt: delivery.attempts,
            redelivered: delivery.redelivered,
        });
        self.deferred.store(false, Ordering::Relaxed);
    }

    /// Puts the event down.
    #[inline]
    pub(crate) fn end(&mut self) {
        self.hand = None;
    }

    /// Tells whether the reply was taken along, whatever becomes of the context.
    pub(crate) fn deferral(&self) -> &Arc<AtomicBool> {
        &self.deferred
    }

    // ---- sending ---------------------------------------------------------------------------------------------------

    /// The bus; what is sent through it follows from the event in hand. A clone goes on doing so.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Publishes a notification: [`Bus::publish`].
    ///
    /// # Errors
    ///
    /// As [`Bus::publish`].
    pub async fn publish<E: Notification>(&self, event: E) -> Result<Receipt, PublishError> {
        self.bus.publish(event).await
    }

    /// Publishes a notification if all have room: [`Bus::try_publish`].
    ///
    /// # Errors
    ///
    /// As [`Bus::try_publish`].
    pub fn try_publish<E: Notification>(&self, event: E) -> Result<Receipt, TryPublishError<E>> {
        self.bus.try_publish(event)
    }

    /// Sends a request: [`Bus::request`].
    ///
    /// # Errors
    ///
    /// As [`Bus::request`].
    pub async fn request<E: Request>(&self, event: E) -> Result<E::Output, RequestError> {
        self.bus.request(event).await
    }

    /// Opens a tunnel: [`Bus::open`].
    ///
    /// # Errors
    ///
    /// As [`Bus::open`].
    pub async fn open<E: Tunnel>(&self, event: E) -> Result<OpenedTunnel<E>, RequestError> {
        self.bus.open(event).await
    }

    // ---- the event in hand -----------------------------------------------------------------------------------------

    /// The event in hand with its id, origin, key, headers and cause; none in `started` and `stopping`.
    #[must_use]
    pub fn envelope(&self) -> Option<&Envelope> {
        self.hand.as_ref().map(|hand| &hand.envelope)
    }

    /// Who sent the event from outside, through the gateway of a node: the name in its token or of its session. `None` when it came
    /// from within, or from somebody with neither.
    #[must_use]
    pub fn caller(&self) -> Option<&str> {
        self.envelope()?.header(Headers::CALLER)
    }

    /// The session in which somebody sent the event with a browser: a key for what is kept with it, which opens nothing.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.envelope()?.header(Headers::SESSION)
    }

    /// Which try at the event this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.hand.as_ref().map_or(0, |hand| hand.attempt)
    }

    /// Whether a worker that was lost may have handled the event already, wholly or in part.
    #[must_use]
    pub fn is_redelivered(&self) -> bool {
        self.hand.as_ref().is_some_and(|hand| hand.redelivered)
    }

    /// When the answer, or the event itself, loses its meaning.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.envelope()?.head().deadline
    }

    /// How much time is left until the deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Where the event stands in its trace.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.envelope().map(|envelope| envelope.trace())
    }

    /// A span for what the handler logs, with the event's name and ids.
    #[must_use]
    pub fn span(&self) -> tracing::Span {
        match &self.hand {
            Some(hand) => tracing::info_span!(
                "handle",
                event = %hand.envelope.name(),
                id = %hand.envelope.id(),
                trace = %hand.envelope.trace(),
                manager = %self.manager,
                instance = self.status.index(),
            ),
            None => tracing::info_span!("worker", manager = %self.manager, instance = self.status.index()),
        }
    }

    /// Whether the requester, or the opener of the tunnel, waits no more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.ticket().is_some_and(|ticket| !self.router.is_wanted(ticket))
    }

    /// Ready once the requester, or the opener of the tunnel, waits no more; never for a notification. Cancel safe.
    pub async fn cancelled(&self) {
        let ticket = self.ticket();
        poll_fn(|cx| match ticket {
            Some(ticket) => self.router.poll_unwanted(ticket, cx),
            None => Poll::Pending,
        })
        .await;
    }

    fn ticket(&self) -> Option<Ticket> {
        self.hand.as_ref().and_then(|hand| hand.ticket)
    }

    /// Takes the reply along, to answer the request `E` later: the worker is free for the next event as soon as the
    /// handler returns. What the handler itself returns is then ignored; [`Failure::deferred`] says so.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when the event in hand is not the request `E`, or its reply was taken already.
    ///
    /// ```
    /// # use edri_events::{event, Failure};
    /// # use edri_workers::{Context, Handle, Worker};
    /// # #[event(request, name = "slow.sum", response = u64, crate = edri_events)]
    /// # struct SlowSum(Vec<u64>);
    /// # struct Calculator;
    /// # impl Worker for Calculator {}
    /// impl Handle<SlowSum> for Calculator {
    ///     async fn handle(&mut self, sum: &SlowSum, cx: &mut Context) -> Result<u64, Failure> {
    ///         let reply = cx.defer::<SlowSum>()?;
    ///         let numbers = sum.0.clone();
    ///         tokio::spawn(async move { reply.send(Ok(numbers.iter().sum())) });
    ///         Err(Failure::deferred())
    ///     }
    /// }
    /// ```
    pub fn defer<E: Request>(&mut self) -> Result<Reply<E::Output>, Failure> {
        self.expect::<E>("defer")?;
        self.defer_untyped().map(Reply::new)
    }

    /// As [`Context::defer`], for a worker without the Rust type.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when nobody waits for a reply, or it was taken already.
    pub fn defer_untyped(&mut self) -> Result<Deferred, Failure> {
        match self.ticket() {
            Some(ticket) if !self.deferred.swap(true, Ordering::Relaxed) => Ok(self.router.defer(&self.group, ticket)),
            _ => Err(Failure::new("nothing_to_defer", "nobody waits for a reply, or it was taken already")),
        }
    }

    /// Accepts the tunnel `E` in hand.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when the event in hand is not the tunnel `E`, or it was accepted already.
    pub fn accept<E: Tunnel>(&mut self) -> Result<Accepted<E::Up, E::Down>, Failure> {
        self.expect::<E>("accept")?;
        self.offer().map(Accepted::of)
    }

    /// As [`Context::accept`], for a worker without the Rust types.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when the event in hand is no tunnel, or it was accepted already.
    pub fn accept_untyped(&mut self) -> Result<Accepted<Body, Body>, Failure> {
        self.offer().map(Accepted::untyped)
    }

    fn offer(&mut self) -> Result<Box<dyn Offer>, Failure> {
        let offer = self.hand.as_mut().and_then(|hand| hand.offer.get_mut().take());
        let nothing = || Failure::new("nothing_to_accept", "there is no tunnel, or it was accepted already");
        let offer = offer.ok_or_else(nothing)?;
        if let Some(turn) = &self.turn {
            offer.accept(turn);
        }
        Ok(offer)
    }

    fn expect<E: Event>(&self, what: &str) -> Result<(), Failure> {
        let wanted = E::descriptor().name();
        match self.envelope() {
            Some(envelope) if envelope.name() == wanted => Ok(()),
            Some(envelope) => Err(Failure::new(
                "wrong_event",
                format!("cannot {what} `{wanted}`: the event in hand is `{}`", envelope.name()),
            )),
            None => Err(Failure::new("wrong_event", format!("cannot {what} `{wanted}`: no event is in hand"))),
        }
    }

    // ---- the worker ------------------------------------------------------------------------------------------------

    /// The worker's address: its node, this life of it, and its manager.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.bus.address()
    }

    /// The worker's manager.
    #[must_use]
    pub fn manager(&self) -> &ManagerName {
        &self.manager
    }

    /// Which of its manager's instances the worker is, from 0.
    #[must_use]
    pub fn instance(&self) -> usize {
        self.status.index()
    }

    /// Says how the worker is, for `topology()`.
    pub fn report_health(&self, health: Health) {
        self.status.report_health(health);
    }

    /// Gives a figure of the worker's own, for `topology()`.
    pub fn report_figure(&self, name: &str, value: f64) {
        self.status.report_figure(name, value);
    }
}

// Handlers are futures that move between threads and hold a reference to their context.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Context>();
};

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("manager", &self.manager)
            .field("instance", &self.status.index())
            .field("event", &self.envelope().map(|envelope| envelope.name()))
            .finish_non_exhaustive()
    }
}
