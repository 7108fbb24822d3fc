//! Responders: what is read is answered where it is asked, as the worker would, and accounted for once.

use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edri::prelude::*;
use edri::{Body, Definition, Encoding, ManagerState, Placement, RequestError, Restart, Value, Worker};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::nodes::{Cluster, address};
use crate::support::{Gate, LIMIT, at_rest, begun, ends_well, started, until, view, within};

/// Asks for a number, or does something with it.
#[event(request, name = "responders.ask", response = (By, u64))]
struct Ask {
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
enum What {
    /// What number there is, which is known at once.
    Read,
    /// The same, which only a worker knows.
    ReadSlowly,
    /// A failure, which is known at once.
    Fail,
    Write(u64),
    /// The same, once the gate is open.
    WriteLater(u64),
    Panic,
    /// A panic of the responder, which a worker does not have.
    PanicAtOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
enum By {
    Responder,
    Worker,
}

/// What responder and worker share.
#[derive(Debug, Default)]
struct Known {
    number: AtomicU64,
    /// How often the responder was asked.
    asked: AtomicU64,
}

impl Known {
    fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// It only grows, whoever writes.
    fn write(&self, number: u64) {
        self.number.fetch_max(number, Ordering::SeqCst);
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Known {
    fn respond(&self, what: What) -> Option<Result<(By, u64), Failure>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match what {
            What::Read => Some(Ok((By::Responder, self.number()))),
            What::Fail => Some(Err(Failure::new("as_asked", "as it was asked to"))),
            What::PanicAtOnce => panic!("as it was asked to"),
            _ => None,
        }
    }
}

struct Keeps {
    known: Arc<Known>,
    gate: Gate,
    start: Gate,
}

impl Worker for Keeps {
    async fn started(&mut self, _: &mut Context) -> Result<(), Failure> {
        self.start.pass().await;
        Ok(())
    }
}

impl Handle<Ask> for Keeps {
    async fn handle(&mut self, ask: &Ask, _: &mut Context) -> Result<(By, u64), Failure> {
        match ask.what {
            What::Read | What::ReadSlowly | What::Fail | What::PanicAtOnce => {}
            What::Write(number) => self.known.write(number),
            What::WriteLater(number) => {
                self.gate.pass().await;
                self.known.write(number);
            }
            What::Panic => panic!("as it was asked to"),
        }
        Ok((By::Worker, self.known.number()))
    }
}

/// What a test has a hand on.
#[derive(Clone)]
struct Hand {
    known: Arc<Known>,
    gate: Gate,
    start: Gate,
}

impl Hand {
    fn new() -> Self {
        let hand = Self { known: Arc::default(), gate: Gate::closed(), start: Gate::closed() };
        hand.start.open();
        hand
    }

