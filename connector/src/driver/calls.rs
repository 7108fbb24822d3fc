//! Requests in both directions: those whose workers are on other nodes, and those of other nodes for workers here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use edri_events::{Encoding, Envelope, EventName, Failure, Incarnation, Kind};
use edri_protocol::items::{self, EventHead, Item, Reader, Writer};
use edri_protocol::packet::Lane;
use edri_router::{
    Delivery, Ended, Forgone, GroupRef, Outcome, Outcomes, Reason, ReplyTo, RequestError, Router, Ticket,
};

use super::Driver;
use super::outbox::Ready;
use super::pack::{BODY_BYTES, append, explain, with_head};
use super::unpack::Texts;
use crate::engine::{GroupKey, Source};
use crate::fault;

/// How many writers are kept for what is sent next.
const WRITERS_MAX: usize = 8;

/// Calls out and in, and what is to be sent about them.
pub(super) struct Calls {
    bell: Arc<Bell>,
    /// Requests of this node, by their tickets.
    out: BTreeMap<u64, CallOut>,
    /// Requests of other nodes, by numbers of ours.
    here: BTreeMap<u64, CallIn>,
    /// The same, by whose they are and the number they have there.
    of: BTreeMap<(Incarnation, u64), u64>,
    next: u64,
    batches: Vec<Batch>,
    /// Of batches that were sent, for the memory that they have.
    writers: Vec<Writer>,
}

/// What other threads have for the driver.
struct Bell {
    outcomes: SegQueue<(u64, Outcome)>,
    forgone: SegQueue<Ticket>,
    ready: Arc<Ready>,
}

struct CallOut {
    life: Incarnation,
    key: GroupKey,
    group: GroupRef,
    event: EventName,
}

struct CallIn {
    from: Incarnation,
    call: u64,
    ticket: Ticket,
}

/// What is being packed for one life of a node, or one of its groups.
struct Batch {
    node: Incarnation,
    group: Option<GroupKey>,
    writer: Writer,
    requests: u32,
}

impl Outcomes for Bell {
    fn outcome(&self, call: u64, outcome: Outcome) {
        self.outcomes.push((call, outcome));
        self.ready.wake.ring();
    }
}

impl Forgone for Bell {
    fn forgone(&self, ticket: Ticket) {
        self.forgone.push(ticket);
        self.ready.wake.ring();
    }
}

impl Calls {
    pub(super) fn new(router: &Router, ready: &Arc<Ready>) -> Self {
        let bell = Arc::new(Bell { outcomes: SegQueue::new(), forgone: SegQueue::new(), ready: Arc::clone(ready) });
        router.set_outcomes(Arc::clone(&bell) as Arc<dyn Outcomes>);
        router.set_forgone(Arc::clone(&bell) as Arc<dyn Forgone>);
        Self {
            bell,
            out: BTreeMap::new(),
            here: BTreeMap::new(),
            of: BTreeMap::new(),
            next: 0,
            batches: Vec::new(),
            writers: Vec::new(),
        }
    }

    /// Whether requests, or responses, wait to be sent while others of their kind are under way. Those of who asks one
    /// thing after the other never do.
    pub(super) fn is_filling(&self, requests_wait: bool) -> bool {
        let outcomes = self.bell.outcomes.len();
        (requests_wait && !self.out.is_empty()) || (outcomes > 0 && self.here.len() > outcomes)
    }

    /// Where something for this life of a node is written.
    fn batch(&mut self, node: Incarnation, group: Option<GroupKey>) -> &mut Batch {
        let found = self.batches.iter().position(|batch| batch.node == node && batch.group == group);
        let at = found.unwrap_or_else(|| {
            let writer = self.writers.pop().unwrap_or_default();
            self.batches.push(Batch { node, group, writer, requests: 0 });
            self.batches.len() - 1
        });
        &mut self.batches[at]
    }
}

impl Driver {
    // ---- out -------------------------------------------------------------------------------------------------------

