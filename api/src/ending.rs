//! When what a caller has open ends before its time: its session is over, or its token is taken back.

use tokio::sync::watch;

use crate::Caller;
use crate::gateway::Shared;
use crate::sessions;

/// Waits until a caller is let in no more.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Its session ends.
    Session(sessions::Ending),
    /// Its token stands in its file no more, or with something else behind it.
    Token(watch::Receiver<()>),
}

impl Ending {
    /// What ends this caller; `None` when nothing does but time.
    pub(crate) async fn of(shared: &Shared, caller: &Caller) -> Option<Self> {
        if let Some(stands) = caller.stands() {
            return Some(Self::Token(stands.clone()));
        }
        shared.log_ins.as_ref()?.ending(caller).await.map(Self::Session)
    }

    /// Ready once the caller is let in no more, with what it is told. Cancel safe.
    pub(crate) async fn over(&mut self) -> &'static str {
        match self {
            Self::Session(ending) => {
                ending.over().await;
                "the session has ended: log in again"
            }
            Self::Token(stands) => {
                // Nothing is sent: the file's entry holds the sender, and is dropped.
                while stands.changed().await.is_ok() {}
                "the token is taken back: connect with another"
            }
        }
    }
}
