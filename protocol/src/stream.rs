//! Frames on a stream of bytes: each after its length, four bytes, most significant first.

use bytes::{Buf, Bytes, BytesMut};

use crate::FrameError;

/// The bytes of the length before each frame on a stream.
pub const PREFIX_BYTES: usize = 4;

/// Takes the next whole frame off the front of `read`; `None` until more has been read. The frame shares its memory with
/// `read`; nothing is copied.
///
/// # Errors
///
/// [`FrameError::TooLong`] as soon as a length beyond `max` has been read. The stream is of no use any more.
///
/// ```
/// use bytes::BytesMut;
///
/// let mut read = BytesMut::from(&b"\x00\x00\x00\x02{}\x00"[..]);
/// assert_eq!(edri_protocol::split(&mut read, 100).unwrap().unwrap(), "{}");
/// assert_eq!(edri_protocol::split(&mut read, 100).unwrap(), None);
/// ```
pub fn split(read: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(bytes) = first(read, max)?.map(<[u8]>::len) else { return Ok(None) };
    read.advance(PREFIX_BYTES);
    Ok(Some(read.split_to(bytes).freeze()))
}

/// The first whole frame of `read`, where it is; `None` until more has been read.
///
/// # Errors
///
/// As [`split`].
pub fn first(read: &[u8], max: usize) -> Result<Option<&[u8]>, FrameError> {
    let Some((prefix, rest)) = read.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let bytes = u32::from_be_bytes(*prefix) as usize;
    if bytes > max {
        return Err(FrameError::TooLong { bytes, max });
    }
    Ok(rest.get(..bytes))
}
