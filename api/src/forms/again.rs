//! What pages have for forms, and a form that is shown again with what is wrong.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{Response, header};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edri_events::{Body as EventBody, Encoding};
use minijinja::Value;

use super::fields::{Entry, Given};
use super::{Post, once};
use crate::Caller;
use crate::gateway::Shared;
use crate::http::{Wanted, wanted};
use crate::pages::Shown;
use crate::problem::Problem;
use crate::sessions;

/// What every form of a page has beside its fields.
pub(crate) struct Hidden {
    /// The token of the caller's session; empty when it has none.
    csrf: String,
    /// The number that makes a form one that is taken once.
    once: String,
}

impl Hidden {
    pub(crate) fn new(shared: &Shared, caller: &Caller) -> Self {
        let mut number = [0; 16];
        // Without randomness a form has no number, and is taken as often as it is posted.
        let is_random = getrandom::fill(&mut number).is_ok();
        let csrf = shared.log_ins.as_ref().and_then(|log_ins| log_ins.token(caller)).unwrap_or_default();
        Self { csrf, once: if is_random { URL_SAFE_NO_PAD.encode(number) } else { String::new() } }
    }

    /// What a template sees of it: `hidden`, both as fields of a form, and `csrf`, the token, for scripts.
    pub(crate) fn values(&self) -> [(&'static str, Value); 2] {
        let field = |name: &str, value: &str| match value {
            "" => String::new(),
            // Of letters, digits, `-` and `_`.
            value => format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">"),
        };
        let hidden = field(sessions::FIELD, &self.csrf) + &field(once::FIELD, &self.once);
        [("hidden", Value::from_safe_string(hidden)), ("csrf", Value::from(self.csrf.as_str()))]
    }
}

/// Whether there is a form with hidden fields in a page.
pub(crate) fn is_in(page: &str) -> bool {
    [sessions::FIELD, once::FIELD].iter().any(|field| page.contains(&format!("name=\"{field}\"")))
}

/// What somebody has typed, to be shown again. Files are not: a browser takes none from a page.
pub(super) struct Typed(BTreeMap<String, Vec<String>>);

impl Typed {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut typed = BTreeMap::<String, Vec<String>>::new();
        for Entry { name, given } in entries.iter().filter(|entry| !entry.name.starts_with('_')) {
            if let Given::Text(text) = given {
                typed.entry(name.clone()).or_default().push(text.clone());
            }
        }
        Self(typed)
    }

    /// A text for each field, a list where there were several.
    fn value(&self) -> Value {
        Value::from_pairs(self.0.iter().map(|(name, texts)| {
            let value = match &**texts {
                [text] => Value::from(text.as_str()),
                texts => Value::from(texts.to_vec()),
            };
            (name.as_str(), value)
        }))
    }
}

impl Post {
    /// Whether the form can be shown again.
    pub(super) fn has_form(&self) -> bool {
        let wants_page = wanted(&self.head.headers, true).is_ok_and(|wanted| wanted == Wanted::Page);
        wants_page && self.event.page.form.is_some() && self.shared.pages.is_some()
    }

    /// Shows the form with what was typed, and what is wrong with it.
    pub(super) fn again(&self, typed: &Typed, problem: Problem) -> Result<Response<Body>, Problem> {
        let (Some(template), Some(pages)) = (self.event.page.form.as_deref(), &self.shared.pages) else {
            return Err(problem);
        };
        if !self.has_form() {
            return Err(problem);
        }
        let mut errors = BTreeMap::<&str, String>::new();
        for error in problem.errors() {
            let told = errors.entry(&error.field).or_default();
            if !told.is_empty() {
                told.push_str("; ");
            }
            told.push_str(&error.message);
        }
        let told = Value::from_pairs([
            ("status", Value::from(problem.status().as_u16())),
            ("title", Value::from(problem.title())),
            ("code", Value::from(problem.code())),
            ("detail", Value::from(problem.detail())),
        ]);
        let more = [("form", typed.value()), ("errors", Value::from_pairs(errors)), ("problem", told)];
        let places = self.places.iter().map(|(name, value)| {
            (name.clone(), percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
        });
        let fields = serde_json::Map::from_iter(places.map(|(name, value)| (name, value.into())));
        let fields =
            EventBody::encode(Encoding::Json, &fields).unwrap_or_else(|_| EventBody::new(Encoding::Json, "{}"));
        let shown = Shown { head: &self.head, caller: &self.sender.caller, event: &self.event, fields };
        let nothing = Value::from_pairs::<_, &str, Value>([]);
        let page = pages.render(template, shown.context(&self.shared, nothing, more));
        let page = page.map_err(|error| pages.problem(template, &error))?;
        let mut response = pages.respond(problem.status(), page);
        let told = problem.into_response();
        for (name, value) in told.headers() {
            if *name != header::CONTENT_TYPE {
                response.headers_mut().insert(name, value.clone());
            }
        }
        Ok(response)
    }
}
