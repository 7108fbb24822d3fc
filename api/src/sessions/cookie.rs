//! The cookie of a session and the tokens of its forms. Pure: keys and randomness come in.
//!
//! ```text
//!   cookie = base64url(id) "." base64url(HMAC(key, "session" id))
//!   id     = 12 bytes that all sessions of one name share, 20 random bytes
//!   token  = base64url(mask, mask XOR the first 16 bytes of HMAC(key, "form" id))
//! ```
//!
//! A token looks different each time, so that a compressed page does not tell it bit by bit.

use std::fmt::Write;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

/// How many bytes an id has.
pub(super) const ID_BYTES: usize = 32;
/// How many of them are those of the name.
const NAME_BYTES: usize = 12;
/// How many bytes a cookie's value has.
const VALUE_BYTES: usize = 43 + 1 + 43;
/// How many bytes of a token are random, and as many are not.
pub(super) const MASK_BYTES: usize = 16;

/// What a browser has of a session. Nobody else may know it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Id(pub(super) [u8; ID_BYTES]);

/// What signs cookies and tokens.
pub(super) struct Key(hmac::Key);

impl Key {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn sign(&self, what: &str, bytes: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(what.as_bytes());
        context.update(&[0]);
        context.update(bytes);
        context.sign()
    }

    /// The id of a new session of this name.
    pub(super) fn id(&self, name: &str, random: [u8; ID_BYTES]) -> Id {
        let mut id = random;
        id[..NAME_BYTES].copy_from_slice(&self.sign("name", name.as_bytes()).as_ref()[..NAME_BYTES]);
        Id(id)
    }

    /// What the cookie of this session has.
    pub(super) fn value(&self, id: &Id) -> String {
        let tag = self.sign("session", &id.0);
        format!("{}.{}", URL_SAFE_NO_PAD.encode(id.0), URL_SAFE_NO_PAD.encode(tag))
    }

    /// The session whose cookie has this; `None` when the gateway did not write it.
    pub(super) fn read(&self, value: &str) -> Option<Id> {
        if value.len() != VALUE_BYTES {
            return None;
        }
        let (id, tag) = value.split_once('.')?;
        let id: [u8; ID_BYTES] = URL_SAFE_NO_PAD.decode(id).ok()?.try_into().ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let good = self.sign("session", &id);
        bool::from(good.as_ref().ct_eq(&tag)).then_some(Id(id))
    }

    /// A token for the forms of this session.
    pub(super) fn token(&self, id: &Id, mask: [u8; MASK_BYTES]) -> String {
        let mut token = [0; 2 * MASK_BYTES];
        let tag = self.sign("form", &id.0);
        for (at, (mask, byte)) in mask.into_iter().zip(tag.as_ref()).enumerate() {
            (token[at], token[MASK_BYTES + at]) = (mask, mask ^ byte);
        }
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Whether this is a token of the session.
    pub(super) fn is_token(&self, id: &Id, token: &str) -> bool {
        let Ok(token) = URL_SAFE_NO_PAD.decode(token.get(..64).unwrap_or(token)) else { return false };
        let Some((mask, masked)) = token.split_at_checked(MASK_BYTES) else { return false };
        let tag: Vec<u8> = mask.iter().zip(masked).map(|(mask, byte)| mask ^ byte).collect();
        let good = self.sign("form", &id.0);
        masked.len() == MASK_BYTES && bool::from(good.as_ref()[..MASK_BYTES].ct_eq(&tag))
    }
}

impl Id {
    /// The key of the session's record: from it nobody can make the cookie.
    pub(super) fn record(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.0);
        self.name_prefix() + &hex(&digest.as_ref()[..20])
    }

    /// What the keys of all sessions of the same name begin with.
    pub(super) fn name_prefix(&self) -> String {
        hex(&self.0[..NAME_BYTES]) + "."
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The value of the cookie of this name: none, one, or several, which no browser sends that only we gave one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent<'h> {
    Nothing,
    One(&'h str),
    Several,
}

pub(super) fn sent<'h>(headers: &'h HeaderMap, name: &str) -> Sent<'h> {
    let cookies = headers.get_all(header::COOKIE).iter().map(|value| value.to_str().unwrap_or_default());
    let mut values = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| {
        let (key, value) = cookie.trim().split_once('=')?;
        (key == name).then_some(value)
    });
    match (values.next(), values.next()) {
        (None, _) => Sent::Nothing,
        (Some(value), None) => Sent::One(value),
        (Some(_), Some(_)) => Sent::Several,
    }
}

