//! A worker in a third language, written without an SDK from `docs/PROTOCOL.md` alone: `foreign/worker.mjs`.

use std::io::Write;
use std::process::Command;

use edri::prelude::*;

use crate::support::{Seen, at_rest, does, ends_well, started, within};

#[event(notification, name = "foreign.seen")]
struct ForeignSeen {}

#[event(notification, name = "foreign.noted")]
struct ForeignNoted {
    seen: u64,
}

#[event(request, name = "foreign.sum", response = f64)]
struct Sum {
    numbers: Option<Vec<f64>>,
    ask: bool,
}

#[event(request, name = "foreign.ask", response = f64)]
struct Ask {}

#[event(request, name = "foreign.count", response = u64)]
struct Count {}

#[event(tunnel, name = "foreign.upper", up = String, down = String, result = u64)]
struct Upper {}

/// Whether there is a Node.js that runs it; says so when there is none.
fn node_is_there() -> bool {
    let version = Command::new("node").arg("--version").output();
    let version = version.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    let there = major.is_some_and(|major| major >= 18);
    if !there {
        let _ = writeln!(std::io::stderr(), "not tested: there is no Node.js 18 or later to run foreign/worker.mjs");
    }
    there
}

fn foreign() -> Manager<edri::Program> {
    Manager::program("foreign", concat!("node '", env!("CARGO_MANIFEST_DIR"), "/foreign/worker.mjs'"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_in_javascript_without_an_sdk_does_what_the_protocol_says() {
    if !node_is_there() {
        return;
    }
    let noted = Seen::default();
    let (notes, caused) = (noted.clone(), Seen::default());
    let causes = caused.clone();
    let keeper = does::<ForeignNoted, _>(move |event, cx| {
        notes.add(event.seen);
        causes.add(cx.envelope().and_then(|envelope| envelope.head().cause));
        Box::pin(async { Ok(()) })
    });
    let answers = does::<Ask, _>(|_, _| Box::pin(async { Ok(0.5) }));
    let app = App::new("test")
        .manager(foreign())
        .manager(Manager::new("keeper").worker(keeper).handles::<ForeignNoted>())
        .manager(Manager::new("oracle").worker(answers).handles::<Ask>());
    let node = started(app).await;
    let bus = node.bus();

    let mut published = Vec::new();
    for _ in 0..500 {
        published.push(Some(bus.publish(ForeignSeen {}).await.expect("published").id));
    }
    at_rest(bus).await;
    assert_eq!(noted.list(), (1..=500).collect::<Vec<_>>());
    assert_eq!(caused.list(), published, "each note names the event that made it");
    assert_eq!(bus.request(Count {}).await.expect("answered"), 500);

    let sum = Sum { numbers: Some(vec![1.25, 2.0]), ask: true };
    assert_eq!(bus.request(sum).await.expect("answered"), 3.75, "with what the node answered in between");
    let failed = bus.request(Sum { numbers: None, ask: false }).await.expect_err("there are no numbers");
    assert_eq!((failed.code(), failed.to_string().contains("must be a list")), ("no_numbers", true), "{failed}");

    let mut tunnel = bus.open(Upper {}).await.expect("opened");
    let words: Vec<String> = (0..300).map(|number| format!("word {number}")).collect();
    let (mut sender, mut receiver, outcome) = {
        let (sender, receiver, outcome) = {
            tunnel.send("first".to_owned()).await.expect("sent");
            tunnel.split()
        };
        (sender, receiver, outcome)
    };
    let sent = words.clone();
    let sending = tokio::spawn(async move {
        for word in sent {
            sender.send(word).await.expect("sent");
        }
        sender.finish();
    });
    assert_eq!(receiver.recv().await.expect("received").as_deref(), Some("FIRST"));
    for word in &words {
        let upper = within("an item", receiver.recv()).await.expect("received");
        assert_eq!(upper, Some(word.to_uppercase()));
    }
    sending.await.expect("all were sent");
    assert_eq!(within("the result", outcome.result()).await.expect("a result"), 301);
    assert!(ends_well(&node).await.unfinished.is_empty());
}
