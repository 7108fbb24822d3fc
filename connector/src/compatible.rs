//! Whether two nodes mean the same by an event.
//!
//! Compared are the JSON Schemas, as far as they say what a reader needs: a field that the reader requires and the writer
//! does not know, and a value of another type, are incompatible; everything else passes, so nodes can be upgraded one by one.

use edri_events::{Descriptor, Kind};
use edri_protocol::EventDeclaration;
use serde_json::{Map, Value};

/// How deep two schemas are compared; what is deeper passes.
const DEPTH_MAX: usize = 32;

/// Whether this node, which knows an event as `ours`, and another, which knows it as `theirs` and handles it, can exchange
/// it. The error says what differs.
pub(crate) fn check(ours: &Descriptor, theirs: &EventDeclaration) -> Result<(), String> {
    if ours.kind() != theirs.kind {
        return Err(format!("it is a {} here and a {} there", ours.kind(), theirs.kind));
    }
    if ours.key() != theirs.key.as_deref() {
        let text = |key: Option<&str>| key.map_or_else(|| "no key".to_owned(), |key| format!("the key `{key}`"));
        return Err(format!("it has {} here and {} there", text(ours.key()), text(theirs.key.as_deref())));
    }
    let Some(schemas) = &theirs.schemas else { return Ok(()) };
    let own = ours.schemas();
    let event = compare(Some(own.event.as_value()), schemas.event.as_ref().map(|s| s.as_value()));
    event.map_err(|why| format!("the event: {why}"))?;
    if ours.kind() != Kind::Notification {
        let output = compare(schemas.output.as_ref().map(|s| s.as_value()), own.output.as_ref().map(|s| s.as_value()));
        output.map_err(|why| format!("its response: {why}"))?;
    }
    if ours.kind() == Kind::Tunnel {
        let up = compare(own.up.as_ref().map(|s| s.as_value()), schemas.up.as_ref().map(|s| s.as_value()));
        up.map_err(|why| format!("what its opener sends: {why}"))?;
        let down = compare(schemas.down.as_ref().map(|s| s.as_value()), own.down.as_ref().map(|s| s.as_value()));
        down.map_err(|why| format!("what its worker sends: {why}"))?;
    }
    Ok(())
}

fn compare(writer: Option<&Value>, reader: Option<&Value>) -> Result<(), String> {
    match (writer, reader) {
        (Some(writer), Some(reader)) => {
            Comparison { writer_root: writer, reader_root: reader }.values(writer, reader, "", DEPTH_MAX)
        }
        _ => Ok(()),
    }
}

struct Comparison<'a> {
    writer_root: &'a Value,
    reader_root: &'a Value,
}

impl Comparison<'_> {
    fn values(&self, writer: &Value, reader: &Value, path: &str, depth: usize) -> Result<(), String> {
        let (Some(writer), Some(reader)) = (resolve(writer, self.writer_root), resolve(reader, self.reader_root))
        else {
            return Ok(());
        };
        if depth == 0 {
            return Ok(());
        }
        let (written, read) = (types(writer), types(reader));
        let reads = |kind: &str| read.iter().any(|known| *known == kind || (*known == "number" && kind == "integer"));
        if !written.is_empty() && !read.is_empty() && !written.iter().any(|kind| reads(kind)) {
            let place = if path.is_empty() { "it".to_owned() } else { format!("`{path}`") };
            return Err(format!("{place} is written as {} and read as {}", written.join(" or "), read.join(" or ")));
        }
        let fields = |schema: &Map<String, Value>| schema.get("properties").and_then(Value::as_object).cloned();
        if let (Some(written), Some(read)) = (fields(writer), fields(reader)) {
            let required = reader.get("required").and_then(Value::as_array);
            let mut required = required.into_iter().flatten().filter_map(Value::as_str);
            if let Some(name) = required.find(|name| !written.contains_key(*name)) {
                return Err(format!("`{path}{}{name}` is needed by the reader and not written", dot(path)));
            }
            for (name, value) in &read {
                if let Some(written) = written.get(name) {
                    self.values(written, value, &format!("{path}{}{name}", dot(path)), depth - 1)?;
                }
            }
        }
        if let (Some(writer), Some(reader)) = (writer.get("items"), reader.get("items")) {
            self.values(writer, reader, &format!("{path}[]"), depth - 1)?;
        }
        Ok(())
    }
}

fn dot(path: &str) -> &'static str {
    if path.is_empty() { "" } else { "." }
}

/// The schema itself, with a reference within its document followed; `None` for one that says nothing.
fn resolve<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a Map<String, Value>> {
    let mut schema = schema.as_object()?;
    for _ in 0..DEPTH_MAX {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return Some(schema) };
        schema = root.pointer(reference.strip_prefix('#')?)?.as_object()?;
    }
    None
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(writer: &Value, reader: &Value) -> Result<(), String> {
        compare(Some(writer), Some(reader))
    }

    #[test]
    fn a_reader_that_needs_less_or_the_same_passes() {
        let old = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]});
        let new = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": ["integer", "null"]}},
            "required": ["a"]});
        assert_eq!(check(&old, &new), Ok(()));
        assert_eq!(check(&new, &old), Ok(()));
        let optional = json!({"type": "object", "properties": {"a": {"type": ["string", "null"]}}});
        assert_eq!(check(&old, &optional), Ok(()));
        assert_eq!(check(&json!({"type": "integer"}), &json!({"type": "number"})), Ok(()));
        assert_eq!(check(&json!(true), &old), Ok(()), "what says nothing passes");
    }

    #[test]
    fn what_differs_is_named_with_its_place() {
        let inner = |kind: &str| {
            json!({"type": "object", "$defs": {"P": {"type": "object", "properties": {"x": {"type": kind}}}},
                "properties": {"list": {"type": "array", "items": {"$ref": "#/$defs/P"}}}})
        };
        let error = check(&inner("string"), &inner("number")).expect_err("differs");
        assert_eq!(error, "`list[].x` is written as string and read as number");
        let missing = json!({"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]});
        let error = check(&json!({"type": "object", "properties": {}}), &missing).expect_err("differs");
        assert_eq!(error, "`b` is needed by the reader and not written");
        let error = check(&json!({"type": "number"}), &json!({"type": "integer"})).expect_err("differs");
        assert_eq!(error, "it is written as number and read as integer");
    }

    #[test]
    fn references_in_a_circle_end() {
        let circle = json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}});
        assert_eq!(check(&circle, &circle), Ok(()));
        let tree = json!({"type": "object", "$defs": {}, "properties": {"next": {"$ref": "#"}}});
        assert_eq!(check(&tree, &tree), Ok(()));
    }
}
