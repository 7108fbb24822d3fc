//! Requests that a manager answers where they are asked, by the names of their events.

use std::fmt;
use std::sync::Arc;

use edri_events::{DescriptorRef, Envelope, EventName, Failure, Kind, Pattern, Request, Value};
use edri_router::{Outcome, RequestError, Responder, Selection};

type Respond = dyn Fn(&Envelope) -> Option<Result<Value, Failure>> + Send + Sync;

/// What answers requests of one name.
#[derive(Clone)]
struct Named {
    hash: u64,
    name: EventName,
    respond: Arc<Respond>,
}

/// All that a manager answers so, by the hashes of the names, which descriptors have.
#[derive(Clone, Default)]
pub(crate) struct Responds(Vec<Named>);

impl Responds {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what answers requests of type `E`.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(crate) fn add<E: Request>(
        &mut self,
        respond: impl Fn(&E) -> Option<Result<E::Output, Failure>> + Send + Sync + 'static,
    ) -> Result<(), String> {
        let untyped = move |request: &Envelope| {
            // What cannot be read a worker has, and with it the words for it.
            let request = request.payload::<E>().ok()?;
            Some(respond(request)?.map(Value::typed))
        };
        self.add_any(E::descriptor().name().clone(), untyped)
    }

    /// Adds what answers requests of this name.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(crate) fn add_any(
        &mut self,
        name: EventName,
        respond: impl Fn(&Envelope) -> Option<Result<Value, Failure>> + Send + Sync + 'static,
    ) -> Result<(), String> {
        if self.0.iter().any(|named| named.name == name) {
            return Err(format!("`{name}` has two responders: which is to be asked?"));
        }
        let hash = edri_events::key_hash(&name);
        let at = self.0.partition_point(|named| named.hash < hash);
        self.0.insert(at, Named { hash, name, respond: Arc::new(respond) });
        Ok(())
    }

    /// Why a manager with these handlers cannot have these responders.
    pub(crate) fn check(&self, selections: &[Selection], events: &[DescriptorRef]) -> Result<(), String> {
        for Named { name, .. } in &self.0 {
            let kind = events.iter().find(|event| event.name() == name).map(|event| event.kind());
            if kind.is_some_and(|kind| kind != Kind::Request) {
                return Err(format!("`{name}` has a responder and is no request: only requests are answered"));
            }
            let wanted = Pattern::from(name.clone());
            if !selections.iter().any(|selection| selection.pattern == wanted) {
                return Err(format!(
                    "`{name}` has a responder and no handler, which has what the responder leaves: add \
                     `.handles::<E>()`, or `.handles_any(\"{name}\")`"
                ));
            }
        }
        Ok(())
    }
}

impl Responder for Responds {
    fn respond(&self, request: &Envelope) -> Option<Outcome> {
        let hash = request.head().descriptor.name_hash();
        let first = self.0.partition_point(|named| named.hash < hash);
        let mut same = self.0[first..].iter().take_while(|named| named.hash == hash);
        let named = same.find(|named| named.name == *request.name())?;
        Some((named.respond)(request)?.map_err(RequestError::Failed))
    }
}

impl fmt::Debug for Responds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|named| &named.name)).finish()
    }
}
