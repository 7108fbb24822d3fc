//! Cases between two processes: a node and a worker in a process of its own, in Rust and in Python.
//!
//! The reference is a bare loop in this process and a bare child at the other end of the same kind of socket, which write
//! and read the same frames. See `docs/BENCHMARKS.md`.

pub(crate) mod bare;
mod link;
mod ours;
mod python;
mod reference;

pub(crate) use self::ours::hosted;

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::Result;
use crate::case::{Case, Figures};
use crate::harness::{Plan, Side, compare};

/// In the order they are run. The budgets are those of the project's plan.
pub(crate) const CASES: &[Case] = &[
    Case::new("process.rust64", "requests/s", 0.8, |plan| Box::pin(compared(plan, Child::Rust, Work::Ask64))),
    Case::new("process.python64", "requests/s", 0.5, |plan| Box::pin(compared(plan, Child::Python, Work::Ask64)))
        .needs(python::missing),
    Case::informing("process.rust64.64k", "requests/s", |plan| Box::pin(compared(plan, Child::Rust, Work::Ask64Large))),
    Case::informing("process.python64.64k", "requests/s", |plan| {
        Box::pin(compared(plan, Child::Python, Work::Ask64Large))
    })
    .needs(python::missing),
    Case::informing("process.rust1", "requests/s", |plan| Box::pin(compared(plan, Child::Rust, Work::Ask1)))
        .one_in_flight(),
    Case::informing("process.python1", "requests/s", |plan| Box::pin(compared(plan, Child::Python, Work::Ask1)))
        .one_in_flight()
        .needs(python::missing),
    Case::informing("process.rust.notify", "events/s", |plan| Box::pin(compared(plan, Child::Rust, Work::Notify))),
    Case::informing("process.python.notify", "events/s", |plan| Box::pin(compared(plan, Child::Python, Work::Notify)))
        .needs(python::missing),
    Case::informing("process.rust.spawn", "ms", |plan| Box::pin(spawned(plan, Child::Rust))),
    Case::informing("process.python.spawn", "ms", |plan| Box::pin(spawned(plan, Child::Python))).needs(python::missing),
    // How far the node alone is from the reference, and how far the worker alone.
    Case::informing("process.node64", "requests/s", |plan| Box::pin(compared(plan, Child::Bare, Work::Ask64))),
    Case::informing("process.node.notify", "events/s", |plan| Box::pin(compared(plan, Child::Bare, Work::Notify))),
];

/// What works at the other end in ours; at that of the reference is a bare child in the same language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Child {
    /// A worker of this program, hosted.
    Rust,
    /// A worker of the SDK.
    Python,
    /// The bare child of the reference, at the node.
    Bare,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Requests of 64 bytes, one after the other.
    Ask1,
    /// Requests of 64 bytes, 64 of them at a time.
    Ask64,
    /// Requests of 64 KiB, 64 of them at a time.
    Ask64Large,
    /// Notifications of 64 bytes, one after the other, and a request behind them.
    Notify,
}

impl Work {
    /// How many calls are open at a time.
    pub(crate) fn in_flight(self) -> usize {
        if self == Self::Ask1 { 1 } else { 64 }
    }

    /// How large the filling of an event is, for a payload of 64 bytes or of 64 KiB.
    pub(crate) fn filling(self) -> usize {
        if self == Self::Ask64Large { 64 << 10 } else { 44 }
    }
}

async fn compared(plan: Plan, child: Child, work: Work) -> Result<Figures> {
    let ours = ours::Served::start(child).await?;
    let bare = reference::Bare::start(child).await?;
    let (bus, parent) = (ours.bus(), bare.clone());
    let figures = compare(
        &plan,
        Side::new("edri", move |rounds| ours::run(bus.clone(), work, rounds)),
        vec![Side::new("bare parent and child", move |rounds| parent.clone().run(work, rounds))],
    )
    .await;
    ours.stop().await?;
    bare.stop().await?;
    Ok(figures)
}

/// One side of one comparison, for a profiler.
#[derive(Debug, Args)]
pub(crate) struct Once {
    child: Child,
    work: Work,
    /// So many rounds.
    rounds: u64,
    /// The reference, not ours.
    #[arg(long)]
    reference: bool,
}

/// Runs one side once; how long it takes.
pub(crate) async fn once(Once { child, work, rounds, reference }: Once) -> Result<Duration> {
    if reference {
        let bare = reference::Bare::start(child).await?;
        let took = bare.clone().run(work, rounds).await;
        return bare.stop().await.map(|()| took);
    }
    let served = ours::Served::start(child).await?;
    let took = ours::run(served.bus(), work, rounds).await;
    served.stop().await.map(|()| took)
}

/// From nothing to the first answer.
async fn spawned(plan: Plan, child: Child) -> Result<Figures> {
    let figures = compare(
        &plan,
        Side::new("edri", move |rounds| ours::spawn(child, rounds)),
        vec![Side::new("bare parent and child", move |rounds| reference::spawn(child, rounds))],
    )
    .await;
    let milliseconds = |rate: f64| 1e3 / rate;
    Ok(Figures { ours: milliseconds(figures.ours), reference_value: milliseconds(figures.reference_value), ..figures })
}
