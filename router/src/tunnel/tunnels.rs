//! Tunnels between local halves and another side: a process behind a socket, or another node.
//!
//! ```text
//!   local halves                 Tunnels                            the other side
//!   Receiver ─▶ outward pump ─── credit it gave ────── item, end ─▶   (OtherSide)
//!   Sender  ◀── inward pump ◀─── queue within ours ─── item, end ◀─   (Tunnels::item, Tunnels::end)
//!                      └──────── credit, by halves of the window ─▶
//! ```
//!
//! What is said to the other side is bounded by the credit that it gave, and what waits here by the credit that it was
//! given. So neither end of a slow tunnel holds up whoever carries it, and whoever carries it never has to wait.
//!
//! How items are written and by what way they go is not known here, nor how a tunnel's outcome is told.

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::Hash;
use std::sync::Arc;

use edri_events::{Body, Failure};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::flow::{Flow, Inward, Over};
use super::{Receiver, Sender, TunnelError};

/// How much may be sent in one direction of a tunnel, or how much more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grant {
    /// So many items.
    pub items: u64,
    /// So many bytes of payload. An item may be sent while any are left, so it may take more than there were.
    pub bytes: u64,
}

/// On which side a tunnel was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Opener {
    /// Here: the local halves are those of a worker, who is on the other side.
    Here,
    /// There: the local halves are those of an opener, and a worker is here.
    There,
}

/// What can be said to the other side of tunnels.
///
/// None of it may wait: what there is to carry is bounded by credit. What is said of one tunnel arrives in this order.
pub trait OtherSide: Send + Sync + 'static {
    /// What names a tunnel on both sides: a number, or whose number it is too.
    type Key: Copy + Eq + Hash + Send + Sync + 'static;

    /// Sends an item. Returns the bytes of credit that it takes: the length of its payload as the other side gets it.
    ///
    /// # Errors
    ///
    /// When it cannot be written. The tunnel is broken with that error then.
    fn item(&self, key: Self::Key, item: Body) -> Result<u64, TunnelError>;

    /// Says that so much more is taken.
    fn credit(&self, key: Self::Key, more: Grant);

    /// Says that no item follows. It is not said when a worker's handler returns without it: the outcome says that.
    fn end(&self, key: Self::Key);

    /// Breaks the tunnel. Nothing that follows for it means anything to the other side, except an outcome.
    fn abort(&self, key: Self::Key, error: &TunnelError);

    /// An item came without credit for it. [`OtherSide::abort`] with this failure follows, so there may be nothing to say.
    fn no_credit(&self, key: Self::Key, failure: &Failure) {
        let _ = (key, failure);
    }
}

/// The tunnels that run between local halves and one other side.
///
/// A key that is not known, or no more, is no error here: what still came for a tunnel may have crossed its end. How many
/// tunnels run is bounded by whoever calls [`Tunnels::run`]. Dropping this is as [`Tunnels::close`].
pub struct Tunnels<S: OtherSide> {
    side: Arc<S>,
    window: Grant,
    runtime: Handle,
    // Held to find, add or remove a tunnel.
    running: Mutex<Running<S>>,
}

struct Running<S: OtherSide> {
    tunnels: HashMap<S::Key, Arc<Carried<S>>>,
    closed: Option<Closed>,
}

/// How all tunnels ended, and how those end that come later.
#[derive(Clone)]
enum Closed {
    Over,
    Broken(TunnelError),
}

impl<S: OtherSide> Tunnels<S> {
    /// Tunnels with `side`, pumped on `runtime`. `window` is what is taken in each tunnel before credit is given again; of
    /// nothing, one.
    #[must_use]
    pub fn new(side: Arc<S>, window: Grant, runtime: Handle) -> Self {
        let window = Grant { items: window.items.max(1), bytes: window.bytes.max(1) };
        let running = Running { tunnels: HashMap::new(), closed: None };
        Self { side, window, runtime, running: Mutex::new(running) }
    }

