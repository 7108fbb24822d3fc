//! Events that other nodes have told of.

use std::collections::HashMap;

use edri_events::{DescriptorRef, EventName};
use parking_lot::RwLock;

use crate::Router;
use crate::limits::EVENT_NAMES_MAX;

/// Descriptors that other nodes have told of. They help where a name is used that is not declared here, and are never in
/// the way of a declaration.
#[derive(Default)]
pub(crate) struct Known {
    // Held to find one when an untyped verb names an event that is not declared here, and to change what is known.
    events: RwLock<HashMap<EventName, DescriptorRef>>,
}

impl Known {
    pub(crate) fn get(&self, name: &str) -> Option<DescriptorRef> {
        self.events.read().get(name).cloned()
    }

    pub(crate) fn list(&self) -> Vec<DescriptorRef> {
        self.events.read().values().cloned().collect()
    }

    fn change(&self, learn: Vec<DescriptorRef>, forget: &[EventName]) -> usize {
        let mut events = self.events.write();
        for name in forget {
            events.remove(name);
        }
        let mut left_out = 0;
        for event in learn {
            if events.len() < EVENT_NAMES_MAX || events.contains_key(event.name()) {
                events.insert(event.name().clone(), event);
            } else {
                left_out += 1;
            }
        }
        left_out
    }
}

impl Router {
    /// Learns of events that other nodes know, in place of what was known under their names, after forgetting others. The
    /// untyped verbs and [`Bus::events`](crate::Bus::events) know these events as long as they are not declared here; what
    /// is declared goes before. Returns how many were left out because of
    /// [`EVENT_NAMES_MAX`](crate::EVENT_NAMES_MAX).
    pub fn know(&self, learn: Vec<DescriptorRef>, forget: &[EventName]) -> usize {
        let left_out = self.core.known.change(learn, forget);
        self.core.raise_events_version();
        self.core.changed.raise();
        left_out
    }
}
