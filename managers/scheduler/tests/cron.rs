//! Cron expressions against two implementations of others: the crate `croner`, and a matcher here that goes through the
//! calendar minute by minute and knows of a time zone only which offset it has at which moment.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::{LazyLock, Mutex};

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use edri_scheduler::Cron;
use proptest::prelude::*;

/// With daylight saving in either hemisphere, by half an hour (Lord Howe), none, at midnight (Havana, Beirut), and around Ramadan.
const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Havana",
    "Africa/Casablanca",
    "Asia/Beirut",
    "America/Santiago",
];
const FIRST_YEAR: i32 = 2018;
const YEARS: i32 = 10;

fn begin() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(FIRST_YEAR, 1, 1, 0, 0, 0).unwrap()
}

fn end() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(FIRST_YEAR + YEARS, 1, 1, 0, 0, 0).unwrap()
}

/// The runs of an expression within the ten years.
fn ours(expression: &str, zone: Tz) -> Vec<DateTime<Utc>> {
    let cron: Cron = expression.parse().unwrap_or_else(|error| panic!("{error}"));
    let mut runs = Vec::new();
    let mut at = begin() - TimeDelta::seconds(1);
    while let Some(next) = cron.next_after(at, zone).filter(|next| *next < end()) {
        assert!(next > at, "{expression} in {zone}: {next} after {at}");
        runs.push(next);
        at = next;
    }
    runs
}

// ---- the model -------------------------------------------------------------------------------------------------------------

/// A field as the set of its values; `None` is `*`.
type Field = Option<BTreeSet<u32>>;

