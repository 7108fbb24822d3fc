//! Cases between two processes on loopback: a node that sends and a node that receives, joined by a link.
//!
//! The reference is the transport alone: the same work written for `quinn` by hand, with the same options and the same
//! cipher, between the same two processes. See `docs/BENCHMARKS.md`.

mod nodes;
pub(crate) mod other;
mod ours;
mod raw;

use std::time::Duration;

use clap::{Args, ValueEnum};

use self::other::Other;
use crate::Result;
use crate::case::{Case, Figures};
use crate::harness::{Plan, Side, compare};

/// In the order they are run. The budgets are those of the project's plan.
pub(crate) const CASES: &[Case] = &[
    Case::new("link.notify64", "events/s", 0.25, |plan| Box::pin(compared(plan, Work::Notify64))),
    Case::new("link.notify1k", "events/s", 0.8, |plan| Box::pin(compared(plan, Work::Notify1k))),
    Case::new("link.tunnel", "items/s", 0.8, |plan| Box::pin(compared(plan, Work::Tunnel))),
    Case::new("link.request64", "requests/s", 1.3, |plan| Box::pin(compared(plan, Work::Ask64))),
    Case::new("link.request1", "requests/s", 0.6, |plan| Box::pin(compared(plan, Work::Ask1))).one_in_flight(),
    Case::informing("link.star64", "packets/s", |plan| Box::pin(nodes::star(plan))),
    Case::informing("link.mesh64", "packets/s", |plan| Box::pin(nodes::mesh(plan))),
];

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Notifications with payloads of 64 bytes, one after the other, until all are handled.
    Notify64,
    /// The same with payloads of 1 KiB.
    Notify1k,
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
            Self::Notify64 | Self::Ask64 | Self::Ask1 => 64,
            Self::Notify1k => 1 << 10,
            Self::Tunnel => 64 << 10,
        }
    }

    /// How many calls are open at a time.
    fn in_flight(self) -> u64 {
        if self == Self::Ask64 { 64 } else { 1 }
    }
}

async fn compared(plan: Plan, work: Work) -> Result<Figures> {
    let other = Other::start()?;
    let ours = ours::Sending::start(&other).await?;
    let raw = raw::Sending::start(&other).await?;
    let (sending, bare) = (ours.clone(), raw.clone());
    let figures = compare(
        &plan,
        Side::new("edri", move |rounds| sending.clone().run(work, rounds)),
        vec![Side::new("raw quinn", move |rounds| bare.clone().run(work, rounds))],
    )
    .await;
    ours.stop().await?;
    raw.stop().await;
    other.stop()?;
    Ok(figures)
}

/// One side of one comparison, for a profiler.
#[derive(Debug, Args)]
pub(crate) struct Once {
    work: Work,
    /// So many rounds.
    rounds: u64,
    /// The reference, not ours.
    #[arg(long)]
    reference: bool,
}

/// Runs one side once; how long it takes.
pub(crate) async fn once(Once { work, rounds, reference }: Once) -> Result<Duration> {
    let other = Other::start()?;
    let took = if reference {
        let raw = raw::Sending::start(&other).await?;
        let took = raw.clone().run(work, rounds).await;
        raw.stop().await;
        took
    } else {
        let ours = ours::Sending::start(&other).await?;
        let took = ours.clone().run(work, rounds).await;
        ours.stop().await?;
        took
    };
    other.stop()?;
    Ok(took)
}
