//! Scenarios that cross crates: each module holds promises of `docs/SEMANTICS.md`, each test is named after its own.

mod compile_fail;
mod order;
mod quakes;
mod requests;
mod running;
mod start;
mod stop;
mod supervision;
mod support;
mod waiting;
