//! Dead letters, as they are asked for.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use edri_events::{Encoding, Failure};
use edri_router::{Bus, DeadLetter};
use edri_workers::Context;

use super::PAGE_BYTES;
use super::event::{DeadLetterList, DeadLetterPage, DeadLetterView, Resent, ShownDeadLetter};
use super::operator::{page_size, pattern};

pub(super) fn list(bus: &Bus, ask: &DeadLetterList) -> Result<DeadLetterPage, Failure> {
    let (limit, pattern) = (page_size(ask.limit)?, pattern(ask.event.as_deref())?);
    let mut kept = bus.dead_letters();
    // Those that were put back stand where they came in last.
    kept.sort_unstable_by_key(|letter| std::cmp::Reverse(letter.number));
    let wanted = |letter: &&Arc<DeadLetter>| {
        ask.before.is_none_or(|before| letter.number < before)
            && pattern.as_ref().is_none_or(|pattern| pattern.matches(letter.envelope.name()))
            && ask.reason.is_none_or(|reason| letter.reason == reason)
            && ask.group.as_ref().is_none_or(|group| letter.group.to_text() == *group)
    };
    let (mut page, mut bytes) = (DeadLetterPage { letters: Vec::new(), next: None, kept: kept.len() as u64 }, 0);
    for letter in kept.iter().filter(wanted) {
        let view = view(letter);
        bytes += Encoding::MessagePack.encode(&view).map_or(0, |encoded| encoded.len());
        if page.letters.len() == limit || (bytes > PAGE_BYTES && !page.letters.is_empty()) {
            page.next = page.letters.last().map(|last| last.number);
            break;
        }
        page.letters.push(view);
    }
    Ok(page)
}

pub(super) fn show(bus: &Bus, number: u64) -> Result<ShownDeadLetter, Failure> {
    let letters = bus.dead_letters();
    let letter = letters.iter().find(|letter| letter.number == number);
    let letter = letter.ok_or_else(|| {
        let detail = format!("no dead letter {number} is kept: it was resent or dropped, or newer ones took its place");
        Failure::new("unknown_letter", detail)
    })?;
    let head = letter.envelope.head();
    let payload = letter.envelope.body(Encoding::Json).and_then(|body| body.transcode(Encoding::Json));
    let (payload, unreadable) = match payload.and_then(|body| body.decode()) {
        Ok(payload) => (Some(payload), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let headers = head.headers().into_iter().flat_map(|headers| headers.iter());
    Ok(ShownDeadLetter {
        letter: view(letter),
        origin: head.origin.to_string(),
        cause: head.cause,
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        payload,
        unreadable,
    })
}

/// Resends one after another, until the time is over.
pub(super) async fn resend(cx: &mut Context, numbers: &[u64]) -> Result<Vec<Resent>, Failure> {
    let mut resent = Vec::with_capacity(numbers.len());
    for &number in numbers {
        if cx.is_cancelled() {
            break;
        }
        let error = cx.bus().resend(number).await.err().map(|error| error.to_string());
        resent.push(Resent { number, error });
    }
    let count = resent.iter().filter(|one| one.error.is_none()).count();
    tracing::info!(resent = count, caller = cx.caller(), "dead letters were resent");
    Ok(resent)
}

fn view(letter: &DeadLetter) -> DeadLetterView {
    let at = letter.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    DeadLetterView {
        number: letter.number,
        at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        event: letter.envelope.name().clone(),
        event_id: letter.envelope.id(),
        kind: letter.envelope.head().descriptor.kind(),
        key: letter.envelope.key(),
        group: letter.group.clone(),
        reason: letter.reason,
        detail: letter.detail.clone(),
        attempts: letter.attempts,
    }
}
