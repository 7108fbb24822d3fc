//! Names: of events, nodes and managers, and the patterns that select events. Valid once constructed.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name of an event, node or manager, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// Why a text is not a valid name or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text, or one of its dot-separated segments, is empty.
    #[error("{what} {text:?} has an empty segment: write segments separated by single dots, like `quake.recorded`")]
    Empty {
        /// What was being named.
        what: &'static str,
        /// The text refused.
        text: String,
    },
    /// A character outside ASCII letters, digits, `_` and `-`.
    #[error("{what} {text:?} contains {character:?}: use ASCII letters, digits, `_` and `-` between dots")]
    Character {
        /// What was being named.
        what: &'static str,
        /// The text refused.
        text: String,
        /// The first offending character.
        character: char,
    },
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("{what} of {length} bytes is longer than the {NAME_BYTES_MAX} allowed")]
    Long {
        /// What was being named.
        what: &'static str,
        /// The length of the text, in bytes.
        length: usize,
    },
    /// `>` stands for the rest of a name, so it can only be a pattern's last segment.
    #[error("pattern {text:?} has `>` before its end: `>` stands for the rest of a name, so it comes last")]
    RestNotLast {
        /// The text refused.
        text: String,
    },
}

fn check(what: &'static str, text: &str, segment_ok: impl Fn(&str) -> bool) -> Result<(), NameError> {
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::Long { what, length: text.len() });
    }
    for segment in text.split('.') {
        if segment.is_empty() {
            return Err(NameError::Empty { what, text: text.to_owned() });
        }
        if segment_ok(segment) {
            continue;
        }
        let bad = segment.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')));
        if let Some(character) = bad {
            return Err(NameError::Character { what, text: text.to_owned(), character });
        }
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and makes a name of it.
            ///
            /// # Errors
            ///
            /// [`NameError`] says which rule the text breaks: segments of ASCII letters, digits, `_` and `-`, separated by
            /// single dots, [`NAME_BYTES_MAX`] bytes at most.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check($what, text, |_| false)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "maxLength": NAME_BYTES_MAX,
                    "pattern": r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$",
                })
            }
        }
    };
}

name!(
    /// The dotted name of an event, chosen by its author: `quake.recorded`. Never a Rust path.
    ///
    /// Names that begin with `edri.` belong to edri itself.
    EventName,
    "event name"
);
name!(
    /// The name of a node, unique in its cluster.
    NodeName,
    "node name"
);
name!(
    /// The name of a manager, unique on its node.
    ManagerName,
    "manager name"
);

/// Selects events by name: `*` stands for one segment, a last `>` for one or more remaining segments.
///
/// ```
/// use edri_events::Pattern;
/// let pattern = Pattern::new("quake.*")?;
/// assert!(pattern.matches("quake.recorded"));
/// assert!(!pattern.matches("quake.recorded.late"));
/// assert!(Pattern::new("quake.>")?.matches("quake.recorded.late"));
/// # Ok::<(), edri_events::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    text: Arc<str>,
    exact: bool,
}

impl Pattern {
    /// Checks `text` and makes a pattern of it. A plain name is a pattern that selects itself.
    ///
    /// # Errors
    ///
    /// [`NameError`] when a segment is neither a name's segment, nor `*`, nor a last `>`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check("pattern", text, |segment| matches!(segment, "*" | ">"))?;
        if text.split('.').rev().skip(1).any(|segment| segment == ">") {
            return Err(NameError::RestNotLast { text: text.to_owned() });
        }
        Ok(Self { text: text.into(), exact: !text.contains(['*', '>']) })
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern is a plain name.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Whether the pattern selects `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.exact {
            return *self.text == *name;
        }
        let mut segments = name.split('.');
        for wanted in self.text.split('.') {
            match (wanted, segments.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(segment)) if wanted == segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }

    /// Whether the pattern selects every name that `other` selects.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut others = other.text.split('.');
        for wanted in self.text.split('.') {
            match (wanted, others.next()) {
                (">", Some(_)) => return true,
                ("*", Some(segment)) if segment != ">" => {}
                (wanted, Some(segment)) if wanted == segment => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }
}

impl From<EventName> for Pattern {
    fn from(name: EventName) -> Self {
        Self { text: name.0, exact: true }
    }
}

impl std::str::FromStr for Pattern {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Pattern {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pattern".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "maxLength": NAME_BYTES_MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_dotted_segments_of_letters_digits_underscore_and_dash() {
        for good in ["a", "quake.recorded", "A-1.b_2", "x.y.z.1"] {
            assert_eq!(EventName::new(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "quake/recorded", "é", "a.*", "a.>", &"x".repeat(201)] {
            assert!(EventName::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_pattern_selects_what_its_segments_say() {
        let check = |pattern: &str, name: &str, expect: bool| {
            let pattern = Pattern::new(pattern).expect("valid pattern");
            assert_eq!(pattern.matches(name), expect, "{pattern} against {name}");
        };
        check("a.b", "a.b", true);
        check("a.b", "a.b.c", false);
        check("*.b", "a.b", true);
        check("*.b", "a.c", false);
        check("a.*", "a", false);
        check("a.*.c", "a.b.c", true);
        check("a.*.c", "a.b.b.c", false);
        check("a.>", "a", false);
        check("a.>", "a.b", true);
        check("a.>", "a.b.c", true);
        check(">", "a.b.c", true);
        check("*", "a.b", false);
    }

    #[test]
    fn a_pattern_covers_another_when_it_selects_all_of_its_names() {
        let all = |choices: &[&str], longest: usize| {
            let mut texts: Vec<String> = choices.iter().map(|&choice| choice.to_owned()).collect();
            for _ in 1..longest {
                let longer = texts.iter().flat_map(|text| choices.iter().map(move |choice| format!("{text}.{choice}")));
                texts = choices.iter().map(|&choice| choice.to_owned()).chain(longer).collect();
            }
            texts
        };
        // `c` stands for every segment that no pattern names.
        let names = all(&["a", "b", "c"], 4);
        let patterns: Vec<_> =
            all(&["a", "b", "*", ">"], 3).iter().filter_map(|pattern| Pattern::new(pattern).ok()).collect();
        assert!(patterns.len() > 40);
        for one in &patterns {
            for other in &patterns {
                let expect = names.iter().filter(|name| other.matches(name)).all(|name| one.matches(name));
                assert_eq!(one.covers(other), expect, "{one} covers {other}");
            }
        }
    }

    #[test]
    fn the_rest_wildcard_comes_last() {
        assert!(matches!(Pattern::new("a.>.b"), Err(NameError::RestNotLast { .. })));
        assert!(Pattern::new("a.b*").is_err());
    }
}
