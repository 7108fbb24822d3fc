//! Events that no program here declares itself, and what is remembered of events.

use std::collections::BTreeMap;

use edri::{
    Caching, Declaration, Descriptor, DescriptorRef, EventName, Exposure, FieldSource, HttpRoute, Kind, PageNames,
    Schemas,
};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::units::Size;
use super::{Checking, Span, read};

/// The most routes of one event.
const ROUTES_MAX: usize = 16;
/// The most notifications that end what is cached of one event.
const STALE_ON_MAX: usize = 16;

/// An event by its name. What a program says of it has to agree; what is said here counts.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    kind: EventKind,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    time_limit: Option<Span>,
    #[serde(default)]
    idempotent: bool,
    #[serde(default)]
    description: String,
    #[serde(default)]
    expose: bool,
    #[serde(default)]
    routes: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    cookies: BTreeMap<String, String>,
    #[serde(default)]
    page: Option<String>,
    #[serde(default)]
    form: Option<String>,
    #[serde(default)]
    then: Option<String>,
    #[serde(default)]
    cache: Option<Cache>,
    #[serde(default, deserialize_with = "read::any_option")]
    schema: Option<Value>,
    #[serde(default, deserialize_with = "read::any_option")]
    output: Option<Value>,
    #[serde(default, deserialize_with = "read::any_option")]
    up: Option<Value>,
    #[serde(default, deserialize_with = "read::any_option")]
    down: Option<Value>,
}

/// For how long a response may be given again.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cache {
    #[serde(rename = "for")]
    lifetime: Span,
    #[serde(default)]
    public: bool,
    #[serde(default)]
    stale_on: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum EventKind {
    Notification,
    Request,
    Tunnel,
}

impl From<EventKind> for Kind {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::Notification => Self::Notification,
            EventKind::Request => Self::Request,
            EventKind::Tunnel => Self::Tunnel,
        }
    }
}

impl Event {
    pub(super) fn build(&self, name: &str, checking: &mut Checking) -> DescriptorRef {
        let declared = Descriptor::declare(name, self.kind.into());
        let Some(declaration) = checking.accept("", declared) else { return stand_in(self.kind).build() };
        let mut declaration = declaration.description(&self.description);
        if let Some(key) = &self.key {
            declaration = declaration.key(key);
        }
        if let Some(limit) = self.time_limit {
            declaration = declaration.time_limit(limit.into());
        }
        if self.idempotent {
            if self.kind != EventKind::Request {
                checking.wrong("idempotent", "this is for requests");
            }
            declaration = declaration.idempotent();
        }
        let exposure = self.exposure(checking);
        if let Some(exposure) = exposure {
            declaration = declaration.expose(exposure);
        }
        declaration.schemas(self.schemas(checking)).build()
    }

    fn exposure(&self, checking: &mut Checking) -> Option<Exposure> {
        let mut exposure = Exposure::default();
        if self.routes.len() > ROUTES_MAX {
            checking.wrong("routes", format!("an event has {ROUTES_MAX} routes at most"));
        }
        checking.each_of("routes", &self.routes, |route, checking| {
            exposure.routes.extend(checking.accept("", HttpRoute::new(route)));
        });
        let named = |text: &String| Box::<str>::from(text.as_str());
        let headers = self.headers.iter().map(|(field, name)| (field, edri::Source::Header(named(name))));
        let cookies = self.cookies.iter().map(|(field, name)| (field, edri::Source::Cookie(named(name))));
        exposure.sources =
            headers.chain(cookies).map(|(field, from)| FieldSource { field: named(field), from }).collect();
        exposure.page = PageNames {
            page: self.page.as_ref().map(named),
            form: self.form.as_ref().map(named),
            then: self.then.as_ref().map(named),
        };
        exposure.caching = self.cache.as_ref().map(|cache| self.caching(cache, checking));
        let is_exposed = self.expose || !exposure.routes.is_empty() || !exposure.sources.is_empty();
        for (key, given) in [
            ("page", self.page.is_some()),
            ("form", self.form.is_some()),
            ("then", self.then.is_some()),
            ("cache", self.cache.is_some()),
        ] {
            if given && !is_exposed {
                checking
                    .wrong(key, "this is for an event that is reached by HTTP: give it `routes`, or `expose = true`");
            }
        }
        is_exposed.then_some(exposure)
    }

    fn caching(&self, cache: &Cache, checking: &mut Checking) -> Caching {
        if self.kind != EventKind::Request {
            checking.wrong("cache", "only the response to a request can be given again");
        }
        if cache.stale_on.len() > STALE_ON_MAX {
            let most = format!("at most {STALE_ON_MAX} notifications end what is cached of an event");
            checking.wrong("cache.stale_on", most);
        }
        let mut stale_on = Vec::new();
        checking.each_of("cache.stale_on", &cache.stale_on, |name, checking| {
            stale_on.extend(checking.accept("", EventName::new(name)));
        });
        Caching { lifetime: cache.lifetime.into(), public: cache.public, stale_on }
    }

    fn schemas(&self, checking: &mut Checking) -> Schemas {
        let is_tunnel = self.kind == EventKind::Tunnel;
        for (key, given) in [("up", &self.up), ("down", &self.down)] {
            if given.is_some() && !is_tunnel {
                checking.wrong(key, "only a tunnel has items on their way up and down");
            }
        }
        if self.output.is_some() && self.kind == EventKind::Notification {
            checking.wrong("output", "a notification has no response: leave it out, or make it a request");
        }
        Schemas {
            event: schema("schema", self.schema.as_ref(), checking).unwrap_or_default(),
            output: schema("output", self.output.as_ref(), checking),
            up: schema("up", self.up.as_ref(), checking),
            down: schema("down", self.down.as_ref(), checking),
        }
    }
}

/// What goes on in place of something that was wrong, until all is checked.
fn stand_in(kind: EventKind) -> Declaration {
    Descriptor::declare("wrong", kind.into()).expect("it is a name")
}

/// A schema as a table, or from a file of JSON.
fn schema(key: &str, given: Option<&Value>, checking: &mut Checking) -> Option<Schema> {
    let value = match given? {
        Value::String(path) => {
            let path = checking.file(key, path.as_ref());
            let text = std::fs::read_to_string(&path).ok()?;
            let read = serde_json::from_str(&text);
            checking.accept(key, read.map_err(|error| format!("`{}` is no JSON: {error}", path.display())))?
        }
        value => value.clone(),
    };
    let made = Schema::try_from(value);
    checking.accept(key, made.map_err(|_| "a JSON Schema is a table, or the path of a file with one"))
}

/// How much is remembered.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct History {
    events: usize,
    bytes: Size,
    age: Option<Span>,
}

impl Default for History {
    fn default() -> Self {
        Self { events: 1024, bytes: Size::from(4 << 20), age: None }
    }
}

impl History {
    pub(super) fn build(&self) -> edri::History {
        let history = edri::History::new().events(self.events).bytes(self.bytes.into());
        match self.age {
            Some(age) => history.age(age.into()),
            None => history,
        }
    }

    pub(super) fn check(&self, checking: &mut Checking) {
        if self.events == 0 || self.events > edri::HISTORY_EVENTS_MAX {
            checking.wrong("events", format!("a history keeps 1 to {} events", edri::HISTORY_EVENTS_MAX));
        }
        if self.bytes.bytes() == 0 {
            checking.wrong("bytes", "there is room for nothing: raise it");
        }
    }
}