    fn manager(&self, restart: Restart) -> Definition {
        let Self { known, gate, start } = self.clone();
        let responder = Arc::clone(&known);
        Manager::new("keeper")
            .worker(move || Keeps { known: Arc::clone(&known), gate: gate.clone(), start: start.clone() })
            .handles::<Ask>()
            .responds(move |ask: &Ask| responder.respond(ask.what))
            .restart(restart)
            .into()
    }
}

async fn node() -> (Node, Hand) {
    let hand = Hand::new();
    let node = started(App::new("test").manager(hand.manager(Restart::default()))).await;
    (node, hand)
}

async fn ask(bus: &Bus, what: What) -> Result<(By, u64), RequestError> {
    bus.request(Ask { what }).await
}

/// Waits until the worker has nothing to do, and the responder is asked.
async fn until_responded(bus: &Bus) {
    let limit = Instant::now() + LIMIT;
    while ask(bus, What::Read).await.expect("answered").0 != By::Responder {
        assert!(Instant::now() < limit, "never answered where it was asked");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_responder_panics_a_worker_has_the_request() {
    let (node, hand) = node().await;
    let bus = node.bus();
    until_responded(bus).await;
    hand.known.write(7);
    let asked = hand.known.asked();
    assert_eq!(ask(bus, What::PanicAtOnce).await.expect("answered"), (By::Worker, 7));
    assert!(hand.known.asked() > asked, "it was not asked");
    until_responded(bus).await;
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_at_once_is_answered_where_it_is_asked_by_every_verb_and_accounted_for_once() {
    const EACH: u64 = 500;
    let (node, hand) = node().await;
    let bus = node.bus();
    until_responded(bus).await;
    let before = at_rest(bus).await;
    for _ in 0..EACH {
        assert_eq!(ask(bus, What::Read).await.expect("answered").0, By::Responder);
        assert_eq!(bus.request_to("keeper", Ask { what: What::Read }).await.expect("answered").0, By::Responder);
        assert_eq!(bus.request_at("test", Ask { what: What::Read }).await.expect("answered").0, By::Responder);
        let all = bus.request_all(Ask { what: What::Read }).await.expect("somebody answers").wanted(1).await;
        assert_eq!(all[0].0, By::Responder);
        assert_eq!(ask(bus, What::Fail).await.expect_err("fails").code(), "as_asked");
    }
    let account = at_rest(bus).await;
    assert_eq!(account.deliveries - before.deliveries, 5 * EACH);
    assert_eq!((account.handled - before.handled, account.failed - before.failed), (4 * EACH, EACH));
    assert_eq!(bus.topology().pending, 0);
    let view = view(&node, "keeper");
    assert!(view.handling.expect("some are timed").count > 0);
    assert_eq!(view.account, account);
    // Who is not meant is not asked.
    let asked = hand.known.asked();
    assert_eq!(bus.request_to("other", Ask { what: What::Read }).await.expect_err("is not there").code(), "no_handler");
    assert_eq!(bus.request_at("other", Ask { what: What::Read }).await.expect_err("is not there").code(), "no_handler");
    assert_eq!(hand.known.asked(), asked);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_at_once_a_worker_answers() {
    let (node, hand) = node().await;
    until_responded(node.bus()).await;
    let asked = hand.known.asked();
    for number in 1..100 {
        assert_eq!(ask(node.bus(), What::Write(number)).await.expect("answered"), (By::Worker, number));
        assert_eq!(ask(node.bus(), What::ReadSlowly).await.expect("answered"), (By::Worker, number));
        // Whoever has awaited what it did finds it.
        assert_eq!(ask(node.bus(), What::Read).await.expect("answered").1, number);
    }
    assert!(hand.known.asked() > asked);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requester_finds_what_it_did_before_although_it_has_not_waited_for_it() {
    let (node, hand) = node().await;
    let bus = node.bus();
    until_responded(bus).await;
    // In the worker's hands, and behind that in the inbox.
    let (mut first, mut second) = (pin!(ask(bus, What::WriteLater(1))), pin!(ask(bus, What::WriteLater(2))));
    assert!(begun(first.as_mut()).await.is_none());
    hand.gate.arrived(1).await;
    let mut read = pin!(ask(bus, What::Read));
    assert!(begun(read.as_mut()).await.is_none(), "the worker has something in hand");
    assert!(begun(second.as_mut()).await.is_none());
    let mut last = pin!(ask(bus, What::Read));
    assert!(begun(last.as_mut()).await.is_none(), "something waits");
    hand.gate.let_through(2);
    assert_eq!(within("the first answer", read).await.expect("answered"), (By::Worker, 1));
    assert_eq!(within("the last answer", last).await.expect("answered"), (By::Worker, 2));
    first.await.expect("written");
    second.await.expect("written");
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_each_finds_what_it_did_before_whoever_answers() {
    const REQUESTERS: u64 = 8;
    const EACH: u64 = 4000;
    let (node, _) = node().await;
    until_responded(node.bus()).await;
    let before = at_rest(node.bus()).await.deliveries;
    let next = Arc::new(AtomicU64::new(1));
    let requesters = (0..REQUESTERS).map(|_| {
        let (bus, next) = (node.bus().clone(), Arc::clone(&next));
        tokio::spawn(async move {
            let (mut responded, mut last) = (0, 0);
            for round in 0..EACH {
                if round % 16 == 0 {
                    // Under way, and perhaps in the worker's hands.
                    let written = next.fetch_add(1, Ordering::SeqCst);
                    let mut write = pin!(ask(&bus, What::Write(written)));
                    let over = begun(write.as_mut()).await;
                    let (_, read) = ask(&bus, What::Read).await.expect("answered");
                    assert!(read >= written, "{read} after {written} was written");
                    if over.is_none() {
                        write.await.expect("written");
                    }
                }
                let (by, read) = ask(&bus, What::Read).await.expect("answered");
                assert!(read >= last, "{read} after {last}");
                responded += u64::from(by == By::Responder);
                last = read;
            }
            responded
        })
    });
    let mut responded = 0;
    for ended in within("all of them", join_all(requesters)).await {
        responded += ended.expect("no panic");
    }
    assert!(responded > 0, "none of them was answered at once");
    let account = at_rest(node.bus()).await;
    assert_eq!(account.deliveries - before, REQUESTERS * (EACH + 2 * EACH / 16));
    until("all slots to be free", || node.bus().topology().pending == 0).await;
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_writes_and_reads_without_waiting_always_reads_what_it_wrote() {
    let (node, _) = node().await;
    let bus = node.bus();
    until_responded(bus).await;
    // Keeps the worker awake on the other thread now and then.
    let other = node.bus().clone();
    let restless = tokio::spawn(async move {
        loop {
            ask(&other, What::ReadSlowly).await.expect("answered");
            tokio::task::yield_now().await;
        }
    });
    let mut responded = 0;
    for number in 1..=20_000 {
        let mut write = pin!(ask(bus, What::Write(number)));
        let over = begun(write.as_mut()).await;
        let (by, read) = ask(bus, What::Read).await.expect("answered");
        assert_eq!(read, number, "{by:?}");
        responded += u64::from(by == By::Responder);
        if over.is_none() {
            write.await.expect("written");
        }
    }
    assert!(responded > 0, "none of them was answered at once");
    restless.abort();
    let _ = restless.await;
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_starts_or_is_about_to_take_another_s_place_answers_only_then() {
    let (node, old) = node().await;
    let bus = node.bus();
    until_responded(bus).await;
    let (mut new, mut writing) = (Hand::new(), pin!(ask(bus, What::WriteLater(1))));
    new.start = Gate::closed();
    assert!(begun(writing.as_mut()).await.is_none());
    old.gate.arrived(1).await;
    let replacing = {
        let (node, new) = (node.clone(), new.manager(Restart::default()));
        tokio::spawn(async move { node.replace(new).await })
    };
    new.start.arrived(1).await;
    new.start.open();
    until("the old one to drain", || node.topology().managers.iter().any(|m| m.state == ManagerState::Draining)).await;
    // The new one has started, and waits until the old one is done.
    let asked = (old.known.asked(), new.known.asked());
    let mut read = pin!(ask(bus, What::Read));
    assert!(begun(read.as_mut()).await.is_none());
    assert_eq!((old.known.asked(), new.known.asked()), asked);
    old.gate.open();
    within("the old answer", writing).await.expect("written");
    assert_eq!(within("the answer", read).await.expect("answered"), (By::Worker, 0));
    within("the replacement", replacing).await.expect("no panic").expect("replaced");
    until_responded(bus).await;
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_drains_or_has_failed_answers_nothing_and_one_whose_worker_is_lost_when_there_is_another() {
    let (node, hand) = node().await;
    let bus = node.bus();
    until_responded(bus).await;
    let mut writing = pin!(ask(bus, What::WriteLater(1)));
    assert!(begun(writing.as_mut()).await.is_none());
    hand.gate.arrived(1).await;
    let draining = {
        let node = node.clone();
        tokio::spawn(async move { node.drain("keeper").await })
    };
    until("the manager to drain", || view(&node, "keeper").state == ManagerState::Draining).await;
    let asked = hand.known.asked();
    assert_eq!(ask(bus, What::Read).await.expect_err("nobody answers").code(), "no_handler");
    hand.gate.open();
    within("the answer", writing).await.expect("written");
    within("the drain", draining).await.expect("no panic").expect("drained");
    assert_eq!(ask(bus, What::Read).await.expect_err("nobody answers").code(), "no_handler");
    assert_eq!(hand.known.asked(), asked);

    let hand = Hand::new();
    node.add(hand.manager(Restart::never())).await.expect("starts");
    until_responded(bus).await;
    assert_eq!(ask(bus, What::Panic).await.expect_err("panics").code(), "worker_lost");
    until("the manager to fail", || view(&node, "keeper").state == ManagerState::Failed).await;
    let asked = hand.known.asked();
    assert_eq!(ask(bus, What::Read).await.expect_err("nobody answers").code(), "no_handler");
    assert_eq!(hand.known.asked(), asked);
    ends_well(&node).await;

    let hand = Hand::new();
    let node = started(App::new("test").manager(hand.manager(Restart::default()))).await;
    until_responded(node.bus()).await;
    hand.start.close();
    assert_eq!(ask(node.bus(), What::Panic).await.expect_err("panics").code(), "worker_lost");
    // One that starts again answers nothing either.
    hand.start.arrived(2).await;
    let asked = hand.known.asked();
    let mut read = pin!(ask(node.bus(), What::Read));
    assert!(begun(read.as_mut()).await.is_none());
    assert_eq!(hand.known.asked(), asked);
    hand.start.open();
    assert_eq!(within("the answer", read).await.expect("answered").0, By::Worker);
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_time_left_is_not_answered_at_once() {
    let (node, hand) = node().await;
    until_responded(node.bus()).await;
    let asked = hand.known.asked();
    let options = Options::new().time_limit(Duration::ZERO);
    // A worker may still be in time.
    let _ = node.bus().request_with(Ask { what: What::Read }, &options).await;
    assert_eq!(hand.known.asked(), asked);
    ends_well(&node).await;
}

#[tokio::test]
async fn who_is_answered_at_once_without_end_lets_others_have_their_turn() {
    let (node, _) = node().await;
    let bus = node.bus().clone();
    until_responded(&bus).await;
    let asking = tokio::spawn(async move {
        loop {
            assert_eq!(ask(&bus, What::Read).await.expect("answered").0, By::Responder);
        }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    let _ = asking.await;
    ends_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_another_node_is_answered_where_it_arrives() {
    let cluster = Cluster::new();
    let hand = Hand::new();
    let centre = cluster.listens("centre", |app| app.manager(hand.manager(Restart::default()))).await;
    let sensor = cluster.dials("sensor", address(&centre), &["centre"], |app| app).await;
    until_responded(sensor.bus()).await;
    assert_eq!(ask(sensor.bus(), What::Fail).await.expect_err("fails").code(), "as_asked");
    assert_eq!(ask(sensor.bus(), What::Write(7)).await.expect("answered"), (By::Worker, 7));
    assert_eq!(ask(sensor.bus(), What::Read).await.expect("answered").1, 7);
    let account = at_rest(centre.bus()).await;
    assert!(account.is_balanced() && account.failed == 1 && account.handled >= 3, "{account:?}");
    ends_well(&sensor).await;
    ends_well(&centre).await;
}

/// What spans are made, as texts.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<u8>>>);

impl Write for Spans {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How many spans of its sending and of its handling a request has.
async fn spans_of(bus: &Bus, what: What, by: By) -> (usize, usize) {
    let spans = Spans::default();
    let made = {
        let spans = spans.clone();
        tracing_subscriber::fmt()
            .with_max_level(LevelFilter::DEBUG)
            .with_span_events(FmtSpan::NEW)
            .with_ansi(false)
            .with_writer(move || spans.clone())
            .finish()
    };
    let entered = made.set_default();
    assert_eq!(ask(bus, what).await.expect("answered").0, by);
    drop(entered);
    let text = String::from_utf8_lossy(&spans.0.lock()).into_owned();
    let count = |span: &str| text.lines().filter(|line| line.contains(span)).count();
    (count("request{event=responders.ask"), count("handle{event=responders.ask"))
}

#[tokio::test]
async fn what_is_answered_at_once_has_the_spans_of_what_a_worker_answers() {
    let (node, _) = node().await;
    until_responded(node.bus()).await;
    for (what, by) in [(What::Read, By::Responder), (What::ReadSlowly, By::Worker)] {
        let limit = Instant::now() + LIMIT;
        loop {
            match spans_of(node.bus(), what, by).await {
                (1, 1) => break,
                // Other tests that meet a span for the first time at this moment may have it left out everywhere.
                (0 | 1, 0 | 1) => assert!(Instant::now() < limit, "{by:?} has not both spans"),
                more => panic!("{by:?}: {more:?}"),
            }
        }
    }
    ends_well(&node).await;
}

/// What decodes as an `Ask` and is none.
#[event(request, name = "responders.wonder", response = (By, u64))]
struct Wonder {
    what: What,
}

#[event(request, name = "responders.muse", response = u64)]
struct Muse {}

#[event(notification, name = "responders.told")]
struct Told {}

/// Handles all of them.
struct Handles;

impl Worker for Handles {}

impl Handle<Ask> for Handles {
    async fn handle(&mut self, _: &Ask, _: &mut Context) -> Result<(By, u64), Failure> {
        Ok((By::Worker, 1))
    }
}

impl Handle<Wonder> for Handles {
    async fn handle(&mut self, _: &Wonder, _: &mut Context) -> Result<(By, u64), Failure> {
        Ok((By::Worker, 2))
    }
}

impl Handle<Muse> for Handles {
    async fn handle(&mut self, _: &Muse, _: &mut Context) -> Result<u64, Failure> {
        Ok(3)
    }
}

impl Handle<Told> for Handles {
    async fn handle(&mut self, _: &Told, _: &mut Context) -> Result<(), Failure> {
        Ok(())
    }
}

fn at_once(_: &Ask) -> Option<Result<(By, u64), Failure>> {
    Some(Ok((By::Responder, 10)))
}

#[tokio::test]
async fn each_responder_is_asked_for_the_event_that_it_names_with_a_type_or_without() {
    let manager = Manager::new("several")
        .worker(|| Handles)
        .responds(at_once)
        .responds_any("responders.muse", |request| {
            assert_eq!(request.name().as_str(), "responders.muse");
            Some(Ok(Value::typed(30_u64)))
        })
        .handles::<Ask>()
        .handles::<Wonder>()
        .handles::<Muse>()
        .handles::<Told>();
    let node = started(App::new("test").manager(manager)).await;
    let bus = node.bus();
    let limit = Instant::now() + LIMIT;
    while ask(bus, What::Read).await.expect("answered").0 != By::Responder {
        assert!(Instant::now() < limit, "never answered where it was asked");
        tokio::task::yield_now().await;
    }
    let body = |what: What| {
        let asked = serde_json::json!({ "what": what });
        Body::new(Encoding::Json, serde_json::to_vec(&asked).expect("encodes"))
    };
    for _ in 0..10 {
        at_rest(bus).await;
        // As bytes, which each of the two could be read from.
        let answer = bus.untyped().request("responders.ask", body(What::Read)).await.expect("answered");
        assert_eq!(answer.decode::<(By, u64)>().expect("decodes"), (By::Responder, 10));
        at_rest(bus).await;
        let answer = bus.untyped().request("responders.wonder", body(What::Read)).await.expect("answered");
        assert_eq!(answer.decode::<(By, u64)>().expect("decodes"), (By::Worker, 2));
        at_rest(bus).await;
        assert_eq!(bus.request(Wonder { what: What::Read }).await.expect("answered"), (By::Worker, 2));
        at_rest(bus).await;
        assert_eq!(bus.request(Muse {}).await.expect("answered"), 30);
    }
    // What is no `Ask` a worker has, which knows the words for it.
    at_rest(bus).await;
    let wrong = Body::new(Encoding::Json, b"{}".to_vec());
    let error = bus.untyped().request("responders.ask", wrong).await.expect_err("is none");
    assert_eq!(error.code(), "invalid_payload", "{error}");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_responder_that_cannot_be_is_refused_with_what_to_do() {
    let manager = || Manager::new("several").worker(|| Handles);
    let muse = |_: &Envelope| Some(Ok(Value::typed(30_u64)));
    let cases: [(Definition, &str); 7] = [
        (manager().handles::<Muse>().responds(at_once).into(), "`responders.ask` has a responder and no handler"),
        (manager().handles::<Ask>().responds(at_once).responds(at_once).into(), "has two responders"),
        (
            manager().handles::<Ask>().responds(at_once).responds_any("responders.ask", muse).into(),
            "has two responders",
        ),
        (manager().handles::<Muse>().responds_any("responders.ask", muse).into(), "no handler"),
        (manager().handles::<Told>().responds_any("responders.told", muse).into(), "is no request"),
        (manager().handles::<Muse>().responds_any("no name", muse).into(), "name"),
        (
            manager().handles::<Ask>().responds(at_once).placement(Placement::Process).into(),
            "its workers are processes, with which a responder shares nothing",
        ),
    ];
    for (definition, expect) in cases {
        let error = App::new("test").manager(definition).start().await.expect_err(expect).to_string();
        assert!(error.contains("manager `several`") && error.contains(expect), "{error}");
    }
}
