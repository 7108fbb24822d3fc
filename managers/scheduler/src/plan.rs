//! An entry that was checked: its times as numbers. Pure.
//!
//! Times are microseconds: on the system's clock since 1970 ("wall"), or on a clock that nobody sets ("steady").

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::offset::LocalResult;
use chrono::{DateTime, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;
use edri_events::EventName;

use crate::limits::{
    BESIDE_MAX, ID_BYTES_MAX, INTERVAL_MIN, LATE_MAX, MADE_UP_MAX, MISSED_COUNTED_MAX, PAYLOAD_BYTES_MAX, SPAN_MAX,
};
use crate::{Action, Cron, CronError, Entry, Missed, Overlap, Response, When};

/// Why an entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Its cron expression is none.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// Something else in it is wrong.
    #[error("{0}")]
    Wrong(String),
}

/// Which clock an entry goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    Wall,
    Steady,
}

/// What time it is, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) wall: i64,
    pub(crate) steady: i64,
}

impl Now {
    pub(crate) fn of(self, clock: Clock) -> i64 {
        match clock {
            Clock::Wall => self.wall,
            Clock::Steady => self.steady,
        }
    }

    /// What the system's clock shows, as far as is known now, when `clock` shows `time`.
    pub(crate) fn wall_at(self, clock: Clock, time: i64) -> i64 {
        match clock {
            Clock::Wall => time,
            Clock::Steady => time.saturating_add(self.wall.saturating_sub(self.steady)),
        }
    }
}

/// The times of an entry.
#[derive(Debug, Clone)]
pub(crate) enum Timing {
    At(i64),
    After(i64),
    Every(i64),
    Aligned(i64),
    Cron(Arc<Cron>, Tz),
}

/// An entry that was checked.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) timing: Timing,
    pub(crate) start: Option<i64>,
    pub(crate) end: Option<i64>,
    pub(crate) count: Option<u64>,
    pub(crate) jitter: i64,
    pub(crate) missed: Missed,
    pub(crate) overlap: Overlap,
}

impl Plan {
    /// Checks an entry.
    pub(crate) fn of(entry: &Entry) -> Result<Self, EntryError> {
        let refuse = |wrong: String| Err(EntryError::Wrong(wrong));
        if let Some(wrong) = &entry.wrong {
            return refuse(wrong.clone());
        }
        if let Some(id) = &entry.id {
            check_id(id)?;
        }
        check_action(&entry.send)?;
        let zone = match &entry.zone {
            Some(name) => Tz::from_str(name).map_err(|_| {
                EntryError::Wrong(format!("`{name}` is no time zone: write an IANA name as `Europe/Berlin` or `UTC`"))
            })?,
            None => Tz::UTC,
        };
        let timing = timing_of(&entry.when, zone)?;
        let is_once = matches!(timing, Timing::At(_) | Timing::After(_));
        if is_once && (entry.start.is_some() || entry.end.is_some() || entry.count.is_some()) {
            return refuse(
                "`start`, `end` and `count` are for what repeats: leave them out of `at` and `after_ms`".to_owned(),
            );
        }
        let uses_zone =
            matches!(timing, Timing::At(_) | Timing::Cron(..)) || entry.start.is_some() || entry.end.is_some();
        if entry.zone.is_some() && !uses_zone {
            return refuse(
                "`zone` says nothing of intervals and delays: leave it out, or use a cron expression".to_owned(),
            );
        }
        if entry.claim.is_some() && matches!(timing, Timing::After(_) | Timing::Every(_)) {
            let wrong = "`claim` needs due times that all nodes agree on: use `cron`, `aligned_ms` or `at`";
            return refuse(wrong.to_owned());
        }
        if let Some(claim) = &entry.claim {
            edri_store::event::check_namespace(&claim.namespace)
                .map_err(|error| EntryError::Wrong(format!("claim: {error}")))?;
        }
        if entry.count == Some(0) {
            return refuse("`count` is 0: an entry that is never sent is none".to_owned());
        }
        if let Missed::All(most) = entry.missed
            && !(1..=MADE_UP_MAX).contains(&most)
        {
            return refuse(format!("`missed`: all of {most}: write 1 to {MADE_UP_MAX}"));
        }
        let time = |text: &Option<String>| text.as_deref().map(|text| parse_time(text, zone)).transpose();
        let (start, end) = (time(&entry.start)?, time(&entry.end)?);
        if let (Some(start), Some(end)) = (start, end)
            && end < start
        {
            return refuse("`end` is before `start`".to_owned());
        }
        let overlap = match &entry.send {
            Action::Publish(_) => Overlap::Skip,
            Action::Request(ask) => ask.overlap,
        };
        let jitter = span("jitter_ms", entry.jitter_ms, Duration::ZERO)?;
        Ok(Self { timing, start, end, count: entry.count, jitter, missed: entry.missed, overlap })
    }

