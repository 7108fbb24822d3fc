//! The golden vectors of `protocol/vectors/packets.json`.
//!
//! `EDRI_BLESS=1 cargo test -p edri-protocol --test packet_vectors` writes anew what this codec makes of each packet and
//! body. Look at the difference before you commit it: whatever changes, nodes of two versions no longer understand.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use edri_protocol::items::Reader;
use edri_protocol::packet::Packet;
use serde::{Deserialize, Serialize};

use self::packet::{ItemForm, PacketForm, body_of, hex, items_of, unhex};

#[expect(dead_code, reason = "some of it is for the property tests")]
mod fuzz_packet;
#[expect(dead_code, reason = "some of it is for the property tests")]
mod packet;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    version: u32,
    packets: Vec<PacketVector>,
    bodies: Vec<BodyVector>,
    accepted: Vec<BodyVector>,
    rejected: Vec<Rejected>,
}

/// A packet and its bytes, of which there is one form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PacketVector {
    name: String,
    packet: PacketForm,
    #[serde(default)]
    bytes: String,
}

/// Items, and the bytes of a body that holds them: those that this codec writes, or others that mean the same.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyVector {
    name: String,
    items: Vec<ItemForm>,
    #[serde(default)]
    bytes: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rejected {
    name: String,
    of: Of,
    bytes: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    limit: bool,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Of {
    Packet,
    Body,
}

fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "vectors", "packets.json"].iter().collect()
}

fn text() -> String {
    std::fs::read_to_string(path()).expect("the vectors are there")
}

fn read() -> Vectors {
    serde_json::from_str(&text()).expect("they are vectors")
}

/// Every entry in lines of its own, so that a difference can be read.
fn pretty(vectors: &Vectors) -> String {
    let mut out = format!("{{\n\"version\": {}", vectors.version);
    let sections = serde_json::to_value(vectors).expect("JSON");
    for section in ["packets", "bodies", "accepted", "rejected"] {
        let _ = write!(out, ",\n\"{section}\": [");
        for (at, entry) in sections[section].as_array().expect("a list").iter().enumerate() {
            out.push_str(if at == 0 { "\n{" } else { ",\n{" });
            let order = ["name", "of", "packet", "items", "bytes", "limit"];
            let fields = order.iter().filter_map(|field| Some((field, entry.get(*field)?)));
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
    for vector in &mut vectors.packets {
        vector.bytes = hex(&vector.packet.encode());
    }
    for vector in &mut vectors.bodies {
        vector.bytes = hex(&body_of(&vector.items));
    }
    let (anew, text) = (pretty(&vectors), text());
    if std::env::var_os("EDRI_BLESS").is_some() {
        std::fs::write(path(), anew).expect("the vectors can be written");
        for (file, bytes) in corpus(&vectors) {
            std::fs::write(file, bytes).expect("the corpus can be written");
        }
    } else if let Some((line, (is, was))) = anew.lines().zip(text.lines()).enumerate().find(|(_, (is, was))| is != was)
    {
        panic!("line {}:\n  is  {is}\n  was {was}\nEDRI_BLESS=1 writes the vectors anew", line + 1);
    } else {
        assert_eq!(anew, text, "EDRI_BLESS=1 writes the vectors anew");
    }
}

#[test]
fn the_bytes_of_every_vector_read_as_what_it_says() {
    let vectors = read();
    for PacketVector { name, packet, bytes } in vectors.packets {
        let read = Packet::decode(unhex(&bytes).into()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(PacketForm::of(read), packet, "{name}");
    }
    for BodyVector { name, items, bytes } in vectors.bodies.into_iter().chain(vectors.accepted) {
        assert_eq!(items_of(&unhex(&bytes)), items, "{name}");
    }
}

#[test]
fn what_is_none_is_rejected() {
    for Rejected { name, of, bytes, .. } in read().rejected {
        let bytes = Bytes::from(unhex(&bytes));
        let read = match of {
            Of::Packet => Packet::decode(bytes).map(|packet| format!("{packet:?}")),
            Of::Body => Reader::new(&bytes).collect::<Result<Vec<_>, _>>().map(|items| format!("{items:?}")),
        };
        assert!(read.is_err(), "{name} was accepted as {read:?}");
    }
}

#[test]
fn the_corpus_holds_every_vector() {
    for (file, bytes) in corpus(&read()) {
        assert_eq!(std::fs::read(&file).ok(), Some(bytes), "{}: EDRI_BLESS=1 writes it anew", file.display());
    }
}

/// The files of the fuzz target's corpus that are vectors, and what they hold.
fn corpus(vectors: &Vectors) -> Vec<(PathBuf, Vec<u8>)> {
    let corpus: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", "packet"].iter().collect();
    let packets = vectors.packets.iter().map(|vector| (&vector.name, &vector.bytes));
    let bodies = vectors.bodies.iter().chain(&vectors.accepted).map(|vector| (&vector.name, &vector.bytes));
    let rejected = vectors.rejected.iter().map(|vector| (&vector.name, &vector.bytes));
    let file = |(name, bytes): (&String, &String)| (corpus.join(name.replace(' ', "_")), unhex(bytes));
    packets.chain(bodies).chain(rejected).map(file).collect()
}
