//! What browsers and other caches are told: `Cache-Control`, `Vary`, strong `ETag`s, and 304.
//!
//! Only events that are declared cacheable get an `ETag`: of others nobody asks again whether they are as they were, and every
//! answer would have to be hashed for it. Their answers are for their client and now, whatever a cache in between might guess.

use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use edri_events::{Caching, Source};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use ring::digest::{Context, SHA256};

use crate::exposed::Reachable;
use crate::gateway::Shared;
use crate::{Caller, Verb};

/// What stands between an entity tag and the coding of the bytes that it is of. No tag made here has it.
const CODED: char = '+';
/// How many bytes of a hash make a tag.
const TAG_BYTES: usize = 16;

/// That the tag of a response was made here.
#[derive(Debug, Clone, Copy)]
struct Tagged;

/// Says of an answer over GET for how long it may be given again and to whom, and leaves its body away if the client has it
/// already. `left` is for how much longer it holds; `None` when it is for this client and now. What the worker says itself stays.
pub(crate) async fn finish(
    shared: &Shared,
    event: &Reachable,
    head: &Parts,
    caller: &Caller,
    left: Option<Duration>,
    mut response: Response<Body>,
) -> Response<Body> {
    if head.method != Method::GET && head.method != Method::HEAD {
        return response;
    }
    let (Some(caching), Some(left)) = (event.caching(), left.filter(|_| response.status().is_success())) else {
        response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
        return response;
    };
    let is_public = is_public(shared, event, caching, caller, response.headers());
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert_with(|| cache_control(caching, is_public, left));
    vary(headers, event, is_public);
    let Some(tag) = tag(&mut response).await else { return response };
    if let Some(had) = matching(&head.headers, &tag) {
        shared.cache.figures.unchanged();
        return not_modified(response, had);
    }
    response
}

/// Whether caches that many use may keep it: only what is the same for everybody, and for which nobody has to say who it is. A page
/// shows who looks at it, and an interceptor may change for one what it leaves for another.
fn is_public(shared: &Shared, event: &Reachable, caching: &Caching, caller: &Caller, headers: &HeaderMap) -> bool {
    let is_page = headers.get(header::CONTENT_TYPE).is_some_and(|media| media.as_bytes().starts_with(b"text/html"));
    let is_named = caller.name().is_some();
    caching.public
        && !(is_page && is_named)
        && !headers.contains_key(header::SET_COOKIE)
        && shared.interceptors.is_empty()
        && event.permits(&shared.access.anonymous(), Verb::Request)
}

/// What notifications end has to be asked for each time, since a browser does not hear them.
fn cache_control(caching: &Caching, is_public: bool, left: Duration) -> HeaderValue {
    let whose = if is_public { "public" } else { "private" };
    let text = match &*caching.stale_on {
        // Whole seconds, and never more than it holds.
        [] => format!("{whose}, max-age={}", left.as_secs()),
        _ => format!("{whose}, no-cache"),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("no-store"))
}

/// Names the headers that another answer may be chosen by.
fn vary(headers: &mut HeaderMap, event: &Reachable, is_public: bool) {
    let mut names = vec!["accept", "accept-encoding"];
    if !is_public {
        names.extend(["authorization", "cookie"]);
    }
    for source in &event.sources {
        names.push(match &source.from {
            Source::Header(name) => name,
            Source::Cookie(_) => "cookie",
        });
    }
    names.sort_unstable();
    names.dedup();
    if let Ok(names) = HeaderValue::try_from(names.join(", ")) {
        headers.append(header::VARY, names);
    }
}

/// The tag of a response: its own, or one made of its bytes if they are all there.
async fn tag(response: &mut Response<Body>) -> Option<HeaderValue> {
    if let Some(tag) = response.headers().get(header::ETAG) {
        return Some(tag.clone());
    }
    response.body().size_hint().exact()?;
    let bytes = std::mem::take(response.body_mut()).collect().await.ok()?.to_bytes();
    let media = response.headers().get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    let tag = made_tag(media, &bytes);
    *response.body_mut() = Body::from(bytes);
    response.headers_mut().insert(header::ETAG, tag.clone()?);
    response.extensions_mut().insert(Tagged);
    tag
}

