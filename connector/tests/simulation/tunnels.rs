//! Tunnels on the lanes of sessions: numbered items one way, credit the other.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use edri_connector::engine::{PacketBody, Target};
use edri_events::Incarnation;
use edri_protocol::packet::Lane;

use crate::dice::Dice;
use crate::host::{Keep, SimEngine};
use crate::ledger::Ledger;

const OPEN: u8 = 0;
const DATA: u8 = 1;
const END: u8 = 2;
const GRANT: u8 = 3;
const DONE: u8 = 4;
const WINDOW: u64 = 8;

#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    next: u64,
    /// Those that this life has opened.
    opened: BTreeMap<u64, Opened>,
    /// Those that were opened to this life.
    accepted: BTreeMap<(Incarnation, u64), Accepted>,
    pub(crate) completed: u32,
    pub(crate) broken: u32,
    /// Items of tunnels that are not open here: only after one was broken.
    pub(crate) unknown: u32,
}

#[derive(Debug)]
struct Opened {
    to: Incarnation,
    sent: u64,
    count: u64,
    granted: u64,
    ended: bool,
}

#[derive(Debug)]
struct Accepted {
    received: u64,
    taken: u64,
    granted: u64,
    count: Option<u64>,
}

impl Tunnels {
    pub(crate) fn open(&mut self, now: Duration, engine: &mut SimEngine, to: Incarnation, count: u64) {
        self.next += 1;
        self.opened.insert(self.next, Opened { to, sent: 0, count, granted: WINDOW, ended: false });
        send(now, engine, to, Lane::Up(self.next), OPEN, 0);
    }

    pub(crate) fn work(&mut self, now: Duration, engine: &mut SimEngine, dice: &mut Dice) {
        for (id, tunnel) in &mut self.opened {
            let lane = Lane::Up(*id);
            while tunnel.sent < tunnel.count.min(tunnel.granted) && engine.has_room(tunnel.to, lane) {
                send(now, engine, tunnel.to, lane, DATA, tunnel.sent);
                tunnel.sent += 1;
            }
            if tunnel.sent == tunnel.count && !tunnel.ended {
                tunnel.ended = true;
                send(now, engine, tunnel.to, lane, END, tunnel.sent);
            }
        }
        let mut done = Vec::new();
        for ((from, id), tunnel) in &mut self.accepted {
            tunnel.taken = (tunnel.taken + dice.below(4)).min(tunnel.received);
            let lane = Lane::Down(*id);
            if tunnel.count == Some(tunnel.taken) {
                send(now, engine, *from, lane, DONE, tunnel.taken);
                done.push((*from, *id));
            } else if tunnel.taken + WINDOW > tunnel.granted {
                tunnel.granted = tunnel.taken + WINDOW;
                send(now, engine, *from, lane, GRANT, tunnel.granted);
            }
        }
        for (from, id) in done {
            self.accepted.remove(&(from, id));
            engine.end_lane(from, Lane::Down(id));
            engine.lane_ended(now, from, Lane::Up(id));
        }
    }

    pub(crate) fn receive(
        &mut self,
        now: Duration,
        engine: &mut SimEngine,
        from: Incarnation,
        lane: Lane,
        body: &Bytes,
        ledger: &mut Ledger,
    ) {
        let number = u64::from_be_bytes(body[1..9].try_into().expect("eight"));
        match (lane, body[0]) {
            (Lane::Up(id), OPEN) => {
                let tunnel = Accepted { received: 0, taken: 0, granted: WINDOW, count: None };
                if self.accepted.insert((from, id), tunnel).is_some() {
                    ledger.wrong.push(format!("tunnel {id} of {from} opened twice"));
                }
            }
            (Lane::Up(id), kind) => {
                let Some(tunnel) = self.accepted.get_mut(&(from, id)) else {
                    self.unknown += 1;
                    return;
                };
                if tunnel.received != number {
                    ledger.wrong.push(format!("tunnel {id} of {from}: {number} after {}", tunnel.received));
                }
                match kind {
                    DATA if number >= tunnel.granted => ledger.wrong.push(format!("tunnel {id}: beyond its credit")),
                    DATA => tunnel.received += 1,
                    _ => tunnel.count = Some(number),
                }
            }
            (Lane::Down(id), GRANT) => {
                if let Some(tunnel) = self.opened.get_mut(&id) {
                    tunnel.granted = number;
                }
            }
            (Lane::Down(id), _) => {
                let Some(tunnel) = self.opened.remove(&id) else { return };
                if number != tunnel.count {
                    ledger.wrong.push(format!("tunnel {id} ended with {number} of {}", tunnel.count));
                }
                self.completed += 1;
                engine.end_lane(from, Lane::Up(id));
                engine.lane_ended(now, from, Lane::Down(id));
            }
            (Lane::High | Lane::Normal, _) => unreachable!("no lanes of tunnels"),
        }
    }

    pub(crate) fn peer_lost(&mut self, now: Duration, engine: &mut SimEngine, node: Incarnation) {
        let opened = self.opened.iter().filter(|(_, tunnel)| tunnel.to == node);
        let accepted = self.accepted.keys().filter(|(from, _)| *from == node);
        let opened = opened.map(|(id, _)| (Lane::Up(*id), Lane::Down(*id)));
        for (out, back) in opened.chain(accepted.map(|(_, id)| (Lane::Down(*id), Lane::Up(*id)))) {
            self.broken += 1;
            engine.end_lane(node, out);
            engine.lane_ended(now, node, back);
        }
        self.opened.retain(|_, tunnel| tunnel.to != node);
        self.accepted.retain(|(from, _), _| *from != node);
    }

    pub(crate) fn open_count(&self) -> usize {
        self.opened.len() + self.accepted.len()
    }
}

fn send(now: Duration, engine: &mut SimEngine, to: Incarnation, lane: Lane, kind: u8, number: u64) {
    let body = PacketBody::in_two(Bytes::copy_from_slice(&[kind]), Bytes::copy_from_slice(&number.to_be_bytes()));
    engine.send(now, lane, &[Target { node: to, groups: Vec::new() }], body, 0, &Keep::default());
}
