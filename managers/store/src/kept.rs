//! A namespace as others see it: what is kept for certain, and who watches.
//!
//! A durable namespace does what it is asked at once and shows it once it is on disk. Until then [`Kept`] holds for each key
//! concerned what is on disk:
//!
//! ```text
//! model     what all commands so far have made of it    commands are judged by this
//! pending   key ─▶ what is on disk, changes to come     readers and watchers see this where there is something
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use edri_events::Failure;
use tokio::sync::Notify;

use crate::event::What;
use crate::limits::{ANSWER_BYTES_MAX, PAGE_ITEMS_MAX, WATCH_BYTES_MAX, WATCH_CHANGES_MAX, WATCHERS_MAX};
use crate::model::{Answer, Bounds, Change, Command, Effects, Entry, Model, Refusal};
use crate::typed::{Found, FoundItem};

/// What is kept, and who watches.
#[derive(Debug)]
pub(crate) struct Kept {
    model: Model,
    pending: BTreeMap<Arc<str>, Pending>,
    /// The version of the last change that is kept for certain.
    settled: u64,
    watchers: HashMap<u64, Watcher>,
    next_watcher: u64,
    /// Why nothing is written now.
    pub(crate) halted: Option<Failure>,
}

/// A key with changes that are not on disk yet.
#[derive(Debug)]
struct Pending {
    on_disk: Option<Entry>,
    changes: usize,
}

/// Somebody who watches.
#[derive(Debug)]
struct Watcher {
    prefix: Box<str>,
    /// How far what was there at the beginning has been told: after this key, or wholly.
    told: Told,
    queue: VecDeque<News>,
    bytes: usize,
    bell: Arc<Notify>,
    over: Option<Failure>,
}

#[derive(Debug)]
enum Told {
    After(Option<Arc<str>>),
    All,
}

/// Something to tell a watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) what: What,
    pub(crate) key: Arc<str>,
    pub(crate) version: u64,
    pub(crate) entry: Option<Entry>,
}

/// A page of items.
pub(crate) struct Page {
    pub(crate) items: Vec<(Arc<str>, Entry)>,
    /// Whether there are more after the last.
    pub(crate) more: bool,
}

