//! Clients of a node that runs.

use crate::exit::Failed;

/// What is asked of a node that runs.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Lists the events that the node knows.
    Events {
        /// The node's gateway.
        #[arg(long, env = "EDRI_URL", default_value = "ws://127.0.0.1:8080/ws")]
        url: String,
    },
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let Self::Events { url } = self;
        let runtime = tokio::runtime::Runtime::new().map_err(|error| Failed::new(error.to_string()))?;
        runtime.block_on(async {
            let client = edri::Client::connect(url).await.map_err(|error| Failed::new(error.to_string()))?;
            client.close().await;
            Ok(())
        })
    }
}
