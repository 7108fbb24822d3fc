//! From packets into the groups of this node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edri_events::{Address, DescriptorRef, Envelope, Head, Incarnation, Kind, ManagerName, Origin};
use edri_protocol::items::{Event, Item, Reader};
use edri_protocol::packet::Lane;
use edri_router::{Arrivals, Arrived, Delivery, ReplyTo, RequestError};

use super::Driver;
use super::divided::Admitted;
use super::intake::{First, Placed};
use crate::engine::Source;

/// The addresses that events of a life of a node come from.
#[derive(Debug)]
pub(super) struct Origins {
    node: Origin,
    managers: Vec<(ManagerName, Origin)>,
}

/// The most managers of a node whose addresses are kept.
const ORIGINS_MAX: usize = 1024;

impl Origins {
    pub(super) fn new(node: edri_events::NodeName, incarnation: Incarnation) -> Self {
        let node = Origin::from(Arc::new(Address { node, incarnation, manager: None }));
        Self { node, managers: Vec::new() }
    }

    fn of(&mut self, manager: Option<&str>) -> Origin {
        let Some(name) = manager else { return self.node.clone() };
        if let Some((_, origin)) = self.managers.iter().find(|(known, _)| known.as_str() == name) {
            return origin.clone();
        }
        let Ok(name) = ManagerName::new(name) else { return self.node.clone() };
        let origin = Origin::from(Arc::new(Address { manager: Some(name.clone()), ..(*self.node).clone() }));
        if self.managers.len() < ORIGINS_MAX {
            self.managers.push((name, origin.clone()));
        }
        origin
    }
}

/// What the texts of a body stand for, looked up once each.
#[derive(Default)]
pub(super) struct Texts {
    names: Vec<Option<DescriptorRef>>,
    managers: Vec<Origin>,
    /// The address of those without a manager.
    node: Option<Origin>,
}

impl Driver {
    pub(super) fn deliver(
        &mut self,
        from: Source,
        lane: Lane,
        groups: &[u32],
        body: &Bytes,
        age: Duration,
        redelivered: bool,
    ) {
        match lane {
            Lane::Normal => self.deliver_events(from, groups, body, age, redelivered),
            Lane::High => self.deliver_calls(from, groups, body, age),
            Lane::Up(_) | Lane::Down(_) => self.deliver_to_tunnel(from, lane, groups, body, age),
        }
    }

    fn deliver_events(&mut self, source: Source, groups: &[u32], body: &Bytes, age: Duration, redelivered: bool) {
        let from = source.node;
        let now = Instant::now();
        let mut texts = Texts::default();
        let mut lines: Vec<Line> = groups.iter().map(|number| self.line(*number)).collect();
        for item in Reader::new(body) {
            match item {
                Ok(Item::Event(event)) => {
                    let envelope = self.envelope(from, &event, Kind::Notification, body, (now, age), &mut texts);
                    let Some(envelope) = envelope else {
                        lines.iter_mut().for_each(|line| line.placed += 1);
                        continue;
                    };
                    for line in &mut lines {
                        let mut delivery = Delivery::arriving(envelope.clone(), ReplyTo::None);
                        delivery.attempts = event.tried;
                        delivery.redelivered = redelivered || event.redelivered;
                        self.put_in_line(line, delivery, source);
                    }
                }
                Ok(Item::Keys(keys)) => self.keys(from, &keys),
                Ok(Item::Noted { manager, version, agreed }) => self.divisions.noted(from, manager, version, agreed),
                Ok(Item::Left { group }) => self.locals.has_left(group, from),
                Ok(Item::Differs { event, why }) => self.differs(from, event, why),
                Ok(other) => tracing::debug!(?other, "an item that does not belong among notifications is left out"),
                Err(error) => {
                    let node = self.lives.get(&from).map(|life| life.node.to_string());
                    tracing::error!(%error, node, "the rest of a packet cannot be read and is lost");
                    break;
                }
            }
        }
        let now = self.now();
        for mut line in lines {
            self.place_line(&mut line, source);
            let bytes = body.len() as u64;
            if line.waiting {
                self.intake.weigh_last(line.number, bytes);
            }
            self.engine.placed(now, source, line.number, line.placed, if line.waiting { 0 } else { bytes });
        }
    }

    fn line(&self, number: u32) -> Line {
        let arrivals = self.locals.group(number).map(|group| self.router.arrivals(group));
        Line { number, arrivals, placed: 0, waiting: false }
    }

