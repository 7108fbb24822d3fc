//! Errors on their way between nodes: the protocol's faults on one side, what the router tells on the other.

use bytes::Bytes;
use edri_events::{EventName, FieldError, NodeName, Value};
use edri_protocol::items;
use edri_protocol::limits::WAITS_MAX;
use edri_protocol::{Fault, FieldFault, Text, Wait};
use edri_router::{Outcome, RequestError, Told, ToldWait, TunnelError};

/// What is told, as a fault.
fn written(told: Told) -> Fault<'static> {
    let texts = |texts: Vec<String>| texts.into_iter().take(WAITS_MAX).map(Text::from).collect();
    Fault {
        code: told.code.into(),
        message: told.message.into(),
        detail: told.detail.map(Text::from),
        wait: told.wait.map(|wait| Wait {
            waited_ms: wait.waited_ms,
            groups: texts(wait.groups),
            cycle: texts(wait.cycle),
        }),
        errors: told.errors.into_iter().map(field_fault).collect(),
    }
}

fn field_fault(FieldError { field, message }: FieldError) -> FieldFault<'static> {
    FieldFault { field: field.into(), message: message.into() }
}

/// What a fault tells.
fn read(fault: Fault<'_>, failure: bool) -> Told {
    let texts = |texts: Vec<Text<'_>>| texts.into_iter().map(Text::into_owned).collect();
    Told {
        failure,
        code: fault.code.into_owned(),
        message: fault.message.into_owned(),
        detail: fault.detail.map(Text::into_owned),
        wait: fault.wait.map(|wait| ToldWait {
            waited_ms: wait.waited_ms,
            groups: texts(wait.groups),
            cycle: texts(wait.cycle),
        }),
        errors: fault
            .errors
            .into_iter()
            .map(|error| FieldError::new(error.field.into_owned(), error.message.into_owned()))
            .collect(),
    }
}

/// Why a request has no response, as it is written.
pub(crate) fn from_error(error: &RequestError) -> items::Outcome<'static> {
    let told = Told::from(error);
    if told.failure { items::Outcome::Failure(written(told)) } else { items::Outcome::Error(written(told)) }
}

/// What came of the request of `event` on `node`, as it was read from `body`.
pub(crate) fn to_outcome(outcome: items::Outcome<'_>, event: &EventName, node: &NodeName, body: &Bytes) -> Outcome {
    let told = match outcome {
        items::Outcome::Value(payload) => return Ok(Value::from(payload.to_body(body))),
        items::Outcome::Failure(fault) => read(fault, true),
        items::Outcome::Error(fault) => read(fault, false),
    };
    Err(RequestError::from_told(told.by_node(node), event))
}

/// Why a tunnel broke, as it is written.
pub(crate) fn from_tunnel(error: &TunnelError) -> Fault<'static> {
    written(Told::from(error))
}

/// Why a tunnel broke, as it was read.
pub(crate) fn to_tunnel(fault: Fault<'_>) -> TunnelError {
    TunnelError::from_told(read(fault, false))
}
