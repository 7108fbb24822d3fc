//! What the command tells whoever started it.
//!
//! | code | means |
//! |---|---|
//! | 0 | it was done; a node that ran was stopped in good order |
//! | 1 | it was tried, and did not succeed |
//! | 2 | the command line or the configuration is wrong; nothing was begun |
//! | 3 | the node cannot be reached |
//! | 4 | the node refused: the token is not known, or may not do that |
//! | 5 | there is no such thing: no handler, no event, no entry |
//! | 6 | it took too long |

use std::io::Write;
use std::process::ExitCode;

/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

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

    /// What was asked for cannot be as it was asked for.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }
}

/// Tells what went wrong on the standard error, and with what code to exit.
pub(crate) fn code(done: Result<(), Failed>) -> ExitCode {
    let Err(failed) = done else { return ExitCode::SUCCESS };
    // Nobody is left to be told that the standard error is closed.
    drop(writeln!(std::io::stderr(), "edri: {failed}"));
    ExitCode::from(failed.code)
}
