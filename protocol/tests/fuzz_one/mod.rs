//! What must hold for any bytes. The fuzz target, the corpus and the property tests all call this.

use bytes::{Bytes, BytesMut};
use edri_events::Encoding;
use edri_protocol::{Frame, FrameError, Payload, limits, split};

/// Reads `bytes` as a frame and as a stream. Panics when what was read does not write back the same.
pub(crate) fn fuzz_one(bytes: &[u8]) {
    match Frame::decode(bytes) {
        Ok(Frame::Unknown(_)) => {}
        Ok(frame) => writes_back(&frame, Frame::encoding_of(bytes), bytes),
        Err(FrameError::Malformed(says)) => assert!(says.len() < 300, "{says}"),
        Err(error) => panic!("reading fails with {error:?}"),
    }

    let mut read = BytesMut::from(bytes);
    while let Ok(Some(frame)) = split(&mut read, limits::FRAME_BYTES_MAX) {
        let _ = Frame::decode(&frame);
    }
}

fn writes_back(frame: &Frame<'_>, encoding: Encoding, bytes: &[u8]) {
    let mut once = Vec::new();
    frame.encode(encoding, usize::MAX, &mut once).expect("what was read can be written");
    let again = Frame::decode(&once).expect("what was written can be read");
    let mut twice = Vec::new();
    again.encode(encoding, usize::MAX, &mut twice).expect("it can be written again");
    assert_eq!(once, twice);
    // A figure that is not a number equals nothing.
    if !has_figures(frame) {
        assert_eq!(&again, frame);
    }

    let payload = match frame {
        Frame::Publish(call) | Frame::Request(call) | Frame::Open(call) => call.payload.as_ref(),
        Frame::Response(response) => response.value.as_ref(),
        Frame::Welcome(welcome) => welcome.arguments.as_ref(),
        Frame::Data(data) => Some(&data.payload),
        _ => None,
    };
    if let Some(payload) = payload {
        is_whole_in_another_frame(payload, bytes);
    }
}

fn has_figures(frame: &Frame<'_>) -> bool {
    matches!(frame, Frame::Report(report) if !report.figures.is_empty())
}

/// A payload that was read elsewhere is copied, not sliced out of a frame that it is no part of.
fn is_whole_in_another_frame(payload: &Payload<'_>, bytes: &[u8]) {
    let whole = Bytes::copy_from_slice(bytes);
    let body = payload.to_body(&whole);
    assert_eq!((&body.bytes[..], body.encoding), (payload.bytes(), payload.encoding()));
}
