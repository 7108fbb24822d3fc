//! Errors across a process boundary: the protocol's faults on one side, what the router tells on the other.

use edri_events::{EventId, EventName, Failure, FieldError};
use edri_protocol::limits::WAITS_MAX;
use edri_protocol::{Fault, FieldFault, Response, Text, Wait};
use edri_router::{PublishError, RequestError, Told, ToldWait, TunnelError};

/// The code of a worker's `bye` that says that it will not start however often it is tried.
pub(super) const START_REFUSED: &str = "start_refused";

/// What came of a call that has no value, as a `response` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused<'a> {
    /// The handler's own failure.
    Failure(Fault<'a>),
    /// An error of edri.
    Error(Fault<'a>),
}

impl<'a> Refused<'a> {
    fn new(told: Told) -> Refused<'static> {
        let failure = told.failure;
        let fault = written(told);
        if failure { Refused::Failure(fault) } else { Refused::Error(fault) }
    }

    fn told(self) -> Told {
        match self {
            Self::Failure(fault) => Told { failure: true, ..read(fault) },
            Self::Error(fault) => read(fault),
        }
    }

    /// The response that says so.
    pub fn response(self, id: u64) -> Response<'a> {
        match self {
            Self::Failure(fault) => Response { id, failure: Some(fault), ..Response::default() },
            Self::Error(fault) => Response { id, error: Some(fault), ..Response::default() },
        }
    }

    /// What a response says if it has no value.
    pub fn of(response: Response<'a>) -> Option<Self> {
        let failure = response.failure.map(Self::Failure);
        failure.or_else(|| response.error.map(Self::Error))
    }
}

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
fn read(fault: Fault<'_>) -> Told {
    let texts = |texts: Vec<Text<'_>>| texts.into_iter().map(Text::into_owned).collect();
    Told {
        failure: false,
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

/// A handler's failure as it was read.
pub fn to_failure(fault: Fault<'_>) -> Failure {
    let failure = Failure::new(fault.code.into_owned(), fault.message.into_owned());
    match fault.detail {
        Some(detail) => failure.with_detail(detail.into_owned()),
        None => failure,
    }
}

/// Why a request has no response, as it is written.
pub fn from_request(error: &RequestError) -> Refused<'static> {
    Refused::new(Told::from(error))
}

/// Why the request of `event` has no response, as it was read.
pub fn to_request(refused: Refused<'_>, event: &EventName) -> RequestError {
    RequestError::from_told(refused.told(), event)
}

/// Why a notification was not delivered, as it is written.
pub fn from_publish(error: &PublishError) -> Refused<'static> {
    Refused::new(Told::from(error))
}

/// Why the notification `event` was not delivered, as it was read. Who has it all the same is not told.
pub fn to_publish(refused: Refused<'_>, event: &EventName, id: EventId) -> PublishError {
    PublishError::from_told(refused.told(), event, id)
}

/// Why a tunnel broke, as an `abort` says it.
pub fn from_tunnel(error: &TunnelError) -> Fault<'static> {
    written(Told::from(error))
}

/// Why a tunnel has no result, as its response says it.
pub fn tunnel_refused(error: &TunnelError) -> Refused<'static> {
    Refused::new(error.told_as_result())
}

/// Why a tunnel broke, as an `abort` said it.
pub fn to_tunnel(fault: Fault<'_>) -> TunnelError {
    TunnelError::from_told(read(fault))
}

