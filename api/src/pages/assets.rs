//! Files that belong to pages: style sheets, scripts, images. Their paths have a hash of what is in them, so that a browser keeps
//! each for good and has the next one at once.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::builder::files;
use super::functions::SEGMENTS;
use crate::gateway::Shared;
use crate::problem::Problem;

/// What the paths of assets begin with.
pub(super) const PREFIX: &str = "/assets/";
/// The most assets, and the most bytes of all: they are kept in memory.
const ASSETS_MAX: usize = 4_096;
const ASSETS_BYTES_MAX: u64 = 64 << 20;
/// How much of a hash stands in a path, in hexadecimal digits.
const HASH_DIGITS: usize = 16;

/// The assets of a gateway.
#[derive(Debug)]
pub(super) struct Assets {
    folder: PathBuf,
    /// All of them; `None` when each is read when it is asked for.
    kept: Option<HashMap<String, Asset>>,
}

/// One of them.
#[derive(Debug, Clone)]
struct Asset {
    bytes: Bytes,
    hash: Box<str>,
}

impl Assets {
    /// Opens the assets in a folder. While developing, one is read when it is asked for.
    pub(super) fn open(folder: PathBuf, develop: bool) -> Result<Self, String> {
        if !folder.is_dir() {
            return Err(format!("there is no folder `{}` with assets", folder.display()));
        }
        let kept = if develop { None } else { Some(read_all(&folder)?) };
        Ok(Self { folder, kept })
    }

    /// The path of an asset, with its hash.
    pub(super) fn path(&self, name: &str) -> Result<String, String> {
        let asset =
            self.find(name).ok_or_else(|| format!("there is no asset `{name}` in `{}`", self.folder.display()))?;
        let (stem, extension) = split_extension(name);
        let hashed = format!("{stem}.{}{extension}", asset.hash);
        Ok(format!("{PREFIX}{}", utf8_percent_encode(&hashed, SEGMENTS)))
    }

    fn find(&self, name: &str) -> Option<Asset> {
        match &self.kept {
            Some(kept) => kept.get(name).cloned(),
            None => read(&inside(&self.folder, name)?).ok(),
        }
    }

    /// The asset at a path, and whether it is what the hash in the path says.
    fn at(&self, name: &str) -> Option<(Asset, bool)> {
        if let Some(asset) = self.find(name) {
            return Some((asset, false));
        }
        let (stem, extension) = split_extension(name);
        let (stem, hash) = stem.rsplit_once('.').filter(|(_, hash)| is_hash(hash))?;
        let asset = self.find(&format!("{stem}{extension}"))?;
        // A page that is older than the asset gets what there is, and does not keep it.
        let is_same = *asset.hash == *hash;
        Some((asset, is_same))
    }

    fn answer(&self, path: &str, headers: &HeaderMap) -> Response<Body> {
        let name = percent_decode_str(path.strip_prefix(PREFIX).unwrap_or_default()).decode_utf8().unwrap_or_default();
        let Some((asset, is_same)) = self.at(&name) else {
            return Problem::not_found(format!("nothing is at `{path}`")).into_response();
        };
        // A weak one: the bytes may be sent compressed.
        let tag = format!("W/\"{}\"", asset.hash);
        let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let is_known = known.flat_map(|value| value.split(',')).any(|known| {
            let known = known.trim();
            known == "*" || known.trim_start_matches("W/") == &tag[2..]
        });
        let mut response = Response::new(if is_known { Body::empty() } else { Body::from(asset.bytes) });
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        let keep = if is_same { "public, max-age=31536000, immutable" } else { "no-cache" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
        headers.extend(HeaderValue::from_str(&tag).map(|tag| (header::ETAG, tag)));
        headers.extend(HeaderValue::from_str(&media(&name)).map(|media| (header::CONTENT_TYPE, media)));
        response
    }
}

/// Answers a request for an asset.
pub(crate) async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let answer = move || {
        let assets = shared.pages.as_ref()?.assets.as_ref()?;
        Some(assets.answer(&path, request.headers()))
    };
    // While developing a disk may make us wait, and a runtime must not.
    let answered = tokio::task::spawn_blocking(answer).await.ok().flatten();
    answered.unwrap_or_else(|| Problem::not_found("there are no assets").into_response())
}

fn read_all(folder: &Path) -> Result<HashMap<String, Asset>, String> {
    let mut bytes = 0;
    let mut kept = HashMap::new();
    for name in files(folder, ASSETS_MAX, "assets")? {
        let asset = read(&folder.join(&name)).map_err(|error| format!("the asset `{name}` cannot be read: {error}"))?;
        bytes += asset.bytes.len() as u64;
        if bytes > ASSETS_BYTES_MAX {
            let folder = folder.display();
            return Err(format!(
                "the assets in `{folder}` have more than {ASSETS_BYTES_MAX} bytes, and are kept in memory: serve large files by `Api::files`"
            ));
        }
        kept.insert(name, asset);
    }
    Ok(kept)
}

fn read(path: &Path) -> Result<Asset, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > ASSETS_BYTES_MAX {
        return Err(format!("it has more than {ASSETS_BYTES_MAX} bytes: serve it by `Api::files`"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let mut hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    hash.truncate(HASH_DIGITS);
    Ok(Asset { bytes: bytes.into(), hash: hash.into() })
}

/// The path of a name in a folder; `None` when it would be outside, or is hidden.
fn inside(folder: &Path, name: &str) -> Option<PathBuf> {
    let is_plain = |segment: &str| !segment.is_empty() && !segment.starts_with('.') && !segment.contains(['\\', '\0']);
    name.split('/').all(is_plain).then(|| folder.join(name))
}

/// The name without its extension, and the extension with its dot.
fn split_extension(name: &str) -> (&str, &str) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].rfind('.') {
        Some(dot) if dot > 0 => name.split_at(file + dot),
        _ => (name, ""),
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn media(name: &str) -> String {
    let media = mime_guess::from_path(name).first_or_octet_stream().to_string();
    if media.starts_with("text/") { format!("{media}; charset=utf-8") } else { media }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_of_an_asset_stays_at_its_end() {
        let check = |name, expect| assert_eq!(split_extension(name), expect, "{name}");
        check("style.css", ("style", ".css"));
        check("a.b/style", ("a.b/style", ""));
        check("fonts/a.b.woff2", ("fonts/a.b", ".woff2"));
    }
}
