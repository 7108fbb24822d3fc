use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use edri_events::{HttpRoute, Pattern};
use edri_router::Router;

use crate::access::Access;
use crate::exposed::{Additions, Exposed};
use crate::gateway::{Gateway, Shared};
use crate::websocket::Sessions;
use crate::{ApiError, ApiLimits};

/// A gateway in the making.
#[derive(Debug)]
#[must_use = "a gateway does nothing until its node is started"]
pub struct Api {
    address: String,
    exposes: Vec<String>,
    routes: Vec<(String, String)>,
    limits: ApiLimits,
}

impl Api {
    /// A gateway that listens on this address, like `127.0.0.1:8080`; port 0 is one that is free.
    pub fn bind(address: impl Into<String>) -> Self {
        Self { address: address.into(), exposes: Vec::new(), routes: Vec::new(), limits: ApiLimits::default() }
    }

    /// Exposes the events whose names this pattern selects, though they do not say so themselves: `sensor.read`,
    /// `sensor.*`, `sensor.>`.
    pub fn expose(mut self, pattern: &str) -> Self {
        self.exposes.push(pattern.to_owned());
        self
    }

    /// Gives an event a route beside its own, which exposes it: `route("GET /risk/{region}", "risk.assess")`.
    pub fn route(mut self, route: &str, event: &str) -> Self {
        self.routes.push((route.to_owned(), event.to_owned()));
        self
    }

    /// Sets the gateway's bounds.
    pub fn limits(mut self, limits: ApiLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Starts the gateway of this router's node, in its runtime.
    ///
    /// # Errors
    ///
    /// [`ApiError`] when an address, a pattern or a route is none, or the address cannot be listened on.
    pub async fn start(self, router: &Router) -> Result<Gateway, ApiError> {
        let address: SocketAddr = self.address.parse().map_err(|_| ApiError::Address(self.address.clone()))?;
        let patterns = self.exposes.iter().map(|pattern| Pattern::new(pattern)).collect::<Result<Vec<_>, _>>()?;
        let routes = self.routes.into_iter();
        let routes =
            routes.map(|(route, event)| Ok((HttpRoute::new(&route)?, event))).collect::<Result<_, ApiError>>()?;
        let exposed = Exposed::new(router, Additions { patterns, routes });
        let shared = Shared {
            relay: router.bus().relay(),
            router: router.clone(),
            exposed,
            access: Access::default(),
            sessions: Arc::new(Sessions::new(self.limits.websockets)),
            limits: self.limits,
            ready: AtomicBool::new(false),
        };
        Gateway::start(address, shared).await
    }
}
