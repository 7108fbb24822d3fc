//! What is wrong with a payload, field by field.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// The most fields that one refusal names.
pub const FIELD_ERRORS_MAX: usize = 64;
/// The longest name of a field, and the longest text about one, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// What is wrong with one field of a payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The way to the field, by the names that it has on the wire: `lines[2].amount`; empty for the whole.
    pub field: String,
    /// What is wrong with it, for people.
    pub message: String,
}

impl FieldError {
    /// This is wrong with that field.
    #[must_use]
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: cut(field.into()), message: cut(message.into()) }
    }
}

/// As long as it may be.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, message } = self;
        if field.is_empty() { f.write_str(message) } else { write!(f, "in `{field}`: {message}") }
    }
}

/// All that is wrong with a payload: at least one field, at most [`FIELD_ERRORS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(Arc<[FieldError]>);

impl Invalid {
    /// These fields are wrong; `None` when there are none. What is too many is left out.
    #[must_use]
    pub fn new(mut errors: Vec<FieldError>) -> Option<Self> {
        errors.truncate(FIELD_ERRORS_MAX);
        (!errors.is_empty()).then(|| Self(errors.into()))
    }

    /// Field by field.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.0
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
