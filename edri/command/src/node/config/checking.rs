//! What is found wrong while a node is made of its configuration.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Where in the configuration something is made, and what was wrong so far.
#[derive(Debug)]
pub(crate) struct Checking {
    /// Paths are relative to it.
    folder: PathBuf,
    path: Vec<String>,
    found: Vec<(Vec<String>, String)>,
}

impl Checking {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, path: Vec::new(), found: Vec::new() }
    }

    /// What was wrong, with the paths of the keys.
    pub(crate) fn found(self) -> Vec<(Vec<String>, String)> {
        self.found
    }

    /// Goes into what is at this key, and back.
    pub(crate) fn within<T>(&mut self, key: impl ToString, go: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_string());
        let made = go(self);
        self.path.pop();
        made
    }

    /// Goes into each entry of the table at this key.
    pub(crate) fn each<V, T>(
        &mut self,
        key: &str,
        entries: &BTreeMap<String, V>,
        mut go: impl FnMut(&str, &V, &mut Self) -> T,
    ) -> Vec<T> {
        self.within(key, |checking| {
            entries.iter().map(|(name, entry)| checking.within(name, |checking| go(name, entry, checking))).collect()
        })
    }

    /// Goes into each entry of the list at this key.
    pub(crate) fn each_of<V>(&mut self, key: &str, entries: &[V], mut go: impl FnMut(&V, &mut Self)) {
        self.within(key, |checking| {
            for (index, entry) in entries.iter().enumerate() {
                checking.within(index, |checking| go(entry, checking));
            }
        });
    }

    /// What is at this key, or here if it is empty, is wrong.
    pub(crate) fn wrong(&mut self, key: &str, message: impl Display) {
        let mut path = self.path.clone();
        path.extend(Some(key.to_owned()).filter(|key| !key.is_empty()));
        self.wrong_at(path, message);
    }

    /// What is at this whole path is wrong.
    pub(crate) fn wrong_at(&mut self, path: Vec<String>, message: impl Display) {
        self.found.push((path, message.to_string()));
    }

    /// Notes an error of what is at this key.
    pub(crate) fn accept<T, E: Display>(&mut self, key: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.wrong(key, error)).ok()
    }

    /// A path as it is meant.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// A file that has to be there.
    pub(crate) fn file(&mut self, key: &str, path: &Path) -> PathBuf {
        let whole = self.path(path);
        // Opened, because one that may not be read is as good as none.
        if let Err(error) = std::fs::File::open(&whole) {
            self.wrong(key, format!("`{}` cannot be read: {error}", whole.display()));
        }
        whole
    }

    /// A folder that has to be there.
    pub(crate) fn folder(&mut self, key: &str, path: &Path) -> PathBuf {
        let whole = self.path(path);
        if !whole.is_dir() {
            self.wrong(key, format!("there is no folder `{}`", whole.display()));
        }
        whole
    }
}
