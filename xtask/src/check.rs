//! What CI runs, step by step.
//!
//! The cheap steps come first, and a step that fails does not keep the next from running: one run says everything that
//! is wrong. `clippy` and `doc` check the same dependencies and share them in the target directory; `test` is the one
//! that generates code, so all that is compiled twice is checked once and built once.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::tidy;
use crate::workspace::Workspace;

/// The command README.md tells its reader to run, without a flag of our own: what they see is what CI sees.
pub(crate) const TEST: &str = "cargo test";

struct Step {
    name: &'static str,
    run: fn() -> Result<Outcome, String>,
}

enum Outcome {
    Passed,
    Skipped(&'static str),
}

const STEPS: [Step; 6] = [
    Step { name: "fmt", run: || cargo("fmt --all --check", None) },
    Step { name: "tidy", run: || tidy::run().map(|()| Outcome::Passed) },
    Step { name: "clippy", run: || cargo("clippy --workspace --all-targets -- -D warnings", None) },
    Step { name: "doc", run: || cargo("doc --workspace --no-deps", Some(("RUSTDOCFLAGS", "-D warnings"))) },
    Step { name: "test", run: || cargo(TEST.trim_start_matches("cargo "), None) },
    Step { name: "deny", run: deny },
];

/// Runs every step at the root of the workspace, wherever it was asked for; the error names those that failed.
pub(crate) fn run() -> Result<(), String> {
    let (_, root) = Workspace::load()?;
    env::set_current_dir(&root).map_err(|error| format!("failed to go to {root}: {error}"))?;
    let started = Instant::now();
    let failed: Vec<&str> = STEPS.iter().filter(|step| !step.passes()).map(|step| step.name).collect();
    let seconds = started.elapsed().as_secs_f32();
    if failed.is_empty() {
        println!("== check passed in {seconds:.1} s");
        Ok(())
    } else {
        Err(format!("check failed after {seconds:.1} s in: {}", failed.join(", ")))
    }
}

impl Step {
    fn passes(&self) -> bool {
        let name = self.name;
        println!("== {name}");
        let started = Instant::now();
        let outcome = (self.run)();
        let seconds = started.elapsed().as_secs_f32();
        match &outcome {
            Ok(Outcome::Passed) => println!("== {name} passed in {seconds:.1} s"),
            Ok(Outcome::Skipped(reason)) => println!("== {name} skipped: {reason}"),
            Err(error) => println!("== {name} FAILED after {seconds:.1} s: {error}"),
        }
        outcome.is_ok()
    }
}

/// The cargo that runs this program, so that every step uses the same toolchain.
pub(crate) fn program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn cargo(arguments: &str, variable: Option<(&str, &str)>) -> Result<Outcome, String> {
    let shown = variable.map(|(name, value)| format!("{name}=\"{value}\" ")).unwrap_or_default();
    println!("{shown}cargo {arguments}");
    let status = Command::new(program())
        .args(arguments.split(' '))
        .envs(variable)
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("failed to start cargo {arguments}: {error}"))?;
    if status.success() { Ok(Outcome::Passed) } else { Err(format!("cargo {arguments}: {status}")) }
}

/// Licenses, bans and sources can be judged from the lock file and the downloaded packages. Advisories need a database
/// that an earlier `cargo deny fetch` brought.
fn deny() -> Result<Outcome, String> {
    let installed = Command::new(program())
        .args(["deny", "--version"])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success());
    if !installed {
        return Ok(Outcome::Skipped("cargo-deny is not installed"));
    }
    if !Path::new("deny.toml").is_file() {
        return Ok(Outcome::Skipped("there is no deny.toml"));
    }
    if advisories_are_here() {
        return cargo("deny --offline check", None);
    }
    println!("without advisories: no database of them is on this machine");
    cargo("deny --offline check bans licenses sources", None)
}

fn advisories_are_here() -> bool {
    let home = env::home_dir().map(|home| home.join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or(home).is_some_and(|home| home.join("advisory-dbs").is_dir())
}
