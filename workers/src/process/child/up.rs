//! Calls to a node over a connection: what the worker of a child, or a client, publishes, requests and opens.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use edri_events::{
    Body, CodecError, Descriptor, DescriptorRef, Encoding, Envelope, EventId, EventName, Failure, Kind, ManagerName,
    Value,
};
use edri_protocol::{Call, Cancel, Declare, EventDeclaration, Frame, Payload, Response, Text, Window};
use edri_router::{
    AnswersAbove, DeclareError, GroupName, NotNow, Offer, Outcome, OutcomeAbove, PublishError, Receipt, RequestError,
    Told, Uplink, WaitEnded,
};
use futures_util::future::BoxFuture;
use futures_util::stream::StreamExt;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::process::carried;
use crate::process::fault::{self, Refused};
use crate::process::peer::{Opener, Peer, TUNNEL_WINDOW};

/// How long after its deadline a call waits for the node's word, which says what was waited for.
const GRACE: Duration = Duration::from_millis(25);

/// The calls of a worker's process, or of a client.
pub struct Up {
    inner: Arc<Inner>,
}

struct Inner {
    peer: Arc<Peer>,
    manager: ManagerName,
    runtime: Handle,
    // Held to make a call or to find one.
    calls: Mutex<Calls>,
    room: Notify,
    /// Whether the node is told of events before they are used.
    declares: bool,
    // Held for a look-up.
    known: Mutex<HashMap<String, Known>>,
}

struct Calls {
    open: HashMap<u64, Open>,
    next: u64,
    bytes: u64,
    window: Window,
    lost: bool,
}

/// A call that was not answered.
struct Open {
    event: EventName,
    bytes: u64,
    caller: Caller,
}

enum Caller {
    Publisher(EventId, oneshot::Sender<Result<Receipt, PublishError>>),
    Requester(oneshot::Sender<Outcome>),
    Everybody(Arc<Answers>),
    /// It was not waited for, or is not any more. It takes its place in the window until it is answered.
    Nobody,
}

/// What the node was told of an event.
enum Known {
    Declared(DescriptorRef),
    /// Nothing: a name that an untyped verb used, of which the node may know.
    Named(DescriptorRef),
}

/// Answers of several managers to one request.
#[derive(Default)]
struct Answers {
    state: Mutex<AnswersState>,
}

#[derive(Default)]
struct AnswersState {
    come: VecDeque<(GroupName, Outcome)>,
    /// The last word: an error when nobody was asked.
    end: Option<Result<(), RequestError>>,
    waker: Option<Waker>,
}

/// The value of a `publish` that a node has answered.
#[derive(Deserialize)]
struct Published {
    id: EventId,
    #[serde(default)]
    groups: u32,
}

/// What a call says beside its event.
#[derive(Default)]
struct Asked<'a> {
    to: Option<&'a str>,
    all: bool,
    tunnel: Option<Box<dyn Offer>>,
}

impl Up {
    pub(super) fn new(
        peer: Arc<Peer>,
        manager: ManagerName,
        window: Window,
        runtime: Handle,
        declared: &[DescriptorRef],
    ) -> Arc<Self> {
        let known = declared.iter().map(|event| (event.name().to_string(), Known::Declared(event.clone())));
        let calls = Calls { open: HashMap::new(), next: 1, bytes: 0, window, lost: false };
        Arc::new(Self {
            inner: Arc::new(Inner {
                peer,
                manager,
                runtime,
                calls: Mutex::new(calls),
                room: Notify::new(),
                declares: true,
                known: Mutex::new(known.collect()),
            }),
        })
    }

    /// The calls of a client, whose node knows all events that it may use.
    #[must_use]
    pub fn of_client(peer: Arc<Peer>, name: ManagerName, window: Window, runtime: Handle) -> Arc<Self> {
        let calls = Calls { open: HashMap::new(), next: 1, bytes: 0, window, lost: false };
        Arc::new(Self {
            inner: Arc::new(Inner {
                peer,
                manager: name,
                runtime,
                calls: Mutex::new(calls),
                room: Notify::new(),
                declares: false,
                known: Mutex::default(),
            }),
        })
    }

