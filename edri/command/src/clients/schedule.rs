//! `schedule`.

use std::time::Duration;

use edri::scheduler::{Entry, When, event as scheduler};
use serde_json::{Map, Value};

use super::connection::Session;
use super::failed::{self, Asked};
use super::output::{Cell, Table, Tone, clean, or_dash, short};
use super::payload;
use super::run::Work;
use crate::exit::Failed;

#[derive(clap::Args)]
pub(crate) struct Schedule {
    #[command(subcommand)]
    command: Command,
    /// Asks the scheduler of this name, on this node: `schedule`, `north/`, `north/schedule`.
    #[arg(long, value_name = "MANAGER", global = true)]
    to: Option<String>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Adds an entry, or replaces the one with its id.
    Add(Box<Add>),
    /// Lists entries.
    List {
        /// Only those whose ids begin so.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Shows an entry and how its last run ended.
    Show {
        /// Its id.
        id: String,
    },
    /// Takes an entry out.
    Cancel {
        /// Its id.
        id: String,
    },
    /// Stops sending an entry until it is resumed.
    Pause {
        /// Its id.
        id: String,
    },
    /// Goes on with an entry that was paused.
    Resume {
        /// Its id.
        id: String,
    },
    /// Sends an entry now; its times stay as they are.
    Run {
        /// Its id.
        id: String,
    },
}

#[derive(clap::Args)]
struct Add {
    /// The event that is sent. Without it the whole entry is given by --entry.
    #[arg(required_unless_present = "entry")]
    event: Option<String>,
    /// Its payload: JSON; `@FILE` for what is in a file. `{}` when there is none.
    payload: Option<String>,
    /// What the entry is called. Without it one is made up.
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    when: Times,
    /// The event is a request; otherwise it is published. Its response is kept as the entry's last result.
    #[arg(long)]
    request: bool,
    /// The time zone of --cron and of --at without an offset: `Europe/Berlin`.
    #[arg(long)]
    zone: Option<String>,
    /// How often it is sent at most.
    #[arg(long)]
    count: Option<u64>,
    /// Each run is later by a random time up to this.
    #[arg(long, value_parser = payload::span)]
    jitter: Option<Duration>,
    /// The whole entry as JSON, with all that an entry can say; `@FILE` for what is in a file.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["event", "payload", "id", "times", "request", "zone", "count", "jitter"])]
    entry: Option<String>,
}

#[derive(clap::Args)]
#[group(id = "times", multiple = false)]
struct Times {
    /// Once, at this time: `2026-03-29T01:30:00Z`.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Once, after this time: `90s`, `5m`.
    #[arg(long, value_parser = payload::span, value_name = "TIME")]
    after: Option<Duration>,
    /// Every so often: `30s`, `5m`.
    #[arg(long, value_parser = payload::span, value_name = "TIME")]
    every: Option<Duration>,
    /// By a cron expression: `*/5 * * * *`.
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
}

impl Times {
    fn when(self) -> Result<When, Failed> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self { at: Some(at), .. } => Ok(When::At(at)),
            Self { after: Some(after), .. } => Ok(When::AfterMs(millis(after))),
            Self { every: Some(every), .. } => Ok(When::EveryMs(millis(every))),
            Self { cron: Some(cron), .. } => Ok(When::Cron(cron)),
            _ => Err(Failed::usage("when is it sent? Give --at, --after, --every or --cron")),
        }
    }
}

impl Add {
    fn entry(self) -> Result<Entry, Failed> {
        if let Some(entry) = self.entry {
            let body = payload::read(Some(&entry))?;
            return body.decode().map_err(|error| Failed::usage(format!("the entry: {error}")));
        }
        let event = self.event.unwrap_or_default();
        let value = payload::value(&payload::read(self.payload.as_deref())?);
        let when = self.when.when()?;
        let mut entry =
            if self.request { Entry::request(when, &event, &value) } else { Entry::publish(when, &event, &value) };
        entry.id = self.id;
        entry.zone = self.zone;
        entry.count = self.count;
        entry.jitter_ms = self.jitter.map_or(0, |jitter| u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX));
        Ok(entry)
    }
}

/// What is asked of a scheduler.
struct Asking<'a> {
    session: &'a Session,
    to: Option<&'a str>,
}

impl Asking<'_> {
    async fn ask<E: edri::Request>(&self, event: E) -> Result<E::Output, Failed> {
        let name = E::descriptor().name().clone();
        let asked = match self.to {
            Some(to) => self.session.client.request_to(to, event).await,
            None => self.session.client.request(event).await,
        };
        asked.map_err(|error| failed::request(&error, &Asked { event: &name, to: self.to }))
    }
}

