//! What nodes say to each other, looked at from outside: what a packet says of itself, and that whatever is said has a cause.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use edri_connector::limits::HOPS_MAX;
use edri_connector::topology::{Message, Options, Record};
use edri_events::{Incarnation, NodeName};
use edri_protocol::packet::{Destination, Lane, Packet, SignalKind};
use edri_protocol::session::Timing;
use xxhash_rust::xxh3::xxh3_64;

use crate::ledger::{EventNumber, Ledger, Place};

/// Everything that was said, by who said it over what.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    sides: BTreeMap<(u32, usize), Side>,
    talks: BTreeMap<Incarnation, Talk>,
    /// Whose a record is, by its fingerprint.
    records: BTreeMap<u64, (NodeName, Incarnation)>,
    /// The groups of all lives.
    groups: BTreeMap<(Incarnation, u32), Place>,
    /// What was said beside fingerprints.
    pub(crate) said: u64,
}

/// One end of a connection.
#[derive(Debug, Default)]
struct Side {
    up: Duration,
    digests: u64,
    digests_heard: u64,
    summaries: u64,
    summaries_heard: u64,
    synced: u64,
    /// How often a record was sent, by its fingerprint, and how often one of a life was heard.
    copies: BTreeMap<u64, u64>,
    heard: BTreeMap<(NodeName, Incarnation), u64>,
}

/// What a life has said to others and what it has heard.
#[derive(Debug, Default)]
struct Talk {
    since: Duration,
    met: u64,
    /// Lives that it has given up or that have ended.
    ended: u64,
    /// Sessions that began anew.
    renewed: u64,
    /// What may have changed its paths.
    turns: u64,
    data_heard: u64,
    queries_heard: u64,
    placed: u64,
    acks: u64,
    queries: u64,
}

impl Watch {
    pub(crate) fn began(&mut self, now: Duration, life: Incarnation) {
        self.talks.insert(life, Talk { since: now, ..Talk::default() });
    }

    pub(crate) fn group(&mut self, life: Incarnation, number: u32, place: Place) {
        self.groups.insert((life, number), place);
    }

    fn talk(&mut self, life: Incarnation) -> &mut Talk {
        self.talks.entry(life).or_default()
    }

    pub(crate) fn link_up(&mut self, now: Duration, link: u32, node: usize, life: Incarnation) {
        self.sides.insert((link, node), Side { up: now, ..Side::default() });
        self.talk(life).turns += 1;
    }

    pub(crate) fn link_down(&mut self, life: Incarnation) {
        self.talk(life).turns += 1;
    }

    pub(crate) fn met(&mut self, life: Incarnation) {
        self.talk(life).met += 1;
    }

    pub(crate) fn ended(&mut self, life: Incarnation) {
        self.talk(life).ended += 1;
    }

    pub(crate) fn renewed(&mut self, life: Incarnation) {
        self.talk(life).renewed += 1;
    }

    /// How often the groups of this life have said that they have placed something.
    pub(crate) fn placed(&mut self, life: Incarnation, times: u64) {
        self.talk(life).placed = times;
    }

    // ---- what neighbours say of the topology -----------------------------------------------------------------------

    pub(crate) fn control_heard(&mut self, link: u32, node: usize, life: Incarnation, message: &Message) {
        self.talk(life).turns += 1;
        let mut whose = Vec::new();
        if let Message::Records(records) = message {
            whose.extend(records.iter().map(|bytes| self.whose(bytes).1));
        }
        let side = self.sides.entry((link, node)).or_default();
        match message {
            Message::Digest(_) => side.digests_heard += 1,
            Message::Summary(_) => side.summaries_heard += 1,
            _ => whose.into_iter().for_each(|whose| *side.heard.entry(whose).or_default() += 1),
        }
    }

    fn whose(&mut self, bytes: &Bytes) -> (u64, (NodeName, Incarnation)) {
        let print = xxh3_64(bytes);
        let whose = self.records.entry(print).or_insert_with(|| {
            let record = Record::decode(bytes).expect("a record");
            (record.node, record.incarnation)
        });
        (print, whose.clone())
    }

