//! All sessions of a gateway: how many there may be, and those that can be gone on with.

use std::collections::HashMap;
use std::sync::Arc;

use edri_events::Encoding;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::socket::Socket;
use crate::Caller;
use crate::ending::Ending;

/// A client's place among the WebSockets.
pub(super) type Place = OwnedSemaphorePermit;

/// What a client says of the session that it wants.
#[derive(Debug)]
pub(super) struct Asked {
    /// One that it had.
    pub(super) id: Option<String>,
    pub(super) received: u64,
}

/// A socket that came for a session and cannot go on with it, and what ends who has it.
pub(super) type Back = (Socket, Option<Ending>);

/// A socket for a session that is gone on with. It comes back when the session cannot be.
pub(super) struct Resumed {
    pub(super) socket: Socket,
    pub(super) received: u64,
    /// Who comes: of the same name, with a token of now.
    pub(super) caller: Caller,
    pub(super) ending: Option<Ending>,
    pub(super) answer: oneshot::Sender<Result<(), Back>>,
}

/// Whether sessions go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    /// What is open is finished.
    Leaving,
    /// All ends at once.
    Over,
}

pub(crate) struct Sessions {
    most: u32,
    places: Arc<Semaphore>,
    // Held to add, find or remove one.
    kept: Mutex<HashMap<String, Kept>>,
    phase: watch::Sender<Phase>,
}

/// A session that can be gone on with, by those who know its id and are who began it.
struct Kept {
    caller: Option<String>,
    encoding: Encoding,
    resume: mpsc::Sender<Resumed>,
}

impl Sessions {
    pub(crate) fn new(most: usize) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32);
        let places = Arc::new(Semaphore::new(most as usize));
        Self { most, places, kept: Mutex::default(), phase: watch::Sender::new(Phase::Running) }
    }

    /// A place, if there is one.
    pub(super) fn place(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Asks all sessions to finish what is open, and waits until they have ended. Cancel safe.
    pub(crate) async fn leave(&self) {
        self.phase.send_replace(Phase::Leaving);
        // All places are free once nobody has one.
        let _ = self.places.acquire_many(self.most).await;
    }

    /// Ends all sessions at once.
    pub(crate) fn end(&self) {
        self.phase.send_replace(Phase::Over);
    }

    /// Ready once sessions are to leave. Cancel safe.
    pub(super) async fn stopping(&self) {
        self.reached(Phase::Leaving).await;
    }

    /// Ready once sessions are to end at once. Cancel safe.
    pub(super) async fn over(&self) {
        self.reached(Phase::Over).await;
    }

    async fn reached(&self, phase: Phase) {
        // The sender lives as long as this.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Names a new session that can be gone on with.
    pub(super) fn keep(
        self: &Arc<Self>,
        caller: &Caller,
        encoding: Encoding,
    ) -> Result<(Registered, mpsc::Receiver<Resumed>), getrandom::Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let id = format!("{:032x}", u128::from_be_bytes(random));
        let (resume, resumed) = mpsc::channel(1);
        let kept = Kept { caller: caller.name().map(str::to_owned), encoding, resume };
        self.kept.lock().insert(id.clone(), kept);
        Ok((Registered { sessions: Arc::clone(self), id }, resumed))
    }

    /// Hands a socket to the session that it is for; it comes back when there is no such session.
    pub(super) async fn resume(
        &self,
        caller: &Caller,
        ending: Option<Ending>,
        asked: Asked,
        socket: Socket,
    ) -> Result<(), Back> {
        let Some(id) = asked.id else { return Err((socket, ending)) };
        let resume = match self.kept.lock().get(&id) {
            Some(kept) if kept.caller.as_deref() == caller.name() && kept.encoding == socket.encoding() => {
                kept.resume.clone()
            }
            _ => return Err((socket, ending)),
        };
        let (answer, answered) = oneshot::channel();
        let resumed = Resumed { socket, received: asked.received, caller: caller.clone(), ending, answer };
        match resume.send(resumed).await {
            // A session that ends meanwhile drops the socket: the client comes again.
            Ok(()) => answered.await.unwrap_or(Ok(())),
            Err(back) => Err((back.0.socket, back.0.ending)),
        }
    }
}

/// A session's name, which is forgotten with it.
pub(super) struct Registered {
    sessions: Arc<Sessions>,
    pub(super) id: String,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.sessions.kept.lock().remove(&self.id);
    }
}
