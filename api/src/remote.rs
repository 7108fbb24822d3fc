//! Managers of workers that nobody has declared.

use std::sync::Arc;
use std::time::Duration;

use edri_managers::{Definition, IntoDefinition, Manager, Remote};

/// What becomes of workers that connect and name a manager that the node does not have: the first of a name makes the
/// manager, later ones of the same name are further instances, and have to handle the same events. When the last has gone, the
/// manager stays for a time of grace, in which its events wait in its inbox for one to come again; then it is drained, and what
/// waits is a dead letter or an error.
///
/// ```
/// # use std::time::Duration;
/// # use edri_api::{Api, RemoteWorkers};
/// let api = Api::bind("127.0.0.1:8080").remote_workers(RemoteWorkers::new().instances(8).grace(Duration::from_secs(60)));
/// ```
#[derive(Clone)]
#[must_use = "it does nothing until it is given to an Api"]
pub struct RemoteWorkers {
    pub(crate) managers: usize,
    pub(crate) grace: Duration,
    instances: usize,
    change: Option<Arc<Change>>,
}

type Change = dyn Fn(Manager<Remote>) -> Manager<Remote> + Send + Sync;

impl Default for RemoteWorkers {
    fn default() -> Self {
        Self { managers: 64, grace: Duration::from_secs(30), instances: 16, change: None }
    }
}

impl RemoteWorkers {
    /// Up to 64 managers with up to 16 workers each, and a grace of 30 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many such managers there may be at a time.
    pub fn managers(mut self, most: usize) -> Self {
        self.managers = most;
        self
    }

    /// How many workers each may have at a time; those beyond wait until one goes.
    pub fn instances(mut self, most: usize) -> Self {
        self.instances = most;
        self
    }

    /// How long a manager stays when all its workers have gone.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets what else there is to set of each manager: its inbox, what is done about an event that fails.
    pub fn each(mut self, change: impl Fn(Manager<Remote>) -> Manager<Remote> + Send + Sync + 'static) -> Self {
        self.change = Some(Arc::new(change));
        self
    }

    pub(crate) fn definition(&self, name: &str) -> Definition {
        let manager = Manager::remote(name);
        let manager = match &self.change {
            Some(change) => change(manager),
            None => manager,
        };
        manager.as_they_like(self.instances).into_definition()
    }
}

impl std::fmt::Debug for RemoteWorkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { managers, grace, instances, .. } = self;
        let mut shown = f.debug_struct("RemoteWorkers");
        shown.field("managers", managers).field("grace", grace).field("instances", instances).finish_non_exhaustive()
    }
}
