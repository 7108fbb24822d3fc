//! What an instance works with, and how it goes from one delivery to the next.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use edri_events::{Envelope, Value};
use edri_router::{Delivery, Ended, InboxConsumer};
use futures_util::FutureExt;

use super::{Called, Exit, Next, Reach, Seat, Timer, begin, finish, killed, panic_text, settle};
use crate::instance::Instance;
use crate::thread::Watched;
use crate::{Context, HandlerError, Outcome, turn};

/// What an instance works with: its seat, its context, its inbox, and the delivery in hand.
pub struct Desk {
    pub(crate) seat: Seat,
    pub(crate) cx: Context,
    pub(crate) consumer: InboxConsumer,
    /// What the last instance had when it was lost; it comes before anything new.
    resume: VecDeque<Delivery>,
    turn: Option<Arc<turn::Shared>>,
    watched: Option<Watched>,
    /// What was taken, and is being handled once it was begun.
    pub(crate) hand: Option<Delivery>,
    timer: Timer,
    /// What came of the delivery in hand, when it takes more than counting it.
    outcome: Option<Outcome>,
    /// Taken after the delivery that was in hand, and for another handler.
    pub(crate) next: Option<Delivery>,
    /// How many deliveries may still be begun before other tasks have their turn.
    pub(crate) turns: u32,
    /// The handler whose call goes on with what comes next, where nothing was left.
    rests: Option<u32>,
    /// The call waits for a delivery, and not for its handler; looked at by who waits for the call.
    resting: Arc<AtomicBool>,
}

/// Other tasks have their turn after so many deliveries, as with tokio's own budget.
pub(crate) const TURNS: u32 = 128;

impl Desk {
    pub(super) fn new(mut seat: Seat, mut cx: Context, reach: Reach) -> Self {
        let mut consumer = seat.group.consume(seat.inbox);
        let resume = std::mem::take(&mut seat.resume).into();
        let timer = Timer::default();
        let (turn, watched) = match reach {
            Reach::Alone => (None, None),
            Reach::Turn(turn) => (Some(turn), None),
            Reach::Watched(watched) => (None, Some(watched)),
        };
        if let Some(turn) = &turn {
            consumer.set_turn(Arc::clone(turn) as _);
            cx.set_turn(Arc::clone(turn) as _);
        }
        Self {
            seat,
            cx,
            consumer,
            resume,
            turn,
            watched,
            hand: None,
            timer,
            outcome: None,
            next: None,
            turns: TURNS,
            rests: None,
            resting: Arc::default(),
        }
    }

    /// Lets the next instance have what this one was to resume and has not begun.
    pub(super) fn leave_rest(&mut self, mut exit: Exit) -> Exit {
        let rest = std::mem::take(&mut self.resume);
        match &mut exit {
            Exit::Lost { resume, .. } => {
                resume.extend(rest);
                self.seat.status.set_in_hand(resume.len());
                exit
            }
            _ => {
                killed(&self.seat, rest, "its worker was stopped before it took it again");
                exit
            }
        }
    }

    /// Takes the next delivery in hand, if there is one.
    #[inline]
    pub(crate) fn take(&mut self) -> bool {
        if self.resume.is_empty() {
            return !self.consumer.is_dry() && self.consumer.try_next_into(&mut self.hand);
        }
        self.hand = self.resume.pop_front();
        true
    }

    /// Takes the next delivery of the inbox in hand, waiting for it; false once the inbox is closed and empty. Cancel safe.
    #[inline]
    pub(crate) fn poll_take(&mut self, cx: &mut std::task::Context<'_>) -> Poll<bool> {
        self.consumer.poll_next_into(cx, &mut self.hand)
    }

