//! An event on its way.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use crate::payload::{Decoded, Described, Encoded, Payload};
use crate::{Body, CodecError, Data, DescriptorRef, Encoding, Event, EventId, EventName, Origin, TraceContext};

/// What routing, tracing and accounting know of an event.
#[derive(Debug, Clone)]
pub struct Head {
    /// The event's id.
    pub id: EventId,
    /// What the event is.
    pub descriptor: DescriptorRef,
    /// Who sent it.
    pub origin: Origin,
    /// The event that made this one.
    pub cause: Option<EventId>,
    /// When it loses its meaning: the end of a notification's time to live, the deadline of a request.
    pub deadline: Option<Instant>,
    /// Where it stands in a trace; `None` when a trace begins with it.
    pub trace: Option<TraceContext>,
    /// When it was sent, on the events whose way is timed.
    pub stamped: Option<Instant>,
    /// Boxed because most events have none of it, and every byte of a head crosses from one core to another.
    extra: Option<Box<Extra>>,
}

/// What few events have in their head.
#[derive(Debug, Clone, Default)]
struct Extra {
    headers: Headers,
    key: Option<Box<str>>,
}

impl Head {
    /// The head of a new event from `origin`, with a fresh id and nothing optional.
    #[must_use]
    #[inline(always)]
    pub fn new(descriptor: DescriptorRef, origin: impl Into<Origin>) -> Self {
        Self {
            id: EventId::next(),
            descriptor,
            origin: origin.into(),
            cause: None,
            deadline: None,
            trace: None,
            stamped: None,
            extra: None,
        }
    }

    /// As [`Head::new`], with what some events have: made in one piece, where setting one after the other costs a copy of the whole.
    #[doc(hidden)]
    #[must_use]
    #[inline(always)]
    pub fn in_one_piece(
        id: EventId,
        descriptor: DescriptorRef,
        origin: Origin,
        cause: Option<EventId>,
        deadline: Option<Instant>,
        trace: Option<TraceContext>,
        stamped: Option<Instant>,
    ) -> Self {
        Self { id, descriptor, origin, cause, deadline, trace, stamped, extra: None }
    }

    /// What the sender adds.
    #[must_use]
    pub fn headers(&self) -> Option<&Headers> {
        self.extra.as_ref().map(|extra| &extra.headers).filter(|headers| !headers.0.is_empty())
    }

    /// Sets what the sender adds.
    pub fn set_headers(&mut self, headers: Headers) {
        self.extra.get_or_insert_default().headers = headers;
    }

    /// The key of an untyped event, or one that the sender chose instead of the event's own.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.extra.as_ref()?.key.as_deref()
    }

    /// Sets the key of an untyped event, or one instead of the event's own.
    pub fn set_key(&mut self, key: impl Into<Box<str>>) {
        self.extra.get_or_insert_default().key = Some(key.into());
    }

    /// Takes the key that the descriptor names out of the payload, unless there is one.
    #[inline]
    fn find_key(&mut self, payload: impl FnOnce() -> Result<Body, CodecError>) -> Result<(), CodecError> {
        if let (None, Some(field)) = (self.key(), self.descriptor.key()) {
            let body = payload()?;
            let key = body.key_field(field)?.ok_or_else(|| {
                let words = format!("the payload has no field `{field}`, which is the event's key");
                let source = Box::<dyn Error + Send + Sync>::from(words).into();
                CodecError::Decode { type_name: "the event's key", encoding: body.encoding, source }
            })?;
            self.set_key(key);
        }
        Ok(())
    }
}

/// The contents of an envelope: one allocation for head and payload.
///
/// ```text
/// ┌───────┬──────────┬───────────┐
/// │ head  │ encoded? │ payload P │
/// └───────┴──────────┴───────────┘
///          made when a boundary first asks
/// ```
pub struct Parts<P: ?Sized = dyn Payload> {
    head: Head,
    /// Boxed because an event that stays in its process has none.
    encoded: OnceLock<Box<Encodings>>,
    payload: P,
}