impl Work for Schedule {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let asking = Asking { session: &session, to: self.to.as_deref() };
        let out = &session.out;
        match self.command {
            Command::Add(add) => {
                let added = asking.ask(scheduler::Add(add.entry()?)).await?;
                if out.json {
                    return out.value(&added);
                }
                let replaced = if added.replaced { ", in the place of the one before" } else { "" };
                out.line(&format!("added `{}`, next {}{replaced}", clean(&added.id), or_dash(added.next)))
            }
            Command::List { prefix } => list(&asking, prefix).await,
            Command::Show { id } => {
                let status = asking.ask(scheduler::Get { id }).await?;
                if out.json {
                    return out.value(&status);
                }
                let pretty = serde_json::to_string_pretty(&status).map_err(|error| Failed::new(error.to_string()))?;
                out.line(&pretty)
            }
            Command::Cancel { id } => {
                let cancelled = asking.ask(scheduler::Cancel { id: id.clone() }).await?;
                if out.json {
                    out.value(&cancelled)?;
                } else if cancelled.existed {
                    out.line(&format!("cancelled `{}`", clean(&id)))?;
                }
                if cancelled.existed { Ok(()) } else { Err(no_entry(&id)) }
            }
            Command::Pause { id } => paused(&asking, asking.ask(scheduler::Pause { id }).await?),
            Command::Resume { id } => paused(&asking, asking.ask(scheduler::Resume { id }).await?),
            Command::Run { id } => {
                let running = asking.ask(scheduler::RunNow { id: id.clone() }).await?;
                if out.json {
                    return out.value(&running);
                }
                let what = if running.queued { "waits for the run before it" } else { "is being sent" };
                out.line(&format!("`{}` {what}", clean(&id)))
            }
        }
    }
}

fn no_entry(id: &str) -> Failed {
    Failed::missing(format!("there is no entry `{id}`: `edri schedule list` shows those that are there"))
}

fn paused(asking: &Asking<'_>, status: scheduler::Status) -> Result<(), Failed> {
    let out = &asking.session.out;
    if out.json {
        return out.value(&status);
    }
    let what = if status.paused { "is paused" } else { "goes on" };
    out.line(&format!("`{}` {what}, next {}", clean(&status.id), or_dash(status.next)))
}

async fn list(asking: &Asking<'_>, prefix: String) -> Result<(), Failed> {
    let out = &asking.session.out;
    let mut table =
        Table::new(&["ID", "WHEN", "SENDS", "NEXT", "STATE", ">RUNS", ">FAILED", ">MISSED", ">SKIPPED", "LAST ERROR"]);
    let mut ask = scheduler::List { prefix, after: None, limit: Some(500) };
    loop {
        let page = asking.ask(ask.clone()).await?;
        for status in &page.entries {
            if out.json {
                out.value(status)?;
                continue;
            }
            let state = match status {
                scheduler::Status { paused: true, .. } => Cell::toned(Tone::Warn, "paused"),
                scheduler::Status { finished: true, .. } => Cell::toned(Tone::Dim, "finished"),
                scheduler::Status { running: 1.., .. } => Cell::toned(Tone::Good, "running"),
                _ => Cell::toned(Tone::Good, "waiting"),
            };
            let entry = serde_json::to_value(&status.entry).unwrap_or_default();
            let error = status.last.as_ref().and_then(|last| last.error.as_ref());
            table.row([
                (&status.id).into(),
                when_text(&entry["when"]).into(),
                sends_text(&entry["send"]).into(),
                or_dash(status.next.as_deref()).into(),
                state,
                status.runs.into(),
                Cell::toned(if status.failed > 0 { Tone::Warn } else { Tone::Plain }, status.failed.to_string()),
                status.missed.into(),
                status.skipped.into(),
                short(&or_dash(error.map(|error| format!("{}: {}", error.code, error.message))), 60).into(),
            ]);
        }
        let Some(next) = page.next else { break };
        ask.after = Some(next);
    }
    out.table(&table)
}

/// `{"cron": "* * * * *"}` as `cron * * * * *`.
fn when_text(when: &Value) -> String {
    let text = |(how, value): (&String, &Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{} {value}", how.trim_end_matches("_ms")) + if how.ends_with("_ms") { "ms" } else { "" }
    };
    when.as_object().and_then(|when| when.iter().next()).map(text).unwrap_or_default()
}

fn sends_text(send: &Value) -> String {
    let text = |(how, what): (&String, &Value)| format!("{how} {}", what["event"].as_str().unwrap_or_default());
    send.as_object().unwrap_or(&Map::new()).iter().next().map(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_and_actions_are_short_in_the_list() {
        assert_eq!(when_text(&json!({"cron": "*/5 * * * *"})), "cron */5 * * * *");
        assert_eq!(when_text(&json!({"every_ms": 5000})), "every 5000ms");
        assert_eq!(sends_text(&json!({"request": {"event": "a.b"}})), "request a.b");
    }
}