    /// A node says something of the topology over a link. What it may say follows from what it has heard there, so that no
    /// exchange goes on by itself:
    ///
    /// - A fingerprint when the time between two of them has passed.
    /// - A summary when the link comes up, and otherwise when a fingerprint came that was another.
    /// - That it has told everything, when a summary came.
    /// - A record once as news, unless its node was given up since, when it may be news again; further, for each summary that
    ///   came, once because the summary lacks it and once when there is a path to a node to which there was none; and for each
    ///   record of another life of its node that came.
    pub(crate) fn control(
        &mut self,
        now: Duration,
        (link, node): (u32, usize),
        life: Incarnation,
        message: &Message,
        wrong: &mut Vec<String>,
    ) {
        let mut records = Vec::new();
        if let Message::Records(bytes) = message {
            records.extend(bytes.iter().map(|bytes| self.whose(bytes)));
        }
        let (since, ended) = self.talks.get(&life).map_or((now, 0), |talk| (talk.since, talk.ended));
        self.said += u64::from(!matches!(message, Message::Digest(_)));
        let side = self.sides.entry((link, node)).or_default();
        let intervals =
            |from: Duration| ((now - from).as_millis() / Options::default().digest_every.as_millis()) as u64;
        let too_much = match message {
            Message::Digest(_) => {
                side.digests += 1;
                side.digests > intervals(side.up)
            }
            Message::Summary(_) => {
                side.summaries += 1;
                side.summaries > 1 + side.digests_heard
            }
            Message::Synced => {
                side.synced += 1;
                side.synced > side.summaries_heard
            }
            _ => records.iter().any(|(print, (name, of))| {
                let copies = side.copies.entry(*print).or_default();
                *copies += 1;
                let lives = side.heard.iter().filter(|((other, life), _)| other == name && life != of);
                // Who has no path for a while is given up, whether anybody had met it or not; a second is the least patience.
                let news = 1 + ended + (now - since).as_secs();
                *copies > 1 + 2 * side.summaries_heard
                    && *copies > news + 2 * side.summaries_heard + lives.map(|(_, count)| count).sum::<u64>()
            }),
        };
        if too_much {
            wrong.push(format!("n{node} says without a cause over link {link}: {message:?}; {side:?}"));
        }
    }

    // ---- packets and signals ---------------------------------------------------------------------------------------

    pub(crate) fn packet_heard(&mut self, life: Incarnation, frame: &[u8]) {
        let talk = self.talk(life);
        match frame[0] {
            1 => talk.data_heard += 1,
            3 => talk.queries_heard += 1,
            _ => {}
        }
    }

    /// A node sends a packet or a signal, of its own or of another.
    pub(crate) fn packet(&mut self, now: Duration, here: Incarnation, frame: &Bytes, ledger: &mut Ledger) {
        self.said += 1;
        match Packet::decode(frame.clone()) {
            Ok(Packet::Data { header, .. }) if header.origin != here && header.hops == HOPS_MAX => {
                ledger.wrong.push(format!("{here} sends on a packet of {} as if it had come no way", header.origin));
            }
            Ok(Packet::Signal(signal)) if signal.origin != here && signal.hops == HOPS_MAX => {
                ledger.wrong.push(format!("{here} sends on a signal of {} as if it had come no way", signal.origin));
            }
            Ok(Packet::Signal(signal)) if signal.origin == here => self.signal(now, here, &signal.kind, ledger),
            Ok(Packet::Data { header, body }) if header.hops == HOPS_MAX && header.lane == Lane::Normal => {
                for destination in &header.destinations {
                    self.own(now, destination, (header.age_ms, header.redelivered), &body, ledger);
                }
            }
            _ => {}
        }
    }

    /// A node says what it has of another or asks that. What it may say follows from what it has heard:
    ///
    /// - An acknowledgement for each packet and each question that came, for each time that a group has placed something, and
    ///   to each other life for each time that paths may have changed.
    /// - A question to each other life whenever as much time has passed as one waits at least, when paths may have changed,
    ///   and when a session begins anew.
    fn signal(&mut self, now: Duration, here: Incarnation, kind: &SignalKind, ledger: &mut Ledger) {
        let talk = self.talk(here);
        let turned = talk.met * (talk.turns + 1);
        let too_much = match kind {
            SignalKind::Ack { .. } => {
                talk.acks += 1;
                talk.acks > talk.data_heard + talk.queries_heard + talk.placed + turned
            }
            SignalKind::Query { .. } => {
                talk.queries += 1;
                let waits = (now - talk.since).as_millis() / Timing::default().resend_min.as_millis();
                talk.queries > talk.met * (waits as u64 + 1) + talk.met * talk.turns + talk.renewed
            }
            _ => true,
        };
        if too_much {
            ledger.wrong.push(format!("{here} says without a cause {kind:?}: {talk:?}"));
        }
    }

    /// What a packet says of itself is so: how old it is, and whether an ended life of its destination may have had it.
    fn own(
        &self,
        now: Duration,
        destination: &Destination,
        (age_ms, redelivered): (u32, bool),
        body: &Bytes,
        ledger: &mut Ledger,
    ) {
        let node = destination.node;
        let places = destination.groups.iter().filter_map(|number| self.groups.get(&(node, *number)));
        for place in places.copied() {
            for event in body.chunks(8).map(|bytes| u64::from_be_bytes(bytes.try_into().expect("eight"))) {
                let event = EventNumber::unpack(event);
                let Some(way) = ledger.ways.get_mut(&(event, place)) else { continue };
                let age = way.written.map(|at| (now - at).as_millis());
                if age != Some(u128::from(age_ms)) {
                    ledger.wrong.push(format!("{event:?} for {place:?} is said to be {age_ms} ms old: {way:?}"));
                }
                if redelivered != way.sent_to.iter().any(|life| *life != node) {
                    ledger.wrong.push(format!("{event:?} for {place:?} goes to {node} marked {redelivered}: {way:?}"));
                }
                if !way.sent_to.contains(&node) {
                    way.sent_to.push(node);
                }
            }
        }
    }
}
