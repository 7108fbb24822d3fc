//! Tokens that are known by their hashes.

use std::fmt::Write;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::permissions::Granted;
use super::{AccessError, Caller, is_name};

/// What the text of a hash begins with.
const SHA256: &str = "sha256:";
/// What a token begins with, so that tools that look for secrets in the wrong places know it.
const PREFIX: &str = "edri_";

/// A token that was just made: 256 random bits. Its holder is given the secret, the gateway its hash.
///
/// ```
/// # use edri_api::Token;
/// let token = Token::random()?;
/// assert_eq!(token.hash(), Token::hash_of(token.secret()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Token {
    secret: String,
}

impl Token {
    /// Makes a token.
    ///
    /// # Errors
    ///
    /// When the system has no randomness to give.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self { secret: format!("{PREFIX}{}", hex(&bytes)) })
    }

    /// What its holder sends as `Authorization: Bearer ...`.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What [`Access::token`](super::Access::token) takes.
    #[must_use]
    pub fn hash(&self) -> String {
        Self::hash_of(&self.secret)
    }

    /// The hash of any token: `sha256:` and 64 hexadecimal digits. A plain hash keeps a token of many random bits secret, as those
    /// that [`Token::random`] makes. It does not keep a password: that can be guessed.
    #[must_use]
    pub fn hash_of(secret: &str) -> String {
        format!("{SHA256}{}", hex(&Digest::of(secret).0))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("hash", &self.hash()).finish_non_exhaustive()
    }
}

/// The SHA-256 of a token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(SHA256)?.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(0)? << 4 | digit(1)?;
        }
        Some(Self(bytes))
    }
}

/// A token that is known.
#[derive(Clone)]
pub(super) struct Known {
    digest: Digest,
    name: Arc<str>,
    permissions: Arc<Granted>,
    /// Dropped with the last list of tokens in which it stands, when it comes from a file.
    stands: Option<Arc<watch::Sender<()>>>,
}

impl Known {
    pub(super) fn new(hash: &str, name: &str, permissions: Granted) -> Result<Self, AccessError> {
        if !is_name(name) {
            return Err(AccessError::Name(name.to_owned()));
        }
        let digest = Digest::parse(hash).ok_or_else(|| AccessError::Hash { name: name.to_owned() })?;
        Ok(Self { digest, name: name.into(), permissions: Arc::new(permissions), stands: None })
    }

    /// The one with this digest. Takes as long whichever it is, and whether it is there or not.
    pub(super) fn find<'k>(known: &'k [Self], digest: &Digest) -> Option<&'k Self> {
        let mut found = None;
        for one in known {
            if bool::from(one.digest.0.ct_eq(&digest.0)) {
                found = Some(one);
            }
        }
        found
    }

    /// Says of its callers for how long it stands in a file.
    pub(super) fn standing(self, stands: Arc<watch::Sender<()>>) -> Self {
        Self { stands: Some(stands), ..self }
    }

    pub(super) fn caller(&self) -> Caller {
        let caller = Caller::named(Arc::clone(&self.name), Arc::clone(&self.permissions), None);
        match &self.stands {
            Some(stands) => caller.while_it_stands(stands.subscribe()),
            None => caller,
        }
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("name", &self.name).finish_non_exhaustive()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
