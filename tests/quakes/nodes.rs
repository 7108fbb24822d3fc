//! The example on several nodes, in one command and by hand.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{EXAMPLE, check_account, check_findings, check_report, children, is_running, signal, within_limit};

/// More lines than any of them writes.
const LINES_MAX: usize = 100_000;
/// How long anything here may take: an outage and the way back take most of it.
const LIMIT: Duration = Duration::from_secs(45);

/// A run of the example that is listened to. Dropped before its end, it is killed.
struct Node {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Node {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(&*EXAMPLE);
        command.args(arguments).env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (line, lines) = sync_channel(LINES_MAX);
        // Ends with the program, or with whoever listens.
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for the next line on stderr with `text`, and returns it.
    fn says(&mut self, text: &str) -> String {
        let limit = Instant::now() + LIMIT;
        loop {
            let line = self.lines.recv_timeout(limit.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("waited for {text:?}, but it said {:#?}", self.said));
            self.said.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end: how it ended, what it wrote to stdout, and to stderr.
    fn end(mut self) -> (ExitStatus, String, String) {
        let mut stdout = self.child.stdout.take().unwrap();
        let (read, text) = sync_channel(1);
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            read.send(text)
        });
        let limit = Instant::now() + LIMIT;
        while let Ok(line) = self.lines.recv_timeout(limit.saturating_duration_since(Instant::now())) {
            self.said.push(line);
        }
        let text = text.recv_timeout(limit.saturating_duration_since(Instant::now()));
        let text = text.unwrap_or_else(|_| panic!("it does not end, and said {:#?}", self.said));
        (self.child.wait().unwrap(), text, self.said.join("\n"))
    }

