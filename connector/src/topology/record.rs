//! What a node says of itself: one record of the node, one of each of its groups.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use edri_events::{Incarnation, NAME_BYTES_MAX, NodeName, Pattern};
use edri_protocol::EventDeclaration;
use edri_protocol::limits::NESTING_MAX;
use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Refusal;
use crate::limits::{GROUPS_MAX, LINKS_MAX, RECORD_BYTES_MAX, SELECTIONS_MAX, STAMP_MAX};

/// The slot of what is said of the node itself. Any other slot but [`WITHDRAWN_SLOT`] is the number of a group.
pub const NODE_SLOT: u32 = 0;
/// The slot of what is said of groups withdrawn long ago.
pub const WITHDRAWN_SLOT: u32 = u32::MAX;

/// One thing that a node says of itself. Only that node makes or changes it; others keep and forward its bytes as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Who says it.
    pub node: NodeName,
    /// How often the node's name has been claimed anew: the higher epoch is the later life.
    pub epoch: u64,
    /// In which life.
    #[serde(with = "number")]
    pub incarnation: Incarnation,
    /// What it is about: [`NODE_SLOT`], the number of a group, or [`WITHDRAWN_SLOT`].
    pub slot: u32,
    /// Rises with every record that the incarnation makes, whatever the slot and the epoch.
    pub version: u64,
    /// What is said.
    pub content: Content,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Content {
    /// The node itself.
    Node(NodeState),
    /// A group of the node, and what it wants.
    #[serde(serialize_with = "shared")]
    Group(Arc<GroupState>),
    /// The group is withdrawn; its number is never used again in this life.
    Gone,
    /// Which groups are withdrawn, put together, so that not every one of them is remembered for ever.
    Withdrawn(Withdrawn),
    /// What a later version of edri says. It is kept and forwarded, and means nothing here.
    #[serde(skip_serializing)]
    Unknown,
}

/// A node as it says that it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its links, by neighbour.
    #[serde(default, deserialize_with = "list::<_, _, LINKS_MAX>")]
    pub links: Vec<LinkState>,
    /// Whether it only forwards.
    #[serde(default)]
    pub switch: bool,
    /// Whether it has heard all that its configured peers want, or knows that they are absent.
    #[serde(default)]
    pub settled: bool,
    /// Whether it is about to go.
    #[serde(default)]
    pub leaving: bool,
    /// The version of the protocol that it speaks.
    #[serde(default)]
    pub protocol: u32,
}

/// A link as one of its ends sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkState {
    /// The other end.
    pub node: NodeName,
    /// The life of the other end.
    #[serde(with = "number")]
    pub incarnation: Incarnation,
    /// What it costs to cross, from 1 to [`COST_MAX`](crate::limits::COST_MAX); the larger of what both ends say counts.
    pub cost: u32,
}

/// A group that wants events of other nodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupState {
    /// Its manager's name, or that of a subscription.
    pub name: String,
    /// Whether the groups of this name on all nodes are one.
    #[serde(default)]
    pub shared: bool,
    /// Whether it is shared by key: each key is with one of them at a time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keyed: bool,
    /// Whether it answers requests and tunnels, of the events that it selects by their exact name.
    #[serde(default)]
    pub answers: bool,
    /// Which events it wants.
    #[serde(default, deserialize_with = "list::<_, _, SELECTIONS_MAX>")]
    pub selections: Vec<Selection>,
    /// What is known of the events that it selects by their exact name.
    #[serde(default, deserialize_with = "edri_protocol::read_declarations")]
    pub events: Vec<EventDeclaration>,
    /// What each origin may send before the group grants more.
    #[serde(default)]
    pub window: Window,
}

/// Which events a group wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// By name.
    pub select: Pattern,
    /// Only those with this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Credit to begin with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// How many events.
    #[serde(default)]
    pub events: u32,
    /// How many bytes of payload.
    #[serde(default)]
    pub bytes: u64,
}

/// Groups withdrawn long ago.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Every group with a lower number is withdrawn,
    pub below: u32,
    /// but these.
    #[serde(default, deserialize_with = "list::<_, _, GROUPS_MAX>")]
    pub except: BTreeSet<u32>,
}

impl Withdrawn {
    pub(super) fn covers(&self, number: u32) -> bool {
        number != NODE_SLOT && number < self.below && !self.except.contains(&number)
    }
}

