//! The events of a namespace, as they travel: their names, and the shapes of what is asked and answered.
//!
//! Each namespace has its own events, `store.<namespace>.<verb>`. Their payloads are maps with the fields below; a value is
//! whatever it is, in its place in the map.

use std::borrow::Cow;
use std::time::Duration;

use edri_events::{Declaration, Descriptor, DescriptorRef, Kind, NameError, Schemas};
use schemars::{JsonSchema, Schema, SchemaGenerator, schema_for};
use serde::{Deserialize, Serialize};

use crate::limits::NAMESPACE_BYTES_MAX;

/// A verb of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Request: [`Get`] → [`Item`] or nothing.
    Get,
    /// Request: [`GetMany`] → a list with an [`Item`] or nothing for each key.
    GetMany,
    /// Request: [`Set`] → [`Written`].
    Set,
    /// Request: [`Delete`] → [`Deleted`].
    Delete,
    /// Request: [`Increment`] → [`Incremented`].
    Increment,
    /// Request: [`Append`] → [`Appended`].
    Append,
    /// Request: [`Swap`] → [`Written`].
    Swap,
    /// Request: [`List`] → [`Page`].
    List,
    /// Request: [`Count`] → the number.
    Count,
    /// Request: [`Transact`] → [`Transacted`].
    Transact,
    /// Tunnel: [`Watch`]; the store sends [`Change`]s.
    Watch,
    /// Notification: [`Changed`].
    Changed,
    /// Request: nothing → [`Claim`]. What stores ask each other.
    Claim,
}

/// All verbs, in the order in which they are declared.
pub const VERBS: [Verb; 13] = [
    Verb::Get,
    Verb::GetMany,
    Verb::Set,
    Verb::Delete,
    Verb::Increment,
    Verb::Append,
    Verb::Swap,
    Verb::List,
    Verb::Count,
    Verb::Transact,
    Verb::Watch,
    Verb::Changed,
    Verb::Claim,
];

impl Verb {
    /// The last segment of the event's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetMany => "get_many",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Increment => "increment",
            Self::Append => "append",
            Self::Swap => "swap",
            Self::List => "list",
            Self::Count => "count",
            Self::Transact => "transact",
            Self::Watch => "watch",
            Self::Changed => "changed",
            Self::Claim => "claim",
        }
    }

    /// The verb of this last segment.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "get" => Self::Get,
            "get_many" => Self::GetMany,
            "set" => Self::Set,
            "delete" => Self::Delete,
            "increment" => Self::Increment,
            "append" => Self::Append,
            "swap" => Self::Swap,
            "list" => Self::List,
            "count" => Self::Count,
            "transact" => Self::Transact,
            "watch" => Self::Watch,
            "changed" => Self::Changed,
            "claim" => Self::Claim,
            _ => return None,
        })
    }

    /// The event's kind.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Watch => Kind::Tunnel,
            Self::Changed => Kind::Notification,
            _ => Kind::Request,
        }
    }

    /// The name of the verb's event in a namespace.
    #[must_use]
    pub fn event(self, namespace: &str) -> String {
        format!("store.{namespace}.{}", self.as_str())
    }

    fn description(self) -> &'static str {
        match self {
            Self::Get => "The item of a key, or nothing.",
            Self::GetMany => "The items of several keys.",
            Self::Set => "Gives a key a value.",
            Self::Delete => "Takes a key out.",
            Self::Increment => "Adds to an integer.",
            Self::Append => "Adds an element to a list.",
            Self::Swap => "Gives a key a value if it has the one expected.",
            Self::List => "The items whose keys begin with a prefix, a page at a time, in the order of their keys.",
            Self::Count => "How many keys begin with a prefix.",
            Self::Transact => "Several operations at once, or none of them.",
            Self::Watch => "The items whose keys begin with a prefix, then every change of them.",
            Self::Changed => "An item has changed.",
            Self::Claim => "Who keeps the namespace.",
        }
    }

    /// What is asked and what is answered, where a value may be anything.
    fn schemas(self) -> Schemas {
        let (event, output) = match self {
            Self::Get => (schema_for!(Get), schema_for!(Option<Item<Anything>>)),
            Self::GetMany => (schema_for!(GetMany), schema_for!(Vec<Option<Item<Anything>>>)),
            Self::Set => (schema_for!(Set<Anything>), schema_for!(Written)),
            Self::Delete => (schema_for!(Delete), schema_for!(Deleted)),
            Self::Increment => (schema_for!(Increment), schema_for!(Incremented)),
            Self::Append => (schema_for!(Append<Anything>), schema_for!(Appended)),
            Self::Swap => (schema_for!(Swap<Anything>), schema_for!(Written)),
            Self::List => (schema_for!(List), schema_for!(Page<Anything>)),
            Self::Count => (schema_for!(Count), schema_for!(u64)),
            Self::Transact => (schema_for!(Transact<Anything>), schema_for!(Transacted)),
            Self::Claim => (schema_for!(()), schema_for!(Claim)),
            Self::Changed => return Schemas { event: schema_for!(Changed), ..Schemas::default() },
            Self::Watch => {
                let down = Some(schema_for!(Change<Anything>));
                return Schemas { event: schema_for!(Watch), output: Some(schema_for!(())), up: None, down };
            }
        };
        Schemas { event, output: Some(output), ..Schemas::default() }
    }

    fn declare(self, namespace: &str) -> Result<Declaration, NameError> {
        let declaration = Descriptor::declare(&self.event(namespace), self.kind())?
            .description(self.description())
            .schemas(self.schemas());
        Ok(match self {
            Self::Changed => declaration.key("key"),
            // The time-out of a tunnel would be one for being idle.
            Self::Watch => declaration,
            // A request has an id, so that a write that is sent again is not done again.
            _ => declaration.idempotent(),
        })
    }
}

