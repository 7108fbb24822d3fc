//! Sessions with something open, which ends when they do.

use std::collections::HashMap;
use std::sync::Arc;

use edri_events::{Encoding, Envelope};
use edri_router::Tap;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::watch;

/// What is open, by the keys of the sessions' records.
#[derive(Debug, Default)]
pub(super) struct Ends {
    // Held to add, to remove or to end one.
    open: Mutex<HashMap<Arc<str>, Open>>,
}

#[derive(Debug)]
struct Open {
    count: usize,
    over: watch::Sender<bool>,
}

/// A change in the store.
#[derive(Deserialize)]
struct Changed {
    key: String,
    what: String,
}

impl Tap for Ends {
    fn take(&self, envelope: &Envelope) {
        if self.open.lock().is_empty() {
            return;
        }
        let Ok(body) = envelope.body(Encoding::MessagePack) else { return };
        if let Ok(Changed { key, what }) = body.decode()
            && matches!(&*what, "deleted" | "expired" | "evicted")
        {
            self.end(&key);
        }
    }

    fn close(&self) {}
}

impl Ends {
    /// Watches for the end of a session.
    pub(super) fn watch(self: &Arc<Self>, key: &Arc<str>) -> Ending {
        let mut open = self.open.lock();
        let one = open.entry(Arc::clone(key)).or_insert_with(|| Open { count: 0, over: watch::Sender::new(false) });
        one.count += 1;
        Ending { over: one.over.subscribe(), key: Arc::clone(key), ends: Arc::clone(self) }
    }

    /// Ends what the session has open.
    pub(super) fn end(&self, key: &str) {
        if let Some(one) = self.open.lock().get(key) {
            one.over.send_replace(true);
        }
    }

    /// The sessions that have something open.
    pub(super) fn keys(&self) -> Vec<String> {
        self.open.lock().keys().map(|key| key.to_string()).collect()
    }
}

/// Waits for the end of a session.
#[derive(Debug)]
pub(crate) struct Ending {
    over: watch::Receiver<bool>,
    key: Arc<str>,
    ends: Arc<Ends>,
}

impl Ending {
    /// Ready once the session has ended. Cancel safe.
    pub(crate) async fn over(&mut self) {
        // The sender is there as long as this.
        let _ = self.over.wait_for(|over| *over).await;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut open = self.ends.open.lock();
        if let Some(one) = open.get_mut(&self.key) {
            one.count -= 1;
            if one.count == 0 {
                open.remove(&self.key);
            }
        }
    }
}
