//! What a node is configured with.
//!
//! ```text
//! file ──────▶ table with places ─▶ Config ─▶ App
//! variables ──▶        │               │
//!                      └── problems ◀──┘
//! ```
//!
//! Every option stands in `edri.toml` beside this package, with its default; a test holds the two together.

mod checking;
mod environment;
mod events;
mod gateway;
mod gateway_limits;
mod gateway_sessions;
mod links;
mod managers;
mod read;
mod scheduler;
mod stores;
#[cfg(test)]
mod tests;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use edri::App;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use checking::Checking;
pub(crate) use environment::Variable;
use events::{Event, History};
use gateway::Gateway;
use links::Links;
use managers::{Program, Remote};
pub(crate) use read::{Problem, Source};
use scheduler::Scheduler;
use stores::Store;
pub(crate) use units::Span;

/// Every option, its default, and what it does.
pub(crate) const REFERENCE: &str = include_str!("../../../edri.toml");

/// What a node is when nothing is said.
const NOTHING_SAID: &str = r#"
[api]
expose = [">"]

[stores.store.namespaces.default]

[scheduler]
"#;

/// A node.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    name: String,
    start_timeout: Span,
    drain_limit: Span,
    limits: NodeLimits,
    pub(crate) log: Log,
    traces: Traces,
    links: Option<Links>,
    api: Option<Gateway>,
    scheduler: Option<Scheduler>,
    stores: BTreeMap<String, Store>,
    managers: BTreeMap<String, Program>,
    remote: BTreeMap<String, Remote>,
    events: BTreeMap<String, Event>,
    histories: BTreeMap<String, History>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "edri".to_owned(),
            start_timeout: Span::seconds(30),
            drain_limit: Span::seconds(30),
            limits: NodeLimits::default(),
            log: Log::default(),
            traces: Traces::default(),
            links: None,
            api: None,
            scheduler: None,
            stores: BTreeMap::new(),
            managers: BTreeMap::new(),
            remote: BTreeMap::new(),
            events: BTreeMap::new(),
            histories: BTreeMap::new(),
        }
    }
}

/// The node's bounds.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct NodeLimits {
    publish_wait: Span,
    pending: usize,
    dead_letters: usize,
}

impl Default for NodeLimits {
    fn default() -> Self {
        let edri::Limits { publish_wait, pending_max, dead_letters_max, .. } = edri::Limits::default();
        Self { publish_wait: publish_wait.into(), pending: pending_max, dead_letters: dead_letters_max }
    }
}

impl NodeLimits {
    fn build(&self, checking: &mut Checking) -> edri::Limits {
        if self.pending == 0 {
            checking.wrong("pending", "no request could be sent: write 1 at least");
        }
        let mut limits = edri::Limits::default();
        limits.publish_wait = self.publish_wait.into();
        limits.pending_max = self.pending;
        limits.dead_letters_max = self.dead_letters;
        limits
    }
}

/// What is logged, how, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) filter: String,
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned(), file: None }
    }
}

impl Log {
    fn check(&self, checking: &mut Checking) {
        if let Err(wrong) = crate::node::logs::filter(&self.filter) {
            checking.wrong("filter", wrong);
        }
        if let Some(file) = &self.file {
            let folder = checking.path(file).parent().map(Path::to_owned);
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                checking.wrong("file", format!("there is no folder `{}`: make it", folder.display()));
            }
        }
    }
}

/// Where spans of what becomes of events go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Traces {
    pub(crate) otlp: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) share: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self { otlp: None, service: None, share: 1.0 }
    }
}

impl Traces {
    fn check(&self, checking: &mut Checking) {
        if !(0.0..=1.0).contains(&self.share) {
            checking.wrong("share", format!("{} is no share: write a number from 0.0 (none) to 1.0 (all)", self.share));
        }
        if let Some(url) = &self.otlp {
            #[cfg(feature = "otlp")]
            checking.accept("otlp", crate::node::traces::check(url));
            #[cfg(not(feature = "otlp"))]
            checking.wrong("otlp", format!("`{url}`: this command was built without the feature `otlp`"));
        }
    }
}

const RESERVED: &str = "the manager that answers for the node has that name: choose another";
const TAKEN: &str =
    "another manager of the node has that name: stores, the scheduler, `managers` and `remote` share names";

/// A node that can be started, and what is to be said when it has.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) app: App,
    pub(crate) name: String,
    pub(crate) log: Log,
    pub(crate) traces: Traces,
    /// The token that was made for whoever starts the node.
    pub(crate) token: Option<String>,
    /// Whether the gateway talks TLS.
    pub(crate) has_tls: bool,
    /// A namespace of a store, for something to try.
    pub(crate) namespace: Option<String>,
}

