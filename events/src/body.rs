//! Payloads without a Rust type, and values on their way back.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserializer, Serialize};

use crate::{CodecError, Data, Encoding};

/// Bytes of a value that are fewer are copied out of their body.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// An encoded payload: bytes and how they are written.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// The encoded value.
    pub bytes: Bytes,
    /// How it is written.
    pub encoding: Encoding,
}

impl Body {
    /// The body made of these bytes.
    #[must_use]
    pub fn new(encoding: Encoding, bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), encoding }
    }

    /// Encodes `value`.
    ///
    /// # Errors
    ///
    /// [`CodecError::Encode`] when the value cannot be written in this encoding.
    pub fn encode<T: Serialize + ?Sized>(encoding: Encoding, value: &T) -> Result<Self, CodecError> {
        Ok(Self { bytes: encoding.encode(value)?, encoding })
    }

    /// Reads the body as a `T`, as [`Encoding::decode`] does.
    ///
    /// # Errors
    ///
    /// [`CodecError::Decode`] when it is not one.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        self.encoding.decode(&self.bytes)
    }

    /// As [`Body::decode`], but long bytes that are all of the value, taken as [`Bytes`], are not copied: they share the
    /// memory of the body. Short ones are copied still, since they would keep all that they came with.
    ///
    /// # Errors
    ///
    /// As [`Body::decode`].
    pub fn take<T: DeserializeOwned + 'static>(self) -> Result<T, CodecError> {
        let mut taken: Option<T> = None;
        if let Some(bytes) = (&mut taken as &mut dyn Any).downcast_mut::<Option<Bytes>>() {
            *bytes = self.long_binary();
        }
        taken.map_or_else(|| self.decode(), Ok)
    }

    /// The bytes that the value is, if it is [`SHARED_BYTES_MIN`] of them at least.
    fn long_binary(&self) -> Option<Bytes> {
        if self.encoding != Encoding::MessagePack {
            return None;
        }
        // <https://github.com/msgpack/msgpack/blob/master/spec.md#bin-format-family>
        let (start, bytes) = match *self.bytes.first_chunk()? {
            [0xc5, a, b, _, _] => (3, usize::from(u16::from_be_bytes([a, b]))),
            [0xc6, a, b, c, d] => (5, u32::from_be_bytes([a, b, c, d]) as usize),
            _ => return None,
        };
        (bytes >= SHARED_BYTES_MIN && self.bytes.len() - start == bytes).then(|| self.bytes.slice(start..))
    }

    /// The same value in another encoding; the body itself when it is in that one already.
    ///
    /// # Errors
    ///
    /// [`CodecError`] when the body is malformed, or has a map in it whose keys are no texts in JSON. Bytes become a list of
    /// numbers there, and a float that is not finite null.
    pub fn transcode(self, encoding: Encoding) -> Result<Self, CodecError> {
        if self.encoding == encoding {
            return Ok(self);
        }
        let bytes = self.encoding.read(&self.bytes, Transcoded(encoding), "any value")?;
        Ok(Self::new(encoding, bytes))
    }

    /// The text of the field `name`, if the body is a map that has it and its value can be a key: a text, an integer or
    /// a boolean.
    ///
    /// # Errors
    ///
    /// [`CodecError::Decode`] when the body is malformed up to that field.
    pub fn key_field(&self, name: &str) -> Result<Option<String>, CodecError> {
        let fail = |source: Arc<dyn std::error::Error + Send + Sync>| CodecError::Decode {
            type_name: "the event's key",
            encoding: self.encoding,
            source,
        };
        let find = FindField { name };
        match self.encoding {
            Encoding::MessagePack => {
                let mut reader = rmp_serde::Deserializer::from_read_ref(&self.bytes[..]);
                find.deserialize(&mut reader).map_err(|e| fail(Arc::new(e)))
            }
            Encoding::Json => {
                let mut reader = serde_json::Deserializer::from_slice(&self.bytes);
                find.deserialize(&mut reader).map_err(|e| fail(Arc::new(e)))
            }
        }
    }
}

/// What is read, written in this encoding as it comes.
struct Transcoded(Encoding);

