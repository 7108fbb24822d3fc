//! The time limit of a tunnel that carries nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::TunnelError;
use crate::core::Core;

/// Ends both directions when neither has carried anything for too long. Each half has one; they know of one another.
pub(super) struct Idle {
    limit: Duration,
    born: Instant,
    last_ms: Arc<AtomicU64>,
    core: Arc<Core>,
    /// Set when this half waited, and left when it has what it waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    pub(super) fn new(limit: Duration, core: &Arc<Core>) -> Self {
        Self { limit, born: Instant::now(), last_ms: Arc::default(), core: Arc::clone(core), timer: None }
    }

    /// For another half of the same tunnel.
    pub(super) fn another(&self) -> Self {
        Self { last_ms: Arc::clone(&self.last_ms), core: Arc::clone(&self.core), timer: None, ..*self }
    }

    /// What was polled for, unless the tunnel has become idle before.
    pub(super) fn watch<R>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<Result<R, TunnelError>>,
    ) -> Poll<Result<R, TunnelError>> {
        if polled.is_ready() {
            self.last_ms.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
            return polled;
        }
        loop {
            let over = self.over();
            let timer = self.timer.get_or_insert_with(|| Box::pin(self.core.sleep_until(over)));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
            // It may be of an earlier wait, and the other halves may have carried something.
            if self.over() <= Instant::now() {
                return Poll::Ready(Err(TunnelError::Idle(self.limit)));
            }
        }
    }

    fn over(&self) -> Instant {
        self.born + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + self.limit
    }
}
