//! The groups of a node: those that live, and those that have ended but are not settled.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Account;
use crate::group::GroupRef;

/// With fewer ended groups than this nobody looks whether they are settled.
const ENDED_MIN: usize = 16;

#[derive(Default)]
pub(crate) struct Groups {
    living: HashMap<u64, GroupRef>,
    /// Those whose last deliveries are still in somebody's hands, and those that nobody has looked at since.
    ended: Vec<GroupRef>,
    /// How many of the ended were not settled when somebody looked last.
    unsettled: usize,
    /// The accounts of those that are settled.
    settled: Account,
}

impl Groups {
    pub(crate) fn add(&mut self, group: &GroupRef) {
        self.living.insert(group.id(), Arc::clone(group));
    }

    /// Takes a group whose deliveries have ended, or soon will have, off the list.
    pub(crate) fn end(&mut self, group: &GroupRef) {
        if self.living.remove(&group.id()).is_some() {
            self.ended.push(Arc::clone(group));
        }
        // Twice as many as last time, so what is looked at in vain is no more than what has ended since.
        if self.ended.len() >= ENDED_MIN.max(2 * self.unsettled) {
            self.settle();
        }
    }

    /// The living, in the order in which they were made.
    pub(crate) fn living(&self) -> Vec<GroupRef> {
        let mut living: Vec<_> = self.living.values().cloned().collect();
        living.sort_by_key(|group| group.id());
        living
    }

    /// The deliveries of all there are and were.
    pub(crate) fn account(&mut self) -> Account {
        self.settle();
        let mut total = self.settled;
        for group in self.living.values().chain(&self.ended) {
            total += group.account();
        }
        total
    }

    /// Forgets the ended groups of which nothing is under way any more.
    fn settle(&mut self) {
        let Self { ended, settled, .. } = self;
        ended.retain(|group| {
            let account = group.account();
            let is_settled = account.is_balanced() && account.in_hand == 0 && account.queued == 0;
            if is_settled {
                *settled += account;
            }
            !is_settled
        });
        self.unsettled = self.ended.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{Group, GroupOptions};
    use crate::status::Ended;
    use crate::{GroupName, Overflow, Spread};

    fn group() -> GroupRef {
        let (spread, overflow) = (Spread::Compete, Overflow::default());
        let name = GroupName::Subscription(1);
        Group::new(GroupOptions { shared: false, name, spread, capacity: 1, overflow, handlers: Vec::new() })
    }

    #[test]
    fn ended_groups_do_not_pile_up_and_what_they_did_still_counts() {
        let mut groups = Groups::default();
        for number in 1..=1000 {
            let group = group();
            groups.add(&group);
            group.reject();
            group.count(Ended::Cancelled);
            groups.end(&group);
            assert!(groups.ended.len() < ENDED_MIN, "{} of {number} are kept", groups.ended.len());
        }
        assert_eq!(groups.account().cancelled, 1000);
        assert_eq!(groups.account().deliveries, 1000);
    }

    #[test]
    fn an_ended_group_is_kept_while_a_delivery_is_in_somebodys_hands() {
        let mut groups = Groups::default();
        let busy: Vec<_> = (0..100).map(|_| group()).collect();
        for group in &busy {
            groups.add(group);
            group.reject();
            groups.end(group);
        }
        assert!(!groups.account().is_balanced());
        busy.iter().for_each(|group| group.count(Ended::Handled));
        assert_eq!(groups.account().handled, 100);
        assert!(groups.ended.is_empty());
    }
}
