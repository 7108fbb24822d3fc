//! Programs on edri, one folder each; run one with `cargo run --release --example <name>`.