/// The descriptors of all events of a namespace, for [`Bus::declare`](edri_router::Bus::declare).
///
/// # Errors
///
/// [`NamespaceError`] when `namespace` is no name of one.
pub fn descriptors(namespace: &str) -> Result<Vec<DescriptorRef>, NamespaceError> {
    check_namespace(namespace)?;
    let declared: Result<Vec<_>, _> = VERBS.into_iter().map(|verb| verb.declare(namespace)).collect();
    let declared = declared.map_err(|error| NamespaceError(namespace.to_owned(), error.to_string()))?;
    Ok(declared.into_iter().map(Declaration::build).collect())
}

/// The text is no name of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a namespace: {1}")]
pub struct NamespaceError(pub(crate) String, pub(crate) String);

/// Checks a namespace's name.
///
/// # Errors
///
/// [`NamespaceError`] when it is empty, too long, or has other characters than `a-z`, `0-9`, `_` and `-`.
pub fn check_namespace(name: &str) -> Result<(), NamespaceError> {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-');
    let wrong = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.len() > NAMESPACE_BYTES_MAX {
        format!("it is longer than {NAMESPACE_BYTES_MAX} bytes")
    } else if !name.bytes().all(fits) {
        "write lower-case letters, digits, `_` and `-`".to_owned()
    } else {
        return Ok(());
    };
    Err(NamespaceError(name.to_owned(), wrong))
}

/// Milliseconds, for the fields that end in `_ms`.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The schema of a value that may be anything.
pub(crate) struct Anything;

impl JsonSchema for Anything {
    fn schema_name() -> Cow<'static, str> {
        "Anything".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}

/// Asks for an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Get {
    /// Its key.
    pub key: String,
}

/// Asks for several items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GetMany {
    /// Their keys.
    pub keys: Vec<String>,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Item<T> {
    /// The key.
    pub key: String,
    /// The value.
    pub value: T,
    /// The version of the change that gave it this value. Every change of a namespace has a higher one than those before.
    pub version: u64,
    /// In how many milliseconds it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

/// Gives a key a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Set<T> {
    /// The key.
    pub key: String,
    /// The value.
    pub value: T,
    /// In how many milliseconds it expires; without, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// Only when the key is not there; otherwise the request fails with `exists`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    /// Only when the key's item has this version; otherwise the request fails with `version_mismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// The id of the request: sent again with the same one, it is not done again. By default that of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Written {
    /// The version of the change.
    pub version: u64,
}

/// Takes a key out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Delete {
    /// The key.
    pub key: String,
    /// Only when the key's item has this version; otherwise the request fails with `version_mismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// As in [`Set`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// What was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// Whether the key was there.
    pub existed: bool,
}

/// Adds to an integer. A key that is not there counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Increment {
    /// The key.
    pub key: String,
    /// How much to add; 1 when nothing is said.
    #[serde(default = "one")]
    pub by: i64,
    /// In how many milliseconds an item that is made by this expires. One that is there keeps its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// As in [`Set`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

fn one() -> i64 {
    1
}

/// The sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Incremented {
    /// What the key has now.
    pub value: i64,
    /// The version of the change.
    pub version: u64,
}

