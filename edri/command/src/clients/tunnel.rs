//! `tunnel`: the standard input goes up, what comes down goes to the standard output.

use bytes::Bytes;
use edri::{Body, Encoding, Failure, Receiver, Sender, TunnelError};
use serde_json::json;
use tokio::io::{AsyncReadExt, BufReader};

use super::connection::Session;
use super::failed::{self, Asked};
use super::payload;
use super::run::Work;
use super::send::read_line;
use crate::exit::Failed;

/// How many bytes of the standard input are one item.
const CHUNK: usize = 64 << 10;

#[derive(clap::Args)]
pub(crate) struct Tunnel {
    /// The event's name.
    event: String,
    /// JSON; `@FILE` for what is in a file. `{}` when there is none.
    payload: Option<String>,
    /// Opens it to this manager: `disk`; on one node: `north/disk`; whoever takes it on that node: `north/`.
    #[arg(long, value_name = "MANAGER")]
    to: Option<String>,
    /// Items are bytes and not JSON: the standard input is sent in pieces of 64 KiB, and what comes is written as it is. Without it each
    /// line of the standard input is an item, and each item that comes is a line.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

impl Work for Tunnel {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let asked = Asked { event: &self.event, to: self.to.as_deref() };
        let body = payload::read(self.payload.as_deref())?;
        let untyped = session.client.untyped();
        let opened = match &self.to {
            Some(to) => untyped.open_to(to, &self.event, body).await,
            None => untyped.open(&self.event, body).await,
        };
        let opened = opened.map_err(|error| failed::request(&error, &asked))?;
        let (mut sender, mut receiver, outcome) = opened.split();
        let up = async {
            let sent = if self.raw { send_bytes(&mut sender).await } else { send_lines(&mut sender).await };
            match sent {
                Ok(()) => sender.finish(),
                Err(Stopped::Input(failed)) => {
                    sender.abort(Failure::new("invalid_input", failed.message.clone()));
                    return Err(failed);
                }
                // The outcome says why.
                Err(Stopped::Tunnel) => {}
            }
            Ok(())
        };
        let down = async {
            let (received, ended) = tokio::join!(self.receive(&session, &mut receiver), outcome.result());
            match (received, ended) {
                // Whoever does not read any more is not told of the tunnel.
                (Err(Lost::Output(failed)), _) => Err(failed),
                (_, Err(error)) | (Err(Lost::Tunnel(error)), Ok(_)) => Err(failed::tunnel(&error, &self.event)),
                (Ok(()), Ok(result)) => Ok(result),
            }
        };
        let mut down = std::pin::pin!(down);
        let result = tokio::select! {
            biased;
            // A worker that has ended needs no more input.
            result = &mut down => result?,
            sent = up => {
                sent?;
                down.await?
            }
        };
        self.show_result(&session, &result)
    }
}

/// Why nothing more is sent.
enum Stopped {
    Input(Failed),
    Tunnel,
}

/// Why nothing more is received.
enum Lost {
    Output(Failed),
    Tunnel(TunnelError),
}

async fn send_lines(sender: &mut Sender<Body>) -> Result<(), Stopped> {
    let mut input = BufReader::new(tokio::io::stdin());
    let (mut line, mut number) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        number += 1;
        let failed = |what: String| Stopped::Input(Failed::usage(what));
        match read_line(&mut input, &mut line).await {
            Ok(false) => return Ok(()),
            Ok(true) if line.trim_ascii().is_empty() => continue,
            Ok(true) => {}
            Err(error) => return Err(failed(format!("line {number} of the standard input: {error}"))),
        }
        let item = payload::parse(&line, &format!("line {number}")).map_err(Stopped::Input)?;
        sender.send(item).await.map_err(|_| Stopped::Tunnel)?;
    }
}

async fn send_bytes(sender: &mut Sender<Body>) -> Result<(), Stopped> {
    let mut input = tokio::io::stdin();
    let mut chunk = vec![0; CHUNK];
    loop {
        let failed = |what: String| Stopped::Input(Failed::new(what));
        let read = input.read(&mut chunk).await.map_err(|error| failed(format!("the standard input: {error}")))?;
        if read == 0 {
            return Ok(());
        }
        let item = Body::encode(Encoding::MessagePack, &Bytes::copy_from_slice(&chunk[..read]));
        let item = item.map_err(|error| failed(error.to_string()))?;
        sender.send(item).await.map_err(|_| Stopped::Tunnel)?;
    }
}

impl Tunnel {
    async fn receive(&self, session: &Session, receiver: &mut Receiver<Body>) -> Result<(), Lost> {
        while let Some(item) = receiver.recv().await.map_err(Lost::Tunnel)? {
            let written = if self.raw {
                match item.take::<Bytes>() {
                    Ok(bytes) => session.out.bytes(&bytes),
                    Err(_) => Err(Failed::usage(format!(
                        "an item of `{}` is not bytes: leave out --raw, to have items as JSON",
                        self.event
                    ))),
                }
            } else if session.out.json {
                session.out.value(&json!({ "item": payload::value(&item) }))
            } else {
                session.out.line(&payload::text(&item))
            };
            written.map_err(Lost::Output)?;
        }
        Ok(())
    }

    fn show_result(&self, session: &Session, result: &Body) -> Result<(), Failed> {
        let value = payload::value(result);
        if session.out.json {
            return session.out.value(&json!({ "result": value }));
        }
        // Beside what came, which may be a file.
        if !value.is_null() {
            session.out.note(&format!("result: {value}"));
        }
        Ok(())
    }
}