    /// Puts a notification behind those of its packet that are for the same group.
    fn put_in_line(&mut self, line: &mut Line, delivery: Delivery, from: Source) {
        let Some(arrivals) = &mut line.arrivals else {
            line.placed += 1;
            return;
        };
        let stands = match self.divisions.admit(arrivals.group(), delivery) {
            Admitted::Here(delivery) => arrivals.push(delivery),
            // No notification is refused.
            Admitted::SentOn | Admitted::NotHere(_) => false,
        };
        line.placed += u64::from(!stands);
        if arrivals.len() >= TOGETHER_MAX {
            self.place_line(line, from);
        }
    }

    /// Gives what stands in line to its group.
    fn place_line(&mut self, line: &mut Line, from: Source) {
        let Some(arrivals) = &mut line.arrivals else { return };
        line.placed += arrivals.len() as u64;
        let waiting = match self.intake.is_waiting(line.number) {
            true => arrivals.take(),
            false => arrivals.arrive(),
        };
        for arrival in waiting {
            line.placed -= arrival.len() as u64;
            line.waiting = true;
            self.intake.push(line.number, arrival, from);
        }
    }

    /// Gives a delivery to a group; false if it waits for room.
    pub(super) fn arrive(&mut self, number: u32, delivery: Delivery, from: Source) -> bool {
        let Some(group) = self.locals.group(number) else {
            self.nobody(delivery);
            return true;
        };
        let delivery = match self.divisions.admit(group, delivery) {
            Admitted::Here(delivery) => delivery,
            Admitted::SentOn => return true,
            Admitted::NotHere(ticket) => {
                let lost = "its key has gone to another node";
                self.router.complete(ticket, Err(RequestError::PeerLost(lost.to_owned())));
                return true;
            }
        };
        let arrived = match self.intake.is_waiting(number) {
            true => self.router.arrive_behind(group, delivery),
            false => self.router.arrive(group, delivery),
        };
        match arrived {
            Arrived::Taken | Arrived::Nobody => true,
            Arrived::Waits(arrival) => {
                self.intake.push(number, arrival, from);
                false
            }
        }
    }

    /// The first of a group's line has its place, perhaps with others.
    pub(super) fn placed(&mut self, first: First) {
        let (now, number) = (self.now(), first.group);
        for Placed { from, events, bytes } in self.intake.advance(first) {
            if from.node == self.engine.incarnation() {
                self.divisions.placed(number, events);
            }
            self.engine.placed(now, from, number, events, bytes);
        }
    }

    /// The envelope of an event that came; `None`, and a line in the log, when it makes no sense here.
    pub(super) fn envelope(
        &mut self,
        from: Incarnation,
        event: &Event<'_>,
        kind: Kind,
        body: &Bytes,
        (now, age): (Instant, Duration),
        texts: &mut Texts,
    ) -> Option<Envelope> {
        if event.name.index == texts.names.len() {
            texts.names.push(match self.router.arriving_descriptor(event.name.text, kind) {
                Ok(descriptor) => Some(descriptor),
                Err(error) => {
                    let node = self.lives.get(&from).map(|life| life.node.to_string());
                    tracing::warn!(node, event = event.name.text, %error, "events of this name are left out");
                    None
                }
            });
        }
        let descriptor = texts.names.get(event.name.index)?.clone()?;
        let origin = match event.manager {
            None => match &texts.node {
                Some(node) => node.clone(),
                None => texts.node.insert(self.lives.get_mut(&from)?.origins.of(None)).clone(),
            },
            Some(manager) => {
                if manager.index == texts.managers.len() {
                    texts.managers.push(self.lives.get_mut(&from)?.origins.of(Some(manager.text)));
                }
                texts.managers.get(manager.index)?.clone()
            }
        };
        let deadline = event.timeout_ms.map(|ms| now + Duration::from_millis(ms).saturating_sub(age));
        // The clocks of nodes differ, so what is timed is timed from its coming.
        let stamped = edri_router::is_timed(event.id).then_some(now);
        let mut head = Head::in_one_piece(event.id, descriptor, origin, event.cause, deadline, event.trace, stamped);
        if event.headers.iter().next().is_some() {
            head.set_headers(event.headers.clone());
        }
        if let Some(key) = event.key {
            head.set_key(key);
        }
        match Envelope::untyped(head, event.payload.to_body(body)) {
            Ok(envelope) => Some(envelope),
            Err(error) => {
                let node = self.lives.get(&from).map(|life| life.node.to_string());
                tracing::warn!(node, event = event.name.text, id = %event.id, %error, "left out");
                None
            }
        }
    }
}

/// So many events of a packet are given to a group together: few enough that its workers need not wait long for the first.
const TOGETHER_MAX: usize = 128;

/// What a packet has for one group.
struct Line {
    number: u32,
    /// Those that are not given to it yet; none if there is no such group.
    arrivals: Option<Arrivals>,
    placed: u64,
    waiting: bool,
}
