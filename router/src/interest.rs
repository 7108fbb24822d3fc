//! What this node wants and answers, told to whoever tells other nodes.

use std::sync::Arc;
use std::task::{Context, Poll};

use actix::Message;
use edri_events::DescriptorRef;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::group::GroupRef;
use crate::subscribe::Selection;
use crate::table::{Subscription, Table};
use crate::{DeclareError, Router};

/// A change of what this node wants. Groups of other nodes are left out.
#[derive(Debug)]
#[non_exhaustive]
pub enum Interest {
    /// A group wants events.
    Joined {
        /// The group.
        group: GroupRef,
        /// What it is given.
        selections: Vec<Selection>,
        /// The descriptors of the events that it selects by name, as far as they are declared.
        events: Vec<DescriptorRef>,
    },
    /// The group of this id wants nothing any more: it was dropped, has failed, drains, or was replaced by one that joined
    /// just before.
    Left {
        /// Its [`Group::id`](crate::Group::id).
        group: u64,
    },
    /// An event was declared, or is known better than before.
    Declared(DescriptorRef),
}

/// Changes of what this node wants, in the order in which they came about; the first are what there was when it began.
#[derive(Debug)]
pub struct InterestFeed {
    changes: UnboundedReceiver<Interest>,
}

impl InterestFeed {
    /// The next change; `None` once the node has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Interest> {
        self.changes.recv().await
    }

    /// As [`InterestFeed::next`], for who polls; without a change the waker is woken once there is one.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Interest>> {
        self.changes.poll_recv(cx)
    }
}

impl Router {
    /// Follows what this node wants: first the events that are declared and the groups there are, then every change. What the
    /// feed tells of is in the table already.
    ///
    /// What is not read is kept, so whoever asks for a feed reads it.
    ///
    /// # Errors
    ///
    /// [`DeclareError::Stopping`] when the node has ended.
    #[expect(clippy::disallowed_methods, reason = "changes of the table, which are few and as bounded as the table is")]
    pub async fn interest(&self) -> Result<InterestFeed, DeclareError> {
        let (tell, changes) = unbounded_channel();
        self.core.follow(Follow { tell }).await?;
        Ok(InterestFeed { changes })
    }
}

/// Asks the Router actor to tell what changes.
pub(crate) struct Follow {
    tell: UnboundedSender<Interest>,
}

impl Message for Follow {
    type Result = ();
}

/// Those who follow, and what they are told in one change.
#[derive(Default)]
pub(crate) struct Followers {
    all: Vec<UnboundedSender<Interest>>,
}

impl Followers {
    /// Tells a new one what there is.
    pub(crate) fn add(&mut self, follow: Follow, table: &Table<GroupRef>) {
        let Follow { tell } = follow;
        let mut declared: Vec<_> = table.snapshot().descriptors().cloned().collect();
        declared.sort_by(|a, b| a.name().cmp(b.name()));
        let mut groups: Vec<_> = table.targets().collect();
        groups.sort_by_key(|group| group.id());
        let joined = groups.into_iter().filter_map(|group| joined(group, table));
        for interest in declared.into_iter().map(Interest::Declared).chain(joined) {
            // One that has gone already is forgotten at the next change.
            let _ = tell.send(interest);
        }
        self.all.push(tell);
    }

    /// Tells what one change of the table brought: first who came, so that a group that was replaced is never missed.
    pub(crate) fn tell(
        &mut self,
        table: &Table<GroupRef>,
        declared: Vec<DescriptorRef>,
        came: &[GroupRef],
        left: &[GroupRef],
    ) {
        self.all.retain(|tell| !tell.is_closed());
        for tell in &self.all {
            let declared = declared.iter().cloned().map(Interest::Declared);
            let came = came.iter().filter_map(|group| joined(group, table));
            let left = left.iter().filter(|group| is_told(group)).map(|group| Interest::Left { group: group.id() });
            for interest in declared.chain(came).chain(left) {
                let _ = tell.send(interest);
            }
        }
    }
}

/// Whether other nodes hear of it.
fn is_told(group: &GroupRef) -> bool {
    group.node().is_none() && !group.is_front()
}

/// What is told of a group that has joined, if it is of this node and in the table.
fn joined(group: &GroupRef, table: &Table<GroupRef>) -> Option<Interest> {
    let subscriptions = table.subscriptions(group.id()).filter(|_| is_told(group))?;
    let snapshot = table.snapshot();
    let mut events: Vec<DescriptorRef> = Vec::new();
    for subscription in subscriptions.iter().filter(|subscription| subscription.pattern.is_exact()) {
        let entry = snapshot.entry_by_name(subscription.pattern.as_str());
        if let Some(descriptor) = entry.and_then(|entry| entry.descriptor())
            && !events.iter().any(|known| known.name() == descriptor.name())
        {
            events.push(descriptor.clone());
        }
    }
    let selections = subscriptions.iter().map(selection).collect();
    Some(Interest::Joined { group: Arc::clone(group), selections, events })
}

fn selection(subscription: &Subscription<GroupRef>) -> Selection {
    let Subscription { pattern, key, predicate, handler, .. } = subscription.clone();
    Selection { pattern, key, predicate, handler }
}