/// The payload's bytes, or why there are none; each tried once, and who asks meanwhile waits for that one try.
#[derive(Default)]
struct Encodings {
    messagepack: OnceLock<Result<Bytes, CodecError>>,
    json: OnceLock<Result<Bytes, CodecError>>,
}

impl Encodings {
    fn of(&self, encoding: Encoding) -> &OnceLock<Result<Bytes, CodecError>> {
        match encoding {
            Encoding::MessagePack => &self.messagepack,
            Encoding::Json => &self.json,
        }
    }
}

// It is written by one core and read by another for every event.
const _: () = assert!(size_of::<Parts<()>>() <= 160);

impl<P> Parts<P> {
    fn new(head: Head, payload: P) -> Arc<Self> {
        Arc::new(Self { head, encoded: OnceLock::new(), payload })
    }

    /// Takes the payload back out.
    pub fn into_payload(self) -> P {
        self.payload
    }
}

impl<P: Payload + ?Sized> Parts<P> {
    /// What routing, tracing and accounting know of the event.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The event's id.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.head.id
    }

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &EventName {
        self.head.descriptor.name()
    }

    /// Where the event stands in a trace.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.head.trace.unwrap_or_else(|| TraceContext::root(self.head.id))
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers()?.get(name)
    }

    /// Calls `with` with the event's key.
    pub fn with_key<R>(&self, with: impl FnOnce(Option<&str>) -> R) -> R {
        if let Some(key) = self.head.key() {
            return with(Some(key));
        }
        let mut with = Some(with);
        let mut result = None;
        self.payload.visit_key(&mut |key| {
            if let Some(with) = with.take() {
                result = Some(with(Some(key)));
            }
        });
        match (result, with) {
            (Some(result), _) => result,
            (None, Some(with)) => with(None),
            (None, None) => unreachable!("the closure was used without a result"),
        }
    }

    /// The event's key as a text of its own.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        self.with_key(|key| key.map(str::to_owned))
    }

    /// The payload's bytes in `encoding`: encoded when first asked for, then kept.
    ///
    /// # Errors
    ///
    /// [`CodecError`] when the payload cannot be written in this encoding.
    pub fn encoded(&self, encoding: Encoding) -> Result<&Bytes, CodecError> {
        let kept = self.encoded.get_or_init(Box::default).of(encoding);
        kept.get_or_init(|| self.payload.encode(encoding)).as_ref().map_err(Clone::clone)
    }

    /// The payload's bytes in `encoding` for one who will be the only one to ask: nothing is kept. They are written to
    /// `scratch`, which is empty, unless they are there already.
    ///
    /// # Errors
    ///
    /// As [`Parts::encoded`].
    pub fn encoded_once<'a>(&'a self, encoding: Encoding, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], CodecError> {
        let kept = self.encoded.get().and_then(|encoded| encoded.of(encoding).get());
        match kept {
            Some(tried) => tried.as_deref().map_err(Clone::clone),
            None => self.payload.encode_to(encoding, scratch).map(|()| &**scratch),
        }
    }
}

impl<P: Payload + ?Sized> Parts<P> {
    /// Appends the payload's bytes in `encoding` to `out`; for one who will be the only one to ask: nothing is kept.
    ///
    /// # Errors
    ///
    /// As [`Parts::encoded`]; `out` may have grown then.
    pub fn append_encoded(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match self.encoded.get().and_then(|encoded| encoded.of(encoding).get()) {
            Some(tried) => out.extend_from_slice(tried.as_deref().map_err(Clone::clone)?),
            None => self.payload.encode_to(encoding, out)?,
        }
        Ok(())
    }
}

impl Parts {
    /// The payload as the typed event `E`; decoded when first asked for if it came as bytes.
    ///
    /// # Errors
    ///
    /// [`CodecError::Decode`] when the bytes are not an `E`, [`CodecError::Type`] when the event is of another type.
    pub fn payload<E: Event>(&self) -> Result<&E, CodecError> {
        if let Some(event) = self.lent() {
            return Ok(event);
        }
        let wrong = || CodecError::Type { wanted: std::any::type_name::<E>(), found: self.payload.type_name() };
        let kept = self.payload.decoded().ok_or_else(wrong)?;
        let decoded = match kept.get() {
            Some(decoded) => decoded,
            None => {
                let event: E = self.decode()?;
                kept.get_or_init(|| Box::new(event))
            }
        };
        decoded.downcast_ref().ok_or_else(wrong)
    }

