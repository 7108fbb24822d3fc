//! Scenarios that cross crates: each module holds promises of `docs/SEMANTICS.md`, each test is named after its own.

mod compile_fail;
mod support;
