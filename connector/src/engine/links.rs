//! Packets and signals on their way to the links.

use bytes::Bytes;
use edri_events::Incarnation;
use edri_protocol::packet::{Destination, Header, Lane, Signal, SignalKind};

use super::{Engine, Output, PacketBody};
use crate::limits::{FORWARD_QUEUE_BYTES_MAX, HOPS_MAX};
use crate::topology::LinkId;

impl<K: Clone> Engine<K> {
    pub(super) fn transmit(
        &mut self,
        lane: Lane,
        destinations: Vec<Destination>,
        body: &PacketBody,
        age_ms: u32,
        redelivered: bool,
    ) {
        let origin = self.incarnation;
        self.by_link(destinations, |engine, link, destinations| {
            let header = Header { origin, lane, hops: HOPS_MAX, age_ms, redelivered, destinations };
            engine.put(link, &header, body, false);
        });
    }

    /// Gives `put` each link that leads to any of these, with those that it leads to.
    pub(super) fn by_link(
        &mut self,
        destinations: Vec<Destination>,
        mut put: impl FnMut(&mut Self, LinkId, Vec<Destination>),
    ) {
        if let [only] = &destinations[..] {
            if let Some(link) = self.topology.next_hop(only.node) {
                put(self, link, destinations);
            }
            return;
        }
        let mut by_link: Vec<(LinkId, Vec<Destination>)> = Vec::new();
        for destination in destinations {
            let Some(link) = self.topology.next_hop(destination.node) else { continue };
            match by_link.iter_mut().find(|(other, _)| *other == link) {
                Some((_, destinations)) => destinations.push(destination),
                None => by_link.push((link, vec![destination])),
            }
        }
        for (link, destinations) in by_link {
            put(self, link, destinations);
        }
    }

    pub(super) fn put(&mut self, link: LinkId, header: &Header, body: &PacketBody, of_others: bool) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if of_others && state.queued > FORWARD_QUEUE_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        self.scratch.clear();
        header.encode(&mut self.scratch);
        self.scratch.extend_from_slice(&body.head);
        let encoded = Bytes::copy_from_slice(&self.scratch);
        state.queued += encoded.len() + body.rest.len();
        let (origin, lane, body) = (header.origin, Some(header.lane), body.rest.clone());
        self.outputs.push_back(Output::Packet { link, origin, lane, header: encoded, body });
    }

    pub(super) fn signal(&mut self, to: Incarnation, kind: SignalKind) {
        if let Some(link) = self.topology.next_hop(to) {
            self.put_signal(link, &Signal { origin: self.incarnation, to, hops: HOPS_MAX, kind });
        }
    }

    pub(super) fn put_signal(&mut self, link: LinkId, signal: &Signal) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if state.queued > FORWARD_QUEUE_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        self.scratch.clear();
        signal.encode(&mut self.scratch);
        let encoded = Bytes::copy_from_slice(&self.scratch);
        state.queued += encoded.len();
        let origin = signal.origin;
        self.outputs.push_back(Output::Packet { link, origin, lane: None, header: encoded, body: Bytes::new() });
    }
}
