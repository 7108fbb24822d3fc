//! Payloads as they are given to a command.

use std::time::Duration;

use edri::Body;
use serde_json::Value;

use super::any::Any;
use crate::exit::Failed;

/// The longest payload that is read from a file, in bytes.
const BYTES_MAX: u64 = 16 << 20;

/// Reads a payload: JSON, or `@` and the name of a file with JSON in it.
pub(super) fn read(given: Option<&str>) -> Result<Body, Failed> {
    let Some(given) = given else { return Ok(Body::from(Value::Object(serde_json::Map::new()))) };
    match given.strip_prefix('@') {
        None => parse(given.as_bytes(), "the payload"),
        Some(path) => {
            let wrong = |why: String| Failed::usage(format!("the payload file `{path}`: {why}"));
            let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
            if length > BYTES_MAX {
                return Err(wrong(format!("{length} bytes are more than the {BYTES_MAX} that a payload may have")));
            }
            let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            parse(&bytes, &format!("the payload in `{path}`"))
        }
    }
}

/// Reads JSON.
pub(super) fn parse(text: &[u8], what: &str) -> Result<Body, Failed> {
    match serde_json::from_slice::<Value>(text) {
        Ok(value) => Ok(Body::from(value)),
        Err(error) => Err(Failed::usage(format!(
            "{what} is no JSON: {error}; write it like '{{\"region\": \"north\"}}', a text with its quotes, '\"text\"'"
        ))),
    }
}

/// A payload as a JSON value; bytes in it, for which JSON has no place, as a text that says how many there are.
pub(super) fn value(body: &Body) -> Value {
    match body.decode::<Any>() {
        Ok(any) => any.shown(),
        Err(error) => Value::String(format!("<{} bytes that are no payload: {error}>", body.bytes.len())),
    }
}

/// A payload as JSON on one line.
pub(super) fn text(body: &Body) -> String {
    value(body).to_string()
}

/// A time span as it is given: `500ms`, `2s`, `1.5m`, `1h`; a number alone is of seconds.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(format!("`{unit}` is no unit: write `500ms`, `2s`, `5m`, `1h`")),
    };
    let number: f64 =
        number.trim().parse().map_err(|_| format!("`{text}` is no time: write `500ms`, `2s`, `5m`, `1h`"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| format!("`{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        for (text, millis) in [("500ms", 500), ("2s", 2_000), ("2", 2_000), ("1.5m", 90_000), ("1h", 3_600_000)] {
            assert_eq!(span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "s", "-1s", "2 weeks", "2w", "NaN", "1e400"] {
            assert!(span(wrong).is_err(), "{wrong:?}");
        }
    }
}
