//! The connector without its sockets and its clock: who is where, and what is between this life of the node and others.
//!
//! ```text
//!   driver ── send ──▶ session with each destination ──▶ path ──▶ link          (out: Output::Packet)
//!   driver ◀─ Deliver ─ session with the origin ◀──────── here?  ◀── link         (in: Engine::receive)
//!                                                         │ no: the link towards each destination
//! ```
//!
//! Everything that happens comes in through a method with the time, everything that is to be done comes out of
//! [`Engine::next_output`]; so a simulator drives whole networks of engines under one seed. `K` is what the driver wants
//! back when a packet has arrived or is lost.
//!
//! What it holds:
//! - A packet is kept by its origin until its destination has acknowledged it, whatever becomes of links and switches.
//! - A destination takes each packet once, and each lane in order.
//! - What a dead life of a node has not acknowledged goes to the next one marked as redelivered, to the group of the same
//!   name, or is given back as lost.
//! - Nothing is sent to a group beyond the credit that its node has granted.
//! - Nodes on the way keep nothing: beyond a bounded queue at each link, packets are dropped and sent again by their origin.

mod body;
mod groups;
mod links;
mod lives;
mod output;
mod peer;
mod peers;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use edri_events::{Incarnation, NodeName};
use edri_protocol::packet::{Destination, GroupCredit, Header, Lane, LaneAck, Packet, PacketError, Signal, SignalKind};
use edri_protocol::session::{Received, Timing};

use crate::limits::LINK_QUEUE_BYTES;
use crate::topology::{self, GroupState, LinkId, Refusal, Topology};

pub use body::PacketBody;
pub use groups::GroupKey;
use groups::RemoteGroups;
pub use output::{Output, Why};
use peer::{Peer, Taken};
use peers::Peers;

/// How an engine is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the topology is made with.
    pub topology: topology::Options,
    /// The times of sessions.
    pub timing: Timing,
    /// How long a group of a node's earlier life may take to come back in its next one, before what was for it is lost.
    pub return_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { topology: topology::Options::default(), timing: Timing::default(), return_grace: Duration::from_secs(5) }
    }
}

/// A destination of what is sent: one life of a node, and which of its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The life of the node.
    pub node: Incarnation,
    /// Its groups; none when it is for the node itself, as a response is.
    pub groups: Vec<GroupKey>,
}

/// Where a packet came from: the credit of a session counts nothing that came in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The life of the node.
    pub node: Incarnation,
    /// The number of the session with it.
    pub session: u32,
}

/// What one packet is kept with until it is acknowledged.
#[derive(Debug, Clone)]
struct Kept<K> {
    body: PacketBody,
    events: u32,
    groups: Vec<GroupKey>,
    /// What the groups are called in the life that it was sent to.
    numbers: Vec<u32>,
    keep: K,
    written: Duration,
    /// Whether a life of the destination may have had it that has ended since.
    redelivered: bool,
    /// Those lives.
    had: Vec<Incarnation>,
}

/// What is known of a link.
#[derive(Debug, Default)]
struct Link {
    queued: usize,
    dropped: u64,
}

/// The pure part of a connector.
#[derive(Debug)]
pub struct Engine<K> {
    incarnation: Incarnation,
    options: Options,
    topology: Topology,
    peers: Peers<K>,
    groups: RemoteGroups<K>,
    links: BTreeMap<LinkId, Link>,
    /// The last session with lives that were given up, in case they were only out of reach.
    past: BTreeMap<Incarnation, u32>,
    past_order: VecDeque<Incarnation>,
    /// How many events and bytes each group of this node lets an origin send beyond what it has placed.
    windows: BTreeMap<u32, (u64, u64)>,
    outputs: VecDeque<Output<K>>,
    scratch: Vec<u8>,
}

