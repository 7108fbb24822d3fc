use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::permissions::{Granted, Permissions};
use super::token::Known;
use super::{AccessError, Guard, Jwt, file, is_name};

/// The most tokens known by their hashes: each is compared with every token that comes.
pub(super) const TOKENS_MAX: usize = 1_024;
/// The most places that sign tokens.
const ISSUERS_MAX: usize = 16;
/// The most roles.
const ROLES_MAX: usize = 1_024;
/// The most files with tokens.
const FILES_MAX: usize = 16;

/// Who is let in, and what each may do. A gateway without it is open to everybody who reaches its address, which is for an
/// address like `127.0.0.1`. With it, somebody without a token may do nothing but what [`Access::anonymous`] says.
///
/// ```
/// # use edri_api::{Access, Jwt, Permissions};
/// let access = Access::new()
///     .token(
///         "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
///         "dashboard",
///         Permissions::new().subscribe("quake.>"),
///     )
///     .jwt(Jwt::jwks_file("keys.json").issuer("https://login.example").audience("quakes"))
///     .anonymous(Permissions::new().request("risk.assess"));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Access {
    tokens: Vec<(String, String, Permissions)>,
    files: Vec<PathBuf>,
    issuers: Vec<Jwt>,
    anonymous: Permissions,
    roles: Vec<(String, Permissions)>,
    metrics_open: bool,
}

impl Access {
    /// Nobody, until somebody is let in.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets in who has the token with this hash (see [`Token`](super::Token)), under this name.
    pub fn token(mut self, hash: &str, name: &str, permissions: Permissions) -> Self {
        self.tokens.push((hash.to_owned(), name.to_owned(), permissions));
        self
    }

    /// Lets in who has one of the tokens in this file, which is read again when it changes: a token that is taken out is refused from then on,
    /// a second later at most; connections that are open stay. A line has the hash of a token, a name without spaces, and what its holder
    /// may do: `sha256:9f86… dashboard subscribe=quake.> request=risk.assess`, with `publish=`, `request=`, `subscribe=` and `serve=`, each
    /// as often as wanted, and `metrics`. Lines that begin with `#` are skipped. A file that cannot be read
    /// leaves the tokens as they were, and a warning in the log.
    pub fn tokens_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push(path.into());
        self
    }

    /// Lets in who has a signed token (JWT) of this issuer.
    pub fn jwt(mut self, jwt: Jwt) -> Self {
        self.issuers.push(jwt);
        self
    }

    /// What somebody may do who has no token: nothing unless it is said here.
    pub fn anonymous(mut self, permissions: Permissions) -> Self {
        self.anonymous = permissions;
        self
    }

    /// What somebody may do who has logged in with a browser in this role ([`Api::sessions`](crate::Api::sessions)), beside what everybody
    /// may.
    pub fn role(mut self, role: &str, permissions: Permissions) -> Self {
        self.roles.push((role.to_owned(), permissions));
        self
    }

    /// Lets everybody read `/metrics`, for a network where only those come who may.
    pub fn metrics_for_all(mut self) -> Self {
        self.metrics_open = true;
        self
    }

    /// Whether it can be as it is, as a gateway that is started finds out; reads the files it names.
    ///
    /// # Errors
    ///
    /// [`AccessError`] says what cannot be.
    pub fn check(&self) -> Result<(), AccessError> {
        self.clone().open().map(drop)
    }

    /// Reads what there is to read.
    pub(crate) fn open(self) -> Result<Guard, AccessError> {
        let too_many = |what, count, max| AccessError::TooMany { what, count, max };
        if self.tokens.len() > TOKENS_MAX {
            return Err(too_many("tokens", self.tokens.len(), TOKENS_MAX));
        }
        if self.issuers.len() > ISSUERS_MAX {
            return Err(too_many("issuers", self.issuers.len(), ISSUERS_MAX));
        }
        if self.files.len() > FILES_MAX {
            return Err(too_many("files with tokens", self.files.len(), FILES_MAX));
        }
        let known = |(hash, name, permissions): &(String, String, Permissions)| {
            Known::new(hash, name, granted(permissions, &format!("`{name}`"))?)
        };
        let tokens = self.tokens.iter().map(known).collect::<Result<_, _>>()?;
        let issuers = self.issuers.into_iter().map(Jwt::check).collect::<Result<_, _>>()?;
        let anonymous = granted(&self.anonymous, "callers without a token")?;
        if self.roles.len() > ROLES_MAX {
            return Err(too_many("roles", self.roles.len(), ROLES_MAX));
        }
        let mut roles = HashMap::new();
        for (role, permissions) in &self.roles {
            if !is_name(role) {
                return Err(AccessError::Name(role.clone()));
            }
            let mut granted = granted(permissions, &format!("the role `{role}`"))?;
            granted.extend(&anonymous);
            roles.insert(role.clone(), Arc::new(granted));
        }
        let files = self.files.into_iter().map(file::open).collect::<Result<_, _>>()?;
        let anonymous = Some(Arc::new(anonymous));
        Ok(Guard { tokens, files, issuers, anonymous, roles, metrics_open: self.metrics_open })
    }
}

pub(super) fn granted(permissions: &Permissions, whose: &str) -> Result<Granted, AccessError> {
    permissions.check().map_err(|source| AccessError::Pattern { whose: whose.to_owned(), source })
}