impl<'de> DeserializeSeed<'de> for Transcoded {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let mut bytes = Vec::new();
        match self.0 {
            Encoding::Json => {
                let mut writer = serde_json::Serializer::new(&mut bytes);
                serde_transcode::transcode(deserializer, &mut writer).map_err(serde::de::Error::custom)?;
            }
            Encoding::MessagePack => {
                let mut writer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
                serde_transcode::transcode(deserializer, &mut writer).map_err(serde::de::Error::custom)?;
            }
        }
        Ok(bytes)
    }
}

impl From<serde_json::Value> for Body {
    fn from(value: serde_json::Value) -> Self {
        Self { bytes: value.to_string().into(), encoding: Encoding::Json }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encoding {
            Encoding::Json => write!(f, "{}", String::from_utf8_lossy(&self.bytes)),
            Encoding::MessagePack => write!(f, "MessagePack({} bytes)", self.bytes.len()),
        }
    }
}

/// Looks one field of a map up without building the others.
struct FindField<'a> {
    name: &'a str,
}

impl<'de> DeserializeSeed<'de> for FindField<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FindField<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map with the field `{}`", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(field) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if field == self.name {
                found = map.next_value_seed(KeyText)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Reads a value that can be a key as its canonical text.
struct KeyText;

impl<'de> DeserializeSeed<'de> for KeyText {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for KeyText {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, an integer or a boolean")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A value on its way back to a requester: still typed, or encoded when it crossed a boundary.
pub struct Value(Inner);

enum Inner {
    Typed(Box<dyn Erased>),
    Encoded(Body),
}

/// A typed value that can still be encoded.
trait Erased: Any + Send + Sync {
    fn encode(&self, encoding: Encoding) -> Result<Body, CodecError>;
    fn type_name(&self) -> &'static str;
}

impl<T: Data> Erased for T {
    fn encode(&self, encoding: Encoding) -> Result<Body, CodecError> {
        Ok(Body { bytes: Data::encode(self, encoding)?, encoding })
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }
}

impl Value {
    /// A typed value; nothing is encoded. A zero-sized one is not even allocated.
    #[must_use]
    pub fn typed<T: Data>(value: T) -> Self {
        Self(Inner::Typed(Box::new(value)))
    }

    /// Takes the value out as a `T`, decoding it if it came as bytes.
    ///
    /// # Errors
    ///
    /// [`CodecError::Type`] when it is another Rust type, [`CodecError::Decode`] when the bytes are not a `T`.
    pub fn take<T: Data>(self) -> Result<T, CodecError> {
        match self.0 {
            Inner::Typed(value) => {
                let found = (*value).type_name();
                match (value as Box<dyn Any>).downcast::<T>() {
                    Ok(value) => Ok(*value),
                    Err(_) => Err(CodecError::Type { wanted: std::any::type_name::<T>(), found }),
                }
            }
            Inner::Encoded(body) => T::decode(body.encoding, &body.bytes),
        }
    }

    /// As [`Value::take`], but a value of another Rust type is encoded and read as a `T`: for answers to events that were declared
    /// at run time, where either side may have a type of its own.
    ///
    /// # Errors
    ///
    /// [`CodecError`] when it cannot be written, or is not a `T`.
    pub fn read<T: Data>(self) -> Result<T, CodecError> {
        let encoded = match self.0 {
            Inner::Typed(value) if (*value).type_id() == TypeId::of::<T>() => return Self(Inner::Typed(value)).take(),
            Inner::Typed(value) => (*value).encode(Encoding::MessagePack)?,
            Inner::Encoded(body) => body,
        };
        T::decode(encoded.encoding, &encoded.bytes)
    }

