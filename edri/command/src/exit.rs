//! What the command tells whoever started it.

use std::io::Write;
use std::process::ExitCode;

/// What went wrong, and the exit code that says so.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failed {
    pub(crate) code: u8,
    /// What happened, and what to do about it.
    pub(crate) message: String,
}

impl Failed {
    /// It was tried, and did not succeed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }
}

/// Tells what went wrong on the standard error, and with what code to exit.
pub(crate) fn code(done: Result<(), Failed>) -> ExitCode {
    let Err(failed) = done else { return ExitCode::SUCCESS };
    // Nobody is left to be told that the standard error is closed.
    drop(writeln!(std::io::stderr(), "edri: {failed}"));
    ExitCode::from(failed.code)
}
