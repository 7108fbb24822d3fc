//! Tokens that are signed (JWT, RFC 7519).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::builder::granted;
use super::claims::{self, Rules};
use super::keys::{self, Key};
use super::{AccessError, Caller, KeysError, Permissions};
use crate::files::Reloaded;

/// How much the clocks of whoever signs and of this node may differ, unless it is said otherwise.
const LEEWAY: Duration = Duration::from_secs(60);
/// The claim that lists permissions, unless it is said otherwise.
const CLAIM: &str = "edri";

/// Signed tokens of one issuer: where its keys are, and what its tokens allow.
///
/// A key is for one algorithm by its kind, whatever a token says: a secret for HS256, RSA for RS256, Ed25519 for EdDSA, P-256 for
/// ES256. The file is read again when it changes. A token has to end (`exp`) and to name its holder (`sub`).
///
/// What a token allows is in its claim `edri`, `{"publish": ["sensor.>"], "request": ["risk.*"], "subscribe": [], "serve": [],
/// "metrics": false}`, each of them optional; and in its scopes, when [`Jwt::scope`] says what they mean.
#[derive(Debug, Clone)]
#[must_use]
pub struct Jwt {
    kind: Keys,
    path: PathBuf,
    issuer: Option<String>,
    audience: Vec<String>,
    leeway: Duration,
    claim: String,
    scopes: Vec<(String, Permissions)>,
    permissions: Permissions,
}

/// What is in a file with keys.
#[derive(Debug, Clone, Copy)]
enum Keys {
    Jwks,
    Pem,
    Secret,
}

impl Keys {
    fn read(self, path: &Path) -> Result<Vec<Key>, String> {
        match self {
            Self::Jwks => keys::read_jwks(path),
            Self::Pem => keys::read_pem(path),
            Self::Secret => keys::read_secret(path),
        }
    }
}

impl Jwt {
    /// Tokens signed with a key of this file, a JSON Web Key Set as issuers show it.
    pub fn jwks_file(path: impl Into<PathBuf>) -> Self {
        Self::new(Keys::Jwks, path.into())
    }

    /// Tokens signed with the private half of a key in this file: PEM, `PUBLIC KEY` or `CERTIFICATE`; several, while one takes
    /// another's place.
    pub fn key_file(path: impl Into<PathBuf>) -> Self {
        Self::new(Keys::Pem, path.into())
    }

    /// Tokens signed with the secret in this file: its bytes without line ends behind them, 32 at least. Whoever has it can make tokens.
    pub fn secret_file(path: impl Into<PathBuf>) -> Self {
        Self::new(Keys::Secret, path.into())
    }

    fn new(kind: Keys, path: PathBuf) -> Self {
        Self {
            kind,
            path,
            issuer: None,
            audience: Vec::new(),
            leeway: LEEWAY,
            claim: CLAIM.to_owned(),
            scopes: Vec::new(),
            permissions: Permissions::new(),
        }
    }

    /// Takes only tokens whose `iss` is this.
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.issuer = Some(issuer.to_owned());
        self
    }

    /// Takes only tokens whose `aud` names this; one of them when it is said several times. Without it, tokens that have an
    /// `aud` are not taken: they are for somebody else.
    pub fn audience(mut self, audience: &str) -> Self {
        self.audience.push(audience.to_owned());
        self
    }

    /// How much the issuer's clock may differ from this node's. 60 s by default.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The claim that lists permissions. `edri` by default.
    pub fn claim(mut self, claim: &str) -> Self {
        self.claim = claim.to_owned();
        self
    }

    /// What a token allows that has this scope (in the claim `scope` or `scp`).
    pub fn scope(mut self, scope: &str, permissions: Permissions) -> Self {
        self.scopes.push((scope.to_owned(), permissions));
        self
    }

    /// What every token of this issuer allows, whatever it says.
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = permissions;
        self
    }

    /// Reads the keys.
    pub(super) fn check(self) -> Result<Issuer, AccessError> {
        let Self { kind, path, issuer, audience, leeway, claim, scopes, permissions } = self;
        let scopes = scopes.into_iter().map(|(scope, permissions)| {
            let granted = granted(&permissions, &format!("the scope `{scope}`"))?;
            Ok((scope, granted))
        });
        let scopes = scopes.collect::<Result<_, AccessError>>()?;
        let granted = granted(&permissions, &format!("the tokens signed with `{}`", path.display()))?;
        let read = move |paths: &[PathBuf]| paths.first().map_or(Ok(Vec::new()), |path| kind.read(path));
        let keys = Reloaded::open("keys of tokens", vec![path.clone()], read)
            .map_err(|why| KeysError { path: path.display().to_string(), why })?;
        Ok(Issuer { keys, rules: Rules { issuer, audience, leeway, claim, scopes, granted } })
    }
}

