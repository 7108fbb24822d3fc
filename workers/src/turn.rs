//! A worker's task, whose turn others may take: see [`edri_router::Turn`].

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use edri_router::{GroupRef, Reason, Turn};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime;

use crate::host::{Exit, Seat, panic_text};

/// A worker whose handling takes at most so long is quick: whoever asks it has the answer sooner in its turn than by a wake-up,
/// which takes 50 µs where a thread of the runtime has to be woken.
const QUICK: Duration = Duration::from_micros(20);

/// So deep a worker may ask a worker that asks a worker in one turn, all of which are on one stack.
const DEPTH_MAX: u32 = 4;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// The task.
pub(crate) struct Task(Arc<Shared>);

/// What the task shares with those who take its turn.
pub(crate) struct Shared {
    // Held while the worker is polled, by its task or in its stead; never waited for but to drop it.
    life: Mutex<Life>,
    /// The task was woken while somebody else had its turn.
    woken: AtomicBool,
    /// The worker was quick lately.
    quick: AtomicBool,
    runtime: runtime::Id,
    group: GroupRef,
    inbox: usize,
}

struct Life {
    /// None once it has ended.
    future: Option<BoxFuture<'static, Exit>>,
    /// Of the task; it is what the future is polled with whoever polls it.
    waker: Option<Waker>,
    /// How it ended in somebody else's turn.
    exit: Option<Exit>,
}

impl Task {
    /// The task of the worker at `seat` that lives as `life` says.
    pub(crate) fn new<F>(seat: Seat, life: impl FnOnce(Seat, Arc<Shared>) -> F) -> Self
    where
        F: Future<Output = Exit> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            life: Mutex::new(Life { future: None, waker: None, exit: None }),
            woken: AtomicBool::new(false),
            quick: AtomicBool::new(false),
            runtime: seat.router.runtime().id(),
            group: GroupRef::clone(&seat.group),
            inbox: seat.inbox,
        });
        let future = Box::pin(life(seat, Arc::clone(&shared)));
        shared.life.lock().future = Some(future);
        Self(shared)
    }
}

impl Future for Task {
    type Output = Exit;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Exit> {
        let shared = &self.0;
        shared.group.pass_on(shared.inbox);
        shared.woken.store(true, Ordering::Relaxed);
        // Orders the word before the look at the lock; who has the turn does the reverse.
        fence(Ordering::SeqCst);
        let Some(mut life) = shared.life.try_lock() else { return Poll::Pending };
        shared.woken.store(false, Ordering::Relaxed);
        if !life.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            life.waker = Some(cx.waker().clone());
        }
        let polled = match &mut life.future {
            Some(future) => future.as_mut().poll(cx),
            None => life.exit.take().map_or(Poll::Pending, Poll::Ready),
        };
        if polled.is_ready() {
            // Nobody can take the turn of one that has ended.
            life.future = None;
        }
        polled
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // The worker has a hand on what is shared, as has the inbox while it sleeps.
        let future = self.0.life.lock().future.take();
        drop(future);
        // It does not run any more, so it cannot have been woken for others.
        self.0.group.pass_on(self.0.inbox);
    }
}

impl Shared {
    /// Says how long a delivery took lately.
    pub(crate) fn pace(&self, handling: Duration) {
        self.quick.store(handling <= QUICK, Ordering::Relaxed);
    }

    fn run(&self) -> bool {
        // Only where it runs as in its own task: what a handler spawns, or waits for, is of this runtime.
        if !runtime::Handle::try_current().is_ok_and(|here| here.id() == self.runtime) {
            return false;
        }
        let Some(mut life) = self.life.try_lock() else { return false };
        let Life { future: Some(future), waker: Some(waker), .. } = &mut *life else { return false };
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(waker))));
        let exit = match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(exit)) => Some(exit),
            // As when its own task panics. Panics of handlers do not come so far.
            Err(panic) => Some(Exit::Lost {
                reason: Reason::WorkerLost,
                detail: format!("its task ended: panicked: {}", panic_text(&*panic)),
                resume: Vec::new(),
            }),
        };
        if exit.is_some() {
            life.future = None;
            life.exit = exit;
            self.woken.store(true, Ordering::Relaxed);
        }
        drop(life);
        self.pass_on();
        true
    }

    /// Wakes the task if it was to run meanwhile.
    fn pass_on(&self) {
        loop {
            fence(Ordering::SeqCst);
            if !self.woken.load(Ordering::Relaxed) {
                return;
            }
            // Whoever has it now passes it on, or is the task itself.
            let Some(life) = self.life.try_lock() else { return };
            self.woken.store(false, Ordering::Relaxed);
            if let Some(waker) = &life.waker {
                waker.wake_by_ref();
            }
        }
    }
}

impl Turn for Shared {
    fn is_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let depth = DEPTH.get();
        if depth >= DEPTH_MAX {
            return false;
        }
        DEPTH.set(depth + 1);
        let taken = self.run();
        DEPTH.set(depth);
        taken
    }
}
