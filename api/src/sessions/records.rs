//! Where sessions are kept: a namespace of a store, asked over the bus as any other manager.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use edri_events::{Body, Encoding};
use edri_router::{Bus, Options, RequestError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// How long the store may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How many records are asked for at once.
const PAGE: usize = 256;

/// What is kept of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Whose it is.
    pub(super) name: String,
    pub(super) role: String,
    /// When it ends whatever happens, in milliseconds since 1970.
    pub(super) ends_ms: u64,
}

/// A record as the store has it.
#[derive(Debug, Deserialize)]
pub(super) struct Item<T = Record> {
    #[serde(default)]
    pub(super) key: String,
    pub(super) value: T,
    pub(super) version: u64,
    #[serde(default)]
    pub(super) expires_in_ms: Option<u64>,
}

#[derive(Serialize)]
struct Get<'k> {
    key: &'k str,
}

#[derive(Serialize)]
struct GetMany<'k> {
    keys: &'k [String],
}

#[derive(Serialize)]
struct Set<'k> {
    key: &'k str,
    value: &'k Record,
    expires_in_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_version: Option<u64>,
}

#[derive(Serialize)]
struct List<'k> {
    prefix: &'k str,
    limit: usize,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Item<serde::de::IgnoredAny>>,
}

/// The records of a namespace.
pub(super) struct Records {
    bus: Bus,
    namespace: String,
}

impl Records {
    pub(super) fn new(bus: Bus, namespace: &str) -> Self {
        Self { bus, namespace: namespace.to_owned() }
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Item>, Problem> {
        self.ask("get", &Get { key }).await
    }

    /// Which of these are not there.
    pub(super) async fn missing(&self, keys: &[String]) -> Result<Vec<String>, Problem> {
        let mut missing = Vec::new();
        for keys in keys.chunks(PAGE) {
            let items: Vec<Option<Item>> = self.ask("get_many", &GetMany { keys }).await?;
            missing.extend(keys.iter().zip(&items).filter(|(_, item)| item.is_none()).map(|(key, _)| key.clone()));
        }
        Ok(missing)
    }

    /// Keeps a record for so long; of one that was read, only if it is as it was.
    pub(super) async fn set(
        &self,
        key: &str,
        value: &Record,
        time: Duration,
        if_version: Option<u64>,
    ) -> Result<(), Problem> {
        let expires_in_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let _: serde::de::IgnoredAny = self.ask("set", &Set { key, value, expires_in_ms, if_version }).await?;
        Ok(())
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Problem> {
        let _: serde::de::IgnoredAny = self.ask("delete", &Get { key }).await?;
        Ok(())
    }

    /// Takes out all whose keys begin so.
    pub(super) async fn delete_all(&self, prefix: &str) -> Result<(), Problem> {
        loop {
            let page: Page = self.ask("list", &List { prefix, limit: PAGE }).await?;
            if page.items.is_empty() {
                return Ok(());
            }
            for item in &page.items {
                self.delete(&item.key).await?;
            }
        }
    }

    async fn ask<T: DeserializeOwned>(&self, verb: &str, what: &impl Serialize) -> Result<T, Problem> {
        let event = format!("store.{}.{verb}", self.namespace);
        let body = Body::encode(Encoding::MessagePack, what).map_err(|error| self.unavailable(&error.to_string()))?;
        let options = Options::new().time_limit(TIME_LIMIT);
        let answer = self.bus.untyped().request_with(&event, body, &options).await;
        let answer = answer.map_err(|error| self.unavailable(&self.hint(&error)))?;
        answer.decode().map_err(|error| self.unavailable(&error.to_string()))
    }

    fn hint(&self, error: &RequestError) -> String {
        match error.code() {
            "unknown_event" | "no_handler" => {
                format!("{error}; a store has to have the namespace: `Store::memory().namespace({:?})`", self.namespace)
            }
            _ => error.to_string(),
        }
    }

    fn unavailable(&self, why: &str) -> Problem {
        tracing::warn!(namespace = self.namespace, why, "sessions cannot be looked up or kept");
        let detail = "who is logged in cannot be found out at the moment: try again";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sessions_unavailable", detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }
}
