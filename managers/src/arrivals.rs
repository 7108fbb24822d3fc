//! Where workers that come over a network find their manager.
//!
//! ```text
//!   gateway ─ arrive ─▶ Line of the manager (bounded) ─▶ its actor, when it has an empty chair
//!                  └──▶ no such manager: a Newcomer, whom the node makes one for, where that is allowed
//! ```

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use edri_events::{ManagerName, Pattern};
use edri_router::Selection;
use edri_workers::Introduced;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use crate::Definition;

/// The most workers that wait for an empty chair of one manager.
pub const WAITING_MAX: usize = 64;
/// The most newcomers that wait for their manager to be made.
const NEWCOMERS_MAX: usize = 64;

/// The workers that arrive at a node from outside. Every clone is the same.
#[derive(Clone)]
pub struct Arrivals {
    inner: Arc<Inner>,
}

struct Inner {
    // Held to find a line, or to add one.
    lines: Mutex<HashMap<ManagerName, Arc<Line>>>,
    newcomers: mpsc::Sender<Newcomer>,
    closed: AtomicBool,
}

/// A worker whose manager nobody has declared.
#[derive(Debug)]
pub struct Newcomer {
    /// The manager that is to be made for it.
    pub definition: Definition,
    /// How long that manager stays when all its workers have gone.
    pub grace: Duration,
    pub(crate) line: OwnLine,
}

/// Which managers are made for workers that nobody has declared.
#[derive(Debug)]
pub struct Undeclared {
    /// The manager.
    pub definition: Definition,
    /// How long it stays when all its workers have gone.
    pub grace: Duration,
    /// How many such managers there may be.
    pub most: usize,
}

/// The workers that wait for a chair of one manager.
pub(crate) struct Line {
    name: ManagerName,
    declared: bool,
    /// What its workers may handle; anything when it is empty.
    serves: Vec<Pattern>,
    // Held to look at who waits, to add one or to take one.
    waiting: Mutex<VecDeque<Introduced>>,
    bell: Notify,
    /// What the first of them handles, which the others have to handle too.
    selects: OnceLock<Vec<String>>,
    closed: AtomicBool,
    /// How many sit.
    pub(crate) seated: watch::Sender<usize>,
}

/// A line, of whoever takes workers from it: without him it is closed.
#[derive(Debug)]
pub(crate) struct OwnLine(Arc<Line>);

impl Deref for OwnLine {
    type Target = Arc<Line>;

    fn deref(&self) -> &Arc<Line> {
        &self.0
    }
}

impl Drop for OwnLine {
    fn drop(&mut self) {
        self.close("stopping", "its manager is not here any more");
    }
}

impl Arrivals {
    /// Nobody is expected yet. What comes back gives the workers that no manager is there for.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Newcomer>) {
        let (newcomers, come) = mpsc::channel(NEWCOMERS_MAX);
        let inner = Inner { lines: Mutex::default(), newcomers, closed: AtomicBool::new(false) };
        (Self { inner: Arc::new(inner) }, come)
    }

    /// A worker has come that works for this manager: it waits for a chair, or is sent away and told why. `undeclared` says what is
    /// done where no such manager is expected: without it that is refused.
    pub fn arrive(&self, name: &ManagerName, worker: Introduced, undeclared: Option<Undeclared>) {
        let mut lines = self.inner.lines.lock();
        lines.retain(|_, line| !line.is_closed());
        if self.inner.closed.load(Ordering::Acquire) {
            return worker.refuse("stopping", "the node stops");
        }
        if let Some(line) = lines.get(name) {
            return line.put(worker);
        }
        let Some(Undeclared { definition, grace, most }) = undeclared else {
            let message =
                format!("no manager `{name}` expects workers here: declare it with `Manager::remote(\"{name}\")`");
            return worker.refuse("unknown_manager", &message);
        };
        if lines.values().filter(|line| !line.declared).count() >= most {
            return worker.refuse("overloaded", &format!("{most} managers that nobody has declared are here already"));
        }
        let Ok(place) = self.inner.newcomers.try_reserve() else {
            return worker.refuse("overloaded", "too many come at once: try again");
        };
        let line = Arc::new(Line::new(name.clone(), false, Vec::new()));
        line.put(worker);
        lines.insert(name.clone(), Arc::clone(&line));
        place.send(Newcomer { definition, grace, line: OwnLine(line) });
    }

    /// Lets workers wait for a manager that is going to be there; `None` when they do already.
    pub(crate) fn expect(&self, name: &ManagerName, serves: &[Pattern]) -> Option<OwnLine> {
        let mut lines = self.inner.lines.lock();
        lines.retain(|_, line| !line.is_closed());
        if lines.contains_key(name) || self.inner.closed.load(Ordering::Acquire) {
            return None;
        }
        let line = Arc::new(Line::new(name.clone(), true, serves.to_vec()));
        lines.insert(name.clone(), Arc::clone(&line));
        Some(OwnLine(line))
    }

    /// Nobody comes any more: the node stops. Managers without workers give up what waits for one.
    pub fn close(&self) {
        let mut lines = self.inner.lines.lock();
        self.inner.closed.store(true, Ordering::Release);
        for (_, line) in lines.drain() {
            line.close("stopping", "the node stops");
        }
    }
}

