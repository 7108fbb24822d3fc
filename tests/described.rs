//! Events that are declared at run time and carry values of Rust types.

use edri::prelude::*;
use edri::{Descriptor, Encoding, Kind};
use serde_json::json;

use crate::support::{Seen, ends_well, started, within};

/// What is asked. It is no event: its name is made at run time.
#[edri::data]
#[derive(Debug, Clone, PartialEq)]
struct Level {
    tank: String,
    liters: u64,
}

/// The same for somebody who knows half of it.
#[edri::data]
#[derive(Debug, Clone, PartialEq)]
struct Tank {
    tank: String,
}

fn level(liters: u64) -> Level {
    Level { tank: "north".to_owned(), liters }
}

/// Answers a level with what it read, and notes how it came: as a value, and where that is.
#[derive(Clone)]
struct Gauge(Seen<(Option<usize>, Option<String>)>);

impl Worker for Gauge {}

impl HandleAny for Gauge {
    async fn handle(&mut self, event: &Envelope, _: &mut Context) -> Result<Option<Value>, Failure> {
        let level = event.read::<Level>()?;
        let typed = event.typed::<Level>().map(|level| level.tank.as_ptr() as usize);
        assert_eq!(typed.is_some(), matches!(level, std::borrow::Cow::Borrowed(_)));
        self.0.add((typed, event.key()));
        assert_eq!(event.read::<Tank>()?.tank, level.tank);
        Ok(Some(Value::typed(Level { liters: level.liters + 1, ..level.into_owned() })))
    }
}

async fn gauging() -> (Node, Seen<(Option<usize>, Option<String>)>) {
    let seen = Seen::default();
    let gauge = Gauge(seen.clone());
    let asked = Descriptor::declare("plant.north.level", Kind::Request).expect("a name").key("tank").build();
    let told = Descriptor::declare("plant.north.filled", Kind::Notification).expect("a name").build();
    let manager = Manager::new("gauge")
        .worker(move || gauge.clone())
        .handles_any("plant.north.level")
        .handles_any("plant.north.filled")
        .declares(asked)
        .declares(told);
    (started(App::new("test").manager(manager)).await, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_an_event_that_is_declared_at_run_time_stays_one_within_the_node() {
    let (node, seen) = gauging().await;
    let bus = node.bus();
    let event = bus.untyped().event("plant.north.level", Kind::Request).expect("declared");
    let asked = level(1);
    let place = asked.tank.as_ptr() as usize;
    let answer: Level = within("an answer", bus.described(&event).request(asked)).await.expect("answered");
    assert_eq!(answer, level(2));
    // Its key was found in it.
    assert_eq!(seen.list(), [(Some(place), Some("north".to_owned()))]);
    // The answer is read as what the requester has, and sent in what another type writes.
    let tank: Tank = bus.described(&event).request(level(3)).await.expect("answered");
    assert_eq!(tank.tank, "north");
    let lacks = bus.described(&event).request::<_, Level>(Tank { tank: "north".to_owned() }).await;
    let error = lacks.expect_err("no liters").to_string();
    assert!(error.contains("missing field `liters`"), "{error}");
    let keyless = bus.described(&event).request::<_, Level>(7_u64).await;
    assert_eq!(keyless.expect_err("it has no key").code(), "invalid_payload");

    let told = bus.untyped().event("plant.north.filled", Kind::Notification).expect("declared");
    let mut stream = bus.untyped().subscribe("plant.north.filled").await.expect("subscribed");
    assert_eq!(bus.described(&told).publish(level(4)).await.expect("published").deliveries, 2);
    let envelope = within("the event", stream.next()).await.expect("the node runs");
    assert_eq!(envelope.typed(), Some(&level(4)));
    assert_eq!(envelope.encoded(Encoding::Json).expect("encodes")[..], *br#"{"tank":"north","liters":4}"#);
    drop(stream);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_writes_bytes_meets_whoever_has_values() {
    let (node, seen) = gauging().await;
    let bus = node.bus();
    let answer = bus.untyped().request("plant.north.level", json!({"tank": "north", "liters": 5})).await;
    let answer: serde_json::Value = answer.expect("answered").decode().expect("JSON");
    assert_eq!(answer, json!({"tank": "north", "liters": 6}));
    assert_eq!(seen.list(), [(None, Some("north".to_owned()))]);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_found_by_its_name_and_kind_and_a_node_that_has_stopped_takes_none() {
    let (node, _) = gauging().await;
    let bus = node.bus().clone();
    let find = |name: &str, kind| bus.untyped().event(name, kind);
    assert_eq!(find("plant.south.level", Kind::Request).expect_err("nobody declared it").code(), "unknown_event");
    assert_eq!(find("plant.north.level", Kind::Notification).expect_err("a request").code(), "wrong_kind");
    let event = find("plant.north.level", Kind::Request).expect("declared");
    assert_eq!(bus.described(&event).publish(level(1)).await.expect_err("a request").code(), "wrong_kind");
    // What is not known here is declared by its first use, and nobody answers it.
    let other = Descriptor::declare("plant.south.level", Kind::Request).expect("a name").build();
    let nobody = bus.described(&other).request::<_, Level>(level(1)).await;
    assert_eq!(nobody.expect_err("nobody answers").code(), "no_handler");
    assert!(find("plant.south.level", Kind::Request).is_ok());
    ends_well(&node).await;
    let stopped = bus.described(&event).request::<_, Level>(level(1)).await;
    assert_eq!(stopped.expect_err("the node has stopped").code(), "stopping");
}
