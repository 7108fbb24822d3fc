//! One life of another node: the sessions with it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use edri_events::NodeName;
use edri_protocol::limits::ACK_CREDITS_MAX;
use edri_protocol::packet::{GroupCredit, Lane, SignalKind};
use edri_protocol::session::{Inbound, Outbound, Timing};

use super::{Figures, GroupKey, Kept};
use crate::limits::{GROUP_AHEAD, GROUP_AHEAD_EVENTS_MAX, SESSION_MAX};

/// How long it takes at most until a node is asked for credit again.
const QUERY_MAX: Duration = Duration::from_secs(5);
/// How long an answer is waited for at first.
const QUERY_FIRST: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(super) struct Peer<K> {
    pub(super) node: NodeName,
    /// The number of the session, the same in both directions. Either end may begin the next; what lies between the two is
    /// given up by both then.
    session: u32,
    pub(super) outbound: Outbound<Kept<K>>,
    /// Its groups, by their numbers in this life.
    pub(super) groups: BTreeMap<u32, GroupKey>,
    /// What it has sent in this session, once it is known to have begun it.
    inbound: Option<Inbound<Taken>>,
    placed: BTreeMap<u32, Placed>,
    /// It has not shown yet that it knows of this session, which is not the first one. It is asked until it does: it may have
    /// given up nothing, and wait for what was given up here.
    unannounced: bool,
    query: Option<Query>,
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
    pace: Pace,
}

impl Placed {
    /// Up to where it may be sent: as far as the window goes beyond what is placed, and as far as it gets in [`GROUP_AHEAD`] at its pace.
    /// What was told is not taken back.
    fn granted(&self, now: Duration, window: (u64, u64)) -> (u64, u64) {
        let ahead = window.0.max(self.pace.lately(now).min(GROUP_AHEAD_EVENTS_MAX));
        let granted = (self.events.saturating_add(ahead), self.bytes.saturating_add(window.1));
        (granted.0.max(self.told.0), granted.1.max(self.told.1))
    }
}

/// How many events have been placed lately, in periods of [`GROUP_AHEAD`].
#[derive(Debug, Default)]
struct Pace {
    since: Duration,
    events: u64,
    /// In the period before.
    before: u64,
}

impl Pace {
    fn add(&mut self, now: Duration, events: u64) {
        let age = now.saturating_sub(self.since);
        if age >= GROUP_AHEAD {
            *self = Self { since: now, events: 0, before: self.lately(now) };
        }
        self.events += events;
    }

