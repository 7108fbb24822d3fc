//! Shortest paths over the links that both their ends name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use edri_events::NodeName;

use super::LinkState;
use super::known::{Known, Node};
use crate::limits::COST_MAX;

/// How a node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// The neighbour that it begins with; the node's own name for itself.
    pub(super) first: NodeName,
    /// The sum of what its links cost.
    pub(super) distance: u32,
    /// How many links it has at most: of paths that are equal otherwise, nodes on the way may choose any.
    pub(super) hops: u32,
}

/// The shortest path from `root` to every node that has one, by Dijkstra's algorithm. Of several, the one whose first
/// neighbour has the smallest name, so that every node can say what any other will choose. `links` are those of `root` at this
/// moment, which it may not have told yet.
pub(super) fn shortest(known: &Known, root: &NodeName, links: &[LinkState]) -> BTreeMap<NodeName, Path> {
    let nodes: Vec<(&NodeName, &Node)> = known.iter().collect();
    let Ok(start) = nodes.binary_search_by_key(&root, |(name, _)| name) else { return BTreeMap::new() };
    let listed: Vec<Vec<(usize, u32)>> = nodes
        .iter()
        .map(|(name, node)| match node.state() {
            _ if *name == root => neighbours(&nodes, links),
            Some(state) => neighbours(&nodes, &state.links),
            None => Vec::new(),
        })
        .collect();
    let cost = |from: usize, to: usize| {
        let at = listed[from].binary_search_by_key(&to, |(neighbour, _)| *neighbour).ok()?;
        Some(listed[from][at].1)
    };

    // Names are in order, so comparing places in the list compares names. Every cost is at least 1, so all that a node's
    // path depends on is decided before the node itself is.
    let mut best: Vec<Option<(u32, usize, u32)>> = vec![None; nodes.len()];
    let mut open = BinaryHeap::new();
    best[start] = Some((0, start, 0));
    open.push(Reverse((0, start)));
    while let Some(Reverse((distance, at))) = open.pop() {
        let Some((shortest, first, hops)) = best[at] else { continue };
        if distance > shortest {
            continue;
        }
        for (to, there) in &listed[at] {
            let Some(back) = cost(*to, at) else { continue };
            let candidate = (distance + (*there).max(back), if at == start { *to } else { first }, hops + 1);
            let found = &mut best[*to];
            match found {
                Some(old) if (old.0, old.1) < (candidate.0, candidate.1) => {}
                Some(old) if (old.0, old.1) == (candidate.0, candidate.1) => old.2 = old.2.max(candidate.2),
                _ => {
                    // A node is looked at once for every distance that is tried, not for every neighbour that offers it.
                    if found.is_none_or(|old| old.0 > candidate.0) {
                        open.push(Reverse((candidate.0, *to)));
                    }
                    *found = Some(candidate);
                }
            }
        }
    }

    let paths = nodes.iter().zip(&best).filter_map(|((name, _), found)| {
        let (distance, first, hops) = (*found)?;
        Some(((*name).clone(), Path { first: nodes[first].0.clone(), distance, hops }))
    });
    paths.collect()
}

/// Who is listed in their present life, by place, with what the link costs.
fn neighbours(nodes: &[(&NodeName, &Node)], links: &[LinkState]) -> Vec<(usize, u32)> {
    let mut neighbours: Vec<(usize, u32)> = links
        .iter()
        .filter_map(|link| {
            let at = nodes.binary_search_by_key(&&link.node, |(name, _)| name).ok()?;
            (nodes[at].1.incarnation == link.incarnation).then_some((at, link.cost.clamp(1, COST_MAX)))
        })
        .collect();
    neighbours.sort_unstable();
    neighbours.dedup_by_key(|(at, _)| *at);
    neighbours
}
