//! What can be reached from outside, and where.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edri_events::{Caching, DescriptorRef, Exposure, FieldSource, HttpRoute, PageNames, Pattern};
use edri_router::Router;
use matchit::Router as Paths;
use parking_lot::Mutex;

use crate::access::is_own;
use crate::border::Rules;
use crate::problem::Problem;
use crate::{Caller, Verb};

/// The most events that a gateway shows.
const EXPOSED_MAX: usize = 10_000;

/// What the builder adds to what events say of themselves.
#[derive(Debug, Default)]
pub(crate) struct Additions {
    /// Events that are exposed though they do not say so.
    pub(crate) patterns: Vec<Pattern>,
    /// Events that are exposed to those who are allowed them by name.
    pub(crate) operators: Vec<Pattern>,
    /// Routes of events that do not have them.
    pub(crate) routes: Vec<(HttpRoute, String)>,
}

/// An event that can be reached.
#[derive(Debug)]
pub(crate) struct Reachable {
    pub(crate) descriptor: DescriptorRef,
    /// All its routes.
    pub(crate) routes: Vec<HttpRoute>,
    /// The templates for browsers.
    pub(crate) page: PageNames,
    /// The fields that come from a header or a cookie.
    pub(crate) sources: Vec<FieldSource>,
    /// Whether its response is an [`Http`](edri_events::Http).
    pub(crate) answers_http: bool,
    /// Whether it operates the node, so that only those may reach it who are allowed it by name.
    pub(crate) by_name: bool,
    /// What its schemas say of payloads.
    pub(crate) rules: Arc<Rules>,
}

impl Reachable {
    /// For how long its answer may be given again, if it may.
    pub(crate) fn caching(&self) -> Option<&Caching> {
        self.descriptor.exposure()?.caching.as_ref()
    }

    /// Whether this caller may do this with it.
    pub(crate) fn permits(&self, caller: &Caller, verb: Verb) -> bool {
        let name = self.descriptor.name();
        if self.by_name { caller.may_by_name(verb, name) } else { caller.may(verb, name) }
    }

    /// Refuses what the caller may not do.
    pub(crate) fn check(&self, caller: &Caller, verb: Verb) -> Result<(), Problem> {
        if self.permits(caller, verb) { Ok(()) } else { Err(caller.refusal(verb, self.descriptor.name())) }
    }
}

/// What can be reached at some moment.
#[derive(Default)]
pub(crate) struct Table {
    version: u64,
    events: HashMap<Box<str>, Arc<Reachable>>,
    /// One for each method, so that their paths may name fields differently. There are few, and looking through them is quicker than a hash.
    paths: Vec<(&'static str, Paths<Arc<Reachable>>)>,
}

/// The fields that have a place in a path, by name.
pub(crate) type Places = Vec<(String, String)>;

impl Table {
    /// The event of this name, if it can be reached.
    pub(crate) fn event(&self, name: &str) -> Option<&Arc<Reachable>> {
        self.events.get(name)
    }

    /// All events that can be reached.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Reachable> {
        self.events.values().map(|event| &**event)
    }

    /// The event for a method and a path, and the fields that have a place in it, still percent-encoded.
    pub(crate) fn find(&self, method: &str, path: &str) -> Option<(Arc<Reachable>, Places)> {
        // HEAD asks for what GET answers, without the body.
        let wanted = if method == "HEAD" { "GET" } else { method };
        let (_, paths) = self.paths.iter().find(|(method, _)| *method == wanted)?;
        let found = paths.at(path).ok()?;
        let places = found.params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some((Arc::clone(found.value), places))
    }

