//! The example with its gateway.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::{LIMIT, Run, signal};

/// Asks with GET, and gives the answer's head and body, as far as they come before the limit.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.to_owned(), body.to_owned())
}

#[test]
fn served_it_answers_whoever_asks_and_ends_when_it_is_told_to() {
    let mut run = Run::start(&["--serve", "127.0.0.1:0", "--speed", "1000000", "--no-python"]);
    let line = run.until_it_says(" shows quakes as they come");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("it says where");
    let (head, page) = get(address, "/");
    assert!(head.starts_with("HTTP/1.1 200") && page.contains("app.js"), "{head}");
    // One of the quakes that were before somebody looked on, or of those that come.
    let mut feed = TcpStream::connect(address).unwrap();
    feed.set_read_timeout(Some(LIMIT)).unwrap();
    write!(feed, "GET /subscribe?event=quake.recorded&last=1 HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !text.windows(9).any(|at| at == b"\"place\":\"") && text.len() < 1 << 20 {
        let read = feed.read(&mut buffer).expect("a quake comes");
        assert!(read > 0, "the feed ended");
        text.extend_from_slice(&buffer[..read]);
    }
    let (head, alerts) = get(address, "/alerts");
    assert!(head.contains("application/json"), "{head}");
    let alerts: Value = serde_json::from_str(&alerts).unwrap();
    assert!(alerts["count"].is_u64(), "{alerts}");
    assert!(get(address, "/events/quake.recorded").0.starts_with("HTTP/1.1 405"));
    signal(run.child.id(), "-TERM");
    let (status, ..) = run.end();
    assert!(status.success(), "{status}");
}

#[test]
fn its_page_shows_quakes_and_managers_in_a_browser_of_any_width_in_dark_and_light_and_with_a_keyboard() {
    let Some(sdk) = crate::typescript::sdk() else { return };
    let mut run = Run::start(&["--serve", "127.0.0.1:0", "--repeat", "50", "--no-python"]);
    let line = run.until_it_says(" shows quakes as they come");
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("it says where").to_owned();
    crate::typescript::passes_at(sdk, "page.test.mjs", &url);
    signal(run.child.id(), "-TERM");
    assert!(run.end().0.success());
}
