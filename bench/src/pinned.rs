//! The other mode of a figure: the whole process on one core.
//!
//! Waking a thread on an idle core costs 50 to 60 µs on the machines this was written on and nearly nothing on a busy
//! one, so with one event in flight the default mode tells how the scheduler felt. On one core there is nobody to wake
//! elsewhere.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::Result;
use crate::case::{Case, Outcome};
use crate::harness::Plan;

/// Set in a process that runs pinned.
const MARK: &str = "EDRI_BENCH_PINNED";

pub(crate) fn is_pinned() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Becomes this program again with the same arguments, pinned.
pub(crate) fn execute_again() -> Result<ExitCode> {
    let error = command()?.args(std::env::args_os().skip(1)).exec();
    Err(format!("cannot run `taskset`: {error}").into())
}

/// Measures one case in a pinned process.
pub(crate) fn measure(suite: &str, case: &Case, plan: &Plan) -> Result<Outcome> {
    let mut command = command()?;
    command.args([suite, "--json", "--case", case.name, "--pairs", &plan.pairs.to_string()]);
    if plan.quick {
        command.arg("--quick");
    }
    let output = command.output().map_err(|error| format!("cannot run `taskset`: {error}"))?;
    if !output.status.success() {
        return Err(format!("the pinned process failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let outcome: Outcome = serde_json::from_slice(&output.stdout)?;
    Ok(Outcome { note: "in a process of its own".to_owned(), ..outcome })
}

fn command() -> Result<Command> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]).arg(std::env::current_exe()?).env(MARK, "1");
    Ok(command)
}
