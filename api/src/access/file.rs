//! Static tokens in a file that is read again when it changes.
//!
//! ```text
//! # hash                  name       what its holder may do
//! sha256:9f86d081884c…    dashboard  subscribe=quake.> request=risk.assess
//! sha256:60303ae22b99…    prober     metrics
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::builder::{TOKENS_MAX, granted};
use super::token::Known;
use super::{AccessError, KeysError, Permissions, Verb};
use crate::files::{self, Reloaded};

/// The tokens of one file, as it is now.
pub(super) type Tokens = Arc<Reloaded<Vec<Known>>>;

/// Reads a file with tokens.
pub(super) fn open(path: PathBuf) -> Result<Tokens, AccessError> {
    let shown = path.display().to_string();
    // Held while the file is read.
    let standing = Mutex::new(Standing::new());
    let read = move |paths: &[PathBuf]| match paths.first() {
        Some(path) => read(path, &mut standing.lock()),
        None => Ok(Vec::new()),
    };
    Reloaded::open("tokens", vec![path], read).map_err(|why| AccessError::Tokens(KeysError { path: shown, why }))
}

/// What stands for each line of the file, as long as some list has it: a line that stays is the same token.
type Standing = HashMap<String, Weak<watch::Sender<()>>>;

fn read(path: &Path, standing: &mut Standing) -> Result<Vec<Known>, String> {
    let text = String::from_utf8(files::read(path)?).map_err(|_| "it is no text".to_owned())?;
    let mut tokens = Vec::new();
    standing.retain(|_, stands| stands.strong_count() > 0);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if tokens.len() == TOKENS_MAX {
            return Err(format!("it has more than {TOKENS_MAX} tokens: take tokens that are signed for many callers"));
        }
        let known = token(line).map_err(|why| format!("line {}: {why}", number + 1))?;
        let before = standing.get(line).and_then(Weak::upgrade);
        let stands = before.unwrap_or_else(|| Arc::new(watch::Sender::new(())));
        standing.insert(line.to_owned(), Arc::downgrade(&stands));
        tokens.push(known.standing(stands));
    }
    Ok(tokens)
}

/// `hash name verb=pattern …`.
fn token(line: &str) -> Result<Known, String> {
    let mut words = line.split_whitespace();
    let hash = words.next().unwrap_or_default();
    let name = words.next().ok_or("there is no name behind the hash")?;
    let mut permissions = Permissions::new();
    for word in words {
        permissions = match word.split_once('=') {
            None if word == "metrics" => permissions.metrics(),
            Some(("publish", pattern)) => permissions.grant(Verb::Publish, pattern),
            Some(("request", pattern)) => permissions.grant(Verb::Request, pattern),
            Some(("subscribe", pattern)) => permissions.grant(Verb::Subscribe, pattern),
            Some(("serve", pattern)) => permissions.grant(Verb::Serve, pattern),
            _ => {
                // What it is may be a secret that stands in the wrong place.
                return Err(format!(
                    "what `{name}` may do is not understood: write `publish=`, `request=`, `subscribe=` or `serve=` and a \
                     pattern, one by one, or `metrics`"
                ));
            }
        };
    }
    let granted = granted(&permissions, &format!("`{name}`")).map_err(|error| error.to_string())?;
    Known::new(hash, name, granted).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;

    #[test]
    fn a_line_is_a_hash_a_name_and_what_its_holder_may_do() {
        let hash = Token::hash_of("secret");
        let known =
            token(&format!("{hash}\tdashboard  subscribe=quake.> request=risk.assess metrics")).expect("a token");
        let caller = known.caller();
        let may = |verb, event: &str| caller.may(verb, &edri_events::EventName::new(event).expect("a name"));
        assert_eq!(caller.name(), Some("dashboard"));
        assert!(may(Verb::Subscribe, "quake.recorded") && may(Verb::Request, "risk.assess"));
        assert!(!may(Verb::Publish, "quake.recorded") && caller.may_read_metrics());
        for (wrong, expected) in [
            (hash.clone(), "no name"),
            ("edri_secret anna".to_owned(), "the hash of the token of `anna`"),
            (format!("{hash} anna publish"), "not understood"),
            (format!("{hash} anna eat=a.b"), "not understood"),
            (format!("{hash} anna publish=a..b"), "`anna`"),
        ] {
            let said = token(&wrong).expect_err("it is none");
            assert!(said.contains(expected) && !said.contains("edri_secret"), "{said}");
        }
    }
}
