//! The example `quakes`, run as its users run it: what it says of its file is so, and it ends as it should.
#![expect(clippy::unwrap_used, reason = "helpers of tests are no tests to clippy, and theirs say where all the same")]

mod nodes;
mod served;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a run may take: a first one sets its Python up, on a machine that may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

const CATALOGUE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quakes/data/earthquakes.geojson");

/// The example, built as this test was. `cargo test` builds both; a test run alone may find an older one, or none.
static EXAMPLE: LazyLock<PathBuf> = LazyLock::new(|| built("quakes"));

/// Where the example of this name is, built if need be.
pub(crate) fn built(example_name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).expect("cargo puts tests into <target>/<profile>/deps");
    let example = profile.join("examples").join(example_name);
    let age = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    if age(&example) < age(&test) {
        let name = profile.file_name().and_then(|name| name.to_str()).unwrap();
        let built = Command::new(env!("CARGO"))
            .args(["build", "--example", example_name, "--profile", if name == "debug" { "dev" } else { name }])
            .arg("--target-dir")
            .arg(profile.parent().unwrap())
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status();
        assert!(built.unwrap().success(), "the example does not build");
    }
    example
}

/// A run of the example. Dropped before its end, it is killed.
pub(crate) struct Run {
    child: Child,
}

impl Run {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |command| command)
    }

    /// A run of the example at this path.
    pub(crate) fn of(example: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(example);
        let command = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: command.spawn().unwrap() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn start_with(arguments: &[&str], change: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut command = Command::new(&*EXAMPLE);
        command.args(arguments).env("RUST_LOG", "info").env_remove("RUST_BACKTRACE");
        change(&mut command);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: command.spawn().unwrap() }
    }

    /// Waits until a line with `text` is on stderr, and returns it.
    pub(crate) fn until_it_says(&mut self, text: &str) -> String {
        let mut lines = BufReader::new(self.child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let text = text.to_owned();
        let said = within_limit(&format!("stderr to say {text:?}"), move || {
            let said = lines.find(|line| line.contains(&text));
            // What follows is read too, or writing it would fail.
            std::thread::spawn(move || lines.for_each(drop));
            said
        });
        said.expect("the example ended before")
    }

    /// Waits for its end; what it wrote to stdout and, unless it was waited for, to stderr.
    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        let [stdout, stderr] = [
            self.child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            self.child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ]
        .map(|pipe| {
            std::thread::spawn(move || {
                let mut text = String::new();
                pipe.map(|mut pipe| pipe.read_to_string(&mut text).unwrap());
                text
            })
        });
        let texts = within_limit("the example to end", move || [stdout, stderr].map(|text| text.join().unwrap()));
        let [stdout, stderr] = texts;
        (self.child.wait().unwrap(), stdout, stderr)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs what cannot be interrupted on a thread of its own.
fn within_limit<T: Send + 'static>(what: &str, wait: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waited) = sync_channel(1);
    std::thread::spawn(move || done.send(wait()));
    waited.recv_timeout(LIMIT).unwrap_or_else(|error| panic!("waited {LIMIT:?} for {what}: {error}"))
}

fn json(arguments: &[&str]) -> Value {
    let (status, stdout, stderr) = Run::start(&[&["--json"], arguments].concat()).end();
    assert!(status.success(), "{status}: {stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error} in {stdout:?}"))
}

/// Quakes and largest magnitude by network, and the number of magnitude 4.5 or more, counted here.
fn count_catalogue() -> (BTreeMap<String, (u64, f64)>, u64) {
    let catalogue: Value = serde_json::from_slice(&std::fs::read(CATALOGUE).unwrap()).unwrap();
    let mut networks = BTreeMap::new();
    let mut strong = 0;
    for feature in catalogue["features"].as_array().unwrap() {
        let properties = &feature["properties"];
        let magnitude = properties["mag"].as_f64().unwrap_or(f64::NEG_INFINITY);
        let network = properties["net"].as_str().unwrap().to_owned();
        let (count, largest) = networks.entry(network).or_insert((0, f64::NEG_INFINITY));
        *count += 1;
        *largest = magnitude.max(*largest);
        strong += u64::from(magnitude >= 4.5);
    }
    (networks, strong)
}

