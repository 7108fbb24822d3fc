//! What a process or a client asks of its node: events it publishes, requests and opens.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use edri_events::{Body, Encoding, EventId, Headers, Kind};
use edri_protocol::{Call, Fault, Frame, Payload, Response};
use edri_router::{Relay, Relayed, RequestError};
use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use tokio::task::JoinSet;

use super::carried;
use super::fault::{self, Refused};
use super::peer::{Opener, Peer};

/// Looks at what somebody who is not trusted sends before it is sent: what it may not is refused with a code and a text.
/// It may add headers.
pub type Admit = Box<dyn Fn(Kind, &str, &mut Headers) -> Result<(), (Cow<'static, str>, String)> + Send + Sync>;

/// The open calls of one process or client.
pub struct Calls {
    relay: Relay,
    peer: Arc<Peer>,
    running: Running,
    handles: HashMap<u64, AbortHandle>,
    most: usize,
    admit: Option<Admit>,
}

/// A call and its number. A call is boxed once, where it begins.
struct Numbered(Abortable<BoxFuture<'static, ()>>, u64);

impl Future for Numbered {
    type Output = u64;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u64> {
        // One that was taken back ends too.
        ready!(self.0.poll_unpin(cx)).unwrap_or_default();
        Poll::Ready(self.1)
    }
}

/// Calls that were not over at once.
enum Running {
    /// As tasks: whoever has them need not look after them.
    Tasks(JoinSet<u64>),
    /// In the task of whoever polls them: nothing crosses threads that need not.
    Polled(FuturesUnordered<Numbered>),
}

/// What a publisher is answered.
#[derive(Serialize)]
struct Receipt {
    id: EventId,
    groups: u32,
}

impl Calls {
    pub(super) fn new(relay: Relay, peer: Arc<Peer>, most: u32, admit: Option<Admit>) -> Self {
        let running = Running::Tasks(JoinSet::new());
        Self { relay, peer, running, handles: HashMap::new(), most: most as usize, admit }
    }

    /// Calls that make progress while they are polled: see [`Calls::poll_settled`]. No more than `most` may be open.
    #[must_use]
    pub fn polled(relay: Relay, peer: Arc<Peer>, most: u32, admit: Admit) -> Self {
        let running = Running::Polled(FuturesUnordered::new());
        Self { relay, peer, running, handles: HashMap::new(), most: most as usize, admit: Some(admit) }
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        match &self.running {
            Running::Tasks(tasks) => tasks.len(),
            Running::Polled(calls) => calls.len(),
        }
    }

    /// Whether the call of this number is open.
    #[must_use]
    pub fn is_open(&self, number: u64) -> bool {
        self.handles.contains_key(&number)
    }

    /// Waits until one that lasted is over. Cancel safe.
    pub(super) async fn settled(&mut self) {
        std::future::poll_fn(|cx| self.poll_settled(cx)).await;
    }

    /// Polls the calls; ready when one that lasted is over, or none is open.
    pub fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let settled = match &mut self.running {
            Running::Tasks(tasks) => match ready!(tasks.poll_join_next(cx)) {
                Some(Ok(number)) => Some(number),
                Some(Err(_)) => return Poll::Ready(Some(())),
                None => None,
            },
            Running::Polled(calls) => ready!(calls.poll_next_unpin(cx)),
        };
        let Some(number) = settled else { return Poll::Ready(None) };
        self.handles.remove(&number);
        Poll::Ready(Some(()))
    }

    /// Ends all of them: nobody waits for their answers any more.
    pub fn abort(&mut self) {
        match &mut self.running {
            Running::Tasks(tasks) => tasks.abort_all(),
            Running::Polled(calls) => calls.clear(),
        }
        self.handles.clear();
    }

    /// Takes back a call; one that is over already is left alone.
    pub fn cancel(&mut self, number: u64) {
        if let Some(call) = self.handles.remove(&number) {
            call.abort();
            self.peer.tunnel_over(number);
            respond_error(&self.peer, number, "cancelled", "its caller waits no more");
        }
    }

    /// Publishes an event.
    pub fn publish(&mut self, call: &Call<'_>, frame: &Bytes) {
        let Some(event) = self.accept(Kind::Notification, call, frame) else { return };
        let (relay, peer, number) = (self.relay.clone(), Arc::clone(&self.peer), call.id);
        self.begin(number, async move {
            match relay.publish(event).await {
                Ok(_) if number == 0 => {}
                Ok(receipt) => {
                    let receipt = Receipt { id: receipt.id, groups: receipt.deliveries };
                    respond(&peer, number, Body::encode(peer.encoding(), &receipt).map_err(RequestError::from));
                }
                Err(error) if number == 0 => tracing::warn!(%error, "what a process published went nowhere"),
                Err(error) => refuse(&peer, number, fault::from_publish(&error)),
            }
        });
    }

    /// Asks one worker, or all.
    pub fn request(&mut self, call: &Call<'_>, frame: &Bytes) {
        let Some(event) = self.accept(Kind::Request, call, frame) else { return };
        let (relay, peer, number) = (self.relay.clone(), Arc::clone(&self.peer), call.id);
        let to = call.to.as_deref().map(str::to_owned);
        if call.all {
            self.begin(number, async move { request_all(&relay, &peer, number, event).await });
        } else {
            self.begin(number, async move {
                let outcome = relay.request(event, to.as_deref()).await;
                let encoding = peer.encoding();
                respond(&peer, number, outcome.and_then(|value| into_body(value, encoding)));
            });
        }
    }

    /// Opens a tunnel.
    pub fn open(&mut self, call: &Call<'_>, frame: &Bytes) {
        let Some(event) = self.accept(Kind::Tunnel, call, frame) else { return };
        let (relay, peer, number) = (self.relay.clone(), Arc::clone(&self.peer), call.id);
        let credit = call.credit.unwrap_or_default();
        let to = call.to.as_deref().map(str::to_owned);
        self.begin(number, async move {
            let opened = match relay.open_to(event, to.as_deref()).await {
                Ok(opened) => opened,
                Err(error) => return respond(&peer, number, Err(error)),
            };
            let (sender, receiver, outcome) = opened.split();
            peer.run_tunnel(number, Opener::There, receiver, sender, credit);
            let result = outcome.result().await;
            // What the worker sent comes before its result.
            peer.tunnel_sent(number).await;
            match result {
                Ok(body) => respond(&peer, number, body.transcode(peer.encoding()).map_err(RequestError::from)),
                Err(error) => refuse(&peer, number, fault::tunnel_refused(&error)),
            }
            peer.tunnel_over(number);
        });
    }

    /// What the call sends, unless it cannot be taken.
    fn accept(&self, kind: Kind, call: &Call<'_>, frame: &Bytes) -> Option<Relayed> {
        let refuse = |code: &str, message: &str| {
            respond_error(&self.peer, call.id, code, message);
            None
        };
        if call.id != 0 && (call.id.is_multiple_of(2) || self.handles.contains_key(&call.id)) {
            return refuse("invalid_call", "who says hello numbers its calls 1, 3, 5 …, each once");
        }
        if self.len() >= self.most {
            return refuse("overloaded", "more calls are open than the node's window allows");
        }
        let mut headers = Headers::default();
        for (name, value) in &call.headers {
            if let Err(error) = headers.insert(&**name, &**value) {
                return refuse("invalid_headers", &error.to_string());
            }
        }
        if let Some(admit) = &self.admit
            && let Err((code, message)) = admit(kind, &call.event, &mut headers)
        {
            return refuse(&code, &message);
        }
        let body = match &call.payload {
            Some(payload) => payload.to_body(frame),
            None => carried::nothing(self.peer.encoding()),
        };
        Some(Relayed {
            name: call.event.to_string(),
            body,
            id: call.event_id,
            key: call.key.as_deref().map(Into::into),
            cause: call.cause,
            trace: call.trace,
            headers,
            timeout: call.timeout_ms.map(Duration::from_millis),
        })
    }

    /// Does a call; one that is over at once needs no task.
    fn begin(&mut self, number: u64, call: impl Future<Output = ()> + Send + 'static) {
        let mut call: BoxFuture<'static, ()> = Box::pin(call);
        if (&mut call).now_or_never().is_some() {
            return;
        }
        let (handle, registration) = AbortHandle::new_pair();
        let call = Numbered(Abortable::new(call, registration), number);
        match &mut self.running {
            Running::Tasks(tasks) => drop(tasks.spawn_on(call, self.peer.runtime())),
            Running::Polled(calls) => calls.push(call),
        }
        if number != 0 {
            self.handles.insert(number, handle);
        }
    }
}

async fn request_all(relay: &Relay, peer: &Arc<Peer>, number: u64, event: Relayed) {
    let mut answers = match relay.request_all(event).await {
        Ok(answers) => answers,
        Err(error) => return respond(peer, number, Err(error)),
    };
    while let Some(edri_router::Answer { node, manager, result, .. }) = answers.next().await {
        let from = if node == *relay.node() { manager.to_string() } else { format!("{node}/{manager}") };
        let result = result.and_then(|value| into_body(value, peer.encoding()));
        let part = |response| Response { from: Some(from.as_str().into()), more: true, ..response };
        let sent = match &result {
            Ok(body) => peer.send(&Frame::Response(part(with_value(number, body)))),
            Err(error) => peer.send(&Frame::Response(part(fault::from_request(error).response(number)))),
        };
        if let Err(error) = sent {
            let refused = Refused::Error(Fault { code: error.code().into(), ..Fault::default() });
            peer.send_short(&Frame::Response(part(refused.response(number))));
        }
    }
    peer.send_short(&Frame::Response(Response { id: number, ..Response::default() }));
}

fn into_body(value: edri_events::Value, encoding: Encoding) -> Result<Body, RequestError> {
    Ok(value.into_body(encoding)?.transcode(encoding)?)
}

fn with_value(number: u64, body: &Body) -> Response<'_> {
    Response { id: number, value: Some(Payload::of(body)), ..Response::default() }
}

fn respond(peer: &Peer, number: u64, result: Result<Body, RequestError>) {
    let sent = match &result {
        Ok(body) => peer.send(&Frame::Response(with_value(number, body))),
        Err(error) => return refuse(peer, number, fault::from_request(error)),
    };
    if let Err(error) = sent {
        respond_error(peer, number, error.code(), &error.to_string());
    }
}

pub(super) fn refuse(peer: &Peer, number: u64, refused: Refused<'_>) {
    peer.send_short(&Frame::Response(refused.response(number)));
}

/// Answers a call with an error of edri.
pub fn respond_error(peer: &Peer, number: u64, code: &str, message: &str) {
    let error = Fault { code: code.into(), message: message.into(), ..Fault::default() };
    refuse(peer, number, Refused::Error(error));
}
