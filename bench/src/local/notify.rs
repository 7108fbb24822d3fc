//! Notifications: to one group, to a hundred, to partitions, in batches.

use std::time::Instant;

use edri::{Definition, Manager, key_hash};

use super::reference::{self, Put, Spread};
use crate::Result;
use crate::case::Figures;
use crate::event::{Done, Sink, Tick, node, publish, stop};
use crate::harness::{Plan, Side, compare};

/// Events of a batch.
const BATCH: usize = 64;

/// One publisher, one group with one worker.
pub(crate) async fn notify(plan: Plan) -> Result<Figures> {
    fan_out(plan, 1).await
}

/// One publisher, a hundred groups with one worker each.
pub(crate) async fn fanout100(plan: Plan) -> Result<Figures> {
    fan_out(plan, 100).await
}

async fn fan_out(plan: Plan, groups: usize) -> Result<Figures> {
    let done = Done::new();
    let managers = (0..groups).map(|group| sink(&format!("sink-{group}"), 1, false, &done));
    let node = node(managers).await?;
    let bus = node.bus().clone();
    let ours = Side::new("edri", move |rounds| publish(bus.clone(), rounds, vec![0], groups, done.clone()));
    let figures = compare(&plan, ours, reference::channels(groups, Spread::All, &[0])).await;
    stop(node).await?;
    Ok(figures)
}

/// One publisher, one group with four partitions and as many workers.
pub(crate) async fn keyed4(plan: Plan) -> Result<Figures> {
    const PARTITIONS: usize = 4;
    let done = Done::new();
    let node = node([sink("sink", PARTITIONS, true, &done)]).await?;
    let bus = node.bus().clone();
    let last_keys = keys_of_each(PARTITIONS);
    let references = reference::channels(PARTITIONS, Spread::ByKey, &last_keys);
    let ours =
        Side::new("edri", move |rounds| publish(bus.clone(), rounds, last_keys.clone(), PARTITIONS, done.clone()));
    let figures = compare(&plan, ours, references).await;
    stop(node).await?;
    Ok(figures)
}

/// One publisher with [`BATCH`] events at a time, one group with one worker.
pub(crate) async fn batch(plan: Plan) -> Result<Figures> {
    let done = Done::new();
    let node = node([sink("sink", 1, false, &done)]).await?;
    let bus = node.bus().clone();
    let ours = Side::new("edri", move |rounds| {
        let (bus, done) = (bus.clone(), done.clone());
        async move {
            let began = Instant::now();
            let mut sent = 0;
            while sent < rounds {
                let count = (rounds - sent).min(BATCH as u64);
                bus.publish_batch((sent..sent + count).map(Tick::new)).await.expect("the node runs");
                sent += count;
            }
            bus.publish(Tick::last(0)).await.expect("the node runs");
            done.all(1).await;
            began.elapsed()
        }
    });
    let references = vec![
        reference::batches("mpsc send, recv_many", BATCH, Put::OneByOne),
        reference::batches("mpsc reserve_many, recv_many", BATCH, Put::Many(BATCH)),
    ];
    let figures = compare(&plan, ours, references).await;
    stop(node).await?;
    Ok(figures)
}

/// A manager of sinks.
pub(crate) fn sink(name: &str, workers: usize, keyed: bool, done: &Done) -> Definition {
    let done = done.clone();
    let manager = Manager::new(name).workers(workers, move || Sink::new(&done)).handles::<Tick>();
    if keyed { manager.keyed().into() } else { manager.into() }
}

/// A key for each partition.
fn keys_of_each(partitions: usize) -> Vec<u64> {
    let of = |key: u64| (key_hash(&key.to_string()) % partitions as u64) as usize;
    let first = |partition| (0..).find(|&key| of(key) == partition).expect("hashes spread");
    (0..partitions).map(first).collect()
}
