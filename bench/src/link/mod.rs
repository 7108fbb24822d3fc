//! Cases between two processes on loopback: a node that sends and a node that receives, joined by a link.
//!
//! The reference is the transport alone: the same work written for `quinn` by hand, with the same options and the same
//! cipher, between the same two processes. With the feature `peers`, zenoh and NATS are references too. See
//! `docs/BENCHMARKS.md`.

#[cfg(feature = "peers")]
mod nats;
mod nodes;
pub(crate) mod other;
mod ours;
mod raw;
#[cfg(feature = "peers")]
mod tally;
#[cfg(feature = "peers")]
mod zenoh;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};

#[cfg(feature = "peers")]
use self::nats::Sending as Nats;
use self::other::Other;
use self::raw::Sending as Raw;
#[cfg(feature = "peers")]
use self::zenoh::Sending as Zenoh;
use crate::Result;
use crate::case::{Case, Figures};
use crate::harness::{Plan, Side, compare};

/// In the order they are run. The budgets are those of the project's plan.
pub(crate) const CASES: &[Case] = &[
    Case::new("link.notify64", "events/s", 0.25, |plan| Box::pin(compared::<Raw>(plan, Work::Notify64))),
    Case::new("link.notify1k", "events/s", 0.8, |plan| Box::pin(compared::<Raw>(plan, Work::Notify1k))),
    Case::new("link.tunnel", "items/s", 0.8, |plan| Box::pin(compared::<Raw>(plan, Work::Tunnel))),
    Case::new("link.request64", "requests/s", 1.3, |plan| Box::pin(compared::<Raw>(plan, Work::Ask64))),
    Case::new("link.request1", "requests/s", 0.6, |plan| Box::pin(compared::<Raw>(plan, Work::Ask1))).one_in_flight(),
    Case::informing("link.keyed64", "events/s", |plan| Box::pin(compared::<Raw>(plan, Work::Keyed64))),
    Case::informing("link.star64", "packets/s", |plan| Box::pin(nodes::star(plan))),
    Case::informing("link.mesh64", "packets/s", |plan| Box::pin(nodes::mesh(plan))),
];

/// The same work beside others who do it over the same security.
#[cfg(feature = "peers")]
pub(crate) const PEERS: &[Case] = &[
    Case::new("link.zenoh.notify64", "events/s", 1.0, |plan| Box::pin(compared::<Zenoh>(plan, Work::Notify64))),
    Case::new("link.zenoh.notify1k", "events/s", 1.0, |plan| Box::pin(compared::<Zenoh>(plan, Work::Notify1k))),
    Case::new("link.zenoh.tunnel", "items/s", 1.0, |plan| Box::pin(compared::<Zenoh>(plan, Work::Tunnel))),
    Case::new("link.zenoh.request64", "requests/s", 1.0, |plan| Box::pin(compared::<Zenoh>(plan, Work::Ask64))),
    Case::new("link.zenoh.request1", "requests/s", 1.0, |plan| Box::pin(compared::<Zenoh>(plan, Work::Ask1)))
        .one_in_flight(),
    Case::new("link.nats.notify64", "events/s", 1.0, |plan| Box::pin(compared::<Nats>(plan, Work::Notify64)))
        .needs(nats::missing),
    Case::new("link.nats.notify1k", "events/s", 1.0, |plan| Box::pin(compared::<Nats>(plan, Work::Notify1k)))
        .needs(nats::missing),
    Case::new("link.nats.tunnel", "items/s", 1.0, |plan| Box::pin(compared::<Nats>(plan, Work::Tunnel)))
        .needs(nats::missing),
    Case::new("link.nats.request64", "requests/s", 1.0, |plan| Box::pin(compared::<Nats>(plan, Work::Ask64)))
        .needs(nats::missing),
    Case::new("link.nats.request1", "requests/s", 1.0, |plan| Box::pin(compared::<Nats>(plan, Work::Ask1)))
        .one_in_flight()
        .needs(nats::missing),
];
#[cfg(not(feature = "peers"))]
pub(crate) const PEERS: &[Case] = &[];

