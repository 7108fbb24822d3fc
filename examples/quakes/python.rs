//! The Python that the worker in `report.py` needs: found, and set up beside the build when it is not yet.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::time::timeout;

/// Prints the interpreter of an environment that has the SDK, which it makes the first time.
const ENVIRONMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk/python/environment.py");
const REPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/quakes/report.py");
/// After so long it is told what is waited for. With an environment that is there it is over long before.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The command that runs `report.py`, for [`edri::Manager::program`].
///
/// # Errors
///
/// Says in a line what is missing.
pub(crate) async fn report_command(say: impl Fn(&str)) -> Result<String, String> {
    let directory = beside_the_build("quakes-python")
        .ok_or("the program is not where cargo has put it: start it by `cargo run`")?;
    let setup = Command::new("python3")
        .arg(ENVIRONMENT)
        .arg(&directory)
        // Where there is no network, the run goes on soon; unless told otherwise pip tries for most of a minute.
        .env("PIP_RETRIES", std::env::var_os("PIP_RETRIES").unwrap_or_else(|| "1".into()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("`python3` cannot be started ({error}): install Python 3.9 or later"))?;
    let pid = setup.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    let output = setup.wait_with_output();
    tokio::pin!(output);
    let mut running = Group(pid);
    let output = match timeout(PATIENCE, &mut output).await {
        Ok(output) => output,
        Err(_) => {
            say("preparing Python for the report by region, once…");
            output.await
        }
    };
    // It has ended, and its number may be another's by now.
    running.0 = None;
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.trim().lines().last().unwrap_or("`python3` failed and did not say why");
        return Err(why.split_once(&format!("{}: ", directory.display())).map_or(why, |(_, why)| why).to_owned());
    }
    let python = String::from_utf8_lossy(&output.stdout);
    Ok(format!("{} {}", quoted(python.trim()), quoted(REPORT)))
}

/// The folder of this name in the target folder that this program is in.
pub(crate) fn beside_the_build(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let examples = program.parent().filter(|folder| folder.ends_with("examples"))?;
    Some(examples.ancestors().nth(2)?.join(name))
}

/// One word of a command, as a shell writes it.
fn quoted(word: impl Display) -> String {
    format!("'{}'", word.to_string().replace('\'', r"'\''"))
}

/// A running set-up with the `pip` that it runs. A set-up that is broken off is begun anew the next time.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Fails when it has ended just now.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}
