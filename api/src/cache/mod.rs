//! Responses that may be given again: kept, shared by a burst of equal requests, and ended by notifications.
//!
//! ```text
//!  request ─▶ Identity ─▶ Core ─ kept? ─────────────────▶ answer ─▶ headers: Cache-Control, ETag, 304
//!                          │ ─ somebody asks? ─▶ joins ─┐   ▲
//!                          └ ─ nobody: asks ─▶ relay ───┴───┘
//!  notification ─▶ tap ─▶ Staleness
//! ```

mod answer;
mod core;
mod figures;
mod headers;
mod identity;
mod keeper;
mod staleness;
mod taps;

pub(crate) use answer::Given;
pub(crate) use figures::Figures;
pub(crate) use headers::{coded, finish};
pub(crate) use keeper::ForClient;

use std::sync::Arc;
use std::time::Instant;

use edri_events::{Encoding, Headers, key_hash};
use edri_router::{Relay, Relayed, RequestError, Router, Told};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use crate::ApiLimits;
use crate::access::is_reserved;
use crate::clients::Client;
use crate::exposed::Reachable;
use answer::Answer;
use core::{Core, Found, Ticket};
use identity::Identity;
use staleness::Rule;
use taps::Taps;

/// The longest payload, in bytes, of a request whose answer may be given again: more is not read a second time.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// An answer, or why there is none; for all who wait.
type Outcome = Result<Answer, Told>;
/// Somebody who is asked, for as long as anybody waits.
type Awaited = Shared<BoxFuture<'static, Outcome>>;
type Flight = Option<WeakShared<BoxFuture<'static, Outcome>>>;

/// A request, and who sends it.
pub(crate) struct Asking<'a> {
    /// What sends it, if nobody has the answer.
    pub(crate) relay: &'a Relay,
    /// Its event.
    pub(crate) event: &'a Reachable,
    /// It.
    pub(crate) relayed: Relayed,
    /// How the answer is to be written that is made here; one that came as bytes stays as it is.
    pub(crate) answer: Encoding,
    /// Who wants to know.
    pub(crate) client: &'a Client,
}

/// What a gateway keeps.
pub(crate) struct Cache {
    core: Core<Answer, Flight>,
    taps: Taps,
    pub(crate) figures: Figures,
}

impl Cache {
    pub(crate) fn new(limits: &ApiLimits) -> Arc<Self> {
        let core = Core::new(limits.cache_bytes, limits.cache_entries);
        Arc::new(Self { core, taps: Taps::default(), figures: Figures::default() })
    }

    /// Sends a request, unless its answer is kept or somebody asks the same already. The worker of an event that says `public` is not
    /// told who asks.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request, unless others wait for its answer.
    pub(crate) async fn request(self: &Arc<Self>, router: &Router, asks: Asking<'_>) -> Given {
        let Asking { relay, event, mut relayed, answer, client } = asks;
        let Some(caching) = event.caching() else {
            return Given::once(relay.request(relayed, None).await);
        };
        if caching.public {
            relayed.headers = without_caller(&relayed.headers);
        }
        let Some(identity) = identity(event, &relayed, answer) else {
            return Given::once(relay.request(relayed, None).await);
        };
        self.listen(router, &caching.stale_on).await;
        let key = event.descriptor.key().and_then(|field| relayed.body.key_field(field).ok().flatten());
        let rule = Rule { stale_on: &caching.stale_on, key: key.as_deref().map(key_hash), client: Some(client) };
        let begin = |ticket| {
            let asks = Asks { cache: Arc::clone(self), ticket };
            let asking = asks.ask(relay.clone(), relayed.clone(), answer, event.answers_http).boxed().shared();
            (asking.downgrade(), asking)
        };
        let join = |flight: &Flight| -> Option<Awaited> { flight.as_ref()?.upgrade() };
        match self.core.find(identity, &rule, caching.lifetime, Instant::now(), join, begin) {
            Found::Kept(answer, left) => {
                self.figures.kept();
                answer.given(left)
            }
            Found::Begun(asking) => {
                self.figures.asked();
                match asking.await {
                    Ok(answer) => answer.given(caching.lifetime),
                    Err(told) => Given::once(Err(RequestError::from_told(told, event.descriptor.name()))),
                }
            }
            Found::Joined(asking) => {
                self.figures.joined();
                match asking.await {
                    Ok(answer) if answer.is_for_others() => answer.given(caching.lifetime),
                    Ok(_) => Given::once(relay.request(relayed, None).await),
                    Err(told) => Given::once(Err(RequestError::from_told(told, event.descriptor.name()))),
                }
            }
        }
    }

    /// A client may have changed something, and is told so now: on another node it may be notified later than it is answered.
    pub(crate) fn wrote(&self, client: impl FnOnce() -> Client) {
        if self.core.staleness().read().needs_writes() {
            self.core.staleness().write().wrote(client(), Instant::now());
        }
    }

    /// How many answers are kept, and what they weigh in bytes, with those that are stale and whose place nobody has needed.
    pub(crate) fn size(&self) -> (usize, u64) {
        self.core.size()
    }

    /// Whether nothing is kept that notifications end, because some might not come now.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.core.staleness().read().is_cut_off()
    }
}

/// Which requests are the same; `None` of one that is too long to be looked at, or cannot be read, which is for the codec of its
/// worker to refuse.
fn identity(event: &Reachable, relayed: &Relayed, answer: Encoding) -> Option<Identity> {
    let Relayed { body, headers, .. } = relayed;
    let is_short = body.bytes.len() <= PAYLOAD_BYTES_MAX;
    is_short.then(|| Identity::of(event.descriptor.name(), body, headers, answer).ok()).flatten()
}

/// What a request is sent with beside who sends it.
fn without_caller(headers: &Headers) -> Headers {
    let mut others = Headers::default();
    for (name, value) in headers.iter().filter(|(name, _)| !is_reserved(name)) {
        // There was room for them with the others.
        let _ = others.insert(name, value);
    }
    others
}

/// Asks for all who wait. Dropped before its end it is forgotten, so that the next asks again.
struct Asks {
    cache: Arc<Cache>,
    ticket: Ticket,
}

impl Asks {
    async fn ask(self, relay: Relay, relayed: Relayed, answer: Encoding, answers_http: bool) -> Outcome {
        let answered = relay.request(relayed, None).await;
        let answer = answered.and_then(|value| Answer::new(value, answer, answers_http));
        let answer = answer.map_err(|error| Told::from(&error))?;
        let kept = answer.is_for_others().then(|| answer.detached());
        self.cache.core.end(self.ticket, kept, Instant::now());
        Ok(answer)
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        self.cache.core.end(self.ticket, None, Instant::now());
    }
}