/// Does what has to be done in a process before anything else.
pub(crate) fn prepare() -> Result<()> {
    #[cfg(feature = "peers")]
    zenoh::prepare()?;
    Ok(())
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Notifications with payloads of 64 bytes, one after the other, until all are handled.
    Notify64,
    /// The same with payloads of 1 KiB.
    Notify1k,
    /// As `notify64`, with 1,024 keys, to a keyed shared manager.
    Keyed64,
    /// Items of 64 KiB in one tunnel.
    Tunnel,
    /// Requests of 64 bytes, 64 of them at a time.
    Ask64,
    /// Requests of 64 bytes, one after the other.
    Ask1,
}

impl Work {
    /// How many bytes one event is in the reference: as many as the payload of ours.
    fn bytes(self) -> usize {
        match self {
            Self::Notify64 | Self::Keyed64 | Self::Ask64 | Self::Ask1 => 64,
            Self::Notify1k => 1 << 10,
            Self::Tunnel => 64 << 10,
        }
    }

    /// How many calls are open at a time.
    fn in_flight(self) -> u64 {
        if self == Self::Ask64 { 64 } else { 1 }
    }
}

/// What ours is compared with: the side that sends, and how the other process receives.
trait Reference: Clone + Send + Sync + 'static {
    const NAME: &'static str;
    /// What receives until it is dropped.
    type Receiving: Send;

    /// Receives, with the keys of this folder. Where.
    fn receive(keys: &Path) -> impl Future<Output = Result<(SocketAddr, Self::Receiving)>> + Send;

    fn start(other: &Other) -> impl Future<Output = Result<Self>> + Send;

    /// Does so many rounds of the work; how long they took.
    fn run(self, work: Work, rounds: u64) -> impl Future<Output = Duration> + Send;

    /// Ends it; how many messages were lost.
    fn stop(self) -> impl Future<Output = Result<u64>> + Send;
}

async fn compared<R: Reference>(plan: Plan, work: Work) -> Result<Figures> {
    let other = Other::start::<R>()?;
    let ours = ours::Sending::start(&other).await?;
    let reference = R::start(&other).await?;
    let (sending, bare) = (ours.clone(), reference.clone());
    let mut figures = compare(
        &plan,
        Side::new("edri", move |rounds| sending.clone().run(work, rounds)),
        vec![Side::new(R::NAME, move |rounds| bare.clone().run(work, rounds))],
    )
    .await;
    ours.stop().await?;
    let lost = reference.stop().await?;
    if lost > 0 {
        figures.note += &format!(", {} lost {lost} messages, which are not counted", R::NAME);
    }
    other.stop()?;
    Ok(figures)
}

/// One side of one comparison, for a profiler.
#[derive(Debug, Args)]
pub(crate) struct Once {
    work: Work,
    /// So many rounds.
    rounds: u64,
    /// A reference, not ours.
    #[arg(long, num_args = 0..=1, default_missing_value = Raw::NAME)]
    reference: Option<String>,
}

/// Runs one side once; how long it takes.
pub(crate) async fn once(Once { work, rounds, reference }: Once) -> Result<Duration> {
    match reference.as_deref() {
        None => {
            let other = Other::start::<Raw>()?;
            let ours = ours::Sending::start(&other).await?;
            let took = ours.clone().run(work, rounds).await;
            ours.stop().await?;
            other.stop()?;
            Ok(took)
        }
        Some(Raw::NAME) => once_of::<Raw>(work, rounds).await,
        #[cfg(feature = "peers")]
        Some(Zenoh::NAME) => once_of::<Zenoh>(work, rounds).await,
        #[cfg(feature = "peers")]
        Some(Nats::NAME) => once_of::<Nats>(work, rounds).await,
        Some(name) => Err(format!("there is no reference {name:?}").into()),
    }
}

async fn once_of<R: Reference>(work: Work, rounds: u64) -> Result<Duration> {
    let other = Other::start::<R>()?;
    let reference = R::start(&other).await?;
    let took = reference.clone().run(work, rounds).await;
    reference.stop().await?;
    other.stop()?;
    Ok(took)
}
