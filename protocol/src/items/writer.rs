use std::ops::Range;

use bytes::Bytes;
use edri_events::{Encoding, EventId, key_hash};
use hashbrown::HashTable;

use super::{EventHead, JSON, Keys, Outcome, flag, kind, outcome};
use crate::codec::write_messagepack;
use crate::compact::{put_number, put_random, put_text, zigzag};
use crate::{Fault, Grant, limits};

/// Something that is too long for an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes for one item, where {max} is the most")]
pub struct TooLong {
    /// How long it is.
    pub bytes: usize,
    /// How long it may be.
    pub max: usize,
}

/// Why an item was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten<E> {
    /// What was to write the payload says why.
    #[error("write the payload: {0}")]
    Payload(#[source] E),
    /// It is too long.
    #[error(transparent)]
    TooLong(TooLong),
}

/// Writes bodies of packets, one after another, each item at the end of the body. An item that could not be written, or
/// whose payload panicked while it was written, leaves the body as it was.
///
/// It takes all that it is given: when to [`Writer::take`] the body is for its user to decide, at the latest when its
/// length reaches [`limits::BODY_FILLED_BYTES`].
///
/// ```
/// use edri_events::{Encoding, EventId};
/// use edri_protocol::items::{EventHead, Item, Reader, Writer};
///
/// let mut writer = Writer::new();
/// let head = EventHead::new("quake.recorded", EventId::next(), Encoding::Json);
/// writer.event(&head, |out| Encoding::Json.encode_to(&4.7, out))?;
/// let body = writer.take();
///
/// let Some(Ok(Item::Event(event))) = Reader::new(&body).next() else { panic!("not the event") };
/// assert_eq!(event.name.text, "quake.recorded");
/// assert_eq!(event.payload.bytes(), b"4.7");
/// # Ok::<(), edri_protocol::items::Unwritten<edri_events::CodecError>>(())
/// ```
#[derive(Debug, Default)]
pub struct Writer {
    body: Vec<u8>,
    names: Texts,
    managers: Texts,
    processes: Processes,
}

impl Writer {
    /// A writer with an empty body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the body is, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether no item has been written since the last body was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Takes the body out and begins the next.
    #[must_use = "the items are in it"]
    pub fn take(&mut self) -> Bytes {
        self.names.clear();
        self.managers.clear();
        self.processes.known.clear();
        // A short body would hold on to the memory of a long one for as long as it is kept.
        if self.body.len() >= self.body.capacity() / 2 {
            // The next will be as long, most likely.
            let room = self.body.capacity().min(limits::BODY_FILLED_BYTES);
            return Bytes::from(std::mem::replace(&mut self.body, Vec::with_capacity(room)));
        }
        let body = Bytes::copy_from_slice(&self.body);
        self.body.clear();
        body
    }

