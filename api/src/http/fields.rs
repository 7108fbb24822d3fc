//! An event's fields from the parts of a request.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};
use edri_events::{Body, Encoding, FieldSource, Source};
use percent_encoding::percent_decode_str;
use schemars::Schema;
use serde_json::{Map, Value};

use crate::exposed::Reachable;
use crate::problem::{FieldError, Problem};

/// Puts the event together. The body as it came is the event when nothing is added to it.
///
/// A field in the path comes from the path, one with a source from its source, whatever query and body say. A field in the
/// query string goes before the body's.
pub(super) fn event_body(
    event: &Reachable,
    places: &[(String, String)],
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Body, Problem> {
    let query = query.filter(|query| !query.is_empty());
    if places.is_empty() && query.is_none() && event.sources.is_empty() && !body.bytes.is_empty() {
        return Ok(body);
    }
    let encoding = body.encoding;
    let mut fields = read_object(&body)?;
    for source in &event.sources {
        fields.remove(&*source.field);
    }
    fields.extend(fields_beside(event, places, query, headers)?);
    Body::encode(encoding, &fields).map_err(|error| Problem::invalid(vec![whole(error.to_string())]))
}

/// The fields that stand beside the body: in the path, the query string, headers and cookies. They go before the body's.
pub(crate) fn fields_beside(
    event: &Reachable,
    places: &[(String, String)],
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Map<String, Value>, Problem> {
    let mut fields = Map::new();
    let mut errors = Vec::new();
    let schema = &event.descriptor.schemas().event;
    for (name, values) in query_fields(query.unwrap_or_default()) {
        set(&mut fields, schema, &name, &values, &mut errors);
    }
    for source in &event.sources {
        fields.remove(&*source.field);
    }
    for (name, value) in places {
        match percent_decode_str(value).decode_utf8() {
            Ok(value) => set(&mut fields, schema, name, &[value], &mut errors),
            Err(_) => errors.push(FieldError { field: name.clone(), message: "the path is not UTF-8".to_owned() }),
        }
    }
    for FieldSource { field, from } in &event.sources {
        if let Some(value) = source_value(from, headers) {
            set(&mut fields, schema, field, &[value], &mut errors);
        }
    }
    if errors.is_empty() { Ok(fields) } else { Err(Problem::invalid(errors)) }
}

fn whole(message: String) -> FieldError {
    FieldError { field: String::new(), message }
}

/// The body's fields; none when it is empty.
fn read_object(body: &Body) -> Result<Map<String, Value>, Problem> {
    if body.bytes.is_empty() {
        return Ok(Map::new());
    }
    let read = match body.encoding {
        Encoding::Json => serde_json::from_slice(&body.bytes).map_err(|error| error.to_string()),
        Encoding::MessagePack => body.decode().map_err(|error| error.to_string()),
    };
    match read {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Problem::invalid(vec![whole("the body is no map of the event's fields".to_owned())])),
        Err(error) => Err(Problem::invalid(vec![whole(format!("the body is not readable: {error}"))])),
    }
}

/// The fields of a query string, in its order; one that is given several times has several values.
fn query_fields(query: &str) -> Vec<(String, Vec<Cow<'_, str>>)> {
    let mut fields: Vec<(String, Vec<Cow<'_, str>>)> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => fields.push((name.into_owned(), vec![value])),
        }
    }
    fields
}

fn source_value<'h>(source: &Source, headers: &'h HeaderMap) -> Option<Cow<'h, str>> {
    match source {
        Source::Header(name) => headers.get(&**name)?.to_str().ok().map(Cow::Borrowed),
        Source::Cookie(name) => cookie(headers, name).map(Cow::Borrowed),
    }
}

/// The value of a cookie; the first when there are several of its name.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).find_map(|cookies| {
        cookies.split(';').find_map(|cookie| {
            let (key, value) = cookie.trim().split_once('=')?;
            (key == name).then(|| value.trim_matches('"'))
        })
    })
}

