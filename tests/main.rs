//! Scenarios that cross crates: each module holds promises of `docs/SEMANTICS.md`, each test is named after its own.

mod arrivals;
mod chaos;
mod cluster;
mod compile_fail;
mod envelopes;
mod foreign;
mod history;
mod interest;
mod nodes;
mod order;
mod processes;
mod python;
mod quakes;
mod remote;
mod requests;
mod running;
mod same;
mod scheduler;
mod start;
mod stop;
mod store;
mod subscriptions;
mod supervision;
mod support;
mod tunnels;
mod waiting;
