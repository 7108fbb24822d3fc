//! What happens to an event between the way in and the bus: interceptors, then the rules of its schema.
//!
//! ```text
//!   HTTP ──────────────────────▶ enter ─▶ cache, relay ─▶ Passed::leave
//!   WebSocket ─▶ Relay::guarded(Guard) ─▶ enter ─▶ bus ─▶ leave
//!   events for subscribers ─────▶ deliver
//! ```
//!
//! An event that no interceptor sees and no rule is for passes without anything being done.

mod interceptor;
mod layers;
mod passed;
mod plain;
mod rules;
mod schema;
mod words;

use std::sync::Arc;

use edri_events::{Body, CodecError, Descriptor, Envelope};
use edri_router::{Border, Passage, Refusal, Relayed};
use futures_util::future::BoxFuture;

use crate::Caller;
use crate::exposed::Reachable;
use crate::gateway::Shared;
use interceptor::Erased;
pub use interceptor::{Delivered, Incoming, Interceptor, Outgoing, Way};
pub(crate) use layers::Layers;
pub(crate) use passed::Passed;
use passed::Watched;
pub(crate) use rules::Rules;

/// The code that sees every event.
#[derive(Default, Clone)]
pub(crate) struct Interceptors(Vec<Arc<dyn Erased>>);

impl Interceptors {
    pub(crate) fn add(&mut self, interceptor: Arc<dyn Erased>) {
        self.0.push(interceptor);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shows an event that is on its way to a subscriber; `None` when it is not to have it.
    pub(crate) fn deliver(&self, caller: &Caller, way: Way, event: Envelope) -> Option<Envelope> {
        if self.0.is_empty() {
            return Some(event);
        }
        let mut delivered = Delivered::new(caller, way, event);
        for interceptor in &self.0 {
            if let Err(failure) = interceptor.deliver(&mut delivered) {
                tracing::debug!(event = %delivered.name(), %failure, "an interceptor keeps an event from a subscriber");
                return None;
            }
        }
        Some(delivered.into_envelope())
    }
}

impl std::fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Interceptors").field(&self.0.len()).finish()
    }
}

/// Lets an event of this caller pass, as it is or as interceptors have changed it.
///
/// # Errors
///
/// [`Refusal`] says who refuses it, or what is wrong with its payload.
pub(crate) async fn enter(
    interceptors: &Interceptors,
    event: &Arc<Reachable>,
    caller: &Caller,
    way: Way,
    relayed: &mut Relayed,
) -> Result<Passed, Refusal> {
    let watched = if interceptors.0.is_empty() {
        None
    } else {
        let mut incoming = Incoming::new(event.descriptor.clone(), caller.clone(), way, relayed);
        for interceptor in &interceptors.0 {
            interceptor.before(&mut incoming).await.map_err(Refusal::Failed)?;
        }
        incoming.write_to(relayed);
        Some(Watched::new(interceptors.clone(), incoming))
    };
    event.rules.check(&relayed.body).map_err(Refusal::Payload)?;
    Ok(Passed::new(watched, Arc::clone(&event.rules), relayed.body.clone()))
}

/// The border for all events of one caller.
#[derive(Clone)]
pub(crate) struct Guard {
    shared: Arc<Shared>,
    caller: Caller,
    way: Way,
}

impl Guard {
    pub(crate) fn new(shared: &Arc<Shared>, caller: &Caller, way: Way) -> Arc<Self> {
        Arc::new(Self { shared: Arc::clone(shared), caller: caller.clone(), way })
    }

    fn event(&self, descriptor: &Descriptor) -> Option<Arc<Reachable>> {
        self.shared.exposed.table().event(descriptor.name()).cloned()
    }
}

impl Border for Guard {
    fn concerns(&self, descriptor: &Descriptor) -> bool {
        !self.shared.interceptors.0.is_empty() || self.event(descriptor).is_some_and(|event| event.rules.are_enforced())
    }

    fn enter<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        event: &'a mut Relayed,
    ) -> BoxFuture<'a, Result<Box<dyn Passage>, Refusal>> {
        Box::pin(async move {
            // It may have been taken back since it was looked up.
            let Some(reachable) = self.event(descriptor) else {
                let text = format!("`{}` can be reached no more", descriptor.name());
                return Err(Refusal::Failed(edri_events::Failure::new("not_found", text)));
            };
            let passed = enter(&self.shared.interceptors, &reachable, &self.caller, self.way, event).await?;
            Ok(Box::new(passed) as Box<dyn Passage>)
        })
    }

    fn explain(&self, descriptor: &Descriptor, payload: &Body, error: CodecError) -> CodecError {
        match self.event(descriptor) {
            Some(event) => event.rules.explain(payload, error),
            None => error,
        }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("caller", &self.caller.name()).field("way", &self.way).finish_non_exhaustive()
    }
}
