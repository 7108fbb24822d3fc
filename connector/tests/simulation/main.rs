//! Whole networks of engines under one seed: faults of every kind, virtual time, and a ledger that nobody who carries events
//! can write. `EDRI_SEED=N` runs one seed and tells what it did, `EDRI_SEEDS=N` so many fresh ones.

mod dice;
mod host;
mod ledger;
mod plan;
mod rest;
mod tunnels;
mod world;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plan::Plan;
use world::World;

/// Seeds that every run tries.
const FIXED: std::ops::Range<u64> = 0..1000;
/// How many fresh ones, unless `EDRI_SEEDS` says otherwise.
const FRESH: u64 = 1200;

fn run(seed: u64) -> Result<world::Summary, String> {
    let plan = Plan::of(seed);
    let mut world = World::new(plan.clone());
    match world.run() {
        Ok(()) => Ok(world.summary),
        Err(wrong) => Err(format!("seed {seed}: {wrong}\n{plan:?}\nreplay it with EDRI_SEED={seed}")),
    }
}

fn run_all(seeds: impl Iterator<Item = u64>) {
    let seeds: Vec<u64> = seeds.collect();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let began = Instant::now();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let seeds = seeds.iter().skip(worker).step_by(threads);
                scope.spawn(move || seeds.filter_map(|seed| run(*seed).err()).take(3).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(began.elapsed() < Duration::from_secs(3600), "a run that never ends");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost_and_nothing_twice_whatever_fails() {
    if let Some(seed) = number("EDRI_SEED") {
        println!("{:#?}", Plan::of(seed));
        println!("{:#?}", run(seed).unwrap_or_else(|wrong| panic!("{wrong}")));
        return;
    }
    if number("EDRI_SEEDS").is_none() {
        run_all(FIXED);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let first = (now.as_nanos() as u64) & !0xf_ffff;
    run_all(first..first + number("EDRI_SEEDS").unwrap_or(FRESH));
}
