//! A short way for the frames that there are most of: requests, notifications and their answers in MessagePack, with the
//! fields that all of them have. What is not exactly that goes the general way, which alone decides what is a frame.

use edri_events::{Encoding, EventId};

use crate::{Call, Frame, Payload, Response};

// ---- reading -------------------------------------------------------------------------------------------------------

/// The frame of these bytes if it is one of the usual ones.
pub(crate) fn read(bytes: &[u8]) -> Option<Frame<'_>> {
    let rest = bytes.strip_prefix(b"\x81")?;
    if let Some(rest) = rest.strip_prefix(b"\xa8response\x82\xa2id") {
        let mut reader = Reader(rest);
        let id = reader.uint()?;
        reader.0 = reader.0.strip_prefix(b"\xa5value")?;
        let value = Some(Payload::new(Encoding::MessagePack, reader.bytes()?));
        return reader.0.is_empty().then(|| Frame::Response(Response { id, value, ..Response::default() }));
    }
    if let Some(rest) = rest.strip_prefix(b"\xa7request") {
        return call(rest).map(Frame::Request);
    }
    rest.strip_prefix(b"\xa7publish").and_then(call).map(Frame::Publish)
}

fn call(bytes: &[u8]) -> Option<Call<'_>> {
    let (&fields, rest) = bytes.split_first()?;
    let mut reader = Reader(rest);
    let mut call = Call::default();
    let mut seen = 0_u8;
    for _ in 0..fields.checked_sub(0x80).filter(|fields| *fields < 16)? {
        let field = match reader.text()? {
            "id" => {
                call.id = reader.uint()?;
                0
            }
            "event" => {
                call.event = reader.text()?.into();
                1
            }
            "payload" => {
                call.payload = Some(Payload::new(Encoding::MessagePack, reader.bytes()?));
                2
            }
            "handler" => {
                call.handler = u32::try_from(reader.uint()?).ok()?;
                3
            }
            "event_id" => {
                call.event_id = Some(reader.text()?.parse().ok()?);
                4
            }
            "origin" => {
                call.origin = Some(reader.text()?.into());
                5
            }
            "timeout_ms" => {
                call.timeout_ms = Some(reader.uint()?);
                6
            }
            _ => return None,
        };
        if seen & 1 << field != 0 {
            return None;
        }
        seen |= 1 << field;
    }
    let has_event = seen & 2 != 0;
    (has_event && reader.0.is_empty()).then_some(call)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn uint(&mut self) -> Option<u64> {
        let [marker] = self.array()?;
        match marker {
            0..=0x7f => Some(marker.into()),
            0xcc => self.array().map(|[byte]| byte.into()),
            0xcd => self.array().map(|bytes| u16::from_be_bytes(bytes).into()),
            0xce => self.array().map(|bytes| u32::from_be_bytes(bytes).into()),
            0xcf => self.array().map(u64::from_be_bytes),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        let [marker] = self.array()?;
        let count = match marker {
            0xa0..=0xbf => usize::from(marker - 0xa0),
            0xd9 => self.array().map(|[byte]| usize::from(byte))?,
            0xda => self.array().map(|bytes| usize::from(u16::from_be_bytes(bytes)))?,
            _ => return None,
        };
        std::str::from_utf8(self.take(count)?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let [marker] = self.array()?;
        let count = match marker {
            0xc4 => self.array().map(|[byte]| usize::from(byte))?,
            0xc5 => self.array().map(|bytes| usize::from(u16::from_be_bytes(bytes)))?,
            0xc6 => self.array().map(|bytes| u32::from_be_bytes(bytes) as usize)?,
            _ => return None,
        };
        self.take(count)
    }
}

// ---- writing -------------------------------------------------------------------------------------------------------

/// Appends the frame to `out` as the general way would, if it is one of the usual ones; otherwise `out` is unchanged.
pub(crate) fn write(frame: &Frame<'_>, out: &mut Vec<u8>) -> bool {
    match frame {
        Frame::Response(Response { id, value: Some(value), failure: None, error: None, from: None, more: false })
            if value.encoding() == Encoding::MessagePack =>
        {
            out.extend_from_slice(b"\x81\xa8response\x82\xa2id");
            uint(*id, out);
            out.extend_from_slice(b"\xa5value");
            bytes(value.bytes(), out)
        }
        Frame::Request(call) => write_call(b"\x81\xa7request", call, out),
        Frame::Publish(call) => write_call(b"\x81\xa7publish", call, out),
        _ => false,
    }
}

fn write_call(name: &[u8], call: &Call<'_>, out: &mut Vec<u8>) -> bool {
    let Call {
        id,
        event,
        payload: Some(payload),
        handler,
        event_id: Some(event_id),
        origin: Some(origin),
        key: None,
        cause: None,
        timeout_ms,
        trace: None,
        headers,
        tried: 0,
        redelivered: false,
        to: None,
        all: false,
        credit: None,
        subscription: None,
    } = call
    else {
        return false;
    };
    if !headers.is_empty() || payload.encoding() != Encoding::MessagePack {
        return false;
    }
    let begin = out.len();
    out.reserve(name.len() + 128 + event.len() + payload.bytes().len() + origin.len());
    out.extend_from_slice(name);
    out.push(0x84 + u8::from(*id != 0) + u8::from(*handler != 0) + u8::from(timeout_ms.is_some()));
    if *id != 0 {
        out.extend_from_slice(b"\xa2id");
        uint(*id, out);
    }
    out.extend_from_slice(b"\xa5event");
    let mut written = text(event, out);
    out.extend_from_slice(b"\xa7payload");
    written &= bytes(payload.bytes(), out);
    if *handler != 0 {
        out.extend_from_slice(b"\xa7handler");
        uint((*handler).into(), out);
    }
    out.extend_from_slice(b"\xa8event_id\xd9\x20");
    out.extend_from_slice(&digits(*event_id));
    out.extend_from_slice(b"\xa6origin");
    written &= text(origin, out);
    if let Some(left) = timeout_ms {
        out.extend_from_slice(b"\xaatimeout_ms");
        uint(*left, out);
    }
    if !written {
        out.truncate(begin);
    }
    written
}

fn uint(number: u64, out: &mut Vec<u8>) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, number as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

/// Writes a text that is not longer than such texts are; false otherwise.
fn text(text: &str, out: &mut Vec<u8>) -> bool {
    match text.len() {
        count @ 0..=31 => out.push(0xa0 | count as u8),
        count @ 32..=255 => out.extend_from_slice(&[0xd9, count as u8]),
        _ => return false,
    }
    out.extend_from_slice(text.as_bytes());
    true
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    match bytes.len() {
        count @ 0..=0xff => out.extend_from_slice(&[0xc4, count as u8]),
        count @ 0x100..=0xffff => {
            out.push(0xc5);
            out.extend_from_slice(&(count as u16).to_be_bytes());
        }
        count @ 0x1_0000..=0xffff_ffff => {
            out.push(0xc6);
            out.extend_from_slice(&(count as u32).to_be_bytes());
        }
        _ => return false,
    }
    out.extend_from_slice(bytes);
    true
}

/// An event's id as it is written.
fn digits(id: EventId) -> [u8; 32] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let number = u128::from(id.process()) << 64 | u128::from(id.sequence());
    let mut digits = [0; 32];
    for (place, byte) in number.to_be_bytes().into_iter().enumerate() {
        digits[2 * place] = HEX[usize::from(byte >> 4)];
        digits[2 * place + 1] = HEX[usize::from(byte & 15)];
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u64; 12] =
        [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, (1 << 53) - 1, u64::MAX];

    /// Both ways write the same, and read the same back.
    fn check(frame: &Frame<'_>) -> Vec<u8> {
        let (mut usual, mut general) = (Vec::new(), Vec::new());
        frame.write_generally(Encoding::MessagePack, &mut general).expect("written");
        assert!(write(frame, &mut usual), "{frame:?} is usual");
        assert_eq!(usual, general, "{frame:?}");
        assert_eq!(read(&usual).as_ref(), Some(frame));
        assert_eq!(Frame::read_generally(&usual).as_ref(), Ok(frame));
        usual
    }

    fn call<'a>(number: u64, payload: &'a [u8], event: &'a str) -> Call<'a> {
        Call {
            id: number,
            event: event.into(),
            payload: Some(Payload::new(Encoding::MessagePack, payload)),
            handler: number as u32,
            event_id: EventId::from_parts((u64::MAX - number) | 1, number),
            origin: Some("node/manager".into()),
            timeout_ms: (!number.is_multiple_of(3)).then_some(number),
            ..Call::default()
        }
    }

    #[test]
    fn the_short_way_and_the_general_one_write_and_read_the_same() {
        for number in EDGES {
            for count in [0, 1, 31, 32, 255, 256, 65_535, 65_536] {
                let payload = vec![0xc1; count];
                let name = "n".repeat(count.min(255));
                check(&Frame::Request(call(number, &payload, &name)));
                check(&Frame::Publish(call(number, &payload, &name)));
                let value = Some(Payload::new(Encoding::MessagePack, &payload));
                check(&Frame::Response(Response { id: number, value, ..Response::default() }));
            }
        }
        let long = "n".repeat(256);
        let mut out = vec![7];
        assert!(!write(&Frame::Request(call(1, &[], &long)), &mut out), "not usual");
        assert_eq!(out, [7]);
    }

    #[test]
    fn whatever_bytes_the_short_way_takes_the_general_one_takes_for_the_same() {
        let payload = [1, 2, 3];
        let value = Some(Payload::new(Encoding::MessagePack, &payload));
        let frames = [
            check(&Frame::Request(call(300, &payload, "quake.recorded"))),
            check(&Frame::Publish(call(5, &payload, "a"))),
            check(&Frame::Response(Response { id: 300, value, ..Response::default() })),
        ];
        let same = |bytes: &[u8]| {
            if let Some(frame) = read(bytes) {
                assert_eq!(Frame::read_generally(bytes), Ok(frame), "{bytes:?}");
            }
        };
        for frame in frames {
            for place in 0..frame.len() {
                same(&frame[..place]);
                let mut changed = frame.clone();
                for byte in 0..=u8::MAX {
                    changed[place] = byte;
                    same(&changed);
                    let mut longer = frame.clone();
                    longer.insert(place, byte);
                    same(&longer);
                }
                let mut shorter = frame.clone();
                shorter.remove(place);
                same(&shorter);
            }
        }
        // A field that comes twice.
        same(b"\x81\xa7request\x82\xa5event\xa1a\xa5event\xa1a");
        assert_eq!(read(b"\x81\xa7request\x82\xa5event\xa1a\xa5event\xa1a"), None);
    }
}
