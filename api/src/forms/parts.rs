//! The parts of a multipart form, one after the other, as they come.
//!
//! `multer` reads on as long as there is something to read, and keeps what it has not understood yet. So it is given one frame at a time, and
//! no more than so much in which it finds no part: what is kept of a form is bounded, however large the form is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::Stream;
use multer::{Field, Multipart};

use crate::body::body_problem;
use crate::problem::Problem;

/// How much may come without a part beginning or going on: the head of a part, and what is before the first.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long the rest of what is too large is read.
const LINGER: Duration = Duration::from_secs(10);

/// The parts of a form.
pub(super) struct Parts {
    parts: Multipart<'static>,
    waiting: Arc<AtomicUsize>,
}

/// One part. It has to be dropped before the next is asked for.
pub(super) struct Part {
    field: Field<'static>,
    waiting: Arc<AtomicUsize>,
}

impl Parts {
    pub(super) fn new(body: Body, boundary: &str) -> Self {
        let waiting = Arc::<AtomicUsize>::default();
        let frames = Frames { body: body.into_data_stream(), waiting: Arc::clone(&waiting), rests: false };
        Self { parts: Multipart::new(frames, boundary), waiting }
    }

    /// The next part.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Problem> {
        let field = self.parts.next_field().await.map_err(problem)?;
        self.waiting.store(0, Ordering::Relaxed);
        Ok(field.map(|field| Part { field, waiting: Arc::clone(&self.waiting) }))
    }
}

impl Part {
    pub(super) fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    /// The name of a file, without the folders that some browsers tell; `None` when the part is none.
    pub(super) fn file_name(&self) -> Option<String> {
        let name = self.field.file_name()?.rsplit(['/', '\\']).next().unwrap_or_default();
        Some(name.chars().filter(|c| !c.is_control()).take(255).collect())
    }

    pub(super) fn media(&self) -> String {
        self.field.content_type().map(ToString::to_string).unwrap_or_default()
    }

    /// Reads what is left of a part that is too large, for nobody and not for long: a browser that is cut off while it sends shows no answer.
    pub(super) async fn linger(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.chunk().await {} };
        // Whoever takes longer is cut off.
        let _ = tokio::time::timeout(LINGER, rest).await;
    }

    /// What comes next of it.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Problem> {
        let chunk = self.field.chunk().await.map_err(problem)?;
        self.waiting.store(0, Ordering::Relaxed);
        Ok(chunk)
    }
}

/// The body of a request, a frame at a time.
struct Frames {
    body: BodyDataStream,
    /// How much has come since a part began or went on.
    waiting: Arc<AtomicUsize>,
    rests: bool,
}

#[derive(Debug, thiserror::Error)]
enum FrameError {
    #[error("the head of a part is longer than {HEAD_BYTES_MAX} bytes")]
    Head,
    #[error("{0}")]
    Body(#[from] axum::Error),
}

impl Stream for Frames {
    type Item = Result<Bytes, FrameError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.rests) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.waiting.load(Ordering::Relaxed) > HEAD_BYTES_MAX {
            return Poll::Ready(Some(Err(FrameError::Head)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_next(cx));
        self.rests = frame.is_some();
        if let Some(Ok(bytes)) = &frame {
            self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(FrameError::from)))
    }
}

fn problem(error: multer::Error) -> Problem {
    match &error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast_ref::<FrameError>() {
            Some(FrameError::Head) => too_large(cause.to_string()),
            _ => body_problem(&**cause),
        },
        _ => {
            let detail = format!("the form is not readable: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "invalid_payload", detail)
        }
    }
}

pub(super) fn too_large(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
}
