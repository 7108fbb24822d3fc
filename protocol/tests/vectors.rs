//! The golden vectors of `protocol/vectors/frames.json`, which SDKs in other languages read too.
//!
//! `EDRI_BLESS=1 cargo test -p edri-protocol --test vectors` writes anew what this codec makes of each frame. Look at the
//! difference before you commit it: whatever changes, changes for every SDK that is out there.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::BytesMut;
use edri_events::Encoding;
use edri_protocol::{Frame, limits, split};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::loose::Loose;

mod loose;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    version: u32,
    frames: Vec<Vector>,
    accepted: Vec<Accepted>,
    rejected: Vec<Rejected>,
    streams: Vec<Stream>,
}

/// A frame and the bytes that this codec writes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    frame: Value,
    #[serde(default)]
    json: String,
    #[serde(default)]
    messagepack: String,
    /// The MessagePack of the payload, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

/// Bytes that others may write for a frame.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    name: String,
    frame: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    json: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    messagepack: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rejected {
    name: String,
    encoding: Encoding,
    bytes: String,
    code: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    limit: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stream {
    name: String,
    bytes: String,
    max: usize,
    frames: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "vectors", "frames.json"].iter().collect()
}

fn read() -> Vectors {
    serde_json::from_str(&std::fs::read_to_string(path()).expect("the vectors are there")).expect("they are vectors")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2) && digits.is_ascii(), "{digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

fn encode(frame: &Frame<'_>, encoding: Encoding) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(encoding, limits::FRAME_BYTES_MAX, &mut bytes).expect("encodes");
    bytes
}

/// The frame without what depends on its encoding: its JSON form, made from the fields that were read.
fn form(bytes: &[u8]) -> Value {
    let mut frame = Frame::decode(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)));
    if let Frame::Unknown(name) = &frame {
        return serde_json::json!({ (&**name): null });
    }
    let payload = payload_of(&mut frame).map(|payload| match payload.encoding() {
        Encoding::Json => payload.bytes().to_vec(),
        Encoding::MessagePack => serde_json::to_vec(&Loose::of(payload.bytes()).0).expect("JSON"),
    });
    if let (Some(place), Some(payload)) = (payload_of(&mut frame), &payload) {
        *place = edri_protocol::Payload::new(Encoding::Json, payload);
    }
    serde_json::from_slice(&encode(&frame, Encoding::Json)).expect("JSON")
}

fn payload_of<'f, 'a>(frame: &'f mut Frame<'a>) -> Option<&'f mut edri_protocol::Payload<'a>> {
    match frame {
        Frame::Publish(call) | Frame::Request(call) | Frame::Open(call) => call.payload.as_mut(),
        Frame::Response(response) => response.value.as_mut(),
        Frame::Welcome(welcome) => welcome.arguments.as_mut(),
        Frame::Subscribe(subscribe) => subscribe.conditions.as_mut(),
        Frame::Data(data) => Some(&mut data.payload),
        _ => None,
    }
}