fn check_counts(found: &Value, times: u64) {
    check_findings(found, times);
    // The upload.
    check_account(found, times, 1);
}

fn check_findings(found: &Value, times: u64) {
    let (networks, strong) = count_catalogue();
    assert_eq!(found["events"], 1707 * times);
    assert_eq!(found["alerts"], strong * times);
    assert_eq!(strong, 85);
    let found_networks = found["networks"].as_object().unwrap();
    assert_eq!(found_networks.keys().collect::<Vec<_>>(), networks.keys().collect::<Vec<_>>());
    for (name, (count, largest)) in networks {
        assert_eq!(found_networks[&name]["count"], count * times, "{name}");
        assert_eq!(found_networks[&name]["largest"], largest, "{name}");
    }
    let bins = found["histogram"].as_array().unwrap();
    assert_eq!(bins.iter().map(|bin| bin["count"].as_u64().unwrap()).sum::<u64>(), 1707 * times);
    assert_eq!(found["lost_workers"], serde_json::json!({}));
    check_latest(found, times);
}

/// Each manager has had what it should, to the delivery. With so many uploads, or messages of sensors that they have ended.
fn check_account(found: &Value, times: u64, others: u64) {
    let account = &found["account"];
    assert_eq!(account["balanced"], true, "{account}");
    let managers = found["managers"].as_object().unwrap();
    let networks = found["networks"].as_object().unwrap().len() as u64;
    let expect = BTreeMap::from([
        ("reader", 1),
        // Beside quakes and alerts they are asked what they found.
        ("counter", 1707 * times + networks),
        ("alarm", 1707 * times),
        ("bulletin", 85 * times + 1),
        ("analyst", 1707 * times + 1),
        ("latest", 1707 * times + 1),
        // Everything is read back at once.
        ("store", found["latest_transactions"].as_u64().unwrap() + 1),
        ("report", 1707 * times + 1),
    ]);
    for (name, account) in managers {
        assert_eq!(account["handled"], account["deliveries"], "{name}: {account}");
        assert_eq!(account["deliveries"].as_u64(), expect.get(&**name).copied(), "{name}: {account}");
    }
    assert_eq!(managers.contains_key("report"), !found["regions"].is_null());
    // What is nobody's manager is the node's own: states that the store hears of, and on several nodes the ends of feeds.
    let sum = |field: &str| managers.values().map(|account| account[field].as_u64().unwrap()).sum::<u64>();
    let rest = |field: &str| account[field].as_u64().unwrap() - sum(field);
    assert!(rest("deliveries") >= others, "{account}");
    for lost in ["failed", "dead_lettered", "cancelled", "forwarded"] {
        assert_eq!(rest(lost), 0, "{account}");
    }
}

/// The latest quake of each region, worked out here.
fn check_latest(found: &Value, times: u64) {
    const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;
    let catalogue: Value = serde_json::from_slice(&std::fs::read(CATALOGUE).unwrap()).unwrap();
    let mut latest: BTreeMap<String, Value> = BTreeMap::new();
    for feature in catalogue["features"].as_array().unwrap() {
        let properties = &feature["properties"];
        let mut id = feature["id"].as_str().unwrap().to_owned();
        if times > 1 {
            id = format!("{id}#{times}");
        }
        let time_ms = properties["time"].as_u64().unwrap() + (times - 1) * WEEK_MS;
        let region = region(properties["place"].as_str().unwrap());
        if latest.get(&region).is_none_or(|known| known["time_ms"].as_u64() < Some(time_ms)) {
            let (magnitude, place) = (properties["mag"].as_f64(), &properties["place"]);
            let quake = serde_json::json!({"id": id, "magnitude": magnitude, "place": place, "time_ms": time_ms});
            latest.insert(region, quake);
        }
    }
    assert_eq!(found["latest"], serde_json::json!(latest));
}

