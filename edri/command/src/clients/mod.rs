//! Clients of a node that runs.

mod connection;
mod failed;
mod output;
mod payload;
mod run;
mod send;
mod show;
mod subscribe;

use connection::On;
use crate::exit::Failed;

/// What is asked of a node that runs.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Publishes notifications.
    Publish(On<send::Publish>),
    /// Sends a request and shows its response.
    Request(On<send::Request>),
    /// Shows events as they come, until Ctrl-C.
    Subscribe(On<subscribe::Subscribe>),
    /// Lists the events that the node knows; of one, all that is known.
    Events(On<show::Events>),
    /// Shows the node and the others of its cluster as it sees them.
    Nodes(On<show::Nodes>),
    /// Shows the links between nodes.
    Links(On<show::Links>),
    /// Shows managers: what they have done, what waits for them, how long it takes.
    Managers(On<show::Managers>),
    /// Shows worker instances: their state, restarts, and why they were lost.
    Workers(On<show::Workers>),
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failed> {
        match self {
            Self::Publish(command) => run::run(command),
            Self::Request(command) => run::run(command),
            Self::Subscribe(command) => run::run(command),
            Self::Events(command) => run::run(command),
            Self::Nodes(command) => run::run(command),
            Self::Links(command) => run::run(command),
            Self::Managers(command) => run::run(command),
            Self::Workers(command) => run::run(command),
        }
    }
}
