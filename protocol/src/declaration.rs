use std::collections::BTreeMap;
use std::time::Duration;

use edri_events::{
    Descriptor, DescriptorRef, Exposure, FieldSource, HttpRoute, Kind, NameError, ROUTES_MAX, Schemas, Source,
};
use schemars::Schema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{limits, reading};

/// What a peer says of an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventDeclaration {
    /// Its dotted name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// The field whose value is its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The time to live of a notification, the time-out of a request, the idle time-out of a tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// Whether a request may be tried again elsewhere when the worker that had it is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "reading::or_default")]
    pub idempotent: bool,
    /// What its author says of it.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "reading::or_default")]
    pub description: String,
    /// How it may be reached from outside, when it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<DeclaredExposure>,
    /// The JSON Schemas, when the peer has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schemas: Option<DeclaredSchemas>,
}

/// How an event may be reached from outside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeclaredExposure {
    /// Where HTTP requests for it go: `GET /risk/{region}`. What this process does not know as a route is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "reading::routes")]
    pub routes: Vec<String>,
    /// The fields that come from a header.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "reading::sources")]
    pub headers: BTreeMap<String, String>,
    /// The fields that come from a cookie.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "reading::sources")]
    pub cookies: BTreeMap<String, String>,
}

impl DeclaredExposure {
    /// As much of it as a peer takes.
    fn of(exposure: &Exposure) -> Self {
        let mut declared = Self {
            routes: exposure.routes.iter().take(ROUTES_MAX).map(ToString::to_string).collect(),
            ..Self::default()
        };
        for FieldSource { field, from } in &exposure.sources {
            let (sources, name) = match from {
                Source::Header(name) => (&mut declared.headers, name),
                Source::Cookie(name) => (&mut declared.cookies, name),
            };
            if sources.len() < limits::SOURCES_MAX {
                sources.insert(field.to_string(), name.to_string());
            }
        }
        declared
    }

    fn into_exposure(self) -> Exposure {
        let source = |field: String, from| FieldSource { field: field.into(), from };
        let headers = self.headers.into_iter().map(|(field, name)| source(field, Source::Header(name.into())));
        let cookies = self.cookies.into_iter().map(|(field, name)| source(field, Source::Cookie(name.into())));
        Exposure {
            routes: self.routes.iter().filter_map(|route| HttpRoute::new(route).ok()).collect(),
            sources: headers.chain(cookies).collect(),
        }
    }
}

/// The JSON Schemas of an event and of what belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeclaredSchemas {
    /// Of the event itself.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reading::schema")]
    pub event: Option<Schema>,
    /// Of a request's response or a tunnel's final result.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reading::schema")]
    pub output: Option<Schema>,
    /// Of what the opener of a tunnel sends.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reading::schema")]
    pub up: Option<Schema>,
    /// Of what the worker of a tunnel sends.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reading::schema")]
    pub down: Option<Schema>,
}

impl DeclaredSchemas {
    /// How many values they are made of.
    pub(crate) fn values(&self) -> usize {
        fn within(value: &Value) -> usize {
            1 + match value {
                Value::Array(values) => values.iter().map(within).sum(),
                Value::Object(values) => values.values().map(within).sum(),
                _ => 0,
            }
        }
        [&self.event, &self.output, &self.up, &self.down]
            .into_iter()
            .flatten()
            .map(|schema| within(schema.as_value()))
            .sum()
    }
}

impl EventDeclaration {
    /// What this process knows of the event.
    #[must_use]
    pub fn of(descriptor: &Descriptor) -> Self {
        let Schemas { event, output, up, down } = descriptor.schemas().clone();
        Self {
            name: descriptor.name().to_string(),
            kind: descriptor.kind(),
            key: descriptor.key().map(str::to_owned),
            time_limit_ms: descriptor.time_limit().map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            idempotent: descriptor.is_idempotent(),
            description: descriptor.description().to_owned(),
            expose: descriptor.exposure().map(DeclaredExposure::of),
            schemas: Some(DeclaredSchemas { event: Some(event), output, up, down }),
        }
    }

    /// A descriptor for this process.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the name is none.
    pub fn into_descriptor(self) -> Result<DescriptorRef, NameError> {
        let mut declaration = Descriptor::declare(&self.name, self.kind)?.description(&self.description);
        if let Some(key) = &self.key {
            declaration = declaration.key(key);
        }
        if let Some(limit) = self.time_limit_ms {
            declaration = declaration.time_limit(Duration::from_millis(limit));
        }
        if self.idempotent {
            declaration = declaration.idempotent();
        }
        if let Some(exposure) = self.expose {
            declaration = declaration.expose(exposure.into_exposure());
        }
        if let Some(DeclaredSchemas { event, output, up, down }) = self.schemas {
            declaration = declaration.schemas(Schemas { event: event.unwrap_or_default(), output, up, down });
        }
        Ok(declaration.build())
    }
}