/// How a browser is given the cookie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// Only over TLS.
    pub(super) secure: bool,
}

impl Written {
    /// The cookie's name: with TLS one that only this host can have set, and not over a connection without it.
    pub(super) fn name(self) -> &'static str {
        if self.secure { "__Host-edri-session" } else { "edri-session" }
    }

    pub(super) fn set(self, value: &str, seconds: u64) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!("{}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Lax{secure}", self.name());
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }

    pub(super) fn clear(self) -> HeaderValue {
        self.set("", 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new(b"a key of the test")
    }

    #[test]
    fn a_cookie_is_read_by_the_key_that_wrote_it_and_by_no_other() {
        let id = key().id("anna", [7; ID_BYTES]);
        let value = key().value(&id);
        assert!(key().read(&value) == Some(id));
        assert!(Key::new(b"another").read(&value).is_none());
        for at in 0..value.len() {
            let mut forged = value.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("ASCII");
            assert!(key().read(&forged).is_none(), "{at}: {forged}");
        }
        for wrong in ["", ".", &value[1..], &format!("{value}A"), &"x".repeat(100_000), &"ä".repeat(44)] {
            assert!(key().read(wrong).is_none());
        }
    }

    #[test]
    fn sessions_of_one_name_share_what_their_records_begin_with_and_a_record_tells_no_cookie() {
        let (one, two) = (key().id("anna", [1; ID_BYTES]), key().id("anna", [2; ID_BYTES]));
        assert_eq!(one.name_prefix(), two.name_prefix());
        assert!(one.record().starts_with(&one.name_prefix()) && one.record() != two.record());
        assert_ne!(one.name_prefix(), key().id("ben", [1; ID_BYTES]).name_prefix());
        assert!(!one.record().contains(&hex(&one.0[NAME_BYTES..])));
    }

    #[test]
    fn a_token_is_of_one_session_and_looks_different_each_time() {
        let (one, two) = (key().id("anna", [1; ID_BYTES]), key().id("anna", [2; ID_BYTES]));
        let (first, second) = (key().token(&one, [1; MASK_BYTES]), key().token(&one, [2; MASK_BYTES]));
        assert_ne!(first, second);
        assert!(key().is_token(&one, &first) && key().is_token(&one, &second));
        assert!(!key().is_token(&two, &first) && !Key::new(b"another").is_token(&one, &first));
        for wrong in ["", "AAAA", &first[1..], &format!("{first}AAAA"), &"A".repeat(43), &"ä".repeat(99)] {
            assert!(!key().is_token(&one, wrong), "{wrong}");
        }
    }

    #[test]
    fn a_cookie_that_is_sent_twice_is_none() {
        let headers = |cookies: &[&'static str]| {
            cookies.iter().map(|text| (header::COOKIE, HeaderValue::from_static(text))).collect::<HeaderMap>()
        };
        assert_eq!(sent(&headers(&["a=b; edri-session=x ; c=d"]), "edri-session"), Sent::One("x"));
        assert_eq!(sent(&headers(&["a=edri-session; xedri-session=1"]), "edri-session"), Sent::Nothing);
        assert_eq!(sent(&headers(&["edri-session=x; edri-session=y"]), "edri-session"), Sent::Several);
        assert_eq!(sent(&headers(&["edri-session=x", "edri-session=x"]), "edri-session"), Sent::Several);
    }

    #[test]
    fn with_tls_the_cookie_is_the_hosts_own() {
        let text = |secure: bool| Written { secure }.set("v", 60).to_str().expect("ASCII").to_owned();
        assert_eq!(text(true), "__Host-edri-session=v; Max-Age=60; Path=/; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(text(false), "edri-session=v; Max-Age=60; Path=/; HttpOnly; SameSite=Lax");
    }
}
