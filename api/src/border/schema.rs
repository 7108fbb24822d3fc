//! What can be seen of a schema before anything is checked by it.
//!
//! Schemas come from workers too, so they are not trusted: one that would check for ever is refused.

use std::collections::HashSet;

use schemars::Schema;
use serde_json::{Map, Value};

/// How many subschemas may apply to one value, references followed.
const APPLYING_MAX: usize = 512;
/// How many steps are taken to look through a schema.
const STEPS_MAX: usize = 2_000_000;
/// How many ways a check may go.
const WAYS_MAX: f64 = 100_000.0;

/// Keywords whose values are maps of subschemas by name.
const BY_NAME: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
/// Keywords whose values are data, whatever it looks like.
const DATA: [&str; 5] = ["enum", "const", "default", "examples", "required"];
/// Keywords that say something of a value only where the Rust type does not say it.
const RULES: [&str; 18] = [
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minProperties",
    "maxProperties",
    "contains",
    "propertyNames",
    "patternProperties",
    "dependentRequired",
    "dependentSchemas",
    "not",
    "if",
    "contentEncoding",
];
/// Formats that no Rust type says.
const RULE_FORMATS: [&str; 7] = ["email", "idn-email", "uri", "uri-reference", "iri", "hostname", "idn-hostname"];
/// What is said for people.
const ANNOTATIONS: [&str; 9] =
    ["$schema", "$id", "$comment", "$defs", "title", "description", "default", "examples", "deprecated"];

/// Whether every value would do.
pub(super) fn says_nothing(schema: &Schema) -> bool {
    match schema.as_value() {
        Value::Bool(any) => *any,
        Value::Object(words) => words.keys().all(|word| ANNOTATIONS.contains(&&**word) || word.starts_with("x-")),
        _ => false,
    }
}

/// Whether it is of a list of bytes.
pub(super) fn is_bytes(schema: &Value) -> bool {
    let Some(items) = schema.get("items") else { return false };
    let is = |word: &str, value: u64| items.get(word).and_then(Value::as_u64) == Some(value);
    items.get("format").is_some_and(|format| format == "uint8") || is("minimum", 0) && is("maximum", 255)
}

/// Whether it says more than a Rust type does whose schema it is.
pub(super) fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(words) => {
            let is_rule = |word: &str| RULES.contains(&word) && !(word.ends_with("Items") && is_array(words));
            words.keys().any(|word| is_rule(word))
                || words.get("format").and_then(Value::as_str).is_some_and(|format| RULE_FORMATS.contains(&format))
                || has_range(words)
                || subschemas(words).any(has_rules)
        }
        _ => false,
    }
}

/// Whether a type in it has rules of the user's own.
pub(super) fn has_custom(schema: &Value) -> bool {
    match schema {
        Value::Object(words) => words.contains_key("x-edri-custom") || subschemas(words).any(has_custom),
        _ => false,
    }
}

/// Whether it is of a tuple or an array, of which the Rust type says how many items there are; a list of one length only is marked.
fn is_array(words: &Map<String, Value>) -> bool {
    let is_of_one_length = || words.contains_key("minItems") && words.get("minItems") == words.get("maxItems");
    words.contains_key("prefixItems") || is_of_one_length() && !words.contains_key("x-edri-length")
}

/// Whether a range is narrower than the integer type that the schema names.
fn has_range(words: &Map<String, Value>) -> bool {
    let own = match words.get("format").and_then(Value::as_str).unwrap_or_default() {
        "uint8" => [Some(0), Some(255)],
        "uint16" => [Some(0), Some(65_535)],
        "int8" => [Some(-128), Some(127)],
        "int16" => [Some(-32_768), Some(32_767)],
        format if format.starts_with("uint") => [Some(0), None],
        _ => [None, None],
    };
    let differs =
        |word: &str, own: Option<i64>| words.get(word).is_some_and(|limit| own.is_none() || limit.as_i64() != own);
    differs("minimum", own[0]) || differs("maximum", own[1])
}

/// All that is directly within.
fn subschemas(words: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    words.iter().filter(|(word, _)| !DATA.contains(&&***word)).flat_map(|(word, value)| match value {
        Value::Object(named) if BY_NAME.contains(&&**word) => named.values().collect::<Vec<_>>(),
        Value::Object(_) => vec![value],
        Value::Array(list) => list.iter().collect(),
        _ => Vec::new(),
    })
}

/// The schema with which payloads are checked: of bytes only their number is looked at.
///
/// # Errors
///
/// When it refers to what is not in it.
pub(super) fn prepared(schema: &Value) -> Result<Value, String> {
    let mut schema = schema.clone();
    prepare(&mut schema, true)?;
    Ok(schema)
}

