//! What a user says of a node's links, and what starts them.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edri_events::{NameError, NodeName};
use edri_router::Router;
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::driver::{Command, Driver, Parts, Presence, Views};
use crate::engine::{self, Engine};
use crate::keys::{KeysError, Reloading};
use crate::limits::FROM_LINKS;
use crate::link::{Here, Pauses, Tried, accept, keep};
use crate::quic::{self, BindError, Endpoint};
use crate::strand::Strand;
use crate::topology;

/// How many commands wait for the driver, and news of addresses that were tried.
const COMMANDS: usize = 64;

/// How a node is joined to others: where it listens, whom it dials, and who it is.
///
/// ```no_run
/// use edri_connector::Connector;
///
/// let connector = Connector::listen("[::]:7440").connect("north.example:7440").identity("keys/south");
/// ```
#[derive(Debug, Clone)]
#[must_use = "a connector does nothing until it is given to a node"]
pub struct Connector {
    listen: Option<String>,
    connect: Vec<String>,
    identity: Option<Known>,
    switch: bool,
    expects: Vec<String>,
    expiry: Duration,
    outbox_events: usize,
    quic: quic::Options,
}

#[derive(Debug, Clone)]
enum Known {
    Folder(PathBuf),
    Identity(Reloading),
}

/// Why a node could not be joined to others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectorError {
    /// Nobody has said who the node is.
    #[error("a connector needs an identity: `.identity(\"keys/NODE\")`, made by an authority (see `edri::keys`)")]
    NoIdentity,
    /// The identity is another node's.
    #[error(
        "the identity is that of node `{identity}`, but this node is called `{node}`: use its own, or rename the node"
    )]
    WrongIdentity {
        /// Whose identity it is.
        identity: NodeName,
        /// What the node is called.
        node: NodeName,
    },
    /// The identity cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The address is none.
    #[error("`{address}` is no address to listen on: {source}")]
    Address {
        /// What was said.
        address: String,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The socket cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A node that is expected has no possible name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The node is ending.
    #[error("the node is stopping")]
    Stopping,
}

impl Connector {
    /// Listens for neighbours on this UDP address: `[::]:7440`, `127.0.0.1:0`.
    pub fn listen(address: &str) -> Self {
        Self { listen: Some(address.to_owned()), ..Self::dial() }
    }

    /// Dials and does not listen.
    pub fn dial() -> Self {
        Self {
            listen: None,
            connect: Vec::new(),
            identity: None,
            switch: false,
            expects: Vec::new(),
            expiry: Duration::from_secs(60),
            outbox_events: edri_router::INBOX_CAPACITY_DEFAULT,
            quic: quic::Options::default(),
        }
    }

    /// Keeps a link to the node at this address: `north.example:7440`.
    pub fn connect(mut self, address: &str) -> Self {
        self.connect.push(address.to_owned());
        self
    }

    /// Who the node is: a folder with `node.pem`, `node.key` and `authority.pem`. It is looked at again and again, so keys
    /// can be replaced while the node runs.
    pub fn identity(mut self, folder: impl Into<PathBuf>) -> Self {
        self.identity = Some(Known::Folder(folder.into()));
        self
    }

    /// As [`Connector::identity`], with one that is in memory.
    pub fn with_identity(mut self, identity: impl Into<Reloading>) -> Self {
        self.identity = Some(Known::Identity(identity.into()));
        self
    }

    /// Says that the node has no managers and only forwards, so others do not look for any.
    pub fn switch(mut self) -> Self {
        self.switch = true;
        self
    }

    /// Does not call the view settled before this node has been met: until then a request that nobody answers waits.
    pub fn expects(mut self, node: &str) -> Self {
        self.expects.push(node.to_owned());
        self
    }

    /// How long a node that is out of reach is waited for; then what it has not confirmed becomes dead letters. 60 s by
    /// default. All nodes of a cluster should have the same.
    pub fn expiry(mut self, expiry: Duration) -> Self {
        self.expiry = expiry;
        self
    }

    /// How many events wait for each group of another node, before publishers wait. 1,024 by default.
    pub fn outbox(mut self, events: usize) -> Self {
        self.outbox_events = events.clamp(1, edri_router::INBOX_CAPACITY_MAX);
        self
    }

    /// How links behave.
    pub fn options(mut self, options: quic::Options) -> Self {
        self.quic = options;
        self
    }

