//! How a process becomes a worker's.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;

use tokio::signal::unix::{SignalKind, signal};

use super::Hosted;

/// The environment variable that names the manager whose worker a process is to host.
pub const WORKER_VARIABLE: &str = "EDRI_WORKER";
/// The environment variable with the process id of the node that started it. What a worker starts inherits both variables,
/// but has another parent, so it is not taken for a worker.
pub const NODE_VARIABLE: &str = "EDRI_NODE_PID";

/// The manager whose worker this process is to host, if a node has started it for that.
#[must_use]
pub fn marked_for() -> Option<String> {
    let manager = std::env::var(WORKER_VARIABLE).ok()?;
    let node: u32 = std::env::var(NODE_VARIABLE).ok()?.parse().ok()?;
    (node == parent_id()).then_some(manager)
}

impl Hosted {
    /// Makes this process the worker's: hosts it over the connection that the process has as its standard input, then ends
    /// the process.
    pub fn take_over(self) -> ! {
        let node = parent_id();
        let manager = self.manager.clone();
        let code = self.begin(node).unwrap_or_else(|error| {
            complain(&format!("worker of manager `{manager}`: its connection to the node: {error}"));
            1
        });
        // At once, whatever other threads do: a handler that does not return must not keep the process.
        std::process::exit(code);
    }

    fn begin(self, node: u32) -> io::Result<i32> {
        // The copy is closed when a program is executed; what the worker starts finds nothing as its standard input.
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        end_with_parent(node)?;
        // In a thread of its own, for the caller may be a task of some runtime.
        let thread = std::thread::Builder::new().name("edri-connection".to_owned()).spawn(move || {
            self.serve_until(stream, || {
                // Ctrl-C at a terminal reaches the worker too, but it is the node that decides.
                let interrupt = signal(SignalKind::interrupt());
                let terminate = signal(SignalKind::terminate());
                async move {
                    match terminate {
                        Ok(mut terminate) => drop(terminate.recv().await),
                        Err(_) => std::future::pending().await,
                    }
                    drop(interrupt);
                }
            })
        })?;
        Ok(thread.join().unwrap_or(1))
    }
}

/// Has the process killed when the thread that started it is gone. The end of the connection says so too, but that can be
/// overheard: a program that the worker started may have inherited other things, and a stopped process reads nothing.
fn end_with_parent(node: u32) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if parent_id() == node {
        return Ok(());
    }
    Err(io::Error::other("the node is gone"))
}

/// Says what is wrong where the node's log finds it.
pub fn complain(what: &str) {
    // There is nobody else to tell.
    let _ = writeln!(io::stderr(), "{what}");
}
