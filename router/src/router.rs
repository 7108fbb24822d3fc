//! The router of a node, for those who run it: managers, connectors, gateways.

use std::sync::Arc;
use std::task::{Context, Poll};

use edri_events::{Address, DescriptorRef, Incarnation, NodeName, Notification};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::actor::{Change, RouterActor};
use crate::bus::Bus;
use crate::control::Control;
use crate::core::{Core, Phase};
use crate::delivery::Delivery;
use crate::group::{Group, GroupRef};
use crate::letters::Reason;
use crate::limits::Limits;
use crate::pending::{Forgone, Outcome, Ticket};
use crate::reply::Deferred;
use crate::subscribe::Selection;
use crate::system::NodeChanged;
use crate::uplink::{Outcomes, Uplink};
use crate::{Account, DeclareError, RequestError};

/// The router of one node: what a [`Bus`] sends through, with the powers that only the node's own parts need.
#[derive(Clone)]
pub struct Router {
    pub(crate) core: Arc<Core>,
    _sweeper: Arc<Sweeper>,
}

struct Sweeper(AbortHandle);

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A group and what it wants.
#[derive(Debug)]
pub struct Joining {
    /// The group.
    pub group: GroupRef,
    /// The events its handlers take, to be declared with it.
    pub events: Vec<DescriptorRef>,
    /// What it is given.
    pub selections: Vec<Selection>,
}

impl Router {
    /// Starts a router: its actor on `control`, its one timer task on `runtime`.
    #[must_use]
    pub fn start(node: NodeName, limits: Limits, control: &Control, runtime: &Handle) -> Self {
        let address = Address { node, incarnation: Incarnation::random(), manager: None };
        let core = Core::new(address, limits, runtime.clone());
        core.set_router(RouterActor::start(Arc::clone(&core), control.arbiter()));
        let swept = Arc::clone(&core);
        let sweeper = runtime.spawn(async move { swept.pending.run_sweeper().await });
        Self { core, _sweeper: Arc::new(Sweeper(sweeper.abort_handle())) }
    }

    /// A router without a table of its own, for a process worker: everything that is sent through its bus goes to
    /// `uplink`, and the outcomes of calls that came from its node to `outcomes`. It needs no actor.
    #[doc(hidden)]
    #[must_use]
    pub fn beneath(address: Address, runtime: &Handle, uplink: Arc<dyn Uplink>, outcomes: Arc<dyn Outcomes>) -> Self {
        // How many calls come is bounded by the window that the worker has given its node.
        let limits = Limits { pending_max: usize::MAX, ..Limits::default() };
        let core = Core::new(address, limits, runtime.clone());
        core.set_uplink(uplink);
        core.pending.set_outcomes(outcomes);
        core.settle();
        let swept = Arc::clone(&core);
        let sweeper = runtime.spawn(async move { swept.pending.run_sweeper().await });
        Self { core, _sweeper: Arc::new(Sweeper(sweeper.abort_handle())) }
    }

    /// Sends the outcomes of calls that came from elsewhere to `outcomes`: see [`Router::await_call`].
    ///
    /// # Panics
    ///
    /// When it was set before.
    pub fn set_outcomes(&self, outcomes: Arc<dyn Outcomes>) {
        self.core.pending.set_outcomes(outcomes);
    }

    /// Opens a slot for a call that came from elsewhere; its outcome goes to [`Outcomes`] under this number. `None` when as
    /// many requests are open as may be.
    #[must_use]
    pub fn await_call(&self, call: u64) -> Option<Ticket> {
        self.core.pending.await_call(call)
    }

    /// Nobody wants the outcome of this call any more; its handler sees that, and the outcome is told all the same. Whether
    /// there is such a call. Looks at every slot; [`Router::forgo`] does not.
    #[doc(hidden)]
    pub fn forgo_call(&self, call: u64) -> bool {
        self.core.pending.forgo_call(call)
    }

    /// Nobody wants the outcome of the call of this ticket any more; its handler sees that, and the outcome is told all the
    /// same. Whether the ticket is of a call that is open.
    pub fn forgo(&self, ticket: Ticket) -> bool {
        self.core.pending.forgo(ticket)
    }

    /// Tells `forgone` of requesters that give up, as far as they are watched: see [`Router::watch`].
    ///
    /// # Panics
    ///
    /// When it was set before.
    pub fn set_forgone(&self, forgone: Arc<dyn Forgone>) {
        self.core.pending.set_forgone(forgone);
    }

    /// Watches a requester or the opener of a tunnel: when it gives up before [`Router::complete`], because its future was
    /// dropped or its deadline has passed, [`Forgone`] is told, once. False when it waits no more already; nobody is told
    /// then.
    pub fn watch(&self, ticket: Ticket) -> bool {
        self.core.pending.watch(ticket)
    }

    /// Lets go of a delivery that nobody waits for any more before its handler was called.
    pub fn let_go(&self, ticket: Ticket) {
        self.core.pending.drop_call(ticket);
    }

    /// A handle to send through.
    #[must_use]
    pub fn bus(&self) -> Bus {
        Bus::new(Arc::clone(&self.core))
    }

