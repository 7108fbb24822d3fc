use std::iter::FusedIterator;

use edri_events::{Encoding, EventId, Headers, TraceContext};

use super::{Event, Interned, Item, JSON, Keys, Outcome, flag, kind, outcome};
use crate::codec::read_messagepack;
use crate::compact::{Input, unzigzag};
use crate::packet::PacketError;
use crate::{Fault, Grant, Payload, limits};

/// Reads the items of one body, which borrow from it. Nothing comes after an error: where the next item would begin is not
/// known.
#[derive(Debug)]
pub struct Reader<'a> {
    input: Input<'a>,
    names: Vec<&'a str>,
    managers: Vec<&'a str>,
    /// Processes, and the sequence number of the last id of each.
    processes: Vec<(u64, u64)>,
}

impl<'a> Reader<'a> {
    /// A reader of this body.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { input: Input::new(body), names: Vec::new(), managers: Vec::new(), processes: Vec::new() }
    }

    // Always inlined, as `event` is: an event would be copied whole from one result to the next.
    #[inline(always)]
    fn item(&mut self) -> Result<Item<'a>, PacketError> {
        Ok(match self.input.byte()? {
            kind::EVENT => Item::Event(self.event()?),
            kind::REQUEST => Item::Request { call: self.input.number()?, event: self.event()? },
            kind::OPEN => {
                let credit = self.grant()?;
                Item::Open { event: self.event()?, credit }
            }
            kind::RESPONSE => Item::Response { call: self.input.number()?, outcome: self.outcome()? },
            kind::CANCEL => Item::Cancel { call: self.input.number()? },
            kind::DATA => Item::Data(self.payload()?),
            kind::GRANT => Item::Grant(self.grant()?),
            kind::END => Item::End,
            kind::ABORT => Item::Abort(self.fault()?),
            kind::OUTCOME => Item::Outcome(self.outcome()?),
            kind::LEFT => Item::Left { group: self.input.number32()? },
            kind::DIFFERS => Item::Differs {
                event: self.input.text(limits::EVENT_TEXTS_BYTES_MAX)?,
                why: self.input.text(limits::EVENT_TEXTS_BYTES_MAX)?,
            },
            kind::KEYS => Item::Keys(keys(self.input.sized(limits::EVENT_TEXTS_BYTES_MAX)?)?),
            kind::NOTED => noted(self.input.sized(limits::EVENT_TEXTS_BYTES_MAX)?)?,
            kind @ kind::SIZED.. => {
                self.input.sized(limits::PACKET_BYTES_MAX)?;
                Item::Unknown { kind }
            }
            _ => return Err(PacketError::Malformed("an unknown item without a length")),
        })
    }

    #[inline(always)]
    fn event(&mut self) -> Result<Event<'a>, PacketError> {
        let payload = self.payload()?;
        let flags = self.input.byte()?;
        if flags & flag::UNKNOWN != 0 {
            return Err(PacketError::Malformed("an unknown flag"));
        }
        let input = &mut self.input;
        let mut event = Event {
            name: text(input, &mut self.names)?,
            id: id(input, &mut self.processes)?,
            manager: None,
            key: None,
            cause: None,
            trace: None,
            timeout_ms: None,
            headers: Headers::default(),
            tried: 0,
            redelivered: false,
            payload,
        };
        if flags & flag::MANAGER != 0 {
            event.manager = Some(text(input, &mut self.managers)?);
        }
        if flags & flag::KEY != 0 {
            event.key = Some(input.text(limits::EVENT_TEXTS_BYTES_MAX)?);
        }
        if flags & flag::CAUSE != 0 {
            event.cause = Some(id(input, &mut self.processes)?);
        }
        if flags & flag::TRACE != 0 {
            event.trace = Some(trace(input)?);
        }
        if flags & flag::TIMEOUT != 0 {
            event.timeout_ms = Some(input.number()?);
        }
        if flags & flag::HEADERS != 0 {
            event.headers = headers(input)?;
        }
        if flags & flag::TRIED != 0 {
            let tried = input.number()?;
            event.tried = u32::try_from(tried >> 1).map_err(|_| PacketError::Malformed("a number beyond 32 bits"))?;
            event.redelivered = tried & 1 == 1;
        }
        Ok(event)
    }

    #[inline]
    fn payload(&mut self) -> Result<Payload<'a>, PacketError> {
        let length = u32::from_be_bytes(self.input.array()?);
        let encoding = if length & JSON == 0 { Encoding::MessagePack } else { Encoding::Json };
        let (bytes, max) = ((length & !JSON) as usize, limits::PAYLOAD_BYTES_MAX);
        if bytes > max {
            return Err(PacketError::TooLong { bytes, max });
        }
        Ok(Payload::new(encoding, self.input.bytes(bytes)?))
    }

    fn grant(&mut self) -> Result<Grant, PacketError> {
        Ok(Grant { items: self.input.number()?, bytes: self.input.number()? })
    }

    fn outcome(&mut self) -> Result<Outcome<'a>, PacketError> {
        match self.input.byte()? {
            outcome::VALUE => Ok(Outcome::Value(self.payload()?)),
            outcome::FAILURE => Ok(Outcome::Failure(self.fault()?)),
            outcome::ERROR => Ok(Outcome::Error(self.fault()?)),
            _ => Err(PacketError::Malformed("an unknown outcome")),
        }
    }

    fn fault(&mut self) -> Result<Fault<'a>, PacketError> {
        read_messagepack(self.input.sized(limits::PAYLOAD_BYTES_MAX)?).map_err(PacketError::Fault)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Item<'a>, PacketError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.input.is_empty() {
            return None;
        }
        let item = self.item();
        if item.is_err() {
            self.input = Input::new(&[]);
        }
        Some(item)
    }
}