    /// Sends a request, or opens a tunnel, that was taken out of an outbox.
    pub(super) fn call(&mut self, key: GroupKey, life: Incarnation, delivery: Delivery) {
        let Some(outbox) = self.outboxes.all.get_mut(&key) else { return };
        let (envelope, ticket) = (delivery.envelope.clone(), delivery.ticket());
        let Some(ticket) = ticket.filter(|ticket| self.router.watch(*ticket)) else {
            outbox.group.count(Ended::Cancelled);
            return;
        };
        let now = Instant::now();
        if envelope.head().deadline.is_some_and(|deadline| deadline <= now) {
            let detail = "its time ended before its node took it";
            self.router.discard(&outbox.group, delivery, Reason::Expired, detail);
            return;
        }
        if let ReplyTo::Tunnel(_, offer) = delivery.reply {
            return self.open_tunnel(key, life, envelope, ticket, offer.map(|offer| *offer));
        }
        let number = ticket.to_number();
        let batch = self.calls.batch(life, Some(key));
        let written = with_head(&envelope, now, |head| {
            let head = EventHead { redelivered: delivery.redelivered, ..head };
            batch.writer.request(number, &head, |out| append(&envelope, out))
        });
        if let Err(unwritten) = written {
            self.router.discard(&outbox.group, delivery, Reason::InvalidPayload, &explain(&unwritten));
            return;
        }
        batch.requests += 1;
        let full = batch.writer.len() >= BODY_BYTES;
        outbox.group.hold(1);
        outbox.unanswered += 1;
        outbox.group.set_unanswered(outbox.unanswered);
        let group = GroupRef::clone(&outbox.group);
        self.calls.out.insert(number, CallOut { life, key, group, event: envelope.name().clone() });
        if full {
            self.flush_high();
        }
    }

    /// Settles a call that is no longer out.
    pub(super) fn settle_call(&mut self, key: GroupKey, group: &GroupRef, ended: Ended) {
        group.settle(1, ended);
        if let Some(outbox) = self.outboxes.all.get_mut(&key) {
            outbox.unanswered = outbox.unanswered.saturating_sub(1);
            outbox.group.set_unanswered(outbox.unanswered);
        }
    }

    /// Requesters that wait no more.
    pub(super) fn take_forgone(&mut self) {
        while let Some(ticket) = self.calls.bell.forgone.pop() {
            let number = ticket.to_number();
            if let Some(call) = self.calls.out.remove(&number) {
                self.calls.batch(call.life, None).writer.cancel(number);
                self.settle_call(call.key, &call.group, Ended::Cancelled);
            } else {
                self.forgo_tunnel(ticket);
            }
        }
    }

    fn response(&mut self, from: Incarnation, number: u64, outcome: items::Outcome<'_>, body: &Bytes) {
        // Whoever has it no more was told so, or another life answers what it was not asked.
        if self.calls.out.get(&number).is_none_or(|call| call.life != from) {
            return;
        }
        let Some(call) = self.calls.out.remove(&number) else { return };
        let Some(life) = self.lives.get(&from) else { return };
        let outcome = fault::to_outcome(outcome, &call.event, &life.node, body);
        self.settle_call(call.key, &call.group, Ended::Forwarded);
        self.router.complete(Ticket::from_number(number), outcome);
    }

    /// Nobody will answer what this life was asked.
    pub(super) fn lose_calls(&mut self, life: Incarnation, detail: &str) {
        let mut lost: Vec<u64> =
            self.calls.out.iter().filter(|(_, call)| call.life == life).map(|(number, _)| *number).collect();
        lost.sort_unstable();
        for number in lost {
            let Some(call) = self.calls.out.remove(&number) else { continue };
            self.settle_call(call.key, &call.group, Ended::Failed);
            // One that is idempotent is asked again by its requester's own node.
            self.router.complete(Ticket::from_number(number), Err(RequestError::PeerLost(detail.to_owned())));
        }
        // What it asked has nobody who waits any more.
        let theirs: Vec<u64> =
            self.calls.here.iter().filter(|(_, call)| call.from == life).map(|(number, _)| *number).collect();
        for number in theirs {
            self.forgo(number);
        }
    }

    // ---- in --------------------------------------------------------------------------------------------------------

    pub(super) fn deliver_calls(&mut self, source: Source, groups: &[u32], body: &Bytes, age: Duration) {
        let from = source.node;
        let now = Instant::now();
        let mut texts = Texts::default();
        let (mut placed, mut waiting) = (0, false);
        for item in Reader::new(body) {
            match item {
                Ok(Item::Request { call, event }) => {
                    let envelope = self.envelope(from, &event, Kind::Request, body, (now, age), &mut texts);
                    match (envelope, groups.first()) {
                        (None, _) => {
                            placed += 1;
                            let failure = Failure::new("invalid_payload", "the event is not understood there");
                            self.answer(from, call, Err(RequestError::Elsewhere(failure)));
                        }
                        // Its group had left before it was sent again.
                        (Some(envelope), None) => {
                            self.answer(from, call, Err(RequestError::NoHandler(envelope.name().clone())));
                        }
                        (Some(envelope), Some(&group)) => {
                            match self.request(source, (call, group), envelope, (event.tried, event.redelivered)) {
                                true => placed += 1,
                                false => waiting = true,
                            }
                        }
                    }
                }
                Ok(Item::Noted { manager, version, .. }) => self.divisions.noted_among_requests(from, manager, version),
                Ok(Item::Response { call, outcome }) => self.response(from, call, outcome, body),
                Ok(Item::Cancel { call }) => {
                    if let Some(&number) = self.calls.of.get(&(from, call)) {
                        self.forgo(number);
                    }
                }
                Ok(other) => tracing::debug!(?other, "an item that does not belong among requests is left out"),
                Err(error) => {
                    let node = self.lives.get(&from).map(|life| life.node.to_string());
                    tracing::error!(%error, node, "the rest of a packet of requests cannot be read and is lost");
                    break;
                }
            }
        }
        let now = self.now();
        if let Some(&group) = groups.first() {
            let bytes = if waiting { 0 } else { body.len() as u64 };
            self.engine.placed(now, source, group, placed, bytes);
            if waiting {
                self.intake.weigh_last(group, body.len() as u64);
            }
        }
    }

