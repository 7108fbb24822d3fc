//! One event for many groups becomes one item of a packet.

use std::collections::HashMap;

use crate::engine::GroupKey;

/// Items that follow one another and are for the same groups.
#[derive(Debug, PartialEq, Eq)]
pub struct Run<T> {
    /// The groups.
    pub groups: Vec<GroupKey>,
    /// The items, in order.
    pub items: Vec<T>,
}

/// Puts together what waits for several groups, so that an item that is the same for many is there once. Each group's
/// items stay in their order. `same` tells items apart: equal for two that are the same, as the address of an event.
///
/// An item joins an earlier one only where the order of its group allows it, so what many groups were given in one order is
/// there once, and what they were given in different orders may be there several times.
pub fn merge<T>(waiting: Vec<(GroupKey, Vec<T>)>, same: impl Fn(&T) -> usize) -> Vec<Run<T>> {
    let mut waiting = waiting.into_iter().filter(|(_, items)| !items.is_empty());
    let Some((first, items)) = waiting.next() else { return Vec::new() };
    let mut rest = waiting.peekable();
    if rest.peek().is_none() {
        return vec![Run { groups: vec![first], items }];
    }
    let mut places: HashMap<usize, usize> = HashMap::with_capacity(items.len());
    let mut slots: Vec<(Vec<GroupKey>, T)> = Vec::with_capacity(items.len());
    for (key, items) in std::iter::once((first, items)).chain(rest) {
        let mut from = 0;
        for item in items {
            match places.get(&same(&item)) {
                Some(&place) if place >= from => {
                    slots[place].0.push(key);
                    from = place + 1;
                }
                _ => {
                    places.insert(same(&item), slots.len());
                    slots.push((vec![key], item));
                    from = slots.len();
                }
            }
        }
    }
    let mut runs: Vec<Run<T>> = Vec::new();
    for (groups, item) in slots {
        match runs.last_mut() {
            Some(run) if run.groups == groups => run.items.push(item),
            _ => runs.push(Run { groups, items: vec![item] }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_all_want_is_there_once() {
        let runs = merge(vec![(1, vec![10, 11, 12]), (2, vec![11, 12]), (3, vec![12, 13])], |item| *item);
        let expected: [(&[GroupKey], &[usize]); 4] =
            [(&[1], &[10]), (&[1, 2], &[11]), (&[1, 2, 3], &[12]), (&[3], &[13])];
        let expected = expected.map(|(groups, items)| Run { groups: groups.to_vec(), items: items.to_vec() });
        assert_eq!(runs, expected);
        let runs = merge(vec![(1, vec![10, 11]), (2, vec![]), (3, vec![10, 11])], |item| *item);
        assert_eq!(runs, [Run { groups: vec![1, 3], items: vec![10, 11] }]);
    }

    proptest! {
        #[test]
        fn each_group_gets_its_items_in_its_order(
            waiting in proptest::collection::vec(proptest::collection::vec(0_usize..20, 0..12), 0..6),
        ) {
            let waiting: Vec<_> = (0..).zip(waiting).collect();
            let runs = merge(waiting.clone(), |item| *item);
            for (key, items) in waiting {
                let got: Vec<_> =
                    runs.iter().filter(|run| run.groups.contains(&key)).flat_map(|run| run.items.clone()).collect();
                prop_assert_eq!(got, items);
            }
        }
    }
}
