//! What a frame and a packet may hold. A reader refuses more before it has allocated much of it.

/// The longest frame, without its length prefix.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// How deep a frame may nest; payloads are counted on their own when they are decoded.
pub const NESTING_MAX: usize = 96;
/// The most events one frame may declare.
pub const EVENTS_MAX: usize = 4096;
/// The most values that a JSON Schema may be made of: each list, map, text, number, truth and null counts.
pub const SCHEMA_VALUES_MAX: usize = 4096;
/// The most values that all JSON Schemas of a frame may be made of.
pub const SCHEMAS_VALUES_MAX: usize = 1 << 17;
/// The most handlers one worker may have.
pub const HANDLERS_MAX: usize = 4096;
/// The most headers a call may have.
pub const HEADERS_MAX: usize = edri_events::Headers::COUNT_MAX;
/// The most fields of an event that come from a header, or from a cookie.
pub const SOURCES_MAX: usize = 64;
/// The longest name of a template, or path to go on to, in bytes.
pub const SHORT_TEXT_MAX: usize = 1024;
/// The most calls one `ack` may settle.
pub const ACKS_MAX: usize = 65_536;
/// The most figures one `report` may hold.
pub const FIGURES_MAX: usize = 64;
/// The most names a wait in an error may list.
pub const WAITS_MAX: usize = 4096;
/// The most fields that a fault may name.
pub const FIELD_FAULTS_MAX: usize = 4096;
/// The largest number of a call: every number up to here is exact in the floating point numbers of JavaScript.
pub const CALL_MAX: u64 = (1 << 53) - 1;

/// The longest packet, without the length before it.
pub const PACKET_BYTES_MAX: usize = 20 << 20;
/// The longest payload of an item, and the longest fault.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// The most bytes of an event's name, manager, key and headers together.
pub const EVENT_TEXTS_BYTES_MAX: usize = 1 << 20;
/// A body that is as long takes no further item: with the longest item behind it, it must still fit in a packet.
pub const BODY_FILLED_BYTES: usize = 1 << 20;
/// The most destinations of a packet.
pub const DESTINATIONS_MAX: usize = 4096;
/// The most groups in all destinations of a packet.
pub const DESTINATIONS_GROUPS_MAX: usize = 65_536;
/// The most lanes that one `Ack` tells of.
pub const ACK_LANES_MAX: usize = 4096;
/// The most ranges of a lane that were received beyond the first gap, as an `Ack` tells them.
pub const ACK_HELD_MAX: usize = 16;
/// The most groups that one `Ack` gives credit for.
pub const ACK_CREDITS_MAX: usize = 65_536;

const _: () = {
    // The longest forms: 10 bytes for a number of 64 bits, 5 for one of 32.
    const HEADER: usize = 32 + DESTINATIONS_MAX * (8 + 5 + 10 + 10 + 3) + DESTINATIONS_GROUPS_MAX * 5;
    // Lengths of texts, numbers and flags beside them; each header has two lengths.
    const ITEM: usize = PAYLOAD_BYTES_MAX + EVENT_TEXTS_BYTES_MAX + 256 + HEADERS_MAX * 10;
    assert!(HEADER + BODY_FILLED_BYTES + ITEM <= PACKET_BYTES_MAX);
    const ACK: usize = 64 + ACK_LANES_MAX * (11 + 10 + 1 + ACK_HELD_MAX * 20) + ACK_CREDITS_MAX * 25;
    assert!(ACK <= PACKET_BYTES_MAX);
    assert!(EVENT_TEXTS_BYTES_MAX > HEADERS_MAX * edri_events::Headers::BYTES_MAX + 2 * edri_events::NAME_BYTES_MAX);
    // The highest bit of a payload's length says how it is encoded.
    assert!(PAYLOAD_BYTES_MAX < 1 << 31);
};