/// A fault in words.
pub fn text(fault: &Fault<'_>) -> String {
    read(fault.clone()).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use edri_events::{CodecError, Encoding, Kind, ManagerName, NameError};
    use edri_protocol::Frame;
    use edri_router::{DeclareError, GroupName, Receipt, WaitEnded};

    use super::*;

    fn event() -> EventName {
        EventName::new("risk.assess").expect("valid")
    }

    fn name_error() -> NameError {
        ManagerName::new("").expect_err("empty")
    }

    fn codec_error() -> CodecError {
        Encoding::Json.decode::<u8>(b"\"x\"").expect_err("no number")
    }

    fn waits() -> Box<WaitEnded> {
        let manager = |name| ManagerName::new(name).expect("valid");
        Box::new(WaitEnded::new(
            Duration::from_millis(1500),
            vec![GroupName::Manager(manager("risk")), GroupName::Subscription(7), "north/risk".parse().expect("valid")],
            vec![manager("a"), manager("b")],
        ))
    }

    fn declare_errors() -> Vec<DeclareError> {
        let taken = {
            use edri_events::{Descriptor, DescriptorRef};
            let make = |kind| -> DescriptorRef { Descriptor::declare("risk.assess", kind).expect("valid").build() };
            make(Kind::Request).compatible(&make(Kind::Tunnel)).expect_err("of another kind")
        };
        let mut headers = edri_events::Headers::default();
        let long = headers.insert("h", "x".repeat(edri_events::Headers::BYTES_MAX)).expect_err("too long");
        vec![
            DeclareError::NameTaken(taken),
            DeclareError::UnknownEvent("risk.assess".to_owned()),
            DeclareError::WrongKind { event: event(), kind: Kind::Request, advice: "request it" },
            DeclareError::Name(name_error()),
            DeclareError::Headers(long),
            DeclareError::Limit { what: "names", limit: 3 },
            DeclareError::Stopping,
            DeclareError::Elsewhere { code: "name_taken", message: "taken".to_owned() },
        ]
    }

    /// Over the wire in either encoding.
    fn cross<R>(refused: Refused<'_>, read: impl Fn(Refused<'_>) -> R) -> [R; 2] {
        [Encoding::MessagePack, Encoding::Json].map(|encoding| {
            let mut bytes = Vec::new();
            let frame = Frame::Response(refused.clone().response(7));
            frame.encode(encoding, usize::MAX, &mut bytes).expect("encodes");
            match Frame::decode(&bytes) {
                Ok(Frame::Response(response)) => read(Refused::of(response).expect("no value")),
                other => panic!("{other:?}"),
            }
        })
    }

    #[test]
    fn every_request_error_keeps_its_code_and_text() {
        let mut errors = vec![
            RequestError::NoHandler(event()),
            RequestError::Overloaded(waits()),
            RequestError::Overloaded(Box::default()),
            RequestError::TimedOut(waits()),
            RequestError::WorkerLost("panicked: at the disco".to_owned()),
            RequestError::Failed(Failure::new("no_model", "no such model").with_detail("line 7")),
            RequestError::Failed(Failure::new("overloaded", "a code that edri uses too")),
            RequestError::Payload(codec_error()),
            RequestError::Stopping,
            RequestError::PeerLost("the node is gone".to_owned()),
            RequestError::Elsewhere(Failure::new("cancelled", "the caller waits no more")),
        ];
        errors.extend(declare_errors().into_iter().map(RequestError::Declare));
        for error in errors {
            for crossed in cross(from_request(&error), |refused| to_request(refused, &event())) {
                assert_eq!(crossed.code(), error.code());
                assert_eq!(crossed.to_string(), error.to_string(), "{error:?}");
                let [again, _] = cross(from_request(&crossed), |refused| to_request(refused, &event()));
                assert_eq!(again.to_string(), error.to_string(), "the second time");
                match (&error, &crossed) {
                    (RequestError::Overloaded(a), RequestError::Overloaded(b))
                    | (RequestError::TimedOut(a), RequestError::TimedOut(b)) => assert_eq!(a, b),
                    (RequestError::Failed(a), RequestError::Failed(b))
                    | (RequestError::Elsewhere(a), RequestError::Elsewhere(b)) => assert_eq!(a, b),
                    (RequestError::Declare(DeclareError::Stopping), RequestError::Stopping) => {}
                    (a, b) => assert_eq!(std::mem::discriminant(a), std::mem::discriminant(b), "{error:?}"),
                }
            }
        }
    }

    #[test]
    fn every_publish_error_keeps_its_code_and_text() {
        let id = EventId::next();
        let mut errors = vec![
            PublishError::Overloaded { event: event(), wait: waits(), receipt: Receipt::new(id, 2) },
            PublishError::Payload { event: event(), source: codec_error() },
            PublishError::Stopping,
            PublishError::Elsewhere(Failure::new("cancelled", "not wanted")),
        ];
        errors.extend(declare_errors().into_iter().map(PublishError::Declare));
        for error in errors {
            for crossed in cross(from_publish(&error), |refused| to_publish(refused, &event(), id)) {
                assert_eq!(crossed.code(), error.code());
                assert_eq!(crossed.to_string(), error.to_string(), "{error:?}");
                if let (PublishError::Overloaded { wait: a, .. }, PublishError::Overloaded { wait: b, receipt, .. }) =
                    (&error, &crossed)
                {
                    assert_eq!(a, b);
                    assert_eq!(receipt.id, id);
                }
            }
        }
    }

    #[test]
    fn every_tunnel_error_keeps_its_code_and_text() {
        let errors = [
            TunnelError::Aborted(Failure::new("enough", "no more").with_detail("of it")),
            TunnelError::PeerDropped,
            TunnelError::Idle(Duration::from_millis(250)),
            TunnelError::Payload(Arc::new(codec_error())),
        ];
        for error in errors {
            let crossed = to_tunnel(from_tunnel(&error));
            assert_eq!(crossed.code(), error.code());
            assert_eq!(crossed.to_string(), error.to_string());
            assert_eq!(crossed.failure(), error.failure());
        }
        let ended = TunnelError::Ended(Arc::new(RequestError::WorkerLost("gone".to_owned())));
        assert_eq!(to_tunnel(from_tunnel(&ended)).code(), "worker_lost");
    }

    #[test]
    fn what_nobody_here_knows_keeps_its_code() {
        let unknown = |code: &str| Refused::Error(written(Told::error(code, "from the future")));
        assert_eq!(to_request(unknown("moved_away"), &event()).code(), "moved_away");
        assert_eq!(to_publish(unknown("moved_away"), &event(), EventId::next()).code(), "moved_away");
        assert_eq!(to_publish(unknown("no_handler"), &event(), EventId::next()).code(), "no_handler");
    }
}
