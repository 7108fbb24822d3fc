//! Bodies of forms.

use axum::body::Body;
use axum::http::StatusCode;
use bytes::BytesMut;

use super::fields::{Entry, FIELDS_MAX, File, Given};
use super::parts::{Part, Parts, too_large};
use crate::gateway::Shared;
use crate::problem::{FieldError, Problem};

/// Whether it is JSON all the same: curl calls whatever it sends a form. A browser never writes a brace or a bracket as it is.
pub(super) fn is_data(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[' | b'"'))
}

/// The fields of an url-encoded form, in its order.
pub(super) fn url_encoded(bytes: &[u8]) -> Result<Vec<Entry>, Problem> {
    let mut entries = Vec::new();
    for (name, value) in form_urlencoded::parse(bytes) {
        add(&mut entries, Entry { name: name.into_owned(), given: Given::Text(value.into_owned()) })?;
    }
    Ok(entries)
}

fn add(entries: &mut Vec<Entry>, entry: Entry) -> Result<(), Problem> {
    if entries.len() == FIELDS_MAX {
        return Err(too_large(format!("a form has at most {FIELDS_MAX} fields")));
    }
    entries.push(entry);
    Ok(())
}

/// The text of a field that is the form's own.
pub(super) fn text<'e>(entries: &'e [Entry], name: &str) -> Option<&'e str> {
    entries.iter().find(|entry| entry.name == name).and_then(|entry| match &entry.given {
        Given::Text(text) => Some(text.as_str()),
        Given::File(_) => None,
    })
}

/// The fields of a multipart form, files and all. The error has what was read before.
pub(super) async fn multipart(
    shared: &Shared,
    body: Body,
    boundary: &str,
) -> Result<Vec<Entry>, (Vec<Entry>, Problem)> {
    let mut reading = Reading::new(shared);
    let mut parts = Parts::new(body, boundary);
    let read = async {
        while let Some(mut part) = parts.next().await? {
            reading.add(&mut part).await?;
        }
        Ok(())
    };
    match timed(shared, read).await {
        Ok(()) => Ok(reading.entries),
        Err(problem) => Err((reading.entries, problem)),
    }
}

/// A form of which some was read.
pub(super) struct Reading {
    pub(super) entries: Vec<Entry>,
    room: usize,
    most: usize,
}

impl Reading {
    pub(super) fn new(shared: &Shared) -> Self {
        let most = shared.limits.body_bytes;
        Self { entries: Vec::new(), room: most, most }
    }

    /// Reads a part to its end.
    pub(super) async fn add(&mut self, part: &mut Part) -> Result<(), Problem> {
        let added = self.try_add(part).await;
        if added.as_ref().is_err_and(|problem| problem.status() == StatusCode::PAYLOAD_TOO_LARGE) {
            part.linger().await;
        }
        added
    }

    async fn try_add(&mut self, part: &mut Part) -> Result<(), Problem> {
        let (name, file, media) = (part.name().to_owned(), part.file_name(), part.media());
        let mut bytes = BytesMut::new();
        self.room = self.room.checked_sub(name.len()).ok_or_else(|| self.too_large())?;
        while let Some(chunk) = part.chunk().await? {
            self.room = self.room.checked_sub(chunk.len()).ok_or_else(|| self.too_large())?;
            bytes.extend_from_slice(&chunk);
        }
        let given = match file {
            Some(file) => Given::File(File { name: file, media, bytes: bytes.freeze() }),
            None => Given::Text(String::from_utf8(bytes.into()).map_err(|_| {
                let message = "it is no text in UTF-8".to_owned();
                Problem::invalid(vec![FieldError { field: name.clone(), message }])
            })?),
        };
        add(&mut self.entries, Entry { name, given })
    }

    fn too_large(&self) -> Problem {
        too_large(format!("a form has at most {} bytes here: send a larger file to a tunnel", self.most))
    }
}

/// Reads for no longer than the body of a request may take.
pub(super) async fn timed<T>(shared: &Shared, read: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let limit = shared.limits.body_time;
    tokio::time::timeout(limit, read).await.unwrap_or_else(|_| {
        let detail = format!("the form did not come within {limit:?}");
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timed_out", detail))
    })
}
