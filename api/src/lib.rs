//! The gateway of a node: browsers and services come in over HTTP, WebSocket and server-sent events.
//!
//! Everything is made from the event declarations: an event that says `expose` or `http = "..."`, or that the builder names,
//! can be reached; nothing else can. [`Api`] is the builder, [`Gateway`] what runs. Requests, notifications and tunnels go
//! through the same bus as those of workers, so they reach workers on any node.
//!
//! This crate promises that nothing from outside can panic the node, that every queue, body and count has a limit, and that
//! what a client waits for ends when the client does. It knows nothing of links between nodes.

mod access;
mod activity;
mod body;
mod border;
mod builder;
mod cache;
mod clients;
mod connections;
mod cors;
mod ending;
mod error;
mod exposed;
mod files;
mod forms;
mod front;
mod gateway;
mod hosts;
mod http;
mod limits;
mod metrics;
mod openapi;
mod pages;
mod problem;
mod proxies;
mod remote;
mod selection;
mod sessions;
mod sse;
mod tls;
mod websocket;

pub use access::{Access, AccessError, Caller, Jwt, KeysError, Permissions, Token, Verb};
pub use border::{Delivered, Incoming, Interceptor, Outgoing, Way};
pub use builder::Api;
pub use cors::{Cors, CorsError};
pub use error::ApiError;
pub use gateway::Gateway;
pub use limits::ApiLimits;
pub use pages::Pages;
pub use proxies::Proxies;
pub use remote::RemoteWorkers;
pub use sessions::Sessions;
pub use tls::{Tls, TlsError};
