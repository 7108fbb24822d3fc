//! What ties an opener to the worker of its tunnel: where it would only wait for it, it may run it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;

use crate::turn::{Helping, Turn};

/// An opener whose window is full, or who has received all there was, waits for the worker. As with requests (see [`Turn`]),
/// waking it and going to sleep costs more than what most workers do with a window of items.
#[derive(Default)]
pub(super) struct Tie {
    /// The worker's, from when it accepts the tunnel.
    turn: OnceLock<Arc<dyn Turn>>,
    /// The opener has woken the worker since it ran it last.
    woken: AtomicBool,
    helping: Helping,
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

    /// For an opener about to wait: runs the worker that it has woken, unless that took long lately.
    pub(super) fn run(&self, cx: &mut Context<'_>) {
        if let Some(turn) = self.turn.get()
            && self.woken.swap(false, Ordering::Relaxed)
        {
            self.helping.help(&**turn, cx);
        }
    }
}
