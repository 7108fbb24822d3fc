//! Whole networks of engines under one seed: faults of every kind, virtual time, and a ledger that nobody who carries events
//! can write. `EDRI_SEED=N` runs one seed and tells what it did, `EDRI_SEEDS=N` so many fresh ones.

mod dice;
mod host;
mod hostile;
mod keyed;
mod ledger;
mod pair;
mod plan;
mod rest;
mod tunnels;
mod watch;
mod world;

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plan::Plan;
use world::World;

/// Seeds that every run tries.
const FIXED: std::ops::Range<u64> = 0..1000;
/// Further ones, that have found something.
const FOUND: [u64; 1] = [1_795_423_694_896_497_957];
/// How many fresh ones every run tries at least, and at most.
const FRESH: std::ops::RangeInclusive<u64> = 1000..=4000;
/// After this no further fresh seed is taken, beyond the fewest.
const FRESH_UNTIL: Duration = Duration::from_secs(60);
/// So many failures are told of.
const FAILURES_MAX: usize = 3;

fn run(seed: u64) -> Result<world::Summary, String> {
    let plan = Plan::of(seed);
    let mut world = World::new(plan.clone());
    match world.run() {
        Ok(()) => Ok(world.summary),
        Err(wrong) => {
            Err(format!("seed {seed}: {wrong}\n{plan:?}\nreplay it with `cargo xtask simulate --seed {seed}`"))
        }
    }
}

/// Runs seeds from `first` on: the `fewest` at any rate, and more of them up to `most` while there is time.
fn run_all(first: u64, fewest: u64, most: u64) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let late = number >= fewest && began.elapsed() >= FRESH_UNTIL;
                    if number >= most || late || failures.lock().expect("no panic").len() >= FAILURES_MAX {
                        return;
                    }
                    let seed = first.wrapping_add(number);
                    let ran = catch_unwind(|| run(seed)).unwrap_or_else(|_| Err(format!("seed {seed}: a panic")));
                    if let Err(wrong) = ran {
                        failures.lock().expect("no panic").push(wrong);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    (now.as_nanos() as u64) & !0xf_ffff
}

#[test]
fn nothing_is_lost_and_nothing_twice_whatever_fails() {
    let seeds = number("EDRI_SEEDS");
    match (number("EDRI_SEED"), seeds) {
        (Some(seed), None) => {
            println!("{:#?}", Plan::of(seed));
            println!("{:#?}", run(seed).unwrap_or_else(|wrong| panic!("{wrong}")));
        }
        (first, Some(seeds)) => run_all(first.unwrap_or_else(fresh), seeds, seeds),
        (None, None) => {
            FOUND.into_iter().for_each(|seed| run_all(seed, 1, 1));
            run_all(FIXED.start, FIXED.end - FIXED.start, FIXED.end - FIXED.start);
            run_all(fresh(), *FRESH.start(), *FRESH.end());
        }
    }
}

#[test]
fn a_seed_happens_the_same_way_each_time() {
    for seed in 0..20 {
        let (once, again) = (run(seed).expect("it passes"), run(seed).expect("it passes"));
        assert_eq!(format!("{once:?}"), format!("{again:?}"), "seed {seed}");
    }
}
