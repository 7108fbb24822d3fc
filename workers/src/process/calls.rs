//! What a process asks of its node: events it publishes, requests and opens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edri_events::{Body, Encoding, EventId, Headers};
use edri_protocol::{Call, Fault, Frame, Payload, Response};
use edri_router::{Relay, Relayed, RequestError};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::task::{AbortHandle, JoinSet};

use super::carried;
use super::fault::{self, Refused};
use super::peer::{Opener, Peer};

/// The open calls of one process.
pub(super) struct Calls {
    relay: Relay,
    peer: Arc<Peer>,
    tasks: JoinSet<u64>,
    handles: HashMap<u64, AbortHandle>,
    most: usize,
}

/// What a publisher is answered.
#[derive(Serialize)]
struct Receipt {
    id: EventId,
    groups: u32,
}

impl Calls {
    pub(super) fn new(relay: Relay, peer: Arc<Peer>, most: u32) -> Self {
        Self { relay, peer, tasks: JoinSet::new(), handles: HashMap::new(), most: most as usize }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits until one that lasted is over. Cancel safe.
    pub(super) async fn settled(&mut self) {
        if let Some(Ok(number)) = self.tasks.join_next().await {
            self.handles.remove(&number);
        }
    }

    /// Ends all of them: nobody waits for their answers any more.
    pub(super) fn abort(&mut self) {
        self.tasks.abort_all();
        self.handles.clear();
    }

    pub(super) fn cancel(&mut self, number: u64) {
        if let Some(call) = self.handles.remove(&number) {
            call.abort();
            self.peer.tunnel_over(number);
            respond_error(&self.peer, number, "cancelled", "its caller waits no more");
        }
    }

    pub(super) fn publish(&mut self, call: &Call<'_>, frame: &Bytes) {
        let Some(event) = self.accept(call, frame) else { return };
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

    pub(super) fn request(&mut self, call: &Call<'_>, frame: &Bytes) {
        let Some(event) = self.accept(call, frame) else { return };
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

    pub(super) fn open(&mut self, call: &Call<'_>, frame: &Bytes) {
        let Some(event) = self.accept(call, frame) else { return };
        let (relay, peer, number) = (self.relay.clone(), Arc::clone(&self.peer), call.id);
        let credit = call.credit.unwrap_or_default();
        self.begin(number, async move {
            let opened = match relay.open(event).await {
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
    fn accept(&self, call: &Call<'_>, frame: &Bytes) -> Option<Relayed> {
        let refuse = |code: &str, message: &str| {
            respond_error(&self.peer, call.id, code, message);
            None
        };
        if call.id != 0 && (call.id.is_multiple_of(2) || self.handles.contains_key(&call.id)) {
            return refuse("invalid_call", "a worker numbers its calls 1, 3, 5 …, each once");
        }
        if self.tasks.len() >= self.most {
            return refuse("overloaded", "the worker has more calls open than its node's window allows");
        }
        let mut headers = Headers::default();
        for (name, value) in &call.headers {
            if let Err(error) = headers.insert(&**name, &**value) {
                return refuse("invalid_headers", &error.to_string());
            }
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
        let handle = self.tasks.spawn_on(
            async move {
                call.await;
                number
            },
            self.peer.runtime(),
        );
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

fn refuse(peer: &Peer, number: u64, refused: Refused<'_>) {
    peer.send_short(&Frame::Response(refused.response(number)));
}

fn respond_error(peer: &Peer, number: u64, code: &str, message: &str) {
    let error = Fault { code: code.into(), message: message.into(), ..Fault::default() };
    refuse(peer, number, Refused::Error(error));
}