fn prepare(schema: &mut Value, root: bool) -> Result<(), String> {
    if is_bytes(schema)
        && let Some(words) = schema.as_object_mut()
    {
        words.remove("items");
    }
    let Value::Object(words) = schema else { return Ok(()) };
    for word in ["$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$anchor"] {
        if words.contains_key(word) {
            return Err(format!("`{word}` is not understood: refer to `#/$defs/...` with `$ref`"));
        }
    }
    if !root && words.contains_key("$id") {
        return Err("only the whole schema has an `$id`: refer to `#/$defs/...` with `$ref`".to_owned());
    }
    if let Some(reference) = words.get("$ref") {
        match reference.as_str() {
            Some(reference) if reference == "#" || reference.starts_with("#/") => {}
            _ => return Err(format!("`$ref` leads to {reference}, which is not in the schema: put it into `$defs`")),
        }
    }
    for (word, value) in words.iter_mut().filter(|(word, _)| !DATA.contains(&&***word)) {
        match value {
            Value::Object(named) if BY_NAME.contains(&&**word) => {
                named.values_mut().try_for_each(|value| prepare(value, false))?;
            }
            Value::Array(list) => list.iter_mut().try_for_each(|value| prepare(value, false))?,
            value => prepare(value, false)?,
        }
    }
    Ok(())
}

/// How deep a payload may nest so that checking it ends: where a value within can be reached in several ways at every level,
/// the ways multiply. `None` when they do not.
///
/// # Errors
///
/// When a reference leads back to itself, leads nowhere, or too much applies to one value.
pub(super) fn depth_max(root: &Value) -> Result<Option<usize>, String> {
    let mut ways = 1;
    let mut all = Vec::new();
    collect(root, &mut all);
    let mut steps = 0;
    for schema in all {
        let mut applying = Vec::new();
        apply(root, schema, &mut Vec::new(), &mut applying)?;
        steps += applying.len();
        let mut leads_back = |words: &Map<String, Value>| {
            let mut seen = HashSet::new();
            let leads_back = steps < STEPS_MAX && below(words).any(|below| reaches(root, below, schema, &mut seen));
            steps += seen.len();
            leads_back
        };
        ways = ways.max(applying.iter().filter(|words| leads_back(words)).count());
        if steps >= STEPS_MAX {
            return Err("it is too tangled to be looked through: take fewer references and alternatives".to_owned());
        }
    }
    Ok((ways > 1).then(|| (WAYS_MAX.ln() / (ways as f64).ln()) as usize))
}

/// All subschemas.
fn collect<'s>(schema: &'s Value, into: &mut Vec<&'s Value>) {
    if let Value::Object(words) = schema {
        into.push(schema);
        subschemas(words).for_each(|schema| collect(schema, into));
    }
}

fn target<'s>(root: &'s Value, reference: &Value) -> Result<&'s Value, String> {
    let found = reference.as_str().and_then(|reference| root.pointer(reference.strip_prefix('#')?));
    found.ok_or_else(|| format!("`$ref` leads to {reference}, which is not there"))
}

/// Those that apply to the same value as this one.
fn apply<'s>(
    root: &'s Value,
    schema: &'s Value,
    way: &mut Vec<*const Value>,
    into: &mut Vec<&'s Map<String, Value>>,
) -> Result<(), String> {
    let Value::Object(words) = schema else { return Ok(()) };
    if way.contains(&std::ptr::from_ref(schema)) {
        return Err("a `$ref` leads back to itself".to_owned());
    }
    if into.len() >= APPLYING_MAX {
        return Err(format!("more than {APPLYING_MAX} subschemas apply to one value"));
    }
    into.push(words);
    way.push(schema);
    for (word, value) in words {
        match (&**word, value) {
            ("$ref", reference) => apply(root, target(root, reference)?, way, into)?,
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => {
                list.iter().try_for_each(|schema| apply(root, schema, way, into))?;
            }
            ("not" | "if" | "then" | "else", schema) => apply(root, schema, way, into)?,
            ("dependentSchemas", Value::Object(named)) => {
                named.values().try_for_each(|schema| apply(root, schema, way, into))?;
            }
            _ => {}
        }
    }
    way.pop();
    Ok(())
}

/// Those that apply to what is within a value.
fn below(words: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    const WITHIN: [&str; 9] = [
        "properties",
        "patternProperties",
        "additionalProperties",
        "unevaluatedProperties",
        "items",
        "prefixItems",
        "additionalItems",
        "unevaluatedItems",
        "contains",
    ];
    words.iter().filter(|(word, _)| WITHIN.contains(&&***word)).flat_map(|(word, value)| match value {
        Value::Object(named) if BY_NAME.contains(&&**word) => named.values().collect::<Vec<_>>(),
        Value::Array(list) => list.iter().collect(),
        value => vec![value],
    })
}

