use std::ops::AddAssign;

use edri_events::__private::schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of deliveries.
///
/// A delivery is one event for one group. At any moment of rest an account balances:
/// deliveries = handled + failed + dead-lettered + cancelled + forwarded + queued + in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "edri_events::__private::schemars")]
#[non_exhaustive]
pub struct Account {
    /// How many there were.
    pub deliveries: u64,
    /// Their handler succeeded.
    pub handled: u64,
    /// Their requester was given an error instead of a response.
    pub failed: u64,
    /// They are, or were, dead letters.
    pub dead_lettered: u64,
    /// Their requester gave up, or their subscription ended, before they were handled.
    pub cancelled: u64,
    /// They went to another node, whose account has them now.
    pub forwarded: u64,
    /// They wait in an inbox.
    pub queued: u64,
    /// A worker has them, or they are on their way to another node.
    pub in_hand: u64,
    /// Further attempts at deliveries that failed; no part of the balance.
    pub retried: u64,
}

impl Account {
    /// Whether every delivery is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let ended = self.handled + self.failed + self.dead_lettered + self.cancelled + self.forwarded;
        self.deliveries == ended + self.queued + self.in_hand
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.handled += other.handled;
        self.failed += other.failed;
        self.dead_lettered += other.dead_lettered;
        self.cancelled += other.cancelled;
        self.forwarded += other.forwarded;
        self.queued += other.queued;
        self.in_hand += other.in_hand;
        self.retried += other.retried;
    }
}
