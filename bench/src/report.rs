//! What is printed: a table for people, or one JSON object a line.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this module is for")]

use std::time::Duration;

use crate::case::Outcome;
use crate::{RUNTIME_WORKERS, pinned};

/// Prints how long something took.
pub(crate) fn took(took: Duration) {
    println!("{took:?}");
}

/// Says how far a case is that takes minutes, apart from what is measured.
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

/// Prints outcomes as they come.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    missed: usize,
}

impl Report {
    pub(crate) fn begin(json: bool) -> Self {
        if !json {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let pinned = if pinned::is_pinned() { ", pinned to one core" } else { "" };
            println!(
                "tokio with {RUNTIME_WORKERS} workers, {cores} cores{pinned}; ratio: ours / reference, more is better\n"
            );
            println!(
                "{:<26} {:>9} {:>9} {:<16} {:<34} {:>7} {:>7}",
                "case", "ours", "reference", "unit", "of", "ratio", "budget"
            );
        }
        Self { json, missed: 0 }
    }

    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.missed += usize::from(outcome.within == Some(false));
        if self.json {
            println!("{}", serde_json::to_string(outcome).expect("an outcome is plain data"));
        } else {
            println!("{}", line(outcome));
        }
    }

    /// Says that a case was left out; in JSON apart from the objects.
    pub(crate) fn leave_out(&self, case: &str, why: &str) {
        if self.json {
            eprintln!("{case} is left out: {why}");
        } else {
            println!("{case:<26} left out: {why}");
        }
    }

    /// How many budgets were missed.
    pub(crate) fn end(self) -> usize {
        if !self.json {
            match self.missed {
                0 => println!("\nevery budget is kept"),
                missed => println!("\n{missed} below budget"),
            }
        }
        self.missed
    }
}

fn line(outcome: &Outcome) -> String {
    let budget = outcome.budget.map_or_else(String::new, |budget| format!(">= {budget}"));
    let missed = if outcome.within == Some(false) { "MISSED, " } else { "" };
    format!(
        "{:<26} {:>9} {:>9} {:<16} {:<34} {:>7.2} {:>7}  {missed}{}",
        outcome.case,
        short(outcome.ours),
        short(outcome.reference_value),
        outcome.unit,
        outcome.reference,
        outcome.ratio,
        budget,
        outcome.note
    )
}

/// Three digits and a word for the size.
fn short(value: f64) -> String {
    let (scaled, suffix) = match value {
        value if value >= 1e9 => (value / 1e9, " G"),
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e4 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let decimals = match scaled {
        scaled if scaled >= 100.0 => 0,
        scaled if scaled >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_three_digits() {
        let shorts = [3.17159, 31.4159, 314.159, 3141.59, 31_415.9, 3.14159e6, 3.2e9].map(short);
        assert_eq!(shorts, ["3.17", "31.4", "314", "3142", "31.4 k", "3.14 M", "3.20 G"]);
    }

    #[test]
    fn a_line_of_json_has_exactly_the_fields_that_readers_know() {
        let outcome = Outcome {
            case: "local.notify".to_owned(),
            unit: "events/s".to_owned(),
            ours: 2.0,
            reference: "mpsc".to_owned(),
            reference_value: 1.0,
            ratio: 2.0,
            budget: Some(1.2),
            within: Some(true),
            note: "left out".to_owned(),
        };
        let expect = r#"{"case":"local.notify","unit":"events/s","ours":2.0,"reference":"mpsc","reference_value":1.0,"ratio":2.0,"budget":1.2,"within":true}"#;
        assert_eq!(serde_json::to_string(&outcome).expect("plain data"), expect);
    }
}
