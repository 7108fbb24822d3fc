use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::files::{self, Stamp};
use super::{DAY, Identity, KeysError};

/// An identity that may change while the node runs. Clones share it. What is under way keeps what it began with;
/// every handshake begins with what is current.
#[derive(Debug, Clone)]
pub struct Reloading(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None` for an identity that was made in memory, which never changes.
    folder: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: Arc<Identity>,
    /// The files as they were before they were last read.
    stamps: [Stamp; 3],
}

impl Reloading {
    /// The identity in `folder`, whose files may be replaced later.
    ///
    /// # Errors
    ///
    /// As [`Identity::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, KeysError> {
        let folder = folder.as_ref();
        let stamps = stamps(folder);
        let identity = Identity::open(folder)?;
        Ok(Self::new(Some(folder.to_owned()), identity, stamps))
    }

    fn new(folder: Option<PathBuf>, identity: Identity, stamps: [Stamp; 3]) -> Self {
        identity.warn_of_expiry();
        Self(Arc::new(Shared { folder, state: Mutex::new(State { current: Arc::new(identity), stamps }) }))
    }

    /// The identity as it is now.
    #[must_use]
    pub fn current(&self) -> Arc<Identity> {
        Arc::clone(&self.0.state.lock().current)
    }

    /// Reads the files again, and says whether the identity is another one now. Reads files: not for a thread that
    /// others wait for.
    ///
    /// # Errors
    ///
    /// As [`Identity::open`]; also [`KeysError::OtherNode`] when the files are another node's, and [`KeysError::Expired`]
    /// when they are older than what is in use. The identity stays what it was.
    pub fn reload(&self) -> Result<bool, KeysError> {
        let Some(folder) = &self.0.folder else { return Ok(false) };
        // Before the files are read: what is written meanwhile is a later change.
        self.0.state.lock().stamps = stamps(folder);
        let new = Identity::open(folder)?;
        let [_, path, _] = Identity::files(folder);
        let mut state = self.0.state.lock();
        let current = &state.current;
        if current.node() != new.node() {
            return Err(KeysError::OtherNode { path, current: current.node().clone(), new: new.node().clone() });
        }
        if current.is_same(&new) {
            return Ok(false);
        }
        if new.expires_in().is_zero() && !current.expires_in().is_zero() {
            return Err(KeysError::Expired { path });
        }
        new.warn_of_expiry();
        state.current = Arc::new(new);
        Ok(true)
    }

    /// Looks at the files `every` so often and reloads those that have changed; what is broken is logged, and what was
    /// before stays. Once a day it warns of an identity that ends soon. Never returns; may be dropped at any time.
    pub async fn watch(&self, every: Duration) {
        let mut polls = interval(every);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warned = Instant::now();
        loop {
            polls.tick().await;
            if warned.elapsed() >= DAY {
                warned = Instant::now();
                self.current().warn_of_expiry();
            }
            let this = self.clone();
            // A disk may make us wait, and a runtime must not.
            let looked =
                tokio::task::spawn_blocking(move || if this.has_changed() { this.reload() } else { Ok(false) });
            match looked.await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => tracing::info!(node = %self.current().node(), "the identity of this node was replaced"),
                Ok(Err(error)) => tracing::warn!(%error, "a new identity was not taken up, and the old one stays"),
                Err(error) => tracing::error!(%error, "looking for a new identity failed"),
            }
        }
    }

    fn has_changed(&self) -> bool {
        self.0.folder.as_ref().is_some_and(|folder| stamps(folder) != self.0.state.lock().stamps)
    }
}

impl From<Identity> for Reloading {
    fn from(identity: Identity) -> Self {
        Self::new(None, identity, [None; 3])
    }
}

fn stamps(folder: &Path) -> [Stamp; 3] {
    Identity::files(folder).map(|path| files::stamp(&path))
}
