//! A session that outlives its connections: which frames have been sent, received and acknowledged.
//!
//! ```text
//!   frames of a session, from the first    0 ── base ────── at ───────── end
//!                                              kept, sent │ kept, unsent
//!   acknowledged, forgotten ──────────────┘   on this connection
//! ```
//!
//! Each side counts the frames that it has received since `welcome` and tells the other with `ack`. What was not acknowledged is
//! kept, and sent again on the next connection from where the other side says that it is. Nothing here knows a clock or a
//! socket.

use std::collections::VecDeque;

use bytes::Bytes;

/// Frames that one side sends.
#[derive(Debug, Default)]
pub struct Sent {
    /// How many are forgotten: acknowledged, or sent where nothing is kept.
    base: u64,
    frames: VecDeque<Bytes>,
    /// How many of the kept have been sent on this connection.
    at: usize,
    /// How many have been sent on any connection.
    most: u64,
    bytes: usize,
    /// Of those that have not been sent on this connection.
    unsent_bytes: usize,
    keeps: bool,
}

/// The other side says that it has received frames that were never sent, or fewer than it had said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{received} frames are said to be received, where it can be {least} to {most}")]
pub struct WrongCount {
    /// What was said.
    pub received: u64,
    /// What was acknowledged before.
    pub least: u64,
    /// How many have been sent.
    pub most: u64,
}

impl Sent {
    /// Frames of a session, kept until they are acknowledged.
    #[must_use]
    pub fn kept() -> Self {
        Self { keeps: true, ..Self::default() }
    }

    /// Frames of a single connection, forgotten once they are sent.
    #[must_use]
    pub fn unkept() -> Self {
        Self::default()
    }

    /// Adds a frame behind the others.
    pub fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.unsent_bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// The next frame for this connection.
    pub fn next_unsent(&mut self) -> Option<Bytes> {
        if !self.keeps {
            let frame = self.frames.pop_front()?;
            self.bytes -= frame.len();
            self.unsent_bytes = self.bytes;
            self.base += 1;
            self.most = self.base;
            return Some(frame);
        }
        let frame = self.frames.get(self.at)?.clone();
        self.at += 1;
        self.unsent_bytes -= frame.len();
        self.most = self.most.max(self.base + self.at as u64);
        Some(frame)
    }

    /// Whether there is a frame for this connection.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.at < self.frames.len()
    }

    /// The bytes of all frames that are kept or not sent yet.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of all frames that were not sent on this connection yet.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// The other side has received so many frames since the session began: those are forgotten.
    ///
    /// # Errors
    ///
    /// [`WrongCount`]; nothing has changed then.
    pub fn acknowledge(&mut self, received: u64) -> Result<(), WrongCount> {
        if received < self.base || received > self.most {
            return Err(WrongCount { received, least: self.base, most: self.most });
        }
        while self.base < received {
            let Some(frame) = self.frames.pop_front() else { break };
            self.bytes -= frame.len();
            self.base += 1;
            match self.at.checked_sub(1) {
                Some(at) => self.at = at,
                None => self.unsent_bytes -= frame.len(),
            }
        }
        Ok(())
    }

    /// A new connection, whose other side has received so many frames: what is behind those is sent again.
    ///
    /// # Errors
    ///
    /// As [`Sent::acknowledge`].
    pub fn reconnect(&mut self, received: u64) -> Result<(), WrongCount> {
        self.acknowledge(received)?;
        self.at = 0;
        self.unsent_bytes = self.bytes;
        Ok(())
    }
}

/// Counts the frames that one side receives.
#[derive(Debug, Default)]
pub struct Received {
    count: u64,
    told: u64,
}

impl Received {
    /// A frame came.
    pub fn frame(&mut self) {
        self.count += 1;
    }

    /// How many have come since the session began.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of them the other side has not been told of.
    #[must_use]
    pub fn untold(&self) -> u64 {
        self.count - self.told
    }

    /// The count for an `ack`, or for the beginning of a connection; the other side is taken to be told.
    pub fn tell(&mut self) -> u64 {
        self.told = self.count;
        self.count
    }
}
