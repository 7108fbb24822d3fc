//! Frames out of the bytes of a stream, in whatever pieces these come. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const PREFIX_BYTES: usize = edri_protocol::PREFIX_BYTES;
/// No more than this is allocated for a frame on the word of its length alone.
const ALLOCATED_BYTES_MAX: usize = 256 << 10;
/// A frame that is less than one in so many parts of the bytes it came with is copied out of them: kept, it would keep
/// all of them.
const SHARED_PARTS_MAX: usize = 4;

/// A frame longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    pub(super) bytes: usize,
}

/// Puts frames together.
#[derive(Debug)]
pub(super) struct Deframer {
    frame_bytes_max: usize,
    /// The bytes of an unfinished length.
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// An unfinished frame, and how many of its bytes are missing. Never zero.
    frame: BytesMut,
    missing: Option<usize>,
}

impl Deframer {
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        let (prefix, frame) = ([0; PREFIX_BYTES], BytesMut::new());
        Self { frame_bytes_max, prefix, prefix_bytes: 0, frame, missing: None }
    }

    /// Whether all that was read so far is whole frames.
    pub(super) fn is_between_frames(&self) -> bool {
        self.missing.is_none() && self.prefix_bytes == 0
    }

    /// Takes the next bytes of the stream, and adds the frames that they complete to `frames`. A frame that lies in
    /// `bytes` is not copied, unless it is a small part of them.
    pub(super) fn read(&mut self, mut bytes: Bytes, frames: &mut Vec<Bytes>) -> Result<(), TooLong> {
        let together = bytes.len();
        while !bytes.is_empty() {
            if let Some(missing) = self.missing {
                let taken = missing.min(bytes.len());
                self.frame.put_slice(&bytes[..taken]);
                bytes.advance(taken);
                self.missing = Some(missing - taken).filter(|left| *left > 0);
                if self.missing.is_none() {
                    frames.push(std::mem::take(&mut self.frame).freeze());
                }
                continue;
            }
            let Some(length) = self.length(&mut bytes)? else { return Ok(()) };
            if length <= bytes.len() {
                let frame = bytes.split_to(length);
                let shared = length * SHARED_PARTS_MAX >= together;
                frames.push(if shared { frame } else { Bytes::copy_from_slice(&frame) });
            } else {
                self.frame = BytesMut::with_capacity(length.min(ALLOCATED_BYTES_MAX));
                self.missing = Some(length);
            }
        }
        Ok(())
    }

    /// The length of the next frame, once its bytes are together.
    fn length(&mut self, bytes: &mut Bytes) -> Result<Option<usize>, TooLong> {
        let taken = (PREFIX_BYTES - self.prefix_bytes).min(bytes.len());
        self.prefix[self.prefix_bytes..][..taken].copy_from_slice(&bytes[..taken]);
        bytes.advance(taken);
        self.prefix_bytes += taken;
        if self.prefix_bytes < PREFIX_BYTES {
            return Ok(None);
        }
        self.prefix_bytes = 0;
        let length = u32::from_be_bytes(self.prefix) as usize;
        if length > self.frame_bytes_max { Err(TooLong { bytes: length }) } else { Ok(Some(length)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend_from_slice(&u32::try_from(frame.len()).expect("short").to_be_bytes());
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1_usize..200, 1..40),
        ) {
            let mut rest = Bytes::from(written(&frames));
            let mut deframer = Deframer::new(300);
            let mut read = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let cut = cuts.next().expect("endless").min(rest.len());
                deframer.read(rest.split_to(cut), &mut read).expect("no frame is too long");
            }
            prop_assert!(deframer.is_between_frames());
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1_usize..50) {
            let mut deframer = Deframer::new(100);
            let mut read = Vec::new();
            for piece in bytes.chunks(cut) {
                if deframer.read(Bytes::copy_from_slice(piece), &mut read).is_err() {
                    break;
                }
            }
            prop_assert!(read.iter().all(|frame| frame.len() <= 100));
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_at_its_length() {
        let mut deframer = Deframer::new(10);
        let refused = deframer.read(Bytes::from_static(&[0, 0, 0, 11]), &mut Vec::new());
        assert_eq!(refused, Err(TooLong { bytes: 11 }));
    }

    #[test]
    fn a_length_alone_allocates_little() {
        let mut deframer = Deframer::new(16 << 20);
        deframer.read(Bytes::from_static(&[0, 0xff, 0, 0, 1]), &mut Vec::new()).expect("allowed");
        assert!(deframer.frame.capacity() <= ALLOCATED_BYTES_MAX);
        assert!(!deframer.is_between_frames());
    }

    #[test]
    fn a_frame_shares_the_bytes_it_came_with_unless_it_is_a_small_part_of_them() {
        let bytes = Bytes::from(written(&[vec![1; 10], vec![2; 1000]]));
        let range = bytes.as_ptr_range();
        let mut frames = Vec::new();
        Deframer::new(2000).read(bytes, &mut frames).expect("allowed");
        assert!(!range.contains(&frames[0].as_ptr()));
        assert!(range.contains(&frames[1].as_ptr()));
    }
}
