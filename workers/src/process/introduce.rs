//! From a started process to its hello.

use std::time::Duration;

use bytes::BytesMut;
use edri_events::{DescriptorRef, Encoding, ManagerName, Pattern};
use edri_protocol::{Frame, Hello, Notice, Role, VERSION, Window, limits, split};
use edri_router::Selection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Handle;

use super::launch::{Running, ended_text, launch};
use super::options::Process;
use super::remote::Bounds;

/// How long a process that has broken the rules may take to read why.
const LAST_WORD: Duration = Duration::from_millis(100);

/// A process, or a worker elsewhere, that has said hello, and nothing was answered yet.
#[derive(Debug)]
pub struct Introduced {
    /// None of one that was not started from here.
    pub(super) running: Option<Running>,
    /// Of one that is not trusted.
    pub(super) bounds: Option<Box<Bounds>>,
    pub(super) socket: UnixStream,
    /// What was read behind the hello.
    pub(super) read: BytesMut,
    pub(super) encoding: Encoding,
    pub(super) window: Window,
    pub(super) sequential: bool,
    pub(super) events: Vec<DescriptorRef>,
    pub(super) selects: Vec<Pattern>,
}

impl Introduced {
    /// Starts a process and waits for its hello.
    ///
    /// # Errors
    ///
    /// Says in words for people why there is none.
    pub async fn launch(
        process: &Process,
        manager: &ManagerName,
        instance: usize,
        runtime: &Handle,
    ) -> Result<Self, String> {
        let (mut running, mut socket) = launch(process, manager, instance, runtime).await?;
        let limit = process.handshake_limit;
        let mut read = BytesMut::with_capacity(8 << 10);
        let frame = tokio::time::timeout(limit, first_frame(&mut socket, &mut read)).await;
        let failed = match frame {
            Ok(Ok(frame)) => match Hello::of(&frame) {
                Ok(hello) => return introduced(running, socket, read, &frame, hello).await,
                Err(wrong) => wrong,
            },
            Ok(Err(None)) => {
                let status = tokio::time::timeout(LAST_WORD, running.ended()).await;
                let how = status.map_or_else(|_| "it closed its socket".to_owned(), ended_text);
                format!("{how} before it said hello{}", running.last_words().await)
            }
            Ok(Err(Some(wrong))) => wrong,
            Err(_) => format!(
                "it did not say hello within {limit:?}: a program in another language says it through an SDK; one of \
                 edri whose `main` does other work first calls `edri::hosted` on its first line{}",
                running.last_words().await
            ),
        };
        Err(failed)
    }

    /// The events that it handles or sends.
    #[must_use]
    pub fn events(&self) -> &[DescriptorRef] {
        &self.events
    }

    /// What it handles.
    #[must_use]
    pub fn selections(&self) -> Vec<Selection> {
        let numbered = self.selects.iter().zip(0..);
        numbered.map(|(pattern, handler)| Selection { handler, ..Selection::new(pattern.clone()) }).collect()
    }

    /// Whether it handles just this, in this order.
    pub(super) fn check(&self, selects: &[String]) -> Result<(), String> {
        if self.selects.iter().map(Pattern::as_str).eq(selects.iter().map(String::as_str)) {
            return Ok(());
        }
        let theirs: Vec<_> = self.selects.iter().map(Pattern::as_str).collect();
        Err(format!(
            "it handles {theirs:?}, but its manager was started with handlers for {selects:?}: when a program has \
             changed, replace its manager; a program that hosts itself has to build the same `App` every time"
        ))
    }
}

/// The first frame's bytes; `None` as the error at the end of the stream.
async fn first_frame(socket: &mut UnixStream, read: &mut BytesMut) -> Result<bytes::Bytes, Option<String>> {
    loop {
        match split(read, limits::FRAME_BYTES_MAX) {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return Err(Some(format!("its first bytes are no hello: {error}"))),
        }
        match socket.read_buf(read).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(_) => {}
        }
    }
}

trait FromFrame<'a>: Sized {
    fn of(bytes: &'a [u8]) -> Result<Self, String>;
}

impl<'a> FromFrame<'a> for Hello<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, String> {
        match Frame::decode(bytes) {
            Ok(Frame::Hello(hello)) => Ok(hello),
            Ok(other) => Err(format!("its first frame is `{}`, where `hello` was expected", other.name())),
            Err(error) => Err(format!("its first bytes are no hello: {error}")),
        }
    }
}

async fn introduced(
    running: Running,
    mut socket: UnixStream,
    read: BytesMut,
    frame: &[u8],
    hello: Hello<'_>,
) -> Result<Introduced, String> {
    let encoding = Frame::encoding_of(frame);
    let agent = hello.agent.to_string();
    let (window, sequential) = (hello.window, hello.concurrency <= 1);
    match understand(hello) {
        Ok((events, selects)) => {
            let (running, bounds) = (Some(running), None);
            Ok(Introduced { running, bounds, socket, read, encoding, window, sequential, events, selects })
        }
        Err((code, wrong)) => {
            let notice = Notice { code: code.into(), message: wrong.as_str().into(), frame: None, id: None };
            let mut out = Vec::new();
            if Frame::Error(notice).encode_to_stream(encoding, limits::FRAME_BYTES_MAX, &mut out).is_ok() {
                // It is told as well as can be; what counts is that the manager's owner is.
                let _ = tokio::time::timeout(LAST_WORD, socket.write_all(&out)).await;
            }
            Err(format!("the hello of `{agent}` is refused: {wrong}"))
        }
    }
}

/// What a worker's hello declares.
pub(super) type Understood = (Vec<DescriptorRef>, Vec<Pattern>);

pub(super) fn understand(hello: Hello<'_>) -> Result<Understood, (&'static str, String)> {
    if hello.version != VERSION {
        let wrong = format!("it speaks version {} of the protocol, this node version {VERSION}", hello.version);
        return Err(("unsupported_version", wrong));
    }
    if hello.role != Role::Worker {
        return Err(("wrong_role", "a worker says hello with the role `worker`".to_owned()));
    }
    if hello.handlers.is_empty() {
        return Err(("wrong_handlers", "it handles no event".to_owned()));
    }
    let invalid = |error: edri_events::NameError| ("invalid_name", error.to_string());
    let events = hello.events.into_iter().map(|event| event.into_descriptor().map_err(invalid));
    let events = events.collect::<Result<_, _>>()?;
    let selects = hello.handlers.iter().map(|handler| Pattern::new(&handler.select).map_err(invalid));
    Ok((events, selects.collect::<Result<_, _>>()?))
}