/// Adds an element to a list. A key that is not there counts as an empty one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Append<T> {
    /// The key.
    pub key: String,
    /// The element.
    pub value: T,
    /// In how many milliseconds an item that is made by this expires. One that is there keeps its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// As in [`Set`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// The list after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Appended {
    /// How many elements it has now.
    pub length: u64,
    /// The version of the change.
    pub version: u64,
}

/// Gives a key a value if it has the one expected, compared by their encoding; otherwise the request fails with
/// `value_mismatch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Swap<T> {
    /// The key.
    pub key: String,
    /// What it has to have; without, it must not be there.
    #[serde(default = "none::<T>", skip_serializing_if = "Option::is_none")]
    pub expected: Option<T>,
    /// What it is given.
    pub value: T,
    /// In how many milliseconds it expires; without, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// As in [`Set`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

fn none<T>() -> Option<T> {
    None
}

/// Asks for a page of items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct List {
    /// What their keys begin with.
    #[serde(default)]
    pub prefix: String,
    /// Only those after this key: [`Page::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most; 100 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// A page of items, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<Item<T>>,
    /// Where the next page begins; without, this is the last.
    #[serde(default = "none::<String>", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Asks how many keys there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// What they begin with.
    #[serde(default)]
    pub prefix: String,
}

/// Several operations at once: all of them when every condition holds, otherwise none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transact<T> {
    /// What has to hold; otherwise the request fails with `condition_failed`.
    #[serde(default = "Vec::<Condition>::new", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What is done, in this order.
    pub operations: Vec<Operation<T>>,
    /// As in [`Set`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Condition {
    /// The key.
    pub key: String,
    /// The version that its item has to have; without, the key must not be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// An operation of a transaction: the fields of the request of that name, without the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Operation<T> {
    /// As [`Set`].
    Set(Set<T>),
    /// As [`Delete`].
    Delete(Delete),
    /// As [`Increment`].
    Increment(Increment),
    /// As [`Append`].
    Append(Append<T>),
}

/// What came of a transaction: for each operation what it alone would have been answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transacted {
    /// One for each operation, in their order.
    pub results: Vec<Done>,
}

/// What came of one operation of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Done {
    /// Of an increment.
    Incremented(Incremented),
    /// Of an append.
    Appended(Appended),
    /// Of a set.
    Written(Written),
    /// Of a delete.
    Deleted(Deleted),
}

/// Asks for all items and then for every change of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Watch {
    /// What their keys begin with.
    #[serde(default)]
    pub prefix: String,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was there when the watch began.
    Is,
    /// All that was there when the watch began has been told; what follows are changes.
    Ready,
    /// It was given a value.
    Set,
    /// It was taken out.
    Deleted,
    /// Its time was over.
    Expired,
    /// It made room for another.
    Evicted,
}

impl What {
    /// As it travels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Is => "is",
            Self::Ready => "ready",
            Self::Set => "set",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
        }
    }
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change<T> {
    /// What happened.
    pub what: What,
    /// The key; empty for [`What::Ready`].
    pub key: String,
    /// The value, as far as it has one.
    #[serde(default = "none::<T>", skip_serializing_if = "Option::is_none")]
    pub value: Option<T>,
    /// The version of the change.
    pub version: u64,
    /// In how many milliseconds it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

/// An item has changed: published for every change, and kept when it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// The key.
    pub key: String,
    /// What happened to it.
    pub what: What,
    /// The version of the change.
    pub version: u64,
}

/// Who keeps a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// Its node.
    pub node: String,
    /// Its manager.
    pub manager: String,
    /// Since when, in milliseconds since 1970 by the clock of its node.
    pub since_ms: u64,
    /// Whether it has given the namespace up to one that claimed it earlier.
    pub given_up: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_verb_is_found_by_its_name_and_stands_in_its_place() {
        for (place, verb) in VERBS.into_iter().enumerate() {
            assert_eq!((Verb::parse(verb.as_str()), verb as usize), (Some(verb), place));
        }
        assert_eq!(Verb::parse("gets"), None);
    }

    #[test]
    fn every_event_says_what_it_is_asked_and_what_it_answers() {
        let schemas = |verb: Verb| serde_json::to_value(verb.schemas()).expect("JSON");
        for verb in VERBS {
            assert!(schemas(verb)["event"].is_object(), "{verb:?}");
        }
        let set = schemas(Verb::Set);
        assert_eq!(set["event"]["required"], json!(["key", "value"]));
        assert_eq!(set["event"]["properties"]["value"]["type"], json!(null), "anything");
        assert_eq!(set["output"]["properties"]["version"]["type"], "integer");
        assert_eq!(schemas(Verb::Increment)["event"]["required"], json!(["key"]));
    }
}
