//! The running gateway: who is let in, and what becomes of a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edri_router::{Relay, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::access::Access;
use crate::exposed::Exposed;
use crate::websocket::Sessions;
use crate::{ApiError, ApiLimits, http};

/// How long the listener pauses when the system has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) relay: Relay,
    pub(crate) exposed: Exposed,
    pub(crate) access: Access,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) limits: ApiLimits,
    /// Whether the node has started.
    pub(crate) ready: AtomicBool,
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
    pub(crate) async fn start(address: SocketAddr, shared: Shared) -> Result<Self, ApiError> {
        let bind = |source| ApiError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let stopping = watch::Sender::new(false);
        let runtime = shared.router.runtime().clone();
        let shared = Arc::new(shared);
        let serving = runtime.spawn(serve(listener, Arc::clone(&shared), stopping.subscribe()));
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

    /// Takes no new connections, lets those that are there finish what they do, for as long as `limit`, then closes them.
    pub async fn shutdown(&self, limit: Duration) {
        self.stopping.send_replace(true);
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

/// Accepts connections until the gateway stops, then waits for those that are open.
async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(shared.limits.connections));
    let router = http::router(Arc::clone(&shared), stopping.clone());
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head_time)
        .max_buf_size(shared.limits.head_bytes.max(8 << 10));
    let head_bytes = u32::try_from(shared.limits.head_bytes).unwrap_or(u32::MAX);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(head_bytes).max_concurrent_streams(256);
    // However this ends.
    let _ending = Ending(Arc::clone(&shared.sessions));
    let graceful = GracefulShutdown::new();
    // Ended with the listener.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let (stream, peer, place) = accepted;
        let service = hyper_util::service::TowerToHyperService::new(http::Connected::new(router.clone(), peer));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let connection = graceful.watch(connection.into_owned());
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "a connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::join!(graceful.shutdown(), shared.sessions.leave());
}

/// Ends the sessions of WebSockets, which are tasks of their own.
struct Ending(Arc<Sessions>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(places).acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and wait for nothing.
                let _ = stream.set_nodelay(true);
                return (stream, peer, place);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
