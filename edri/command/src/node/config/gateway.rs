//! The gateway: what it shows to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use edri::{Access, Api, EventName, HttpRoute, Jwt, Pattern, RemoteWorkers, Tls, Token};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gateway_limits::GatewayLimits;
use super::gateway_sessions::Sessions;
use super::{Checking, Span};

/// A gateway.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Gateway {
    bind: String,
    expose: Vec<String>,
    routes: Vec<Route>,
    files: Option<PathBuf>,
    operators: bool,
    hosts: Vec<String>,
    proxies: Option<Proxies>,
    open: bool,
    open_metrics: bool,
    anonymous: Option<Permissions>,
    tokens_file: Option<PathBuf>,
    tokens: Vec<KnownToken>,
    jwt: Vec<Signed>,
    roles: BTreeMap<String, Permissions>,
    sessions: Option<Sessions>,
    cors: Option<Cors>,
    tls: Option<Certificate>,
    workers: Option<Workers>,
    limits: GatewayLimits,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:8080".to_owned(),
            expose: Vec::new(),
            routes: Vec::new(),
            files: None,
            operators: false,
            hosts: Vec::new(),
            proxies: None,
            open: false,
            open_metrics: false,
            anonymous: None,
            tokens_file: None,
            tokens: Vec::new(),
            jwt: Vec::new(),
            roles: BTreeMap::new(),
            sessions: None,
            cors: None,
            tls: None,
            workers: None,
            limits: GatewayLimits::default(),
        }
    }
}

/// A route of an event that has others, or none.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Route {
    route: String,
    event: String,
}

/// What somebody may do: patterns of event names.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Permissions {
    publish: Vec<String>,
    request: Vec<String>,
    subscribe: Vec<String>,
    serve: Vec<String>,
    metrics: bool,
}

/// A token by its hash.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KnownToken {
    name: String,
    hash: String,
    may: Permissions,
}

/// Who signs tokens.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Signed {
    jwks: Option<PathBuf>,
    key: Option<PathBuf>,
    secret: Option<PathBuf>,
    issuer: Option<String>,
    audience: Vec<String>,
    leeway: Span,
    claim: String,
    scopes: BTreeMap<String, Permissions>,
    may: Option<Permissions>,
}

impl Default for Signed {
    fn default() -> Self {
        Self {
            jwks: None,
            key: None,
            secret: None,
            issuer: None,
            audience: Vec::new(),
            leeway: Span::seconds(60),
            claim: "edri".to_owned(),
            scopes: BTreeMap::new(),
            may: None,
        }
    }
}

/// Pages of other origins.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Cors {
    origins: Vec<String>,
    any: bool,
    credentials: bool,
    max_age: Span,
}

impl Default for Cors {
    fn default() -> Self {
        Self { origins: Vec::new(), any: false, credentials: false, max_age: Span::seconds(600) }
    }
}

/// A certificate and its key.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

/// Whose word is taken for the address of a client.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Proxies {
    addresses: Vec<String>,
    #[serde(default)]
    header: ProxyHeader,
}

/// The header in which a proxy says it.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ProxyHeader {
    #[default]
    XForwardedFor,
    Forwarded,
}

/// Workers that come for managers that nobody has declared.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Workers {
    managers: usize,
    instances: usize,
    grace: Span,
}

impl Default for Workers {
    fn default() -> Self {
        Self { managers: 64, instances: 16, grace: Span::seconds(30) }
    }
}

impl Proxies {
    fn build(&self) -> edri::Proxies {
        let addresses = self.addresses.iter().map(String::as_str);
        match self.header {
            ProxyHeader::XForwardedFor => edri::Proxies::x_forwarded_for(addresses),
            ProxyHeader::Forwarded => edri::Proxies::forwarded(addresses),
        }
    }
}

impl Permissions {
    fn build(&self, checking: &mut Checking) -> edri::Permissions {
        type Grant = fn(edri::Permissions, &str) -> edri::Permissions;
        let verbs: [(&str, &[String], Grant); 4] = [
            ("publish", &self.publish, edri::Permissions::publish),
            ("request", &self.request, edri::Permissions::request),
            ("subscribe", &self.subscribe, edri::Permissions::subscribe),
            ("serve", &self.serve, edri::Permissions::serve),
        ];
        let mut permissions = edri::Permissions::new();
        for (verb, patterns, grant) in verbs {
            checking.each_of(verb, patterns, |pattern, checking| {
                if checking.accept("", Pattern::new(pattern)).is_some() {
                    permissions = grant(std::mem::take(&mut permissions), pattern);
                }
            });
        }
        if self.metrics { permissions.metrics() } else { permissions }
    }
}

