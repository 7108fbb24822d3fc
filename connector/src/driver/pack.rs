//! From the outboxes into packets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use edri_events::{CodecError, Encoding, Envelope, Incarnation};
use edri_protocol::items::{EventHead, Unwritten, Writer};
use edri_protocol::packet::Lane;
use edri_router::{Delivery, Ended, GroupRef, Reason, ReplyTo};

use super::{Batch, Driver, Keep};
use crate::engine::{GroupKey, PacketBody, Target};
use crate::merge::{Run, merge};

/// A packet is sent once its body is as long.
pub(super) const BODY_BYTES: usize = 60 << 10;
/// The most events that are taken out of an outbox at a time.
const TAKEN_MAX: usize = 512;

/// What is being packed.
#[derive(Default)]
pub(super) struct Packer {
    writer: Writer,
    /// How long the events for a group are, about; so that a batch does not go far beyond its credit.
    event_bytes: HashMap<GroupKey, usize>,
}

impl Packer {
    /// About how many events may be sent to a group that has granted so many, and so many bytes.
    pub(super) fn most(&self, key: GroupKey, events: u64, bytes: u64) -> usize {
        let each = self.event_bytes.get(&key).copied().unwrap_or(256).max(1);
        (events as usize).min((bytes as usize).div_ceil(each))
    }
}

impl Driver {
    /// Takes out of the outboxes what may be sent now, and sends it. Whether notifications were among it.
    pub(super) fn pack(&mut self) -> bool {
        self.outboxes.collect();
        self.collect_slots();
        if self.outboxes.waiting.is_empty() {
            return false;
        }
        let mut packed = false;
        loop {
            let mut batches: Vec<(GroupKey, Vec<Envelope>)> = Vec::new();
            let (mut left, mut emptied) = (Vec::new(), Vec::new());
            let mut more = false;
            for key in std::mem::take(&mut self.outboxes.waiting) {
                let events = match self.take_batch(key) {
                    Taken::Nothing => continue,
                    Taken::Blocked => {
                        left.push(key);
                        continue;
                    }
                    Taken::Some(events) => {
                        left.push(key);
                        more = true;
                        events
                    }
                    Taken::Last(events) => {
                        emptied.push(key);
                        events
                    }
                };
                if !events.is_empty() {
                    batches.push((key, events));
                }
            }
            self.outboxes.waiting = left;
            packed |= !batches.is_empty();
            for run in merge(batches, |envelope| std::ptr::from_ref(envelope.head()) as usize) {
                self.send_run(run);
            }
            for key in emptied {
                self.drained(key);
            }
            if !more {
                return packed;
            }
        }
    }

    /// Takes what may be sent to one group now. Requests and tunnels among it are sent at once.
    fn take_batch(&mut self, key: GroupKey) -> Taken {
        let now = self.now();
        let Some(outbox) = self.outboxes.all.get_mut(&key) else { return Taken::Nothing };
        if let Some(name) = outbox.group.divided().cloned() {
            return self.take_divided(key, &name);
        }
        let Some(life) = outbox.life.filter(|life| self.engine.has_room(*life, Lane::Normal)) else {
            let rests = outbox.depth() == 0 && outbox.withdrawn.is_none() && outbox.is_armed();
            return if rests { Taken::Nothing } else { Taken::Blocked };
        };
        let (events, bytes) = self.engine.credit(key);
        if events == 0 || bytes == 0 {
            // One that is not armed rings for nobody: it is looked into until it is.
            if outbox.depth() == 0 && (outbox.withdrawn.is_some() || outbox.is_armed()) {
                return Taken::Last(Vec::new());
            }
            if outbox.depth() > 0 {
                self.engine.starve(now, key);
            }
            return Taken::Blocked;
        }
        let most = self.packer.most(key, events, bytes).min(TAKEN_MAX);
        let group = GroupRef::clone(&outbox.group);
        let (mut taken, expected) = (Vec::new(), most.min(outbox.depth() + 1));
        let mut calls = Vec::new();
        let mut empty = false;
        while taken.len() + calls.len() < most {
            match outbox.take() {
                None => {
                    empty = true;
                    break;
                }
                Some(delivery) if matches!(delivery.reply, ReplyTo::None) => {
                    if taken.is_empty() {
                        taken.reserve(expected);
                    }
                    taken.push(delivery);
                }
                Some(delivery) => calls.push(delivery),
            }
        }
        outbox.give_back();
        let events = self.sendable(key, &group, taken);
        for delivery in calls {
            self.call(key, life, delivery);
        }
        if empty { Taken::Last(events) } else { Taken::Some(events) }
    }

    /// What may go with that of other groups. If a life that has ended may have handled some of it, all of it goes at once, one by one, so
    /// that only those are marked and none overtakes another.
    pub(super) fn sendable(&mut self, key: GroupKey, group: &GroupRef, taken: Vec<Delivery>) -> Vec<Envelope> {
        if !taken.iter().any(|delivery| delivery.redelivered) {
            let events = self.still_alive(group, taken);
            group.hold(events.len());
            return events;
        }
        for delivery in taken {
            let marked = delivery.redelivered;
            for envelope in self.still_alive(group, vec![delivery]) {
                group.hold(1);
                self.send_again(key, envelope, marked);
            }
        }
        Vec::new()
    }

    /// Those that have not lived too long; the others are dead letters.
    fn still_alive(&self, group: &GroupRef, taken: Vec<Delivery>) -> Vec<Envelope> {
        let mut now = None;
        let mut events = Vec::with_capacity(taken.len());
        for delivery in taken {
            let deadline = delivery.envelope.head().deadline;
            if deadline.is_some_and(|deadline| deadline <= *now.get_or_insert_with(Instant::now)) {
                let detail = "its time to live ended before its node took it";
                self.router.discard(group, delivery, Reason::Expired, detail);
            } else {
                events.push(delivery.envelope);
            }
        }
        events
    }

