//! Cron expressions, and the times they name in a time zone. Pure: the time comes in as an argument.
//!
//! An expression of five fields means what POSIX says. The `cron` crate reads six and seven fields, counts weekdays from
//! 1 = Sunday and joins the two day fields by AND, so five fields are translated for it. It is only ever asked about local
//! times without a zone; where the hours of a zone repeat or are left out is decided here.

mod field;
mod local;

use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Utc};
use chrono_tz::Tz;
use cron::{Schedule, TimeUnitSpec};

use crate::limits::CRON_BYTES_MAX;
pub(crate) use local::gap_end;

use field::Field;

/// A cron expression that was understood.
///
/// ```
/// use chrono::{TimeZone, Utc};
/// use edri_scheduler::Cron;
///
/// let cron: Cron = "30 2 * * MON-FRI".parse()?;
/// let friday = Utc.with_ymd_and_hms(2026, 1, 2, 12, 0, 0).unwrap();
/// let next = cron.next_after(friday, chrono_tz::Europe::Berlin).unwrap();
/// assert_eq!(next, Utc.with_ymd_and_hms(2026, 1, 5, 1, 30, 0).unwrap());
///
/// let error = "61 * * * *".parse::<Cron>().unwrap_err();
/// assert_eq!(error.to_string(), "cron expression `61 * * * *`: minute: 61 is not within 0 to 59");
/// # Ok::<(), edri_scheduler::CronError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cron {
    source: Box<str>,
    /// A local time is named when one of these names it: two when both day fields are restricted.
    either: Vec<Schedule>,
    /// Whether it runs in every hour of its days, and so follows the time that passes rather than the clock on the wall.
    hourly: bool,
}

/// Why a text is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cron expression `{expression}`: {wrong}")]
pub struct CronError {
    expression: String,
    wrong: String,
}

impl Cron {
    /// The expression as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether an hour that is left out or comes twice does not matter: the expression names every hour of its days, so
    /// nothing is made up for in a gap, and an hour that comes twice has its runs twice.
    #[must_use]
    pub fn is_hourly(&self) -> bool {
        self.hourly
    }

    /// The first time after `after` that the expression names in `zone`; `None` when there is none until the year 2100.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        if self.hourly { local::next_by_elapsed(self, after, zone) } else { local::next_by_wall(self, after, zone) }
    }

    /// The first local time that is named after `after`, of a calendar without zones.
    fn next_local(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let after = after.and_utc();
        self.either.iter().filter_map(|schedule| schedule.after(&after).next()).min().map(|next| next.naive_utc())
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let shown = || text.chars().take(CRON_BYTES_MAX).collect();
        let fail = |wrong: String| CronError { expression: shown(), wrong };
        if text.len() > CRON_BYTES_MAX {
            return Err(fail(format!("it has {} bytes, and may have {CRON_BYTES_MAX}", text.len())));
        }
        let text = text.trim();
        if text.starts_with('@') {
            let fields = nicknamed(text).map_err(fail)?;
            return Self::of_five(text, fields).map_err(fail);
        }
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        match *fields {
            [minute, hour, day, month, weekday] => {
                Self::of_five(text, [minute, hour, day, month, weekday]).map_err(fail)
            }
            [_, _, _, _, _, _] | [_, _, _, _, _, _, _] => Self::of_crate(text, &fields).map_err(fail),
            _ => Err(fail(format!(
                "it has {} fields: 5 are `minute hour day month weekday`, 6 begin with seconds, 7 end with a year",
                fields.len()
            ))),
        }
    }
}

impl Cron {
    /// POSIX: minute, hour, day of the month, month, day of the week with 0 and 7 as Sunday; when both day fields are
    /// restricted either suffices.
    fn of_five(source: &str, [minute, hour, day, month, weekday]: [&str; 5]) -> Result<Self, String> {
        let minutes = Field::MINUTE.parse(minute)?;
        let hours = Field::HOUR.parse(hour)?;
        let days = Field::DAY.parse(day)?;
        let months = Field::MONTH.parse(month)?;
        let weekdays = Field::WEEKDAY.parse(weekday)?;
        // Both 0 and 7 are Sunday, which the crate calls 1.
        let weekdays = ((weekdays | (weekdays >> 7)) & 0x7f) << 1;
        let schedule = |days: &str, weekdays: &str| {
            let (minutes, hours) = (Field::MINUTE.list(minutes), Field::HOUR.list(hours));
            let months = Field::MONTH.list(months);
            Schedule::from_str(&format!("0 {minutes} {hours} {days} {months} {weekdays}"))
                .map_err(|error| error.to_string())
        };
        let (days, weekdays) = (Field::DAY.list(days), field::numbers(weekdays));
        let either = match (day, weekday) {
            ("*", "*") => vec![schedule("*", "*")?],
            ("*", _) => vec![schedule("*", &weekdays)?],
            (_, "*") => vec![schedule(&days, "*")?],
            _ => vec![schedule(&days, "*")?, schedule("*", &weekdays)?],
        };
        Ok(Self { source: source.into(), either, hourly: hours == Field::HOUR.all() })
    }

    /// Six or seven fields: what the crate says they mean.
    fn of_crate(source: &str, fields: &[&str]) -> Result<Self, String> {
        const NAMES: [&str; 7] = ["second", "minute", "hour", "day of the month", "month", "day of the week", "year"];
        let schedule = Schedule::from_str(source).map_err(|error| {
            // The crate says little of where; one field at a time among stars does.
            let wrong = (0..fields.len()).find(|&index| {
                let mut alone = vec!["*"; fields.len()];
                alone[index] = fields[index];
                Schedule::from_str(&alone.join(" ")).is_err()
            });
            match wrong {
                Some(index) => format!(
                    "{}: `{}` is not understood (six and seven fields count weekdays from 1 = SUN)",
                    NAMES[index], fields[index]
                ),
                None => error.to_string(),
            }
        })?;
        let hourly = schedule.hours().count() == 24;
        Ok(Self { source: source.into(), either: vec![schedule], hourly })
    }
}

fn nicknamed(text: &str) -> Result<[&'static str; 5], String> {
    match text {
        "@yearly" | "@annually" => Ok(["0", "0", "1", "1", "*"]),
        "@monthly" => Ok(["0", "0", "1", "*", "*"]),
        "@weekly" => Ok(["0", "0", "*", "*", "0"]),
        "@daily" | "@midnight" => Ok(["0", "0", "*", "*", "*"]),
        "@hourly" => Ok(["0", "*", "*", "*", "*"]),
        "@reboot" => Err("`@reboot` is no time: do it in `started` of a worker, or `after` a delay".to_owned()),
        _ => Err("the nicknames are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly".to_owned()),
    }
}