    /// Where calls are written.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.inner.peer
    }

    /// Sends something that takes a number of a call, in the order of numbers.
    pub fn with_number<T>(&self, send: impl FnOnce(u64) -> T) -> T {
        let mut calls = self.inner.calls.lock();
        let number = calls.next;
        calls.next += 2;
        send(number)
    }

    /// The node's window has changed.
    pub fn set_window(&self, window: Window) {
        self.inner.calls.lock().window = window;
        self.inner.room.notify_waiters();
    }

    /// A response came.
    pub fn response(&self, mut response: Response<'_>, frame: &Bytes) {
        let id = response.id;
        if response.more {
            let asked = match self.inner.calls.lock().open.get(&id) {
                Some(Open { event, caller: Caller::Everybody(answers), .. }) => {
                    Some((event.clone(), Arc::clone(answers)))
                }
                _ => None,
            };
            if let Some((event, answers)) = asked {
                let from = response.from.take().and_then(|from| from.parse().ok());
                match from {
                    Some(from) => answers.come(from, outcome_of(response, frame, &event, self.inner.peer.encoding())),
                    None => tracing::warn!(id, "an answer to a request of all does not say who it is from"),
                }
            }
            return;
        }
        let Some(Open { event, caller, .. }) = self.inner.take(id) else {
            return self.inner.peer.object("unknown_call", "no call of this number is open", "response", Some(id));
        };
        let encoding = self.inner.peer.encoding();
        match caller {
            Caller::Publisher(event_id, tell) => {
                let receipt = match response.value.take() {
                    Some(value) => match value.to_body(frame).decode::<Published>() {
                        Ok(Published { id, groups }) => Ok(Receipt::new(id, groups)),
                        Err(source) => Err(PublishError::Payload { event, source }),
                    },
                    None => match Refused::of(response) {
                        Some(refused) => Err(fault::to_publish(refused, &event, event_id)),
                        None => Ok(Receipt::new(event_id, 0)),
                    },
                };
                // Whoever published may have stopped waiting.
                let _ = tell.send(receipt);
            }
            Caller::Requester(tell) => {
                // In this order: who finds the tunnel over finds the outcome too.
                let _ = tell.send(outcome_of(response, frame, &event, encoding));
                self.inner.peer.tunnel_over(id);
            }
            Caller::Everybody(answers) => {
                answers.end(outcome_of(response, frame, &event, encoding).map(|_| ()));
            }
            Caller::Nobody => self.inner.peer.tunnel_over(id),
        }
    }

    /// A call has succeeded without a value.
    pub(super) fn acked(&self, id: u64, frame: &Bytes) {
        self.response(Response { id, ..Response::default() }, frame);
    }

    /// The node says that a call of this number is wrong.
    pub fn refused(&self, id: u64, code: &str, message: &str) {
        if let Some(open) = self.inner.take(id) {
            open.caller.fail(&open.event, Told::error(code, message));
            self.inner.peer.tunnel_over(id);
        }
    }

    /// The node is gone.
    pub fn lost(&self) {
        let open = {
            let mut calls = self.inner.calls.lock();
            calls.lost = true;
            std::mem::take(&mut calls.open)
        };
        for call in open.into_values() {
            call.caller.fail(&call.event, Told::error("peer_lost", GONE));
        }
        self.inner.room.notify_waiters();
    }
}

const GONE: &str = "the node is gone";

fn gone() -> Failure {
    Failure::new("peer_lost", GONE)
}

fn outcome_of(response: Response<'_>, frame: &Bytes, event: &EventName, encoding: Encoding) -> Outcome {
    if let Some(value) = &response.value {
        return Ok(Value::from(value.to_body(frame)));
    }
    match Refused::of(response) {
        Some(refused) => Err(fault::to_request(refused, event)),
        None => Ok(Value::from(carried::nothing(encoding))),
    }
}

impl Caller {
    fn fail(self, event: &EventName, told: Told) {
        tracing::debug!(%event, %told, "a call was not answered");
        match self {
            Self::Publisher(id, tell) => drop(tell.send(Err(PublishError::from_told(told, event, id)))),
            Self::Requester(tell) => drop(tell.send(Err(RequestError::from_told(told, event)))),
            Self::Everybody(answers) => answers.end(Err(RequestError::from_told(told, event))),
            Self::Nobody => {}
        }
    }
}

impl Calls {
    /// Whether the node takes one more of so many bytes; one larger than its window is made alone.
    fn has_room(&self, bytes: u64) -> bool {
        let fits = self.bytes == 0 || self.bytes.saturating_add(bytes) <= self.window.bytes;
        self.lost || (self.open.len() < self.window.calls as usize && fits)
    }
}

impl Inner {
    fn take(&self, id: u64) -> Option<Open> {
        let open = {
            let mut calls = self.calls.lock();
            let open = calls.open.remove(&id)?;
            calls.bytes -= open.bytes;
            open
        };
        self.room.notify_one();
        Some(open)
    }

