//! Time-defined sending.
mod cron;
pub mod limits;
pub use cron::{Cron, CronError};