fn region(place: &str) -> String {
    let name = match place.rsplit(',').next().unwrap().trim() {
        "CA" => "California",
        "MX" => "Mexico",
        "NV" => "Nevada",
        name => name,
    };
    name.to_owned()
}

/// What `report.py` says of the catalogue, worked out here; the strongest first.
fn report_catalogue(times: u64) -> Vec<(String, u64, f64, String)> {
    let catalogue: Value = serde_json::from_slice(&std::fs::read(CATALOGUE).unwrap()).unwrap();
    let mut features: Vec<_> = catalogue["features"].as_array().unwrap().iter().map(|it| &it["properties"]).collect();
    features.sort_by_key(|properties| properties["time"].as_i64().unwrap());
    let mut regions: BTreeMap<String, (u64, f64, String)> = BTreeMap::new();
    for properties in features {
        let place = properties["place"].as_str().unwrap();
        let magnitude = properties["mag"].as_f64().unwrap();
        let (count, strongest, where_it_was) =
            regions.entry(region(place)).or_insert((0, f64::NEG_INFINITY, String::new()));
        *count += times;
        if magnitude > *strongest {
            (*strongest, *where_it_was) = (magnitude, place.to_owned());
        }
    }
    let mut report: Vec<_> =
        regions.into_iter().map(|(name, (count, strongest, place))| (name, count, strongest, place)).collect();
    report.sort_by(|one, other| other.2.total_cmp(&one.2));
    report
}

fn check_report(found: &Value, times: u64) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let regions = found["regions"].as_array().expect("Python 3.9 or later is there").iter();
    let regions = regions.map(|it| {
        (text(&it["region"]), it["count"].as_u64().unwrap(), it["strongest"].as_f64().unwrap(), text(&it["place"]))
    });
    assert_eq!(regions.collect::<Vec<_>>(), report_catalogue(times));
}

/// The processes that this one has started, by their arguments.
fn children(pid: u32) -> Vec<(u32, String)> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,ppid=,args="]).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let processes = lines.lines().filter_map(|line| {
        let (own, rest) = line.trim().split_once(' ')?;
        let (parent, arguments) = rest.trim().split_once(' ')?;
        Some((own.parse().ok()?, parent.parse::<u32>().ok()?, arguments.to_owned()))
    });
    processes.filter(|(_, parent, _)| *parent == pid).map(|(own, _, arguments)| (own, arguments)).collect()
}