    /// Makes a call if the node has room for it; otherwise the caller comes back.
    fn try_call(
        self: &Arc<Self>,
        envelope: &Envelope,
        body: &Body,
        asked: &mut Asked<'_>,
        caller: Caller,
    ) -> Result<Result<u64, CodecError>, Caller> {
        let bytes = body.bytes.len() as u64;
        let mut calls = self.calls.lock();
        if !calls.has_room(bytes) {
            return Err(caller);
        }
        let event = envelope.name().clone();
        if calls.lost {
            drop(calls);
            caller.fail(&event, Told::error("peer_lost", GONE));
            return Ok(Ok(0));
        }
        let id = calls.next;
        let tunnel = asked.tunnel.take();
        let call = Call { credit: tunnel.is_some().then_some(TUNNEL_WINDOW), ..call_of(id, envelope, body, asked) };
        let frame = match envelope.head().descriptor.kind() {
            Kind::Notification => Frame::Publish(call),
            Kind::Request => Frame::Request(call),
            Kind::Tunnel => Frame::Open(call),
        };
        if let Some(offer) = tunnel {
            // Before the node can answer.
            let (receiver, sender) = offer.into_untyped();
            self.peer.run_tunnel(id, Opener::Here, receiver, sender, edri_protocol::Grant::default());
        }
        // Under the lock, so that numbers grow on the wire too.
        if let Err(error) = self.peer.send(&frame) {
            self.peer.tunnel_over(id);
            return Ok(Err(CodecError::Elsewhere(error.to_string())));
        }
        calls.next += 2;
        calls.bytes += bytes;
        calls.open.insert(id, Open { event, bytes, caller });
        drop(calls);
        Ok(Ok(id))
    }

    /// Makes a call once the node has room for it. Dropping what comes back takes the call back.
    async fn call(
        self: &Arc<Self>,
        envelope: &Envelope,
        mut asked: Asked<'_>,
        mut caller: Caller,
    ) -> Result<Placed, CodecError> {
        let body = envelope.body(self.peer.encoding())?.transcode(self.peer.encoding())?;
        let mut waited = false;
        loop {
            let room = self.room.notified();
            match self.try_call(envelope, &body, &mut asked, caller) {
                Ok(placed) => {
                    if waited {
                        // There was one notice for room that may take several.
                        self.room.notify_one();
                    }
                    return placed.map(|id| Placed { up: Arc::clone(self), id });
                }
                Err(back) => caller = back,
            }
            room.await;
            waited = true;
        }
    }

    /// Tells the node of an event that it has not been told of.
    fn declare(&self, event: &DescriptorRef) -> Result<(), DeclareError> {
        let mut known = self.known.lock();
        match known.get(&**event.name()) {
            Some(Known::Declared(declared)) => return event.compatible(declared).map_err(DeclareError::from),
            Some(Known::Named(named)) if named.same(event) => return Ok(()),
            _ => {}
        }
        if !self.declares {
            known.insert(event.name().to_string(), Known::Declared(event.clone()));
            return Ok(());
        }
        let declare = Declare { events: vec![EventDeclaration::of(event)] };
        let elsewhere = |error: edri_protocol::FrameError| DeclareError::Elsewhere {
            code: "overloaded",
            message: error.to_string(),
        };
        self.peer.send(&Frame::Declare(declare)).map_err(elsewhere)?;
        known.insert(event.name().to_string(), Known::Declared(event.clone()));
        Ok(())
    }

    fn sleep_until(&self, instant: Instant) -> tokio::time::Sleep {
        let _runtime = self.runtime.enter();
        tokio::time::sleep_until(instant.into())
    }
}

fn call_of<'a>(id: u64, envelope: &'a Envelope, body: &'a Body, asked: &Asked<'a>) -> Call<'a> {
    let head = envelope.head();
    let headers = head.headers().into_iter().flat_map(|headers| headers.iter());
    Call {
        id,
        event: Text::from(&**head.descriptor.name()),
        payload: Some(Payload::of(body)),
        event_id: Some(head.id),
        key: head.key().map(Text::from),
        cause: head.cause,
        timeout_ms: head.deadline.map(|deadline| carried::left_ms(deadline, Instant::now())),
        trace: head.trace,
        headers: headers.map(|(name, value)| (Text::from(name), Text::from(value))).collect(),
        to: asked.to.map(Text::from),
        all: asked.all,
        ..Call::default()
    }
}

/// A call that was made. Dropped before its answer has come, it is taken back.
struct Placed {
    up: Arc<Inner>,
    id: u64,
}

