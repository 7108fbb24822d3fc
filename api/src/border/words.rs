//! What a schema has against a payload, in words.

use edri_events::FieldError;
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::paths::LocationSegment;
use serde_json::Value;

/// How many values a text names.
const NAMED_MAX: usize = 8;
/// How deep alternatives are looked into.
const ALTERNATIVES_MAX: usize = 8;

/// Adds what this error says, field by field.
pub(super) fn add(error: &ValidationError<'_>, into: &mut Vec<FieldError>) {
    add_within(error, ALTERNATIVES_MAX, into);
}

fn add_within(error: &ValidationError<'_>, depth: usize, into: &mut Vec<FieldError>) {
    let at = place(error);
    match error.kind() {
        Kind::Required { property } => {
            into.push(FieldError::new(join(&at, property.as_str().unwrap_or_default()), "it is missing"));
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let unknown = |name: &String| FieldError::new(join(&at, name), "there is no such field: leave it out");
            into.extend(unexpected.iter().take(NAMED_MAX).map(unknown));
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } if depth > 0 => {
            match likeliest(context, error.instance()) {
                Some(errors) => errors.iter().for_each(|error| add_within(error, depth - 1, into)),
                None => into.push(FieldError::new(at, none_fits(context))),
            }
        }
        Kind::PropertyNames { error } => into.push(FieldError::new(at, format!("a name in it: {}", words(error)))),
        _ => into.push(FieldError::new(at, words(error))),
    }
}

/// The way to what is wrong: `lines[2].amount`.
fn place(error: &ValidationError<'_>) -> String {
    let mut way = String::new();
    for segment in error.instance_path().segments() {
        match segment {
            LocationSegment::Property(name) => way = join(&way, &name),
            LocationSegment::Index(index) => way += &format!("[{index}]"),
        }
    }
    way
}

fn join(way: &str, name: &str) -> String {
    if way.is_empty() { name.to_owned() } else { format!("{way}.{name}") }
}

/// The alternative that was most likely meant: the only one that takes such a value at all.
fn likeliest<'c>(
    context: &'c [Vec<ValidationError<'static>>],
    instance: &Value,
) -> Option<&'c [ValidationError<'static>]> {
    let at = |error: &ValidationError<'_>| error.instance_path().as_str().len();
    let base = context.iter().flatten().map(at).min().unwrap_or(0);
    let is_other = |error: &ValidationError<'_>| match error.kind() {
        // It is of another type, or another of several values.
        Kind::Type { .. } => at(error) == base,
        Kind::Constant { .. } | Kind::Enum { .. } => true,
        // A variant that is named by its field has that field.
        Kind::Required { .. } => instance.is_object() && at(error) == base,
        _ => false,
    };
    let mut meant = context.iter().filter(|errors| !errors.is_empty() && !errors.iter().any(is_other));
    match (meant.next(), meant.next()) {
        (Some(errors), None) => Some(errors),
        (None, _) => {
            // An optional value that is there, and incomplete: null was not meant.
            let is_null = |errors: &&Vec<ValidationError<'_>>| errors.iter().any(wants_null);
            let (null, others): (Vec<_>, Vec<_>) = context.iter().partition(is_null);
            match (&*null, &*others) {
                ([_, ..], [only]) if !instance.is_null() => Some(only),
                _ => None,
            }
        }
        _ => None,
    }
}

fn wants_null(error: &ValidationError<'_>) -> bool {
    matches!(error.kind(), Kind::Type { kind: TypeKind::Single(kind) } if kind.to_string() == "null")
}