    /// The runtime that the node's tasks run on.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.core.runtime
    }

    /// Takes groups into the table and others out of it, in one step: no event sees half of it.
    ///
    /// # Errors
    ///
    /// [`DeclareError`] when an event's name is taken or a limit is reached; the table is unchanged then.
    pub async fn change(&self, join: Vec<Joining>, leave: &[GroupRef]) -> Result<(), DeclareError> {
        let joined: Vec<_> = join.iter().map(|joining| Arc::clone(&joining.group)).collect();
        let changed = self.core.change(self.as_change(join, leave)).await;
        if changed.is_err() {
            self.has_not_joined(&joined);
        }
        changed
    }

    /// As [`Router::change`] for each of several that have nothing to do with each other, but seen at once: what becomes of
    /// each.
    pub async fn change_each(&self, changes: Vec<(Vec<Joining>, Vec<GroupRef>)>) -> Vec<Result<(), DeclareError>> {
        let joined = |join: &[Joining]| join.iter().map(|joining| Arc::clone(&joining.group)).collect::<Vec<_>>();
        let joined: Vec<_> = changes.iter().map(|(join, _)| joined(join)).collect();
        let changes = changes.into_iter().map(|(join, leave)| self.as_change(join, &leave)).collect();
        let changed = self.core.change_each(changes).await;
        for (changed, joined) in changed.iter().zip(&joined) {
            if changed.is_err() {
                self.has_not_joined(joined);
            }
        }
        changed
    }

    fn as_change(&self, join: Vec<Joining>, leave: &[GroupRef]) -> Change {
        let mut change = Change { withdraw: leave.iter().map(|group| group.id()).collect(), ..Change::default() };
        for joining in join {
            self.core.add_group(&joining.group);
            change.declare.extend(joining.events);
            change.subscribe.push((joining.group, joining.selections));
        }
        change
    }

    fn has_not_joined(&self, groups: &[GroupRef]) {
        for group in groups {
            group.close(None);
            self.core.remove_group(group, Reason::Stopped, "its manager could not join");
        }
    }

    /// Ends what waits in a closed group with `reason`; returns how many those were.
    pub fn empty(&self, group: &GroupRef, reason: Reason, detail: &str) -> usize {
        self.core.empty_group(group, reason, detail)
    }

    /// Ends a closed group whose workers are gone, and what still waits in it; returns how many those were.
    pub fn remove(&self, group: &GroupRef, reason: Reason, detail: &str) -> usize {
        self.core.remove_group(group, reason, detail)
    }

    /// The groups of the node.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupRef> {
        self.core.groups()
    }

    /// What became of all deliveries.
    #[must_use]
    pub fn account(&self) -> Account {
        self.core.account()
    }

    /// Says that everybody who answers events here is in the table: from now on, nobody there means nobody.
    pub fn settle(&self) {
        self.core.settle();
    }

    /// What part of its life the node is in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.core.phase()
    }

    /// Begins another part of the node's life, and says so.
    pub fn set_phase(&self, phase: Phase) {
        self.core.set_phase(phase);
        self.announce(NodeChanged {
            node: self.core.address.node.to_string(),
            incarnation: self.core.address.incarnation.to_string(),
            state: match phase {
                Phase::Running => "running",
                Phase::Stopping => "stopping",
                Phase::Stopped => "stopped",
            }
            .to_owned(),
        });
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.core.address.node
    }

    /// This life of the node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.core.address.incarnation
    }

    /// What this node itself has declared under this name.
    #[must_use]
    pub fn declared(&self, name: &str) -> Option<DescriptorRef> {
        self.core.declared(name)
    }

    /// A number that grows whenever an event has become known, here or by another node, or another description has taken
    /// its place: as long as it is the same, [`Bus::events`] lists the same.
    #[must_use]
    pub fn events_version(&self) -> u64 {
        self.core.events_version()
    }

    /// Publishes an event of edri itself; it never waits.
    pub fn announce<E: Notification>(&self, event: E) {
        self.core.announce(event);
    }

    /// Ends a delivery that will not be handled: a notification becomes a dead letter, a requester gets an error. The
    /// group counts it.
    pub fn discard(&self, group: &Group, delivery: Delivery, reason: Reason, detail: &str) {
        self.core.discard(group, delivery, reason, detail);
    }

    /// Gives a requester its outcome; whether it still waited.
    pub fn complete(&self, ticket: Ticket, outcome: Outcome) -> bool {
        self.core.complete(ticket, outcome)
    }

    /// Ends the requests and tunnels that still wait with `worker_lost`, and the calls from elsewhere: their node has stopped, and whoever took a reply
    /// along finds nobody any more.
    pub fn end_pending(&self, detail: &str) {
        self.core.pending.end(|| RequestError::WorkerLost(detail.to_owned()));
    }

    /// Whether a requester still waits.
    #[must_use]
    pub fn is_wanted(&self, ticket: Ticket) -> bool {
        self.core.pending.is_wanted(ticket)
    }

    /// Ready once the requester waits no more.
    pub fn poll_unwanted(&self, ticket: Ticket, cx: &mut Context<'_>) -> Poll<()> {
        self.core.pending.poll_unwanted(ticket, cx)
    }

    /// Lets a worker answer later; the group counts the delivery once it does.
    #[must_use]
    pub fn defer(&self, group: &GroupRef, ticket: Ticket) -> Deferred {
        Deferred::new(Arc::clone(&self.core), Arc::clone(group), ticket)
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("node", &self.core.address.node).finish_non_exhaustive()
    }
}
