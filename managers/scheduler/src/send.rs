//! Sends what is due. Apart from the timer, because whoever publishes runs the filters of subscribers and waits for room.

use std::collections::HashMap;
use std::task::Poll;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use edri_events::{Body, Descriptor, Kind};
use edri_router::{Bus, DeclareError, Options, PublishError};
use edri_store::Namespace;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use crate::limits::{CLAIM_AGE_MAX, CLAIM_KEPT, CLAIM_LIMIT, NAMESPACES_MAX, RESULT_BYTES_MAX, SENDING_MAX};
use crate::schedule::{Outcome, Run};
use crate::{Action, Ask, Claim, Payload, Publish, Response};

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) run: Run,
    pub(crate) outcome: Outcome,
}

/// Sends runs until there are no more, then ends what it has begun.
pub(crate) async fn send_all(bus: Bus, mut runs: mpsc::Receiver<Run>, ended: mpsc::Sender<Ended>) {
    let mut sending = Sending::default();
    let mut open = true;
    while open || !sending.futures.is_empty() {
        tokio::select! {
            run = runs.recv(), if open => match run {
                Some(run) => {
                    if let Some(end) = sending.begin(&bus, run).await {
                        tell(&ended, end).await;
                    }
                }
                None => open = false,
            },
            Some((end, asks)) = sending.futures.next(), if !sending.futures.is_empty() => {
                sending.count(asks, -1);
                tell(&ended, end).await;
            }
        }
    }
}

async fn tell(ended: &mpsc::Sender<Ended>, end: Ended) {
    // When the timer is gone nobody wants to know; what was begun is ended all the same.
    let _ = ended.send(end).await;
}

/// What is being sent.
#[derive(Default)]
struct Sending {
    futures: FuturesUnordered<BoxFuture<'static, (Ended, bool)>>,
    publishing: isize,
    asking: isize,
    claims: HashMap<String, Namespace<Claimed>>,
}

impl Sending {
    /// Begins a run; its end when that is all it took.
    async fn begin(&mut self, bus: &Bus, run: Run) -> Option<Ended> {
        let asks = run.entry.claim.is_some() || matches!(run.entry.send, Action::Request(_));
        let is_full = if asks { self.asking } else { self.publishing } >= SENDING_MAX as isize;
        let claims = run.entry.claim.as_ref().map(|claim| self.claims(bus, &claim.namespace));
        let (bus, given) = (bus.clone(), run.clone());
        let mut future: BoxFuture<'static, _> = Box::pin(async move {
            let outcome = send(&bus, &run, claims).await;
            (Ended { run, outcome }, asks)
        });
        // Most notifications are where they belong at once.
        match futures_util::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            Poll::Ready((end, _)) => Some(end),
            Poll::Pending if is_full => {
                let what = if asks { "requests that are not answered" } else { "notifications that wait for room" };
                let outcome = failed("overloaded", format!("the scheduler has {SENDING_MAX} {what} already"));
                Some(Ended { run: given, outcome })
            }
            Poll::Pending => {
                self.count(asks, 1);
                self.futures.push(future);
                None
            }
        }
    }

    /// The namespace where claims are made; one that was used before is there already.
    fn claims(&mut self, bus: &Bus, namespace: &str) -> Namespace<Claimed> {
        if self.claims.len() >= NAMESPACES_MAX {
            self.claims.clear();
        }
        let made = self.claims.entry(namespace.to_owned());
        made.or_insert_with(|| Namespace::new(bus, namespace).time_limit(CLAIM_LIMIT)).clone()
    }

    fn count(&mut self, asks: bool, change: isize) {
        if asks { self.asking += change } else { self.publishing += change }
    }
}

fn failed(code: &str, message: String) -> Outcome {
    Outcome::Failed { code: code.to_owned(), message }
}

