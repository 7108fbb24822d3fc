//! Tasks that run one after the other on one thread where one wakes the next.
//!
//! What comes over a link passes the socket's task, the connection's and the driver's; each does little, wakes the next and
//! waits. tokio runs three tasks that wake one another on one thread, and for the fourth, who is often the worker or the
//! requester, it wakes another thread, which costs more than all of them do. So a strand that is woken while another is polled
//! is polled next, on that thread and in the other's task.
//!
//! ```text
//! woken by anybody ──▶ its task ──▶ poll ─┬─▶ poll of the strand that it woke ─▶ ... at most CHAIN_MAX
//! woken by a strand ──────────────────────┘   of several the first; the others' tasks are woken, for other threads,
//!                                             and its own when those before it took longer than CHAIN_TIME
//! ```

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::net::UdpSocket;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::task::{ArcWake, waker_ref};
use parking_lot::Mutex;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::runtime;

/// How many strands are polled in one poll of a task, before other tasks have their turn.
const CHAIN_MAX: usize = 8;
/// Nor is one polled when those before it took so long, as when much comes at once: then waking a thread is worth it, and both work.
const CHAIN_TIME: Duration = Duration::from_micros(50);

/// It was woken, and somebody is about to poll it: its task, a chain, or whoever is at it.
const WOKEN: u8 = 1;
/// Somebody polls it.
const POLLED: u8 = 2;

thread_local! {
    /// There while strands are polled on this thread.
    static CHAIN: RefCell<Option<Chain>> = const { RefCell::new(None) };
}

struct Chain {
    runtime: runtime::Id,
    /// Who is polled next.
    next: Option<Arc<Shared>>,
}

/// The tasks of a socket and its connections, as strands.
#[derive(Debug)]
pub(crate) struct Strands(pub(crate) runtime::Handle);

impl Runtime for Strands {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.0.spawn(Strand::new(future, &self.0));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// A future that is to be spawned as a task. When the task is dropped, so is the future.
pub(crate) struct Strand(Arc<Shared>, ChainTime);

/// How long the strands that are polled in a task may have taken before one more is.
struct ChainTime(Duration);

struct Shared {
    /// Of [`WOKEN`] and [`POLLED`]. Whoever makes it [`WOKEN`] from nothing sees to it that it is polled.
    state: AtomicU8,
    // Held while it is polled, by one at a time, and when its task is dropped.
    life: Mutex<Life>,
    /// Of its task.
    task: Mutex<Option<Waker>>,
    runtime: runtime::Id,
}

enum Life {
    Goes(BoxFuture<'static, ()>),
    Over,
    Panicked(Box<dyn Any + Send>),
}

impl Strand {
    /// A strand that will be a task of this runtime.
    pub(crate) fn new(future: impl Future<Output = ()> + Send + 'static, runtime: &runtime::Handle) -> Self {
        // Its first poll is that of its task.
        let state = AtomicU8::new(WOKEN);
        let life = Mutex::new(Life::Goes(Box::pin(future)));
        Self(Arc::new(Shared { state, life, task: Mutex::new(None), runtime: runtime.id() }), ChainTime(CHAIN_TIME))
    }
}

impl Future for Strand {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut task = self.0.task.lock();
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        let polling = Polling::begin(self.0.runtime);
        let began = Instant::now();
        self.0.run();
        for _ in 1..CHAIN_MAX {
            if began.elapsed() > self.1.0 {
                break;
            }
            let Some(next) = Polling::next() else { break };
            next.run();
        }
        drop(polling);
        self.0.outcome()
    }
}

impl Drop for Strand {
    fn drop(&mut self) {
        // Dropped outside the lock, because it may wake others and itself.
        let life = std::mem::replace(&mut *self.0.life.lock(), Life::Over);
        drop(life);
    }
}

/// That strands are polled on this thread now; what was polled before is polled again after it.
struct Polling(Option<Chain>);

impl Polling {
    fn begin(runtime: runtime::Id) -> Self {
        Self(CHAIN.replace(Some(Chain { runtime, next: None })))
    }

