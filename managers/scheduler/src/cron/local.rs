//! Local times and the moments they stand for.
//!
//! An expression that names every hour of its days ("hourly") follows the time that passes: its runs are the moments whose
//! local time is named, so in a gap there are none and an hour that comes twice has its runs twice. Any other follows the
//! clock on the wall, and each local time that it names is one run: one that the gap leaves out runs at the gap's end, one
//! that comes twice runs the first time.

use chrono::offset::LocalResult;
use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::Cron;

/// No offset changes twice within so long.
const CALM: TimeDelta = TimeDelta::hours(24);
/// A local time is at most so far from the same time in UTC, and a change of offset moves it by less again.
const FAR: TimeDelta = TimeDelta::hours(30);

fn offset(zone: Tz, at: DateTime<Utc>) -> TimeDelta {
    TimeDelta::seconds(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc().into())
}

/// The next run of an expression that follows the clock on the wall.
pub(super) fn next_by_wall(cron: &Cron, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
    let mut local = (after + offset(zone, after)).naive_utc();
    loop {
        local = cron.next_local(local)?;
        let moment = match zone.from_local_datetime(&local) {
            LocalResult::Single(moment) | LocalResult::Ambiguous(moment, _) => moment.with_timezone(&Utc),
            LocalResult::None => gap_end(zone, local),
        };
        // Not when it is of an hour that comes twice, whose first time is over, or of a gap whose end had its run.
        if moment > after {
            return Some(moment);
        }
    }
}

/// The end of the gap that leaves this local time out.
pub(crate) fn gap_end(zone: Tz, local: NaiveDateTime) -> DateTime<Utc> {
    let about = local.and_utc();
    change(zone, about - FAR, about + FAR)
}

/// The first moment after `from` with the offset of `until`, which is another than that of `from`.
fn change(zone: Tz, from: DateTime<Utc>, until: DateTime<Utc>) -> DateTime<Utc> {
    let before = offset(zone, from);
    let (mut low, mut high) = (from.timestamp(), until.timestamp());
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        match DateTime::from_timestamp(middle, 0) {
            Some(moment) if offset(zone, moment) == before => low = middle,
            _ => high = middle,
        }
    }
    DateTime::from_timestamp(high, 0).unwrap_or(until)
}

/// The next run of an expression that follows the time that passes.
pub(super) fn next_by_elapsed(cron: &Cron, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
    // Nothing is named up to here...
    let mut from = after;
    loop {
        let own = offset(zone, from);
        let local = cron.next_local((from + own).naive_utc())?;
        let moment = local.and_utc() - own;
        // ...nor up to here, as far as the offset stays what it is.
        let horizon = moment.min(from + CALM);
        if offset(zone, horizon) != own {
            let changed = change(zone, from, horizon);
            // The moment of the change may itself be named.
            let first = (changed + offset(zone, changed)).naive_utc();
            if cron.next_local(first - TimeDelta::seconds(1))? == first {
                return Some(changed);
            }
            from = changed;
            continue;
        }
        if moment == horizon {
            return Some(moment);
        }
        // Nothing for a day: on to shortly before it, by whatever offset is in force there.
        from = (moment - CALM * 2).max(horizon);
    }
}
