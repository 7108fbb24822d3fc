use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::Route;
use edri_events::{DescriptorRef, Event, HttpRoute, Pattern};
use edri_managers::Arrivals;
use edri_router::Router;
use parking_lot::Mutex;

use crate::access::{Access, Guard, OPERATORS};
use crate::border::{Interceptor, Interceptors, Layers};
use crate::cache::Cache;
use crate::clients::Clients;
use crate::connections::Addresses;
use crate::exposed::{Additions, Exposed};
use crate::forms::Once;
use crate::gateway::{Gateway, Shared};
use crate::hosts::Hosts;
use crate::metrics::Metrics;
use crate::pages::Templates;
use crate::websocket::{self, Workers};
use crate::{ApiError, ApiLimits, Cors, Pages, Proxies, RemoteWorkers, Sessions, Tls};
use tower::{Layer, Service};
use tower_http::services::ServeDir;

/// A gateway in the making.
#[derive(Debug)]
#[must_use = "a gateway does nothing until its node is started"]
pub struct Api {
    address: String,
    exposes: Vec<String>,
    operators: bool,
    events: Vec<DescriptorRef>,
    routes: Vec<(String, String)>,
    files: Option<PathBuf>,
    pages: Option<Pages>,
    access: Option<Access>,
    cors: Cors,
    hosts: Vec<String>,
    proxies: Option<Proxies>,
    tls: Option<Tls>,
    log_ins: Option<Sessions>,
    workers: Option<RemoteWorkers>,
    interceptors: Interceptors,
    layers: Layers,
    limits: ApiLimits,
}

