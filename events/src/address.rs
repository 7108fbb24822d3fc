use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde::Serialize;

use crate::{Incarnation, ManagerName, NodeName};

/// Who sent an event: a node, one of its lives, and the manager when a worker sent it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Address {
    /// The node.
    pub node: NodeName,
    /// The life of the node's process.
    pub incarnation: Incarnation,
    /// The manager whose worker sent the event; `None` for the program around the node.
    pub manager: Option<ManagerName>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.manager {
            Some(manager) => write!(f, "{}/{manager}@{}", self.node, self.incarnation),
            None => write!(f, "{}@{}", self.node, self.incarnation),
        }
    }
}

/// An event's sender, cheap to copy into every event.
#[derive(Clone)]
pub struct Origin(Shared);

#[derive(Clone)]
enum Shared {
    /// Of this process. Not counted: the count of one sender's address, changed by the thread that makes an event and by
    /// the one that drops it, would cross between their cores twice an event.
    Here(&'static Address),
    /// Of another process; such addresses come and go.
    Counted(Arc<Address>),
}

/// The addresses of this process, kept for ever: one for each node and each manager that it ever ran.
static HERE: LazyLock<Mutex<HashSet<&'static Address>>> = LazyLock::new(Mutex::default);

impl Origin {
    /// An address of this process. It is kept until the process ends, so this is not for addresses that come from
    /// outside; those are [`Origin::from`] an `Arc`.
    #[must_use]
    pub fn here(address: Address) -> Self {
        let mut here = HERE.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = here.get(&address).copied().unwrap_or_else(|| {
            let kept: &'static Address = Box::leak(Box::new(address));
            here.insert(kept);
            kept
        });
        Self(Shared::Here(kept))
    }
}

impl From<Arc<Address>> for Origin {
    fn from(address: Arc<Address>) -> Self {
        Self(Shared::Counted(address))
    }
}

impl Deref for Origin {
    type Target = Address;

    fn deref(&self) -> &Address {
        match &self.0 {
            Shared::Here(address) => address,
            Shared::Counted(address) => address,
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
