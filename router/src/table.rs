//! Who wants what: the route table. Pure, with no clock, no thread and no actor.
//!
//! The [`Table`] is what the Router actor owns and changes; a [`Snapshot`] of it is what publishers read. Both share
//! their contents, so taking a snapshot costs nothing and a change copies only what it touches.
//!
//! ```text
//! Snapshot ── names ──▶ Entry of "quake.recorded"
//!          │            ├─ descriptor      once somebody declared the event
//!          │            ├─ plain: [Route]  groups that want every such event, or look at each
//!          │            └─ keyed: key ─▶ [Route]   groups that want one key
//!          └─ patterns: [Subscription]     for names nobody has named yet
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use edri_events::{DescriptorRef, Envelope, EventName, Incompatible, Pattern, key_hash};

use crate::shards::Shards;

/// Looks at an event and says whether the subscriber wants it.
pub type Predicate = Arc<dyn Fn(&Envelope) -> bool + Send + Sync>;

/// What the table routes to.
pub(crate) trait Target: Clone {
    /// Distinguishes targets; a target is withdrawn by it.
    fn id(&self) -> u64;

    /// Targets of one such name share their events: each goes to one of them.
    fn shared(&self) -> Option<&Arc<str>> {
        None
    }

    /// It is in the table for those who look it up, and no publisher finds it.
    fn is_hidden(&self) -> bool {
        false
    }

    /// It is hidden, or will be.
    fn may_be_hidden(&self) -> bool {
        false
    }

    /// Of targets that share, the one with the least gets the event.
    fn cost(&self, envelope: &Envelope) -> u64 {
        let _ = envelope;
        0
    }
}

/// What a target wants.
#[derive(Clone)]
pub(crate) struct Subscription<T> {
    pub(crate) target: T,
    /// Which events, by name.
    pub(crate) pattern: Pattern,
    /// Only those with this key.
    pub(crate) key: Option<Arc<str>>,
    /// Only those that this function wants.
    pub(crate) predicate: Option<Predicate>,
    /// Which of the target's handlers they are for.
    pub(crate) handler: u32,
}

/// A target that wants the events of one name.
#[derive(Clone)]
pub(crate) struct Route<T> {
    pub(crate) target: T,
    pub(crate) handler: u32,
    /// Asked for by name, not by pattern: only then does the target answer requests.
    pub(crate) exact: bool,
    predicate: Option<Predicate>,
}

/// The routes of those who want one key.
type ByKey<T> = Shards<Arc<str>, Arc<[Route<T>]>>;

/// What is known of one event name.
pub(crate) struct Entry<T> {
    descriptor: Option<DescriptorRef>,
    plain: Vec<Route<T>>,
    keyed: Option<ByKey<T>>,
    /// A target stands here more than once, or shares its events with others, or is hidden, so one has to look who gets them.
    overlapping: bool,
}

/// An immutable view of the table.
pub(crate) struct Snapshot<T> {
    names: Shards<EventName, Arc<Entry<T>>>,
    patterns: Arc<Vec<Subscription<T>>>,
}

/// The route table.
pub(crate) struct Table<T> {
    view: Snapshot<T>,
    subscriptions: HashMap<u64, Vec<Subscription<T>>>,
    subscription_count: usize,
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self { names: self.names.clone(), patterns: Arc::clone(&self.patterns) }
    }
}

impl<T: Target> Default for Snapshot<T> {
    fn default() -> Self {
        Self { names: Shards::default(), patterns: Arc::default() }
    }
}

impl<T: Target> Default for Table<T> {
    fn default() -> Self {
        Self { view: Snapshot::default(), subscriptions: HashMap::new(), subscription_count: 0 }
    }
}

impl<T: Target> Table<T> {
    /// The table as it stands.
    pub(crate) fn snapshot(&self) -> Snapshot<T> {
        self.view.clone()
    }

    /// How many subscriptions there are.
    pub(crate) fn subscription_count(&self) -> usize {
        self.subscription_count
    }

    /// How many names are known.
    pub(crate) fn name_count(&self) -> usize {
        self.view.names.len()
    }

