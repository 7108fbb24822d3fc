//! One frame from bytes and to bytes.

use std::fmt;
use std::fmt::Write as _;

use edri_events::Encoding;
use serde::{Deserialize, Serialize};

use crate::stream::PREFIX_BYTES;
use crate::{Frame, limits};

/// Why bytes are no frame, or a frame cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It is longer than the reader takes.
    #[error("a frame of {bytes} bytes, where {max} is the most")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// The bytes are not a frame in either encoding, or break a limit.
    #[error("not a frame: {0}")]
    Malformed(String),
    /// The frame has no place in this encoding.
    #[error("cannot write the frame: {0}")]
    Unwritable(String),
}

impl FrameError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "frame_too_long",
            Self::Malformed(_) | Self::Unwritable(_) => "malformed_frame",
        }
    }
}

/// The most bytes of a text that says what is wrong with a frame. serde's texts repeat what they found there, however long.
const SAYS_MAX: usize = 256;

fn malformed(error: &dyn fmt::Display) -> FrameError {
    FrameError::Malformed(shortened(error))
}

/// What `error` says, cut where it gets long.
fn shortened(error: &dyn fmt::Display) -> String {
    struct Short(String);

    impl fmt::Write for Short {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let mut end = text.len().min(SAYS_MAX - self.0.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            self.0.push_str(&text[..end]);
            if end < text.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }

    let mut short = Short(String::new());
    if write!(short, "{error}").is_err() {
        short.0.push('…');
    }
    short.0
}

/// Reads the MessagePack of one value, which is all of `bytes`. The error is a text of bounded length.
pub(crate) fn read_messagepack<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    // The reader's number is the first depth that is too deep.
    reader.set_max_depth(limits::NESTING_MAX + 1);
    let value = T::deserialize(&mut reader).map_err(|error| shortened(&error))?;
    // The reader does not tell where it is, but only at the end of the bytes does it find no marker.
    match <()>::deserialize(&mut reader) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err("bytes after the end".to_owned()),
    }
}

/// Appends the MessagePack of `value`, structs as maps.
pub(crate) fn write_messagepack<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), rmp_serde::encode::Error> {
    value.serialize(&mut rmp_serde::Serializer::new(out).with_struct_map())
}

impl<'a> Frame<'a> {
    /// In which encoding the frame of these bytes is written: a JSON frame begins with a brace, which begins no MessagePack
    /// map.
    #[must_use]
    pub fn encoding_of(bytes: &[u8]) -> Encoding {
        match bytes.first() {
            Some(b'{') => Encoding::Json,
            _ => Encoding::MessagePack,
        }
    }

    /// Reads a frame. Unknown fields are skipped, an unknown frame is [`Frame::Unknown`].
    ///
    /// # Errors
    ///
    /// [`FrameError::Malformed`] says what is wrong.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        match Self::encoding_of(bytes) {
            Encoding::Json => serde_json::from_slice(bytes).map_err(|error| malformed(&error)),
            Encoding::MessagePack => read_messagepack(bytes).map_err(FrameError::Malformed),
        }
    }

    /// Appends the frame to `out`, as a message of its own.
    ///
    /// # Errors
    ///
    /// [`FrameError`] when the frame has no place in this encoding or is longer than `max`; `out` is unchanged then.
    pub fn encode(&self, encoding: Encoding, max: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let begin = out.len();
        let written = match encoding {
            Encoding::MessagePack => {
                write_messagepack(self, out).map_err(|error| FrameError::Unwritable(error.to_string()))
            }
            Encoding::Json => {
                serde_json::to_writer(&mut *out, self).map_err(|error| FrameError::Unwritable(error.to_string()))
            }
        };
        let bytes = out.len() - begin;
        let checked = written.and(if bytes > max { Err(FrameError::TooLong { bytes, max }) } else { Ok(()) });
        if checked.is_err() {
            out.truncate(begin);
        }
        checked
    }

    /// Appends the frame to `out` after its length, as it travels on a stream.
    ///
    /// # Errors
    ///
    /// As [`Frame::encode`].
    pub fn encode_to_stream(&self, encoding: Encoding, max: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let begin = out.len();
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        let encoded = self.encode(encoding, max.min(u32::MAX as usize), out);
        match encoded {
            Ok(()) => {
                let bytes = (out.len() - begin - PREFIX_BYTES) as u32;
                out[begin..begin + PREFIX_BYTES].copy_from_slice(&bytes.to_be_bytes());
            }
            Err(_) => out.truncate(begin),
        }
        encoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ack, Call, Payload, Response};

    fn round(frame: &Frame<'_>, encoding: Encoding) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(encoding, limits::FRAME_BYTES_MAX, &mut bytes).expect("encodes");
        assert_eq!(Frame::encoding_of(&bytes), encoding);
        assert_eq!(Frame::decode(&bytes).as_ref(), Ok(frame), "{}", String::from_utf8_lossy(&bytes));
        bytes
    }

    #[test]
    fn a_frame_reads_back_in_either_encoding() {
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let payload = encoding.encode(&("north", 4.7)).expect("encodes");
            let payload = Some(Payload::new(encoding, &payload));
            let call = Call { id: 7, event: "quake.recorded".into(), payload: payload.clone(), ..Call::default() };
            round(&Frame::Publish(call), encoding);
            round(&Frame::Response(Response { id: 7, value: payload, ..Response::default() }), encoding);
            round(&Frame::Ack(Ack { done: vec![1, 3], begun: Some(5), received: None }), encoding);
        }
    }

    #[test]
    fn a_json_frame_is_what_a_person_would_write() {
        let call = Call {
            id: 1,
            event: "sum".into(),
            payload: Some(Payload::new(Encoding::Json, b"[1,2]")),
            ..Call::default()
        };
        let bytes = round(&Frame::Request(call), Encoding::Json);
        assert_eq!(String::from_utf8_lossy(&bytes), r#"{"request":{"id":1,"event":"sum","payload":[1,2]}}"#);
    }
}