fn made_tag(media: &[u8], bytes: &Bytes) -> Option<HeaderValue> {
    let mut hash = Context::new(&SHA256);
    hash.update(media);
    hash.update(&[0]);
    hash.update(bytes);
    let hash = hash.finish();
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash.as_ref()[..TAG_BYTES]));
    HeaderValue::try_from(tag).ok()
}

/// The tag that the client says it has, if it is this one, whatever the coding of the bytes that it has.
fn matching(headers: &HeaderMap, tag: &HeaderValue) -> Option<HeaderValue> {
    let opaque = |tag: &str| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
        Some(tag.split_once(CODED).map_or(tag, |(tag, _)| tag).to_owned())
    };
    let wanted = opaque(tag.to_str().ok()?)?;
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    for one in given.flat_map(|value| value.split(',')).map(str::trim) {
        if one == "*" {
            return Some(tag.clone());
        }
        if opaque(one).is_some_and(|one| one == wanted) {
            return HeaderValue::try_from(one).ok();
        }
    }
    None
}

/// What the client has is as it was; `had` is its tag.
fn not_modified(response: Response<Body>, had: HeaderValue) -> Response<Body> {
    let (mut head, _) = response.into_parts();
    head.status = StatusCode::NOT_MODIFIED;
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
        head.headers.remove(name);
    }
    head.headers.insert(header::ETAG, had);
    Response::from_parts(head, Body::empty())
}

/// A compressed body has other bytes, so a strong tag that was made of them as they were is another one too.
pub(crate) fn coded(response: &mut Response<Body>) {
    if response.extensions().get::<Tagged>().is_none() {
        return;
    }
    let coding = response.headers().get(header::CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()?.strip_suffix('"'));
    let coded = coding.zip(tag).and_then(|(coding, tag)| HeaderValue::try_from(format!("{tag}{CODED}{coding}\"")).ok());
    if let Some(coded) = coded {
        response.headers_mut().insert(header::ETAG, coded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_what_it_names_in_any_coding_and_nothing_else() {
        let tag = HeaderValue::from_static("\"abc\"");
        let check = |given: &[&str], expect: Option<&str>| {
            let mut headers = HeaderMap::new();
            for one in given {
                headers.append(header::IF_NONE_MATCH, HeaderValue::try_from(*one).expect("a value"));
            }
            let found = matching(&headers, &tag);
            assert_eq!(found.as_ref().map(|tag| tag.to_str().expect("text")), expect, "{given:?}");
        };
        check(&[], None);
        check(&["\"abc\""], Some("\"abc\""));
        check(&["\"x\", W/\"abc\""], Some("W/\"abc\""));
        check(&["\"x\"", "\"abc+gzip\""], Some("\"abc+gzip\""));
        check(&["*"], Some("\"abc\""));
        for other in ["abc", "\"abcd\"", "\"ab\"", "\"+gzip\"", "\"abc", "", ",", "\"x"] {
            check(&[other], None);
        }
    }

    #[test]
    fn other_bytes_and_another_kind_of_bytes_have_another_tag() {
        let of = |media: &str, bytes: &'static str| made_tag(media.as_bytes(), &Bytes::from_static(bytes.as_bytes()));
        let one = of("application/json", "{}").expect("a tag");
        assert_eq!(one.len(), 24);
        assert_eq!(Some(&one), of("application/json", "{}").as_ref());
        assert_ne!(Some(&one), of("application/json", "{ }").as_ref());
        assert_ne!(Some(&one), of("text/html", "{}").as_ref());
        assert!(!one.to_str().expect("text").contains(CODED));
    }
}
