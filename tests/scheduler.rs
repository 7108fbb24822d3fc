//! The scheduler on real nodes: what is due is sent, from any node, whatever its handlers do.

mod kept;

use std::time::Duration;

use edri::prelude::*;
use edri::scheduler::event::{Add, Cancel, Get, List, Pause, Resume, RunNow, Status};
use edri::scheduler::{Missed, Overlap, Response, When};
use edri::{Error, StartError};
use serde_json::json;

use crate::support::*;

const SOON: Duration = Duration::from_millis(30);
/// Not within any test.
const LATER: Duration = Duration::from_secs(3600);

async fn status(bus: &Bus, id: &str) -> Status {
    within("the scheduler to say how an entry is", bus.request(Get { id: id.to_owned() })).await.expect("it is there")
}

async fn add(bus: &Bus, entry: Entry) -> String {
    within("an entry to be added", bus.request(Add(entry))).await.expect("it is added").id
}

/// The code of the failure that a request ends in.
fn code<T: std::fmt::Debug>(result: Result<T, RequestError>) -> String {
    result.expect_err("it is refused").code().to_owned()
}

#[tokio::test]
async fn what_the_program_schedules_is_sent_when_it_is_due() {
    let seen = Seen::default();
    let scheduler =
        Scheduler::new().every(SOON, noted(1)).after(SOON, Followed { number: 2 }).cron("0 0 1 1 *", noted(3));
    let keeps = Manager::new("keeps").worker(keeps(&seen)).handles::<Noted>().handles::<Followed>();
    let node = started(App::new("node").manager(scheduler).manager(keeps)).await;
    let numbers = seen.wait_for(10).await;
    assert_eq!(numbers.iter().filter(|number| **number == 2).count(), 1);
    assert!(!numbers.contains(&3));
    ends_well(&node).await;
}

#[tokio::test]
async fn what_is_sent_says_which_entry_and_due_time_it_is_of() {
    let node = started(App::new("node").manager(Scheduler::new().declares::<Noted>())).await;
    let mut sent = node.bus().untyped().subscribe("test.noted").await.expect("subscribes");
    add(node.bus(), Entry::every(SOON, noted(1)).id("mine")).await;
    let first = within("a run", sent.next()).await.expect("one comes");
    let second = within("a run", sent.next()).await.expect("another comes");
    let header = |event: &Envelope, name: &str| event.header(name).map(str::to_owned).expect("it has it");
    assert_eq!(header(&first, "schedule-entry"), "mine");
    assert!(header(&first, "schedule-due") < header(&second, "schedule-due"));
    drop(sent);
    ends_well(&node).await;
}

