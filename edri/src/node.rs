//! A running node.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use edri_api::{Api, Gateway};
use edri_connector::{Connector, Links};
use edri_events::{DescriptorRef, ManagerName, NodeName};
use edri_managers::{
    Arrivals, Definition, Drained, Expected, IntoDefinition, ManagerError, ManagerHandle, Newcomer, Prepared,
};
use edri_router::{Account, Bus, Control, DeclareError, Group, GroupName, History, Phase, Reason, Router, Topology};
use futures_util::future::{join_all, try_join_all};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

use crate::{StartError, operations};

/// How often it is looked at whether the workers are done.
const REST_POLL: Duration = Duration::from_millis(2);
/// What is left to a drain whose limit was used up waiting for the events to be handled.
const DRAIN_LEAST: Duration = Duration::from_millis(1);

/// A running node; every clone is the same one. When the last is dropped without [`Node::shutdown`], the node ends at
/// once and what it had is lost.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    router: Router,
    bus: Bus,
    // Held to copy or change the list.
    managers: Mutex<Vec<ManagerHandle>>,
    // Held by whoever adds, replaces, drains or stops, so that they do so one after another.
    changing: AsyncMutex<()>,
    // Held to set it or to take it: whoever stops the node ends them.
    links: Mutex<Option<Arc<Links>>>,
    // Held to set it or to take it, likewise.
    gateway: Mutex<Option<Arc<Gateway>>>,
    arrivals: Arrivals,
    // Held to take it: whoever stops the node ends it.
    control: Mutex<Option<Control>>,
    report: watch::Sender<Option<Arc<ShutdownReport>>>,
    start_timeout: Duration,
    drain_limit: Duration,
}

/// What a node left behind when it stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// What became of all deliveries; balanced unless a worker did not end.
    pub account: Account,
    /// The same for each manager that was on the node, in the order they came.
    pub managers: Vec<(ManagerName, Account)>,
    /// The managers that had events left, or workers that did not end, with how many.
    pub unfinished: Vec<Drained>,
    /// How long it took.
    pub took: Duration,
}

impl ShutdownReport {
    /// Logs what was left.
    pub(crate) fn log(&self) {
        for drained in &self.unfinished {
            let Drained { manager, undelivered, interrupted, stuck, .. } = drained;
            tracing::warn!(%manager, undelivered, interrupted, stuck, "stopped before everything was handled");
        }
        tracing::info!(account = ?self.account, took = ?self.took, "stopped");
    }
}

/// What a node begins with.
pub(crate) struct Beginning {
    pub(crate) prepared: Vec<Prepared>,
    /// The managers whose workers come over a network.
    pub(crate) remote: Vec<Definition>,
    pub(crate) declares: Vec<DescriptorRef>,
    pub(crate) histories: Vec<(String, History)>,
    pub(crate) connector: Option<Connector>,
    /// The nodes that are waited for.
    pub(crate) expects: Vec<NodeName>,
    pub(crate) api: Option<Box<Api>>,
}

impl Node {
    pub(crate) fn new(router: Router, control: Control, start_timeout: Duration, drain_limit: Duration) -> Self {
        let bus = router.bus();
        let (arrivals, newcomers) = Arrivals::new();
        let node = Self {
            inner: Arc::new(Inner {
                router,
                bus,
                arrivals,
                managers: Mutex::default(),
                changing: AsyncMutex::new(()),
                links: Mutex::new(None),
                gateway: Mutex::new(None),
                control: Mutex::new(Some(control)),
                report: watch::Sender::new(None),
                start_timeout,
                drain_limit,
            }),
        };
        node.inner.router.runtime().spawn(make_managers(Arc::downgrade(&node.inner), newcomers));
        node
    }

    /// The node, while it is there.
    pub(crate) fn of(inner: &Weak<Inner>) -> Option<Self> {
        inner.upgrade().map(|inner| Self { inner })
    }

    /// What a manager of the node knows it by.
    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    pub(crate) fn drain_limit(&self) -> Duration {
        self.inner.drain_limit
    }

