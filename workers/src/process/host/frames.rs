//! What a process says, and what becomes of the events it speaks of.

use std::convert::Infallible;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use edri_events::{Failure, Kind, Value};
use edri_protocol::{
    Ack, Bye, Cancel, Declare, Frame, FrameError, Log, PREFIX_BYTES, Pong, Response, VERSION, first, limits,
};
use edri_router::{DeclareError, Delivery, Reason, ReplyTo, WorkerState};
use tokio::sync::oneshot;

use super::{COPIED_BYTES_MAX, Flight, LAST_FRAMES, OUTPUT_BYTES_MAX, Over, Phase, ProcessHost, READ_TURN_BYTES};
use crate::host::{Called, Next, may_try_again, settle, succeed};
use crate::instance::HandlerError;
use crate::process::carried;
use crate::process::fault::{self, Refused, START_REFUSED};

impl ProcessHost {
    pub(super) fn write(&mut self) -> Result<(), Over> {
        loop {
            if self.out.is_empty() && !self.peer.take_output(&mut self.out) {
                return Ok(());
            }
            match self.socket.try_write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                // It may have ended in good order; what it wrote before tells.
                Err(_) => {
                    self.out.clear();
                    self.written = 0;
                    return Ok(());
                }
            }
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
            }
        }
    }

    /// The process has ended; that can be known before it is known that its last frames are there to be read.
    pub(super) async fn last_frames(&mut self, ready: &mut Option<oneshot::Sender<()>>) -> Over {
        let read = async {
            loop {
                self.socket.readable().await.map_err(|error| broken(&error))?;
                self.read(ready).await?;
            }
        };
        // A process of its own may keep the socket open.
        match tokio::time::timeout(LAST_FRAMES, read).await {
            Ok(Err::<Infallible, _>(over)) => over,
            Err(_) => Over::Gone(None),
        }
    }

    pub(super) async fn read(&mut self, ready: &mut Option<oneshot::Sender<()>>) -> Result<(), Over> {
        let mut turn = 0;
        while turn < READ_TURN_BYTES {
            self.read.reserve(64 << 10);
            match self.socket.try_read_buf(&mut self.read) {
                Ok(0) => return Err(Over::Gone(None)),
                Ok(count) => turn += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(broken(&error)),
            }
            self.now = Instant::now();
            self.frames(ready).await?;
            if self.peer.output_bytes() + self.out.len() > OUTPUT_BYTES_MAX {
                return Err(Over::Gone(Some("it does not read what it is sent".to_owned())));
            }
        }
        Ok(())
    }

    /// Takes the whole frames that have been read.
    async fn frames(&mut self, ready: &mut Option<oneshot::Sender<()>>) -> Result<(), Over> {
        // Apart, so that a frame can be taken where it is.
        let mut read = std::mem::take(&mut self.read);
        let none = Bytes::new();
        let taken = loop {
            let taken = match first(&read, limits::FRAME_BYTES_MAX) {
                Ok(None) => break Ok(()),
                Ok(Some(bytes)) if bytes.len() <= COPIED_BYTES_MAX => {
                    let next = PREFIX_BYTES + bytes.len();
                    let taken = self.frame(bytes, &none, ready).await;
                    read.advance(next);
                    taken
                }
                Ok(Some(bytes)) => {
                    let next = bytes.len();
                    read.advance(PREFIX_BYTES);
                    let bytes = read.split_to(next).freeze();
                    self.frame(&bytes, &bytes, ready).await
                }
                Err(error) => Err(self.refuse(&error)),
            };
            if taken.is_err() {
                break taken;
            }
        };
        self.read = read;
        taken
    }

    pub(super) fn refuse(&self, error: &FrameError) -> Over {
        self.peer.object(error.code(), &error.to_string(), "", None);
        Over::Gone(Some(format!("it sent what is no frame: {error}")))
    }

    /// Takes a frame. Payloads share the memory of `whole` if that is where the frame is.
    async fn frame(
        &mut self,
        frame: &[u8],
        whole: &Bytes,
        ready: &mut Option<oneshot::Sender<()>>,
    ) -> Result<(), Over> {
        let frame = Frame::decode(frame).map_err(|error| self.refuse(&error))?;
        match frame {
            Frame::Ack(ack) => self.ack(&ack),
            Frame::Response(response) => self.response(response, whole),
            Frame::Publish(call) => self.calls.publish(&call, whole),
            Frame::Request(call) => self.calls.request(&call, whole),
            Frame::Open(call) => self.calls.open(&call, whole),
            Frame::Cancel(cancel) => self.calls.cancel(cancel.id),
            Frame::Data(data) => self.peer.data(&data, whole),
            Frame::Credit(credit) => self.peer.credit(&credit),
            Frame::End(end) => self.peer.end(&end),
            Frame::Abort(abort) => self.peer.abort(&abort),
            Frame::Pong(_) => self.pinged = None,
            Frame::Ping(ping) => {
                self.peer.send_short(&Frame::Pong(Pong { id: ping.id }));
            }
            Frame::Window(window) => self.window = self.plan.window(window, self.keeps_order),
            Frame::Declare(events) => self.declare(events).await,
            Frame::Log(log) => self.log(&log),
            Frame::Report(report) => carried::report(&self.seat.status, report),
            Frame::Error(notice) if self.may_log() => {
                let (manager, instance) = (&self.seat.manager, self.seat.status.index());
                tracing::warn!(%manager, instance, code = %notice.code, message = %notice.message, "a worker objects");
            }
            Frame::Error(_) => {}
            Frame::Ready(_) => match ready.take() {
                Some(tell) => {
                    self.seat.status.set_state(WorkerState::Running);
                    self.phase = Phase::Waiting;
                    // The manager may have stopped waiting; the kill signal says so.
                    let _ = tell.send(());
                }
                None => return self.bad("out_of_order", "`ready` is said once", "ready", None),
            },
            Frame::Bye(Bye { error: Some(error) })
                if &*error.code == START_REFUSED && self.phase == Phase::Starting =>
            {
                return Err(Over::Refused(error.message.into_owned()));
            }
            Frame::Bye(bye) => return Err(Over::Bye(bye.error.map(|error| fault::text(&error)))),
            Frame::Unknown(name) => {
                return self.bad("unknown_frame", &format!("no frame `{name}` in version {VERSION}"), &name, None);
            }
            Frame::Subscribe(_) | Frame::Unsubscribe(_) | Frame::Missed(_) => {
                let advice = "a worker does not subscribe: it handles events";
                return self.bad("unsupported", advice, frame.name(), None);
            }
            other => return self.bad("out_of_order", "this frame has no place here", other.name(), None),
        }
        Ok(())
    }

    /// Answers a frame that is wrong. Of who is not trusted many of them are the end.
    fn bad(&mut self, code: &str, message: &str, frame: &str, id: Option<u64>) -> Result<(), Over> {
        self.peer.object(code, message, frame, id);
        self.count_bad()
    }

    fn count_bad(&mut self) -> Result<(), Over> {
        let Some(bounds) = &self.bounds else { return Ok(()) };
        let (since, count) = &mut self.bad;
        if self.now.duration_since(*since) >= Duration::from_secs(60) {
            (*since, *count) = (self.now, 0);
        }
        *count += 1;
        if *count > bounds.bad_frames {
            return Err(Over::Gone(Some(format!("more than {} bad frames came of it in a minute", bounds.bad_frames))));
        }
        Ok(())
    }

    /// Whether it may have a line in the node's log. A process is trusted not to fill it.
    fn may_log(&mut self) -> bool {
        if self.bounds.is_none() {
            return true;
        }
        let (may, left_out) = self.flood.admit(self.now);
        if left_out > 0 {
            let (manager, instance) = (&self.seat.manager, self.seat.status.index());
            tracing::warn!(target: "edri::worker", %manager, instance, lines = left_out, "so many of its records were left out");
        }
        may
    }

    pub(super) fn log(&mut self, log: &Log<'_>) {
        if !self.may_log() {
            return;
        }
        let mut about = self.flights.iter_mut().map(|(_, flight)| &flight.delivery.envelope);
        let about = log.event_id.and_then(|id| about.find(|about| about.id() == id));
        let trace = about.map(|about| about.trace());
        carried::log(&self.seat, log, trace);
    }

    /// Makes events known that the worker is about to use, before it does.
    async fn declare(&mut self, declare: Declare) {
        let bus = self.seat.router.bus();
        for event in declare.events {
            let name = event.name.clone();
            let refuse = |code: &str, error: &dyn std::fmt::Display| {
                self.peer.object(code, &format!("`{name}`: {error}"), "declare", None);
            };
            let descriptor = match event.into_descriptor() {
                Ok(descriptor) => descriptor,
                Err(error) => {
                    refuse(DeclareError::from(error.clone()).code(), &error);
                    continue;
                }
            };
            if let Some(bounds) = &self.bounds {
                if self.declared >= limits::EVENTS_MAX {
                    refuse("overloaded", &format!("a worker declares at most {} events", limits::EVENTS_MAX));
                    continue;
                }
                if let Err((code, message)) = (bounds.may_declare)(&descriptor) {
                    refuse(&code, &message);
                    continue;
                }
                self.declared += 1;
            }
            if let Err(error) = bus.declare(descriptor).await {
                refuse(error.code(), &error);
            }
        }
    }

    pub(super) fn ack(&mut self, ack: &Ack) {
        for number in &ack.done {
            if let Some(flight) = self.land(*number) {
                self.settle(flight, Ok(Value::typed(())));
            }
        }
        if let Some(begun) = ack.begun {
            self.says_begun = true;
            self.flights.begin(begun, Instant::now());
        }
    }

    pub(super) fn response(&mut self, response: Response<'_>, bytes: &Bytes) {
        let Some(flight) = self.land(response.id) else { return };
        let value = response.value.as_ref().map(|value| Value::from(value.to_body(bytes)));
        match Refused::of(response) {
            None => self.settle(flight, Ok(value.unwrap_or_else(|| Value::typed(())))),
            Some(Refused::Failure(fault)) => self.settle(flight, Err(fault::to_failure(fault))),
            // The process was lost over it and is about to say so with its end.
            Some(Refused::Error(fault)) if fault.code == "worker_lost".into() => {
                self.lose(flight.delivery, Reason::WorkerLost, &fault.message);
            }
            Some(Refused::Error(fault)) if fault.code == "timed_out".into() && flight.delivery.ticket().is_none() => {
                let detail = "its time to live ended before its process handled it";
                self.seat.router.discard(&self.seat.group, flight.delivery, Reason::Expired, detail);
            }
            Some(Refused::Error(fault)) => self.settle(flight, Err(fault::to_failure(fault))),
        }
    }

    /// Takes an answered event out of the process's hands.
    fn land(&mut self, number: u64) -> Option<Flight> {
        let Some(flight) = self.flights.take(number, self.now) else {
            self.peer.object("unknown_call", "no call of this number is open", "response", Some(number));
            return None;
        };
        self.busy = self.now;
        if self.flights.is_empty() {
            self.alone = false;
        }
        if let ReplyTo::Tunnel(..) = flight.delivery.reply {
            self.peer.tunnel_over(number);
        }
        Some(flight)
    }

    fn settle(&mut self, flight: Flight, result: Result<Value, Failure>) {
        let Flight { delivery, mut timer, .. } = flight;
        timer.stop(&self.seat.status);
        let failure = match result {
            Ok(value) => return succeed(&self.seat, &delivery, value),
            Err(failure) => failure,
        };
        let is_notification = delivery.envelope.head().descriptor.kind() == Kind::Notification;
        if is_notification && failure.code() == "invalid_payload" {
            self.seat.router.discard(&self.seat.group, delivery, Reason::InvalidPayload, failure.text());
            return;
        }
        let called = Called::Done(Err(HandlerError::Failed(failure)));
        match settle(&self.seat, delivery, called, &AtomicBool::new(false)) {
            Next::Again(delivery, pause) => self.resting.push((Instant::now() + pause, delivery)),
            Next::Settled | Next::End(_) => {}
        }
    }

    /// An event that a worker was lost over has used up an attempt.
    pub(super) fn lose(&mut self, delivery: Delivery, reason: Reason, detail: &str) {
        if let Some(delivery) = may_try_again(&self.seat, delivery, reason, detail) {
            self.panicked.push(delivery);
        }
    }

    pub(super) fn cancel_unwanted(&mut self) {
        let Self { flights, seat, peer, .. } = self;
        for (number, flight) in flights.iter_mut() {
            let ticket = flight.delivery.ticket();
            if !flight.cancelled && ticket.is_some_and(|ticket| !seat.router.is_wanted(ticket)) {
                flight.cancelled = true;
                peer.tunnel_over(number);
                peer.send_short(&Frame::Cancel(Cancel { id: number }));
            }
        }
    }
}

pub(super) fn broken(error: &std::io::Error) -> Over {
    match error.kind() {
        // It ended without having read everything; how it ended says more.
        std::io::ErrorKind::ConnectionReset => Over::Gone(None),
        _ => Over::Gone(Some(format!("its socket broke: {error}"))),
    }
}
