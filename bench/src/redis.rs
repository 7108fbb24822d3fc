//! Redis beside the store: a server of its own on loopback, and as much of its protocol (RESP 2) as `GET` and `SET` take.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::Result;

/// How long the server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why there is nothing to compare with.
pub(crate) fn missing() -> Option<String> {
    let output = Command::new("redis-server").arg("--version").stdin(Stdio::null()).output();
    let why = |why: String| Some(format!("`redis-server` cannot be started: {why}"));
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => why(output.status.to_string()),
        Err(error) => why(error.to_string()),
    }
}

/// A server, killed when dropped.
pub(crate) struct Redis {
    child: Child,
    address: SocketAddr,
}

impl Redis {
    /// Starts one that keeps nothing on disk, or has synced every write before it answers; one sync for all that came together.
    pub(crate) async fn start(folder: &Path, durable: bool) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        drop(listener);
        let port = address.port().to_string();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--loglevel", "warning"])
            .args(["--appendonly", if durable { "yes" } else { "no" }, "--appendfsync", "always", "--dir"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let server = Self { child, address };
        let listens = async {
            while server.connect().await.is_err() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(START_LIMIT, listens).await.map_err(|_| "`redis-server` does not listen")?;
        Ok(server)
    }

    pub(crate) async fn connect(&self) -> io::Result<Client> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that asks one thing after the other.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// The value of a key, if there is one.
    pub(crate) async fn get(&mut self, key: &str) -> io::Result<Option<Vec<u8>>> {
        self.ask(&[b"GET", key.as_bytes()]).await
    }

    /// Gives a key a value.
    pub(crate) async fn set(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        self.ask(&[b"SET", key.as_bytes(), value]).await.map(drop)
    }

    async fn ask(&mut self, words: &[&[u8]]) -> io::Result<Option<Vec<u8>>> {
        let mut question = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            question.extend(format!("${}\r\n", word.len()).bytes());
            question.extend_from_slice(word);
            question.extend(b"\r\n");
        }
        self.stream.get_mut().write_all(&question).await?;
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        match line.trim_end().split_at_checked(1) {
            Some(("+", _)) | Some(("$", "-1")) => Ok(None),
            Some(("$", length)) => {
                let length: usize = length.parse().map_err(io::Error::other)?;
                let mut value = vec![0; length + 2];
                self.stream.read_exact(&mut value).await?;
                value.truncate(length);
                Ok(Some(value))
            }
            _ => Err(io::Error::other(format!("redis answered {line:?}"))),
        }
    }
}