impl Kept {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self::of(Model::new(bounds))
    }

    fn of(model: Model) -> Self {
        Self {
            settled: model.version(),
            model,
            pending: BTreeMap::new(),
            watchers: HashMap::new(),
            next_watcher: 0,
            halted: None,
        }
    }

    /// Begins with what was kept.
    pub(crate) fn load(&mut self, model: Model) {
        self.end_watches(&Failure::new(
            "watch_lagged",
            "the store has read its file again after an error: open the watch again, it begins with what is there",
        ));
        self.settled = model.version();
        self.model = model;
        self.pending.clear();
        self.halted = None;
    }

    // ---- looking ---------------------------------------------------------------------------------------------------

    fn visible(&self, key: &str) -> Option<(&Arc<str>, &Entry)> {
        match self.pending.get_key_value(key) {
            Some((key, pending)) => pending.on_disk.as_ref().map(|entry| (key, entry)),
            None => self.model.item(key),
        }
    }

    /// The item of a key, which is used thereby.
    pub(crate) fn get(&mut self, now: u64, key: &str) -> Option<&Entry> {
        self.model.touch(key);
        self.visible(key).map(|(_, entry)| entry).filter(|entry| !entry.is_over(now))
    }

    /// As [`Kept::get`], as it is answered. The clock is asked only of an item that expires.
    pub(crate) fn find(&mut self, now: impl FnOnce() -> u64, key: &str) -> Found {
        self.model.touch(key);
        let Some((key, entry)) = self.visible(key) else { return Found(None) };
        let expires_in_ms = match entry.expires_at {
            None => None,
            Some(at) => match now() {
                now if at <= now => return Found(None),
                now => Some(at - now),
            },
        };
        let (key, value) = (Arc::clone(key), entry.value.clone());
        Found(Some(FoundItem { key, value, version: entry.version, expires_in_ms }))
    }

    /// Items in the order of their keys.
    fn items<'a>(
        &'a self,
        now: u64,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> {
        let bound = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut model = self.model.from(bound).peekable();
        let mut pending = self.pending.range::<str, _>((bound, Bound::Unbounded)).peekable();
        let merged = std::iter::from_fn(move || {
            let of_pending = match (model.peek(), pending.peek()) {
                (None, None) => return None,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some((ours, _)), Some((theirs, _))) => theirs <= ours,
            };
            if !of_pending {
                return model.next().map(|(key, entry)| (key, Some(entry)));
            }
            let (key, held) = pending.next()?;
            if model.peek().is_some_and(|(ours, _)| *ours == key) {
                model.next();
            }
            Some((key, held.on_disk.as_ref()))
        });
        merged
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, entry)| Some((key, entry.filter(|entry| !entry.is_over(now))?)))
    }

    /// A page of items; it ends early when it has as many bytes as an answer may have.
    pub(crate) fn page(&self, now: u64, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        let mut page = Page { items: Vec::new(), more: false };
        let mut bytes = 0;
        for (key, entry) in self.items(now, prefix, after) {
            bytes += item_bytes(key, Some(entry));
            if page.items.len() == limit || (bytes > ANSWER_BYTES_MAX && !page.items.is_empty()) {
                page.more = true;
                break;
            }
            page.items.push((Arc::clone(key), entry.clone()));
        }
        page
    }

    pub(crate) fn count(&self, now: u64, prefix: &str) -> u64 {
        self.items(now, prefix, None).count() as u64
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Whether everything that was done is kept for certain.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    // ---- doing -----------------------------------------------------------------------------------------------------

    pub(crate) fn apply(
        &mut self,
        now: u64,
        id: Option<&str>,
        command: &Command,
    ) -> (Result<Answer, Refusal>, Effects) {
        self.model.apply(now, id, command)
    }

    pub(crate) fn sweep(&mut self, now: u64) -> Effects {
        self.model.sweep(now)
    }

    /// These changes are not on disk yet.
    pub(crate) fn hold(&mut self, changes: &[Change]) {
        for change in changes {
            let fresh = || Pending { on_disk: change.before.clone(), changes: 0 };
            self.pending.entry(Arc::clone(&change.key)).or_insert_with(fresh).changes += 1;
        }
    }

    /// These changes, which were held, are on disk.
    pub(crate) fn release(&mut self, changes: &[Change]) {
        for change in changes {
            if let Some(pending) = self.pending.get_mut(&change.key) {
                pending.changes -= 1;
                pending.on_disk.clone_from(&change.after);
                if pending.changes == 0 {
                    self.pending.remove(&change.key);
                }
            }
        }
        self.tell(changes);
    }

    /// Takes back what was held, the latest effects last.
    pub(crate) fn take_back(&mut self, effects: Vec<Effects>) {
        for effects in effects.into_iter().rev() {
            self.model.take_back(effects.changes);
            if let Some(remembered) = effects.remembered {
                self.model.take_back_answer(&remembered.id);
            }
        }
        self.pending.clear();
    }

    // ---- watching --------------------------------------------------------------------------------------------------

    /// Begins a watch; `None` when as many watch as may.
    pub(crate) fn watch(&mut self, prefix: &str) -> Option<(u64, Arc<Notify>)> {
        if self.watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let (number, bell) = (self.next_watcher, Arc::new(Notify::new()));
        self.next_watcher += 1;
        let watcher = Watcher {
            prefix: prefix.into(),
            told: Told::After(None),
            queue: VecDeque::new(),
            bytes: 0,
            bell: Arc::clone(&bell),
            over: None,
        };
        self.watchers.insert(number, watcher);
        Some((number, bell))
    }

    pub(crate) fn unwatch(&mut self, number: u64) {
        self.watchers.remove(&number);
    }

    /// Ends all watches.
    pub(crate) fn end_watches(&mut self, because: &Failure) {
        for watcher in self.watchers.values_mut() {
            watcher.over.get_or_insert_with(|| because.clone());
            watcher.bell.notify_one();
        }
    }

    /// Why a watch is over, once it is.
    pub(crate) fn over(&self, number: u64) -> Option<Failure> {
        self.watchers.get(&number)?.over.clone()
    }

    /// What there is to tell a watcher; empty when nothing is now.
    ///
    /// # Errors
    ///
    /// Why the watch is over.
    pub(crate) fn news(&mut self, now: u64, number: u64) -> Result<Vec<News>, Failure> {
        let Some(watcher) = self.watchers.get_mut(&number) else { return Ok(Vec::new()) };
        if let Some(over) = &watcher.over {
            return Err(over.clone());
        }
        watcher.bytes = 0;
        let mut news: Vec<_> = watcher.queue.drain(..).collect();
        let Told::After(after) = &watcher.told else { return Ok(news) };
        if !news.is_empty() {
            return Ok(news);
        }
        let (prefix, after) = (watcher.prefix.clone(), after.clone());
        let page = self.page(now, &prefix, after.as_deref(), PAGE_ITEMS_MAX);
        let settled = self.settled;
        let Some(watcher) = self.watchers.get_mut(&number) else { return Ok(news) };
        watcher.told = match page.items.last() {
            Some((last, _)) if page.more => Told::After(Some(Arc::clone(last))),
            _ => Told::All,
        };
        news.extend(page.items.into_iter().map(|(key, entry)| News {
            what: What::Is,
            key,
            version: entry.version,
            entry: Some(entry),
        }));
        if matches!(watcher.told, Told::All) {
            news.push(News { what: What::Ready, key: "".into(), version: settled, entry: None });
        }
        Ok(news)
    }

    /// Tells watchers of changes that are kept for certain.
    pub(crate) fn tell(&mut self, changes: &[Change]) {
        for change in changes {
            self.settled = change.version;
            for watcher in self.watchers.values_mut() {
                watcher.tell(change);
            }
        }
    }
}

impl Watcher {
    fn tell(&mut self, change: &Change) {
        // What comes with a later page is told there, as it is then.
        let later = match &self.told {
            Told::All => false,
            Told::After(after) => after.as_ref().is_none_or(|after| change.key > *after),
        };
        if later || self.over.is_some() || !change.key.starts_with(&*self.prefix) {
            return;
        }
        self.bytes += item_bytes(&change.key, change.after.as_ref());
        if self.queue.len() >= WATCH_CHANGES_MAX || self.bytes > WATCH_BYTES_MAX {
            self.queue.clear();
            self.over = Some(Failure::new(
                "watch_lagged",
                format!(
                    "more than {WATCH_CHANGES_MAX} changes or {WATCH_BYTES_MAX} bytes waited for this watcher: open the \
                     watch again, it begins with what is there; and read it faster, or watch a longer prefix"
                ),
            ));
        } else {
            self.queue.push_back(News {
                what: change.what,
                key: Arc::clone(&change.key),
                version: change.version,
                entry: change.after.clone(),
            });
        }
        self.bell.notify_one();
    }
}

/// About what an item takes on its way.
fn item_bytes(key: &str, entry: Option<&Entry>) -> usize {
    key.len() + entry.map_or(0, |entry| entry.value.len()) + 64
}

#[cfg(test)]
mod tests;