    /// Appends a notification. `payload` appends its payload to what it is given. Returns how long the payload is.
    ///
    /// # Errors
    ///
    /// [`Unwritten`]; the body is as it was.
    ///
    /// # Panics
    ///
    /// When `payload` removes what was there before it.
    #[inline]
    pub fn event<E>(
        &mut self,
        head: &EventHead<'_>,
        payload: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, Unwritten<E>> {
        self.with_event(head, payload, |out| out.push(kind::EVENT))
    }

    /// Appends a request, with the number of its call. As [`Writer::event`].
    ///
    /// # Errors
    ///
    /// [`Unwritten`]; the body is as it was.
    #[inline]
    pub fn request<E>(
        &mut self,
        call: u64,
        head: &EventHead<'_>,
        payload: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, Unwritten<E>> {
        self.with_event(head, payload, |out| {
            out.push(kind::REQUEST);
            put_number(out, call);
        })
    }

    /// Appends what opens a tunnel, with what the opener takes. As [`Writer::event`].
    ///
    /// # Errors
    ///
    /// [`Unwritten`]; the body is as it was.
    pub fn open<E>(
        &mut self,
        head: &EventHead<'_>,
        credit: Grant,
        payload: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, Unwritten<E>> {
        self.with_event(head, payload, |out| {
            out.push(kind::OPEN);
            put_grant(out, credit);
        })
    }

    /// Appends what came of a request of the destination.
    ///
    /// # Errors
    ///
    /// [`TooLong`]; the body is as it was.
    pub fn response(&mut self, call: u64, outcome: &Outcome<'_>) -> Result<(), TooLong> {
        or_nothing(&mut self.body, |out| {
            out.push(kind::RESPONSE);
            put_number(out, call);
            put_outcome(out, outcome)
        })
    }

    /// Appends that this request is no longer waited for.
    pub fn cancel(&mut self, call: u64) {
        self.body.push(kind::CANCEL);
        put_number(&mut self.body, call);
    }

    /// Appends an item of a tunnel.
    ///
    /// # Errors
    ///
    /// [`TooLong`]; the body is as it was.
    pub fn data(&mut self, encoding: Encoding, payload: &[u8]) -> Result<(), TooLong> {
        self.body.extend_from_slice(&data_head(encoding, payload.len())?);
        self.body.extend_from_slice(payload);
        Ok(())
    }

    /// Appends how much the origin takes in the other direction of a tunnel, in all since it opened.
    pub fn grant(&mut self, grant: Grant) {
        self.body.push(kind::GRANT);
        put_grant(&mut self.body, grant);
    }

    /// Appends the end of this direction of a tunnel.
    pub fn end(&mut self) {
        self.body.push(kind::END);
    }

    /// Appends that a tunnel breaks, and why.
    ///
    /// # Errors
    ///
    /// [`TooLong`]; the body is as it was.
    pub fn abort(&mut self, fault: &Fault<'_>) -> Result<(), TooLong> {
        or_nothing(&mut self.body, |out| {
            out.push(kind::ABORT);
            put_fault(out, fault)
        })
    }

    /// Appends the final result of a tunnel.
    ///
    /// # Errors
    ///
    /// [`TooLong`]; the body is as it was.
    pub fn outcome(&mut self, outcome: &Outcome<'_>) -> Result<(), TooLong> {
        or_nothing(&mut self.body, |out| {
            out.push(kind::OUTCOME);
            put_outcome(out, outcome)
        })
    }

    /// Appends that the origin sends nothing more to this group of the destination.
    pub fn left(&mut self, group: u32) {
        self.body.push(kind::LEFT);
        put_number(&mut self.body, group.into());
    }

    /// Appends that the origin knows an event otherwise than the destination; or no longer, when `why` is empty. Of texts that are
    /// too long it appends as much as there may be.
    pub fn differs(&mut self, event: &str, why: &str) {
        self.body.push(kind::DIFFERS);
        for text in [event, why] {
            let mut end = text.len().min(limits::EVENT_TEXTS_BYTES_MAX);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            put_text(&mut self.body, &text[..end]);
        }
    }

    /// Appends what the origin says of itself and the keys of a manager.
    pub fn keys(&mut self, keys: &Keys<'_>) {
        let mut sized = Vec::with_capacity(keys.manager.len() + 40);
        put_text(&mut sized, keys.manager);
        put_number(&mut sized, keys.version);
        sized.push(u8::from(keys.member));
        [keys.owned, keys.releasing, keys.claiming].into_iter().for_each(|slots| put_random(&mut sized, slots));
        self.sized(kind::KEYS, &sized);
    }

    /// Appends that the origin has noted what the destination says of the keys of a manager.
    pub fn noted(&mut self, manager: &str, version: u64, agreed: u64) {
        let mut sized = Vec::with_capacity(manager.len() + 20);
        put_text(&mut sized, manager);
        put_number(&mut sized, version);
        put_random(&mut sized, agreed);
        self.sized(kind::NOTED, &sized);
    }

    fn sized(&mut self, kind: u8, bytes: &[u8]) {
        self.body.push(kind);
        put_number(&mut self.body, bytes.len() as u64);
        self.body.extend_from_slice(bytes);
    }

    /// Appends an event. Nothing can fail any more when its texts are written, so none of them ever needs to be forgotten.
    #[inline]
    fn with_event<E>(
        &mut self,
        head: &EventHead<'_>,
        payload: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        begin: impl FnOnce(&mut Vec<u8>),
    ) -> Result<usize, Unwritten<E>> {
        let texts = texts_bytes(head);
        if texts > limits::EVENT_TEXTS_BYTES_MAX {
            return Err(Unwritten::TooLong(TooLong { bytes: texts, max: limits::EVENT_TEXTS_BYTES_MAX }));
        }
        let bytes = or_nothing(&mut self.body, |out| {
            begin(out);
            put_payload(out, head.encoding, payload)
        })?;
        self.put_head(head);
        Ok(bytes)
    }

    fn put_head(&mut self, head: &EventHead<'_>) {
        let EventHead { name, id, manager, key, cause, trace, timeout_ms, headers, tried, redelivered, encoding: _ } =
            *head;
        let headers = headers.filter(|headers| headers.iter().next().is_some());
        let has = |flag, has| if has { flag } else { 0 };
        let out = &mut self.body;
        out.push(
            has(flag::MANAGER, manager.is_some())
                | has(flag::KEY, key.is_some())
                | has(flag::CAUSE, cause.is_some())
                | has(flag::TRACE, trace.is_some())
                | has(flag::TIMEOUT, timeout_ms.is_some())
                | has(flag::HEADERS, headers.is_some())
                | has(flag::TRIED, tried > 0 || redelivered),
        );
        self.names.put(out, name);
        self.processes.put(out, id);
        if let Some(manager) = manager {
            self.managers.put(out, manager);
        }
        if let Some(key) = key {
            put_text(out, key);
        }
        if let Some(cause) = cause {
            self.processes.put(out, cause);
        }
        if let Some(trace) = trace {
            out.extend_from_slice(&trace.trace_id().to_be_bytes());
            put_random(out, trace.span_id());
            out.push(trace.flags());
        }
        if let Some(timeout_ms) = timeout_ms {
            put_number(out, timeout_ms);
        }
        if let Some(headers) = headers {
            put_number(out, headers.iter().count() as u64);
            for (name, value) in headers.iter() {
                put_text(out, name);
                put_text(out, value);
            }
        }
        if tried > 0 || redelivered {
            put_number(out, u64::from(tried) << 1 | u64::from(redelivered));
        }
    }
}

/// Calls `write`, and takes back what it has appended when it fails, or panics: a payload is written by code of others.
#[inline]
fn or_nothing<T, E>(body: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<T, E>) -> Result<T, E> {
    struct Kept<'b> {
        body: &'b mut Vec<u8>,
        length: usize,
    }

    impl Drop for Kept<'_> {
        fn drop(&mut self) {
            self.body.truncate(self.length);
        }
    }

    let length = body.len();
    let mut kept = Kept { body, length };
    let written = write(kept.body);
    if written.is_ok() {
        kept.length = kept.body.len();
    }
    written
}

#[inline]
fn put_payload<E>(
    out: &mut Vec<u8>,
    encoding: Encoding,
    payload: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<usize, Unwritten<E>> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    payload(out).map_err(Unwritten::Payload)?;
    let bytes = out.len().checked_sub(at + 4).expect("what writes a payload only appends to what it is given");
    let length = payload_length(encoding, bytes).map_err(Unwritten::TooLong)?;
    out[at..at + 4].copy_from_slice(&length);
    Ok(bytes)
}

/// What [`Writer::data`] writes before a payload of so many bytes: for one that is long enough to be passed on as it is.
///
/// # Errors
///
/// [`TooLong`].
pub fn data_head(encoding: Encoding, bytes: usize) -> Result<[u8; 5], TooLong> {
    let [a, b, c, d] = payload_length(encoding, bytes)?;
    Ok([kind::DATA, a, b, c, d])
}

/// What stands before a payload of so many bytes.
fn payload_length(encoding: Encoding, bytes: usize) -> Result<[u8; 4], TooLong> {
    let max = limits::PAYLOAD_BYTES_MAX;
    if bytes > max {
        return Err(TooLong { bytes, max });
    }
    let json = if encoding == Encoding::Json { JSON } else { 0 };
    Ok((bytes as u32 | json).to_be_bytes())
}

fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome<'_>) -> Result<(), TooLong> {
    match outcome {
        Outcome::Value(value) => {
            out.push(outcome::VALUE);
            out.extend_from_slice(&payload_length(value.encoding(), value.bytes().len())?);
            out.extend_from_slice(value.bytes());
            Ok(())
        }
        Outcome::Failure(fault) => {
            out.push(outcome::FAILURE);
            put_fault(out, fault)
        }
        Outcome::Error(fault) => {
            out.push(outcome::ERROR);
            put_fault(out, fault)
        }
    }
}

