//! What must hold for any bytes as a packet and as the body of one. The fuzz target, the corpus and the property tests all
//! call this.

use std::convert::Infallible;

use bytes::Bytes;
use edri_protocol::items::{Event, EventHead, Interned, Item, Reader, Writer};
use edri_protocol::packet::Packet;

/// Reads `bytes` as a packet and as a body. Panics when what was read does not write back the same.
pub(crate) fn fuzz_packet(bytes: &[u8]) {
    let whole = Bytes::copy_from_slice(bytes);
    if let Ok(packet) = Packet::decode(whole.clone()) {
        // There is one form of every packet.
        let mut again = Vec::new();
        packet.encode(&mut again);
        assert_eq!(again, bytes, "{packet:?}");
        if let Packet::Data { body, .. } = packet {
            fuzz_body(&body);
        }
    }
    fuzz_body(&whole);
}

fn fuzz_body(body: &Bytes) {
    let (mut items, mut texts) = (Vec::new(), Texts::default());
    let mut reader = Reader::new(body);
    for item in reader.by_ref() {
        let Ok(item) = item else { break };
        texts.see(&item);
        items.push(item);
    }
    assert!(reader.next().is_none(), "something comes after the end");

    let once = written(&items);
    let again: Vec<_> = Reader::new(&once).map(|item| item.expect("what was written can be read")).collect();
    // What this codec has written it writes again.
    assert_eq!(written(&again), once);
    items.retain(|item| !matches!(item, Item::Unknown { .. }));
    assert_eq!(nameless(again), nameless(items));
}

fn written(items: &[Item<'_>]) -> Bytes {
    let mut writer = Writer::new();
    items.iter().for_each(|item| write(&mut writer, item));
    writer.take()
}

/// Sees to it that every text comes with its own index, and the indices in their order.
#[derive(Default)]
pub(crate) struct Texts<'a> {
    names: Vec<&'a str>,
    managers: Vec<&'a str>,
}

impl<'a> Texts<'a> {
    pub(crate) fn see(&mut self, item: &Item<'a>) {
        fn see<'a>(known: &mut Vec<&'a str>, Interned { index, text }: Interned<'a>) {
            if index == known.len() {
                known.push(text);
            }
            assert_eq!(known.get(index), Some(&text));
        }
        let (Item::Event(event) | Item::Request { event, .. } | Item::Open { event, .. }) = item else { return };
        see(&mut self.names, event.name);
        if let Some(manager) = event.manager {
            see(&mut self.managers, manager);
        }
    }
}

/// The items without the indices of texts, of which others may have more than this codec writes.
fn nameless(mut items: Vec<Item<'_>>) -> Vec<Item<'_>> {
    for item in &mut items {
        let (Item::Event(event) | Item::Request { event, .. } | Item::Open { event, .. }) = item else { continue };
        event.name.index = 0;
        if let Some(manager) = &mut event.manager {
            manager.index = 0;
        }
    }
    items
}

/// Writes an item as it was read; one that is unknown is left out.
pub(crate) fn write(writer: &mut Writer, item: &Item<'_>) {
    let put = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        move |out: &mut Vec<u8>| {
            out.extend_from_slice(&bytes);
            Ok::<_, Infallible>(())
        }
    };
    let written = "what was read is not too long";
    match item {
        Item::Event(event) => {
            writer.event(&head(event), put(event.payload.bytes())).expect(written);
        }
        Item::Request { call, event } => {
            writer.request(*call, &head(event), put(event.payload.bytes())).expect(written);
        }
        Item::Open { event, credit } => {
            writer.open(&head(event), *credit, put(event.payload.bytes())).expect(written);
        }
        Item::Response { call, outcome } => writer.response(*call, outcome).expect(written),
        Item::Cancel { call } => writer.cancel(*call),
        Item::Data(payload) => {
            writer.data(payload.encoding(), payload.bytes()).expect(written);
        }
        Item::Grant(grant) => writer.grant(*grant),
        Item::End => writer.end(),
        Item::Abort(fault) => writer.abort(fault).expect(written),
        Item::Outcome(outcome) => writer.outcome(outcome).expect(written),
        Item::Left { group } => writer.left(*group),
        Item::Differs { event, why } => writer.differs(event, why),
        Item::Keys(keys) => writer.keys(keys),
        Item::Noted { manager, version, agreed } => writer.noted(manager, *version, *agreed),
        Item::Unknown { .. } => {}
    }
}

fn head<'e>(event: &'e Event<'_>) -> EventHead<'e> {
    EventHead {
        name: event.name.text,
        id: event.id,
        manager: event.manager.map(|manager| manager.text),
        key: event.key,
        cause: event.cause,
        trace: event.trace,
        timeout_ms: event.timeout_ms,
        headers: Some(&event.headers),
        tried: event.tried,
        redelivered: event.redelivered,
        encoding: event.payload.encoding(),
    }
}
