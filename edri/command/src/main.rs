//! The `edri` command: runs nodes from a configuration, uses those that run, and watches them.
//!
//! ```text
//!   arguments ─┬─▶ run, check, keys     a node of this process, from a configuration
//!              └─▶ publish, request, …  a client of a node that runs, by its URL and a token
//! ```

mod clients;
mod exit;
mod node;

use std::process::ExitCode;

use clap::Parser;

/// Runs, uses and watches nodes of event routing infrastructure.
#[derive(Parser)]
#[command(name = "edri", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Node(node::Command),
    #[command(flatten)]
    Client(clients::Command),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Node(command) => command.run(),
        Command::Client(command) => command.run(),
    };
    exit::code(done)
}
