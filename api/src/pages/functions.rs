//! What templates can call.

use std::sync::Arc;

use edri_events::HttpRoute;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::assets::Assets;
use crate::exposed::Exposed;

/// What may stand in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What may stand in several.
pub(super) const SEGMENTS: &AsciiSet = &SEGMENT.remove(b'/');

/// Adds what templates can call.
pub(super) fn add(templates: &mut Environment<'_>, exposed: &Arc<Exposed>, assets: Option<Arc<Assets>>) {
    let exposed = Arc::clone(exposed);
    templates.add_function("url_for", move |event: &str, fields: Kwargs| url_for(&exposed, event, &fields));
    templates.add_function("asset", move |name: &str| {
        let none = || "there are no assets here: name their folder with `Pages::assets`".to_owned();
        let path = assets.as_ref().ok_or_else(none).and_then(|assets| assets.path(name));
        path.map_err(|why| Error::new(ErrorKind::InvalidOperation, why))
    });
}

/// The path of an event with these fields: the first of its routes that has all its places filled, the other fields as query.
fn url_for(exposed: &Exposed, name: &str, given: &Kwargs) -> Result<String, Error> {
    let wrong = |why: String| Error::new(ErrorKind::InvalidOperation, why);
    let table = exposed.table();
    let event = table.event(name).ok_or_else(|| wrong(format!("no event `{name}` can be reached here")))?;
    let mut fields = Vec::new();
    for field in given.args() {
        let value: Value = given.get(field)?;
        // As if it had not been given, so that optional fields can be passed on.
        if !value.is_none() && !value.is_undefined() {
            fields.push((field, value));
        }
    }
    let is_filled = |route: &&HttpRoute| route.fields().all(|place| fields.iter().any(|(field, _)| *field == place));
    let routes = || event.routes.iter();
    // The more of the fields a route has a place for, the more it is meant.
    let best = routes().filter(is_filled).rev().max_by_key(|route| route.fields().count());
    let path = match best {
        Some(route) => path(route, &mut fields)?,
        None if event.routes.is_empty() => format!("/events/{name}"),
        None => {
            let routes: Vec<_> = routes().map(ToString::to_string).collect();
            return Err(wrong(format!("`{name}` has the routes {}: give all fields of one", routes.join(", "))));
        }
    };
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (field, value) in &fields {
        match value.kind() {
            ValueKind::Seq => {
                for item in value.try_iter()? {
                    query.append_pair(field, &text(&item));
                }
            }
            _ => {
                query.append_pair(field, &text(value));
            }
        }
    }
    let query = query.finish();
    Ok(if query.is_empty() { path } else { format!("{path}?{query}") })
}

/// A value as a field of a query has it.
fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::Bool => value.is_true().to_string(),
        _ => value.to_string(),
    }
}

/// The route's path; what has a place in it is taken from the fields.
fn path(route: &HttpRoute, fields: &mut Vec<(&str, Value)>) -> Result<String, Error> {
    let mut path = String::new();
    for segment in route.path().split('/').skip(1) {
        path.push('/');
        let Some(place) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            path.push_str(segment);
            continue;
        };
        let (place, allowed) = place.strip_prefix('*').map_or((place, SEGMENT), |place| (place, SEGMENTS));
        let index = fields.iter().position(|(field, _)| *field == place);
        let Some((_, value)) = index.map(|index| fields.remove(index)) else { continue };
        let text = text(&value);
        if text.is_empty() || (allowed == SEGMENT && matches!(&*text, "." | "..")) {
            let why = format!("`{place}` is {text:?}, which cannot stand in the path `{}`", route.path());
            return Err(Error::new(ErrorKind::InvalidOperation, why));
        }
        path.extend(utf8_percent_encode(&text, allowed));
    }
    Ok(path)
}
