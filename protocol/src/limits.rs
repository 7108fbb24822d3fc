//! What a frame may hold. A reader refuses more before it has allocated much of it.

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
/// The most calls one `ack` may settle.
pub const ACKS_MAX: usize = 65_536;
/// The most figures one `report` may hold.
pub const FIGURES_MAX: usize = 64;
/// The most names a wait in an error may list.
pub const WAITS_MAX: usize = 4096;
/// The largest number of a call: every number up to here is exact in the floating point numbers of JavaScript.
pub const CALL_MAX: u64 = (1 << 53) - 1;
