//! A node that says what a test says.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::thread::JoinHandle;

use edri_events::Event;
use edri_protocol::{Ack, Payload, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

/// A node that says what it is told to say.
pub(super) struct Node {
    pub(super) stream: StdStream,
    pub(super) read: BytesMut,
    pub(super) worker: Option<JoinHandle<i32>>,
    pub(super) back: VecDeque<Frame<'static>>,
    pub(super) done: Vec<u64>,
    pub(super) begun: u64,
    pub(super) next: u64,
}

pub(super) fn body<T: Serialize>(value: &T) -> Vec<u8> {
    Encoding::MessagePack.encode(value).expect("encodes").to_vec()
}

pub(super) fn value<T: DeserializeOwned>(response: &Response<'_>) -> T {
    let value = response.value.as_ref().unwrap_or_else(|| panic!("no value: {response:?}"));
    Encoding::MessagePack.decode(value.bytes()).expect("decodes")
}

pub(super) const WINDOW: Window = Window { calls: 4, bytes: 1 << 20 };

impl Node {
    /// Up to where the worker has said hello.
    pub(super) fn met(hosted: Hosted) -> (Self, Hello<'static>) {
        let (stream, its) = StdStream::pair().expect("a socket pair");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let worker = std::thread::spawn(move || hosted.serve(its));
        let mut node = Self {
            stream,
            read: BytesMut::new(),
            worker: Some(worker),
            back: VecDeque::new(),
            done: Vec::new(),
            begun: 0,
            next: 2,
        };
        match node.frame() {
            Frame::Hello(hello) => (node, hello),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn welcome() -> Welcome<'static> {
        Welcome {
            version: VERSION,
            node: "observatory".into(),
            incarnation: "00000000000000ab".into(),
            manager: Some("tester".into()),
            instance: 3,
            silence_ms: 60_000,
            frame_bytes_max: FRAME_BYTES_MAX as u64,
            window: WINDOW,
            arguments: None,
            session: None,
        }
    }

    /// Up to where the worker is ready.
    pub(super) fn ready(make: impl Fn() -> Tester + Send + Sync + 'static) -> Self {
        let (mut node, _) = Self::met(hosted(make));
        node.send(&Frame::Welcome(Self::welcome()));
        match node.next() {
            Frame::Report(report) => assert_eq!(report.health, Some(HealthFrame::Degraded("warming up".into()))),
            other => panic!("{other:?}"),
        }
        match node.next() {
            Frame::Ready(_) => node,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn send(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode_to_stream(Encoding::MessagePack, FRAME_BYTES_MAX, &mut bytes).expect("encodes");
        self.stream.write_all(&bytes).expect("the worker reads");
    }

    pub(super) fn frame(&mut self) -> Frame<'static> {
        self.try_frame().expect("a frame, not the end")
    }

    pub(super) fn try_frame(&mut self) -> Option<Frame<'static>> {
        loop {
            if let Some(frame) = edri_protocol::split(&mut self.read, FRAME_BYTES_MAX).expect("frames") {
                // A test is short, so what it reads may stay.
                let bytes: &'static [u8] = Box::leak(frame.to_vec().into_boxed_slice());
                match Frame::decode(bytes).expect("a frame") {
                    // The log is the whole process's, so it may be of another test.
                    Frame::Log(_) => continue,
                    frame => return Some(frame),
                }
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more).expect("the worker writes in time") {
                0 => return None,
                count => self.read.extend_from_slice(&more[..count]),
            }
        }
    }

    /// The next frame that is no ack, which are kept apart.
    pub(super) fn next(&mut self) -> Frame<'static> {
        if let Some(frame) = self.back.pop_front() {
            return frame;
        }
        loop {
            match self.frame() {
                Frame::Ack(ack) => self.ack(&ack),
                frame => return frame,
            }
        }
    }

    pub(super) fn ack(&mut self, ack: &Ack) {
        self.done.extend(&ack.done);
        self.begun = ack.begun.unwrap_or(self.begun);
    }

    /// Reads until this call is acked.
    pub(super) fn acked(&mut self, id: u64) {
        while !self.done.contains(&id) {
            match self.frame() {
                Frame::Ack(ack) => self.ack(&ack),
                frame => self.back.push_back(frame),
            }
        }
    }

    pub(super) fn response(&mut self) -> Response<'static> {
        match self.next() {
            Frame::Response(response) => response,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn call<E: Event>(&mut self, handler: u32, event: &E, more: impl FnOnce(&mut CallFrame<'_>)) -> u64 {
        let id = self.next;
        self.next += 2;
        let payload = body(event);
        let mut call = CallFrame {
            id,
            event: (**E::descriptor().name()).into(),
            payload: Some(Payload::new(Encoding::MessagePack, &payload)),
            handler,
            ..CallFrame::default()
        };
        more(&mut call);
        let frame = match E::descriptor().kind() {
            Kind::Notification => Frame::Publish(call),
            Kind::Request => Frame::Request(call),
            Kind::Tunnel => Frame::Open(call),
        };
        self.send(&frame);
        id
    }

    pub(super) fn note(&mut self, what: &str) -> u64 {
        self.call(NOTED, &Noted { what: what.to_owned() }, |_| {})
    }

    pub(super) fn ask(&mut self, what: &str) -> u64 {
        self.call(ASK, &Ask { what: what.to_owned() }, |_| {})
    }

    pub(super) fn answer<T: Serialize>(&mut self, id: u64, answer: &T) {
        let value = body(answer);
        let value = Some(Payload::new(Encoding::MessagePack, &value));
        self.send(&Frame::Response(Response { id, value, ..Response::default() }));
    }

    pub(super) fn refuse(&mut self, id: u64, error: Fault<'_>) {
        self.send(&Frame::Response(Response { id, error: Some(error), ..Response::default() }));
    }

    /// The next call of the worker, whose event it declares before when it is the first of its name.
    pub(super) fn called(&mut self) -> (&'static str, CallFrame<'static>) {
        loop {
            match self.next() {
                Frame::Declare(_) => {}
                Frame::Publish(call) => return ("publish", call),
                Frame::Request(call) => return ("request", call),
                Frame::Open(call) => return ("open", call),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) fn joined(mut self) -> i32 {
        self.worker.take().expect("once").join().expect("the connection's thread does not panic")
    }

    /// Ends in good order.
    pub(super) fn bye(mut self) {
        self.send(&Frame::Bye(Bye::default()));
        let (verb, call) = self.called();
        assert_eq!((verb, &*call.event), ("publish", "node.note"), "of `stopping`");
        self.answer(call.id, &serde_json::json!({"id": EventId::next(), "groups": 0}));
        match self.next() {
            Frame::Bye(bye) => assert_eq!(bye.error, None),
            other => panic!("{other:?}"),
        }
        assert!(self.try_frame().is_none());
        assert_eq!(self.joined(), 0);
    }
}
