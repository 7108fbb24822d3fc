use std::fmt;

use quinn::{ConnectionError, VarInt};

use crate::limits::CLOSE_REASON_BYTES_MAX;

/// Why a node closes a connection, as its neighbour is told. Numbers and names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// `bye`: nothing is wrong, the node stops or needs this link no more.
    Bye,
    /// `duplicate_node`: another living node has the name of this neighbour.
    DuplicateNode,
    /// `refused`: the node does not want this neighbour.
    Refused,
    /// `protocol_error`: the neighbour broke the rules of links.
    ProtocolError,
    /// `going_away`: the node is stopping, or starting anew.
    GoingAway,
    /// `redundant`: the two dialled each other at once, and the other connection is kept.
    Redundant,
    /// `overloaded`: the node has as many links as it may have.
    Overloaded,
    /// `unknown`: a code of a later version.
    Unknown(u32),
}

impl CloseCode {
    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bye => "bye",
            Self::DuplicateNode => "duplicate_node",
            Self::Refused => "refused",
            Self::ProtocolError => "protocol_error",
            Self::GoingAway => "going_away",
            Self::Redundant => "redundant",
            Self::Overloaded => "overloaded",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Bye => 0,
            Self::DuplicateNode => 1,
            Self::Refused => 2,
            Self::ProtocolError => 3,
            Self::GoingAway => 4,
            Self::Redundant => 5,
            Self::Overloaded => 6,
            Self::Unknown(number) => number,
        }
    }

    fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Bye,
            1 => Self::DuplicateNode,
            2 => Self::Refused,
            3 => Self::ProtocolError,
            4 => Self::GoingAway,
            5 => Self::Redundant,
            6 => Self::Overloaded,
            other => Self::Unknown(u32::try_from(other).unwrap_or(u32::MAX)),
        }
    }

    pub(super) fn varint(self) -> VarInt {
        self.number().into()
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "unknown ({number})"),
            known => f.pad(known.name()),
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// This node closed it.
    #[error("closed here: {code} ({reason:?})")]
    Here {
        /// The code that the neighbour was given.
        code: CloseCode,
        /// The text that went with it.
        reason: String,
    },
    /// The neighbour closed it.
    #[error("closed by the neighbour: {code} ({reason:?})")]
    Neighbour {
        /// The neighbour's code.
        code: CloseCode,
        /// The neighbour's text; for people, and not to be trusted.
        reason: String,
    },
    /// The neighbour was silent for longer than the idle timeout.
    #[error("the neighbour is silent")]
    Silent,
    /// The neighbour's process knows nothing of this connection: it was started anew.
    #[error("the neighbour has forgotten the connection")]
    Forgotten,
    /// One of the two did not accept the other's certificate, or has none.
    #[error("no mutual trust: {0}")]
    Distrust(String),
    /// The transport failed: rubbish, a violation of QUIC, or another version of it.
    #[error("the transport failed: {0}")]
    Transport(String),
}

impl Closed {
    /// What `error` says, if this node has not closed the connection itself.
    pub(super) fn from_error(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let text = &close.reason[..close.reason.len().min(CLOSE_REASON_BYTES_MAX)];
                let code = CloseCode::from_number(close.error_code.into_inner());
                Self::Neighbour { code, reason: String::from_utf8_lossy(text).into_owned() }
            }
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::Reset => Self::Forgotten,
            // Our own, of which there is no record: every handle was dropped.
            ConnectionError::LocallyClosed => Self::Here { code: CloseCode::Bye, reason: String::new() },
            ConnectionError::TransportError(error) if is_crypto(u64::from(error.code)) => {
                Self::Distrust(error.to_string())
            }
            ConnectionError::ConnectionClosed(close) if is_crypto(u64::from(close.error_code)) => {
                Self::Distrust(format!("the neighbour says: {close}"))
            }
            other => Self::Transport(other.to_string()),
        }
    }
}

/// Whether a code of the transport is an alert of TLS (RFC 9001, section 4.8).
fn is_crypto(code: u64) -> bool {
    (0x100..0x200).contains(&code)
}

/// As much of `reason` as goes with a close.
pub(super) fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
