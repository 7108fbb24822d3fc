//! Who is logged in with a browser: a signed cookie, and a record in a store.
//!
//! ```text
//!   request ─▶ cookie ─▶ signature ─▶ record ─▶ Caller       ...  answer of a worker ─▶ log in, log out ─▶ cookie
//!                                        │                                                │
//!                          store.sessions.get                              store.sessions.set, .delete
//! ```
//!
//! The store's record is the truth, looked up for every request: who has logged out is out everywhere with the next one, and what
//! is open (WebSockets, streams) ends with the store's notification.

mod cookie;
mod csrf;
mod ends;
mod records;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use axum::response::IntoResponse;
use edri_events::{LOG_IN, LOG_OUT, Pattern};
use edri_router::{Router, Selection, Tapped};

use crate::access::{Guard, is_name};
use crate::gateway::Shared;
use crate::http::call::wrong_answer;
use crate::problem::Problem;
use crate::{ApiError, Caller, files};
use cookie::{ID_BYTES, Id, Key, MASK_BYTES, Sent, Written};
pub(crate) use csrf::FIELD;
pub(crate) use ends::Ending;
use ends::Ends;
use records::{Record, Records};

/// The shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 32;
/// How often it is looked whether sessions with something open are still there, should a notification be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A session in use is kept longer once this part of its time has gone by.
const TOUCHED_AFTER: u32 = 4;

/// Sessions of people who are logged in with a browser.
///
/// A worker logs somebody in by what it answers ([`Http::log_in`](edri_events::Http::log_in)), and out again. The browser has a signed
/// cookie that scripts cannot read; who it is, and in which role, is in a namespace of a store, `sessions` unless said otherwise, on this node
/// or another. What a role may do [`Access::role`](crate::Access::role) says.
///
/// ```
/// # use std::time::Duration;
/// # use edri_api::{Access, Api, Permissions, Sessions};
/// let api = Api::bind("127.0.0.1:0")
///     .access(Access::new().role("agent", Permissions::new().request("ticket.*")).anonymous(Permissions::new().request("log_in")))
///     .sessions(Sessions::new().idle(Duration::from_secs(1800)));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Sessions {
    secret: Option<PathBuf>,
    namespace: String,
    idle: Duration,
    lifetime: Duration,
    secure: bool,
}

impl Sessions {
    /// Sessions whose cookies are signed with a key that this process makes: they end when it does, and only this gateway knows them.
    pub fn new() -> Self {
        Self {
            secret: None,
            namespace: "sessions".to_owned(),
            idle: Duration::from_secs(2 * 3600),
            lifetime: Duration::from_secs(24 * 3600),
            secure: false,
        }
    }

