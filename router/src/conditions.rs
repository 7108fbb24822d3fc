//! Conditions on the fields of a payload: what a subscriber from outside can say of the events it wants.
//!
//! ```text
//! {"magnitude": {"gte": 5}, "place.country": {"prefix": "C"}}
//!
//! fields  0: magnitude      [gte 5]         bit 0        tree  root ─ magnitude      field 0, bits 0
//!         1: place.country  [prefix "C"]    bit 1             └ place ─ country      field 1, bits 1
//! ```
//!
//! A payload is read once, from its first byte to its last, and nothing of it is built: the reader goes down the tree
//! beside the payload and notes in a bit for each test whether it holds.

mod form;
mod number;
mod read;
mod value;

use std::fmt;
use std::str::FromStr;

use edri_events::{CodecError, Encoding, Envelope};

use crate::limits::CONDITIONS_MAX;
use value::Test;

/// Conditions on the fields of a payload, all of which must hold. Read from their JSON or MessagePack form:
///
/// ```
/// # use edri_router::Conditions;
/// let conditions: Conditions =
///     r#"{"magnitude": {"gte": 5, "lt": 9}, "region": {"in": ["north", "south"]}, "place.country": {"prefix": "C"}}"#
///         .parse()?;
/// # Ok::<_, edri_router::ConditionsError>(())
/// ```
///
/// A name with dots leads into nested maps. What may be said of a field:
///
/// | operator | value | holds when the field |
/// |---|---|---|
/// | `eq`, `ne` | text, number, `true`, `false`, `null` | is this value, is anything else |
/// | `in` | a list of such | is one of them |
/// | `gt`, `gte`, `lt`, `lte` | number or text | is of the same kind and greater, ... |
/// | `prefix` | text | is a text that begins with it |
///
/// Numbers are compared by their exact value, whether integer or floating point, so `1` is `1.0`; a 32-bit float is the
/// number that its shortest decimal text says, in either encoding. Texts are ordered by Unicode code points. A field that is not there is as one that is
/// `null`: of the operators only `ne`, and `eq` and `in` with `null`, can hold for it. Lists and maps are equal to nothing. Of a field that a payload has twice, the last counts.
///
/// A payload that is a Rust value is encoded as MessagePack for this, once for all who ask.
#[derive(Clone)]
pub struct Conditions {
    /// Ordered by path.
    fields: Vec<Field>,
    tree: read::Tree,
}

/// What is said of one field.
#[derive(Clone, PartialEq)]
struct Field {
    path: Box<str>,
    /// At least one, each operator once, in the order of the operators.
    tests: Vec<Test>,
}

/// Why a text or value is no [`Conditions`]: names the field and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConditionsError(String);

impl ConditionsError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "invalid_conditions"
    }
}

impl Conditions {
    fn new(mut fields: Vec<Field>) -> Self {
        fields.sort_by(|a, b| a.path.cmp(&b.path));
        debug_assert!(fields.iter().map(|field| field.tests.len()).sum::<usize>() <= CONDITIONS_MAX);
        let tree = read::Tree::new(&fields);
        Self { fields, tree }
    }

    /// Whether nothing is asked of a payload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether all of them hold for the event's payload.
    ///
    /// # Errors
    ///
    /// [`CodecError`] when the payload cannot be encoded, or its bytes are malformed.
    pub fn hold(&self, envelope: &Envelope) -> Result<bool, CodecError> {
        if self.is_empty() {
            return Ok(true);
        }
        let body = envelope.body(Encoding::MessagePack)?;
        self.tree.read(body.encoding, &body.bytes, &self.fields)
    }
}

impl PartialEq for Conditions {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}

/// As they are written in JSON.
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conditions({self})")
    }
}

/// Reads their JSON form.
impl FromStr for Conditions {
    type Err = ConditionsError;

    fn from_str(text: &str) -> Result<Self, ConditionsError> {
        serde_json::from_str(text).map_err(|error| ConditionsError(error.to_string()))
    }
}

impl TryFrom<serde_json::Value> for Conditions {
    type Error = ConditionsError;

    fn try_from(value: serde_json::Value) -> Result<Self, ConditionsError> {
        serde_json::from_value(value).map_err(|error| ConditionsError(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
