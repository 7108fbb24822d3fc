//! Tunnels to and from other nodes. Each has a lane of its own in either direction of the session, so it resumes at the
//! exact item and waits for nobody; its credit goes from end to end.
//!
//! A tunnel is known by the life of its opener and a number of that life: its ticket.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use edri_events::{Body, Envelope, EventName, Incarnation, Kind};
use edri_protocol::items::{self, Item, Reader, Writer};
use edri_protocol::packet::Lane;
use edri_router::{
    Delivery, Ended, Grant, GroupRef, Offer, Opener, OtherSide, Outcome, ReplyTo, RequestError, Router, Ticket,
    TunnelError, Tunnels, Window, from_elsewhere,
};

use super::Driver;
use super::calls::write_outcome;
use super::outbox::Ready;
use super::pack::{BODY_BYTES, append, explain, with_head};
use super::unpack::Texts;
use crate::engine::{GroupKey, PacketBody, Source};
use crate::fault;

/// What is taken in each direction of a tunnel before credit is given again.
const WINDOW: Grant = Grant { items: 256, bytes: 4 << 20 };

/// A tunnel with another node: that node's life, the number its opener gave it, and whether the opener is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    life: Incarnation,
    number: u64,
    opener: Opener,
}

impl Key {
    /// The lane in which this node sends.
    fn lane_out(self) -> Lane {
        match self.opener {
            Opener::Here => Lane::Up(self.number),
            Opener::There => Lane::Down(self.number),
        }
    }

    /// The lane in which it receives.
    fn lane_in(self) -> Lane {
        match self.opener {
            Opener::Here => Lane::Down(self.number),
            Opener::There => Lane::Up(self.number),
        }
    }
}

/// The tunnels with other nodes.
pub(super) struct TunnelsOf {
    side: Arc<Side>,
    flows: Arc<Tunnels<Side>>,
    all: HashMap<Key, Tunnel>,
    /// Those that were opened here, by their numbers.
    opened: HashMap<u64, Key>,
    /// Those that were opened there, by the numbers of their calls here.
    accepted: HashMap<u64, Key>,
    writer: Writer,
}

struct Tunnel {
    ticket: Ticket,
    /// The group that it was opened to, and the event's name; of one opened here.
    to: Option<(GroupKey, GroupRef, EventName)>,
    /// The number of its call; of one opened there.
    call: u64,
    /// What was granted to the other side, in all; and by it.
    granted: Grant,
    taken: Grant,
    /// What is to be sent.
    waiting: VecDeque<Said>,
    listed: bool,
}

/// What is said to the other side of a tunnel.
enum Said {
    Item(Body),
    Credit(Grant),
    End,
    Abort(TunnelError),
    Cancel,
    Outcome(Outcome),
}

/// Takes what the pumps of tunnels say, until the driver sends it.
struct Side {
    said: SegQueue<(Key, Said)>,
    ready: Arc<Ready>,
}

impl Side {
    fn say(&self, key: Key, said: Said) {
        self.said.push((key, said));
        self.ready.wake.ring();
    }
}

impl OtherSide for Side {
    type Key = Key;

    fn item(&self, key: Key, item: Body) -> Result<u64, TunnelError> {
        let bytes = item.bytes.len() as u64;
        self.say(key, Said::Item(item));
        Ok(bytes)
    }

    fn credit(&self, key: Key, more: Grant) {
        self.say(key, Said::Credit(more));
    }

    fn end(&self, key: Key) {
        self.say(key, Said::End);
    }

    fn abort(&self, key: Key, error: &TunnelError) {
        self.say(key, Said::Abort(error.clone()));
    }
}

impl TunnelsOf {
    pub(super) fn new(router: &Router, ready: &Arc<Ready>) -> Self {
        let side = Arc::new(Side { said: SegQueue::new(), ready: Arc::clone(ready) });
        let flows = Arc::new(Tunnels::new(Arc::clone(&side), WINDOW, router.runtime().clone()));
        Self {
            side,
            flows,
            all: HashMap::new(),
            opened: HashMap::new(),
            accepted: HashMap::new(),
            writer: Writer::new(),
        }
    }
}

impl Driver {
    // ---- opened here -----------------------------------------------------------------------------------------------

