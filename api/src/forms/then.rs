//! Where a browser goes after its form was taken.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// What stays as it is in a place.
const PLACE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same where the place takes the rest of the path.
const REST: &AsciiSet = &PLACE.remove(b'/');

/// Fills the places of a path of this host: `/tickets/{id}`. What a field has stays within its place, whatever it is.
///
/// # Errors
///
/// When it is no such path, or there is no text or number for a place.
pub(super) fn fill<'v>(path: &str, value: impl Fn(&str) -> Option<&'v Value>) -> Result<String, String> {
    let is_here = path.strip_prefix('/').is_some_and(|rest| !rest.starts_with(['/', '\\', '{']));
    if !is_here || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("`then` is {path:?}, which is no path of this host: write it like \"/tickets/{{id}}\""));
    }
    let mut filled = String::new();
    let mut rest = path;
    while let Some((before, place)) = rest.split_once('{') {
        let Some((name, after)) = place.split_once('}') else { break };
        filled.push_str(before);
        let (name, kept) = name.strip_prefix('*').map_or((name, PLACE), |name| (name, REST));
        let text = value(name).and_then(text).ok_or_else(|| {
            format!("`then` is {path:?}, and neither the answer nor the event has a text or a number `{name}`")
        })?;
        let text = if kept == REST { text.trim_start_matches('/') } else { &text };
        filled.extend(utf8_percent_encode(text, kept));
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(path: &str, id: Value) -> Result<String, String> {
        fill(path, |name| (name == "id").then_some(&id))
    }

    #[test]
    fn places_are_filled_and_lead_nowhere_else() {
        let cases = [
            ("/", json!(1), "/"),
            ("/tickets/{id}", json!(7), "/tickets/7"),
            ("/tickets?made={id}#end", json!("a b"), "/tickets?made=a%20b#end"),
            ("/t/{id}/x", json!("a/../../b?c=d#e"), "/t/a%2F..%2F..%2Fb%3Fc%3Dd%23e/x"),
            ("/t/{id}", json!("\r\nset-cookie: a=b"), "/t/%0D%0Aset-cookie%3A%20a%3Db"),
            ("/t/{id}", json!("//evil.example"), "/t/%2F%2Fevil.example"),
            ("/t/{*id}", json!("//evil.example/ä"), "/t/evil.example/%C3%A4"),
        ];
        for (path, id, expect) in cases {
            assert_eq!(filled(path, id).as_deref(), Ok(expect), "{path}");
        }
        for wrong in
            ["//evil.example", "https://evil.example", "/\\evil.example", "/{id}", "tickets", "", "/a b", "/a\nb"]
        {
            assert!(filled(wrong, json!("/evil.example")).is_err(), "{wrong}");
        }
        assert!(filled("/t/{other}", json!(1)).is_err_and(|error| error.contains("`other`")));
        assert!(filled("/t/{id}", json!([1])).is_err());
        assert_eq!(filled("/t/{id", json!(1)).as_deref(), Ok("/t/{id"));
    }
}
