//! The histories of a node.

use std::sync::Arc;

use edri_events::Pattern;
use parking_lot::Mutex;

use super::History;
use super::recorder::Recorder;
use crate::actor::Change;
use crate::group::{Group, GroupOptions, GroupRef, Overflow, Spread};
use crate::limits::{HISTORIES_MAX, INBOX_CAPACITY_DEFAULT};
use crate::subscribe::{Selection, next_subscription};
use crate::tap::Tap;
use crate::{DeclareError, Router};

/// The histories of a node, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Histories {
    // Held to find, list, add or remove one.
    all: Mutex<Vec<(GroupRef, Arc<Recorder>)>>,
}

impl Histories {
    pub(crate) fn list(&self) -> Vec<Arc<Recorder>> {
        self.all.lock().iter().map(|(_, recorder)| Arc::clone(recorder)).collect()
    }

    /// The history of exactly this pattern, otherwise the first that has all of its events.
    pub(crate) fn covering(&self, pattern: &Pattern) -> Option<Arc<Recorder>> {
        let all = self.list();
        let exact = all.iter().find(|history| history.pattern() == pattern);
        exact.or_else(|| all.iter().find(|history| history.pattern().covers(pattern))).cloned()
    }

    /// Whether the group is a history.
    pub(crate) fn is_one(&self, group: &GroupRef) -> bool {
        self.all.lock().iter().any(|(history, _)| history.id() == group.id())
    }

    fn add(&self, group: &GroupRef, recorder: Arc<Recorder>) -> Result<(), DeclareError> {
        let pattern = recorder.pattern();
        let mut all = self.all.lock();
        if position(&all, pattern).is_some() {
            return Err(DeclareError::HistoryExists(pattern.clone()));
        }
        if all.len() >= HISTORIES_MAX {
            return Err(DeclareError::Limit { what: "histories", limit: HISTORIES_MAX });
        }
        all.push((Arc::clone(group), recorder));
        Ok(())
    }

    fn remove(&self, pattern: &Pattern) -> Option<GroupRef> {
        let mut all = self.all.lock();
        let at = position(&all, pattern)?;
        Some(all.remove(at).0)
    }
}

fn position(all: &[(GroupRef, Arc<Recorder>)], pattern: &Pattern) -> Option<usize> {
    all.iter().position(|(_, recorder)| recorder.pattern() == pattern)
}

impl Router {
    /// Begins to keep a history of the events that `pattern` selects: of what is published on this node from now on, and of
    /// what comes from other nodes, which are told that this one wants these events.
    ///
    /// # Errors
    ///
    /// [`DeclareError::HistoryExists`] when there is one of exactly this pattern; [`DeclareError::Name`] when the text is no
    /// pattern; [`DeclareError::Limit`] beyond [`HISTORIES_MAX`](crate::HISTORIES_MAX) or the subscriptions of the node.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped the history may be there or not.
    pub async fn add_history(&self, pattern: &str, history: History) -> Result<(), DeclareError> {
        if self.core.uplink().is_some() {
            return Err(DeclareError::NoSubscriptions);
        }
        let pattern = Pattern::new(pattern)?;
        let options = GroupOptions {
            name: next_subscription(),
            spread: Spread::Compete,
            // Nothing is ever put into the inbox; other nodes are told this number.
            capacity: INBOX_CAPACITY_DEFAULT,
            overflow: Overflow::DropNewest,
            handlers: Vec::new(),
            shared: false,
        };
        let recorder = Recorder::new(pattern.clone(), history);
        let group = Group::tapped(options, Arc::clone(&recorder) as Arc<dyn Tap>);
        self.core.histories.add(&group, recorder)?;
        self.core.add_group(&group);
        let selections = vec![Selection::new(pattern.clone())];
        let change = Change { subscribe: vec![(Arc::clone(&group), selections)], ..Change::default() };
        if let Err(error) = self.core.change(change).await {
            self.core.histories.remove(&pattern);
            group.close(None);
            self.core.forget_group(&group);
            return Err(error);
        }
        Ok(())
    }

    /// Ends the history of exactly this pattern; whether there was one. Its subscribers can read what it has, and then learn
    /// that it is the end.
    ///
    /// # Errors
    ///
    /// [`DeclareError::Name`] when the text is no pattern, [`DeclareError::Stopping`] when the node has ended.
    pub async fn remove_history(&self, pattern: &str) -> Result<bool, DeclareError> {
        let Some(group) = self.core.histories.remove(&Pattern::new(pattern)?) else { return Ok(false) };
        group.close(None);
        self.core.forget_group(&group);
        self.core.change(Change { withdraw: vec![group.id()], ..Change::default() }).await?;
        Ok(true)
    }
}
