//! `drain`.

use std::time::Duration;

use edri::operations::{Describe, DrainManager, DrainNode};
use serde_json::json;
use tokio::time::Instant;

use super::connection::Session;
use super::run::Work;
use crate::exit::Failed;

/// How often it is looked whether the node is gone.
const LOOK: Duration = Duration::from_millis(100);
/// What a node may take beyond its drain limit.
const GRACE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Drain {
    /// Takes only this manager off the node. Without it the whole node stops.
    #[arg(long, value_name = "NAME")]
    manager: Option<String>,
    /// Drains this node of the cluster instead of the one that the command is connected to.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Does not wait until the node has stopped.
    #[arg(long, conflicts_with = "manager")]
    no_wait: bool,
}

impl Work for Drain {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let to = self.to.as_deref();
        match self.manager {
            Some(manager) => drain_manager(&session, to, manager).await,
            None => drain_node(&session, to, !self.no_wait).await,
        }
    }
}

async fn drain_manager(session: &Session, to: Option<&str>, manager: String) -> Result<(), Failed> {
    let drained = session.ask(to, DrainManager { manager }).await?;
    if session.out.json {
        session.out.value(&drained)?;
    } else {
        session.out.line(&format!("the manager `{}` is off its node", drained.manager))?;
    }
    let left = drained.undelivered + drained.interrupted;
    if left + drained.stuck == 0 {
        return Ok(());
    }
    Err(Failed::new(format!(
        "{} events no worker had, {} were in a worker's hands when it was ended, {} threads are stuck: `edri dead-letters list` \
         shows the events",
        drained.undelivered, drained.interrupted, drained.stuck
    )))
}

async fn drain_node(session: &Session, to: Option<&str>, wait: bool) -> Result<(), Failed> {
    let own = to.is_none_or(|to| to.trim_end_matches('/') == session.node());
    let draining = session.ask(to, DrainNode {}).await?;
    let limit = Duration::from_millis(draining.limit_ms);
    let told = |state: &str, text: String| {
        if session.out.json {
            return session.out.value(&json!({"node": draining.node, "state": state, "limit_ms": draining.limit_ms}));
        }
        session.out.line(&text)
    };
    told("stopping", format!("`{}` stops, within {limit:?} at most", draining.node))?;
    if !wait {
        return Ok(());
    }
    let over = Instant::now() + limit + GRACE;
    while Instant::now() < over {
        let gone = if own { !session.client.is_connected() } else { is_gone(session, &draining.node).await };
        if gone {
            return told("stopped", format!("`{}` has stopped", draining.node));
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failed::timed_out(format!("`{}` still answers after its drain limit: look into its log", draining.node)))
}

/// Whether another node answers no more.
async fn is_gone(session: &Session, node: &str) -> bool {
    let asked = session.client.request_at(node, Describe::default()).await;
    asked.is_err_and(|error| matches!(error.code(), "no_handler" | "peer_lost" | "stopping"))
}