    pub(super) fn open_tunnel(
        &mut self,
        group: GroupKey,
        life: Incarnation,
        envelope: Envelope,
        ticket: Ticket,
        offer: Option<Box<dyn Offer>>,
    ) {
        let Some(offer) = offer else { return };
        let number = ticket.to_number();
        let key = Key { life, number, opener: Opener::Here };
        let credit = items_grant(WINDOW);
        let writer = &mut self.tunnels.writer;
        let written =
            with_head(&envelope, Instant::now(), |head| writer.open(&head, credit, |out| append(&envelope, out)));
        if let Err(unwritten) = written {
            let failure = edri_events::Failure::new("invalid_payload", explain(&unwritten));
            if let Some(outbox) = self.outboxes.all.get(&group) {
                outbox.group.count(Ended::Failed);
            }
            self.router.complete(ticket, Err(RequestError::Elsewhere(failure)));
            return;
        }
        let body = self.tunnels.writer.take();
        self.send_to_node(life, key.lane_out(), vec![group], body.into(), 1);
        let Some(outbox) = self.outboxes.all.get_mut(&group) else { return };
        outbox.group.hold(1);
        outbox.unanswered += 1;
        outbox.group.set_unanswered(outbox.unanswered);
        let to = Some((group, GroupRef::clone(&outbox.group), envelope.name().clone()));
        self.add_tunnel(key, Tunnel { to, granted: WINDOW, ..Tunnel::new(ticket, 0) });
        self.tunnels.opened.insert(number, key);
        let (receiver, sender) = offer.into_untyped();
        self.tunnels.flows.run(key, Opener::Here, receiver, sender, Grant::default());
    }

    fn add_tunnel(&mut self, key: Key, tunnel: Tunnel) {
        self.tunnels.all.insert(key, tunnel);
    }

    /// An opener waits no more: its worker is told.
    pub(super) fn forgo_tunnel(&mut self, ticket: Ticket) {
        if let Some(&key) = self.tunnels.opened.get(&ticket.to_number()) {
            self.tunnels.side.say(key, Said::Cancel);
        }
    }

    /// A tunnel is over on this side.
    fn end_tunnel(&mut self, key: Key, ended: Ended) -> Option<Tunnel> {
        let tunnel = self.tunnels.all.remove(&key)?;
        match key.opener {
            Opener::Here => self.tunnels.opened.remove(&key.number),
            Opener::There => self.tunnels.accepted.remove(&tunnel.call),
        };
        let now = self.now();
        self.engine.end_lane(key.life, key.lane_out());
        self.engine.lane_ended(now, key.life, key.lane_in());
        if let Some((key, group, _)) = &tunnel.to {
            self.settle_call(*key, group, ended);
        }
        Some(tunnel)
    }

    /// Nothing comes any more from this life, and nothing goes to it.
    pub(super) fn lose_tunnels(&mut self, life: Incarnation, detail: &str) {
        let mut keys: Vec<Key> = self.tunnels.all.keys().filter(|key| key.life == life).copied().collect();
        keys.sort_unstable();
        for key in keys {
            let error = Arc::new(RequestError::PeerLost(detail.to_owned()));
            self.tunnels.flows.break_off(key, TunnelError::Ended(error));
            self.tunnels.flows.over(key);
            let Some(tunnel) = self.end_tunnel(key, Ended::Failed) else { continue };
            match key.opener {
                Opener::Here => {
                    self.router.complete(tunnel.ticket, Err(RequestError::PeerLost(detail.to_owned())));
                }
                Opener::There => {
                    self.router.forgo(tunnel.ticket);
                }
            }
        }
    }

    // ---- opened there ----------------------------------------------------------------------------------------------

