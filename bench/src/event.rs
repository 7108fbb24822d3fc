//! The events that both sides carry, and the handlers that both sides call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edri::{Address, App, Bus, Context, Definition, Envelope, Failure, Handle, Incarnation, Node, Worker, event};
use edri_events::{DescriptorRef, Event, Head, Origin};
use tokio::sync::Semaphore;

/// The number of the last event for somebody.
const LAST: u64 = u64::MAX;

/// 64 bytes of notification.
#[event(notification, name = "bench.tick", key = key)]
pub(crate) struct Tick {
    pub(crate) key: u64,
    pub(crate) number: u64,
    filler: [u64; 6],
}

const _: () = assert!(size_of::<Tick>() == 64);

impl Tick {
    pub(crate) fn new(number: u64) -> Self {
        Self { key: number, number, filler: [number; 6] }
    }

    /// The last one: who handles it is done.
    pub(crate) fn last(key: u64) -> Self {
        Self { key, number: LAST, filler: [LAST; 6] }
    }
}

/// Handles ticks. The same code on both sides.
pub(crate) struct Sink {
    sum: u64,
    done: Done,
}

impl Sink {
    pub(crate) fn new(done: &Done) -> Self {
        Self { sum: 0, done: done.clone() }
    }

    pub(crate) async fn take(&mut self, tick: &Tick) -> Result<(), Failure> {
        self.sum = self.sum.wrapping_add(tick.filler[5]);
        if tick.number == LAST {
            std::hint::black_box(self.sum);
            self.done.tell();
        }
        Ok(())
    }
}

impl Worker for Sink {}

impl Handle<Tick> for Sink {
    async fn handle(&mut self, tick: &Tick, _: &mut Context) -> Result<(), Failure> {
        self.take(tick).await
    }
}

/// Says when handlers have had their last event.
#[derive(Debug, Clone)]
pub(crate) struct Done(Arc<Semaphore>);

impl Done {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    fn tell(&self) {
        self.0.add_permits(1);
    }

    /// Waits until so many handlers have had it.
    pub(crate) async fn all(&self, handlers: usize) {
        let permits = u32::try_from(handlers).expect("a few handlers");
        self.0.acquire_many(permits).await.expect("never closed").forget();
    }
}

/// A 64-byte question, answered with a number.
#[event(request, name = "bench.ask", response = u64)]
pub(crate) struct Ask {
    pub(crate) number: u64,
    filler: [u64; 7],
}

const _: () = assert!(size_of::<Ask>() == 64);

impl Ask {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, filler: [number; 7] }
    }
}

/// Answers questions. The same code on both sides.
#[derive(Debug, Default)]
pub(crate) struct Oracle;

impl Oracle {
    pub(crate) async fn answer(&mut self, ask: &Ask) -> Result<u64, Failure> {
        Ok(ask.number.wrapping_add(ask.filler[6]))
    }
}

impl Worker for Oracle {}

impl Handle<Ask> for Oracle {
    async fn handle(&mut self, ask: &Ask, _: &mut Context) -> Result<u64, Failure> {
        self.answer(ask).await
    }
}

/// A question of any size, answered with a number.
#[event(request, name = "bench.blob.ask", response = u64)]
pub(crate) struct BlobAsk {
    pub(crate) number: u64,
    pub(crate) data: Bytes,
}

/// A notification of any size.
#[event(notification, name = "bench.blob")]
pub(crate) struct Blob {
    pub(crate) number: u64,
    pub(crate) data: Bytes,
}

/// The same with its number as its key.
#[event(notification, name = "bench.blob.keyed", key = number)]
pub(crate) struct KeyedBlob {
    pub(crate) number: u64,
    pub(crate) data: Bytes,
}

/// Makes the same envelopes as a bus does, for a reference to carry.
#[derive(Debug, Clone)]
pub(crate) struct Sealer {
    origin: Origin,
}

impl Sealer {
    pub(crate) fn new() -> Self {
        let node = "bench".parse().expect("a name");
        Self { origin: Origin::here(Address { node, incarnation: Incarnation::random(), manager: None }) }
    }

    pub(crate) fn seal<E: Event>(&self, event: E) -> Envelope {
        Envelope::typed(Head::new(DescriptorRef::of::<E>(), self.origin.clone()), event).into()
    }
}

/// A node with these managers.
pub(crate) async fn node(managers: impl IntoIterator<Item = Definition>) -> crate::Result<Node> {
    let app = managers.into_iter().fold(App::new("bench"), App::manager);
    Ok(app.start().await?)
}

/// Stops a node and makes sure that its managers handled all they were given: a fast router that drops events is no router.
///
/// What is left unread by a subscription is no loss and not looked at: a part of the node that hears of managers and nodes ends
/// before it has read that the node stops.
pub(crate) async fn stop(node: Node) -> crate::Result<()> {
    let report = node.shutdown().await;
    for (manager, account) in &report.managers {
        // What its own requester has given up is not lost: `wrk` closes its connections in the middle of its last requests.
        if !account.is_balanced() || account.handled + account.cancelled != account.deliveries {
            return Err(format!("manager `{manager}` lost events: {account:?}").into());
        }
    }
    if !report.account.is_balanced() {
        return Err(format!("events are unaccounted for: {:?}", report.account).into());
    }
    Ok(())
}

/// Publishes so many ticks one by one, and then the last ones, of these keys; waits until `handlers` have had theirs.
pub(crate) async fn publish(bus: Bus, rounds: u64, last_keys: Vec<u64>, handlers: usize, done: Done) -> Duration {
    let began = Instant::now();
    for number in 0..rounds {
        bus.publish(Tick::new(number)).await.expect("the node runs");
    }
    for key in last_keys {
        bus.publish(Tick::last(key)).await.expect("the node runs");
    }
    done.all(handlers).await;
    began.elapsed()
}
