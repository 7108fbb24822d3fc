//! Clients of a node that runs.

mod any;
mod backup;
mod bench;
mod connection;
mod drain;
mod failed;
mod letters;
mod output;
mod payload;
mod run;
mod schedule;
mod send;
mod show;
mod store;
mod subscribe;
mod top;
mod tunnel;

use crate::exit::Failed;
use connection::On;

/// What is asked of a node that runs.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Publishes notifications.
    Publish(On<send::Publish>),
    /// Sends a request and shows its response.
    Request(On<send::Request>),
    /// Shows events as they come, until Ctrl-C.
    Subscribe(On<subscribe::Subscribe>),
    /// Opens a tunnel between the standard input and output and a worker.
    Tunnel(On<tunnel::Tunnel>),
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
    /// Shows, resends and drops events that could not be delivered or handled.
    DeadLetters(On<letters::DeadLetters>),
    /// Adds, lists, cancels, pauses and runs entries of a scheduler.
    Schedule(On<schedule::Schedule>),
    /// Reads, writes, watches and backs up a namespace of a store.
    Store(On<store::Store>),
    /// Shows live what a node, or its whole cluster, is doing.
    Top(On<top::Top>),
    /// Puts load on a node, and tells how fast it is.
    Bench(On<bench::Bench>),
    /// Stops a node, or takes one manager off it, once what it has is finished.
    Drain(On<drain::Drain>),
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
            Self::Tunnel(command) => run::run(command),
            Self::DeadLetters(command) => run::run(command),
            Self::Schedule(command) => run::run(command),
            Self::Store(command) => run::run(command),
            Self::Top(command) => run::run(command),
            Self::Bench(command) => run::run(command),
            Self::Drain(command) => run::run(command),
        }
    }
}
