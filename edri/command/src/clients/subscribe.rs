//! `subscribe`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edri::{Conditions, Encoding, Envelope, Position, Since, UntypedSubscription};
use serde_json::{Map, Value, json};

use super::connection::Session;
use super::failed;
use super::output::{Tone, clean};
use super::payload;
use super::run::Work;
use crate::exit::Failed;

/// How often it is looked whether events were missed or the connection is lost.
const LOOK: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub(crate) struct Subscribe {
    /// The event's name, or a pattern: `quake.*` takes one more segment, `quake.>` the rest.
    pattern: String,
    /// Only events with this key.
    #[arg(long)]
    key: Option<String>,
    /// Only events for whose payload this holds: `magnitude>=5`, `region=north`, `site.id!=7`, `name^=ab` (begins with). Of several
    /// all must hold. A value is JSON if it can be read as such, otherwise a text.
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// Ends after so many events.
    #[arg(long)]
    count: Option<u64>,
    /// Begins with the last so many events that the node's history has.
    #[arg(long, value_name = "EVENTS")]
    last: Option<usize>,
    /// Begins behind this place in the node's history: the `position` of an event that was shown with --json, or an event's id.
    #[arg(long, value_name = "POSITION", conflicts_with = "last")]
    since: Option<String>,
    /// Events that may wait to be written; what is beyond is missed, and told.
    #[arg(long, default_value_t = 4096, value_name = "EVENTS", conflicts_with_all = ["last", "since"])]
    capacity: usize,
}

/// Conditions as they are given, in the form that the node takes: `{"magnitude": {"gte": 5}}`.
fn conditions(given: &[String]) -> Result<Option<Conditions>, Failed> {
    // Longer ones first, so that `>=` is not taken for `>`.
    const OPERATORS: [(&str, &str); 7] =
        [(">=", "gte"), ("<=", "lte"), ("!=", "ne"), ("^=", "prefix"), (">", "gt"), ("<", "lt"), ("=", "eq")];
    let mut fields = Map::new();
    for text in given {
        let wrong =
            || Failed::usage(format!("`{text}` is no condition: write `field>=5`, with one of >= <= != ^= > < ="));
        let at = text.find(['>', '<', '!', '^', '=']).ok_or_else(wrong)?;
        let (field, rest) = text.split_at(at);
        let found = OPERATORS.iter().find_map(|(sign, name)| rest.strip_prefix(sign).map(|value| (name, value)));
        let (name, value) = found.ok_or_else(wrong)?;
        let field = field.trim();
        if field.is_empty() {
            return Err(wrong());
        }
        let value = value.trim();
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        let tests = fields.entry(field).or_insert_with(|| Value::Object(Map::new()));
        let twice = tests.as_object_mut().and_then(|tests| tests.insert((*name).to_owned(), value)).is_some();
        if twice {
            return Err(Failed::usage(format!("`{text}`: `{field}` is compared so twice: leave one out")));
        }
    }
    if fields.is_empty() {
        return Ok(None);
    }
    serde_json::from_value(Value::Object(fields)).map(Some).map_err(|error| Failed::usage(error.to_string()))
}

impl Work for Subscribe {
    async fn work(self, session: Session) -> Result<(), Failed> {
        let conditions = conditions(&self.conditions)?;
        let failed = |error| failed::declare(&error, &self.pattern);
        let mut subscribe = session.client.untyped().subscribe(&self.pattern);
        if let Some(key) = &self.key {
            subscribe = subscribe.key(key);
        }
        if let Some(conditions) = conditions {
            subscribe = subscribe.conditions(conditions);
        }
        let mut shown = Shown { session: &session, left: self.count };
        let past = match (self.last, &self.since) {
            (Some(last), _) => subscribe.last(last),
            (None, Some(since)) => subscribe.since(Since::from_text(since)),
            (None, None) => {
                let events = subscribe.capacity(self.capacity).await.map_err(failed)?;
                return live(events, shown).await;
            }
        };
        let mut replay = past.await.map_err(failed)?;
        while shown.wants_more() {
            match replay.next().await {
                Some(Ok(recorded)) => shown.event(&recorded.event, Some(recorded.position))?,
                Some(Err(missed)) => shown.missed(missed.events)?,
                None => return ended(),
            }
        }
        Ok(())
    }
}

