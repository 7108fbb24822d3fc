//! `publish` and `request`.

use std::time::Duration;

use edri::{Body, Options, Receipt};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use super::connection::{Session, from};
use super::failed::{self, Asked};
use super::output::{Tone, clean};
use super::payload;
use super::run::Work;
use crate::exit::Failed;

/// How many lines are published with one another.
const BATCH: usize = 256;
/// The longest line, in bytes.
const LINE_BYTES_MAX: usize = 16 << 20;

#[derive(clap::Args)]
pub(crate) struct Publish {
    /// The event's name.
    event: String,
    /// JSON; `@FILE` for what is in a file; `-` for one payload a line of the standard input. `{}` when there is none.
    payload: Option<String>,
    /// A key instead of the event's own.
    #[arg(long)]
    key: Option<String>,
    /// Adds a header, `NAME=VALUE`.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// How long it is worth being delivered: `500ms`, `2s`, `5m`.
    #[arg(long, value_parser = payload::span)]
    ttl: Option<Duration>,
}

#[derive(clap::Args)]
pub(crate) struct Request {
    /// The event's name.
    event: String,
    /// JSON; `@FILE` for what is in a file. `{}` when there is none.
    payload: Option<String>,
    /// Asks one worker of every manager that answers, on all nodes.
    #[arg(long, conflicts_with = "to")]
    all: bool,
    /// Asks this manager: `risk`; on one node: `north/risk`; whoever answers on that node: `north/`.
    #[arg(long, value_name = "MANAGER")]
    to: Option<String>,
    /// How long the answer may take: `500ms`, `2s`, `5m`. The event's own time-out by default, which is 30s unless it says another.
    #[arg(long, value_parser = payload::span)]
    timeout: Option<Duration>,
    /// A key instead of the event's own.
    #[arg(long)]
    key: Option<String>,
    /// Adds a header, `NAME=VALUE`.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
}

/// What is said beside the payload.
fn options(limit: Option<Duration>, key: Option<&str>, headers: &[String]) -> Result<Options, Failed> {
    let mut options = Options::new();
    if let Some(limit) = limit {
        options = options.time_limit(limit);
    }
    if let Some(key) = key {
        options = options.key(key);
    }
    for header in headers {
        let wrong = || Failed::usage(format!("the header `{header}` has no `=`: write --header NAME=VALUE"));
        let (name, value) = header.split_once('=').ok_or_else(wrong)?;
        options = options.header(name, value);
    }
    Ok(options)
}

impl Work for Publish {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let options = options(self.ttl, self.key.as_deref(), &self.headers)?;
        if self.payload.as_deref() == Some("-") {
            return self.lines(&session, &options).await;
        }
        let body = payload::read(self.payload.as_deref())?;
        let published = session.client.untyped().publish_with(&self.event, body, &options).await;
        let Receipt { id, deliveries, .. } = published.map_err(|error| failed::publish(&error, &self.event))?;
        if session.out.json {
            return session.out.value(&json!({"id": id.to_string(), "groups": deliveries}));
        }
        session.out.line(&format!("published {id} to {}", groups(u64::from(deliveries))))
    }
}

impl Publish {
    /// Publishes each line of the standard input, in their order.
    async fn lines(&self, session: &Session, options: &Options) -> Result<(), Failed> {
        let mut lines = read_lines();
        let (mut count, mut deliveries) = (0_u64, 0_u64);
        let plain = self.ttl.is_none() && self.key.is_none() && self.headers.is_empty();
        let told = |count: u64, deliveries: u64| {
            if session.out.json {
                return session.out.value(&json!({"published": count, "deliveries": deliveries}));
            }
            session.out.line(&format!("published {count} events; {deliveries} deliveries"))
        };
        loop {
            let mut batch: Vec<Body> = Vec::new();
            let mut wrong = None;
            let mut next = lines.recv().await;
            while let Some(line) = next {
                match line {
                    Ok(body) => batch.push(body),
                    Err(failed) => wrong = Some(failed),
                }
                let full = wrong.is_some() || batch.len() >= BATCH;
                next = if full { None } else { lines.try_recv().ok() };
            }
            if batch.is_empty() && wrong.is_none() {
                return told(count, deliveries);
            }
            let length = batch.len() as u64;
            let published = if plain {
                session.client.untyped().publish_batch(&self.event, batch).await
            } else {
                one_by_one(session, &self.event, batch, options).await
            };
            match published {
                Ok(receipt) => {
                    count += length;
                    deliveries += u64::from(receipt.deliveries);
                }
                Err(error) => {
                    session
                        .out
                        .note(&format!("{count} events were published before; of the next {length} some may be"));
                    return Err(failed::publish(&error, &self.event));
                }
            }
            if let Some(wrong) = wrong {
                told(count, deliveries)?;
                return Err(wrong);
            }
        }
    }
}

