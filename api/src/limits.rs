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
    /// The most bytes in the head of a request. 64 KiB by default.
    pub head_bytes: usize,
    /// How long a TLS handshake may take. 10 s by default.
    pub handshake_time: Duration,
    /// How long a client may take for the head of a request, TLS handshake apart. It is closed within twice that. 10 s by
    /// default.
    pub head_time: Duration,
    /// How long nothing may come in the body of a request. 30 s by default.
    pub body_idle: Duration,
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
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections: 11_024,
            connections_per_address: 1_024,
            body_bytes: 2 << 20,
            head_bytes: 64 << 10,
            handshake_time: Duration::from_secs(10),
            head_time: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            body_time: Duration::from_secs(60),
            send_idle: Duration::from_secs(120),
            idle_time: Duration::from_secs(60),
            streams: 128,
            in_flight: 8_192,
            in_flight_per_client: 1_024,
            requests_per_second: None,
            request_burst: 100,
        }
    }
}
