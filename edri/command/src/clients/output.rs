//! What is written: for people, or one JSON value a line.

use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;

use crate::exit::Failed;

/// Where and how it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    pub(super) json: bool,
    pub(super) colour: bool,
}

/// A colour that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Head,
    Good,
    Warn,
    Bad,
    Dim,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Head => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Dim => "\x1b[2m",
        }
    }
}

impl Out {
    pub(super) fn new(json: bool) -> Self {
        // https://no-color.org: whatever its value, unless it is empty.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colour: !json && wanted && std::io::stdout().is_terminal() }
    }

    /// A line on the standard output.
    pub(super) fn line(&self, text: &str) -> Result<(), Failed> {
        let mut text = text.to_owned();
        text.push('\n');
        self.bytes(text.as_bytes())
    }

    /// These bytes on the standard output, at once.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), Failed> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failed::nobody_reads(),
            _ => Failed::new(format!("writing the standard output: {error}")),
        })
    }

    /// A JSON value on a line.
    pub(super) fn value(&self, value: &impl Serialize) -> Result<(), Failed> {
        let text = serde_json::to_string(value).map_err(|error| Failed::new(format!("no JSON: {error}")))?;
        self.line(&text)
    }

    /// Something beside the output, for people, on the standard error.
    pub(super) fn note(&self, text: &str) {
        // Nobody is left to be told that the standard error is closed.
        drop(writeln!(std::io::stderr(), "edri: {}", clean(text)));
    }

    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        match tone.code() {
            "" => text.to_owned(),
            _ if !self.colour => text.to_owned(),
            code => format!("{code}{text}\x1b[0m"),
        }
    }

    pub(super) fn table(&self, table: &Table) -> Result<(), Failed> {
        if table.rows.is_empty() {
            return Ok(());
        }
        self.bytes(table.render(self).as_bytes())
    }
}

/// Text from elsewhere for a terminal, which must not act on what is in it.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { cleaned.extend(c.escape_default()) } else { cleaned.push(c) }
    }
    cleaned
}

/// The text, cut to so many characters.
pub(super) fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: clean(&text.into()), tone }
    }
}

impl<T: std::fmt::Display> From<T> for Cell {
    fn from(value: T) -> Self {
        Self::toned(Tone::Plain, value.to_string())
    }
}

/// Rows whose columns stand below one another.
#[derive(Debug)]
pub(super) struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// With these headings; one that begins with `>` is of numbers, which stand to the right.
    pub(super) fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }

    fn render(&self, out: &Out) -> String {
        let heading = |column: &&str| Cell::toned(Tone::Head, column.trim_start_matches('>'));
        let head: Vec<_> = self.columns.iter().map(heading).collect();
        let rows = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| rows().map(|row| row[column].text.chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in rows() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let space = " ".repeat(widths[column] - cell.text.chars().count());
                let painted = out.paint(cell.tone, &cell.text);
                let gap = if column == 0 { "" } else { "  " };
                if self.columns[column].starts_with('>') {
                    line.extend([gap, &space, &painted]);
                } else {
                    line.extend([gap, &painted, &space]);
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A number that may not be there.
pub(super) fn or_dash(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A time span for people: `90s`, `3m10s`, `2d4h`.
pub(super) fn span(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
    let whole = seconds as u64;
    match whole {
        0..10 => format!("{seconds:.1}s"),
        10..100 => format!("{whole}s"),
        100..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{:02}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// Microseconds for people.
pub(super) fn micros(micros: f64) -> String {
    match micros {
        m if m < 1_000.0 => format!("{m:.0}µs"),
        m if m < 1_000_000.0 => format!("{:.1}ms", m / 1_000.0),
        m => format!("{:.2}s", m / 1_000_000.0),
    }
}

/// Bytes for people.
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count}B"),
        10_000..10_000_000 => format!("{}KiB", count >> 10),
        10_000_000..10_000_000_000 => format!("{}MiB", count >> 20),
        _ => format!("{}GiB", count >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Out = Out { json: false, colour: false };

    #[test]
    fn columns_stand_below_one_another_and_numbers_to_the_right() {
        let mut table = Table::new(&["MANAGER", ">QUEUED", "STATE"]);
        table.row(["risk".into(), 7.into(), "running".into()]);
        table.row(["a-longer-name".into(), 12_345.into(), "failed".into()]);
        let expect = "MANAGER        QUEUED  STATE\nrisk                7  running\na-longer-name   12345  failed\n";
        assert_eq!(table.render(&PLAIN), expect);
    }

    #[test]
    fn colours_change_nothing_but_the_colours() {
        let mut table = Table::new(&["A", ">B"]);
        table.row([Cell::toned(Tone::Bad, "failed"), 1.into()]);
        let painted = table.render(&Out { json: false, colour: true });
        assert!(painted.contains("\x1b[31mfailed\x1b[0m"), "{painted:?}");
        let plain = ["\x1b[31m", "\x1b[1m", "\x1b[0m"].iter().fold(painted, |text, code| text.replace(code, ""));
        assert_eq!(plain, table.render(&PLAIN));
    }

    #[test]
    fn text_from_elsewhere_cannot_act_on_the_terminal() {
        let cell = Cell::toned(Tone::Plain, "a\x1b]0;title\x07\u{9b}2J\n");
        assert!(!cell.text.chars().any(char::is_control), "{cell:?}");
    }

    #[test]
    fn spans_are_for_people() {
        let spans = [0.25, 42.0, 190.0, 7_500.0, 190_000.0].map(span);
        assert_eq!(spans, ["0.2s", "42s", "3m10s", "2h05m", "2d04h"]);
        assert_eq!([12.0, 1_500.0, 2_000_000.0].map(micros), ["12µs", "1.5ms", "2.00s"]);
        assert_eq!(short("abcdef", 4), "abc…");
    }
}