/// Shows events as they come.
async fn live(mut events: UntypedSubscription, mut shown: Shown<'_>) -> Result<(), Failed> {
    let (mut missed, mut connected) = (0, true);
    let mut look = tokio::time::interval(LOOK);
    while shown.wants_more() {
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(event) => shown.event(&event, None)?,
                None => return ended(),
            },
            _ = look.tick() => connected = shown.connection(connected),
        }
        let now = events.missed();
        if now > missed {
            shown.missed(Some(now - missed))?;
            missed = now;
        }
    }
    Ok(())
}

fn ended() -> Result<(), Failed> {
    Err(Failed::unreachable("the node has ended the subscription: it stops, or the token has expired"))
}

/// What is shown of a subscription.
struct Shown<'a> {
    session: &'a Session,
    /// How many events are still wanted.
    left: Option<u64>,
}

impl Shown<'_> {
    fn wants_more(&self) -> bool {
        self.left != Some(0)
    }

    fn event(&mut self, event: &Envelope, position: Option<Position>) -> Result<(), Failed> {
        self.left = self.left.map(|left| left - 1);
        let body = event.body(Encoding::MessagePack);
        let out = &self.session.out;
        let payload = body.as_ref().map_or(Value::Null, payload::value);
        if out.json {
            let head = event.head();
            let mut line = json!({
                "event": event.name().as_str(),
                "id": event.id().to_string(),
                "origin": head.origin.to_string(),
                "payload": payload,
            });
            if let Some(key) = event.key() {
                line["key"] = key.into();
            }
            if let Some(position) = position {
                line["position"] = position.to_string().into();
            }
            if let Some(headers) = head.headers() {
                line["headers"] = headers.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
            }
            return out.value(&line);
        }
        let time = out.paint(Tone::Dim, &now());
        let name = out.paint(Tone::Head, event.name());
        out.line(&format!("{time}  {name}  {}", clean(&payload.to_string())))
    }

    fn missed(&self, count: Option<u64>) -> Result<(), Failed> {
        if self.session.out.json {
            return self.session.out.value(&json!({ "missed": count }));
        }
        match count {
            Some(count) => {
                self.session.out.note(&format!("{count} events were missed: they came faster than they were read"))
            }
            None => self.session.out.note("events were missed; it is not known how many"),
        }
        Ok(())
    }

    /// Tells when the connection is lost, and when it is back.
    fn connection(&self, before: bool) -> bool {
        let now = self.session.client.is_connected();
        match (before, now) {
            (true, false) => self.session.out.note("the connection is lost; trying again"),
            (false, true) => self.session.out.note("connected again"),
            _ => {}
        }
        now
    }
}

/// The time of day in UTC.
fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60, now.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: &[&str], expect: Value) {
        let given: Vec<_> = given.iter().map(|&text| text.to_owned()).collect();
        let conditions = conditions(&given).expect("conditions").expect("some");
        assert_eq!(serde_json::to_value(&conditions).expect("JSON"), expect);
    }

    #[test]
    fn conditions_are_written_as_they_are_thought() {
        check(&["magnitude>=5"], json!({"magnitude": {"gte": 5}}));
        check(&["region=north", "magnitude<7.5"], json!({"region": {"eq": "north"}, "magnitude": {"lt": 7.5}}));
        check(&["a.b!=\"5\"", "a.b > 1"], json!({"a.b": {"ne": "5", "gt": 1}}));
        check(&["name^=ab"], json!({"name": {"prefix": "ab"}}));
        check(&["open=true"], json!({"open": {"eq": true}}));
    }

    #[test]
    fn what_is_no_condition_is_told() {
        for wrong in ["magnitude", "=5", "a~5", "a!5"] {
            assert_eq!(conditions(&[wrong.to_owned()]).expect_err(wrong).code, 2, "{wrong}");
        }
        assert!(conditions(&["a=1".to_owned(), "a=2".to_owned()]).is_err());
    }
}