    /// The methods with which this path leads to an event.
    pub(crate) fn methods(&self, path: &str) -> Vec<&'static str> {
        self.paths.iter().filter(|(_, paths)| paths.at(path).is_ok()).map(|(method, _)| *method).collect()
    }

    fn paths_of(&mut self, method: &'static str) -> &mut Paths<Arc<Reachable>> {
        let place = self.paths.iter().position(|(known, _)| *known == method).unwrap_or_else(|| {
            self.paths.push((method, Paths::default()));
            self.paths.len() - 1
        });
        &mut self.paths[place].1
    }

    /// What is the same as before keeps its rules, which are dear to make.
    fn build(router: &Router, additions: &Additions, before: &Self) -> Self {
        // First, so that an event that comes meanwhile has the table made again.
        let mut table = Self { version: router.events_version(), ..Self::default() };
        for descriptor in router.bus().events() {
            let Some(event) = reachable(descriptor, additions, before) else { continue };
            if table.events.len() >= EXPOSED_MAX {
                tracing::warn!(event = %event.descriptor.name(), "not reachable: {EXPOSED_MAX} events are already");
                continue;
            }
            let event = Arc::new(event);
            for route in &event.routes {
                if is_own_path(route.path()) {
                    tracing::warn!(%route, event = %event.descriptor.name(), "a route is left out: the path is the gateway's own");
                    continue;
                }
                if let Err(error) = table.paths_of(route.method()).insert(route.path(), Arc::clone(&event)) {
                    tracing::warn!(%route, event = %event.descriptor.name(), %error, "a route is left out");
                }
            }
            table.events.insert(event.descriptor.name().as_str().into(), event);
        }
        table
    }
}

/// Whether the gateway itself answers at this path.
pub(crate) fn is_own_path(path: &str) -> bool {
    const OWN: [&str; 9] =
        ["/events", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/subscribe", "/csrf", "/ws"];
    OWN.contains(&path) || path.strip_prefix("/events/").is_some_and(|rest| !rest.contains('/'))
}

/// The event as it can be reached; `None` when it cannot.
fn reachable(descriptor: DescriptorRef, additions: &Additions, before: &Table) -> Option<Reachable> {
    let name = descriptor.name();
    let added = additions.routes.iter().filter(|(_, event)| **event == **name).map(|(route, _)| route.clone());
    let Exposure { routes, sources, page, .. } = descriptor.exposure().cloned().unwrap_or_default();
    let routes: Vec<_> = routes.into_iter().chain(added).collect();
    let exposed = descriptor.exposure().is_some()
        || !routes.is_empty()
        || additions.patterns.iter().any(|pattern| pattern.matches(name));
    // What is exposed to everybody stays so.
    let by_name = is_own(name) || !exposed && additions.operators.iter().any(|pattern| pattern.matches(name));
    if !exposed && !by_name {
        return None;
    }
    let output = descriptor.schemas().output.as_ref();
    let answers_http = output.and_then(|schema| schema.get("x-edri-http")).is_some_and(|marked| marked == true);
    let rules = before.event(name).map(|event| Arc::clone(&event.rules)).filter(|rules| rules.are_of(&descriptor));
    let rules = rules.unwrap_or_else(|| Arc::new(Rules::new(descriptor.clone())));
    Some(Reachable { descriptor, routes, page, sources, answers_http, by_name, rules })
}

/// What can be reached, as the events that the node knows come and go.
pub(crate) struct Exposed {
    router: Router,
    additions: Additions,
    table: ArcSwap<Table>,
    // Held to make the table anew.
    making: Mutex<()>,
}

impl Exposed {
    pub(crate) fn new(router: &Router, additions: Additions) -> Self {
        let table = Table::build(router, &additions, &Table::default());
        Self { router: router.clone(), additions, table: ArcSwap::from_pointee(table), making: Mutex::new(()) }
    }

    /// What can be reached now.
    pub(crate) fn table(&self) -> Arc<Table> {
        let table = self.table.load_full();
        if table.version == self.router.events_version() {
            return table;
        }
        let _making = self.making.lock();
        let table = self.table.load_full();
        if table.version == self.router.events_version() {
            return table;
        }
        let table = Arc::new(Table::build(&self.router, &self.additions, &table));
        self.table.store(Arc::clone(&table));
        table
    }
}
