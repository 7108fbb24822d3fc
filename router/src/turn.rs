//! Turns: a worker that sleeps can be run by whoever brings it something and would only wait.
//!
//! A requester that wakes a worker and goes to sleep itself has two tasks change places twice, which costs more than most
//! handlers do. Instead it may take the worker's turn: the worker's task is polled where the requester is. This is helping
//! as of flat combining (Hendler, Incze, Shavit, Tzafrir 2010).

/// Somebody who sleeps until there is something in an inbox, and whose turn others may take.
pub trait Turn: Send + Sync {
    /// Whether it was quick lately: whether the time of an event is worth less than waking it.
    fn is_quick(&self) -> bool;

    /// Runs the sleeper, here and now, until it sleeps again or waits for something else. False when that cannot be, as when it runs
    /// already: then it is to be woken.
    fn take(&self) -> bool;
}
