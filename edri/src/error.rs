use edri_api::ApiError;
use edri_connector::ConnectorError;
use edri_managers::ManagerError;
use edri_router::{DeclareError, PublishError, RequestError, TunnelError};

/// The result of a program's parts that can fail in any of edri's ways.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can go wrong, for `main` and tests; each operation has a narrower error of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A node did not start.
    #[error("failed to start: {0}")]
    Start(#[from] StartError),
    /// A notification was not delivered.
    #[error("failed to publish: {0}")]
    Publish(#[from] PublishError),
    /// A request has no response.
    #[error("failed to request: {0}")]
    Request(#[from] RequestError),
    /// A tunnel broke.
    #[error("failed in a tunnel: {0}")]
    Tunnel(#[from] TunnelError),
    /// An event could not be declared or subscribed to.
    #[error("failed to declare: {0}")]
    Declare(#[from] DeclareError),
    /// A manager could not be added, replaced or drained.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Why a node did not start. Nothing of it is running then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The node's name is none.
    #[error(transparent)]
    Name(#[from] edri_events::NameError),
    /// A manager is defined wrongly, has failed, or has not started in time.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// Two events cannot share a name, or there are too many.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// The node cannot be joined to others.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// The gateway cannot be opened.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Nodes that are expected were not met in time.
    #[error("nodes that are expected did not come within {waited:?}: {}", nodes.iter().map(|node| node.as_str()).collect::<Vec<_>>().join(", "))]
    Expected {
        /// Those that are missing.
        nodes: Vec<edri_events::NodeName>,
        /// How long they were waited for.
        waited: std::time::Duration,
    },
    /// The operating system gave no thread or no runtime.
    #[error("the operating system gave no thread or runtime: {0}")]
    Io(#[from] std::io::Error),
    /// There is no tokio runtime around.
    #[error("start a node inside a tokio runtime, or use `App::run`, which brings its own")]
    NoRuntime,
}
