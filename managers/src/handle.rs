//! A manager in the making, and a running one from outside.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use edri_events::ManagerName;
use edri_router::{
    Control, DeclareError, Group, GroupName, GroupOptions, GroupRef, INSTANCES_MAX, Joining, Router, Spread,
};
use edri_workers::{Demand, Introduced, Placement};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::actor::{Drain, ManagerActor, Open, WhenStarted};
use crate::arrivals::OwnLine;
use crate::definition::Comes;
use crate::{Arrivals, Definition, Newcomer};

/// Why a manager is not running.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// Its definition is wrong.
    #[error("manager `{manager}`: {wrong}")]
    Invalid {
        /// What it calls itself.
        manager: String,
        /// What is wrong.
        wrong: String,
    },
    /// Another manager of this name is on the node.
    #[error("manager `{0}` is on this node already: give one of the two another name, or replace it")]
    NameTaken(ManagerName),
    /// No manager of this name is on the node.
    #[error("no manager `{0}` is on this node")]
    Unknown(String),
    /// Its events cannot be declared.
    #[error("manager `{manager}`: {source}")]
    Declare {
        /// The manager.
        manager: ManagerName,
        /// Why.
        source: DeclareError,
    },
    /// Its workers could not be kept running.
    #[error("manager `{manager}` failed: {reason}")]
    Failed {
        /// The manager.
        manager: ManagerName,
        /// Why its workers were lost the last time.
        reason: String,
    },
    /// Some of its workers had not started in time.
    #[error("manager `{manager}` has not started within {limit:?}: waiting for instances {waiting:?}{}", last(.last_error))]
    Late {
        /// The manager.
        manager: ManagerName,
        /// How long it was given.
        limit: Duration,
        /// The instances whose `started` has not returned.
        waiting: Vec<usize>,
        /// Why one of them was lost the last time.
        last_error: Option<String>,
    },
    /// It was stopped meanwhile.
    #[error("manager `{0}` was stopped")]
    Stopped(ManagerName),
}

impl ManagerError {
    /// The stable code of it, for a worker that cannot work here because of it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NameTaken(_) => "name_taken",
            Self::Declare { source, .. } => source.code(),
            Self::Invalid { .. } | Self::Unknown(_) => "unknown_manager",
            Self::Failed { .. } | Self::Late { .. } | Self::Stopped(_) => "stopping",
        }
    }
}

fn last(error: &Option<String>) -> String {
    error.as_ref().map(|error| format!("; the last error was: {error}")).unwrap_or_default()
}

/// What came of draining a manager.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// The manager.
    pub manager: ManagerName,
    /// How many events no worker had taken when the limit was reached; they are dead letters, or their requesters know.
    pub undelivered: usize,
    /// How many events workers had in hand when the limit was reached; most of them are dead letters too.
    pub interrupted: usize,
    /// How many workers, or threads that had been replaced, did not end when they were told to, or were cut in their
    /// `stopping`.
    pub stuck: usize,
}

impl Drained {
    /// Whether all events were finished and all workers ended.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.undelivered == 0 && self.interrupted == 0 && self.stuck == 0
    }
}

/// A manager whose group is ready to join the router, and whose workers have not been started.
#[derive(Debug)]
pub struct Prepared {
    name: ManagerName,
    definition: Definition,
    group: GroupRef,
    introduced: Option<Box<Introduced>>,
    line: Option<OwnLine>,
}

/// A manager whose workers come over a network, and none has come yet.
#[derive(Debug)]
pub struct Expected {
    definition: Definition,
    name: ManagerName,
    line: OwnLine,
}

impl Expected {
    /// Lets workers of the manager come. They are sent away again when this is dropped.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Invalid`] when something in the definition is wrong, [`ManagerError::NameTaken`] when workers come for a
    /// manager of this name already.
    pub fn new(definition: Definition, arrivals: &Arrivals) -> Result<Self, ManagerError> {
        let name = check(&definition)?;
        let line =
            arrivals.expect(&name, &definition.settings.serves).ok_or_else(|| ManagerError::NameTaken(name.clone()))?;
        Ok(Self { definition, name, line })
    }

    /// The manager's name.
    #[must_use]
    pub fn name(&self) -> &ManagerName {
        &self.name
    }

