//! Requests: one in flight, and 64.

use edri::{Bus, Definition, Manager};
use futures_util::future::join_all;

use super::reference::{self, Take, timed};
use crate::Result;
use crate::case::Figures;
use crate::event::{Ask, Oracle, Sealer, node, stop};
use crate::harness::{Plan, Side, compare};

/// One requester that waits for each answer.
pub(crate) async fn request1(plan: Plan) -> Result<Figures> {
    let node = node([oracle()]).await?;
    let bus = node.bus().clone();
    let ours = Side::new("edri", move |rounds| timed(ask(bus.clone(), rounds)));
    let sealer = Sealer::new();
    let sender = reference::oracle(Take::OneByOne);
    let reference =
        Side::new("mpsc + oneshot", move |rounds| timed(reference::ask(sender.clone(), sealer.clone(), rounds)));
    let figures = compare(&plan, ours, vec![reference]).await;
    stop(node).await?;
    Ok(figures)
}

/// As many requesters, each of which waits for its answers.
pub(crate) async fn request64(plan: Plan) -> Result<Figures> {
    const REQUESTERS: u64 = 64;
    let node = node([oracle()]).await?;
    let bus = node.bus().clone();
    let ours = Side::new("edri", move |rounds| {
        let bus = bus.clone();
        timed(async move {
            let requesters = (0..REQUESTERS).map(|_| tokio::spawn(ask(bus.clone(), rounds.div_ceil(REQUESTERS))));
            join_all(requesters).await.into_iter().for_each(|ended| ended.expect("no panic"));
        })
    });
    let with = |name, take| {
        let (sealer, sender) = (Sealer::new(), reference::oracle(take));
        Side::new(name, move |rounds| {
            let (sealer, sender) = (sealer.clone(), sender.clone());
            timed(async move {
                let asked = rounds.div_ceil(REQUESTERS);
                let requesters =
                    (0..REQUESTERS).map(|_| tokio::spawn(reference::ask(sender.clone(), sealer.clone(), asked)));
                join_all(requesters).await.into_iter().for_each(|ended| ended.expect("no panic"));
            })
        })
    };
    let references =
        vec![with("mpsc recv + oneshot", Take::OneByOne), with("mpsc recv_many + oneshot", Take::Many(64))];
    let figures = compare(&plan, ours, references).await;
    stop(node).await?;
    Ok(figures)
}

/// Asks so many questions one after another.
pub(crate) async fn ask(bus: Bus, rounds: u64) {
    for number in 0..rounds {
        std::hint::black_box(bus.request(Ask::new(number)).await.expect("the node runs"));
    }
}

/// A manager with one oracle.
pub(crate) fn oracle() -> Definition {
    Manager::new("oracle").worker(Oracle::default).handles::<Ask>().into()
}
