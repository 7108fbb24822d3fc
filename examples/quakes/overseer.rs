//! What the managers are doing, for the page.

use edri::prelude::*;

use crate::events::{ListManagers, ManagerShown};

/// Tells of the node it runs on.
#[derive(Default)]
struct Overseer;

impl Worker for Overseer {}

impl Handle<ListManagers> for Overseer {
    async fn handle(&mut self, _: &ListManagers, cx: &mut Context) -> Result<Vec<ManagerShown>, Failure> {
        let managers = cx.bus().topology().managers.into_iter().map(|manager| ManagerShown {
            name: manager.name.manager().map(ToString::to_string).unwrap_or_default(),
            state: format!("{:?}", manager.state).to_lowercase(),
            workers: manager.workers.len(),
            waiting: manager.depths.iter().sum(),
            capacity: manager.capacity * manager.depths.len(),
            handled: manager.account.handled,
            failed: manager.account.failed,
            restarts: manager.workers.iter().map(|worker| u64::from(worker.restarts)).sum(),
        });
        Ok(managers.collect())
    }
}

/// The manager that answers.
pub(crate) fn overseer() -> Manager<edri::Typed<impl Worker>> {
    Manager::new("overseer").worker(Overseer::default).handles::<ListManagers>()
}
