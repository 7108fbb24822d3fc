//! Time-defined sending: a manager that sends notifications and requests at an instant, after a delay, every so often, or by a
//! cron expression.
//!
//! A [`Scheduler`] is put on a node as any other manager and answers the requests in [`event`], so it is used from any node and
//! any client. It promises that nothing is sent twice for one due time while its node lives, that what was missed is treated as
//! its entry says, and that no slow handler holds up what others have scheduled. The parts that know of time (cron expressions,
//! the entries and when they are due) are pure: the clocks are read in one place, the timer's task.
//!
//! It is written on the public interface of managers and workers; the router knows nothing of it, and it knows of a store only
//! the events by which anybody asks one.

mod cron;
mod entry;
pub mod event;
mod keep;
pub mod limits;
mod payload;
mod plan;
mod schedule;
mod scheduler;
mod send;
mod timer;

pub use cron::{Cron, CronError};
pub use entry::{Action, Ask, Claim, Entry, Missed, Overlap, Publish, Response, When};
pub use payload::Payload;
pub use plan::EntryError;
pub use scheduler::Scheduler;
