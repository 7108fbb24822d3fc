use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use edri_events::{Body, Encoding};
use serde::de::{Error as _, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A payload in the encoding of its frame. In a MessagePack frame it is a byte string that holds the payload's own
/// MessagePack; in a JSON frame it is the JSON value itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload<'a> {
    encoding: Encoding,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Payload<'a> {
    /// The payload of these bytes. It can only be written in a frame of the same encoding.
    #[must_use]
    pub fn new(encoding: Encoding, bytes: &'a [u8]) -> Self {
        Self { encoding, bytes: Cow::Borrowed(bytes) }
    }

    /// The payload of this body. It can only be written in a frame of the same encoding.
    #[must_use]
    pub fn of(body: &'a Body) -> Self {
        Self::new(body.encoding, &body.bytes)
    }

    /// The payload's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How the bytes are encoded.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The payload as a body that shares the memory of `frame`, the bytes that it was read from.
    #[must_use]
    pub fn to_body(&self, frame: &Bytes) -> Body {
        let bytes = match &self.bytes {
            Cow::Borrowed(bytes) if is_within(bytes, frame) => frame.slice_ref(bytes),
            bytes => Bytes::copy_from_slice(bytes),
        };
        Body { bytes, encoding: self.encoding }
    }
}

/// The MessagePack of null.
const NIL: &[u8] = &[0xc0];

fn is_within(bytes: &[u8], frame: &Bytes) -> bool {
    let (inner, outer) = (bytes.as_ptr_range(), frame.as_ptr_range());
    outer.start <= inner.start && inner.end <= outer.end
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encoding {
            Encoding::Json => f.write_str(&String::from_utf8_lossy(&self.bytes)),
            Encoding::MessagePack => write!(f, "MessagePack({} bytes)", self.bytes.len()),
        }
    }
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.encoding, serializer.is_human_readable()) {
            (Encoding::MessagePack, false) => serializer.serialize_bytes(&self.bytes),
            (Encoding::Json, true) => {
                serde_json::from_slice::<&RawValue>(&self.bytes).map_err(S::Error::custom)?.serialize(serializer)
            }
            (encoding, _) => Err(S::Error::custom(format!("the payload is {encoding:?}, the frame is not"))),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Payload<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;

        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = Payload<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string that holds the payload's MessagePack")
            }

            fn visit_borrowed_bytes<E: serde::de::Error>(self, bytes: &'de [u8]) -> Result<Payload<'de>, E> {
                Ok(Payload::new(Encoding::MessagePack, bytes))
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Payload<'de>, E> {
                Ok(Payload::new(Encoding::MessagePack, NIL))
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Payload<'de>, E> {
                Ok(Payload { encoding: Encoding::MessagePack, bytes: Cow::Owned(bytes.to_vec()) })
            }
        }

        if deserializer.is_human_readable() {
            let raw = <&RawValue>::deserialize(deserializer)?;
            // An empty raw value cannot be read, so it cannot have been written either.
            if raw.get().is_empty() {
                return Err(D::Error::custom("an empty payload"));
            }
            Ok(Payload::new(Encoding::Json, raw.get().as_bytes()))
        } else {
            deserializer.deserialize_bytes(BytesVisitor)
        }
    }
}
