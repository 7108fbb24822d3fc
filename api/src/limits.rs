use std::time::Duration;

/// The bounds of a gateway. What goes beyond one is refused with an error that says so.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApiLimits {
    /// The most connections at a time. 10,000 + 1,024 by default.
    pub connections: usize,
    /// The most bytes in the body of a request that is no tunnel. 2 MiB by default.
    pub body_bytes: usize,
    /// The most bytes in the head of a request. 64 KiB by default.
    pub head_bytes: usize,
    /// How long a client may take for the head of a request, TLS handshake apart. 10 s by default.
    pub head_time: Duration,
    /// How long nothing may come in the body of a request. 30 s by default.
    pub body_idle: Duration,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections: 11_024,
            body_bytes: 2 << 20,
            head_bytes: 64 << 10,
            head_time: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
        }
    }
}
