//! Answers that say more to an HTTP client than their value.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Item;

/// The header of an answer that logs somebody in, `name=anna&role=agent`: see [`Http::log_in`]. The gateway takes it out.
pub const LOG_IN: &str = "edri-log-in";
/// The header of an answer that logs somebody out, `here` or `everywhere`: see [`Http::log_out`]. The gateway takes it out.
pub const LOG_OUT: &str = "edri-log-out";

/// A response with a status and headers for HTTP clients: `response = Http<Order>`.
///
/// To whoever asks over HTTP the body is the answer, with this status and these headers. Everybody else is given it as it is,
/// and finds the value in `body`. Over HTTP a body is JSON or MessagePack, as the client wants it; when a worker sets
/// `content-type` and the body is a text or bytes, it is sent as it is. Nothing is sent of a body with a status that has none
/// (204, 304), and nothing of a null with a redirect.
///
/// ```
/// use edri_events::Http;
///
/// let created = Http::created("/orders/7", "order 7".to_owned()).header("cache-control", "no-store");
/// assert_eq!(created.status, 201);
/// let moved: Http<Option<String>> = Http::redirect("/orders/8");
/// assert_eq!((moved.status, moved.body), (303, None));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-edri-http" = true))]
pub struct Http<T> {
    /// The status, from 200 to 599. Any other is an error of the worker's.
    #[serde(default = "ok")]
    pub status: u16,
    /// Names and values of headers, in their order; several may have one name.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The value.
    pub body: T,
}

fn ok() -> u16 {
    200
}

impl<T> Http<T> {
    /// A response with the status 200.
    #[must_use]
    pub fn new(body: T) -> Self {
        Self { status: ok(), headers: Vec::new(), body }
    }

    /// A response with the status 201: what was asked for was made, and is at `location`.
    #[must_use]
    pub fn created(location: &str, body: T) -> Self {
        Self::new(body).status(201).header("location", location)
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a cookie that scripts cannot read and other sites do not send along: `HttpOnly; SameSite=Lax; Path=/`. What else a
    /// cookie can say is added to the value: `abc; Secure; Max-Age=3600`.
    #[must_use]
    pub fn cookie(self, name: &str, value: &str) -> Self {
        self.header("set-cookie", &format!("{name}={value}; HttpOnly; SameSite=Lax; Path=/"))
    }

    /// Logs in whoever sent the event from a browser: the gateway begins a session of this name in this role, and ends the one
    /// before. The worker has looked at the password, or whatever tells who it is. The gateway needs `Api::sessions`, and with
    /// `Api::access` the role has to be one of its own (`Access::role`).
    ///
    /// ```
    /// # use edri_events::Http;
    /// let welcome: Http<Option<String>> = Http::redirect("/tickets").log_in("anna", "agent");
    /// ```
    #[must_use]
    pub fn log_in(self, name: &str, role: &str) -> Self {
        self.header(LOG_IN, &format!("name={}&role={}", escaped(name), escaped(role)))
    }

    /// Logs out whoever sent the event: the session ends at once, at all gateways, with all that is open of it.
    #[must_use]
    pub fn log_out(self) -> Self {
        self.header(LOG_OUT, "here")
    }

    /// The same with all other sessions of its name, as when a password was changed.
    #[must_use]
    pub fn log_out_everywhere(self) -> Self {
        self.header(LOG_OUT, "everywhere")
    }
}

/// A text as url-encoded forms have it.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            escaped + char::from(byte).encode_utf8(&mut [0; 4])
        }
        _ => escaped + &format!("%{byte:02X}"),
    })
}

impl<T: Default> Http<T> {
    /// A response that sends the client on to `location`, to be asked for with GET: the status 303.
    #[must_use]
    pub fn redirect(location: &str) -> Self {
        Self::new(T::default()).status(303).header("location", location)
    }
}

