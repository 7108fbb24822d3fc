//! The border: rules of payloads, interceptors, layers.

mod interceptors;
mod rules;
