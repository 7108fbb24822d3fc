//! `publish`, `request`, `subscribe`.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::node::{Quake, done, interrupt, used};

const NORTH: &str = r#"{"region": "north", "magnitude": 4.5}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_is_published_from_an_argument_a_file_and_the_lines_of_the_standard_input() {
    let used = used().await;
    let told = used.run(&["publish", "quake.recorded", NORTH]).await.ok();
    assert!(told.out.starts_with("published ") && told.out.ends_with(" to 1 group\n"), "{told:?}");
    let told = used.run(&["publish", "quake.recorded", NORTH, "--json"]).await.ok();
    assert_eq!(told.values()[0]["groups"], 1);
    let path = std::env::temp_dir().join(format!("edri-payload-{}.json", std::process::id()));
    std::fs::write(&path, NORTH).expect("written");
    used.run(&["publish", "quake.recorded", &format!("@{}", path.display())]).await.ok();
    std::fs::remove_file(&path).expect("removed");
    let lines = format!("{NORTH}\n\n").repeat(1_000);
    let told = used.run_with(&["publish", "quake.recorded", "-", "--json"], &lines).await.ok();
    assert_eq!(told.values(), [json!({"published": 1000, "deliveries": 1000})]);
    used.node.at_rest().await;
    assert_eq!(used.node.topology().manager("model").expect("there").account.handled, 1_003);
    let told = used.run_with(&["publish", "quake.recorded", "-"], &format!("{NORTH}\nno json\n{NORTH}\n")).await;
    assert!(told.failed(2, "line 2 is no JSON").out.contains("published 1 events"));
    used.run(&["publish", "quake.recorded", "{]"]).await.failed(2, "no JSON");
    used.run(&["publish", "quake.recorded", r#"{"region": 5}"#]).await.failed(1, "edri events quake.recorded");
    used.run(&["publish", "risk.assess", NORTH]).await.failed(2, "is a request");
    used.run(&["publish", "quake.unheard", NORTH]).await.failed(5, "edri events");
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_or_says_why_not_with_its_exit_code() {
    let used = used().await;
    let ask = r#"{"region": "north"}"#;
    let told = used.run(&["request", "risk.assess", ask]).await.ok();
    assert_eq!(told.out, "{\n  \"of\": \"north\",\n  \"probability\": 0.25\n}\n");
    let told = used.run(&["request", "risk.assess", ask, "--json", "--to", "north/model"]).await.ok();
    assert_eq!(told.values(), [json!({"of": "north", "probability": 0.25})]);
    let told = used.run(&["request", "risk.assess", ask, "--json", "--all"]).await.ok();
    assert_eq!(told.values(), [json!({"from": "north/model", "value": {"of": "north", "probability": 0.25}})]);
    let told = used.run(&["request", "risk.assess", ask, "--all"]).await.ok();
    assert!(told.out.starts_with("north/model  {"), "{told:?}");
    used.run(&["request", "risk.assess", r#"{"region": "nowhere"}"#])
        .await
        .failed(1, "no_region: there is no such region");
    used.run(&["request", "risk.nobody"]).await.failed(5, "nobody handles `risk.nobody`");
    used.run(&["request", "risk.assess", ask, "--to", "other"]).await.failed(5, "at `other`");
    let never = r#"{"region": "never"}"#;
    used.run(&["request", "risk.assess", never, "--timeout", "100ms"]).await.failed(6, "--timeout");
    used.run(&["request", "risk.assess", ask, "--timeout", "soon"]).await.failed(2, "is no unit");
    used.run(&["request", "risk.assess", ask, "--to", "a", "--all"]).await.failed(2, "cannot be used with");
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_what_is_missing() {
    let used = used().await;
    done(used.spawn_as_user(&["request", "risk.assess", r#"{"region": "north"}"#])).await.ok();
    done(used.spawn_as_user(&["managers"])).await.failed(4, "`edri.>`");
    done(used.spawn_as_user(&["drain"])).await.failed(4, "`edri.>`");
    let wrong = used.command(&["managers"]).env("EDRI_TOKEN", "wrong").spawn().expect("starts");
    done(wrong).await.failed(4, "the token is not known there");
    let file = std::env::temp_dir().join(format!("edri-token-{}", std::process::id()));
    std::fs::write(&file, format!("{}\n", used.operator)).expect("written");
    let path = file.display().to_string();
    done(used.command(&["managers", "--token-file", &path]).spawn().expect("starts")).await.ok();
    std::fs::remove_file(&file).expect("removed");
    let gone = used.command(&["managers", "--token-file", &path]).spawn().expect("starts");
    done(gone).await.failed(2, "token file");
    // Without a token nobody may do anything here.
    let nobody = used.command(&["managers"]).spawn().expect("starts");
    done(nobody).await.failed(4, "edri.>");
    used.node.shutdown().await;
    let gone = used.command(&["managers"]).env("EDRI_TOKEN", &used.operator).spawn().expect("starts");
    done(gone).await.failed(3, "check that the node runs");
    let odd = used.command(&["managers", "--url", "ftp://127.0.0.1"]).spawn().expect("starts");
    done(odd).await.failed(2, "ftp://127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_subscribed_to_is_shown_by_name_key_and_conditions_until_enough_has_come() {
    let used = used().await;
    let arguments = ["subscribe", "quake.*", "--key", "north", "--where", "magnitude>=5", "--count", "2", "--json"];
    let child = used.spawn(&arguments);
    used.publish_to_all("north", 5.0).await;
    for (region, magnitude) in [("north", 4.0), ("south", 6.0), ("north", 7.5)] {
        let quake = crate::node::Quake { region: region.to_owned(), magnitude };
        used.node.bus().publish(quake).await.expect("published");
    }
    let values = done(child).await.ok().values();
    let magnitudes: Vec<_> = values.iter().map(|value| value["payload"]["magnitude"].clone()).collect();
    assert_eq!(magnitudes, [json!(5.0), json!(7.5)]);
    assert_eq!((&values[0]["event"], &values[0]["key"]), (&json!("quake.recorded"), &json!("north")));
    used.run(&["subscribe", "quake.recorded", "--where", "magnitude"]).await.failed(2, "field>=5");
    used.run(&["subscribe", "quake.recorded.>.x"]).await.failed(2, ">");
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_begins_with_the_last_events_or_behind_one_that_was_seen() {
    let app = edri::App::new("north").manager(crate::node::model());
    let used = crate::node::start(app.history("quake.recorded", edri::History::new().events(4))).await;
    for magnitude in 1..=6 {
        let quake = crate::node::Quake { region: "north".to_owned(), magnitude: f64::from(magnitude) };
        used.node.bus().publish(quake).await.expect("published");
    }
    let magnitudes = |values: &[serde_json::Value]| {
        values.iter().map(|value| value["payload"]["magnitude"].as_f64().expect("a number")).collect::<Vec<_>>()
    };
    let seen = used.run(&["subscribe", "quake.recorded", "--last", "3", "--count", "3", "--json"]).await.ok().values();
    assert_eq!(magnitudes(&seen), [4.0, 5.0, 6.0]);
    let place = seen[1]["position"].as_str().expect("a place");
    let on = ["subscribe", "quake.recorded", "--since", place, "--count", "2", "--json"];
    let child = used.spawn(&on);
    let quake = crate::node::Quake { region: "north".to_owned(), magnitude: 7.0 };
    used.node.bus().publish(quake).await.expect("published");
    assert_eq!(magnitudes(&done(child).await.ok().values()), [6.0, 7.0], "those before, then those that come");
    // What the history has forgotten is told of.
    let first = ["subscribe", "quake.recorded", "--last", "9", "--where", "magnitude>=6", "--count", "2"];
    assert_eq!(used.run(&first).await.ok().out.lines().count(), 2);
    used.run(&["subscribe", "quake.*", "--last", "1"]).await.failed(5, "[histories.\"quake.*\"]");
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_subscription_and_takes_a_request_back() {
    let used = used().await;
    let child = used.spawn(&["subscribe", "quake.recorded"]);
    used.publish_to_all("north", 1.0).await;
    interrupt(&child);
    done(child).await.failed(130, "");
    crate::node::until("its end", || used.node.topology().subscriptions.is_empty()).await;
    let child = used.spawn(&["request", "risk.assess", r#"{"region": "never"}"#]);
    crate::node::until("the request", || used.node.topology().pending == 1).await;
    interrupt(&child);
    done(child).await.failed(130, "");
    crate::node::until("its end", || used.node.topology().pending == 0).await;
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_nobody_reads_any_more_is_a_quiet_end() {
    let used = used().await;
    let mut child = used.spawn(&["subscribe", "quake.recorded"]);
    used.publish_to_all("north", 1.0).await;
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("read").expect("a line");
    assert!(line.ends_with(r#"quake.recorded  {"magnitude":1.0,"region":"north"}"#), "{line}");
    drop(lines);
    // More than one: a program that another test is starting just then has our end of the pipe too, until it is that program.
    let publish = async {
        loop {
            let quake = Quake { region: "north".to_owned(), magnitude: 2.0 };
            used.node.bus().publish(quake).await.expect("published");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::select! {
        done = done(child) => done,
        () = publish => unreachable!("it goes on until the command ends"),
    };
    assert_eq!(done.ok().err, "");
    used.node.shutdown().await;
}
