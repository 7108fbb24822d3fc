//! Nodes as processes: started, asked, stopped and killed by a test.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use edri_tests::cluster::issue_keys;
use serde_json::Value;

use super::hosts::Hosts;
use super::journal::{Counts, Journal, Life, count};

/// How long anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The switch in the middle.
pub(crate) const SWITCH: &str = "switch";

/// Waits until it holds.
pub(crate) fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < limit, "waited {LIMIT:?} for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nodes around a switch. What they wrote is kept when the test fails.
pub(crate) struct Cluster {
    pub(crate) folder: PathBuf,
    nodes: BTreeMap<String, Known>,
    pub(crate) journals: Vec<Journal>,
    killed: HashSet<Life>,
    pace: [String; 2],
}

struct Known {
    arguments: Vec<String>,
    host: Option<String>,
    life: u64,
    process: Option<Running>,
}

struct Running {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// These nodes, each with a link to the switch; and, on one host, a chord from the first to the last. Nothing runs yet.
    pub(crate) fn star(names: &[&str], hosts: Option<&Hosts>, every_ms: u64) -> Self {
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("edri-cluster-{}-{number}", std::process::id()));
        let with_switch: Vec<_> = names.iter().copied().chain([SWITCH]).collect();
        issue_keys(&folder.join("keys"), &with_switch).expect("keys are made");
        let mut cluster = Self {
            folder,
            nodes: BTreeMap::new(),
            journals: Vec::new(),
            killed: HashSet::new(),
            pace: [format!("every_ms={every_ms}"), format!("ask_every_ms={}", every_ms * 4)],
        };
        let (middle, chord) = (free_address(), free_address());
        let listen = if hosts.is_some() { "0.0.0.0:7440" } else { &middle };
        cluster.add(SWITCH, hosts.map(Hosts::switch), vec![format!("listen={listen}"), "switch=yes".to_owned()]);
        for (index, name) in names.iter().enumerate() {
            let to = hosts.map_or_else(|| middle.clone(), |hosts| format!("{}:7440", hosts.gateway(index)));
            let mut arguments = vec![format!("connect={to}"), "outbox=16384".to_owned()];
            arguments.extend(names.iter().filter(|peer| *peer != name).map(|peer| format!("peer={peer}")));
            match (hosts, index) {
                (None, 0) => arguments.push(format!("listen={chord}")),
                (None, _) if index + 1 == names.len() => arguments.push(format!("connect={chord}")),
                _ => {}
            }
            cluster.add(name, hosts.map(|hosts| hosts.host(index)), arguments);
        }
        cluster
    }

    /// Bounds what the nodes keep for another that is away; what is more becomes dead letters.
    pub(crate) fn keeping(mut self, events: usize) -> Self {
        for known in self.nodes.values_mut() {
            known.arguments.retain(|argument| !argument.starts_with("outbox="));
            known.arguments.extend([format!("outbox={events}"), format!("letters={events}")]);
        }
        self
    }

    fn add(&mut self, name: &str, host: Option<String>, arguments: Vec<String>) {
        self.nodes.insert(name.to_owned(), Known { arguments, host, life: 0, process: None });
    }

    /// The nodes with managers.
    pub(crate) fn names(&self) -> Vec<String> {
        self.nodes.keys().filter(|name| *name != SWITCH).cloned().collect()
    }

    fn known(&mut self, name: &str) -> &mut Known {
        self.nodes.get_mut(name).expect("a node of the cluster")
    }

    pub(crate) fn life(&self, name: &str) -> Life {
        (name.to_owned(), self.nodes[name].life)
    }

    pub(crate) fn is_running(&self, name: &str) -> bool {
        self.nodes[name].process.is_some()
    }

    // ---- coming and going ------------------------------------------------------------------------------------------

    pub(crate) fn start_all(&mut self) {
        let names: Vec<_> = self.nodes.keys().cloned().collect();
        for name in names {
            self.start(&name);
        }
    }

    /// Begins the next life of a node.
    pub(crate) fn start(&mut self, name: &str) {
        let (folder, pace) = (self.folder.clone(), self.pace.clone());
        let known = self.known(name);
        assert!(known.process.is_none(), "`{name}` runs");
        known.life += 1;
        let life = known.life;
        let journal = folder.join(format!("{name}-{life}.journal"));
        let log = std::fs::File::create(folder.join(format!("{name}-{life}.log"))).expect("a log");
        let program = env!("CARGO_BIN_EXE_edri-tests-program");
        let mut command = match &known.host {
            // It becomes the program, so its process is the program's.
            Some(host) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", host, program]);
                command
            }
            None => Command::new(program),
        };
        command.args(["node", &format!("name={name}"), &format!("life={life}")]);
        command.arg(format!("keys={}", folder.join("keys").join(name).display()));
        command.arg(format!("journal={}", journal.display()));
        command.args(pace).args(&known.arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the program starts");
        let input = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (line, output) = sync_channel(1024);
        std::thread::spawn(move || {
            for read in lines.map_while(Result::ok) {
                if line.send(read).is_err() {
                    return;
                }
            }
        });
        known.process = Some(Running { child, input, output });
        self.journals.push(Journal::new((name.to_owned(), life), journal));
        let said = self.hear(name);
        assert_eq!(said["running"], name, "`{name}` is up");
    }

    /// Kills a node as `kill -9` does.
    pub(crate) fn kill(&mut self, name: &str) {
        let life = self.life(name);
        drop(self.known(name).process.take().expect("it runs"));
        self.killed.insert(life);
    }

    pub(crate) fn pid(&self, name: &str) -> u32 {
        self.nodes[name].process.as_ref().expect("it runs").child.id()
    }

    /// Sends a signal: `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.pid(name).to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{signal} to `{name}`");
    }

    /// The memory that a node holds, in KiB.
    pub(crate) fn memory_kb(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid(name))).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
    }

    // ---- asking ----------------------------------------------------------------------------------------------------

    fn hear(&mut self, name: &str) -> Value {
        let folder = self.folder.clone();
        let process = self.known(name).process.as_mut().expect("it runs");
        let line = process.output.recv_timeout(LIMIT);
        let line = line.unwrap_or_else(|error| panic!("`{name}` says nothing: {error}; see {}", folder.display()));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("`{name}` says {line:?}: {error}"))
    }

    fn command(&mut self, name: &str, command: &str) {
        let process = self.known(name).process.as_mut().expect("it runs");
        writeln!(process.input, "{command}").unwrap_or_else(|error| panic!("`{name}` is gone: {error}"));
    }

    /// Gives a node a command, and returns what it says.
    pub(crate) fn ask(&mut self, name: &str, command: &str) -> Value {
        self.command(name, command);
        self.hear(name)
    }

    /// Whether one node can reach another.
    pub(crate) fn reaches(&mut self, from: &str, to: &str) -> bool {
        let told = self.ask(from, "look");
        let nodes = told["topology"]["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().any(|node| node["name"] == to && node["reachable"] == true)
    }

    pub(crate) fn wait_reach(&mut self, from: &str, to: &str, reachable: bool) {
        wait(&format!("{from} to reach {to}: {reachable}"), || self.reaches(from, to) == reachable);
    }

    /// Waits until every node that runs has handled `more` events of every other one, of the lives that they are in now.
    pub(crate) fn wait_exchanged(&mut self, more: u64) {
        let running: Vec<Life> =
            self.names().iter().filter(|name| self.is_running(name)).map(|name| self.life(name)).collect();
        let pairs = || running.iter().flat_map(|from| running.iter().map(move |to| (from, to)));
        let pairs: Vec<_> = pairs().filter(|(from, to)| from != to).collect();
        self.read();
        let last = |cluster: &Self, (from, to): &(&Life, &Life)| {
            let journal = cluster.journals.iter().find(|journal| journal.life == **to).expect("it has one");
            journal.last_of(from)
        };
        let aims: Vec<_> = pairs.iter().map(|pair| last(self, pair).map_or(0, |last| last + 1) + more).collect();
        let limit = Instant::now() + LIMIT;
        loop {
            self.read();
            let behind: Vec<_> = pairs
                .iter()
                .zip(&aims)
                .filter(|(pair, aim)| last(self, pair).map_or(0, |last| last + 1) < **aim)
                .map(|((from, to), aim)| format!("{from:?} to {to:?} at {:?} of {aim}", last(self, &(*from, *to))))
                .collect();
            if behind.is_empty() {
                return;
            }
            assert!(Instant::now() < limit, "not exchanged in {LIMIT:?}: {behind:#?}; see {}", self.folder.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn read(&mut self) {
        self.journals.iter_mut().for_each(Journal::read);
    }

    // ---- the end ---------------------------------------------------------------------------------------------------

    /// Lets all send nothing more, waits until everything has come, stops all of them and counts. Fails if anything is
    /// wrong.
    pub(crate) fn finish(mut self) -> Counts {
        let names = self.names();
        for name in &names {
            self.command(name, "rest");
        }
        let mut published = BTreeMap::new();
        for name in &names {
            let told = self.hear(name);
            published.insert(self.life(name), told["published"].as_u64().expect("a number"));
        }
        self.wait_all_come(&published);
        for name in &names {
            let name = name.clone();
            wait(&format!("{name} to be at rest"), || {
                let account = self.ask(&name, "look")["topology"]["account"].clone();
                account["queued"] == 0 && account["in_hand"] == 0
            });
        }
        let mut wrong = Vec::new();
        for (name, report) in self.stop_all() {
            let well = report["balanced"] == true && report["unfinished"] == 0;
            let dead = report["dead"].as_object().is_none_or(|dead| !dead.is_empty());
            if !well || dead {
                wrong.push(format!("`{name}` stopped with {report}"));
            }
        }
        self.read();
        let (counts, more) = count(&self.journals, &self.killed);
        wrong.extend(more);
        wrong.truncate(20);
        assert!(wrong.is_empty(), "{wrong:#?}\n{counts:?}\nsee {}", self.folder.display());
        counts
    }

    /// Stops all one after the other, in good order. What they said in the end.
    pub(crate) fn stop_all(&mut self) -> Vec<(String, Value)> {
        let all = self.names().into_iter().chain([SWITCH.to_owned()]);
        let mut reports = Vec::new();
        for name in all {
            let report = self.ask(&name, "stop");
            let mut process = self.known(&name).process.take().expect("it runs");
            let status = process.child.wait().expect("it is a child");
            assert!(status.success(), "`{name}` ended with {status}");
            reports.push((name, report));
        }
        reports
    }

    fn wait_all_come(&mut self, published: &BTreeMap<Life, u64>) {
        let limit = Instant::now() + LIMIT;
        loop {
            self.read();
            let mut behind = Vec::new();
            for journal in self.journals.iter().filter(|journal| published.contains_key(&journal.life)) {
                for (origin, count) in published.iter().filter(|(origin, _)| **origin != journal.life) {
                    let come = journal.last_of(origin).map_or(0, |last| last + 1);
                    if come < *count {
                        behind.push(format!("{origin:?} to {:?}: {come} of {count}", journal.life));
                    }
                }
            }
            if behind.is_empty() {
                return;
            }
            assert!(Instant::now() < limit, "not all has come: {behind:#?}; see {}", self.folder.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A UDP address that nobody has, of this test alone: nobody takes it while its node is down.
fn free_address() -> String {
    static HOSTS: AtomicU32 = AtomicU32::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = format!("127.{}.{high}.{low}:0", HOSTS.fetch_add(1, Ordering::Relaxed) % 250 + 2);
    let socket = UdpSocket::bind(&host).expect("an address of loopback");
    socket.local_addr().expect("bound").to_string()
}

/// Whether a process has this in its command line.
pub(crate) fn is_anybody_left(folder: &Path) -> bool {
    crate::processes::running(&folder.display().to_string()) > 0
}