/// Whether the process is there, be it only to be reaped by whoever it was left to.
fn is_running(pid: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8_lossy(&output.stdout);
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

pub(crate) fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn the_example_finds_what_is_in_its_file() {
    let found = json(&[]);
    check_counts(&found, 1);
    check_report(&found, 1);
    // Worked out apart from edri, with Python.
    let law = &found["gutenberg_richter"];
    for (name, expect) in [("mc", 1.1), ("count", 934.0), ("b", 0.339_639), ("a", 3.343_950)] {
        let value = law[name].as_f64().unwrap();
        assert!((value - expect).abs() < 1e-6, "{name} is {value}, not {expect}");
    }
}

#[test]
fn a_repeated_catalogue_counts_alike() {
    let found = json(&["--repeat", "3"]);
    check_counts(&found, 3);
    check_report(&found, 3);
    let b = found["gutenberg_richter"]["b"].as_f64().unwrap();
    assert!((b - 0.339_639).abs() < 1e-6, "{b}");
}

#[test]
fn all_but_the_report_works_without_python() {
    let found = json(&["--no-python"]);
    check_counts(&found, 1);
    assert_eq!(found["regions"], Value::Null);

    let run = Run::start_with(&["--json"], |command| command.env("PATH", "/nowhere"));
    let (status, stdout, stderr) = run.end();
    assert!(status.success(), "{status}: {stderr}");
    assert!(stderr.contains("quakes: no report by region: `python3` cannot be started"), "{stderr}");
    let found = serde_json::from_str(&stdout).unwrap();
    check_counts(&found, 1);
    assert_eq!(found["regions"], Value::Null);
}

#[test]
fn a_summary_is_published_every_six_hours_of_the_replay() {
    // A week in three seconds, so six hours in a tenth of one.
    let found = json(&["--no-python", "--speed", "200000"]);
    check_findings(&found, 1);
    let summaries = found["summaries"].as_array().unwrap();
    // A busy machine may have missed some of the 28.
    assert!((10..=30).contains(&summaries.len()), "{summaries:?}");
    let alerts: Vec<_> = summaries.iter().map(|summary| summary["alerts"].as_u64().unwrap()).collect();
    assert!(alerts.is_sorted() && alerts.first() < alerts.last() && alerts.last() <= Some(&85), "{alerts:?}");
    let account = &found["account"];
    assert_eq!((&account["balanced"], &account["handled"]), (&true.into(), &account["deliveries"]), "{account}");
}

#[test]
fn a_killed_worker_is_replaced_and_the_run_goes_on() {
    // A week in three seconds.
    let mut run = Run::start(&["--json", "--speed", "200000"]);
    run.until_it_says("read a catalogue");
    let children = children(run.child.id());
    let python = children.iter().find(|(_, arguments)| arguments.contains("report.py"));
    let (pid, _) = python.unwrap_or_else(|| panic!("{children:?}"));
    signal(*pid, "-KILL");
    let (status, stdout, _) = run.end();
    assert!(status.success(), "{status}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["lost_workers"], serde_json::json!({"report": 1}));
    assert_eq!(found["account"]["balanced"], true);
    assert_eq!((&found["events"], &found["alerts"]), (&1707.into(), &85.into()));
    let counts = found["regions"].as_array().unwrap().iter().map(|region| region["count"].as_u64().unwrap());
    // Fewer than all, if it had seen one by then.
    assert!((1..=1707).contains(&counts.sum::<u64>()));
}

#[test]
fn a_broken_file_is_refused_by_name() {
    let whole = std::fs::read_to_string(CATALOGUE).unwrap();
    let check = |name: &str, content: &str, expect: &str| {
        let file = format!("{}/{name}.geojson", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&file, content).unwrap();
        let (status, stdout, stderr) = Run::start(&["--json", "--no-python", "--file", &file]).end();
        let said = stderr.lines().last().unwrap_or_default();
        assert_eq!(status.code(), Some(1), "{said}");
        assert_eq!(stdout, "");
        assert!(said.starts_with(&format!("quakes: {file}: {expect}")), "{said}");
    };
    check("truncated", &whole[..600_000], "not_geojson: ");
    check("broken", &whole.replacen(r#""mag":1.6"#, r#""mag":"1.6""#, 1), "broken_feature: feature 2 (ci37868135): ");
    let (status, _, stderr) = Run::start(&["--no-python", "--file", "no such file"]).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.ends_with("quakes: no such file: No such file or directory (os error 2)\n"), "{stderr}");
}

#[test]
fn a_signal_ends_the_example_soon_and_in_good_order() {
    let mut run = Run::start(&["--json", "--speed", "86400"]);
    // The replay begins, which lasts a week at a day a second.
    run.until_it_says("read a catalogue");
    let children = children(run.child.id());
    let told = Instant::now();
    signal(run.child.id(), "-TERM");
    let (status, stdout, _) = run.end();
    assert_eq!((status.code(), &*stdout), (Some(0), ""));
    assert!(told.elapsed() < Duration::from_secs(5), "it took {:?}", told.elapsed());

    // The analyst, Python, and the shell that watches over them, which learns of the end by it.
    assert!(children.len() >= 3, "{children:?}");
    let left = move || {
        while children.iter().any(|(pid, _)| is_running(*pid)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    within_limit("its processes to end", left);
}