/// Makes a node of a file, or of nothing, and of the environment.
pub(crate) fn build(file: Option<&Path>) -> Result<Built, Vec<Problem>> {
    let variables = Variable::all();
    let source = match file {
        Some(file) => Source::file(file, variables).map_err(|message| vec![Problem::of("", String::new(), message)])?,
        None => Source::text(
            "the configuration without a file",
            NOTHING_SAID,
            std::env::current_dir().unwrap_or_default(),
            variables,
        ),
    };
    build_from(&source)
}

fn build_from(source: &Source) -> Result<Built, Vec<Problem>> {
    let (document, config, mut problems) = source.read();
    let mut checking = Checking::new(source.folder.clone());
    let built = config.build(&mut checking);
    problems.extend(checking.found().into_iter().map(|(path, message)| document.problem(&path, message)));
    Problem::sort(&mut problems);
    if problems.is_empty() { Ok(built) } else { Err(problems) }
}

impl Config {
    fn build(self, checking: &mut Checking) -> Built {
        checking.accept("name", edri::NodeName::new(&self.name));
        let mut app =
            App::new(&self.name).start_timeout(self.start_timeout.into()).drain_limit(self.drain_limit.into());
        app = app.limits(checking.within("limits", |checking| self.limits.build(checking)));
        let log = checking.within("log", |checking| {
            self.log.check(checking);
            Log { file: self.log.file.as_deref().map(|file| checking.path(file)), ..self.log.clone() }
        });
        checking.within("traces", |checking| self.traces.check(checking));
        if let Some(links) = &self.links {
            let (connector, expects) = checking.within("links", |checking| links.build(&self.name, checking));
            app = expects.iter().fold(app.connector(connector), |app, node| app.expects(node));
        }
        for event in checking.each("events", &self.events, |name, event, checking| event.build(name, checking)) {
            app = app.declares(event);
        }
        for (pattern, history) in &self.histories {
            checking.within("histories", |checking| {
                checking.accept(pattern, edri::Pattern::new(pattern));
                checking.within(pattern, |checking| history.check(checking));
            });
            app = app.history(pattern, history.build());
        }
        self.check_names(checking);
        for store in checking.each("stores", &self.stores, |name, store, checking| store.build(name, checking)) {
            app = app.manager(store);
        }
        if let Some(scheduler) = &self.scheduler {
            app = app.manager(checking.within("scheduler", |checking| scheduler.build(checking)));
        }
        for manager in
            checking.each("managers", &self.managers, |name, program, checking| program.build(name, checking))
        {
            app = app.manager(manager);
        }
        if self.api.is_none()
            && let Some(name) = self.remote.keys().next()
        {
            let message = "its workers connect to the gateway, and the node has none: write [api]";
            checking.within("remote", |checking| checking.wrong(name, message));
        }
        for manager in checking.each("remote", &self.remote, |name, remote, checking| remote.build(name, checking)) {
            app = app.manager(manager);
        }
        let (mut token, mut has_tls) = (None, false);
        if let Some(gateway) = self.api {
            has_tls = gateway.has_tls();
            let api = checking.within("api", |checking| gateway.build(checking));
            app = app.api(api.0);
            token = api.1;
        }
        let namespace = self.stores.values().flat_map(Store::namespaces).next().cloned();
        Built { app, name: self.name, log, traces: self.traces, token, has_tls, namespace }
    }

    /// Stores, the scheduler and programs are managers, whose names differ.
    fn check_names(&self, checking: &mut Checking) {
        // The node's own, which answers what is asked about it.
        let mut taken = BTreeSet::from([edri::system::OPERATOR]);
        if let Some(scheduler) = &self.scheduler
            && !taken.insert(scheduler.name.as_str())
        {
            checking.within("scheduler", |checking| checking.wrong("name", RESERVED));
        }
        let named = self.stores.keys().map(|name| ("stores", name));
        let named = named.chain(self.managers.keys().map(|name| ("managers", name)));
        for (kind, name) in named.chain(self.remote.keys().map(|name| ("remote", name))) {
            if !taken.insert(name.as_str()) {
                let message = if name == edri::system::OPERATOR { RESERVED } else { TAKEN };
                checking.within(kind, |checking| checking.wrong(name, message));
            }
        }
        let mut namespaces: BTreeMap<&String, &String> = BTreeMap::new();
        for (name, store) in &self.stores {
            for namespace in store.namespaces() {
                if let Some(other) = namespaces.insert(namespace, name) {
                    let message = format!("store `{other}` has a namespace of that name: a namespace has one owner");
                    let path = ["stores", name, "namespaces", namespace];
                    checking.wrong_at(path.map(str::to_owned).to_vec(), message);
                }
            }
        }
    }
}