#[derive(Debug, Clone)]
struct Fields {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

fn holds(field: &Field, value: u32) -> bool {
    field.as_ref().is_none_or(|set| set.contains(&value))
}

impl Fields {
    fn text(&self) -> String {
        let text = |field: &Field| match field {
            None => "*".to_owned(),
            Some(set) => set.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        let Self { minute, hour, day, month, weekday } = self;
        [minute, hour, day, month, weekday].map(text).join(" ")
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        let weekday = date.weekday().num_days_from_sunday();
        let by_weekday = holds(&self.weekday, weekday) || (weekday == 0 && holds(&self.weekday, 7));
        let by_day = holds(&self.day, date.day());
        holds(&self.month, date.month())
            && match (&self.day, &self.weekday) {
                (Some(_), Some(_)) => by_day || by_weekday,
                _ => by_day && by_weekday,
            }
    }

    fn times(&self, date: NaiveDate) -> impl Iterator<Item = NaiveDateTime> {
        let on = self.has_day(date);
        let minutes =
            (0..24 * 60).filter(move |minute| on && holds(&self.hour, minute / 60) && holds(&self.minute, minute % 60));
        minutes.filter_map(move |minute| date.and_hms_opt(minute / 60, minute % 60, 0))
    }

    fn is_hourly(&self) -> bool {
        (0..24).all(|hour| holds(&self.hour, hour))
    }

    /// The runs within the ten years, from a list of the moments at which the zone's offset changes.
    fn runs(&self, spans: &[Span]) -> Vec<DateTime<Utc>> {
        let mut runs = BTreeSet::new();
        let first = begin().date_naive() - TimeDelta::days(2);
        let days: Vec<_> = first.iter_days().take_while(|day| *day < end().date_naive() + TimeDelta::days(2)).collect();
        for time in days.into_iter().flat_map(|day| self.times(day)) {
            // Every moment at which the clocks of the zone show this time.
            let moments: Vec<_> = spans.iter().filter_map(|span| span.shows(time)).collect();
            match (self.is_hourly(), moments.first()) {
                (true, _) => runs.extend(moments),
                (false, Some(first)) => {
                    runs.insert(*first);
                }
                (false, None) => {
                    // The moment at which the clocks jumped over it.
                    let gap =
                        spans.windows(2).find(|pair| pair[1].from + pair[1].offset > time.and_utc()).expect("a gap");
                    runs.insert(gap[1].from);
                }
            }
        }
        runs.into_iter().filter(|run| (begin()..end()).contains(run)).collect()
    }
}

/// A time within which a zone has one offset.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    offset: TimeDelta,
}

impl Span {
    fn shows(&self, time: NaiveDateTime) -> Option<DateTime<Utc>> {
        let moment = time.and_utc() - self.offset;
        (self.from..self.until).contains(&moment).then_some(moment)
    }
}

/// The offsets of a zone, looked at every quarter of an hour, once.
fn spans(zone: Tz) -> Vec<Span> {
    static KNOWN: LazyLock<Mutex<HashMap<Tz, Vec<Span>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().expect("nobody panics with it");
    known.entry(zone).or_insert_with(|| find_spans(zone)).clone()
}

fn find_spans(zone: Tz) -> Vec<Span> {
    let offset = |at: DateTime<Utc>| {
        TimeDelta::seconds(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc().into())
    };
    let (mut at, last) = (begin() - TimeDelta::days(5), end() + TimeDelta::days(5));
    let mut spans = vec![Span { from: at, until: last, offset: offset(at) }];
    while at < last {
        let current = spans.last_mut().expect("one");
        if offset(at) != current.offset {
            current.until = at;
            spans.push(Span { from: at, until: last, offset: offset(at) });
        }
        at += TimeDelta::minutes(15);
    }
    spans
}

fn check(fields: &Fields, zone: &str) {
    let zone = Tz::from_str(zone).expect("a zone");
    let (found, expected) = (ours(&fields.text(), zone), fields.runs(&spans(zone)));
    if let Some((index, (found, expected))) =
        found.iter().zip(&expected).enumerate().find(|(_, (found, expected))| found != expected)
    {
        panic!("`{}` in {zone}: run {index} is {found}, not {expected}", fields.text());
    }
    assert_eq!(found.len(), expected.len(), "`{}` in {zone}", fields.text());
}

fn field(least: u32, most: u32, values: usize) -> impl Strategy<Value = Field> {
    prop_oneof![
        1 => Just(None),
        2 => proptest::collection::btree_set(least..=most, 1..=values).prop_map(Some),
    ]
}

prop_compose! {
    fn fields()(
        // Few minutes, or ten years of them take their time.
        minute in proptest::collection::btree_set(0_u32..60, 1..4),
        hour in prop_oneof![
            2 => field(0, 23, 5),
            // Where zones change their clocks.
            2 => proptest::collection::btree_set(prop_oneof![Just(0_u32), Just(1), Just(2), Just(3), Just(23)], 1..4).prop_map(Some),
        ],
        day in field(1, 31, 4),
        month in field(1, 12, 6),
        weekday in field(0, 7, 3),
    ) -> Fields {
        Fields { minute: Some(minute), hour, day, month, weekday }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ten_years_in_eight_time_zones_are_those_of_a_calendar_gone_through_by_the_minute(fields in fields(), zone in 0..ZONES.len()) {
        check(&fields, ZONES[zone]);
    }

    #[test]
    fn no_text_panics(text in "[-0-9*/,?@ A-Za-z]{0,24}|([0-9*/,?-]{1,6} ){4,7}") {
        if let Ok(cron) = text.parse::<Cron>() {
            let _ = cron.next_after(begin(), Tz::Europe__Berlin);
        }
    }
}

#[test]
fn every_minute_and_every_hour_go_through_gaps_and_overlaps_of_all_zones() {
    for zone in ZONES {
        // In the months in which clocks change somewhere.
        let month = Some([3, 4, 9, 10, 11].into());
        let every = |minute: Field| Fields { minute, hour: None, day: None, month: month.clone(), weekday: None };
        check(&every(Some([0, 30].into())), zone);
        // Twice a day where the clocks change.
        let night = Fields { hour: Some([0, 2].into()), ..every(Some([0, 15].into())) };
        check(&night, zone);
    }
}

// ---- croner ----------------------------------------------------------------------------------------------------------------

#[test]
fn ten_years_are_those_of_another_implementation() {
    let expressions = [
        "0 0 1 1 *",
        "*/30 6-18/4 * * *",
        "30 4 1,15 * 5",
        "0 12 * * 0",
        "0 12 * * 7",
        "5-55/25 */6 * * MON-FRI",
        "0 0 29 2 *",
        "0 0 31 * *",
        "59 23 * DEC SUN",
        "0 22 * JAN,mar,Jul 1-5",
        "15 3 13 * 5",
        "0 0 1-7 * 1",
        "1-3,7,50-58/4 0 * * *",
    ];
    for zone in ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca"]
    {
        let zone = Tz::from_str(zone).expect("a zone");
        let changes = spans(zone);
        // What is done about gaps and overlaps is each implementation's own; the days beside them are not.
        let is_near = |time: &DateTime<Utc>| changes.iter().any(|span| (*time - span.from).abs() < TimeDelta::days(1));
        for expression in expressions {
            let theirs = croner::Cron::from_str(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
            let from = (begin() - TimeDelta::seconds(1)).with_timezone(&zone);
            let theirs = theirs.iter_after(from).map(|time| time.with_timezone(&Utc)).take_while(|time| *time < end());
            let theirs: Vec<_> = theirs.filter(|time| !is_near(time)).collect();
            let ours: Vec<_> = ours(expression, zone).into_iter().filter(|time| !is_near(time)).collect();
            assert_eq!(ours.len(), theirs.len(), "{expression} in {zone}");
            assert_eq!(ours, theirs, "{expression} in {zone}");
        }
    }
}

// ---- what is written down --------------------------------------------------------------------------------------------------

fn first(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let zone = Tz::from_str(zone).expect("a zone");
    let cron: Cron = expression.parse().expect("an expression");
    let mut at: DateTime<Utc> = after.parse().expect("a time");
    let mut runs = Vec::new();
    for _ in 0..count {
        at = cron.next_after(at, zone).expect("there is one");
        let local = at.with_timezone(&zone);
        runs.push(format!("{:02}T{:02}:{:02}{}", local.day(), local.hour(), local.minute(), local.offset().fix()));
    }
    runs
}

#[test]
fn a_time_in_a_gap_runs_at_its_end_once() {
    // On 29 March 2026 the clocks of Berlin jump from 2:00 to 3:00.
    let runs = first("0,30 2 * * *", "Europe/Berlin", "2026-03-28T02:00:00Z", 3);
    assert_eq!(runs, ["29T03:00+02:00", "30T02:00+02:00", "30T02:30+02:00"]);
    // What is due at its end anyway is no second run.
    let runs = first("30 2,3 * * *", "Europe/Berlin", "2026-03-28T03:00:00Z", 3);
    assert_eq!(runs, ["29T03:00+02:00", "29T03:30+02:00", "30T02:30+02:00"]);
}

#[test]
fn a_time_that_comes_twice_runs_the_first_time() {
    // On 25 October 2026 they go back from 3:00 to 2:00.
    let runs = first("30 2 * * *", "Europe/Berlin", "2026-10-24T02:00:00Z", 2);
    assert_eq!(runs, ["25T02:30+02:00", "26T02:30+01:00"]);
}

#[test]
fn what_runs_every_hour_follows_the_time_that_passes() {
    let runs = first("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3);
    assert_eq!(runs, ["29T01:30+01:00", "29T03:30+02:00", "29T04:30+02:00"]);
    let runs = first("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 3);
    assert_eq!(runs, ["25T02:30+02:00", "25T02:30+01:00", "25T03:30+01:00"]);
}

#[test]
fn nicknames_are_their_expressions() {
    for (nickname, expression) in [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ] {
        assert_eq!(ours(nickname, Tz::UTC), ours(expression, Tz::UTC), "{nickname}");
    }
}

#[test]
fn six_and_seven_fields_are_those_of_the_crate() {
    // Its weekdays count from 1 = Sunday.
    let runs = first("0 0 12 * * 1", "UTC", "2026-01-01T00:00:00Z", 1);
    assert_eq!(runs, ["04T12:00+00:00"]);
    // Its two day fields must both agree.
    let runs = first("0 0 12 13 * FRI", "UTC", "2026-01-01T00:00:00Z", 1);
    assert_eq!(runs, ["13T12:00+00:00"]);
    let cron: Cron = "*/10 * * * * * 2027".parse().expect("an expression");
    let next = cron.next_after("2026-01-01T00:00:00Z".parse().expect("a time"), Tz::UTC).expect("there is one");
    assert_eq!((next.year(), next.second()), (2027, 0));
}

#[test]
fn an_expression_that_is_none_is_refused_with_what_is_wrong_and_what_may_stand_there() {
    for (expression, wrong) in [
        ("60 * * * *", "minute: 60 is not within 0 to 59"),
        ("* 24 * * *", "hour: 24 is not within 0 to 23"),
        ("* * 0 * *", "day of the month: 0 is not within 1 to 31"),
        (
            "* * * JANUARY *",
            "month: `JANUARY` is neither a number from 1 to 12, a name from JAN to DEC, a range, a list, nor `*`",
        ),
        ("* * * * 8", "day of the week: 8 is not within 0 to 7"),
        ("* * * * FRI-MON", "day of the week: `FRI-MON` runs backwards: write `FRI-6,0-MON`"),
        ("5/15 * * * *", "minute: `5/15` has a step without a range: write `5-59/15`"),
        ("*/0 * * * *", "minute: `0` is no step: a number from 1 on"),
        ("+1 * * * *", "minute: `+1` is neither a number from 0 to 59, a range, a list, nor `*`"),
        ("1,,2 * * * *", "minute: `` is neither a number from 0 to 59, a range, a list, nor `*`"),
        ("* * * *", "it has 4 fields: 5 are `minute hour day month weekday`, 6 begin with seconds, 7 end with a year"),
        ("", "it has 0 fields: 5 are `minute hour day month weekday`, 6 begin with seconds, 7 end with a year"),
        ("@reboot", "`@reboot` is no time: do it in `started` of a worker, or `after` a delay"),
        ("@often", "the nicknames are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly"),
        ("0 99 * * * *", "minute: `99` is not understood (six and seven fields count weekdays from 1 = SUN)"),
    ] {
        let error = expression.parse::<Cron>().expect_err(expression).to_string();
        assert_eq!(error, format!("cron expression `{expression}`: {wrong}"));
    }
    assert!("* ".repeat(500).parse::<Cron>().is_err());
}

#[test]
fn a_date_that_never_comes_has_no_next_run() {
    let cron: Cron = "0 0 30 2 *".parse().expect("an expression");
    assert_eq!(cron.next_after(begin(), Tz::Europe__Berlin), None);
}
