//! The OpenAPI document (3.1), made from the descriptors of what can be reached.

use std::collections::BTreeMap;

use edri_events::{FieldSource, HttpRoute, Kind, Schemas, Source};
use schemars::Schema;
use serde_json::{Map, Value, json};

use crate::exposed::Reachable;
use crate::http::Form;

/// The document of a gateway's events, ordered by name.
pub(crate) fn document<'e>(node: &str, events: impl Iterator<Item = &'e Reachable>, secured: bool) -> Value {
    let mut events: Vec<_> = events.collect();
    events.sort_by(|a, b| a.descriptor.name().cmp(b.descriptor.name()));
    let mut writer = Writer::default();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for event in events {
        let name = event.descriptor.name();
        // One that every event has, whatever its own routes.
        let by_name = HttpRoute::new(&format!("POST /events/{name}")).ok();
        for (index, route) in event.routes.iter().cloned().chain(by_name).enumerate() {
            let path = route.path().replace("{*", "{");
            let operation = writer.operation(event, &route, index);
            paths.entry(path).or_default().entry(route.method().to_ascii_lowercase()).or_insert(operation);
        }
    }
    let problem = problem_schema();
    let mut components = json!({ "schemas": writer.schemas });
    components["schemas"]["edri.Problem"] = problem;
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": node,
            "version": "1",
            "description": "Events of this node, as they can be reached over HTTP.",
        },
        "paths": paths,
    });
    if secured {
        components["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
        document["security"] = json!([{ "token": [] }, {}]);
    }
    document["components"] = components;
    document
}

#[derive(Default)]
struct Writer {
    /// The schemas that others refer to.
    schemas: BTreeMap<String, Value>,
}

impl Writer {
    fn operation(&mut self, event: &Reachable, route: &HttpRoute, index: usize) -> Value {
        let descriptor = &event.descriptor;
        let name = descriptor.name().as_str();
        let Schemas { event: fields, output, up, down } = descriptor.schemas();
        let fields = self.hoist(name, fields);
        let has_fields_in_body = !route.is_safe() && route.method() != "DELETE" && descriptor.kind() != Kind::Tunnel;
        let mut operation = json!({
            "operationId": if index == 0 { name.to_owned() } else { format!("{name}.{index}") },
            "tags": [name.split('.').next().unwrap_or(name)],
            "parameters": parameters(event, route, &fields, !has_fields_in_body),
        });
        let mut lines = descriptor.description().lines();
        if let Some(summary) = lines.next() {
            operation["summary"] = summary.into();
            let rest = lines.collect::<Vec<_>>().join("\n");
            if !rest.trim().is_empty() {
                operation["description"] = rest.trim().into();
            }
        }
        if has_fields_in_body {
            let body = without(&fields, |field| in_path(route, field) || is_sourced(event, field));
            let required = body.get("required").is_some_and(|required| required != &json!([]));
            operation["requestBody"] = json!({
                "required": required,
                "content": { "application/json": { "schema": body }, "application/vnd.msgpack": {} },
            });
        }
        let success = match descriptor.kind() {
            Kind::Notification => json!({ "202": {
                "description": "Every interested group has it.",
                "content": { "application/json": { "schema": receipt_schema() } },
            }}),
            Kind::Request => self.response(event, output.as_ref()),
            Kind::Tunnel => {
                if !route.is_safe() {
                    let content = self.stream(name, up.as_ref());
                    if content != json!({}) {
                        operation["requestBody"] = json!({ "content": content });
                    }
                }
                let mut content = self.stream(name, down.as_ref());
                if !matches!(Form::of(down.as_ref()), Form::Raw | Form::Parts) {
                    let result = output.as_ref().map(|output| self.hoist(name, output)).unwrap_or(json!({}));
                    content["application/json"] = json!({ "schema": result });
                }
                json!({ "200": { "description": "What came of it.", "content": content } })
            }
        };
        operation["responses"] = success;
        operation["responses"]["default"] = json!({
            "description": "A problem, with a stable code.",
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/edri.Problem" } } },
        });
        operation
    }

    fn response(&mut self, event: &Reachable, output: Option<&Schema>) -> Value {
        let mut schema = output.map(|output| self.hoist(event.descriptor.name(), output)).unwrap_or(json!({}));
        if event.answers_http {
            // Status and media type are the worker's choice.
            schema = schema.get("properties").and_then(|fields| fields.get("body")).cloned().unwrap_or(json!({}));
            let content = json!({ "application/json": { "schema": schema }, "*/*": {} });
            return json!({ "200": { "description": "The response.", "content": content } });
        }
        let content = json!({ "application/json": { "schema": schema }, "application/vnd.msgpack": {} });
        json!({ "200": { "description": "The response.", "content": content } })
    }

    /// The content of a body that is a direction of a tunnel.
    fn stream(&mut self, name: &str, items: Option<&Schema>) -> Value {
        match Form::of(items) {
            Form::Raw | Form::Parts => json!({ "application/octet-stream": {} }),
            Form::Lines => {
                let schema = items.map(|items| self.hoist(name, items)).unwrap_or(json!({}));
                json!({ "application/x-ndjson": { "schema": schema } })
            }
            Form::Nothing => json!({}),
        }
    }

