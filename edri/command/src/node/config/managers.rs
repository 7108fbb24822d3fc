//! Programs that handle events.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use edri::{Definition, INBOX_CAPACITY_MAX, INSTANCES_MAX, IntoDefinition, Manager, Restart, Retry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Size;
use super::{Checking, Span};

/// A manager whose workers are processes of a program.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Program {
    command: String,
    #[serde(default)]
    interpreter: Option<PathBuf>,
    #[serde(default)]
    directory: Option<PathBuf>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    environment_without: Vec<String>,
    #[serde(default = "one")]
    instances: usize,
    #[serde(default)]
    on_demand: Option<OnDemand>,
    #[serde(default)]
    keyed: bool,
    #[serde(default)]
    shared: bool,
    #[serde(default = "inbox")]
    inbox: usize,
    #[serde(default)]
    overflow: Overflow,
    #[serde(default)]
    time_limit: Option<Span>,
    #[serde(default)]
    retry: Tries,
    #[serde(default)]
    restart: Restarts,
    #[serde(default = "window")]
    window: u32,
    #[serde(default)]
    memory: Option<Size>,
    #[serde(default)]
    processor_time: Option<Span>,
    #[serde(default = "ten_seconds")]
    hello: Span,
    #[serde(default = "ten_seconds")]
    silence: Span,
}

fn one() -> usize {
    1
}

fn inbox() -> usize {
    1024
}

fn window() -> u32 {
    64
}

fn ten_seconds() -> Span {
    Span::seconds(10)
}

/// Processes that come with events and go without them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OnDemand {
    #[serde(default)]
    least: usize,
    most: usize,
    #[serde(default = "half_a_minute")]
    idle: Span,
}

fn half_a_minute() -> Span {
    Span::seconds(30)
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Overflow {
    #[default]
    Wait,
    DropNewest,
    DropOldest,
}

impl From<Overflow> for edri::Overflow {
    fn from(overflow: Overflow) -> Self {
        match overflow {
            Overflow::Wait => Self::Wait,
            Overflow::DropNewest => Self::DropNewest,
            Overflow::DropOldest => Self::DropOldest,
        }
    }
}

/// How often a notification is tried.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Tries {
    attempts: u32,
    first_pause: Span,
    longest_pause: Span,
}

impl Default for Tries {
    fn default() -> Self {
        let Retry { attempts, backoff } = Retry::default();
        Self { attempts, first_pause: backoff.first.into(), longest_pause: backoff.longest.into() }
    }
}

/// How often lost processes are started again.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Restarts {
    most: u32,
    within: Span,
    first_pause: Span,
    longest_pause: Span,
}

impl Default for Restarts {
    fn default() -> Self {
        let Restart { backoff, most, within } = Restart::default();
        Self { most, within: within.into(), first_pause: backoff.first.into(), longest_pause: backoff.longest.into() }
    }
}

/// A manager whose workers connect to the gateway.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Remote {
    instances: usize,
    serves: Vec<String>,
    keyed: bool,
    inbox: usize,
    overflow: Overflow,
    retry: Tries,
    window: u32,
    silence: Span,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            instances: one(),
            serves: Vec::new(),
            keyed: false,
            inbox: inbox(),
            overflow: Overflow::default(),
            retry: Tries::default(),
            window: window(),
            silence: ten_seconds(),
        }
    }
}

impl Remote {
    pub(super) fn build(&self, name: &str, checking: &mut Checking) -> Definition {
        checking.accept("", edri::ManagerName::new(name));
        check_bounds(self.instances, self.inbox, checking);
        self.retry.check(checking);
        if self.window == 0 {
            checking.wrong("window", "a worker has 1 event in its hands at least");
        }
        checking.each_of("serves", &self.serves, |pattern, checking| {
            checking.accept("", edri::Pattern::new(pattern));
        });
        let mut manager = Manager::remote(name)
            .instances(self.instances)
            .inbox(self.inbox)
            .overflow(self.overflow.into())
            .retry(self.retry.build())
            .window(self.window)
            .silence_limit(self.silence.into());
        if self.keyed {
            manager = manager.keyed();
        }
        self.serves.iter().fold(manager, |manager, pattern| manager.serves(pattern)).into_definition()
    }
}

impl Tries {
    fn build(&self) -> Retry {
        Retry::attempts(self.attempts).backoff(self.first_pause.into(), self.longest_pause.into())
    }

    fn check(&self, checking: &mut Checking) {
        if self.attempts == 0 {
            checking.within("retry", |checking| {
                checking.wrong("attempts", "an event is tried once at least: write 1 to try it never again")
            });
        }
    }
}

fn check_bounds(instances: usize, inbox: usize, checking: &mut Checking) {
    if instances == 0 || instances > INSTANCES_MAX {
        checking.wrong("instances", format!("a manager has 1 to {INSTANCES_MAX}"));
    }
    if inbox == 0 || inbox > INBOX_CAPACITY_MAX {
        checking.wrong("inbox", format!("an inbox has 1 to {INBOX_CAPACITY_MAX} places"));
    }
}