    /// Waits for the first worker, which says what all of them handle.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Late`] when none has come within `limit`.
    pub async fn prepare(self, limit: Duration) -> Result<Prepared, ManagerError> {
        let manager = self.name.clone();
        match tokio::time::timeout(limit, self.line.next()).await {
            Ok(Some(first)) => Prepared::with(self.definition, self.name, Some(first), Some(self.line)),
            Ok(None) => Err(ManagerError::Stopped(manager)),
            Err(_) => {
                let last_error = Some("none of its workers has connected to the gateway".to_owned());
                let waiting = (0..self.definition.settings.instances).collect();
                Err(ManagerError::Late { manager, limit, waiting, last_error })
            }
        }
    }
}

impl Prepared {
    /// Checks a definition and makes its group. A program is started to hear which events it handles.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Invalid`] when something in the definition is wrong, [`ManagerError::Failed`] when the program
    /// does not say hello.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends a program that was started.
    pub async fn new(mut definition: Definition, runtime: &Handle) -> Result<Self, ManagerError> {
        let name = check(&definition)?;
        let mut introduced = None;
        if definition.factory.is_none() {
            let launched = Introduced::launch(&definition.settings.process, &name, 0, runtime).await;
            let process =
                launched.map_err(|reason| ManagerError::Failed { manager: name.clone(), reason: reason.clone() })?;
            introduced = Some(process);
        }
        if let Some(demand) = definition.demand() {
            definition.settings.instances = demand.most;
        }
        Self::with(definition, name, introduced, None)
    }

    /// One for whose workers, which come over a network, nobody has declared it; the first of them has come already.
    ///
    /// # Errors
    ///
    /// As [`Prepared::new`].
    pub async fn of_newcomer(newcomer: Newcomer) -> Result<Self, ManagerError> {
        let Newcomer { definition, line, .. } = newcomer;
        let name = check(&definition)?;
        let first = line.next().await.ok_or_else(|| ManagerError::Stopped(name.clone()))?;
        Self::with(definition, name, Some(first), Some(line))
    }

    fn with(
        mut definition: Definition,
        name: ManagerName,
        introduced: Option<Introduced>,
        line: Option<OwnLine>,
    ) -> Result<Self, ManagerError> {
        if let Some(worker) = &introduced {
            definition.events = worker.events().to_vec();
            definition.selections = worker.selections();
        }
        let settings = &definition.settings;
        if definition.selections.is_empty() {
            return Err(invalid(&definition, "it handles no event: add `.handles::<E>()`".to_owned()));
        }
        let options = GroupOptions {
            name: GroupName::Manager(name.clone()),
            spread: if settings.keyed { Spread::ByKey(settings.instances) } else { Spread::Compete },
            capacity: settings.capacity,
            overflow: settings.overflow,
            handlers: definition.selections.iter().map(|wants| (wants.pattern.clone(), wants.handler)).collect(),
            shared: settings.shared,
        };
        let group = match &settings.responds {
            responds if responds.is_empty() => Group::new(options),
            responds => Group::responding(options, Arc::new(responds.clone())),
        };
        Ok(Self { name, definition, group, introduced: introduced.map(Box::new), line })
    }

    /// The manager's name.
    #[must_use]
    pub fn name(&self) -> &ManagerName {
        &self.name
    }

    /// Sends its workers away that have come over a network: it cannot be here.
    pub fn refuse(self, code: &str, message: &str) {
        if let Some(first) = self.introduced {
            first.refuse(code, message);
        }
        if let Some(line) = self.line {
            line.close(code, message);
        }
    }

    /// What the router is to know.
    #[must_use]
    pub fn joining(&self) -> Joining {
        Joining {
            group: GroupRef::clone(&self.group),
            events: self.definition.events.clone(),
            selections: self.definition.selections.clone(),
        }
    }

    /// Starts the manager's actor and its workers. They take events once [`ManagerHandle::open`] is called.
    #[must_use]
    pub fn start(self, router: &Router, control: &Control) -> ManagerHandle {
        let (name, group) = (self.name.clone(), GroupRef::clone(&self.group));
        let addr = ManagerActor::start(
            self.name,
            self.definition,
            self.group,
            self.introduced,
            self.line,
            router.clone(),
            control.arbiter(),
        );
        ManagerHandle { name, group, addr }
    }
}

