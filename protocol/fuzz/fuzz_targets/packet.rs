//! Any bytes as a packet and as the body of one. `cargo +nightly fuzz run packet` in `protocol/`; put what it finds into
//! `corpus/packet`.
#![no_main]

#[path = "../../tests/fuzz_packet/mod.rs"]
mod fuzz_packet;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_packet::fuzz_packet(bytes));
