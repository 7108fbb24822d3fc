//! What the scenarios share: folders, nodes that run, and requests to them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine with much else to do.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A folder of its own, removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("edri-command-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("is made");
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("is written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn edri(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edri"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EDRI_")) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are text")
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.output().expect("is started")
}

pub(crate) fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A node that runs, and what it has said.
pub(crate) struct Running {
    pub(crate) child: Child,
    output: BufReader<ChildStdout>,
    pub(crate) lines: Vec<String>,
}

impl Running {
    /// Starts a node and waits until it says that it runs.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("is started");
        let output = BufReader::new(child.stdout.take().expect("is piped"));
        let mut running = Self { child, output, lines: Vec::new() };
        let first = running.next_line();
        running.lines.push(first);
        running
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("is read");
        if line.is_empty() {
            let mut errors = String::new();
            self.child.stderr.take().expect("is piped").read_to_string(&mut errors).expect("is read");
            panic!("the node has ended: {errors}");
        }
        line
    }

    /// What stands behind this word on one of the lines that it says once it runs.
    pub(crate) fn told(&mut self, word: &str) -> String {
        loop {
            let mut words = self.lines[self.lines.len() - 1].split_whitespace();
            if words.next() == Some(word) {
                return words.next().expect("there is a value").to_owned();
            }
            let line = self.next_line();
            self.lines.push(line);
        }
    }

    pub(crate) fn gateway(&mut self) -> SocketAddr {
        let url = self.told("gateway");
        url.strip_prefix("http://").expect("a URL").parse().expect("an address")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("is started").success());
    }

    /// Ends it in good order and gives its exit code and what it has logged.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        self.signal("-TERM");
        let mut log = String::new();
        self.child.stderr.take().expect("is piped").read_to_string(&mut log).expect("is read");
        let code = self.child.wait().expect("has ended").code();
        (code, log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of an answer.
pub(crate) fn http(to: SocketAddr, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    http_with(to, method, path, &authorization, body)
}

/// The same, with more headers.
pub(crate) fn http_with(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).expect("the gateway is there");
    stream.set_read_timeout(Some(LIMIT)).expect("is set");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("is read");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Head and body of the answer to what `curl` is asked with these arguments; of a stream, until its first event is there.
pub(crate) fn curl(arguments: &[&str]) -> (String, String) {
    let (mut body, mut is_stream, mut url, mut accept) = ("", false, "", "accept: */*");
    let mut rest = arguments.iter().take_while(|argument| **argument != "#");
    while let Some(argument) = rest.next() {
        match *argument {
            "-d" => body = rest.next().expect("-d has a value"),
            "-N" => is_stream = true,
            "-H" => accept = rest.next().expect("-H has a value"),
            other => url = other.strip_prefix("http://").expect("a URL"),
        }
    }
    let (to, path) = url.split_once('/').expect("a path");
    // As curl calls it, whatever it is.
    let (method, kind) = if body.is_empty() {
        ("GET", String::new())
    } else {
        ("POST", format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", body.len()))
    };
    let mut stream = TcpStream::connect(to).expect("the gateway is there");
    stream.set_read_timeout(Some(LIMIT)).expect("is set");
    let head = format!("{method} /{path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{accept}\r\n{kind}\r\n{body}");
    stream.write_all(head.as_bytes()).expect("is sent");
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).expect("is read");
        answer.extend_from_slice(&piece[..read]);
        let text = said(&answer);
        let has_event = || text.split_once("data:").is_some_and(|(_, data)| data.contains("\n\n"));
        if read == 0 || (is_stream && has_event()) {
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            return (head.to_owned(), body.to_owned());
        }
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The interpreter of a virtual environment beside the build that has the SDK; made when it is missing.
pub(crate) fn python() -> PathBuf {
    let program = std::env::current_exe().expect("a test has a path");
    let target = program.ancestors().nth(3).expect("it is in target/debug/deps");
    let script = repository().join("sdk/python/environment.py");
    let made = Command::new("python3").arg(script).arg(target.join("python")).arg("test").output();
    let made = made.expect("these tests need Python 3.9 or later: install python3");
    assert!(made.status.success(), "{}", said(&made.stderr));
    PathBuf::from(said(&made.stdout).trim())
}