impl Gateway {
    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The gateway, and the token that was made when nobody else would be let in.
    pub(super) fn build(&self, checking: &mut Checking) -> (Api, Option<String>) {
        if self.bind.parse::<SocketAddr>().is_err() {
            let message = format!("`{}` is no address to listen on: write it like `127.0.0.1:8080`", self.bind);
            checking.wrong("bind", message);
        }
        let mut api = Api::bind(&self.bind).limits(self.limits.build());
        checking.each_of("expose", &self.expose, |pattern, checking| {
            checking.accept("", Pattern::new(pattern));
        });
        api = self.expose.iter().fold(api, |api, pattern| api.expose(pattern));
        checking.each_of("routes", &self.routes, |route, checking| {
            checking.accept("route", HttpRoute::new(&route.route));
            checking.accept("event", EventName::new(&route.event));
        });
        api = self.routes.iter().fold(api, |api, route| api.route(&route.route, &route.event));
        if let Some(files) = &self.files {
            api = api.files(checking.folder("files", files));
        }
        if self.operators {
            api = api.operators();
        }
        api = api.hosts(self.hosts.iter().map(String::as_str));
        if let Some(proxies) = &self.proxies {
            let proxies = proxies.build();
            checking.accept("proxies", proxies.check());
            api = api.proxies(proxies);
        }
        if let Some(Workers { managers, instances, grace }) = &self.workers {
            let workers = RemoteWorkers::new().managers(*managers).instances(*instances).grace((*grace).into());
            api = api.remote_workers(workers);
        }
        if let Some(cors) = &self.cors {
            let cors = cors.build();
            checking.accept("cors", cors.check());
            api = api.cors(cors);
        }
        if let Some(sessions) = &self.sessions
            && let Some(sessions) = checking.within("sessions", |checking| sessions.build(checking))
        {
            api = api.sessions(sessions);
        }
        if let Some(Certificate { certificate, key }) = &self.tls {
            let (certificate, key) = checking
                .within("tls", |checking| (checking.file("certificate", certificate), checking.file("key", key)));
            if certificate.is_file() && key.is_file() {
                let tls = Tls::files(certificate, key);
                checking.accept("tls", tls.check());
                api = api.tls(tls);
            }
        }
        let (access, token) = self.access(checking);
        if token.is_some() {
            // Whoever starts the node may operate it.
            api = api.operators();
        }
        (access.into_iter().fold(api, Api::access), token)
    }

    fn access(&self, checking: &mut Checking) -> (Option<Access>, Option<String>) {
        let is_said = self.anonymous.is_some()
            || self.tokens_file.is_some()
            || !self.tokens.is_empty()
            || !self.jwt.is_empty()
            || !self.roles.is_empty();
        if self.open {
            if is_said {
                checking.wrong(
                    "open",
                    "with it everybody may do everything: leave it out, or leave out `anonymous`, `tokens`, `tokens_file`, `jwt` and `roles`",
                );
            }
            return (None, None);
        }
        let mut access = Access::new();
        if let Some(path) = &self.tokens_file {
            let path = checking.file("tokens_file", path);
            if path.is_file() {
                access = access.tokens_file(path);
                checking.accept("tokens_file", access.check());
            }
        }
        let mut known = BTreeSet::new();
        checking.each_of("tokens", &self.tokens, |token, checking| {
            let may = checking.within("may", |checking| token.may.build(checking));
            let alone = Access::new().token(&token.hash, &token.name, may.clone());
            checking.accept("", alone.check());
            if !known.insert(token.hash.to_ascii_lowercase()) {
                checking.wrong("hash", "another entry has the same token: give each holder a token of its own");
            }
            access = std::mem::take(&mut access).token(&token.hash, &token.name, may);
        });
        checking.each_of("jwt", &self.jwt, |signed, checking| {
            if let Some(jwt) = signed.build(checking) {
                checking.accept("", Access::new().jwt(jwt.clone()).check());
                access = std::mem::take(&mut access).jwt(jwt);
            }
        });
        for (role, may) in &self.roles {
            checking.within("roles", |checking| {
                let may = checking.within(role, |checking| may.build(checking));
                checking.accept(role, Access::new().role(role, may.clone()).check());
                access = std::mem::take(&mut access).role(role, may);
            });
        }
        if let Some(anonymous) = &self.anonymous {
            access = access.anonymous(checking.within("anonymous", |checking| anonymous.build(checking)));
        }
        if self.open_metrics {
            access = access.metrics_for_all();
        }
        if is_said {
            return (Some(access), None);
        }
        // Nobody could come in: whoever starts the node is given a token.
        let Some(token) = checking.accept("", Token::random()) else { return (Some(access), None) };
        let access = access.token(&token.hash(), "operator", edri::Permissions::operator());
        (Some(access), Some(token.secret().to_owned()))
    }
}

impl Signed {
    fn build(&self, checking: &mut Checking) -> Option<Jwt> {
        let given = [("jwks", &self.jwks), ("key", &self.key), ("secret", &self.secret)];
        let mut given = given.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?)));
        let (Some((key, path)), None) = (given.next(), given.next()) else {
            checking.wrong("", "it says one of `jwks`, `key` and `secret`: the file with what verifies tokens");
            return None;
        };
        let path = checking.file(key, path);
        let mut jwt = match key {
            "jwks" => Jwt::jwks_file(&path),
            "key" => Jwt::key_file(&path),
            _ => Jwt::secret_file(&path),
        };
        jwt = jwt.leeway(self.leeway.into()).claim(&self.claim);
        jwt = self.issuer.iter().fold(jwt, |jwt, issuer| jwt.issuer(issuer));
        jwt = self.audience.iter().fold(jwt, |jwt, audience| jwt.audience(audience));
        for (scope, may) in &self.scopes {
            let may = checking.within("scopes", |checking| checking.within(scope, |checking| may.build(checking)));
            jwt = jwt.scope(scope, may);
        }
        if let Some(may) = &self.may {
            jwt = jwt.permissions(checking.within("may", |checking| may.build(checking)));
        }
        path.is_file().then_some(jwt)
    }
}

impl Cors {
    fn build(&self) -> edri::Cors {
        let cors = if self.any { edri::Cors::any() } else { edri::Cors::new() };
        let cors = cors.credentials(self.credentials).max_age(self.max_age.into());
        self.origins.iter().fold(cors, |cors, origin| cors.origin(origin))
    }
}