    /// The schema with what it defines for itself moved to the document's components.
    fn hoist(&mut self, event: &str, schema: &Schema) -> Value {
        let mut schema = schema.as_value().clone();
        let definitions = schema.as_object_mut().and_then(|schema| schema.remove("$defs"));
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
        }
        let Some(Value::Object(definitions)) = definitions else {
            tidy(&mut schema, &BTreeMap::new());
            return schema;
        };
        // The plain name, unless another event means something else by it.
        let mut names = BTreeMap::new();
        for name in definitions.keys() {
            let plain: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
            names.insert(format!("#/$defs/{}", pointer(name)), plain);
        }
        let tidied = |names: &BTreeMap<String, String>| {
            let tidied = definitions.iter().map(|(name, definition)| {
                let mut definition = definition.clone();
                tidy(&mut definition, names);
                (names[&format!("#/$defs/{}", pointer(name))].clone(), definition)
            });
            tidied.collect::<Vec<_>>()
        };
        let mut hoisted = tidied(&names);
        if hoisted.iter().any(|(name, definition)| self.schemas.get(name).is_some_and(|known| known != definition)) {
            names.values_mut().for_each(|name| name.insert_str(0, &format!("{event}.")));
            hoisted = tidied(&names);
        }
        self.schemas.extend(hoisted);
        tidy(&mut schema, &names);
        schema
    }
}

/// A name as it stands in a JSON pointer within a URI.
fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Leads references to the components, and says of integers how large they may be.
fn tidy(schema: &mut Value, names: &BTreeMap<String, String>) {
    match schema {
        Value::Array(parts) => parts.iter_mut().for_each(|part| tidy(part, names)),
        Value::Object(parts) => {
            if let Some(Value::String(reference)) = parts.get_mut("$ref")
                && let Some(name) = names.get(reference)
            {
                *reference = format!("#/components/schemas/{name}");
            }
            let (least, most) = match parts.get("format").and_then(Value::as_str) {
                Some("uint8") => (json!(0), json!(u8::MAX)),
                Some("uint16") => (json!(0), json!(u16::MAX)),
                Some("uint32") => (json!(0), json!(u32::MAX)),
                Some("uint64" | "uint") => (json!(0), json!(u64::MAX)),
                Some("int8") => (json!(i8::MIN), json!(i8::MAX)),
                Some("int16") => (json!(i16::MIN), json!(i16::MAX)),
                Some("int32") => (json!(i32::MIN), json!(i32::MAX)),
                Some("int64" | "int") => (json!(i64::MIN), json!(i64::MAX)),
                _ => (Value::Null, Value::Null),
            };
            if !least.is_null() {
                parts.entry("minimum").or_insert(least);
                parts.entry("maximum").or_insert(most);
            }
            parts.values_mut().for_each(|part| tidy(part, names));
        }
        _ => {}
    }
}

fn in_path(route: &HttpRoute, field: &str) -> bool {
    route.fields().any(|place| place == field)
}

fn is_sourced(event: &Reachable, field: &str) -> bool {
    event.sources.iter().any(|source| *source.field == *field)
}

/// The schema of a map without the fields that come from elsewhere.
fn without(schema: &Value, elsewhere: impl Fn(&str) -> bool) -> Value {
    let mut schema = schema.clone();
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.retain(|name, _| !elsewhere(name));
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| name.as_str().is_none_or(|name| !elsewhere(name)));
    }
    schema
}

fn parameters(event: &Reachable, route: &HttpRoute, fields: &Value, all_in_query: bool) -> Vec<Value> {
    let nothing = Map::new();
    let properties = fields.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
    let is_required = |name: &str| {
        fields.get("required").and_then(Value::as_array).is_some_and(|required| required.iter().any(|r| r == name))
    };
    let schema_of = |name: &str| properties.get(name).cloned().unwrap_or(json!({ "type": "string" }));
    let mut parameters: Vec<_> = route
        .fields()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": schema_of(name) }))
        .collect();
    for FieldSource { field, from } in &event.sources {
        let (place, name) = match from {
            Source::Header(name) => ("header", name),
            Source::Cookie(name) => ("cookie", name),
        };
        parameters.push(json!({
            "name": name, "in": place, "required": is_required(field), "schema": schema_of(field),
        }));
    }
    if all_in_query {
        for (name, schema) in properties {
            if in_path(route, name) || is_sourced(event, name) {
                continue;
            }
            let mut parameter = json!({ "name": name, "in": "query", "required": is_required(name) });
            if schema.get("type").is_some_and(|kind| kind == "object") {
                parameter["content"] = json!({ "application/json": { "schema": schema } });
            } else {
                parameter["schema"] = schema.clone();
            }
            parameters.push(parameter);
        }
    }
    parameters
}

fn receipt_schema() -> Value {
    json!({
        "type": "object",
        "required": ["id", "groups"],
        "properties": {
            "id": { "type": "string", "description": "The event's id." },
            "groups": { "type": "integer", "minimum": 0, "description": "How many subscriber groups have it." },
        },
    })
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "code": { "type": "string", "description": "Stable: what programs compare." },
            "detail": { "type": "string" },
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "message"],
                    "properties": { "field": { "type": "string" }, "message": { "type": "string" } },
                },
            },
        },
    })
}
