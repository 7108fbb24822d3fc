//! The manager that answers.

use std::sync::Weak;
use std::time::Duration;

use edri_events::{DescriptorRef, Encoding, Failure, Pattern};
use edri_managers::{Definition, IntoDefinition, Manager, ManagerError};
use edri_router::{Topology, system};
use edri_workers::{Context, HandleConcurrent, Worker};

use super::event::{
    DeadLetterList, DeadLetterPage, Describe, DrainManager, DrainNode, Draining, DropDeadLetters, Dropped, EventList,
    EventPage, EventView, ManagerDrained, ResendDeadLetters, Resent, ShowDeadLetter, ShownDeadLetter,
};
use super::{GROUPS_MAX, PAGE_BYTES, PAGE_DEFAULT, PAGE_MAX, letters};
use crate::Node;
use crate::node::Inner;

/// Whether a manager may not be called so.
pub(crate) fn is_reserved(name: &str) -> bool {
    name == system::OPERATOR
}

/// The manager of the node that `node` is.
pub(crate) fn definition(node: Weak<Inner>) -> Definition {
    Manager::new(system::OPERATOR)
        .worker(move || Operator { node: node.clone() })
        .handles_concurrently::<Describe>()
        .handles_concurrently::<EventList>()
        .handles_concurrently::<DeadLetterList>()
        .handles_concurrently::<ShowDeadLetter>()
        .handles_concurrently::<ResendDeadLetters>()
        .handles_concurrently::<DropDeadLetters>()
        .handles_concurrently::<DrainNode>()
        .handles_concurrently::<DrainManager>()
        // So that they can be subscribed to by name.
        .declares(DescriptorRef::of::<system::NodeChanged>())
        .declares(DescriptorRef::of::<system::ManagerChanged>())
        .declares(DescriptorRef::of::<system::WorkerChanged>())
        .declares(DescriptorRef::of::<system::DeadLettered>())
        .into_definition()
}

/// Asks the node. It does not keep it alive: a node that was dropped is gone.
struct Operator {
    node: Weak<Inner>,
}

impl Operator {
    fn node(&self) -> Result<Node, Failure> {
        Node::of(&self.node).ok_or_else(|| Failure::new("stopping", "the node is gone"))
    }
}

impl Worker for Operator {}

impl HandleConcurrent<Describe> for Operator {
    async fn handle(&self, ask: &Describe, _: &mut Context) -> Result<Topology, Failure> {
        let mut topology = self.node()?.topology();
        topology.subscriptions.truncate(if ask.subscriptions { GROUPS_MAX } else { 0 });
        topology.remote.truncate(if ask.remote { GROUPS_MAX } else { 0 });
        Ok(topology)
    }
}

impl HandleConcurrent<EventList> for Operator {
    async fn handle(&self, ask: &EventList, _: &mut Context) -> Result<EventPage, Failure> {
        list_events(&self.node()?, ask)
    }
}

impl HandleConcurrent<DeadLetterList> for Operator {
    async fn handle(&self, ask: &DeadLetterList, _: &mut Context) -> Result<DeadLetterPage, Failure> {
        letters::list(self.node()?.bus(), ask)
    }
}

impl HandleConcurrent<ShowDeadLetter> for Operator {
    async fn handle(&self, ask: &ShowDeadLetter, _: &mut Context) -> Result<ShownDeadLetter, Failure> {
        letters::show(self.node()?.bus(), ask.number)
    }
}

impl HandleConcurrent<ResendDeadLetters> for Operator {
    async fn handle(&self, ask: &ResendDeadLetters, cx: &mut Context) -> Result<Vec<Resent>, Failure> {
        check_count(ask.numbers.len())?;
        letters::resend(cx, &ask.numbers).await
    }
}

impl HandleConcurrent<DropDeadLetters> for Operator {
    async fn handle(&self, ask: &DropDeadLetters, cx: &mut Context) -> Result<Dropped, Failure> {
        check_count(ask.numbers.len())?;
        let node = self.node()?;
        let dropped = ask.numbers.iter().filter(|number| node.bus().drop_dead_letter(**number)).count();
        tracing::info!(dropped, caller = cx.caller(), "dead letters were dropped");
        Ok(Dropped { dropped: dropped as u64 })
    }
}

