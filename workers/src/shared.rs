//! Serving an inbox: one event at a time, or several when handlers take `&self`.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use edri_router::{Delivery, Reason};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;

use crate::host::{
    Called, Desk, Exit, Next, Seat, TURNS, Timer, begin, finish, may_try_again, panic_text, set, settle,
    time_limit_text,
};
use crate::instance::Instance;

/// What a running call, or the pause before the next one, comes to.
enum Progress {
    /// The handler has ended.
    Ended { delivery: Delivery, called: Called, deferred: Arc<AtomicBool>, timer: Timer },
    /// The pause before the next try is over.
    Rested(Delivery),
    /// The instance was told to end during such a pause.
    Interrupted(Delivery),
}

/// Serves the inbox until it is closed and empty (`None`), or the instance ends before.
pub(crate) async fn serve(
    desk: &mut Desk,
    instance: &mut Box<dyn Instance>,
    mut kill: Pin<&mut impl Future<Output = ()>>,
) -> Option<Exit> {
    let mut beside = Beside { calls: FuturesUnordered::new(), lost: None };
    loop {
        if desk.turns == 0 {
            // Lets other tasks of the runtime have their turn under load, and publishers the places.
            desk.consumer.give_back();
            tokio::task::yield_now().await;
            desk.turns = TURNS;
        }
        // What is taken goes into the desk's hand at once: a delivery is moved as seldom as can be.
        let taken = desk.hand.is_some() || (beside.may_take(desk) && desk.take());
        if !taken && beside.calls.is_empty() {
            if let Some(exit) = beside.lost.take() {
                return Some(exit);
            }
            let taken = poll_fn(|cx| match desk.poll_take(cx) {
                Poll::Ready(taken) => Poll::Ready(Ok(taken)),
                Poll::Pending => {
                    // Others have theirs while this one sleeps.
                    desk.turns = TURNS;
                    kill.as_mut().poll(cx).map(Err)
                }
            });
            match taken.await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(()) => return Some(Exit::Killed),
            }
        } else if !taken {
            if beside.may_take(desk) {
                desk.consumer.give_back();
            } else {
                desk.consumer.stand_down();
            }
            tokio::select! {
                biased;
                Some(progress) = beside.calls.next() => {
                    desk.hand = beside.end(desk, progress);
                    continue;
                }
                taken = poll_fn(|cx| desk.poll_take(cx)), if beside.may_take(desk) => {
                    if !taken {
                        // Closed: what is running ends first.
                        if let Some(progress) = beside.calls.next().await {
                            desk.hand = beside.end(desk, progress);
                        }
                        continue;
                    }
                }
            }
        }
        let Some(handler) = desk.hand.as_ref().map(|delivery| delivery.handler) else { continue };
        if instance.is_concurrent(handler) {
            desk.turns = desk.turns.saturating_sub(1);
            if let Some(delivery) = desk.hand.take() {
                beside.begin(desk, instance, delivery);
            }
            continue;
        }
        // The handler wants the instance for itself.
        while !beside.calls.is_empty()
            && let Some(progress) = beside.calls.next().await
        {
            if let Some(again) = beside.end(desk, progress) {
                beside.begin(desk, instance, again);
            }
        }
        if let Some(mut exit) = beside.lost.take() {
            // The event was taken but not begun, so the next instance gets it as it is.
            match (&mut exit, desk.hand.take()) {
                (Exit::Lost { resume, .. }, taken) => {
                    resume.extend(taken);
                    desk.seat.status.set_in_hand(resume.len());
                }
                (_, Some(delivery)) => {
                    let (seat, detail) = (&desk.seat, "its worker was lost");
                    seat.router.discard(&seat.group, delivery, Reason::WorkerLost, detail);
                }
                (_, None) => {}
            }
            return Some(exit);
        }
        if let Some(exit) = desk.handle(instance, kill.as_mut()).await {
            return Some(exit);
        }
        desk.hand = desk.next.take();
    }
}

/// The calls of concurrent handlers that are running.
struct Beside {
    calls: FuturesUnordered<BoxFuture<'static, Progress>>,
    /// How the instance is to end once they have.
    lost: Option<Exit>,
}

