use edri_events::{EventName, NameError, Pattern};

/// What a caller wants to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Publish a notification.
    Publish,
    /// Send a request, or open a tunnel.
    Request,
    /// Be given notifications.
    Subscribe,
    /// Handle events.
    Serve,
}

/// The events of schedulers and stores, which [`Api::operators`](crate::Api::operators) exposes to those who are allowed them by name.
pub(crate) const OPERATORS: [&str; 2] = ["schedule.*", "store.*.*"];

/// Whether the event is one of edri's own, which operate a node.
pub(crate) fn is_own(event: &EventName) -> bool {
    event.as_str().starts_with("edri.")
}

/// What somebody may do: patterns of event names for each verb. Nothing else is allowed, and only events that are
/// exposed can be reached at all.
///
/// What operates a node has to be named: events whose names begin with `edri.`, and those that
/// [`Api::operators`](crate::Api::operators) exposes, are allowed by patterns that begin with a name (`edri.>`,
/// `schedule.list`), never by `>` or `*`.
///
/// ```
/// # use edri_api::Permissions;
/// let dashboard = Permissions::new().subscribe("quake.>").request("risk.assess");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Permissions {
    grants: Vec<(Verb, String)>,
    metrics: bool,
}

impl Permissions {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that is exposed, with every verb, and the metrics; not what operates the node: see
    /// [`Permissions::operator`].
    pub fn all() -> Self {
        Self::new().publish(">").request(">").subscribe(">").serve(">").metrics()
    }

    /// Everything that is exposed, and what operates the node and its cluster: `edri.>`, and the events of schedulers and stores
    /// when [`Api::operators`](crate::Api::operators) exposes them.
    pub fn operator() -> Self {
        let all = Self::all().request("edri.>").subscribe("edri.>");
        OPERATORS.iter().fold(all, |all, pattern| all.publish(pattern).request(pattern).subscribe(pattern))
    }

    /// Allows to publish the notifications that this pattern selects: `sensor.read`, `sensor.*`, `sensor.>`.
    pub fn publish(self, pattern: &str) -> Self {
        self.grant(Verb::Publish, pattern)
    }

    /// Allows to send the requests, and to open the tunnels, that this pattern selects.
    pub fn request(self, pattern: &str) -> Self {
        self.grant(Verb::Request, pattern)
    }

    /// Allows to be given the notifications that this pattern selects.
    pub fn subscribe(self, pattern: &str) -> Self {
        self.grant(Verb::Subscribe, pattern)
    }

    /// Allows to handle the events that this pattern selects, as a worker.
    pub fn serve(self, pattern: &str) -> Self {
        self.grant(Verb::Serve, pattern)
    }

    /// Allows to read `/metrics`.
    pub fn metrics(mut self) -> Self {
        self.metrics = true;
        self
    }

    pub(super) fn grant(mut self, verb: Verb, pattern: &str) -> Self {
        self.grants.push((verb, pattern.to_owned()));
        self
    }

    /// The permissions as they are looked at.
    pub(super) fn check(&self) -> Result<Granted, NameError> {
        let grants = self.grants.iter().map(|(verb, pattern)| Ok((*verb, Pattern::new(pattern)?)));
        Ok(Granted { grants: grants.collect::<Result<_, _>>()?, metrics: self.metrics })
    }
}

/// Permissions whose patterns are patterns.
#[derive(Debug, Clone, Default)]
pub(super) struct Granted {
    pub(super) grants: Vec<(Verb, Pattern)>,
    pub(super) metrics: bool,
}

impl Granted {
    pub(super) fn allows(&self, verb: Verb, event: &EventName) -> bool {
        if is_own(event) {
            return self.names(verb, event);
        }
        self.grants.iter().any(|(granted, pattern)| *granted == verb && pattern.matches(event))
    }

    /// Whether all is allowed that the pattern selects. Of several that do so together none does.
    pub(super) fn covers(&self, verb: Verb, wanted: &Pattern) -> bool {
        self.grants.iter().any(|(granted, pattern)| *granted == verb && pattern.covers(wanted))
    }

    /// Whether a pattern allows it that begins with a name.
    pub(super) fn names(&self, verb: Verb, event: &EventName) -> bool {
        let begins_with_name = |pattern: &Pattern| !pattern.as_str().starts_with(['*', '>']);
        let allows = |(granted, pattern): &(Verb, Pattern)| {
            *granted == verb && begins_with_name(pattern) && pattern.matches(event)
        };
        self.grants.iter().any(allows)
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.grants.extend_from_slice(&other.grants);
        self.metrics |= other.metrics;
    }
}
