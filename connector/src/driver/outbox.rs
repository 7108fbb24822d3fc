//! The outboxes: what waits in this node's route table for the groups of other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crossbeam_queue::SegQueue;
use edri_events::{Incarnation, NodeName};
use edri_router::{Delivery, GroupRef, InboxConsumer};

use super::bell::DriverBell;
use crate::engine::GroupKey;
use crate::topology::{GroupState, LinkId};

/// Who wakes the driver, and what for.
#[derive(Debug, Default)]
pub(super) struct Ready {
    keys: SegQueue<GroupKey>,
    /// Links over which something has come.
    pub(super) links: SegQueue<LinkId>,
    /// Slots of keyed shared managers that have something.
    pub(super) slots: SegQueue<(Arc<str>, usize)>,
    pub(super) wake: DriverBell,
}

impl Ready {
    /// Whether an outbox has rung that was not looked into.
    pub(super) fn has_rung(&self) -> bool {
        !self.keys.is_empty()
    }
}

/// The backlog for one group of another node.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) key: GroupKey,
    pub(super) node: NodeName,
    /// The life of the node that the group is in now.
    pub(super) life: Option<Incarnation>,
    pub(super) group: GroupRef,
    /// Nothing new is put into it; once it is empty its node is told so, under this number.
    pub(super) withdrawn: Option<u32>,
    pub(super) in_table: bool,
    /// Requests and tunnels that were sent and not answered.
    pub(super) unanswered: usize,
    /// What the group wants.
    pub(super) state: Option<Arc<GroupState>>,
    consumer: InboxConsumer,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Puts an outbox on the list of those that have something.
#[derive(Debug)]
struct Bell {
    key: GroupKey,
    rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.ready.keys.push(self.key);
            self.ready.wake.ring();
        }
    }
}

impl Outbox {
    pub(super) fn new(key: GroupKey, node: NodeName, group: GroupRef, ready: &Arc<Ready>) -> Self {
        let bell = Arc::new(Bell { key, rung: AtomicBool::new(false), ready: Arc::clone(ready) });
        let waker = Waker::from(Arc::clone(&bell));
        waker.wake_by_ref();
        let consumer = group.consume(0);
        Self {
            key,
            node,
            life: None,
            group,
            withdrawn: None,
            in_table: false,
            unanswered: 0,
            state: None,
            consumer,
            bell,
            waker,
        }
    }

    /// Takes the next delivery. When there is none the outbox rings once there is.
    pub(super) fn take(&mut self) -> Option<Delivery> {
        if let Some(delivery) = self.consumer.try_next() {
            return Some(delivery);
        }
        // In this order: what comes after this rings again.
        self.bell.rung.store(false, Ordering::Release);
        let mut cx = Context::from_waker(&self.waker);
        match self.consumer.poll_next(&mut cx) {
            Poll::Ready(delivery) => delivery,
            Poll::Pending => None,
        }
    }

    /// Whether it rings for what comes next. It does once [`Outbox::take`] has found it empty; not when as much was taken out
    /// of it as there was, or when something came just as it was looked into a second time.
    pub(super) fn is_armed(&self) -> bool {
        self.consumer.is_waiting() && !self.bell.rung.load(Ordering::Acquire)
    }

    /// Lets publishers have the places of what was taken.
    pub(super) fn give_back(&mut self) {
        self.consumer.give_back();
    }

    /// Whether nothing can be put into it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.group.is_closed()
    }

    /// How many deliveries wait.
    pub(super) fn depth(&self) -> usize {
        self.group.depth(0)
    }
}

/// The outboxes of a driver, and which of them have something.
#[derive(Debug, Default)]
pub(super) struct Outboxes {
    pub(super) all: BTreeMap<GroupKey, Outbox>,
    pub(super) ready: Arc<Ready>,
    /// Those that have something, perhaps, and could not be emptied so far.
    pub(super) waiting: Vec<GroupKey>,
}

impl Outboxes {
    /// Adds those that rang to those that wait; whether there were any.
    pub(super) fn collect(&mut self) -> bool {
        let before = self.waiting.len();
        while let Some(key) = self.ready.keys.pop() {
            if !self.waiting.contains(&key) {
                self.waiting.push(key);
            }
        }
        self.waiting.len() > before
    }

    /// Makes an outbox be looked into.
    pub(super) fn ring(&mut self, key: GroupKey) {
        self.ready.keys.push(key);
        self.ready.wake.ring();
    }

    /// The outboxes of a life of a node.
    pub(super) fn of_life(&mut self, life: Incarnation) -> impl Iterator<Item = &mut Outbox> {
        self.all.values_mut().filter(move |outbox| outbox.life == Some(life))
    }
}
