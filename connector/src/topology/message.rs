//! What neighbours tell each other.

use std::fmt;

use bytes::Bytes;
use edri_events::{Incarnation, NodeName};
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Refusal;
use super::record::{Life, decode, encode, list, number};
use crate::limits::{MESSAGE_BYTES, MESSAGE_RECORDS_MAX, NODES_MAX};

/// What one neighbour tells the other. Any of them may be lost, come twice or in another order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Message {
    /// Records, each as its node wrote it; see [`Record::decode`](super::Record::decode).
    Records(Vec<Bytes>),
    /// The fingerprint of all records of the nodes that the sender has a path to. Who has another answers with a summary.
    Digest(u64),
    /// What the sender has. It asks for what it lacks, and for `Synced` after that.
    Summary(Vec<NodeSummary>),
    /// The sender has told what the summary of its neighbour lacked.
    Synced,
    /// What a later version of edri says; it is skipped.
    #[serde(skip_serializing)]
    Unknown,
}

/// What the sender of a summary has of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSummary {
    /// The node.
    pub node: NodeName,
    /// Its life.
    #[serde(with = "number")]
    pub incarnation: Incarnation,
    /// The highest epoch of its records.
    pub epoch: u64,
    /// The version of the node's own record; 0 without one.
    pub state: u64,
    /// The highest version of the records of its groups; 0 without one.
    pub groups: u64,
    /// The fingerprint of the records of its groups.
    pub digest: u64,
}

impl NodeSummary {
    pub(super) fn life(&self) -> Life {
        Life::new(self.epoch, self.incarnation)
    }
}

impl Message {
    /// Reads a message; a name that is not known becomes [`Message::Unknown`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Malformed`] when it is none or breaks a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        decode(bytes).ok_or(Refusal::Malformed)
    }

    /// The message's bytes: MessagePack, a map of its name and its content, or its name alone.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Messages that tell `records` in this order.
    pub(super) fn of(records: impl IntoIterator<Item = Bytes>) -> Vec<Self> {
        let mut messages = Vec::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for record in records {
            if batch.len() == MESSAGE_RECORDS_MAX || (bytes + record.len() > MESSAGE_BYTES && !batch.is_empty()) {
                messages.push(Self::Records(std::mem::take(&mut batch)));
                bytes = 0;
            }
            bytes += record.len();
            batch.push(record);
        }
        if !batch.is_empty() {
            messages.push(Self::Records(batch));
        }
        messages
    }
}

// By hand, as for what a record says.
impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneEntry;

        impl<'de> Visitor<'de> for OneEntry {
            type Value = Message;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message's name, or a map of that and its content")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Message, E> {
                Ok(if name == "synced" { Message::Synced } else { Message::Unknown })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message, A::Error> {
                let name: String = map.next_key()?.ok_or_else(|| A::Error::custom("a message without a name"))?;
                let message = match &*name {
                    "records" => Message::Records(map.next_value::<Records>()?.0),
                    "digest" => Message::Digest(map.next_value()?),
                    "summary" => Message::Summary(map.next_value::<Summary>()?.0),
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                        Message::Unknown
                    }
                };
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(message),
                    Some(_) => Err(A::Error::custom("a message with two names")),
                }
            }
        }

        deserializer.deserialize_any(OneEntry)
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Records(#[serde(deserialize_with = "list::<_, _, MESSAGE_RECORDS_MAX>")] Vec<Bytes>);

#[derive(Deserialize)]
#[serde(transparent)]
struct Summary(#[serde(deserialize_with = "list::<_, _, NODES_MAX>")] Vec<NodeSummary>);
