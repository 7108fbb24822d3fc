//! An instance on an operating system thread of its own, and whoever watches that it returns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edri_router::{Delivery, Reason};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::Factory;
use crate::host::{Exit, Reach, Seat, may_try_again, run, set, shadow, time_limit_text};

/// How long after its limit, or after the order to end, a thread is given up. A handler that awaits is ended by its own
/// host before; only one that blocks comes this far.
const GRACE: Duration = Duration::from_millis(100);

/// What a thread has in hand, as the one who watches it sees it. Whoever takes it out settles it.
#[derive(Clone, Default)]
pub(crate) struct Watched {
    inner: Arc<WatchedHand>,
}

#[derive(Default)]
struct WatchedHand {
    // Held to put a delivery in or take it out.
    hand: Mutex<Option<InHand>>,
    begun: Notify,
}

struct InHand {
    delivery: Delivery,
    since: Instant,
}

impl Watched {
    pub(crate) fn begin(&self, delivery: &Delivery) {
        *self.inner.hand.lock() = Some(InHand { delivery: shadow(delivery), since: Instant::now() });
        self.inner.begun.notify_one();
    }

    /// Whether the thread still had it in hand; if not, it was given up and must touch nothing any more.
    pub(crate) fn end(&self) -> bool {
        self.inner.hand.lock().take().is_some()
    }

    fn give_up(&self) -> Option<Delivery> {
        self.inner.hand.lock().take().map(|hand| hand.delivery)
    }

    /// Takes out what has been in hand for longer than `limit`, once there is such a thing.
    async fn overdue(&self, limit: Option<Duration>) -> Delivery {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let begun = self.inner.begun.notified();
            let left = {
                let mut hand = self.inner.hand.lock();
                match hand.take() {
                    None => None,
                    Some(in_hand) if in_hand.since.elapsed() >= limit => return in_hand.delivery,
                    Some(in_hand) => {
                        let left = limit.saturating_sub(in_hand.since.elapsed());
                        *hand = Some(in_hand);
                        Some(left)
                    }
                }
            };
            match left {
                None => begun.await,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }
}

/// Runs an instance on a new thread.
pub(crate) async fn spawn(seat: Seat, factory: Factory, ready: oneshot::Sender<()>) -> Exit {
    let name = format!("{}-{}", seat.manager, seat.status.index());
    let watched = Watched::default();
    let (done, ended) = oneshot::channel();
    // What the watcher needs to settle an event when the thread does not come back.
    let watcher = Seat {
        router: seat.router.clone(),
        group: Arc::clone(&seat.group),
        manager: seat.manager.clone(),
        status: Arc::clone(&seat.status),
        signals: seat.signals.clone(),
        resume: Vec::new(),
        ..seat
    };
    let hand = watched.clone();
    let status = Arc::clone(&seat.status);
    let body = move || {
        let exit = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run(seat, factory, ready, Reach::Watched(hand))),
            Err(error) => Exit::StartFailed(format!("its thread has no runtime: {error}"), Vec::new()),
        };
        // Nobody listens any more when the thread was given up.
        if done.send(exit).is_err() {
            status.stuck(false);
        }
    };
    // The kernel shows the first 15 bytes of a thread's name.
    if let Err(error) = std::thread::Builder::new().name(name).spawn(body) {
        return Exit::StartFailed(format!("no thread: {error}"), Vec::new());
    }
    watch(watcher, watched, ended).await
}

async fn watch(seat: Seat, watched: Watched, mut ended: oneshot::Receiver<Exit>) -> Exit {
    let limit = seat.policy.time_limit.map(|limit| limit + GRACE);
    let killed = async {
        set(seat.signals.kill.clone()).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        biased;
        exit = &mut ended => exit.unwrap_or_else(|_| Exit::Lost {
            reason: Reason::WorkerLost,
            detail: "its thread ended without a word".to_owned(),
            resume: Vec::new(),
        }),
        delivery = watched.overdue(limit) => {
            leave(&seat, &mut ended);
            give_up(&seat, delivery)
        }
        () = killed => {
            let exit = leave(&seat, &mut ended);
            if let Some(delivery) = watched.give_up() {
                let detail = "its thread did not return when it was stopped";
                seat.router.discard(&seat.group, delivery, Reason::Stopped, detail);
                seat.status.set_in_hand(0);
            }
            exit.unwrap_or(Exit::Killed)
        }
    }
}

/// Leaves a thread to itself, counted as stuck until it returns; unless it has returned just now.
fn leave(seat: &Seat, ended: &mut oneshot::Receiver<Exit>) -> Option<Exit> {
    // From here on its word has come, or it finds nobody to tell and takes itself out of the count.
    ended.close();
    let exit = ended.try_recv().ok();
    if exit.is_none() {
        seat.status.stuck(true);
    }
    exit
}

fn give_up(seat: &Seat, delivery: Delivery) -> Exit {
    let detail = time_limit_text(seat.policy.time_limit.unwrap_or_default());
    let resume: Vec<_> = may_try_again(seat, delivery, Reason::TimeLimit, &detail).into_iter().collect();
    if resume.is_empty() {
        seat.status.set_in_hand(0);
    }
    Exit::Lost { reason: Reason::TimeLimit, detail, resume }
}
