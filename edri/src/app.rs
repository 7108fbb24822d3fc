//! A node in the making.

use std::time::Duration;

use edri_api::Api;
use edri_connector::Connector;
use edri_events::{DescriptorRef, ManagerName, NodeName};
use edri_managers::{Definition, IntoDefinition, Prepared};
use edri_router::{Control, History, Limits, Router};
use futures_util::future::try_join_all;
use tokio::runtime::Handle;

use crate::hosted::host_if_marked;
use crate::node::Beginning;
use crate::{Error, Node, Result, StartError, operations};

/// The exit code of a process that cannot host the worker it was started for.
const NOT_HERE: i32 = 2;

/// A node in the making: a name, managers, limits.
#[derive(Debug)]
#[must_use = "an app does nothing until it is run or started"]
pub struct App {
    name: String,
    managers: Vec<Definition>,
    connector: Option<Connector>,
    // So that what holds an app while it starts is not larger for it.
    api: Option<Box<Api>>,
    expects: Vec<String>,
    declares: Vec<DescriptorRef>,
    histories: Vec<(String, History)>,
    limits: Limits,
    start_timeout: Duration,
    drain_limit: Duration,
}

impl App {
    /// A node of this name. A name that breaks the rules of [`NodeName`] is refused when the node is started.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            managers: Vec::new(),
            connector: None,
            api: None,
            expects: Vec::new(),
            declares: Vec::new(),
            histories: Vec::new(),
            limits: Limits::default(),
            start_timeout: Duration::from_secs(30),
            drain_limit: Duration::from_secs(30),
        }
    }

    /// Adds a manager.
    pub fn manager(mut self, manager: impl IntoDefinition) -> Self {
        self.managers.push(manager.into_definition());
        self
    }

    /// Joins the node to others.
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Opens the node to browsers and services, over HTTP and WebSocket.
    pub fn api(mut self, api: Api) -> Self {
        self.api = Some(Box::new(api));
        self
    }

    /// Does not start the workers before the node of this name can be reached and has told what it wants and answers: so
    /// nothing that they send misses it. It has to come within the start time-out.
    pub fn expects(mut self, node: &str) -> Self {
        self.expects.push(node.to_owned());
        self
    }

    /// Declares an event that the node's managers do not declare themselves, or not like this: of two declarations without Rust
    /// types that agree, this one counts.
    pub fn declares(mut self, event: impl Into<DescriptorRef>) -> Self {
        self.declares.push(event.into());
        self
    }

    /// Keeps a history of the events of this name, or of the names that this pattern selects: of what is published on this
    /// node, and of what comes from other nodes. Subscribers that come late begin in it, with
    /// [`since`](edri_router::Subscribe::since) or [`last`](edri_router::Subscribe::last). Without it nothing is kept.
    pub fn history(mut self, pattern: &str, history: History) -> Self {
        self.histories.push((pattern.to_owned(), history));
        self
    }

    /// Sets the node's bounds.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long all workers together may take to start. 30 s by default.
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = limit;
        self
    }

    /// How long a stopping node may go on to finish the events it has. 30 s by default.
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = limit;
        self
    }

    /// Hosts the worker of this manager for a node in another process, then ends this process.
    pub(crate) fn host(self, manager: &str) -> ! {
        let Self { name, managers, .. } = self;
        let mut managers = managers.into_iter();
        if let Some(hosted) = managers
            .find(|definition| definition.name().is_some_and(|name| *name == *manager))
            .and_then(Definition::into_hosted)
        {
            hosted.take_over()
        }
        edri_workers::complain(&format!(
            "this process is to host a worker of manager `{manager}`, but the app `{name}` that it builds has no such \
             manager: build the same managers in every process, or call `edri::hosted` first in `main`"
        ));
        std::process::exit(NOT_HERE);
    }

    /// Starts the node in the tokio runtime around, which needs its timers enabled. Once this returns, every worker's
    /// `started` has returned and all of them take events.
    ///
    /// # Errors
    ///
    /// [`StartError`]; what was started until then has been stopped again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops what was started.
    ///
    /// In a process that a node has started for a worker, this hosts that worker and never returns: [`hosted`](crate::hosted()).
    pub async fn start(self) -> Result<Node, StartError> {
        let app = host_if_marked(self);
        app.start_node().await
    }

    async fn start_node(self) -> Result<Node, StartError> {
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let name = NodeName::new(&self.name)?;
        let expects = self.expects.iter().map(|name| NodeName::new(name)).collect::<Result<Vec<_>, _>>()?;
        for (index, definition) in self.managers.iter().enumerate() {
            let taken = |name: &ManagerName| {
                operations::is_reserved(name)
                    || self.managers[..index].iter().any(|other| other.name().as_ref() == Some(name))
            };
            if let Some(name) = definition.name().filter(taken) {
                return Err(edri_managers::ManagerError::NameTaken(name).into());
            }
        }
        // Side by side: a program that is slow to say hello holds nobody up.
        let (remote, managers): (Vec<_>, Vec<_>) = self.managers.into_iter().partition(Definition::is_remote);
        let prepared = managers.into_iter().map(|definition| Prepared::new(definition, &runtime));
        let mut prepared = try_join_all(prepared).await?;
        let control = Control::start(&name)?;
        let router = Router::start(name, self.limits, &control, &runtime);
        let node = Node::new(router, control, self.start_timeout, self.drain_limit);
        // Whoever can be reached can be asked about itself.
        if self.connector.is_some() || self.api.is_some() {
            match Prepared::new(operations::definition(node.downgrade()), &runtime).await {
                Ok(operator) => prepared.push(operator),
                Err(error) => {
                    node.abandon().await;
                    return Err(error.into());
                }
            }
        }
        let connector = self
            .connector
            .map(|connector| self.expects.iter().fold(connector, |connector, node| connector.expects(node)));
        let (declares, histories, api) = (self.declares, self.histories, self.api);
        let beginning = Beginning { prepared, remote, declares, histories, connector, expects, api };
        match node.begin(beginning).await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.abandon().await;
                Err(error)
            }
        }
    }

    /// Runs the node in a runtime of its own until SIGTERM, Ctrl-C or [`Node::shutdown`], then stops in good order. A
    /// second signal ends the process at once.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the node does not start.
    pub fn run(self) -> Result<()> {
        self.run_with(|_| async { Ok::<_, Error>(()) }).map(|_| ())
    }

    /// As [`App::run`], with something to do while the node runs. When `main` fails, the node is stopped and the error
    /// returned. When it succeeds the node goes on: call [`Node::shutdown`] in it to end with it. What it returned comes
    /// back in the end; `None` says that a signal came first.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the node does not start; the error of `main`.
    pub fn run_with<F, Fut, T, E>(self, main: F) -> std::result::Result<Option<T>, E>
    where
        F: FnOnce(Node) -> Fut,
        Fut: Future<Output = std::result::Result<T, E>>,
        E: From<Error>,
    {
        let app = host_if_marked(self);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::from)?;
        runtime.block_on(async {
            let mut signals = Signals::new().map_err(Error::from)?;
            let node = tokio::select! {
                node = app.start_node() => node.map_err(Error::from)?,
                // Dropping the start stops what was started.
                () = signals.next() => return Ok(None),
            };
            let serving = async {
                let value = main(node.clone()).await?;
                node.stopped().await;
                Ok(Some(value))
            };
            let result = tokio::select! {
                result = serving => result,
                () = signals.next() => Ok(None),
            };
            tokio::select! {
                report = node.shutdown() => report.log(),
                () = signals.next() => {
                    tracing::error!("a second signal: ending at once");
                    std::process::exit(1);
                }
            }
            result
        })
    }
}

/// The signals that ask a program to stop.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
