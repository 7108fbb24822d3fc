//! A process from its start until it is reaped.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use edri_events::ManagerName;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::child::{NODE_VARIABLE, WORKER_VARIABLE};
use super::guardian;
use super::options::{Process, Program};
use super::output::{self, LastWords, Source};

/// A running process, or one that has ended. Dropping it kills its group.
#[derive(Debug)]
pub(super) struct Running {
    group: Arc<Group>,
    ended: watch::Receiver<Option<ExitStatus>>,
    pub(super) pid: u32,
    last_words: LastWords,
    /// Reads its standard error.
    stderr: Option<JoinHandle<()>>,
}

/// The process group of a child; its number is ours until the child has been reaped.
#[derive(Debug)]
struct Group {
    // Held to signal the group, and to reap its leader.
    pid: Mutex<Option<Pid>>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = *self.pid.lock() {
            // It may have ended just now.
            let _ = kill_process_group(pid, signal);
        }
    }
}

/// Starts a process with our end of its socket.
pub(super) async fn launch(
    process: &Process,
    manager: &ManagerName,
    instance: usize,
    runtime: &Handle,
) -> Result<(Running, UnixStream), String> {
    let (ours, theirs) = StdStream::pair().map_err(|error| format!("no socket for it: {error}"))?;
    ours.set_nonblocking(true).map_err(|error| format!("no socket for it: {error}"))?;
    let (mut command, shown) = command(process, manager);
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let limits = (process.memory_limit, process.cpu_limit);
    let (started, is_started) = tokio::sync::oneshot::channel();
    let (ended, has_ended) = watch::channel(None);
    // The thread that starts a child lives as long as the child: a kernel that is asked to kill a child with its parent
    // means that thread.
    let thread = std::thread::Builder::new().name(format!("child-{manager}")).stack_size(128 << 10);
    let body = move || {
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        // Closes their end of the socket here.
        drop(command);
        attend(child, limits, started, &ended);
    };
    thread.spawn(body).map_err(|error| format!("no thread to start it: {error}"))?;
    let born = is_started.await.map_err(|_| "the thread that starts it ended".to_owned())?;
    let Born { group, pid, stdout, stderr } = born.map_err(|error| cannot_start(&shown, &error))?;
    let last_words = LastWords::default();
    let source = Source { manager: manager.clone(), instance, pid };
    if let Some(stdout) = stdout {
        runtime.spawn(output::read(stdout, source.clone(), None));
    }
    let stderr = stderr.map(|stderr| runtime.spawn(output::read(stderr, source, Some(last_words.clone()))));
    let _entered = runtime.enter();
    let socket = UnixStream::from_std(ours).map_err(|error| format!("no socket for it: {error}"))?;
    Ok((Running { group, ended: has_ended, pid, last_words, stderr }, socket))
}

fn cannot_start(shown: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => ": there is no such program, or the directory it is to run in is missing",
        io::ErrorKind::PermissionDenied => ": it is not executable, or the directory is closed",
        _ => "",
    };
    format!("cannot start `{shown}`: {error}{advice}")
}

/// What is executed, and how to show it to people.
fn command(process: &Process, manager: &ManagerName) -> (Command, String) {
    let (mut command, shown) = match &process.program {
        Program::Itself => {
            let mut arguments = std::env::args_os();
            let name = arguments.next().unwrap_or_else(|| OsString::from("edri"));
            let mut command = Command::new(own_image());
            command.args(arguments).arg0(&name);
            (command, name.to_string_lossy().into_owned())
        }
        Program::Path(path) => (Command::new(path), path.display().to_string()),
        Program::Foreign(words) => {
            let shown: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            let mut command = Command::new(words.first().map_or_else(OsString::new, OsString::clone));
            command.args(words.iter().skip(1));
            (command, shown.join(" "))
        }
    };
    command.env(WORKER_VARIABLE, manager.as_str()).env(NODE_VARIABLE, std::process::id().to_string());
    for (name, value) in &process.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(directory) = &process.directory {
        command.current_dir(directory);
    }
    (command, shown)
}

