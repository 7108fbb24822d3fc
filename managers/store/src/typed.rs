//! What is asked and answered as values where requester and store are on one node. A boundary writes them as they are sent from
//! elsewhere: the same maps with the same fields.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use edri_events::{Body, CodecError, Data, Encoding};
use schemars::{Schema, schema_for};
use serde::Serialize;

use crate::ask;
use crate::event::{Anything, Delete, Get, Increment, Item, Set};
use crate::raw::Writer;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    Get(Get),
    /// Boxed because most are read, and what is read is small.
    Set(Box<Set<Raw>>),
    Delete(Box<Delete>),
    Increment(Box<Increment>),
    /// Any question, encoded.
    Packed(Bytes),
}

/// A value that is encoded already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw(pub(crate) Bytes);

impl Raw {
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, CodecError> {
        Ok(Self(Encoding::MessagePack.encode(value)?))
    }
}

impl Question {
    pub(crate) fn packed(question: &impl Serialize) -> Result<Self, CodecError> {
        Ok(Self::Packed(Encoding::MessagePack.encode(question)?))
    }
}

impl Data for Question {
    fn encode(&self, encoding: Encoding) -> Result<Bytes, CodecError> {
        let bytes = match self {
            Self::Get(get) => return encoding.encode(get),
            Self::Delete(delete) => return encoding.encode(delete),
            Self::Increment(increment) => return encoding.encode(increment),
            Self::Set(set) => {
                let mut out = Writer::default();
                ask::write_set(&mut out, set);
                out.0.into()
            }
            Self::Packed(bytes) => bytes.clone(),
        };
        Ok(Body::new(Encoding::MessagePack, bytes).transcode(encoding)?.bytes)
    }

    fn decode(encoding: Encoding, bytes: &[u8]) -> Result<Self, CodecError> {
        packed(encoding, bytes).map(Self::Packed)
    }

    fn schema() -> Schema {
        schema_for!(Anything)
    }
}

/// What a key has, or nothing: the answer to a `get`. The value is shared with the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found(pub(crate) Option<FoundItem>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundItem {
    pub(crate) key: Arc<str>,
    pub(crate) value: Bytes,
    pub(crate) version: u64,
    pub(crate) expires_in_ms: Option<u64>,
}

impl Data for Found {
    fn encode(&self, encoding: Encoding) -> Result<Bytes, CodecError> {
        Ok(Body::new(Encoding::MessagePack, ask::write_found(self)).transcode(encoding)?.bytes)
    }

    fn decode(encoding: Encoding, bytes: &[u8]) -> Result<Self, CodecError> {
        ask::read_found(&packed(encoding, bytes)?).map_err(|failure| CodecError::Decode {
            type_name: "an item",
            encoding,
            source: Box::<dyn Error + Send + Sync>::from(failure.text()).into(),
        })
    }

    fn schema() -> Schema {
        schema_for!(Option<Item<Anything>>)
    }
}

/// A copy of the bytes, in MessagePack.
fn packed(encoding: Encoding, bytes: &[u8]) -> Result<Bytes, CodecError> {
    Ok(Body::new(encoding, Bytes::copy_from_slice(bytes)).transcode(Encoding::MessagePack)?.bytes)
}

#[cfg(test)]
mod tests;
