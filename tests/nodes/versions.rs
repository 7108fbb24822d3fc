//! Two nodes that know one event differently.

use edri::prelude::*;
use futures_util::FutureExt;

use super::{Cluster, Way, publish};
use crate::support::{Noted, Seen, does, keeps, until, within};

/// What the centre knows, a version later than the sensor.
mod centre {
    use edri::prelude::*;

    /// Has a field more that it can do without, and lacks one.
    #[event(notification, name = "nodes.grown")]
    pub(super) struct Grown {
        pub(super) number: u64,
        pub(super) colour: Option<String>,
    }

    /// Has a field more that it needs.
    #[event(notification, name = "nodes.broken")]
    pub(super) struct Broken {
        pub(super) number: u64,
        pub(super) colour: String,
    }

    /// As above, for a request.
    #[event(request, name = "nodes.broken_request", response = u64)]
    pub(super) struct BrokenRequest {
        pub(super) number: String,
    }
}

mod sensor {
    use edri::prelude::*;

    #[event(notification, name = "nodes.grown")]
    pub(super) struct Grown {
        pub(super) number: u64,
        pub(super) unit: String,
    }

    #[event(notification, name = "nodes.broken")]
    pub(super) struct Broken {
        pub(super) number: u64,
    }

    #[event(request, name = "nodes.broken_request", response = u64)]
    pub(super) struct BrokenRequest {
        pub(super) number: u64,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_readers_bear_passes_and_one_that_they_do_not_is_refused_for_that_event_only() {
    #[derive(Clone)]
    struct Later(Seen<(u64, Option<String>)>);
    impl Worker for Later {}
    impl Handle<centre::Grown> for Later {
        async fn handle(&mut self, event: &centre::Grown, _: &mut Context) -> Result<(), Failure> {
            self.0.add((event.number, event.colour.clone()));
            Ok(())
        }
    }
    impl Handle<centre::Broken> for Later {
        async fn handle(&mut self, event: &centre::Broken, _: &mut Context) -> Result<(), Failure> {
            self.0.add((event.number, Some(event.colour.clone())));
            Ok(())
        }
    }
    let (grown, noted) = (Seen::default(), Seen::default());
    let later = Later(grown.clone());
    let refuses = does(|event: &centre::BrokenRequest, _| {
        let length = event.number.len() as u64;
        async move { Ok(length) }.boxed()
    });
    let centre = |app: App| {
        app.manager(
            Manager::new("later").worker(move || later.clone()).handles::<centre::Grown>().handles::<centre::Broken>(),
        )
        .manager(Manager::new("keep").worker(keeps(&noted)).handles::<Noted>())
        .manager(Manager::new("broken").worker(refuses).handles::<centre::BrokenRequest>())
    };
    let pair = Cluster::new().pair(Way::Direct, centre, |app| app).await;
    super::knows(&pair.sensor, 3).await;
    let bus = pair.sensor.bus();
    let passes = within("room", bus.publish(sensor::Grown { number: 1, unit: "m".to_owned() })).await;
    assert_eq!(passes.expect("published").deliveries, 1);
    assert_eq!(grown.wait_for(1).await, [(1, None)]);
    // The first of a kind may be on its way before it is compared; it ends as a dead letter there then.
    let early = within("room", bus.publish(sensor::Broken { number: 2 })).await.expect("published").deliveries;
    let refused = async {
        while bus.publish(sensor::Broken { number: 3 }).await.expect("published").deliveries > 0 {
            tokio::task::yield_now().await;
        }
    };
    within("the refusal", refused).await;
    let asking = within("an answer", bus.request(sensor::BrokenRequest { number: 4 })).await;
    let code = asking.expect_err("refused").code().to_owned();
    assert!(code == "no_handler" || (code == "invalid_payload"), "{code}");
    // Both say so, by the event's name.
    for (node, other) in [(&pair.sensor, "centre"), (&pair.centre, "sensor")] {
        let differs = || super::seen_by(node, other).map(|view| view.differs).unwrap_or_default();
        until("both to be told", || differs().keys().eq(["nodes.broken", "nodes.broken_request"])).await;
        let differs = differs();
        assert!(differs["nodes.broken"].contains("colour"), "{differs:?}");
    }
    publish(&pair.sensor, 0..10).await;
    assert_eq!(noted.wait_for(10).await, (0..10).collect::<Vec<_>>());
    assert_eq!(grown.len(), 1, "{early} of the others were sent");
    pair.end().await;
}