    /// As [`Node::end`], asked by Ctrl-C: it is over soon, and well.
    fn ends_by_ctrl_c(self) {
        let told = Instant::now();
        self.signal("-INT");
        let (status, stdout, stderr) = self.end();
        assert_eq!((status.code(), &*stdout), (Some(0), ""), "{stderr}");
        assert!(told.elapsed() < Duration::from_secs(10), "it took {:?}: {stderr}", told.elapsed());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster by hand: its keys, in a folder of this name, and the address of its switch.
struct Cluster {
    keys: PathBuf,
    address: String,
}

impl Cluster {
    fn new(folder: &str) -> Self {
        let keys = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        let _ = fs::remove_dir_all(&keys);
        let names = ["--make-keys", keys.to_str().unwrap(), "switch", "centre", "sensor"];
        let (status, _, stderr) = Node::start(&names).end();
        assert!(status.success(), "{stderr}");
        assert_eq!(stderr.matches("made keys for the node").count(), 3, "{stderr}");
        Self { keys, address: "127.0.0.1:0".to_owned() }
    }

    fn start(&self, role: &str, arguments: &[&str]) -> Node {
        let keys = self.keys.join(role);
        Node::start(&[&["--role", role, "--keys", keys.to_str().unwrap()], arguments].concat())
    }

    /// Starts the switch where it was before, if it was.
    fn switch(&mut self) -> Node {
        let mut switch = self.start("switch", &["--listen", &self.address]);
        let line = switch.says("switch: listens at ");
        let (_, address) = line.split_once("listens at ").unwrap();
        address.split(',').next().unwrap().clone_into(&mut self.address);
        switch
    }
}

#[test]
fn a_cluster_whose_switch_is_killed_finds_what_one_process_finds() {
    // A second longer than it takes to notice it.
    let mut cluster = Node::start(&["--cluster", "--outage", "4", "--json"]);
    cluster.says("kill -9");
    let (status, stdout, stderr) = cluster.end();
    assert!(status.success(), "{status}: {stderr}");
    assert!(stderr.contains("the findings of four nodes are those of one process"), "{stderr}");
    for sensor in ["sensor-1", "sensor-2"] {
        for what in ["the link to switch is down", "quakes wait", "resumed", "all of them have arrived"] {
            let said = stderr.lines().any(|line| line.contains(sensor) && line.contains(what));
            assert!(said, "{sensor} has not said `{what}`: {stderr}");
        }
        let ups = stderr.lines().filter(|line| line.contains(&format!("{sensor}: the link to switch is up"))).count();
        assert_eq!(ups, 2, "{stderr}");
    }
    let found: Value = serde_json::from_str(&stdout).unwrap();
    check_findings(&found, 1);
    check_report(&found, 1);
    // Each sensor says that it has no more.
    check_account(&found, 1, 2);
}

#[test]
fn a_cluster_that_is_stopped_leaves_no_process_behind() {
    let mut cluster = Node::start(&["--cluster", "--no-python"]);
    cluster.says("sensor-2: publishes");
    let children = children(cluster.child.id());
    for name in ["switch", "sensor-1", "sensor-2"] {
        assert!(children.iter().any(|(_, arguments)| arguments.contains(name)), "{children:?}");
    }
    cluster.ends_by_ctrl_c();
    within_limit("its processes to end", move || {
        while children.iter().any(|(pid, _)| is_running(*pid)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn nodes_by_hand_go_on_after_their_switch_was_killed() {
    let mut cluster = Cluster::new("quakes-by-hand");
    let mut switch = cluster.switch();
    let address = cluster.address.clone();
    let centre = cluster.start("centre", &["--connect", &address, "--no-python", "--json"]);
    // A week in eight seconds.
    let mut sensor = cluster.start("sensor", &["--connect", &address, "--speed", "75600"]);
    sensor.says("sensor: publishes");
    switch.signal("-KILL");
    let _ = switch.child.wait();
    sensor.says("no way to the centre");
    let again = cluster.switch();
    assert_eq!(cluster.address, address);
    sensor.says("resumed");
    let (status, _, stderr) = sensor.end();
    assert!(status.success(), "{stderr}");
    let (status, stdout, stderr) = centre.end();
    assert!(status.success(), "{stderr}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    check_findings(&found, 1);
    check_account(&found, 1, 1);
    again.ends_by_ctrl_c();
}

#[test]
fn each_node_ends_well_by_ctrl_c() {
    let mut cluster = Cluster::new("quakes-ctrl-c");
    let address = cluster.address.clone();
    // Nobody listens there: port 1 belongs to the system.
    let mut waiting = cluster.start("sensor", &["--connect", "127.0.0.1:1"]);
    waiting.says("waits for the centre");
    waiting.ends_by_ctrl_c();

    let mut switch = cluster.switch();
    assert_ne!(cluster.address, address);
    let connect = ["--connect", &cluster.address.clone()];
    let mut centre = cluster.start("centre", &[&connect[..], &["--no-python"]].concat());
    // For a week, as it happened.
    let mut sensor = cluster.start("sensor", &[&connect[..], &["--speed", "1"]].concat());
    sensor.says("sensor: publishes");
    centre.says("the link to switch is up");
    sensor.ends_by_ctrl_c();
    centre.ends_by_ctrl_c();
    switch.says("the link to centre is down");
    switch.ends_by_ctrl_c();
}

#[test]
fn what_is_wrong_with_a_node_is_said_with_what_to_do() {
    let check = |arguments: &[&str], code: i32, expect: &str| {
        let (status, stdout, stderr) = Node::start(arguments).end();
        assert_eq!((status.code(), &*stdout), (Some(code), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expect), "{arguments:?}: {stderr}");
    };
    let mut cluster = Cluster::new("quakes-mistakes");
    let keys = cluster.keys.join("sensor");
    let sensor = ["--role", "sensor", "--keys", keys.to_str().unwrap()];
    let with = |more: &[&'static str]| [&sensor[..], more].concat();

    check(&with(&["--connect", "nowhere"]), 2, "it is a host and a port, such as 127.0.0.1:7440");
    check(&with(&["--listen", "999.0.0.1:7440"]), 1, "`999.0.0.1:7440` is no address to listen on");
    check(&with(&["--part", "3/2"]), 2, "such as 1/2");
    check(&with(&["--name", "centre"]), 1, "the identity is that of node `sensor`, but this node is called `centre`");
    check(&["--role", "sensor", "--keys", "nowhere"], 1, "make keys with `--make-keys FOLDER NAME`");
    check(&["--make-keys", "nowhere", "not a name"], 1, "not a name");
    check(&["--cluster", "--role", "sensor"], 2, "cannot be used with");

    let switch = cluster.switch();
    let address = cluster.address.clone();
    check(
        &["--role", "switch", "--keys", cluster.keys.join("switch").to_str().unwrap(), "--listen", &address],
        1,
        "no links at",
    );
    let connect = ["--connect", &*address];
    let mut first = cluster.start("sensor", &connect);
    first.says("the link to switch is up");
    let mut second = cluster.start("sensor", &connect);
    let said = second.says("every node needs a name of its own");
    assert!(said.contains("sensor"), "{said}");
    // It is tried again, but less and less often.
    let tries = Instant::now();
    for _ in 0..5 {
        second.says("no link");
    }
    // 100 ms, doubled four times, each shortened to a half at most.
    assert!(tries.elapsed() > Duration::from_millis(700), "{:?}", tries.elapsed());
    second.ends_by_ctrl_c();
    first.ends_by_ctrl_c();
    switch.ends_by_ctrl_c();
}
