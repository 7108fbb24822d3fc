//! How long it takes to write and to read the frames that a busy connection is made of. Run by hand:
//! `cargo test --release -p edri-protocol --test timing -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use edri_events::{Encoding, EventId, TraceContext};
use edri_protocol::{Ack, Call, Data, Frame, Payload, Response, limits};

/// The shortest of many rounds: what disturbs a round only makes it longer.
fn nanoseconds(mut work: impl FnMut()) -> f64 {
    const TIMES: u32 = 1000;
    let round = |_| {
        let begin = Instant::now();
        (0..TIMES).for_each(|_| work());
        begin.elapsed()
    };
    (0..200).map(round).min().map_or(f64::NAN, |shortest: Duration| shortest.as_nanos() as f64 / f64::from(TIMES))
}

#[test]
#[ignore = "prints figures and tests nothing"]
fn frames() {
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        let payload = encoding.encode(&"x".repeat(62)).expect("encodes");
        let payload = || Some(Payload::new(encoding, &payload));
        let plain = Call { id: 7, event: "quake.recorded".into(), payload: payload(), ..Call::default() };
        let full = Call {
            event_id: Some(EventId::next()),
            origin: Some("north-1/sensors".into()),
            timeout_ms: Some(1500),
            trace: Some(TraceContext::root(EventId::next())),
            ..plain.clone()
        };
        let ack = Ack { done: (0..64).map(|at| 1_000_000 + 2 * at).collect(), begun: Some(1_000_128) };
        let response = Response { id: 7, value: payload(), ..Response::default() };
        let data = Data { id: 7, payload: payload().expect("some") };
        for (name, frame) in [
            ("publish, 64 B", Frame::Publish(plain)),
            ("publish, 64 B, as a node sends it", Frame::Publish(full)),
            ("response, 64 B", Frame::Response(response)),
            ("data, 64 B", Frame::Data(data)),
            ("ack of 64", Frame::Ack(ack)),
        ] {
            let mut bytes = Vec::new();
            frame.encode(encoding, limits::FRAME_BYTES_MAX, &mut bytes).expect("encodes");
            let read = nanoseconds(|| {
                black_box(Frame::decode(black_box(&bytes))).expect("decodes");
            });
            let mut out = Vec::with_capacity(1024);
            let write = nanoseconds(|| {
                out.clear();
                black_box(&frame).encode(encoding, limits::FRAME_BYTES_MAX, &mut out).expect("encodes");
                black_box(&out);
            });
            println!("{encoding:?} {name}: {} bytes, read {read:.0} ns, write {write:.0} ns", bytes.len());
        }
    }
}