impl Drop for Placed {
    fn drop(&mut self) {
        let open = match self.up.calls.lock().open.get_mut(&self.id) {
            // Its place in the window is free once the node has answered.
            Some(open) => std::mem::replace(&mut open.caller, Caller::Nobody),
            None => return,
        };
        if !matches!(open, Caller::Nobody) {
            self.up.peer.send_short(&Frame::Cancel(Cancel { id: self.id }));
        }
    }
}

impl Answers {
    fn come(&self, from: GroupName, outcome: Outcome) {
        let mut state = self.state.lock();
        state.come.push_back((from, outcome));
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    fn end(&self, end: Result<(), RequestError>) {
        let mut state = self.state.lock();
        state.end = Some(end);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The next answer; `None` after the last. An error says that nobody was asked.
    async fn next(&self) -> Result<Option<(GroupName, Outcome)>, RequestError> {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if let Some(answer) = state.come.pop_front() {
                return Poll::Ready(Ok(Some(answer)));
            }
            match state.end.take() {
                Some(Ok(())) => {
                    state.end = Some(Ok(()));
                    Poll::Ready(Ok(None))
                }
                Some(Err(error)) => {
                    state.end = Some(Ok(()));
                    Poll::Ready(Err(error))
                }
                None => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

fn waited(began: Instant) -> Box<WaitEnded> {
    Box::new(WaitEnded::new(began.elapsed(), Vec::new(), Vec::new()))
}

impl Inner {
    /// Asks one worker: first the request is made, then its outcome awaited.
    async fn ask(self: Arc<Self>, envelope: Envelope, to: Option<String>) -> Outcome {
        let began = Instant::now();
        let deadline = envelope.head().deadline;
        let (tell, told) = oneshot::channel();
        let asked = Asked { to: to.as_deref(), ..Asked::default() };
        self.declare(&envelope.head().descriptor)?;
        let placed = match until(&self, deadline, self.call(&envelope, asked, Caller::Requester(tell))).await {
            Some(placed) => placed?,
            None => return Err(RequestError::Overloaded(waited(began))),
        };
        let outcome = until(&self, deadline.map(|deadline| deadline + GRACE), told).await;
        drop(placed);
        match outcome {
            Some(outcome) => outcome.unwrap_or_else(|_| Err(RequestError::PeerLost(GONE.to_owned()))),
            None => Err(RequestError::TimedOut(waited(began))),
        }
    }

    async fn publish(self: Arc<Self>, envelopes: Vec<Envelope>, limit: Instant) -> Result<Receipt, PublishError> {
        let began = Instant::now();
        let mut sent = Vec::with_capacity(envelopes.len());
        let mut receipt = Receipt::new(envelopes.first().map_or_else(EventId::next, |envelope| envelope.id()), 0);
        for envelope in &envelopes {
            self.declare(&envelope.head().descriptor)?;
            let event = envelope.name().clone();
            let (tell, told) = oneshot::channel();
            let caller = Caller::Publisher(envelope.id(), tell);
            match until(&self, Some(limit), self.call(envelope, Asked::default(), caller)).await {
                Some(Ok(placed)) => sent.push((placed, event, told)),
                Some(Err(source)) => return Err(PublishError::Payload { event, source }),
                None => return Err(PublishError::Overloaded { event, wait: waited(began), receipt }),
            }
        }
        for (placed, event, told) in sent {
            let published = until(&self, Some(limit + GRACE), told).await;
            drop(placed);
            match published {
                Some(Ok(Ok(one))) => receipt.deliveries += one.deliveries,
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(_)) => return Err(PublishError::Elsewhere(gone())),
                None => return Err(PublishError::Overloaded { event, wait: waited(began), receipt }),
            }
        }
        Ok(receipt)
    }

    async fn ask_all(self: Arc<Self>, envelope: Envelope) -> Result<AnswersAbove, RequestError> {
        let began = Instant::now();
        let deadline = envelope.head().deadline;
        let answers = Arc::new(Answers::default());
        self.declare(&envelope.head().descriptor)?;
        let asked = Asked { all: true, ..Asked::default() };
        let call = self.call(&envelope, asked, Caller::Everybody(Arc::clone(&answers)));
        let placed = match until(&self, deadline, call).await {
            Some(placed) => placed?,
            None => return Err(RequestError::Overloaded(waited(began))),
        };
        let over = deadline.map(|deadline| deadline + GRACE);
        let first =
            until(&self, over, answers.next()).await.unwrap_or_else(|| Err(RequestError::TimedOut(waited(began))))?;
        let state = (self, placed, answers);
        let others = futures_util::stream::unfold(state, move |(up, placed, answers)| async move {
            let next = until(&up, over, answers.next()).await.and_then(Result::ok).flatten();
            next.map(|answer| (answer, (up, placed, answers)))
        });
        Ok(futures_util::stream::iter(first).chain(others).boxed())
    }

    async fn open(
        self: Arc<Self>,
        envelope: Envelope,
        offer: Box<dyn Offer>,
        to: Option<String>,
    ) -> Result<OutcomeAbove, RequestError> {
        let (tell, mut told) = oneshot::channel();
        self.declare(&envelope.head().descriptor)?;
        let asked = Asked { to: to.as_deref(), tunnel: Some(offer), ..Asked::default() };
        let placed = self.call(&envelope, asked, Caller::Requester(tell)).await?;
        let lost = |_| Err(RequestError::PeerLost(GONE.to_owned()));
        let early = tokio::select! {
            biased;
            outcome = &mut told => Some(outcome.unwrap_or_else(lost)),
            () = self.peer.tunnel_taken(placed.id) => told.try_recv().ok(),
        };
        if let Some(outcome) = early {
            // Refused before a worker had it, or over already.
            return match outcome {
                Err(error) if !matches!(error, RequestError::Failed(_)) => Err(error),
                outcome => Ok(Box::pin(std::future::ready(outcome))),
            };
        }
        Ok(Box::pin(async move {
            let outcome = told.await.unwrap_or_else(lost);
            drop(placed);
            outcome
        }))
    }
}

/// Runs `future` until `limit`, if there is one.
async fn until<F: Future>(up: &Inner, limit: Option<Instant>, future: F) -> Option<F::Output> {
    let Some(limit) = limit else { return Some(future.await) };
    let mut timer = std::pin::pin!(up.sleep_until(limit));
    tokio::select! {
        biased;
        output = future => Some(output),
        () = &mut timer => None,
    }
}

impl Uplink for Up {
    fn declare(&self, event: &DescriptorRef) -> Result<(), DeclareError> {
        self.inner.declare(event)
    }

    fn descriptor(&self, name: &str, kind: Kind) -> Result<DescriptorRef, DeclareError> {
        let mut known = self.inner.known.lock();
        if let Some(Known::Declared(event) | Known::Named(event)) = known.get(name) {
            return Ok(event.clone());
        }
        let event = Descriptor::declare(name, kind)?.build();
        known.insert(name.to_owned(), Known::Named(event.clone()));
        Ok(event)
    }

    fn publish(&self, envelopes: Vec<Envelope>, limit: Instant) -> BoxFuture<'static, Result<Receipt, PublishError>> {
        Box::pin(Arc::clone(&self.inner).publish(envelopes, limit))
    }

    fn try_publish(&self, envelope: Envelope) -> Result<Receipt, NotNow> {
        let refused = |error: PublishError| NotNow::Refused(error);
        let encoding = self.inner.peer.encoding();
        self.inner.declare(&envelope.head().descriptor).map_err(|error| refused(error.into()))?;
        let invalid = |source| refused(PublishError::Payload { event: envelope.name().clone(), source });
        let body = envelope.body(encoding).and_then(|body| body.transcode(encoding)).map_err(invalid)?;
        match self.inner.try_call(&envelope, &body, &mut Asked::default(), Caller::Nobody) {
            Ok(Ok(0)) => Err(refused(PublishError::Elsewhere(gone()))),
            Ok(Ok(_)) => Ok(Receipt::new(envelope.id(), 0)),
            Ok(Err(source)) => Err(invalid(source)),
            Err(_) => Err(NotNow::Full(GroupName::Manager(self.inner.manager.clone()))),
        }
    }

    fn request(&self, envelope: Envelope, to: Option<&str>) -> OutcomeAbove {
        Box::pin(Arc::clone(&self.inner).ask(envelope, to.map(str::to_owned)))
    }

    fn request_all(&self, envelope: Envelope) -> BoxFuture<'static, Result<AnswersAbove, RequestError>> {
        Box::pin(Arc::clone(&self.inner).ask_all(envelope))
    }

    fn open(
        &self,
        envelope: Envelope,
        offer: Box<dyn Offer>,
        to: Option<&str>,
    ) -> BoxFuture<'static, Result<OutcomeAbove, RequestError>> {
        Box::pin(Arc::clone(&self.inner).open(envelope, offer, to.map(str::to_owned)))
    }
}

impl std::fmt::Debug for Up {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Up").field("peer", &self.inner.peer).finish_non_exhaustive()
    }
}
