//! How an event may be reached from outside: by programs that are no part of the cluster.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::EventName;

/// The most routes, and the most fields with a source of their own, that one event has.
pub const ROUTES_MAX: usize = 16;
/// The longest route, in bytes.
pub const ROUTE_BYTES_MAX: usize = 1024;
/// The most notifications that end what is cached of one event.
pub const STALE_ON_MAX: usize = 16;

/// How an event may be reached through a gateway. An event without one cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exposure {
    /// Where HTTP requests for it go, besides `POST /events/{name}`.
    pub routes: Vec<HttpRoute>,
    /// The fields that are taken from one place in an HTTP request and nowhere else.
    pub sources: Vec<FieldSource>,
    /// What a browser gets instead of data.
    pub page: PageNames,
    /// For how long a response may be given again; `None`: not at all.
    pub caching: Option<Caching>,
}

/// Templates that a browser is answered with, by their names in the gateway's folder of pages, and where it goes next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageNames {
    /// Shows the answer.
    pub page: Option<Box<str>>,
    /// Shows the form again when what was sent in it is wrong.
    pub form: Option<Box<str>>,
    /// Where a browser goes after its form was taken: `/tickets/{id}`, with places for fields of the answer or of the event.
    pub then: Option<Box<str>>,
}

/// For how long the response to a request may be given again to the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caching {
    /// How long it holds.
    pub lifetime: Duration,
    /// Whether it is the same for every caller.
    pub public: bool,
    /// The notifications that end it sooner. One with a key ends only what has the same key.
    pub stale_on: Vec<EventName>,
}

/// A method and a path with places for fields: `GET /risk/{region}`; `{*file}` at the end takes the rest of the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpRoute {
    method: &'static str,
    path: Box<str>,
}

/// A field that comes from one place in an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldSource {
    /// The field, by the name it has on the wire.
    pub field: Box<str>,
    /// Where it comes from.
    #[serde(flatten)]
    pub from: Source,
}

/// A place in an HTTP request that a page cannot choose freely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A header of this name.
    Header(Box<str>),
    /// A cookie of this name.
    Cookie(Box<str>),
}

/// The methods that a route may have. HEAD and OPTIONS are answered from these.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// What is wrong with a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{route}` is no route: {why}; write it like `GET /risk/{{region}}`")]
pub struct RouteError {
    /// The route.
    pub route: String,
    /// What is wrong.
    pub why: &'static str,
}

impl HttpRoute {
    /// Reads a route.
    ///
    /// # Errors
    ///
    /// [`RouteError`] says what is wrong.
    ///
    /// ```
    /// let route = edri_events::HttpRoute::new("PUT /orders/{id}/lines/{line}")?;
    /// assert_eq!(route.method(), "PUT");
    /// assert_eq!(route.fields().collect::<Vec<_>>(), ["id", "line"]);
    /// # Ok::<(), edri_events::RouteError>(())
    /// ```
    pub fn new(route: &str) -> Result<Self, RouteError> {
        let wrong = |why| RouteError { route: route.chars().take(80).collect(), why };
        if route.len() > ROUTE_BYTES_MAX {
            return Err(wrong("it is longer than 1,024 bytes"));
        }
        let (method, path) = route.split_once(' ').ok_or_else(|| wrong("a method and a path are needed"))?;
        let method = METHODS
            .into_iter()
            .find(|known| *known == method)
            .ok_or_else(|| wrong("the method is GET, POST, PUT, PATCH or DELETE"))?;
        check_path(path).map_err(wrong)?;
        Ok(Self { method, path: path.into() })
    }

    /// The method, in capitals.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// The path, beginning with a slash; places for fields in braces.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The fields that have a place in the path, in its order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').filter_map(place)
    }

    /// Whether the method promises to change nothing.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.method == "GET"
    }
}

/// The field whose place this segment is.
fn place(segment: &str) -> Option<&str> {
    let inner = segment.strip_prefix('{')?.strip_suffix('}')?;
    Some(inner.strip_prefix('*').unwrap_or(inner))
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let Some(rest) = path.strip_prefix('/') else { return Err("the path begins with a slash") };
    let segments: Vec<&str> = rest.split('/').collect();
    let mut seen = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        if let Some(name) = place(segment) {
            if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
                return Err("braces hold the name of a field");
            }
            if segment.starts_with("{*") && index + 1 != segments.len() {
                return Err("`{*field}` takes the rest of the path, so it comes last");
            }
            if seen.contains(&name) {
                return Err("a field has one place");
            }
            seen.push(name);
        } else if segment.is_empty() && index + 1 != segments.len() {
            return Err("it has an empty segment");
        } else if !segment.chars().all(|c| c.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@".contains(c)) {
            return Err("a segment is letters, digits and `-._~`, or a field in braces");
        }
    }
    Ok(())
}

impl fmt::Display for HttpRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl FromStr for HttpRoute {
    type Err = RouteError;

    fn from_str(route: &str) -> Result<Self, RouteError> {
        Self::new(route)
    }
}

impl TryFrom<String> for HttpRoute {
    type Error = RouteError;

    fn try_from(route: String) -> Result<Self, RouteError> {
        Self::new(&route)
    }
}

impl From<HttpRoute> for String {
    fn from(route: HttpRoute) -> Self {
        route.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_method_and_a_path_with_places_for_fields() {
        for good in ["GET /", "POST /orders", "PUT /orders/{id}", "GET /files/{*path}", "DELETE /a/{b}/c.d", "GET /a/"]
        {
            assert_eq!(HttpRoute::new(good).map(|route| route.to_string()).as_deref(), Ok(good));
        }
    }

    #[test]
    fn what_is_no_route_is_refused_with_what_is_wrong() {
        let bad = [
            ("/orders", "a method and a path are needed"),
            ("get /orders", "the method is GET, POST, PUT, PATCH or DELETE"),
            ("HEAD /orders", "the method is GET, POST, PUT, PATCH or DELETE"),
            ("GET orders", "the path begins with a slash"),
            ("GET //a", "it has an empty segment"),
            ("GET /a b", "a segment is letters, digits and `-._~`, or a field in braces"),
            ("GET /a{b}", "a segment is letters, digits and `-._~`, or a field in braces"),
            ("GET /{}", "braces hold the name of a field"),
            ("GET /{*rest}/a", "`{*field}` takes the rest of the path, so it comes last"),
            ("GET /{a}/{a}", "a field has one place"),
        ];
        for (route, why) in bad {
            assert_eq!(HttpRoute::new(route).map_err(|error| error.why), Err(why), "{route}");
        }
    }
}
