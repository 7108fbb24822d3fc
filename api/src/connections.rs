//! Connections: who gets one, how it is watched, and how it ends.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::activity::{Activity, Verdict};
use crate::border::Layers;
use crate::clients::bound_address;
use crate::front::{Front, retry_after};
use crate::gateway::Shared;
use crate::http::Routes;
use crate::metrics::Refusal;
use crate::problem::Problem;
use crate::websocket::Sessions;
use crate::{ApiLimits, http};

/// How long the listener pauses when the system has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How many are told at a time that there is no room for them. Those beyond it are closed without a word.
const REFUSALS_MAX: usize = 256;
/// How long it may take to tell somebody so.
const REFUSAL_TIME: Duration = Duration::from_secs(2);
/// The most bytes that are read of what somebody sends who is told so.
const REFUSAL_BYTES: u64 = 64 << 10;
/// How long a connection that ends in good order may take for what is under way.
const ENDING_TIME: Duration = Duration::from_secs(10);
/// How long a connection is silent until the system asks whether the other side is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often it is looked whether the sender of a body is there still.
const UPLOAD_LOOK: Duration = Duration::from_secs(1);
/// Streams that a client may have reset before they were looked at, until its connection is closed (rapid reset).
const RESETS_MAX: usize = 32;

type Builder = auto::Builder<TokioExecutor>;