    /// Signs cookies with the secret in this file, at least 32 bytes that nobody can guess (`openssl rand -hex 32`). Gateways with the same
    /// file, and whose namespace is the same, have the same sessions; they outlive the gateway when the store does.
    pub fn secret_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.secret = Some(path.into());
        self
    }

    /// Keeps the records in this namespace of a store.
    pub fn namespace(mut self, name: &str) -> Self {
        name.clone_into(&mut self.namespace);
        self
    }

    /// How long a session may be without a request. 2 hours by default. An open WebSocket is no request.
    pub fn idle(mut self, time: Duration) -> Self {
        self.idle = time;
        self
    }

    /// How long a session lasts at most. 24 hours by default.
    pub fn lifetime(mut self, time: Duration) -> Self {
        self.lifetime = time;
        self
    }

    /// Has browsers send the cookie only over TLS, though the gateway has none itself: for one behind a proxy that has. With
    /// [`Api::tls`](crate::Api::tls) it is so anyway.
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Whether sessions can be as they are configured; reads the secret.
    ///
    /// # Errors
    ///
    /// [`ApiError::Sessions`] says what cannot be.
    pub fn check(&self) -> Result<(), ApiError> {
        self.key()?;
        self.pattern().map(drop)
    }

    fn key(&self) -> Result<Key, ApiError> {
        let Some(path) = &self.secret else {
            return Ok(Key::new(&random::<32>().map_err(ApiError::Sessions)?));
        };
        let wrong = |why: String| {
            let hint = "write at least 32 bytes that nobody can guess, as `openssl rand -hex 32` does";
            ApiError::Sessions(format!("the secret of sessions in `{}` cannot be used: {why}; {hint}", path.display()))
        };
        let read = files::read(path).map_err(wrong)?;
        match read.trim_ascii() {
            short if short.len() < SECRET_BYTES_MIN => Err(wrong(format!("it has {} bytes", short.len()))),
            secret => Ok(Key::new(secret)),
        }
    }

    fn pattern(&self) -> Result<Pattern, ApiError> {
        if self.idle.is_zero() || self.lifetime.is_zero() {
            return Err(ApiError::Sessions(
                "a session lasts for some time: `idle` and `lifetime` are more than 0".to_owned(),
            ));
        }
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        let pattern =
            self.namespace.bytes().all(fits).then(|| Pattern::new(&format!("store.{}.changed", self.namespace)));
        pattern.and_then(Result::ok).ok_or_else(|| {
            ApiError::Sessions(format!("`{}` is no namespace of a store to keep sessions in", self.namespace))
        })
    }

    /// Opens them in a gateway, with or without TLS of its own.
    pub(crate) async fn open(self, router: &Router, tls: bool) -> Result<LogIns, ApiError> {
        let (key, pattern) = (self.key()?, self.pattern()?);
        let ends = Arc::<Ends>::default();
        let tapped = router.bus().tap(Selection::new(pattern), Arc::clone(&ends) as _).await?;
        let records = Arc::new(Records::new(router.bus(), &self.namespace));
        let written = Written { secure: tls || self.secure };
        let Self { idle, lifetime, .. } = self;
        Ok(LogIns { key, records, written, idle, lifetime, ends, _tapped: tapped, router: router.clone() })
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system has no randomness: {error}"))?;
    Ok(bytes)
}

/// The sessions of a running gateway.
pub(crate) struct LogIns {
    key: Key,
    records: Arc<Records>,
    written: Written,
    idle: Duration,
    lifetime: Duration,
    ends: Arc<Ends>,
    _tapped: Tapped,
    router: Router,
}

/// The session that somebody is in.
#[derive(Clone)]
pub(crate) struct InSession {
    id: Id,
    /// What others call it: the key of its record.
    record: Arc<str>,
    role: Arc<str>,
}

impl std::fmt::Debug for InSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InSession").field("record", &self.record).field("role", &self.role).finish_non_exhaustive()
    }
}

impl InSession {
    /// What workers know it by; nobody can make its cookie from it.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.record
    }

    /// The role that its person is in.
    pub(crate) fn role(&self) -> &str {
        &self.role
    }
}

/// What the cookie of a request was.
#[derive(Debug)]
pub(crate) enum Cookie {
    /// There is none, or it does not count beside a token.
    Nothing,
    /// It is that of somebody who has logged in.
    Of(Caller),
    /// It leads to no session, so the browser is to forget it.
    Stale,
}

impl LogIns {
    /// Finds out who has logged in, when a request has no token.
    ///
    /// # Errors
    ///
    /// 503 when the store does not say.
    pub(crate) async fn identify(&self, access: &Guard, head: &Parts) -> Result<Cookie, Problem> {
        if head.headers.contains_key(header::AUTHORIZATION) {
            return Ok(Cookie::Nothing);
        }
        let id = match cookie::sent(&head.headers, self.written.name()) {
            Sent::Nothing => return Ok(Cookie::Nothing),
            Sent::Several => None,
            Sent::One(value) => self.key.read(value),
        };
        let Some(id) = id else { return Ok(Cookie::Stale) };
        let record: Arc<str> = id.record().into();
        let Some(item) = self.records.get(&record).await? else { return Ok(Cookie::Stale) };
        let now = SystemTime::now();
        let ends = UNIX_EPOCH + Duration::from_millis(item.value.ends_ms);
        let Ok(left) = ends.duration_since(now) else { return Ok(Cookie::Stale) };
        let Record { name, role, .. } = &item.value;
        let session = InSession { id, record, role: role.as_str().into() };
        let caller = access.in_session(name, ends, session.clone());
        self.touch(session.record, item, left);
        Ok(Cookie::Of(caller))
    }