    /// Whether `descriptor` may be declared beside what is known.
    ///
    /// # Errors
    ///
    /// [`Incompatible`] when its name is known with another kind, key or Rust type.
    pub(crate) fn check(&self, descriptor: &DescriptorRef) -> Result<(), Incompatible> {
        match self.view.entry(descriptor).and_then(|entry| entry.descriptor.as_ref()) {
            Some(known) => descriptor.compatible(known),
            None => Ok(()),
        }
    }

    /// Declares an event; whether that says anything new. Of a typed and an untyped description of one name, the typed one is kept.
    ///
    /// # Errors
    ///
    /// As [`Table::check`]; the table is unchanged then.
    pub(crate) fn declare(&mut self, descriptor: DescriptorRef) -> Result<bool, Incompatible> {
        self.check(&descriptor)?;
        let known = self.view.entry(&descriptor);
        let known_descriptor = known.and_then(|entry| entry.descriptor.as_ref());
        if known_descriptor.is_some_and(|known| known.rust_type().is_some() || descriptor.rust_type().is_none()) {
            return Ok(false);
        }
        let mut entry = match known {
            Some(entry) => entry.with_descriptor(None),
            None => self.new_entry(descriptor.name()),
        };
        let (hash, name) = (descriptor.name_hash(), descriptor.name().clone());
        entry.descriptor = Some(descriptor);
        self.view.names.insert(hash, name, Arc::new(entry));
        Ok(true)
    }

    /// Everybody who wants anything, in no order.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &T> {
        self.subscriptions.values().filter_map(|subscriptions| Some(&subscriptions.first()?.target))
    }

    /// What the target `id` wants; `None` when it wants nothing.
    pub(crate) fn subscriptions(&self, id: u64) -> Option<&[Subscription<T>]> {
        self.subscriptions.get(&id).map(Vec::as_slice)
    }

    /// Adds a subscription.
    pub(crate) fn subscribe(&mut self, subscription: Subscription<T>) {
        if subscription.pattern.is_exact() {
            let name = subscription.pattern.as_str();
            let hash = key_hash(name);
            let mut entry = match self.view.names.get(hash, name) {
                Some(entry) => entry.with_descriptor(entry.descriptor.clone()),
                None => self.new_entry(name),
            };
            entry.add(&subscription, self.has_another(&subscription, name));
            // A pattern is a checked text, so an exact one is a name.
            if let Ok(name) = EventName::new(name) {
                self.view.names.insert(hash, name, Arc::new(entry));
            }
        } else {
            for name in self.names_matching(&subscription.pattern) {
                let hash = key_hash(&name);
                if let Some(entry) = self.view.names.get(hash, &name) {
                    let mut entry = entry.with_descriptor(entry.descriptor.clone());
                    entry.add(&subscription, self.has_another(&subscription, &name));
                    self.view.names.insert(hash, name, Arc::new(entry));
                }
            }
            Arc::make_mut(&mut self.view.patterns).push(subscription.clone());
        }
        self.subscriptions.entry(subscription.target.id()).or_default().push(subscription);
        self.subscription_count += 1;
    }

    /// Removes every subscription of the target `id`, which comes back if there were any.
    pub(crate) fn withdraw(&mut self, id: u64) -> Option<T> {
        let subscriptions = self.subscriptions.remove(&id)?;
        self.subscription_count -= subscriptions.len();
        if subscriptions.iter().any(|subscription| !subscription.pattern.is_exact()) {
            Arc::make_mut(&mut self.view.patterns).retain(|subscription| subscription.target.id() != id);
        }
        let mut names = HashSet::new();
        for subscription in &subscriptions {
            if subscription.pattern.is_exact() {
                names.extend(EventName::new(subscription.pattern.as_str()));
            } else {
                names.extend(self.names_matching(&subscription.pattern));
            }
        }
        for name in names {
            let hash = key_hash(&name);
            let Some(entry) = self.view.names.get(hash, &name) else { continue };
            let mut entry = entry.with_descriptor(entry.descriptor.clone());
            entry.remove(id, subscriptions.iter().filter_map(|subscription| subscription.key.as_ref()));
            if entry.is_needless() {
                self.view.names.remove(hash, &name);
            } else {
                self.view.names.insert(hash, name, Arc::new(entry));
            }
        }
        subscriptions.into_iter().next().map(|subscription| subscription.target)
    }

    /// Whether the subscription's target already wants events called `name`.
    fn has_another(&self, subscription: &Subscription<T>, name: &str) -> bool {
        let others = self.subscriptions.get(&subscription.target.id());
        others.is_some_and(|others| others.iter().any(|other| other.pattern.matches(name)))
    }

    fn names_matching(&self, pattern: &Pattern) -> Vec<EventName> {
        self.view.names.iter().map(|(name, _)| name).filter(|name| pattern.matches(name)).cloned().collect()
    }

    fn new_entry(&self, name: &str) -> Entry<T> {
        self.view.undeclared_entry(name)
    }
}

