//! An answer for more than one.

use std::time::Duration;

use bytes::Bytes;
use edri_events::{Body, Encoding, Value};
use edri_router::{Outcome, RequestError};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::core::Weigh;

/// What a worker answered, written.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    body: Body,
    is_for_others: bool,
}

/// What one client is given.
#[derive(Debug)]
pub(crate) struct Given {
    /// The answer, or why there is none.
    pub(crate) outcome: Outcome,
    /// For how much longer it holds; `None` when it is for this client and now only.
    pub(crate) left: Option<Duration>,
}

/// Of an [`edri_events::Http`] what tells whether others may have it.
#[derive(Deserialize)]
struct HttpHead {
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default, rename = "body")]
    _body: IgnoredAny,
}

fn ok() -> u16 {
    200
}

impl Answer {
    /// Writes an answer; one that chooses its status and headers as JSON.
    pub(super) fn new(value: Value, encoding: Encoding, answers_http: bool) -> Result<Self, RequestError> {
        let encoding = if answers_http { Encoding::Json } else { encoding };
        let body = value.into_body(encoding)?;
        let is_for_others = !answers_http || body.decode::<HttpHead>().is_ok_and(|head| head.is_for_others());
        Ok(Self { body, is_for_others })
    }

    /// Whether others may be given it too.
    pub(super) fn is_for_others(&self) -> bool {
        self.is_for_others
    }

    /// The same, holding no more memory than its own.
    pub(super) fn detached(&self) -> Self {
        let body = Body::new(self.body.encoding, Bytes::copy_from_slice(&self.body.bytes));
        Self { body, ..*self }
    }

    pub(super) fn given(self, left: Duration) -> Given {
        let left = self.is_for_others.then_some(left);
        Given { outcome: Ok(Value::from(self.body)), left }
    }
}

impl Weigh for Answer {
    fn weight(&self) -> u64 {
        self.body.bytes.len() as u64
    }
}

impl Given {
    /// For this client and now.
    pub(super) fn once(outcome: Outcome) -> Self {
        Self { outcome, left: None }
    }
}

impl HttpHead {
    /// A success in full that sets no cookie, and of which the worker does not say that it is for one.
    fn is_for_others(&self) -> bool {
        let forbids = |(name, value): &(String, String)| {
            let has = |word| value.to_ascii_lowercase().contains(word);
            name.eq_ignore_ascii_case("set-cookie")
                // Who logs in or out is one.
                || name.get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case("edri-"))
                || name.eq_ignore_ascii_case("vary") && value.contains('*')
                || name.eq_ignore_ascii_case("cache-control") && (has("no-store") || has("private"))
        };
        matches!(self.status, 200 | 203 | 204) && !self.headers.iter().any(forbids)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_worker_means_for_one_client_is_for_no_other() {
        let check = |http: serde_json::Value, expect: bool| {
            let answer = Answer::new(Value::from(Body::from(http.clone())), Encoding::MessagePack, true);
            assert_eq!(answer.expect("is written").is_for_others(), expect, "{http}");
        };
        check(json!({"body": 1}), true);
        check(json!({"status": 200, "headers": [["cache-control", "max-age=5"]], "body": {"a": []}}), true);
        check(json!({"status": 404, "body": 1}), false);
        check(json!({"status": 303, "headers": [["location", "/"]], "body": null}), false);
        check(json!({"headers": [["Set-Cookie", "a=b"]], "body": 1}), false);
        check(json!({"headers": [["Edri-Log-In", "name=a&role=b"]], "body": 1}), false);
        check(json!({"headers": [["Cache-Control", "max-age=5, Private"]], "body": 1}), false);
        check(json!({"headers": [["vary", "*"]], "body": 1}), false);
        check(json!([1]), false);
    }
}
