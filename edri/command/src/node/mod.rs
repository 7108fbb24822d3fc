//! A node of this process: what it is made of, what it runs with, and its keys.

mod config;
mod keys;
mod logs;
mod run;
#[cfg(feature = "otlp")]
mod traces;

use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::exit::Failed;

/// What is done without a node that runs already.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Runs a node on this machine until it is stopped.
    ///
    /// Without a file it is a node in memory, with a gateway on 127.0.0.1:8080, a store and a scheduler, and a token that is printed
    /// once. Variables override what the file says: `EDRI__API__BIND=127.0.0.1:9000` sets `bind` in `[api]`.
    Run {
        /// The configuration.
        file: Option<PathBuf>,
        /// Prints a file with every option and its default, and ends.
        #[arg(long, conflicts_with = "file")]
        reference: bool,
    },
    /// Says what is wrong with a configuration, all of it at once, and starts nothing.
    Check {
        /// The configuration.
        #[arg(default_value = "edri.toml")]
        file: PathBuf,
        /// Prints a file with every option and its default, and ends.
        #[arg(long)]
        reference: bool,
    },
    /// Makes and shows the keys by which the nodes of a cluster know each other.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Makes a token: its secret for whoever uses it, and the lines for the configuration.
    Token {
        /// What its holder is called.
        #[arg(default_value = "operator")]
        name: String,
    },
    /// Prints what a shell needs to complete the words of this command.
    Completions {
        /// The shell; without it, the one that is used.
        shell: Option<clap_complete::Shell>,
    },
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failed> {
        match self {
            Self::Run { reference: true, .. } | Self::Check { reference: true, .. } => say(config::REFERENCE),
            Self::Run { file, reference: false } => run::run(file.as_deref()),
            Self::Check { file, reference: false } => run::check(&file),
            Self::Keys(command) => command.run(),
            Self::Token { name } => keys::token(&name),
            Self::Completions { shell } => completions(shell),
        }
    }
}

fn completions(shell: Option<clap_complete::Shell>) -> Result<(), Failed> {
    let shell = shell.or_else(clap_complete::Shell::from_env).ok_or_else(|| {
        Failed::usage("which shell? `edri completions bash`, `elvish`, `fish`, `powershell` or `zsh`")
    })?;
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut crate::Arguments::command(), "edri", &mut text);
    say(&String::from_utf8_lossy(&text))
}

/// Says something on the standard output. Whoever has closed it has heard enough.
fn say(text: &str) -> Result<(), Failed> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failed::new(format!("the standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