    pub(super) fn deliver_to_tunnel(
        &mut self,
        source: Source,
        lane: Lane,
        groups: &[u32],
        body: &Bytes,
        age: Duration,
    ) {
        let from = source.node;
        let (number, opener) = match lane {
            Lane::Up(number) => (number, Opener::There),
            Lane::Down(number) => (number, Opener::Here),
            Lane::High | Lane::Normal => return,
        };
        let key = Key { life: from, number, opener };
        for item in Reader::new(body) {
            match item {
                Ok(Item::Open { event, credit }) if opener == Opener::There => {
                    let mut texts = Texts::default();
                    let envelope = self.envelope(from, &event, Kind::Tunnel, body, (Instant::now(), age), &mut texts);
                    let placed = self.accept_tunnel(source, key, groups, envelope, credit);
                    if let Some(&group) = groups.first() {
                        let now = self.now();
                        match placed {
                            true => self.engine.placed(now, source, group, 1, body.len() as u64),
                            false => self.intake.weigh_last(group, body.len() as u64),
                        }
                    }
                }
                Ok(item) => self.tunnel_item(key, item, body),
                Err(error) => {
                    tracing::error!(%error, "an item of a tunnel cannot be read");
                    let failure = edri_events::Failure::new("malformed", "an item that cannot be read");
                    self.tunnels.flows.break_off(key, TunnelError::Aborted(failure));
                    break;
                }
            }
        }
    }

    /// Takes a tunnel that another node opens; false if it waits for room.
    fn accept_tunnel(
        &mut self,
        source: Source,
        key: Key,
        groups: &[u32],
        envelope: Option<Envelope>,
        credit: edri_protocol::Grant,
    ) -> bool {
        let call = self.next_call();
        let opened = envelope.zip(groups.first()).and_then(|both| Some((both, self.router.await_call(call)?)));
        let Some(((envelope, &group), ticket)) = opened else {
            // It has an outcome, and that is all there is of it.
            let failure = edri_events::Failure::new("overloaded", "the node cannot take this tunnel");
            self.add_tunnel(key, Tunnel::new(Ticket::from_number(u64::MAX), call));
            self.tunnels.side.say(key, Said::Outcome(Err(RequestError::Elsewhere(failure))));
            return true;
        };
        let window = Window { items: WINDOW.items as usize, bytes: WINDOW.bytes as usize };
        let (offer, sender, receiver) = from_elsewhere(window);
        let credit = Grant { items: credit.items, bytes: credit.bytes };
        self.add_tunnel(key, Tunnel { taken: credit, ..Tunnel::new(ticket, call) });
        self.tunnels.accepted.insert(call, key);
        self.tunnels.flows.run(key, Opener::There, receiver, sender, credit);
        self.arrive(group, Delivery::arriving(envelope, ReplyTo::Tunnel(ticket, Some(Box::new(offer)))), source)
    }

    fn tunnel_item(&mut self, key: Key, item: Item<'_>, body: &Bytes) {
        match item {
            Item::Data(payload) => {
                self.tunnels.flows.item(key, payload.to_body(body));
            }
            Item::Grant(granted) => {
                let Some(tunnel) = self.tunnels.all.get_mut(&key) else { return };
                let more = Grant {
                    items: granted.items.saturating_sub(tunnel.taken.items),
                    bytes: granted.bytes.saturating_sub(tunnel.taken.bytes),
                };
                tunnel.taken = Grant { items: granted.items, bytes: granted.bytes };
                self.tunnels.flows.credit(key, more);
            }
            Item::End => {
                self.tunnels.flows.end(key);
            }
            Item::Abort(failure) => {
                self.tunnels.flows.abort(key, fault::to_tunnel(failure));
            }
            Item::Cancel { .. } => {
                if let Some(tunnel) = self.tunnels.all.get(&key) {
                    self.router.forgo(tunnel.ticket);
                }
            }
            Item::Outcome(outcome) if key.opener == Opener::Here => self.tunnel_done(key, outcome, body),
            other => tracing::debug!(?other, "an item that does not belong in a tunnel is left out"),
        }
    }

    /// The worker there is done with a tunnel that was opened here.
    fn tunnel_done(&mut self, key: Key, outcome: items::Outcome<'_>, body: &Bytes) {
        let tunnel = self.end_tunnel(key, Ended::Forwarded);
        if let (Some(Tunnel { ticket, to: Some((_, _, event)), .. }), Some(life)) = (tunnel, self.lives.get(&key.life))
        {
            self.router.complete(ticket, fault::to_outcome(outcome, &event, &life.node, body));
        }
        // After its outcome, so that the opener's half ends as that says; what is here already is still read.
        self.tunnels.flows.over(key);
    }

