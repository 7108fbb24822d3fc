//! The schedule on virtual time, also beside a model that looks at every entry at every step.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Before, Begun, Outcome, Refused, Run, Schedule};
use crate::limits::FINISHED_MAX;
use crate::plan::{Now, Plan};
use crate::{Entry, Missed, Overlap, When};

const MS: i64 = 1000;
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// 2026-03-28T12:00:00Z, a day before the clocks change in Berlin.
const NOON: i64 = 1_774_699_200 * SECOND;

fn now(steady: i64) -> Now {
    Now { wall: NOON + steady, steady }
}

fn entry(when: When) -> Entry {
    Entry::publish(when, "test.noted", &())
}

fn ask(when: When) -> Entry {
    Entry::request(when, "test.asked", &())
}

fn add(schedule: &mut Schedule, id: &str, entry: &Entry, now: Now) -> Result<bool, Refused> {
    let plan = Plan::of(entry).unwrap_or_else(|error| panic!("{error}"));
    schedule.add(id, Arc::new(entry.clone()), plan, None, now)
}

fn schedule(entries: &[(&str, Entry)], now: Now) -> Schedule {
    let mut schedule = Schedule::new(10_000, 7);
    for (id, entry) in entries {
        add(&mut schedule, id, entry, now).expect("it is added");
    }
    schedule
}

/// Everything that is due, ended at once: ids and due times.
fn take(schedule: &mut Schedule, now: Now) -> Vec<(String, i64)> {
    let mut runs = Vec::new();
    while let Some((_, run)) = schedule.pop(now) {
        let Some(run) = run else { continue };
        runs.push((run.id.to_string(), run.due));
        assert!(schedule.ended(run.slot, run.generation, run.due, Outcome::Done, now).is_none());
    }
    runs
}

fn dues(schedule: &mut Schedule, now: Now) -> Vec<i64> {
    take(schedule, now).into_iter().map(|(_, due)| due).collect()
}

#[test]
fn what_is_due_comes_in_its_order_and_not_before() {
    let mut schedule = schedule(
        &[("c", entry(When::AfterMs(300))), ("a", entry(When::AfterMs(100))), ("b", entry(When::AfterMs(200)))],
        now(0),
    );
    assert_eq!(schedule.wait(now(0)), Some(100 * MS));
    assert_eq!(take(&mut schedule, now(99 * MS)), []);
    assert_eq!(take(&mut schedule, now(100 * MS)), [("a".into(), NOON + 100 * MS)]);
    let ids: Vec<_> = take(&mut schedule, now(SECOND)).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["b", "c"]);
    assert_eq!((schedule.wait(now(SECOND)), schedule.len()), (None, 0));
}

#[test]
fn an_interval_keeps_its_rate_however_late_its_runs_are() {
    let mut schedule = schedule(&[("it", entry(When::EveryMs(100)))], now(0));
    assert_eq!(dues(&mut schedule, now(137 * MS)), [NOON + 100 * MS]);
    assert_eq!(dues(&mut schedule, now(200 * MS)), [NOON + 200 * MS]);
    // Of several that are late at once the newest stands for all.
    assert_eq!(dues(&mut schedule, now(555 * MS)), [NOON + 500 * MS]);
    assert_eq!(schedule.get("it").expect("it is there").tally.missed, 2);
    assert_eq!(dues(&mut schedule, now(600 * MS)), [NOON + 600 * MS]);
}

#[test]
fn an_aligned_interval_is_due_at_its_multiples() {
    let mut schedule = schedule(&[("it", entry(When::AlignedMs(900_000)))], Now { wall: NOON + 1, steady: 0 });
    let due = NOON + 900 * SECOND;
    assert_eq!(dues(&mut schedule, Now { wall: due - 1, steady: 0 }), [0_i64; 0]);
    assert_eq!(dues(&mut schedule, Now { wall: due, steady: 0 }), [due]);
}