/// The image that was started, not what has replaced it on disk.
fn own_image() -> PathBuf {
    let image = PathBuf::from("/proc/self/exe");
    if image.exists() { image } else { std::env::current_exe().unwrap_or(image) }
}

struct Born {
    group: Arc<Group>,
    pid: u32,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// Tells of the child's birth, waits for its death, and buries it with what is left of its group.
fn attend(
    mut child: Child,
    limits: (Option<u64>, Option<Duration>),
    started: tokio::sync::oneshot::Sender<io::Result<Born>>,
    ended: &watch::Sender<Option<ExitStatus>>,
) {
    let number = child.id();
    let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else { return };
    guardian::watch(number);
    let group = Arc::new(Group { pid: Mutex::new(Some(pid)) });
    let born = limit(pid, limits).map(|()| Born {
        group: Arc::clone(&group),
        pid: number,
        stdout: child.stdout.take().map(OwnedFd::from),
        stderr: child.stderr.take().map(OwnedFd::from),
    });
    if born.is_err() {
        group.signal(Signal::KILL);
    }
    if started.send(born).is_err() {
        // Nobody waits for it any more.
        group.signal(Signal::KILL);
    }
    // Waits without reaping: until then nobody else can get the number of the process or of its group.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
    let status = {
        let mut alive = group.pid.lock();
        let _ = kill_process_group(pid, Signal::KILL);
        *alive = None;
        child.wait()
    };
    guardian::forget(number);
    // Whoever wanted to know may be gone.
    let _ = ended.send(Some(status.unwrap_or_else(|_| ExitStatus::from_raw(0))));
}

#[cfg(target_os = "linux")]
fn limit(pid: Pid, (memory, cpu): (Option<u64>, Option<Duration>)) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, prlimit};
    let set = |resource, soft, hard| prlimit(Some(pid), resource, Rlimit { current: Some(soft), maximum: Some(hard) });
    if let Some(bytes) = memory {
        set(Resource::As, bytes, bytes)?;
    }
    if let Some(time) = cpu {
        // At the first the system says why it ends the process (XCPU), at the second it just does.
        let seconds = time.as_secs().max(1);
        set(Resource::Cpu, seconds, seconds + 1)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn limit(_: Pid, limits: (Option<u64>, Option<Duration>)) -> io::Result<()> {
    match limits {
        (None, None) => Ok(()),
        _ => Err(io::Error::other("limits of memory and processor time can only be set on Linux")),
    }
}

impl Running {
    /// Waits until the process has ended and been reaped. Cancel safe.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        match self.ended.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            // Its thread was never begun.
            Err(_) => ExitStatus::from_raw(0),
        }
    }

    /// What it wrote last to its standard error, to be put behind the reason for its end.
    pub(super) async fn last_words(&mut self) -> String {
        let has_ended = self.ended.borrow().is_some();
        if let (Some(stderr), true) = (&mut self.stderr, has_ended) {
            // What it wrote is in the pipe still; a process of its own may keep the pipe open.
            let _ = tokio::time::timeout(Duration::from_millis(100), stderr).await;
            self.stderr = None;
        }
        self.last_words.text()
    }

    /// Asks the process and its group to end.
    pub(super) fn terminate(&self) {
        self.group.signal(Signal::TERM);
        // A stopped process would not see it.
        self.group.signal(Signal::CONT);
    }

    /// Ends the process and its group.
    pub(super) fn kill(&self) {
        self.group.signal(Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process ended, in words.
pub(super) fn ended_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("its process ended with exit code {code}"),
        (None, Some(signal)) => format!("its process was ended by signal {signal}{}", signal_name(signal)),
        (None, None) => "its process ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match Signal::from_named_raw(signal) {
        Some(Signal::KILL) => " (KILL)",
        Some(Signal::TERM) => " (TERM)",
        Some(Signal::ABORT) => " (ABRT)",
        Some(Signal::SEGV) => " (SEGV)",
        Some(Signal::BUS) => " (BUS)",
        Some(Signal::ILL) => " (ILL)",
        Some(Signal::FPE) => " (FPE)",
        Some(Signal::XCPU) => " (XCPU: it used up its processor time)",
        _ => "",
    }
}
