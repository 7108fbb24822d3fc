use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a handler could not do what the event asked: a stable code and a text for people.
///
/// Any error converts into one with the code `failed`, so `?` works in handlers. Choose a code of your own with
/// [`Failure::new`] when the requester should be able to tell failures apart.
///
/// ```
/// use edri_events::Failure;
///
/// fn parse(text: &str) -> Result<u16, Failure> {
///     if text.is_empty() {
///         return Err(Failure::new("empty", "a port number is needed"));
///     }
///     Ok(text.parse()?)
/// }
/// assert_eq!(parse("").unwrap_err().code(), "empty");
/// assert_eq!(parse("x").unwrap_err().code(), "failed");
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Failure {
    // Boxed, because results of handlers are moved for every event and are failures seldom.
    said: Box<Said>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    code: Cow<'static, str>,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<Box<str>>,
    #[serde(skip)]
    for_good: bool,
}

impl Failure {
    /// A failure with a stable `code`, which programs compare, and a `message`, which people read.
    #[must_use]
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { said: Box::new(Said { code: code.into(), message: message.into(), detail: None, for_good: false }) }
    }

    /// A failure with the code `failed`.
    #[must_use]
    pub fn message(message: impl Into<String>) -> Self {
        Self::new("failed", message)
    }

    /// What a handler returns that took its reply along to answer later; the answer is what counts then.
    #[must_use]
    pub fn deferred() -> Self {
        Self::new("deferred", "answered later")
    }

    /// With more for people who look for the cause, as the traceback of an exception.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.said.detail = Some(detail.into());
        self
    }

    /// A failure to start that no other attempt would mend: when `started` of a worker returns it, the worker is not restarted and
    /// its manager fails at once, for this reason. Anywhere else it means nothing.
    #[must_use]
    pub fn for_good(mut self) -> Self {
        self.said.for_good = true;
        self
    }

    /// Whether another attempt to start would be in vain.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        self.said.for_good
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.said.code
    }

    /// The text for people.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.said.message
    }

    /// More for people who look for the cause.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.said.detail.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.said.code, self.said.message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// `Failure` is no `std::error::Error` itself, or this conversion would overlap with `From<T> for T`.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors repeat their source in their own text.
            if !message.ends_with(&cause_text) {
                message.push_str(": ");
                message.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self::message(message)
    }
}