/// Accepts connections until the gateway stops, then waits for those that are open.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    layers: Layers,
    mut stopping: watch::Receiver<bool>,
) {
    let routes = http::routes(Arc::clone(&shared), layers, stopping.clone());
    let builder = Arc::new(builder(&shared.limits));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    // WebSockets are tasks of their own, and end with this function however it ends.
    let _ending = Ending(Arc::clone(&shared.sessions));
    // All end with this function, should it be dropped.
    let mut connections = JoinSet::new();
    let mut watching = JoinSet::new();
    watching.spawn(watch_files(Arc::clone(&shared)));
    loop {
        let (stream, remote) = tokio::select! {
            accepted = accept(&listener) => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        match Place::take(&shared, remote.ip()) {
            Ok(place) => {
                let connection = Connection {
                    routes: routes.clone(),
                    shared: Arc::clone(&shared),
                    builder: Arc::clone(&builder),
                    remote,
                    stopping: stopping.clone(),
                };
                connections.spawn(connection.run(stream, place));
            }
            Err(problem) => {
                let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() else { continue };
                if shared.tls.is_none() {
                    connections.spawn(async move {
                        refuse(stream, &problem).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    tokio::join!(ended, shared.sessions.leave());
}

/// Ends the sessions of WebSockets.
struct Ending(Arc<Sessions>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn watch_files(shared: Arc<Shared>) {
    let certificate = async {
        match &shared.tls {
            Some(tls) => tls.watch().await,
            None => std::future::pending().await,
        }
    };
    let log_ins = async {
        match &shared.log_ins {
            Some(log_ins) => log_ins.watch().await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(shared.access.watch(), certificate, log_ins);
}

fn builder(limits: &ApiLimits) -> Builder {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // What is a little too long is answered with a problem; what is more, by hyper's bare 431.
    let head_bytes = limits.head_bytes.saturating_mul(2).max(16 << 10);
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Activity` watches heads: hyper's limit would end connections that are only idle.
        .header_read_timeout(None)
        // At most 100 headers, as hyper has it by itself: more than its default costs an allocation a request.
        .max_buf_size(head_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .keep_alive_interval(Some(limits.idle_time / 2))
        .keep_alive_timeout(limits.head_time);
    builder
}

/// The next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                // Answers are small and wait for nothing.
                let _ = stream.set_nodelay(true);
                // Whoever lost its network says nothing: the system asks.
                let keep_alive =
                    TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 3).with_retries(3);
                let _ = SockRef::from(&stream).set_tcp_keepalive(&keep_alive);
                return (stream, remote);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Tells somebody that there is no room, whatever is asked, and waits until it has read so.
async fn refuse(mut stream: TcpStream, problem: &Problem) {
    let told = timeout(REFUSAL_TIME, async {
        stream.write_all(&problem.to_http1()).await?;
        stream.shutdown().await?;
        // Closing a socket with unread bytes takes back what was written.
        tokio::io::copy(&mut (&mut stream).take(REFUSAL_BYTES), &mut tokio::io::sink()).await
    });
    let _ = told.await;
}

// ---- places ------------------------------------------------------------------------------------------------------------

/// How many connections each address has.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// A connection's place, given back when it is dropped: when its stream is, however that is used.
struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Place {
    fn take(shared: &Arc<Shared>, address: IpAddr) -> Result<Self, Problem> {
        let is_proxy = shared.proxies.as_ref().is_some_and(|proxies| proxies.is_proxy(address));
        let (limits, metrics, address) = (&shared.limits, &shared.metrics, bound_address(address));
        let refuse = |why, status, code: &'static str, detail: String| {
            metrics.refused(why);
            retry_after(Problem::new(status, code, detail), Duration::from_secs(5))
        };
        // Connections come one after another, so nobody takes a place between looking and taking.
        if metrics.connections.load(Ordering::Acquire) >= limits.connections {
            let detail = format!("{} connections are open, which is all that can be: try again", limits.connections);
            return Err(refuse(Refusal::Connections, StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail));
        }
        let mut addresses = shared.addresses.0.lock();
        let count = addresses.entry(address).or_insert(0);
        // With none at all, counts of nobody would stay.
        let most = limits.connections_per_address.max(1);
        // All clients of a proxy come through it.
        if *count >= most && !is_proxy {
            let detail = format!("your address has {most} connections open, which is all it may: close some");
            let why = Refusal::ConnectionsPerAddress;
            return Err(refuse(why, StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail));
        }
        *count += 1;
        drop(addresses);
        metrics.connections.fetch_add(1, Ordering::AcqRel);
        metrics.accepted();
        Ok(Self { shared: Arc::clone(shared), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.metrics.connections.fetch_sub(1, Ordering::AcqRel);
        let mut addresses = self.shared.addresses.0.lock();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

// ---- one connection ----------------------------------------------------------------------------------------------------

/// A connection in the making.
struct Connection {
    routes: Routes,
    shared: Arc<Shared>,
    builder: Arc<Builder>,
    remote: SocketAddr,
    stopping: watch::Receiver<bool>,
}

impl Connection {
    async fn run(mut self, stream: TcpStream, place: Place) {
        let Some(tls) = &self.shared.tls else { return self.talk(stream, place).await };
        let shaking = TlsAcceptor::from(Arc::clone(&*tls.current())).accept(stream);
        let shaken = tokio::select! {
            shaken = timeout(self.shared.limits.handshake_time, shaking) => shaken,
            _ = self.stopping.wait_for(|stopping| *stopping) => return,
        };
        match shaken {
            // In a box, as one without TLS would otherwise be as large.
            Ok(Ok(stream)) => Box::pin(self.talk(stream, place)).await,
            Ok(Err(error)) => {
                self.shared.metrics.refused(Refusal::Handshake);
                tracing::debug!(remote = %self.remote, %error, "a TLS handshake failed");
            }
            Err(_) => {
                self.shared.metrics.refused(Refusal::Handshake);
                tracing::debug!(remote = %self.remote, "a TLS handshake took too long");
            }
        }
    }

    /// Answers requests until one side has enough.
    async fn talk<S: OverTcp + AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, place: Place) {
        let Self { routes, shared, builder, remote, mut stopping } = self;
        let limits = &shared.limits;
        let activity = Arc::new(Mutex::new(Activity::new(Instant::now())));
        let look = Arc::new(AtomicBool::new(false));
        let line = Line { stream, activity: Arc::clone(&activity), look: Arc::clone(&look), _place: place };
        let front = Front::new(routes, Arc::clone(&shared), remote, Arc::clone(&activity));
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(line), front));
        let mut ends: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let (verdict, uploads) = {
                let activity = activity.lock();
                (activity.verdict(now, limits), activity.has_uploads())
            };
            look.store(uploads, Ordering::Relaxed);
            let wait = match verdict {
                Verdict::Stays(wait) if uploads => wait.min(UPLOAD_LOOK),
                Verdict::Stays(wait) => wait,
                Verdict::Idle if ends.is_none() => {
                    ends = Some(now + ENDING_TIME);
                    connection.as_mut().graceful_shutdown();
                    ENDING_TIME
                }
                Verdict::Idle if ends.is_some_and(|ends| now < ends) => ENDING_TIME,
                Verdict::Idle | Verdict::Left => return,
                Verdict::SlowHead => return shared.metrics.refused(Refusal::SlowHead),
                Verdict::Blocked => return shared.metrics.refused(Refusal::SlowReader),
            };
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%remote, %error, "a connection ended");
                    }
                    return;
                }
                () = sleep(wait) => {}
                _ = stopping.wait_for(|stopping| *stopping), if ends.is_none() => {
                    // What is under way may take as long as the whole gateway has.
                    ends = Some(Instant::now() + limits.idle_time);
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// A stream that tells what goes on on it, and holds its connection's place.
struct Line<S> {
    stream: S,
    activity: Arc<Mutex<Activity>>,
    /// Set when it is to be looked whether the other side is there still. hyper, which reads nothing while a body is not taken, flushes each
    /// time that it is polled.
    look: Arc<AtomicBool>,
    _place: Place,
}

/// A stream over a socket.
trait OverTcp {
    fn tcp(&self) -> &TcpStream;
}

impl OverTcp for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl OverTcp for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Whether the other side has closed the connection or lost it. hyper takes an end in the middle of a request for that as well.
fn is_gone(tcp: &TcpStream) -> bool {
    match pin!(tcp.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(ready)) => ready.is_read_closed(),
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

impl<S> Line<S> {
    fn written(&self, polled: &Poll<io::Result<usize>>) {
        self.activity.lock().written(polled.is_ready(), Instant::now());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.lock().read(Instant::now());
        }
        polled
    }
}

impl<S: OverTcp + AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.look.swap(false, Ordering::Relaxed) && is_gone(self.stream.tcp()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the sender of a body is gone")));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
