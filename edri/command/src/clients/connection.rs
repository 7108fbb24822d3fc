//! Which node is used, and as whom.

use std::path::PathBuf;
use std::sync::Arc;

use edri::operations::Describe;
use edri::{Client, ClientError, Topology};

use tokio::sync::Mutex;

use super::failed::{self, Asked};
use super::output::Out;
use crate::exit::Failed;

/// The longest token file that is read, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// A command with the node that it uses.
#[derive(clap::Args)]
pub(crate) struct On<W: clap::Args> {
    #[command(flatten)]
    pub(super) work: W,
    // Boxed, as every command has it.
    #[command(flatten)]
    pub(super) connection: Box<Connection>,
}

/// Which node, and as whom.
#[derive(clap::Args)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Connection {
    /// The node's gateway: `http://host:port`, or the address of its WebSocket, `ws://host:port/ws`.
    #[arg(long, global = true, env = "EDRI_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(super) url: String,
    /// What the node lets you in with. Other users of this machine see it among the processes: better use the environment variable
    /// or --token-file.
    #[arg(long, global = true, env = "EDRI_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// A file whose first line is the token.
    #[arg(long, global = true, env = "EDRI_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Writes one JSON value a line, for programs.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl Connection {
    fn token(&self) -> Result<Option<String>, Failed> {
        if let Some(token) = self.token.as_deref().map(str::trim).filter(|token| !token.is_empty()) {
            return Ok(Some(token.to_owned()));
        }
        let Some(path) = &self.token_file else { return Ok(None) };
        let wrong = |why: String| Failed::usage(format!("the token file `{}`: {why}", path.display()));
        let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length > TOKEN_BYTES_MAX {
            return Err(wrong(format!("{length} bytes are no token")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        match text.lines().next().map(str::trim).filter(|token| !token.is_empty()) {
            Some(token) => Ok(Some(token.to_owned())),
            None => Err(wrong("its first line is empty".to_owned())),
        }
    }
}

/// The address of the gateway's WebSocket.
fn websocket(url: &str) -> String {
    let rest = |text: &'static str| url.strip_prefix(text);
    let (scheme, rest) = match (rest("http://").or(rest("ws://")), rest("https://").or(rest("wss://"))) {
        (Some(rest), _) => ("ws", rest),
        (_, Some(rest)) => ("wss", rest),
        // Something else, which the client refuses with its reason; or only a host and a port.
        _ if url.contains("://") => return url.to_owned(),
        _ => ("ws", url),
    };
    match rest.split_once('/') {
        Some((host, path)) if !path.is_empty() => format!("{scheme}://{host}/{path}"),
        Some((host, _)) => format!("{scheme}://{host}/ws"),
        None => format!("{scheme}://{rest}/ws"),
    }
}

/// A node that is used.
pub(crate) struct Session {
    pub(super) client: Client,
    pub(super) out: Out,
    url: String,
    token: Option<String>,
    others: Others,
}

/// Further clients of the same node, which are closed with it.
#[derive(Clone, Default)]
pub(super) struct Others(Arc<Mutex<Vec<Client>>>);

impl Others {
    /// Says goodbye for all of them.
    pub(super) async fn close(self) {
        let clients = std::mem::take(&mut *self.0.lock().await);
        for client in clients {
            client.close().await;
        }
    }
}

impl Session {
    pub(super) async fn open(connection: &Connection) -> Result<Self, Failed> {
        let url = websocket(&connection.url);
        let token = connection.token()?;
        let client = connect(&url, token.as_deref()).await?;
        Ok(Self { client, out: Out::new(connection.json), url, token, others: Others::default() })
    }

    /// A further client of the same node.
    pub(super) async fn another(&self) -> Result<Client, Failed> {
        let client = connect(&self.url, self.token.as_deref()).await?;
        self.others.0.lock().await.push(client.clone());
        Ok(client)
    }

    pub(super) fn others(&self) -> Others {
        self.others.clone()
    }

    /// The name of the node that the client is connected to.
    pub(super) fn node(&self) -> &str {
        self.client.bus().address().node.as_str()
    }

    /// Asks the node `at` (`north` or `north/`), or the one that this is connected to.
    pub(super) async fn ask<E: edri::Request>(&self, at: Option<&str>, event: E) -> Result<E::Output, Failed> {
        let node = at.map_or_else(|| self.node(), |at| at.strip_suffix('/').unwrap_or(at));
        let name = E::descriptor().name().clone();
        let asked = self.client.request_at(node, event).await;
        asked.map_err(|error| failed::request(&error, &Asked { event: &name, to: at }))
    }

    /// What a node is doing.
    pub(super) async fn describe(&self, at: Option<&str>, ask: Describe) -> Result<Topology, Failed> {
        self.ask(at, ask).await
    }

    /// What the node is doing, or all nodes of its cluster, ordered by name.
    pub(super) async fn describe_some(&self, at: Option<&str>, all: bool) -> Result<Vec<Topology>, Failed> {
        if !all {
            return Ok(vec![self.describe(at, Describe::default()).await?]);
        }
        let asked = Asked { event: "edri.node.describe", to: None };
        let answers = self.client.request_all(Describe::default()).await;
        let mut answers = answers.map_err(|error| failed::request(&error, &asked))?;
        let (mut nodes, mut last) = (Vec::new(), None);
        while let Some(answer) = answers.next().await {
            let who = from(&answer);
            match answer.result {
                Ok(topology) => nodes.push(topology),
                Err(error) => {
                    self.out.note(&format!("{who}: {error}"));
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) if nodes.is_empty() => return Err(failed::request(&error, &asked)),
            _ => {}
        }
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(nodes)
    }
}

async fn connect(url: &str, token: Option<&str>) -> Result<Client, Failed> {
    let connect = Client::connect(url);
    let connect = match token {
        Some(token) => connect.token(token),
        None => connect,
    };
    connect.await.map_err(|error| not_connected(&error, token.is_some()))
}

/// Who answered: `north/risk`.
pub(super) fn from<R>(answer: &edri::Answer<R>) -> String {
    format!("{}/{}", answer.node, answer.manager)
}

fn not_connected(error: &ClientError, has_token: bool) -> Failed {
    match error {
        ClientError::Url(_) => Failed::usage(error.to_string()),
        ClientError::Refused { code, .. } if code == "unauthorized" => {
            let advice = if has_token {
                "the token is not known there, or has expired: check --token-file, EDRI_TOKEN and --token"
            } else {
                "a token is needed: set EDRI_TOKEN, or give --token-file"
            };
            Failed::refused(format!("{error}: {advice}"))
        }
        ClientError::Refused { .. } => {
            Failed::refused(format!("{error}: is --url (EDRI_URL) the gateway of a node, and no other server?"))
        }
        ClientError::Unreachable(_) => Failed::unreachable(format!(
            "{error}: check that the node runs and has its gateway at this address; --url or EDRI_URL name another"
        )),
        _ => Failed::new(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::websocket;

    #[test]
    fn an_address_of_a_gateway_is_that_of_its_websocket() {
        for (given, expect) in [
            ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/ws"),
            ("http://127.0.0.1:8080/", "ws://127.0.0.1:8080/ws"),
            ("https://edri.example", "wss://edri.example/ws"),
            ("ws://host:1/ws", "ws://host:1/ws"),
            ("wss://host/prefix/ws", "wss://host/prefix/ws"),
            ("host:1", "ws://host:1/ws"),
            ("[::1]:8080", "ws://[::1]:8080/ws"),
            ("ftp://host", "ftp://host"),
        ] {
            assert_eq!(websocket(given), expect, "{given}");
        }
    }
}
