//! Which node has which keys of a keyed shared manager. Pure, with no clock, no socket and no events.
//!
//! Keys fall into [`SLOTS`] slots by their hash; a slot is with one node at a time. Each life says of itself what it has, to every other life, and
//! each other life says which saying it has taken note of:
//!
//! ```text
//!            nobody else has it, and          every other life has
//!            this life is to have it          noted it and agrees
//!     free ────────────────────────▶ claimed ────────────────────▶ owned ◀─┐
//!       ▲                              │ it is to be another's             │ nobody is to have it instead,
//!       ├──────────────────────────────┘                                   │ or not everybody can be reached
//!       │     nothing of it is in hand                 another is to have it
//!       └───────────────────────────────── released ◀──────┴───────────────┘
//!                                          every other life has noted it: nothing more comes
//! ```
//!
//! - **Whoever publishes sends a slot's events to the one life that owns it, and keeps them while that is not exactly one.** A life that is releasing a slot still counts.
//! - Sayings and notes travel in the lane of the events, so a note is behind everything that was sent before it.
//! - A life owns a slot only after every other life that it knows has agreed, and none agrees that has the slot itself, or knows somebody who has.
//!   So of two lives that know each other one has it at most.
//! - Lives that did not know each other, or had given each other up, may have claimed the same slot. When they meet, all but one release it.
//! - Who is to have a slot is decided by rendezvous hashing among the lives that run the manager, whether they can be reached or not: one
//!   that cannot is not given up before its life has ended.

mod returned;

use std::collections::BTreeMap;

use edri_events::{Incarnation, NodeName, key_hash};

pub use self::returned::Returned;

/// Into how many slots the keys fall.
pub const SLOTS: usize = 64;

/// A set of slots: bit *n* is slot *n*.
pub type Slots = u64;

/// What a life says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saying {
    /// Grows with each saying of this life.
    pub version: u64,
    /// Whether it runs the manager, and takes slots.
    pub member: bool,
    /// The slots that it has.
    pub owned: Slots,
    /// Those that it still has, and is about to give up.
    pub releasing: Slots,
    /// Those that it wants.
    pub claiming: Slots,
}

impl Saying {
    /// The slots that nobody else may have.
    fn held(&self) -> Slots {
        self.owned | self.releasing
    }
}

/// Where the events of a slot go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nowhere for now.
    Nowhere,
    /// To the manager on this node.
    Here,
    /// To the manager in this life of another node.
    There(Incarnation),
}

/// Something that another life is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// What this life says of itself.
    Saying {
        /// To whom.
        to: Incarnation,
        /// What.
        saying: Saying,
    },
    /// That its saying was noted: nothing that was sent according to an earlier one comes behind this.
    Note {
        /// To whom.
        to: Incarnation,
        /// Which of its sayings.
        version: u64,
        /// Those of the slots it claims that it may have, as far as this life knows.
        agreed: Slots,
    },
}

/// Another life.
#[derive(Debug)]
struct Other {
    ranks: Ranks,
    reachable: bool,
    saying: Saying,
    /// The latest of this life's sayings that it has noted, in the lane of events and in that of requests.
    noted: (u64, u64),
    agreed: Slots,
    /// What it was told last of its own saying.
    told: (u64, Slots),
    /// It has not heard what this life says of itself.
    is_new: bool,
}

/// How the keys of one manager are divided, as one life sees it.
#[derive(Debug)]
pub struct Division {
    name: String,
    life: Incarnation,
    ranks: Ranks,
    saying: Saying,
    /// Which saying a slot has been claimed, or is being released, since: what was noted before is about an earlier claim or release.
    since: [u64; SLOTS],
    others: BTreeMap<Incarnation, Other>,
    settled: bool,
    /// It is no member any more, and is not done with what waits here.
    leaving: bool,
}

impl Division {
    /// The view of one life, before it knows of any other.
    #[must_use]
    pub fn new(name: &str, node: &NodeName, life: Incarnation) -> Self {
        Self {
            name: name.to_owned(),
            life,
            ranks: Ranks::of(name, node),
            saying: Saying::default(),
            since: [0; SLOTS],
            others: BTreeMap::new(),
            settled: false,
            leaving: false,
        }
    }

    // ---- what has happened ----------------------------------------------------------------------------------------

    /// This life knows whom it is to know: before, it claims nothing, because others may have it.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// Says whether this life runs the manager, and takes slots. One that does not any more takes them still as long as nobody else does,
    /// for what waits here: it may leave before it has had any.
    pub fn set_member(&mut self, member: bool) {
        if self.saying.member != member {
            self.leaving = !member;
            self.saying.member = member;
            self.saying.version += 1;
            self.others.values_mut().for_each(|other| other.is_new = true);
        }
    }