impl Beside {
    fn may_take(&self, desk: &Desk) -> bool {
        self.lost.is_none() && self.calls.len() < desk.seat.policy.concurrency
    }

    fn begin(&mut self, desk: &mut Desk, instance: &mut Box<dyn Instance>, mut delivery: Delivery) {
        if !begin(&desk.seat, &mut delivery) {
            desk.seat.status.set_in_hand(self.calls.len());
            return;
        }
        let mut cx = desk.cx.another();
        cx.begin(&mut delivery);
        let deferred = Arc::clone(cx.deferral());
        let timer = Timer::start(&delivery);
        let handling = instance.handle_beside(delivery.handler, delivery.envelope.clone(), cx);
        let (limit, kill) = (desk.seat.policy.time_limit, desk.seat.signals.kill.clone());
        self.calls.push(Box::pin(async move {
            let called = match finish(
                AssertUnwindSafe(handling).catch_unwind(),
                limit,
                &AtomicBool::new(false),
                set(kill),
            )
            .await
            {
                Ok(Ok(outcome)) => Called::Done(outcome),
                Ok(Err(panic)) => Called::Panicked(panic_text(&*panic)),
                Err(called) => called,
            };
            Progress::Ended { delivery, called, deferred, timer }
        }));
        desk.seat.status.set_in_hand(self.calls.len());
    }

    /// Settles what has ended; returns a delivery that is to be tried again now.
    fn end(&mut self, desk: &mut Desk, progress: Progress) -> Option<Delivery> {
        let seat = &desk.seat;
        let again = match progress {
            Progress::Rested(delivery) => Some(delivery),
            Progress::Interrupted(delivery) => {
                let detail = "its worker was stopped between retries";
                seat.router.discard(&seat.group, delivery, Reason::Stopped, detail);
                self.lost.get_or_insert(Exit::Killed);
                None
            }
            Progress::Ended { delivery, called, deferred, mut timer } => {
                timer.stop(&seat.status);
                self.settle(seat, delivery, called, &deferred)
            }
        };
        let again = match (&mut self.lost, again) {
            (None, again) => again,
            (Some(_), None) => None,
            // The next instance gets the event.
            (Some(Exit::Lost { resume, .. }), Some(delivery)) => {
                resume.push(delivery);
                None
            }
            (Some(_), Some(delivery)) => {
                seat.router.discard(&seat.group, delivery, Reason::WorkerLost, "its worker was lost");
                None
            }
        };
        let resumed = match &self.lost {
            Some(Exit::Lost { resume, .. }) => resume.len(),
            _ => 0,
        };
        seat.status.set_in_hand(self.calls.len() + resumed + usize::from(again.is_some()));
        again
    }

    fn settle(&mut self, seat: &Seat, delivery: Delivery, called: Called, deferred: &AtomicBool) -> Option<Delivery> {
        if let (Called::TimeLimit(limit), false) = (&called, deferred.load(Ordering::Relaxed)) {
            // The instance only lent itself: a handler that takes too long is dropped, and the others go on.
            return may_try_again(seat, delivery, Reason::TimeLimit, &time_limit_text(*limit));
        }
        match settle(seat, delivery, called, deferred) {
            Next::Settled => None,
            Next::Again(delivery, pause) => {
                self.calls.push(Box::pin(rest(delivery, pause, seat.signals.kill.clone())));
                None
            }
            Next::End(Exit::Lost { reason, detail, resume }) => {
                match &mut self.lost {
                    Some(Exit::Lost { resume: already, .. }) => already.extend(resume),
                    Some(_) => {
                        for delivery in resume {
                            seat.router.discard(&seat.group, delivery, reason, &detail);
                        }
                    }
                    None => self.lost = Some(Exit::Lost { reason, detail, resume }),
                }
                None
            }
            Next::End(exit) => {
                self.lost = Some(exit);
                None
            }
        }
    }
}

/// The pause before another try.
async fn rest(delivery: Delivery, pause: Duration, kill: watch::Receiver<bool>) -> Progress {
    tokio::select! {
        biased;
        () = set(kill) => Progress::Interrupted(delivery),
        () = tokio::time::sleep(pause) => Progress::Rested(delivery),
    }
}