#[tokio::test]
async fn a_response_is_kept_or_published_or_dropped() {
    let oracle = Manager::new("oracle").worker(keeps(&Seen::default())).handles::<Asked>();
    let node = started(App::new("node").manager(Scheduler::new()).manager(oracle)).await;
    let bus = node.bus();
    let mut published = bus.untyped().subscribe("test.answer").await.expect("subscribes");
    add(bus, Entry::every(SOON, asked(7)).id("published").publish_response("test.answer")).await;
    let answer = within("an answer", published.next()).await.expect("one comes");
    assert_eq!(answer.body(edri::Encoding::MessagePack).expect("it has one").decode::<u64>().expect("a number"), 7);
    drop(published);

    add(bus, Entry::after(SOON, asked(8)).id("kept")).await;
    let mut last = None;
    for _ in 0..1000 {
        last = status(bus, "kept").await.last;
        if last.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let kept = last.expect("it ran").response.expect("it is kept");
    assert_eq!(kept.body().decode::<u64>().expect("a number"), 8);
    assert!(status(bus, "kept").await.finished);

    add(bus, Entry::after(SOON, asked(9)).id("dropped").drop_response()).await;
    let gone = async {
        while bus.request(Get { id: "dropped".to_owned() }).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("an entry without a result to be gone", gone).await;
    ends_well(&node).await;
}

#[tokio::test]
async fn entries_are_added_replaced_paused_resumed_run_and_cancelled_by_events() {
    let seen = Seen::default();
    let keeps = Manager::new("keeps").worker(keeps(&seen)).handles::<Noted>();
    let node = started(App::new("node").manager(Scheduler::new()).manager(keeps)).await;
    let bus = node.bus();
    let first = bus.request(Add(Entry::every(LATER, noted(1)).id("it"))).await.expect("added");
    assert!(!first.replaced && first.next.is_some());
    assert!(bus.request(Add(Entry::every(LATER, noted(2)).id("it"))).await.expect("replaced").replaced);
    let made_up = add(bus, Entry::every(LATER, noted(3))).await;
    assert_ne!(made_up, "");

    bus.request(RunNow { id: "it".into() }).await.expect("runs");
    assert_eq!(seen.wait_for(1).await, [2]);
    assert_eq!(status(bus, "it").await.runs, 0, "one that was asked for is none that was due");

    assert!(bus.request(Pause { id: "it".into() }).await.expect("pauses").paused);
    bus.request(RunNow { id: "it".into() }).await.expect("runs while it is paused");
    seen.wait_for(2).await;
    assert!(!bus.request(Resume { id: "it".into() }).await.expect("goes on").paused);

    assert!(bus.request(Cancel { id: "it".into() }).await.expect("is cancelled").existed);
    assert!(!bus.request(Cancel { id: "it".into() }).await.expect("is answered").existed);
    assert_eq!(code(bus.request(Get { id: "it".into() }).await), "unknown_entry");
    assert_eq!(code(bus.request(Pause { id: "it".into() }).await), "unknown_entry");
    assert_eq!(code(bus.request(Resume { id: "it".into() }).await), "unknown_entry");
    assert_eq!(code(bus.request(RunNow { id: "it".into() }).await), "unknown_entry");
    ends_well(&node).await;
}

#[tokio::test]
async fn an_entry_that_is_refused_leaves_the_one_of_its_id_as_it_was() {
    let node = started(App::new("node").manager(Scheduler::new())).await;
    let bus = node.bus();
    add(bus, Entry::every(LATER, noted(1)).id("it")).await;
    for wrong in [
        Entry::cron("61 * * * *", noted(2)),
        Entry::cron("0 0 30 2 *", noted(2)),
        Entry::every(Duration::ZERO, noted(2)),
        Entry::cron("* * * * *", noted(2)).zone("Atlantis/Poseidonis"),
        Entry::every(LATER, noted(2)).at_most_once("claims"),
        Entry::every(LATER, noted(2)).publish_response("test.answer"),
        Entry::publish(When::every(LATER), "no name!", &()),
        Entry::publish(When::every(LATER), "test.big", &"x".repeat(100_000)),
        Entry::at(std::time::SystemTime::UNIX_EPOCH, noted(2)),
    ] {
        let shown = format!("{wrong:?}");
        let code = code(bus.request(Add(wrong.id("it"))).await);
        assert!(code == "invalid_entry" || code == "never_due", "{code}: {shown}");
    }
    assert_eq!(status(bus, "it").await.entry, Entry::every(LATER, noted(1)).id("it"));
    ends_well(&node).await;
}

#[tokio::test]
async fn an_entry_is_added_as_json_and_a_word_that_is_not_known_is_refused() {
    let seen = Seen::default();
    let keeps = Manager::new("keeps").worker(keeps(&seen)).handles::<Noted>();
    let node = started(App::new("node").manager(Scheduler::new()).manager(keeps)).await;
    let untyped = node.bus().untyped();
    let entry = json!({
        "id": "json", "when": {"every_ms": 20}, "count": 2,
        "send": {"publish": {"event": "test.noted", "payload": {"key": "a", "number": 5}}},
    });
    let added = untyped.request("schedule.add", entry.clone()).await.expect("it is added");
    assert_eq!(added.decode::<serde_json::Value>().expect("JSON")["replaced"], false);
    assert_eq!(seen.wait_for(2).await, [5, 5]);

    let mut wrong = entry;
    wrong["evry"] = json!(1);
    let error = untyped.request("schedule.add", wrong).await.expect_err("it is refused");
    assert_eq!(error.code(), "invalid_payload");
    assert!(error.to_string().contains("evry"), "{error}");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_page_goes_on_where_the_one_before_it_ended() {
    let entries = (0..25).map(|number| Entry::every(LATER, noted(number)).id(&format!("a/{number:02}")));
    let scheduler = Scheduler::new().entries(entries).entry(Entry::every(LATER, noted(99)).id("b"));
    let node = started(App::new("node").manager(scheduler)).await;
    let (mut ids, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let list = List { prefix: "a/".to_owned(), after, limit: Some(10) };
        let page = node.bus().request(list).await.expect("a page");
        assert_eq!(page.total, 26);
        ids.extend(page.entries.into_iter().map(|entry| entry.id));
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(ids, (0..25).map(|number| format!("a/{number:02}")).collect::<Vec<_>>());
    let too_large = List { limit: Some(1001), ..List::default() };
    assert_eq!(code(node.bus().request(too_large).await), "invalid_page");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_slow_handler_holds_up_its_own_entry_and_no_other() {
    let (gate, slow, quick) = (Gate::closed(), Seen::default(), Seen::default());
    let stuck = Manager::new("stuck").worker(keeps_behind(&gate, &slow)).handles::<Asked>();
    let goes = Manager::new("goes").worker(keeps(&quick)).handles::<Followed>();
    let scheduler = Scheduler::new()
        .entry(Entry::every(SOON, asked(1)).id("slow"))
        .entry(Entry::every(SOON, Followed { number: 2 }).id("quick"));
    let node = started(App::new("node").manager(stuck).manager(goes).manager(scheduler)).await;
    gate.arrived(1).await;
    quick.wait_for(quick.len() + 10).await;
    let slow = status(node.bus(), "slow").await;
    assert_eq!((slow.running, slow.runs), (1, 1));
    assert!(slow.skipped > 0);
    gate.open();
    ends_well(&node).await;
}

#[tokio::test]
async fn a_request_that_overlaps_is_queued_or_runs_beside_the_others_as_its_entry_says() {
    let (gate, seen) = (Gate::closed(), Seen::default());
    let stuck = Manager::new("stuck").workers(4, keeps_behind(&gate, &seen)).handles::<Asked>();
    let scheduler = Scheduler::new()
        .entry(Entry::every(LATER, asked(1)).id("queue").overlap(Overlap::Queue))
        .entry(Entry::every(LATER, asked(2)).id("beside").overlap(Overlap::Beside(2)));
    let node = started(App::new("node").manager(stuck).manager(scheduler)).await;
    let run = async |id: &str| node.bus().request(RunNow { id: id.to_owned() }).await;
    assert!(!run("queue").await.expect("runs").queued);
    assert!(run("queue").await.expect("waits").queued);
    assert_eq!(code(run("queue").await), "still_running");
    assert!(!run("beside").await.expect("runs").queued);
    assert!(!run("beside").await.expect("runs beside").queued);
    assert_eq!(code(run("beside").await), "still_running");
    gate.arrived(3).await;
    gate.open();
    let mut numbers = seen.wait_for(4).await;
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 1, 2, 2]);
    ends_well(&node).await;
}

#[tokio::test]
async fn a_run_that_fails_is_counted_with_its_reason() {
    let node = started(App::new("node").manager(Scheduler::new())).await;
    let bus = node.bus();
    add(bus, Entry::request(When::after(SOON), "test.nobody_knows", &json!({})).id("it")).await;
    let limit = tokio::time::Instant::now() + LIMIT;
    let status = loop {
        let status = status(bus, "it").await;
        if status.last.is_some() {
            break status;
        }
        assert!(tokio::time::Instant::now() < limit);
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((status.failed, status.finished), (1, true));
    assert_eq!(status.last.and_then(|last| last.error).expect("a reason").code, "unknown_event");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_program_with_a_wrong_entry_does_not_start_and_says_why() {
    let start = App::new("node").manager(Scheduler::new().cron("* * * 13 *", noted(1))).start().await;
    let error = start.map(drop).expect_err("it does not start").to_string();
    assert!(
        error.contains("entry `test.noted`: cron expression `* * * 13 *`: month: 13 is not within 1 to 12"),
        "{error}"
    );
    let twice =
        Scheduler::new().entry(Entry::every(LATER, noted(1)).id("a")).entry(Entry::every(LATER, noted(2)).id("a"));
    let error = App::new("node").manager(twice).start().await.map(drop).expect_err("it does not start");
    assert!(matches!(Error::from(error), Error::Start(StartError::Manager(_))));
}

#[tokio::test]
async fn a_node_that_stops_sends_nothing_more_and_is_soon_at_rest() {
    let seen = Seen::default();
    let keeps = Manager::new("keeps").worker(keeps(&seen)).handles::<Noted>();
    let entries = (0..50).map(|number| Entry::every(Duration::from_millis(1), noted(number)).missed(Missed::All(100)));
    let scheduler = Scheduler::new().entries(entries.enumerate().map(|(number, entry)| entry.id(&number.to_string())));
    let node = started(App::new("node").manager(scheduler).manager(keeps)).await;
    seen.wait_for(100).await;
    let report = ends_well(&node).await;
    assert!(report.took < Duration::from_secs(5), "{:?}", report.took);
}

#[tokio::test]
async fn two_schedulers_on_one_node_are_told_apart_by_their_names() {
    let node = started(App::new("node").manager(Scheduler::named("one")).manager(Scheduler::named("two"))).await;
    let bus = node.bus();
    bus.request_to("two", Add(Entry::every(LATER, noted(1)).id("it"))).await.expect("added");
    assert_eq!(code(bus.request_to("one", Get { id: "it".into() }).await), "unknown_entry");
    bus.request_to("two", Get { id: "it".into() }).await.expect("there it is");
    ends_well(&node).await;
}

#[tokio::test]
async fn a_scheduler_has_no_more_entries_than_it_may() {
    let node = started(App::new("node").manager(Scheduler::new().entries_max(1))).await;
    let bus = node.bus();
    add(bus, Entry::every(LATER, noted(1)).id("a")).await;
    assert_eq!(code(bus.request(Add(Entry::every(LATER, noted(1)).id("b"))).await), "too_many");
    add(bus, Entry::every(LATER, noted(2)).id("a")).await;
    ends_well(&node).await;
}

#[test]
fn what_becomes_of_a_response_is_said_in_the_entry() {
    let entry = Entry::every(LATER, asked(1)).publish_response("test.answer");
    let edri::scheduler::Action::Request(ask) = entry.send else { panic!("a request") };
    assert_eq!(ask.response, Response::Publish("test.answer".to_owned()));
}
