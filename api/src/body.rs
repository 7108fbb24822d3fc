//! Bodies that are watched on their way.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};

use crate::activity::Activity;
use crate::forms::Wrong;
use crate::problem::Problem;

/// Why a body does not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("nothing of the body came for {0:?}")]
    Idle(Duration),
    #[error("{0}")]
    Broken(#[from] hyper::Error),
}

/// The body of a request, which may not stand still for long.
pub(crate) struct Paced {
    body: Incoming,
    idle: Duration,
    // Made when there is something to wait for.
    sleep: Option<Pin<Box<Sleep>>>,
    /// There until it has come to its end.
    upload: Option<Upload>,
}

impl Paced {
    pub(crate) fn new(body: Incoming, idle: Duration, activity: &Arc<Mutex<Activity>>) -> Self {
        let upload = (!body.is_end_stream()).then(|| Upload::begin(activity));
        Self { body, idle, sleep: None, upload }
    }
}

/// A body that is on its way.
struct Upload(Arc<Mutex<Activity>>);

impl Upload {
    fn begin(activity: &Arc<Mutex<Activity>>) -> Self {
        activity.lock().upload(true);
        Self(Arc::clone(activity))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.lock().upload(false);
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.sleep = None;
            if let (Some(Err(error)), Some(upload)) = (&frame, &this.upload)
                && is_end(error)
            {
                upload.0.lock().broke_off();
            }
            if frame.is_none() || this.body.is_end_stream() {
                this.upload = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        let idle = this.idle;
        let waits = this.sleep.get_or_insert_with(|| Box::pin(sleep(idle)));
        ready!(waits.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Idle(idle))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether a body ended because its connection did.
fn is_end(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
        }
        cause = error.source();
    }
    false
}

/// What a client is told of a body that could not be read.
pub(crate) fn body_problem(error: &(dyn Error + 'static)) -> Problem {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(Wrong(problem)) = error.downcast_ref() {
            return problem.clone();
        }
        if let Some(BodyError::Idle(_)) = error.downcast_ref() {
            return Problem::new(StatusCode::REQUEST_TIMEOUT, "timed_out", error.to_string());
        }
        cause = error.source();
    }
    Problem::new(StatusCode::BAD_REQUEST, "invalid_payload", format!("reading the body: {error}"))
}
