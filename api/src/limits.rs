use std::time::Duration;

/// The bounds of a gateway. What goes beyond one is refused with an error that says so, or the connection is closed where
/// nothing can be said.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApiLimits {
    /// The most connections at a time; one more is told so and closed. 10,000 + 1,024 by default.
    pub connections: usize,
    /// The most connections of one address at a time (of IPv6: of one network of 64 bits). 1,024 by default: raise it where all
    /// clients come through one proxy.
    pub connections_per_address: usize,
    /// The most bytes in the body of a request that is no tunnel. 2 MiB by default.
    pub body_bytes: usize,
    /// The most bytes of a file that a form sends up a tunnel. 1 GiB by default.
    pub upload_bytes: usize,
    /// The most bytes in the head of a request. 64 KiB by default.
    pub head_bytes: usize,
    /// How long a TLS handshake may take. 10 s by default.
    pub handshake_time: Duration,
    /// How long a client may take for the head of a request, TLS handshake apart. It is closed within twice that. 10 s by
    /// default.
    pub head_time: Duration,
    /// How long nothing may come in the body of a request. 30 s by default.
    pub body_idle: Duration,
    /// The most WebSockets at a time, with the sessions that wait for their client to come again. 11,024 by default.
    pub websockets: usize,
    /// How long a client of a WebSocket may take for its `hello`. 10 s by default.
    pub hello_time: Duration,
    /// The most bytes in a frame of a client. 2 MiB and 64 KiB by default.
    pub frame_bytes: usize,
    /// The most calls that a client of a WebSocket has open. 1,024 by default.
    pub calls: u32,
    /// The most subscriptions of a client. 1,024 by default.
    pub subscriptions: usize,
    /// The most events that are kept for one subscription whose client is slow; a client that does not say has 1,024.
    /// 65,536 by default.
    pub subscription_events: usize,
    /// The most bad frames of a client in a minute; then it is disconnected. 100 by default.
    pub bad_frames: u32,
    /// A WebSocket from which nothing has come for so long is lost; a third of it, and it is asked. 30 s by default.
    pub silence: Duration,
    /// How long a session is kept for a client whose connection broke. 60 s by default.
    pub session_keep: Duration,
    /// Of how many bytes a client may not have acknowledged before its subscriptions count as slow; at four times as much (at
    /// least the longest frame) its session ends. 4 MiB by default.
    pub session_bytes: usize,
    /// The most workers over WebSocket at a time, with those that wait for a place. 1,024 by default.
    pub workers: usize,
    /// The most events that may become known by the declarations of one caller's workers over WebSocket alone. 4,096 by default.
    pub worker_events: usize,
    /// How long the whole body of a request may take that is no tunnel. 60 s by default.
    pub body_time: Duration,
    /// How long a client may take nothing of an answer that is there. 120 s by default.
    pub send_idle: Duration,
    /// How long a connection may be without a request. 60 s by default.
    pub idle_time: Duration,
    /// The most requests at a time over one connection of HTTP/2. 128 by default.
    pub streams: u32,
    /// The most requests at a time that wait for their answer to begin. 8,192 by default.
    pub in_flight: usize,
    /// The same of one client: a caller by its token, otherwise an address. 1,024 by default.
    pub in_flight_per_client: usize,
    /// The most requests of one client in a second, on average; `None`, the default, for no such limit.
    pub requests_per_second: Option<u32>,
    /// How many requests a client may send at once before [`ApiLimits::requests_per_second`] binds it. 100 by default.
    pub request_burst: u32,
    /// How many bytes of answers are kept of events that are declared cacheable, each with what keeping it costs; an answer longer than a
    /// sixteenth of it is not kept, and none is when it is 0. 64 MiB by default.
    pub cache_bytes: usize,
    /// How many answers are kept. 65,536 by default.
    pub cache_entries: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections: 11_024,
            connections_per_address: 1_024,
            body_bytes: 2 << 20,
            upload_bytes: 1 << 30,
            head_bytes: 64 << 10,
            handshake_time: Duration::from_secs(10),
            head_time: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            websockets: 11_024,
            hello_time: Duration::from_secs(10),
            frame_bytes: (2 << 20) + (64 << 10),
            calls: 1024,
            subscriptions: 1024,
            subscription_events: 65_536,
            bad_frames: 100,
            silence: Duration::from_secs(30),
            session_keep: Duration::from_secs(60),
            session_bytes: 4 << 20,
            workers: 1_024,
            worker_events: 4_096,
            body_time: Duration::from_secs(60),
            send_idle: Duration::from_secs(120),
            idle_time: Duration::from_secs(60),
            streams: 128,
            in_flight: 8_192,
            in_flight_per_client: 1_024,
            requests_per_second: None,
            request_burst: 100,
            cache_bytes: 64 << 20,
            cache_entries: 65_536,
        }
    }
}
