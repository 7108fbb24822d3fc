//! Dead letters: what could not be delivered or handled, and why.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use edri_events::{Envelope, Failure};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{GroupName, RequestError};

/// Why an event could not be delivered or handled.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, edri_events::__private::schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "edri_events::__private::schemars")]
#[non_exhaustive]
pub enum Reason {
    /// Its handler failed, as often as the retry policy allows.
    Failed,
    /// Its handler panicked, or its worker was lost.
    WorkerLost,
    /// Its handler took longer than the manager's time limit.
    TimeLimit,
    /// Its time to live ended before a worker took it.
    Expired,
    /// Its group had no room until its publisher's wait ended.
    Overloaded,
    /// Its publisher stopped waiting for room.
    Abandoned,
    /// Its group had no room, and the policy is to drop the newest.
    DroppedNewest,
    /// It made room for a newer one, as the policy says.
    DroppedOldest,
    /// Its manager failed: the workers were restarted too often.
    ManagerFailed,
    /// Its manager or node stopped before a worker took it.
    Stopped,
    /// Its payload is not what the handler's event type says.
    InvalidPayload,
    /// It was for a group of another node and did not arrive there.
    Undelivered,
    /// It was for a group of another node and may have arrived there: the node was lost before it said so.
    Unconfirmed,
}

impl Reason {
    /// What a requester is told when this is what became of the request.
    pub(crate) fn request_error(self, envelope: &Envelope, detail: &str) -> RequestError {
        match self {
            Self::Failed => RequestError::Failed(Failure::message(detail)),
            Self::ManagerFailed => RequestError::NoHandler(envelope.name().clone()),
            Self::Expired => RequestError::TimedOut(Box::default()),
            Self::Overloaded | Self::Abandoned | Self::DroppedNewest | Self::DroppedOldest => {
                RequestError::Overloaded(Box::default())
            }
            Self::Undelivered | Self::Unconfirmed => RequestError::PeerLost(detail.to_owned()),
            Self::TimeLimit | Self::WorkerLost | Self::Stopped => RequestError::WorkerLost(detail.to_owned()),
            Self::InvalidPayload => RequestError::Failed(Failure::new("invalid_payload", detail)),
        }
    }
}

/// An event that could not be delivered or handled.
#[derive(Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its number on this node, to name it by.
    pub number: u64,
    /// When it became one.
    pub at: SystemTime,
    /// The event.
    pub envelope: Envelope,
    /// The group it was for.
    pub group: GroupName,
    /// Why it ended here.
    pub reason: Reason,
    /// The reason in words.
    pub detail: String,
    /// How often a worker had it.
    pub attempts: u32,
    pub(crate) handler: u32,
    pub(crate) group_id: u64,
}

/// The latest dead letters of a node.
pub(crate) struct Letters {
    // Held to add, find, count or copy letters: whoever counts one finds it.
    kept: Mutex<Kept>,
    kept_max: usize,
}

#[derive(Default)]
struct Kept {
    letters: VecDeque<Arc<DeadLetter>>,
    /// How many there ever were: the number of the latest.
    total: u64,
}

impl Letters {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { kept: Mutex::default(), kept_max }
    }

    /// Adds a letter, which is made with its number.
    pub(crate) fn add(&self, make: impl FnOnce(u64) -> DeadLetter) -> Arc<DeadLetter> {
        let mut kept = self.kept.lock();
        kept.total += 1;
        let letter = Arc::new(make(kept.total));
        self.push(&mut kept, Arc::clone(&letter));
        letter
    }

    /// Takes back one that was taken out.
    pub(crate) fn keep(&self, letter: Arc<DeadLetter>) {
        self.push(&mut self.kept.lock(), letter);
    }

    fn push(&self, kept: &mut Kept, letter: Arc<DeadLetter>) {
        kept.letters.push_back(letter);
        while kept.letters.len() > self.kept_max {
            kept.letters.pop_front();
        }
    }

    pub(crate) fn list(&self) -> Vec<Arc<DeadLetter>> {
        self.kept.lock().letters.iter().cloned().collect()
    }

    pub(crate) fn total(&self) -> u64 {
        self.kept.lock().total
    }

    pub(crate) fn take(&self, number: u64) -> Option<Arc<DeadLetter>> {
        let letters = &mut self.kept.lock().letters;
        let index = letters.iter().position(|letter| letter.number == number)?;
        letters.remove(index)
    }
}