    fn next() -> Option<Arc<Shared>> {
        CHAIN.with_borrow_mut(|chain| chain.as_mut()?.next.take())
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let chain = CHAIN.replace(self.0.take());
        if let Some(next) = chain.and_then(|chain| chain.next) {
            next.wake_task();
        }
    }
}

impl Shared {
    /// Polls it, unless somebody does so at this moment: that one is told to see to it.
    fn run(self: &Arc<Self>) {
        let begun = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            Some(if state & POLLED == 0 { POLLED } else { POLLED | WOKEN })
        });
        if begun.is_ok_and(|before| before & POLLED != 0) {
            return;
        }
        let waker = waker_ref(self);
        let mut life = self.life.lock();
        let Life::Goes(future) = &mut *life else { return };
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        let over = match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(())) => Some(Life::Over),
            Err(panic) => Some(Life::Panicked(panic)),
        };
        let ended = over.map(|over| std::mem::replace(&mut *life, over));
        drop(life);
        let is_over = ended.is_some();
        drop(ended);
        // What woke it while it was polled may have come after it had looked.
        let before = self.state.fetch_and(!POLLED, Ordering::AcqRel);
        if is_over || before & WOKEN != 0 {
            self.wake_task();
        }
    }

    /// How it has ended, if it has.
    fn outcome(&self) -> Poll<()> {
        // Somebody polls it at this moment, and wakes the task if that was the end.
        let Some(mut life) = self.life.try_lock() else { return Poll::Pending };
        match std::mem::replace(&mut *life, Life::Over) {
            Life::Over => Poll::Ready(()),
            Life::Panicked(panic) => {
                drop(life);
                resume_unwind(panic)
            }
            goes @ Life::Goes(_) => {
                *life = goes;
                Poll::Pending
            }
        }
    }

    fn wake_task(&self) {
        // Without one it was not polled yet, and will be.
        if let Some(task) = &*self.task.lock() {
            task.wake_by_ref();
        }
    }

    /// Takes its place as the next of the strands that are polled on this thread, if there are any and the place is free.
    fn join_chain(self: &Arc<Self>) -> bool {
        let joined = CHAIN.try_with(|chain| match &mut *chain.borrow_mut() {
            Some(chain) if chain.next.is_none() && chain.runtime == self.runtime => {
                chain.next = Some(Arc::clone(self));
                true
            }
            _ => false,
        });
        // A thread that ends polls nobody.
        joined.unwrap_or(false)
    }
}

impl ArcWake for Shared {
    fn wake_by_ref(this: &Arc<Self>) {
        // Whoever makes it woken, or polls it, sees to it; what was written before this is seen by who takes the mark away.
        if this.state.fetch_or(WOKEN, Ordering::AcqRel) == 0 && !this.join_chain() {
            this.wake_task();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::{noop_waker, waker};
    use std::future::poll_fn;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, AtomicUsize};
    use tokio::runtime::Handle;
    use tokio::sync::Notify;

    use super::*;

    /// So that the test does not depend on how busy the machine is.
    const LONG: ChainTime = ChainTime(Duration::from_secs(3600));

    /// How often a task was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(this: &Arc<Self>) {
            this.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A strand that counts its polls and wakes others, and its task.
    struct Tested {
        strand: Strand,
        polls: Arc<AtomicUsize>,
        task: Arc<Woken>,
        own: Waker,
    }

    impl Tested {
        fn new(wakes: Vec<Waker>) -> Self {
            let polls = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&polls);
            let future = poll_fn(move |_| {
                // The first poll is for its task to be known.
                if counted.fetch_add(1, Ordering::SeqCst) > 0 {
                    wakes.iter().for_each(Waker::wake_by_ref);
                }
                Poll::Pending
            });
            let mut strand = Strand::new(future, &Handle::current());
            strand.1 = LONG;
            let own = waker(Arc::clone(&strand.0));
            let mut tested = Self { strand, polls, task: Arc::default(), own };
            tested.poll();
            tested
        }

        fn poll(&mut self) {
            let task = waker(Arc::clone(&self.task));
            assert!(Pin::new(&mut self.strand).poll(&mut Context::from_waker(&task)).is_pending());
        }

        fn seen(&self) -> (usize, usize) {
            (self.polls.load(Ordering::SeqCst), self.task.0.load(Ordering::SeqCst))
        }
    }

    #[tokio::test]
    async fn a_strand_that_another_wakes_is_polled_in_the_other_s_task() {
        let third = Tested::new(Vec::new());
        let second = Tested::new(vec![third.own.clone(), third.own.clone()]);
        let mut first = Tested::new(vec![second.own.clone()]);
        first.own.wake_by_ref();
        assert_eq!(first.seen(), (1, 1), "from outside its task is woken");
        first.poll();
        assert_eq!((first.seen(), second.seen(), third.seen()), ((2, 1), (2, 0), (2, 0)));
    }

    #[tokio::test]
    async fn of_several_that_are_woken_the_first_is_polled_and_the_tasks_of_the_others_are_woken() {
        let (one, two) = (Tested::new(Vec::new()), Tested::new(Vec::new()));
        let mut first = Tested::new(vec![one.own.clone(), two.own.clone()]);
        first.own.wake_by_ref();
        first.poll();
        assert_eq!((one.seen(), two.seen()), ((2, 0), (1, 1)));
    }