    /// Begins to listen and to dial for the node of `router`. Every group that is in its table by then is told to others
    /// before any event comes.
    ///
    /// # Errors
    ///
    /// [`ConnectorError`].
    pub async fn start(self, router: &Router) -> Result<Links, ConnectorError> {
        let node = router.node().clone();
        let identity = match self.identity {
            None => return Err(ConnectorError::NoIdentity),
            Some(Known::Folder(folder)) => Reloading::open(folder)?,
            Some(Known::Identity(identity)) => identity,
        };
        if *identity.current().node() != node {
            return Err(ConnectorError::WrongIdentity { identity: identity.current().node().clone(), node });
        }
        let expects = self.expects.iter().map(|name| NodeName::new(name)).collect::<Result<Vec<_>, _>>()?;
        let address = self.listen.clone().unwrap_or_else(|| "[::]:0".to_owned());
        let resolved = tokio::net::lookup_host(&address)
            .await
            .and_then(|mut found| found.next().ok_or_else(|| std::io::Error::other("the name has no address")));
        let resolved = resolved.map_err(|source| ConnectorError::Address { address, source })?;
        let pauses = Pauses { first: self.quic.first_pause, longest: self.quic.longest_pause };
        let endpoint = Endpoint::bind(resolved, identity, self.quic)?;
        let incarnation = router.incarnation();
        let options = engine::Options {
            topology: topology::Options { switch: self.switch, expiry: self.expiry, ..topology::Options::default() },
            ..engine::Options::default()
        };
        let (to_driver, from_links) = mpsc::channel(FROM_LINKS);
        let (command, commands) = mpsc::channel(COMMANDS);
        let views = Arc::new(Views::new());
        let parts = Parts {
            router: router.clone(),
            engine: Engine::new(node, incarnation, options),
            began: Instant::now(),
            feed: router.interest().await.map_err(|_| ConnectorError::Stopping)?,
            from_links,
            commands,
            views: Arc::clone(&views),
            outbox_events: self.outbox_events,
        };
        router.divide_keys();
        router.set_beyond(Arc::clone(&views) as Arc<dyn edri_router::Beyond>);
        let mut tasks = JoinSet::new();
        let runtime = router.runtime();
        let (watched, groups) = (Arc::clone(&views), router.clone());
        let driver = AssertUnwindSafe(Driver::new(parts).run()).catch_unwind();
        let driver = async move {
            // The panic itself is in the log already.
            if driver.await.is_err() {
                tracing::error!("the connector has failed: this node is alone until it is restarted");
                groups.groups().iter().for_each(|group| group.set_reachable(false));
                watched.expelled("its connector has failed".to_owned());
            }
        };
        tasks.spawn_on(Strand::new(driver, runtime), runtime);
        let here = Arc::new(Here { incarnation, to_driver, views: Arc::clone(&views), pauses });
        if self.listen.is_some() {
            tasks.spawn_on(accept(endpoint.clone(), Arc::clone(&here)), runtime);
        }
        let (tried, mut tries) = mpsc::channel(COMMANDS);
        for address in &self.connect {
            tasks.spawn_on(keep(endpoint.clone(), address.clone(), Arc::clone(&here), tried.clone()), runtime);
        }
        let mut open: Vec<String> = self.connect.clone();
        let (settled, mut presence) = (command.clone(), views.presence.subscribe());
        let expected = expects.clone();
        tasks.spawn_on(
            async move {
                // Each neighbour has told what it knows, or is absent.
                while !open.is_empty() {
                    match tries.recv().await {
                        Some(Tried::Absent(address)) => open.retain(|other| *other != address),
                        Some(Tried::Reached(address, peer)) => {
                            let synced = presence.wait_for(|presence| presence.neighbours.get(&peer) == Some(&true));
                            let _ = tokio::time::timeout(Duration::from_secs(5), synced).await;
                            open.retain(|other| *other != address);
                        }
                        None => return,
                    }
                }
                // A driver that has ended needs not be told.
                let _ = settled.send(Command::Settled).await;
                let met = async {
                    let met = |presence: &Presence| expected.iter().all(|node| presence.knows(node));
                    if presence.wait_for(met).await.is_ok() {
                        let _ = settled.send(Command::Met).await;
                    }
                };
                // Keeps the senders of what may still be tried.
                tokio::join!(met, async { while tries.recv().await.is_some() {} });
            },
            runtime,
        );
        Ok(Links { endpoint, views, command, expects, _tasks: tasks })
    }
}

/// The links of a running node. They end when this is dropped.
pub struct Links {
    endpoint: Endpoint,
    views: Arc<Views>,
    command: mpsc::Sender<Command>,
    expects: Vec<NodeName>,
    _tasks: JoinSet<()>,
}

impl Links {
    /// Where the node listens.
    #[must_use]
    pub fn local_address(&self) -> std::net::SocketAddr {
        self.endpoint.local_addr()
    }

    /// Ready once everybody who might answer a request has told so, or is known to be absent, and those who are expected
    /// have come; or the links have ended.
    pub fn when_settled(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut presence, expects) = (self.views.presence.subscribe(), self.expects.clone());
        async move {
            let settled = |presence: &Presence| presence.settled && expects.iter().all(|node| presence.knows(node));
            // An error says that the links have ended.
            let _ = presence.wait_for(settled).await;
        }
    }

    /// Waits until these nodes can be reached and have told what they want. Cancel safe.
    pub async fn met(&self, nodes: &[NodeName]) {
        let mut presence = self.views.presence.subscribe();
        // The sender lives as long as `self`.
        let _ = presence.wait_for(|presence| nodes.iter().all(|node| presence.knows(node))).await;
    }

    /// Whether this node can be reached and has told what it wants.
    #[must_use]
    pub fn has_met(&self, node: &NodeName) -> bool {
        self.views.presence.borrow().knows(node)
    }

    /// Ends the links at once, as if the process had died.
    pub fn abandon(&self) {
        self.endpoint.close(quic::CloseCode::GoingAway, "the node was dropped");
    }

    /// Says to the others that the node stops, and waits until each of them has said that nothing more comes from it for
    /// groups that were withdrawn, at most for `limit`.
    pub async fn leave(&self, limit: Duration) {
        let (done, left) = oneshot::channel();
        if self.command.send(Command::Leave(done)).await.is_ok() {
            let _ = tokio::time::timeout(limit, left).await;
        }
    }

    /// Waits until nothing more comes from other nodes for a group that has left the table, by its id; at most for `limit`.
    pub async fn withdrawn(&self, group: u64, limit: Duration) {
        let (done, over) = oneshot::channel();
        if self.command.send(Command::Withdrawn(group, done)).await.is_ok() {
            let _ = tokio::time::timeout(limit, over).await;
        }
    }

    /// Ends the links in good order: neighbours are told. What they have not confirmed by now becomes dead letters.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.command.send(Command::Close(done)).await.is_ok() {
            // An error says that the driver has ended.
            let _ = closed.await;
        }
        self.endpoint.close(quic::CloseCode::GoingAway, "the node stops");
        self.endpoint.wait_idle().await;
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("address", &self.local_address()).finish_non_exhaustive()
    }
}
