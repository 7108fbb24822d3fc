//! A file of a form that goes up a tunnel as it comes, however large it is.
//!
//! The fields before the file are the event's. After it nothing may come that is one: the worker has begun.

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, stream};

use super::Post;
use super::fields::{Entry, File, Given};
use super::parts::{Part, Parts, too_large};
use super::read::{Reading, timed};
use crate::gateway::Shared;
use crate::problem::{FieldError, Problem};

/// A form up to its file.
pub(super) struct Begun {
    pub(super) entries: Vec<Entry>,
    /// The file; `None` when none was chosen.
    file: Option<Part>,
    parts: Parts,
}

/// Reads a form up to its file. The error has what was read before.
pub(super) async fn begin(shared: &Shared, body: Body, boundary: &str) -> Result<Begun, (Vec<Entry>, Problem)> {
    let mut reading = Reading::new(shared);
    let mut parts = Parts::new(body, boundary);
    let read = async {
        while let Some(mut part) = parts.next().await? {
            match part.file_name() {
                Some(name) if !name.is_empty() => return Ok(Some(part)),
                _ => reading.add(&mut part).await?,
            }
        }
        Ok(None)
    };
    match timed(shared, read).await {
        Ok(file) => Ok(Begun { entries: reading.entries, file, parts }),
        Err(problem) => Err((reading.entries, problem)),
    }
}

impl Begun {
    /// The bytes of the file; what is about it is among the entries then, without bytes.
    ///
    /// # Errors
    ///
    /// 400 when there is none.
    pub(super) fn file(mut self, post: &Post) -> Result<(Vec<Entry>, Body), Problem> {
        let Some(file) = self.file else {
            let is_file = |entry: &&Entry| matches!(entry.given, Given::File(_));
            let field = self.entries.iter().find(is_file).map(|entry| entry.name.clone()).unwrap_or_default();
            return Err(Problem::invalid(vec![FieldError { field, message: "a file is needed".to_owned() }]));
        };
        let about = File { name: file.file_name().unwrap_or_default(), media: file.media(), bytes: Bytes::new() };
        self.entries.push(Entry { name: file.name().to_owned(), given: Given::File(about) });
        let most = post.shared.limits.upload_bytes;
        let schema = &post.event.descriptor.schemas().event;
        let fields = schema.get("properties").and_then(serde_json::Value::as_object);
        let fields = fields.map(|fields| fields.keys().cloned().collect()).unwrap_or_default();
        Ok((self.entries, Body::from_stream(chunks(file, self.parts, most, fields))))
    }
}

/// What a tunnel's body is broken off with.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.detail())]
pub(crate) struct Wrong(pub(crate) Problem);

/// The chunks of a file, then nothing, or what is wrong with what follows it.
fn chunks(
    file: Part,
    parts: Parts,
    most: usize,
    fields: Vec<String>,
) -> impl Stream<Item = Result<Bytes, Wrong>> + Send {
    stream::unfold(Some((file, parts, 0_usize, fields)), move |state| async move {
        let (mut file, parts, had, fields) = state?;
        match file.chunk().await {
            Err(problem) => Some((Err(Wrong(problem)), None)),
            Ok(Some(chunk)) => {
                let had = had + chunk.len();
                if had > most {
                    file.linger().await;
                    let detail = format!("a file has at most {most} bytes here");
                    return Some((Err(Wrong(too_large(detail))), None));
                }
                Some((Ok(chunk), Some((file, parts, had, fields))))
            }
            Ok(None) => {
                drop(file);
                rest(parts, &fields).await.err().map(|problem| (Err(Wrong(problem)), None))
            }
        }
    })
}

/// Looks at what comes behind the file.
async fn rest(mut parts: Parts, fields: &[String]) -> Result<(), Problem> {
    while let Some(part) = parts.next().await? {
        let is_file = part.file_name().is_some_and(|name| !name.is_empty());
        let name = part.name().to_owned();
        let begin = name.split(['.', '[']).next().unwrap_or_default();
        if is_file || fields.iter().any(|field| field == begin) {
            let message = if is_file { "one file is taken" } else { "it stands behind the file: put it before" };
            return Err(Problem::invalid(vec![FieldError { field: name, message: message.to_owned() }]));
        }
    }
    Ok(())
}
