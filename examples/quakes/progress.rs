//! One line on a terminal that is drawn again and again while the program works.

use std::io::{self, IsTerminal, Stderr, Write};
use std::time::Instant;

use edri::{GroupView, Topology};

use crate::events::Progress;
use crate::report::grouped;

/// Draws on stderr if that is a terminal; dropping it clears the line.
pub(crate) struct ProgressLine {
    terminal: Option<Stderr>,
    last: (Instant, u64),
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        Self { terminal: Some(io::stderr()).filter(IsTerminal::is_terminal), last: (Instant::now(), 0) }
    }

    /// Shows how far the replay is, how fast, and how full each manager's inboxes are.
    pub(crate) fn draw(&mut self, progress: &Progress, topology: &Topology) {
        let Some(terminal) = &mut self.terminal else { return };
        let (since, before) = std::mem::replace(&mut self.last, (Instant::now(), progress.recorded));
        let rate = (progress.recorded - before) as f64 / since.elapsed().as_secs_f64();
        let inboxes: String = topology.managers.iter().map(inboxes).collect();
        let (recorded, rate) = (grouped(progress.recorded), grouped(rate as u64));
        // Without line wrap (DECAWM) a narrow terminal cuts the line off. A terminal that is gone is no reason to stop.
        let _ = write!(terminal, "\r\x1b[?7l{recorded:>9} quakes {rate:>7}/s {inboxes}\x1b[K\x1b[?7h");
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            let _ = write!(terminal, "\r\x1b[K");
        }
    }
}

/// ` counter ▁▃▁█`: how full each inbox of a manager is.
fn inboxes(manager: &GroupView) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let Some(name) = manager.name.manager() else { return String::new() };
    let level = |depth: &usize| LEVELS[(depth * 7).div_ceil(manager.capacity).min(7)];
    format!(" {name} {}", manager.depths.iter().map(level).collect::<String>())
}