    /// How many tunnels run: those that are not [`over`](Tunnels::over) yet.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.lock().tunnels.len()
    }

    // ---- running one -----------------------------------------------------------------------------------------------

    /// Runs a tunnel between the local halves and the other side until it is [`over`](Tunnels::over).
    ///
    /// `credit` is what the other side takes at first: what it said when it opened the tunnel, or nothing when it was
    /// opened here. A side that opens says its window with that; one that was opened to is given it now as credit, by which
    /// the opener knows that the tunnel was [`taken`](Tunnels::taken). A key that is used again ends the tunnel before.
    pub fn run(&self, key: S::Key, opener: Opener, receiver: Receiver<Body>, sender: Sender<Body>, credit: Grant) {
        let flow = Flow::new(opener, credit, self.window);
        let tunnel = Arc::new(Carried { key, opener, window: self.window, side: Arc::clone(&self.side), flow });
        let (replaced, closed) = {
            let mut running = self.running.lock();
            match &running.closed {
                Some(closed) => (None, Some(closed.clone())),
                None => (running.tunnels.insert(key, Arc::clone(&tunnel)), None),
            }
        };
        if let Some(replaced) = replaced {
            replaced.flow.over();
        }
        if opener == Opener::There {
            self.side.credit(key, self.window);
        }
        if let Some(closed) = closed {
            tunnel.close(&closed);
        }
        self.runtime.spawn(Arc::clone(&tunnel).pump_out(receiver));
        self.runtime.spawn(tunnel.pump_in(sender));
    }

    /// Waits until all that the local side sent through the tunnel, and its end, was given to the other side: what is said
    /// now comes after it. Ready at once when the tunnel is over or not known.
    ///
    /// For one waiter a tunnel at a time. Cancel safe.
    pub async fn sent(&self, key: S::Key) {
        if let Some(tunnel) = self.find(key) {
            tunnel.flow.sent().await;
        }
    }

    /// Waits until the other side has given credit, which says that it has taken the tunnel. Ready at once when the tunnel
    /// is over or not known.
    ///
    /// For one waiter a tunnel at a time. Cancel safe.
    pub async fn taken(&self, key: S::Key) {
        if let Some(tunnel) = self.find(key) {
            tunnel.flow.taken().await;
        }
    }

    /// The tunnel's outcome came or was sent, or its opener waits no more. Items of a worker that are here already still go
    /// to its opener; a worker that is still there sees its opener gone.
    pub fn over(&self, key: S::Key) {
        let tunnel = self.running.lock().tunnels.remove(&key);
        if let Some(tunnel) = tunnel {
            tunnel.flow.over();
        }
    }

    /// Breaks a tunnel from here: both local ends get `error`, and so does the other side unless the tunnel was broken
    /// before. It is not over by that. False when there is no such tunnel.
    pub fn break_off(&self, key: S::Key, error: TunnelError) -> bool {
        self.with(key, |tunnel| tunnel.break_off(error))
    }

    // ---- what came -------------------------------------------------------------------------------------------------

    /// An item came. One without credit breaks the tunnel, at both sides. False when there is no such tunnel.
    pub fn item(&self, key: S::Key, item: Body) -> bool {
        self.with(key, |tunnel| {
            if !tunnel.flow.push(item) {
                let failure = Failure::new("no_credit", "an item came without credit for it: wait for `credit`");
                self.side.no_credit(key, &failure);
                tunnel.break_off(TunnelError::Aborted(failure));
            }
        })
    }

    /// So much more may be sent. False when there is no such tunnel.
    pub fn credit(&self, key: S::Key, more: Grant) -> bool {
        self.with(key, |tunnel| tunnel.flow.add_credit(more))
    }

    /// No item follows. False when there is no such tunnel.
    pub fn end(&self, key: S::Key) -> bool {
        self.with(key, |tunnel| tunnel.flow.finished())
    }

    /// The other side broke the tunnel: both local ends get `error`. False when there is no such tunnel.
    pub fn abort(&self, key: S::Key, error: TunnelError) -> bool {
        self.with(key, |tunnel| {
            tunnel.flow.end(Over::Broken(error));
        })
    }

    // ---- the end of all --------------------------------------------------------------------------------------------

    /// The other side is gone: every tunnel is over, as [`Tunnels::over`] says it; also those to come.
    pub fn close(&self) {
        self.close_as(Closed::Over);
    }

    /// The other side is gone: every tunnel is broken with `error` at its local ends, which lose what they have not read;
    /// also those to come. The other side is not told.
    pub fn break_all(&self, error: TunnelError) {
        self.close_as(Closed::Broken(error));
    }

    fn close_as(&self, closed: Closed) {
        let tunnels = {
            let mut running = self.running.lock();
            running.closed.get_or_insert_with(|| closed.clone());
            std::mem::take(&mut running.tunnels)
        };
        tunnels.values().for_each(|tunnel| tunnel.close(&closed));
    }

    fn find(&self, key: S::Key) -> Option<Arc<Carried<S>>> {
        self.running.lock().tunnels.get(&key).cloned()
    }

    /// Does something with a tunnel without holding the lock; false when there is none.
    fn with(&self, key: S::Key, then: impl FnOnce(&Carried<S>)) -> bool {
        self.find(key).inspect(|tunnel| then(tunnel)).is_some()
    }
}

