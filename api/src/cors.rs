//! Which pages may use a gateway from a browser.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use std::time::Duration;

use crate::problem::Problem;

/// What a page of another origin may read of an answer, beside its body.
const EXPOSED: &str = "etag, location, retry-after, content-range, accept-ranges, content-disposition";
/// What it may ask with.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// The most origins that can be listed.
const ORIGINS_MAX: usize = 1_024;

/// Which pages of other origins may use a gateway. Pages that the gateway itself shows always may; without this all others
/// are refused, WebSockets and plain forms included, so that no page somebody happens to look at reaches a gateway on their
/// machine or in their network.
///
/// ```
/// # use edri_api::Cors;
/// let cors = Cors::new().origin("https://app.example").origin("http://localhost:5173");
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Cors {
    origins: Vec<String>,
    any: bool,
    credentials: bool,
    max_age: Duration,
}

/// Why pages cannot be let in as it was configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorsError {
    /// An origin is none.
    #[error("`{0}` is no origin: write it like `https://app.example`, without a path")]
    Origin(String),
    /// Too many origins are listed.
    #[error("there are {0} origins, and at most {ORIGINS_MAX} can be")]
    TooMany(usize),
    /// Pages of any origin would act as whoever looks at them.
    #[error("`Cors::any` does not go with `credentials`: any page could act as whoever looks at it; list the origins")]
    AnyWithCredentials,
}

impl Cors {
    /// Pages of no other origin.
    pub fn new() -> Self {
        Self { origins: Vec::new(), any: false, credentials: false, max_age: Duration::from_secs(600) }
    }

    /// Pages of any origin, without cookies: for what everybody may see.
    pub fn any() -> Self {
        Self { any: true, ..Self::new() }
    }

    /// Pages of this origin too, like `https://app.example` or `http://localhost:5173`.
    pub fn origin(mut self, origin: &str) -> Self {
        self.origins.push(origin.to_owned());
        self
    }

    /// Lets browsers send cookies along. Off by default.
    pub fn credentials(mut self, allowed: bool) -> Self {
        self.credentials = allowed;
        self
    }

    /// How long a browser may remember what is allowed. 10 minutes by default.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Whether pages can be let in like this.
    ///
    /// # Errors
    ///
    /// [`CorsError`] says what cannot be.
    pub fn check(&self) -> Result<(), CorsError> {
        self.clone().checked().map(drop)
    }

    pub(crate) fn checked(mut self) -> Result<Self, CorsError> {
        if self.any && self.credentials {
            return Err(CorsError::AnyWithCredentials);
        }
        if self.origins.len() > ORIGINS_MAX {
            return Err(CorsError::TooMany(self.origins.len()));
        }
        for origin in &mut self.origins {
            let uri = origin.parse::<Uri>().ok();
            let is_origin = uri.is_some_and(|uri| {
                uri.scheme().is_some()
                    && uri.authority().is_some()
                    && uri.path_and_query().is_none_or(|path| path == "/")
            });
            if !is_origin || origin.ends_with('/') {
                return Err(CorsError::Origin(origin.clone()));
            }
            origin.make_ascii_lowercase();
        }
        Ok(self)
    }

    /// Whose page sends a request.
    ///
    /// # Errors
    ///
    /// 403 when it is one of an origin that may not.
    pub(crate) fn visitor(&self, head: &Parts) -> Result<Visitor, Problem> {
        let Some(origin) = head.headers.get(header::ORIGIN) else { return Ok(Visitor::NoPage) };
        let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        if is_same(&text, head) {
            return Ok(Visitor::SameOrigin);
        }
        if self.any || self.origins.contains(&text) {
            return Ok(Visitor::Allowed(origin.clone()));
        }
        let shown: String = text.chars().take(200).collect();
        let detail = format!("pages of `{shown}` may not use this gateway: its owner lets them with `Api::cors`");
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden_origin", detail))
    }

    /// Whether the page that sends this is of an origin that is listed by name.
    pub(crate) fn lists(&self, headers: &HeaderMap) -> bool {
        let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        origin.is_some_and(|origin| self.credentials && self.origins.contains(&origin.to_ascii_lowercase()))
    }

    /// The answer to a browser that asks whether a page may send what it wants to.
    pub(crate) fn preflight(&self, head: &Parts, visitor: &Visitor) -> Option<Response<Body>> {
        let asks = head.method == Method::OPTIONS && head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || !matches!(visitor, Visitor::Allowed(_)) {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        if let Some(wanted) = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.as_secs().into());
        for name in [header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS] {
            headers.append(header::VARY, name.into());
        }
        Some(response)
    }

    /// Says in an answer who may read it.
    pub(crate) fn tell(&self, visitor: &Visitor, headers: &mut HeaderMap) {
        if !self.origins.is_empty() {
            headers.append(header::VARY, HeaderName::into(header::ORIGIN));
        }
        let Visitor::Allowed(origin) = visitor else { return };
        let allowed = if self.any { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

impl Default for Cors {
    fn default() -> Self {
        Self::new()
    }
}

/// Whose page sends a request.
#[derive(Debug, Clone)]
pub(crate) enum Visitor {
    /// No browser, or one that goes somewhere.
    NoPage,
    /// A page that this gateway has shown.
    SameOrigin,
    /// A page of this origin, which may.
    Allowed(HeaderValue),
}

/// Whether an origin is where the request goes to. The scheme is not compared: a proxy may have taken TLS off.
fn is_same(origin: &str, head: &Parts) -> bool {
    let Some((_, from)) = origin.split_once("://") else { return false };
    let named = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let to = head.uri.authority().map(Authority::as_str).or(named).unwrap_or_default().to_ascii_lowercase();
    !to.is_empty() && without_port(from) == without_port(&to)
}

/// Leaves out a port that goes without saying.
fn without_port(authority: &str) -> &str {
    authority.strip_suffix(":443").or_else(|| authority.strip_suffix(":80")).unwrap_or(authority)
}