/// Checks what can be checked before anything is started.
fn check(definition: &Definition) -> Result<ManagerName, ManagerError> {
    let settings = &definition.settings;
    let invalid = |wrong: String| Err(invalid(definition, wrong));
    let name = match ManagerName::new(&settings.name) {
        Ok(name) => name,
        Err(error) => return invalid(error.to_string()),
    };
    if let Some(Demand { least, most, .. }) = definition.demand() {
        if settings.keyed {
            return invalid("keyed workers cannot come and go: each has its partition".to_owned());
        }
        if settings.remote.is_some() {
            return invalid("workers that come over a network cannot be started on demand".to_owned());
        }
        if most == 0 || most > INSTANCES_MAX || least > most {
            return invalid(format!("{least} to {most} processes on demand: 1 to {INSTANCES_MAX} at most"));
        }
    }
    if settings.keyed && settings.remote == Some(Comes::AsTheyLike) {
        return invalid("keyed workers cannot come and go: each has its partition".to_owned());
    }
    if let Some(wrong) = &settings.wrong {
        return invalid(wrong.clone());
    }
    if !settings.responds.is_empty() && settings.placement == Placement::Process {
        let wrong = "its workers are processes, with which a responder shares nothing: run them as tasks or threads, or take \
                     `responds` away";
        return invalid(wrong.to_owned());
    }
    if let Err(wrong) = settings.responds.check(&definition.selections, &definition.events) {
        return invalid(wrong);
    }
    if definition.factory.is_none() && settings.placement != Placement::Process {
        let what = if settings.remote.is_some() { "a worker over a network" } else { "a program" };
        return invalid(format!("{what} runs as a process and nowhere else"));
    }
    Ok(name)
}

fn invalid(definition: &Definition, wrong: String) -> ManagerError {
    ManagerError::Invalid { manager: definition.settings.name.clone(), wrong }
}

/// A running manager.
#[derive(Debug, Clone)]
pub struct ManagerHandle {
    name: ManagerName,
    group: GroupRef,
    addr: Addr<ManagerActor>,
}

impl ManagerHandle {
    /// The manager's name.
    #[must_use]
    pub fn name(&self) -> &ManagerName {
        &self.name
    }

    /// The manager's group.
    #[must_use]
    pub fn group(&self) -> &GroupRef {
        &self.group
    }

    /// Waits until `started` of every worker has returned.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Failed`] when they could not be kept running, [`ManagerError::Late`] after `limit`.
    pub async fn started(&self, limit: Duration) -> Result<(), ManagerError> {
        let (tell, told) = oneshot::channel();
        let stopped = || ManagerError::Stopped(self.name.clone());
        self.addr.send(WhenStarted { tell }).await.map_err(|_| stopped())?;
        match tokio::time::timeout(limit, told).await {
            Ok(started) => started.map_err(|_| stopped())?,
            Err(_) => Err(self.late(limit)),
        }
    }

    fn late(&self, limit: Duration) -> ManagerError {
        let workers = self.group.workers();
        let waiting = workers.iter().filter(|worker| worker.state() != edri_router::WorkerState::Running);
        ManagerError::Late {
            manager: self.name.clone(),
            limit,
            waiting: waiting.map(|worker| worker.index()).collect(),
            last_error: workers.iter().find_map(|worker| worker.last_error()),
        }
    }

    /// Lets the workers take events.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Stopped`] when the node is gone.
    pub async fn open(&self) -> Result<(), ManagerError> {
        self.addr.send(Open).await.map_err(|_| ManagerError::Stopped(self.name.clone()))
    }

    /// Takes no new events, finishes those in the inbox within `limit`, and ends the workers. The group must have left the
    /// route table; what still comes goes to `successor`.
    pub async fn drain(&self, limit: Duration, successor: Option<GroupRef>) -> Drained {
        let (tell, told) = oneshot::channel();
        // An actor that is gone has nothing left to drain.
        let _ = self.addr.send(Drain { limit, successor, tell }).await;
        told.await.unwrap_or(Drained { manager: self.name.clone(), undelivered: 0, interrupted: 0, stuck: 0 })
    }
}