impl<S: OtherSide> Drop for Tunnels<S> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<S: OtherSide> std::fmt::Debug for Tunnels<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnels").field("count", &self.count()).field("window", &self.window).finish_non_exhaustive()
    }
}

/// A tunnel and what its pumps need.
struct Carried<S: OtherSide> {
    key: S::Key,
    opener: Opener,
    window: Grant,
    side: Arc<S>,
    flow: Flow,
}

impl<S: OtherSide> Carried<S> {
    fn close(&self, closed: &Closed) {
        match closed {
            Closed::Over => self.flow.over(),
            Closed::Broken(error) => {
                self.flow.end(Over::Broken(error.clone()));
            }
        }
    }

    /// Breaks the tunnel from here, and tells the other side unless it is broken already.
    fn break_off(&self, error: TunnelError) {
        if self.flow.end(Over::Broken(error.clone())) {
            self.side.abort(self.key, &error);
        }
    }

    /// Sends what comes out of the local half, within the credit that the other side gave.
    async fn pump_out(self: Arc<Self>, mut receiver: Receiver<Body>) {
        let flow = &self.flow;
        let broken = loop {
            let received = tokio::select! {
                biased;
                over = flow.outward_over() => return leave(&receiver, over),
                received = receiver.recv() => received,
            };
            let item = match received {
                Ok(Some(item)) => item,
                Ok(None) => {
                    // A worker's handler that returned has ended its direction by that, and an outcome says so.
                    if receiver.is_finished() {
                        self.side.end(self.key);
                    }
                    flow.all_sent();
                    if flow.is_deaf() {
                        self.break_off(TunnelError::PeerDropped);
                    }
                    tokio::select! {
                        biased;
                        over = flow.outward_over() => return leave(&receiver, over),
                        error = receiver.broken_off() => break error,
                    }
                }
                Err(error) => break error,
            };
            tokio::select! {
                biased;
                over = flow.credit_for_one() => if let Some(over) = over {
                    return leave(&receiver, over);
                },
                error = receiver.broken_off() => break error,
            }
            match self.side.item(self.key, item) {
                Ok(bytes) => flow.took_credit(bytes),
                Err(error) => break error,
            }
        };
        self.break_off(broken.clone());
        receiver.break_off(broken);
        flow.all_sent();
    }

    /// Gives what came to the local half, and gives credit back for what that has taken.
    async fn pump_in(self: Arc<Self>, mut sender: Sender<Body>) {
        let (flow, window) = (&self.flow, self.window);
        let mut used = Grant::default();
        let broken = loop {
            let item = match poll_fn(|cx| flow.poll_inward(cx)).await {
                Inward::Item(item) => item,
                Inward::Finished => {
                    sender.finish();
                    continue;
                }
                Inward::Over(Over::Done) => return,
                Inward::Over(Over::Broken(error)) => return sender.break_off(error),
            };
            let bytes = item.bytes.len() as u64;
            if !flow.is_deaf() {
                let sent = tokio::select! {
                    biased;
                    error = flow.inward_broken() => return sender.break_off(error),
                    sent = sender.send(item) => sent,
                };
                match sent {
                    Ok(()) => {}
                    // The local end reads no more but may go on sending.
                    Err(TunnelError::PeerDropped | TunnelError::Finished) => flow.set_deaf(),
                    Err(error) => break error,
                }
            }
            if flow.is_deaf() {
                match self.opener {
                    // An opener that neither reads nor sends is of no use to the worker.
                    Opener::Here if flow.is_sent() => break TunnelError::PeerDropped,
                    Opener::Here => {}
                    // The opener of a worker that reads no more learns from the outcome what to do.
                    Opener::There => continue,
                }
            }
            used = Grant { items: used.items + 1, bytes: used.bytes + bytes };
            if (used.items >= window.items / 2 || used.bytes >= window.bytes / 2) && flow.give(used) {
                self.side.credit(self.key, used);
                used = Grant::default();
            }
        };
        self.break_off(broken.clone());
        sender.break_off(broken);
    }
}

/// Leaves the local half in the way that its other end is to see.
fn leave(receiver: &Receiver<Body>, over: Over) {
    if let Over::Broken(error) = over {
        receiver.break_off(error);
    }
}

#[cfg(test)]
mod tests;
