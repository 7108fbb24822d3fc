//! Turns: a worker that sleeps can be run by whoever brings it something and would only wait.
//!
//! A requester that wakes a worker and goes to sleep itself has two tasks change places twice, which costs more than most
//! handlers do. Instead it may take the worker's turn: the worker's task is polled where the requester is. This is helping
//! as of flat combining (Hendler, Incze, Shavit, Tzafrir 2010).

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::task::coop;

/// A turn that takes longer is worth a thread of its own: waking one takes so long, and then both work.
const LONG: Duration = Duration::from_micros(50);
/// After two such turns, and after one that was in vain, those who would wait do so this many times.
const REST: u32 = 64;

/// Somebody who sleeps until there is something in an inbox, and whose turn others may take.
pub trait Turn: Send + Sync {
    /// Whether it was quick lately: whether the time of an event is worth less than waking it.
    fn is_quick(&self) -> bool;

    /// Runs the sleeper, here and now, until it sleeps again or waits for something else. False when that cannot be, as when it runs
    /// already: then it is to be woken.
    fn take(&self) -> bool;
}

/// Has those who would wait for somebody take its turn, as long as its turns are short.
#[derive(Default)]
pub(crate) struct Helping {
    rest: AtomicU32,
    /// The last turn was long. One may have been interrupted by something else, two in a row are how its turns are.
    long: AtomicBool,
}

impl Helping {
    /// Takes the turn if that was worth it lately; whether it was taken.
    pub(crate) fn help(&self, turn: &dyn Turn, cx: &mut Context<'_>) -> bool {
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            // Others who count at the same time only make the rest longer.
            self.rest.store(rest - 1, Ordering::Relaxed);
            return false;
        }
        // Who never waits would never let go of the thread, so a turn counts as one of tokio's own operations does.
        if pin!(coop::consume_budget()).poll(cx).is_pending() {
            return false;
        }
        let began = Instant::now();
        let taken = turn.take();
        let long = began.elapsed() > LONG;
        if taken && self.long.swap(long, Ordering::Relaxed) && long {
            self.in_vain();
        }
        taken
    }

    /// The turn was of no use.
    pub(crate) fn in_vain(&self) {
        self.rest.store(REST, Ordering::Relaxed);
    }
}
