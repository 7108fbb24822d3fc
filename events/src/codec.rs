//! How a payload becomes bytes and comes back: MessagePack with named fields, or JSON.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserialize, Serialize};

use crate::Invalid;

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// MessagePack, structs as maps with named fields.
    MessagePack,
    /// JSON.
    Json,
}

/// Why a payload could not be encoded or decoded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value cannot be written in this encoding.
    #[error("encode {type_name} as {encoding:?}: {source}")]
    Encode {
        /// The Rust type of the value.
        type_name: &'static str,
        /// The encoding asked for.
        encoding: Encoding,
        /// What the codec says.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The bytes are not a value of this type.
    #[error("decode {type_name} from {encoding:?}: {source}")]
    Decode {
        /// The Rust type asked for.
        type_name: &'static str,
        /// The encoding of the bytes.
        encoding: Encoding,
        /// What the codec says.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The value is of another Rust type.
    #[error("the payload is a {found}, not a {wanted}")]
    Type {
        /// The Rust type asked for.
        wanted: &'static str,
        /// What the payload is.
        found: &'static str,
    },
    /// The payload can be read, but is not what its declaration says.
    #[error(transparent)]
    Invalid(Invalid),
    /// What another process says of a payload that it was sent.
    #[error("{0}")]
    Elsewhere(String),
}

impl Encoding {
    /// Writes `value`.
    ///
    /// # Errors
    ///
    /// [`CodecError::Encode`] when the value cannot be written, as a map with keys that are not strings in JSON.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Bytes, CodecError> {
        // Short values, which most are, are written to memory that is there, and copied once their length is known.
        let mut written = SCRATCH.try_with(Cell::take).unwrap_or_default();
        self.encode_to(value, &mut written)?;
        if written.len() > SCRATCH_BYTES_MAX {
            return Ok(Bytes::from(written));
        }
        let bytes = Bytes::copy_from_slice(&written);
        written.clear();
        // A thread that ends needs it no more.
        let _ = SCRATCH.try_with(|scratch| scratch.set(written));
        Ok(bytes)
    }

    /// As [`Encoding::encode`], but appends to `out`.
    ///
    /// # Errors
    ///
    /// As [`Encoding::encode`]; `out` ends with a part of the value then.
    pub fn encode_to<T: Serialize + ?Sized>(self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let fail = |source| CodecError::Encode { type_name: std::any::type_name::<T>(), encoding: self, source };
        match self {
            Self::MessagePack => {
                rmp_serde::encode::write_named(&mut Appending(out), value).map_err(|e| fail(Arc::new(e)))
            }
            Self::Json => serde_json::to_writer(out, value).map_err(|e| fail(Arc::new(e))),
        }
    }

    /// Reads a value. Unknown fields are skipped; bytes after the value are an error.
    ///
    /// # Errors
    ///
    /// [`CodecError::Decode`] when the bytes are not a `T`.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, CodecError> {
        self.read(bytes, PhantomData, std::any::type_name::<T>()).map_err(|error| in_field::<T>(error, bytes))
    }

    /// As [`Encoding::decode`], but what is made of the value is `seed`'s affair; so one can look at a part of it without
    /// building the rest. `what` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`CodecError::Decode`] when the bytes are malformed, or `seed` refuses them.
    pub fn read<'de, S: DeserializeSeed<'de>>(
        self,
        bytes: &'de [u8],
        seed: S,
        what: &'static str,
    ) -> Result<S::Value, CodecError> {
        let fail = |source| CodecError::Decode { type_name: what, encoding: self, source };
        match self {
            Self::MessagePack => {
                let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
                reader.set_max_depth(NESTING_MAX);
                let value = seed.deserialize(&mut reader).map_err(|e| fail(Arc::new(e)))?;
                // The reader does not tell where it is, but only at the end of the bytes does it find no marker.
                match <()>::deserialize(&mut reader) {
                    Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
                    _ => Err(fail(Box::<dyn Error + Send + Sync>::from("bytes after the value").into())),
                }
            }
            Self::Json => {
                let mut reader = serde_json::Deserializer::from_slice(bytes);
                let value = seed.deserialize(&mut reader).map_err(|e| fail(Arc::new(e)))?;
                reader.end().map_err(|e| fail(Arc::new(e)))?;
                Ok(value)
            }
        }
    }
}

/// Appends what is written to it. MessagePack is written in pieces of mostly one byte, which a `Vec` would copy like long ones.
struct Appending<'a>(&'a mut Vec<u8>);

impl io::Write for Appending<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match bytes {
            [byte] => self.0.push(*byte),
            _ => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The error with the field that it is about: the bytes are read again, for only the slow reader knows where it is.
fn in_field<T: DeserializeOwned>(error: CodecError, bytes: &[u8]) -> CodecError {
    let CodecError::Decode { type_name, encoding, source } = error else { return error };
    let path = match encoding {
        Encoding::MessagePack => {
            let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
            reader.set_max_depth(NESTING_MAX);
            serde_path_to_error::deserialize::<_, T>(&mut reader).err().map(|error| error.path().to_string())
        }
        Encoding::Json => {
            let mut reader = serde_json::Deserializer::from_slice(bytes);
            serde_path_to_error::deserialize::<_, T>(&mut reader).err().map(|error| error.path().to_string())
        }
    };
    let text = source.to_string();
    let path = path.filter(|path| path != ".").unwrap_or_default();
    // A field that is not there has no place; serde names it in its text.
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')).map(|(name, _)| name);
    let field = match missing {
        Some(name) if path.is_empty() => name.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None => path,
    };
    if field.is_empty() {
        return CodecError::Decode { type_name, encoding, source };
    }
    let source = Box::<dyn Error + Send + Sync>::from(format!("in `{field}`: {text}")).into();
    CodecError::Decode { type_name, encoding, source }
}

/// The longest value that is copied out of [`SCRATCH`].
const SCRATCH_BYTES_MAX: usize = 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How deep a MessagePack payload may nest; the limit that serde_json has for JSON.
const NESTING_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_after_the_value_are_refused() {
        let value = vec![(Some(7_u64), "seven".to_owned())];
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let bytes = encoding.encode(&value).expect("encodes");
            assert_eq!(encoding.decode::<Vec<(Option<u64>, String)>>(&bytes).expect("decodes"), value);
            for more in 0..=u8::MAX {
                let longer = [&bytes[..], &[more]].concat();
                let is_space = encoding == Encoding::Json && b" \t\r\n".contains(&more);
                assert_eq!(
                    encoding.decode::<Vec<(Option<u64>, String)>>(&longer).is_ok(),
                    is_space,
                    "{encoding:?} {more}"
                );
            }
        }
    }
}
