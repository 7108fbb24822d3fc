//! Keys and values.

use std::collections::BTreeMap;
use std::path::PathBuf;

use edri::store::Eviction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Checking;
use super::units::Size;

/// A store, in memory unless it has a file.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Store {
    path: Option<PathBuf>,
    namespaces: BTreeMap<String, Namespace>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Namespace {
    keys: usize,
    bytes: Size,
    evict: Evict,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Evict {
    Reject,
    LeastRecentlyUsed,
    SoonestToExpire,
}

impl Default for Namespace {
    fn default() -> Self {
        use edri::store::limits::{BYTES_MAX_DEFAULT, KEYS_MAX_DEFAULT};
        Self { keys: KEYS_MAX_DEFAULT, bytes: Size::from(BYTES_MAX_DEFAULT as usize), evict: Evict::Reject }
    }
}

impl Store {
    /// The names of its namespaces.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &String> {
        self.namespaces.keys()
    }

    pub(super) fn build(&self, name: &str, checking: &mut Checking) -> edri::Store {
        checking.accept("", edri::ManagerName::new(name));
        let store = match &self.path {
            None => edri::Store::memory(),
            Some(path) => {
                let path = checking.path(path);
                if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
                    checking.wrong("path", format!("there is no folder `{}`: make it", folder.display()));
                }
                edri::Store::open(path)
            }
        };
        let mut store = store.named(name);
        if self.namespaces.is_empty() {
            checking.wrong("", format!("the store has no namespace: add `[stores.{name}.namespaces.default]`"));
        }
        for (name, namespace) in &self.namespaces {
            checking.within("namespaces", |checking| {
                checking.accept(name, edri::store::event::check_namespace(name));
                checking.within(name, |checking| {
                    for (key, count) in [("keys", namespace.keys as u64), ("bytes", namespace.bytes.bytes())] {
                        if count == 0 {
                            checking.wrong(key, "there is room for nothing: raise it");
                        }
                    }
                });
            });
            store = store.namespace_with(name, |options| {
                options.keys_max(namespace.keys).bytes_max(namespace.bytes.bytes()).evict(namespace.evict.into())
            });
        }
        store
    }
}

impl From<Evict> for Eviction {
    fn from(evict: Evict) -> Self {
        match evict {
            Evict::Reject => Self::Reject,
            Evict::LeastRecentlyUsed => Self::LeastRecentlyUsed,
            Evict::SoonestToExpire => Self::SoonestToExpire,
        }
    }
}
