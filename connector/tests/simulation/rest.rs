//! What is looked at once the faults have stopped: whether everything is at rest, and whether the accounts balance.

use std::time::Duration;

use crate::keyed::Keyed;
use crate::ledger::Place;
use crate::plan::Farewell;
use crate::world::World;

/// How long an event may take to a group that takes at once when nothing is wrong, although another group of the same node
/// is stuck.
const SLOWEST: Duration = Duration::from_secs(5);

impl World {
    /// What has not come to rest.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let mut rest = Vec::new();
        let mut wanted: Vec<Place> = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            match &node.life {
                Some(life) if life.leaving => rest.push(format!("{} is about to go", node.name)),
                Some(life) => wanted.extend(life.host.groups().map(|group| (number, group))),
                None if node.gone => {}
                None => rest.push(format!("{} is down", node.name)),
            }
        }
        wanted.sort_unstable();
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(life) = &node.life else { continue };
            if !life.host.has_flushed(None) {
                rest.push(format!("{} has a backlog: {:?}", node.name, life.host.backlog()));
            }
            if life.host.intake() > 0 {
                rest.push(format!("{} has {} packets without a place", node.name, life.host.intake()));
            }
            if !life.host.calls.is_empty() || life.host.tunnels.open_count() > 0 {
                let (calls, tunnels) = (&life.host.calls, &life.host.tunnels);
                rest.push(format!("{} has open calls {calls:?} or tunnels {tunnels:?}", node.name));
            }
            if let Some(keyed) = life.host.keyed.as_ref().filter(|keyed| !keyed.is_idle()) {
                rest.push(format!("{} has events of a keyed manager: {keyed:?}", node.name));
            }
            if !life.engine.topology().is_settled() {
                rest.push(format!("{} is not settled", node.name));
            }
            let known = life.host.known();
            let of_others = wanted.iter().copied().filter(|(other, _)| *other != number);
            if !of_others.clone().eq(known.iter().copied()) || life.host.remembered() != known.len() {
                rest.push(format!(
                    "{} knows {known:?} and {} in all, not {:?}",
                    node.name,
                    life.host.remembered(),
                    of_others.collect::<Vec<_>>()
                ));
            }
            for (other_number, other) in self.nodes.iter().enumerate().filter(|(other, _)| *other != number) {
                let figures = other.life.as_ref().and_then(|other| life.engine.figures(other.engine.incarnation()));
                match figures {
                    Some(figures) if figures.unacknowledged_packets + figures.unacknowledged_bytes > 0 => {
                        rest.push(format!("{} has sent {} what it has not: {figures:?}", node.name, other.name));
                    }
                    None if other.life.is_some() => rest.push(format!("{} does not know n{other_number}", node.name)),
                    _ => {}
                }
            }
            let living = self.nodes.iter().filter(|node| node.life.is_some()).count();
            let nodes = life.engine.topology().nodes().len();
            if nodes != living {
                rest.push(format!("{} knows {nodes} nodes of {living}", node.name));
            }
        }
        rest.extend(self.unowned());
        rest
    }

    /// The slots of the keyed manager that are not with exactly one node, if some node runs it.
    fn unowned(&self) -> Option<String> {
        let keyed = || self.nodes.iter().filter_map(|node| node.life.as_ref()?.host.keyed.as_ref());
        if !keyed().any(Keyed::runs) {
            return None;
        }
        let (any, twice) =
            keyed().fold((0, 0), |(any, twice), keyed| (any | keyed.owned(), twice | any & keyed.owned()));
        (any != u64::MAX || twice != 0).then(|| format!("slots {:x} are with nobody, {twice:x} with several", !any))
    }

    /// Looks at the accounts once everything is at rest.
    pub(crate) fn conclude(&mut self) -> Result<(), String> {
        let mut living: Vec<u32> = self.nodes.iter().filter_map(|node| Some(node.life.as_ref()?.host.life)).collect();
        living.sort_unstable();
        let late = self.plan.farewell == Some(Farewell::Leaves) && !self.summary.left_in_time;
        let may_lose = self.plan.may_lose() || late;
        for ((event, place), way) in &self.ledger.ways {
            self.summary.events += 1;
            self.summary.confirmed += usize::from(way.confirmed > 0);
            self.summary.lost += usize::from(way.lost.is_some());
            self.summary.redelivered += usize::from(way.arrived.iter().any(|(_, redelivered)| *redelivered));
            if living.binary_search(&event.origin).is_err() {
                continue;
            }
            if way.confirmed == 0 && way.lost.is_none() {
                return Err(format!("{event:?} for {place:?} has not ended: {way:?}"));
            }
            if way.lost.is_some() && !may_lose {
                return Err(format!("{event:?} for {place:?} is lost although no node died: {way:?}"));
            }
        }
        self.ledger.keyed.conclude(&living, may_lose)?;
        let keyed = &self.ledger.keyed;
        self.summary.keyed = [keyed.handled, keyed.twice, keyed.moves, keyed.discarded];
        self.summary.slowest = self.ledger.slowest;
        for node in &self.nodes {
            let Some(life) = &node.life else { continue };
            let leaves = self.summary.left_in_time && self.plan.is_prompt();
            let last = &self.nodes[self.nodes.len() - 1].name;
            if leaves && self.heirs.contains(&life.engine.incarnation()) && !life.host.left.contains(last) {
                return Err(format!("{} has not heard that {last} has left", node.name));
            }
            for (how, count) in &life.host.ended {
                *self.summary.ended.entry(how).or_default() += count;
            }
            self.summary.tunnels += life.host.tunnels.completed;
            self.summary.tunnels_broken += life.host.tunnels.broken;
            let tunnels = &life.host.tunnels;
            if !may_lose && (life.host.ended.contains_key("peer lost") || tunnels.broken + tunnels.unknown > 0) {
                return Err(format!("{} lost a call or a tunnel although no node died: {tunnels:?}", node.name));
            }
        }
        if self.plan.is_quiet() && self.plan.window_events > 1 && !self.plan.uneven && self.summary.slowest > SLOWEST {
            return Err(format!("an event took {:?} although nothing was wrong", self.summary.slowest));
        }
        if self.plan.is_quiet() && self.summary.ended.contains_key("timed out") {
            return Err("a request was not answered although nothing was wrong".to_owned());
        }
        Ok(())
    }
}