/// Orders the lives of one node: the later epoch, and within an epoch, which only two lives that do not know each other
/// share, the higher number, so that all nodes choose alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Life {
    pub(super) epoch: u64,
    number: u64,
}

impl Life {
    pub(super) fn new(epoch: u64, incarnation: Incarnation) -> Self {
        Self { epoch, number: incarnation.get() }
    }

    pub(super) fn incarnation(self) -> Incarnation {
        Incarnation::from_number(self.number).expect("it was made of an incarnation")
    }
}

impl Record {
    /// Reads a record. Fields that are not known are skipped, contents that are not known become [`Content::Unknown`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Malformed`] when it is none, [`Refusal::RecordBytes`] when it is longer than
    /// [`RECORD_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Refusal::RecordBytes);
        }
        let record: Self = decode(bytes).ok_or(Refusal::Malformed)?;
        let fits = match &record.content {
            Content::Node(_) => record.slot == NODE_SLOT,
            Content::Group(group) => is_of_group(record.slot) && group.name.len() <= NAME_BYTES_MAX,
            Content::Gone => is_of_group(record.slot),
            Content::Withdrawn(_) => record.slot == WITHDRAWN_SLOT,
            Content::Unknown => true,
        };
        let counts = record.epoch <= STAMP_MAX && record.version <= STAMP_MAX;
        if fits && counts { Ok(record) } else { Err(Refusal::Malformed) }
    }

    /// The record's bytes: MessagePack with named fields.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    pub(super) fn life(&self) -> Life {
        Life::new(self.epoch, self.incarnation)
    }
}

/// Whether the record of a slot is of one group.
pub(super) fn is_of_group(slot: u32) -> bool {
    slot != NODE_SLOT && slot != WITHDRAWN_SLOT
}

/// Reads one value, no deeper than a frame may nest.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(NESTING_MAX + 1);
    T::deserialize(&mut reader).ok()
}

/// Writes one value of this module's own types.
pub(super) fn encode<T: Serialize>(value: &T) -> Bytes {
    rmp_serde::to_vec_named(value).expect("these types have a form in MessagePack").into()
}

fn shared<S: Serializer>(group: &Arc<GroupState>, serializer: S) -> Result<S::Ok, S::Error> {
    group.as_ref().serialize(serializer)
}

// By hand, because a derived reader fails at contents that a later version adds.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneEntry;

        impl<'de> Visitor<'de> for OneEntry {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of one entry: what is said, and its fields")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Content, E> {
                Ok(if name == "gone" { Content::Gone } else { Content::Unknown })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
                let name: String = map.next_key()?.ok_or_else(|| A::Error::custom("nothing is said"))?;
                let content = match &*name {
                    "node" => Content::Node(map.next_value()?),
                    "group" => Content::Group(Arc::new(map.next_value()?)),
                    "withdrawn" => Content::Withdrawn(map.next_value()?),
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                        Content::Unknown
                    }
                };
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(content),
                    Some(_) => Err(A::Error::custom("two things are said")),
                }
            }
        }

        deserializer.deserialize_any(OneEntry)
    }
}

/// Reads a list of at most `MAX` elements.
pub(super) fn list<'de, D, C, const MAX: usize>(deserializer: D) -> Result<C, D::Error>
where
    D: Deserializer<'de>,
    C: IntoIterator + Default + Extend<<C as IntoIterator>::Item>,
    C::Item: Deserialize<'de>,
{
    struct Bounded<C, const MAX: usize>(PhantomData<C>);

    impl<'de, C, const MAX: usize> Visitor<'de> for Bounded<C, MAX>
    where
        C: IntoIterator + Default + Extend<<C as IntoIterator>::Item>,
        C::Item: Deserialize<'de>,
    {
        type Value = C;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<C, A::Error> {
            let mut all = C::default();
            let mut count = 0;
            while let Some(element) = seq.next_element()? {
                if count == MAX {
                    return Err(A::Error::custom(format_args!("a list longer than {MAX}")));
                }
                count += 1;
                all.extend(std::iter::once::<C::Item>(element));
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(Bounded::<C, MAX>(PhantomData))
}

/// An incarnation as a number, which is shorter than its text.
pub(super) mod number {
    use super::{Deserialize, Deserializer, Error, Incarnation, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(incarnation: &Incarnation, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(incarnation.get())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Incarnation, D::Error> {
        Incarnation::from_number(u64::deserialize(d)?).ok_or_else(|| D::Error::custom("no incarnation is 0"))
    }
}
