//! Which encoding a client writes and wants.

use axum::http::{HeaderMap, header};
use edri_events::Encoding;

use crate::problem::Problem;

/// The media types of MessagePack: the registered one (RFC 9742 is of CBOR's kin; `vnd.msgpack` is IANA's) and what is met.
const MESSAGEPACK: [&str; 3] = ["application/vnd.msgpack", "application/msgpack", "application/x-msgpack"];

/// How the body of the request is written; JSON when it does not say.
pub(crate) fn body_encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(Encoding::Json) };
    if given == "application/json" {
        return Ok(Encoding::Json);
    }
    let media = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*media {
        // What curl sends with `-d`: what is meant is JSON, and if not, reading it says so.
        "" | "application/x-www-form-urlencoded" => Ok(Encoding::Json),
        json if json == "application/json" || json.ends_with("+json") => Ok(Encoding::Json),
        other if MESSAGEPACK.contains(&other) => Ok(Encoding::MessagePack),
        other => Err(Problem::new(
            axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("`{other}` is not read here: send application/json or application/vnd.msgpack"),
        )),
    }
}

/// What a client wants to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A page.
    Page,
    /// Data, written so.
    Data(Encoding),
}

/// How the client wants the answer, of which there is also a page if `has_page`.
pub(crate) fn wanted(headers: &HeaderMap, has_page: bool) -> Result<Wanted, Problem> {
    let json = Wanted::Data(Encoding::Json);
    let Some(accept) = headers.get(header::ACCEPT) else { return Ok(json) };
    let Ok(accept) = accept.to_str() else { return Ok(json) };
    if accept == "*/*" || accept == "application/json" {
        return Ok(json);
    }
    let mut best: Option<(f32, Wanted)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0));
        let wanted = match &*media {
            "*/*" | "application/*" | "application/json" | "application/problem+json" => json,
            "text/html" | "text/*" | "application/xhtml+xml" if has_page => Wanted::Page,
            other if MESSAGEPACK.contains(&other) => Wanted::Data(Encoding::MessagePack),
            _ => continue,
        };
        if quality > 0.0 && best.is_none_or(|(before, _)| quality > before) {
            best = Some((quality, wanted));
        }
    }
    best.map(|(_, wanted)| wanted).ok_or_else(|| {
        let too = if has_page { ", or a page (text/html)" } else { "" };
        let detail = format!("answers are application/json or application/vnd.msgpack{too}: accept one of them");
        Problem::new(axum::http::StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail)
    })
}

/// The media type of an answer.
pub(crate) fn media_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "application/json",
        Encoding::MessagePack => MESSAGEPACK[0],
    }
}
