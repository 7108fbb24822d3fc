//! The thread on which a node's actors live. User code and payloads never run there.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use actix::{ArbiterHandle, System};

/// A thread with an actix system of its own, so that actors neither need nor disturb the program's runtime.
#[derive(Debug)]
pub struct Control {
    system: System,
    arbiter: ArbiterHandle,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the operating system gives no thread or the runtime cannot be made.
    pub fn start(node: &str) -> io::Result<Self> {
        let (ready, started) = mpsc::sync_channel(1);
        // The kernel shows 15 bytes of a thread's name.
        let thread = std::thread::Builder::new().name(format!("edri-{node}")).spawn(move || {
            let runner = System::new();
            // The receiver waits below for exactly this message.
            let system = System::current();
            let arbiter = system.arbiter().clone();
            let _ = ready.send((system, arbiter));
            if let Err(error) = runner.run() {
                tracing::error!(%error, "the actors' thread ended");
            }
        })?;
        match started.recv() {
            Ok((system, arbiter)) => Ok(Self { system, arbiter, thread: Some(thread) }),
            Err(_) => Err(io::Error::other("the actors' thread did not start")),
        }
    }

    /// Where to start actors.
    #[must_use]
    pub fn arbiter(&self) -> &ArbiterHandle {
        &self.arbiter
    }
}

impl Drop for Control {
    /// Ends the actors and waits for their thread, which does no more than they ask of it.
    fn drop(&mut self) {
        self.system.stop();
        let here = std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != here)
            && thread.join().is_err()
        {
            tracing::error!("an actor panicked");
        }
    }
}