    /// The more of this period and the one before, unless that is long ago.
    fn lately(&self, now: Duration) -> u64 {
        match now.saturating_sub(self.since) {
            age if age < GROUP_AHEAD => self.events.max(self.before),
            age if age < 2 * GROUP_AHEAD => self.events,
            _ => 0,
        }
    }
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
    /// A life that was met. `past` is the last session with it, if it had been given up before.
    pub(super) fn new(node: NodeName, past: Option<u32>, timing: Timing) -> Self {
        let mut outbound = Outbound::new(timing);
        outbound.path(false);
        Self {
            node,
            session: past.map_or(1, |past| past.saturating_add(1)),
            unannounced: past.is_some(),
            outbound,
            groups: BTreeMap::new(),
            inbound: None,
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

    pub(super) fn session(&self) -> u32 {
        self.session
    }

    /// The session that has to be begun because the peer sends in this one; `base` is the lowest number that may still come.
    pub(super) fn next_session(&self, session: u32, base: u64) -> Option<u32> {
        if session > SESSION_MAX || session < self.session {
            return None;
        }
        let begins = base == 0;
        match (&self.inbound, session == self.session) {
            (Some(_), true) => None,
            (None, true) if begins => None,
            // What came before is not known here, or not any more.
            (_, true) => Some(session + 1),
            (_, false) => Some(if begins { session } else { session + 1 }),
        }
    }

    /// What the peer sends in this session, if that is the one there is.
    pub(super) fn inbound(&mut self, session: u32, timing: Timing) -> Option<&mut Inbound<Taken>> {
        (session == self.session).then(|| self.inbound.get_or_insert_with(|| Inbound::new(timing)))
    }

    /// Says that everything of the peer in a tunnel's lane has come.
    pub(super) fn lane_ended(&mut self, now: Duration, lane: Lane) {
        if let Some(inbound) = &mut self.inbound {
            inbound.end_lane(now, lane);
        }
    }

    /// Begins another session; what was unacknowledged in the old one comes back, with whether it was ever sent.
    pub(super) fn begin(
        &mut self,
        now: Duration,
        session: u32,
        timing: Timing,
    ) -> impl Iterator<Item = (Kept<K>, bool)> + use<K> {
        self.session = session;
        self.inbound = None;
        self.placed.clear();
        self.unannounced = true;
        self.query = Some(Query { at: now, wait: QUERY_FIRST, wanted: true });
        let mut outbound = Outbound::new(timing);
        outbound.path(self.reachable);
        std::mem::replace(&mut self.outbound, outbound).into_unacknowledged().map(|(_, kept, sent)| (kept, sent))
    }

    /// It has said how far it has come in this session.
    pub(super) fn knows_session(&mut self) {
        self.unannounced = false;
    }

    pub(super) fn path(&mut self, now: Duration, reachable: bool) {
        self.paths += u64::from(reachable && !self.reachable);
        self.reachable = reachable;
        self.outbound.path(reachable);
        if reachable && self.unannounced {
            self.query = Some(Query { at: now, wait: QUERY_FIRST, wanted: true });
        }
        if reachable && let Some(inbound) = &mut self.inbound {
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
        if !std::mem::take(&mut query.wanted) && !self.unannounced {
            // Nobody has waited for credit since it was asked for.
            self.query = None;
            return false;
        }
        query.wait = (query.wait * 2).min(QUERY_MAX);
        query.at = now + query.wait;
        true
    }

    /// It is to be told everything that has come from it.
    pub(super) fn tell_all(&mut self, now: Duration) {
        if let Some(inbound) = &mut self.inbound {
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
        let Some(inbound) = &mut self.inbound else { return };
        let placed = self.placed.entry(group).or_insert_with(|| Placed { told: window, ..Placed::default() });
        placed.events += events;
        placed.bytes += bytes;
        placed.to_tell = true;
        placed.pace.add(now, events);
        let granted = placed.granted(now, window);
        let more = (granted.0 - placed.told.0, granted.1 - placed.told.1);
        let ahead = (granted.0.saturating_sub(placed.events), window.1);
        if more.0 >= (ahead.0 / 4).max(1) || more.1 >= (ahead.1 / 4).max(1) {
            inbound.acknowledge_at(now);
        } else {
            inbound.acknowledge_at(now + delay);
        }
    }

    pub(super) fn forget_own_group(&mut self, number: u32) {
        self.placed.remove(&number);
    }

    /// What is to be told to the peer now of what it has sent.
    pub(super) fn acknowledgement(&mut self, now: Duration, windows: &BTreeMap<u32, (u64, u64)>) -> Option<SignalKind> {
        let inbound = self.inbound.as_mut()?;
        if inbound.deadline().is_none_or(|due| due > now) {
            return None;
        }
        let all = std::mem::take(&mut self.tell_all);
        let lanes = inbound.acknowledge(now, all);
        let mut credits = Vec::new();
        for (group, placed) in &mut self.placed {
            let Some(&window) = windows.get(group).filter(|_| all || placed.to_tell) else { continue };
            if credits.len() == ACK_CREDITS_MAX {
                break;
            }
            placed.to_tell = false;
            placed.told = placed.granted(now, window);
            credits.push(GroupCredit { group: *group, events: placed.told.0, bytes: placed.told.1 });
        }
        Some(SignalKind::Ack { session: self.session, lanes, credits })
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        if !self.reachable {
            return None;
        }
        let inbound = self.inbound.as_ref().and_then(Inbound::deadline);
        let query = self.query.map(|query| query.at);
        [self.outbound.deadline(), inbound, query].into_iter().flatten().min()
    }

    /// Whether a tick may find something to do.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.outbound.has_again() || self.deadline().is_some_and(|due| due <= now)
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            session: self.session,
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
