//! Process workers under a killer: see `edri_tests::chaos`.

use std::process::Command;

use crate::processes::{blocking_until, running};
use crate::python::python;

/// Runs the scenario in a program of its own, whose memory is nobody else's.
fn chaos(seed: u64, events: u64) -> serde_json::Value {
    let token = format!("chaos-{seed:x}");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/chaos_worker.py");
    let output = Command::new(env!("CARGO_BIN_EXE_edri-tests-program"))
        .args(["chaos", &seed.to_string(), &events.to_string()])
        .arg(python())
        .args([script, &token])
        .output()
        .expect("the program starts");
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "seed {seed}: {}\n{errors}", output.status);
    blocking_until("no process to be left", || running(&token) == 0);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("seed {seed}: {error} in {out:?}\n{errors}"))
}

#[test]
fn a_hundred_thousand_events_pass_through_workers_that_are_killed_and_stopped_at_random() {
    // A seed that failed can be given again.
    let given = std::env::var("EDRI_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    let told = chaos(seed, 50_000);
    let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("`{name}` is a number: {told}"));
    assert!(number("struck") >= 10 && number("restarts") >= 10, "somebody was killed: {told}");
    assert_eq!(number("missing"), 0, "every event was handled or is a dead letter: {told}");
    assert_eq!(number("unmarked"), 0, "what is handled again is marked: {told}");
    assert_eq!(number("dead_for_other_reasons"), 0, "{told}");
    assert_eq!((told["balanced"].as_bool(), number("unfinished")), (Some(true), 0), "{told}");
    assert!(number("peak_memory_kb") < 150_000, "memory is bounded: {told}");
}
