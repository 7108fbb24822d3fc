//! What is to be written to a stream: frames with their lengths, in as few pieces as is cheap. Pure.

use bytes::{BufMut, Bytes, BytesMut};

/// Frames up to here are copied next to one another; longer ones are passed on as they are.
pub(super) const COPIED_BYTES_MAX: usize = 2 << 10;
/// How much is allocated at once for what is copied.
const BLOCK_BYTES: usize = 16 << 10;

/// Frames that wait to be written to one stream.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pieces: Vec<Bytes>,
    /// The end of what waits, after all `pieces`.
    tail: BytesMut,
    bytes: usize,
}

impl Outgoing {
    /// Adds a frame that comes in two parts, and says how many bytes it is with its length.
    pub(super) fn push(&mut self, head: Bytes, body: Bytes) -> usize {
        let frame = head.len() + body.len();
        let bytes = edri_protocol::PREFIX_BYTES + frame;
        self.reserve(if frame <= COPIED_BYTES_MAX { bytes } else { edri_protocol::PREFIX_BYTES });
        self.tail.put_u32(length(frame));
        self.push_part(head, frame);
        self.push_part(body, frame);
        self.bytes += bytes;
        bytes
    }

    /// Adds a part of a frame of so many bytes.
    fn push_part(&mut self, part: Bytes, frame: usize) {
        // Beside a long part a short one does not deserve a piece of its own.
        if frame <= COPIED_BYTES_MAX || part.len() <= COPIED_BYTES_MAX / 8 {
            self.reserve(part.len());
            self.tail.put_slice(&part);
        } else {
            self.cut();
            self.pieces.push(part);
        }
    }

    /// Makes room for so many bytes at the end.
    fn reserve(&mut self, needed: usize) {
        if self.tail.capacity() - self.tail.len() < needed {
            self.cut();
            // A lone small frame should not cost a whole block.
            let block = if self.pieces.is_empty() { needed } else { BLOCK_BYTES };
            self.tail = BytesMut::with_capacity(block);
        }
    }

    /// Adds bytes as they are.
    pub(super) fn push_bytes(&mut self, bytes: Bytes) {
        self.cut();
        self.bytes += bytes.len();
        self.pieces.push(bytes);
    }

    /// Takes all that waits.
    pub(super) fn take(&mut self) -> (Vec<Bytes>, usize) {
        self.cut();
        (std::mem::take(&mut self.pieces), std::mem::take(&mut self.bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// A lone frame with its length, in one piece.
    pub(super) fn alone(head: &Bytes, body: &Bytes) -> Bytes {
        let frame = head.len() + body.len();
        let mut piece = BytesMut::with_capacity(edri_protocol::PREFIX_BYTES + frame);
        piece.put_u32(length(frame));
        piece.put_slice(head);
        piece.put_slice(body);
        piece.freeze()
    }

    fn cut(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }
}

fn length(frame: usize) -> u32 {
    u32::try_from(frame).expect("no frame is longer than LANE_FRAME_BYTES_MAX")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::deframer::Deframer;
    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            lengths in prop::collection::vec(0_usize..3 * COPIED_BYTES_MAX, 0..40),
            heads in prop::collection::vec(prop_oneof![Just(0), 0_usize..3 * COPIED_BYTES_MAX], 40),
            often in 1_usize..10,
        ) {
            let (mut outgoing, mut deframer) = (Outgoing::default(), Deframer::new(3 * COPIED_BYTES_MAX));
            let (mut waiting, mut read) = (0, Vec::new());
            for (index, length) in lengths.iter().enumerate() {
                let mut body = Bytes::from(vec![index as u8; *length]);
                let head = body.split_to(heads[index].min(*length));
                waiting += outgoing.push(head, body);
                if index % often == 0 {
                    let (pieces, bytes) = outgoing.take();
                    prop_assert_eq!(bytes, std::mem::take(&mut waiting));
                    prop_assert_eq!(bytes, pieces.iter().map(Bytes::len).sum::<usize>());
                    pieces.into_iter().for_each(|piece| deframer.read(piece, &mut read).expect("allowed"));
                }
            }
            outgoing.take().0.into_iter().for_each(|piece| deframer.read(piece, &mut read).expect("allowed"));
            prop_assert!(outgoing.is_empty());
            let expected: Vec<_> = lengths.iter().enumerate().map(|(index, length)| vec![index as u8; *length]).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