    /// Handles the delivery in hand from its first try to its end, and those that follow it in the inbox, waiting for them, while they
    /// are for the same handler and end well at once. Returns how the instance ended, if it did.
    pub(crate) async fn handle(
        &mut self,
        instance: &mut Box<dyn Instance>,
        mut kill: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Exit> {
        if !self.begin() {
            return None;
        }
        loop {
            let called = self.call(instance, kill.as_mut()).await;
            self.cx.end();
            let Some(called) = called else { break };
            let Some(delivery) = self.hand.take() else {
                // It waited for a delivery.
                return matches!(called, Called::Killed).then_some(Exit::Killed);
            };
            if matches!(called, Called::GivenUp) {
                return Some(Exit::Killed);
            }
            self.timer.stop(&self.seat.status);
            match settle(&self.seat, delivery, called, self.cx.deferral()) {
                Next::Settled => break,
                Next::End(exit) => return Some(exit),
                Next::Again(mut again, pause) => {
                    self.consumer.give_back();
                    tokio::select! {
                        biased;
                        () = &mut kill => return Some(killed(&self.seat, [again], "it was stopped between retries")),
                        () = tokio::time::sleep(pause) => {}
                    }
                    again.attempts += 1;
                    self.timer = Timer::start(&again);
                    self.cx.begin(&mut again);
                    self.hand = Some(again);
                }
            }
        }
        self.seat.status.set_in_hand(usize::from(self.next.is_some()));
        None
    }

    /// Begins the delivery in hand if it is still worth handling, otherwise puts it down.
    #[inline]
    fn begin(&mut self) -> bool {
        let Some(delivery) = &mut self.hand else { return false };
        if !begin(&self.seat, delivery) {
            self.hand = None;
            return false;
        }
        self.seat.status.set_in_hand(1);
        self.turns = self.turns.saturating_sub(1);
        self.timer = Timer::start(delivery);
        self.cx.begin(delivery);
        true
    }

    /// Whether there is an event for the handler that is being called, waiting for it; false when the call is to end.
    ///
    /// A worker sleeps within the call, so that a call, and all that surrounds it, is not made anew for each event.
    #[inline]
    pub(crate) fn poll_hand(&mut self, cx: &mut std::task::Context<'_>) -> Poll<bool> {
        match &self.hand {
            Some(_) => Poll::Ready(self.outcome.is_none()),
            None => self.poll_rest(cx),
        }
    }

    fn poll_rest(&mut self, cx: &mut std::task::Context<'_>) -> Poll<bool> {
        let Some(handler) = self.rests else { return Poll::Ready(false) };
        self.seat.status.set_in_hand(0);
        let goes_on = loop {
            match self.poll_take(cx) {
                Poll::Pending => {
                    // Others have theirs while this one sleeps.
                    self.turns = TURNS;
                    self.resting.store(true, Ordering::Relaxed);
                    return Poll::Pending;
                }
                Poll::Ready(false) => break false,
                Poll::Ready(true) => {}
            }
            if self.hand.as_ref().is_some_and(|next| next.handler != handler) {
                self.next = self.hand.take();
                break false;
            }
            if self.begin() {
                break true;
            }
        };
        self.rests = None;
        self.resting.store(false, Ordering::Relaxed);
        Poll::Ready(goes_on)
    }

    /// The event in hand and what its handler needs.
    #[inline]
    pub(crate) fn in_hand(&mut self) -> Option<(&Envelope, &mut Context, &mut InboxConsumer)> {
        let delivery = self.hand.as_ref()?;
        Some((&delivery.envelope, &mut self.cx, &mut self.consumer))
    }

    /// Puts down the event, which was handled well: it is settled, and if that needed no waiting, the next one for the same handler is
    /// taken in hand. The value is asked for only where somebody wants it.
    #[inline]
    pub(crate) fn put_down(&mut self, value: impl FnOnce() -> Value, waited: bool) {
        let Some(delivery) = &self.hand else { return };
        if self.watched.is_some() || self.cx.deferral().load(Ordering::Relaxed) {
            // For `Desk::handle` to see to.
            self.outcome = Some(Ok(value()));
            return;
        }
        let ticket = delivery.ticket();
        self.stop_timer();
        if let Some(ticket) = ticket {
            // A requester that is gone by now is counted by the router.
            self.seat.router.complete(ticket, Ok(value()));
        }
        self.go_on(waited);
    }

    /// Puts down the event, which was not handled well: [`Desk::handle`] sees to it.
    #[cold]
    pub(crate) fn give_up(&mut self, error: HandlerError) {
        self.outcome = Some(Err(error));
    }

    #[inline]
    fn stop_timer(&mut self) {
        if let Some(handling) = self.timer.stop(&self.seat.status) {
            self.pace(handling);
        }
    }

    /// Says how long the event took, which few are asked.
    #[cold]
    fn pace(&mut self, handling: Duration) {
        self.consumer.pace(handling);
        if let Some(turn) = &self.turn {
            turn.pace(handling);
        }
    }

    /// Counts the event as handled, and takes the next for the same handler in hand, if there is one and this one did not wait.
    fn go_on(&mut self, waited: bool) {
        self.seat.status.count(Ended::Handled);
        self.cx.end();
        let Some(handler) = self.hand.as_ref().map(|delivery| delivery.handler) else { return };
        self.hand = None;
        // The time limit of the one that waited runs until the call returns.
        while !waited && self.turns > 0 {
            // Into its place at once: a delivery is moved as seldom as can be.
            if !self.consumer.try_next_into(&mut self.hand) {
                // What is to be resumed is for the next call.
                self.rests = self.resume.is_empty().then_some(handler);
                return;
            }
            if self.hand.as_ref().is_some_and(|next| next.handler != handler) {
                self.next = self.hand.take();
                return;
            }
            if self.begin() {
                return;
            }
        }
    }

    /// Calls the handler of the delivery in hand; nothing comes back when all is settled.
    async fn call(
        &mut self,
        instance: &mut Box<dyn Instance>,
        kill: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Called> {
        let (handler, limit) = (self.hand.as_ref()?.handler, self.seat.policy.time_limit);
        if let (Some(watched), Some(delivery)) = (&self.watched, &self.hand) {
            self.consumer.give_back();
            watched.begin(delivery);
        }
        let resting = Arc::clone(&self.resting);
        let called = {
            let mut handling = pin!(AssertUnwindSafe(instance.handle(handler, self)).catch_unwind());
            // Most handlers are ready at once; only the others need timers and signals.
            match poll_fn(|cx| Poll::Ready(handling.as_mut().poll(cx))).await {
                Poll::Ready(done) => Ok(done),
                Poll::Pending => finish(handling, limit, &resting, kill).await,
            }
        };
        if self.watched.as_ref().is_some_and(|watched| !watched.end()) {
            return Some(Called::GivenUp);
        }
        match called {
            Ok(Ok(())) => self.outcome.take().map(Called::Done),
            Ok(Err(panic)) => Some(Called::Panicked(panic_text(&*panic))),
            Err(called) => Some(called),
        }
    }
}

/// Polls a handler. The first time that it is not ready, the consumer gives back what it keeps, as before anything that may last.
pub(crate) fn attend<F: Future>(
    handling: Pin<&mut F>,
    cx: &mut std::task::Context<'_>,
    consumer: &mut InboxConsumer,
    waited: &mut bool,
) -> Poll<F::Output> {
    let polled = handling.poll(cx);
    if polled.is_pending() && !std::mem::replace(waited, true) {
        consumer.give_back();
    }
    polled
}
