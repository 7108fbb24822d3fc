//! The bounds of a gateway.

use edri::ApiLimits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;
use super::units::Size;

/// The bounds that can be set, under the names that they have in [`ApiLimits`] and with the defaults from there.
macro_rules! limits {
    ($($name:ident: $kind:ty,)*) => {
        /// The bounds of a gateway.
        #[derive(Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct GatewayLimits {
            $($name: $kind,)*
        }

        impl Default for GatewayLimits {
            fn default() -> Self {
                let limits = ApiLimits::default();
                Self { $($name: limits.$name.into(),)* }
            }
        }

        impl GatewayLimits {
            pub(super) fn build(&self) -> ApiLimits {
                let mut limits = ApiLimits::default();
                $(limits.$name = self.$name.into();)*
                limits
            }
        }
    };
}

limits! {
    connections: usize,
    connections_per_address: usize,
    handshake_time: Span,
    head_time: Span,
    head_bytes: Size,
    body_time: Span,
    body_idle: Span,
    body_bytes: Size,
    upload_bytes: Size,
    send_idle: Span,
    idle_time: Span,
    streams: u32,
    in_flight: usize,
    in_flight_per_client: usize,
    requests_per_second: Option<u32>,
    request_burst: u32,
    websockets: usize,
    hello_time: Span,
    frame_bytes: Size,
    calls: u32,
    subscriptions: usize,
    subscription_events: usize,
    bad_frames: u32,
    silence: Span,
    session_keep: Span,
    session_bytes: Size,
}