    /// Keeps a session longer that is in use. Nobody waits for it; if it has changed meanwhile, as by a log-out, it stays as it is.
    fn touch(&self, key: Arc<str>, item: records::Item, left: Duration) {
        let keep = self.idle.min(left);
        let kept = item.expires_in_ms.map_or(Duration::MAX, Duration::from_millis);
        if kept >= keep.saturating_sub(keep / TOUCHED_AFTER) {
            return;
        }
        let records = Arc::clone(&self.records);
        self.router.runtime().spawn(async move {
            if let Err(problem) = records.set(&key, &item.value, keep, Some(item.version)).await {
                tracing::debug!(detail = problem.detail(), "a session was not kept longer");
            }
        });
    }

    /// Does what a worker's answer says of the session: logs somebody in, or out.
    ///
    /// # Errors
    ///
    /// 502 when the answer cannot be understood, 503 when the store does not do it.
    async fn settle(&self, access: &Guard, before: Option<&InSession>, wish: Wish) -> Result<HeaderValue, Problem> {
        match wish {
            Wish::LogIn { name, role } => {
                if !is_name(&name) {
                    return Err(wrong_answer(
                        "the worker logs in somebody whose name is none: 1 to 256 bytes".to_owned(),
                    ));
                }
                if !access.has_role(&role) {
                    let detail = format!("the worker logs in as `{role}`, a role that nobody knows: `Access::role`");
                    return Err(wrong_answer(detail));
                }
                let value = self.begin(name, role).await?;
                // Another id for another person, so that whoever knew the old one knows nothing.
                if let Some(before) = before {
                    self.end(&before.record).await?;
                }
                Ok(self.written.set(&value, self.lifetime.as_secs().max(1)))
            }
            Wish::LogOut { everywhere } => {
                match before {
                    Some(before) if everywhere => {
                        self.records.delete_all(&before.id.name_prefix()).await?;
                        self.ends.end(&before.record);
                    }
                    Some(before) => self.end(&before.record).await?,
                    None => {}
                }
                Ok(self.written.clear())
            }
        }
    }

    /// Begins a session; what its cookie has.
    async fn begin(&self, name: String, role: String) -> Result<String, Problem> {
        let id = self.key.id(&name, random::<ID_BYTES>().map_err(wrong_answer)?);
        let ends = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + self.lifetime;
        let record = Record { name, role, ends_ms: u64::try_from(ends.as_millis()).unwrap_or(u64::MAX) };
        self.records.set(&id.record(), &record, self.idle.min(self.lifetime), None).await?;
        Ok(self.key.value(&id))
    }

    async fn end(&self, record: &str) -> Result<(), Problem> {
        self.records.delete(record).await?;
        self.ends.end(record);
        Ok(())
    }

    /// A token for the forms that this caller is shown; `None` when it has no session.
    pub(crate) fn token(&self, caller: &Caller) -> Option<String> {
        let mask = random::<MASK_BYTES>().ok()?;
        Some(self.key.token(&caller.session()?.id, mask))
    }

    /// Waits for the end of a caller's session; `None` when it has none. One that has ended already is noticed, too.
    pub(crate) async fn ending(&self, caller: &Caller) -> Option<Ending> {
        let session = caller.session()?;
        let ending = self.ends.watch(&session.record);
        // Between the request and now it may have ended.
        if let Ok(None) = self.records.get(&session.record).await {
            self.ends.end(&session.record);
        }
        Some(ending)
    }

