//! How a command runs: it connects, does its work, and leaves nothing half done, however it ends.

use std::time::Duration;

use super::connection::{On, Session};
use crate::exit::Failed;

/// How long the end may take after Ctrl-C.
const END_TIME: Duration = Duration::from_secs(3);

/// A command that uses a node.
pub(super) trait Work: Send + 'static {
    /// Does it. Dropped at any moment, it takes back what it has open.
    fn work(self, session: Session) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// Runs a command until it is done or interrupted.
pub(super) fn run<W: Work + clap::Args>(command: On<W>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failed::new(error.to_string()))?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = work(command) => done,
            () = interrupted(2) => Err(Failed::interrupted()),
        }
    });
    // A thread may be reading the standard input, which has no end.
    runtime.shutdown_background();
    done
}

async fn work<W: Work + clap::Args>(command: On<W>) -> Result<(), Failed> {
    let On { connection, work } = command;
    let session = tokio::select! {
        session = Session::open(&connection) => session?,
        () = interrupted(1) => return Err(Failed::interrupted()),
    };
    let (client, others) = (session.client.clone(), session.others());
    // On a task of its own: Ctrl-C is heard also while the standard output is not read.
    let mut working = tokio::spawn(work.work(session));
    let done = tokio::select! {
        done = &mut working => done.unwrap_or_else(|error| Err(Failed::new(format!("a defect of this command: {error}")))),
        () = interrupted(1) => {
            working.abort();
            // What it had open is taken back.
            let _ = tokio::time::timeout(END_TIME, &mut working).await;
            Err(Failed::interrupted())
        }
    };
    // The node hears of the end at once, instead of keeping the session for a while.
    let _ = tokio::time::timeout(END_TIME, async { tokio::join!(client.close(), others.close()) }).await;
    done
}

/// Ready with this signal that asks for the end, counted from here on.
async fn interrupted(which: u32) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals end the process themselves.
        return std::future::pending().await;
    };
    for _ in 0..which {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
