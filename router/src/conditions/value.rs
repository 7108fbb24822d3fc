//! One test of one field.

use std::cmp::Ordering;

use super::number::Number;

/// What a field is compared with. Never a number that is none, or infinite.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(Box<str>),
}

/// What a payload has in a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(&'a str),
    /// A list, a map or bytes.
    Other,
}

impl Value {
    pub(super) fn as_found(&self) -> Found<'_> {
        match self {
            Self::Null => Found::Null,
            Self::Bool(value) => Found::Bool(*value),
            Self::Number(number) => Found::Number(*number),
            Self::Text(text) => Found::Text(text),
        }
    }

    /// Kinds first, values of one kind by their own order; so that a list can be searched.
    pub(super) fn against(&self, found: Found<'_>) -> Option<Ordering> {
        match (self, found) {
            (Self::Null, Found::Null) => Some(Ordering::Equal),
            (Self::Bool(a), Found::Bool(b)) => Some(a.cmp(&b)),
            (Self::Number(a), Found::Number(b)) => a.compare(b),
            // UTF-8 keeps the order of code points.
            (Self::Text(a), Found::Text(b)) => Some((**a).cmp(b)),
            (_, Found::Other) => None,
            _ => Some(self.as_found().rank().cmp(&found.rank())),
        }
    }

    fn is(&self, found: Found<'_>) -> bool {
        self.against(found) == Some(Ordering::Equal)
    }

    /// How the field stands to this value, when the two can be ordered.
    fn order_of(&self, found: Found<'_>) -> Option<Ordering> {
        let alike = matches!((self, found), (Self::Number(_), Found::Number(_)) | (Self::Text(_), Found::Text(_)));
        if alike { self.against(found).map(Ordering::reverse) } else { None }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.as_found())
    }
}

impl Found<'_> {
    fn rank(self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
            Self::Other => 4,
        }
    }
}

/// One operator and what the field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    Eq(Value),
    Ne(Value),
    /// Ordered, each once.
    In(Vec<Value>),
    Gt(Value),
    Gte(Value),
    Lt(Value),
    Lte(Value),
    Prefix(Box<str>),
}

impl Test {
    pub(super) fn holds(&self, found: Found<'_>) -> bool {
        match self {
            Self::Eq(value) => value.is(found),
            Self::Ne(value) => !value.is(found),
            Self::In(values) => is_among(values, found),
            Self::Gt(value) => value.order_of(found).is_some_and(Ordering::is_gt),
            Self::Gte(value) => value.order_of(found).is_some_and(Ordering::is_ge),
            Self::Lt(value) => value.order_of(found).is_some_and(Ordering::is_lt),
            Self::Lte(value) => value.order_of(found).is_some_and(Ordering::is_le),
            Self::Prefix(start) => matches!(found, Found::Text(text) if text.starts_with(&**start)),
        }
    }
}

fn is_among(values: &[Value], found: Found<'_>) -> bool {
    // What cannot be ordered, a list or what is not a number, is equal to nothing, wherever the search ends.
    values.binary_search_by(|value| value.against(found).unwrap_or(Ordering::Less)).is_ok()
}
