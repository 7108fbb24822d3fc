//! What a template sees.

use std::sync::Arc;

use axum::http::Uri;
use axum::http::request::Parts;
use edri_events::{Body, Kind};
use minijinja::Value;

use crate::exposed::Reachable;
use crate::forms::Hidden;
use crate::gateway::Shared;
use crate::{Caller, Verb};

/// What a page is made of.
pub(crate) struct Shown<'s> {
    /// The request.
    pub(crate) head: &'s Parts,
    /// Whoever sent it.
    pub(crate) caller: &'s Caller,
    /// The event that it is, and its fields as they are sent.
    pub(crate) event: &'s Reachable,
    pub(crate) fields: Body,
}

impl Shown<'_> {
    /// What the template sees: the fields of the answer by their names, and beside them `answer`, `event` (`name` and `fields`),
    /// `caller` (`name`, `role`), `path`, `query`, `may`, what forms have (`hidden`, `csrf`), and whatever else is given.
    pub(crate) fn context(
        &self,
        shared: &Shared,
        answer: Value,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Value {
        // What cannot be read is said by whoever takes the event.
        let fields = self.fields.decode::<Value>().unwrap_or_default();
        let name = Value::from(self.event.descriptor.name().as_str());
        let own = [
            ("answer", answer.clone()),
            ("event", Value::from_pairs([("name", name), ("fields", fields)])),
            // So that what forms have is nothing in a page without one, and no error.
            ("form", nothing()),
            ("errors", nothing()),
        ];
        let asked = Asked::of(self.head, self.caller.clone());
        let own = own.into_iter().chain(request(shared, &asked)).chain(more);
        // The gateway's own names go before the fields of an answer.
        minijinja::value::merge_maps([answer, Value::from_pairs(own)])
    }
}

/// What a template sees that is shown for no event.
pub(super) fn plain(shared: &Shared, head: &Parts, caller: Caller) -> Value {
    let asked = Asked::of(head, caller);
    Value::from_pairs([("form", nothing()), ("errors", nothing())].into_iter().chain(request(shared, &asked)))
}

fn nothing() -> Value {
    Value::from_pairs::<_, &str, Value>([])
}

/// What a page has to know of a request.
pub(crate) struct Asked {
    uri: Uri,
    caller: Caller,
}

impl Asked {
    pub(super) fn of(head: &Parts, caller: Caller) -> Self {
        Self { uri: head.uri.clone(), caller }
    }
}

/// What a template sees of a request.
pub(super) fn request(shared: &Shared, asked: &Asked) -> [(&'static str, Value); 6] {
    let Asked { uri, caller } = asked;
    let [hidden, csrf] = Hidden::new(shared, caller).values();
    [
        ("caller", Value::from_pairs([("name", Value::from(caller.name())), ("role", Value::from(caller.role()))])),
        ("path", Value::from(uri.path())),
        ("query", Value::from(uri.query().unwrap_or_default())),
        ("may", may(shared, caller.clone())),
        hidden,
        csrf,
    ]
}

/// `may("ticket.close")`: whether whoever asks may do this, so that a page does not offer what is refused.
fn may(shared: &Shared, caller: Caller) -> Value {
    let exposed = Arc::clone(&shared.exposed);
    Value::from_function(move |event: &str| {
        exposed.table().event(event).is_some_and(|event| {
            let is_notification = event.descriptor.kind() == Kind::Notification;
            event.permits(&caller, if is_notification { Verb::Publish } else { Verb::Request })
        })
    })
}
