//! A value of any shape, as MessagePack can have it: more than JSON has a place for.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Number, Value};

/// A value of any shape. Maps keep their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Any {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Any>),
    Map(Vec<(Any, Any)>),
}

impl Any {
    /// The same value in JSON; `None` when there is something in it that JSON has no place for.
    pub(super) fn to_json(&self) -> Option<Value> {
        Some(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Signed(value) => (*value).into(),
            Self::Unsigned(value) => (*value).into(),
            Self::Float(value) => Value::Number(Number::from_f64(*value)?),
            Self::Text(value) => Value::String(value.clone()),
            Self::Bytes(_) => return None,
            Self::List(items) => Value::Array(items.iter().map(Self::to_json).collect::<Option<_>>()?),
            Self::Map(fields) => {
                let field = |(name, value): &(Self, Self)| match name {
                    Self::Text(name) => Some((name.clone(), value.to_json()?)),
                    _ => None,
                };
                let map: Map<_, _> = fields.iter().map(field).collect::<Option<_>>()?;
                // Of two fields of one name JSON would keep one.
                return (map.len() == fields.len()).then_some(Value::Object(map));
            }
        })
    }

    /// The value in JSON for people: what JSON has no place for is told as a text.
    pub(super) fn shown(&self) -> Value {
        match self {
            Self::Float(value) if !value.is_finite() => Value::String(value.to_string()),
            Self::Bytes(bytes) => Value::String(format!("<{} bytes>", bytes.len())),
            Self::List(items) => items.iter().map(Self::shown).collect(),
            Self::Map(fields) => fields.iter().map(|(name, value)| (name.name(), value.shown())).collect(),
            plain => plain.to_json().unwrap_or_default(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Text(name) => name.clone(),
            other => other.shown().to_string(),
        }
    }
}

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Bytes(value) => serializer.serialize_bytes(value),
            Self::List(items) => items.serialize(serializer),
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Any;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Any, E> {
        Ok(Any::Null)
    }
    fn visit_none<E>(self) -> Result<Any, E> {
        Ok(Any::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Any, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Any, E> {
        Ok(Any::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Any, E> {
        Ok(Any::Signed(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Any, E> {
        Ok(Any::Unsigned(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Any, E> {
        Ok(Any::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Any, E> {
        Ok(Any::Text(value.to_owned()))
    }
    fn visit_bytes<E>(self, value: &[u8]) -> Result<Any, E> {
        Ok(Any::Bytes(value.to_vec()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Any, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Any::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Any, A::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        Ok(Any::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use edri::{Body, Encoding};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_messagepack_can_have_is_kept_and_what_json_has_no_place_for_is_known() {
        let plain = Any::Map(vec![
            (Any::Text("a".to_owned()), Any::List(vec![Any::Null, Any::Bool(true), Any::Signed(-3), Any::Unsigned(7)])),
            (Any::Text("b".to_owned()), Any::Float(0.5)),
        ]);
        let bytes = Any::Map(vec![(Any::Unsigned(1), Any::Bytes(vec![0, 255]))]);
        for value in [&plain, &bytes] {
            let body = Body::encode(Encoding::MessagePack, value).expect("encodes");
            assert_eq!(&body.decode::<Any>().expect("decodes"), value);
        }
        assert_eq!(plain.to_json(), Some(json!({"a": [null, true, -3, 7], "b": 0.5})));
        assert_eq!(bytes.to_json(), None);
        assert_eq!(bytes.shown(), json!({"1": "<2 bytes>"}));
        assert_eq!(Any::Float(f64::NAN).to_json(), None);
    }
}
