use std::collections::BTreeMap;
use std::time::Duration;

use edri_events::{
    Caching, Descriptor, DescriptorRef, EventName, Exposure, FieldSource, HttpRoute, Kind, NameError, PageNames,
    ROUTES_MAX, STALE_ON_MAX, Schemas, Source,
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
    /// The template that shows the answer to a browser.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reading::short_text")]
    pub page: Option<String>,
    /// The template that shows the form again when what was sent in it is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reading::short_text")]
    pub form: Option<String>,
    /// Where a browser goes after its form was taken.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reading::short_text")]
    pub then: Option<String>,
    /// For how long a response may be given again, when it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<DeclaredCaching>,
}

/// For how long the response to a request may be given again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeclaredCaching {
    /// In milliseconds.
    pub lifetime_ms: u64,
    /// Whether it is the same for every caller.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "reading::or_default")]
    pub public: bool,
    /// The notifications that end it sooner. What this process does not know as a name is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "reading::stale_on")]
    pub stale_on: Vec<String>,
}

impl DeclaredCaching {
    fn of(caching: &Caching) -> Self {
        Self {
            lifetime_ms: u64::try_from(caching.lifetime.as_millis()).unwrap_or(u64::MAX),
            public: caching.public,
            stale_on: caching.stale_on.iter().take(STALE_ON_MAX).map(ToString::to_string).collect(),
        }
    }

    fn into_caching(self) -> Caching {
        Caching {
            lifetime: Duration::from_millis(self.lifetime_ms),
            public: self.public,
            stale_on: self.stale_on.iter().filter_map(|name| EventName::new(name).ok()).collect(),
        }
    }
}

impl DeclaredExposure {
    /// As much of it as a peer takes.
    fn of(exposure: &Exposure) -> Self {
        let mut declared = Self {
            routes: exposure.routes.iter().take(ROUTES_MAX).map(ToString::to_string).collect(),
            page: exposure.page.page.as_deref().map(str::to_owned),
            form: exposure.page.form.as_deref().map(str::to_owned),
            then: exposure.page.then.as_deref().map(str::to_owned),
            cache: exposure.caching.as_ref().map(DeclaredCaching::of),
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
            page: PageNames {
                page: self.page.map(Into::into),
                form: self.form.map(Into::into),
                then: self.then.map(Into::into),
            },
            caching: self.cache.map(DeclaredCaching::into_caching),
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
