//! The bare child: reads frames, decodes payloads, answers; nothing else. It says hello and bye as the protocol asks, so a
//! node can have it for a worker too.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use edri::Encoding;
use edri_events::DescriptorRef;
use edri_protocol::{
    Ack, Bye, EventDeclaration, Frame, Handler, Hello, Payload, Pong, Ready, Response, Role, VERSION, Window,
};
use serde::Deserialize;

use super::link::Link;
use crate::Result;
use crate::event::{Blob, BlobAsk};

/// Set for a process that is to be one.
pub(super) const MARK: &str = "EDRI_BENCH_BARE";

/// Whether this process is a bare child.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os(MARK).is_some()
}

/// The fields of both events, in place.
#[derive(Deserialize)]
struct Fields<'a> {
    number: u64,
    #[serde(borrow)]
    data: &'a [u8],
}

/// Answers until it is told to end.
pub(crate) fn run() -> Result<()> {
    let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut link = Link::new(stream);
    let events = [DescriptorRef::of::<BlobAsk>(), DescriptorRef::of::<Blob>()];
    link.push(&Frame::Hello(Hello {
        version: VERSION,
        role: Role::Worker,
        agent: "bare".into(),
        events: events.iter().map(|event| EventDeclaration::of(event)).collect(),
        handlers: events.iter().map(|event| Handler { select: event.name().as_str().into() }).collect(),
        window: Window::default(),
        concurrency: 1,
        manager: None,
        token: None,
        session: None,
    }))?;
    link.flush()?;
    let (mut answer, mut done) = (Vec::new(), Vec::new());
    while link.fill()? {
        while let Some(frame) = link.next() {
            match Frame::decode(link.bytes(frame))? {
                Frame::Request(call) => {
                    let payload = call.payload.as_ref().ok_or("a request without a payload")?;
                    let fields: Fields<'_> = rmp_serde::from_slice(payload.bytes())?;
                    answer.clear();
                    rmp_serde::encode::write_named(&mut answer, &work(&fields))?;
                    let value = Some(Payload::new(Encoding::MessagePack, &answer));
                    let id = call.id;
                    link.push(&Frame::Response(Response { id, value, ..Response::default() }))?;
                }
                Frame::Publish(call) => {
                    let payload = call.payload.as_ref().ok_or("a notification without a payload")?;
                    std::hint::black_box(work(&rmp_serde::from_slice(payload.bytes())?));
                    done.push(call.id);
                }
                Frame::Ping(ping) => link.push(&Frame::Pong(Pong { id: ping.id }))?,
                Frame::Welcome(_) => link.push(&Frame::Ready(Ready {}))?,
                Frame::Bye(_) => {
                    link.push(&Frame::Bye(Bye::default()))?;
                    return link.flush();
                }
                other => return Err(format!("a bare child was sent `{}`", other.name()).into()),
            }
        }
        if !done.is_empty() {
            link.push(&Frame::Ack(Ack { done: std::mem::take(&mut done), begun: None, received: None }))?;
        }
        link.flush()?;
    }
    Ok(())
}

fn work(fields: &Fields<'_>) -> u64 {
    fields.number.wrapping_add(fields.data.len() as u64)
}
