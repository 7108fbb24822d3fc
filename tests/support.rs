//! What the scenarios share.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use edri::prelude::*;
use edri::{Account, Event, GroupView, Limits, Reason, ShutdownReport};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take before a test calls it hung.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

// ---- waiting -----------------------------------------------------------------------------------------------------------

/// Waits until `condition` holds, and fails naming `what` when it does not within [`LIMIT`].
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < limit, "waited {LIMIT:?} for: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Waits for `future`, and fails naming `what` when it does not end within [`LIMIT`].
pub(crate) async fn within<F: IntoFuture>(what: &str, future: F) -> F::Output {
    match timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {LIMIT:?} for: {what}"),
    }
}

/// Polls once, as one does who goes on to something else. Its request is sent then, however many were before it in this turn.
pub(crate) async fn begun<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    match unconstrained(poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx)))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Waits until the node is at rest and returns its account, which balances.
pub(crate) async fn at_rest(bus: &Bus) -> Account {
    let limit = Instant::now() + LIMIT;
    loop {
        let account = bus.account();
        if account.queued == 0 && account.in_hand == 0 && account.is_balanced() {
            return account;
        }
        assert!(Instant::now() < limit, "waited {LIMIT:?} for the node to be at rest: {account:?}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Where workers wait for the test, and the test for them.
#[derive(Clone)]
pub(crate) struct Gate {
    permits: Arc<Semaphore>,
    arrived: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self { permits: Arc::new(Semaphore::new(0)), arrived: Arc::default() }
    }

    /// Waits until the test lets it through.
    pub(crate) async fn pass(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.expect("never closed").forget();
    }

    /// As [`Gate::pass`], holding the thread; gives up after [`LIMIT`] so that a failed test ends.
    pub(crate) fn pass_blocking(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let limit = Instant::now() + LIMIT;
        while Instant::now() < limit {
            if let Ok(permit) = self.permits.try_acquire() {
                permit.forget();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets so many through, now or later.
    pub(crate) fn let_through(&self, count: usize) {
        self.permits.add_permits(count);
    }

    /// Lets everybody through from now on.
    pub(crate) fn open(&self) {
        self.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Closes it, for those who come from now on.
    pub(crate) fn close(&self) {
        self.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// How many have come so far.
    pub(crate) fn arrivals(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }

    /// Waits until so many have come.
    pub(crate) async fn arrived(&self, count: usize) {
        until("workers to come to the gate", || self.arrivals() >= count).await;
    }
}

/// What workers have seen, in the order they saw it.
pub(crate) struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Seen<T> {
    pub(crate) fn add(&self, item: T) {
        self.0.lock().push(item);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(crate) fn list(&self) -> Vec<T> {
        self.0.lock().clone()
    }

    /// Waits until there are `count`, and returns them.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<T> {
        until("workers to see what they should", || self.len() >= count).await;
        self.list()
    }
}

// ---- events ------------------------------------------------------------------------------------------------------------

/// A notification with a key.
#[event(notification, name = "test.noted", key = key)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) key: String,
    pub(crate) number: u64,
}

/// Without a key that matters.
pub(crate) fn noted(number: u64) -> Noted {
    keyed("none", number)
}

pub(crate) fn keyed(key: &str, number: u64) -> Noted {
    Noted { key: key.to_owned(), number }
}

/// Another notification.
#[event(notification, name = "test.followed")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Followed {
    pub(crate) number: u64,
}

/// A request.
#[event(request, name = "test.asked", response = u64)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) number: u64,
}

pub(crate) fn asked(number: u64) -> Asked {
    Asked { number }
}

/// A request that may be tried again.
#[event(request, name = "test.asked_again", response = u64, idempotent)]
#[derive(Debug, Clone)]
pub(crate) struct AskedAgain {
    pub(crate) number: u64,
}

// ---- workers -----------------------------------------------------------------------------------------------------------

/// What a handler that is a function returns.
pub(crate) type Handling<'a, E> = BoxFuture<'a, Result<<E as Event>::Output, Failure>>;

/// A worker that is one function.
pub(crate) struct Does<E, F>(Arc<F>, PhantomData<fn(E)>);

/// Makes workers that handle `E` with this function.
pub(crate) fn does<E, F>(handle: F) -> impl Fn() -> Does<E, F> + Send + Sync + 'static
where
    E: Event,
    F: for<'a> Fn(&'a E, &'a mut Context) -> Handling<'a, E> + Send + Sync + 'static,
{
    let handle = Arc::new(handle);
    move || Does(Arc::clone(&handle), PhantomData)
}

impl<E: Event, F: Send + Sync + 'static> Worker for Does<E, F> {}

impl<E, F> Handle<E> for Does<E, F>
where
    E: Event,
    F: for<'a> Fn(&'a E, &'a mut Context) -> Handling<'a, E> + Send + Sync + 'static,
{
    async fn handle(&mut self, event: &E, cx: &mut Context) -> Result<E::Output, Failure> {
        (self.0)(event, cx).await
    }
}

impl<E, F> HandleConcurrent<E> for Does<E, F>
where
    E: Event,
    F: for<'a> Fn(&'a E, &'a mut Context) -> Handling<'a, E> + Send + Sync + 'static,
{
    async fn handle(&self, event: &E, cx: &mut Context) -> Result<E::Output, Failure> {
        (self.0)(event, cx).await
    }
}

/// Makes workers that write down the numbers they are given.
pub(crate) fn keeps(seen: &Seen<u64>) -> impl Fn() -> Keeps + Send + Sync + use<> {
    let keeps = Keeps { seen: seen.clone(), gate: None };
    move || keeps.clone()
}

/// Makes workers that stop at the gate with each event, and then write its number down.
pub(crate) fn keeps_behind(gate: &Gate, seen: &Seen<u64>) -> impl Fn() -> Keeps + Send + Sync + use<> {
    let keeps = Keeps { seen: seen.clone(), gate: Some(gate.clone()) };
    move || keeps.clone()
}

/// Writes down the numbers it is given, and answers with them.
#[derive(Clone)]
pub(crate) struct Keeps {
    seen: Seen<u64>,
    gate: Option<Gate>,
}

impl Keeps {
    async fn keep(&self, number: u64) -> Result<u64, Failure> {
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        self.seen.add(number);
        Ok(number)
    }
}

impl Worker for Keeps {}

impl Handle<Noted> for Keeps {
    async fn handle(&mut self, event: &Noted, _: &mut Context) -> Result<(), Failure> {
        self.keep(event.number).await.map(drop)
    }
}

impl Handle<Followed> for Keeps {
    async fn handle(&mut self, event: &Followed, _: &mut Context) -> Result<(), Failure> {
        self.keep(event.number).await.map(drop)
    }
}

impl Handle<Asked> for Keeps {
    async fn handle(&mut self, event: &Asked, _: &mut Context) -> Result<u64, Failure> {
        self.keep(event.number).await
    }
}

/// A worker that does nothing but hold something; to see whether it is still alive.
pub(crate) struct Holds<T>(pub(crate) T);

impl<T: Send + 'static> Worker for Holds<T> {}

impl<T: Send + 'static> Handle<Noted> for Holds<T> {
    async fn handle(&mut self, _: &Noted, _: &mut Context) -> Result<(), Failure> {
        Ok(())
    }
}

// ---- nodes -------------------------------------------------------------------------------------------------------------

/// Starts a node.
pub(crate) async fn started(app: App) -> Node {
    within("a node to start", app.start()).await.expect("the node starts")
}

/// Limits that end a publisher's wait after `wait`.
pub(crate) fn publishers_wait(wait: Duration) -> Limits {
    let mut limits = Limits::default();
    limits.publish_wait = wait;
    limits
}

/// Stops the node, which leaves nothing behind.
pub(crate) async fn ends_well(node: &Node) -> Arc<ShutdownReport> {
    let report = within("the node to stop", node.shutdown()).await;
    let account = report.account;
    assert!(account.is_balanced(), "{account:?}");
    assert_eq!((account.queued, account.in_hand), (0, 0), "{account:?}");
    assert_eq!(report.unfinished, []);
    report
}

/// What the node says of a manager.
pub(crate) fn view(node: &Node, manager: &str) -> GroupView {
    node.topology().manager(manager).unwrap_or_else(|| panic!("manager {manager} is on the node")).clone()
}

/// The dead letters of a node: why, for whom, after how many tries.
pub(crate) fn letters(bus: &Bus) -> Vec<(Reason, String, u32)> {
    bus.dead_letters().iter().map(|letter| (letter.reason, letter.group.to_string(), letter.attempts)).collect()
}

/// The numbers of the [`Noted`] among the dead letters.
pub(crate) fn dead_numbers(bus: &Bus) -> Vec<u64> {
    let letters = bus.dead_letters();
    letters.iter().filter_map(|letter| letter.envelope.payload::<Noted>().ok()).map(|noted| noted.number).collect()
}