    /// This life is done with what waited here.
    pub fn left(&mut self) {
        self.leaving = false;
    }

    /// Another life is there.
    pub fn met(&mut self, life: Incarnation, node: &NodeName) {
        let other = Other {
            ranks: Ranks::of(&self.name, node),
            reachable: true,
            saying: Saying::default(),
            noted: (0, 0),
            agreed: 0,
            told: (0, 0),
            is_new: true,
        };
        self.others.insert(life, other);
    }

    /// Another life can be reached, or not for now.
    pub fn reach(&mut self, life: Incarnation, reachable: bool) {
        if let Some(other) = self.others.get_mut(&life) {
            other.reachable = reachable;
        }
    }

    /// The session with another life began anew: what was said may not have arrived.
    pub fn renew(&mut self, life: Incarnation) {
        if let Some(other) = self.others.get_mut(&life) {
            // With what it had noted goes what it had agreed to.
            (other.noted, other.told, other.is_new) = ((0, 0), (0, 0), true);
        }
    }

    /// Another life is over, or given up.
    pub fn ended(&mut self, life: Incarnation) {
        self.others.remove(&life);
    }

    /// Another life says this of itself. What it says comes in the order in which it was said.
    pub fn said(&mut self, from: Incarnation, saying: Saying) {
        if let Some(other) = self.others.get_mut(&from) {
            other.saying = saying;
        }
    }

    /// Another life has noted a saying of this one, in the lane of events.
    pub fn noted(&mut self, from: Incarnation, version: u64, agreed: Slots) {
        if let Some(other) = self.others.get_mut(&from).filter(|_| version <= self.saying.version) {
            (other.noted.0, other.agreed) = (version, agreed);
        }
    }

    /// The same in the lane of requests.
    pub fn noted_among_requests(&mut self, from: Incarnation, version: u64) {
        if let Some(other) = self.others.get_mut(&from).filter(|_| version <= self.saying.version) {
            other.noted.1 = version;
        }
    }

    /// Nothing of this slot, which is among [`Division::draining`], is in anybody's hands here.
    pub fn drained(&mut self, slot: usize) {
        debug_assert!(self.draining() & 1 << slot != 0, "it may still come");
        self.saying.releasing &= !(1 << slot);
        self.saying.version += 1;
        self.others.values_mut().for_each(|other| other.is_new = true);
    }

    // ---- what follows ---------------------------------------------------------------------------------------------

    /// Draws the conclusions of what has happened. What others are to be told.
    pub fn turn(&mut self) -> Vec<Tell> {
        while let Some(saying) = self.next() {
            self.saying = saying;
            self.others.values_mut().for_each(|other| other.is_new = true);
        }
        let mut tell = Vec::new();
        let lives: Vec<_> = self.others.keys().copied().collect();
        for life in lives {
            let agreed = self.agreed(life);
            let Some(other) = self.others.get_mut(&life) else { continue };
            if std::mem::take(&mut other.is_new) && self.saying.version > 0 {
                tell.push(Tell::Saying { to: life, saying: self.saying });
            }
            let told = (other.saying.version, agreed);
            // Of one that has said nothing there is nothing to tell.
            if std::mem::replace(&mut other.told, told) != told {
                tell.push(Tell::Note { to: life, version: told.0, agreed });
            }
        }
        tell
    }

    /// What this life says next, if anything is to change.
    fn next(&mut self) -> Option<Saying> {
        let mut next = Saying { version: self.saying.version + 1, ..self.saying };
        let held = self.others.values().fold(0, |held, other| held | other.saying.held());
        let all_reachable = self.others.values().all(|other| other.reachable);
        for number in 0..SLOTS {
            let slot = 1 << number;
            let owner = self.rightful(number);
            let (mine, elsewhere) = (owner == Some(self.life), held & slot != 0);
            if self.saying.owned & slot != 0 {
                // One that has gone its own way is not waited for: both may be at work.
                let disputed = self
                    .others
                    .iter()
                    .any(|(life, other)| other.saying.owned & slot != 0 && self.outranks(other, *life, number));
                let moves = !mine && owner.is_some() && all_reachable;
                if disputed || moves {
                    (next.owned, next.releasing) = (next.owned & !slot, next.releasing | slot);
                    self.since[number] = next.version;
                }
            } else if self.saying.releasing & slot != 0 {
                let stays = mine || owner.is_none() || !all_reachable;
                if stays && !elsewhere {
                    (next.owned, next.releasing) = (next.owned | slot, next.releasing & !slot);
                }
            } else if self.saying.claiming & slot != 0 {
                let since = self.since[number];
                if !mine || elsewhere {
                    next.claiming &= !slot;
                } else if self.others.values().all(|other| other.noted.0 >= since && other.agreed & slot != 0) {
                    (next.owned, next.claiming) = (next.owned | slot, next.claiming & !slot);
                }
            } else if mine && !elsewhere {
                next.claiming |= slot;
                self.since[number] = next.version;
            }
        }
        let unchanged = Saying { version: next.version, ..self.saying };
        (next != unchanged).then_some(next)
    }