    fn send_run(&mut self, run: Run<Envelope>) {
        let Run { groups, items } = run;
        let targets = self.targets(&groups);
        let mut kept = Vec::with_capacity(items.len());
        let now = Instant::now();
        for envelope in items {
            match write_event(&mut self.packer.writer, &envelope, now) {
                Ok(()) => kept.push(envelope),
                Err(detail) => self.unwritable(&groups, &envelope, &detail),
            }
            if self.packer.writer.len() >= BODY_BYTES {
                self.send_events(&groups, &targets, std::mem::take(&mut kept));
            }
        }
        self.send_events(&groups, &targets, kept);
    }

    fn send_events(&mut self, groups: &[GroupKey], targets: &[Target], kept: Vec<Envelope>) {
        if kept.is_empty() {
            return;
        }
        let body = self.packer.writer.take();
        let mut accounts = Vec::with_capacity(groups.len());
        for key in groups {
            let each = self.packer.event_bytes.entry(*key).or_insert(256);
            *each = (*each * 7 + body.len() / kept.len()) / 8 + 1;
            accounts.extend(self.outboxes.all.get(key).map(|outbox| (*key, GroupRef::clone(&outbox.group))));
        }
        let events = u32::try_from(kept.len()).unwrap_or(u32::MAX);
        let now = self.now();
        let batch = Batch { events: kept, groups: accounts, redelivered: false };
        self.engine.send(now, Lane::Normal, targets, body.into(), events, &Some(Arc::new(batch)));
    }

    /// Sends an event alone, marked if a life that has ended may have handled it.
    fn send_again(&mut self, key: GroupKey, envelope: Envelope, redelivered: bool) {
        let groups = [key];
        let targets = self.targets(&groups);
        let written = with_head(&envelope, Instant::now(), |head| {
            let head = EventHead { redelivered, ..head };
            self.packer.writer.event(&head, |out| append(&envelope, out))
        });
        if let Err(unwritten) = written {
            return self.unwritable(&groups, &envelope, &explain(&unwritten));
        }
        let Some(outbox) = self.outboxes.all.get(&key) else { return };
        let body = self.packer.writer.take();
        let groups = vec![(key, GroupRef::clone(&outbox.group))];
        let batch = Batch { events: vec![envelope], groups, redelivered };
        let now = self.now();
        self.engine.send(now, Lane::Normal, &targets, body.into(), 1, &Some(Arc::new(batch)));
    }

    /// The lives of nodes, with the groups of each.
    fn targets(&self, groups: &[GroupKey]) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        for key in groups {
            let Some(node) = self.outboxes.all.get(key).and_then(|outbox| outbox.life) else { continue };
            match targets.iter_mut().find(|target| target.node == node) {
                Some(target) => target.groups.push(*key),
                None => targets.push(Target { node, groups: vec![*key] }),
            }
        }
        targets
    }

    fn unwritable(&mut self, groups: &[GroupKey], envelope: &Envelope, detail: &str) {
        for key in groups {
            let Some(outbox) = self.outboxes.all.get_mut(key) else { continue };
            let delivery = Delivery::arriving(envelope.clone(), ReplyTo::None);
            self.router.discard(&outbox.group, delivery, Reason::InvalidPayload, detail);
            outbox.group.release(1);
        }
    }

    /// Sends to a life of a node itself, in a lane whose order matters to nobody else.
    pub(super) fn send_to_node(
        &mut self,
        node: Incarnation,
        lane: Lane,
        groups: Vec<GroupKey>,
        body: PacketBody,
        events: u32,
    ) {
        let now = self.now();
        self.engine.send(now, lane, &[Target { node, groups }], body, events, &None);
    }
}

/// Groups have a packet. Of requests and tunnels their answers tell.
pub(super) fn confirmed(groups: &[GroupKey], keep: &Keep) {
    let Some(batch) = keep else { return };
    for group in groups.iter().filter_map(|key| batch.group(*key)) {
        group.settle(batch.events.len(), Ended::Forwarded);
    }
}

/// What came of looking into an outbox.
pub(super) enum Taken {
    /// It is empty; it rings once it is not.
    Nothing,
    /// It may not be sent from now.
    Blocked,
    /// There may be more.
    Some(Vec<Envelope>),
    /// That was all; it rings once there is more.
    Last(Vec<Envelope>),
}

/// What is written of an event beside its payload.
pub(super) fn with_head<R>(envelope: &Envelope, now: Instant, with: impl FnOnce(EventHead<'_>) -> R) -> R {
    let head = envelope.head();
    envelope.with_key(|key| {
        with(EventHead {
            manager: head.origin.manager.as_ref().map(|manager| manager.as_str()),
            key,
            cause: head.cause,
            trace: head.trace,
            timeout_ms: head
                .deadline
                .map(|deadline| u64::try_from(deadline.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)),
            headers: head.headers(),
            ..EventHead::new(head.descriptor.name().as_str(), head.id, Encoding::MessagePack)
        })
    })
}

pub(super) fn write_event(writer: &mut Writer, envelope: &Envelope, now: Instant) -> Result<(), String> {
    let written = with_head(envelope, now, |head| writer.event(&head, |out| append(envelope, out)));
    written.map(|_| ()).map_err(|unwritten| explain(&unwritten))
}

/// Appends the payload's MessagePack.
pub(super) fn append(envelope: &Envelope, out: &mut Vec<u8>) -> Result<(), CodecError> {
    envelope.append_encoded(Encoding::MessagePack, out)
}

pub(super) fn explain(unwritten: &Unwritten<CodecError>) -> String {
    unwritten.to_string()
}
