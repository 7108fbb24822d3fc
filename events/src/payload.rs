//! What an event carries, whatever it is.

use std::any::Any;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::{Body, CodecError, Data, Encoding, Event};

/// What an envelope carries: a typed event, a value of an event that was declared at run time, or the encoded [`Body`] of either.
pub trait Payload: Any + Send + Sync {
    /// Writes the payload.
    ///
    /// # Errors
    ///
    /// [`CodecError::Encode`] when it cannot be written in this encoding.
    fn encode(&self, encoding: Encoding) -> Result<Bytes, CodecError>;

    /// As [`Payload::encode`], but appends to `out`.
    ///
    /// # Errors
    ///
    /// As [`Payload::encode`].
    fn encode_to(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Shows the payload's key to `visit`, if it has one.
    fn visit_key(&self, visit: &mut dyn FnMut(&str));

    /// The name of the payload's Rust type.
    fn type_name(&self) -> &'static str;

    /// Where the payload is kept as the event's Rust type, once somebody has asked for that and it is not one itself.
    #[doc(hidden)]
    fn decoded(&self) -> Option<&Decoded> {
        None
    }
}

impl<E: Event> Payload for E {
    fn encode(&self, encoding: Encoding) -> Result<Bytes, CodecError> {
        encoding.encode(self)
    }

    fn encode_to(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), CodecError> {
        encoding.encode_to(self, out)
    }

    fn visit_key(&self, visit: &mut dyn FnMut(&str)) {
        Event::visit_key(self, visit);
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<E>()
    }
}

/// A payload as its event's Rust type, made when somebody asks for it.
pub(crate) type Decoded = OnceLock<Box<dyn Any + Send + Sync>>;

/// A payload that came as bytes, decoded at most once however many groups want the Rust type.
pub(crate) struct Encoded {
    pub(crate) body: Body,
    pub(crate) decoded: Decoded,
}

impl Payload for Encoded {
    fn encode(&self, encoding: Encoding) -> Result<Bytes, CodecError> {
        if encoding == self.body.encoding {
            return Ok(self.body.bytes.clone());
        }
        // Bytes and integers beyond 64 bits have no place in JSON's data model; they fail here with the codec's words.
        encoding.encode(&self.body.decode::<serde_json::Value>()?)
    }

    fn encode_to(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&self.encode(encoding)?);
        Ok(())
    }

    fn visit_key(&self, _: &mut dyn FnMut(&str)) {
        // The key of an encoded event was taken out when its envelope was made.
    }

    fn type_name(&self) -> &'static str {
        "encoded payload"
    }

    fn decoded(&self) -> Option<&Decoded> {
        Some(&self.decoded)
    }
}

/// A Rust value as the payload of an event that was declared at run time.
pub(crate) struct Described<T> {
    pub(crate) value: T,
    decoded: Decoded,
}

impl<T> Described<T> {
    #[inline(always)]
    pub(crate) fn new(value: T) -> Self {
        Self { value, decoded: OnceLock::new() }
    }
}

impl<T: Data> Payload for Described<T> {
    fn encode(&self, encoding: Encoding) -> Result<Bytes, CodecError> {
        self.value.encode(encoding)
    }

    fn encode_to(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&self.value.encode(encoding)?);
        Ok(())
    }

    fn visit_key(&self, _: &mut dyn FnMut(&str)) {
        // As of an encoded event, it is in the head.
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }

    fn decoded(&self) -> Option<&Decoded> {
        Some(&self.decoded)
    }
}