impl<T: Target> Snapshot<T> {
    /// What is known of the event's name.
    pub(crate) fn entry(&self, descriptor: &DescriptorRef) -> Option<&Arc<Entry<T>>> {
        self.names.get(descriptor.name_hash(), descriptor.name())
    }

    /// What is known of `name`.
    pub(crate) fn entry_by_name(&self, name: &str) -> Option<&Arc<Entry<T>>> {
        self.names.get(key_hash(name), name)
    }

    /// What would be known of a name that nobody has declared or subscribed to by name: those who subscribed by pattern.
    pub(crate) fn undeclared_entry(&self, name: &str) -> Entry<T> {
        let mut entry = Entry { descriptor: None, plain: Vec::new(), keyed: None, overlapping: false };
        let mut known = HashSet::new();
        for subscription in self.patterns.iter().filter(|subscription| subscription.pattern.matches(name)) {
            entry.add(subscription, !known.insert(subscription.target.id()));
        }
        entry
    }

    /// The declared events, in no order.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &DescriptorRef> {
        self.names.iter().filter_map(|(_, entry)| entry.descriptor.as_ref())
    }
}

impl<T: Target> Entry<T> {
    pub(crate) fn descriptor(&self) -> Option<&DescriptorRef> {
        self.descriptor.as_ref()
    }

    /// The one route there is, where whoever publishes the event need look at nothing else.
    #[inline]
    pub(crate) fn only(&self) -> Option<&Route<T>> {
        match (&self.plain[..], &self.keyed) {
            ([route], None) if route.predicate.is_none() && !route.target.is_hidden() => Some(route),
            _ => None,
        }
    }

    /// Calls `each` once for every target that wants this event.
    ///
    /// Of several routes that lead to one target, one that it asked for by name goes before one by pattern, for only
    /// the former answers requests; then one for every key before one for a single key.
    /// Of targets that share their events it is one: that with the least cost.
    #[inline]
    pub(crate) fn for_each<'a>(&'a self, envelope: &Envelope, each: impl FnMut(&'a Route<T>)) {
        self.visit(envelope, true, each);
    }

    /// As [`Entry::for_each`], but with all of those that share.
    pub(crate) fn for_all<'a>(&'a self, envelope: &Envelope, each: impl FnMut(&'a Route<T>)) {
        self.visit(envelope, false, each);
    }

    #[inline]
    fn visit<'a>(&'a self, envelope: &Envelope, one_of_shared: bool, mut each: impl FnMut(&'a Route<T>)) {
        let keyed = self.keyed.as_ref().and_then(|keyed| {
            envelope.with_key(|key| key.and_then(|key| keyed.get(key_hash(key), key))).map(|routes| &routes[..])
        });
        let keyed = keyed.unwrap_or_default();
        if !self.overlapping {
            self.plain.iter().filter(|route| route.wants(envelope)).for_each(&mut each);
            keyed.iter().filter(|route| route.wants(envelope)).for_each(&mut each);
            return;
        }
        let by = |exact: bool| self.plain.iter().chain(keyed).filter(move |route| route.exact == exact);
        let mut reached = Vec::new();
        let mut sharing: Vec<&'a Route<T>> = Vec::new();
        for route in by(true).chain(by(false)) {
            if !route.target.is_hidden() && !reached.contains(&route.target.id()) && route.wants(envelope) {
                reached.push(route.target.id());
                match route.target.shared() {
                    None => each(route),
                    Some(_) if !one_of_shared => each(route),
                    Some(name) => match sharing.iter_mut().find(|other| other.target.shared() == Some(name)) {
                        Some(best) if route.target.cost(envelope) < best.target.cost(envelope) => *best = route,
                        Some(_) => {}
                        None => sharing.push(route),
                    },
                }
            }
        }
        sharing.into_iter().for_each(each);
    }

