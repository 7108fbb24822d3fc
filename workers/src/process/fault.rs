//! Errors across a process boundary: those of the router and of handlers on one side, the protocol's faults on the other.
//!
//! The stable code is the same before and after. What has no structure on the wire comes back as a text with that code:
//! the variants called `Elsewhere`.

use std::time::Duration;

use edri_events::{CodecError, EventId, EventName, Failure, ManagerName};
use edri_protocol::{Fault, Response, Text, Wait};
use edri_router::{DeclareError, PublishError, Receipt, RequestError, TunnelError, WaitEnded};

/// What came of a call that has no value, as a `response` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused<'a> {
    /// The handler's own failure.
    Failure(Fault<'a>),
    /// An error of edri.
    Error(Fault<'a>),
}

impl<'a> Refused<'a> {
    /// The response that says so.
    pub(crate) fn response(self, id: u64) -> Response<'a> {
        match self {
            Self::Failure(fault) => Response { id, failure: Some(fault), ..Response::default() },
            Self::Error(fault) => Response { id, error: Some(fault), ..Response::default() },
        }
    }

    /// What a response says if it has no value.
    pub(crate) fn of(response: Response<'a>) -> Option<Self> {
        let failure = response.failure.map(Self::Failure);
        failure.or_else(|| response.error.map(Self::Error))
    }
}

fn fault<'a>(code: &'a str, message: impl Into<Text<'a>>) -> Fault<'a> {
    Fault { code: code.into(), message: message.into(), ..Fault::default() }
}

fn with_wait<'a>(code: &'a str, wait: Wait<'a>, text: String) -> Fault<'a> {
    Fault { wait: Some(wait), ..fault(code, text) }
}

// ---- failures ------------------------------------------------------------------------------------------------------

/// A handler's failure as it is written.
pub(crate) fn from_failure(failure: &Failure) -> Fault<'_> {
    Fault { detail: failure.detail().map(Text::from), ..fault(failure.code(), failure.text()) }
}

/// A handler's failure as it was read.
pub(crate) fn to_failure(fault: Fault<'_>) -> Failure {
    let failure = Failure::new(fault.code.into_owned(), fault.message.into_owned());
    match fault.detail {
        Some(detail) => failure.with_detail(detail.into_owned()),
        None => failure,
    }
}

// ---- requests ------------------------------------------------------------------------------------------------------

/// Why a request has no response, as it is written.
pub(crate) fn from_request(error: &RequestError) -> Refused<'_> {
    let code = error.code();
    Refused::Error(match error {
        RequestError::Failed(failure) => return Refused::Failure(from_failure(failure)),
        RequestError::Elsewhere(failure) => from_failure(failure),
        RequestError::Overloaded(wait) | RequestError::TimedOut(wait) => {
            with_wait(code, from_wait(wait), error.to_string())
        }
        RequestError::WorkerLost(detail) | RequestError::PeerLost(detail) => fault(code, detail.as_str()),
        RequestError::Payload(source) => fault(code, source.to_string()),
        // Their texts are for people; the event's name is known to whoever asked.
        other => fault(code, other.to_string()),
    })
}

/// Why the request of `event` has no response, as it was read.
pub(crate) fn to_request(refused: Refused<'_>, event: &EventName) -> RequestError {
    let fault = match refused {
        Refused::Failure(fault) => return RequestError::Failed(to_failure(fault)),
        Refused::Error(fault) => fault,
    };
    match (&*fault.code, &fault.wait) {
        ("no_handler", _) => RequestError::NoHandler(event.clone()),
        ("overloaded", Some(wait)) => RequestError::Overloaded(Box::new(to_wait(wait))),
        ("timed_out", wait) => RequestError::TimedOut(Box::new(wait.as_ref().map(to_wait).unwrap_or_default())),
        ("worker_lost", _) => RequestError::WorkerLost(fault.message.into_owned()),
        ("peer_lost", _) => RequestError::PeerLost(fault.message.into_owned()),
        ("invalid_payload", _) => RequestError::Payload(CodecError::Elsewhere(fault.message.into_owned())),
        ("stopping", _) => RequestError::Stopping,
        _ => match to_declare(&fault) {
            Some(error) => RequestError::Declare(error),
            None => RequestError::Elsewhere(to_failure(fault)),
        },
    }
}

// ---- publishing ----------------------------------------------------------------------------------------------------

/// Why a notification was not delivered, as it is written.
pub(crate) fn from_publish(error: &PublishError) -> Refused<'_> {
    let code = error.code();
    Refused::Error(match error {
        PublishError::Overloaded { wait, .. } => with_wait(code, from_wait(wait), error.to_string()),
        PublishError::Payload { source, .. } => fault(code, source.to_string()),
        PublishError::Elsewhere(failure) => from_failure(failure),
        other => fault(code, other.to_string()),
    })
}