    #[tokio::test]
    async fn who_takes_long_leaves_the_next_to_its_own_task() {
        let second = Tested::new(Vec::new());
        let mut first = Tested::new(vec![second.own.clone()]);
        first.strand.1 = ChainTime(Duration::ZERO);
        first.own.wake_by_ref();
        first.poll();
        assert_eq!(second.seen(), (1, 1));
    }

    #[tokio::test]
    async fn strands_that_wake_one_another_without_end_let_other_tasks_have_their_turn() {
        let slot: Arc<OnceLock<Waker>> = Arc::default();
        let back = Arc::clone(&slot);
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let ping = poll_fn(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            back.get().into_iter().for_each(Waker::wake_by_ref);
            Poll::Pending
        });
        let mut ping = Strand::new(ping, &Handle::current());
        ping.1 = LONG;
        let task = Arc::<Woken>::default();
        let waker_of_task = waker(Arc::clone(&task));
        let pong = Tested::new(vec![waker(Arc::clone(&ping.0))]);
        slot.set(pong.own.clone()).expect("once");
        assert!(Pin::new(&mut ping).poll(&mut Context::from_waker(&waker_of_task)).is_pending());
        assert!(polls.load(Ordering::SeqCst) <= CHAIN_MAX);
        assert_eq!(pong.seen().1 + task.0.load(Ordering::SeqCst), 1, "whoever was next goes on in its own task");
        // One that wakes itself does so, too.
        let mut itself = Strand::new(
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::Pending
            }),
            &Handle::current(),
        );
        let task = Arc::<Woken>::default();
        assert!(Pin::new(&mut itself).poll(&mut Context::from_waker(&waker(Arc::clone(&task)))).is_pending());
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_waking_is_lost_whoever_wakes_and_whoever_polls() {
        const WAKINGS: u64 = 20_000;
        const STRANDS: usize = 3;
        // A ring of strands: each passes on what it was given, so each is woken by strands and by others at once.
        let given: Arc<[(AtomicU64, Notify); STRANDS]> = Arc::default();
        let seen: Arc<[AtomicU64; STRANDS]> = Arc::default();
        let runtime = Handle::current();
        for at in 0..STRANDS {
            let (given, seen) = (Arc::clone(&given), Arc::clone(&seen));
            let future = async move {
                loop {
                    given[at].1.notified().await;
                    let taken = given[at].0.swap(0, Ordering::SeqCst);
                    seen[at].fetch_add(taken, Ordering::SeqCst);
                    if at + 1 < STRANDS {
                        given[at + 1].0.fetch_add(taken, Ordering::SeqCst);
                        given[at + 1].1.notify_one();
                    }
                }
            };
            runtime.spawn(Strand::new(future, &runtime));
        }
        let senders = (0..4).map(|sender| {
            let given = Arc::clone(&given);
            tokio::spawn(async move {
                for number in 0..WAKINGS {
                    let at = if sender == 3 { 1 } else { 0 };
                    given[at].0.fetch_add(1, Ordering::SeqCst);
                    given[at].1.notify_one();
                    if number % 64 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        });
        futures_util::future::join_all(senders).await;
        let all = async {
            while seen[STRANDS - 1].load(Ordering::SeqCst) < 4 * WAKINGS {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("all of it is passed on");
    }

    #[tokio::test]
    async fn one_that_panics_in_another_s_task_ends_its_own() {
        let mut panicking = Strand::new(
            async {
                tokio::task::yield_now().await;
                panic!("on purpose");
            },
            &Handle::current(),
        );
        let task = Arc::<Woken>::default();
        let of_task = waker(Arc::clone(&task));
        assert!(Pin::new(&mut panicking).poll(&mut Context::from_waker(&of_task)).is_pending());
        // What woke it is left to nobody: this waking is by another strand.
        panicking.0.state.store(0, Ordering::SeqCst);
        let mut other = Tested::new(vec![waker(Arc::clone(&panicking.0))]);
        other.own.wake_by_ref();
        other.poll();
        assert_eq!(other.seen().0, 2, "the other goes on");
        assert!(task.0.load(Ordering::SeqCst) > 0, "its own task is woken");
        let ended =
            catch_unwind(AssertUnwindSafe(|| Pin::new(&mut panicking).poll(&mut Context::from_waker(&of_task))));
        assert!(ended.is_err());
    }

    #[tokio::test]
    async fn one_whose_task_is_dropped_is_dropped_although_others_hold_its_waker() {
        let held = Arc::new(());
        let within = Arc::clone(&held);
        let mut strand = Strand::new(
            async move {
                let _within = within;
                std::future::pending().await
            },
            &Handle::current(),
        );
        let kept = waker(Arc::clone(&strand.0));
        assert!(Pin::new(&mut strand).poll(&mut Context::from_waker(&noop_waker())).is_pending());
        drop(strand);
        assert_eq!(Arc::strong_count(&held), 1);
        kept.wake();
    }
}