impl FusedIterator for Reader<'_> {}

#[inline]
fn text<'a>(input: &mut Input<'a>, known: &mut Vec<&'a str>) -> Result<Interned<'a>, PacketError> {
    let index = match input.number()? {
        0 => {
            known.push(input.text(limits::EVENT_TEXTS_BYTES_MAX)?);
            known.len() - 1
        }
        number => usize::try_from(number - 1).unwrap_or(usize::MAX),
    };
    let text = known.get(index).ok_or(PacketError::Malformed("the number of a text that was not written"))?;
    Ok(Interned { index, text })
}

#[inline]
fn id(input: &mut Input<'_>, known: &mut Vec<(u64, u64)>) -> Result<EventId, PacketError> {
    let index = match input.number()? {
        0 => {
            known.push((input.random()?, 0));
            known.len() - 1
        }
        number => usize::try_from(number - 1).unwrap_or(usize::MAX),
    };
    let known = known.get_mut(index).ok_or(PacketError::Malformed("the number of a process that was not written"))?;
    let (process, last) = known;
    *last = last.wrapping_add_signed(unzigzag(input.number()?));
    EventId::from_parts(*process, *last).ok_or(PacketError::Malformed("an id of the process zero"))
}

/// What a later version adds behind the fields that are known is left out.
fn keys(bytes: &[u8]) -> Result<Keys<'_>, PacketError> {
    let mut input = Input::new(bytes);
    Ok(Keys {
        manager: input.text(limits::EVENT_TEXTS_BYTES_MAX)?,
        version: input.number()?,
        member: input.byte()? & 1 != 0,
        owned: input.random()?,
        releasing: input.random()?,
        claiming: input.random()?,
    })
}

fn noted(bytes: &[u8]) -> Result<Item<'_>, PacketError> {
    let mut input = Input::new(bytes);
    Ok(Item::Noted {
        manager: input.text(limits::EVENT_TEXTS_BYTES_MAX)?,
        version: input.number()?,
        agreed: input.random()?,
    })
}

fn trace(input: &mut Input<'_>) -> Result<TraceContext, PacketError> {
    let (trace, span, flags) = (u128::from_be_bytes(input.array()?), input.random()?, input.byte()?);
    TraceContext::from_parts(trace, span, flags).ok_or(PacketError::Malformed("a trace with an id of zero"))
}

fn headers(input: &mut Input<'_>) -> Result<Headers, PacketError> {
    let count = input.count("headers", limits::HEADERS_MAX, 2)?;
    let mut headers = Headers::default();
    for _ in 0..count {
        let (name, value) = (input.text(Headers::BYTES_MAX)?, input.text(Headers::BYTES_MAX)?);
        headers
            .insert(name, value)
            .map_err(|_| PacketError::TooLong { bytes: name.len() + value.len(), max: Headers::BYTES_MAX })?;
    }
    Ok(headers)
}