impl Api {
    /// A gateway that listens on this address, like `127.0.0.1:8080`; port 0 is one that is free.
    pub fn bind(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            exposes: Vec::new(),
            operators: false,
            events: Vec::new(),
            routes: Vec::new(),
            files: None,
            pages: None,
            access: None,
            cors: Cors::new(),
            hosts: Vec::new(),
            proxies: None,
            tls: None,
            log_ins: None,
            workers: None,
            interceptors: Interceptors::default(),
            layers: Layers::default(),
            limits: ApiLimits::default(),
        }
    }

    /// Exposes the events whose names this pattern selects, though they do not say so themselves: `sensor.read`,
    /// `sensor.*`, `sensor.>`.
    pub fn expose(mut self, pattern: &str) -> Self {
        self.exposes.push(pattern.to_owned());
        self
    }

    /// Exposes the events of schedulers (`schedule.*`) and stores (`store.*.*`) to callers whose permissions name them, as
    /// [`Permissions::operator`](crate::Permissions::operator) does: the command `edri` needs them for `schedule` and `store`. Patterns like
    /// `>` do not allow them, and nobody without a token may use them unless [`Access::anonymous`] names them. The
    /// events of edri itself, `edri.>`, are exposed in this way always.
    pub fn operators(mut self) -> Self {
        self.operators = true;
        self
    }

    /// Makes an event known that no manager of this node handles: one that clients publish, or that workers elsewhere answer.
    pub fn event<E: Event>(mut self) -> Self {
        self.events.push(DescriptorRef::of::<E>());
        self
    }

    /// Gives an event a route beside its own, which exposes it: `route("GET /risk/{region}", "risk.assess")`.
    pub fn route(mut self, route: &str, event: &str) -> Self {
        self.routes.push((route.to_owned(), event.to_owned()));
        self
    }

    /// Serves the files of this folder where no event has a route; `index.html` for a folder within.
    pub fn files(mut self, folder: impl Into<PathBuf>) -> Self {
        self.files = Some(folder.into());
        self
    }

    /// Shows browsers pages for the events that name a template (`page = "tickets.html"`).
    pub fn pages(mut self, pages: Pages) -> Self {
        self.pages = Some(pages);
        self
    }

    /// Says who is let in, and what each may do. Without it everybody who reaches the address may do everything with the
    /// events that are exposed.
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Says which pages of other origins may use the gateway from a browser. None without it.
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = cors;
        self
    }

    /// Answers requests for these names, like `api.example`, and for no others but `localhost` and addresses. Without it, a gateway at a
    /// loopback address that lets callers without a token do something answers for `localhost` and addresses only, because a page
    /// can have its own name lead there (DNS rebinding); any other gateway answers whatever name it is asked by.
    pub fn hosts<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.hosts.extend(names.into_iter().map(str::to_owned));
        self
    }

    /// Takes the word of these proxies for who a client is. Without it every client is at the address that its connection comes from.
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.proxies = Some(proxies);
        self
    }

    /// Talks TLS: `https://` and `wss://`, and nothing else on this address.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Lets people log in with a browser: see [`Sessions`].
    pub fn sessions(mut self, sessions: Sessions) -> Self {
        self.log_ins = Some(sessions);
        self
    }

    /// Lets workers connect for managers that nobody has declared with [`Manager::remote`](edri_managers::Manager::remote), which
    /// are made then. What each may handle its permission `serve` says; without [`Api::access`] everybody may handle everything.
    pub fn remote_workers(mut self, workers: RemoteWorkers) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Shows every event that passes the gateway to this code, whatever the way in or out. Several see it one after another.
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.add(Arc::new(interceptor));
        self
    }

    /// Puts a tower layer around what the gateway answers, outside those given before. Requests have been let in by then (limits, origins, hosts,
    /// tokens), and their [`Caller`](crate::Caller) is among their extensions; answers are compressed behind it. WebSockets pass it
    /// with their upgrade only: what sees every event is an [interceptor](Api::intercept).
    ///
    /// ```
    /// # use edri_api::Api;
    /// use axum::extract::Request;
    ///
    /// // Any layer of `tower` and `tower-http` whose service cannot fail, or a function of one's own:
    /// let log = tower::util::MapRequestLayer::new(|request: Request| {
    ///     println!("{} {}", request.method(), request.uri());
    ///     request
    /// });
    /// let api = Api::bind("127.0.0.1:8080").layer(log);
    /// ```
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.layers.add(|router| router.layer(layer));
        self
    }

    /// Sets the gateway's bounds.
    pub fn limits(mut self, limits: ApiLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Starts the gateway of this router's node, in its runtime. Workers that connect arrive at `arrivals`.
    ///
    /// # Errors
    ///
    /// [`ApiError`] when an address, a pattern, a route or something of `access`, `cors` or `tls` is none, a file cannot be
    /// read, or the address cannot be listened on.
    pub async fn start(self, router: &Router, arrivals: &Arrivals) -> Result<Gateway, ApiError> {
        let address: SocketAddr = self.address.parse().map_err(|_| ApiError::Address(self.address.clone()))?;
        let patterns = self.exposes.iter().map(|pattern| Pattern::new(pattern)).collect::<Result<Vec<_>, _>>()?;
        let routes = self.routes.into_iter();
        let routes =
            routes.map(|(route, event)| Ok((HttpRoute::new(&route)?, event))).collect::<Result<_, ApiError>>()?;
        if let Some(folder) = self.files.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(ApiError::Files(folder.clone()));
        }
        for event in self.events {
            router.bus().declare(event).await?;
        }
        let operators = OPERATORS.iter().filter(|_| self.operators);
        let operators = operators.map(|pattern| Pattern::new(pattern)).collect::<Result<_, _>>()?;
        let exposed = Arc::new(Exposed::new(router, Additions { patterns, operators, routes }));
        let pages = self.pages.map(|pages| Templates::open(pages, &exposed)).transpose()?;
        let access = self.access.map_or_else(|| Ok(Guard::default()), Access::open)?;
        let log_ins = match self.log_ins {
            Some(sessions) => Some(sessions.open(router, self.tls.is_some()).await?),
            None => None,
        };
        let hosts = Hosts::new(&self.hosts, address, access.lets_anonymous())?;
        let shared = Shared {
            relay: router.bus().relay(),
            router: router.clone(),
            exposed,
            access,
            cors: self.cors.checked()?,
            hosts,
            log_ins,
            once: Once::default(),
            proxies: self.proxies.map(Proxies::trusted).transpose()?,
            tls: self.tls.map(Tls::open).transpose()?,
            metrics: Metrics::default(),
            cache: Cache::new(&self.limits),
            addresses: Addresses::default(),
            clients: Mutex::new(Clients::new(&self.limits, Instant::now())),
            files: self.files.map(ServeDir::new),
            pages,
            sessions: Arc::new(websocket::Sessions::new(self.limits.websockets)),
            workers: Workers::new(arrivals, self.workers, &self.limits),
            interceptors: self.interceptors,
            limits: self.limits,
            ready: AtomicBool::new(false),
        };
        Gateway::start(address, shared, self.layers).await
    }
}
