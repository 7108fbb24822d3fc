//! A payload as a plain value, to be looked at.

use std::fmt;

use edri_events::{Body, CodecError, Encoding};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeSeed};
use serde_json::{Map, Number, Value};

/// A payload as JSON has it.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) value: Value,
    /// How many values it is made of.
    pub(super) values: usize,
    /// How deep it nests.
    pub(super) depth: usize,
}

impl Plain {
    /// Reads a payload; one that is empty, or null, has no fields. Bytes are a list of as many zeros, for there are no rules about
    /// single ones.
    pub(super) fn read(body: &Body) -> Result<Self, CodecError> {
        let mut seen = Seen::default();
        let value = if body.bytes.is_empty() {
            Value::Null
        } else {
            let within = Within { seen: &mut seen, depth: 1 };
            match body.encoding {
                // Keeps the place of what is wrong.
                Encoding::Json => Encoding::Json.read(&body.bytes, within, "a payload")?,
                Encoding::MessagePack => Encoding::MessagePack.read(&body.bytes, within, "a payload")?,
            }
        };
        let value = if value.is_null() { Value::Object(Map::new()) } else { value };
        Ok(Self { value, values: seen.values, depth: seen.depth })
    }
}

#[derive(Debug, Default)]
struct Seen {
    values: usize,
    depth: usize,
}

/// Reads a value at this depth.
struct Within<'s> {
    seen: &'s mut Seen,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Within<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.seen.values += 1;
        self.seen.depth = self.seen.depth.max(self.depth);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Array(vec![Value::from(0_u8); bytes.len()]))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<Value, D::Error> {
        Err(D::Error::custom("MessagePack's extension types are not understood"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Within { seen: self.seen, depth: self.depth + 1 })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(Name(name)) = fields.next_key()? {
            map.insert(name, fields.next_value_seed(Within { seen: self.seen, depth: self.depth + 1 })?);
        }
        Ok(Value::Object(map))
    }
}

/// The name of a field. A number becomes the text that it is in JSON.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(name.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Name, E> {
                Ok(Name(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Name, E> {
                Ok(Name(number.to_string()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Name, E> {
                Ok(Name(value.to_string()))
            }
        }

        deserializer.deserialize_any(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_is_the_same_value_in_either_encoding() {
        let value = json!({"a": [1, -2, 1.5, null, true], "b": {"c": "text"}});
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let plain = Plain::read(&Body::encode(encoding, &value).expect("encodes")).expect("reads");
            assert_eq!((plain.value, plain.values, plain.depth), (value.clone(), 9, 3), "{encoding:?}");
        }
    }

    #[test]
    fn bytes_are_a_list_of_their_length_and_numbers_can_be_names() {
        let read = |bytes: &'static [u8]| Plain::read(&Body::new(Encoding::MessagePack, bytes));
        assert_eq!(read(b"\xc4\x02\x07\xff").expect("bytes").value, json!([0, 0]));
        assert_eq!(read(b"\x81\x05\x06").expect("a map").value, json!({"5": 6}));
        assert_eq!(read(b"").expect("nothing").value, json!({}));
        assert_eq!(read(b"\xc0").expect("null").value, json!({}));
        assert!(read(b"\x92\x06").is_err(), "half a value");
        assert!(read(b"\xd4\x01\x06").is_err(), "an extension");
    }
}
