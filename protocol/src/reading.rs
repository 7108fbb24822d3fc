//! How fields are read: a null is a field that is missing, a frame's fields come as a map and nothing else, and lists and
//! maps are refused once they have grown beyond their limit.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::Schema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::frame::{FieldFault, Handler};
use crate::{DeclaredSchemas, EventDeclaration, Text, limits};

/// Reads a null as the default value.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a struct from a map, where serde alone would also take a list of its fields in their order.
pub(crate) struct Fields<T>(PhantomData<T>);

impl<T> Fields<T> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Fields<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of the frame's fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

struct List<T> {
    max: usize,
    what: &'static str,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} {}", self.max, self.what)
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            if list.len() == self.max {
                return Err(too_many(self.max, self.what));
            }
            list.push(item);
        }
        Ok(list)
    }
}

struct Map<K, V> {
    max: usize,
    what: &'static str,
    of: PhantomData<(K, V)>,
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Map<K, V> {
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of at most {} {}", self.max, self.what)
    }

    fn visit_unit<E>(self) -> Result<BTreeMap<K, V>, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<BTreeMap<K, V>, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry()? {
            map.insert(key, value);
            if map.len() > self.max {
                return Err(too_many(self.max, self.what));
            }
        }
        Ok(map)
    }
}

// `deserialize_any` where `deserialize_seq` would take a byte string for a list, and no null.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    max: usize,
    what: &'static str,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(List { max, what, of: PhantomData })
}

/// Reads a list of declarations that is no longer and no deeper than a frame may have; for `deserialize_with`.
///
/// # Errors
///
/// The deserializer's, when it finds anything else.
pub fn events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<EventDeclaration>, D::Error> {
    struct Events;

    impl<'de> Visitor<'de> for Events {
        type Value = Vec<EventDeclaration>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of declarations of events")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let (mut events, mut values) = (Vec::new(), 0);
            while let Some(event) = seq.next_element::<EventDeclaration>()? {
                values += event.schemas.as_ref().map_or(0, DeclaredSchemas::values);
                if values > limits::SCHEMAS_VALUES_MAX {
                    return Err(too_many(limits::SCHEMAS_VALUES_MAX, "values in all schemas"));
                }
                if events.len() == limits::EVENTS_MAX {
                    return Err(too_many(limits::EVENTS_MAX, "events"));
                }
                events.push(event);
            }
            Ok(events)
        }
    }

    deserializer.deserialize_any(Events)
}

/// Reads a schema of not too many values: a value of one byte takes dozens in memory.
pub(crate) fn schema<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Schema>, D::Error> {
    match (Counted { left: &Cell::new(limits::SCHEMA_VALUES_MAX) }).deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => Schema::try_from(value).map(Some).map_err(D::Error::custom),
    }
}

/// Reads any value, while values are left.
#[derive(Clone, Copy)]
struct Counted<'c> {
    left: &'c Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(too_many(limits::SCHEMA_VALUES_MAX, "values in a schema")),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON Schema")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = serde_json::Map::new();
        while let Some(key) = entries.next_key()? {
            map.insert(key, entries.next_value_seed(self)?);
        }
        Ok(map.into())
    }
}

fn too_many<E: Error>(max: usize, what: &str) -> E {
    E::custom(format_args!("more than {max} {what}"))
}

pub(crate) fn handlers<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Handler<'a>>, D::Error> {
    list(deserializer, limits::HANDLERS_MAX, "handlers")
}

pub(crate) fn routes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, edri_events::ROUTES_MAX, "routes")
}

pub(crate) fn stale_on<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, edri_events::STALE_ON_MAX, "notifications")
}

/// A text of at most [`limits::SHORT_TEXT_MAX`] bytes.
pub(crate) fn short_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    match text {
        Some(text) if text.len() > limits::SHORT_TEXT_MAX => {
            Err(Error::custom(format_args!("a text of more than {} bytes", limits::SHORT_TEXT_MAX)))
        }
        text => Ok(text),
    }
}

pub(crate) fn sources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_any(Map { max: limits::SOURCES_MAX, what: "fields", of: PhantomData })
}

pub(crate) fn acks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    list(deserializer, limits::ACKS_MAX, "numbers")
}

pub(crate) fn texts<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Text<'a>>, D::Error> {
    list(deserializer, limits::WAITS_MAX, "names")
}

pub(crate) fn field_faults<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<FieldFault<'a>>, D::Error> {
    list(deserializer, limits::FIELD_FAULTS_MAX, "fields")
}

pub(crate) fn headers<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Text<'a>, Text<'a>>, D::Error> {
    deserializer.deserialize_any(Map { max: limits::HEADERS_MAX, what: "headers", of: PhantomData })
}

pub(crate) fn figures<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Text<'a>, f64>, D::Error> {
    /// JSON has a null for what is not finite.
    #[derive(Deserialize)]
    struct Figure(Option<f64>);

    let figures: BTreeMap<_, Figure> =
        deserializer.deserialize_any(Map { max: limits::FIGURES_MAX, what: "figures", of: PhantomData })?;
    Ok(figures.into_iter().map(|(name, Figure(figure))| (name, figure.unwrap_or(f64::NAN))).collect())
}
