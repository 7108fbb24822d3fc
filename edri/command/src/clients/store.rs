//! `store`.

use std::time::Duration;

use edri::store::event::{
    Change, Count, Delete, Deleted, Get, Item, List, Page, Set, Verb, Watch, What, Written, check_namespace,
};
use edri::{Body, Encoding, Options};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::any::Any;
use super::backup::{self, Backup, Restore};
use super::connection::Session;
use super::failed::{self, Asked};
use super::output::{Table, Tone, clean, or_dash, short, span};
use super::payload;
use super::run::Work;
use crate::exit::Failed;

/// How many items are asked for at once.
const PAGE: u64 = 200;

#[derive(clap::Args)]
pub(crate) struct Store {
    #[command(subcommand)]
    command: Command,
    /// How long each request may take: `500ms`, `2s`, `5m`.
    #[arg(long, value_parser = payload::span, default_value = "10s", global = true)]
    timeout: Duration,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Shows the value of a key.
    Get {
        /// The namespace.
        namespace: String,
        /// The key.
        key: String,
    },
    /// Gives a key a value.
    Set {
        /// The namespace.
        namespace: String,
        /// The key.
        key: String,
        /// JSON; `@FILE` for what is in a file.
        value: String,
        /// It is gone after this time: `90s`, `5m`.
        #[arg(long, value_parser = payload::span, value_name = "TIME")]
        expires: Option<Duration>,
        /// Only when the key is not there.
        #[arg(long, conflicts_with = "if_version")]
        if_absent: bool,
        /// Only when its item has this version.
        #[arg(long, value_name = "VERSION")]
        if_version: Option<u64>,
    },
    /// Takes a key out.
    Delete {
        /// The namespace.
        namespace: String,
        /// The key.
        key: String,
        /// Only when its item has this version.
        #[arg(long, value_name = "VERSION")]
        if_version: Option<u64>,
    },
    /// Lists items in the order of their keys.
    List {
        /// The namespace.
        namespace: String,
        /// What their keys begin with.
        #[arg(default_value = "")]
        prefix: String,
        /// How many at most.
        #[arg(long, default_value_t = 1_000, value_name = "ITEMS")]
        limit: usize,
    },
    /// Says how many keys there are.
    Count {
        /// The namespace.
        namespace: String,
        /// What they begin with.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Shows the items that are there, and then every change, until Ctrl-C.
    Watch {
        /// The namespace.
        namespace: String,
        /// What their keys begin with.
        #[arg(default_value = "")]
        prefix: String,
        /// Ends after so many lines.
        #[arg(long)]
        count: Option<u64>,
    },
    /// Writes all items into a file of JSON lines, which is there only when it is whole. Each item is as it was when it was read, while
    /// others may write.
    Backup(Backup),
    /// Writes the items of a backup into a namespace. A file that is not whole changes nothing.
    Restore(Restore),
}

/// A namespace that is asked.
pub(super) struct Asking<'a> {
    pub(super) session: &'a Session,
    pub(super) namespace: &'a str,
    limit: Duration,
}

impl Asking<'_> {
    pub(super) async fn ask<A: DeserializeOwned>(&self, verb: Verb, question: &impl Serialize) -> Result<A, Failed> {
        let event = verb.event(self.namespace);
        let failed = |error: edri::CodecError| Failed::new(format!("`{event}`: {error}"));
        let body = Body::encode(Encoding::MessagePack, question).map_err(failed)?;
        let options = Options::new().time_limit(self.limit);
        let answer = self.session.client.untyped().request_with(&event, body, &options).await;
        answer.map_err(|error| failed::request(&error, &Asked::of(&event)))?.decode().map_err(failed)
    }

    /// The items whose keys begin so, a page at a time.
    pub(super) async fn page(&self, prefix: &str, after: Option<String>, limit: u64) -> Result<Page<Any>, Failed> {
        let list = List { prefix: prefix.to_owned(), after, limit: Some(limit.min(PAGE)) };
        self.ask(Verb::List, &list).await
    }
}

