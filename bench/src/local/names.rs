//! Many names: what a look-up and a subscription cost when there are 100,000.

use std::time::{Duration, Instant};

use edri::{Bus, Descriptor, DescriptorRef, Kind, Node, UntypedSubscription};
use futures_util::stream::{StreamExt, TryStreamExt, iter};

use super::notify::sink;
use crate::Result;
use crate::case::Figures;
use crate::event::{Done, Tick, node, publish, stop};
use crate::harness::{Plan, Side, compare};

const FEW: usize = 10;
const MANY: usize = 100_000;

/// Publishing an event when the node knows [`MANY`] names, next to when it knows [`FEW`].
pub(crate) async fn routes(plan: Plan) -> Result<Figures> {
    let (done_few, done_many) = (Done::new(), Done::new());
    let few = node([sink("sink", 1, false, &done_few)]).await?;
    let many = node([sink("sink", 1, false, &done_many)]).await?;
    // The event itself has a name too.
    let _few_subscriptions = crowd(few.bus(), FEW - 1, true).await?;
    let _many_subscriptions = crowd(many.bus(), MANY - 1, true).await?;
    let side = |name, node: &Node, done: Done| {
        let bus = node.bus().clone();
        Side::new(name, move |rounds| publish(bus.clone(), rounds, vec![0], 1, done.clone()))
    };
    let ours = side("edri among 100,000", &many, done_many);
    let reference = side("edri among 10 names", &few, done_few);
    let figures = compare(&plan, ours, vec![reference]).await;
    stop(few).await?;
    stop(many).await?;
    Ok(figures)
}

/// Subscribing to a name when the node has [`MANY`] subscriptions, next to when it has [`FEW`].
pub(crate) async fn subscribe(plan: Plan) -> Result<Figures> {
    let few = node([]).await?;
    let many = node([]).await?;
    let _few_subscriptions = crowd(few.bus(), FEW - 1, false).await?;
    let _many_subscriptions = crowd(many.bus(), MANY - 1, false).await?;
    let side = |name, node: &Node| {
        let bus = node.bus().clone();
        Side::new(name, move |rounds| subscribe_more(bus.clone(), rounds))
    };
    let ours = side("edri after 100,000", &many);
    let reference = side("edri after 10", &few);
    let figures = compare(&plan, ours, vec![reference]).await;
    Ok(figures)
}

/// How long so many further subscriptions take, each ended again so that their number stays. Only their beginning is
/// timed: the end is a message to the router, and the declaration of an event it knows comes back once that is done.
async fn subscribe_more(bus: Bus, rounds: u64) -> Duration {
    bus.declare(DescriptorRef::of::<Tick>()).await.expect("the node runs");
    let mut took = Duration::ZERO;
    for number in 0..rounds {
        let name = format!("bench.more.n{number}");
        let began = Instant::now();
        let subscription = bus.untyped().subscribe(&name).capacity(1).await.expect("the node runs");
        took += began.elapsed();
        drop(subscription);
        bus.declare(DescriptorRef::of::<Tick>()).await.expect("the node runs");
    }
    took
}

/// Subscribes to so many names, each in a group of its own; declares them first if asked to.
async fn crowd(bus: &Bus, names: usize, declare: bool) -> Result<Vec<UntypedSubscription>> {
    let subscribing = (0..names).map(|number| async move {
        let name = format!("bench.name.n{number}");
        if declare {
            bus.declare(Descriptor::declare(&name, Kind::Notification)?.build()).await?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(bus.untyped().subscribe(&name).capacity(1).await?)
    });
    iter(subscribing).buffer_unordered(64).try_collect().await
}