    /// As [`Parts::payload`], for one who will be the only one to ask: what came as bytes is decoded into `place`, and not kept
    /// with the event, unless somebody else has asked before.
    ///
    /// # Errors
    ///
    /// As [`Parts::payload`].
    #[doc(hidden)]
    #[inline]
    pub fn payload_once<'a, E: Event>(&'a self, place: &'a mut Option<E>) -> Result<&'a E, CodecError> {
        if let Some(event) = self.lent() {
            return Ok(event);
        }
        match self.payload.decoded() {
            Some(kept) if kept.get().is_none() => Ok(place.insert(self.decode()?)),
            _ => self.payload(),
        }
    }

    /// The payload, if it is an `E` and was never anything else.
    #[inline]
    fn lent<E: Event>(&self) -> Option<&E> {
        let payload: &dyn Any = &self.payload;
        payload.downcast_ref::<E>().or_else(|| self.typed::<E>())
    }

    fn decode<E: Event>(&self) -> Result<E, CodecError> {
        let payload: &dyn Any = &self.payload;
        match payload.downcast_ref::<Encoded>() {
            Some(encoded) => encoded.body.decode(),
            None => self.body(Encoding::MessagePack)?.decode(),
        }
    }

    /// The payload of an event that was declared at run time as a `T`, when it was sent as one in this process: nothing was
    /// encoded then, and nothing is decoded.
    #[must_use]
    pub fn typed<T: Data>(&self) -> Option<&T> {
        let payload: &dyn Any = &self.payload;
        payload.downcast_ref::<Described<T>>().map(|described| &described.value)
    }

    /// The payload of an event that was declared at run time as a `T`, whatever it was sent as: what is a `T` is lent, anything else
    /// is decoded, each time it is asked for.
    ///
    /// # Errors
    ///
    /// [`CodecError::Decode`] when it is not a `T`.
    pub fn read<T: Data + Clone>(&self) -> Result<Cow<'_, T>, CodecError> {
        if let Some(value) = self.typed() {
            return Ok(Cow::Borrowed(value));
        }
        let body = self.body(Encoding::MessagePack)?;
        T::decode(body.encoding, &body.bytes).map(Cow::Owned)
    }

    /// The payload's bytes as a [`Body`]: as they came if the event came as bytes, otherwise in `encoding`.
    ///
    /// # Errors
    ///
    /// [`CodecError::Encode`] when the payload cannot be written.
    pub fn body(&self, encoding: Encoding) -> Result<Body, CodecError> {
        let payload: &dyn Any = &self.payload;
        match payload.downcast_ref::<Encoded>() {
            Some(encoded) => Ok(encoded.body.clone()),
            None => Ok(Body { bytes: self.encoded(encoding)?.clone(), encoding }),
        }
    }

    /// Whether the payload is the Rust type `E` already, so that [`Parts::payload`] need not decode.
    #[must_use]
    pub fn is_typed<E: Event>(&self) -> bool {
        Any::type_id(&self.payload) == TypeId::of::<E>()
    }
}

/// An event on its way; cheap to clone, every clone is the same event.
#[derive(Clone)]
pub struct Envelope(Arc<Parts>);

// The hot path moves envelopes between threads and clones them for each subscriber group.
const _: () = {
    const fn sendable<T: Send + Sync>() {}
    sendable::<Envelope>();
    assert!(size_of::<Envelope>() == 16);
};

impl Envelope {
    /// Makes the parts of a typed event; [`Envelope::from`] makes them an envelope.
    #[must_use]
    pub fn typed<E: Event>(head: Head, event: E) -> Arc<Parts<E>> {
        Parts::new(head, event)
    }