    /// A worker here is done with a tunnel that was opened there. What it sent goes before that.
    pub(super) fn tunnel_outcome(&mut self, call: u64, outcome: Outcome) {
        let Some(&key) = self.tunnels.accepted.get(&call) else { return };
        let (flows, side) = (Arc::clone(&self.tunnels.flows), Arc::clone(&self.tunnels.side));
        self.router.runtime().spawn(async move {
            flows.sent(key).await;
            side.say(key, Said::Outcome(outcome));
        });
    }

    // ---- out of both -----------------------------------------------------------------------------------------------

    /// Sends what tunnels have for their other sides, as far as there is room.
    pub(super) fn take_tunnels(&mut self) {
        let mut touched = Vec::new();
        while let Some((key, said)) = self.tunnels.side.said.pop() {
            let Some(tunnel) = self.tunnels.all.get_mut(&key) else { continue };
            tunnel.waiting.push_back(said);
            if !std::mem::replace(&mut tunnel.listed, true) {
                touched.push(key);
            }
        }
        self.blocked_tunnels.append(&mut touched);
        for key in std::mem::take(&mut self.blocked_tunnels) {
            if !self.send_tunnel(key) {
                self.blocked_tunnels.push(key);
            }
        }
    }

    /// Sends what a tunnel has; false if there is no room for all of it.
    fn send_tunnel(&mut self, key: Key) -> bool {
        let lane = key.lane_out();
        loop {
            let Some(tunnel) = self.tunnels.all.get_mut(&key) else { return true };
            if tunnel.waiting.is_empty() {
                tunnel.listed = false;
                return true;
            }
            if !self.engine.has_room(key.life, lane) {
                return false;
            }
            let writer = &mut self.tunnels.writer;
            let (mut done, mut long) = (false, None);
            while writer.len() < BODY_BYTES && !done && long.is_none() {
                let Some(said) = tunnel.waiting.pop_front() else { break };
                match said {
                    // It fills a packet, and is not copied into it.
                    Said::Item(item) if item.bytes.len() >= BODY_BYTES && !writer.is_empty() => {
                        tunnel.waiting.push_front(Said::Item(item));
                        break;
                    }
                    Said::Item(Body { bytes, encoding }) => {
                        let written = if bytes.len() >= BODY_BYTES {
                            items::data_head(encoding, bytes.len()).map(|head| long = Some((head, bytes)))
                        } else {
                            writer.data(encoding, &bytes)
                        };
                        if let Err(too_long) = written {
                            let failure = edri_events::Failure::new("too_large", too_long.to_string());
                            self.tunnels.flows.break_off(key, TunnelError::Aborted(failure));
                        }
                    }
                    Said::Credit(more) => {
                        tunnel.granted.items += more.items;
                        tunnel.granted.bytes += more.bytes;
                        writer.grant(items_grant(tunnel.granted));
                    }
                    Said::End => writer.end(),
                    Said::Abort(error) => {
                        if let Err(error) = writer.abort(&fault::from_tunnel(&error)) {
                            tracing::error!(%error, "why a tunnel broke is too long to be told");
                            writer.end();
                        }
                    }
                    Said::Cancel => writer.cancel(key.number),
                    Said::Outcome(outcome) => {
                        write_outcome(outcome, |outcome| writer.outcome(outcome));
                        done = true;
                    }
                }
            }
            let body = match long {
                Some((head, payload)) => PacketBody::in_two(Bytes::copy_from_slice(&head), payload),
                None => writer.take().into(),
            };
            self.send_to_node(key.life, lane, Vec::new(), body, 0);
            if done {
                self.tunnels.flows.over(key);
                self.end_tunnel(key, Ended::Handled);
                return true;
            }
        }
    }
}

impl Tunnel {
    fn new(ticket: Ticket, call: u64) -> Self {
        Self {
            ticket,
            to: None,
            call,
            granted: Grant::default(),
            taken: Grant::default(),
            waiting: VecDeque::new(),
            listed: false,
        }
    }
}

fn items_grant(grant: Grant) -> edri_protocol::Grant {
    edri_protocol::Grant { items: grant.items, bytes: grant.bytes }
}
