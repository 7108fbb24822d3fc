//! Waiting until somebody handles an event.

use edri_events::{DescriptorRef, Event, Kind};

use crate::bus::Bus;
use crate::core::{Core, Phase};
use crate::status::ManagerState;
use crate::untyped::Untyped;
use crate::{DeclareError, GroupName};

impl Bus {
    /// Waits until somebody handles events of type `E`, on this node or on another that can be reached: for a notification any
    /// group that wants it, by name or by pattern, for a request or tunnel one that answers and has not failed. Ready at once
    /// when there is one.
    ///
    /// It has no limit of its own: nobody might ever come, so give it a time-out.
    ///
    /// # Errors
    ///
    /// [`DeclareError::Stopping`] once the node has stopped; [`DeclareError::NoView`] in a process worker.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn wait_for<E: Event>(&self) -> Result<(), DeclareError> {
        self.core.wait_for(E::descriptor().name(), Some(E::descriptor().kind())).await
    }

    /// Waits until it is known who answers: all managers of the node are in its table, and so are those of the nodes that could be
    /// reached when it started. From then on nobody there means nobody. In a process worker, whose node knows, ready at once.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn settled(&self) {
        self.core.settled().await;
    }
}

impl Untyped<'_> {
    /// As [`Bus::wait_for`]. As long as no node has declared the event, only who asked for it by name counts.
    ///
    /// # Errors
    ///
    /// As [`Bus::wait_for`].
    pub async fn wait_for(&self, name: &str) -> Result<(), DeclareError> {
        edri_events::EventName::new(name)?;
        self.bus.core.wait_for(name, None).await
    }

    /// Whether anybody would be given a notification of this name if it were published now, in reach or not; to spare making one that
    /// nobody gets. In a process worker, whose node knows, always.
    #[must_use]
    pub fn is_wanted(&self, name: &str) -> bool {
        let core = &self.bus.core;
        let snapshot = core.snapshot();
        core.uplink().is_some()
            || match snapshot.entry_by_name(name) {
                Some(entry) => entry.routes().next().is_some(),
                None => snapshot.undeclared_entry(name).routes().next().is_some(),
            }
    }
}

impl Core {
    async fn wait_for(&self, name: &str, kind: Option<Kind>) -> Result<(), DeclareError> {
        if self.uplink().is_some() {
            return Err(DeclareError::NoView);
        }
        let handled = || match self.phase() {
            Phase::Stopped => Some(Err(DeclareError::Stopping)),
            _ => self.is_handled(name, kind).then_some(Ok(())),
        };
        self.changed.wait_until(handled).await
    }

    /// Whether somebody who can be reached handles events of this name.
    fn is_handled(&self, name: &str, kind: Option<Kind>) -> bool {
        let known = || self.declared(name).or_else(|| self.known.get(name));
        let kind = kind.or_else(|| known().as_ref().map(|known: &DescriptorRef| known.kind()));
        let snapshot = self.snapshot();
        let by_pattern;
        let entry = match snapshot.entry_by_name(name) {
            Some(entry) => &**entry,
            None => {
                by_pattern = snapshot.undeclared_entry(name);
                &by_pattern
            }
        };
        entry.routes().any(|route| {
            let group = &route.target;
            let is_manager = |name: &GroupName| name.manager_anywhere().is_some();
            let fits = match kind {
                Some(Kind::Notification) => true,
                Some(Kind::Request | Kind::Tunnel) => route.exact && is_manager(group.name()),
                None => route.exact,
            };
            fits && group.is_reachable() && group.state() != ManagerState::Failed
        })
    }
}
