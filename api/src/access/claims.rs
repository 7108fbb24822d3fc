//! What a signed token says, once its signature is known to be good. Pure: what time it is comes in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use edri_events::Pattern;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwt::Refused;
use super::permissions::{Granted, Verb};
use super::{Caller, is_name};

/// The most patterns in a claim.
const PATTERNS_MAX: usize = 1_024;

/// What is asked of claims.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) issuer: Option<String>,
    pub(super) audience: Vec<String>,
    pub(super) leeway: Duration,
    /// The claim that lists permissions.
    pub(super) claim: String,
    /// What a scope allows.
    pub(super) scopes: Vec<(String, Granted)>,
    /// What every token allows.
    pub(super) granted: Granted,
}

/// The claim that lists permissions.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Listed {
    publish: Vec<String>,
    request: Vec<String>,
    subscribe: Vec<String>,
    serve: Vec<String>,
    metrics: bool,
}

/// Who has a token with these claims. Each claim is looked at as it is: one of another type is wrong, and not absent.
pub(super) fn check(claims: &Map<String, Value>, now: SystemTime, rules: &Rules) -> Result<Caller, Refused> {
    let ends = date(claims, "exp")?.ok_or(Refused::Claim("`exp` is missing: a token has to end".into()))?;
    if ends.checked_add(rules.leeway).is_some_and(|ends| ends <= now) {
        return Err(Refused::Expired);
    }
    if date(claims, "nbf")?.is_some_and(|begins| now.checked_add(rules.leeway).is_some_and(|now| now < begins)) {
        return Err(Refused::NotYet);
    }
    let issuer = text(claims, "iss")?;
    if rules.issuer.as_deref().is_some_and(|wanted| issuer != Some(wanted)) {
        return Err(Refused::Claim("`iss` is not the issuer that is trusted here".into()));
    }
    let audience = texts(claims, "aud")?;
    let meant = audience.iter().flatten().any(|one| rules.audience.iter().any(|wanted| wanted == one));
    // A token that says whom it is for is for nobody else.
    if !meant && (audience.is_some() || !rules.audience.is_empty()) {
        return Err(Refused::Claim("`aud` does not name this service".into()));
    }
    let name = text(claims, "sub")?.ok_or(Refused::Claim("`sub` is missing: it names the caller".into()))?;
    if !is_name(name) {
        return Err(Refused::Claim("`sub` is no name: 1 to 256 bytes without control characters".into()));
    }
    let granted = granted(claims, rules)?;
    Ok(Caller::named(name.into(), Arc::new(granted), ends.checked_add(rules.leeway).or(Some(ends))))
}

fn granted(claims: &Map<String, Value>, rules: &Rules) -> Result<Granted, Refused> {
    let mut granted = rules.granted.clone();
    for claim in ["scope", "scp"] {
        let scopes = texts(claims, claim)?.unwrap_or_default();
        let scopes: Vec<_> = scopes.iter().flat_map(|scopes| scopes.split(' ')).collect();
        let allowed = rules.scopes.iter().filter(|(scope, _)| scopes.contains(&&**scope));
        allowed.for_each(|(_, allowed)| granted.extend(allowed));
    }
    let Some(listed) = claims.get(&rules.claim) else { return Ok(granted) };
    let wrong = |why: String| Refused::Claim(format!("`{}` is not understood: {why}", rules.claim));
    let listed = Listed::deserialize(listed).map_err(|error| wrong(error.to_string()))?;
    let Listed { publish, request, subscribe, serve, metrics } = listed;
    if publish.len() + request.len() + subscribe.len() + serve.len() > PATTERNS_MAX {
        return Err(wrong(format!("it has more than {PATTERNS_MAX} patterns")));
    }
    granted.metrics |= metrics;
    for (verb, patterns) in
        [(Verb::Publish, publish), (Verb::Request, request), (Verb::Subscribe, subscribe), (Verb::Serve, serve)]
    {
        for pattern in patterns {
            granted.grants.push((verb, Pattern::new(&pattern).map_err(|error| wrong(error.to_string()))?));
        }
    }
    Ok(granted)
}

/// A moment, in seconds since 1970.
fn date(claims: &Map<String, Value>, claim: &str) -> Result<Option<SystemTime>, Refused> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    let since = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let moment = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    moment.map(Some).ok_or_else(|| Refused::Claim(format!("`{claim}` is no moment in seconds since 1970")))
}

fn text<'c>(claims: &'c Map<String, Value>, claim: &str) -> Result<Option<&'c str>, Refused> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    value.as_str().map(Some).ok_or_else(|| Refused::Claim(format!("`{claim}` is no text")))
}

/// A text or a list of them.
fn texts<'c>(claims: &'c Map<String, Value>, claim: &str) -> Result<Option<Vec<&'c str>>, Refused> {
    let wrong = || Refused::Claim(format!("`{claim}` is neither a text nor a list of texts"));
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(vec![text])),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(wrong()),
    }
}