#[test]
fn a_clock_set_forwards_is_missed_runs_for_what_goes_by_it_and_nothing_for_the_rest() {
    let hourly = |missed| entry(When::Cron("0 * * * *".into())).missed(missed);
    let mut schedule = schedule(
        &[
            ("skip", hourly(Missed::Skip)),
            ("once", hourly(Missed::Once)),
            ("all", hourly(Missed::All(3))),
            ("steady", entry(When::EveryMs(3_600_000))),
        ],
        now(0),
    );
    // Five and a half hours ahead within a second.
    let jumped = Now { wall: NOON + 5 * 3600 * SECOND + 1800 * SECOND, steady: SECOND };
    let mut runs = take(&mut schedule, jumped);
    runs.sort();
    let at = |hour: i64| NOON + hour * 3600 * SECOND;
    let expected = [("all", at(3)), ("all", at(4)), ("all", at(5)), ("once", at(5))];
    assert_eq!(runs, expected.map(|(id, due)| (id.to_owned(), due)));
    let missed = |id: &str| schedule.get(id).expect("it is there").tally.missed;
    assert_eq!((missed("skip"), missed("once"), missed("all"), missed("steady")), (5, 4, 2, 0));
    // On the hour all go on.
    assert_eq!(take(&mut schedule, Now { wall: at(6), steady: 2 * SECOND }).len(), 3);
}

#[test]
fn a_run_that_is_a_few_seconds_late_is_not_missed() {
    let mut schedule = schedule(&[("it", entry(When::Cron("0 * * * *".into())).missed(Missed::Skip))], now(0));
    let due = NOON + 3600 * SECOND;
    assert_eq!(dues(&mut schedule, Now { wall: due + 10 * SECOND, steady: 0 }), [due]);
    let next = due + 3600 * SECOND;
    assert_eq!(dues(&mut schedule, Now { wall: next + 10 * SECOND + 1, steady: 0 }), [0; 0]);
}

#[test]
fn a_clock_set_back_sends_nothing_twice() {
    let mut schedule = schedule(
        &[("wall", entry(When::Cron("*/10 * * * *".into()))), ("steady", entry(When::EveryMs(600_000)))],
        now(0),
    );
    let ten = 600 * SECOND;
    assert_eq!(take(&mut schedule, now(ten)).len(), 2);
    // An hour back: what goes by the clock waits until it shows a time that was not yet.
    let back = |steady: i64| Now { wall: NOON + steady - 3600 * SECOND, steady };
    let runs = (1..=7).flat_map(|step| take(&mut schedule, back(ten + step * ten))).collect::<Vec<_>>();
    let by = |id: &str| runs.iter().filter(|(run, _)| run == id).map(|(_, due)| *due).collect::<Vec<_>>();
    assert_eq!(by("wall"), [NOON + 2 * ten]);
    assert_eq!(by("steady").len(), 7);
}

#[test]
fn an_entry_ends_with_its_count_or_its_end_and_begins_with_its_start() {
    let time = |micros: i64| crate::send::time_text(micros);
    let mut counted = entry(When::EveryMs(1000));
    counted.count = Some(2);
    let mut between = entry(When::AlignedMs(1000));
    (between.start, between.end) = (Some(time(NOON + 3 * SECOND)), Some(time(NOON + 4 * SECOND)));
    let mut later = entry(When::EveryMs(1500));
    later.start = Some(time(NOON + 2 * SECOND));
    let mut schedule = schedule(&[("counted", counted), ("between", between), ("later", later)], now(0));
    let mut runs = BTreeMap::<String, Vec<i64>>::new();
    for step in 1..=60 {
        for (id, due) in take(&mut schedule, now(step * 100 * MS)) {
            runs.entry(id).or_default().push((due - NOON) / MS);
        }
    }
    assert_eq!(runs["counted"], [1000, 2000]);
    assert_eq!(runs["between"], [3000, 4000]);
    assert_eq!(runs["later"], [2000, 3500, 5000]);
    assert_eq!(schedule.len(), 1, "what has ended is gone");
}

