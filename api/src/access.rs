//! Who asks, and what they may do.

mod builder;
mod caller;
mod claims;
mod file;
mod jwt;
mod keys;
mod permissions;
mod token;

pub use builder::Access;
pub use caller::Caller;
pub use jwt::Jwt;
pub(crate) use permissions::{OPERATORS, is_own};
pub use permissions::{Permissions, Verb};
pub use token::Token;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};

use crate::problem::Problem;
use crate::sessions::InSession;
use file::Tokens;
use jwt::Issuer;
use permissions::Granted;
use token::{Digest, Known};

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// The longest name of a caller, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// What the names of headers begin with that only the node sets.
const RESERVED: &str = "edri-";

/// Why access cannot be as it was configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The hash of a token is none.
    #[error(
        "the hash of the token of `{name}` is none: write `sha256:` and 64 hexadecimal digits, as `Token::hash` gives them"
    )]
    Hash {
        /// Whose token it is.
        name: String,
    },
    /// The name of a token's holder is none.
    #[error("`{0}` cannot name who has a token: take 1 to 256 bytes without control characters")]
    Name(String),
    /// There are too many tokens, or places that issue them.
    #[error("there are {count} {what}, and at most {max} can be: take tokens that are signed (`Jwt`) for many callers")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A pattern of event names is none.
    #[error("in the permissions of {whose}: {source}")]
    Pattern {
        /// Whose permissions.
        whose: String,
        /// What is wrong with the pattern.
        source: edri_events::NameError,
    },
    /// A file with tokens cannot be used.
    #[error("the tokens in `{}` cannot be used: {}", .0.path, .0.why)]
    Tokens(KeysError),
    /// Keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Why a file with keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the keys in `{path}` cannot be used: {why}")]
pub struct KeysError {
    pub(crate) path: String,
    pub(crate) why: String,
}

/// Who is let in, and what each may do.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    tokens: Vec<Known>,
    files: Vec<Tokens>,
    issuers: Vec<Issuer>,
    /// What somebody may do who does not say who it is; `None`: everything but what operates the node.
    anonymous: Option<Arc<Granted>>,
    /// What who is logged in may do, by role.
    roles: HashMap<String, Arc<Granted>>,
    metrics_open: bool,
}

impl Guard {
    /// Who sends this request: whoever it was found to be on the way in, and otherwise whom its token names.
    ///
    /// # Errors
    ///
    /// 401 when there is a token and it is not good, 400 when a header is set that only the node sets.
    pub(crate) fn caller(&self, head: &Parts) -> Result<Caller, Problem> {
        match head.extensions.get::<Caller>() {
            Some(caller) => Ok(caller.clone()),
            None => self.caller_by_headers(&head.headers),
        }
    }

    pub(crate) fn caller_by_headers(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        check_headers(headers.keys().map(header::HeaderName::as_str))?;
        // Nobody is to be told apart, so whatever another layer wants there is its own.
        if self.is_open() {
            return Ok(self.anonymous());
        }
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        match (given.next(), given.next()) {
            (None, _) => Ok(self.anonymous()),
            (Some(value), None) => self.caller_by_token(bearer(value)?),
            (Some(_), Some(_)) => Err(bad_token("there are several `Authorization` headers: send one")),
        }
    }

    /// Whom this token names, as a client says it that cannot set headers.
    ///
    /// # Errors
    ///
    /// 401 when the token is not good.
    pub(crate) fn caller_by_token(&self, token: &str) -> Result<Caller, Problem> {
        if self.is_open() {
            return Ok(self.anonymous());
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(bad_token(format!("a token has at most {TOKEN_BYTES_MAX} bytes")));
        }
        let digest = Digest::of(token);
        let known = Known::find(&self.tokens, &digest).map(Known::caller);
        let in_file = |file: &Tokens| Known::find(&file.current(), &digest).map(Known::caller);
        if let Some(caller) = known.or_else(|| self.files.iter().find_map(in_file)) {
            return Ok(caller);
        }
        if self.issuers.is_empty() || token.split('.').count() != 3 {
            return Err(bad_token("the token is not known here"));
        }
        jwt::caller(&self.issuers, token, SystemTime::now()).map_err(|refused| bad_token(refused.to_string()))
    }

    /// Somebody who has logged in with a browser. One whose role is not known any more may do what everybody may.
    pub(crate) fn in_session(&self, name: &str, ends: SystemTime, session: InSession) -> Caller {
        let permissions = self.roles.get(session.role()).or(self.anonymous.as_ref());
        Caller::in_session(name.into(), permissions.cloned(), ends, session)
    }

    /// Whether somebody can be in this role.
    pub(crate) fn has_role(&self, role: &str) -> bool {
        if self.is_open() { is_name(role) } else { self.roles.contains_key(role) }
    }

    /// Somebody who does not say who it is.
    pub(crate) fn anonymous(&self) -> Caller {
        Caller::anonymous(self.anonymous.clone())
    }

    /// Whether everybody may do everything that is exposed, but what operates the node.
    pub(crate) fn is_open(&self) -> bool {
        self.anonymous.is_none()
    }

    /// Whether somebody without a token may do anything.
    pub(crate) fn lets_anonymous(&self) -> bool {
        self.anonymous.as_ref().is_none_or(|granted| !granted.grants.is_empty() || granted.metrics)
    }

    /// Whether this caller may read the node's metrics.
    pub(crate) fn may_read_metrics(&self, caller: &Caller, from: IpAddr) -> bool {
        self.metrics_open || if self.is_open() { from.is_loopback() } else { caller.may_read_metrics() }
    }

    /// Reads files with keys and tokens again when they have changed. Never returns; may be dropped at any time.
    pub(crate) async fn watch(&self) {
        let keys = futures_util::future::join_all(self.issuers.iter().map(Issuer::watch));
        let tokens = futures_util::future::join_all(self.files.iter().map(|file| file.watch()));
        tokio::join!(keys, tokens);
        std::future::pending().await
    }
}

/// Whether only the node sets a header of this name.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.get(..RESERVED.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(RESERVED))
}

/// Refuses headers from outside that only the node sets, be they of an HTTP request or of an event.
pub(crate) fn check_headers<'h>(mut names: impl Iterator<Item = &'h str>) -> Result<(), Problem> {
    match names.find(|name| is_reserved(name)) {
        None => Ok(()),
        Some(name) => {
            let detail = format!("`{name}`: headers that begin with `{RESERVED}` are the node's own: leave it out");
            Err(Problem::new(axum::http::StatusCode::BAD_REQUEST, "invalid_headers", detail))
        }
    }
}

/// The token in an `Authorization` header.
fn bearer(value: &HeaderValue) -> Result<&str, Problem> {
    let (scheme, token) = value.to_str().ok().and_then(|text| text.trim().split_once(' ')).unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        return Ok(token.trim());
    }
    Err(bad_token("`Authorization` is not understood: send `Authorization: Bearer ...`"))
}

fn bad_token(detail: impl Into<String>) -> Problem {
    Problem::unauthorized(detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""))
}

/// Checks the name of a caller, which is logged and travels in headers.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
