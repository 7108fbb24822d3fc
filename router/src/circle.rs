//! Who waits for whom, so that a wait that ends can name the circle it was part of.

use std::collections::HashMap;
use std::sync::Arc;

use edri_events::ManagerName;

use crate::core::Core;
use crate::group::Group;
use crate::status::WorkerStatus;

/// What a worker's handler waits for, while it waits; so that a wait that ends can name the circle it was part of.
pub(crate) struct Waits<'a> {
    core: &'a Core,
    worker: Option<&'a WorkerStatus>,
    for_whom: Vec<ManagerName>,
}

impl<'a> Waits<'a> {
    pub(crate) fn register<'g>(
        core: &'a Core,
        worker: Option<&'a Arc<WorkerStatus>>,
        groups: impl Iterator<Item = &'g Group>,
    ) -> Self {
        let Some(worker) = worker else { return Self { core, worker: None, for_whom: Vec::new() } };
        let for_whom: Vec<_> = groups.filter_map(|group| group.name().manager().cloned()).collect();
        worker.waits_for.lock().extend(for_whom.iter().cloned());
        Self { core, worker: Some(worker), for_whom }
    }

    /// The managers from the first waited for back to it, when they wait for one another in a circle.
    pub(crate) fn cycle(&self) -> Vec<ManagerName> {
        if self.worker.is_none() {
            return Vec::new();
        }
        let mut waits: HashMap<ManagerName, Vec<ManagerName>> = HashMap::new();
        for group in self.core.groups() {
            let Some(manager) = group.name().manager() else { continue };
            let for_whom = waits.entry(manager.clone()).or_default();
            for worker in group.workers() {
                for_whom.extend(worker.waits_for.lock().iter().cloned());
            }
        }
        self.for_whom.iter().find_map(|start| circle(&waits, start)).unwrap_or_default()
    }
}

/// A circle through `start`, found depth first.
fn circle(waits: &HashMap<ManagerName, Vec<ManagerName>>, start: &ManagerName) -> Option<Vec<ManagerName>> {
    let mut path = vec![start.clone()];
    let mut seen = vec![start];
    let mut todo = vec![waits.get(start)?.iter()];
    while let Some(next) = todo.last_mut() {
        match next.next() {
            Some(manager) if manager == start => return Some(path),
            Some(manager) if seen.contains(&manager) => {}
            Some(manager) => {
                seen.push(manager);
                path.push(manager.clone());
                todo.push(waits.get(manager).map_or(&[][..], Vec::as_slice).iter());
            }
            None => {
                todo.pop();
                path.pop();
            }
        }
    }
    None
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let Some(worker) = self.worker else { return };
        let mut waits = worker.waits_for.lock();
        for manager in &self.for_whom {
            if let Some(position) = waits.iter().position(|other| other == manager) {
                waits.swap_remove(position);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_of_waits_is_found_whoever_else_waits() {
        let name = |text: &str| ManagerName::new(text).expect("valid");
        let waits: HashMap<_, _> = [("a", vec!["x", "b"]), ("b", vec!["c"]), ("c", vec!["x", "a"]), ("x", vec!["y"])]
            .into_iter()
            .map(|(manager, others)| (name(manager), others.into_iter().map(name).collect()))
            .collect();
        assert_eq!(circle(&waits, &name("a")), Some(vec![name("a"), name("b"), name("c")]));
        assert_eq!(circle(&waits, &name("x")), None);
        assert_eq!(circle(&waits, &name("unknown")), None);
    }
}
