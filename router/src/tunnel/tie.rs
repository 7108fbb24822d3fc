//! What ties an opener to the worker of its tunnel: where it would only wait for it, it may run it.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::task::coop;

use crate::turn::Turn;

/// A turn of the worker that takes longer is worth a thread of its own: waking one takes 50 µs, and then both ends work.
const LONG: Duration = Duration::from_micros(20);
/// After such a turn the opener waits so many times as one without a tie does.
const REST: u32 = 64;

/// An opener whose window is full, or who has received all there was, waits for the worker. As with requests (see [`Turn`]),
/// waking it and going to sleep costs more than what most workers do with a window of items.
#[derive(Default)]
pub(super) struct Tie {
    /// The worker's, from when it accepts the tunnel.
    turn: OnceLock<Arc<dyn Turn>>,
    /// The opener has woken the worker since it ran it last.
    woken: AtomicBool,
    rest: AtomicU32,
}

impl Tie {
    /// Ties the worker that accepts.
    pub(super) fn accept(&self, turn: &Arc<dyn Turn>) {
        // A tunnel is accepted once.
        let _ = self.turn.set(Arc::clone(turn));
    }

    /// The opener woke the worker.
    pub(super) fn wake(&self) {
        self.woken.store(true, Ordering::Relaxed);
    }

    /// For an opener about to wait: runs the worker that it has woken, unless that took long lately. True when it has run.
    pub(super) fn run(&self, cx: &mut Context<'_>) -> bool {
        let Some(turn) = self.turn.get() else { return false };
        if !self.woken.swap(false, Ordering::Relaxed) {
            return false;
        }
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
            return false;
        }
        // Who never waits would never let go of the thread, so a turn counts as one of tokio's own operations does.
        if pin!(coop::consume_budget()).poll(cx).is_pending() {
            return false;
        }
        let began = Instant::now();
        let taken = turn.take();
        if taken && began.elapsed() > LONG {
            self.rest.store(REST, Ordering::Relaxed);
        }
        taken
    }
}
