//! The gateway's WebSocket: with a bare client that knows only the protocol, with edri's own, and with strangers.

mod calls;
mod client;
mod history;
mod misuse;
mod permissions;
mod sessions;
pub(crate) mod socket;
mod strangers;
mod subscriptions;
mod tls;
mod tunnels;

use std::sync::atomic::{AtomicU64, Ordering};

use edri::Node;
use edri::prelude::*;

/// A text goes up, and comes down in capitals.
#[event(tunnel, name = "api.upper", up = String, down = String, result = u64, expose)]
pub(crate) struct Upper {}

/// Numbers come down, as fast as they are read.
#[event(tunnel, name = "api.counted", up = u64, down = u64, result = u64, expose)]
pub(crate) struct Counted {
    until: u64,
}

/// Answered with its number at once; whoever asks may be without a network for long.
#[event(request, name = "api.numbered", response = u64, timeout = "20s", expose)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
}

/// A numbered event of a feed.
#[event(notification, name = "api.feed.tick", key = topic, expose)]
#[derive(Debug)]
pub(crate) struct Tick {
    pub(crate) topic: String,
    pub(crate) number: u64,
}

/// A notification that nobody outside may have.
#[event(notification, name = "api.feed.whisper")]
pub(crate) struct Whisper {}

pub(crate) fn tick(number: u64) -> Tick {
    Tick { topic: "all".to_owned(), number }
}

struct Streams;

/// How far the last [`Counted`] has come.
static COUNTED: AtomicU64 = AtomicU64::new(0);

impl Worker for Streams {}

impl Handle<Upper> for Streams {
    async fn handle(&mut self, _: &Upper, cx: &mut Context) -> Result<u64, Failure> {
        let mut tunnel = cx.accept::<Upper>()?;
        let mut count = 0;
        while let Some(text) = tunnel.recv().await? {
            tunnel.send(text.to_uppercase()).await?;
            count += 1;
        }
        Ok(count)
    }
}

impl Handle<Numbered> for Streams {
    async fn handle(&mut self, numbered: &Numbered, _: &mut Context) -> Result<u64, Failure> {
        Ok(numbered.number)
    }
}

impl Handle<Counted> for Streams {
    async fn handle(&mut self, counted: &Counted, cx: &mut Context) -> Result<u64, Failure> {
        let mut tunnel = cx.accept::<Counted>()?;
        for number in 0..counted.until {
            tunnel.send(number).await?;
            COUNTED.store(number + 1, Ordering::Relaxed);
        }
        Ok(counted.until)
    }
}

/// A node with the model, tunnels and a gateway.
pub(crate) async fn node(api: Api) -> Node {
    let model = Manager::new("model").worker(|| super::Model).handles::<super::AssessRisk>();
    let streams =
        Manager::new("streams").worker(|| Streams).handles::<Upper>().handles::<Counted>().handles::<Numbered>();
    let node = App::new("gate").manager(model).manager(streams).api(api).start().await.expect("starts");
    // What is published only from outside is declared by nobody else.
    node.bus().declare(edri::DescriptorRef::of::<Tick>()).await.expect("declared");
    node.bus().declare(edri::DescriptorRef::of::<Whisper>()).await.expect("declared");
    node
}
