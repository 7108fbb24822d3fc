//! Event routing infrastructure: declare events as structs, write workers that handle them, and edri routes.
//!
//! ```
//! use edri::prelude::*;
//!
//! #[event(notification, name = "quake.recorded", key = region)]
//! struct QuakeRecorded {
//!     region: String,
//!     magnitude: f64,
//! }
//!
//! #[event(request, name = "quake.strongest", response = f64, timeout = "2s")]
//! struct Strongest {}
//!
//! #[derive(Default)]
//! struct Record {
//!     strongest: f64,
//! }
//!
//! impl Worker for Record {}
//!
//! impl Handle<QuakeRecorded> for Record {
//!     async fn handle(&mut self, quake: &QuakeRecorded, _: &mut Context) -> Result<(), Failure> {
//!         self.strongest = self.strongest.max(quake.magnitude);
//!         Ok(())
//!     }
//! }
//!
//! impl Handle<Strongest> for Record {
//!     async fn handle(&mut self, _: &Strongest, _: &mut Context) -> Result<f64, Failure> {
//!         Ok(self.strongest)
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> edri::Result<()> {
//! let record = Manager::new("record").worker(Record::default).handles::<QuakeRecorded>().handles::<Strongest>();
//! let node = App::new("observatory").manager(record).start().await?;
//!
//! node.bus().publish(QuakeRecorded { region: "north".into(), magnitude: 4.7 }).await?;
//! assert_eq!(node.bus().request(Strongest {}).await?, 4.7);
//!
//! let report = node.shutdown().await;
//! assert!(report.account.is_balanced());
//! # Ok(())
//! # }
//! ```
//!
//! A program that is all edri ends with [`App::run`], which stops on SIGTERM and Ctrl-C; inside another program's tokio
//! runtime [`App::start`] gives a [`Node`]. Several nodes may live in one process.
//!
//! What the words mean and what is promised is in `docs/SEMANTICS.md`; how the code is laid out in
//! `docs/ARCHITECTURE.md`.

mod app;
mod error;
mod hosted;
mod node;
pub mod operations;

pub use app::App;
pub use edri_api::{
    Access, AccessError, Api, ApiError, ApiLimits, Caller, Cors, CorsError, Delivered, Incoming, Interceptor, Jwt,
    KeysError, Outgoing, Pages, Permissions, Proxies, RemoteWorkers, Sessions, Tls, TlsError, Token, Verb, Way,
};
pub use edri_client::{Client, ClientError, Connect};
pub use edri_connector::quic::Options as LinkOptions;
pub use edri_connector::{Connector, ConnectorError, keys};
pub use edri_events::{
    Address, Body, Caching, CodecError, Data, Declaration, Descriptor, DescriptorRef, Encoding, Envelope, Event,
    EventId, EventName, Exposure, Failure, FieldError, FieldSource, Headers, Http, HttpPart, HttpRoute, Incarnation,
    Invalid, Item, KeyField, Kind, ManagerName, NameError, NodeName, Notification, PageNames, Parts, Pattern, Request,
    RouteError, Schemas, Source, TraceContext, Tunnel, Value, data, event, key_hash,
};
pub use edri_managers::{Definition, Drained, IntoDefinition, Manager, ManagerError, Program, Remote, Restart, Typed};
pub use edri_router::{
    Accepted, Account, Answer, Answers, Bus, Conditions, ConditionsError, DeadLetter, DeclareError, Described,
    GroupName, GroupView, HISTORY_EVENTS_MAX, Health, History, HistoryView, INBOX_CAPACITY_MAX, INSTANCES_MAX, Limits,
    LinkState, LinkView, ManagerState, Missed, NodeView, Opened, OpenedTunnel, Options, Overflow, Phase, Position,
    PublishError, Quantiles, Reason, Receipt, Received, Receiver, Recorded, Replay, Reply, RequestError, ResendError,
    Sender, Since, Subscription, Topology, TryPublishError, TunnelError, TunnelOutcome, Untyped, UntypedSubscription,
    WaitEnded, Window, WorkerState, WorkerView, system,
};
/// What is sent at times: entries, and the events of a [`Scheduler`].
pub use edri_scheduler as scheduler;
pub use edri_scheduler::{Entry, Scheduler};
pub use edri_store::{self as store, Namespace, Store};
pub use edri_workers::{
    Backoff, Context, Demand, Handle, HandleAny, HandleConcurrent, Placement, Process, Retry, Worker,
};
pub use error::{Error, Result, StartError};
pub use hosted::hosted;
pub use node::{Node, ShutdownReport};

#[doc(hidden)]
pub use edri_events::__private;

/// What most programs use.
pub mod prelude {
    pub use crate::{
        Accepted, Access, Api, App, Body, Bus, Connector, Context, Entry, Envelope, Failure, Handle, HandleAny,
        HandleConcurrent, History, Http, HttpPart, Manager, Namespace, Node, Options, Overflow, Pages, Permissions,
        Placement, PublishError, RequestError, Restart, Retry, Scheduler, Store, TunnelError, Value, Worker, data,
        event,
    };
}

/// The code in the README and the guide compiles and does what they say.
#[cfg(doctest)]
mod texts {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/guide.md")]
    struct Guide;
}
