use std::net::SocketAddr;

use edri_events::{NameError, RouteError};

use crate::{AccessError, CorsError, TlsError};

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The address is none.
    #[error("`{0}` is no address to listen on: write it like `127.0.0.1:8080`")]
    Address(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A pattern of exposed events is none.
    #[error(transparent)]
    Pattern(#[from] NameError),
    /// An event cannot be made known.
    #[error(transparent)]
    Declare(#[from] edri_router::DeclareError),
    /// A route is none.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The folder of files is none.
    #[error("there is no folder `{}` to serve files from", .0.display())]
    Files(std::path::PathBuf),
    /// The pages cannot be as they are configured, or a template is wrong.
    #[error("pages: {0}")]
    Pages(String),
    /// Who is let in cannot be as it was configured.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Pages cannot be let in as it was configured.
    #[error(transparent)]
    Cors(#[from] CorsError),
    /// A name of the gateway is none.
    #[error("{0}")]
    Host(String),
    /// The address of a proxy is none.
    #[error("{0}")]
    Proxy(String),
    /// Sessions cannot be as they were configured.
    #[error("{0}")]
    Sessions(String),
    /// There is no TLS with these files.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
