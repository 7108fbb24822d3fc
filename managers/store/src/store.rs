//! The store as it is put on a node.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use edri_events::DescriptorRef;
use edri_managers::{Definition, IntoDefinition, Manager, Restart};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::disk::Work;
use crate::event::{Verb, descriptors};
use crate::file::StoreError;
use crate::limits::NAMESPACES_MAX;
use crate::model::{Bounds, Eviction};
use crate::namespace::Namespace;
use crate::reader;
use crate::worker::{Events, Shared, StoreWorker};

/// How often a lost worker is followed by another, which goes on with what it had.
const RESTARTS_MAX: u32 = 3;
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// A manager that keeps keys and values: in memory, or on disk.
///
/// Each namespace is for itself, and has one owner among all nodes that reach each other. Whoever wants to use one, on any
/// node, makes a [`Namespace`](crate::Namespace) of its name.
///
/// ```
/// use edri_store::{Eviction, Store};
///
/// let store = Store::memory()
///     .namespace("sessions")
///     .namespace_with("cache", |cache| cache.keys_max(10_000).evict(Eviction::LeastRecentlyUsed));
/// ```
#[derive(Debug)]
#[must_use = "a store does nothing until it is given to an App or a Node"]
pub struct Store {
    name: String,
    path: Option<PathBuf>,
    namespaces: Vec<NamespaceOptions>,
    handle: StoreHandle,
}

impl Store {
    /// A store that keeps everything in memory and forgets it when its node stops.
    pub fn memory() -> Self {
        Self { name: "store".to_owned(), path: None, namespaces: Vec::new(), handle: StoreHandle::default() }
    }

    /// A store that keeps everything in this file, which is made where there is none. A write is answered once it is on
    /// disk. All items are in memory as well, so reading does not wait for the disk, and a store is as large as memory
    /// allows. The file is opened when the node starts.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), ..Self::memory() }
    }

    /// Gives the manager another name than `store`: for a second store on one node.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Adds a namespace; its name is of lower-case letters, digits, `_` and `-`.
    pub fn namespace(self, name: &str) -> Self {
        self.namespace_with(name, |options| options)
    }

    /// Adds a namespace that is kept as `change` says.
    pub fn namespace_with(mut self, name: &str, change: impl FnOnce(NamespaceOptions) -> NamespaceOptions) -> Self {
        self.namespaces.push(change(NamespaceOptions { name: name.to_owned(), bounds: Bounds::default() }));
        self
    }

    /// What the program holds on to, for backups.
    #[must_use]
    pub fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    fn check(&self) -> Result<Vec<DescriptorRef>, String> {
        if self.namespaces.is_empty() {
            return Err("the store has no namespace: add one with `.namespace(\"name\")`".to_owned());
        }
        if self.namespaces.len() > NAMESPACES_MAX {
            return Err(format!("a store has {NAMESPACES_MAX} namespaces at most, not {}", self.namespaces.len()));
        }
        let mut events = Vec::new();
        for (index, options) in self.namespaces.iter().enumerate() {
            if self.namespaces[..index].iter().any(|other| other.name == options.name) {
                return Err(format!("namespace `{}` is there twice: leave one out", options.name));
            }
            if options.bounds.keys_max == 0 || options.bounds.bytes_max == 0 {
                return Err(format!("namespace `{}` has room for nothing: raise its limits", options.name));
            }
            events.extend(descriptors(&options.name).map_err(|error| error.to_string())?);
        }
        Ok(events)
    }
}

/// How a namespace is kept.
#[derive(Debug, Clone)]
#[must_use = "these are given back to `namespace_with`"]
pub struct NamespaceOptions {
    name: String,
    bounds: Bounds,
}

impl NamespaceOptions {
    /// The most keys. 1,048,576 by default.
    pub fn keys_max(mut self, keys: usize) -> Self {
        self.bounds.keys_max = keys;
        self
    }

    /// The most bytes of keys and values together. 1 GiB by default.
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bounds.bytes_max = bytes;
        self
    }

    /// Who makes room when it is full. By default nobody: a write that does not fit is refused with `full`.
    pub fn evict(mut self, eviction: Eviction) -> Self {
        self.bounds.eviction = eviction;
        self
    }
}

impl IntoDefinition for Store {
    fn into_definition(self) -> Definition {
        let checked = self.check();
        let namespaces = self.namespaces.iter().map(|options| Arc::new(Namespace::new(&options.name, options.bounds)));
        let namespaces: Vec<_> = namespaces.collect();
        let events = Arc::new(Events::of(&namespaces));
        let readers = namespaces.clone();
        let shared = Arc::new(Shared { path: self.path, namespaces, events, disk: Mutex::new(None) });
        *self.handle.shared.lock() = Arc::downgrade(&shared);
        let mut manager = Manager::new(&self.name)
            .worker(move || StoreWorker::new(Arc::clone(&shared)))
            // What keeps a store from starting does not soon go away by itself.
            .restart(Restart::at_most(RESTARTS_MAX, RESTARTS_WITHIN));
        let events = match checked {
            Ok(events) => {
                for namespace in readers {
                    let get = Verb::Get.event(&namespace.name);
                    manager = manager.responds_any(&get, move |request| reader::respond(&namespace, request));
                }
                events
            }
            Err(wrong) => {
                manager = manager.invalid(wrong);
                Vec::new()
            }
        };
        for event in events {
            if event.name().as_str().ends_with(Verb::Changed.as_str()) {
                manager = manager.declares(event);
            } else {
                manager = manager.handles_any(event.name().as_str()).declares(event);
            }
        }
        manager.into_definition()
    }
}

/// A store that is on a node, for what is not asked by events. Every clone is the same one.
#[derive(Debug, Clone, Default)]
pub struct StoreHandle {
    // Held to set it once, and to copy it. Weak, because the file is closed with the store.
    shared: Arc<Mutex<Weak<Shared>>>,
}

impl StoreHandle {
    /// Copies what a durable store has on disk at one moment into a new file, while the store goes on. The copy is a store's
    /// file itself: open it, or put it in another's place with [`restore`](crate::restore).
    ///
    /// # Errors
    ///
    /// [`StoreError`]: something is at `to` already, it cannot be written, or the store is not open or not durable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not end the copying.
    pub async fn backup(&self, to: impl AsRef<Path>) -> Result<(), StoreError> {
        let queue = self.shared.lock().upgrade().and_then(|shared| shared.queue()).ok_or(StoreError::Closed)?;
        let (done, is_done) = oneshot::channel();
        let to = to.as_ref().to_owned();
        queue.send(Work::Backup { to, done }).await.map_err(|_| StoreError::Closed)?;
        drop(queue);
        is_done.await.map_err(|_| StoreError::Closed)?
    }
}
