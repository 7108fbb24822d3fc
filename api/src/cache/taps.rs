//! Listening for what makes answers stale.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use edri_events::{Envelope, Event, EventName};
use edri_router::system::NodeChanged;
use edri_router::{DeclareError, Router, Selection, Tap, Tapped};
use parking_lot::Mutex as ShortMutex;
use tokio::sync::Mutex;

use super::Cache;

/// The most names of notifications that are listened for. What others end is not kept.
const NAMES_MAX: usize = 1_024;
/// How old what the node shows of others may be at most; less than the time in which they learn what is wanted.
const SHOWN_AFTER: Duration = Duration::from_millis(1_200);
const _: () = assert!(SHOWN_AFTER.as_millis() < super::staleness::SETTLE.as_millis());

/// What is listened for.
#[derive(Debug, Default)]
pub(super) struct Taps {
    // Held to begin to listen for something.
    all: Mutex<Vec<Tapped>>,
    /// Whether it was said that something cannot be listened for.
    warned: AtomicBool,
}

impl Taps {
    /// Says once that some answers are not kept: it is found again with each request.
    fn cannot(&self, why: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(why, "some answers that notifications end are not kept, since these are not heard");
        }
    }
}

impl Cache {
    /// Listens for notifications of these names, if nobody does. What cannot be listened for ends nothing, and is not kept either.
    pub(super) async fn listen(self: &Arc<Self>, router: &Router, names: &[EventName]) {
        let listens = |name: &EventName| self.core.staleness().read().listens(name);
        if names.iter().all(listens) {
            return;
        }
        let mut taps = self.taps.all.lock().await;
        if taps.is_empty()
            && let Err(error) = self.follow_nodes(router, &mut taps).await
        {
            return self.taps.cannot(&error.to_string());
        }
        for name in names {
            if listens(name) {
                continue;
            }
            if taps.len() > NAMES_MAX {
                return self.taps.cannot(&format!("{NAMES_MAX} notifications are listened for"));
            }
            let tap = Arc::new(Ends { cache: Arc::downgrade(self), name: name.clone() });
            match router.bus().tap(Selection::new(name.clone().into()), tap).await {
                Ok(tapped) => taps.push(tapped),
                Err(error) => return self.taps.cannot(&error.to_string()),
            }
            self.core.staleness().write().listen(name.clone(), Instant::now());
        }
    }

    /// Hears which nodes can be reached, from now on.
    async fn follow_nodes(self: &Arc<Self>, router: &Router, taps: &mut Vec<Tapped>) -> Result<(), DeclareError> {
        let nodes = Arc::new(Nodes {
            cache: Arc::downgrade(self),
            here: router.incarnation().to_string(),
            told: ShortMutex::new(Some(BTreeSet::new())),
        });
        let selection = Selection::new(NodeChanged::descriptor().name().clone().into());
        taps.push(router.bus().tap(selection, Arc::clone(&nodes) as Arc<dyn Tap>).await?);
        if router.has_beyond() {
            // Of those that are there already nothing is told: they are shown, a moment late. Nothing is kept before.
            self.core.staleness().write().begin(Instant::now());
            let (nodes, router) = (Arc::downgrade(&nodes), router.clone());
            router.runtime().clone().spawn(async move {
                tokio::time::sleep(SHOWN_AFTER).await;
                if let Some(nodes) = nodes.upgrade() {
                    nodes.show(&router);
                }
            });
        }
        Ok(())
    }
}

/// Notes the notifications of one name.
#[derive(Debug)]
struct Ends {
    cache: Weak<Cache>,
    name: EventName,
}

impl Tap for Ends {
    fn take(&self, envelope: &Envelope) {
        let Some(cache) = self.cache.upgrade() else { return };
        envelope.with_key(|key| cache.core.staleness().write().came(&self.name, key));
        cache.figures.notified();
    }
}

/// Notes which lives of other nodes can be reached.
#[derive(Debug)]
struct Nodes {
    cache: Weak<Cache>,
    /// This node's life.
    here: String,
    /// Those that something was told of before what is shown was looked at: it may be older. `None` afterwards.
    // Held to note one.
    told: ShortMutex<Option<BTreeSet<String>>>,
}

impl Tap for Nodes {
    fn take(&self, envelope: &Envelope) {
        let (Some(cache), Ok(changed)) = (self.cache.upgrade(), envelope.payload::<NodeChanged>()) else { return };
        // Other nodes tell what they see, which is not what this one does.
        let origin = &envelope.head().origin;
        if origin.incarnation.to_string() != self.here || changed.incarnation == self.here {
            return;
        }
        let mut told = self.told.lock();
        if let Some(told) = &mut *told {
            told.insert(changed.incarnation.clone());
        }
        let life = changed.incarnation.clone();
        let mut staleness = cache.core.staleness().write();
        match &*changed.state {
            "reachable" => staleness.reachable(life, Instant::now()),
            "unreachable" => staleness.unreachable(life),
            _ => staleness.gone(&life),
        }
    }
}

impl Nodes {
    /// Notes the nodes that are there, but those that something newer was told of.
    fn show(&self, router: &Router) {
        let Some(cache) = self.cache.upgrade() else { return };
        let nodes = router.bus().topology().nodes;
        let mut told = self.told.lock();
        let newer = told.take().unwrap_or_default();
        let mut staleness = cache.core.staleness().write();
        for node in nodes {
            let life = node.incarnation.to_string();
            match (newer.contains(&life), node.reachable) {
                (true, _) => {}
                (false, true) => staleness.met(life),
                (false, false) => staleness.unreachable(life),
            }
        }
    }
}
