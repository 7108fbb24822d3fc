//! What a client may be given, whichever way it subscribes.

use std::sync::Arc;

use axum::http::StatusCode;
use edri_events::{Envelope, Kind, Pattern};
use edri_router::{Bus, Conditions, DeclareError, Replay, Selection, Start};

use crate::gateway::Shared;
use crate::problem::Problem;
use crate::{Caller, Verb};

/// Selects the events of this name or pattern that can be reached, that the caller may have, and that it wants.
///
/// # Errors
///
/// 404, 403 or 401 when it is one event and the caller may not have it; 400 when that is no notification. Of a pattern it is given
/// what it may have.
pub(crate) fn selection(
    shared: &Arc<Shared>,
    caller: &Caller,
    pattern: Pattern,
    key: Option<&str>,
    conditions: Option<Conditions>,
) -> Result<Selection, Problem> {
    let permitted = if pattern.is_exact() {
        check(shared, caller, pattern.as_str())?;
        None
    } else {
        // Whatever is declared later under such a name is looked at when it is published.
        let (shared, caller) = (Arc::clone(shared), caller.clone());
        Some(move |event: &Envelope| {
            let name = event.name();
            shared.exposed.table().event(name).is_some_and(|event| event.permits(&caller, Verb::Subscribe))
        })
    };
    let mut selection = Selection::new(pattern);
    selection.key = key.map(Arc::from);
    // A payload that cannot be read is left out.
    let holds = |conditions: &Conditions, event: &Envelope| conditions.hold(event).unwrap_or(false);
    selection.predicate = match (permitted, conditions.filter(|conditions| !conditions.is_empty())) {
        (None, None) => None,
        (Some(permitted), None) => Some(Arc::new(permitted)),
        (None, Some(conditions)) => Some(Arc::new(move |event| holds(&conditions, event))),
        (Some(permitted), Some(conditions)) => {
            Some(Arc::new(move |event| permitted(event) && holds(&conditions, event)))
        }
    };
    Ok(selection)
}

/// Reads the history that has what the selection selects, from this place on.
pub(crate) async fn replay(bus: &Bus, selection: Selection, start: Start) -> Result<Replay<Envelope>, DeclareError> {
    let mut subscribe = bus.untyped().subscribe(selection.pattern.as_str());
    if let Some(key) = &selection.key {
        subscribe = subscribe.key(key);
    }
    if let Some(wants) = selection.predicate {
        subscribe = subscribe.filter(move |event| wants(event));
    }
    match start {
        Start::Since(since) => subscribe.since(since).await,
        Start::Last(count) => subscribe.last(count).await,
    }
}

fn check(shared: &Shared, caller: &Caller, name: &str) -> Result<(), Problem> {
    let table = shared.exposed.table();
    let event = table.event(name).ok_or_else(|| Problem::unreachable(name))?;
    event.check(caller, Verb::Subscribe)?;
    match event.descriptor.kind() {
        Kind::Notification => Ok(()),
        kind => {
            let detail = format!("`{name}` is a {kind}: only notifications are subscribed to");
            Err(Problem::new(StatusCode::BAD_REQUEST, "wrong_kind", detail))
        }
    }
}
