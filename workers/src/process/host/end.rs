//! How a process instance ends, and what becomes of the events in its hands.

use std::pin::Pin;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use edri_events::Kind;
use edri_protocol::{Frame, Log, limits, split};
use edri_router::{Delivery, Reason};
use tokio::io::AsyncReadExt;

use super::{Flight, LAST_FRAMES, Over, Phase, ProcessHost};
use crate::host::{Exit, may_try_again, time_limit_text};
use crate::process::carried;
use crate::process::flights::Flights;
use crate::process::launch::ended_text;

/// How long a process may take to end once its socket is closed and it has been asked to.
const TERMINATION: Duration = Duration::from_millis(500);
/// How long the process may take to end once it has said bye.
const FAREWELL: Duration = Duration::from_secs(5);

impl ProcessHost {
    /// Logs a line of the process, with the trace of the event it is about while the process has that.
    pub(super) fn log(&mut self, log: &Log<'_>) {
        let mut held = self.flights.iter_mut().map(|(_, flight)| &flight.delivery.envelope);
        let about = log.event_id.and_then(|id| held.find(|envelope| envelope.id() == id));
        let trace = about.map(|envelope| envelope.trace());
        carried::log(&self.seat, log, trace);
    }

    pub(super) async fn end(
        mut self,
        over: Over,
        before_ready: bool,
        kill: Pin<&mut impl Future<Output = ()>>,
    ) -> Exit {
        self.consumer = None;
        let refused = matches!(over, Over::Refused(_));
        let (detail, time_limit) = match over {
            Over::Refused(why) => {
                // It ends by itself; what is left of it is killed below.
                let _ = tokio::time::timeout(FAREWELL, self.running.ended()).await;
                (why, None)
            }
            Over::Killed => return self.end_killed().await,
            Over::Bye(why) => {
                let status = tokio::select! {
                    ended = tokio::time::timeout(FAREWELL, self.running.ended()) => ended.ok(),
                    () = kill => None,
                };
                if why.is_none() && self.phase == Phase::Leaving {
                    self.calls.abort();
                    return Exit::Finished;
                }
                let how = status.map_or_else(|| "it said bye and did not end".to_owned(), ended_text);
                (why.unwrap_or_else(|| format!("it said bye although it had not been told to end; {how}")), None)
            }
            Over::TimeLimit(number, limit) => (time_limit_text(limit), Some(number)),
            Over::Gone(why) => {
                let grace = if why.is_some() { Duration::ZERO } else { TERMINATION };
                let status = tokio::time::timeout(grace, self.running.ended()).await;
                let detail = match (why, status) {
                    (Some(why), _) => why,
                    (None, Ok(status)) => format!("{}{}", gone_text(status), self.running.last_words().await),
                    (None, Err(_)) => "it closed its socket".to_owned(),
                };
                (detail, None)
            }
        };
        self.running.kill();
        self.running.ended().await;
        self.drain_socket().await;
        self.calls.abort();
        self.peer.close();
        if self.phase == Phase::Leaving && self.in_hand() == 0 {
            tracing::error!(manager = %self.seat.manager, instance = self.seat.status.index(), detail,
                "a process worker ended in its `stopping`");
            return Exit::Finished;
        }
        let (reason, resume) = self.sort_out(&detail, time_limit);
        self.seat.status.set_in_hand(resume.len());
        match before_ready {
            true if refused => Exit::StartRefused(detail, resume),
            true => Exit::StartFailed(detail, resume),
            false => Exit::Lost { reason, detail, resume },
        }
    }

    /// Decides who has used up an attempt and who is offered again.
    fn sort_out(&mut self, detail: &str, overdue: Option<u64>) -> (Reason, Vec<Delivery>) {
        let reason = if overdue.is_some() { Reason::TimeLimit } else { Reason::WorkerLost };
        if let Some(flight) = overdue.and_then(|number| self.flights.take(number, Instant::now())) {
            self.lose(flight.delivery, reason, detail);
        }
        let told = overdue.is_some() || !self.panicked.is_empty();
        let flights = std::mem::replace(&mut self.flights, Flights::new(2, Instant::now()));
        let (begun, waiting) = flights.end(self.says_begun);
        let mut resume = std::mem::take(&mut self.panicked);
        // When it is known which one it was, or there is but one, the blame is clear.
        let alone = begun.len() == 1 && !told;
        for Flight { mut delivery, .. } in begun {
            let descriptor = &delivery.envelope.head().descriptor;
            let once = match descriptor.kind() {
                Kind::Notification => false,
                Kind::Request => !descriptor.is_idempotent(),
                Kind::Tunnel => true,
            };
            if alone || once {
                resume.extend(may_try_again(&self.seat, delivery, Reason::WorkerLost, detail));
            } else {
                delivery.attempts -= 1;
                delivery.redelivered = true;
                self.seat.status.retried();
                resume.push(delivery);
            }
        }
        let tunnel_gone = |delivery: &Delivery| delivery.envelope.head().descriptor.kind() == Kind::Tunnel;
        for Flight { mut delivery, .. } in waiting {
            if tunnel_gone(&delivery) {
                // Its ends were in use already.
                self.seat.router.discard(&self.seat.group, delivery, Reason::WorkerLost, detail);
            } else {
                delivery.attempts -= 1;
                resume.push(delivery);
            }
        }
        resume.extend(std::mem::take(&mut self.resume));
        resume.extend(std::mem::take(&mut self.resting).into_iter().map(|(_, delivery)| delivery));
        (reason, resume)
    }

    /// What it had written before its end counts still.
    async fn drain_socket(&mut self) {
        let Self { socket, read, .. } = self;
        let all = async {
            // That there is something to read may not have been told yet.
            while let Ok(1..) = socket.read_buf(read).await {}
        };
        // Nobody who writes is left, unless a process of its own has left its group and kept the socket.
        let _ = tokio::time::timeout(LAST_FRAMES, all).await;
        while let Ok(Some(bytes)) = split(&mut self.read, limits::FRAME_BYTES_MAX) {
            match Frame::decode(&bytes) {
                Ok(Frame::Ack(ack)) => self.ack(&ack),
                Ok(Frame::Response(response)) => self.response(response, &bytes),
                Ok(Frame::Log(log)) => self.log(&log),
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }

    async fn end_killed(mut self) -> Exit {
        self.calls.abort();
        self.peer.close();
        let in_stopping = self.phase == Phase::Leaving && self.in_hand() == 0;
        let detail = "its worker was stopped while handling it";
        let flights = std::mem::replace(&mut self.flights, Flights::new(2, Instant::now()));
        let (begun, waiting) = flights.end(self.says_begun);
        let flown = begun.into_iter().chain(waiting).map(|flight| flight.delivery);
        let resting = std::mem::take(&mut self.resting).into_iter().map(|(_, delivery)| delivery);
        let rest =
            std::mem::take(&mut self.resume).into_iter().chain(std::mem::take(&mut self.panicked)).chain(resting);
        for delivery in flown.chain(rest) {
            self.seat.router.discard(&self.seat.group, delivery, Reason::Stopped, detail);
        }
        self.seat.status.set_in_hand(0);
        drop(self.socket);
        self.running.terminate();
        if tokio::time::timeout(TERMINATION, self.running.ended()).await.is_err() {
            self.running.kill();
            self.running.ended().await;
        }
        if in_stopping { Exit::StoppingCut } else { Exit::Killed }
    }
}

fn gone_text(status: ExitStatus) -> String {
    if status.success() {
        "its process ended with exit code 0 without having said bye".to_owned()
    } else {
        ended_text(status)
    }
}