fn put_fault(out: &mut Vec<u8>, fault: &Fault<'_>) -> Result<(), TooLong> {
    let mut written = Vec::new();
    write_messagepack(fault, &mut written).expect("texts and numbers can be written to memory");
    let (bytes, max) = (written.len(), limits::PAYLOAD_BYTES_MAX);
    if bytes > max {
        return Err(TooLong { bytes, max });
    }
    put_number(out, bytes as u64);
    out.extend_from_slice(&written);
    Ok(())
}

fn texts_bytes(head: &EventHead<'_>) -> usize {
    let headers = head.headers.into_iter().flat_map(|headers| headers.iter());
    head.name.len()
        + head.manager.map_or(0, str::len)
        + head.key.map_or(0, str::len)
        + headers.map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

fn put_grant(out: &mut Vec<u8>, grant: Grant) {
    put_number(out, grant.items);
    put_number(out, grant.bytes);
}

/// The texts of one sort that the body has already: where in it they stand.
#[derive(Debug, Default)]
struct Texts {
    known: Vec<Range<usize>>,
    by_hash: HashTable<(u64, usize)>,
    /// The index of the one that was written last.
    last: usize,
}

impl Texts {
    /// Appends 0 and the text, or the index of the text, and 1 more.
    #[inline]
    fn put(&mut self, out: &mut Vec<u8>, text: &str) {
        if self.known.get(self.last).is_none_or(|known| out[known.clone()] != *text.as_bytes()) {
            let hash = key_hash(text);
            let found = self.by_hash.find(hash, |(_, index)| out[self.known[*index].clone()] == *text.as_bytes());
            match found {
                Some((_, index)) => self.last = *index,
                None => return self.put_new(out, hash, text),
            }
        }
        put_number(out, self.last as u64 + 1);
    }

    fn put_new(&mut self, out: &mut Vec<u8>, hash: u64, text: &str) {
        put_number(out, 0);
        put_text(out, text);
        self.last = self.known.len();
        self.known.push(out.len() - text.len()..out.len());
        self.by_hash.insert_unique(hash, (hash, self.last), |(hash, _)| *hash);
    }

    fn clear(&mut self) {
        self.known.clear();
        self.by_hash.clear();
        self.last = 0;
    }
}

/// How many of the processes that were named last are looked through for one. One that is not among them is named anew.
const PROCESSES_LOOKED_THROUGH: usize = 8;

/// The processes that the body has ids of already, and the sequence number of the last.
#[derive(Debug, Default)]
struct Processes {
    known: Vec<(u64, u64)>,
}

impl Processes {
    /// Appends 0 and the process, or the index of the process, and 1 more; then how far the sequence number is from the
    /// last of that process.
    #[inline]
    fn put(&mut self, out: &mut Vec<u8>, id: EventId) {
        let (process, sequence) = (id.process(), id.sequence());
        let among = self.known.iter_mut().enumerate().rev().take(PROCESSES_LOOKED_THROUGH);
        for (index, (known, last)) in among {
            if *known == process {
                put_number(out, index as u64 + 1);
                put_number(out, zigzag(sequence.wrapping_sub(*last) as i64));
                *last = sequence;
                return;
            }
        }
        put_number(out, 0);
        put_random(out, process);
        put_number(out, zigzag(sequence as i64));
        self.known.push((process, sequence));
    }
}