impl Program {
    pub(super) fn build(&self, name: &str, checking: &mut Checking) -> Definition {
        checking.accept("", edri::ManagerName::new(name));
        self.check(checking);
        let directory = self.directory(checking);
        let command = self.command(&directory, checking);
        let retry = self.retry.build();
        let restart = Restart::at_most(self.restart.most, self.restart.within.into())
            .backoff(self.restart.first_pause.into(), self.restart.longest_pause.into());
        let mut manager = Manager::program(name, &command)
            .instances(self.instances)
            .inbox(self.inbox)
            .overflow(self.overflow.into())
            .retry(retry)
            .restart(restart);
        if let Some(limit) = self.time_limit {
            manager = manager.time_limit(limit.into());
        }
        if self.keyed {
            manager = manager.keyed();
        }
        if self.shared {
            manager = manager.shared();
        }
        let manager = manager.process(|mut process| {
            process = process.directory(directory).window(self.window);
            process = process.handshake_limit(self.hello.into()).silence_limit(self.silence.into());
            for (name, value) in &self.environment {
                process = process.env(name, value);
            }
            process = self.environment_without.iter().fold(process, |process, name| process.env_remove(name));
            if let Some(memory) = self.memory {
                process = process.memory_limit(memory.bytes());
            }
            if let Some(time) = self.processor_time {
                process = process.cpu_limit(time.into());
            }
            match &self.on_demand {
                Some(demand) => process.on_demand(demand.least, demand.most, demand.idle.into()),
                None => process,
            }
        });
        manager.into_definition()
    }

    fn check(&self, checking: &mut Checking) {
        check_bounds(self.instances, self.inbox, checking);
        if self.window == 0 {
            checking.wrong("window", "a process has 1 event in its hands at least");
        }
        self.retry.check(checking);
        if let Some(OnDemand { least, most, .. }) = self.on_demand {
            if self.keyed {
                checking.wrong("on_demand", "keyed workers cannot come and go: each has its partition");
            }
            if most == 0 || most > INSTANCES_MAX || least > most {
                checking.wrong(
                    "on_demand",
                    format!("{least} to {most} processes: at most {INSTANCES_MAX}, and no fewer than `least`"),
                );
            }
        }
        let names = self.environment.keys().chain(&self.environment_without);
        for name in names.filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
            checking.wrong("environment", format!("`{name}` is no name of a variable"));
        }
        if !cfg!(target_os = "linux") && (self.memory.is_some() || self.processor_time.is_some()) {
            checking.wrong("", "`memory` and `processor_time` are for Linux only");
        }
    }

    fn directory(&self, checking: &mut Checking) -> PathBuf {
        match &self.directory {
            Some(directory) => checking.folder("directory", directory),
            None => checking.path(Path::new("")),
        }
    }

    /// The command with its program as it will be found, whatever the process's directory.
    fn command(&self, directory: &Path, checking: &mut Checking) -> String {
        let mut words = match shlex::split(&self.command) {
            Some(words) if !words.is_empty() => words,
            _ => {
                checking.wrong(
                    "command",
                    format!("`{}` is no command: it is empty, or a quote in it is not closed", self.command),
                );
                return self.command.clone();
            }
        };
        match &self.interpreter {
            None => words[0] = self.program("command", &words[0], directory, checking),
            Some(interpreter) => {
                let script = directory.join(&words[0]);
                let is_option = words[0].starts_with('-');
                if !is_option && !script.is_file() {
                    checking.wrong("command", format!("there is no file `{}`", script.display()));
                }
                // A folder of the configuration, as all paths in it.
                let interpreter = match interpreter.to_str() {
                    Some(name) if !name.contains('/') => name.to_owned(),
                    _ => checking.path(interpreter).to_string_lossy().into_owned(),
                };
                words.insert(0, self.program("interpreter", &interpreter, directory, checking));
            }
        }
        let joined = shlex::try_join(words.iter().map(String::as_str));
        checking.accept("command", joined).unwrap_or_default()
    }

    /// The path of a program, which has to be there.
    fn program(&self, key: &str, program: &str, directory: &Path, checking: &mut Checking) -> String {
        if program.contains('/') {
            let whole = directory.join(program);
            if !is_executable(&whole) {
                checking.wrong(key, format!("`{}` {}", whole.display(), missing(&whole)));
            }
            return whole.to_string_lossy().into_owned();
        }
        let path =
            self.environment.get("PATH").map(Into::into).or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| is_executable(&folder.join(program))) {
            let message =
                format!("there is no program `{program}` in PATH: install it, or write where it is, with a `/`");
            checking.wrong(key, message);
        }
        program.to_owned()
    }
}

/// What to do about a program that cannot be started.
fn missing(program: &Path) -> &'static str {
    let is_python = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"));
    if program.is_file() {
        "is not executable: `chmod +x` it, or name what runs it with `interpreter`"
    } else if is_python {
        "is not there: make it with `python3 -m venv`, and install edri's SDK with its `pip`"
    } else {
        "is not there"
    }
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
