//! The project's own chores: `cargo xtask <verb>`.
//!
//! `check` is what CI runs, `tidy` the part of it that reads the repository instead of compiling it. This program uses
//! nothing but the standard library, git where there is one, and the cargo that started it, so that it runs first and in
//! seconds. It knows the shape of the repository and nothing of how edri works.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to whoever typed it")]

mod check;
mod json;
mod markdown;
mod repo;
mod shell;
mod simulate;
mod source;
mod tidy;
mod workspace;

use std::process::ExitCode;

/// Every verb, with what `help` says about it.
const VERBS: [(&str, &str); 4] = [
    ("check", "what CI runs: fmt, tidy, clippy, doc, test and, where it can run, cargo deny"),
    ("tidy", "what the compiler does not see: dead files, links, layers, commands and tests named in documents"),
    (
        "simulate",
        "networks of engines with faults: --seeds N of them, from --seed S on; --seed S alone tells what that one does",
    ),
    ("help", "this list"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check::run(),
        ["tidy"] => tidy::run(),
        ["simulate", ..] => simulate::run(&arguments[1..]),
        [] | ["help" | "--help" | "-h"] => {
            println!("{}", help());
            Ok(())
        }
        _ => Err(format!("unknown arguments: {}\n{}", arguments.join(" "), help())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let verbs = VERBS.map(|(verb, about)| format!("  {verb:<10}{about}"));
    format!("usage: cargo xtask <verb>\n\n{}", verbs.join("\n"))
}