/// Whether checking by one can lead to another.
fn reaches<'s>(root: &'s Value, from: &'s Value, to: &Value, seen: &mut HashSet<*const Value>) -> bool {
    let Value::Object(words) = from else { return false };
    if std::ptr::eq(from, to) {
        return true;
    }
    if !seen.insert(std::ptr::from_ref(from)) {
        return false;
    }
    let referred = words.get("$ref").and_then(|reference| target(root, reference).ok());
    referred.is_some_and(|target| reaches(root, target, to, seen))
        || subschemas_applied(words).any(|schema| reaches(root, schema, to, seen))
}

/// As [`subschemas`], without those that are only there to be referred to.
fn subschemas_applied(words: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let defined = |word: &str| ["$defs", "definitions"].contains(&word);
    words.iter().filter(move |(word, _)| !DATA.contains(&&***word) && !defined(word)).flat_map(|(word, value)| {
        match value {
            Value::Object(named) if BY_NAME.contains(&&**word) => named.values().collect::<Vec<_>>(),
            Value::Object(_) => vec![value],
            Value::Array(list) => list.iter().collect(),
            _ => Vec::new(),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_schema_of_a_type_says_is_no_rule() {
        #[derive(schemars::JsonSchema)]
        #[expect(dead_code, reason = "only its schema is looked at")]
        struct Plain {
            small: u8,
            wide: Option<u64>,
            signed: i16,
            text: Vec<String>,
            pattern: bool,
            place: [f64; 3],
            pair: (u8, String),
            within: std::collections::BTreeSet<f64_like::Number>,
        }
        mod f64_like {
            #[derive(schemars::JsonSchema)]
            #[expect(dead_code, reason = "only its schema is looked at")]
            pub(super) enum Number {
                One,
                Many(Vec<u32>),
            }
        }
        let schema = schemars::schema_for!(Plain);
        assert!(!has_rules(schema.as_value()), "{schema:?}");
        assert!(!says_nothing(&schema));
        assert!(says_nothing(&schemars::Schema::default()));
        for rule in [
            json!({"properties": {"a": {"minLength": 1}}}),
            json!({"items": {"format": "email"}}),
            json!({"$defs": {"a": {"anyOf": [{"type": "integer", "format": "uint8", "minimum": 1, "maximum": 255}]}}}),
            json!({"properties": {"a": {"type": "number", "maximum": 0.5}}}),
            json!({"properties": {"a": {"minItems": 2, "maxItems": 3}}}),
            json!({"properties": {"a": {"minItems": 2, "maxItems": 2, "x-edri-length": true}}}),
        ] {
            assert!(has_rules(&rule), "{rule}");
        }
        assert!(!has_rules(&json!({"properties": {"minLength": {"type": "string", "default": {"pattern": "x"}}}})));
    }

    #[test]
    fn a_schema_that_would_check_for_ever_is_refused_or_bound_to_a_depth() {
        let depth = |schema: Value| prepared(&schema).and_then(|schema| depth_max(&schema));
        let tree = json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}});
        assert_eq!(depth(tree), Ok(None), "each value is checked once");
        let list = json!({"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}});
        assert_eq!(depth(list), Ok(None));
        let twice = json!({"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]});
        assert_eq!(depth(twice), Ok(Some(16)));
        let inner = json!({"properties": {"a": {"oneOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}, {"$ref": "#"}]}}});
        assert!(depth(inner).is_ok_and(|depth| depth.is_some()));
        assert!(depth(json!({"$ref": "#"})).is_err());
        assert!(depth(json!({"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}})).is_err());
        assert!(depth(json!({"$ref": "#/$defs/nowhere"})).is_err());
        assert!(depth(json!({"$ref": "https://example.org/"})).is_err());
        assert!(depth(json!({"properties": {"a": {"$dynamicRef": "#x"}}})).is_err());
        // Laughs: each applies twice what comes after it.
        let mut laughs = json!({});
        for number in 0..30 {
            let next = format!("#/$defs/a{}", number + 1);
            laughs["$defs"][format!("a{number}")] = json!({"allOf": [{"$ref": next}, {"$ref": next}]});
        }
        laughs["$defs"]["a30"] = json!({"type": "string"});
        laughs["$ref"] = json!("#/$defs/a0");
        assert!(depth(laughs).is_err());
    }

    #[test]
    fn of_bytes_only_the_number_is_looked_at() {
        let bytes =
            json!({"type": "array", "items": {"type": "integer", "format": "uint8", "minimum": 0}, "maxItems": 3});
        assert_eq!(prepared(&bytes), Ok(json!({"type": "array", "maxItems": 3})));
    }
}