#[test]
fn a_jitter_delays_the_runs_and_not_the_due_times() {
    let jittered = entry(When::EveryMs(1000)).jitter(std::time::Duration::from_millis(500));
    let mut schedule = schedule(&[("it", jittered)], now(0));
    let mut delays = Vec::new();
    for step in 0..20_000 {
        for (_, due) in take(&mut schedule, now(step * MS)) {
            assert_eq!((due - NOON) % SECOND, 0);
            delays.push((NOON + step * MS - due) / MS);
        }
    }
    assert_eq!(delays.len(), 19);
    assert!(delays.iter().all(|delay| (0..=501).contains(delay)), "{delays:?}");
    assert!(delays.iter().max() > delays.iter().min(), "{delays:?}");
}

fn begun(schedule: &mut Schedule, id: &str) -> Option<Run> {
    match schedule.run_now(id, now(0)).expect("it is there") {
        Begun::Run(run) => Some(run),
        Begun::Queued | Begun::Skipped => None,
    }
}

#[test]
fn what_overlaps_is_skipped_queued_or_runs_beside() {
    let mut schedule = schedule(
        &[
            ("skip", ask(When::EveryMs(1000))),
            ("queue", ask(When::EveryMs(1000)).overlap(Overlap::Queue)),
            ("beside", ask(When::EveryMs(1000)).overlap(Overlap::Beside(2))),
        ],
        now(0),
    );
    let mut running = Vec::new();
    for second in 1..=4 {
        while let Some((_, run)) = schedule.pop(now(second * SECOND)) {
            running.extend(run);
        }
    }
    let of = |id: &str| running.iter().filter(|run| &*run.id == id).count();
    assert_eq!((of("skip"), of("queue"), of("beside")), (1, 1, 2));
    let skipped = |id: &str| schedule.get(id).expect("it is there").tally.skipped;
    assert_eq!((skipped("skip"), skipped("queue"), skipped("beside")), (3, 2, 2));
    let first = running.iter().find(|run| &*run.id == "queue").expect("it runs").clone();
    let next =
        schedule.ended(first.slot, first.generation, first.due, Outcome::Done, now(4 * SECOND)).expect("it waited");
    assert_eq!(next.due, NOON + 2 * SECOND);
    assert!(schedule.ended(next.slot, next.generation, next.due, Outcome::Done, now(4 * SECOND)).is_none());
}

#[test]
fn an_entry_that_takes_the_place_of_another_begins_anew_and_the_end_of_an_old_run_is_none_of_its() {
    let mut schedule = schedule(&[("it", ask(When::EveryMs(1000)))], now(0));
    let old = begun(&mut schedule, "it").expect("it runs");
    assert_eq!(add(&mut schedule, "it", &ask(When::EveryMs(5000)), now(0)), Ok(true));
    assert_eq!(schedule.wait(now(0)), Some(5 * SECOND));
    let new = begun(&mut schedule, "it").expect("the old run is not in its way");
    assert!(schedule.ended(old.slot, old.generation, old.due, Outcome::Done, now(0)).is_none());
    assert_eq!(schedule.get("it").expect("it is there").running(), 1);
    schedule.ended(new.slot, new.generation, new.due, Outcome::Done, now(0));
    assert_eq!(schedule.get("it").expect("it is there").running(), 0);
}

#[test]
fn a_paused_entry_is_not_due_and_goes_on_in_its_rate() {
    let mut schedule = schedule(&[("it", entry(When::EveryMs(1000))), ("once", entry(When::AfterMs(1500)))], now(0));
    assert!(schedule.pause("it") && schedule.pause("once"));
    assert_eq!((schedule.wait(now(0)), take(&mut schedule, now(10_500 * MS))), (None, vec![]));
    assert!(schedule.resume("it", now(10_500 * MS)) && schedule.resume("once", now(10_500 * MS)));
    // What is sent only once was missed; of what repeats nothing was.
    assert_eq!(take(&mut schedule, now(10_500 * MS)), [("once".into(), NOON + 1500 * MS)]);
    assert_eq!(take(&mut schedule, now(11 * SECOND)), [("it".into(), NOON + 11 * SECOND)]);
}

