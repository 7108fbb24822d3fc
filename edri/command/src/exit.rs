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
//! | 130 | Ctrl-C: what was open has been taken back |

use std::io::Write;
use std::process::ExitCode;

/// What went wrong, and the exit code that says so.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failed {
    pub(crate) code: u8,
    /// What happened, and what to do about it. Empty when there is nothing to say.
    pub(crate) message: String,
}

impl Failed {
    fn with(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// It was tried, and did not succeed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::with(1, message)
    }

    /// The command line or the configuration is wrong: nothing was begun.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::with(2, message)
    }

    /// The node, or the one behind it, cannot be reached.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::with(3, message)
    }

    /// The node does not let whoever asks do this.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::with(4, message)
    }

    /// There is no such thing, or nobody who handles it.
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self::with(5, message)
    }

    /// It took too long.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::with(6, message)
    }

    /// Ctrl-C, as shells say it.
    pub(crate) fn interrupted() -> Self {
        Self::with(130, "")
    }

    /// Whoever read the output has stopped reading: there is nobody to tell, and nothing wrong.
    pub(crate) fn nobody_reads() -> Self {
        Self::with(0, "")
    }
}

/// Tells what went wrong on the standard error, and with what code to exit.
pub(crate) fn code(done: Result<(), Failed>) -> ExitCode {
    let Err(failed) = done else { return ExitCode::SUCCESS };
    if !failed.message.is_empty() {
        // Nobody is left to be told that the standard error is closed.
        drop(writeln!(std::io::stderr(), "edri: {failed}"));
    }
    ExitCode::from(failed.code)
}
