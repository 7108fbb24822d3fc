//! Scenarios that cross crates: see `tests/main.rs`. Here is only what they share with the program they start.

pub mod chaos;
pub mod cluster;
pub mod keeper;
pub mod proxy;
pub mod tcp;
pub mod workers;
