//! Events given to somebody where they are published, without an inbox.

use std::sync::Arc;

use edri_events::Envelope;

use crate::actor::Change;
use crate::bus::Bus;
use crate::core::Core;
use crate::group::{Group, GroupOptions, GroupRef, Overflow, Spread};
use crate::subscribe::{Selection, next_subscription};
use crate::{DeclareError, GroupName};

/// Takes events where they are published.
///
/// It has a policy of its own for what it cannot keep; the publisher never waits for it, and the node takes what was given to
/// it for handled.
pub trait Tap: Send + Sync + std::fmt::Debug + 'static {
    /// An event. Called in the order of each publisher; it must be quick and must not panic.
    fn take(&self, envelope: &Envelope);

    /// Nothing more comes.
    fn close(&self) {}
}

/// A tap in the table. Dropping it takes it out.
#[must_use = "dropping it takes the tap out"]
pub struct Tapped {
    core: Arc<Core>,
    group: GroupRef,
}

impl Tapped {
    /// What the tap is called in the topology.
    #[must_use]
    pub fn name(&self) -> &GroupName {
        self.group.name()
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.group.close(None);
        self.core.withdraw_soon(self.group.id());
        self.core.forget_group(&self.group);
    }
}

impl std::fmt::Debug for Tapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tapped").field("group", &self.group.name().to_string()).finish_non_exhaustive()
    }
}

impl Bus {
    /// Gives `tap` every event that the selection selects, from when this returns until what it returns is dropped. For
    /// subscribers outside the process, which may be slower than any inbox is large.
    ///
    /// # Errors
    ///
    /// [`DeclareError`] when the node holds as many subscriptions as it may, or stops.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes the tap out.
    pub async fn tap(&self, selection: Selection, tap: Arc<dyn Tap>) -> Result<Tapped, DeclareError> {
        if self.core.uplink().is_some() {
            return Err(DeclareError::NoSubscriptions);
        }
        let options = GroupOptions {
            shared: false,
            name: next_subscription(),
            spread: Spread::Compete,
            capacity: 1,
            overflow: Overflow::DropOldest,
            handlers: Vec::new(),
        };
        let group = Group::tapped(options, tap);
        let core = Arc::clone(&self.core);
        let tapped = Tapped { core: Arc::clone(&core), group };
        core.add_group(&tapped.group);
        let subscribe = vec![(Arc::clone(&tapped.group), vec![selection])];
        core.change(Change { declare: Vec::new(), subscribe, withdraw: Vec::new() }).await?;
        Ok(tapped)
    }
}