    /// Who is to have a slot.
    fn rightful(&self, slot: usize) -> Option<Incarnation> {
        let here = (self.saying.member && self.settled).then_some((self.ranks.0[slot], self.life));
        let others = self.others.iter().filter(|(_, other)| other.saying.member);
        let member = others.map(|(life, other)| (other.ranks.0[slot], *life)).chain(here).max().map(|(_, life)| life);
        // Of those that leave, the one that comes first by rank.
        let claimed = |(life, other): (&Incarnation, &Other)| {
            other.saying.claiming & 1 << slot != 0 && self.outranks(other, *life, slot)
        };
        let takes = self.leaving && self.settled && !self.others.iter().any(claimed);
        member.or_else(|| takes.then_some(self.life))
    }

    fn outranks(&self, other: &Other, life: Incarnation, slot: usize) -> bool {
        (other.ranks.0[slot], life) > (self.ranks.0[slot], self.life)
    }

    /// Those of the slots that a life claims to which nothing stands in the way.
    fn agreed(&self, life: Incarnation) -> Slots {
        let Some(claimant) = self.others.get(&life) else { return 0 };
        let taken = self.others.values().fold(self.saying.held(), |taken, other| taken | other.saying.held());
        // What this life claims after a turn it takes to be its own: two that claim a slot never agree to each other.
        claimant.saying.claiming & !taken & !self.saying.claiming
    }

    // ---- what is so -----------------------------------------------------------------------------------------------

    /// Where the events of a slot go: to the only one that has it.
    #[must_use]
    pub fn way(&self, slot: usize) -> Way {
        let slot = 1 << slot;
        let here = (self.saying.held() & slot != 0).then_some((Way::Here, self.saying.owned));
        let there = self.others.iter().filter(|(_, other)| other.saying.held() & slot != 0);
        let mut holders = there.map(|(life, other)| (Way::There(*life), other.saying.owned)).chain(here);
        match (holders.next(), holders.next()) {
            (Some((way, owned)), None) if owned & slot != 0 => way,
            _ => Way::Nowhere,
        }
    }

    /// Whether some life runs the manager and takes slots.
    #[must_use]
    pub fn has_member(&self) -> bool {
        self.saying.member || self.others.values().any(|other| other.saying.member)
    }

    /// Whether what waits of a slot is this life's to handle, or may be soon.
    #[must_use]
    pub fn awaits(&self, slot: usize) -> bool {
        self.way(slot) == Way::Here || self.saying.claiming & 1 << slot != 0
    }

    /// Whether this life has a slot, or still has it.
    #[must_use]
    pub fn holds(&self, slot: usize) -> bool {
        self.saying.held() & 1 << slot != 0
    }

    /// The slots of which nothing more comes, and that are given up once nothing of them is in hand.
    #[must_use]
    pub fn draining(&self) -> Slots {
        let mut draining = self.saying.releasing;
        for slot in slots(self.saying.releasing) {
            let since = self.since[slot];
            if self.others.values().any(|other| other.noted.0.min(other.noted.1) < since) {
                draining &= !(1 << slot);
            }
        }
        draining
    }

    /// What this life says of itself.
    #[must_use]
    pub fn saying(&self) -> Saying {
        self.saying
    }
}

/// The slots of a set.
pub fn slots(mut set: Slots) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let slot = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (slot < SLOTS).then_some(slot)
    })
}

/// How much a node is the one to have each slot: of all that may the one with the most has it.
#[derive(Debug)]
struct Ranks([u64; SLOTS]);

impl Ranks {
    fn of(name: &str, node: &NodeName) -> Self {
        let seed = key_hash(&format!("{name}\n{node}"));
        Self(std::array::from_fn(|slot| mix(seed.wrapping_add((slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))))
    }
}

/// The last steps of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input changes half of the output's.
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests;