    /// The route by which the target `id` gets this event, if it wants it: the one that [`Entry::for_each`] would take.
    pub(crate) fn route_to<'a>(&'a self, id: u64, envelope: &Envelope) -> Option<&'a Route<T>> {
        let by_key = |keyed: &'a ByKey<T>| {
            envelope.with_key(|key| key.and_then(|key| keyed.get(key_hash(key), key))).map(|routes| &routes[..])
        };
        let keyed = self.keyed.as_ref().and_then(by_key).unwrap_or_default();
        let routes = || self.plain.iter().chain(keyed).filter(|route| route.target.id() == id);
        let wanted = |exact: bool| routes().find(|route| route.exact == exact && route.wants(envelope));
        wanted(true).or_else(|| wanted(false))
    }

    /// Whether a target that wants one event of this name wants all of them, by one route: nobody looks at the event.
    pub(crate) fn is_same_for_all(&self) -> bool {
        self.keyed.is_none() && self.plain.iter().all(|route| route.predicate.is_none())
    }

    /// All routes, also those for single keys.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Route<T>> {
        let keyed = self.keyed.iter().flat_map(|keyed| keyed.iter()).flat_map(|(_, routes)| routes.iter());
        self.plain.iter().chain(keyed)
    }

    /// Whether the target `id` wants any event of this name.
    pub(crate) fn leads_to(&self, id: u64) -> bool {
        self.routes().any(|route| route.target.id() == id)
    }

    /// Whether nobody wants any event of this name.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.plain.is_empty() && self.keyed.is_none()
    }

    /// Whether the name would be found the same without this entry: nobody declared it or asked for it by name.
    fn is_needless(&self) -> bool {
        self.descriptor.is_none() && !self.routes().any(|route| route.exact)
    }

    fn with_descriptor(&self, descriptor: Option<DescriptorRef>) -> Self {
        Self { descriptor, plain: self.plain.clone(), keyed: self.keyed.clone(), overlapping: self.overlapping }
    }

    /// Adds a route; `again` says that the target has another one here.
    fn add(&mut self, subscription: &Subscription<T>, again: bool) {
        self.overlapping |= again || subscription.target.shared().is_some() || subscription.target.may_be_hidden();
        let route = Route {
            target: subscription.target.clone(),
            handler: subscription.handler,
            exact: subscription.pattern.is_exact(),
            predicate: subscription.predicate.clone(),
        };
        match &subscription.key {
            None => self.plain.push(route),
            Some(key) => {
                let keyed = self.keyed.get_or_insert_default();
                let hash = key_hash(key);
                let routes = keyed.get(hash, key).map_or(&[][..], |routes| routes);
                let routes = routes.iter().cloned().chain([route]).collect();
                keyed.insert(hash, Arc::clone(key), routes);
            }
        }
    }

    /// Removes the routes of the target `id`, which has routes under these keys at most.
    fn remove<'a>(&mut self, id: u64, keys: impl Iterator<Item = &'a Arc<str>>) {
        self.plain.retain(|route| route.target.id() != id);
        let Some(keyed) = &mut self.keyed else { return };
        for key in keys {
            let hash = key_hash(key);
            let Some(routes) = keyed.get(hash, key) else { continue };
            let rest: Arc<[_]> = routes.iter().filter(|route| route.target.id() != id).cloned().collect();
            if rest.is_empty() {
                keyed.remove(hash, key);
            } else {
                keyed.insert(hash, Arc::clone(key), rest);
            }
        }
        if keyed.len() == 0 {
            self.keyed = None;
        }
    }
}

impl<T> Route<T> {
    fn wants(&self, envelope: &Envelope) -> bool {
        self.predicate.as_ref().is_none_or(|predicate| predicate(envelope))
    }
}

impl<T: Target + fmt::Debug> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("target", &self.target)
            .field("pattern", &self.pattern)
            .field("key", &self.key)
            .field("filtered", &self.predicate.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
