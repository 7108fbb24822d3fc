//! One end of a bare connection: whole frames out of what was read, and what is to be written.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use edri::Encoding;
use edri_protocol::{Frame, limits};

use crate::Result;

const READ_BYTES: usize = 256 << 10;

/// A socket with its buffers. Reads and writes block.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    read: Vec<u8>,
    /// What of `read` is filled, and not yet looked at.
    filled: std::ops::Range<usize>,
    out: Vec<u8>,
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, read: vec![0; READ_BYTES], filled: 0..0, out: Vec::new() }
    }

    /// Adds a frame to what is to be written.
    pub(super) fn push(&mut self, frame: &Frame<'_>) -> Result<()> {
        Ok(frame.encode_to_stream(Encoding::MessagePack, limits::FRAME_BYTES_MAX, &mut self.out)?)
    }

    /// Writes all of it.
    pub(super) fn flush(&mut self) -> Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Where the next whole frame is that has been read, if there is one.
    pub(super) fn next(&mut self) -> Option<std::ops::Range<usize>> {
        let prefix = self.read[self.filled.clone()].first_chunk::<4>()?;
        let begin = self.filled.start + 4;
        let end = begin + u32::from_be_bytes(*prefix) as usize;
        (end <= self.filled.end).then(|| {
            self.filled.start = end;
            begin..end
        })
    }

    pub(super) fn bytes(&self, frame: std::ops::Range<usize>) -> &[u8] {
        &self.read[frame]
    }

    /// Reads more; false at the end of the stream.
    pub(super) fn fill(&mut self) -> Result<bool> {
        self.read.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        let count = self.stream.read(&mut self.read[self.filled.end..])?;
        self.filled.end += count;
        Ok(count > 0)
    }
}
