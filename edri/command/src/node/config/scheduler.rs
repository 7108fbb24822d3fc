//! What is sent at times.

use std::collections::BTreeSet;

use edri::scheduler::{Claim, Missed, Overlap, Response, When, limits::ENTRIES_DEFAULT};
use edri::{Entry, EventName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Checking, Span, read};

/// A scheduler.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Scheduler {
    pub(super) name: String,
    store: Option<String>,
    entries_max: usize,
    entries: Vec<Scheduled>,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self { name: "scheduler".to_owned(), store: None, entries_max: ENTRIES_DEFAULT, entries: Vec::new() }
    }
}

/// An entry: one word for when, one for what.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Scheduled {
    id: Option<String>,
    cron: Option<String>,
    every: Option<Span>,
    aligned: Option<Span>,
    after: Option<Span>,
    at: Option<String>,
    publish: Option<String>,
    request: Option<String>,
    #[serde(deserialize_with = "read::any")]
    payload: Value,
    timeout: Option<Span>,
    response: Option<Response>,
    overlap: Option<Overlap>,
    zone: Option<String>,
    start: Option<String>,
    end: Option<String>,
    count: Option<u64>,
    jitter: Option<Span>,
    missed: Missed,
    claim: Option<Claim>,
}

impl Scheduler {
    pub(super) fn build(&self, checking: &mut Checking) -> edri::Scheduler {
        checking.accept("name", edri::ManagerName::new(&self.name));
        let mut scheduler = edri::Scheduler::named(&self.name).entries_max(self.entries_max);
        if let Some(namespace) = &self.store {
            checking.accept("store", edri::store::event::check_namespace(namespace));
            scheduler = scheduler.store(namespace);
        }
        let mut ids = BTreeSet::new();
        checking.each_of("entries", &self.entries, |scheduled, checking| {
            if let Some(id) = scheduled.id.as_ref().filter(|id| !ids.insert((*id).clone())) {
                checking.wrong("id", format!("another entry is called `{id}`"));
            }
            if let Some(entry) = scheduled.build(checking) {
                checking.accept("", entry.check());
                scheduler = std::mem::take(&mut scheduler).entry(entry);
            }
        });
        let max = edri::scheduler::limits::ENTRIES_MAX;
        if self.entries_max == 0 || self.entries_max > max || self.entries.len() > self.entries_max {
            let wrong = format!("a scheduler has 1 to {max} entries, and those listed here have to fit");
            checking.wrong("entries_max", wrong);
        }
        scheduler
    }
}

impl Scheduled {
    fn build(&self, checking: &mut Checking) -> Option<Entry> {
        let when = [
            self.cron.as_deref().map(When::cron),
            self.every.map(|every| When::every(every.into())),
            self.aligned.map(|aligned| When::aligned(aligned.into())),
            self.after.map(|after| When::after(after.into())),
            self.at.as_deref().map(When::at_local),
        ];
        let mut when = when.into_iter().flatten();
        let when = match (when.next(), when.next()) {
            (Some(when), None) => Some(when),
            _ => {
                checking.wrong("", "it says when in one way: `cron`, `every`, `aligned`, `after` or `at`");
                None
            }
        };
        let mut entry = match (&self.publish, &self.request) {
            (Some(event), None) => {
                checking.accept("publish", EventName::new(event));
                for (key, is_said) in [
                    ("timeout", self.timeout.is_some()),
                    ("response", self.response.is_some()),
                    ("overlap", self.overlap.is_some()),
                ] {
                    if is_said {
                        checking.wrong(key, "this is for requests, and the entry publishes");
                    }
                }
                Entry::publish(when?, event, &self.payload)
            }
            (None, Some(event)) => {
                checking.accept("request", EventName::new(event));
                self.request(Entry::request(when?, event, &self.payload))
            }
            _ => {
                checking.wrong("", "it says what to send in one way: `publish` or `request`, an event's name");
                return None;
            }
        };
        entry.id.clone_from(&self.id);
        entry.zone.clone_from(&self.zone);
        entry.start.clone_from(&self.start);
        entry.end.clone_from(&self.end);
        entry.count = self.count;
        entry.missed = self.missed;
        entry.claim.clone_from(&self.claim);
        Some(match self.jitter {
            Some(jitter) => entry.jitter(jitter.into()),
            None => entry,
        })
    }

    fn request(&self, mut entry: Entry) -> Entry {
        if let Some(timeout) = self.timeout {
            entry = entry.timeout(timeout.into());
        }
        if let Some(overlap) = self.overlap {
            entry = entry.overlap(overlap);
        }
        match &self.response {
            Some(Response::Publish(event)) => entry.publish_response(event),
            Some(Response::Drop) => entry.drop_response(),
            Some(Response::Keep) | None => entry,
        }
    }
}