/// Sets a field to what these texts are by its schema.
fn set(
    fields: &mut Map<String, Value>,
    schema: &Schema,
    name: &str,
    texts: &[Cow<'_, str>],
    errors: &mut Vec<FieldError>,
) {
    let root = schema.as_value();
    let property = root.get("properties").and_then(|properties| properties.get(name));
    match to_value(root, property, texts) {
        Ok(value) => {
            fields.insert(name.to_owned(), value);
        }
        Err(message) => errors.push(FieldError { field: name.to_owned(), message }),
    }
}

/// The value that texts are by a schema; a text when there is none.
pub(crate) fn to_value(root: &Value, schema: Option<&Value>, texts: &[Cow<'_, str>]) -> Result<Value, String> {
    let types = schema.map(|schema| Types::of(root, schema, 8)).unwrap_or_default();
    if types.array {
        let items = schema.and_then(|schema| resolve(root, schema, 8)).and_then(|schema| schema.get("items"));
        let each = texts.iter().map(|text| to_value(root, items, std::slice::from_ref(text)));
        return each.collect::<Result<Vec<_>, _>>().map(Value::Array);
    }
    let [text] = texts else { return Err("it is given several times, and has one value".to_owned()) };
    if types.integer
        && let Some(number) = integer(text)
    {
        return Ok(number);
    }
    if types.number
        && let Ok(number) = text.parse::<f64>()
        && let Some(number) = serde_json::Number::from_f64(number)
    {
        return Ok(Value::Number(number));
    }
    if types.boolean && (text == "true" || text == "false") {
        return Ok(Value::Bool(text == "true"));
    }
    if types.object {
        return serde_json::from_str(text).map_err(|error| format!("it takes JSON: {error}"));
    }
    if types.string || !types.any() {
        return Ok(Value::String(text.to_string()));
    }
    let wanted = if types.integer {
        "an integer"
    } else if types.number {
        "a number"
    } else {
        "true or false"
    };
    Err(format!("`{}` is not {wanted}", text.chars().take(80).collect::<String>()))
}

fn integer(text: &str) -> Option<Value> {
    text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<i64>().map(Value::from)).ok()
}

/// The types that a schema takes.
#[derive(Debug, Default)]
pub(crate) struct Types {
    pub(crate) string: bool,
    pub(crate) integer: bool,
    pub(crate) number: bool,
    pub(crate) boolean: bool,
    pub(crate) array: bool,
    pub(crate) object: bool,
    pub(crate) null: bool,
}

impl Types {
    pub(crate) fn of(root: &Value, schema: &Value, depth: usize) -> Self {
        let mut types = Self::default();
        types.add(root, schema, depth);
        types
    }

    /// Whether there is a value that can be told from others by its type.
    fn any(&self) -> bool {
        let Self { string, integer, number, boolean, array, object, null: _ } = self;
        *string || *integer || *number || *boolean || *array || *object
    }

    fn add(&mut self, root: &Value, schema: &Value, depth: usize) {
        let Some(schema) = resolve(root, schema, depth) else { return };
        match schema.get("type") {
            Some(Value::String(name)) => self.name(name),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).for_each(|name| self.name(name)),
            _ => {}
        }
        let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const"));
        for value in values {
            match value {
                Value::String(_) => self.string = true,
                Value::Bool(_) => self.boolean = true,
                Value::Number(_) => self.number = true,
                _ => {}
            }
        }
        for word in ["anyOf", "oneOf", "allOf"] {
            let parts = schema.get(word).and_then(Value::as_array).into_iter().flatten();
            parts.filter(|_| depth > 0).for_each(|part| self.add(root, part, depth - 1));
        }
    }

    fn name(&mut self, name: &str) {
        match name {
            "string" => self.string = true,
            "integer" => self.integer = true,
            "number" => (self.number, self.integer) = (true, true),
            "boolean" => self.boolean = true,
            "array" => self.array = true,
            "object" => self.object = true,
            "null" => self.null = true,
            _ => {}
        }
    }
}

/// The schema that `$ref` leads to, within the document.
pub(crate) fn resolve<'s>(root: &'s Value, schema: &'s Value, depth: usize) -> Option<&'s Value> {
    let mut schema = schema;
    for _ in 0..=depth {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => schema = root.pointer(reference.strip_prefix('#')?)?,
            None => return Some(schema),
        }
    }
    None
}
