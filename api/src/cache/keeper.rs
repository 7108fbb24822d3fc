//! What is kept, for the requests of a client over WebSocket.

use std::fmt;
use std::sync::Arc;

use edri_events::Descriptor;
use edri_router::{Keeper, Outcome, Relay, Relayed, RequestError};
use futures_util::future::BoxFuture;

use super::Asking;
use crate::clients::Client;
use crate::gateway::Shared;

/// What is kept, for one client.
pub(crate) struct ForClient {
    shared: Arc<Shared>,
    client: Client,
}

impl ForClient {
    pub(crate) fn new(shared: &Arc<Shared>, client: Client) -> Arc<Self> {
        Arc::new(Self { shared: Arc::clone(shared), client })
    }

    async fn answer(&self, relay: Relay, mut relayed: Relayed) -> Outcome {
        let event = self.shared.exposed.table().event(&relayed.name).cloned();
        // A key of its own may choose another worker.
        let Some(event) = event.filter(|_| relayed.key.is_none()) else { return relay.request(relayed, None).await };
        // Others who wait for the answer may have more time.
        let timeout = relayed.timeout.take();
        let answer = relayed.body.encoding;
        let asking = Asking { relay: &relay, event: &event, relayed, answer, client: &self.client };
        let given = self.shared.cache.request(&self.shared.router, asking);
        let Some(timeout) = timeout else { return given.await.outcome };
        match tokio::time::timeout(timeout, given).await {
            Ok(given) => given.outcome,
            Err(_) => Err(RequestError::TimedOut(Box::default())),
        }
    }
}

impl Keeper for ForClient {
    fn concerns(&self, descriptor: &Descriptor) -> bool {
        descriptor.exposure().is_some_and(|exposure| exposure.caching.is_some())
    }

    fn request(&self, relay: Relay, event: Relayed) -> BoxFuture<'_, Outcome> {
        Box::pin(self.answer(relay, event))
    }

    fn sent(&self) {
        self.shared.cache.wrote(|| self.client.clone());
    }
}

impl fmt::Debug for ForClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForClient").field("client", &self.client).finish_non_exhaustive()
    }
}
