//! A signal that something has changed, for those who wait for a condition; raising it when nobody waits costs next to
//! nothing.

use std::sync::Arc;

use tokio::sync::watch;

/// Raised whenever what it stands for has changed. Clones are the same signal.
#[derive(Debug, Clone)]
pub(crate) struct Signal(Arc<watch::Sender<()>>);

impl Signal {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(())))
    }

    pub(crate) fn raise(&self) {
        self.0.send_replace(());
    }

    /// Waits until `condition` gives something, looking again each time the signal is raised. Cancel safe.
    pub(crate) async fn wait_until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        let mut raised = self.0.subscribe();
        loop {
            if let Some(met) = condition() {
                return met;
            }
            // The sender lives as long as `self`.
            let _ = raised.changed().await;
        }
    }
}