    pub(crate) fn clock(&self) -> Clock {
        match self.timing {
            Timing::At(_) | Timing::Aligned(_) | Timing::Cron(..) => Clock::Wall,
            Timing::After(_) | Timing::Every(_) => Clock::Steady,
        }
    }

    /// When an entry that is added now is due first, by its clock.
    pub(crate) fn first(&self, now: Now) -> Option<i64> {
        let due = match self.timing {
            Timing::At(time) => Some(time).filter(|time| *time >= now.wall.saturating_sub(LATE_MAX.as_micros() as i64)),
            Timing::After(delay) => Some(now.steady.saturating_add(delay)),
            Timing::Every(interval) => Some(match self.start {
                Some(start) => {
                    // At its start, or where it would be by now had it begun there.
                    let past = now.wall.saturating_sub(start);
                    let ahead = if past <= 0 { -past } else { interval - 1 - (past - 1).rem_euclid(interval) };
                    now.steady.saturating_add(ahead)
                }
                None => now.steady.saturating_add(interval),
            }),
            Timing::Aligned(_) | Timing::Cron(..) => {
                let from = self.start.map_or(now.wall, |start| now.wall.max(start.saturating_sub(1)));
                self.next(from)
            }
        };
        due.filter(|due| self.is_before_end(*due, now))
    }

    /// The due time after this one.
    pub(crate) fn following(&self, due: i64, now: Now) -> Option<i64> {
        self.next(due).filter(|due| self.is_before_end(*due, now))
    }

    fn is_before_end(&self, due: i64, now: Now) -> bool {
        self.end.is_none_or(|end| now.wall_at(self.clock(), due) <= end)
    }

    /// The due time after this one, whenever the entry ends.
    fn next(&self, due: i64) -> Option<i64> {
        match &self.timing {
            Timing::At(_) | Timing::After(_) => None,
            Timing::Every(interval) => due.checked_add(*interval),
            Timing::Aligned(interval) => due.checked_add(interval - due.rem_euclid(*interval)),
            Timing::Cron(cron, zone) => {
                let after = DateTime::<Utc>::from_timestamp_micros(due)?;
                cron.next_after(after, *zone).map(|next| next.timestamp_micros())
            }
        }
    }

    /// The due times from `due`, which is one, to `until`: the newest `keep` of them in order, and how many there are. Of a cron
    /// expression with very many not all are counted.
    pub(crate) fn due_until(&self, due: i64, until: i64, keep: usize, now: Now) -> (Vec<i64>, u64) {
        match self.timing {
            Timing::At(_) | Timing::After(_) => (vec![due], 1),
            Timing::Every(interval) | Timing::Aligned(interval) => {
                let mut last = due.saturating_add((until - due).max(0) / interval * interval);
                while last > due && !self.is_before_end(last, now) {
                    last -= interval;
                }
                let count = (last - due) / interval;
                let kept = count.min(keep as i64 - 1);
                ((0..=kept).rev().map(|back| last - back * interval).collect(), count as u64 + 1)
            }
            Timing::Cron(..) => self.due_by_cron(due, until, keep, now),
        }
    }