/// Whose signed tokens are taken.
#[derive(Debug)]
pub(super) struct Issuer {
    keys: Arc<Reloaded<Vec<Key>>>,
    rules: Rules,
}

impl Issuer {
    pub(super) async fn watch(&self) {
        self.keys.watch().await;
    }

    #[cfg(test)]
    pub(super) fn look(&self) -> Result<bool, String> {
        self.keys.look()
    }

    fn caller(&self, token: &str, header: &Header, now: SystemTime) -> Result<Caller, Refused> {
        let keys = self.keys.current();
        // A key without a name, or a token that does not name its key, is tried.
        let named = |key: &&Key| match (&key.kid, &header.kid) {
            (Some(key), Some(wanted)) => key == wanted,
            _ => true,
        };
        let mut named = keys.iter().filter(named).peekable();
        if named.peek().is_none() {
            return Err(Refused::UnknownKey);
        }
        let mut refused = Refused::Algorithm;
        for key in named.filter(|key| format!("{:?}", key.algorithm) == header.alg) {
            match verify(token, key) {
                Ok(claims) => return claims::check(&claims, now, &self.rules),
                Err(why) => refused = why,
            }
        }
        Err(refused)
    }
}

/// What of the head of a token is looked at before its signature.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that have to be understood (RFC 7515, 4.1.11). None is.
    crit: Option<Value>,
}

/// Why a signed token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the token cannot be read")]
    Malformed,
    #[error("the token's key is not known here")]
    UnknownKey,
    #[error("the token's algorithm is not that of its key")]
    Algorithm,
    #[error("the token's signature is not good")]
    Signature,
    #[error("the token has expired: get another")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is not for this: {0}")]
    Claim(String),
}

impl Refused {
    /// Whether the token was signed with a key that is known; then why it is not taken is nobody else's secret.
    fn is_signed(&self) -> bool {
        matches!(self, Self::Expired | Self::NotYet | Self::Claim(_))
    }
}

/// Who has a token that one of these has signed.
pub(super) fn caller(issuers: &[Issuer], token: &str, now: SystemTime) -> Result<Caller, Refused> {
    let header = head(token)?;
    let mut refused = Refused::UnknownKey;
    for issuer in issuers {
        match issuer.caller(token, &header, now) {
            Ok(caller) => return Ok(caller),
            Err(why) if !refused.is_signed() => refused = why,
            Err(_) => {}
        }
    }
    Err(refused)
}

fn head(token: &str) -> Result<Header, Refused> {
    let first = token.split('.').next().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(first).map_err(|_| Refused::Malformed)?;
    let header: Header = serde_json::from_slice(&bytes).map_err(|_| Refused::Malformed)?;
    if header.crit.is_some() {
        return Err(Refused::Malformed);
    }
    Ok(header)
}

/// Checks the signature alone, and reads the claims: `claims` looks at them.
fn verify(token: &str, key: &Key) -> Result<Map<String, Value>, Refused> {
    let Key { algorithm, key, .. } = key;
    let mut only = Validation::new(*algorithm);
    only.required_spec_claims.clear();
    (only.validate_exp, only.validate_nbf, only.validate_aud) = (false, false, false);
    let key: &DecodingKey = key;
    match jsonwebtoken::decode(token, key, &only) {
        Ok(decoded) => Ok(decoded.claims),
        Err(error) => match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => Err(Refused::Signature),
            jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => Err(Refused::Algorithm),
            _ => Err(Refused::Malformed),
        },
    }
}
