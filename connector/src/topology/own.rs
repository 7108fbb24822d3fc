//! What a node says of itself, and how it keeps its name.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use edri_events::{Incarnation, NodeName};

use super::exchange::Place;
use super::record::{Life, NODE_SLOT, WITHDRAWN_SLOT};
use super::{Content, GroupState, LinkId, LinkState, NodeState, Output, Record, Refusal, Topology, Withdrawn};
use crate::limits::{
    FOREIGN_VERSION_MAX, GONE_KEPT, GROUPS_MAX, OWN_BYTES_MAX, STAMP_MAX, STATE_PAUSE_MAX, STATE_PAUSE_MIN,
    STATE_QUIET, TWIN_CLAIMS, TWIN_WINDOW,
};

/// This node.
pub(super) struct Own {
    pub(super) name: NodeName,
    pub(super) incarnation: Incarnation,
    epoch: u64,
    version: u64,
    pub(super) settled: bool,
    leaving: bool,
    /// What the node has to say of itself may have changed.
    pub(super) stale: bool,
    /// When it last said so, how long it waits after that, and when it may say it again.
    restated: Duration,
    pause: Duration,
    pub(super) may_restate: Duration,
    /// The highest number that a group ever had.
    last_number: u32,
    groups: usize,
    /// Withdrawn groups that are remembered one by one.
    gone: usize,
    /// The latest other life of this name that was heard of, and by which link.
    heard: Option<(Life, LinkId)>,
    /// When the name was claimed back, and from whom.
    claims: VecDeque<(Duration, Incarnation)>,
    beaten: bool,
}

impl Own {
    pub(super) fn new(name: NodeName, incarnation: Incarnation) -> Self {
        Self {
            name,
            incarnation,
            epoch: 1,
            version: 0,
            settled: false,
            leaving: false,
            stale: false,
            restated: Duration::ZERO,
            pause: Duration::ZERO,
            may_restate: Duration::ZERO,
            last_number: 0,
            groups: 0,
            gone: 0,
            heard: None,
            claims: VecDeque::new(),
            beaten: false,
        }
    }

    fn life(&self) -> Life {
        Life::new(self.epoch, self.incarnation)
    }

    /// Somebody has records of this node in `life`, which is a later one than this and can be outdone.
    fn hear(&mut self, link: LinkId, life: Life) {
        if self.heard.is_none_or(|(heard, _)| heard < life) {
            self.heard = Some((life, link));
        }
    }
}

impl Topology {
    /// Says whether this node has heard what its configured peers want, or knows that they are absent.
    pub fn set_settled(&mut self, settled: bool) {
        self.own.settled = settled;
        self.own.stale = true;
        self.rests_until = Duration::ZERO;
    }

    /// Says that this node is about to go. Others forget it as soon as there is no path to it.
    pub fn set_leaving(&mut self) {
        self.own.leaving = true;
        self.own.stale = true;
        self.own.may_restate = Duration::ZERO;
        self.rests_until = Duration::ZERO;
    }

    /// Tells others of a group of this node, or that it wants something else. The number of a new group is higher than any
    /// before it, from 1 to `u32::MAX - 1`.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when the number cannot be used, or others would refuse the group; nothing has changed then.
    pub fn set_group(&mut self, number: u32, state: GroupState) -> Result<(), Refusal> {
        let own = self.known.get(&self.own.name).expect("a node has a record of itself from the beginning");
        let old = own.group(number);
        if old.is_some_and(|old| **old == state) {
            return Ok(());
        }
        if old.is_none() && (number <= self.own.last_number || number == WITHDRAWN_SLOT) {
            return Err(Refusal::Number);
        }
        if old.is_none() && self.own.groups == GROUPS_MAX {
            return Err(Refusal::Groups);
        }
        let replaced = own.records.get(&number).map_or(0, |held| held.bytes.len());
        let is_new = old.is_none();
        let record = self.record(number, Content::Group(Arc::new(state)));
        let bytes = record.encode();
        // By the same rules as others will read it by.
        Record::decode(&bytes)?;
        if own.bytes + bytes.len() > OWN_BYTES_MAX + replaced {
            return Err(Refusal::NodeBytes);
        }
        self.own.last_number = self.own.last_number.max(number);
        self.own.groups += usize::from(is_new);
        self.say_record(record);
        Ok(())
    }

    /// Tells others that a group wants nothing any more. One that is not there is not an error.
    pub fn withdraw_group(&mut self, number: u32) {
        let own = self.known.get(&self.own.name).expect("a node has a record of itself from the beginning");
        if own.group(number).is_none() {
            return;
        }
        self.own.groups -= 1;
        self.own.gone += 1;
        self.say(number, Content::Gone);
        if self.own.gone > GONE_KEPT.max(self.own.groups) {
            self.put_withdrawn_together();
        }
    }

    /// One record for all withdrawn groups. It is as long as there are groups that live, and comes after as many were
    /// withdrawn.
    fn put_withdrawn_together(&mut self) {
        let own = self.known.get(&self.own.name).expect("a node has a record of itself from the beginning");
        let except = own.records.keys().copied().filter(|slot| own.group(*slot).is_some()).collect();
        self.own.gone = 0;
        self.say(WITHDRAWN_SLOT, Content::Withdrawn(Withdrawn { below: self.own.last_number + 1, except }));
    }

