//! Any bytes as a frame. `cargo +nightly fuzz run frame` in `protocol/`; put what it finds into `corpus/frame`.
#![no_main]

#[path = "../../tests/fuzz_one/mod.rs"]
mod fuzz_one;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_one::fuzz_one(bytes));