impl Newcomer {
    /// The manager's name.
    #[must_use]
    pub fn name(&self) -> &ManagerName {
        &self.line.name
    }

    /// Waits until none of the manager's workers has been there for the time of grace, or the manager is gone. Cancel safe.
    pub fn forsaken(&self) -> impl Future<Output = ()> + Send + 'static {
        let (mut seated, grace) = (self.line.seated.subscribe(), self.grace);
        async move {
            loop {
                if seated.wait_for(|seated| *seated == 0).await.is_err() {
                    return;
                }
                match tokio::time::timeout(grace, seated.wait_for(|seated| *seated > 0)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => return,
                }
            }
        }
    }
}

impl Line {
    fn new(name: ManagerName, declared: bool, serves: Vec<Pattern>) -> Self {
        Self {
            name,
            declared,
            serves,
            waiting: Mutex::default(),
            bell: Notify::new(),
            selects: OnceLock::new(),
            closed: AtomicBool::new(false),
            seated: watch::Sender::new(0),
        }
    }

    fn put(&self, worker: Introduced) {
        let mut waiting = self.waiting.lock();
        waiting.retain_mut(|waits| !waits.is_gone());
        if self.is_closed() {
            return worker.refuse("stopping", "its manager has just ended: come again");
        }
        let Some(worker) = self.fitting(worker) else { return };
        if waiting.len() >= WAITING_MAX {
            return worker
                .refuse("overloaded", &format!("{WAITING_MAX} workers of this manager wait for a place already"));
        }
        waiting.push_back(worker);
        self.bell.notify_one();
    }

    /// The worker, if it handles what the others handle.
    fn fitting(&self, worker: Introduced) -> Option<Introduced> {
        let beyond = |wants: &Selection| !self.serves.iter().any(|pattern| pattern.covers(&wants.pattern));
        if let Some(beyond) = worker.selections().iter().find(|wants| !self.serves.is_empty() && beyond(wants)) {
            let serves: Vec<_> = self.serves.iter().map(Pattern::as_str).collect();
            let message =
                format!("it handles `{}`, but workers of `{}` handle only {serves:?}", beyond.pattern, self.name);
            worker.refuse("wrong_handlers", &message);
            return None;
        }
        let Some(selects) = self.selects.get() else { return Some(worker) };
        let theirs = worker.selects();
        if theirs == *selects {
            return Some(worker);
        }
        let message =
            format!("it handles {theirs:?}, but workers of `{}` handle {selects:?}, in this order", self.name);
        worker.refuse("wrong_handlers", &message);
        None
    }

    /// The next worker; `None` once nobody comes any more. What the first one handles is what the others have to. Cancel safe.
    pub(crate) async fn next(&self) -> Option<Introduced> {
        loop {
            while !self.is_closed() {
                let Some(mut worker) = self.waiting.lock().pop_front() else { break };
                if worker.is_gone() {
                    continue;
                }
                if let Some(worker) = self.fitting(worker) {
                    self.selects.get_or_init(|| worker.selects());
                    return Some(worker);
                }
            }
            if self.is_closed() {
                return None;
            }
            self.bell.notified().await;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Sends away who waits, and everybody who comes.
    pub(crate) fn close(&self, code: &str, message: &str) {
        let mut waiting = self.waiting.lock();
        self.closed.store(true, Ordering::Release);
        for worker in waiting.drain(..) {
            worker.refuse(code, message);
        }
        self.bell.notify_one();
    }
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("manager", &self.name).finish_non_exhaustive()
    }
}
