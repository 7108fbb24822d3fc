//! Workers over WebSocket: bare ones that know only the protocol, and those of the Python SDK.

mod bare;
mod client;
mod python;

use std::process::{Child, Command, Stdio};

use edri::prelude::*;
use edri::{Node, RemoteWorkers};
use serde_json::{Value, json};

use super::client::address;
use super::websocket::socket::Socket;

/// What is sent to workers over a network.
#[event(notification, name = "remote.noted")]
pub(crate) struct RemoteNoted {
    pub(crate) number: u64,
}

/// What they make of it.
#[event(notification, name = "remote.followed", expose)]
#[derive(Debug)]
pub(crate) struct RemoteFollowed {
    pub(crate) number: u64,
    pub(crate) redelivered: bool,
    pub(crate) pid: u32,
}

/// A gateway on a free port that makes managers for workers that come.
pub(crate) fn open_gateway() -> Api {
    super::gateway().remote_workers(RemoteWorkers::new())
}

/// The hello of a bare worker of this manager that handles these events.
pub(crate) fn hello(manager: &str, handles: &[&str]) -> Value {
    let handlers: Vec<_> = handles.iter().map(|select| json!({"select": select})).collect();
    let events: Vec<_> = handles.iter().map(|name| json!({"name": name, "kind": "notification"})).collect();
    json!({"version": 1, "role": "worker", "agent": "bare", "manager": manager, "events": events, "handlers": handlers})
}

/// A bare worker that takes events.
pub(crate) async fn bare(node: &Node, hello: Value) -> Socket {
    let (mut socket, welcome) = Socket::greet(address(node), hello.clone()).await;
    assert_eq!(welcome["manager"], hello["manager"], "{welcome}");
    socket.send(json!({"ready": {}})).await;
    socket
}

/// What is answered to a hello that is refused.
pub(crate) async fn refused(node: &Node, hello: Value) -> (String, String) {
    let mut socket = Socket::open(address(node), Some("edri.json")).await.expect("connects");
    socket.send(json!({"hello": hello})).await;
    let frame = socket.next().await;
    let text = |field: &str| frame["error"][field].as_str().unwrap_or_else(|| panic!("{frame}")).to_owned();
    (text("code"), text("message"))
}

/// The next frame that is no ping; those are answered.
pub(crate) async fn next(socket: &mut Socket) -> Value {
    loop {
        let frame = socket.next().await;
        if frame["ping"].is_object() {
            socket.send(json!({"pong": frame["ping"]})).await;
            continue;
        }
        return frame;
    }
}

/// A Python worker in a process that the test has started.
pub(crate) struct Program(pub(crate) Child);

impl Program {
    pub(crate) fn start(node: &Node, manager: &str, token: Option<&str>, environment: &[(&str, &str)]) -> Self {
        Self::start_at(&format!("ws://{}", address(node)), manager, token, environment)
    }

    pub(crate) fn start_at(url: &str, manager: &str, token: Option<&str>, environment: &[(&str, &str)]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/remote_worker.py");
        let python = crate::python::environment("python-gateway", "gateway");
        let mut command = Command::new(python);
        command.arg(script).arg(url).arg(manager).args(token).envs(environment.iter().copied());
        Self(command.stdout(Stdio::piped()).spawn().expect("python runs"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(killed.expect("a shell's command").success(), "it runs");
    }

    /// Its exit code and what it wrote.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        let output = tokio::task::spawn_blocking(move || {
            let mut out = String::new();
            if let Some(mut stdout) = self.0.stdout.take() {
                std::io::Read::read_to_string(&mut stdout, &mut out).expect("text");
            }
            (self.0.wait().expect("it has a status").code(), out)
        });
        crate::support::within("a worker to end", output).await.expect("no panic")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