/// The values that would do, when all alternatives are such.
fn none_fits(context: &[Vec<ValidationError<'static>>]) -> String {
    let constants: Option<Vec<_>> = context
        .iter()
        .map(|errors| {
            errors.iter().find_map(|error| match error.kind() {
                Kind::Constant { expected_value } => Some(vec![(**expected_value).clone()]),
                Kind::Enum { options } => options.as_array().cloned(),
                _ => None,
            })
        })
        .collect();
    match constants {
        Some(values) if !values.is_empty() => one_of(&values.concat()),
        _ => "it is none of what can be here".to_owned(),
    }
}

fn one_of(values: &[Value]) -> String {
    let mut named: Vec<_> = values.iter().take(NAMED_MAX).map(|value| format!("`{}`", text(value))).collect();
    if values.len() > NAMED_MAX {
        named.push("…".to_owned());
    }
    format!("it must be one of {}", named.join(", "))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

fn words(error: &ValidationError<'_>) -> String {
    let characters = |number| count(number, "character", "characters");
    let items = |number| count(number, "item", "items");
    let entries = |number| count(number, "entry", "entries");
    match error.kind() {
        Kind::MinLength { limit: 1 } => "it must not be empty".to_owned(),
        Kind::MinLength { limit } => format!("it must have at least {}", characters(*limit)),
        Kind::MaxLength { limit } => format!("it must have at most {}", characters(*limit)),
        Kind::MinItems { limit } => format!("it must have at least {}", items(*limit)),
        Kind::MaxItems { limit } => format!("it must have at most {}", items(*limit)),
        Kind::AdditionalItems { limit } => format!("it must have at most {}", items(*limit as u64)),
        Kind::MinProperties { limit } => format!("it must have at least {}", entries(*limit)),
        Kind::MaxProperties { limit } => format!("it must have at most {}", entries(*limit)),
        Kind::Minimum { limit } => format!("it must be at least {limit}"),
        Kind::Maximum { limit } => format!("it must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("it must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("it must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("it must be a multiple of {multiple_of}"),
        Kind::UniqueItems => "its items must all be different".to_owned(),
        Kind::Pattern { pattern } => format!("it must match `{pattern}`"),
        Kind::Format { format } => of_format(format),
        Kind::Constant { expected_value } => format!("it must be `{}`", text(expected_value)),
        Kind::Enum { options } => one_of(options.as_array().map_or(&[][..], Vec::as_slice)),
        Kind::Type { kind } => format!("it must be {}", of_types(kind)),
        Kind::FalseSchema => "nothing can be here: leave it out".to_owned(),
        Kind::Not { .. } => "it must be something else".to_owned(),
        Kind::Contains => "no item in it is what one must be".to_owned(),
        Kind::OneOfMultipleValid { .. } => "it can be understood in several ways".to_owned(),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => "it is none of what can be here".to_owned(),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            "it takes too long to see whether it matches".to_owned()
        }
        other => format!("it breaks the rule `{}`", other.keyword()),
    }
}

fn of_format(format: &str) -> String {
    let what = match format {
        "email" | "idn-email" => "an e-mail address, such as `ada@example.org`",
        "uri" | "iri" => "a URL, such as `https://example.org/`",
        "date" => "a date, such as `2026-11-22`",
        "time" => "a time, such as `12:30:00Z`",
        "date-time" => "a date and a time, such as `2026-11-22T12:30:00Z`",
        "uuid" => "a UUID",
        "ipv4" => "an IPv4 address",
        "ipv6" => "an IPv6 address",
        "hostname" | "idn-hostname" => "the name of a host",
        other => return format!("it must have the form `{other}`"),
    };
    format!("it must be {what}")
}

fn of_types(kind: &TypeKind) -> String {
    let name = |name: &str| {
        match name {
            "string" => "a text",
            "integer" => "an integer",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "object" => "a map of fields",
            _ => "null",
        }
        .to_owned()
    };
    match kind {
        TypeKind::Single(kind) => name(&kind.to_string()),
        TypeKind::Multiple(kinds) => {
            // That it may be left out is not what is wrong with it.
            let named = kinds.iter().map(|kind| kind.to_string()).filter(|kind| kind != "null");
            named.map(|kind| name(&kind)).collect::<Vec<_>>().join(", or ")
        }
    }
}
