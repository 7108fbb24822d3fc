//! Packets: what nodes send one another across links, and as much of it as the nodes on the way read.
//!
//! ```text
//! ┌──────┬───────┬──────┬────────┬──────┬─────┬──────────────┬───────────────────────────┐
//! │ kind │ flags │ hops │ origin │ lane │ age │ destinations │ body: items, to the end   │
//! └──────┴───────┴──────┴────────┴──────┴─────┴──────────────┴───────────────────────────┘
//! ```
//!
//! A node on the way splits the destinations by their next hop and writes a new [`Header`] before the same body; only a
//! destination reads the body, with [`items::Reader`](crate::items::Reader). `docs/PROTOCOL.md` specifies every byte.

use bytes::{Buf, Bytes};
use edri_events::Incarnation;

use crate::compact::{Input, put_number, put_random};
use crate::limits;

/// Why bytes are no packet, or not the body of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// A packet of a kind that this version does not know.
    #[error("a packet of the unknown kind {0}")]
    UnknownKind(u8),
    /// Something is longer than a reader takes.
    #[error("{bytes} bytes, where {max} is the most")]
    TooLong {
        /// How long it is, as far as was read.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// More of something than a reader takes.
    #[error("more than {max} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// A fault that is none.
    #[error("not a fault: {0}")]
    Fault(String),
    /// The bytes mean nothing.
    #[error("not a packet: {0}")]
    Malformed(&'static str),
}

/// A sequence of packets of its own between an origin and a destination: what waits in one lane holds up no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Requests, responses and cancels.
    High,
    /// Notifications.
    Normal,
    /// From the opener of the tunnel with this number to its worker. The opener chooses the number.
    Up(u64),
    /// From the worker of the tunnel with this number to its opener.
    Down(u64),
}

/// For whom a packet is, and which packet of theirs it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The node, by its life.
    pub node: Incarnation,
    /// The number of the session between origin and destination.
    pub session: u32,
    /// The packet's number in its lane of that session.
    pub sequence: u64,
    /// The lowest number in the lane that the origin still keeps, so that none below will come again; at most `sequence`.
    pub base: u64,
    /// The groups on that node that its events are for, by their numbers there.
    pub groups: Vec<u32>,
}

/// What nodes on the way read of a packet with items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Who sends it, by its life.
    pub origin: Incarnation,
    /// The lane that its number counts in, at every destination.
    pub lane: Lane,
    /// How many more links it may cross.
    pub hops: u8,
    /// How long ago its items were written, in milliseconds; the times that they have left are that much shorter.
    pub age_ms: u32,
    /// Whether a life of the destination that has ended may have had its items already.
    pub redelivered: bool,
    /// For whom it is; at most [`limits::DESTINATIONS_MAX`] with [`limits::DESTINATIONS_GROUPS_MAX`] groups in all.
    pub destinations: Vec<Destination>,
}

/// What one node sends another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Items, numbered, kept by the origin until every destination has acknowledged them.
    Data {
        /// What nodes on the way read.
        header: Header,
        /// The items, for [`items::Reader`](crate::items::Reader).
        body: Bytes,
    },
    /// Between the two ends of a session.
    Signal(Signal),
}

/// A packet that has no number and may be lost: it says all there is to say, so the next one makes up for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Who sends it, by its life.
    pub origin: Incarnation,
    /// For whom it is, by its life.
    pub to: Incarnation,
    /// How many more links it may cross.
    pub hops: u8,
    /// What it says.
    pub kind: SignalKind,
}

