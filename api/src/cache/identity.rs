//! Which requests are the same request.

use std::fmt;

use edri_events::{Body, CodecError, Encoding, Headers};
use ring::digest::{SHA256, digest};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// What two requests have in common that may have one answer: the event, all that a worker sees of it, and how the answer is
/// written. A digest that nobody can find a second request for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity([u8; 32]);

impl Identity {
    /// Of a request to `event` whose answer is wanted in `answer`.
    ///
    /// # Errors
    ///
    /// When the payload cannot be read.
    pub(super) fn of(event: &str, payload: &Body, headers: &Headers, answer: Encoding) -> Result<Self, CodecError> {
        let mut text = Vec::with_capacity(256);
        write_bytes(&mut text, event.as_bytes());
        text.push(u8::from(answer == Encoding::Json));
        text.extend_from_slice(&(headers.iter().count() as u64).to_le_bytes());
        for (name, value) in headers.iter() {
            write_bytes(&mut text, name.as_bytes());
            write_bytes(&mut text, value.as_bytes());
        }
        payload.encoding.read(&payload.bytes, Canonical(&mut text), "any value")?;
        Ok(Self::of_bytes(&text))
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let mut of = [0; 32];
        of.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(of)
    }

    #[cfg(test)]
    pub(super) fn number(number: u32) -> Self {
        Self::of_bytes(&number.to_le_bytes())
    }
}

/// Its length first, so that what follows is told apart from it.
fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Writes a value so that equal values have equal bytes, whichever way they came: maps in the order of their keys, each value
/// behind a letter for its kind. Values that a worker could tell apart have different bytes.
struct Canonical<'o>(&'o mut Vec<u8>);

impl Canonical<'_> {
    fn tagged(self, tag: u8, bytes: &[u8]) {
        self.0.push(tag);
        self.0.extend_from_slice(bytes);
    }

    fn text(self, tag: u8, bytes: &[u8]) {
        self.0.push(tag);
        write_bytes(self.0, bytes);
    }
}

impl<'de> DeserializeSeed<'de> for Canonical<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Canonical<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.tagged(b'n', &[]);
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        self.tagged(b'n', &[]);
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.tagged(b'b', &[u8::from(value)]);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.tagged(b'u', &value.to_le_bytes());
        Ok(())
    }

    /// What is not negative is the same number without a sign: MessagePack writes it either way.
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        match u64::try_from(value) {
            Ok(value) => self.tagged(b'u', &value.to_le_bytes()),
            Err(_) => self.tagged(b'i', &value.to_le_bytes()),
        }
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.tagged(b'f', &value.to_bits().to_le_bytes());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.text(b's', value.as_bytes());
        Ok(())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<(), E> {
        self.text(b'x', value);
        Ok(())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // A MessagePack extension: its number and its bytes.
        self.0.push(b'e');
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.push(b'[');
        while items.next_element_seed(Canonical(self.0))?.is_some() {}
        self.0.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut key = Vec::new();
        while map.next_key_seed(Canonical(&mut key))?.is_some() {
            let mut value = Vec::new();
            map.next_value_seed(Canonical(&mut value))?;
            entries.push((std::mem::take(&mut key), value));
        }
        entries.sort();
        if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(A::Error::custom("a field is given twice"));
        }
        self.0.push(b'{');
        for (key, value) in entries {
            write_bytes(self.0, &key);
            write_bytes(self.0, &value);
        }
        self.0.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn identity(body: &Body) -> Identity {
        Identity::of("a.b", body, &Headers::default(), Encoding::Json).expect("is read")
    }

    fn json_text(text: &str) -> Body {
        Body::new(Encoding::Json, text.as_bytes().to_vec())
    }

    #[test]
    fn the_order_of_fields_and_the_encoding_make_no_difference() {
        let one = identity(&json_text(r#"{"a": 1, "b": {"c": [true, null], "d": "x"}}"#));
        assert_eq!(one, identity(&json_text(r#"{"b":{"d":"x","c":[true,null]},"a":1}"#)));
        let value = json!({"b": {"d": "x", "c": [true, null]}, "a": 1});
        assert_eq!(one, identity(&Body::encode(Encoding::MessagePack, &value).expect("encodes")));
        // One byte with a sign, where the shortest form has none.
        let signed = Body::new(Encoding::MessagePack, &b"\x81\xa1a\xd0\x01"[..]);
        assert_eq!(identity(&json_text(r#"{"a":1}"#)), identity(&signed));
    }

    #[test]
    fn whatever_a_worker_could_see_makes_a_difference() {
        let payload = json_text(r#"{"a":1}"#);
        let mut headers = Headers::default();
        headers.insert(Headers::CALLER, "ann").expect("fits");
        let all = [
            Identity::of("a.b", &payload, &Headers::default(), Encoding::Json),
            Identity::of("a.c", &payload, &Headers::default(), Encoding::Json),
            Identity::of("a.b", &payload, &headers, Encoding::Json),
            Identity::of("a.b", &payload, &Headers::default(), Encoding::MessagePack),
            Identity::of("a.b", &json_text(r#"{"a":1.0}"#), &Headers::default(), Encoding::Json),
            Identity::of("a.b", &json_text(r#"{"a":"1"}"#), &Headers::default(), Encoding::Json),
            Identity::of("a.b", &json_text(r#"{"a":[1]}"#), &Headers::default(), Encoding::Json),
            Identity::of(
                "a.b",
                &Body::new(Encoding::MessagePack, &b"\x81\xa1a\xc4\x01\x01"[..]),
                &Headers::default(),
                Encoding::Json,
            ),
        ];
        let mut all: Vec<_> = all.into_iter().map(|one| one.expect("is read")).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn what_cannot_be_read_has_no_identity() {
        for wrong in ["{", "{\"a\":1}2", "{\"a\":1,\"a\":2}", ""] {
            assert!(Identity::of("a.b", &json_text(wrong), &Headers::default(), Encoding::Json).is_err(), "{wrong}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (0..3_u64).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[ab]{0,2}", inner, 0..3).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        /// Of values of JSON, those are equal that have the same identity.
        #[test]
        fn equal_payloads_and_no_others_are_the_same(one in any_json(), other in any_json()) {
            let bodies = |value: &Value| {
                let messagepack = Body::encode(Encoding::MessagePack, value).expect("encodes");
                (identity(&Body::from(value.clone())), identity(&messagepack))
            };
            let ((one_json, one_packed), (other_json, _)) = (bodies(&one), bodies(&other));
            prop_assert_eq!(one_json, one_packed);
            prop_assert_eq!(one == other, one_json == other_json);
        }
    }
}