    fn due_by_cron(&self, due: i64, until: i64, keep: usize, now: Now) -> (Vec<i64>, u64) {
        const DAY: i64 = 86_400_000_000;
        let mut found = (vec![due], 1);
        // Of too many to go through, those of the last year, month, day, hour, minute.
        for window in [i64::MAX, 366 * DAY, 31 * DAY, DAY, DAY / 24, DAY / 1440] {
            let begin = until.saturating_sub(window).max(due);
            let first = if begin == due { Some(due) } else { self.following(begin, now) };
            let mut times = std::iter::successors(first, |due| self.following(*due, now));
            let mut kept = std::collections::VecDeque::with_capacity(keep.min(64));
            let mut count = 0;
            let mut ended = false;
            for _ in 0..MISSED_COUNTED_MAX {
                match times.next() {
                    Some(time) if time <= until => {
                        count += 1;
                        if kept.len() == keep {
                            kept.pop_front();
                        }
                        kept.push_back(time);
                    }
                    _ => {
                        ended = true;
                        break;
                    }
                }
            }
            if count > 0 {
                found = (kept.into(), count);
            }
            if ended {
                break;
            }
        }
        found
    }
}

pub(crate) fn check_id(id: &str) -> Result<(), EntryError> {
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
        let wrong = format!("an id has 1 to {ID_BYTES_MAX} bytes and no control characters");
        return Err(EntryError::Wrong(wrong));
    }
    Ok(())
}

fn check_action(action: &Action) -> Result<(), EntryError> {
    let name = |name: &str| match EventName::new(name) {
        Ok(_) => Ok(()),
        Err(error) => Err(EntryError::Wrong(error.to_string())),
    };
    name(action.event())?;
    let bytes = action.payload().len();
    if bytes > PAYLOAD_BYTES_MAX {
        return Err(EntryError::Wrong(format!("its payload has {bytes} bytes, and may have {PAYLOAD_BYTES_MAX}")));
    }
    if let Action::Request(ask) = action {
        if let Response::Publish(event) = &ask.response {
            name(event)?;
        }
        if let Overlap::Beside(most) = ask.overlap
            && !(1..=BESIDE_MAX).contains(&most)
        {
            return Err(EntryError::Wrong(format!("`overlap`: {most} beside one another: write 1 to {BESIDE_MAX}")));
        }
        if let Some(limit) = ask.timeout_ms {
            span("timeout_ms", limit, INTERVAL_MIN)?;
        }
    }
    Ok(())
}

fn timing_of(when: &When, zone: Tz) -> Result<Timing, EntryError> {
    Ok(match when {
        When::At(text) => Timing::At(parse_time(text, zone)?),
        When::AfterMs(delay) => Timing::After(span("after_ms", *delay, Duration::ZERO)?),
        When::EveryMs(interval) => Timing::Every(span("every_ms", *interval, INTERVAL_MIN)?),
        When::AlignedMs(interval) => Timing::Aligned(span("aligned_ms", *interval, INTERVAL_MIN)?),
        When::Cron(text) => Timing::Cron(Arc::new(text.parse()?), zone),
    })
}

/// Microseconds of so many milliseconds, if that is within bounds.
fn span(what: &str, milliseconds: u64, least: Duration) -> Result<i64, EntryError> {
    let span = Duration::from_millis(milliseconds);
    if span < least || span > SPAN_MAX {
        let (least, most) = (least.as_millis(), SPAN_MAX.as_millis());
        return Err(EntryError::Wrong(format!("`{what}` is {milliseconds}: write {least} to {most}")));
    }
    // A hundred years are 2^52 microseconds.
    Ok(span.as_micros() as i64)
}

/// A time with an offset, or as the clocks of a zone show it; a local time that a gap leaves out is the gap's end, one that comes
/// twice the first.
fn parse_time(text: &str, zone: Tz) -> Result<i64, EntryError> {
    let wrong = || {
        let shown: String = text.chars().take(64).collect();
        EntryError::Wrong(format!(
            "`{shown}` is no time from 1970 to 2199: write `2026-12-24T18:00:00Z`, or `2026-12-24T18:00` for the entry's zone"
        ))
    };
    let time = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.with_timezone(&Utc),
        Err(_) => {
            let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
            let local = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
            let local = local.filter(|local| is_near(local.and_utc())).ok_or_else(wrong)?;
            match zone.from_local_datetime(&local) {
                LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => time.with_timezone(&Utc),
                LocalResult::None => crate::cron::gap_end(zone, local),
            }
        }
    };
    if is_near(time) { Ok(time.timestamp_micros()) } else { Err(wrong()) }
}

fn is_near(time: DateTime<Utc>) -> bool {
    use chrono::Datelike;
    (1970..2200).contains(&time.year())
}