#[test]
fn an_entry_that_was_kept_goes_on_where_it_was_with_what_it_missed() {
    let hourly = entry(When::Cron("0 * * * *".into()));
    let every = entry(When::EveryMs(60_000));
    let mut schedule = Schedule::new(10, 7);
    let later = Now { wall: NOON + DAY + 1800 * SECOND, steady: 0 };
    let before = |due: i64| Some(Before { due: Some(due), ..Before::default() });
    let plan = |entry: &Entry| Plan::of(entry).expect("an entry");
    schedule
        .add("hourly", Arc::new(hourly.clone()), plan(&hourly), before(NOON + 3600 * SECOND), later)
        .expect("added");
    schedule.add("every", Arc::new(every.clone()), plan(&every), before(NOON + 30 * SECOND), later).expect("added");
    let mut runs = take(&mut schedule, later);
    runs.sort();
    assert_eq!(runs[0].0, "every");
    assert_eq!(runs[1], ("hourly".to_owned(), NOON + DAY));
    assert_eq!(runs.len(), 2);
    assert_eq!(schedule.get("hourly").expect("it is there").tally.missed, 23);
    // A clock that was set back meanwhile makes nobody wait for longer than its interval.
    schedule.add("every", Arc::new(every.clone()), plan(&every), before(NOON + 2 * DAY), later).expect("added");
    assert_eq!(schedule.wait(later).map(|wait| wait <= 60 * SECOND), Some(true));
}

#[test]
fn of_an_entry_that_was_missed_for_years_little_is_gone_through() {
    let secondly = |missed| entry(When::Cron("* * * * * *".into())).missed(missed);
    let mut schedule = schedule(&[("once", secondly(Missed::Once)), ("all", secondly(Missed::All(1000)))], now(0));
    let later = Now { wall: NOON + 3 * 365 * DAY, steady: 0 };
    let began = std::time::Instant::now();
    let runs = take(&mut schedule, later);
    assert_eq!(runs.len(), 1001);
    assert!(runs.iter().all(|(_, due)| later.wall - due < 1000 * SECOND));
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn results_of_entries_that_have_ended_are_kept_for_some_and_not_for_ever() {
    let mut schedule = Schedule::new(100_000, 7);
    for number in 0..FINISHED_MAX + 10 {
        let id = format!("{number:05}");
        add(&mut schedule, &id, &ask(When::AfterMs(1)), now(0)).expect("added");
    }
    while let Some((_, run)) = schedule.pop(now(SECOND)) {
        let run = run.expect("it runs");
        let kept = Outcome::Kept(crate::Payload::default());
        schedule.ended(run.slot, run.generation, run.due, kept, now(SECOND));
    }
    assert_eq!(schedule.len(), FINISHED_MAX);
    assert!(schedule.get("00000").is_none() && schedule.get("00010").is_some());
}

#[test]
fn a_million_entries_come_and_go_in_any_order() {
    const ENTRIES: u64 = 1_000_000;
    let mut schedule = Schedule::new(ENTRIES as usize, 7);
    let (entry, mut dice) = (Arc::new(entry(When::EveryMs(1_000_000))), fastrand::Rng::with_seed(7));
    let plan = Plan::of(&entry).expect("an entry");
    let mut ids: Vec<_> = (0..ENTRIES).collect();
    for id in &ids {
        // One is due in each millisecond.
        let at = now(*id as i64 * MS);
        schedule.add(&id.to_string(), Arc::clone(&entry), plan.clone(), None, at).expect("it is added");
    }
    for step in 0..1000 {
        let due = take(&mut schedule, now((1_000_000 + step) * MS));
        assert_eq!(due, [(step.to_string(), NOON + (1_000_000 + step) * MS)]);
    }
    dice.shuffle(&mut ids);
    assert!(ids.iter().all(|id| schedule.cancel(&id.to_string())));
    assert_eq!((schedule.len(), schedule.wait(now(0))), (0, None));
}

// ---- the model -------------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Add {
        id: usize,
        kind: u8,
        span: i64,
        missed: Missed,
        count: Option<u64>,
    },
    Cancel(usize),
    /// Both clocks go on.
    Pass(i64),
    /// The system's clock is set.
    Set(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let missed = prop_oneof![Just(Missed::Skip), Just(Missed::Once), (1_u32..6).prop_map(Missed::All)];
    let count = prop_oneof![3 => Just(None), 1 => (1_u64..6).prop_map(Some)];
    let step = prop_oneof![
        4 => (0_usize..6, 0_u8..4, 1_i64..20_000, missed, count)
            .prop_map(|(id, kind, span, missed, count)| Step::Add { id, kind, span, missed, count }),
        1 => (0_usize..6).prop_map(Step::Cancel),
        6 => (1_i64..15_000).prop_map(Step::Pass),
        2 => (1_i64..60_000).prop_map(Step::Pass),
        1 => (-60_000_i64..60_000).prop_map(Step::Set),
    ];
    proptest::collection::vec(step, 1..60)
}

