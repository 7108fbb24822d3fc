//! A client of a node: the verbs of the [`Bus`] over a WebSocket.
//!
//! A client is a bus without a table: what it sends goes to the node, and what it subscribes to comes from there. It keeps its
//! session through broken connections: calls, tunnels and subscriptions stay open meanwhile, and nothing is lost or comes
//! twice. When the session cannot be kept, because the node is another or was away for too long, open calls end with
//! `peer_lost`, and subscriptions begin again with what comes from then on; those that read a history go on where they were.
//!
//! This crate promises that what it keeps is bounded by the node's window, the credit of tunnels and the capacity of
//! subscriptions. It knows nothing of nodes from within: managers, links, stores.

mod connection;
mod feeds;
mod link;
mod stream;
mod target;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use edri_events::{Address, Encoding, Incarnation, ManagerName, NodeName};
use edri_protocol::resume::{Received, Sent};
use edri_router::{Bus, Router};
use edri_workers::wire::{Peer, Up};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use connection::{End, Greeted, Session, carry, greet};
use feeds::Feeds;
use link::{Link, NoCalls};
pub use target::Connect;
use target::Target;

/// The first pause before a lost node is tried again, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is none.
    #[error("no address of a node: {0}; write it like `ws://127.0.0.1:8080/ws`")]
    Url(String),
    /// The file with the authorities that are trusted, or the system's, cannot be used.
    #[error("no authorities to trust in {0}")]
    Authorities(String),
    /// The certificate that is shown there is not trusted.
    #[error("the certificate of {0}")]
    Untrusted(String),
    /// Nobody answers there.
    #[error("cannot connect to {0}")]
    Unreachable(String),
    /// The node does not let the client in.
    #[error("the node refuses: {message} ({code})")]
    Refused {
        /// A stable code.
        code: String,
        /// What it says.
        message: String,
    },
    /// There is no tokio runtime around.
    #[error("a client needs a tokio runtime around it")]
    NoRuntime,
}

/// A client of a node. It has the verbs of the [`Bus`]: publish, request, open, subscribe, typed and untyped. Clones are the
/// same client; when the last is dropped its connection ends, and with it all that is open.
///
/// ```no_run
/// # async fn f<Quake: edri_events::Notification>(quake: Quake) -> Result<(), Box<dyn std::error::Error>> {
/// use edri_client::Client;
///
/// let client = Client::connect("ws://127.0.0.1:8080/ws").token("s3cret").await?;
/// let mut quakes = client.subscribe::<Quake>().key("north").await?;
/// client.publish(quake).await?;
/// let quake = quakes.next().await;
/// # Ok(()) }
/// ```
///
/// What an event's declaration says stays with the node, and with the Rust type. `Bus::topology` and its like tell of the client
/// and nothing of the node. A subscription is never waited for: [`Subscription::missed`](edri_router::Subscription::missed) says
/// how much it missed.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Bus,
    // Its timers run as long as the client.
    _router: Router,
    link: Arc<Link>,
    close: watch::Sender<bool>,
    connected: watch::Receiver<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Client {
    /// A client of the node whose gateway is at this address: `ws://host:port/ws`, or `wss://host:port/ws` where it talks TLS.
    pub fn connect(url: impl Into<String>) -> Connect {
        Connect::to(url.into())
    }

    async fn start(connect: Connect) -> Result<Self, ClientError> {
        let runtime = Handle::try_current().map_err(|_| ClientError::NoRuntime)?;
        let target = connect.target().await?;
        let greeted = greet(&target, None).await?;
        let wrong = |what: &str| ClientError::Unreachable(format!("`{}`: its {what} is none", target.url));
        let node = NodeName::new(&greeted.node).map_err(|_| wrong("name"))?;
        let incarnation = u64::from_str_radix(&greeted.incarnation, 16).ok().and_then(Incarnation::from_number);
        let incarnation = incarnation.ok_or_else(|| wrong("incarnation"))?;
        let address = Address { node, incarnation, manager: None };
        let session = begin(&greeted, &runtime);
        let link = Link::new(Arc::clone(&session.up), Feeds::new(address.clone()));
        let router = Router::beneath(address, &runtime, Arc::clone(&link) as _, Arc::new(NoCalls));
        let (close, closing) = watch::channel(false);
        let (tell, connected) = watch::channel(true);
        let driver = Driver { target, link: Arc::clone(&link), closing, tell, runtime: runtime.clone() };
        let task = Mutex::new(Some(runtime.spawn(driver.run(greeted, session))));
        Ok(Self { inner: Arc::new(Inner { bus: router.bus(), _router: router, link, close, connected, task }) })
    }

    /// The verbs, to be kept where a [`Bus`] is wanted. They fail with `peer_lost` once the client is dropped.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.inner.bus
    }

    /// Whether there is a connection right now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.inner.connected.borrow()
    }

    /// Says goodbye: what was sent goes out, what is open ends.
    pub async fn close(self) {
        self.inner.close.send_replace(true);
        if let Some(task) = self.inner.task.lock().await.take() {
            // It does not panic.
            let _ = task.await;
        }
    }
}

