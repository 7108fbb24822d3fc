//! The example `helpdesk`, as people use it with a browser.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use crate::quakes::{Run, built, signal};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/helpdesk");
const ENVIRONMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk/python/environment.py");

#[test]
fn the_help_desk_works_in_a_browser_with_scripts_and_without() {
    let Some(sdk) = crate::typescript::sdk() else { return };
    let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
    let data = std::env::temp_dir().join(format!("edri-helpdesk-{}-{time}", std::process::id()));
    let arguments = ["--listen", "127.0.0.1:0", "--digest", "* * * * * *", "--data"];
    let data_argument = data.to_str().expect("text");
    let program = built("helpdesk");
    // The example does it too, but the first time that takes longer than a node may.
    let target = program.ancestors().nth(3).expect("it is in target/debug/examples");
    let environment = Command::new("python3").arg(ENVIRONMENT).arg(target.join("helpdesk-python")).output();
    assert!(environment.expect("these tests need Python 3.9 or later: install python3").status.success());
    let mut run = Run::of(&program, &[&arguments[..], &[data_argument]].concat());
    let line = run.until_it_says("the help desk is open at");
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("it says where").to_owned();
    crate::typescript::passes_at(sdk, "helpdesk.test.mjs", &url);
    signal(run.id(), "-TERM");
    assert!(run.end().0.success());
    std::fs::remove_dir_all(data).expect("is removed");
}

#[test]
fn the_help_desk_is_fewer_than_400_lines_of_rust() {
    let files = std::fs::read_dir(Path::new(FOLDER)).expect("is a folder").map(|entry| entry.expect("an entry").path());
    let rust = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let lines = |path| std::fs::read_to_string(path).expect("is read");
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let count: usize = rust.map(|path| lines(path).lines().filter(is_code).count()).sum();
    assert!(count > 100 && count < 400, "{count} lines");
}