/// What a [`Signal`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalKind {
    /// How far its sender has received what the other end sends in this session, and how much more it takes.
    Ack {
        /// The session between the two.
        session: u32,
        /// How far it has come in each lane; at most [`limits::ACK_LANES_MAX`].
        lanes: Vec<LaneAck>,
        /// What its groups take; at most [`limits::ACK_CREDITS_MAX`].
        credits: Vec<GroupCredit>,
    },
    /// Asks for an `Ack` at once, and tells of the session if it is a later one.
    Query {
        /// The session between the two.
        session: u32,
    },
    /// Is that life still there?
    Probe {
        /// Comes back in the answer.
        number: u64,
    },
    /// It is.
    Alive {
        /// That of the `Probe`.
        number: u64,
    },
}

/// How far a lane has been received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneAck {
    /// The lane.
    pub lane: Lane,
    /// The first number that has not been received: everything below has.
    pub next: u64,
    /// What has been received beyond, as ranges from the first number to the one behind the last: not empty, growing, with a
    /// gap before each; at most [`limits::ACK_HELD_MAX`].
    pub held: Vec<(u64, u64)>,
}

/// What a group has granted an origin since the session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCredit {
    /// The group's number at the sender of the `Ack`.
    pub group: u32,
    /// So many events in all.
    pub events: u64,
    /// So many bytes of payload in all.
    pub bytes: u64,
}

/// The first byte of a packet. 0 is none, so that bytes that were never written are none.
mod kind {
    pub(super) const DATA: u8 = 1;
    pub(super) const ACK: u8 = 2;
    pub(super) const QUERY: u8 = 3;
    pub(super) const PROBE: u8 = 4;
    pub(super) const ALIVE: u8 = 5;
}

/// The only flag there is.
const REDELIVERED: u8 = 1;

impl Packet {
    /// Reads a packet. The body shares the memory of `bytes`.
    ///
    /// # Errors
    ///
    /// [`PacketError`] when the bytes are none, or break a limit. The body is not looked at.
    pub fn decode(bytes: Bytes) -> Result<Self, PacketError> {
        if bytes.len() > limits::PACKET_BYTES_MAX {
            return Err(PacketError::TooLong { bytes: bytes.len(), max: limits::PACKET_BYTES_MAX });
        }
        let mut input = Input::new(&bytes);
        let kind = input.byte()?;
        if kind == kind::DATA {
            let header = Header::read(&mut input)?;
            let (mut body, at) = (bytes.clone(), bytes.len() - input.len());
            body.advance(at);
            return Ok(Self::Data { header, body });
        }
        let signal = Signal::read(kind, &mut input)?;
        if input.is_empty() { Ok(Self::Signal(signal)) } else { Err(PacketError::Malformed("bytes after a signal")) }
    }

    /// Appends the packet to `out`, its body with it. Who writes it keeps to the limits that its parts name.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Data { header, body } => {
                header.encode(out);
                out.extend_from_slice(body);
            }
            Self::Signal(signal) => signal.encode(out),
        }
    }
}

impl Header {
    /// Appends the header to `out`; the body follows as it is. Who writes it keeps to the limits that its fields name:
    /// what is beyond them nobody reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[kind::DATA, if self.redelivered { REDELIVERED } else { 0 }, self.hops]);
        put_random(out, self.origin.get());
        put_lane(out, self.lane);
        put_number(out, self.age_ms.into());
        debug_assert!(self.destinations.len() <= limits::DESTINATIONS_MAX, "a packet for too many nodes");
        put_number(out, self.destinations.len() as u64);
        for destination in &self.destinations {
            debug_assert!(destination.base <= destination.sequence, "a packet that its origin does not keep");
            put_random(out, destination.node.get());
            put_number(out, destination.session.into());
            put_number(out, destination.sequence);
            put_number(out, destination.sequence.saturating_sub(destination.base));
            put_number(out, destination.groups.len() as u64);
            for group in &destination.groups {
                put_number(out, u64::from(*group));
            }
        }
    }

    /// Reads what follows the kind.
    fn read(input: &mut Input<'_>) -> Result<Self, PacketError> {
        let redelivered = match input.byte()? {
            0 => false,
            REDELIVERED => true,
            _ => return Err(PacketError::Malformed("an unknown flag")),
        };
        let hops = input.byte()?;
        let origin = input.incarnation()?;
        let lane = lane(input)?;
        let age_ms = input.number32()?;
        let count = input.count("destinations", limits::DESTINATIONS_MAX, 8 + 4)?;
        let mut destinations = Vec::with_capacity(count);
        let mut groups_left = limits::DESTINATIONS_GROUPS_MAX;
        for _ in 0..count {
            let destination = Destination::read(input, groups_left)?;
            groups_left -= destination.groups.len();
            destinations.push(destination);
        }
        Ok(Self { origin, lane, hops, age_ms, redelivered, destinations })
    }
}