/// Why the notification `event` was not delivered, as it was read. Who has it all the same is not told.
pub(crate) fn to_publish(refused: Refused<'_>, event: &EventName, id: EventId) -> PublishError {
    let fault = match refused {
        Refused::Failure(fault) => return PublishError::Elsewhere(to_failure(fault)),
        Refused::Error(fault) => fault,
    };
    match (&*fault.code, &fault.wait) {
        ("overloaded", Some(wait)) => PublishError::Overloaded {
            event: event.clone(),
            wait: Box::new(to_wait(wait)),
            receipt: Receipt::new(id, 0),
        },
        ("invalid_payload", _) => {
            PublishError::Payload { event: event.clone(), source: CodecError::Elsewhere(fault.message.into_owned()) }
        }
        ("stopping", _) => PublishError::Stopping,
        _ => match to_declare(&fault) {
            Some(error) => PublishError::Declare(error),
            None => PublishError::Elsewhere(to_failure(fault)),
        },
    }
}

/// The codes of [`DeclareError`] that come back as a text. `stopping` is everybody's.
const DECLARE_CODES: [&str; 6] =
    ["name_taken", "unknown_event", "wrong_kind", "invalid_name", "invalid_headers", "overloaded"];

fn to_declare(fault: &Fault<'_>) -> Option<DeclareError> {
    let code = DECLARE_CODES.iter().find(|code| ***code == *fault.code)?;
    Some(DeclareError::Elsewhere { code, message: fault.message.to_string() })
}

// ---- tunnels -------------------------------------------------------------------------------------------------------

/// Why a tunnel broke, as an `abort` says it.
pub(crate) fn from_tunnel(error: &TunnelError) -> Fault<'_> {
    let code = error.code();
    match error {
        TunnelError::Aborted(failure) => from_failure(failure),
        TunnelError::Idle(limit) => {
            with_wait(code, Wait { waited_ms: millis(*limit), ..Wait::default() }, error.to_string())
        }
        TunnelError::Payload(source) => fault(code, source.to_string()),
        TunnelError::Ended(ended) => match from_request(ended) {
            Refused::Failure(fault) | Refused::Error(fault) => fault,
        },
        other => fault(code, other.to_string()),
    }
}

/// Why a tunnel has no result, as its response says it.
pub(crate) fn tunnel_refused(error: &TunnelError) -> Refused<'_> {
    match error {
        TunnelError::Ended(ended) => from_request(ended),
        TunnelError::Aborted(failure) => Refused::Failure(from_failure(failure)),
        other => Refused::Error(from_tunnel(other)),
    }
}

/// A fault in words.
pub(crate) fn text(fault: &Fault<'_>) -> String {
    match &fault.detail {
        Some(detail) => format!("{}: {} ({detail})", fault.code, fault.message),
        None => format!("{}: {}", fault.code, fault.message),
    }
}

/// Why a tunnel broke, as an `abort` said it.
pub(crate) fn to_tunnel(fault: Fault<'_>) -> TunnelError {
    match (&*fault.code, &fault.wait) {
        ("peer_lost", _) => TunnelError::PeerDropped,
        ("timed_out", Some(wait)) => TunnelError::Idle(Duration::from_millis(wait.waited_ms)),
        ("invalid_payload", _) => CodecError::Elsewhere(fault.message.into_owned()).into(),
        _ => TunnelError::Aborted(to_failure(fault)),
    }
}

// ---- waits ---------------------------------------------------------------------------------------------------------

fn from_wait(wait: &WaitEnded) -> Wait<'_> {
    Wait {
        waited_ms: millis(wait.waited),
        groups: wait.groups.iter().take(edri_protocol::limits::WAITS_MAX).map(|group| group.to_text().into()).collect(),
        cycle: wait.cycle.iter().map(|manager| Text::from(&**manager)).collect(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn to_wait(wait: &Wait<'_>) -> WaitEnded {
    let manager = |text: &Text<'_>| ManagerName::new(text).ok();
    WaitEnded::new(
        Duration::from_millis(wait.waited_ms),
        wait.groups.iter().filter_map(|text| text.parse().ok()).collect(),
        wait.cycle.iter().filter_map(manager).collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use edri_events::{Encoding, Kind, NameError};
    use edri_protocol::Frame;
    use edri_router::GroupName;

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
        let unknown = |code: &'static str| Refused::Error(fault(code, "from the future"));
        assert_eq!(to_request(unknown("moved_away"), &event()).code(), "moved_away");
        assert_eq!(to_publish(unknown("moved_away"), &event(), EventId::next()).code(), "moved_away");
        assert_eq!(to_publish(unknown("no_handler"), &event(), EventId::next()).code(), "no_handler");
    }
}
