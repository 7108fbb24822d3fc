//! What the scenarios share.

use std::time::Duration;

use edri::{Account, Bus};
use tokio::time::{Instant, sleep};

/// How long anything may take before a test calls it hung.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `condition` holds, and fails naming `what` when it does not within [`LIMIT`].
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < limit, "waited {LIMIT:?} for: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the node is at rest and returns its account, which balances.
pub(crate) async fn at_rest(bus: &Bus) -> Account {
    until("the node to be at rest", || {
        let account = bus.account();
        account.queued == 0 && account.in_hand == 0 && account.is_balanced()
    })
    .await;
    bus.account()
}
