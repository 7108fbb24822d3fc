//! `edri run` and `edri check`.

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edri::{ApiError, Error, Node, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config::{self, Built, Problem};
use super::logs::{self, Logs};
use super::say;
use crate::exit::Failed;

/// Runs a node until it is told to stop.
pub(crate) fn run(file: Option<&Path>) -> Result<(), Failed> {
    let built = config::build(file).map_err(wrong)?;
    let logs = Arc::new(logs::begin(&built.log, &built.traces, &built.name).map_err(Failed::new)?);
    let Built { app, name, token, has_tls, namespace, .. } = built;
    let ready = Ready { name, token, has_tls, namespace };
    let file = file.map(Path::to_owned);
    // Another one goes with the task, which ends with the runtime: what is logged last is exported.
    let shared = Arc::clone(&logs);
    let ran = app.run_with(|node| async move {
        let hang_ups = signal(SignalKind::hangup())?;
        tokio::spawn(renew(hang_ups, shared, file));
        // Whoever reads it may have gone; the node runs on.
        let _ = say(&ready.text(&node));
        Ok::<_, Error>(())
    });
    drop(logs);
    ran.map(drop).map_err(|error| Failed::new(advice(&error)))
}

/// Says what is wrong with a configuration.
pub(crate) fn check(file: &Path) -> Result<(), Failed> {
    config::build(Some(file)).map_err(wrong)?;
    say(&format!("{} is right\n", file.display()))
}

fn wrong(problems: Vec<Problem>) -> Failed {
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n      ");
    Failed::usage(text)
}

/// Each hang-up opens the log anew and reads its filter again. Everything else that can change does so by itself.
async fn renew(mut hang_ups: Signal, logs: Arc<Logs>, file: Option<PathBuf>) {
    while hang_ups.recv().await.is_some() {
        let (logs, file) = (Arc::clone(&logs), file.clone());
        let renewed = tokio::task::spawn_blocking(move || match config::build(file.as_deref()) {
            Ok(built) => logs.renew(&built.log),
            Err(problems) => {
                for problem in problems {
                    tracing::error!(%problem, "the configuration cannot be read again");
                }
            }
        });
        if let Err(error) = renewed.await {
            tracing::error!(%error, "opening the log anew failed");
        }
    }
}

/// What is said once a node runs.
struct Ready {
    name: String,
    token: Option<String>,
    has_tls: bool,
    namespace: Option<String>,
}

impl Ready {
    fn text(&self, node: &Node) -> String {
        let mut text = format!("node `{}` runs\n", self.name);
        let Some(address) = node.api_address() else { return text };
        let url = url(self.has_tls, address);
        let mut line = |words: &str, value: &str| {
            // Writing to a text does not fail.
            let _ = writeln!(text, "  {words:<8} {value}");
        };
        line("gateway", &url);
        if let Some(address) = node.link_address() {
            line("links", &address.to_string());
        }
        let Some(token) = &self.token else { return text };
        line("token", &format!("{token}   (shown this once, and good until the node stops)"));
        let header = format!("curl -H 'Authorization: Bearer {token}'");
        let request = match &self.namespace {
            Some(namespace) => format!(
                "{header} -H 'Content-Type: application/json' -d '{{\"key\": \"greeting\", \"value\": \"hello\"}}' {url}/events/store.{namespace}.set"
            ),
            None => format!("{header} {url}/metrics"),
        };
        line("try", &request);
        text
    }
}

/// The address as a client writes it; of all addresses, that of this machine.
fn url(has_tls: bool, mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{}://{address}", if has_tls { "https" } else { "http" })
}

/// Why a node did not start, and what to do.
fn advice(error: &Error) -> String {
    let told = error.to_string();
    if let Error::Start(StartError::Api(ApiError::Bind { address, source })) = error {
        let other = SocketAddr::new(address.ip(), address.port().saturating_add(1));
        return match source.kind() {
            io::ErrorKind::AddrInUse => format!(
                "{address} is taken by another program, perhaps another node: end that one, or take another address for this, as \
                 `EDRI__API__BIND={other} edri run`"
            ),
            io::ErrorKind::PermissionDenied => {
                format!("{told}: ports below 1024 are for those who may; take another in `bind` of `[api]`")
            }
            _ => format!("{told}: `bind` in `[api]` has to be an address of this machine"),
        };
    }
    if told.contains("No module named 'edri_sdk'") || told.contains("No module named 'msgpack'") {
        return format!(
            "{told}\n      The Python that runs this program lacks edri's SDK: `pip install ./sdk/python` from edri's repository, and name \
             the Python it is installed in with `interpreter`, as `interpreter = \".venv/bin/python\"`"
        );
    }
    told
}
