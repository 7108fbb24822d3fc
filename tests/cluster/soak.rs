//! Everything at random, for long. Not part of CI: see `docs/OPERATIONS.md`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::harness::{Cluster, SWITCH};
use super::{FIVE, Hosts};

/// What one process may grow by after it has been warm, in KiB.
const GROWTH_MAX_KB: u64 = 30_000;

/// A number from the environment.
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What is done to a cluster, and undone some time later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Stopped,
    Killed,
    Cut,
}

#[test]
#[ignore = "takes five minutes: for releases"]
fn nodes_are_killed_stopped_and_cut_off_at_random_and_nothing_is_lost_between_the_living() {
    let seconds = given("EDRI_SOAK_SECONDS").unwrap_or(300);
    let seed = given("EDRI_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    let hosts = Hosts::around_a_switch(FIVE.len()).inspect_err(|why| eprintln!("all on one host: {why}")).ok();
    eprintln!("seed {seed}, {seconds} s");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::star(&FIVE, hosts.as_ref(), 10);
    cluster.start_all();
    cluster.wait_exchanged(200);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut warm = BTreeMap::new();
    let mut blows = 0;
    while Instant::now() < end {
        let index = random.usize(..FIVE.len() + 1);
        let name = FIVE.get(index).copied().unwrap_or(SWITCH);
        let blow = match random.u8(..3) {
            0 => Blow::Stopped,
            1 if hosts.is_some() && name != SWITCH => Blow::Cut,
            _ => Blow::Killed,
        };
        // Shorter and longer than the three seconds after which a neighbour is held for dead.
        let pause = Duration::from_millis(if random.bool() { random.u64(10..2000) } else { random.u64(3000..8000) });
        eprintln!("{blow:?} {name} for {pause:?}");
        match blow {
            Blow::Stopped => cluster.signal(name, "STOP"),
            Blow::Killed => cluster.kill(name),
            Blow::Cut => hosts.as_ref().expect("there are hosts").cable(index, false).expect("a cable is pulled"),
        }
        std::thread::sleep(pause);
        match blow {
            Blow::Stopped => cluster.signal(name, "CONT"),
            Blow::Killed => cluster.start(name),
            Blow::Cut => hosts.as_ref().expect("there are hosts").cable(index, true).expect("a cable is plugged in"),
        }
        cluster.wait_exchanged(20);
        blows += 1;
        for name in FIVE.into_iter().chain([SWITCH]) {
            // From a moment when everything has happened to it once, perhaps: a life grows until then.
            let life = cluster.life(name);
            let (first, samples) = warm.entry(life).or_insert((0, 0_u64));
            let memory = cluster.memory_kb(name);
            *samples += 1;
            if *samples <= 5 {
                *first = memory.max(*first);
            }
            assert!(memory < *first + GROWTH_MAX_KB, "seed {seed}: {name} holds {memory} KiB, and held {first} KiB");
        }
    }
    let longest = warm.iter().max_by_key(|(_, (_, samples))| *samples);
    let memory: Vec<_> = FIVE.iter().map(|name| cluster.memory_kb(name)).collect();
    eprintln!("{blows} blows; longest life {longest:?}; memory in the end {memory:?} KiB");
    let counts = cluster.finish();
    eprintln!("seed {seed}: {counts:?}");
    assert!(blows > 5, "{blows} blows");
}
