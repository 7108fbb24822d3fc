//! A node to use, and the command that uses it.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use edri::prelude::*;
use edri::{Node, Token};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// How long anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A quake was recorded somewhere.
#[event(notification, name = "quake.recorded", key = region, expose)]
pub(crate) struct Quake {
    pub(crate) region: String,
    pub(crate) magnitude: f64,
}

/// Asks for the risk of a region.
#[event(request, name = "risk.assess", response = Risk, timeout = "20s", expose)]
pub(crate) struct Assess {
    region: String,
}

/// Nobody answers it.
#[event(request, name = "risk.nobody", response = u32, expose)]
pub(crate) struct Nobody {}

/// What is thought of a region.
#[data]
pub(crate) struct Risk {
    of: String,
    probability: f64,
}

/// Fails for the region `nowhere`, and never answers for `never`.
pub(crate) struct Model;

impl Worker for Model {}

impl Handle<Quake> for Model {
    async fn handle(&mut self, quake: &Quake, _: &mut Context) -> Result<(), Failure> {
        match quake.region.as_str() {
            "nowhere" => Err(Failure::new("no_region", "there is no such region")),
            _ => Ok(()),
        }
    }
}

impl Handle<Assess> for Model {
    async fn handle(&mut self, ask: &Assess, cx: &mut Context) -> Result<Risk, Failure> {
        match ask.region.as_str() {
            "never" => {
                cx.cancelled().await;
                Err(Failure::message("given up"))
            }
            "nowhere" => Err(Failure::new("no_region", "there is no such region")),
            region => Ok(Risk { of: region.to_owned(), probability: 0.25 }),
        }
    }
}

/// A node with a gateway, and the tokens it knows.
pub(crate) struct Used {
    pub(crate) node: Node,
    url: String,
    /// May do everything.
    pub(crate) operator: String,
    /// May do everything that is exposed, and nothing that operates the node.
    pub(crate) user: String,
}

pub(crate) fn model() -> impl edri::IntoDefinition {
    Manager::new("model").worker(|| Model).handles::<Quake>().handles::<Assess>()
}

/// Starts a node of this app.
pub(crate) async fn start(app: App) -> Used {
    let (operator, user) = (Token::random().expect("random"), Token::random().expect("random"));
    let access = Access::new().token(&operator.hash(), "operator", Permissions::operator()).token(
        &user.hash(),
        "user",
        Permissions::all(),
    );
    let api = Api::bind("127.0.0.1:0").event::<Quake>().event::<Assess>().event::<Nobody>().operators().access(access);
    let node = app.api(api).start().await.expect("starts");
    let url = format!("http://{}", node.api_address().expect("a gateway"));
    Used { node, url, operator: operator.secret().to_owned(), user: user.secret().to_owned() }
}

pub(crate) async fn used() -> Used {
    start(App::new("north").manager(model())).await
}

/// What the command did.
#[derive(Debug)]
pub(crate) struct Done {
    status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(self.status.success(), "{self:?}");
        self
    }

    /// It failed with this code, and says this.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, says: &str) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        assert!(self.err.contains(says), "should say {says:?}: {self:?}");
        self
    }

    /// The values on the lines of the output.
    #[track_caller]
    pub(crate) fn values(&self) -> Vec<Value> {
        let value = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        self.out.lines().map(value).collect()
    }
}

impl Used {
    /// The command, without a token.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edri"));
        command.args(arguments).env("EDRI_URL", &self.url).env_remove("EDRI_TOKEN").env_remove("NO_COLOR");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs the command as the operator.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Done {
        done(self.command(arguments).env("EDRI_TOKEN", &self.operator).spawn().expect("starts")).await
    }

    /// Runs the command with this on its standard input.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &str) -> Done {
        let mut command = self.command(arguments);
        let mut child = command.env("EDRI_TOKEN", &self.operator).stdin(Stdio::piped()).spawn().expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).await.expect("is read");
        drop(stdin);
        done(child).await
    }

    /// Starts the command as somebody who may do all that is exposed, and nothing that operates the node.
    pub(crate) fn spawn_as_user(&self, arguments: &[&str]) -> Child {
        self.command(arguments).env("EDRI_TOKEN", &self.user).spawn().expect("starts")
    }

    /// Starts the command as the operator and lets it run.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.env("EDRI_TOKEN", &self.operator).stdin(Stdio::piped()).spawn().expect("starts")
    }

    /// Publishes a quake that the manager gets, and a subscription from outside as soon as it is in place.
    pub(crate) async fn publish_to_all(&self, region: &str, magnitude: f64) {
        let publish = async || {
            let quake = Quake { region: region.to_owned(), magnitude };
            self.node.bus().publish(quake).await.expect("published").deliveries
        };
        let wait = async {
            while publish().await < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.expect("a subscription does not come");
    }
}

/// Waits for the end of the command.
pub(crate) async fn done(child: Child) -> Done {
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("ends in time").expect("ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Done { status: output.status, out: text(output.stdout), err: text(output.stderr) }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what} does not come"));
}

/// Ctrl-C.
pub(crate) fn interrupt(child: &Child) {
    let pid = child.id().expect("runs").to_string();
    let sent = std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
    assert!(sent.success());
}