impl HandleConcurrent<DrainNode> for Operator {
    async fn handle(&self, _: &DrainNode, cx: &mut Context) -> Result<Draining, Failure> {
        let node = self.node()?;
        tracing::info!(caller = cx.caller(), "the node was asked to stop");
        let limit = node.drain_limit();
        let name = node.router().node().to_string();
        // Not waited for: the end waits for this handler.
        node.router().runtime().clone().spawn(async move { node.shutdown().await });
        Ok(Draining { node: name, limit_ms: millis(limit) })
    }
}

impl HandleConcurrent<DrainManager> for Operator {
    async fn handle(&self, ask: &DrainManager, cx: &mut Context) -> Result<ManagerDrained, Failure> {
        if is_reserved(&ask.manager) {
            return Err(Failure::new("reserved", "the manager `edri` answers this; to end it, drain its node"));
        }
        tracing::info!(manager = ask.manager, caller = cx.caller(), "a manager was asked to stop");
        match self.node()?.drain(&ask.manager).await {
            Ok(drained) => Ok(ManagerDrained {
                manager: drained.manager,
                undelivered: drained.undelivered as u64,
                interrupted: drained.interrupted as u64,
                stuck: drained.stuck as u64,
            }),
            Err(ManagerError::Unknown(name)) => {
                Err(Failure::new("unknown_manager", format!("no manager `{name}` is on this node")))
            }
            Err(error) => Err(Failure::message(error.to_string())),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How many are in a page, as it was asked for.
pub(super) fn page_size(limit: Option<u32>) -> Result<usize, Failure> {
    match limit.map_or(PAGE_DEFAULT, |limit| limit as usize) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        limit => Err(Failure::new("invalid_page", format!("a page of {limit}: it has 1 to {PAGE_MAX}"))),
    }
}

/// A pattern as it was asked for.
pub(super) fn pattern(text: Option<&str>) -> Result<Option<Pattern>, Failure> {
    let pattern = text.map(Pattern::new).transpose();
    pattern.map_err(|error| Failure::new("invalid_name", error.to_string()))
}

fn check_count(count: usize) -> Result<(), Failure> {
    if count <= PAGE_MAX {
        return Ok(());
    }
    Err(Failure::new("too_many", format!("{count} dead letters at once: name {PAGE_MAX} at most")))
}

fn list_events(node: &Node, ask: &EventList) -> Result<EventPage, Failure> {
    let (limit, pattern) = (page_size(ask.limit)?, pattern(ask.pattern.as_deref())?);
    let wanted = |event: &DescriptorRef| {
        ask.after.as_deref().is_none_or(|after| event.name().as_str() > after)
            && pattern.as_ref().is_none_or(|pattern| pattern.matches(event.name()))
    };
    let (mut page, mut bytes) = (EventPage { events: Vec::new(), next: None }, 0);
    for event in node.bus().events().into_iter().filter(wanted) {
        let view = view(&event, ask.schemas);
        bytes += Encoding::MessagePack.encode(&view).map_or(0, |encoded| encoded.len());
        if page.events.len() == limit || (bytes > PAGE_BYTES && !page.events.is_empty()) {
            page.next = page.events.last().map(|last| last.name.to_string());
            break;
        }
        page.events.push(view);
    }
    Ok(page)
}

fn view(event: &DescriptorRef, with_schemas: bool) -> EventView {
    let routes = event.exposure().map(|exposure| exposure.routes.iter().map(ToString::to_string).collect());
    EventView {
        name: event.name().clone(),
        kind: event.kind(),
        key: event.key().map(str::to_owned),
        time_limit_ms: event.time_limit().map(millis),
        idempotent: event.is_idempotent(),
        description: event.description().to_owned(),
        exposed: event.exposure().is_some(),
        http: routes.unwrap_or_default(),
        schemas: with_schemas.then(|| serde_json::to_value(event.schemas()).unwrap_or_default()),
    }
}
