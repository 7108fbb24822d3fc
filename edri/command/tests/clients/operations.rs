//! What a node tells of itself.

use serde_json::json;

use crate::node::used;

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