    /// Gives a request to a group of this node; false if it waits for room.
    fn request(
        &mut self,
        source: Source,
        (call, group): (u64, u32),
        envelope: Envelope,
        (tried, redelivered): (u32, bool),
    ) -> bool {
        let from = source.node;
        self.calls.next += 1;
        let number = self.calls.next;
        let Some(ticket) = self.router.await_call(number) else {
            self.answer(from, call, Err(RequestError::Overloaded(Box::default())));
            return true;
        };
        self.calls.here.insert(number, CallIn { from, call, ticket });
        self.calls.of.insert((from, call), number);
        let mut delivery = Delivery::arriving(envelope, ReplyTo::Response(ticket));
        (delivery.attempts, delivery.redelivered) = (tried, redelivered);
        self.arrive(group, delivery, source)
    }

    /// A delivery for a group that is not there.
    pub(super) fn nobody(&mut self, delivery: Delivery) {
        if let Some(ticket) = delivery.ticket() {
            let event = delivery.envelope.name().clone();
            self.router.complete(ticket, Err(RequestError::NoHandler(event)));
        }
    }

    /// Nobody waits for this call any more.
    fn forgo(&mut self, number: u64) {
        if let Some(call) = self.calls.here.get(&number) {
            self.router.forgo(call.ticket);
        }
    }

    /// Outcomes of what other nodes have asked.
    pub(super) fn take_outcomes(&mut self) {
        while let Some((number, outcome)) = self.calls.bell.outcomes.pop() {
            match self.calls.here.remove(&number) {
                Some(CallIn { from, call, .. }) => {
                    self.calls.of.remove(&(from, call));
                    self.answer(from, call, outcome);
                }
                None => self.tunnel_outcome(number, outcome),
            }
        }
    }

    fn answer(&mut self, to: Incarnation, call: u64, outcome: Outcome) {
        if !self.lives.contains_key(&to) {
            return;
        }
        let batch = self.calls.batch(to, None);
        write_outcome(outcome, |outcome| batch.writer.response(call, outcome));
        if batch.writer.len() >= BODY_BYTES {
            self.flush_high();
        }
    }

    /// Says behind all requests so far that the saying of another life about the keys of a manager was noted.
    pub(super) fn note_among_requests(&mut self, to: Incarnation, manager: &str, version: u64, agreed: u64) {
        self.calls.batch(to, None).writer.noted(manager, version, agreed);
        // Requests go first.
        self.flush_high();
    }

    /// A number for something that other nodes have opened here.
    pub(super) fn next_call(&mut self) -> u64 {
        self.calls.next += 1;
        self.calls.next
    }

    /// Sends what was written about requests.
    pub(super) fn flush_high(&mut self) {
        if self.calls.batches.is_empty() {
            return;
        }
        // Requests first, so that the cancel of one never goes before it.
        let mut batches = std::mem::take(&mut self.calls.batches);
        batches.sort_by_key(|batch| batch.group.is_none());
        for Batch { node, group, mut writer, requests } in batches.drain(..) {
            if !writer.is_empty() {
                let body = writer.take();
                self.send_to_node(node, Lane::High, group.into_iter().collect(), body.into(), requests);
            }
            if self.calls.writers.len() < WRITERS_MAX {
                self.calls.writers.push(writer);
            }
        }
        // For the memory that it has.
        self.calls.batches = batches;
    }
}

/// Writes an outcome; one that is too long as the error that says so.
pub(super) fn write_outcome(
    outcome: Outcome,
    mut write: impl FnMut(&items::Outcome<'_>) -> Result<(), items::TooLong>,
) {
    let body = match outcome {
        Ok(value) => value.into_body(Encoding::MessagePack).map_err(RequestError::Payload),
        Err(error) => Err(error),
    };
    let written = match &body {
        Ok(body) => write(&items::Outcome::Value(edri_protocol::Payload::of(body))),
        Err(error) => write(&fault::from_error(error)),
    };
    if let Err(too_long) = written {
        let error = RequestError::Elsewhere(Failure::new("too_large", too_long.to_string()));
        // It is short.
        let _ = write(&fault::from_error(&error));
    }
}
