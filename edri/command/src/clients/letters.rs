//! `dead-letters`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edri::Reason;
use edri::operations::{
    DeadLetterList, DeadLetterView, DropDeadLetters, ResendDeadLetters, ShowDeadLetter, ShownDeadLetter,
};
use serde_json::{Value, json};

use super::connection::Session;
use super::output::{Cell, Table, Tone, clean, short, span};
use super::run::Work;
use crate::exit::Failed;

/// How many are resent or dropped with one request.
const AT_ONCE: usize = 100;
const PAGE: u32 = 500;

#[derive(clap::Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    command: Command,
    /// Asks this node of the cluster instead of the one that the command is connected to.
    #[arg(long, value_name = "NODE", global = true)]
    to: Option<String>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists those that the node keeps, the newest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_name = "LETTERS")]
        limit: usize,
    },
    /// Shows one with its payload.
    Show {
        /// Its number.
        number: u64,
    },
    /// Delivers them again, each to the group it was for; the oldest first.
    Resend(Which),
    /// Takes them from the list for good.
    Drop(Which),
}

#[derive(clap::Args)]
struct Filter {
    /// Only of events that this name or pattern selects.
    #[arg(long)]
    event: Option<String>,
    /// Only those for this group: `risk`, `subscription.7`, `north/risk`.
    #[arg(long)]
    group: Option<String>,
    /// Only those for this reason: `failed`, `worker_lost`, `expired`, `overloaded`, `undelivered`, …
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
}

#[derive(clap::Args)]
struct Which {
    /// Their numbers.
    #[arg(required_unless_present = "all")]
    numbers: Vec<u64>,
    /// All that --event, --group and --reason select.
    #[arg(long, conflicts_with = "numbers")]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

fn reason(text: &str) -> Result<Reason, String> {
    serde_json::from_value(Value::from(text)).map_err(|error| error.to_string())
}

impl Work for DeadLetters {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let to = self.to.as_deref();
        match self.command {
            Command::List { filter, limit } => list(&session, to, &filter, limit).await,
            Command::Show { number } => {
                let shown = session.ask(to, ShowDeadLetter { number }).await?;
                if session.out.json { session.out.value(&shown) } else { show(&session, &shown) }
            }
            Command::Resend(which) => resend(&session, to, which).await,
            Command::Drop(which) => {
                let numbers = which.numbers(&session, to).await?;
                let mut dropped = 0;
                for numbers in numbers.chunks(AT_ONCE) {
                    dropped += session.ask(to, DropDeadLetters { numbers: numbers.to_vec() }).await?.dropped;
                }
                let missing = numbers.len() as u64 - dropped;
                if session.out.json {
                    session.out.value(&json!({"dropped": dropped, "missing": missing}))?;
                } else {
                    session.out.line(&format!("dropped {dropped} dead letters"))?;
                }
                not_kept(missing, which.all)
            }
        }
    }
}

/// Asks for all that a filter selects, newest first, until there are so many.
async fn letters(
    session: &Session,
    to: Option<&str>,
    filter: &Filter,
    most: usize,
) -> Result<(Vec<DeadLetterView>, u64), Failed> {
    let (mut letters, mut before) = (Vec::new(), None);
    loop {
        let left = u32::try_from(most - letters.len()).unwrap_or(u32::MAX).min(PAGE);
        let ask = DeadLetterList {
            event: filter.event.clone(),
            group: filter.group.clone(),
            reason: filter.reason,
            before,
            limit: Some(left.max(1)),
        };
        let page = session.ask(to, ask).await?;
        letters.extend(page.letters);
        before = page.next;
        if before.is_none() || letters.len() >= most {
            letters.truncate(most);
            return Ok((letters, page.kept));
        }
    }
}

impl Which {
    /// The numbers, the oldest first.
    async fn numbers(&self, session: &Session, to: Option<&str>) -> Result<Vec<u64>, Failed> {
        if !self.all {
            return Ok(self.numbers.clone());
        }
        let (letters, _) = letters(session, to, &self.filter, usize::MAX).await?;
        Ok(letters.iter().rev().map(|letter| letter.number).collect())
    }
}