    /// Takes all managers into the table, then starts their workers.
    pub(crate) async fn begin(&self, beginning: Beginning) -> Result<(), StartError> {
        let Beginning { mut prepared, remote, declares, histories, connector, expects, api } = beginning;
        let router = &self.inner.router;
        if connector.is_some() {
            // Before the first of them joins, so that nobody publishes past what decides which node has a key.
            router.divide_keys();
        }
        for event in declares {
            self.inner.bus.declare(event).await?;
        }
        for (pattern, history) in histories {
            router.add_history(&pattern, history).await?;
        }
        let limit = Instant::now() + self.inner.start_timeout;
        router.change(prepared.iter().map(Prepared::joining).collect(), &[]).await?;
        let remote = remote.into_iter().map(|definition| Expected::new(definition, &self.inner.arrivals));
        let remote = remote.collect::<Result<Vec<_>, _>>()?;
        // Open before the workers have started, so that somebody can ask whether the node is ready, and remote workers can come.
        if let Some(api) = api {
            let gateway = Arc::new(Box::pin(api.start(router, &self.inner.arrivals)).await?);
            *self.inner.gateway.lock() = Some(gateway);
        } else if let Some(manager) = remote.first() {
            let wrong = "its workers come over a network, and the node has no gateway: add `App::api`".to_owned();
            return Err(ManagerError::Invalid { manager: manager.name().to_string(), wrong }.into());
        }
        let left = || limit.saturating_duration_since(Instant::now());
        let met = try_join_all(remote.into_iter().map(|manager| manager.prepare(left()))).await?;
        router.change(met.iter().map(Prepared::joining).collect(), &[]).await?;
        prepared.extend(met);
        // Every subscription is in the table before other nodes are told of it, and before the first `started` runs.
        match connector {
            Some(connector) => self.join(connector, &expects).await?,
            None => router.settle(),
        }
        let handles: Vec<_> =
            prepared.into_iter().map(|prepared| self.launch(prepared)).collect::<Result<_, ManagerError>>()?;
        *self.inner.managers.lock() = handles.clone();
        // A worker takes events as soon as its own `started` has returned.
        try_join_all(handles.iter().map(ManagerHandle::open)).await?;
        try_join_all(handles.iter().map(|handle| handle.started(left()))).await?;
        router.set_phase(Phase::Running);
        if let Some(gateway) = &*self.inner.gateway.lock() {
            gateway.set_ready();
        }
        Ok(())
    }

    /// Joins the node to others, and waits for those that are expected.
    async fn join(&self, connector: Connector, expects: &[NodeName]) -> Result<(), StartError> {
        let router = &self.inner.router;
        let links = Arc::new(connector.start(router).await?);
        *self.inner.links.lock() = Some(Arc::clone(&links));
        let (settled, settle) = (Arc::downgrade(&links), router.clone());
        router.runtime().spawn(async move {
            // Weak, because a node that was dropped ends its links.
            let Some(presence) = settled.upgrade().map(|links| links.when_settled()) else { return };
            presence.await;
            settle.settle();
        });
        let waited = self.inner.start_timeout;
        if tokio::time::timeout(waited, links.met(expects)).await.is_err() {
            let nodes = expects.iter().filter(|node| !links.has_met(node)).cloned().collect();
            return Err(StartError::Expected { nodes, waited });
        }
        Ok(())
    }

    /// Where the node listens for neighbours, when it has a connector.
    #[must_use]
    pub fn link_address(&self) -> Option<std::net::SocketAddr> {
        self.inner.links.lock().as_ref().map(|links| links.local_address())
    }

    /// Where the node's gateway listens, when it has one.
    #[must_use]
    pub fn api_address(&self) -> Option<std::net::SocketAddr> {
        self.inner.gateway.lock().as_ref().map(|gateway| gateway.local_address())
    }