async fn one_by_one(
    session: &Session,
    event: &str,
    batch: Vec<Body>,
    options: &Options,
) -> Result<Receipt, edri::PublishError> {
    let mut all: Option<Receipt> = None;
    for body in batch {
        let receipt = session.client.untyped().publish_with(event, body, options).await?;
        all = Some(Receipt::new(receipt.id, receipt.deliveries + all.map_or(0, |all| all.deliveries)));
    }
    // There was one at least.
    Ok(all.unwrap_or_else(|| Receipt::new(edri::EventId::next(), 0)))
}

/// The payloads in the lines of the standard input; the last one may be what is wrong with a line.
fn read_lines() -> mpsc::Receiver<Result<Body, Failed>> {
    let (tell, lines) = mpsc::channel(2 * BATCH);
    tokio::spawn(async move {
        let mut input = BufReader::new(tokio::io::stdin());
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            number += 1;
            let read = read_line(&mut input, &mut line).await;
            let body = match read {
                Ok(false) => return,
                Ok(true) if line.trim_ascii().is_empty() => continue,
                Ok(true) => payload::parse(&line, &format!("line {number}")),
                Err(error) => Err(Failed::usage(format!("line {number} of the standard input: {error}"))),
            };
            let over = body.is_err();
            if tell.send(body).await.is_err() || over {
                return;
            }
        }
    });
    lines
}

/// Reads a line of bounded length; false at the end.
pub(super) async fn read_line(input: &mut BufReader<tokio::io::Stdin>, line: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        line.extend_from_slice(&available[..taken]);
        input.consume(taken + usize::from(end.is_some()));
        if line.len() > LINE_BYTES_MAX {
            return Err(std::io::Error::other(format!("it is longer than {LINE_BYTES_MAX} bytes")));
        }
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn groups(count: u64) -> String {
    match count {
        0 => "nobody: no group is interested".to_owned(),
        1 => "1 group".to_owned(),
        count => format!("{count} groups"),
    }
}

impl Work for Request {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let body = payload::read(self.payload.as_deref())?;
        let options = options(self.timeout, self.key.as_deref(), &self.headers)?;
        let untyped = session.client.untyped();
        let asked = Asked { event: &self.event, to: self.to.as_deref() };
        if self.all {
            return self.ask_all(&session, body, &options).await;
        }
        let answer = match &self.to {
            Some(to) => untyped.request_to_with(to, &self.event, body, &options).await,
            None => untyped.request_with(&self.event, body, &options).await,
        };
        let answer = answer.map_err(|error| failed::request(&error, &asked))?;
        if session.out.json {
            return session.out.line(&payload::text(&answer));
        }
        let pretty = serde_json::to_string_pretty(&payload::value(&answer));
        session.out.line(&pretty.unwrap_or_else(|_| payload::text(&answer)))
    }
}

impl Request {
    async fn ask_all(&self, session: &Session, body: Body, options: &Options) -> Result<(), Failed> {
        let asked = Asked::of(&self.event);
        let answers = session.client.untyped().request_all_with(&self.event, body, options).await;
        let mut answers = answers.map_err(|error| failed::request(&error, &asked))?;
        let (mut some, mut first) = (false, None);
        while let Some(answer) = answers.next().await {
            let from = from(&answer);
            match answer.result {
                Ok(body) if session.out.json => {
                    session.out.value(&json!({"from": from, "value": payload::value(&body)}))?;
                    some = true;
                }
                Ok(body) => {
                    let from = session.out.paint(Tone::Head, &clean(&from));
                    session.out.line(&format!("{from}  {}", payload::text(&body)))?;
                    some = true;
                }
                Err(error) => {
                    if session.out.json {
                        let error = json!({"code": error.code(), "message": error.to_string()});
                        session.out.value(&json!({"from": from, "error": error}))?;
                    } else {
                        session.out.note(&format!("{from}: {error}"));
                    }
                    first.get_or_insert_with(|| failed::request(&error, &asked));
                }
            }
        }
        match first {
            Some(failed) if !some => Err(failed),
            _ => Ok(()),
        }
    }
}