fn not_kept(missing: u64, all: bool) -> Result<(), Failed> {
    // Others may resend and drop meanwhile.
    if missing == 0 || all {
        return Ok(());
    }
    Err(Failed::missing(format!("{missing} of them are not kept: `edri dead-letters list` shows those that are")))
}

async fn list(session: &Session, to: Option<&str>, filter: &Filter, limit: usize) -> Result<(), Failed> {
    let (letters, kept) = letters(session, to, filter, limit).await?;
    if session.out.json {
        return letters.iter().try_for_each(|letter| session.out.value(letter));
    }
    let mut table = Table::new(&[">NUMBER", ">AGE", "EVENT", "KEY", "FOR", "REASON", ">TRIED", "DETAIL"]);
    for letter in &letters {
        table.row([
            letter.number.into(),
            age(letter.at_ms).into(),
            (&letter.event).into(),
            short(letter.key.as_deref().unwrap_or("-"), 24).into(),
            letter.group.to_text().into(),
            Cell::toned(Tone::Warn, reason_text(letter.reason)),
            letter.attempts.into(),
            short(&letter.detail, 60).into(),
        ]);
    }
    session.out.table(&table)?;
    if letters.len() as u64 != kept {
        session.out.note(&format!("{} of the {kept} dead letters that the node keeps", letters.len()));
    }
    Ok(())
}

fn reason_text(reason: Reason) -> String {
    serde_json::to_value(reason).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn age(at_ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(at_ms);
    span(SystemTime::now().duration_since(at).unwrap_or_default().as_secs_f64())
}

fn show(session: &Session, shown: &ShownDeadLetter) -> Result<(), Failed> {
    let ShownDeadLetter { letter, origin, cause, headers, payload, unreadable } = shown;
    let mut lines = vec![session.out.paint(Tone::Head, &format!("dead letter {}", letter.number))];
    let mut fact = |name: &str, value: &dyn std::fmt::Display| {
        lines.push(format!("  {name:<10}{}", clean(&value.to_string())));
    };
    fact("event", &letter.event);
    fact("id", &letter.event_id);
    fact("kind", &letter.kind);
    if let Some(key) = &letter.key {
        fact("key", key);
    }
    fact("for", &letter.group);
    fact("reason", &reason_text(letter.reason));
    fact("detail", &letter.detail);
    fact("attempts", &letter.attempts);
    fact("age", &age(letter.at_ms));
    fact("origin", origin);
    if let Some(cause) = cause {
        fact("cause", cause);
    }
    for (name, value) in headers {
        fact("header", &format!("{name}: {value}"));
    }
    match (payload, unreadable) {
        (Some(payload), _) => {
            lines.push("  payload".to_owned());
            let pretty = serde_json::to_string_pretty(payload).unwrap_or_default();
            lines.extend(pretty.lines().map(|line| format!("    {}", clean(line))));
        }
        (None, why) => fact("payload", &why.as_deref().unwrap_or("none")),
    }
    session.out.line(&lines.join("\n"))
}

async fn resend(session: &Session, to: Option<&str>, which: Which) -> Result<(), Failed> {
    let numbers = which.numbers(session, to).await?;
    let (mut resent, mut refused, mut missing, mut tried) = (0_u64, 0_u64, 0_u64, 0_usize);
    while tried < numbers.len() {
        let next = &numbers[tried..numbers.len().min(tried + AT_ONCE)];
        let came = session.ask(to, ResendDeadLetters { numbers: next.to_vec() }).await?;
        if came.is_empty() {
            return Err(Failed::timed_out(format!(
                "{resent} were resent, then the group had no room in time: `edri managers` shows where events wait"
            )));
        }
        tried += came.len();
        for one in &came {
            match &one.error {
                None => resent += 1,
                Some(error) if error.contains("is kept") => missing += 1,
                Some(error) => {
                    refused += 1;
                    session.out.note(&format!("dead letter {}: {error}", one.number));
                }
            }
            if session.out.json {
                session.out.value(one)?;
            }
        }
    }
    if !session.out.json {
        session.out.line(&format!("resent {resent} dead letters"))?;
    }
    if refused > 0 {
        return Err(Failed::new(format!(
            "{refused} were not resent, for the reasons above; they are kept, or are new dead letters"
        )));
    }
    not_kept(missing, which.all)
}