    /// Makes the envelope of an encoded event. The key that the descriptor names is taken out of the body, unless the
    /// head has one.
    ///
    /// # Errors
    ///
    /// [`CodecError::Decode`] when the descriptor names a key and the body does not have it.
    #[inline]
    pub fn untyped(head: Head, body: Body) -> Result<Self, CodecError> {
        Self::encoded_event(head, body, OnceLock::new())
    }

    /// As [`Envelope::untyped`], for an event of somebody who is not trusted to know what it is: when the event has a Rust type
    /// in this process the body is decoded now, and its handlers here find it decoded.
    ///
    /// # Errors
    ///
    /// As [`Envelope::untyped`]; [`CodecError::Decode`] also when the body is no event of that type.
    pub fn checked(head: Head, body: Body) -> Result<Self, CodecError> {
        let decoded = match head.descriptor.decode(&body) {
            Some(decoded) => OnceLock::from(decoded?),
            None => OnceLock::new(),
        };
        Self::encoded_event(head, body, decoded)
    }

    #[inline]
    fn encoded_event(mut head: Head, body: Body, decoded: Decoded) -> Result<Self, CodecError> {
        head.find_key(|| Ok(body.clone()))?;
        Ok(Self(Parts::new(head, Encoded { body, decoded })))
    }

    /// Makes the envelope of an event that was declared at run time and whose payload is a Rust value: it stays one while it
    /// stays in the process, and a boundary encodes it as it would an event with a Rust type. Where the descriptor names a key
    /// and the head has none, the value is encoded at once to find it.
    ///
    /// # Errors
    ///
    /// [`CodecError`] when the key is looked for and the value cannot be written or does not have it.
    #[inline(always)]
    pub fn described<T: Data>(mut head: Head, value: T) -> Result<Self, CodecError> {
        head.find_key(|| Ok(Body::new(Encoding::MessagePack, value.encode(Encoding::MessagePack)?)))?;
        Ok(Self(Parts::new(head, Described::new(value))))
    }

    /// How many have it in hand.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// The same event, holding no more memory than its own: a payload that came as bytes may be a part of a larger buffer, as
    /// of a packet with other events in it, and is copied.
    #[must_use]
    pub fn detached(&self) -> Self {
        let payload: &dyn Any = &self.0.payload;
        match payload.downcast_ref::<Encoded>() {
            None => self.clone(),
            Some(encoded) => {
                let body = Body::new(encoded.body.encoding, Bytes::copy_from_slice(&encoded.body.bytes));
                Self(Parts::new(self.head().clone(), Encoded { body, decoded: OnceLock::new() }))
            }
        }
    }
}

impl<E: Event> From<Arc<Parts<E>>> for Envelope {
    fn from(parts: Arc<Parts<E>>) -> Self {
        Self(parts)
    }
}

impl Deref for Envelope {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("head", self.head()).field("payload", &self.0.payload.type_name()).finish()
    }
}

/// What a sender adds to an event beside its payload: names and texts, bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, String>);

/// A header too many or too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header `{name}` exceeds the limit of {max} {what}")]
pub struct HeadersError {
    name: String,
    what: &'static str,
    max: usize,
}

impl Headers {
    /// The most headers an event may have.
    pub const COUNT_MAX: usize = 64;
    /// The longest name and value of a header together, in bytes.
    pub const BYTES_MAX: usize = 8 * 1024;

    /// The header that names who sent an event from outside, by its token. Only a gateway sets it.
    pub const CALLER: &str = "edri-caller";

    /// The header that names the session in which somebody sent an event with a browser. Only a gateway sets it. Nobody can make
    /// the session's cookie from it.
    pub const SESSION: &str = "edri-session";

