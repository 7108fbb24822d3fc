//! Cases within one process.

mod cost;
mod names;
mod notify;
mod reference;
mod request;
mod spans;
mod tunnel;

use crate::case::Case;

/// In the order they are run. The budgets are those of the project's plan.
pub(crate) const CASES: &[Case] = &[
    Case::new("local.notify", "events/s", 1.2, |plan| Box::pin(notify::notify(plan))),
    Case::new("local.fanout100", "events/s", 1.2, |plan| Box::pin(notify::fanout100(plan))),
    Case::new("local.keyed4", "events/s", 1.0, |plan| Box::pin(notify::keyed4(plan))),
    Case::informing("local.batch", "events/s", |plan| Box::pin(notify::batch(plan))),
    Case::new("local.request1", "requests/s", 0.75, |plan| Box::pin(request::request1(plan))).one_in_flight(),
    Case::new("local.request64", "requests/s", 0.8, |plan| Box::pin(request::request64(plan))),
    Case::new("local.tunnel64", "items/s", 1.0, |plan| Box::pin(tunnel::tunnel64(plan))),
    Case::new("local.tunnel64k", "items/s", 1.0, |plan| Box::pin(tunnel::tunnel64k(plan))),
    Case::new("local.routes", "events/s", 0.8, |plan| Box::pin(names::routes(plan))),
    Case::new("local.subscribe", "subscriptions/s", 0.2, |plan| Box::pin(names::subscribe(plan))),
    Case::informing("local.allocations.notify", "allocations/event", |plan| Box::pin(cost::allocations_notify(plan))),
    Case::informing("local.allocations.request", "allocations/event", |plan| Box::pin(cost::allocations_request(plan))),
    Case::informing("local.metrics", "events/s", |plan| Box::pin(cost::metrics(plan))),
    Case::informing("local.spans", "events/s", |plan| Box::pin(spans::spans(plan))),
];
