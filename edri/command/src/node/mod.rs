//! A node of this process.

use crate::exit::Failed;

/// What is done without a node that runs already.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Runs a node on this machine until it is stopped.
    Run {},
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let Self::Run {} = self;
        edri::App::new("edri").run().map_err(|error| Failed::new(error.to_string()))
    }
}
