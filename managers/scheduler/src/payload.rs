//! A payload of any shape inside another value.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use edri_events::{Body, CodecError, Encoding};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value whose shape is its event's affair. It stands in its place in the map around it, in whatever encoding that comes
/// in, and is kept as MessagePack; absent, it is nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

/// Nothing, as MessagePack writes it.
const NIL: &[u8] = &[0xc0];

impl Payload {
    /// The payload with this value.
    ///
    /// # Errors
    ///
    /// [`CodecError::Encode`] when it cannot be written.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, CodecError> {
        Encoding::MessagePack.encode(value).map(Self)
    }

    /// The payload of a body.
    ///
    /// # Errors
    ///
    /// [`CodecError`] when the body is malformed.
    pub fn from_body(body: Body) -> Result<Self, CodecError> {
        match body.encoding {
            Encoding::MessagePack => Ok(Self(body.bytes)),
            Encoding::Json => body.decode(),
        }
    }

    /// The payload as the body of an event.
    #[must_use]
    pub fn body(&self) -> Body {
        Body::new(Encoding::MessagePack, self.0.clone())
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        &*self.0 == NIL
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self(Bytes::from_static(NIL))
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut reader = rmp_serde::Deserializer::from_read_ref(&self.0[..]);
        serde_transcode::transcode(&mut reader, serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut written = Vec::new();
        let mut writer = rmp_serde::Serializer::new(&mut written).with_struct_map();
        serde_transcode::transcode(deserializer, &mut writer).map_err(serde::de::Error::custom)?;
        Ok(Self(written.into()))
    }
}

impl JsonSchema for Payload {
    fn schema_name() -> Cow<'static, str> {
        "Payload".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}