impl Deref for Client {
    type Target = Bus;

    fn deref(&self) -> &Bus {
        &self.inner.bus
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
        self.link.end();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("connected", &self.is_connected()).finish_non_exhaustive()
    }
}

/// A session that has just begun.
fn begin(greeted: &Greeted, runtime: &Handle) -> Session {
    let peer = Peer::new(Encoding::MessagePack, greeted.frame_bytes_max, runtime.clone());
    let name = ManagerName::new("gateway").expect("it is a name");
    Session {
        id: greeted.session.clone(),
        keep: greeted.keep,
        sent: Sent::kept(),
        received: Received::default(),
        up: Up::of_client(peer, name, greeted.window, runtime.clone()),
    }
}

/// Keeps a client connected.
struct Driver {
    target: Target,
    link: Arc<Link>,
    closing: watch::Receiver<bool>,
    tell: watch::Sender<bool>,
    runtime: Handle,
}

impl Driver {
    async fn run(mut self, mut greeted: Greeted, mut session: Session) {
        loop {
            self.tell.send_replace(true);
            let Greeted { socket, silence, .. } = greeted;
            let end = carry(socket, silence, &mut session, &self.link, self.closing.clone()).await;
            self.tell.send_replace(false);
            if end == End::Closed {
                return self.link.end();
            }
            let Some(again) = self.reconnect(&mut session, end == End::Broken).await else { return self.link.end() };
            greeted = again;
            let goes_on = greeted.resumed && session.sent.reconnect(greeted.received).is_ok();
            if !goes_on {
                tracing::warn!(node = greeted.node, "the session could not be kept: what was open has ended");
                session = begin(&greeted, &self.runtime);
                self.link.begin_again(Arc::clone(&session.up));
            }
        }
    }

    /// Connects again, however long it takes; `None` when the client is closed meanwhile.
    async fn reconnect(&mut self, session: &mut Session, resumable: bool) -> Option<Greeted> {
        let since = Instant::now();
        let mut pause = PAUSE;
        let mut lost = !resumable;
        loop {
            if !lost && since.elapsed() > session.keep {
                lost = true;
            }
            if lost {
                // Who waits for an answer waits in vain.
                session.up.lost();
            }
            let resume = (!lost).then(|| (session.id.clone(), session.received.count()));
            let resume = resume.as_ref().map(|(id, received)| (id.as_str(), *received));
            let greeting = tokio::select! {
                greeting = greet(&self.target, resume) => greeting,
                _ = self.closing.wait_for(|close| *close) => return None,
            };
            match greeting {
                Ok(greeted) => {
                    session.received.tell();
                    return Some(greeted);
                }
                Err(error) => tracing::debug!(%error, "not connected again yet"),
            }
            let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = tokio::time::sleep(jittered) => {}
                _ = self.closing.wait_for(|close| *close) => return None,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