    /// Looks now and then whether sessions with something open are still there. Never returns; may be dropped at any time.
    pub(crate) async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let open = self.ends.keys();
            if open.is_empty() {
                continue;
            }
            // When the store does not say, nothing ends.
            for gone in self.records.missing(&open).await.unwrap_or_default() {
                self.ends.end(&gone);
            }
        }
    }

    /// Has the browser forget a cookie that leads nowhere, unless it is given another.
    pub(crate) fn forget(&self, headers: &mut HeaderMap) {
        let begin = format!("{}=", self.written.name());
        let is_ours = |value: &HeaderValue| value.as_bytes().starts_with(begin.as_bytes());
        if !headers.get_all(header::SET_COOKIE).iter().any(is_ours) {
            set_cookie(headers, self.written.clear());
        }
    }
}

/// What sets a cookie is nobody else's.
fn set_cookie(headers: &mut HeaderMap, cookie: HeaderValue) {
    headers.append(header::SET_COOKIE, cookie);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// What a worker's answer says of the session.
enum Wish {
    LogIn { name: String, role: String },
    LogOut { everywhere: bool },
}

impl Wish {
    /// Takes it out of the answer.
    fn take(headers: &mut HeaderMap) -> Result<Option<Self>, Problem> {
        static NAMES: [HeaderName; 2] = [HeaderName::from_static(LOG_IN), HeaderName::from_static(LOG_OUT)];
        // There are few headers yet, and looking through them is quicker than two hashes.
        if !headers.keys().any(|name| NAMES.contains(name)) {
            return Ok(None);
        }
        let [log_in, log_out] = NAMES.each_ref().map(|name| headers.remove(name));
        if let Some(log_in) = log_in {
            let (mut name, mut role) = (None, None);
            for (key, value) in form_urlencoded::parse(log_in.as_bytes()) {
                match &*key {
                    "name" => name = Some(value.into_owned()),
                    "role" => role = Some(value.into_owned()),
                    _ => {}
                }
            }
            let wrong = || wrong_answer(format!("`{LOG_IN}` is written like `name=anna&role=agent`"));
            return Ok(Some(Self::LogIn { name: name.ok_or_else(wrong)?, role: role.ok_or_else(wrong)? }));
        }
        Ok(log_out.map(|how| Self::LogOut { everywhere: how == "everywhere" }))
    }
}

/// Does what a worker's answer says of the session of its caller.
///
/// # Errors
///
/// 502 when the gateway has no sessions, or the answer cannot be understood; 503 when the store does not do it.
pub(crate) async fn settle(
    log_ins: Option<&LogIns>,
    access: &Guard,
    before: Option<&InSession>,
    mut response: Response<Body>,
) -> Result<Response<Body>, Problem> {
    let Some(wish) = Wish::take(response.headers_mut())? else { return Ok(response) };
    let Some(log_ins) = log_ins else {
        return Err(wrong_answer(
            "the worker logs somebody in or out, and the gateway has no sessions: `Api::sessions`".to_owned(),
        ));
    };
    let cookie = log_ins.settle(access, before, wish).await?;
    set_cookie(response.headers_mut(), cookie);
    Ok(response)
}

/// `GET /csrf`: who has logged in, and a token for what a script of a page sends.
pub(crate) async fn tell_token(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let told = shared.access.caller(&head).and_then(|caller| {
        let token = shared.log_ins.as_ref().and_then(|log_ins| log_ins.token(&caller));
        let token = token.ok_or_else(|| Problem::not_found("nobody has logged in with a browser here"))?;
        Ok(serde_json::json!({"token": token, "name": caller.name(), "role": caller.role()}))
    });
    match told {
        Ok(told) => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (headers, told.to_string()).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// As [`LogIns::identify`], where there may be no sessions.
pub(crate) async fn identify(log_ins: Option<&LogIns>, access: &Guard, head: &Parts) -> Result<Cookie, Problem> {
    match log_ins {
        // In a box, as it is large and not every gateway has sessions.
        Some(log_ins) => Box::pin(log_ins.identify(access, head)).await,
        None => Ok(Cookie::Nothing),
    }
}
