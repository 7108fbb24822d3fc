//! A namespace has one owner. Within a process stores see each other's claims; across nodes they ask each other, before
//! they begin and while they run.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edri_events::{Address, Body, Encoding, Failure, Incarnation};
use edri_router::{Bus, NodeView};
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::event::{Claim, Verb};
use crate::namespace::Namespace;

/// How long a store that starts waits for others to say whether they have a namespace.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// How often a running store asks.
const EVERY: Duration = Duration::from_secs(5);
/// How soon it asks after another node came into reach: what that one answers comes a little after it.
const SOON: Duration = Duration::from_millis(300);
/// How long a running store waits for answers.
const COMPARE_LIMIT: Duration = Duration::from_secs(4);

/// By node (its life) and namespace: the manager that has it.
type Holders = BTreeMap<(Incarnation, Box<str>), Box<str>>;

// Held to look and to add or take out.
static HELD: Mutex<Holders> = Mutex::new(BTreeMap::new());

/// What a store has claimed on its node; given up when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    node: Incarnation,
    namespaces: Vec<Box<str>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = HELD.lock();
        for namespace in self.namespaces.drain(..) {
            held.remove(&(self.node, namespace));
        }
    }
}

fn taken(namespace: &str, by: &str) -> Failure {
    Failure::new(
        "namespace_taken",
        format!(
            "namespace `{namespace}` belongs to {by}: a namespace has one owner, so take it out of one of the two stores, \
             or give it another name"
        ),
    )
}

/// Claims namespaces on a node, all or none.
pub(crate) fn hold<'a>(own: &Address, namespaces: impl Iterator<Item = &'a str>) -> Result<Held, Failure> {
    let manager = own.manager.as_ref().map_or("store", |manager| manager.as_str());
    let mut mine = Held { node: own.incarnation, namespaces: Vec::new() };
    for namespace in namespaces {
        let mut held = HELD.lock();
        let other = held.insert((own.incarnation, namespace.into()), manager.into());
        if let Some(other) = other {
            let failure = taken(namespace, &format!("manager `{other}` of this node"));
            held.insert((own.incarnation, namespace.into()), other);
            drop(held);
            return Err(failure);
        }
        mine.namespaces.push(namespace.into());
    }
    Ok(mine)
}

/// What a store answers that is asked whether it has a namespace.
pub(crate) fn answer(namespace: &Namespace, own: &Address) -> Result<Body, Failure> {
    Ok(Body::encode(Encoding::MessagePack, &claim_of(namespace, own))?)
}

fn claim_of(namespace: &Namespace, own: &Address) -> Claim {
    Claim {
        node: own.node.to_string(),
        manager: own.manager.as_ref().map(ToString::to_string).unwrap_or_default(),
        since_ms: namespace.since.load(Ordering::Relaxed),
        given_up: namespace.given_up.get().is_some(),
    }
}

/// Asks whether others have one of the namespaces, before this store has any.
///
/// # Errors
///
/// Who has one.
pub(crate) async fn ask_before(bus: &Bus, namespaces: &[Arc<Namespace>]) -> Result<(), Failure> {
    let limit = tokio::time::Instant::now() + ASK_LIMIT;
    // Who is not known by then, or does not answer in time, is compared with later.
    let _ = tokio::time::timeout_at(limit, bus.settled()).await;
    for namespace in namespaces {
        let mut others = pin!(others(bus, namespace));
        if let Ok(Some(other)) = tokio::time::timeout_at(limit, others.next()).await {
            return Err(taken(&namespace.name, &format!("manager `{}` of node `{}`", other.manager, other.node)));
        }
    }
    Ok(())
}

/// What stores of other nodes claim the namespace, as they answer. Those of this node know of each other.
fn others(bus: &Bus, namespace: &Namespace) -> impl Stream<Item = Claim> {
    let event = Verb::Claim.event(&namespace.name);
    let nodes = bus.topology().nodes.into_iter().filter(|node| node.reachable && !node.switch);
    let ask = |node: NodeView| {
        let (bus, event) = (bus.clone(), event.clone());
        async move {
            let ask = Body::encode(Encoding::MessagePack, &()).ok()?;
            // A node without such a store has nobody who answers.
            let answer = bus.untyped().request_at(node.name.as_str(), &event, ask).await.ok()?;
            answer.decode().ok().filter(|claim: &Claim| !claim.given_up)
        }
    };
    nodes.map(ask).collect::<FuturesUnordered<_>>().filter_map(std::future::ready)
}

/// Compares with all others who have one of the namespaces, now and then and soon after `met` says that a node came into reach.
/// Does not end.
pub(crate) async fn compare_always(bus: Bus, namespaces: Vec<Arc<Namespace>>, met: Arc<Notify>) {
    let mut pause = SOON;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {
                let owned = namespaces.iter().filter(|namespace| namespace.check_owned().is_ok());
                join_all(owned.map(|namespace| compare(&bus, namespace))).await;
                pause = EVERY;
            }
            () = met.notified() => pause = SOON,
        }
    }
}

/// Compares with all others who have a namespace: the later gives it up. Both decide by the same, which is when each began by its
/// own clock, then the names of node and manager.
async fn compare(bus: &Bus, namespace: &Namespace) {
    // Who does not answer now is asked again soon.
    let _ = tokio::time::timeout(COMPARE_LIMIT, compare_one(bus, namespace)).await;
}

async fn compare_one(bus: &Bus, namespace: &Namespace) {
    let own = claim_of(namespace, bus.address());
    let mut others = pin!(others(bus, namespace));
    while let Some(other) = others.next().await {
        if rank(&own) < rank(&other) {
            tracing::error!(
                namespace = %namespace.name, node = other.node, manager = other.manager,
                "another store has claimed this namespace later: it gives it up, its items stay where they are"
            );
            continue;
        }
        let by = format!("manager `{}` of node `{}`, which claimed it earlier", other.manager, other.node);
        let failure = taken(&namespace.name, &by);
        tracing::error!(
            namespace = %namespace.name, node = other.node, manager = other.manager,
            "another store has claimed this namespace earlier: this one stops answering, its items stay where they are"
        );
        // Only this sets it, and it is given up once.
        let _ = namespace.given_up.set(failure.clone());
        namespace.end_watches(&failure);
        return;
    }
}

fn rank(claim: &Claim) -> (u64, &str, &str) {
    (claim.since_ms, &claim.node, &claim.manager)
}
