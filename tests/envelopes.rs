//! What an envelope says of its event, and that its payload is neither copied nor encoded twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{DeclareError, Descriptor, Encoding, EventId, Kind, Notification, PublishError, RequestError, TraceContext};
use futures_util::FutureExt;
use serde_json::json;

use crate::support::{
    Asked, Followed, Noted, Seen, asked, at_rest, does, ends_well, keeps, keyed, noted, started, within,
};
use crate::tunnels::{counting, multiply, open};

/// What a handler sees of the event in hand.
#[derive(Clone)]
struct Sight {
    envelope: Envelope,
    remaining: Option<Duration>,
}

impl Sight {
    fn of(cx: &Context) -> Self {
        Self { envelope: cx.envelope().expect("an event is in hand").clone(), remaining: cx.remaining() }
    }

    fn trace(&self) -> TraceContext {
        self.envelope.trace()
    }
}

/// A manager that publishes a [`Followed`] for each [`Noted`], and one that hears both; with what the second saw.
async fn chain() -> (Node, Seen<Sight>) {
    let sights = Seen::default();
    let relay = does(|event: &Noted, cx| {
        async move {
            cx.publish(Followed { number: event.number }).await?;
            Ok(())
        }
        .boxed()
    });
    #[derive(Clone)]
    struct Watches(Seen<Sight>);
    impl Worker for Watches {}
    impl Handle<Noted> for Watches {
        async fn handle(&mut self, _: &Noted, cx: &mut Context) -> Result<(), Failure> {
            self.0.add(Sight::of(cx));
            Ok(())
        }
    }
    impl Handle<Followed> for Watches {
        async fn handle(&mut self, _: &Followed, cx: &mut Context) -> Result<(), Failure> {
            self.0.add(Sight::of(cx));
            Ok(())
        }
    }
    let watches = Watches(sights.clone());
    let app = App::new("test")
        .manager(Manager::new("watch").worker(move || watches.clone()).handles::<Noted>().handles::<Followed>())
        .manager(Manager::new("relay").worker(relay).handles::<Noted>());
    (started(app).await, sights)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_sends_names_the_event_in_hand_as_its_cause_and_its_manager_as_its_origin() {
    let (node, sights) = chain().await;
    let receipt = node.bus().publish(noted(1)).await.expect("published");
    let sights = sights.wait_for(2).await;
    let [first, second] = [&sights[0].envelope, &sights[1].envelope];
    assert_eq!((first.id(), first.head().cause), (receipt.id, None));
    assert_eq!(second.head().cause, Some(receipt.id));
    assert_ne!(second.id(), first.id());
    assert_eq!((first.name().as_str(), second.name().as_str()), ("test.noted", "test.followed"));

    let origin = |envelope: &Envelope| {
        let origin = &envelope.head().origin;
        (origin.node.to_string(), origin.manager.as_ref().map(ToString::to_string), origin.incarnation)
    };
    let incarnation = node.topology().incarnation;
    assert_eq!(origin(first), ("test".to_owned(), None, incarnation));
    assert_eq!(origin(second), ("test".to_owned(), Some("relay".to_owned()), incarnation));
    assert_eq!(node.bus().address().manager, None);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_on_from_event_to_event_with_a_span_of_its_own_for_each() {
    let (node, sights) = chain().await;
    let parent: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().expect("valid");
    node.bus().publish_with(noted(1), &Options::new().trace(parent)).await.expect("published");
    let from_outside = sights.wait_for(2).await;
    node.bus().publish(noted(2)).await.expect("published");
    let of_its_own = sights.wait_for(4).await.split_off(2);
    assert!(from_outside.iter().all(|sight| sight.trace().trace_id() == parent.trace_id()));
    assert_eq!(of_its_own[0].trace().trace_id(), of_its_own[1].trace().trace_id());
    assert_ne!(of_its_own[0].trace().trace_id(), parent.trace_id());
    let mut spans: Vec<_> = from_outside.iter().chain(&of_its_own).map(|sight| sight.trace().span_id()).collect();
    spans.push(parent.span_id());
    spans.sort_unstable();
    spans.dedup();
    assert_eq!(spans.len(), 5);
    assert!(from_outside.iter().all(|sight| sight.trace().is_sampled()));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_sends_when_it_starts_follows_from_nothing() {
    struct Herald;
    impl Worker for Herald {
        async fn started(&mut self, cx: &mut Context) -> Result<(), Failure> {
            cx.publish(noted(1)).await?;
            Ok(())
        }
    }
    impl Handle<Asked> for Herald {
        async fn handle(&mut self, _: &Asked, _: &mut Context) -> Result<u64, Failure> {
            Ok(0)
        }
    }
    let sights = Seen::default();
    let watch = {
        let sights = sights.clone();
        does(move |_: &Noted, cx| {
            sights.add(Sight::of(cx));
            async { Ok(()) }.boxed()
        })
    };
    let app = App::new("test")
        .manager(Manager::new("watch").worker(watch).handles::<Noted>())
        .manager(Manager::new("herald").worker(|| Herald).handles::<Asked>());
    let node = started(app).await;
    let envelope = sights.wait_for(1).await[0].envelope.clone();
    assert_eq!(envelope.head().cause, None);
    assert!(envelope.head().origin.manager.as_ref().is_some_and(|manager| *manager == "herald"));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_the_key_and_the_deadline_reach_the_handler() {
    let (node, sights) = chain().await;
    let options =
        Options::new().header("tenant", "north").header("hop", "1").key("other").time_limit(Duration::from_secs(60));
    node.bus().publish_with(keyed("own", 1), &options).await.expect("published");
    let sights = sights.wait_for(2).await;
    let envelope = &sights[0].envelope;
    assert_eq!(
        (envelope.header("tenant"), envelope.header("hop"), envelope.header("x")),
        (Some("north"), Some("1"), None)
    );
    assert_eq!(envelope.key().as_deref(), Some("other"));
    assert_eq!(envelope.payload::<Noted>().expect("typed").key, "own");
    assert!(sights[0].remaining.is_some_and(|left| left <= Duration::from_secs(60) && left > Duration::from_secs(30)));
    let followed = &sights[1].envelope;
    assert_eq!((followed.header("tenant"), followed.key(), followed.head().deadline), (None, None, None));

    node.bus().publish(keyed("own", 2)).await.expect("published");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_or_too_long_headers_make_the_sending_fail() {
    let node = started(
        App::new("test")
            .manager(Manager::new("m").worker(keeps(&Seen::default())).handles::<Noted>().handles::<Asked>()),
    )
    .await;
    let too_many = (0..65).fold(Options::new(), |options, number| options.header(&format!("h{number}"), "x"));
    let too_long = Options::new().header("h", &"x".repeat(8 * 1024));
    for options in [too_many, too_long] {
        let error = node.bus().publish_with(noted(1), &options).await;
        assert!(matches!(error, Err(PublishError::Declare(DeclareError::Headers(_)))), "{error:?}");
        let error = node.bus().request_with(asked(1), &options).await;
        assert!(matches!(error, Err(RequestError::Declare(DeclareError::Headers(_)))), "{error:?}");
    }
    assert_eq!(ends_well(&node).await.account.deliveries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typed_payload_is_the_very_same_for_every_group() {
    let places: Seen<(usize, usize)> = Seen::default();
    let worker = || {
        let places = places.clone();
        does(move |event: &Noted, _| {
            places.add((std::ptr::from_ref(event) as usize, event.key.as_ptr() as usize));
            async { Ok(()) }.boxed()
        })
    };
    let app = App::new("test")
        .manager(Manager::new("task").worker(worker()).handles::<Noted>())
        .manager(Manager::new("keyed").workers(2, worker()).keyed().handles::<Noted>())
        .manager(Manager::new("thread").placement(Placement::Thread).worker(worker()).handles::<Noted>())
        .manager(Manager::new("shared").worker(worker()).handles_concurrently::<Noted>());
    let node = started(app).await;
    let mut stream = node.bus().subscribe::<Noted>().await.expect("subscribed");
    let event = keyed("a key on the heap", 1);
    let text = event.key.as_ptr() as usize;
    node.bus().publish(event).await.expect("published");
    let received = within("the event", stream.next()).await.expect("the node runs");
    let first = std::ptr::from_ref::<Noted>(&received) as usize;
    let places = places.wait_for(4).await;
    assert!(places.iter().all(|place| *place == (first, text)), "{places:?}, {first}, {text}");
    drop((received, stream));
    ends_well(&node).await;
}

/// Asks for the bytes of each event.
#[derive(Clone)]
struct Encodes(Seen<(Encoding, usize, usize)>);

impl Worker for Encodes {}

impl HandleAny for Encodes {
    async fn handle(&mut self, event: &Envelope, _: &mut Context) -> Result<Option<Value>, Failure> {
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let bytes = event.encoded(encoding)?;
            self.0.add((encoding, bytes.as_ptr() as usize, bytes.len()));
        }
        Ok(None)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_is_encoded_at_most_once_however_many_ask_for_its_bytes() {
    let seen = Seen::default();
    let encodes = Encodes(seen.clone());
    let make = move || encodes.clone();
    let app = App::new("test")
        .manager(Manager::new("one").worker(make.clone()).handles_any("test.noted"))
        .manager(Manager::new("two").worker(make.clone()).handles_any("test.*"))
        .manager(Manager::new("three").placement(Placement::Thread).worker(make).handles_any("test.>"));
    let node = started(app).await;
    for from_bytes in [false, true] {
        let before = seen.len();
        if from_bytes {
            node.bus().untyped().publish("test.noted", json!({"key": "k", "number": 1})).await.expect("published");
        } else {
            node.bus().publish(keyed("k", 1)).await.expect("published");
        }
        let seen = seen.wait_for(before + 6).await.split_off(before);
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let of: Vec<_> = seen.iter().filter(|(other, ..)| *other == encoding).collect();
            assert_eq!(of.len(), 3);
            assert!(of.iter().all(|place| *place == of[0]), "{of:?}");
        }
    }
    ends_well(&node).await;
}

static ENCODINGS: AtomicUsize = AtomicUsize::new(0);

#[edri::event(notification, name = "envelopes.costly")]
struct Costly {
    #[serde(serialize_with = "counted")]
    number: u64,
}

fn counted<S: serde::Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    ENCODINGS.fetch_add(1, Ordering::SeqCst);
    serializer.serialize_u64(*number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_nobody_asks_for_as_bytes_is_not_encoded() {
    let node = started(App::new("test")).await;
    let mut streams = Vec::new();
    for pattern in ["envelopes.costly", "envelopes.*", ">"] {
        streams.push(node.bus().untyped().subscribe(pattern).await.expect("subscribed"));
    }
    node.bus().publish(Costly { number: 7 }).await.expect("published");
    let mut envelopes = Vec::new();
    for stream in &mut streams {
        envelopes.push(within("the event", stream.next()).await.expect("the node runs"));
    }
    assert_eq!(envelopes[0].payload::<Costly>().expect("typed").number, 7);
    assert_eq!(ENCODINGS.load(Ordering::SeqCst), 0);
    for envelope in &envelopes {
        assert_eq!(envelope.encoded(Encoding::Json).expect("encodes")[..], *br#"{"number":7}"#);
        assert_eq!(envelope.body(Encoding::Json).expect("encodes").bytes[..], *br#"{"number":7}"#);
    }
    assert_eq!(ENCODINGS.load(Ordering::SeqCst), 1);
    drop(streams);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_and_types_meet_either_way() {
    #[derive(Clone)]
    struct Reads(Seen<(String, serde_json::Value)>);
    impl Worker for Reads {}
    impl HandleAny for Reads {
        async fn handle(&mut self, event: &Envelope, _: &mut Context) -> Result<Option<Value>, Failure> {
            self.0.add((event.key().unwrap_or_default(), event.body(Encoding::Json)?.decode()?));
            Ok(None)
        }
    }
    let (typed, untyped) = (Seen::default(), Seen::default());
    let by_worker = typed.clone();
    let types = does(move |event: &Noted, _| {
        by_worker.add(event.clone());
        async { Ok(()) }.boxed()
    });
    let reads = Reads(untyped.clone());
    let app = App::new("test")
        .manager(Manager::new("typed").worker(types).handles::<Noted>())
        .manager(Manager::new("untyped").worker(move || reads.clone()).handles_any("test.noted"));
    let node = started(app).await;
    let bus = node.bus();
    bus.publish(keyed("a", 1)).await.expect("published");
    bus.untyped().publish("test.noted", json!({"key": "b", "number": 2, "unknown": [null]})).await.expect("published");
    let packed = Body::encode(Encoding::MessagePack, &json!({"number": 3, "key": "c"})).expect("encodes");
    bus.untyped().publish_batch("test.noted", [packed]).await.expect("published");
    bus.untyped().try_publish("test.noted", json!({"key": "d", "number": 4}).into()).expect("published");
    at_rest(bus).await;
    assert_eq!(typed.list(), [keyed("a", 1), keyed("b", 2), keyed("c", 3), keyed("d", 4)]);
    let expect = [
        ("a", json!({"key": "a", "number": 1})),
        ("b", json!({"key": "b", "number": 2, "unknown": [null]})),
        ("c", json!({"key": "c", "number": 3})),
        ("d", json!({"key": "d", "number": 4})),
    ];
    assert_eq!(untyped.list(), expect.map(|(key, value)| (key.to_owned(), value)));
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_types_are_answered_by_workers_with_types_and_the_reverse() {
    struct Echo;
    impl Worker for Echo {}
    impl HandleAny for Echo {
        async fn handle(&mut self, event: &Envelope, _: &mut Context) -> Result<Option<Value>, Failure> {
            let value: serde_json::Value = event.body(Encoding::Json)?.decode()?;
            let Some(number) = value["number"].as_u64() else { return Err(Failure::new("no_number", "there is none")) };
            Ok(Some(Body::encode(Encoding::MessagePack, &(number + 100))?.into()))
        }
    }
    let app = App::new("test")
        .manager(Manager::new("typed").worker(keeps(&Seen::default())).handles::<Asked>())
        .manager(Manager::new("untyped").worker(|| Echo).handles_any("test.asked"));
    let node = started(app).await;
    let (bus, untyped) = (node.bus(), node.bus().untyped());
    assert_eq!(bus.request_to("untyped", asked(1)).await.expect("answered"), 101);
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let body = Body::encode(encoding, &json!({"number": 2})).expect("encodes");
        let answer = untyped.request_to("typed", "test.asked", body.clone()).await.expect("answered");
        assert_eq!((answer.encoding, answer.decode::<u64>().expect("a number")), (encoding, 2));
        let answer = untyped.request_to("untyped", "test.asked", body.clone()).await.expect("answered");
        assert_eq!(answer.decode::<u64>().expect("a number"), 102);
        let mut answers = untyped.request_all("test.asked", body).await.expect("two answer");
        let mut sum = 0;
        while let Some(answer) = answers.next().await {
            sum += answer.result.expect("answered").decode::<u64>().expect("a number");
        }
        assert_eq!(sum, 104);
    }
    let error = untyped.request_to("untyped", "test.asked", json!({})).await.expect_err("no number");
    assert_eq!(error.code(), "no_number");
    ends_well(&node).await;
}

fn body(value: serde_json::Value) -> Body {
    value.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opener_without_types_meets_a_worker_with_types() {
    let node = counting(multiply).await;
    let mut tunnel = node.bus().untyped().open("tunnels.counted", json!({"factor": 5})).await.expect("opened");
    for (number, encoding) in [(1, Encoding::Json), (2, Encoding::MessagePack)] {
        tunnel.send(Body::encode(encoding, &number).expect("encodes")).await.expect("open");
        let item = within("an item", tunnel.recv()).await.expect("open").expect("an item");
        assert_eq!(item.decode::<u64>().expect("a number"), number * 5);
    }
    let result = within("the result", tunnel.result()).await.expect("succeeded");
    assert_eq!((result.encoding, result.decode::<u64>().expect("a number")), (Encoding::Json, 3));

    let mut tunnel = node.bus().untyped().open("tunnels.counted", json!({"factor": 5})).await.expect("opened");
    tunnel.send(body(json!("not a number"))).await.expect("nobody has looked at it yet");
    let error = within("the end", tunnel.recv()).await.expect_err("the worker cannot read that");
    assert!(error.to_string().contains("invalid type"), "{error}");
    let error = node.bus().untyped().open("tunnels.counted", json!({"factor": "x"})).await.expect("opened");
    assert_eq!(within("the end", error.result()).await.expect_err("not this event").code(), "invalid_payload");
    ends_well(&node).await;
}

/// Doubles what it is sent, without knowing what a number is.
struct Doubles;

impl Worker for Doubles {}

impl HandleAny for Doubles {
    async fn handle(&mut self, event: &Envelope, cx: &mut Context) -> Result<Option<Value>, Failure> {
        let factor: serde_json::Value = event.body(Encoding::Json)?.decode()?;
        let mut tunnel = cx.accept_untyped()?;
        let mut sum = 0;
        while let Some(item) = tunnel.recv().await? {
            let number: u64 = item.decode()?;
            sum += number;
            if number == 13 {
                tunnel.send(body(json!("unlucky"))).await?;
            } else {
                let product = number * factor["factor"].as_u64().unwrap_or_default();
                tunnel.send(Body::encode(Encoding::MessagePack, &product)?).await?;
            }
        }
        Ok(Some(Body::encode(Encoding::Json, &sum)?.into()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opener_with_types_meets_a_worker_without_types() {
    let manager = Manager::new("server").worker(|| Doubles).handles_any("tunnels.counted");
    let node = started(App::new("test").manager(manager)).await;
    let mut tunnel = open(&node).await;
    for number in 1..=3 {
        tunnel.send(number).await.expect("open");
        assert_eq!(within("an item", tunnel.recv()).await.expect("open"), Some(number * 2));
    }
    assert_eq!(within("the result", tunnel.result()).await.expect("succeeded"), 6);

    let mut tunnel = open(&node).await;
    tunnel.send(13).await.expect("open");
    // The worker's item is refused where it is sent, so the worker fails.
    let error = within("the end", tunnel.recv()).await.expect_err("not a number");
    assert!(error.to_string().contains("invalid type"), "{error}");
    let untyped = node.bus().untyped().open("tunnels.counted", json!({"factor": 4})).await;
    let mut untyped = untyped.expect("neither has types");
    untyped.send(body(json!(5))).await.expect("open");
    let item = within("an item", untyped.recv()).await.expect("open").expect("an item");
    assert_eq!(item.decode::<u64>().expect("a number"), 20);
    assert_eq!(within("the result", untyped.result()).await.expect("succeeded").decode::<u64>().expect("a number"), 5);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_what_the_requester_expects_is_an_error_of_its_payload() {
    struct Liar;
    impl Worker for Liar {}
    impl HandleAny for Liar {
        async fn handle(&mut self, _: &Envelope, _: &mut Context) -> Result<Option<Value>, Failure> {
            Ok(Some(body(json!("not a number")).into()))
        }
    }
    let node = started(App::new("test").manager(Manager::new("liar").worker(|| Liar).handles_any("test.asked"))).await;
    let error = within("an answer", node.bus().request(asked(1))).await.expect_err("not a number");
    assert_eq!(error.code(), "invalid_payload");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untyped_verb_needs_a_declared_event_of_the_kind_it_sends() {
    let app = App::new("test")
        .manager(Manager::new("m").worker(keeps(&Seen::default())).handles::<Noted>().handles::<Asked>());
    let node = started(app).await;
    let (bus, untyped) = (node.bus(), node.bus().untyped());
    let body = || json!({"key": "k", "number": 1, "sensor": "s"});
    let unknown = untyped.publish("sensor.read", body()).await;
    assert!(matches!(unknown, Err(PublishError::Declare(DeclareError::UnknownEvent(_)))), "{unknown:?}");
    assert_eq!(untyped.request("sensor.ask", body()).await.expect_err("unknown").code(), "unknown_event");
    assert_eq!(untyped.request("test.noted", body()).await.expect_err("a notification").code(), "wrong_kind");
    assert_eq!(untyped.open("test.asked", body()).await.expect_err("a request").code(), "wrong_kind");
    let wrong = untyped.publish("test.asked", body()).await;
    assert!(matches!(wrong, Err(PublishError::Declare(DeclareError::WrongKind { .. }))), "{wrong:?}");

    let declaration = || Descriptor::declare("sensor.read", Kind::Notification).expect("a name").key("sensor");
    bus.declare(declaration().build()).await.expect("declared");
    bus.declare(declaration().description("again").build()).await.expect("declared again");
    let other = Descriptor::declare("sensor.read", Kind::Request).expect("a name").build();
    assert_eq!(bus.declare(other).await.expect_err("of another kind").code(), "name_taken");
    let mut stream = untyped.subscribe("sensor.read").key("s").await.expect("subscribed");
    assert_eq!(untyped.publish("sensor.read", body()).await.expect("published").deliveries, 1);
    assert_eq!(within("the event", stream.next()).await.and_then(|event| event.key()).as_deref(), Some("s"));
    let names: Vec<_> = bus.events().iter().map(|event| event.name().to_string()).collect();
    assert_eq!(names, ["sensor.read", "test.asked", "test.noted"]);
    drop(stream);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_to_live_that_the_event_declares_is_its_deadline() {
    #[edri::event(notification, name = "envelopes.fleeting", ttl = "1m")]
    #[derive(Debug, Clone)]
    struct Fleeting {}
    async fn deadline_of<E: Notification>(bus: &Bus, event: E, options: &Options) -> Option<Duration> {
        let mut stream = bus.subscribe::<E>().await.expect("subscribed");
        let began = Instant::now();
        bus.publish_with(event, options).await.expect("published");
        let received = within("the event", stream.next()).await.expect("the node runs");
        received.envelope().head().deadline.map(|deadline| deadline - began)
    }
    let node = started(App::new("test")).await;
    let minute = Duration::from_secs(60);
    let own = deadline_of(node.bus(), Fleeting {}, &Options::new()).await.expect("declared");
    assert!(own >= minute && own < 2 * minute, "{own:?}");
    let said = deadline_of(node.bus(), Fleeting {}, &Options::new().time_limit(10 * minute)).await.expect("said");
    assert!(said >= 10 * minute, "{said:?}");
    assert_eq!(deadline_of(node.bus(), noted(1), &Options::new()).await, None);
    ends_well(&node).await;
}

#[test]
fn ids_of_events_are_never_given_twice() {
    let ids = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..10_000).map(|_| EventId::next()).collect::<Vec<_>>())).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect::<std::collections::HashSet<_>>()
    });
    assert_eq!(ids.len(), 40_000);
}