impl Work for Store {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let namespace = match &self.command {
            Command::Get { namespace, .. }
            | Command::Set { namespace, .. }
            | Command::Delete { namespace, .. }
            | Command::List { namespace, .. }
            | Command::Count { namespace, .. }
            | Command::Watch { namespace, .. } => namespace.clone(),
            Command::Backup(backup) => backup.namespace.clone(),
            Command::Restore(restore) => restore.namespace.clone(),
        };
        check_namespace(&namespace).map_err(|error| Failed::usage(error.to_string()))?;
        let asking = Asking { session: &session, namespace: &namespace, limit: self.timeout };
        let out = &session.out;
        match self.command {
            Command::Get { key, .. } => get(&asking, key).await,
            Command::Set { key, value, expires, if_absent, if_version, .. } => {
                let value: Any =
                    payload::read(Some(&value))?.decode().map_err(|error| Failed::usage(error.to_string()))?;
                let expires_in_ms = expires.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
                let set = Set { key, value, expires_in_ms, if_absent, if_version, request: None };
                let written: Written = asking.ask(Verb::Set, &set).await?;
                if out.json { out.value(&written) } else { out.line(&format!("version {}", written.version)) }
            }
            Command::Delete { key, if_version, .. } => {
                let delete = Delete { key: key.clone(), if_version, request: None };
                let deleted: Deleted = asking.ask(Verb::Delete, &delete).await?;
                if out.json {
                    out.value(&deleted)?;
                } else if deleted.existed {
                    out.line(&format!("deleted `{}`", clean(&key)))?;
                }
                if deleted.existed { Ok(()) } else { Err(no_key(&namespace, &key)) }
            }
            Command::List { prefix, limit, .. } => list(&asking, &prefix, limit).await,
            Command::Count { prefix, .. } => {
                let count: u64 = asking.ask(Verb::Count, &Count { prefix }).await?;
                if out.json { out.value(&json!({ "count": count })) } else { out.line(&count.to_string()) }
            }
            Command::Watch { prefix, count, .. } => watch(&asking, prefix, count).await,
            Command::Backup(backup) => backup::backup(&asking, &backup).await,
            Command::Restore(restore) => backup::restore(&asking, &restore).await,
        }
    }
}

fn no_key(namespace: &str, key: &str) -> Failed {
    Failed::missing(format!("`{namespace}` has no key `{key}`: `edri store list {namespace}` shows those it has"))
}

async fn get(asking: &Asking<'_>, key: String) -> Result<(), Failed> {
    let item: Option<Item<Any>> = asking.ask(Verb::Get, &Get { key: key.clone() }).await?;
    let Some(item) = item else { return Err(no_key(asking.namespace, &key)) };
    let out = &asking.session.out;
    if out.json {
        return out.value(&shown(&item));
    }
    out.line(&serde_json::to_string_pretty(&item.value.shown()).unwrap_or_default())
}

fn shown(item: &Item<Any>) -> Value {
    let mut line = json!({"key": item.key, "value": item.value.shown(), "version": item.version});
    if let Some(expires) = item.expires_in_ms {
        line["expires_in_ms"] = expires.into();
    }
    line
}

async fn list(asking: &Asking<'_>, prefix: &str, limit: usize) -> Result<(), Failed> {
    let out = &asking.session.out;
    let mut table = Table::new(&["KEY", ">VERSION", ">EXPIRES", "VALUE"]);
    let (mut after, mut left) = (None, limit);
    while left > 0 {
        let page = asking.page(prefix, after, left as u64).await?;
        left -= page.items.len().min(left);
        for item in &page.items {
            if out.json {
                out.value(&shown(item))?;
                continue;
            }
            table.row([
                (&item.key).into(),
                item.version.into(),
                or_dash(item.expires_in_ms.map(|ms| span(ms as f64 / 1_000.0))).into(),
                short(&item.value.shown().to_string(), 80).into(),
            ]);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    out.table(&table)?;
    if after.is_some() {
        out.note(&format!("there are more than {limit}: --limit shows more"));
    }
    Ok(())
}

async fn watch(asking: &Asking<'_>, prefix: String, count: Option<u64>) -> Result<(), Failed> {
    let event = Verb::Watch.event(asking.namespace);
    let body =
        Body::encode(Encoding::MessagePack, &Watch { prefix }).map_err(|error| Failed::new(error.to_string()))?;
    let opened = asking.session.client.untyped().open(&event, body).await;
    let mut opened = opened.map_err(|error| failed::request(&error, &Asked::of(&event)))?;
    let out = &asking.session.out;
    let mut left = count;
    while left != Some(0) {
        let Some(item) = opened.recv().await.map_err(|error| failed::tunnel(&error, &event))? else {
            return Err(Failed::unreachable(
                "the store has ended the watch: its node stops, or gives the namespace up",
            ));
        };
        let change: Change<Any> = item.decode().map_err(|error| Failed::new(format!("`{event}`: {error}")))?;
        left = left.map(|left| left - 1);
        let value = change.value.as_ref().map(Any::shown);
        if out.json {
            let mut line = json!({"what": change.what.as_str(), "key": change.key, "version": change.version});
            if let Some(value) = value {
                line["value"] = value;
            }
            out.value(&line)?;
            continue;
        }
        let tone = match change.what {
            What::Is | What::Ready => Tone::Dim,
            What::Set => Tone::Good,
            What::Deleted | What::Expired | What::Evicted => Tone::Warn,
        };
        let what = out.paint(tone, &format!("{:<8}", change.what.as_str()));
        let value = value.map(|value| value.to_string()).unwrap_or_default();
        out.line(format!("{what} {:>8}  {}  {}", change.version, clean(&change.key), clean(&value)).trim_end())?;
    }
    Ok(())
}