impl Vector {
    /// What the codec of today makes of it. A payload that means the same is kept: bytes and floats that are not finite
    /// have no JSON of their own.
    fn made_anew(&self) -> Self {
        let source = self.frame.to_string();
        let mut frame = Frame::decode(source.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let json = encode(&frame, Encoding::Json);
        let mut payload = None;
        if let Some(place) = payload_of(&mut frame) {
            let value: Value = serde_json::from_slice(place.bytes()).expect("JSON");
            let kept = self.payload.as_deref().map(unhex).filter(|bytes| Loose::of(bytes).0 == value);
            payload = Some(kept.unwrap_or_else(|| Encoding::MessagePack.encode(&value).expect("encodes").to_vec()));
        }
        if let (Some(place), Some(payload)) = (payload_of(&mut frame), &payload) {
            *place = edri_protocol::Payload::new(Encoding::MessagePack, payload);
        }
        Self {
            name: self.name.clone(),
            frame: self.frame.clone(),
            json: String::from_utf8(json).expect("JSON is UTF-8"),
            messagepack: hex(&encode(&frame, Encoding::MessagePack)),
            payload: payload.as_deref().map(hex),
        }
    }
}

/// Every entry in lines of its own, so that a difference can be read.
fn pretty(vectors: &Vectors) -> String {
    let mut out = format!("{{\n\"version\": {}", vectors.version);
    let sections = serde_json::to_value(vectors).expect("JSON");
    for section in ["frames", "accepted", "rejected", "streams"] {
        let _ = write!(out, ",\n\"{section}\": [");
        for (at, entry) in sections[section].as_array().expect("a list").iter().enumerate() {
            out.push_str(if at == 0 { "\n{" } else { ",\n{" });
            let entry = entry.as_object().expect("a map");
            let order = ["name", "frame", "encoding", "json", "messagepack", "payload", "bytes", "max", "frames"];
            let fields = order.iter().chain(&["code", "limit"]).filter_map(|field| Some((field, entry.get(*field)?)));
            for (at, (field, value)) in fields.enumerate() {
                let _ = write!(out, "{}\"{field}\": {value}", if at == 0 { "" } else { ",\n " });
            }
            out.push('}');
        }
        out.push_str("\n]");
    }
    out + "\n}\n"
}

#[test]
fn the_codec_writes_the_bytes_of_every_vector() {
    let mut vectors = read();
    let text = std::fs::read_to_string(path()).expect("the vectors are there");
    vectors.frames = vectors.frames.iter().map(Vector::made_anew).collect();
    let anew = pretty(&vectors);
    if std::env::var_os("EDRI_BLESS").is_some() {
        std::fs::write(path(), anew).expect("the vectors can be written");
    } else if let Some((line, (is, was))) = anew.lines().zip(text.lines()).enumerate().find(|(_, (is, was))| is != was)
    {
        panic!("line {}:\n  is  {is}\n  was {was}\nEDRI_BLESS=1 writes the vectors anew", line + 1);
    } else {
        assert_eq!(anew, text, "EDRI_BLESS=1 writes the vectors anew");
    }
}

#[test]
fn the_bytes_of_every_vector_read_as_its_frame() {
    for Vector { name, frame, json, messagepack, .. } in read().frames {
        let known = ["hello.minimal", "hello.client", "welcome.minimal"].contains(&&*name);
        let read = form(json.as_bytes());
        assert_eq!(read, form(&unhex(&messagepack)), "{name}");
        let written: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(read, written, "{name}");
        // What the codec writes though it may be missing stands in `json` and not in `frame`.
        assert!(known || covers(&written, &frame), "{name}: {written} is not {frame}");
    }
}

/// Whether `frame` says nothing that `written` does not say, apart from defaults.
fn covers(written: &Value, frame: &Value) -> bool {
    match (written, frame) {
        (Value::Object(written), Value::Object(frame)) => frame.iter().all(|(field, value)| {
            let is_default = value == false || value == "";
            written.get(field).map_or(is_default, |written| covers(written, value))
        }),
        (Value::Array(written), Value::Array(frame)) => {
            written.len() == frame.len() && written.iter().zip(frame).all(|(written, frame)| covers(written, frame))
        }
        _ => written == frame,
    }
}

#[test]
fn what_others_may_write_is_accepted() {
    for Accepted { name, frame, json, messagepack } in read().accepted {
        assert!(json.is_some() || messagepack.is_some(), "{name}");
        let expected = if frame.get("newer").is_some() { frame } else { form(frame.to_string().as_bytes()) };
        for bytes in json.map(String::into_bytes).into_iter().chain(messagepack.as_deref().map(unhex)) {
            assert_eq!(form(&bytes), expected, "{name}");
        }
    }
}

#[test]
fn what_is_no_frame_is_rejected() {
    for Rejected { name, encoding, bytes, code, .. } in read().rejected {
        match Frame::decode(&unhex(&bytes)) {
            Err(error) => assert_eq!(error.code(), code, "{name} {encoding:?}: {error}"),
            Ok(frame) => panic!("{name} {encoding:?} was accepted as {frame:?}"),
        }
    }
}

#[test]
fn streams_are_split_into_frames() {
    for Stream { name, bytes, max, frames, code } in read().streams {
        let mut read = BytesMut::from(&unhex(&bytes)[..]);
        for frame in frames {
            let whole = split(&mut read, max).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(whole.as_deref().map(hex), Some(frame), "{name}");
        }
        let rest = split(&mut read, max).map_err(|error| error.code().to_owned());
        assert_eq!(rest, code.map_or(Ok(None), Err), "{name}");
    }
}

#[test]
fn every_frame_has_vectors() {
    let vectors = read();
    for name in Frame::NAMES {
        let count = vectors.frames.iter().filter(|vector| vector.frame.get(name).is_some()).count();
        assert!(count > 0, "no vector of {name}");
    }
}
