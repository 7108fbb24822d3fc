//! What a process worker is started with.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use edri_protocol::Window;

use super::remote::LeftoversRef;

/// How the processes of a manager are started and kept.
///
/// ```
/// use std::time::Duration;
/// use edri_workers::Process;
///
/// let process = Process::new()
///     .env("OMP_NUM_THREADS", "1")
///     .memory_limit(512 << 20)
///     .on_demand(0, 4, Duration::from_secs(30));
/// ```
#[derive(Debug, Clone)]
#[must_use = "it does nothing until it is given to a manager"]
pub struct Process {
    pub(crate) program: Program,
    pub(crate) environment: Vec<(OsString, Option<OsString>)>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) cpu_limit: Option<Duration>,
    pub(crate) window_calls: u32,
    pub(crate) handshake_limit: Duration,
    pub(crate) silence: Duration,
    pub(crate) demand: Option<Demand>,
}

/// What is executed.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// The image of this process, with its own arguments.
    Itself,
    /// Another program that builds the same `App`.
    Path(PathBuf),
    /// A program of its own that speaks the protocol, with its arguments.
    Foreign(Vec<OsString>),
}

/// Instances come with events and go without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// So many always run.
    pub least: usize,
    /// So many run when there is most to do.
    pub most: usize,
    /// One beyond that ends after so long without an event.
    pub idle: Duration,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            program: Program::Itself,
            environment: Vec::new(),
            directory: None,
            memory_limit: None,
            cpu_limit: None,
            window_calls: 64,
            handshake_limit: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            demand: None,
        }
    }
}

impl Process {
    /// The image of this process, started again with the same arguments.
    pub fn new() -> Self {
        Self::default()
    }

    /// A program that speaks the protocol, with its arguments.
    #[doc(hidden)]
    pub fn foreign(command: Vec<OsString>) -> Self {
        Self { program: Program::Foreign(command), ..Self::default() }
    }

    /// The program at `path` instead of this process's own image, without arguments. It has to build the same `App`: for
    /// tests, whose own image is that of the test runner.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Program::Path(path.into());
        self
    }

    /// Sets a variable of its environment, which otherwise is this process's own.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Leaves a variable out of its environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), None));
        self
    }

    /// The directory that it runs in; otherwise this process's own.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// How many bytes of address space each process may have (`RLIMIT_AS`); what it asks for beyond is refused by the
    /// system, which ends most programs. Linux only: elsewhere the start fails with that reason.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// How much processor time each process may use in its life, in whole seconds, at least one (`RLIMIT_CPU`); after
    /// that the system ends it. Linux only: elsewhere the start fails with that reason.
    pub fn cpu_limit(mut self, limit: Duration) -> Self {
        self.cpu_limit = Some(limit);
        self
    }

    /// How many events each process may have in its hands at once, the one it handles included. 64 by default, and never
    /// more than the worker itself wants. With 1 it is always certain which event a process died of.
    pub fn window(mut self, events: u32) -> Self {
        self.window_calls = events.max(1);
        self
    }

    /// How long a process may take from its start until it says hello. 10 s by default.
    pub fn handshake_limit(mut self, limit: Duration) -> Self {
        self.handshake_limit = limit;
        self
    }

    /// A process that has not answered for so long is taken for hung, killed and replaced. 10 s by default, at least 100 ms.
    pub fn silence_limit(mut self, limit: Duration) -> Self {
        self.silence = limit.max(Duration::from_millis(100));
        self
    }

    /// At least `least` and at most `most` processes: another is started while events wait, and one beyond the least ends
    /// after `idle` without an event. Replaces the number of instances of the manager.
    pub fn on_demand(mut self, least: usize, most: usize, idle: Duration) -> Self {
        self.demand = Some(Demand { least, most, idle });
        self
    }
}

impl Process {
    /// How instances come and go, when not all run all the time.
    #[must_use]
    pub fn demand(&self) -> Option<Demand> {
        self.demand
    }
}

/// All that a host has to know to run a manager's processes.
#[derive(Debug, Clone)]
pub struct ProcessPlan {
    /// How they are started and kept.
    pub process: Process,
    /// What their handlers have to select, in this order.
    pub selects: Vec<String>,
    /// What the worker is made with, as MessagePack.
    pub arguments: Option<Bytes>,
    /// What others have left, for whoever has room. Of workers that come by themselves.
    pub leftovers: Option<LeftoversRef>,
}

impl ProcessPlan {
    /// How many events a process is given that would take so many. Where an event that fails holds up those behind it, they
    /// must not be in the same hands already.
    pub(crate) fn window(&self, theirs: Window, keeps_order: bool) -> Window {
        let most = if keeps_order { 1 } else { self.process.window_calls };
        Window { calls: theirs.calls.min(most), bytes: theirs.bytes.max(1) }
    }
}
