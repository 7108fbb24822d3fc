//! Four nodes by one command: two sensors, a switch that is killed in the middle, and the centre, which is this process.
//!
//! What the centre finds is what one process finds that reads the same catalogue, or the program fails.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use edri::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::sleep;

use crate::arguments::Arguments;
use crate::nodes::{study, tell_of_links};
use crate::report::Findings;
use crate::{keys, observatory, observe, print, say, stopped, studying};

/// How long the switch may take to say where it listens.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The switch is killed when the centre has had one quake in so many.
const KILLED_AFTER: u64 = 5;
/// What the links may take to be there again after the outage.
const RETURN: Duration = Duration::from_secs(5);
/// How often it is looked at whether a process has ended, or enough has come.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What is the same, whoever computes it. The rest says how it went: deliveries, seconds.
const RESULTS: [&str; 11] = [
    "events",
    "first_ms",
    "last_ms",
    "networks",
    "alerts",
    "strongest",
    "latest",
    "regions",
    "histogram",
    "gutenberg_richter",
    "gutenberg_richter_by_network",
];

/// Runs it all and compares.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    say("cluster: first in one process, to have something to compare with");
    let Some(alone) = observatory().run_with(async |node: Node| {
        let findings = observe(&node, arguments, arguments.speed).await?;
        node.shutdown().await;
        Ok::<_, Box<dyn Error>>(findings)
    })?
    else {
        return stopped();
    };
    // Here, so that the nodes need not make them side by side.
    for name in ["switch", "sensor-1", "sensor-2"] {
        keys::own(name, say)?;
    }
    let identity = keys::own("centre", say)?;
    let (switch, address) = Process::switch("127.0.0.1:0")?;
    say(&format!("cluster: now on four nodes; the switch is process {}", switch.id()));
    let connector = Connector::dial().connect(&address).with_identity(identity);
    let together = studying(App::new("centre").connector(connector)).run_with(async |node: Node| {
        let (findings, switch) = tokio::select! {
            both = async { tokio::try_join!(
                study(&node, "centre", arguments, 2),
                play(&node, arguments, &alone, switch, &address),
            ) } => both?,
            never = tell_of_links(node.bus(), "centre") => match never {},
        };
        node.shutdown().await;
        switch.stop().await?;
        Ok::<_, Box<dyn Error>>(findings)
    })?;
    let Some(together) = together else { return stopped() };
    print(&together, arguments.json)?;
    compare(&alone, &together)
}

/// Starts the sensors, kills the switch, starts it again, and waits until the sensors have ended. The switch goes on.
async fn play(
    node: &Node,
    arguments: &Arguments,
    alone: &Findings,
    switch: Process,
    address: &str,
) -> Result<Process, Box<dyn Error>> {
    let outage = Duration::from_secs(arguments.outage);
    let speed = paced(alone, outage);
    let sensor = |name, part| {
        let mut command = Process::command("sensor", name)?;
        command.args(["--connect", address, "--part", part, "--speed", &format!("{speed:.2}")]);
        command.args(["--repeat", &arguments.repeat.to_string(), "--file"]).arg(&arguments.file);
        Process::start(&mut command, name)
    };
    let (mut first, mut second) = (sensor("sensor-1", "1/2")?, sensor("sensor-2", "2/2")?);

    let enough = alone.events / KILLED_AFTER;
    while node.topology().manager("alarm").is_some_and(|alarm| alarm.account.deliveries < enough) {
        first.is_running()?;
        second.is_running()?;
        sleep(LOOK_EVERY).await;
    }
    say(&format!("cluster: kill -9 {}, which is the switch", switch.id()));
    // Dropped, it is killed.
    drop(switch);
    sleep(outage).await;
    let (switch, _) = Process::switch(address)?;
    say(&format!("cluster: after {} s the switch is started again, as process {}", outage.as_secs(), switch.id()));

    while first.is_running()? | second.is_running()? {
        sleep(LOOK_EVERY).await;
    }
    Ok(switch)
}

/// How fast the catalogue is replayed so that the outage falls into its middle.
fn paced(alone: &Findings, outage: Duration) -> f64 {
    let span_ms = alone.first_ms.zip(alone.last_ms).map_or(0, |(first, last)| last.abs_diff(first));
    // A fifth before, two thirds for the outage and the way back, and some after.
    let lasts = (outage + RETURN).as_secs_f64() * 1.5;
    (span_ms as f64 / 1000.0 / lasts).clamp(0.01, 1e9)
}

fn compare(alone: &Findings, together: &Findings) -> Result<(), Box<dyn Error>> {
    let [alone, together] = [serde_json::to_value(alone)?, serde_json::to_value(together)?];
    let differs = |name: &&str| alone[*name] != together[*name];
    let different: Vec<_> = RESULTS.into_iter().filter(differs).collect();
    if different.is_empty() {
        let quakes = &together["events"];
        say(&format!("cluster: the findings of four nodes are those of one process, for {quakes} quakes"));
        return Ok(());
    }
    for name in &different {
        let brief = |findings: &Value| findings[*name].to_string().chars().take(400).collect::<String>();
        say(&format!("cluster: `{name}` alone: {}", brief(&alone)));
        say(&format!("cluster: `{name}` together: {}", brief(&together)));
    }
    Err(format!("four nodes find something else than one process: {}", different.join(", ")).into())
}

/// A node in a process of its own. Dropped before its end, it is killed.
struct Process {
    child: Child,
    name: &'static str,
}

impl Process {
    fn command(role: &str, name: &str) -> std::io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--role", role, "--name", name]).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }

    fn start(command: &mut Command, name: &'static str) -> std::io::Result<Self> {
        Ok(Self { child: command.spawn()?, name })
    }

    /// A switch that listens at this address, and at which in the end. What it says is passed on.
    fn switch(listen: &str) -> Result<(Self, String), Box<dyn Error>> {
        let mut command = Self::command("switch", "switch")?;
        let mut process = Self::start(command.args(["--listen", listen]).stderr(Stdio::piped()), "switch")?;
        let stderr = process.child.stderr.take().ok_or("it is piped")?;
        let (found, address) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once(": listens at ") {
                    // Nobody waits for a second one.
                    let _ = found.try_send(rest.split(',').next().unwrap_or(rest).to_owned());
                }
                // As with all that is said, nothing depends on it.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        });
        let address = address.recv_timeout(START_LIMIT).map_err(|_| "the switch does not start")?;
        Ok((process, address))
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has still to do; an error when it failed.
    fn is_running(&mut self) -> Result<bool, Box<dyn Error>> {
        match self.child.try_wait()? {
            None => Ok(true),
            Some(status) if status.success() => Ok(false),
            Some(status) => Err(format!("{} has failed: {status}", self.name).into()),
        }
    }

    /// Has it stop in good order, and waits for that.
    async fn stop(mut self) -> Result<(), Box<dyn Error>> {
        if let Some(pid) = self.child.id().try_into().ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        while self.is_running()? {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