impl Destination {
    fn read(input: &mut Input<'_>, groups_max: usize) -> Result<Self, PacketError> {
        let node = input.incarnation()?;
        let session = input.number32()?;
        let sequence = input.number()?;
        let kept = input.number()?;
        let base = sequence.checked_sub(kept).ok_or(PacketError::Malformed("a base below zero"))?;
        let count = input.number()?;
        if count > groups_max as u64 {
            return Err(PacketError::TooMany { what: "groups", max: limits::DESTINATIONS_GROUPS_MAX });
        }
        if count > input.len() as u64 {
            return Err(PacketError::Malformed("it ends early"));
        }
        let mut groups = Vec::with_capacity(count as usize);
        for _ in 0..count {
            groups.push(input.number32()?);
        }
        Ok(Self { node, session, sequence, base, groups })
    }
}

impl Signal {
    /// Appends the signal to `out`. Who writes it keeps to the limits that its fields name: what is beyond them nobody
    /// reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            SignalKind::Ack { .. } => kind::ACK,
            SignalKind::Query { .. } => kind::QUERY,
            SignalKind::Probe { .. } => kind::PROBE,
            SignalKind::Alive { .. } => kind::ALIVE,
        };
        out.extend_from_slice(&[kind, self.hops]);
        put_random(out, self.origin.get());
        put_random(out, self.to.get());
        match &self.kind {
            SignalKind::Ack { session, lanes, credits } => {
                put_number(out, u64::from(*session));
                debug_assert!(lanes.len() <= limits::ACK_LANES_MAX, "an ack of too many lanes");
                put_number(out, lanes.len() as u64);
                for lane in lanes {
                    lane.encode(out);
                }
                debug_assert!(credits.len() <= limits::ACK_CREDITS_MAX, "an ack for too many groups");
                put_number(out, credits.len() as u64);
                for GroupCredit { group, events, bytes } in credits {
                    put_number(out, u64::from(*group));
                    put_number(out, *events);
                    put_number(out, *bytes);
                }
            }
            SignalKind::Query { session } => put_number(out, u64::from(*session)),
            SignalKind::Probe { number } | SignalKind::Alive { number } => put_number(out, *number),
        }
    }

    /// Reads what follows `kind`.
    fn read(kind: u8, input: &mut Input<'_>) -> Result<Self, PacketError> {
        if !(kind::ACK..=kind::ALIVE).contains(&kind) {
            return Err(PacketError::UnknownKind(kind));
        }
        let hops = input.byte()?;
        let origin = input.incarnation()?;
        let to = input.incarnation()?;
        let kind = match kind {
            kind::ACK => SignalKind::read_ack(input)?,
            kind::QUERY => SignalKind::Query { session: input.number32()? },
            kind::PROBE => SignalKind::Probe { number: input.number()? },
            _ => SignalKind::Alive { number: input.number()? },
        };
        Ok(Self { origin, to, hops, kind })
    }
}