impl<K: Clone> Engine<K> {
    /// The engine of one life of a node.
    #[must_use]
    pub fn new(node: NodeName, incarnation: Incarnation, options: Options) -> Self {
        let topology = Topology::new(node, incarnation, options.topology.clone());
        Self {
            incarnation,
            options,
            topology,
            peers: Peers::default(),
            groups: RemoteGroups::default(),
            links: BTreeMap::new(),
            past: BTreeMap::new(),
            past_order: VecDeque::new(),
            windows: BTreeMap::new(),
            outputs: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    /// This life of this node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Who is where.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    // ---- this node -------------------------------------------------------------------------------------------------

    /// Tells others of a group of this node, or that it wants other events than before.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when there are too many groups, or it wants too much; others do not hear of it then.
    pub fn set_group(&mut self, number: u32, state: GroupState) -> Result<(), Refusal> {
        let window = initial_credit(&state);
        self.topology.set_group(number, state)?;
        self.windows.insert(number, window);
        Ok(())
    }

    /// Tells others that a group of this node takes nothing new. It goes on taking until each of them has said that nothing
    /// more comes.
    pub fn withdraw_group(&mut self, number: u32) {
        self.topology.withdraw_group(number);
    }

    /// Forgets a group of this node that was withdrawn, once nothing that still comes for it matters.
    pub fn forget_own_group(&mut self, number: u32) {
        self.windows.remove(&number);
        self.peers.values_mut().for_each(|peer| peer.forget_own_group(number));
    }

    /// Says whether this node's own configured neighbours have told their interest, or are known to be absent.
    pub fn set_settled(&mut self, settled: bool) {
        self.topology.set_settled(settled);
    }

    /// Tells others that this node stops.
    pub fn set_leaving(&mut self) {
        self.topology.set_leaving();
    }

    // ---- links -----------------------------------------------------------------------------------------------------

    /// A link to this life of a neighbour is there.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when there are as many links as there may be, or the neighbour has this node's own name.
    pub fn link_up(
        &mut self,
        now: Duration,
        link: LinkId,
        node: NodeName,
        incarnation: Incarnation,
        cost: u32,
    ) -> Result<(), Refusal> {
        self.topology.link_up(link, node, incarnation, cost)?;
        self.links.insert(link, Link::default());
        self.settle_topology(now);
        Ok(())
    }

    /// A link is there no more; what was queued for it is lost.
    pub fn link_down(&mut self, now: Duration, link: LinkId) {
        self.links.remove(&link);
        self.topology.link_down(link);
        self.settle_topology(now);
    }

    /// So many bytes wait now to go out of a link. What is put there is counted until this says otherwise.
    pub fn queued(&mut self, link: LinkId, bytes: usize) {
        if let Some(link) = self.links.get_mut(&link) {
            link.queued = bytes;
        }
    }

    /// How many bytes wait to go out of a link, and how many packets of others were dropped because too many did.
    #[must_use]
    pub fn link_queue(&self, link: LinkId) -> (usize, u64) {
        self.links.get(&link).map_or((0, 0), |link| (link.queued, link.dropped))
    }

    /// A neighbour said something of the topology.
    pub fn receive_control(&mut self, now: Duration, link: LinkId, message: topology::Message) {
        self.topology.receive(link, message);
        self.settle_topology(now);
    }

    /// A packet came over a link.
    ///
    /// # Errors
    ///
    /// [`PacketError`] when it is no packet: the neighbour does not speak the protocol.
    pub fn receive(&mut self, now: Duration, link: LinkId, frame: Bytes) -> Result<(), PacketError> {
        match Packet::decode(frame)? {
            Packet::Data { header, body } => self.receive_data(now, link, header, body),
            Packet::Signal(signal) if signal.to == self.incarnation => self.receive_signal(now, signal),
            Packet::Signal(signal) => self.forward_signal(link, signal),
        }
        Ok(())
    }

    // ---- sending ---------------------------------------------------------------------------------------------------

    /// How many events and bytes may be sent to a group now; an event may take more bytes than there are if there are any.
    /// Zero for a group that cannot be sent to.
    #[must_use]
    pub fn credit(&self, key: GroupKey) -> (u64, u64) {
        let Some(current) = self.groups.sendable(key) else { return (0, 0) };
        match self.peers.get(current.node) {
            Some(peer) if peer.reachable => current.credit(),
            _ => (0, 0),
        }
    }

    /// Says that something waits for a group's credit: if there is none, its node is asked, now and then, in case it has
    /// said so and was not heard.
    pub fn starve(&mut self, now: Duration, key: GroupKey) {
        let Some(current) = self.groups.sendable(key) else { return };
        let (events, bytes) = current.credit();
        if (events == 0 || bytes == 0)
            && let Some(peer) = self.peers.get_mut(current.node)
        {
            peer.starve(now, self.options.timing.resend_min);
        }
    }

    /// Whether a packet may be sent to this life of a node in this lane now.
    #[must_use]
    pub fn has_room(&self, node: Incarnation, lane: Lane) -> bool {
        let link = self.topology.next_hop(node).and_then(|link| self.links.get(&link));
        let unqueued = link.is_some_and(|link| link.queued < LINK_QUEUE_BYTES);
        unqueued && self.peers.get(node).is_some_and(|peer| peer.reachable && peer.outbound.has_room(lane))
    }

    /// The number that a group has in the life of its node that it is in now.
    #[must_use]
    pub fn number_of(&self, key: GroupKey) -> Option<u32> {
        self.groups.number(key)
    }

    /// Sends a packet of so many events. Each target is told of once it has it, or once it is lost for it.
    pub fn send(&mut self, now: Duration, lane: Lane, targets: &[Target], body: PacketBody, events: u32, keep: &K) {
        let mut destinations = Vec::with_capacity(targets.len());
        for target in targets {
            let kept = Kept {
                body: body.clone(),
                events,
                groups: target.groups.clone(),
                numbers: Vec::new(),
                keep: keep.clone(),
                written: now,
                redelivered: false,
                had: Vec::new(),
            };
            destinations.extend(self.number(now, lane, target.node, kept));
        }
        self.transmit(lane, destinations, &body, 0, false);
    }

    /// Keeps a packet in the session with its destination. What it is to be sent with now, if there is a path.
    fn number(&mut self, now: Duration, lane: Lane, node: Incarnation, mut kept: Kept<K>) -> Option<Destination> {
        let Some(peer) = self.peers.get_mut(node) else {
            self.outputs.push_back(lost(kept, Why::Expired));
            return None;
        };
        let (bytes, events) = (kept.body.len(), u64::from(kept.events));
        for key in &kept.groups {
            self.groups.spend(*key, node, events, bytes as u64);
        }
        kept.numbers = self.groups.numbers(&kept.groups, node);
        let groups = kept.numbers.clone();
        let (sequence, base) = peer.outbound.send(now, lane, bytes, kept);
        peer.reachable.then_some(Destination { node, session: peer.session(), sequence, base, groups })
    }

    /// Says that nothing more is sent to `node` in a tunnel's lane.
    pub fn end_lane(&mut self, node: Incarnation, lane: Lane) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.outbound.end_lane(lane);
        }
    }

