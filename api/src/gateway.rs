//! The running gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::request::Parts;
use edri_router::{Relay, Router};
use parking_lot::Mutex as ShortMutex;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tower_http::services::ServeDir;

use crate::access::Guard;
use crate::border::{Interceptors, Layers};
use crate::cache::Cache;
use crate::clients::Clients;
use crate::connections::{Addresses, serve};
use crate::exposed::Exposed;
use crate::files::Reloaded;
use crate::forms::Once;
use crate::hosts::Hosts;
use crate::metrics::Metrics;
use crate::pages::Templates;
use crate::problem::Problem;
use crate::proxies::Trusted;
use crate::sessions::LogIns;
use crate::websocket::{Sessions, Workers};
use crate::{ApiError, ApiLimits, Caller, Cors};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) relay: Relay,
    pub(crate) exposed: Arc<Exposed>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) workers: Workers,
    pub(crate) access: Guard,
    pub(crate) files: Option<ServeDir>,
    pub(crate) pages: Option<Templates>,
    pub(crate) interceptors: Interceptors,
    pub(crate) limits: ApiLimits,
    pub(crate) cors: Cors,
    pub(crate) log_ins: Option<LogIns>,
    pub(crate) once: Once,
    pub(crate) hosts: Hosts,
    pub(crate) proxies: Option<Trusted>,
    pub(crate) tls: Option<Arc<Reloaded<Arc<ServerConfig>>>>,
    pub(crate) metrics: Metrics,
    pub(crate) cache: Arc<Cache>,
    pub(crate) addresses: Addresses,
    // Held to count one request.
    pub(crate) clients: ShortMutex<Clients>,
    /// Whether the node has started.
    pub(crate) ready: AtomicBool,
}

impl Shared {
    /// As [`LogIns::check_token`].
    pub(crate) fn check_token(&self, caller: &Caller, head: &Parts, field: Option<&str>) -> Result<(), Problem> {
        let log_ins = self.log_ins.as_ref();
        log_ins.map_or(Ok(()), |log_ins| log_ins.check_token(&self.cors, caller, head, field))
    }
}

/// A running gateway. Dropped, it ends at once, with what its clients were waiting for.
pub struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    stopping: watch::Sender<bool>,
    // Taken by whoever stops it.
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Gateway {
    pub(crate) async fn start(address: SocketAddr, shared: Shared, layers: Layers) -> Result<Self, ApiError> {
        let bind = |source| ApiError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        if shared.access.is_open() && !address.ip().is_loopback() {
            tracing::warn!(%address, "the gateway is open: whoever reaches its address may do everything that is exposed");
        }
        let stopping = watch::Sender::new(false);
        let runtime = shared.router.runtime().clone();
        let shared = Arc::new(shared);
        let serving = runtime.spawn(serve(listener, Arc::clone(&shared), layers, stopping.subscribe()));
        Ok(Self { address, shared, stopping, serving: Mutex::new(Some(serving)) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Says that the node has started: `/readyz` answers so from now on.
    pub fn set_ready(&self) {
        self.shared.ready.store(true, Ordering::Release);
    }

    /// Takes no new connections, lets those that are there finish what they do, for as long as `limit`, then closes them. Workers
    /// stay, as long as their managers do.
    pub async fn shutdown(&self, limit: Duration) {
        self.stopping.send_replace(true);
        self.shared.workers.close();
        let Some(mut serving) = self.serving.lock().await.take() else { return };
        if tokio::time::timeout(limit, &mut serving).await.is_err() {
            serving.abort();
            // So that nothing of it is there any more.
            let _ = serving.await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.get_mut().take() {
            serving.abort();
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}