    /// The links that are up, by neighbour.
    pub(super) fn own_links(&self) -> Vec<LinkState> {
        let mut links: Vec<LinkState> = Vec::with_capacity(self.links.len());
        for link in self.links.values() {
            links.push(LinkState { node: link.peer.clone(), incarnation: link.incarnation, cost: link.cost });
        }
        let neighbour = |link: &LinkState| (link.node.clone(), link.incarnation.get());
        links.sort_by_key(|link| (neighbour(link), link.cost));
        links.dedup_by_key(|link| neighbour(link));
        links
    }

    /// Tells others of this node itself, if there is anything new and it has not done so a moment ago.
    pub(super) fn restate_when_due(&mut self, now: Duration) {
        if !self.own.stale || now < self.own.may_restate {
            return;
        }
        self.own.stale = false;
        if self.restate() {
            let own = &mut self.own;
            let is_quiet = now.saturating_sub(own.restated) >= STATE_QUIET;
            own.pause =
                if is_quiet { STATE_PAUSE_MIN } else { (own.pause * 2).clamp(STATE_PAUSE_MIN, STATE_PAUSE_MAX) };
            own.restated = now;
            own.may_restate = now + own.pause;
        }
    }

    /// Whether there was anything new to tell of this node itself.
    pub(super) fn restate(&mut self) -> bool {
        let state = NodeState {
            links: self.own_links(),
            switch: self.options.switch,
            settled: self.own.settled,
            leaving: self.own.leaving,
            protocol: self.options.protocol,
        };
        let said = self.known.get(&self.own.name).and_then(|own| own.state());
        let is_new = said != Some(&state);
        if is_new {
            self.say(NODE_SLOT, Content::Node(state));
        }
        is_new
    }

    fn record(&self, slot: u32, content: Content) -> Record {
        Record {
            node: self.own.name.clone(),
            epoch: self.own.epoch,
            incarnation: self.own.incarnation,
            slot,
            version: self.own.version + 1,
            content,
        }
    }

    fn say(&mut self, slot: u32, content: Content) {
        self.say_record(self.record(slot, content));
    }

    fn say_record(&mut self, record: Record) {
        self.rests_until = Duration::ZERO;
        self.own.version = record.version;
        self.news.insert(Place::new(record.node.clone(), record.slot), None);
        let bytes = record.encode();
        // Paths depend on the links that there are, and not on what was said of them.
        self.known.keep(record, bytes);
    }

    /// Somebody has a record of this node.
    pub(super) fn hear_of_self(&mut self, link: LinkId, record: &Record) {
        if record.incarnation != self.own.incarnation {
            return match record.life() {
                earlier if earlier < self.own.life() => self.answer_later(link, record.node.clone()),
                later if later.epoch < STAMP_MAX => self.own.hear(link, later),
                // It cannot be outdone. Whoever has it would answer an answer with it, and so on.
                _ => self.refuse(link, Refusal::Version),
            };
        }
        // This life's own words, or words put in its mouth. If they are beyond what it said, it says more.
        let own = self.known.get(&self.own.name).expect("a node has a record of itself from the beginning");
        let said = own.records.get(&record.slot);
        if said.is_some_and(|said| said.version >= record.version) || own.is_withdrawn(record.slot) {
            return;
        }
        let content = match said {
            Some(said) => said.content.clone(),
            None if record.slot == WITHDRAWN_SLOT => Content::Withdrawn(Withdrawn::default()),
            None if own.has_room_for(record.slot) => Content::Gone,
            None => return,
        };
        self.own.version = self.own.version.max(record.version.min(FOREIGN_VERSION_MAX));
        if self.own.version < record.version {
            // Others keep it until this life ends. All else that this node says goes on.
            return self.refuse(link, Refusal::Version);
        }
        self.say(record.slot, content);
    }

    /// Raises the epoch above another life of this name that was heard of, unless that one lives and is to keep the name.
    pub(super) fn claim_name(&mut self, now: Duration, out: &mut Vec<Output>) {
        let Some((other, link)) = self.own.heard.take() else { return };
        if self.own.beaten {
            return;
        }
        let incarnation = other.incarnation();
        let claims = &mut self.own.claims;
        claims.retain(|(then, _)| now.saturating_sub(*then) < TWIN_WINDOW);
        let against = claims.iter().filter(|(_, from)| *from == incarnation).count();
        if against >= TWIN_CLAIMS && self.own.incarnation.get() < incarnation.get() {
            self.own.beaten = true;
            out.push(Output::Twin { link, node: self.own.name.clone(), other: incarnation });
            return;
        }
        // More than these are not looked at.
        while claims.len() >= TWIN_CLAIMS * 16 {
            claims.pop_front();
        }
        claims.push_back((now, incarnation));
        self.own.epoch = other.epoch + 1;
        let own = self.known.get(&self.own.name).expect("a node has a record of itself from the beginning");
        let said: Vec<(u32, Content)> = own.records.iter().map(|(slot, held)| (*slot, held.content.clone())).collect();
        for (slot, content) in said {
            self.say(slot, content);
        }
    }
}
