//! The Router actor: the only writer of the route table. Events never pass through its mailbox; they use the snapshot
//! that it publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, Message, MessageResult};
use edri_events::DescriptorRef;

use crate::core::Core;
use crate::divide::Behind;
use crate::group::GroupRef;
use crate::interest::{Follow, Followers};
use crate::limits::{EVENT_NAMES_MAX, SUBSCRIPTIONS_MAX};
use crate::table::{Subscription, Table};
use crate::{DeclareError, Selection};

pub(crate) struct RouterActor {
    core: Arc<Core>,
    table: Table<GroupRef>,
    followers: Followers,
    /// Who stands behind which front.
    behind: BTreeMap<Arc<str>, Behind>,
}

/// Changes that belong together: they are seen together, or not at all.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) declare: Vec<DescriptorRef>,
    pub(crate) subscribe: Vec<(GroupRef, Vec<Selection>)>,
    pub(crate) withdraw: Vec<u64>,
}

impl Message for Change {
    type Result = Result<(), DeclareError>;
}

/// Changes that have nothing to do with each other, but come together: what becomes of each.
#[derive(Debug)]
pub(crate) struct Changes(pub(crate) Vec<Change>);

impl Message for Changes {
    type Result = Vec<Result<(), DeclareError>>;
}

/// What a change has done to the table.
#[derive(Debug, Default)]
struct Done {
    declared: Vec<DescriptorRef>,
    came: Vec<GroupRef>,
    left: Vec<GroupRef>,
}

impl RouterActor {
    pub(crate) fn start(core: Arc<Core>, arbiter: &actix::ArbiterHandle) -> Addr<Self> {
        Self::start_in_arbiter(arbiter, |_| Self {
            core,
            table: Table::default(),
            followers: Followers::default(),
            behind: BTreeMap::new(),
        })
    }

    fn check(&self, change: &Change) -> Result<(), DeclareError> {
        for (position, descriptor) in change.declare.iter().enumerate() {
            self.table.check(descriptor)?;
            for earlier in &change.declare[..position] {
                if earlier.name() == descriptor.name() {
                    descriptor.compatible(earlier)?;
                }
            }
        }
        if self.table.name_count() + change.declare.len() > EVENT_NAMES_MAX {
            return Err(DeclareError::Limit { what: "event names", limit: EVENT_NAMES_MAX });
        }
        let subscriptions: usize = change.subscribe.iter().map(|(_, selections)| selections.len()).sum();
        if self.table.subscription_count() + subscriptions > SUBSCRIPTIONS_MAX {
            return Err(DeclareError::Limit { what: "subscriptions", limit: SUBSCRIPTIONS_MAX });
        }
        Ok(())
    }

    /// Makes a change, which nobody sees yet. Refused, it changes nothing.
    fn apply(&mut self, change: Change, done: &mut Done) -> Result<(), DeclareError> {
        self.check(&change)?;
        for descriptor in change.declare {
            if self.table.declare(descriptor.clone())? {
                done.declared.push(descriptor);
            }
        }
        let mut fronts = BTreeSet::new();
        for id in change.withdraw {
            for (name, behind) in &mut self.behind {
                if behind.remove(&id).is_some() {
                    fronts.insert(Arc::clone(name));
                }
            }
            done.left.extend(self.table.withdraw(id));
        }
        for (group, selections) in change.subscribe {
            done.came.push(Arc::clone(&group));
            let front = group.divided().filter(|name| self.core.front(name).is_some());
            if let Some(name) = front {
                group.hide();
                fronts.insert(Arc::clone(name));
                let node = group.node().unwrap_or(&self.core.address.node).clone();
                self.behind.entry(Arc::clone(name)).or_default().insert(group.id(), (node, selections.clone()));
                if group.node().is_some() {
                    continue;
                }
            }
            self.subscribe(&group, selections);
        }
        fronts.iter().for_each(|name| self.set_front(name));
        Ok(())
    }

    fn subscribe(&mut self, group: &GroupRef, selections: Vec<Selection>) {
        for selection in selections {
            self.table.subscribe(Subscription {
                target: Arc::clone(group),
                pattern: selection.pattern,
                key: selection.key,
                predicate: selection.predicate,
                handler: selection.handler,
            });
        }
    }

    /// Gives a front what those behind it want. The table has it as long as there is somebody.
    fn set_front(&mut self, name: &Arc<str>) {
        let Some(front) = self.core.front(name) else { return };
        self.table.withdraw(front.id());
        let mut wanted: Vec<Selection> = Vec::new();
        self.core.set_behind(&front, self.behind.get(name));
        let behind = self.behind.get(name).into_iter().flat_map(BTreeMap::values);
        for selection in behind.flat_map(|(_, selections)| selections) {
            let known = |other: &Selection| other.pattern == selection.pattern && other.key == selection.key;
            if !wanted.iter().any(known) {
                // Which handler it is for is seen where it is handled, and so is a predicate.
                wanted.push(Selection { predicate: None, handler: 0, ..selection.clone() });
            }
        }
        if wanted.is_empty() {
            self.behind.remove(name);
        }
        self.subscribe(&front, wanted);
    }

    fn show(&mut self, Done { declared, came, left }: Done) {
        self.core.show(self.table.snapshot());
        if !declared.is_empty() {
            self.core.raise_events_version();
        }
        came.iter().for_each(|group| group.set_joined());
        self.followers.tell(&self.table, declared, &came, &left);
    }
}

impl Actor for RouterActor {
    type Context = Context<Self>;
}

impl Handler<Change> for RouterActor {
    type Result = Result<(), DeclareError>;

    fn handle(&mut self, change: Change, _: &mut Self::Context) -> Self::Result {
        let mut done = Done::default();
        self.apply(change, &mut done)?;
        self.show(done);
        Ok(())
    }
}

impl Handler<Changes> for RouterActor {
    type Result = MessageResult<Changes>;

    fn handle(&mut self, Changes(changes): Changes, _: &mut Self::Context) -> Self::Result {
        let mut done = Done::default();
        let each = changes.into_iter().map(|change| self.apply(change, &mut done)).collect();
        self.show(done);
        MessageResult(each)
    }
}

impl Handler<Follow> for RouterActor {
    type Result = ();

    fn handle(&mut self, follow: Follow, _: &mut Self::Context) {
        self.followers.add(follow, &self.table);
    }
}
