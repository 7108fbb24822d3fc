//! What is said: events as edri sees them.
//!
//! An *event* is a typed fact or ask, declared as a Rust struct with [`event`] or at run time with
//! [`Descriptor::declare`]. Everything beyond this crate works from the [`Descriptor`] alone; the Rust type is a
//! convenience that produces one. An [`Envelope`] is an event on its way: the payload behind one reference count, with
//! what routing, tracing and accounting need to know about it.
//!
//! This crate promises that a payload stays the typed value while it stays in the process, and that it is encoded at
//! most once an [`Encoding`], however many boundaries ask for its bytes. It knows nothing of routers, workers, clocks
//! that tick, or sockets.

mod address;
mod body;
mod check;
mod codec;
mod descriptor;
mod envelope;
mod event;
mod exposure;
mod failure;
mod http;
mod id;
mod invalid;
mod key;
mod name;
mod payload;
mod text;
mod trace;

pub use address::{Address, Origin};
pub use body::{Body, Value};
pub use codec::{CodecError, Encoding};
pub use descriptor::{Declaration, Descriptor, DescriptorRef, Incompatible, Kind, REQUEST_TIMEOUT_DEFAULT, Schemas};
pub use edri_macros::{data, event};
pub use envelope::{Envelope, Head, Headers, HeadersError, Parts};
pub use event::{Data, Event, Item, KeyField, Notification, Request, Tunnel};
pub use exposure::{
    Caching, Exposure, FieldSource, HttpRoute, PageNames, ROUTE_BYTES_MAX, ROUTES_MAX, RouteError, STALE_ON_MAX, Source,
};
pub use failure::Failure;
pub use http::{Http, HttpPart, LOG_IN, LOG_OUT};
pub use id::{EventId, Incarnation};
pub use invalid::{FIELD_ERRORS_MAX, FieldError, Invalid};
pub use key::key_hash;
pub use name::{EventName, ManagerName, NAME_BYTES_MAX, NameError, NodeName, Pattern};
pub use payload::Payload;
pub use trace::{TraceContext, TraceParseError};

/// What the code made by [`event`] and [`data`] refers to. Not part of the public interface: use the names above.
#[doc(hidden)]
pub mod __private {
    pub use crate::descriptor::{Descriptor, Kind, TypedCaching, TypedDeclaration, TypedExposure};
    pub mod check {
        pub use crate::check::{Checked, Field, FieldErrors, Known, Unknown};
    }
    pub use crate::event::{Event, Item, KeyField, Notification, Request, Tunnel, weigh};
    pub use schemars;
    pub use serde;
    pub use std::sync::LazyLock;
    pub use std::time::Duration;
}
