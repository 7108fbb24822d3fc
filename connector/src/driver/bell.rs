//! What wakes the driver's task, and what for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

use super::outbox::Ready;

/// Rung by whoever has put something where the driver will find it, after that.
///
/// No ring is lost: whoever finds it silent wakes the task, and whoever finds it rung comes before the driver silences it and
/// then looks for what there is.
#[derive(Debug, Default)]
pub(super) struct DriverBell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl DriverBell {
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }

    /// Ready, and silent again, once it has rung.
    pub(super) fn poll_rung(&self, cx: &Context<'_>) -> Poll<()> {
        if self.silence() {
            return Poll::Ready(());
        }
        self.task.register(cx.waker());
        // Who rang before that has woken nobody.
        if self.silence() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn silence(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }
}

/// What happens seldom, and is looked at only when this has rung: links that come, changes on this node, commands, arrivals
/// that have got their places, links that have room again, the timer. Each is polled until it has nothing, with this as its
/// waker, so that it rings once there is something.
#[derive(Debug)]
pub(super) struct Seldom {
    rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Seldom {
    /// It has rung already: nothing rings before it was polled once.
    pub(super) fn new(ready: &Arc<Ready>) -> Arc<Self> {
        ready.wake.ring();
        Arc::new(Self { rung: AtomicBool::new(true), ready: Arc::clone(ready) })
    }

    /// Whether it has rung since the last time. To be asked before what it is for is polled.
    pub(super) fn take(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }

    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.ready.wake.ring();
    }

    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }
}

impl Wake for Seldom {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_ring_is_lost_whoever_rings_and_whenever() {
        const RINGS: u64 = 50_000;
        const RINGERS: u64 = 3;
        let ready: Arc<Ready> = Arc::default();
        let put: Arc<[AtomicU64; 2]> = Arc::default();
        let seldom = Seldom::new(&ready);
        let ringers = (0..RINGERS).map(|ringer| {
            let (ready, put, seldom) = (Arc::clone(&ready), Arc::clone(&put), Arc::clone(&seldom));
            tokio::task::spawn_blocking(move || {
                for number in 0..RINGS {
                    let what = usize::from(number % 7 == ringer);
                    put[what].fetch_add(1, Ordering::Relaxed);
                    match what {
                        0 => ready.wake.ring(),
                        _ => seldom.ring(),
                    }
                }
            })
        });
        let ringers: Vec<_> = ringers.collect();
        let heard = async {
            let (mut often, mut seldomly) = (0, 0);
            while often + seldomly < RINGS * RINGERS {
                poll_fn(|cx| ready.wake.poll_rung(cx)).await;
                often += put[0].swap(0, Ordering::Relaxed);
                if seldom.take() {
                    seldomly += put[1].swap(0, Ordering::Relaxed);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), heard).await.expect("all of it is heard of");
        futures_util::future::join_all(ringers).await;
    }
}
