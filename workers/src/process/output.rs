//! What a process writes to its standard output and error, as records of the node's log.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edri_events::ManagerName;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;

/// The longest line that is kept whole.
const LINE_BYTES_MAX: usize = 8 << 10;
/// The most lines of one process that are logged in one second; the others are counted.
const LINES_PER_SECOND_MAX: u32 = 1000;
/// How many of the last lines on standard error are kept, to say why a process ended.
const LAST_LINES: usize = 8;

/// Which worker a record is of.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) manager: ManagerName,
    pub(super) instance: usize,
    pub(super) pid: u32,
}

/// The last lines a process wrote to its standard error.
#[derive(Debug, Clone, Default)]
pub(super) struct LastWords {
    // Held to add a line or to copy them.
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl LastWords {
    fn add(&self, line: &str) {
        let mut lines = self.lines.lock();
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The lines, to be put behind the reason for an end.
    pub(super) fn text(&self) -> String {
        let lines: Vec<_> = self.lines.lock().iter().cloned().collect();
        if lines.is_empty() { String::new() } else { format!("; it wrote: {}", lines.join(" | ")) }
    }
}

/// Reads a process's output until it ends.
pub(super) async fn read(fd: OwnedFd, source: Source, last: Option<LastWords>) {
    match pipe::Receiver::from_owned_fd(fd) {
        Ok(pipe) => read_lines(pipe, source, last).await,
        Err(error) => tracing::warn!(manager = %source.manager, %error, "the output of a process cannot be read"),
    }
}

async fn read_lines(mut pipe: impl AsyncRead + Unpin, source: Source, last: Option<LastWords>) {
    let is_error = last.is_some();
    let mut lines = Lines::default();
    let mut flood = Flood::new(Instant::now());
    let mut chunk = vec![0; 16 << 10];
    loop {
        let count = match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        lines.add(&chunk[..count], |line| {
            if let Some(last) = &last {
                last.add(line);
            }
            let (may, left_out) = flood.admit(Instant::now());
            if left_out > 0 {
                log_left_out(&source, left_out);
            }
            if may {
                log_line(&source, is_error, line);
            }
        });
    }
    lines.finish(|line| {
        if let Some(last) = &last {
            last.add(line);
        }
        log_line(&source, is_error, line);
    });
    if flood.left_out > 0 {
        log_left_out(&source, flood.left_out);
    }
}

fn log_line(source: &Source, is_error: bool, line: &str) {
    let Source { manager, instance, pid } = source;
    if is_error {
        tracing::warn!(target: "edri::worker", %manager, instance, pid, stream = "stderr", "{line}");
    } else {
        tracing::info!(target: "edri::worker", %manager, instance, pid, stream = "stdout", "{line}");
    }
}

fn log_left_out(source: &Source, lines: u64) {
    let Source { manager, instance, pid } = source;
    tracing::warn!(target: "edri::worker", %manager, instance, pid, lines, "so many lines of its output were left out: it writes too much");
}

/// Lets so many through a second and counts the others.
pub(super) struct Flood {
    second: Instant,
    admitted: u32,
    left_out: u64,
}

impl Flood {
    pub(super) fn new(now: Instant) -> Self {
        Self { second: now, admitted: 0, left_out: 0 }
    }

    /// Whether one more may pass, and how many were left out in seconds before this one.
    pub(super) fn admit(&mut self, now: Instant) -> (bool, u64) {
        let mut told = 0;
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            told = std::mem::take(&mut self.left_out);
            (self.second, self.admitted) = (now, 0);
        }
        let may = self.admitted < LINES_PER_SECOND_MAX;
        if may {
            self.admitted += 1;
        } else {
            self.left_out += 1;
        }
        (may, told)
    }
}

/// Cuts bytes into lines; what is too long is cut off, and what is no UTF-8 replaced.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    cut: bool,
}

impl Lines {
    fn add(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            self.end(&mut line);
            rest = &rest[end + 1..];
        }
        self.keep(rest);
    }

    fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !self.begun.is_empty() {
            self.end(&mut line);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - self.begun.len();
        self.cut |= bytes.len() > room;
        self.begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end(&mut self, line: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.begun);
        let text = text.trim_end_matches('\r');
        if self.cut {
            line(&format!("{text} … (cut off)"));
        } else {
            line(text);
        }
        self.begun.clear();
        self.cut = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_they_end_and_where_they_are_too_long() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for bytes in [&b"a\nb"[..], b"c\r\n\n", &[b'x'; LINE_BYTES_MAX + 5], b"\n\xffend"] {
            lines.add(bytes, |line| seen.push(line.to_owned()));
        }
        lines.finish(|line| seen.push(line.to_owned()));
        let long = format!("{} … (cut off)", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(seen, ["a", "bc", "", long.as_str(), "\u{fffd}end"]);
    }

    #[test]
    fn a_flood_is_limited_and_counted() {
        let begin = Instant::now();
        let mut flood = Flood::new(begin);
        let admitted = (0..5000).filter(|_| flood.admit(begin).0).count();
        assert_eq!(admitted, LINES_PER_SECOND_MAX as usize);
        assert_eq!(flood.admit(begin + Duration::from_secs(1)), (true, 4000));
        assert_eq!(flood.admit(begin + Duration::from_secs(1)), (true, 0));
    }
}