    /// Sets a header.
    ///
    /// # Errors
    ///
    /// [`HeadersError`] beyond [`Headers::COUNT_MAX`] or [`Headers::BYTES_MAX`]; nothing is changed then.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) -> Result<(), HeadersError> {
        let (name, value) = (name.into(), value.into());
        if name.len() + value.len() > Self::BYTES_MAX {
            return Err(HeadersError { name, what: "bytes", max: Self::BYTES_MAX });
        }
        if self.0.len() >= Self::COUNT_MAX && !self.0.contains_key(&name) {
            return Err(HeadersError { name, what: "headers", max: Self::COUNT_MAX });
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All headers, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::{Address, Descriptor, Incarnation, NodeName};

    /// Takes its time to be written, and counts how often it was; it cannot be written as JSON.
    #[derive(Default)]
    struct Slow {
        tries: [AtomicUsize; 2],
    }

    impl Payload for Slow {
        fn encode(&self, encoding: Encoding) -> Result<Bytes, CodecError> {
            self.tries[usize::from(encoding == Encoding::Json)].fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(50));
            match encoding {
                Encoding::MessagePack => Ok(Bytes::from_static(b"slow")),
                Encoding::Json => encoding.encode(&BTreeMap::from([([1_u8, 2], 3_u8)])),
            }
        }
        fn encode_to(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), CodecError> {
            out.extend_from_slice(&self.encode(encoding)?);
            Ok(())
        }
        fn visit_key(&self, _: &mut dyn FnMut(&str)) {}
        fn type_name(&self) -> &'static str {
            "slow"
        }
    }

    fn head(descriptor: crate::Declaration) -> Head {
        let node = NodeName::new("test").expect("valid");
        let address = Address { node, incarnation: Incarnation::random(), manager: None };
        Head::new(descriptor.build(), Arc::new(address))
    }

    #[test]
    fn a_described_value_is_lent_as_what_it_is_and_read_as_what_it_is_written_as() {
        let declared = || Descriptor::declare("test.described", crate::Kind::Notification).expect("valid");
        let value = BTreeMap::from([("k".to_owned(), 7_u64)]);
        let event = Envelope::described(head(declared().key("k")), value.clone()).expect("has its key");
        assert_eq!(event.key().as_deref(), Some("7"));
        assert_eq!(event.typed(), Some(&value));
        assert!(event.typed::<BTreeMap<String, u8>>().is_none());
        assert!(matches!(event.read::<BTreeMap<String, u64>>(), Ok(Cow::Borrowed(lent)) if *lent == value));
        let read = event.read::<BTreeMap<String, u8>>().expect("is one");
        assert_eq!(read.into_owned(), BTreeMap::from([("k".to_owned(), 7_u8)]));
        assert!(event.read::<String>().is_err());
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            assert_eq!(*event.encoded(encoding).expect("encodes"), encoding.encode(&value).expect("encodes"));
        }
        let lacks = Envelope::described(head(declared().key("other")), value.clone());
        assert!(lacks.is_err_and(|error| error.to_string().contains("`other`")));
        let mut own = head(declared().key("other"));
        own.set_key("given");
        assert_eq!(Envelope::described(own, value).expect("has a key").key().as_deref(), Some("given"));
    }

    #[test]
    fn a_payload_is_encoded_once_also_when_many_threads_ask_at_the_same_moment() {
        const ASKERS: usize = 8;
        let descriptor = Descriptor::declare("test.slow", crate::Kind::Notification).expect("valid");
        let parts = Parts::new(head(descriptor), Slow::default());
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let together = Barrier::new(ASKERS);
            let same: Vec<_> = std::thread::scope(|scope| {
                let ask = || {
                    together.wait();
                    parts.encoded(encoding).map(|bytes| bytes.as_ptr() as usize).map_err(|error| error.to_string())
                };
                let askers: Vec<_> = (0..ASKERS).map(|_| scope.spawn(ask)).collect();
                askers.into_iter().map(|asker| asker.join().expect("no panic")).collect()
            });
            assert!(same.iter().all(|outcome| *outcome == same[0]), "{same:?}");
            assert_eq!(same[0].is_ok(), encoding == Encoding::MessagePack, "{same:?}");
            assert!(parts.encoded_once(encoding, &mut Vec::new()).is_ok() == same[0].is_ok());
        }
        assert_eq!(parts.payload.tries.each_ref().map(|tries| tries.load(Ordering::SeqCst)), [1, 1]);
    }
}
