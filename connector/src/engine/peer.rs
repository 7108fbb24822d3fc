//! One life of another node: the sessions with it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use edri_events::NodeName;
use edri_protocol::limits::ACK_CREDITS_MAX;
use edri_protocol::packet::{GroupCredit, SignalKind};
use edri_protocol::session::{Inbound, Outbound, Timing};

use super::{Figures, GroupKey, Kept, Past};

/// How long it takes at most until a node is asked for credit again.
const QUERY_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Peer<K> {
    pub(super) node: NodeName,
    /// The number of the session to it.
    pub(super) session: u32,
    pub(super) outbound: Outbound<Kept<K>>,
    /// Its groups, by their numbers in this life.
    pub(super) groups: BTreeMap<u32, GroupKey>,
    /// The session from it, with its number.
    pub(super) inbound: Option<(u32, Inbound<Taken>)>,
    /// Sessions from it up to this number were forgotten.
    forgotten: u32,
    placed: BTreeMap<u32, Placed>,
    pub(super) query: Option<Query>,
    pub(super) reachable: bool,
    /// Whether it asked, so that everything is told and not only what has changed.
    tell_all: bool,
    pub(super) confirmed: u64,
    pub(super) again: u64,
    pub(super) duplicates: u64,
    paths: u64,
}

/// A packet that came, until its turn.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) groups: Vec<u32>,
    pub(super) body: Bytes,
    pub(super) age_ms: u32,
    pub(super) redelivered: bool,
}

/// What one of this node's groups has placed of what the peer sent it, and up to where that was granted.
#[derive(Debug, Default)]
struct Placed {
    events: u64,
    bytes: u64,
    told: (u64, u64),
    to_tell: bool,
}

/// When the peer is asked next, and how long to wait after that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    at: Duration,
    wait: Duration,
    /// Somebody has waited for credit since it was last asked for.
    wanted: bool,
}

impl<K> Peer<K> {
    pub(super) fn new(node: NodeName, past: Option<Past>, timing: Timing) -> Self {
        let mut outbound = Outbound::new(timing);
        outbound.path(false);
        Self {
            node,
            session: past.map_or(1, |past| past.outbound_session + 1),
            outbound,
            groups: BTreeMap::new(),
            inbound: None,
            forgotten: past.map_or(0, |past| past.inbound_session),
            placed: BTreeMap::new(),
            query: None,
            reachable: false,
            tell_all: false,
            confirmed: 0,
            again: 0,
            duplicates: 0,
            paths: 0,
        }
    }

    /// Makes sure that the session from the peer is this one, or a later one. False when it is one that was forgotten.
    pub(super) fn open_session(&mut self, session: u32, base: u64, timing: Timing) -> bool {
        let known = self.inbound_session();
        if session <= self.forgotten && known == self.forgotten {
            return false;
        }
        if session > known {
            if base > 0 {
                return false;
            }
            self.inbound = Some((session, Inbound::new(timing)));
            self.placed.clear();
        }
        true
    }

    /// The highest number of a session from the peer that was ever begun.
    pub(super) fn inbound_session(&self) -> u32 {
        self.inbound.as_ref().map_or(self.forgotten, |(session, _)| *session)
    }

    /// Begins another session to the peer; what was unacknowledged in the old one comes back,
    /// with whether it was ever sent.
    pub(super) fn renew(&mut self, timing: Timing) -> impl Iterator<Item = (Kept<K>, bool)> + use<K> {
        self.session += 1;
        let mut outbound = Outbound::new(timing);
        outbound.path(self.reachable);
        std::mem::replace(&mut self.outbound, outbound).into_unacknowledged().map(|(_, kept, sent)| (kept, sent))
    }

    pub(super) fn path(&mut self, now: Duration, reachable: bool) {
        self.paths += u64::from(reachable && !self.reachable);
        self.reachable = reachable;
        self.outbound.path(reachable);
        if reachable && let Some((_, inbound)) = &mut self.inbound {
            // What was acknowledged meanwhile was not heard.
            self.tell_all = true;
            inbound.resumed(now);
        }
    }

    pub(super) fn starve(&mut self, now: Duration, wait: Duration) {
        self.query.get_or_insert(Query { at: now + wait, wait, wanted: true }).wanted = true;
    }

    pub(super) fn query_due(&mut self, now: Duration) -> bool {
        let Some(query) = self.query.as_mut().filter(|query| query.at <= now && self.reachable) else { return false };
        if !std::mem::take(&mut query.wanted) {
            // Nobody has waited for credit since it was asked for.
            self.query = None;
            return false;
        }
        query.wait = (query.wait * 2).min(QUERY_MAX);
        query.at = now + query.wait;
        true
    }

    pub(super) fn asked(&mut self, now: Duration, session: u32) {
        if let Some((_, inbound)) = self.inbound.as_mut().filter(|(known, _)| *known == session) {
            self.tell_all = true;
            inbound.acknowledge_at(now);
        }
    }

    pub(super) fn placed(
        &mut self,
        now: Duration,
        group: u32,
        events: u64,
        bytes: u64,
        window: (u64, u64),
        delay: Duration,
    ) {
        let Some((_, inbound)) = &mut self.inbound else { return };
        let placed = self.placed.entry(group).or_insert_with(|| Placed { told: window, ..Placed::default() });
        placed.events += events;
        placed.bytes += bytes;
        placed.to_tell = true;
        // A group may have taken its window back in part: then it has told more than it would now.
        let more_events = placed.events.saturating_add(window.0).saturating_sub(placed.told.0);
        let more_bytes = placed.bytes.saturating_add(window.1).saturating_sub(placed.told.1);
        if more_events >= (window.0 / 4).max(1) || more_bytes >= (window.1 / 4).max(1) {
            inbound.acknowledge_at(now);
        } else {
            inbound.acknowledge_at(now + delay);
        }
    }

    /// What is to be told to the peer now of what it has sent.
    pub(super) fn acknowledgement(&mut self, now: Duration, windows: &BTreeMap<u32, (u64, u64)>) -> Option<SignalKind> {
        let (session, inbound) = self.inbound.as_mut()?;
        if inbound.deadline().is_none_or(|due| due > now) {
            return None;
        }
        let all = std::mem::take(&mut self.tell_all);
        let lanes = inbound.acknowledge(now, all);
        let mut credits = Vec::new();
        for (group, placed) in &mut self.placed {
            let Some(&(events, bytes)) = windows.get(group).filter(|_| all || placed.to_tell) else { continue };
            if credits.len() == ACK_CREDITS_MAX {
                break;
            }
            placed.to_tell = false;
            placed.told = (placed.events.saturating_add(events), placed.bytes.saturating_add(bytes));
            credits.push(GroupCredit { group: *group, events: placed.told.0, bytes: placed.told.1 });
        }
        Some(SignalKind::Ack { session: *session, lanes, credits })
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        if !self.reachable {
            return None;
        }
        let inbound = self.inbound.as_ref().and_then(|(_, inbound)| inbound.deadline());
        let query = self.query.map(|query| query.at);
        [self.outbound.deadline(), inbound, query].into_iter().flatten().min()
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            unacknowledged_packets: self.outbound.packets(),
            unacknowledged_bytes: self.outbound.bytes(),
            confirmed: self.confirmed,
            again: self.again,
            duplicates: self.duplicates,
            resumes: self.paths.saturating_sub(1),
            round_trip: self.outbound.round_trip(),
        }
    }
}
