//! What holds for every frame and for any bytes.

use bytes::BytesMut;
use edri_events::Encoding;
use edri_protocol::{Frame, limits, split};
use proptest::collection::vec;
use proptest::prelude::*;

use self::allocator::allocated;
use self::damage::damage;
use self::frames::{encoding, frame};
use self::fuzz_one::fuzz_one;

mod allocator;
mod damage;
mod frames;
mod fuzz_one;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_reads_back_as_it_was(sample in frame(), encoding in encoding()) {
        let bytes = sample.encode(encoding);
        prop_assert_eq!(Frame::encoding_of(&bytes), encoding);
        sample.with(encoding, |frame| {
            prop_assert_eq!(&Frame::decode(&bytes), &Ok(frame.clone()));
            Ok(())
        })?;
        fuzz_one(&bytes);
    }

    #[test]
    fn frames_come_out_of_a_stream_as_they_went_in(
        samples in vec(frame(), 0..8),
        encoding in encoding(),
        chunks in vec(1_usize..200, 1..20),
    ) {
        let mut stream = Vec::new();
        for sample in &samples {
            let written =
                sample.with(encoding, |frame| frame.encode_to_stream(encoding, limits::FRAME_BYTES_MAX, &mut stream));
            prop_assert_eq!(written, Ok(()));
        }
        let (mut read, mut rest) = (BytesMut::new(), &stream[..]);
        let mut frames = Vec::new();
        for chunk in chunks.iter().cycle() {
            let (now, later) = rest.split_at((*chunk).min(rest.len()));
            read.extend_from_slice(now);
            rest = later;
            while let Some(frame) = split(&mut read, limits::FRAME_BYTES_MAX).expect("none is too long") {
                frames.push(frame);
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(read.is_empty());
        prop_assert_eq!(frames, samples.iter().map(|sample| sample.encode(encoding)).collect::<Vec<_>>());
    }

    #[test]
    fn a_frame_that_is_too_long_leaves_nothing_behind(sample in frame(), encoding in encoding(), less in 1_usize..9) {
        let bytes = sample.encode(encoding);
        let max = bytes.len().saturating_sub(less);
        let mut out = b"before".to_vec();
        let error = sample.with(encoding, |frame| frame.encode(encoding, max, &mut out)).expect_err("too long");
        prop_assert_eq!(error.code(), "frame_too_long");
        let error = sample.with(encoding, |frame| frame.encode_to_stream(encoding, max, &mut out)).expect_err("too long");
        prop_assert_eq!(error.code(), "frame_too_long");
        prop_assert_eq!(&out[..], b"before");
    }

    #[test]
    fn damaged_frames_do_no_harm(sample in frame(), encoding in encoding(), damages in vec(damage(), 1..4)) {
        let mut bytes = sample.encode(encoding);
        for damage in damages {
            damage.strike(&mut bytes);
        }
        reads_within_bounds(&bytes);
        fuzz_one(&bytes);
    }

    #[test]
    fn any_bytes_do_no_harm(mut bytes in vec(any::<u8>(), 0..300), begins in 0_usize..4) {
        bytes.splice(0..0, [&b""[..], b"\x81", b"\x81\xa7publish\x8f", b"{"][begins].iter().copied());
        reads_within_bounds(&bytes);
        fuzz_one(&bytes);
    }
}

/// What reading takes beside a multiple of the length: a list of the most numbers, the texts of an error.
const CONSTANT: usize = 3 << 19;
/// What the values of schemas take.
const CONSTANT_OF_SCHEMAS: usize = 48 << 20;
/// A byte may become a text's escape in an error (`\u{1}`), in a buffer that has just doubled.
const MULTIPLE: usize = 16;

#[track_caller]
fn reads_within_bounds(bytes: &[u8]) {
    let (_, allocated) = allocated(|| Frame::decode(bytes).map(|_| ()));
    let most = CONSTANT + MULTIPLE * bytes.len();
    assert!(allocated.peak <= most, "{allocated:?} of {} bytes; the most are {most}", bytes.len());
}

/// A MessagePack frame of this name and field; `value` follows the field's name.
fn messagepack(name: &str, fields: &[(&str, &[u8])]) -> Vec<u8> {
    let text = |text: &str| [&[0xa0 | text.len() as u8], text.as_bytes()].concat();
    let mut bytes = [&[0x81][..], &text(name), &[0x80 | fields.len() as u8]].concat();
    for (field, value) in fields {
        bytes.extend(text(field));
        bytes.extend_from_slice(value);
    }
    bytes
}

#[test]
fn a_length_that_is_not_there_allocates_nothing() {
    let fields =
        [("publish", "event"), ("publish", "headers"), ("publish", "payload"), ("ack", "done"), ("ping", "new")];
    let fields = fields.into_iter().chain([("hello", "events"), ("declare", "events"), ("response", "failure")]);
    for (name, field) in fields {
        for marker in [0xc6, 0xc9, 0xdb, 0xdd, 0xdf] {
            for length in [u32::MAX, 1 << 31, 1 << 24] {
                let value = [&[marker][..], &length.to_be_bytes(), &[0xc0; 20]].concat();
                let bytes = messagepack(name, &[(field, &value)]);
                let (read, allocated) = allocated(|| Frame::decode(&bytes).map(|_| ()));
                assert!(read.is_err(), "{name}.{field} {marker:x} {length}");
                assert!(allocated.peak < 4096, "{allocated:?} for {name}.{field} {marker:x} {length}");
            }
        }
    }
}

#[test]
fn what_nests_deep_does_not_use_up_the_stack() {
    for depth in [100, 10_000, 200_000] {
        for opens in [&b"\x91"[..], b"\x81\xa1a", b"\xdd\x00\x00\x00\x01", b"\xde\x00\x01\xc0", b"\xc7\xff\x01"] {
            let deep = opens.repeat(depth);
            let frames = [("ping", "new"), ("publish", "headers"), ("publish", "payload"), ("ack", "done")];
            for (name, field) in frames {
                let bytes = messagepack(name, &[(field, &deep)]);
                reads_within_bounds(&bytes);
                assert!(Frame::decode(&bytes).is_err());
            }
            assert!(Frame::decode(&deep).is_err());
        }
        for opens in ["[", r#"{"a":"#] {
            let deep = opens.repeat(depth);
            for before in
                ["", "{\"ping\":", "{\"ping\":{\"new\":", "{\"data\":{\"payload\":", "{\"publish\":{\"headers\":"]
            {
                let bytes = format!("{before}{deep}");
                reads_within_bounds(bytes.as_bytes());
                assert!(Frame::decode(bytes.as_bytes()).is_err());
            }
        }
    }
}

#[test]
fn long_frames_take_a_small_multiple_of_their_length() {
    const LONG: usize = 1 << 18;
    let schemas = |schema: &[u8]| {
        let declaration = [&b"\x83\xa4name\xa1a\xa4kind\xa7request\xa7schemas\x81\xa5event"[..], schema].concat();
        let count = (LONG / declaration.len()).max(1);
        let list = [&[0xdd][..], &(count as u32).to_be_bytes(), &declaration.repeat(count)].concat();
        messagepack("declare", &[("events", &list)])
    };
    let list = |item: &[u8], count: usize| [&[0xdd][..], &(count as u32).to_be_bytes(), &item.repeat(count)].concat();
    let map = |entry: &[u8], count: usize| [&[0xdf][..], &(count as u32).to_be_bytes(), &entry.repeat(count)].concat();
    let text = |byte: u8| [&[0xdb][..], &(LONG as u32).to_be_bytes(), &[byte].repeat(LONG)].concat();
    let frames = [
        messagepack("ack", &[("done", &list(&[7], LONG))]),
        messagepack("ack", &[("done", &list(&[7], limits::ACKS_MAX))]),
        messagepack("publish", &[("headers", &map(b"\xa0\xa0", LONG / 2))]),
        messagepack("hello", &[("handlers", &list(b"\x81\xa6select\xa0", LONG / 9))]),
        messagepack("hello", &[("handlers", &list(b"\x81\xa6select\xa0", limits::HANDLERS_MAX))]),
        messagepack("hello", &[("events", &list(b"\x82\xa4name\xa0\xa4kind\xa6tunnel", limits::EVENTS_MAX))]),
        messagepack("bye", &[("error", &[&b"\x81\xa4wait\x81\xa6groups"[..], &list(b"\xa0", LONG)].concat())]),
        // Texts where numbers, flags, ids and names of variants are expected: they come back in the error.
        messagepack("cancel", &[("id", &text(1))]),
        messagepack("hello", &[("role", &text(1))]),
        messagepack("publish", &[("redelivered", &text(1))]),
        messagepack("publish", &[("event_id", &text(1))]),
        messagepack("publish", &[("trace", &text(b'-'))]),
        messagepack("publish", &[("event", &text(0xff))]),
        [br#"{"cancel":{"id":""#.to_vec(), b"\\u0001".repeat(LONG / 6), b"\"}}".to_vec()].concat(),
        [br#"{"publish":{"event":""#.to_vec(), b"\\n".repeat(LONG / 2), b"\"}}".to_vec()].concat(),
        [br#"{"data":{"payload":""#.to_vec(), b"\\n".repeat(LONG / 2), b"\"}}".to_vec()].concat(),
        [br#"{"cancel":{"id":"#.to_vec(), b"1".repeat(LONG), b"}}".to_vec()].concat(),
    ];
    for bytes in frames {
        reads_within_bounds(&bytes);
    }
    // A map of one entry takes a whole node of a tree; only their number is limited.
    let frames = [
        schemas(&list(b"\xc0", LONG)),
        schemas(&map(b"\xa0\xc0", LONG)),
        schemas(&[&b"\x81\xa0"[..], &list(b"\xc0", 2000)].concat()),
        schemas(&[&b"\x81\xa0"[..], &list(b"\x81\xa0\xc0", 2000)].concat()),
        schemas(b"\x81\xa0\x81\xa0\x81\xa0\xc0"),
    ];
    for bytes in frames {
        let (_, allocated) = allocated(|| Frame::decode(&bytes).map(drop));
        assert!(
            allocated.peak < CONSTANT_OF_SCHEMAS + MULTIPLE * bytes.len(),
            "{allocated:?} of {} bytes",
            bytes.len()
        );
    }
}

#[test]
fn a_schema_has_no_more_values_than_the_limit() {
    for (values, is_read) in [(limits::SCHEMA_VALUES_MAX - 2, true), (limits::SCHEMA_VALUES_MAX - 1, false)] {
        // The map and the list count too.
        let schema = format!(r#"{{"enum":[{}1]}}"#, "1,".repeat(values - 1));
        let frame =
            format!(r#"{{"declare":{{"events":[{{"name":"a","kind":"request","schemas":{{"up":{schema}}}}}]}}}}"#);
        assert_eq!(Frame::decode(frame.as_bytes()).is_ok(), is_read, "{values}");
    }
}

#[test]
fn a_plain_call_is_read_without_an_allocation() {
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        let payload = encoding.encode(&("north", 4.7)).expect("encodes");
        let call = edri_protocol::Call {
            id: 7,
            event: "quake.recorded".into(),
            payload: Some(edri_protocol::Payload::new(encoding, &payload)),
            handler: 3,
            event_id: Some(edri_events::EventId::next()),
            origin: Some("north-1/sensors".into()),
            key: Some("north".into()),
            timeout_ms: Some(1500),
            trace: Some(edri_events::TraceContext::root(edri_events::EventId::next())),
            ..Default::default()
        };
        let ack = edri_protocol::Ack { done: Vec::new(), begun: Some(7), received: None };
        let data = edri_protocol::Data { id: 7, payload: edri_protocol::Payload::new(encoding, &payload) };
        for frame in [Frame::Publish(call), Frame::Ack(ack), Frame::Data(data)] {
            let mut bytes = Vec::with_capacity(1024);
            let (_, written) = allocated(|| frame.encode(encoding, 1024, &mut bytes).expect("encodes"));
            let (read, allocated) = allocated(|| Frame::decode(&bytes).map(drop));
            assert_eq!(read, Ok(()));
            assert_eq!((allocated.count, written.count), (0, 0), "{encoding:?} {frame:?}");
        }
    }
}

#[test]
fn a_payload_shares_the_memory_of_its_frame() {
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        let payload = encoding.encode(&"x".repeat(10_000)).expect("encodes");
        let data = edri_protocol::Data { id: 7, payload: edri_protocol::Payload::new(encoding, &payload) };
        let mut bytes = Vec::new();
        Frame::Data(data).encode(encoding, limits::FRAME_BYTES_MAX, &mut bytes).expect("encodes");
        let bytes = bytes::Bytes::from(bytes);
        let Ok(Frame::Data(data)) = Frame::decode(&bytes) else { panic!("not the frame") };
        let body = data.payload.to_body(&bytes);
        assert_eq!(body.bytes, payload);
        assert!(bytes.as_ptr_range().contains(&body.bytes.as_ptr()), "{encoding:?}");
        // Bytes of another frame are copied, not shared by mistake.
        assert_eq!(data.payload.to_body(&bytes::Bytes::from_static(b"other")).bytes, payload);
    }
}
