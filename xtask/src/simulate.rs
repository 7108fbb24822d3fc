//! Long runs of the connector's simulation, optimized.

use std::process::Command;

use crate::check;

const USAGE: &str = "usage: cargo xtask simulate [--seeds N] [--seed S]";
/// How many seeds are tried when nothing is said.
const SEEDS: &str = "100000";

/// Runs seeds that nobody has tried, or those asked for. A seed that fails is printed with its plan.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let (mut seeds, mut first) = (None, None);
    for pair in arguments.chunks(2) {
        let known = match pair {
            [option, value] if value.parse::<u64>().is_ok() => match option.as_str() {
                "--seeds" => seeds.replace(value.clone()).is_none(),
                "--seed" => first.replace(value.clone()).is_none(),
                _ => false,
            },
            _ => false,
        };
        if !known {
            return Err(USAGE.to_owned());
        }
    }
    if seeds.is_none() && first.is_none() {
        seeds = Some(SEEDS.to_owned());
    }
    let test = "test --release --package edri-connector --test simulation -- --nocapture --exact";
    let mut command = Command::new(check::program());
    command.args(test.split(' ')).arg("nothing_is_lost_and_nothing_twice_whatever_fails");
    for (name, value) in [("EDRI_SEEDS", seeds), ("EDRI_SEED", first)] {
        command.env_remove(name);
        command.envs(value.map(|value| (name, value)));
    }
    let status = command.status().map_err(|error| format!("failed to start cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the simulation ended with {status}")) }
}
