//! Every bound of a scheduler, in one place.

use std::time::Duration;

/// The most bytes of a cron expression.
pub const CRON_BYTES_MAX: usize = 256;
/// The most bytes of an entry's id.
pub const ID_BYTES_MAX: usize = 256;
/// The most bytes of an entry's payload.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// The most entries of a scheduler when nothing is said.
pub const ENTRIES_DEFAULT: usize = 2_000_000;
/// The most entries a scheduler may be allowed.
pub const ENTRIES_MAX: usize = 16_000_000;
/// The shortest interval.
pub const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// The longest interval, delay and jitter: 100 years.
pub const SPAN_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);
/// The most runs of one entry that are made up for at a time, whatever its policy allows.
pub const MADE_UP_MAX: u32 = 1000;
/// The most requests of one entry that run beside one another.
pub const BESIDE_MAX: u32 = 1000;
/// A run that is late by no more than this is late, and not missed.
pub const LATE_MAX: Duration = Duration::from_secs(10);
/// The most entries on a page of `schedule.list`.
pub const PAGE_MAX: u32 = 1000;
/// The most bytes of a response that is kept as an entry's last result.
pub const RESULT_BYTES_MAX: usize = 64 << 10;
/// The most entries that are kept after their last run, for their result.
pub const FINISHED_MAX: usize = 1024;
/// The most notifications that wait for room, and apart from these the most requests that wait for their response.
pub const SENDING_MAX: usize = 4096;
/// A run that needs a claim is not sent later than this.
pub const CLAIM_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// So long a scheduler waits for a claim.
pub const CLAIM_LIMIT: Duration = Duration::from_secs(10);
/// So long a claim is kept.
pub const CLAIM_KEPT: Duration = Duration::from_secs(48 * 3600);
/// How many namespaces of claims are kept at hand.
pub(crate) const NAMESPACES_MAX: usize = 256;
/// How many runs of a cron expression are looked through to count those that were missed.
pub(crate) const MISSED_COUNTED_MAX: usize = 10_000;
/// How often the system's clock is looked at for steps.
pub(crate) const CLOCK_LOOK: Duration = Duration::from_millis(500);
/// How far the system's clock may move against the monotonic one between two looks without being called a step.
pub(crate) const CLOCK_STEP_MIN: Duration = Duration::from_millis(250);
/// Between the timer and who talks to it, and between the timer and who sends.
pub(crate) const QUEUE: usize = 1024;

const _: () = assert!(FINISHED_MAX <= ENTRIES_DEFAULT && ENTRIES_DEFAULT <= ENTRIES_MAX);
const _: () = assert!(ENTRIES_MAX < u32::MAX as usize);
// By clocks that disagree by less than a day, no claim has expired while its run may still be sent.
const _: () = assert!(CLAIM_KEPT.as_secs() >= 2 * CLAIM_AGE_MAX.as_secs());
const _: () = assert!(CLOCK_LOOK.as_millis() < 1000);