    fn launch(&self, prepared: Prepared) -> Result<ManagerHandle, ManagerError> {
        match &*self.inner.control.lock() {
            Some(control) => Ok(prepared.start(&self.inner.router, control)),
            None => Err(ManagerError::Stopped(prepared.name().clone())),
        }
    }

    /// Ends a node that did not start, without waiting for events.
    pub(crate) async fn abandon(&self) {
        self.stop(Instant::now()).await;
    }

    /// The handle to send through.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.inner.bus
    }

    /// The router below the bus, for parts of a node that other crates bring.
    #[doc(hidden)]
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.inner.router
    }

    /// What the node is doing right now.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.inner.bus.topology()
    }

    /// Waits until the node is at rest: nothing waits in a manager's inbox and no worker has anything in hand, so whatever
    /// was published before and all that followed from it has ended. What subscriptions have not read does not count, nor
    /// what waits for other nodes.
    ///
    /// A node that is never at rest makes this wait for ever; give it a time-out.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn at_rest(&self) -> Account {
        loop {
            // Of the router, which also knows those that are about to replace others.
            let mut groups = self.inner.router.groups();
            groups.retain(|group| group.name().manager().is_some());
            if are_idle(&groups) {
                return self.inner.router.account();
            }
            tokio::time::sleep(REST_POLL).await;
        }
    }

    /// Begins to keep a history of the events that `pattern` selects, as [`App::history`](crate::App::history) does, from now
    /// on.
    ///
    /// # Errors
    ///
    /// [`DeclareError`]: there is one of exactly this pattern, the text is no pattern, or a limit is reached.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped the history may be there or not.
    pub async fn add_history(&self, pattern: &str, history: History) -> Result<(), DeclareError> {
        self.inner.router.add_history(pattern, history).await
    }

    /// Ends the history of exactly this pattern; whether there was one. Its subscribers can read what it has, and then learn
    /// that it is the end.
    ///
    /// # Errors
    ///
    /// [`DeclareError`]: the text is no pattern, or the node has stopped.
    pub async fn remove_history(&self, pattern: &str) -> Result<bool, DeclareError> {
        self.inner.router.remove_history(pattern).await
    }

    /// Adds a manager while the node runs. Once this returns, its workers take events.
    ///
    /// # Errors
    ///
    /// [`ManagerError`]; the node is as before then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop what it has begun: the manager is added all the same.
    pub async fn add(&self, manager: impl IntoDefinition) -> Result<(), ManagerError> {
        let (node, prepared) = (self.clone(), self.prepare(manager.into_definition()).await?);
        self.see_through(prepared.name().clone(), async move { node.add_now(prepared).await }).await
    }

    async fn prepare(&self, definition: Definition) -> Result<Prepared, ManagerError> {
        if let Some(name) = definition.name().filter(|name| operations::is_reserved(name)) {
            return Err(ManagerError::NameTaken(name));
        }
        if !definition.is_remote() {
            return Prepared::new(definition, self.inner.router.runtime()).await;
        }
        let expected = Expected::new(definition, &self.inner.arrivals)?;
        expected.prepare(self.inner.start_timeout).await
    }

    /// Runs a change of the managers to its end, also when nobody waits for it any more: half of it would leave a group
    /// without workers.
    async fn see_through<T, F>(&self, manager: ManagerName, change: F) -> Result<T, ManagerError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ManagerError>> + Send + 'static,
    {
        match self.inner.router.runtime().spawn(change).await {
            Ok(changed) => changed,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is ending, and the node with it.
            Err(_) => Err(ManagerError::Stopped(manager)),
        }
    }

    async fn add_now(&self, prepared: Prepared) -> Result<(), ManagerError> {
        let _changing = self.inner.changing.lock().await;
        let handle = self.add_and_open(prepared).await?;
        let started = handle.started(self.inner.start_timeout).await;
        if started.is_err() {
            self.leave(&handle, DRAIN_LEAST, None).await;
        }
        started
    }

    /// Adds a manager, by whoever holds `changing`.
    async fn add_and_open(&self, prepared: Prepared) -> Result<ManagerHandle, ManagerError> {
        if let Err(error) = self.take_into_table(&prepared).await {
            prepared.refuse(error.code(), &error.to_string());
            return Err(error);
        }
        let handle = self.launch(prepared)?;
        self.inner.managers.lock().push(handle.clone());
        handle.open().await?;
        Ok(handle)
    }

    async fn take_into_table(&self, prepared: &Prepared) -> Result<(), ManagerError> {
        let name = prepared.name().clone();
        if self.find(&name).is_some() {
            return Err(ManagerError::NameTaken(name));
        }
        if self.inner.control.lock().is_none() {
            return Err(ManagerError::Stopped(name));
        }
        // In the table before its workers start, so that what `started` publishes reaches the manager itself too.
        let joined = self.inner.router.change(vec![prepared.joining()], &[]).await;
        joined.map_err(|source| ManagerError::Declare { manager: name, source })
    }

    /// Makes a manager for a worker that came for one that nobody has declared, and ends it when it is forsaken.
    async fn host_newcomer(self, newcomer: Newcomer) {
        let (name, forsaken) = (newcomer.name().clone(), newcomer.forsaken());
        let added = match Prepared::of_newcomer(newcomer).await {
            Ok(prepared) => {
                let _changing = self.inner.changing.lock().await;
                // How long its start takes is the worker's own affair.
                self.add_and_open(prepared).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = added {
            tracing::warn!(manager = %name, %error, "no manager is made for a worker that has come");
            return;
        }
        let (node, runtime) = (Arc::downgrade(&self.inner), self.inner.router.runtime().clone());
        runtime.spawn(async move {
            forsaken.await;
            let Some(inner) = node.upgrade() else { return };
            // It may have been drained meanwhile.
            if let Ok(drained) = (Self { inner }).drain(&name).await {
                tracing::info!(manager = %name, undelivered = drained.undelivered, "the last of its workers has gone for good");
            }
        });
    }

    /// Puts a manager in the place of the one that has its name. The new workers are started first; then new events go to
    /// them, the old ones finish what they have, and only after that the new ones begin: so a key's events stay in order
    /// and none is missed or handled twice.
    ///
    /// # Errors
    ///
    /// [`ManagerError`]; the old manager goes on then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop what it has begun: the manager is replaced all the same.
    pub async fn replace(&self, manager: impl IntoDefinition) -> Result<Drained, ManagerError> {
        let definition = manager.into_definition();
        if let (true, Some(name)) = (definition.is_remote(), definition.name()) {
            let wrong = "workers over a network are not put in the place of others: drain the manager, then add it";
            return Err(ManagerError::Invalid { manager: name.to_string(), wrong: wrong.to_owned() });
        }
        let (node, prepared) = (self.clone(), self.prepare(definition).await?);
        self.see_through(prepared.name().clone(), async move { node.replace_now(prepared).await }).await
    }

    async fn replace_now(&self, prepared: Prepared) -> Result<Drained, ManagerError> {
        let _changing = self.inner.changing.lock().await;
        let name = prepared.name().clone();
        let old = self.find(&name).ok_or_else(|| ManagerError::Unknown(name.to_string()))?;
        let joining = prepared.joining();
        let new = self.launch(prepared)?;
        if let Err(error) = new.started(self.inner.start_timeout).await {
            new.drain(DRAIN_LEAST, None).await;
            return Err(error);
        }
        if let Err(source) = self.inner.router.change(vec![joining], std::slice::from_ref(old.group())).await {
            new.drain(DRAIN_LEAST, None).await;
            return Err(ManagerError::Declare { manager: name, source });
        }
        let drained = old.drain(self.inner.drain_limit, Some(Arc::clone(new.group()))).await;
        {
            let mut managers = self.inner.managers.lock();
            managers.retain(|other| other.group().id() != old.group().id());
            managers.push(new.clone());
        }
        new.open().await?;
        Ok(drained)
    }

    /// Takes a manager off the node: no new events, those it has are finished within the node's drain limit.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Unknown`] when no manager of this name is on the node.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop what it has begun: the manager is drained all the same.
    pub async fn drain(&self, manager: &str) -> Result<Drained, ManagerError> {
        let unknown = || ManagerError::Unknown(manager.to_owned());
        let (node, name) = (self.clone(), ManagerName::new(manager).map_err(|_| unknown())?);
        self.see_through(name.clone(), async move {
            let _changing = node.inner.changing.lock().await;
            let handle = node.find(&name).ok_or_else(|| ManagerError::Unknown(name.to_string()))?;
            Ok(node.leave(&handle, node.inner.drain_limit, None).await)
        })
        .await
    }

    async fn leave(&self, handle: &ManagerHandle, limit: Duration, successor: Option<Arc<Group>>) -> Drained {
        if let Err(error) = self.inner.router.change(Vec::new(), std::slice::from_ref(handle.group())).await {
            tracing::error!(%error, manager = %handle.name(), "withdrawing a manager");
        }
        let began = Instant::now();
        let links = self.inner.links.lock().clone();
        if let Some(links) = links {
            // What other nodes had accepted for it by now still comes.
            links.withdrawn(handle.group().id(), limit).await;
        }
        let left = limit.saturating_sub(began.elapsed()).max(DRAIN_LEAST);
        let drained = handle.drain(left, successor).await;
        self.inner.managers.lock().retain(|other| other.group().id() != handle.group().id());
        drained
    }

    fn find(&self, name: &str) -> Option<ManagerHandle> {
        self.inner.managers.lock().iter().find(|handle| **handle.name() == *name).cloned()
    }

    /// Stops in good order: takes no new events from outside its workers, lets them finish what they have and what follows
    /// from it, within the drain limit; then ends them. Called again, it waits for the same end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the node stopping; call it again to go on.
    pub async fn shutdown(&self) -> Arc<ShutdownReport> {
        self.stop(Instant::now() + self.inner.drain_limit).await
    }

    /// Waits until the node has stopped, whoever stops it.
    pub async fn stopped(&self) -> Arc<ShutdownReport> {
        let mut reports = self.inner.report.subscribe();
        loop {
            if let Some(report) = &*reports.borrow_and_update() {
                return Arc::clone(report);
            }
            // The sender lives as long as `self`.
            let _ = reports.changed().await;
        }
    }

    async fn stop(&self, limit: Instant) -> Arc<ShutdownReport> {
        let began = Instant::now();
        let inner = &self.inner;
        if inner.router.phase() == Phase::Running {
            inner.router.set_phase(Phase::Stopping);
        }
        let _changing = inner.changing.lock().await;
        if let Some(report) = &*inner.report.borrow() {
            return Arc::clone(report);
        }
        let managers = inner.managers.lock().clone();
        let groups: Vec<_> = managers.iter().map(|manager| Arc::clone(manager.group())).collect();
        inner.arrivals.close();
        let gateway = inner.gateway.lock().take();
        if let Some(gateway) = gateway {
            // While the workers are there to answer what clients wait for.
            gateway.shutdown(limit.saturating_duration_since(Instant::now())).await;
        }
        let links = inner.links.lock().clone();
        if let Some(links) = &links {
            // Others are told first, and what they had sent by then still comes.
            links.leave(limit.saturating_duration_since(Instant::now())).await;
        }
        // Managers feed one another, so none is closed before all of them are idle; and what they send to other nodes is
        // taken there.
        while Instant::now() < limit && !(are_idle(&groups) && are_idle(&self.reachable_groups())) {
            tokio::time::sleep(REST_POLL).await;
        }
        if let Err(error) = inner.router.change(Vec::new(), &groups).await {
            tracing::error!(%error, "withdrawing the managers");
        }
        let left = limit.saturating_duration_since(Instant::now()).max(DRAIN_LEAST);
        let mut drained = join_all(managers.iter().map(|manager| manager.drain(left, None))).await;
        while Instant::now() < limit && !are_idle(&self.reachable_groups()) {
            tokio::time::sleep(REST_POLL).await;
        }
        inner.router.set_phase(Phase::Stopped);
        // Others may want to hear that, too.
        while Instant::now() < limit && !are_idle(&self.reachable_groups()) {
            tokio::time::sleep(REST_POLL).await;
        }
        if let Some(links) = links {
            links.close().await;
        }
        inner.links.lock().take();
        inner.managers.lock().clear();
        for group in inner.router.groups() {
            match group.name() {
                // Its holder can still read what it has, and then learns that it is the end.
                GroupName::Subscription(_) => group.close(None),
                GroupName::Manager(_) | GroupName::Remote { .. } => {
                    group.close(None);
                    inner.router.remove(&group, Reason::Stopped, "the node stopped");
                }
            }
        }
        inner.router.end_pending("its node stopped before there was an answer");
        for (drained, group) in drained.iter_mut().zip(&groups) {
            // What no worker has in hand any more, but somebody who took the reply along, or a worker that did not end.
            drained.interrupted = drained.interrupted.max(group.account().in_hand as usize);
        }
        let unfinished = drained.into_iter().filter(|drained| !drained.is_all()).collect();
        let report = Arc::new(ShutdownReport {
            account: inner.router.account(),
            managers: managers.iter().map(|manager| (manager.name().clone(), manager.group().account())).collect(),
            unfinished,
            took: began.elapsed(),
        });
        let control = inner.control.lock().take();
        // Joins a thread that only has to leave its loop; away from the runtime all the same.
        let ended = tokio::task::spawn_blocking(move || drop(control)).await;
        if let Err(error) = ended {
            tracing::error!(%error, "ending the actors' thread");
        }
        inner.report.send_replace(Some(Arc::clone(&report)));
        report
    }

    /// The groups of other nodes that can be reached.
    fn reachable_groups(&self) -> Vec<Arc<Group>> {
        if self.inner.links.lock().is_none() {
            // Nobody takes anything out of them.
            return Vec::new();
        }
        let mut groups = self.inner.router.groups();
        groups.retain(|group| group.is_front() || group.node().is_some() && group.is_reachable());
        groups
    }

    /// The names of the managers on the node, without the one that answers for the node itself.
    #[must_use]
    pub fn managers(&self) -> Vec<ManagerName> {
        let managers = self.inner.managers.lock();
        managers.iter().map(ManagerHandle::name).filter(|name| !operations::is_reserved(name)).cloned().collect()
    }
}

/// Sees to the workers that come for managers that nobody has declared, as long as there is the node.
async fn make_managers(node: Weak<Inner>, mut newcomers: mpsc::Receiver<Newcomer>) {
    while let Some(newcomer) = newcomers.recv().await {
        let Some(inner) = node.upgrade() else { return };
        let runtime = inner.router.runtime().clone();
        // Beside each other: one that is slow to start holds nobody up.
        runtime.spawn(Node { inner }.host_newcomer(newcomer));
    }
}

/// Whether all managers are idle at one moment. Each may be when it is looked at while an event goes round behind the
/// looker's back; but if none has got anything between two looks, all were idle between them.
fn are_idle(groups: &[Arc<Group>]) -> bool {
    let look = || groups.iter().map(|group| group.deliveries_if_idle()).collect::<Option<Vec<_>>>();
    look().is_some_and(|first| look() == Some(first))
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.router.phase() != Phase::Stopped {
            // First, so that other nodes see a node that is gone and not its last words.
            if let Some(links) = self.links.lock().take() {
                links.abandon();
            }
            self.router.set_phase(Phase::Stopped);
            for group in self.router.groups() {
                group.close(None);
                // Whoever waits for an answer is told; the holder of a subscription can still read what it has.
                if !matches!(group.name(), GroupName::Subscription(_)) {
                    self.router.remove(&group, Reason::Stopped, "its node was dropped");
                }
            }
            self.router.end_pending("its node was dropped before there was an answer");
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("name", self.inner.router.node()).finish_non_exhaustive()
    }
}