impl SignalKind {
    fn read_ack(input: &mut Input<'_>) -> Result<Self, PacketError> {
        let session = input.number32()?;
        let count = input.count("lanes", limits::ACK_LANES_MAX, 3)?;
        let mut lanes = Vec::with_capacity(count);
        for _ in 0..count {
            lanes.push(LaneAck::read(input)?);
        }
        let count = input.count("credits", limits::ACK_CREDITS_MAX, 3)?;
        let mut credits = Vec::with_capacity(count);
        for _ in 0..count {
            let group = input.number32()?;
            credits.push(GroupCredit { group, events: input.number()?, bytes: input.number()? });
        }
        Ok(Self::Ack { session, lanes, credits })
    }
}

impl LaneAck {
    /// Each range is written as the gap before it and its length, neither of which is zero.
    fn encode(&self, out: &mut Vec<u8>) {
        put_lane(out, self.lane);
        put_number(out, self.next);
        debug_assert!(self.held.len() <= limits::ACK_HELD_MAX, "an ack of too many ranges");
        put_number(out, self.held.len() as u64);
        let mut end = self.next;
        for (from, to) in &self.held {
            debug_assert!(end < *from && from < to, "ranges that are empty, touch or do not grow");
            put_number(out, from.wrapping_sub(end));
            put_number(out, to.wrapping_sub(*from));
            end = *to;
        }
    }

    fn read(input: &mut Input<'_>) -> Result<Self, PacketError> {
        fn behind(at: u64, distance: u64) -> Result<u64, PacketError> {
            let behind = at.checked_add(distance).filter(|_| distance > 0);
            behind.ok_or(PacketError::Malformed("a range that is empty, touches another or never ends"))
        }
        let lane = lane(input)?;
        let next = input.number()?;
        let count = input.count("held ranges", limits::ACK_HELD_MAX, 2)?;
        let mut held = Vec::with_capacity(count);
        let mut end = next;
        for _ in 0..count {
            let from = behind(end, input.number()?)?;
            end = behind(from, input.number()?)?;
            held.push((from, end));
        }
        Ok(Self { lane, next, held })
    }
}

fn put_lane(out: &mut Vec<u8>, lane: Lane) {
    let (tag, tunnel) = match lane {
        Lane::High => (0, None),
        Lane::Normal => (1, None),
        Lane::Up(tunnel) => (2, Some(tunnel)),
        Lane::Down(tunnel) => (3, Some(tunnel)),
    };
    out.push(tag);
    if let Some(tunnel) = tunnel {
        put_number(out, tunnel);
    }
}

fn lane(input: &mut Input<'_>) -> Result<Lane, PacketError> {
    match input.byte()? {
        0 => Ok(Lane::High),
        1 => Ok(Lane::Normal),
        2 => Ok(Lane::Up(input.number()?)),
        3 => Ok(Lane::Down(input.number()?)),
        _ => Err(PacketError::Malformed("an unknown lane")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(number: u64) -> Incarnation {
        Incarnation::from_number(number).expect("not zero")
    }

    #[test]
    fn a_packet_splits_into_header_and_body_without_a_copy() {
        let destination = Destination { node: life(2), session: 3, sequence: 300, base: 299, groups: vec![1, 200] };
        let header = Header {
            origin: life(1),
            lane: Lane::Normal,
            hops: 16,
            age_ms: 5,
            redelivered: true,
            destinations: vec![destination],
        };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes.extend_from_slice(b"the items");
        let bytes = Bytes::from(bytes);
        let Ok(Packet::Data { header: read, body }) = Packet::decode(bytes.clone()) else { panic!("not the packet") };
        assert_eq!((read, &body[..]), (header, &b"the items"[..]));
        assert!(bytes.as_ptr_range().contains(&body.as_ptr()));
    }

    #[test]
    fn lanes_are_ordered_by_urgency() {
        let mut lanes = [Lane::Down(1), Lane::Up(2), Lane::Up(1), Lane::Normal, Lane::High];
        lanes.sort();
        assert_eq!(lanes, [Lane::High, Lane::Normal, Lane::Up(1), Lane::Up(2), Lane::Down(1)]);
    }
}