async fn send(bus: &Bus, run: &Run, claims: Option<Namespace<Claimed>>) -> Outcome {
    if let (Some(claim), Some(claims), false) = (&run.entry.claim, claims, run.asked)
        && let Err(outcome) = claim_run(bus, run, claim, &claims).await
    {
        return log(run, outcome);
    }
    let options = Options::new().header("schedule-entry", &run.id).header("schedule-due", &time_text(run.due));
    let outcome = match &run.entry.send {
        Action::Publish(Publish { event, payload }) => {
            match bus.untyped().publish_with(event, payload.body(), &options).await {
                Ok(_) => Outcome::Done,
                Err(error) => failed(error.code(), error.to_string()),
            }
        }
        Action::Request(ask) => request(bus, ask, &options).await,
    };
    log(run, outcome)
}

/// Says of a run that failed why.
fn log(run: &Run, outcome: Outcome) -> Outcome {
    if let Outcome::Failed { code, message } = &outcome {
        tracing::warn!(entry = %run.id, event = run.entry.send.event(), code, message, "a scheduled run failed");
    }
    outcome
}

async fn request(bus: &Bus, ask: &Ask, options: &Options) -> Outcome {
    let mut limited = options.clone();
    if let Some(limit) = ask.timeout_ms {
        limited = limited.time_limit(Duration::from_millis(limit));
    }
    let body = match bus.untyped().request_with(&ask.event, ask.payload.body(), &limited).await {
        Ok(body) => body,
        Err(error) => return failed(error.code(), error.to_string()),
    };
    match &ask.response {
        Response::Drop => Outcome::Done,
        Response::Publish(event) => match publish_response(bus, event, body, options).await {
            Ok(()) => Outcome::Done,
            Err(error) => failed(error.code(), format!("its response was not published: {error}")),
        },
        Response::Keep => match Payload::from_body(body) {
            Ok(response) if response.len() <= RESULT_BYTES_MAX => Outcome::Kept(response),
            Ok(response) => failed(
                "too_large",
                format!("its response has {} bytes, and {RESULT_BYTES_MAX} are kept: publish it", response.len()),
            ),
            Err(error) => failed("invalid_payload", error.to_string()),
        },
    }
}

/// Publishes a response under a name that nobody needs to have declared.
async fn publish_response(bus: &Bus, event: &str, body: Body, options: &Options) -> Result<(), PublishError> {
    match bus.untyped().publish_with(event, body.clone(), options).await {
        Err(PublishError::Declare(DeclareError::UnknownEvent(_))) => {
            let declared = Descriptor::declare(event, Kind::Notification).map_err(DeclareError::from)?;
            bus.declare(declared.build()).await?;
            bus.untyped().publish_with(event, body, options).await.map(drop)
        }
        published => published.map(drop),
    }
}

/// Who has claimed a run.
#[derive(serde::Serialize, serde::Deserialize)]
struct Claimed {
    node: String,
}

/// Claims a run for this scheduler; otherwise what it comes to without being sent.
async fn claim_run(bus: &Bus, run: &Run, claim: &Claim, claims: &Namespace<Claimed>) -> Result<(), Outcome> {
    let age = Utc::now().timestamp_micros().saturating_sub(run.due);
    if age > CLAIM_AGE_MAX.as_micros() as i64 && !claim.at_least_once {
        // Its claim may have expired meanwhile.
        let hours = CLAIM_AGE_MAX.as_secs() / 3600;
        return Err(failed("too_late", format!("it was due more than {hours} hours ago: another may have sent it")));
    }
    let me = bus.address();
    let manager = me.manager.as_ref().map(ToString::to_string).unwrap_or_default();
    let key = format!("claim/{manager}/{}/{}", run.id, run.due);
    match claims.set(&key, &Claimed { node: me.node.to_string() }).expires_in(CLAIM_KEPT).if_absent().await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == "exists" => Err(Outcome::Elsewhere),
        Err(error) if claim.at_least_once => {
            tracing::warn!(entry = %run.id, %error, "a run is sent without a claim, and may be sent by others too");
            Ok(())
        }
        Err(error) => Err(failed("not_claimed", format!("it was not sent, as it could not be claimed: {error}"))),
    }
}

/// A time of the system's clock, in microseconds since 1970, as RFC 3339 writes it.
pub(crate) fn time_text(time: i64) -> String {
    let time = DateTime::<Utc>::from_timestamp_micros(time).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