/// What the worker of a tunnel sends to an HTTP client that downloads: `down = HttpPart`.
///
/// A head may come first; without one the download has the status 200 and is `application/octet-stream`. Then come bytes.
///
/// ```
/// use edri_events::HttpPart;
///
/// // A client that asks for a part: `#[http(header = "range")] range: Option<String>` is a field of the event.
/// let (head, range) = HttpPart::head_for(Some("bytes=10-"), 100, "text/csv");
/// assert_eq!(range, 10..100);
/// assert!(matches!(head, HttpPart::Head { status: 206, .. }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("x-edri-http-part" = true))]
pub enum HttpPart {
    /// Status, headers, and how many bytes come when that is known. Only the first part may be one.
    Head {
        /// The status.
        status: u16,
        /// Names and values of headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// How many bytes come.
        #[serde(default)]
        length: Option<u64>,
    },
    /// Bytes of the download.
    Bytes(bytes::Bytes),
}

impl Item for HttpPart {
    fn weight(&self) -> usize {
        match self {
            Self::Head { headers, .. } => headers.iter().map(|(name, value)| name.len() + value.len()).sum(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl HttpPart {
    /// The head for a download of `total` bytes of which the client wants a part, and which bytes to send: all of them when it
    /// does not say, or asks for several parts at once. When there are none such, the status is 416 and the range is empty
    /// (RFC 9110, section 14).
    #[must_use]
    pub fn head_for(range: Option<&str>, total: u64, content_type: &str) -> (Self, std::ops::Range<u64>) {
        let mut headers = vec![
            ("content-type".to_owned(), content_type.to_owned()),
            ("accept-ranges".to_owned(), "bytes".to_owned()),
        ];
        let (status, range) = match range.and_then(|range| parse_range(range, total)) {
            None => (200, 0..total),
            Some(Some(range)) => {
                let text = format!("bytes {}-{}/{total}", range.start, range.end - 1);
                headers.push(("content-range".to_owned(), text));
                (206, range)
            }
            Some(None) => {
                headers.push(("content-range".to_owned(), format!("bytes */{total}")));
                (416, 0..0)
            }
        };
        (Self::Head { status, headers, length: Some(range.end - range.start) }, range)
    }
}

/// The one range that a header asks for: `None` when it is none that is understood, `Some(None)` when nothing is there.
fn parse_range(header: &str, total: u64) -> Option<Option<std::ops::Range<u64>>> {
    let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(first) || !is_number(last) {
        return None;
    }
    let range = match (first, last) {
        ("", "") => return None,
        // The last so many.
        ("", count) => total.saturating_sub(count.parse().unwrap_or(u64::MAX))..total,
        (first, last) => {
            let (first, last) = (first.parse().unwrap_or(u64::MAX), last.parse().unwrap_or(u64::MAX));
            if last < first && !header.trim().ends_with('-') {
                return None;
            }
            first..total.min(last.saturating_add(1))
        }
    };
    Some((range.start < range.end).then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_characters_is_logged_in() {
        let answer = Http::new(()).log_in("Änne & co", "agent").log_out();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(answer.headers, [header(LOG_IN, "name=%C3%84nne%20%26%20co&role=agent"), header(LOG_OUT, "here")]);
    }

    #[test]
    fn a_range_is_what_rfc_9110_says() {
        let cases = [
            ("bytes=0-9", Some(Some(0..10))),
            ("bytes=90-", Some(Some(90..100))),
            ("bytes=90-200", Some(Some(90..100))),
            ("bytes=-10", Some(Some(90..100))),
            ("bytes=-1000", Some(Some(0..100))),
            ("bytes=-0", Some(None)),
            ("bytes=100-", Some(None)),
            ("bytes=99999999999999999999999-", Some(None)),
            ("bytes=9-3", None),
            ("bytes=0-1,5-6", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("lines=1-2", None),
        ];
        for (header, expect) in cases {
            assert_eq!(parse_range(header, 100), expect, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Some(None));
    }
}