    /// Says that everything of `node` in a tunnel's lane has come.
    pub fn lane_ended(&mut self, now: Duration, node: Incarnation, lane: Lane) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.lane_ended(now, lane);
        }
    }

    /// Asks a life of a node whether it is there; comes back as [`Output::Alive`] if it is.
    pub fn probe(&mut self, node: Incarnation, number: u64) {
        self.signal(node, SignalKind::Probe { number });
    }

    /// Forgets a group that was withdrawn, once nothing more will be sent to it.
    pub fn forget_group(&mut self, key: GroupKey) {
        for kept in self.groups.remove(key) {
            self.outputs.push_back(lost(kept, Why::NoGroup));
        }
        for peer in self.peers.values_mut() {
            peer.groups.retain(|_, other| *other != key);
        }
    }

    /// Tells every node that can be reached what has come from it.
    pub fn acknowledge_all(&mut self, now: Duration) {
        self.peers.values_mut().for_each(|peer| peer.tell_all(now));
        self.tick(now);
    }

    /// Whether everything that was sent to nodes that can be reached is acknowledged.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.peers.values().all(|peer| !peer.reachable || peer.outbound.packets() == 0)
    }

    /// Gives back everything that was not acknowledged, because this node stops. Nothing is to be sent after this.
    pub fn give_back(&mut self, now: Duration) {
        for life in self.peers.lives() {
            if let Some(session) = self.peers.get(life).map(Peer::session) {
                self.begin_session(now, life, session.saturating_add(1), Why::Stopped);
            }
        }
        for kept in self.groups.take_left_over() {
            self.outputs.push_back(lost(kept, Why::Stopped));
        }
    }

    // ---- receiving -------------------------------------------------------------------------------------------------

    /// Says that a group of this node has placed so many events, and so many bytes of packets, that `from` had sent it.
    pub fn placed(&mut self, now: Duration, from: Source, group: u32, events: u64, bytes: u64) {
        let Some(&window) = self.windows.get(&group) else { return };
        let delay = self.options.timing.ack_delay;
        // What is left of an earlier session was never counted in this one: it would be granted beyond the window for ever.
        if let Some(peer) = self.peers.get_mut(from.node).filter(|peer| peer.session() == from.session) {
            peer.placed(now, group, events, bytes, window, delay);
        }
    }

    fn receive_data(&mut self, now: Duration, link: LinkId, mut header: Header, body: Bytes) {
        let here = header.destinations.iter().position(|destination| destination.node == self.incarnation);
        if let Some(here) = here {
            let destination = header.destinations.swap_remove(here);
            self.receive_here(now, &header, destination, body.clone());
        }
        if header.destinations.is_empty() || header.hops <= 1 {
            return;
        }
        // The far side of the link it came by is no way onwards: views differ for a moment, and the origin will see to it.
        let (destinations, body) = (std::mem::take(&mut header.destinations), PacketBody::from(body));
        self.by_link(destinations, |engine, onwards, destinations| {
            if onwards != link {
                let header = Header { destinations, hops: header.hops - 1, ..header.clone() };
                engine.put(onwards, &header, &body, true);
            }
        });
    }

    fn receive_here(&mut self, now: Duration, header: &Header, destination: Destination, body: Bytes) {
        // Of a life that is not known yet, or not any more: its origin sends it again.
        let Some(peer) = self.peers.get(header.origin) else { return };
        if let Some(next) = peer.next_session(destination.session, destination.base) {
            self.begin_session(now, header.origin, next, Why::Forgotten);
        }
        let Some(peer) = self.peers.get_mut(header.origin) else { return };
        let Some(inbound) = peer.inbound(destination.session, self.options.timing) else { return };
        let taken = Taken { groups: destination.groups, body, age_ms: header.age_ms, redelivered: header.redelivered };
        let bytes = taken.body.len();
        let received = inbound.receive(now, header.lane, destination.sequence, destination.base, bytes, taken);
        let from = Source { node: header.origin, session: destination.session };
        while let Some((lane, Taken { groups, body, age_ms, redelivered })) = inbound.take() {
            self.outputs.push_back(Output::Deliver {
                from,
                lane,
                groups,
                body,
                age: Duration::from_millis(age_ms.into()),
                redelivered,
            });
        }
        peer.duplicates += u64::from(received == Received::Duplicate);
    }

    /// Begins another session with a life of a node; what is unacknowledged in the one there was is given up.
    fn begin_session(&mut self, now: Duration, life: Incarnation, session: u32, why: Why) {
        let Some(peer) = self.peers.get_mut(life) else { return };
        for (mut kept, sent) in peer.begin(now, session, self.options.timing) {
            kept.redelivered |= sent;
            if !kept.groups.is_empty() {
                self.outputs.push_back(lost(kept, why));
            }
        }
        self.groups.renew(life);
        self.outputs.push_back(Output::Forgotten { node: life });
    }

    fn receive_signal(&mut self, now: Duration, signal: Signal) {
        let Signal { origin, kind, .. } = signal;
        match kind {
            SignalKind::Probe { number } => self.signal(origin, SignalKind::Alive { number }),
            SignalKind::Alive { number } => self.outputs.push_back(Output::Alive { node: origin, number }),
            SignalKind::Ack { session, lanes, credits } => self.receive_ack(now, origin, session, &lanes, &credits),
            SignalKind::Query { session } => {
                let Some(peer) = self.peers.get(origin) else { return };
                if let Some(next) = peer.next_session(session, 0) {
                    self.begin_session(now, origin, next, Why::Forgotten);
                }
                if let Some(peer) = self.peers.get_mut(origin)
                    && peer.inbound(session, self.options.timing).is_some()
                {
                    peer.tell_all(now);
                }
            }
        }
    }

    fn receive_ack(
        &mut self,
        now: Duration,
        from: Incarnation,
        session: u32,
        lanes: &[LaneAck],
        credits: &[GroupCredit],
    ) {
        let Some(peer) = self.peers.get_mut(from).filter(|peer| peer.session() == session) else { return };
        peer.knows_session();
        let mut settled = Vec::new();
        if let Err(error) = peer.outbound.acknowledged(now, lanes, &mut settled) {
            tracing::warn!(node = %peer.node, %error, "an acknowledgement makes no sense and is left out");
        }
        for (_, Kept { groups, events, keep, .. }) in settled {
            peer.confirmed += u64::from(events);
            self.outputs.push_back(Output::Confirmed { groups, events, keep });
        }
        for credit in credits {
            if let Some(key) = peer.groups.get(&credit.group) {
                self.groups.grant(*key, credit.group, credit.events, credit.bytes);
            }
        }
    }

    fn forward_signal(&mut self, from: LinkId, mut signal: Signal) {
        if signal.hops <= 1 {
            return;
        }
        signal.hops -= 1;
        if let Some(link) = self.topology.next_hop(signal.to).filter(|link| *link != from) {
            self.put_signal(link, &signal);
        }
    }

    // ---- time ------------------------------------------------------------------------------------------------------

    /// When [`Engine::tick`] is to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        [self.topology.next_deadline(), self.peers.deadline(), self.groups.deadline()].into_iter().flatten().min()
    }

    /// Does what is due, sends again what is in doubt, acknowledges. Call it after everything that came in, too.
    pub fn tick(&mut self, now: Duration) {
        self.settle_topology(now);
        for (key, rest) in self.groups.expire(now) {
            self.outputs.extend(rest.into_iter().map(|kept| lost(kept, Why::NoGroup)));
            self.outputs.push_back(Output::Gone { key, why: Why::NoGroup });
        }
        self.send_to_next_lives(now);
        for life in self.peers.due(now) {
            self.tick_peer(now, life);
        }
        self.peers.rest();
    }

    fn tick_peer(&mut self, now: Duration, life: Incarnation) {
        let Some(peer) = self.peers.get_mut(life) else { return };
        peer.outbound.tick(now);
        let mut signals = Vec::new();
        if peer.query_due(now) {
            signals.push(SignalKind::Query { session: peer.session() });
        }
        if peer.reachable
            && let Some(ack) = peer.acknowledgement(now, &self.windows)
        {
            signals.push(ack);
        }
        for kind in signals {
            self.signal(life, kind);
        }
        while let Some((lane, destination, body, age_ms, redelivered)) = self.next_again(now, life) {
            self.transmit(lane, vec![destination], &body, age_ms, redelivered);
        }
    }

    fn next_again(&mut self, now: Duration, life: Incarnation) -> Option<(Lane, Destination, PacketBody, u32, bool)> {
        let link = self.topology.next_hop(life).and_then(|link| self.links.get(&link))?;
        if link.queued >= LINK_QUEUE_BYTES {
            return None;
        }
        let peer = self.peers.get_mut(life)?;
        let session = peer.session();
        let again = peer.outbound.next_again(now)?;
        peer.again += 1;
        let kept = again.packet;
        let age_ms = u32::try_from(now.saturating_sub(kept.written).as_millis()).unwrap_or(u32::MAX);
        let destination = Destination {
            node: life,
            session,
            sequence: again.sequence,
            base: again.base,
            groups: kept.numbers.clone(),
        };
        Some((again.lane, destination, kept.body.clone(), age_ms, kept.redelivered))
    }

    /// Sends what earlier lives of nodes did not acknowledge to their next ones, as far as these have room.
    fn send_to_next_lives(&mut self, now: Duration) {
        for key in self.groups.returned() {
            while let Some(node) = self.groups.next_life(key) {
                if !self.has_room(node, Lane::Normal) {
                    break;
                }
                let Some(kept) = self.groups.take_for_next_life(key) else { break };
                if kept.had.contains(&node) {
                    // What was left of an earlier life had hidden this one for a moment. It may have it already, and would
                    // not know it again in another session.
                    self.outputs.push_back(lost(kept, Why::Forgotten));
                    continue;
                }
                let age_ms = u32::try_from(now.saturating_sub(kept.written).as_millis()).unwrap_or(u32::MAX);
                let (body, redelivered) = (kept.body.clone(), kept.redelivered);
                let destination = self.number(now, Lane::Normal, node, kept);
                self.transmit(Lane::Normal, destination.into_iter().collect(), &body, age_ms, redelivered);
            }
            if let Some(node) = self.groups.starved(key)
                && let Some(peer) = self.peers.get_mut(node)
            {
                peer.starve(now, self.options.timing.resend_min);
            }
        }
    }

    /// The next thing to be done or known.
    pub fn next_output(&mut self) -> Option<Output<K>> {
        self.outputs.pop_front()
    }

    /// What is known of a life of another node, for people.
    #[must_use]
    pub fn figures(&self, node: Incarnation) -> Option<Figures> {
        self.peers.get(node).map(Peer::figures)
    }
}

/// What a session with a life of another node looks like at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Its number: how often the two have begun anew, and one.
    pub session: u32,
    /// Packets that are not acknowledged.
    pub unacknowledged_packets: usize,
    /// Their bytes.
    pub unacknowledged_bytes: usize,
    /// Events that were acknowledged.
    pub confirmed: u64,
    /// Packets sent more than once.
    pub again: u64,
    /// Packets received more than once.
    pub duplicates: u64,
    /// How often a path to it came back.
    pub resumes: u64,
    /// The smoothed time between a packet and its acknowledgement.
    pub round_trip: Option<Duration>,
}

/// How many events and bytes an origin may send to a group before the group's node has said more.
fn initial_credit(state: &GroupState) -> (u64, u64) {
    (u64::from(state.window.events).max(1), state.window.bytes.max(1))
}

fn lost<K>(kept: Kept<K>, why: Why) -> Output<K> {
    Output::Lost { groups: kept.groups, keep: kept.keep, sent: kept.redelivered, why }
}
