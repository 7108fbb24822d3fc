//! A worker over a connection that somebody else has accepted: a process elsewhere, which is not started from here.
//!
//! Its frames come over a local socket like those of a process, so its host is the same. What differs: it is held to
//! [`Bounds`], it cannot be killed but only left, and it may leave by itself. What it had in hand then does not wait for it to
//! come again where another instance can have it: it goes among the [`Leftovers`].

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use edri_events::{Descriptor, DescriptorRef, Encoding, Pattern};
use edri_protocol::{Frame, Hello, Notice, limits};
use edri_router::{Delivery, GroupRef, Reason, Router};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::calls::Admit;
use super::introduce::{Introduced, understand};

/// More than this does not come of a worker that has not been welcomed.
const UNWELCOMED_BYTES_MAX: usize = 64 << 10;

/// Looks at an event that somebody who is not trusted declares: a code and a text when it may not.
pub type MayDeclare = Box<dyn Fn(&Descriptor) -> Result<(), (Cow<'static, str>, String)> + Send + Sync>;

/// What a worker that is not trusted is held to.
pub struct Bounds {
    /// What it may send.
    pub admit: Admit,
    /// What it may declare.
    pub may_declare: MayDeclare,
    /// How many calls it may have open.
    pub calls: u32,
    /// The longest frame that is taken from it.
    pub frame_bytes: usize,
    /// How many frames in a minute may be wrong.
    pub bad_frames: u32,
}

impl std::fmt::Debug for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounds").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Introduced {
    /// A worker that has said this hello over a connection whose frames come and go through `socket`, each behind its length.
    ///
    /// # Errors
    ///
    /// A code and a text when the hello is none of a worker, or declares what it may not.
    pub fn connected(
        socket: UnixStream,
        encoding: Encoding,
        hello: Hello<'_>,
        bounds: Bounds,
    ) -> Result<Self, (Cow<'static, str>, String)> {
        let (window, sequential) = (hello.window, hello.concurrency <= 1);
        let (events, selects): (Vec<DescriptorRef>, Vec<Pattern>) =
            understand(hello).map_err(|(code, wrong)| (Cow::Borrowed(code), wrong))?;
        for event in &events {
            (bounds.may_declare)(event)?;
        }
        let bounds = Some(Box::new(bounds));
        let read = BytesMut::new();
        Ok(Self { running: None, bounds, socket, read, encoding, window, sequential, events, selects })
    }

    /// What it handles, in this order.
    #[must_use]
    pub fn selects(&self) -> Vec<String> {
        self.selects.iter().map(|pattern| pattern.as_str().to_owned()).collect()
    }

    /// Whether it has gone again, or says more than a worker does that waits for its welcome.
    pub fn is_gone(&mut self) -> bool {
        loop {
            match self.socket.try_read_buf(&mut self.read) {
                Ok(0) => return true,
                Ok(_) if self.read.len() > UNWELCOMED_BYTES_MAX => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Sends it away and says why.
    pub fn refuse(self, code: &str, message: &str) {
        let notice = Notice { code: code.into(), message: message.into(), frame: Some("hello".into()), id: None };
        let mut out = Vec::new();
        if Frame::Error(notice).encode_to_stream(self.encoding, limits::FRAME_BYTES_MAX, &mut out).is_ok() {
            // It is empty, and has room for more than this.
            let _ = self.socket.try_write(&out);
        }
    }
}

/// Events that were in the hands of workers that are gone: whichever instance has room takes them first.
#[derive(Default)]
pub struct Leftovers {
    // Held to put some in, or to take one.
    deliveries: Mutex<VecDeque<Delivery>>,
    bell: Notify,
}

impl Leftovers {
    /// Keeps these for whoever has room.
    pub fn keep(&self, group: &GroupRef, deliveries: Vec<Delivery>) {
        if !deliveries.is_empty() {
            group.hold(deliveries.len());
            self.deliveries.lock().extend(deliveries);
            self.bell.notify_one();
        }
    }

    /// The next of them, if there is one.
    pub(super) fn take(&self, group: &GroupRef) -> Option<Delivery> {
        let mut deliveries = self.deliveries.lock();
        let next = deliveries.pop_front()?;
        if !deliveries.is_empty() {
            self.bell.notify_one();
        }
        group.release(1);
        Some(next)
    }

    /// Ready once there may be some. Cancel safe.
    pub(super) async fn any(&self) {
        self.bell.notified().await;
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.lock().is_empty()
    }

    /// Gives all of them up.
    pub fn discard(&self, router: &Router, group: &GroupRef, reason: Reason, detail: &str) {
        let deliveries = std::mem::take(&mut *self.deliveries.lock());
        for delivery in deliveries {
            group.release(1);
            router.discard(group, delivery, reason, detail);
        }
    }
}

impl std::fmt::Debug for Leftovers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leftovers").field("count", &self.deliveries.lock().len()).finish_non_exhaustive()
    }
}

/// Shared by the instances of one manager.
pub type LeftoversRef = Arc<Leftovers>;
