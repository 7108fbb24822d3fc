//! Scenarios that cross crates. There is nothing here but tests: see `tests/main.rs`.