    /// The value as bytes, in `encoding` unless it is encoded already.
    ///
    /// # Errors
    ///
    /// [`CodecError::Encode`] when the value cannot be written in this encoding.
    pub fn into_body(self, encoding: Encoding) -> Result<Body, CodecError> {
        match self.0 {
            Inner::Typed(value) => (*value).encode(encoding),
            Inner::Encoded(body) => Ok(body),
        }
    }
}

impl From<Body> for Value {
    fn from(body: Body) -> Self {
        Self(Inner::Encoded(body))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Typed(value) => write!(f, "Value({})", (**value).type_name()),
            Inner::Encoded(body) => write!(f, "Value({body:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_bytes_are_taken_without_a_copy_and_all_else_is_decoded() {
        for length in [0, 1, 300, SHARED_BYTES_MIN - 1, SHARED_BYTES_MIN, 70_000] {
            let value = Bytes::from(vec![7; length]);
            for encoding in [Encoding::Json, Encoding::MessagePack] {
                let body = Body::encode(encoding, &value).expect("encodes");
                let memory = body.bytes.as_ptr_range();
                let taken: Bytes = body.take().expect("decodes");
                assert_eq!(taken, value);
                let shared = length >= SHARED_BYTES_MIN && encoding == Encoding::MessagePack;
                assert_eq!(length > 0 && memory.contains(&taken.as_ptr()), shared, "{length} {encoding:?}");
            }
        }
        let mut longer = Encoding::MessagePack.encode(&Bytes::from(vec![7; 70_000])).expect("encodes").to_vec();
        longer.push(7);
        let taken = Body::new(Encoding::MessagePack, longer.clone()).take::<Bytes>();
        assert!(matches!(taken, Err(CodecError::Decode { .. })));
        longer.truncate(60_000);
        let taken = Body::new(Encoding::MessagePack, longer).take::<Bytes>();
        assert!(matches!(taken, Err(CodecError::Decode { .. })));
        let list: Vec<u8> =
            Body::encode(Encoding::MessagePack, &vec![1_u8, 2]).expect("encodes").take().expect("decodes");
        assert_eq!(list, [1, 2]);
    }

    #[test]
    fn a_key_is_found_in_either_encoding() {
        let check = |value: serde_json::Value, expect: Option<&str>| {
            for encoding in [Encoding::Json, Encoding::MessagePack] {
                let body = Body::encode(encoding, &value).expect("encodes");
                assert_eq!(body.key_field("k").expect("a map").as_deref(), expect, "{value}");
            }
        };
        check(json!({"a": [1, {"k": 2}], "k": "x"}), Some("x"));
        check(json!({"k": 7}), Some("7"));
        check(json!({"k": -7}), Some("-7"));
        check(json!({"k": true}), Some("true"));
        check(json!({"k": null}), None);
        check(json!({"a": 1}), None);
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        for value in [json!([1]), json!({"k": 1.5}), json!({"k": {}}), json!("k")] {
            assert!(Body::from(value.clone()).key_field("k").is_err(), "{value}");
        }
    }

    #[test]
    fn a_body_is_the_same_value_in_the_other_encoding() {
        let value = json!({"a": [1, -2, 1.5, null, true], "b": "text"});
        let body = Body::from(value.clone());
        let there = body.clone().transcode(Encoding::MessagePack).expect("has a place");
        assert_eq!(there.decode::<serde_json::Value>().expect("decodes"), value);
        assert_eq!(there.transcode(Encoding::Json).expect("has a place"), body);
        let there = |bytes: &'static [u8]| {
            let there = Body::new(Encoding::MessagePack, bytes).transcode(Encoding::Json);
            there.map(|body| String::from_utf8_lossy(&body.bytes).into_owned())
        };
        assert_eq!(there(b"\xc4\x02\x00\xff").expect("bytes are a list"), "[0,255]");
        assert_eq!(there(b"\xcb\x7f\xf0\0\0\0\0\0\0").expect("not finite"), "null");
        assert_eq!(there(b"\x81\x05\x06").expect("a key that is a number"), r#"{"5":6}"#);
        assert!(there(b"\x81\x91\x05\x06").is_err(), "a key that is a list");
        assert!(there(b"\x05\x06").is_err(), "two values");
        assert!(there(b"\x92\x06").is_err(), "half a value");
    }

    #[test]
    fn a_value_comes_back_as_the_type_it_was_and_no_other() {
        assert_eq!(Value::typed(7_u32).take::<u32>().expect("is a u32"), 7);
        assert!(matches!(Value::typed(7_u32).take::<u64>(), Err(CodecError::Type { .. })));
        let body = Value::typed("a".to_owned()).into_body(Encoding::MessagePack).expect("encodes");
        assert_eq!(Value::from(body).take::<String>().expect("is a text"), "a");
        assert_eq!(Value::typed(7_u32).read::<u32>().expect("is a u32"), 7);
        assert_eq!(Value::typed(7_u32).read::<u64>().expect("is written as one"), 7);
        assert!(matches!(Value::typed(7_u32).read::<String>(), Err(CodecError::Decode { .. })));
    }
}
