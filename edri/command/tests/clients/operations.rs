//! What a node tells of itself, and what is done about it.

use std::time::Duration;

use edri::keys::{Authority, Identity};
use edri::prelude::*;
use serde_json::json;

use crate::node::{Quake, Used, done, model, start, until, used};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_of_its_managers_workers_and_events() {
    let used = used().await;
    let table = used.run(&["managers"]).await.ok().out;
    let head = table.lines().next().expect("a head");
    assert!(head.starts_with("NODE   MANAGER  STATE"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("north  model    running")), "{table}");
    assert!(!table.contains('\x1b'), "no colours into a pipe: {table:?}");
    let values = used.run(&["managers", "--json", "--to", "north"]).await.ok().values();
    let model = values.iter().find(|value| value["name"] == "model").expect("listed");
    assert_eq!((&model["seen_by"], &model["state"]), (&json!("north"), &json!("running")));
    assert!(used.run(&["workers", "model"]).await.ok().out.contains("running"));
    assert_eq!(used.run(&["workers", "model", "--json"]).await.ok().values()[0]["instance"], 0);
    used.run(&["workers", "nobody"]).await.failed(5, "no manager `nobody`");
    assert!(used.run(&["nodes"]).await.ok().out.contains("north"));
    assert_eq!(used.run(&["nodes", "--json", "--all"]).await.ok().values()[0]["phase"], "running");
    used.run(&["links"]).await.ok().failed(0, "no links");
    used.run(&["managers", "--to", "south"]).await.failed(5, "no node `south`");
    let table = used.run(&["events"]).await.ok().out;
    assert!(table.lines().any(|line| line.starts_with("quake.recorded") && line.contains("region")), "{table}");
    let values = used.run(&["events", "quake.*", "--json"]).await.ok().values();
    assert_eq!(values.len(), 1);
    let one = used.run(&["events", "quake.recorded"]).await.ok().out;
    assert!(one.contains("A quake was recorded somewhere.") && one.contains("\"magnitude\""), "{one}");
    used.run(&["events", "quake.unheard"]).await.failed(5, "knows no event");
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_resent_and_dropped() {
    let used = used().await;
    let nowhere = r#"{"region": "nowhere", "magnitude": 1.5}"#;
    for _ in 0..3 {
        used.run(&["publish", "quake.recorded", nowhere]).await.ok();
    }
    until("dead letters", || used.node.bus().dead_letters().len() == 3).await;
    let table = used.run(&["dead-letters", "list"]).await.ok().out;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("quake.recorded") && table.contains("failed") && table.contains("no_region"), "{table}");
    let values =
        used.run(&["dead-letters", "list", "--json", "--event", "quake.*", "--limit", "2"]).await.ok().values();
    let numbers: Vec<_> = values.iter().filter_map(|value| value["number"].as_u64()).collect();
    assert!(numbers.len() == 2 && numbers[0] > numbers[1], "the newest first: {numbers:?}");
    assert!(used.run(&["dead-letters", "list", "--reason", "expired", "--json"]).await.ok().values().is_empty());
    used.run(&["dead-letters", "list", "--reason", "odd"]).await.failed(2, "unknown variant");
    let newest = numbers[0].to_string();
    let shown = used.run(&["dead-letters", "show", &newest]).await.ok().out;
    assert!(shown.contains("manager `model`") && shown.contains("\"magnitude\": 1.5"), "{shown}");
    let value = &used.run(&["dead-letters", "show", &newest, "--json"]).await.ok().values()[0];
    assert_eq!(value["payload"], json!({"region": "nowhere", "magnitude": 1.5}));
    used.run(&["dead-letters", "show", "9999"]).await.failed(5, "no dead letter 9999");
    let told = used.run(&["dead-letters", "resend", &newest, "--json"]).await.ok();
    assert_eq!(told.values(), [json!({"number": numbers[0]})]);
    // It fails again, and is a new one.
    until("the dead letter", || used.node.bus().dead_letters().len() == 3).await;
    used.run(&["dead-letters", "resend", &newest]).await.failed(5, "not kept");
    assert_eq!(used.run(&["dead-letters", "resend", "--all"]).await.ok().out, "resent 3 dead letters\n");
    until("the dead letters", || used.node.bus().dead_letters().len() == 3).await;
    used.run(&["dead-letters", "drop"]).await.failed(2, "required");
    let oldest = used.node.bus().dead_letters()[0].number.to_string();
    assert_eq!(used.run(&["dead-letters", "drop", &oldest]).await.ok().out, "dropped 1 dead letters\n");
    let told = used.run(&["dead-letters", "drop", "--all", "--group", "model", "--json"]).await.ok();
    assert_eq!(told.values(), [json!({"dropped": 2, "missing": 0})]);
    assert!(used.node.bus().dead_letters().is_empty());
    used.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_is_taken_off_and_a_node_is_stopped_in_good_order() {
    let used = used().await;
    used.run(&["drain", "--manager", "nobody"]).await.failed(5, "no manager `nobody`");
    used.run(&["drain", "--manager", "edri"]).await.failed(1, "drain its node");
    let told = used.run(&["drain", "--manager", "model"]).await.ok();
    assert_eq!(told.out, "the manager `model` is off its node\n");
    assert!(used.node.managers().is_empty());
    let told = used.run(&["drain", "--json"]).await.ok();
    let states: Vec<_> = told.values().iter().map(|value| value["state"].clone()).collect();
    assert_eq!(states, [json!("stopping"), json!("stopped")]);
    let report = tokio::time::timeout(crate::node::LIMIT, used.node.stopped()).await.expect("stops");
    assert!(report.unfinished.is_empty() && report.account.is_balanced(), "{report:?}");
    used.run(&["nodes"]).await.failed(3, "check that the node runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_events_come_to_those_who_may_have_them_by_name_and_not_with_everything() {
    let used = used().await;
    done(used.spawn_as_user(&["subscribe", "edri.manager.changed"])).await.failed(4, "`edri.>`");
    let user = used.spawn_as_user(&["subscribe", ">", "--count", "2", "--json"]);
    used.publish_to_all("north", 1.0).await;
    let operator = used.spawn(&["subscribe", "edri.>", "--count", "1", "--json"]);
    until("both subscriptions", || used.node.topology().subscriptions.len() == 2).await;
    // Shown before it is in place: asked for until it has one.
    used.run(&["drain", "--manager", "model"]).await.ok();
    let again = async {
        loop {
            used.node.add(model()).await.expect("added");
            used.node.drain("model").await.expect("drained");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let values = tokio::select! {
        told = done(operator) => told.ok().values(),
        () = again => Vec::new(),
    };
    assert!(values[0]["event"].as_str().is_some_and(|event| event.starts_with("edri.")), "{values:?}");
    used.node.bus().publish(Quake { region: "north".to_owned(), magnitude: 2.0 }).await.expect("published");
    let magnitudes: Vec<_> =
        done(user).await.ok().values().iter().map(|value| value["payload"]["magnitude"].clone()).collect();
    assert_eq!(magnitudes, [json!(1.0), json!(2.0)]);
    used.node.shutdown().await;
}

/// Two nodes with a link; the gateway is north's.
async fn two() -> (Used, edri::Node) {
    let authority = Authority::generate().expect("an authority");
    let identity = |node: &str| -> Identity {
        let name = edri::NodeName::new(node).expect("a name");
        authority.issue(&name, Duration::from_secs(3_600)).expect("an identity")
    };
    let south = App::new("south")
        .manager(model())
        .connector(Connector::listen("127.0.0.1:0").with_identity(identity("south")))
        .start()
        .await
        .expect("starts");
    let address = south.link_address().expect("it listens").to_string();
    let connector = Connector::dial().connect(&address).with_identity(identity("north"));
    let north = start(App::new("north").manager(model()).connector(connector).expects("south")).await;
    (north, south)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_one_node_every_node_of_the_cluster_is_asked() {
    let (north, south) = two().await;
    let values = north.run(&["managers", "--to", "south", "--json"]).await.ok().values();
    assert!(values.iter().all(|value| value["seen_by"] == "south") && values.len() == 2, "{values:?}");
    let values = north.run(&["workers", "model", "--all", "--json"]).await.ok().values();
    let nodes: Vec<_> = values.iter().map(|value| value["seen_by"].clone()).collect();
    assert_eq!(nodes, [json!("north"), json!("south")]);
    let table = north.run(&["links"]).await.ok().out;
    assert!(table.lines().any(|line| line.starts_with("north  south  up")), "{table}");
    let table = north.run(&["nodes", "--all"]).await.ok().out;
    assert!(table.lines().any(|line| line.contains("south    north") && line.contains("reachable")), "{table}");
    let ask = r#"{"region": "north"}"#;
    let values = north.run(&["request", "risk.assess", ask, "--all", "--json"]).await.ok().values();
    assert_eq!(values.len(), 2, "{values:?}");
    north.run(&["request", "risk.assess", ask, "--to", "south/"]).await.ok();
    north.run(&["drain", "--to", "south", "--manager", "model"]).await.ok();
    north.run(&["request", "risk.assess", ask, "--to", "south/model"]).await.failed(5, "at `south/model`");
    let told = north.run(&["drain", "--to", "south"]).await.ok();
    assert_eq!(told.out.lines().last(), Some("`south` has stopped"));
    tokio::time::timeout(Duration::from_secs(10), south.stopped()).await.expect("stops");
    north.run(&["managers", "--to", "south"]).await.failed(5, "no node `south`");
    north.node.shutdown().await;
}