struct Modelled {
    due: i64,
    every: Option<i64>,
    by_wall: bool,
    missed: Missed,
    left: Option<u64>,
}

impl Modelled {
    /// The due times to be sent now; whether it has ended.
    fn take(&mut self, now: Now) -> (Vec<i64>, bool) {
        let instant = if self.by_wall { now.wall } else { now.steady };
        let mut passed = Vec::new();
        while self.due <= instant {
            passed.push(self.due);
            match self.every {
                Some(every) => self.due += every,
                None => break,
            }
        }
        let once = self.every.is_none() && !passed.is_empty();
        let newest = passed.last().copied();
        let mut chosen = match self.missed {
            Missed::Skip => newest.into_iter().filter(|due| instant - due <= 10 * SECOND).collect(),
            Missed::Once => newest.into_iter().collect(),
            Missed::All(most) => passed.split_off(passed.len().saturating_sub(most as usize)),
        };
        if let Some(left) = &mut self.left {
            chosen.truncate(*left as usize);
            *left -= chosen.len() as u64;
        }
        (chosen, once || self.left == Some(0))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_and_goes_and_however_the_clock_is_set_the_runs_are_those_of_a_model(steps in steps()) {
        let (mut schedule, mut model) = (Schedule::new(100, 7), BTreeMap::<String, Modelled>::new());
        let mut time = now(0);
        for step in steps {
            match step {
                Step::Add { id, kind, span, missed, count } => {
                    let (id, micros) = (id.to_string(), span * MS);
                    let count = count.filter(|_| kind >= 2);
                    let (when, due, every, by_wall) = match kind {
                        0 => (When::AfterMs(span as u64), time.steady + micros, None, false),
                        1 => (When::At(crate::send::time_text((time.wall / MS + span) * MS)), (time.wall / MS + span) * MS, None, true),
                        2 => (When::EveryMs(span as u64), time.steady + micros, Some(micros), false),
                        _ => (When::AlignedMs(span as u64), (time.wall / micros + 1) * micros, Some(micros), true),
                    };
                    let entry = Entry { count, ..entry(when).missed(missed) };
                    add(&mut schedule, &id, &entry, time).expect("it is added");
                    model.insert(id, Modelled { due, every, by_wall, missed, left: count });
                }
                Step::Cancel(id) => {
                    let id = id.to_string();
                    prop_assert_eq!(schedule.cancel(&id), model.remove(&id).is_some());
                }
                Step::Pass(by) => {
                    time = Now { wall: time.wall + by * MS, steady: time.steady + by * MS };
                }
                Step::Set(by) => time.wall += by * MS,
            }
            let mut runs = take(&mut schedule, time);
            runs.sort();
            let mut expected = Vec::new();
            model.retain(|id, entry| {
                let (dues, ended) = entry.take(time);
                let by_wall = entry.by_wall;
                let offset = if by_wall { 0 } else { time.wall - time.steady };
                expected.extend(dues.into_iter().map(|due| (id.clone(), due + offset)));
                !ended
            });
            prop_assert_eq!(runs, expected);
            prop_assert_eq!(schedule.len(), model.len());
        }
        for id in 0..6 {
            schedule.cancel(&id.to_string());
        }
        prop_assert_eq!((schedule.len(), schedule.wait(time)), (0, None));
    }
}
